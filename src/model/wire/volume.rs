//! Persistent volumes, their claims and classes on the wire.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde::{Deserialize, Serialize};

use super::pod::{node_term, selector};
use super::requests::ResourcesWire;
use super::{MetaWire, or_default};
use crate::model::labels;
use crate::model::quantity::Quantity;
use crate::model::requirement::{Requirement, Requirements};
use crate::model::volume::{
    AccessModes, Attachment, ClaimSpec, CsiNode, PersistentVolume, StorageClass, VolumeClaim,
};

/// Set once claim and volume know each other.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Node for which a volume is being made.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Class of claims and volumes from before there was a field for it.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Marks the class of claims that name none.
const DEFAULT_CLASS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];
/// Labels with the zones or regions of a volume, several of them joined by `__`.
const ZONES: [&str; 4] = [
    labels::ZONE,
    labels::REGION,
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];
/// Volumes that were part of Kubernetes and are served by CSI drivers today.
const EBS: &str = "ebs.csi.aws.com";

/// The CSI driver behind the name of a provisioner.
fn driver(provisioner: &str) -> &str {
    match provisioner {
        "kubernetes.io/aws-ebs" => EBS,
        "kubernetes.io/gce-pd" => "pd.csi.storage.gke.io",
        "kubernetes.io/azure-disk" => "disk.csi.azure.com",
        "kubernetes.io/azure-file" => "file.csi.azure.com",
        "kubernetes.io/cinder" => "cinder.csi.openstack.org",
        "kubernetes.io/portworx-volume" => "pxd.portworx.com",
        "kubernetes.io/vsphere-volume" => "csi.vsphere.vmware.com",
        other => other,
    }
}

/// A claim as read from the API server or a file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimWire {
    /// Metadata.
    pub metadata: MetaWire,
    /// Spec.
    #[serde(deserialize_with = "or_default")]
    pub spec: ClaimSpecWire,
    /// Status.
    #[serde(deserialize_with = "or_default")]
    pub status: ClaimStatusWire,
}

/// What is read of a claim's spec.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSpecWire {
    /// Access modes.
    #[serde(deserialize_with = "or_default")]
    pub access_modes: Vec<String>,
    /// Class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// Volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_name: Option<String>,
    /// `Block` or `Filesystem`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_mode: Option<String>,
    /// Size.
    #[serde(deserialize_with = "or_default")]
    pub resources: ResourcesWire,
    /// Volumes that will do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<meta::LabelSelector>,
}

/// What is read of a claim's status.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimStatusWire {
    /// `Pending`, `Bound` or `Lost`; absent in files that never saw an API server.
    pub phase: Option<String>,
}

/// A template of claims, of a pod's volume or of a `StatefulSet`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimTemplateWire {
    /// Metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: MetaWire,
    /// Spec.
    #[serde(deserialize_with = "or_default")]
    pub spec: ClaimSpecWire,
}

impl ClaimSpecWire {
    /// What the claim asks for.
    pub fn to_spec(&self) -> ClaimSpec {
        ClaimSpec {
            class: self.storage_class_name.as_deref().map(Arc::from),
            modes: AccessModes::parse(self.access_modes.iter().map(String::as_str)),
            size: self.resources.requests.get("storage").map_or(0, |size| size.units()),
            block: self.volume_mode.as_deref() == Some("Block"),
            selector: selector(self.selector.as_ref()),
        }
    }
}

impl ClaimWire {
    /// The claim.
    pub fn to_claim(&self) -> VolumeClaim {
        let meta = &self.metadata;
        let mut spec = self.spec.to_spec();
        if let Some(class) = meta.annotations.get(CLASS) {
            spec.class = Some((&**class).into());
        }
        let volume = self.spec.volume_name.as_deref().filter(|name| !name.is_empty());
        let phase = self.status.phase.as_deref();
        VolumeClaim {
            namespace: meta.namespace().into(),
            name: meta.name().into(),
            spec,
            // The API server gives every claim a phase: one without comes from somebody's hand, who
            // means it to be bound.
            bound: volume.is_some()
                && (phase.is_none() || meta.annotations.contains_key(BIND_COMPLETED)),
            volume: volume.map(Arc::from),
            lost: phase == Some("Lost"),
            deleting: meta.deletion_timestamp.is_some(),
            selected_node: meta.annotations.get(SELECTED_NODE).map(|node| (&**node).into()),
        }
    }
}

