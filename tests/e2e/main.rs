//! The released binary on a real control plane, with EC2 played by an emulator behind a market.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests fail by panicking, and may read the clock to measure"
)]

mod provision;
mod world;
