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
    /// The gang that the pod belongs to does not fit as a whole.
    Gang,
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

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::model::resources::Resources;
        let amount = |resource: &str, n: i64| Resources::format_amount(resource, n);
        match self {
            Self::NoPool => f.write_str("there is no NodePool"),
            Self::PoolNotReady => f.write_str("the NodePool is not ready"),
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
            Self::Gang => f.write_str("the gang does not fit as a whole"),
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
