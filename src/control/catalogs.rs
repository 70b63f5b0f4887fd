//! Keeping node classes resolved and their catalogs current.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::engine::Message;
use super::{Clock, Context, Outcome};
use crate::api::conditions;
use crate::api::ec2nodeclass::{EC2NodeClass, EC2NodeClassStatus};
use crate::api::labels::CLASS_FINALIZER;
use crate::cloud::Cloud;
use crate::cluster::Snapshot;
use crate::plan::Catalog;
use crate::server::{About, ApiServer};

/// How often classes are resolved again when nothing changes; the provider caches what is dear.
const EVERY: Duration = Duration::from_secs(20);

/// Resolves classes when they change and from time to time, and sends on what they offer. Only a
/// leader writes their status.
pub async fn run<A: ApiServer, C: Cloud, K: Clock>(
    context: Context<A, C, K>,
    mut classes: watch::Receiver<BTreeMap<Arc<str>, Arc<EC2NodeClass>>>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    lead: watch::Receiver<bool>,
    to: mpsc::Sender<Message>,
) {
    // Classes that wait for their claims, so that it is said once.
    let mut waiting = BTreeSet::new();
    let mut offered: BTreeMap<Arc<str>, Catalog> = BTreeMap::new();
    loop {
        let now = classes.borrow_and_update().clone();
        let mut catalogs = BTreeMap::new();
        let leads = *lead.borrow();
        for (name, class) in now {
            let deleting = class.metadata.deletion_timestamp.is_some();
            let held = class.metadata.finalizers.iter().flatten().any(|one| one == CLASS_FINALIZER);
            if leads && deleting && held {
                let snapshot = Arc::clone(&snapshots.borrow());
                end(&context, &class, &snapshot, &mut waiting).await;
            }
            if deleting {
                continue;
            }
            // What is made for the class in the account must not outlive it.
            if leads
                && !held
                && let Err(error) = context.api.hold_class(&name, true).await
            {
                context.record("hold_class", &name, &Outcome::Failed(error.to_string()));
            }
            match one(&context, &class, leads).await {
                Ok(Some(catalog)) => drop(catalogs.insert(name, catalog)),
                Ok(None) => {}
                // What was offered stands while the cloud does not answer.
                Err(()) => catalogs.extend(offered.remove_entry(&name)),
            }
        }
        offered.clone_from(&catalogs);
        if to.send(Message::Catalogs(catalogs)).await.is_err() {
            return;
        }
        tokio::select! {
            changed = classes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Lets a class go when no claim uses it any more, and takes away what was made for it.
async fn end<A: ApiServer, C: Cloud, K: Clock>(
    context: &Context<A, C, K>,
    class: &EC2NodeClass,
    snapshot: &Snapshot,
    waiting: &mut BTreeSet<Arc<str>>,
) {
    let name = class.metadata.name.as_deref().unwrap_or_default();
    if !snapshot.synced {
        return;
    }
    let users: Vec<&str> = snapshot
        .claims
        .values()
        .filter(|claim| &*claim.class.name == name)
        .map(|claim| &*claim.name)
        .collect();
    if let Some(first) = users.first() {
        if waiting.insert(name.into()) {
            let message = format!("{} NodeClaims use the class, {first} is one", users.len());
            let about = About::class(name, class.metadata.uid.as_deref().unwrap_or_default());
            context.note(about, "WaitingOnNodeClaimTermination", message).await;
        }
        return;
    }
    let result = match context.cloud.release(class).await {
        Ok(()) => context.api.hold_class(name, false).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    waiting.remove(name);
    context.record(
        "release_class",
        name,
        &result.map_or_else(Outcome::Failed, |()| Outcome::Applied),
    );
}

/// What a class offers, if it is ready; an error when the cloud could not be asked.
async fn one<A: ApiServer, C: Cloud, K: Clock>(
    context: &Context<A, C, K>,
    class: &Arc<EC2NodeClass>,
    leads: bool,
) -> Result<Option<Catalog>, ()> {
    let name = class.metadata.name.as_deref().unwrap_or_default();
    let now = context.clock.now();
    let status = match context.cloud.resolve(class, now).await {
        Ok(status) => status,
        Err(error) => {
            context.record("resolve_class", name, &Outcome::Failed(error.to_string()));
            return Err(());
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
        return Ok(None);
    }
    let mut resolved = (**class).clone();
    resolved.status = Some(status);
    match context.cloud.instance_types(&resolved, now).await {
        Ok(catalog) => {
            Ok(Some(Catalog { types: catalog.types, volume_price: catalog.volume_price }))
        }
        Err(error) => {
            context.record("list_types", name, &Outcome::Failed(error.to_string()));
            Err(())
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
