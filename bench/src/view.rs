//! `gemel-bench view`: the report of stored runs.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::{
    number::{float, ratio, whole},
    record::{Second, joined, set_percentiles},
    report::{self, Percentiles, ServerReport, Summary},
    slo::Slo,
    stats::{Counter, Stats},
    stored::{Stored, read_runs},
    times::Times,
};

/// What is to be shown, and how.
#[derive(Debug, clap::Args)]
pub struct ViewArgs {
    /// Folders of --out, folders of such folders, or single .json, .hlog and .hgrm files; several are
    /// put together.
    #[arg(value_name = "FILE|DIR", required = true)]
    paths: Vec<PathBuf>,
    /// Write the page to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Objectives to judge the run by; missing one makes the exit status 3.
    #[arg(long, value_name = "LIST")]
    slo: Option<Slo>,
    /// Print the summary as JSON on the last line.
    #[arg(long)]
    json: bool,
}

/// Shows stored runs; returns the summary, if there was one.
///
/// # Errors
/// If something cannot be read or written, or runs cannot be put together.
pub fn view(args: &ViewArgs) -> anyhow::Result<Option<Summary>> {
    let mut runs = Vec::new();
    for path in &args.paths {
        runs.extend(read_runs(path)?);
    }
    let coarse = runs.iter().any(|run| run.coarse);
    let mut run = merge(runs)?;
    if coarse {
        println!("read from percentiles: between them, times are as coarse as those");
    }
    let Some(summary) = &mut run.summary else {
        if args.html.is_some() || args.json || args.slo.is_some() {
            bail!("{} has no summary.json: there are only times in it", run.name);
        }
        println!("{}", report::times_text(&run.stats));
        return Ok(None);
    };
    if let Some(slo) = &args.slo {
        summary.objectives = slo.judge(summary, &run.stats);
    }
    if !summary.merged.is_empty() {
        println!("{} runs together: {}", summary.merged.len(), summary.merged.join(", "));
    }
    println!("{}", report::text(summary, &run.stats));
    if let Some(path) = &args.html {
        write_page(path, summary, &run.stats)?;
    }
    if args.json {
        println!("{}", serde_json::to_string(summary)?);
    }
    Ok(run.summary)
}

fn write_page(path: &Path, summary: &Summary, stats: &Stats) -> anyhow::Result<()> {
    fs::write(path, report::page(summary, stats))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("report {}", path.display());
    Ok(())
}

/// Puts runs together: counts and times add up. Rates are over the time in which any of them ran, so
/// those of generators that ran side by side add up, and those of repetitions are averaged.
///
/// # Errors
/// If some have a summary and some have not, or if there are figures without their times: percentiles
/// cannot be added up.
pub fn merge(mut runs: Vec<Stored>) -> anyhow::Result<Stored> {
    if runs.len() <= 1 {
        return runs.pop().context("there is no run");
    }
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    let with_summary = runs.iter().filter(|run| run.summary.is_some()).count();
    if with_summary != 0 && with_summary != runs.len() {
        let without = runs.iter().find(|run| run.summary.is_none());
        let name = without.map_or("", |run| run.name.as_str());
        bail!("{name} has no summary.json, the others have: put together what is of a kind");
    }
    if let Some(run) = runs.iter().find(|run| !run.has_times()) {
        bail!(
            "{} has percentiles only, which cannot be put together: run.hlog has the times, and lies \
             beside summary.json in the folder of --out",
            run.name
        );
    }
    let mut stats = Stats::new(0);
    for run in &runs {
        stats.merge(&run.stats);
    }
    let summaries: Vec<&Summary> = runs.iter().filter_map(|run| run.summary.as_ref()).collect();
    let offsets = offsets(&summaries);
    stats.set_seconds(side_by_side(&runs, &offsets));
    let summary = summaries.split_first().map(|(first, _)| {
        let mut all = add_up(first, &summaries, &names, &stats);
        all.series.clone_from(&stats.series);
        all
    });
    let coarse = runs.iter().any(|run| run.coarse);
    Ok(Stored { name: names.join(", "), summary, stats, coarse })
}

fn overlap(summaries: &[&Summary]) -> bool {
    let mut spans: Vec<(f64, f64)> = summaries.iter().map(|summary| span(summary)).collect();
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    // The starts are known to the second.
    spans.array_windows().any(|[a, b]| b.0 + 1.0 < a.1)
}

