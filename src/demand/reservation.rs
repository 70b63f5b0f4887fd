//! Reservations: pods that workloads announced and that have not come yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::pod::PodShape;
use crate::model::workload::{Workload, WorkloadKind};

/// How long announced pods may stay away before their reservation expires, seconds. A controller
/// makes pods within seconds; if it does not (a quota, an admission denial), room for them would be
/// money for nothing.
pub const PATIENCE: i64 = 120;

/// How long a workload that only admission has seen is shown as one that may come, seconds. The
/// watch shows an object within milliseconds.
pub const TENTATIVE: i64 = 10;

/// State of a reservation.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// Admission saw the object, the watch has not shown it yet. Nothing is bought for it: another
    /// webhook or a quota may refuse it still.
    Tentative,
    /// The object exists and wants pods that are missing.
    #[default]
    Confirmed,
    /// All its pods came.
    Consumed,
    /// The pods never came.
    Expired,
    /// The pods came and ended again and again: room for the next ones would feed the loop.
    Stopped,
}

/// What one workload announced.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reservation {
    /// Kind, namespace and name of the workload.
    pub owner: (WorkloadKind, Arc<str>, Arc<str>),
    /// Generation of its spec.
    pub generation: i64,
    /// What each pod asks.
    pub shape: Arc<PodShape>,
    /// Pods wanted at the same time.
    pub desired: u32,
    /// Pods that are there or on their way.
    pub active: u32,
    /// State.
    pub phase: Phase,
    /// When pods last came or the wish last changed, seconds since the epoch.
    pub moved_at: i64,
}

impl Reservation {
    /// Pods to keep room for.
    pub fn missing(&self) -> u32 {
        match self.phase {
            Phase::Confirmed => self.desired.saturating_sub(self.active),
            Phase::Tentative | Phase::Consumed | Phase::Expired | Phase::Stopped => 0,
        }
    }
}

/// All reservations, by UID of the workload.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    by_owner: BTreeMap<Arc<str>, Reservation>,
    /// What admission saw and the watch has not shown, by UID, with the moment.
    announced: BTreeMap<Arc<str>, (Arc<Workload>, i64)>,
    /// UIDs of workloads that get no room ahead of their pods.
    stopped: BTreeSet<Arc<str>>,
}

impl Ledger {
    /// Notes a workload that admission has seen at `now`. One that the watch shows counts as it is shown.
    pub fn announce(&mut self, workload: Arc<Workload>, now: i64) {
        if !workload.uid.is_empty() {
            self.announced.insert(Arc::clone(&workload.uid), (workload, now));
        }
    }

    /// Names the workloads that get no room ahead of their pods from the next look on, by UID.
    pub fn stop(&mut self, owners: BTreeSet<Arc<str>>) {
        self.stopped = owners;
    }

