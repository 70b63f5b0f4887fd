//! Pods, and the shape that identical pods share.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::gang::Gang;
use super::labels::{LabelSelector, Labels};
use super::requirement::{Requirement, Requirements};
use super::resources::Resources;
use super::taints::Toleration;
use super::volume::MountedClaim;

/// All that scheduling can see of a pod, apart from its name.
///
/// Pods with equal shapes are interchangeable to the scheduler. One shape is shared by all replicas
/// of a workload.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PodShape {
    /// Namespace, seen by inter-pod affinity and spread selectors.
    pub namespace: Arc<str>,
    /// Labels, seen by the selectors of other pods.
    pub labels: Labels,
    /// Whether it asks for devices by dynamic resource allocation: what a new node will offer is not
    /// known.
    pub devices: bool,
    /// Whether it is being deleted: it holds its room until it is gone, and no spread counts it.
    pub leaving: bool,
    /// Effective requests, including init containers, sidecars, pod-level resources, overhead and
    /// one pod slot.
    pub requests: Resources,
    /// Node selector as requirements.
    pub node_selector: Requirements,
    /// Required node affinity: alternatives, of which one must hold. Empty means no constraint.
    pub required_node_terms: Vec<NodeTerm>,
    /// Preferred node affinity with weights 1 to 100.
    pub preferred_node_terms: Vec<(i32, NodeTerm)>,
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
    /// Required inter-pod affinity.
    pub pod_affinity: Vec<PodAffinityTerm>,
    /// What keeps its gang in one domain. Apart from its affinity, whose terms all mean one and the
    /// same set of pods; the kube-scheduler does not see it.
    pub together: Vec<PodAffinityTerm>,
    /// Required inter-pod anti-affinity.
    pub pod_anti_affinity: Vec<PodAffinityTerm>,
    /// Preferred inter-pod affinity, weight 1 to 100; anti-affinity has a negative weight.
    pub preferred_pod_terms: Vec<(i32, PodAffinityTerm)>,
    /// Topology spread constraints.
    pub spread: Vec<SpreadConstraint>,
    /// Host ports.
    pub host_ports: Vec<HostPort>,
    /// Persistent volume claims that the pod mounts, in its namespace.
    pub claims: Vec<MountedClaim>,
    /// Priority; higher is planned first. 0 when no class is given.
    pub priority: i32,
    /// Whether the pod may preempt others (`preemptionPolicy` is not `Never`).
    pub may_preempt: bool,
    /// Scheduler that binds the pod; empty means `default-scheduler`.
    pub scheduler: Arc<str>,
    /// Gang that the pod belongs to.
    pub gang: Option<Arc<Gang>>,
}

impl PodShape {
    /// Whether rules that hold for it look at other pods, softer ones of spread among them.
    pub fn minds_others(&self) -> bool {
        !(self.spread.is_empty()
            && self.pod_affinity.is_empty()
            && self.together.is_empty()
            && self.pod_anti_affinity.is_empty())
    }

    /// The alternatives that a node must meet, each the node selector and one required term.
    ///
    /// Kubernetes ORs the terms; a term without expressions and fields matches nothing.
    pub fn node_alternatives(&self) -> Vec<Requirements> {
        if self.required_node_terms.is_empty() {
            return vec![self.node_selector.clone()];
        }
        self.required_node_terms
            .iter()
            .filter(|term| !term.is_empty())
            .map(|term| {
                let mut both = self.node_selector.clone();
                both.extend(&term.requirements);
                both
            })
            .collect()
    }

    /// The alternatives that a node can meet which is not there yet: a term that names nodes means those
    /// that are.
    pub fn new_node_alternatives(&self) -> Vec<Requirements> {
        let mut alternatives = self.node_alternatives();
        let mut terms = self.required_node_terms.iter().filter(|term| !term.is_empty());
        alternatives.retain(|_| {
            let name = terms.next().and_then(|term| term.node_name.as_ref());
            name.is_none_or(|name| name.finite_values().is_none())
        });
        alternatives
    }
}

/// One term of node affinity.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeTerm {
    /// Requirements on labels.
    pub requirements: Requirements,
    /// Requirement on `metadata.name`, the only field that Kubernetes supports.
    pub node_name: Option<Requirement>,
}

impl NodeTerm {
    /// Whether the term names nothing, and so matches no node.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && self.node_name.is_none()
    }
}

/// One term of inter-pod affinity or anti-affinity.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PodAffinityTerm {
    /// Pods that are meant; `None` selects none. `matchLabelKeys` and `mismatchLabelKeys` are
    /// merged into it.
    pub selector: Option<LabelSelector>,
    /// Namespaces by name; the pod's own when both this and the selector are absent.
    pub namespaces: Vec<Arc<str>>,
    /// Namespaces by label.
    pub namespace_selector: Option<LabelSelector>,
    /// Label whose value makes a topology domain.
    pub topology_key: Arc<str>,
}

