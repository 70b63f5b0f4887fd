//! Nodes that end: without pods, too old, or deleted by somebody.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::marks::consolidatable;
use crate::cluster::Snapshot;
use crate::demand::Assignments;
use crate::model::claim::Claim;
use crate::model::pod::Pod;

/// Whether a pod keeps its node: DaemonSets, mirrors and pods that have ended do not.
pub fn keeps_node(pod: &Pod) -> bool {
    !pod.of_daemon_set() && !pod.mirror && !pod.terminal()
}

/// Claims to end, with the reason. `holds` are nodes that the last plan uses for pods that have yet
/// to come; `last_pod_event` says when a pod last came to or left a node, in seconds since the
/// epoch, 0 when never.
pub fn to_end(
    snapshot: &Snapshot,
    assignments: &Assignments,
    holds: &BTreeSet<Arc<str>>,
    last_pod_event: &dyn Fn(&str) -> i64,
    now: i64,
) -> Vec<(Arc<Claim>, &'static str)> {
    let by_node = snapshot.pods_by_node();
    let mut found = Vec::new();
    for claim in snapshot.claims.values().filter(|claim| !claim.deleting()) {
        if claim.expire_after.is_some_and(|age| now - claim.created_at >= age) {
            found.push((Arc::clone(claim), "expired"));
            continue;
        }
        // The node waits for our finalizer: it is drained and its instance ends with its claim.
        if snapshot.node_of(claim).is_some_and(|node| node.deleted_at.is_some()) {
            found.push((Arc::clone(claim), "node_deleted"));
            continue;
        }
        let Some(pool) = snapshot.pools.get(&claim.pool) else { continue };
        let Some(node) = snapshot.node_of(claim) else { continue };
        if !consolidatable(claim, pool, last_pod_event(&node.name), now) {
            continue;
        }
        let held = node.do_not_disrupt()
            || holds.contains(&node.name)
            || !assignments.of(&claim.name).is_empty();
        let nominated = snapshot
            .pods
            .values()
            .any(|pod| pod.waiting() && pod.nominated_node == Some(Arc::clone(&node.name)));
        let busy =
            by_node.get(&*node.name).is_some_and(|pods| pods.iter().any(|pod| keeps_node(pod)));
        if !held && !nominated && !busy {
            found.push((Arc::clone(claim), "empty"));
        }
    }
    found
}
