//! `DemandProfile` (`harbinger.sh/v1alpha1`): what containers of a namespace used, as the provisioner's leader keeps it
//! over restarts and the webhook reads it.
//!
//! It stands in the namespace that it describes and goes with it. People have no use for its contents: names are
//! kept as hashes only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A part of what is known of a namespace's containers.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "harbinger.sh",
    version = "v1alpha1",
    kind = "DemandProfile",
    plural = "demandprofiles",
    namespaced,
    derive = "PartialEq",
    category = "harbinger",
    doc = "A DemandProfile holds what the containers of its namespace used. Harbinger writes it; deleting it forgets.",
    printcolumn(name = "Containers", type_ = "integer", json_path = ".spec.containers"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct DemandProfileSpec {
    /// How many containers of workloads it holds.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub containers: i64,
    /// Their histories in Harbinger's own form, as base64.
    #[schemars(length(max = 600_000))]
    pub data: String,
}

impl DemandProfileSpec {
    /// A part of so many containers.
    pub fn new(containers: usize, data: &[u8]) -> Self {
        Self {
            containers: i64::try_from(containers).unwrap_or(i64::MAX),
            data: STANDARD.encode(data),
        }
    }

    /// The histories; none where the text is no base64.
    pub fn bytes(&self) -> Vec<u8> {
        STANDARD.decode(&self.data).unwrap_or_default()
    }
}
