//! The vocabulary: quantities, labels, pods, nodes, instance types, money.
//!
//! Everything here is plain data and total functions on it. Nothing reads a clock, the network or
//! a file. Other rooms speak to each other in these types.

pub mod claim;
pub mod companions;
pub mod digest;
pub mod failure;
pub mod gang;
pub mod instance;
pub mod labels;
pub mod money;
pub mod node;
pub mod overlay;
pub mod pod;
pub mod pool;
pub mod quantity;
pub mod requirement;
pub mod resources;
pub mod room;
pub mod taints;
pub mod volume;
pub mod wire;
pub mod workload;
