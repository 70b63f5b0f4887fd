//! What the nodes that can be bought leave for one pod, and which pods they take.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::instance::label_meets;
use super::labels;
use super::pod::PodShape;
use super::requirement::{Requirement, Requirements};
use super::resources::Resources;
use super::taints::{Taint, untolerated};

/// Rooms are found by label where these are less than this part of all: else the first that is looked at
/// is soon one that does.
const FEW: usize = 4;

/// Room on new nodes of one pool.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PoolRooms {
    taints: Vec<Taint>,
    requirements: Requirements,
    /// First those that no other of the pool beats in cpu, memory and ephemeral storage at once; both
    /// parts largest first.
    rooms: Vec<Room>,
    /// Length of the first part.
    unbeaten: usize,
    /// Rooms by each label that some type gives its nodes: a pod that selects few types sees few.
    by_label: BTreeMap<Arc<str>, ByValue>,
}

/// Positions of rooms by the value of a label, in order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct ByValue {
    values: BTreeMap<Arc<str>, Vec<u32>>,
    /// Those whose type does not decide it.
    open: Vec<u32>,
}

impl ByValue {
    fn new(key: &str, rooms: &[Room]) -> Self {
        let mut all = Self::default();
        for (at, room) in (0..).zip(rooms) {
            match room.labels.get(key).and_then(Requirement::finite_values) {
                None => all.open.push(at),
                Some(values) => {
                    for value in values {
                        all.values.entry(Arc::clone(value)).or_default().push(at);
                    }
                }
            }
        }
        all
    }

    /// Positions of rooms that may have one of the values, sorted by value.
    fn any_of<'s>(&'s self, values: &'s [Arc<str>]) -> impl Iterator<Item = u32> + 's {
        let of_values = values.iter().filter_map(|value| self.values.get(value)).flatten();
        self.open.iter().chain(of_values).copied()
    }

    /// How many these are.
    fn count(&self, values: &[Arc<str>]) -> usize {
        let of_values = values.iter().filter_map(|value| self.values.get(value));
        self.open.len() + of_values.map(Vec::len).sum::<usize>()
    }
}

/// Room on a new node of one type, beside the DaemonSets that run there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Room {
    /// Labels that the type gives its nodes.
    pub labels: Arc<Requirements>,
    /// What is left.
    pub left: Resources,
}

/// Where a pod may be, read once for many rooms.
#[derive(Debug)]
pub struct Wanted<'p> {
    pod: &'p PodShape,
    alternatives: Vec<Requirements>,
    /// Other resources than those that every node has.
    others: &'p [(Arc<str>, i64)],
}

impl<'p> Wanted<'p> {
    /// What a pod asks of a node that is not there yet, amounts of cpu, memory and ephemeral storage
    /// aside.
    pub fn of(pod: &'p PodShape) -> Self {
        Self { pod, alternatives: pod.new_node_alternatives(), others: &pod.requests.extended }
    }

    /// Whether any node would do that lets the pod in.
    fn is_plain(&self) -> bool {
        self.others.is_empty() && self.alternatives.iter().any(Requirements::is_empty)
    }
}

impl PoolRooms {
    /// The rooms of a pool with these taints and requirements.
    pub fn new(taints: Vec<Taint>, requirements: Requirements, mut rooms: Vec<Room>) -> Self {
        rooms.sort_by(|a, b| Reverse(&a.left).cmp(&Reverse(&b.left)));
        let mut unbeaten: Vec<Resources> = Vec::new();
        let beats = |other: &Resources, room: &Resources| {
            other.cpu >= room.cpu
                && other.memory >= room.memory
                && other.ephemeral_storage >= room.ephemeral_storage
        };
        // Whoever beats a room comes before it.
        let (mut first, rest): (Vec<Room>, Vec<Room>) = rooms.into_iter().partition(|room| {
            let is_first = !unbeaten.iter().any(|other| beats(other, &room.left));
            if is_first {
                unbeaten.push(room.left.clone());
            }
            is_first
        });
        let unbeaten = first.len();
        first.extend(rest);
        let keys: BTreeSet<&Arc<str>> =
            first.iter().flat_map(|room| room.labels.iter().map(|(key, _)| key)).collect();
        let by_label =
            keys.into_iter().map(|key| (Arc::clone(key), ByValue::new(key, &first))).collect();
        Self { taints, requirements, rooms: first, unbeaten, by_label }
    }

