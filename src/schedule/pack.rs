//! Buying nodes: which offerings, how many, and which pods on each.
//!
//! The packing is a covering problem: patterns (a node with its pods) are chosen so that all demand
//! is covered at the least price. Groups are valued by the duals of its linear relaxation, found by
//! generating patterns; whole copies of the relaxation's patterns are opened, and what is left over
//! is covered greedily by the best value per dollar.

use std::collections::BTreeMap;

use super::fill::{Scratch, Start};
use super::generate::{Effort, Pool};
use super::model::{Model, price};
use super::seed::Seed;
use crate::model::requirement::Requirements;

/// Above this many groups the linear program costs more than it saves; so it does where neighbours
/// matter, since its patterns then find no pods that get along.
const MOST_GROUPS_FOR_LP: usize = 64;
/// Up to this many pods are packed in several ways.
const FEW_PODS: u64 = 400;

/// Equal nodes to buy.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) column: usize,
    /// `(item, pods of it on each copy)`.
    pub(super) pods: Vec<(usize, u32)>,
    pub(super) copies: u32,
}

/// The state of a packing.
#[derive(Clone, Debug)]
pub(super) struct Packer<'m, 'c, 'p> {
    pub(super) model: &'m Model<'c, 'p>,
    /// Pods of each item and group still to place.
    pub(super) left: Vec<u32>,
    pub(super) group_left: Vec<u32>,
    /// What pool limits leave.
    pub(super) limits: Vec<i64>,
    /// Nodes opened.
    pub(super) open: Vec<Open>,
    /// What a pod of each group is worth, micro-dollars per hour.
    pub(super) values: Vec<f64>,
}

impl<'m, 'c, 'p> Packer<'m, 'c, 'p> {
    pub(super) fn new(model: &'m Model<'c, 'p>) -> Self {
        let mut packer = Self {
            model,
            left: model.counts.clone(),
            group_left: vec![0; model.groups.len()],
            limits: model.remaining(),
            open: Vec::new(),
            values: vec![0.0; model.groups.len()],
        };
        packer.sum_up();
        packer
    }

    /// Counts groups anew from their items.
    pub(super) fn sum_up(&mut self) {
        self.group_left.fill(0);
        for (item, left) in self.model.items.iter().zip(&self.left) {
            self.group_left[item.group] += left;
        }
    }

    /// Price of all that is open, micro-dollars per hour.
    pub(super) fn cost(&self) -> i64 {
        let columns = &self.model.compiled.offers.columns;
        self.open.iter().map(|o| columns[o.column].price * i64::from(o.copies)).sum()
    }

    /// Opens nodes of `columns` until nothing more can be placed.
    ///
    /// Small sets are packed in several ways, of which the cheapest counts: there one node more or
    /// less is a large part of the price, and time is not.
    pub(super) fn pack(&mut self, columns: &[usize], scratch: &mut Scratch) {
        let working = self.model.working(columns);
        let prices = self.prices(&working);
        let before = self.few().then(|| self.clone());
        self.seed(&working, &prices, scratch);
        self.in_two_ways(&working, &prices, scratch);
        if let Some(mut other) = before {
            other.in_two_ways(&working, &prices, scratch);
            self.keep_better(other);
        }
    }

    /// Covers what is left by the values of resources and, where it is small or simple, by those of
    /// the linear program.
    fn in_two_ways(&mut self, columns: &[usize], prices: &[f64], scratch: &mut Scratch) {
        let mut other = self.relaxes().then(|| self.clone());
        let first = self.open.len();
        self.appraise(columns, prices);
        self.cover(columns, scratch);
        if let Some(mut other) = other.take() {
            other.cover_relaxed(columns, &mut self.patterns(first), &Effort::quick(), scratch);
            self.keep_better(other);
        }
    }

    /// Whether a relaxation of what is left is worth its time.
    pub(super) fn relaxes(&self) -> bool {
        let kinds = self.group_left.iter().filter(|n| **n > 0).count();
        kinds <= MOST_GROUPS_FOR_LP && (self.few() || !self.minds_neighbours())
    }

    /// Whether so little is left that it can be packed in several ways.
    pub(super) fn few(&self) -> bool {
        let kinds = self.group_left.iter().filter(|n| **n > 0).count();
        let pods: u64 = self.group_left.iter().map(|n| u64::from(*n)).sum();
        kinds <= MOST_GROUPS_FOR_LP && pods <= FEW_PODS
    }

    /// Whether something that is left has rules about its neighbours.
    fn minds_neighbours(&self) -> bool {
        let groups = self.model.groups.iter().zip(&self.group_left);
        groups.into_iter().any(|(group, left)| *left > 0 && group.ruled)
    }

    fn keep_better(&mut self, other: Self) {
        let missing = |p: &Self| p.group_left.iter().map(|n| u64::from(*n)).sum::<u64>();
        if (missing(&other), other.cost()) < (missing(self), self.cost()) {
            *self = other;
        }
    }

