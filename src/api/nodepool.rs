//! `karpenter.sh/v1` NodePool.
#![expect(unreachable_pub, reason = "the KubeSchema derive repeats each struct in a private scope")]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Condition, NillableDuration, NodeClassRef, RequirementSpec, TaintSpec};
use crate::model::quantity::Quantity;

/// Which nodes may be bought, and when they are ended.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "karpenter.sh",
    version = "v1",
    kind = "NodePool",
    plural = "nodepools",
    category = "karpenter",
    status = "NodePoolStatus",
    derive = "PartialEq",
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.nodes"),
    printcolumn(
        name = "NodeClass",
        type_ = "string",
        json_path = ".spec.template.spec.nodeClassRef.name"
    ),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.resources.nodes"),
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
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.replicas) == has(oldSelf.replicas)", "Cannot transition NodePool between static (replicas set) and dynamic (replicas unset) provisioning modes"),
    validation = ("!has(self.replicas) || (!has(self.limits) || self.limits.all(x, x == 'nodes'))", "only 'limits.nodes' is supported on static NodePools"),
    validation = ("!has(self.replicas) || !has(self.weight)", "'weight' is not supported on static NodePools")
)]
pub struct NodePoolSpec {
    /// What the nodes are like.
    pub template: NodeTemplate,
    /// When nodes may be ended.
    #[serde(default)]
    pub disruption: Disruption,
    /// The most that all nodes of the pool may have together, compared with their capacity. The
    /// name `nodes` limits their count.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    pub limits: BTreeMap<String, Quantity>,
    /// Heavier pools are preferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: Option<i32>,
    /// A fixed count of nodes, whatever the demand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i64>,
}

/// What the nodes of a pool are like.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeTemplate {
    /// Labels and annotations of the nodes.
    #[serde(default)]
    pub metadata: TemplateMetadata,
    /// Settings of the nodes.
    pub spec: NodeTemplateSpec,
}

/// Labels and annotations of the nodes of a pool.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMetadata {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    #[x_kube(
        validation = ("self.all(x, x in ['karpenter.sh/capacity-type'] || !x.find('^([^/]+)').endsWith('karpenter.sh'))", "label domain \"karpenter.sh\" is restricted"),
        validation = ("self.all(x, x != 'kubernetes.io/hostname')", "label \"kubernetes.io/hostname\" is restricted"),
        validation = ("self.all(x, self[x].size() <= 63 && self[x].matches('^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$'))", "label values must be at most 63 characters of letters, digits, '-', '_' and '.'")
    )]
    pub labels: BTreeMap<String, LabelText>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Text of a label, bounded so that rules on it have a bounded cost.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(transparent)]
#[schemars(inline)]
pub struct LabelText(#[schemars(length(max = 63))] pub String);

/// Settings of the nodes of a pool.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeTemplateSpec {
    /// Class that holds the cloud's settings.
    #[x_kube(
        validation = ("self.group == oldSelf.group", "nodeClassRef.group is immutable"),
        validation = ("self.kind == oldSelf.kind", "nodeClassRef.kind is immutable")
    )]
    pub node_class_ref: NodeClassRef,
    /// What the nodes' labels must be.
    #[schemars(length(max = 100))]
    #[x_kube(validation = ("self.all(x, x.key != 'karpenter.sh/nodepool')", "label \"karpenter.sh/nodepool\" is restricted"))]
    pub requirements: Vec<RequirementSpec>,
    /// Taints that stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub taints: Vec<TaintSpec>,
    /// Taints that some agent takes off once the node has started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub startup_taints: Vec<TaintSpec>,
    /// Age at which a node is replaced.
    #[serde(default = "default_expiry")]
    pub expire_after: NillableDuration,
    /// Longest drain; without it a drain may take for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^([0-9]+(s|m|h))+$"))]
    pub termination_grace_period: Option<String>,
}

/// 30 days, Karpenter's default.
pub fn default_expiry() -> NillableDuration {
    NillableDuration::Seconds(720 * 3600)
}

/// When nodes may be ended.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// How long a node must be without change of its pods before it is looked at.
    #[serde(default = "at_once")]
    pub consolidate_after: NillableDuration,
    /// Which nodes are looked at.
    #[serde(default)]
    pub consolidation_policy: ConsolidationPolicySpec,
    /// How many nodes may be disrupted at the same time, and when.
    #[serde(default = "default_budgets")]
    #[schemars(length(max = 50))]
    pub budgets: Vec<Budget>,
}

fn at_once() -> NillableDuration {
    NillableDuration::Seconds(0)
}

fn default_budgets() -> Vec<Budget> {
    vec![Budget { nodes: default_budget_nodes(), ..Budget::default() }]
}

fn default_budget_nodes() -> String {
    "10%".to_owned()
}

impl Default for Disruption {
    fn default() -> Self {
        Self {
            consolidate_after: at_once(),
            consolidation_policy: ConsolidationPolicySpec::default(),
            budgets: default_budgets(),
        }
    }
}

/// Which nodes may be ended to save money.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ConsolidationPolicySpec {
    /// Nodes without pods.
    WhenEmpty,
    /// Also nodes whose pods fit elsewhere or on a cheaper node.
    #[default]
    WhenEmptyOrUnderutilized,
    /// As above, weighing the saving against the disruption.
    Balanced,
}

/// A bound on voluntary disruption.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.schedule) == has(self.duration)", "'schedule' must be set with 'duration'"))]
pub struct Budget {
    /// Count or percentage of the pool's nodes.
    #[serde(default = "default_budget_nodes")]
    #[schemars(regex(pattern = "^((100|[0-9]{1,2})%|[0-9]+)$"))]
    pub nodes: String,
    /// When the budget begins: five cron fields in UTC, or a macro such as `@daily`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(
        pattern = r"^(@(annually|yearly|monthly|weekly|daily|midnight|hourly))|((.+)\s(.+)\s(.+)\s(.+)\s(.+))$"
    ))]
    pub schedule: Option<String>,
    /// How long it lasts, in hours and minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^((([0-9]+(h|m))|([0-9]+h[0-9]+m))(0s)?)$"))]
    pub duration: Option<String>,
    /// Reasons that it bounds; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 50))]
    pub reasons: Option<Vec<DisruptionReason>>,
}

/// Why a node is disrupted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum DisruptionReason {
    /// Its pods fit elsewhere.
    Underutilized,
    /// It has no pods.
    Empty,
    /// It differs from what the pool now asks.
    Drifted,
}

/// What Harbinger says of a pool.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePoolStatus {
    /// Capacity of all nodes, and their count under `nodes`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, Quantity>,
    /// Count of nodes.
    #[serde(default)]
    pub nodes: i64,
    /// Generation of the class that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_class_observed_generation: Option<i64>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
