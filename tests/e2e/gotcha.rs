//! Pods without requests on nodes that evict: what happens without a policy, and that one ends it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use testbed::poll;
use testbed::pressure::Options;

use super::scene::Scene;

const PODS: u32 = 24;
/// Kubelets in a hurry: four evictions a second, and forgetful.
const KUBELETS: Options =
    Options { look: Duration::from_millis(250), transition: Duration::from_secs(5) };
/// Dozens of evictions, a few nodes one after the other.
const DEADLINE: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn without_requests_pods_are_evicted_again_and_again() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(1), Some("Warn"), KUBELETS).await?;
    scene.deploy(PODS).await?;
    poll::until("the loop", DEADLINE, async || {
        // What is lost again and again is paid for all the same.
        let figures = scene.figures().await?;
        ensure!(figures.created >= 3 * PODS as usize && figures.bought > 1, "{figures:?}");
        Ok(())
    })
    .await
    .with_context(|| scene.world.story())?;
    let figures = scene.figures().await?;
    println!("{figures:?}");
    ensure!(figures.evicted + figures.rejected >= PODS as usize, "{figures:?}");
    ensure!(figures.bought >= figures.nodes, "{figures:?}");
    ensure!(figures.dollars > 0.0, "{figures:?}");
    told(&scene).await?;
    // Nobody asked for it: pods stay as they were written.
    for pod in scene.running().await? {
        ensure!(request(&pod).is_none(), "{:?}", request(&pod));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_is_raised_until_pods_stay() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(1), Some("Default"), KUBELETS).await?;
    scene.deploy(PODS).await?;
    poll::until("pods stay", DEADLINE, async || {
        let figures = scene.figures().await?;
        let over = scene.pressure.overcommitted();
        ensure!(figures.evicted > 0, "nothing was evicted: {figures:?}");
        ensure!(figures.running == PODS as usize && over == 0, "{over} nodes over: {figures:?}");
        Ok(())
    })
    .await
    .with_context(|| scene.world.story())?;
    let figures = scene.figures().await?;
    println!("{figures:?}");
    // The first ones, those that were made before the first eviction was seen, and no more.
    ensure!(figures.created <= 3 * PODS as usize, "{figures:?}");
    told(&scene).await?;
    // 1.5 GiB and a fifth, as whole mebibytes.
    let running = scene.running().await?;
    let raised = running.iter().filter(|pod| request(pod).as_deref() == Some("1844Mi"));
    let raised: Vec<&Pod> = raised.collect();
    let pod = raised.first().context("no pod asks for what was used")?;
    let record = pod.annotations().get("harbinger.sh/default-requests").context("no record")?;
    ensure!(record.contains("was 128Mi: earlier pods were evicted"), "{record}");
    for pod in &running {
        let request = request(pod);
        let asks = request.as_deref().is_some_and(|r| matches!(r, "128Mi" | "1844Mi"));
        ensure!(asks, "{request:?}");
    }
    Ok(())
}

fn request(pod: &Pod) -> Option<String> {
    let container = pod.spec.as_ref()?.containers.first()?;
    let requests = container.resources.as_ref()?.requests.as_ref()?;
    Some(requests.get("memory")?.0.clone())
}

/// The loop is told of on the Deployment and on a pod, once, and counted.
async fn told(scene: &Scene) -> Result<()> {
    let events = Api::<Event>::namespaced(scene.world.plane.client(), &scene.namespace);
    let found = poll::until("Events", DEADLINE, async || {
        let list = events.list(&ListParams::default().fields("reason=EvictionLoop")).await?.items;
        ensure!(list.len() >= 2, "{} Events", list.len());
        Ok(list)
    })
    .await
    .with_context(|| scene.world.story())?;
    let about = |kind: &str| {
        found.iter().filter(|event| event.involved_object.kind.as_deref() == Some(kind)).count()
    };
    ensure!((about("Deployment"), about("Pod")) == (1, 1), "{found:#?}");
    let message = found[0].message.as_deref().unwrap_or_default();
    for part in ["pods of Deployment web", "used 1536Mi of memory or more", "set 1844Mi or more"] {
        ensure!(message.contains(part), "{part:?} is not in {message:?}");
    }
    let metric = async |name: &str| scene.world.chart.metric("metrics", name, &[]).await;
    let failures = metric("harbinger_pod_failures_total").await?;
    ensure!(failures >= 3.0, "{failures} failures");
    let loops = metric("harbinger_eviction_loops").await?;
    ensure!((loops - 1.0).abs() < 0.1, "{loops} loops");
    Ok(())
}
