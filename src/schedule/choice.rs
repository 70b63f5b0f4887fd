//! Which of the offerings that would do a claim names: the cheapest types, as varied as `minValues`
//! of the pool ask.

use std::collections::{BTreeMap, BTreeSet};

use fixedbitset::FixedBitSet;

use super::compile::Offers;
use super::problem::{PoolSlot, Problem};
use super::reason::Reason;
use super::solution::OfferingRef;
use crate::model::requirement::Requirement;

/// Keys of which the pool asks for several values, with how many.
fn asked(slot: &PoolSlot) -> impl Iterator<Item = (&str, u32)> {
    let requirements = slot.pool.requirements.iter();
    requirements.filter_map(|(key, of)| Some((&**key, of.min_values.filter(|n| *n > 0)?)))
}

/// Whether the pool asks for several values of some key.
pub(super) fn is_varied(slot: &PoolSlot) -> bool {
    asked(slot).any(|(_, wanted)| wanted > 1)
}

/// Values of a key that an offering stands for. What the pool alone says is no choice.
fn values<'s>(slot: &'s PoolSlot, key: &str, offering: OfferingRef) -> Vec<&'s str> {
    let instance = &slot.types[offering.type_index];
    if let Some(value) = instance.offerings[offering.offering_index].label(key) {
        return vec![value];
    }
    let own = instance.requirements.get(key).and_then(Requirement::finite_values);
    own.into_iter().flatten().map(|value| &**value).collect()
}

/// Keeps at most `most` types: the cheapest, after those that the pool's `minValues` need. `all` is
/// in order of price.
pub(super) fn cut<T>(
    slot: &PoolSlot,
    all: &mut Vec<T>,
    most: usize,
    offering: impl Fn(&T) -> OfferingRef,
) {
    let mut known: BTreeSet<usize> = BTreeSet::new();
    let types = all.iter().map(|one| offering(one).type_index);
    let order: Vec<usize> = types.filter(|of| known.insert(*of)).collect();
    if order.len() <= most {
        return;
    }
    let mut kept: BTreeSet<usize> = BTreeSet::new();
    for (key, wanted) in asked(slot) {
        let offerings = || all.iter().map(&offering);
        let of_kept = offerings().filter(|offering| kept.contains(&offering.type_index));
        let mut found: BTreeSet<&str> =
            of_kept.flat_map(|offering| values(slot, key, offering)).collect();
        for offering in offerings() {
            if found.len() >= usize::try_from(wanted).unwrap_or(usize::MAX) || kept.len() >= most {
                break;
            }
            let before = found.len();
            found.extend(values(slot, key, offering));
            if found.len() > before {
                kept.insert(offering.type_index);
            }
        }
    }
    for of in order {
        if kept.len() >= most {
            break;
        }
        kept.insert(of);
    }
    all.retain(|one| kept.contains(&offering(one).type_index));
}

/// Why the offerings do not meet the pool's `minValues`, if they do not.
pub(super) fn shortage(slot: &PoolSlot, offerings: &[OfferingRef]) -> Option<Reason> {
    asked(slot).find_map(|(key, wanted)| {
        let found: BTreeSet<&str> =
            offerings.iter().flat_map(|offering| values(slot, key, *offering)).collect();
        let found = u32::try_from(found.len()).unwrap_or(u32::MAX);
        (found < wanted).then(|| Reason::MinValues { key: key.to_owned(), wanted, found })
    })
}

/// Columns of which any load fits enough others for `minValues` of their pool: types that are as large
/// in every way, taken together, have the values.
pub(super) fn safe(problem: &Problem, offers: &Offers) -> FixedBitSet {
    let mut safe = FixedBitSet::with_capacity(offers.columns.len());
    for (pool, slot) in problem.pools.iter().enumerate() {
        let columns = || (0..offers.columns.len()).filter(|c| offers.columns[*c].pool == pool);
        if !is_varied(slot) {
            safe.extend(columns());
            continue;
        }
        let mut known: BTreeMap<usize, bool> = BTreeMap::new();
        for column in columns() {
            let room = offers.columns[column].room;
            let enough = *known.entry(room).or_insert_with(|| {
                let mine = &offers.rooms[room];
                let as_large = |column: &usize| {
                    let theirs = &offers.rooms[offers.columns[*column].room];
                    mine.iter().zip(theirs).all(|(mine, theirs)| mine <= theirs)
                };
                let all: Vec<OfferingRef> =
                    columns().filter(as_large).map(|at| offers.columns[at].offering()).collect();
                shortage(slot, &all).is_none()
            });
            safe.set(column, enough);
        }
    }
    safe
}
