//! Prices as integers.
//!
//! Costs are compared and summed many times per plan; integers keep the sums exact and the order
//! of plans independent of the order of additions.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul, Sub};

use serde::{Deserialize, Serialize};

/// A price in millionths of a US dollar per hour.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct MicroDollarsPerHour(pub i64);

impl MicroDollarsPerHour {
    /// No cost.
    pub const ZERO: Self = Self(0);

    /// Converts dollars per hour, rounded to the nearest micro-dollar; a value that is not a
    /// finite number gives `None`.
    pub fn from_dollars(dollars: f64) -> Option<Self> {
        let micros = (dollars * 1e6).round();
        #[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
        (micros.is_finite() && micros.abs() < 9e15).then_some(Self(micros as i64))
    }

    /// Dollars per hour, for display and for linear programs.
    #[expect(clippy::cast_precision_loss, reason = "prices are far below 2^53 micro-dollars")]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl fmt::Display for MicroDollarsPerHour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let micros = self.0.unsigned_abs();
        write!(f, "{sign}${}.{:04}", micros / 1_000_000, micros % 1_000_000 / 100)
    }
}

impl Add for MicroDollarsPerHour {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for MicroDollarsPerHour {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for MicroDollarsPerHour {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Mul<i64> for MicroDollarsPerHour {
    type Output = Self;
    fn mul(self, times: i64) -> Self {
        Self(self.0.saturating_mul(times))
    }
}

impl Sum for MicroDollarsPerHour {
    fn sum<I: Iterator<Item = Self>>(prices: I) -> Self {
        prices.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_and_prints() {
        let price = MicroDollarsPerHour::from_dollars(0.096).unwrap();
        assert_eq!(price, MicroDollarsPerHour(96_000));
        assert_eq!(price.to_string(), "$0.0960");
        assert_eq!((price * 3 - price).to_string(), "$0.1920");
        assert_eq!(MicroDollarsPerHour::from_dollars(f64::NAN), None);
    }
}
