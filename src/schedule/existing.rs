//! Filling nodes that exist or are on their way.

use super::compile::{Compiled, Shape};
use super::problem::NodeSlot;
use super::solution::Placement;
use crate::model::pod::{HostPort, PodShape};
use crate::model::requirement::Requirements;
use crate::model::taints::untolerated;

/// Room of a node while it is filled.
struct Room<'a> {
    slot: &'a NodeSlot,
    free: Vec<i64>,
    ports: Vec<HostPort>,
    /// Shapes placed in this solve.
    placed: Vec<(usize, u32)>,
}

/// Places as much as fits, highest priority and largest pods first, on nodes that take pods at
/// once before those on their way, by name.
pub(super) fn fill(compiled: &mut Compiled<'_>) -> Vec<Placement> {
    let problem = compiled.problem;
    let mut order: Vec<usize> = (0..problem.nodes.len()).collect();
    order.sort_by_key(|index| {
        let node = &problem.nodes[*index];
        (!node.initialized, &node.name, *index)
    });
    let mut rooms: Vec<(usize, Room<'_>)> = order
        .into_iter()
        .map(|index| {
            let slot = &problem.nodes[index];
            let free = compiled.dims.iter().map(|name| slot.free.get(name)).collect();
            (index, Room { slot, free, ports: slot.host_ports.clone(), placed: Vec::new() })
        })
        .collect();
    let mut placements = Vec::new();
    for s in 0..compiled.shapes.len() {
        for (index, room) in &mut rooms {
            let left = compiled.shapes[s].left();
            if left == 0 {
                break;
            }
            let shape = &compiled.shapes[s];
            let count = left.min(fits(compiled, shape, s, room));
            if count == 0 {
                continue;
            }
            for (free, asked) in room.free.iter_mut().zip(&shape.request) {
                *free -= asked * i64::from(count);
            }
            room.ports.extend(shape.pod.host_ports.iter().cloned());
            room.placed.push((s, count));
            compiled.shapes[s].take(count, |demand, count| {
                placements.push(Placement { node: *index, demand, count });
            });
        }
    }
    placements.sort_unstable();
    placements
}

/// How many pods of a shape the node takes.
fn fits(compiled: &Compiled<'_>, shape: &Shape, index: usize, room: &Room<'_>) -> u32 {
    let mut most = shape.per_node;
    for (free, asked) in room.free.iter().zip(&shape.request) {
        if *asked > 0 {
            most = most.min(u32::try_from((free / asked).max(0)).unwrap_or(u32::MAX));
        }
    }
    if most == 0
        || shape.unsupported.is_some()
        || !admits(&shape.pod, &shape.alternatives, room.slot)
    {
        return 0;
    }
    if shape.pod.host_ports.iter().any(|port| room.ports.iter().any(|used| used.conflicts(port))) {
        return 0;
    }
    if room.placed.iter().any(|(other, _)| *other != index && shape.conflicts.contains(*other)) {
        return 0;
    }
    let namespaces = &compiled.problem.namespaces;
    for (pod, _) in &room.slot.pods {
        if super::compile::repels(&shape.pod, pod, namespaces)
            || super::compile::repels(pod, &shape.pod, namespaces)
        {
            return 0;
        }
    }
    if shape.per_node == u32::MAX {
        return most;
    }
    let there: u32 = room
        .slot
        .pods
        .iter()
        .filter(|(pod, _)| counted_together(&shape.pod, pod))
        .map(|(_, count)| *count)
        .sum();
    most.min(shape.per_node.saturating_sub(there))
}

/// Whether a required spread over host names of `pod` counts `other`.
fn counted_together(pod: &PodShape, other: &PodShape) -> bool {
    pod.namespace == other.namespace
        && pod.spread.iter().any(|spread| {
            spread.required
                && &*spread.topology_key == crate::model::labels::HOSTNAME
                && spread.selector.as_ref().is_some_and(|selector| selector.matches(&other.labels))
        })
}

/// Whether taints, selector and affinity admit the pod on the node. `alternatives` are those of the
/// pod in order, perhaps narrowed.
pub(super) fn admits(pod: &PodShape, alternatives: &[Requirements], slot: &NodeSlot) -> bool {
    let mut terms = pod.required_node_terms.iter().filter(|term| !term.is_empty());
    untolerated(&slot.taints, &pod.tolerations).is_none()
        && alternatives.iter().any(|alternative| {
            let name = terms.next().and_then(|term| term.node_name.as_ref());
            alternative.met_by(&slot.labels) && name.is_none_or(|wanted| wanted.allows(&slot.name))
        })
}
