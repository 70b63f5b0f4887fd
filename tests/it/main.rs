//! Tests of the program as a whole, in one binary.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod advice;
mod bad_input;
mod behaviour;
mod chart;
mod cli;
mod help;
mod mutations;
mod pools;
mod scan;
mod tidy;
mod usage;
mod volumes;
