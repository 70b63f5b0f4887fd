//! Workloads: the objects that make pods.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::pod::{OwnerRef, PodShape};

/// Kinds of workloads that Harbinger reads.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(missing_docs, reason = "the names are those of the Kubernetes API")]
pub enum WorkloadKind {
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
}

impl WorkloadKind {
    /// The kind's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
        }
    }

    /// Reads the kind's name.
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::Deployment,
            Self::ReplicaSet,
            Self::StatefulSet,
            Self::DaemonSet,
            Self::Job,
            Self::CronJob,
        ]
        .into_iter()
        .find(|kind| kind.name() == name)
    }
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A workload and the pods that it wants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Workload {
    /// Kind.
    pub kind: WorkloadKind,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// UID.
    pub uid: Arc<str>,
    /// Generation of the spec.
    pub generation: i64,
    /// Controlling owner, such as the Deployment of a ReplicaSet.
    pub owner: Option<OwnerRef>,
    /// Pods wanted at the same time: replicas, or for a Job the lesser of parallelism and the
    /// completions still missing; 0 while suspended.
    pub desired: u32,
    /// Shape of its pods before admission.
    pub template: Arc<PodShape>,
    /// When its deletion was asked for, seconds since the epoch.
    pub deleted_at: Option<i64>,
}
