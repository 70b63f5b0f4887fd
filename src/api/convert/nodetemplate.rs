//! `AWSNodeTemplate` (`karpenter.k8s.aws/v1alpha1`), and the same fields inside a Provisioner, to `EC2NodeClass`.

use serde_json::{Map, Value, json};

use super::fields::{Fields, words};
use super::{Piece, Scope, renewed};
use crate::api::AmiFamily;

/// How far answers of the metadata service could travel before version 1.
const OLD_HOP_LIMIT: i64 = 2;

/// Fields that kept their name and meaning.
const KEPT: &[&str] = &[
    "userData",
    "tags",
    "blockDeviceMappings",
    "detailedMonitoring",
    "associatePublicIPAddress",
    "context",
];

/// What a launch template said, and where it is said now.
const INSTEAD_OF_LAUNCH_TEMPLATE: &str = "give amiFamily, amiSelector, subnetSelector, securityGroupSelector, \
    instanceProfile, userData, blockDeviceMappings, metadataOptions and tags instead";

/// Converts a whole template.
pub(super) fn template(scope: &mut Scope<'_>, mut object: Value) -> Piece {
    let spec = object.get_mut("spec").map(Value::take).unwrap_or_default();
    let spec = class_spec(scope, Fields::new("spec", spec));
    Piece::Class {
        source: scope.object.clone(),
        value: renewed(scope, &object, "karpenter.k8s.aws/v1", "EC2NodeClass", &spec),
        is_new: true,
    }
}

/// Converts the fields of a template, wherever they stand.
pub(super) fn class_spec(scope: &mut Scope<'_>, mut fields: Fields) -> Map<String, Value> {
    let mut spec = Map::new();
    // Inline providers carry the type that they are decoded as.
    fields.take("apiVersion");
    fields.take("kind");
    if fields.take("launchTemplate").or_else(|| fields.take("launchTemplateName")).is_some() {
        let place = fields.place("launchTemplate");
        scope.error(&place, "own launch templates are not supported", INSTEAD_OF_LAUNCH_TEMPLATE);
    }
    for (old, new) in [
        ("subnetSelector", "subnetSelectorTerms"),
        ("securityGroupSelector", "securityGroupSelectorTerms"),
    ] {
        let place = fields.place(old);
        let selector = fields.object(old);
        if !selector.is_empty() {
            spec.insert(new.to_owned(), Value::Array(terms(scope, &place, selector)));
        }
    }
    images(scope, &mut fields, &mut spec);
    profile(scope, &mut fields, &mut spec);
    fields.keep(KEPT, &mut spec);
    metadata_options(scope, &mut fields, &mut spec);
    fields.finish(scope);
    spec
}

/// Ids from a selector, and what else it says.
fn ids(selector: Map<String, Value>) -> (Vec<String>, Map<String, Value>) {
    let (mut ids, mut rest) = (Vec::new(), Map::new());
    for (key, value) in selector {
        if key == "aws-ids" || key == "aws::ids" {
            ids.extend(words(&value));
        } else {
            rest.insert(key, value);
        }
    }
    (ids, rest)
}

fn id_terms(
    scope: &mut Scope<'_>,
    place: &str,
    ids: &[String],
    rest: &Map<String, Value>,
) -> Vec<Value> {
    if !rest.is_empty() {
        let keys: Vec<&str> = rest.keys().map(String::as_str).collect();
        scope.note(place, format!("dropped {}: an id stands alone", keys.join(", ")));
    }
    ids.iter().map(|id| json!({"id": id})).collect()
}

fn terms(scope: &mut Scope<'_>, place: &str, selector: Map<String, Value>) -> Vec<Value> {
    let (ids, tags) = ids(selector);
    if !ids.is_empty() {
        return id_terms(scope, place, &ids, &tags);
    }
    note_commas(scope, place, &tags);
    vec![json!({"tags": tags})]
}

/// A comma in a tag's value is kept; whether it was meant as a list only the author knows.
fn note_commas(scope: &mut Scope<'_>, place: &str, tags: &Map<String, Value>) {
    for (key, value) in tags {
        if value.as_str().is_some_and(|v| v.contains(',')) {
            let message = "the comma is now part of the tag's value; if it meant a choice, write one term for each value";
            scope.note(&format!("{place}[{key}]"), message);
        }
    }
}

