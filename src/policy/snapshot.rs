//! The immutable state that decisions read: compiled policies, the labels and bounds of namespaces,
//! what new nodes leave.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use regex::Regex;

use super::bounds::Bounds;
use super::condition::Condition;
use crate::guard::Guard;
use crate::model::labels::{LabelSelector, Labels};
use crate::model::resources::{CPU, EPHEMERAL_STORAGE, MEMORY, Resources};
use crate::model::room::PoolRooms;
use crate::usage::{Estimates, Measure};

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
    /// Set the request, and refuse a pod that arrives without it at the end of admission.
    DefaultAndVerify,
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
            Self::DefaultAndVerify => "default_and_verify",
            Self::Deny => "deny",
        }
    }

    /// The name in the API and on the command line.
    pub const fn api_name(self) -> &'static str {
        match self {
            Self::Off => "Off",
            Self::Shadow => "Shadow",
            Self::Warn => "Warn",
            Self::Default => "Default",
            Self::DefaultAndVerify => "DefaultAndVerify",
            Self::Deny => "Deny",
        }
    }

    /// Whether it writes requests.
    pub const fn sets(self) -> bool {
        matches!(self, Self::Default | Self::DefaultAndVerify)
    }

    /// The action under a cap. A refusal becomes a warning, never a change that nobody asked for.
    #[must_use]
    pub fn capped(self, cap: Self) -> Self {
        if self == Self::Deny && cap.sets() { Self::Warn } else { self.min(cap) }
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

    /// Shares below this are not worth having: containers that get less do not start. Millicores or
    /// bytes.
    pub(super) const fn floor(self) -> i64 {
        match self {
            Self::Cpu => 10,
            Self::Memory | Self::EphemeralStorage => 32 << 20,
        }
    }

    /// The amount rounded down to what people write: whole mebibytes above one.
    pub(super) const fn rounded(self, amount: i64) -> i64 {
        const MEBI: i64 = 1 << 20;
        match self {
            Self::Memory | Self::EphemeralStorage if amount > MEBI => amount / MEBI * MEBI,
            _ => amount,
        }
    }

    /// The amount as a Kubernetes quantity.
    pub fn format(self, amount: i64) -> String {
        Resources::format_amount(self.name(), amount)
    }
}

/// How an amount is learned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Learned {
    /// What is learned.
    pub measure: Measure,
    /// What an under-request costs in over-requests, at least 1.
    pub under_cost: u32,
    /// The least amount; millicores or bytes.
    pub min: Option<i64>,
    /// The most.
    pub max: Option<i64>,
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
    /// Whether, and how, the amount is learned where something is known of the container.
    pub learned: Option<Learned>,
    /// Before this time what is above `Warn` only warns.
    pub enforce_from: Option<Timestamp>,
}

impl Rule {
    /// What the rule does at a time under a cap, and what it will do from when.
    pub fn action_at(&self, now: Timestamp, cap: Action) -> (Action, Option<(Action, Timestamp)>) {
        let action = self.action.capped(cap);
        match self.enforce_from {
            Some(from) if now < from && action > Action::Warn => {
                (Action::Warn, Some((action, from)))
            }
            _ => (action, None),
        }
    }
}

/// A compiled `RequestPolicy`.
#[derive(Clone, Debug, Default)]
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
    /// Images of containers; empty means all.
    pub images: Vec<Regex>,
    /// Priority classes of pods; empty means all.
    pub priority_classes: Vec<String>,
    /// What must hold of the pod beside all that.
    pub conditions: Vec<Condition>,
    /// Rules, at most one per resource.
    pub rules: Vec<Rule>,
    /// How long containers that serve sleep before they end, seconds.
    pub pre_stop_sleep: Option<u32>,
    /// Whether an explicit zero counts as missing.
    pub zero_means_missing: bool,
    /// Whether the opt-out annotation is honoured.
    pub allow_opt_out: bool,
    /// Users whose pods are exempt.
    pub exempt_users: Vec<String>,
    /// Groups whose members' pods are exempt.
    pub exempt_groups: Vec<String>,
    /// What is added to denials and warnings, with placeholders.
    pub message: Option<String>,
    /// Codes of advice that is not given about workloads that it selects; `*` means all.
    pub silence: Vec<String>,
}

