//! Which claims to make for the demand that there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::catalogs::{Catalog, Catalogs};
use super::draft::{self, ClaimDraft, Wish, draft};
use super::gangs;
use crate::cluster::Snapshot;
use crate::cluster::snapshot::ObjectKey;
use crate::cluster::view::{daemons_to_come, expected_node, open};
use crate::demand::{Assignment, Assignments, Ledger, Reservation};
use crate::model::claim::ClaimStage;
use crate::model::labels;
use crate::model::money::MicroDollarsPerHour;
use crate::model::node::Node;
use crate::model::pod::{Pod, PodShape};
use crate::schedule::check::{self, Violation};
use crate::schedule::{
    self, Demand, Hurry, NewNode, NodeSlot, Options, PoolSlot, Problem, Reasons,
};

/// Announced pods of one workload for which room is bought before they are there. Controllers make
/// about 50 pods a second, so this is a minute and a half of them; a slip in `replicas` must not buy
/// a fleet before a quota has its say.
pub const MOST_AHEAD: u32 = 5_000;

/// Pods that fit nowhere.
#[derive(Clone, Debug)]
pub struct Unschedulable {
    /// Pods that wait; none for pods that are only announced.
    pub pods: Vec<ObjectKey>,
    /// How many.
    pub count: u32,
    /// Why.
    pub reasons: Reasons,
}

/// What to do.
#[derive(Clone, Debug, Default)]
pub struct ProvisionPlan {
    /// Claims to make.
    pub claims: Vec<ClaimDraft>,
    /// Pods that fit nowhere, with the reasons; virtual pods have no key.
    pub unschedulable: Vec<Unschedulable>,
    /// Nodes on which demand was placed that is not bound yet: they must not be ended as empty.
    pub holds: BTreeSet<Arc<str>>,
    /// Price of the new claims.
    pub cost: MicroDollarsPerHour,
    /// What the checker found; a plan with findings has no claims.
    pub violations: Vec<Violation>,
}

/// One row of demand and who asks for it.
struct Wanted {
    owner: Arc<str>,
    shape: Arc<PodShape>,
    pods: Vec<ObjectKey>,
    count: u32,
}

/// Pods of each owner that assignments cover, by what they ask.
type Covered = BTreeMap<Arc<str>, BTreeMap<Arc<PodShape>, u32>>;

/// How to plan.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether pods that workloads announced are planned before they exist.
    pub intents: bool,
    /// Improvement attempts of the packing.
    pub improve: u32,
    /// Asks for an early end.
    pub hurry: Hurry,
}

/// Plans claims for all demand that neither nodes nor claims on their way cover.
pub fn provision(
    snapshot: &Snapshot,
    ledger: &Ledger,
    assignments: &Assignments,
    catalogs: &Catalogs,
    settings: &Settings,
    now: i64,
    seed: u64,
) -> ProvisionPlan {
    let pools = pools(snapshot, assignments, catalogs);
    let (nodes, covered) = nodes(snapshot, assignments, &pools);
    let wanted = wanted(snapshot, ledger, settings.intents, covered);
    if wanted.is_empty() {
        return ProvisionPlan::default();
    }
    let mut problem = Problem {
        demands: wanted
            .iter()
            .map(|w| Demand { shape: Arc::clone(&w.shape), count: w.count, gang: None })
            .collect(),
        nodes,
        pools,
        daemons: snapshot.daemons(),
        namespaces: (*snapshot.namespaces).clone(),
        volumes: snapshot.volumes.clone(),
        reserved: reserved(snapshot),
        options: Options {
            improve: settings.improve,
            seed,
            hurry: settings.hurry.clone(),
            ..Options::default()
        },
        ..Problem::default()
    };
    gangs::join(&mut problem, snapshot, ledger);
    let solution = schedule::solve(&problem);
    let violations = check::check(&problem, &solution);
    if !violations.is_empty() {
        return ProvisionPlan { violations, ..ProvisionPlan::default() };
    }
    let mut claims: Vec<ClaimDraft> = solution
        .new_nodes
        .iter()
        .enumerate()
        .map(|(index, node)| {
            let slot = &problem.pools[node.pool];
            draft(catalogs, slot, &wish(node, &wanted), &draft::name(seed, now, index))
        })
        .collect();
    draft::group(&mut claims, seed, now);
    let unschedulable = solution
        .unplaced
        .iter()
        .map(|u| Unschedulable {
            pods: wanted[u.demand].pods.clone(),
            count: u.count,
            reasons: u.reasons.clone(),
        })
        .collect();
    let holds =
        solution.placements.iter().map(|p| Arc::clone(&problem.nodes[p.node].name)).collect();
    ProvisionPlan { claims, unschedulable, holds, cost: solution.cost, violations }
}