fn images(scope: &mut Scope<'_>, fields: &mut Fields, spec: &mut Map<String, Value>) {
    let place = fields.place("amiSelector");
    let selector = fields.object("amiSelector");
    let family_place = fields.place("amiFamily");
    let family = fields.text("amiFamily");
    if selector.is_empty() {
        let family = family.unwrap_or_else(|| {
            scope.note(&family_place, "was not set: the default was AL2");
            "AL2".to_owned()
        });
        alias_for(scope, &family_place, &family, spec);
        return;
    }
    let list = image_terms(scope, &place, selector);
    spec.insert("amiSelectorTerms".to_owned(), Value::Array(list));
    let family = family.unwrap_or_else(|| {
        scope.note(&family_place, "was not set: the default was AL2");
        "AL2".to_owned()
    });
    spec.insert("amiFamily".to_owned(), supported(scope, &family_place, family).into());
}

/// The family of a class that selects images itself. Ubuntu's user data is that of AL2.
pub(super) fn supported(scope: &mut Scope<'_>, place: &str, family: String) -> String {
    if family != "Ubuntu" {
        return family;
    }
    scope.note(
        place,
        "Ubuntu is now AL2 with its own amiSelectorTerms: the user data has the same form",
    );
    "AL2".to_owned()
}

/// Selects the published image of a family.
pub(super) fn alias_for(
    scope: &mut Scope<'_>,
    place: &str,
    family: &str,
    spec: &mut Map<String, Value>,
) {
    let known = AmiFamily::ALIASES.iter().find(|(_, f)| format!("{f:?}") == family);
    let Some((word, _)) = known else {
        let message = match family {
            "Ubuntu" | "Custom" => format!("family {family} needs an image selector"),
            _ => format!("unknown family {family}"),
        };
        scope.error(place, message, "select images by id, or by name and owner");
        return;
    };
    let alias = format!("{word}@latest");
    if family == "AL2" {
        let message = format!(
            "images are {alias}; from Kubernetes 1.33 on there are none: move to al2023@latest"
        );
        scope.note(place, message);
    } else {
        scope.note(place, format!("images are {alias}"));
    }
    spec.insert("amiSelectorTerms".to_owned(), json!([{"alias": alias}]));
}

fn image_terms(scope: &mut Scope<'_>, place: &str, selector: Map<String, Value>) -> Vec<Value> {
    let (ids, mut rest) = ids(selector);
    if !ids.is_empty() {
        return id_terms(scope, place, &ids, &rest);
    }
    let names = rest.remove("aws::name").map(|v| words(&v)).unwrap_or_default();
    let owners = rest.remove("aws::owners").unwrap_or_else(|| {
        scope.note(place, "owners were not set: self and amazon were meant");
        "self,amazon".into()
    });
    let owners = words(&owners);
    note_commas(scope, place, &rest);
    let names: Vec<Option<&String>> =
        if names.is_empty() { vec![None] } else { names.iter().map(Some).collect() };
    let mut list = Vec::new();
    for name in names {
        for owner in &owners {
            let mut term = Map::new();
            if let Some(name) = name {
                term.insert("name".to_owned(), name.as_str().into());
            }
            term.insert("owner".to_owned(), owner.as_str().into());
            if !rest.is_empty() {
                term.insert("tags".to_owned(), Value::Object(rest.clone()));
            }
            list.push(Value::Object(term));
        }
    }
    list
}

fn profile(scope: &mut Scope<'_>, fields: &mut Fields, spec: &mut Map<String, Value>) {
    let place = fields.place("instanceProfile");
    let given = fields.text("instanceProfile").filter(|p| !p.is_empty());
    let profile = given.or_else(|| {
        let default = scope.options.default_instance_profile.clone()?;
        scope.note(&place, format!("was not set: {default} is the default profile"));
        Some(default)
    });
    match profile {
        Some(profile) => {
            spec.insert("instanceProfile".to_owned(), profile.into());
        }
        None => scope.error(
            &place,
            "a node class needs an instance profile; it used to be the setting aws.defaultInstanceProfile",
            "write it, or give --default-instance-profile",
        ),
    }
}

/// Writes the hop limit that was the default before version 1.
pub(super) fn metadata_options(
    scope: &mut Scope<'_>,
    fields: &mut Fields,
    spec: &mut Map<String, Value>,
) {
    let mut options = fields.object("metadataOptions");
    options.retain(|_, value| !value.is_null());
    if !options.contains_key("httpPutResponseHopLimit") {
        options.insert("httpPutResponseHopLimit".to_owned(), OLD_HOP_LIMIT.into());
        let place = format!("{}.httpPutResponseHopLimit", fields.place("metadataOptions"));
        scope.note(&place, format!("was not set: the default was {OLD_HOP_LIMIT} and is 1 now"));
    }
    spec.insert("metadataOptions".to_owned(), Value::Object(options));
}
