//! Carrying out the steps of a claim's life.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Clock, Context, Outcome};
use crate::api::conditions;
use crate::model::claim::Claim;
use crate::model::labels;
use crate::model::node::{Node, UNREGISTERED_TAINT};
use crate::model::pod::Pod;
use crate::plan::health;
use crate::plan::lifecycle::{self as life, Step};
use crate::plan::marks::Mark;
use crate::server::{About, ApiError, ApiServer, ConditionUpdate, NodeChange};
use crate::telemetry::metrics::{OutcomeLabel, PoolLabel, PoolReasonLabel};

/// Karpenter's finalizer, so that either can take over.
pub const FINALIZER: &str = "karpenter.sh/termination";

/// Carries out one step.
pub async fn carry_out<A: ApiServer, C, K: Clock>(
    context: &Context<A, C, K>,
    claim: &Claim,
    node: Option<&Node>,
    step: &Step,
    nominations: &[Arc<Pod>],
) {
    let (operation, result) = match (step, node) {
        (Step::Register, Some(node)) => ("register", register(context, claim, node).await),
        (Step::Open { initialized }, Some(node)) => {
            nominate(context, node, nominations).await;
            ("open", open(context, claim, node, *initialized).await)
        }
        (Step::Initialize, Some(node)) => ("initialize", initialize(context, claim, node).await),
        (Step::GiveUp { reason }, _) => return give_up(context, claim, reason).await,
        (Step::Wait { condition, reason, message }, _) => {
            let condition = ConditionUpdate::unknown(condition, reason, message);
            let (name, now) = (&claim.name, context.clock.now());
            ("wait", context.api.update_claim_status(name, json!({}), &[condition], now).await)
        }
        (Step::Mark(mark), _) => return write(context, claim, mark).await,
        _ => return,
    };
    let outcome = match result {
        Ok(()) => Outcome::Applied,
        Err(ApiError::NotFound) => Outcome::Skipped,
        Err(error) => Outcome::Failed(error.to_string()),
    };
    context.record(operation, &claim.name, &outcome);
}

/// Writes what the status says of a node in use. It changes too often to be news.
async fn write<A: ApiServer, C, K: Clock>(context: &Context<A, C, K>, claim: &Claim, mark: &Mark) {
    let mut updates = Vec::new();
    if let Some(may) = mark.consolidatable {
        let condition = conditions::CONSOLIDATABLE;
        updates.push(if may {
            ConditionUpdate::holds(condition)
        } else {
            ConditionUpdate::fails(condition, "NotConsolidatable", "a pod came or went lately")
        });
    }
    if let Some(drifted) = mark.drifted {
        let condition = conditions::DRIFTED;
        updates.push(match drifted {
            Some(reason) => {
                ConditionUpdate { reason: reason.to_owned(), ..ConditionUpdate::holds(condition) }
            }
            None => ConditionUpdate::gone(condition),
        });
    }
    if let Some(annotations) = &mark.adopted {
        let patch = json!({"metadata": {"annotations": annotations}});
        match context.api.patch_claim(&claim.name, patch).await {
            Ok(()) | Err(ApiError::NotFound) => {}
            Err(error) => context.record("adopt", &claim.name, &Outcome::Failed(error.to_string())),
        }
    }
    let mut lacks = None;
    if let Some(consistent) = &mark.consistent {
        let condition = conditions::CONSISTENT_STATE_FOUND;
        updates.push(match consistent {
            Ok(()) => ConditionUpdate::holds(condition),
            Err(message) => {
                lacks = Some(message.clone());
                ConditionUpdate::fails(condition, "ConsistencyCheckFailed", message)
            }
        });
    }
    let at = mark.pod_event.and_then(|at| Timestamp::from_second(at).ok());
    let status = at.map_or_else(|| json!({}), |at| json!({"lastPodEventTime": at}));
    if say(context, "mark", claim, status, &updates).await
        && let Some(message) = lacks
    {
        let about = About::claim(&claim.name, &claim.uid);
        context.warn(about, "FailedConsistencyCheck", message).await;
    }
}

