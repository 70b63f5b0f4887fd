//! The whole bed: a request for capacity becomes instances, instances become nodes, pods run on them,
//! and nodes go when their instances end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use base64::Engine;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use testbed::cloud::{BootOptions, BootPlan, Cloud, Moto};
use testbed::plane::{Plane, PlaneOptions};
use testbed::poll;

const DEADLINE: Duration = Duration::from_secs(20);
const USER_DATA: &str = r#"apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  kubelet:
    config:
      maxPods: 11
      registerWithTaints:
        - { key: karpenter.sh/unregistered, effect: NoExecute }
    flags:
      - --node-labels="karpenter.sh/nodepool=default"
"#;

async fn launch(cloud: &Cloud, count: u32) {
    let images = cloud.direct().query("ec2", "DescribeImages", &[]).await.unwrap();
    let image = images
        .items("imagesSet")
        .iter()
        .find(|image| image.text_at("name").contains("al2023-arm64-standard-1.37"))
        .unwrap();
    let user_data = base64::engine::general_purpose::STANDARD.encode(USER_DATA);
    let params = [
        ("LaunchTemplateName", "lt"),
        ("LaunchTemplateData.ImageId", image.text_at("imageId")),
        ("LaunchTemplateData.UserData", &user_data),
    ];
    cloud.direct().query("ec2", "CreateLaunchTemplate", &params).await.unwrap();
    let count = count.to_string();
    let params = [
        ("Type", "instant"),
        ("LaunchTemplateConfigs.1.LaunchTemplateSpecification.LaunchTemplateName", "lt"),
        ("LaunchTemplateConfigs.1.Overrides.1.InstanceType", "m7g.large"),
        ("LaunchTemplateConfigs.1.Overrides.1.SubnetId", &cloud.seed().subnets["us-west-2b"]),
        ("TargetCapacitySpecification.TotalTargetCapacity", &count),
        ("TargetCapacitySpecification.DefaultTargetCapacityType", "on-demand"),
    ];
    cloud.client().query("ec2", "CreateFleet", &params).await.unwrap();
}

#[tokio::test]
async fn instances_become_nodes_that_run_pods() -> Result<()> {
    // An emulator of its own, to see that it ends.
    let (plane, moto) = futures::join!(Plane::start(PlaneOptions::default()), Moto::start());
    let (plane, moto) = (plane?, Arc::new(moto?));
    let cloud = Cloud::start(Arc::clone(&moto), "c1").await?;
    // The third instance never comes up, as a broken machine does.
    let boot = BootPlan::after(Duration::from_millis(300), Duration::from_millis(300));
    let options = BootOptions {
        plan: Arc::new(move |number, _| if number == 2 { BootPlan::never() } else { boot }),
        removal: Some(Duration::from_millis(300)),
        ..BootOptions::after(Duration::ZERO, Duration::ZERO)
    };
    let boots = cloud.boot(plane.client(), options);

    let namespace = plane.namespace("web").await?;
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": 3,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{
                    "name": "web", "image": "web", "resources": { "requests": { "cpu": "900m" } },
                }] },
            },
        },
    }))?;
    Api::<Deployment>::namespaced(plane.client(), &namespace)
        .create(&PostParams::default(), &deployment)
        .await?;
    let launched = Instant::now();
    launch(&cloud, 3).await;

    let nodes = Api::<Node>::all(plane.client());
    let registered = poll::until("two nodes", DEADLINE, async || {
        let list = nodes.list(&ListParams::default()).await?;
        ensure!(list.items.len() == 2, "{} nodes", list.items.len());
        Ok(list.items)
    })
    .await?;
    assert!(launched.elapsed() >= Duration::from_millis(300));
    let first = &registered[0];
    let spec = first.spec.as_ref().unwrap();
    let labels = first.metadata.labels.as_ref().unwrap();
    assert_eq!(labels["karpenter.sh/nodepool"], "default");
    assert_eq!(labels["kubernetes.io/arch"], "arm64");
    assert_eq!(labels["topology.kubernetes.io/zone"], "us-west-2b");
    assert!(!labels["topology.k8s.aws/zone-id"].is_empty());
    assert!(spec.provider_id.as_ref().unwrap().starts_with("aws:///us-west-2b/i-"));
    assert!(spec.taints.iter().flatten().any(|taint| taint.key == "karpenter.sh/unregistered"));
    let allocatable = first.status.as_ref().unwrap().allocatable.as_ref().unwrap();
    assert_eq!(allocatable["pods"].0, "11");
    assert_eq!(allocatable["cpu"].0, "1930m");

    // Whoever runs the cluster lets pods in by taking the taint off.
    for node in &registered {
        let name = node.metadata.name.as_ref().unwrap();
        poll::until("ready", DEADLINE, async || {
            let node = nodes.get(name).await?;
            let conditions = node.status.unwrap_or_default().conditions.unwrap_or_default();
            ensure!(
                conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True"),
                "not ready"
            );
            Ok(())
        })
        .await?;
        let patch = json!({ "spec": { "taints": null } });
        nodes.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    }
    let pods = Api::<Pod>::namespaced(plane.client(), &namespace);
    poll::until("three running pods", DEADLINE, async || {
        let running = pods.list(&ListParams::default().fields("status.phase=Running")).await?;
        ensure!(running.items.len() == 3, "{} run", running.items.len());
        Ok(())
    })
    .await?;
    println!("launch to all pods running: {:?}", launched.elapsed());

    let ended = spec.provider_id.as_ref().unwrap().rsplit('/').next().unwrap().to_owned();
    cloud.client().query("ec2", "TerminateInstances", &[("InstanceId.1", &ended)]).await?;
    poll::until("one node", DEADLINE, async || {
        let left = nodes.list(&ListParams::default()).await?.items.len();
        ensure!(left == 1, "{left} nodes");
        Ok(())
    })
    .await?;
    assert_eq!(cloud.instances().await?.len(), 2);
    assert_eq!(boots.launches(), 3);
    assert!(boots.problems().is_empty(), "{:?}", boots.problems());
    cloud.journal().ensure_sound()?;

    let pid = moto.pid();
    drop((boots, cloud, moto));
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    Ok(())
}
