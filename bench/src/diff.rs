//! `gemel-bench diff`: two runs, or two sets of repetitions, side by side.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use serde::Serialize;

use crate::{
    number::float,
    report::{PairReport, Percentiles, Summary, grouped, pairs, time},
    stats::Pair,
    stored::{Stored, StoredError, read_runs},
};

/// What is to be compared.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// The first run: a folder of --out, or a folder with the folders of its repetitions.
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The second one.
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Print the comparison as JSON on the last line.
    #[arg(long)]
    json: bool,
}

/// Two sets of runs side by side.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The runs of the first set.
    pub a: Vec<String>,
    /// Those of the second one.
    pub b: Vec<String>,
    /// What has to be known to read the figures.
    pub notes: Vec<String>,
    /// The figures.
    pub rows: Vec<Row>,
}

/// A figure of both.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub metric: String,
    /// `us`, `%` or `/s`.
    pub unit: &'static str,
    /// In the first set.
    pub a: Sample,
    /// In the second one.
    pub b: Sample,
    /// Mean of the second one over that of the first; none if there is nothing to divide.
    pub ratio: Option<f64>,
    /// What to make of it.
    pub verdict: Verdict,
}

/// A figure of a set of runs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sample {
    /// Run by run.
    pub values: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation; none of a single run.
    pub deviation: Option<f64>,
}

/// Whether a difference means something.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The second is better, by more than the spread.
    Better,
    /// The second is worse, by more than the spread.
    Worse,
    /// The difference is no larger than what repetitions differ by.
    WithinSpread,
    /// There is one run of each, so nobody knows what repetitions differ by.
    SpreadUnknown,
    /// Only one of the two has it.
    OneSided,
}

impl Verdict {
    fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "WORSE",
            Self::WithinSpread => "within the spread",
            Self::SpreadUnknown => "",
            Self::OneSided => "only one has it",
        }
    }
}

/// Two-sided 95 % quantiles of Student's t by degrees of freedom, from 1 on.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

fn t_quantile(freedom: f64) -> f64 {
    // Fewer degrees of freedom make the limit wider, so rounding down is on the safe side.
    let freedom = crate::number::whole(freedom.floor().max(1.0));
    let place = usize::try_from(freedom - 1).unwrap_or(usize::MAX);
    T.get(place).copied().unwrap_or(T[29])
}

impl Sample {
    fn new(values: Vec<f64>) -> Self {
        let count = float(values.len() as u64);
        let mean = if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / count };
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt());
        Self { values, mean, deviation }
    }
}

/// Whether two samples differ by more than their spread: Welch's t-test at 95 %. A single run is
/// taken to spread as the other set does.
fn beyond_spread(a: &Sample, b: &Sample) -> Option<bool> {
    let of = |own: &Sample, other: &Sample| {
        let deviation = own.deviation.or(other.deviation)?;
        Some((deviation.powi(2) / float(own.values.len() as u64), own.values.len()))
    };
    let ((va, na), (vb, nb)) = (of(a, b)?, of(b, a)?);
    let variance = va + vb;
    let difference = (a.mean - b.mean).abs();
    if variance <= 0.0 {
        return Some(difference > 0.0);
    }
    let part = |v: f64, n: usize| if n > 1 { v * v / float(n as u64 - 1) } else { 0.0 };
    let freedom = match (na, nb) {
        (1, n) | (n, 1) => float(n as u64 - 1),
        _ => variance * variance / (part(va, na) + part(vb, nb)),
    };
    Some(difference > t_quantile(freedom) * variance.sqrt())
}

fn verdict(a: &Sample, b: &Sample, higher_is_better: bool) -> Verdict {
    if a.values.is_empty() || b.values.is_empty() {
        return Verdict::OneSided;
    }
    match beyond_spread(a, b) {
        None => Verdict::SpreadUnknown,
        Some(false) => Verdict::WithinSpread,
        Some(true) if (b.mean > a.mean) == higher_is_better => Verdict::Better,
        Some(true) => Verdict::Worse,
    }
}

