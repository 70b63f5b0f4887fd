//! Logs and metrics. The only place that names a metric.

pub mod logs;
pub mod metrics;

pub use metrics::Metrics;
