//! The scale of amounts: the exponential buckets of the Vertical Pod Autoscaler.
//!
//! Bucket `i` starts at `first * (1.05^i - 1) / 0.05`, for cpu with a first bucket of 10 millicores
//! and a most of 1000 cores, for memory with 10 MB and 1 TB; both make 176 buckets.

/// Ratio of a bucket's width to that of the one before.
const RATIO: f64 = 1.05;

/// Buckets of either scale: `ceil(log_1.05(10^5 * 0.05 + 1)) + 1`.
pub(super) const BUCKETS: u8 = 176;

/// What is measured of a container.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Measure {
    /// Millicores.
    Cpu,
    /// Bytes of the working set.
    Memory,
}

impl Measure {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Memory];

    /// Width of the first bucket; millicores or bytes.
    const fn first(self) -> f64 {
        match self {
            Self::Cpu => 10.0,
            Self::Memory => 1e7,
        }
    }

    /// What no container is given less than: containers that get less do not start, as the trackers
    /// of the Vertical Pod Autoscaler and of Goldilocks tell. Millicores or bytes.
    pub const fn floor(self) -> i64 {
        match self {
            Self::Cpu => 10,
            Self::Memory => 32 << 20,
        }
    }

    /// Seconds in which a sample loses half its weight.
    ///
    /// For cpu the day of the Vertical Pod Autoscaler. Memory peaks keep theirs for a week: with a
    /// day the last two of them carry all the weight, and a quantile of two is no more than their
    /// maximum. What a release changes is told by its revision, not by forgetting.
    pub const fn half_life(self) -> i64 {
        match self {
            Self::Cpu => super::DAY,
            Self::Memory => 7 * super::DAY,
        }
    }

    /// The bucket of an amount; what lies outside the scale is in its first or last.
    #[expect(clippy::cast_precision_loss, reason = "amounts are below 2^53")]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the range of buckets"
    )]
    pub fn bucket(self, amount: i64) -> u8 {
        let scaled = amount.max(0) as f64 / self.first() * (RATIO - 1.0) + 1.0;
        (scaled.ln() / RATIO.ln()).floor().clamp(0.0, f64::from(BUCKETS - 1)) as u8
    }

    /// The amount at which a bucket ends; millicores or bytes. Quantiles are told as ends, so they are
    /// up to 5 % too high and never too low.
    pub fn end(self, bucket: u8) -> f64 {
        let next = f64::from(bucket.min(BUCKETS - 1)) + 1.0;
        self.first() * (RATIO.powf(next) - 1.0) / (RATIO - 1.0)
    }
}
