//! What `--help` and the documents say about flags, variables and exit codes is so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::cli::{harbinger, text};

const SUBCOMMANDS: &[&str] = &[
    "simulate",
    "explain",
    "scan",
    "provisioner",
    "webhook",
    "run",
    "doctor",
    "certs",
    "convert",
    "crds",
];
/// Subcommands that run in a cluster.
const ROLES: &[&str] = &["provisioner", "webhook", "run"];

fn help(subcommand: &str) -> String {
    text(&harbinger(&[subcommand, "--help"]).stdout)
}

/// Flags of a help text, each with its environment variable.
fn flags(help: &str) -> BTreeMap<String, Option<String>> {
    let mut flags = BTreeMap::new();
    let mut last = None;
    for line in help.lines() {
        let start = line.trim_start();
        let start = start.split_once(", --").map_or(start, |(_, long)| long);
        let start = start.strip_prefix("--").unwrap_or(start);
        let dashed = line.trim_start();
        let is_flag =
            dashed.starts_with("--") || dashed.get(..4).is_some_and(|s| s.ends_with(", -"));
        if is_flag {
            let name: String =
                start.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
            flags.insert(name.clone(), None);
            last = Some(name);
        }
        if let (Some(name), Some((_, rest))) = (&last, line.split_once("[env: ")) {
            let variable = rest.split(['=', ']']).next().unwrap_or_default();
            flags.insert(name.clone(), Some(variable.to_owned()));
        }
    }
    for common in ["help", "version"] {
        flags.remove(common);
    }
    flags
}

#[test]
fn the_overview_lists_every_subcommand_and_exit_code() {
    let out = text(&harbinger(&["--help"]).stdout);
    for word in SUBCOMMANDS.iter().chain(&["Exit codes"]) {
        assert!(out.contains(word), "{word} is not in {out}");
    }
}

#[test]
fn every_subcommand_lists_its_exit_codes() {
    for subcommand in SUBCOMMANDS {
        assert!(help(subcommand).contains("Exit codes: 0 "), "{subcommand}");
    }
}

#[test]
fn every_flag_of_a_role_has_a_variable() {
    for role in ROLES {
        for (flag, variable) in flags(&help(role)) {
            let variable = variable.unwrap_or_default();
            let derived = format!("HARBINGER_{}", flag.to_uppercase().replace('-', "_"));
            assert!(
                variable == derived || flag == "kubeconfig" && variable == "KUBECONFIG",
                "{role} --{flag}: {variable:?}"
            );
        }
    }
}

#[test]
fn the_table_of_flags_is_complete_and_true() {
    let told = read(Path::new("docs/processes.md"));
    let mut listed: BTreeSet<(String, String)> = BTreeSet::new();
    for line in told.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, flag, variable, ..] = cells[..] else { continue };
        let Some(flag) = flag.strip_prefix("`--") else { continue };
        let flag = flag.trim_end_matches('`').split(' ').next().unwrap_or_default();
        listed.insert((flag.to_owned(), variable.trim_matches('`').to_owned()));
    }
    let mut real = BTreeSet::new();
    for role in ROLES {
        for (flag, variable) in flags(&help(role)) {
            real.insert((flag, variable.unwrap_or_default()));
        }
    }
    assert_eq!(listed, real);
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Every document for users.
fn documents() -> Vec<PathBuf> {
    let mut all = vec![PathBuf::from("README.md"), PathBuf::from("webhook-certs/README.md")];
    for entry in std::fs::read_dir("docs").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "md") {
            all.push(path);
        }
    }
    all
}

/// The commands of our program in the shell blocks of a document.
fn commands(document: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut inside = false;
    let mut joined = String::new();
    for line in document.lines() {
        if line.starts_with("```") {
            inside = line.trim() == "```sh";
            continue;
        }
        if !inside {
            continue;
        }
        joined.push_str(line.trim_end_matches('\\'));
        if line.ends_with('\\') {
            continue;
        }
        let command = std::mem::take(&mut joined);
        let command = command.split(" #").next().unwrap_or_default().trim().to_owned();
        let ours =
            command.strip_prefix("cargo run --release -- ").or(command.strip_prefix("harbinger "));
        commands.extend(ours.map(str::to_owned));
    }
    commands
}

#[test]
fn documents_name_only_commands_and_flags_that_exist() {
    let mut seen = 0;
    for path in documents() {
        for command in commands(&read(&path)) {
            let place = format!("{}: {command}", path.display());
            let mut words = command.split([' ', '=']).filter(|word| !word.is_empty());
            let subcommand = words.next().unwrap();
            assert!(SUBCOMMANDS.contains(&subcommand), "{place}");
            let known = flags(&help(subcommand));
            for flag in words.filter_map(|word| word.trim_start_matches('[').strip_prefix("--")) {
                let flag = flag.trim_end_matches(']');
                assert!(known.contains_key(flag) || flag == "help", "{place}: --{flag}");
            }
            seen += 1;
        }
    }
    assert!(seen > 5, "only {seen} commands were found");
}

#[test]
fn links_between_documents_lead_somewhere() {
    for path in documents() {
        let text = read(&path);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || link.contains("://") {
                continue;
            }
            let target = path.parent().unwrap().join(file);
            assert!(target.exists(), "{}: {link}", path.display());
        }
    }
}
