//! Selectors of other pods, as ordinals.
//!
//! A *counter* is a set of pods that some rule counts by domain of a topology key: "pods of this
//! namespace with these labels". All string matching of affinity, anti-affinity and spread happens
//! here, once per shape and counter.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::compile::Column;
use super::problem::Problem;
use super::relax::Want;
use crate::model::labels::{self, LabelSelector, Labels};
use crate::model::pod::{PodAffinityTerm, PodShape};
use crate::model::requirement::Requirement;

/// Domain of nodes without the label.
pub(super) const ABSENT: u32 = u32::MAX;
/// Domain of columns whose label is not decided by what is bought: their pool may leave it open, see
/// [`Key::choices`].
pub(super) const UNKNOWN: u32 = u32::MAX - 1;

/// A topology key other than the host name.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) name: Arc<str>,
    pub(super) domains: Vec<Arc<str>>,
    /// Domain of each column and of each node.
    pub(super) of_column: Vec<u32>,
    pub(super) of_node: Vec<u32>,
    /// Domains of which a pool lets each of its nodes have one.
    pub(super) choices: BTreeMap<usize, Vec<u32>>,
}

/// What a counter is for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    Spread,
    Affinity,
    Anti,
}

/// Namespaces of a term and the labels that it means. The selector `None` means no pod.
type Term<'p> = (Vec<&'p str>, Option<&'p LabelSelector>, Option<&'p LabelSelector>);

/// A set of pods counted by domain, in words.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Selected<'p> {
    kind: Kind,
    key: Option<usize>,
    /// All must mean the pod.
    terms: Vec<Term<'p>>,
}

/// A set of pods counted by domain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counter {
    pub(super) kind: Kind,
    /// Position in [`Topology::keys`]; `None` is the host name.
    pub(super) key: Option<usize>,
}

/// A required spread.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Spread {
    pub(super) counter: u32,
    pub(super) key: Option<usize>,
    pub(super) skew: i64,
    pub(super) min_domains: usize,
    /// Whether the pod counts itself.
    pub(super) own: bool,
    pub(super) honor_affinity: bool,
    pub(super) honor_taints: bool,
}

/// A required affinity or anti-affinity.
#[derive(Clone, Copy, Debug)]
pub(super) struct Near {
    pub(super) counter: u32,
    pub(super) key: Option<usize>,
    /// Whether the pod means itself.
    pub(super) own: bool,
}

/// The rules of a shape, and the counters that count it.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) spreads: Vec<Spread>,
    pub(super) near: Vec<Near>,
    pub(super) far: Vec<Near>,
    pub(super) matched: Vec<u32>,
}

/// Counts of pods by counter, sorted by counter.
pub(super) type Counts = Vec<(u32, i64)>;

/// Everything about topology.
#[derive(Clone, Debug, Default)]
pub(super) struct Topology {
    pub(super) keys: Vec<Key>,
    pub(super) counters: Vec<Counter>,
    /// Pods of each node by counter.
    pub(super) node_matches: Vec<Counts>,
    /// Pods of each node that repel what the counter counts.
    pub(super) node_owners: Vec<Counts>,
}

/// Counters while they are found.
struct Builder<'p> {
    keys: BTreeMap<&'p str, usize>,
    counters: BTreeMap<Selected<'p>, u32>,
}

impl<'p> Builder<'p> {
    fn key(&mut self, name: &'p str) -> Option<usize> {
        if name == labels::HOSTNAME {
            return None;
        }
        let next = self.keys.len();
        Some(*self.keys.entry(name).or_insert(next))
    }

    fn counter(&mut self, kind: Kind, key: Option<usize>, terms: Vec<Term<'p>>) -> u32 {
        let next = u32::try_from(self.counters.len()).unwrap_or(u32::MAX);
        *self.counters.entry(Selected { kind, key, terms }).or_insert(next)
    }

    fn rules(
        &mut self,
        pod: &'p PodShape,
        likes: &'p [PodAffinityTerm],
        spaces: &BTreeMap<Arc<str>, Labels>,
    ) -> Rules {
        let mut rules = Rules::default();
        for spread in &pod.spread {
            let key = self.key(&spread.topology_key);
            let term = (vec![&*pod.namespace], None, spread.selector.as_ref());
            rules.spreads.push(Spread {
                own: means(&term, pod, spaces),
                counter: self.counter(Kind::Spread, key, vec![term]),
                key,
                skew: i64::from(spread.max_skew.max(1)),
                min_domains: spread.min_domains.and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
                honor_affinity: spread.honor_node_affinity,
                honor_taints: spread.honor_node_taints,
            });
        }
        // The required terms of a pod mean pods that all of them mean.
        let all: Vec<Term<'p>> = pod.pod_affinity.iter().map(|t| term(t, pod)).collect();
        for (required, of) in pod
            .pod_affinity
            .iter()
            .map(|of| (true, of))
            .chain(likes.iter().map(|liked| (false, liked)))
        {
            let key = self.key(&of.topology_key);
            let terms = if required { all.clone() } else { vec![term(of, pod)] };
            let own = terms.iter().all(|term| means(term, pod, spaces));
            rules.near.push(Near { counter: self.counter(Kind::Affinity, key, terms), key, own });
        }
        rules.far = self.far(pod, spaces);
        rules
    }

