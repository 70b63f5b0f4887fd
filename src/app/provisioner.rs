//! The provisioner: watches, the decider and its helpers, under a lease.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::policies::{Policies, Rules};
use super::{SystemClock, health, policies, shutdown};
use crate::aws;
use crate::cluster::Snapshot;
use crate::control::engine::QUEUE;
use crate::control::{
    Clock, Context, Engine, Message, catalogs, engine, garbage, quotes, reservations, status, usage,
};
use crate::intent::{self, Inbox, Intent};
use crate::k8s::lease::{Election, Fence};
use crate::k8s::watch::{Effective, Watches};
use crate::k8s::{Writer, client};
use crate::model::wire::workload::WorkloadWire;
use crate::model::workload::WorkloadKind;
use crate::policy;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::SharedRegistry;

/// How long calls under way may take to end after a signal, and all else after them.
const GRACE: Duration = Duration::from_secs(10);
/// Lists of failed pods that may wait to be learned from.
const FAILURES: usize = 64;
/// Pauses between tries to ask what the process needs to know at its start.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// Time after which workloads are listed again where policies learn: what their pods will ask for
/// changes without a change of theirs. It moves by steps of a few percent, so that this is no hurry.
const RELEARN: Duration = Duration::from_mins(15);
/// Permissions of the socket: the containers of the pod share a group.
const SOCKET_MODE: u32 = 0o660;

/// What the provisioner is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Kubeconfig; the pod's service account when absent.
    pub kubeconfig: Option<PathBuf>,
    /// Address of health and metrics.
    pub metrics_listen: SocketAddr,
    /// Namespace and name of the lease; no election when absent.
    pub lease: Option<(String, String)>,
    /// Name of this process in the lease and in Events.
    pub identity: String,
    /// Socket on which admission tells what it has seen.
    pub intent_socket: Option<PathBuf>,
    /// What applies to all request policies.
    pub rules: Rules,
    /// The decider's settings.
    pub engine: engine::Settings,
    /// How use is sampled.
    pub usage: usage::Settings,
    /// The cloud's settings; what is empty is asked from the API server.
    pub cloud: aws::Settings,
}

/// Runs until a signal comes. Losing the lease is an error: the process must not go on.
///
/// # Errors
/// When the API server or the cloud cannot be reached at all, or the lease is lost.
pub async fn run(options: Options) -> Result<()> {
    let cancel = CancellationToken::new();
    let signals = cancel.clone();
    #[expect(clippy::disallowed_methods, reason = "nobody waits for signals that do not come")]
    tokio::spawn(async move { shutdown::on_signal(signals).await });
    let tracker = TaskTracker::new();
    let heard = match &options.intent_socket {
        None => None,
        Some(path) => {
            let (listener, inbox) = intent::listen(path, SOCKET_MODE).await?;
            tracker.spawn(listener.run(cancel.clone()));
            Some(inbox)
        }
    };
    let result = serve(options, heard, cancel.clone()).await;
    cancel.cancel();
    tracker.close();
    tracker.wait().await;
    result
}

