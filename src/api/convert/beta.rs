//! `NodePool` and `EC2NodeClass` of version v1beta1 to version 1.

use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::nodetemplate::{alias_for, metadata_options, supported};
use super::{Piece, Scope, keys, kubelet, renewed};
use crate::api::labels;

/// Fields of a node class that kept their name and meaning.
const KEPT: &[&str] = &[
    "subnetSelectorTerms",
    "securityGroupSelectorTerms",
    "amiSelectorTerms",
    "associatePublicIPAddress",
    "userData",
    "role",
    "instanceProfile",
    "tags",
    "blockDeviceMappings",
    "instanceStorePolicy",
    "detailedMonitoring",
    "context",
];

pub(super) fn pool(scope: &mut Scope<'_>, mut object: Value) -> Piece {
    let spec = object.get_mut("spec").map(Value::take).unwrap_or_default();
    let mut fields = Fields::new("spec", spec);
    let mut template = fields.part("template");
    let mut node = template.part("spec");
    let mut new_node = Map::new();
    new_node.insert("nodeClassRef".to_owned(), class_ref(scope, node.part("nodeClassRef")));
    let mut requirements = node.list("requirements");
    keys::rename_requirements(scope, &mut requirements, "spec.template.spec.requirements");
    new_node.insert("requirements".to_owned(), Value::Array(requirements));
    for field in ["taints", "startupTaints"] {
        let mut list = node.list(field);
        keys::rename_taints(scope, &mut list, &node.place(field));
        if !list.is_empty() {
            new_node.insert(field.to_owned(), Value::Array(list));
        }
    }
    node.keep(&["terminationGracePeriod", "expireAfter"], &mut new_node);
    let block = kubelet::renewed(scope, node.object("kubelet"), "spec.template.spec.kubelet");
    node.finish(scope);
    let mut new_template = Map::new();
    let mut metadata = template.object("metadata");
    if let Some(Value::Object(node_labels)) = metadata.get_mut("labels") {
        keys::rename_node_labels(scope, node_labels, "spec.template.metadata.labels");
    }
    if !metadata.is_empty() {
        new_template.insert("metadata".to_owned(), Value::Object(metadata));
    }
    template.finish(scope);
    let disruption = disruption(scope, fields.part("disruption"), &mut new_node);
    new_template.insert("spec".to_owned(), Value::Object(new_node));
    let mut spec = Map::new();
    spec.insert("template".to_owned(), Value::Object(new_template));
    spec.insert("disruption".to_owned(), disruption);
    fields.keep(&["limits", "weight"], &mut spec);
    fields.finish(scope);
    Piece::Pool {
        source: scope.object.clone(),
        value: renewed(scope, &object, "karpenter.sh/v1", "NodePool", &spec),
        kubelet: Some(block),
    }
}

/// A reference had an API version where it has a group now.
fn class_ref(scope: &mut Scope<'_>, mut old: Fields) -> Value {
    let version = old.text("apiVersion").unwrap_or_default();
    let (kind, name) = (old.text("kind"), old.text("name").unwrap_or_default());
    let group = version.split_once('/').map_or_else(
        || {
            let message = format!("names no group: {} is meant", labels::AWS_GROUP);
            scope.note(&old.place("apiVersion"), message);
            labels::AWS_GROUP
        },
        |(group, _)| group,
    );
    let kind = kind.unwrap_or_else(|| {
        scope.note(&old.place("kind"), "was not set: EC2NodeClass is meant");
        "EC2NodeClass".to_owned()
    });
    old.finish(scope);
    json!({"group": group, "kind": kind, "name": name})
}

/// The policy was renamed, and the lifetime moved to the template.
fn disruption(scope: &mut Scope<'_>, mut old: Fields, node: &mut Map<String, Value>) -> Value {
    let lifetime = old.text("expireAfter").unwrap_or_else(|| {
        scope.note("spec.disruption.expireAfter", "was not set: the default was 720h");
        "720h".to_owned()
    });
    node.entry("expireAfter").or_insert(lifetime.into());
    let policy = old.text("consolidationPolicy").unwrap_or_else(|| {
        scope.note(
            "spec.disruption.consolidationPolicy",
            "was not set: the default was WhenUnderutilized",
        );
        "WhenUnderutilized".to_owned()
    });
    let mut new = Map::new();
    if policy == "WhenUnderutilized" {
        let message = "WhenUnderutilized is now WhenEmptyOrUnderutilized";
        scope.note("spec.disruption.consolidationPolicy", message);
        new.insert("consolidationPolicy".to_owned(), "WhenEmptyOrUnderutilized".into());
    } else {
        new.insert("consolidationPolicy".to_owned(), policy.into());
    }
    let after = old.take("consolidateAfter").unwrap_or_else(|| {
        scope.note("spec.disruption.consolidateAfter", "was not set: nodes went at once");
        "0s".into()
    });
    new.insert("consolidateAfter".to_owned(), after);
    old.keep(&["budgets"], &mut new);
    old.finish(scope);
    Value::Object(new)
}

pub(super) fn class(scope: &mut Scope<'_>, mut object: Value) -> Piece {
    let spec = object.get_mut("spec").map(Value::take).unwrap_or_default();
    let mut fields = Fields::new("spec", spec);
    let mut spec = Map::new();
    fields.keep(KEPT, &mut spec);
    let family = fields.text("amiFamily");
    let selects = spec
        .get("amiSelectorTerms")
        .and_then(Value::as_array)
        .is_some_and(|terms| !terms.is_empty());
    match family {
        Some(family) if selects => {
            spec.insert("amiFamily".to_owned(), supported(scope, "spec.amiFamily", family).into());
        }
        Some(family) => alias_for(scope, "spec.amiFamily", &family, &mut spec),
        None if selects => {}
        None => scope.error("spec.amiFamily", "required value", "write the image family"),
    }
    metadata_options(scope, &mut fields, &mut spec);
    fields.finish(scope);
    Piece::Class {
        source: scope.object.clone(),
        value: renewed(scope, &object, "karpenter.k8s.aws/v1", "EC2NodeClass", &spec),
        is_new: true,
    }
}
