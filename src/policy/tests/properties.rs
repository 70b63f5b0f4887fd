//! Properties over generated pods: the patch applies, converges and changes nothing else.

use k8s_openapi::api::core::v1::LimitRange;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn quantity() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!("0")),
        Just(json!(0)),
        Just(json!("0.0")),
        Just(json!("100m")),
        Just(json!("64Mi")),
        Just(json!(2)),
        Just(json!("1e3")),
    ]
}

fn list() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("cpu"),
        Just("memory"),
        Just("ephemeral-storage"),
        Just("nvidia.com/gpu"),
        Just("example.com/a~b"),
    ];
    prop_oneof![
        Just(Value::Null),
        prop::collection::btree_map(name, quantity(), 0..4).prop_map(|map| json!(map)),
    ]
}

/// An object with each of the keys either absent or generated.
fn object(parts: Vec<(&'static str, Option<Value>)>) -> Value {
    let map: Map<String, Value> =
        parts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    Value::Object(map)
}

fn resources() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        (prop::option::of(list()), prop::option::of(list())).prop_map(|(requests, limits)| object(
            vec![("requests", requests), ("limits", limits)]
        )),
    ]
}

fn container() -> impl Strategy<Value = Value> {
    ("[a-z]{1,5}", prop::option::of(resources()), prop::option::of(Just(json!("Always")))).prop_map(
        |(name, resources, restart)| {
            object(vec![
                ("name", Some(name.into())),
                ("resources", resources),
                ("restartPolicy", restart),
                ("env", Some(json!([{ "name": "A", "value": "{\"uid\":\"x\"}" }]))),
            ])
        },
    )
}

fn metadata() -> impl Strategy<Value = Value> {
    let annotations = prop_oneof![
        Just(Value::Null),
        Just(json!({})),
        Just(json!({ "a/b": "c" })),
        Just(json!({ RECORD_ANNOTATION: "not json" })),
    ];
    prop::option::of(annotations).prop_map(|annotations| {
        object(vec![("name", Some(json!("p"))), ("annotations", annotations)])
    })
}

fn pod() -> impl Strategy<Value = Value> {
    (
        prop::option::of(metadata()),
        prop::collection::vec(container(), 0..4),
        prop::option::of(prop::collection::vec(container(), 0..4)),
        prop::option::of(resources()),
    )
        .prop_map(|(metadata, containers, init, level)| {
            let spec = object(vec![
                ("containers", Some(containers.into())),
                ("initContainers", init.map(Value::from)),
                ("resources", level),
            ]);
            object(vec![("metadata", metadata), ("spec", Some(spec))])
        })
}

fn rules() -> impl Strategy<Value = Vec<(Resource, Action)>> {
    let action = prop_oneof![
        Just(Action::Off),
        Just(Action::Shadow),
        Just(Action::Warn),
        Just(Action::Default),
        Just(Action::DefaultAndVerify),
        Just(Action::Deny),
    ];
    prop::collection::vec(action, 3)
        .prop_map(|actions| Resource::ALL.into_iter().zip(actions).collect())
}

/// Removes what a patch may change; what is left must be untouched.
fn without_requests(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(RECORD_ANNOTATION);
        }
        if metadata.get("annotations").is_none_or(|a| a.is_null() || *a == json!({})) {
            metadata.remove("annotations");
        }
    }
    if object.get("metadata") == Some(&json!({})) {
        object.as_object_mut().unwrap().remove("metadata");
    }
    for list in ["containers", "initContainers"] {
        let containers = object["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let container = container.as_object_mut().unwrap();
            if let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) {
                resources.remove("requests");
            }
            if container.get("resources").is_none_or(|r| r.is_null() || *r == json!({})) {
                container.remove("resources");
            }
        }
    }
    object
}

/// LimitRanges, quotas and nodes that leave little.
fn bounds() -> impl Strategy<Value = (Bounds, Vec<Resources>)> {
    let list = || {
        let name = prop_oneof![Just("cpu"), Just("memory")];
        let amount = prop_oneof![Just("5m"), Just("150m"), Just("64Mi"), Just("2Gi"), Just("1")];
        prop::collection::btree_map(name, amount, 0..3)
    };
    let item = (prop_oneof![Just("Container"), Just("Pod")], list(), list(), list(), list());
    let item = item.prop_map(|(kind, min, max, default, ratio)| {
        let mut item = json!({ "type": kind, "min": min, "max": max });
        if kind == "Container" {
            item["default"] = json!(default);
            item["maxLimitRequestRatio"] = json!(ratio);
        }
        item
    });
    let quota = (list(), prop_oneof![Just("BestEffort"), Just("NotBestEffort"), Just("")], 0..3);
    let quota = quota.prop_map(|(hard, scope, pods): (BTreeMap<_, _>, _, i32)| {
        let mut hard: Map<String, Value> = hard
            .into_iter()
            .map(|(name, amount)| (format!("requests.{name}"), json!(amount)))
            .collect();
        hard.insert("pods".to_owned(), json!(pods.to_string()));
        let scopes: Vec<&str> = [scope].into_iter().filter(|scope| !scope.is_empty()).collect();
        let object = json!({ "spec": { "hard": hard, "scopes": scopes } });
        serde_json::from_value(object).unwrap()
    });
    let node =
        (0..3000_i64, 0..600_i64).prop_map(|(cpu, memory)| Resources::new(cpu, memory << 20));
    let node = prop::collection::vec(node, 0..3);
    (prop::collection::vec(item, 0..3), prop::collection::vec(quota, 0..3), node).prop_map(
        |(items, quotas, nodes): (_, Vec<_>, _)| {
            let range = json!({ "metadata": { "name": "lr" }, "spec": { "limits": items } });
            let range: LimitRange = serde_json::from_value(range).unwrap();
            (Bounds::new([&range], &quotas), nodes)
        },
    )
}

proptest! {
    #[test]
    fn the_patch_applies_converges_and_touches_nothing_else(
        pod in pod(), rules in rules(), bounds in bounds()
    ) {
        let (bounds, nodes) = bounds;
        let snapshot = snapshot(vec![policy("p", &rules)])
            .with_bounds(BTreeMap::from([("shop".into(), Arc::new(bounds))]))
            .with_rooms(rooms(&nodes));
        let text = pod.to_string();
        let decision = decide_text(&text, &snapshot);
        prop_assert!(decision.patch_dropped.is_none());
        let once = patched(&text, &decision);
        let again = decide_text(&once, &snapshot);
        prop_assert!(again.patch.is_empty(), "{}", again.patch);
        // Verification is content once the patch is applied; a refusal is not.
        let denies = decision.findings.iter().any(|f| f.action == Action::Deny);
        prop_assert_eq!(again.verdict != Verdict::Allow, denies);
        prop_assert_eq!(&again.effective, &decision.effective);
        let after: Value = serde_json::from_str(&once).unwrap();
        prop_assert_eq!(without_requests(after), without_requests(pod));
        for finding in &decision.findings {
            prop_assert!(finding.amount > 0);
        }
    }

    #[test]
    fn reading_a_pod_never_panics(text in "\\PC{0,200}") {
        drop(PodView::parse(&text));
    }

    #[test]
    fn warnings_are_always_short(text in prop::collection::vec("(?s).{0,700}", 0..50)) {
        let out = limit_warnings(text);
        prop_assert!(out.len() <= 20);
        prop_assert!(out.iter().all(|w| w.chars().count() <= 256 && !w.contains('\n')));
        prop_assert!(out.iter().map(|w| w.chars().count()).sum::<usize>() <= 4096);
        prop_assert_eq!(limit_warnings(out.clone()), out);
    }
}
