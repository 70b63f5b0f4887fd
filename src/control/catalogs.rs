//! Keeping node classes resolved and their catalogs current.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::engine::Message;
use super::{Clock, Context, Outcome};
use crate::api::conditions;
use crate::api::ec2nodeclass::{EC2NodeClass, EC2NodeClassStatus};
use crate::cloud::Cloud;
use crate::plan::Catalog;
use crate::server::ApiServer;

/// How often classes are resolved again when nothing changes; the provider caches what is dear.
const EVERY: Duration = Duration::from_secs(20);

/// Resolves classes when they change and from time to time, and sends on what they offer. Only a
/// leader writes their status.
pub async fn run<A: ApiServer, C: Cloud, K: Clock>(
    context: Context<A, C, K>,
    mut classes: watch::Receiver<BTreeMap<Arc<str>, Arc<EC2NodeClass>>>,
    lead: watch::Receiver<bool>,
    to: mpsc::Sender<Message>,
) {
    loop {
        let now = classes.borrow_and_update().clone();
        let mut catalogs = BTreeMap::new();
        let leads = *lead.borrow();
        for (name, class) in now {
            if class.metadata.deletion_timestamp.is_some() {
                continue;
            }
            if let Some(catalog) = one(&context, &class, leads).await {
                catalogs.insert(name, catalog);
            }
        }
        if to.send(Message::Catalogs(catalogs)).await.is_err() {
            return;
        }
        tokio::select! {
            changed = classes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn one<A: ApiServer, C: Cloud, K: Clock>(
    context: &Context<A, C, K>,
    class: &Arc<EC2NodeClass>,
    leads: bool,
) -> Option<Catalog> {
    let name = class.metadata.name.as_deref().unwrap_or_default();
    let now = context.clock.now();
    let status = match context.cloud.resolve(class, now).await {
        Ok(status) => status,
        Err(error) => {
            context.record("resolve_class", name, &Outcome::Failed(error.to_string()));
            return None;
        }
    };
    let ready = conditions::is_true(&status.conditions, conditions::READY);
    let changed = class.status.as_ref() != Some(&status);
    if leads && changed {
        let outcome = match context.api.patch_class_status(name, written(&status)).await {
            Ok(()) => Outcome::Applied,
            Err(error) => Outcome::Failed(error.to_string()),
        };
        context.record("resolve_class", name, &outcome);
    }
    if !ready {
        return None;
    }
    let mut resolved = (**class).clone();
    resolved.status = Some(status);
    match context.cloud.instance_types(&resolved, now).await {
        Ok(catalog) => Some(Catalog { types: catalog.types, volume_price: catalog.volume_price }),
        Err(error) => {
            context.record("list_types", name, &Outcome::Failed(error.to_string()));
            None
        }
    }
}

/// The status as a merge patch: what is no longer found is taken away.
fn written(status: &EC2NodeClassStatus) -> Value {
    let mut patch = json!(status);
    for field in ["amis", "capacityReservations", "instanceProfile", "securityGroups", "subnets"] {
        if patch.get(field).is_none() {
            patch[field] = Value::Null;
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_taken_out_of_the_status() {
        let status = EC2NodeClassStatus {
            instance_profile: Some("p".to_owned()),
            ..EC2NodeClassStatus::default()
        };
        let patch = written(&status);
        assert_eq!(patch["instanceProfile"], "p");
        assert!(patch.as_object().is_some_and(|map| map.contains_key("capacityReservations")));
        assert!(patch["capacityReservations"].is_null());
    }
}
