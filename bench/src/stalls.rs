//! What the machine takes from a program that only wants to run: interrupts, other threads, and, in a
//! virtual machine, the host. No latency measured on it can be better than this.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::number::ratio;

/// Gaps of at least this many microseconds are told apart.
pub const THRESHOLDS_US: [u64; 3] = [50, 150, 1000];

/// The gaps of one core.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stalls {
    /// Which core.
    pub core: u32,
    /// How long it was watched, in seconds.
    pub seconds: f64,
    /// By [`THRESHOLDS_US`].
    pub over: Vec<Over>,
    /// The longest gap, in microseconds.
    pub longest_us: f64,
}

/// Gaps longer than a threshold.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Over {
    /// The threshold, in microseconds.
    pub us: u64,
    /// How many there were.
    pub count: u64,
    /// Their share of the time: what arrives then waits.
    pub share: f64,
}

/// Looks at the clock again and again on the present core, for `time`.
#[must_use]
pub fn watch(core: u32, time: Duration) -> Stalls {
    let begin = Instant::now();
    let mut gaps = Gaps::default();
    let mut last = begin;
    loop {
        let now = Instant::now();
        gaps.add(now - last);
        last = now;
        if now - begin >= time {
            return gaps.over(core, now - begin);
        }
    }
}

#[derive(Debug, Default)]
struct Gaps {
    counts: [u64; THRESHOLDS_US.len()],
    times: [Duration; THRESHOLDS_US.len()],
    longest: Duration,
}

impl Gaps {
    fn add(&mut self, gap: Duration) {
        // Nearly always: nothing.
        if gap < Duration::from_micros(THRESHOLDS_US[0]) {
            return;
        }
        for (place, us) in THRESHOLDS_US.into_iter().enumerate() {
            if gap >= Duration::from_micros(us) {
                self.counts[place] += 1;
                self.times[place] += gap;
            }
        }
        self.longest = self.longest.max(gap);
    }

    fn over(&self, core: u32, watched: Duration) -> Stalls {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let over = THRESHOLDS_US.into_iter().zip(self.counts).zip(self.times);
        let over = over.map(|((us, count), time)| {
            let share = ratio(ns(time), ns(watched));
            Over { us, count, share }
        });
        Stalls {
            core,
            seconds: watched.as_secs_f64(),
            over: over.collect(),
            longest_us: self.longest.as_secs_f64() * 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_by_their_length() {
        let mut gaps = Gaps::default();
        for us in [1, 49, 50, 149, 150, 2000] {
            gaps.add(Duration::from_micros(us));
        }
        let found = gaps.over(3, Duration::from_millis(10));
        let over: Vec<_> = found.over.iter().map(|it| (it.us, it.count)).collect();
        assert_eq!(over, [(50, 4), (150, 2), (1000, 1)]);
        assert!((found.over[1].share - 0.215).abs() < 1e-9, "{found:?}");
        assert!((found.longest_us - 2000.0).abs() < 1e-6);
        assert_eq!(found.core, 3);
    }

    #[test]
    fn a_watch_lasts_as_long_as_it_is_told() {
        let found = watch(0, Duration::from_millis(20));
        assert!(found.seconds >= 0.02);
        assert!(found.over.iter().all(|over| over.share <= 1.0));
    }
}
