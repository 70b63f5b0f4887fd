//! Taking old objects apart field by field, so that what nobody took can be reported.

use serde_json::{Map, Value};

use super::Scope;
use crate::api::schema::join;

/// The fields of one old object or of a part of it.
pub(super) struct Fields {
    path: String,
    map: Map<String, Value>,
}

impl Fields {
    /// The fields of a value that should be an object; anything else has none.
    pub(super) fn new(path: &str, value: Value) -> Self {
        let map = match value {
            Value::Object(map) => map.into_iter().filter(|(_, v)| !v.is_null()).collect(),
            _ => Map::new(),
        };
        Self { path: path.to_owned(), map }
    }

    /// Where a field stands in the old object.
    pub(super) fn place(&self, field: &str) -> String {
        join(&self.path, field)
    }

    /// Whether the field is there.
    pub(super) fn has(&self, field: &str) -> bool {
        self.map.contains_key(field)
    }

    /// Takes a field out.
    pub(super) fn take(&mut self, field: &str) -> Option<Value> {
        self.map.remove(field)
    }

    /// Takes an object out, to take it apart.
    pub(super) fn part(&mut self, field: &str) -> Self {
        let value = self.take(field).unwrap_or_default();
        Self::new(&self.place(field), value)
    }

    /// Takes an object out whole; empty when it is absent.
    pub(super) fn object(&mut self, field: &str) -> Map<String, Value> {
        match self.take(field) {
            Some(Value::Object(map)) => map,
            _ => Map::new(),
        }
    }

    /// Takes a list out; empty when it is absent.
    pub(super) fn list(&mut self, field: &str) -> Vec<Value> {
        match self.take(field) {
            Some(Value::Array(list)) => list,
            Some(value) => vec![value],
            None => Vec::new(),
        }
    }

    /// Takes a text out.
    pub(super) fn text(&mut self, field: &str) -> Option<String> {
        match self.take(field)? {
            Value::String(text) => Some(text),
            value => Some(value.to_string()),
        }
    }

    /// Takes a number of seconds out; reports what is none.
    pub(super) fn seconds(&mut self, scope: &mut Scope<'_>, field: &str) -> Option<u64> {
        let value = self.take(field)?;
        let seconds = value.as_u64();
        if seconds.is_none() {
            scope.error(
                &self.place(field),
                "must be a whole number of seconds",
                "write a number such as 30",
            );
        }
        seconds
    }

    /// Moves fields that kept their name and meaning.
    pub(super) fn keep(&mut self, names: &[&str], to: &mut Map<String, Value>) {
        for name in names {
            if let Some(value) = self.take(name) {
                to.insert((*name).to_owned(), value);
            }
        }
    }

    /// Adds what is not there yet.
    pub(super) fn merge(&mut self, other: Self) {
        for (field, value) in other.map {
            self.map.entry(field).or_insert(value);
        }
    }

    /// Reports each field that nobody took.
    pub(super) fn finish(self, scope: &mut Scope<'_>) {
        for field in self.map.keys() {
            scope.note(&join(&self.path, field), "dropped: the current version has no such field");
        }
    }
}

/// Annotations that controllers write and that would be wrong on the new object.
const OWNED_ANNOTATIONS: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    "karpenter.sh/provisioner-hash",
    "karpenter.sh/nodepool-hash",
    "karpenter.sh/nodepool-hash-version",
    "karpenter.k8s.aws/nodetemplate-hash",
    "karpenter.k8s.aws/ec2nodeclass-hash",
    "karpenter.k8s.aws/ec2nodeclass-hash-version",
];

/// Name, labels and annotations of an old object.
pub(super) fn metadata(scope: &mut Scope<'_>, old: &Value) -> Value {
    let mut fields = Fields::new("metadata", old.get("metadata").cloned().unwrap_or_default());
    let mut kept = Map::new();
    fields.keep(&["name", "labels", "annotations"], &mut kept);
    if let Some(Value::Object(annotations)) = kept.get_mut("annotations") {
        for key in OWNED_ANNOTATIONS {
            if annotations.remove(*key).is_some() {
                scope.note(
                    &join("metadata.annotations", key),
                    "dropped: it is written by a controller",
                );
            }
        }
        if annotations.is_empty() {
            kept.remove("annotations");
        }
    }
    for field in fields.map.keys() {
        scope.note(&join("metadata", field), "dropped: it belongs to the stored object");
    }
    Value::Object(kept)
}

/// Words separated by commas.
pub(super) fn words(value: &Value) -> Vec<String> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.split(',').map(str::trim).filter(|w| !w.is_empty()).map(str::to_owned).collect()
}
