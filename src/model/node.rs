//! Nodes as the API server shows them.

use std::sync::Arc;

use super::labels::Labels;
use super::resources::Resources;
use super::taints::{Taint, TaintEffect};

/// Taint of a node that the provisioner has not registered yet.
pub const UNREGISTERED_TAINT: &str = "karpenter.sh/unregistered";
/// Taint of a node that is being ended.
pub const DISRUPTED_TAINT: &str = "karpenter.sh/disrupted";

/// A node of the cluster.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Node {
    /// Name.
    pub name: Arc<str>,
    /// UID.
    pub uid: Arc<str>,
    /// Provider's id of the machine, such as `aws:///us-west-2a/i-0123`; empty until known.
    pub provider_id: Arc<str>,
    /// Labels.
    pub labels: Labels,
    /// Annotations that start with `karpenter.sh/` or `harbinger.sh/`.
    pub annotations: Labels,
    /// Taints; `spec.unschedulable` appears as `node.kubernetes.io/unschedulable:NoSchedule`.
    pub taints: Vec<Taint>,
    /// All resources of the machine.
    pub capacity: Resources,
    /// Resources that pods may use.
    pub allocatable: Resources,
    /// Whether the `Ready` condition is true.
    pub ready: bool,
    /// When it was created, seconds since the epoch.
    pub created_at: i64,
    /// When its deletion was asked for, seconds since the epoch.
    pub deleted_at: Option<i64>,
    /// Finalizers.
    pub finalizers: Vec<Arc<str>>,
}

impl Node {
    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    /// Whether the claim's lifecycle marked the node initialized.
    pub fn initialized(&self) -> bool {
        self.label(super::labels::INITIALIZED) == Some("true")
    }

    /// Taints that a plan believes: all of them once it is `initialized`, before that those that stay.
    pub fn lasting_taints(&self, initialized: bool) -> Vec<Taint> {
        let lasting = |taint: &&Taint| initialized || !is_ephemeral(taint);
        self.taints.iter().filter(lasting).cloned().collect()
    }

    /// Whether it is not to be ended for the sake of order or price.
    pub fn do_not_disrupt(&self) -> bool {
        self.annotations.get(super::labels::DO_NOT_DISRUPT).is_some_and(|value| value == "true")
    }
}

/// Whether a taint goes away by itself while a node starts, so that planning ignores it on nodes
/// that are not initialized.
pub fn is_ephemeral(taint: &Taint) -> bool {
    match &*taint.key {
        "node.kubernetes.io/not-ready" => true,
        "node.kubernetes.io/unreachable" => taint.effect == TaintEffect::NoSchedule,
        "node.cloudprovider.kubernetes.io/uninitialized" => {
            taint.effect == TaintEffect::NoSchedule && taint.value == "true"
        }
        UNREGISTERED_TAINT => taint.effect == TaintEffect::NoExecute,
        key => key.starts_with("readiness.k8s.io/"),
    }
}
