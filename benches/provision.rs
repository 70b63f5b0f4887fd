//! How long pods wait for nodes: the released binary on a real control plane, with EC2 played by an
//! emulator. Prints tables; asserts nothing about time.
//!
//! `cargo bench --bench provision -- INTENTS SIZE`: only rounds with announced pods planned (`true`) or
//! not (`false`), and only Deployments of that size; all without arguments.
//!
//! Instances register 5 s after their launch and are ready half a second later. Everything runs on
//! one machine, the control plane included, so that the figures for 1,000 pods are bound by its
//! processors.
//!
//! Columns: from the request that creates a Deployment to the first CreateFleet; from the moment a
//! pod is seen to the moment it is seen bound; until all are bound; pods that are on another node
//! than the one planned for them; pods that were planned more than once; nodes and their price; from
//! the scale to zero until nodes and instances are gone; resident memory of provisioner and webhook, in
//! parentheses what is their own and not pages of the program.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program that measures reads the clock, prints, and ends at the first surprise"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use harbinger::api::nodeclaim::NodeClaim;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use testbed::poll;

#[path = "../tests/e2e/world.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod world;

use world::World;

/// From launch to registration.
const BOOT: Duration = Duration::from_secs(5);
/// Longest wait for 1,000 pods.
const DEADLINE: Duration = Duration::from_mins(3);
/// Deployment sizes and how often each is measured.
const SIZES: [(u32, u32); 4] = [(1, 5), (10, 5), (100, 3), (1000, 1)];
/// Deployments whose launch alone is timed.
const LAUNCHES: usize = 40;

fn main() -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let words = std::env::args().skip(1).filter(|word| !word.starts_with('-'));
        let words: Vec<String> = words.collect();
        if words.is_empty() {
            launches().await?;
        }
        for intents in ["true", "false"] {
            if words.first().is_none_or(|word| word == intents) {
                pods(intents, words.get(1)).await?;
            }
        }
        Ok(())
    })
}

/// From the request that creates a Deployment of 10 to its CreateFleet.
async fn launches() -> Result<()> {
    let world = World::start(BOOT, &["--leader-elect=false"]).await?;
    let namespace = world.plane.namespace("launch").await?;
    let mut took = Vec::new();
    for number in 0..LAUNCHES {
        world.cloud.journal().clear();
        let asked = Instant::now();
        world.deploy(&namespace, &format!("web-{number}"), 10).await?;
        let fleet = world.cloud.journal();
        let fleet = fleet.wait_for("a fleet", DEADLINE, |e| e.action == "CreateFleet").await?;
        took.push(fleet.at.duration_since(asked));
    }
    println!(
        "Deployment of 10 asked for -> CreateFleet received, {LAUNCHES} times: p50 {:.0?}, p99 {:.0?}",
        quantile(&took, 0.5),
        quantile(&took, 0.99)
    );
    Ok(())
}

/// What one round showed.
struct Round {
    fleet: Duration,
    bound: Vec<Duration>,
    all: Duration,
    off: u32,
    again: i64,
    nodes: usize,
    dollars: f64,
    gone: Duration,
}

async fn pods(intents: &str, size: Option<&String>) -> Result<()> {
    let flag = format!("--intents={intents}");
    let world = World::start(BOOT, &["--leader-elect=false", &flag]).await?;
    println!("\nannounced pods are planned: {intents}");
    println!(
        "{:>5} {:>9} {:>9} {:>9} {:>9} {:>5} {:>6} {:>6} {:>8} {:>8} {:>19}",
        "pods",
        "to fleet",
        "bound p50",
        "p99",
        "all",
        "off",
        "again",
        "nodes",
        "$/h",
        "gone",
        "RSS MiB"
    );
    for (count, rounds) in SIZES {
        if size.is_some_and(|size| *size != count.to_string()) {
            continue;
        }
        for _ in 0..rounds {
            let round = round(&world, count).await.with_context(|| world.story())?;
            let rss = format!(
                "{} ({}) + {} ({})",
                world.provisioner.rss_bytes()? >> 20,
                world.provisioner.own_bytes()? >> 20,
                world.webhook.rss_bytes()? >> 20,
                world.webhook.own_bytes()? >> 20
            );
            println!(
                "{count:>5} {:>9.0?} {:>9.2?} {:>9.2?} {:>9.2?} {:>5} {:>6} {:>6} {:>8.4} {:>8.2?} {rss:>19}",
                round.fleet,
                quantile(&round.bound, 0.5),
                quantile(&round.bound, 0.99),
                round.all,
                round.off,
                round.again,
                round.nodes,
                round.dollars,
                round.gone,
            );
        }
    }
    world.cloud.journal().ensure_sound()
}