    /// Compares what workloads want with the pods that they have. `active` counts pods by root
    /// owner. Workloads whose pods another workload asks for are not counted again.
    pub fn observe<'a>(
        &mut self,
        workloads: impl Iterator<Item = &'a Arc<Workload>>,
        active: &BTreeMap<Arc<str>, u32>,
        now: i64,
    ) {
        let mut next = BTreeMap::new();
        self.announced.retain(|_, (_, at)| now - *at <= TENTATIVE);
        let mut all = Vec::new();
        for workload in workloads {
            self.announced.remove(&workload.uid);
            all.push((workload, false));
        }
        let announced = std::mem::take(&mut self.announced);
        all.extend(announced.values().map(|(workload, _)| (workload, true)));
        for (workload, tentative) in all {
            let managed = workload.owner.as_ref().is_some_and(|owner| &*owner.kind == "Deployment");
            let makes_pods =
                !matches!(workload.kind, WorkloadKind::DaemonSet | WorkloadKind::CronJob);
            if managed || !makes_pods || workload.deleted_at.is_some() || workload.desired == 0 {
                continue;
            }
            let have = active.get(&workload.uid).copied().unwrap_or(0);
            let old = self.by_owner.remove(&workload.uid);
            let same = old.as_ref().is_some_and(|old| {
                old.generation == workload.generation
                    && old.desired == workload.desired
                    && old.active >= have
            });
            let stopped = self.stopped.contains(&workload.uid);
            let still = old.as_ref().filter(|_| same && !stopped);
            let moved_at = still.map_or(now, |old| old.moved_at);
            let phase = if have >= workload.desired {
                Phase::Consumed
            } else if stopped {
                Phase::Stopped
            } else if now - moved_at > PATIENCE {
                Phase::Expired
            } else if tentative {
                Phase::Tentative
            } else {
                Phase::Confirmed
            };
            next.insert(
                Arc::clone(&workload.uid),
                Reservation {
                    owner: (
                        workload.kind,
                        Arc::clone(&workload.namespace),
                        Arc::clone(&workload.name),
                    ),
                    generation: workload.generation,
                    shape: Arc::clone(&workload.template),
                    desired: workload.desired,
                    active: have,
                    phase,
                    moved_at,
                },
            );
        }
        self.by_owner = next;
        self.announced = announced;
    }

    /// Reservations by UID of their workload.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Reservation)> {
        self.by_owner.iter()
    }

    /// The reservation of a workload.
    pub fn get(&self, owner: &str) -> Option<&Reservation> {
        self.by_owner.get(owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(desired: u32, generation: i64) -> Arc<Workload> {
        Arc::new(Workload {
            kind: WorkloadKind::Deployment,
            namespace: "n".into(),
            name: "web".into(),
            uid: "u".into(),
            generation,
            owner: None,
            desired,
            template: Arc::default(),
            deleted_at: None,
        })
    }

    fn missing(ledger: &mut Ledger, desired: u32, generation: i64, have: u32, now: i64) -> u32 {
        let active = BTreeMap::from([(Arc::from("u"), have)]);
        ledger.observe([&workload(desired, generation)].into_iter(), &active, now);
        ledger.get("u").unwrap().missing()
    }

    #[test]
    fn missing_pods_are_reserved_until_they_come() {
        let mut ledger = Ledger::default();
        assert_eq!(missing(&mut ledger, 100, 1, 0, 0), 100);
        assert_eq!(missing(&mut ledger, 100, 1, 60, 1), 40);
        assert_eq!(missing(&mut ledger, 100, 1, 100, 2), 0);
        assert_eq!(ledger.get("u").unwrap().phase, Phase::Consumed);
        assert_eq!(missing(&mut ledger, 130, 2, 100, 3), 30);
    }

    #[test]
    fn nothing_is_bought_for_what_only_admission_saw() {
        let mut ledger = Ledger::default();
        let none = BTreeMap::new();
        ledger.announce(workload(100, 1), 0);
        ledger.observe(std::iter::empty(), &none, 1);
        assert_eq!(ledger.get("u").unwrap().phase, Phase::Tentative);
        assert_eq!(ledger.get("u").unwrap().missing(), 0, "it may be refused still");
        assert_eq!(missing(&mut ledger, 100, 1, 0, 2), 100);
        assert_eq!(ledger.get("u").unwrap().phase, Phase::Confirmed);
        // A change of scale counts when the watch shows it; until then the object counts as it was.
        ledger.announce(workload(130, 2), 3);
        assert_eq!(missing(&mut ledger, 100, 1, 60, 3), 40);
        assert_eq!(missing(&mut ledger, 130, 2, 100, 4), 30);
        // One that never comes is forgotten.
        let mut ledger = Ledger::default();
        ledger.announce(workload(500, 1), 5);
        ledger.observe(std::iter::empty(), &none, 5 + TENTATIVE);
        assert!(ledger.get("u").is_some());
        ledger.observe(std::iter::empty(), &none, 6 + TENTATIVE);
        assert!(ledger.get("u").is_none());
    }

    #[test]
    fn a_workload_that_loops_gets_no_room_ahead_until_it_is_let_go() {
        let mut ledger = Ledger::default();
        assert_eq!(missing(&mut ledger, 10, 1, 4, 0), 6);
        ledger.stop(BTreeSet::from(["u".into()]));
        assert_eq!(missing(&mut ledger, 10, 1, 4, 1), 0);
        assert_eq!(ledger.get("u").unwrap().phase, Phase::Stopped);
        assert_eq!(missing(&mut ledger, 10, 1, 10, 2), 0);
        assert_eq!(ledger.get("u").unwrap().phase, Phase::Consumed);
        // However long it took, its patience begins anew.
        assert_eq!(missing(&mut ledger, 10, 1, 4, 3 * PATIENCE), 0);
        ledger.stop(BTreeSet::new());
        assert_eq!(missing(&mut ledger, 10, 1, 4, 4 * PATIENCE), 6);
    }

    #[test]
    fn pods_that_never_come_are_given_up() {
        let mut ledger = Ledger::default();
        assert_eq!(missing(&mut ledger, 10, 1, 4, 0), 6);
        assert_eq!(missing(&mut ledger, 10, 1, 4, PATIENCE), 6);
        assert_eq!(missing(&mut ledger, 10, 1, 4, PATIENCE + 1), 0);
        // Movement starts the patience anew.
        assert_eq!(missing(&mut ledger, 10, 1, 5, PATIENCE + 2), 5);
    }
}
