//! Which requests are missing, and what the policies want done about each.

use std::sync::Arc;

use jiff::Timestamp;

use super::fit;
use super::snapshot::{Action, ContainerKind, Learned, Policy, Resource, Snapshot};
use super::subject::{ContainerList, Slot, Standing, Subject};
use super::text;
use crate::model::failure::Owner;
use crate::model::workload::root_owner;
use crate::usage;

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
    /// Position among the containers of both lists, main containers first.
    pub(super) slot: usize,
    /// The resource.
    pub resource: Resource,
    /// Whether the request is written down as zero.
    pub zero: bool,
    /// What is done, after the cap, the rule's start date and the safeguards.
    pub action: Action,
    /// What will be done from when, where the rule has not started yet.
    pub later: Option<(Action, Timestamp)>,
    /// Request that is set or suggested; millicores or bytes.
    pub amount: i64,
    /// What the amount was learned from, in words: `3 d of web's own history, 92 %`.
    pub learned: Option<String>,
    /// What changed the amount, in order.
    pub clamps: Vec<Clamp>,
    /// What kept the request from being set.
    pub withheld: Option<String>,
    /// Whether a pod that arrives without the request is refused: the rule verifies, and no earlier
    /// call held the request back.
    pub(super) verified: bool,
    /// The policy that decided.
    pub policy: Arc<str>,
    /// What the policy itself adds, filled in.
    pub note: Option<String>,
}

/// A change of an amount that a policy wants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Clamp {
    /// Amount before; millicores or bytes.
    pub from: i64,
    /// What asked for another.
    pub cause: String,
}

impl Finding {
    /// Whether the pod is refused for it, where nothing changes it any more.
    pub fn refuses(&self) -> bool {
        match self.action {
            Action::Deny => true,
            Action::DefaultAndVerify => self.verified,
            _ => false,
        }
    }

    /// The amount as a Kubernetes quantity.
    pub fn quantity(&self) -> String {
        self.resource.format(self.amount)
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
/// `policies` are those that select the subject, in order.
pub(super) fn findings(
    subject: &Subject<'_>,
    policies: &[&Policy],
    snapshot: &Snapshot,
    now: Timestamp,
) -> Vec<Finding> {
    if policies.is_empty() {
        return Vec::new();
    }
    let resources: Vec<Resource> =
        Resource::ALL.into_iter().filter(|resource| !subject.is_set_for_pod(*resource)).collect();
    let owner = owner(subject, snapshot);
    let (mut findings, mut messages) = (Vec::new(), Vec::new());
    for (at, slot) in subject.slots.iter().enumerate() {
        for resource in &resources {
            let standing = slot.standing(*resource);
            if standing == Standing::Present {
                continue;
            }
            if let Some((policy, rule)) = deciding(policies, slot, *resource)
                && (standing == Standing::Missing || policy.zero_means_missing)
            {
                let mut acts = rule.action_at(now, snapshot.max_action());
                if is_unnamed_daemon(subject, policy) {
                    acts = (without_setting(acts.0), acts.1.filter(|(later, _)| !later.sets()));
                }
                let (action, later) = acts;
                if action == Action::Off {
                    continue;
                }
                messages.push(policy.message.as_deref());
                let mut finding = Finding {
                    container: slot.name.to_owned(),
                    kind: slot.kind,
                    list: slot.list,
                    index: slot.index,
                    slot: at,
                    resource: *resource,
                    zero: standing == Standing::Zero,
                    action,
                    later,
                    amount: rule.amount.unwrap_or(resource.suggestion()),
                    learned: None,
                    clamps: Vec::new(),
                    withheld: None,
                    verified: action == Action::DefaultAndVerify,
                    policy: Arc::clone(&policy.name),
                    note: None,
                };
                if let Some(learned) = &rule.learned {
                    learn(&mut finding, learned, subject, slot, snapshot, now);
                }
                if let Some(owner) = &owner {
                    let amount = finding.amount;
                    raise(&mut finding, owner, snapshot, now);
                    // The rule's own default is not held to it.
                    if let Some(max) = rule.learned.as_ref().and_then(|learned| learned.max) {
                        finding.lower(max.max(amount), "the policy's max");
                    }
                }
                findings.push(finding);
            }
        }
    }
    let bounds = snapshot.bounds(subject.namespace);
    fit::fit(subject, &mut findings, bounds, snapshot.rooms());
    // Messages name amounts, so they come last.
    for (finding, message) in findings.iter_mut().zip(messages) {
        finding.note = message.map(|template| text::fill(template, subject, finding));
    }
    findings
}

/// Puts what was learned of the container in place of the rule's amount, if anything was.
fn learn(
    finding: &mut Finding,
    learned: &Learned,
    subject: &Subject<'_>,
    slot: &Slot<'_>,
    snapshot: &Snapshot,
    now: Timestamp,
) {
    let asked =
        usage::Subject::new(subject.workload, subject.name, subject.labels, slot.name, slot.image);
    let found = snapshot.estimates().estimate(
        subject.namespace,
        &asked,
        learned.measure,
        learned.under_cost,
        finding.amount,
        now.as_second(),
    );
    let Some(found) = found else { return };
    finding.amount = found.amount;
    finding.learned = Some(found.evidence(asked.owner.1));
    if let Some(min) = learned.min {
        finding.raise(min, "the policy's min");
    }
    if let Some(max) = learned.max {
        finding.lower(max, "the policy's max");
    }
}

/// The workload whose earlier pods may tell something; nearly always none has failed at all.
fn owner(subject: &Subject<'_>, snapshot: &Snapshot) -> Option<Owner> {
    let (kind, name) = subject.workload.filter(|_| !snapshot.guard().is_empty())?;
    let (kind, name) = root_owner(kind, name, subject.labels);
    Some(Owner::new(subject.namespace, kind, name))
}

/// Raises an amount to what earlier pods of the workload show to be needed: with less the next one
/// ends as they did.
fn raise(finding: &mut Finding, owner: &Owner, snapshot: &Snapshot, now: Timestamp) {
    let resource = finding.resource.name();
    let floor = snapshot.guard().floor(owner, &finding.container, resource, now.as_second());
    if let Some(floor) = floor {
        finding.raise(floor.amount, &format!("earlier pods were {}", floor.kind.verb()));
    }
}

/// The first policy with a rule for this container and resource.
fn deciding<'a>(
    policies: &[&'a Policy],
    slot: &Slot<'_>,
    resource: Resource,
) -> Option<(&'a Policy, &'a super::snapshot::Rule)> {
    policies
        .iter()
        .filter(|policy| covers(policy, slot))
        .find_map(|policy| Some((*policy, policy.rules.iter().find(|r| r.resource == resource)?)))
}

/// A default on a DaemonSet is paid once per node and changes the overhead that node sizes are
/// computed with, so only a policy that names DaemonSets sets one.
fn is_unnamed_daemon(subject: &Subject<'_>, policy: &Policy) -> bool {
    subject.of_daemon_set() && !policy.owner_kinds.iter().any(|kind| kind == "DaemonSet")
}

fn without_setting(action: Action) -> Action {
    if action.sets() { Action::Warn } else { action }
}

pub(super) fn covers(policy: &Policy, slot: &Slot<'_>) -> bool {
    (policy.container_names.is_empty()
        || policy.container_names.iter().any(|name| name == slot.name))
        && policy.container_kinds.contains(&slot.kind)
        && (policy.images.is_empty()
            || policy.images.iter().any(|image| image.is_match(slot.image)))
}
