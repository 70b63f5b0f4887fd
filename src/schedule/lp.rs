//! The covering program over patterns, solved by adding patterns to a basis.
//!
//! `min Σ cost·x` such that the patterns cover the demand of each row. A small revised simplex with
//! a dense inverse: rows are few hundreds, patterns come one by one, and what the caller wants are
//! the row values (duals) after each.

/// Numbers nearer to zero than this are zero.
const TINY: f64 = 1e-9;

/// The program with its current basis.
#[derive(Clone, Debug)]
pub(super) struct Cover {
    rows: usize,
    /// Inverse of the basis, by rows.
    inverse: Vec<f64>,
    /// Copies of the basic patterns.
    amounts: Vec<f64>,
    /// Name of the basic pattern of each row; `usize::MAX` is the surplus of a row.
    names: Vec<usize>,
    /// Value of one unit of each row.
    values: Vec<f64>,
    direction: Vec<f64>,
}

impl Cover {
    /// A basis of one pattern per row, each of which covers `size` units of its row at `cost`.
    pub(super) fn new(demand: &[f64], singles: &[(usize, f64, f64)]) -> Self {
        let rows = demand.len();
        let mut inverse = vec![0.0; rows * rows];
        for (row, (_, _, size)) in singles.iter().enumerate() {
            inverse[row * rows + row] = 1.0 / size;
        }
        Self {
            rows,
            inverse,
            amounts: demand.iter().zip(singles).map(|(d, (_, _, size))| d / size).collect(),
            names: singles.iter().map(|(name, _, _)| *name).collect(),
            values: singles.iter().map(|(_, cost, size)| cost / size).collect(),
            direction: vec![0.0; rows],
        }
    }

    /// Values of the rows.
    pub(super) fn values(&self) -> &[f64] {
        &self.values
    }

    /// Basic patterns with their copies.
    pub(super) fn patterns(&self) -> impl Iterator<Item = (usize, f64)> {
        self.names
            .iter()
            .copied()
            .zip(self.amounts.iter().copied())
            .filter(|(n, _)| *n != usize::MAX)
    }

    /// Takes a pattern into the basis if it is worth more than it costs.
    pub(super) fn enter(&mut self, name: usize, cost: f64, column: &[(usize, f64)]) -> bool {
        let worth: f64 = column.iter().map(|(row, n)| self.values[*row] * n).sum();
        let reduced = cost - worth;
        if reduced > -1e-7 * cost.max(1.0) {
            return false;
        }
        self.pivot(name, reduced, column);
        // A row that is worth less than nothing is better over-covered.
        for _ in 0..self.rows {
            let worst = (0..self.rows).min_by(|a, b| self.values[*a].total_cmp(&self.values[*b]));
            match worst {
                Some(row) if self.values[row] < -1e-6 => {
                    let reduced = self.values[row];
                    if !self.pivot(usize::MAX, reduced, &[(row, -1.0)]) {
                        break;
                    }
                }
                _ => break,
            }
        }
        true
    }

    fn pivot(&mut self, name: usize, reduced: f64, column: &[(usize, f64)]) -> bool {
        let rows = self.rows;
        for (row, inverse) in self.inverse.chunks_exact(rows).enumerate() {
            self.direction[row] = column.iter().map(|(at, n)| inverse[*at] * n).sum();
        }
        let leaving = (0..rows).filter(|row| self.direction[*row] > 1e-7).min_by(|a, b| {
            let ratio = |row: usize| self.amounts[row].max(0.0) / self.direction[row];
            ratio(*a).total_cmp(&ratio(*b))
        });
        let Some(leaving) = leaving else { return false };
        let pivot = self.direction[leaving];
        let amount = self.amounts[leaving].max(0.0) / pivot;
        let (before, rest) = self.inverse.split_at_mut(leaving * rows);
        let (chosen, after) = rest.split_at_mut(rows);
        let step = reduced / pivot;
        for (value, inverse) in self.values.iter_mut().zip(chosen.iter_mut()) {
            *value += step * *inverse;
            *inverse /= pivot;
        }
        let others = before.chunks_exact_mut(rows).enumerate().chain(
            after.chunks_exact_mut(rows).enumerate().map(|(at, row)| (at + leaving + 1, row)),
        );
        for (row, inverse) in others {
            let factor = self.direction[row];
            if factor.abs() > TINY {
                for (mine, theirs) in inverse.iter_mut().zip(chosen.iter()) {
                    *mine -= factor * theirs;
                }
                self.amounts[row] -= factor * amount;
            }
        }
        self.amounts[leaving] = amount;
        self.names[leaving] = name;
        true
    }
}

/// Patterns that are known: what each covers of which rows, and what it costs. One that left the basis
/// may be worth more than it costs again.
///
/// They are looked at again and again, so they lie side by side.
#[derive(Default)]
pub(super) struct Sheet {
    /// Name, cost, and where the terms end.
    entries: Vec<(usize, f64, usize)>,
    /// `(row, units)`.
    terms: Vec<(usize, f64)>,
}

impl Sheet {
    /// Adds a pattern. One that covers nothing is left out.
    pub(super) fn push(
        &mut self,
        name: usize,
        cost: f64,
        covered: impl IntoIterator<Item = (usize, f64)>,
    ) {
        let before = self.terms.len();
        self.terms.extend(covered);
        if self.terms.len() > before {
            self.entries.push((name, cost, self.terms.len()));
        }
    }

    /// Takes the patterns into the basis that are worth more than they cost by the part `gain`, in at
    /// most so many passes over all of them. Whether there were any.
    pub(super) fn enter(&self, cover: &mut Cover, gain: f64, passes: usize) -> bool {
        let mut entered = false;
        for _ in 0..passes {
            let mut again = false;
            let mut start = 0;
            for (name, cost, end) in &self.entries {
                let covered = &self.terms[start..*end];
                start = *end;
                let worth: f64 = covered.iter().map(|(row, n)| cover.values[*row] * n).sum();
                if worth > cost * (1.0 + gain) {
                    again |= cover.enter(*name, *cost, covered);
                }
            }
            entered |= again;
            if !again {
                break;
            }
        }
        entered
    }
}
