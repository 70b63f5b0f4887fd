//! Pools of a fixed count of nodes.

use std::collections::BTreeSet;

use super::*;
use crate::model::pod::Protection;
use crate::plan::draft::ClaimDraft;
use crate::plan::fixed::{Missing, missing, surplus};

/// A world whose pool keeps this many nodes.
fn world(replicas: u32) -> World {
    let mut world = World::new();
    set(&mut world, replicas, None);
    world
}

fn set(world: &mut World, replicas: u32, nodes: Option<i64>) {
    let mut pool = (*world.state.snapshot().pools["p"]).clone();
    pool.replicas = Some(replicas);
    pool.limits = nodes.map(|nodes| (Arc::from("nodes"), nodes)).into_iter().collect();
    world.state.apply(Event::Pools(Change::Upsert(pool)));
}

fn lacking(world: &World) -> Missing {
    let snapshot = world.state.snapshot();
    missing(&snapshot, &world.assignments, &world.catalogs, world.now, world.plans)
}

fn write(world: &mut World, drafts: &[ClaimDraft]) {
    for draft in drafts {
        let claim = Claim {
            name: Arc::clone(&draft.name),
            uid: Arc::clone(&draft.name),
            pool: "p".into(),
            requirements: draft.requirements.clone(),
            created_at: world.now,
            stage_at: world.now,
            ..Claim::default()
        };
        world.state.apply(Event::Claims(Change::Upsert(claim)));
    }
}

/// Makes what the pool lacks, and a node for each.
fn fill(world: &mut World) {
    world.plans += 1;
    let drafts = lacking(world).claims;
    write(world, &drafts);
    let kind = Arc::clone(&world.catalogs.of(&world.state.snapshot().pools["p"]).unwrap().types[0]);
    for draft in &drafts {
        let mut claim = (*world.state.snapshot().claims[&draft.name]).clone();
        claim.stage = ClaimStage::Initialized;
        launched(&mut claim, &kind);
        let node = joined(&mut claim);
        world.state.apply(Event::Claims(Change::Upsert(claim)));
        world.state.apply(Event::Nodes(Change::Upsert(node)));
    }
}

fn names(world: &World) -> Vec<Arc<str>> {
    world.state.snapshot().claims.keys().cloned().collect()
}

fn ends(world: &World) -> Vec<Arc<str>> {
    let none = |_: &str| false;
    let claims = surplus(&world.state.snapshot(), &none, &BTreeSet::new(), world.now);
    claims.iter().map(|claim| Arc::clone(&claim.name)).collect()
}

#[test]
fn what_is_missing_is_made_once() {
    let mut world = world(3);
    let drafts = lacking(&world).claims;
    assert_eq!(drafts.len(), 3);
    let names: BTreeSet<_> = drafts.iter().map(|draft| &draft.name).collect();
    assert_eq!(names.len(), 3);
    let groups: BTreeSet<_> = drafts.iter().map(|draft| &draft.group).collect();
    assert_eq!(groups.len(), 1, "one call buys them");
    let draft = &drafts[0];
    assert_eq!(&*draft.options[0].instance_type, "large", "the cheapest");
    assert_eq!(draft.options.len(), 2);
    assert!(draft.requirements.get(labels::INSTANCE_TYPE).is_none(), "no list of types");
    write(&mut world, &drafts);
    assert!(lacking(&world).claims.is_empty());
    assert!(ends(&world).is_empty());
}

#[test]
fn a_limit_of_nodes_holds_at_every_moment() {
    let mut world = world(0);
    set(&mut world, 5, Some(3));
    fill(&mut world);
    assert_eq!(names(&world).len(), 3);
    // One is being ended: its place is free only when it is gone.
    let mut leaving = (*world.state.snapshot().claims[&names(&world)[0]]).clone();
    leaving.deleted_at = Some(world.now);
    let name = Arc::clone(&leaving.name);
    world.state.apply(Event::Claims(Change::Upsert(leaving)));
    assert!(lacking(&world).claims.is_empty());
    world.state.apply(Event::Claims(Change::Delete(name)));
    assert_eq!(lacking(&world).claims.len(), 1);
}

#[test]
fn pods_use_fixed_nodes_and_never_buy_them() {
    let mut world = world(2);
    world.scale(20, 1);
    let plan = world.plan();
    assert!(plan.claims.is_empty());
    let told = plan.unschedulable[0].reasons.to_string();
    assert!(told.contains("keeps a fixed count of nodes"), "{told}");
    fill(&mut world);
    let plan = world.plan();
    assert_eq!(plan.holds.len(), 2, "3 pods on each");
    assert_eq!(plan.unschedulable[0].count, 14);
    // Empty nodes of the pool stay.
    world.scale(0, 2);
    world.now += 10_000;
    world.plan();
    let snapshot = world.state.snapshot();
    let idle =
        crate::plan::empty::to_end(&snapshot, &world.assignments, &world.holds, &|_| 0, world.now);
    assert!(idle.is_empty());
}

#[test]
fn surplus_goes_in_order() {
    let mut world = world(4);
    fill(&mut world);
    let nodes = names(&world);
    for index in 0..3 {
        world.pod(index, Some(&nodes[1]));
    }
    world.pod(3, Some(&nodes[2]));
    let mut held = (**world.state.snapshot().pods.values().last().unwrap()).clone();
    held.name = "held".into();
    held.protection = Some(Protection::Always);
    held.node_name = Some(Arc::clone(&nodes[3]));
    world.state.apply(Event::Pods(Change::Upsert(held)));
    set(&mut world, 5, None);
    // Names follow from the plan's seed.
    world.plans += 1;
    let pending = lacking(&world).claims;
    write(&mut world, &pending);
    let order = [
        Arc::clone(&pending[0].name),
        Arc::clone(&nodes[0]),
        Arc::clone(&nodes[2]),
        Arc::clone(&nodes[1]),
        Arc::clone(&nodes[3]),
    ];
    for keep in 0..=5 {
        set(&mut world, keep, None);
        let keep = usize::try_from(keep).unwrap();
        assert_eq!(ends(&world), order[..5 - keep]);
    }
    // What the last plan uses an empty node for counts as a pod.
    set(&mut world, 3, None);
    let holds = BTreeSet::from([Arc::clone(&nodes[0])]);
    let claims = surplus(&world.state.snapshot(), &|_| false, &holds, world.now);
    assert_eq!(claims[0].name, order[0]);
    // But one that has come is moved only after those that may still be planned elsewhere.
    for held in [0, 2] {
        let holds = BTreeSet::from([Arc::clone(&nodes[held])]);
        world.pod(3, Some(&nodes[2 - held]));
        let claims = surplus(&world.state.snapshot(), &|_| false, &holds, world.now);
        assert_eq!(claims[1].name, nodes[held]);
    }
    world.pod(3, Some(&nodes[2]));
    let asked = |name: &str| *name == *order[0];
    set(&mut world, 4, None);
    assert!(
        surplus(&world.state.snapshot(), &asked, &holds, world.now).is_empty(),
        "one is ending"
    );
}

#[test]
fn what_cannot_be_bought_is_told() {
    let mut world = world(1);
    world.catalogs = Catalogs::new(
        [(
            Arc::from("c"),
            Catalog { types: Arc::from([]), volume_price: MicroDollarsPerHour::ZERO },
        )]
        .into(),
    );
    let lacking = lacking(&world);
    assert!(lacking.claims.is_empty());
    assert_eq!(lacking.short[0].1.to_string(), "no instance type can be bought now");
}
