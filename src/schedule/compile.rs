//! From a [`Problem`] to ordinals: shapes folded, resources as vectors, feasibility as bitsets.
//!
//! Everything that costs string comparisons happens here, once per distinct shape. Packing then
//! touches integers only.

mod fold;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fixedbitset::FixedBitSet;

use super::choice;
use super::daemons;
use super::feasible::{self, daemon_requests};
use super::host::{self, Host};
use super::problem::{PoolSlot, Problem};
use super::reason::Reason;
use super::relax::Want;
use super::solution::OfferingRef;
use super::topology::{Rules, Spread, Topology};
use super::volumes::{self, Limits, Needs};
use crate::model::instance::{Asked, InstanceType, Reserved};
use crate::model::labels;
use crate::model::pod::{HostPort, NodeTerm, PodShape};
use crate::model::requirement::Requirements;
use crate::model::resources::{PODS, Resources};
use crate::model::taints::Toleration;

/// Some pods of a demand, with what they ask for in this attempt.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) demand: usize,
    pub(super) count: u32,
    pub(super) want: Want,
    /// What the pods' volumes ask.
    pub(super) needs: Arc<Needs>,
}

/// A set of equal pods.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// One of them.
    pub(super) pod: Arc<PodShape>,
    /// Whether it keeps away from taints of effect `PreferNoSchedule`.
    pub(super) avoids: bool,
    /// Demands that fold into it, with what is still to place of each, in order of position.
    pub(super) demands: Vec<(usize, u32)>,
    /// Whether its pods are one bundle that must share a node: its count is then 1 or 0.
    pub(super) whole: bool,
    /// Requests by dimension.
    pub(super) request: Vec<i64>,
    /// Set of columns that may host it, in [`Compiled::sets`].
    pub(super) columns: usize,
    /// The same before domains were decided.
    pub(super) wide: usize,
    /// Set of nodes that may host it, in [`Compiled::sets`].
    pub(super) nodes: usize,
    /// Sets of nodes that its affinity admits and whose taints it tolerates.
    pub(super) affine: usize,
    pub(super) tolerated: usize,
    /// Alternatives of node requirements, one of which must hold.
    pub(super) alternatives: Arc<[Requirements]>,
    /// Rules about other pods.
    pub(super) rules: Arc<Rules>,
    /// What it means to other pods of its node.
    pub(super) host: Host,
    /// Whether requirements name labels that only a pool's choice decides.
    pub(super) custom: bool,
    /// Single domains that were decided: `(key, domain)`.
    pub(super) pinned: Vec<(usize, usize)>,
    /// Pods when they were pinned.
    pub(super) size: u32,
    /// Of these, so many are in the domain in any plan that spreads them over the same domains.
    pub(super) floor: u32,
    /// Why no domain is left for it.
    pub(super) blocked: Option<Reason>,
    /// Shapes that were cut from one have the same origin.
    pub(super) origin: usize,
    /// Shapes of one admission have the same selector, affinity and tolerations.
    pub(super) admission: usize,
}

impl Shape {
    /// Pods (or bundles) still to place.
    pub(super) fn left(&self) -> u32 {
        let left = self.demands.iter().map(|(_, count)| count).sum();
        if self.whole { u32::min(left, 1) } else { left }
    }

    /// Takes `count` pods from its demands, the first demands first; a bundle is taken whole.
    pub(super) fn take(&mut self, mut count: u32, mut to: impl FnMut(usize, u32)) {
        if self.whole && count > 0 {
            count = u32::MAX;
        }
        for (demand, left) in &mut self.demands {
            let taken = count.min(*left);
            if taken > 0 {
                *left -= taken;
                count -= taken;
                to(*demand, taken);
            }
        }
    }
}

/// One offering of one type of one pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) pool: usize,
    pub(super) type_index: usize,
    pub(super) offering_index: usize,
    /// Price with volumes, micro-dollars per hour.
    pub(super) price: i64,
    /// Position of its room in [`Compiled::rooms`].
    pub(super) room: usize,
    /// Whether it sells capacity that is reserved.
    pub(super) reserved: bool,
}

