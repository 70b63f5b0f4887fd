//! Reading manifests: files and folders of YAML and JSON, several documents each.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A packed file may unpack to no more than this; a million pods are about 3 GB.
const LARGEST: u64 = 8 << 30;

/// Where an object was read.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Origin {
    /// File as it was named.
    pub file: String,
    /// Position of the document in the file, from 1.
    pub document: usize,
    /// Position in the document's list, from 1; 0 when it is no list.
    pub item: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        match (self.document, self.item) {
            (0 | 1, 0) => Ok(()),
            (0 | 1, item) => write!(f, " (item {item})"),
            (document, 0) => write!(f, " (document {document})"),
            (document, item) => write!(f, " (document {document}, item {item})"),
        }
    }
}

/// A problem with the input, with its place and what to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InputError {
    /// File and document.
    pub origin: Origin,
    /// Kind and name of the object; empty when there is none.
    pub object: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.object.is_empty() {
            write!(f, "{}: ", self.object)?;
        }
        f.write_str(&self.message)
    }
}

impl InputError {
    fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Self {
            origin: Origin { file: file.display().to_string(), ..Origin::default() },
            object: String::new(),
            message: message.into(),
        }
    }
}

/// All objects of the paths, `List`s opened, in order of path and document.
pub fn load(paths: &[PathBuf]) -> (Vec<(Origin, Value)>, Vec<InputError>) {
    let mut objects = Vec::new();
    let mut errors = Vec::new();
    for path in paths {
        let files = if path.is_dir() {
            let mut files = Vec::new();
            walk(path, &mut files, &mut errors);
            if files.is_empty() {
                errors.push(InputError::of_file(
                    path,
                    "the folder has no manifests; give one with .yaml, .yml or .json files",
                ));
            }
            files
        } else {
            vec![path.clone()]
        };
        for file in files {
            match read(&file).and_then(|text| parse(&file, &text)) {
                Ok(documents) => objects.extend(documents),
                Err(error) => errors.push(error),
            }
        }
    }
    (objects, errors)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>, errors: &mut Vec<InputError>) {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return errors.push(InputError::of_file(folder, error.to_string())),
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !name.starts_with('.') {
                walk(&path, files, errors);
            }
        } else if is_manifest(name) {
            files.push(path);
        }
    }
}

fn is_manifest(name: &str) -> bool {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    [".yaml", ".yml", ".json"].iter().any(|ending| name.ends_with(ending))
}

/// The text of a file; `-` is standard input, and `.gz` is opened.
pub fn read(file: &Path) -> Result<String, InputError> {
    let failed = |error: std::io::Error| {
        let fix = match error.kind() {
            std::io::ErrorKind::NotFound => "; check the path",
            std::io::ErrorKind::PermissionDenied => "; make it readable",
            _ => "",
        };
        InputError::of_file(file, format!("{error}{fix}"))
    };
    let mut bytes = Vec::new();
    if file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut bytes).map_err(failed)?;
    } else {
        bytes = std::fs::read(file).map_err(failed)?;
    }
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut text = Vec::new();
        let unpacked = flate2::read::GzDecoder::new(&*bytes).take(LARGEST).read_to_end(&mut text);
        let unpacked = unpacked.map_err(|error| {
            InputError::of_file(file, format!("broken gzip: {error}; pack it again"))
        })?;
        if u64::try_from(unpacked).is_ok_and(|size| size >= LARGEST) {
            let message = format!("more than {} GiB unpacked; split the file", LARGEST >> 30);
            return Err(InputError::of_file(file, message));
        }
        bytes = text;
    }
    // Editors of some systems begin a file with a mark of its encoding.
    if bytes.starts_with(&[0xef, 0xbb, 0xbf]) {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|error| {
        let bytes = error.as_bytes();
        let what = if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            "the file is UTF-16".to_owned()
        } else {
            let at = error.utf8_error().valid_up_to();
            let line = bytes[..at].split(|byte| *byte == b'\n').count();
            format!("the file is not UTF-8 text: a byte in line {line} is none")
        };
        InputError::of_file(file, format!("{what}; save it as UTF-8"))
    })
}

