//! Quotes of made-up markets, and the lines that they become.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::super::*;
use super::{lines, lines_of, sound};
use crate::model::instance::{CapacityType, InstanceType, Offering};
use crate::model::labels;
use crate::model::money::MicroDollarsPerHour;
use crate::model::pool::Pool;
use crate::model::requirement::{Requirement, Requirements};
use crate::model::resources::Resources;
use crate::model::taints::{Taint, TaintEffect};
use crate::model::wire::workload::TemplateWire;
use crate::model::workload::WorkloadKind;
use crate::schedule::PoolSlot;

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
    let tight =
        super::super::quote(&question(WorkloadKind::Deployment, 20, "3900m"), &market, &nobody);
    assert_eq!((tight.nodes, tight.hair), (10, None));
    let job = super::super::quote(&question(WorkloadKind::Job, 20, "3950m"), &market, &nobody);
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
        super::super::quote(&large, &market, &own).unplaced,
        0,
        "a node of the user's own takes it"
    );
    assert_eq!(
        super::super::quote(&large, &Market::default(), &nobody),
        Quote { replicas: 2, ..Quote::default() }
    );
}

#[test]
fn what_is_placed_in_part_is_priced_in_part() {
    let mut market = market("on-demand");
    market.pools[0].remaining.insert("nodes".into(), 1);
    let asked = question(WorkloadKind::Deployment, 4, "3900m");
    let told = lines(&sound(), &[], Some(&quote(&asked, &market, &nobody)));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("HB101: 2 of 4 pods fit nowhere: NodePool general"), "{told:?}");
    assert_eq!(told[1], "HB102: 2 pods need 1 node of their own (1 m.8): $0.4020/h");
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
    // From the 1 GiB to the cpu: 0.125 of the price less 0.03125.
    assert_eq!(grown.per_hour, MicroDollarsPerHour(2 * 37_500));
    assert!(told(&grown)[0].starts_with("HB104: this change takes cpu 1600m on 2 nodes"));
    let mut smaller = larger.clone();
    std::mem::swap(&mut smaller.template, smaller.before.as_mut().unwrap());
    let less = quote(&smaller, &Market::default(), &fleet).fleet.unwrap();
    assert_eq!(
        told(&less),
        ["HB104: this change frees cpu 1600m on 2 nodes, $0.0750/h of their price"]
    );
    // What counts is the larger share before and after: 0.125 of a node each.
    let mut turned = larger.clone();
    let requests = &mut turned.before.as_mut().unwrap().spec.containers[0].resources.requests;
    requests.insert("cpu".into(), "1".parse().unwrap());
    let requests = &mut turned.template.spec.containers[0].resources.requests;
    requests.insert("cpu".into(), "500m".parse().unwrap());
    requests.insert("memory".into(), "4Gi".parse().unwrap());
    let turned = quote(&turned, &Market::default(), &fleet).fleet.unwrap();
    assert_eq!(turned.per_hour, MicroDollarsPerHour(0));
    // A node that is cordoned or ill for now has the DaemonSet all the same; its price may be unknown.
    let mut ill = node(4_000, "linux");
    ill.price = MicroDollarsPerHour(0);
    for key in ["node.kubernetes.io/unschedulable", "node.kubernetes.io/not-ready"] {
        ill.taints.push(Taint::new(key, TaintEffect::NoSchedule));
    }
    let fleet = || vec![ill.clone()];
    let found = quote(&asked, &Market::default(), &fleet).fleet.unwrap();
    assert_eq!(told(&found), ["HB104: takes cpu 200m, memory 1Gi on 1 node"]);
    let mut same = larger.clone();
    same.before = Some(same.template.clone());
    let same = quote(&same, &Market::default(), &fleet).fleet.unwrap();
    assert!(told(&same).is_empty(), "nothing changes");
}
