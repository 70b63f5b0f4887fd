//! Pools of a fixed count of nodes: what cannot be bought for them, and what is too much.

use std::sync::Arc;

use super::{Engine, WATCH_LAG};
use crate::cloud::Cloud;
use crate::cluster::Snapshot;
use crate::control::Clock;
use crate::model::claim::Claim;
use crate::model::pool::Pool;
use crate::plan::fixed;
use crate::schedule::Reason;
use crate::server::{About, ApiServer};

impl<A: ApiServer, C: Cloud, K: Clock> Engine<A, C, K> {
    /// Claims to end. Those that were told to end and are still seen as if they were not count as
    /// gone, so that never too many are.
    pub(super) fn surplus(&mut self, snapshot: &Snapshot, now: i64) -> Vec<Arc<Claim>> {
        self.ending.retain(|name, at| {
            let claim = snapshot.claims.get(name);
            claim.is_some_and(|claim| !claim.deleting()) && now - *at < WATCH_LAG
        });
        let ending = |name: &str| self.ending.contains_key(name);
        fixed::surplus(snapshot, &ending, &self.holds, now)
    }

    /// Tells of pools whose nodes cannot be bought; the same about the same pool after five minutes.
    pub(super) fn tell_short(&mut self, short: &[(Arc<Pool>, Reason)], now: i64) {
        for (pool, reason) in short {
            let message = format!("Failed to keep the pool's replicas: {reason}");
            if self.told.insert(format!("{}/{message}", pool.name), now).is_some() {
                continue;
            }
            let (context, about) = (self.context.clone(), About::pool(&pool.name, &pool.uid));
            self.spawn(async move {
                context.warn(about, "NoCompatibleInstanceTypes", message).await;
            });
        }
    }
}
