//! Rules that need more than a schema: what the CRDs' CEL rules and the run-time validation say.
//!
//! The API server applies the CEL rules itself; this is for objects from files, and for the
//! `ValidationSucceeded` condition.

use std::collections::BTreeSet;

use super::common::{OperatorSpec, RequirementSpec};
use super::decode::{FieldError, nearest};
use super::ec2nodeclass::EC2NodeClassSpec;
use super::nodepool::NodePoolSpec;
use super::requestpolicy::{PolicyAction, RequestPolicySpec};
use crate::model::instance::CapacityType;
use crate::model::labels;
use crate::model::requirement::Requirements;

/// Keys that articles spread, with the key that was meant.
const MISTAKEN_KEYS: [(&str, &str); 6] = [
    ("karpenter.k8s.aws/instance-type", labels::INSTANCE_TYPE),
    ("karpenter.sh/instance-type", labels::INSTANCE_TYPE),
    ("kubernetes.io/instance-type", labels::INSTANCE_TYPE),
    ("node.kubernetes.io/zone", labels::ZONE),
    ("capacity-type", labels::CAPACITY_TYPE),
    ("karpenter.sh/provisioner-name", labels::NODEPOOL),
];

/// What is wrong with a pool.
pub fn validate_nodepool(spec: &NodePoolSpec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let template = &spec.template.spec;
    let reference = &template.node_class_ref;
    for (field, value) in
        [("group", &reference.group), ("kind", &reference.kind), ("name", &reference.name)]
    {
        if value.is_empty() {
            errors.push(FieldError::new(
                format!("spec.template.spec.nodeClassRef.{field}"),
                "must not be empty",
                "",
            ));
        }
    }
    for (index, requirement) in template.requirements.iter().enumerate() {
        validate_requirement(
            requirement,
            &format!("spec.template.spec.requirements[{index}]"),
            &mut errors,
        );
    }
    impossible(&template.requirements, &mut errors);
    for key in spec.template.metadata.labels.keys() {
        let path = format!("spec.template.metadata.labels[{key}]");
        restricted(key, &path, &mut errors);
    }
    let mut seen = BTreeSet::new();
    let startup = template.startup_taints.iter().map(|taint| ("startupTaints", taint));
    for (list, taint) in template.taints.iter().map(|taint| ("taints", taint)).chain(startup) {
        let taint = taint.taint();
        if !seen.insert((taint.key.clone(), taint.effect)) {
            errors.push(FieldError::new(
                format!("spec.template.spec.{list}"),
                format!("the taint {}:{} appears twice", taint.key, taint.effect),
                "keep one",
            ));
        }
    }
    if spec.weight.is_some_and(|weight| !(1..=100).contains(&weight)) {
        errors.push(FieldError::new("spec.weight", "must be from 1 to 100", ""));
    }
    if spec.replicas.is_some() && spec.weight.is_some() {
        errors.push(FieldError::new(
            "spec.weight",
            "is not supported on a static NodePool",
            "remove weight or replicas",
        ));
    }
    for (index, budget) in spec.disruption.budgets.iter().enumerate() {
        if budget.schedule.is_some() != budget.duration.is_some() {
            errors.push(FieldError::new(
                format!("spec.disruption.budgets[{index}]"),
                "'schedule' must be set with 'duration'",
                "set both or none",
            ));
        }
    }
    errors
}

fn validate_requirement(requirement: &RequirementSpec, path: &str, errors: &mut Vec<FieldError>) {
    let key = &*requirement.key;
    if let Some((_, right)) = MISTAKEN_KEYS.iter().find(|(wrong, _)| *wrong == key) {
        errors.push(FieldError::new(
            format!("{path}.key"),
            format!("{key} is not a label that nodes carry"),
            format!("use {right}"),
        ));
    } else if key == labels::NODEPOOL {
        errors.push(FieldError::new(
            format!("{path}.key"),
            format!("{key} is restricted"),
            "the pool sets it itself",
        ));
    } else {
        restricted(key, &format!("{path}.key"), errors);
    }
    let values = &requirement.values;
    let at = format!("{path}.values");
    match requirement.operator {
        OperatorSpec::In | OperatorSpec::NotIn if values.is_empty() => {
            errors.push(FieldError::new(
                at,
                format!("operator {:?} needs a value", requirement.operator),
                "",
            ));
        }
        OperatorSpec::Gt | OperatorSpec::Lt | OperatorSpec::Gte | OperatorSpec::Lte => {
            let one = matches!(values.as_slice(), [value] if value.parse::<u64>().is_ok());
            if !one {
                errors.push(FieldError::new(
                    at,
                    format!(
                        "operator {:?} needs a single non-negative integer",
                        requirement.operator
                    ),
                    format!("for example values: [\"{}\"]", 4),
                ));
            }
        }
        OperatorSpec::In
            if key == labels::CAPACITY_TYPE
                && !values.iter().any(|value| CapacityType::parse(value).is_some()) =>
        {
            errors.push(FieldError::new(
                at,
                format!("none of [{}] is a capacity type", values.join(", ")),
                "use on-demand, spot or reserved",
            ));
        }
        _ => {}
    }
    if let (OperatorSpec::In, Some(least)) = (requirement.operator, requirement.min_values)
        && values.len() < usize::try_from(least).unwrap_or(usize::MAX)
    {
        errors.push(FieldError::new(
            format!("{path}.minValues"),
            format!("is {least}, but only {} values are listed", values.len()),
            "list more values or lower minValues",
        ));
    }
}

