//! The linear relaxation of the covering problem, solved by generating patterns.
//!
//! A pattern is a node with its pods. The relaxation says how much of each pattern to buy, and by its
//! duals what a pod of each group is worth. Patterns are found by filling nodes with the most value, in
//! several views of which resource is scarce, since no single one finds the best fill of every node.

use indexmap::IndexSet;

use super::fill::{Scratch, Start};
use super::lp::{Cover, Sheet};
use super::model::price;
use super::pack::Packer;
use super::problem::Hurry;

/// Parts into which columns are divided; each round looks at one of them, and at the columns that led
/// to something the last time.
const PARTS: usize = 6;
/// Columns that are looked at as a whole.
const FEW_COLUMNS: usize = 40;
/// New patterns of a round.
const PER_ROUND: usize = 24;
/// Times that patterns which are known are tried in a round.
const PASSES: usize = 3;
/// A pattern must be worth this part more than it costs: less is rounding.
const GAIN: f64 = 1e-4;
/// So much of a pattern is nearly one.
const NEAR: f64 = 0.8;
/// Rounds of looking for patterns for what remains.
pub(super) const REMAINS: usize = 8;
/// How much more or less than others a resource counts in a view.
const SCARCE: [f64; 2] = [3.0, 0.3];

/// Pods of a node by group.
pub(super) type Mix = Vec<(usize, u32)>;

/// A column with the pods of one node.
pub(super) type Pattern = (usize, Mix);

/// Patterns that are known, each once.
pub(super) type Pool = IndexSet<Pattern>;

/// How hard to look for patterns.
#[derive(Clone, Debug)]
pub(super) struct Effort {
    /// Rounds of looking for patterns.
    pub(super) rounds: usize,
    /// Whether nodes are filled in all views.
    pub(super) views: bool,
    /// Asks for an early end.
    pub(super) hurry: Hurry,
}

impl Effort {
    /// What every packing is worth.
    pub(super) fn quick() -> Self {
        Self { rounds: 48, views: false, hurry: Hurry::never() }
    }
}

