//! `/advise/workloads`: what a workload's pods will meet, and the intent that they are coming.

use serde::Deserialize;

use super::endpoint::{Answer, Endpoint, Outcome, Reviewer, outcome_of};
use super::review::{Request, Response};
use crate::intent::{Intent, IntentOwner, Operation};
use crate::model::wire::workload::{TemplateWire, WorkloadWire};
use crate::model::workload::WorkloadKind;
use crate::policy::{self, Snapshot};

impl Reviewer {
    pub(super) fn workload(&self, request: &Request<'_>) -> Result<Answer, String> {
        let operation = match &*request.operation {
            "CREATE" => Operation::Create,
            "UPDATE" => Operation::Update,
            _ => {
                let response = Response::allow(&request.uid);
                return Ok(Answer::review(&response, Outcome::Allowed, false));
            }
        };
        let object = request.object.ok_or("the review has no object")?;
        let old = request.old_object.map(serde_json::value::RawValue::get);
        let response = Response::allow(&request.uid);
        if request.sub_resource() == "scale" {
            self.scale(request, object.get(), old)?;
            return Ok(Answer::review(&response, Outcome::Allowed, false));
        }
        let kind = WorkloadKind::parse(&request.kind.kind)
            .filter(|_| matches!(&*request.kind.group, "apps" | "batch"))
            .ok_or_else(|| {
                format!("{} does not know {}", Endpoint::Advise.path(), request.kind.kind)
            })?;
        let workload: WorkloadWire = serde_json::from_str(object.get())
            .map_err(|error| format!("unreadable {kind}: {error}"))?;
        // The generation changes with the spec only.
        let is_same = |old: &str| {
            serde_json::from_str::<GenerationOnly>(old).is_ok_and(|old| {
                old.metadata.generation.is_some()
                    && old.metadata.generation == workload.metadata.generation
            })
        };
        if old.is_some_and(is_same) {
            return Ok(Answer::review(&response, Outcome::Allowed, false));
        }
        let snapshot = self.policies.load();
        let now = (self.clock)();
        let name =
            workload.metadata.name.as_deref().or(request.name.as_deref()).unwrap_or_default();
        let owner = (kind.name(), name);
        let controller = workload.metadata.controller();
        // A ReplicaSet's or Job's own controller does not read warnings; its user was warned.
        let response = if controller.is_none() {
            let namespace = request.namespace();
            response.warn(policy::advise(workload.template(), namespace, owner, &snapshot, now))
        } else {
            response
        };
        if !matches!(kind, WorkloadKind::DaemonSet | WorkloadKind::CronJob) {
            self.emit(request, || {
                let template = effective(workload.template(), request, owner, &snapshot, now);
                Some(Intent {
                    kind: kind.name().to_owned(),
                    namespace: request.namespace().to_owned(),
                    name: name.to_owned(),
                    uid: workload.metadata.uid.clone().unwrap_or_default(),
                    owner: controller.as_ref().map(IntentOwner::from),
                    generation: workload.metadata.generation,
                    desired: workload.desired(kind),
                    template: Some(template),
                    operation,
                    seen_at: now,
                })
            });
        }
        let outcome = outcome_of(&response);
        Ok(Answer::review(&response, outcome, false))
    }

    /// A change of `/scale` tells the count only.
    fn scale(&self, request: &Request<'_>, object: &str, old: Option<&str>) -> Result<(), String> {
        let read = |text: &str| serde_json::from_str::<Scale>(text);
        let scale = read(object).map_err(|error| format!("unreadable Scale: {error}"))?;
        let kind = match &*request.resource.resource {
            "deployments" => WorkloadKind::Deployment,
            "replicasets" => WorkloadKind::ReplicaSet,
            "statefulsets" => WorkloadKind::StatefulSet,
            other => {
                return Err(format!("{} does not know {other}/scale", Endpoint::Advise.path()));
            }
        };
        let is_same = |old: Scale| old.spec.replicas == scale.spec.replicas;
        if old.is_some_and(|old| read(old).is_ok_and(is_same)) {
            return Ok(());
        }
        self.emit(request, || {
            Some(Intent {
                kind: kind.name().to_owned(),
                namespace: request.namespace().to_owned(),
                name: request.name.as_deref().unwrap_or_default().to_owned(),
                uid: scale.metadata.uid.clone().unwrap_or_default(),
                owner: None,
                generation: None,
                desired: u32::try_from(scale.spec.replicas.max(0)).unwrap_or(u32::MAX),
                template: None,
                operation: Operation::Update,
                seen_at: (self.clock)(),
            })
        });
        Ok(())
    }
}

/// The template with the requests that the policies will leave and without the metadata that
/// nobody needs.
fn effective(
    template: &TemplateWire,
    request: &Request<'_>,
    owner: (&str, &str),
    snapshot: &Snapshot,
    now: jiff::Timestamp,
) -> TemplateWire {
    let mut out = TemplateWire::default();
    out.metadata.labels.clone_from(&template.metadata.labels);
    out.metadata.namespace = Some(request.namespace().to_owned());
    out.spec = policy::effective_shape(template, request.namespace(), owner, snapshot, now);
    out
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GenerationOnly {
    metadata: Generation,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Generation {
    generation: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Scale {
    metadata: ScaleMeta,
    spec: ScaleSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ScaleMeta {
    uid: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ScaleSpec {
    replicas: i64,
}
