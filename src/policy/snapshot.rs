//! The immutable state that decisions read: compiled policies and the labels of namespaces.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::model::labels::{LabelSelector, Labels};
use crate::model::resources::{CPU, EPHEMERAL_STORAGE, MEMORY};

/// Label that the API server keeps on every namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// What a rule does about a missing request, mildest first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Action {
    /// Nothing; later policies are not asked.
    Off,
    /// Record what `Default` would do, without doing or saying it.
    Shadow,
    /// Warn the user.
    Warn,
    /// Set the request.
    Default,
    /// Refuse the pod.
    Deny,
}

impl Action {
    /// The name in metrics and audit annotations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Shadow => "shadow",
            Self::Warn => "warn",
            Self::Default => "default",
            Self::Deny => "deny",
        }
    }
}

/// Role of a container in its pod.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ContainerKind {
    /// A container that runs for the pod's life.
    Main,
    /// An init container that ends before the main containers start.
    Init,
    /// An init container that keeps running (`restartPolicy: Always`).
    Sidecar,
}

impl ContainerKind {
    /// How messages call such a container.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Main => "container",
            Self::Init => "init container",
            Self::Sidecar => "sidecar",
        }
    }
}

/// A resource whose request a rule may demand.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Resource {
    /// Millicores.
    Cpu,
    /// Bytes.
    Memory,
    /// Bytes.
    EphemeralStorage,
}

impl Resource {
    /// All of them, in the order of messages.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::EphemeralStorage];

    /// The Kubernetes name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => CPU,
            Self::Memory => MEMORY,
            Self::EphemeralStorage => EPHEMERAL_STORAGE,
        }
    }

    /// Reads the Kubernetes name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.name() == name)
    }

    /// A modest amount to suggest where the policy names none: 100m, 128Mi, 1Gi.
    pub const fn suggestion(self) -> i64 {
        match self {
            Self::Cpu => 100,
            Self::Memory => 128 << 20,
            Self::EphemeralStorage => 1 << 30,
        }
    }

    /// Whether `spec.resources` of a pod may set it.
    pub const fn has_pod_level(self) -> bool {
        !matches!(self, Self::EphemeralStorage)
    }
}

/// What one policy does about one resource.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The resource.
    pub resource: Resource,
    /// What is done about a missing request.
    pub action: Action,
    /// Request that `Default` sets, `Shadow` would set and the others suggest; millicores or bytes,
    /// above zero. Absent means [`Resource::suggestion`].
    pub amount: Option<i64>,
    /// Before this time `Default` and `Deny` only warn.
    pub enforce_from: Option<Timestamp>,
}

/// A compiled `RequestPolicy`.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Name of the object.
    pub name: Arc<str>,
    /// Higher is asked first.
    pub priority: i32,
    /// Namespaces; absent means all.
    pub namespaces: Option<LabelSelector>,
    /// Pods by their labels; absent means all.
    pub objects: Option<LabelSelector>,
    /// Kinds of owners (`Deployment`, `ReplicaSet`, `Job`…, `Pod` for bare pods); empty means all.
    pub owner_kinds: Vec<String>,
    /// Names of containers; empty means all.
    pub container_names: Vec<String>,
    /// Roles of containers that are judged.
    pub container_kinds: Vec<ContainerKind>,
    /// Rules, at most one per resource.
    pub rules: Vec<Rule>,
    /// Whether an explicit zero counts as missing.
    pub zero_means_missing: bool,
    /// Whether the opt-out annotation is honoured.
    pub allow_opt_out: bool,
    /// What is added to denials and warnings, with placeholders.
    pub message: Option<String>,
    /// Codes of advice that is not given about workloads that it selects; `*` means all.
    pub silence: Vec<String>,
}

/// All that decisions read. Built by one writer, shared as an `Arc`.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    version: String,
    policies: Vec<Policy>,
    namespaces: BTreeMap<String, Labels>,
    exempt: BTreeSet<String>,
}

impl Snapshot {
    /// A snapshot of `policies` in any order.
    ///
    /// `version` identifies it in audit annotations; `namespaces` holds the labels of all known
    /// namespaces; pods in `exempt` namespaces are never touched.
    pub fn new(
        version: impl Into<String>,
        mut policies: Vec<Policy>,
        namespaces: BTreeMap<String, Labels>,
        exempt: BTreeSet<String>,
    ) -> Self {
        policies
            .sort_by(|a, b| (Reverse(a.priority), &a.name).cmp(&(Reverse(b.priority), &b.name)));
        Self { version: version.into(), policies, namespaces, exempt }
    }

    /// Identifies the snapshot.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The policies in the order in which they are asked.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// Whether pods of the namespace are never touched.
    pub fn is_exempt(&self, namespace: &str) -> bool {
        self.exempt.contains(namespace)
    }

    /// Codes of advice that some policy silences for a workload, whose pods have these labels.
    pub fn silenced(&self, namespace: &str, labels: &Labels, kind: &str) -> Vec<&str> {
        if self.policies.iter().all(|policy| policy.silence.is_empty()) {
            return Vec::new();
        }
        let selects = |policy: &&Policy| {
            policy.objects.as_ref().is_none_or(|selector| selector.matches(labels))
                && (policy.owner_kinds.is_empty() || policy.owner_kinds.iter().any(|k| k == kind))
        };
        let mut codes = Vec::new();
        for policy in self.policies.iter().filter(|policy| !policy.silence.is_empty()) {
            let here = self.for_namespace(namespace).any(|other| other.name == policy.name);
            if here && selects(&policy) {
                codes.extend(policy.silence.iter().map(String::as_str));
            }
        }
        codes
    }

    /// The policies that select the namespace, in order.
    ///
    /// A namespace that the watch has not shown yet has only its name. A selector on other labels
    /// does not select it: doing nothing for a moment is the lesser mistake.
    pub(super) fn for_namespace<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Policy> {
        let known = self.namespaces.get(namespace);
        let labels: Cow<'a, Labels> = match known {
            Some(labels) if labels.contains_key(NAMESPACE_NAME) => Cow::Borrowed(labels),
            _ => {
                let mut labels = known.cloned().unwrap_or_default();
                labels.insert(NAMESPACE_NAME.to_owned(), namespace.to_owned());
                Cow::Owned(labels)
            }
        };
        self.policies.iter().filter(move |policy| match &policy.namespaces {
            None => true,
            Some(selector) => {
                (known.is_some() || only_names(selector)) && selector.matches(&labels)
            }
        })
    }
}

/// Whether the selector can be judged from a namespace's name alone.
fn only_names(selector: &LabelSelector) -> bool {
    selector.match_labels.keys().all(|key| key == NAMESPACE_NAME)
        && selector.match_expressions.iter().all(|expression| expression.key == NAMESPACE_NAME)
}
