//! Messages for users: one line each, naming the container, the field and a value to write.

use super::find::Finding;
use super::snapshot::{Action, Resource};
use super::subject::Subject;

/// Characters of a warning. The API server cuts at 256 and its guide asks for 120.
const WARNING_CHARS: usize = 120;

/// Warnings of one answer. With 120 characters each they stay below the 4096 that the API server
/// passes on, even at four bytes per character of a container's name.
const WARNINGS: usize = 20;

/// Findings spelled out in a refusal before the rest is only counted.
const REFUSALS: usize = 8;

/// A policy's own message with its placeholders filled in, on one line.
pub(super) fn fill(
    template: &str,
    subject: &Subject<'_>,
    container: &str,
    resource: Resource,
    policy: &str,
) -> String {
    // One pass, so that a name which looks like a placeholder is not filled in again.
    let mut out = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let Some(end) = rest.find('}') else { break };
        out.push_str(match &rest[1..end] {
            "namespace" => subject.namespace,
            "pod" => subject.name,
            "container" => container,
            "resource" => resource.name(),
            "policy" => policy,
            _ => &rest[..=end],
        });
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    one_line(&out)
}

/// Why a pod is refused, for one finding: what is missing, and what to write where.
fn refusal(finding: &Finding) -> String {
    format!(
        "{} {:?} has {} {} request: set {}, for example to {} (policy {})",
        finding.kind.noun(),
        finding.container,
        if finding.zero { "a zero" } else { "no" },
        finding.resource.name(),
        finding.field(),
        finding.quantity(),
        finding.policy,
    )
}

/// The message of a refused pod.
pub(super) fn refusals(subject: &Subject<'_>, findings: &[Finding]) -> Option<String> {
    let refused: Vec<&Finding> = findings.iter().filter(|f| f.action == Action::Deny).collect();
    if refused.is_empty() {
        return None;
    }
    let mut parts: Vec<String> = refused.iter().take(REFUSALS).map(|f| refusal(f)).collect();
    if refused.len() > REFUSALS {
        parts.push(format!("and {} more", refused.len() - REFUSALS));
    }
    parts.extend(notes(refused.into_iter()));
    Some(format!("{}: {}", subject.noun(), parts.join("; ")))
}

/// The policies' own messages, each once.
pub(super) fn notes<'a>(findings: impl Iterator<Item = &'a Finding>) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    for note in findings.filter_map(|finding| finding.note.as_ref()) {
        if notes.len() < REFUSALS && !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    notes
}

/// What the user of a pod is told about one finding.
pub(super) fn pod_warning(finding: &Finding) -> Option<String> {
    let Finding { container, policy, .. } = finding;
    let resource = finding.resource.name();
    let quantity = finding.quantity();
    let noun = finding.kind.noun();
    match finding.action {
        Action::Off | Action::Shadow | Action::Deny => None,
        Action::Warn => Some(format!(
            "{noun} {container:?} has {} {resource} request; set one, e.g. {quantity} (policy {policy})",
            if finding.zero { "a zero" } else { "no" },
        )),
        Action::Default => Some(format!(
            "{noun} {container:?}: {resource} request set to {quantity} (policy {policy})"
        )),
    }
}

/// What the user of a pod is told whose request should have been set and was not, for example because
/// the mutating webhook could not be reached.
pub(super) fn unset_warning(finding: &Finding) -> String {
    format!(
        "{} {:?} has no {} request, and none was set (policy {})",
        finding.kind.noun(),
        finding.container,
        finding.resource.name(),
        finding.policy,
    )
}

/// What the user of a workload is told about one finding.
pub(super) fn template_warning(finding: &Finding) -> Option<String> {
    let Finding { container, policy, .. } = finding;
    let resource = finding.resource.name();
    let quantity = finding.quantity();
    let noun = finding.kind.noun();
    let lack = if finding.zero { "a zero" } else { "no" };
    match finding.action {
        Action::Off | Action::Shadow => None,
        Action::Warn => pod_warning(finding),
        Action::Default => Some(format!(
            "{noun} {container:?} has {lack} {resource} request; pods get {quantity} (policy {policy})"
        )),
        Action::Deny => Some(format!(
            "{noun} {container:?} has {lack} {resource} request; pods are refused, set e.g. {quantity} (policy {policy})"
        )),
    }
}

/// Brings warnings to the form that the API server passes on: one line of at most 120 characters
/// each, at most 20 of them, the last one counting those left out.
pub fn limit_warnings(warnings: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut more = 0_usize;
    for warning in warnings {
        if out.len() == WARNINGS {
            more += 1;
        } else {
            out.push(shorten(&warning));
        }
    }
    if more > 0 {
        out.pop();
        out.push(format!("and {} more warnings", more + 1));
    }
    out
}

fn shorten(text: &str) -> String {
    let text = one_line(text);
    if text.chars().count() <= WARNING_CHARS {
        return text;
    }
    text.chars().take(WARNING_CHARS - 1).chain(['…']).collect()
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
