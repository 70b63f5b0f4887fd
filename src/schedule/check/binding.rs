//! Whether the pods of a solution could bind one after another, each as the kube-scheduler judges.
//!
//! The judge plays the scheduler: it keeps what is bound, and lets a pod bind to its planned node
//! when affinity, anti-affinity and spread hold at that moment. Pods with rules of their own come
//! first, the others last, since a pod without rules can always wait. Several orders are tried: with
//! the nodes that exist before the new ones or all at once, with spreads over host names first or
//! not. What becomes bindable in none of them is a violation.

use std::collections::{BTreeMap, BTreeSet};

use super::places::{self, Place, Waiting, admits, positions, ranks, tolerates};
use super::{Spot, Step, Violation, means};
use crate::model::labels::{self, LabelSelector};
use crate::model::pod::{NodeTerm, PodAffinityTerm, PodShape};
use crate::model::requirement::Requirements;
use crate::model::taints::Toleration;
use crate::schedule::problem::Problem;
use crate::schedule::solution::Solution;

/// What a rule counts.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Rule<'a> {
    /// Pods that a spread counts, on nodes that its pods may use.
    Spread {
        selector: Option<&'a LabelSelector>,
        namespace: &'a str,
        key: &'a str,
        affinity: Option<(&'a Requirements, &'a [NodeTerm])>,
        tolerations: Option<&'a [Toleration]>,
    },
    /// Pods that all these terms mean.
    Near { terms: &'a [PodAffinityTerm], namespace: &'a str, key: &'a str },
    /// Pods that an anti-affinity term of a namespace means.
    Far(&'a PodAffinityTerm, &'a str),
    /// Pods of a namespace that have an anti-affinity term.
    Owners(&'a PodAffinityTerm, &'a str),
}

/// The counts of a rule.
#[derive(Clone)]
struct Group<'a> {
    rule: Rule<'a>,
    /// Domain of each place that counts.
    domain_of: Vec<Option<usize>>,
    counts: Vec<i64>,
    /// Whether only new nodes have the domain.
    new: Vec<bool>,
    /// Least count of the domains that exist by now, how many have it, and how many exist.
    least: i64,
    at_least: usize,
    exist: usize,
    /// The smallest skew of the spreads that it serves.
    skew: i64,
    /// Pods that still look at it, by domain: all, and those that it counts.
    pending: Vec<(i64, i64)>,
}

/// How much a pod cares for those that bind after it.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Care {
    None,
    Some,
    Most,
}

/// The rules of a pod by group.
#[derive(Default)]
struct Facts {
    /// `(group, whether it counts itself, skew, least domains)`.
    spreads: Vec<(usize, bool, i64, usize)>,
    near: Vec<(usize, bool)>,
    far: Vec<usize>,
    repelled: Vec<usize>,
    counted: Vec<usize>,
}

struct Scheduler<'a> {
    problem: &'a Problem,
    places: Vec<Place<'a>>,
    groups: Vec<Group<'a>>,
    known: BTreeMap<Rule<'a>, usize>,
    facts: Vec<Facts>,
    /// Whether nodes of the plan exist by now.
    opened: bool,
    /// What bound so far.
    steps: Vec<Step>,
}

fn has_rules(pod: &PodShape) -> bool {
    !pod.pod_affinity.is_empty()
        || !pod.pod_anti_affinity.is_empty()
        || pod.spread.iter().any(|spread| spread.required)
}

/// Each node counts alone for these, so they are the hardest to please once others are there.
fn spreads_over_hosts(pod: &PodShape) -> bool {
    pod.spread.iter().any(|spread| spread.required && &*spread.topology_key == labels::HOSTNAME)
}

