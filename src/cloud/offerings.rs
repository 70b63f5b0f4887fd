//! What was out of capacity of late.
//!
//! A provider says "no capacity" for one way to buy at a time, and does not say until when. The
//! answer is remembered for a few minutes, so that plans take another way, and then forgotten, so
//! that cheap capacity is tried again.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::model::instance::{CapacityType, InstanceType};

/// How long an answer counts; the field's value. Long enough that a plan and its next attempt do
/// not repeat the same call, short against the hours that a pool stays dry.
pub const REMEMBERED: SignedDuration = SignedDuration::from_mins(3);

/// Ways to buy that had no capacity, each with the end of its memory.
#[derive(Clone, Debug, Default)]
pub struct Unavailable {
    until: BTreeMap<Scope, Timestamp>,
    sequence: u64,
}

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Scope {
    Offering(Arc<str>, Arc<str>, CapacityType),
    CapacityType(CapacityType),
}

impl Unavailable {
    /// Remembers that a type had no capacity in a zone.
    pub fn mark(
        &mut self,
        instance_type: &Arc<str>,
        zone: &Arc<str>,
        capacity_type: CapacityType,
        now: Timestamp,
    ) {
        let scope = Scope::Offering(Arc::clone(instance_type), Arc::clone(zone), capacity_type);
        self.insert(scope, now);
    }

    /// Remembers that a capacity type cannot be had at all (the account may not use spot).
    pub fn mark_capacity_type(&mut self, capacity_type: CapacityType, now: Timestamp) {
        self.insert(Scope::CapacityType(capacity_type), now);
    }

    fn insert(&mut self, scope: Scope, now: Timestamp) {
        let until = now.checked_add(REMEMBERED).unwrap_or(Timestamp::MAX);
        // Prolonging a memory changes nothing for readers.
        if self.until.insert(scope, until).is_none_or(|old| old <= now) {
            self.sequence += 1;
        }
    }

    /// Whether an offering is remembered as out of capacity.
    pub fn contains(
        &self,
        instance_type: &Arc<str>,
        zone: &Arc<str>,
        capacity_type: CapacityType,
        now: Timestamp,
    ) -> bool {
        let remembered = |scope| self.until.get(&scope).is_some_and(|until| *until > now);
        remembered(Scope::CapacityType(capacity_type))
            || remembered(Scope::Offering(
                Arc::clone(instance_type),
                Arc::clone(zone),
                capacity_type,
            ))
    }

    /// Forgets what is old and returns a number that changes whenever the answers of
    /// [`Self::contains`] do.
    pub fn sequence(&mut self, now: Timestamp) -> u64 {
        let before = self.until.len();
        self.until.retain(|_, until| *until > now);
        if self.until.len() != before {
            self.sequence += 1;
        }
        self.sequence
    }

    /// The types with remembered offerings switched off. Types without such offerings are shared,
    /// not copied.
    pub fn apply(&self, types: &[Arc<InstanceType>], now: Timestamp) -> Arc<[Arc<InstanceType>]> {
        if self.until.is_empty() {
            return types.into();
        }
        let off = |kind: &InstanceType, index: usize| {
            let offer = &kind.offerings[index];
            offer.available && self.contains(&kind.name, &offer.zone, offer.capacity_type, now)
        };
        types
            .iter()
            .map(|kind| {
                let gone: Vec<usize> =
                    (0..kind.offerings.len()).filter(|index| off(kind, *index)).collect();
                if gone.is_empty() {
                    return Arc::clone(kind);
                }
                let mut copy = InstanceType::clone(kind);
                for index in gone {
                    copy.offerings[index].available = false;
                }
                Arc::new(copy)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::catalog::{Catalog, SpotPrices};
    use crate::cloud::settings::ClassSettings;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn forgets_after_three_minutes() {
        let (kind, zone): (Arc<str>, Arc<str>) = ("m5.large".into(), "a".into());
        let mut memory = Unavailable::default();
        let start = memory.sequence(at(0));
        memory.mark(&kind, &zone, CapacityType::Spot, at(0));
        let marked = memory.sequence(at(1));
        assert_ne!(start, marked);
        assert!(memory.contains(&kind, &zone, CapacityType::Spot, at(179)));
        assert!(!memory.contains(&kind, &zone, CapacityType::OnDemand, at(1)));
        memory.mark(&kind, &zone, CapacityType::Spot, at(100));
        assert_eq!(memory.sequence(at(101)), marked);
        assert!(memory.contains(&kind, &zone, CapacityType::Spot, at(279)));
        assert!(!memory.contains(&kind, &zone, CapacityType::Spot, at(280)));
        assert_ne!(memory.sequence(at(280)), marked);
    }

    #[test]
    fn switches_offerings_off_and_copies_only_those() {
        let types = Catalog::built_in()
            .unwrap()
            .instance_types("us-west-2", &ClassSettings::default(), &SpotPrices::Discount(600))
            .unwrap();
        let mut memory = Unavailable::default();
        memory.mark(&"m5.large".into(), &"us-west-2a".into(), CapacityType::Spot, at(0));
        let applied = memory.apply(&types, at(1));
        let changed: Vec<_> =
            types.iter().zip(applied.iter()).filter(|(a, b)| !Arc::ptr_eq(a, b)).collect();
        assert_eq!(changed.len(), 1);
        let off: Vec<_> = changed[0].1.offerings.iter().filter(|o| !o.available).collect();
        assert_eq!((off.len(), &*off[0].zone), (1, "us-west-2a"));
        memory.mark_capacity_type(CapacityType::Spot, at(0));
        let applied = memory.apply(&types, at(1));
        let spot_left = applied
            .iter()
            .flat_map(|kind| &kind.offerings)
            .any(|offer| offer.available && offer.capacity_type == CapacityType::Spot);
        assert!(!spot_left);
    }
}
