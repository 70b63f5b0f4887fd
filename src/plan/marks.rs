//! What the status of a claim in use says beside its life: when a pod last came or went, whether its
//! node may be consolidated, whether it is as large as was promised, and whether it has drifted.

use super::drift;
use crate::model::claim::{Claim, ClaimStage};
use crate::model::labels::Labels;
use crate::model::node::Node;
use crate::model::pool::{ClassFacts, Pool};

/// A pod that came or went is written down no sooner than this after the last one, seconds, as in the
/// field: a burst would be a write a pod.
const POD_EVENTS: i64 = 10;
/// Nothing is written of a claim for so long after it is initialized, seconds: while nodes come by the
/// hundred, what is said of each is said at once, when its first pods are there.
const SETTLING: i64 = 10;
/// The least share of a promised resource that a node has, percent, as in the field.
const LEAST: i64 = 90;

/// What is to be written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Mark {
    /// When a pod last came or went, seconds since the epoch.
    pub pod_event: Option<i64>,
    /// Whether the node may be consolidated.
    pub consolidatable: Option<bool>,
    /// Whether the node is as large as was promised, or what it lacks.
    pub consistent: Option<Result<(), String>>,
    /// Why it has drifted, or that it has not.
    pub drifted: Option<Option<&'static str>>,
    /// Annotations that it takes on.
    pub adopted: Option<Labels>,
}

/// Whether the node of a claim may be consolidated: no pod has come to it or left it for as long as its
/// pool asks. `last_pod_event` is what was seen since this process began, 0 for nothing; times are in
/// seconds since the epoch.
pub fn consolidatable(claim: &Claim, pool: &Pool, last_pod_event: i64, now: i64) -> bool {
    // Pools of a fixed count are not consolidated.
    let after = pool.consolidate_after.filter(|_| pool.replicas.is_none());
    let since = claim.last_pod_event_at.unwrap_or(0).max(last_pod_event).max(claim.stage_at);
    claim.stage == ClaimStage::Initialized && after.is_some_and(|after| now - since >= after)
}

/// What is to be written about a claim that is initialized and not being deleted; none when all that
/// holds is written. `now` is in seconds since the epoch.
pub fn due(
    claim: &Claim,
    node: Option<&Node>,
    pool: Option<&Pool>,
    class: Option<&ClassFacts>,
    last_pod_event: i64,
    now: i64,
) -> Option<Mark> {
    if claim.stage != ClaimStage::Initialized || now - claim.stage_at < SETTLING {
        return None;
    }
    let written = claim.last_pod_event_at.unwrap_or(0);
    let consolidatable = pool.is_some_and(|pool| consolidatable(claim, pool, last_pod_event, now));
    let consistent = node.map(|node| shape(claim, node));
    let drifted = drift::drifted(claim, node, pool, class);
    let mark = Mark {
        pod_event: (last_pod_event > written && now - written >= POD_EVENTS)
            .then_some(last_pod_event),
        consolidatable: (consolidatable != claim.consolidatable).then_some(consolidatable),
        consistent: consistent.filter(|found| Some(found.is_ok()) != claim.consistent),
        drifted: (drifted != claim.drifted.as_deref()).then_some(drifted),
        adopted: drift::adopted(claim, pool, class),
    };
    (mark != Mark::default()).then_some(mark)
}

