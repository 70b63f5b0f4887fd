//! MIME archives: several documents in one user data.

use std::fmt::Write;

/// Boundary of the archives that are written here; it is what the field uses.
const BOUNDARY: &str = "//";
/// Type of a shell script, which cloud-init runs.
pub(super) const SCRIPT: &str = "text/x-shellscript; charset=\"us-ascii\"";

/// One document: its header lines and its text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Part {
    headers: String,
    body: String,
}

impl Part {
    /// A document of a type.
    pub(super) fn new(content_type: &str, body: &str) -> Self {
        Self { headers: format!("Content-Type: {content_type}"), body: body.to_owned() }
    }
}

/// Reads an archive; `None` when the text is none.
pub(super) fn read(text: &str) -> Option<Vec<Part>> {
    let text = text.replace('\r', "");
    let (head, rest) = text.split_once("\n\n")?;
    let is_archive = head.lines().any(|line| line.to_lowercase().starts_with("mime-version:"));
    // A header may go on in the next line.
    let head = head.replace("\n ", " ").replace("\n\t", " ");
    let kind = head.lines().find(|line| line.to_lowercase().starts_with("content-type:"))?;
    let boundary = kind.split_once("boundary=")?.1.trim();
    let boundary = match boundary.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => boundary.split([';', ' ']).next()?,
    };
    if !is_archive || boundary.is_empty() {
        return None;
    }
    let (opening, closing) = (format!("--{boundary}"), format!("--{boundary}--"));
    let mut parts = Vec::new();
    let mut current: Option<Vec<&str>> = None;
    for line in rest.lines() {
        if line.trim_end() == opening || line.trim_end() == closing {
            parts.extend(current.take().map(|lines| part(&lines)));
            current = (line.trim_end() == opening).then(Vec::new);
        } else if let Some(lines) = &mut current {
            lines.push(line);
        }
    }
    parts.extend(current.map(|lines| part(&lines)));
    Some(parts)
}

fn part(lines: &[&str]) -> Part {
    let split = lines.iter().position(|line| line.is_empty()).unwrap_or(lines.len());
    let body = lines.get(split + 1..).unwrap_or_default().join("\n");
    Part { headers: lines[..split].join("\n"), body }
}

/// Writes an archive.
pub(super) fn write(parts: &[Part]) -> String {
    let mut text =
        format!("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\n\n");
    for Part { headers, body } in parts {
        let end = if body.ends_with('\n') { "" } else { "\n" };
        // Writing to a text cannot fail.
        write!(text, "--{BOUNDARY}\n{headers}\n\n{body}{end}\n").ok();
    }
    text.extend(["--", BOUNDARY, "--\n"]);
    text
}
