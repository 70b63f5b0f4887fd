//! Why a pod does not fit the types of each family.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::feasible::{overfull, repelled, room};
use super::problem::{PoolSlot, Problem};
use super::reason::Reason;
use crate::model::instance::{Asked, InstanceType, label_meets};
use crate::model::labels;
use crate::model::pod::PodShape;
use crate::model::requirement::{Requirement, Requirements};
use crate::model::resources::Resources;

/// What the types of a family that a pool allows say to a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Family {
    /// Pool.
    pub pool: Arc<str>,
    /// Family: the part of the type's name before the dot.
    pub name: String,
    /// Types of it that the pool allows.
    pub types: usize,
    /// What keeps the pod from that type of them that comes nearest to taking it; `None` where one
    /// would take it, rules about other pods, volumes and other pods of the plan aside.
    pub reason: Option<Reason>,
}

/// All families of all pools that buy nodes, by weight and name of the pools and then by name.
pub fn families(problem: &Problem, pod: &PodShape) -> Vec<Family> {
    let alternatives = pod.node_alternatives();
    let mut all = Vec::new();
    for pool in problem.pools_by_weight() {
        let slot = &problem.pools[pool];
        let mut by_name: BTreeMap<&str, Vec<&Arc<InstanceType>>> = BTreeMap::new();
        for instance in &*slot.types {
            if slot.pool.requirements.conflict(&instance.requirements).is_none() {
                let family = instance.name.split('.').next().unwrap_or_default();
                by_name.entry(family).or_default().push(instance);
            }
        }
        for (name, types) in by_name {
            let reasons = types.iter().map(|i| of_type(problem, pool, i, pod, &alternatives));
            all.push(Family {
                pool: Arc::clone(&slot.pool.name),
                name: name.to_owned(),
                types: types.len(),
                reason: nearest(reasons),
            });
        }
    }
    all
}

/// The reason of the type that got furthest; of types that are too small, the largest.
fn nearest(reasons: impl Iterator<Item = Option<Reason>>) -> Option<Reason> {
    let far = |reason: &Option<Reason>| match reason {
        None => (5, 0),
        Some(Reason::Limit { remaining, .. }) => (4, *remaining),
        Some(Reason::NoOffering { .. }) => (3, 0),
        Some(Reason::Requirement { key, .. }) if key == labels::ZONE => (2, 0),
        Some(Reason::TooLarge { most, .. }) => (1, *most),
        Some(_) => (0, 0),
    };
    let mut best: Option<Option<Reason>> = None;
    for reason in reasons {
        if best.as_ref().is_none_or(|best| far(&reason) > far(best)) {
            best = Some(reason);
        }
    }
    best.flatten()
}

fn of_type(
    problem: &Problem,
    pool: usize,
    instance: &InstanceType,
    pod: &PodShape,
    alternatives: &[Requirements],
) -> Option<Reason> {
    let slot = &problem.pools[pool];
    if !slot.pool.ready {
        return Some(Reason::PoolNotReady);
    }
    if slot.pool.replicas.is_some() {
        return Some(Reason::PoolFixed);
    }
    if let Some(taint) = repelled(&slot.pool.taints, pod, false) {
        return Some(Reason::Taint { taint: taint.to_string() });
    }
    let met = |all: &&Requirements| instance.meets(&slot.pool.requirements, all);
    let met: Vec<&Requirements> = alternatives.iter().filter(met).collect();
    if met.is_empty() {
        return Some(unmet(slot, instance, alternatives.first()?));
    }
    let room = room(problem, pool, instance);
    if let Some(reason) = short(pod, instance, &room) {
        return Some(reason);
    }
    let of_pool = Asked::of(&slot.pool.requirements);
    let allowed = || instance.offerings.iter().filter(|offering| of_pool.met_by(offering));
    let wanted: Vec<Asked<'_>> = met.iter().map(|all| Asked::of(all)).collect();
    let suits = |offering| wanted.iter().any(|wanted| wanted.met_by(offering));
    if !allowed().any(|offering| suits(offering) && offering.available) {
        let zone = met.iter().find_map(|all| all.get(labels::ZONE));
        return Some(match zone {
            Some(zone) if !allowed().any(|offering| zone.allows(&offering.zone)) => {
                let found: BTreeSet<&str> = allowed().map(|offering| &*offering.zone).collect();
                Reason::Requirement {
                    key: labels::ZONE.to_owned(),
                    wanted: zone.to_string(),
                    found: found.into_iter().collect::<Vec<_>>().join(", "),
                }
            }
            _ => Reason::NoOffering { types: vec![instance.name.to_string()] },
        });
    }
    slot.remaining.iter().find_map(|(name, left)| {
        let asked = if &**name == "nodes" { 1 } else { instance.capacity.get(name) };
        (asked > *left).then(|| Reason::Limit { resource: name.to_string(), remaining: *left })
    })
}

/// The resource that is short on a type.
fn short(pod: &PodShape, instance: &InstanceType, room: &Resources) -> Option<Reason> {
    if let Some(name) = overfull(room) {
        let most = instance.allocatable().get(name);
        let asked = most.saturating_sub(room.get(name)).saturating_add(pod.requests.get(name));
        return Some(Reason::TooLarge { resource: name.to_owned(), asked, most });
    }
    let resource = pod.requests.shortage(room)?;
    let (asked, most) = (pod.requests.get(resource), room.get(resource));
    Some(Reason::TooLarge { resource: resource.to_owned(), asked, most })
}

/// The first key on which the pod and the type exclude each other.
fn unmet(slot: &PoolSlot, instance: &InstanceType, wanted: &Requirements) -> Reason {
    let (of_pool, of_type) = (&slot.pool.requirements, &instance.requirements);
    let excluded = |(key, wanted): &(&Arc<str>, &Requirement)| {
        !instance.leaves_open(key) && !label_meets(key, wanted, of_pool, of_type)
    };
    let Some((key, wanted)) = wanted.iter().find(excluded) else {
        return Reason::NoOffering { types: Vec::new() };
    };
    let found = of_type.get(key).or_else(|| of_pool.get(key));
    let found = found.filter(|found| !found.is_empty()).map(|found| match found.single() {
        Some(value) => value.to_string(),
        None => found.to_string(),
    });
    let (key, wanted) = (key.to_string(), wanted.to_string());
    Reason::Requirement { key, wanted, found: found.unwrap_or_default() }
}
