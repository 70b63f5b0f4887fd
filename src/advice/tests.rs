//! Tables: a workload and what stands beside it, and the lines that it gets.

mod quotes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::model::companions::{Budget, Priority, Scaler};
use crate::model::money::MicroDollarsPerHour;
use crate::model::resources::Resources;
use crate::model::wire::workload::{TemplateWire, WorkloadWire};
use crate::model::workload::WorkloadKind;
use crate::policy::{self, Snapshot};

/// Three replicas of a container that lacks nothing.
fn sound() -> Value {
    json!({
        "metadata": { "name": "web", "namespace": "shop" },
        "spec": { "replicas": 3, "template": {
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "app",
                "resources": { "requests": { "cpu": "1", "memory": "2Gi" } } }] } } },
    })
}

fn with(path: &str, value: Value) -> Value {
    let mut object = sound();
    let (parent, name) = path.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[name] = value;
    object
}

const SPEC: &str = "/spec/template/spec";
const CONTAINER: &str = "/spec/template/spec/containers/0";

fn facts(objects: &[Value]) -> Facts {
    let mut facts = Facts::default();
    for object in objects {
        let mut object = object.clone();
        object["metadata"]["namespace"] = "shop".into();
        match object["kind"].as_str().unwrap() {
            "PodDisruptionBudget" => {
                let budget: k8s_openapi::api::policy::v1::PodDisruptionBudget =
                    serde_json::from_value(object).unwrap();
                let budget = Budget::from(budget);
                let key = (Arc::clone(&budget.namespace), Arc::clone(&budget.name));
                Arc::make_mut(&mut facts.budgets).insert(key, Arc::new(budget));
            }
            "HorizontalPodAutoscaler" => {
                let scaler: k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler =
                    serde_json::from_value(object).unwrap();
                let scaler = Scaler::from(scaler);
                let key = (Arc::clone(&scaler.namespace), Arc::clone(&scaler.name));
                Arc::make_mut(&mut facts.scalers).insert(key, Arc::new(scaler));
            }
            _ => {
                let class: k8s_openapi::api::scheduling::v1::PriorityClass =
                    serde_json::from_value(object).unwrap();
                let class = Priority::from(class);
                let classes = Arc::make_mut(&mut facts.priorities);
                classes.insert(Arc::clone(&class.name), Arc::new(class));
            }
        }
    }
    facts
}

fn budget(rule: &Value) -> Value {
    let mut object = json!({ "kind": "PodDisruptionBudget", "metadata": { "name": "b" },
        "spec": { "selector": { "matchLabels": { "app": "web" } } } });
    object["spec"].as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
    object
}

fn scaler(least: i64, most: i64) -> Value {
    json!({ "kind": "HorizontalPodAutoscaler", "metadata": { "name": "h" }, "spec": {
        "scaleTargetRef": { "kind": "Deployment", "name": "web" },
        "minReplicas": least, "maxReplicas": most } })
}

fn class(value: i64, policy: &str) -> Value {
    json!({ "kind": "PriorityClass", "metadata": { "name": "high" }, "value": value,
        "preemptionPolicy": policy })
}

fn usual(name: &str, value: i64) -> Value {
    json!({ "kind": "PriorityClass", "metadata": { "name": name }, "value": value,
        "globalDefault": true })
}

fn lines_of(
    kind: WorkloadKind,
    object: &Value,
    facts: &Facts,
    quote: Option<&Quote>,
    silenced: &[&str],
) -> Vec<String> {
    lines_with(&Snapshot::default(), kind, object, facts, quote, silenced)
}

fn lines_with(
    snapshot: &Snapshot,
    kind: WorkloadKind,
    object: &Value,
    facts: &Facts,
    quote: Option<&Quote>,
    silenced: &[&str],
) -> Vec<String> {
    let workload_wire: WorkloadWire = serde_json::from_value(object.clone()).unwrap();
    let now = "2026-06-01T12:00:00Z".parse().unwrap();
    let template = workload_wire.template();
    let preview = policy::preview(template, "shop", (kind.name(), "web"), snapshot, now);
    let subject = Subject {
        kind,
        namespace: "shop",
        name: "web",
        workload: &workload_wire,
        before: 0,
        preview: &preview,
    };
    workload(&subject, facts, quote, silenced).iter().map(ToString::to_string).collect()
}

fn lines(object: &Value, beside: &[Value], quote: Option<&Quote>) -> Vec<String> {
    lines_of(WorkloadKind::Deployment, object, &facts(beside), quote, &[])
}