    fn far(&mut self, pod: &'p PodShape, spaces: &BTreeMap<Arc<str>, Labels>) -> Vec<Near> {
        let mut far = Vec::new();
        for of in &pod.pod_anti_affinity {
            let key = self.key(&of.topology_key);
            let term = term(of, pod);
            let own = means(&term, pod, spaces);
            far.push(Near { counter: self.counter(Kind::Anti, key, vec![term]), key, own });
        }
        far
    }
}

fn term<'p>(term: &'p PodAffinityTerm, owner: &'p PodShape) -> Term<'p> {
    let mut spaces: Vec<&str> = term.namespaces.iter().map(|name| &**name).collect();
    if spaces.is_empty() && term.namespace_selector.is_none() {
        spaces.push(&owner.namespace);
    }
    spaces.sort_unstable();
    (spaces, term.namespace_selector.as_ref(), term.selector.as_ref())
}

fn means(term: &Term<'_>, pod: &PodShape, spaces: &BTreeMap<Arc<str>, Labels>) -> bool {
    let (names, by_label, selector) = term;
    selector.is_some_and(|selector| selector.matches(&pod.labels))
        && (names.contains(&&*pod.namespace)
            || by_label.is_some_and(|selector| {
                let none = Labels::new();
                selector.matches(spaces.get(&pod.namespace).unwrap_or(&none))
            }))
}

/// Whether a pod that is there keeps another away by anti-affinity over one of `keys`.
pub(super) fn repels(
    owner: &PodShape,
    pod: &PodShape,
    spaces: &BTreeMap<Arc<str>, Labels>,
    keys: fn(&str) -> bool,
) -> bool {
    let mut terms = owner.pod_anti_affinity.iter().filter(|of| keys(&of.topology_key));
    terms.any(|of| means(&term(of, owner), pod, spaces))
}

/// Counters by a label that all their pods carry, so that few have to be matched in full.
struct Index<'a, 'p> {
    counters: &'a [Selected<'p>],
    by_label: BTreeMap<(&'p str, &'p str), Vec<u32>>,
    others: Vec<u32>,
}

impl<'a, 'p> Index<'a, 'p> {
    fn new(counters: &'a [Selected<'p>]) -> Self {
        let mut index = Self { counters, by_label: BTreeMap::new(), others: Vec::new() };
        for (at, counter) in (0..).zip(counters) {
            let selector = counter.terms.first().and_then(|(_, _, selector)| *selector);
            match selector.and_then(|selector| selector.match_labels.iter().next()) {
                Some((key, value)) => {
                    index.by_label.entry((&**key, &**value)).or_default().push(at);
                }
                None => index.others.push(at),
            }
        }
        index
    }

    /// Counters that count the pod, in order.
    fn of(&self, pod: &PodShape, spaces: &BTreeMap<Arc<str>, Labels>) -> Vec<u32> {
        let mut found: Vec<u32> = self.others.clone();
        for (key, value) in &pod.labels {
            found.extend(self.by_label.get(&(&**key, &**value)).into_iter().flatten());
        }
        found.retain(|at| {
            let counter = &self.counters[*at as usize];
            let seen = !pod.leaving || counter.kind != Kind::Spread;
            seen && counter.terms.iter().all(|term| means(term, pod, spaces))
        });
        found.sort_unstable();
        found
    }
}

impl Topology {
    pub(super) fn counter(&self, counter: u32) -> Counter {
        self.counters[counter as usize]
    }

