//! Holds an object against the schema of its kind, as an API server does: shape, bounds, unknown fields.
//!
//! The rules in CEL are not read here; `validate` holds them in Rust.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::common::{KEY_PATTERN, QUANTITY_PATTERN, VALUE_PATTERN};
use super::crd::{crds, schema_of};
use super::duration::{DURATION_PATTERN, NILLABLE_PATTERN};
use super::ec2nodeclass::hardware::VOLUME_SIZE_PATTERN;
use super::labels::nearest;
use super::nodeoverlay::{ADJUSTMENT_PATTERN, PRICE_PATTERN};
use super::validate::FieldError;
use crate::model::quantity::Quantity;

/// What is wrong with an object, by how much it matters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// The object cannot be read: wrong types, missing fields, unknown words.
    pub shape: Vec<FieldError>,
    /// The object can be read, and a value is out of bounds.
    pub values: Vec<FieldError>,
    /// Fields that do not exist; an API server drops them.
    pub unknown: Vec<FieldError>,
}

/// Holds an object against the schema of its kind. `None` when the kind is not ours.
pub fn inspect(kind: &str, object: &Value) -> Option<Findings> {
    Some(inspect_by(schema_of(kind)?, object))
}

/// A word of our own: the value is a quantity, as text or as a number.
pub(crate) const QUANTITY: &str = "x-quantity";

/// Holds an object against a schema.
pub(crate) fn inspect_by(schema: &'static Value, object: &Value) -> Findings {
    let mut findings = Findings::default();
    let mut walk = Walk { root: schema, findings: &mut findings };
    walk.visit(schema, object, "");
    findings
}

/// The described fields of an object schema.
pub(crate) fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

/// The compiled pattern. All patterns of all schemas are compiled once: they are constants.
fn pattern(text: &str) -> Option<&'static Regex> {
    static PATTERNS: LazyLock<BTreeMap<String, Regex>> = LazyLock::new(|| {
        let mut patterns = BTreeMap::new();
        for crd in crds() {
            collect_patterns(schema_of(&crd.spec.names.kind), &mut patterns);
        }
        patterns
    });
    PATTERNS.get(text)
}

/// What a text of this pattern looks like, for those that users write by hand.
fn example(pattern: &str) -> Option<&'static str> {
    Some(match pattern {
        QUANTITY_PATTERN => "an amount such as 500m, 2 or 4Gi",
        KEY_PATTERN => "a label key such as team or example.com/team",
        VALUE_PATTERN => "at most 63 letters, digits, '-', '_' or '.'",
        DURATION_PATTERN => "a duration such as 30s, 5m or 1h30m",
        NILLABLE_PATTERN => "a duration such as 30s, 5m or 1h30m, or Never",
        PRICE_PATTERN => "dollars per hour such as 0.25",
        ADJUSTMENT_PATTERN => {
            "dollars per hour with a sign such as -0.05, or a share with a sign such as +10%"
        }
        VOLUME_SIZE_PATTERN => "a size such as 100Gi",
        _ => return None,
    })
}

fn collect_patterns(schema: Option<&Value>, patterns: &mut BTreeMap<String, Regex>) {
    match schema {
        Some(Value::Object(object)) => {
            if let Some(Value::String(text)) = object.get("pattern")
                && let Ok(regex) = Regex::new(text)
            {
                patterns.insert(text.clone(), regex);
            }
            object.values().for_each(|v| collect_patterns(Some(v), patterns));
        }
        Some(Value::Array(list)) => list.iter().for_each(|v| collect_patterns(Some(v), patterns)),
        _ => {}
    }
}

struct Walk<'a> {
    root: &'static Value,
    findings: &'a mut Findings,
}

