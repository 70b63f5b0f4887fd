//! Objects of the API server, reduced to what decisions read.

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::storage::v1 as storage;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Serialize};

use crate::model::wire::node::{NodeSpecWire, NodeStatusWire, NodeWire};
use crate::model::wire::pod::{PodSpecWire, PodStatusWire, PodWire};
use crate::model::wire::volume::{
    AttachmentSpecWire, AttachmentWire, ClaimSpecWire, ClaimStatusWire, ClaimWire, ClassWire,
    CsiNodeSpecWire, CsiNodeWire, VolumeObjectWire, VolumeSpecWire,
};
use crate::model::wire::workload::{WorkloadSpecWire, WorkloadStatusWire, WorkloadWire};
use crate::model::wire::{MetaWire, OwnerWire};

/// A pod.
#[derive(Clone, Debug, Deserialize, Resource, Serialize)]
#[resource(inherit = core::Pod)]
pub struct PodObject {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: PodSpecWire,
    #[serde(default)]
    status: PodStatusWire,
}

/// A node.
#[derive(Clone, Debug, Deserialize, Resource, Serialize)]
#[resource(inherit = core::Node)]
pub struct NodeObject {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: NodeSpecWire,
    #[serde(default)]
    status: NodeStatusWire,
}

/// A claim of a volume.
#[derive(Clone, Debug, Deserialize, Resource, Serialize)]
#[resource(inherit = core::PersistentVolumeClaim)]
pub struct ClaimObject {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: ClaimSpecWire,
    #[serde(default)]
    status: ClaimStatusWire,
}

/// A volume.
#[derive(Clone, Debug, Deserialize, Resource, Serialize)]
#[resource(inherit = core::PersistentVolume)]
pub struct VolumeObject {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: VolumeSpecWire,
    #[serde(default)]
    status: ClaimStatusWire,
}

/// A storage class.
#[derive(Clone, Debug, Deserialize, Resource, Serialize)]
#[resource(inherit = storage::StorageClass)]
#[serde(rename_all = "camelCase")]
pub struct ClassObject {
    metadata: ObjectMeta,
    #[serde(default)]
    provisioner: String,
    #[serde(default)]
    volume_binding_mode: Option<String>,
    #[serde(default)]
    allowed_topologies: Option<Vec<core::TopologySelectorTerm>>,
}

/// What CSI drivers say of a node.
#[derive(Clone, Debug, Deserialize, Resource, Serialize)]
#[resource(inherit = storage::CSINode)]
pub struct CsiNodeObject {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: CsiNodeSpecWire,
}

/// A volume at a node.
#[derive(Clone, Debug, Deserialize, Resource, Serialize)]
#[resource(inherit = storage::VolumeAttachment)]
pub struct AttachmentObject {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: AttachmentSpecWire,
}

impl From<ClaimObject> for ClaimWire {
    fn from(object: ClaimObject) -> Self {
        Self { metadata: meta(object.metadata), spec: object.spec, status: object.status }
    }
}

impl From<VolumeObject> for VolumeObjectWire {
    fn from(object: VolumeObject) -> Self {
        Self { metadata: meta(object.metadata), spec: object.spec, status: object.status }
    }
}

impl From<ClassObject> for ClassWire {
    fn from(object: ClassObject) -> Self {
        Self {
            metadata: meta(object.metadata),
            provisioner: object.provisioner,
            volume_binding_mode: object.volume_binding_mode,
            allowed_topologies: object.allowed_topologies.unwrap_or_default(),
        }
    }
}

impl From<CsiNodeObject> for CsiNodeWire {
    fn from(object: CsiNodeObject) -> Self {
        Self { metadata: meta(object.metadata), spec: object.spec }
    }
}

impl From<AttachmentObject> for AttachmentWire {
    fn from(object: AttachmentObject) -> Self {
        Self { metadata: meta(object.metadata), spec: object.spec }
    }
}

impl From<PodObject> for PodWire {
    fn from(object: PodObject) -> Self {
        Self { metadata: meta(object.metadata), spec: object.spec, status: object.status }
    }
}

impl From<NodeObject> for NodeWire {
    fn from(object: NodeObject) -> Self {
        Self { metadata: meta(object.metadata), spec: object.spec, status: object.status }
    }
}

macro_rules! workload_object {
    ($(#[$doc:meta])* $name:ident, $inherit:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize, Resource, Serialize)]
        #[resource(inherit = $inherit)]
        pub struct $name {
            metadata: ObjectMeta,
            #[serde(default)]
            spec: WorkloadSpecWire,
            #[serde(default)]
            status: WorkloadStatusWire,
        }

        impl From<$name> for WorkloadWire {
            fn from(object: $name) -> Self {
                Self { metadata: meta(object.metadata), spec: object.spec, status: object.status }
            }
        }
    };
}

workload_object!(
    /// A Deployment.
    DeploymentObject,
    apps::Deployment
);
workload_object!(
    /// A ReplicaSet.
    ReplicaSetObject,
    apps::ReplicaSet
);
workload_object!(
    /// A StatefulSet.
    StatefulSetObject,
    apps::StatefulSet
);
workload_object!(
    /// A DaemonSet.
    DaemonSetObject,
    apps::DaemonSet
);
workload_object!(
    /// A Job.
    JobObject,
    batch::Job
);
workload_object!(
    /// A CronJob.
    CronJobObject,
    batch::CronJob
);

/// Metadata, reduced.
pub fn meta(meta: ObjectMeta) -> MetaWire {
    MetaWire {
        name: meta.name,
        generate_name: meta.generate_name,
        namespace: meta.namespace,
        uid: meta.uid,
        generation: meta.generation,
        labels: meta.labels.unwrap_or_default(),
        annotations: meta.annotations.unwrap_or_default(),
        owner_references: meta
            .owner_references
            .unwrap_or_default()
            .into_iter()
            .map(|owner| OwnerWire {
                api_version: owner.api_version,
                kind: owner.kind,
                name: owner.name,
                uid: owner.uid,
                controller: owner.controller,
            })
            .collect(),
        finalizers: meta.finalizers.unwrap_or_default(),
        creation_timestamp: meta.creation_timestamp.map(|time| time.0),
        deletion_timestamp: meta.deletion_timestamp.map(|time| time.0),
    }
}
