//! One page that needs nothing but itself.

use std::fmt::{self, Write as _};

use hdrhistogram::Histogram;

use super::{
    Percentiles, Summary,
    terminal::{grouped, time},
};
use crate::{
    failover::FailoverReport,
    number::{float, whole},
    stats::{Counter, Interval, Pair, Stats},
};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 36.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 46.0;
/// How many colours the style has for lines.
const COLOURS: usize = 7;

/// The last interval may be a few packets long; what is shorter than this says nothing.
const SHORT_S: f64 = 0.2;

const STYLE: &str = "
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#59636e;--line:#d1d9e0;--card:#f6f8fa;
--c0:#1f6feb;--c1:#bc4c00;--c2:#1a7f37;--c3:#9a6700;--c4:#8250df;--c5:#bf3989;--c6:#1b7c83;--bad:#cf222e;--good:#1a7f37}
@media (prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--dim:#9198a1;--line:#30363d;
--card:#151b23;--c0:#58a6ff;--c1:#ffa657;--c2:#56d364;--c3:#e3b341;--c4:#d2a8ff;--c5:#ff9bce;--c6:#76e3ea;--bad:#ff7b72;
--good:#56d364}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:940px;padding:24px 20px 48px;background:var(--bg);color:var(--fg);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:24px;margin:0 0 4px}h2{font-size:18px;margin:36px 0 4px}
p{margin:4px 0 12px}.dim{color:var(--dim)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:20px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 14px}
.tile b{display:block;font-size:22px;font-variant-numeric:tabular-nums}
.note{border-left:4px solid var(--bad);padding:4px 12px;margin:12px 0;background:var(--card)}
.good{color:var(--good)}.bad{color:var(--bad)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:5px 10px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}th{color:var(--dim);font-weight:600}
td.text{white-space:normal;overflow-wrap:anywhere;text-align:left}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--dim);font-size:12px}svg .grid{stroke:var(--line);stroke-width:1}
svg .mark{stroke:var(--bad);stroke-width:1.5;stroke-dasharray:3 3}svg text.mark{fill:var(--bad);
stroke:none}
svg polyline{fill:none;stroke-width:2;stroke-linejoin:round}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13px}
.legend i{display:inline-block;width:18px;height:0;border-top:3px solid;margin-right:6px;
vertical-align:middle}.legend i.dash{border-top-style:dashed}
";

/// Makes the page.
#[must_use]
pub fn page(summary: &Summary, stats: &Stats) -> String {
    let mut out = String::with_capacity(64 << 10);
    // A String takes everything.
    let _ = write_page(&mut out, summary, stats);
    out
}

fn write_page(out: &mut String, summary: &Summary, stats: &Stats) -> fmt::Result {
    let setup = &summary.setup;
    let pace = match (setup.rate, setup.window) {
        (Some(rate), _) => format!("{} exchanges/s offered (open loop)", grouped(whole(rate))),
        (_, Some(window)) => format!("{window} exchanges outstanding (closed loop)"),
        _ => String::new(),
    };
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/>\
         <title>DHCPv6 load run: {} exchanges/s</title><style>{STYLE}</style></head><body>\n\
         <h1>DHCPv6 load run</h1><p class=\"dim\">{} · {} clients · {} · {} · \
         {}</p>\n",
        grouped(whole(summary.exchanges_per_s)),
        pace,
        grouped(setup.clients.into()),
        escape(&setup.ia),
        escape(&summary.mode),
        date(summary.started_at),
    )?;
    notes(out, summary)?;
    tiles(out, summary)?;
    let marks = marks(summary.failover.as_ref());
    if let Some(report) = &summary.failover {
        failover(out, report, &marks)?;
    }
    percentile_curve(out, stats)?;
    throughput(out, &summary.series, &marks)?;
    latency(out, &summary.series, &marks)?;
    losses(out, &summary.series, &marks)?;
    percentile_table(out, summary)?;
    counter_table(out, summary)?;
    setup_table(out, summary)?;
    out.write_str("</body></html>\n")
}

