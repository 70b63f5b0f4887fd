//! The zero-request gotcha: a Deployment of 200 pods that ask for nothing and use 1.5 GiB each, on a
//! real control plane with nodes that evict, without us and with each action of a policy. Prints a
//! table; asserts nothing.
//!
//! `cargo bench --bench gotcha -- SECONDS ACTION…`: seconds of each round (300), and which rounds
//! (all; `without` is the one without the webhook).
//!
//! Instances register 5 s after their launch. A node whose pods use more memory than it has evicts one
//! a second, keeps MemoryPressure for five minutes after, and turns away pods without requests that
//! were bound meanwhile. The provisioner runs in every round: without it nothing would be bought.
//!
//! Columns: pods ever made, evicted and turned away; when the last one was; pods that run at the end;
//! instances launched in all, nodes at the end, their price, and the highest price on the way.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program that measures reads the clock and prints"
)]

use std::time::{Duration, Instant};

use anyhow::Result;
use testbed::pressure::Options;

#[path = "../tests/e2e/scene.rs"]
mod scene;
#[path = "../tests/e2e/world.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod world;

use scene::{Figures, Scene, USED};

const PODS: u32 = 200;
/// From launch to registration.
const BOOT: Duration = Duration::from_secs(5);
/// Length of a round.
const ROUND: Duration = Duration::from_mins(5);
/// Time between two looks at the figures.
const LOOK: Duration = Duration::from_secs(1);
const ROUNDS: [&str; 7] =
    ["without", "Off", "Shadow", "Warn", "Default", "DefaultAndVerify", "Deny"];

fn main() -> Result<()> {
    // `cargo bench` adds a flag of its own.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let round = args.first().and_then(|text| text.parse().ok()).map_or(ROUND, Duration::from_secs);
    let wanted = |action: &&&str| args.len() < 2 || args.iter().skip(1).any(|arg| *arg == **action);
    println!("{PODS} pods that use {USED} each, {round:?}");
    println!(
        "{:>16} {:>6} {:>7} {:>6} {:>8} {:>7} {:>8} {:>5} {:>7} {:>8}",
        "action",
        "pods",
        "evicted",
        "turned",
        "last",
        "running",
        "launched",
        "nodes",
        "$/h",
        "at most"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for action in ROUNDS.iter().filter(wanted) {
        runtime.block_on(play(action, round))?;
    }
    Ok(())
}

async fn play(action: &str, round: Duration) -> Result<()> {
    let policy = (action != "without").then_some(action);
    let scene = Scene::start(BOOT, policy, Options::default()).await?;
    scene.deploy(PODS).await?;
    let started = Instant::now();
    let mut ticks = tokio::time::interval(LOOK);
    let (mut now, mut most, mut last) = (Figures::default(), 0.0_f64, None);
    while started.elapsed() < round {
        ticks.tick().await;
        let before = now.evicted + now.rejected;
        now = scene.figures().await?;
        most = most.max(now.dollars);
        if now.evicted + now.rejected > before {
            last = Some(started.elapsed());
        }
    }
    let last = last.map_or_else(|| "-".to_owned(), |last| format!("{last:.0?}"));
    println!(
        "{action:>16} {:>6} {:>7} {:>6} {last:>8} {:>7} {:>8} {:>5} {:>7.3} {most:>8.3}",
        now.created, now.evicted, now.rejected, now.running, now.bought, now.nodes, now.dollars
    );
    Ok(())
}
