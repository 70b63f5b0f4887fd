//! The nearest change that would give a pod a place.
//!
//! Each candidate changes one thing that the author of the pod or the pool controls, and is tried by
//! solving again, so that what is said is true and not a guess from the reason. Where no change helps
//! alone, two are tried.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::feasible::{overfull, room};
use super::problem::{Demand, Options, Problem};
use super::solve::solve;
use crate::model::labels;
use crate::model::pod::{NodeTerm, PodShape};
use crate::model::requirement::Requirements;
use crate::model::resources::{PODS, Resources};
use crate::model::taints::{Toleration, untolerated};

/// One change.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(tag = "change", rename_all = "PascalCase")]
pub enum Change {
    /// The pod asks for less.
    Request {
        /// Resource.
        resource: String,
        /// The most that it may ask: millicores, bytes or whole units.
        at_most: i64,
    },
    /// The pod does not ask for this label.
    Label {
        /// Label key.
        key: String,
        /// What it asks today.
        wanted: String,
        /// Values of which one would do; some of them.
        instead: Vec<String>,
    },
    /// The pod tolerates a taint.
    Toleration {
        /// Pool that has the taint.
        pool: String,
        /// The taint as `key=value:Effect`.
        taint: String,
    },
    /// The pod does not spread over this key.
    Spread {
        /// Topology key.
        key: String,
    },
    /// The pod need not be near others.
    PodAffinity {
        /// Topology key.
        key: String,
    },
    /// The pod does not keep away from others.
    PodAntiAffinity {
        /// Topology key.
        key: String,
    },
    /// The pod asks for no host port.
    HostPorts,
    /// The pool's limit allows one node more.
    Limit {
        /// Pool.
        pool: String,
        /// Limited resource, or `nodes`.
        resource: String,
        /// By how much the limit must rise.
        by: i64,
    },
}

impl fmt::Display for Change {
    /// The middle of a sentence that begins with "it would fit if".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request { resource, at_most } => {
                let most = Resources::format_amount(resource, *at_most);
                write!(f, "its {resource} request were at most {most}")
            }
            Self::Label { key, wanted, instead } if instead.is_empty() => {
                write!(f, "it did not ask for {key} {wanted}")
            }
            Self::Label { key, wanted, instead } => {
                write!(f, "it did not ask for {key} {wanted} ({} would do)", instead.join(" or "))
            }
            Self::Toleration { pool, taint } => {
                write!(f, "it tolerated the taint {taint} of NodePool {pool}")
            }
            Self::Spread { key } => write!(f, "it did not have to spread over {key}"),
            Self::PodAffinity { key } => write!(f, "it need not be near others by {key}"),
            Self::PodAntiAffinity { key } => {
                write!(f, "it did not have to keep away from others by {key}")
            }
            Self::HostPorts => f.write_str("it asked for no host port"),
            Self::Limit { pool, resource, by } => {
                let by = Resources::format_amount(resource, *by);
                write!(f, "the limit of {resource} of NodePool {pool} were {by} higher")
            }
        }
    }
}

/// Values that are named instead of the one that a pod asks for.
const NAMED: usize = 3;
/// Shares of a limit's step are found to this many doublings: an instance is at most this large.
const LARGEST_STEP: i64 = 1 << 50;

/// The fewest changes, at most two, after which one pod more of a demand has a place beside all pods
/// that were placed. Changes of a pod are changes of all pods of its demand: they have one template.
/// `None` where no two changes help. `placed` says how many pods of each demand were.
pub fn nearest(problem: &Problem, placed: &[u32], demand: usize) -> Option<Vec<Change>> {
    let of = problem.demands.get(demand)?;
    let trial = Trial::new(problem, placed, demand);
    let candidates = candidates(problem, &of.shape);
    for first in &candidates {
        if let Some(found) = trial.with(std::slice::from_ref(first)) {
            return Some(found);
        }
    }
    for (at, first) in candidates.iter().enumerate() {
        for second in &candidates[at + 1..] {
            if let Some(found) = trial.with(&[first.clone(), second.clone()]) {
                return Some(found);
            }
        }
    }
    None
}

