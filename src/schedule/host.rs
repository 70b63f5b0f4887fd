//! What pods of one node mean to each other: anti-affinity, spread over host names, host ports.
//!
//! A node counts the pods that rules look at. Each pod adds to some counters, and while it is there
//! some counters must not rise above a cap. Pods bind in two waves (those with a required spread
//! over host names first), and the least count over nodes is taken as 0 unless it is known to be
//! more, so that any order within a wave is good.

use super::compile::{Compiled, Shape};
use super::topology::{Kind, Rules};
use crate::model::pod::HostPort;

/// What a shape means to its neighbours.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Host {
    /// Counters that one pod (or bundle) adds to, and by how much; sorted.
    pub(super) adds: Vec<(u32, i64)>,
    /// Counters that must not exceed a cap while it is there; sorted.
    pub(super) caps: Vec<(u32, i64)>,
    /// Counters of which the node must hold at least one other pod.
    pub(super) needs: Vec<u32>,
}

impl Host {
    /// Whether it minds nobody and nobody minds it.
    pub(super) fn is_free(&self) -> bool {
        self.adds.is_empty() && self.caps.is_empty() && self.needs.is_empty()
    }

    /// Most of its pods on one node that holds no others.
    pub(super) fn per_node(&self) -> u32 {
        State::default().fit(self, u32::MAX)
    }

    /// Both on one node, as one.
    pub(super) fn join(&mut self, other: &Self, times: i64) {
        for (counter, n) in &other.adds {
            match self.adds.iter_mut().find(|(c, _)| c == counter) {
                Some((_, all)) => *all += n * times,
                None => self.adds.push((*counter, n * times)),
            }
        }
        for (counter, cap) in &other.caps {
            match self.caps.iter_mut().find(|(c, _)| c == counter) {
                Some((_, least)) => *least = (*least).min(*cap),
                None => self.caps.push((*counter, *cap)),
            }
        }
        self.adds.sort_unstable();
        self.caps.sort_unstable();
    }
}

/// Counts and caps of one node.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    counts: Vec<(u32, i64)>,
    caps: Vec<(u32, i64)>,
}

impl State {
    pub(super) fn clear(&mut self) {
        self.counts.clear();
        self.caps.clear();
    }

    pub(super) fn count(&self, counter: u32) -> i64 {
        self.counts.iter().find(|(c, _)| *c == counter).map_or(0, |(_, n)| *n)
    }

    pub(super) fn raise(&mut self, counter: u32, by: i64) {
        match self.counts.iter_mut().find(|(c, _)| *c == counter) {
            Some((_, n)) => *n += by,
            None => self.counts.push((counter, by)),
        }
    }

    pub(super) fn cap(&mut self, counter: u32, cap: i64) {
        match self.caps.iter_mut().find(|(c, _)| *c == counter) {
            Some((_, least)) => *least = (*least).min(cap),
            None => self.caps.push((counter, cap)),
        }
    }

    /// How many of `want` pods may join.
    pub(super) fn fit(&self, host: &Host, want: u32) -> u32 {
        let mut fit = i64::from(want);
        for (counter, n) in &host.adds {
            if let Some((_, cap)) = self.caps.iter().find(|(c, _)| c == counter) {
                fit = fit.min((cap - self.count(*counter)).max(0) / n);
            }
        }
        for (counter, cap) in &host.caps {
            let have = self.count(*counter);
            match host.adds.iter().find(|(c, _)| c == counter) {
                Some((_, n)) => fit = fit.min((cap - have).max(0) / n),
                None if have > *cap => fit = 0,
                None => {}
            }
        }
        if host.needs.iter().any(|counter| self.count(*counter) == 0) {
            fit = 0;
        }
        u32::try_from(fit.max(0)).unwrap_or(0)
    }

    pub(super) fn add(&mut self, host: &Host, pods: u32) {
        if pods == 0 {
            return;
        }
        for (counter, n) in &host.adds {
            self.raise(*counter, n * i64::from(pods));
        }
        for (counter, cap) in &host.caps {
            self.cap(*counter, *cap);
        }
    }

    /// What the pods of a node that exists leave.
    pub(super) fn of_node(compiled: &Compiled<'_>, ports: &[HostPort], node: usize) -> Self {
        let mut state = Self::default();
        let topology = &compiled.topology;
        let on_host = |counter: u32| topology.counter(counter).key.is_none();
        for (counter, n) in topology.node_matches[node].iter().filter(|(c, _)| on_host(*c)) {
            state.raise(*counter, *n);
        }
        for (counter, _) in topology.node_owners[node].iter().filter(|(c, _)| on_host(*c)) {
            state.cap(*counter, 0);
        }
        for (counter, port) in (port_base(compiled)..).zip(ports) {
            let used = &compiled.problem.nodes[node].host_ports;
            if used.iter().any(|other| other.conflicts(port)) {
                state.raise(counter, 1);
            }
        }
        state
    }
}

/// Ports have the counters after those of the selectors.
fn port_base(compiled: &Compiled<'_>) -> u32 {
    u32::try_from(compiled.topology.counters.len()).unwrap_or(u32::MAX)
}

/// Fills in what each shape means to its neighbours, and lists all host ports.
pub(super) fn compile(compiled: &mut Compiled<'_>) {
    let mut ports: Vec<HostPort> =
        compiled.shapes.iter().flat_map(|shape| shape.pod.host_ports.iter().cloned()).collect();
    ports.sort();
    ports.dedup();
    let base = port_base(compiled);
    let hosts: Vec<Host> =
        compiled.shapes.iter().map(|shape| of(compiled, shape, &ports, base)).collect();
    for (shape, host) in compiled.shapes.iter_mut().zip(hosts) {
        shape.host = host;
    }
    compiled.ports = ports;
}

/// Whether a shape binds in the first wave: it spreads over host names, or others must be near it.
pub(super) fn binds_first(compiled: &Compiled<'_>, rules: &Rules) -> bool {
    rules.spreads.iter().any(|spread| spread.key.is_none())
        || rules
            .matched
            .iter()
            .any(|counter| compiled.topology.counter(*counter).kind == Kind::Affinity)
}

fn of(compiled: &Compiled<'_>, shape: &Shape, ports: &[HostPort], base: u32) -> Host {
    let rules = &shape.rules;
    let mut host = Host::default();
    let first = binds_first(compiled, rules);
    for counter in &rules.matched {
        let of = compiled.topology.counter(*counter);
        if of.key.is_none() && (of.kind != Kind::Spread || first) {
            host.adds.push((*counter, 1));
        }
    }
    for far in rules.far.iter().filter(|far| far.key.is_none()) {
        host.caps.push((far.counter, i64::from(far.own)));
    }
    for spread in rules.spreads.iter().filter(|spread| spread.key.is_none()) {
        host.caps.push((spread.counter, spread.skew));
    }
    for (counter, port) in (base..).zip(ports) {
        let own = shape.pod.host_ports.contains(port);
        if own {
            host.adds.push((counter, 1));
        }
        if shape.pod.host_ports.iter().any(|mine| mine.conflicts(port)) {
            host.caps.push((counter, i64::from(own)));
        }
    }
    host.needs = rules.near.iter().filter(|near| near.key.is_none()).map(|n| n.counter).collect();
    host.caps.sort_unstable();
    host.caps.dedup_by_key(|(counter, _)| *counter);
    host
}
