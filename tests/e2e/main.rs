//! The released binary on a real control plane, with EC2 played by an emulator behind a market.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests fail by panicking, may read the clock to measure, and say what they measured"
)]

mod admission;
mod advice;
mod audit;
mod broken;
mod burst;
mod conformance;
mod crash;
mod crds;
mod differential;
mod direct;
mod doctor;
mod door;
mod fixed;
mod gotcha;
mod groups;
mod install;
mod learned;
mod load;
mod manifests;
mod overlays;
mod policies;
mod provision;
mod reserved;
mod restarts;
mod rotation;
mod scene;
mod shortage;
mod submit;
mod volumes;
#[cfg(feature = "aws")]
mod wire;
mod world;
