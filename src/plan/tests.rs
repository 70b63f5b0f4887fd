//! Scenarios: a cluster moves, and the plans follow.

use std::sync::Arc;

use super::provision::{MOST_AHEAD, ProvisionPlan, Settings, provision};
use super::{Catalog, Catalogs};
use crate::cluster::{Change, Event, State};
use crate::demand::{Assignments, Ledger};
use crate::model::claim::{Claim, ClaimStage};
use crate::model::instance::{CapacityType, InstanceType, Offering};
use crate::model::labels;
use crate::model::money::MicroDollarsPerHour;
use crate::model::node::Node;
use crate::model::pod::{OwnerRef, Pod, PodShape};
use crate::model::pool::{ClassRef, Pool};
use crate::model::requirement::{Requirement, Requirements};
use crate::model::resources::Resources;
use crate::model::taints::{Taint, TaintEffect};
use crate::model::workload::{Workload, WorkloadKind};
use crate::schedule::Hurry;

mod fixed;
mod overlays;
mod volumes;

/// A cluster with one pool, and what the leader remembers.
struct World {
    state: State,
    ledger: Ledger,
    assignments: Assignments,
    holds: std::collections::BTreeSet<Arc<str>>,
    catalogs: Catalogs,
    now: i64,
    plans: u64,
}

fn shape() -> Arc<PodShape> {
    let requests = Resources { pods: 1, ..Resources::new(1000, 2 << 30) };
    Arc::new(PodShape { namespace: "n".into(), requests, ..PodShape::default() })
}

fn instance(name: &str, cores: i64, price: i64) -> Arc<InstanceType> {
    let mut requirements = Requirements::new();
    requirements.insert(labels::INSTANCE_TYPE, Requirement::one_of([name]));
    Arc::new(InstanceType {
        name: name.into(),
        requirements,
        capacity: Resources { pods: 110, ..Resources::new(cores * 1000, cores << 32) },
        overhead: Resources::new(100, 1 << 30),
        attach_limits: Vec::new(),
        offerings: vec![Offering {
            zone: "a".into(),
            capacity_type: CapacityType::OnDemand,
            price: MicroDollarsPerHour(price),
            available: true,
            reserved: None,
        }],
    })
}

impl World {
    fn new() -> Self {
        let mut state = State::default();
        let pool = Pool {
            name: "p".into(),
            class: ClassRef { name: "c".into(), ..ClassRef::default() },
            ready: true,
            consolidate_after: Some(30),
            ..Pool::default()
        };
        state.apply(Event::Pools(Change::Replace(vec![pool])));
        let types = vec![instance("large", 4, 100_000), instance("xlarge", 16, 390_000)];
        let catalog = Catalog { types: types.into(), volume_price: MicroDollarsPerHour(2_000) };
        Self {
            state,
            ledger: Ledger::default(),
            assignments: Assignments::default(),
            holds: std::collections::BTreeSet::new(),
            catalogs: Catalogs::new([("c".into(), catalog)].into()),
            now: 1_000,
            plans: 0,
        }
    }

    fn scale(&mut self, desired: u32, generation: i64) {
        let workload = Workload {
            kind: WorkloadKind::StatefulSet,
            namespace: "n".into(),
            name: "web".into(),
            uid: "w".into(),
            generation,
            owner: None,
            desired,
            template: shape(),
            deleted_at: None,
        };
        self.state.apply(Event::Workloads(WorkloadKind::StatefulSet, Change::Upsert(workload)));
    }

    fn pod(&mut self, index: u32, node: Option<&str>) {
        let pod = Pod {
            name: format!("web-{index}").into(),
            uid: format!("pod-{index}").into(),
            shape: shape(),
            owner: Some(OwnerRef {
                kind: "StatefulSet".into(),
                name: "web".into(),
                uid: "w".into(),
            }),
            node_name: node.map(Into::into),
            ..Pod::default()
        };
        self.state.apply(Event::Pods(Change::Upsert(pod)));
    }

    fn plan(&mut self) -> ProvisionPlan {
        let snapshot = self.state.snapshot();
        let mut active = std::collections::BTreeMap::new();
        for pod in snapshot.pods.values().filter(|pod| pod.active()) {
            *active.entry(snapshot.root_of(pod)).or_insert(0) += 1;
        }
        self.ledger.observe(snapshot.workloads.values(), &active, self.now);
        let waits = |owner: &str| self.ledger.get(owner).is_some_and(|r| r.missing() > 0);
        self.assignments.retain(&snapshot.claims, &|_| false, &waits, self.now);
        self.plans += 1;
        let settings = Settings { intents: true, improve: 0, hurry: Hurry::never() };
        let plan = provision(
            &snapshot,
            &self.ledger,
            &self.assignments,
            &self.catalogs,
            &settings,
            self.now,
            self.plans,
        );
        assert!(plan.violations.is_empty(), "{:?}", plan.violations);
        self.holds.clone_from(&plan.holds);
        for draft in &plan.claims {
            self.assignments.assign(
                Arc::clone(&draft.name),
                draft.pods.clone(),
                draft.capacity.clone(),
            );
            let claim = Claim {
                name: Arc::clone(&draft.name),
                uid: Arc::clone(&draft.name),
                pool: "p".into(),
                annotations: draft.annotations.clone(),
                requirements: draft.requirements.clone(),
                capacity: Resources::default(),
                created_at: self.now,
                stage_at: self.now,
                ..Claim::default()
            };
            self.state.apply(Event::Claims(Change::Upsert(claim)));
        }
        plan
    }

