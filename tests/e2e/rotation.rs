//! Certificates of the webhook are renewed, and its authority replaced, again and again while pods are
//! created, and no pod is refused or left unjudged for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use harbinger::certs::{self, Certificates, Request};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::json;
use testbed::install::{self, Chart, NAMESPACE, PORT};
use testbed::plane::{Plane, PlaneOptions};
use testbed::poll;

use super::direct::Direct;
use super::load::{Load, repeat};
use super::restarts::Replica;
use super::world::DEADLINE;

/// Pause between two handshakes.
const PAUSE: Duration = Duration::from_millis(20);
/// Certificates that are seen at least: the first and two more.
const CERTIFICATES: usize = 3;
/// How long the operator of an authority waits for API servers to read a changed registration. They
/// hear of it within a tenth of a second and do not say when.
const SETTLE: Duration = Duration::from_secs(2);
const SECRET: &str = "harbinger-webhook-tls";
/// All registered webhooks.
const HOOKS: [&str; 3] =
    ["pods.mutate.harbinger.sh", "pods.validate.harbinger.sh", "workloads.advise.harbinger.sh"];
/// Life of what the webhook makes itself.
const LIFE: Duration = Duration::from_secs(24);

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
    let address = format!("{}:{PORT}", chart.ip);
    let shaking = tokio::spawn(shake(address, move || bundle.clone(), Arc::clone(&shaken)));
    let started = Instant::now();
    let seen = poll::until("rotations", DEADLINE, async || {
        load.ensure_worth_it()?;
        let seen = shaken.certificates.lock().len();
        ensure!(seen >= CERTIFICATES, "{seen} certificates");
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

/// Shakes hands with what is at the address, trusting what is trusted at that moment.
async fn shake(address: String, trusted: impl Fn() -> Vec<u8>, seen: Arc<Seen>) {
    let mut ticks = tokio::time::interval(PAUSE);
    while !seen.stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let shown = async { Direct::new(address.clone(), &trusted())?.certificate().await };
        match shown.await {
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

/// What each registered webhook trusted, one after another.
#[derive(Clone, Default)]
struct History(Arc<Mutex<BTreeMap<String, Vec<BTreeSet<String>>>>>);

impl History {
    /// Notes what the hooks of a registration trust, at each of its changes.
    async fn follow<K>(
        self,
        registration: Api<K>,
        name: &str,
        hooks: impl Fn(K) -> Vec<(String, WebhookClientConfig)>,
    ) where
        K: kube::Resource<DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + 'static,
    {
        let mut changes = Box::pin(watch_object(registration, name));
        while let Some(change) = changes.next().await {
            // A gap ends in the object as it is then.
            let Ok(Some(object)) = change else { continue };
            let mut all = self.0.lock();
            for (hook, config) in hooks(object) {
                let bundle = config.ca_bundle.unwrap_or_default().0;
                let bundle = String::from_utf8_lossy(&bundle);
                let blocks = bundle.split_inclusive("-----END CERTIFICATE-----").map(str::trim);
                let trusted: BTreeSet<String> =
                    blocks.filter(|block| !block.is_empty()).map(str::to_owned).collect();
                let history = all.entry(hook).or_default();
                if !trusted.is_empty() && history.last() != Some(&trusted) {
                    history.push(trusted);
                }
            }
        }
    }

    /// What one of the hooks trusts now, as PEM.
    fn now(&self, hook: &str) -> Vec<u8> {
        let all = self.0.lock();
        let last = all.get(hook).and_then(|history| history.last()).into_iter().flatten();
        last.flat_map(|block| [block, "\n"]).collect::<String>().into_bytes()
    }

    /// All authorities so far.
    fn authorities(&self) -> BTreeSet<String> {
        self.0.lock().values().flatten().flatten().cloned().collect()
    }

    /// Fails unless each of the hooks has come to trust an authority alone that is not of `before` so
    /// many times, and never trusted one instead of another without both between.
    fn ensure_rotated(&self, times: usize, before: &BTreeSet<String>) -> Result<()> {
        let all = self.0.lock();
        ensure!(all.len() == HOOKS.len() && HOOKS.iter().all(|hook| all.contains_key(*hook)));
        for (hook, history) in all.iter() {
            for pair in history.windows(2) {
                let (this, next) = (&pair[0], &pair[1]);
                let overlaps = this.is_subset(next) || next.is_subset(this);
                ensure!(overlaps, "{hook} trusts {next:#?} right after {this:#?}");
            }
            let mut alone: Vec<_> = history.iter().filter(|trusted| trusted.len() == 1).collect();
            alone.dedup();
            let mut different = alone.clone();
            different.sort();
            different.dedup();
            ensure!(different.len() == alone.len(), "{hook} trusts an authority of before again");
            let rotated = alone.iter().filter(|trusted| trusted.is_disjoint(before)).count();
            ensure!(rotated >= times, "{hook}: {rotated} of {times} rotations");
        }
        Ok(())
    }
}

/// An authority of the webhook's own making is followed by another, and that by a third, with two
/// replicas of which now the one and now the other is first to see that something is due.
#[tokio::test(flavor = "multi_thread")]
async fn self_made_authorities_rotate_under_load() -> Result<()> {
    let plane = Plane::start(PlaneOptions::default()).await?;
    let client = plane.client();
    let values = [
        "certificates.mode=selfManaged",
        "webhook.failurePolicy=Fail",
        // The next authority is due after 16 s, and both are trusted for 6 s.
        "webhook.extraArgs={--authority-lifetime-seconds=24,--certificate-lifetime-seconds=24,\
         --certificate-poll-seconds=1,--connection-seconds=2}",
    ];
    let chart = Chart::install(&plane, env!("CARGO_BIN_EXE_harbinger"), &values, &[]).await?;
    let history = History::default();
    let mutating = history.clone().follow(
        Api::<MutatingWebhookConfiguration>::all(client.clone()),
        "zz-harbinger",
        |object| object.webhooks.into_iter().flatten().map(|h| (h.name, h.client_config)).collect(),
    );
    let validating = history.clone().follow(
        Api::<ValidatingWebhookConfiguration>::all(client.clone()),
        "harbinger",
        |object| object.webhooks.into_iter().flatten().map(|h| (h.name, h.client_config)).collect(),
    );
    let watching = tokio::spawn(async { futures::join!(mutating, validating) });
    // Due for the next one five seconds from now, when the load has begun.
    let request = Request {
        ca_lifetime: LIFE,
        serving_lifetime: LIFE,
        ..Request::new("harbinger", NAMESPACE, Timestamp::now() - Duration::from_secs(11))
    };
    let first = certs::issue(&request)?;
    let mut kept = secret(&first);
    for (name, text) in [("ca.crt", &first.ca), ("ca.key", &first.ca_key)] {
        let data = kept.data.get_or_insert_default();
        data.insert(name.to_owned(), ByteString(text.as_bytes().to_vec()));
    }
    let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
    secrets.create(&PostParams::default(), &kept).await?;
    let (_service, mut replicas) = Replica::start_all(&plane, &chart).await?;
    let told = || replicas.iter().map(|r| r.process.log_tail(20)).collect::<Vec<_>>().join("\n");
    let load = Load::start(&plane).await.with_context(told)?;
    let before = history.authorities();
    let shaken = Arc::new(Seen::default());
    let trusted = {
        let history = history.clone();
        move || history.now(HOOKS[0])
    };
    let address = format!("{}:{PORT}", chart.ip);
    let shaking = tokio::spawn(shake(address, trusted, Arc::clone(&shaken)));

    let rotations = repeat(2);
    // Where the load came late there is one more.
    let deadline = DEADLINE + LIFE * u32::try_from(rotations + 1)?;
    let rotated = poll::until("rotations", deadline, async || {
        load.ensure_worth_it()?;
        history.ensure_rotated(rotations, &before)
    })
    .await;
    shaken.stop.store(true, Ordering::Relaxed);
    shaking.await?;
    watching.abort();
    let met = load.end().await?;
    let failures = [met.failures, shaken.failures.lock().clone()].concat();
    let certificates = shaken.certificates.lock().len();
    println!(
        "{rotations} rotations of an authority of our own and {certificates} certificates in {:.1?}: \
         {} pods through the API server and {} direct handshakes, {} failures",
        met.took,
        met.pods,
        shaken.handshakes.load(Ordering::Relaxed),
        failures.len(),
    );
    ensure!(failures.is_empty(), "{failures:#?}\n{}", told());
    rotated.with_context(told)?;
    ensure!(certificates > rotations, "{certificates} certificates");
    // Nothing of before is kept.
    let kept = secrets.get(SECRET).await?.data.unwrap_or_default();
    ensure!(kept.get("ca.crt").is_some_and(|ca| ca.0 != first.ca.as_bytes()), "the first is kept");
    for replica in &mut replicas {
        replica.process.ensure_running()?;
    }
    Ok(())
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
