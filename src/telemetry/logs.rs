//! Log output.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::prelude::*;
use tracing_subscriber::util::TryInitError;

/// Shape of log lines.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// One readable line an event.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

/// The client tells each answer of 5xx as an error. Whoever asked says what it means, and whether it is
/// one: metrics that are not there for a while are not.
const CLIENT: &str = "kube_client::client::builder=off";

/// Sends log events of `filter` (a level or `target=level` list) to standard error.
///
/// # Errors
/// When a subscriber is already installed.
pub fn init(filter: &str, format: LogFormat) -> Result<(), TryInitError> {
    let filter = EnvFilter::builder().parse_lossy(format!("{CLIENT},{filter}"));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE);
    match format {
        LogFormat::Text => registry.with(layer.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    }
}