impl Column {
    pub(super) fn offering(&self) -> OfferingRef {
        OfferingRef { type_index: self.type_index, offering_index: self.offering_index }
    }
}

/// Sets of ordinals, each kept once.
#[derive(Clone, Debug, Default)]
pub(super) struct Sets {
    list: Vec<FixedBitSet>,
    known: BTreeMap<Vec<usize>, usize>,
}

impl Sets {
    pub(super) fn add(&mut self, set: FixedBitSet) -> usize {
        let next = self.list.len();
        let mut key = set.as_slice().to_vec();
        key.push(set.len());
        let at = *self.known.entry(key).or_insert(next);
        if at == next {
            self.list.push(set);
        }
        at
    }

    pub(super) fn get(&self, at: usize) -> &FixedBitSet {
        &self.list[at]
    }

    /// Members of a set for which `keep` holds, as a set.
    pub(super) fn narrow(&mut self, at: usize, keep: impl Fn(usize) -> bool) -> usize {
        let mut set = self.list[at].clone();
        let out: Vec<usize> = set.ones().filter(|member| !keep(*member)).collect();
        if out.is_empty() {
            return at;
        }
        for member in out {
            set.set(member, false);
        }
        self.add(set)
    }
}

/// What can be bought, in ordinals. It depends on pools, DaemonSets and attach limits alone, so all
/// solves about one cluster can share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Offers {
    /// Resources that anything asks, then volumes by driver.
    pub(super) dims: Vec<Arc<str>>,
    pub(super) columns: Vec<Column>,
    /// What a new node of a pool and type leaves for pods, by dimension.
    pub(super) rooms: Vec<Vec<i64>>,
    /// DaemonSet requests on it.
    pub(super) daemon_requests: Vec<Resources>,
    /// Volumes that nodes can attach.
    pub(super) limits: Limits,
    /// Columns on which volumes of each driver that were set aside have no room.
    crowded: Vec<FixedBitSet>,
}

