//! The CustomResourceDefinitions, in the form that an API server accepts and that is committed under `manifests/crds`.
//!
//! The derived schemas say more than a structural schema may: whatever is optional is also nullable there, and
//! number formats are Rust's. What is left here are types, bounds, defaults and rules.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value};

use super::{
    DemandProfile, EC2NodeClass, NodeClaim, NodeOverlay, NodePool, RequestPolicy, Reservation,
};

/// All definitions, ordered by name. The same at every call.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut all = vec![
        NodePool::crd(),
        NodeClaim::crd(),
        NodeOverlay::crd(),
        EC2NodeClass::crd(),
        RequestPolicy::crd(),
        Reservation::crd(),
        DemandProfile::crd(),
    ];
    all.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    all.into_iter()
        .map(|crd| {
            let mut value = serde_json::to_value(crd).expect("a definition is plain data");
            for version in value["spec"]["versions"].as_array_mut().into_iter().flatten() {
                let schema = &mut version["schema"]["openAPIV3Schema"];
                normalize(schema);
                if let Some(status) = schema.pointer_mut("/properties/status") {
                    drop_rules(status);
                }
            }
            serde_json::from_value(value).expect("it was a definition before")
        })
        .collect()
}

/// Each definition as a file: its name, `GROUP_PLURAL.yaml`, and its text.
pub fn crds_yaml() -> Vec<(String, String)> {
    crds()
        .into_iter()
        .map(|crd| {
            let name = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
            let text = serde_saphyr::to_string(&crd).expect("a definition is plain data");
            (name, format!("---\n{text}"))
        })
        .collect()
}

/// The schema of a kind's served version, by kind.
pub(crate) fn schema_of(kind: &str) -> Option<&'static Value> {
    static SCHEMAS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
        let schema = |crd: CustomResourceDefinition| {
            let version = crd.spec.versions.into_iter().next()?;
            let schema = version.schema?.open_api_v3_schema?;
            Some((crd.spec.names.kind, serde_json::to_value(schema).ok()?))
        };
        crds().into_iter().filter_map(schema).collect()
    });
    SCHEMAS.get(kind)
}

/// Words of a schema whose values are schemas by name.
const NAMED: &[&str] = &["properties"];
/// Words of a schema whose value is a schema.
const NESTED: &[&str] = &["items", "additionalProperties"];

fn normalize(schema: &mut Value) {
    let Value::Object(schema) = schema else { return };
    for word in ["nullable", "title", "anyOf", "oneOf", "allOf", "$schema"] {
        schema.remove(word);
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    // Of the number formats an API server knows only these two.
    if let Some(Value::String(format)) = schema.get("format")
        && !["int32", "int64", "date-time"].contains(&format.as_str())
    {
        schema.remove("format");
    }
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        schema.remove("type");
    }
    unwrap_description(schema);
    for word in NAMED {
        let named = schema.get_mut(*word).and_then(Value::as_object_mut);
        named.into_iter().flat_map(Map::values_mut).for_each(normalize);
    }
    for word in NESTED {
        match schema.get_mut(*word) {
            Some(Value::Bool(_)) => drop(schema.remove(*word)),
            Some(nested) => normalize(nested),
            None => {}
        }
    }
}

/// Only we write a status, from what was checked before; rules over its unbounded lists would cost too much.
fn drop_rules(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.remove("x-kubernetes-validations");
            object.values_mut().for_each(drop_rules);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_rules),
        _ => {}
    }
}

/// Joins the lines of a doc comment; `kubectl explain` wraps by itself.
fn unwrap_description(schema: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text
            .split("\n\n")
            .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join("\n\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The committed files are what the types say. `UPDATE_CRDS=1` writes them.
    #[test]
    fn committed_crds_are_current() {
        let folder = std::path::Path::new("manifests/crds");
        let generated = crds_yaml();
        if std::env::var_os("UPDATE_CRDS").is_some() {
            std::fs::create_dir_all(folder).unwrap();
            for (name, text) in &generated {
                std::fs::write(folder.join(name), text).unwrap();
            }
        }
        for (name, text) in &generated {
            let committed = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            assert!(committed == *text, "{name} is out of date: run `make crds`");
        }
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), generated.len());
    }

    fn visit(path: &str, schema: &Value, check: &mut dyn FnMut(&str, &Map<String, Value>)) {
        let Some(object) = schema.as_object() else { return };
        check(path, object);
        for (name, nested) in
            object.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            visit(&format!("{path}.{name}"), nested, check);
        }
        for word in NESTED {
            if let Some(nested) = object.get(*word) {
                visit(&format!("{path}[]"), nested, check);
            }
        }
    }

    #[test]
    fn schemas_are_structural_and_described() {
        for crd in crds() {
            let kind = &crd.spec.names.kind;
            visit(kind, schema_of(kind).unwrap(), &mut |path, schema| {
                let open = schema.contains_key("x-kubernetes-int-or-string");
                assert!(open || schema.contains_key("type"), "{path} has no type");
                let named = !path.ends_with("[]") && path.contains('.');
                assert!(!named || schema.contains_key("description"), "{path} has no description");
            });
        }
    }

    #[test]
    fn identity_columns_and_scale_are_as_users_know_them() {
        let crds = crds();
        let find = |kind: &str| crds.iter().find(|c| c.spec.names.kind == kind).unwrap();
        let columns = |kind: &str| -> Vec<String> {
            let columns = find(kind).spec.versions[0].additional_printer_columns.clone().unwrap();
            columns.into_iter().map(|c| c.name).collect()
        };
        let pool = ["NodeClass", "Nodes", "Ready", "Age", "Weight", "CPU", "Memory"];
        assert_eq!(columns("NodePool"), pool);
        let claim = [
            "Type",
            "Capacity",
            "Zone",
            "Node",
            "Ready",
            "Age",
            "ImageID",
            "ID",
            "NodePool",
            "NodeClass",
            "Drifted",
        ];
        assert_eq!(columns("NodeClaim"), claim);
        assert_eq!(columns("NodeOverlay"), ["Ready", "Age", "Weight"]);
        assert_eq!(find("NodeOverlay").spec.names.short_names.as_deref().unwrap(), ["overlays"]);
        let names = &find("EC2NodeClass").spec.names;
        assert_eq!(names.plural, "ec2nodeclasses");
        assert_eq!(names.short_names.as_deref().unwrap(), ["ec2nc", "ec2ncs"]);
        let scale = find("NodePool").spec.versions[0].subresources.clone().unwrap().scale.unwrap();
        assert_eq!(scale.spec_replicas_path, ".spec.replicas");
        assert_eq!(scale.status_replicas_path, ".status.nodes");
        for crd in &crds {
            let kind = &*crd.spec.names.kind;
            let namespaced = matches!(kind, "DemandProfile" | "Reservation");
            assert_eq!(crd.spec.scope, if namespaced { "Namespaced" } else { "Cluster" });
            let subresources = crd.spec.versions[0].subresources.clone();
            let has_status = subresources.is_some_and(|all| all.status.is_some());
            assert_eq!(has_status, kind != "DemandProfile", "{kind}");
        }
    }
}
