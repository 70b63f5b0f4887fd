//! Every kind of container, every state of a request, every action.

use serde_json::{Value, json};

use super::*;

const KINDS: [ContainerKind; 3] =
    [ContainerKind::Main, ContainerKind::Init, ContainerKind::Sidecar];

const ACTIONS: [Action; 6] = [
    Action::Off,
    Action::Shadow,
    Action::Warn,
    Action::Default,
    Action::DefaultAndVerify,
    Action::Deny,
];

/// What `resources` of the container looks like, for `memory` and a value that is present.
fn states(resource: &str, value: &str) -> Vec<(&'static str, Value, bool)> {
    let other = if resource == "cpu" { "memory" } else { "cpu" };
    vec![
        ("no resources", Value::Null, true),
        ("null requests", json!({ "requests": null }), true),
        ("empty requests", json!({ "requests": {} }), true),
        ("another request", json!({ "requests": { other: "1" } }), true),
        ("another limit", json!({ "limits": { other: "1" } }), true),
        ("zero", json!({ "requests": { resource: "0" } }), true),
        ("zero of another spelling", json!({ "requests": { resource: "0m", other: "1" } }), true),
        ("zero as a number", json!({ "requests": { resource: 0 } }), true),
        ("limit only", json!({ "limits": { resource: value } }), false),
        ("request", json!({ "requests": { resource: value } }), false),
        ("tiny request", json!({ "requests": { resource: "1m" } }), false),
    ]
}

fn pod(kind: ContainerKind, resources: &Value) -> String {
    let full = json!({ "requests": { "cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi" } });
    let mut subject = json!({ "name": "subject", "image": "a" });
    if !resources.is_null() {
        subject["resources"] = resources.clone();
    }
    let main = json!({ "name": "main", "resources": full });
    let spec = match kind {
        ContainerKind::Main => json!({ "containers": [main, subject] }),
        ContainerKind::Init => json!({ "containers": [main], "initContainers": [subject] }),
        ContainerKind::Sidecar => {
            subject["restartPolicy"] = "Always".into();
            json!({ "containers": [main], "initContainers": [subject] })
        }
    };
    json!({ "metadata": { "name": "p" }, "spec": spec }).to_string()
}

fn pointer(kind: ContainerKind, resource: &str) -> String {
    match kind {
        ContainerKind::Main => format!("/spec/containers/1/resources/requests/{resource}"),
        _ => format!("/spec/initContainers/0/resources/requests/{resource}"),
    }
}

