//! The rules of the house, checked on every run: who may use whom, how long a file may be, and that
//! no file is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What each room may use; a room may always use itself. Rooms that are not listed may use all.
const LAYERS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("api", &["model"]),
    ("guard", &["model"]),
    ("usage", &["model"]),
    ("policy", &["model", "api", "guard", "usage"]),
    ("demand", &["model"]),
    ("forecast", &["model"]),
    ("cluster", &["model"]),
    ("schedule", &["model"]),
    ("plan", &["model", "cluster", "demand", "forecast", "schedule"]),
    ("advice", &["model", "policy", "schedule"]),
    ("doctor", &["model", "certs"]),
    ("cloud", &["model", "api"]),
    ("telemetry", &["model"]),
    ("server", &["model", "api"]),
    ("intent", &["model", "advice"]),
    ("certs", &[]),
    ("aws", &["model", "api", "cloud", "telemetry"]),
    ("k8s", &["model", "api", "cluster", "server", "telemetry"]),
    ("admission", &["model", "api", "policy", "advice", "intent", "telemetry"]),
    (
        "control",
        &[
            "model",
            "api",
            "guard",
            "policy",
            "advice",
            "cluster",
            "demand",
            "forecast",
            "schedule",
            "plan",
            "usage",
            "cloud",
            "server",
            "telemetry",
            "intent",
        ],
    ),
    (
        "simulate",
        &[
            "model", "api", "policy", "advice", "cluster", "demand", "forecast", "schedule",
            "plan", "usage", "cloud",
        ],
    ),
];

/// Lines of a file beyond which it must be split; unit tests at its end do not count.
const MOST_LINES: usize = 600;
/// Lines beyond which a file is named in the output.
const MANY_LINES: usize = 400;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found.sort();
}

/// Files of `src` by their path below it, with their text.
fn files() -> BTreeMap<String, String> {
    let root = Path::new("src");
    let mut paths = Vec::new();
    sources(root, &mut paths);
    paths
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// Whether a file holds unit tests only.
fn is_tests(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.contains("/tests/")
}

fn room(file: &str) -> &str {
    let top = file.split('/').next().unwrap();
    top.strip_suffix(".rs").unwrap_or(top)
}

/// Rooms that a text names as `crate::room`.
fn used(text: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let word = |text: &str| -> String {
            text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        match rest.strip_prefix('{').and_then(|group| group.split_once("};")) {
            // Rooms stand at the top of the group.
            Some((group, _)) => {
                let mut depth = 0;
                let tops = group.split(|c: char| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    c == ',' && depth == 0
                });
                rooms.extend(tops.map(word));
            }
            None => {
                rooms.insert(word(rest));
            }
        }
    }
    rooms
}

/// The text before the unit tests.
fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]").map_or(text, |at| &text[..at])
}

#[test]
fn rooms_use_only_lower_rooms() {
    let mut wrong = Vec::new();
    for (file, text) in files() {
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == room(&file)) else {
            continue;
        };
        if is_tests(&file) {
            continue;
        }
        for name in used(without_tests(&text)) {
            if name != room(&file) && !allowed.contains(&&*name) {
                wrong.push(format!("{file} uses {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_the_composition_root_names_adapters() {
    for (file, text) in files() {
        if matches!(room(&file), "app" | "aws" | "cli" | "k8s" | "lib") {
            continue;
        }
        let names = used(&text);
        assert!(!names.contains("aws") && !names.contains("k8s"), "{file} names an adapter");
    }
}

#[test]
fn files_are_short() {
    let mut lengths: Vec<(usize, String)> = files()
        .into_iter()
        .filter(|(file, _)| !is_tests(file))
        .map(|(file, text)| (without_tests(&text).lines().count(), file))
        .collect();
    lengths.sort();
    println!("{} files, median {} lines", lengths.len(), lengths[lengths.len() / 2].0);
    for (lines, file) in lengths.iter().filter(|(lines, _)| *lines > MANY_LINES) {
        println!("{lines} lines: {file}");
    }
    let (most, file) = lengths.last().unwrap();
    assert!(*most <= MOST_LINES, "{file} has {most} lines");
}

#[test]
fn every_file_is_part_of_the_crate() {
    let files = files();
    for file in files.keys() {
        assert!(!file.ends_with("mod.rs"), "{file}: modules are foo.rs beside foo/");
        if matches!(&**file, "lib.rs" | "main.rs") {
            continue;
        }
        let path = Path::new(file);
        let name = path.file_stem().unwrap().to_str().unwrap();
        let parent = match path.parent().unwrap().to_str().unwrap() {
            "" => "lib.rs".to_owned(),
            folder => format!("{folder}.rs"),
        };
        let text = files.get(&parent).unwrap_or_else(|| panic!("{file} has no {parent}"));
        assert!(text.contains(&format!("mod {name};")), "{file} is not a module of {parent}");
    }
}

#[test]
fn metric_names_have_a_known_prefix_and_are_unique() {
    let mut seen = BTreeSet::new();
    for (file, text) in files().into_iter().filter(|(file, _)| !is_tests(file)) {
        for (at, _) in text.match_indices(".register(") {
            let rest = text[at + ".register(".len()..].trim_start();
            let Some(rest) = rest.strip_prefix('"') else { continue };
            let name: String = rest.chars().take_while(|c| *c != '"').collect();
            let prefixed = text[..at].rsplit_once("sub_registry_with_prefix(\"");
            let name = match prefixed.and_then(|(_, rest)| rest.split_once('"')) {
                Some((prefix, _)) => format!("{prefix}_{name}"),
                None => name,
            };
            let known = name.starts_with("harbinger_") || name.starts_with("karpenter_");
            assert!(known, "{file}: metric {name}");
            assert!(seen.insert(name.clone()), "{file}: metric {name} is registered twice");
        }
    }
}
