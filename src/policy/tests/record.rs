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

/// A policy that verifies cpu, in a namespace where `left` is left of it.
fn world(left: &str) -> Snapshot {
    let bounds = Arc::new(Bounds::new(&[], &[quota(left)]));
    snapshot(vec![policy("p", &[(Resource::Cpu, Action::DefaultAndVerify)])])
        .with_bounds(BTreeMap::from([("shop".into(), bounds)]))
}

fn record(pod: &str) -> Value {
    let pod: Value = serde_json::from_str(pod).unwrap();
    let record = pod["metadata"]["annotations"][RECORD_ANNOTATION].as_str().unwrap();
    serde_json::from_str(record).unwrap()
}

const BARE: &str = r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"a"}]}}"#;

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

#[test]
fn what_we_held_back_is_not_refused_when_room_comes_back() {
    let (full, free) = (world("5m"), world("1"));
    let held_back = decide_text(BARE, &full);
    assert_eq!(held_back.findings[0].action, Action::Warn);
    let stored = patched(BARE, &held_back);
    assert!(decide_text(&stored, &full).patch.is_empty(), "another round adds nothing");
    let later = decide_text(&stored, &free);
    assert_eq!(later.verdict, Verdict::Allow);
    assert_eq!(
        later.validation_warnings(),
        ["container \"a\" has no cpu request, and none was set (policy p)"]
    );
    // A pod that we have not seen is refused, and so is a container that came after us.
    assert_ne!(decide_text(BARE, &free).verdict, Verdict::Allow);
    let mut object: Value = serde_json::from_str(&stored).unwrap();
    object["spec"]["containers"].as_array_mut().unwrap().push(json!({ "name": "b" }));
    let Verdict::Deny { message, .. } = decide_text(&object.to_string(), &free).verdict else {
        panic!("allowed")
    };
    assert!(message.contains("container \"b\"") && !message.contains("container \"a\""));
}

#[test]
fn what_is_set_at_last_is_verified_again() {
    let stored = patched(BARE, &decide_text(BARE, &world("5m")));
    // Another round finds room: what is taken away after that is missed.
    let free = world("1");
    let decision = decide_text(&stored, &free);
    let mut object: Value = serde_json::from_str(&patched(&stored, &decision)).unwrap();
    assert_eq!(object["spec"]["containers"][0]["resources"]["requests"]["cpu"], "250m");
    object["spec"]["containers"][0]["resources"] = json!({});
    assert_ne!(decide_text(&object.to_string(), &free).verdict, Verdict::Allow);
}

#[test]
fn a_record_by_hand_opts_out_of_nothing() {
    let free = world("1");
    let by_hand = json!({
        "metadata": { "name": "p", "annotations": {
            RECORD_ANNOTATION: r#"{"v":1,"withheld":{"a":{"cpu":"me"},"b":{"cpu":"me"}}}"#,
        } },
        "spec": { "containers": [{ "name": "a" }] },
    })
    .to_string();
    let stored = patched(&by_hand, &decide_text(&by_hand, &free));
    assert!(record(&stored).get("withheld").is_none(), "{stored}");
    let mut object: Value = serde_json::from_str(&stored).unwrap();
    object["spec"]["containers"].as_array_mut().unwrap().push(json!({ "name": "b" }));
    assert_ne!(decide_text(&object.to_string(), &free).verdict, Verdict::Allow);
}