/// Compares two sets of runs.
#[must_use]
pub fn compare(a: &[Stored], b: &[Stored]) -> Comparison {
    let mut rows = Vec::new();
    let mut row = |metric: &str, unit, higher, of: &dyn Fn(&Stored) -> Option<f64>| {
        let sample = |runs: &[Stored]| {
            let values: Option<Vec<f64>> = runs.iter().map(of).collect();
            Sample::new(values.unwrap_or_default())
        };
        let (a, b) = (sample(a), sample(b));
        if a.values.is_empty() && b.values.is_empty() {
            return;
        }
        let both = !a.values.is_empty() && !b.values.is_empty();
        let ratio = (both && a.mean > 0.0).then(|| b.mean / a.mean);
        let verdict = verdict(&a, &b, higher);
        rows.push(Row { metric: metric.into(), unit, a, b, ratio, verdict });
    };
    let figure = |of: fn(&Summary) -> f64| move |run: &Stored| run.summary.as_ref().map(of);
    row("exchanges", "/s", true, &figure(|summary| summary.exchanges_per_s));
    row("offered", "/s", true, &figure(|summary| summary.started_per_s));
    row("loss", "%", false, &figure(|summary| summary.loss * 100.0));
    for pair in Pair::ALL {
        for (name, of) in PERCENTILES {
            let metric = format!("{} {name}", pair.title());
            row(&metric, "us", false, &|run| {
                times(run).get(pair.as_str()).map(|report| of(&report.with_losses))
            });
        }
    }
    row("lag of the generator p99", "us", false, &figure(|summary| summary.lag.p99_us));
    let failover = |run: &Stored| run.summary.as_ref().and_then(|summary| summary.failover.clone());
    row("takeover", "us", false, &|run| Some(failover(run)?.takeover_ms? * 1e3));
    row("longest silence", "us", false, &|run| Some(failover(run)?.outage_ms * 1e3));
    let names = |runs: &[Stored]| runs.iter().map(|run| run.name.clone()).collect();
    Comparison { a: names(a), b: names(b), notes: notes(a, b), rows }
}

type OfPercentiles = fn(&Percentiles) -> f64;

const PERCENTILES: [(&str, OfPercentiles); 5] = [
    ("p50", |times| times.p50_us),
    ("p90", |times| times.p90_us),
    ("p99", |times| times.p99_us),
    ("p99.9", |times| times.p999_us),
    ("max", |times| times.max_us),
];

/// Percentiles of a run: those of its summary, which are exact.
fn times(run: &Stored) -> BTreeMap<String, PairReport> {
    run.summary.as_ref().map_or_else(|| pairs(&run.stats), |summary| summary.pairs.clone())
}

fn notes(a: &[Stored], b: &[Stored]) -> Vec<String> {
    let mut notes = Vec::new();
    for run in a.iter().chain(b) {
        let Some(summary) = &run.summary else {
            notes.push(format!("{} has no summary.json, only times", run.name));
            continue;
        };
        if !summary.passed {
            notes.push(format!("{}: the server broke the rules", run.name));
        }
        if !summary.valid {
            let reasons = summary.invalid_reasons.join("; ");
            notes.push(format!("{} is not valid: {reasons}", run.name));
        }
        if summary.interrupted {
            notes.push(format!("{} was interrupted", run.name));
        }
    }
    let of = |runs: &[Stored]| runs.iter().find_map(|run| run.summary.as_ref().map(settings));
    if let (Some(a), Some(b)) = (of(a), of(b)) {
        for ((name, a), (_, b)) in a.into_iter().zip(b).filter(|(a, b)| a != b) {
            notes.push(format!("{name} differs: {a} and {b}"));
        }
    }
    notes
}

