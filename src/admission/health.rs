//! Health and metrics, on their own port and without TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio_util::sync::CancellationToken;

use super::certificate::Certificate;

/// What readiness depends on. Liveness depends on nothing: an outage of the control plane must not
/// restart all replicas at once.
#[derive(Clone)]
pub(super) struct Readiness {
    pub(super) synced: Arc<AtomicBool>,
    pub(super) certificate: Arc<Certificate>,
    pub(super) draining: CancellationToken,
}

impl Readiness {
    /// Why the server is not ready, if it is not.
    fn obstacle(&self) -> Option<&'static str> {
        if self.draining.is_cancelled() {
            Some("shutting down")
        } else if !self.synced.load(Ordering::Relaxed) {
            Some("policies are not synced yet")
        } else if !self.certificate.is_valid() {
            Some("the serving certificate has ended")
        } else {
            None
        }
    }
}

/// The router of `/healthz`, `/readyz` and `/metrics`.
pub(super) fn router(
    readiness: Readiness,
    render: Arc<dyn Fn() -> String + Send + Sync>,
) -> Router {
    const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let ready = move || async move {
        match readiness.obstacle() {
            None => (StatusCode::OK, "ready\n".to_owned()),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
        }
    };
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(move || async move { ([(CONTENT_TYPE, TEXT)], render()) }))
}