/// A volume as read from the API server or a file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct VolumeObjectWire {
    /// Metadata.
    pub metadata: MetaWire,
    /// Spec.
    #[serde(deserialize_with = "or_default")]
    pub spec: VolumeSpecWire,
    /// Status.
    #[serde(deserialize_with = "or_default")]
    pub status: ClaimStatusWire,
}

/// What is read of a volume's spec.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSpecWire {
    /// Access modes.
    #[serde(deserialize_with = "or_default")]
    pub access_modes: Vec<String>,
    /// Size.
    #[serde(deserialize_with = "or_default")]
    pub capacity: super::requests::ResourceList,
    /// Class.
    pub storage_class_name: Option<String>,
    /// `Block` or `Filesystem`.
    pub volume_mode: Option<String>,
    /// Nodes that reach it.
    pub node_affinity: Option<core::VolumeNodeAffinity>,
    /// Claim.
    pub claim_ref: Option<ClaimRefWire>,
    /// CSI volume.
    pub csi: Option<CsiWire>,
    /// EBS volume in the old spelling.
    pub aws_elastic_block_store: Option<OldVolumeWire>,
}

/// What is read of a reference to a claim.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClaimRefWire {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// What is read of a CSI volume.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiWire {
    /// Driver.
    pub driver: String,
    /// The driver's name of the volume.
    pub volume_handle: String,
}

/// What is read of an EBS volume in the old spelling.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct OldVolumeWire {
    /// Id, such as `vol-0123` or `aws://zone/vol-0123`.
    #[serde(rename = "volumeID")]
    pub id: String,
}

impl VolumeObjectWire {
    /// The volume.
    pub fn to_volume(&self) -> PersistentVolume {
        let (meta, spec) = (&self.metadata, &self.spec);
        let claim = spec.claim_ref.as_ref().filter(|claim| !claim.name.is_empty());
        let csi = spec.csi.as_ref().map(|csi| (&*csi.driver, &*csi.volume_handle));
        let old = spec.aws_elastic_block_store.as_ref();
        let handle = csi.or_else(|| Some((EBS, old?.id.rsplit('/').next()?)));
        let class = meta.annotations.get(CLASS).or(spec.storage_class_name.as_ref());
        PersistentVolume {
            name: meta.name().into(),
            labels: meta.labels.clone(),
            class: class.map_or("", String::as_str).into(),
            reach: self.reach(),
            handle: handle.map(|(driver, handle)| (driver.into(), handle.into())),
            modes: AccessModes::parse(spec.access_modes.iter().map(String::as_str)),
            size: spec.capacity.get("storage").copied().map_or(0, Quantity::units),
            block: spec.volume_mode.as_deref() == Some("Block"),
            claim: claim.map(|claim| ((&*claim.namespace).into(), (&*claim.name).into())),
            available: meta.deletion_timestamp.is_none()
                && self.status.phase.as_deref().is_none_or(|phase| phase == "Available"),
        }
    }

    /// See [`PersistentVolume::reach`].
    fn reach(&self) -> Option<Vec<Requirements>> {
        let mut zones = Requirements::new();
        for key in ZONES {
            if let Some(value) = self.metadata.labels.get(key) {
                zones.insert(key, Requirement::one_of(value.split("__")));
            }
        }
        let required = self.spec.node_affinity.as_ref().and_then(|a| a.required.as_ref());
        let Some(required) = required else {
            return (!zones.is_empty()).then(|| vec![zones]);
        };
        // The scheduler shows terms a node's labels and no name, so that a term about names is met
        // only where it lets any name pass.
        let terms = required.node_selector_terms.iter().map(node_term);
        let open = terms.filter(|term| {
            !term.is_empty() && term.node_name.as_ref().is_none_or(|name| name.allows(""))
        });
        Some(
            open.map(|term| {
                let mut all = term.requirements;
                all.extend(&zones);
                all
            })
            .collect(),
        )
    }
}