#[test]
fn a_sound_workload_hears_nothing() {
    assert!(lines(&sound(), &[], None).is_empty());
    let beside = [budget(&json!({ "minAvailable": 2 })), scaler(3, 9), class(1000, "Never")];
    assert!(lines(&sound(), &beside, None).is_empty());
}

/// A workload, what stands beside it, a quote, and the lines that it gets.
type Row<'a> = (&'a Value, &'a [Value], Option<&'a Quote>, &'a [&'a str]);

#[test]
fn each_fault_has_its_line() {
    let spot = Quote { on_spot: 1, ..Quote::default() };
    let two = json!([{ "name": "app" }, { "name": "whole", "resources": { "limits":
        { "cpu": "1", "memory": "1Gi" } } }]);
    let high = with(&format!("{SPEC}/priorityClassName"), "high".into());
    let blind = with(&format!("{CONTAINER}/resources"), json!({ "requests": { "memory": "1Gi" } }));
    let grace = with(&format!("{SPEC}/terminationGracePeriodSeconds"), 600.into());
    let ports = with(&format!("{CONTAINER}/ports"), json!([{ "containerPort": 80 }]));
    let one = with("/spec/replicas", 1.into());
    let missing = "HB001: container \"app\" has no cpu and no memory request: it counts as 0";
    let table: &[Row<'_>] = &[
        (&with(&format!("{SPEC}/containers"), two), &[], None, &[missing]),
        (
            &sound(),
            &[budget(&json!({ "minAvailable": 3 }))],
            None,
            &["HB201: budget \"b\" (minAvailable 3) lets none of 3 pods go: it blocks drains"],
        ),
        (
            &one,
            &[budget(&json!({ "minAvailable": "50%" }))],
            None,
            &["HB201: budget \"b\" (minAvailable 50%) lets none of 1 pods go: it blocks drains"],
        ),
        // Without replicas there is nothing to block.
        (&with("/spec/replicas", 0.into()), &[budget(&json!({ "minAvailable": 3 }))], None, &[]),
        (
            &sound(),
            &[budget(&json!({ "minAvailable": 2 })), scaler(2, 9)],
            None,
            &["HB202: budget \"b\" (minAvailable 2) blocks drains while HPA \"h\" is at its \
               minimum of 2"],
        ),
        (
            &sound(),
            &[budget(&json!({ "maxUnavailable": 0 })), scaler(2, 9)],
            None,
            &["HB201: budget \"b\" (maxUnavailable 0) lets none of 9 pods go: it blocks drains"],
        ),
        (
            &blind,
            &[scaler(3, 9)],
            None,
            &[
                "HB001: container \"app\" has no cpu request: it counts as 0",
                "HB203: HPA \"h\" scales on cpu, but container \"app\" has no cpu request: it \
                 cannot scale",
            ],
        ),
        (
            &ports,
            &[],
            None,
            &["HB301: container \"app\" has ports and no preStop: it may end while traffic still \
               comes"],
        ),
        (&grace, &[], None, &[]),
        (
            &grace,
            &[],
            Some(&spot),
            &["HB302: 600 s to end are more than the 120 s of a spot notice, and pods may run on \
               spot"],
        ),
        (
            &one,
            &[],
            Some(&spot),
            &["HB303: the only replica may run on spot: an interruption is an outage; want 2, or \
               on-demand"],
        ),
        (&one, &[scaler(2, 3)], Some(&spot), &[]),
        (
            &high,
            &[class(1000, "PreemptLowerPriority")],
            None,
            &["HB401: priority class \"high\" (1000) evicts pods of lower priority where room is \
               short"],
        ),
        (&high, &[class(1000, "Never")], None, &[]),
        (&high, &[class(-5, "PreemptLowerPriority")], None, &[]),
    ];
    for (object, beside, quote, expected) in table {
        assert_eq!(lines(object, beside, *quote), *expected, "{object}");
    }
    let hooked = json!({ "preStop": { "sleep": { "seconds": 5 } } });
    let mut mended = ports.clone();
    mended.pointer_mut(CONTAINER).unwrap()["lifecycle"] = hooked;
    assert!(lines(&mended, &[], None).is_empty());
}

