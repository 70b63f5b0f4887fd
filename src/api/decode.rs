//! Objects from files: typed, with errors that name the field and the fix.
//!
//! The API server refuses what a CRD does not allow; files have no server, so the same schemas are
//! used here to find unknown fields, and the same types to find wrong values.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// What is wrong with one field.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FieldError {
    /// Path, such as `spec.template.spec.requirements[0].operator`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do; empty when the message says it.
    pub fix: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)?;
        if self.fix.is_empty() { Ok(()) } else { write!(f, " ({})", self.fix) }
    }
}

impl FieldError {
    /// An error with a fix.
    pub fn new(
        path: impl Into<String>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { path: path.into(), message: message.into(), fix: fix.into() }
    }
}

/// Reads `value` as a `T` whose fields must be those of `schema` (an OpenAPI schema of a CRD).
///
/// # Errors
/// Every unknown field, or the first field whose value does not fit.
pub fn decode<T: DeserializeOwned>(value: &Value, schema: &Value) -> Result<T, Vec<FieldError>> {
    let mut errors = Vec::new();
    unknown_fields(value, schema, "", &mut errors);
    match decode_lenient(value) {
        Ok(object) if errors.is_empty() => Ok(object),
        Ok(_) => Err(errors),
        Err(error) => {
            errors.push(error);
            Err(errors)
        }
    }
}

/// Reads `value` as a `T`; fields that `T` does not know are passed over.
///
/// # Errors
/// The first field whose value does not fit.
pub fn decode_lenient<T: DeserializeOwned>(value: &Value) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = match error.path().to_string() {
            path if path == "." => String::new(),
            path => path,
        };
        let message = error.into_inner().to_string();
        let fix = match &*message {
            m if m.starts_with("missing field") => "add it",
            m if m.contains("unknown variant") => "use one of the values listed",
            _ => "",
        };
        FieldError::new(path, message, fix)
    })
}

/// The schema of a kind's objects, as its CRD has it.
pub fn schema_of(group: &str, kind: &str) -> Option<Value> {
    let crd = super::crds::crds()
        .into_iter()
        .find(|crd| crd.spec.group == group && crd.spec.names.kind == kind)?;
    let schema = crd.spec.versions.into_iter().next()?.schema?.open_api_v3_schema?;
    serde_json::to_value(schema).ok()
}

fn unknown_fields(value: &Value, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            if schema["x-kubernetes-preserve-unknown-fields"] == true {
                return;
            }
            let properties = schema["properties"].as_object();
            let additional = &schema["additionalProperties"];
            for (key, inner) in map {
                let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match properties.and_then(|properties| properties.get(key)) {
                    // The schema of metadata is the API server's own.
                    Some(_) if path.is_empty() && key == "metadata" => {}
                    Some(schema) => unknown_fields(inner, schema, &at, errors),
                    None if additional.is_object() => {
                        unknown_fields(inner, additional, &at, errors);
                    }
                    None if path.is_empty()
                        && matches!(&**key, "apiVersion" | "kind" | "metadata") => {}
                    None => {
                        let Some(properties) = properties else { continue };
                        errors.push(FieldError::new(
                            at,
                            "unknown field",
                            suggestion(key, properties.keys()),
                        ));
                    }
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                unknown_fields(item, &schema["items"], &format!("{path}[{index}]"), errors);
            }
        }
        _ => {}
    }
}

fn suggestion<'a>(key: &str, known: impl Iterator<Item = &'a String> + Clone) -> String {
    match nearest(key, known.clone().map(String::as_str)) {
        Some(name) => format!("did you mean {name}?"),
        None => format!("known fields: {}", known.cloned().collect::<Vec<_>>().join(", ")),
    }
}

/// The name that is nearest to `key`, if it differs by at most a third of its letters.
pub fn nearest<'a>(key: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (distance(&key.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance * 3 <= name.len().max(key.len()))
        .min()
        .map(|(_, name)| name)
}

/// Edit distance by letters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == *y { diagonal } else { 1 + diagonal.min(above).min(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::nodepool::NodePool;

    fn errors(value: &Value) -> String {
        let schema = schema_of("karpenter.sh", "NodePool").unwrap();
        match decode::<NodePool>(value, &schema) {
            Ok(_) => String::new(),
            Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        }
    }

    fn pool(spec: &Value) -> Value {
        json!({"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "a"}, "spec": spec})
    }

    #[test]
    fn names_the_field_and_the_fix() {
        let class = json!({"group": "g", "kind": "k", "name": "n"});
        let good = json!({"template": {"spec": {"nodeClassRef": class, "requirements": []}}});
        assert_eq!(errors(&pool(&good)), "");
        let mut typo = good.clone();
        typo["template"]["spec"]["requirement"] = json!([]);
        typo["wieght"] = json!(3);
        let text = errors(&pool(&typo));
        assert!(
            text.contains(
                "spec.template.spec.requirement: unknown field (did you mean requirements?)"
            ),
            "{text}"
        );
        assert!(text.contains("spec.wieght: unknown field (did you mean weight?)"), "{text}");
        let mut bad = good.clone();
        bad["limits"] = json!({"cpu": "10 cores"});
        assert!(
            errors(&pool(&bad)).contains("spec.limits.cpu: quantity \"10 cores\""),
            "{}",
            errors(&pool(&bad))
        );
        bad = good;
        bad["template"]["spec"]["requirements"] = json!([{"key": "a", "operator": "Is"}]);
        assert!(errors(&pool(&bad)).contains("requirements[0].operator: unknown variant `Is`"));
    }
}