async fn round(world: &World, count: u32) -> Result<Round> {
    let namespace = world.plane.namespace("figures").await?;
    world.cloud.journal().clear();
    let seen: Arc<Mutex<BTreeMap<String, (Instant, Option<Instant>)>>> = Arc::default();
    let watching = tokio::spawn(follow(world.plane.client(), namespace.clone(), Arc::clone(&seen)));
    let asked = Instant::now();
    world.deploy(&namespace, "web", count).await?;
    poll::until("all pods are bound", DEADLINE, async || {
        let bound = seen.lock().values().filter(|(_, bound)| bound.is_some()).count();
        ensure!(bound == count as usize, "{bound} of {count} are bound");
        Ok(())
    })
    .await?;
    let all = asked.elapsed();
    watching.abort();
    let fleets = world.cloud.journal().of("CreateFleet");
    let fleet = fleets.iter().map(|entry| entry.at).min().context("no fleet")?;
    let bound =
        seen.lock().values().filter_map(|(came, bound)| Some(*bound.as_ref()? - *came)).collect();
    let (off, again) = against_plan(world, &namespace, count).await?;
    let instances = world.cloud.instances().await?;
    let dollars = world.dollars().await?;
    let scaled = Instant::now();
    world.scale(&namespace, "web", 0).await?;
    world.empty().await?;
    Ok(Round {
        fleet: fleet.duration_since(asked),
        bound,
        all,
        off,
        again,
        nodes: instances.len(),
        dollars,
        gone: scaled.elapsed(),
    })
}

/// Notes when each pod is seen first and when it is seen bound.
async fn follow(
    client: kube::Client,
    namespace: String,
    seen: Arc<Mutex<BTreeMap<String, (Instant, Option<Instant>)>>>,
) {
    let api = Api::<Pod>::namespaced(client, &namespace);
    let mut events = std::pin::pin!(watcher::watcher(api, watcher::Config::default()));
    while let Some(event) = events.next().await {
        let Ok(Event::Apply(pod) | Event::InitApply(pod)) = event else { continue };
        let now = Instant::now();
        let mut seen = seen.lock();
        let entry = seen.entry(pod.name_any()).or_insert((now, None));
        if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
            entry.1.get_or_insert(now);
        }
    }
}

/// Pods that are not on the node that was planned for them, and pods that were planned more than
/// once.
async fn against_plan(world: &World, namespace: &str, count: u32) -> Result<(u32, i64)> {
    let pods = Api::<Pod>::namespaced(world.plane.client(), namespace);
    let mut on: BTreeMap<String, u32> = BTreeMap::new();
    for pod in pods.list(&ListParams::default()).await? {
        *on.entry(pod.spec.unwrap().node_name.unwrap_or_default()).or_insert(0) += 1;
    }
    let mut planned = 0;
    let mut off = 0;
    let mut names = BTreeSet::new();
    for claim in Api::<NodeClaim>::all(world.plane.client()).list(&ListParams::default()).await? {
        let Some(plan) = claim.annotations().get("harbinger.sh/planned") else { continue };
        let owners: BTreeMap<String, u32> = serde_json::from_str(plan)?;
        let wanted: u32 = owners.values().sum();
        let node = claim.status.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
        off += wanted.saturating_sub(on.get(&node).copied().unwrap_or(0));
        planned += wanted;
        names.insert(node);
    }
    Ok((off, i64::from(planned) - i64::from(count)))
}

fn quantile(times: &[Duration], share: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index into thousands"
    )]
    let at = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}
