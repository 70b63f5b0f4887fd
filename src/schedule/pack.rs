//! Buying nodes: which offerings, how many, and which pods on each.
//!
//! The packing is a covering problem: patterns (a node with its pods) are chosen so that all demand
//! is covered at the least price. Shapes are valued by the duals of its linear relaxation, found by
//! generating patterns; whole copies of the relaxation's patterns are opened, and what is left over
//! is covered greedily by the best value per dollar.

use std::collections::BTreeMap;
use std::sync::Arc;

use microlp::{ComparisonOp, OptimizationDirection, Problem as Lp};

use super::compile::Compiled;
use crate::model::requirement::Requirements;

/// Rounds of pattern generation; the value of shapes settles within a few.
const ROUNDS: usize = 12;
/// Patterns added per round.
const PER_ROUND: usize = 24;
/// Above this many shapes the linear program costs more than it saves.
const MOST_SHAPES_FOR_LP: usize = 400;

/// Equal nodes to buy.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) column: usize,
    /// `(shape, pods of it on each copy)`.
    pub(super) pods: Vec<(usize, u32)>,
    pub(super) copies: u32,
}

/// A way to fill one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Pattern {
    pub(super) column: usize,
    pub(super) pods: Vec<(usize, u32)>,
    pub(super) value: f64,
}

/// The state of a packing.
#[derive(Clone, Debug)]
pub(super) struct Packer<'a, 'p> {
    pub(super) compiled: &'a Compiled<'p>,
    /// Pods of each shape still to place.
    pub(super) left: Vec<u32>,
    /// What pool limits leave.
    pub(super) limits: Vec<BTreeMap<Arc<str>, i64>>,
    /// Nodes opened.
    pub(super) open: Vec<Open>,
}

impl<'a, 'p> Packer<'a, 'p> {
    pub(super) fn new(compiled: &'a Compiled<'p>) -> Self {
        Self {
            compiled,
            left: compiled.shapes.iter().map(super::compile::Shape::left).collect(),
            limits: compiled.problem.pools.iter().map(|slot| slot.remaining.clone()).collect(),
            open: Vec::new(),
        }
    }

    /// Price of all that is open, micro-dollars per hour.
    pub(super) fn cost(&self) -> i64 {
        self.open.iter().map(|o| self.compiled.columns[o.column].price * i64::from(o.copies)).sum()
    }

    /// Opens nodes of `columns` for pods of `shapes` until nothing more can be placed.
    pub(super) fn pack(&mut self, columns: &[usize], shapes: &[usize]) {
        let columns = self.distinct(columns, shapes);
        let values = self.values(&columns, shapes);
        let mut greedy = self.clone();
        greedy.greedy(&columns, shapes, &values.of_shape);
        let mut rounded = self.clone();
        for (pattern, copies) in &values.patterns {
            rounded.open_copies(pattern, *copies);
        }
        rounded.greedy(&columns, shapes, &values.of_shape);
        let missing =
            |packer: &Self| shapes.iter().map(|s| u64::from(packer.left[*s])).sum::<u64>();
        let better = (missing(&rounded), rounded.cost()) < (missing(&greedy), greedy.cost());
        *self = if better { rounded } else { greedy };
    }

    /// Of columns that are alike to all shapes (same room, same shapes admitted) only the cheapest.
    fn distinct(&self, columns: &[usize], shapes: &[usize]) -> Vec<usize> {
        let mut best: BTreeMap<(usize, Vec<bool>), usize> = BTreeMap::new();
        for &column in columns {
            let admits: Vec<bool> =
                shapes.iter().map(|s| self.compiled.shapes[*s].columns.contains(column)).collect();
            if !admits.contains(&true) {
                continue;
            }
            let all = &self.compiled.columns;
            let entry = best.entry((all[column].room, admits)).or_insert(column);
            if (all[column].price, column) < (all[*entry].price, *entry) {
                *entry = column;
            }
        }
        let mut distinct: Vec<usize> = best.into_values().collect();
        distinct.sort_unstable();
        distinct
    }

    /// Opens the node with the most value per dollar, again and again.
    fn greedy(&mut self, columns: &[usize], shapes: &[usize], values: &[f64]) {
        loop {
            let mut best: Option<(f64, Pattern)> = None;
            for &column in columns {
                if self.copies_allowed(column) == 0 {
                    continue;
                }
                let pattern = self.fill(column, shapes, values, &self.left);
                if pattern.pods.is_empty() {
                    continue;
                }
                #[expect(clippy::cast_precision_loss, reason = "prices are far below 2^53")]
                let ratio = pattern.value / (self.compiled.columns[column].price.max(1) as f64);
                if best.as_ref().is_none_or(|(most, _)| ratio > *most) {
                    best = Some((ratio, pattern));
                }
            }
            let Some((_, pattern)) = best else { return };
            let copies =
                pattern.pods.iter().map(|(shape, n)| self.left[*shape] / n).min().unwrap_or(0);
            self.open_copies(&pattern, copies);
        }
    }

