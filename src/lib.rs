//! Harbinger: a node autoscaler for Kubernetes on EC2 that has the node ready before the pod
//! needs it.
//!
//! Layers, lowest first; a layer uses only those below it:
//!
//! - L0 `model`, `api`: vocabulary and wire types
//! - L1 `guard`, `usage`, `policy`, `demand`, `cluster`, `schedule`, `plan`, `advice`: pure decisions
//! - L2 `cloud`, `telemetry`, `intent`, `certs`, `server`: seams and their simulated side
//! - L3 `aws`, `k8s`, `admission`: adapters
//! - L4 `control`, `simulate`, `doctor`: loops, the offline engine, a look at an installation
//! - L5 `cli`, `app`: wiring

pub mod admission;
pub mod advice;
pub mod api;
pub mod app;
#[cfg(feature = "aws")]
pub mod aws;
pub mod certs;
pub mod cli;
pub mod cloud;
pub mod cluster;
pub mod control;
pub mod demand;
pub mod doctor;
pub mod guard;
pub mod intent;
pub mod k8s;
pub mod model;
pub mod plan;
pub mod policy;
pub mod schedule;
pub mod server;
pub mod simulate;
pub mod telemetry;
pub mod usage;
