//! From a `RequestPolicy` object to what decisions read.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use regex::Regex;

use super::condition::{Condition, Refused};
use super::snapshot::{Action, ContainerKind, Learned, Policy, Resource, Rule};
use crate::api::requestpolicy as api;
use crate::model::labels::LabelSelector;
use crate::model::quantity::Quantity;
use crate::model::requirement::{Expression, Operator};
use crate::model::resources::{CPU, MEMORY, Resources};
use crate::usage::Measure;

/// What an under-request of cpu costs where a rule does not say: nine tenths of the time are covered,
/// the percentile of the Vertical Pod Autoscaler. What lacks cpu waits.
const CPU_UNDER_COST: u32 = 9;

/// The same of memory: 95 % of the days' peaks. What lacks memory is evicted.
const MEMORY_UNDER_COST: u32 = 19;

/// Why a policy cannot be used. The schema of the resource excludes most of these; files have not
/// been through it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CompileError {
    /// An operator of a selector is unknown.
    #[error("spec.match.{field}: operator {operator:?} is not In, NotIn, Exists or DoesNotExist")]
    Operator {
        /// The selector.
        field: &'static str,
        /// The operator.
        operator: String,
    },
    /// An amount cannot be read or is not above zero.
    #[error("spec.rules[{index}].{field}: {text:?} is not an amount above zero, such as {example}")]
    Amount {
        /// Position of the rule.
        index: usize,
        /// The field below it.
        field: &'static str,
        /// The amount.
        text: String,
        /// One that is.
        example: String,
    },
    /// An action that sets requests without an amount.
    #[error("spec.rules[{index}]: action {action} needs a default, such as {example}")]
    NoAmount {
        /// Position of the rule.
        index: usize,
        /// The action.
        action: &'static str,
        /// An amount.
        example: String,
    },
    /// A range of learned amounts that is empty.
    #[error(
        "spec.rules[{index}].learned: min {min} is above max {max}; no request is between them"
    )]
    Range {
        /// Position of the rule.
        index: usize,
        /// The least amount.
        min: String,
        /// The most.
        max: String,
    },
    /// A resource of which nothing is learned.
    #[error("spec.rules[{index}].learned: nothing is learned of {resource}; remove it")]
    NotLearned {
        /// Position of the rule.
        index: usize,
        /// The resource.
        resource: &'static str,
    },
    /// Two rules for one resource.
    #[error("spec.rules[{index}]: there is a rule for {resource} already")]
    Duplicate {
        /// Position of the rule.
        index: usize,
        /// The resource.
        resource: &'static str,
    },
    /// A condition is no CEL expression of ours, or costs too much.
    #[error("spec.matchConditions[{index}].expression: {why}")]
    Condition {
        /// Position of the condition.
        index: usize,
        /// What is wrong with it.
        why: Refused,
    },
    /// A pattern for images is too large.
    #[error("spec.match.images[{index}]: {pattern:?} is too long a pattern")]
    Image {
        /// Position of the pattern.
        index: usize,
        /// The pattern.
        pattern: String,
    },
}

/// Compiles the policy called `name`.
pub fn compile(name: &str, spec: &api::RequestPolicySpec) -> Result<Policy, CompileError> {
    let selector = |field, selector: &Option<meta::LabelSelector>| {
        selector.as_ref().map(|selector| compile_selector(field, selector)).transpose()
    };
    let mut rules: Vec<Rule> = Vec::with_capacity(spec.rules.len());
    for (index, rule) in spec.rules.iter().enumerate() {
        let rule = compile_rule(index, rule)?;
        if rules.iter().any(|other| other.resource == rule.resource) {
            return Err(CompileError::Duplicate { index, resource: rule.resource.name() });
        }
        rules.push(rule);
    }
    let kinds = &spec.matches.container_kinds;
    let images = spec.matches.images.iter().enumerate().map(|(index, pattern)| {
        glob(pattern).map_err(|_| CompileError::Image { index, pattern: pattern.clone() })
    });
    let conditions = spec.match_conditions.iter().enumerate().map(|(index, condition)| {
        Condition::compile(&condition.name, &condition.expression)
            .map_err(|why| CompileError::Condition { index, why })
    });
    Ok(Policy {
        name: name.into(),
        priority: spec.priority,
        namespaces: selector("namespaceSelector", &spec.matches.namespace_selector)?,
        objects: selector("objectSelector", &spec.matches.object_selector)?,
        owner_kinds: spec.matches.owner_kinds.clone(),
        container_names: spec.matches.container_names.clone(),
        container_kinds: if kinds.is_empty() {
            // An init container that ends rarely changes what its pod needs.
            vec![ContainerKind::Main, ContainerKind::Sidecar]
        } else {
            kinds
                .iter()
                .map(|kind| match kind {
                    api::ContainerKind::Main => ContainerKind::Main,
                    api::ContainerKind::Init => ContainerKind::Init,
                    api::ContainerKind::Sidecar => ContainerKind::Sidecar,
                })
                .collect()
        },
        images: images.collect::<Result<_, _>>()?,
        priority_classes: spec.matches.priority_classes.clone(),
        conditions: conditions.collect::<Result<_, _>>()?,
        rules,
        pre_stop_sleep: spec.pre_stop_sleep_seconds.filter(|seconds| *seconds > 0),
        zero_means_missing: spec.zero_means_missing,
        allow_opt_out: spec.allow_opt_out,
        exempt_users: spec.exempt.users.clone(),
        exempt_groups: spec.exempt.groups.clone(),
        message: spec.message.clone(),
        silence: spec.silence_advice.clone(),
    })
}

