//! `gemel ctl histogram`: where the time goes, for people and for plotters.

use std::io::{self, Write};

use anyhow::{Result, bail};
use gemel_worker::stages::{self, Stage};
use hdrhistogram::Histogram;

use crate::stages::StageView;

/// What to show.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct HistogramArgs {
    /// One stage alone
    #[arg(long, value_name = "STAGE", value_parser = stage_names())]
    pub stage: Option<String>,
    /// One worker alone: its name, or its place in the list, from 0
    #[arg(long, value_name = "WORKER")]
    pub worker: Option<String>,
    /// The percentile text that HdrHistogram's plotter reads, in microseconds; needs --stage
    #[arg(long, requires = "stage")]
    pub hgrm: bool,
    /// Begins anew after this answer
    #[arg(long)]
    pub reset: bool,
}

fn stage_names() -> clap::builder::PossibleValuesParser {
    Stage::ALL.iter().map(|stage| stage.as_str()).collect::<Vec<_>>().into()
}

impl HistogramArgs {
    /// The question to the server.
    #[must_use]
    pub fn command(&self) -> String {
        if self.reset { "histogram reset" } else { "histogram" }.to_owned()
    }
}

/// Writes the server's answer as `args` asks for it; `json` writes the chosen lines as they came.
///
/// # Errors
/// If there is no such worker, or the writer fails.
pub fn write(
    out: &mut dyn Write,
    views: &[StageView],
    args: &HistogramArgs,
    json: bool,
) -> Result<()> {
    let worker = args.worker.as_deref().map(|worker| find_worker(views, worker)).transpose()?;
    let chosen: Vec<&StageView> = views
        .iter()
        .filter(|view| args.stage.as_ref().is_none_or(|stage| view.stage == *stage))
        .filter(|view| worker.is_none_or(|worker| view.worker == worker))
        .collect();
    if json {
        for view in chosen {
            writeln!(out, "{}", serde_json::to_string(view)?)?;
        }
    } else if args.hgrm {
        let is_time = chosen.first().is_none_or(|view| view.unit == "ns");
        write_hgrm(out, &merge(&chosen), if is_time { 1000.0 } else { 1.0 })?;
    } else {
        write_table(out, &chosen)?;
    }
    Ok(())
}

/// The worker that is called `wanted`, or stands at that place.
fn find_worker<'v>(views: &'v [StageView], wanted: &str) -> Result<&'v str> {
    let mut names: Vec<&str> = Vec::new();
    for view in views {
        if !names.contains(&view.worker.as_str()) {
            names.push(&view.worker);
        }
    }
    let place: Option<usize> = wanted.parse().ok();
    let found = names
        .iter()
        .find(|name| **name == wanted)
        .or_else(|| place.and_then(|place| names.get(place)));
    match found {
        Some(name) => Ok(name),
        None => bail!("no worker {wanted:?}; there are {}", names.join(", ")),
    }
}

/// The sum of some histograms.
fn merge(views: &[&StageView]) -> Histogram<u64> {
    let mut sum = stages::histogram();
    for (value, count) in views.iter().flat_map(|view| &view.values) {
        sum.saturating_record_n(*value, *count);
    }
    sum
}

/// The columns of the table.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

