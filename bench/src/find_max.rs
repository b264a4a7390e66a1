//! Searches for the highest rate that a server bears.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{report::Summary, slo::ObjectiveReport};

/// What is searched for and how.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// First rate, exchanges per second.
    pub from: f64,
    /// Highest rate that is tried.
    pub to: f64,
    /// Share of exchanges that may fail, 0 to 1.
    pub loss_max: f64,
    /// The 99th percentile of the whole exchange may not exceed this.
    pub p99_max_us: Option<f64>,
    /// The search ends when the bounds are this close, as a share of the rate.
    pub precision: f64,
}

/// One step of the search.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Step {
    /// Rate that was offered.
    pub rate: f64,
    /// Exchanges completed per second.
    pub exchanges_per_s: f64,
    /// Share that failed.
    pub loss: f64,
    /// Median of the whole exchange, microseconds.
    pub p50_us: f64,
    /// 99th percentile of it.
    pub p99_us: f64,
    /// The generator kept up.
    pub valid: bool,
    /// Within the limits.
    pub within: bool,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.within, self.valid) {
            (_, false) => "not valid: generator",
            (true, true) => "ok",
            (false, true) => "too much",
        };
        write!(
            f,
            "{:>10.0}/s offered  {:>10.0}/s done  loss {:>8.4} %  p50 {:>10.1} us  p99 {:>10.1} us  \
             {verdict}",
            self.rate,
            self.exchanges_per_s,
            self.loss * 100.0,
            self.p50_us,
            self.p99_us
        )
    }
}

impl Step {
    /// From the run at a rate.
    #[must_use]
    pub fn new(rate: f64, summary: &Summary, within: bool) -> Self {
        let overall = summary.overall();
        Self {
            rate,
            exchanges_per_s: summary.exchanges_per_s,
            loss: summary.loss,
            p50_us: overall.p50_us,
            p99_us: overall.p99_us,
            valid: summary.valid,
            within,
        }
    }
}

/// Why there is no higher rate.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitedBy {
    /// Losses or latency exceeded the limit.
    Server,
    /// The generator could not send faster: the server may be able to do more.
    Generator,
    /// The highest rate that was to be tried was borne.
    Range,
    /// The server broke a rule.
    Violation,
    /// A signal ended the search.
    Interrupted,
}

/// The outcome of a search.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Found {
    /// The highest rate within the limits, 0 if there was none.
    pub max_per_s: f64,
    /// Why it is not higher.
    pub limited_by: LimitedBy,
    /// All steps in order.
    pub steps: Vec<Step>,
    /// The run at the highest rate.
    pub summary: Option<Summary>,
}

impl Search {
    /// Whether a run was within the limits. Objectives of the rate do not count: they are for the
    /// outcome. If the generator was too slow, nothing can be said of the others.
    #[must_use]
    pub fn within(&self, summary: &Summary) -> bool {
        let met = |objective: &ObjectiveReport| objective.met || objective.unit == "/s";
        summary.loss <= self.loss_max
            && self.p99_max_us.is_none_or(|limit| summary.overall().p99_us <= limit)
            && (!summary.valid || summary.objectives.iter().all(met))
    }

