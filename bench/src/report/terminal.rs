//! For people at a terminal.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, IsTerminal, Write},
};

use hdrhistogram::Histogram;

use super::{PairReport, Percentiles, Summary};
use crate::{
    failover::FailoverReport,
    number::{float, index, low32, micros, whole},
    slo::ObjectiveReport,
    stats::{Counter, Interval, Pair, Stats},
};

/// The progress line: redrawn on a terminal, one line a second elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    redraw: bool,
    quiet: bool,
}

impl Live {
    /// Writes to standard error, so that standard output keeps the report.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        Self { redraw: io::stderr().is_terminal(), quiet }
    }

    /// Shows the last second. Errors of the terminal are no reason to end a run.
    pub fn show(&self, interval: &Interval) {
        if self.quiet {
            return;
        }
        let line = line(interval);
        let mut out = io::stderr().lock();
        let _ = if self.redraw { write!(out, "\r\x1b[K{line}") } else { writeln!(out, "{line}") };
        let _ = out.flush();
    }

    /// Ends the line that was redrawn.
    pub fn done(&self) {
        if self.redraw && !self.quiet {
            eprintln!();
        }
    }
}

fn line(interval: &Interval) -> String {
    let per_second = |count: u64| {
        if interval.length_s > 0.0 { float(count) / interval.length_s } else { 0.0 }
    };
    format!(
        "{:6.1} s  {:>9.0} started/s  {:>9.0} done/s  {:>6} lost  {:>6} failed  {:>7} open  \
         p50 {:>9}  p99 {:>9}  max {:>9}",
        interval.at_s,
        per_second(interval.started),
        per_second(interval.completed),
        interval.lost,
        interval.failed,
        interval.outstanding,
        time(interval.p50_us),
        time(interval.p99_us),
        time(interval.max_us),
    )
}

/// A time with a unit that suits it.
pub(crate) fn time(us: f64) -> String {
    if us < 1000.0 {
        format!("{us:.1} us")
    } else if us < 1_000_000.0 {
        format!("{:.2} ms", us / 1e3)
    } else {
        format!("{:.2} s", us / 1e6)
    }
}

/// A number with thousands set apart.
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The whole report as text.
#[must_use]
pub fn text(summary: &Summary, stats: &Stats) -> String {
    let mut out = String::new();
    // A String takes everything.
    let _ = write_text(&mut out, summary, stats);
    out
}

fn write_text(out: &mut String, summary: &Summary, stats: &Stats) -> std::fmt::Result {
    let setup = &summary.setup;
    let offered = match (setup.rate, setup.window) {
        (Some(rate), _) => format!("{} exchanges/s offered", grouped(whole(rate))),
        (_, Some(window)) => format!("{window} exchanges outstanding"),
        _ => String::new(),
    };
    writeln!(
        out,
        "\nmode {}   {offered}   {} clients",
        summary.mode,
        grouped(setup.clients.into())
    )?;
    if let Some(reason) = &summary.port.fallback_reason {
        writeln!(out, "  not a better mode because: {reason}")?;
    }
    for note in &summary.port.notes {
        writeln!(out, "  {note}")?;
    }
    writeln!(
        out,
        "{} exchanges in {:.2} s: {} exchanges/s   lost {} ADVERTISE, {} REPLY   loss {:.4} %",
        grouped(summary.exchanges),
        summary.duration_s,
        grouped(whole(summary.exchanges_per_s)),
        summary.lost_advertises,
        summary.lost_replies,
        summary.loss * 100.0,
    )?;
    table(out, &summary.pairs, &summary.lag)?;
    histograms(out, stats)?;
    counters(out, summary)?;
    if let Some(report) = &summary.failover {
        failover(out, report)?;
    }
    if let Some(report) = &summary.scenario {
        write!(out, "\n{report}")?;
    }
    objectives(out, summary)?;
    verdict(out, summary)
}

/// The percentile table and the histograms alone, of times that were stored without a summary.
#[must_use]
pub fn times_text(stats: &Stats) -> String {
    let mut out = String::new();
    // A String takes everything.
    let _ = table(&mut out, &super::pairs(stats), &Percentiles::of(&stats.lag))
        .and_then(|()| histograms(&mut out, stats));
    out
}

fn histograms(out: &mut String, stats: &Stats) -> std::fmt::Result {
    for pair in Pair::ALL.iter().filter(|pair| !pair.is_whole()) {
        let times = stats.pair(*pair);
        if !times.answered.is_empty() || !times.timed_out.is_empty() {
            writeln!(out, "\n{}", pair.title())?;
            histogram(out, &times.answered, times.timed_out.len())?;
        }
    }
    Ok(())
}

