//! Objects by kind, checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::scheduling::v1beta1 as scheduling;
use kube::{CustomResourceExt, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::load::{InputError, Origin};
use crate::advice::Facts;
use crate::api::decode::decode;
use crate::api::demandprofile::DemandProfile;
use crate::api::ec2nodeclass::EC2NodeClass;
use crate::api::kubernetes::{self, KINDS};
use crate::api::labels::nearest;
use crate::api::nodeoverlay::NodeOverlay;
use crate::api::nodepool::NodePool;
use crate::api::requestpolicy::RequestPolicy;
use crate::api::validate::{self, FieldError};
use crate::model::companions::{Budget, Priority, Scaler};
use crate::model::digest;
use crate::model::gang::{PodGroup, PodGroups};
use crate::model::labels::Labels;
use crate::model::volume::Volumes;
use crate::model::wire::MetaWire;
use crate::model::wire::node::NodeWire;
use crate::model::wire::pod::PodWire;
use crate::model::wire::volume::{ClaimWire, ClassWire, CsiNodeWire, VolumeObjectWire};
use crate::model::wire::workload::WorkloadWire;
use crate::model::workload::WorkloadKind;
use crate::policy::Bounds;

/// What the files say.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// Pods.
    pub pods: Vec<PodWire>,
    /// Workloads that make pods, DaemonSets among them.
    pub workloads: Vec<(WorkloadKind, WorkloadWire)>,
    /// Nodes.
    pub nodes: Vec<NodeWire>,
    /// Pools.
    pub pools: Vec<NodePool>,
    /// Overlays.
    pub overlays: Vec<NodeOverlay>,
    /// Classes by name.
    pub classes: BTreeMap<String, EC2NodeClass>,
    /// Request policies.
    pub policies: Vec<RequestPolicy>,
    /// What was learned of containers.
    pub profiles: Vec<DemandProfile>,
    /// LimitRanges by namespace and name: requests that they fill in are not missing.
    pub limit_ranges: BTreeMap<(String, String), LimitRange>,
    /// ResourceQuotas by namespace and name.
    pub quotas: BTreeMap<(String, String), ResourceQuota>,
    /// Priorities by class.
    pub priorities: BTreeMap<String, i32>,
    /// What stands beside workloads.
    pub facts: Facts,
    /// Labels of namespaces.
    pub namespaces: BTreeMap<Arc<str>, Labels>,
    /// Claims of volumes, volumes, their classes, and what nodes can attach.
    pub volumes: Volumes,
    /// Groups of pods by namespace and name.
    pub pod_groups: PodGroups,
    /// Kinds that say nothing about nodes, with their count.
    pub skipped: BTreeMap<String, usize>,
    /// Fields that this program does not know and that resemble none that it knows.
    pub warnings: Vec<String>,
    /// Where each object was read, by kind, namespace and name.
    pub places: BTreeMap<(String, String, String), Origin>,
}

impl Input {
    /// What LimitRanges and ResourceQuotas ask, by namespace. What quotas say is used is left out: the
    /// pods that use it are those of the input.
    pub(super) fn bounds(&self) -> BTreeMap<Arc<str>, Arc<Bounds>> {
        let mut found: BTreeMap<&str, (Vec<&LimitRange>, Vec<ResourceQuota>)> = BTreeMap::new();
        for ((namespace, _), range) in &self.limit_ranges {
            found.entry(namespace).or_default().0.push(range);
        }
        for ((namespace, _), quota) in &self.quotas {
            let unused = ResourceQuota { status: None, ..quota.clone() };
            found.entry(namespace).or_default().1.push(unused);
        }
        let bounds = |(ranges, quotas): (Vec<_>, Vec<_>)| Arc::new(Bounds::new(ranges, &quotas));
        found.into_iter().map(|(namespace, of)| (namespace.into(), bounds(of))).collect()
    }

    /// Where an object without a namespace was read.
    pub fn place(&self, kind: &str, name: &str) -> Option<&Origin> {
        self.places.get(&(kind.to_owned(), String::new(), name.to_owned()))
    }
}

/// Sorts and checks the objects. Every error is reported, not only the first.
pub fn sort(objects: Vec<(Origin, Value)>) -> (Input, Vec<InputError>) {
    let mut sorter = Sorter::default();
    for (origin, object) in objects {
        sorter.take(&origin, &object);
    }
    (sorter.input, sorter.errors)
}