    /// Doubles the rate until it is too high, then halves the distance. `run` makes one run at a
    /// rate.
    ///
    /// # Errors
    /// Those of `run`.
    pub fn find<E>(
        &self,
        mut run: impl FnMut(f64) -> Result<Summary, E>,
        mut show: impl FnMut(&Step),
    ) -> Result<Found, E> {
        let mut steps = Vec::new();
        let mut best: Option<Summary> = None;
        let (mut good, mut bad) = (0.0_f64, f64::INFINITY);
        let mut limited_by = LimitedBy::Range;
        let mut rate = self.from.min(self.to);
        loop {
            let summary = run(rate)?;
            let within = self.within(&summary);
            let step = Step::new(rate, &summary, within);
            show(&step);
            steps.push(step);
            if summary.interrupted || !summary.passed {
                limited_by =
                    if summary.passed { LimitedBy::Interrupted } else { LimitedBy::Violation };
                if !summary.passed {
                    best = Some(summary);
                }
                break;
            }
            if within && summary.valid {
                good = rate;
                best = Some(summary);
                if rate >= self.to {
                    limited_by = LimitedBy::Range;
                    break;
                }
            } else {
                // What a generator that is too slow measured says nothing of the server.
                limited_by = if summary.valid { LimitedBy::Server } else { LimitedBy::Generator };
                bad = rate;
            }
            if bad.is_finite() && (bad - good <= self.precision * bad || bad < 1.0) {
                break;
            }
            let next =
                if bad.is_finite() { f64::midpoint(good, bad) } else { (rate * 2.0).min(self.to) };
            // No rate lies between them, whatever the precision.
            if next <= good || next >= bad {
                break;
            }
            rate = next;
        }
        Ok(Found { max_per_s: good, limited_by, steps, summary: best })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::report::tests::sample;

    fn server(limit: f64, generator: f64) -> impl FnMut(f64) -> Result<Summary, Infallible> {
        let (template, _) = sample();
        move |rate| {
            let mut summary = template.clone();
            summary.loss = if rate > limit { 0.2 } else { 0.0 };
            summary.valid = rate <= generator;
            Ok(summary)
        }
    }

    fn search() -> Search {
        Search { from: 1000.0, to: 1e6, loss_max: 0.001, p99_max_us: None, precision: 0.02 }
    }

    #[test]
    fn the_limit_is_found_within_the_precision() {
        for limit in [700.0, 1500.0, 33_333.0, 250_000.0] {
            let found = search().find(server(limit, 1e9), |_| ()).unwrap();
            assert!(found.max_per_s <= limit && found.max_per_s > limit * 0.97, "{found:?}");
            assert_eq!(found.limited_by, LimitedBy::Server);
            assert!(found.steps.len() < 25);
        }
    }

    #[test]
    fn a_precision_that_cannot_be_had_is_no_endless_search() {
        for precision in [0.0, -1.0, f64::NAN] {
            let search = Search { precision, ..search() };
            let found = search.find(server(1500.0, 1e9), |_| ()).unwrap();
            assert!((found.max_per_s - 1500.0).abs() < 1e-6, "{}", found.max_per_s);
            assert!(found.steps.len() < 70, "{}", found.steps.len());
        }
    }

    #[test]
    fn objectives_limit_the_rate() {
        let (template, stats) = sample();
        let slo: crate::slo::Slo = "p99<1s,rate>1e9".parse().unwrap();
        let run = |rate: f64| {
            let mut summary = template.clone();
            let limit =
                if rate > 20_000.0 { "p99<1us,rate>1e9".parse().unwrap() } else { slo.clone() };
            summary.loss = 0.0;
            summary.objectives = limit.judge(&summary, &stats);
            Ok::<_, Infallible>(summary)
        };
        let found = search().find(run, |_| ()).unwrap();
        assert!(found.max_per_s <= 20_000.0 && found.max_per_s > 19_000.0, "{}", found.max_per_s);
        assert_eq!(found.limited_by, LimitedBy::Server);
        assert!(!found.summary.unwrap().objectives_met(), "the rate is too low in the end");
    }

    #[test]
    fn it_says_what_the_limit_was() {
        let found = search().find(server(1e9, 1e9), |_| ()).unwrap();
        assert_eq!((found.max_per_s, found.limited_by), (1e6, LimitedBy::Range));
        let found = search().find(server(1e9, 50_000.0), |_| ()).unwrap();
        assert_eq!(found.limited_by, LimitedBy::Generator);
        let found = search().find(server(50_000.0, 50_000.0), |_| ()).unwrap();
        assert_eq!(found.limited_by, LimitedBy::Generator, "not valid, and lossy for that reason");
        let found = search().find(server(0.0, 1e9), |_| ()).unwrap();
        assert_eq!((found.max_per_s, found.summary), (0.0, None));
        let (mut broken, _) = sample();
        broken.passed = false;
        let found = search().find(|_| Ok::<_, Infallible>(broken.clone()), |_| ()).unwrap();
        assert_eq!((found.limited_by, found.steps.len()), (LimitedBy::Violation, 1));
    }
}
