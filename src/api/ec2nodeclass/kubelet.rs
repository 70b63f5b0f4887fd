//! The kubelet block of a class, read into the twelve fields that change what a node offers to pods.
//!
//! The API server takes any object here, so that a wrong block is a condition of the class and never an object
//! that cannot be read. What a field means for a node is decided where nodes are sized and configured.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// The twelve fields that the provider interprets, and the rest as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Kubelet {
    /// Addresses of the cluster's DNS.
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Vec<String>,
    /// How many pods fit, or an expression that computes it.
    pub max_pods: Option<MaxPods>,
    /// How many pods fit for each processor.
    pub pods_per_core: Option<i32>,
    /// Kept back for the system: an amount, or an expression.
    #[serde(deserialize_with = "texts")]
    pub system_reserved: BTreeMap<String, String>,
    /// Kept back for Kubernetes: an amount, or an expression.
    #[serde(deserialize_with = "texts")]
    pub kube_reserved: BTreeMap<String, String>,
    /// Pods are evicted at once below these.
    #[serde(deserialize_with = "texts")]
    pub eviction_hard: BTreeMap<String, String>,
    /// Pods are evicted after a grace below these.
    #[serde(deserialize_with = "texts")]
    pub eviction_soft: BTreeMap<String, String>,
    /// How long, in Go durations.
    pub eviction_soft_grace_period: BTreeMap<String, String>,
    /// Seconds that an evicted pod gets at most.
    pub eviction_max_pod_grace_period: Option<i32>,
    /// Percentage of the disk above which images are always collected.
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: Option<i32>,
    /// Percentage of the disk below which images are never collected.
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: Option<i32>,
    /// Whether processor limits are enforced.
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: Option<bool>,
    /// Fields that only the image's own configuration understands.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// How many pods fit on a node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum MaxPods {
    /// A number.
    Count(i32),
    /// A CEL expression over the instance type.
    Expression(String),
}

/// Amounts may be written without quotes.
fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(crate::api::common::resource_list(deserializer)?
        .into_iter()
        .map(|(key, amount)| (key, amount.0))
        .collect())
}

impl Kubelet {
    /// Reads the block of a class; the error names the field.
    pub fn read(
        block: &Map<String, Value>,
    ) -> Result<Self, serde_path_to_error::Error<serde_json::Error>> {
        serde_path_to_error::deserialize(Value::Object(block.clone()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Kubelet, String> {
        let Value::Object(block) = value else { panic!("the test gives an object") };
        Kubelet::read(&block).map_err(|e| e.path().to_string())
    }

    #[test]
    fn the_twelve_fields_are_read_and_the_rest_is_kept() {
        let block = json!({
            "clusterDNS": ["10.0.0.10"], "maxPods": "max_pods - 2", "cpuCFSQuota": true,
            "kubeReserved": {"cpu": 1, "memory": "100Mi"}, "topologyManagerPolicy": "restricted",
        });
        let kubelet = read(block).unwrap();
        assert_eq!(kubelet.max_pods, Some(MaxPods::Expression("max_pods - 2".into())));
        assert_eq!(kubelet.kube_reserved["cpu"], "1");
        assert_eq!(kubelet.rest["topologyManagerPolicy"], "restricted");
        assert_eq!(kubelet.cpu_cfs_quota, Some(true));
    }

    #[test]
    fn a_wrong_field_is_named() {
        assert_eq!(read(json!({"podsPerCore": "many"})), Err("podsPerCore".to_owned()));
    }
}
