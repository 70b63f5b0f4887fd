//! RequestPolicies.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::Report;
use crate::api::RequestPolicy;
use crate::api::requestpolicy::{
    DEFAULT_NEEDS_VALUE, EXEMPT_NEEDS_OPT_OUT, LEARNED_RESOURCES, PolicyAction, PolicyResource,
    VALUE_NEEDS_USE,
};

/// Names that a message template may use.
const PLACEHOLDERS: &[&str] =
    &["namespace", "pod", "container", "resource", "field", "value", "policy"];

pub(super) fn policy(report: &mut Report, policy: &RequestPolicy) {
    for (index, rule) in policy.spec.rules.iter().enumerate() {
        let path = format!("spec.rules[{index}]");
        let given = rule.default.is_some();
        let useful = !matches!(rule.action, PolicyAction::Warn | PolicyAction::Deny);
        let sets = matches!(rule.action, PolicyAction::Default | PolicyAction::DefaultAndVerify);
        report.rule(given || !sets, &path, DEFAULT_NEEDS_VALUE);
        report.rule(useful || !given, &path, VALUE_NEEDS_USE);
        let is_known = rule.resource != PolicyResource::EphemeralStorage;
        report.rule(rule.learned.is_none() || is_known, &path, LEARNED_RESOURCES);
        let text = rule.default.as_ref().map(|q| q.0.as_str()).unwrap_or_default();
        if given && (text.starts_with('-') || !text.contains(|c: char| ('1'..='9').contains(&c))) {
            let message = "must be more than zero";
            report.add(&format!("{path}.default"), &Value::from(text), message);
        }
    }
    let exempts = !policy.spec.exempt.is_empty();
    report.rule(!exempts || policy.spec.allow_opt_out, "spec", EXEMPT_NEEDS_OPT_OUT);
    let matches = &policy.spec.matches;
    let selectors = [
        ("spec.match.namespaceSelector", &matches.namespace_selector),
        ("spec.match.objectSelector", &matches.object_selector),
    ];
    for (path, selector) in selectors {
        if let Some(selector) = selector {
            check_selector(report, selector, path);
        }
    }
    if let Some(message) = &policy.spec.message {
        placeholders(report, message);
    }
}

/// An API server keeps any text as an operator here; only the selector's reader knows the four.
fn check_selector(report: &mut Report, selector: &LabelSelector, path: &str) {
    for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let path = format!("{path}.matchExpressions[{index}]");
        let count = expression.values.as_ref().map_or(0, Vec::len);
        let operator = expression.operator.as_str();
        let complaint = match operator {
            "In" | "NotIn" if count == 0 => "needs at least one value",
            "Exists" | "DoesNotExist" if count > 0 => "takes no values",
            "In" | "NotIn" | "Exists" | "DoesNotExist" => continue,
            _ => {
                "unsupported value: supported values: \"In\", \"NotIn\", \"Exists\", \"DoesNotExist\""
            }
        };
        report.add(&format!("{path}.operator"), &Value::from(operator), complaint);
    }
}

fn placeholders(report: &mut Report, message: &str) {
    let names =
        message.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name);
    for name in names.filter(|name| !PLACEHOLDERS.contains(name)) {
        let fix = format!("use one of {}", PLACEHOLDERS.join(", "));
        report.add_with_fix(
            "spec.message",
            &Value::from(format!("{{{name}}}")),
            "unknown placeholder",
            fix,
        );
    }
}
