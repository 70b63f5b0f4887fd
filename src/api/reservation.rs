//! `Reservation` (`harbinger.sh/v1alpha1`): one entry of the ledger of capacity that is kept for a workload.
//!
//! The provisioner writes it so that people can see it; nobody else needs to.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{ResourceList, resource_list, resource_list_schema};
use super::conditions::Condition;

/// What is kept, for whom, and until when.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "harbinger.sh",
    version = "v1alpha1",
    kind = "Reservation",
    plural = "reservations",
    namespaced,
    status = "ReservationStatus",
    derive = "PartialEq",
    category = "harbinger",
    doc = "A Reservation is capacity that is kept for the pods of one workload.",
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.owner.kind"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.owner.name"),
    printcolumn(name = "Tier", type_ = "string", json_path = ".spec.tier"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".spec.shape.count"),
    printcolumn(name = "CPU", type_ = "string", json_path = ".spec.shape.requests.cpu"),
    printcolumn(name = "Memory", type_ = "string", json_path = ".spec.shape.requests.memory"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.counts.ready"),
    printcolumn(name = "Bound", type_ = "integer", json_path = ".status.counts.consumed"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Due", type_ = "string", json_path = ".spec.due", priority = 1),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.expires", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason", priority = 1)
)]
pub struct ReservationSpec {
    /// The workload that the pods belong to.
    pub owner: ReservationOwner,
    /// The generation of the workload that was read.
    #[schemars(range(min = 0))]
    pub generation: i64,
    /// What the expectation rests on.
    pub tier: Tier,
    /// The pods that are expected.
    pub shape: ReservationShape,
    /// When the pods are expected. Unset means now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Time>,
    /// When the capacity is given up if no pod came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
}

/// The workload that a reservation is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservationOwner {
    /// API group and version.
    #[schemars(length(min = 1, max = 316))]
    pub api_version: String,
    /// Kind.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name, in the reservation's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Unique id; the same name created anew is another workload.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// What an expectation of pods rests on.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Tier {
    /// A workload was created or scaled; its pods follow at once.
    Intent,
    /// A schedule says when pods come.
    Dated,
    /// The workload's own past.
    Profile,
    /// The past of all pods of this shape.
    Headroom,
}

/// Pods that look alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservationShape {
    /// What one pod asks for, after policies.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "resource_list"
    )]
    #[schemars(schema_with = "resource_list_schema")]
    pub requests: ResourceList,
    /// How many pods.
    #[schemars(range(min = 0))]
    pub count: i64,
    /// Digest of everything that limits where the pods may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub placement_key: Option<String>,
}

/// Where a reservation is in its life.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum ReservationPhase {
    /// Admission saw the workload; the watch has not.
    #[default]
    Tentative,
    /// The workload exists.
    Confirmed,
    /// Nodes are on their way.
    Launching,
    /// The capacity is there.
    Ready,
    /// Pods use it.
    Consumed,
    /// All pods came, or the workload no longer needs it.
    Released,
    /// The pods did not come in time.
    Expired,
    /// A newer generation took its place.
    Superseded,
    /// A limit or the workload's rejection forbids it.
    Denied,
}

impl ReservationPhase {
    /// Whether nothing follows.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Released | Self::Expired | Self::Superseded | Self::Denied)
    }
}

/// What became of a reservation.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReservationStatus {
    /// Where it is in its life.
    #[serde(default)]
    pub phase: ReservationPhase,
    /// Why it is there, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// Its pods by how far they are.
    #[serde(default)]
    pub counts: ReservationCounts,
    /// The claims that were written for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub node_claims: Vec<String>,
    /// Confirmed, Ready and Consumed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Pods of a reservation by how far they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservationCounts {
    /// Fit on nodes that exist.
    #[serde(default)]
    pub on_existing: i64,
    /// Wait for nodes that start.
    #[serde(default)]
    pub launching: i64,
    /// Have a node that is ready.
    #[serde(default)]
    pub ready: i64,
    /// Are bound.
    #[serde(default)]
    pub consumed: i64,
    /// Fit nowhere.
    #[serde(default)]
    pub unschedulable: i64,
}
