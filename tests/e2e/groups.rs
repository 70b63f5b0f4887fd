//! Pods of a `PodGroup`, which the kube-scheduler itself places together.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use testbed::plane::PlaneOptions;
use testbed::poll;

use super::world::{DEADLINE, World};

const GROUP: &str = "
apiVersion: scheduling.k8s.io/v1beta1
kind: PodGroup
metadata: {name: train}
spec: {schedulingPolicy: {gang: {minCount: 4}}}
";

const WORKERS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker}
spec:
  replicas: 3
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec:
      schedulingGroup: {podGroupName: train}
      containers:
        - {name: c, image: c, resources: {requests: {cpu: '3', memory: 4Gi}}}
";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_bought_for_a_part_of_a_group() -> Result<()> {
    let plane = PlaneOptions {
        feature_gates: "GenericWorkload=true".to_owned(),
        apiserver_flags: vec!["--runtime-config=scheduling.k8s.io/v1beta1=true".to_owned()],
        ..PlaneOptions::default()
    };
    let boot = Duration::from_secs(1);
    let world = World::start_on(plane, boot, &["--leader-elect=false"]).await?;
    let namespace = world.plane.namespace("groups").await?;
    let apply = ["apply", "-n", &namespace, "-f", "-"];
    let told = async |what: &str| {
        let events = Api::<Event>::namespaced(world.plane.client(), &namespace);
        poll::until(what, DEADLINE, async || {
            let list = events.list(&ListParams::default()).await?;
            let said = |event: &&Event| event.message.as_ref().is_some_and(|m| m.contains(what));
            list.items.iter().find(said).context("no such Event")?;
            Ok(())
        })
        .await
        .with_context(|| world.story())
    };
    world.plane.kubectl(&apply, WORKERS).await?;
    told("PodGroup train does not exist").await?;
    world.plane.kubectl(&apply, GROUP).await?;
    told("the gang waits for its pods: 3 of 4 are there").await?;
    ensure!(world.cloud.journal().of("CreateFleet").is_empty(), "a part was bought for");

    world.scale(&namespace, "worker", 4).await?;
    world.running(&namespace, 4).await?;
    // Further pods follow.
    world.scale(&namespace, "worker", 5).await?;
    world.running(&namespace, 5).await?;
    world.scale(&namespace, "worker", 0).await?;
    world.empty().await?;
    world.cloud.journal().ensure_sound()
}
