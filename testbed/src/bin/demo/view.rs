//! What there is to see at one moment.

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};
use testbed::cloud::{Cloud, Pool};

/// Counts, and one row per claim.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct View {
    pub pending: usize,
    pub running: usize,
    pub claims: usize,
    pub nodes: usize,
    pub ready: usize,
    pub instances: usize,
    /// Micro-dollars per hour.
    pub price: u64,
    pub rows: Vec<String>,
}

impl View {
    pub(crate) async fn look(client: &Client, cloud: &Cloud, namespace: &str) -> Result<Self> {
        let everything = ListParams::default();
        let pods = Api::<Pod>::namespaced(client.clone(), namespace).list(&everything).await?.items;
        let ours = ListParams::default().labels("karpenter.sh/nodepool");
        let nodes = Api::<Node>::all(client.clone()).list(&ours).await?.items;
        let kind = GroupVersionKind::gvk("karpenter.sh", "v1", "NodeClaim");
        let resource = ApiResource::from_gvk(&kind);
        let claims = Api::<DynamicObject>::all_with(client.clone(), &resource);
        let mut claims = claims.list(&everything).await?.items;
        claims.sort_by_key(|claim| (claim.creation_timestamp(), claim.name_any()));
        let instances = cloud.instances().await?;
        let price = {
            let market = cloud.market();
            let price = |instance: &testbed::cloud::Instance| {
                let kind = instance.capacity_type;
                market.price(&Pool::new(&instance.instance_type, &instance.zone, kind))
            };
            instances.iter().filter_map(price).sum()
        };
        let phase = |pod: &Pod, wanted: &str| {
            pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(wanted)
        };
        Ok(Self {
            pending: pods.iter().filter(|pod| phase(pod, "Pending")).count(),
            running: pods.iter().filter(|pod| phase(pod, "Running")).count(),
            claims: claims.len(),
            nodes: nodes.len(),
            ready: nodes.iter().filter(|node| is_ready(node)).count(),
            instances: instances.len(),
            price,
            rows: claims.iter().map(|claim| row(claim, &pods)).collect(),
        })
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| one.type_ == "Ready" && one.status == "True")
}

fn row(claim: &DynamicObject, pods: &[Pod]) -> String {
    let label = |key: &str| claim.labels().get(key).map_or("-", String::as_str);
    let node = claim.data["status"]["nodeName"].as_str().unwrap_or_default();
    let on_node = |pod: &&Pod| pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node);
    let pods = pods.iter().filter(on_node).count();
    format!(
        "  {:<16} {:<14} {:<11} {:<10} {:<12} {}",
        claim.name_any(),
        label("node.kubernetes.io/instance-type"),
        label("topology.kubernetes.io/zone"),
        label("karpenter.sh/capacity-type"),
        step(claim),
        if node.is_empty() { String::new() } else { format!("{pods} pods") },
    )
}

/// How far a claim has come.
fn step(claim: &DynamicObject) -> &'static str {
    if claim.metadata.deletion_timestamp.is_some() {
        return "Terminating";
    }
    let conditions = claim.data["status"]["conditions"].as_array();
    let holds = |name: &str| {
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|one| one["type"] == name && one["status"] == "True")
    };
    ["Initialized", "Registered", "Launched"]
        .into_iter()
        .find(|step| holds(step))
        .unwrap_or("Planned")
}