/// Kinds of ours that are read, with their group and version.
const OURS: &[(&str, &str, &str)] = &[
    ("NodePool", "karpenter.sh", "karpenter.sh/v1"),
    ("NodeOverlay", "karpenter.sh", "karpenter.sh/v1alpha1"),
    ("EC2NodeClass", "karpenter.k8s.aws", "karpenter.k8s.aws/v1"),
    ("RequestPolicy", "harbinger.sh", "harbinger.sh/v1alpha1"),
    ("DemandProfile", "harbinger.sh", "harbinger.sh/v1alpha1"),
];
/// Groups whose kinds are all known, so that a kind that is nearly one of them is a slip.
const GROUPS: &[&str] = &[
    "",
    "apps",
    "batch",
    "extensions",
    "harbinger.sh",
    "karpenter.k8s.aws",
    "karpenter.sh",
    "scheduling.k8s.io",
    "storage.k8s.io",
];
/// Kinds whose objects live in no namespace.
const CLUSTER: &[&str] = &[
    "CSINode",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PriorityClass",
    "StorageClass",
    "NodePool",
    "NodeOverlay",
    "EC2NodeClass",
    "RequestPolicy",
];

/// Name, group and version of every kind that is read.
fn known() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let theirs = KINDS.iter().map(|kind| (kind.name, kind.group, kind.api_version));
    theirs.chain(OURS.iter().copied())
}

/// What an object is called in messages.
struct Subject<'a> {
    origin: &'a Origin,
    text: String,
}

#[derive(Default)]
struct Sorter {
    input: Input,
    errors: Vec<InputError>,
    /// What each object said.
    seen: BTreeMap<(String, String, String), String>,
}

impl Sorter {
    fn error(&mut self, subject: &Subject<'_>, error: &FieldError) {
        self.errors.push(InputError {
            origin: subject.origin.clone(),
            object: subject.text.clone(),
            message: error.to_string(),
        });
    }

    fn fields(&mut self, subject: &Subject<'_>, errors: &[FieldError]) {
        for error in errors {
            self.error(subject, error);
        }
    }

    /// An error about one field, with what to write instead.
    fn wrong(&mut self, subject: &Subject<'_>, path: &str, value: &Value, what: &str, fix: &str) {
        let mut error = FieldError::new(path, value, what);
        error.fix = Some(fix.to_owned());
        self.error(subject, &error);
    }

    fn take(&mut self, origin: &Origin, value: &Value) {
        let name = value["metadata"]["name"].as_str().filter(|name| !name.is_empty());
        let Some(kind) = value["kind"].as_str().filter(|kind| !kind.is_empty()) else {
            let text = name.map(|name| format!("(no kind) {name}")).unwrap_or_default();
            let what = if value.is_object() {
                "an object has no kind (add apiVersion and kind, or remove the document)"
            } else {
                "this is no object (write apiVersion, kind, metadata and spec, or remove it)"
            };
            self.errors.push(InputError {
                origin: origin.clone(),
                object: text,
                message: what.to_owned(),
            });
            return;
        };
        let text = format!("{kind} {}", name.unwrap_or("(no name)"));
        let subject = Subject { origin, text };
        if self.companion(&subject, kind, value) {
            return;
        }
        if !self.is_read(&subject, kind, &value["apiVersion"]) {
            return;
        }
        // The second of a name is checked, but not used.
        let twice = name.is_some_and(|name| !self.once(&subject, kind, name, value));
        let kept = twice.then(|| std::mem::take(&mut self.input));
        let named = name.is_some() || value["metadata"]["generateName"].is_string();
        if KINDS.iter().any(|known| known.name == kind) {
            if !named {
                let fix = "give the object a name";
                self.wrong(&subject, "metadata.name", &Value::Null, "required value", fix);
            }
            self.theirs(&subject, kind, name.unwrap_or_default(), value);
        } else {
            self.ours(&subject, kind, value);
        }
        if let Some(kept) = kept {
            self.input = kept;
        }
    }

    /// Reads an object that stands beside workloads: for advice, or for what it does to their pods.
    fn companion(&mut self, subject: &Subject<'_>, kind: &str, value: &Value) -> bool {
        match (value["apiVersion"].as_str().unwrap_or_default(), kind) {
            ("policy/v1", "PodDisruptionBudget") => {
                if let Some(budget) = self.lenient::<PodDisruptionBudget>(subject, value) {
                    let budget = Budget::from(budget);
                    let key = (Arc::clone(&budget.namespace), Arc::clone(&budget.name));
                    Arc::make_mut(&mut self.input.facts.budgets).insert(key, Arc::new(budget));
                }
            }
            ("autoscaling/v2", "HorizontalPodAutoscaler") => {
                if let Some(scaler) = self.lenient::<HorizontalPodAutoscaler>(subject, value) {
                    let scaler = Scaler::from(scaler);
                    let key = (Arc::clone(&scaler.namespace), Arc::clone(&scaler.name));
                    Arc::make_mut(&mut self.input.facts.scalers).insert(key, Arc::new(scaler));
                }
            }
            ("v1", "LimitRange") => {
                if let Some(range) = self.lenient::<LimitRange>(subject, value) {
                    let namespace = range.namespace().unwrap_or_else(|| "default".to_owned());
                    self.input.limit_ranges.insert((namespace, range.name_any()), range);
                }
            }
            ("v1", "ResourceQuota") => {
                if let Some(quota) = self.lenient::<ResourceQuota>(subject, value) {
                    let namespace = quota.namespace().unwrap_or_else(|| "default".to_owned());
                    self.input.quotas.insert((namespace, quota.name_any()), quota);
                }
            }
            _ => return false,
        }
        true
    }

