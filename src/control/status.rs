//! What pools say of themselves: readiness and resources.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;

use super::{Clock, Context, Outcome};
use crate::api::conditions::{self, ConditionStatus};
use crate::api::ec2nodeclass::EC2NodeClass;
use crate::cluster::Snapshot;
use crate::server::{ApiError, ApiServer, ConditionUpdate};
use crate::telemetry::metrics::PoolResourceLabel;

/// Time between rounds.
const EVERY: Duration = Duration::from_secs(2);

/// Writes pool status while this process leads.
pub async fn run<A: ApiServer, C, K: Clock>(
    context: Context<A, C, K>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    classes: watch::Receiver<BTreeMap<Arc<str>, Arc<EC2NodeClass>>>,
    lead: watch::Receiver<bool>,
) {
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
            let status = json!({"resources": resources, "nodes": nodes});
            let conditions = vec![valid(pool.ready), class_ready(class.as_deref())];
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
        written.retain(|name, _| snapshot.pools.contains_key(name));
    }
}

fn valid(valid: bool) -> ConditionUpdate {
    if valid {
        return ConditionUpdate::holds(conditions::VALIDATION_SUCCEEDED);
    }
    ConditionUpdate {
        condition: conditions::VALIDATION_SUCCEEDED,
        status: ConditionStatus::False,
        reason: "NodePoolValidationFailed".to_owned(),
        message: "the spec is refused; harbinger simulate names the fields".to_owned(),
    }
}

fn class_ready(class: Option<&EC2NodeClass>) -> ConditionUpdate {
    let no = |reason: &str, message: &str| ConditionUpdate {
        condition: conditions::NODE_CLASS_READY,
        status: ConditionStatus::False,
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    let Some(class) = class else {
        return no("NodeClassNotFound", "the EC2NodeClass does not exist");
    };
    if class.metadata.deletion_timestamp.is_some() {
        return no("NodeClassTerminating", "the EC2NodeClass is being deleted");
    }
    let status = class.status.as_ref().map(|status| &status.conditions);
    match status.and_then(|list| conditions::get(list, conditions::READY)) {
        Some(ready) if ready.status == ConditionStatus::True => {
            ConditionUpdate::holds(conditions::NODE_CLASS_READY)
        }
        Some(ready) => no("NodeClassNotReady", &ready.message),
        None => ConditionUpdate::unknown(
            conditions::NODE_CLASS_READY,
            "NodeClassReadinessUnknown",
            "the EC2NodeClass has not been looked at yet",
        ),
    }
}
