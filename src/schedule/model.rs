//! The packing problem that is left when domains are decided: groups of pods and columns.
//!
//! Shapes that fill nodes alike are one *item*; items that differ only in what they mean to their
//! neighbours are one *group*. Values and patterns know groups, nodes hold items.

use std::collections::BTreeMap;
use std::sync::Arc;

use fixedbitset::FixedBitSet;

use super::compile::{Compiled, Shape};
use super::host::Host;
use super::topology::Kind;

/// Above this many distinct columns only the most useful of each size are priced.
const MANY_COLUMNS: usize = 320;
/// Columns kept of each size (a quarter of a doubling of the price) and mix of resources.
const PER_SIZE: usize = 4;

/// Pods that are alike to a node.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Shapes, in order of preference.
    pub(super) shapes: Vec<usize>,
    pub(super) group: usize,
    pub(super) host: Host,
}

/// Pods that are alike to values.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// Request by dimension; amounts are whole numbers below 2^53.
    pub(super) request: Vec<f64>,
    /// Set of columns.
    pub(super) set: usize,
    /// Set of columns before domains were decided.
    pub(super) wide: usize,
    /// Pods that no other choice of domains could take from the set.
    pub(super) floor: u32,
    pub(super) items: Vec<usize>,
    /// Whether neighbours matter.
    pub(super) ruled: bool,
    /// Whether it asks for labels that the choice of the node decides.
    pub(super) custom: bool,
    /// Most pods on one node.
    pub(super) per_node: u32,
    /// Whether only one of its pods, and of those with the same rule, fits a node.
    pub(super) lonely: bool,
    pub(super) priority: i32,
}

/// Room, signature and use of limits: what groups can see of a column.
type Likeness<'m> = (usize, usize, &'m [(usize, i64)]);

/// Something of which new nodes may use so much.
#[derive(Clone, Debug)]
pub(super) enum Limit {
    /// What a pool's limit of a resource, or of `nodes`, leaves.
    Pool(usize, Arc<str>),
    /// Instances that a capacity reservation has left, in whatever pools it is offered.
    Reservation(u32),
}

/// The problem.
#[derive(Clone, Debug)]
pub(super) struct Model<'c, 'p> {
    pub(super) compiled: &'c Compiled<'p>,
    pub(super) items: Vec<Item>,
    pub(super) groups: Vec<Group>,
    /// Pods of each item.
    pub(super) counts: Vec<u32>,
    /// Columns with one signature admit the same groups.
    pub(super) signature: Vec<usize>,
    /// Groups of each signature.
    pub(super) admits: Vec<Vec<usize>>,
    /// Room by room position and dimension.
    pub(super) rooms: Vec<Vec<f64>>,
    /// Limits, and what one node of a column uses of those that are about it.
    pub(super) limits: Vec<Limit>,
    pub(super) uses: Vec<Vec<(usize, i64)>>,
}

/// How a shape's neighbours matter: not at all, it may be in the way, it keeps others away, it
/// spreads.
fn kind(compiled: &Compiled<'_>, shape: &Shape) -> u8 {
    let spreads = shape.host.caps.iter().any(|(counter, _)| {
        (*counter as usize) < compiled.topology.counters.len()
            && compiled.topology.counter(*counter).kind == Kind::Spread
    });
    match (shape.host.is_free(), shape.host.caps.is_empty(), spreads) {
        (true, _, _) => 0,
        (false, true, _) => 1,
        (false, false, false) => 2,
        (false, false, true) => 3,
    }
}

/// Whether the group's first item adds to its own caps.
fn counts_itself(items: &[Item], group: &Group) -> bool {
    let host = &items[group.items[0]].host;
    host.caps.iter().all(|(cap, _)| host.adds.iter().any(|(add, _)| add == cap))
}

