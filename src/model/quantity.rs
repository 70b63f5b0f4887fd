//! Kubernetes quantities, exact.
//!
//! A quantity is a decimal number with an optional suffix: `n u m k M G T P E`, `Ki Mi Gi Ti Pi Ei`
//! or a decimal exponent (`1e3`, `12E-2`). The value is kept in nano units in 128 bits, so that no
//! request is rounded on the way in; rounding up happens once, where a resource becomes millicores
//! or bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Nano units in one unit.
const NANO: i128 = 1_000_000_000;

/// An exact Kubernetes quantity.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Quantity {
    nanos: i128,
}

/// Why a text is not a quantity.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("quantity {text:?} is not a number with an optional suffix such as 500m, 2Gi or 1e3")]
pub struct QuantityError {
    text: String,
}

impl Quantity {
    /// The quantity of `units` whole units (cores, bytes, pods).
    pub const fn from_units(units: i64) -> Self {
        Self { nanos: units as i128 * NANO }
    }

    /// The quantity of `milli` thousandths of a unit.
    pub const fn from_milli(milli: i64) -> Self {
        Self { nanos: milli as i128 * (NANO / 1000) }
    }

    /// Thousandths of a unit, rounded up as Kubernetes does, clamped to the range of `i64`.
    pub fn milli(self) -> i64 {
        ceil_div(self.nanos, NANO / 1000)
    }

    /// Whole units, rounded up as Kubernetes does, clamped to the range of `i64`.
    pub fn units(self) -> i64 {
        ceil_div(self.nanos, NANO)
    }

    /// Thousandths of a unit, rounded down: for what must not be exceeded.
    pub fn milli_floor(self) -> i64 {
        floor_div(self.nanos, NANO / 1000)
    }

    /// Whole units, rounded down: for what must not be exceeded.
    pub fn units_floor(self) -> i64 {
        floor_div(self.nanos, NANO)
    }

    /// Billionths of a unit.
    pub const fn nanos(self) -> i128 {
        self.nanos
    }

    /// Whether the quantity is exactly zero.
    pub const fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether the quantity is below zero; Kubernetes refuses such requests.
    pub const fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Prints a byte count in the largest binary unit that divides it (`2Gi`, `1500Mi`, `1000`).
    pub fn format_bytes(bytes: i64) -> String {
        for (suffix, shift) in
            [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)]
        {
            let unit = 1_i64 << shift;
            if bytes != 0 && bytes % unit == 0 {
                return format!("{}{suffix}", bytes / unit);
            }
        }
        bytes.to_string()
    }

    /// Prints millicores as Kubernetes does (`2`, `1500m`).
    pub fn format_milli(milli: i64) -> String {
        if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") }
    }
}

fn ceil_div(value: i128, by: i128) -> i64 {
    let floor = value.div_euclid(by);
    clamped(if value.rem_euclid(by) == 0 { floor } else { floor + 1 })
}

fn floor_div(value: i128, by: i128) -> i64 {
    clamped(value.div_euclid(by))
}

fn clamped(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value > 0 { i64::MAX } else { i64::MIN })
}

