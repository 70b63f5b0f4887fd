//! What is read of Kubernetes objects, and how it becomes the vocabulary.
//!
//! These structs name only the fields that decisions need; serde skips the rest without storing
//! it. The same code reads watch events, admission reviews and files.

pub mod node;
pub mod pod;
pub mod requests;
pub mod volume;
pub mod workload;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::labels::Labels;
use super::pod::OwnerRef;

/// What is read of `metadata`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetaWire {
    /// Name.
    pub name: Option<String>,
    /// Prefix that the API server completes to a name.
    pub generate_name: Option<String>,
    /// Namespace.
    pub namespace: Option<String>,
    /// UID.
    pub uid: Option<String>,
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// Labels.
    #[serde(deserialize_with = "or_default")]
    pub labels: Labels,
    /// Annotations.
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    /// Owners.
    #[serde(deserialize_with = "or_default")]
    pub owner_references: Vec<OwnerWire>,
    /// Finalizers.
    #[serde(deserialize_with = "or_default")]
    pub finalizers: Vec<String>,
    /// Creation time.
    pub creation_timestamp: Option<Timestamp>,
    /// Time at which deletion was asked for, plus the grace period.
    pub deletion_timestamp: Option<Timestamp>,
}

/// What is read of an owner reference.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerWire {
    /// API version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Whether it is the managing controller.
    pub controller: Option<bool>,
}

impl MetaWire {
    /// The managing controller, if any.
    pub fn controller(&self) -> Option<OwnerRef> {
        self.owner_references.iter().find(|owner| owner.controller == Some(true)).map(|owner| {
            OwnerRef {
                kind: (&*owner.kind).into(),
                name: (&*owner.name).into(),
                uid: (&*owner.uid).into(),
            }
        })
    }

    /// Creation in seconds since the epoch, 0 when unknown.
    pub fn created_at(&self) -> i64 {
        self.creation_timestamp.map_or(0, Timestamp::as_second)
    }

    /// Deletion in seconds since the epoch.
    pub fn deleted_at(&self) -> Option<i64> {
        self.deletion_timestamp.map(Timestamp::as_second)
    }

    /// The name, or the empty string.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// The namespace, or `default` as kubectl does for files that name none.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().filter(|name| !name.is_empty()).unwrap_or("default")
    }
}

/// Reads `null` as the default, as the API server does for lists and maps.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
