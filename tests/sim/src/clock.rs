//! Virtual time, and the clocks that servers and clients believe in.

use std::time::Duration;

use gemel_failover::Now;
use gemel_lease::AbsoluteTime;

/// Virtual time and spans of it, in microseconds.
pub type Micros = u64;

/// A millisecond.
pub const MILLISECOND: Micros = 1000;
/// A second.
pub const SECOND: Micros = 1_000_000;

/// The wall clock when a run begins.
const EPOCH_SECS: u64 = 800_000_000;

/// The clocks of a server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// How far the wall clock is ahead, in microseconds.
    pub offset: i64,
    /// How much too fast it runs, in parts per million.
    pub drift_ppm: i64,
}

impl Clock {
    /// What the clocks show at a moment.
    #[must_use]
    pub fn at(&self, now: Micros) -> Now {
        let now_signed = i64::try_from(now).unwrap_or(i64::MAX);
        let drifted = now_signed + now_signed / 1_000_000 * self.drift_ppm + self.offset;
        let secs = drifted.div_euclid(1_000_000) + i64::try_from(EPOCH_SECS).unwrap_or(0);
        Now {
            wall: AbsoluteTime(u32::try_from(secs).unwrap_or(0)),
            monotonic: Duration::from_micros(now),
        }
    }
}

/// How long a span of somebody's clock, which runs too fast by `drift_ppm`, really takes.
#[must_use]
pub(crate) fn real_span(span: Micros, drift_ppm: i64) -> Micros {
    let span_signed = i64::try_from(span).unwrap_or(i64::MAX);
    u64::try_from(span_signed - span_signed / 1_000_000 * drift_ppm).unwrap_or(0)
}

/// As minutes, seconds and milliseconds.
#[must_use]
pub(crate) fn display(time: Micros) -> String {
    let (secs, millis) = (time / SECOND, time / MILLISECOND % 1000);
    format!("{:>3}:{:02}.{millis:03}", secs / 60, secs % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_differ_as_configured() {
        let right = Clock::default();
        let fast = Clock { offset: -2_500_000, drift_ppm: 1000 };
        assert_eq!(right.at(10 * SECOND).wall.0, 800_000_010);
        assert_eq!(fast.at(0).wall.0, 800_000_000 - 3, "rounded down");
        assert_eq!(fast.at(10_000 * SECOND).wall.0, 800_010_007);
        assert_eq!(real_span(100 * SECOND, 1000), 99_900_000);
        assert_eq!(display(61 * SECOND + 5 * MILLISECOND), "  1:01.005");
    }
}
