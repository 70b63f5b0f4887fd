//! `RequestPolicy` (`harbinger.sh/v1alpha1`): what happens to pods that ask for no cpu or no memory.
//!
//! One policy judges one resource of one container at most once. Several policies that match are ordered by
//! priority, higher first, then by name; the first that has a rule for the resource decides.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{CelRule, optional_quantity, quantity_schema};
use super::conditions::Condition;

pub(crate) const DEFAULT_NEEDS_VALUE: CelRule = (
    "!(self.action in ['Default', 'DefaultAndVerify']) || has(self.default)",
    "a rule with action 'Default' or 'DefaultAndVerify' must have a 'default'",
);
pub(crate) const VALUE_NEEDS_USE: CelRule = (
    "!has(self.default) || self.action in ['Default', 'DefaultAndVerify', 'Shadow', 'Off']",
    "'default' has no effect with this action",
);
pub(crate) const LEARNED_RESOURCES: CelRule = (
    "!has(self.learned) || self.resource in ['cpu', 'memory']",
    "'learned' knows cpu and memory only",
);
pub(crate) const EXEMPT_NEEDS_OPT_OUT: CelRule = (
    "!has(self.exempt) || (has(self.allowOptOut) && self.allowOptOut)",
    "'exempt' has no effect without 'allowOptOut: true'",
);

/// What happens to pods that ask for no cpu, memory or ephemeral storage.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = EXEMPT_NEEDS_OPT_OUT)]
#[kube(
    group = "harbinger.sh",
    version = "v1alpha1",
    kind = "RequestPolicy",
    plural = "requestpolicies",
    status = "RequestPolicyStatus",
    derive = "PartialEq",
    shortname = "reqpol",
    category = "harbinger",
    doc = "A RequestPolicy says what happens to pods without resource requests.",
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(name = "Rules", type_ = "string", json_path = ".status.rules"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Changed", type_ = "integer", json_path = ".status.counts.changed"),
    printcolumn(name = "Warned", type_ = "integer", json_path = ".status.counts.warned"),
    printcolumn(name = "Denied", type_ = "integer", json_path = ".status.counts.denied"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct RequestPolicySpec {
    /// Which containers are judged. Empty means all.
    #[serde(rename = "match", default, skip_serializing_if = "PolicyMatch::is_empty")]
    pub matches: PolicyMatch,
    /// Expressions in CEL that must all be true. They read `object` (the pod), `request` (namespace, userInfo) and
    /// `namespaceObject` (name and labels). One that fails keeps the policy from judging the pod, and is told in the status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub match_conditions: Vec<MatchCondition>,
    /// What to do for each resource.
    #[schemars(length(min = 1, max = 10), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["resource"]))]
    pub rules: Vec<PolicyRule>,
    /// Whether a request of zero counts as none, as the scheduler sees it.
    #[serde(default = "yes")]
    pub zero_means_missing: bool,
    /// Whether pods may be exempt: by the annotation `harbinger.sh/request-policy: skip`, or by who makes them.
    #[serde(default)]
    pub allow_opt_out: bool,
    /// Who makes pods that are exempt. Pods of workloads are made by their controllers, not by people.
    #[serde(default, skip_serializing_if = "Exempt::is_empty")]
    pub exempt: Exempt,
    /// Seconds that containers with ports sleep before they are told to end, where they have no `preStop` hook and the grace
    /// period of the pod leaves ten seconds more. Needs Kubernetes 1.30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 300))]
    pub pre_stop_sleep_seconds: Option<u32>,
    /// Policies are asked in order of priority, higher first, then of name.
    #[serde(default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i32,
    /// Added to warnings and denials. `{namespace}`, `{pod}`, `{container}`, `{resource}`, `{field}`, `{value}` and `{policy}` are
    /// filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
    /// Codes of advice that is not given about the workloads that the policy matches, such as HB102; `*` means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(regex(pattern = r"^(\*|HB[0-9]{3})$")), extend("x-kubernetes-list-type" = "set"))]
    pub silence_advice: Vec<String>,
}

fn yes() -> bool {
    true
}

/// Which containers of which pods a policy judges. Every part that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyMatch {
    /// Selects namespaces by label. `kubernetes.io/metadata.name` is always there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Selects pods by label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_selector: Option<LabelSelector>,
    /// Kinds of the workload that the pod belongs to, such as Deployment or Job; `Pod` is a pod without an owner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub owner_kinds: Vec<String>,
    /// Names of containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub container_names: Vec<String>,
    /// Kinds of containers. Unset means Main and Sidecar: an init container rarely changes what a pod needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub container_kinds: Vec<ContainerKind>,
    /// Images of containers as they are written, with `*` for any characters: `registry.example.com/*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "set"))]
    pub images: Vec<String>,
    /// Names of priority classes of pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub priority_classes: Vec<String>,
}

/// An expression that must be true.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MatchCondition {
    /// Name of the condition, for messages.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Expression in CEL that is true or false.
    #[schemars(length(min = 1, max = 2048))]
    pub expression: String,
}

