//! Turns objects of older Karpenter versions into `karpenter.sh/v1` and `karpenter.k8s.aws/v1`.
//!
//! The result is what those objects did, written out: a default that changed since is set explicitly. Each value
//! that was changed, defaulted or dropped is a note. Objects that have nothing to do with Karpenter come out as
//! they went in, except for keys that have a new name. The order of the input is kept, so the same input always
//! gives the same output.

mod beta;
mod fields;
mod keys;
mod kubelet;
mod nodetemplate;
mod provisioner;
mod settings;

use std::fmt;

use kube::CustomResourceExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::validate::FieldError;
use super::{EC2NodeClass, NodePool, decode, labels, validate_ec2nodeclass, validate_nodepool};

/// What the objects themselves do not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The instance profile of node templates that name none; it used to be a global setting.
    pub default_instance_profile: Option<String>,
    /// The region that zones of one letter belong to.
    pub region: Option<String>,
}

/// A value that was changed, defaulted or dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Kind and name, such as `Provisioner/default`.
    pub object: String,
    /// Where in the old object.
    pub field: String,
    /// What was done, and why.
    pub message: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.field, self.message)
    }
}

/// Something in an object that has no equivalent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ObjectError {
    /// Kind and name, such as `AWSNodeTemplate/default`.
    pub object: String,
    /// Where, what, and what to do about it.
    #[serde(flatten)]
    pub error: FieldError,
}

impl fmt::Display for ObjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.error)
    }
}

/// The converted objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Conversion {
    /// All objects, in the order of the input.
    pub objects: Vec<Value>,
    /// What was changed, defaulted or dropped.
    pub notes: Vec<Note>,
    /// Flags of ours that do what the old global settings did.
    pub flags: Vec<String>,
}

/// Nothing was converted, since some of it cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{} field(s) cannot be converted", errors.len())]
pub struct ConvertError {
    /// What has no equivalent.
    pub errors: Vec<ObjectError>,
    /// What would have been changed.
    pub notes: Vec<Note>,
}

/// Everything that is said about the objects while they are converted.
#[derive(Default)]
struct Log {
    notes: Vec<Note>,
    errors: Vec<ObjectError>,
    flags: Vec<String>,
}

/// One old object under conversion.
struct Scope<'a> {
    object: String,
    options: &'a Options,
    log: &'a mut Log,
}

impl Scope<'_> {
    fn note(&mut self, field: &str, message: impl Into<String>) {
        self.log.notes.push(Note {
            object: self.object.clone(),
            field: field.to_owned(),
            message: message.into(),
        });
    }

    fn error(&mut self, field: &str, message: impl Into<String>, fix: impl Into<String>) {
        let mut error = FieldError::new(field, &Value::Null, message);
        error.fix = Some(fix.into());
        self.log.errors.push(ObjectError { object: self.object.clone(), error });
    }
}

/// A part of the output.
enum Piece {
    /// A node class of the current version. `is_new` when it comes from an older one.
    Class { source: String, value: Value, is_new: bool },
    /// A pool of the current version. `kubelet` is the block that it carried itself, empty when it had none; `None`
    /// when it was current already and takes its class as it is.
    Pool { source: String, value: Value, kubelet: Option<Map<String, Value>> },
    /// Anything else.
    Other(Value),
}

/// Converts all objects, or says what cannot be.
pub fn convert(objects: Vec<Value>, options: &Options) -> Result<Conversion, ConvertError> {
    let objects = flatten(objects);
    let mut options = options.clone();
    if options.default_instance_profile.is_none() {
        options.default_instance_profile = objects.iter().find_map(settings::default_profile);
    }
    let mut log = Log::default();
    let mut pieces = Vec::new();
    for object in objects {
        let mut scope = Scope { object: name_of(&object), options: &options, log: &mut log };
        pieces.extend(convert_one(&mut scope, object));
    }
    let pieces = kubelet::place(pieces, &mut log);
    let objects = pieces.into_iter().map(|piece| finished(piece, &mut log)).collect();
    if log.errors.is_empty() {
        Ok(Conversion { objects, notes: log.notes, flags: log.flags })
    } else {
        Err(ConvertError { errors: log.errors, notes: log.notes })
    }
}

/// Takes lists apart.
fn flatten(objects: Vec<Value>) -> Vec<Value> {
    let mut flat = Vec::new();
    for mut object in objects {
        let is_list =
            object.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
        match object.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) if is_list => flat.extend(flatten(items)),
            Some(items) => {
                object["items"] = items;
                flat.push(object);
            }
            None => flat.push(object),
        }
    }
    flat
}

