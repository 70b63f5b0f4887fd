//! Tests of the program as a whole, in one binary.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests fail by panicking, and may read the clock to measure"
)]

mod cli;
mod tidy;
#[cfg(feature = "aws")]
mod wire;
