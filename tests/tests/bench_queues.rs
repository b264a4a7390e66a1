//! The load generator on several queues: what its threads have measured is put together without a
//! loss, in the summary and in every file.

mod common;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::Direct;
use gemel_tests::bench::{offline, read_grants, start, summary};
use gemel_tests::gemel::{LinkConfig, Mode};
use gemel_tests::require;
use serde_json::Value;

/// How long the run may take, with what comes after its load.
const TIMEOUT: Duration = Duration::from_secs(60);

const CLIENTS: u64 = 300;
const RATE: u64 = 600;
const SECONDS: u64 = 3;

/// Pairs of messages, as the terminal names them and as the summary does.
const TITLES: [(&str, &str); 4] = [
    ("SOLICIT → ADVERTISE", "solicit_advertise"),
    ("REQUEST → REPLY", "request_reply"),
    ("RENEW → REPLY", "renew_reply"),
    ("whole exchange", "exchange"),
];

/// A run of two threads on a link with two queues.
struct Run {
    lab: Direct,
    summary: Value,
}

impl Run {
    fn new() -> Result<Self> {
        let link = LinkConfig::new("access", 1).for_load(1);
        let lab = Direct::new(Mode::Auto, 2, link)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let cores = if cores > 1 { "0,1" } else { "0,0" };
        let dir = lab.lab.dir().display();
        let words = format!(
            "run --rate {RATE} --seconds {SECONDS} --clients {CLIENTS} --renew-share 0.5 --ia both \
             --timeout 5000 --queues 0,1 --cores {cores} --quiet --json --out {dir}/out \
             --grants {dir}/grants"
        );
        let mut run = start(&lab.client_interface, &words)?;
        run.wait_success(TIMEOUT)?;
        let summary = summary(&run.stdout().join("\n"))?;
        println!("{}", summary["counters"]);
        Ok(Self { lab, summary })
    }

    fn counter(&self, name: &str) -> Result<u64> {
        let value = self.summary["counters"][name].as_u64();
        value.with_context(|| format!("no {name} in {}", self.summary["counters"]))
    }

    /// The threads' shares of the load make the whole.
    fn check_counters(&self) -> Result<()> {
        let begun = ["started", "no_client", "no_slot"].map(|name| self.counter(name));
        let begun = begun.into_iter().sum::<Result<u64>>()?;
        ensure!(begun == RATE * SECONDS, "{begun} exchanges of {RATE} per second");
        for (pair, sent, lost) in [
            ("solicit_advertise", "sent_solicit", "lost_advertise"),
            ("request_reply", "sent_request", "lost_reply"),
            ("renew_reply", "sent_renew", "lost_renew_reply"),
        ] {
            let sent = self.counter(sent)?;
            let times = &self.summary["pairs"][pair];
            let answered = times["answered"]["count"].as_u64().unwrap_or(0);
            let all = times["with_losses"]["count"].as_u64().unwrap_or(0);
            ensure!(sent > 0 && all == sent, "{pair}: {sent} sent, {all} timed");
            ensure!(
                answered + self.counter(lost)? == sent,
                "{pair}: {answered} of {sent}: {times}"
            );
        }
        Ok(())
    }

    /// Every client, whichever thread played it, holds what the server says.
    fn check_grants(&self) -> Result<()> {
        let file = self.lab.lab.dir().join("grants");
        let mut granted = read_grants(&file)?;
        granted.sort();
        let half = CLIENTS / 2;
        for (name, clients) in [("first", 0..half), ("second", half..CLIENTS)] {
            let lines = std::fs::read_to_string(&file)?;
            let own = lines.lines().filter(|line| {
                let grant: Value = serde_json::from_str(line).unwrap_or_default();
                grant["client"].as_u64().is_some_and(|client| clients.contains(&client))
            });
            ensure!(own.count() > 0, "no client of the {name} thread holds a lease");
        }
        self.lab.server.assert_leases(&granted)
    }

    /// The lines of `series.csv` are the intervals of the summary and add up to its counters.
    fn check_series(&self, out: &Path) -> Result<()> {
        let text = std::fs::read_to_string(out.join("series.csv"))?;
        let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let head = lines.next().context("no head")?;
        let rows: Vec<Vec<&str>> = lines.collect();
        let series = self.summary["series"].as_array().context("no series")?;
        ensure!(rows.len() == series.len() && rows.len() >= 3, "{text}");
        let column = |name: &str| -> Result<Vec<u64>> {
            let at = head.iter().position(|own| *own == name);
            let at = at.with_context(|| format!("no column {name} in {head:?}"))?;
            rows.iter().map(|row| Ok(row[at].parse()?)).collect()
        };
        for name in ["started", "completed", "lost", "failed", "holding", "memory_kib"] {
            let of_summary: Option<Vec<u64>> = series.iter().map(|i| i[name].as_u64()).collect();
            ensure!(Some(column(name)?) == of_summary, "{name} differs:\n{text}");
        }
        for name in ["started", "completed"] {
            let sum: u64 = column(name)?.iter().sum();
            ensure!(sum == self.counter(name)?, "{sum} {name} in\n{text}");
        }
        let answered: u64 = column("renew_reply_answered")?.iter().sum();
        ensure!(self.summary["pairs"]["renew_reply"]["answered"]["count"] == answered, "{text}");
        // An address and a prefix for each.
        let leases = read_grants(&self.lab.lab.dir().join("grants"))?.len() as u64;
        let holding = column("holding")?;
        ensure!(holding.last() == Some(&(leases / 2)), "{leases} leases, holding {holding:?}");
        ensure!(column("memory_kib")?.iter().all(|kib| *kib > 0), "{text}");
        Ok(())
    }

    /// The histograms of `run.hlog` can be decoded, and have the same times as the summary.
    fn check_log(&self, out: &Path) -> Result<()> {
        let log = out.join("run.hlog").display().to_string();
        let (_, table) = offline(&["view", &log])?;
        let folder = out.display().to_string();
        let (_, diff) = offline(&["diff", &folder, &log, "--json"])?;
        let diff = summary(&diff)?;
        let rows = diff["rows"].as_array().context("no rows")?;
        for (title, pair) in TITLES {
            let times = &self.summary["pairs"][pair]["with_losses"];
            let row = table.lines().find_map(|line| line.strip_prefix(title));
            let count = row.and_then(|row| row.split_whitespace().next());
            let count: u64 = count
                .with_context(|| format!("no {title} in {table}"))?
                .replace(',', "")
                .parse()?;
            ensure!(times["count"] == count, "{title}: {count} in the log, {times}");
            for (percentile, figure) in [("p50", "p50_us"), ("p99", "p99_us"), ("max", "max_us")] {
                let metric = format!("{title} {percentile}");
                let row = rows.iter().find(|row| row["metric"] == metric.as_str());
                let row = row.with_context(|| format!("no {metric} in {diff}"))?;
                ensure!(row["b"]["values"][0] == times[figure], "{metric}: {row}, not {times}");
            }
        }
        let log = std::fs::read_to_string(out.join("run.hlog"))?;
        let entries = log.lines().filter(|line| line.starts_with("Tag=exchange,")).count();
        ensure!(entries >= 2, "{entries} seconds with whole exchanges in the log");
        Ok(())
    }
}

#[test]
fn two_queues_make_one_result() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    let run = Run::new()?;
    let out = run.lab.lab.dir().join("out");
    ensure!(run.summary["passed"] == true, "{}", run.summary["violations"]);
    run.check_counters()?;
    run.check_grants()?;
    run.check_series(&out)?;
    run.check_log(&out)
}
