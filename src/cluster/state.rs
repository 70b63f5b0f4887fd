//! Folding watch events into snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use super::snapshot::{ObjectKey, Snapshot};
use crate::model::claim::Claim;
use crate::model::labels::Labels;
use crate::model::node::Node;
use crate::model::overlay::Overlay;
use crate::model::pod::{Pod, PodShape};
use crate::model::pool::Pool;
use crate::model::volume::{CsiNode, PersistentVolume, StorageClass, VolumeClaim};
use crate::model::workload::{Workload, WorkloadKind};

/// A change of one kind's objects. `Replace` is a full list: what it lacks is gone.
#[derive(Clone, Debug)]
pub enum Change<K, T> {
    /// The object was created or changed.
    Upsert(T),
    /// The object is gone.
    Delete(K),
    /// The objects that there are now.
    Replace(Vec<T>),
}

/// A change of the cluster.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "claims are rare, and events are folded at once")]
pub enum Event {
    /// Pods.
    Pods(Change<ObjectKey, Pod>),
    /// Nodes.
    Nodes(Change<Arc<str>, Node>),
    /// Claims.
    Claims(Change<Arc<str>, Claim>),
    /// Pools.
    Pools(Change<Arc<str>, Pool>),
    /// Overlays.
    Overlays(Change<Arc<str>, Overlay>),
    /// Workloads of one kind.
    Workloads(WorkloadKind, Change<ObjectKey, Workload>),
    /// Namespaces with their labels.
    Namespaces(Change<Arc<str>, (Arc<str>, Labels)>),
    /// Claims of volumes.
    VolumeClaims(Change<ObjectKey, VolumeClaim>),
    /// Volumes.
    Volumes(Change<Arc<str>, PersistentVolume>),
    /// Classes of volumes.
    StorageClasses(Change<Arc<str>, StorageClass>),
    /// What nodes can attach.
    CsiNodes(Change<Arc<str>, CsiNode>),
}

/// Kinds that must have delivered a list before planning starts.
const KINDS: [&str; 16] = [
    "pods",
    "nodes",
    "claims",
    "pools",
    "overlays",
    "namespaces",
    "volume claims",
    "volumes",
    "storage classes",
    "CSI nodes",
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
];

/// The one place that changes the view of the cluster.
#[derive(Debug, Default)]
pub struct State {
    snapshot: Snapshot,
    listed: BTreeSet<&'static str>,
    shapes: Shapes,
}

/// Equal shapes share memory; shapes that nobody uses are forgotten.
#[derive(Debug, Default)]
struct Shapes {
    known: BTreeMap<PodShape, Weak<PodShape>>,
    since_sweep: usize,
}

impl Shapes {
    fn intern(&mut self, shape: &Arc<PodShape>) -> Arc<PodShape> {
        if let Some(known) = self.known.get(&**shape).and_then(Weak::upgrade) {
            return known;
        }
        self.since_sweep += 1;
        // Sweeping after as many misses as there are shapes keeps it linear overall.
        if self.since_sweep > self.known.len().max(64) {
            self.known.retain(|_, weak| weak.strong_count() > 0);
            self.since_sweep = 0;
        }
        self.known.insert((**shape).clone(), Arc::downgrade(shape));
        Arc::clone(shape)
    }
}

