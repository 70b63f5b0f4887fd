//! `EC2NodeClass` (`karpenter.k8s.aws/v1`): how a node is built on EC2.
//!
//! The selector terms, the hardware settings, the kubelet block and the status each have their own module.

pub mod hardware;
pub mod kubelet;
pub mod selectors;
pub mod status;

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::common::CelRule;
pub use hardware::{
    BlockDevice, BlockDeviceMapping, ConnectionTracking, CpuOptions, HttpTokens,
    InstanceStorePolicy, InterfaceType, MetadataOptions, NetworkInterface, Toggle, VolumeType,
};
pub use selectors::{
    AmiSelectorTerm, CapacityReservationSelectorTerm, PlacementGroupSelector,
    SecurityGroupSelectorTerm, SubnetSelectorTerm,
};
pub use status::{AmiStatus, EC2NodeClassStatus, SecurityGroupStatus, SubnetStatus};

pub(crate) const ROLE_XOR_PROFILE: CelRule = (
    "has(self.role) != has(self.instanceProfile)",
    "must specify exactly one of ['role', 'instanceProfile']",
);
pub(crate) const ROLE_NOT_EMPTY: CelRule = ("self != ''", "role cannot be empty");
pub(crate) const PROFILE_NOT_EMPTY: CelRule = ("self != ''", "instanceProfile cannot be empty");
pub(crate) const FAMILY_WITHOUT_ALIAS: CelRule = (
    "has(self.amiFamily) || self.amiSelectorTerms.exists(x, has(x.alias))",
    "must specify amiFamily if amiSelectorTerms does not contain an alias",
);
pub(crate) const FAMILY_OF_ALIAS: CelRule = (
    "!has(self.amiFamily) || self.amiFamily == 'Custom' || self.amiSelectorTerms.all(x, !has(x.alias) || x.alias.startsWith(self.amiFamily.lowerAscii() + '@'))",
    "amiFamily must be the family of the alias or 'Custom'",
);
pub(crate) const ALIAS_IS_ALONE: CelRule = (
    "!self.exists(x, has(x.alias)) || self.size() == 1",
    "'alias' is mutually exclusive, cannot be set with a combination of other amiSelectorTerms",
);
pub(crate) const ONE_ROOT_VOLUME: CelRule = (
    "self.filter(x, has(x.rootVolume) && x.rootVolume).size() <= 1",
    "must have only one blockDeviceMappings with rootVolume",
);
pub(crate) const PRIMARY_INTERFACE: CelRule = (
    "self.exists(x, x.networkCardIndex == 0 && x.deviceIndex == 0 && x.interfaceType == 'interface')",
    "networkInterfaces must contain the primary interface (networkCardIndex 0, deviceIndex 0, interfaceType 'interface')",
);
pub(crate) const UNIQUE_INTERFACES: CelRule = (
    "self.all(x, self.exists_one(y, x.networkCardIndex == y.networkCardIndex && x.deviceIndex == y.deviceIndex))",
    "networkCardIndex and deviceIndex must be unique together",
);
pub(crate) const ONE_EFA_PER_CARD: CelRule = (
    "self.all(x, x.interfaceType != 'efa-only' || self.exists_one(y, y.interfaceType == 'efa-only' && x.networkCardIndex == y.networkCardIndex))",
    "a network card can have only one 'efa-only' interface",
);
pub(crate) const TAG_EMPTY: CelRule = ("self.all(k, k != '')", "empty tag keys aren't supported");
pub(crate) const TAG_EKS: CelRule = (
    "self.all(k, k != 'eks:eks-cluster-name')",
    "tag contains a restricted tag matching eks:eks-cluster-name",
);
pub(crate) const TAG_CLUSTER: CelRule = (
    "self.all(k, !k.startsWith('kubernetes.io/cluster'))",
    "tag contains a restricted tag matching kubernetes.io/cluster/",
);
pub(crate) const TAG_OWN: CelRule = (
    "self.all(k, !(k in ['karpenter.sh/nodepool', 'karpenter.sh/nodeclaim', 'karpenter.k8s.aws/ec2nodeclass']))",
    "tag contains a restricted tag matching karpenter.sh/nodepool, karpenter.sh/nodeclaim or karpenter.k8s.aws/ec2nodeclass",
);

