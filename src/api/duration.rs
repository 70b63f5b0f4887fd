//! Durations as the Karpenter API writes them: Go syntax (`1h30m`, `720h`), or the word `Never`.
//!
//! Two texts that mean the same time are equal (`720h` = `720h0m`), and the text that was read is the
//! text that is written back.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The pattern of a duration that cannot be switched off.
pub(crate) const DURATION_PATTERN: &str = r"^([0-9]+(s|m|h))+$";
/// The pattern of a duration that may also be `Never`.
pub(crate) const NILLABLE_PATTERN: &str = r"^(([0-9]+(s|m|h))+|Never)$";

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration such as 30s, 5m or 1h30m")]
pub struct DurationError {
    /// What was read.
    pub text: String,
}

/// A length of time in Go syntax, never negative. A value too large for the clock saturates.
#[derive(Clone, Debug)]
pub struct GoDuration {
    text: String,
    value: Duration,
}

impl GoDuration {
    /// A whole number of seconds; whole hours are written as hours.
    pub fn from_secs(seconds: u64) -> Self {
        let text = if seconds > 0 && seconds.is_multiple_of(3600) {
            format!("{}h", seconds / 3600)
        } else {
            format!("{seconds}s")
        };
        Self { text, value: Duration::from_secs(seconds) }
    }

    /// The length of time.
    pub fn get(&self) -> Duration {
        self.value
    }

    /// Whole seconds, rounded down.
    pub fn seconds(&self) -> u64 {
        self.value.as_secs()
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for GoDuration {
    type Err = DurationError;

    /// Reads what Go's `time.ParseDuration` reads, without a minus sign.
    fn from_str(text: &str) -> Result<Self, DurationError> {
        let fail = || DurationError { text: text.to_owned() };
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest.is_empty() {
            return Err(fail());
        }
        let mut nanos = 0_u128;
        while !rest.is_empty() && rest != "0" {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
            let (number, tail) = rest.split_at(end);
            let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(end);
            let unit = unit_nanos(unit).ok_or_else(fail)?;
            nanos = nanos.saturating_add(scaled(number, unit).ok_or_else(fail)?);
            rest = tail;
        }
        // The largest time that Go's own type can hold; beyond it the exact value means nothing.
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX).min(i64::MAX as u64);
        Ok(Self { text: text.to_owned(), value: Duration::from_nanos(nanos) })
    }
}

fn unit_nanos(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `number` × `unit`, the fraction cut to whole nanoseconds.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let mut total = if whole.is_empty() {
        0
    } else {
        whole.parse::<u128>().unwrap_or(u128::MAX).saturating_mul(unit)
    };
    let mut place = unit;
    for digit in fraction.chars() {
        place /= 10;
        total = total.saturating_add(place * u128::from(digit.to_digit(10)?));
    }
    Some(total)
}

impl PartialEq for GoDuration {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for GoDuration {}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for GoDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 64, "pattern": DURATION_PATTERN})
    }
}

/// A length of time, or `Never`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NillableDuration {
    /// After this time.
    After(GoDuration),
    /// Not at all.
    Never,
}

impl NillableDuration {
    /// A whole number of seconds.
    pub fn from_secs(seconds: u64) -> Self {
        Self::After(GoDuration::from_secs(seconds))
    }

    /// The length of time; `None` for `Never`.
    pub fn get(&self) -> Option<Duration> {
        match self {
            Self::After(duration) => Some(duration.get()),
            Self::Never => None,
        }
    }
}

impl FromStr for NillableDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        match text {
            "Never" => Ok(Self::Never),
            text => text.parse().map(Self::After),
        }
    }
}

impl fmt::Display for NillableDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(duration) => duration.fmt(f),
            Self::Never => f.write_str("Never"),
        }
    }
}

impl Serialize for NillableDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NillableDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for NillableDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "NillableDuration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 64, "pattern": NILLABLE_PATTERN})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        text.parse::<GoDuration>().ok().map(|d| d.seconds())
    }

    #[test]
    fn go_syntax_is_read() {
        assert_eq!(seconds("720h"), Some(2_592_000));
        assert_eq!(seconds("1h30m5s"), Some(5_405));
        assert_eq!(seconds("1.5h"), Some(5_400));
        assert_eq!(seconds("0"), Some(0));
        assert_eq!(seconds("1500ms"), Some(1));
        for text in ["", "5", "5d", "h", "-5m", "1..5h", "5 m", "five"] {
            assert_eq!(seconds(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_huge_duration_saturates() {
        assert_eq!(seconds("99999999999999999999999h"), Some(9_223_372_036));
    }

    #[test]
    fn equality_is_by_time_and_the_text_survives() {
        let (a, b): (NillableDuration, NillableDuration) =
            ("720h".parse().unwrap(), "720h0m".parse().unwrap());
        assert_eq!(a, b);
        assert_eq!(serde_json::to_string(&b).unwrap(), "\"720h0m\"");
        assert_eq!("Never".parse::<NillableDuration>().unwrap().get(), None);
        assert_eq!(NillableDuration::from_secs(2_592_000).to_string(), "720h");
        assert_eq!(NillableDuration::from_secs(90).to_string(), "90s");
    }
}
