//! `NodeOverlay` (`karpenter.sh/v1alpha1`): prices and extended resources of instance types that the cloud does not tell.
//!
//! Planning believes an overlay; nothing about the instances changes.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::common::{
    BOUND_IS_ONE_INTEGER, CelRule, IN_NEEDS_VALUES, KEY_DOMAIN, KEY_HOSTNAME, KEY_PATTERN,
    Operator, Requirement, ResourceList, VALUE_PATTERN, resource_list, resource_list_schema,
};
use super::conditions::Condition;

/// A price in dollars per hour.
pub(crate) const PRICE_PATTERN: &str = r"^[0-9]+(\.[0-9]+)?$";
/// A signed amount in dollars per hour, or a signed share down to -100%.
pub(crate) const ADJUSTMENT_PATTERN: &str =
    r"^([+-][0-9]*\.?[0-9]+|\+[0-9]*\.?[0-9]+%|-[0-9]{1,2}(\.[0-9]+)?%|-100%)$";

pub(crate) const ONE_PRICE: CelRule = (
    "!has(self.price) || !has(self.priceAdjustment)",
    "cannot set both 'price' and 'priceAdjustment'",
);
pub(crate) const EXTENDED_ONLY: CelRule = (
    "self.all(x, !(x in ['cpu', 'memory', 'ephemeral-storage', 'pods']))",
    "invalid resource restricted",
);
pub(crate) const NOT_IN_NEEDS_VALUES: CelRule = (
    "self.operator != 'NotIn' || (has(self.values) && self.values.size() != 0)",
    "requirements with operator 'NotIn' must have a value defined",
);

/// What planning is to believe of the instance types that meet the requirements.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "karpenter.sh",
    version = "v1alpha1",
    kind = "NodeOverlay",
    plural = "nodeoverlays",
    status = "NodeOverlayStatus",
    derive = "PartialEq",
    shortname = "overlays",
    category = "karpenter",
    doc = "A NodeOverlay changes the prices and adds to the resources that planning sees of instance types.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".spec.weight", priority = 1)
)]
#[x_kube(validation = ONE_PRICE)]
pub struct NodeOverlaySpec {
    /// The instance types and offerings that the overlay is about, by the labels of their nodes: those of the cloud, of
    /// the NodePool's template, and karpenter.sh/nodepool. Empty means all.
    #[schemars(length(max = 100))]
    pub requirements: Vec<OverlayRequirement>,
    /// The price in dollars per hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = PRICE_PATTERN))]
    pub price: Option<String>,
    /// What is added to the price: a signed amount in dollars per hour such as -0.05, or a signed share such as +10%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = ADJUSTMENT_PATTERN))]
    pub price_adjustment: Option<String>,
    /// Extended resources that the nodes will have, such as those of a device plugin.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "resource_list"
    )]
    #[schemars(schema_with = "resource_list_schema")]
    #[x_kube(validation = EXTENDED_ONLY)]
    pub capacity: ResourceList,
    /// Where overlays change the same thing, the highest weight counts. Unset counts as 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub weight: Option<i32>,
}

/// Limits an overlay to instance types and offerings whose label satisfies it.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = IN_NEEDS_VALUES, validation = NOT_IN_NEEDS_VALUES, validation = BOUND_IS_ONE_INTEGER)]
pub struct OverlayRequirement {
    /// The label key.
    #[schemars(length(max = 316), regex(pattern = KEY_PATTERN))]
    #[x_kube(validation = KEY_DOMAIN, validation = KEY_HOSTNAME)]
    pub key: String,
    /// How the key relates to the values: In, NotIn, Exists, DoesNotExist, Gt, Lt, Gte or Lte.
    pub operator: Operator,
    /// At least one value for In and NotIn; one non-negative integer for Gt, Lt, Gte and Lte; none for Exists and DoesNotExist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(max = 63), regex(pattern = VALUE_PATTERN)))]
    pub values: Vec<String>,
}

impl From<&OverlayRequirement> for Requirement {
    fn from(requirement: &OverlayRequirement) -> Self {
        Self {
            key: requirement.key.clone(),
            operator: requirement.operator,
            values: requirement.values.clone(),
            min_values: None,
        }
    }
}

/// Whether an overlay is believed.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeOverlayStatus {
    /// ValidationSucceeded, which says what is wrong or with which overlay it is in conflict, and Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
