//! Reading manifests: files and folders of YAML and JSON, several documents each.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Where an object was read.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Origin {
    /// File as it was named.
    pub file: String,
    /// Position of the document in the file, from 1.
    pub document: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.document > 1 { write!(f, " (document {})", self.document) } else { Ok(()) }
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
            origin: Origin { file: file.display().to_string(), document: 0 },
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
                    "the folder has no manifests (.yaml, .yml or .json)",
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
    let failed = |error: std::io::Error| InputError::of_file(file, error.to_string());
    let mut bytes = Vec::new();
    if file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut bytes).map_err(failed)?;
    } else {
        bytes = std::fs::read(file).map_err(failed)?;
    }
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&*bytes).read_to_end(&mut text).map_err(failed)?;
        bytes = text;
    }
    String::from_utf8(bytes).map_err(|_| InputError::of_file(file, "the file is not UTF-8 text"))
}

fn parse(file: &Path, text: &str) -> Result<Vec<(Origin, Value)>, InputError> {
    let documents = if text.trim_start().starts_with(['{', '[']) {
        let values: Result<Vec<Value>, _> =
            serde_json::Deserializer::from_str(text).into_iter().collect();
        values.map_err(|error| InputError::of_file(file, format!("broken JSON: {error}")))?
    } else {
        let options = serde_saphyr::options! { budget: None };
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
            let place = error.location().map_or(String::new(), |at| {
                format!(" at line {}, column {}", at.line(), at.column())
            });
            let message = error.to_string();
            let first = message.lines().next().unwrap_or_default().trim().to_owned();
            InputError::of_file(file, format!("broken YAML{place}: {first}"))
        })?
    };
    let mut objects = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        let origin = Origin { file: file.display().to_string(), document: index + 1 };
        open(origin, document, &mut objects);
    }
    if objects.is_empty() {
        return Err(InputError::of_file(file, "the file has no objects"));
    }
    Ok(objects)
}

/// Opens `List`s and JSON arrays; empty documents are nothing.
fn open(origin: Origin, document: Value, objects: &mut Vec<(Origin, Value)>) {
    match document {
        Value::Null => {}
        Value::Array(items) => {
            for item in items {
                open(origin.clone(), item, objects);
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
