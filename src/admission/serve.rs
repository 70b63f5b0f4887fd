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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::metrics::Metrics;

/// Connections at the same time. An API server keeps some tens; the rest waits in the backlog.
const CONNECTIONS: usize = 1024;

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

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
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stopping.cancelled() => return,
                accepted = accept(&listener, &room) => accepted,
            };
            match accepted {
                Ok((stream, peer, permit)) => {
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

    async fn connection(&self, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let Some(tls) = &self.tls else {
            return self.serve(stream, peer, false).await;
        };
        match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
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
            let (router, draining, state) =
                (self.router.clone(), self.draining.clone(), Arc::clone(&state));
            hyper::service::service_fn(move |request: Request<Incoming>| {
                state.used.store(true, Ordering::Relaxed);
                let (router, draining, state) =
                    (router.clone(), draining.clone(), Arc::clone(&state));
                async move {
                    let version = request.version();
                    let answer = router.oneshot(request.map(Body::new)).await;
                    let mut response = answer.unwrap_or_else(|never: Infallible| match never {});
                    let closing = draining.is_cancelled() || state.old.load(Ordering::Relaxed);
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

/// Waits for room first, so that a connection that cannot be served stays in the backlog.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room)
        .acquire_owned()
        .await
        .expect("the semaphore lives as long as the loop and is never closed");
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
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
