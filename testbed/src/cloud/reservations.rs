//! Capacity reservations, which moto does not know: what there is, and who draws on it.

use std::collections::BTreeMap;

use super::call::Call;
use super::xml::{write_element, write_text};
use crate::http::Reply;

/// The account that owns all reservations.
const OWNER: &str = "123456789012";
/// Where a launch template names its reservation.
const TARGET: &str = "LaunchTemplateData.CapacityReservationSpecification.CapacityReservationTarget\
                      .CapacityReservationId";

/// Capacity of one type in one zone that is set aside for who names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reservation {
    pub instance_type: String,
    pub zone: String,
    /// Instances that are left.
    pub left: u32,
    pub tags: BTreeMap<String, String>,
}

/// All reservations of an account.
#[derive(Debug, Default)]
pub struct Reservations {
    by_id: BTreeMap<String, Reservation>,
    /// The reservation that a launch template names, by the template's name.
    named: BTreeMap<String, String>,
    /// Which instance uses which.
    used: BTreeMap<String, String>,
}

impl Reservations {
    /// Adds or replaces a reservation.
    pub fn set(&mut self, id: &str, reservation: Reservation) {
        self.by_id.insert(id.to_owned(), reservation);
    }

    /// Instances that a reservation has left.
    pub fn left(&self, id: &str) -> u32 {
        self.by_id.get(id).map_or(0, |reservation| reservation.left)
    }

    /// Remembers which reservation a new launch template names.
    pub(super) fn note(&mut self, call: &Call) {
        let id = call.param(TARGET);
        if call.action == "CreateLaunchTemplate" && !id.is_empty() {
            self.named.insert(call.param("LaunchTemplateName").to_owned(), id.to_owned());
        }
    }

    /// The reservation that instances of a launch template use.
    pub(super) fn of_template(&self, name: &str) -> Option<&str> {
        self.named.get(name).map(String::as_str)
    }

    /// Takes up to `wanted` instances before they are launched; none for another type or zone.
    pub(super) fn draw(&mut self, id: &str, kind: &str, zone: &str, wanted: u32) -> u32 {
        let fits = |r: &&mut Reservation| r.instance_type == kind && r.zone == zone;
        let Some(reservation) = self.by_id.get_mut(id).filter(fits) else { return 0 };
        let granted = wanted.min(reservation.left);
        reservation.left -= granted;
        granted
    }

    /// Puts instances back that were not launched.
    pub(super) fn refund(&mut self, id: &str, count: u32) {
        if let Some(reservation) = self.by_id.get_mut(id) {
            reservation.left += count;
        }
    }

    /// Remembers who uses a reservation.
    pub(super) fn launched(&mut self, id: &str, instances: &[String]) {
        self.used.extend(instances.iter().map(|instance| (instance.clone(), id.to_owned())));
    }

    /// An instance ended.
    pub(super) fn give_back(&mut self, instance: &str) {
        if let Some(id) = self.used.remove(instance) {
            self.refund(&id, 1);
        }
    }

    /// Answers `DescribeCapacityReservations`: by ids, or by tags.
    pub(super) fn describe(&self, call: &Call) -> Reply {
        let ids = call.list("CapacityReservationId");
        let unknown = |filter: &str, value: &str| {
            let values = call.filter(filter);
            !values.is_empty() && !values.contains(&value)
        };
        let tagged = |reservation: &Reservation| {
            let keys = call.params.iter().filter(|(name, _)| name.ends_with(".Name"));
            let mut tags = keys.filter_map(|(_, filter)| filter.strip_prefix("tag:"));
            tags.all(|key| {
                let value = reservation.tags.get(key).map(String::as_str).unwrap_or_default();
                !unknown(&format!("tag:{key}"), value)
            })
        };
        let rows = self.by_id.iter().filter(|(id, reservation)| {
            (ids.is_empty() || ids.contains(&id.as_str()))
                && !unknown("state", "active")
                && !unknown("owner-id", OWNER)
                && !unknown("instance-match-criteria", "targeted")
                && tagged(reservation)
        });
        let mut out = String::new();
        write_element(&mut out, "DescribeCapacityReservationsResponse", |out| {
            write_element(out, "capacityReservationSet", |out| {
                for (id, reservation) in rows {
                    write_element(out, "item", |out| {
                        write_text(out, "capacityReservationId", id);
                        write_text(out, "ownerId", OWNER);
                        write_text(out, "instanceType", &reservation.instance_type);
                        write_text(out, "availabilityZone", &reservation.zone);
                        write_text(out, "availableInstanceCount", &reservation.left.to_string());
                        write_text(out, "state", "active");
                        write_text(out, "instanceMatchCriteria", "targeted");
                        write_text(out, "reservationType", "default");
                    });
                }
            });
        });
        Reply::new(200, "text/xml", out)
    }
}
