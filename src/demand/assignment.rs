//! Which pods are meant for which claim.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::claim::{Claim, ClaimStage};
use crate::model::pod::PodShape;
use crate::model::resources::Resources;

/// How long an assignment outlives the opening of its node, seconds. The scheduler binds nominated
/// pods within a second; what has not come after this is planned anew.
pub const GRACE_AFTER_OPEN: i64 = 10;

/// Annotation of a claim with its assignments, so that a new leader knows them: a JSON object of
/// owner UID to count of pods.
pub const PLANNED: &str = "harbinger.sh/planned";

/// Pods of one owner that are meant for a claim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Assignment {
    /// UID of the root owner: a workload, or a pod that nobody owns.
    pub owner: Arc<str>,
    /// What each pod asks.
    pub shape: Arc<PodShape>,
    /// Pods.
    pub count: u32,
}

/// All assignments, by claim.
#[derive(Clone, Debug, Default)]
pub struct Assignments {
    by_claim: BTreeMap<Arc<str>, Planned>,
}

#[derive(Clone, Debug)]
struct Planned {
    pods: Vec<Assignment>,
    /// Capacity of the type that was planned, until the cloud says what it launched.
    capacity: Resources,
}

impl Assignments {
    /// Records what a new claim is for.
    pub fn assign(&mut self, claim: Arc<str>, pods: Vec<Assignment>, capacity: Resources) {
        self.by_claim.insert(claim, Planned { pods, capacity });
    }

    /// What is meant for a claim.
    pub fn of(&self, claim: &str) -> &[Assignment] {
        self.by_claim.get(claim).map_or(&[], |planned| &planned.pods)
    }

    /// Capacity that was planned for a claim that has not been launched.
    pub fn capacity(&self, claim: &str) -> Option<&Resources> {
        self.by_claim.get(claim).map(|planned| &planned.capacity)
    }

    /// Forgets claims that are gone, being deleted, or open while nobody whom they are for still
    /// waits, or for longer than the grace. `waits` says whether an owner's pods have yet to come.
    pub fn retain(
        &mut self,
        claims: &BTreeMap<Arc<str>, Arc<Claim>>,
        just_made: &dyn Fn(&str) -> bool,
        waits: &dyn Fn(&str) -> bool,
        now: i64,
    ) {
        self.by_claim.retain(|name, planned| match claims.get(name) {
            Some(claim) => {
                let over = claim.stage == ClaimStage::Initialized
                    && (now - claim.stage_at > GRACE_AFTER_OPEN
                        || !planned.pods.iter().any(|pods| waits(&pods.owner)));
                !claim.deleting() && !over
            }
            // Its creation may not have come back through the watch yet.
            None => just_made(name),
        });
    }

    /// Takes over what another leader planned. `shape_of` finds what an owner's pods ask.
    pub fn restore(&mut self, claim: &Claim, shape_of: impl Fn(&str) -> Option<Arc<PodShape>>) {
        if self.by_claim.contains_key(&claim.name) || claim.stage == ClaimStage::Initialized {
            return;
        }
        let Some(text) = claim.annotations.get(PLANNED) else { return };
        let counts: BTreeMap<String, u32> = serde_json::from_str(text).unwrap_or_default();
        let pods = counts
            .into_iter()
            .filter_map(|(owner, count)| {
                Some(Assignment { shape: shape_of(&owner)?, owner: owner.into(), count })
            })
            .collect();
        self.assign(Arc::clone(&claim.name), pods, claim.capacity.clone());
    }

    /// The annotation's value for a list of assignments.
    pub fn annotation(pods: &[Assignment]) -> String {
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for pod in pods {
            *counts.entry(&pod.owner).or_insert(0) += pod.count;
        }
        serde_json::to_string(&counts).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_leader_reads_what_was_planned() {
        let shape = Arc::new(PodShape::default());
        let pods = vec![Assignment { owner: "u1".into(), shape: Arc::clone(&shape), count: 3 }];
        let mut claim = Claim { name: "c".into(), ..Claim::default() };
        claim.annotations.insert(PLANNED.to_owned(), Assignments::annotation(&pods));
        let mut other = Assignments::default();
        other.restore(&claim, |owner| (owner == "u1").then(|| Arc::clone(&shape)));
        assert_eq!(other.of("c"), pods);
    }

    #[test]
    fn assignments_end_with_their_claim() {
        let mut all = Assignments::default();
        let meant = Assignment { owner: "u".into(), shape: Arc::default(), count: 1 };
        all.assign("c".into(), vec![meant], Resources::default());
        let open = Claim {
            name: "c".into(),
            stage: ClaimStage::Initialized,
            stage_at: 100,
            ..Claim::default()
        };
        let claims = BTreeMap::from([(Arc::from("c"), Arc::new(open))]);
        let mut unwanted = all.clone();
        all.retain(&claims, &|_| false, &|_| true, 105);
        assert!(all.capacity("c").is_some());
        all.retain(&claims, &|_| false, &|_| true, 111);
        assert!(all.capacity("c").is_none());
        unwanted.retain(&claims, &|_| false, &|_| false, 100);
        assert!(unwanted.capacity("c").is_none(), "nobody waits for it any more");
    }
}