/// Kind and name of an object.
fn name_of(object: &Value) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("?").to_owned();
    let name = text(object.get("metadata").and_then(|m| m.get("name")));
    format!("{}/{name}", text(object.get("kind")))
}

fn convert_one(scope: &mut Scope<'_>, mut object: Value) -> Vec<Piece> {
    let text =
        |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let source = scope.object.clone();
    match (group, version, kind.as_str()) {
        (labels::KARPENTER_GROUP, "v1", "NodePool") => {
            vec![Piece::Pool { source, value: object, kubelet: None }]
        }
        (labels::AWS_GROUP, "v1", "EC2NodeClass") => {
            vec![Piece::Class { source, value: object, is_new: false }]
        }
        (labels::KARPENTER_GROUP, _, "NodeOverlay")
        | (labels::KARPENTER_GROUP | labels::AWS_GROUP, "v1", _) => {
            vec![Piece::Other(object)]
        }
        (labels::KARPENTER_GROUP | "provisioning.karpenter.sh", _, "Provisioner") => {
            provisioner::provisioner(scope, object)
        }
        (labels::AWS_GROUP, _, "AWSNodeTemplate") => vec![nodetemplate::template(scope, object)],
        (labels::KARPENTER_GROUP, "v1beta1", "NodePool") => vec![beta::pool(scope, object)],
        (labels::AWS_GROUP, "v1beta1", "EC2NodeClass") => vec![beta::class(scope, object)],
        (labels::KARPENTER_GROUP, _, "NodeClaim" | "Machine") => {
            scope.note("kind", "dropped: it records a node that exists, not an intent");
            Vec::new()
        }
        (labels::KARPENTER_GROUP | labels::AWS_GROUP, ..) => {
            scope.error("kind", "unknown kind of this group", "remove the object");
            Vec::new()
        }
        ("", "v1", "ConfigMap") if settings::is_settings(&object) => {
            settings::settings(scope, &object);
            Vec::new()
        }
        _ => {
            keys::rename(scope, &mut object);
            vec![Piece::Other(object)]
        }
    }
}

/// An object of the current version with the old object's name, labels and annotations.
fn renewed(
    scope: &mut Scope<'_>,
    old: &Value,
    api_version: &str,
    kind: &str,
    spec: &Map<String, Value>,
) -> Value {
    let mut metadata = fields::metadata(scope, old);
    keys::rename_labels(scope, &mut metadata);
    if old.get("status").is_some() {
        scope.note("status", "dropped: it is written by the controller");
    }
    json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec})
}

/// The object of a piece, after the test that an API server would take it.
fn finished(piece: Piece, log: &mut Log) -> Value {
    let (source, value, errors) = match piece {
        Piece::Other(value)
        | Piece::Pool { value, kubelet: None, .. }
        | Piece::Class { value, is_new: false, .. } => return value,
        Piece::Class { source, value, .. } => {
            let errors = judged::<EC2NodeClass>(&value, validate_ec2nodeclass);
            (source, value, errors)
        }
        Piece::Pool { source, value, .. } => {
            let errors = judged::<NodePool>(&value, validate_nodepool);
            (source, value, errors)
        }
    };
    // What was reported already, such as a missing profile, leaves a hole that needs no second message.
    if !log.errors.iter().any(|e| e.object == source) {
        let object = if source == name_of(&value) {
            source
        } else {
            format!("{source} (as {})", name_of(&value))
        };
        log.errors
            .extend(errors.into_iter().map(|error| ObjectError { object: object.clone(), error }));
    }
    value
}

