//! What is known of one container.

use super::DAY;
use super::histogram::{Histogram, decay};
use super::key::Keys;
use super::scale::Measure;
use crate::model::failure::enough;

/// Samples of a day at one a minute.
const SAMPLES_PER_DAY: f64 = 1440.0;

/// Weight of a cpu sample, as in the Vertical Pod Autoscaler; only ratios matter.
const CPU_WEIGHT: f32 = 0.1;

/// Seconds for which a kill is remembered in full, and in which it is half forgotten after that. A
/// need that one sample a minute does not see comes back as soon as the floor has sunk below it, so
/// it sinks slowly.
const KILL_MEMORY: i64 = 14 * DAY;

/// Full days whose highest peaks must have risen for a container to be taken for leaking.
const RISING_DAYS: usize = 3;

/// All that is known of one container of one workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct History {
    /// Hash of the image's repository.
    pub(super) image: u64,
    /// Hash of the container's name.
    pub(super) name: u64,
    /// Hash of the newest revision.
    pub(super) revision: u32,
    /// Major version of its image; 0 when unknown.
    pub(super) major: u16,
    /// When the newest pod of the newest revision was made, seconds since the epoch.
    pub(super) newest: i64,
    /// Samples of the newest revision.
    pub(super) current: Period,
    /// Samples of all revisions before.
    pub(super) older: Period,
    /// The memory that it was killed for lacking.
    pub(super) kill: Option<Kill>,
    /// The highest memory peaks of days.
    pub(super) tops: Tops,
}

/// Samples of some time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Period {
    pub(super) cpu: Histogram,
    pub(super) memory: Histogram,
    /// First and last sample, seconds since the epoch.
    pub(super) first: i64,
    pub(super) last: i64,
    /// Samples that are no lower bounds.
    pub(super) samples: u32,
}

/// A kill for lack of memory: by the kernel, or by an eviction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Kill {
    /// Bucket of the memory that would have been enough.
    pub(super) bucket: u8,
    /// When, seconds since the epoch.
    pub(super) at: i64,
}

/// Highest memory peaks over all pods, of today and the days before; bucket + 1, 0 for none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Tops {
    /// Days since the epoch.
    pub(super) day: i32,
    pub(super) peaks: [u8; RISING_DAYS + 1],
}

impl History {
    pub(super) fn new(keys: &Keys) -> Self {
        let Keys { image, name, revision, major, .. } = *keys;
        Self { image, name, revision, major, ..Self::default() }
    }

    /// The period that a pod of a revision belongs to. The first pod of a new revision closes the
    /// old one; pods of an old revision that are still there are told by their age.
    pub(super) fn period(&mut self, keys: &Keys, created_at: i64) -> &mut Period {
        let unseen = self.current.first == 0 && self.older.first == 0;
        let other = keys.revision != 0 && keys.revision != self.revision;
        if other && created_at <= self.newest && !unseen {
            return &mut self.older;
        }
        if other || unseen {
            let closed = std::mem::take(&mut self.current);
            self.older.merge(&closed);
            // A kill may have come before the first sample; it tells neither revision nor image.
            self.revision = keys.revision;
            self.major = keys.major;
            self.image = keys.image;
            self.name = keys.name;
        }
        self.newest = self.newest.max(created_at);
        &mut self.current
    }

    /// Last sample, seconds since the epoch.
    pub(super) fn last(&self) -> i64 {
        self.current.last.max(self.older.last).max(self.kill.map_or(0, |kill| kill.at))
    }

    /// Notes that the container was killed for memory while it `held` some bytes; says whether that
    /// changes anything.
    pub(super) fn killed(&mut self, held: i64, at: i64) -> bool {
        // A bucket ends where the next begins, so one byte less is still in it.
        let floor = self.kill.map_or(0, |kill| kill.floor(at) - 1);
        let bucket = Measure::Memory.bucket(enough(held).max(floor));
        let at = self.kill.map_or(at, |kill| kill.at.max(at));
        let old = self.kill.replace(Kill { bucket, at });
        old != self.kill
    }
}

impl Kill {
    /// The least memory that a pod gets for it, bytes.
    #[expect(clippy::cast_possible_truncation, reason = "at most a terabyte")]
    pub(super) fn floor(self, now: i64) -> i64 {
        let faded = decay((now - self.at - KILL_MEMORY).max(0), KILL_MEMORY);
        (Measure::Memory.end(self.bucket) * f64::from(faded)) as i64
    }
}

impl Period {
    /// Days of evidence, as the Vertical Pod Autoscaler counts its confidence: the time covered, or
    /// the time that the samples would cover at one a minute, whichever is less.
    #[expect(clippy::cast_precision_loss, reason = "seconds of some years")]
    pub(super) fn days(&self) -> f64 {
        let covered = (self.last - self.first).max(0) as f64 / DAY as f64;
        covered.min(f64::from(self.samples) / SAMPLES_PER_DAY)
    }

    /// The samples of a measure.
    pub(super) fn of(&self, measure: Measure) -> &Histogram {
        match measure {
            Measure::Cpu => &self.cpu,
            Measure::Memory => &self.memory,
        }
    }

    /// Notes a sample's time.
    pub(super) fn seen(&mut self, at: i64, censored: bool) {
        if self.first == 0 {
            self.first = at;
        }
        self.last = self.last.max(at);
        self.samples = self.samples.saturating_add(u32::from(!censored));
    }

    /// Notes a use of cpu.
    pub(super) fn cpu(&mut self, bucket: u8, at: i64, censored: bool) {
        let half_life = Measure::Cpu.half_life();
        if censored {
            self.cpu.add_at_least(bucket, CPU_WEIGHT, at, half_life);
        } else {
            self.cpu.add(bucket, CPU_WEIGHT, at, half_life);
        }
    }

    /// Notes a pod's peak of memory of the day that began at `day`; `old` was its peak before.
    pub(super) fn peak(&mut self, bucket: u8, old: Option<u8>, day: i64) {
        let half_life = Measure::Memory.half_life();
        if let Some(old) = old {
            self.memory.subtract(old, 1.0, day, half_life);
        }
        self.memory.add(bucket, 1.0, day, half_life);
    }

    fn merge(&mut self, other: &Self) {
        if other.first == 0 {
            return;
        }
        for measure in Measure::ALL {
            let mine = match measure {
                Measure::Cpu => &mut self.cpu,
                Measure::Memory => &mut self.memory,
            };
            mine.merge(other.of(measure), measure.half_life());
            mine.tidy();
        }
        self.first = if self.first == 0 { other.first } else { self.first.min(other.first) };
        self.last = self.last.max(other.last);
        self.samples = self.samples.saturating_add(other.samples);
    }
}

impl Tops {
    /// Notes a peak of a day.
    pub(super) fn note(&mut self, bucket: u8, day: i32) {
        let passed = usize::try_from(day - self.day).unwrap_or(0).min(self.peaks.len());
        if passed > 0 {
            self.peaks.rotate_right(passed);
            self.peaks[..passed].fill(0);
            self.day = day;
        }
        self.peaks[0] = self.peaks[0].max(bucket + 1);
    }

    /// Buckets by which the peak rises in a day, when it rose on each of the last full days.
    pub(super) fn rise(self) -> u8 {
        let [_, last, before, first] = self.peaks;
        if first > 0 && last > before && before > first { (last - first).div_ceil(2) } else { 0 }
    }
}