/// Documents of a text, as YAML or JSON by their first sign.
fn parse(file: &Path, text: &str) -> Result<Vec<(Origin, Value)>, InputError> {
    let file = file.display().to_string();
    parse_text(&file, text).map_err(|message| InputError {
        origin: Origin { file, ..Origin::default() },
        object: String::new(),
        message,
    })
}

/// Documents of a text.
///
/// # Errors
/// A message with the place and what to do.
pub fn parse_text(file: &str, text: &str) -> Result<Vec<(Origin, Value)>, String> {
    let documents = if text.trim_start().starts_with(['{', '[']) {
        let values: Result<Vec<Value>, _> =
            serde_json::Deserializer::from_str(text).into_iter().collect();
        values.or_else(|error| {
            // Braces begin a document in YAML, too, and there keys need no quotes.
            yaml(text).map_err(|_| {
                format!("broken JSON: {error}; mend that place, or write YAML without braces")
            })
        })?
    } else {
        yaml(text)?
    };
    let mut objects = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        let origin = Origin { file: file.to_owned(), document: index + 1, item: 0 };
        open(origin, document, &mut objects);
    }
    if objects.is_empty() {
        return Err("the file has no objects; write some, or leave it out".to_owned());
    }
    Ok(objects)
}

fn yaml(text: &str) -> Result<Vec<Value>, String> {
    // Depth and aliases stay bounded: nesting costs stack, and aliases of aliases grow without end.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_documents: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
            max_depth: 128,
            enforce_alias_anchor_ratio: false,
        },
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let message = error.to_string();
        let first = message.lines().next().unwrap_or_default().trim();
        let Some(at) = error.location() else {
            return format!("broken YAML: {first}; mend it");
        };
        let (line, column) = (at.line(), at.column());
        let what = first.strip_prefix(&format!("error: line {line} column {column}: "));
        let what = what.unwrap_or(first);
        format!(
            "broken YAML at line {line}, column {column}: {what}; mend that place (indentation, \
             quotes, a colon?)"
        )
    })
}

/// Opens `List`s and JSON arrays; empty documents are nothing.
fn open(origin: Origin, document: Value, objects: &mut Vec<(Origin, Value)>) {
    match document {
        Value::Null => {}
        Value::Array(items) => {
            for (index, item) in items.into_iter().enumerate() {
                open(Origin { item: index + 1, ..origin.clone() }, item, objects);
            }
        }
        Value::Object(mut map)
            if map
                .get("kind")
                .and_then(Value::as_str)
                .is_some_and(|kind| kind.ends_with("List"))
                && map.get("items").is_some_and(Value::is_array) =>
        {
            open(origin, map.remove("items").unwrap_or_default(), objects);
        }
        other => objects.push((origin, other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(name: &str, text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        let (objects, errors) = load(&[file]);
        assert!(objects.is_empty() || errors.is_empty());
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn names_file_and_place() {
        assert!(errors("a.yaml", "a: [1\nb: 2\n").contains("a.yaml: broken YAML at line"));
        assert!(errors("a.json", "{\"a\":").contains("a.json: broken JSON"));
        assert!(errors("a.yaml", "").contains("has no objects"));
        assert!(errors("a.yaml", "---\n---\n").contains("has no objects"));
        assert_eq!(errors("a.yaml", "kind: X\n---\nkind: Y\n"), "");
    }

    #[test]
    fn lists_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(
            &file,
            "kind: List\nitems:\n- kind: A\n- kind: PodList\n  items: [{kind: B}]\n",
        )
        .unwrap();
        let (objects, errors) = load(&[folder.path().to_owned()]);
        assert_eq!((objects.len(), errors.len()), (2, 0));
    }
}
