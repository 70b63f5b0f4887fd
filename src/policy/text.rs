//! Messages for users: one line each, naming the container, the field and a value to write.

use super::accept::Qos;
use super::find::Finding;
use super::snapshot::Action;
use super::subject::Subject;

/// Characters of a line of a warning; the API server cuts there.
const WARNING_CHARS: usize = 256;

/// Lines of one warning: a policy's message has 512 characters before names are filled in.
const WARNING_LINES: usize = 4;

/// Lines of one answer.
const LINES: usize = 20;

/// Characters of one answer; the API server passes no more on.
const CHARS: usize = 4096;

/// Characters for the line that counts what is left out.
const MORE_CHARS: usize = 40;

/// Findings spelled out in a refusal before the rest is only counted.
const REFUSALS: usize = 8;

/// A policy's own message with its placeholders filled in, on one line.
pub(super) fn fill(template: &str, subject: &Subject<'_>, finding: &Finding) -> String {
    let (field, value) = (finding.field(), finding.quantity());
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
            "container" => &finding.container,
            "resource" => finding.resource.name(),
            "policy" => &finding.policy,
            "field" => &field,
            "value" => &value,
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

/// The message of a pod that is refused for findings that `refuse`.
pub(super) fn refusals(
    subject: &Subject<'_>,
    findings: &[Finding],
    refuse: impl Fn(&Finding) -> bool,
) -> Option<String> {
    let refused: Vec<&Finding> = findings.iter().filter(|finding| refuse(finding)).collect();
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
        Action::Warn => {
            let what = lack(finding);
            Some(match (&finding.withheld, finding.later) {
                (Some(cause), _) => format!(
                    "{noun} {container:?} has {what}; {quantity} was not set: {cause} (policy {policy})"
                ),
                (None, Some((action, from))) => format!(
                    "{noun} {container:?} has {what}; {} (policy {policy})",
                    later(action, from, &quantity)
                ),
                (None, None) => format!(
                    "{noun} {container:?} has {what}; set one, e.g. {quantity} (policy {policy})"
                ),
            })
        }
        Action::Default | Action::DefaultAndVerify => Some(format!(
            "{noun} {container:?}: {resource} request set to {quantity}{}{} (policy {policy})",
            clamped(finding),
            learned(finding)
        )),
    }
}

/// What is said of a changed quality of service.
pub(super) fn qos(of: &str, before: Qos, after: Qos) -> String {
    format!("{of}: quality of service becomes {}, was {}", after.name(), before.name())
}

fn lack(finding: &Finding) -> String {
    let some = if finding.zero { "a zero" } else { "no" };
    format!("{some} {} request", finding.resource.name())
}

/// What a rule will do that has not started.
fn later(action: Action, from: jiff::Timestamp, quantity: &str) -> String {
    let date = from.strftime("%Y-%m-%d");
    if action == Action::Deny {
        format!("refused from {date}, set e.g. {quantity}")
    } else {
        format!("set to {quantity} from {date}")
    }
}

/// How an amount differs from what the policy says, and why.
fn clamped(finding: &Finding) -> String {
    let Some(first) = finding.clamps.first() else { return String::new() };
    let mut causes: Vec<&str> = finding.clamps.iter().map(|clamp| &*clamp.cause).collect();
    causes.dedup();
    format!(", not {}: {}", finding.resource.format(first.from), causes.join(", then "))
}

/// What an amount was learned from.
fn learned(finding: &Finding) -> String {
    finding.learned.as_ref().map(|from| format!(", learned from {from}")).unwrap_or_default()
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

/// What the user of a pod is told whose annotations leave no room for one more.
pub(super) fn no_record() -> String {
    format!("annotations are full: what was set is not recorded in {}", super::RECORD_ANNOTATION)
}

/// What the user of a workload is told about one finding.
pub(super) fn template_warning(finding: &Finding) -> Option<String> {
    let Finding { container, policy, .. } = finding;
    let quantity = finding.quantity();
    let noun = finding.kind.noun();
    let lack = lack(finding);
    match finding.action {
        Action::Off | Action::Shadow => None,
        Action::Warn => pod_warning(finding),
        Action::Default | Action::DefaultAndVerify => Some(format!(
            "{noun} {container:?} has {lack}; pods get {quantity}{}{} (policy {policy})",
            clamped(finding),
            learned(finding)
        )),
        Action::Deny => Some(format!(
            "{noun} {container:?} has {lack}; pods are refused, set e.g. {quantity} (policy {policy})"
        )),
    }
}

/// Brings warnings to the form that the API server passes on: lines of at most 256 characters, at
/// most 20 of them and 4096 characters together, the last one counting the warnings left out.
pub fn limit_warnings(warnings: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut warnings: Vec<Vec<String>> =
        warnings.into_iter().map(|warning| lines(&one_line(&warning))).collect();
    // Those after which there is room to count the rest.
    let (mut kept, mut count, mut chars, mut fit) = (0, 0, 0, true);
    for warning in &warnings {
        count += warning.len();
        chars += warning.iter().map(|line| line.chars().count()).sum::<usize>();
        fit = count <= LINES && chars <= CHARS;
        if count < LINES && chars + MORE_CHARS <= CHARS {
            kept += 1;
        } else if !fit {
            break;
        }
    }
    if !fit {
        let more = warnings.len() - kept;
        warnings.truncate(kept);
        warnings.push(vec![format!("and {more} more warnings")]);
    }
    warnings.into_iter().flatten().collect()
}

/// The text in lines, broken at spaces where there are some.
fn lines(text: &str) -> Vec<String> {
    let (mut out, mut rest) = (Vec::new(), text);
    while let Some((most, _)) = rest.char_indices().nth(WARNING_CHARS) {
        if out.len() + 1 == WARNING_LINES {
            out.push(rest.chars().take(WARNING_CHARS - 1).chain(['…']).collect());
            return out;
        }
        let space = rest[..most].rfind(' ').filter(|at| *at > 0 && !rest[most..].starts_with(' '));
        let (line, left) = rest.split_at(space.unwrap_or(most));
        out.push(line.to_owned());
        rest = left.strip_prefix(' ').unwrap_or(left);
    }
    if out.is_empty() || !rest.is_empty() {
        out.push(rest.to_owned());
    }
    out
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
