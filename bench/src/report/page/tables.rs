//! The tables of the page.

use std::fmt::{self, Write as _};

use super::escape;
use crate::{
    failover::FailoverReport,
    report::{
        Percentiles, Summary,
        terminal::{grouped, time},
    },
    stats::{Counter, Pair},
};

pub(super) fn failover(out: &mut String, report: &FailoverReport) -> fmt::Result {
    writeln!(
        out,
        "<section><h2>Events</h2><p class=\"dim\">A takeover is the first lease given by another server than \
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
    out.write_str("<div class=\"counts\">")?;
    for (name, number) in rows {
        count(out, name, number)?;
    }
    if let Some(mclt) = report.mclt_s {
        count(out, &format!("grants of at most the MCLT, {mclt} s"), report.grants_at_most_mclt)?;
    }
    out.write_str("</div></section>\n")
}

fn count(out: &mut String, name: &str, number: u64) -> fmt::Result {
    write!(out, "<div><span>{name}</span><b>{}</b></div>", grouped(number))
}

pub(super) fn percentiles(out: &mut String, summary: &Summary) -> fmt::Result {
    out.write_str(
        "<section><h2>Percentiles</h2><div class=\"scroll\"><table><tr><th>from the moment it was due</th>\
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
                row("\u{2003}with losses as time-outs", &report.with_losses)?;
            }
        }
    }
    row("lag of the generator", &summary.lag)?;
    out.write_str("</table></div></section>\n")
}

pub(super) fn counters(out: &mut String, summary: &Summary) -> fmt::Result {
    out.write_str("<section><h2>Counters</h2><div class=\"counts\">")?;
    for counter in Counter::ALL {
        let number = summary.counters.get(counter.as_str()).copied().unwrap_or(0);
        if number > 0 {
            count(out, &counter.as_str().replace('_', " "), number)?;
        }
    }
    out.write_str("</div></section>\n")
}

pub(super) fn violations(out: &mut String, summary: &Summary) -> fmt::Result {
    if summary.violations_described.is_empty() {
        return Ok(());
    }
    out.write_str(
        "<section><h2>Violations</h2><div class=\"scroll\"><table><tr><th>rule</th><th>second</th>\
         <th>client</th><th>detail</th></tr>",
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
    out.write_str("</table></div></section>\n")
}

pub(super) fn setup(out: &mut String, summary: &Summary) -> fmt::Result {
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
        ("sent again", setup.sent_again()),
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
    out.write_str("<section><h2>Setup</h2><table class=\"names\">")?;
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
    out.write_str("</table></section>\n")
}
