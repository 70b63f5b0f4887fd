//! Folding watch events into snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use super::snapshot::{ObjectKey, Snapshot};
use crate::model::claim::Claim;
use crate::model::gang::PodGroup;
use crate::model::labels::Labels;
use crate::model::node::Node;
use crate::model::overlay::Overlay;
use crate::model::pod::{Images, Pod, PodShape};
use crate::model::pool::Pool;
use crate::model::volume::{Attachment, CsiNode, PersistentVolume, StorageClass, VolumeClaim};
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

impl<K, T> Change<K, T> {
    /// Whether it says all that there is.
    pub fn is_list(&self) -> bool {
        matches!(self, Self::Replace(_))
    }
}

impl<K: Ord + Clone, T: PartialEq> Change<K, T> {
    /// Folds the change into a map and says whether that changed it. Objects that are
    /// as they were keep their place in memory.
    pub fn fold_into(self, all: &mut Arc<BTreeMap<K, Arc<T>>>, key: impl Fn(&T) -> K) -> bool {
        match self {
            Self::Upsert(object) => {
                let key = key(&object);
                if all.get(&key).is_some_and(|old| **old == object) {
                    return false;
                }
                Arc::make_mut(all).insert(key, Arc::new(object));
                true
            }
            Self::Delete(key) => {
                all.contains_key(&key) && Arc::make_mut(all).remove(&key).is_some()
            }
            Self::Replace(list) => {
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
    /// Groups of pods.
    PodGroups(Change<ObjectKey, PodGroup>),
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
    /// Volumes at nodes.
    Attachments(Change<Arc<str>, Attachment>),
}

/// Kinds that must have delivered a list before planning starts.
const KINDS: [&str; 18] = [
    "pods",
    "nodes",
    "claims",
    "pools",
    "overlays",
    "pod groups",
    "namespaces",
    "volume claims",
    "volumes",
    "storage classes",
    "CSI nodes",
    "attachments",
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
    shapes: Shared<PodShape>,
    images: Shared<Images>,
}

/// Equal values share memory; those that nobody uses are forgotten.
#[derive(Debug)]
struct Shared<T> {
    known: BTreeMap<T, Weak<T>>,
    since_sweep: usize,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), since_sweep: 0 }
    }
}

impl<T: Clone + Ord> Shared<T> {
    fn intern(&mut self, value: &Arc<T>) -> Arc<T> {
        if let Some(known) = self.known.get(&**value).and_then(Weak::upgrade) {
            return known;
        }
        self.since_sweep += 1;
        // Sweeping after as many misses as there are values keeps it linear overall.
        if self.since_sweep > self.known.len().max(64) {
            self.known.retain(|_, weak| weak.strong_count() > 0);
            self.since_sweep = 0;
        }
        self.known.insert((**value).clone(), Arc::downgrade(value));
        Arc::clone(value)
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
        let (shapes, images) = (&mut self.shapes, &mut self.images);
        let (kind, changed) = match event {
            Event::Pods(change) => {
                let listed = listed(&change, "pods");
                let change = map(change, |mut pod: Pod| {
                    pod.shape = shapes.intern(&pod.shape);
                    pod.images = images.intern(&pod.images);
                    pod
                });
                let key = |pod: &Pod| (Arc::clone(&pod.shape.namespace), Arc::clone(&pod.name));
                (listed, change.fold_into(&mut snapshot.pods, key))
            }
            Event::Nodes(change) => (
                listed(&change, "nodes"),
                change.fold_into(&mut snapshot.nodes, |n| Arc::clone(&n.name)),
            ),
            Event::Claims(change) => (
                listed(&change, "claims"),
                change.fold_into(&mut snapshot.claims, |c| Arc::clone(&c.name)),
            ),
            Event::Pools(change) => (
                listed(&change, "pools"),
                change.fold_into(&mut snapshot.pools, |p| Arc::clone(&p.name)),
            ),
            Event::Overlays(change) => (
                listed(&change, "overlays"),
                change.fold_into(&mut snapshot.overlays, |o| Arc::clone(&o.name)),
            ),
            Event::PodGroups(change) => {
                let key =
                    |group: &PodGroup| (Arc::clone(&group.namespace), Arc::clone(&group.name));
                (listed(&change, "pod groups"), change.fold_into(&mut snapshot.pod_groups, key))
            }
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
                (listed, change.fold_into(&mut snapshot.volumes.claims, key))
            }
            Event::Volumes(change) => (
                listed(&change, "volumes"),
                change.fold_into(&mut snapshot.volumes.volumes, |v| Arc::clone(&v.name)),
            ),
            Event::StorageClasses(change) => (
                listed(&change, "storage classes"),
                change.fold_into(&mut snapshot.volumes.classes, |c| Arc::clone(&c.name)),
            ),
            Event::CsiNodes(change) => (
                listed(&change, "CSI nodes"),
                change.fold_into(&mut snapshot.volumes.nodes, |n| Arc::clone(&n.name)),
            ),
            Event::Attachments(change) => (
                listed(&change, "attachments"),
                change.fold_into(&mut snapshot.volumes.attachments, |a| Arc::clone(&a.name)),
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
    change.is_list().then_some(kind)
}

fn map<K, T>(change: Change<K, T>, mut f: impl FnMut(T) -> T) -> Change<K, T> {
    match change {
        Change::Upsert(object) => Change::Upsert(f(object)),
        Change::Delete(key) => Change::Delete(key),
        Change::Replace(list) => Change::Replace(list.into_iter().map(f).collect()),
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
                changed |= Change::Delete(name).fold_into(all, key);
            }
            for workload in list {
                changed |= Change::Upsert(workload).fold_into(all, key);
            }
            return changed;
        }
    };
    change.fold_into(all, key)
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
        state.apply(Event::PodGroups(Change::Replace(Vec::new())));
        state.apply(Event::Namespaces(Change::Replace(Vec::new())));
        state.apply(Event::VolumeClaims(Change::Replace(Vec::new())));
        state.apply(Event::Volumes(Change::Replace(Vec::new())));
        state.apply(Event::StorageClasses(Change::Replace(Vec::new())));
        state.apply(Event::CsiNodes(Change::Replace(Vec::new())));
        state.apply(Event::Attachments(Change::Replace(Vec::new())));
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
