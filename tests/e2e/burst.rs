//! Many pods in one moment, before the count of their quota has reached us: what the API server refuses
//! then comes again, and comes in.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Event, Pod, ResourceQuota};
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use testbed::install::Chart;
use testbed::plane::{Plane, PlaneOptions};
use testbed::poll;

use super::submit::dry_pod;
use super::world::DEADLINE;

const PROGRAM: &str = env!("CARGO_BIN_EXE_harbinger");
const REPLICAS: usize = 20;

const POLICY: &str = "
apiVersion: harbinger.sh/v1alpha1
kind: RequestPolicy
metadata: {name: burst}
spec:
  match: {ownerKinds: [Deployment, Pod]}
  rules: [{resource: memory, action: Default, default: 128Mi}]
";

/// A zero counts as a request, so the quota lets all pods in that are left alone.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_beyond_a_quota_come_in_without_defaults() -> Result<()> {
    let plane = Plane::start(PlaneOptions::default()).await?;
    let values = ["certificates.mode=selfManaged"];
    let chart = Chart::install(&plane, PROGRAM, &values, &[]).await?;
    let mut webhook = chart.run(&plane, "webhook", Vec::new()).await?;
    let namespace = plane.namespace("burst").await?;
    plane.kubectl(&["apply", "-f", "-"], POLICY).await?;
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "team", "namespace": namespace},
        "spec": {"hard": {"requests.memory": "512Mi"}},
    });
    plane.kubectl(&["apply", "-f", "-"], &quota.to_string()).await?;
    let client = plane.client();
    let zero = json!({"requests": {"cpu": "10m", "memory": "0"}});
    let template = json!({"containers": [{"name": "c", "image": "i", "resources": zero}]});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": template,
    });
    let quotas = Api::<ResourceQuota>::namespaced(client.clone(), &namespace);
    poll::until("quota and policy in force", DEADLINE, async || {
        let status = quotas.get("team").await?.status;
        ensure!(status.and_then(|status| status.used).is_some(), "the quota has no status");
        let answer = dry_pod(&client, &namespace, &pod).await?;
        ensure!(answer.request("containers", 0, "memory") == Some("128Mi"), "{answer:?}");
        Ok(())
    })
    .await
    .with_context(|| webhook.log_tail(20))?;

    let labels = json!({"app": "burst"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "burst", "namespace": namespace},
        "spec": {
            "replicas": REPLICAS, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": template},
        },
    });
    plane.kubectl(&["apply", "-f", "-"], &deployment.to_string()).await?;
    let started = Instant::now();
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    let all = poll::until("all pods", DEADLINE, async || {
        let all = pods.list(&ListParams::default()).await?.items;
        ensure!(all.len() == REPLICAS, "{} pods", all.len());
        Ok(all)
    })
    .await
    .with_context(|| webhook.log_tail(20))?;
    let took = started.elapsed();
    let memory = |pod: &Pod| {
        let container = pod.spec.as_ref()?.containers.first()?.resources.clone()?;
        Some(container.requests?.get("memory")?.0.clone())
    };
    let with = all.iter().filter(|pod| memory(pod).is_some_and(|amount| amount != "0")).count();
    let events = Api::<Event>::namespaced(client, &namespace).list(&ListParams::default()).await?;
    let refused = events.iter().filter(|event| event.reason.as_deref() == Some("FailedCreate"));
    println!("{REPLICAS} pods in {took:.1?}, {with} with defaults, {} refusals", refused.count());
    // At least one has the default; a share of less than 32Mi is of no use, so at most 16 have some.
    ensure!((1..=16).contains(&with), "{with} have memory");
    webhook.ensure_running()
}
