//! Which pods to nominate to a node that is about to open.
//!
//! The scheduler spreads pods by score and would strand a tight plan; it keeps the room of nominated
//! pods. A nomination to a closed node is cleared by the next failed attempt, so it is made just
//! before the last taint goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::Snapshot;
use crate::demand::Assignment;
use crate::model::pod::Pod;

/// The pods for a node with these assignments: the planned count of each owner, higher priority
/// first, never a pod that is nominated already.
pub fn nominations(snapshot: &Snapshot, assignments: &[Assignment]) -> Vec<Arc<Pod>> {
    let mut wanted: BTreeMap<&str, u32> = BTreeMap::new();
    for assignment in assignments {
        *wanted.entry(&assignment.owner).or_insert(0) += assignment.count;
    }
    let mut candidates: Vec<(Arc<str>, &Arc<Pod>)> = snapshot
        .pods
        .values()
        .filter(|pod| pod.waiting() && pod.nominated_node.is_none())
        .map(|pod| (snapshot.root_of(pod), pod))
        .filter(|(owner, _)| wanted.contains_key(&**owner))
        .collect();
    candidates.sort_by(|(_, a), (_, b)| {
        (b.shape.priority, a.created_at, &a.name).cmp(&(a.shape.priority, b.created_at, &b.name))
    });
    let mut chosen = Vec::new();
    for (owner, pod) in candidates {
        if let Some(left) = wanted.get_mut(&*owner).filter(|left| **left > 0) {
            *left -= 1;
            chosen.push(Arc::clone(pod));
        }
    }
    chosen
}
