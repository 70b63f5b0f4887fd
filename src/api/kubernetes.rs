//! Kubernetes' own kinds, as far as files of them are read: what is wrong with an object before an API server says so.
//!
//! The schemas are those of the client library. They are held less strictly than by an API server: fields that it
//! requires and nobody here needs may be absent. A field that does not exist is wrong where it is a slip of a field
//! that does; otherwise it may be newer than this program.

use std::sync::LazyLock;

use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::scheduling::v1beta1::PodGroup;
use k8s_openapi::api::{
    apps::v1 as apps, batch::v1 as batch, core::v1 as core, storage::v1 as storage,
};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::schema::{Findings, QUANTITY, inspect_by, join};
use super::validate::FieldError;

/// Where a kind lies: its name, its group, and the version to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Name.
    pub name: &'static str,
    /// Group; empty for the oldest kinds.
    pub group: &'static str,
    /// What to write as `apiVersion`.
    pub api_version: &'static str,
}

macro_rules! kinds {
    ($($name:literal $group:literal $version:literal $type:ty,)*) => {
        /// The kinds that say something about nodes.
        pub const KINDS: &[Kind] =
            &[$(Kind { name: $name, group: $group, api_version: $version },)*];

        fn schema(kind: &str) -> Option<&'static Value> {
            match kind {
                $($name => {
                    static SCHEMA: LazyLock<Value> = LazyLock::new(schema_of::<$type>);
                    Some(&SCHEMA)
                })*
                _ => None,
            }
        }
    };
}

kinds! {
    "CSINode" "storage.k8s.io" "storage.k8s.io/v1" storage::CSINode,
    "CronJob" "batch" "batch/v1" batch::CronJob,
    "DaemonSet" "apps" "apps/v1" apps::DaemonSet,
    "Deployment" "apps" "apps/v1" apps::Deployment,
    "Job" "batch" "batch/v1" batch::Job,
    "Namespace" "" "v1" core::Namespace,
    "Node" "" "v1" core::Node,
    "PersistentVolume" "" "v1" core::PersistentVolume,
    "PersistentVolumeClaim" "" "v1" core::PersistentVolumeClaim,
    "Pod" "" "v1" core::Pod,
    "PodGroup" "scheduling.k8s.io" "scheduling.k8s.io/v1beta1" PodGroup,
    "PriorityClass" "scheduling.k8s.io" "scheduling.k8s.io/v1" PriorityClass,
    "ReplicaSet" "apps" "apps/v1" apps::ReplicaSet,
    "StatefulSet" "apps" "apps/v1" apps::StatefulSet,
    "StorageClass" "storage.k8s.io" "storage.k8s.io/v1" storage::StorageClass,
}

/// Counts that may not be negative.
const COUNTS: &[&str] = &["replicas", "parallelism", "completions"];
/// A definition can hold itself only in kinds that are not read here.
const DEEPEST: usize = 64;

/// What is wrong with an object of one of [`KINDS`]; `None` for other kinds.
pub fn inspect(kind: &str, object: &Value) -> Option<Findings> {
    let mut found = inspect_by(schema(kind)?, object);
    let template = match kind {
        "Pod" => "",
        "CronJob" => "/spec/jobTemplate/spec/template",
        "DaemonSet" | "Deployment" | "Job" | "ReplicaSet" | "StatefulSet" => "/spec/template",
        _ => return Some(found),
    };
    let containers = object.pointer(&format!("{template}/spec/containers"));
    if containers.is_none_or(|list| list.is_null() || list.as_array().is_some_and(Vec::is_empty)) {
        let place = format!("{template}/spec").replace('/', ".");
        let path = join(place.trim_start_matches('.'), "containers");
        let mut error = FieldError::new(&path, &Value::Null, "required value");
        error.fix = Some("a pod needs at least one container".to_owned());
        found.shape.push(error);
    }
    Some(found)
}

/// The schema of a type, without references and without what is not asked of files.
fn schema_of<T: JsonSchema>() -> Value {
    let schema = SchemaGenerator::default().into_root_schema_for::<T>().to_value();
    let empty = Map::new();
    let definitions = schema.get("$defs").and_then(Value::as_object).unwrap_or(&empty);
    resolved(&schema, definitions, DEEPEST)
}

