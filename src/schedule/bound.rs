//! A price that no packing can undercut.
//!
//! If each shape has a value such that no node can hold more value than it costs, then the value of
//! all demand is a lower bound (linear duality). Values come from a covering program over
//! resources; then they are scaled until the linear relaxation of the fullest node of each offering
//! is worth at most its price.

use std::collections::BTreeMap;

use microlp::{ComparisonOp, OptimizationDirection, Problem as Lp, SolveOutcome};

use super::compile::Compiled;
use crate::model::money::MicroDollarsPerHour;

/// Rounds of tightening; each adds the offerings whose fullest node is worth more than its price.
const ROUNDS: usize = 60;
/// Offerings added per round.
const PER_ROUND: usize = 40;

/// Pods of one node by position in the list of shapes; parts of pods are allowed.
type Mix = Vec<(usize, f64)>;

/// The bound for the demand that new nodes must hold: all of `shapes` but what is in `unplaced`.
#[expect(clippy::cast_precision_loss, reason = "prices are far below 2^53")]
pub(super) fn lower_bound(compiled: &Compiled<'_>, unplaced: &[u32]) -> MicroDollarsPerHour {
    let shapes: Vec<(usize, f64)> = compiled
        .shapes
        .iter()
        .zip(unplaced)
        .enumerate()
        .map(|(index, (shape, unplaced))| (index, shape.left() - unplaced))
        .filter(|(_, count)| *count > 0)
        .map(|(index, count)| (index, f64::from(count)))
        .collect();
    if shapes.is_empty() {
        return MicroDollarsPerHour::ZERO;
    }
    // Columns that are alike to all shapes: only the cheapest matters.
    let mut best: BTreeMap<(usize, Vec<bool>), usize> = BTreeMap::new();
    for (index, column) in compiled.columns.iter().enumerate() {
        let admits: Vec<bool> =
            shapes.iter().map(|(s, _)| compiled.shapes[*s].columns.contains(index)).collect();
        if admits.contains(&true) {
            let entry = best.entry((column.room, admits)).or_insert(index);
            if column.price < compiled.columns[*entry].price {
                *entry = index;
            }
        }
    }
    let columns: Vec<usize> = best.into_values().collect();
    // Cuts `Σ n_s v_s ≤ price`, one per relaxed fullest node found so far.
    let mut cuts: Vec<(Mix, f64)> = Vec::new();
    for (at, (s, _)) in shapes.iter().enumerate() {
        for &column in &columns {
            let most = fit(compiled, column, *s);
            if most > 0.0 {
                cuts.push((vec![(at, most)], compiled.columns[column].price as f64));
            }
        }
    }
    let mut lower = 0.0_f64;
    for _ in 0..ROUNDS {
        let Some(values) = duals(&shapes, &cuts) else { break };
        let total: f64 = shapes.iter().zip(&values).map(|((_, count), v)| count * v).sum();
        let mut worst = 1.0_f64;
        let mut found: Vec<(f64, Mix, f64)> = Vec::new();
        for &column in &columns {
            let price = compiled.columns[column].price as f64;
            let Some((worth, mix)) = fullest(compiled, column, &shapes, &values) else { continue };
            worst = worst.max(worth / price);
            if worth > price * (1.0 + 1e-7) {
                found.push((worth / price, mix, price));
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

/// How many pods of a shape a node of the column holds, whole ones.
#[expect(clippy::cast_precision_loss, reason = "pods on a node")]
fn fit(compiled: &Compiled<'_>, column: usize, shape: usize) -> f64 {
    let shape = &compiled.shapes[shape];
    if !shape.columns.contains(column) {
        return 0.0;
    }
    let mut most = i64::from(shape.per_node.min(shape.left()));
    for (asked, room) in shape.request.iter().zip(&compiled.rooms[compiled.columns[column].room]) {
        if *asked > 0 {
            most = most.min((room / asked).max(0));
        }
    }
    most as f64
}

fn duals(shapes: &[(usize, f64)], cuts: &[(Mix, f64)]) -> Option<Vec<f64>> {
    let mut lp = Lp::new(OptimizationDirection::Maximize);
    let vars: Vec<_> =
        shapes.iter().map(|(_, count)| lp.add_var(*count, (0.0, f64::INFINITY))).collect();
    for (mix, price) in cuts {
        let terms: Vec<_> = mix.iter().map(|(at, n)| (vars[*at], *n)).collect();
        lp.add_constraint(&*terms, ComparisonOp::Le, *price);
    }
    let solution = solved(&lp)?;
    Some(vars.iter().map(|var| solution[*var].max(0.0)).collect())
}

/// The most value that a node of the column can hold when pods may be split, and the mix.
#[expect(clippy::cast_precision_loss, reason = "amounts of one node")]
fn fullest(
    compiled: &Compiled<'_>,
    column: usize,
    shapes: &[(usize, f64)],
    values: &[f64],
) -> Option<(f64, Mix)> {
    let mut lp = Lp::new(OptimizationDirection::Maximize);
    let mut vars = Vec::new();
    for (at, (s, _)) in shapes.iter().enumerate() {
        let most = fit(compiled, column, *s);
        if most > 0.0 && values[at] > 0.0 {
            vars.push((at, *s, lp.add_var(values[at], (0.0, most))));
        }
    }
    if vars.is_empty() {
        return None;
    }
    let room = &compiled.rooms[compiled.columns[column].room];
    for (dim, room) in room.iter().enumerate() {
        // Shares of the room keep the program's numbers near one.
        let scale = (*room).max(1) as f64;
        let terms: Vec<_> = vars
            .iter()
            .map(|(_, s, var)| (*var, compiled.shapes[*s].request[dim] as f64 / scale))
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
pub(super) fn solved(lp: &Lp) -> Option<microlp::Solution> {
    match lp.solve().ok()? {
        SolveOutcome::Solution(solution) => Some(solution),
        SolveOutcome::Interrupted(_) => None,
    }
}
