//! `Provisioner` (`karpenter.sh/v1alpha5` and before) to `NodePool`.

use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::{Piece, Scope, keys, kubelet, nodetemplate, renewed};
use crate::api::{GoDuration, labels};

/// Converts a Provisioner; with an inline provider its node class comes first.
pub(super) fn provisioner(scope: &mut Scope<'_>, mut object: Value) -> Vec<Piece> {
    let spec = object.get_mut("spec").map(Value::take).unwrap_or_default();
    let mut fields = Fields::new("spec", spec);
    if fields.has("constraints") {
        let constraints = fields.part("constraints");
        fields.merge(constraints);
        scope.note("spec.constraints", "its fields are read as fields of spec");
    }
    let mut template = Map::new();
    let mut node_labels = fields.object("labels");
    keys::rename_node_labels(scope, &mut node_labels, "spec.labels");
    if node_labels.remove(labels::NODEPOOL).is_some() {
        scope.note(
            "spec.labels",
            format!("dropped {}: every node gets it by itself", labels::NODEPOOL),
        );
    }
    let requirements = requirements(scope, &mut fields, &node_labels);
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let class = class_for(scope, &mut fields, &name, &mut template);
    template.insert("requirements".to_owned(), Value::Array(requirements));
    for field in ["taints", "startupTaints"] {
        let mut list = fields.list(field);
        keys::rename_taints(scope, &mut list, &format!("spec.{field}"));
        if !list.is_empty() {
            template.insert(field.to_owned(), Value::Array(list));
        }
    }
    template.insert("expireAfter".to_owned(), expire_after(scope, &mut fields).into());
    let mut metadata = Map::new();
    if !node_labels.is_empty() {
        metadata.insert("labels".to_owned(), Value::Object(node_labels));
    }
    fields.keep(&["annotations"], &mut metadata);
    let mut spec = Map::new();
    let mut whole = json!({"spec": template});
    if !metadata.is_empty() {
        whole["metadata"] = Value::Object(metadata);
    }
    spec.insert("template".to_owned(), whole);
    spec.insert("disruption".to_owned(), disruption(scope, &mut fields));
    limits(scope, &mut fields, &mut spec);
    fields.keep(&["weight"], &mut spec);
    let block = fields.object("kubeletConfiguration");
    let block = kubelet::renewed(scope, block, "spec.kubeletConfiguration");
    fields.finish(scope);
    let pool = Piece::Pool {
        source: scope.object.clone(),
        value: renewed(scope, &object, "karpenter.sh/v1", "NodePool", &spec),
        kubelet: Some(block),
    };
    class.into_iter().chain([pool]).collect()
}

/// Writes the reference to the node class; an inline provider becomes a class of its own.
fn class_for(
    scope: &mut Scope<'_>,
    fields: &mut Fields,
    name: &str,
    template: &mut Map<String, Value>,
) -> Option<Piece> {
    let mut reference = fields.part("providerRef");
    let referred = reference.text("name");
    let is_inline = fields.has("provider");
    let class = match (&referred, is_inline) {
        (Some(class), false) => class.clone(),
        (None, true) => name.to_owned(),
        (Some(_), true) => {
            scope.error("spec.provider", "excludes spec.providerRef", "remove one of the two");
            return None;
        }
        (None, false) => {
            let fix = "name an AWSNodeTemplate in spec.providerRef";
            scope.error("spec.providerRef", "a NodePool needs a node class", fix);
            return None;
        }
    };
    let reference = json!({"group": labels::AWS_GROUP, "kind": "EC2NodeClass", "name": class});
    template.insert("nodeClassRef".to_owned(), reference);
    if !is_inline {
        return None;
    }
    scope.note("spec.provider", format!("moved to the new EC2NodeClass/{class}"));
    let part = fields.part("provider");
    let spec = nodetemplate::class_spec(scope, part);
    let metadata = json!({"name": class});
    Some(Piece::Class {
        source: scope.object.clone(),
        value: json!({
            "apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass", "metadata": metadata, "spec": spec,
        }),
        is_new: true,
    })
}

fn limits(scope: &mut Scope<'_>, fields: &mut Fields, spec: &mut Map<String, Value>) {
    let mut part = fields.part("limits");
    let resources = part.object("resources");
    part.finish(scope);
    if !resources.is_empty() {
        spec.insert("limits".to_owned(), Value::Object(resources));
    }
}