/// Whether a node has what its claim was promised, of the resources that its pods asked for.
fn shape(claim: &Claim, node: &Node) -> Result<(), String> {
    let asked = claim.requests.iter().filter(|(_, amount)| *amount > 0);
    for (name, _) in asked {
        let (promised, there) = (claim.capacity.get(name), node.capacity.get(name));
        if i128::from(there) * 100 < i128::from(promised) * i128::from(LEAST) {
            let share = i128::from(there) * 100 / i128::from(promised.max(1));
            return Err(format!("the node has {share} % of the {name} that was expected"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::resources::Resources;

    fn settled() -> Claim {
        Claim {
            stage: ClaimStage::Initialized,
            annotations: drift::pool_digest(&Pool::default()),
            ..Claim::default()
        }
    }

    fn memory(bytes: i64) -> Resources {
        let mut memory = Resources::default();
        memory.set("memory", bytes);
        memory
    }

    #[test]
    fn what_holds_is_written_once() {
        let pool = Pool { consolidate_after: Some(30), ..Pool::default() };
        let mut claim = Claim { stage_at: 100, ..settled() };
        (claim.requests, claim.capacity) = (memory(1), memory(1000));
        let mut node = Node { capacity: memory(900), ..Node::default() };
        let at = |claim: &Claim, node: &Node, event, now| {
            due(claim, Some(node), Some(&pool), None, event, now)
        };
        let first = Mark { consistent: Some(Ok(())), ..Mark::default() };
        assert_eq!(at(&claim, &node, 0, 129), Some(first));
        claim.consistent = Some(true);
        assert_eq!(at(&claim, &node, 0, 129), None);
        assert_eq!(at(&Claim { consistent: None, ..claim.clone() }, &node, 105, 109), None);
        // Quiet since it was initialized.
        let may = |yes| Some(Mark { consolidatable: Some(yes), ..Mark::default() });
        assert_eq!(at(&claim, &node, 0, 130), may(true));
        claim.consolidatable = true;
        assert_eq!(at(&claim, &node, 0, 130), None);
        // A pod comes.
        let came = Mark { pod_event: Some(131), consolidatable: Some(false), ..Mark::default() };
        assert_eq!(at(&claim, &node, 131, 131), Some(came));
        (claim.last_pod_event_at, claim.consolidatable) = (Some(131), false);
        assert_eq!(at(&claim, &node, 140, 140), None, "too soon after the last one");
        let later = Mark { pod_event: Some(140), ..Mark::default() };
        assert_eq!(at(&claim, &node, 140, 141), Some(later));
        // Another process knows of the pod by what was written.
        assert_eq!(at(&claim, &node, 0, 160), None);
        assert_eq!(at(&claim, &node, 0, 161), may(true));
        // The node is smaller than it was.
        node.capacity = memory(899);
        let small = at(&claim, &node, 0, 150).and_then(|mark| mark.consistent);
        let message = "the node has 89 % of the memory that was expected";
        assert_eq!(small, Some(Err(message.to_owned())));
        claim.consistent = Some(false);
        assert_eq!(at(&claim, &node, 0, 150), None);
    }

    #[test]
    fn nothing_is_written_of_others() {
        let pool =
            |consolidate_after, replicas| Pool { consolidate_after, replicas, ..Pool::default() };
        let mut claim = Claim { consistent: Some(true), ..settled() };
        let node = Node::default();
        claim.stage = ClaimStage::Registered;
        assert_eq!(due(&claim, Some(&node), Some(&pool(Some(0), None)), None, 50, 100), None);
        claim.stage = ClaimStage::Initialized;
        assert!(due(&claim, Some(&node), Some(&pool(Some(0), None)), None, 0, 100).is_some());
        for pool in [pool(None, None), pool(Some(0), Some(3))] {
            assert_eq!(due(&claim, Some(&node), Some(&pool), None, 0, 100), None);
        }
        assert_eq!(due(&claim, None, None, None, 0, 100), None, "neither node nor pool");
    }

    #[test]
    fn drift_is_written_while_it_lasts() {
        let mut claim = Claim { consistent: Some(true), ..settled() };
        let (same, other) = (Pool::default(), Pool { hash: "b".into(), ..Pool::default() });
        let (node, class) = (Node::default(), ClassFacts::default());
        claim.annotations.extend(drift::class_digest(&class));
        let found = |claim: &Claim, pool| due(claim, Some(&node), pool, Some(&class), 0, 100);
        let drifted = |reason| Some(Mark { drifted: Some(reason), ..Mark::default() });
        assert_eq!(found(&claim, Some(&same)), None);
        assert_eq!(found(&claim, Some(&other)), drifted(Some(drift::NODE_POOL)));
        claim.drifted = Some(drift::NODE_POOL.into());
        assert_eq!(found(&claim, Some(&other)), None, "it is written");
        assert_eq!(found(&claim, Some(&same)), drifted(None));
        assert_eq!(found(&claim, None), drifted(None), "there is no pool to differ from");
        claim.drifted = None;
        claim.annotations = drift::class_digest(&class);
        let adopted = Some(Mark { adopted: Some(drift::pool_digest(&other)), ..Mark::default() });
        assert_eq!(found(&claim, Some(&other)), adopted);
    }
}
