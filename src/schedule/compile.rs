//! From a [`Problem`] to ordinals: shapes folded, resources as vectors, feasibility as bitsets.
//!
//! Everything that costs string comparisons happens here, once per distinct shape. Packing then
//! touches integers only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fixedbitset::FixedBitSet;

use super::problem::Problem;
use crate::model::instance::InstanceType;
use crate::model::labels::{self, Labels};
use crate::model::pod::{PodAffinityTerm, PodShape};
use crate::model::requirement::{Requirement, Requirements};
use crate::model::resources::{PODS, Resources};
use crate::model::taints::untolerated;

/// A set of equal pods.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// One of them.
    pub(super) pod: Arc<PodShape>,
    /// Demands that fold into it, with what is still to place of each, in order of position.
    pub(super) demands: Vec<(usize, u32)>,
    /// Requests by dimension.
    pub(super) request: Vec<i64>,
    /// Columns that may host it.
    pub(super) columns: FixedBitSet,
    /// Alternatives of node requirements, one of which must hold.
    pub(super) alternatives: Vec<Requirements>,
    /// Most pods of the shape on one node.
    pub(super) per_node: u32,
    /// Shapes that cannot share a node with it.
    pub(super) conflicts: FixedBitSet,
    /// Whether requirements name labels that only a pool's choice decides.
    pub(super) custom: bool,
    /// A hard constraint that this engine does not know.
    pub(super) unsupported: Option<&'static str>,
}

impl Shape {
    /// Pods still to place.
    pub(super) fn left(&self) -> u32 {
        self.demands.iter().map(|(_, count)| count).sum()
    }

    /// Takes `count` pods from its demands: the first demands first.
    pub(super) fn take(&mut self, mut count: u32, mut to: impl FnMut(usize, u32)) {
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
}

/// What the packer works on.
#[derive(Clone, Debug)]
pub(super) struct Compiled<'a> {
    pub(super) problem: &'a Problem,
    /// Resources that anything asks.
    pub(super) dims: Vec<Arc<str>>,
    pub(super) shapes: Vec<Shape>,
    pub(super) columns: Vec<Column>,
    /// What a new node of a pool and type leaves for pods, by dimension.
    pub(super) rooms: Vec<Vec<i64>>,
    /// DaemonSet requests on it.
    pub(super) daemon_requests: Vec<Resources>,
}

impl<'a> Compiled<'a> {
    pub(super) fn new(problem: &'a Problem) -> Self {
        let dims = dimensions(problem);
        let mut compiled = Self {
            problem,
            dims,
            shapes: Vec::new(),
            columns: Vec::new(),
            rooms: Vec::new(),
            daemon_requests: Vec::new(),
        };
        compiled.add_columns();
        compiled.add_shapes();
        compiled
    }

