//! What decisions read of a history: a few quantiles in place of histograms.
//!
//! A container takes 88 bytes, its share of the two lists of groups at most 64 each: 50,000
//! containers take less than 11 MB.

use super::history::{History, Kill, Period};
use super::scale::Measure;

/// Quantiles that are kept, for the costs of an under-request up to which each is used: `c / (c + 1)`
/// of 1, 3, 4, 9, 19, 49, 99, and the maximum.
pub(super) const QUANTILES: [(u32, f64); 8] =
    [(1, 0.5), (3, 0.75), (4, 0.8), (9, 0.9), (19, 0.95), (49, 0.98), (99, 0.99), (u32::MAX, 1.0)];

/// Buckets of the quantiles.
pub(super) type Buckets = [u8; QUANTILES.len()];

/// A container.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    /// Hashes; see [`History`].
    pub(super) image: u64,
    pub(super) name: u64,
    pub(super) revision: u32,
    pub(super) major: u16,
    /// Buckets by which its memory peak rises in a day.
    pub(super) rise: u8,
    pub(super) kill: Option<Kill>,
    pub(super) current: Known,
    pub(super) older: Known,
}

/// What a period says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// Days of evidence; 0 when nothing is known.
    pub(super) days: f32,
    /// Of cpu and memory.
    buckets: [Buckets; 2],
}

/// The place of the quantile that answers to a cost: `c / (c + 1)`, rounded up to one that is kept.
pub(super) fn quantile(under_cost: u32) -> usize {
    QUANTILES.iter().take_while(|(cost, _)| under_cost > *cost).count().min(QUANTILES.len() - 1)
}

impl Profile {
    pub(super) fn of(history: &History) -> Self {
        Self {
            image: history.image,
            name: history.name,
            revision: history.revision,
            major: history.major,
            rise: history.tops.rise(),
            kill: history.kill,
            current: Known::of(&history.current),
            older: Known::of(&history.older),
        }
    }

    /// The period with more evidence.
    pub(super) fn best(&self) -> &Known {
        if self.current.days >= self.older.days { &self.current } else { &self.older }
    }
}

impl Known {
    #[expect(clippy::cast_possible_truncation, reason = "days need no more digits")]
    fn of(period: &Period) -> Self {
        let buckets = Measure::ALL.map(|measure| {
            let histogram = period.of(measure);
            QUANTILES.map(|(_, share)| histogram.percentile(share).unwrap_or(0))
        });
        Self { days: period.days() as f32, buckets }
    }

    /// The buckets of a measure's quantiles.
    pub(super) fn buckets(&self, measure: Measure) -> &Buckets {
        &self.buckets[measure as usize]
    }
}
