//! The offline engine: manifests in, the nodes that would be bought out.
//!
//! No cluster, no cloud account, no network: the planner that runs in the cluster works here on
//! files and on the catalog in the binary.

pub mod cross;
pub mod engine;
pub mod expand;
pub mod input;
pub mod load;
mod pools;
pub mod report;
pub mod scan;
pub mod table;
pub mod upgrade;

pub use engine::{Settings, simulate};
pub use report::Report;
