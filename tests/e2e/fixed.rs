//! Pools that keep a fixed count of nodes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use testbed::poll;

use super::world::{DEADLINE, World};

const POOL: &str = "
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: fixed}
spec:
  replicas: 0
  limits: {nodes: 3}
  template:
    spec:
      nodeClassRef: {group: karpenter.k8s.aws, kind: EC2NodeClass, name: default}
      requirements:
        - {key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}
        - {key: node.kubernetes.io/instance-type, operator: In, values: [c5.xlarge, m5.xlarge]}
";

/// Waits until the pool has so many nodes that are ready, no other, and says so.
async fn has(world: &World, count: usize) -> Result<Vec<String>> {
    let nodes = Api::<Node>::all(world.plane.client());
    let ours =
        ListParams::default().labels("karpenter.sh/nodepool=fixed,karpenter.sh/initialized=true");
    poll::until("the pool's nodes", DEADLINE, async || {
        let names: Vec<String> =
            nodes.list(&ours).await?.items.iter().map(ResourceExt::name_any).collect();
        ensure!(names.len() == count, "{names:?}, not {count}");
        let path = "jsonpath={.status.nodes}";
        let told = world.plane.kubectl(&["get", "nodepool", "fixed", "-o", path], "").await?;
        ensure!(told.trim() == count.to_string(), "the status says {told}");
        Ok(names)
    })
    .await
    .with_context(|| world.story())
}

async fn scale(world: &World, count: usize) -> Result<()> {
    let count = format!("--replicas={count}");
    world.plane.kubectl(&["scale", "nodepool/fixed", &count], "").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_keeps_the_count_that_it_is_scaled_to() -> Result<()> {
    let world = World::start(Duration::from_secs(1), &["--leader-elect=false"]).await?;
    world.apply(POOL).await?;
    let ready = ["wait", "--for=condition=Ready", "nodepool/fixed", "--timeout=60s"];
    world.plane.kubectl(&ready, "").await.with_context(|| world.story())?;
    has(&world, 0).await?;
    // More than the limit allows.
    scale(&world, 5).await?;
    has(&world, 3).await?;
    let bought = world.cloud.journal().of("CreateFleet").len();

    // Pods use what is there.
    let namespace = world.plane.namespace("fixed").await?;
    world.deploy(&namespace, "web", 1).await?;
    let pods = world.running(&namespace, 1).await?;
    let host = pods[0].spec.as_ref().and_then(|spec| spec.node_name.clone()).context("no node")?;
    ensure!(has(&world, 3).await?.contains(&host), "{host} is of another pool");
    ensure!(
        world.cloud.journal().of("CreateFleet").len() == bought,
        "a node was bought for the pod"
    );

    // Empty nodes go first, and the pod stays where it is.
    scale(&world, 1).await?;
    ensure!(has(&world, 1).await? == [host], "the node of the pod went");
    let after = world.running(&namespace, 1).await?;
    ensure!(after[0].uid() == pods[0].uid(), "the pod was moved");
    scale(&world, 0).await?;
    world.scale(&namespace, "web", 0).await?;
    has(&world, 0).await?;
    world.empty().await?;
    world.cloud.journal().ensure_sound()
}