fn notes(out: &mut String, summary: &Summary) -> fmt::Result {
    if !summary.passed {
        write!(out, "<div class=\"note\"><b>Failed: the server broke the rules.</b>")?;
        for (kind, count) in &summary.violations {
            write!(out, "<br/>{}: {}", escape(kind), grouped(*count))?;
        }
        writeln!(out, "</div>")?;
    }
    if !summary.valid {
        write!(
            out,
            "<div class=\"note\"><b>Not valid: the figures show the generator, not the \
             server.</b>"
        )?;
        for reason in &summary.invalid_reasons {
            write!(out, "<br/>{}", escape(reason))?;
        }
        writeln!(out, "</div>")?;
    }
    if summary.interrupted {
        writeln!(out, "<div class=\"note\">Interrupted before its end.</div>")?;
    }
    Ok(())
}

fn tiles(out: &mut String, summary: &Summary) -> fmt::Result {
    let overall = summary.overall();
    let (verdict, class) = match (summary.passed, summary.valid) {
        (false, _) => ("failed", "bad"),
        (true, false) => ("not valid", "bad"),
        (true, true) => ("passed", "good"),
    };
    out.write_str("<div class=\"tiles\">")?;
    let mut tile = |label: &str, value: &str, class: &str| {
        write!(out, "<div class=\"tile\">{label}<b class=\"{class}\">{value}</b></div>")
    };
    tile("verdict", verdict, class)?;
    tile("exchanges/s", &grouped(whole(summary.exchanges_per_s)), "")?;
    tile("exchange p50", &time(overall.p50_us), "")?;
    tile("exchange p99", &time(overall.p99_us), "")?;
    tile("loss", &format!("{:.3} %", summary.loss * 100.0), "")?;
    tile("leases on record", &grouped(summary.bindings_granted as u64), "")?;
    if let Some(report) = &summary.failover {
        if let Some(ms) = report.takeover_ms {
            tile("takeover", &time(ms * 1000.0), "")?;
        }
        let bad = |count: u64| if count == 0 { "" } else { "bad" };
        tile("duplicates", &grouped(report.duplicates), bad(report.duplicates))?;
        tile("renumbered", &grouped(report.renumbered), bad(report.renumbered))?;
    }
    out.write_str("</div>\n")
}

/// A line of a chart.
struct Line {
    title: String,
    colour: usize,
    dashed: bool,
    points: Vec<(f64, f64)>,
}

/// A chart with axes in its own coordinates.
struct Chart<'a> {
    x_label: &'a str,
    y_label: &'a str,
    x_ticks: Vec<(f64, String)>,
    y_ticks: Vec<(f64, String)>,
    lines: Vec<Line>,
    /// Vertical lines: where on the x axis, and what stands beside it.
    marks: &'a [(f64, String)],
}

