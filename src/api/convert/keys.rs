//! Keys with a new name, wherever they stand: labels, selectors, affinities, tolerations, taints.
//!
//! Old keys of Karpenter are renamed everywhere. Old and wrong keys of nodes are renamed only where nodes are
//! selected, because a pod's own label may have any name. A wrong key without a domain may be somebody's own label
//! of nodes: there it is only pointed out, except in the requirements of a pool.

use serde_json::{Map, Value};

use super::Scope;
use crate::api::labels;
use crate::api::schema::join;

/// Keys that Karpenter itself renamed.
const RENAMED: &[(&str, &str)] = &[
    ("karpenter.sh/provisioner-name", labels::NODEPOOL),
    ("karpenter.sh/do-not-evict", labels::DO_NOT_DISRUPT),
    ("karpenter.sh/do-not-consolidate", labels::DO_NOT_DISRUPT),
];

/// The taint of a node that is going, before version 1.
const OLD_DISRUPTION_TAINT: &str = "karpenter.sh/disruption";

/// The new name of a key, and why; none when the key is right.
fn renamed(key: &str, of_node: bool) -> Option<(&'static str, &'static str)> {
    let own = RENAMED.iter().find(|(old, _)| *old == key).map(|(_, new)| (*new, "renamed"));
    own.or_else(|| {
        if !of_node {
            return None;
        }
        let is_old = key.contains("beta.kubernetes.io/");
        if is_old {
            let stable =
                labels::WELL_KNOWN.iter().find(|stable| **stable == labels::normalized(key))?;
            return Some((*stable, "renamed in Kubernetes"));
        }
        labels::corrected(key).map(|right| (right, "no node carries this label"))
    })
}

/// Renames keys anywhere in an object.
pub(super) fn rename(scope: &mut Scope<'_>, object: &mut Value) {
    walk(scope, object, "", false);
}

/// Renames keys in the labels and annotations of the object itself.
pub(super) fn rename_labels(scope: &mut Scope<'_>, metadata: &mut Value) {
    walk(scope, metadata, "metadata", false);
}

/// Renames the keys of a list of requirements.
pub(super) fn rename_requirements(scope: &mut Scope<'_>, list: &mut [Value], path: &str) {
    for (index, requirement) in list.iter_mut().enumerate() {
        walk(scope, requirement, &format!("{path}[{index}]"), true);
    }
}

/// Renames the keys of labels that nodes get.
pub(super) fn rename_node_labels(scope: &mut Scope<'_>, map: &mut Map<String, Value>, path: &str) {
    rename_map(scope, map, path, true);
}

/// Renames the keys of taints.
pub(super) fn rename_taints(scope: &mut Scope<'_>, list: &mut [Value], path: &str) {
    for (index, taint) in list.iter_mut().enumerate() {
        walk(scope, taint, &format!("{path}[{index}]"), false);
    }
}

fn walk(scope: &mut Scope<'_>, value: &mut Value, path: &str, of_node: bool) {
    match value {
        Value::Object(map) => {
            rename_key_field(scope, map, path, of_node);
            for (field, value) in map.iter_mut() {
                let place = join(path, field);
                match (field.as_str(), value) {
                    ("labels" | "annotations" | "matchLabels", Value::Object(labels)) => {
                        rename_map(scope, labels, &place, false);
                    }
                    ("nodeSelector", Value::Object(labels)) => {
                        rename_map(scope, labels, &place, true);
                    }
                    ("topologyKey", Value::String(key)) => rename_text(scope, key, &place, true),
                    (field, value) => {
                        let of_node = of_node || field == "nodeAffinity";
                        walk(scope, value, &place, of_node);
                    }
                }
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter_mut().enumerate() {
                walk(scope, value, &format!("{path}[{index}]"), of_node);
            }
        }
        _ => {}
    }
}

/// Points out a key that is probably meant as another, and whether it stays as it is.
fn stays(scope: &mut Scope<'_>, key: &str, path: &str) -> bool {
    let own = labels::domain(key).is_empty();
    if let Some(right) = labels::corrected(key).filter(|_| own) {
        scope.note(path, format!("kept as your own label; if you mean Karpenter's, write {right}"));
    }
    own
}

fn rename_text(scope: &mut Scope<'_>, key: &mut String, path: &str, of_node: bool) {
    if let Some((new, why)) = renamed(key, of_node) {
        scope.note(path, format!("{key} is now {new}: {why}"));
        new.clone_into(key);
    }
}

fn rename_map(scope: &mut Scope<'_>, map: &mut Map<String, Value>, path: &str, of_node: bool) {
    let old: Vec<String> =
        map.keys().filter(|key| renamed(key, of_node).is_some()).cloned().collect();
    for key in old {
        let (Some((new, why)), Some(value)) = (renamed(&key, of_node), map.remove(&key)) else {
            continue;
        };
        let place = join(path, &key);
        if stays(scope, &key, &place) {
            map.insert(key, value);
        } else if map.contains_key(new) {
            scope.note(&place, format!("dropped: {new} is there as well"));
        } else {
            scope.note(&place, format!("{key} is now {new}: {why}"));
            map.insert(new.to_owned(), value);
        }
    }
}

/// The `key` of a requirement, an expression, a toleration or a taint.
fn rename_key_field(
    scope: &mut Scope<'_>,
    map: &mut Map<String, Value>,
    path: &str,
    of_node: bool,
) {
    let is_expression = map.contains_key("operator") || map.contains_key("effect");
    let Some(Value::String(key)) = map.get_mut("key").filter(|_| is_expression) else {
        return;
    };
    if key == OLD_DISRUPTION_TAINT {
        labels::DISRUPTED_TAINT.clone_into(key);
        // The new taint has no value, so that a toleration of the old value must become one of the key.
        map.remove("value");
        if map.contains_key("operator") {
            map.insert("operator".to_owned(), "Exists".into());
        }
        let message =
            format!("{OLD_DISRUPTION_TAINT} is now {} without a value", labels::DISRUPTED_TAINT);
        scope.note(&join(path, "key"), message);
        return;
    }
    rename_text(scope, key, &join(path, "key"), of_node);
}
