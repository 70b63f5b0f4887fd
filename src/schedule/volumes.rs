//! What the volumes of pods ask of nodes.
//!
//! Claims are looked up once per solve. What is left of them is data that packing understands: a
//! volume's zones become alternatives beside the pod's own affinity (and stay apart from it, since
//! topology spread looks at that alone), and volumes that a node attaches become resources. A claim
//! that keeps its pod from every node is a reason.
//!
//! A node attaches a volume once, however many of its pods use it. Vectors cannot say so: a volume
//! that several pods use is set aside on every node instead, and counted for none of them.

mod attach;
mod claims;

use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) use attach::Limits;
use attach::Traffic;
use claims::Resolver;

use super::problem::Problem;
use super::reason::{Reason, VolumeFault};
use crate::model::pod::PodShape;
use crate::model::requirement::{Requirement, Requirements};
use crate::model::volume::{ClaimKey, MountedClaim};

/// Alternatives beyond this count are left out; each is one way to reach all volumes of a pod.
const MOST_ALTERNATIVES: usize = 64;

/// What a pod's volumes ask of its node.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Needs {
    /// Requirements, one of which must hold beside the pod's own; `None` asks nothing.
    pub(super) reach: Option<Vec<Requirements>>,
    /// The only node that will do.
    pub(super) node: Option<Arc<str>>,
    /// Volumes that only this pod attaches, by driver: `(position in [`Limits`], count)`.
    pub(super) attach: Vec<(usize, i64)>,
    /// Drivers of volumes that other pods use as well.
    pub(super) shares: Vec<usize>,
}

impl Needs {
    /// Whether its volumes leave every node open.
    pub(super) fn is_free(&self) -> bool {
        self.reach.is_none() && self.node.is_none() && self.shares.is_empty()
    }
}

/// Everything about volumes that a solve needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Storage {
    /// By demand.
    pub(super) needs: Vec<Arc<Needs>>,
    /// Pods of each demand that their claims, of volumes or devices, keep from every node, and why.
    pub(super) blocked: Vec<Option<(u32, Reason)>>,
    pub(super) limits: Limits,
}

impl Storage {
    /// Looks up the claims of all demands.
    pub(super) fn new(problem: &Problem) -> Self {
        let demands = &problem.demands;
        let mut storage = Self {
            needs: vec![Arc::default(); demands.len()],
            blocked: vec![None; demands.len()],
            limits: Limits::default(),
        };
        for (blocked, demand) in storage.blocked.iter_mut().zip(demands) {
            if demand.shape.devices {
                *blocked = Some((demand.count, Reason::Devices));
            }
        }
        if demands.iter().all(|demand| demand.shape.claims.is_empty()) {
            return storage;
        }
        let mut resolver = Resolver::new(problem);
        // Volumes made by hand and claims for one pod go to the first that asks: by content, so that
        // the order of demands does not matter.
        let mut order: Vec<usize> = (0..demands.len())
            .filter(|at| !demands[*at].shape.claims.is_empty() && storage.blocked[*at].is_none())
            .collect();
        order.sort_by(|a, b| {
            let (x, y) = (&demands[*a].shape, &demands[*b].shape);
            y.priority.cmp(&x.priority).then_with(|| x.cmp(y)).then_with(|| a.cmp(b))
        });
        let mut needs = vec![Needs::default(); demands.len()];
        for &at in &order {
            let (shape, count) = (&demands[at].shape, demands[at].count);
            match resolver.places(shape) {
                Ok(place) => {
                    (needs[at].reach, needs[at].node) = (place.reach, place.node);
                    let (room, claim) = resolver.reserve(shape, count);
                    if room < count {
                        let reason = Reason::Volume { claim, fault: VolumeFault::InUse };
                        storage.blocked[at] = Some((count - room, reason));
                    }
                }
                Err((claim, fault)) => {
                    storage.blocked[at] = Some((count, Reason::Volume { claim, fault }));
                }
            }
        }
        let traffic = Traffic::new(problem, &storage.blocked);
        storage.limits = traffic.limits(problem, &mut needs);
        storage.needs = needs.into_iter().map(Arc::new).collect();
        storage
    }
}

impl Storage {
    /// Pods of a demand that have no place, whatever there is.
    pub(super) fn blocked(&self, demand: usize) -> u32 {
        self.blocked[demand].as_ref().map_or(0, |(count, _)| *count)
    }
}

/// Namespace and name of a claim that has a name.
fn key(pod: &PodShape, mounted: &MountedClaim) -> Option<ClaimKey> {
    mounted.name().map(|name| (Arc::clone(&pod.namespace), Arc::clone(name)))
}

/// Both of two alternatives, for all pairs that do not exclude each other.
pub(super) fn both(some: &[Requirements], others: &[Requirements]) -> Vec<Requirements> {
    let pairs = some.iter().flat_map(|a| {
        others.iter().map(move |b| {
            let mut both = a.clone();
            both.extend(b);
            both
        })
    });
    let possible = |all: &Requirements| {
        !all.iter().any(|(_, requirement): (_, &Requirement)| {
            requirement.is_empty() && !requirement.allows_absent()
        })
    };
    let mut seen = BTreeSet::new();
    let fresh = pairs.filter(|pair| possible(pair) && seen.insert(pair.clone()));
    fresh.take(MOST_ALTERNATIVES).collect()
}
