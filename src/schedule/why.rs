//! Why a shape fits nowhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::compile::{Compiled, Shape};
use super::daemons;
use super::feasible::{daemon_requests, overfull, repelled, room};
use super::problem::{NodeSlot, PoolSlot};
use super::reason::{Reason, Reasons};
use super::topology::Kind;
use crate::model::instance::InstanceType;
use crate::model::labels;
use crate::model::requirement::Requirements;
use crate::model::resources::Resources;

/// The reasons of a shape of which pods are left.
pub(super) fn reasons(
    compiled: &Compiled<'_>,
    shape: &Shape,
    limits: &[BTreeMap<Arc<str>, i64>],
) -> Reasons {
    let mut reasons = Reasons::default();
    let problem = compiled.problem;
    if problem.pools.is_empty() {
        reasons.pools.push((String::new(), Reason::NoPool));
    }
    for pool in problem.pools_by_weight() {
        let slot = &problem.pools[pool];
        let reason = of_pool(compiled, shape, pool, slot, &limits[pool]);
        reasons.pools.push((slot.pool.name.to_string(), reason));
    }
    let mut by_reason: BTreeMap<Reason, u32> = BTreeMap::new();
    for (at, node) in problem.nodes.iter().enumerate() {
        *by_reason.entry(of_node(compiled, shape, at, node)).or_insert(0) += 1;
    }
    let mut counted: Vec<(u32, Reason)> = by_reason.into_iter().map(|(r, n)| (n, r)).collect();
    counted.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    reasons.nodes = counted;
    reasons
}

fn of_pool(
    compiled: &Compiled<'_>,
    shape: &Shape,
    index: usize,
    slot: &PoolSlot,
    limits: &BTreeMap<Arc<str>, i64>,
) -> Reason {
    let pool = &slot.pool;
    if !pool.ready {
        return Reason::PoolNotReady;
    }
    if pool.replicas.is_some() {
        return Reason::PoolFixed;
    }
    if let Some(taint) = repelled(&pool.taints, &shape.pod, shape.avoids) {
        return Reason::Taint { taint: taint.to_string() };
    }
    let meets = |instance: &InstanceType| {
        pool.requirements.conflict(&instance.requirements).is_none()
            && shape.alternatives.iter().any(|a| compiled.template_meets(index, instance, a))
    };
    let labelled: Vec<&Arc<InstanceType>> =
        slot.types.iter().filter(|instance| meets(instance)).collect();
    if labelled.is_empty() {
        return unmet(shape, slot);
    }
    if let Some(reason) = too_large(compiled, shape, index, &labelled) {
        return reason;
    }
    let fits = |instance: &&&Arc<InstanceType>| {
        let room = room(compiled.problem, index, instance);
        overfull(&room).is_none() && shape.pod.requests.fits(&room)
    };
    let large: Vec<&&Arc<InstanceType>> = labelled.iter().filter(fits).collect();
    let buyable: Vec<usize> = compiled
        .sets
        .get(shape.wide)
        .ones()
        .filter(|c| compiled.offers.columns[*c].pool == index)
        .filter(|c| {
            let room = &compiled.offers.rooms[compiled.offers.columns[*c].room];
            shape.request.iter().zip(room).all(|(asked, room)| asked <= room)
        })
        .collect();
    if buyable.is_empty() {
        if daemons::block(compiled, shape, index) {
            return Reason::DaemonSet;
        }
        // Zone or capacity type may be what excludes the offerings.
        let zones = shape.alternatives.iter().find_map(|a| a.get(labels::ZONE));
        if let Some(wanted) = zones
            && large.iter().all(|i| i.offerings.iter().all(|o| !wanted.allows(&o.zone)))
        {
            return Reason::Requirement {
                key: labels::ZONE.to_owned(),
                wanted: wanted.to_string(),
                found: zones_of(&large),
            };
        }
        if let Some(reason) = too_many_volumes(compiled, shape, index) {
            return reason;
        }
        let mut types: Vec<String> = large.iter().map(|i| i.name.to_string()).collect();
        types.truncate(5);
        return Reason::NoOffering { types };
    }
    for (name, remaining) in limits {
        let least = buyable
            .iter()
            .map(|c| match &**name {
                "nodes" => 1,
                name => compiled.instance_type(&compiled.offers.columns[*c]).capacity.get(name),
            })
            .min()
            .unwrap_or(0);
        if least > *remaining {
            return Reason::Limit { resource: name.to_string(), remaining: *remaining };
        }
    }
    // Pods alone would fit, so it is other pods that they mind, or that mind them.
    shape.blocked.clone().or_else(|| rule(compiled, shape)).unwrap_or(Reason::NoOffering {
        types: large.iter().take(5).map(|i| i.name.to_string()).collect(),
    })
}

