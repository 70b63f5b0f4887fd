//! Why a pod fits nowhere, as data.
//!
//! The same reasons feed admission warnings, Events, metrics, `simulate` and `explain`.

use std::fmt;

use serde::Serialize;

/// All reasons for one shape: one per pool, and one for the existing nodes as a whole.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Reasons {
    /// `(pool, reason)` in order of preference of the pools.
    pub pools: Vec<(String, Reason)>,
    /// Why no existing node takes it: the commonest reason with the count of nodes.
    pub nodes: Vec<(u32, Reason)>,
}

/// One reason.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(tag = "code", rename_all = "PascalCase")]
pub enum Reason {
    /// No pool can be used at all.
    NoPool,
    /// The pool is not ready.
    PoolNotReady,
    /// A DaemonSet that runs on the pool's nodes repels the pod, is repelled by it, or has its host
    /// port.
    DaemonSet,
    /// The pool keeps a fixed count of nodes and buys none for pods.
    PoolFixed,
    /// The pod does not tolerate the taint.
    Taint {
        /// The taint as `key=value:Effect`.
        taint: String,
    },
    /// The pod's requirement and the pool's (or node's) exclude each other.
    Requirement {
        /// Label key.
        key: String,
        /// What the pod asks.
        wanted: String,
        /// What there is; empty when the label is absent.
        found: String,
    },
    /// No instance type of the pool is large enough.
    TooLarge {
        /// Resource that is short.
        resource: String,
        /// What the pod and the DaemonSets of the node ask.
        asked: i64,
        /// The most that any type with all the right labels leaves for pods.
        most: i64,
    },
    /// Types fit, but no offering of them is available.
    NoOffering {
        /// Types that would fit (some of them).
        types: Vec<String>,
    },
    /// The pool's limit is reached.
    Limit {
        /// Limited resource, or `nodes`.
        resource: String,
        /// What the limit leaves.
        remaining: i64,
    },
    /// `minValues` of the pool's requirements cannot be met.
    MinValues {
        /// Label key.
        key: String,
        /// Distinct values wanted.
        wanted: u32,
        /// Distinct values left.
        found: u32,
    },
    /// Host port taken.
    HostPort {
        /// Port number.
        port: u16,
    },
    /// A spread constraint cannot be met.
    Spread {
        /// Topology key.
        key: String,
    },
    /// Required inter-pod affinity cannot be met.
    PodAffinity {
        /// Topology key.
        key: String,
    },
    /// Required inter-pod anti-affinity cannot be met.
    PodAntiAffinity {
        /// Topology key.
        key: String,
    },
    /// A claim of the pod, or the volume behind it, keeps the pod from every node.
    Volume {
        /// Name of the `PersistentVolumeClaim`; empty where it is made with the pod.
        claim: String,
        /// What is wrong.
        fault: VolumeFault,
    },
    /// The gang that the pod belongs to does not fit as a whole.
    Gang,
    /// Some pods of the gang that the pod belongs to are not there yet.
    GangPartial {
        /// Pods that are known.
        known: u64,
        /// Pods that it has at least.
        size: u32,
    },
    /// The `PodGroup` that the pod names does not exist; the kube-scheduler waits for it.
    GroupMissing {
        /// Its name, in the pod's namespace.
        name: String,
    },
    /// The pod asks for devices by dynamic resource allocation.
    Devices,
    /// The engine does not know a hard constraint, so it must not guess.
    Unsupported {
        /// The constraint.
        feature: String,
    },
    /// Room is short on this node.
    Room {
        /// Resource that is short.
        resource: String,
    },
}

/// What is wrong with a claim.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(tag = "kind", rename_all = "PascalCase")]
pub enum VolumeFault {
    /// It does not exist.
    Missing,
    /// It is being deleted.
    Deleting,
    /// Its volume was lost.
    Lost,
    /// The volume that it is bound to does not exist.
    VolumeMissing {
        /// Name of the volume.
        volume: String,
    },
    /// Its class does not exist.
    ClassMissing {
        /// Name of the class.
        class: String,
    },
    /// It names a volume that has not taken it yet.
    Binding {
        /// Name of the volume.
        volume: String,
    },
    /// It is not bound, and nothing waits for its pod: it has no class, or one with immediate
    /// binding.
    Unbound {
        /// Name of the class; empty where it has none.
        class: String,
    },
    /// Volumes of its class are made by hand, and no free one suits it.
    NoVolume {
        /// Name of the class.
        class: String,
    },
    /// Its volume, or its class, is nowhere.
    Nowhere,
    /// Only one pod may use it, and another one does.
    InUse,
    /// Its volume cannot be where the pod's other volumes are.
    Apart,
    /// Its volume cannot be where the pod's own selector and affinity want it.
    Affinity,
}

