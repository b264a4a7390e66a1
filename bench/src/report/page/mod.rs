//! One page that needs nothing but itself.
//!
//! Words and tables are written here; the charts are drawn by the script in the page, from figures
//! that stand in it as JSON, so that they fit the window and show what the pointer is at.

use std::fmt::{self, Write as _};

use super::{
    Summary,
    terminal::{grouped, measured, time},
};
use crate::{number::whole, stats::Stats};

mod data;
mod scenario;
mod tables;

use data::Data;

/// The last interval may be a few packets long; what is shorter than this says nothing.
const SHORT_S: f64 = 0.2;

const STYLE: &str = include_str!("style.css");
const SCRIPTS: [&str; 2] = [include_str!("chart.js"), include_str!("page.js")];

/// Makes the page.
#[must_use]
pub fn page(summary: &Summary, stats: &Stats) -> String {
    let mut out = String::with_capacity(256 << 10);
    // A String takes everything.
    let _ = write_page(&mut out, summary, stats);
    out
}

fn write_page(out: &mut String, summary: &Summary, stats: &Stats) -> fmt::Result {
    let title = match (&summary.scenario, &summary.failover) {
        (Some(report), _) => scenario::title(report),
        (None, Some(_)) => "DHCPv6 failover run",
        (None, None) => "DHCPv6 load run",
    };
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/>\
         <title>{title}: {} exchanges/s</title><style>{STYLE}</style></head><body><main>\n",
        grouped(whole(summary.exchanges_per_s)),
    )?;
    heading(out, title, summary)?;
    notes(out, summary)?;
    tiles(out, summary)?;
    objectives(out, summary)?;
    if let Some(report) = &summary.failover {
        tables::failover(out, report)?;
        let words = "REPLY of each server, by tenth of a second.";
        chart(out, "servers", "Who answered", words, "")?;
    }
    if let Some(report) = &summary.scenario {
        scenario::section(out, report)?;
    }
    charts(out, summary, stats)?;
    tables::percentiles(out, summary)?;
    tables::counters(out, summary)?;
    tables::violations(out, summary)?;
    tables::setup(out, summary)?;
    let data = Data::new(summary, stats).json();
    write!(
        out,
        "<footer>Made by gemel-bench {}. All times count from the moment at which a message was \
         due.</footer></main>\n<script type=\"application/json\" id=\"data\">{data}</script>\n",
        escape(&summary.version)
    )?;
    for script in SCRIPTS {
        writeln!(out, "<script>\n{script}</script>")?;
    }
    out.write_str("</body></html>\n")
}

fn heading(out: &mut String, title: &str, summary: &Summary) -> fmt::Result {
    let setup = &summary.setup;
    let own = summary.scenario.as_ref().and_then(scenario::pace);
    let pace = own.unwrap_or_else(|| match (setup.rate, setup.window) {
        (Some(rate), _) => format!("{} exchanges/s offered (open loop)", grouped(whole(rate))),
        (_, Some(window)) => format!("{window} exchanges outstanding (closed loop)"),
        _ => "several paces".into(),
    });
    let (verdict, class) = match (summary.passed, summary.valid, summary.objectives_met()) {
        (false, _, _) => ("failed", "bad"),
        (true, false, _) => ("not valid", "warn"),
        (true, true, false) => ("objectives missed", "bad"),
        (true, true, true) => ("passed", "good"),
    };
    writeln!(
        out,
        "<header><h1>{title}</h1><span class=\"badge {class}\">{verdict}</span>\
         <p class=\"dim\">{pace} · {} clients · {} · {} · {}</p></header>",
        grouped(setup.clients.into()),
        escape(&setup.ia),
        escape(&summary.mode),
        date(summary.started_at),
    )
}

