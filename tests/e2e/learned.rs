//! Learned requests on the real API server: use from `metrics.k8s.io`, profiles, and what the next
//! pod asks for. A real metrics-server measures what kwok says that pods use.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use testbed::poll;
use testbed::pressure::{USE_CPU, USE_MEMORY};
use testbed::process::Signal;

use super::submit::{Answer, dry_pod};
use super::world::{DEADLINE, World};

const POLICY: &str = "
apiVersion: harbinger.sh/v1alpha1
kind: RequestPolicy
metadata: {name: learned}
spec:
  rules:
  - {resource: cpu, action: Default, default: 50m, learned: {}}
  - {resource: memory, action: Default, default: 128Mi, learned: {underCost: 19}}
";

const MEBI: i64 = 1 << 20;

/// What the next pod of a running one's workload would be.
async fn next(world: &World, namespace: &str, like: &Pod) -> Result<Answer> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "next", "labels": like.labels(), "ownerReferences": like.owner_references()},
        "spec": {"containers": [{"name": "app", "image": "web:1"}]},
    });
    dry_pod(&world.plane.client(), namespace, &pod).await
}

fn mebibytes(answer: &Answer) -> Result<i64> {
    let request = answer.request("containers", 0, "memory").context("no request")?;
    let quantity: harbinger::model::quantity::Quantity = request.parse()?;
    Ok(quantity.units() / MEBI)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_pod_asks_for_what_the_last_one_used() -> Result<()> {
    let flags = ["--usage-seconds=1", "--usage-checkpoint-seconds=1"];
    let mut world = World::start(std::time::Duration::from_secs(1), &flags).await?;
    world.apply(POLICY).await?;
    let shop = world.plane.namespace("shop").await?;
    // Nobody serves metrics yet: pods get the default, and the provisioner goes on.
    let metric = async |name: &str| world.chart.metric("metrics", name, &[]).await;
    poll::until("the absence of metrics is told", DEADLINE, async || {
        let up = metric("harbinger_usage_source_up").await?;
        let skipped = [r#"operation="read_usage""#, r#"outcome="skipped""#];
        let asked = world.chart.metric("metrics", "harbinger_operations_total", &skipped).await?;
        ensure!(up < 0.5 && asked >= 1.0, "up {up}, asked {asked}");
        Ok(())
    })
    .await
    .with_context(|| world.story())?;
    world.apply(&deployment(&shop)).await?;
    let pod = world.running(&shop, 1).await?.remove(0);
    let first = next(&world, &shop, &pod).await?;
    ensure!(mebibytes(&first)? == 128, "{first:?}");

    world.plane.start_metrics_server().await?;
    let learned = async || {
        // metrics-server tells nothing before its second look, and one sample is no evidence.
        poll::until("the next pod asks for more", 3 * DEADLINE, async || {
            let answer = next(&world, &shop, &pod).await?;
            let asked = mebibytes(&answer)?;
            ensure!((900..1200).contains(&asked), "{asked} MiB: {:?}", answer.warnings);
            let told = answer.warnings.iter().any(|w| w.contains("of web's own history"));
            ensure!(told, "{:?}", answer.warnings);
            Ok(())
        })
        .await
        .with_context(|| format!("{}\n{}", world.story(), world.webhook.log_tail(10)))
    };
    learned().await?;
    ensure!(metric("harbinger_usage_source_up").await? > 0.5, "up");
    ensure!(metric("harbinger_usage_containers").await? >= 1.0, "containers");
    let profiles = world.plane.kubectl(&["get", "demandprofiles", "-n", &shop], "").await?;
    ensure!(profiles.contains("usage-0"), "{profiles}");

    // A real pod keeps the record.
    world.scale(&shop, "web", 2).await?;
    let pods = world.running(&shop, 2).await?;
    let record = |pod: &Pod| {
        pod.annotations().get("harbinger.sh/default-requests").cloned().unwrap_or_default()
    };
    let told = pods.iter().any(|pod| record(pod).contains("web's own history"));
    ensure!(told, "{:?}", pods.iter().map(record).collect::<Vec<_>>());

    // Metrics go, and both our processes start anew: what was learned is still there.
    world.plane.kubectl(&["delete", "apiservice", "v1beta1.metrics.k8s.io"], "").await?;
    world.plane.stop("metrics-server", Signal::KILL).await?;
    for process in [&mut world.provisioner, &mut world.webhook] {
        process.kill()?;
        process.start_again()?;
    }
    let again = async || {
        let answer = next(&world, &shop, &pod).await?;
        ensure!(mebibytes(&answer)? >= 900, "{answer:?}");
        let containers = world.chart.metric("metrics", "harbinger_usage_containers", &[]).await?;
        ensure!(containers >= 1.0, "{containers} containers");
        Ok(())
    };
    poll::until("what was learned is read again", DEADLINE, again)
        .await
        .with_context(|| format!("{}\n{}", world.story(), world.webhook.log_tail(10)))
}

fn deployment(namespace: &str) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {
                    "labels": {"app": "web"},
                    "annotations": {USE_CPU: "300m", USE_MEMORY: "900Mi"},
                },
                "spec": {"containers": [{"name": "app", "image": "web:1"}]},
            },
        },
    })
    .to_string()
}