/// Lets all pods bind, and returns in which order, or those that could not with their demand.
pub(super) fn play(
    problem: &Problem,
    solution: &Solution,
) -> Result<Vec<Step>, Vec<(usize, Violation)>> {
    let (places, mut waiting) = places::places(problem, solution);
    let there = problem.nodes.iter().flat_map(|node| node.pods.iter().map(|(pod, _)| pod));
    if !problem.demands.iter().map(|demand| &demand.shape).chain(there).any(|pod| has_rules(pod)) {
        let all = waiting.iter().flat_map(|w| {
            let step = step(problem, w, places[w.place].is_new());
            std::iter::repeat_n(step, usize::try_from(w.count).unwrap_or(usize::MAX))
        });
        return Ok(all.collect());
    }
    let mut scheduler = Scheduler {
        problem,
        places,
        groups: Vec::new(),
        known: BTreeMap::new(),
        facts: Vec::new(),
        opened: false,
        steps: Vec::new(),
    };
    scheduler.learn(&mut waiting);
    // By content, so that the order of demands does not matter.
    let rank = ranks(&waiting);
    let position = positions(&scheduler.places, &waiting, &rank);
    waiting.sort_by_key(|w| {
        let rules = (!spreads_over_hosts(w.pod), !has_rules(w.pod));
        (rules, rank[w.facts], position[w.place])
    });
    let start: (Vec<Group<'_>>, Vec<Waiting<'_>>) = (scheduler.groups.clone(), waiting.clone());
    // There is no best order; one that works is enough.
    let orders = [(true, false), (true, true), (false, false), (false, true)];
    for (staged, hosts_first) in orders {
        (scheduler.groups, waiting) = start.clone();
        scheduler.steps.clear();
        let stages: &[bool] = if staged { &[false, true] } else { &[true] };
        for &opened in stages {
            scheduler.opened = opened;
            for group in &mut scheduler.groups {
                group.count_least(opened);
            }
            scheduler.run(&mut waiting, hosts_first);
        }
        if waiting.iter().all(|waiting| waiting.count == 0) {
            return Ok(scheduler.steps);
        }
    }
    let stuck = waiting.iter().filter(|waiting| waiting.count > 0);
    Err(stuck
        .map(|waiting| {
            let place = scheduler.places[waiting.place].name.clone();
            let why = scheduler.objection(waiting).unwrap_or_default();
            let message = format!("{} pods cannot bind: {why}", waiting.count);
            (waiting.demand, Violation { place, message })
        })
        .collect())
}

fn step(problem: &Problem, waiting: &Waiting<'_>, opened: bool) -> Step {
    let spot = match waiting.place.checked_sub(problem.nodes.len()) {
        Some(new) => Spot::New(new),
        None => Spot::Existing(waiting.place),
    };
    Step { spot, demand: waiting.demand, opened }
}

impl Group<'_> {
    fn count_least(&mut self, opened: bool) {
        self.least = i64::MAX;
        (self.at_least, self.exist) = (0, 0);
        for (count, new) in self.counts.iter().zip(&self.new) {
            if *new && !opened {
                continue;
            }
            self.exist += 1;
            if *count < self.least {
                (self.least, self.at_least) = (*count, 0);
            }
            self.at_least += usize::from(*count == self.least);
        }
    }

    fn add(&mut self, place: usize, count: i64, opened: bool) {
        let Some(domain) = self.domain_of[place] else { return };
        let was_least = self.counts[domain] == self.least;
        self.counts[domain] += count;
        if was_least {
            self.at_least -= 1;
            if self.at_least == 0 {
                self.count_least(opened);
            }
        }
    }

    /// Pods in the domain of a place, if it has one.
    fn here(&self, place: usize) -> Option<i64> {
        Some(self.counts[self.domain_of[place]?])
    }
}