/// Changes worth a try, the gentlest first.
fn candidates(problem: &Problem, pod: &PodShape) -> Vec<Change> {
    let mut all = Vec::new();
    for (resource, _) in pod.requests.iter().filter(|(name, _)| *name != PODS) {
        all.push(Change::Request { resource: resource.to_owned(), at_most: 0 });
    }
    let mut keys: BTreeSet<(&str, String)> = BTreeSet::new();
    let terms = pod.required_node_terms.iter().map(|term| &term.requirements);
    for (key, requirement) in terms.chain([&pod.node_selector]).flat_map(Requirements::iter) {
        keys.insert((key, requirement.to_string()));
    }
    for (key, wanted) in keys {
        all.push(Change::Label { key: key.to_owned(), wanted, instead: Vec::new() });
    }
    for slot in &problem.pools {
        if let Some(taint) = untolerated(&slot.pool.taints, &pod.tolerations) {
            let (pool, taint) = (slot.pool.name.to_string(), taint.to_string());
            all.push(Change::Toleration { pool, taint });
        }
    }
    let keys = |keys: &mut dyn Iterator<Item = &Arc<str>>| -> BTreeSet<String> {
        keys.map(ToString::to_string).collect()
    };
    let spread = &mut pod.spread.iter().filter(|s| s.required).map(|s| &s.topology_key);
    all.extend(keys(spread).into_iter().map(|key| Change::Spread { key }));
    let far = &mut pod.pod_anti_affinity.iter().map(|term| &term.topology_key);
    all.extend(keys(far).into_iter().map(|key| Change::PodAntiAffinity { key }));
    let near = &mut pod.pod_affinity.iter().chain(&pod.together).map(|term| &term.topology_key);
    all.extend(keys(near).into_iter().map(|key| Change::PodAffinity { key }));
    if !pod.host_ports.is_empty() {
        all.push(Change::HostPorts);
    }
    for slot in &problem.pools {
        for resource in slot.remaining.keys() {
            let (pool, resource) = (slot.pool.name.to_string(), resource.to_string());
            all.push(Change::Limit { pool, resource, by: 0 });
        }
    }
    all
}

/// A problem in which changes are tried.
struct Trial {
    problem: Problem,
    /// Position of the demand of which a pod has no place.
    pod: usize,
}

impl Trial {
    fn new(problem: &Problem, placed: &[u32], pod: usize) -> Self {
        let mut problem = problem.clone();
        problem.options = Options { bound: false, improve: 0, ..problem.options };
        for (demand, placed) in problem.demands.iter_mut().zip(placed) {
            demand.count = *placed;
            demand.gang = None;
        }
        problem.demands[pod].count += 1;
        // Others matter only where somebody minds them or a limit counts their nodes.
        let minds = problem.demands.iter().any(|demand| demand.shape.minds_others())
            || problem.pools.iter().any(|slot| !slot.remaining.is_empty())
            || !problem.nodes.is_empty();
        if minds {
            return Self { problem, pod };
        }
        let shape = Arc::clone(&problem.demands[pod].shape);
        problem.demands = vec![Demand { shape, count: 1, gang: None }];
        Self { problem, pod: 0 }
    }

    /// The changes with their figures, if all pods have a place after them.
    fn with(&self, changes: &[Change]) -> Option<Vec<Change>> {
        let mut problem = self.problem.clone();
        let mut pod = (*problem.demands[self.pod].shape).clone();
        // What a pod may ask for depends on the nodes that its other wishes leave.
        let (requests, others): (Vec<&Change>, Vec<&Change>) =
            changes.iter().partition(|change| matches!(change, Change::Request { .. }));
        for change in &others {
            apply(change, &mut pod, &mut problem);
        }
        let mut found: Vec<Change> = Vec::new();
        for change in &requests {
            if let Change::Request { resource, .. } = change {
                let at_most = most(&problem, &pod, resource)?;
                pod.requests.set(resource, at_most);
                found.push(Change::Request { resource: resource.clone(), at_most });
            }
        }
        problem.demands[self.pod].shape = Arc::new(pod);
        let solution = solve(&problem);
        if !solution.unplaced.is_empty() {
            return None;
        }
        for change in others {
            found.push(match change {
                Change::Label { key, wanted, .. } => Change::Label {
                    key: key.clone(),
                    wanted: wanted.clone(),
                    instead: self.values(&problem, key),
                },
                Change::Limit { pool, resource, .. } => Change::Limit {
                    pool: pool.clone(),
                    resource: resource.clone(),
                    by: self.step(&problem, pool, resource),
                },
                other => other.clone(),
            });
        }
        Some(found)
    }