impl<'c, 'p> Model<'c, 'p> {
    #[expect(clippy::cast_precision_loss, reason = "amounts are below 2^53")]
    pub(super) fn new(compiled: &'c Compiled<'p>) -> Self {
        let mut items: Vec<Item> = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        let mut counts: Vec<u32> = Vec::new();
        let mut item_at: BTreeMap<(usize, &Host), usize> = BTreeMap::new();
        let mut group_at = BTreeMap::new();
        for (index, shape) in compiled.shapes.iter().enumerate() {
            let left = shape.left();
            if left == 0 || compiled.columns_of(shape).is_clear() {
                continue;
            }
            let kind = kind(compiled, shape);
            let custom = if shape.custom { index + 1 } else { 0 };
            let sets = (shape.columns, shape.wide);
            let key = (&shape.request, sets, kind, shape.pod.priority, custom);
            let group = *group_at.entry(key).or_insert_with(|| {
                groups.push(Group {
                    request: shape.request.iter().map(|n| *n as f64).collect(),
                    set: shape.columns,
                    wide: shape.wide,
                    floor: 0,
                    items: Vec::new(),
                    ruled: kind > 0,
                    custom: shape.custom,
                    per_node: 0,
                    lonely: false,
                    priority: shape.pod.priority,
                });
                groups.len() - 1
            });
            let item = *item_at.entry((group, &shape.host)).or_insert_with(|| {
                let host = shape.host.clone();
                groups[group].items.push(items.len());
                items.push(Item { shapes: Vec::new(), group, host });
                counts.push(0);
                items.len() - 1
            });
            items[item].shapes.push(index);
            counts[item] += left;
            if !shape.whole {
                let gone = shape.size.saturating_sub(left);
                groups[group].floor += shape.floor.saturating_sub(gone).min(left);
            }
        }
        for group in &mut groups {
            let caps = &items[group.items[0]].host.caps;
            let each = group.items.iter().map(|item| items[*item].host.per_node());
            // Items that count against the same caps share what one of them may have; others mind
            // only their own kind.
            let shared = group.items.iter().all(|item| items[*item].host.caps == *caps);
            group.lonely =
                shared && group.ruled && counts_itself(&items, group) && !caps.is_empty();
            group.per_node = if shared && counts_itself(&items, group) {
                each.max().unwrap_or(0)
            } else {
                each.fold(0, u32::saturating_add)
            };
            group.lonely &= group.per_node == 1;
        }
        let mut model = Self {
            compiled,
            items,
            groups,
            counts,
            signature: Vec::new(),
            admits: Vec::new(),
            rooms: compiled
                .offers
                .rooms
                .iter()
                .map(|r| r.iter().map(|n| *n as f64).collect())
                .collect(),
            limits: Vec::new(),
            uses: Vec::new(),
        };
        model.sign();
        model.add_limits();
        model
    }

    fn sign(&mut self) {
        let mut sets: Vec<usize> = self.groups.iter().map(|group| group.set).collect();
        sets.sort_unstable();
        sets.dedup();
        let mut known: BTreeMap<FixedBitSet, usize> = BTreeMap::new();
        for column in 0..self.compiled.offers.columns.len() {
            let mut bits = FixedBitSet::with_capacity(sets.len());
            for (at, set) in sets.iter().enumerate() {
                bits.set(at, self.compiled.sets.get(*set).contains(column));
            }
            let next = known.len();
            let at = *known.entry(bits).or_insert(next);
            self.signature.push(at);
            if at == next {
                let admitted = self.groups.iter().enumerate();
                let admitted = admitted
                    .filter(|(_, group)| self.compiled.sets.get(group.set).contains(column));
                self.admits.push(admitted.map(|(at, _)| at).collect());
            }
        }
    }

