//! Does a long run stay what it was?

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    number::{float, ratio},
    stats::Interval,
};

/// A part of a long run.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Stretch {
    /// Median of the 99th percentiles of its intervals, microseconds.
    pub p99_us: f64,
    /// Share of the exchanges that were lost, refused or invalid.
    pub loss: f64,
    /// The most memory that the generator had, KiB.
    pub memory_kib: u64,
}

/// What changed for the worse.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Drift {
    /// The 99th percentile is longer by more than half and 100 us.
    P99,
    /// More is lost, by more than 0.1 % of all exchanges.
    Loss,
    /// The generator's memory has grown by more than a tenth and 8 MiB.
    Memory,
}

/// The outcome of a soak.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SoakReport {
    /// Length of an interval, seconds.
    pub interval_s: f64,
    /// Intervals that are compared; the first one of the run is left out as warm-up.
    pub intervals: usize,
    /// The first third.
    pub first: Stretch,
    /// The last third.
    pub last: Stretch,
    /// The generator's memory at the end of each interval, KiB.
    pub memory_kib: Vec<u64>,
    /// What changed for the worse from the first third to the last.
    pub drifts: Vec<Drift>,
}

impl SoakReport {
    /// Compares what lies before `sent_s`, when the last exchange had been begun. The memory is that of
    /// the `series`.
    #[must_use]
    pub fn new(interval_s: f64, series: &[Interval], sent_s: f64) -> Self {
        let whole: Vec<Interval> = series
            .iter()
            .filter(|interval| interval.length_s > interval_s * 0.9)
            .filter(|interval| interval.at_s < sent_s + interval_s * 0.1)
            .skip(1)
            .copied()
            .collect();
        let third = whole.len() / 3;
        let first = stretch(&whole[..third]);
        let last = stretch(&whole[whole.len() - third..]);
        let mut drifts = Vec::new();
        if last.p99_us > first.p99_us * 1.5 + 100.0 {
            drifts.push(Drift::P99);
        }
        if last.loss > first.loss + 0.001 {
            drifts.push(Drift::Loss);
        }
        if last.memory_kib > first.memory_kib / 10 * 11 + 8 * 1024 {
            drifts.push(Drift::Memory);
        }
        let memory_kib = series.iter().map(|interval| interval.memory_kib).collect();
        Self { interval_s, intervals: whole.len(), first, last, memory_kib, drifts }
    }
}

fn stretch(intervals: &[Interval]) -> Stretch {
    let mut p99: Vec<f64> = intervals.iter().map(|interval| interval.p99_us).collect();
    p99.sort_by(f64::total_cmp);
    let started = intervals.iter().map(|interval| interval.started).sum();
    let missed = intervals.iter().map(|interval| interval.lost + interval.failed).sum();
    Stretch {
        p99_us: p99.get(p99.len() / 2).copied().unwrap_or(0.0),
        loss: ratio(missed, started),
        memory_kib: intervals.iter().map(|interval| interval.memory_kib).max().unwrap_or(0),
    }
}

impl fmt::Display for SoakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "soak: {} intervals of {:.1} s", self.intervals, self.interval_s)?;
        if self.intervals < 3 {
            return writeln!(f, "  too short to say whether anything drifts");
        }
        for (name, stretch) in [("first", &self.first), ("last", &self.last)] {
            writeln!(
                f,
                "  {name:<5} third: p99 {:>10.1} us  loss {:.4} %  memory {:.1} MiB",
                stretch.p99_us,
                stretch.loss * 100.0,
                float(stretch.memory_kib) / 1024.0
            )?;
        }
        for drift in &self.drifts {
            let what = match drift {
                Drift::P99 => "the 99th percentile became longer",
                Drift::Loss => "more got lost",
                Drift::Memory => "the generator needed more memory",
            };
            writeln!(f, "  DRIFT: {what}")?;
        }
        if self.drifts.is_empty() {
            writeln!(f, "  nothing drifted")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(p99: [f64; 7], lost: [u64; 7], memory: [u64; 7]) -> SoakReport {
        let mut series: Vec<_> = p99
            .iter()
            .zip(lost)
            .zip(memory)
            .map(|((p99_us, lost), memory_kib)| Interval {
                length_s: 2.0,
                started: 1000,
                lost,
                p99_us: *p99_us,
                memory_kib,
                ..Interval::default()
            })
            .collect();
        // What is left of the last interval.
        series.push(Interval { length_s: 0.5, at_s: 8.0, p99_us: 1e9, ..Interval::default() });
        // Nothing was sent in most of the one after that.
        series.push(Interval { length_s: 2.0, at_s: 10.0, started: 1, lost: 9, ..series[1] });
        SoakReport::new(2.0, &series, 8.1)
    }

    #[test]
    fn what_grows_is_a_drift() {
        let even = [100.0; 7];
        let steady = run(even, [0; 7], [90_000; 7]);
        assert_eq!((steady.intervals, steady.drifts.as_slice()), (6, &[][..]));
        assert!(steady.to_string().contains("nothing drifted"));
        // The first interval is warm-up.
        let warm =
            run([9e6, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0], [900, 0, 0, 0, 0, 0, 0], [0; 7]);
        assert_eq!((warm.drifts.as_slice(), warm.first.p99_us), (&[][..], 100.0));
        let slower = run([0.0, 100.0, 100.0, 150.0, 300.0, 300.0, 300.0], [0; 7], [0; 7]);
        assert_eq!(slower.drifts, [Drift::P99]);
        let lossy = run(even, [0, 0, 0, 1, 1, 2, 2], [0; 7]);
        assert_eq!(lossy.drifts, [Drift::Loss]);
        let fat = run(even, [0; 7], [0, 90_000, 90_000, 95_000, 99_000, 108_000, 110_000]);
        assert_eq!(fat.drifts, [Drift::Memory]);
        assert!(fat.to_string().contains("DRIFT: the generator needed more memory"));
    }

    #[test]
    fn a_short_run_says_nothing() {
        let report = SoakReport::new(2.0, &[], 1.0);
        assert_eq!((report.intervals, report.drifts.len()), (0, 0));
        assert!(report.to_string().contains("too short"));
    }
}
