//! Claims that were moved on, with what was known of them then.
//!
//! What a step changed comes back through the watch, milliseconds later, or much later while the API
//! server is away or hangs. Until then the step must not be taken again and again.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::Snapshot;
use crate::model::claim::Claim;
use crate::model::node::Node;

/// Seconds after which a step that changed nothing that we know of is taken again. It may have failed.
const REPEAT: i64 = 2;
/// How long a claim may stay where it is before its conditions say what it waits for, seconds. Most
/// boots are over by then, or need no explanation.
const PATIENCE: i64 = 20;

/// The last step of each claim, and the last reason for which one was said to wait.
#[derive(Default)]
pub(super) struct Moves {
    steps: BTreeMap<Arc<str>, Move>,
    waits: BTreeMap<Arc<str>, &'static str>,
}

struct Move {
    claim: Arc<Claim>,
    node: Option<Arc<Node>>,
    at: i64,
}

impl Moves {
    /// Notes a step that begins at `now`.
    pub(super) fn begin(&mut self, claim: &Arc<Claim>, node: Option<&Arc<Node>>, now: i64) {
        let step = Move { claim: Arc::clone(claim), node: node.cloned(), at: now };
        self.steps.insert(Arc::clone(&claim.name), step);
    }

    /// Whether nothing is known to have changed since the last step, which is not long ago.
    pub(super) fn rest(&self, claim: &Arc<Claim>, node: Option<&Arc<Node>>, now: i64) -> bool {
        self.steps.get(&claim.name).is_some_and(|last| {
            let same_node = match (&last.node, node) {
                (Some(last), Some(node)) => Arc::ptr_eq(last, node),
                (None, None) => true,
                _ => false,
            };
            same_node && Arc::ptr_eq(&last.claim, claim) && now - last.at < REPEAT
        })
    }

    /// Whether it is time to say that the claim waits for this, which is said once.
    pub(super) fn says(&mut self, claim: &Claim, reason: &'static str, now: i64) -> bool {
        now - claim.stage_at >= PATIENCE && !self.told(claim, reason)
    }

    /// Whether it was said before that the claim waits for this; it is from now on.
    pub(super) fn told(&mut self, claim: &Claim, reason: &'static str) -> bool {
        self.waits.insert(Arc::clone(&claim.name), reason) == Some(reason)
    }

    /// Forgets claims that are gone.
    pub(super) fn retain(&mut self, snapshot: &Snapshot) {
        self.steps.retain(|name, _| snapshot.claims.contains_key(name));
        self.waits.retain(|name, _| snapshot.claims.contains_key(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_repeated_when_something_changed_or_after_a_while() {
        let claim = Arc::new(Claim { name: "a".into(), ..Claim::default() });
        let node = Arc::new(Node::default());
        let mut moves = Moves::default();
        assert!(!moves.rest(&claim, Some(&node), 10), "no step yet");
        moves.begin(&claim, Some(&node), 10);
        assert!(moves.rest(&claim, Some(&node), 11));
        assert!(!moves.rest(&claim, Some(&node), 12), "a while");
        assert!(!moves.rest(&claim, None, 10), "the node went");
        assert!(!moves.rest(&claim, Some(&Arc::new(Node::default())), 10), "another node");
        assert!(!moves.rest(&Arc::new((*claim).clone()), Some(&node), 10), "another claim");
        assert!(!moves.told(&claim, "NodeNotFound") && moves.told(&claim, "NodeNotFound"));
        assert!(!moves.told(&claim, "NodeNotReady"));
        let late = Claim { stage_at: 10, ..(*claim).clone() };
        assert!(!moves.says(&late, "NodeNotFound", 29), "most boots take as long");
        assert!(moves.says(&late, "NodeNotFound", 30) && !moves.says(&late, "NodeNotFound", 31));
        moves.retain(&Snapshot::default());
        assert!(!moves.rest(&claim, Some(&node), 10), "forgotten");
    }
}
