//! Objects by kind, checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::{CustomResourceExt, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::load::{InputError, Origin};
use crate::api::decode::decode;
use crate::api::ec2nodeclass::EC2NodeClass;
use crate::api::nodepool::NodePool;
use crate::api::requestpolicy::RequestPolicy;
use crate::api::validate::{self, FieldError};
use crate::model::labels::Labels;
use crate::model::wire::MetaWire;
use crate::model::wire::node::NodeWire;
use crate::model::wire::pod::PodWire;
use crate::model::wire::workload::WorkloadWire;
use crate::model::workload::WorkloadKind;

/// What the files say.
#[derive(Debug, Default)]
pub struct Input {
    /// Pods.
    pub pods: Vec<PodWire>,
    /// Workloads that make pods, DaemonSets among them.
    pub workloads: Vec<(WorkloadKind, WorkloadWire)>,
    /// Nodes.
    pub nodes: Vec<NodeWire>,
    /// Pools.
    pub pools: Vec<NodePool>,
    /// Classes by name.
    pub classes: BTreeMap<String, EC2NodeClass>,
    /// Request policies.
    pub policies: Vec<RequestPolicy>,
    /// Priorities by class.
    pub priorities: BTreeMap<String, i32>,
    /// Labels of namespaces.
    pub namespaces: BTreeMap<Arc<str>, Labels>,
    /// Kinds that say nothing about nodes, with their count.
    pub skipped: BTreeMap<String, usize>,
}

/// Sorts and checks the objects. Every error is reported, not only the first.
pub fn sort(objects: Vec<(Origin, Value)>) -> (Input, Vec<InputError>) {
    let mut sorter = Sorter::default();
    for (origin, object) in objects {
        sorter.take(origin, &object);
    }
    (sorter.input, sorter.errors)
}

#[derive(Default)]
struct Sorter {
    input: Input,
    errors: Vec<InputError>,
}

impl Sorter {
    fn object(&mut self, origin: Origin, object: String, message: impl Into<String>) {
        self.errors.push(InputError { origin, object, message: message.into() });
    }

    fn take(&mut self, origin: Origin, value: &Value) {
        let Some(kind) = value["kind"].as_str() else {
            let fix = "add apiVersion and kind, or remove the document";
            return self.object(origin, String::new(), format!("an object has no kind ({fix})"));
        };
        let version = value["apiVersion"].as_str().unwrap_or_default();
        let name = value["metadata"]["name"].as_str().unwrap_or("(no name)");
        let object = format!("{kind} {name}");
        if let Some(kind) = WorkloadKind::parse(kind) {
            if let Some(workload) = self.lenient::<WorkloadWire>(origin, &object, value) {
                self.input.workloads.push((kind, workload));
            }
            return;
        }
        match (version, kind) {
            ("v1", "Pod") => {
                if let Some(pod) = self.lenient(origin, &object, value) {
                    self.input.pods.push(pod);
                }
            }
            ("v1", "Node") => {
                if let Some(node) = self.lenient(origin, &object, value) {
                    self.input.nodes.push(node);
                }
            }
            ("v1", "Namespace") => {
                if let Some(meta) = self.lenient::<WithMeta>(origin, &object, value) {
                    let mut labels = meta.metadata.labels.clone();
                    labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
                    self.input.namespaces.insert(name.into(), labels);
                }
            }
            (_, "PriorityClass") => {
                let value = value["value"].as_i64().and_then(|value| i32::try_from(value).ok());
                match value {
                    Some(value) => {
                        self.input.priorities.insert(name.to_owned(), value);
                    }
                    None => self.object(origin, object, "value: must be a whole number"),
                }
            }
            ("karpenter.sh/v1", "NodePool") => {
                if let Some(pool) = self.strict::<NodePool>(&origin, &object, value) {
                    self.fields(&origin, &object, validate::validate_nodepool(&pool));
                    self.input.pools.push(pool);
                }
            }
            ("karpenter.k8s.aws/v1", "EC2NodeClass") => {
                if let Some(class) = self.strict::<EC2NodeClass>(&origin, &object, value) {
                    self.fields(&origin, &object, validate::validate_ec2nodeclass(&class));
                    self.input.classes.insert(class.name_any(), class);
                }
            }
            ("harbinger.sh/v1alpha1", "RequestPolicy") => {
                if let Some(policy) = self.strict::<RequestPolicy>(&origin, &object, value) {
                    self.fields(&origin, &object, validate::validate_requestpolicy(&policy));
                    self.input.policies.push(policy);
                }
            }
            _ => *self.input.skipped.entry(kind.to_owned()).or_insert(0) += 1,
        }
    }

    fn lenient<T: DeserializeOwned>(
        &mut self,
        origin: Origin,
        object: &str,
        value: &Value,
    ) -> Option<T> {
        serde_path_to_error::deserialize(value)
            .map_err(|error| {
                let path = error.path().to_string();
                let error = FieldError::new(&path, &Value::Null, error.into_inner().to_string());
                self.object(origin, object.to_owned(), error.to_string());
            })
            .ok()
    }

    /// An object of ours. A field that does not exist is an error: in a file it is a mistake.
    fn strict<T>(&mut self, origin: &Origin, object: &str, value: &Value) -> Option<T>
    where
        T: CustomResourceExt + DeserializeOwned,
    {
        match decode(value.clone()) {
            Ok((decoded, unknown)) => {
                self.fields(origin, object, unknown);
                Some(decoded)
            }
            Err(errors) => {
                self.fields(origin, object, errors);
                None
            }
        }
    }

    fn fields(&mut self, origin: &Origin, object: &str, errors: Vec<FieldError>) {
        for error in errors {
            self.object(origin.clone(), object.to_owned(), error.to_string());
        }
    }
}

#[derive(serde::Deserialize)]
struct WithMeta {
    metadata: MetaWire,
}
