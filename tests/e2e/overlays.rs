//! Planning believes overlays, and says which it does not.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;

use super::world::World;

const OVERLAYS: &str = "
apiVersion: karpenter.sh/v1alpha1
kind: NodeOverlay
metadata: {name: rebate}
spec:
  requirements: [{key: node.kubernetes.io/instance-type, operator: In, values: [r5.2xlarge]}]
  price: '0.001'
---
apiVersion: karpenter.sh/v1alpha1
kind: NodeOverlay
metadata: {name: clash}
spec:
  requirements: [{key: karpenter.k8s.aws/instance-family, operator: In, values: [r5]}]
  priceAdjustment: +10%
";

#[tokio::test(flavor = "multi_thread")]
async fn an_overlaid_price_decides_what_is_bought() -> Result<()> {
    let world = World::start(Duration::from_secs(1), &["--leader-elect=false"]).await?;
    world.apply(OVERLAYS).await?;
    let wait = async |condition: &str, overlay: &str| {
        let overlay = format!("overlays/{overlay}");
        let condition = format!("--for=condition={condition}");
        let args = ["wait", &condition, &overlay, "--timeout=60s"];
        world.plane.kubectl(&args, "").await.with_context(|| world.story())
    };
    wait("Ready", "rebate").await?;
    wait("ValidationSucceeded=false", "clash").await?;
    let path = "jsonpath={.status.conditions[?(@.type==\"ValidationSucceeded\")].reason}";
    let reason = world.plane.kubectl(&["get", "overlays", "clash", "-o", path], "").await?;
    ensure!(reason.trim() == "Conflict", "{reason}");

    let namespace = world.plane.namespace("overlays").await?;
    world.deploy(&namespace, "web", 1).await?;
    world.running(&namespace, 1).await?;
    let node = world.nodes().await?.pop().context("no node")?;
    let kind = node.labels().get("node.kubernetes.io/instance-type").cloned();
    ensure!(kind.as_deref() == Some("r5.2xlarge"), "{kind:?}");
    let path = "jsonpath={.items[*].metadata.annotations.karpenter\\.sh/price-overlay-applied}";
    let marked = world.plane.kubectl(&["get", "nodeclaims", "-o", path], "").await?;
    ensure!(marked.trim() == "true", "{marked}");
    let calls = world.cloud.journal().of("CreateFleet");
    let call = calls.first().context("no call")?;
    let strategy = call.params.get("OnDemandOptions.AllocationStrategy").map(String::as_str);
    ensure!(strategy == Some("prioritized"), "{strategy:?}");

    // Without its rival the other is believed.
    world.plane.kubectl(&["delete", "overlays/rebate"], "").await?;
    wait("Ready", "clash").await?;
    world.cloud.journal().ensure_sound()
}