/// The first rule about other pods.
fn rule(compiled: &Compiled<'_>, shape: &Shape) -> Option<Reason> {
    let pod = &shape.pod;
    let name = |key: Option<usize>| match key {
        Some(key) => compiled.topology.keys[key].name.to_string(),
        None => labels::HOSTNAME.to_owned(),
    };
    if let Some(near) = shape.rules.near.first() {
        return Some(Reason::PodAffinity { key: name(near.key) });
    }
    if let Some(spread) = pod.spread.first() {
        return Some(Reason::Spread { key: spread.topology_key.to_string() });
    }
    if let Some(term) = pod.pod_anti_affinity.first() {
        return Some(Reason::PodAntiAffinity { key: term.topology_key.to_string() });
    }
    let repelled = shape
        .rules
        .matched
        .iter()
        .map(|counter| compiled.topology.counter(*counter))
        .find(|counter| counter.kind == Kind::Anti);
    repelled.map(|counter| Reason::PodAntiAffinity { key: name(counter.key) })
}

fn too_large(
    compiled: &Compiled<'_>,
    shape: &Shape,
    pool: usize,
    types: &[&Arc<InstanceType>],
) -> Option<Reason> {
    let mut rooms: Vec<Resources> = types.iter().map(|i| room(compiled.problem, pool, i)).collect();
    if let Some(name) = rooms.iter().map(overfull).min().flatten() {
        // The DaemonSets alone are too large for every type.
        let most = types.iter().map(|i| i.allocatable().get(name)).max().unwrap_or(0);
        let daemons = types.iter().map(|i| daemon_requests(compiled.problem, pool, i).get(name));
        let asked = daemons.min().unwrap_or(0).saturating_add(shape.pod.requests.get(name));
        return Some(Reason::TooLarge { resource: name.to_owned(), asked, most });
    }
    rooms.retain(|room| overfull(room).is_none());
    if rooms.iter().any(|room| shape.pod.requests.fits(room)) {
        return None;
    }
    // Name the resource that no type has enough of; else the one that is short on most types.
    let most = |name: &str| rooms.iter().map(|room| room.get(name)).max().unwrap_or(0);
    let asked: Vec<(&str, i64)> = shape.pod.requests.iter().collect();
    let (resource, amount) =
        asked.iter().find(|(name, amount)| *amount > most(name)).or_else(|| {
            asked.iter().max_by_key(|(name, amount)| {
                rooms.iter().filter(|room| room.get(name) < *amount).count()
            })
        })?;
    Some(Reason::TooLarge {
        resource: (*resource).to_owned(),
        asked: *amount,
        most: most(resource),
    })
}

/// The driver of which the pod has more volumes than any type of the pool attaches.
fn too_many_volumes(compiled: &Compiled<'_>, shape: &Shape, pool: usize) -> Option<Reason> {
    let first = compiled.offers.first_driver();
    let columns = || compiled.offers.columns.iter().filter(|column| column.pool == pool);
    (first..compiled.offers.dims.len()).find_map(|dim| {
        let most = columns().map(|column| compiled.offers.rooms[column.room][dim]).max()?;
        let (resource, asked) = (compiled.offers.dims[dim].to_string(), shape.request[dim]);
        (asked > most).then_some(Reason::TooLarge { resource, asked, most })
    })
}