fn table(
    out: &mut String,
    pairs: &BTreeMap<String, PairReport>,
    lag: &Percentiles,
) -> std::fmt::Result {
    writeln!(
        out,
        "\n{:<42} {:>11} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "from the moment it was due", "count", "p50", "p90", "p99", "p99.9", "max"
    )?;
    let mut row = |title: &str, times: &Percentiles| {
        writeln!(
            out,
            "{title:<42} {:>11} {:>10} {:>10} {:>10} {:>10} {:>10}",
            grouped(times.count),
            time(times.p50_us),
            time(times.p90_us),
            time(times.p99_us),
            time(times.p999_us),
            time(times.max_us)
        )
    };
    for pair in Pair::ALL {
        if let Some(report) = pairs.get(pair.as_str()) {
            row(pair.title(), &report.answered)?;
            if report.with_losses.count != report.answered.count {
                row("  ... with losses as time-outs", &report.with_losses)?;
            }
        }
    }
    row("lag of the generator", lag)
}

/// Bars over steps of 1, 2, 5 times a power of ten; what was given up has a bar of its own.
fn histogram(out: &mut String, times: &Histogram<u64>, given_up: u64) -> std::fmt::Result {
    const WIDTH: u64 = 50;
    let mut edges = vec![0];
    let mut decade = 100_u64;
    while edges.last().is_some_and(|edge| *edge <= times.max()) {
        edges.extend([decade, 2 * decade, 5 * decade]);
        decade *= 10;
    }
    let bars: Vec<_> = edges
        .array_windows()
        .map(|&[from, to]| (from, to, times.count_between(from, to - 1)))
        .collect();
    let tallest = bars.iter().map(|bar| bar.2).max().unwrap_or(0).max(given_up).max(1);
    let first = bars.iter().position(|bar| bar.2 > 0).unwrap_or(0);
    let last = bars.iter().rposition(|bar| bar.2 > 0).unwrap_or(0);
    let bar = |count: u64| {
        let eighths = whole(float(count * WIDTH * 8) / float(tallest)).max(u64::from(count > 0));
        let mut bar = "█".repeat(index(low32(eighths / 8)));
        if let Some(part) = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"].get(index(low32(eighths % 8)))
        {
            bar.push_str(part);
        }
        bar
    };
    if !times.is_empty() {
        for (_, to, count) in &bars[first..=last] {
            writeln!(out, "  < {:>9} {:>11} {}", time(micros(*to)), grouped(*count), bar(*count))?;
        }
    }
    if given_up > 0 {
        writeln!(out, "  no answer   {:>11} {}", grouped(given_up), bar(given_up))?;
    }
    Ok(())
}

fn counters(out: &mut String, summary: &Summary) -> std::fmt::Result {
    let shown: Vec<_> = Counter::ALL
        .iter()
        .filter_map(|counter| {
            let name = counter.as_str();
            summary.counters.get(name).filter(|count| **count > 0).map(|count| (name, count))
        })
        .collect();
    writeln!(out)?;
    for line in shown.chunks(4) {
        for (name, count) in line {
            write!(out, "  {name} {}", grouped(**count))?;
        }
        writeln!(out)?;
    }
    for server in &summary.servers {
        writeln!(
            out,
            "  server {}: {} ADVERTISE, {} REPLY",
            server.duid,
            grouped(server.advertises),
            grouped(server.replies)
        )?;
    }
    writeln!(out, "  leases on record {}", grouped(summary.bindings_granted as u64))
}

fn failover(out: &mut String, report: &FailoverReport) -> std::fmt::Result {
    for event in &report.events {
        writeln!(out, "\n{:.3} s to {:.3} s: {}", event.started_s, event.finished_s, event.name)?;
        if let Some(failure) = &event.failure {
            writeln!(out, "  FAILED: {failure}")?;
        }
        let duid = event.server_before.as_deref().unwrap_or("none");
        writeln!(out, "  server before {duid}")?;
        match (event.takeover_ms, event.takeover_from_end_ms) {
            (Some(start), Some(end)) => writeln!(
                out,
                "  another server after {start:.1} ms, {end:.1} ms after the command had ended"
            )?,
            _ => writeln!(out, "  no other server took over")?,
        }
        let silent = if event.silent { ", and there was none any more" } else { "" };
        writeln!(out, "  longest time without a REPLY {:.1} ms{silent}", event.outage_ms)?;
    }
    if report.events.len() > 1 {
        writeln!(out, "\nlongest time without a REPLY in all {:.1} ms", report.outage_ms)?;
    }
    writeln!(
        out,
        "\nduplicates {}   renumbered {}   forgotten {}   lost {}   lifetimes shortened {}",
        report.duplicates,
        report.renumbered,
        report.forgotten,
        report.lost,
        grouped(report.lifetimes_shortened)
    )?;
    if let Some(mclt) = report.mclt_s {
        let count = grouped(report.grants_at_most_mclt);
        writeln!(out, "grants of at most the MCLT ({mclt} s) {count}")?;
    }
    Ok(())
}

