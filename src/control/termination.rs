//! Ending a claim: drain its node, terminate its instance, take the finalizers off.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::lifecycle::{FINALIZER, told};
use super::{Clock, Context, Outcome};
use crate::api::conditions;
use crate::cloud::{Cloud, CloudError};
use crate::cluster::Snapshot;
use crate::model::claim::Claim;
use crate::model::node::{DISRUPTED_TAINT, Node};
use crate::model::taints::{Taint, TaintEffect};
use crate::plan::terminate::drain;
use crate::server::{About, ApiError, ApiServer, ConditionUpdate, NodeChange};
use crate::telemetry::metrics::PoolLabel;

/// How often a drain is looked at when nothing changes.
const PAUSE: Duration = Duration::from_millis(500);
/// A pod whose eviction a budget blocked is tried again after this.
const BLOCKED: i64 = 2;
/// A drain is over no sooner than this after the taint, seconds: the scheduler may have chosen the node
/// for a pod before it saw the taint.
const SETTLE: i64 = 2;
/// Label that keeps load balancers away from a node that ends.
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Ends a claim that is being deleted.
pub async fn terminate<A: ApiServer, C: Cloud, K: Clock>(
    context: &Context<A, C, K>,
    claim: &Claim,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
) {
    let goes_on = |step, result: Result<bool, ApiError>| match result {
        Ok(goes_on) => goes_on,
        // Tried again when the claim is looked at next.
        Err(error) => {
            context.record(step, &claim.name, &Outcome::Failed(error.to_string()));
            false
        }
    };
    if let Some(node) = node_of(&snapshots, claim)
        && !goes_on("drain", drained(context, claim, &node, &mut snapshots).await)
    {
        return;
    }
    if let Some(node) = node_of(&snapshots, claim)
        && !detached(context, claim, &node, &mut snapshots).await
    {
        return;
    }
    if let Err(error) = ended(context, claim).await {
        let message = format!("Failed to terminate the instance: {error}");
        context.warn(About::claim(&claim.name, &claim.uid), "FailedTermination", message).await;
        return context.record("terminate", &claim.name, &Outcome::Failed(error.to_string()));
    }
    if let Some(node) = node_of(&snapshots, claim) {
        let change =
            NodeChange { remove_finalizer: Some(FINALIZER.to_owned()), ..NodeChange::default() };
        let gone = context.api.delete_node(&node.name).await;
        let freed = context.api.change_node(&node.name, &change).await;
        for result in [gone, freed] {
            if let Err(error) = result
                && !matches!(error, ApiError::NotFound)
            {
                return context.record(
                    "terminate",
                    &claim.name,
                    &Outcome::Failed(error.to_string()),
                );
            }
        }
    }
    let outcome = match context.api.finish_claim(&claim.name).await {
        Ok(()) => {
            let label = PoolLabel { nodepool: claim.pool.to_string() };
            context.metrics.claims_terminated.get_or_create(&label).inc();
            Outcome::Applied
        }
        Err(ApiError::NotFound) => Outcome::Skipped,
        Err(error) => Outcome::Failed(error.to_string()),
    };
    context.record("terminate", &claim.name, &outcome);
}

fn node_of(snapshots: &watch::Receiver<Arc<Snapshot>>, claim: &Claim) -> Option<Arc<Node>> {
    snapshots.borrow().node_of(claim).cloned()
}

