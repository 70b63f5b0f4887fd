//! Capacity reservations that a class selects, and how many instances each has left.
//!
//! EC2's counts are read while classes are resolved. Between two readings our own launches are
//! counted, and a reservation that refused a launch counts as used up.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{
    CapacityReservation as Found, CapacityReservationState, CapacityReservationType, Filter,
    InstanceMatchCriteria as Match,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;

use super::Provider;
use super::error::{code, from_sdk};
use super::network::tag_filters;
use crate::api::ec2nodeclass::EC2NodeClassSpec;
use crate::api::ec2nodeclass::selectors::{CapacityReservationSelectorTerm, InstanceMatchCriteria};
use crate::api::ec2nodeclass::status::{CapacityReservation, ReservationState, ReservationType};
use crate::cloud::CloudError;

/// EC2 begins to take back the instances of a block half an hour before it ends; the field's margin
/// is ten minutes more.
const EXPIRING: SignedDuration = SignedDuration::from_mins(40);
/// EC2's code for a reservation that is not there.
const NOT_FOUND: &str = "InvalidCapacityReservationId.NotFound";

/// Instances that reservations have left, by id.
#[derive(Debug, Default)]
pub(super) struct Reservations(Mutex<BTreeMap<String, u32>>);

impl Reservations {
    /// Instances that a reservation has left; none where it was never seen.
    pub(super) fn left(&self, id: &str) -> u32 {
        self.0.lock().get(id).copied().unwrap_or(0)
    }

    /// Counts instances that were launched.
    pub(super) fn launched(&self, id: &str, count: u32) {
        if let Some(left) = self.0.lock().get_mut(id) {
            *left = left.saturating_sub(count);
        }
    }

    /// Remembers that a reservation is used up, until EC2 is asked again.
    pub(super) fn exhaust(&self, id: &str) {
        self.0.lock().insert(id.to_owned(), 0);
    }

    fn count(&self, found: &[Found]) {
        let mut left = self.0.lock();
        for one in found {
            let available = one.available_instance_count().and_then(|n| u32::try_from(n).ok());
            if let (Some(id), Some(available)) = (one.capacity_reservation_id(), available) {
                left.insert(id.to_owned(), available);
            }
        }
    }
}

impl Provider {
    /// Reservations that any of the class's terms selects and that have not ended, by id.
    pub(super) async fn capacity_reservations(
        &self,
        spec: &EC2NodeClassSpec,
        now: Timestamp,
    ) -> Result<Vec<CapacityReservation>, CloudError> {
        let terms = &spec.capacity_reservation_selector_terms;
        let read = terms.iter().map(|term| self.describe_reservations(term));
        let mut found: Vec<Found> =
            futures::future::try_join_all(read).await?.into_iter().flatten().collect();
        found.sort_by(|a, b| a.capacity_reservation_id().cmp(&b.capacity_reservation_id()));
        found.dedup_by(|a, b| a.capacity_reservation_id() == b.capacity_reservation_id());
        self.reservations.count(&found);
        Ok(found.iter().filter_map(|one| status(one, now)).collect())
    }

    async fn describe_reservations(
        &self,
        term: &CapacityReservationSelectorTerm,
    ) -> Result<Vec<Found>, CloudError> {
        let mut call = self.ec2.describe_capacity_reservations();
        if let Some(id) = &term.id {
            // EC2 takes no size of pages beside ids, and one id is one page.
            let answer = call.capacity_reservation_ids(id).send().await;
            return match answer {
                Ok(answer) => Ok(answer.capacity_reservations.unwrap_or_default()),
                // One that is gone selects nothing, as tags that match nothing do.
                Err(error) if code(&error) == NOT_FOUND => Ok(Vec::new()),
                Err(error) => Err(from_sdk(&error)),
            };
        }
        let mut filters = tag_filters(&term.tags);
        filters.push(filter("state", "active"));
        filters.extend(term.owner_id.as_deref().map(|owner| filter("owner-id", owner)));
        filters.extend(term.instance_match_criteria.map(|criteria| {
            let word = match criteria {
                InstanceMatchCriteria::Open => "open",
                InstanceMatchCriteria::Targeted => "targeted",
            };
            filter("instance-match-criteria", word)
        }));
        call = call.set_filters(Some(filters));
        let mut pages = call.into_paginator().page_size(1000).items().send();
        let mut all = Vec::new();
        while let Some(one) = pages.next().await {
            all.push(one.map_err(|error| from_sdk(&error))?);
        }
        Ok(all)
    }
}

fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

/// A reservation in the words of the class's status; `None` when it cannot be used.
fn status(found: &Found, now: Timestamp) -> Option<CapacityReservation> {
    if found.state().is_some_and(|state| *state != CapacityReservationState::Active) {
        return None;
    }
    let end = found.end_date().and_then(|end| Timestamp::from_second(end.secs()).ok());
    if end.is_some_and(|end| end <= now) {
        return None;
    }
    let block = found.reservation_type() == Some(&CapacityReservationType::CapacityBlock);
    let expiring = block && end.is_some_and(|end| end.duration_since(now) <= EXPIRING);
    Some(CapacityReservation {
        availability_zone: found.availability_zone()?.to_owned(),
        end_time: end.map(Time),
        id: found.capacity_reservation_id()?.to_owned(),
        instance_match_criteria: match found.instance_match_criteria() {
            Some(Match::Open) => InstanceMatchCriteria::Open,
            _ => InstanceMatchCriteria::Targeted,
        },
        instance_type: found.instance_type()?.to_owned(),
        owner_id: found.owner_id()?.to_owned(),
        reservation_type: if block {
            ReservationType::CapacityBlock
        } else {
            ReservationType::Default
        },
        interruptible: found.interruptible().filter(|interruptible| *interruptible),
        state: if expiring { ReservationState::Expiring } else { ReservationState::Active },
    })
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::DateTime;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn found(id: &str, kind: CapacityReservationType, end: Option<i64>) -> Found {
        Found::builder()
            .capacity_reservation_id(id)
            .owner_id("123456789012")
            .instance_type("p5.48xlarge")
            .availability_zone("us-west-2a")
            .available_instance_count(2)
            .state(CapacityReservationState::Active)
            .reservation_type(kind)
            .set_end_date(end.map(|end| DateTime::from_secs(at(end).as_second())))
            .build()
    }

    #[test]
    fn blocks_expire_before_they_end() {
        use CapacityReservationType::{CapacityBlock, Default as OnDemand};
        let state = |kind, end, now| status(&found("cr-1", kind, end), at(now)).map(|s| s.state);
        assert_eq!(state(CapacityBlock, Some(2_401), 0), Some(ReservationState::Active));
        assert_eq!(state(CapacityBlock, Some(2_400), 0), Some(ReservationState::Expiring));
        assert_eq!(state(CapacityBlock, Some(2_400), 2_400), None);
        assert_eq!(state(OnDemand, Some(60), 0), Some(ReservationState::Active));
        assert_eq!(state(OnDemand, None, 0), Some(ReservationState::Active));
    }

    #[test]
    fn launches_are_counted_until_ec2_is_asked_again() {
        let all = Reservations::default();
        let one = [found("cr-1", CapacityReservationType::Default, None)];
        assert_eq!(all.left("cr-1"), 0);
        all.count(&one);
        all.launched("cr-1", 1);
        assert_eq!(all.left("cr-1"), 1);
        all.launched("cr-1", 5);
        assert_eq!(all.left("cr-1"), 0);
        all.count(&one);
        assert_eq!(all.left("cr-1"), 2);
        all.exhaust("cr-1");
        assert_eq!(all.left("cr-1"), 0);
    }
}
