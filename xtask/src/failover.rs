//! `cargo xtask failover`: what a failover costs, in figures: the time until the standby serves, what
//! clients pay while both work, and how long a server without memory takes to learn everything.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use gemel_tests::bench::{Disturbed, Load, Pace};
use gemel_tests::clients::Wanted;
use gemel_tests::gemel::Server;
use gemel_tests::pair::{Direction, Options, Pair, Role};
use gemel_tests::wait;
use serde_json::{Value, json};

use crate::bench::spread;
use crate::measuring::{self, Cores};

/// Arguments of `cargo xtask failover`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often the primary is killed, and how often it vanishes without a trace.
    #[arg(long, default_value_t = 10)]
    kills: u32,
    /// How often latency is measured with and without a partner, in turn.
    #[arg(long, default_value_t = 5)]
    repetitions: u32,
    /// Bindings that a server without memory has to learn; 0 leaves that out.
    #[arg(long, default_value_t = 1_000_000)]
    bindings: usize,
    /// Load during failover and for latency, exchanges per second.
    #[arg(long, default_value_t = 1000.0)]
    rate: f64,
    /// Length of each measurement of latency, in seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[command(flatten)]
    cores: Cores,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
}

/// When a load loses its primary, seconds.
const EVENT_AT: f64 = 2.0;

/// How long it goes on after that.
const AFTER: f64 = 4.0;

/// How long a server may take to be what it should.
const NOTICE: Duration = Duration::from_secs(60);

/// How long the databases may take to be filled or learned.
const LONG: Duration = Duration::from_secs(900);

/// So long that no lease of a filled database runs out, seconds.
const LONG_MCLT: u32 = 3600;

/// Runs the measurements.
pub(crate) fn run(args: &Args) -> Result<()> {
    measuring::prepare()?;

    let takeover = (args.kills > 0).then(|| takeovers(args)).transpose()?;
    let latency = (args.repetitions > 0).then(|| latency(args)).transpose()?;
    let learning = (args.bindings > 0).then(|| learning(args)).transpose()?;

    if let Some(takeover) = &takeover {
        println!("{}", takeover.text());
    }
    if let Some(latency) = &latency {
        println!("{}", latency.text(args));
    }
    if let Some(learning) = &learning {
        println!("{}", learning.text());
    }
    println!("veth; one core for both servers, one for the generator");
    if args.json {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let report = json!({
            "at": now,
            "kernel": kernel.trim(),
            "link": "veth",
            "server_core": args.cores.server_core,
            "generator_core": args.cores.generator_core,
            "rate": args.rate,
            "takeover": takeover.as_ref().map(Takeovers::json),
            "latency": latency.as_ref().map(Latency::json),
            "updreqall": learning.as_ref().map(Learning::json),
        });
        println!("{report}");
    }
    Ok(())
}

fn options(args: &Args, mclt: u32) -> Options {
    let pins = Role::ALL.map(|_| Some(args.cores.server_core.to_string()));
    Options { mclt, pins, ..Options::default() }
}

fn figures(values: &[f64]) -> Value {
    let (median, low, high) = spread(values.iter().copied());
    json!({"median": median, "low": low, "high": high, "count": values.len()})
}

fn in_words(values: &[f64], unit: &str) -> String {
    let (median, low, high) = spread(values.iter().copied());
    format!("{median:.1} {unit} ({low:.1} to {high:.1}, {} times)", values.len())
}

/// How long clients waited for the standby.
#[derive(Debug, Default)]
struct Takeovers {
    /// From SIGKILL to the first lease given by the standby, ms.
    killed: Vec<f64>,
    /// The longest time without any REPLY then.
    killed_outage: Vec<f64>,
    /// The same when the primary vanishes and only its silence tells; keepalive time 1 s.
    vanished: Vec<f64>,
    vanished_outage: Vec<f64>,
    broken: u64,
    lost: u64,
}

