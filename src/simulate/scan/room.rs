//! What a scan counts: workloads and bare pods, and the nodes that exist.

use std::collections::{BTreeMap, BTreeSet};

use crate::advice::{FleetNode, price_of};
use crate::model::labels;
use crate::model::money::MicroDollarsPerHour;
use crate::model::pod::PodPhase;
use crate::model::resources::Resources;
use crate::model::wire::pod::PodStatusWire;
use crate::schedule::PoolSlot;
use crate::simulate::input::Input;

/// The nodes that exist, and what each DaemonSet (by namespace and name) takes on them already, by
/// position.
#[derive(Default)]
pub(super) struct Fleet {
    pub(super) nodes: Vec<FleetNode>,
    taken: BTreeMap<(String, String), Vec<(usize, Resources)>>,
}

impl Fleet {
    /// The nodes without the pods that a DaemonSet has there: one that runs needs no second place.
    pub(super) fn without(&self, namespace: &str, daemon_set: &str) -> Vec<FleetNode> {
        let mut nodes = self.nodes.clone();
        let taken = self.taken.get(&(namespace.to_owned(), daemon_set.to_owned()));
        for (at, requests) in taken.into_iter().flatten() {
            nodes[*at].free.add(requests);
        }
        nodes
    }
}

/// The nodes that exist, with what is free on them and what they cost.
pub(super) fn fleet(input: &Input, pools: &[PoolSlot]) -> Fleet {
    let places: BTreeMap<&str, usize> =
        input.nodes.iter().enumerate().map(|(at, node)| (node.metadata.name(), at)).collect();
    let mut used: BTreeMap<&str, Resources> = BTreeMap::new();
    let mut taken: BTreeMap<(String, String), Vec<(usize, Resources)>> = BTreeMap::new();
    for pod in &input.pods {
        let over = matches!(pod.status.phase, PodPhase::Succeeded | PodPhase::Failed);
        if let Some(node) = pod.spec.node_name.as_deref().filter(|_| !over) {
            let requests = pod.shape().requests;
            used.entry(node).or_default().add(&requests);
            let owner = pod.metadata.controller().filter(|owner| &*owner.kind == "DaemonSet");
            if let Some((owner, at)) = owner.zip(places.get(node)) {
                let key = (pod.metadata.namespace().to_owned(), owner.name.to_string());
                taken.entry(key).or_default().push((*at, requests));
            }
        }
    }
    let node = |node: &crate::model::wire::node::NodeWire| {
        let node = node.to_node();
        let mut free = node.allocatable.clone();
        if let Some(used) = used.get(&*node.name) {
            free.sub(used);
        }
        let slot = node
            .label(labels::NODEPOOL)
            .and_then(|name| pools.iter().find(|slot| *slot.pool.name == *name));
        let price = slot.map_or(MicroDollarsPerHour::ZERO, |slot| {
            price_of(&node.labels, &slot.types, slot.volume_price)
        });
        FleetNode {
            labels: node.labels,
            taints: node.taints,
            allocatable: node.allocatable,
            free,
            price,
        }
    };
    Fleet { nodes: input.nodes.iter().map(node).collect(), taken }
}

/// Leaves what a scan counts: workloads that no other workload of the input makes, pods that none
/// makes, as if they were to be placed now, and no nodes.
pub(super) fn settle(input: &mut Input) {
    let listed: BTreeSet<(String, String, String)> = input
        .workloads
        .iter()
        .map(|(kind, workload)| {
            let meta = &workload.metadata;
            (kind.name().to_owned(), meta.namespace().to_owned(), meta.name().to_owned())
        })
        .collect();
    let made = |meta: &crate::model::wire::MetaWire| {
        meta.controller().is_some_and(|owner| {
            let key = (owner.kind.to_string(), meta.namespace().to_owned(), owner.name.to_string());
            // Node owns its static pods, which nothing can place.
            &*owner.kind == "Node" || listed.contains(&key)
        })
    };
    let dropped: BTreeSet<(String, String, String)> = input
        .workloads
        .iter()
        .filter(|(_, workload)| made(&workload.metadata))
        .map(|(kind, workload)| {
            let meta = &workload.metadata;
            (kind.name().to_owned(), meta.namespace().to_owned(), meta.name().to_owned())
        })
        .collect();
    input.pods.retain_mut(|pod| {
        let over = matches!(pod.status.phase, PodPhase::Succeeded | PodPhase::Failed);
        if over || pod.metadata.deletion_timestamp.is_some() || made(&pod.metadata) {
            return false;
        }
        pod.spec.node_name = None;
        pod.status = PodStatusWire::default();
        true
    });
    input.workloads.retain(|(kind, workload)| {
        let meta = &workload.metadata;
        let key = (kind.name().to_owned(), meta.namespace().to_owned(), meta.name().to_owned());
        !dropped.contains(&key)
    });
    input.nodes.clear();
}