    /// Brings every claim to a stage, with a node of the cheapest type that was planned.
    fn advance(&mut self, stage: ClaimStage) {
        let snapshot = self.state.snapshot();
        for claim in snapshot.claims.values() {
            let mut claim = (**claim).clone();
            let name =
                claim.requirements.get(labels::INSTANCE_TYPE).unwrap().finite_values().unwrap();
            let types = self.catalogs.of(&snapshot.pools["p"]).unwrap().types;
            let mut fitting = types.iter().filter(|t| name.contains(&t.name));
            let instance = fitting.next().unwrap();
            claim.stage = stage;
            claim.stage_at = self.now;
            launched(&mut claim, instance);
            if stage >= ClaimStage::Registered {
                let node = joined(&mut claim);
                self.state.apply(Event::Nodes(Change::Upsert(node)));
            }
            self.state.apply(Event::Claims(Change::Upsert(claim)));
        }
    }

    fn planned(plan: &ProvisionPlan) -> u32 {
        plan.claims.iter().flat_map(|claim| &claim.pods).map(|pods| pods.count).sum()
    }
}

/// Gives a claim an instance of the type.
fn launched(claim: &mut Claim, instance: &InstanceType) {
    claim.provider_id = format!("aws:///{}", claim.name).into();
    claim.capacity = instance.capacity.clone();
    claim.allocatable = instance.allocatable();
}

/// The node that the instance of a claim becomes.
fn joined(claim: &mut Claim) -> Node {
    claim.node_name = Arc::clone(&claim.name);
    Node {
        name: Arc::clone(&claim.name),
        provider_id: Arc::clone(&claim.provider_id),
        capacity: claim.capacity.clone(),
        allocatable: claim.allocatable.clone(),
        ready: true,
        ..Node::default()
    }
}

#[test]
fn a_workload_is_planned_whole_and_once() {
    for count in [1, 10, 100, 1000] {
        let mut world = World::new();
        world.scale(count, 1);
        let plan = world.plan();
        assert_eq!(World::planned(&plan), count);
        assert!(world.plan().claims.is_empty(), "claims on their way cover {count} pods");
        world.advance(ClaimStage::Launched);
        assert!(world.plan().claims.is_empty());
    }
}

#[test]
fn a_slip_in_replicas_buys_no_fleet() {
    let mut world = World::new();
    world.scale(2_000_000_000, 1);
    let planned = |plan: &ProvisionPlan| -> u32 {
        plan.claims.iter().flat_map(|claim| &claim.pods).map(|pods| pods.count).sum()
    };
    assert_eq!(planned(&world.plan()), MOST_AHEAD);
    // Room for the next ones is bought as pods come.
    for index in 0..10 {
        world.pod(index, None);
    }
    assert_eq!(planned(&world.plan()), 10);
    assert!(world.plan().claims.is_empty());
}

#[test]
fn pods_take_the_place_of_their_announcement() {
    let mut world = World::new();
    world.scale(10, 1);
    assert_eq!(World::planned(&world.plan()), 10);
    for index in 0..10 {
        world.pod(index, None);
        assert!(world.plan().claims.is_empty(), "pod {index} was announced");
    }
    world.advance(ClaimStage::Initialized);
    let node = world.state.snapshot().nodes.keys().next().unwrap().to_string();
    for index in 0..3 {
        world.pod(index, Some(&node));
        assert!(world.plan().claims.is_empty(), "pod {index} was bound");
    }
}

#[test]
fn scaling_up_in_flight_buys_the_difference() {
    let mut world = World::new();
    world.scale(10, 1);
    world.plan();
    world.scale(16, 2);
    assert_eq!(World::planned(&world.plan()), 6);
}

#[test]
fn pods_of_a_claim_that_is_gone_are_planned_again() {
    let mut world = World::new();
    world.scale(3, 1);
    let plan = world.plan();
    world.state.apply(Event::Claims(Change::Delete(Arc::clone(&plan.claims[0].name))));
    assert_eq!(World::planned(&world.plan()), 3);
}

#[test]
fn another_leader_buys_nothing_twice() {
    let mut world = World::new();
    world.scale(50, 1);
    world.plan();
    world.assignments = Assignments::default();
    let snapshot = world.state.snapshot();
    for claim in snapshot.claims.values() {
        world.assignments.restore(claim, |owner| (owner == "w").then(shape));
    }
    assert!(world.plan().claims.is_empty());
}

