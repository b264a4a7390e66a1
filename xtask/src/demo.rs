//! `cargo xtask demo`: what a pair of servers does, shown on this machine in about two minutes.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gemel_tests::bench::{Disturbed, Highest, Load, Pace, read_grants};
use gemel_tests::clients::{Client, Dhclient, Lease, Wanted};
use gemel_tests::pair::{Direction, Options, Pair, Role};
use gemel_tests::{requirement, wait};
use serde_json::{Value, json};

use crate::cargo::{build_binaries, target_dir};
use crate::setup;

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
    /// How long the load at half the highest rate lasts, in seconds.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

/// Clients that the load generator plays.
const CLIENTS: u32 = 200_000;

/// How long dhclient may take.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the servers may take to notice what became of each other.
const NOTICE: Duration = Duration::from_secs(30);

/// Maximum client lead time, seconds: so long that no lease runs out during the demo.
const MCLT: u32 = 600;

/// The load under which the primary is killed, as a share of the highest rate, and at most.
const FAILOVER_SHARE: f64 = 0.25;
const FAILOVER_RATE_MAX: f64 = 5000.0;

/// When the primary is killed and how long the load lasts, seconds.
const KILL_AT: f64 = 3.0;
const FAILOVER_SECONDS: f64 = 10.0;

/// Leases that the standby gives before the primary is started again.
const MEANWHILE: usize = 1000;

/// Runs the demo.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !requirement::is_root() {
        bail!("the demo makes network namespaces and loads an XDP program: run it as root");
    }
    setup::run()?;
    say("building the server and the load generator");
    requirement::use_binaries_in(&build_binaries()?);
    let report = target_dir()?.join("demo");
    fs::create_dir_all(&report).with_context(|| format!("making {}", report.display()))?;

    let demo = Demo::start()?;
    let shown = demo.run(args.seconds, &report)?;
    println!("{}", shown.text());
    if args.json {
        println!("{}", shown.json());
    }
    shown.verdict()
}

fn say(what: &str) {
    eprintln!("== {what}");
}

/// The lab with the running servers.
struct Demo {
    pair: Pair,
    /// The generator's core; none on a machine with only one.
    generator_core: Option<u32>,
}

/// What the demo showed.
#[derive(Debug)]
struct Shown {
    mode: String,
    client: Vec<Lease>,
    highest: Highest,
    half: Value,
    killed: Killed,
    /// The report of the load in which the primary vanished without a trace.
    vanished: Value,
    report: PathBuf,
}

/// What came of the kill.
#[derive(Debug)]
struct Killed {
    /// The generator's summary.
    summary: Value,
    granted: usize,
    found: usize,
    restart: Duration,
    resync: Duration,
    bindings: [usize; 2],
    report: PathBuf,
}

