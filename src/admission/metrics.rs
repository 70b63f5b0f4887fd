//! Metrics of the webhook. Labels are enums, never names of objects.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Labels of a review.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct ReviewLabels {
    /// `mutate`, `validate` or `advise`.
    pub endpoint: &'static str,
    /// How it ended.
    pub outcome: &'static str,
    /// Whether it was a dry run, so that models of load can leave it out.
    pub dry_run: &'static str,
}

/// One label, by name and value.
pub(super) type Label = Vec<(&'static str, &'static str)>;

/// All metrics of the webhook.
#[derive(Debug)]
pub struct Metrics {
    /// Reviews by endpoint and outcome.
    pub reviews: Family<ReviewLabels, Counter>,
    /// Seconds from the head of a request to its answer.
    pub duration: Family<Label, Histogram, fn() -> Histogram>,
    /// Bytes of patches that were sent.
    pub patch_bytes: Histogram,
    /// Patches that failed their own test.
    pub patches_dropped: Counter,
    /// Intents by result: `queued` or `dropped`.
    pub intents: Family<Label, Counter>,
    /// Questions about cost by result: `answered` or `none`.
    pub quotes: Family<Label, Counter>,
    /// Open connections.
    pub connections: Gauge,
    /// Connections closed for want of room, by reason: `connections` or `handshakes`.
    pub connections_shed: Family<Label, Counter>,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: Counter,
    /// Seconds until the serving certificate ends.
    pub certificate_expires_in: Gauge,
    /// Changes of the certificate files by result: `loaded` or `refused`.
    pub certificate_loads: Family<Label, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            reviews: Family::default(),
            // A decision takes some tens of microseconds, a full round over TLS up to some
            // milliseconds; above that only the deadline of 500 ms and the registered 2 s matter.
            duration: Family::new_with_constructor(|| {
                Histogram::new([
                    50e-6, 100e-6, 200e-6, 400e-6, 800e-6, 1.6e-3, 3.2e-3, 10e-3, 50e-3, 0.5, 2.0,
                ])
            }),
            patch_bytes: Histogram::new([128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0]),
            patches_dropped: Counter::default(),
            intents: Family::default(),
            quotes: Family::default(),
            connections: Gauge::default(),
            connections_shed: Family::default(),
            handshakes_failed: Counter::default(),
            certificate_expires_in: Gauge::default(),
            certificate_loads: Family::default(),
        }
    }
}

impl Metrics {
    /// Registers all metrics as `harbinger_admission_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("harbinger_admission");
        registry.register("reviews", "Reviews by endpoint and outcome", self.reviews.clone());
        registry.register(
            "duration_seconds",
            "Time from the head of a request to its answer",
            self.duration.clone(),
        );
        registry.register(
            "patch_bytes",
            "Bytes of patches that were sent",
            self.patch_bytes.clone(),
        );
        registry.register(
            "patches_dropped",
            "Patches that failed their own test and were not sent",
            self.patches_dropped.clone(),
        );
        registry.register("intents", "Intents by result", self.intents.clone());
        registry.register("quotes", "Questions about cost by result", self.quotes.clone());
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register(
            "connections_shed",
            "Connections closed for want of room by reason",
            self.connections_shed.clone(),
        );
        registry.register(
            "handshakes_failed",
            "TLS handshakes that failed or took too long",
            self.handshakes_failed.clone(),
        );
        registry.register(
            "certificate_expires_in_seconds",
            "Time until the serving certificate ends",
            self.certificate_expires_in.clone(),
        );
        registry.register(
            "certificate_loads",
            "Changes of the certificate files by result",
            self.certificate_loads.clone(),
        );
    }
}
