//! `harbinger.sh/v1alpha1` RequestPolicy: what happens to pods without resource requests.
#![expect(unreachable_pub, reason = "the KubeSchema derive repeats each struct in a private scope")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::Condition;
use crate::model::labels::LabelSelector;
use crate::model::quantity::Quantity;

/// What happens to containers that ask for nothing.
///
/// Policies are tried in order of `priority` (higher first), then of name; for each container and
/// resource the first rule of a matching policy decides.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "harbinger.sh",
    version = "v1alpha1",
    kind = "RequestPolicy",
    plural = "requestpolicies",
    shortname = "rqp",
    category = "harbinger",
    status = "RequestPolicyStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct RequestPolicySpec {
    /// Which pods and containers are meant; all when absent.
    #[serde(default, rename = "match")]
    pub matches: PolicyMatch,
    /// What happens, by resource.
    #[schemars(length(min = 1, max = 10))]
    #[x_kube(validation = ("self.all(x, self.exists_one(y, y.resource == x.resource))", "each resource may have one rule only"))]
    pub rules: Vec<PolicyRule>,
    /// Whether an explicit request of 0 counts as missing.
    #[serde(default = "yes")]
    pub zero_means_missing: bool,
    /// Whether the annotation `harbinger.sh/request-policy: skip` on a pod exempts it.
    #[serde(default)]
    pub allow_opt_out: bool,
    /// Order among policies; higher is tried first.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
    /// Added to warnings and denials, for example where to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub message: Option<String>,
}

fn yes() -> bool {
    true
}

/// Which pods and containers a policy means. All given parts must match.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyMatch {
    /// Labels of the namespace (`kubernetes.io/metadata.name` is its name).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector_schema")]
    pub namespace_selector: Option<LabelSelector>,
    /// Labels of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector_schema")]
    pub object_selector: Option<LabelSelector>,
    /// Kinds of the controlling owner, such as `ReplicaSet`; `Pod` means pods without an owner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub owner_kinds: Vec<String>,
    /// Names of containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub container_names: Vec<String>,
    /// Kinds of containers. When absent: `Main` and `Sidecar`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub container_kinds: Vec<ContainerKind>,
}

fn selector_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as Wire;
    <Wire as JsonSchema>::json_schema(generator)
}

/// Kinds of containers.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum ContainerKind {
    /// `spec.containers`.
    Main,
    /// Init containers that end before the main ones start.
    Init,
    /// Init containers with `restartPolicy: Always`.
    Sidecar,
}

/// What happens when one resource's request is missing.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.action != 'Default' || has(self.default)", "action Default needs a value in 'default'"))]
pub struct PolicyRule {
    /// Resource.
    pub resource: PolicyResource,
    /// What happens.
    pub action: PolicyAction,
    /// Request to write; with `Deny` and `Warn` it is the value that the message proposes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Quantity>,
    /// Until this moment `Deny` only warns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub enforce_from: Option<String>,
}

/// Resources that policies speak of.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyResource {
    /// CPU.
    Cpu,
    /// Memory.
    Memory,
    /// Local ephemeral storage.
    EphemeralStorage,
}

impl PolicyResource {
    /// The resource's name in requests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::EphemeralStorage => "ephemeral-storage",
        }
    }
}

/// What happens to a container without a request.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum PolicyAction {
    /// Nothing.
    Off,
    /// It is counted.
    Shadow,
    /// The user is warned.
    Warn,
    /// The request is written.
    Default,
    /// The pod is refused.
    Deny,
}

/// What Harbinger says of a policy.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestPolicyStatus {
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
