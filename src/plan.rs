//! Plans: what to do about the cluster, decided without doing any of it.
//!
//! Every function here is synchronous and takes the moment as an argument. A plan leaves nothing to
//! choose: whoever carries it out only carries it out.

pub mod catalogs;
pub mod draft;
pub mod drift;
pub mod empty;
pub mod fixed;
mod gangs;
pub mod health;
pub mod lifecycle;
pub mod marks;
pub mod measured;
pub mod nominate;
pub mod overlay;
pub mod provision;
pub mod terminate;

pub use catalogs::{Catalog, Catalogs};
pub use draft::ClaimDraft;
pub use provision::{ProvisionPlan, provision};

#[cfg(test)]
mod tests;