/// How a node is built on EC2.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "karpenter.k8s.aws",
    version = "v1",
    kind = "EC2NodeClass",
    plural = "ec2nodeclasses",
    status = "EC2NodeClassStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "ec2nc",
    shortname = "ec2ncs",
    category = "karpenter",
    doc = "An EC2NodeClass says how nodes are built on EC2.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role", priority = 1)
)]
#[x_kube(validation = ROLE_XOR_PROFILE, validation = FAMILY_WITHOUT_ALIAS, validation = FAMILY_OF_ALIAS)]
pub struct EC2NodeClassSpec {
    /// Which subnets nodes start in. A subnet that matches one term is used.
    #[schemars(length(min = 1, max = 30))]
    pub subnet_selector_terms: Vec<SubnetSelectorTerm>,
    /// Which security groups nodes get. All groups that match a term are used.
    #[schemars(length(min = 1, max = 30))]
    pub security_group_selector_terms: Vec<SecurityGroupSelectorTerm>,
    /// Which images nodes start from. The newest that fits the instance type is used.
    #[schemars(length(min = 1, max = 30))]
    #[x_kube(validation = ALIAS_IS_ALONE)]
    pub ami_selector_terms: Vec<AmiSelectorTerm>,
    /// Which capacity reservations may be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 30))]
    pub capacity_reservation_selector_terms: Vec<CapacityReservationSelectorTerm>,
    /// The placement group that nodes start in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement_group_selector: Option<PlacementGroupSelector>,
    /// How user data and default volumes are made. Follows from the alias when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ami_family: Option<AmiFamily>,
    /// Whether nodes get a public address. Unset leaves it to the subnet.
    #[serde(rename = "associatePublicIPAddress", default, skip_serializing_if = "Option::is_none")]
    pub associate_public_ip_address: Option<bool>,
    /// How many address prefixes (/28 for IPv4, /80 for IPv6) the primary interface gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ip_prefix_count: Option<i32>,
    /// User data, merged with ours in the way of the image family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// The IAM role of nodes; an instance profile is made for it. Excludes instanceProfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ROLE_NOT_EMPTY)]
    pub role: Option<String>,
    /// The IAM instance profile of nodes. Excludes role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = PROFILE_NOT_EMPTY)]
    pub instance_profile: Option<String>,
    /// Tags of everything that is created for a node. EC2 takes at most 50 per resource.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    #[x_kube(validation = TAG_EMPTY, validation = TAG_EKS, validation = TAG_CLUSTER, validation = TAG_OWN)]
    pub tags: BTreeMap<String, String>,
    /// Volumes of nodes. Unset takes the default of the image family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[x_kube(validation = ONE_ROOT_VOLUME)]
    pub block_device_mappings: Vec<BlockDeviceMapping>,
    /// What to do with the disks that belong to the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_store_policy: Option<InstanceStorePolicy>,
    /// Network interfaces of nodes. Unset gives one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 150))]
    #[x_kube(validation = PRIMARY_INTERFACE, validation = UNIQUE_INTERFACES, validation = ONE_EFA_PER_CARD)]
    pub network_interfaces: Vec<NetworkInterface>,
    /// Whether metrics come each minute instead of each five minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detailed_monitoring: Option<bool>,
    /// Access to the instance metadata service.
    #[serde(default)]
    pub metadata_options: MetadataOptions,
    /// How long the security groups remember idle connections. Needs Nitro types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_tracking: Option<ConnectionTracking>,
    /// Processor features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_options: Option<CpuOptions>,
    /// Passed to CreateFleet as it is; reserved by EC2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Kubelet configuration of nodes, in the words of kubelet.config.k8s.io/v1beta1.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "open_object")]
    pub kubelet: Map<String, Value>,
}

impl EC2NodeClassSpec {
    /// The image family in force: the alias' own unless `amiFamily` says otherwise.
    pub fn resolved_family(&self) -> Option<AmiFamily> {
        self.ami_family.or_else(|| {
            let alias = self.ami_selector_terms.iter().find_map(|term| term.alias.as_deref())?;
            AmiFamily::of_alias(alias.split('@').next()?)
        })
    }
}

fn open_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// The images that we know how to configure.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum AmiFamily {
    /// Amazon Linux 2.
    AL2,
    /// Amazon Linux 2023.
    AL2023,
    /// Bottlerocket.
    Bottlerocket,
    /// User data is the user's alone.
    Custom,
    /// Windows Server 2019.
    Windows2019,
    /// Windows Server 2022.
    Windows2022,
    /// Windows Server 2025.
    Windows2025,
}

impl AmiFamily {
    /// The families that an alias may name, with the alias' word.
    pub const ALIASES: [(&'static str, Self); 6] = [
        ("al2", Self::AL2),
        ("al2023", Self::AL2023),
        ("bottlerocket", Self::Bottlerocket),
        ("windows2019", Self::Windows2019),
        ("windows2022", Self::Windows2022),
        ("windows2025", Self::Windows2025),
    ];

    /// The family that an alias names with the word before its `@`.
    pub fn of_alias(word: &str) -> Option<Self> {
        Self::ALIASES.iter().find(|(name, _)| *name == word).map(|(_, family)| *family)
    }

    /// The word before the `@` of this family's alias; none for Custom.
    pub fn alias(self) -> Option<&'static str> {
        Self::ALIASES.iter().find(|(_, family)| *family == self).map(|(name, _)| *name)
    }

    /// Whether nodes run Windows.
    pub fn is_windows(self) -> bool {
        matches!(self, Self::Windows2019 | Self::Windows2022 | Self::Windows2025)
    }
}
