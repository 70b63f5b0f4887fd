//! Workloads: the objects that make pods.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::labels::Labels;
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

    /// The API version that is served for it.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Job | Self::CronJob => "batch/v1",
            _ => "apps/v1",
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

/// Kind and name of the workload that people know, by the managing controller and the labels of a
/// pod: the Deployment behind a ReplicaSet, else the controller itself.
pub fn known_workload<'a>(kind: &'a str, name: &'a str, labels: &Labels) -> (&'a str, &'a str) {
    let hash = labels.get("pod-template-hash").filter(|_| kind == "ReplicaSet");
    let stem = hash.and_then(|hash| name.strip_suffix(&**hash)?.strip_suffix('-'));
    stem.map_or((kind, name), |stem| ("Deployment", stem))
}

/// The CronJob that made a Job, by the Job's name: a CronJob adds the minute of the run, counted since
/// 1970. A Job that a person names by a whole date looks the same.
pub fn cron_job_of(job: &str) -> Option<&str> {
    let (stem, digits) = job.rsplit_once('-')?;
    (digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit())).then_some(stem)
}

/// Kind and name of the workload that people know, of the pods that a controller makes: the
/// Deployment behind a ReplicaSet, and for the Job of a CronJob its name without the minute of its
/// run, since the next run has another.
pub fn root_owner<'a>(kind: &'a str, name: &'a str, labels: &Labels) -> (&'a str, &'a str) {
    match kind {
        // The two share what they know: pods name the Job only.
        "CronJob" => ("Job", name),
        "Job" => (kind, cron_job_of(name).unwrap_or(name)),
        _ => known_workload(kind, name, labels),
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