impl Chart<'_> {
    fn write(&self, out: &mut String) -> fmt::Result {
        let ends = |ticks: &[(f64, String)]| {
            let first = ticks.first().map_or(0.0, |tick| tick.0);
            let last = ticks.last().map_or(1.0, |tick| tick.0);
            (first, if last > first { last } else { first + 1.0 })
        };
        let ((x0, x1), (y0, y1)) = (ends(&self.x_ticks), ends(&self.y_ticks));
        let x = |value: f64| LEFT + (value.clamp(x0, x1) - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| {
            HEIGHT - BOTTOM - (value.clamp(y0, y1) - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)
        };
        out.write_str("<div class=\"legend\">")?;
        for line in &self.lines {
            let class = if line.dashed { " class=\"dash\"" } else { "" };
            write!(
                out,
                "<span><i{class} style=\"border-color:var(--c{})\"></i>{}</span>",
                line.colour,
                escape(&line.title)
            )?;
        }
        write!(
            out,
            "</div>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} over {}\">",
            escape(self.y_label),
            escape(self.x_label)
        )?;
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for (value, label) in &self.x_ticks {
            let at = x(*value);
            write!(
                out,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 17.0,
                escape(label)
            )?;
        }
        for (value, label) in &self.y_ticks {
            let at = y(*value);
            write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                at + 4.0,
                escape(label)
            )?;
        }
        write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(LEFT, right),
            HEIGHT - 8.0,
            escape(self.x_label),
            f64::midpoint(TOP, bottom),
            escape(self.y_label)
        )?;
        for line in &self.lines {
            let dash = if line.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
            write!(out, "<polyline{dash} style=\"stroke:var(--c{})\" points=\"", line.colour)?;
            for (px, py) in &line.points {
                write!(out, "{:.1},{:.1} ", x(*px), y(*py))?;
            }
            out.write_str("\"/>")?;
        }
        for (value, label) in self.marks.iter().filter(|mark| (x0..=x1).contains(&mark.0)) {
            let at = x(*value);
            write!(
                out,
                "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" \
                 y2=\"{bottom}\"/><text class=\"mark\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                at + 4.0,
                TOP + 12.0,
                escape(label)
            )?;
        }
        out.write_str("</svg>\n")
    }
}

/// The events, by number, for the charts over time.
fn marks(report: Option<&FailoverReport>) -> Vec<(f64, String)> {
    let events = report.map_or(&[][..], |report| &report.events);
    events
        .iter()
        .enumerate()
        .map(|(number, event)| (event.started_s, (number + 1).to_string()))
        .collect()
}

fn failover(out: &mut String, report: &FailoverReport, marks: &[(f64, String)]) -> fmt::Result {
    writeln!(
        out,
        "<h2>Events</h2><p class=\"dim\">A takeover is the first lease given by another server than \
         the one that served in the second before. Answers to RENEW do not count, which the \
         secondary of a pair gives at all times.</p>"
    )?;
    out.write_str(
        "<div class=\"scroll\"><table><tr><th>event</th><th>second</th><th>took</th>\
         <th>takeover after its start</th><th>after its end</th><th>longest silence</th></tr>",
    )?;
    for (number, event) in report.events.iter().enumerate() {
        let ms = |ms: Option<f64>| ms.map_or_else(|| "–".into(), |ms| format!("{ms:.1} ms"));
        write!(
            out,
            "<tr><td class=\"text\">{} {}{}</td><td>{:.3}</td><td>{:.0} ms</td><td>{}</td>\
             <td>{}</td><td>{:.1} ms{}</td></tr>",
            number + 1,
            escape(&event.name),
            event.failure.as_ref().map_or_else(String::new, |failure| format!(
                "<br/><b class=\"bad\">{}</b>",
                escape(failure)
            )),
            event.started_s,
            (event.finished_s - event.started_s) * 1000.0,
            ms(event.takeover_ms),
            ms(event.takeover_from_end_ms),
            event.outage_ms,
            if event.silent { ", to the end" } else { "" },
        )?;
    }
    out.write_str("</table></div>\n")?;
    let rows = [
        ("duplicates", report.duplicates),
        ("renumbered clients", report.renumbered),
        ("forgotten bindings", report.forgotten),
        ("messages never answered", report.lost),
        ("lifetimes shortened", report.lifetimes_shortened),
    ];
    out.write_str("<table>")?;
    for (name, count) in rows {
        write!(out, "<tr><td>{name}</td><td>{}</td></tr>", grouped(count))?;
    }
    if let Some(mclt) = report.mclt_s {
        let count = grouped(report.grants_at_most_mclt);
        write!(out, "<tr><td>grants of at most the MCLT, {mclt} s</td><td>{count}</td></tr>")?;
    }
    out.write_str("</table>\n<h2>Who answered</h2><p class=\"dim\">REPLY of each server, by tenth of a second.</p>\n")?;
    let timeline = &report.timeline;
    let lines: Vec<Line> = timeline
        .replies
        .iter()
        .enumerate()
        .map(|(colour, (duid, counts))| Line {
            title: format!("server {duid}"),
            colour: colour % COLOURS,
            dashed: false,
            points: (0..)
                .zip(counts)
                .map(|(step, count)| {
                    ((float(step) + 0.5) * timeline.step_s, float(*count) / timeline.step_s)
                })
                .collect(),
        })
        .collect();
    let steps = timeline.replies.values().map(Vec::len).max().unwrap_or(0);
    Chart {
        x_label: "time (s)",
        y_label: "REPLY per second",
        x_ticks: linear(float(steps as u64) * timeline.step_s, ""),
        y_ticks: linear(highest(&lines), ""),
        lines,
        marks,
    }
    .write(out)
}

