//! What the record on the pod holds, and what it is read for.

use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::{Value, json};

use super::*;

fn quota(left: &str) -> ResourceQuota {
    serde_json::from_value(json!({
        "metadata": { "name": "team" }, "spec": { "hard": { "requests.cpu": left } },
    }))
    .unwrap()
}

fn record(pod: &str) -> Value {
    let pod: Value = serde_json::from_str(pod).unwrap();
    let record = pod["metadata"]["annotations"][RECORD_ANNOTATION].as_str().unwrap();
    serde_json::from_str(record).unwrap()
}

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

#[test]
fn a_record_that_is_too_large_keeps_what_was_set() {
    let quota = quota("2");
    let bounds = Arc::new(Bounds::new(&[], &[quota]));
    let snapshot = snapshot(vec![policy("p", &[(Resource::Cpu, Action::Default)])])
        .with_bounds(BTreeMap::from([("shop".into(), bounds)]));
    let containers: Vec<Value> = (0..40).map(|i| json!({ "name": format!("c{i}") })).collect();
    let text = json!({ "spec": { "containers": containers } }).to_string();
    let stored = patched(&text, &decide_text(&text, &snapshot));
    let record = record(&stored);
    assert_eq!(record["set"].as_object().unwrap().len(), 40);
    assert_eq!(record["set"]["c7"]["cpu"], "50m");
    assert!(record.get("clamped").is_none(), "{record}");
}
