//! An independent judge of solutions.
//!
//! It shares no code with the packer: every constraint is looked up again in the objects of the
//! problem. It runs in tests, in `simulate`, and before a plan is carried out.

mod binding;
mod daemons;
mod gangs;
mod places;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::problem::{NodeSlot, PoolSlot, Problem};
use super::solution::{NewNode, OfferingRef, Solution};
use crate::model::instance::{InstanceType, Offering};
use crate::model::labels::{self, Labels};
use crate::model::money::MicroDollarsPerHour;
use crate::model::pod::{PodAffinityTerm, PodShape};
use crate::model::requirement::{Requirement, Requirements};
use crate::model::resources::Resources;

/// Something that a solution must not do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// Where: a node, a new node, a demand, or the whole.
    pub place: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

struct Judge<'a> {
    problem: &'a Problem,
    solution: &'a Solution,
    found: Vec<Violation>,
}

/// All that is wrong with `solution`.
pub fn check(problem: &Problem, solution: &Solution) -> Vec<Violation> {
    let mut judge = Judge { problem, solution, found: Vec::new() };
    judge.everybody_once();
    judge.nodes();
    for (index, node) in solution.new_nodes.iter().enumerate() {
        judge.new_node(index, node);
    }
    judge.limits();
    judge.reservations();
    judge.money();
    let stuck = binding::play(problem, solution).err().unwrap_or_default();
    judge.found.extend(stuck.into_iter().map(|(_, violation)| violation));
    judge.found.extend(gangs::judge(problem, solution));
    judge.found.extend(volumes::judge(problem, solution));
    judge.found.extend(daemons::judge(problem, solution));
    judge.found
}

/// Where a pod is planned.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Spot {
    /// Position in [`Problem::nodes`].
    Existing(usize),
    /// Position in [`Solution::new_nodes`].
    New(usize),
}

/// A pod that binds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// Its node.
    pub spot: Spot,
    /// Position in [`Problem::demands`].
    pub demand: usize,
    /// Whether all new nodes exist by then; before, none does.
    pub opened: bool,
}

/// An order in which the kube-scheduler can bind the pods of a solution one after another.
///
/// # Errors
/// The pods that could not bind in any order that was tried.
pub fn binding_order(problem: &Problem, solution: &Solution) -> Result<Vec<Step>, Vec<Violation>> {
    binding::play(problem, solution)
        .map_err(|stuck| stuck.into_iter().map(|(_, violation)| violation).collect())
}

/// Demands with pods that could not bind, in any order that was tried, and those of equal pods:
/// which of them is stuck is chance.
pub(super) fn unbindable(problem: &Problem, solution: &Solution) -> Vec<usize> {
    let stuck = binding::play(problem, solution).err().unwrap_or_default();
    let stuck: BTreeSet<&PodShape> =
        stuck.iter().map(|(demand, _)| &*problem.demands[*demand].shape).collect();
    let demands = problem.demands.iter().enumerate();
    demands.filter(|(_, demand)| stuck.contains(&*demand.shape)).map(|(at, _)| at).collect()
}

