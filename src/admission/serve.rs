//! The accept loop: TLS, deadlines, connection age and draining.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Version};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::metrics::Metrics;

/// Connections of a port at the same time. An API server keeps some tens. Each holds some 40 KB of TLS
/// and HTTP state, so all of them 40 MB. From half of them on each closes with its next answer; beyond,
/// a new one is closed at once: its client hears so in a millisecond, where in the backlog it would wait
/// for its time-out.
pub(super) const CONNECTIONS: usize = 1024;

/// TLS handshakes at the same time. One takes some 0.5 ms of a core, so the last of them ends within
/// the 50 ms after which requests are shed, on two cores.
pub(super) const HANDSHAKES: usize = 128;

/// Time that a connection waits for its handshake to begin, the deadline of a whole review.
const HANDSHAKE_WAIT: Duration = Duration::from_millis(500);

/// Time for a TLS handshake: the API server itself gives up after the registered 2 s.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// Time from the handshake to the first whole request head, against clients that never send one.
const FIRST_REQUEST: Duration = Duration::from_secs(30);

/// Time for a later request head. hyper counts the idle time of a kept connection as part of it,
/// and the API server keeps idle connections for 90 s; closing one earlier races its next request.
const IDLE: Duration = Duration::from_mins(2);

/// Pause after a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Concurrent streams of one HTTP/2 connection.
const STREAMS: u32 = 256;

/// One port: how it speaks and when it stops.
#[derive(Clone)]
pub(super) struct Port {
    pub(super) router: Router,
    /// Absent for plain HTTP/1.
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) max_age: Duration,
    pub(super) room: Room,
    pub(super) metrics: Arc<Metrics>,
    /// From here on every answer closes its connection.
    pub(super) draining: CancellationToken,
    /// From here on nothing is accepted and idle connections are closed.
    pub(super) stopping: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Port {
    /// Accepts until stopping. Connections run on the port's task tracker.
    pub(super) async fn accept(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stopping.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Ok(permit) = Arc::clone(&self.room.connections).try_acquire_owned() else {
                        self.shed("connections");
                        continue;
                    };
                    let port = self.clone();
                    self.tasks.spawn(async move {
                        port.metrics.connections.inc();
                        port.connection(stream, peer).await;
                        port.metrics.connections.dec();
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Counts a connection that is closed for want of room for it.
    fn shed(&self, why: &'static str) {
        self.metrics.connections_shed.get_or_create(&vec![("reason", why)]).inc();
        tracing::debug!(why, "a connection is closed for want of room");
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let Some(tls) = &self.tls else {
            return self.serve(stream, peer, false).await;
        };
        let turn = tokio::time::timeout(HANDSHAKE_WAIT, self.room.handshakes.acquire()).await;
        let Ok(Ok(permit)) = turn else {
            return self.shed("handshakes");
        };
        let accepted = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await;
        drop(permit);
        match accepted {
            Ok(Ok(stream)) => {
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                self.serve(stream, peer, h2).await;
            }
            Ok(Err(error)) => {
                self.metrics.handshakes_failed.inc();
                tracing::debug!(%error, %peer, "TLS handshake failed");
            }
            Err(_) => {
                self.metrics.handshakes_failed.inc();
                tracing::debug!(%peer, "TLS handshake took too long");
            }
        }
    }

    async fn serve<S>(&self, stream: S, peer: SocketAddr, h2: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let state = Arc::new(State::default());
        let service = {
            let (port, state) = (self.clone(), Arc::clone(&state));
            hyper::service::service_fn(move |request: Request<Incoming>| {
                state.used.store(true, Ordering::Relaxed);
                let (router, draining, room) =
                    (port.router.clone(), port.draining.clone(), port.room.clone());
                let state = Arc::clone(&state);
                async move {
                    let version = request.version();
                    let answer = router.oneshot(request.map(Body::new)).await;
                    let mut response = answer.unwrap_or_else(|never: Infallible| match never {});
                    let closing = draining.is_cancelled()
                        || room.is_crowded()
                        || state.old.load(Ordering::Relaxed);
                    // A connection must not be closed while its next request may be on the way, so
                    // the client is told to close. HTTP/2 has its own frame for that.
                    if closing && version <= Version::HTTP_11 {
                        response
                            .headers_mut()
                            .insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(response)
                }
            })
        };
        let builder = builder(h2);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let born = tokio::time::Instant::now();
        let mut stopping = false;
        loop {
            let (is_old, is_used) =
                (state.old.load(Ordering::Relaxed), state.used.load(Ordering::Relaxed));
            tokio::select! {
                biased;
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(%error, %peer, "connection ended");
                    }
                    return;
                }
                () = self.stopping.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = tokio::time::sleep_until(born + FIRST_REQUEST), if !is_used => {
                    if !state.used.load(Ordering::Relaxed) {
                        tracing::debug!(%peer, "no request came");
                        return;
                    }
                }
                () = tokio::time::sleep_until(born + self.age_of(peer)), if !is_old => {
                    state.old.store(true, Ordering::Relaxed);
                    if h2 {
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        }
    }

    /// The age at which a connection closes, spread by its port over an eighth, so that connections
    /// which began together do not end together.
    fn age_of(&self, peer: SocketAddr) -> Duration {
        self.max_age + self.max_age * u32::from(peer.port() % 64) / 512
    }
}

/// What a connection's service and its task tell each other.
#[derive(Default)]
struct State {
    used: AtomicBool,
    old: AtomicBool,
}

/// Room for connections of a port.
#[derive(Clone)]
pub(super) struct Room {
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    /// With less room than this for further ones, connections close with their next answer.
    spare: usize,
}

impl Room {
    pub(super) fn new(connections: usize, handshakes: usize) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(connections)),
            handshakes: Arc::new(Semaphore::new(handshakes)),
            spare: connections / 2,
        }
    }

    fn is_crowded(&self) -> bool {
        self.connections.available_permits() < self.spare
    }
}

fn builder(h2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    if h2 { builder.http2_only() } else { builder.http1_only() }
}