fn takeovers(args: &Args) -> Result<Takeovers> {
    let mut pair = Pair::start("takeover", &options(args, 60))?;
    let mut found = Takeovers::default();
    for round in 0..args.kills {
        let kill = pair.server(Role::Primary).kill_command();
        let report = one_takeover(args, &pair, round, kill)?;
        found.killed.push(takeover_ms(&report)?);
        found.killed_outage.push(report["outage_ms"].as_f64().unwrap_or(f64::NAN));
        found.count(&report);
        pair.server_mut(Role::Primary).restart()?;
        pair.wait_equal()?;
        eprintln!("round {}: SIGKILL, {:.1} ms", round + 1, takeover_ms(&report)?);

        let vanish = format!(
            "{} && {}",
            pair.cut_command(Direction::Both),
            pair.carrier_command(Role::Primary, false)
        );
        let report = one_takeover(args, &pair, args.kills + round, vanish)?;
        found.vanished.push(takeover_ms(&report)?);
        found.vanished_outage.push(report["outage_ms"].as_f64().unwrap_or(f64::NAN));
        found.count(&report);
        pair.set_carrier(Role::Primary, true)?;
        pair.heal()?;
        pair.wait_equal()?;
        eprintln!("round {}: vanished, {:.1} ms", round + 1, takeover_ms(&report)?);
    }
    Ok(found)
}

fn one_takeover(args: &Args, pair: &Pair, seed: u32, event: String) -> Result<Value> {
    let mut load = Disturbed::new(args.rate, EVENT_AT + AFTER);
    load.seed = u64::from(seed) + 1;
    load.core = Some(args.cores.generator_core);
    load.at = vec![(EVENT_AT, event)];
    let summary = load.run(&pair.client)?;
    Ok(summary["failover"].clone())
}

fn takeover_ms(report: &Value) -> Result<f64> {
    report["takeover_ms"].as_f64().with_context(|| format!("nobody took over: {report}"))
}

impl Takeovers {
    fn count(&mut self, report: &Value) {
        let number = |key: &str| report[key].as_u64().unwrap_or(0);
        self.broken += number("duplicates") + number("renumbered") + number("forgotten");
        self.lost += number("lost");
    }

    fn text(&self) -> String {
        format!(
            "SIGKILL to the primary: standby serves after {}, longest silence {}\n\
             primary vanishes, keepalive time 1 s: standby serves after {}, longest silence {}\n\
             duplicates, renumbered or forgotten clients: {}; messages never answered: {}",
            in_words(&self.killed, "ms"),
            in_words(&self.killed_outage, "ms"),
            in_words(&self.vanished, "ms"),
            in_words(&self.vanished_outage, "ms"),
            self.broken,
            self.lost
        )
    }

    fn json(&self) -> Value {
        json!({
            "sigkill_ms": figures(&self.killed),
            "sigkill_outage_ms": figures(&self.killed_outage),
            "vanished_ms": figures(&self.vanished),
            "vanished_outage_ms": figures(&self.vanished_outage),
            "violations": self.broken,
            "lost": self.lost,
        })
    }
}

/// What clients pay for a partner while both servers work.
#[derive(Debug, Default)]
struct Latency {
    /// REQUEST to REPLY in microseconds, median and 99th percentile: without a partner, with one.
    alone: [Vec<f64>; 2],
    paired: [Vec<f64>; 2],
}