impl Demo {
    fn start() -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        say(
            "making a lab: clients, two servers, a switch between them, a cable between the servers",
        );
        let options = Options {
            mclt: MCLT,
            // The generator has the first core to itself, the servers all others.
            pins: Role::ALL.map(|_| (cores > 1).then(|| format!("1-{}", cores - 1))),
            ..Options::default()
        };
        let pair = Pair::start("demo", &options)?;
        say(&format!(
            "the pair is in NORMAL state, in mode {}, its stores in {}",
            pair.server(Role::Primary).mode()?,
            pair.lab.dir().display()
        ));
        Ok(Self { pair, generator_core: (cores > 1).then_some(0) })
    }

    fn run(mut self, seconds: f64, report: &Path) -> Result<Shown> {
        let mode = self.pair.server(Role::Primary).mode()?;
        say("dhclient asks for an address and a prefix");
        let mut client =
            Client::start(&self.pair.lab, &Dhclient, &self.pair.client, Wanted::Both, "dhclient")?;
        let leases = client.wait_bound(CLIENT_TIMEOUT)?;
        for lease in &leases {
            eprintln!("   dhclient has {}/{}", lease.address, lease.prefix_len);
        }
        self.pair.wait_equal()?;
        // No client waits for the standby's disk, so that takes a moment.
        let standby = self.pair.server(Role::Secondary);
        wait::until("the standby to have that on its disk", NOTICE, || {
            Ok(standby.assert_leases(&leases).ok())
        })?;
        eprintln!("   and the standby knows it");
        // It would see the generator's replies and slow it down; its lease stays.
        client.process().kill()?;

        let mut granted = Grants::default();
        granted.enter(&leases)?;

        say("looking for the highest rate of exchanges");
        let file = self.pair.lab.dir().join("grants");
        let mut load = Load::new(Pace::Window(1), 0.0, CLIENTS);
        load.core = self.generator_core;
        load.grants = Some(file.clone());
        let highest =
            load.highest_rate(&self.pair.client, 1.0, || granted.enter(&read_grants(&file)?))?;

        say(&format!("{seconds} s at half of that, {:.0} exchanges/s", highest.per_s / 2.0));
        load.pace = Pace::Rate(highest.per_s / 2.0);
        load.seconds = seconds;
        load.seed = 100;
        load.out = Some(report.to_owned());
        let half = load.run(&self.pair.client)?;
        granted.enter(&read_grants(&file)?)?;

        let rate = (highest.per_s * FAILOVER_SHARE).clamp(100.0, FAILOVER_RATE_MAX);
        let killed = self.kill_under_load(rate.round(), &mut granted, &report.join("failover"))?;

        say("the primary vanishes without a trace: both its cables are cut at once");
        let vanished = self.vanish_under_load(rate.round())?;

        say("dhclient comes back and asks for what it had");
        client.restart()?;
        ensure!(client.wait_bound(CLIENT_TIMEOUT)? == leases, "dhclient got other leases");
        Ok(Shown {
            mode,
            client: leases,
            highest,
            half,
            killed,
            vanished,
            report: report.join("report.html"),
        })
    }

    fn disturbed(&self, rate: f64, seed: u64) -> Disturbed {
        let mut load = Disturbed::new(rate, FAILOVER_SECONDS);
        load.seed = seed;
        load.core = self.generator_core;
        load.clients = CLIENTS;
        load.mclt = MCLT;
        load
    }

    fn kill_under_load(
        &mut self,
        rate: f64,
        granted: &mut Grants,
        report: &Path,
    ) -> Result<Killed> {
        say(&format!("SIGKILL to the primary under {rate} exchanges/s, new clients and renewals"));
        let file = self.pair.lab.dir().join("grants");
        let mut load = self.disturbed(rate, 3);
        load.at = vec![(KILL_AT, self.pair.server(Role::Primary).kill_command())];
        load.grants = Some(file.clone());
        load.out = Some(report.to_owned());
        let bench = load.start(&self.pair.client)?;
        let primary = self.pair.server_mut(Role::Primary);
        wait::until("the primary to be killed", NOTICE, || {
            Ok((!primary.process().is_running()?).then_some(()))
        })?;
        let standby = |pair: &Pair| pair.server(Role::Secondary).leases();
        let before = standby(&self.pair)?.len();
        let to_learn = wait::until("the standby to give leases", NOTICE, || {
            let leases = standby(&self.pair)?;
            Ok((leases.len() >= before + MEANWHILE).then_some(leases))
        })?;
        say("starting the primary again while the load goes on");
        let started = Instant::now();
        self.pair.server_mut(Role::Primary).restart()?;
        let restart = started.elapsed();
        self.pair.wait_normal()?;
        wait::until("the primary to know what the standby gave", NOTICE, || {
            let known = self.pair.server(Role::Primary).leases()?;
            let is_known = |lease| known.binary_search(lease).is_ok();
            Ok(to_learn.iter().all(is_known).then_some(()))
        })?;
        let resync = started.elapsed();
        let summary = load.finish(bench)?;
        show_events(&summary);
        granted.enter(&read_grants(&file)?)?;
        say("comparing the databases of both servers");
        let both = self.pair.wait_equal()?.len();
        let found = granted.found_in(&self.pair.server(Role::Primary).leases()?)?;
        let standby = self.pair.server(Role::Secondary).bindings()?.len();
        eprintln!("   the same {both} bindings on both");
        Ok(Killed {
            summary,
            granted: granted.leases.len(),
            found,
            restart,
            resync,
            bindings: [both, standby],
            report: report.join("report.html"),
        })
    }

    /// Nothing tells the standby but the silence, with a keepalive time of a second.
    fn vanish_under_load(&mut self, rate: f64) -> Result<Value> {
        let mut load = self.disturbed(rate, 4);
        let cut = self.pair.cut_command(Direction::Both);
        let unplug = self.pair.carrier_command(Role::Primary, false);
        load.at = vec![(KILL_AT, format!("{cut} && {unplug}"))];
        let summary = load.run(&self.pair.client)?;
        show_events(&summary);
        self.pair.set_carrier(Role::Primary, true)?;
        self.pair.heal()?;
        self.pair.wait_equal()?;
        Ok(summary)
    }
}

fn show_events(summary: &Value) {
    for event in summary["failover"]["events"].as_array().into_iter().flatten() {
        eprintln!(
            "   standby served after {} ms; longest time without any reply {} ms",
            event["takeover_ms"], event["outage_ms"]
        );
    }
}

/// What clients received, by address and length.
#[derive(Debug, Default)]
struct Grants {
    leases: HashMap<(std::net::Ipv6Addr, u8), Lease>,
}

impl Grants {
    fn enter(&mut self, leases: &[Lease]) -> Result<()> {
        for lease in leases {
            let place = (lease.address, lease.prefix_len);
            if let Some(earlier) = self.leases.insert(place, lease.clone())
                && earlier != *lease
            {
                bail!("a lease went to two clients: {earlier:?} and {lease:?}");
            }
        }
        Ok(())
    }

