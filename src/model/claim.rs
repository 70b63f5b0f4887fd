//! Node claims: the durable record of a decision to have a node.

use std::sync::Arc;

use super::labels::Labels;
use super::pool::ClassRef;
use super::requirement::Requirements;
use super::resources::Resources;
use super::taints::Taint;

/// How far a claim has come. Each step implies the ones before it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ClaimStage {
    /// Written, but no instance is known.
    #[default]
    Pending,
    /// An instance runs.
    Launched,
    /// Its node joined the cluster and carries our labels and taints.
    Registered,
    /// Its node is ready and takes pods.
    Initialized,
}

/// A `NodeClaim`, compiled.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Claim {
    /// Name.
    pub name: Arc<str>,
    /// UID.
    pub uid: Arc<str>,
    /// Pool that it belongs to; empty for claims that users wrote.
    pub pool: Arc<str>,
    /// Class of the node.
    pub class: ClassRef,
    /// Labels of the claim, which the node will carry.
    pub labels: Labels,
    /// Annotations of the claim.
    pub annotations: Labels,
    /// What the node must meet; lists the acceptable instance types.
    pub requirements: Requirements,
    /// Requests of the pods that it was planned for, DaemonSets included.
    pub requests: Resources,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Startup taints.
    pub startup_taints: Vec<Taint>,
    /// How far it has come.
    pub stage: ClaimStage,
    /// Provider's id of the instance; empty until launched.
    pub provider_id: Arc<str>,
    /// Image that the instance was started from; empty until launched.
    pub image: Arc<str>,
    /// Name of the node; empty until registered.
    pub node_name: Arc<str>,
    /// Capacity that the cloud promised.
    pub capacity: Resources,
    /// Allocatable that the cloud promised.
    pub allocatable: Resources,
    /// When it was created, seconds since the epoch.
    pub created_at: i64,
    /// When the condition of the current stage last changed, seconds since the epoch.
    pub stage_at: i64,
    /// When its deletion was asked for, seconds since the epoch.
    pub deleted_at: Option<i64>,
    /// Last time a pod came to or left the node, seconds since the epoch.
    pub last_pod_event_at: Option<i64>,
    /// Whether its status says that the node may be consolidated.
    pub consolidatable: bool,
    /// Whether its status says that the node is as large as was promised; none where it says nothing.
    pub consistent: Option<bool>,
    /// Why its status says that it does not match what it was made from any more.
    pub drifted: Option<Arc<str>>,
    /// Age at which it is replaced, seconds; `None` means never.
    pub expire_after: Option<i64>,
    /// Longest drain, seconds; `None` means without end.
    pub termination_grace: Option<i64>,
    /// Finalizers.
    pub finalizers: Vec<Arc<str>>,
}

impl Claim {
    /// Value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    /// Whether deletion was asked for.
    pub fn deleting(&self) -> bool {
        self.deleted_at.is_some()
    }

    /// When its drain must be over, whatever stands in the way, seconds since the epoch.
    pub fn ends_by(&self) -> Option<i64> {
        Some(self.deleted_at?.saturating_add(self.termination_grace?))
    }
}
