//! What is remembered of failures, by workload.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::model::failure::{Failure, FailureKind, Owner, enough};

/// Failures within [`WINDOW`] that make a loop. One is an accident, two may be one bad node; the
/// third comes from the workload itself.
pub(super) const LOOP: usize = 3;

/// How long a failure counts towards a loop, seconds. The kubelet keeps a node under pressure closed
/// for five minutes (`--eviction-pressure-transition-period`), so a pod that is evicted wherever it
/// goes is evicted at least twice in ten. A workload without a failure for that long is calm.
pub const WINDOW: i64 = 600;

/// How long a floor stands after the last failure, and then halves again and again, seconds: the
/// half-life of VPA's histograms.
const HALVES_EVERY: i64 = 86_400;

/// Halvings after which a floor is forgotten: the eight days that VPA looks back.
const HALVINGS: u32 = 8;

/// Workloads that are remembered. Each takes about 4 KiB at most (32 failures of 80 bytes, 16 floors
/// of 80), so all of them 16 MiB; clusters have a handful.
const OWNERS: usize = 4096;

/// Failures that are remembered by pod, so that none counts twice.
const SEEN: usize = 32;

/// Containers and resources of one workload that have floors.
const FLOORS: usize = 16;

/// The least that a container of a workload's next pod should ask for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Floor {
    /// Bytes, whole mebibytes.
    pub amount: i64,
    /// What befell earlier pods.
    pub kind: FailureKind,
}

/// A workload that loops.
#[derive(Clone, Debug)]
pub struct Loop<'a> {
    /// The workload.
    pub owner: &'a Owner,
    /// Failures within the window.
    pub failures: usize,
    /// The latest of them.
    pub last: &'a Arc<Failure>,
}

/// The failures of all workloads. Cloning costs some reference counts per workload that has failed.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    owners: BTreeMap<Owner, Arc<Record>>,
}

#[derive(Clone, Debug)]
struct Record {
    /// Recent failures in order of time, seconds since the epoch.
    seen: VecDeque<(i64, Arc<Failure>)>,
    /// By container and resource.
    floors: BTreeMap<(Arc<str>, &'static str), Held>,
    /// The latest failure, seconds since the epoch.
    last: i64,
}

/// A floor as it was set. Both parts only grow, so that the order of failures does not matter.
#[derive(Clone, Copy, Debug)]
struct Held {
    amount: i64,
    at: i64,
    kind: FailureKind,
}

impl Guard {
    /// Whether nothing has failed.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Folds in a failure; says whether it is a recent one that was not known. `now` is in seconds
    /// since the epoch.
    pub fn fold(&mut self, failure: &Arc<Failure>, now: i64) -> bool {
        // Clocks of nodes may be ahead of ours.
        let at = failure.at.min(now);
        let forgotten = HALVES_EVERY * (i64::from(HALVINGS) + 1);
        if now - at >= forgotten {
            return false;
        }
        if !self.owners.contains_key(&failure.owner) && self.owners.len() >= OWNERS {
            self.make_room(at);
            if self.owners.len() >= OWNERS {
                return false;
            }
        }
        let record = self.owners.entry(failure.owner.clone()).or_insert_with(|| {
            Arc::new(Record { seen: VecDeque::new(), floors: BTreeMap::new(), last: at })
        });
        let record = Arc::make_mut(record);
        record.last = record.last.max(at);
        record.raise(failure, at);
        record.see(failure, at, now)
    }

    /// Forgets the workload that has been calm for longest, if it has been calm for longer than the
    /// one that failed at `at`.
    fn make_room(&mut self, at: i64) {
        let oldest = self.owners.iter().min_by_key(|(_, record)| record.last);
        if let Some((owner, record)) = oldest
            && record.last < at
        {
            let owner = owner.clone();
            self.owners.remove(&owner);
        }
    }

    /// The least that a container of the workload's next pod should ask for, if earlier pods tell.
    pub fn floor(&self, owner: &Owner, container: &str, resource: &str, now: i64) -> Option<Floor> {
        let record = self.owners.get(owner)?;
        let mut floors = record.floors.iter();
        let (_, held) = floors.find(|((name, of), _)| &**name == container && *of == resource)?;
        let halvings = u32::try_from((now - held.at).max(0) / HALVES_EVERY).unwrap_or(u32::MAX);
        if halvings > HALVINGS {
            return None;
        }
        let amount = whole_mebibytes(held.amount >> halvings);
        Some(Floor { amount, kind: held.kind })
    }

    /// The workloads that loop.
    pub fn loops(&self, now: i64) -> impl Iterator<Item = Loop<'_>> {
        self.owners.iter().filter_map(move |(owner, record)| record.looping(owner, now))
    }
}

impl Record {
    fn raise(&mut self, failure: &Failure, at: i64) {
        for shortage in &failure.shortages {
            let amount = enough(shortage.used.max(shortage.request).max(0));
            let key = (Arc::clone(&shortage.container), shortage.resource);
            let full = self.floors.len() >= FLOORS;
            match self.floors.get_mut(&key) {
                Some(held) => {
                    held.amount = held.amount.max(amount);
                    (held.at, held.kind) = (held.at, held.kind).max((at, failure.kind));
                }
                None if full => {}
                None => {
                    self.floors.insert(key, Held { amount, at, kind: failure.kind });
                }
            }
        }
    }

    fn see(&mut self, failure: &Arc<Failure>, at: i64, now: i64) -> bool {
        self.seen.retain(|(at, _)| now - at < WINDOW);
        let known = self.seen.iter().any(|(_, seen)| seen.key() == failure.key());
        if known || now - at >= WINDOW {
            return false;
        }
        let place = self.seen.partition_point(|(seen, _)| *seen <= at);
        self.seen.insert(place, (at, Arc::clone(failure)));
        if self.seen.len() > SEEN {
            self.seen.pop_front();
        }
        true
    }

    fn looping<'a>(&'a self, owner: &'a Owner, now: i64) -> Option<Loop<'a>> {
        let failures = self.seen.iter().filter(|(at, _)| now - at < WINDOW).count();
        let (_, last) = self.seen.back().filter(|_| failures >= LOOP)?;
        Some(Loop { owner, failures, last })
    }
}

fn whole_mebibytes(bytes: i64) -> i64 {
    const MEBI: i64 = 1 << 20;
    bytes.saturating_add(MEBI - 1) / MEBI * MEBI
}