    /// How many more nodes of a column the pool's limits allow.
    fn copies_allowed(&self, column: usize) -> u32 {
        let column = &self.compiled.columns[column];
        let instance = self.compiled.instance_type(column);
        self.limits[column.pool]
            .iter()
            .map(|(name, remaining)| match &**name {
                "nodes" => *remaining,
                name => match instance.capacity.get(name) {
                    0 => i64::MAX,
                    each => remaining / each,
                },
            })
            .min()
            .map_or(u32::MAX, |n| u32::try_from(n.max(0)).unwrap_or(u32::MAX))
    }

    /// Opens up to `copies` nodes of a pattern, as far as demand and limits allow.
    pub(super) fn open_copies(&mut self, pattern: &Pattern, copies: u32) {
        let demand = pattern.pods.iter().map(|(shape, n)| self.left[*shape] / n).min().unwrap_or(0);
        let copies = copies.min(demand).min(self.copies_allowed(pattern.column));
        if copies == 0 {
            return;
        }
        for (shape, n) in &pattern.pods {
            self.left[*shape] -= n * copies;
        }
        self.use_limits(pattern.column, i64::from(copies));
        self.open.push(Open { column: pattern.column, pods: pattern.pods.clone(), copies });
    }

    /// Counts `copies` nodes of a column against its pool's limits; negative gives back.
    pub(super) fn use_limits(&mut self, column: usize, copies: i64) {
        let column = &self.compiled.columns[column];
        let capacity = &self.compiled.instance_type(column).capacity;
        for (name, remaining) in &mut self.limits[column.pool] {
            *remaining -= copies * if &**name == "nodes" { 1 } else { capacity.get(name) };
        }
    }

    /// Fills one node of a column with at most `left` pods of each shape.
    ///
    /// The next pods are always those with the most value for the share of what is left of the
    /// node, so that shapes that need different resources complement each other.
    pub(super) fn fill(
        &self,
        column: usize,
        shapes: &[usize],
        values: &[f64],
        left: &[u32],
    ) -> Pattern {
        let target = &self.compiled.columns[column];
        let mut room = self.compiled.rooms[target.room].clone();
        let mut pattern = Pattern { column, ..Pattern::default() };
        let mut custom = Requirements::new();
        let mut candidates: Vec<usize> = shapes
            .iter()
            .copied()
            .filter(|s| left[*s] > 0 && self.compiled.shapes[*s].columns.contains(column))
            .collect();
        loop {
            let mut best: Option<(f64, usize, u32)> = None;
            candidates.retain(|&s| {
                let shape = &self.compiled.shapes[s];
                let have =
                    pattern.pods.iter().find(|(other, _)| *other == s).map_or(0, |(_, n)| *n);
                let mut fit = (left[s] - have).min(shape.per_node.saturating_sub(have));
                let mut share = 0.0;
                for (asked, room) in shape.request.iter().zip(&room) {
                    if *asked > 0 {
                        fit = fit.min(u32::try_from((room / asked).max(0)).unwrap_or(u32::MAX));
                        #[expect(clippy::cast_precision_loss, reason = "a heuristic weight")]
                        let part = *asked as f64 / (*room).max(1) as f64;
                        share += part;
                    }
                }
                if fit == 0
                    || pattern.pods.iter().any(|(other, _)| shape.conflicts.contains(*other))
                {
                    return false;
                }
                let density = values[s] / share.max(1e-12);
                if best.is_none_or(|(most, _, _)| density > most) {
                    best = Some((density, s, fit));
                }
                true
            });
            let Some((_, s, fit)) = best else { break };
            let shape = &self.compiled.shapes[s];
            if shape.custom && !self.join(target.pool, column, s, &mut custom) {
                candidates.retain(|other| *other != s);
                continue;
            }
            // Small steps keep the mix balanced; the last candidate takes all that fits.
            let step = if candidates.len() == 1 { fit } else { fit.div_ceil(8) };
            for (room, asked) in room.iter_mut().zip(&shape.request) {
                *room -= asked * i64::from(step);
            }
            pattern.value += values[s] * f64::from(step);
            match pattern.pods.iter_mut().find(|(other, _)| *other == s) {
                Some((_, n)) => *n += step,
                None => pattern.pods.push((s, step)),
            }
        }
        pattern.pods.sort_unstable();
        pattern
    }