#[test]
fn faults_are_judged_as_the_cluster_would() {
    let spot = Quote { on_spot: 1, ..Quote::default() };
    let high = with(&format!("{SPEC}/priorityClassName"), "high".into());
    let full = json!({ "requests": { "cpu": "1", "memory": "1Gi" } });
    let zero = json!([{ "name": "app", "resources": full },
        { "name": "log", "resources": { "requests": { "cpu": "0", "memory": "1Gi" } } }]);
    let open = json!([{ "containerPort": 80 }]);
    let served = json!([{ "name": "a", "resources": full, "ports": open },
        { "name": "b", "resources": full, "ports": open }]);
    let table: &[Row<'_>] = &[
        // Of several defaults the lowest counts, as for the API server.
        (
            &high,
            &[class(1000, "PreemptLowerPriority"), usual("a", 2000), usual("b", 500)],
            None,
            &["HB401: priority class \"high\" (1000) evicts pods of lower priority where room is \
               short"],
        ),
        // An autoscaler does not act on what was scaled to nothing.
        (
            &with("/spec/replicas", 0.into()),
            &[budget(&json!({ "minAvailable": 2 })), scaler(2, 9)],
            None,
            &[],
        ),
        (&with("/spec/replicas", 0.into()), &[scaler(1, 9)], Some(&spot), &[]),
        // A request of nothing is one that the autoscaler can divide by, together with others.
        (
            &with(&format!("{SPEC}/containers"), zero),
            &[scaler(3, 9)],
            None,
            &["HB001: container \"log\" has no cpu request: it counts as 0"],
        ),
        (
            &with(&format!("{SPEC}/containers"), served),
            &[],
            None,
            &[
                "HB301: container \"a\" has ports and no preStop: it may end while traffic still \
                 comes",
                "HB301: container \"b\" has ports and no preStop: it may end while traffic still \
                 comes",
            ],
        ),
        (
            &with(&format!("{SPEC}/terminationGracePeriodSeconds"), 0.into()),
            &[],
            None,
            &["HB301: 0 s to end: containers are killed at once, and preStop hooks do not run"],
        ),
    ];
    for (object, beside, quote, expected) in table {
        assert_eq!(lines(object, beside, *quote), *expected, "{object}");
    }
}

#[test]
fn budgets_count_the_pods_of_others_too() {
    let shared = |expected: i64| {
        let mut object = budget(&json!({ "minAvailable": 3 }));
        object["status"] = json!({ "expectedPods": expected, "currentHealthy": expected,
            "desiredHealthy": 3, "disruptionsAllowed": 0 });
        object
    };
    assert!(lines(&sound(), &[shared(4)], None).is_empty());
    assert_eq!(
        lines(&sound(), &[shared(0)], None),
        ["HB201: budget \"b\" (minAvailable 3) lets none of 3 pods go: it blocks drains"]
    );
    let mut other = budget(&json!({ "maxUnavailable": 1 }));
    other["metadata"]["name"] = "c".into();
    assert_eq!(
        lines(&sound(), &[budget(&json!({ "maxUnavailable": 1 })), other], None),
        ["HB201: budgets \"b\" and \"c\" select its pods: the API server evicts none of them"]
    );
    // Of pods whose controller has no scale only a count can be kept.
    let job =
        |rule: Value| lines_of(WorkloadKind::Job, &sound(), &facts(&[budget(&rule)]), None, &[]);
    let told = "HB201: budget \"b\" (maxUnavailable 1) lets no pod of a Job go: it blocks drains";
    assert_eq!(job(json!({ "maxUnavailable": 1 })), [told]);
    assert!(job(json!({ "minAvailable": 1 })).is_empty());
}

#[test]
fn a_sleep_that_a_policy_sets_is_not_missing() {
    let read = |cap: policy::Action| {
        let spec = json!({ "rules": [{ "resource": "cpu", "action": "Off" }],
            "preStopSleepSeconds": 5 });
        let policy = policy::compile("p", &serde_json::from_value(spec).unwrap()).unwrap();
        let namespaces = BTreeMap::from([("shop".to_owned(), BTreeMap::new())]);
        Snapshot::new("v", vec![policy], Arc::new(namespaces), BTreeSet::new()).with_max_action(cap)
    };
    let ports = with(&format!("{CONTAINER}/ports"), json!([{ "containerPort": 80 }]));
    let mut short = ports.clone();
    short.pointer_mut(SPEC).unwrap()["terminationGracePeriodSeconds"] = 12.into();
    let told = |object: &Value, cap: policy::Action| {
        let nothing = Facts::default();
        lines_with(&read(cap), WorkloadKind::Deployment, object, &nothing, None, &[]).len()
    };
    assert_eq!(told(&ports, policy::Action::Deny), 0);
    assert_eq!(told(&ports, policy::Action::Warn), 1, "the cap keeps it from being set");
    assert_eq!(told(&short, policy::Action::Deny), 1, "there is no time for it");
}