/// What has to be alike for figures to be comparable.
fn settings(summary: &Summary) -> Vec<(&'static str, String)> {
    let (setup, environment) = (&summary.setup, &summary.environment);
    let pace = match (setup.rate, setup.window) {
        (Some(rate), _) => format!("{rate} exchanges/s"),
        (_, Some(window)) => format!("{window} outstanding"),
        _ => "unknown".into(),
    };
    vec![
        ("pace", pace),
        ("number of clients", setup.clients.to_string()),
        ("what is asked for", setup.ia.clone()),
        ("rapid commit", setup.rapid_commit.to_string()),
        ("share of renewals", setup.renew_share.to_string()),
        ("number of relay agents", setup.relay_depth.to_string()),
        ("time-out", format!("{} ms", setup.timeout_ms)),
        ("sent again", setup.sent_again()),
        ("mode", summary.mode.clone()),
        ("processor", format!("{}, {} cores", environment.cpu, environment.cores)),
        ("kernel", environment.kernel.clone()),
        ("driver", environment.driver.clone()),
        ("version of gemel-bench", summary.version.clone()),
    ]
}

impl Comparison {
    /// The comparison for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        // A String takes everything, here and below.
        for (letter, runs) in [("A", &self.a), ("B", &self.b)] {
            let _ = writeln!(out, "{letter}  {}", runs.join(", "));
        }
        for note in &self.notes {
            let _ = writeln!(out, "!  {note}");
        }
        let _ = writeln!(out, "\n{:<42} {:>20} {:>20} {:>8}", "", "A", "B", "B/A");
        for row in &self.rows {
            let ratio = row.ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}"));
            let line = format!(
                "{:<42} {:>20} {:>20} {ratio:>8}  {}",
                row.metric,
                show(&row.a, row.unit),
                show(&row.b, row.unit),
                row.verdict.words()
            );
            let _ = writeln!(out, "{}", line.trim_end());
        }
        let words = if self.a.len() > 1 || self.b.len() > 1 {
            "± is the standard deviation of the repetitions. Better and worse: by more than the \
             spread (Welch's t-test, 95 %)."
        } else {
            "One run of each: whether a difference is more than chance, repetitions would tell."
        };
        let _ = writeln!(out, "\n{words}");
        out
    }
}

fn show(sample: &Sample, unit: &str) -> String {
    if sample.values.is_empty() {
        return "–".into();
    }
    let one = |value: f64| match unit {
        "us" => time(value),
        "%" => format!("{value:.4} %"),
        _ => format!("{}/s", grouped(crate::number::whole(value))),
    };
    match sample.deviation {
        None => one(sample.mean),
        Some(deviation) => format!("{} ± {}", one(sample.mean), one(deviation)),
    }
}