fn resolved(schema: &Value, definitions: &Map<String, Value>, depth: usize) -> Value {
    let Some(object) = schema.as_object().filter(|_| depth > 0) else {
        return json!({});
    };
    if let Some(name) = object.get("$ref").and_then(Value::as_str) {
        let name = name.rsplit('/').next().unwrap_or_default();
        if name.ends_with(".resource.Quantity") {
            return json!({QUANTITY: true});
        }
        let definition = definitions.get(name).unwrap_or(&Value::Null);
        return resolved(definition, definitions, depth - 1);
    }
    let mut out = Map::new();
    for word in ["type", "format", "x-kubernetes-int-or-string"] {
        if let Some(value) = object.get(word) {
            out.insert(word.to_owned(), value.clone());
        }
    }
    if object.get("format").is_some_and(|format| format == "int32") {
        out.insert("minimum".to_owned(), i32::MIN.into());
        out.insert("maximum".to_owned(), i32::MAX.into());
    }
    for word in ["items", "additionalProperties"] {
        if let Some(nested) = object.get(word).filter(|nested| nested.is_object()) {
            out.insert(word.to_owned(), resolved(nested, definitions, depth - 1));
        }
    }
    if let Some(properties) = object.get("properties").and_then(Value::as_object) {
        let mut fields = Map::new();
        for (name, nested) in properties {
            let mut field = resolved(nested, definitions, depth - 1);
            if COUNTS.contains(&name.as_str()) && field.get("minimum").is_some() {
                field["minimum"] = 0.into();
            }
            fields.insert(name.clone(), field);
        }
        out.insert("properties".to_owned(), Value::Object(fields));
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: &str, object: &Value) -> Vec<String> {
        let found = inspect(kind, object).unwrap();
        let all = found.shape.iter().chain(&found.values).chain(&found.unknown);
        all.map(ToString::to_string).collect()
    }

    #[test]
    fn every_kind_has_a_schema_that_describes_it() {
        for kind in KINDS {
            let schema = schema(kind.name).unwrap();
            assert!(schema["properties"]["metadata"]["properties"]["labels"].is_object());
            assert!(kind.api_version.starts_with(kind.group), "{kind:?}");
        }
        let list = &schema("CronJob").unwrap()["properties"]["spec"]["properties"]["jobTemplate"];
        let pod = &list["properties"]["spec"]["properties"]["template"]["properties"]["spec"];
        assert!(pod["properties"]["containers"]["items"]["properties"]["resources"].is_object());
        assert!(inspect("Service", &json!({})).is_none());
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "labels": {"version": 1}, "creationTimestamp": null},
            "spec": {"replicas": -1, "template": {"spec": {
                "nodeSelectr": {"a": "b"},
                "containers": [
                    {"name": "a", "resources": {"requests": {"cpu": "1 core", "memory": "-1Gi"}}},
                    {"name": "b", "resources": {"request": {"cpu": 0.5}, "limits": {"cpu": [1]}}},
                ],
            }}},
        });
        let expected = [
            "metadata.labels.version: 1: must be of type string; write it in quotes: \"1\"",
            "spec.template.spec.containers[1].resources.limits.cpu: must be an amount; write an amount such as 500m, 2 or 4Gi",
            "spec.replicas: -1: should be greater than or equal to 0",
            "spec.template.spec.containers[0].resources.requests.cpu: \"1 core\": is not an amount; write an amount such as 500m, 2 or 4Gi",
            "spec.template.spec.containers[0].resources.requests.memory: \"-1Gi\": must not be negative; write an amount such as 500m, 2 or 4Gi",
            "spec.template.spec.containers[1].resources.request: unknown field; did you mean requests?",
            "spec.template.spec.nodeSelectr: unknown field; did you mean nodeSelector?",
        ];
        assert_eq!(told("Deployment", &object), expected);
    }

    #[test]
    fn what_nobody_needs_may_be_absent_and_what_is_new_has_no_fix() {
        let pod = json!({"spec": {"containers": [{"image": "a", "brandNewThing": 1}]}});
        assert_eq!(told("Pod", &pod), ["spec.containers[0].brandNewThing: 1: unknown field"]);
        let none = json!({"spec": {"containers": []}});
        let expected = "spec.containers: required value; a pod needs at least one container";
        assert_eq!(told("Pod", &none), [expected]);
        assert_eq!(told("Job", &json!({})), [format!("spec.template.{expected}")]);
    }
}