#[test]
fn every_line_is_one_that_the_api_server_passes_on() {
    let quote = Quote {
        replicas: 1200,
        nodes: 700,
        per_hour: MicroDollarsPerHour(1_234_567_890),
        types: vec![("m7i-flex.24xlarge".into(), 400), ("c7gd.12xlarge".into(), 300)],
        on_spot: 3,
        unplaced: 0,
        elsewhere: 0,
        reasons: Vec::new(),
        hair: Some(Hair {
            resource: "memory".into(),
            from: 123_456 << 20,
            to: 120_000 << 20,
            saving: MicroDollarsPerHour(99_999_999_999),
            instance_type: "m7i-flex.24xlarge".into(),
            fits: 12,
        }),
        fleet: Some(FleetCost {
            nodes: 10_000,
            each: Resources::new(123, 1234 << 20),
            grows: true,
            per_hour: MicroDollarsPerHour(1_234_567_890),
            short: 9_999,
        }),
    };
    let object = with(&format!("{SPEC}/terminationGracePeriodSeconds"), 86_400.into());
    let lines = lines(&object, &[], Some(&quote));
    assert_eq!(lines.len(), 4, "{lines:#?}");
    for line in lines {
        assert!(line.chars().count() <= 120, "{line}");
    }
}

#[test]
fn silence_is_by_annotation_or_policy() {
    let missing = with(&format!("{CONTAINER}/resources"), json!({}));
    let nothing = Facts::default();
    let of = |object: &Value, silenced: &[&str]| {
        lines_of(WorkloadKind::Deployment, object, &nothing, None, silenced)
    };
    assert_eq!(of(&missing, &[]).len(), 1);
    assert!(of(&missing, &["HB001"]).is_empty());
    assert!(of(&missing, &["*"]).is_empty());
    assert_eq!(of(&missing, &["HB102"]).len(), 1);
    for place in ["/metadata", "/spec/template/metadata"] {
        let mut object = missing.clone();
        object.pointer_mut(place).unwrap()["annotations"] =
            json!({ "harbinger.sh/silence-advice": "HB102, HB001" });
        assert!(of(&object, &[]).is_empty(), "{place}");
    }
    let mut slip = sound();
    slip["metadata"]["annotations"] = json!({ "harbinger.sh/silence-advice": "HB1" });
    assert_eq!(
        of(&slip, &[]),
        ["HB000: harbinger.sh/silence-advice: \"HB1\" is no code of an advice"]
    );
}

#[test]
fn policies_silence_what_they_match() {
    let read =
        |spec: Value| policy::compile("quiet", &serde_json::from_value(spec).unwrap()).unwrap();
    let rules = json!([{ "resource": "cpu", "action": "Off" }]);
    let quiet = read(json!({ "rules": rules, "silenceAdvice": ["HB102"], "match": {
        "namespaceSelector": { "matchLabels": { "team": "a" } }, "ownerKinds": ["Job"] } }));
    let team = |name: &str| BTreeMap::from([("team".to_owned(), name.to_owned())]);
    let namespaces = BTreeMap::from([("a".to_owned(), team("a")), ("b".to_owned(), team("b"))]);
    let snapshot = Snapshot::new("v", vec![quiet], Arc::new(namespaces), BTreeSet::new());
    let none = TemplateWire::default();
    let silenced = |namespace, kind| policy::silenced(&none, namespace, (kind, "x"), &snapshot);
    assert_eq!(silenced("a", "Job"), ["HB102"]);
    assert_eq!(silenced("a", "CronJob"), ["HB102"], "its pods are of Jobs");
    assert!(silenced("a", "Deployment").is_empty());
    assert!(silenced("b", "Job").is_empty());
}

#[test]
fn codes_are_stable_and_read_back() {
    let names: BTreeSet<&str> = Code::ALL.into_iter().map(Code::name).collect();
    assert_eq!(names.len(), Code::ALL.len());
    for code in Code::ALL {
        assert_eq!(Code::parse(code.name()), Some(code));
        assert_eq!(serde_json::to_value(code).unwrap(), code.name());
    }
}
