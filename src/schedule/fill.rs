//! Filling one node with the most value.

use super::compile::Compiled;
use super::host::State;
use super::pack::Packer;
use crate::model::requirement::Requirements;

/// Memory that fills share, and what the last one found.
#[derive(Clone, Debug, Default)]
pub(super) struct Scratch {
    /// `(item, pods)` of the node.
    pub(super) pods: Vec<(usize, u32)>,
    /// A copy that the caller keeps.
    pub(super) kept: Vec<(usize, u32)>,
    /// `(group, pods)` of the node.
    groups: Vec<(usize, u32)>,
    candidates: Vec<usize>,
    room: Vec<f64>,
    inverse: Vec<f64>,
    /// Weights of resources; all alike where it is empty.
    pub(super) view: Vec<f64>,
    state: State,
    custom: Requirements,
    /// Next item of each group to look at.
    cursor: Vec<(usize, usize)>,
}

impl Scratch {
    /// Pods of the node by group, sorted.
    pub(super) fn counts(&self) -> Vec<(usize, u32)> {
        let mut counts = self.groups.clone();
        counts.sort_unstable();
        counts
    }

    fn clear(&mut self) {
        self.pods.clear();
        self.groups.clear();
        self.state.clear();
        self.cursor.clear();
        if !self.custom.is_empty() {
            self.custom = Requirements::new();
        }
    }

    fn have(&self, group: usize) -> u32 {
        self.groups.iter().find(|(g, _)| *g == group).map_or(0, |(_, n)| *n)
    }

    fn put(&mut self, group: usize, item: usize, n: u32) {
        for (list, at) in [(&mut self.groups, group), (&mut self.pods, item)] {
            match list.iter_mut().find(|(one, _)| *one == at) {
                Some((_, count)) => *count += n,
                None => list.push((at, n)),
            }
        }
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
    /// The next pods are always those with the most value for the share of what is left of the
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
        scratch.clear();
        scratch.room.clone_from(&model.rooms[model.compiled.offers.columns[column].room]);
        scratch.candidates.clear();
        let admitted = &model.admits[model.signature[column]];
        scratch.candidates.extend(
            admitted.iter().copied().filter(|g| self.group_left[*g] > 0 && values[*g] > 0.0),
        );
        let mut worth = 0.0;
        match start {
            Start::Empty => {}
            Start::Even => worth += self.put_evenly(column, values, scratch),
            Start::With(group) => {
                if self.put_some(column, group, 1, scratch) == 0 {
                    return 0.0;
                }
                worth += values[group];
            }
        }
        loop {
            scratch.inverse.clear();
            scratch.inverse.extend(scratch.room.iter().map(|room| 1.0 / room.max(1.0)));
            for (inverse, weight) in scratch.inverse.iter_mut().zip(&scratch.view) {
                *inverse *= weight;
            }
            let (room, inverse) = (&scratch.room, &scratch.inverse);
            let mut best = usize::MAX;
            let (mut best_value, mut best_share) = (0.0_f64, 1.0_f64);
            scratch.candidates.retain(|&group| {
                let request = &model.groups[group].request;
                let mut share = 1e-12;
                for ((asked, room), inverse) in request.iter().zip(room).zip(inverse) {
                    if *asked > 0.0 && asked > room {
                        return false;
                    }
                    share += asked * inverse;
                }
                if values[group] * best_share > best_value * share {
                    (best, best_value, best_share) = (group, values[group], share);
                }
                true
            });
            if best == usize::MAX {
                break;
            }
            let n = self.put_some(column, best, u32::MAX, scratch);
            if n == 0 {
                scratch.candidates.retain(|group| *group != best);
            }
            worth += values[best] * f64::from(n);
        }
        scratch.pods.sort_unstable();
        worth
    }

    /// Puts the same part of each group on the node, as large as fits.
    fn put_evenly(&self, column: usize, values: &[f64], scratch: &mut Scratch) -> f64 {
        let model = self.model;
        let mut part = 1.0_f64;
        for (dim, room) in scratch.room.iter().enumerate() {
            let asked = |group: &usize| {
                model.groups[*group].request[dim] * f64::from(self.group_left[*group])
            };
            let total: f64 = scratch.candidates.iter().map(asked).sum();
            if total > 0.0 {
                part = part.min(room / total);
            }
        }
        let mut worth = 0.0;
        for at in 0..scratch.candidates.len() {
            let group = scratch.candidates[at];
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let mut share = (f64::from(self.group_left[group]) * part + 1e-9).max(0.0) as u32;
            while share > 0 {
                let n = self.put_some(column, group, share, scratch);
                if n == 0 {
                    break;
                }
                worth += values[group] * f64::from(n);
                share -= n;
            }
        }
        worth
    }

    /// Puts some pods of a group on the node, at most `most`.
    fn put_some(&self, column: usize, group: usize, most: u32, scratch: &mut Scratch) -> u32 {
        let of = &self.model.groups[group];
        let mut fit = f64::from(self.group_left[group] - scratch.have(group));
        for (asked, room) in of.request.iter().zip(&scratch.room) {
            if *asked > 0.0 {
                fit = fit.min((room / asked).floor());
            }
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let fit = fit.max(0.0) as u32;
        // Small steps keep the mix balanced; the last candidate takes all that fits.
        let alone = most < u32::MAX || scratch.candidates.len() == 1;
        let step = if alone { fit.min(most) } else { fit.div_ceil(8) };
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
        let known = scratch.cursor.iter().position(|(g, _)| *g == group);
        let at = known.unwrap_or_else(|| {
            scratch.cursor.push((group, 0));
            scratch.cursor.len() - 1
        });
        // What does not fit a node now never will, so each item is looked at once.
        while scratch.cursor[at].1 < items.len() {
            let item = items[scratch.cursor[at].1];
            let taken = scratch.pods.iter().find(|(i, _)| *i == item).map_or(0, |(_, n)| *n);
            let left = self.left[item] - taken;
            if left > 0 {
                let n = scratch.state.fit(&self.model.items[item].host, left.min(step));
                if n > 0 {
                    return Some((item, n));
                }
            }
            scratch.cursor[at].1 += 1;
        }
        None
    }

    /// Items for one node of a pattern of groups, as far as neighbours can be found.
    pub(super) fn choose(&self, column: usize, counts: &[(usize, u32)], scratch: &mut Scratch) {
        scratch.clear();
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
        scratch.pods.sort_unstable();
    }
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
    let instance = compiled.instance_type(&compiled.offers.columns[column]);
    for alternative in &*compiled.shapes[shape].alternatives {
        if !compiled.template_meets(pool, instance, alternative) {
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