    /// The topology of a problem, and the rules of each of `wants`.
    pub(super) fn new(
        problem: &Problem,
        columns: &[Column],
        wants: &[&Want],
    ) -> (Self, Vec<Rules>) {
        let spaces = &problem.namespaces;
        let mut builder = Builder { keys: BTreeMap::new(), counters: BTreeMap::new() };
        let mut rules: Vec<Rules> =
            wants.iter().map(|want| builder.rules(&want.pod, &want.likes, spaces)).collect();
        // Pods that are there repel others as well. Equal pods share one allocation.
        let mut owners: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for (pod, _) in problem.nodes.iter().flat_map(|node| &node.pods) {
            if !pod.pod_anti_affinity.is_empty() {
                owners.entry(Arc::as_ptr(pod).addr()).or_insert_with(|| {
                    builder.far(pod, spaces).iter().map(|far| far.counter).collect()
                });
            }
        }
        let mut by_position: Vec<(u32, Selected<'_>)> =
            builder.counters.into_iter().map(|(counter, at)| (at, counter)).collect();
        by_position.sort_unstable_by_key(|(at, _)| *at);
        let selected: Vec<Selected<'_>> = by_position.into_iter().map(|(_, c)| c).collect();
        let mut topology = Self::default();
        if selected.is_empty() {
            topology.node_matches = vec![Counts::new(); problem.nodes.len()];
            topology.node_owners.clone_from(&topology.node_matches);
            return (topology, rules);
        }
        topology.counters = selected.iter().map(|s| Counter { kind: s.kind, key: s.key }).collect();
        let index = Index::new(&selected);
        for (rules, want) in rules.iter_mut().zip(wants) {
            rules.matched = index.of(&want.pod, spaces);
        }
        let mut seen: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for node in &problem.nodes {
            let mut matches: BTreeMap<u32, i64> = BTreeMap::new();
            let mut repels: BTreeMap<u32, i64> = BTreeMap::new();
            for (pod, count) in &node.pods {
                let address = Arc::as_ptr(pod).addr();
                for at in seen.entry(address).or_insert_with(|| index.of(pod, spaces)) {
                    *matches.entry(*at).or_insert(0) += i64::from(*count);
                }
                for at in owners.get(&address).into_iter().flatten() {
                    *repels.entry(*at).or_insert(0) += i64::from(*count);
                }
            }
            topology.node_matches.push(matches.into_iter().collect());
            topology.node_owners.push(repels.into_iter().collect());
        }
        let mut names: Vec<(usize, &str)> =
            builder.keys.iter().map(|(name, at)| (*at, *name)).collect();
        names.sort_unstable();
        topology.keys =
            names.into_iter().map(|(_, name)| Key::new(problem, columns, name)).collect();
        (topology, rules)
    }
}

impl Key {
    fn new(problem: &Problem, columns: &[Column], name: &str) -> Self {
        let mut found: BTreeMap<Arc<str>, u32> = BTreeMap::new();
        let of_columns: Vec<Result<Arc<str>, u32>> =
            columns.iter().map(|column| domain_of(problem, column, name)).collect();
        let of_nodes: Vec<Result<Arc<str>, u32>> = problem
            .nodes
            .iter()
            .map(|node| match node.labels.get(name) {
                Some(value) => Ok(Arc::from(&**value)),
                None => Err(ABSENT),
            })
            .collect();
        let open = |pool: usize| {
            problem.pools[pool].pool.requirements.get(name).and_then(Requirement::finite_values)
        };
        let mut choices: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for (column, of) in columns.iter().zip(&of_columns) {
            if *of == Err(UNKNOWN) && open(column.pool).is_some() {
                choices.entry(column.pool).or_default();
            }
        }
        let values = choices.keys().filter_map(|pool| open(*pool)).flatten();
        for value in of_columns.iter().chain(&of_nodes).flatten().chain(values) {
            found.entry(Arc::clone(value)).or_insert(0);
        }
        for (at, position) in (0..).zip(found.values_mut()) {
            *position = at;
        }
        for (pool, choice) in &mut choices {
            let values = open(*pool).into_iter().flatten();
            choice.extend(values.filter_map(|value| found.get(value)));
        }
        let at = |domain: &Result<Arc<str>, u32>| match domain {
            Ok(value) => found.get(value).copied().unwrap_or(ABSENT),
            Err(missing) => *missing,
        };
        Self {
            of_column: of_columns.iter().map(at).collect(),
            of_node: of_nodes.iter().map(at).collect(),
            domains: found.keys().cloned().collect(),
            name: name.into(),
            choices,
        }
    }

    /// Domains that nodes of a column can have; [`ABSENT`] where they have no such label.
    pub(super) fn of(&self, column: usize, pool: usize) -> impl Iterator<Item = u32> {
        let one = self.of_column[column];
        let choice = self.choices.get(&pool).filter(|_| one == UNKNOWN);
        let one = (one != UNKNOWN).then_some(one);
        one.into_iter().chain(choice.into_iter().flatten().copied())
    }
}

/// The value of a label on nodes of a column, or why there is none.
fn domain_of(problem: &Problem, column: &Column, name: &str) -> Result<Arc<str>, u32> {
    let slot = &problem.pools[column.pool];
    let instance = &slot.types[column.type_index];
    let offering = &instance.offerings[column.offering_index];
    match name {
        labels::ZONE => return Ok(Arc::clone(&offering.zone)),
        labels::CAPACITY_TYPE => return Ok(Arc::from(offering.capacity_type.label())),
        key if instance.leaves_open(key) => {
            return offering.label(key).map(Arc::from).ok_or(ABSENT);
        }
        labels::REGISTERED | labels::INITIALIZED => return Ok(Arc::from("true")),
        _ => {}
    }
    let of = |requirement: &Requirement| match requirement.single() {
        Some(value) => Ok(Arc::clone(value)),
        None if requirement.is_empty() => Err(ABSENT),
        None => Err(UNKNOWN),
    };
    match (slot.pool.requirements.get(name), instance.requirements.get(name)) {
        (Some(pool), Some(own)) => of(&pool.intersect(own)),
        (Some(found), None) | (None, Some(found)) => of(found),
        (None, None) => Err(ABSENT),
    }
}
