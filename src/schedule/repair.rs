//! A second look at pods that seem to fit nowhere because of rules about other pods.
//!
//! Domains are decided key by key and before nodes are known, with bounds for what cannot be known
//! yet. That is quick and safe, but where several keys meet it can find no way although there is one.
//! Here such pods are tried one by one: on each node that has room and on one new node of each kind
//! that their rules can tell apart, with the scheduler's part played by the checker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::check;
use super::compile::Offers;
use super::feasible;
use super::problem::{Demand, Options, Problem};
use super::reason::Reason;
use super::solution::{NewNode, Placement, Solution, Unplaced};
use super::solve::solve;
use crate::model::labels;
use crate::model::pod::PodShape;
use crate::model::requirement::Requirement;

/// Pods that may be played in all trials together: a few tens of milliseconds. Large plans get few
/// trials, small ones as many as they need.
const BUDGET: usize = 20_000;
/// Kinds of nodes that labels which a pool leaves open make of one column, at most.
const MOST_KINDS: usize = 64;

/// Places what it can of the pods that are left.
pub(super) fn repair(problem: &Problem, offers: &Offers, solution: &mut Solution) {
    let mut waiting: Vec<usize> = solution
        .unplaced
        .iter()
        .filter(|unplaced| problem.demands[unplaced.demand].gang.is_none() && is_ruled(unplaced))
        .map(|unplaced| unplaced.demand)
        .collect();
    if waiting.is_empty() {
        return;
    }
    waiting.sort_by(|a, b| {
        let (a, b) = (&problem.demands[*a].shape, &problem.demands[*b].shape);
        (b.priority, a).cmp(&(a.priority, b))
    });
    waiting.dedup();
    let placed: usize = solution.new_nodes.iter().map(|node| node.pods.len()).sum::<usize>()
        + solution.placements.len();
    let mut trials = Trials { problem, offers, left: BUDGET / placed.max(20) };
    for demand in waiting {
        while trials.left > 0 && solution.unplaced.iter().any(|u| u.demand == demand) {
            let Some(better) = trials.place(solution, demand) else { break };
            *solution = better;
        }
    }
}

/// Whether only rules about other pods keep the pods away from some pool or node.
fn is_ruled(unplaced: &Unplaced) -> bool {
    let of_pools = unplaced.reasons.pools.iter().map(|(_, reason)| reason);
    of_pools.chain(unplaced.reasons.nodes.iter().map(|(_, reason)| reason)).any(|reason| {
        matches!(
            reason,
            Reason::Spread { .. }
                | Reason::PodAffinity { .. }
                | Reason::PodAntiAffinity { .. }
                | Reason::Unsupported { .. }
        )
    })
}

struct Trials<'a> {
    problem: &'a Problem,
    offers: &'a Offers,
    /// Trials that may still be made.
    left: usize,
}