/// Pools that can be bought from, with what their limits leave.
pub fn pools(snapshot: &Snapshot, assignments: &Assignments, catalogs: &Catalogs) -> Vec<PoolSlot> {
    let mut slots = Vec::new();
    for pool in snapshot.pools.values() {
        let catalog = catalogs.of(pool);
        let (mut used, nodes) = snapshot.pool_usage(&pool.name);
        for claim in snapshot.claims.values().filter(|claim| claim.pool == pool.name) {
            if claim.capacity.is_zero()
                && let Some(planned) = assignments.capacity(&claim.name)
            {
                used.add(planned);
            }
        }
        let remaining = pool
            .limits
            .iter()
            .map(|(name, limit)| {
                let used = if &**name == "nodes" { nodes } else { used.get(name) };
                (Arc::clone(name), limit - used)
            })
            .collect();
        let mut pool = Arc::clone(pool);
        if catalog.is_none() && pool.ready {
            Arc::make_mut(&mut pool).ready = false;
        }
        let Catalog { types, volume_price } = catalog.unwrap_or_else(|| Catalog {
            types: Arc::from([]),
            volume_price: MicroDollarsPerHour::ZERO,
        });
        slots.push(PoolSlot { pool, types, remaining, volume_price });
    }
    slots
}

/// Instances of capacity reservations that claims on their way will take, by id. Those that were
/// launched are counted by the cloud.
pub(super) fn reserved(snapshot: &Snapshot) -> BTreeMap<Arc<str>, u32> {
    let mut taken = BTreeMap::new();
    for claim in snapshot.claims.values() {
        let id = claim.requirements.get(labels::RESERVATION_ID).and_then(|id| id.single());
        if let Some(id) = id.filter(|_| claim.stage == ClaimStage::Pending && !claim.deleting()) {
            *taken.entry(Arc::clone(id)).or_insert(0) += 1;
        }
    }
    taken
}

/// Nodes and launched claims with the room that they leave, and how many pods of each owner the
/// assignments of claims already cover.
fn nodes(
    snapshot: &Snapshot,
    assignments: &Assignments,
    pools: &[PoolSlot],
) -> (Vec<NodeSlot>, Covered) {
    let by_node = snapshot.pods_by_node();
    let daemons = snapshot.daemons();
    let by_provider_id = snapshot.claims_by_provider_id();
    let mut covered = Covered::new();
    let mut slots = Vec::new();
    let none = Vec::new();
    let position = |name: &str| pools.iter().position(|slot| &*slot.pool.name == name);
    for node in snapshot.nodes.values() {
        let claim =
            by_provider_id.get(&*node.provider_id).filter(|c| c.provider_id == node.provider_id);
        let claim = claim.filter(|claim| !claim.provider_id.is_empty());
        if node.deleted_at.is_some() || claim.is_some_and(|claim| claim.deleting()) {
            continue;
        }
        let pods = by_node.get(&*node.name).unwrap_or(&none);
        match claim {
            Some(claim) if !open(claim) => {
                // Until it is initialized the claim's promise counts, not what the kubelet has
                // reported so far.
                let mut expected = expected_node(claim);
                expected.labels.extend(node.labels.clone());
                expected.name = Arc::clone(&node.name);
                slots.push(slot(
                    &expected,
                    pods,
                    &daemons,
                    assignments.of(&claim.name),
                    snapshot,
                    &mut covered,
                    position(&claim.pool),
                    false,
                ));
            }
            // From then on its taints are to be believed: the scheduler keeps pods from a node that
            // is not ready any more, and so must a plan.
            claim => slots.push(slot(
                node,
                pods,
                &daemons,
                claim.map_or(&[], |claim| assignments.of(&claim.name)),
                snapshot,
                &mut covered,
                claim.and_then(|claim| position(&claim.pool)),
                true,
            )),
        }
    }
    for claim in snapshot.claims.values().filter(|claim| !claim.deleting()) {
        let assigned = assignments.of(&claim.name);
        if claim.stage == ClaimStage::Pending {
            // What will be launched is not known yet: it holds what it was planned for, no more.
            for pods in assigned {
                cover(&mut covered, pods, pods.count);
            }
        } else if snapshot.node_of(claim).is_none() {
            let expected = expected_node(claim);
            slots.push(slot(
                &expected,
                &none,
                &daemons,
                assigned,
                snapshot,
                &mut covered,
                position(&claim.pool),
                false,
            ));
        }
    }
    (slots, covered)
}

