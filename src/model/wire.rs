//! What is read of Kubernetes objects, and how it becomes the vocabulary.
//!
//! These structs name only the fields that decisions need; serde skips the rest without storing
//! it. The same code reads watch events, admission reviews and files.

pub mod failure;
pub mod node;
pub mod pod;
pub mod requests;
pub mod volume;
pub mod workload;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use jiff::Timestamp;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

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

/// A JSON object. Derived readers take a list of an object's fields as well, in their order; what
/// writes into the object by path then finds a list.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<T, M::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        reader.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

/// Reads an object that may be absent or `null`.
pub(crate) fn object<'de, D, T>(reader: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Object<T>>::deserialize(reader)?.map(|object| object.0))
}

/// Reads an object; one that is absent or `null` is the default.
pub(crate) fn object_or_default<'de, D, T>(reader: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(object(reader)?.unwrap_or_default())
}

/// Reads a list of objects; `null` is the empty list.
pub(crate) fn objects<'de, D, T>(reader: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let list = Option::<Vec<Object<T>>>::deserialize(reader)?;
    Ok(list.into_iter().flatten().map(|object| object.0).collect())
}

/// Reads `null` as the default, as the API server does for lists and maps.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
