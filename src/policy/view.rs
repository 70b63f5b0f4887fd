//! What a decision reads of a pod, borrowed from the bytes of the review.
//!
//! Decoding only these fields costs about a ninth of decoding the whole object, and fields that
//! newer servers add are skipped. Absent and `null` are told apart from empty where a patch needs
//! to know which parents exist.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Affinity, NodeAffinity};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::model::labels::Labels;
use crate::model::wire::pod::{ContainerWire, PodSpecWire};
use crate::model::wire::requests::{ResourceList, ResourcesWire};
use crate::model::wire::{Object, object, object_or_default, objects, or_default};
use crate::model::workload::known_workload;

/// A pod as far as decisions read it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodView<'a> {
    /// The text that was read; patches are tried on it.
    #[serde(skip)]
    pub(super) raw: &'a str,
    #[serde(borrow, deserialize_with = "object")]
    pub(super) metadata: Option<MetaView<'a>>,
    #[serde(borrow, deserialize_with = "object_or_default")]
    pub(super) spec: SpecView<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct MetaView<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) generate_name: Option<Cow<'a, str>>,
    #[serde(deserialize_with = "or_default")]
    pub(super) labels: Labels,
    #[serde(borrow, deserialize_with = "object")]
    pub(super) annotations: Option<AnnotationsView<'a>>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub(super) owner_references: Vec<OwnerView<'a>>,
}

/// The annotations that matter; others may be large and are skipped.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AnnotationsView<'a> {
    #[serde(rename = "kubernetes.io/config.mirror")]
    pub(super) mirror: Option<IgnoredAny>,
    #[serde(rename = "harbinger.sh/request-policy", borrow)]
    pub(super) opt_out: Option<Cow<'a, str>>,
    #[serde(rename = "harbinger.sh/default-requests", borrow)]
    pub(super) record: Option<Cow<'a, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OwnerView<'a> {
    #[serde(borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    pub(super) controller: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SpecView<'a> {
    #[serde(borrow, deserialize_with = "objects")]
    pub(super) containers: Vec<ContainerView<'a>>,
    #[serde(borrow, deserialize_with = "objects")]
    pub(super) init_containers: Vec<ContainerView<'a>>,
    #[serde(deserialize_with = "object")]
    pub(super) resources: Option<ResourcesWire>,
    #[serde(deserialize_with = "or_default")]
    pub(super) overhead: ResourceList,
    #[serde(borrow)]
    pub(super) node_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) priority_class_name: Option<Cow<'a, str>>,
    pub(super) active_deadline_seconds: Option<i64>,
    pub(super) termination_grace_period_seconds: Option<i64>,
    /// Where the pod may be, read only where something may have to shrink to fit there.
    #[serde(borrow)]
    pub(super) node_selector: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) affinity: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) tolerations: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerView<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) image: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) restart_policy: Option<Cow<'a, str>>,
    #[serde(deserialize_with = "object")]
    pub(super) resources: Option<ResourcesView>,
    #[serde(deserialize_with = "or_default")]
    pub(super) ports: Vec<IgnoredAny>,
    #[serde(deserialize_with = "object")]
    pub(super) lifecycle: Option<LifecycleView>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LifecycleView {
    pub(super) pre_stop: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ResourcesView {
    pub(super) requests: Option<ResourceList>,
    pub(super) limits: Option<ResourceList>,
}

/// The affinity that is about nodes.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AffinityWire {
    node_affinity: Option<NodeAffinity>,
}

impl<'a> PodView<'a> {
    /// Reads the JSON text of a pod.
    pub fn parse(raw: &'a str) -> Result<Self, serde_json::Error> {
        let Object(mut view) = serde_json::from_str::<Object<Self>>(raw)?;
        view.raw = raw;
        Ok(view)
    }

    /// The pod's labels.
    pub fn labels(&self) -> &Labels {
        static NONE: Labels = Labels::new();
        self.metadata.as_ref().map_or(&NONE, |metadata| &metadata.labels)
    }

    /// Name, or the prefix from which the API server makes one, or the empty string.
    pub fn name(&self) -> &str {
        let Some(metadata) = &self.metadata else { return "" };
        metadata
            .name
            .as_deref()
            .filter(|name| !name.is_empty())
            .or(metadata.generate_name.as_deref())
            .unwrap_or_default()
    }

    /// Kind and name of the managing controller.
    pub fn controller(&self) -> Option<(&str, &str)> {
        let owners = &self.metadata.as_ref()?.owner_references;
        let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
        Some((&owner.kind, &owner.name))
    }

    /// Kind and name of the workload that people know: the Deployment behind a ReplicaSet.
    pub fn workload(&self) -> Option<(&str, &str)> {
        let (kind, name) = self.controller()?;
        Some(known_workload(kind, name, self.labels()))
    }

    pub(super) fn annotations(&self) -> Option<&AnnotationsView<'a>> {
        self.metadata.as_ref()?.annotations.as_ref()
    }

    /// Takes over where another view of the pod says that it may be: patches do not touch that.
    pub(super) fn stand_where(&mut self, other: &Self) {
        self.spec.node_selector = other.spec.node_selector;
        self.spec.affinity = other.spec.affinity;
        self.spec.tolerations = other.spec.tolerations;
    }

    /// The part of the spec that says where the pod may be. What cannot be read asks for nothing: the
    /// API server refuses it anyway.
    pub(super) fn to_placement(&self) -> PodSpecWire {
        fn read<T: Default + for<'de> Deserialize<'de>>(raw: Option<&RawValue>) -> T {
            let read = raw.and_then(|raw| serde_json::from_str::<Option<T>>(raw.get()).ok());
            read.flatten().unwrap_or_default()
        }
        let AffinityWire { node_affinity } = read(self.spec.affinity);
        PodSpecWire {
            node_selector: read(self.spec.node_selector),
            affinity: Some(Affinity { node_affinity, ..Affinity::default() }),
            tolerations: read(self.spec.tolerations),
            ..PodSpecWire::default()
        }
    }

    /// The part of the spec that the effective request depends on.
    pub(super) fn to_spec(&self) -> PodSpecWire {
        PodSpecWire {
            containers: self.spec.containers.iter().map(ContainerView::to_wire).collect(),
            init_containers: self.spec.init_containers.iter().map(ContainerView::to_wire).collect(),
            resources: self.spec.resources.clone(),
            overhead: self.spec.overhead.clone(),
            ..PodSpecWire::default()
        }
    }
}

impl ContainerView<'_> {
    fn to_wire(&self) -> ContainerWire {
        let list = |list: fn(&ResourcesView) -> &Option<ResourceList>| {
            self.resources.as_ref().and_then(|r| list(r).clone()).unwrap_or_default()
        };
        ContainerWire {
            name: self.name.clone().into_owned(),
            restart_policy: self.restart_policy.as_deref().map(str::to_owned),
            resources: ResourcesWire {
                requests: list(|r| &r.requests),
                limits: list(|r| &r.limits),
            },
            ..ContainerWire::default()
        }
    }
}
