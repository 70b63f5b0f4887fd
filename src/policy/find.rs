//! Which requests are missing, and what the policies want done about each.

use std::sync::Arc;

use jiff::Timestamp;

use super::snapshot::{Action, ContainerKind, Policy, Resource, Snapshot};
use super::subject::{ContainerList, Slot, Standing, Subject};
use super::text;

/// A missing request and what is done about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// Name of the container.
    pub container: String,
    /// Role of the container.
    pub kind: ContainerKind,
    /// List of the spec that it is in.
    pub list: ContainerList,
    /// Position in that list.
    pub index: usize,
    /// The resource.
    pub resource: Resource,
    /// Whether the request is written down as zero.
    pub zero: bool,
    /// What is done, after the policy's start date and the safeguards.
    pub action: Action,
    /// Request that is set or suggested; millicores or bytes.
    pub amount: i64,
    /// The policy that decided.
    pub policy: Arc<str>,
    /// What the policy itself adds, filled in.
    pub note: Option<String>,
}

impl Finding {
    /// The amount as a Kubernetes quantity.
    pub fn quantity(&self) -> String {
        crate::model::resources::Resources::format_amount(self.resource.name(), self.amount)
    }

    /// The field that lacks a value, from the top of the pod.
    pub fn field(&self) -> String {
        format!(
            "spec.{}[{}].resources.requests.{}",
            self.list.field(),
            self.index,
            self.resource.name()
        )
    }
}

/// All findings about the subject, by container, then resource. Findings with `Off` are left out.
pub(super) fn findings(subject: &Subject<'_>, snapshot: &Snapshot, now: Timestamp) -> Vec<Finding> {
    let policies: Vec<&Policy> = snapshot
        .for_namespace(subject.namespace)
        .filter(|policy| subject.is_selected_by(policy))
        .collect();
    if policies.is_empty() {
        return Vec::new();
    }
    let resources: Vec<Resource> =
        Resource::ALL.into_iter().filter(|resource| !subject.is_set_for_pod(*resource)).collect();
    let mut findings = Vec::new();
    for slot in &subject.slots {
        for resource in &resources {
            let standing = slot.standing(*resource);
            if standing != Standing::Present
                && let Some(finding) = judge(subject, slot, *resource, standing, &policies, now)
            {
                findings.push(finding);
            }
        }
    }
    findings
}

/// What the first policy with a rule for this container and resource wants.
fn judge(
    subject: &Subject<'_>,
    slot: &Slot<'_>,
    resource: Resource,
    standing: Standing,
    policies: &[&Policy],
    now: Timestamp,
) -> Option<Finding> {
    let (policy, rule) = policies
        .iter()
        .filter(|policy| covers(policy, slot))
        .find_map(|policy| Some((policy, policy.rules.iter().find(|r| r.resource == resource)?)))?;
    if rule.action == Action::Off || (standing == Standing::Zero && !policy.zero_means_missing) {
        return None;
    }
    let mut action = rule.action;
    let too_early = rule.enforce_from.is_some_and(|from| now < from);
    // A default on a DaemonSet is paid once per node and changes the overhead that node sizes are
    // computed with, so only a policy that names DaemonSets sets one.
    let unnamed_daemon = action == Action::Default
        && subject.owner_kinds.contains(&"DaemonSet")
        && !policy.owner_kinds.iter().any(|kind| kind == "DaemonSet");
    if (too_early && action > Action::Warn) || unnamed_daemon {
        action = Action::Warn;
    }
    let mut amount = rule.amount.unwrap_or(resource.suggestion());
    // A request above the limit would make the API server refuse the pod.
    if let Some(limit) = slot.limits.and_then(|limits| limits.get(resource.name())) {
        let limit = crate::model::resources::Resources::amount(resource.name(), *limit);
        amount = amount.min(limit);
        if amount <= 0 {
            amount = rule.amount.unwrap_or(resource.suggestion());
            action = action.min(Action::Warn);
        }
    }
    let note = |template: &String| text::fill(template, subject, slot.name, resource, &policy.name);
    Some(Finding {
        container: slot.name.to_owned(),
        kind: slot.kind,
        list: slot.list,
        index: slot.index,
        resource,
        zero: standing == Standing::Zero,
        action,
        amount,
        policy: Arc::clone(&policy.name),
        note: policy.message.as_ref().map(note),
    })
}

fn covers(policy: &Policy, slot: &Slot<'_>) -> bool {
    (policy.container_names.is_empty()
        || policy.container_names.iter().any(|name| name == slot.name))
        && policy.container_kinds.contains(&slot.kind)
}