/// A storage class as read from the API server or a file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClassWire {
    /// Metadata.
    pub metadata: MetaWire,
    /// Who makes volumes.
    pub provisioner: String,
    /// `Immediate` or `WaitForFirstConsumer`.
    pub volume_binding_mode: Option<String>,
    /// Where volumes may be made.
    #[serde(deserialize_with = "or_default")]
    pub allowed_topologies: Vec<core::TopologySelectorTerm>,
}

impl ClassWire {
    /// The class.
    pub fn to_class(&self) -> StorageClass {
        let term = |term: &core::TopologySelectorTerm| {
            let expressions = term.match_label_expressions.as_ref()?;
            let mut all = Requirements::new();
            for expression in expressions {
                let values = expression.values.iter().map(|value| Arc::<str>::from(&**value));
                all.insert(&expression.key, Requirement::one_of(values));
            }
            (!all.is_empty()).then_some(all)
        };
        let topologies = &self.allowed_topologies;
        let annotations = &self.metadata.annotations;
        let is_true = |key: &str| annotations.get(key).map(String::as_str) == Some("true");
        StorageClass {
            name: self.metadata.name().into(),
            provisioner: driver(&self.provisioner).into(),
            waits: self.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            topologies: (!topologies.is_empty())
                .then(|| topologies.iter().filter_map(term).collect()),
            default: DEFAULT_CLASS.into_iter().any(is_true),
            created_at: self.metadata.created_at(),
        }
    }
}

/// A CSI node as read from the API server or a file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct CsiNodeWire {
    /// Metadata.
    pub metadata: MetaWire,
    /// Spec.
    #[serde(deserialize_with = "or_default")]
    pub spec: CsiNodeSpecWire,
}

/// What is read of a CSI node's spec.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct CsiNodeSpecWire {
    /// Drivers on the node.
    #[serde(deserialize_with = "or_default")]
    pub drivers: Vec<CsiDriverWire>,
}

/// What is read of a driver on a node.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct CsiDriverWire {
    /// Name.
    pub name: String,
    /// Limits.
    #[serde(deserialize_with = "or_default")]
    pub allocatable: CsiLimitWire,
}

/// What a driver can do on a node.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct CsiLimitWire {
    /// Most volumes.
    pub count: Option<i64>,
}

impl CsiNodeWire {
    /// The CSI node.
    pub fn to_csi_node(&self) -> CsiNode {
        let limit =
            |driver: &CsiDriverWire| Some(((&*driver.name).into(), driver.allocatable.count?));
        CsiNode {
            name: self.metadata.name().into(),
            limits: self.spec.drivers.iter().filter_map(limit).collect(),
        }
    }
}

/// A `VolumeAttachment`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct AttachmentWire {
    /// Metadata.
    pub metadata: MetaWire,
    /// Spec.
    #[serde(deserialize_with = "or_default")]
    pub spec: AttachmentSpecWire,
}

/// What is read of an attachment's spec.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AttachmentSpecWire {
    /// Name of the node.
    pub node_name: String,
    /// What is attached.
    #[serde(deserialize_with = "or_default")]
    pub source: AttachmentSourceWire,
}

/// What is attached to a node.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AttachmentSourceWire {
    /// Name of the volume; a volume that a pod declares inline has none.
    pub persistent_volume_name: Option<String>,
}

