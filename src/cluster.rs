//! The cluster's state: watch events in, immutable snapshots out.
//!
//! One task owns a [`State`](state::State) and folds events into it; everybody else reads
//! snapshots. No IO happens here.

pub mod snapshot;
pub mod state;
pub mod view;

pub use snapshot::Snapshot;
pub use state::{Change, Event, State};