    /// The rooms of a pool that asks more of its nodes.
    #[must_use]
    pub fn within(mut self, requirements: &Requirements) -> Self {
        self.requirements.extend(requirements);
        self
    }

    /// Whether its taints let the pod in.
    pub fn lets_in(&self, wanted: &Wanted<'_>) -> bool {
        untolerated(&self.taints, &wanted.pod.tolerations).is_none()
    }

    /// Rooms that are worth a look for the pod, the largest of each part first: a smaller one is not,
    /// where every type would do, nor is one of a type that it does not select.
    pub fn worth(&self, wanted: &Wanted<'_>) -> impl Iterator<Item = &Room> {
        let (first, few) = if wanted.is_plain() {
            (self.unbeaten, Vec::new())
        } else {
            self.selected(wanted).map_or((self.rooms.len(), Vec::new()), |few| (0, few))
        };
        let few = few.into_iter().filter_map(|at| self.rooms.get(at as usize));
        self.rooms[..first].iter().chain(few)
    }

    /// Positions of rooms that the pod's alternatives select by one of their labels, in order; `None`
    /// where these would not be few.
    fn selected(&self, wanted: &Wanted<'_>) -> Option<Vec<u32>> {
        let none = Requirements::new();
        let mut found: Vec<u32> = Vec::new();
        'alternatives: for alternative in &wanted.alternatives {
            let mut fewest = None;
            let mut least = self.rooms.len() / FEW;
            for (key, wanted) in alternative.iter() {
                let Some(by_value) = self.by_label.get(key).filter(|_| !of_place(key)) else {
                    // The pool decides it, whatever the type.
                    if !self.label_meets(key, wanted, &none) {
                        continue 'alternatives;
                    }
                    continue;
                };
                let values = wanted.finite_values().filter(|_| !wanted.allows_absent());
                let Some(values) = values else { continue };
                let count = by_value.count(values);
                if count < least {
                    (fewest, least) = (Some((by_value, values)), count);
                }
            }
            let (by_value, values) = fewest?;
            found.extend(by_value.any_of(values));
        }
        found.sort_unstable();
        found.dedup();
        Some(found)
    }

    fn label_meets(&self, key: &str, wanted: &Requirement, of_type: &Requirements) -> bool {
        if of_place(key) {
            return self.requirements.get(key).is_none_or(|own| own.intersects(wanted));
        }
        label_meets(key, wanted, &self.requirements, of_type)
    }

    /// Whether nodes with this room may have what the pod wants, amounts of cpu, memory and ephemeral
    /// storage aside. Where a node is bought, and how, is the pool's to say: every type is had so
    /// somewhere.
    pub fn takes(&self, room: &Room, wanted: &Wanted<'_>) -> bool {
        let takes = |alternative: &Requirements| {
            alternative.iter().all(|(key, wanted)| self.label_meets(key, wanted, &room.labels))
        };
        wanted.others.iter().all(|(name, amount)| room.left.get(name) >= *amount)
            && wanted.alternatives.iter().any(takes)
    }
}

