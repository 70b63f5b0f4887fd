//! What the leader keeps: the history of every container that it has seen, and its checkpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::encode::{self, BadCheckpoint};
use super::history::History;
use super::key::Keys;
use super::scale::Measure;
use super::DAY;

/// Containers of workloads that are kept; beyond it those that were not seen for longest are
/// forgotten. One takes about 1 KB (four histograms of some 20 buckets of 8 bytes, and 300 bytes
/// beside) and at most 2.4 KB (4 * 64 * 8 + 300), so 100,000 take 100 MB, and at most 240 MB.
pub const MOST_CONTAINERS: usize = 100_000;

/// Containers in one part of a checkpoint: at most 1000 * 300 bytes, 400 KB as base64, where an object
/// of the API server may have 1.5 MB.
pub const CHUNK: usize = 1000;

/// Seconds after which a container that is not seen any more is forgotten: longer than a job of each
/// month sleeps.
const FORGET: i64 = 35 * DAY;

/// What a container used at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// The container.
    pub keys: Keys,
    /// The container of this one pod; see [`instance`](super::instance).
    pub instance: u64,
    /// When the pod was made, seconds since the epoch.
    pub created_at: i64,
    /// Millicores.
    pub cpu: i64,
    /// Bytes of the working set.
    pub memory: i64,
    /// Whether it would have used more, had its node not lacked something: a lower bound.
    pub censored: bool,
}

/// The peak of memory of one container of one pod, of the day in progress.
#[derive(Clone, Copy, Debug)]
struct Peak {
    day: i32,
    bucket: u8,
    bytes: i64,
}

/// All that is known.
#[derive(Debug, Default)]
pub struct Book {
    namespaces: BTreeMap<Arc<str>, BTreeMap<u64, History>>,
    /// By hash of the pod's UID and the container's name. Not part of checkpoints: a new leader
    /// counts a pod's peak of the day a second time, and loses nothing.
    peaks: BTreeMap<u64, Peak>,
    /// Day of the last sweep.
    swept: i32,
}

impl Book {
    /// Folds in a sample that was taken at `now`, seconds since the epoch.
    pub fn observe(&mut self, sample: &Sample<'_>, now: i64) {
        let day = day_of(now);
        if day > self.swept {
            self.sweep(now);
            self.swept = day;
        }
        let history = history(&mut self.namespaces, sample.namespace, &sample.keys);
        let period = history.period(&sample.keys, sample.created_at);
        period.seen(now, sample.censored);
        period.cpu(Measure::Cpu.bucket(sample.cpu), now, sample.censored);
        let bucket = Measure::Memory.bucket(sample.memory);
        let old = self.peaks.get(&sample.instance).filter(|peak| peak.day == day).copied();
        // A lower bound may raise a peak, but is none.
        let first = old.is_none() && !sample.censored;
        if first || old.is_some_and(|old| old.bucket < bucket) {
            period.peak(bucket, old.map(|old| old.bucket), i64::from(day) * DAY);
            history.tops.note(bucket, day);
            self.peaks.insert(sample.instance, Peak { day, bucket, bytes: sample.memory });
        }
    }

    /// Folds in that a container was killed for lack of memory, by the kernel or by an eviction, while
    /// it `held` some bytes: the highest of its request, its limit where that was hit, and its use,
    /// as far as they are known. It counts at once, whatever else is known.
    pub fn killed(&mut self, namespace: &str, keys: &Keys, instance: u64, held: i64, now: i64) {
        let seen = self.peaks.get(&instance).map_or(0, |peak| peak.bytes);
        history(&mut self.namespaces, namespace, keys).killed(held.max(seen), now);
    }

    /// Namespaces of which something is known.
    pub fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.namespaces.keys()
    }

    /// Containers that are known.
    pub fn len(&self) -> usize {
        self.namespaces.values().map(BTreeMap::len).sum()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// What is known of a namespace, in parts of at most [`CHUNK`] containers.
    pub fn checkpoint(&self, namespace: &str) -> Vec<Vec<u8>> {
        let Some(containers) = self.namespaces.get(namespace) else { return Vec::new() };
        let all: Vec<(&u64, &History)> = containers.iter().collect();
        all.chunks(CHUNK).map(|part| encode::write(part.iter().map(|(k, h)| (**k, *h)))).collect()
    }

    /// Reads back a part of a namespace's checkpoint. What is known of a container by now stays.
    ///
    /// # Errors
    /// When the bytes are no checkpoint; what was read up to there is kept.
    pub fn restore(&mut self, namespace: &str, bytes: &[u8]) -> Result<(), BadCheckpoint> {
        for record in encode::read(bytes)? {
            let (key, history) = record?;
            let containers = self.namespaces.entry(namespace.into()).or_default();
            containers.entry(key).or_insert(history);
        }
        Ok(())
    }

    /// Forgets a namespace that is gone.
    pub fn forget(&mut self, namespace: &str) {
        self.namespaces.remove(namespace);
    }

    /// Forgets what was not seen for long, and the oldest of what is too much.
    pub fn sweep(&mut self, now: i64) {
        let day = day_of(now);
        self.peaks.retain(|_, peak| peak.day >= day - 1);
        let mut oldest = now - FORGET;
        if self.len() > MOST_CONTAINERS {
            let containers = self.namespaces.values().flat_map(BTreeMap::values);
            let mut seen: Vec<i64> = containers.map(History::last).collect();
            let surplus = seen.len() - MOST_CONTAINERS;
            let (_, last_dropped, _) = seen.select_nth_unstable(surplus);
            oldest = oldest.max(*last_dropped);
        }
        for containers in self.namespaces.values_mut() {
            containers.retain(|_, history| history.last() >= oldest);
        }
        self.namespaces.retain(|_, containers| !containers.is_empty());
    }
}

fn history<'a>(
    namespaces: &'a mut BTreeMap<Arc<str>, BTreeMap<u64, History>>,
    namespace: &str,
    keys: &Keys,
) -> &'a mut History {
    // Asked first, so that no name is copied for a namespace that is known.
    if !namespaces.contains_key(namespace) {
        namespaces.insert(namespace.into(), BTreeMap::new());
    }
    let containers = namespaces.entry(namespace.into()).or_default();
    containers.entry(keys.container).or_insert_with(|| History::new(keys))
}

/// Days since the epoch.
fn day_of(now: i64) -> i32 {
    i32::try_from(now.div_euclid(DAY)).unwrap_or(0)
}
