//! Every code of an advice has its entry in the documents, and no entry is of a code that is gone.

use std::collections::BTreeSet;
use std::path::Path;

use harbinger::advice::Code;

#[test]
fn every_code_has_an_entry_and_every_entry_a_code() {
    let file = Path::new("docs/advice.md");
    let text = std::fs::read_to_string(file).unwrap();
    let entries: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let codes: BTreeSet<&str> = Code::ALL.into_iter().map(Code::name).collect();
    assert_eq!(entries, codes);
}
