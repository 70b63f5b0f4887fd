//! Labels, their well-known keys, and label selectors.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Zone of a node.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Region of a node.
pub const REGION: &str = "topology.kubernetes.io/region";
/// Host name of a node.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// Instance type of a node.
pub const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
/// CPU architecture of a node.
pub const ARCH: &str = "kubernetes.io/arch";
/// Operating system of a node.
pub const OS: &str = "kubernetes.io/os";
/// Build of Windows on a node.
pub const WINDOWS_BUILD: &str = "node.kubernetes.io/windows-build";
/// Pool that a node belongs to.
pub const NODEPOOL: &str = "karpenter.sh/nodepool";
/// How a node's capacity is bought: `on-demand`, `spot` or `reserved`.
pub const CAPACITY_TYPE: &str = "karpenter.sh/capacity-type";
/// Set on nodes whose claim is registered.
pub const REGISTERED: &str = "karpenter.sh/registered";
/// Set on nodes whose claim is initialized.
pub const INITIALIZED: &str = "karpenter.sh/initialized";
/// Set on nodes that register with all of their taints: nobody adds them again.
pub const DO_NOT_SYNC_TAINTS: &str = "karpenter.sh/do-not-sync-taints";
/// Annotation of pods and nodes that are to be left alone.
pub const DO_NOT_DISRUPT: &str = "karpenter.sh/do-not-disrupt";
/// Domain of the labels that EC2 instance types carry.
pub const AWS_DOMAIN: &str = "karpenter.k8s.aws/";
/// Id of the capacity reservation that a node uses.
pub const RESERVATION_ID: &str = "karpenter.k8s.aws/capacity-reservation-id";
/// How that reservation was bought: `default` or `capacity-block`.
pub const RESERVATION_TYPE: &str = "karpenter.k8s.aws/capacity-reservation-type";
/// Whether that reservation can be taken back: `true` or `false`.
pub const RESERVATION_INTERRUPTIBLE: &str = "karpenter.k8s.aws/capacity-reservation-interruptible";
/// Id of the placement group that a node is in.
pub const PLACEMENT_GROUP_ID: &str = "karpenter.k8s.aws/placement-group-id";
/// The partition of it, from 1.
pub const PLACEMENT_GROUP_PARTITION: &str = "karpenter.k8s.aws/placement-group-partition";
/// Labels that depend on how a node is bought, whatever its type.
pub const OFFERED: [&str; 5] =
    [ZONE, CAPACITY_TYPE, RESERVATION_ID, RESERVATION_TYPE, RESERVATION_INTERRUPTIBLE];
/// Zone id of a node (the same for all accounts, unlike the zone's name).
pub const ZONE_ID: &str = "topology.k8s.aws/zone-id";

/// The key in use today for an old or storage-specific spelling of the same label.
pub fn normalize_key(key: &str) -> &str {
    match key {
        "failure-domain.beta.kubernetes.io/zone" | "topology.ebs.csi.aws.com/zone" => ZONE,
        "failure-domain.beta.kubernetes.io/region" => REGION,
        "beta.kubernetes.io/arch" => ARCH,
        "beta.kubernetes.io/os" => OS,
        "beta.kubernetes.io/instance-type" => INSTANCE_TYPE,
        _ => key,
    }
}

/// Whether instance types or offerings define the key, so that a pool template that does not name
/// it may still take any of the types' values.
pub fn is_well_known(key: &str) -> bool {
    matches!(
        key,
        ZONE | REGION
            | INSTANCE_TYPE
            | ARCH
            | OS
            | WINDOWS_BUILD
            | NODEPOOL
            | CAPACITY_TYPE
            | ZONE_ID
    ) || key.starts_with(AWS_DOMAIN)
}

/// A `metav1.LabelSelector`, compiled.
///
/// An absent selector selects nothing and an empty one everything, as in Kubernetes; the former is
/// an `Option` at the place of use.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that must be equal.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: Labels,
    /// Expressions that must all hold; `In`, `NotIn`, `Exists` and `DoesNotExist` only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<super::requirement::Expression>,
}

impl LabelSelector {
    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        use super::requirement::Operator;
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|expression| {
                let value = labels.get(&expression.key);
                match expression.operator {
                    Operator::In => value.is_some_and(|value| expression.values.contains(value)),
                    Operator::NotIn => value.is_none_or(|value| !expression.values.contains(value)),
                    Operator::Exists => value.is_some(),
                    Operator::DoesNotExist => value.is_none(),
                    // The API server refuses bounds in label selectors.
                    Operator::Gt | Operator::Lt | Operator::Gte | Operator::Lte => false,
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selects_as_kubernetes_does() {
        let labels = Labels::from([("app".into(), "web".into())]);
        let selector = |json: &str| serde_json::from_str::<LabelSelector>(json).unwrap();
        assert!(selector("{}").matches(&labels));
        assert!(selector(r#"{"matchLabels":{"app":"web"}}"#).matches(&labels));
        assert!(!selector(r#"{"matchLabels":{"app":"web","x":""}}"#).matches(&labels));
        let not_in = r#"{"matchExpressions":[{"key":"tier","operator":"NotIn","values":["db"]}]}"#;
        assert!(selector(not_in).matches(&labels));
    }
}
