//! Each row of docs/behaviour.md names tests that are there.

use std::path::Path;

#[test]
fn rows_are_held_by_tests() {
    let root = Path::new(".");
    let text = std::fs::read_to_string(root.join("docs/behaviour.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
    let rows: Vec<&str> = rows.filter(|line| !line.ends_with("| held by |")).collect();
    assert!(rows.len() > 10, "{} rows", rows.len());
    for row in rows {
        let held = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for test in held.split(", ") {
            let (file, name) = test.split_once("` `").unwrap_or_else(|| panic!("{row}"));
            let (file, name) = (file.trim_start_matches('`'), name.trim_end_matches('`'));
            let source = std::fs::read_to_string(root.join(file)).unwrap_or_default();
            let at = source.find(&format!("fn {name}()"));
            let at = at.unwrap_or_else(|| panic!("{file} has no {name}"));
            let above = source[..at].trim_end_matches("async ").trim_end();
            let attribute = above.lines().next_back().unwrap();
            assert!(attribute.contains("test"), "{file}: {name} is no test");
        }
    }
}
