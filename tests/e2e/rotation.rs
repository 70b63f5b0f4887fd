//! Certificates of the webhook are renewed, and its authority replaced, again and again while pods are
//! created, and no pod is refused or left unjudged for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harbinger::certs::{self, Certificates, Request};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::json;
use testbed::install::{self, Chart, NAMESPACE, PORT};
use testbed::plane::{Plane, PlaneOptions};
use testbed::poll;

use super::direct::Direct;
use super::load::{Load, repeat};
use super::world::DEADLINE;

/// Pause between two handshakes.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the load lasts at least.
const LOAD: Duration = Duration::from_secs(30);
/// Certificates that are seen at least: the first and two more.
const CERTIFICATES: usize = 3;
/// How long the operator of an authority waits for API servers to read a changed registration. They
/// hear of it within a tenth of a second and do not say when.
const SETTLE: Duration = Duration::from_secs(2);
const SECRET: &str = "harbinger-webhook-tls";

/// What the handshakes met.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
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
    let load = Load::start(&plane).await.with_context(|| webhook.log_tail(20))?;
    let hooks = Api::<ValidatingWebhookConfiguration>::all(plane.client());
    let hooks = hooks.get("harbinger").await?.webhooks.unwrap_or_default();
    let bundle = hooks.first().and_then(|hook| hook.client_config.ca_bundle.clone());
    let bundle = bundle.context("no caBundle")?.0;

    let shaken = Arc::new(Seen::default());
    let direct = Direct::new(format!("{}:{PORT}", chart.ip), &bundle)?;
    let shaking = tokio::spawn(shake(direct, Arc::clone(&shaken)));
    let started = Instant::now();
    let seen = poll::until("rotations", LOAD + DEADLINE, async || {
        load.ensure_worth_it()?;
        let seen = shaken.certificates.lock().len();
        ensure!(started.elapsed() >= LOAD && seen >= CERTIFICATES, "{seen} certificates");
        Ok(seen)
    })
    .await;
    shaken.stop.store(true, Ordering::Relaxed);
    shaking.await?;
    let met = load.end().await?;
    let failures = [met.failures, shaken.failures.lock().clone()].concat();
    println!(
        "{:?}: {:?} certificates; {} pods through the API server and {} direct handshakes, {} \
         failures; {} connections by certificates that did not match",
        started.elapsed(),
        seen.as_ref().ok(),
        met.pods,
        shaken.handshakes.load(Ordering::Relaxed),
        failures.len(),
        chart.metric("webhook-metrics", "harbinger_admission_handshakes_failed_total", &[]).await?,
    );
    let log = webhook.log_tail(40);
    seen.with_context(|| format!("{failures:#?}\n{log}"))?;
    ensure!(failures.is_empty(), "{failures:#?}\n{log}");
    let loads = loaded(&chart).await?;
    ensure!(loads >= 2.0, "{loads} certificates were taken up");
    webhook.ensure_running()
}

async fn shake(direct: Direct, seen: Arc<Seen>) {
    let mut ticks = tokio::time::interval(PAUSE);
    while !seen.stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        match direct.certificate().await {
            Ok(certificate) => drop(seen.certificates.lock().insert(certificate)),
            Err(error) => seen.failures.lock().push(format!("handshake: {error:#}")),
        }
        seen.handshakes.fetch_add(1, Ordering::Relaxed);
    }
}

/// Certificates that the webhook has taken up after its start.
async fn loaded(chart: &Chart) -> Result<f64> {
    let name = "harbinger_admission_certificate_loads_total";
    chart.metric("webhook-metrics", name, &["result=\"loaded\""]).await
}

