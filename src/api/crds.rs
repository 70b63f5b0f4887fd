//! The CustomResourceDefinitions, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use super::ec2nodeclass::EC2NodeClass;
use super::nodeclaim::NodeClaim;
use super::nodepool::NodePool;
use super::requestpolicy::RequestPolicy;
use super::reservation::Reservation;

/// All definitions, in order of name.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        EC2NodeClass::crd(),
        NodeClaim::crd(),
        NodePool::crd(),
        RequestPolicy::crd(),
        Reservation::crd(),
    ];
    crds.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    crds
}

/// Each definition as `(file name, YAML)`.
///
/// # Errors
/// When a definition cannot be written as YAML, which a test rules out.
pub fn crds_yaml() -> Result<Vec<(String, String)>, serde_saphyr::ser_error::Error> {
    crds()
        .iter()
        .map(|crd| {
            let names = (crd.spec.group.clone(), crd.spec.names.plural.clone());
            let mut value = serde_json::to_value(crd).unwrap_or_default();
            tidy(&mut value);
            let yaml = serde_saphyr::to_string(&value)?;
            Ok((format!("{}_{}.yaml", names.0, names.1), yaml))
        })
        .collect()
}

/// Drops what the API server would refuse or rewrite: `format` and ranges of integer widths that
/// JSON cannot tell apart, and `nullable` beside a default.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let width = map.get("format").and_then(Value::as_str);
            if matches!(width, Some("uint32" | "uint16" | "uint64" | "uint")) {
                map.remove("format");
            }
            if map.contains_key("default") {
                map.remove("nullable");
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_definitions_are_current() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/crds");
        for (name, yaml) in crds_yaml().unwrap() {
            let committed = std::fs::read_to_string(folder.join(&name)).unwrap_or_default();
            assert!(committed == yaml, "{name} is out of date: run `make crds`");
        }
    }
}
