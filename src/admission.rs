//! The webhook server: HTTPS in, decisions from a snapshot, intents out.
//!
//! Three endpoints: `/mutate/pods` sets requests, `/validate/pods` refuses and warns, and
//! `/advise/workloads` tells whoever applies a workload what its pods will meet, and tells the
//! provisioner what is about to come. Nothing here asks the API server. Pods wait for nothing but the
//! request's own body; advice waits a moment for the provisioner, which knows what nodes cost, and
//! does without when it says nothing.
//!
//! It is bounded everywhere (body, memory, time, connections) and fails open: whatever goes wrong,
//! the answer is "allowed" with a warning and a counter, except on `/validate/pods` of a
//! [strict](Settings::strict) server.

mod certificate;
mod endpoint;
mod health;
mod metrics;
mod pressure;
mod read;
mod registration;
mod review;
mod router;
mod serve;
mod server;
mod workload;

pub use certificate::{CertificateError, CertificateSource, PemPair};
pub use endpoint::{Answer, Endpoint, Outcome, Reviewer};
pub use metrics::Metrics;
pub use registration::{ClientConfig, Registration, registration};
pub use server::{BindError, Server};

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::{advice, intent, policy};

/// Where decisions read the policies; a watch elsewhere stores new snapshots.
pub type PolicySource = Arc<ArcSwap<policy::Snapshot>>;

/// Where advice reads what stands beside workloads; watches elsewhere store it.
pub type FactsSource = Arc<ArcSwap<advice::Facts>>;

/// Tells the time of day.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Bytes of a body. A review holds the object and the old object, which the API server caps at
/// 3 MiB each, and a wrapper.
pub const BODY_LIMIT: usize = 8 << 20;

/// How the server listens and what it is bounded by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of the webhook.
    pub listen: SocketAddr,
    /// Address of health and metrics, plain HTTP.
    pub health_listen: SocketAddr,
    /// Serving certificate and key.
    pub certificate: CertificateSource,
    /// How often certificate files are read. The kubelet itself takes up to a minute to bring a new
    /// Secret.
    pub certificate_poll: Duration,
    /// Time from the first byte of a request to its answer; well below the registered 2 s.
    pub deadline: Duration,
    /// Bytes of bodies held at the same time: eight of the largest, or 4000 of the usual.
    pub body_budget: usize,
    /// How long a request waits for its share of the budget before it is answered unjudged.
    pub shed_after: Duration,
    /// How long work may wait for a thread before requests are answered unjudged: half of the deadline,
    /// and more than the pauses of a container that used up its share of a core.
    pub late_after: Duration,
    /// Connections at the same time. From half of them on each closes with its next answer.
    pub connections: usize,
    /// TLS handshakes at the same time.
    pub handshakes: usize,
    /// Age at which a connection is closed after its next answer, so that the API server spreads
    /// itself over new replicas.
    pub max_connection_age: Duration,
    /// Time between the shutdown signal and the end of accepting, in which kube-proxy and the API
    /// server learn that this replica is going.
    pub drain_delay: Duration,
    /// Time for requests in flight after that.
    pub drain_timeout: Duration,
    /// Whether `/validate/pods` refuses what it could not judge.
    pub strict: bool,
}

impl Settings {
    /// The usual bounds.
    pub fn new(
        listen: SocketAddr,
        health_listen: SocketAddr,
        certificate: CertificateSource,
    ) -> Self {
        Self {
            listen,
            health_listen,
            certificate,
            certificate_poll: Duration::from_secs(10),
            deadline: Duration::from_millis(500),
            body_budget: 64 << 20,
            shed_after: Duration::from_millis(50),
            late_after: Duration::from_millis(250),
            connections: serve::CONNECTIONS,
            handshakes: serve::HANDSHAKES,
            max_connection_age: Duration::from_mins(10),
            drain_delay: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(10),
            strict: false,
        }
    }
}

/// What the server is given by the application.
#[derive(Clone)]
pub struct Context {
    /// The policies.
    pub policies: PolicySource,
    /// What stands beside workloads. What is not known yet is not spoken of.
    pub facts: FactsSource,
    /// Whether the policies are complete; until then the server is not ready.
    pub synced: Arc<AtomicBool>,
    /// Where intents go, if anywhere.
    pub intents: Option<intent::Sender>,
    /// Where decisions are counted for the policies' status. A lock of a moment, taken for pods that
    /// lack something only.
    pub tally: Arc<Mutex<policy::Tally>>,
    /// The metrics, registered by the application.
    pub metrics: Arc<Metrics>,
    /// Prints all metrics of the process for `/metrics`.
    pub render: Arc<dyn Fn() -> String + Send + Sync>,
    /// The clock.
    pub clock: Clock,
}

#[cfg(test)]
mod tests;
