//! DaemonSet pods beside the pods of new nodes.

use super::{Violation, facts, look_up, may_meet};
use crate::model::labels::Labels;
use crate::model::pod::{PodAffinityTerm, PodShape};
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
        let same_node =
            |key: &str| key == "kubernetes.io/hostname" || key == "topology.kubernetes.io/zone";
        let mut terms = owner.pod_anti_affinity.iter();
        terms.any(|term| same_node(&term.topology_key) && selects(problem, term, owner, other))
    };
    (far(daemon, pod) || far(pod, daemon)).then_some("a DaemonSet and a pod keep apart")
}

fn selects(problem: &Problem, term: &PodAffinityTerm, owner: &PodShape, other: &PodShape) -> bool {
    let by_name = if term.namespaces.is_empty() && term.namespace_selector.is_none() {
        owner.namespace == other.namespace
    } else {
        term.namespaces.contains(&other.namespace)
    };
    let by_label = term.namespace_selector.as_ref().is_some_and(|selector| {
        let none = Labels::new();
        selector.matches(problem.namespaces.get(&other.namespace).unwrap_or(&none))
    });
    (by_name || by_label)
        && term.selector.as_ref().is_some_and(|selector| selector.matches(&other.labels))
}
