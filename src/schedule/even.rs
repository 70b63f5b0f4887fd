//! Pods that spread over host names, where all nodes that count will hold some of them.
//!
//! The kube-scheduler lets a node have `maxSkew` such pods more than the node with the fewest. As a
//! rule that least is taken for 0 (see `host`), since some other node may hold none. Where only these
//! pods need new nodes of their kind, it is known: they are cut into parts of equal size, one for each
//! node, which are then packed like large pods. Of the sizes that cost about as little, the smallest
//! is taken: who spreads over host names wants many of them.

use std::collections::{BTreeMap, BTreeSet};

use super::compile::{Compiled, Shape};
use super::existing::times;
use super::host::Host;
use super::solution::Placement;
use super::topology::{Kind, Spread};

/// How much dearer than at the cheapest size more nodes may be, in percent.
const DEARER: i64 = 5;
/// Nodes at least, as far as there are pods: `minDomains` is seldom written, but who spreads over host
/// names wants to lose a part at most with a node.
const FEWEST_NODES: usize = 3;

/// Shapes that one spread counts, and that have it.
struct Family {
    spread: Spread,
    members: Vec<usize>,
    /// Pods of it on each node that counts.
    there: Vec<i64>,
}

/// Cuts pods into parts where that is cheaper than `maxSkew` pods a node. `placements` are the pods
/// that nodes have taken already. Where it did it returns what there was before, for bounds: the parts
/// are one choice of many.
pub(super) fn cut<'a>(
    compiled: &mut Compiled<'a>,
    placements: &[Placement],
) -> Option<Compiled<'a>> {
    let mut before = None;
    for counter in (0..).take(compiled.topology.counters.len()) {
        let of = compiled.topology.counter(counter);
        if of.kind == Kind::Spread
            && of.key.is_none()
            && let Some(family) = Family::find(compiled, counter, placements)
            && let Some(most) = family.size(compiled)
        {
            let free = before.get_or_insert_with(|| compiled.clone());
            for at in &family.members {
                // How many are on a node is what was chosen.
                free.shapes[*at].host.caps.clear();
            }
            family.cut(compiled, most);
        }
    }
    before
}

impl Family {
    /// The shapes that a counter counts, where they alone decide about the nodes that it looks at.
    fn find(compiled: &Compiled<'_>, counter: u32, placements: &[Placement]) -> Option<Self> {
        let waiting = |shape: &Shape| {
            shape.left() > 0 && shape.blocked.is_none() && !compiled.columns_of(shape).is_clear()
        };
        let counted = |shape: &Shape| shape.rules.matched.contains(&counter);
        let (members, others): (Vec<usize>, Vec<usize>) = (0..compiled.shapes.len())
            .filter(|at| waiting(&compiled.shapes[*at]))
            .partition(|at| counted(&compiled.shapes[*at]));
        let first = &compiled.shapes[*members.first()?];
        let spread = *first.rules.spreads.iter().find(|spread| spread.counter == counter)?;
        let plain = Host {
            adds: vec![(counter, 1)],
            caps: vec![(counter, spread.skew)],
            needs: Vec::new(),
        };
        let alike = members.iter().map(|at| &compiled.shapes[*at]).all(|shape| {
            shape.host == plain
                && !shape.whole
                && shape.admission == first.admission
                && shape.rules.spreads.contains(&spread)
        });
        let mut columns = compiled.sets.get(first.wide).clone();
        for at in &members {
            columns.union_with(compiled.sets.get(compiled.shapes[*at].wide));
        }
        let apart = |at: &usize| compiled.columns_of(&compiled.shapes[*at]).is_disjoint(&columns);
        if !alike || !others.iter().all(apart) {
            return None;
        }
        // Pods that were placed just now are counted by the demands that they are of.
        let shapes = compiled.shapes.iter().filter(|shape| counted(shape));
        let demands: BTreeSet<usize> =
            shapes.flat_map(|shape| &shape.demands).map(|(demand, _)| *demand).collect();
        let mut placed: BTreeMap<usize, i64> = BTreeMap::new();
        for placement in placements.iter().filter(|p| demands.contains(&p.demand)) {
            *placed.entry(placement.node).or_insert(0) += i64::from(placement.count);
        }
        let eligible = (0..compiled.problem.nodes.len())
            .filter(|node| compiled.counts_on(first, &spread, *node));
        let there = eligible.map(|node| {
            let matches = compiled.topology.node_matches[node].iter();
            let bound = matches.filter(|(c, _)| *c == counter).map(|(_, n)| *n).sum::<i64>();
            bound + placed.get(&node).copied().unwrap_or(0)
        });
        Some(Self { spread, there: there.collect(), members })
    }