fn zones_of(types: &[&&Arc<InstanceType>]) -> String {
    let zones: std::collections::BTreeSet<&str> = types
        .iter()
        .flat_map(|instance| &instance.offerings)
        .map(|offering| &*offering.zone)
        .collect();
    zones.into_iter().collect::<Vec<_>>().join(", ")
}

/// The first key on which the pod and the pool's types exclude each other.
fn unmet(shape: &Shape, slot: &PoolSlot) -> Reason {
    let Some(alternative) = shape.alternatives.first() else {
        return Reason::Requirement {
            key: "node affinity".to_owned(),
            wanted: "an empty term, which matches nothing".to_owned(),
            found: String::new(),
        };
    };
    for (key, wanted) in alternative.iter() {
        let in_pool = slot.pool.requirements.get(key);
        let conflicts = in_pool.is_some_and(|found| !found.intersects(wanted));
        let by_type = |i: &Arc<InstanceType>| match i.requirements.get(key) {
            Some(found) => found.intersects(wanted),
            None => in_pool.is_some() || wanted.allows_absent(),
        };
        let pool_types = || {
            slot.types.iter().filter(|i| slot.pool.requirements.conflict(&i.requirements).is_none())
        };
        if conflicts || !pool_types().any(by_type) {
            let found = match in_pool {
                Some(found) => found.to_string(),
                None => values_of(pool_types(), key),
            };
            return Reason::Requirement { key: key.to_string(), wanted: wanted.to_string(), found };
        }
    }
    Reason::NoOffering { types: Vec::new() }
}

fn values_of<'a>(types: impl Iterator<Item = &'a Arc<InstanceType>>, key: &str) -> String {
    let mut values = std::collections::BTreeSet::new();
    for instance in types {
        let own = instance.requirements.get(key).and_then(|r| r.finite_values());
        values.extend(own.into_iter().flatten().map(ToString::to_string));
    }
    let text = values.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    match values.len().saturating_sub(5) {
        0 => text,
        more => format!("{text}, and {more} more"),
    }
}

fn of_node(compiled: &Compiled<'_>, shape: &Shape, at: usize, node: &NodeSlot) -> Reason {
    if let Some(taint) = repelled(&node.taints, &shape.pod, shape.avoids) {
        return Reason::Taint { taint: taint.to_string() };
    }
    if let Some(reason) = node_unmet(&shape.alternatives, node) {
        return reason;
    }
    if let Some(resource) = shape.pod.requests.shortage(&node.free) {
        return Reason::Room { resource: resource.to_owned() };
    }
    let first = compiled.offers.first_driver();
    let free = compiled.free(at);
    let short = (first..free.len()).find(|dim| shape.request[*dim] > free[*dim]);
    if let Some(dim) = short {
        return Reason::Room { resource: compiled.offers.dims[dim].to_string() };
    }
    let clash =
        shape.pod.host_ports.iter().find(|p| node.host_ports.iter().any(|u| u.conflicts(p)));
    if let Some(port) = clash {
        return Reason::HostPort { port: port.port };
    }
    shape
        .blocked
        .clone()
        .or_else(|| rule(compiled, shape))
        .unwrap_or(Reason::Room { resource: "room, other pods of the plan took it".to_owned() })
}

fn node_unmet(alternatives: &[Requirements], node: &NodeSlot) -> Option<Reason> {
    if alternatives.iter().any(|alternative| alternative.met_by(&node.labels)) {
        return None;
    }
    let alternative = alternatives.first()?;
    let (key, wanted) =
        alternative.iter().find(|(key, wanted)| match node.labels.get(&***key) {
            Some(value) => !wanted.allows(value),
            None => !wanted.allows_absent(),
        })?;
    Some(Reason::Requirement {
        key: key.to_string(),
        wanted: wanted.to_string(),
        found: node.labels.get(&**key).cloned().unwrap_or_default(),
    })
}
