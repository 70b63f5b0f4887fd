//! Filling one node with the most value.

use super::compile::Compiled;
use super::host::State;
use super::model::Model;
use super::pack::Packer;
use crate::model::requirement::Requirements;

/// Memory that fills share, and what the last one found.
#[derive(Clone, Debug, Default)]
pub(super) struct Scratch {
    /// `(item, pods)` of the node, sorted.
    pub(super) pods: Vec<(usize, u32)>,
    /// A copy that the caller keeps.
    pub(super) kept: Vec<(usize, u32)>,
    /// Weights of resources; all alike where it is empty.
    pub(super) view: Vec<f64>,
    /// Groups and items that are on the node, or were looked at.
    groups: Vec<usize>,
    items: Vec<usize>,
    /// By group and by item; the default for those that were not looked at.
    of_group: Vec<Seen>,
    of_item: Vec<u32>,
    /// Groups that may fit, with their value per share of the room when it was last looked at.
    candidates: Vec<(usize, f64)>,
    room: Vec<f64>,
    inverse: Vec<f64>,
    state: State,
    custom: Requirements,
    /// What is left, by signature of the column.
    mixes: Vec<Mix>,
    /// Mixes of another round are out of date.
    round: u64,
}

/// What a fill knows of a group.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    listed: bool,
    pods: u32,
    /// Next item to look at.
    cursor: usize,
}

/// The groups that columns of one signature can take.
#[derive(Clone, Debug, Default)]
struct Mix {
    round: u64,
    groups: Vec<usize>,
    /// What all their pods ask together, by dimension.
    total: Vec<f64>,
}

impl Scratch {
    /// Pods of the node by group, sorted.
    pub(super) fn counts(&self) -> Vec<(usize, u32)> {
        let counts = self.groups.iter().map(|group| (*group, self.of_group[*group].pods));
        let mut counts: Vec<(usize, u32)> = counts.filter(|(_, pods)| *pods > 0).collect();
        counts.sort_unstable();
        counts
    }

    /// Forgets what was left: to be called before a fill when something was opened or valued since
    /// the last one.
    pub(super) fn renew(&mut self) {
        self.round += 1;
    }

    fn clear(&mut self, model: &Model<'_, '_>) {
        for group in self.groups.drain(..) {
            self.of_group[group] = Seen::default();
        }
        for item in self.items.drain(..) {
            self.of_item[item] = 0;
        }
        self.of_group.resize(model.groups.len(), Seen::default());
        self.of_item.resize(model.items.len(), 0);
        self.state.clear();
        self.candidates.clear();
        if !self.custom.is_empty() {
            self.custom = Requirements::new();
        }
    }

    fn seen(&mut self, group: usize) -> &mut Seen {
        let seen = &mut self.of_group[group];
        if !seen.listed {
            seen.listed = true;
            self.groups.push(group);
        }
        seen
    }

    fn put(&mut self, group: usize, item: usize, n: u32) {
        self.seen(group).pods += n;
        if self.of_item[item] == 0 {
            self.items.push(item);
        }
        self.of_item[item] += n;
    }

    /// What one unit of each resource is of the room that is left.
    fn invert(&mut self) {
        self.inverse.clear();
        self.inverse.extend(self.room.iter().map(|room| 1.0 / room.max(1.0)));
        for (inverse, weight) in self.inverse.iter_mut().zip(&self.view) {
            *inverse *= weight;
        }
    }

    /// Lists the pods of the node.
    fn list(&mut self) {
        self.pods.clear();
        self.pods.extend(self.items.iter().map(|item| (*item, self.of_item[*item])));
        self.pods.sort_unstable();
    }
}

/// How a fill begins.
#[derive(Clone, Copy)]
pub(super) enum Start {
    /// With the best pods.
    Empty,
    /// With the same part of each group.
    Even,
    /// With one pod of a group.
    With(usize),
}

