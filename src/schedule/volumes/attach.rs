//! Volumes that nodes attach.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Needs, key};
use crate::model::instance::InstanceType;
use crate::model::labels;
use crate::model::pod::PodShape;
use crate::model::volume::{MountedClaim, Volumes};
use crate::schedule::problem::{NodeSlot, Problem};
use crate::schedule::reason::Reason;

/// How many volumes nodes can attach.
#[derive(Clone, Debug, Default)]
pub(in crate::schedule) struct Limits {
    /// Drivers that have a limit anywhere and volumes to attach.
    pub(in crate::schedule) drivers: Vec<Arc<str>>,
    /// Volumes of each driver that all pods attach: nothing needs more room.
    total: Vec<i64>,
    /// Volumes of each driver that several pods use, set aside on new nodes.
    shared: Vec<i64>,
    /// What each node leaves, by driver; negative where volumes that were set aside have no room.
    nodes: Vec<Vec<i64>>,
}

impl Limits {
    /// The name of the resource, as nodes used to spell it.
    pub(in crate::schedule) fn resource(driver: &str) -> String {
        format!("attachable-volumes-csi-{driver}")
    }

    /// What a new node of a type leaves by driver; negative as for nodes.
    pub(in crate::schedule) fn of_type(
        &self,
        instance: &InstanceType,
    ) -> impl Iterator<Item = i64> {
        self.drivers.iter().enumerate().map(|(at, driver)| match instance.attach_limit(driver) {
            Some(limit) => self.total[at].min(limit - self.shared[at]),
            None => self.total[at],
        })
    }

    /// What a node that exists leaves, by driver.
    pub(in crate::schedule) fn of_node(&self, node: usize) -> &[i64] {
        self.nodes.get(node).map_or(&[], |room| room)
    }
}

/// A volume as a node counts it: its driver, and what tells it from others.
type Attached = (Arc<str>, Arc<str>);

/// Volumes that nodes hold and pods will bring.
#[derive(Default)]
pub(super) struct Traffic {
    /// By node; volumes without a name as a count for each driver.
    there: Vec<BTreeSet<Attached>>,
    there_nameless: Vec<BTreeMap<Arc<str>, i64>>,
    /// By demand, likewise.
    named: Vec<BTreeSet<Attached>>,
    nameless: Vec<BTreeMap<Arc<str>, i64>>,
    /// Pods that will use each volume.
    users: BTreeMap<Attached, u32>,
}

impl Traffic {
    pub(super) fn new(problem: &Problem, blocked: &[Option<(u32, Reason)>]) -> Self {
        let mut traffic = Self::default();
        for node in &problem.nodes {
            let (mut there, mut nameless) = (BTreeSet::new(), BTreeMap::new());
            for (pod, count) in &node.pods {
                let claims = pod.claims.iter();
                for volume in claims.filter_map(|m| attached(&problem.volumes, pod, m)) {
                    if volume.1.is_empty() {
                        *nameless.entry(volume.0).or_insert(0) += i64::from(*count);
                    } else {
                        there.insert(volume);
                    }
                }
            }
            traffic.there.push(there);
            traffic.there_nameless.push(nameless);
        }
        for (demand, blocked) in problem.demands.iter().zip(blocked) {
            let pods = demand.count - blocked.as_ref().map_or(0, |(count, _)| *count);
            let (mut named, mut nameless) = (BTreeSet::new(), BTreeMap::new());
            for mounted in demand.shape.claims.iter().filter(|_| pods > 0) {
                let Some(volume) = attached(&problem.volumes, &demand.shape, mounted) else {
                    continue;
                };
                if volume.1.is_empty() {
                    *nameless.entry(volume.0).or_insert(0) += 1;
                } else if named.insert(volume.clone()) {
                    *traffic.users.entry(volume).or_insert(0) += pods;
                }
            }
            traffic.named.push(named);
            traffic.nameless.push(nameless);
        }
        traffic
    }