impl Offers {
    /// What the pools of `problem` offer to pods that ask for no other resources than `pods` do.
    pub(super) fn new<'p>(
        problem: &Problem,
        pods: impl IntoIterator<Item = &'p Arc<PodShape>>,
        limits: &Limits,
    ) -> Self {
        let mut names: BTreeSet<&str> = BTreeSet::from([PODS]);
        for pod in pods {
            names.extend(pod.requests.iter().map(|(name, _)| name));
        }
        let drivers = limits.drivers.iter().map(|driver| Limits::resource(driver).into());
        let mut offers = Self {
            dims: names.into_iter().map(Arc::from).chain(drivers).collect(),
            limits: limits.clone(),
            ..Self::default()
        };
        let mut crowded: Vec<Vec<usize>> = vec![Vec::new(); limits.drivers.len()];
        for (pool, slot) in problem.pools.iter().enumerate() {
            if slot.pool.ready && slot.pool.replicas.is_none() {
                offers.add_pool(problem, pool, slot, &mut crowded);
            }
        }
        let set = |columns: Vec<usize>| {
            let mut set: FixedBitSet = columns.into_iter().collect();
            set.grow(offers.columns.len());
            set
        };
        offers.crowded = crowded.into_iter().map(set).collect();
        offers
    }

    fn add_pool(
        &mut self,
        problem: &Problem,
        pool: usize,
        slot: &PoolSlot,
        crowded: &mut [Vec<usize>],
    ) {
        let asked = Asked::of(&slot.pool.requirements);
        // A reservation is one type in one zone, which is no choice.
        let reserves = !choice::is_varied(slot);
        for (type_index, instance) in slot.types.iter().enumerate() {
            if slot.pool.requirements.conflict(&instance.requirements).is_some() {
                continue;
            }
            let room = self.rooms.len();
            let before = self.columns.len();
            for (offering_index, offering) in instance.offerings.iter().enumerate() {
                let held = |reserved: &Reserved| problem.reserved_left(reserved) > 0 && reserves;
                if offering.available
                    && asked.met_by(offering)
                    && offering.reserved.as_ref().is_none_or(held)
                {
                    let price = (offering.price + slot.volume_price).0;
                    let reserved = offering.reserved.is_some();
                    self.columns.push(Column {
                        pool,
                        type_index,
                        offering_index,
                        price,
                        room,
                        reserved,
                    });
                }
            }
            if self.columns.len() > before {
                let daemons = daemon_requests(problem, pool, instance);
                let left = instance.allocatable().minus(&daemons);
                if feasible::overfull(&left).is_some() {
                    self.columns.truncate(before);
                    continue;
                }
                let mut room = self.vector(&left);
                let first = self.first_driver();
                for (driver, left) in self.limits.of_type(instance).enumerate() {
                    room[first + driver] = left.max(0);
                    if left < 0 {
                        crowded[driver].extend(before..self.columns.len());
                    }
                }
                self.rooms.push(room);
                self.daemon_requests.push(daemons);
            }
        }
    }

    /// Position of the first driver among the dimensions.
    pub(super) fn first_driver(&self) -> usize {
        self.dims.len() - self.limits.drivers.len()
    }

    /// The greatest room of any type, by dimension; at least 1.
    pub(super) fn largest(&self) -> Vec<i64> {
        let mut most = vec![1_i64; self.dims.len()];
        for room in &self.rooms {
            for (most, amount) in most.iter_mut().zip(room) {
                *most = (*most).max(*amount);
            }
        }
        most
    }

    /// Whether all resources that are asked are among the dimensions.
    pub(super) fn knows(&self, requests: &Resources) -> bool {
        requests.iter().all(|(name, _)| self.dims.iter().any(|known| **known == *name))
    }

    /// Amounts by dimension.
    pub(super) fn vector(&self, resources: &Resources) -> Vec<i64> {
        self.dims.iter().map(|name| resources.get(name)).collect()
    }
}

/// What the packer works on.
#[derive(Clone, Debug)]
pub(super) struct Compiled<'a> {
    pub(super) problem: &'a Problem,
    pub(super) offers: &'a Offers,
    pub(super) shapes: Vec<Shape>,
    pub(super) sets: Sets,
    pub(super) topology: Topology,
    /// Host ports that pods ask for.
    pub(super) ports: Vec<HostPort>,
}

/// What decides the columns and nodes of a pod.
type Admission<'w> = (&'w Requirements, &'w [NodeTerm], &'w [Toleration], bool);

/// What decides them further where the pod has volumes.
type WithVolumes<'w> = (usize, &'w Needs);

/// What [`Admission`] leads to: sets of columns, of nodes that affinity admits, of nodes whose
/// taints are tolerated, and of nodes of both kinds.
#[derive(Clone)]
struct Admitted {
    id: usize,
    columns: usize,
    affine: usize,
    tolerated: usize,
    nodes: usize,
    alternatives: Arc<[Requirements]>,
    custom: bool,
}

impl<'a> Compiled<'a> {
    pub(super) fn new(problem: &'a Problem, offers: &'a Offers, pieces: &[Piece]) -> Self {
        let mut compiled = Self {
            problem,
            offers,
            shapes: Vec::new(),
            sets: Sets::default(),
            topology: Topology::default(),
            ports: Vec::new(),
        };
        compiled.add_shapes(pieces);
        daemons::keep_apart(&mut compiled);
        host::compile(&mut compiled);
        compiled
    }

