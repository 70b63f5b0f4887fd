//! Questions that planners ask of a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::snapshot::Snapshot;
use crate::model::claim::{Claim, ClaimStage};
use crate::model::labels;
use crate::model::node::Node;
use crate::model::pod::{OwnerRef, Pod, PodShape};
use crate::model::resources::Resources;
use crate::model::taints::untolerated;
use crate::model::workload::{Workload, WorkloadKind};

impl Snapshot {
    /// Pods that hold room, by the node that they are bound to.
    pub fn pods_by_node(&self) -> BTreeMap<&str, Vec<&Arc<Pod>>> {
        let mut by_node: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
        for pod in self.pods.values().filter(|pod| !pod.terminal()) {
            if let Some(node) = &pod.node_name {
                by_node.entry(node).or_default().push(pod);
            }
        }
        by_node
    }

    /// The node of a claim: by name once it is registered, else by the provider's id.
    pub fn node_of(&self, claim: &Claim) -> Option<&Arc<Node>> {
        if !claim.node_name.is_empty() {
            return self.nodes.get(&claim.node_name);
        }
        if claim.provider_id.is_empty() {
            return None;
        }
        self.nodes.values().find(|node| node.provider_id == claim.provider_id)
    }

    /// Claims by the provider's id of their instance.
    pub fn claims_by_provider_id(&self) -> BTreeMap<&str, &Arc<Claim>> {
        self.claims
            .values()
            .filter(|claim| !claim.provider_id.is_empty())
            .map(|claim| (&*claim.provider_id, claim))
            .collect()
    }

    /// Whether no claim of a pod has a volume yet, so that its pods are as good as one another.
    pub fn binds_anywhere(&self, pod: &PodShape) -> bool {
        pod.claims.iter().all(|mounted| {
            let claim = self.volumes.claim(&pod.namespace, mounted);
            claim.is_none_or(|claim| claim.volume.is_none() && claim.selected_node.is_none())
        })
    }

    /// Volumes of the pods that a node has.
    fn volumes_on(&self, node: &str) -> BTreeSet<&str> {
        let pods = self.pods_by_node().remove(node).unwrap_or_default().into_iter();
        pods.flat_map(|pod| pod.shape.claims.iter().map(move |mounted| (pod, mounted)))
            .filter_map(|(pod, mounted)| self.volumes.claim(&pod.shape.namespace, mounted))
            .filter_map(|claim| claim.volume.as_deref())
            .collect()
    }

    /// Volumes that are attached to a node, or about to be, and that no pod there uses.
    pub fn attached(&self, node: &str) -> Vec<&str> {
        let all = self.volumes.attachments.values().filter(|attachment| &*attachment.node == node);
        let mut attached: Vec<&str> = all.map(|attachment| &*attachment.volume).collect();
        if !attached.is_empty() {
            let used = self.volumes_on(node);
            attached.retain(|volume| !used.contains(volume));
        }
        attached
    }

    /// Shapes of the DaemonSets.
    pub fn daemons(&self) -> Vec<Arc<PodShape>> {
        self.workloads
            .iter()
            .filter(|((kind, _), workload)| {
                *kind == WorkloadKind::DaemonSet && workload.deleted_at.is_none()
            })
            .map(|(_, workload)| Arc::clone(&workload.template))
            .collect()
    }

    /// The workload of a kind and name.
    pub fn workload(
        &self,
        kind: WorkloadKind,
        namespace: &Arc<str>,
        name: &Arc<str>,
    ) -> Option<&Arc<Workload>> {
        self.workloads.get(&(kind, (Arc::clone(namespace), Arc::clone(name))))
    }

    /// UID of the object at the top of a pod's owners that says how many pods there should be: the
    /// Deployment of a ReplicaSet, else the owner; the pod itself when nobody owns it.
    pub fn root_of(&self, pod: &Pod) -> Arc<str> {
        let Some(owner) = &pod.owner else { return Arc::clone(&pod.uid) };
        self.root_of_owner(&pod.shape.namespace, owner)
    }

