//! Demand: who asks for capacity, and which node is meant for whom.
//!
//! The watch is the only witness: a workload that exists and wants more pods than it has is a
//! reservation. Pods that were planned for a node on its way are assigned to it, so that planning
//! again neither buys twice nor takes a node apart.

pub mod assignment;
pub mod reservation;

pub use assignment::{Assignment, Assignments};
pub use reservation::{Ledger, Phase, Reservation};
