//! Parts that several kinds share: requirements, taints, class references, quantities.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// Amounts by resource name, as Kubernetes writes them.
pub type ResourceList = BTreeMap<String, Quantity>;

/// One CEL rule: the expression, and the message of a violation.
pub(crate) type CelRule = (&'static str, &'static str);

/// What Kubernetes accepts as an amount.
pub(crate) const QUANTITY_PATTERN: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";
/// A label key: an optional DNS prefix and a name.
pub(crate) const KEY_PATTERN: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*(\/))?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$";
/// A label value.
pub(crate) const VALUE_PATTERN: &str = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
/// A taint value: a label value, or the qualified form that older pools carry.
pub(crate) const TAINT_VALUE_PATTERN: &str = r"^(([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*(\/))?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";

pub(crate) const KEY_DOMAIN: CelRule = (
    "self in ['karpenter.sh/capacity-type', 'karpenter.sh/nodepool'] || !self.matches('^([^/]*[.])?karpenter[.]sh/')",
    "label domain \"karpenter.sh\" is restricted",
);
pub(crate) const KEY_HOSTNAME: CelRule =
    ("self != 'kubernetes.io/hostname'", "label \"kubernetes.io/hostname\" is restricted");
pub(crate) const IN_NEEDS_VALUES: CelRule = (
    "self.operator != 'In' || (has(self.values) && self.values.size() != 0)",
    "requirements with operator 'In' must have a value defined",
);
pub(crate) const BOUND_IS_ONE_INTEGER: CelRule = (
    "!(self.operator in ['Gt', 'Lt', 'Gte', 'Lte']) || (has(self.values) && self.values.size() == 1 && self.values[0].matches('^[0-9]{1,18}$'))",
    "requirements with operator 'Gt', 'Lt', 'Gte' or 'Lte' must have a single non-negative integer value",
);
pub(crate) const ENOUGH_FOR_MIN_VALUES: CelRule = (
    "self.operator != 'In' || !has(self.minValues) || (has(self.values) && self.values.size() >= self.minValues)",
    "requirements with 'minValues' must have at least that many values specified in the 'values' field",
);
pub(crate) const GROUP_NOT_EMPTY: CelRule = ("self != ''", "group may not be empty");
pub(crate) const KIND_NOT_EMPTY: CelRule = ("self != ''", "kind may not be empty");
pub(crate) const NAME_NOT_EMPTY: CelRule = ("self != ''", "name may not be empty");

/// How a key relates to the values of a requirement.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Operator {
    /// One of the values.
    In,
    /// None of the values; an absent label passes.
    NotIn,
    /// Any value.
    Exists,
    /// No such label.
    DoesNotExist,
    /// An integer above the value.
    Gt,
    /// An integer below the value.
    Lt,
    /// An integer not below the value.
    Gte,
    /// An integer not above the value.
    Lte,
}

/// Limits the nodes to those whose label satisfies it.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = IN_NEEDS_VALUES, validation = BOUND_IS_ONE_INTEGER, validation = ENOUGH_FOR_MIN_VALUES)]
pub struct Requirement {
    /// The label key.
    #[schemars(length(max = 316), regex(pattern = KEY_PATTERN))]
    #[x_kube(validation = KEY_DOMAIN, validation = KEY_HOSTNAME)]
    pub key: String,
    /// How the key relates to the values: In, NotIn, Exists, DoesNotExist, Gt, Lt, Gte or Lte.
    pub operator: Operator,
    /// At least one value for In; one non-negative integer for Gt, Lt, Gte and Lte; none for Exists and DoesNotExist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(max = 63), regex(pattern = VALUE_PATTERN)))]
    pub values: Vec<String>,
    /// How many different values must stay possible when instance types are chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50))]
    pub min_values: Option<i32>,
}

/// What a taint does to pods that do not tolerate it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Effect {
    /// No new pods.
    NoSchedule,
    /// New pods only when there is nothing better.
    PreferNoSchedule,
    /// No new pods, and running pods leave.
    NoExecute,
}

/// Keeps pods that do not tolerate it away from a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    /// The taint key.
    #[schemars(length(min = 1, max = 316), regex(pattern = KEY_PATTERN))]
    pub key: String,
    /// The taint value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 316), regex(pattern = TAINT_VALUE_PATTERN))]
    pub value: Option<String>,
    /// NoSchedule, PreferNoSchedule or NoExecute.
    pub effect: Effect,
    /// When the taint was added; written only for NoExecute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_added: Option<Time>,
}

/// Names the class that says how nodes are built.
#[derive(
    KubeSchema, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub struct NodeClassRef {
    /// API group of the class, such as karpenter.k8s.aws.
    #[schemars(length(max = 253), regex(pattern = r"^[^/]*$"))]
    #[x_kube(validation = GROUP_NOT_EMPTY)]
    pub group: String,
    /// Kind of the class, such as EC2NodeClass.
    #[schemars(length(max = 63))]
    #[x_kube(validation = KIND_NOT_EMPTY)]
    pub kind: String,
    /// Name of the class.
    #[schemars(length(max = 253))]
    #[x_kube(validation = NAME_NOT_EMPTY)]
    pub name: String,
}

/// The schema of one amount: a number or a text such as 500m or 2Gi.
pub(crate) fn quantity_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-int-or-string": true, "pattern": QUANTITY_PATTERN})
}

/// The schema of a map of amounts. At most 100 entries, so that rules over it have a bounded cost.
pub(crate) fn resource_list_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 100,
        "additionalProperties": {"x-kubernetes-int-or-string": true, "pattern": QUANTITY_PATTERN},
    })
}

/// The schema of a map of label values. At most 100 entries.
pub(crate) fn label_map_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 100,
        "additionalProperties": {"type": "string", "maxLength": 63, "pattern": VALUE_PATTERN},
    })
}

/// An amount as the API server keeps it: what the user wrote, text or number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Amount {
    Text(String),
    Integer(i64),
    Float(f64),
}

impl From<Amount> for Quantity {
    fn from(amount: Amount) -> Self {
        Self(match amount {
            Amount::Text(text) => text,
            Amount::Integer(number) => number.to_string(),
            Amount::Float(number) => number.to_string(),
        })
    }
}

/// Reads a map of amounts; the API server keeps `cpu: 1000` as a number.
pub(crate) fn resource_list<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<ResourceList, D::Error> {
    let amounts = BTreeMap::<String, Amount>::deserialize(deserializer)?;
    Ok(amounts.into_iter().map(|(name, amount)| (name, amount.into())).collect())
}

/// Reads one amount that may be absent.
pub(crate) fn optional_quantity<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Quantity>, D::Error> {
    Ok(Option::<Amount>::deserialize(deserializer)?.map(Quantity::from))
}
