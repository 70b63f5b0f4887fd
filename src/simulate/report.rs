//! What a simulation says, in the shape of its JSON output.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::schedule::Reason;

/// The whole report.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Counts of pods.
    pub pods: PodCounts,
    /// Nodes to buy.
    pub nodes: Vec<NodeReport>,
    /// Pods on nodes that exist, by node.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub existing: BTreeMap<String, Vec<String>>,
    /// Pods that fit nowhere.
    pub unschedulable: Vec<UnschedulableReport>,
    /// Preferences that were given up so that pods have a place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub relaxed: Vec<RelaxedReport>,
    /// What admission would do.
    pub admission: Vec<AdmissionReport>,
    /// Cost of the nodes to buy.
    pub cost: Cost,
    /// What a reader should know.
    pub warnings: Vec<String>,
    /// How long it took.
    pub timing: Timing,
}

/// Counts of pods.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodCounts {
    /// Pods that need a place.
    pub total: usize,
    /// Of these, on nodes that exist.
    pub placed_on_existing: usize,
    /// Of these, on nodes to buy.
    pub placed_on_new: usize,
    /// Of these, nowhere.
    pub unschedulable: usize,
}

/// A node to buy.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// Pool.
    pub node_pool: String,
    /// Instance type.
    pub instance_type: String,
    /// Zone.
    pub zone: String,
    /// Capacity type.
    pub capacity_type: String,
    /// Dollars per hour, volumes included.
    pub price_per_hour: f64,
    /// What pods may use.
    pub allocatable: BTreeMap<String, String>,
    /// What its pods and DaemonSets ask.
    pub requested: BTreeMap<String, String>,
    /// Pods as `namespace/name`.
    pub pods: Vec<String>,
}

/// A pod that fits nowhere.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnschedulableReport {
    /// `namespace/name`.
    pub pod: String,
    /// Reasons, one per pool and one for the nodes that exist.
    pub reasons: Vec<String>,
    /// The fewest changes that would give it a place, where they were asked for and found. All
    /// must be made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fits_if: Vec<String>,
    /// What the types of each family say, where the pod was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<FamilyReport>,
}

/// What the types of a family that a pool allows say to a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyReport {
    /// Pool.
    pub node_pool: String,
    /// Family, such as `c7g`.
    pub family: String,
    /// Types of it that the pool allows.
    pub types: usize,
    /// What keeps the pod from that type of them that comes nearest to taking it; none where one
    /// would take it alone, rules about other pods and volumes aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// A preference that was given up.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RelaxedReport {
    /// One of the pods, as `namespace/name`.
    pub pod: String,
    /// How many equal pods gave it up.
    pub count: u32,
    /// The preference.
    pub preference: String,
}

/// What admission would do to a pod.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AdmissionReport {
    /// `namespace/name`.
    pub pod: String,
    /// `Deny`, `Default` or `Warn`.
    pub action: String,
    /// What the user would read.
    pub message: String,
}

/// Cost of the nodes to buy, dollars per hour.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// The plan.
    pub per_hour: f64,
    /// No plan for these pods on new nodes can be cheaper than this.
    pub lower_bound_per_hour: f64,
}

/// How long it took, milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timing {
    /// Reading and checking.
    pub load_ms: f64,
    /// Planning.
    pub solve_ms: f64,
}

impl Report {
    /// Leaves what is about pods of one name; `false` when there is nothing.
    pub fn keep(&mut self, name: &str) -> bool {
        let meant = |pod: &String| meant(pod, name);
        for pods in self.existing.values_mut().chain(self.nodes.iter_mut().map(|n| &mut n.pods)) {
            pods.retain(meant);
        }
        self.existing.retain(|_, pods| !pods.is_empty());
        self.nodes.retain(|node| !node.pods.is_empty());
        self.unschedulable.retain(|pod| meant(&pod.pod));
        self.relaxed.retain(|relaxed| meant(&relaxed.pod));
        self.admission.retain(|finding| meant(&finding.pod));
        !(self.existing.is_empty()
            && self.nodes.is_empty()
            && self.unschedulable.is_empty()
            && self.relaxed.is_empty()
            && self.admission.is_empty())
    }
}

/// Whether a pod is the named one or one of the named workload's.
pub fn meant(pod: &str, name: &str) -> bool {
    pod == name || pod.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
}
