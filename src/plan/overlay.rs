//! What overlays make of the instance types that pools are offered.
//!
//! Overlays are laid in order of weight, the heaviest first, of equal ones the last by name. What
//! one has changed, a lighter one leaves alone. Two of equal weight that change the same price or
//! resource of the same type are in conflict: the second is refused wholly, in all pools.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::instance::{Asked, InstanceType};
use crate::model::overlay::Overlay;
use crate::model::pool::Pool;
use crate::model::requirement::Requirements;

/// Types as a pool's class offers them.
pub type Types = Arc<[Arc<InstanceType>]>;

/// Why an overlay changes nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// What is wrong with it.
    Invalid(Arc<str>),
    /// The overlay of equal weight that changes the same.
    Conflict(Arc<str>),
}

impl Refusal {
    /// The reason of the condition, as the field names it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "RuntimeValidation",
            Self::Conflict(_) => "Conflict",
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invalid(fault) => f.write_str(fault),
            Self::Conflict(other) => write!(
                f,
                "overlay {other} of the same weight changes the same price or resource of an \
                 instance type; give one of them another weight or other requirements"
            ),
        }
    }
}

/// Types after all overlays.
#[derive(Clone, Debug, Default)]
pub struct Overlaid {
    /// Types of each pool in which overlays changed some, at the same positions as before.
    pub types: BTreeMap<Arc<str>, Types>,
    /// All overlays that were looked at; those that change nothing with the reason.
    pub verdicts: BTreeMap<Arc<str>, Option<Refusal>>,
}

/// Who changed something: the overlay that counts, and the lightest that was taken since.
#[derive(Clone, Copy)]
struct Laid<'o> {
    counts: &'o Overlay,
    lightest: &'o Overlay,
}

impl<'o> Laid<'o> {
    /// The overlay that keeps `next` from being laid over the same thing.
    fn rival(&self, next: &Overlay) -> Option<&'o Overlay> {
        (self.lightest.weight == next.weight).then_some(self.lightest)
    }
}

/// What overlays change about one type.
#[derive(Clone, Default)]
struct Changes<'o> {
    /// By offering; empty until there is one.
    prices: Vec<Option<Laid<'o>>>,
    capacity: BTreeMap<&'o Arc<str>, Laid<'o>>,
}

/// Lays overlays over the types of pools.
pub fn lay<'o>(
    overlays: impl IntoIterator<Item = &'o Overlay>,
    pools: &[(&Pool, &Types)],
) -> Overlaid {
    let mut order: Vec<&Overlay> = overlays.into_iter().collect();
    order.sort_by(|a, b| (b.weight, &b.name).cmp(&(a.weight, &a.name)));
    let mut overlaid = Overlaid::default();
    let mut changes: Vec<Vec<Changes<'_>>> =
        pools.iter().map(|(_, types)| vec![Changes::default(); types.len()]).collect();
    for overlay in order {
        let refusal = match &overlay.fault {
            Some(fault) => Some(Refusal::Invalid(Arc::clone(fault))),
            None => lay_one(overlay, pools, &mut changes),
        };
        overlaid.verdicts.insert(Arc::clone(&overlay.name), refusal);
    }
    for ((pool, types), changes) in pools.iter().zip(&changes) {
        let mut changed = false;
        let after: Vec<Arc<InstanceType>> = types
            .iter()
            .zip(changes)
            .map(|(kind, changes)| {
                let new = changed_type(kind, changes);
                changed |= new.is_some();
                new.map_or_else(|| Arc::clone(kind), Arc::new)
            })
            .collect();
        if changed {
            overlaid.types.insert(Arc::clone(&pool.name), after.into());
        }
    }
    overlaid
}

/// Lays one overlay, or nothing of it if it is in conflict.
fn lay_one<'o>(
    overlay: &'o Overlay,
    pools: &[(&Pool, &Types)],
    changes: &mut [Vec<Changes<'o>>],
) -> Option<Refusal> {
    let mut meant: Vec<(usize, usize, Vec<usize>)> = Vec::new();
    for (at, (pool, types)) in pools.iter().enumerate() {
        for (index, kind) in types.iter().enumerate() {
            let offerings = offerings(&overlay.requirements, pool, kind);
            if !offerings.is_empty() {
                meant.push((at, index, offerings));
            }
        }
    }
    let rival = meant.iter().find_map(|(pool, kind, offerings)| {
        let of = &changes[*pool][*kind];
        let price = overlay.price.is_some().then(|| {
            let mut laid = offerings.iter().filter_map(|at| of.prices.get(*at)?.as_ref());
            laid.find_map(|laid| laid.rival(overlay))
        });
        let capacity = || {
            let mut laid = overlay.capacity.keys().filter_map(|name| of.capacity.get(name));
            laid.find_map(|laid| laid.rival(overlay))
        };
        price.flatten().or_else(capacity)
    });
    if let Some(rival) = rival {
        return Some(Refusal::Conflict(Arc::clone(&rival.name)));
    }
    let laid = |old: Option<&Laid<'o>>| Laid {
        counts: old.map_or(overlay, |old| old.counts),
        lightest: overlay,
    };
    for (pool, kind, offerings) in meant {
        let of = &mut changes[pool][kind];
        if overlay.price.is_some() {
            of.prices.resize(pools[pool].1[kind].offerings.len(), None);
            for at in offerings {
                of.prices[at] = Some(laid(of.prices[at].as_ref()));
            }
        }
        for name in overlay.capacity.keys() {
            let new = laid(of.capacity.get(name));
            of.capacity.insert(name, new);
        }
    }
    None
}

/// Positions of a type's offerings that requirements are about, as nodes of a pool.
fn offerings(wanted: &Requirements, pool: &Pool, kind: &InstanceType) -> Vec<usize> {
    let fits = wanted.iter().filter(|(key, _)| !kind.leaves_open(key)).all(|(key, wanted)| {
        let own = kind.requirements.get(key);
        let label = pool.labels.get(&**key);
        match (own, label) {
            (None, None) => wanted.allows_absent(),
            _ => {
                own.is_none_or(|own| own.intersects(wanted))
                    && label.is_none_or(|value| wanted.allows(value))
            }
        }
    });
    let asked = Asked::of(wanted);
    let all = kind.offerings.iter().enumerate().filter(|_| fits);
    all.filter(|(_, offering)| asked.met_by(offering)).map(|(at, _)| at).collect()
}

/// A type after its changes; `None` when there are none.
fn changed_type(kind: &InstanceType, changes: &Changes<'_>) -> Option<InstanceType> {
    if changes.prices.is_empty() && changes.capacity.is_empty() {
        return None;
    }
    let mut after = kind.clone();
    for (offering, laid) in after.offerings.iter_mut().zip(&changes.prices) {
        if let Some(change) = laid.and_then(|laid| laid.counts.price) {
            offering.price = change.apply(offering.price);
        }
    }
    for (name, laid) in &changes.capacity {
        let amount = laid.counts.capacity.get(*name).copied().unwrap_or(0);
        after.capacity.set(name, amount);
    }
    (after != *kind).then_some(after)
}

#[cfg(test)]
mod tests;
