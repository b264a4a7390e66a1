//! `cargo xtask bench large`: what changes with millions of bindings.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gemel_tests::bench::{Disturbed, Load, Pace};
use gemel_tests::clients::Wanted;
use gemel_tests::gemel::{Durability, Mode, Server};
use gemel_tests::{Interface, wait};
use serde_json::json;

use super::cases::One;
use super::spread;

/// Arguments of `cargo xtask bench large`.
#[derive(Debug, clap::Args)]
pub(crate) struct Large {
    /// Bindings.
    #[arg(long, default_value_t = 10_000_000)]
    bindings: u32,
    /// How often each rate is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Length of each of these measurements, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Core of the server, with all its threads.
    #[arg(long, default_value_t = 1)]
    server_core: u32,
    /// Core of the generator.
    #[arg(long, default_value_t = 0)]
    generator_core: u32,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
}

/// Clients of a small network.
const FEW: u32 = 10_000;
/// Seeds of the clients' identities.
const FEW_SEED: u64 = 1;
const MANY_SEED: u64 = 2;
/// Exchanges outstanding.
const WINDOW: u32 = 1024;
/// Clients that renew while the server is started anew, and how often in a second.
const RENEWING: u32 = 200;
const RENEWALS: f64 = 500.0;
/// How long such a load lasts: the server has to come back meanwhile.
const RESTART_SECONDS: f64 = 30.0;
/// How long the server may take for what it does without clients.
const PATIENCE: Duration = Duration::from_secs(300);

impl Large {
    pub(super) fn run(&self) -> Result<()> {
        let mut one = One::start(
            self.server_core,
            Mode::Auto,
            Durability::PowerLoss,
            self.bindings as usize,
        )?;
        self.fill(&one.client, FEW, FEW_SEED)?;
        let small = self.rates(&one.client, FEW, FEW_SEED)?;
        println!("{FEW} bindings: {}", rate_text(&small));

        let begun = Instant::now();
        self.fill(&one.client, self.bindings - FEW, MANY_SEED)?;
        println!("{} bindings made in {:.0} s", self.bindings, begun.elapsed().as_secs_f64());
        let bytes = anonymous_memory(&mut one.server)?;
        let each = bytes / f64::from(self.bindings);
        println!("{each:.0} bytes of anonymous memory for each");
        let large = self.rates(&one.client, self.bindings - FEW, MANY_SEED)?;
        let ratio = spread(large.iter().copied()).0 / spread(small.iter().copied()).0;
        println!("{} bindings: {}, {ratio:.2} of that", self.bindings, rate_text(&large));

        let Restart { outage_ms, killing_ms, ready_ms } = self.restart(&mut one)?;
        let first_ms = outage_ms - killing_ms;
        println!(
            "killed and started again: the first REPLY to a renewing client {outage_ms:.0} ms after \
             the last one and {first_ms:.0} ms after the start; the log said ready {ready_ms:.0} ms \
             after the start"
        );
        if self.json {
            let report = json!({
                "bindings": self.bindings,
                "bytes_each": each,
                "rate_small": small,
                "rate_large": large,
                "ratio": ratio,
                "restart_outage_ms": outage_ms,
                "restart_first_reply_ms": first_ms,
                "restart_ready_ms": ready_ms,
            });
            println!("{report}");
        }
        Ok(())
    }

    /// Gives each of so many clients an address.
    fn fill(&self, client: &Interface, clients: u32, seed: u64) -> Result<()> {
        let mut load = self.load(clients, seed);
        load.seconds = PATIENCE.as_secs_f64() * 10.0;
        let mut command = load.command(client)?;
        command.args(["--exchanges", &clients.to_string(), "--timeout", "5000"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let status = command.status().with_context(|| format!("starting {command:?}"))?;
        if !status.success() {
            bail!("gemel-bench ended with {status}");
        }
        Ok(())
    }

    fn load(&self, clients: u32, seed: u64) -> Load {
        let mut load = Load::new(Pace::Window(WINDOW.min(clients)), self.seconds, clients);
        load.wanted = Wanted::Address;
        load.core = Some(self.generator_core);
        load.seed = seed;
        load
    }

    /// Exchanges per second of clients that are known already, as fast as answered.
    fn rates(&self, client: &Interface, clients: u32, seed: u64) -> Result<Vec<f64>> {
        (0..self.repetitions)
            .map(|_| {
                let summary = self.load(clients, seed).run(client)?;
                summary["exchanges_per_s"].as_f64().context("no exchanges_per_s in the summary")
            })
            .collect()
    }

    /// Kills the server under renewing clients and starts it again.
    fn restart(&self, one: &mut One) -> Result<Restart> {
        let mut load = Disturbed::new(RENEWALS, RESTART_SECONDS);
        load.returning = 1.0;
        load.clients = RENEWING;
        load.wanted = Wanted::Address;
        load.core = Some(self.generator_core);
        load.seed = 3;
        let sent =
            |server: &Server| Ok::<_, anyhow::Error>(server.counters()?["sent"]["REPLY"].clone());
        let before = sent(&one.server)?.as_u64().unwrap_or(0);
        let process = load.start(&one.client)?;
        wait::until("the load to be on", PATIENCE, || {
            let now = sent(&one.server)?.as_u64().unwrap_or(0);
            Ok((now > before + 2 * u64::from(RENEWING)).then_some(()))
        })?;
        // The load counts its outage from here.
        let told = Instant::now();
        process.signal("USR1")?;
        one.server.kill()?;
        let begun = Instant::now();
        let killing_ms = (begun - told).as_secs_f64() * 1000.0;
        one.server.restart()?;
        let ready_ms = begun.elapsed().as_secs_f64() * 1000.0;
        let summary = load.finish(process)?;
        let outage_ms =
            summary["failover"]["outage_ms"].as_f64().context("no outage in the summary")?;
        Ok(Restart { outage_ms, killing_ms, ready_ms })
    }
}

/// What a restart took, in milliseconds.
struct Restart {
    /// How long no REPLY came.
    outage_ms: f64,
    /// The part of that in which the old process died.
    killing_ms: f64,
    /// From the start of the new one until its log said that it serves in full.
    ready_ms: f64,
}

fn rate_text(rates: &[f64]) -> String {
    let (median, low, high) = spread(rates.iter().copied());
    format!("{median:.0} exchanges/s ({low:.0} to {high:.0}, {} times)", rates.len())
}

/// Memory of the server that no file stands behind, in bytes.
fn anonymous_memory(server: &mut Server) -> Result<f64> {
    let path = format!("/proc/{}/smaps_rollup", server.process().pid());
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let kilobytes = text
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:")?.split_whitespace().next())
        .with_context(|| format!("no line Anonymous in {path}"))?;
    Ok(kilobytes.parse::<f64>()? * 1024.0)
}