    /// Values of a label with which the pod would have a place, those of the cheapest node first.
    fn values(&self, freed: &Problem, key: &str) -> Vec<String> {
        let mut known: BTreeSet<&str> = BTreeSet::new();
        for slot in &freed.pools {
            let pool = slot.pool.requirements.get(key).and_then(|r| r.finite_values());
            known.extend(pool.into_iter().flatten().map(|value| &**value));
            for instance in slot.types.iter() {
                let own = instance.requirements.get(key).and_then(|r| r.finite_values());
                known.extend(own.into_iter().flatten().map(|value| &**value));
                if key == labels::ZONE {
                    known.extend(instance.offerings.iter().map(|offering| &*offering.zone));
                }
            }
        }
        let pod = &freed.demands[self.pod].shape;
        let fits = |value: &&str| {
            let mut asks = (**pod).clone();
            let wanted = crate::model::requirement::Requirement::one_of([*value]);
            asks.node_selector.insert(key, wanted);
            let mut problem = freed.clone();
            problem.demands[self.pod].shape = Arc::new(asks);
            solve(&problem).unplaced.is_empty()
        };
        known.into_iter().filter(fits).take(NAMED).map(str::to_owned).collect()
    }

    /// By how much a limit must rise: the least that suffices.
    fn step(&self, freed: &Problem, pool: &str, resource: &str) -> i64 {
        let fits = |by: i64| {
            let mut problem = freed.clone();
            for (slot, was) in problem.pools.iter_mut().zip(&self.problem.pools) {
                if &*slot.pool.name == pool
                    && let Some(left) = was.remaining.get(resource)
                {
                    slot.remaining.insert(resource.into(), left.saturating_add(by));
                }
            }
            solve(&problem).unplaced.is_empty()
        };
        let (mut short, mut enough) = (0, LARGEST_STEP);
        while short + 1 < enough {
            let middle = short + (enough - short) / 2;
            if fits(middle) {
                enough = middle;
            } else {
                short = middle;
            }
        }
        enough
    }
}

/// Makes a change other than of a request.
fn apply(change: &Change, pod: &mut PodShape, problem: &mut Problem) {
    match change {
        Change::Request { .. } => {}
        Change::Label { key, wanted, .. } => {
            let drop = |requirements: &mut Requirements| {
                if requirements.get(key).is_some_and(|r| r.to_string() == *wanted) {
                    requirements.remove(key);
                }
            };
            drop(&mut pod.node_selector);
            for term in &mut pod.required_node_terms {
                drop(&mut term.requirements);
            }
            // A term without a wish would match nothing, not everything.
            if pod.required_node_terms.iter().any(NodeTerm::is_empty) {
                pod.required_node_terms.clear();
            }
        }
        Change::Toleration { pool, .. } => {
            let slots = problem.pools.iter().filter(|slot| *slot.pool.name == **pool);
            for taint in slots.flat_map(|slot| &slot.pool.taints) {
                pod.tolerations.push(Toleration {
                    key: Some(taint.key.clone()),
                    operator: Some("Exists".to_owned()),
                    effect: Some(taint.effect.to_string()),
                    ..Toleration::default()
                });
            }
        }
        Change::Spread { key } => pod.spread.retain(|spread| *spread.topology_key != **key),
        Change::PodAffinity { key } => {
            for terms in [&mut pod.pod_affinity, &mut pod.together] {
                terms.retain(|term| *term.topology_key != **key);
            }
        }
        Change::PodAntiAffinity { key } => {
            pod.pod_anti_affinity.retain(|term| *term.topology_key != **key);
        }
        Change::HostPorts => pod.host_ports.clear(),
        Change::Limit { pool, resource, .. } => {
            for slot in problem.pools.iter_mut().filter(|slot| *slot.pool.name == **pool) {
                slot.remaining.remove(&**resource);
            }
        }
    }
}

/// The most of a resource that a pod may ask to fit a new node that its other wishes admit.
fn most(problem: &Problem, pod: &PodShape, resource: &str) -> Option<i64> {
    let alternatives = pod.node_alternatives();
    let mut best = None;
    for (at, slot) in problem.pools.iter().enumerate() {
        if !slot.pool.ready || untolerated(&slot.pool.taints, &pod.tolerations).is_some() {
            continue;
        }
        for instance in slot.types.iter() {
            let requirements = &slot.pool.requirements;
            let labelled = requirements.conflict(&instance.requirements).is_none()
                && alternatives.iter().any(|a| instance.meets(requirements, a));
            if !labelled || instance.cheapest().is_none() {
                continue;
            }
            let room = room(problem, at, instance);
            let mut rest = pod.requests.clone();
            rest.set(resource, 0);
            if overfull(&room).is_none() && rest.fits(&room) {
                best = best.max(Some(room.get(resource)));
            }
        }
    }
    best.filter(|most| *most < pod.requests.get(resource))
}
