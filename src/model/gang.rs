//! Pods that are placed together.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::labels::LabelSelector;
use super::pod::PodAffinityTerm;

/// Name of the pod's gang, within its namespace. Pods of one gang, of whatever workloads, are planned
/// wholly or not at all.
pub const GANG: &str = "harbinger.sh/gang";

/// The same of pods that name a `PodGroup`. Pods have this label in shapes only.
const GROUP: &str = "harbinger.sh/pod-group";

/// Pods of a namespace of which none is placed without the others.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Gang {
    /// Name, within the namespace.
    pub name: Arc<str>,
    /// Pods that it has at least; 0 when it has those that are known.
    pub size: u32,
    /// Whether the [`PodGroup`] of that name says what it asks instead.
    pub by_group: bool,
}

impl Gang {
    /// The label that all its pods have in their shapes, with its name.
    pub fn label(&self) -> &'static str {
        if self.by_group { GROUP } else { GANG }
    }

    /// Gives all its pods the same value of a node label. The kube-scheduler does not see it: that
    /// pods go where they were planned is the nomination's work.
    pub fn together(&self, topology_key: &str) -> PodAffinityTerm {
        PodAffinityTerm {
            selector: Some(LabelSelector {
                match_labels: [(self.label().to_owned(), self.name.to_string())].into(),
                match_expressions: Vec::new(),
            }),
            topology_key: topology_key.into(),
            ..PodAffinityTerm::default()
        }
    }
}

/// What a `PodGroup` of `scheduling.k8s.io` says of the pods that name it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PodGroup {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Pods of which none is placed before all of them can be, while further ones follow one by one;
    /// `None` where each pod goes its own way.
    pub min_count: Option<u32>,
    /// Labels of nodes of which all its pods get the same value.
    pub topology: Vec<Arc<str>>,
}

/// Groups by namespace and name.
pub type PodGroups = BTreeMap<(Arc<str>, Arc<str>), Arc<PodGroup>>;
