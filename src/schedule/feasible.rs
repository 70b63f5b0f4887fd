//! Which columns and nodes a pod admits, rules about other pods aside.

use fixedbitset::FixedBitSet;

use super::compile::Compiled;
use super::problem::{NodeSlot, Problem};
use super::volumes::both;
use crate::model::instance::{Asked, InstanceType};
use crate::model::labels;
use crate::model::pod::PodShape;
use crate::model::requirement::{Requirement, Requirements};
use crate::model::resources::Resources;
use crate::model::taints::{Taint, untolerated};

/// The taint that keeps a pod away; those of effect `PreferNoSchedule` only where it `avoids` them.
pub(super) fn repelled<'t>(taints: &'t [Taint], pod: &PodShape, avoids: bool) -> Option<&'t Taint> {
    untolerated(taints, &pod.tolerations).or_else(|| {
        let soft = taints.iter().filter(|taint| avoids && !taint.repels());
        soft.into_iter().find(|taint| !pod.tolerations.iter().any(|t| t.tolerates(taint)))
    })
}

/// Columns that the pod admits under one of `alternatives`, which are its own, and one of those of
/// its volumes, if they have any.
pub(super) fn columns(
    compiled: &Compiled<'_>,
    pod: &PodShape,
    avoids: bool,
    alternatives: &[Requirements],
    volumes: Option<&[Requirements]>,
) -> FixedBitSet {
    let mut bits = FixedBitSet::with_capacity(compiled.offers.columns.len());
    let pools: Vec<bool> = compiled
        .problem
        .pools
        .iter()
        .map(|slot| repelled(&slot.pool.taints, pod, avoids).is_none())
        .collect();
    // A term that names nodes that exist cannot be met by a new one.
    let mut terms = pod.required_node_terms.iter().filter(|term| !term.is_empty());
    let mut open: Vec<Requirements> = alternatives
        .iter()
        .filter(|_| {
            let name = terms.next().and_then(|term| term.node_name.as_ref());
            name.is_none_or(|name| name.finite_values().is_none())
        })
        .cloned()
        .collect();
    if let Some(volumes) = volumes {
        open = both(&open, volumes);
    }
    let mut index = 0;
    while index < compiled.offers.columns.len() {
        // Columns of one pool and type are neighbours.
        let first = compiled.offers.columns[index];
        let same =
            compiled.offers.columns[index..].iter().take_while(|c| c.room == first.room).count();
        let end = index + same;
        if pools[first.pool] {
            let instance = compiled.instance_type(&first);
            for alternative in &open {
                if !compiled.template_meets(first.pool, instance, alternative) {
                    continue;
                }
                let asked = Asked::of(alternative);
                for at in index..end {
                    let offering = &instance.offerings[compiled.offers.columns[at].offering_index];
                    if asked.met_by(offering) {
                        bits.insert(at);
                    }
                }
            }
        }
        index = end;
    }
    bits
}

/// Whether selector and affinity admit the pod on a node. `alternatives` are the pod's, in order.
pub(super) fn met_by(pod: &PodShape, alternatives: &[Requirements], slot: &NodeSlot) -> bool {
    let mut terms = pod.required_node_terms.iter().filter(|term| !term.is_empty());
    alternatives.iter().any(|alternative| {
        let name = terms.next().and_then(|term| term.node_name.as_ref());
        alternative.met_by(&slot.labels) && name.is_none_or(|wanted| wanted.allows(&slot.name))
    })
}

/// Whether labels and taints of a node admit the pod. `alternatives` are the pod's, in order.
pub(super) fn takes(pod: &PodShape, alternatives: &[Requirements], slot: &NodeSlot) -> bool {
    met_by(pod, alternatives, slot) && repelled(&slot.taints, pod, false).is_none()
}

/// What the DaemonSets ask on a node of a pool and type.
pub(super) fn daemon_requests(
    problem: &Problem,
    pool: usize,
    instance: &InstanceType,
) -> Resources {
    let pool = &problem.pools[pool].pool;
    let mut total = Resources::default();
    for daemon in &problem.daemons {
        let fits = untolerated(&pool.taints, &daemon.tolerations).is_none()
            && daemon.node_alternatives().iter().any(|alternative| {
                instance.meets(&pool.requirements, alternative)
                    && zones_meet(pool.requirements.get(labels::ZONE), instance, alternative)
            });
        if fits {
            total.add(&daemon.requests);
        }
    }
    total
}

/// What a new node of a pool and type leaves beside its DaemonSets.
pub(super) fn room(problem: &Problem, pool: usize, instance: &InstanceType) -> Resources {
    instance.allocatable().minus(&daemon_requests(problem, pool, instance))
}

/// A resource of which the DaemonSets alone ask more than there is. Such a node is bought for nobody,
/// though a pod that asks for nothing could be bound to it.
pub(super) fn overfull(room: &Resources) -> Option<&str> {
    room.iter().find(|(_, left)| *left < 0).map(|(name, _)| name)
}

/// Whether some offering of the type is in a zone that both the pool and the alternative admit.
fn zones_meet(
    pool: Option<&Requirement>,
    instance: &InstanceType,
    alternative: &Requirements,
) -> bool {
    let asked = Asked::of(alternative);
    instance
        .offerings
        .iter()
        .any(|offering| pool.is_none_or(|r| r.allows(&offering.zone)) && asked.met_by(offering))
}