/// Whether a label says where a node is bought, and how.
fn of_place(key: &str) -> bool {
    labels::OFFERED.contains(&key) || matches!(key, labels::REGION | labels::ZONE_ID)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::taints::{TaintEffect, Toleration};
    use super::*;

    fn room(name: &str, cpu: i64, memory: i64) -> Room {
        let mut labels = Requirements::new();
        labels.insert(labels::INSTANCE_TYPE, Requirement::one_of([name]));
        Room { labels: Arc::new(labels), left: Resources::new(cpu, memory) }
    }

    fn selecting(key: &str, value: &str) -> PodShape {
        let mut pod = PodShape::default();
        pod.node_selector.insert(key, Requirement::one_of([value]));
        pod
    }

    /// Cpu of the rooms that a pod may use and that are worth a look.
    fn open(pool: &PoolRooms, pod: &PodShape) -> Vec<i64> {
        let wanted = Wanted::of(pod);
        if !pool.lets_in(&wanted) {
            return Vec::new();
        }
        let rooms = pool.worth(&wanted).filter(|room| pool.takes(room, &wanted));
        rooms.map(|room| room.left.cpu).collect()
    }

    #[test]
    fn a_pod_sees_the_rooms_that_it_can_use() {
        let mut requirements = Requirements::new();
        requirements.insert(labels::ZONE, Requirement::one_of(["a"]));
        requirements.insert("team", Requirement::one_of(["web"]));
        let taints = vec![Taint::new("gpu", TaintEffect::NoSchedule)];
        let mut gpu = room("gpu", 3, 3);
        gpu.left.set("nvidia.com/gpu", 1);
        let rooms = vec![room("small", 1, 1), gpu, room("cpu", 8, 4), room("memory", 2, 9)];
        let open_pool = PoolRooms::new(Vec::new(), requirements.clone(), rooms.clone());
        // The small one and the one with a device are beaten.
        assert_eq!(open(&open_pool, &PodShape::default()), [8, 2]);
        assert_eq!(open(&open_pool, &selecting(labels::INSTANCE_TYPE, "small")), [1]);
        assert_eq!(open(&open_pool, &selecting("team", "web")), [8, 2, 3, 1]);
        assert_eq!(open(&open_pool, &selecting("team", "db")), [] as [i64; 0]);
        assert_eq!(open(&open_pool, &selecting("unknown", "x")), [] as [i64; 0]);
        assert_eq!(open(&open_pool, &selecting(labels::ZONE, "a")), [8, 2, 3, 1]);
        assert_eq!(open(&open_pool, &selecting(labels::ZONE, "b")), [] as [i64; 0]);
        let mut device = PodShape::default();
        device.requests.set("nvidia.com/gpu", 1);
        assert_eq!(open(&open_pool, &device), [3]);

        let tainted = PoolRooms::new(taints, requirements, rooms);
        assert_eq!(open(&tainted, &PodShape::default()), [] as [i64; 0]);
        let tolerant = Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() };
        let tolerant = PodShape { tolerations: vec![tolerant], ..PodShape::default() };
        assert_eq!(open(&tainted, &tolerant), [8, 2]);
    }

    /// What a look at every room finds, in their order.
    fn all<'r>(pool: &'r PoolRooms, wanted: &Wanted<'_>) -> Vec<&'r Room> {
        pool.rooms.iter().filter(|room| pool.takes(room, wanted)).collect()
    }

    fn requirement() -> impl Strategy<Value = Requirement> {
        let values = proptest::collection::btree_set("[a-e]", 1..4);
        prop_oneof![
            6 => values.prop_map(Requirement::one_of),
            1 => Just(Requirement::exists()),
            1 => Just(Requirement::does_not_exist()),
        ]
    }

    fn some() -> impl Strategy<Value = Requirements> {
        let keys = proptest::sample::select(vec!["x", "y", "z", "team", labels::ZONE]);
        proptest::collection::btree_map(keys, requirement(), 0..4).prop_map(|pairs| {
            let mut all = Requirements::new();
            for (key, requirement) in pairs {
                all.insert(key, requirement);
            }
            all
        })
    }

    proptest! {
        #[test]
        fn rooms_that_are_passed_over_take_nobody(
            of_types in proptest::collection::vec(some(), 1..24),
            of_pool in some(),
            selector in some(),
        ) {
            let rooms = (1..).zip(of_types).map(|(size, labels)| {
                Room { labels: Arc::new(labels), left: Resources::new(size, size) }
            });
            let pool = PoolRooms::new(Vec::new(), of_pool, rooms.collect());
            let pod = PodShape { node_selector: selector, ..PodShape::default() };
            let wanted = Wanted::of(&pod);
            prop_assume!(!wanted.is_plain());
            let found: Vec<&Room> =
                pool.worth(&wanted).filter(|room| pool.takes(room, &wanted)).collect();
            prop_assert_eq!(found, all(&pool, &wanted));
        }
    }
}