    /// How many of these the server has with the same client.
    fn found_in(&self, leases: &[Lease]) -> Result<usize> {
        let same =
            |lease: &&Lease| self.leases.get(&(lease.address, lease.prefix_len)) == Some(lease);
        Ok(leases.iter().filter(same).count())
    }
}

impl Shown {
    /// A percentile of REQUEST to REPLY at half the highest rate, in microseconds.
    fn percentile(&self, name: &str) -> f64 {
        self.half["pairs"]["request_reply"]["with_losses"][name].as_f64().unwrap_or(f64::NAN)
    }

    fn lost(&self) -> u64 {
        let count = |key: &str| self.half[key].as_u64().unwrap_or(u64::MAX / 4);
        count("lost_replies") + count("lost_advertises")
    }

    /// A count over both failovers.
    fn count(&self, name: &str) -> u64 {
        [&self.killed.summary, &self.vanished]
            .iter()
            .map(|summary| summary["failover"][name].as_u64().unwrap_or(u64::MAX / 4))
            .sum()
    }

    /// What the standby leaves without an answer: of leases that only the lost primary knew.
    fn rebinds_lost(&self) -> u64 {
        [&self.killed.summary, &self.vanished]
            .iter()
            .filter_map(|summary| summary["counters"]["lost_rebind_reply"].as_u64())
            .sum()
    }

    fn takeover_ms(summary: &Value) -> f64 {
        summary["failover"]["takeover_ms"].as_f64().unwrap_or(f64::NAN)
    }

    /// Insists that it was a good show.
    fn verdict(&self) -> Result<()> {
        let Killed { granted, found, bindings, .. } = &self.killed;
        ensure!(found == granted, "{} of {granted} leases did not survive", granted - found);
        ensure!(bindings[0] == bindings[1], "the servers have {bindings:?} bindings");
        for count in ["duplicates", "renumbered", "forgotten"] {
            ensure!(self.count(count) == 0, "{} {count}", self.count(count));
        }
        for summary in [&self.killed.summary, &self.vanished] {
            ensure!(Self::takeover_ms(summary).is_finite(), "the standby did not take over");
        }
        Ok(())
    }

    fn text(&self) -> String {
        let exchanges = self.half["exchanges"].as_u64().unwrap_or(0);
        let rate = self.half["exchanges_per_s"].as_f64().unwrap_or(0.0);
        let killed = &self.killed;
        let mut lines: Vec<(&str, String)> = vec![("packets over", self.mode.clone())];
        for lease in &self.client {
            let kind = if lease.is_prefix { "dhclient's prefix" } else { "dhclient's address" };
            lines.push((kind, format!("{}/{}", lease.address, lease.prefix_len)));
        }
        lines.extend([
            (
                "highest rate of the pair",
                format!(
                    "{:.0} exchanges/s (limit: {})",
                    self.highest.per_s, self.highest.limited_by
                ),
            ),
            ("at half of that", format!("{exchanges} exchanges, {rate:.0} per second")),
            (
                "REQUEST to REPLY",
                format!(
                    "p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, each reply on stable storage",
                    self.percentile("p50_us"),
                    self.percentile("p99_us"),
                    self.percentile("p999_us")
                ),
            ),
            ("messages without an answer", self.lost().to_string()),
            (
                "SIGKILL to the primary",
                format!("the standby served after {:.1} ms", Self::takeover_ms(&killed.summary)),
            ),
            (
                "primary gone without a trace",
                format!(
                    "the standby served after {:.0} ms (keepalive time 1 s)",
                    Self::takeover_ms(&self.vanished)
                ),
            ),
            (
                "clients meanwhile",
                format!(
                    "{} duplicates, {} renumbered, {} forgotten; {} messages never answered, {} of \
                     them REBIND",
                    self.count("duplicates"),
                    self.count("renumbered"),
                    self.count("forgotten"),
                    self.count("lost"),
                    self.rebinds_lost()
                ),
            ),
            (
                "primary started again",
                format!(
                    "serving after {:.2?}, knows what it missed after {:.2?}",
                    killed.restart, killed.resync
                ),
            ),
            (
                "bindings",
                format!(
                    "{} on the primary, {} on the standby",
                    killed.bindings[0], killed.bindings[1]
                ),
            ),
            ("leases that clients received", killed.granted.to_string()),
            ("still there afterwards", killed.found.to_string()),
            ("latency histogram", self.report.display().to_string()),
            ("the failover, second by second", killed.report.display().to_string()),
        ]);
        let mut text = String::new();
        for (name, value) in lines {
            text += &format!("{name:<30} {value}\n");
        }
        text
    }

