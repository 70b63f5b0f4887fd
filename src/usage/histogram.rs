//! A histogram that forgets: samples lose half their weight in each half-life.

use super::scale::BUCKETS;

/// Buckets that one histogram keeps; the lightest join their upper neighbour. 64 buckets cover a
/// factor of 20 gaplessly, and bound a histogram to 64 * 8 = 512 bytes.
const MOST_BUCKETS: usize = 64;

/// Half-lives after which weights are scaled anew; 2^24 is far from the end of an `f32`.
const RESCALE: i64 = 24;

/// Share of the weight below which a bucket is noise.
const NOISE: f32 = 1e-5;

/// A decaying histogram; only buckets with weight are stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Buckets in order with their weights, as of `reference`.
    weights: Vec<(u8, f32)>,
    /// Moment at which a sample has its own weight, seconds since the epoch.
    reference: i64,
}

impl Histogram {
    /// A histogram of buckets in order with their weights as of a moment.
    pub(super) fn of(weights: Vec<(u8, f32)>, reference: i64) -> Self {
        Self { weights, reference }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// Buckets in order with their weights as of `now`.
    pub(super) fn weights_at(&self, now: i64, half_life: i64) -> impl Iterator<Item = (u8, f32)> {
        let scale = decay(now - self.reference, half_life);
        self.weights.iter().map(move |(bucket, weight)| (*bucket, weight * scale))
    }

    /// Adds a sample taken at `at`.
    pub fn add(&mut self, bucket: u8, weight: f32, at: i64, half_life: i64) {
        let weight = weight * self.scale(at, half_life);
        self.put(bucket.min(BUCKETS - 1), weight);
    }

    /// Adds a sample of which only is known that it is no lower than `bucket`: its weight goes to the
    /// buckets above in proportion to theirs, as if it were one of those samples (the estimator of
    /// Kaplan and Meier), and stays where it is when there is none.
    pub fn add_at_least(&mut self, bucket: u8, weight: f32, at: i64, half_life: i64) {
        let weight = weight * self.scale(at, half_life);
        let above: f32 = self.weights.iter().filter(|(b, _)| *b >= bucket).map(|(_, w)| w).sum();
        if above > 0.0 {
            let factor = 1.0 + weight / above;
            for (_, kept) in self.weights.iter_mut().filter(|(b, _)| *b >= bucket) {
                *kept *= factor;
            }
        } else {
            self.put(bucket.min(BUCKETS - 1), weight);
        }
    }

    /// Takes back a sample that was added with the same words.
    pub fn subtract(&mut self, bucket: u8, weight: f32, at: i64, half_life: i64) {
        let weight = weight * self.scale(at, half_life);
        if let Ok(place) = self.weights.binary_search_by_key(&bucket, |(b, _)| *b) {
            let left = self.weights[place].1 - weight;
            // Rounding leaves crumbs.
            if left > weight * 1e-3 {
                self.weights[place].1 = left;
            } else {
                self.weights.remove(place);
            }
        }
    }

    /// Adds all samples of another.
    pub fn merge(&mut self, other: &Self, half_life: i64) {
        if other.reference > self.reference {
            self.rescale(other.reference, half_life);
        }
        for (bucket, weight) in other.weights_at(self.reference, half_life) {
            self.put(bucket, weight);
        }
    }

    /// The bucket in which the share `q` of the weight is reached.
    pub fn percentile(&self, q: f64) -> Option<u8> {
        let total: f64 = self.weights.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let mut sum = 0.0;
        for (bucket, weight) in &self.weights {
            sum += f64::from(*weight);
            if sum >= q * total {
                return Some(*bucket);
            }
        }
        self.weights.last().map(|(bucket, _)| *bucket)
    }

    /// Forgets noise, and joins buckets when there are too many.
    pub(super) fn tidy(&mut self) {
        let total: f32 = self.weights.iter().map(|(_, weight)| weight).sum();
        self.weights.retain(|(_, weight)| *weight > total * NOISE);
        while self.weights.len() > MOST_BUCKETS {
            let below_last = self.weights.iter().take(self.weights.len() - 1).enumerate();
            let lightest = below_last.min_by(|(_, a), (_, b)| a.1.total_cmp(&b.1));
            let Some((place, (_, weight))) = lightest.map(|(at, entry)| (at, *entry)) else {
                break;
            };
            self.weights[place + 1].1 += weight;
            self.weights.remove(place);
        }
    }

    fn put(&mut self, bucket: u8, weight: f32) {
        match self.weights.binary_search_by_key(&bucket, |(b, _)| *b) {
            Ok(place) => self.weights[place].1 += weight,
            Err(place) => {
                self.weights.insert(place, (bucket, weight));
                if self.weights.len() > MOST_BUCKETS {
                    self.tidy();
                }
            }
        }
    }

    /// The factor of a sample taken at `at`.
    fn scale(&mut self, at: i64, half_life: i64) -> f32 {
        if self.weights.is_empty() {
            self.reference = at;
        } else if at - self.reference > RESCALE * half_life {
            self.rescale(at, half_life);
            self.tidy();
        }
        decay(self.reference - at, half_life)
    }

    fn rescale(&mut self, reference: i64, half_life: i64) {
        let factor = decay(reference - self.reference, half_life);
        for (_, weight) in &mut self.weights {
            *weight *= factor;
        }
        self.reference = reference;
    }
}

/// What is left of a weight after some seconds; more than all of it for negative ones.
#[expect(clippy::cast_precision_loss, reason = "a few years in seconds")]
#[expect(clippy::cast_possible_truncation, reason = "weights need no more")]
pub(super) fn decay(seconds: i64, half_life: i64) -> f32 {
    // A clock that jumps must not make weights infinite.
    let halves = (seconds as f64 / half_life as f64).clamp(-60.0, 120.0);
    (-halves).exp2() as f32
}
