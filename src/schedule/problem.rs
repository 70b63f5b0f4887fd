//! The input of a solve.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::model::gang::PodGroups;
use crate::model::instance::{InstanceType, Reserved};
use crate::model::labels::Labels;
use crate::model::money::MicroDollarsPerHour;
use crate::model::pod::{HostPort, PodShape};
use crate::model::pool::Pool;
use crate::model::resources::Resources;
use crate::model::taints::Taint;
use crate::model::volume::Volumes;

/// Everything that a solve depends on. Lists are referred to by position.
#[derive(Clone, Debug, Default)]
pub struct Problem {
    /// Pods to place, folded by shape. The order does not matter.
    pub demands: Vec<Demand>,
    /// Gangs that demands belong to.
    pub gangs: Vec<GangSlot>,
    /// Nodes that exist or are on their way.
    pub nodes: Vec<NodeSlot>,
    /// Pools to buy from.
    pub pools: Vec<PoolSlot>,
    /// One pod of each DaemonSet; each new node that it may run on loses its request.
    pub daemons: Vec<Arc<PodShape>>,
    /// Labels of namespaces, for namespace selectors of inter-pod affinity.
    pub namespaces: BTreeMap<Arc<str>, Labels>,
    /// Claims that pods mount, volumes, classes, and what nodes can attach.
    pub volumes: Volumes,
    /// Instances that nodes on their way will take of capacity reservations, by id: they are
    /// not there any more.
    pub reserved: BTreeMap<Arc<str>, u32>,
    /// How to solve.
    pub options: Options,
}

impl Problem {
    /// Gives demands their gangs: those of one namespace whose shapes name the same one. `there` are
    /// the pods that have a place already, with how many there are of each shape; what is counted too
    /// much is taken off by a negative count.
    pub fn join_gangs<'p>(
        &mut self,
        groups: &PodGroups,
        there: impl IntoIterator<Item = (&'p Arc<PodShape>, i64)>,
    ) {
        let mut placed: BTreeMap<(&str, &str, bool), i64> = BTreeMap::new();
        for (shape, count) in there {
            if let Some(gang) = &shape.gang {
                let key = (&*shape.namespace, &*gang.name, gang.by_group);
                *placed.entry(key).or_insert(0) += count;
            }
        }
        let mut known: BTreeMap<(Arc<str>, Arc<str>, bool), usize> = BTreeMap::new();
        for demand in &mut self.demands {
            let Some(gang) = demand.shape.gang.clone() else { continue };
            let namespace = Arc::clone(&demand.shape.namespace);
            let there = placed.get(&(&*namespace, &*gang.name, gang.by_group)).copied();
            let key = (namespace, Arc::clone(&gang.name));
            let group = groups.get(&key).filter(|_| gang.by_group);
            if let Some(group) = group {
                if !group.topology.is_empty() {
                    let terms = group.topology.iter().map(|label| gang.together(label));
                    Arc::make_mut(&mut demand.shape).together.extend(terms);
                }
                if group.min_count.is_none() {
                    continue;
                }
            }
            let slots = &mut self.gangs;
            let at = *known.entry((key.0, key.1, gang.by_group)).or_insert_with(|| {
                slots.push(GangSlot {
                    size: group.and_then(|group| group.min_count).unwrap_or(0),
                    there: there.and_then(|there| u32::try_from(there).ok()).unwrap_or(0),
                    elastic: gang.by_group,
                    absent: gang.by_group && group.is_none(),
                });
                slots.len() - 1
            });
            // Templates that disagree mean the larger one.
            if let Some(slot) = slots.get_mut(at) {
                slot.size = slot.size.max(gang.size);
            }
            demand.gang = Some(at);
        }
    }

    /// Positions of the pools in the order in which they are told: heavier ones first, then by name.
    pub(super) fn pools_by_weight(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.pools.len()).collect();
        order.sort_by_key(|pool| {
            let pool = &self.pools[*pool].pool;
            (std::cmp::Reverse(pool.weight), Arc::clone(&pool.name))
        });
        order
    }

    /// Pods of each gang that are known: those with a place and those demanded.
    pub(super) fn gang_members(&self) -> Vec<u64> {
        let mut known: Vec<u64> = self.gangs.iter().map(|gang| u64::from(gang.there)).collect();
        for demand in &self.demands {
            if let Some(known) = demand.gang.and_then(|gang| known.get_mut(gang)) {
                *known += u64::from(demand.count);
            }
        }
        known
    }

    /// Instances that a reservation has for new nodes.
    pub(super) fn reserved_left(&self, reserved: &Reserved) -> u32 {
        let held = self.reserved.get(&reserved.reservation.id).copied().unwrap_or(0);
        reserved.left.saturating_sub(held)
    }
}