    /// Whether the object is of a kind that is read. What is nearly of one is an error.
    fn is_read(&mut self, subject: &Subject<'_>, kind: &str, api_version: &Value) -> bool {
        let text = api_version.as_str().unwrap_or_default();
        let group = text.rsplit_once('/').map_or("", |(group, _)| group);
        let known_group = GROUPS.contains(&group);
        if let Some((_, wanted, version)) = known().find(|(name, ..)| *name == kind) {
            let same = group == wanted || group == "extensions" && wanted == "apps";
            if text.is_empty() {
                let fix = format!("write {version}");
                self.wrong(subject, "apiVersion", &Value::Null, "required value", &fix);
                return false;
            }
            if !same && known_group {
                let what = format!("{kind} is not of this group");
                self.wrong(subject, "apiVersion", api_version, &what, &format!("write {version}"));
                return false;
            }
            if same {
                return true;
            }
        } else if known_group {
            let siblings = known().filter(|(_, of, _)| *of == group).map(|(name, ..)| name);
            if let Some(meant) = nearest(kind, siblings) {
                let fix = format!("did you mean {meant}?");
                self.wrong(subject, "kind", &kind.into(), "unknown kind", &fix);
                return false;
            }
        }
        *self.input.skipped.entry(kind.to_owned()).or_insert(0) += 1;
        false
    }

    /// An object of a kind of Kubernetes' own.
    fn theirs(&mut self, subject: &Subject<'_>, kind: &str, name: &str, value: &Value) {
        let found = kubernetes::inspect(kind, value).unwrap_or_default();
        self.fields(subject, &found.shape);
        self.fields(subject, &found.values);
        for unknown in &found.unknown {
            if unknown.fix.is_some() {
                self.error(subject, unknown);
            } else {
                let Subject { origin, text } = subject;
                self.input.warnings.push(format!("{origin}: {text}: {unknown}; it is not read"));
            }
        }
        let before = self.errors.len();
        if let Some(kind) = WorkloadKind::parse(kind) {
            if let Some(workload) = self.lenient::<WorkloadWire>(subject, value) {
                self.input.workloads.push((kind, workload));
            }
        } else if kind == "Pod" {
            let pod = self.lenient::<PodWire>(subject, value);
            self.input.pods.extend(pod);
        } else if kind == "Node" {
            let node = self.lenient::<NodeWire>(subject, value);
            self.input.nodes.extend(node);
        } else if kind == "Namespace" {
            if let Some(meta) = self.lenient::<WithMeta>(subject, value) {
                let mut labels = meta.metadata.labels;
                labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
                self.input.namespaces.insert(name.into(), labels);
            }
        } else if kind == "PodGroup" {
            if let Some(group) = self.lenient::<scheduling::PodGroup>(subject, value) {
                let group = PodGroup::from(group);
                let key = (Arc::clone(&group.namespace), Arc::clone(&group.name));
                self.input.pod_groups.insert(key, Arc::new(group));
            }
        } else if kind != "PriorityClass" {
            self.volumes(subject, kind, value);
        } else {
            let number = &value["value"];
            match number.as_i64().and_then(|number| i32::try_from(number).ok()) {
                Some(number) => {
                    self.input.priorities.insert(name.to_owned(), number);
                    if let Ok(class) = serde_json::from_value::<PriorityClass>(value.clone()) {
                        let class = Priority::from(class);
                        let classes = Arc::make_mut(&mut self.input.facts.priorities);
                        classes.insert(Arc::clone(&class.name), Arc::new(class));
                    }
                }
                None if found.shape.is_empty() && found.values.is_empty() => {
                    let fix = "write a number such as 1000";
                    self.wrong(subject, "value", number, "must be a whole number", fix);
                }
                None => {}
            }
        }
        // The schema has said it already, and all of it.
        if !found.shape.is_empty() || !found.values.is_empty() {
            self.errors.truncate(before);
        }
    }

