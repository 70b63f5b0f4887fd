//! Sleeps before the end of containers.

use serde_json::{Value, json};

use super::*;

fn world(cap: Action) -> Snapshot {
    let mut asks = policy("p", &[(Resource::Cpu, Action::Off)]);
    asks.pre_stop_sleep = Some(5);
    asks.container_kinds = vec![ContainerKind::Main];
    snapshot(vec![asks]).with_max_action(cap)
}

fn pod(container: &Value, grace: Option<i64>) -> Value {
    let mut container = container.clone();
    container["name"] = "app".into();
    let mut pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, container]}});
    if let Some(grace) = grace {
        pod["spec"]["terminationGracePeriodSeconds"] = grace.into();
    }
    pod
}

/// `lifecycle` of the second container, after the patch.
fn after(pod: &Value, snapshot: &Snapshot) -> (Value, Decision) {
    let decision = decide_text(&pod.to_string(), snapshot);
    assert!(decision.patch_dropped.is_none(), "{:?}", decision.patch_dropped);
    let after = patched(&pod.to_string(), &decision);
    assert!(decide_text(&after, snapshot).patch.is_empty(), "{after}");
    let after: Value = serde_json::from_str(&after).unwrap();
    assert!(after["spec"]["containers"][0].get("lifecycle").is_none(), "{after}");
    (after, decision)
}

#[test]
fn a_container_with_ports_sleeps_before_it_ends() {
    let ports = json!([{"containerPort": 8080}]);
    let sleep = json!({"sleep": {"seconds": 5}});
    let start = json!({"exec": {"command": ["a"]}});
    for lifecycle in [None, Some(Value::Null), Some(json!({})), Some(json!({"postStart": start}))] {
        let mut container = json!({"ports": ports});
        if let Some(lifecycle) = &lifecycle {
            container["lifecycle"] = lifecycle.clone();
        }
        let (object, decision) = after(&pod(&container, None), &world(Action::Deny));
        let hooks = &object["spec"]["containers"][1]["lifecycle"];
        assert_eq!(hooks["preStop"], sleep, "{lifecycle:?}");
        let wanted = lifecycle.and_then(|l| l.get("postStart").cloned());
        assert_eq!(hooks.get("postStart"), wanted.as_ref());
        let told = "container \"app\": sleeps 5s before it ends (policy p)";
        assert_eq!(decision.mutation_warnings(), [told]);
        let record = object["metadata"]["annotations"][RECORD_ANNOTATION].as_str().unwrap();
        assert_eq!(record, r#"{"policies":["p"],"preStop":{"app":"5s"},"v":1}"#);
    }
}

#[test]
fn others_are_left_alone() {
    let ports = json!([{"containerPort": 8080}]);
    let serving = json!({"ports": ports});
    let own = json!({"ports": ports, "lifecycle": {"preStop": {"httpGet": {"port": 1}}}});
    let untouched = |container: &Value, grace, cap| {
        let (_, decision) = after(&pod(container, grace), &world(cap));
        decision.patch.is_empty()
    };
    assert!(untouched(&own, None, Action::Deny), "a hook of its own");
    assert!(untouched(&json!({}), None, Action::Deny), "no ports");
    assert!(untouched(&json!({"ports": []}), None, Action::Deny), "no ports");
    assert!(untouched(&serving, Some(14), Action::Deny), "no room");
    assert!(!untouched(&serving, Some(15), Action::Deny));
    assert!(untouched(&serving, None, Action::Warn), "capped");
}

#[test]
fn sleeps_and_requests_come_in_one_patch() {
    let mut both = policy("p", &[(Resource::Cpu, Action::Default)]);
    both.pre_stop_sleep = Some(7);
    let container = json!({"ports": [{"containerPort": 1}]});
    let (object, decision) = after(&pod(&container, None), &snapshot(vec![both]));
    let container = &object["spec"]["containers"][1];
    assert_eq!(container["resources"]["requests"]["cpu"], "250m");
    assert_eq!(container["lifecycle"]["preStop"]["sleep"]["seconds"], 7);
    // Two requests, the quality of service, the sleep.
    assert_eq!(decision.mutation_warnings().len(), 4, "{:?}", decision.mutation_warnings());
}
