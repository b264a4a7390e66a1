//! Conversions between number types that saturate instead of wrapping.

/// Nanoseconds in a second.
pub(crate) const SECOND_NS: u64 = 1_000_000_000;

/// The nearest whole number; negative and not-a-number become 0, what is too large the maximum.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a float cast saturates
pub(crate) fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// The value as a float; exact up to 2^53.
#[allow(clippy::cast_precision_loss)] // figures for people
pub(crate) fn float(value: u64) -> f64 {
    value as f64
}

/// `part / whole`, 0 if there is no whole.
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { float(part) / float(whole) }
}

/// Nanoseconds as microseconds, rounded to the nanosecond.
pub(crate) fn micros(ns: u64) -> f64 {
    float(ns) / 1000.0
}

/// Nanoseconds as seconds.
pub(crate) fn seconds(ns: u64) -> f64 {
    float(ns) / 1e9
}

/// The low 32 bits.
#[allow(clippy::cast_possible_truncation)] // that is the point
pub(crate) fn low32(value: u64) -> u32 {
    value as u32
}

/// An index into something smaller than the address space.
#[allow(clippy::cast_possible_truncation)] // usize has at least 32 bits on all supported targets
pub(crate) const fn index(value: u32) -> usize {
    value as usize
}