fn objectives(out: &mut String, summary: &Summary) -> std::fmt::Result {
    if !summary.objectives.is_empty() {
        let valid = if summary.valid { "" } else { ": all missed, for the run is not valid" };
        writeln!(out, "\nobjectives{valid}")?;
    }
    for report in &summary.objectives {
        let word = if report.met { "met" } else { "MISSED" };
        writeln!(out, "  {word:<6}  {:<28} measured {}", report.objective, measured(report))?;
    }
    Ok(())
}

/// What was measured for an objective, for people.
pub(super) fn measured(report: &ObjectiveReport) -> String {
    match (report.measured, report.unit.as_str()) {
        (None, _) => "nothing".into(),
        (Some(us), "us") => time(us),
        (Some(share), "%") => format!("{share:.4} %"),
        (Some(value), _) => format!("{value:.1}{}", report.unit),
    }
}

fn verdict(out: &mut String, summary: &Summary) -> std::fmt::Result {
    if !summary.passed {
        writeln!(out, "\nFAILED: the server broke the rules")?;
        for (kind, count) in &summary.violations {
            writeln!(out, "  {kind}: {count}")?;
        }
        for described in summary.violations_described.iter().take(5) {
            let client = described.client.map_or_else(String::new, |n| format!("client {n}, "));
            let detail: String = described.detail.chars().take(400).collect();
            writeln!(out, "  {:.3} s, {client}{}: {detail}", described.at_s, described.kind)?;
        }
    }
    if !summary.valid {
        writeln!(out, "\nNOT VALID: the figures show the generator, not the server")?;
        for reason in &summary.invalid_reasons {
            writeln!(out, "  {reason}")?;
        }
    }
    if summary.interrupted {
        writeln!(out, "\ninterrupted before its end")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn the_report_says_what_matters() {
        let (summary, stats) = sample();
        let text = text(&summary, &stats);
        for piece in [
            "  no answer             2 ▏",
            "mode memory   500 exchanges/s offered   1,000 clients",
            "998 exchanges in 2.00 s: 498 exchanges/s   lost 0 ADVERTISE, 2 REPLY   loss 0.2000 %",
            "SOLICIT → ADVERTISE",
            "  ... with losses as time-outs",
            "lag of the generator",
        ] {
            assert!(text.contains(piece), "{piece:?} is missing in\n{text}");
        }
        assert!(!text.contains("FAILED") && !text.contains("NOT VALID"), "{text}");
    }

    #[test]
    fn bars_count_everything_once() {
        let mut times = Histogram::new_with_bounds(1, crate::stats::TIME_MAX, 3).unwrap();
        for ns in [0, 99, 150, 1_000, 4_000, 4_000, 70_000_000, 3_000_000_000] {
            times.saturating_record(ns);
        }
        let mut out = String::new();
        histogram(&mut out, &times, 3).unwrap();
        let counted: u64 = out
            .lines()
            .map(|line| {
                let column = if line.contains("no answer") { 2 } else { 3 };
                line.split_whitespace()
                    .nth(column)
                    .unwrap()
                    .replace(',', "")
                    .parse::<u64>()
                    .unwrap()
            })
            .sum();
        assert_eq!(counted, 8 + 3, "{out}");
        assert!(out.contains("█"), "{out}");
    }

    #[test]
    fn numbers_read_easily() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(time(12.34), "12.3 us");
        assert_eq!(time(1500.0), "1.50 ms");
    }

    #[test]
    fn the_live_line_shows_rates() {
        let interval = Interval {
            at_s: 2.0,
            length_s: 0.5,
            started: 50,
            completed: 40,
            ..Interval::default()
        };
        let line = line(&interval);
        assert!(line.contains("100 started/s") && line.contains("80 done/s"), "{line}");
    }
}
