//! Instance types and the offerings in which they can be bought.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::labels;
use super::money::MicroDollarsPerHour;
use super::requirement::{Requirement, Requirements};
use super::resources::Resources;

/// How capacity is bought.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityType {
    /// Capacity that was reserved before; it costs nothing more.
    Reserved,
    /// Spare capacity that can be taken back.
    Spot,
    /// Capacity at list price.
    OnDemand,
}

impl CapacityType {
    /// The value of the `karpenter.sh/capacity-type` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Spot => "spot",
            Self::OnDemand => "on-demand",
        }
    }

    /// Reads the label's value.
    pub fn parse(label: &str) -> Option<Self> {
        [Self::Reserved, Self::Spot, Self::OnDemand].into_iter().find(|kind| kind.label() == label)
    }
}

impl fmt::Display for CapacityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Capacity of one type in one zone that somebody has reserved.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CapacityReservation {
    /// Id, such as `cr-0123`.
    pub id: Arc<str>,
    /// Whether it was bought as a block for a fixed time.
    pub block: bool,
    /// Whether it can be taken back.
    pub interruptible: bool,
}

/// A part of an offering that a reservation has set aside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reserved {
    /// The reservation.
    pub reservation: Arc<CapacityReservation>,
    /// Instances that it has left.
    pub left: u32,
}

/// One way to buy an instance type: a zone and a capacity type, and for reserved capacity the
/// reservation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Offering {
    /// Zone name.
    pub zone: Arc<str>,
    /// Capacity type.
    pub capacity_type: CapacityType,
    /// Price of the instance without its volumes.
    pub price: MicroDollarsPerHour,
    /// Whether it can be bought now (offered, priced, and not out of capacity of late).
    pub available: bool,
    /// Where the capacity was reserved.
    pub reserved: Option<Reserved>,
}

impl Offering {
    /// The value of a label of [`labels::OFFERED`] on nodes that are bought so.
    pub fn label(&self, key: &str) -> Option<&str> {
        let reservation = self.reserved.as_ref().map(|reserved| &*reserved.reservation);
        match key {
            labels::ZONE => Some(&self.zone),
            labels::CAPACITY_TYPE => Some(self.capacity_type.label()),
            labels::RESERVATION_ID => reservation.map(|of| &*of.id),
            labels::RESERVATION_TYPE => reservation.map(CapacityReservation::type_label),
            labels::RESERVATION_INTERRUPTIBLE => {
                reservation.map(|of| if of.interruptible { "true" } else { "false" })
            }
            _ => None,
        }
    }
}

/// What requirements ask of the labels that offerings decide, looked up once for many offerings.
#[derive(Clone, Debug)]
pub struct Asked<'r>(Vec<(&'static str, &'r Requirement)>);

impl<'r> Asked<'r> {
    /// The part of requirements that is about [`labels::OFFERED`].
    pub fn of(requirements: &'r Requirements) -> Self {
        let asked = labels::OFFERED.into_iter();
        Self(asked.filter_map(|key| Some((key, requirements.get(key)?))).collect())
    }

    /// Whether nodes that are bought so meet them.
    pub fn met_by(&self, offering: &Offering) -> bool {
        self.0.iter().all(|(key, wanted)| match offering.label(key) {
            Some(value) => wanted.allows(value),
            None => wanted.allows_absent(),
        })
    }
}

impl CapacityReservation {
    /// The value of the label that says how it was bought.
    pub fn type_label(&self) -> &'static str {
        if self.block { "capacity-block" } else { "default" }
    }
}

/// An instance type as one node class sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InstanceType {
    /// Name, such as `m7i.large`.
    pub name: Arc<str>,
    /// Labels that its nodes carry, as requirements; zone and capacity type list what offerings
    /// have. Every well-known key is defined (`DoesNotExist` where it has no value), except those of
    /// reservations where there are some.
    pub requirements: Requirements,
    /// All resources of the machine.
    pub capacity: Resources,
    /// What the system, the kubelet and the eviction threshold keep from pods.
    pub overhead: Resources,
    /// Volumes that its nodes can attach, by CSI driver; drivers without a limit are left out.
    pub attach_limits: Vec<(Arc<str>, i64)>,
    /// Ways to buy it.
    pub offerings: Vec<Offering>,
}

impl InstanceType {
    /// What pods may use: capacity less overhead, and hugepages taken out of memory.
    pub fn allocatable(&self) -> Resources {
        let mut allocatable = self.capacity.minus(&self.overhead);
        let hugepages: i64 = self
            .capacity
            .extended
            .iter()
            .filter(|(name, _)| name.starts_with("hugepages-"))
            .map(|(_, bytes)| *bytes)
            .sum();
        allocatable.memory -= hugepages;
        allocatable.clamp_to_zero();
        allocatable
    }

    /// Volumes of a CSI driver that a new node can attach; `None` is without limit.
    pub fn attach_limit(&self, driver: &str) -> Option<i64> {
        self.attach_limits.iter().find(|(name, _)| &**name == driver).map(|(_, limit)| *limit)
    }

    /// Whether the offering decides a label of its nodes, not the type.
    pub fn leaves_open(&self, key: &str) -> bool {
        matches!(key, labels::ZONE | labels::CAPACITY_TYPE)
            || (labels::OFFERED.contains(&key) && self.requirements.get(key).is_none())
    }

    /// Whether nodes of this type in a pool with these requirements can meet what is wanted, labels
    /// aside that the offering decides.
    pub fn meets(&self, pool: &Requirements, wanted: &Requirements) -> bool {
        wanted.iter().all(|(key, wanted)| {
            self.leaves_open(key) || label_meets(key, wanted, pool, &self.requirements)
        })
    }

    /// The cheapest available price.
    pub fn cheapest(&self) -> Option<MicroDollarsPerHour> {
        self.offerings.iter().filter(|offering| offering.available).map(|o| o.price).min()
    }
}

/// Whether nodes of a pool and of a type with these requirements can have a label as it is wanted. A
/// label that neither defines is absent.
pub fn label_meets(
    key: &str,
    wanted: &Requirement,
    pool: &Requirements,
    of_type: &Requirements,
) -> bool {
    match (pool.get(key), of_type.get(key)) {
        (Some(pool), Some(own)) => pool.intersect(own).intersects(wanted),
        (Some(found), None) | (None, Some(found)) => found.intersects(wanted),
        (None, None) => initial_label(key).map_or(wanted.allows_absent(), |v| wanted.allows(v)),
    }
}

/// Labels that every node of ours gets, whatever its pool.
fn initial_label(key: &str) -> Option<&'static str> {
    matches!(key, labels::REGISTERED | labels::INITIALIZED).then_some("true")
}
