//! Checkpoints: a container's history in less than 300 bytes.
//!
//! A checkpoint is four bytes that name the format, and containers one after the other, numbers in
//! little-endian order and times in minutes since the epoch. Weights of buckets are one byte each,
//! relative to the heaviest; what is light is written as the lightest, never as nothing. More than
//! [`BUCKETS`] buckets are joined in twos, fours or eights, each under the name of its highest: what is
//! read back may be too high by that width, and is never too low.

use super::histogram::Histogram;
use super::history::{History, Kill, Period, Tops};
use super::scale::{self, Measure};

/// Names the format and its version.
const MAGIC: [u8; 4] = *b"HBU1";

/// Buckets that are written of one histogram.
const BUCKETS: usize = 24;

/// Bytes of one container at most: 45 beside its periods, 12 for each of the two, 5 for each of the
/// four histograms, and two per bucket; 281 in all.
pub const MOST_BYTES: usize = 45 + 2 * 12 + 4 * (5 + 2 * BUCKETS);

/// Seconds of a minute.
const MINUTE: i64 = 60;

/// Bytes that are no checkpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadCheckpoint {
    /// Another format, or none.
    #[error("these bytes are no usage checkpoint of this version")]
    Format,
    /// It ends in the middle of a container, or holds what cannot be.
    #[error("the usage checkpoint is broken {left} bytes before its end")]
    Broken {
        /// Bytes that were not read.
        left: usize,
    },
}

/// Writes containers by the hashes of their names.
pub(super) fn write<'a>(containers: impl Iterator<Item = (u64, &'a History)>) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    for (key, history) in containers {
        for hash in [key, history.image, history.name] {
            out.extend(hash.to_le_bytes());
        }
        out.extend(history.revision.to_le_bytes());
        out.extend(history.major.to_le_bytes());
        out.extend(minutes(history.newest));
        // A bucket is below 176, so that 255 is none.
        out.push(history.kill.map_or(u8::MAX, |kill| kill.bucket));
        out.extend(minutes(history.kill.map_or(0, |kill| kill.at)));
        out.extend(u16::try_from(history.tops.day).unwrap_or(0).to_le_bytes());
        out.extend(history.tops.peaks);
        for period in [&history.current, &history.older] {
            out.extend(minutes(period.first));
            out.extend(minutes(period.last));
            out.extend(period.samples.to_le_bytes());
            for measure in Measure::ALL {
                histogram(&mut out, period.of(measure), period.last, measure.half_life());
            }
        }
    }
    out
}

fn minutes(seconds: i64) -> [u8; 4] {
    u32::try_from(seconds / MINUTE).unwrap_or(0).to_le_bytes()
}

fn histogram(out: &mut Vec<u8>, histogram: &Histogram, at: i64, half_life: i64) {
    let mut groups: Vec<(u8, f32)> = Vec::new();
    for shift in 0..8 {
        groups.clear();
        for (bucket, weight) in histogram.weights_at(at, half_life) {
            // The highest bucket of the group.
            let name = (bucket | ((1 << shift) - 1)).min(scale::BUCKETS - 1);
            match groups.last_mut() {
                Some((last, sum)) if *last == name => *sum += weight,
                _ => groups.push((name, weight)),
            }
        }
        if groups.len() <= BUCKETS {
            break;
        }
    }
    out.push(u8::try_from(groups.len()).unwrap_or(0));
    if groups.is_empty() {
        return;
    }
    let total: f32 = groups.iter().map(|(_, weight)| weight).sum();
    let heaviest = groups.iter().map(|(_, weight)| *weight).fold(f32::MIN_POSITIVE, f32::max);
    out.extend(total.to_le_bytes());
    for (bucket, weight) in groups {
        out.push(bucket);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 255")]
        out.push((weight / heaviest * 255.0).round().clamp(1.0, 255.0) as u8);
    }
}

type Record = Result<(u64, History), BadCheckpoint>;

/// Reads containers by the hashes of their names. A broken one is the last.
pub(super) fn read(bytes: &[u8]) -> Result<impl Iterator<Item = Record> + '_, BadCheckpoint> {
    let mut rest = bytes.strip_prefix(&MAGIC).ok_or(BadCheckpoint::Format)?;
    Ok(std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut reader = Reader(rest);
        let record = reader.record().ok_or(BadCheckpoint::Broken { left: rest.len() });
        rest = if record.is_ok() { reader.0 } else { &[] };
        Some(record)
    }))
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn time(&mut self) -> Option<i64> {
        self.u32().map(|minutes| i64::from(minutes) * MINUTE)
    }

    fn record(&mut self) -> Option<(u64, History)> {
        let key = self.u64()?;
        let mut history = History {
            image: self.u64()?,
            name: self.u64()?,
            revision: self.u32()?,
            major: self.u16()?,
            newest: self.time()?,
            ..History::default()
        };
        let (bucket, at) = (self.byte()?, self.time()?);
        history.kill = (bucket < scale::BUCKETS).then_some(Kill { bucket, at });
        history.tops = Tops { day: self.u16()?.into(), peaks: self.take()? };
        history.current = self.period()?;
        history.older = self.period()?;
        Some((key, history))
    }

    fn period(&mut self) -> Option<Period> {
        let (first, last, samples) = (self.time()?, self.time()?, self.u32()?);
        let (cpu, memory) = (self.histogram(last)?, self.histogram(last)?);
        Some(Period { cpu, memory, first, last, samples })
    }

    fn histogram(&mut self, at: i64) -> Option<Histogram> {
        let count = self.byte()?;
        if count == 0 {
            return Some(Histogram::default());
        }
        let total = self.take().map(f32::from_le_bytes).filter(|total| total.is_finite())?;
        let mut pairs = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let [bucket, weight] = self.take()?;
            let in_order = pairs.last().is_none_or(|(last, _)| *last < bucket);
            if bucket >= scale::BUCKETS || weight == 0 || !in_order {
                return None;
            }
            pairs.push((bucket, f32::from(weight)));
        }
        let sum: f32 = pairs.iter().map(|(_, weight)| weight).sum();
        let unit = coarse(total.max(f32::MIN_POSITIVE) / sum);
        for (_, weight) in &mut pairs {
            *weight *= unit;
        }
        Some(Histogram::of(pairs, at))
    }
}

/// The nearest number of 16 significant bits: what a byte of weight stands for. Its multiples are exact, so
/// that a quantile on the edge of a bucket stays there when what was read is written and read again.
fn coarse(unit: f32) -> f32 {
    const DROPPED: u32 = (1 << 8) - 1;
    let rounded = unit.to_bits().saturating_add(DROPPED.div_ceil(2)) & !DROPPED;
    f32::from_bits(rounded).clamp(f32::MIN_POSITIVE, f32::MAX)
}
