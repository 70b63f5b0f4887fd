//! Moving claims on: each gets the next step of its life, by a task of its own.

use std::sync::Arc;

use super::{Engine, Message, NOMINATION_LAG};
use crate::cloud::Cloud;
use crate::control::{Clock, launch, lifecycle, termination};
use crate::model::claim::{Claim, ClaimStage};
use crate::model::node::Node;
use crate::model::pod::Pod;
use crate::plan::draft::launch_group;
use crate::plan::lifecycle::{self as life, Step};
use crate::plan::marks;
use crate::plan::nominate::nominations;
use crate::server::ApiServer;

impl<A: ApiServer, C: Cloud, K: Clock> Engine<A, C, K> {
    /// Moves every claim that has no task one step on.
    pub(super) fn step_claims(&mut self) {
        let snapshot = Arc::clone(&self.snapshot.borrow());
        if !snapshot.synced {
            return;
        }
        let now = self.now();
        self.nominated.retain(|_, at| now - *at < NOMINATION_LAG);
        self.moves.retain(&snapshot);
        for claim in snapshot.claims.values() {
            let node = snapshot.node_of(claim);
            if self.busy.contains(&claim.name) || self.moves.rest(claim, node, now) {
                continue;
            }
            if claim.deleting() {
                self.moves.begin(claim, node, now);
                self.end(claim);
                continue;
            }
            if claim.stage == ClaimStage::Pending {
                self.resume(claim, now);
                continue;
            }
            let planned = !self.assignments.of(&claim.name).is_empty();
            let step = match life::step(claim, node.map(|node| &**node), planned, now) {
                Step::Done => {
                    let pool = snapshot.pools.get(&claim.pool).map(|pool| &**pool);
                    let event = node.and_then(|node| self.pod_events.get(&node.name));
                    let event = event.copied().unwrap_or(0);
                    let mark = marks::due(
                        claim,
                        node.map(|node| &**node),
                        pool,
                        self.class_facts.get(&claim.class.name),
                        event,
                        now,
                    );
                    mark.map_or(Step::Done, Step::Mark)
                }
                step => step,
            };
            match &step {
                Step::Done => continue,
                Step::Wait { reason, .. } if !self.moves.says(claim, reason, now) => continue,
                _ => {}
            }
            let nominations = match &step {
                Step::Open { .. } => {
                    let assigned = self.assignments.of(&claim.name);
                    let taken = |uid: &str| self.nominated.contains_key(uid);
                    let chosen = nominations(&snapshot, assigned, &taken);
                    self.nominated.extend(chosen.iter().map(|pod| (Arc::clone(&pod.uid), now)));
                    chosen
                }
                _ => Vec::new(),
            };
            self.carry_out(claim, node, step, nominations, now);
        }
    }

    fn carry_out(
        &mut self,
        claim: &Arc<Claim>,
        node: Option<&Arc<Node>>,
        step: Step,
        nominations: Vec<Arc<Pod>>,
        now: i64,
    ) {
        self.moves.begin(claim, node, now);
        self.busy.insert(Arc::clone(&claim.name));
        let (context, done) = (self.context.clone(), self.outbox.clone());
        let (claim, node) = (Arc::clone(claim), node.cloned());
        self.spawn(async move {
            lifecycle::carry_out(&context, &claim, node.as_deref(), &step, &nominations).await;
            drop(done.send(Message::Done(Arc::clone(&claim.name))).await);
        });
    }

    fn end(&mut self, claim: &Arc<Claim>) {
        self.busy.insert(Arc::clone(&claim.name));
        let (context, done) = (self.context.clone(), self.outbox.clone());
        let (claim, snapshots) = (Arc::clone(claim), self.snapshot.subscribe());
        self.spawn(async move {
            termination::terminate(&context, &claim, snapshots).await;
            drop(done.send(Message::Done(Arc::clone(&claim.name))).await);
        });
    }

    /// Takes up the launch of a claim that another leader (or we) left unlaunched.
    fn resume(&mut self, claim: &Arc<Claim>, now: i64) {
        let late = now - claim.created_at > life::LAUNCH_TIMEOUT;
        let give_up = Step::GiveUp { reason: life::LAUNCH_TIMED_OUT };
        let Some(group) = launch_group(claim).map(Arc::<str>::from) else {
            let (condition, reason) = ("Launched", "NotOurs");
            let message = "Only claims that were planned for a NodePool are launched".to_owned();
            if late {
                self.carry_out(claim, None, give_up, Vec::new(), now);
            } else if !self.moves.told(claim, reason) {
                self.carry_out(
                    claim,
                    None,
                    Step::Wait { condition, reason, message },
                    Vec::new(),
                    now,
                );
            }
            return;
        };
        // Claims of one plan are created within moments; wait until all have come.
        if self.busy.contains(&group)
            || self.just_made.contains_key(&claim.name)
            || now - claim.created_at < 2
        {
            return;
        }
        if late {
            return self.carry_out(claim, None, give_up, Vec::new(), now);
        }
        let snapshot = Arc::clone(&self.snapshot.borrow());
        let in_group = |other: &&Arc<Claim>| launch_group(other).is_some_and(|id| *id == *group);
        let members: Vec<Arc<Claim>> = snapshot.claims.values().filter(in_group).cloned().collect();
        let class = self.classes.borrow().get(&claim.class.name).cloned();
        let Some(pool) = snapshot.pools.get(&claim.pool).cloned() else { return };
        if self.catalogs.borrow().of(&pool).is_none() {
            return;
        }
        self.busy.insert(Arc::clone(&group));
        let (context, done) = (self.context.clone(), self.outbox.clone());
        let offers = self.offers();
        self.spawn(async move {
            launch::resumed(&context, class, &pool, &members, &group, &offers).await;
            drop(done.send(Message::Done(group)).await);
        });
    }
}