impl Judge<'_> {
    fn object(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.found.push(Violation { place: place.into(), message: message.into() });
    }

    fn everybody_once(&mut self) {
        let mut counts = vec![0_u64; self.problem.demands.len()];
        let placed = self.solution.placements.iter().map(|p| (p.demand, p.count));
        let new = self.solution.new_nodes.iter().flat_map(|node| node.pods.iter().copied());
        let left = self.solution.unplaced.iter().map(|u| (u.demand, u.count));
        for (demand, count) in placed.chain(new).chain(left) {
            match counts.get_mut(demand) {
                Some(total) => *total += u64::from(count),
                None => self.found.push(Violation {
                    place: format!("demand {demand}"),
                    message: "does not exist".to_owned(),
                }),
            }
        }
        for (index, (count, demand)) in counts.iter().zip(&self.problem.demands).enumerate() {
            if *count != u64::from(demand.count) {
                let message = format!("{count} of {} pods are accounted for", demand.count);
                self.object(format!("demand {index}"), message);
            }
        }
        for unplaced in &self.solution.unplaced {
            if unplaced.reasons.pools.is_empty() && unplaced.reasons.nodes.is_empty() {
                self.object(
                    format!("demand {}", unplaced.demand),
                    "is not placed and has no reason",
                );
            }
        }
    }

    fn nodes(&mut self) {
        let mut by_node: BTreeMap<usize, Vec<(usize, u32)>> = BTreeMap::new();
        for placement in &self.solution.placements {
            by_node.entry(placement.node).or_default().push((placement.demand, placement.count));
        }
        for (index, pods) in by_node {
            let Some(node) = self.problem.nodes.get(index) else {
                self.object(format!("node {index}"), "does not exist");
                continue;
            };
            let place = format!("node {}", node.name);
            let mut asked = Resources::default();
            for (demand, count) in &pods {
                let pod = &self.problem.demands[*demand].shape;
                asked.add(&pod.requests.times(i64::from(*count)));
                for message in refuses_node(pod, node) {
                    self.object(place.clone(), message);
                }
            }
            if let Some(resource) = asked.shortage(&node.free) {
                self.object(place.clone(), format!("not enough {resource}"));
            }
            self.ports(&place, &pods, &node.host_ports);
        }
    }

    fn ports(&mut self, place: &str, pods: &[(usize, u32)], used: &[crate::model::pod::HostPort]) {
        let mut ports = used.to_vec();
        for (demand, count) in pods {
            let pod = &self.problem.demands[*demand].shape;
            for port in &pod.host_ports {
                if *count > 1 || ports.iter().any(|used| used.conflicts(port)) {
                    self.object(place, format!("host port {} is used twice", port.port));
                }
            }
            ports.extend(pod.host_ports.iter().cloned());
        }
    }

    fn new_node(&mut self, index: usize, node: &NewNode) {
        let place = format!("new node {index}");
        let Some(slot) = self.problem.pools.get(node.pool) else {
            return self.object(place, "its pool does not exist");
        };
        if !slot.pool.ready {
            self.object(place.clone(), "its pool is not ready");
        }
        if slot.pool.replicas.is_some() {
            self.object(place.clone(), "its pool keeps a fixed count of nodes");
        }
        if node.pods.is_empty() {
            self.object(place.clone(), "has no pods");
        }
        if !node.acceptable.contains(&node.choice) {
            self.object(place.clone(), "its choice is not acceptable");
        }
        let mut last = MicroDollarsPerHour(i64::MIN);
        for offering in &node.acceptable {
            let Some((instance, bought)) = look_up(slot, *offering) else {
                self.object(place.clone(), "an acceptable offering does not exist");
                continue;
            };
            self.holds(&place, slot, node, instance, bought);
            let price = bought.price + slot.volume_price;
            if price < last {
                self.object(place.clone(), "acceptable offerings are not in order of price");
            }
            last = price;
        }
        self.choice(&place, slot, node);
        self.ports(&place, &node.pods, &[]);
    }

    /// Whether what is acceptable has the values that the pool's `minValues` ask for.
    fn choice(&mut self, place: &str, slot: &PoolSlot, node: &NewNode) {
        for (key, requirement) in slot.pool.requirements.iter() {
            let Some(wanted) = requirement.min_values else { continue };
            let mut values: BTreeSet<&str> = BTreeSet::new();
            for (instance, bought) in node.acceptable.iter().filter_map(|o| look_up(slot, *o)) {
                // What the pool alone says is no choice of types.
                if let Some(value) = bought.label(key) {
                    values.insert(value);
                    continue;
                }
                let all = instance.requirements.get(key).and_then(Requirement::finite_values);
                values.extend(all.into_iter().flatten().map(|value| &**value));
            }
            if values.len() < usize::try_from(wanted).unwrap_or(usize::MAX) {
                let message = format!("minValues of {key} is {wanted}, not {}", values.len());
                self.object(place, message);
            }
        }
    }

    /// Whether one acceptable offering really holds the node's pods.
    fn holds(
        &mut self,
        place: &str,
        slot: &PoolSlot,
        node: &NewNode,
        instance: &InstanceType,
        bought: &Offering,
    ) {
        let at = format!("{place} as {} in {}", instance.name, bought.zone);
        if !bought.available {
            self.object(at.clone(), "the offering is not available");
        }
        let facts = facts(slot, instance, bought);
        if let Some(key) = slot.pool.requirements.conflict(&facts) {
            let message = format!("the pool's requirement on {key} is not met");
            self.object(at.clone(), message);
        }
        let mut asked = daemons(self.problem, slot, &facts);
        for (demand, count) in &node.pods {
            let Some(demand) = self.problem.demands.get(*demand) else { continue };
            let pod = &demand.shape;
            if pod.devices {
                self.object(at.clone(), "nobody knows whether it offers a pod's devices");
            }
            asked.add(&pod.requests.times(i64::from(*count)));
            for taint in slot.pool.taints.iter().filter(|taint| taint.repels()) {
                if !pod.tolerations.iter().any(|toleration| toleration.tolerates(taint)) {
                    self.object(at.clone(), format!("a pod does not tolerate {taint}"));
                }
            }
            if !may_meet(pod, &facts) {
                self.object(at.clone(), "a pod's node selector or affinity is not met");
            }
        }
        if let Some(resource) = asked.shortage(&instance.allocatable()) {
            self.object(at, format!("not enough {resource}"));
        }
    }

    fn limits(&mut self) {
        for (index, slot) in self.problem.pools.iter().enumerate() {
            for (name, remaining) in &slot.remaining {
                let nodes = self.solution.new_nodes.iter().filter(|node| node.pool == index);
                let used: i64 = nodes
                    .map(|node| {
                        if &**name == "nodes" {
                            return 1;
                        }
                        let types = node.acceptable.iter().filter_map(|o| look_up(slot, *o));
                        types.map(|(instance, _)| instance.capacity.get(name)).max().unwrap_or(0)
                    })
                    .sum();
                if used > *remaining && used > 0 {
                    let message =
                        format!("{used} of {name} is over what the limit leaves, {remaining}");
                    self.object(format!("NodePool {}", slot.pool.name), message);
                }
            }
        }
    }

    /// Every node that may use a reservation counts as one that does.
    fn reservations(&mut self) {
        let mut uses: BTreeMap<Arc<str>, (u32, u32)> = BTreeMap::new();
        for node in &self.solution.new_nodes {
            let Some(slot) = self.problem.pools.get(node.pool) else { continue };
            let bought = node.acceptable.iter().filter_map(|o| look_up(slot, *o));
            let mut named: BTreeMap<Arc<str>, u32> = BTreeMap::new();
            for reserved in bought.filter_map(|(_, offering)| offering.reserved.as_ref()) {
                named.insert(Arc::clone(&reserved.reservation.id), reserved.left);
            }
            for (id, left) in named {
                let held = self.problem.reserved.get(&id).copied().unwrap_or(0);
                let entry = uses.entry(id).or_insert((0, u32::MAX));
                *entry = (entry.0 + 1, entry.1.min(left.saturating_sub(held)));
            }
        }
        for (id, (used, left)) in uses.into_iter().filter(|(_, (used, left))| used > left) {
            self.object(format!("reservation {id}"), format!("has {left} instances, not {used}"));
        }
    }

    fn money(&mut self) {
        let mut total = MicroDollarsPerHour::ZERO;
        for (index, node) in self.solution.new_nodes.iter().enumerate() {
            total += node.price;
            let slot = self.problem.pools.get(node.pool);
            let real = slot.and_then(|slot| Some((slot, look_up(slot, node.choice)?)));
            if let Some((slot, (_, bought))) = real
                && bought.price + slot.volume_price != node.price
            {
                self.object(format!("new node {index}"), "its price is not that of its choice");
            }
        }
        if total != self.solution.cost {
            self.object("the solution", "its cost is not the sum of its nodes");
        }
        if self.solution.lower_bound.is_some_and(|bound| bound > self.solution.cost) {
            self.object("the solution", "its cost is below its lower bound");
        }
    }
}

