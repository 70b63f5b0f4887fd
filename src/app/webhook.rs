//! The webhook: policies in memory, an HTTPS server, intents to the provisioner.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::certificates::{self, SelfManaged};
use super::{SystemClock, facts, policies, shutdown};
use crate::admission::{self, CertificateSource, Server};
use crate::control::Clock as _;
use crate::intent;
use crate::k8s::client;
use crate::k8s::watch::Watches;

/// Where the serving certificate comes from.
#[derive(Clone, Debug)]
pub enum Certificate {
    /// Files that something else keeps current.
    Files {
        /// Certificate, or chain.
        certificate: PathBuf,
        /// Key.
        key: PathBuf,
    },
    /// Made, kept in a Secret and renewed by the webhook itself.
    SelfManaged(SelfManaged),
}

/// What the webhook is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Kubeconfig; the pod's service account when absent.
    pub kubeconfig: Option<PathBuf>,
    /// Address of the webhook.
    pub listen: SocketAddr,
    /// Address of health and metrics.
    pub metrics_listen: SocketAddr,
    /// Serving certificate.
    pub certificate: Certificate,
    /// Socket of the provisioner; without it nobody hears of intents.
    pub intent_socket: Option<PathBuf>,
    /// Namespaces whose pods are never touched.
    pub excluded_namespaces: BTreeSet<String>,
    /// Bounds of the server.
    pub limits: Limits,
}

/// Bounds that users may change.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// See [`admission::Settings::drain_delay`].
    pub drain_delay: std::time::Duration,
    /// See [`admission::Settings::certificate_poll`].
    pub certificate_poll: std::time::Duration,
    /// See [`admission::Settings::max_connection_age`].
    pub max_connection_age: std::time::Duration,
    /// See [`admission::Settings::strict`].
    pub strict: bool,
}

/// Runs until a signal comes, then drains.
///
/// # Errors
/// When the API server cannot be reached, or the certificate or the addresses cannot be used.
pub async fn run(options: Options) -> Result<()> {
    let cancel = CancellationToken::new();
    let signals = cancel.clone();
    #[expect(clippy::disallowed_methods, reason = "nobody waits for signals that do not come")]
    tokio::spawn(async move { shutdown::on_signal(signals).await });
    let (sender, forwarder) = match &options.intent_socket {
        None => (None, None),
        Some(path) => {
            let (sender, forwarder) = intent::channel(path);
            (Some(sender), Some(forwarder))
        }
    };
    let stopped = CancellationToken::new();
    let tracker = TaskTracker::new();
    if let Some(forwarder) = forwarder {
        tracker.spawn(forwarder.run(stopped.clone()));
    }
    let result = serve(options, sender, cancel).await;
    stopped.cancel();
    tracker.close();
    tracker.wait().await;
    result
}

/// Serves until cancelled. Intents go to `intents`.
///
/// # Errors
/// When the API server cannot be reached, or the certificate or the addresses cannot be used.
pub async fn serve(
    options: Options,
    intents: Option<intent::Sender>,
    cancel: CancellationToken,
) -> Result<()> {
    let connection = client::connect(options.kubeconfig.as_deref()).await?;
    let tracker = TaskTracker::new();
    let background = CancellationToken::new();
    let watches = Watches {
        client: connection.client.clone(),
        tracker: tracker.clone(),
        cancel: background.clone(),
    };
    let policies = policies::follow(&watches, options.excluded_namespaces);
    let facts = facts::follow(&watches);
    let certificate = match options.certificate {
        Certificate::Files { certificate, key } => CertificateSource::Files { certificate, key },
        Certificate::SelfManaged(settings) => {
            let pair = certificates::start(connection.client, settings, &tracker, &background)
                .await
                .context("self-managed certificate")?;
            CertificateSource::Shared(pair)
        }
    };
    let metrics = Arc::new(admission::Metrics::default());
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let registry = Arc::new(registry);
    let settings = admission::Settings {
        drain_delay: options.limits.drain_delay,
        certificate_poll: options.limits.certificate_poll,
        max_connection_age: options.limits.max_connection_age,
        strict: options.limits.strict,
        ..admission::Settings::new(options.listen, options.metrics_listen, certificate)
    };
    let context = admission::Context {
        policies: policies.snapshot,
        facts,
        synced: policies.synced,
        intents,
        metrics,
        render: Arc::new(move || {
            let mut text = String::new();
            let printed = prometheus_client::encoding::text::encode(&mut text, &registry);
            printed.map_or_else(|error| error.to_string(), |()| text)
        }),
        clock: Arc::new(|| SystemClock.now()),
    };
    let server = Server::bind(settings, context).await?;
    tracing::info!(address = %server.addr(), health = %server.health_addr(), "webhook is listening");
    server.run(cancel).await;
    background.cancel();
    tracker.close();
    tracker.wait().await;
    Ok(())
}
