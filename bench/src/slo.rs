//! Objectives that a run has to meet, as `p99<2ms,reply.p99.9<5ms,loss<0.1%`.
//!
//! ```text
//! list      = objective { "," objective }
//! objective = [ pair "." ] measure relation limit
//! measure   = "p" percentile | "mean" | "max"       limit: a time in us, ms or s
//!           | "loss"                                 limit: a share in %
//!           | "rate"                                 limit: a number per second
//!           | "takeover" | "outage"                  limit: a time; without a pair
//! relation  = "<" | "<=", with "rate" ">" | ">="
//! pair      = its name in reports, or that without "_reply"; "advertise" and "reply" for short
//! ```
//!
//! Without a pair, times are those of the whole exchange. Losses count as time-outs. What was not
//! measured at all is missed, and so is everything if the run is not valid. Of a stored summary without
//! its times there are the percentiles that stand in it, and no others.

use std::{fmt, str::FromStr};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{
    number::{float, micros, ratio},
    report::{PairReport, Percentiles, Summary},
    stats::{Pair, Stats},
};

/// One objective.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    pair: Option<Pair>,
    measure: Measure,
    /// The limit itself will do.
    or_equal: bool,
    /// Microseconds, percent or per second.
    limit: f64,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Measure {
    /// 0 to 100.
    Percentile(f64),
    Mean,
    Max,
    Loss,
    Rate,
    Takeover,
    Outage,
}

/// Objectives, all to be met.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slo(Vec<Objective>);

/// What became of an objective.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ObjectiveReport {
    /// As it was written.
    pub objective: String,
    /// It was met, in a valid run.
    pub met: bool,
    /// What was measured, in `unit`; none if nothing was.
    pub measured: Option<f64>,
    /// `us`, `%` or `/s`.
    pub unit: String,
}

/// An objective that cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{text:?} is no objective: {reason}")]
pub struct SloError {
    text: String,
    reason: String,
}

impl FromStr for Slo {
    type Err = SloError;

    fn from_str(text: &str) -> Result<Self, SloError> {
        let read = |part: &str| {
            let part = part.trim();
            Objective::read(part).map_err(|reason| SloError { text: part.into(), reason })
        };
        text.split(',').map(read).collect::<Result<_, _>>().map(Self)
    }
}

