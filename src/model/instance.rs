//! Instance types and the offerings in which they can be bought.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::money::MicroDollarsPerHour;
use super::requirement::Requirements;
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

/// One way to buy an instance type: a zone and a capacity type.
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
}

/// An instance type as one node class sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InstanceType {
    /// Name, such as `m7i.large`.
    pub name: Arc<str>,
    /// Labels that its nodes carry, as requirements; zone and capacity type list what offerings
    /// have. Every well-known key is defined (`DoesNotExist` where it has no value).
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

    /// The cheapest available price.
    pub fn cheapest(&self) -> Option<MicroDollarsPerHour> {
        self.offerings.iter().filter(|offering| offering.available).map(|o| o.price).min()
    }
}