/// Requirements as they were, those that the first alphas wrote in other fields, and the old defaults.
fn requirements(
    scope: &mut Scope<'_>,
    fields: &mut Fields,
    node_labels: &Map<String, Value>,
) -> Vec<Value> {
    let mut list = fields.list("requirements");
    keys::rename_requirements(scope, &mut list, "spec.requirements");
    list.retain(|requirement| {
        let is_own = requirement["key"] == labels::NODEPOOL;
        if is_own {
            let message =
                format!("dropped the one on {}: every node gets it by itself", labels::NODEPOOL);
            scope.note("spec.requirements", message);
        }
        !is_own
    });
    let fields_of_alphas = [
        ("instanceTypes", labels::INSTANCE_TYPE),
        ("zones", labels::ZONE),
        ("architecture", labels::ARCH),
        ("architectures", labels::ARCH),
        ("operatingSystem", labels::OS),
        ("operatingSystems", labels::OS),
    ];
    for (field, key) in fields_of_alphas {
        let mut values = fields.list(field);
        if values.is_empty() {
            continue;
        }
        if key == labels::ZONE {
            whole_zones(scope, &mut values);
        }
        scope.note(&format!("spec.{field}"), format!("is now a requirement on {key}"));
        list.push(json!({"key": key, "operator": "In", "values": values}));
    }
    old_defaults(scope, &mut list, node_labels);
    list
}

/// A zone of one letter belongs to the region.
fn whole_zones(scope: &mut Scope<'_>, values: &mut [Value]) {
    for value in values {
        let Some(letter) = value.as_str().filter(|zone| zone.len() == 1).map(str::to_owned) else {
            continue;
        };
        match &scope.options.region {
            Some(region) => *value = format!("{region}{letter}").into(),
            None => {
                scope.error("spec.zones", format!("zone {letter} has no region"), "give --region");
            }
        }
    }
}

/// The last alpha added these where nothing was said; version 1 adds nothing.
fn old_defaults(scope: &mut Scope<'_>, list: &mut Vec<Value>, node_labels: &Map<String, Value>) {
    let says = |list: &[Value], key: &str| {
        node_labels.contains_key(key) || list.iter().any(|requirement| requirement["key"] == key)
    };
    let mut add = |list: &mut Vec<Value>, key: &str, operator: &str, values: &[&str]| {
        let message = format!("added {key} {operator} {}: it was the default", values.join(","));
        scope.note("spec.requirements", message);
        list.push(json!({"key": key, "operator": operator, "values": values}));
    };
    for (key, value) in
        [(labels::OS, "linux"), (labels::ARCH, "amd64"), (labels::CAPACITY_TYPE, labels::ON_DEMAND)]
    {
        if !says(list, key) {
            add(list, key, "In", &[value]);
        }
    }
    let kinds = [
        labels::INSTANCE_TYPE,
        labels::INSTANCE_FAMILY,
        labels::INSTANCE_CATEGORY,
        labels::INSTANCE_GENERATION,
    ];
    if !kinds.iter().any(|key| says(list, key)) {
        add(list, labels::INSTANCE_CATEGORY, "In", &["c", "m", "r"]);
        add(list, labels::INSTANCE_GENERATION, "Gt", &["2"]);
    }
}

fn expire_after(scope: &mut Scope<'_>, fields: &mut Fields) -> String {
    let field = "ttlSecondsUntilExpired";
    if !fields.has(field) {
        scope.note(
            "spec.ttlSecondsUntilExpired",
            "was not set: nodes never expired, while the default is 720h now",
        );
        return "Never".to_owned();
    }
    let seconds = fields.seconds(scope, field).unwrap_or_default();
    GoDuration::from_secs(seconds).to_string()
}

fn disruption(scope: &mut Scope<'_>, fields: &mut Fields) -> Value {
    let mut part = fields.part("consolidation");
    let consolidates = part.take("enabled") == Some(Value::Bool(true));
    part.finish(scope);
    let ttl = fields.seconds(scope, "ttlSecondsAfterEmpty");
    match (consolidates, ttl) {
        (true, None) => {
            json!({"consolidationPolicy": "WhenEmptyOrUnderutilized", "consolidateAfter": "0s"})
        }
        (false, Some(ttl)) => {
            json!({"consolidationPolicy": "WhenEmpty", "consolidateAfter": format!("{ttl}s")})
        }
        (false, None) => {
            let message = "neither consolidation nor ttlSecondsAfterEmpty was set: nodes were never removed by choice";
            scope.note("spec.consolidation", message);
            json!({"consolidationPolicy": "WhenEmpty", "consolidateAfter": "Never"})
        }
        (true, Some(_)) => {
            let message = "excludes spec.consolidation.enabled";
            scope.error("spec.ttlSecondsAfterEmpty", message, "remove one of the two");
            Value::Null
        }
    }
}