    fn root_of_owner(&self, namespace: &Arc<str>, owner: &OwnerRef) -> Arc<str> {
        if &*owner.kind == "ReplicaSet"
            && let Some(set) = self.workload(WorkloadKind::ReplicaSet, namespace, &owner.name)
            && let Some(above) = &set.owner
            && &*above.kind == "Deployment"
        {
            return Arc::clone(&above.uid);
        }
        Arc::clone(&owner.uid)
    }

    /// What a pool's nodes use of its limits, in-flight claims included: capacity, and the count of
    /// nodes as `nodes`.
    pub fn pool_usage(&self, pool: &str) -> (Resources, i64) {
        let mut total = Resources::default();
        let mut nodes = 0;
        for claim in self.claims.values().filter(|claim| &*claim.pool == pool) {
            nodes += 1;
            let node = self.node_of(claim).filter(|node| !node.capacity.is_zero());
            total.add(node.map_or(&claim.capacity, |node| &node.capacity));
        }
        (total, nodes)
    }
}

/// Requests of the DaemonSets that belong on a node and have no pod there yet.
pub fn daemons_to_come(node: &Node, daemons: &[Arc<PodShape>], pods: &[&Arc<Pod>]) -> Resources {
    let mut to_come = Resources::default();
    for daemon in daemons {
        let fits = untolerated(&node.taints, &daemon.tolerations).is_none()
            && daemon.node_alternatives().iter().any(|wanted| wanted.met_by(&node.labels));
        if fits {
            to_come.add(&daemon.requests);
        }
    }
    for pod in pods.iter().filter(|pod| pod.of_daemon_set()) {
        to_come.sub(&pod.shape.requests);
    }
    to_come.clamp_to_zero();
    to_come
}

/// The node that a claim will have, as far as the claim tells: planning treats it like a node.
pub fn expected_node(claim: &Claim) -> Node {
    let mut node_labels = claim.labels.clone();
    for (key, requirement) in claim.requirements.iter() {
        if let Some(value) = requirement.single() {
            node_labels.entry(key.to_string()).or_insert_with(|| value.to_string());
        }
    }
    node_labels.insert(labels::REGISTERED.to_owned(), "true".to_owned());
    node_labels.insert(labels::INITIALIZED.to_owned(), "true".to_owned());
    Node {
        name: Arc::clone(&claim.name),
        provider_id: Arc::clone(&claim.provider_id),
        labels: node_labels,
        taints: claim.taints.clone(),
        capacity: claim.capacity.clone(),
        allocatable: claim.allocatable.clone(),
        created_at: claim.created_at,
        ..Node::default()
    }
}

/// Whether a claim's node takes pods.
pub fn open(claim: &Claim) -> bool {
    claim.stage == ClaimStage::Initialized
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::volume::{Attachment, MountedClaim, VolumeClaim};

    #[test]
    fn volumes_of_pods_that_stay_are_not_waited_for() {
        let mut snapshot = Snapshot::default();
        for (name, node, volume) in [("a", "n", "used"), ("b", "n", "left"), ("c", "m", "other")] {
            let attachment =
                Attachment { name: name.into(), node: node.into(), volume: volume.into() };
            Arc::make_mut(&mut snapshot.volumes.attachments)
                .insert(name.into(), Arc::new(attachment));
        }
        assert_eq!(snapshot.attached("n"), ["used", "left"]);
        let claim = VolumeClaim { volume: Some("used".into()), ..VolumeClaim::default() };
        Arc::make_mut(&mut snapshot.volumes.claims)
            .insert(("ns".into(), "data".into()), Arc::new(claim));
        let shape = PodShape {
            namespace: "ns".into(),
            claims: vec![MountedClaim::of("data")],
            ..PodShape::default()
        };
        let pod = Pod { node_name: Some("n".into()), shape: Arc::new(shape), ..Pod::default() };
        Arc::make_mut(&mut snapshot.pods).insert(("ns".into(), "p".into()), Arc::new(pod));
        assert_eq!(snapshot.attached("n"), ["left"]);
        assert!(snapshot.attached("none").is_empty());
    }
}
