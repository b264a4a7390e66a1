//! What a scenario has to say of its own.

use std::fmt::{self, Write as _};

use super::{chart, escape};
use crate::{
    number::{float, ratio},
    report::terminal::{grouped, time},
    scenario::{
        Broke, ChurnReport, Drift, MixReport, RampReport, ScenarioReport, SetupReport, SoakReport,
        StormReport,
    },
};

/// The title of the page.
pub(super) fn title(report: &ScenarioReport) -> &'static str {
    match report {
        ScenarioReport::Ramp(_) => "DHCPv6 ramp",
        ScenarioReport::Avalanche(_) => "DHCPv6 avalanche",
        ScenarioReport::RenewStorm(_) => "DHCPv6 renewal storm",
        ScenarioReport::Mix(_) => "DHCPv6 mix",
        ScenarioReport::Churn(_) => "DHCPv6 churn",
        ScenarioReport::Soak(_) => "DHCPv6 soak",
    }
}

/// How the load came, in a scenario without one rate.
pub(super) fn pace(report: &ScenarioReport) -> Option<String> {
    Some(match report {
        ScenarioReport::Ramp(ramp) => match (ramp.steps.first(), ramp.steps.last()) {
            (Some(first), Some(last)) => {
                format!("{:.0} to {:.0} exchanges/s offered", first.rate, last.rate)
            }
            _ => return None,
        },
        ScenarioReport::Avalanche(storm) | ScenarioReport::RenewStorm(storm) => {
            if storm.within_s > 0.0 {
                format!("everybody within {} s", storm.within_s)
            } else {
                "everybody at one moment".into()
            }
        }
        _ => return None,
    })
}

pub(super) fn section(out: &mut String, report: &ScenarioReport) -> fmt::Result {
    match report {
        ScenarioReport::Ramp(report) => ramp(out, report),
        ScenarioReport::Avalanche(report) | ScenarioReport::RenewStorm(report) => {
            storm(out, report)
        }
        ScenarioReport::Mix(report) => mix(out, report),
        ScenarioReport::Churn(report) => churn(out, report),
        ScenarioReport::Soak(report) => soak(out, report),
    }
}

/// A table with a row of names above it; cells are escaped.
fn table(out: &mut String, names: &[&str], rows: &[Vec<String>]) -> fmt::Result {
    out.write_str("<div class=\"scroll\"><table><tr>")?;
    for name in names {
        write!(out, "<th>{name}</th>")?;
    }
    out.write_str("</tr>")?;
    for row in rows {
        out.write_str("<tr>")?;
        for cell in row {
            write!(out, "<td>{}</td>", escape(cell))?;
        }
        out.write_str("</tr>")?;
    }
    out.write_str("</table></div>")
}

fn open(out: &mut String, title: &str, setup: Option<&SetupReport>) -> fmt::Result {
    write!(out, "<section><h2>{title}</h2>")?;
    match setup {
        Some(setup) => write!(out, "<p class=\"dim\">{}</p>", escape(&setup.to_string())),
        None => Ok(()),
    }
}

fn percent(share: f64) -> String {
    format!("{:.4} %", share * 100.0)
}

fn ramp(out: &mut String, report: &RampReport) -> fmt::Result {
    let what = if report.continuous { "stretch" } else { "step" };
    let words = format!(
        "Latency of each {what} by the rate that was offered. Dashed red: the limit of the 99th percentile."
    );
    chart(out, "ramp", "Latency by rate", &words, "")?;
    open(out, "Ramp", None)?;
    match (report.broke, report.broke_at_per_s) {
        (Some(broke), Some(at)) => {
            let why = match broke {
                Broke::Loss => "too much was lost, refused or invalid".into(),
                Broke::P99 => {
                    format!("the 99th percentile went over {}", time(report.p99_limit_us))
                }
                Broke::Generator => {
                    "the generator could not keep up, which says nothing of the server".into()
                }
            };
            write!(out, "<p>Borne {:.0}/s; at {at:.0}/s {why}.</p>", report.borne_per_s)?;
        }
        _ => write!(out, "<p>Nothing broke, up to {:.0}/s.</p>", report.borne_per_s)?,
    }
    let rows: Vec<_> = report
        .steps
        .iter()
        .map(|step| {
            let verdict = match (step.valid, step.within) {
                (false, _) => "not valid: generator",
                (true, true) => "within the limits",
                (true, false) => "too much",
            };
            vec![
                format!("{:.0}", step.rate),
                format!("{:.0}", step.exchanges_per_s),
                percent(step.loss),
                time(step.p50_us),
                time(step.p99_us),
                verdict.into(),
            ]
        })
        .collect();
    let names = ["offered per second", "done per second", "loss", "p50", "p99", ""];
    table(out, &names, &rows)?;
    out.write_str("</section>\n")
}

