//! The decision about one pod.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use json_patch::Patch;

use super::accept::Qos;
use super::condition::{self, ConditionError};
use super::find::{Finding, findings};
use super::sleep::{Sleep, sleeps};
use super::snapshot::{Action, Policy, Snapshot};
use super::subject::Subject;
use super::view::PodView;
use super::{fit, patch, template, text};
use crate::model::resources::Resources;
use crate::model::wire::pod::PodStatusWire;
use crate::model::wire::requests::pod_requests;

/// Bytes of one audit annotation.
const AUDIT_LIMIT: usize = 1 << 10;

/// The facts of a request that are not in its object. Whether it is a dry run is none of them: a
/// dry run must be answered exactly as the real request.
#[derive(Clone, Copy, Debug)]
pub struct RequestMeta<'a> {
    /// Namespace of the pod; the object itself may leave it out.
    pub namespace: &'a str,
    /// Time of the request, for the start dates of rules.
    pub now: Timestamp,
    /// Who makes the pod. It decides about exemptions only, never about amounts.
    pub user: User<'a>,
}

/// Who makes a pod: the person, or the controller that makes pods of a workload.
#[derive(Clone, Copy, Debug, Default)]
pub struct User<'a> {
    /// Name; empty where it is not known.
    pub name: &'a str,
    /// Groups.
    pub groups: &'a [std::borrow::Cow<'a, str>],
}

/// Whether the pod may be created.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It may.
    Allow,
    /// It is refused.
    Deny {
        /// HTTP status code.
        code: u16,
        /// One line that names container, field and a value to write.
        message: String,
    },
}

/// What is done about a pod.
///
/// The mutating endpoint uses the patch, the validating one the verdict, because only the latter
/// sees the containers that other webhooks add.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Whether the pod may be created as it is.
    pub verdict: Verdict,
    /// Operations that set requests; only `add` and `replace`. Empty if there is nothing to set.
    pub patch: Patch,
    /// Lines for the user, within the limits of the API server: for callers that see the pod once.
    pub warnings: Vec<String>,
    /// Entries of the audit log, by bare name.
    pub audit: BTreeMap<String, String>,
    /// All missing requests and what was decided about each.
    pub findings: Vec<Finding>,
    /// Containers that get a sleep before their end.
    pub sleeps: Vec<Sleep>,
    /// Quality of service before and after, where the requests change it.
    pub qos: Option<(Qos, Qos)>,
    /// Conditions that could not be evaluated; their policies did not judge the pod.
    pub failed_conditions: Vec<ConditionError>,
    /// Why the pod is not judged at all.
    pub exempt: Option<&'static str>,
    /// Why a patch was built and then dropped: it failed its own test.
    pub patch_dropped: Option<String>,
    /// Whether the pod has so many annotations that the record of the patch is left out.
    pub record_left_out: bool,
    /// Effective request of the pod after the patch.
    pub effective: Resources,
}

impl Decision {
    /// Lines for the user of a pod that is being changed: what was set.
    pub fn mutation_warnings(&self) -> Vec<String> {
        text::limit_warnings(self.changes())
    }

    fn changes(&self) -> Vec<String> {
        if let Some(why) = &self.patch_dropped {
            return vec![format!("requests were not set, please report: {why}")];
        }
        let set = self.findings.iter().filter(|finding| finding.action.sets());
        let sleeps = self.sleeps.iter().map(Sleep::warning);
        let no_record = self.record_left_out.then(text::no_record);
        let qos = self.qos.map(|(before, after)| text::qos("pod", before, after));
        set.filter_map(text::pod_warning).chain(qos).chain(sleeps).chain(no_record).collect()
    }

    /// Lines for the user of a pod that is final: what is missing and will not be set any more.
    pub fn validation_warnings(&self) -> Vec<String> {
        let missing = self.findings.iter().filter_map(|finding| match finding.action {
            // Who is refused for it need not be warned of it.
            _ if finding.refuses() => None,
            Action::Default | Action::DefaultAndVerify => Some(text::unset_warning(finding)),
            _ => text::pod_warning(finding),
        });
        text::limit_warnings(missing.chain(self.notes()))
    }

    /// What the policies that warn add.
    fn notes(&self) -> Vec<String> {
        text::notes(self.findings.iter().filter(|finding| finding.action == Action::Warn))
    }
}

/// Decides about a pod that is to be created.
pub fn decide(pod: &PodView<'_>, meta: &RequestMeta<'_>, snapshot: &Snapshot) -> Decision {
    let mut decision = Decision {
        verdict: Verdict::Allow,
        patch: Patch::default(),
        warnings: Vec::new(),
        audit: BTreeMap::new(),
        findings: Vec::new(),
        sleeps: Vec::new(),
        qos: None,
        failed_conditions: Vec::new(),
        exempt: exemption(pod, meta.namespace, snapshot),
        patch_dropped: None,
        record_left_out: false,
        effective: Resources::default(),
    };
    let mut spec = pod.to_spec();
    if decision.exempt.is_none() {
        judge(pod, meta, snapshot, &mut decision);
        if !decision.patch.is_empty() {
            template::apply(&mut spec, &decision.findings);
        }
    }
    decision.effective = pod_requests(&spec, &PodStatusWire::default());
    decision
}

