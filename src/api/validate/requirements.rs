//! Requirements, taints and class references, wherever they stand.

use serde_json::Value;

use super::Report;
use crate::api::common::{
    BOUND_IS_ONE_INTEGER, ENOUGH_FOR_MIN_VALUES, GROUP_NOT_EMPTY, IN_NEEDS_VALUES, KEY_DOMAIN,
    KEY_HOSTNAME, KIND_NOT_EMPTY, NAME_NOT_EMPTY, NodeClassRef, Operator, Requirement, Taint,
};
use crate::api::labels;
use crate::model::requirement::Requirements;

pub(super) fn requirements(report: &mut Report, list: &[Requirement], path: &str) {
    for (index, requirement) in list.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let count = requirement.values.len();
        let is_in = requirement.operator == Operator::In;
        report.rule(!is_in || count > 0, &path, IN_NEEDS_VALUES);
        let is_bound = matches!(
            requirement.operator,
            Operator::Gt | Operator::Lt | Operator::Gte | Operator::Lte
        );
        report.rule(!is_bound || is_one_integer(&requirement.values), &path, BOUND_IS_ONE_INTEGER);
        let enough = requirement
            .min_values
            .is_none_or(|min| usize::try_from(min).is_ok_and(|min| count >= min));
        report.rule(!is_in || count == 0 || enough, &path, ENOUGH_FOR_MIN_VALUES);
        key(report, &requirement.key, &format!("{path}.key"));
        if requirement.key == labels::CAPACITY_TYPE && is_in {
            capacity_types(report, requirement, &path);
        }
    }
    impossible(report, list, path);
}

/// Requirements of one key that exclude each other can never have a node.
fn impossible(report: &mut Report, list: &[Requirement], path: &str) {
    for (key, together) in joined(list).iter() {
        let of_key = || list.iter().enumerate().filter(|(_, one)| *one.key == **key);
        // A single one without values has its own error.
        if together.is_possible() || of_key().count() < 2 {
            continue;
        }
        if let Some((last, _)) = of_key().next_back() {
            let message = format!(
                "the requirements on {key} exclude each other, so no node can meet them; remove one"
            );
            report.add(&format!("{path}[{last}]"), &Value::Null, message);
        }
    }
}

/// Labels that every node has although its requirements exclude them can never have a node either.
pub(super) fn contradictions<'a>(
    report: &mut Report,
    list: &[Requirement],
    labels: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
) {
    let requirements = joined(list);
    for (path, key, value) in labels {
        if requirements.get(key).is_some_and(|wanted| wanted.is_possible() && !wanted.allows(value))
        {
            let message = format!(
                "every node is labelled {key}={value}, which the requirement on {key} excludes, so no \
                 node can meet both; change one"
            );
            report.add(path, &Value::from(key), message);
        }
    }
}

fn joined(list: &[Requirement]) -> Requirements {
    let expressions: Vec<_> = list.iter().map(Requirement::expression).collect();
    Requirements::from_expressions(&expressions)
}

fn is_one_integer(values: &[String]) -> bool {
    match values {
        [value] => (1..=18).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit()),
        _ => false,
    }
}

/// The key of a requirement. A key of the provider's domain that no instance type carries would match nothing.
fn key(report: &mut Report, key: &str, path: &str) {
    let value = Value::from(key);
    let before = report.errors.len();
    if key == labels::HOSTNAME {
        report.add(path, &value, KEY_HOSTNAME.1);
    } else if labels::is_restricted(key) {
        report.add(path, &value, KEY_DOMAIN.1);
    } else if labels::corrected(key).is_some()
        || labels::domain(key) == labels::AWS_GROUP && !labels::is_known(key)
    {
        report.add(path, &value, "no node carries this label");
    }
    hint(report, before, key);
}

/// Says which well-known key was probably meant, beside an error about a key.
pub(super) fn hint(report: &mut Report, from: usize, key: &str) {
    if let Some(meant) = labels::suggestion(key) {
        for error in &mut report.errors[from..] {
            error.fix = Some(format!("did you mean {meant}?"));
        }
    }
}

fn capacity_types(report: &mut Report, requirement: &Requirement, path: &str) {
    let valid =
        requirement.values.iter().filter(|v| labels::CAPACITY_TYPES.contains(&v.as_str())).count();
    let wanted = requirement.min_values.and_then(|n| usize::try_from(n).ok()).unwrap_or(1).max(1);
    if !requirement.values.is_empty() && valid < wanted {
        let values = Value::from(requirement.values.join(", "));
        let message = format!("must name at least {wanted} of on-demand, spot, reserved");
        report.add(&format!("{path}.values"), &values, message);
    }
}

/// One key and effect may appear only once among all the taints of a node.
pub(super) fn taints(report: &mut Report, lists: [(&str, &[Taint]); 2]) {
    let mut seen = Vec::new();
    for (path, list) in lists {
        for (index, taint) in list.iter().enumerate() {
            if seen.contains(&(&taint.key, taint.effect)) {
                let value = Value::from(format!("{}:{:?}", taint.key, taint.effect));
                report.add(&format!("{path}[{index}]"), &value, "duplicate taint key and effect");
            }
            seen.push((&taint.key, taint.effect));
        }
    }
}

pub(super) fn node_class_ref(report: &mut Report, reference: &NodeClassRef, path: &str) {
    report.rule(!reference.group.is_empty(), &format!("{path}.group"), GROUP_NOT_EMPTY);
    report.rule(!reference.kind.is_empty(), &format!("{path}.kind"), KIND_NOT_EMPTY);
    report.rule(!reference.name.is_empty(), &format!("{path}.name"), NAME_NOT_EMPTY);
}