fn percentile_curve(out: &mut String, stats: &Stats) -> fmt::Result {
    writeln!(
        out,
        "<h2>Latency by percentile</h2><p class=\"dim\">From the moment a message was due. Each \
         step to the right shows the slowest tenth of what is left; the higher, the slower.</p>"
    )?;
    let mut lines = Vec::new();
    let mut longest = 0_u64;
    let (mut low, mut high) = (u64::MAX, 1);
    for (colour, pair) in Pair::ALL.iter().enumerate() {
        let times = stats.pair(*pair);
        let all = times.with_losses();
        for (histogram, dashed) in [(&times.answered, false), (&all, true)] {
            if histogram.is_empty() || dashed && times.timed_out.is_empty() {
                continue;
            }
            longest = longest.max(histogram.len());
            low = low.min(histogram.min());
            high = high.max(histogram.max());
            let suffix = if dashed { ", losses as time-outs" } else { "" };
            lines.push(Line {
                title: format!("{}{suffix}", pair.title()),
                colour,
                dashed,
                points: curve(histogram),
            });
        }
    }
    let nines = float(longest.max(10)).log10().ceil().clamp(2.0, 7.0);
    let x_ticks = (0..=whole(nines)).map(|n| (float(n), percent_label(n))).collect();
    Chart {
        x_label: "percentile",
        y_label: "latency (logarithmic)",
        x_ticks,
        y_ticks: decades(low, high),
        lines,
        marks: &[],
    }
    .write(out)
}

/// Points of the curve: x is the number of nines, y the logarithm of the time in ns.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let most = float(histogram.len()).log10();
    let steps = whole(most * 40.0).max(1);
    (0..=steps)
        .map(|step| {
            let nines = most * float(step) / float(steps);
            let quantile = 1.0 - 10_f64.powf(-nines);
            (nines, float(histogram.value_at_quantile(quantile).max(1)).log10())
        })
        .collect()
}

fn percent_label(nines: u64) -> String {
    match nines {
        0 => "0 %".into(),
        1 => "90 %".into(),
        2 => "99 %".into(),
        more => {
            let nines = usize::try_from(more - 2).unwrap_or(1);
            format!("99.{} %", "9".repeat(nines))
        }
    }
}

/// Ticks at powers of ten around a range of times in ns.
fn decades(low: u64, high: u64) -> Vec<(f64, String)> {
    let low = whole(float(low.clamp(1, high)).log10().floor());
    let high = whole(float(high).log10().ceil()).max(low + 1);
    (low..=high)
        .map(|power| {
            let ns = 10_u64.saturating_pow(u32::try_from(power).unwrap_or(0));
            let label = match ns {
                0..1_000 => format!("{ns} ns"),
                1_000..1_000_000 => format!("{} µs", ns / 1_000),
                1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
                _ => format!("{} s", ns / 1_000_000_000),
            };
            (float(power), label)
        })
        .collect()
}