/// From when to when exchanges were begun, seconds since 1970.
fn span(summary: &Summary) -> (f64, f64) {
    let start = float(summary.started_at);
    (start, start + summary.duration_s)
}

/// Where each run begins on the common axis of time: as it was if runs overlap, else one after the
/// other without the pauses.
fn offsets(summaries: &[&Summary]) -> Vec<f64> {
    if overlap(summaries) {
        let first = summaries.iter().map(|summary| span(summary).0).fold(f64::INFINITY, f64::min);
        return summaries.iter().map(|summary| span(summary).0 - first).collect();
    }
    let mut next = 0.0;
    summaries
        .iter()
        .map(|summary| {
            let own = next;
            next += (summary.duration_s + summary.drain_s).ceil();
            own
        })
        .collect()
}

/// The time in which any of the runs began exchanges, seconds.
fn union(summaries: &[&Summary]) -> f64 {
    if !overlap(summaries) {
        return summaries.iter().map(|summary| summary.duration_s).sum();
    }
    let mut spans: Vec<(f64, f64)> = summaries.iter().map(|summary| span(summary)).collect();
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut total, mut until) = (0.0, f64::NEG_INFINITY);
    for (from, to) in spans {
        total += (to - until.max(from)).max(0.0);
        until = until.max(to);
    }
    total
}

/// The intervals of all runs on one axis of time.
fn side_by_side(runs: &[Stored], offsets: &[f64]) -> Vec<Second> {
    let mut slots = BTreeMap::<u64, (crate::stats::Interval, Times)>::new();
    for (number, run) in runs.iter().enumerate() {
        let offset = offsets.get(number).copied().unwrap_or(0.0);
        for second in &run.stats.seconds {
            let mut interval = second.interval;
            interval.at_s += offset;
            // Up to a second apart they are told from each other by their ends.
            let key = whole((interval.at_s * 10.0).floor());
            let mut times = Times::new();
            second.add_to(&mut times);
            match slots.get_mut(&key) {
                Some((all, all_times)) => {
                    *all = joined(all, &interval, true);
                    all_times.add(&times);
                }
                None => drop(slots.insert(key, (interval, times))),
            }
        }
    }
    let finish = |(mut interval, times): (crate::stats::Interval, Times)| {
        set_percentiles(&mut interval, &times);
        Second::new(interval, &times)
    };
    slots.into_values().map(finish).collect()
}

fn add_up(first: &Summary, all: &[&Summary], names: &[String], stats: &Stats) -> Summary {
    let sum = |of: fn(&Summary) -> u64| all.iter().map(|summary| of(summary)).sum::<u64>();
    let any = |of: fn(&Summary) -> bool| all.iter().any(|summary| of(summary));
    let duration_s = union(all);
    let per_second = |count: u64| if duration_s > 0.0 { float(count) / duration_s } else { 0.0 };
    let mut setup = first.setup.clone();
    if all.iter().any(|summary| summary.setup.rate != setup.rate) {
        setup.rate = None;
    }
    if all.iter().any(|summary| summary.setup.window != setup.window) {
        setup.window = None;
    }
    let mut violations = BTreeMap::<String, u64>::new();
    for (kind, count) in all.iter().flat_map(|summary| &summary.violations) {
        *violations.entry(kind.clone()).or_default() += count;
    }
    let reasons = all.iter().zip(names).flat_map(|(summary, name)| {
        summary.invalid_reasons.iter().map(move |reason| format!("{name}: {reason}"))
    });
    let max = |of: fn(&Summary) -> f64| all.iter().map(|summary| of(summary)).fold(0.0, f64::max);
    Summary {
        setup,
        passed: !any(|summary| !summary.passed),
        valid: !any(|summary| !summary.valid),
        invalid_reasons: reasons.collect(),
        interrupted: any(|summary| summary.interrupted),
        duration_s,
        drain_s: max(|summary| summary.drain_s),
        cpu_share: all.iter().map(|summary| summary.cpu_share).fold(1.0, f64::min),
        started_per_s: per_second(stats.get(Counter::Started)),
        exchanges: sum(|summary| summary.exchanges),
        exchanges_per_s: per_second(stats.get(Counter::CompletedInTime)),
        lost_advertises: sum(|summary| summary.lost_advertises),
        lost_replies: sum(|summary| summary.lost_replies),
        loss: ratio(stats.lost() + stats.failed(), stats.get(Counter::Started)),
        bindings_granted: all.iter().map(|summary| summary.bindings_granted).sum(),
        counters: Counter::ALL
            .iter()
            .map(|counter| (counter.as_str().to_owned(), stats.get(*counter)))
            .collect(),
        violations,
        violations_described: all
            .iter()
            .flat_map(|summary| summary.violations_described.clone())
            .collect(),
        pairs: report::pairs(stats),
        lag: Percentiles::of(&stats.lag),
        servers: servers(all),
        // What events and scenarios did is told run by run.
        failover: None,
        scenario: None,
        objectives: Vec::new(),
        merged: names.to_vec(),
        ..first.clone()
    }
}