/// Compares what lies at two paths and prints it.
///
/// # Errors
/// If a path cannot be read.
pub fn diff(args: &DiffArgs) -> anyhow::Result<()> {
    let read = |path: &PathBuf| -> Result<Vec<Stored>, StoredError> { read_runs(path) };
    let comparison = compare(&read(&args.a)?, &read(&args.b)?);
    print!("{}", comparison.text());
    if args.json {
        println!("{}", serde_json::to_string(&comparison)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample as sample_run;

    fn run(name: &str, per_s: f64) -> Stored {
        let (mut summary, stats) = sample_run();
        summary.exchanges_per_s = per_s;
        let reply = summary.pairs.get_mut("request_reply").unwrap();
        reply.with_losses.p50_us = 1e6 / per_s;
        Stored { name: name.into(), summary: Some(summary), stats, coarse: false }
    }

    fn runs(rates: &[f64]) -> Vec<Stored> {
        rates.iter().map(|rate| run("r", *rate)).collect()
    }

    fn row<'a>(comparison: &'a Comparison, metric: &str) -> &'a Row {
        comparison.rows.iter().find(|row| row.metric == metric).expect(metric)
    }

    #[test]
    fn a_difference_beyond_the_spread_is_told() {
        let (a, b) = (runs(&[1000.0, 1010.0, 990.0]), runs(&[1200.0, 1190.0, 1210.0]));
        let comparison = compare(&a, &b);
        let rate = row(&comparison, "exchanges");
        assert_eq!(rate.verdict, Verdict::Better);
        assert!((rate.ratio.unwrap() - 1.2).abs() < 1e-9);
        assert_eq!(rate.a.deviation, Some(10.0));
        assert_eq!(row(&comparison, "REQUEST → REPLY p50").verdict, Verdict::Better, "lower");
        assert_eq!(row(&compare(&b, &a), "exchanges").verdict, Verdict::Worse);
        assert_eq!(row(&compare(&b, &a), "REQUEST → REPLY p50").verdict, Verdict::Worse);
        assert_eq!(row(&comparison, "loss").verdict, Verdict::WithinSpread, "the same");
    }

    #[test]
    fn a_difference_within_the_spread_is_none() {
        let comparison = compare(&runs(&[1000.0, 1100.0, 900.0]), &runs(&[1050.0, 1150.0, 950.0]));
        assert_eq!(row(&comparison, "exchanges").verdict, Verdict::WithinSpread);
        assert!(comparison.text().contains("within the spread"));
    }

    #[test]
    fn one_run_of_each_gives_no_verdict() {
        let comparison = compare(&runs(&[1000.0]), &runs(&[2000.0]));
        assert!(comparison.rows.iter().all(|row| row.verdict == Verdict::SpreadUnknown));
        let text = comparison.text();
        assert!(text.contains("repetitions would tell") && text.contains("2.000"), "{text}");
        // With repetitions on one side their spread serves for both.
        let one_sided = compare(&runs(&[1000.0, 1010.0, 990.0, 1000.0]), &runs(&[2000.0]));
        assert_eq!(row(&one_sided, "exchanges").verdict, Verdict::Better);
        let near = compare(&runs(&[1000.0, 1010.0, 990.0, 1000.0]), &runs(&[1015.0]));
        assert_eq!(row(&near, "exchanges").verdict, Verdict::WithinSpread);
    }

    /// Figures of Welch's test worked out by hand: variances 4 and 16 of three runs each, so the
    /// standard error is sqrt(20/3) = 2.582 and there are 2.94 degrees of freedom, taken for 2.
    #[test]
    fn the_limit_is_that_of_welch() {
        let a = Sample::new(vec![98.0, 100.0, 102.0]);
        let limit = 4.303 * (20.0_f64 / 3.0).sqrt();
        for (shift, beyond) in [(limit - 0.01, false), (limit + 0.01, true)] {
            let values = [-4.0, 0.0, 4.0].map(|v| 100.0 + shift + v);
            assert_eq!(beyond_spread(&a, &Sample::new(values.into())), Some(beyond), "{shift}");
        }
        assert_eq!(t_quantile(0.2), 12.706);
        assert_eq!(t_quantile(1e9), 2.042);
    }

    #[test]
    fn what_cannot_be_compared_is_noted() {
        let (a, mut b) = (runs(&[1000.0]), runs(&[1000.0]));
        let summary = b[0].summary.as_mut().unwrap();
        summary.setup.clients = 7;
        summary.valid = false;
        summary.invalid_reasons = vec!["late".into()];
        summary.pairs.remove("exchange");
        let comparison = compare(&a, &b);
        assert_eq!(
            comparison.notes,
            ["r is not valid: late", "number of clients differs: 1000 and 7"]
        );
        assert_eq!(row(&comparison, "whole exchange p50").verdict, Verdict::OneSided);
        b[0].summary = None;
        let comparison = compare(&a, &b);
        assert_eq!(row(&comparison, "exchanges").verdict, Verdict::OneSided);
        assert_eq!(row(&comparison, "REQUEST → REPLY p50").b.values.len(), 1);
        assert!(serde_json::to_string(&comparison).unwrap().contains("\"verdict\":\"one_sided\""));
    }
}
