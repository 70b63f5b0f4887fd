//! Rolling restarts of the webhook while pods are created: no pod is refused or left unjudged.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testbed::install::Chart;
use testbed::plane::{Plane, PlaneOptions};
use testbed::process::{Process, Signal};
use testbed::service::Service;
use testbed::{http, poll, ports};

use super::load::{Load, repeat};
use super::world::DEADLINE;

/// What a Deployment keeps.
const REPLICAS: usize = 2;
/// From the end of a pod's life in the API server to the end of new connections to it: endpoint slices
/// and every node's proxy must hear of it. Seconds at worst; the webhook accepts for longer.
const PROPAGATION: Duration = Duration::from_millis(500);

/// A process in place of a pod.
pub(crate) struct Replica {
    pub process: Process,
    pub address: String,
}

impl Replica {
    /// As many as the chart asks for, and the Service in front of them.
    pub(crate) async fn start_all(plane: &Plane, chart: &Chart) -> Result<(Service, Vec<Self>)> {
        let service = Service::listen(&chart.address("webhook")?).await?;
        let mut replicas = Vec::new();
        for number in 0..REPLICAS {
            let replica = Self::start(plane, chart, number).await?;
            service.add(&replica.address);
            replicas.push(replica);
        }
        Ok((service, replicas))
    }

    /// Started and ready, at an address of its own.
    pub(crate) async fn start(plane: &Plane, chart: &Chart, number: usize) -> Result<Self> {
        let mut recipe = chart.recipe(plane, "webhook", Vec::new())?;
        let ports = ports::free(2)?;
        let (address, health) =
            (format!("127.0.0.1:{}", ports[0]), format!("127.0.0.1:{}", ports[1]));
        recipe.name = format!("webhook-{number}");
        recipe.log = plane.dir().join(format!("webhook-{number}.log"));
        for arg in &mut recipe.args {
            match arg.split_once('=').map(|(flag, _)| flag) {
                Some("--listen") => *arg = format!("--listen={address}"),
                Some("--metrics-listen") => *arg = format!("--metrics-listen={health}"),
                _ => {}
            }
        }
        let process = Process::spawn(recipe)?;
        let url = format!("http://{health}/readyz");
        poll::until("a replica", DEADLINE, async || {
            let reply = http::get(&url).await?;
            ensure!(reply.status == 200, "{}", reply.text());
            Ok(())
        })
        .await
        .with_context(|| process.log_tail(20))?;
        Ok(Self { process, address })
    }

    /// Waits for the end of one that was told to end: a good one, with no connection cut.
    async fn end(mut self) -> Result<()> {
        let status = self.process.wait(DEADLINE).await?;
        ensure!(status.success(), "{status}: {}", self.process.log_tail(20));
        let log = self.process.log_tail(usize::MAX);
        ensure!(!log.contains("panicked") && !log.contains("connections cut"), "{log}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_restart_one_by_one_under_load() -> Result<()> {
    let plane = Plane::start(PlaneOptions::default()).await?;
    let values = [
        "certificates.mode=selfManaged",
        // A failure refuses the pod.
        "webhook.failurePolicy=Fail",
        "webhook.extraArgs={--drain-seconds=2}",
    ];
    let chart = Chart::install(&plane, env!("CARGO_BIN_EXE_harbinger"), &values, &[]).await?;
    let (service, mut replicas) = Replica::start_all(&plane, &chart).await?;
    let load = Load::start(&plane).await?;

    let restarts = repeat(3);
    let started = Instant::now();
    let mut ending = tokio::task::JoinSet::new();
    for number in REPLICAS..(restarts + 1) * REPLICAS {
        load.ensure_worth_it()?;
        // One more first, as `maxSurge: 1, maxUnavailable: 0` asks.
        let new = Replica::start(&plane, &chart, number).await?;
        service.add(&new.address);
        let mut old = replicas.remove(0);
        replicas.push(new);
        old.process.signal(Signal::TERM)?;
        tokio::time::sleep(PROPAGATION).await;
        service.remove(&old.address);
        ending.spawn(old.end());
        while let Some(ended) = ending.try_join_next() {
            ended??;
        }
    }
    while let Some(ended) = ending.join_next().await {
        ended??;
    }
    let took = started.elapsed();
    let met = load.end().await?;
    println!(
        "{restarts} rolling restarts of {REPLICAS} replicas in {took:.1?}: {} pods, {:.0} a second, \
         {} failures",
        met.pods,
        f64::from(u32::try_from(met.pods)?) / met.took.as_secs_f64(),
        met.failures.len(),
    );
    ensure!(met.failures.is_empty(), "{:#?}", met.failures);
    ensure!(met.pods > restarts * REPLICAS, "{} pods are no load", met.pods);
    for replica in &mut replicas {
        replica.process.ensure_running()?;
    }
    Ok(())
}
