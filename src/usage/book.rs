//! What the leader keeps: the history of every container that it has seen, and its checkpoints.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::DAY;
use super::encode::{self, BadCheckpoint};
use super::history::History;
use super::key::Keys;
use super::scale::Measure;

/// Containers of workloads that are kept; beyond it those that were not seen for longest are
/// forgotten. One takes about 1 KB (four histograms of some 20 buckets of 8 bytes, and 300 bytes
/// beside) and at most 2.4 KB (4 * 64 * 8 + 300), so 100,000 take 100 MB, and at most 240 MB.
pub const MOST_CONTAINERS: usize = 100_000;

/// Containers above that before they are forgotten at once, not at the end of the day.
const SLACK: usize = MOST_CONTAINERS / 16;

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
    /// Whether it would have used more cpu, had its node not lacked it: a lower bound.
    pub starved_cpu: bool,
    /// Whether it would have used more memory, had its node not been about to evict.
    pub starved_memory: bool,
}

/// A part of a namespace's checkpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Part {
    /// Containers in it.
    pub containers: usize,
    /// Their histories.
    pub data: Vec<u8>,
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
    /// Containers.
    count: usize,
    /// Day of the last sweep.
    swept: i32,
}

impl Book {
    /// Folds in a sample that was taken at `now`, seconds since the epoch.
    pub fn observe(&mut self, sample: &Sample<'_>, now: i64) {
        let day = day_of(now);
        if day > self.swept || self.count > MOST_CONTAINERS + SLACK {
            self.sweep(now);
            self.swept = day;
        }
        let old = self.peaks.get(&sample.instance).filter(|peak| peak.day == day).copied();
        let history = self.history(sample.namespace, &sample.keys);
        let period = history.period(&sample.keys, sample.created_at);
        period.seen(now, sample.starved_cpu);
        period.cpu(Measure::Cpu.bucket(sample.cpu), now, sample.starved_cpu);
        let bucket = Measure::Memory.bucket(sample.memory);
        // A lower bound may raise a peak, but is none.
        let first = old.is_none() && !sample.starved_memory;
        if first || old.is_some_and(|old| old.bucket < bucket) {
            period.peak(bucket, old.map(|old| old.bucket), i64::from(day) * DAY);
            history.tops.note(bucket, day);
            self.peaks.insert(sample.instance, Peak { day, bucket, bytes: sample.memory });
        }
    }

    /// Folds in that a container was killed for lack of memory, by the kernel or by an eviction, while
    /// it `held` some bytes: the highest of its request, its limit where that was hit, and its use,
    /// as far as they are known. It counts at once, whatever else is known, and a second time changes
    /// nothing; says whether it changed anything. `at` is in seconds since the epoch.
    pub fn killed(
        &mut self,
        namespace: &str,
        keys: &Keys,
        instance: u64,
        held: i64,
        at: i64,
    ) -> bool {
        let seen = self.peaks.get(&instance).map_or(0, |peak| peak.bytes);
        self.history(namespace, keys).killed(held.max(seen), at)
    }

    /// Namespaces of which something is known.
    pub fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.namespaces.keys()
    }

    /// Whether anything is known of a namespace.
    pub fn knows(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(namespace)
    }

    /// Containers that are known.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// What is known of a namespace, in parts of at most [`CHUNK`] containers.
    pub fn checkpoint(&self, namespace: &str) -> Vec<Part> {
        let Some(containers) = self.namespaces.get(namespace) else { return Vec::new() };
        let all: Vec<(&u64, &History)> = containers.iter().collect();
        let part = |part: &[(&u64, &History)]| Part {
            containers: part.len(),
            data: encode::write(part.iter().map(|(key, history)| (**key, *history))),
        };
        all.chunks(CHUNK).map(part).collect()
    }

    /// Reads back a part of a namespace's checkpoint. What is known of a container by now stays.
    ///
    /// # Errors
    /// When the bytes are no checkpoint; what was read up to there is kept.
    pub fn restore(&mut self, namespace: &str, bytes: &[u8]) -> Result<(), BadCheckpoint> {
        for record in encode::read(bytes)? {
            let (key, history) = record?;
            let containers = self.namespaces.entry(namespace.into()).or_default();
            let before = containers.len();
            containers.entry(key).or_insert(history);
            self.count += containers.len() - before;
        }
        Ok(())
    }

    /// Forgets a namespace that is gone.
    pub fn forget(&mut self, namespace: &str) {
        let gone = self.namespaces.remove(namespace);
        self.count -= gone.map_or(0, |containers| containers.len());
    }

    /// Forgets what was not seen for long, and the oldest of what is too much.
    pub fn sweep(&mut self, now: i64) {
        let day = day_of(now);
        self.peaks.retain(|_, peak| peak.day >= day - 1);
        let mut oldest = now - FORGET;
        // Those seen last at one moment go one by one: all that live are seen at the same.
        let mut surplus = 0;
        if self.count > MOST_CONTAINERS {
            let containers = self.namespaces.values().flat_map(BTreeMap::values);
            let mut seen: Vec<i64> = containers.map(History::last).collect();
            let place = seen.len() - MOST_CONTAINERS;
            let (before, first_kept, _) = seen.select_nth_unstable(place);
            let first_kept = *first_kept;
            surplus = before.iter().filter(|last| **last == first_kept).count();
            oldest = oldest.max(first_kept);
        }
        for containers in self.namespaces.values_mut() {
            containers.retain(|_, history| {
                let last = history.last();
                let is_surplus = last == oldest && surplus > 0;
                surplus -= usize::from(is_surplus);
                last >= oldest && !is_surplus
            });
        }
        self.namespaces.retain(|_, containers| !containers.is_empty());
        self.count = self.namespaces.values().map(BTreeMap::len).sum();
    }

    fn history(&mut self, namespace: &str, keys: &Keys) -> &mut History {
        match self.namespaces.entry(namespace.into()).or_default().entry(keys.container) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                self.count += 1;
                place.insert(History::new(keys))
            }
        }
    }
}

/// Days since the epoch.
fn day_of(now: i64) -> i32 {
    i32::try_from(now.div_euclid(DAY)).unwrap_or(0)
}
