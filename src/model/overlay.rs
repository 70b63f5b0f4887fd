//! Overlays: what planning is to believe of instance types beside what the cloud says of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::money::MicroDollarsPerHour;
use super::quantity::Quantity;
use super::requirement::Requirements;

/// A `NodeOverlay`, compiled.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Overlay {
    /// Name.
    pub name: Arc<str>,
    /// Of overlays that change the same thing, the heaviest counts; 0 to 10,000.
    pub weight: i32,
    /// The instance types and offerings that it is about.
    pub requirements: Requirements,
    /// What it does to prices.
    pub price: Option<PriceChange>,
    /// Extended resources that it gives to nodes, in whole units; 0 takes one away.
    pub capacity: BTreeMap<Arc<str>, i64>,
    /// What is wrong with it; such an overlay changes nothing.
    pub fault: Option<Arc<str>>,
}

/// A change of a price. The result is never below zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PriceChange {
    /// The price is this.
    To(MicroDollarsPerHour),
    /// This is added to the price.
    By(MicroDollarsPerHour),
    /// This share of the price is added to it, in billionths of a per cent.
    Share(i128),
}

/// Billionths of a per cent in a whole.
const WHOLE: i128 = 100 * 1_000_000_000;

impl PriceChange {
    /// Reads a price in dollars per hour, such as `0.25`.
    pub fn to(text: &str) -> Option<Self> {
        let price = number(text).filter(|nanos| *nanos >= 0)?;
        Some(Self::To(micros(price)))
    }

    /// Reads a signed amount in dollars per hour, or a signed share of the price, such as `-15%`.
    pub fn by(text: &str) -> Option<Self> {
        match text.strip_suffix('%') {
            Some(share) => number(share).filter(|share| *share >= -WHOLE).map(Self::Share),
            None => number(text).map(|nanos| Self::By(micros(nanos))),
        }
    }

    /// The price after the change, rounded to the nearest micro-dollar.
    #[must_use]
    pub fn apply(self, price: MicroDollarsPerHour) -> MicroDollarsPerHour {
        let after = match self {
            Self::To(fixed) => fixed,
            Self::By(amount) => price + amount,
            Self::Share(share) => {
                let whole = i128::from(price.0);
                let change = rounded(whole.saturating_mul(share), WHOLE);
                clamped(whole.saturating_add(change))
            }
        };
        after.max(MicroDollarsPerHour::ZERO)
    }
}

/// A decimal number with an optional sign, in billionths.
fn number(text: &str) -> Option<i128> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.'));
    plain.then(|| text.parse::<Quantity>().ok()).flatten().map(Quantity::nanos)
}

/// Billionths of a dollar as micro-dollars.
fn micros(nanos: i128) -> MicroDollarsPerHour {
    clamped(rounded(nanos, 1_000))
}

/// The quotient, rounded to the nearest whole; halves go up.
fn rounded(value: i128, by: i128) -> i128 {
    value.saturating_add(by / 2).div_euclid(by)
}

fn clamped(micros: i128) -> MicroDollarsPerHour {
    let limit = if micros < 0 { i64::MIN } else { i64::MAX };
    MicroDollarsPerHour(i64::try_from(micros).unwrap_or(limit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PRICE: MicroDollarsPerHour = MicroDollarsPerHour(96_000);

    fn by(text: &str) -> i64 {
        PriceChange::by(text).unwrap().apply(PRICE).0
    }

    #[test]
    fn prices_change_exactly() {
        assert_eq!(PriceChange::to("0.25").unwrap().apply(PRICE).0, 250_000);
        assert_eq!(PriceChange::to("0").unwrap().apply(PRICE).0, 0);
        assert_eq!(by("+0.004"), 100_000);
        assert_eq!(by("-.004"), 92_000);
        assert_eq!(by("-15%"), 81_600);
        assert_eq!(by("+12.5%"), 108_000);
        assert_eq!(by("+0.001%"), 96_001, "0.96 is rounded to the nearest");
        assert_eq!(by("-0.0005%"), 96_000, "0.48 is rounded to the nearest");
    }

    #[test]
    fn no_price_is_below_zero() {
        assert_eq!(by("-1"), 0);
        assert_eq!(by("-100%"), 0);
        assert_eq!(by("-99999999999999999"), 0);
        assert_eq!(by("+99999999999999999"), i64::MAX);
        assert_eq!(by("+99999999999999999%"), i64::MAX);
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in ["", "+", "%", "1k", "1e3", "-101%", "0x1", "1.2.3", "--1", "+-1%"] {
            assert_eq!(PriceChange::by(text), None, "{text:?}");
        }
        assert_eq!(PriceChange::to("-1"), None);
    }

    proptest! {
        #[test]
        fn a_share_is_what_it_says(price in 0..100_000_000_i64, share in -100_i64..1_000) {
            let changed = PriceChange::by(&format!("{share:+}%")).unwrap();
            let exact = i128::from(price) * i128::from(100 + share);
            let found = i128::from(changed.apply(MicroDollarsPerHour(price)).0) * 100;
            prop_assert!((found - exact).abs() <= 50, "{price} {share}: {found} {exact}");
        }
    }
}
