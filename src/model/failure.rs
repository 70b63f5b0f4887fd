//! Pods that were ended because a container used more than it had asked for.

use std::sync::Arc;

/// What is added to the memory or storage that was not enough: the Vertical Pod Autoscaler's bump
/// after an OOM, 100 MiB…
const STEP: i64 = 100 << 20;

/// …or this part of it (a fifth), whichever is more.
const STEP_PART: i64 = 5;

/// What a container is given after it ran out at `used` bytes.
pub fn enough(used: i64) -> i64 {
    used.saturating_add(STEP.max(used / STEP_PART))
}

/// A workload as its failures are counted: the Deployment behind a ReplicaSet, all runs of a CronJob
/// together (`Job`, by the name without the run's minute), else the managing controller.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Owner {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Kind, such as `Deployment`.
    pub kind: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl Owner {
    /// The owner of this namespace, kind and name.
    pub fn new(namespace: &str, kind: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), kind: kind.into(), name: name.into() }
    }
}

/// How a pod or one of its containers was ended.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum FailureKind {
    /// The kubelet evicted the pod, for its node ran out of something.
    Evicted,
    /// The kernel killed a container, for it or its node ran out of memory.
    OomKilled,
}

impl FailureKind {
    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::OomKilled => "oom_killed",
        }
    }

    /// What befell the pod, for people.
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::OomKilled => "OOM-killed",
        }
    }
}

/// A container that used more of a resource than it had asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shortage {
    /// Name of the container.
    pub container: Arc<str>,
    /// `memory` or `ephemeral-storage`.
    pub resource: &'static str,
    /// Its request, bytes.
    pub request: i64,
    /// What it used at least, bytes: as the kubelet measured it, or its limit when it was killed there.
    /// The request where neither is known.
    pub used: i64,
}

/// The end of a pod, or of containers of one that goes on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The workload whose pod it is.
    pub owner: Owner,
    /// Name of the pod.
    pub pod: Arc<str>,
    /// UID of the pod.
    pub uid: Arc<str>,
    /// How it ended.
    pub kind: FailureKind,
    /// When, seconds since the epoch.
    pub at: i64,
    /// The containers that asked for too little; never empty.
    pub shortages: Vec<Shortage>,
}

#[cfg(test)]
impl Failure {
    /// The eviction of a pod of the Deployment `shop/web` whose container `app` used so many bytes of
    /// memory and had asked for none.
    pub(crate) fn of_web(pod: &str, at: i64, used: i64) -> Self {
        Self {
            owner: Owner::new("shop", "Deployment", "web"),
            pod: pod.into(),
            uid: format!("u-{pod}").into(),
            kind: FailureKind::Evicted,
            at,
            shortages: vec![Shortage {
                container: "app".into(),
                resource: super::resources::MEMORY,
                request: 0,
                used,
            }],
        }
    }
}

impl Failure {
    /// Tells this failure from others of the same pod: a pod is evicted once, and its containers are
    /// killed at different times. The moment of an eviction may be told differently later.
    pub fn key(&self) -> (&str, Option<i64>) {
        (&self.uid, (self.kind == FailureKind::OomKilled).then_some(self.at))
    }
}
