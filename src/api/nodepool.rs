//! `NodePool` (`karpenter.sh/v1`): which nodes may exist, how many, and when they end.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{
    CelRule, NodeClassRef, Requirement, ResourceList, Taint, label_map_schema, resource_list,
    resource_list_schema,
};
use super::conditions::Condition;
use super::duration::{GoDuration, NillableDuration};

pub(crate) const MODE_IS_FIXED: CelRule = (
    "has(self.replicas) == has(oldSelf.replicas)",
    "replicas cannot be added to or removed from an existing NodePool",
);
pub(crate) const STATIC_LIMITS: CelRule = (
    "!has(self.replicas) || !has(self.limits) || self.limits.all(k, k == 'nodes')",
    "only 'limits.nodes' is supported on NodePools with 'replicas'",
);
pub(crate) const STATIC_WEIGHT: CelRule = (
    "!has(self.replicas) || !has(self.weight)",
    "'weight' is not supported on NodePools with 'replicas'",
);
pub(crate) const LABEL_DOMAIN: CelRule = (
    "self.all(k, k in ['karpenter.sh/capacity-type', 'karpenter.sh/nodepool'] || !k.matches('^([^/]*[.])?karpenter[.]sh/'))",
    "label domain \"karpenter.sh\" is restricted",
);
pub(crate) const LABEL_NODEPOOL: CelRule =
    ("self.all(k, k != 'karpenter.sh/nodepool')", "label \"karpenter.sh/nodepool\" is restricted");
pub(crate) const LABEL_HOSTNAME: CelRule = (
    "self.all(k, k != 'kubernetes.io/hostname')",
    "label \"kubernetes.io/hostname\" is restricted",
);
pub(crate) const KEY_NODEPOOL: CelRule = (
    "self.all(x, x.key != 'karpenter.sh/nodepool')",
    "label \"karpenter.sh/nodepool\" is restricted",
);
pub(crate) const GROUP_IS_FIXED: CelRule =
    ("self.group == oldSelf.group", "nodeClassRef.group is immutable");
pub(crate) const KIND_IS_FIXED: CelRule =
    ("self.kind == oldSelf.kind", "nodeClassRef.kind is immutable");
pub(crate) const SCHEDULE_WITH_DURATION: CelRule =
    ("has(self.schedule) == has(self.duration)", "'schedule' must be set with 'duration'");

/// Whole hours of `expireAfter` when it is not set: 30 days.
const DEFAULT_EXPIRE_HOURS: u64 = 720;

/// Describes the nodes that may be launched for pods that would otherwise wait, and how they end.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "karpenter.sh",
    version = "v1",
    kind = "NodePool",
    plural = "nodepools",
    status = "NodePoolStatus",
    derive = "PartialEq",
    category = "karpenter",
    doc = "A NodePool says which nodes may be launched, how many, and when they end.",
    scale = r#"{"specReplicasPath":".spec.replicas","statusReplicasPath":".status.nodes"}"#,
    printcolumn(
        name = "NodeClass",
        type_ = "string",
        json_path = ".spec.template.spec.nodeClassRef.name"
    ),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".spec.weight", priority = 1),
    printcolumn(name = "CPU", type_ = "string", json_path = ".status.resources.cpu", priority = 1),
    printcolumn(
        name = "Memory",
        type_ = "string",
        json_path = ".status.resources.memory",
        priority = 1
    )
)]
#[x_kube(validation = MODE_IS_FIXED, validation = STATIC_LIMITS, validation = STATIC_WEIGHT)]
pub struct NodePoolSpec {
    /// What every NodeClaim of the pool starts from.
    pub template: NodeClaimTemplate,
    /// When and how fast nodes may be ended.
    #[serde(default)]
    pub disruption: Disruption,
    /// The most that all nodes of the pool may have together, by resource. The key `nodes` counts nodes.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "resource_list"
    )]
    #[schemars(schema_with = "resource_list_schema")]
    pub limits: ResourceList,
    /// Pools with a higher weight are tried first. Unset counts as 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: Option<i32>,
    /// Keeps this many nodes, whatever the pods need. Alpha.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i64>,
}

/// What every NodeClaim of a pool starts from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeClaimTemplate {
    /// Labels and annotations of the nodes.
    #[serde(default, skip_serializing_if = "TemplateMetadata::is_empty")]
    pub metadata: TemplateMetadata,
    /// How the nodes look.
    pub spec: NodeClaimTemplateSpec,
}

/// Labels and annotations that every node of a pool gets.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMetadata {
    /// Labels of the nodes; pods may select them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "label_map_schema")]
    #[x_kube(validation = LABEL_DOMAIN, validation = LABEL_NODEPOOL, validation = LABEL_HOSTNAME)]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the nodes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl TemplateMetadata {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

