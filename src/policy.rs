//! Admission decisions: what happens to a pod whose containers ask for nothing.
//!
//! [`decide`] is a pure function of the pod, the facts of the request and an immutable
//! [`Snapshot`]: it reads no clock, takes no lock and does no IO, so the webhook, `simulate` and
//! `explain` give the same answer. Pods are judged; templates of workloads are only advised on
//! ([`preview`]), because changing them makes controllers and `GitOps` tools fight.
//!
//! Order of policies: higher priority first, then name. For each container and resource the first
//! policy that selects the container and has a rule for the resource decides; later ones are not
//! asked, so a policy with action `Off` exempts what it selects.
//!
//! A request that is set makes nothing worse: a pod that the API server and some node would have
//! taken without it is taken with it. The module `fit` has the order in which amounts are adjusted.
//!
//! What it does not decide: whether the pod fits anywhere, and what a good request would be.

mod accept;
mod bounds;
mod charge;
mod compile;
mod condition;
mod decide;
mod find;
mod fit;
mod patch;
mod skeleton;
mod sleep;
mod snapshot;
mod status;
mod subject;
mod tally;
mod template;
mod text;
mod view;

pub use accept::Qos;
pub use bounds::Bounds;
pub use compile::{CompileError, compile};
pub use condition::{Condition, ConditionError, Refused};
pub use decide::{Decision, RequestMeta, User, Verdict, decide};
pub use find::{Clamp, Finding};
pub use sleep::Sleep;
pub use snapshot::{Action, ContainerKind, Learned, Policy, Resource, Rule, Snapshot};
pub use status::{Facts, next_status};
pub use subject::ContainerList;
pub use tally::{Counts, Offence, Stage, Tallied, Tally};
pub use template::{Preview, effective_shape, preview, settle, silenced};
pub use text::limit_warnings;
pub use view::PodView;

/// Annotation on a pod or template that opts out of policies which allow it, with value `skip`.
pub const OPT_OUT_ANNOTATION: &str = "harbinger.sh/request-policy";

/// Annotation that records on the pod which requests were set, and by which policies.
pub const RECORD_ANNOTATION: &str = "harbinger.sh/default-requests";

/// Annotation of the API server's copies of static pods.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

#[cfg(test)]
mod tests;
