//! Whether the process keeps up.
//!
//! Work that waits for a thread is not seen by whoever does it, so the wait itself is measured: a task
//! that wants to wake every few milliseconds is late by as long as a request would be.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(10);

/// How late things are.
#[derive(Debug)]
pub(super) struct Pressure {
    /// Lateness from which on requests are answered unjudged.
    most: Duration,
    high: AtomicBool,
}

impl Pressure {
    pub(super) fn new(most: Duration) -> Self {
        Self { most, high: AtomicBool::new(false) }
    }

    /// Whether a decision would come too late to be worth its time.
    pub(super) fn is_high(&self) -> bool {
        self.high.load(Ordering::Relaxed)
    }

    /// Takes down how late a look was.
    pub(super) fn note(&self, late: Duration) {
        self.high.store(late > self.most, Ordering::Relaxed);
    }

    /// Looks until stopped.
    pub(super) async fn watch(&self, stopping: CancellationToken) {
        loop {
            let due = Instant::now() + EVERY;
            if stopping.run_until_cancelled(tokio::time::sleep_until(due)).await.is_none() {
                return;
            }
            self.note(due.elapsed());
        }
    }
}