impl Objective {
    fn read(text: &str) -> Result<Self, String> {
        let at = text
            .find(['<', '>'])
            .ok_or("it has neither < nor >; write it as p99<2ms, reply.p99.9<5ms or loss<0.1%")?;
        let (name, rest) = text.split_at(at);
        let (greater, rest) = (rest.starts_with('>'), &rest[1..]);
        let (or_equal, value) = match rest.strip_prefix('=') {
            Some(value) => (true, value.trim()),
            None => (false, rest.trim()),
        };
        let (pair, measure) = read_name(name.trim())?;
        if greater != (measure == Measure::Rate) {
            return Err(if greater {
                "only rate is compared with >"
            } else {
                "rate is compared with >"
            }
            .into());
        }
        if pair.is_some() && matches!(measure, Measure::Takeover | Measure::Outage) {
            return Err("takeover and outage are of the servers, not of a pair of messages".into());
        }
        let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
        let number: f64 = digits
            .trim()
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite() && *number >= 0.0)
            .ok_or_else(|| format!("{value:?} does not begin with a number"))?;
        let limit = number * factor(measure, &value[digits.len()..])?;
        Ok(Self { pair, measure, or_equal, limit, text: text.into() })
    }

    fn judge(&self, summary: &Summary, stats: &Stats) -> ObjectiveReport {
        let measured = self.measured(summary, stats);
        let within = |value: f64| match self.measure {
            Measure::Rate => value > self.limit,
            _ => value < self.limit,
        };
        #[expect(clippy::float_cmp, reason = "a limit that is met exactly")]
        let met =
            measured.is_some_and(|value| within(value) || self.or_equal && value == self.limit);
        ObjectiveReport {
            objective: self.text.clone(),
            met: met && summary.valid,
            measured,
            unit: match self.measure {
                Measure::Loss => "%",
                Measure::Rate => "/s",
                _ => "us",
            }
            .into(),
        }
    }

    fn measured(&self, summary: &Summary, stats: &Stats) -> Option<f64> {
        let pair = self.pair.or_else(|| summary.overall_pair());
        let is_known = pair.is_some_and(|pair| !stats.pair(pair).with_losses().is_empty());
        match pair.and_then(|pair| summary.pairs.get(pair.as_str())).filter(|_| !is_known) {
            Some(report) => self.told(summary, report),
            None => self.counted(summary, stats),
        }
    }

    /// As a summary has it, without the times.
    fn told(&self, summary: &Summary, report: &PairReport) -> Option<f64> {
        let Percentiles { count, mean_us, p50_us, p90_us, p99_us, p999_us, max_us } =
            report.with_losses;
        let known =
            [(50.0, p50_us), (90.0, p90_us), (99.0, p99_us), (99.9, p999_us), (100.0, max_us)];
        let is_of_pair = self.pair.is_some();
        match self.measure {
            Measure::Percentile(percentile) => {
                known.iter().find(|(own, _)| (own - percentile).abs() < 1e-9).map(|(_, us)| *us)
            }
            Measure::Mean => Some(mean_us),
            Measure::Max => Some(max_us),
            Measure::Loss if is_of_pair => {
                Some(ratio(count.saturating_sub(report.answered.count), count) * 100.0)
            }
            Measure::Rate if is_of_pair => (summary.duration_s > 0.0)
                .then(|| Some(float(report.in_time?) / summary.duration_s))
                .flatten(),
            _ => self.counted(summary, &Stats::new(0)),
        }
    }

    fn counted(&self, summary: &Summary, stats: &Stats) -> Option<f64> {
        let failover = summary.failover.as_ref();
        let times = |of: fn(&Histogram<u64>, f64) -> f64, percentile: f64| {
            let pair = self.pair.or_else(|| summary.overall_pair())?;
            let all = stats.pair(pair).with_losses();
            (!all.is_empty()).then(|| of(&all, percentile))
        };
        match self.measure {
            Measure::Percentile(percentile) => {
                times(|all, percentile| micros(all.value_at_percentile(percentile)), percentile)
            }
            Measure::Mean => times(|all, _| all.mean() / 1e3, 0.0),
            Measure::Max => times(|all, _| micros(all.max()), 0.0),
            Measure::Loss => match self.pair {
                None => Some(summary.loss * 100.0),
                Some(pair) => {
                    let (lost, answered) =
                        (stats.pair(pair).timed_out.len(), stats.pair(pair).answered.len());
                    (lost + answered > 0).then(|| ratio(lost, lost + answered) * 100.0)
                }
            },
            Measure::Rate => match self.pair {
                None => Some(summary.exchanges_per_s),
                Some(pair) => (summary.duration_s > 0.0)
                    .then(|| float(stats.answered_in_time(pair)) / summary.duration_s),
            },
            Measure::Takeover => failover?.takeover_ms.map(|ms| ms * 1e3),
            Measure::Outage => failover.map(|report| report.outage_ms * 1e3),
        }
    }
}

fn read_name(name: &str) -> Result<(Option<Pair>, Measure), String> {
    if let Some(measure) = read_measure(name) {
        return Ok((None, measure));
    }
    let (pair, measure) = name.split_once('.').unwrap_or((name, ""));
    let known = read_pair(pair).ok_or_else(|| {
        if measure.is_empty() {
            format!(
                "{name:?} is not measured: p50, p99.9, mean, max, loss, rate, takeover or outage"
            )
        } else {
            let names: Vec<&str> = Pair::ALL.iter().map(|pair| short(*pair)).collect();
            format!("{pair:?} is no pair of messages: {}", names.join(", "))
        }
    })?;
    let measure = read_measure(measure).ok_or_else(|| {
        format!("{measure:?} is not measured: p50, p99.9, mean, max, loss or rate")
    })?;
    Ok((Some(known), measure))
}

fn read_measure(text: &str) -> Option<Measure> {
    Some(match text {
        "mean" => Measure::Mean,
        "max" => Measure::Max,
        "loss" => Measure::Loss,
        "rate" => Measure::Rate,
        "takeover" => Measure::Takeover,
        "outage" => Measure::Outage,
        _ => {
            let digits = text.strip_prefix('p')?;
            if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit() || c == b'.') {
                return None;
            }
            // p999 has always been p99.9.
            let spelt = match digits.strip_prefix("99") {
                Some(more) if !more.is_empty() && !digits.contains('.') => format!("99.{more}"),
                _ => digits.into(),
            };
            let percentile: f64 = spelt.parse().ok()?;
            (percentile <= 100.0).then_some(Measure::Percentile(percentile))?
        }
    })
}

/// The name of a pair in objectives.
#[must_use]
pub fn short(pair: Pair) -> &'static str {
    match pair {
        Pair::SolicitAdvertise => "advertise",
        Pair::RequestReply => "reply",
        other => other.as_str().strip_suffix("_reply").unwrap_or(other.as_str()),
    }
}