/// A pattern in which `*` stands for any characters, slashes too.
fn glob(pattern: &str) -> Result<Regex, regex::Error> {
    let parts: Vec<String> = pattern.split('*').map(regex::escape).collect();
    Regex::new(&format!("^{}$", parts.join(".*")))
}

fn compile_rule(index: usize, rule: &api::PolicyRule) -> Result<Rule, CompileError> {
    let resource = match rule.resource {
        api::PolicyResource::Cpu => Resource::Cpu,
        api::PolicyResource::Memory => Resource::Memory,
        api::PolicyResource::EphemeralStorage => Resource::EphemeralStorage,
    };
    let action = match rule.action {
        api::PolicyAction::Off => Action::Off,
        api::PolicyAction::Shadow => Action::Shadow,
        api::PolicyAction::Warn => Action::Warn,
        api::PolicyAction::Default => Action::Default,
        api::PolicyAction::DefaultAndVerify => Action::DefaultAndVerify,
        api::PolicyAction::Deny => Action::Deny,
    };
    let read =
        |field, text: &Option<ApiQuantity>| read_amount(index, resource, field, text.as_ref());
    let amount = read("default", &rule.default)?;
    if amount.is_none() && action.sets() {
        let (action, example) = (action.api_name(), example(resource));
        return Err(CompileError::NoAmount { index, action, example });
    }
    let learned = match &rule.learned {
        None => None,
        Some(learned) => {
            let (min, max) =
                (read("learned.min", &learned.min)?, read("learned.max", &learned.max)?);
            let resource = resource.name();
            let Some(measure) = learned_measure(resource) else {
                return Err(CompileError::NotLearned { index, resource });
            };
            if let (Some(least), Some(most)) = (min, max)
                && least > most
            {
                let show = |amount| Resources::format_amount(resource, amount);
                return Err(CompileError::Range { index, min: show(least), max: show(most) });
            }
            let usual = match measure {
                Measure::Cpu => CPU_UNDER_COST,
                Measure::Memory => MEMORY_UNDER_COST,
            };
            let under_cost = learned.under_cost.and_then(|cost| u32::try_from(cost).ok());
            Some(Learned { measure, under_cost: under_cost.unwrap_or(usual).max(1), min, max })
        }
    };
    let enforce_from = rule.enforce_from.as_ref().map(|time| time.0);
    Ok(Rule { resource, action, amount, learned, enforce_from })
}

fn example(resource: Resource) -> String {
    Resources::format_amount(resource.name(), resource.suggestion())
}

fn learned_measure(resource: &str) -> Option<Measure> {
    match resource {
        CPU => Some(Measure::Cpu),
        MEMORY => Some(Measure::Memory),
        _ => None,
    }
}

fn read_amount(
    index: usize,
    resource: Resource,
    field: &'static str,
    text: Option<&ApiQuantity>,
) -> Result<Option<i64>, CompileError> {
    let Some(text) = text else { return Ok(None) };
    let quantity: Option<Quantity> = text.0.parse().ok();
    let amount = quantity.map(|quantity| Resources::amount(resource.name(), quantity));
    let bad =
        || CompileError::Amount { index, field, text: text.0.clone(), example: example(resource) };
    amount.filter(|amount| *amount > 0).map(Some).ok_or_else(bad)
}

