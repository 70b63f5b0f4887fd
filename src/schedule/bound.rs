//! A price that no packing can undercut.
//!
//! If each group of pods has a value such that no node can hold more value than it costs, then the
//! value of all demand is a lower bound (linear duality). Values come from a covering program over
//! nodes that may hold parts of pods, as far as whole pods of a size leave that open; its nodes are
//! found by filling each offering with the most value. Scaled by the fullest node of all, any values
//! are a bound, so it holds however far the program was solved.
//!
//! Pods that must be spread are held to be in all domains that the pools offer, as the planner does.

use std::collections::BTreeMap;

use microlp::{ComparisonOp, OptimizationDirection, Problem as Lp, SolveOutcome};

use super::generate::{Pattern, Pool};
use super::lp::{Cover, Sheet};
use super::model::Model;
use crate::model::money::MicroDollarsPerHour;

/// Rounds of looking at all columns for those whose fullest node is worth more than its price.
const ROUNDS: usize = 20;
/// Rounds between two of these, of looking at those that had one the last time.
const HOT_ROUNDS: usize = 15;
/// A bound is near enough when no node is worth this part more than its price.
const NEAR: f64 = 5e-4;
/// Times that mixes which are known are looked at in a round.
const PASSES: usize = 10;
/// Up to so many pods of a size on a node are kept from being counted in parts.
const MOST_TOGETHER: u32 = 8;

/// Pods of one node by position in the list of parts; parts of pods are allowed.
type Mix = Vec<(usize, f64)>;

/// Programs with more parts than this get the plain bound: what the resources alone cost.
const MOST_PARTS: usize = 400;

/// Pods of a group that may be on the columns of a set.
#[derive(Clone, Copy)]
struct Part {
    group: usize,
    set: usize,
    count: f64,
}