/// All that decisions read. Built by one writer, shared as an `Arc`.
#[derive(Clone, Debug)]
pub struct Snapshot {
    version: String,
    policies: Vec<Policy>,
    namespaces: Arc<BTreeMap<String, Labels>>,
    exempt: BTreeSet<String>,
    max_action: Action,
    bounds: BTreeMap<Arc<str>, Arc<Bounds>>,
    rooms: Arc<[PoolRooms]>,
    guard: Arc<Guard>,
    estimates: Arc<Estimates>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::new("", Vec::new(), Arc::default(), BTreeSet::new())
    }
}

impl Snapshot {
    /// A snapshot of `policies` in any order.
    ///
    /// `version` identifies it in audit annotations; `namespaces` holds the labels of all known
    /// namespaces; pods in `exempt` namespaces are never touched.
    pub fn new(
        version: impl Into<String>,
        mut policies: Vec<Policy>,
        namespaces: Arc<BTreeMap<String, Labels>>,
        exempt: BTreeSet<String>,
    ) -> Self {
        policies
            .sort_by(|a, b| (Reverse(a.priority), &a.name).cmp(&(Reverse(b.priority), &b.name)));
        Self {
            version: version.into(),
            policies,
            namespaces,
            exempt,
            max_action: Action::Deny,
            bounds: BTreeMap::new(),
            rooms: Arc::new([]),
            guard: Arc::default(),
            estimates: Arc::default(),
        }
    }

    /// Caps what every rule may do.
    #[must_use]
    pub fn with_max_action(mut self, cap: Action) -> Self {
        self.max_action = cap;
        self
    }

    /// Adds LimitRanges and ResourceQuotas, by namespace.
    #[must_use]
    pub fn with_bounds(mut self, bounds: BTreeMap<Arc<str>, Arc<Bounds>>) -> Self {
        self.bounds = bounds;
        self
    }

    /// Adds what the nodes that can be bought leave for a pod beside DaemonSets, by pool.
    #[must_use]
    pub fn with_rooms(mut self, rooms: Arc<[PoolRooms]>) -> Self {
        self.rooms = rooms;
        self
    }

    /// Adds what failed pods tell of the next ones.
    #[must_use]
    pub fn with_guard(mut self, guard: Arc<Guard>) -> Self {
        self.guard = guard;
        self
    }

    /// What failed pods tell of the next ones.
    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Adds what was learned of containers.
    #[must_use]
    pub fn with_estimates(mut self, estimates: Arc<Estimates>) -> Self {
        self.estimates = estimates;
        self
    }

    /// Whether any rule learns its amount.
    pub fn learns(&self) -> bool {
        self.policies.iter().flat_map(|policy| &policy.rules).any(|rule| rule.learned.is_some())
    }

    /// What was learned of containers.
    pub(super) fn estimates(&self) -> &Estimates {
        &self.estimates
    }

    /// The cap on what every rule may do.
    pub fn max_action(&self) -> Action {
        self.max_action
    }

    /// What LimitRanges and ResourceQuotas ask in a namespace.
    pub(super) fn bounds(&self, namespace: &str) -> Option<&Bounds> {
        self.bounds.get(namespace).map(|bounds| &**bounds)
    }

    /// The same, to take from what quotas leave.
    pub(super) fn bounds_mut(&mut self, namespace: &str) -> Option<&mut Bounds> {
        self.bounds.get_mut(namespace).map(Arc::make_mut)
    }

    /// What new nodes leave for a pod; empty when nothing is bought.
    pub(super) fn rooms(&self) -> &[PoolRooms] {
        &self.rooms
    }

    /// Labels of a namespace, as far as they are known.
    pub(super) fn namespace(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)
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