    /// The type of a column.
    pub(super) fn instance_type(&self, column: &Column) -> &'a InstanceType {
        &self.problem.pools[column.pool].types[column.type_index]
    }

    /// Amounts by dimension.
    pub(super) fn vector(&self, resources: &Resources) -> Vec<i64> {
        self.dims.iter().map(|name| resources.get(name)).collect()
    }

    fn add_columns(&mut self) {
        for (pool, slot) in self.problem.pools.iter().enumerate() {
            if !slot.pool.ready || slot.pool.fixed {
                continue;
            }
            for (type_index, instance) in slot.types.iter().enumerate() {
                if slot.pool.requirements.conflict(&instance.requirements).is_some() {
                    continue;
                }
                let room = self.rooms.len();
                let before = self.columns.len();
                for (offering_index, offering) in instance.offerings.iter().enumerate() {
                    let pool_allows = |key: &str, value: &str| {
                        slot.pool.requirements.get(key).is_none_or(|r| r.allows(value))
                    };
                    if offering.available
                        && pool_allows(labels::ZONE, &offering.zone)
                        && pool_allows(labels::CAPACITY_TYPE, offering.capacity_type.label())
                    {
                        let price = (offering.price + slot.volume_price).0;
                        self.columns.push(Column { pool, type_index, offering_index, price, room });
                    }
                }
                if self.columns.len() > before {
                    let daemons = daemon_requests(self.problem, pool, instance);
                    let room = instance.allocatable().minus(&daemons);
                    self.rooms.push(self.vector(&room));
                    self.daemon_requests.push(daemons);
                }
            }
        }
    }

    fn add_shapes(&mut self) {
        let visible = visible_keys(self.problem);
        let mut folded: BTreeMap<PodShape, Vec<(usize, u32)>> = BTreeMap::new();
        for (index, demand) in self.problem.demands.iter().enumerate() {
            let mut key = (*demand.shape).clone();
            key.labels.retain(|label, _| visible.contains(label));
            if visible.is_empty() {
                key.namespace = "".into();
            }
            key.volume_claims.clear();
            folded.entry(key).or_default().push((index, demand.count));
        }
        let mut cache: BTreeMap<(Vec<Requirements>, Vec<_>), FixedBitSet> = BTreeMap::new();
        for (_, demands) in folded {
            let pod = Arc::clone(&self.problem.demands[demands[0].0].shape);
            let alternatives = pod.node_alternatives();
            // A term that names nodes that exist cannot be met by a new one.
            let mut terms = pod.required_node_terms.iter().filter(|term| !term.is_empty());
            let open: Vec<Requirements> = alternatives
                .iter()
                .filter(|_| {
                    let name = terms.next().and_then(|term| term.node_name.as_ref());
                    name.is_none_or(|name| name.finite_values().is_none())
                })
                .cloned()
                .collect();
            let columns = cache
                .entry((open.clone(), pod.tolerations.clone()))
                .or_insert_with(|| self.feasible(&pod, &open))
                .clone();
            let custom = alternatives
                .iter()
                .flat_map(Requirements::iter)
                .any(|(key, _)| !labels::is_well_known(key) || &**key == labels::NODEPOOL);
            self.shapes.push(Shape {
                request: self.vector(&pod.requests),
                columns,
                alternatives,
                per_node: per_node(&pod),
                conflicts: FixedBitSet::new(),
                custom,
                unsupported: unsupported(&pod),
                demands,
                pod,
            });
        }
        self.order_shapes();
        self.add_conflicts();
    }

    /// Priority first, then the largest share of the largest room, then the shape itself, so that
    /// the order of the input does not matter.
    fn order_shapes(&mut self) {
        let mut most = vec![1_i64; self.dims.len()];
        for room in &self.rooms {
            for (most, amount) in most.iter_mut().zip(room) {
                *most = (*most).max(*amount);
            }
        }
        let size = |shape: &Shape| {
            let share =
                |(amount, most): (&i64, &i64)| i128::from(*amount) * 1_000_000 / i128::from(*most);
            shape.request.iter().zip(&most).map(share).max().unwrap_or(0)
        };
        self.shapes.sort_by(|a, b| {
            (b.pod.priority, size(b))
                .cmp(&(a.pod.priority, size(a)))
                .then_with(|| a.pod.cmp(&b.pod))
        });
    }

    fn add_conflicts(&mut self) {
        let n = self.shapes.len();
        let namespaces = &self.problem.namespaces;
        let mut all = vec![FixedBitSet::with_capacity(n); n];
        for (i, a) in self.shapes.iter().enumerate() {
            if a.pod.host_ports.is_empty() && a.pod.pod_anti_affinity.is_empty() {
                continue;
            }
            for (j, b) in self.shapes.iter().enumerate() {
                if i != j && (ports_clash(&a.pod, &b.pod) || repels(&a.pod, &b.pod, namespaces)) {
                    all[i].insert(j);
                    all[j].insert(i);
                }
            }
        }
        for (shape, conflicts) in self.shapes.iter_mut().zip(all) {
            shape.conflicts = conflicts;
        }
    }

    fn feasible(&self, pod: &PodShape, alternatives: &[Requirements]) -> FixedBitSet {
        let mut bits = FixedBitSet::with_capacity(self.columns.len());
        let pools: Vec<bool> = self
            .problem
            .pools
            .iter()
            .map(|slot| untolerated(&slot.pool.taints, &pod.tolerations).is_none())
            .collect();
        let mut index = 0;
        while index < self.columns.len() {
            // Columns of one pool and type are neighbours.
            let first = self.columns[index];
            let end = index
                + self.columns[index..]
                    .iter()
                    .take_while(|column| column.room == first.room)
                    .count();
            if pools[first.pool] {
                let instance = self.instance_type(&first);
                for alternative in alternatives {
                    if !self.template_meets(first.pool, instance, alternative) {
                        continue;
                    }
                    for at in index..end {
                        let offering = &instance.offerings[self.columns[at].offering_index];
                        let meets = |key: &str, value: &str| {
                            alternative.get(key).is_none_or(|r| r.allows(value))
                        };
                        if meets(labels::ZONE, &offering.zone)
                            && meets(labels::CAPACITY_TYPE, offering.capacity_type.label())
                        {
                            bits.insert(at);
                        }
                    }
                }
            }
            index = end;
        }
        bits
    }

    /// Whether nodes of the pool and type can meet an alternative, zone and capacity type aside.
    pub(super) fn template_meets(
        &self,
        pool: usize,
        instance: &InstanceType,
        alternative: &Requirements,
    ) -> bool {
        template_meets(&self.problem.pools[pool].pool.requirements, instance, alternative)
    }
}

