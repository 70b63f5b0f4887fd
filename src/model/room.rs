//! What the nodes that can be bought leave for one pod, and which pods they take.

use std::cmp::Reverse;
use std::sync::Arc;

use super::instance::label_meets;
use super::labels;
use super::pod::PodShape;
use super::requirement::Requirements;
use super::resources::Resources;
use super::taints::{Taint, untolerated};

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
        let count = first.len();
        first.extend(rest);
        Self { taints, requirements, rooms: first, unbeaten: count }
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

    /// Rooms that are worth a look for the pod: a smaller one is not, where every type would do.
    pub fn worth(&self, wanted: &Wanted<'_>) -> &[Room] {
        if wanted.is_plain() { &self.rooms[..self.unbeaten] } else { &self.rooms }
    }

    /// Whether nodes with this room may have what the pod wants, amounts of cpu, memory and ephemeral
    /// storage aside. Where a node is bought, and how, is the pool's to say: every type is had so
    /// somewhere.
    pub fn takes(&self, room: &Room, wanted: &Wanted<'_>) -> bool {
        let of_place = |key: &str| {
            labels::OFFERED.contains(&key) || matches!(key, labels::REGION | labels::ZONE_ID)
        };
        let takes = |alternative: &Requirements| {
            alternative.iter().all(|(key, wanted)| {
                if of_place(key) {
                    return self.requirements.get(key).is_none_or(|own| own.intersects(wanted));
                }
                label_meets(key, wanted, &self.requirements, &room.labels)
            })
        };
        wanted.others.iter().all(|(name, amount)| room.left.get(name) >= *amount)
            && wanted.alternatives.iter().any(takes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::requirement::Requirement;
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
        let rooms = pool.worth(&wanted).iter().filter(|room| pool.takes(room, &wanted));
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
}
