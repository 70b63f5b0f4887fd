//! The ledger for people: a Reservation object for each workload that waits for capacity.
//!
//! Nothing depends on these objects: the ledger is derived anew from the watches by every leader. So
//! they are written behind the decisions, a bounded number at a time, and taken away soon after
//! their workload has what it asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Clock, Context, Outcome};
use crate::api::reservation::{ReservationCounts, ReservationPhase, Tier};
use crate::cluster::Snapshot;
use crate::demand::{Assignments, Ledger, Phase};
use crate::model::claim::ClaimStage;
use crate::model::digest::hex;
use crate::model::resources::Resources;
use crate::model::workload::WorkloadKind;
use crate::server::{ApiError, ApiServer};

/// Time between rounds.
const EVERY: Duration = Duration::from_secs(1);
/// Writes of one round: 50 a second are a small part of what an API server takes.
const MOST: usize = 50;
/// How long a reservation that has ended stays visible, seconds.
const KEPT: i64 = 60;

/// Why a reservation is denied: the one reason that there is.
const LOOPS: &str =
    "its pods are evicted or OOM-killed again and again, with requests below their use";

/// Namespace and name of a Reservation.
pub type Key = (Arc<str>, Arc<str>);

/// What one Reservation says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Kind of the workload.
    pub kind: WorkloadKind,
    /// Its name.
    pub owner: Arc<str>,
    /// Its UID.
    pub uid: Arc<str>,
    /// Its generation.
    pub generation: i64,
    /// What one pod asks.
    pub requests: Resources,
    /// Pods wanted.
    pub count: u32,
    /// State.
    pub phase: ReservationPhase,
    /// Pods by how far they are.
    pub counts: ReservationCounts,
    /// Claims made for it.
    pub claims: Vec<Arc<str>>,
}

/// The ledger as objects. A reservation's name follows from the workload, its generation and the
/// tier, so that every leader gives it the same.
pub fn entries(
    snapshot: &Snapshot,
    ledger: &Ledger,
    assignments: &Assignments,
) -> BTreeMap<Key, Entry> {
    let mut bound: BTreeMap<Arc<str>, i64> = BTreeMap::new();
    for pod in snapshot.pods.values().filter(|pod| pod.active() && pod.node_name.is_some()) {
        *bound.entry(snapshot.root_of(pod)).or_insert(0) += 1;
    }
    let mut all = BTreeMap::new();
    for (uid, reservation) in ledger.iter() {
        let (kind, namespace, owner) = reservation.owner.clone();
        let consumed = bound.get(uid).copied().unwrap_or(0);
        let (mut launching, mut ready, mut claims) = (0, 0, Vec::new());
        for claim in snapshot.claims.values() {
            let planned = assignments.of(&claim.name).iter().filter(|a| a.owner == *uid);
            let count: i64 = planned.map(|assignment| i64::from(assignment.count)).sum();
            if count == 0 {
                continue;
            }
            claims.push(Arc::clone(&claim.name));
            if claim.stage == ClaimStage::Initialized {
                ready += count;
            } else {
                launching += count;
            }
        }
        let count = reservation.desired;
        let phase = match reservation.phase {
            _ if consumed >= i64::from(count) => ReservationPhase::Released,
            Phase::Tentative => ReservationPhase::Tentative,
            Phase::Expired => ReservationPhase::Expired,
            Phase::Stopped => ReservationPhase::Denied,
            _ if launching > 0 => ReservationPhase::Launching,
            _ if ready > 0 => ReservationPhase::Ready,
            _ if consumed > 0 => ReservationPhase::Consumed,
            _ => ReservationPhase::Confirmed,
        };
        let digest = hex(format!("{uid}/{}/{:?}", reservation.generation, Tier::Intent), 4);
        // A name has 253 characters at most; what is cut is still in the digest.
        let short: String = owner.chars().take(200).collect();
        let name = format!("{}-{short}-{digest}", kind.name().to_lowercase());
        let entry = Entry {
            kind,
            owner,
            uid: Arc::clone(uid),
            generation: reservation.generation,
            requests: reservation.shape.requests.clone(),
            count,
            phase,
            counts: ReservationCounts { launching, ready, consumed, ..Default::default() },
            claims,
        };
        all.insert((namespace, Arc::from(name)), entry);
    }
    all
}

/// What was written, and when it ended.
struct Written {
    entry: Option<Entry>,
    ended_at: Option<i64>,
}

/// Keeps the objects like the ledger while this process leads.
pub async fn run<A: ApiServer, C, K: Clock>(
    context: Context<A, C, K>,
    ledger: watch::Receiver<Arc<BTreeMap<Key, Entry>>>,
    lead: watch::Receiver<bool>,
) {
    let mut written: Option<BTreeMap<Key, Written>> = None;
    loop {
        tokio::time::sleep(EVERY).await;
        if !*lead.borrow() {
            continue;
        }
        // Objects that an earlier leader left end with the rest.
        let Some(written) = &mut written else {
            written = context.api.reservations().await.ok().map(|list| {
                let left = |(namespace, name): (String, String)| {
                    let key: Key = (namespace.into(), name.into());
                    (key, Written { entry: None, ended_at: None })
                };
                list.into_iter().map(left).collect()
            });
            continue;
        };
        let entries = Arc::clone(&ledger.borrow());
        round(&context, &entries, written).await;
    }
}