/// Ticks at round numbers from 0 to at least `high`.
fn linear(high: f64, unit: &str) -> Vec<(f64, String)> {
    let high = high.max(1.0);
    let power = 10_f64.powf((high / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .iter()
        .map(|factor| factor * power)
        .find(|step| high / step <= 6.0)
        .unwrap_or(power * 10.0);
    let decimals = usize::from(step < 1.0);
    let count = whole((high / step).ceil());
    (0..=count)
        .map(|n| {
            let value = float(n) * step;
            let text =
                if decimals == 0 { grouped(whole(value)) } else { format!("{value:.decimals$}") };
            (value, format!("{text}{unit}"))
        })
        .collect()
}

fn over_time(
    series: &[Interval],
    title: &str,
    colour: usize,
    value: impl Fn(&Interval) -> f64,
) -> Line {
    let points = series
        .iter()
        .filter(|interval| interval.length_s > SHORT_S)
        .map(|interval| (interval.at_s, value(interval)))
        .collect();
    Line { title: title.into(), colour, dashed: false, points }
}

fn highest(lines: &[Line]) -> f64 {
    lines.iter().flat_map(|line| &line.points).map(|point| point.1).fold(0.0, f64::max)
}

fn time_ticks(series: &[Interval]) -> Vec<(f64, String)> {
    linear(series.iter().rfind(|i| i.length_s > SHORT_S).map_or(1.0, |i| i.at_s), "")
}

fn throughput(out: &mut String, series: &[Interval], marks: &[(f64, String)]) -> fmt::Result {
    writeln!(
        out,
        "<h2>Throughput</h2><p class=\"dim\">Exchanges begun and completed, by second.</p>"
    )?;
    let rate = |count: u64, interval: &Interval| float(count) / interval.length_s;
    let lines = vec![
        over_time(series, "begun", 1, |i| rate(i.started, i)),
        over_time(series, "completed", 0, |i| rate(i.completed, i)),
    ];
    Chart {
        x_label: "time (s)",
        y_label: "exchanges per second",
        x_ticks: time_ticks(series),
        y_ticks: linear(highest(&lines), ""),
        lines,
        marks,
    }
    .write(out)
}

fn latency(out: &mut String, series: &[Interval], marks: &[(f64, String)]) -> fmt::Result {
    writeln!(
        out,
        "<h2>Latency over time</h2><p class=\"dim\">Of all answered messages, by second.</p>"
    )?;
    let log = |us: f64| (us * 1000.0).max(1.0).log10();
    let (mut low, mut high) = (u64::MAX, 1);
    for interval in series.iter().filter(|interval| interval.p50_us > 0.0) {
        low = low.min(whole(interval.p50_us * 1000.0));
        high = high.max(whole(interval.max_us * 1000.0));
    }
    let answered: Vec<_> = series.iter().filter(|i| i.p50_us > 0.0).copied().collect();
    let lines = vec![
        over_time(&answered, "median", 0, |i| log(i.p50_us)),
        over_time(&answered, "99th percentile", 1, |i| log(i.p99_us)),
        over_time(&answered, "slowest", 4, |i| log(i.max_us)),
    ];
    Chart {
        x_label: "time (s)",
        y_label: "latency (logarithmic)",
        x_ticks: time_ticks(series),
        y_ticks: decades(low, high),
        lines,
        marks,
    }
    .write(out)
}

fn losses(out: &mut String, series: &[Interval], marks: &[(f64, String)]) -> fmt::Result {
    let total: u64 = series.iter().map(|interval| interval.lost + interval.failed).sum();
    writeln!(out, "<h2>Losses</h2>")?;
    if total == 0 {
        return writeln!(
            out,
            "<p>None: every message was answered in time, every exchange was granted.</p>"
        );
    }
    writeln!(
        out,
        "<p class=\"dim\">Messages without an answer, counted when they were given up, and \
         exchanges that were refused or answered wrongly, by second.</p>"
    )?;
    let lines = vec![
        over_time(series, "lost", 1, |i| float(i.lost)),
        over_time(series, "refused or invalid", 4, |i| float(i.failed)),
    ];
    Chart {
        x_label: "time (s)",
        y_label: "per interval",
        x_ticks: time_ticks(series),
        y_ticks: linear(highest(&lines), ""),
        lines,
        marks,
    }
    .write(out)
}

fn percentile_table(out: &mut String, summary: &Summary) -> fmt::Result {
    out.write_str(
        "<h2>Percentiles</h2><div class=\"scroll\"><table><tr><th>from the moment it was due</th>\
         <th>count</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th></tr>",
    )?;
    let mut row = |title: &str, times: &Percentiles| {
        write!(out, "<tr><td>{title}</td><td>{}</td>", grouped(times.count))?;
        for us in [times.p50_us, times.p90_us, times.p99_us, times.p999_us, times.max_us] {
            write!(out, "<td>{}</td>", time(us))?;
        }
        out.write_str("</tr>")
    };
    for pair in Pair::ALL {
        if let Some(report) = summary.pairs.get(pair.as_str()) {
            row(pair.title(), &report.answered)?;
            if report.with_losses.count != report.answered.count {
                row("… with losses as time-outs", &report.with_losses)?;
            }
        }
    }
    row("lag of the generator", &summary.lag)?;
    out.write_str("</table></div>\n")
}

fn counter_table(out: &mut String, summary: &Summary) -> fmt::Result {
    out.write_str(
        "<h2>Counters</h2><div class=\"scroll\"><table><tr><th>what</th><th>count</th></tr>",
    )?;
    for counter in Counter::ALL {
        let count = summary.counters.get(counter.as_str()).copied().unwrap_or(0);
        if count > 0 {
            let name = counter.as_str().replace('_', " ");
            write!(out, "<tr><td>{name}</td><td>{}</td></tr>", grouped(count))?;
        }
    }
    out.write_str("</table></div>\n")?;
    if !summary.violations_described.is_empty() {
        out.write_str(
            "<h2>Violations</h2><table><tr><th>rule</th><th>second</th><th>client</th>\
             <th>detail</th></tr>",
        )?;
        for described in &summary.violations_described {
            let client = described.client.map_or_else(String::new, |client| client.to_string());
            write!(
                out,
                "<tr><td>{}</td><td>{:.3}</td><td>{client}</td><td class=\"text\">{}</td></tr>",
                escape(&described.kind),
                described.at_s,
                escape(&described.detail)
            )?;
        }
        out.write_str("</table>\n")?;
    }
    Ok(())
}

fn setup_table(out: &mut String, summary: &Summary) -> fmt::Result {
    let (setup, environment) = (&summary.setup, &summary.environment);
    let guest = if environment.virtual_machine { " (virtual machine)" } else { "" };
    let rows = [
        ("command", setup.command.join(" ")),
        ("version", format!("gemel-bench {}", summary.version)),
        ("mode", summary.mode.clone()),
        ("interface", format!("{}, driver {}", setup.interface, environment.driver)),
        ("server", setup.server.clone()),
        ("seed", setup.seed.to_string()),
        ("time-out", format!("{} ms", setup.timeout_ms)),
        (
            "sent again",
            setup.retransmit_ms.map_or_else(|| "never".into(), |ms| format!("after {ms} ms")),
        ),
        ("relay agents", setup.relay_depth.to_string()),
        ("kernel", environment.kernel.clone()),
        ("processor", format!("{}, {} cores{guest}", environment.cpu, environment.cores)),
        ("memory", format!("{} MiB", grouped(environment.memory_mib))),
        ("governor", environment.governor.clone().unwrap_or_else(|| "none".into())),
        (
            "duration",
            format!(
                "{:.2} s and {:.2} s for the last answers",
                summary.duration_s, summary.drain_s
            ),
        ),
    ];
    out.write_str("<h2>Setup</h2><table>")?;
    for (name, value) in rows {
        write!(out, "<tr><td>{name}</td><td class=\"text\">{}</td></tr>", escape(&value))?;
    }
    for note in &summary.port.notes {
        write!(out, "<tr><td>port</td><td class=\"text\">{}</td></tr>", escape(note))?;
    }
    if let Some(reason) = &summary.port.fallback_reason {
        write!(out, "<tr><td>fallback</td><td class=\"text\">{}</td></tr>", escape(reason))?;
    }
    for server in &summary.servers {
        write!(
            out,
            "<tr><td>server</td><td class=\"text\">{}: {} ADVERTISE, {} REPLY</td></tr>",
            escape(&server.duid),
            grouped(server.advertises),
            grouped(server.replies)
        )?;
    }
    out.write_str("</table>\n")
}

/// Seconds since 1970 as a date and time of day, by the proleptic Gregorian calendar.
fn date(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    // Years are taken to begin in March, so that the leap day is the last of its year; the count
    // begins at 0000-03-01.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day_of_month:02} {:02}:{:02}:{:02} UTC",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{failed_over, sample};

    /// Every element that is opened is closed, in order; attributes are quoted.
    fn check_well_formed(html: &str) {
        let mut open = Vec::new();
        let body = html.strip_prefix("<!DOCTYPE html>\n").unwrap();
        let mut rest = body;
        while let Some(at) = rest.find('<') {
            let end = at + rest[at..].find('>').unwrap();
            let tag = &rest[at + 1..end];
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "closing tag");
            } else if !tag.ends_with('/') {
                open.push(tag.split_whitespace().next().unwrap());
            }
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty(), "left open: {open:?}");
    }

    #[test]
    fn the_page_is_well_formed_and_whole() {
        let (mut summary, stats) = sample();
        let html = page(&summary, &stats);
        check_well_formed(&html);
        for piece in ["498", "99.9 %", "REQUEST → REPLY, losses as time-outs", "&lt;&amp;&gt;"] {
            assert!(html.contains(piece), "{piece}");
        }
        for outside in ["http://", "https://", "<script", "url(", "NaN", "inf,"] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert!(!html.contains("Failed"));
        summary.passed = false;
        summary.valid = false;
        summary.violations.insert("duplicate".into(), 3);
        let html = page(&summary, &stats);
        check_well_formed(&html);
        assert!(
            html.contains("Failed: the server broke the rules.") && html.contains("duplicate: 3")
        );
    }

    #[test]
    fn events_are_marked_in_the_charts_over_time() {
        let (mut summary, stats) = sample();
        summary.failover = Some(failed_over());
        let html = page(&summary, &stats);
        check_well_formed(&html);
        for piece in
            ["kill &lt;1&gt;", "250.0 ms", "Who answered", "server 0001", "no such process"]
        {
            assert!(html.contains(piece), "{piece}");
        }
        // The answers by server, throughput, latency and losses.
        assert_eq!(html.matches("<line class=\"mark\"").count(), 4);
        assert!(!html.contains("NaN"));
    }

    #[test]
    fn an_empty_run_still_makes_a_page() {
        let (mut summary, _) = sample();
        summary.series.clear();
        summary.pairs.clear();
        let html = page(&summary, &Stats::new(0));
        check_well_formed(&html);
        assert!(!html.contains("NaN"));
    }

    #[test]
    fn dates_follow_the_calendar() {
        for (unix, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_795_462_769, "2026-11-23 19:39:29 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(date(unix), text);
        }
    }

    #[test]
    fn ticks_are_round() {
        let labels = |ticks: Vec<(f64, String)>| -> Vec<String> {
            ticks.into_iter().map(|tick| tick.1).collect()
        };
        assert_eq!(
            labels(linear(9_700.0, "")),
            ["0", "2,000", "4,000", "6,000", "8,000", "10,000"]
        );
        assert_eq!(labels(linear(2.0, ""))[..3], ["0.0", "0.5", "1.0"]);
        assert_eq!(
            labels(decades(20_000, 1_000_000_000)),
            ["10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s"]
        );
        assert_eq!(percent_label(4), "99.99 %");
    }
}
