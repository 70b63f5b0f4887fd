//! Tests of the program as a whole, in one binary.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod cli;
mod tidy;