/// Whether nodes of a pool with these requirements and of this type can meet an alternative, zone
/// and capacity type aside. A key that neither defines is open when it is well known.
pub(super) fn template_meets(
    pool: &Requirements,
    instance: &InstanceType,
    alternative: &Requirements,
) -> bool {
    alternative.iter().all(|(key, wanted)| {
        if matches!(&**key, labels::ZONE | labels::CAPACITY_TYPE) {
            return true;
        }
        match (pool.get(key), instance.requirements.get(key)) {
            (Some(pool), Some(own)) => {
                let both = pool.intersect(own);
                both.intersects(wanted)
            }
            (Some(found), None) | (None, Some(found)) => found.intersects(wanted),
            (None, None) => initial_label(key).map_or(wanted.allows_absent(), |v| wanted.allows(v)),
        }
    })
}

/// Labels that every node of ours gets, whatever its pool.
fn initial_label(key: &str) -> Option<&'static str> {
    matches!(key, labels::REGISTERED | labels::INITIALIZED).then_some("true")
}

fn dimensions(problem: &Problem) -> Vec<Arc<str>> {
    let mut names = BTreeSet::from([Arc::from(PODS)]);
    for demand in &problem.demands {
        names.extend(demand.shape.requests.iter().map(|(name, _)| Arc::from(name)));
    }
    names.into_iter().collect()
}

/// What the DaemonSets ask on a node of a pool and type.
pub(super) fn daemon_requests(
    problem: &Problem,
    pool: usize,
    instance: &InstanceType,
) -> Resources {
    let pool = &problem.pools[pool].pool;
    let mut total = Resources::default();
    for daemon in &problem.daemons {
        let fits = untolerated(&pool.taints, &daemon.tolerations).is_none()
            && daemon.node_alternatives().iter().any(|alternative| {
                template_meets(&pool.requirements, instance, alternative)
                    && zones_meet(pool.requirements.get(labels::ZONE), instance, alternative)
            });
        if fits {
            total.add(&daemon.requests);
        }
    }
    total
}

