//! What the planners see.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::claim::Claim;
use crate::model::gang::PodGroups;
use crate::model::labels::Labels;
use crate::model::node::Node;
use crate::model::overlay::Overlay;
use crate::model::pod::Pod;
use crate::model::pool::Pool;
use crate::model::volume::Volumes;
use crate::model::workload::{Workload, WorkloadKind};

/// `(namespace, name)` of a namespaced object.
pub type ObjectKey = (Arc<str>, Arc<str>);

/// An immutable view of the cluster. Cloning costs a few reference counts.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows with every change.
    pub revision: u64,
    /// Whether every watch has delivered its first list.
    pub synced: bool,
    /// Pods by namespace and name.
    pub pods: Arc<BTreeMap<ObjectKey, Arc<Pod>>>,
    /// Nodes by name.
    pub nodes: Arc<BTreeMap<Arc<str>, Arc<Node>>>,
    /// Claims by name.
    pub claims: Arc<BTreeMap<Arc<str>, Arc<Claim>>>,
    /// Pools by name.
    pub pools: Arc<BTreeMap<Arc<str>, Arc<Pool>>>,
    /// Overlays by name.
    pub overlays: Arc<BTreeMap<Arc<str>, Arc<Overlay>>>,
    /// Groups of pods by namespace and name.
    pub pod_groups: Arc<PodGroups>,
    /// Workloads by kind, namespace and name.
    pub workloads: Arc<BTreeMap<(WorkloadKind, ObjectKey), Arc<Workload>>>,
    /// Labels of namespaces by name.
    pub namespaces: Arc<BTreeMap<Arc<str>, Labels>>,
    /// Claims of volumes, volumes, their classes, and what nodes can attach.
    pub volumes: Volumes,
}