#[expect(clippy::too_many_arguments, reason = "one call shape for all kinds of nodes")]
fn slot(
    node: &Node,
    pods: &[&Arc<Pod>],
    daemons: &[Arc<PodShape>],
    assigned: &[Assignment],
    snapshot: &Snapshot,
    covered: &mut Covered,
    pool: Option<usize>,
    initialized: bool,
) -> NodeSlot {
    let mut free = node.allocatable.clone();
    let mut there: BTreeMap<Arc<PodShape>, u32> = BTreeMap::new();
    let mut came: BTreeMap<Arc<str>, u32> = BTreeMap::new();
    let mut host_ports = Vec::new();
    for pod in pods {
        free.sub(&pod.shape.requests);
        host_ports.extend(pod.shape.host_ports.iter().cloned());
        *there.entry(pod.shape_there()).or_insert(0) += 1;
        *came.entry(snapshot.root_of(pod)).or_insert(0) += 1;
    }
    free.sub(&daemons_to_come(node, daemons, pods));
    for planned in assigned {
        let arrived = came.get_mut(&planned.owner);
        let mut left = planned.count;
        if let Some(arrived) = arrived {
            let taken = left.min(*arrived);
            *arrived -= taken;
            left -= taken;
        }
        // If somebody took the room, the pods must be planned elsewhere.
        let mut held = 0;
        while held < left && planned.shape.requests.fits(&free) {
            free.sub(&planned.shape.requests);
            held += 1;
        }
        if held > 0 {
            cover(covered, planned, held);
            *there.entry(Arc::clone(&planned.shape)).or_insert(0) += held;
        }
    }
    NodeSlot {
        name: Arc::clone(&node.name),
        labels: node.labels.clone(),
        taints: node.lasting_taints(initialized),
        free,
        pods: there.into_iter().collect(),
        host_ports,
        pool,
        initialized,
    }
}

/// Counts planned pods as covered.
fn cover(covered: &mut Covered, planned: &Assignment, count: u32) {
    let by_shape = covered.entry(Arc::clone(&planned.owner)).or_default();
    *by_shape.entry(Arc::clone(&planned.shape)).or_insert(0) += count;
}

/// Takes as much as there is from both.
fn take(count: &mut u32, left: &mut u32) {
    let taken = (*count).min(*left);
    *count -= taken;
    *left -= taken;
}