#[test]
fn a_node_that_is_not_ready_any_more_takes_no_pods() {
    let mut world = World::new();
    world.scale(1, 1);
    world.plan();
    world.advance(ClaimStage::Initialized);
    let there = Arc::clone(world.state.snapshot().nodes.values().next().unwrap());
    let mut node = (*there).clone();
    world.pod(0, Some(&there.name));
    world.scale(2, 2);
    assert_eq!(World::planned(&world.plan()), 0, "there is room");
    node.ready = false;
    node.taints = vec![Taint::new("node.kubernetes.io/not-ready", TaintEffect::NoSchedule)];
    world.state.apply(Event::Nodes(Change::Upsert(node)));
    world.pod(1, None);
    assert_eq!(World::planned(&world.plan()), 1);
}

#[test]
fn room_that_somebody_took_is_planned_elsewhere() {
    let mut world = World::new();
    world.scale(3, 1);
    world.plan();
    world.advance(ClaimStage::Initialized);
    let node = world.state.snapshot().nodes.keys().next().map(Arc::clone).unwrap();
    let stranger = Pod {
        name: "stranger".into(),
        shape: Arc::new(PodShape {
            namespace: "n".into(),
            requests: Resources { pods: 1, ..Resources::new(3500, 1 << 30) },
            ..PodShape::default()
        }),
        node_name: Some(node),
        ..Pod::default()
    };
    world.state.apply(Event::Pods(Change::Upsert(stranger)));
    assert_eq!(World::planned(&world.plan()), 3);
}

#[test]
fn equal_claims_share_a_launch_group() {
    let mut world = World::new();
    world.scale(90, 1);
    let plan = world.plan();
    let groups: std::collections::BTreeSet<_> = plan.claims.iter().map(|c| &c.group).collect();
    assert!(groups.len() < plan.claims.len(), "{} claims", plan.claims.len());
    for claim in &plan.claims {
        let twins = plan.claims.iter().filter(|c| c.options == claim.options);
        assert!(twins.clone().all(|twin| twin.group == claim.group));
    }
}

#[test]
fn limits_count_claims_that_are_not_launched() {
    let mut world = World::new();
    let mut pool = (*world.state.snapshot().pools["p"]).clone();
    pool.limits.insert("cpu".into(), 8_000);
    world.state.apply(Event::Pools(Change::Upsert(pool)));
    world.scale(100, 1);
    assert_eq!(World::planned(&world.plan()), 6);
    let again = world.plan();
    assert!(again.claims.is_empty());
    assert!(again.unschedulable[0].reasons.to_string().contains("limit of cpu"));
}

#[test]
fn idle_nodes_go_after_their_time() {
    let mut world = World::new();
    world.scale(3, 1);
    world.plan();
    world.advance(ClaimStage::Initialized);
    let ends = |world: &World| {
        super::empty::to_end(
            &world.state.snapshot(),
            &world.assignments,
            &world.holds,
            &|_| 0,
            world.now,
        )
        .len()
    };
    assert_eq!(ends(&world), 0);
    world.scale(0, 2);
    world.now += 29;
    world.plan();
    assert_eq!(ends(&world), 0);
    world.now += 1;
    assert_eq!(ends(&world), 1);
}

#[test]
fn a_node_that_somebody_deletes_ends_with_its_claim() {
    let mut world = World::new();
    world.scale(3, 1);
    world.plan();
    world.advance(ClaimStage::Initialized);
    let ends = |world: &World| {
        super::empty::to_end(
            &world.state.snapshot(),
            &world.assignments,
            &world.holds,
            &|_| 0,
            world.now,
        )
    };
    assert!(ends(&world).is_empty());
    let mut node = (**world.state.snapshot().nodes.values().next().unwrap()).clone();
    node.deleted_at = Some(world.now);
    world.state.apply(Event::Nodes(Change::Upsert(node)));
    assert_eq!(ends(&world)[0].1, "node_deleted");
}

#[test]
fn a_node_bought_for_pods_that_cannot_move_yet_is_kept() {
    let mut world = World::new();
    world.scale(2, 1);
    world.plan();
    world.advance(ClaimStage::Initialized);
    let old = world.state.snapshot().nodes.values().next().map(Arc::clone).unwrap();
    for index in 0..2 {
        world.pod(index, Some(&old.name));
    }
    let mut leaving = (*old).clone();
    leaving.deleted_at = Some(world.now);
    world.state.apply(Event::Nodes(Change::Upsert(leaving.clone())));
    assert_eq!(World::planned(&world.plan()), 2, "a place is bought ahead");
    world.advance(ClaimStage::Initialized);
    world.state.apply(Event::Nodes(Change::Upsert(leaving)));
    // A budget holds the pods back for longer than any grace.
    for _ in 0..20 {
        world.now += 10;
        assert!(world.plan().claims.is_empty(), "it is bought once");
        let snapshot = world.state.snapshot();
        let ends =
            super::empty::to_end(&snapshot, &world.assignments, &world.holds, &|_| 0, world.now);
        assert!(ends.iter().all(|(claim, reason)| {
            *reason == "node_deleted" && snapshot.node_of(claim).unwrap().name == old.name
        }));
    }
}