/// Runs until cancelled. Losing the lease is an error: the process must not go on.
///
/// # Errors
/// When the API server or the cloud cannot be reached at all, or the lease is lost.
pub async fn serve(
    options: Options,
    heard: Option<Inbox>,
    cancel: CancellationToken,
) -> Result<()> {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let registry: SharedRegistry = Arc::new(parking_lot::RwLock::new(registry));
    let tracker = TaskTracker::new();
    let clock = Arc::new(SystemClock);
    let (ready, readiness) = watch::channel(false);
    let served = health::serve(options.metrics_listen, registry, readiness, cancel.clone());
    let ended = cancel.clone();
    tracker.spawn(async move {
        if let Err(error) = served.await {
            tracing::error!(%error, "health and metrics cannot be served");
            ended.cancel();
        }
    });

    let connection = client::connect(options.kubeconfig.as_deref()).await?;
    // The webhook is in the same pod, and a container that ends takes the pod's address away from it:
    // what may be there later is waited for.
    let asked = patiently(|| Box::pin(completed(options.cloud.clone(), &connection)));
    let Some(cloud_settings) = cancel.run_until_cancelled(asked).await else { return Ok(()) };
    let cloud = Arc::new(aws::Provider::connect(cloud_settings).await?);
    let kube = connection.client.clone();

    let mut election = options
        .lease
        .as_ref()
        .map(|(namespace, name)| Election::new(kube.clone(), namespace, name, &options.identity));
    let fence = election.as_ref().map_or_else(Fence::open, Election::fence);
    let api = Arc::new(Writer::new(&connection, fence.clone(), &options.identity));
    let context = Context {
        api,
        cloud,
        clock: Arc::clone(&clock),
        metrics: metrics.clone(),
        registrations: Arc::default(),
        stop: cancel.clone(),
    };

    // Calls under way are finished before the lease goes to somebody else.
    let (work, finished) = (TaskTracker::new(), CancellationToken::new());
    let (outbox, inbox) = mpsc::channel(QUEUE);
    let (lead, leads) = watch::channel(false);
    // Nanoseconds differ between processes, so that two leaders never make the same names.
    let seed = u64::try_from(clock.now().as_nanosecond() % i128::from(i64::MAX)).unwrap_or(0);
    let decider =
        Engine::new(context.clone(), options.engine, inbox, outbox.clone(), work.clone(), seed);
    let watches = Watches { client: kube, tracker: tracker.clone(), cancel: cancel.clone() };
    watches.cluster(&outbox, Message::Cluster);
    watches.classes(&outbox, Message::Classes);
    watches.failures(&outbox, Message::Failures);
    let (failed, failures) = mpsc::channel(FAILURES);
    watches.failures(&failed, |failures| failures);
    let policies = policies::follow(&watches, options.rules);
    tracker.spawn(workloads(watches, policies, outbox.clone()));
    let (snapshots, classes) = (decider.snapshots(), decider.classes());
    let offers = decider.catalogs();
    if let Some(Inbox { intents, questions }) = heard {
        tracker.spawn(forward(intents, outbox.clone(), cancel.clone()));
        let quotes = quotes::run(questions, snapshots.clone(), offers.clone());
        let cancel = cancel.clone();
        tracker.spawn(async move { cancel.run_until_cancelled(quotes).await });
    }

    let ledger = decider.reservations();
    let helpers = cancel.clone();
    let spawn = |name: &'static str, task: futures::future::BoxFuture<'static, ()>| {
        let cancel = helpers.clone();
        tracker.spawn(async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                () = task => {
                    tracing::error!(name, "loop ended by itself");
                    cancel.cancel();
                }
            }
        });
    };
    spawn(
        "catalogs",
        Box::pin(catalogs::run(
            context.clone(),
            classes.clone(),
            snapshots.clone(),
            leads.clone(),
            outbox,
        )),
    );
    spawn(
        "usage",
        Box::pin(usage::run(
            context.clone(),
            options.usage,
            snapshots.clone(),
            failures,
            leads.clone(),
        )),
    );
    spawn("reservations", Box::pin(reservations::run(context.clone(), ledger, leads.clone())));
    spawn("garbage", Box::pin(garbage::run(context.clone(), snapshots.clone(), leads.clone())));
    let told = status::run(context, snapshots.clone(), classes, offers, leads.clone());
    spawn("status", Box::pin(told));
    tracker.spawn(tell_ready(snapshots, ready));
    work.spawn(decider.run(leads));
    tracker.spawn(finish(work, cancel.clone(), finished.clone()));

    let lost = match &mut election {
        None => {
            lead.send_replace(true);
            metrics.leader.set(1);
            finished.cancelled().await;
            false
        }
        Some(election) => win_and_hold(election, &lead, &metrics, &cancel, &finished).await,
    };
    cancel.cancel();
    tracker.close();
    if tokio::time::timeout(GRACE, tracker.wait()).await.is_err() {
        tracing::warn!("some tasks did not end in time");
    }
    if lost {
        bail!("the lease was lost to another replica or could not be renewed");
    }
    Ok(())
}

/// Waits for the lease and leads until `finished`; whether the lease was lost before.
async fn win_and_hold(
    election: &mut Election,
    lead: &watch::Sender<bool>,
    metrics: &Metrics,
    cancel: &CancellationToken,
    finished: &CancellationToken,
) -> bool {
    let now = || SystemClock.now();
    if !election.acquire(cancel, now).await {
        return false;
    }
    let term = election.fence().term();
    tracing::info!(term, "leading");
    metrics.leader.set(1);
    metrics.term.set(i64::try_from(term).unwrap_or(i64::MAX));
    lead.send_replace(true);
    election.hold(finished, now).await
}

