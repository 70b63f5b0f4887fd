//! Reads an object of one of our kinds from a file, and says exactly what is wrong when it cannot.

use kube::CustomResourceExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::defaults::complete;
use super::schema::{inspect, join};
use super::validate::FieldError;

/// Reads an object as an API server would: nulls are absent, defaults are filled in.
///
/// With the object come the fields that do not exist, which an API server would drop. The error lists everything
/// that keeps the object from being read. Bounds and rules are left to the `validate_…` functions.
pub fn decode<T>(mut object: Value) -> Result<(T, Vec<FieldError>), Vec<FieldError>>
where
    T: CustomResourceExt + DeserializeOwned,
{
    let resource = T::api_resource();
    let mut errors = envelope(&object, &resource.kind, &resource.api_version);
    complete(&resource.kind, &mut object);
    let found = inspect(&resource.kind, &object).unwrap_or_default();
    errors.extend(found.shape);
    if !errors.is_empty() {
        // A field that is missing is often one that is misspelt.
        errors.extend(found.unknown);
        return Err(errors);
    }
    serde_path_to_error::deserialize::<_, T>(object)
        .map(|object| (object, found.unknown))
        .map_err(|error| unreadable(found.values, &error))
}

/// The bounds that were broken, among them the one that the type could not read either.
fn unreadable(
    mut errors: Vec<FieldError>,
    error: &serde_path_to_error::Error<serde_json::Error>,
) -> Vec<FieldError> {
    let path = error.path().to_string();
    let message = error.inner().to_string();
    match errors.iter_mut().find(|e| e.path == path) {
        Some(known) => known.fix = Some(message),
        None => errors.push(FieldError::new(&path, &Value::Null, message)),
    }
    errors
}

fn envelope(object: &Value, kind: &str, api_version: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (field, wanted) in [("apiVersion", api_version), ("kind", kind)] {
        let value = object.get(field).unwrap_or(&Value::Null);
        if value != wanted {
            let mut error = FieldError::new(field, value, format!("expected {wanted}"));
            if field == "apiVersion" && value.as_str().is_some_and(is_old) {
                error.fix = Some("convert it with `harbinger convert`".to_owned());
            }
            errors.push(error);
        }
    }
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    let named = ["name", "generateName"].iter().any(|f| metadata.get(f).is_some_and(|n| n != ""));
    if !named {
        let mut error =
            FieldError::new(&join("metadata", "name"), &Value::Null, "required value".to_owned());
        error.fix = Some("give the object a name".to_owned());
        errors.push(error);
    }
    errors
}

