//! Workloads on the wire.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::pod::{PodSpecWire, PodStatusWire, shape};
use super::volume::ClaimTemplateWire;
use super::{MetaWire, or_default};
use crate::model::pod::PodShape;
use crate::model::volume::MountedClaim;
use crate::model::workload::{Workload, WorkloadKind};

/// A Deployment, ReplicaSet, StatefulSet, DaemonSet, Job or CronJob.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadWire {
    /// Metadata.
    pub metadata: MetaWire,
    /// Spec.
    pub spec: WorkloadSpecWire,
    /// Status.
    pub status: WorkloadStatusWire,
}

/// What is read of a workload's spec; each kind uses its own part.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSpecWire {
    /// Replicas of Deployments, ReplicaSets and StatefulSets; 1 when absent.
    pub replicas: Option<i64>,
    /// Pods of a Job at the same time; 1 when absent.
    pub parallelism: Option<i64>,
    /// Pods of a Job that must succeed.
    pub completions: Option<i64>,
    /// Whether a Job or CronJob is suspended.
    pub suspend: Option<bool>,
    /// Schedule of a CronJob.
    pub schedule: Option<String>,
    /// Time zone of the schedule.
    pub time_zone: Option<String>,
    /// Template of the pods.
    #[serde(deserialize_with = "or_default")]
    pub template: TemplateWire,
    /// Template of a CronJob's Jobs.
    pub job_template: Option<Box<JobTemplateWire>>,
    /// Claims that a StatefulSet makes for each of its pods.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub volume_claim_templates: Vec<ClaimTemplateWire>,
    /// How a StatefulSet numbers its pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordinals: Option<OrdinalsWire>,
}

/// How a `StatefulSet` numbers its pods.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct OrdinalsWire {
    /// The first number.
    pub start: u32,
}

/// Template of a CronJob's Jobs.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobTemplateWire {
    /// Spec of the Job.
    pub spec: WorkloadSpecWire,
}

/// Template of pods.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TemplateWire {
    /// Metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: MetaWire,
    /// Spec.
    #[serde(deserialize_with = "or_default")]
    pub spec: PodSpecWire,
}

/// What is read of a workload's status.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadStatusWire {
    /// Pods of a Job that succeeded.
    pub succeeded: Option<i64>,
    /// Conditions; a Job that is `Complete` or `Failed` wants no more pods.
    #[serde(deserialize_with = "or_default")]
    pub conditions: Vec<super::pod::PodConditionWire>,
}

impl WorkloadWire {
    /// The template of the pods: of the Jobs for a CronJob.
    pub fn template(&self) -> &TemplateWire {
        self.spec.job_template.as_deref().map_or(&self.spec.template, |job| &job.spec.template)
    }

    /// The template of the pods, to change it.
    pub fn template_mut(&mut self) -> &mut TemplateWire {
        match &mut self.spec.job_template {
            Some(job) => &mut job.spec.template,
            None => &mut self.spec.template,
        }
    }

    /// The shape that the template gives its pods, in the workload's namespace.
    pub fn template_shape(&self) -> PodShape {
        let template = self.template();
        let mut meta = template.metadata.clone();
        meta.namespace.clone_from(&self.metadata.namespace);
        let mut shape = shape(&meta, &template.spec, &PodStatusWire::default());
        shape.claims.extend(self.claims());
        shape.claims.sort();
        shape
    }

    /// Claims that each pod of a `StatefulSet` brings, without the pod's number.
    pub fn claims(&self) -> impl Iterator<Item = MountedClaim> {
        self.spec.volume_claim_templates.iter().map(|made| MountedClaim {
            claim: format!("{}-{}-", made.metadata.name(), self.metadata.name()).into(),
            open: true,
            template: Some(Arc::new(made.spec.to_spec())),
        })
    }

    /// How many pods the workload wants at the same time now. A CronJob itself wants none.
    pub fn desired(&self, kind: WorkloadKind) -> u32 {
        let count =
            |wanted: Option<i64>| u32::try_from(wanted.unwrap_or(1).max(0)).unwrap_or(u32::MAX);
        match kind {
            WorkloadKind::Deployment | WorkloadKind::ReplicaSet | WorkloadKind::StatefulSet => {
                count(self.spec.replicas)
            }
            WorkloadKind::Job => {
                let over = self.status.conditions.iter().any(|condition| {
                    matches!(&*condition.r#type, "Complete" | "Failed")
                        && condition.status == "True"
                });
                if over || self.spec.suspend == Some(true) {
                    return 0;
                }
                let parallel = count(self.spec.parallelism);
                match self.spec.completions {
                    Some(all) => {
                        parallel.min(count(Some(all - self.status.succeeded.unwrap_or(0))))
                    }
                    None => parallel,
                }
            }
            WorkloadKind::DaemonSet | WorkloadKind::CronJob => 0,
        }
    }

    /// How many pods there are at the same time when it runs: of a CronJob those of one run.
    pub fn at_once(&self, kind: WorkloadKind) -> u32 {
        match &self.spec.job_template {
            Some(_) if self.spec.suspend == Some(true) => 0,
            Some(job) if kind == WorkloadKind::CronJob => {
                let run = Self { spec: job.spec.clone(), ..Self::default() };
                run.desired(WorkloadKind::Job)
            }
            _ => self.desired(kind),
        }
    }

    /// The workload; `intern` lets equal shapes share memory.
    pub fn to_workload(
        &self,
        kind: WorkloadKind,
        intern: impl FnOnce(PodShape) -> Arc<PodShape>,
    ) -> Workload {
        Workload {
            kind,
            namespace: self.metadata.namespace().into(),
            name: self.metadata.name().into(),
            uid: self.metadata.uid.as_deref().unwrap_or_default().into(),
            generation: self.metadata.generation.unwrap_or(0),
            owner: self.metadata.controller(),
            desired: self.desired(kind),
            template: intern(self.template_shape()),
            deleted_at: self.metadata.deleted_at(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(kind: WorkloadKind, json: &str) -> u32 {
        serde_json::from_str::<WorkloadWire>(json).unwrap().desired(kind)
    }

    #[test]
    fn counts_pods_wanted_at_once() {
        assert_eq!(desired(WorkloadKind::Deployment, r#"{"spec":{"replicas":3}}"#), 3);
        assert_eq!(desired(WorkloadKind::StatefulSet, r#"{"spec":{}}"#), 1);
        let job = r#"{"spec":{"parallelism":10,"completions":12},"status":{"succeeded":5}}"#;
        assert_eq!(desired(WorkloadKind::Job, job), 7);
        assert_eq!(desired(WorkloadKind::Job, r#"{"spec":{"suspend":true}}"#), 0);
        let done = r#"{"status":{"conditions":[{"type":"Complete","status":"True"}]}}"#;
        assert_eq!(desired(WorkloadKind::Job, done), 0);
        let runs = |suspended: bool| {
            let text = format!(
                r#"{{"spec":{{"suspend":{suspended},"jobTemplate":{{"spec":{{"parallelism":4}}}}}}}}"#
            );
            serde_json::from_str::<WorkloadWire>(&text).unwrap().at_once(WorkloadKind::CronJob)
        };
        assert_eq!((runs(false), runs(true)), (4, 0));
    }
}