    /// An object that says where volumes are.
    fn volumes(&mut self, subject: &Subject<'_>, kind: &str, value: &Value) {
        match kind {
            "PersistentVolumeClaim" => {
                if let Some(claim) = self.lenient::<ClaimWire>(subject, value) {
                    let claim = claim.to_claim();
                    let key = (Arc::clone(&claim.namespace), Arc::clone(&claim.name));
                    Arc::make_mut(&mut self.input.volumes.claims).insert(key, Arc::new(claim));
                }
            }
            "PersistentVolume" => {
                if let Some(volume) = self.lenient::<VolumeObjectWire>(subject, value) {
                    let volume = Arc::new(volume.to_volume());
                    let all = Arc::make_mut(&mut self.input.volumes.volumes);
                    all.insert(Arc::clone(&volume.name), volume);
                }
            }
            "StorageClass" => {
                if let Some(class) = self.lenient::<ClassWire>(subject, value) {
                    let class = Arc::new(class.to_class());
                    let all = Arc::make_mut(&mut self.input.volumes.classes);
                    all.insert(Arc::clone(&class.name), class);
                }
            }
            _ => {
                if let Some(node) = self.lenient::<CsiNodeWire>(subject, value) {
                    let node = Arc::new(node.to_csi_node());
                    let all = Arc::make_mut(&mut self.input.volumes.nodes);
                    all.insert(Arc::clone(&node.name), node);
                }
            }
        }
    }

    /// An object of one of our kinds.
    fn ours(&mut self, subject: &Subject<'_>, kind: &str, value: &Value) {
        match kind {
            "NodePool" => {
                if let Some(pool) = self.strict::<NodePool>(subject, value) {
                    self.fields(subject, &validate::validate_nodepool(&pool));
                    self.input.pools.push(pool);
                }
            }
            "NodeOverlay" => {
                if let Some(overlay) = self.strict::<NodeOverlay>(subject, value) {
                    self.fields(subject, &validate::validate_nodeoverlay(&overlay));
                    self.input.overlays.push(overlay);
                }
            }
            "EC2NodeClass" => {
                if let Some(class) = self.strict::<EC2NodeClass>(subject, value) {
                    self.fields(subject, &validate::validate_ec2nodeclass(&class));
                    self.input.classes.insert(class.name_any(), class);
                }
            }
            "DemandProfile" => {
                if let Some(profile) = self.strict::<DemandProfile>(subject, value) {
                    self.fields(subject, &validate::validate_demandprofile(&profile));
                    self.input.profiles.push(profile);
                }
            }
            _ => {
                if let Some(policy) = self.strict::<RequestPolicy>(subject, value) {
                    self.fields(subject, &validate::validate_requestpolicy(&policy));
                    self.input.policies.push(policy);
                }
            }
        }
    }

    /// Notes the object's place. The second of a name is an error, unless it says the same.
    fn once(&mut self, subject: &Subject<'_>, kind: &str, name: &str, value: &Value) -> bool {
        let namespace = match value["metadata"]["namespace"].as_str() {
            _ if CLUSTER.contains(&kind) => "",
            Some(namespace) if !namespace.is_empty() => namespace,
            _ => "default",
        };
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        let says = digest::hex(value.to_string(), 16);
        let Some(first) = self.input.places.get(&key).cloned() else {
            self.input.places.insert(key.clone(), subject.origin.clone());
            self.seen.insert(key, says);
            return true;
        };
        if self.seen.get(&key) == Some(&says) {
            let Subject { origin, text } = subject;
            let twice = format!("{origin}: {text}: is in {first} already, and is used once");
            self.input.warnings.push(twice);
        } else {
            let what = format!("another object of this name is in {first}");
            let fix = "remove or rename one of them";
            self.wrong(subject, "metadata.name", &name.into(), &what, fix);
        }
        false
    }

    fn lenient<T: DeserializeOwned>(&mut self, subject: &Subject<'_>, value: &Value) -> Option<T> {
        serde_path_to_error::deserialize(value)
            .map_err(|error| {
                let path = error.path().to_string();
                let error = FieldError::new(&path, &Value::Null, error.into_inner().to_string());
                self.error(subject, &error);
            })
            .ok()
    }

    /// An object of ours. A field that does not exist is an error: in a file it is a mistake.
    fn strict<T>(&mut self, subject: &Subject<'_>, value: &Value) -> Option<T>
    where
        T: CustomResourceExt + DeserializeOwned,
    {
        match decode(value.clone()) {
            Ok((decoded, unknown)) => {
                self.fields(subject, &unknown);
                Some(decoded)
            }
            Err(errors) => {
                self.fields(subject, &errors);
                None
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct WithMeta {
    #[serde(default)]
    metadata: MetaWire,
}
