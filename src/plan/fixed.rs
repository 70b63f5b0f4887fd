//! Pools of a fixed count of nodes (`spec.replicas`): what they lack, and what they have too many of.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::catalogs::Catalogs;
use super::draft::{self, ClaimDraft, Wish, draft};
use super::empty::keeps_node;
use super::provision::pools;
use crate::cluster::Snapshot;
use crate::demand::Assignments;
use crate::model::claim::{Claim, ClaimStage};
use crate::model::pool::Pool;
use crate::schedule::{Options, Reason, bare_node};

/// Most nodes of one pool that one plan makes: its claims are written at once, and its fleet is one
/// call. The next plan makes the next ones.
const MOST_AT_ONCE: u32 = 500;

/// What pools of a fixed count lack.
#[derive(Clone, Debug, Default)]
pub struct Missing {
    /// Claims to make.
    pub claims: Vec<ClaimDraft>,
    /// Pools that lack nodes which cannot be bought, and why.
    pub short: Vec<(Arc<Pool>, Reason)>,
}

/// Claims that pools of a fixed count lack. A limit of `nodes` counts all claims, also those that
/// are being ended, so that it holds at every moment.
pub fn missing(
    snapshot: &Snapshot,
    assignments: &Assignments,
    catalogs: &Catalogs,
    now: i64,
    seed: u64,
) -> Missing {
    let mut missing = Missing::default();
    if snapshot.pools.values().all(|pool| pool.replicas.is_none()) {
        return missing;
    }
    // Names differ from those of the same plan's claims for pods.
    let seed = !seed;
    for slot in pools(snapshot, assignments, catalogs) {
        let Some(replicas) = slot.pool.replicas else { continue };
        let lacking = i64::from(replicas) - active(snapshot, &slot.pool.name);
        let left = slot.remaining.get("nodes").copied().unwrap_or(i64::MAX);
        let count = lacking.min(left).min(i64::from(MOST_AT_ONCE));
        if count <= 0 || !slot.pool.ready {
            continue;
        }
        let node = match bare_node(&slot, snapshot.daemons(), Options::default().max_types) {
            Ok(node) => node,
            Err(reason) => {
                missing.short.push((Arc::clone(&slot.pool), reason));
                continue;
            }
        };
        // The types are not listed: whatever the pool allows may be launched, also later.
        let wish = Wish {
            acceptable: &node.acceptable,
            requirements: &slot.pool.requirements,
            requests: &node.requested,
            pods: Vec::new(),
        };
        for _ in 0..count {
            let suffix = draft::name(seed, now, missing.claims.len());
            missing.claims.push(draft(catalogs, &slot, &wish, &suffix));
        }
    }
    draft::group(&mut missing.claims, seed, now);
    missing
}

fn of_pool<'s>(snapshot: &'s Snapshot, pool: &'s str) -> impl Iterator<Item = &'s Arc<Claim>> {
    snapshot.claims.values().filter(move |claim| &*claim.pool == pool && !claim.deleting())
}

fn active(snapshot: &Snapshot, pool: &str) -> i64 {
    i64::try_from(of_pool(snapshot, pool).count()).unwrap_or(i64::MAX)
}

/// Claims that pools of a fixed count have too many of: first those that have no instance yet, then
/// empty nodes, then those with the fewest pods, those that are there weighing more than those that are
/// planned; pods and nodes that are not to be disrupted come last. Of equal ones the newest goes.
///
/// `ending` are claims whose end was asked for and has not come back through the watch, `holds`
/// nodes that the last plan uses for pods that have yet to come, `now` is in seconds since the epoch.
pub fn surplus(
    snapshot: &Snapshot,
    ending: &dyn Fn(&str) -> bool,
    holds: &BTreeSet<Arc<str>>,
    now: i64,
) -> Vec<Arc<Claim>> {
    let fixed: BTreeMap<&str, u32> =
        snapshot.pools.values().filter_map(|pool| Some((&*pool.name, pool.replicas?))).collect();
    if fixed.is_empty() {
        return Vec::new();
    }
    let by_node = snapshot.pods_by_node();
    let mut all = Vec::new();
    for (pool, replicas) in fixed {
        let mut claims: Vec<&Arc<Claim>> =
            of_pool(snapshot, pool).filter(|claim| !ending(&claim.name)).collect();
        claims.sort_by_cached_key(|claim| {
            let node = snapshot.node_of(claim);
            let pods = node.and_then(|node| by_node.get(&*node.name));
            let kept = pods.into_iter().flatten().filter(|pod| keeps_node(pod));
            let held = node.is_some_and(|node| holds.contains(&node.name));
            let bound = node.is_some_and(|node| node.do_not_disrupt())
                || kept.clone().any(|pod| pod.protected(now));
            let launched = claim.stage > ClaimStage::Pending;
            let there = kept.count();
            let count = there + usize::from(held);
            (launched, bound, count, there, Reverse(claim.created_at), Arc::clone(&claim.name))
        });
        let keep = usize::try_from(replicas).unwrap_or(usize::MAX);
        all.extend(claims.iter().take(claims.len().saturating_sub(keep)).map(|c| Arc::clone(c)));
    }
    all
}
