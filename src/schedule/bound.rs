//! A price that no packing can undercut.
//!
//! If each group of pods has a value such that no node can hold more value than it costs, then the value of
//! all demand is a lower bound (linear duality). Values come from a covering program over
//! resources; then they are scaled until the linear relaxation of the fullest node of each offering
//! is worth at most its price.

use std::collections::BTreeMap;

use microlp::{ComparisonOp, OptimizationDirection, Problem as Lp, SolveOutcome};

use super::model::Model;
use crate::model::money::MicroDollarsPerHour;

/// Rounds of tightening; each adds the offerings whose fullest node is worth more than its price.
const ROUNDS: usize = 60;
/// Offerings added per round.
const PER_ROUND: usize = 40;

/// Pods of one node by position in the list of groups; parts of pods are allowed.
type Mix = Vec<(usize, f64)>;

/// Programs with more pairs of group and column than this get the plain bound: what the resources
/// alone cost.
const MOST_PAIRS: usize = 20_000;

/// The bound for the demand that new nodes must hold: all of the groups but what is in `unplaced`.
#[expect(clippy::cast_precision_loss, reason = "prices are far below 2^53")]
pub(super) fn lower_bound(model: &Model<'_, '_>, unplaced: &[u32]) -> MicroDollarsPerHour {
    let mut counts = vec![0_u32; model.groups.len()];
    for (item, count) in model.items.iter().zip(&model.counts) {
        counts[item.group] += count;
    }
    let groups: Vec<(usize, f64)> = counts
        .iter()
        .zip(unplaced)
        .enumerate()
        .map(|(group, (count, unplaced))| (group, f64::from(count.saturating_sub(*unplaced))))
        .filter(|(_, count)| *count > 0.0)
        .collect();
    if groups.is_empty() {
        return MicroDollarsPerHour::ZERO;
    }
    // Columns that are alike to all groups: only the cheapest matters. Domains are not held against
    // a plan, since another choice of them might be cheaper.
    let mut wide: Vec<usize> = groups.iter().map(|(group, _)| model.groups[*group].wide).collect();
    wide.sort_unstable();
    wide.dedup();
    let mut best: BTreeMap<(usize, Vec<bool>), usize> = BTreeMap::new();
    for (index, column) in model.compiled.offers.columns.iter().enumerate() {
        let admits: Vec<bool> =
            wide.iter().map(|set| model.compiled.sets.get(*set).contains(index)).collect();
        if admits.contains(&true) {
            let entry = best.entry((column.room, admits)).or_insert(index);
            if column.price < model.compiled.offers.columns[*entry].price {
                *entry = index;
            }
        }
    }
    let columns: Vec<usize> = best.into_values().collect();
    let mut lower = plain(model, &groups, &columns);
    let mut rounds = ROUNDS;
    if groups.len() * columns.len() > MOST_PAIRS {
        rounds = 0;
    }
    // Cuts `Σ n_g v_g ≤ price`, one per relaxed fullest node found so far.
    let mut cuts: Vec<(Mix, f64)> = Vec::new();
    for (at, (group, count)) in groups.iter().enumerate().filter(|_| rounds > 0) {
        for &column in &columns {
            let most = fit(model, column, *group).min(*count);
            if most > 0.0 {
                cuts.push((vec![(at, most)], model.compiled.offers.columns[column].price as f64));
            }
        }
    }
    for _ in 0..rounds {
        let Some(values) = duals(&groups, &cuts) else { break };
        let total: f64 = groups.iter().zip(&values).map(|((_, count), v)| count * v).sum();
        let mut worst = 1.0_f64;
        let mut found: Vec<(f64, Mix, f64)> = Vec::new();
        for &column in &columns {
            let price = model.compiled.offers.columns[column].price as f64;
            let Some((worth, mix)) = fullest(model, column, &groups, &values) else { continue };
            worst = worst.max(worth / price.max(1.0));
            if worth > price * (1.0 + 1e-7) {
                found.push((worth / price.max(1.0), mix, price));
            }
        }
        // Scaled down by the worst offering the values are feasible.
        lower = lower.max(total / worst);
        if found.is_empty() || total / worst > total * 0.9999 {
            break;
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        found.truncate(PER_ROUND);
        cuts.extend(found.into_iter().map(|(_, mix, price)| (mix, price)));
    }
    #[expect(clippy::cast_possible_truncation, reason = "rounded down, which keeps it a bound")]
    MicroDollarsPerHour((lower * (1.0 - 1e-9)).floor() as i64)
}

/// What the demand costs if resources could be bought by the drop.
fn plain(model: &Model<'_, '_>, groups: &[(usize, f64)], columns: &[usize]) -> f64 {
    let prices = prices(model, groups, columns);
    let worth = |group: usize| -> f64 {
        model.groups[group].request.iter().zip(&prices).map(|(one, price)| one * price).sum()
    };
    groups.iter().map(|(group, count)| worth(*group) * count).sum::<f64>() * (1.0 - 1e-7)
}

/// Prices of resources at which no column is worth more than it costs, and the demand the most.
#[expect(clippy::cast_precision_loss, reason = "prices are far below 2^53")]
pub(super) fn prices(
    model: &Model<'_, '_>,
    groups: &[(usize, f64)],
    columns: &[usize],
) -> Vec<f64> {
    let dims = model.compiled.offers.dims.len();
    let mut total = vec![0.0_f64; dims];
    for (group, count) in groups {
        let request = &model.groups[*group].request;
        total.iter_mut().zip(request).for_each(|(all, one)| *all += one * count);
    }
    let mut lp = Lp::new(OptimizationDirection::Maximize);
    let vars: Vec<_> = total.iter().map(|_| lp.add_var(1.0, (0.0, f64::INFINITY))).collect();
    for &column in columns {
        // Shares of the whole demand keep the program's numbers near one.
        let room = &model.rooms[model.compiled.offers.columns[column].room];
        let terms: Vec<_> = (0..dims)
            .filter(|dim| total[*dim] > 0.0 && room[*dim] > 0.0)
            .map(|dim| (vars[dim], room[dim] / total[dim]))
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

/// How many pods of a group a node of the column holds, whole ones.
fn fit(model: &Model<'_, '_>, column: usize, group: usize) -> f64 {
    let of = &model.groups[group];
    if !model.compiled.sets.get(of.wide).contains(column) {
        return 0.0;
    }
    let mut most = f64::from(of.per_node);
    for (asked, room) in
        of.request.iter().zip(&model.rooms[model.compiled.offers.columns[column].room])
    {
        if *asked > 0.0 {
            most = most.min((room / asked).floor().max(0.0));
        }
    }
    most
}

fn duals(groups: &[(usize, f64)], cuts: &[(Mix, f64)]) -> Option<Vec<f64>> {
    let mut lp = Lp::new(OptimizationDirection::Maximize);
    let vars: Vec<_> =
        groups.iter().map(|(_, count)| lp.add_var(*count, (0.0, f64::INFINITY))).collect();
    for (mix, price) in cuts {
        let terms: Vec<_> = mix.iter().map(|(at, n)| (vars[*at], *n)).collect();
        lp.add_constraint(&*terms, ComparisonOp::Le, *price);
    }
    let solution = solved(&lp)?;
    Some(vars.iter().map(|var| solution[*var].max(0.0)).collect())
}

/// The most value that a node of the column can hold when pods may be split, and the mix.
fn fullest(
    model: &Model<'_, '_>,
    column: usize,
    groups: &[(usize, f64)],
    values: &[f64],
) -> Option<(f64, Mix)> {
    let mut lp = Lp::new(OptimizationDirection::Maximize);
    let mut vars = Vec::new();
    for (at, (group, count)) in groups.iter().enumerate() {
        let most = fit(model, column, *group).min(*count);
        if most > 0.0 && values[at] > 0.0 {
            vars.push((at, *group, lp.add_var(values[at], (0.0, most))));
        }
    }
    if vars.is_empty() {
        return None;
    }
    let room = &model.rooms[model.compiled.offers.columns[column].room];
    for (dim, room) in room.iter().enumerate() {
        // Shares of the room keep the program's numbers near one.
        let scale = room.max(1.0);
        let terms: Vec<_> = vars
            .iter()
            .map(|(_, group, var)| (*var, model.groups[*group].request[dim] / scale))
            .filter(|(_, part)| *part > 0.0)
            .collect();
        if !terms.is_empty() {
            lp.add_constraint(&*terms, ComparisonOp::Le, 1.0);
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