fn judged<T: CustomResourceExt + DeserializeOwned>(
    value: &Value,
    validate: fn(&T) -> Vec<FieldError>,
) -> Vec<FieldError> {
    match decode::<T>(value.clone()) {
        Ok((object, unknown)) => unknown.into_iter().chain(validate(&object)).collect(),
        Err(errors) => errors,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        #[serde(default)]
        default_instance_profile: Option<String>,
        #[serde(default)]
        region: Option<String>,
        objects: Vec<Value>,
    }

    fn outcome(case: Case) -> Value {
        let options = Options {
            default_instance_profile: case.default_instance_profile,
            region: case.region,
        };
        let texts = |list: &[Note]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        match convert(case.objects, &options) {
            Ok(done) => {
                json!({"objects": done.objects, "notes": texts(&done.notes), "flags": done.flags})
            }
            Err(failed) => {
                json!({"errors": failed.errors.iter().map(ToString::to_string).collect::<Vec<_>>()})
            }
        }
    }

    /// Each `NAME.yaml` is a case, `NAME.expected.yaml` what it must give. `UPDATE_FIXTURES=1` writes the latter.
    #[test]
    fn cases_convert_as_expected() {
        let folder = Path::new("tests/fixtures/convert");
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .filter_map(|entry| {
                entry
                    .unwrap()
                    .file_name()
                    .to_str()
                    .unwrap()
                    .strip_suffix(".yaml")
                    .map(str::to_owned)
            })
            .filter(|name| !name.ends_with(".expected"))
            .collect();
        names.sort();
        assert!(names.len() >= 10, "{names:?}");
        for name in names {
            let text = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
            let found =
                outcome(serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}")));
            let path = folder.join(format!("{name}.expected.yaml"));
            if std::env::var_os("UPDATE_FIXTURES").is_some() {
                std::fs::write(&path, serde_saphyr::to_string(&found).unwrap()).unwrap();
            }
            let expected = std::fs::read_to_string(&path).unwrap_or_default();
            let expected: Value = serde_saphyr::from_str(&expected).unwrap();
            assert!(
                found == expected,
                "{name}: found\n{}",
                serde_saphyr::to_string(&found).unwrap()
            );
            if let Value::Array(objects) = &found["objects"] {
                let again = outcome(Case {
                    default_instance_profile: None,
                    region: None,
                    objects: objects.clone(),
                });
                assert_eq!(
                    again["objects"], found["objects"],
                    "{name}: a second conversion changes something"
                );
                let repeated = again["notes"].as_array().unwrap();
                assert!(
                    repeated.iter().all(|n| n.as_str().unwrap().contains(": kept as ")),
                    "{name}: {repeated:?}"
                );
            }
        }
    }

    #[test]
    fn nothing_but_karpenter_is_touched() {
        let objects = vec![
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"capacity-type": "y"}}),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"capacity-type": "y"}}}),
            json!({"not": "an object of Kubernetes"}),
            json!(7),
        ];
        let done = convert(objects.clone(), &Options::default()).unwrap();
        assert_eq!(done.objects, objects);
        assert_eq!(done.notes, []);
    }

    /// Whatever stands in a file, the answer is a result.
    #[test]
    fn odd_shapes_do_not_panic() {
        let kinds = [
            ("karpenter.sh/v1alpha5", "Provisioner"),
            ("karpenter.sh/v1beta1", "NodePool"),
            ("karpenter.sh/v1", "NodePool"),
            ("karpenter.k8s.aws/v1alpha1", "AWSNodeTemplate"),
            ("karpenter.k8s.aws/v1beta1", "EC2NodeClass"),
            ("karpenter.k8s.aws/v1", "EC2NodeClass"),
            ("v1", "ConfigMap"),
            ("v1", "List"),
        ];
        let shapes = [
            json!(null),
            json!(1),
            json!("x"),
            json!([]),
            json!([1]),
            json!({}),
            json!({"name": 1, "labels": 1, "annotations": [], "items": 1, "x": null}),
            json!({"template": {"spec": {"kubelet": {"maxPods": 1}, "requirements": [1], "nodeClassRef": 1}}}),
            json!({"template": 1, "disruption": [], "limits": "x", "requirements": {}, "taints": [null]}),
            json!({"providerRef": {}, "kubeletConfiguration": {"maxPods": 1}, "consolidation": 1, "zones": [null]}),
            json!({"provider": 1, "constraints": 1, "labels": 1, "ttlSecondsAfterEmpty": -1}),
            json!({"amiSelector": 1, "subnetSelector": {"aws-ids": 1}, "metadataOptions": 1, "amiFamily": 1}),
        ];
        let mut objects = Vec::new();
        for (api_version, kind) in kinds {
            for shape in &shapes {
                for other in [json!({"name": "x"}), shape.clone()] {
                    let object = json!({
                        "apiVersion": api_version, "kind": kind, "metadata": other, "spec": shape,
                        "data": shape, "items": shape,
                    });
                    let alone = convert(vec![object.clone()], &Options::default());
                    assert!(kind != "List" || alone.is_ok());
                    objects.push(object);
                }
            }
        }
        assert!(convert(objects, &Options::default()).is_err());
    }
}