async fn round<A: ApiServer, C, K: Clock>(
    context: &Context<A, C, K>,
    entries: &BTreeMap<Key, Entry>,
    written: &mut BTreeMap<Key, Written>,
) {
    let now = context.clock.now().as_second();
    let mut left = MOST;
    for (key, entry) in entries {
        let old = written.get(key);
        let over = entry.phase.is_final() && old.is_none();
        if left == 0 || over || old.is_some_and(|old| old.entry.as_ref() == Some(entry)) {
            continue;
        }
        left -= 1;
        let result = write(context, key, entry, old.is_none()).await;
        let outcome = match result {
            Ok(()) => {
                let ended_at = entry.phase.is_final().then_some(now);
                written.insert(key.clone(), Written { entry: Some(entry.clone()), ended_at });
                Outcome::Skipped
            }
            // Deleted by hand, or with its namespace: written anew if it is still wanted.
            Err(ApiError::NotFound) => {
                written.remove(key);
                Outcome::Skipped
            }
            Err(error) => Outcome::Failed(error.to_string()),
        };
        context.record("reservation", &key.1, &outcome);
    }
    let over: Vec<Key> = written
        .iter()
        .filter(|(key, old)| match old.ended_at {
            Some(ended) => now - ended >= KEPT,
            None => !entries.contains_key(*key),
        })
        .map(|(key, _)| key.clone())
        .take(left)
        .collect();
    for key in over {
        match context.api.delete_reservation(&key.0, &key.1).await {
            Ok(()) | Err(ApiError::NotFound) => {
                written.remove(&key);
            }
            Err(error) => {
                context.record("reservation", &key.1, &Outcome::Failed(error.to_string()));
            }
        }
    }
}

async fn write<A: ApiServer, C, K: Clock>(
    context: &Context<A, C, K>,
    key: &Key,
    entry: &Entry,
    new: bool,
) -> Result<(), ApiError> {
    if new {
        match context.api.create_reservation(object(key, entry)).await {
            // Another leader wrote it.
            Ok(()) | Err(ApiError::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let reason = (entry.phase == ReservationPhase::Denied).then_some(LOOPS);
    let status = json!({
        "phase": entry.phase,
        "reason": reason,
        "counts": entry.counts,
        "nodeClaims": entry.claims.iter().map(|name| &**name).collect::<Vec<_>>(),
    });
    context.api.update_reservation(&key.0, &key.1, status).await
}

/// The object; it goes with its workload.
fn object((namespace, name): &Key, entry: &Entry) -> Value {
    let api_version = entry.kind.api_version();
    let mut metadata = json!({"namespace": &**namespace, "name": &**name});
    if !entry.uid.is_empty() {
        metadata["ownerReferences"] = json!([{
            "apiVersion": api_version, "kind": entry.kind.name(), "name": &*entry.owner,
            "uid": &*entry.uid,
        }]);
    }
    json!({
        "apiVersion": "harbinger.sh/v1alpha1",
        "kind": "Reservation",
        "metadata": metadata,
        "spec": {
            "owner": {
                "apiVersion": api_version, "kind": entry.kind.name(), "name": &*entry.owner,
                "uid": &*entry.uid,
            },
            "generation": entry.generation,
            "tier": Tier::Intent,
            "shape": {"requests": entry.requests.to_quantities(), "count": entry.count},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Change, Event, State};
    use crate::demand::Assignment;
    use crate::model::claim::Claim;
    use crate::model::pod::PodShape;
    use crate::model::workload::Workload;

    #[test]
    fn a_reservation_says_how_far_its_pods_are() {
        let shape = Arc::new(PodShape { namespace: "n".into(), ..PodShape::default() });
        let workload = Arc::new(Workload {
            kind: WorkloadKind::Deployment,
            namespace: "n".into(),
            name: "web".into(),
            uid: "u".into(),
            generation: 7,
            owner: None,
            desired: 5,
            template: Arc::clone(&shape),
            deleted_at: None,
        });
        let mut ledger = Ledger::default();
        ledger.observe([&workload].into_iter(), &BTreeMap::new(), 0);
        let mut assignments = Assignments::default();
        let mut state = State::default();
        let claim = |name: &str, stage| Claim { name: name.into(), stage, ..Claim::default() };
        for (name, count) in [("a", 2), ("b", 3)] {
            let pods = vec![Assignment { owner: "u".into(), shape: Arc::clone(&shape), count }];
            assignments.assign(name.into(), pods, Resources::default());
        }
        let claims = vec![claim("a", ClaimStage::Initialized), claim("b", ClaimStage::Launched)];
        state.apply(Event::Claims(Change::Replace(claims)));
        let all = entries(&state.snapshot(), &ledger, &assignments);
        let (key, entry) = all.first_key_value().unwrap();
        assert!(key.1.starts_with("deployment-web-"), "{}", key.1);
        assert_eq!((entry.counts.ready, entry.counts.launching), (2, 3));
        assert_eq!(entry.phase, ReservationPhase::Launching);
        assert_eq!(entry.claims.len(), 2);
        // A workload that is gone has no entry.
        ledger.observe(std::iter::empty(), &BTreeMap::new(), 1);
        assert!(entries(&state.snapshot(), &ledger, &assignments).is_empty());
    }
}
