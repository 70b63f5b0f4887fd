//! The input of a solve.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::instance::{InstanceType, Reserved};
use crate::model::labels::Labels;
use crate::model::money::MicroDollarsPerHour;
use crate::model::pod::{HostPort, PodShape};
use crate::model::pool::Pool;
use crate::model::resources::Resources;
use crate::model::taints::Taint;
use crate::model::volume::Volumes;

/// Everything that a solve depends on. Lists are referred to by position.
#[derive(Clone, Debug, Default)]
pub struct Problem {
    /// Pods to place, folded by shape. The order does not matter.
    pub demands: Vec<Demand>,
    /// Nodes that exist or are on their way.
    pub nodes: Vec<NodeSlot>,
    /// Pools to buy from.
    pub pools: Vec<PoolSlot>,
    /// One pod of each DaemonSet; each new node that it may run on loses its request.
    pub daemons: Vec<Arc<PodShape>>,
    /// Labels of namespaces, for namespace selectors of inter-pod affinity.
    pub namespaces: BTreeMap<Arc<str>, Labels>,
    /// Claims that pods mount, volumes, classes, and what nodes can attach.
    pub volumes: Volumes,
    /// Instances that nodes on their way will take of capacity reservations, by id: they are
    /// not there any more.
    pub reserved: BTreeMap<Arc<str>, u32>,
    /// How to solve.
    pub options: Options,
}

impl Problem {
    /// Instances that a reservation has for new nodes.
    pub(super) fn reserved_left(&self, reserved: &Reserved) -> u32 {
        let held = self.reserved.get(&reserved.reservation.id).copied().unwrap_or(0);
        reserved.left.saturating_sub(held)
    }
}

/// Equal pods to place.
#[derive(Clone, Debug)]
pub struct Demand {
    /// Their shape.
    pub shape: Arc<PodShape>,
    /// How many.
    pub count: u32,
    /// Pods of one gang are placed wholly or not at all; demands with the same id form one.
    pub gang: Option<u32>,
}

/// A node that exists or is on its way.
#[derive(Clone, Debug, Default)]
pub struct NodeSlot {
    /// Name of the node, or of the claim while there is no node.
    pub name: Arc<str>,
    /// Labels that it has or will have.
    pub labels: Labels,
    /// Taints that pods must tolerate. Taints that go away while a node starts are left out for
    /// nodes that are not initialized.
    pub taints: Vec<Taint>,
    /// Room that is left: allocatable less the pods on it (or planned for it) and less the
    /// DaemonSets that have not arrived yet. May be negative.
    pub free: Resources,
    /// Pods on it or planned for it, seen by affinity and spread.
    pub pods: Vec<(Arc<PodShape>, u32)>,
    /// Host ports in use.
    pub host_ports: Vec<HostPort>,
    /// Position of its pool in [`Problem::pools`].
    pub pool: Option<usize>,
    /// Whether it takes pods at once; the others are on their way and are filled after these.
    pub initialized: bool,
}

/// A pool to buy from.
#[derive(Clone, Debug)]
pub struct PoolSlot {
    /// The pool.
    pub pool: Arc<Pool>,
    /// Instance types as the pool's class sees them. Types that the pool's requirements exclude
    /// may be in the list.
    pub types: Arc<[Arc<InstanceType>]>,
    /// What its limits leave, by resource name as in [`Pool::limits`]; `nodes` is exact.
    pub remaining: BTreeMap<Arc<str>, i64>,
    /// Price of a node's root and data volumes, added to each offering.
    pub volume_price: MicroDollarsPerHour,
}

/// How to solve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Units of improvement work after the first packing; 0 keeps the first packing. One unit is
    /// one ruin-and-recreate attempt, so that the result does not depend on the machine's speed.
    pub improve: u32,
    /// Seed of the improvement's choices.
    pub seed: u64,
    /// Whether preferences (preferred affinity, `ScheduleAnyway`) are tried before they are
    /// dropped.
    pub respect_preferences: bool,
    /// Most instance types that a new node lists as acceptable. EC2 takes 300 overrides per fleet;
    /// the field sends 60 types.
    pub max_types: usize,
    /// Whether to compute the lower bound (a linear program).
    pub bound: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { improve: 0, seed: 0, respect_preferences: true, max_types: 60, bound: false }
    }
}