impl AttachmentWire {
    /// The attachment, if it is one of a volume with a name.
    pub fn to_attachment(&self) -> Option<Attachment> {
        Some(Attachment {
            name: self.metadata.name().into(),
            node: (&*self.spec.node_name).into(),
            volume: self.spec.source.persistent_volume_name.as_deref()?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(value: Value) -> PersistentVolume {
        serde_json::from_value::<VolumeObjectWire>(value).unwrap().to_volume()
    }

    fn text(reach: Option<Vec<Requirements>>) -> Option<Vec<String>> {
        let one = |all: Requirements| {
            let parts: Vec<String> = all.iter().map(|(key, r)| format!("{key} {r}")).collect();
            parts.join(", ")
        };
        reach.map(|terms| terms.into_iter().map(one).collect())
    }

    #[test]
    fn volumes_say_where_they_are() {
        let terms = |terms: Value| {
            let spec = json!({"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}});
            volume(json!({"metadata": {"name": "v"}, "spec": spec})).reach
        };
        let zone = |zone: &str| {
            json!({"matchExpressions": [
                {"key": "topology.ebs.csi.aws.com/zone", "operator": "In", "values": [zone]}]})
        };
        let in_zone = |zone: &str| format!("topology.kubernetes.io/zone In [{zone}]");
        assert_eq!(
            text(terms(json!([zone("a"), zone("b")]))),
            Some(vec![in_zone("a"), in_zone("b")])
        );
        // A term that means no node is none, and a volume with no other is nowhere.
        assert_eq!(text(terms(json!([{}, zone("a")]))), Some(vec![in_zone("a")]));
        let name =
            json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]});
        assert_eq!(text(terms(json!([name]))), Some(Vec::new()));
        assert_eq!(volume(json!({"metadata": {"name": "v"}})).reach, None);
        let old = volume(json!({
            "metadata": {"name": "v", "labels": {"failure-domain.beta.kubernetes.io/zone": "a__b"}},
            "spec": {"awsElasticBlockStore": {"volumeID": "aws://a/vol-1"}, "capacity": {"storage": "1Gi"}},
        }));
        assert_eq!(text(old.reach), Some(vec![in_zone("a, b")]));
        assert_eq!(old.handle, Some((EBS.into(), "vol-1".into())));
        assert_eq!(old.size, 1 << 30);
    }

    #[test]
    fn claims_are_bound_when_both_sides_know() {
        let claim = |annotations: Value, status: Value| {
            let wire = json!({
                "metadata": {"name": "c", "namespace": "n", "annotations": annotations},
                "spec": {"volumeName": "v", "accessModes": ["ReadWriteOncePod"]}, "status": status,
            });
            serde_json::from_value::<ClaimWire>(wire).unwrap().to_claim()
        };
        assert!(!claim(json!(null), json!({"phase": "Pending"})).bound);
        assert!(claim(json!({BIND_COMPLETED: "yes"}), json!({"phase": "Bound"})).bound);
        // From a file.
        assert!(claim(json!({}), json!(null)).bound);
        let lost = claim(json!({CLASS: "old"}), json!({"phase": "Lost"}));
        assert!(lost.lost && lost.spec.modes.one_pod());
        assert_eq!(lost.spec.class.as_deref(), Some("old"));
    }

    #[test]
    fn classes_say_where_volumes_may_be_made() {
        let class = |topologies: Value| {
            let wire = json!({
                "metadata": {"name": "c", "annotations": {DEFAULT_CLASS[0]: "true"}},
                "provisioner": "kubernetes.io/aws-ebs",
                "volumeBindingMode": "WaitForFirstConsumer", "allowedTopologies": topologies,
            });
            serde_json::from_value::<ClassWire>(wire).unwrap().to_class()
        };
        let open = class(json!(null));
        assert!(open.waits && open.default && open.topologies.is_none() && !open.by_hand());
        assert_eq!(&*open.provisioner, EBS);
        let term = json!({"matchLabelExpressions": [
            {"key": "topology.kubernetes.io/zone", "values": ["a", "b"]}]});
        let some = class(json!([term, {}])).topologies;
        assert_eq!(text(some), Some(vec!["topology.kubernetes.io/zone In [a, b]".to_owned()]));
    }

    #[test]
    fn limits_are_those_that_drivers_state() {
        let wire = json!({"metadata": {"name": "n"}, "spec": {"drivers": [
            {"name": "a", "nodeID": "n", "allocatable": {"count": 3}},
            {"name": "b", "nodeID": "n", "allocatable": null},
            {"name": "c", "nodeID": "n"},
        ]}});
        let node = serde_json::from_value::<CsiNodeWire>(wire).unwrap().to_csi_node();
        assert_eq!(node.limits, [("a".into(), 3)].into());
    }

    #[test]
    fn attachments_of_volumes_with_a_name() {
        let read = |source: Value| {
            let wire =
                json!({"metadata": {"name": "x"}, "spec": {"nodeName": "n", "source": source}});
            serde_json::from_value::<AttachmentWire>(wire).unwrap().to_attachment()
        };
        let of =
            |volume: &str| Attachment { name: "x".into(), node: "n".into(), volume: volume.into() };
        assert_eq!(read(json!({"persistentVolumeName": "pv"})), Some(of("pv")));
        assert_eq!(read(json!({"inlineVolumeSpec": {}})), None);
    }
}
