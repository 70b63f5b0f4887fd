//! Whether gangs are placed wholly or not at all, and together.

use std::collections::{BTreeMap, BTreeSet};

use super::{Violation, means, places};
use crate::model::pod::{PodAffinityTerm, PodShape};
use crate::schedule::problem::Problem;
use crate::schedule::solution::Solution;

pub(super) fn judge(problem: &Problem, solution: &Solution) -> Vec<Violation> {
    let mut found = whole(problem, solution);
    found.extend(together(problem, solution));
    found
}

fn object(place: String, message: impl Into<String>) -> Violation {
    Violation { place, message: message.into() }
}

fn whole(problem: &Problem, solution: &Solution) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut left: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    for demand in &problem.demands {
        if let Some(gang) = demand.gang {
            left.entry(gang).or_default().1 += u64::from(demand.count);
        }
    }
    for unplaced in &solution.unplaced {
        if let Some(gang) = problem.demands.get(unplaced.demand).and_then(|d| d.gang) {
            left.entry(gang).or_default().0 += u64::from(unplaced.count);
        }
    }
    for (gang, (missing, all)) in left {
        let slot = problem.gangs.get(gang).copied().unwrap_or_default();
        if missing == all {
            continue;
        }
        let place = format!("gang {gang}");
        if slot.absent {
            found.push(object(place.clone(), "it is placed before its PodGroup exists"));
        }
        if all.saturating_sub(missing) + u64::from(slot.there) < u64::from(slot.size) {
            let message = format!("it is placed without all of its {} pods", slot.size);
            found.push(object(place.clone(), message));
        }
        if missing > 0 && !slot.elastic {
            let message = format!("{missing} of its {all} pods have no place");
            found.push(object(place, message));
        }
    }
    found
}

/// Whether pods that must share a domain of a label do: with those that are there, or else with each
/// other.
fn together(problem: &Problem, solution: &Solution) -> Vec<Violation> {
    let demands = problem.demands.iter();
    let terms: BTreeSet<(&PodAffinityTerm, &str)> = demands
        .flat_map(|demand| demand.shape.together.iter().map(|t| (t, &*demand.shape.namespace)))
        .collect();
    if terms.is_empty() {
        return Vec::new();
    }
    let (places, waiting) = places::places(problem, solution);
    let mut found = Vec::new();
    for (term, namespace) in terms {
        let asks = |pod: &PodShape| *pod.namespace == *namespace && pod.together.contains(term);
        let domain = |place: usize| places[place].labels.get(&*term.topology_key);
        let there: BTreeSet<Option<&String>> = problem
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| {
                node.pods.iter().any(|(pod, _)| means(problem, term, namespace, pod))
            })
            .map(|(at, _)| domain(at))
            .collect();
        let planned: BTreeSet<Option<&String>> =
            waiting.iter().filter(|w| asks(w.pod)).map(|w| domain(w.place)).collect();
        let apart = if there.iter().flatten().next().is_some() {
            planned.iter().any(|domain| !there.contains(domain))
        } else {
            planned.len() > 1
        };
        if apart || planned.contains(&None) {
            let message = format!("a gang is not kept in one {}", term.topology_key);
            found.push(object(format!("namespace {namespace}"), message));
        }
    }
    found
}
