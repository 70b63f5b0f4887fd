//! The Kubernetes API server: watches in, writes out.

pub mod client;
pub mod lease;
pub mod list;
pub mod policy;
pub mod usage;
pub mod watch;
pub mod wire;
pub mod write;

pub use write::Writer;
