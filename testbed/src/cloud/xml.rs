//! Just enough XML to read moto's answers and to write our own: elements and text, no attributes.

use std::fmt::Write;

use anyhow::{Context, Result, bail, ensure};

/// An element with its children or its text.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Element {
    pub name: String,
    pub text: String,
    pub children: Vec<Self>,
}

impl Element {
    /// Reads a document.
    pub fn parse(document: &str) -> Result<Self> {
        let mut stack = vec![Self::default()];
        let mut rest = document;
        while let Some(start) = rest.find('<') {
            let text = unescape(rest[..start].trim());
            stack.last_mut().context("text after the root")?.text += &text;
            let end = start + rest[start..].find('>').context("a tag does not end")?;
            let tag = &rest[start + 1..end];
            rest = &rest[end + 1..];
            if tag.starts_with(['?', '!']) {
                continue;
            }
            if let Some(name) = tag.strip_prefix('/') {
                let element = stack.pop().context("more ends than starts")?;
                ensure!(element.name == name, "<{}> ends as </{name}>", element.name);
                stack.last_mut().context("more ends than starts")?.children.push(element);
                continue;
            }
            let bare = tag.trim_end_matches('/');
            let name = bare.split_whitespace().next().context("a tag without a name")?;
            let element = Self { name: name.to_owned(), ..Self::default() };
            if tag.ends_with('/') {
                stack.last_mut().context("an element after the root")?.children.push(element);
            } else {
                stack.push(element);
            }
        }
        let document = stack.pop().context("no document")?;
        ensure!(stack.is_empty(), "<{}> does not end", document.name);
        match <[Self; 1]>::try_from(document.children) {
            Ok([root]) => Ok(root),
            Err(roots) => bail!("{} roots", roots.len()),
        }
    }

    /// The first element at a path such as `placement/availabilityZone`.
    pub fn at(&self, path: &str) -> Option<&Self> {
        path.split('/').try_fold(self, |element, name| {
            element.children.iter().find(|child| child.name == name)
        })
    }

    /// The text at a path; empty when absent.
    pub fn text_at(&self, path: &str) -> &str {
        self.at(path).map_or("", |element| &element.text)
    }

    /// The children (usually `item`s) at a path; none when absent.
    pub fn items(&self, path: &str) -> &[Self] {
        self.at(path).map_or(&[], |element| &element.children)
    }
}

/// Writes `<name>text</name>`.
pub(super) fn write_text(out: &mut String, name: &str, text: &str) {
    // Writing to a String cannot fail.
    write!(out, "<{name}>{}</{name}>", escape(text)).ok();
}

/// Writes `<name>…</name>` around what `content` writes.
pub(super) fn write_element(out: &mut String, name: &str, content: impl FnOnce(&mut String)) {
    write!(out, "<{name}>").ok();
    content(out);
    write!(out, "</{name}>").ok();
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn unescape(text: &str) -> String {
    // The ampersand last, so that `&amp;lt;` stays `&lt;`.
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&#39;", "'")
        .replace("&#34;", "\"")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_moto_writes() {
        let root = Element::parse(
            "<?xml version=\"1.0\"?>\n<R xmlns=\"x\"><set><item><id>a &amp; b</id></item><item/></set>\n<e/></R>",
        )
        .unwrap();
        assert_eq!(root.items("set").len(), 2);
        assert_eq!(root.items("set")[0].text_at("id"), "a & b");
        assert_eq!(root.text_at("set/none"), "");
        assert!(Element::parse("<a><b></a>").is_err());
        assert!(Element::parse("<!doctype html>\n<html lang=en>").is_err());
    }

    #[test]
    fn written_text_reads_back() {
        let mut out = String::new();
        write_element(&mut out, "a", |out| write_text(out, "b", "<&amp;>"));
        assert_eq!(Element::parse(&out).unwrap().text_at("b"), "<&amp;>");
    }
}