fn look_up(slot: &PoolSlot, offering: OfferingRef) -> Option<(&InstanceType, &Offering)> {
    let instance = slot.types.get(offering.type_index)?;
    Some((instance, instance.offerings.get(offering.offering_index)?))
}

/// What is known of a new node: its type's labels, the pool's requirements, and what the offering
/// decides.
fn facts(slot: &PoolSlot, instance: &InstanceType, bought: &Offering) -> Requirements {
    let mut facts = Requirements::new();
    for (key, requirement) in instance.requirements.iter() {
        if !labels::OFFERED.contains(&&**key) {
            facts.insert(key, requirement.clone());
        }
    }
    for key in labels::OFFERED {
        let value = bought.label(key).map(|value| Requirement::one_of([value]));
        facts.insert(key, value.unwrap_or_else(Requirement::does_not_exist));
    }
    facts.insert(labels::REGISTERED, Requirement::one_of(["true"]));
    facts.insert(labels::INITIALIZED, Requirement::one_of(["true"]));
    for (key, requirement) in slot.pool.requirements.iter() {
        if facts.get(key).is_none() {
            facts.insert(key, requirement.clone());
        }
    }
    facts
}

fn may_meet(pod: &PodShape, facts: &Requirements) -> bool {
    pod.node_alternatives().iter().any(|wanted| wanted.unmet(facts, |_| false).is_none())
}