fn judge(pod: &PodView<'_>, meta: &RequestMeta<'_>, snapshot: &Snapshot, decision: &mut Decision) {
    let bounds = snapshot.bounds(meta.namespace);
    let subject = Subject::of_pod(pod, meta.namespace, meta.user, bounds);
    let document = || serde_json::from_str(pod.raw).ok();
    let policies = select(&subject, snapshot, document, &mut decision.failed_conditions);
    let mut found = findings(&subject, &policies, snapshot, meta.now);
    let cap = snapshot.max_action();
    let asleep = sleeps(&subject, &policies, cap);
    if found.is_empty() && asleep.is_empty() {
        return;
    }
    let mut qos = fit::qos_change(&subject, &found);
    let (mut patch, record_left_out) = patch::build(pod, &subject, &found, &asleep, qos);
    if !patch.is_empty() {
        let settled = |patched: &PodView<'_>| {
            let subject = Subject::of_pod(patched, meta.namespace, meta.user, bounds);
            findings(&subject, &policies, snapshot, meta.now).iter().all(|f| !f.action.sets())
                && sleeps(&subject, &policies, cap).is_empty()
        };
        if let Err(error) = patch::verify(pod, &patch, settled) {
            patch = Patch::default();
            qos = None;
            decision.patch_dropped = Some(error.to_string());
        }
    }
    // The validating endpoint sees the pod as it will be: a request that should have been set, could
    // be set and is missing there is what `DefaultAndVerify` is for. What we failed to set ourselves is
    // not: a patch that is dropped there was dropped before, and a quota that had no room then may have
    // some by now.
    let held_back = patch::held_back(pod);
    for finding in &mut found {
        finding.verified &= decision.patch_dropped.is_none() && !held_back.names(finding);
    }
    if let Some(message) = text::refusals(&subject, &found, Finding::refuses) {
        // 422: the object is invalid as it stands, and the message says how to make it valid.
        decision.verdict = Verdict::Deny { code: 422, message };
    }
    decision.patch = patch;
    decision.record_left_out = record_left_out;
    decision.audit = audit(&found, snapshot);
    decision.findings = found;
    decision.sleeps = asleep;
    decision.qos = qos;
    let said = |finding: &&Finding| finding.action == Action::Warn;
    let missing = decision.findings.iter().filter(said).filter_map(text::pod_warning);
    let warnings = decision.changes().into_iter().chain(missing).chain(decision.notes());
    decision.warnings = text::limit_warnings(warnings);
}

/// The policies that judge the subject, in order. `document` makes the object for conditions; it is
/// asked only when there are some.
pub(super) fn select<'a>(
    subject: &Subject<'a>,
    snapshot: &'a Snapshot,
    document: impl FnOnce() -> Option<serde_json::Value>,
    failed: &mut Vec<ConditionError>,
) -> Vec<&'a Policy> {
    let mut selected: Vec<&Policy> = snapshot
        .for_namespace(subject.namespace)
        .filter(|policy| subject.is_selected_by(policy))
        .collect();
    if selected.iter().any(|policy| !policy.conditions.is_empty()) {
        let request = condition::Request {
            namespace: subject.namespace,
            labels: snapshot.namespace(subject.namespace),
            user: subject.user,
        };
        let inputs = condition::Inputs::new(document(), &request);
        selected.retain(|policy| {
            inputs.hold(&policy.conditions).unwrap_or_else(|mut error| {
                error.policy = Arc::clone(&policy.name);
                failed.push(error);
                false
            })
        });
    }
    selected
}

/// Why a pod is never touched.
fn exemption(pod: &PodView<'_>, namespace: &str, snapshot: &Snapshot) -> Option<&'static str> {
    if snapshot.is_exempt(namespace) {
        return Some("its namespace is exempt");
    }
    // The kubelet recreates a mirror whose spec differs from the static pod.
    if pod.annotations().is_some_and(|annotations| annotations.mirror.is_some()) {
        return Some("it mirrors a static pod");
    }
    // The kubelet rejects a bound pod that no longer fits, and its controller tries for ever.
    if pod.spec.node_name.as_deref().is_some_and(|name| !name.is_empty()) {
        return Some("it is bound to a node");
    }
    if matches!(
        pod.spec.priority_class_name.as_deref(),
        Some("system-cluster-critical" | "system-node-critical")
    ) {
        return Some("it is critical to the cluster");
    }
    None
}

/// Audit annotations: why, not what, since the API server logs the patch itself.
fn audit(findings: &[Finding], snapshot: &Snapshot) -> BTreeMap<String, String> {
    let policies: BTreeSet<&str> = findings.iter().map(|finding| &*finding.policy).collect();
    let strictest = findings.iter().map(|finding| finding.action).max().unwrap_or(Action::Off);
    let mut all = String::new();
    for finding in findings {
        let entry = format!(
            "{}/{}:{}={}@{}{} ",
            finding.container,
            finding.resource.name(),
            finding.action.name(),
            finding.quantity(),
            finding.policy,
            finding
                .withheld
                .as_ref()
                .map(|cause| format!("(withheld:{cause})"))
                .unwrap_or_default()
        );
        if all.len() + entry.len() > AUDIT_LIMIT {
            all.push('…');
            break;
        }
        all.push_str(&entry);
    }
    let policies: String =
        policies.into_iter().collect::<Vec<_>>().join(",").chars().take(AUDIT_LIMIT).collect();
    BTreeMap::from([
        ("decision".to_owned(), strictest.name().to_owned()),
        ("findings".to_owned(), all.trim_end().to_owned()),
        ("policies".to_owned(), policies),
        ("snapshot".to_owned(), snapshot.version().to_owned()),
    ])
}
