//! Carrying out the steps of a claim's life.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::json;

use super::{Clock, Context, Outcome};
use crate::model::claim::Claim;
use crate::model::labels;
use crate::model::node::{Node, UNREGISTERED_TAINT};
use crate::model::pod::Pod;
use crate::plan::lifecycle::Step;
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
        _ => return,
    };
    let outcome = match result {
        Ok(()) => Outcome::Applied,
        Err(ApiError::NotFound) => Outcome::Skipped,
        Err(error) => Outcome::Failed(error.to_string()),
    };
    context.record(operation, &claim.name, &outcome);
}

async fn register<A: ApiServer, C, K: Clock>(
    context: &Context<A, C, K>,
    claim: &Claim,
    node: &Node,
) -> Result<(), ApiError> {
    let mut node_labels: Vec<(String, String)> =
        claim.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    node_labels.push((labels::REGISTERED.to_owned(), "true".to_owned()));
    let shared =
        |key: &str| key.starts_with("karpenter.sh/") || key.starts_with("karpenter.k8s.aws/");
    let annotations = claim
        .annotations
        .iter()
        .filter(|(key, _)| shared(key) && !key.starts_with("kubectl"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let change = NodeChange {
        labels: node_labels,
        annotations,
        add_taints: claim.taints.iter().chain(&claim.startup_taints).cloned().collect(),
        add_finalizer: Some(FINALIZER.to_owned()),
        owner: Some((claim.name.to_string(), claim.uid.to_string())),
        ..NodeChange::default()
    };
    context.api.change_node(&node.name, &change).await?;
    let conditions = [ConditionUpdate::holds("Registered")];
    let status = json!({"nodeName": &*node.name});
    context.api.update_claim_status(&claim.name, status, &conditions, context.clock.now()).await?;
    let label = PoolLabel { nodepool: claim.pool.to_string() };
    context.metrics.nodes_created.get_or_create(&label).inc();
    Ok(())
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
        let conditions = [ConditionUpdate::holds("Initialized")];
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
    let conditions = [ConditionUpdate::holds("Initialized")];
    context.api.update_claim_status(&claim.name, json!({}), &conditions, context.clock.now()).await
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
        let label = PoolReasonLabel { nodepool: claim.pool.to_string(), reason: reason.to_owned() };
        context.metrics.claims_disrupted.get_or_create(&label).inc();
        let message = format!("Disrupting NodeClaim: {reason}");
        let about = About::claim(&claim.name, &claim.uid);
        context.note(about, "DisruptionTerminating", message).await;
    }
    context.record(reason, &claim.name, &outcome);
}
