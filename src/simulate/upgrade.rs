//! Objects of older versions, converted before they are read.

use std::collections::BTreeMap;

use serde_json::Value;

use super::load::{InputError, Origin};
use crate::api::convert::{self, Options};

/// The objects, those of older versions converted.
#[derive(Debug, Default)]
pub struct Upgraded {
    /// Objects in the order of the input. Without the old ones when these cannot be converted.
    pub objects: Vec<(Origin, Value)>,
    /// What was changed, defaulted or dropped on the way.
    pub notes: Vec<String>,
    /// Fields that have no equivalent.
    pub errors: Vec<InputError>,
}

/// Converts the objects when one of them is of an older Karpenter version; others pass as they are.
pub fn upgrade(objects: Vec<(Origin, Value)>, region: &str) -> Upgraded {
    let Some((first, _)) = objects.iter().find(|(_, object)| is_old(object)).cloned() else {
        return Upgraded { objects, ..Upgraded::default() };
    };
    // A conversion may split an object or make a class for it, so places are found by name.
    let mut places: BTreeMap<String, Origin> = BTreeMap::new();
    // An old object and a current one may have the same name: errors are about the old one.
    let (old, current): (Vec<_>, Vec<_>) = objects.iter().partition(|(_, object)| is_old(object));
    for (origin, object) in old.into_iter().chain(current) {
        places.entry(name(object)).or_insert_with(|| origin.clone());
        places.entry(label(object)).or_insert_with(|| origin.clone());
    }
    let place = |key: &str| places.get(key).unwrap_or(&first).clone();
    let options = Options { region: Some(region.to_owned()), ..Options::default() };
    let plain = objects.iter().map(|(_, object)| object.clone()).collect();
    match convert::convert(plain, &options) {
        Ok(conversion) => Upgraded {
            notes: conversion.notes.iter().map(|note| format!("converted {note}")).collect(),
            objects: conversion
                .objects
                .into_iter()
                .map(|object| (place(&name(&object)), object))
                .collect(),
            errors: Vec::new(),
        },
        Err(error) => {
            let wrong = |error: convert::ObjectError| InputError {
                origin: place(&error.object),
                object: error.object.replacen('/', " ", 1),
                message: error.error.to_string(),
            };
            Upgraded {
                errors: error.errors.into_iter().map(wrong).collect(),
                notes: Vec::new(),
                objects: objects.into_iter().filter(|(_, object)| !is_old(object)).collect(),
            }
        }
    }
}

/// Whether an object is of a version that was replaced.
fn is_old(object: &Value) -> bool {
    matches!(
        object["apiVersion"].as_str(),
        Some(
            "karpenter.sh/v1alpha5"
                | "karpenter.sh/v1beta1"
                | "karpenter.k8s.aws/v1alpha1"
                | "karpenter.k8s.aws/v1beta1"
        )
    )
}

/// Name that survives a conversion.
fn name(object: &Value) -> String {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
    format!("{} {}", text("namespace"), text("name"))
}

/// Name by which a conversion speaks of an object.
fn label(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str().unwrap_or("?");
    format!("{}/{name}", object["kind"].as_str().unwrap_or("?"))
}