fn read_pair(text: &str) -> Option<Pair> {
    Pair::ALL.iter().copied().find(|pair| short(*pair) == text || pair.as_str() == text)
}

fn factor(measure: Measure, unit: &str) -> Result<f64, String> {
    let (factor, wanted) = match measure {
        Measure::Loss => ((unit == "%").then_some(1.0), "%"),
        Measure::Rate => (matches!(unit, "" | "/s").then_some(1.0), "no unit"),
        _ => {
            let factor = match unit {
                "us" => Some(1.0),
                "ms" => Some(1e3),
                "s" => Some(1e6),
                _ => None,
            };
            (factor, "us, ms or s")
        }
    };
    factor.ok_or_else(|| format!("its limit has the unit {unit:?}, not {wanted}"))
}

impl Slo {
    /// What became of each objective.
    #[must_use]
    pub fn judge(&self, summary: &Summary, stats: &Stats) -> Vec<ObjectiveReport> {
        self.0.iter().map(|objective| objective.judge(summary, stats)).collect()
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, objective) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}", objective.text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::tests::{failed_over, sample};

    #[test]
    fn objectives_are_read_with_their_units() {
        let slo: Slo = "p99<2ms, loss<0.1%,rate>1000,max<=1.5s,reply.p99.95<300us".parse().unwrap();
        let limits: Vec<_> = slo.0.iter().map(|objective| objective.limit).collect();
        assert_eq!(limits, [2000.0, 0.1, 1000.0, 1_500_000.0, 300.0]);
        assert_eq!(slo.to_string(), "p99<2ms,loss<0.1%,rate>1000,max<=1.5s,reply.p99.95<300us");
        let of = |text: &str| {
            let slo: Slo = text.parse().unwrap();
            (slo.0[0].pair, slo.0[0].measure)
        };
        assert_eq!(of("p999<1s"), (None, Measure::Percentile(99.9)));
        assert_eq!(of("p99.9<1s"), (None, Measure::Percentile(99.9)));
        assert_eq!(of("p9999<1s"), (None, Measure::Percentile(99.99)));
        let advertise = Some(Pair::SolicitAdvertise);
        assert_eq!(of("advertise.p99.9<500us"), (advertise, Measure::Percentile(99.9)));
        assert_eq!(of("solicit_advertise.loss<1%"), (advertise, Measure::Loss));
        assert_eq!(of("renew.max<1s"), (Some(Pair::RenewReply), Measure::Max));
        assert_eq!(of("renewal.mean<1s"), (Some(Pair::Renewal), Measure::Mean));
        for bad in [
            "",
            "p99",
            "p99<2",
            "p99>2ms",
            "loss<1",
            "rate<5",
            "p101<2ms",
            "p99<-1ms",
            "p99<xms",
            "p<1s",
            "p99<1e400s",
            "p99<nanms",
            "foo.p99<1s",
            "reply.<1s",
            "reply<1s",
            "reply.takeover<1s",
            "p99<2ms,",
            "p1.2.3<1s",
            "p99=<1s",
        ] {
            let error = bad.parse::<Slo>().expect_err(bad).to_string();
            assert!(error.contains("is no objective: "), "{error}");
        }
        let error = "repyl.p99<1ms".parse::<Slo>().unwrap_err().to_string();
        assert!(error.contains("advertise, reply, solicit, renew"), "{error}");
    }

    #[test]
    fn every_pair_has_a_name_of_its_own() {
        for pair in Pair::ALL {
            assert_eq!(read_pair(short(*pair)), Some(*pair));
            assert_eq!(read_pair(pair.as_str()), Some(*pair));
            assert_eq!(read_measure(short(*pair)), None);
        }
    }

    /// 998 exchanges below 230 us and two losses after 1 s, at 498 exchanges/s.
    #[test]
    fn losses_and_what_was_not_measured_miss() {
        let (mut summary, stats) = sample();
        summary.failover = Some(failed_over());
        let judge = |summary: &Summary, text: &str| {
            let reports = text.parse::<Slo>().unwrap().judge(summary, &stats);
            reports.iter().map(|report| report.met).collect::<Vec<_>>()
        };
        for met in [
            "p99<230us",
            "max<1.1s",
            "loss<0.3%",
            "rate>497",
            "reply.p99<200us",
            "advertise.max<30us",
            "reply.loss<=0.2%",
            "advertise.loss<=0%",
            "reply.rate>=499",
            "takeover<251ms",
            "takeover<=250ms",
            "outage<1s",
            "mean<3ms",
        ] {
            assert_eq!(judge(&summary, met), [true], "{met}");
        }
        for missed in [
            "p99.9<500ms",
            "reply.p99.9<500ms",
            "max<1s",
            "loss<0.1%",
            "rate>498.5",
            "renew.p99<1s",
            "renew.loss<1%",
            "takeover<250ms",
            "outage<250ms",
            "reply.loss<0.2%",
        ] {
            assert_eq!(judge(&summary, missed), [false], "{missed}");
        }
        let mut late = stats.clone();
        late.load_ends();
        (0..500).for_each(|_| late.answered(Pair::RequestReply, 5_000));
        let report = &"reply.rate>1".parse::<Slo>().unwrap().judge(&summary, &late)[0];
        assert!(
            report.measured.unwrap() < 500.0,
            "answers after the load make no rate: {report:?}"
        );
        summary.valid = false;
        assert_eq!(judge(&summary, "p99<1s,loss<1%"), [false, false], "figures of the generator");
        summary.failover = None;
        assert_eq!(judge(&summary, "takeover<100s"), [false]);
    }

    #[test]
    fn a_summary_alone_is_judged_by_what_stands_in_it() {
        let (summary, stats) = sample();
        let judge = |text: &str, stats: &Stats| {
            let report = text.parse::<Slo>().unwrap().judge(&summary, stats).remove(0);
            report.measured
        };
        for text in [
            "p50<1s",
            "p99<1s",
            "reply.p99.9<5s",
            "advertise.max<1s",
            "p100<5s",
            "mean<1s",
            "loss<1%",
            "reply.loss<1%",
            "rate>1",
            "reply.rate>1",
        ] {
            let (with, without) = (judge(text, &stats).unwrap(), judge(text, &Stats::new(0)));
            let without = without.unwrap_or(f64::NAN);
            assert!((with - without).abs() <= with * 1e-3, "{text}: {with} {without}");
        }
        for text in ["p95<1s", "renew.p99<1s", "renew.loss<1%", "takeover<1s"] {
            assert_eq!(judge(text, &Stats::new(0)), None, "{text}");
        }
    }

    fn objective() -> impl Strategy<Value = (String, f64)> {
        let pairs: Vec<Option<Pair>> = Pair::ALL.iter().copied().map(Some).chain([None]).collect();
        let time = prop_oneof![Just(("us", 1.0)), Just(("ms", 1e3)), Just(("s", 1e6))];
        let name = prop_oneof![
            (0_u32..=10_000).prop_map(|p| format!("p{}", f64::from(p) / 100.0)),
            Just("max".to_owned()),
            Just("mean".to_owned()),
        ];
        let timed = (name, time).prop_map(|(name, (unit, factor))| (name, '<', unit, factor));
        let measure = prop_oneof![
            timed,
            Just(("loss".to_owned(), '<', "%", 1.0)),
            Just(("rate".to_owned(), '>', "", 1.0)),
        ];
        (prop::sample::select(pairs), any::<bool>(), measure, any::<bool>(), 0.0..1e9_f64).prop_map(
            |(pair, long, (name, relation, unit, factor), or_equal, number)| {
                let pair = pair.map_or_else(String::new, |pair| {
                    format!("{}.", if long { pair.as_str() } else { short(pair) })
                });
                let equal = if or_equal { "=" } else { "" };
                (format!("{pair}{name}{relation}{equal}{number}{unit}"), number * factor)
            },
        )
    }

    proptest! {
        #[test]
        fn what_the_grammar_makes_is_read(list in prop::collection::vec(objective(), 1..6)) {
            let texts: Vec<&str> = list.iter().map(|(text, _)| text.as_str()).collect();
            let slo: Slo = texts.join(" , ").parse().unwrap();
            prop_assert_eq!(slo.to_string(), texts.join(","));
            for (objective, (_, limit)) in slo.0.iter().zip(&list) {
                prop_assert_eq!(objective.limit, *limit);
            }
            prop_assert_eq!(slo.to_string().parse::<Slo>().unwrap(), slo);
        }

        #[test]
        fn nothing_makes_it_panic(text in "[a-z0-9.,<>=% _µ-]{0,24}") {
            if let Ok(slo) = text.parse::<Slo>() {
                // What was read can be written down and read again.
                prop_assert_eq!(slo.to_string().parse::<Slo>().unwrap(), slo);
            }
        }
    }
}
