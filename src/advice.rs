//! Advice on workloads at the moment at which somebody applies them: what their pods will meet,
//! what they will cost, and what will hurt later.
//!
//! [`workload`] is a pure function of the workload, the [`Facts`] that stand beside it and a
//! [`Quote`]; [`quote`] is a pure function of a [`Question`] and a [`Market`], and asks the
//! scheduling engine. The two are apart because they run in different places: the facts are small
//! and the webhook watches them itself, while types, prices and nodes are large and the provisioner
//! has them already, so it answers over the intent socket.
//!
//! Advice never changes and never refuses anything. Each kind has a stable [`Code`] with an entry in
//! `docs/advice.md`, and can be silenced by an annotation or a policy.
//!
//! What it does not know: other workloads that share a budget, and what a pod really uses.

mod code;
mod facts;
mod hair;
mod market;
mod price;
mod quote;
mod workload;

pub use code::{Advice, Code, SILENCE_ANNOTATION, Silence};
pub use facts::Facts;
pub use market::{FleetNode, Market, price_of};
pub use price::quote;
pub use quote::{FleetCost, Hair, Question, Quote};
pub use workload::{Subject, workload};

/// Hours in a month, as AWS counts them.
pub const HOURS_PER_MONTH: i64 = 730;

#[cfg(test)]
mod tests;