/// Whether an affinity term of a pod in the namespace `owner` selects `pod`.
fn means(problem: &Problem, term: &PodAffinityTerm, owner: &str, pod: &PodShape) -> bool {
    if !term.selector.as_ref().is_some_and(|selector| selector.matches(&pod.labels)) {
        return false;
    }
    let by_label = term.namespace_selector.as_ref().is_some_and(|selector| {
        let labels = problem.namespaces.get(&pod.namespace);
        labels.map_or_else(|| selector.matches(&Labels::new()), |l| selector.matches(l))
    });
    let own =
        term.namespaces.is_empty() && term.namespace_selector.is_none() && owner == &*pod.namespace;
    by_label || own || term.namespaces.contains(&pod.namespace)
}

fn daemons(problem: &Problem, slot: &PoolSlot, facts: &Requirements) -> Resources {
    let mut asked = Resources::default();
    for daemon in &problem.daemons {
        let tolerates = slot.pool.taints.iter().all(|taint| {
            !taint.repels()
                || daemon.tolerations.iter().any(|toleration| toleration.tolerates(taint))
        });
        if tolerates && may_meet(daemon, facts) {
            asked.add(&daemon.requests);
        }
    }
    asked
}

fn refuses_node(pod: &PodShape, node: &NodeSlot) -> Vec<String> {
    let mut messages = Vec::new();
    for taint in node.taints.iter().filter(|taint| taint.repels()) {
        if !pod.tolerations.iter().any(|toleration| toleration.tolerates(taint)) {
            messages.push(format!("a pod does not tolerate {taint}"));
        }
    }
    if !pod.node_selector.met_by(&node.labels) {
        messages.push("a pod's node selector is not met".to_owned());
    }
    let terms = &pod.required_node_terms;
    let met = terms.is_empty()
        || terms.iter().any(|term| {
            !term.is_empty()
                && term.requirements.met_by(&node.labels)
                && term.node_name.as_ref().is_none_or(|wanted| wanted.allows(&node.name))
        });
    if !met {
        messages.push("a pod's node affinity is not met".to_owned());
    }
    messages
}
