//! Where pods of a solution are to bind, in an order that depends on content alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::look_up;
use crate::model::labels::{self, Labels};
use crate::model::pod::PodShape;
use crate::model::requirement::{Requirement, Requirements};
use crate::model::taints::Taint;
use crate::schedule::problem::Problem;
use crate::schedule::solution::{OfferingRef, Solution};

/// A node as rules see it.
pub(super) struct Place<'a> {
    pub(super) name: String,
    /// What is certain of its labels, of those that pods look at.
    pub(super) labels: Labels,
    /// Keys of these of which a new node leaves open what value it has.
    pub(super) open: BTreeSet<&'a str>,
    pub(super) taints: &'a [Taint],
    /// Its pool and choice, for a node of the plan.
    pub(super) bought: Option<(usize, OfferingRef)>,
}

impl Place<'_> {
    pub(super) fn is_new(&self) -> bool {
        self.bought.is_some()
    }
}

/// Pods that must bind: all of one demand on one node.
#[derive(Clone)]
pub(super) struct Waiting<'a> {
    pub(super) place: usize,
    pub(super) pod: &'a PodShape,
    pub(super) count: u32,
    pub(super) demand: usize,
    pub(super) facts: usize,
}

/// Position of each pod that has facts in the order of content; what is equal has the same.
pub(super) fn ranks(waiting: &[Waiting<'_>]) -> Vec<usize> {
    let mut pods: BTreeMap<usize, &PodShape> = BTreeMap::new();
    for waiting in waiting {
        pods.insert(waiting.facts, waiting.pod);
    }
    let mut order: Vec<(&PodShape, usize)> =
        pods.iter().map(|(facts, pod)| (*pod, *facts)).collect();
    order.sort_unstable();
    let mut rank = vec![0; pods.last_key_value().map_or(0, |(facts, _)| facts + 1)];
    for (position, same) in order.chunk_by(|(a, _), (b, _)| a == b).enumerate() {
        for (_, facts) in same {
            rank[*facts] = position;
        }
    }
    rank
}

/// Position of each place: existing nodes as they are listed, then new ones by what they are and
/// whom they take. Plans list new nodes by the positions of demands, which mean nothing.
pub(super) fn positions(
    places: &[Place<'_>],
    waiting: &[Waiting<'_>],
    rank: &[usize],
) -> Vec<usize> {
    let mut pods: Vec<Vec<(usize, u32)>> = vec![Vec::new(); places.len()];
    for waiting in waiting {
        pods[waiting.place].push((rank[waiting.facts], waiting.count));
    }
    for pods in &mut pods {
        pods.sort_unstable();
    }
    let mut order: Vec<usize> = (0..places.len()).collect();
    // Stable, and no existing node has a choice.
    order.sort_by_key(|at| places[*at].bought.map(|bought| (bought, &pods[*at])));
    let mut positions = vec![0; places.len()];
    for (position, place) in order.into_iter().enumerate() {
        positions[place] = position;
    }
    positions
}

/// Keys of the labels that pods of the plan, and those that are there, look at.
fn keys(problem: &Problem) -> BTreeSet<&str> {
    let there = problem.nodes.iter().flat_map(|node| node.pods.iter().map(|(pod, _)| pod));
    let mut keys = BTreeSet::from([labels::HOSTNAME]);
    for pod in problem.demands.iter().map(|demand| &demand.shape).chain(there) {
        let terms = pod.pod_affinity.iter().chain(&pod.pod_anti_affinity).chain(&pod.together);
        keys.extend(terms.map(|term| &*term.topology_key));
        keys.extend(pod.spread.iter().map(|spread| &*spread.topology_key));
        let of_terms = pod.required_node_terms.iter().map(|term| &term.requirements);
        let wanted = of_terms.chain([&pod.node_selector]).flat_map(Requirements::iter);
        keys.extend(wanted.map(|(key, _)| &**key));
    }
    keys
}

pub(super) fn places<'a>(
    problem: &'a Problem,
    solution: &'a Solution,
) -> (Vec<Place<'a>>, Vec<Waiting<'a>>) {
    let keys = keys(problem);
    let mut places = Vec::new();
    let mut waiting = Vec::new();
    for node in &problem.nodes {
        let seen = keys.iter().filter_map(|key| node.labels.get_key_value(*key));
        let mut labels: Labels = seen.map(|(key, value)| (key.clone(), value.clone())).collect();
        labels.entry(labels::HOSTNAME.to_owned()).or_insert_with(|| node.name.to_string());
        let name = format!("node {}", node.name);
        let open = BTreeSet::new();
        places.push(Place { name, labels, open, taints: &node.taints, bought: None });
    }
    for placement in &solution.placements {
        let Some(demand) = problem.demands.get(placement.demand) else { continue };
        if placement.node < places.len() {
            let (pod, count) = (&*demand.shape, placement.count);
            let (place, demand) = (placement.node, placement.demand);
            waiting.push(Waiting { place, pod, count, demand, facts: 0 });
        }
    }
    for (index, node) in solution.new_nodes.iter().enumerate() {
        let Some(slot) = problem.pools.get(node.pool) else { continue };
        let Some((instance, offering)) = look_up(slot, node.choice) else { continue };
        let mut labels = Labels::new();
        let certain = node.requirements.iter().chain(instance.requirements.iter());
        let mut open = BTreeSet::new();
        for (key, requirement) in certain.filter(|(key, _)| keys.contains(&***key)) {
            match requirement.single() {
                Some(value) => {
                    labels.insert(key.to_string(), value.to_string());
                }
                None if requirement.is_empty() => {}
                None => {
                    open.insert(&**key);
                }
            }
        }
        for (key, value) in [
            (labels::ZONE, &*offering.zone),
            (labels::CAPACITY_TYPE, offering.capacity_type.label()),
            (labels::INSTANCE_TYPE, &*instance.name),
            (labels::REGISTERED, "true"),
            (labels::INITIALIZED, "true"),
        ] {
            if keys.contains(key) {
                labels.insert(key.to_owned(), value.to_owned());
            }
        }
        labels.insert(labels::HOSTNAME.to_owned(), format!("new node {index}"));
        open.retain(|key| !labels.contains_key(*key));
        for (demand, count) in &node.pods {
            let Some(of) = problem.demands.get(*demand) else { continue };
            let (place, pod) = (places.len(), &*of.shape);
            waiting.push(Waiting { place, pod, count: *count, demand: *demand, facts: 0 });
        }
        let name = format!("new node {index}");
        places.push(Place {
            name,
            labels,
            open,
            taints: &slot.pool.taints,
            bought: Some((node.pool, node.choice)),
        });
    }
    (places, waiting)
}

pub(super) fn tolerates(pod: &PodShape, place: &Place<'_>) -> bool {
    place
        .taints
        .iter()
        .filter(|taint| taint.repels())
        .all(|taint| pod.tolerations.iter().any(|toleration| toleration.tolerates(taint)))
}

/// Whether selector and affinity admit the pod, as far as labels are certain.
pub(super) fn admits(pod: &PodShape, place: &Place<'_>) -> bool {
    let met = |key: &Arc<str>, wanted: &Requirement| match place.labels.get(&**key) {
        Some(value) => wanted.allows(value),
        None => wanted.allows_absent(),
    };
    pod.node_alternatives().iter().any(|terms| terms.iter().all(|(key, wanted)| met(key, wanted)))
}