/// Returns when no pod holds the node any more, or the node is gone; false when the process is to end
/// before that.
async fn drained<A: ApiServer, C, K: Clock>(
    context: &Context<A, C, K>,
    claim: &Claim,
    node: &Node,
    snapshots: &mut watch::Receiver<Arc<Snapshot>>,
) -> Result<bool, ApiError> {
    let change = NodeChange {
        labels: vec![(EXCLUDE.to_owned(), "karpenter".to_owned())],
        add_taints: vec![Taint::new(DISRUPTED_TAINT, TaintEffect::NoSchedule)],
        ..NodeChange::default()
    };
    match context.api.change_node(&node.name, &change).await {
        Err(ApiError::NotFound) => return Ok(true),
        other => other?,
    }
    let tainted_at = context.clock.now().as_second();
    let mut first = true;
    let deadline = claim.ends_by();
    let mut blocked: BTreeMap<Arc<str>, i64> = BTreeMap::new();
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        if !snapshot.nodes.contains_key(&node.name) {
            return Ok(true);
        }
        let now = context.clock.now().as_second();
        let by_node = snapshot.pods_by_node();
        let none = Vec::new();
        let plan = drain(by_node.get(&*node.name).unwrap_or(&none), deadline, now);
        if plan.done && now - tainted_at >= SETTLE {
            return Ok(true);
        }
        if std::mem::take(&mut first) && !plan.done {
            let draining = ConditionUpdate::unknown(
                conditions::DRAINED,
                "Draining",
                "pods are being evicted from the node",
            );
            told(context, claim, &[draining]).await;
        }
        for (pod, grace) in &plan.delete {
            context.api.delete_pod(&pod.shape.namespace, &pod.name, &pod.uid, *grace).await?;
            let message = format!(
                "Deleted the pod with a grace of {grace} s: node {} must end in time",
                node.name
            );
            context.warn(About::pod(pod), "Disrupted", message).await;
        }
        for pod in &plan.evict {
            if blocked.get(&pod.uid).is_some_and(|until| now < *until) {
                continue;
            }
            match context.api.evict(&pod.shape.namespace, &pod.name, &pod.uid).await {
                Ok(()) => {
                    blocked.insert(Arc::clone(&pod.uid), now + BLOCKED);
                    let message = format!("Evicted pod: node {} is being ended", node.name);
                    context.note(About::pod(pod), "Evicted", message).await;
                }
                Err(ApiError::Blocked(message)) => {
                    if blocked.insert(Arc::clone(&pod.uid), now + BLOCKED).is_none() {
                        let message = format!("Failed to drain node, {}: {message}", pod.key());
                        context.warn(About::node(&node.name), "FailedDraining", message).await;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        tokio::select! {
            _ = snapshots.changed() => {}
            goes_on = context.pause(PAUSE) => if !goes_on {
                return Ok(false);
            }
        }
    }
}

/// Returns when no volume is attached any more but those of pods that stay, the claim's time is up, or
/// the node is dead or gone; false when the process is to end before that. An instance that ends with
/// its volumes attached keeps them from other nodes for minutes.
async fn detached<A: ApiServer, C, K: Clock>(
    context: &Context<A, C, K>,
    claim: &Claim,
    node: &Node,
    snapshots: &mut watch::Receiver<Arc<Snapshot>>,
) -> bool {
    let mut waits = false;
    let drained = ConditionUpdate::holds(conditions::DRAINED);
    let condition = conditions::VOLUMES_DETACHED;
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        let alive = snapshot.nodes.get(&node.name).is_some_and(|node| node.ready);
        if !alive {
            // Its volumes are detached when it is gone, not before.
            told(context, claim, &[drained]).await;
            return true;
        }
        let attached = snapshot.attached(&node.name);
        let late = claim.ends_by().is_some_and(|end| context.clock.now().as_second() >= end);
        if attached.is_empty() || late {
            let detached = if attached.is_empty() {
                ConditionUpdate::holds(condition)
            } else {
                let message = format!("Still attached: {}", attached.join(", "));
                ConditionUpdate::fails(condition, "TerminationGracePeriodElapsed", &message)
            };
            told(context, claim, &[drained, detached]).await;
            return true;
        }
        if !std::mem::replace(&mut waits, true) {
            let message = format!("Volumes are still attached: {}", attached.join(", "));
            let waiting = ConditionUpdate::unknown(condition, "AwaitingVolumeDetachment", &message);
            told(context, claim, &[drained.clone(), waiting]).await;
            let about = About::claim(&claim.name, &claim.uid);
            context.note(about, "AwaitingVolumeDetachment", message).await;
        }
        tokio::select! {
            _ = snapshots.changed() => {}
            goes_on = context.pause(PAUSE) => if !goes_on {
                return false;
            }
        }
    }
}

/// Returns when the instance is gone.
async fn ended<A: ApiServer, C: Cloud, K: Clock>(
    context: &Context<A, C, K>,
    claim: &Claim,
) -> Result<(), CloudError> {
    if claim.provider_id.is_empty() {
        return Ok(());
    }
    match context.cloud.terminate(&claim.provider_id).await {
        Ok(()) | Err(CloudError::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    // The provider has accepted the end; the instance needs no more of us once it shuts down.
    match context.cloud.get(&claim.provider_id).await {
        Ok(instance) if !instance.terminating => {
            told(context, claim, &[ConditionUpdate::holds(conditions::INSTANCE_TERMINATING)]).await;
            Err(CloudError::Unknown { message: "the instance does not shut down yet".to_owned() })
        }
        Ok(_) | Err(CloudError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