/// The factor of a suffix as `numerator / denominator` of one unit, in nano units.
fn suffix_nanos(suffix: &str) -> Option<i128> {
    Some(match suffix {
        "" => NANO,
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "k" => NANO * 1_000,
        "M" => NANO * 1_000_000,
        "G" => NANO * 1_000_000_000,
        "T" => NANO * 1_000_000_000_000,
        "P" => NANO * 1_000_000_000_000_000,
        "E" => NANO * 1_000_000_000_000_000_000,
        "Ki" => NANO << 10,
        "Mi" => NANO << 20,
        "Gi" => NANO << 30,
        "Ti" => NANO << 40,
        "Pi" => NANO << 50,
        "Ei" => NANO << 60,
        _ => return None,
    })
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| QuantityError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<Quantity> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let digits_end =
        rest.bytes().position(|b| !b.is_ascii_digit() && b != b'.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(digits_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    // An exponent is `e` or `E` and an integer; otherwise `E` begins the suffixes exa and exbi.
    let exponent = suffix.strip_prefix(['e', 'E']).and_then(|text| text.parse::<i32>().ok());
    let factor = if exponent.is_some() { NANO } else { suffix_nanos(suffix)? };
    let mut nanos = scaled(whole, fraction, factor, exponent.unwrap_or(0))?;
    if negative {
        nanos = -nanos;
    }
    Some(Quantity { nanos })
}

/// `whole.fraction * factor * 10^exponent` in nano units; below one nano it rounds up, above the
/// range it saturates, both as Kubernetes does.
fn scaled(whole: &str, fraction: &str, factor: i128, exponent: i32) -> Option<i128> {
    if whole.len() + fraction.len() > 64 || exponent.abs() > 64 {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let mut mantissa: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        mantissa = mantissa.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    let power = exponent - i32::try_from(fraction.len()).ok()?;
    let mut value = match mantissa.checked_mul(factor) {
        Some(value) => value,
        None if power >= 0 => return Some(limit()),
        // A long fraction of a large unit: divide first, losing less than one nano.
        None => {
            return Some(
                (mantissa / 10_i128.checked_pow(power.unsigned_abs())?).saturating_mul(factor),
            );
        }
    };
    if power >= 0 {
        for _ in 0..power {
            value = value.saturating_mul(10);
        }
    } else {
        let divisor = 10_i128.checked_pow(power.unsigned_abs())?;
        value = value / divisor + i128::from(value % divisor != 0);
    }
    Some(value.min(limit()))
}

/// Kubernetes caps quantities at 2^63 - 1 units.
const fn limit() -> i128 {
    i64::MAX as i128 * NANO
}

impl fmt::Display for Quantity {
    /// Canonical decimal form: whole units, or the smallest of `m`, `u`, `n` that is exact.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (suffix, unit) in [("", NANO), ("m", NANO / 1_000), ("u", NANO / 1_000_000)] {
            if self.nanos % unit == 0 {
                return write!(f, "{}{suffix}", self.nanos / unit);
            }
        }
        write!(f, "{}n", self.nanos)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Quantity;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as 500m, 2Gi or 1")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Quantity, E> {
                Ok(Quantity::from_units(value))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Quantity, E> {
                Ok(Quantity::from_units(i64::try_from(value).unwrap_or(i64::MAX)))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Quantity, E> {
                value.to_string().parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn q(text: &str) -> Quantity {
        text.parse().unwrap()
    }

    #[test]
    fn reads_every_suffix_exactly() {
        for (text, units) in [
            ("1.5Gi", 1_610_612_736),
            ("1Ei", 1_152_921_504_606_846_976),
            ("9223372036854775807", i64::MAX),
            ("100m", 1),
            ("1e3", 1000),
            ("12E-1", 2),
            ("2E", 2_000_000_000_000_000_000),
            (".5k", 500),
            ("0", 0),
            ("+3", 3),
            ("-2", -2),
        ] {
            assert_eq!(q(text).units(), units, "{text}");
        }
        assert_eq!(q("100m").milli(), 100);
        assert_eq!(q("1n").milli(), 1);
        assert_eq!(q("0.1n").units(), 1);
        assert_eq!((q("1999m").units_floor(), q("-1m").units_floor()), (1, -1));
        assert_eq!((q("1900u").milli_floor(), q("100E").units_floor()), (1, i64::MAX));
    }

    #[test]
    fn refuses_what_kubernetes_refuses() {
        for text in ["", "m", "1.2.3", "1 Gi", "1gi", "0x10", "1e", "1ee3", "Gi", "1,5", "-", "١"]
        {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn saturates_instead_of_wrapping() {
        assert_eq!(q("99999999999E").units(), i64::MAX);
        assert_eq!(q("1e60").units(), i64::MAX);
    }

    proptest! {
        #[test]
        fn prints_what_it_read(nanos in -i128::from(i64::MAX)..i128::from(i64::MAX)) {
            let quantity = Quantity { nanos };
            prop_assert_eq!(q(&quantity.to_string()), quantity);
        }

        #[test]
        fn never_panics(text in "\\PC*") {
            drop(text.parse::<Quantity>());
        }
    }
}