    /// The type of a column.
    pub(super) fn instance_type(&self, column: &Column) -> &'a InstanceType {
        &self.problem.pools[column.pool].types[column.type_index]
    }

    /// The reserved part that a column sells, if it is one.
    pub(super) fn reserved(&self, column: usize) -> Option<&'a Reserved> {
        let column = &self.offers.columns[column];
        self.instance_type(column).offerings[column.offering_index].reserved.as_ref()
    }

    /// Whether a column sells reserved capacity.
    pub(super) fn reserves(&self, column: usize) -> bool {
        self.offers.columns[column].reserved
    }

    /// What a pod asks, by dimension.
    fn request(&self, resources: &Resources, needs: &Needs) -> Vec<i64> {
        let mut request = self.offers.vector(resources);
        let first = self.offers.first_driver();
        for (driver, count) in &needs.attach {
            request[first + driver] += count;
        }
        request
    }

    /// What a node that exists leaves, by dimension.
    pub(super) fn free(&self, node: usize) -> Vec<i64> {
        let mut free = self.offers.vector(&self.problem.nodes[node].free);
        let first = self.offers.first_driver();
        free[first..].copy_from_slice(self.offers.limits.of_node(node));
        free
    }

    /// Columns of a shape.
    pub(super) fn columns_of(&self, shape: &Shape) -> &FixedBitSet {
        self.sets.get(shape.columns)
    }

    /// Whether no column and no node is left for a shape.
    pub(super) fn is_hopeless(&self, shape: &Shape) -> bool {
        self.columns_of(shape).is_clear() && self.sets.get(shape.nodes).is_clear()
    }

    /// Whether a spread of a shape counts pods on a node.
    pub(super) fn counts_on(&self, shape: &Shape, spread: &Spread, node: usize) -> bool {
        (!spread.honor_affinity || self.sets.get(shape.affine).contains(node))
            && (!spread.honor_taints || self.sets.get(shape.tolerated).contains(node))
    }

    /// Whether nodes of the pool and type can meet an alternative, zone and capacity type aside.
    pub(super) fn template_meets(
        &self,
        pool: usize,
        instance: &InstanceType,
        alternative: &Requirements,
    ) -> bool {
        instance.meets(&self.problem.pools[pool].pool.requirements, alternative)
    }

    /// Whether nodes of a column can meet an alternative.
    pub(super) fn column_meets(&self, column: usize, alternative: &Requirements) -> bool {
        let column = &self.offers.columns[column];
        let instance = self.instance_type(column);
        self.template_meets(column.pool, instance, alternative)
            && Asked::of(alternative).met_by(&instance.offerings[column.offering_index])
    }

    fn add_shapes(&mut self, pieces: &[Piece]) {
        let groups = fold::fold(self.problem, pieces);
        let wants: Vec<&Want> = groups.iter().map(|group| &pieces[group[0]].want).collect();
        let (topology, rules) = Topology::new(self.problem, &self.offers.columns, &wants);
        self.topology = topology;
        let mut cache: BTreeMap<Admission<'_>, Admitted> = BTreeMap::new();
        let mut with_volumes: BTreeMap<WithVolumes<'_>, Admitted> = BTreeMap::new();
        for ((group, want), rules) in groups.iter().zip(&wants).zip(rules) {
            let pod = &want.pod;
            let key: Admission<'_> =
                (&pod.node_selector, &pod.required_node_terms, &pod.tolerations, want.avoids);
            let id = cache.len();
            let mut admitted = cache.entry(key).or_insert_with(|| self.admitted(want, id)).clone();
            let needs = &*pieces[group[0]].needs;
            if !needs.is_free() {
                let known = with_volumes.entry((admitted.id, needs));
                admitted = known.or_insert_with(|| self.narrowed(want, needs, &admitted)).clone();
            }
            let mut demands: Vec<(usize, u32)> = Vec::new();
            for at in group {
                let piece = &pieces[*at];
                match demands.last_mut() {
                    Some((demand, count)) if *demand == piece.demand => *count += piece.count,
                    _ => demands.push((piece.demand, piece.count)),
                }
            }
            self.shapes.push(Shape {
                request: self.request(&pod.requests, needs),
                pod: Arc::clone(pod),
                avoids: want.avoids,
                demands,
                whole: false,
                columns: admitted.columns,
                wide: admitted.columns,
                nodes: admitted.nodes,
                affine: admitted.affine,
                tolerated: admitted.tolerated,
                alternatives: admitted.alternatives,
                rules: Arc::new(rules),
                host: Host::default(),
                custom: admitted.custom,
                floor: 0,
                pinned: Vec::new(),
                size: 0,
                blocked: None,
                origin: 0,
                admission: admitted.id,
            });
        }
        self.order_shapes();
    }

    fn admitted(&mut self, want: &Want, id: usize) -> Admitted {
        let pod = &want.pod;
        let alternatives: Arc<[Requirements]> = pod.node_alternatives().into();
        let columns = feasible::columns(self, pod, want.avoids, &alternatives, None);
        let columns = self.sets.add(columns);
        let nodes = &self.problem.nodes;
        let mut affine = FixedBitSet::with_capacity(nodes.len());
        let mut tolerated = FixedBitSet::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            affine.set(index, feasible::met_by(pod, &alternatives, node));
            let repelled = feasible::repelled(&node.taints, pod, want.avoids);
            tolerated.set(index, repelled.is_none());
        }
        let mut both = affine.clone();
        both.intersect_with(&tolerated);
        Admitted {
            id,
            columns,
            affine: self.sets.add(affine),
            tolerated: self.sets.add(tolerated),
            nodes: self.sets.add(both),
            custom: custom(&alternatives),
            alternatives,
        }
    }

    /// What is left of `admitted` where the pod's volumes can be. What spreads count stays as it is.
    fn narrowed(&mut self, want: &Want, needs: &Needs, admitted: &Admitted) -> Admitted {
        let own = want.pod.node_alternatives();
        let reach = needs.reach.as_deref();
        let mut columns = feasible::columns(self, &want.pod, want.avoids, &own, reach);
        if needs.node.is_some() {
            columns.clear();
        }
        for driver in &needs.shares {
            columns.difference_with(&self.offers.crowded[*driver]);
        }
        let alternatives: Arc<[Requirements]> = match reach {
            Some(reach) => volumes::both(&own, reach).into(),
            None => Arc::clone(&admitted.alternatives),
        };
        let nodes = &self.problem.nodes;
        let limits = &self.offers.limits;
        let nodes = self.sets.narrow(admitted.nodes, |at| {
            let node = &nodes[at];
            reach.is_none_or(|reach| reach.iter().any(|all| all.met_by(&node.labels)))
                && needs.node.as_ref().is_none_or(|name| *name == node.name)
                && needs.shares.iter().all(|driver| limits.of_node(at)[*driver] >= 0)
        });
        Admitted {
            columns: self.sets.add(columns),
            nodes,
            custom: custom(&alternatives),
            alternatives,
            ..admitted.clone()
        }
    }

    /// Priority first, then the largest share of the largest room, then the shape itself, so that
    /// the order of the input does not matter.
    fn order_shapes(&mut self) {
        let most = self.offers.largest();
        let size = |shape: &Shape| share(&shape.request, &most);
        // Shapes are in the order of their content, which decides between equals.
        self.shapes.sort_by_cached_key(|shape| {
            (std::cmp::Reverse(shape.pod.priority), std::cmp::Reverse(size(shape)))
        });
        for (at, shape) in self.shapes.iter_mut().enumerate() {
            shape.origin = at;
        }
    }
}

/// The largest share of `most` that is asked, in millionths.
pub(super) fn share(asked: &[i64], most: &[i64]) -> i128 {
    let shares = asked.iter().zip(most);
    shares.map(|(a, m)| i128::from(*a) * 1_000_000 / i128::from(*m)).max().unwrap_or(0)
}

/// Whether requirements name labels that only a pool's choice decides.
fn custom(alternatives: &[Requirements]) -> bool {
    let mut keys = alternatives.iter().flat_map(Requirements::iter).map(|(key, _)| key);
    keys.any(|key| !labels::is_well_known(key) || &**key == labels::NODEPOOL)
}