    fn add_limits(&mut self) {
        let pools = &self.compiled.problem.pools;
        let mut first = Vec::with_capacity(pools.len());
        for (pool, slot) in pools.iter().enumerate() {
            first.push(self.limits.len());
            let names = slot.remaining.keys().map(|name| Limit::Pool(pool, Arc::clone(name)));
            self.limits.extend(names);
        }
        let mut reservations: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, column) in self.compiled.offers.columns.iter().enumerate() {
            let capacity = &self.compiled.instance_type(column).capacity;
            let names = pools[column.pool].remaining.keys();
            let uses = names
                .zip(first[column.pool]..)
                .map(|(name, at)| (at, if &**name == "nodes" { 1 } else { capacity.get(name) }));
            let mut uses: Vec<(usize, i64)> = uses.filter(|(_, n)| *n > 0).collect();
            if let Some(reserved) = self.compiled.reserved(index) {
                let left = self.compiled.problem.reserved_left(reserved);
                let next = self.limits.len();
                let at = *reservations.entry(&reserved.reservation.id).or_insert(next);
                match self.limits.get_mut(at) {
                    // Classes may have looked at different moments.
                    Some(Limit::Reservation(least)) => *least = left.min(*least),
                    _ => self.limits.push(Limit::Reservation(left)),
                }
                uses.push((at, 1));
            }
            self.uses.push(uses);
        }
    }

    /// What the limits leave at first.
    pub(super) fn remaining(&self) -> Vec<i64> {
        let pools = &self.compiled.problem.pools;
        let left = |limit: &Limit| match limit {
            Limit::Pool(pool, name) => pools[*pool].remaining[name],
            Limit::Reservation(left) => i64::from(*left),
        };
        self.limits.iter().map(left).collect()
    }

    /// Of columns that are alike to all groups only the cheapest, and of too many the most useful.
    pub(super) fn working(&self, columns: &[usize]) -> Vec<usize> {
        let all = &self.compiled.offers.columns;
        let mut best: BTreeMap<Likeness<'_>, usize> = BTreeMap::new();
        for &column in columns {
            if self.admits[self.signature[column]].is_empty() {
                continue;
            }
            let key = (all[column].room, self.signature[column], &*self.uses[column]);
            let entry = best.entry(key).or_insert(column);
            if (all[column].price, column) < (all[*entry].price, *entry) {
                *entry = column;
            }
        }
        let mut distinct = self.undominated(best.into_values().collect());
        if distinct.len() > MANY_COLUMNS {
            distinct = self.thin(&distinct);
        }
        distinct.sort_unstable();
        distinct
    }

    /// Columns without those for which another, no dearer, has as much of everything.
    fn undominated(&self, mut columns: Vec<usize>) -> Vec<usize> {
        let all = &self.compiled.offers.columns;
        columns.sort_unstable_by_key(|column| (all[*column].price, *column));
        let mut kept: Vec<Vec<usize>> = vec![Vec::new(); self.admits.len()];
        for column in columns {
            let room = &self.rooms[all[column].room];
            let covers = |other: &usize| {
                let mine = &self.uses[column];
                let no_more = |(limit, theirs): &(usize, i64)| {
                    mine.iter().any(|(at, mine)| at == limit && theirs <= mine)
                };
                all[*other].pool == all[column].pool
                    && self.rooms[all[*other].room]
                        .iter()
                        .zip(room)
                        .all(|(more, room)| more >= room)
                    && self.uses[*other].iter().all(no_more)
            };
            let alike = &mut kept[self.signature[column]];
            if !alike.iter().any(covers) {
                alike.push(column);
            }
        }
        kept.concat()
    }

    /// The best columns of each size, signature and mix of resources, and for each group the best
    /// for it alone.
    fn thin(&self, columns: &[usize]) -> Vec<usize> {
        let dims = self.compiled.offers.dims.len();
        let mut total = vec![0.0_f64; dims];
        for (item, count) in self.items.iter().zip(&self.counts) {
            let request = &self.groups[item.group].request;
            total.iter_mut().zip(request).for_each(|(all, one)| *all += one * f64::from(*count));
        }
        let mut kept: Vec<usize> = Vec::new();
        let mut ranked: BTreeMap<(usize, i64, usize), Vec<(f64, usize)>> = BTreeMap::new();
        for &column in columns {
            let room = &self.rooms[self.compiled.offers.columns[column].room];
            let price = price(self.compiled, column);
            #[expect(clippy::cast_possible_truncation, reason = "a logarithm")]
            let size = (price.log2() * 4.0).floor() as i64;
            let share: Vec<f64> =
                room.iter().zip(&total).map(|(r, t)| if *t > 0.0 { r / t } else { 0.0 }).collect();
            let sum: f64 = share.iter().sum();
            // All resources alike, and each one with triple weight.
            let doubled = share.iter().map(|share| sum + share * 2.0);
            for (mix, worth) in std::iter::once(sum).chain(doubled).enumerate() {
                let key = (self.signature[column], size, mix);
                ranked.entry(key).or_default().push((worth / price, column));
            }
        }
        for list in ranked.values_mut() {
            list.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            kept.extend(list.iter().take(PER_SIZE).map(|(_, column)| *column));
        }
        for group in 0..self.groups.len() {
            kept.extend(self.alone(group, u32::MAX, columns).map(|(_, column, _)| column));
        }
        kept.sort_unstable();
        kept.dedup();
        kept
    }

    /// The column that buys pods of a group alone at the least price each: `(price each, column,
    /// pods)`.
    pub(super) fn alone(
        &self,
        group: usize,
        left: u32,
        columns: &[usize],
    ) -> Option<(f64, usize, f64)> {
        let of = &self.groups[group];
        let set = self.compiled.sets.get(of.set);
        let most = f64::from(of.per_node.min(left));
        let mut best: Option<(f64, usize, f64)> = None;
        for &column in columns {
            if !set.contains(column) {
                continue;
            }
            let room = &self.rooms[self.compiled.offers.columns[column].room];
            let mut fit = most;
            for (asked, room) in of.request.iter().zip(room) {
                if *asked > 0.0 {
                    fit = fit.min(room / asked);
                }
            }
            let fit = fit.floor();
            if fit >= 1.0 {
                let each = price(self.compiled, column) / fit;
                if best.is_none_or(|(least, _, _)| each < least) {
                    best = Some((each, column, fit));
                }
            }
        }
        best
    }
}

#[expect(clippy::cast_precision_loss, reason = "prices are far below 2^53")]
pub(super) fn price(compiled: &Compiled<'_>, column: usize) -> f64 {
    compiled.offers.columns[column].price.max(1) as f64
}