fn restricted(key: &str, path: &str, errors: &mut Vec<FieldError>) {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let ours = domain == "karpenter.sh" || domain.ends_with(".karpenter.sh");
    if key == labels::HOSTNAME || (ours && key != labels::CAPACITY_TYPE) {
        let fix = nearest(key, [labels::CAPACITY_TYPE].into_iter())
            .map(|name| format!("did you mean {name}?"))
            .unwrap_or_default();
        errors.push(FieldError::new(path, format!("label {key} is restricted"), fix));
    }
}

/// Requirements of one key that exclude each other can never have a node.
fn impossible(requirements: &[RequirementSpec], errors: &mut Vec<FieldError>) {
    let expressions: Vec<_> = requirements.iter().map(RequirementSpec::expression).collect();
    let all = Requirements::from_expressions(&expressions);
    for (key, requirement) in all.iter() {
        let asked_absent = expressions.iter().any(|expression| {
            *expression.key == **key
                && expression.operator == crate::model::requirement::Operator::DoesNotExist
        });
        if requirement.is_empty() && !asked_absent {
            errors.push(FieldError::new(
                "spec.template.spec.requirements",
                format!("the requirements on {key} exclude each other, so no node can meet them"),
                "remove one of them",
            ));
        }
    }
}

/// What is wrong with a class.
pub fn validate_ec2nodeclass(spec: &EC2NodeClassSpec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let set = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    if set(&spec.role) == set(&spec.instance_profile) {
        errors.push(FieldError::new(
            "spec",
            "must specify exactly one of ['role', 'instanceProfile']",
            "",
        ));
    }
    let alias = spec.ami_selector_terms.iter().find_map(|term| term.alias.as_deref());
    match (alias, spec.ami_family) {
        (None, None) => errors.push(FieldError::new(
            "spec.amiFamily",
            "must be set when no term of amiSelectorTerms is an alias",
            "for example amiFamily: AL2023, or amiSelectorTerms: [{alias: al2023@latest}]",
        )),
        (Some(alias), _) if !alias.contains('@') => errors.push(FieldError::new(
            "spec.amiSelectorTerms",
            format!("alias {alias} must have the form family@version"),
            format!("for example {alias}@latest"),
        )),
        (Some(_), _) if spec.ami_selector_terms.len() > 1 => errors.push(FieldError::new(
            "spec.amiSelectorTerms",
            "an alias must be the only term",
            "",
        )),
        _ => {}
    }
    for (field, empty) in [
        ("subnetSelectorTerms", spec.subnet_selector_terms.is_empty()),
        ("securityGroupSelectorTerms", spec.security_group_selector_terms.is_empty()),
        ("amiSelectorTerms", spec.ami_selector_terms.is_empty()),
    ] {
        if empty {
            errors.push(FieldError::new(format!("spec.{field}"), "needs at least one term", ""));
        }
    }
    errors
}

/// What is wrong with a request policy.
pub fn validate_requestpolicy(spec: &RequestPolicySpec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if spec.rules.is_empty() {
        errors.push(FieldError::new("spec.rules", "needs at least one rule", ""));
    }
    let mut seen = BTreeSet::new();
    for (index, rule) in spec.rules.iter().enumerate() {
        let path = format!("spec.rules[{index}]");
        if rule.action == PolicyAction::Default && rule.default.is_none() {
            errors.push(FieldError::new(
                format!("{path}.default"),
                "action Default needs a value",
                "for example default: 100m",
            ));
        }
        if rule.default.is_some_and(|value| value.is_zero() || value.is_negative()) {
            errors.push(FieldError::new(format!("{path}.default"), "must be above zero", ""));
        }
        if let Some(moment) = &rule.enforce_from
            && moment.parse::<jiff::Timestamp>().is_err()
        {
            errors.push(FieldError::new(
                format!("{path}.enforceFrom"),
                format!("{moment:?} is not a moment"),
                "for example 2027-03-01T00:00:00Z",
            ));
        }
        if !seen.insert(rule.resource) {
            errors.push(FieldError::new(path, "each resource may have one rule only", ""));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool_errors(requirements: &serde_json::Value) -> String {
        let spec: NodePoolSpec = serde_json::from_value(json!({"template": {"spec": {
            "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "a"},
            "requirements": requirements
        }}}))
        .unwrap();
        validate_nodepool(&spec).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn names_what_was_meant() {
        let wrong = json!([{"key": "karpenter.k8s.aws/instance-type", "operator": "In", "values": ["m5.large"]}]);
        assert!(pool_errors(&wrong).contains("use node.kubernetes.io/instance-type"));
        let wrong = json!([{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["ondemand"]}]);
        assert!(pool_errors(&wrong).contains("use on-demand, spot or reserved"));
        let wrong = json!([
            {"key": "a", "operator": "In", "values": ["x"]},
            {"key": "a", "operator": "NotIn", "values": ["x"]}
        ]);
        assert!(pool_errors(&wrong).contains("on a exclude each other"));
        let wrong = json!([{"key": "a", "operator": "Gt", "values": ["-1"]}]);
        assert!(pool_errors(&wrong).contains("single non-negative integer"));
        let right =
            json!([{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]}]);
        assert_eq!(pool_errors(&right), "");
    }
}