impl State {
    /// The view as it is now.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// Folds in one event; says whether anything changed.
    pub fn apply(&mut self, event: Event) -> bool {
        let snapshot = &mut self.snapshot;
        let shapes = &mut self.shapes;
        let (kind, changed) = match event {
            Event::Pods(change) => {
                let listed = listed(&change, "pods");
                let change = map(change, |mut pod: Pod| {
                    pod.shape = shapes.intern(&pod.shape);
                    pod
                });
                let key = |pod: &Pod| (Arc::clone(&pod.shape.namespace), Arc::clone(&pod.name));
                (listed, fold(&mut snapshot.pods, change, key))
            }
            Event::Nodes(change) => (
                listed(&change, "nodes"),
                fold(&mut snapshot.nodes, change, |n| Arc::clone(&n.name)),
            ),
            Event::Claims(change) => (
                listed(&change, "claims"),
                fold(&mut snapshot.claims, change, |c| Arc::clone(&c.name)),
            ),
            Event::Pools(change) => (
                listed(&change, "pools"),
                fold(&mut snapshot.pools, change, |p| Arc::clone(&p.name)),
            ),
            Event::Overlays(change) => (
                listed(&change, "overlays"),
                fold(&mut snapshot.overlays, change, |o| Arc::clone(&o.name)),
            ),
            Event::Workloads(kind, change) => {
                let listed = listed(&change, kind.name());
                let change = map(change, |mut workload: Workload| {
                    workload.template = shapes.intern(&workload.template);
                    workload
                });
                (listed, fold_kind(&mut snapshot.workloads, kind, change))
            }
            Event::VolumeClaims(change) => {
                let key = |c: &VolumeClaim| (Arc::clone(&c.namespace), Arc::clone(&c.name));
                let listed = listed(&change, "volume claims");
                (listed, fold(&mut snapshot.volumes.claims, change, key))
            }
            Event::Volumes(change) => (
                listed(&change, "volumes"),
                fold(&mut snapshot.volumes.volumes, change, |v| Arc::clone(&v.name)),
            ),
            Event::StorageClasses(change) => (
                listed(&change, "storage classes"),
                fold(&mut snapshot.volumes.classes, change, |c| Arc::clone(&c.name)),
            ),
            Event::CsiNodes(change) => (
                listed(&change, "CSI nodes"),
                fold(&mut snapshot.volumes.nodes, change, |n| Arc::clone(&n.name)),
            ),
            Event::Namespaces(change) => {
                let listed = listed(&change, "namespaces");
                let all = Arc::make_mut(&mut snapshot.namespaces);
                match change {
                    Change::Upsert((name, labels)) => {
                        (listed, all.insert(name, labels.clone()) != Some(labels))
                    }
                    Change::Delete(name) => (listed, all.remove(&name).is_some()),
                    Change::Replace(list) => {
                        let next: BTreeMap<_, _> = list.into_iter().collect();
                        let changed = next != *all;
                        *all = next;
                        (listed, changed)
                    }
                }
            }
        };
        let newly_listed = kind.is_some_and(|kind| self.listed.insert(kind));
        self.snapshot.synced = KINDS.iter().all(|kind| self.listed.contains(kind));
        if changed || newly_listed {
            self.snapshot.revision += 1;
        }
        changed || newly_listed
    }
}