/// Whether some offering of the type is in a zone that both the pool and the alternative admit.
fn zones_meet(
    pool: Option<&Requirement>,
    instance: &InstanceType,
    alternative: &Requirements,
) -> bool {
    let wanted = alternative.get(labels::ZONE);
    let wanted_type = alternative.get(labels::CAPACITY_TYPE);
    instance.offerings.iter().any(|offering| {
        pool.is_none_or(|r| r.allows(&offering.zone))
            && wanted.is_none_or(|r| r.allows(&offering.zone))
            && wanted_type.is_none_or(|r| r.allows(offering.capacity_type.label()))
    })
}

/// Labels that some selector looks at; pods that differ only in others are equal.
fn visible_keys(problem: &Problem) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut see = |pod: &PodShape| {
        let terms = pod.pod_affinity.iter().chain(&pod.pod_anti_affinity);
        let preferred = pod.preferred_pod_terms.iter().map(|(_, term)| term);
        let selectors = terms.chain(preferred).filter_map(|term| term.selector.as_ref());
        for selector in selectors.chain(pod.spread.iter().filter_map(|c| c.selector.as_ref())) {
            keys.extend(selector.match_labels.keys().cloned());
            keys.extend(selector.match_expressions.iter().map(|e| e.key.clone()));
        }
    };
    problem.demands.iter().for_each(|demand| see(&demand.shape));
    for (pod, _) in problem.nodes.iter().flat_map(|node| &node.pods) {
        see(pod);
    }
    keys
}

fn per_node(pod: &PodShape) -> u32 {
    let mut most = if pod.host_ports.is_empty() { u32::MAX } else { 1 };
    for term in &pod.pod_anti_affinity {
        if &*term.topology_key == labels::HOSTNAME && selects(term, pod, pod, &BTreeMap::new()) {
            most = 1;
        }
    }
    for spread in &pod.spread {
        if spread.required && &*spread.topology_key == labels::HOSTNAME {
            // A node without any of the pods may always exist, so the least count is 0.
            most = most.min(u32::try_from(spread.max_skew.max(1)).unwrap_or(1));
        }
    }
    most
}

fn unsupported(pod: &PodShape) -> Option<&'static str> {
    if !pod.pod_affinity.is_empty() {
        return Some("required inter-pod affinity");
    }
    if pod.pod_anti_affinity.iter().any(|term| &*term.topology_key != labels::HOSTNAME) {
        return Some("required inter-pod anti-affinity beyond the host name");
    }
    let known = [labels::HOSTNAME, labels::ZONE];
    let odd = |key: &str| !known.contains(&key);
    if pod.spread.iter().any(|spread| spread.required && odd(&spread.topology_key)) {
        return Some("topology spread over keys other than zone and host name");
    }
    None
}

/// Whether `term` of `owner` means `other`.
pub(super) fn selects(
    term: &PodAffinityTerm,
    owner: &PodShape,
    other: &PodShape,
    namespaces: &BTreeMap<Arc<str>, Labels>,
) -> bool {
    let named = if term.namespaces.is_empty() && term.namespace_selector.is_none() {
        owner.namespace == other.namespace
    } else {
        term.namespaces.contains(&other.namespace)
            || term.namespace_selector.as_ref().is_some_and(|selector| {
                selector.matches(namespaces.get(&other.namespace).unwrap_or(&Labels::new()))
            })
    };
    named && term.selector.as_ref().is_some_and(|selector| selector.matches(&other.labels))
}

/// Whether `a` refuses to share a node with `b`.
pub(super) fn repels(a: &PodShape, b: &PodShape, namespaces: &BTreeMap<Arc<str>, Labels>) -> bool {
    a.pod_anti_affinity
        .iter()
        .any(|term| &*term.topology_key == labels::HOSTNAME && selects(term, a, b, namespaces))
}

fn ports_clash(a: &PodShape, b: &PodShape) -> bool {
    a.host_ports.iter().any(|port| b.host_ports.iter().any(|other| port.conflicts(other)))
}
