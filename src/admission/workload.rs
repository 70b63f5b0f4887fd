//! `/advise/workloads`: what a workload's pods will meet, and the intent that they are coming.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::endpoint::{Answer, Endpoint, Outcome, Reviewer, outcome_of};
use super::review::{Request, Response};
use crate::advice::{self, Question, Quote};
use crate::intent::{Intent, IntentOwner, Operation};
use crate::model::wire::workload::{TemplateWire, WorkloadWire};
use crate::model::workload::WorkloadKind;
use crate::policy::{self, Snapshot};

/// A workload that is created or changed.
struct Applied {
    kind: WorkloadKind,
    name: String,
    operation: Operation,
    workload: WorkloadWire,
    /// The workload before the change.
    before: Option<WorkloadWire>,
}

impl Applied {
    /// Reads the review of a workload; `None` when its spec is not changed.
    fn read(request: &Request<'_>) -> Result<Option<Self>, String> {
        let operation = match &*request.operation {
            "CREATE" => Operation::Create,
            "UPDATE" => Operation::Update,
            _ => return Ok(None),
        };
        let object = request.object.ok_or("the review has no object")?;
        let kind = WorkloadKind::parse(&request.kind.kind)
            .filter(|_| matches!(&*request.kind.group, "apps" | "batch"))
            .ok_or_else(|| {
                format!("{} does not know {}", Endpoint::Advise.path(), request.kind.kind)
            })?;
        let workload: WorkloadWire = serde_json::from_str(object.get())
            .map_err(|error| format!("unreadable {kind}: {error}"))?;
        let before: Option<WorkloadWire> =
            request.old_object.and_then(|old| serde_json::from_str(old.get()).ok());
        // The generation changes with the spec only.
        let generation = before.as_ref().and_then(|old| old.metadata.generation);
        if generation.is_some() && generation == workload.metadata.generation {
            return Ok(None);
        }
        let name =
            workload.metadata.name.as_deref().or(request.name.as_deref()).unwrap_or_default();
        Ok(Some(Self { kind, name: name.to_owned(), operation, workload, before }))
    }

    fn owner(&self) -> (&str, &str) {
        (self.kind.name(), &self.name)
    }

    /// Whether a person may read warnings about it. A ReplicaSet's or Job's own controller does not;
    /// its user was warned.
    fn has_reader(&self) -> bool {
        self.workload.metadata.controller().is_none()
    }
}

impl Reviewer {
    /// What the provisioner is asked about the workload of a review.
    pub(super) fn workload_question(&self, request: &Request<'_>) -> Option<Question> {
        if self.intents.is_none() || !request.sub_resource().is_empty() {
            return None;
        }
        let applied = Applied::read(request).ok().flatten().filter(Applied::has_reader)?;
        let (snapshot, now) = (self.policies.load(), (self.clock)());
        let effective = |workload: &WorkloadWire| {
            effective(workload.template(), request, applied.owner(), &snapshot, now)
        };
        // What a DaemonSet took before the change it takes already.
        let before = match applied.kind {
            WorkloadKind::DaemonSet => applied.before.as_ref().map(effective),
            _ => None,
        };
        Some(Question {
            kind: applied.kind,
            namespace: request.namespace().to_owned(),
            desired: self.facts.load().held(
                request.namespace(),
                applied.kind.name(),
                &applied.name,
                applied.workload.at_once(applied.kind),
            ),
            template: effective(&applied.workload),
            before,
        })
    }

    pub(super) fn workload(
        &self,
        request: &Request<'_>,
        quote: Option<&Quote>,
    ) -> Result<Answer, String> {
        let response = Response::allow(&request.uid);
        if request.sub_resource() == "scale" {
            self.scale(request)?;
            return Ok(Answer::review(&response, Outcome::Allowed, false));
        }
        let Some(applied) = Applied::read(request)? else {
            return Ok(Answer::review(&response, Outcome::Allowed, false));
        };
        let snapshot = self.policies.load();
        let now = (self.clock)();
        let response = if applied.has_reader() {
            response.warn(self.warnings(&applied, request.namespace(), &snapshot, now, quote))
        } else {
            response
        };
        let Applied { kind, ref name, ref workload, operation, .. } = applied;
        if !matches!(kind, WorkloadKind::DaemonSet | WorkloadKind::CronJob) {
            self.emit(request, || {
                let owner = applied.owner();
                let template = effective(workload.template(), request, owner, &snapshot, now);
                Some(Intent {
                    kind: kind.name().to_owned(),
                    namespace: request.namespace().to_owned(),
                    name: name.clone(),
                    uid: workload.metadata.uid.clone().unwrap_or_default(),
                    owner: workload.metadata.controller().as_ref().map(IntentOwner::from),
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

    /// What the policies will do, and then advice.
    fn warnings(
        &self,
        applied: &Applied,
        namespace: &str,
        snapshot: &Snapshot,
        now: Timestamp,
        quote: Option<&Quote>,
    ) -> Vec<String> {
        let Applied { kind, name, workload, .. } = applied;
        let (kind, template) = (*kind, workload.template());
        let preview = policy::preview(template, namespace, applied.owner(), snapshot, now);
        let mut lines = preview.warnings();
        let before = applied.before.as_ref().map_or(0, |old| old.at_once(kind));
        let subject =
            advice::Subject { kind, namespace, name, workload, before, preview: &preview };
        let silenced = policy::silenced(template, namespace, applied.owner(), snapshot);
        let advice = advice::workload(&subject, &self.facts.load(), quote, &silenced);
        lines.extend(advice.iter().map(ToString::to_string));
        lines
    }

    /// A change of `/scale` tells the count only.
    fn scale(&self, request: &Request<'_>) -> Result<(), String> {
        let object = request.object.ok_or("the review has no object")?;
        let read = |text: &RawValue| serde_json::from_str::<Scale>(text.get());
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
        if request.old_object.is_some_and(|old| read(old).is_ok_and(is_same)) {
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
    now: Timestamp,
) -> TemplateWire {
    let mut out = TemplateWire::default();
    out.metadata.labels.clone_from(&template.metadata.labels);
    out.metadata.namespace = Some(request.namespace().to_owned());
    out.spec = policy::effective_shape(template, request.namespace(), owner, snapshot, now);
    out
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