/// Demand that assignments do not cover: pods that wait first, then pods that are announced.
fn wanted(
    snapshot: &Snapshot,
    ledger: &Ledger,
    intents: bool,
    mut covered: Covered,
) -> Vec<Wanted> {
    let mut waiting: BTreeMap<(Arc<str>, Arc<PodShape>), Vec<ObjectKey>> = BTreeMap::new();
    for (key, pod) in snapshot.pods.iter() {
        if wants_place(snapshot, pod) {
            let owner = snapshot.root_of(pod);
            waiting.entry((owner, Arc::clone(&pod.shape))).or_default().push(key.clone());
        }
    }
    let mut wanted = Vec::new();
    // The very pods that were planned first: volumes of others may be elsewhere.
    for ((owner, shape), pods) in waiting {
        let mut count = u32::try_from(pods.len()).unwrap_or(u32::MAX);
        if let Some(left) = covered.get_mut(&owner).and_then(|by| by.get_mut(&shape)) {
            take(&mut count, left);
        }
        if count > 0 {
            wanted.push(Wanted { owner, shape, pods, count });
        }
    }
    let mut left: BTreeMap<Arc<str>, u32> =
        covered.into_iter().map(|(owner, by)| (owner, by.into_values().sum())).collect();
    let mut cover = |owner: &Arc<str>, mut count: u32| {
        if let Some(left) = left.get_mut(owner) {
            take(&mut count, left);
        }
        count
    };
    wanted.retain_mut(|row| {
        if snapshot.binds_anywhere(&row.shape) {
            row.count = cover(&row.owner, row.count);
        }
        row.count > 0
    });
    if intents {
        for (owner, reservation) in ledger.iter() {
            let mut count = cover(owner, reservation.missing().min(MOST_AHEAD));
            for shape in numbered(snapshot, reservation, count) {
                let owner = Arc::clone(owner);
                wanted.push(Wanted { owner, shape, pods: Vec::new(), count: 1 });
                count -= 1;
            }
            if count > 0 {
                let shape = Arc::clone(&reservation.shape);
                wanted.push(Wanted { owner: Arc::clone(owner), shape, pods: Vec::new(), count });
            }
        }
    }
    wanted
}

/// Announced pods of a `StatefulSet`, at most `most`, whose claims are left from before: their
/// volumes are where they were.
fn numbered(snapshot: &Snapshot, reservation: &Reservation, most: u32) -> Vec<Arc<PodShape>> {
    let (_, namespace, name) = &reservation.owner;
    if reservation.shape.claims.iter().all(|mounted| !mounted.open) {
        return Vec::new();
    }
    let missing = (0..reservation.desired).filter(|number| {
        let pod = (Arc::clone(namespace), format!("{name}-{number}").into());
        !snapshot.pods.contains_key(&pod)
    });
    let shapes = missing.take(usize::try_from(most).unwrap_or(0)).map(|number| {
        let mut shape = (*reservation.shape).clone();
        for mounted in &mut shape.claims {
            *mounted = mounted.numbered(number);
            // As the pod will say it: from what a claim was made is no matter once it is there.
            if snapshot.volumes.claim(namespace, mounted).is_some() {
                mounted.template = None;
            }
        }
        shape
    });
    shapes.filter(|shape| !snapshot.binds_anywhere(shape)).map(Arc::new).collect()
}

/// Whether a pod needs a place: it waits, or its node is being ended and it will need one as soon as
/// it is evicted.
pub fn wants_place(snapshot: &Snapshot, pod: &Pod) -> bool {
    let leaving = || {
        let node = pod.node_name.as_ref().and_then(|name| snapshot.nodes.get(name));
        node.is_some_and(|node| node.deleted_at.is_some())
    };
    let moving =
        pod.active() && !pod.of_daemon_set() && !pod.mirror && pod.owner.is_some() && leaving();
    (pod.waiting() && pod.nominated_node.is_none()) || moving || nominated_to_ours(snapshot, pod)
}

/// Whether we nominated a waiting pod to a node of ours: it still counts as ours to place.
fn nominated_to_ours(snapshot: &Snapshot, pod: &Pod) -> bool {
    pod.waiting()
        && pod.nominated_node.as_ref().is_some_and(|name| {
            let node = snapshot.nodes.get(name);
            node.is_some_and(|node| node.label(labels::NODEPOOL).is_some())
        })
}

/// A node to buy, and who it is for.
fn wish<'n>(node: &'n NewNode, wanted: &[Wanted]) -> Wish<'n> {
    let pods = node.pods.iter().map(|(demand, count)| Assignment {
        owner: Arc::clone(&wanted[*demand].owner),
        shape: Arc::clone(&wanted[*demand].shape),
        count: *count,
    });
    Wish {
        acceptable: &node.acceptable,
        requirements: &node.requirements,
        requests: &node.requested,
        pods: pods.collect(),
    }
}
