//! Writing what policies did into their status. Every replica adds what it has counted.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::SystemClock;
use super::policies::{Held, Policies};
use crate::control::Clock as _;
use crate::k8s::policy::update_status;
use crate::policy::{self, Action, Facts, Tallied, Tally};
use crate::server::ApiError;

/// Time between writes: what people who look at a policy wait for at most.
const EVERY: Duration = Duration::from_secs(10);

/// Writes from time to time, and once more at the end.
pub(super) async fn run(
    client: Client,
    policies: Policies,
    tally: Arc<Mutex<Tally>>,
    max_action: Action,
    cancel: CancellationToken,
) {
    loop {
        let last = tokio::select! {
            () = cancel.cancelled() => true,
            () = tokio::time::sleep(EVERY) => false,
        };
        write(&client, &policies, &tally, max_action).await;
        if last {
            return;
        }
    }
}

async fn write(client: &Client, policies: &Policies, tally: &Mutex<Tally>, max_action: Action) {
    let mut counted = tally.lock().take();
    let held = policies.held.load_full();
    for (name, held) in held.iter() {
        let tallied = counted.remove(name).unwrap_or_default();
        let next = |object: &crate::api::RequestPolicy| {
            let facts = Facts {
                generation: object.metadata.generation,
                compiled: held.compiled.as_ref().map_err(String::as_str),
                max_action,
                now: SystemClock.now(),
            };
            let status = policy::next_status(object.status.as_ref(), &facts, &tallied);
            (object.status.as_ref() != Some(&status)).then_some(status)
        };
        // What the watch has shown spares a question to the server.
        if tallied == Tallied::default() && next(&held.object).is_none() {
            continue;
        }
        // Another replica may know a later version of the policy; it will write its status.
        let current = |object: &crate::api::RequestPolicy| {
            if is_same(held, object) { next(object) } else { None }
        };
        match update_status(client, name, current).await {
            Ok(()) | Err(ApiError::NotFound) => {}
            Err(error) => {
                tracing::warn!(policy = %name, %error, "status of a request policy is not written");
                tally.lock().give_back(Arc::clone(name), tallied);
            }
        }
    }
}

fn is_same(held: &Held, object: &crate::api::RequestPolicy) -> bool {
    held.object.metadata.generation == object.metadata.generation
}