impl Packer<'_, '_, '_> {
    /// Values groups by the relaxation of what is left. `pool` holds the patterns that are known, and
    /// gets the new ones. Gives the patterns to buy, by position in the pool, with their copies.
    pub(super) fn relax(
        &mut self,
        columns: &[usize],
        pool: &mut Pool,
        effort: &Effort,
        scratch: &mut Scratch,
    ) -> Vec<(usize, f64)> {
        let model = self.model;
        let mut rows: Vec<usize> = Vec::new();
        let mut row_of = vec![usize::MAX; model.groups.len()];
        let mut singles: Vec<(usize, f64, f64)> = Vec::new();
        let mut demand: Vec<f64> = Vec::new();
        self.values.fill(0.0);
        for (group, left) in self.group_left.iter().enumerate().filter(|(_, left)| **left > 0) {
            let Some((each, column, fit)) = model.alone(group, *left, columns) else { continue };
            self.values[group] = each;
            row_of[group] = rows.len();
            rows.push(group);
            demand.push(f64::from(*left));
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let (name, _) = pool.insert_full((column, vec![(group, fit as u32)]));
            singles.push((name, price(model.compiled, column), fit));
        }
        if rows.len() < 2 {
            return Vec::new();
        }
        let mut cover = Cover::new(&demand, &singles);
        let (mut sheet, mut known) = (Sheet::default(), 0);
        let mut values = std::mem::take(&mut self.values);
        let views = if effort.views { self.views() } else { vec![Vec::new()] };
        let mut hot = vec![false; columns.len()];
        let mut fruitless = 0;
        let parts = if columns.len() < FEW_COLUMNS { 1 } else { PARTS };
        for round in 0..effort.rounds {
            if effort.hurry.settled() {
                break;
            }
            known = self.note(&mut sheet, pool, known, &row_of);
            if sheet.enter(&mut cover, GAIN, PASSES) {
                for (row, value) in cover.values().iter().enumerate() {
                    values[rows[row]] = value.max(0.0);
                }
            }
            scratch.renew();
            let mut found: Vec<(f64, Pattern)> = Vec::new();
            for (at, &column) in columns.iter().enumerate() {
                if at % parts != round % parts && !hot[at] {
                    continue;
                }
                let mut best = (0.0, Mix::new());
                // All views of what may lead to something; of the others one at a time.
                let turn = round / parts % views.len();
                let looks = if hot[at] { &views[..] } else { &views[turn..=turn] };
                for view in looks {
                    scratch.view.clone_from(view);
                    let worth = self.fill(column, &values, Start::Empty, scratch);
                    if worth > best.0 {
                        best = (worth, scratch.counts());
                    }
                }
                let ratio = best.0 / price(model.compiled, column);
                hot[at] = ratio > 1.0 + GAIN;
                if hot[at] {
                    found.push((ratio, (column, best.1)));
                }
            }
            if found.is_empty() {
                fruitless += 1;
                if fruitless >= parts * views.len() {
                    break;
                }
                continue;
            }
            fruitless = 0;
            found.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
            pool.extend(found.into_iter().take(PER_ROUND).map(|(_, pattern)| pattern));
        }
        scratch.view.clear();
        self.note(&mut sheet, pool, known, &row_of);
        sheet.enter(&mut cover, GAIN, PASSES);
        for (row, value) in cover.values().iter().enumerate() {
            values[rows[row]] = value.max(0.0);
        }
        self.values = values;
        cover.patterns().collect()
    }

    /// Adds the patterns of the pool from position `known` on, as far as their pods are left. Gives the
    /// next position.
    fn note(&self, sheet: &mut Sheet, pool: &Pool, known: usize, row_of: &[usize]) -> usize {
        for (name, (column, counts)) in pool.iter().enumerate().skip(known) {
            let open = counts.iter().filter(|(group, _)| row_of[*group] != usize::MAX);
            let covered = open
                .map(|(group, n)| (row_of[*group], f64::from((*n).min(self.group_left[*group]))));
            sheet.push(name, price(self.model.compiled, *column), covered);
        }
        pool.len()
    }

    /// Weights of resources: all alike, and each of those that are asked more or less than the others.
    fn views(&self) -> Vec<Vec<f64>> {
        let model = self.model;
        let dims = model.compiled.offers.dims.len();
        let mut views = vec![Vec::new()];
        for dim in 0..dims {
            let left = model.groups.iter().zip(&self.group_left).filter(|(_, left)| **left > 0);
            if left.filter(|(group, _)| group.request[dim] > 0.0).count() < 2 {
                continue;
            }
            for scarce in SCARCE {
                let mut view = vec![1.0; dims];
                view[dim] = scarce;
                views.push(view);
            }
        }
        views
    }

    /// Covers what is left by whole copies of the relaxation's patterns; what remains is relaxed anew,
    /// as long as whole copies come of it, and is covered at last.
    pub(super) fn dive(
        &mut self,
        columns: &[usize],
        pool: &mut Pool,
        effort: &Effort,
        scratch: &mut Scratch,
    ) {
        let mut effort = effort.clone();
        while self.group_left.iter().any(|left| *left > 0) && !effort.hurry.settled() {
            let amounts = self.relax(columns, pool, &effort, scratch);
            effort.rounds = effort.rounds.min(REMAINS);
            if !self.open_whole(&amounts, pool, scratch)
                && !self.open_nearest(&amounts, pool, scratch)
            {
                break;
            }
        }
        self.cover(columns, scratch);
    }

    /// Opens whole copies of patterns; `false` where there are none.
    pub(super) fn open_whole(
        &mut self,
        amounts: &[(usize, f64)],
        pool: &Pool,
        scratch: &mut Scratch,
    ) -> bool {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let whole = |amount: f64| (amount + 1e-6).clamp(0.0, 1e9).floor() as u32;
        let mut chosen: Vec<(u32, &Pattern)> = amounts
            .iter()
            .map(|(name, amount)| (whole(*amount), &pool[*name]))
            .filter(|(copies, _)| *copies > 0)
            .collect();
        // A pattern of many copies goes first, so that neighbours are easy to find.
        chosen.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        let before = self.open.len();
        for (copies, (column, counts)) in chosen {
            self.realize(*column, counts, copies, scratch);
        }
        self.open.len() > before
    }

    /// Opens one copy each of the patterns that are nearest to a whole one.
    fn open_nearest(
        &mut self,
        amounts: &[(usize, f64)],
        pool: &Pool,
        scratch: &mut Scratch,
    ) -> bool {
        let mut order: Vec<&(usize, f64)> = amounts.iter().filter(|(_, a)| *a > 1e-6).collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| pool[a.0].cmp(&pool[b.0])));
        let near = order.iter().take_while(|(_, amount)| *amount >= NEAR).count();
        order.truncate(near.max(1));
        let before = self.open.len();
        for (name, _) in order {
            let (column, counts) = &pool[*name];
            self.realize(*column, counts, 1, scratch);
        }
        self.open.len() > before
    }
}
