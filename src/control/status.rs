//! What pools and overlays say of themselves: readiness and resources.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;

use super::{Clock, Context, Outcome};
use crate::api::conditions::{self, ConditionStatus};
use crate::api::ec2nodeclass::EC2NodeClass;
use crate::cluster::Snapshot;
use crate::model::overlay::Overlay;
use crate::plan::Catalogs;
use crate::plan::health::{self, Health};
use crate::plan::overlay::Refusal;
use crate::server::{ApiError, ApiServer, ConditionUpdate};
use crate::telemetry::metrics::PoolResourceLabel;

/// Time between rounds.
const EVERY: Duration = Duration::from_secs(2);

/// Writes the status of pools and overlays while this process leads.
pub async fn run<A: ApiServer, C, K: Clock>(
    context: Context<A, C, K>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    classes: watch::Receiver<BTreeMap<Arc<str>, Arc<EC2NodeClass>>>,
    catalogs: watch::Receiver<Catalogs>,
    lead: watch::Receiver<bool>,
) {
    let mut told = BTreeMap::new();
    let mut written: BTreeMap<Arc<str>, (serde_json::Value, Vec<ConditionUpdate>)> =
        BTreeMap::new();
    loop {
        tokio::time::sleep(EVERY).await;
        let snapshot = Arc::clone(&snapshots.borrow());
        if !*lead.borrow() || !snapshot.synced {
            continue;
        }
        for pool in snapshot.pools.values() {
            let class = classes.borrow().get(&pool.class.name).cloned();
            let (used, nodes) = snapshot.pool_usage(&pool.name);
            let mut resources = used.to_quantities();
            resources.insert("nodes".to_owned(), nodes.to_string());
            for (name, limit) in &pool.limits {
                let label = PoolResourceLabel {
                    nodepool: pool.name.to_string(),
                    resource_type: name.to_string(),
                };
                context.metrics.pool_limit.get_or_create(&label).set(*limit);
                let amount = if &**name == "nodes" { nodes } else { used.get(name) };
                context.metrics.pool_usage.get_or_create(&label).set(amount);
            }
            let generation = class.as_ref().and_then(|class| class.metadata.generation);
            let status = json!({
                "resources": resources,
                "nodes": nodes,
                "nodeClassObservedGeneration": generation,
            });
            let version = format!("{}/{}", pool.hash, generation.unwrap_or(0));
            let registered = context.registrations.lock().health(&pool.name, &version);
            let mut conditions =
                vec![valid(pool.refusal.as_deref()), class_ready(class.as_deref())];
            conditions.extend(registers(registered));
            let next = (status, conditions);
            if written.get(&pool.name) == Some(&next) {
                continue;
            }
            let result = context
                .api
                .update_pool_status(&pool.name, next.0.clone(), &next.1, context.clock.now())
                .await;
            let outcome = match result {
                Ok(()) => {
                    written.insert(Arc::clone(&pool.name), next);
                    Outcome::Skipped
                }
                Err(ApiError::NotFound) => Outcome::Skipped,
                Err(error) => Outcome::Failed(error.to_string()),
            };
            context.record("pool_status", &pool.name, &outcome);
        }
        context.registrations.lock().retain(|pool| snapshot.pools.contains_key(pool));
        written.retain(|name, _| snapshot.pools.contains_key(name));
        let verdicts = catalogs.borrow().clone();
        overlays(&context, &snapshot, &verdicts, &mut told).await;
    }
}

/// Writes whether overlays are believed. `told` holds what was written, so that each is written
/// once.
async fn overlays<A: ApiServer, C, K: Clock>(
    context: &Context<A, C, K>,
    snapshot: &Snapshot,
    catalogs: &Catalogs,
    told: &mut BTreeMap<Arc<str>, (Arc<Overlay>, ConditionUpdate)>,
) {
    for (name, verdict) in catalogs.overlays() {
        let Some(overlay) = snapshot.overlays.get(name) else { continue };
        let next = (Arc::clone(overlay), believed(verdict.as_ref()));
        if told.get(name) == Some(&next) {
            continue;
        }
        let now = context.clock.now();
        let result =
            context.api.update_overlay_status(name, std::slice::from_ref(&next.1), now).await;
        let outcome = match result {
            Ok(()) => {
                told.insert(Arc::clone(name), next);
                Outcome::Skipped
            }
            Err(ApiError::NotFound) => Outcome::Skipped,
            Err(error) => Outcome::Failed(error.to_string()),
        };
        context.record("overlay_status", name, &outcome);
    }
    told.retain(|name, _| snapshot.overlays.contains_key(name));
}

fn believed(refusal: Option<&Refusal>) -> ConditionUpdate {
    match refusal {
        None => ConditionUpdate::holds(conditions::VALIDATION_SUCCEEDED),
        Some(refusal) => ConditionUpdate::fails(
            conditions::VALIDATION_SUCCEEDED,
            refusal.reason(),
            &refusal.to_string(),
        ),
    }
}

fn valid(refusal: Option<&str>) -> ConditionUpdate {
    let condition = conditions::VALIDATION_SUCCEEDED;
    match refusal {
        None => ConditionUpdate::holds(condition),
        Some(refusal) => ConditionUpdate::fails(condition, "NodePoolValidationFailed", refusal),
    }
}

/// Whether the pool's nodes register; none where what was said before stands.
fn registers(health: Health) -> Option<ConditionUpdate> {
    let condition = conditions::NODE_REGISTRATION_HEALTHY;
    let failed = |reason, message| ConditionUpdate::fails(condition, reason, message);
    match health {
        Health::Unseen => None,
        Health::Healthy => Some(ConditionUpdate::holds(condition)),
        Health::Unknown => {
            let message = "the pool or its class changed, and no node has joined since";
            Some(ConditionUpdate::unknown(condition, "AwaitingReconciliation", message))
        }
        Health::Unhealthy(health::Outcome::NotLaunched) => {
            Some(failed("LaunchFailed", "instances of this pool are not launched in time"))
        }
        Health::Unhealthy(_) => Some(failed(
            "RegistrationFailed",
            "instances of this pool start, but do not join the cluster: look at the node role's \
             access entry, the security groups, the subnets' routes and the user data",
        )),
    }
}

fn class_ready(class: Option<&EC2NodeClass>) -> ConditionUpdate {
    let condition = conditions::NODE_CLASS_READY;
    let no = |reason, message| ConditionUpdate::fails(condition, reason, message);
    let Some(class) = class else {
        return no("NodeClassNotFound", "the EC2NodeClass does not exist");
    };
    if class.metadata.deletion_timestamp.is_some() {
        return no("NodeClassTerminating", "the EC2NodeClass is being deleted");
    }
    let status = class.status.as_ref().map(|status| &status.conditions);
    match status.and_then(|list| conditions::get(list, conditions::READY)) {
        Some(ready) if ready.status == ConditionStatus::True => ConditionUpdate::holds(condition),
        Some(ready) => no("NodeClassNotReady", &ready.message),
        None => ConditionUpdate::unknown(
            condition,
            "NodeClassReadinessUnknown",
            "the EC2NodeClass has not been looked at yet",
        ),
    }
}