    /// Limits of all drivers that matter; completes what pods attach.
    pub(super) fn limits(&self, problem: &Problem, needs: &mut [Needs]) -> Limits {
        let mut drivers: BTreeSet<&Arc<str>> =
            self.users.keys().map(|(driver, _)| driver).collect();
        drivers.extend(self.nameless.iter().flat_map(BTreeMap::keys));
        let types = || problem.pools.iter().flat_map(|slot| slot.types.iter());
        let mut limits = Limits::default();
        let mut most_of = Vec::new();
        for driver in drivers {
            let of_types = types().filter_map(|instance| instance.attach_limit(driver));
            let of_nodes = problem.nodes.iter().filter_map(|n| node_limit(problem, n, driver));
            if let Some(most) = of_types.chain(of_nodes).max() {
                limits.drivers.push(Arc::clone(driver));
                most_of.push(most);
            }
        }
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let at = |name: &str| limits.drivers.iter().position(|driver| &**driver == name);
        let there: BTreeSet<&Attached> = self.there.iter().flatten().collect();
        let mut shared: BTreeMap<usize, BTreeSet<Attached>> = BTreeMap::new();
        for (volume, users) in &self.users {
            if let Some(driver) = at(&volume.0).filter(|_| *users > 1 || there.contains(volume)) {
                shared.entry(driver).or_default().insert(volume.clone());
            }
        }
        // What is set aside must leave room, and is never more than one pod asks; else each pod
        // counts all of its volumes.
        shared.retain(|driver, volumes| {
            let of_pod = |named: &BTreeSet<Attached>| count(named.intersection(volumes).count());
            let one = self.named.iter().map(of_pod).max().unwrap_or(0);
            count(volumes.len()) <= one.max((most_of[*driver] + 1) / 2)
        });
        let is_shared = |driver: usize, volume: &Attached| {
            shared.get(&driver).is_some_and(|volumes| volumes.contains(volume))
        };
        limits.total = vec![0; limits.drivers.len()];
        for (demand, needs) in needs.iter_mut().enumerate() {
            let mut counts: BTreeMap<usize, i64> = BTreeMap::new();
            for volume in &self.named[demand] {
                let Some(driver) = at(&volume.0) else { continue };
                if is_shared(driver, volume) {
                    needs.shares.push(driver);
                } else {
                    *counts.entry(driver).or_insert(0) += 1;
                }
            }
            for (driver, count) in &self.nameless[demand] {
                if let Some(driver) = at(driver) {
                    *counts.entry(driver).or_insert(0) += count;
                }
            }
            needs.shares.sort_unstable();
            needs.shares.dedup();
            for (driver, count) in &counts {
                limits.total[*driver] += count * i64::from(problem.demands[demand].count);
            }
            needs.attach = counts.into_iter().collect();
        }
        limits.shared = (0..limits.drivers.len())
            .map(|d| shared.get(&d).map_or(0, |s| count(s.len())))
            .collect();
        for (at, (node, there)) in problem.nodes.iter().zip(&self.there).enumerate() {
            let nameless = &self.there_nameless[at];
            let room = limits.drivers.iter().enumerate().map(|(at, driver)| {
                let Some(limit) = node_limit(problem, node, driver) else {
                    return limits.total[at];
                };
                let used = there.iter().filter(|(other, _)| other == driver).count();
                let held = nameless.get(driver).copied().unwrap_or(0);
                let away = shared.get(&at).map_or(0, |all| count(all.difference(there).count()));
                let left = limit - held - count(used) - away;
                // Who shares only what is there already needs nothing.
                limits.total[at].min(if away == 0 { left.max(0) } else { left })
            });
            let room = room.collect();
            limits.nodes.push(room);
        }
        limits
    }
}

/// The volume of a claim, if a CSI driver attaches it. One of a claim without a name has no name.
fn attached(book: &Volumes, pod: &PodShape, mounted: &MountedClaim) -> Option<Attached> {
    let claim = book.claim(&pod.namespace, mounted);
    let volume = claim.and_then(|claim| book.volumes.get(claim.volume.as_ref()?));
    if let Some(volume) = volume {
        return volume.handle.clone();
    }
    let spec = claim.map(|claim| &claim.spec).or(mounted.template.as_deref())?;
    let driver = Arc::clone(&book.class(spec)?.provisioner);
    let name = match key(pod, mounted) {
        Some((namespace, name)) => format!("{namespace}/{name}").into(),
        None => "".into(),
    };
    Some((driver, name))
}

/// How many volumes of a driver a node can attach. One that is on its way has what its type has.
fn node_limit(problem: &Problem, node: &NodeSlot, driver: &str) -> Option<i64> {
    let stated = problem.volumes.nodes.get(&node.name).and_then(|csi| csi.limits.get(driver));
    if stated.is_some() || node.initialized {
        return stated.copied();
    }
    let name = node.labels.get(labels::INSTANCE_TYPE)?;
    let types = &problem.pools.get(node.pool?)?.types;
    types.iter().find(|instance| *instance.name == **name)?.attach_limit(driver)
}
