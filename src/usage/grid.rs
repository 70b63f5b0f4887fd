//! The grid on which amounts lie.

use super::scale::Measure;

/// Binary digits that an amount on the grid has beside its first.
const DIGITS: u32 = 4;

/// The amount rounded up to the grid: 16 steps, of 3 to 6 % each, between a number and its double.
/// Millicores or bytes; bytes come out as whole mebibytes.
///
/// Replicas of the webhook, whose estimates differ by minutes, so give one answer, and pods of one
/// workload keep one shape.
pub fn step_up(measure: Measure, amount: i64) -> i64 {
    let unit = match measure {
        Measure::Cpu => 1,
        Measure::Memory => 1 << 20,
    };
    let units = amount.max(1).saturating_add(unit - 1) / unit;
    let digits = i64::BITS - units.leading_zeros();
    let step = 1_i64 << digits.saturating_sub(DIGITS + 1);
    (units.saturating_add(step - 1) / step * step).saturating_mul(unit)
}