fn servers(all: &[&Summary]) -> Vec<ServerReport> {
    let mut servers = BTreeMap::<&str, (u64, u64)>::new();
    for server in all.iter().flat_map(|summary| &summary.servers) {
        let own = servers.entry(&server.duid).or_default();
        own.0 += server.advertises;
        own.1 += server.replies;
    }
    servers
        .into_iter()
        .map(|(duid, (advertises, replies))| ServerReport {
            duid: duid.into(),
            advertises,
            replies,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::tests::sample, stats::Pair};

    fn run(name: &str, started_at: u64) -> Stored {
        let (mut summary, stats) = sample();
        summary.started_at = started_at;
        Stored { name: name.into(), summary: Some(summary), stats, coarse: false }
    }

    #[test]
    fn repetitions_are_averaged() {
        let all = merge(vec![run("a", 100), run("b", 500)]).unwrap();
        let summary = all.summary.unwrap();
        assert_eq!(summary.merged, ["a", "b"]);
        assert_eq!((summary.exchanges, summary.lost_replies), (2 * 998, 4));
        assert!((summary.exchanges_per_s - 498.0).abs() < 1e-9, "{}", summary.exchanges_per_s);
        assert!((summary.loss - 0.002).abs() < 1e-9);
        assert_eq!(summary.pairs["request_reply"].with_losses.count, 2000);
        assert_eq!(all.stats.pair(Pair::Exchange).timed_out.len(), 4);
        let ends: Vec<f64> = summary.series.iter().map(|interval| interval.at_s).collect();
        assert_eq!(ends, [1.0, 2.0, 4.0, 5.0], "one after the other, with the last answers");
    }

    #[test]
    fn generators_side_by_side_add_up() {
        let all = merge(vec![run("a", 100), run("b", 100)]).unwrap();
        let summary = all.summary.unwrap();
        assert!((summary.exchanges_per_s - 996.0).abs() < 1e-9, "{}", summary.exchanges_per_s);
        assert_eq!(summary.series.len(), 2);
        assert_eq!(summary.series[0].started, 1000);
        assert_eq!(
            all.stats.seconds[0].times(crate::times::Track::Answered(Pair::Exchange)).len(),
            998
        );
    }

    #[test]
    fn one_bad_run_makes_all_bad() {
        let mut bad = run("bad", 100);
        let summary = bad.summary.as_mut().unwrap();
        summary.valid = false;
        summary.passed = false;
        summary.invalid_reasons = vec!["too slow".into()];
        summary.violations.insert("duplicate".into(), 2);
        let all = merge(vec![run("good", 200), bad]).unwrap().summary.unwrap();
        assert!(!all.valid && !all.passed);
        assert_eq!(all.invalid_reasons, ["bad: too slow"]);
        assert_eq!(all.violations["duplicate"], 2);
    }

    #[test]
    fn a_run_alone_stays_as_it_is() {
        let one = run("a", 100);
        let summary = one.summary.clone();
        assert_eq!(merge(vec![one]).unwrap().summary, summary);
        let mut times_only = run("b", 100);
        times_only.summary = None;
        let error = merge(vec![run("a", 100), times_only]).unwrap_err().to_string();
        assert!(error.contains("b has no summary.json"), "{error}");
        assert!(merge(Vec::new()).is_err());
    }

    #[test]
    fn figures_without_times_are_not_put_together() {
        let bare = || Stored { stats: Stats::new(0), ..run("b/summary.json", 300) };
        let error = merge(vec![run("a", 100), bare()]).unwrap_err().to_string();
        assert!(error.contains("b/summary.json has percentiles only"), "{error}");
        assert_eq!(merge(vec![bare()]).unwrap().summary, bare().summary, "alone it is as good");
        // A run in which nothing was measured has nothing that could be missing.
        let mut empty = bare();
        empty.summary.as_mut().unwrap().pairs.clear();
        assert!(merge(vec![run("a", 100), empty]).is_ok());
    }
}