fn write_table(out: &mut dyn Write, views: &[&StageView]) -> io::Result<()> {
    write!(out, "{:<16} {:<14} {:>12} {:>9}", "stage", "worker", "count", "mean")?;
    for (name, _) in QUANTILES {
        write!(out, " {name:>9}")?;
    }
    writeln!(out, " {:>9}", "max")?;
    for stage in Stage::ALL {
        let of_stage: Vec<&StageView> =
            views.iter().copied().filter(|view| view.stage == stage.as_str()).collect();
        if of_stage.len() > 1 {
            write_row(out, *stage, "all", &merge(&of_stage))?;
        }
        for view in &of_stage {
            write_row(out, *stage, &view.worker, &merge(&[view]))?;
        }
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of u64")]
fn write_row(
    out: &mut dyn Write,
    stage: Stage,
    worker: &str,
    histogram: &Histogram<u64>,
) -> io::Result<()> {
    let show = |value| if stage.is_time() { time(value) } else { format!("{value}") };
    let (name, count) = (stage.as_str(), histogram.len());
    write!(out, "{name:<16} {worker:<14} {count:>12} {:>9}", show(histogram.mean() as u64))?;
    for (_, quantile) in QUANTILES {
        write!(out, " {:>9}", show(histogram.value_at_quantile(quantile)))?;
    }
    writeln!(out, " {:>9}", show(histogram.max()))
}

/// A time with three digits or so and its unit.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn time(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// The percentile text of HdrHistogram, values divided by `unit`.
fn write_hgrm(out: &mut dyn Write, histogram: &Histogram<u64>, unit: f64) -> io::Result<()> {
    let [value, percentile, total, inverse] =
        ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"];
    writeln!(out, "{value:>12} {percentile:>17} {total:>10} {inverse:>17}\n")?;
    let mut seen = 0;
    for step in histogram.iter_quantiles(5) {
        seen += step.count_since_last_iteration();
        #[expect(clippy::cast_precision_loss, reason = "three decimals are shown")]
        let value = step.value_iterated_to() as f64 / unit;
        let quantile = step.quantile_iterated_to();
        let inverse = if quantile < 1.0 {
            format!("{:.2}", 1.0 / (1.0 - quantile))
        } else {
            "inf".to_owned()
        };
        writeln!(out, "{value:12.3} {quantile:17.12} {seen:10} {inverse:>17}")?;
    }
    let (mean, deviation) = (histogram.mean() / unit, histogram.stdev() / unit);
    writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]")?;
    #[expect(clippy::cast_precision_loss, reason = "three decimals are shown")]
    let max = histogram.max() as f64 / unit;
    let count = histogram.len();
    writeln!(out, "#[Max     = {max:12.3}, Total count    = {count:12}]")?;
    let (buckets, slots) = (histogram.buckets(), histogram.distinct_values());
    writeln!(out, "#[Buckets = {buckets:12}, SubBuckets     = {slots:12}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(worker: &str, stage: Stage, values: &[(u64, u64)]) -> StageView {
        StageView {
            worker: worker.to_owned(),
            stage: stage.as_str().to_owned(),
            unit: if stage.is_time() { "ns" } else { "records" }.to_owned(),
            values: values.to_vec(),
        }
    }

    fn views() -> Vec<StageView> {
        vec![
            view("eth1/0", Stage::Rules, &[(800, 90), (2_000, 10)]),
            view("eth1/1", Stage::Rules, &[(1_000, 100)]),
            view("control", Stage::Sync, &[(1_500_000, 5)]),
            view("control", Stage::SyncRecords, &[(64, 5)]),
        ]
    }

    fn written(args: &HistogramArgs, json: bool) -> String {
        let mut out = Vec::new();
        write(&mut out, &views(), args, json).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_table_merges_workers() {
        let text = written(&HistogramArgs::default(), false);
        let rows: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows.len(), 6, "{text}");
        assert_eq!(rows[1][..3], ["rules", "all", "200"]);
        assert_eq!(rows[2][..3], ["rules", "eth1/0", "100"]);
        assert_eq!(rows[4][..4], ["sync", "control", "5", "1.50"]);
        assert_eq!(
            rows[5],
            ["sync_records", "control", "5", "64", "64", "64", "64", "64", "64", "64"]
        );
    }

    #[test]
    fn stage_and_worker_choose() {
        let stage = Some("rules".to_owned());
        let by_name = HistogramArgs {
            stage: stage.clone(),
            worker: Some("eth1/1".to_owned()),
            ..HistogramArgs::default()
        };
        assert_eq!(written(&by_name, true).lines().count(), 1);
        let by_place = HistogramArgs { worker: Some("1".to_owned()), ..by_name.clone() };
        assert_eq!(written(&by_place, true), written(&by_name, true));
        let nobody = HistogramArgs { worker: Some("eth9/0".to_owned()), ..by_name };
        let error = write(&mut Vec::new(), &views(), &nobody, false).unwrap_err().to_string();
        assert!(error.contains("eth1/0, eth1/1, control"), "{error}");
    }

    #[test]
    fn the_percentile_text_counts_everything_and_ends_at_one() {
        let args = HistogramArgs {
            stage: Some("rules".to_owned()),
            hgrm: true,
            ..HistogramArgs::default()
        };
        let text = written(&args, false);
        let last = text.lines().rfind(|line| !line.starts_with('#')).unwrap();
        let columns: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(columns[1..], ["1.000000000000", "200", "inf"]);
        let max: f64 = columns[0].parse().unwrap();
        assert!((1.99..2.03).contains(&max), "{text}");
    }

    #[test]
    fn times_have_units() {
        for (ns, text) in
            [(7, "7 ns"), (1_234, "1.23 us"), (56_700_000, "56.7 ms"), (12_000_000_000, "12.0 s")]
        {
            assert_eq!(time(ns), text);
        }
    }
}