/// How the nodes of a pool look.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeClaimTemplateSpec {
    /// The class that says how nodes are built. Group and kind cannot change; the name can.
    #[x_kube(validation = GROUP_IS_FIXED, validation = KIND_IS_FIXED)]
    pub node_class_ref: NodeClassRef,
    /// Limits the instance types, zones and prices that nodes are chosen from.
    #[schemars(length(max = 100))]
    #[x_kube(validation = KEY_NODEPOOL)]
    pub requirements: Vec<Requirement>,
    /// Taints that every node keeps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub taints: Vec<Taint>,
    /// Taints that every node starts with and that an agent takes off. Pods need not tolerate them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub startup_taints: Vec<Taint>,
    /// How long a node may drain before its pods are ended, whatever protects them. Unset waits for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_grace_period: Option<GoDuration>,
    /// How long a node may live, or Never.
    #[serde(default = "default_expire_after")]
    pub expire_after: NillableDuration,
}

impl Default for NodeClaimTemplateSpec {
    fn default() -> Self {
        Self {
            node_class_ref: NodeClassRef::default(),
            requirements: Vec::new(),
            taints: Vec::new(),
            startup_taints: Vec::new(),
            termination_grace_period: None,
            expire_after: default_expire_after(),
        }
    }
}

pub(crate) fn default_expire_after() -> NillableDuration {
    NillableDuration::from_secs(DEFAULT_EXPIRE_HOURS * 3600)
}

/// When and how fast nodes may be ended.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// How long a node must be consolidatable before it goes, or Never.
    #[serde(default = "default_consolidate_after")]
    pub consolidate_after: NillableDuration,
    /// Which nodes consolidation may take.
    #[serde(default)]
    pub consolidation_policy: ConsolidationPolicy,
    /// How many nodes may be going at once. The tightest active budget counts.
    #[serde(default = "default_budgets")]
    #[schemars(length(max = 50))]
    pub budgets: Vec<Budget>,
}

impl Default for Disruption {
    fn default() -> Self {
        Self {
            consolidate_after: default_consolidate_after(),
            consolidation_policy: ConsolidationPolicy::default(),
            budgets: default_budgets(),
        }
    }
}

fn default_consolidate_after() -> NillableDuration {
    NillableDuration::from_secs(0)
}

fn default_budgets() -> Vec<Budget> {
    vec![Budget::default()]
}

/// Which nodes consolidation may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConsolidationPolicy {
    /// Nodes without pods that matter.
    WhenEmpty,
    /// Also nodes whose pods fit elsewhere for less money.
    #[default]
    WhenEmptyOrUnderutilized,
    /// As the former, where the money saved is worth the pods moved.
    Balanced,
}

/// Limits how many nodes of a pool may be going at once.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = SCHEDULE_WITH_DURATION)]
pub struct Budget {
    /// A number of nodes, or a share such as 10%.
    #[serde(default = "default_budget_nodes")]
    #[schemars(length(max = 20), regex(pattern = r"^((100|[0-9]{1,2})%|[0-9]+)$"))]
    pub nodes: String,
    /// When the budget begins to count: five cron fields in UTC, or a macro such as @daily. Unset counts always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 256),
        regex(
            pattern = r"^(@(annually|yearly|monthly|weekly|daily|midnight|hourly)|\S+\s+\S+\s+\S+\s+\S+\s+\S+)$"
        )
    )]
    pub schedule: Option<String>,
    /// How long the budget counts from then on, in hours and minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^((([0-9]+(h|m))|([0-9]+h[0-9]+m))(0s)?)$"))]
    pub duration: Option<String>,
    /// What the budget is for. Unset means every reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub reasons: Vec<DisruptionReason>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { nodes: default_budget_nodes(), schedule: None, duration: None, reasons: Vec::new() }
    }
}

fn default_budget_nodes() -> String {
    "10%".to_owned()
}

/// Why a node is ended by choice.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum DisruptionReason {
    /// Its pods fit elsewhere for less money.
    Underutilized,
    /// It has no pods that matter.
    Empty,
    /// It no longer matches its pool or its class.
    Drifted,
}

/// What is known about a pool.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePoolStatus {
    /// Capacity of all nodes of the pool together, and their number as `nodes`.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "resource_list"
    )]
    #[schemars(schema_with = "resource_list_schema")]
    pub resources: ResourceList,
    /// How many nodes the pool has.
    #[serde(default)]
    pub nodes: i64,
    /// The generation of the class that the registration health was counted for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_class_observed_generation: Option<i64>,
    /// ValidationSucceeded, NodeClassReady, Ready and NodeRegistrationHealthy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