/// Waits for the work under way when the process is to end, and says when it is done.
async fn finish(work: TaskTracker, cancel: CancellationToken, finished: CancellationToken) {
    cancel.cancelled().await;
    work.close();
    if tokio::time::timeout(GRACE, work.wait()).await.is_err() {
        tracing::warn!(calls = work.len(), "calls under way did not end in time");
    }
    finished.cancel();
}

/// Says that the process is ready once it knows the cluster.
async fn tell_ready(mut snapshots: watch::Receiver<Arc<Snapshot>>, ready: watch::Sender<bool>) {
    if snapshots.wait_for(|snapshot| snapshot.synced).await.is_ok() {
        ready.send_replace(true);
        // The sender must live as long as the process answers probes.
        std::future::pending::<()>().await;
    }
}

/// Asks again and again, at longer and longer intervals, until there is an answer.
async fn patiently<T, F: Future<Output = Result<T>>>(mut ask: impl FnMut() -> F) -> T {
    let [mut pause, longest] = PAUSES;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => tracing::error!(error = format!("{error:#}"), ?pause, "asking again"),
        }
        tokio::time::sleep(pause).await;
        pause = longest.min(2 * pause);
    }
}

/// Settings of the cloud with what the API server says where they are silent.
async fn completed(
    mut settings: aws::Settings,
    connection: &client::Connection,
) -> Result<aws::Settings> {
    let facts = connection.facts().await.context("asking the API server about itself")?;
    // Nodes cannot reach the address that a pod has, and have no other yet.
    if settings.cluster_endpoint.is_empty() && connection.in_pod {
        settings.complete_from_eks().await.with_context(|| {
            format!(
                "asking EKS for the endpoint of cluster {}; --cluster-endpoint (in the chart, \
                 clusterEndpoint) spares the question",
                settings.cluster_name
            )
        })?;
    }
    if settings.cluster_endpoint.is_empty() {
        settings.cluster_endpoint.clone_from(&connection.endpoint);
    }
    if settings.ca_bundle.is_empty() {
        settings.ca_bundle.clone_from(&connection.ca_bundle);
    }
    if settings.kubernetes_version.is_empty() {
        settings.kubernetes_version = facts.version;
    }
    settings.service_cidr = settings.service_cidr.or(facts.service_cidr);
    settings.cluster_dns = settings.cluster_dns.or(facts.cluster_dns);
    Ok(settings)
}

/// Watches workloads, each with the requests that the policies will give its pods. They are listed
/// again when the policies change.
async fn workloads(watches: Watches, policies: Policies, outbox: mpsc::Sender<Message>) {
    let snapshot = Arc::clone(&policies.snapshot);
    let current = Arc::clone(&snapshot);
    let effective: Effective = Arc::new(move |kind: WorkloadKind, workload: &mut WorkloadWire| {
        policy::settle(kind, workload, &current.load(), SystemClock.now());
    });
    let mut versions = policies.version;
    loop {
        // The sender lives as long as the watches: both end together.
        if versions.wait_for(|version| !version.is_empty()).await.is_err() {
            return;
        }
        versions.mark_unchanged();
        let round = watches.cancel.child_token();
        let of_round = Watches { cancel: round.clone(), ..watches.clone() };
        of_round.workloads(&outbox, Message::Cluster, &effective);
        loop {
            match tokio::time::timeout(RELEARN, versions.changed()).await {
                Ok(Err(_)) => return,
                Ok(Ok(())) => break,
                Err(_) if policies.snapshot.load().learns() => break,
                Err(_) => {}
            }
        }
        round.cancel();
    }
}

async fn forward(
    mut intents: mpsc::Receiver<Intent>,
    outbox: mpsc::Sender<Message>,
    cancel: CancellationToken,
) {
    loop {
        let intent = tokio::select! {
            () = cancel.cancelled() => return,
            intent = intents.recv() => intent,
        };
        let Some(intent) = intent else { return };
        if outbox.send(Message::Intent(Box::new(intent))).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_does_not_answer_yet_is_asked_again() {
        let start = tokio::time::Instant::now();
        let mut tries = 0;
        let answer = patiently(|| {
            tries += 1;
            let now = tries;
            async move { if now == 8 { Ok(now) } else { Err(anyhow::anyhow!("no")) } }
        });
        assert_eq!(answer.await, 8);
        // 1, 2, 4, 8 and 16 s, and then 30 s each time.
        assert_eq!(start.elapsed().as_secs(), 31 + 2 * 30);
    }
}