fn compile_selector(
    field: &'static str,
    selector: &meta::LabelSelector,
) -> Result<LabelSelector, CompileError> {
    let expressions = selector.match_expressions.iter().flatten().map(|expression| {
        let operator = Operator::parse(&expression.operator).filter(|operator| {
            use Operator::{DoesNotExist, Exists, In, NotIn};
            matches!(operator, In | NotIn | Exists | DoesNotExist)
        });
        Ok(Expression {
            key: expression.key.clone(),
            operator: operator.ok_or_else(|| CompileError::Operator {
                field,
                operator: expression.operator.clone(),
            })?,
            values: expression.values.clone().unwrap_or_default(),
            min_values: None,
        })
    });
    Ok(LabelSelector {
        match_labels: selector.match_labels.clone().unwrap_or_default(),
        match_expressions: expressions.collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(spec: Value) -> Result<Policy, CompileError> {
        compile("p", &serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn reads_every_field() {
        let policy = read(json!({
            "match": {
                "namespaceSelector": { "matchLabels": { "a": "b" } },
                "objectSelector": { "matchExpressions": [{ "key": "k", "operator": "Exists" }] },
                "ownerKinds": ["Job"], "containerNames": ["c"], "containerKinds": ["Init"],
                "images": ["registry/*:1.?"], "priorityClasses": ["batch"],
            },
            "rules": [
                { "resource": "cpu", "action": "Default", "default": "0.25" },
                { "resource": "ephemeral-storage", "action": "Deny",
                  "enforceFrom": "2026-01-01T00:00:00Z" },
            ],
            "matchConditions": [{ "name": "c", "expression": "true" }],
            "allowOptOut": true, "exempt": { "users": ["u"], "groups": ["g"] },
            "priority": 7, "message": "m", "preStopSleepSeconds": 5,
        }))
        .unwrap();
        assert_eq!((policy.rules[0].amount, policy.rules[1].amount), (Some(250), None));
        assert_eq!(policy.rules[1].enforce_from.unwrap().to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(policy.container_kinds, [ContainerKind::Init]);
        assert_eq!(policy.objects.unwrap().match_expressions[0].operator, Operator::Exists);
        assert!(policy.zero_means_missing && policy.allow_opt_out);
        assert_eq!((&*policy.exempt_users[0], &*policy.exempt_groups[0]), ("u", "g"));
        assert_eq!(policy.pre_stop_sleep, Some(5));
        assert_eq!((policy.conditions.len(), &*policy.priority_classes[0]), (1, "batch"));
        let image = |name| policy.images[0].is_match(name);
        assert!(
            image("registry/a/b:1.?") && !image("registry/a:1.2") && !image("x/registry/a:1.?")
        );
        let short = read(json!({ "rules": [{ "resource": "cpu", "action": "Warn" }] })).unwrap();
        assert_eq!(short.container_kinds, [ContainerKind::Main, ContainerKind::Sidecar]);
    }

    #[test]
    fn learned_rules_have_usual_costs_and_a_range() {
        let learned = |resource: &str, learned: Value| {
            let rule = json!({ "resource": resource, "action": "Warn", "learned": learned });
            read(json!({ "rules": [rule] })).map(|policy| policy.rules[0].learned.unwrap())
        };
        let cpu = learned("cpu", json!({})).unwrap();
        assert_eq!((cpu.measure, cpu.under_cost, cpu.min, cpu.max), (Measure::Cpu, 9, None, None));
        let memory = learned("memory", json!({ "min": "64Mi", "max": "1Gi" })).unwrap();
        assert_eq!(
            (memory.under_cost, memory.min, memory.max),
            (19, Some(64 << 20), Some(1 << 30))
        );
        assert_eq!(learned("cpu", json!({ "underCost": 49 })).unwrap().under_cost, 49);
        let error = |resource, rule| learned(resource, rule).unwrap_err().to_string();
        assert_eq!(
            error("memory", json!({ "min": "2Gi", "max": "1Gi" })),
            "spec.rules[0].learned: min 2Gi is above max 1Gi; no request is between them"
        );
        assert_eq!(
            error("cpu", json!({ "min": "0" })),
            "spec.rules[0].learned.min: \"0\" is not an amount above zero, such as 100m"
        );
        assert_eq!(
            error("ephemeral-storage", json!({})),
            "spec.rules[0].learned: nothing is learned of ephemeral-storage; remove it"
        );
    }

    #[test]
    fn errors_name_the_field_and_a_fix() {
        let error = |rule: Value| read(json!({ "rules": [rule] })).unwrap_err().to_string();
        assert_eq!(
            error(json!({ "resource": "memory", "action": "Default" })),
            "spec.rules[0]: action Default needs a default, such as 128Mi"
        );
        assert_eq!(
            error(json!({ "resource": "cpu", "action": "Default", "default": "0" })),
            "spec.rules[0].default: \"0\" is not an amount above zero, such as 100m"
        );
        assert_eq!(
            error(json!({ "resource": "cpu", "action": "DefaultAndVerify" })),
            "spec.rules[0]: action DefaultAndVerify needs a default, such as 100m"
        );
        let rule = json!({ "resource": "cpu", "action": "Off" });
        let condition = json!({ "name": "c", "expression": "pod.kind" });
        let error = read(json!({ "rules": [rule], "matchConditions": [condition] })).unwrap_err();
        assert_eq!(
            error.to_string(),
            "spec.matchConditions[0].expression: uses \"pod\"; there are object, request and \
             namespaceObject"
        );
        let twice = json!({ "resource": "cpu", "action": "Off" });
        assert!(matches!(
            read(json!({ "rules": [twice, twice] })),
            Err(CompileError::Duplicate { index: 1, .. })
        ));
        let gt = json!({ "key": "k", "operator": "Gt", "values": ["1"] });
        let selector = json!({ "namespaceSelector": { "matchExpressions": [gt] } });
        assert!(matches!(
            read(json!({ "match": selector, "rules": [] })),
            Err(CompileError::Operator { field: "namespaceSelector", .. })
        ));
    }
}
