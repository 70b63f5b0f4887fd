//! What can be bought, and what is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::instance::{CapacityType, InstanceType};
use crate::model::labels::{self, Labels};
use crate::model::money::MicroDollarsPerHour;
use crate::model::pod::PodShape;
use crate::model::resources::Resources;
use crate::model::taints::{Taint, untolerated};
use crate::schedule::PoolSlot;

/// What can be bought.
#[derive(Clone, Debug, Default)]
pub struct Market {
    /// Pools with their types and prices.
    pub pools: Vec<PoolSlot>,
    /// One pod of each DaemonSet.
    pub daemons: Vec<Arc<PodShape>>,
    /// Labels of namespaces.
    pub namespaces: BTreeMap<Arc<str>, Labels>,
}

/// A node that exists.
#[derive(Clone, Debug, Default)]
pub struct FleetNode {
    /// Labels.
    pub labels: Labels,
    /// Taints.
    pub taints: Vec<Taint>,
    /// What pods may use.
    pub allocatable: Resources,
    /// What is left of it.
    pub free: Resources,
    /// Its price, 0 when it is not known.
    pub price: MicroDollarsPerHour,
}

impl FleetNode {
    /// Whether a pod of this shape may be here, were the node empty.
    pub(super) fn takes(&self, shape: &PodShape) -> bool {
        self.admits(shape) && shape.requests.fits(&self.allocatable)
    }

    /// Whether labels and taints let a pod of this shape in.
    pub(super) fn admits(&self, shape: &PodShape) -> bool {
        // Those of the node controllers (`not-ready`, `unschedulable`, pressure…) come and go.
        let lasts = |taint: &&Taint| !taint.key.starts_with("node.kubernetes.io/");
        let taints: Vec<Taint> = self.taints.iter().filter(lasts).cloned().collect();
        untolerated(&taints, &shape.tolerations).is_none()
            && shape.node_alternatives().iter().any(|wanted| wanted.met_by(&self.labels))
    }
}

/// The price of a node by its labels, volumes included; 0 when its type is not on offer.
pub fn price_of(
    node: &Labels,
    types: &[Arc<InstanceType>],
    volumes: MicroDollarsPerHour,
) -> MicroDollarsPerHour {
    let label = |key: &str| node.get(key).map(String::as_str).unwrap_or_default();
    let name = label(labels::INSTANCE_TYPE);
    let kind = CapacityType::parse(label(labels::CAPACITY_TYPE)).unwrap_or(CapacityType::OnDemand);
    let zone = label(labels::ZONE);
    let offers = types
        .iter()
        .filter(|instance| *instance.name == *name)
        .flat_map(|instance| &instance.offerings)
        .filter(|offering| offering.capacity_type == kind);
    // The very zone, or any where it is not known.
    let price = offers
        .min_by_key(|offering| (*offering.zone != *zone, offering.price))
        .map(|offering| offering.price + volumes);
    price.unwrap_or_default()
}