impl Walk<'_> {
    fn visit(&mut self, schema: &Value, value: &Value, path: &str) {
        if schema.get(QUANTITY).is_some() {
            return self.quantity(value, path);
        }
        if !self.has_type(schema, value, path) {
            return;
        }
        match value {
            Value::Object(object) => self.object(schema, object, path),
            Value::Array(list) => self.array(schema, list, path),
            Value::String(text) => self.string(schema, text, path),
            Value::Number(_) => self.number(schema, value, path),
            _ => {}
        }
    }

    fn shape(&mut self, path: &str, value: &Value, message: String) {
        self.findings.shape.push(FieldError::new(path, value, message));
    }

    fn value(&mut self, path: &str, value: &Value, message: String) {
        self.findings.values.push(FieldError::new(path, value, message));
    }

    fn has_type(&mut self, schema: &Value, value: &Value, path: &str) -> bool {
        if schema.get("x-kubernetes-int-or-string").is_some() {
            let fits = value.is_string() || value.is_i64() || value.is_u64();
            if !fits {
                self.shape(path, value, "must be of type integer or string".to_owned());
            }
            return fits;
        }
        let Some(wanted) = schema.get("type").and_then(Value::as_str) else {
            return true;
        };
        let fits = match wanted {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            _ => true,
        };
        if !fits {
            let mut error = FieldError::new(path, value, format!("must be of type {wanted}"));
            if wanted == "string" && !value.is_object() && !value.is_array() {
                error.fix = Some(format!("write it in quotes: \"{value}\""));
            }
            self.findings.shape.push(error);
        }
        fits
    }

    fn quantity(&mut self, value: &Value, path: &str) {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => String::new(),
        };
        let message = match text.parse::<Quantity>() {
            Ok(quantity) if quantity.is_negative() => "must not be negative",
            Ok(_) => return,
            Err(_) if text.is_empty() => "must be an amount",
            Err(_) => "is not an amount",
        };
        let mut error = FieldError::new(path, value, message);
        error.fix = example(QUANTITY_PATTERN).map(|example| format!("write {example}"));
        let broken =
            if text.is_empty() { &mut self.findings.shape } else { &mut self.findings.values };
        broken.push(error);
    }

    fn object(&mut self, schema: &Value, object: &Map<String, Value>, path: &str) {
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            let name = name.as_str().unwrap_or_default();
            if !object.contains_key(name) {
                self.shape(&join(path, name), &Value::Null, "required value".to_owned());
            }
        }
        let count = object.len();
        if let Some(max) = bound(schema, "maxProperties").filter(|max| count > *max) {
            self.value(path, &count.into(), format!("must have at most {max} items"));
        }
        if let Some(min) = bound(schema, "minProperties").filter(|min| count < *min) {
            self.value(path, &count.into(), format!("should have at least {min} properties"));
        }
        let open = schema.get("x-kubernetes-preserve-unknown-fields").is_some();
        // A field that is null is absent.
        for (name, value) in object.iter().filter(|(_, value)| !value.is_null()) {
            let nested = schema.get("properties").and_then(|p| p.get(name));
            let place = join(path, name);
            match nested.or_else(|| schema.get("additionalProperties")) {
                Some(nested) => self.visit(nested, value, &place),
                None if open || path.is_empty() && is_envelope(name) => {}
                // An object without described fields, such as an embedded one, takes anything.
                None if schema.get("properties").is_none() => {}
                None => self.unknown(schema, name, value, &place),
            }
        }
    }

    fn unknown(&mut self, schema: &Value, name: &str, value: &Value, path: &str) {
        let mut error = FieldError::new(path, value, "unknown field".to_owned());
        let siblings = properties(schema).map(|(name, _)| name.as_str());
        let fix = match nearest(name, siblings) {
            Some(meant) => Some(format!("did you mean {meant}?")),
            None => place_of(self.root, name, "").map(|place| format!("it belongs to {place}")),
        };
        error.fix = fix;
        self.findings.unknown.push(error);
    }

    fn array(&mut self, schema: &Value, list: &[Value], path: &str) {
        let count = list.len();
        if let Some(max) = bound(schema, "maxItems").filter(|max| count > *max) {
            self.value(path, &count.into(), format!("must have at most {max} items"));
        }
        if let Some(min) = bound(schema, "minItems").filter(|min| count < *min) {
            self.value(path, &count.into(), format!("should have at least {min} items"));
        }
        for (index, value) in list.iter().enumerate() {
            let place = format!("{path}[{index}]");
            if list[..index].iter().any(|earlier| same_key(schema, earlier, value)) {
                self.value(&place, value, "duplicate value".to_owned());
            }
            if let Some(nested) = schema.get("items") {
                self.visit(nested, value, &place);
            }
        }
    }

    fn string(&mut self, schema: &Value, text: &str, path: &str) {
        let value = Value::from(text);
        if let Some(words) = schema.get("enum").and_then(Value::as_array)
            && !words.contains(&value)
        {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            let listed: Vec<String> = words.iter().map(|w| format!("{w:?}")).collect();
            let message = format!("unsupported value: supported values: {}", listed.join(", "));
            let mut error = FieldError::new(path, &value, message);
            error.fix =
                nearest(text, words.iter().copied()).map(|meant| format!("did you mean {meant}?"));
            self.findings.shape.push(error);
            return;
        }
        if let Some(max) = bound(schema, "maxLength").filter(|max| text.chars().count() > *max) {
            self.value(path, &value, format!("may not be more than {max} bytes"));
        }
        if let Some(min) = bound(schema, "minLength").filter(|min| text.chars().count() < *min) {
            self.value(path, &value, format!("should be at least {min} chars long"));
        }
        if let Some(wanted) = schema.get("pattern").and_then(Value::as_str)
            && pattern(wanted).is_some_and(|regex| !regex.is_match(text))
        {
            let mut error = FieldError::new(path, &value, format!("should match '{wanted}'"));
            error.fix = example(wanted).map(|example| format!("write {example}"));
            self.findings.values.push(error);
        }
        if schema.get("format").is_some_and(|f| f == "date-time")
            && text.parse::<jiff::Timestamp>().is_err()
        {
            self.shape(path, &value, "must be of type date-time".to_owned());
        }
    }

    fn number(&mut self, schema: &Value, value: &Value, path: &str) {
        let number = value.as_f64().unwrap_or_default();
        let limit = |word: &str| schema.get(word).and_then(Value::as_f64);
        if let Some(max) = limit("maximum").filter(|max| number > *max) {
            self.value(path, value, format!("should be less than or equal to {max}"));
        }
        if let Some(min) = limit("minimum").filter(|min| number < *min) {
            self.value(path, value, format!("should be greater than or equal to {min}"));
        }
    }
}