impl Packer<'_, '_, '_> {
    /// Fills one node of a column with what is left; the pods are in `scratch`, the value is given.
    ///
    /// What is left and valued is as it was at [`Scratch::renew`]. The next pods are always those with the most value for the share of what is left of the
    /// node, so that groups that need different resources complement each other. An even start first
    /// takes the node's share of every group, so that what is left stays a good mix.
    pub(super) fn fill(
        &self,
        column: usize,
        values: &[f64],
        start: Start,
        scratch: &mut Scratch,
    ) -> f64 {
        let model = self.model;
        scratch.clear(model);
        scratch.room.clone_from(&model.rooms[model.compiled.offers.columns[column].room]);
        let signature = model.signature[column];
        self.mix(signature, values, scratch);
        let mut worth = 0.0;
        match start {
            Start::Empty => {}
            Start::Even => worth += self.put_evenly(column, values, scratch),
            Start::With(group) => {
                if self.put_some(column, group, Some(1), scratch) == 0 {
                    return 0.0;
                }
                worth += values[group];
            }
        }
        let groups = &scratch.mixes[signature].groups;
        scratch.candidates.extend(groups.iter().map(|group| (*group, f64::INFINITY)));
        loop {
            scratch.invert();
            let (room, inverse) = (&scratch.room, &scratch.inverse);
            let mut best = None;
            let mut best_ratio = 0.0;
            scratch.candidates.retain_mut(|(group, bound)| {
                // Room only shrinks, and ratios with it: an old one is a bound.
                if *bound <= best_ratio {
                    return true;
                }
                let request = &model.groups[*group].request;
                let Some(share) = share(request, room, inverse) else { return false };
                *bound = values[*group] / share;
                if *bound > best_ratio {
                    (best, best_ratio) = (Some(*group), *bound);
                }
                true
            });
            let Some(group) = best else { break };
            // Small steps keep the mix balanced; the last candidate takes all that fits.
            let most = (scratch.candidates.len() == 1).then_some(u32::MAX);
            let n = self.put_some(column, group, most, scratch);
            if n == 0 {
                scratch.candidates.retain(|(one, _)| *one != group);
            }
            worth += values[group] * f64::from(n);
        }
        scratch.list();
        worth
    }

    /// Finds what is left for a signature: once a round, since many columns are looked at between two
    /// openings, and many share a signature.
    fn mix(&self, signature: usize, values: &[f64], scratch: &mut Scratch) {
        if scratch.mixes.len() <= signature {
            scratch.mixes.resize_with(signature + 1, Mix::default);
        }
        let mix = &mut scratch.mixes[signature];
        let admitted = self.model.admits[signature].iter().copied();
        let open = admitted.filter(|g| self.group_left[*g] > 0 && values[*g] > 0.0);
        if mix.round != scratch.round || mix.total.is_empty() {
            mix.round = scratch.round;
            mix.groups.clear();
            mix.groups.extend(open.clone());
            mix.total.clear();
            mix.total.resize(scratch.room.len(), 0.0);
            for group in &mix.groups {
                let left = f64::from(self.group_left[*group]);
                for (total, asked) in mix.total.iter_mut().zip(&self.model.groups[*group].request) {
                    *total += asked * left;
                }
            }
        }
        debug_assert!(open.eq(mix.groups.iter().copied()), "the scratch was not renewed");
    }

    /// Puts the same part of each group on the node, as large as fits.
    fn put_evenly(&self, column: usize, values: &[f64], scratch: &mut Scratch) -> f64 {
        let mut part = 1.0_f64;
        let signature = self.model.signature[column];
        for (room, total) in scratch.room.iter().zip(&scratch.mixes[signature].total) {
            if *total > 0.0 {
                part = part.min(room / total);
            }
        }
        let mut worth = 0.0;
        for at in 0..scratch.mixes[signature].groups.len() {
            let group = scratch.mixes[signature].groups[at];
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let mut share = (f64::from(self.group_left[group]) * part + 1e-9).max(0.0) as u32;
            while share > 0 {
                let n = self.put_some(column, group, Some(share), scratch);
                if n == 0 {
                    break;
                }
                worth += values[group] * f64::from(n);
                share -= n;
            }
        }
        worth
    }

    /// Puts some pods of a group on the node: at most so many, or an eighth of those that fit.
    fn put_some(
        &self,
        column: usize,
        group: usize,
        most: Option<u32>,
        scratch: &mut Scratch,
    ) -> u32 {
        let of = &self.model.groups[group];
        let mut fit = f64::from(self.group_left[group] - scratch.of_group[group].pods);
        for (asked, room) in of.request.iter().zip(&scratch.room) {
            if *asked > 0.0 {
                fit = fit.min(room / asked);
            }
        }
        // A cast rounds down, as whole pods ask.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let fit = fit.max(0.0) as u32;
        let step = most.map_or(fit.div_ceil(8), |most| fit.min(most));
        if step == 0 {
            return 0;
        }
        let (item, n) = if of.ruled {
            match self.neighbour(group, step, scratch) {
                Some(found) => found,
                None => return 0,
            }
        } else {
            (of.items[0], step)
        };
        if of.custom && !self.join(column, item, &mut scratch.custom) {
            return 0;
        }
        for (room, asked) in scratch.room.iter_mut().zip(&of.request) {
            *room -= asked * f64::from(n);
        }
        if of.ruled {
            scratch.state.add(&self.model.items[item].host, n);
        }
        scratch.put(group, item, n);
        n
    }

    /// An item of the group that may join the node, and how many of its pods, at most `step`.
    fn neighbour(&self, group: usize, step: u32, scratch: &mut Scratch) -> Option<(usize, u32)> {
        let items = &self.model.groups[group].items;
        let mut cursor = scratch.seen(group).cursor;
        // What does not fit a node now never will, so each item is looked at once.
        let found = loop {
            let Some(item) = items.get(cursor).copied() else { break None };
            let left = self.left[item] - scratch.of_item[item];
            if left > 0 {
                let n = scratch.state.fit(&self.model.items[item].host, left.min(step));
                if n > 0 {
                    break Some((item, n));
                }
            }
            cursor += 1;
        };
        scratch.seen(group).cursor = cursor;
        found
    }

    /// Items for one node of a pattern of groups, as far as neighbours can be found.
    pub(super) fn choose(&self, column: usize, counts: &[(usize, u32)], scratch: &mut Scratch) {
        scratch.clear(self.model);
        for (group, n) in counts {
            let of = &self.model.groups[*group];
            let mut n = (*n).min(self.group_left[*group]);
            while n > 0 {
                let found = if of.ruled {
                    self.neighbour(*group, n, scratch)
                } else {
                    Some((of.items[0], n))
                };
                let Some((item, some)) = found else { break };
                if of.custom && !self.join(column, item, &mut scratch.custom) {
                    break;
                }
                if of.ruled {
                    scratch.state.add(&self.model.items[item].host, some);
                }
                scratch.put(*group, item, some);
                n -= some;
            }
        }
        scratch.list();
    }
}

/// A pod's share of the room, above 0; `None` where it does not fit.
fn share(request: &[f64], room: &[f64], inverse: &[f64]) -> Option<f64> {
    let mut share = 1e-12;
    for ((asked, room), inverse) in request.iter().zip(room).zip(inverse) {
        if *asked > 0.0 && asked > room {
            return None;
        }
        share += asked * inverse;
    }
    Some(share)
}

/// Adds what a shape asks of labels that only the choice of the node decides; `false` when nobody
/// can meet it together with what is already there.
pub(super) fn join(
    compiled: &Compiled<'_>,
    column: usize,
    shape: usize,
    custom: &mut Requirements,
) -> bool {
    let pool = compiled.offers.columns[column].pool;
    for alternative in &*compiled.shapes[shape].alternatives {
        if !compiled.column_meets(column, alternative) {
            continue;
        }
        let mut both = custom.clone();
        both.extend(alternative);
        let mut all = both.clone();
        all.extend(&compiled.problem.pools[pool].pool.requirements);
        let possible = all
            .iter()
            .all(|(_, requirement)| !requirement.is_empty() || requirement.allows_absent());
        if possible {
            *custom = both;
            return true;
        }
    }
    false
}
