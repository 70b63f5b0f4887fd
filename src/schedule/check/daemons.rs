//! DaemonSet pods beside the pods of new nodes.

use super::{Violation, facts, look_up, may_meet, means};
use crate::model::labels;
use crate::model::pod::PodShape;
use crate::schedule::problem::Problem;
use crate::schedule::solution::Solution;

/// Pods that could not be on their new node once its DaemonSets run.
pub(super) fn judge(problem: &Problem, solution: &Solution) -> Vec<Violation> {
    let mut found = Vec::new();
    for (index, node) in solution.new_nodes.iter().enumerate() {
        let Some(slot) = problem.pools.get(node.pool) else { continue };
        let Some((instance, bought)) = look_up(slot, node.choice) else { continue };
        let facts = facts(slot, instance, bought);
        for daemon in &problem.daemons {
            let tolerates = slot.pool.taints.iter().all(|taint| {
                !taint.repels() || daemon.tolerations.iter().any(|t| t.tolerates(taint))
            });
            if !tolerates || !may_meet(daemon, &facts) {
                continue;
            }
            let pods = node.pods.iter().filter_map(|(demand, _)| problem.demands.get(*demand));
            for message in pods.filter_map(|demand| clash(problem, daemon, &demand.shape)) {
                let (place, message) = (format!("new node {index}"), message.to_owned());
                found.push(Violation { place, message });
            }
        }
    }
    found
}

fn clash(problem: &Problem, daemon: &PodShape, pod: &PodShape) -> Option<&'static str> {
    if pod.host_ports.iter().any(|port| daemon.host_ports.iter().any(|d| d.conflicts(port))) {
        return Some("a DaemonSet has a pod's host port");
    }
    let far = |owner: &PodShape, other: &PodShape| {
        let same_node = |key: &str| key == labels::HOSTNAME || key == labels::ZONE;
        let mut terms = owner.pod_anti_affinity.iter();
        terms.any(|term| {
            same_node(&term.topology_key) && means(problem, term, &owner.namespace, other)
        })
    };
    (far(daemon, pod) || far(pod, daemon)).then_some("a DaemonSet and a pod keep apart")
}