fn latency(args: &Args) -> Result<Latency> {
    let mut found = Latency::default();
    // In turn, so that whatever changes on the machine in the meantime touches both alike.
    for round in 0..args.repetitions {
        for paired in [false, true] {
            let mut pair = Pair::start("latency", &options(args, LONG_MCLT))?;
            if !paired {
                // The same lab; the primary works on its own, as a server without `[[failover]]`.
                pair.server_mut(Role::Secondary).stop()?;
                let mut config = pair.config(Role::Primary).clone();
                config.failover = None;
                let primary = pair.server_mut(Role::Primary);
                primary.stop()?;
                primary.lose_disk()?;
                primary.reconfigure(&config)?;
                primary.restart()?;
            }
            let mut load = Load::new(Pace::Rate(args.rate), args.seconds, 100_000);
            load.core = Some(args.cores.generator_core);
            load.renew_share = 0.5;
            // Warm up, then measure.
            Load { seconds: 1.0, seed: 9, ..load.clone() }.run(&pair.client)?;
            let [p50, p99] = request_reply(&load.run(&pair.client)?)?;
            eprintln!(
                "round {}, {}: p50 {p50:.0} us, p99 {p99:.0} us",
                round + 1,
                if paired { "with a partner" } else { "alone" }
            );
            let times = if paired { &mut found.paired } else { &mut found.alone };
            times[0].push(p50);
            times[1].push(p99);
        }
    }
    Ok(found)
}

fn request_reply(summary: &Value) -> Result<[f64; 2]> {
    let times = &summary["pairs"]["request_reply"]["with_losses"];
    let time = |key: &str| times[key].as_f64().with_context(|| format!("no {key} in {times}"));
    Ok([time("p50_us")?, time("p99_us")?])
}

impl Latency {
    fn text(&self, args: &Args) -> String {
        format!(
            "REQUEST to REPLY at {:.0} exchanges/s alone: p50 {}, p99 {}\n\
             with a partner: p50 {}, p99 {}",
            args.rate,
            in_words(&self.alone[0], "us"),
            in_words(&self.alone[1], "us"),
            in_words(&self.paired[0], "us"),
            in_words(&self.paired[1], "us"),
        )
    }

    fn json(&self) -> Value {
        json!({
            "alone": {"p50_us": figures(&self.alone[0]), "p99_us": figures(&self.alone[1])},
            "paired": {"p50_us": figures(&self.paired[0]), "p99_us": figures(&self.paired[1])},
        })
    }
}

/// A server without memory asks for everything.
#[derive(Debug)]
struct Learning {
    bindings: usize,
    /// From the connection to UPDDONE.
    took: Duration,
    /// REQUEST to REPLY in microseconds, median and 99th percentile, before and meanwhile.
    before: [f64; 2],
    meanwhile: [f64; 2],
    lost: u64,
}

fn learning(args: &Args) -> Result<Learning> {
    let mut options = options(args, LONG_MCLT);
    options.expected_bindings = Some(args.bindings * 3 / 2);
    let mut pair = Pair::start("learning", &options)?;
    fill(args, &mut pair)?;

    let mut load = Load::new(Pace::Rate(args.rate), args.seconds, 100_000);
    load.core = Some(args.cores.generator_core);
    load.seed = 7;
    let before = request_reply(&load.run(&pair.client)?)?;

    let secondary = pair.server_mut(Role::Secondary);
    secondary.kill()?;
    secondary.lose_disk()?;
    secondary.launch_again()?;
    // The log tells at once; the status is made anew once a second.
    secondary.process().wait_for_line(" INFO connected", NOTICE)?;
    let began = Instant::now();
    load.seed = 8;
    // Longer than it will take; it is ended when that is clear.
    load.seconds = LONG.as_secs_f64();
    let mut bench = gemel_tests::Process::spawn("gemel-bench", load.command(&pair.client)?)?;
    pair.server_mut(Role::Secondary).process().wait_for_line("UPDDONE", LONG)?;
    let took = began.elapsed();
    bench.signal("INT")?;
    bench.wait_success(NOTICE)?;
    let summary = gemel_tests::bench::summary(&bench.stdout().join("\n"))?;
    let bindings = count(pair.server(Role::Secondary))?;
    ensure!(bindings >= args.bindings, "the secondary has learned {bindings} bindings");
    Ok(Learning {
        bindings,
        took,
        before,
        meanwhile: request_reply(&summary)?,
        lost: summary["lost_replies"].as_u64().unwrap_or(0)
            + summary["lost_advertises"].as_u64().unwrap_or(0),
    })
}