fn listed<K, T>(change: &Change<K, T>, kind: &'static str) -> Option<&'static str> {
    matches!(change, Change::Replace(_)).then_some(kind)
}

fn map<K, T>(change: Change<K, T>, mut f: impl FnMut(T) -> T) -> Change<K, T> {
    match change {
        Change::Upsert(object) => Change::Upsert(f(object)),
        Change::Delete(key) => Change::Delete(key),
        Change::Replace(list) => Change::Replace(list.into_iter().map(f).collect()),
    }
}

/// Folds a change into a map; objects that did not change keep their place in memory.
fn fold<K: Ord + Clone, T: PartialEq>(
    all: &mut Arc<BTreeMap<K, Arc<T>>>,
    change: Change<K, T>,
    key: impl Fn(&T) -> K,
) -> bool {
    match change {
        Change::Upsert(object) => {
            let key = key(&object);
            if all.get(&key).is_some_and(|old| **old == object) {
                return false;
            }
            Arc::make_mut(all).insert(key, Arc::new(object));
            true
        }
        Change::Delete(key) => all.contains_key(&key) && Arc::make_mut(all).remove(&key).is_some(),
        Change::Replace(list) => {
            let mut changed = false;
            let mut next = BTreeMap::new();
            for object in list {
                let key = key(&object);
                let old = all.get(&key).filter(|old| ***old == object);
                changed |= old.is_none();
                let object = old.map_or_else(|| Arc::new(object), Arc::clone);
                next.insert(key, object);
            }
            changed |= next.len() != all.len();
            if changed {
                *all = Arc::new(next);
            }
            changed
        }
    }
}

type Workloads = BTreeMap<(WorkloadKind, ObjectKey), Arc<Workload>>;

fn fold_kind(
    all: &mut Arc<Workloads>,
    kind: WorkloadKind,
    change: Change<ObjectKey, Workload>,
) -> bool {
    let key = |w: &Workload| (kind, (Arc::clone(&w.namespace), Arc::clone(&w.name)));
    let change = match change {
        Change::Upsert(workload) => Change::Upsert(workload),
        Change::Delete(name) => Change::Delete((kind, name)),
        Change::Replace(list) => {
            // Other kinds share the map: only this kind's objects are compared.
            let mut changed = false;
            let gone: Vec<_> = {
                let kept: BTreeSet<_> = list.iter().map(key).collect();
                all.keys().filter(|k| k.0 == kind && !kept.contains(*k)).cloned().collect()
            };
            for name in gone {
                changed |= fold(all, Change::Delete(name), key);
            }
            for workload in list {
                changed |= fold(all, Change::Upsert(workload), key);
            }
            return changed;
        }
    };
    fold(all, change, key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pod(name: u8, node: Option<u8>) -> Pod {
        Pod {
            name: format!("p{name}").into(),
            shape: Arc::new(PodShape { namespace: "n".into(), ..PodShape::default() }),
            node_name: node.map(|node| format!("n{node}").into()),
            ..Pod::default()
        }
    }

    #[test]
    fn a_relist_of_the_same_changes_nothing() {
        let mut state = State::default();
        assert!(state.apply(Event::Pods(Change::Replace(vec![pod(1, None), pod(2, None)]))));
        let before = state.snapshot();
        assert!(!state.apply(Event::Pods(Change::Replace(vec![pod(1, None), pod(2, None)]))));
        assert_eq!(state.snapshot().revision, before.revision);
        assert!(Arc::ptr_eq(&state.snapshot().pods, &before.pods));
        assert!(state.apply(Event::Pods(Change::Replace(vec![pod(1, None)]))));
        assert_eq!(before.pods.len(), 2);
        assert_eq!(state.snapshot().pods.len(), 1);
    }

    #[test]
    fn equal_shapes_share_memory() {
        let mut state = State::default();
        state.apply(Event::Pods(Change::Replace((0..5).map(|n| pod(n, None)).collect())));
        let snapshot = state.snapshot();
        let mut shapes = snapshot.pods.values().map(|pod| &pod.shape);
        let first = shapes.next().unwrap();
        assert!(shapes.all(|shape| Arc::ptr_eq(first, shape)));
    }

    #[test]
    fn planning_waits_for_every_list() {
        let mut state = State::default();
        state.apply(Event::Pods(Change::Replace(Vec::new())));
        state.apply(Event::Nodes(Change::Replace(Vec::new())));
        state.apply(Event::Claims(Change::Replace(Vec::new())));
        state.apply(Event::Pools(Change::Replace(Vec::new())));
        state.apply(Event::Overlays(Change::Replace(Vec::new())));
        state.apply(Event::Namespaces(Change::Replace(Vec::new())));
        state.apply(Event::VolumeClaims(Change::Replace(Vec::new())));
        state.apply(Event::Volumes(Change::Replace(Vec::new())));
        state.apply(Event::StorageClasses(Change::Replace(Vec::new())));
        state.apply(Event::CsiNodes(Change::Replace(Vec::new())));
        for name in ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job"] {
            let kind = WorkloadKind::parse(name).unwrap();
            state.apply(Event::Workloads(kind, Change::Replace(Vec::new())));
        }
        assert!(!state.snapshot().synced);
        state.apply(Event::Workloads(WorkloadKind::CronJob, Change::Replace(Vec::new())));
        assert!(state.snapshot().synced);
    }

    proptest! {
        #[test]
        fn events_in_any_order_end_where_a_list_does(
            events in prop::collection::vec((0..6_u8, prop::option::of(0..3_u8), any::<bool>()), 0..40)
        ) {
            let mut state = State::default();
            let mut expected: BTreeMap<u8, Pod> = BTreeMap::new();
            for (name, node, delete) in events {
                if delete {
                    expected.remove(&name);
                    state.apply(Event::Pods(Change::Delete(("n".into(), format!("p{name}").into()))));
                } else {
                    expected.insert(name, pod(name, node));
                    state.apply(Event::Pods(Change::Upsert(pod(name, node))));
                }
            }
            let mut fresh = State::default();
            fresh.apply(Event::Pods(Change::Replace(expected.into_values().collect())));
            prop_assert_eq!(state.snapshot().pods, fresh.snapshot().pods);
        }
    }
}
