//! Tables: a workload and what stands beside it, and the lines that it gets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::model::companions::{Budget, Priority, Scaler};
use crate::model::instance::{CapacityType, InstanceType, Offering};
use crate::model::labels;
use crate::model::money::MicroDollarsPerHour;
use crate::model::pool::Pool;
use crate::model::requirement::{Requirement, Requirements};
use crate::model::resources::Resources;
use crate::model::wire::workload::{TemplateWire, WorkloadWire};
use crate::model::workload::WorkloadKind;
use crate::policy::{self, Snapshot};
use crate::schedule::PoolSlot;

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

fn lines_of(
    kind: WorkloadKind,
    object: &Value,
    facts: &Facts,
    quote: Option<&Quote>,
    silenced: &[&str],
) -> Vec<String> {
    let workload_wire: WorkloadWire = serde_json::from_value(object.clone()).unwrap();
    let now = "2026-06-01T12:00:00Z".parse().unwrap();
    let snapshot = Snapshot::default();
    let template = workload_wire.template();
    let preview = policy::preview(template, "shop", (kind.name(), "web"), &snapshot, now);
    let subject = Subject {
        kind,
        namespace: "shop",
        name: "web",
        workload: &workload_wire,
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
    let table: &[(&Value, &[Value], Option<&Quote>, &[&str])] = &[
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
fn every_line_is_one_that_the_api_server_passes_on() {
    let quote = Quote {
        replicas: 1200,
        nodes: 700,
        per_hour: MicroDollarsPerHour(1_234_567_890),
        types: vec![("m7i-flex.24xlarge".into(), 400), ("c7gd.12xlarge".into(), 300)],
        on_spot: 3,
        unplaced: 0,
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
    let none = BTreeMap::new();
    assert_eq!(snapshot.silenced("a", &none, "Job"), ["HB102"]);
    assert!(snapshot.silenced("a", &none, "Deployment").is_empty());
    assert!(snapshot.silenced("b", &none, "Job").is_empty());
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

/// A type of `cores` and 4 GiB each at 50,000 micro-dollars a core, with 0.2 cpu for the system.
fn instance(cores: i64) -> Arc<InstanceType> {
    let name = format!("m.{cores}");
    let mut requirements = Requirements::new();
    requirements.insert(labels::INSTANCE_TYPE, Requirement::one_of([&*name]));
    let offer = |capacity_type, share: i64| Offering {
        zone: "a".into(),
        capacity_type,
        price: MicroDollarsPerHour(cores * 500 * share),
        available: true,
        reserved: None,
    };
    Arc::new(InstanceType {
        name: name.into(),
        requirements,
        capacity: Resources { pods: 110, ..Resources::new(cores * 1000, cores << 32) },
        overhead: Resources::new(200, 1 << 30),
        attach_limits: Vec::new(),
        offerings: vec![offer(CapacityType::OnDemand, 100), offer(CapacityType::Spot, 40)],
    })
}

fn market(capacity: &str) -> Market {
    let mut requirements = Requirements::new();
    requirements.insert(labels::CAPACITY_TYPE, Requirement::one_of([capacity]));
    let pool = Pool { name: "general".into(), requirements, ready: true, ..Pool::default() };
    let slot = PoolSlot {
        pool: Arc::new(pool),
        types: vec![instance(8)].into(),
        remaining: BTreeMap::new(),
        volume_price: MicroDollarsPerHour(2_000),
    };
    Market { pools: vec![slot], ..Market::default() }
}

fn question(kind: WorkloadKind, desired: u32, cpu: &str) -> Question {
    let container =
        json!({ "name": "c", "resources": { "requests": { "cpu": cpu, "memory": "1Gi" } } });
    let template: TemplateWire =
        serde_json::from_value(json!({ "spec": { "containers": [container] } })).unwrap();
    Question { kind, namespace: "shop".into(), desired, template, before: None }
}

fn nobody() -> Vec<FleetNode> {
    Vec::new()
}

#[test]
fn replicas_are_priced_and_a_hair_of_waste_is_found() {
    // 7.8 cpu are left on a node: one pod of 3.95 fits, two of 3.9 do.
    let market = market("on-demand");
    let asked = question(WorkloadKind::Deployment, 20, "3950m");
    let quote = quote(&asked, &market, &nobody);
    assert_eq!((quote.nodes, quote.unplaced, quote.on_spot), (20, 0, 0));
    assert_eq!(quote.per_hour, MicroDollarsPerHour(20 * 402_000));
    assert_eq!(quote.types, [("m.8".to_owned(), 20)]);
    let hair = quote.hair.clone().unwrap();
    assert_eq!((&*hair.resource, hair.to, hair.fits), ("cpu", 3900, 2));
    assert_eq!(hair.saving, MicroDollarsPerHour(10 * 402_000));
    assert_eq!(
        lines(&sound(), &[], Some(&quote)),
        [
            "HB103: cpu 3950m wastes room: at 3900m 2 fit on m.8: -$2934/month",
            "HB102: 20 pods need 20 nodes of their own (20 m.8): $8.0400/h",
        ]
    );
    let tight = super::quote(&question(WorkloadKind::Deployment, 20, "3900m"), &market, &nobody);
    assert_eq!((tight.nodes, tight.hair), (10, None));
    let job = super::quote(&question(WorkloadKind::Job, 20, "3950m"), &market, &nobody);
    assert_eq!((job.nodes, job.hair), (20, None), "a Job costs by the hour, not by the month");
}

#[test]
fn many_pods_cost_as_many_times_more() {
    let market = market("spot");
    let quote = quote(&question(WorkloadKind::Job, 5_000, "3900m"), &market, &nobody);
    assert_eq!((quote.nodes, quote.on_spot, quote.unplaced), (2_500, 5_000, 0));
    assert_eq!(quote.per_hour, MicroDollarsPerHour(2_500 * 162_000));
}

#[test]
fn what_fits_nowhere_says_why_unless_a_node_could_take_it() {
    let market = market("on-demand");
    let large = question(WorkloadKind::Deployment, 2, "9");
    let quote = quote(&large, &market, &nobody);
    assert_eq!((quote.unplaced, quote.nodes), (2, 0));
    let told = lines(&sound(), &[], Some(&quote));
    assert_eq!(
        told,
        [
            "HB101: fits nowhere: NodePool general: no instance type is large enough: cpu 9 is asked, \
          the most is 7800m"
        ]
    );
    let own = || {
        vec![FleetNode {
            allocatable: Resources { pods: 110, ..Resources::new(16_000, 64 << 30) },
            ..FleetNode::default()
        }]
    };
    assert_eq!(
        super::quote(&large, &market, &own).unplaced,
        0,
        "a node of the user's own takes it"
    );
    assert_eq!(
        super::quote(&large, &Market::default(), &nobody),
        Quote { replicas: 2, ..Quote::default() }
    );
}

#[test]
fn daemon_sets_are_priced_across_the_fleet() {
    let node = |free: i64, os: &str| FleetNode {
        labels: BTreeMap::from([(labels::OS.to_owned(), os.to_owned())]),
        allocatable: Resources { pods: 110, ..Resources::new(8_000, 32 << 30) },
        free: Resources { pods: 50, ..Resources::new(free, 16 << 30) },
        price: MicroDollarsPerHour(400_000),
        ..FleetNode::default()
    };
    let fleet = || vec![node(4_000, "linux"), node(50, "linux"), node(4_000, "windows")];
    let mut asked = question(WorkloadKind::DaemonSet, 0, "200m");
    asked.template.spec.node_selector =
        BTreeMap::from([(labels::OS.to_owned(), "linux".to_owned())]);
    let new = quote(&asked, &Market::default(), &fleet).fleet.unwrap();
    // 1 GiB of 32 is more of a node than 0.2 cpu of 8.
    assert_eq!((new.nodes, new.short, new.per_hour), (2, 1, MicroDollarsPerHour(2 * 12_500)));
    let told = |cost: &FleetCost| {
        let quote = Quote { fleet: Some(cost.clone()), ..Quote::default() };
        lines_of(WorkloadKind::DaemonSet, &sound(), &Facts::default(), Some(&quote), &[])
    };
    assert_eq!(
        told(&new),
        ["HB104: takes cpu 400m, memory 2Gi on 2 nodes, $0.0250/h of their price; 1 lack room"]
    );
    let mut larger = asked.clone();
    larger.before = Some(asked.template.clone());
    larger.template.spec.containers[0]
        .resources
        .requests
        .insert("cpu".into(), "1".parse().unwrap());
    let grown = quote(&larger, &Market::default(), &fleet).fleet.unwrap();
    assert_eq!((grown.each.cpu, grown.each.memory, grown.short), (800, 0, 1));
    assert_eq!(grown.per_hour, MicroDollarsPerHour(2 * 40_000));
    assert!(told(&grown)[0].starts_with("HB104: this change takes cpu 1600m on 2 nodes"));
    let mut same = larger.clone();
    same.before = Some(same.template.clone());
    let same = quote(&same, &Market::default(), &fleet).fleet.unwrap();
    assert!(told(&same).is_empty(), "nothing changes");
}
