//! The seam to the API server: what the loops write.

use std::future::Future;

use jiff::Timestamp;
use serde_json::Value;

use crate::api::conditions::ConditionStatus;
use crate::model::pod::Pod;
use crate::model::workload::Workload;

/// Why a write failed, named by what the caller does next.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApiError {
    /// The object is gone: go on without it.
    #[error("not found")]
    NotFound,
    /// The object changed meanwhile, or is there already: read it again.
    #[error("conflict: {0}")]
    Conflict(String),
    /// A disruption budget does not allow it now: try again later.
    #[error("blocked: {0}")]
    Blocked(String),
    /// Permission is missing: tell the user.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// The object is refused: tell the user.
    #[error("invalid: {0}")]
    Invalid(String),
    /// We may not lead any more: write nothing.
    #[error("leadership is not certain")]
    NotLeading,
    /// Anything else: try again later.
    #[error("{0}")]
    Transient(String),
}

/// A condition to set or to take away.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConditionUpdate {
    /// Type.
    pub condition: &'static str,
    /// Whether it holds; `None` takes the condition away.
    pub status: Option<ConditionStatus>,
    /// Machine-readable cause.
    pub reason: String,
    /// Cause for people.
    pub message: String,
}

impl ConditionUpdate {
    /// The condition holds.
    pub fn holds(condition: &'static str) -> Self {
        Self {
            condition,
            status: Some(ConditionStatus::True),
            reason: condition.to_owned(),
            message: String::new(),
        }
    }

    /// The condition does not hold.
    pub fn fails(condition: &'static str, reason: &str, message: &str) -> Self {
        let (reason, message) = (reason.to_owned(), message.to_owned());
        Self { condition, status: Some(ConditionStatus::False), reason, message }
    }

    /// It is not known yet whether the condition holds.
    pub fn unknown(condition: &'static str, reason: &str, message: &str) -> Self {
        let (reason, message) = (reason.to_owned(), message.to_owned());
        Self { condition, status: Some(ConditionStatus::Unknown), reason, message }
    }

    /// There is nothing to say of the condition any more.
    pub fn gone(condition: &'static str) -> Self {
        Self { condition, status: None, reason: String::new(), message: String::new() }
    }
}

/// What is changed about a node. Lists are merged with what the node has by then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeChange {
    /// Labels and annotations to set.
    pub labels: Vec<(String, String)>,
    /// Annotations to set.
    pub annotations: Vec<(String, String)>,
    /// Taints to add, unless one of the same key and effect is there.
    pub add_taints: Vec<crate::model::taints::Taint>,
    /// Keys of taints to remove.
    pub remove_taints: Vec<String>,
    /// Finalizer to add.
    pub add_finalizer: Option<String>,
    /// Finalizer to remove.
    pub remove_finalizer: Option<String>,
    /// Owner to add: name and UID of a claim.
    pub owner: Option<(String, String)>,
}

/// What the containers of a pod use.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PodUsage {
    /// Namespace.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Containers by name, with millicores and bytes of the working set.
    pub containers: Vec<(String, i64, i64)>,
}

/// A part of what is known of a namespace's containers, as a `DemandProfile` holds it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Profile {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Containers in it.
    pub containers: usize,
    /// Their histories, in the form of the room `usage`.
    pub data: Vec<u8>,
}

