//! Instances without a claim, and claims without an instance.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::launch::GROUP_TAG;
use super::{Clock, Context, Outcome, lifecycle};
use crate::cloud::{Cloud, CloudError, Instance};
use crate::cluster::Snapshot;
use crate::model::claim::{Claim, ClaimStage};
use crate::plan::draft::launch_group;
use crate::server::ApiServer;

/// Time between rounds.
const EVERY: Duration = Duration::from_secs(20);
/// An instance younger than this may belong to a launch that is not written down yet, seconds.
const YOUNG: i64 = 30;

/// Looks for garbage while this process leads.
pub async fn run<A: ApiServer, C: Cloud, K: Clock>(
    context: Context<A, C, K>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    lead: watch::Receiver<bool>,
) {
    loop {
        tokio::time::sleep(EVERY).await;
        if !*lead.borrow() {
            continue;
        }
        // The list is read after the snapshot: an instance that is missing then is really gone.
        let snapshot = Arc::clone(&snapshots.borrow());
        if !snapshot.synced {
            continue;
        }
        let instances = match context.cloud.list().await {
            Ok(instances) => instances,
            Err(error) => {
                context.record("collect_garbage", "instances", &Outcome::Failed(error.to_string()));
                continue;
            }
        };
        let now = context.clock.now().as_second();
        for instance in leaked(&snapshot, &instances, now) {
            let outcome = match context.cloud.terminate(&instance.provider_id).await {
                Ok(()) | Err(CloudError::NotFound { .. }) => Outcome::Applied,
                Err(error) => Outcome::Failed(error.to_string()),
            };
            context.record("terminate_leaked", &instance.provider_id, &outcome);
        }
        for claim in orphaned(&snapshot, &instances) {
            lifecycle::give_up(&context, &claim, "garbage_collected").await;
        }
    }
}

/// Instances that no claim knows and no launch group still waits for.
fn leaked<'a>(snapshot: &Snapshot, instances: &'a [Instance], now: i64) -> Vec<&'a Instance> {
    let known = snapshot.claims_by_provider_id();
    let waiting: BTreeSet<&str> = snapshot
        .claims
        .values()
        .filter(|claim| claim.stage == ClaimStage::Pending)
        .filter_map(|claim| launch_group(claim))
        .collect();
    instances
        .iter()
        .filter(|instance| {
            let group = instance.tags.get(GROUP_TAG);
            !instance.terminating
                && !known.contains_key(&*instance.provider_id)
                && now - instance.launched_at > YOUNG
                && !group.is_some_and(|group| waiting.contains(&**group))
        })
        .collect()
}

/// Registered claims whose instance is gone, unless their node still answers.
fn orphaned(snapshot: &Snapshot, instances: &[Instance]) -> Vec<Arc<Claim>> {
    let there: BTreeSet<&str> =
        instances.iter().filter(|i| !i.terminating).map(|i| &*i.provider_id).collect();
    snapshot
        .claims
        .values()
        .filter(|claim| {
            claim.stage >= ClaimStage::Registered
                && !claim.deleting()
                && !there.contains(&*claim.provider_id)
                && !snapshot.node_of(claim).is_some_and(|node| node.ready)
        })
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Change, Event, State};

    fn instance(id: &str, group: &str, launched_at: i64) -> Instance {
        let mut instance = Instance { provider_id: id.into(), launched_at, ..Instance::default() };
        instance.tags.insert(GROUP_TAG.to_owned(), group.to_owned());
        instance
    }

    #[test]
    fn only_old_instances_that_nobody_waits_for_are_leaked() {
        let mut state = State::default();
        let mut pending = Claim { name: "a".into(), ..Claim::default() };
        pending.annotations.insert("harbinger.sh/launch-group".into(), "g1".into());
        let launched = Claim {
            name: "b".into(),
            provider_id: "i-known".into(),
            stage: ClaimStage::Launched,
            ..Claim::default()
        };
        state.apply(Event::Claims(Change::Replace(vec![pending, launched])));
        let all = [
            instance("i-known", "g0", 0),
            instance("i-waited", "g1", 0),
            instance("i-young", "g2", 80),
            instance("i-leaked", "g2", 0),
        ];
        let found: Vec<&str> =
            leaked(&state.snapshot(), &all, 100).iter().map(|i| &*i.provider_id).collect();
        assert_eq!(found, ["i-leaked"]);
    }
}
