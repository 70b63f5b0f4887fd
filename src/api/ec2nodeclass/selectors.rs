//! Selector terms: which subnets, groups, images, reservations and placement groups a class means.
//!
//! The terms of a list are alternatives; the tags of one term must all match; the value `*` means any value.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::api::common::CelRule;

pub(crate) const TAGS_NOT_EMPTY: CelRule =
    ("self.all(k, k != '' && self[k] != '')", "empty tag keys or values aren't supported");
pub(crate) const SUBNET_SOME: CelRule = (
    "(has(self.tags) && self.tags.size() > 0) || has(self.id)",
    "expected at least one, got none, ['tags', 'id']",
);
pub(crate) const SUBNET_ID: CelRule = (
    "!has(self.id) || !has(self.tags)",
    "'id' is mutually exclusive, cannot be set with a combination of other fields in a subnet selector term",
);
pub(crate) const GROUP_SOME: CelRule = (
    "(has(self.tags) && self.tags.size() > 0) || has(self.id) || has(self.name)",
    "expected at least one, got none, ['tags', 'id', 'name']",
);
pub(crate) const GROUP_ID: CelRule = (
    "!has(self.id) || !(has(self.tags) || has(self.name))",
    "'id' is mutually exclusive, cannot be set with a combination of other fields in a security group selector term",
);
pub(crate) const GROUP_NAME: CelRule = (
    "!has(self.name) || !(has(self.tags) || has(self.id))",
    "'name' is mutually exclusive, cannot be set with a combination of other fields in a security group selector term",
);
pub(crate) const AMI_SOME: CelRule = (
    "(has(self.tags) && self.tags.size() > 0) || has(self.id) || has(self.name) || has(self.alias) || has(self.ssmParameter)",
    "expected at least one, got none, ['tags', 'id', 'name', 'alias', 'ssmParameter']",
);
pub(crate) const AMI_ID: CelRule = (
    "!has(self.id) || !(has(self.alias) || has(self.tags) || has(self.name) || has(self.owner))",
    "'id' is mutually exclusive, cannot be set with a combination of other fields in an AMI selector term",
);
pub(crate) const AMI_ALIAS: CelRule = (
    "!has(self.alias) || !(has(self.id) || has(self.tags) || has(self.name) || has(self.owner) || has(self.ssmParameter))",
    "'alias' is mutually exclusive, cannot be set with a combination of other fields in an AMI selector term",
);
pub(crate) const ALIAS_FORM: CelRule = (
    "self.matches('^[a-zA-Z0-9]+@.+$')",
    "'alias' is improperly formatted, must match the format 'family@version'",
);
pub(crate) const ALIAS_FAMILY: CelRule = (
    "self.split('@')[0] in ['al2', 'al2023', 'bottlerocket', 'windows2019', 'windows2022', 'windows2025']",
    "family is not supported, must be one of the following: 'al2', 'al2023', 'bottlerocket', 'windows2019', 'windows2022', 'windows2025'",
);
pub(crate) const ALIAS_WINDOWS: CelRule = (
    "!self.startsWith('windows') || self.endsWith('@latest')",
    "windows families may only specify version 'latest'",
);
pub(crate) const RESERVATION_SOME: CelRule = (
    "(has(self.tags) && self.tags.size() > 0) || has(self.id) || has(self.instanceMatchCriteria)",
    "expected at least one, got none, ['tags', 'id', 'instanceMatchCriteria']",
);
pub(crate) const RESERVATION_ID: CelRule = (
    "!has(self.id) || !(has(self.tags) || has(self.ownerID) || has(self.instanceMatchCriteria))",
    "'id' is mutually exclusive, cannot be set with a combination of other fields in a capacity reservation selector term",
);
pub(crate) const PLACEMENT_ONE: CelRule =
    ("has(self.name) != has(self.id)", "must specify exactly one of ['name', 'id']");

/// The schema of the tags of one term.
fn tags_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 20,
        "additionalProperties": {"type": "string"},
    })
}

/// Selects subnets by tags or by id.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = SUBNET_SOME, validation = SUBNET_ID)]
pub struct SubnetSelectorTerm {
    /// Tags that a subnet must have; `*` means any value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "tags_schema")]
    #[x_kube(validation = TAGS_NOT_EMPTY)]
    pub tags: BTreeMap<String, String>,
    /// Id of the subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = "^subnet-[0-9a-z]+$"))]
    pub id: Option<String>,
}

/// Selects security groups by tags, by id, or by group name.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = GROUP_SOME, validation = GROUP_ID, validation = GROUP_NAME)]
pub struct SecurityGroupSelectorTerm {
    /// Tags that a group must have; `*` means any value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "tags_schema")]
    #[x_kube(validation = TAGS_NOT_EMPTY)]
    pub tags: BTreeMap<String, String>,
    /// Id of the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = "^sg-[0-9a-z]+$"))]
    pub id: Option<String>,
    /// Name of the group; not its Name tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Selects images.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = AMI_SOME, validation = AMI_ID, validation = AMI_ALIAS)]
pub struct AmiSelectorTerm {
    /// An image that EKS publishes, as family@version, such as al2023@latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 30))]
    #[x_kube(validation = ALIAS_FORM, validation = ALIAS_FAMILY, validation = ALIAS_WINDOWS)]
    pub alias: Option<String>,
    /// Tags that an image must have; `*` means any value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "tags_schema")]
    #[x_kube(validation = TAGS_NOT_EMPTY)]
    pub tags: BTreeMap<String, String>,
    /// Id of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = "^ami-[0-9a-z]+$"))]
    pub id: Option<String>,
    /// Name of the image; not its Name tag. May hold wildcards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who publishes the image: an account id, self, amazon or aws-marketplace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Name or ARN of the SSM parameter that holds the image's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssm_parameter: Option<String>,
}

/// Selects capacity reservations.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = RESERVATION_SOME, validation = RESERVATION_ID)]
pub struct CapacityReservationSelectorTerm {
    /// Tags that a reservation must have; `*` means any value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "tags_schema")]
    #[x_kube(validation = TAGS_NOT_EMPTY)]
    pub tags: BTreeMap<String, String>,
    /// Id of the reservation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = "^cr-[0-9a-z]+$"))]
    pub id: Option<String>,
    /// Account that owns the reservation.
    #[serde(rename = "ownerID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 12), regex(pattern = "^[0-9]{12}$"))]
    pub owner_id: Option<String>,
    /// Which instances may use the reservation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_match_criteria: Option<InstanceMatchCriteria>,
}

/// Which instances may use a capacity reservation.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum InstanceMatchCriteria {
    /// Any that matches its attributes.
    Open,
    /// Only those that name it.
    Targeted,
}

/// Selects one placement group.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = PLACEMENT_ONE)]
pub struct PlacementGroupSelector {
    /// Name of the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub name: Option<String>,
    /// Id of the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = "^pg-[0-9a-z]+$"))]
    pub id: Option<String>,
}