fn notes(out: &mut String, summary: &Summary) -> fmt::Result {
    if !summary.passed {
        out.write_str("<div class=\"note\"><b>Failed: the server broke the rules.</b><ul>")?;
        for (kind, count) in &summary.violations {
            write!(out, "<li>{}: {}</li>", escape(kind), grouped(*count))?;
        }
        out.write_str("</ul></div>\n")?;
    }
    if !summary.valid {
        out.write_str(
            "<div class=\"note warn\"><b>Not valid: the figures show the generator, not the \
             server.</b><ul>",
        )?;
        for reason in &summary.invalid_reasons {
            write!(out, "<li>{}</li>", escape(reason))?;
        }
        out.write_str("</ul></div>\n")?;
    }
    if summary.interrupted {
        out.write_str("<div class=\"note warn\">Interrupted before its end.</div>\n")?;
    }
    if !summary.merged.is_empty() {
        let names = summary.merged.join(", ");
        let count = summary.merged.len();
        writeln!(out, "<p class=\"dim\">{count} runs together: {}</p>", escape(&names))?;
    }
    out.write_str("<noscript><div class=\"note warn\">The charts need scripts.</div></noscript>\n")
}

fn tiles(out: &mut String, summary: &Summary) -> fmt::Result {
    let overall = summary.overall();
    let name = summary.overall_pair().map_or("exchange", crate::slo::short);
    out.write_str("<div class=\"tiles\">")?;
    let mut tile = |label: &str, value: &str, bad: bool| {
        let class = if bad { " class=\"bad\"" } else { "" };
        write!(out, "<div class=\"tile\">{label}<b{class}>{value}</b></div>")
    };
    tile("exchanges/s", &grouped(whole(summary.exchanges_per_s)), false)?;
    tile(&format!("{name} p50"), &time(overall.p50_us), false)?;
    tile(&format!("{name} p99"), &time(overall.p99_us), false)?;
    tile(&format!("{name} p99.9"), &time(overall.p999_us), false)?;
    tile("loss", &format!("{:.3} %", summary.loss * 100.0), summary.loss > 0.0)?;
    let late = summary.setup.window.is_none() && summary.lag.p99_us > summary.setup.lag_limit_us;
    tile("lag p99", &time(summary.lag.p99_us), late)?;
    tile("leases", &grouped(summary.bindings_granted as u64), false)?;
    if let Some(report) = &summary.failover {
        if let Some(ms) = report.takeover_ms {
            tile("takeover", &time(ms * 1000.0), false)?;
        }
        tile("longest silence", &time(report.outage_ms * 1000.0), false)?;
        tile("duplicates", &grouped(report.duplicates), report.duplicates > 0)?;
        tile("renumbered", &grouped(report.renumbered), report.renumbered > 0)?;
    }
    out.write_str("</div>\n")
}

fn objectives(out: &mut String, summary: &Summary) -> fmt::Result {
    if summary.objectives.is_empty() {
        return Ok(());
    }
    out.write_str(
        "<section><h2>Objectives</h2><div class=\"scroll\"><table><tr><th>objective</th>\
         <th>measured</th><th></th></tr>",
    )?;
    for report in &summary.objectives {
        let (word, class) = if report.met { ("met", "good") } else { ("missed", "bad") };
        write!(
            out,
            "<tr><td>{}</td><td>{}</td><td><b class=\"{class}\">{word}</b></td></tr>",
            escape(&report.objective),
            measured(report)
        )?;
    }
    out.write_str("</table></div></section>\n")
}

/// A place for the script to draw in.
fn chart(out: &mut String, name: &str, title: &str, words: &str, more: &str) -> fmt::Result {
    writeln!(
        out,
        "<section><h2>{title}</h2><p class=\"dim\">{words}{more}</p>\
         <figure data-chart=\"{name}\"></figure></section>"
    )
}

