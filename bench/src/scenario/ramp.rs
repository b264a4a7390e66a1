//! Where a rising rate breaks.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    find_max::Step,
    number::{float, ratio},
    stats::Interval,
};

/// The limits of what counts as borne.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Share of exchanges that may be lost, refused or invalid.
    pub loss: f64,
    /// The longest 99th percentile, microseconds; without it, ten times that of the first step.
    pub p99_us: Option<f64>,
}

/// What broke first.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Broke {
    /// Too much was lost, refused or invalid.
    Loss,
    /// The 99th percentile became too long.
    P99,
    /// The generator could not keep up: of the server this says nothing.
    Generator,
}

/// The outcome of a ramp.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RampReport {
    /// The rate rose in a straight line; a step is then a stretch of it.
    pub continuous: bool,
    /// All steps in order.
    pub steps: Vec<Step>,
    /// The highest rate before anything broke, 0 if the first did.
    pub borne_per_s: f64,
    /// The first rate at which something broke.
    pub broke_at_per_s: Option<f64>,
    /// What that was.
    pub broke: Option<Broke>,
    /// The limit of the 99th percentile, microseconds.
    pub p99_limit_us: f64,
}

/// How much longer than at the first rate the 99th percentile may become.
const P99_FACTOR: f64 = 10.0;

impl RampReport {
    /// Judges the steps and finds the first that is beyond the limits.
    #[must_use]
    pub fn new(continuous: bool, mut steps: Vec<Step>, limits: Limits) -> Self {
        let first = steps.first().map_or(0.0, |step| step.p99_us);
        let p99_limit_us = limits.p99_us.unwrap_or(first * P99_FACTOR);
        let broken = |step: &Step| {
            if !step.valid {
                Some(Broke::Generator)
            } else if step.loss > limits.loss {
                Some(Broke::Loss)
            } else if step.p99_us > p99_limit_us {
                Some(Broke::P99)
            } else {
                None
            }
        };
        for step in &mut steps {
            step.within = matches!(broken(step), None | Some(Broke::Generator));
        }
        let at = steps.iter().position(|step| broken(step).is_some());
        let borne = &steps[..at.unwrap_or(steps.len())];
        Self {
            continuous,
            borne_per_s: borne.last().map_or(0.0, |step| step.rate),
            broke_at_per_s: at.map(|at| steps[at].rate),
            broke: at.and_then(|at| broken(&steps[at])),
            steps,
            p99_limit_us,
        }
    }
}

/// The stretches of a ramp in a straight line, at most `count` of them. Losses are noticed one time-out
/// after they were due, those of the end when nothing is begun any more: they belong to the last
/// stretch. Percentiles are those of the messages that were answered.
#[must_use]
pub fn stretches(series: &[Interval], count: usize, valid: bool) -> Vec<Step> {
    let begins = |at: &usize| series[*at].started > 0;
    let sent: Vec<usize> = (0..series.len()).filter(begins).collect();
    let chunks: Vec<&[usize]> = sent.chunks(sent.len().div_ceil(count.max(1)).max(1)).collect();
    let ends = chunks.iter().skip(1).map(|next| next[0]).chain([series.len()]);
    chunks
        .iter()
        .zip(ends)
        .map(|(chunk, end)| {
            let stretch = || chunk.iter().map(|at| &series[*at]);
            let with_tail = &series[chunk[0]..end];
            let sum = |of: fn(&Interval) -> u64| stretch().map(of).sum();
            let length: f64 = stretch().map(|interval| interval.length_s).sum();
            let longest = |of: fn(&Interval) -> f64| with_tail.iter().map(of).fold(0.0, f64::max);
            let bad: u64 = with_tail.iter().map(|interval| interval.lost + interval.failed).sum();
            let started: u64 = sum(|interval| interval.started);
            let completed: u64 = sum(|interval| interval.completed);
            Step {
                rate: float(started) / length,
                exchanges_per_s: float(completed) / length,
                loss: ratio(bad, started),
                p50_us: longest(|interval| interval.p50_us),
                p99_us: longest(|interval| interval.p99_us),
                valid,
                within: true,
            }
        })
        .collect()
}