impl<'a> Scheduler<'a> {
    /// Finds all rules and who counts for them, and counts the pods that are there.
    fn learn(&mut self, waiting: &mut [Waiting<'a>]) {
        let problem = self.problem;
        let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
        let mut pods: Vec<&'a PodShape> = Vec::new();
        let mut position = |pod: &'a PodShape| {
            *seen.entry(std::ptr::from_ref(pod).addr()).or_insert_with(|| {
                pods.push(pod);
                pods.len() - 1
            })
        };
        for waiting in waiting.iter_mut() {
            waiting.facts = position(waiting.pod);
        }
        let bound: Vec<(usize, usize, i64)> = problem
            .nodes
            .iter()
            .enumerate()
            .flat_map(|(place, node)| node.pods.iter().map(move |(pod, n)| (place, pod, *n)))
            .map(|(place, pod, n)| (place, position(pod), i64::from(n)))
            .collect();
        let fresh: BTreeSet<usize> = waiting.iter().map(|waiting| waiting.facts).collect();
        for (at, pod) in pods.iter().enumerate() {
            let facts = if fresh.contains(&at) { self.rules(pod) } else { self.repulsion(pod) };
            self.facts.push(facts);
        }
        let index = Index::new(&self.groups);
        for (at, pod) in pods.iter().enumerate() {
            for group in index.of(pod) {
                let rule = self.groups[group].rule;
                if self.counts(rule, pod) {
                    self.facts[at].counted.push(group);
                }
                if let Rule::Owners(term, namespace) = rule
                    && means(self.problem, term, namespace, pod)
                {
                    self.facts[at].repelled.push(group);
                }
            }
        }
        for waiting in waiting.iter() {
            self.look(waiting, i64::from(waiting.count));
        }
        for (place, facts, count) in bound {
            self.bind(place, facts, count);
        }
    }

    /// Groups of what a pod repels; it need not be a pod of the plan.
    fn repulsion(&mut self, pod: &'a PodShape) -> Facts {
        for term in &pod.pod_anti_affinity {
            self.group(Rule::Owners(term, &pod.namespace), pod);
        }
        Facts::default()
    }

    /// Groups of all rules of a pod.
    fn rules(&mut self, pod: &'a PodShape) -> Facts {
        let mut facts = self.repulsion(pod);
        for spread in pod.spread.iter().filter(|spread| spread.required) {
            let rule = Rule::Spread {
                selector: spread.selector.as_ref(),
                namespace: &pod.namespace,
                key: &spread.topology_key,
                affinity: spread
                    .honor_node_affinity
                    .then_some((&pod.node_selector, &*pod.required_node_terms)),
                tolerations: spread.honor_node_taints.then_some(&*pod.tolerations),
            };
            let group = self.group(rule, pod);
            let skew = i64::from(spread.max_skew);
            self.groups[group].skew = self.groups[group].skew.min(skew);
            let few = spread.min_domains.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
            facts.spreads.push((group, self.counts(rule, pod), skew, few));
        }
        for term in &pod.pod_affinity {
            let key = &*term.topology_key;
            let rule = Rule::Near { terms: &pod.pod_affinity, namespace: &pod.namespace, key };
            facts.near.push((self.group(rule, pod), self.counts(rule, pod)));
        }
        for term in &pod.pod_anti_affinity {
            facts.far.push(self.group(Rule::Far(term, &pod.namespace), pod));
        }
        facts
    }

    fn group(&mut self, rule: Rule<'a>, pod: &'a PodShape) -> usize {
        if let Some(known) = self.known.get(&rule) {
            return *known;
        }
        let mut domains: BTreeMap<&str, usize> = BTreeMap::new();
        let mut domain_of = Vec::with_capacity(self.places.len());
        let mut new = Vec::new();
        for place in &self.places {
            let eligible = match rule {
                Rule::Spread { affinity, tolerations, .. } => {
                    (affinity.is_none() || admits(pod, place))
                        && (tolerations.is_none() || tolerates(pod, place))
                }
                _ => true,
            };
            let domain = place.labels.get(key_of(rule)).filter(|_| eligible).map(|domain| {
                let next = domains.len();
                *domains.entry(domain).or_insert(next)
            });
            if let Some(domain) = domain {
                if domain == new.len() {
                    new.push(true);
                }
                new[domain] &= place.is_new();
            }
            domain_of.push(domain);
        }
        let counts = vec![0; new.len()];
        let skew = i64::MAX;
        let at = self.groups.len();
        let (least, at_least, exist) = (0, 0, 0);
        let pending = vec![(0, 0); counts.len()];
        self.groups.push(Group {
            rule,
            domain_of,
            counts,
            new,
            least,
            at_least,
            exist,
            skew,
            pending,
        });
        self.groups[at].count_least(self.opened);
        self.known.insert(rule, at);
        at
    }

