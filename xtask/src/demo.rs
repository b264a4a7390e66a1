//! `cargo xtask demo`: what the server does, shown on this machine in a minute or two.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gemel_tests::bench::{Highest, Load, Pace, read_grants};
use gemel_tests::clients::{Client, Dhclient, Lease, Wanted};
use gemel_tests::gemel::{Config, LinkConfig, Mode, Server};
use gemel_tests::{Interface, Lab, Link, Process, requirement};
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
    ensure!(
        shown.found == shown.granted,
        "{} of {} leases did not survive the kill",
        shown.granted - shown.found,
        shown.granted
    );
    Ok(())
}

fn say(what: &str) {
    eprintln!("== {what}");
}

/// The lab with the running server.
struct Demo {
    server: Server,
    interface: Interface,
    /// The generator's core; none on a machine with only one.
    generator_core: Option<u32>,
    lab: Lab,
}

/// What the demo showed.
#[derive(Debug)]
struct Shown {
    mode: String,
    client: Vec<Lease>,
    highest: Highest,
    half: Value,
    granted: usize,
    found: usize,
    restart: Duration,
    report: PathBuf,
}

impl Demo {
    fn start() -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        say("making a lab: two network namespaces and a veth pair");
        let lab = Lab::new("demo")?;
        let server_ns = lab.namespace("server")?;
        let client_ns = lab.namespace("client")?;
        let (interface, server_interface) =
            Link::default().connect((&client_ns, "gml-c0"), (&server_ns, "gml-s0"))?;
        server_interface.add_address("2001:db8:1::1/64")?;
        let link = LinkConfig::new("access", 1).for_load(1).on(&server_interface);
        let mut config = Config::new(Mode::Auto, vec![link]);
        // The generator has the first core to itself, the server all others.
        config.pin = (cores > 1).then(|| format!("1-{}", cores - 1));
        let server = Server::start(&lab, &server_ns, &config)?;
        say(&format!(
            "gemel serves in mode {}, its store in {}",
            server.mode()?,
            lab.dir().display()
        ));
        Ok(Self { server, interface, generator_core: (cores > 1).then_some(0), lab })
    }

    fn run(mut self, seconds: f64, report: &Path) -> Result<Shown> {
        let mode = self.server.mode()?;
        say("dhclient asks for an address and a prefix");
        let mut client =
            Client::start(&self.lab, &Dhclient, &self.interface, Wanted::Both, "dhclient")?;
        let leases = client.wait_bound(CLIENT_TIMEOUT)?;
        for lease in &leases {
            eprintln!("   dhclient has {}/{}", lease.address, lease.prefix_len);
        }
        self.server.assert_leases(&leases)?;
        // It would see the generator's replies and slow it down; its lease stays.
        client.process().kill()?;

        let mut granted = Grants::default();
        granted.enter(&leases)?;

        say("looking for the highest rate of exchanges");
        let file = self.lab.dir().join("grants");
        let mut load = Load::new(Pace::Window(1), 0.0, CLIENTS);
        load.core = self.generator_core;
        load.grants = Some(file.clone());
        let highest =
            load.highest_rate(&self.interface, 1.0, || granted.enter(&read_grants(&file)?))?;

        say(&format!("{seconds} s at half of that, {:.0} exchanges/s", highest.per_s / 2.0));
        load.pace = Pace::Rate(highest.per_s / 2.0);
        load.seconds = seconds;
        load.seed = 2;
        load.out = Some(report.to_owned());
        let half = load.run(&self.interface)?;
        granted.enter(&read_grants(&file)?)?;

        say("SIGKILL to the server in the middle of a load as fast as it answers");
        self.kill_under_load(&mut granted)?;

        say("starting the server again");
        let started = Instant::now();
        self.server.restart()?;
        let restart = started.elapsed();
        let found_leases = granted.found_in(&self.server.leases()?)?;

        say("dhclient comes back and asks for what it had");
        client.restart()?;
        ensure!(client.wait_bound(CLIENT_TIMEOUT)? == leases, "dhclient got other leases");
        Ok(Shown {
            mode,
            client: leases,
            highest,
            half,
            granted: granted.leases.len(),
            found: found_leases,
            restart,
            report: report.join("report.html"),
        })
    }

    fn kill_under_load(&mut self, granted: &mut Grants) -> Result<()> {
        let file = self.lab.dir().join("grants");
        let mut load = Load::new(Pace::Window(128), 60.0, CLIENTS);
        load.seed = 3;
        load.core = self.generator_core;
        load.grants = Some(file.clone());
        let mut bench = Process::spawn("gemel-bench", load.command(&self.interface)?)?;
        let before = self.server.leases()?.len();
        gemel_tests::wait::until("the load to get leases", CLIENT_TIMEOUT, || {
            if !bench.is_running()? {
                bail!("gemel-bench has ended:\n{}", bench.tail());
            }
            Ok((self.server.leases()?.len() > before + 1000).then_some(()))
        })?;
        self.server.kill()?;
        bench.signal("INT")?;
        bench.wait_success(CLIENT_TIMEOUT)?;
        granted.enter(&read_grants(&file)?)
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

    fn text(&self) -> String {
        let exchanges = self.half["exchanges"].as_u64().unwrap_or(0);
        let rate = self.half["exchanges_per_s"].as_f64().unwrap_or(0.0);
        let mut lines: Vec<(&str, String)> = vec![("packets over", self.mode.clone())];
        for lease in &self.client {
            let kind = if lease.is_prefix { "dhclient's prefix" } else { "dhclient's address" };
            lines.push((kind, format!("{}/{}", lease.address, lease.prefix_len)));
        }
        lines.extend([
            (
                "highest rate",
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
            ("leases that clients received", self.granted.to_string()),
            (
                "still there after SIGKILL",
                format!("{} (serving again after {:.2?})", self.found, self.restart),
            ),
            ("latency histogram", self.report.display().to_string()),
        ]);
        let mut text = String::new();
        for (name, value) in lines {
            text += &format!("{name:<30} {value}\n");
        }
        text
    }

    fn json(&self) -> Value {
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
            ("bindings_granted", json!(self.granted)),
            ("bindings_after_restart", json!(self.found)),
            ("restart_s", json!(self.restart.as_secs_f64())),
            ("report", json!(self.report)),
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

    #[test]
    fn the_json_has_what_is_promised() {
        let shown = Shown {
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
                "pairs": {"request_reply": {"with_losses": {"p50_us": 1.0, "p99_us": 2.0, "p999_us": 3.0}}},
            }),
            granted: 5,
            found: 5,
            restart: Duration::from_millis(5),
            report: "/x/report.html".into(),
        };
        let json = shown.json();
        for key in [
            "mode",
            "exchanges",
            "exchanges_per_s",
            "p50_us",
            "p99_us",
            "p999_us",
            "lost_replies",
            "bindings_granted",
            "bindings_after_restart",
            "report",
        ] {
            assert!(!json[key].is_null(), "{key} is missing");
        }
        assert_eq!(json["lost_replies"], 3);
        assert!(!json.to_string().contains('\n'));
        assert!(shown.text().contains("2001:db8::1"));
    }
}
