//! Waiting for something to become true, with a deadline instead of a sleep.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Pause between two looks: short against every wait here, long against the cost of one look.
const PAUSE: Duration = Duration::from_millis(25);

/// Repeats `probe` until it succeeds; after `deadline` its last error is the answer.
pub async fn until<T, F, Fut>(what: &str, deadline: Duration, mut probe: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let started = Instant::now();
    let mut last = anyhow!("no answer");
    loop {
        let left = deadline.saturating_sub(started.elapsed());
        match tokio::time::timeout(left, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = error,
            // Cut off by the deadline: the error before says more.
            Err(_) => {}
        }
        if started.elapsed() + PAUSE >= deadline {
            return Err(last.context(format!("{what}: not within {deadline:?}")));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
