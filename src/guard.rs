//! The guard against eviction loops: pods that use more than they ask for are ended, their controller
//! makes new ones that ask for as little, and it goes on for ever.
//!
//! A [`Guard`] folds the failures of pods into a small record per workload. From it follow the least
//! that the workload's next pods should ask for ([`Guard::floor`]), and whether it loops
//! ([`Guard::loops`]), which people are told of and which stops reservations for it.
//!
//! Within its bounds, folding the same failures in any order, any number of times, gives the same
//! floors, so replicas that list at different times agree. Failed pods stay in the API server until they are collected,
//! so a restart reads most of what it knew.
//!
//! What it does not do: change a request that somebody wrote down. A floor raises defaults only.

mod record;

pub use record::{Floor, Guard, Loop, WINDOW};

#[cfg(test)]
mod tests;
