//! A pod's document without the branches that patches never touch.
//!
//! A patch is tried on the received object before it is sent. Building all of a 60 KB pod in memory
//! for that takes longer than everything else together; the branches below are all that a path of
//! ours goes through, and positions in lists are kept.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// What is kept of a value.
enum Keep {
    /// All of it.
    All,
    /// Of an object, these keys.
    Keys(&'static [(&'static str, Self)]),
    /// Of a list, this of each item.
    Items(&'static Self),
}

const CONTAINERS: Keep = Keep::Items(&Keep::Keys(&[
    ("image", Keep::All),
    ("lifecycle", Keep::All),
    ("name", Keep::All),
    ("ports", Keep::All),
    ("resources", Keep::All),
    ("restartPolicy", Keep::All),
]));

const POD: Keep = Keep::Keys(&[
    (
        "metadata",
        Keep::Keys(&[
            ("annotations", Keep::All),
            ("generateName", Keep::All),
            ("labels", Keep::All),
            ("name", Keep::All),
            ("ownerReferences", Keep::All),
        ]),
    ),
    (
        "spec",
        Keep::Keys(&[
            ("activeDeadlineSeconds", Keep::All),
            ("containers", CONTAINERS),
            ("initContainers", CONTAINERS),
            ("nodeName", Keep::All),
            ("overhead", Keep::All),
            ("priorityClassName", Keep::All),
            ("resources", Keep::All),
            ("terminationGracePeriodSeconds", Keep::All),
        ]),
    ),
]);

/// Reads the parts of a pod that decisions read and patches change.
pub(super) fn read(raw: &str) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(raw);
    let value = POD.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

impl<'de> DeserializeSeed<'de> for &Keep {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            Keep::All => Value::deserialize(deserializer),
            Keep::Keys(_) | Keep::Items(_) => deserializer.deserialize_any(Pruned(self)),
        }
    }
}

struct Pruned<'a>(&'a Keep);

impl<'de> Visitor<'de> for Pruned<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list, as pods have there")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let keys = match self.0 {
            Keep::Keys(keys) => *keys,
            Keep::All | Keep::Items(_) => &[],
        };
        let mut object = Map::new();
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match keys.iter().find(|(name, _)| *name == key) {
                Some((name, keep)) => {
                    object.insert((*name).to_owned(), map.next_value_seed(keep)?);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Value::Object(object))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let keep = match self.0 {
            Keep::Items(keep) => *keep,
            Keep::All | Keep::Keys(_) => &Keep::All,
        };
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(keep)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keeps_positions_nulls_and_whole_branches() {
        let pod = json!({
            "apiVersion": "v1",
            "metadata": { "annotations": null, "managedFields": [1], "labels": { "a": "b" } },
            "spec": {
                "containers": [
                    { "name": "a", "env": [{ "name": "x" }], "resources": { "claims": [] } },
                    { "name": "b" },
                ],
                "initContainers": null,
                "volumes": [{}],
            },
            "status": {},
        });
        let kept = json!({
            "metadata": { "annotations": null, "labels": { "a": "b" } },
            "spec": {
                "containers": [{ "name": "a", "resources": { "claims": [] } }, { "name": "b" }],
                "initContainers": null,
            },
        });
        assert_eq!(read(&pod.to_string()).unwrap(), kept);
        assert!(read("{} x").is_err());
        assert!(read(r#"{"spec":7}"#).is_err());
    }
}
