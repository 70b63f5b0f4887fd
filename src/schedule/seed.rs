//! Which node to open next for pods that tolerate few of their kind beside them.

use super::model::{Model, price};

/// What nodes strand that begin with a pod of one group, by column, micro-dollars per hour.
///
/// What a node strands only grows as others are used up, so an old figure is a bound.
pub(super) struct Seed {
    pub(super) group: usize,
    /// Columns that take the pod, the cheapest first.
    columns: Vec<usize>,
    prices: Vec<f64>,
    /// Infinite where nothing can be opened any more.
    waste: Vec<f64>,
    /// Position of the column that is best for the pod alone; it may be dearer than others may.
    alone: Option<usize>,
    /// Position of the least waste of those that may be opened.
    best: Option<usize>,
}

impl Seed {
    pub(super) fn new(model: &Model<'_, '_>, group: usize, columns: &[usize]) -> Self {
        let set = model.compiled.sets.get(model.groups[group].set);
        let price = |column: usize| price(model.compiled, column);
        let fits = columns.iter().copied().filter(|column| set.contains(*column));
        let mut columns: Vec<usize> = fits.collect();
        columns.sort_unstable_by(|a, b| price(*a).total_cmp(&price(*b)).then(a.cmp(b)));
        let alone = model.alone(group, 1, &columns);
        let alone = alone.and_then(|(_, best, _)| columns.iter().position(|one| *one == best));
        let prices: Vec<f64> = columns.iter().map(|column| price(*column)).collect();
        let waste = vec![f64::NEG_INFINITY; columns.len()];
        Self { group, columns, prices, waste, alone, best: None }
    }

    /// Looks for the least waste among columns of at most this price.
    pub(super) fn look(&mut self, most: f64) {
        let reach = self.prices.partition_point(|price| *price <= most);
        self.best = None;
        let mut least = f64::INFINITY;
        for (at, waste) in self.waste[..reach].iter().enumerate() {
            if *waste < least {
                (self.best, least) = (Some(at), *waste);
            }
        }
        if let Some(alone) = self.alone.filter(|at| *at >= reach && self.waste[*at] < least) {
            self.best = Some(alone);
        }
    }

    /// The least waste that is possible, and its column.
    pub(super) fn next(&self) -> Option<(f64, usize)> {
        let best = self.best?;
        Some((self.waste[best], self.columns[best]))
    }

    /// Says what the column of [`Self::next`] strands.
    pub(super) fn learn(&mut self, waste: f64) {
        if let Some(best) = self.best {
            self.waste[best] = waste;
        }
    }
}