/// The fields that every object has, described by Kubernetes itself.
fn is_envelope(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

/// Whether two items of a list with unique keys collide.
fn same_key(schema: &Value, a: &Value, b: &Value) -> bool {
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => a == b,
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            let mut keys = keys.into_iter().flatten().filter_map(Value::as_str);
            keys.all(|key| a.get(key).is_some() && a.get(key) == b.get(key))
        }
        _ => false,
    }
}

fn bound(schema: &Value, word: &str) -> Option<usize> {
    schema.get(word).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok())
}

/// The only place below `path` where a field of this name exists.
fn place_of(schema: &Value, name: &str, path: &str) -> Option<String> {
    let mut found = Vec::new();
    places(schema, name, path, &mut found);
    (found.len() == 1).then(|| found.remove(0))
}

fn places(schema: &Value, name: &str, path: &str, found: &mut Vec<String>) {
    for (field, nested) in properties(schema) {
        let place = join(path, field);
        if field == name {
            found.push(place.clone());
        }
        if place != "status" {
            places(nested, name, &place, found);
        }
    }
    if let Some(items) = schema.get("items") {
        places(items, name, &format!("{path}[]"), found);
    }
}

/// The path of a field below another; a key with a dot or a slash is put in brackets.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else if name.contains(['.', '/']) || name.is_empty() {
        format!("{path}[{name}]")
    } else {
        format!("{path}.{name}")
    }
}
