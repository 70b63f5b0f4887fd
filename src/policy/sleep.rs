//! Sleeps before the end of containers that serve.
//!
//! A pod that is told to end leaves the load balancers at the same moment, and these hear of it some
//! seconds later: what they send until then fails. A container without a `preStop` hook of its own gets
//! the native sleep where a policy asks for it and the pod's grace period leaves room.

use std::sync::Arc;

use super::find::covers;
use super::snapshot::{Action, Policy};
use super::subject::{ContainerList, Slot, Subject};
use crate::model::pod::DEFAULT_GRACE;

/// What the sleep must leave of the grace period, seconds: time in which most servers end what they
/// have begun.
const LEFT: i64 = 10;

/// A sleep that a container gets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sleep {
    /// Name of the container.
    pub container: String,
    /// Position in `spec.containers`.
    pub index: usize,
    /// Its length.
    pub seconds: u32,
    /// Whether `lifecycle` exists, so that a patch may add below it.
    pub(super) has_lifecycle: bool,
    /// The policy that asks for it.
    pub policy: Arc<str>,
}

impl Sleep {
    /// What the user of the pod is told.
    pub(super) fn warning(&self) -> String {
        let Self { container, seconds, policy, .. } = self;
        format!("container {container:?}: sleeps {seconds}s before it ends (policy {policy})")
    }
}

/// The sleeps that a pod's containers get. `policies` are those that select the pod, in order; the
/// first that covers a container and asks for a sleep decides. `cap` is the most that policies may do.
pub(super) fn sleeps(subject: &Subject<'_>, policies: &[&Policy], cap: Action) -> Vec<Sleep> {
    if cap < Action::Default || policies.iter().all(|policy| policy.pre_stop_sleep.is_none()) {
        return Vec::new();
    }
    let grace = subject.grace.unwrap_or(DEFAULT_GRACE);
    let sleep = |slot: &Slot<'_>| {
        if slot.list != ContainerList::Containers || !slot.stops_at_once {
            return None;
        }
        let asks = |policy: &&&Policy| policy.pre_stop_sleep.is_some() && covers(policy, slot);
        let policy = policies.iter().find(asks)?;
        let seconds = policy.pre_stop_sleep?;
        (i64::from(seconds) + LEFT <= grace).then(|| Sleep {
            container: slot.name.to_owned(),
            index: slot.index,
            seconds,
            has_lifecycle: slot.has_lifecycle,
            policy: Arc::clone(&policy.name),
        })
    };
    subject.slots.iter().filter_map(sleep).collect()
}