/// Lets clients take leases until both servers have enough.
fn fill(args: &Args, pair: &mut Pair) -> Result<()> {
    // An address and a prefix for each.
    let clients = u32::try_from(args.bindings.div_ceil(2)).context("too many bindings")?;
    let mut load = Load::new(Pace::Window(128), LONG.as_secs_f64(), clients);
    load.core = Some(args.cores.generator_core);
    load.wanted = Wanted::Both;
    let mut bench = gemel_tests::Process::spawn("gemel-bench", load.command(&pair.client)?)?;
    let started = Instant::now();
    wait::until("the primary to have given enough leases", LONG, || {
        ensure!(bench.is_running()?, "gemel-bench has ended:\n{}", bench.tail());
        Ok((count(pair.server(Role::Primary))? >= args.bindings).then_some(()))
    })?;
    bench.signal("INT")?;
    bench.wait_success(NOTICE)?;
    eprintln!("{} bindings given in {:.1?}", args.bindings, started.elapsed());
    wait::until("the secondary to know of them", LONG, || {
        Ok((count(pair.server(Role::Secondary))? >= args.bindings).then_some(()))
    })?;
    eprintln!("known to both after {:.1?}", started.elapsed());
    Ok(())
}

/// Active bindings of a server.
fn count(server: &Server) -> Result<usize> {
    let status = server.status()?;
    let active = status["bindings_by_status"]["active"].as_u64().unwrap_or(0);
    Ok(usize::try_from(active)?)
}

impl Learning {
    fn per_s(&self) -> f64 {
        f64::from(u32::try_from(self.bindings).unwrap_or(u32::MAX)) / self.took.as_secs_f64()
    }

    fn text(&self) -> String {
        format!(
            "UPDREQALL: {} bindings in {:.2} s, {:.0} per second; clients of the partner meanwhile \
             p50 {:.0} us, p99 {:.0} us (before {:.0}, {:.0}), {} lost",
            self.bindings,
            self.took.as_secs_f64(),
            self.per_s(),
            self.meanwhile[0],
            self.meanwhile[1],
            self.before[0],
            self.before[1],
            self.lost
        )
    }

    fn json(&self) -> Value {
        json!({
            "bindings": self.bindings,
            "seconds": self.took.as_secs_f64(),
            "bindings_per_s": self.per_s(),
            "before_p50_us": self.before[0],
            "before_p99_us": self.before[1],
            "meanwhile_p50_us": self.meanwhile[0],
            "meanwhile_p99_us": self.meanwhile[1],
            "lost": self.lost,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_medians_with_their_range() {
        let found = figures(&[3.0, 1.0, 2.0]);
        assert_eq!((&found["median"], &found["high"]), (&json!(2.0), &json!(3.0)));
        assert_eq!(in_words(&[3.0, 1.0, 2.0], "ms"), "2.0 ms (1.0 to 3.0, 3 times)");
    }

    #[test]
    fn a_report_without_takeover_is_an_error() {
        assert!(takeover_ms(&json!({"takeover_ms": null})).is_err());
        assert_eq!(takeover_ms(&json!({"takeover_ms": 7.5})).unwrap(), 7.5);
        let mut found = Takeovers::default();
        found.count(&json!({"duplicates": 1, "renumbered": 2, "forgotten": 3, "lost": 4}));
        assert_eq!((found.broken, found.lost), (6, 4));
    }

    #[test]
    fn rates_follow_from_count_and_time() {
        let learning = Learning {
            bindings: 1_000_000,
            took: Duration::from_secs(10),
            before: [1.0, 2.0],
            meanwhile: [3.0, 4.0],
            lost: 0,
        };
        assert_eq!(learning.json()["bindings_per_s"], json!(100_000.0));
        assert!(learning.text().contains("100000 per second"), "{}", learning.text());
    }
}
