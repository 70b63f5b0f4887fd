//! Pools: which nodes may be bought, and how many.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::labels::Labels;
use super::requirement::Requirements;
use super::taints::Taint;

/// Reference from a pool or claim to the class that holds its cloud settings.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClassRef {
    /// API group, `karpenter.k8s.aws`.
    pub group: Arc<str>,
    /// Kind, `EC2NodeClass`.
    pub kind: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

/// What a class says of its nodes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClassFacts {
    /// Digest of the class without its selectors.
    pub hash: Arc<str>,
    /// What its selectors found; none while that is not known.
    pub found: Option<ClassFindings>,
}

/// What the selectors of a class found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClassFindings {
    /// Ids of images.
    pub images: BTreeSet<String>,
    /// Ids of capacity reservations.
    pub reservations: BTreeSet<String>,
}

/// When idle or underused nodes of a pool may be ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ConsolidationPolicy {
    /// Only nodes without pods.
    WhenEmpty,
    /// Also nodes whose pods fit elsewhere or on a cheaper node.
    #[default]
    WhenEmptyOrUnderutilized,
    /// As above, but a saving must outweigh the disruption.
    Balanced,
}

/// A `NodePool`, compiled.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pool {
    /// Name.
    pub name: Arc<str>,
    /// UID, empty for objects read from files.
    pub uid: Arc<str>,
    /// Heavier pools are preferred; 0 to 100.
    pub weight: i32,
    /// Requirements of the template, with the template's labels and the pool's own label.
    pub requirements: Requirements,
    /// Labels of its nodes.
    pub labels: Labels,
    /// Annotations of its nodes.
    pub annotations: Labels,
    /// Taints of its nodes.
    pub taints: Vec<Taint>,
    /// Taints that others remove once a node has started; pods need not tolerate them.
    pub startup_taints: Vec<Taint>,
    /// Limits by resource name, in millicores for cpu and whole units otherwise, compared with
    /// node capacity. The name `nodes` limits the count of nodes.
    pub limits: BTreeMap<Arc<str>, i64>,
    /// Class of its nodes.
    pub class: ClassRef,
    /// Age at which a node is replaced, seconds; `None` means never.
    pub expire_after: Option<i64>,
    /// Longest drain, seconds; `None` means without end.
    pub termination_grace: Option<i64>,
    /// How long a node must be without pods before it may be ended, seconds; `None` means never.
    pub consolidate_after: Option<i64>,
    /// Consolidation policy.
    pub consolidation: ConsolidationPolicy,
    /// The count of nodes where it is fixed (`spec.replicas`): never scaled by demand.
    pub replicas: Option<u32>,
    /// Digest of the template for drift.
    pub hash: Arc<str>,
    /// What is wrong with its spec, as far as the API server let it through.
    pub refusal: Option<Arc<str>>,
    /// Whether it may be used: valid, its class ready, and not being deleted.
    pub ready: bool,
}