    fn json(&self) -> Value {
        let killed = &self.killed;
        let fields: BTreeMap<&str, Value> = [
            ("mode", json!(self.mode)),
            ("max_exchanges_per_s", json!(self.highest.per_s)),
            ("limited_by", json!(self.highest.limited_by)),
            ("undisturbed", self.half["valid"].clone()),
            ("exchanges", self.half["exchanges"].clone()),
            ("exchanges_per_s", self.half["exchanges_per_s"].clone()),
            ("p50_us", json!(self.percentile("p50_us"))),
            ("p99_us", json!(self.percentile("p99_us"))),
            ("p999_us", json!(self.percentile("p999_us"))),
            ("lost_replies", json!(self.lost())),
            ("bindings_granted", json!(killed.granted)),
            ("bindings_after_restart", json!(killed.found)),
            ("restart_s", json!(killed.restart.as_secs_f64())),
            ("takeover_ms", json!(Self::takeover_ms(&killed.summary))),
            ("outage_ms", killed.summary["failover"]["outage_ms"].clone()),
            ("silent_takeover_ms", json!(Self::takeover_ms(&self.vanished))),
            ("duplicates", json!(self.count("duplicates"))),
            ("renumbered", json!(self.count("renumbered"))),
            ("forgotten", json!(self.count("forgotten"))),
            ("lost_in_failover", json!(self.count("lost"))),
            ("bindings_primary", json!(killed.bindings[0])),
            ("bindings_standby", json!(killed.bindings[1])),
            ("resync_s", json!(killed.resync.as_secs_f64())),
            ("report", json!(self.report)),
            ("failover_report", json!(killed.report)),
        ]
        .into();
        json!(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(address: &str, duid: &str) -> Lease {
        Lease {
            is_prefix: false,
            address: address.parse().unwrap(),
            prefix_len: 128,
            duid: duid.to_owned(),
            iaid: 1,
        }
    }

    #[test]
    fn a_lease_with_another_client_does_not_count_as_found() {
        let mut granted = Grants::default();
        granted.enter(&[lease("2001:db8::1", "a"), lease("2001:db8::2", "b")]).unwrap();
        let after = [lease("2001:db8::1", "a"), lease("2001:db8::2", "c"), lease("::3", "d")];
        assert_eq!(granted.found_in(&after).unwrap(), 1);
        assert!(granted.enter(&[lease("2001:db8::1", "z")]).is_err());
    }

    fn failover(takeover_ms: f64, duplicates: u64) -> Value {
        json!({"failover": {
            "takeover_ms": takeover_ms, "outage_ms": 12.5, "duplicates": duplicates, "renumbered": 0,
            "forgotten": 0, "lost": 3,
        }})
    }

    fn shown() -> Shown {
        Shown {
            mode: "native".into(),
            client: vec![lease("2001:db8::1", "a")],
            highest: Highest {
                per_s: 2000.0,
                limited_by: "server",
                undisturbed: true,
                closed_loop_per_s: 2100.0,
            },
            half: json!({
                "exchanges": 10, "exchanges_per_s": 1000.0, "lost_replies": 1, "lost_advertises": 2,
                "valid": true,
                "pairs": {"request_reply": {"with_losses": {"p50_us": 1.0, "p99_us": 2.0, "p999_us": 3.0}}},
            }),
            killed: Killed {
                summary: failover(11.0, 0),
                granted: 5,
                found: 5,
                restart: Duration::from_millis(5),
                resync: Duration::from_millis(50),
                bindings: [7, 7],
                report: "/x/failover/report.html".into(),
            },
            vanished: failover(1400.0, 0),
            report: "/x/report.html".into(),
        }
    }

    #[test]
    fn the_json_has_what_is_promised() {
        let json = shown().json();
        for (key, value) in json.as_object().unwrap() {
            assert!(!value.is_null(), "{key} is missing");
        }
        assert_eq!((&json["lost_replies"], &json["lost_in_failover"]), (&json!(3), &json!(6)));
        assert_eq!((&json["takeover_ms"], &json["resync_s"]), (&json!(11.0), &json!(0.05)));
        assert!(!json.to_string().contains('\n'));
        assert!(shown().text().contains("2001:db8::1"));
        assert!(shown().text().contains("/x/failover/report.html"));
    }

    #[test]
    fn a_bad_show_is_told() {
        shown().verdict().unwrap();
        let mut duplicate = shown();
        duplicate.vanished = failover(1400.0, 1);
        let mut lost = shown();
        lost.killed.found = 4;
        let mut differing = shown();
        differing.killed.bindings[1] = 6;
        let mut idle = shown();
        idle.killed.summary["failover"]["takeover_ms"] = Value::Null;
        for bad in [duplicate, lost, differing, idle] {
            assert!(bad.verdict().is_err(), "{bad:?}");
        }
    }
}