    /// Covers what is left by the values of its relaxation, whose patterns are opened first where that
    /// is cheaper. `pool` holds patterns that are known.
    pub(super) fn cover_relaxed(
        &mut self,
        columns: &[usize],
        pool: &mut Pool,
        effort: &Effort,
        scratch: &mut Scratch,
    ) {
        let amounts = self.relax(columns, pool, effort, scratch);
        let mut greedy = self.clone();
        greedy.cover(columns, scratch);
        if self.open_whole(&amounts, pool, scratch) {
            self.cover(columns, scratch);
            self.keep_better(greedy);
        } else {
            *self = greedy;
        }
    }

    /// The patterns of open nodes from position `first` on.
    pub(super) fn patterns(&self, first: usize) -> Pool {
        let pattern = |open: &Open| {
            let mut counts: BTreeMap<usize, u32> = BTreeMap::new();
            for (item, n) in &open.pods {
                *counts.entry(self.model.items[*item].group).or_insert(0) += n;
            }
            (open.column, counts.into_iter().collect())
        };
        self.open[first..].iter().map(pattern).collect()
    }

    /// How many more nodes of a column the pool's limits allow.
    pub(super) fn copies_allowed(&self, column: usize) -> u32 {
        let uses = self.model.uses[column].iter();
        let most = uses.map(|(limit, each)| self.limits[*limit] / each).min();
        most.map_or(u32::MAX, |n| u32::try_from(n.max(0)).unwrap_or(u32::MAX))
    }

    /// Opens up to `copies` nodes with these pods, as far as demand and limits allow.
    pub(super) fn open_copies(&mut self, column: usize, pods: &[(usize, u32)], copies: u32) -> u32 {
        let demand = pods.iter().map(|(item, n)| self.left[*item] / n).min().unwrap_or(0);
        let copies = copies.min(demand).min(self.copies_allowed(column));
        if copies > 0 {
            for (item, n) in pods {
                self.left[*item] -= n * copies;
                self.group_left[self.model.items[*item].group] -= n * copies;
            }
            self.use_limits(column, i64::from(copies));
            self.open.push(Open { column, pods: pods.to_vec(), copies });
        }
        copies
    }

    /// Counts `copies` nodes of a column against its pool's limits; negative gives back.
    pub(super) fn use_limits(&mut self, column: usize, copies: i64) {
        for (limit, each) in &self.model.uses[column] {
            self.limits[*limit] -= each * copies;
        }
    }

    /// Opens copies of a pattern of groups; each copy finds items that may be neighbours.
    pub(super) fn realize(
        &mut self,
        column: usize,
        counts: &[(usize, u32)],
        copies: u32,
        scratch: &mut Scratch,
    ) {
        let mut copies = copies;
        while copies > 0 {
            self.choose(column, counts, scratch);
            if scratch.pods.is_empty() {
                return;
            }
            let opened = self.open_copies(column, &scratch.pods, copies);
            if opened == 0 {
                return;
            }
            copies -= opened;
        }
    }

    /// Prices of resources for what is left: what the best column for the whole mix costs, shared
    /// out over its resources by how much each is the bottleneck. (The exact duals of the plain
    /// covering program price one resource only where the mix is nearly balanced.)
    pub(super) fn prices(&self, columns: &[usize]) -> Vec<f64> {
        let model = self.model;
        let mut total = vec![0.0_f64; model.compiled.offers.dims.len()];
        for (group, left) in model.groups.iter().zip(&self.group_left) {
            for (all, one) in total.iter_mut().zip(&group.request) {
                *all += one * f64::from(*left);
            }
        }
        let load = |column: usize, dim: usize| {
            let room = model.rooms[model.compiled.offers.columns[column].room][dim];
            if total[dim] > 0.0 { total[dim] / room.max(1.0) } else { 0.0 }
        };
        let most =
            |column: usize| (0..total.len()).map(|dim| load(column, dim)).fold(0.0, f64::max);
        let best = columns.iter().copied().min_by(|a, b| {
            let cost = |column: usize| price(model.compiled, column) * most(column);
            cost(*a).total_cmp(&cost(*b))
        });
        let Some(best) = best else { return vec![0.0; total.len()] };
        let weights: Vec<f64> =
            (0..total.len()).map(|dim| (load(best, dim) / most(best).max(1e-12)).powi(4)).collect();
        let sum: f64 = weights.iter().sum::<f64>().max(1e-12);
        let room = &model.rooms[model.compiled.offers.columns[best].room];
        let each = weights.iter().zip(room);
        each.map(|(weight, room)| weight / sum * price(model.compiled, best) / room.max(1.0))
            .collect()
    }

    /// What the resources of a pod cost.
    pub(super) fn worth(&self, group: usize, prices: &[f64]) -> f64 {
        self.model.groups[group].request.iter().zip(prices).map(|(one, each)| one * each).sum()
    }