/// The bound for the demand that new nodes must hold: all of the groups but what is in `unplaced`.
#[expect(clippy::cast_precision_loss, reason = "prices are far below 2^53")]
pub(super) fn lower_bound(
    model: &Model<'_, '_>,
    unplaced: &[u32],
    packed: &Pool,
) -> MicroDollarsPerHour {
    let parts = parts(model, unplaced);
    if parts.is_empty() {
        return MicroDollarsPerHour::ZERO;
    }
    let columns = columns(model, &parts);
    let mut lower = plain(model, &parts, &columns);
    let price = |column: usize| model.compiled.offers.columns[column].price as f64;
    // Every part alone on the column that is cheapest for it; what has none is not to be bought.
    let mut singles = Vec::new();
    for part in &parts {
        let fits = columns.iter().map(|column| (price(*column), fit(model, *column, part)));
        let best = fits.filter(|(_, fit)| *fit > 0.0).min_by(|a, b| {
            let each = |(price, fit): &(f64, f64)| price / fit;
            each(a).total_cmp(&each(b))
        });
        singles.extend(best.map(|(price, fit)| (0, price, fit)));
    }
    if singles.len() < parts.len() || parts.len() > MOST_PARTS {
        return rounded(lower);
    }
    let demand: Vec<f64> = parts.iter().map(|part| part.count).collect();
    let mut cover = Cover::new(&demand, &singles);
    let mut sheet = Sheet::default();
    for (column, mix) in known(&parts, packed) {
        sheet.push(0, price(column), mix);
    }
    sheet.enter(&mut cover, 0.0, PASSES);
    let mut hot: Vec<usize> = Vec::new();
    for round in 0..=ROUNDS * (HOT_ROUNDS + 1) {
        let all = round % (HOT_ROUNDS + 1) == 0;
        if !all && hot.is_empty() {
            continue;
        }
        let values: Vec<f64> = cover.values().iter().map(|value| value.max(0.0)).collect();
        let mut worst = 1.0_f64;
        let mut found: Vec<(f64, usize, Mix)> = Vec::new();
        for &column in if all { &columns } else { &hot } {
            // Where a program cannot be solved, nothing more can be shown.
            let Some((worth, mix)) = fullest(model, column, &parts, &values) else {
                return rounded(lower);
            };
            let ratio = worth / price(column).max(1.0);
            worst = worst.max(ratio);
            if ratio > 1.0 + NEAR {
                found.push((ratio, column, mix));
            }
        }
        if all {
            // Scaled down by the worst column the values are feasible.
            let total: f64 = demand.iter().zip(&values).map(|(count, value)| count * value).sum();
            lower = lower.max(total / worst);
            if worst < 1.0 + NEAR {
                break;
            }
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        hot.clear();
        for (_, column, mix) in found {
            hot.push(column);
            sheet.push(0, price(column), mix);
        }
        sheet.enter(&mut cover, 0.0, PASSES);
    }
    rounded(lower)
}

/// Rounded down, which keeps it a bound.
fn rounded(lower: f64) -> MicroDollarsPerHour {
    #[expect(clippy::cast_possible_truncation, reason = "prices are far below 2^53")]
    MicroDollarsPerHour((lower * (1.0 - 1e-9)).floor() as i64)
}

/// The demand. Domains are not held against a plan, since another choice of them might be cheaper; but
/// pods that are spread over domains leave none of these empty.
fn parts(model: &Model<'_, '_>, unplaced: &[u32]) -> Vec<Part> {
    let mut counts = vec![0_u32; model.groups.len()];
    for (item, count) in model.items.iter().zip(&model.counts) {
        counts[item.group] += count;
    }
    // With fewer pods the domains have fewer each.
    let whole = unplaced.iter().all(|unplaced| *unplaced == 0);
    let mut parts = Vec::new();
    for (group, of) in model.groups.iter().enumerate() {
        let count = counts[group].saturating_sub(unplaced[group]);
        let floor = if whole { of.floor.min(count) } else { 0 };
        for (set, count) in [(of.set, floor), (of.wide, count - floor)] {
            if count > 0 {
                parts.push(Part { group, set, count: f64::from(count) });
            }
        }
    }
    parts
}

/// Patterns by parts: as if all pods were held in their domains where some are, and as if none was.
fn known(parts: &[Part], packed: &Pool) -> Vec<(usize, Mix)> {
    let mut first: BTreeMap<usize, usize> = BTreeMap::new();
    let mut last: BTreeMap<usize, usize> = BTreeMap::new();
    for (at, part) in parts.iter().enumerate() {
        first.entry(part.group).or_insert(at);
        last.insert(part.group, at);
    }
    let mix = |of: &BTreeMap<usize, usize>, pods: &[(usize, u32)]| -> Mix {
        pods.iter().filter_map(|(group, n)| Some((*of.get(group)?, f64::from(*n)))).collect()
    };
    let both =
        |(column, pods): &Pattern| [(*column, mix(&first, pods)), (*column, mix(&last, pods))];
    packed.iter().flat_map(both).collect()
}

/// Columns that can matter: of those that are alike to all parts only the cheapest, and none for which
/// another, no dearer, has as much of everything.
fn columns(model: &Model<'_, '_>, parts: &[Part]) -> Vec<usize> {
    let mut sets: Vec<usize> = parts.iter().map(|part| part.set).collect();
    sets.sort_unstable();
    sets.dedup();
    let all = &model.compiled.offers.columns;
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_unstable_by_key(|column| (all[*column].price, *column));
    let mut kept: BTreeMap<Vec<bool>, Vec<usize>> = BTreeMap::new();
    for column in order {
        let admits: Vec<bool> =
            sets.iter().map(|set| model.compiled.sets.get(*set).contains(column)).collect();
        if !admits.contains(&true) {
            continue;
        }
        let room = &model.rooms[all[column].room];
        let covers = |other: &usize| {
            model.rooms[all[*other].room].iter().zip(room).all(|(more, room)| more >= room)
        };
        let alike = kept.entry(admits).or_default();
        if !alike.iter().any(covers) {
            alike.push(column);
        }
    }
    kept.into_values().flatten().collect()
}

/// What the demand costs if resources could be bought by the drop.
fn plain(model: &Model<'_, '_>, parts: &[Part], columns: &[usize]) -> f64 {
    let prices = prices(model, parts, columns);
    let worth = |group: usize| -> f64 {
        model.groups[group].request.iter().zip(&prices).map(|(one, price)| one * price).sum()
    };
    parts.iter().map(|part| worth(part.group) * part.count).sum::<f64>() * (1.0 - 1e-7)
}

/// Prices of resources at which no column is worth more than it costs, and the demand the most.
#[expect(clippy::cast_precision_loss, reason = "prices are far below 2^53")]
fn prices(model: &Model<'_, '_>, parts: &[Part], columns: &[usize]) -> Vec<f64> {
    let dims = model.compiled.offers.dims.len();
    let mut total = vec![0.0_f64; dims];
    for part in parts {
        let request = &model.groups[part.group].request;
        total.iter_mut().zip(request).for_each(|(all, one)| *all += one * part.count);
    }
    let mut lp = Lp::new(OptimizationDirection::Maximize);
    let vars: Vec<_> = total.iter().map(|_| lp.add_var(1.0, (0.0, f64::INFINITY))).collect();
    for &column in columns {
        // Shares of the whole demand, of which a node can use no more, keep the program's numbers near
        // one.
        let room = &model.rooms[model.compiled.offers.columns[column].room];
        let terms: Vec<_> = (0..dims)
            .filter(|dim| total[*dim] > 0.0 && room[*dim] > 0.0)
            .map(|dim| (vars[dim], (room[dim] / total[dim]).min(1.0)))
            .collect();
        lp.add_constraint(
            &*terms,
            ComparisonOp::Le,
            model.compiled.offers.columns[column].price as f64,
        );
    }
    // A resource that nobody asks or no column has is worth nothing.
    for (dim, var) in vars.iter().enumerate() {
        if total[dim] <= 0.0
            || columns
                .iter()
                .all(|c| model.rooms[model.compiled.offers.columns[*c].room][dim] <= 0.0)
        {
            lp.add_constraint([(*var, 1.0)], ComparisonOp::Le, 0.0);
        }
    }
    let Some(solution) = solved(&lp) else { return vec![0.0; dims] };
    let each = vars.iter().zip(&total).map(|(var, total)| solution[*var].max(0.0) / total.max(1.0));
    each.collect()
}

/// How many pods of a part a node of the column holds, whole ones.
fn fit(model: &Model<'_, '_>, column: usize, part: &Part) -> f64 {
    let of = &model.groups[part.group];
    if !model.compiled.sets.get(part.set).contains(column) {
        return 0.0;
    }
    let mut most = f64::from(of.per_node).min(part.count);
    for (asked, room) in
        of.request.iter().zip(&model.rooms[model.compiled.offers.columns[column].room])
    {
        if *asked > 0.0 {
            most = most.min((room / asked).floor().max(0.0));
        }
    }
    most
}

/// The most value that a node of the column can hold when pods may be split, and the mix. `None` where
/// the program has no answer.
fn fullest(
    model: &Model<'_, '_>,
    column: usize,
    parts: &[Part],
    values: &[f64],
) -> Option<(f64, Mix)> {
    let mut lp = Lp::new(OptimizationDirection::Maximize);
    let mut vars = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let most = fit(model, column, part);
        if most > 0.0 && values[at] > 0.0 {
            vars.push((at, part.group, lp.add_var(values[at], (0.0, most))));
        }
    }
    if vars.is_empty() {
        return Some((0.0, Mix::new()));
    }
    let room = &model.rooms[model.compiled.offers.columns[column].room];
    for (dim, room) in room.iter().enumerate() {
        // Shares of the room keep the program's numbers near one.
        let scale = room.max(1.0);
        let share = |group: usize| model.groups[group].request[dim] / scale;
        let terms: Vec<_> = vars
            .iter()
            .map(|(_, group, var)| (*var, share(*group)))
            .filter(|(_, part)| *part > 0.0)
            .collect();
        if !terms.is_empty() {
            lp.add_constraint(&*terms, ComparisonOp::Le, 1.0);
        }
        // Of pods that ask more than a third of the room there are two at most, whatever they are,
        // and so on.
        let mut before = 0;
        for most in 1..=MOST_TOGETHER {
            let large = 1.0 / f64::from(most + 1) + 1e-9;
            let terms: Vec<_> = terms
                .iter()
                .filter(|(_, share)| *share > large)
                .map(|(var, _)| (*var, 1.0))
                .collect();
            if terms.len() > before.max(1) {
                before = terms.len();
                lp.add_constraint(&*terms, ComparisonOp::Le, f64::from(most));
            }
        }
    }
    let solution = solved(&lp)?;
    let mix = vars.iter().map(|(at, _, var)| (*at, solution[*var])).filter(|(_, n)| *n > 1e-9);
    Some((solution.objective(), mix.collect()))
}

/// The optimum of a linear program, if it has one.
fn solved(lp: &Lp) -> Option<microlp::Solution> {
    match lp.solve().ok()? {
        SolveOutcome::Solution(solution) => Some(solution),
        SolveOutcome::Interrupted(_) => None,
    }
}
