//! Which pods to nominate to a node that is about to open.
//!
//! The scheduler spreads pods by score and would strand a tight plan; it keeps the room of nominated
//! pods. A nomination to a closed node is cleared by the next failed attempt, so it is made just
//! before the last taint goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::Snapshot;
use crate::demand::Assignment;
use crate::model::pod::{Pod, PodShape};

/// The pods for a node with these assignments: the planned count of each owner, higher priority
/// first, never a pod that is nominated already. `taken` says which pods were nominated to other
/// nodes after the snapshot was made.
pub fn nominations(
    snapshot: &Snapshot,
    assignments: &[Assignment],
    taken: &dyn Fn(&str) -> bool,
) -> Vec<Arc<Pod>> {
    let mut wanted: BTreeMap<&str, u32> = BTreeMap::new();
    let mut exact: BTreeMap<(Arc<str>, Arc<PodShape>), u32> = BTreeMap::new();
    for assignment in assignments {
        *wanted.entry(&assignment.owner).or_insert(0) += assignment.count;
        let key = (Arc::clone(&assignment.owner), Arc::clone(&assignment.shape));
        *exact.entry(key).or_insert(0) += assignment.count;
    }
    let mut candidates: Vec<(Arc<str>, &Arc<Pod>)> = snapshot
        .pods
        .values()
        .filter(|pod| pod.waiting() && pod.nominated_node.is_none() && !taken(&pod.uid))
        .map(|pod| (snapshot.root_of(pod), pod))
        .filter(|(owner, _)| wanted.contains_key(&**owner))
        .collect();
    candidates.sort_by(|(_, a), (_, b)| {
        (b.shape.priority, a.created_at, &a.name).cmp(&(a.shape.priority, b.created_at, &b.name))
    });
    let mut chosen = Vec::new();
    // The very pods that were planned come before others of their owner, whose volumes may be
    // elsewhere.
    candidates.retain(|(owner, pod)| {
        let planned = exact.get_mut(&(Arc::clone(owner), Arc::clone(&pod.shape)));
        let planned = planned.filter(|left| **left > 0);
        if let (Some(left), Some(all)) = (planned, wanted.get_mut(&**owner)) {
            *left -= 1;
            *all -= 1;
            chosen.push(Arc::clone(pod));
            return false;
        }
        snapshot.binds_anywhere(&pod.shape)
    });
    for (owner, pod) in candidates {
        if let Some(left) = wanted.get_mut(&*owner).filter(|left| **left > 0) {
            *left -= 1;
            chosen.push(Arc::clone(pod));
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cluster::{Change, Event, State};
    use crate::model::pod::OwnerRef;

    #[test]
    fn nodes_that_open_together_get_different_pods() {
        let shape = Arc::new(PodShape { namespace: "n".into(), ..PodShape::default() });
        let owner = OwnerRef { kind: "Job".into(), name: "j".into(), uid: "u".into() };
        let pod = |index: u32| Pod {
            name: format!("p{index}").into(),
            uid: format!("uid-{index}").into(),
            shape: Arc::clone(&shape),
            owner: Some(owner.clone()),
            ..Pod::default()
        };
        let mut state = State::default();
        state.apply(Event::Pods(Change::Replace((0..5).map(pod).collect())));
        let node = [Assignment { owner: "u".into(), shape: Arc::clone(&shape), count: 2 }];
        let mut taken: BTreeSet<Arc<str>> = BTreeSet::new();
        for expected in [2, 2, 1, 0] {
            let chosen = nominations(&state.snapshot(), &node, &|uid| taken.contains(uid));
            assert_eq!(chosen.len(), expected);
            taken.extend(chosen.iter().map(|pod| Arc::clone(&pod.uid)));
        }
        assert_eq!(taken.len(), 5);
    }
}
