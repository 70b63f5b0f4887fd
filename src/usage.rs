//! Learned requests: what containers used, and what a container without requests should ask for.
//!
//! The provisioner's leader folds samples into a [`Book`]; checkpoints of it (a few hundred bytes
//! per container) become [`Estimates`], which admission reads. No names are kept, only hashes of them:
//! a checkpoint says nothing about its namespace to who cannot name its workloads.
//!
//! What is kept of a container: a decaying histogram of its cpu use and one of its memory peaks, one
//! peak per pod and day, each for its newest revision and for all older ones; the memory with which
//! it was killed; the highest peaks of the last days, which show a leak.
//!
//! The amount is the quantile `c / (c + 1)` of what was seen, where an under-request costs `c` times
//! an over-request (the newsvendor's answer). Where little was seen it is drawn, in logarithms,
//! towards what similar containers need; see [`Level`] for the ladder. Amounts lie on a grid of 5 %,
//! so that replicas of the webhook agree and pods of one workload keep one shape.
//!
//! What it does not decide: whether requests are set at all, and what limits, quotas and nodes leave.

mod book;
mod class;
mod encode;
mod estimates;
mod grid;
mod histogram;
mod history;
mod key;
mod ladder;
mod profile;
mod scale;

pub use book::{Book, CHUNK, MOST_CONTAINERS, Part, Sample};
pub use encode::{BadCheckpoint, MOST_BYTES};
pub use estimates::{Estimates, Namespace, Recommendation};
pub use grid::step_up;
pub use histogram::Histogram;
pub use key::{Keys, Subject, instance};
pub use ladder::{Estimate, Level};
pub use scale::Measure;

/// Seconds of a day; memory peaks are kept one per pod and day.
const DAY: i64 = 86_400;

#[cfg(test)]
mod tests;