    /// Adds what a shape asks of labels that only the choice of the node decides; `false` when
    /// nobody can meet it together with what is already there.
    pub(super) fn join(
        &self,
        pool: usize,
        column: usize,
        shape: usize,
        custom: &mut Requirements,
    ) -> bool {
        let instance = self.compiled.instance_type(&self.compiled.columns[column]);
        for alternative in &self.compiled.shapes[shape].alternatives {
            if !self.compiled.template_meets(pool, instance, alternative) {
                continue;
            }
            let mut both = custom.clone();
            both.extend(alternative);
            let mut all = both.clone();
            all.extend(&self.compiled.problem.pools[pool].pool.requirements);
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

    /// Values of shapes by the linear relaxation, with whole copies of its patterns.
    fn values(&self, columns: &[usize], shapes: &[usize]) -> Values {
        let mut of_shape = vec![0.0; self.compiled.shapes.len()];
        let mut patterns: Vec<Pattern> = Vec::new();
        let ones = vec![1.0; self.compiled.shapes.len()];
        // The cheapest way to buy each shape alone is where the values start.
        for &shape in shapes {
            let mut best: Option<(f64, Pattern)> = None;
            for &column in columns {
                let pattern = self.fill(column, &[shape], &ones, &self.left);
                let Some((_, n)) = pattern.pods.first() else { continue };
                let each = price(self, column) / f64::from(*n);
                if best.as_ref().is_none_or(|(least, _)| each < *least) {
                    best = Some((each, pattern));
                }
            }
            if let Some((each, pattern)) = best {
                of_shape[shape] = each;
                patterns.push(pattern);
            }
        }
        let with_pods: Vec<usize> =
            shapes.iter().copied().filter(|s| self.left[*s] > 0 && of_shape[*s] > 0.0).collect();
        if with_pods.len() < 2 || with_pods.len() > MOST_SHAPES_FOR_LP {
            return Values { of_shape, patterns: Vec::new() };
        }
        for _ in 0..ROUNDS {
            let mut found: Vec<(f64, Pattern)> = columns
                .iter()
                .filter_map(|column| {
                    let pattern = self.fill(*column, &with_pods, &of_shape, &self.left);
                    let ratio = pattern.value / price(self, *column);
                    (ratio > 1.0 + 1e-6).then_some((ratio, pattern))
                })
                .collect();
            if found.is_empty() {
                break;
            }
            found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.column.cmp(&b.1.column)));
            found.truncate(PER_ROUND);
            patterns.extend(found.into_iter().map(|(_, pattern)| pattern));
            let Some(duals) = self.duals(&patterns, &with_pods) else { break };
            for (shape, value) in with_pods.iter().zip(duals) {
                of_shape[*shape] = value;
            }
        }
        let copies = self.relaxed(&patterns, &with_pods).unwrap_or_default();
        let patterns = patterns.into_iter().zip(copies).filter(|(_, copies)| *copies > 0).collect();
        Values { of_shape, patterns }
    }

    /// `max Σ left·v` such that no pattern is worth more than its price.
    fn duals(&self, patterns: &[Pattern], shapes: &[usize]) -> Option<Vec<f64>> {
        let mut lp = Lp::new(OptimizationDirection::Maximize);
        let vars: Vec<_> = shapes
            .iter()
            .map(|s| lp.add_var(f64::from(self.left[*s]), (0.0, f64::INFINITY)))
            .collect();
        for pattern in patterns {
            let terms: Vec<_> = pattern
                .pods
                .iter()
                .filter_map(|(s, n)| {
                    Some((vars[shapes.iter().position(|o| o == s)?], f64::from(*n)))
                })
                .collect();
            lp.add_constraint(&*terms, ComparisonOp::Le, price(self, pattern.column));
        }
        let solution = super::bound::solved(&lp)?;
        Some(vars.iter().map(|var| solution[*var].max(0.0)).collect())
    }

    /// `min Σ price·x` such that the patterns cover the demand; whole parts of `x`.
    fn relaxed(&self, patterns: &[Pattern], shapes: &[usize]) -> Option<Vec<u32>> {
        let mut lp = Lp::new(OptimizationDirection::Minimize);
        let vars: Vec<_> = patterns
            .iter()
            .map(|p| lp.add_var(price(self, p.column), (0.0, f64::INFINITY)))
            .collect();
        for s in shapes {
            let terms: Vec<_> = patterns
                .iter()
                .zip(&vars)
                .filter_map(|(pattern, var)| {
                    let (_, n) = pattern.pods.iter().find(|(shape, _)| shape == s)?;
                    Some((*var, f64::from(*n)))
                })
                .collect();
            lp.add_constraint(&*terms, ComparisonOp::Ge, f64::from(self.left[*s]));
        }
        let solution = super::bound::solved(&lp)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bounded by demand"
        )]
        let whole = |x: f64| (x + 1e-6).clamp(0.0, 1e9).floor() as u32;
        Some(vars.iter().map(|var| whole(solution[*var])).collect())
    }
}

struct Values {
    /// Micro-dollars per hour that a pod of each shape is worth.
    of_shape: Vec<f64>,
    /// Patterns with whole copies to open.
    patterns: Vec<(Pattern, u32)>,
}

#[expect(clippy::cast_precision_loss, reason = "prices are far below 2^53")]
fn price(packer: &Packer<'_, '_>, column: usize) -> f64 {
    packer.compiled.columns[column].price.max(1) as f64
}