impl Trials<'_> {
    /// The solution with one more pod of a demand.
    fn place(&mut self, solution: &Solution, demand: usize) -> Option<Solution> {
        let pod = &self.problem.demands[demand].shape;
        let alternatives = pod.node_alternatives();
        for (node, slot) in self.problem.nodes.iter().enumerate() {
            let mut free = slot.free.clone();
            for placement in solution.placements.iter().filter(|p| p.node == node) {
                let of = &self.problem.demands[placement.demand].shape;
                free.sub(&of.requests.times(i64::from(placement.count)));
            }
            if feasible::takes(pod, &alternatives, slot) && pod.requests.fits(&free) {
                let mut trial = one_less(solution, demand);
                match trial.placements.iter_mut().find(|p| (p.node, p.demand) == (node, demand)) {
                    Some(placement) => placement.count += 1,
                    None => trial.placements.push(Placement { node, demand, count: 1 }),
                }
                trial.placements.sort_unstable();
                if self.holds(&trial)? {
                    return Some(trial);
                }
            }
        }
        for node in self.kinds(solution, demand) {
            let mut trial = one_less(solution, demand);
            trial.cost += node.price;
            trial.new_nodes.push(node);
            trial
                .new_nodes
                .sort_by(|a, b| (a.pool, &a.pods, a.choice).cmp(&(b.pool, &b.pods, b.choice)));
            if self.holds(&trial)? {
                return Some(trial);
            }
        }
        None
    }

    /// Whether the checker finds nothing; `None` when no trial is left.
    fn holds(&mut self, trial: &Solution) -> Option<bool> {
        self.left = self.left.checked_sub(1)?;
        Some(check::check(self.problem, trial).is_empty())
    }

    /// The cheapest new node for one pod of each kind that its rules can tell apart, the cheapest
    /// first.
    fn kinds(&self, solution: &Solution, demand: usize) -> Vec<NewNode> {
        let pod = &self.problem.demands[demand].shape;
        let keys: BTreeSet<&str> = rule_keys(pod).filter(|key| *key != labels::HOSTNAME).collect();
        let mut kinds: BTreeSet<Vec<Option<Arc<str>>>> = BTreeSet::new();
        for column in &self.offers.columns {
            let slot = &self.problem.pools[column.pool];
            let instance = &slot.types[column.type_index];
            let offering = &instance.offerings[column.offering_index];
            let values = |key: &str| match key {
                labels::ZONE => vec![Some(Arc::clone(&offering.zone))],
                labels::CAPACITY_TYPE => vec![Some(Arc::from(offering.capacity_type.label()))],
                key => {
                    let own = instance.requirements.get(key);
                    let named = own.or_else(|| slot.pool.requirements.get(key));
                    match named.and_then(Requirement::finite_values) {
                        Some(values) if !values.is_empty() => {
                            values.iter().cloned().map(Some).collect()
                        }
                        _ => vec![None],
                    }
                }
            };
            let mut of_column: Vec<Vec<Option<Arc<str>>>> = vec![Vec::new()];
            for key in &keys {
                let values = values(key);
                let longer = of_column.iter().flat_map(|kind| {
                    values.iter().map(|value| [&kind[..], std::slice::from_ref(value)].concat())
                });
                of_column = longer.take(MOST_KINDS).collect();
            }
            kinds.extend(of_column);
        }
        let mut bare = Problem {
            pools: self.problem.pools.clone(),
            daemons: self.problem.daemons.clone(),
            namespaces: self.problem.namespaces.clone(),
            volumes: self.problem.volumes.clone(),
            options: Options { bound: false, improve: 0, ..self.problem.options.clone() },
            ..Problem::default()
        };
        self.use_limits(&mut bare, solution);
        let mut nodes: Vec<NewNode> = Vec::new();
        for kind in kinds {
            let mut alone = PodShape {
                spread: Vec::new(),
                pod_affinity: Vec::new(),
                pod_anti_affinity: Vec::new(),
                preferred_pod_terms: Vec::new(),
                ..(**pod).clone()
            };
            for (key, value) in keys.iter().zip(kind) {
                if let Some(value) = value {
                    alone.node_selector.insert(key, Requirement::one_of([value]));
                }
            }
            bare.demands = vec![Demand { shape: Arc::new(alone), count: 1, gang: None }];
            for mut node in solve(&bare).new_nodes {
                node.pods = vec![(demand, 1)];
                nodes.push(node);
            }
        }
        nodes.sort_by_key(|node| (node.price, node.pool, node.choice));
        nodes.dedup();
        nodes
    }

    /// Takes off the limits what the nodes of a solution use.
    fn use_limits(&self, bare: &mut Problem, solution: &Solution) {
        bare.reserved.clone_from(&self.problem.reserved);
        let mut used: BTreeMap<(usize, Arc<str>), i64> = BTreeMap::new();
        for node in &solution.new_nodes {
            let slot = &self.problem.pools[node.pool];
            let instance = &slot.types[node.choice.type_index];
            if let Some(reserved) = &instance.offerings[node.choice.offering_index].reserved {
                *bare.reserved.entry(Arc::clone(&reserved.reservation.id)).or_insert(0) += 1;
            }
            let capacity = &instance.capacity;
            for name in slot.remaining.keys() {
                let amount = if &**name == "nodes" { 1 } else { capacity.get(name) };
                *used.entry((node.pool, Arc::clone(name))).or_insert(0) += amount;
            }
        }
        for ((pool, name), amount) in used {
            if let Some(left) = bare.pools[pool].remaining.get_mut(&name) {
                *left -= amount;
            }
        }
    }
}

/// Label keys that the pod's required rules look at.
fn rule_keys(pod: &PodShape) -> impl Iterator<Item = &str> {
    let spread = pod.spread.iter().filter(|spread| spread.required).map(|s| &*s.topology_key);
    let terms = pod.pod_affinity.iter().chain(&pod.together).chain(&pod.pod_anti_affinity);
    // Others may keep it away by these.
    spread.chain(terms.map(|term| &*term.topology_key)).chain([labels::ZONE, labels::CAPACITY_TYPE])
}

/// The solution with one pod of a demand less without a place.
fn one_less(solution: &Solution, demand: usize) -> Solution {
    let mut less = solution.clone();
    for unplaced in less.unplaced.iter_mut().filter(|unplaced| unplaced.demand == demand).take(1) {
        unplaced.count -= 1;
    }
    less.unplaced.retain(|unplaced| unplaced.count > 0);
    less
}
