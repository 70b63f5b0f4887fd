//! The server as a whole: bound first, then run until it has drained.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::certificate::{Certificate, CertificateError};
use super::endpoint::Reviewer;
use super::health::{self, Readiness};
use super::pressure::Pressure;
use super::serve::{Port, Room};
use super::{Context, Settings, router};

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A port cannot be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// There is no certificate to serve.
    #[error("cannot serve TLS")]
    Certificate(#[from] CertificateError),
    /// The TLS library refuses the configuration.
    #[error("cannot configure TLS")]
    Tls(#[from] rustls::Error),
}

/// A bound server.
pub struct Server {
    webhook: TcpListener,
    health: TcpListener,
    addr: SocketAddr,
    health_addr: SocketAddr,
    certificate: Arc<Certificate>,
    tls: TlsAcceptor,
    settings: Settings,
    context: Context,
}

impl Server {
    /// Loads the certificate and opens both ports. Connections wait in the backlog until
    /// [`run`](Self::run).
    pub async fn bind(settings: Settings, context: Context) -> Result<Self, BindError> {
        let certificate = Arc::new(Certificate::load(
            settings.certificate.clone(),
            Arc::clone(&context.clock),
            Arc::clone(&context.metrics),
        )?);
        let tls = acceptor(Arc::clone(&certificate))?;
        let (webhook, addr) = listen(settings.listen).await?;
        let (health, health_addr) = listen(settings.health_listen).await?;
        Ok(Self { webhook, health, addr, health_addr, certificate, tls, settings, context })
    }

    /// Address of the webhook.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Address of health and metrics.
    pub fn health_addr(&self) -> SocketAddr {
        self.health_addr
    }

    /// Serves until cancelled and drained: not ready and closing connections with their answers for
    /// the drain delay, then without new connections until those in flight end or time is up.
    pub async fn run(self, cancel: CancellationToken) {
        let Self { webhook, health, certificate, tls, settings, context, .. } = self;
        let reviewer = Reviewer::new(
            Arc::clone(&context.policies),
            context.intents.clone(),
            Arc::clone(&context.tally),
            Arc::clone(&context.metrics),
            Arc::clone(&context.clock),
            settings.strict,
        );
        let reviewer = Arc::new(reviewer.with_facts(Arc::clone(&context.facts)));
        let readiness = Readiness {
            synced: Arc::clone(&context.synced),
            certificate: Arc::clone(&certificate),
            draining: cancel.clone(),
        };
        let pressure = Arc::new(Pressure::new(settings.late_after));
        let port = Port {
            router: router::router(reviewer, &settings, Arc::clone(&pressure)),
            tls: Some(tls),
            max_age: settings.max_connection_age,
            room: Room::new(settings.connections, settings.handshakes),
            metrics: Arc::clone(&context.metrics),
            draining: cancel.clone(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        // Health outlives the webhook's drain, so that a probe sees "shutting down".
        let health_port = Port {
            router: health::router(readiness, Arc::clone(&context.render)),
            tls: None,
            room: Room::new(settings.connections, settings.handshakes),
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            metrics: Arc::default(),
            ..port.clone()
        };
        let background = TaskTracker::new();
        let (period, stopping) = (settings.certificate_poll, port.stopping.clone());
        background.spawn(async move { certificate.poll(period, stopping).await });
        let stopping = port.stopping.clone();
        background.spawn(async move { pressure.watch(stopping).await });
        background.spawn(port.clone().accept(webhook));
        background.spawn(health_port.clone().accept(health));

        cancel.cancelled().await;
        tracing::info!(delay = ?settings.drain_delay, "webhook is draining");
        tokio::time::sleep(settings.drain_delay).await;
        port.stopping.cancel();
        port.tasks.close();
        if tokio::time::timeout(settings.drain_timeout, port.tasks.wait()).await.is_err() {
            tracing::warn!(
                connections = port.tasks.len(),
                "connections cut after the drain timeout"
            );
        }
        health_port.stopping.cancel();
        health_port.tasks.close();
        background.close();
        background.wait().await;
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let failed = |source| BindError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// TLS 1.2 and 1.3 with the library's own choice of suites, all of them authenticated encryption.
fn acceptor(certificate: Arc<Certificate>) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    // The API server asks for HTTP/1.1 only, so that one connection does not carry all its calls.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
