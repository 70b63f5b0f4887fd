//! The loops of the provisioner: they watch, ask the planners, and carry out.
//!
//! One task owns the state and decides; whatever waits for the API server or the cloud is a task of
//! its own that reports back. A claim has at most one task at a time.

pub mod catalogs;
pub mod engine;
pub mod garbage;
pub mod launch;
pub mod lifecycle;
pub mod quotes;
pub mod reservations;
pub mod status;
pub mod termination;
pub mod usage;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

pub use engine::{Engine, Message, Settings};

use crate::plan::health::Registrations;
use crate::server::{About, ApiServer, EventNote};

/// The clock, asked in one place.
pub trait Clock: Send + Sync + 'static {
    /// The moment.
    fn now(&self) -> Timestamp;
}

/// What every task needs.
#[derive(Debug)]
pub struct Context<A, C, K> {
    /// The API server.
    pub api: Arc<A>,
    /// The cloud.
    pub cloud: Arc<C>,
    /// The clock.
    pub clock: Arc<K>,
    /// Metrics.
    pub metrics: crate::telemetry::Metrics,
    /// How the last nodes of each pool fared.
    pub registrations: Arc<Mutex<Registrations>>,
    /// Cancelled when the process is to end: tasks finish the call under way and begin no other.
    pub stop: CancellationToken,
}

impl<A, C, K> Clone for Context<A, C, K> {
    fn clone(&self) -> Self {
        Self {
            api: Arc::clone(&self.api),
            cloud: Arc::clone(&self.cloud),
            clock: Arc::clone(&self.clock),
            metrics: self.metrics.clone(),
            registrations: Arc::clone(&self.registrations),
            stop: self.stop.clone(),
        }
    }
}

/// How an operation ended; metrics and logs follow from it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The cluster or the cloud was changed.
    Applied,
    /// Something else must happen first.
    Waiting,
    /// There was nothing to do.
    Skipped,
    /// It failed and will be tried again.
    Failed(String),
}

impl<A: ApiServer, C, K: Clock> Context<A, C, K> {
    /// Writes an Event of the field's name for what happened, best effort.
    pub async fn note(&self, about: About, reason: &'static str, message: String) {
        self.tell(about, false, reason, message).await;
    }

    /// Writes an Event for what a person should look at, best effort.
    pub async fn warn(&self, about: About, reason: &'static str, message: String) {
        self.tell(about, true, reason, message).await;
    }

    async fn tell(&self, about: About, warning: bool, reason: &'static str, message: String) {
        let note = EventNote { about, warning, reason, message, at: self.clock.now() };
        self.api.event(note).await;
    }
}

impl<A, C, K> Context<A, C, K> {
    /// Waits before the next attempt; false when the process is to end and there is none.
    pub async fn pause(&self, time: Duration) -> bool {
        self.stop.run_until_cancelled(tokio::time::sleep(time)).await.is_some()
    }

    /// Records how an operation on an object ended.
    pub fn record(&self, operation: &'static str, object: &str, outcome: &Outcome) {
        let label = match outcome {
            Outcome::Applied => "applied",
            Outcome::Waiting => "waiting",
            Outcome::Skipped => "skipped",
            Outcome::Failed(_) => "failed",
        };
        let labels = crate::telemetry::metrics::OutcomeLabel { operation, outcome: label };
        self.metrics.operations.get_or_create(&labels).inc();
        match outcome {
            Outcome::Applied => tracing::info!(operation, object, "done"),
            Outcome::Failed(error) => {
                tracing::warn!(operation, object, error, "failed and is tried again");
            }
            Outcome::Waiting | Outcome::Skipped => {
                tracing::debug!(operation, object, label, "nothing done");
            }
        }
    }
}
