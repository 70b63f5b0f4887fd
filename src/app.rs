//! The composition root: the only place that names adapters.

pub mod certificates;
pub mod cluster;
pub mod doctor;
pub mod facts;
pub mod health;
pub mod policies;
mod policy_status;
#[cfg(feature = "aws")]
pub mod provisioner;
mod rooms;
pub mod shutdown;
pub mod webhook;

use jiff::Timestamp;

use crate::control::Clock;

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