fn storm(out: &mut String, report: &StormReport) -> fmt::Result {
    let words = "Clients that had their leases, from the moment at which the first was due. The lines are \
                 where 50, 90, 99 and 100 % of all clients had been served.";
    chart(out, "served", "Served clients", words, "")?;
    open(out, "Storm", report.setup.as_ref())?;
    let until = |at: Option<f64>| at.map_or_else(|| "never".into(), |at| format!("{at:.3} s"));
    let share = ratio(report.served, report.clients) * 100.0;
    let rows = [
        (
            "clients served",
            format!("{} of {} ({share:.2} %)", grouped(report.served), grouped(report.clients)),
        ),
        ("all had begun after", format!("{:.3} s", report.all_begun_s)),
        ("50 % served after", until(report.until_50_s)),
        ("90 %", until(report.until_90_s)),
        ("99 %", until(report.until_99_s)),
        ("all", until(report.until_all_s)),
        ("messages", grouped(report.sent)),
        ("sent again", grouped(report.retransmissions)),
        ("messages per served client", format!("{:.2}", report.messages_per_served)),
        ("clients that began anew", grouped(report.restarts)),
    ];
    table(out, &["", ""], &rows.map(|(name, value)| vec![name.into(), value]))?;
    out.write_str("</section>\n")
}

fn mix(out: &mut String, report: &MixReport) -> fmt::Result {
    open(out, "Kinds of exchanges", Some(&report.setup))?;
    let begun: u64 = report.kinds.iter().map(|kind| kind.begun).sum();
    let share = |share: f64| format!("{:.1} %", share * 100.0);
    let rows: Vec<_> = report
        .kinds
        .iter()
        .map(|kind| {
            vec![
                kind.kind.clone(),
                share(kind.share),
                share(ratio(kind.begun, begun)),
                grouped(kind.begun),
                grouped(kind.answered),
                grouped(kind.lost),
                time(kind.p50_us),
                time(kind.p99_us),
            ]
        })
        .collect();
    let names = ["kind", "asked for", "share", "begun", "answered", "lost", "p50", "p99"];
    table(out, &names, &rows)?;
    writeln!(
        out,
        "<p>{} clients hold a lease at the end; {} leases were given out after they had been \
         declined.</p></section>",
        grouped(report.holding),
        grouped(report.declined_given)
    )
}

fn churn(out: &mut String, report: &ChurnReport) -> fmt::Result {
    open(out, "Churn", Some(&report.setup))?;
    let rows = [
        ("clients that were to hold a lease", grouped(report.fill)),
        ("held, on average", format!("{:.0}", report.holding_mean)),
        ("held, fewest", grouped(report.holding_min)),
        ("held, most", grouped(report.holding_max)),
        ("each was to stay", format!("{:.1} s", report.hold_s)),
        ("came and were given a lease", grouped(report.arrived)),
        ("left", grouped(report.departed)),
    ];
    table(out, &["", ""], &rows.map(|(name, value)| vec![name.into(), value]))?;
    out.write_str("</section>\n")
}

fn soak(out: &mut String, report: &SoakReport) -> fmt::Result {
    open(out, "Drift", None)?;
    if report.intervals < 3 {
        return out.write_str("<p>Too short to say whether anything drifts.</p></section>\n");
    }
    let (first, last) = (&report.first, &report.last);
    let mib = |kib: u64| format!("{:.1} MiB", float(kib) / 1024.0);
    let verdict = |drift| {
        if report.drifts.contains(&drift) { "DRIFT".to_owned() } else { "stays".to_owned() }
    };
    let row = |name: &str, a: String, b: String, drift| vec![name.into(), a, b, verdict(drift)];
    let rows = [
        row("99th percentile", time(first.p99_us), time(last.p99_us), Drift::P99),
        row("loss", percent(first.loss), percent(last.loss), Drift::Loss),
        row("memory of the generator", mib(first.memory_kib), mib(last.memory_kib), Drift::Memory),
    ];
    table(out, &["", "first third", "last third", ""], &rows)?;
    writeln!(
        out,
        "<p class=\"dim\">Of {} intervals of {:.1} s; the percentile is the median of theirs.</p></section>",
        report.intervals, report.interval_s
    )
}
