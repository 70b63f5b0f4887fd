//! The scheduling engine: which pods go where, and which nodes to buy for the rest.
//!
//! [`solve`](solve::solve) is a pure function of a [`Problem`]. It knows ordinals, shapes and
//! prices; it knows no object names beyond what it prints, reads no clock and does no IO.
//! [`check`] judges any solution without sharing code with the packer.

mod bare;
mod bound;
mod bundle;
mod buy;
pub mod check;
mod choice;
mod compile;
mod daemons;
mod domains;
mod even;
mod existing;
mod families;
mod feasible;
mod fill;
mod generate;
mod host;
mod improve;
mod lessons;
mod lp;
mod model;
mod pack;
pub mod problem;
pub mod reason;
mod relax;
pub mod relief;
pub mod removal;
mod repair;
mod rooms;
mod seed;
pub mod solution;
pub mod solve;
mod topology;
mod volumes;
mod why;

pub use bare::{BareNode, bare_node};
pub use families::{Family, families};
pub use problem::{Demand, GangSlot, Hurry, NodeSlot, Options, PoolSlot, Problem};
pub use reason::{Reason, Reasons, VolumeFault};
pub use rooms::rooms;
pub use solution::{NewNode, OfferingRef, Placement, Preference, Relaxed, Solution, Unplaced};
pub use solve::solve;

#[cfg(test)]
mod tests;