impl fmt::Display for RampReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ramp")?;
        for step in &self.steps {
            writeln!(f, "  {step}")?;
        }
        let why = match self.broke {
            None => return writeln!(f, "  nothing broke up to {:.0}/s", self.borne_per_s),
            Some(Broke::Loss) => "too much was lost or refused".into(),
            Some(Broke::P99) => {
                format!("the 99th percentile went over {:.1} us", self.p99_limit_us)
            }
            Some(Broke::Generator) => "the generator could not keep up".into(),
        };
        let at = self.broke_at_per_s.unwrap_or_default();
        writeln!(f, "  good up to {:.0}/s; at {at:.0}/s {why}", self.borne_per_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(rate: f64, loss: f64, p99_us: f64, valid: bool) -> Step {
        Step { rate, exchanges_per_s: rate, loss, p50_us: 50.0, p99_us, valid, within: true }
    }

    #[test]
    fn the_first_step_beyond_the_limits_counts() {
        let limits = Limits { loss: 0.001, p99_us: None };
        let steps =
            |last: Step| vec![step(100.0, 0.0, 90.0, true), step(200.0, 0.0005, 899.0, true), last];
        let of = |last| {
            let report = RampReport::new(false, steps(last), limits);
            (report.borne_per_s, report.broke, report.steps[2].within)
        };
        assert_eq!(of(step(300.0, 0.0, 100.0, true)), (300.0, None, true));
        assert_eq!(of(step(300.0, 0.01, 100.0, true)), (200.0, Some(Broke::Loss), false));
        assert_eq!(of(step(300.0, 0.0, 901.0, true)), (200.0, Some(Broke::P99), false));
        assert_eq!(of(step(300.0, 0.0, 100.0, false)), (200.0, Some(Broke::Generator), true));
        let strict = Limits { loss: 0.001, p99_us: Some(80.0) };
        let report = RampReport::new(false, steps(step(300.0, 0.0, 1.0, true)), strict);
        assert_eq!((report.borne_per_s, report.broke_at_per_s), (0.0, Some(100.0)));
        assert!(report.to_string().contains("at 100/s the 99th percentile went over 80.0 us"));
    }

    #[test]
    fn a_line_is_cut_into_stretches() {
        let second = |started, lost, p99_us| Interval {
            length_s: 1.0,
            started,
            completed: started - lost,
            lost,
            p99_us,
            ..Interval::default()
        };
        let mut series: Vec<_> = (1..=7).map(|n| second(n * 10, n, 5.0)).collect();
        series[4].p99_us = 70.0;
        // What the last second lost is noticed when nothing is begun any more.
        series.push(Interval { length_s: 1.0, lost: 14, p99_us: 8.0, ..Interval::default() });
        let steps = stretches(&series, 3, true);
        assert_eq!(steps.len(), 3);
        assert_eq!((steps[0].rate, steps[1].rate, steps[2].rate), (20.0, 50.0, 70.0));
        assert_eq!((steps[1].p99_us, steps[2].p99_us), (70.0, 8.0));
        assert!((steps[0].loss - 0.1).abs() < 1e-9);
        assert!((steps[2].loss - 0.3).abs() < 1e-9, "{}", steps[2].loss);
        // Nor is a pause in the middle forgotten.
        series.insert(1, Interval { length_s: 1.0, lost: 12, ..Interval::default() });
        let steps = stretches(&series, 3, true);
        assert!((steps[0].loss - 0.3).abs() < 1e-9, "{}", steps[0].loss);
        assert_eq!(steps[0].rate, 20.0);
        assert_eq!(stretches(&[], 3, true), []);
    }
}