/// Equal pods to place.
#[derive(Clone, Debug)]
pub struct Demand {
    /// Their shape.
    pub shape: Arc<PodShape>,
    /// How many.
    pub count: u32,
    /// Position in [`Problem::gangs`].
    pub gang: Option<usize>,
}

/// Pods that are placed wholly or not at all: all demands that name it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct GangSlot {
    /// Pods that it has at least. While fewer are known, none is placed.
    pub size: u32,
    /// Pods of it that have a place already; they count, but are not demanded.
    pub there: u32,
    /// Whether so many may have a place without the others.
    pub elastic: bool,
    /// Whether the object that says what it asks does not exist: none is placed.
    pub absent: bool,
}

/// A node that exists or is on its way.
#[derive(Clone, Debug, Default)]
pub struct NodeSlot {
    /// Name of the node, or of the claim while there is no node.
    pub name: Arc<str>,
    /// Labels that it has or will have.
    pub labels: Labels,
    /// Taints that pods must tolerate. Taints that go away while a node starts are left out for
    /// nodes that are not initialized.
    pub taints: Vec<Taint>,
    /// Room that is left: allocatable less the pods on it (or planned for it) and less the
    /// DaemonSets that have not arrived yet. May be negative.
    pub free: Resources,
    /// Pods on it or planned for it, seen by affinity and spread.
    pub pods: Vec<(Arc<PodShape>, u32)>,
    /// Host ports in use.
    pub host_ports: Vec<HostPort>,
    /// Position of its pool in [`Problem::pools`].
    pub pool: Option<usize>,
    /// Whether it takes pods at once; the others are on their way and are filled after these.
    pub initialized: bool,
}

/// A pool to buy from.
#[derive(Clone, Debug)]
pub struct PoolSlot {
    /// The pool.
    pub pool: Arc<Pool>,
    /// Instance types as the pool's class sees them. Types that the pool's requirements exclude
    /// may be in the list.
    pub types: Arc<[Arc<InstanceType>]>,
    /// What its limits leave, by resource name as in [`Pool::limits`]; `nodes` is exact.
    pub remaining: BTreeMap<Arc<str>, i64>,
    /// Price of a node's root and data volumes, added to each offering.
    pub volume_price: MicroDollarsPerHour,
}

/// How to solve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Units of improvement work after the first packing; 0 keeps the first packing. One unit is a
    /// round of looking for patterns and one ruin-and-recreate attempt, so that the result does not
    /// depend on the machine's speed.
    pub improve: u32,
    /// Seed of the improvement's choices.
    pub seed: u64,
    /// Whether preferences (preferred affinity, `ScheduleAnyway`) are tried before they are
    /// dropped.
    pub respect_preferences: bool,
    /// Most instance types that a new node lists as acceptable. EC2 takes 300 overrides per fleet;
    /// the field sends 60 types.
    pub max_types: usize,
    /// Whether to compute the lower bound (a linear program).
    pub bound: bool,
    /// Asks for the plan that there is by then.
    pub hurry: Hurry,
}

/// A wish for an early end, made by whoever waits, by a clock of their own. First they may
/// [settle](Self::settle) for the plan without further improvement; from when they
/// [ask](Self::ask) on, all preferences of pods that have no place are given up at once, and all gangs
/// that do not fit are left behind at once, so that a few packings are the most that still follow.
/// The plan is whole: higher priorities were served first, and nobody is left out for want of time.
///
/// A plan that was hurried depends on the clock. [`Hurry::never`] keeps a solve a function of its
/// problem.
#[derive(Clone, Debug, Default)]
pub struct Hurry(Option<Arc<AtomicU8>>);

/// Nothing is improved any more.
const SETTLED: u8 = 1;
/// Nothing is tried any more that can be left out.
const ASKED: u8 = 2;

impl Hurry {
    /// It never comes.
    pub fn never() -> Self {
        Self(None)
    }

    /// It comes when somebody calls [`ask`](Self::ask) on it or on a copy.
    pub fn when_asked() -> Self {
        Self(Some(Arc::default()))
    }

    /// Ends improvement.
    pub fn settle(&self) {
        self.raise(SETTLED);
    }

    /// Makes the wish.
    pub fn ask(&self) {
        self.raise(ASKED);
    }

    fn raise(&self, to: u8) {
        if let Some(state) = &self.0 {
            state.fetch_max(to, Ordering::Relaxed);
        }
    }

    /// Whether improvement must end.
    pub(super) fn settled(&self) -> bool {
        self.is(SETTLED)
    }

    /// Whether the wish was made.
    pub(super) fn asked(&self) -> bool {
        self.is(ASKED)
    }

    fn is(&self, least: u8) -> bool {
        self.0.as_ref().is_some_and(|state| state.load(Ordering::Relaxed) >= least)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            improve: 0,
            seed: 0,
            respect_preferences: true,
            max_types: 60,
            bound: false,
            hurry: Hurry::never(),
        }
    }
}