/// Writes to the API server. Every write is refused when leadership is not certain.
pub trait ApiServer: Send + Sync + 'static {
    /// Creates a claim; returns its UID. A claim of that name that is there already is an error.
    fn create_claim(&self, claim: Value) -> impl Future<Output = Result<String, ApiError>> + Send;

    /// Merges `metadata` (labels, annotations) into a claim.
    fn patch_claim(
        &self,
        name: &str,
        patch: Value,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Merges `status` into a claim's status and sets conditions, the root condition included.
    fn update_claim_status(
        &self,
        name: &str,
        status: Value,
        conditions: &[ConditionUpdate],
        now: Timestamp,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Asks for a claim's deletion.
    fn delete_claim(
        &self,
        name: &str,
        uid: &str,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Takes our finalizer off a claim.
    fn finish_claim(&self, name: &str) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Changes a node.
    fn change_node(
        &self,
        name: &str,
        change: &NodeChange,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Asks for a node's deletion.
    fn delete_node(&self, name: &str) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Evicts a pod; [`ApiError::Blocked`] when a budget holds it. A pod that is gone is evicted.
    fn evict(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Deletes a pod with a grace period in seconds, past every budget.
    fn delete_pod(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        grace: i64,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Nominates a pod to a node.
    fn nominate(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        node: &str,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Merges into a pool's status and sets conditions.
    fn update_pool_status(
        &self,
        name: &str,
        status: Value,
        conditions: &[ConditionUpdate],
        now: Timestamp,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Sets conditions of an overlay, the root condition included.
    fn update_overlay_status(
        &self,
        name: &str,
        conditions: &[ConditionUpdate],
        now: Timestamp,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Puts our finalizer on a class, or takes it off.
    fn hold_class(
        &self,
        name: &str,
        hold: bool,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Merges into a class's status.
    fn patch_class_status(
        &self,
        name: &str,
        status: Value,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Namespaces and names of all Reservations.
    fn reservations(&self) -> impl Future<Output = Result<Vec<(String, String)>, ApiError>> + Send;

    /// Creates a Reservation; one of that name that is there already is an error.
    fn create_reservation(
        &self,
        reservation: Value,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Merges into a Reservation's status.
    fn update_reservation(
        &self,
        namespace: &str,
        name: &str,
        status: Value,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Deletes a Reservation.
    fn delete_reservation(
        &self,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// What all pods use now, from `metrics.k8s.io`; [`ApiError::NotFound`] where nobody serves it.
    fn usage(&self) -> impl Future<Output = Result<Vec<PodUsage>, ApiError>> + Send;

    /// All profiles.
    fn profiles(&self) -> impl Future<Output = Result<Vec<Profile>, ApiError>> + Send;

    /// Writes a profile, whether or not it is there.
    fn write_profile(&self, profile: &Profile)
    -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Deletes a profile.
    fn delete_profile(
        &self,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Writes a Kubernetes Event about an object, best effort.
    fn event(&self, event: EventNote) -> impl Future<Output = ()> + Send;
}

/// The object that an Event is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct About {
    /// API version, such as `v1`.
    pub api_version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Namespace; empty for objects of the whole cluster.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

impl About {
    /// A pod.
    pub fn pod(pod: &Pod) -> Self {
        Self {
            api_version: "v1",
            kind: "Pod",
            namespace: pod.shape.namespace.to_string(),
            name: pod.name.to_string(),
            uid: pod.uid.to_string(),
        }
    }

    /// A node. `kubectl describe node` looks for Events whose UID is the node's name.
    pub fn node(name: &str) -> Self {
        Self {
            api_version: "v1",
            kind: "Node",
            namespace: String::new(),
            name: name.to_owned(),
            uid: name.to_owned(),
        }
    }

    /// A workload.
    pub fn workload(workload: &Workload) -> Self {
        Self {
            api_version: workload.kind.api_version(),
            kind: workload.kind.name(),
            namespace: workload.namespace.to_string(),
            name: workload.name.to_string(),
            uid: workload.uid.to_string(),
        }
    }

    /// A pool.
    pub fn pool(name: &str, uid: &str) -> Self {
        Self { kind: "NodePool", ..Self::claim(name, uid) }
    }

    /// A class.
    pub fn class(name: &str, uid: &str) -> Self {
        Self { api_version: "karpenter.k8s.aws/v1", kind: "EC2NodeClass", ..Self::claim(name, uid) }
    }

    /// A claim.
    pub fn claim(name: &str, uid: &str) -> Self {
        Self {
            api_version: "karpenter.sh/v1",
            kind: "NodeClaim",
            namespace: String::new(),
            name: name.to_owned(),
            uid: uid.to_owned(),
        }
    }
}

/// A Kubernetes Event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EventNote {
    /// The object.
    pub about: About,
    /// Whether it is a warning.
    pub warning: bool,
    /// Reason, such as `FailedScheduling`.
    pub reason: &'static str,
    /// Message.
    pub message: String,
    /// When.
    pub at: Timestamp,
}