/// Who brings certificates of an own authority replaces it in three steps, as webhook-certs says:
/// trust both, serve by the new one, trust the new one alone.
#[tokio::test(flavor = "multi_thread")]
async fn authorities_rotate_under_load() -> Result<()> {
    let plane = Plane::start(PlaneOptions::default()).await?;
    let client = plane.client();
    install::namespace(&plane).await?;
    let mut now = authority()?;
    let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
    secrets.create(&PostParams::default(), &secret(&now)).await?;
    let bundle = format!("certificates.caBundle={}", encoded(now.ca.as_bytes()));
    let values = [
        "certificates.mode=bringYourOwn",
        &bundle,
        "webhook.failurePolicy=Fail",
        "webhook.extraArgs={--certificate-poll-seconds=1,--connection-seconds=2}",
    ];
    let chart = Chart::install(&plane, env!("CARGO_BIN_EXE_harbinger"), &values, &[]).await?;
    let mut webhook = chart.run(&plane, "webhook", Vec::new()).await?;
    let load = Load::start(&plane).await.with_context(|| webhook.log_tail(20))?;

    let rotations = repeat(2);
    let started = Instant::now();
    for _ in 0..rotations {
        load.ensure_worth_it()?;
        let next = authority()?;
        trust(&client, &format!("{}{}", now.ca, next.ca)).await?;
        tokio::time::sleep(SETTLE).await;
        let before = loaded(&chart).await?;
        let patch = Patch::Merge(secret(&next));
        secrets.patch(SECRET, &PatchParams::default(), &patch).await?;
        poll::until("the new certificate", DEADLINE, async || {
            ensure!(loaded(&chart).await? > before, "{before} loads");
            Ok(())
        })
        .await
        .with_context(|| webhook.log_tail(20))?;
        trust(&client, &next.ca).await?;
        // Connections of before end within their age; new ones trust the new authority alone.
        tokio::time::sleep(SETTLE).await;
        Direct::new(format!("{}:{PORT}", chart.ip), next.ca.as_bytes())?.certificate().await?;
        now = next;
    }
    let took = started.elapsed();
    let met = load.end().await?;
    println!(
        "{rotations} rotations of the authority in {took:.1?}: {} pods in {:.1?}, {} failures",
        met.pods,
        met.took,
        met.failures.len()
    );
    ensure!(met.failures.is_empty(), "{:#?}\n{}", met.failures, webhook.log_tail(40));
    webhook.ensure_running()
}

/// A new authority and a certificate by it.
fn authority() -> Result<Certificates> {
    Ok(certs::issue(&Request::new("harbinger", NAMESPACE, Timestamp::now()))?)
}

fn secret(certificates: &Certificates) -> Secret {
    let file = |name: &str, text: &str| (name.to_owned(), ByteString(text.as_bytes().to_vec()));
    let mut secret = Secret {
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(
            [file("tls.crt", &certificates.certificate), file("tls.key", &certificates.key)].into(),
        ),
        ..Secret::default()
    };
    secret.metadata.name = Some(SECRET.to_owned());
    secret
}

/// Writes the authorities (PEM) into both registrations.
async fn trust(client: &Client, authorities: &str) -> Result<()> {
    let bundle = encoded(authorities.as_bytes());
    let mutating = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let validating = Api::<ValidatingWebhookConfiguration>::all(client.clone());
    let count = |hooks: Option<usize>| hooks.unwrap_or(0);
    let patch = |hooks: usize| {
        let path = |at: usize| format!("/webhooks/{at}/clientConfig/caBundle");
        let operations = (0..hooks)
            .map(|at| json!({"op": "replace", "path": path(at), "value": bundle}))
            .collect::<Vec<_>>();
        serde_json::from_value::<json_patch::Patch>(json!(operations))
    };
    let hooks = count(mutating.get("zz-harbinger").await?.webhooks.map(|hooks| hooks.len()));
    let change = Patch::<MutatingWebhookConfiguration>::Json(patch(hooks)?);
    mutating.patch("zz-harbinger", &PatchParams::default(), &change).await?;
    let hooks = count(validating.get("harbinger").await?.webhooks.map(|hooks| hooks.len()));
    let change = Patch::<ValidatingWebhookConfiguration>::Json(patch(hooks)?);
    validating.patch("harbinger", &PatchParams::default(), &change).await?;
    Ok(())
}

fn encoded(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