    fn counts(&self, rule: Rule<'a>, pod: &PodShape) -> bool {
        match rule {
            Rule::Spread { selector, namespace, .. } => {
                namespace == &*pod.namespace
                    && !pod.leaving
                    && selector.is_some_and(|selector| selector.matches(&pod.labels))
            }
            Rule::Near { terms, namespace, .. } => {
                terms.iter().all(|term| means(self.problem, term, namespace, pod))
            }
            Rule::Far(term, namespace) => means(self.problem, term, namespace, pod),
            Rule::Owners(term, namespace) => {
                &*pod.namespace == namespace && pod.pod_anti_affinity.contains(term)
            }
        }
    }

    /// Lets pods bind, round by round, until nothing moves.
    fn run(&mut self, waiting: &mut [Waiting<'a>], hosts_first: bool) {
        let hosts = waiting.iter().take_while(|w| spreads_over_hosts(w.pod)).count();
        self.rounds(&mut waiting[..if hosts_first { hosts } else { 0 }]);
        let last = waiting.iter().position(|w| !has_rules(w.pod)).unwrap_or(waiting.len());
        let (ruled, free) = waiting.split_at_mut(last);
        self.rounds(ruled);
        // Pods without rules wait, but for those that others want to be near.
        let wanted: BTreeSet<usize> = ruled
            .iter()
            .filter(|waiting| waiting.count > 0)
            .flat_map(|waiting| self.facts[waiting.facts].near.iter().map(|(group, _)| *group))
            .collect();
        if !wanted.is_empty() {
            for waiting in free.iter_mut() {
                if self.facts[waiting.facts].counted.iter().any(|group| wanted.contains(group)) {
                    while self.try_bind(waiting, Care::None) {}
                }
            }
            self.rounds(ruled);
        }
        for waiting in free.iter_mut() {
            while self.try_bind(waiting, Care::None) {}
        }
        self.rounds(ruled);
    }

    /// Lets pods with rules bind, those that are in nobody's way before others.
    fn rounds(&mut self, waiting: &mut [Waiting<'a>]) {
        'again: loop {
            for care in [Care::Most, Care::Some] {
                let mut moved = false;
                for waiting in waiting.iter_mut() {
                    while self.try_bind(waiting, care) {
                        moved = true;
                    }
                }
                if moved {
                    continue 'again;
                }
            }
            if !waiting.iter_mut().any(|waiting| self.try_bind(waiting, Care::None)) {
                return;
            }
        }
    }

    fn try_bind(&mut self, waiting: &mut Waiting<'a>, care: Care) -> bool {
        if waiting.count == 0
            || (!self.opened && self.places[waiting.place].is_new())
            || (care != Care::None && !self.is_gentle(waiting, care))
            || self.objection(waiting).is_some()
        {
            return false;
        }
        self.bind(waiting.place, waiting.facts, 1);
        self.steps.push(step(self.problem, waiting, self.opened));
        waiting.count -= 1;
        self.look(waiting, -1);
        true
    }

    /// Counts pods that look at spreads.
    fn look(&mut self, waiting: &Waiting<'_>, count: i64) {
        for (group, own, ..) in &self.facts[waiting.facts].spreads {
            let group = &mut self.groups[*group];
            if let Some(domain) = group.domain_of[waiting.place] {
                group.pending[domain].0 += count;
                group.pending[domain].1 += if *own { count } else { 0 };
            }
        }
    }

    fn bind(&mut self, place: usize, facts: usize, count: i64) {
        for group in &self.facts[facts].counted {
            self.groups[*group].add(place, count, self.opened);
        }
    }

    /// Whether the pod is in nobody's way: those who still look at a spread where it binds will
    /// find it even enough, counting (with `Care::Most`) all of them.
    fn is_gentle(&self, waiting: &Waiting<'_>, care: Care) -> bool {
        let facts = &self.facts[waiting.facts];
        facts.counted.iter().all(|at| {
            let group = &self.groups[*at];
            let Some(domain) = group.domain_of[waiting.place] else { return true };
            let (all, own) = group.pending[domain];
            let mine = facts.spreads.iter().any(|(group, ..)| group == at);
            let others = match care {
                Care::Most if mine => return true,
                Care::Most => own,
                Care::Some | Care::None => 0,
            };
            all == 0 || group.counts[domain] + others < group.least.saturating_add(group.skew)
        })
    }

    /// A key that rules of the pod, or rules that keep others from it, look at and of which its node
    /// may have one value or another.
    fn undecided(&self, facts: &Facts, place: usize) -> Option<&'a str> {
        let open = &self.places[place].open;
        if open.is_empty() {
            return None;
        }
        let far = |group: &&usize| matches!(self.groups[**group].rule, Rule::Far(..));
        let spreads = facts.spreads.iter().map(|(group, ..)| group);
        let near = facts.near.iter().map(|(group, _)| group);
        let others = facts.far.iter().chain(&facts.repelled);
        let mut keys = spreads
            .chain(near)
            .chain(others)
            .chain(facts.counted.iter().filter(far))
            .map(|group| key_of(self.groups[*group].rule));
        keys.find(|key| open.contains(key))
    }

