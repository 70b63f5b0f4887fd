//! Nodes on the wire.

use serde::{Deserialize, Serialize};

use super::pod::PodConditionWire;
use super::requests::ResourceList;
use super::{MetaWire, or_default};
use crate::model::node::Node;
use crate::model::resources::Resources;
use crate::model::taints::{Taint, TaintEffect};

/// A node as read from the API server or a file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeWire {
    /// Metadata.
    pub metadata: MetaWire,
    /// Spec.
    pub spec: NodeSpecWire,
    /// Status.
    pub status: NodeStatusWire,
}

/// What is read of a node's spec.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpecWire {
    /// Provider's id.
    #[serde(rename = "providerID")]
    pub provider_id: Option<String>,
    /// Taints.
    #[serde(deserialize_with = "or_default")]
    pub taints: Vec<Taint>,
    /// Whether it is cordoned.
    pub unschedulable: Option<bool>,
}

/// What is read of a node's status.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatusWire {
    /// All resources.
    #[serde(deserialize_with = "or_default")]
    pub capacity: ResourceList,
    /// Resources for pods.
    #[serde(deserialize_with = "or_default")]
    pub allocatable: ResourceList,
    /// Conditions.
    #[serde(deserialize_with = "or_default")]
    pub conditions: Vec<PodConditionWire>,
}

impl NodeWire {
    /// The node.
    pub fn to_node(&self) -> Node {
        let read = |list: &ResourceList| {
            Resources::from_quantities(list.iter().map(|(name, quantity)| (&**name, *quantity)))
        };
        let mut taints = self.spec.taints.clone();
        let cordon = Taint::new("node.kubernetes.io/unschedulable", TaintEffect::NoSchedule);
        if self.spec.unschedulable == Some(true) && !taints.contains(&cordon) {
            taints.push(cordon);
        }
        // The API server treats a missing allocatable as the capacity.
        let allocatable = if self.status.allocatable.is_empty() {
            &self.status.capacity
        } else {
            &self.status.allocatable
        };
        Node {
            name: self.metadata.name().into(),
            uid: self.metadata.uid.as_deref().unwrap_or_default().into(),
            provider_id: self.spec.provider_id.as_deref().unwrap_or_default().into(),
            labels: self.metadata.labels.clone(),
            annotations: self
                .metadata
                .annotations
                .iter()
                .filter(|(key, _)| {
                    key.starts_with("karpenter.sh/") || key.starts_with("harbinger.sh/")
                })
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            taints,
            capacity: read(&self.status.capacity),
            allocatable: read(allocatable),
            ready: self
                .status
                .conditions
                .iter()
                .any(|condition| condition.r#type == "Ready" && condition.status == "True"),
            created_at: self.metadata.created_at(),
            deleted_at: self.metadata.deleted_at(),
            finalizers: self.metadata.finalizers.iter().map(|name| (&**name).into()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cordon_is_a_taint() {
        let node: NodeWire = serde_json::from_str(
            r#"{"metadata":{"name":"n"},"spec":{"unschedulable":true,"providerID":"aws:///a/i-1"},
                "status":{"capacity":{"cpu":"4"},"conditions":[{"type":"Ready","status":"True"}]}}"#,
        )
        .unwrap();
        let node = node.to_node();
        assert!(node.ready);
        assert_eq!(node.taints.len(), 1);
        assert_eq!(node.allocatable.cpu, 4000);
        assert_eq!(&*node.provider_id, "aws:///a/i-1");
    }
}