/// Whether an API version is one that `convert` reads.
fn is_old(version: &str) -> bool {
    let group = version.split('/').next().unwrap_or_default();
    ["karpenter.sh", "karpenter.k8s.aws", "provisioning.karpenter.sh"].contains(&group)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{EC2NodeClass, NodePool, RequestPolicy};

    fn pool(change: impl FnOnce(&mut Value)) -> Value {
        let mut pool = json!({
            "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "default"},
            "spec": {"template": {"spec": {
                "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
                "requirements": [{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]}],
            }}},
        });
        change(&mut pool);
        pool
    }

    fn errors(object: Value) -> Vec<String> {
        decode::<NodePool>(object).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn defaults_are_those_of_the_schema_and_of_the_types() {
        let (pool, unknown) = decode::<NodePool>(pool(|_| {})).unwrap();
        assert_eq!(unknown, []);
        assert_eq!(pool.spec.template.spec.expire_after.to_string(), "720h");
        assert_eq!(pool.spec.disruption, crate::api::nodepool::Disruption::default());
        assert_eq!(pool.spec.disruption.budgets[0].nodes, "10%");
        assert_eq!(pool.spec.disruption.consolidate_after.to_string(), "0s");
    }

    #[test]
    fn defaults_fill_what_is_half_written_and_null() {
        let (pool, _) = decode::<NodePool>(pool(|p| {
            p["spec"]["disruption"] =
                json!({"budgets": [{"reasons": ["Empty"]}], "consolidateAfter": null});
            p["spec"]["limits"] = json!({"cpu": 1000, "memory": "1Ti"});
        }))
        .unwrap();
        assert_eq!(pool.spec.disruption.budgets[0].nodes, "10%");
        assert_eq!(pool.spec.disruption.consolidate_after.to_string(), "0s");
        assert_eq!(pool.spec.limits["cpu"].0, "1000");
    }

    #[test]
    fn metadata_options_default_as_the_class_says() {
        let class = json!({
            "apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass", "metadata": {"name": "default"},
            "spec": {
                "role": "r", "amiSelectorTerms": [{"alias": "al2023@latest"}],
                "subnetSelectorTerms": [{"id": "subnet-1"}], "securityGroupSelectorTerms": [{"id": "sg-1"}],
                "metadataOptions": {"httpTokens": "optional"},
            },
        });
        let (class, _) = decode::<EC2NodeClass>(class).unwrap();
        let options = class.spec.metadata_options;
        assert_eq!(options.http_put_response_hop_limit, 1);
        assert_eq!(options.http_tokens, crate::api::ec2nodeclass::hardware::HttpTokens::Optional);
        assert_eq!(class.spec.resolved_family(), Some(crate::api::AmiFamily::AL2023));
    }

    #[test]
    fn wrong_types_and_words_are_named_with_their_place_and_a_fix() {
        let found = errors(pool(|p| {
            p["spec"]["weight"] = json!("10");
            p["spec"]["template"]["spec"]["requirements"][0]["operator"] = json!("in");
            p["spec"]["template"]["spec"]["nodeClassRef"] =
                json!({"name": "x", "kind": "EC2NodeClass"});
            p["spec"]["template"]["metadata"] = json!({"labels": {"build": 7}});
        }));
        let expected = [
            "spec.template.metadata.labels.build: 7: must be of type string; write it in quotes: \"7\"",
            "spec.template.spec.nodeClassRef.group: required value",
            "spec.template.spec.requirements[0].operator: \"in\": unsupported value: supported values: \"In\", \
             \"NotIn\", \"Exists\", \"DoesNotExist\", \"Gt\", \"Lt\", \"Gte\", \"Lte\"; did you mean In?",
            "spec.weight: \"10\": must be of type integer",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn unknown_fields_get_the_nearest_name_or_their_new_place() {
        let (_, unknown) = decode::<NodePool>(pool(|p| {
            p["spec"]["weigth"] = json!(10);
            p["spec"]["disruption"] = json!({"expireAfter": "720h"});
            p["spec"]["zzz"] = json!(1);
        }))
        .unwrap();
        let found: Vec<String> = unknown.iter().map(ToString::to_string).collect();
        let expected = [
            "spec.disruption.expireAfter: \"720h\": unknown field; it belongs to spec.template.spec.expireAfter",
            "spec.weigth: 10: unknown field; did you mean weight?",
            "spec.zzz: 1: unknown field",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_envelope_is_checked() {
        let found = errors(pool(|p| {
            p["apiVersion"] = json!("karpenter.sh/v1beta1");
            p["metadata"] = json!({});
        }));
        let expected = [
            "apiVersion: \"karpenter.sh/v1beta1\": expected karpenter.sh/v1; convert it with `harbinger convert`",
            "metadata.name: required value; give the object a name",
        ];
        assert_eq!(found, expected);
        assert!(decode::<NodePool>(json!(null)).is_err());
        assert!(decode::<NodePool>(json!([1])).is_err());
    }

    #[test]
    fn what_the_schema_cannot_say_is_still_an_error_with_a_path() {
        let found = errors(pool(|p| p["spec"]["template"]["spec"]["expireAfter"] = json!("30d")));
        let expected = "spec.template.spec.expireAfter: \"30d\": should match '^(([0-9]+(s|m|h))+|Never)$'; \
                        \"30d\" is not a duration such as 30s, 5m or 1h30m";
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_request_policy_is_read() {
        let policy = json!({
            "apiVersion": "harbinger.sh/v1alpha1", "kind": "RequestPolicy", "metadata": {"name": "p"},
            "spec": {"match": {"ownerKinds": ["Job"]}, "rules": [{"resource": "cpu", "action": "Default", "default": 1}]},
        });
        let (policy, _) = decode::<RequestPolicy>(policy).unwrap();
        assert!(policy.spec.zero_means_missing);
        assert!(!policy.spec.allow_opt_out);
        assert_eq!(policy.spec.rules[0].default.as_ref().unwrap().0, "1");
        assert_eq!(policy.spec.matches.owner_kinds, ["Job"]);
    }
}
