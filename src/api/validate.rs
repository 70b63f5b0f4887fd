//! Holds an object that could be read against everything that must be true of it.
//!
//! Three sources agree here: the bounds of the schema, the rules that an API server evaluates in CEL, and the
//! checks that only a controller makes (reported there as the condition `ValidationSucceeded`). `simulate` uses
//! them on files, the controllers on what the API server sends.

mod ec2nodeclass;
mod kubelet;
mod nodeoverlay;
mod nodepool;
mod requestpolicy;
mod requirements;

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::common::CelRule;
use super::schema::inspect;
use super::{
    DemandProfile, EC2NodeClass, NodeClaim, NodeOverlay, NodePool, RequestPolicy, Reservation,
};

/// The longest value that is repeated in a message, in characters.
const LONGEST_VALUE: usize = 120;

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Where it is, such as `spec.template.spec.requirements[0].key`.
    pub path: String,
    /// What was written, as JSON; absent when nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to write instead, when that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl FieldError {
    /// An error about a value. Null means that the field is absent; lists and objects are not repeated.
    pub fn new(path: &str, value: &Value, message: impl Into<String>) -> Self {
        let value = match value {
            Value::Null | Value::Array(_) | Value::Object(_) => None,
            value => Some(shortened(&value.to_string())),
        };
        Self { path: path.to_owned(), value, message: message.into(), fix: None }
    }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= LONGEST_VALUE {
        return text.to_owned();
    }
    let start: String = text.chars().take(LONGEST_VALUE).collect();
    format!("{start}…")
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path)?;
        if let Some(value) = &self.value {
            write!(f, "{value}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

/// Collects what is wrong.
#[derive(Debug, Default)]
struct Report {
    errors: Vec<FieldError>,
}

impl Report {
    /// Starts with what the schema of the kind says about the object.
    fn of<T: Serialize>(kind: &str, object: &T) -> Self {
        let mut errors = Vec::new();
        match serde_json::to_value(object) {
            Ok(value) => {
                let found = inspect(kind, &value).unwrap_or_default();
                errors.extend(found.shape);
                errors.extend(found.values);
            }
            Err(error) => errors.push(FieldError::new("", &Value::Null, error.to_string())),
        }
        Self { errors }
    }

    /// Adds the violation of a CEL rule unless it holds.
    fn rule(&mut self, holds: bool, path: &str, rule: CelRule) {
        if !holds {
            self.add(path, &Value::Null, rule.1);
        }
    }

    fn add(&mut self, path: &str, value: &Value, message: impl Into<String>) -> &mut FieldError {
        let at = self.errors.len();
        self.errors.push(FieldError::new(path, value, message));
        &mut self.errors[at]
    }

    fn add_with_fix(
        &mut self,
        path: &str,
        value: &Value,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.add(path, value, message).fix = Some(fix.into());
    }
}

/// Everything that is wrong with a NodePool.
pub fn validate_nodepool(pool: &NodePool) -> Vec<FieldError> {
    let mut report = Report::of("NodePool", pool);
    nodepool::pool(&mut report, pool);
    report.errors
}

/// Everything that is wrong with a NodeClaim.
pub fn validate_nodeclaim(claim: &NodeClaim) -> Vec<FieldError> {
    let mut report = Report::of("NodeClaim", claim);
    nodepool::claim(&mut report, claim);
    report.errors
}

/// Everything that is wrong with a NodeOverlay by itself.
pub fn validate_nodeoverlay(overlay: &NodeOverlay) -> Vec<FieldError> {
    let mut report = Report::of("NodeOverlay", overlay);
    nodeoverlay::overlay(&mut report, overlay);
    report.errors
}

/// Everything that is wrong with an `EC2NodeClass`.
pub fn validate_ec2nodeclass(class: &EC2NodeClass) -> Vec<FieldError> {
    let mut report = Report::of("EC2NodeClass", class);
    ec2nodeclass::class(&mut report, class);
    report.errors
}

/// Everything that is wrong with a RequestPolicy.
pub fn validate_requestpolicy(policy: &RequestPolicy) -> Vec<FieldError> {
    let mut report = Report::of("RequestPolicy", policy);
    requestpolicy::policy(&mut report, policy);
    report.errors
}

/// Everything that is wrong with a Reservation.
pub fn validate_reservation(reservation: &Reservation) -> Vec<FieldError> {
    Report::of("Reservation", reservation).errors
}

/// Everything that is wrong with a DemandProfile.
pub fn validate_demandprofile(profile: &DemandProfile) -> Vec<FieldError> {
    Report::of("DemandProfile", profile).errors
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;
    use serde::Deserialize;
    use serde::de::DeserializeOwned;
    use serde_json::json;

    use super::*;
    use crate::api::{crds, decode};

    /// An object, and a part of what an API server says about it.
    #[derive(Deserialize)]
    struct Case {
        name: String,
        object: Value,
        #[serde(default)]
        message: String,
    }

    fn cases(file: &str) -> Vec<Case> {
        let path = format!("tests/fixtures/crds/{file}.yaml");
        serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn check<T: CustomResourceExt + DeserializeOwned>(
        object: Value,
        validate: fn(&T) -> Vec<FieldError>,
    ) -> Vec<String> {
        let errors = match decode::<T>(object) {
            Ok((object, unknown)) => unknown.into_iter().chain(validate(&object)).collect(),
            Err(errors) => errors,
        };
        errors.iter().map(ToString::to_string).collect()
    }

    fn judge(object: Value) -> Vec<String> {
        match object["kind"].as_str().unwrap() {
            "NodePool" => check(object, validate_nodepool),
            "NodeClaim" => check(object, validate_nodeclaim),
            "NodeOverlay" => check(object, validate_nodeoverlay),
            "EC2NodeClass" => check(object, validate_ec2nodeclass),
            "RequestPolicy" => check(object, validate_requestpolicy),
            "Reservation" => check(object, validate_reservation),
            "DemandProfile" => check(object, validate_demandprofile),
            other => panic!("no such kind: {other}"),
        }
    }

    #[test]
    fn what_a_server_takes_is_sound_here() {
        for case in cases("accept") {
            assert_eq!(judge(case.object), Vec::<String>::new(), "{}", case.name);
        }
    }

    #[test]
    fn what_a_server_refuses_is_refused_here_with_the_same_words() {
        for case in cases("refuse") {
            let wanted = case.message.to_lowercase();
            let found = judge(case.object);
            assert!(
                found.iter().any(|e| e.to_lowercase().contains(&wanted)),
                "{}: {found:?}",
                case.name
            );
        }
    }

    fn rules(schema: &Value, found: &mut Vec<(String, String)>) {
        match schema {
            Value::Object(object) => {
                for rule in object
                    .get("x-kubernetes-validations")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                {
                    let text = |field: &str| rule[field].as_str().unwrap_or_default().to_owned();
                    found.push((text("rule"), text("message")));
                }
                object.values().for_each(|v| rules(v, found));
            }
            Value::Array(list) => list.iter().for_each(|v| rules(v, found)),
            _ => {}
        }
    }

    /// Rules that compare with the stored object cannot be seen in one object.
    #[test]
    fn every_rule_has_a_case() {
        let told: String =
            cases("refuse").into_iter().flat_map(|case| judge(case.object)).collect();
        let mut found = Vec::new();
        rules(&serde_json::to_value(crds()).unwrap(), &mut found);
        assert!(found.len() > 40, "{}", found.len());
        for (rule, message) in found {
            assert!(rule.contains("oldSelf") || told.contains(&message), "no case for {message:?}");
        }
    }

    fn pool(requirements: &Value) -> Value {
        json!({
            "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "default"},
            "spec": {"template": {"spec": {
                "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
                "requirements": requirements,
            }}},
        })
    }

    #[test]
    fn a_controller_sees_more_than_the_server() {
        let mut object = pool(&json!([
            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["Spot"]},
            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot", "x"], "minValues": 2},
            {"key": "karpenter.k8s.aws/instance-catagory", "operator": "In", "values": ["c"]},
            {"key": "kubernetes.io/instance-type", "operator": "In", "values": ["m5.large"]},
            {"key": "karpenter.sh/instance-family", "operator": "In", "values": ["m5"]},
        ]));
        let taint = json!([{"key": "a", "effect": "NoSchedule"}]);
        object["spec"]["template"]["spec"]["taints"] = taint.clone();
        object["spec"]["template"]["spec"]["startupTaints"] = taint;
        object["spec"]["disruption"] =
            json!({"budgets": [{"schedule": "99 * * * *", "duration": "1h"}]});
        let expected = [
            "spec.template.spec.requirements[0].values: \"Spot\": must name at least 1 of on-demand, spot, reserved",
            "spec.template.spec.requirements[1].values: \"spot, x\": must name at least 2 of on-demand, spot, reserved",
            "spec.template.spec.requirements[2].key: \"karpenter.k8s.aws/instance-catagory\": no node carries this \
             label; did you mean karpenter.k8s.aws/instance-category?",
            "spec.template.spec.requirements[3].key: \"kubernetes.io/instance-type\": no node carries this label; did \
             you mean node.kubernetes.io/instance-type?",
            "spec.template.spec.requirements[4].key: \"karpenter.sh/instance-family\": label domain \"karpenter.sh\" is \
             restricted; did you mean karpenter.k8s.aws/instance-family?",
            "spec.template.spec.requirements[1]: the requirements on karpenter.sh/capacity-type exclude each other, so \
             no node can meet them; remove one",
            "spec.template.spec.startupTaints[0]: \"a:NoSchedule\": duplicate taint key and effect",
        ];
        let found = judge(object);
        assert_eq!(found[..7], expected);
        assert!(
            found[7]
                .starts_with("spec.disruption.budgets[0].schedule: \"99 * * * *\": is not a cron"),
            "{found:?}"
        );
        assert_eq!(found.len(), 8);
    }

    #[test]
    fn an_overlay_is_held_against_what_its_numbers_mean() {
        let overlay = json!({
            "apiVersion": "karpenter.sh/v1alpha1", "kind": "NodeOverlay", "metadata": {"name": "o"},
            "spec": {
                "requirements": [{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["Spot"]}],
                "capacity": {"example.com/card": -1}, "price": "1".repeat(65),
            },
        });
        let long =
            format!("spec.price: \"{}\": is not a price; write fewer digits", "1".repeat(65));
        let expected = [
            "spec.requirements[0].values: \"Spot\": must name at least 1 of on-demand, spot, reserved",
            "spec.capacity[example.com/card]: \"-1\": must not be negative",
            &*long,
        ];
        assert_eq!(judge(overlay), expected);
    }

    #[test]
    fn a_request_policy_is_read_as_its_user_means_it() {
        let policy = json!({
            "apiVersion": "harbinger.sh/v1alpha1", "kind": "RequestPolicy", "metadata": {"name": "p"},
            "spec": {
                "rules": [{"resource": "cpu", "action": "Default", "default": "0"}], "message": "{pod} lacks {what}",
                "match": {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
            },
        });
        let expected = [
            "spec.rules[0].default: \"0\": must be more than zero",
            "spec.match.namespaceSelector.matchExpressions[0].operator: \"In\": needs at least one value",
            "spec.message: \"{what}\": unknown placeholder; use one of namespace, pod, container, resource, field, value, policy",
        ];
        assert_eq!(judge(policy), expected);
    }
}