fn charts(out: &mut String, summary: &Summary, stats: &Stats) -> fmt::Result {
    let words = "Each step to the right shows the slowest tenth of what is left. Dashed: with \
                 messages that were never answered, as long as they were waited for.";
    chart(out, "percentiles", "Latency by percentile", words, "")?;
    let of = |count: usize| if count == 1 { "interval" } else { "intervals" };
    if !stats.seconds.is_empty() {
        let words = "How many messages took how long, and when; the red row above is what was \
                     given up. ";
        let choice = "<select id=\"pair\" aria-label=\"pair of messages\"></select>";
        chart(out, "heat", "Latency over time", words, choice)?;
    }
    if !stats.series.is_empty() {
        let count = stats.series.len();
        let words = format!("Exchanges begun and completed, in {count} {}.", of(count));
        chart(out, "throughput", "Throughput", &words, "")?;
        let bad: u64 = stats.series.iter().map(|i| i.lost + i.failed).sum();
        if bad == 0 {
            out.write_str(
                "<section><h2>Losses</h2><p>None: every message was answered in time, every \
                 exchange was granted.</p></section>\n",
            )?;
        } else {
            let words = "Messages without an answer, counted when they were given up, and \
                         exchanges that were refused or answered wrongly.";
            chart(out, "losses", "Losses", words, "")?;
        }
    }
    if stats.series.iter().any(|interval| interval.lag_max_us > 0.0) {
        let words = "How long after they were due messages left. It is part of every latency \
                     above; if it is high, the run is not valid.";
        let closed =
            if summary.setup.window.is_some() { " In a closed loop nothing is due." } else { "" };
        chart(out, "lag", "Lag of the generator", words, closed)?;
    }
    Ok(())
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
            rest = &rest[end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "closing tag");
            } else if !tag.ends_with('/') {
                open.push(tag.split_whitespace().next().unwrap());
                if tag.starts_with("script") {
                    rest = &rest[rest.find("</script>").expect("the script ends")..];
                }
            }
        }
        assert!(open.is_empty(), "left open: {open:?}");
    }

    #[test]
    fn the_page_is_well_formed_and_whole() {
        let (mut summary, stats) = sample();
        let html = page(&summary, &stats);
        check_well_formed(&html);
        for piece in ["498", "REQUEST → REPLY", "with losses as time-outs", "&lt;&amp;&gt;"] {
            assert!(html.contains(piece), "{piece}");
        }
        let namespace = "http://www.w3.org/2000/svg";
        let rest = html.replace(namespace, "");
        for outside in ["http://", "https://", "src=", "url(", "@import", "NaN", "inf,"] {
            assert!(!rest.contains(outside), "{outside}");
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
        assert!(html.contains("Not valid: the figures show the generator"));
    }

    #[test]
    fn objectives_are_on_the_page() {
        let (mut summary, stats) = sample();
        let slo: crate::slo::Slo = "reply.p99.9<1ms,loss<50%".parse().unwrap();
        summary.objectives = slo.judge(&summary, &stats);
        let html = page(&summary, &stats);
        check_well_formed(&html);
        for piece in ["objectives missed", "reply.p99.9&lt;1ms", "1.00 s", "0.2000 %"] {
            assert!(html.contains(piece), "{piece}");
        }
    }

    #[test]
    fn events_are_on_the_page() {
        let (mut summary, stats) = sample();
        summary.failover = Some(failed_over());
        let html = page(&summary, &stats);
        check_well_formed(&html);
        for piece in
            ["kill &lt;1&gt;", "250.0 ms", "Who answered", "\"duid\":\"0001\"", "no such process"]
        {
            assert!(html.contains(piece), "{piece}");
        }
        assert!(!html.contains("NaN"));
    }

    #[test]
    fn every_scenario_has_its_section() {
        let (mut summary, stats) = sample();
        for (report, pieces) in crate::scenario::tests::all() {
            summary.scenario = Some(report);
            let html = page(&summary, &stats);
            check_well_formed(&html);
            for piece in pieces {
                assert!(html.contains(piece), "{piece} in {:?}", summary.scenario);
            }
            assert!(!html.contains("NaN"));
        }
    }

    #[test]
    fn the_page_tells_how_clients_send_again() {
        let (mut summary, stats) = sample();
        let row = |summary: &Summary| {
            let html = page(summary, &stats);
            let (_, rest) = html.split_once("<td>sent again</td><td class=\"text\">").unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        assert_eq!(row(&summary), "never");
        summary.setup.retransmit_ms = Some(250);
        assert_eq!(row(&summary), "after 250 ms");
        summary.setup.by_rfc = true;
        assert_eq!(row(&summary), "as RFC 8415 has it");
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
}