#[test]
fn every_kind_state_and_action() {
    let mut cases = 0;
    for resource in Resource::ALL {
        let value = if resource == Resource::Cpu { "2" } else { "4Gi" };
        for kind in KINDS {
            for (state, resources, lacks) in states(resource.name(), value) {
                for action in ACTIONS {
                    let case = format!("{} {kind:?} {state} {action:?}", resource.name());
                    let text = pod(kind, &resources);
                    let snapshot = snapshot(vec![policy("p", &[(resource, action)])]);
                    let decision = decide_text(&text, &snapshot);
                    assert!(decision.patch_dropped.is_none(), "{case}");
                    let acts = lacks && action != Action::Off;
                    assert_eq!(decision.findings.len(), usize::from(acts), "{case}");
                    check(&case, &text, kind, resource, action, lacks, &decision);
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 3 * 3 * 11 * 6);
}

fn check(
    case: &str,
    text: &str,
    kind: ContainerKind,
    resource: Resource,
    action: Action,
    lacks: bool,
    decision: &Decision,
) {
    let denied = matches!(&decision.verdict, Verdict::Deny { .. });
    // The pod that a decision sees has not been patched yet: verification would refuse it so.
    let refuses = matches!(action, Action::Deny | Action::DefaultAndVerify);
    assert_eq!(denied, lacks && refuses, "{case}");
    assert_eq!(decision.patch.is_empty(), !(lacks && action.sets()), "{case}");
    let warns = lacks && (action == Action::Warn || action.sets());
    assert_eq!(decision.warnings.len(), usize::from(warns), "{case}: {:?}", decision.warnings);
    if let Verdict::Deny { code, message } = &decision.verdict {
        assert_eq!(*code, 422);
        let field = match kind {
            ContainerKind::Main => "spec.containers[1].resources.requests.",
            _ => "spec.initContainers[0].resources.requests.",
        };
        for part in [field, resource.name(), "\"subject\"", "for example to", "policy p"] {
            assert!(message.contains(part), "{case}: {part} in {message}");
        }
    }
    if lacks && action.sets() {
        let after: Value = serde_json::from_str(&patched(text, decision)).unwrap();
        let set = after.pointer(&pointer(kind, resource.name())).and_then(Value::as_str);
        let want = ["250m", "256Mi", "2Gi"][resource as usize];
        assert_eq!(set, Some(want), "{case}");
        assert!(after.pointer("/metadata/annotations").is_some(), "{case}");
        assert_eq!(decision.audit["decision"], action.name());
    }
}

#[test]
fn zero_is_a_choice_where_the_policy_says_so() {
    let mut lenient = policy("p", &[(Resource::Cpu, Action::Deny)]);
    lenient.zero_means_missing = false;
    let snapshot = snapshot(vec![lenient]);
    let zero = pod(ContainerKind::Main, &json!({ "requests": { "cpu": "0" } }));
    assert_eq!(decide_text(&zero, &snapshot).verdict, Verdict::Allow);
    let missing = pod(ContainerKind::Main, &Value::Null);
    assert_ne!(decide_text(&missing, &snapshot).verdict, Verdict::Allow);
}

#[test]
fn a_default_stays_below_the_limit() {
    let snapshot = snapshot(vec![policy("p", &[(Resource::Memory, Action::Default)])]);
    let resources = json!({ "requests": { "memory": "0" }, "limits": { "memory": "64Mi" } });
    let text = pod(ContainerKind::Main, &resources);
    let decision = decide_text(&text, &snapshot);
    let after: Value = serde_json::from_str(&patched(&text, &decision)).unwrap();
    assert_eq!(after.pointer(&pointer(ContainerKind::Main, "memory")).unwrap(), "64Mi");

    // A limit of zero leaves no room for any request.
    let resources = json!({ "requests": { "memory": "0" }, "limits": { "memory": "0" } });
    let decision = decide_text(&pod(ContainerKind::Main, &resources), &snapshot);
    assert!(decision.patch.is_empty() && decision.patch_dropped.is_none());
    assert_eq!(decision.findings[0].action, Action::Warn);
}

#[test]
fn pod_level_resources_satisfy_cpu_and_memory_only() {
    let all = [
        (Resource::Cpu, Action::Deny),
        (Resource::Memory, Action::Deny),
        (Resource::EphemeralStorage, Action::Deny),
    ];
    let snapshot = snapshot(vec![policy("p", &all)]);
    for (resources, lacking) in [
        (json!({ "requests": { "cpu": "1", "memory": "1Gi" } }), vec![Resource::EphemeralStorage]),
        (json!({ "limits": { "cpu": "1" } }), vec![Resource::Memory, Resource::EphemeralStorage]),
        (
            json!({ "requests": { "cpu": "0", "ephemeral-storage": "1Gi" } }),
            vec![Resource::Cpu, Resource::Memory, Resource::EphemeralStorage],
        ),
    ] {
        let text = json!({ "spec": { "containers": [{ "name": "a" }], "resources": resources } });
        let decision = decide_text(&text.to_string(), &snapshot);
        let found: Vec<Resource> = decision.findings.iter().map(|f| f.resource).collect();
        assert_eq!(found, lacking, "{resources}");
    }
}

#[test]
fn the_effective_request_includes_what_is_set() {
    let rules = [(Resource::Cpu, Action::Default), (Resource::Memory, Action::Default)];
    let text = json!({ "spec": {
        "containers": [{ "name": "a" }, { "name": "b", "resources": { "limits": { "cpu": "1" } } }],
        "initContainers": [{ "name": "s", "restartPolicy": "Always" }, { "name": "i" }],
        "overhead": { "cpu": "50m" },
    } });
    let decision = decide_text(&text.to_string(), &snapshot(vec![policy("p", &rules)]));
    // a + b + s, which is more than s + i, and the overhead.
    assert_eq!(decision.effective.to_string(), "cpu 1550m, memory 768Mi, pods 1");
}

#[test]
fn ephemeral_containers_are_never_judged() {
    let text = json!({ "spec": {
        "containers": [{ "name": "a", "resources": { "requests": { "cpu": "1" } } }],
        "ephemeralContainers": [{ "name": "debug" }],
    } });
    let snapshot = snapshot(vec![policy("p", &[(Resource::Cpu, Action::Deny)])]);
    assert_eq!(decide_text(&text.to_string(), &snapshot).verdict, Verdict::Allow);
}

#[test]
fn pods_that_must_not_be_touched_are_not() {
    let snapshot = snapshot(vec![policy("p", &[(Resource::Cpu, Action::Deny)])]);
    let containers = json!([{ "name": "a" }]);
    for object in [
        json!({ "metadata": { "annotations": { "kubernetes.io/config.mirror": "x" } },
                "spec": { "containers": containers } }),
        json!({ "spec": { "containers": containers, "nodeName": "node-1" } }),
        json!({ "spec": { "containers": containers,
                          "priorityClassName": "system-node-critical" } }),
    ] {
        let decision = decide_text(&object.to_string(), &snapshot);
        assert!(decision.exempt.is_some(), "{object}");
        assert_eq!(decision.verdict, Verdict::Allow);
    }
    let bare = json!({ "spec": { "containers": containers } }).to_string();
    let view = PodView::parse(&bare).unwrap();
    assert!(decide(&view, &meta("kube-system"), &snapshot).exempt.is_some());
    assert_ne!(decide_text(&bare, &snapshot).verdict, Verdict::Allow);
}

#[test]
fn the_record_adds_up_over_rounds_and_its_key_is_escaped() {
    let snapshot = snapshot(vec![policy("p", &[(Resource::Cpu, Action::Default)])]);
    let first = json!({ "metadata": { "annotations": { "a/b~c": "kept" } },
                        "spec": { "containers": [{ "name": "app" }] } })
    .to_string();
    let decision = decide_text(&first, &snapshot);
    assert!(
        decision.patch.to_string().contains("/metadata/annotations/harbinger.sh~1default-requests")
    );
    // Between the rounds an injector adds a sidecar.
    let mut object: Value = serde_json::from_str(&patched(&first, &decision)).unwrap();
    object["spec"]["containers"].as_array_mut().unwrap().push(json!({ "name": "proxy" }));
    let second = object.to_string();
    let decision = decide_text(&second, &snapshot);
    let after: Value = serde_json::from_str(&patched(&second, &decision)).unwrap();
    assert_eq!(after["metadata"]["annotations"]["a/b~c"], "kept");
    let record = after["metadata"]["annotations"][RECORD_ANNOTATION].as_str().unwrap();
    assert_eq!(
        record,
        r#"{"policies":["p"],"qos":"Burstable, was BestEffort","set":{"app":{"cpu":"250m"},"proxy":{"cpu":"250m"}},"v":1}"#
    );
    assert!(decide_text(&after.to_string(), &snapshot).patch.is_empty());
}

#[test]
fn warnings_stay_within_the_limits_of_the_api_server() {
    let rules = [(Resource::Cpu, Action::Warn), (Resource::Memory, Action::Default)];
    let containers: Vec<Value> =
        (0..60).map(|i| json!({ "name": format!("{i:02}-{}", "ü".repeat(60)) })).collect();
    let text = json!({ "spec": { "containers": containers } }).to_string();
    let decision = decide_text(&text, &snapshot(vec![policy(&"p".repeat(200), &rules)]));
    let last = decision.warnings.last().unwrap();
    assert!(last.starts_with("and ") && last.ends_with(" more warnings"), "{last}");
    assert!(decision.warnings.iter().all(|warning| warning.chars().count() <= 256));
    assert!(decision.warnings.iter().map(|w| w.chars().count()).sum::<usize>() <= 4096);
    assert!(decision.audit.values().all(|value| value.len() <= 1 << 11));
    assert!(decision.patch_dropped.is_none());
}

/// What the fuzzer found: a list in the place of an object was read as its fields in order, and the
/// patch into it could not apply.
#[test]
fn a_list_is_no_object() {
    for pod in [
        "[]",
        r#"{"metadata":[]}"#,
        r#"{"spec":[]}"#,
        r#"{"spec":{"containers":[[]]}}"#,
        r#"{"spec":{"initContainers":[[]]}}"#,
        r#"{"spec":{"containers":[{"name":"a","resources":[]}]}}"#,
    ] {
        let error = PodView::parse(pod).unwrap_err().to_string();
        assert!(error.contains("expected an object"), "{pod}: {error}");
    }
}

#[test]
fn long_warnings_go_on_in_the_next_line() {
    let mut wordy = policy("p", &[(Resource::Cpu, Action::Warn)]);
    let message = ["ask the platform team"; 21].join(", ");
    assert!(message.len() > 480);
    wordy.message = Some(message.clone());
    let decision = decide_text(r#"{"spec":{"containers":[{"name":"a"}]}}"#, &snapshot(vec![wordy]));
    assert_eq!(decision.warnings[1..].join(" "), message);
    assert_eq!(decision.warnings.len(), 3);
}

#[test]
fn a_warning_names_all_that_changed_the_amount() {
    let mut finding = decide_text(
        r#"{"spec":{"containers":[{"name":"a"}]}}"#,
        &snapshot(vec![policy("p", &[(Resource::Memory, Action::Default)])]),
    )
    .findings
    .remove(0);
    let clamp = |from: i64, cause: &str| Clamp { from: from << 20, cause: cause.to_owned() };
    finding.clamps = vec![
        clamp(256, "earlier pods were evicted"),
        clamp(1229, "its limit"),
        clamp(512, "the largest node"),
    ];
    finding.amount = 400 << 20;
    assert_eq!(
        super::super::text::pod_warning(&finding).unwrap(),
        "container \"a\": memory request set to 400Mi, not 256Mi: earlier pods were evicted, then \
         its limit, then the largest node (policy p)"
    );
}
