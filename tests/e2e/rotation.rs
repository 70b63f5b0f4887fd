//! cert-manager renews the webhook's certificate again and again while pods are created, and no pod
//! is refused or left unjudged for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::{Value, json};
use testbed::install::{Chart, PORT};
use testbed::plane::{Plane, PlaneOptions};
use testbed::poll;

use super::direct::Direct;
use super::submit::{Answer, dry_pod};
use super::world::DEADLINE;

/// The API server's requests at the same time, and the pause between two of each.
const WORKERS: usize = 4;
const PAUSE: Duration = Duration::from_millis(20);
/// How long the load lasts at least.
const LOAD: Duration = Duration::from_secs(30);
/// Certificates that are seen at least: the first and two more.
const CERTIFICATES: usize = 3;

const POLICY: &str = "
apiVersion: harbinger.sh/v1alpha1
kind: RequestPolicy
metadata: {name: default}
spec:
  rules:
  - {resource: cpu, action: Default, default: 100m}
  - {resource: memory, action: Default, default: 128Mi}
";

/// What the load met.
#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    pods: AtomicUsize,
    handshakes: AtomicUsize,
    certificates: Mutex<BTreeSet<Vec<u8>>>,
    failures: Mutex<Vec<String>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_rotate_under_load() -> Result<()> {
    let plane =
        Plane::start(PlaneOptions { cert_manager: true, ..PlaneOptions::default() }).await?;
    let values = [
        // Renewed every ten seconds, and in force for ten more. A failure refuses the pod.
        "certificates.certManager.duration=20s",
        "certificates.certManager.renewBefore=10s",
        "webhook.failurePolicy=Fail",
        // New connections, and so handshakes, all the time.
        "webhook.extraArgs={--certificate-poll-seconds=1,--connection-seconds=2}",
    ];
    let chart = Chart::install(&plane, env!("CARGO_BIN_EXE_harbinger"), &values, &[]).await?;
    let mut webhook = chart.run(&plane, "webhook", Vec::new()).await?;
    plane.kubectl(&["apply", "-f", "-"], POLICY).await?;
    let client = plane.client();
    let namespace = plane.namespace("load").await?;
    poll::until("policy in force", DEADLINE, async || {
        fault(&dry_pod(&client, &namespace, &bare()).await?)
            .map_or(Ok(()), |why| anyhow::bail!(why))
    })
    .await
    .with_context(|| webhook.log_tail(20))?;
    let hooks = Api::<ValidatingWebhookConfiguration>::all(client.clone());
    let hooks = hooks.get("harbinger").await?.webhooks.unwrap_or_default();
    let bundle = hooks.first().and_then(|hook| hook.client_config.ca_bundle.clone());
    let bundle = bundle.context("no caBundle")?.0;

    let tally = Arc::new(Tally::default());
    let mut load: Vec<_> = (0..WORKERS)
        .map(|_| tokio::spawn(create(client.clone(), namespace.clone(), Arc::clone(&tally))))
        .collect();
    let direct = Direct::new(format!("{}:{PORT}", chart.ip), &bundle)?;
    load.push(tokio::spawn(shake(direct, Arc::clone(&tally))));
    let started = Instant::now();
    let seen = poll::until("rotations", LOAD + DEADLINE, async || {
        let failed = tally.failures.lock().len();
        ensure!(failed < 100, "{failed} failures");
        let seen = tally.certificates.lock().len();
        ensure!(started.elapsed() >= LOAD && seen >= CERTIFICATES, "{seen} certificates");
        Ok(seen)
    })
    .await;
    tally.stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await?;
    }
    let failures = tally.failures.lock().clone();
    println!(
        "{:?}: {:?} certificates; {} pods through the API server and {} direct handshakes, {} \
         failures; {} connections by certificates that did not match",
        started.elapsed(),
        seen.as_ref().ok(),
        tally.pods.load(Ordering::Relaxed),
        tally.handshakes.load(Ordering::Relaxed),
        failures.len(),
        chart.metric("webhook-metrics", "harbinger_admission_handshakes_failed_total", &[]).await?,
    );
    let log = webhook.log_tail(40);
    seen.with_context(|| format!("{failures:#?}\n{log}"))?;
    ensure!(failures.is_empty(), "{failures:#?}\n{log}");
    let labels = ["result=\"loaded\""];
    let loads = chart
        .metric("webhook-metrics", "harbinger_admission_certificate_loads_total", &labels)
        .await?;
    ensure!(loads >= 2.0, "{loads} certificates were taken up");
    webhook.ensure_running()
}

fn bare() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "bare-"},
        "spec": {"containers": [{"name": "c", "image": "c"}]},
    })
}

/// What is wrong with an answer.
fn fault(answer: &Answer) -> Option<String> {
    let cured = answer.request("containers", 0, "cpu") == Some("100m");
    (answer.code != 201 || !cured).then(|| format!("{} {}", answer.code, answer.object))
}

async fn create(client: Client, namespace: String, tally: Arc<Tally>) {
    let mut ticks = tokio::time::interval(PAUSE);
    while !tally.stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let why = match dry_pod(&client, &namespace, &bare()).await {
            Ok(answer) => fault(&answer),
            Err(error) => Some(format!("{error:#}")),
        };
        tally.pods.fetch_add(1, Ordering::Relaxed);
        tally.failures.lock().extend(why);
    }
}

async fn shake(direct: Direct, tally: Arc<Tally>) {
    let mut ticks = tokio::time::interval(PAUSE);
    while !tally.stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        match direct.certificate().await {
            Ok(certificate) => drop(tally.certificates.lock().insert(certificate)),
            Err(error) => tally.failures.lock().push(format!("handshake: {error:#}")),
        }
        tally.handshakes.fetch_add(1, Ordering::Relaxed);
    }
}