/// Who makes pods that are exempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exempt {
    /// Names of users and service accounts, such as `system:serviceaccount:ci:runner`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub users: Vec<String>,
    /// Groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub groups: Vec<String>,
}

impl Exempt {
    /// Whether it is nobody.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl PolicyMatch {
    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The part that a container plays in its pod.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum ContainerKind {
    /// Runs for the life of the pod.
    Main,
    /// Runs before the others and ends.
    Init,
    /// Starts with the init containers and keeps running.
    Sidecar,
}

/// What to do about one resource.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = DEFAULT_NEEDS_VALUE, validation = VALUE_NEEDS_USE, validation = LEARNED_RESOURCES)]
pub struct PolicyRule {
    /// The resource that a container does not ask for.
    pub resource: PolicyResource,
    /// What to do then.
    pub action: PolicyAction,
    /// The request to write with action Default or DefaultAndVerify; with Shadow, the one that would be written.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_quantity"
    )]
    #[schemars(schema_with = "quantity_schema")]
    pub default: Option<Quantity>,
    /// Take the request from what the container used before, as far as that is known; `default` where it is not. Warnings and
    /// refusals suggest it too. cpu and memory only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned: Option<LearnedRequest>,
    /// Before this moment Deny, Default and DefaultAndVerify only warn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforce_from: Option<Time>,
}

/// How a request is learned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LearnedRequest {
    /// How much worse it is to ask for too little than for too much of the same size. The request covers the share
    /// underCost / (underCost + 1) of what was seen: 9 means nine tenths, 19 means 95 %. Unset means 9 for cpu and 19 for memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub under_cost: Option<i32>,
    /// The least that a learned request may be.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_quantity"
    )]
    #[schemars(schema_with = "quantity_schema")]
    pub min: Option<Quantity>,
    /// The most that a learned request may be.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_quantity"
    )]
    #[schemars(schema_with = "quantity_schema")]
    pub max: Option<Quantity>,
}

/// Resources that a policy can ask for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyResource {
    /// Processor time.
    Cpu,
    /// Memory.
    Memory,
    /// Disk of the node.
    EphemeralStorage,
}

impl PolicyResource {
    /// The name that containers use for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::EphemeralStorage => "ephemeral-storage",
        }
    }
}

/// What to do about a request that is missing.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum PolicyAction {
    /// Nothing; policies of lower priority are not asked.
    Off,
    /// Only count what would be done.
    Shadow,
    /// Let the pod in and tell its author.
    Warn,
    /// Write the default.
    Default,
    /// Write the default, and refuse a pod that has lost it, or was never asked about, at the end of admission.
    DefaultAndVerify,
    /// Refuse the pod.
    Deny,
}

/// What a policy did.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestPolicyStatus {
    /// The generation that is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What the rules do now, such as `cpu=Default(100m) memory=Warn(Deny from 2026-03-01)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<String>,
    /// What the policy did since `countsSince`.
    #[serde(default)]
    pub counts: PolicyCounts,
    /// When counting began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts_since: Option<Time>,
    /// The last pods that lacked requests, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub last_offenders: Vec<Offender>,
    /// ValidationSucceeded, ConditionsEvaluated and Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Pods by what a policy did to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyCounts {
    /// Judged.
    #[serde(default)]
    pub matched: i64,
    /// Would have been changed or refused.
    #[serde(default)]
    pub shadowed: i64,
    /// Let in with a warning.
    #[serde(default)]
    pub warned: i64,
    /// Given a request.
    #[serde(default)]
    pub changed: i64,
    /// Refused.
    #[serde(default)]
    pub denied: i64,
    /// Not judged, because a condition could not be evaluated.
    #[serde(default)]
    pub failed: i64,
}

/// A pod that lacked requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Offender {
    /// Namespace and workload, or pod, such as `shop/Deployment/web`.
    pub name: String,
    /// What was missing, such as `app: cpu, memory`.
    pub missing: String,
    /// What was done: the strictest action.
    pub action: PolicyAction,
    /// When it came.
    pub time: Time,
}
