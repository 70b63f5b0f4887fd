//! Ending on signals.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels `cancel` on the first SIGTERM or SIGINT; the second ends the process at once.
///
/// # Errors
/// When signals cannot be received.
pub async fn on_signal(cancel: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    for round in 0..2 {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if round == 0 {
            tracing::info!("stopping");
            cancel.cancel();
        }
    }
    #[expect(clippy::exit, reason = "the user asked twice")]
    std::process::exit(130);
}
