//! `harbinger.sh/v1alpha1` Reservation: the ledger of announced demand, visible to users.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::Condition;
use crate::model::quantity::Quantity;

/// Room that is kept for pods that were announced.
#[derive(Clone, CustomResource, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "harbinger.sh",
    version = "v1alpha1",
    kind = "Reservation",
    plural = "reservations",
    shortname = "rsv",
    category = "harbinger",
    namespaced,
    status = "ReservationStatus",
    derive = "PartialEq",
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.owner.name"),
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.owner.kind", priority = 1),
    printcolumn(name = "Tier", type_ = "string", json_path = ".spec.tier"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".spec.count"),
    printcolumn(name = "Consumed", type_ = "integer", json_path = ".status.consumed"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ReservationSpec {
    /// Who announced the pods.
    pub owner: ReservationOwner,
    /// How certain the demand is.
    pub tier: Tier,
    /// Pods.
    #[schemars(range(min = 0))]
    pub count: i64,
    /// What one pod asks.
    #[serde(default)]
    pub requests: BTreeMap<String, Quantity>,
}

/// The object that announced pods.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReservationOwner {
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Generation of its spec.
    pub generation: i64,
}

/// How certain announced demand is.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum Tier {
    /// An admitted object asks for it now.
    Intent,
    /// It is due at a known date.
    Dated,
    /// Its owner's history says so.
    Owner,
    /// Headroom.
    Headroom,
}

/// State of a reservation.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum ReservationPhase {
    /// Seen at admission only.
    #[default]
    Tentative,
    /// The object exists.
    Confirmed,
    /// Nodes are being bought.
    Launching,
    /// Room is there.
    Ready,
    /// Some or all pods came.
    Consumed,
    /// Over.
    Released,
    /// The pods never came.
    Expired,
    /// A newer generation took its place.
    Superseded,
    /// No room can be had.
    Denied,
}

/// What became of a reservation.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReservationStatus {
    /// State.
    #[serde(default)]
    pub phase: ReservationPhase,
    /// Pods that came.
    #[serde(default)]
    pub consumed: i64,
    /// Claims that hold room for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_claims: Vec<String>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
