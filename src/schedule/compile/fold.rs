//! Equal pods as one shape.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::Piece;
use crate::model::pod::PodShape;
use crate::schedule::problem::Problem;

/// Positions of pieces that are equal to all rules, in an order that does not depend on the input.
pub(super) fn fold(problem: &Problem, pieces: &[Piece]) -> Vec<Vec<usize>> {
    let visible = visible_keys(problem);
    let seen: Vec<Vec<(&str, &str)>> = pieces
        .iter()
        .map(|piece| {
            let labels = piece.want.pod.labels.iter();
            labels.map(|(k, v)| (&**k, &**v)).filter(|(k, _)| visible.contains(k)).collect()
        })
        .collect();
    // A selector without keys still looks at namespaces.
    let blind = visible.is_empty() && !has_rules(problem);
    let order = |a: usize, b: usize| -> Ordering {
        let (x, y) = (&pieces[a].want, &pieces[b].want);
        let (p, q) = (&*x.pod, &*y.pod);
        p.requests
            .cmp(&q.requests)
            .then_with(|| p.priority.cmp(&q.priority))
            .then_with(|| seen[a].cmp(&seen[b]))
            .then_with(|| if blind { Ordering::Equal } else { p.namespace.cmp(&q.namespace) })
            .then_with(|| p.spread.cmp(&q.spread))
            .then_with(|| p.pod_affinity.cmp(&q.pod_affinity))
            .then_with(|| p.pod_anti_affinity.cmp(&q.pod_anti_affinity))
            .then_with(|| p.node_selector.cmp(&q.node_selector))
            .then_with(|| p.required_node_terms.cmp(&q.required_node_terms))
            .then_with(|| p.tolerations.cmp(&q.tolerations))
            .then_with(|| p.host_ports.cmp(&q.host_ports))
            .then_with(|| x.likes.cmp(&y.likes))
            .then_with(|| x.avoids.cmp(&y.avoids))
            .then_with(|| pieces[a].needs.cmp(&pieces[b].needs))
    };
    // Who is first among equals has the first place, and what else pods are may matter later.
    let demand = |at: usize| pieces[at].demand;
    let whole = |at: usize| (&problem.demands[demand(at)].shape, demand(at));
    let mut all: Vec<usize> = (0..pieces.len()).collect();
    all.sort_by(|a, b| order(*a, *b).then_with(|| whole(*a).cmp(&whole(*b))));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for at in all {
        match groups.last_mut() {
            Some(group) if order(group[0], at) == Ordering::Equal => group.push(at),
            _ => groups.push(vec![at]),
        }
    }
    groups
}

/// Whether any pod has a rule about others.
fn has_rules(problem: &Problem) -> bool {
    let there = problem.nodes.iter().flat_map(|node| node.pods.iter().map(|(pod, _)| pod));
    let own = problem.demands.iter().map(|demand| &demand.shape);
    let mut all = own.chain(there).chain(&problem.daemons);
    all.any(|pod| pod.minds_others() || !pod.preferred_pod_terms.is_empty())
}

/// Labels that some selector looks at; pods that differ only in others are equal.
fn visible_keys(problem: &Problem) -> BTreeSet<&str> {
    let mut keys = BTreeSet::new();
    for demand in &problem.demands {
        collect_keys(&demand.shape, &mut keys);
    }
    let there = problem.nodes.iter().flat_map(|node| node.pods.iter().map(|(pod, _)| pod));
    for pod in there.chain(&problem.daemons) {
        collect_keys(pod, &mut keys);
    }
    keys
}

fn collect_keys<'p>(pod: &'p PodShape, keys: &mut BTreeSet<&'p str>) {
    let terms = pod.pod_affinity.iter().chain(&pod.together).chain(&pod.pod_anti_affinity);
    let preferred = pod.preferred_pod_terms.iter().map(|(_, term)| term);
    let selectors = terms.chain(preferred).filter_map(|term| term.selector.as_ref());
    for selector in selectors.chain(pod.spread.iter().filter_map(|c| c.selector.as_ref())) {
        keys.extend(selector.match_labels.keys().map(|key| &**key));
        keys.extend(selector.match_expressions.iter().map(|e| &*e.key));
    }
}