/// One topology spread constraint.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SpreadConstraint {
    /// Largest allowed difference between the domain's count and the least count.
    pub max_skew: i32,
    /// Label whose value makes a domain.
    pub topology_key: Arc<str>,
    /// Whether the constraint must hold (`DoNotSchedule`) or is a preference (`ScheduleAnyway`).
    pub required: bool,
    /// Pods that are counted; `matchLabelKeys` is merged into it.
    pub selector: Option<LabelSelector>,
    /// With fewer eligible domains than this the least count is 0.
    pub min_domains: Option<i32>,
    /// Whether only nodes that the pod's selector and affinity admit are counted (default).
    pub honor_node_affinity: bool,
    /// Whether nodes with taints that the pod does not tolerate are left out (default: no).
    pub honor_node_taints: bool,
}

/// A port on the host.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HostPort {
    /// Address; empty means all.
    pub ip: Arc<str>,
    /// Protocol: `TCP`, `UDP` or `SCTP`.
    pub protocol: Arc<str>,
    /// Port number.
    pub port: u16,
}

impl HostPort {
    /// Whether both cannot be on one node: same port and protocol, and one address covers the
    /// other.
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

/// Phase of a pod.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[expect(missing_docs, reason = "the names are those of the Kubernetes API")]
pub enum PodPhase {
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

/// A reference to the object that owns another.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct OwnerRef {
    /// Kind, such as `ReplicaSet`.
    pub kind: Arc<str>,
    /// Name, in the pod's namespace.
    pub name: Arc<str>,
    /// UID.
    pub uid: Arc<str>,
}

/// Containers by name with their images, sidecars too; shared by the replicas of a workload.
pub type Images = Vec<(Arc<str>, Arc<str>)>;

/// Grace period of pods that name none, seconds: the API server's default.
pub const DEFAULT_GRACE: i64 = 30;

/// How long a pod is not to be evicted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protection {
    /// Always.
    Always,
    /// For so many seconds after its start, and before it.
    For(i64),
}

impl Protection {
    /// Reads `true`, or a positive duration such as `1h30m`; anything else protects nothing, as in the
    /// field.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "true" {
            return Some(Self::Always);
        }
        let time = text.parse::<jiff::SignedDuration>().ok()?;
        time.is_positive().then(|| Self::For(time.as_secs()))
    }
}

/// A pod of the cluster.
#[expect(clippy::struct_excessive_bools, reason = "independent facts of the API object")]
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pod {
    /// Name.
    pub name: Arc<str>,
    /// UID.
    pub uid: Arc<str>,
    /// What the scheduler sees; its namespace is the pod's.
    pub shape: Arc<PodShape>,
    /// Controlling owner.
    pub owner: Option<OwnerRef>,
    /// Node it is bound to.
    pub node_name: Option<Arc<str>>,
    /// Node that the scheduler (or we) mean it for.
    pub nominated_node: Option<Arc<str>>,
    /// Phase.
    pub phase: PodPhase,
    /// When it was created, seconds since the epoch.
    pub created_at: i64,
    /// When its deletion was asked for, seconds since the epoch.
    pub deleted_at: Option<i64>,
    /// Whether the scheduler marked it `PodScheduled=False, Unschedulable`.
    pub unschedulable: bool,
    /// Whether scheduling gates hold it back.
    pub gated: bool,
    /// When its node took it up, seconds since the epoch.
    pub started_at: Option<i64>,
    /// What its annotation `karpenter.sh/do-not-disrupt` says.
    pub protection: Option<Protection>,
    /// Whether its priority class is `system-cluster-critical` or `system-node-critical`.
    pub critical: bool,
    /// Grace period for its termination, seconds; [`DEFAULT_GRACE`] where it names none.
    pub grace_seconds: i64,
    /// Whether it is a mirror of a static pod.
    pub mirror: bool,
    /// Images of its containers that run for its life.
    pub images: Arc<Images>,
    /// How it, or a container of it, ended last for want of memory.
    pub failure: Option<Arc<Failure>>,
}

impl Pod {
    /// Its shape as others on its node see it.
    pub fn shape_there(&self) -> Arc<PodShape> {
        if self.deleted_at.is_none() {
            return Arc::clone(&self.shape);
        }
        Arc::new(PodShape { leaving: true, ..(*self.shape).clone() })
    }

    /// Whether it is not to be evicted at `now`, in seconds since the epoch.
    pub fn protected(&self, now: i64) -> bool {
        match self.protection {
            None => false,
            Some(Protection::Always) => true,
            Some(Protection::For(time)) => {
                self.started_at.is_none_or(|start| now < start.saturating_add(time))
            }
        }
    }

    /// `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.shape.namespace, self.name)
    }

    /// Whether it still holds or will hold resources: not succeeded, failed or being deleted.
    pub fn active(&self) -> bool {
        !self.terminal() && self.deleted_at.is_none()
    }

    /// Whether it ran to its end.
    pub fn terminal(&self) -> bool {
        matches!(self.phase, PodPhase::Succeeded | PodPhase::Failed)
    }

    /// Whether a DaemonSet owns it.
    pub fn of_daemon_set(&self) -> bool {
        self.owner.as_ref().is_some_and(|owner| &*owner.kind == "DaemonSet")
    }

    /// Whether it waits for room: active, not bound, not gated and not owned by a DaemonSet or a
    /// node.
    pub fn waiting(&self) -> bool {
        self.active()
            && self.node_name.is_none()
            && !self.gated
            && !self.mirror
            && !self.of_daemon_set()
            && self.owner.as_ref().is_none_or(|owner| &*owner.kind != "Node")
    }
}