impl fmt::Display for VolumeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("does not exist; create it"),
            Self::Deleting => f.write_str("is being deleted"),
            Self::Lost => f.write_str("has lost its volume"),
            Self::VolumeMissing { volume } => {
                write!(f, "is bound to PersistentVolume {volume}, which does not exist")
            }
            Self::ClassMissing { class } => {
                write!(f, "is of StorageClass {class}, which does not exist")
            }
            Self::Binding { volume } => {
                write!(f, "waits to be bound to PersistentVolume {volume}")
            }
            Self::Unbound { class } if class.is_empty() => {
                f.write_str("is not bound to a volume and has no StorageClass that makes one")
            }
            Self::Unbound { class } => write!(
                f,
                "is not bound to a volume, and StorageClass {class} does not wait for the pod \
                 (volumeBindingMode is not WaitForFirstConsumer)"
            ),
            Self::NoVolume { class } => {
                write!(f, "finds no free PersistentVolume of StorageClass {class} that suits it")
            }
            Self::Nowhere => f.write_str("has a volume that no node reaches"),
            Self::InUse => f.write_str("is ReadWriteOncePod, and another pod uses it"),
            Self::Apart => f.write_str("has a volume that cannot be where the pod's others are"),
            Self::Affinity => {
                f.write_str("has a volume that cannot be where the pod's node affinity wants it")
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::model::resources::Resources;
        let amount = |resource: &str, n: i64| Resources::format_amount(resource, n);
        match self {
            Self::NoPool => f.write_str("there is no NodePool"),
            Self::PoolNotReady => f.write_str("the NodePool is not ready"),
            Self::DaemonSet => f.write_str(
                "the pod cannot share a node with a DaemonSet that runs there (anti-affinity or host port)",
            ),
            Self::PoolFixed => f.write_str(
                "the NodePool keeps a fixed count of nodes (spec.replicas) and buys none for pods",
            ),
            Self::Taint { taint } => write!(f, "the pod does not tolerate the taint {taint}"),
            Self::Requirement { key, wanted, found } if found.is_empty() => {
                write!(f, "the pod wants {key} {wanted}, which its nodes do not define")
            }
            Self::Requirement { key, wanted, found } => {
                write!(f, "the pod wants {key} {wanted}, but there is {found}")
            }
            Self::TooLarge { resource, asked, most } => write!(
                f,
                "no instance type is large enough: {resource} {} is asked, the most is {}",
                amount(resource, *asked),
                amount(resource, *most)
            ),
            Self::NoOffering { types } if types.is_empty() => {
                f.write_str("no instance type can be bought now")
            }
            Self::NoOffering { types } => {
                write!(f, "no offering of the types that fit is available ({})", types.join(", "))
            }
            Self::Limit { resource, remaining } => write!(
                f,
                "the NodePool's limit of {resource} leaves only {}",
                amount(resource, *remaining)
            ),
            Self::MinValues { key, wanted, found } => {
                write!(f, "minValues of {key} is {wanted}, but only {found} values are left")
            }
            Self::HostPort { port } => write!(f, "host port {port} is taken"),
            Self::Spread { key } => {
                write!(f, "the topology spread constraint on {key} cannot be met")
            }
            Self::PodAffinity { key } => write!(f, "the pod affinity on {key} cannot be met"),
            Self::PodAntiAffinity { key } => {
                write!(f, "the pod anti-affinity on {key} cannot be met")
            }
            Self::Volume { claim, fault } if claim.is_empty() => {
                write!(f, "the pod's own volume claim {fault}")
            }
            Self::Volume { claim, fault } => write!(f, "PersistentVolumeClaim {claim} {fault}"),
            Self::GroupMissing { name } => {
                write!(f, "PodGroup {name} does not exist, and the pod waits for it; create it")
            }
            Self::Gang => f.write_str("the gang does not fit as a whole"),
            Self::GangPartial { known, size } => {
                write!(f, "the gang waits for its pods: {known} of {size} are there")
            }
            Self::Devices => f.write_str(
                "spec.resourceClaims asks for devices, and what a new node will offer is not known",
            ),
            Self::Unsupported { feature } => write!(f, "{feature} is not supported yet"),
            Self::Room { resource } => write!(f, "not enough {resource}"),
        }
    }
}

impl fmt::Display for Reasons {
    /// One readable line: pools first, then what the nodes say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (pool, reason) in &self.pools {
            let comma = if first { "" } else { "; " };
            first = false;
            if pool.is_empty() {
                write!(f, "{comma}{reason}")?;
            } else {
                write!(f, "{comma}NodePool {pool}: {reason}")?;
            }
        }
        for (count, reason) in &self.nodes {
            let comma = if first { "" } else { "; " };
            first = false;
            let nodes = if *count == 1 { "node" } else { "nodes" };
            write!(f, "{comma}{count} {nodes}: {reason}")?;
        }
        if first { f.write_str("no reason is known") } else { Ok(()) }
    }
}
