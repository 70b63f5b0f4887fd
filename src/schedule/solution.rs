//! The output of a solve.

use super::reason::Reasons;
use crate::model::money::MicroDollarsPerHour;
use crate::model::requirement::Requirements;
use crate::model::resources::Resources;

/// Where the demand goes. Each pod of each demand is in exactly one of the three lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Solution {
    /// Pods on nodes that exist or are on their way.
    pub placements: Vec<Placement>,
    /// Nodes to buy, with their pods.
    pub new_nodes: Vec<NewNode>,
    /// Pods that fit nowhere, with the reasons.
    pub unplaced: Vec<Unplaced>,
    /// Preferences that were given up so that pods have a place.
    pub relaxed: Vec<Relaxed>,
    /// Price of the new nodes with their volumes.
    pub cost: MicroDollarsPerHour,
    /// A price that no solution over the same domains of required spreads can undercut, where
    /// [`Options::bound`](super::Options) asked.
    pub lower_bound: Option<MicroDollarsPerHour>,
}

/// Pods of one demand on one existing node.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Placement {
    /// Position in [`Problem::nodes`](super::Problem::nodes).
    pub node: usize,
    /// Position in [`Problem::demands`](super::Problem::demands).
    pub demand: usize,
    /// How many.
    pub count: u32,
}

/// A node to buy.
#[derive(Clone, Debug, PartialEq)]
pub struct NewNode {
    /// Position in [`Problem::pools`](super::Problem::pools).
    pub pool: usize,
    /// What to buy.
    pub choice: OfferingRef,
    /// Price of the choice with volumes.
    pub price: MicroDollarsPerHour,
    /// Offerings that would hold the same pods as well, cheapest first, the choice among them.
    pub acceptable: Vec<OfferingRef>,
    /// Requirements of its claim: the pool's and those of all its pods, with zone, capacity type
    /// and instance types as far as they are decided.
    pub requirements: Requirements,
    /// Pods: `(position in demands, count)`.
    pub pods: Vec<(usize, u32)>,
    /// Requests of the pods and the DaemonSets.
    pub requested: Resources,
}

/// One offering of one type of the node's pool.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct OfferingRef {
    /// Position in [`PoolSlot::types`](super::PoolSlot::types).
    pub type_index: usize,
    /// Position in the type's offerings.
    pub offering_index: usize,
}

/// Pods that fit nowhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Unplaced {
    /// Position in [`Problem::demands`](super::Problem::demands).
    pub demand: usize,
    /// How many.
    pub count: u32,
    /// Why.
    pub reasons: Reasons,
}

/// Pods of one demand for which a preference was given up.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Relaxed {
    /// Position in [`Problem::demands`](super::Problem::demands).
    pub demand: usize,
    /// How many.
    pub count: u32,
    /// What was given up.
    pub preference: Preference,
}

/// One preference of a pod.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Preference {
    /// Preferred pod affinity: position in
    /// [`PodShape::preferred_pod_terms`](crate::model::pod::PodShape::preferred_pod_terms).
    PodAffinity(usize),
    /// Preferred pod anti-affinity, position as above.
    PodAntiAffinity(usize),
    /// Preferred node affinity: position in
    /// [`PodShape::preferred_node_terms`](crate::model::pod::PodShape::preferred_node_terms).
    NodeAffinity(usize),
    /// Spread with `ScheduleAnyway`: position in
    /// [`PodShape::spread`](crate::model::pod::PodShape::spread).
    Spread(usize),
    /// Taints of effect `PreferNoSchedule`.
    Taints,
}
