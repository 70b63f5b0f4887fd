//! What the policies will do to the pods of a workload.

use jiff::Timestamp;
use serde_json::json;

use super::accept::Qos;
use super::decide::select;
use super::find::{Finding, findings};
use super::sleep::sleeps;
use super::snapshot::{Action, Resource, Snapshot};
use super::subject::{ContainerList, Subject};
use super::{fit, text};
use crate::model::quantity::Quantity;
use crate::model::wire::pod::{ContainerWire, PodSpecWire};
use crate::model::wire::workload::{TemplateWire, WorkloadWire};
use crate::model::workload::WorkloadKind;

/// What will happen to the pods of a template.
#[derive(Clone, Debug)]
pub struct Preview {
    /// The spec with the requests that LimitRanges and the policies will set, and the policies' sleeps.
    pub spec: PodSpecWire,
    /// All missing requests and what will be done about each.
    pub findings: Vec<Finding>,
    /// Why the pods will be refused, if they will.
    pub refusal: Option<String>,
    /// Quality of service before and after, where the requests change it.
    pub qos: Option<(Qos, Qos)>,
}

impl Preview {
    /// What is told about the pods: the refusal, else a line for each request that is set or missed.
    pub fn lines(&self) -> Vec<(Action, String)> {
        if let Some(refusal) = &self.refusal {
            return vec![(Action::Deny, refusal.clone())];
        }
        let line = |finding: &Finding| Some((finding.action, text::template_warning(finding)?));
        self.findings.iter().filter_map(line).collect()
    }

    /// Warnings for the user who applies a workload whose pods will be changed or refused.
    pub fn warnings(&self) -> Vec<String> {
        let told = || self.findings.iter().filter(|finding| finding.action >= Action::Warn);
        let notes = text::notes(told().filter(|finding| !finding.action.sets()));
        let qos = self.qos.filter(|_| self.refusal.is_none());
        let qos = qos.map(|(before, after)| text::qos("pods", before, after));
        text::limit_warnings(told().filter_map(text::template_warning).chain(qos).chain(notes))
    }

    /// Whether a policy has spoken about a container's request, even if only to itself.
    pub fn covers(&self, container: &str, resource: &str) -> bool {
        self.findings.iter().any(|f| f.container == container && f.resource.name() == resource)
    }
}

/// Previews the pods that `template` makes in `namespace` for the owner of `kind` and `name`
/// (`Deployment`, `Job`…, or `Pod` for a bare pod).
pub fn preview(
    template: &TemplateWire,
    namespace: &str,
    (kind, name): (&str, &str),
    snapshot: &Snapshot,
    now: Timestamp,
) -> Preview {
    let mut spec = template.spec.clone();
    let bounds = snapshot.bounds(namespace);
    let owner = (kind, name);
    let subject =
        Subject::of_template(&template.metadata, &template.spec, namespace, owner, bounds);
    // The API server does it to all pods, judged or not.
    fill(&mut spec, &subject);
    if is_untouched(template, namespace, snapshot) {
        return Preview { spec, findings: Vec::new(), refusal: None, qos: None };
    }
    let document = || serde_json::to_value(template).ok();
    // A condition that fails on a template is told where it fails on its pods.
    let policies = select(&subject, snapshot, document, &mut Vec::new());
    let findings = findings(&subject, &policies, snapshot, now);
    apply(&mut spec, &findings);
    for sleep in sleeps(&subject, &policies, snapshot.max_action()) {
        if let Some(container) = spec.containers.get_mut(sleep.index) {
            let hook = json!({ "sleep": { "seconds": sleep.seconds } });
            container.lifecycle.get_or_insert_default().pre_stop = hook.as_object().cloned();
        }
    }
    let refusal = text::refusals(&subject, &findings, |finding| finding.action == Action::Deny);
    let qos = fit::qos_change(&subject, &findings);
    Preview { spec, findings, refusal, qos }
}

/// The spec that LimitRanges and the policies will leave: what the provisioner must find room for.
pub fn effective_shape(
    template: &TemplateWire,
    namespace: &str,
    owner: (&str, &str),
    snapshot: &Snapshot,
    now: Timestamp,
) -> PodSpecWire {
    preview(template, namespace, owner, snapshot, now).spec
}

/// Gives the template of a workload the requests that its pods will have.
pub fn settle(
    kind: WorkloadKind,
    workload: &mut WorkloadWire,
    snapshot: &Snapshot,
    now: Timestamp,
) {
    let meta = &workload.metadata;
    let owner = (kind.name(), meta.name());
    let spec = effective_shape(workload.template(), meta.namespace(), owner, snapshot, now);
    workload.template_mut().spec = spec;
}

/// Codes of advice that some policy silences for the pods of a template; `*` means all. It holds for
/// what the policy selects, opted out of its rules or not.
pub fn silenced<'a>(
    template: &'a TemplateWire,
    namespace: &'a str,
    owner: (&'a str, &'a str),
    snapshot: &'a Snapshot,
) -> Vec<&'a str> {
    if snapshot.policies().iter().all(|policy| policy.silence.is_empty()) {
        return Vec::new();
    }
    let mut subject =
        Subject::of_template(&template.metadata, &template.spec, namespace, owner, None);
    subject.opted_out = false;
    let document = || serde_json::to_value(template).ok();
    let policies = select(&subject, snapshot, document, &mut Vec::new());
    policies.into_iter().flat_map(|policy| &policy.silence).map(String::as_str).collect()
}

/// The exemptions of pods, as far as a template shows them.
fn is_untouched(template: &TemplateWire, namespace: &str, snapshot: &Snapshot) -> bool {
    snapshot.is_exempt(namespace)
        || template.metadata.annotations.contains_key(super::MIRROR_ANNOTATION)
        || template.spec.node_name.as_deref().is_some_and(|name| !name.is_empty())
        || matches!(
            template.spec.priority_class_name.as_deref(),
            Some("system-cluster-critical" | "system-node-critical")
        )
}

/// Sets the requests that LimitRanges will fill in. Where there is a limit the API server copies that,
/// and whoever adds up requests does too.
fn fill(spec: &mut PodSpecWire, subject: &Subject<'_>) {
    for slot in &subject.slots {
        let Some(container) = container(spec, slot.list, slot.index) else { continue };
        for resource in Resource::ALL {
            let name = resource.name();
            if let Some(amount) = slot.amounts(resource).request
                && !container.resources.limits.contains_key(name)
            {
                let requests = &mut container.resources.requests;
                requests.entry(name.to_owned()).or_insert_with(|| quantity(resource, amount));
            }
        }
    }
}

/// Sets the requests of all findings whose action does.
pub(super) fn apply(spec: &mut PodSpecWire, findings: &[Finding]) {
    for finding in findings.iter().filter(|finding| finding.action.sets()) {
        if let Some(container) = container(spec, finding.list, finding.index) {
            let quantity = quantity(finding.resource, finding.amount);
            container.resources.requests.insert(finding.resource.name().to_owned(), quantity);
        }
    }
}

fn container(
    spec: &mut PodSpecWire,
    list: ContainerList,
    index: usize,
) -> Option<&mut ContainerWire> {
    let containers = match list {
        ContainerList::Containers => &mut spec.containers,
        ContainerList::InitContainers => &mut spec.init_containers,
    };
    containers.get_mut(index)
}

/// An amount in millicores or bytes.
fn quantity(resource: Resource, amount: i64) -> Quantity {
    match resource {
        Resource::Cpu => Quantity::from_milli(amount),
        Resource::Memory | Resource::EphemeralStorage => Quantity::from_units(amount),
    }
}