    /// The most pods of a part that are worth it.
    fn size(&self, compiled: &Compiled<'_>) -> Option<u32> {
        let ladders: Vec<(u32, Ladder)> = self
            .members
            .iter()
            .map(|at| &compiled.shapes[*at])
            .map(|shape| (shape.left(), Ladder::new(compiled, shape)))
            .collect();
        let skew = u32::try_from(self.spread.skew).ok()?;
        let most = ladders.iter().map(|(_, ladder)| ladder.longest()).max()?;
        let price = |size: u32| -> Option<i64> {
            ladders.iter().map(|(left, ladder)| ladder.price(*left, size)).sum()
        };
        let usual = price(skew.min(most));
        let sizes = (skew + 1..=most).filter(|size| self.holds(&ladders, *size));
        let prices: Vec<(u32, i64)> = sizes.filter_map(|s| Some((s, price(s)?))).collect();
        let least = prices.iter().map(|(_, price)| *price).min()?;
        let enough = least.saturating_add(least / 100 * DEARER);
        if usual.is_some_and(|usual| usual <= enough) {
            return None;
        }
        prices.into_iter().find(|(_, price)| *price <= enough).map(|(size, _)| size)
    }

    /// Whether parts of at most `size` pods are as even as the spread asks, with what is there.
    fn holds(&self, ladders: &[(u32, Ladder)], size: u32) -> bool {
        let parts = ladders.iter().map(|(left, _)| Parts::new(*left, size));
        let nodes = parts.clone().map(|parts| u64::from(parts.nodes)).sum::<u64>();
        let counts = parts
            .flat_map(|parts| [i64::from(parts.small), i64::from(parts.large())])
            .chain(self.there.iter().copied());
        let (least, most) =
            counts.fold((i64::MAX, 0), |(least, most), n| (least.min(n), most.max(n)));
        let domains = usize::try_from(nodes).unwrap_or(usize::MAX).saturating_add(self.there.len());
        let pods = ladders.iter().map(|(left, _)| u64::from(*left)).sum::<u64>();
        let fewest = usize::try_from(pods).map_or(FEWEST_NODES, |pods| FEWEST_NODES.min(pods));
        most - least <= self.spread.skew && domains >= self.spread.min_domains.max(fewest)
    }

    fn cut(&self, compiled: &mut Compiled<'_>, most: u32) {
        let counter = self.spread.counter;
        for at in &self.members {
            let parts = Parts::new(compiled.shapes[*at].left(), most);
            for part in 0..parts.nodes {
                let size = parts.small + u32::from(part < parts.larger);
                let shape = &mut compiled.shapes[*at];
                let mut demands = Vec::new();
                shape.take(size, |demand, count| demands.push((demand, count)));
                let one = i64::from(size);
                let part = Shape {
                    demands,
                    whole: true,
                    request: shape.request.iter().map(|asked| asked * one).collect(),
                    host: Host {
                        adds: vec![(counter, one)],
                        caps: vec![(counter, one)],
                        needs: Vec::new(),
                    },
                    ..shape.clone()
                };
                compiled.shapes.push(part);
            }
        }
    }
}

/// So many pods in the fewest parts of a size, as equal as can be.
#[derive(Clone, Copy)]
struct Parts {
    nodes: u32,
    /// Pods of the small ones, and how many have one more.
    small: u32,
    larger: u32,
}

impl Parts {
    fn new(pods: u32, size: u32) -> Self {
        let nodes = pods.div_ceil(size.max(1)).max(1);
        Self { nodes, small: pods / nodes, larger: pods % nodes }
    }

    fn large(self) -> u32 {
        self.small + u32::from(self.larger > 0)
    }
}

/// The least price of a node for one pod of a shape, for two, and so on, micro-dollars per hour.
struct Ladder(Vec<i64>);

impl Ladder {
    fn new(compiled: &Compiled<'_>, shape: &Shape) -> Self {
        let offers = compiled.offers;
        let columns = compiled.columns_of(shape).ones().filter(|at| !compiled.reserves(*at));
        let weight = |at: usize| compiled.problem.pools[offers.columns[at].pool].pool.weight;
        let heaviest = columns.clone().map(weight).max();
        let mut steps: Vec<i64> = Vec::new();
        for at in columns.filter(|at| Some(weight(*at)) == heaviest) {
            let column = &offers.columns[at];
            let fit = times(&shape.request, &offers.rooms[column.room], shape.left());
            let fit = usize::try_from(fit).unwrap_or(usize::MAX);
            if steps.len() < fit {
                steps.resize(fit, i64::MAX);
            }
            if let Some(most) = fit.checked_sub(1) {
                steps[most] = steps[most].min(column.price);
            }
        }
        for at in (1..steps.len()).rev() {
            steps[at - 1] = steps[at - 1].min(steps[at]);
        }
        Self(steps)
    }

    /// Most pods on one node.
    fn longest(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Of nodes for `pods`, at most `size` on each.
    fn price(&self, pods: u32, size: u32) -> Option<i64> {
        let parts = Parts::new(pods, size);
        let of = |size: u32| match size.checked_sub(1) {
            Some(at) => self.0.get(usize::try_from(at).ok()?).copied(),
            None => Some(0),
        };
        let (larger, small) = (i64::from(parts.larger), i64::from(parts.nodes - parts.larger));
        let large = of(parts.large())?.checked_mul(larger)?;
        large.checked_add(of(parts.small)?.checked_mul(small)?)
    }
}