async fn register<A: ApiServer, C, K: Clock>(
    context: &Context<A, C, K>,
    claim: &Claim,
    node: &Node,
) -> Result<(), ApiError> {
    context.api.change_node(&node.name, &registration(claim, node)).await?;
    let conditions = [ConditionUpdate::holds(conditions::REGISTERED)];
    let status = json!({"nodeName": &*node.name});
    context.api.update_claim_status(&claim.name, status, &conditions, context.clock.now()).await?;
    let label = PoolLabel { nodepool: claim.pool.to_string() };
    context.metrics.nodes_created.get_or_create(&label).inc();
    context.registrations.lock().note(&claim.pool, health::Outcome::Registered);
    Ok(())
}

/// What a claim gives its node when it joins.
fn registration(claim: &Claim, node: &Node) -> NodeChange {
    let mut node_labels: Vec<(String, String)> =
        claim.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    node_labels.push((labels::REGISTERED.to_owned(), "true".to_owned()));
    // What tools write about the claim's own object means nothing on the node.
    let of_claim = |key: &str| key.starts_with("harbinger.sh/") || key.starts_with("kubectl.");
    let annotations = claim
        .annotations
        .iter()
        .filter(|(key, _)| !of_claim(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    // The kubelet registered with its taints. A startup taint that an agent has taken off since must
    // not come back: nobody would take it off again.
    let tainted = node.label(labels::DO_NOT_SYNC_TAINTS) == Some("true");
    let taints = claim.taints.iter().chain(&claim.startup_taints).filter(|_| !tainted);
    NodeChange {
        labels: node_labels,
        annotations,
        add_taints: taints.cloned().collect(),
        add_finalizer: Some(FINALIZER.to_owned()),
        owner: Some((claim.name.to_string(), claim.uid.to_string())),
        ..NodeChange::default()
    }
}

/// Nominates pods, best effort and all at once.
async fn nominate<A: ApiServer, C, K: Clock>(
    context: &Context<A, C, K>,
    node: &Node,
    pods: &[Arc<Pod>],
) {
    let mut writing: FuturesUnordered<_> = pods
        .iter()
        .map(|pod| context.api.nominate(&pod.shape.namespace, &pod.name, &pod.uid, &node.name))
        .collect();
    while let Some(result) = writing.next().await {
        let outcome = if result.is_ok() { "applied" } else { "failed" };
        let label = OutcomeLabel { operation: "nominate", outcome };
        context.metrics.nominations.get_or_create(&label).inc();
    }
    // One Event a node is enough to see where pods go; one a pod would double the writes of a burst.
    if let Some(first) = pods.first() {
        let message = format!("Pod should schedule on: node/{} ({} pods)", node.name, pods.len());
        context.note(About::pod(first), "Nominated", message).await;
    }
}

async fn open<A: ApiServer, C, K: Clock>(
    context: &Context<A, C, K>,
    claim: &Claim,
    node: &Node,
    initialized: bool,
) -> Result<(), ApiError> {
    let mut change =
        NodeChange { remove_taints: vec![UNREGISTERED_TAINT.to_owned()], ..NodeChange::default() };
    if initialized {
        change.labels.push((labels::INITIALIZED.to_owned(), "true".to_owned()));
    }
    context.api.change_node(&node.name, &change).await?;
    if initialized {
        let conditions = [ConditionUpdate::holds(conditions::INITIALIZED)];
        context
            .api
            .update_claim_status(&claim.name, json!({}), &conditions, context.clock.now())
            .await?;
    }
    Ok(())
}

async fn initialize<A: ApiServer, C, K: Clock>(
    context: &Context<A, C, K>,
    claim: &Claim,
    node: &Node,
) -> Result<(), ApiError> {
    let change = NodeChange {
        labels: vec![(labels::INITIALIZED.to_owned(), "true".to_owned())],
        ..NodeChange::default()
    };
    context.api.change_node(&node.name, &change).await?;
    let conditions = [ConditionUpdate::holds(conditions::INITIALIZED)];
    context.api.update_claim_status(&claim.name, json!({}), &conditions, context.clock.now()).await
}

/// Sets conditions of a claim that ends, best effort: nothing waits for them.
pub async fn told<A: ApiServer, C, K: Clock>(
    context: &Context<A, C, K>,
    claim: &Claim,
    conditions: &[ConditionUpdate],
) {
    say(context, "tell_end", claim, json!({}), conditions).await;
}

/// Writes the status of a claim where nothing depends on it; says whether it is written.
async fn say<A: ApiServer, C, K: Clock>(
    context: &Context<A, C, K>,
    operation: &'static str,
    claim: &Claim,
    status: Value,
    conditions: &[ConditionUpdate],
) -> bool {
    let now = context.clock.now();
    match context.api.update_claim_status(&claim.name, status, conditions, now).await {
        Ok(()) => return true,
        Err(ApiError::NotFound) => {}
        Err(error) => {
            context.record(operation, &claim.name, &Outcome::Failed(error.to_string()));
        }
    }
    false
}

/// Asks for a claim's deletion; its node is drained and its instance terminated from there.
pub async fn give_up<A: ApiServer, C, K: Clock>(
    context: &Context<A, C, K>,
    claim: &Claim,
    reason: &'static str,
) {
    let outcome = match context.api.delete_claim(&claim.name, &claim.uid).await {
        Ok(()) => Outcome::Applied,
        Err(ApiError::NotFound) => Outcome::Skipped,
        Err(error) => Outcome::Failed(error.to_string()),
    };
    if outcome == Outcome::Applied {
        let failure = match reason {
            life::LAUNCH_TIMED_OUT => Some(health::Outcome::NotLaunched),
            life::REGISTRATION_TIMED_OUT => Some(health::Outcome::NotRegistered),
            _ => None,
        };
        if let Some(failure) = failure {
            context.registrations.lock().note(&claim.pool, failure);
        }
        let label = PoolReasonLabel { nodepool: claim.pool.to_string(), reason: reason.to_owned() };
        context.metrics.claims_disrupted.get_or_create(&label).inc();
        let message = format!("Disrupting NodeClaim: {reason}");
        let about = About::claim(&claim.name, &claim.uid);
        context.note(about, "DisruptionTerminating", message).await;
        // While the node is drained the claim says why; one that had no instance is gone by now.
        let why = ConditionUpdate {
            reason: in_camel_case(reason),
            ..ConditionUpdate::holds(conditions::DISRUPTION_REASON)
        };
        told(context, claim, &[why]).await;
    }
    context.record(reason, &claim.name, &outcome);
}

/// A metric's reason as a condition writes it: `launch_timeout` is `LaunchTimeout`.
fn in_camel_case(reason: &str) -> String {
    let words = reason.split('_').filter_map(|word| word.split_at_checked(1));
    words.map(|(first, rest)| first.to_uppercase() + rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::taints::{Taint, TaintEffect};

    #[test]
    fn reasons_are_written_as_conditions_are() {
        assert_eq!(in_camel_case("launch_timeout"), "LaunchTimeout");
        assert_eq!(in_camel_case("empty"), "Empty");
    }

    #[test]
    fn a_node_gets_what_its_claim_says() {
        let mut claim = Claim { name: "c".into(), ..Claim::default() };
        claim.startup_taints = vec![Taint::new("agent", TaintEffect::NoExecute)];
        for key in ["team.example/cost", "karpenter.sh/nodepool-hash", "harbinger.sh/launch-group"]
        {
            claim.annotations.insert(key.to_owned(), "x".to_owned());
        }
        let mut node = Node::default();
        let change = registration(&claim, &node);
        let keys: Vec<&str> = change.annotations.iter().map(|(key, _)| &**key).collect();
        assert_eq!(keys, ["karpenter.sh/nodepool-hash", "team.example/cost"]);
        assert_eq!(change.add_taints, claim.startup_taints);
        // It registered with its taints: what is gone by now was taken off by whom it waited for.
        node.labels.insert(labels::DO_NOT_SYNC_TAINTS.to_owned(), "true".to_owned());
        assert_eq!(registration(&claim, &node).add_taints, []);
    }
}