    /// Opens a node for each pod that tolerates few of its kind beside it, with the room that it
    /// strands filled by others. These pods decide how many nodes there are, so they come first:
    /// later nobody would be left to share their nodes.
    fn seed(&mut self, columns: &[usize], prices: &[f64], scratch: &mut Scratch) {
        let model = self.model;
        let lonely = (0..model.groups.len())
            .filter(|group| model.groups[*group].lonely && self.group_left[*group] > 0);
        let mut seeds: Vec<Seed> = lonely.map(|group| Seed::new(model, group, columns)).collect();
        if seeds.is_empty() {
            return;
        }
        let values: Vec<f64> =
            (0..model.groups.len()).map(|group| self.worth(group, prices)).collect();
        loop {
            scratch.renew();
            seeds.retain(|seed| self.group_left[seed.group] > 0);
            let total: f64 =
                values.iter().zip(&self.group_left).map(|(v, n)| v * f64::from(*n)).sum();
            let nodes: u32 = seeds.iter().map(|seed| self.group_left[seed.group]).sum();
            if nodes == 0 {
                return;
            }
            // Nodes much larger than the average would take what the others need.
            let most = total / f64::from(nodes) * 2.0;
            for seed in &mut seeds {
                seed.look(most);
            }
            let mut best: Option<(f64, usize)> = None;
            loop {
                let open = seeds.iter_mut().filter_map(|seed| Some((seed.next()?, seed)));
                let next = open.min_by(|((a, _), _), ((b, _), _)| a.total_cmp(b));
                let Some(((bound, column), seed)) = next else { break };
                if best.is_some_and(|(least, _)| bound >= least) {
                    break;
                }
                let worth = if self.copies_allowed(column) == 0 {
                    0.0
                } else {
                    self.fill(column, &values, Start::With(seed.group), scratch)
                };
                let mut waste = f64::INFINITY;
                if worth > 0.0 {
                    waste = (price(model.compiled, column) - worth).max(bound);
                    if best.is_none_or(|(least, _)| waste < least) {
                        best = Some((waste, column));
                        std::mem::swap(&mut scratch.pods, &mut scratch.kept);
                    }
                }
                seed.learn(waste);
                seed.look(most);
            }
            let Some((_, column)) = best else { return };
            let pods = std::mem::take(&mut scratch.kept);
            let opened = self.open_copies(column, &pods, u32::MAX);
            scratch.kept = pods;
            if opened == 0 {
                return;
            }
        }
    }

    /// Opens the node with the most value per dollar, again and again.
    pub(super) fn cover(&mut self, columns: &[usize], scratch: &mut Scratch) {
        let mut values = std::mem::take(&mut self.values);
        for (group, value) in values.iter_mut().enumerate() {
            // What the program gives away for nothing must be placed all the same.
            if self.group_left[group] > 0 && *value <= 0.0 {
                *value = 1.0;
            }
        }
        // Ratios only fall as demand is met, so an old one is a bound.
        let mut ratios: Vec<f64> = vec![f64::INFINITY; columns.len()];
        loop {
            scratch.renew();
            let mut best: Option<(f64, usize)> = None;
            let found = loop {
                let top = (0..columns.len()).max_by(|a, b| {
                    ratios[*a].total_cmp(&ratios[*b]).then(columns[*b].cmp(&columns[*a]))
                });
                let Some(top) = top else { break None };
                if let Some((ratio, at)) = best
                    && ratio >= ratios[top]
                {
                    break Some(at);
                }
                if ratios[top] <= 0.0 {
                    break best.map(|(_, at)| at);
                }
                let column = columns[top];
                let worth = if self.copies_allowed(column) == 0 {
                    0.0
                } else {
                    self.fill(column, &values, Start::Even, scratch)
                };
                ratios[top] = worth / price(self.model.compiled, column);
                if worth > 0.0 && best.is_none_or(|(most, _)| ratios[top] > most) {
                    best = Some((ratios[top], top));
                    std::mem::swap(&mut scratch.pods, &mut scratch.kept);
                }
            };
            let Some(at) = found else { break };
            let pods = std::mem::take(&mut scratch.kept);
            let opened = self.open_copies(columns[at], &pods, u32::MAX);
            scratch.kept = pods;
            if opened == 0 {
                break;
            }
        }
        self.values = values;
    }

    /// Values groups by what their resources cost, or where that is nothing by what they cost alone.
    fn appraise(&mut self, columns: &[usize], prices: &[f64]) {
        let model = self.model;
        for group in 0..model.groups.len() {
            let left = self.group_left[group];
            let worth = if left > 0 { self.worth(group, prices) } else { 0.0 };
            self.values[group] = if left > 0 && worth <= 0.0 {
                model.alone(group, left, columns).map_or(0.0, |(each, _, _)| each)
            } else {
                worth
            };
        }
    }

    /// Adds what an item asks of labels that only the choice of the node decides; `false` when
    /// nobody can meet it together with what is already there.
    pub(super) fn join(&self, column: usize, item: usize, custom: &mut Requirements) -> bool {
        let compiled = self.model.compiled;
        let shape = self.model.items[item].shapes[0];
        super::fill::join(compiled, column, shape, custom)
    }
}