    /// Why the pod cannot bind now.
    fn objection(&self, waiting: &Waiting<'_>) -> Option<String> {
        let facts = &self.facts[waiting.facts];
        let of = |group: usize| (&self.groups[group], key_of(self.groups[group].rule));
        if let Some(key) = self.undecided(facts, waiting.place) {
            return Some(format!("its node leaves {key} open"));
        }
        for (group, own, skew, few) in &facts.spreads {
            let (group, key) = of(*group);
            let Some(here) = group.here(waiting.place) else {
                return Some(format!("its node has no label {key} to spread over"));
            };
            let least = if group.exist < *few { 0 } else { group.least };
            if here + i64::from(*own) - least > *skew {
                return Some(format!("the spread over {key} is not kept"));
            }
        }
        let first = facts
            .near
            .iter()
            .all(|(group, own)| *own && self.groups[*group].counts.iter().all(|count| *count == 0));
        for (group, _) in &facts.near {
            let (group, key) = of(*group);
            if !group.here(waiting.place).is_some_and(|here| here > 0 || first) {
                return Some(format!("no pod that it wants to be near has its {key}"));
            }
        }
        for group in facts.far.iter().chain(&facts.repelled) {
            let (group, key) = of(*group);
            if group.here(waiting.place).is_some_and(|here| here > 0) {
                return Some(format!("pods that repel each other share their {key}"));
            }
        }
        None
    }
}

/// Groups by a label without which they mean no pod, so that few have to be looked at in full.
struct Index<'a> {
    by_label: BTreeMap<(&'a str, &'a str), Vec<usize>>,
    others: Vec<usize>,
}

impl<'a> Index<'a> {
    fn new(groups: &[Group<'a>]) -> Self {
        let mut index = Self { by_label: BTreeMap::new(), others: Vec::new() };
        for (at, group) in groups.iter().enumerate() {
            let selector = match group.rule {
                Rule::Spread { selector, .. } => selector,
                Rule::Near { terms, .. } => terms.first().and_then(|term| term.selector.as_ref()),
                Rule::Far(term, _) => term.selector.as_ref(),
                // It counts its owners, whatever their labels.
                Rule::Owners(..) => None,
            };
            match selector.and_then(|selector| selector.match_labels.iter().next()) {
                Some((key, value)) => index.by_label.entry((key, value)).or_default().push(at),
                None => index.others.push(at),
            }
        }
        index
    }

    /// Groups that may mean the pod.
    fn of(&self, pod: &PodShape) -> Vec<usize> {
        let mut found = self.others.clone();
        for (key, value) in &pod.labels {
            found.extend(self.by_label.get(&(&**key, &**value)).into_iter().flatten());
        }
        found.sort_unstable();
        found
    }
}

fn key_of(rule: Rule<'_>) -> &str {
    match rule {
        Rule::Spread { key, .. } | Rule::Near { key, .. } => key,
        Rule::Far(term, _) | Rule::Owners(term, _) => &term.topology_key,
    }
}
