//! What the record on the pod holds, and what it is read for.

use serde_json::{Value, json};

use super::*;

#[test]
fn a_pod_full_of_annotations_is_left_without_a_record() {
    let rules = [(Resource::Cpu, Action::Default), (Resource::Memory, Action::Default)];
    let snapshot = snapshot(vec![policy("p", &rules)]);
    for (left, recorded) in [(10, false), (2 << 10, true)] {
        // The API server counts keys and values.
        let note = "ü".repeat(((256 << 10) - left - 4) / 2);
        let text = json!({
            "metadata": { "name": "p", "annotations": { "note": note } },
            "spec": { "containers": [{ "name": "a" }] },
        })
        .to_string();
        let decision = decide_text(&text, &snapshot);
        let after: Value = serde_json::from_str(&patched(&text, &decision)).unwrap();
        assert_eq!(after["spec"]["containers"][0]["resources"]["requests"]["cpu"], "250m");
        assert_eq!(after["metadata"]["annotations"].get(RECORD_ANNOTATION).is_some(), recorded);
        let told = decision.mutation_warnings();
        assert_eq!(told.iter().any(|told| told.contains("annotations")), !recorded, "{told:?}");
    }
}
