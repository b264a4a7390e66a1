//! The command line.

use std::{
    fs,
    io::{BufWriter, Write},
    net::{Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    clock::Clock,
    diff::{DiffArgs, diff},
    engine::{Engine, Patience, World, slots_for_rate},
    events::{At, Events},
    failover::FailoverReport,
    find_max::{Found, LimitedBy, Search, Step},
    generator,
    machine::Environment,
    message::{InterfaceId, RELAY_DEPTH_MAX, RelayPath, Traffic},
    number::whole,
    os::{self, Interface},
    port::{AnyPort, Endpoint, Mode, Port},
    prometheus::{self, Published},
    record::Recorder,
    report::{self, Live, Measured, Setup, Summary},
    schedule::{Pace, Schedule},
    slo::Slo,
    stats::Stats,
    view::{ViewArgs, view},
};

/// The run was good.
const OK: u8 = 0;
/// The server broke a rule, or the run could not be made.
const FAILED: u8 = 1;
/// An objective was missed.
const SLO_MISSED: u8 = 3;

/// Open-loop load generator for DHCPv6 servers.
///
/// Exit status: 0 good, 1 the server broke a rule (or the run could not be made), 2 wrong usage,
/// 3 an objective of --slo was missed.
#[derive(Debug, Parser)]
#[command(name = "gemel-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One run at a fixed rate, or as fast as answered.
    Run(RunArgs),
    /// Search for the highest rate within a loss limit.
    FindMax(FindMaxArgs),
    /// One run at a fixed rate in the middle of which something happens to the servers.
    ///
    /// Clients behave as RFC 8415 has it, only faster: they send again, and turn from a server that
    /// does not answer to any other. By default they send again after 100 ms, turn to any server
    /// after 500 ms and give up after 10 s. SIGUSR1 and SIGUSR2 mark an event that somebody else
    /// brings about.
    Failover(FailoverArgs),
    /// The report of stored runs again, several of them put together.
    View(ViewArgs),
    /// Two runs, or two sets of repetitions, side by side.
    Diff(DiffArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Exchanges per second, whatever the server does (open loop).
    #[arg(long, value_name = "R", required_unless_present = "window", value_parser = rate)]
    rate: Option<f64>,
    /// As fast as answered, with this many exchanges outstanding (closed loop).
    #[arg(long, value_name = "W", conflicts_with = "rate",
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    window: Option<u32>,
    /// Length of the run.
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = rate)]
    seconds: f64,
    /// End after this many exchanges, if that is sooner.
    #[arg(long, value_name = "K")]
    exchanges: Option<u64>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct FindMaxArgs {
    /// First rate, exchanges per second.
    #[arg(long, value_name = "R", default_value_t = 1000.0, value_parser = rate)]
    from: f64,
    /// Highest rate to try.
    #[arg(long, value_name = "R", default_value_t = 1_000_000.0, value_parser = rate)]
    to: f64,
    /// Share of exchanges that may be lost, refused or invalid, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.1)]
    loss: f64,
    /// Limit of the 99th percentile of the whole exchange, in milliseconds.
    #[arg(long, value_name = "MS")]
    p99_ms: Option<f64>,
    /// Length of each step.
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = rate)]
    step_seconds: f64,
    /// Stop when the bounds are this close, in percent of the rate.
    #[arg(long, value_name = "PERCENT", default_value_t = 3.0)]
    precision: f64,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct FailoverArgs {
    /// Exchanges per second, whatever the servers do (open loop).
    #[arg(long, value_name = "R", default_value_t = 1000.0, value_parser = rate)]
    rate: f64,
    /// Length of the run.
    #[arg(long, value_name = "S", default_value_t = 20.0, value_parser = rate)]
    seconds: f64,
    /// Share of exchanges, 0 to 1, of clients that come back: they renew. The others are new
    /// clients, as long as there are any.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = share)]
    returning: f64,
    /// Run a shell command at this time from the start of the run; may be given several times.
    #[arg(long, value_name = "SECONDS:COMMAND")]
    at: Vec<At>,
    /// The pair's MCLT: grants with a valid lifetime of at most this many seconds are counted.
    #[arg(long, value_name = "S")]
    mclt: Option<u32>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct CommonArgs {
    /// Interface towards the server.
    #[arg(long, short, value_name = "IF")]
    interface: String,
    /// How packets go.
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    mode: Mode,
    /// Queue of the interface (AF_XDP).
    #[arg(long, value_name = "Q", default_value_t = 0)]
    queue: u32,
    /// Number of clients.
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// What clients ask for.
    #[arg(long, value_enum, default_value_t = IaChoice::Na)]
    ia: IaChoice,
    /// Ask for Rapid Commit: SOLICIT, REPLY.
    #[arg(long)]
    rapid_commit: bool,
    /// Share of exchanges, 0 to 1, in which a client that holds a lease renews it.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    renew_share: f64,
    /// How long an answer is waited for, in milliseconds [default: 1000, with failover 10000].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout: Option<u64>,
    /// Send a message again that has no answer after this many milliseconds, and then after twice
    /// the time, and so on (RFC 8415 section 15).
    #[arg(long, value_name = "MS", num_args = 0..=1, default_missing_value = "100",
          value_parser = clap::value_parser!(u64).range(1..=600_000))]
    retransmit: Option<u64>,
    /// Turn to any server when the one that was asked by name has not answered for this many
    /// milliseconds: REBIND follows RENEW, and a new SOLICIT follows REQUEST.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=600_000))]
    any_server: Option<u64>,
    /// Send through a chain of this many relay agents.
    #[arg(long, value_name = "DEPTH", num_args = 0..=1, default_value_t = 0,
          default_missing_value = "1",
          value_parser = clap::value_parser!(u8).range(0..=32))]
    relay: u8,
    /// Link-address of the innermost relay agent; several are shared out among the clients.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    link_address: Vec<Ipv6Addr>,
    /// Interface-Id of the innermost relay agent; {} becomes the client's number.
    #[arg(long, value_name = "TEXT")]
    interface_id: Option<String>,
    /// Send to this address instead of ff02::1:2.
    #[arg(long, value_name = "ADDRESS")]
    server: Option<Ipv6Addr>,
    /// MAC address of the server or of the router to it.
    #[arg(long, value_name = "MAC", value_parser = mac)]
    server_mac: Option<[u8; 6]>,
    /// Send from this address: by default the interface's link-local one, with --relay its first
    /// other one.
    #[arg(long, value_name = "ADDRESS")]
    source: Option<Ipv6Addr>,
    /// Seed of the clients' identities and of all choices.
    #[arg(long, value_name = "X", default_value_t = 1)]
    seed: u64,
    /// Bind the generator to this core.
    #[arg(long, value_name = "C")]
    core: Option<u32>,
    /// The run is invalid if the 99th percentile of the generator's lag exceeds this, in
    /// microseconds.
    #[arg(long, value_name = "US", default_value_t = 1000.0)]
    lag_limit: f64,
    /// Objectives, as 'p99<2ms,reply.p99.9<5ms,loss<0.1%'; missing one makes the exit status 3.
    #[arg(long, value_name = "LIST")]
    slo: Option<Slo>,
    /// Serve the figures for Prometheus at this address while it runs, as [::1]:9547.
    #[arg(long, value_name = "ADDRESS:PORT")]
    prometheus: Option<SocketAddr>,
    /// Write report.html, summary.json, series.csv, run.hlog and .hgrm files into this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write every grant to this file: JSON lines, or CSV if it ends in .csv.
    #[arg(long, value_name = "FILE")]
    grants: Option<PathBuf>,
    /// Print the summary as JSON on the last line.
    #[arg(long)]
    json: bool,
    /// No progress line.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum IaChoice {
    /// An address.
    Na,
    /// A prefix.
    Pd,
    /// An address and a prefix.
    Both,
}

impl IaChoice {
    fn as_str(self) -> &'static str {
        match self {
            Self::Na => "na",
            Self::Pd => "pd",
            Self::Both => "both",
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if rate > 0.0 && rate <= 1e8 { Ok(rate) } else { Err("must be above 0, at most 1e8".into()) }
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("must be between 0 and 1".into()) }
}

fn mac(text: &str) -> Result<[u8; 6], String> {
    os::parse_mac(text).ok_or_else(|| "write it as 02:00:00:00:00:01".into())
}

/// Runs the program.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::FindMax(args) => find_max(&args),
        Command::Failover(args) => failover(args),
        Command::View(args) => {
            view(&args).map(|shown| shown.map_or(OK, |summary| status(&summary)))
        }
        Command::Diff(args) => diff(&args).map(|()| OK),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("gemel-bench: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// All that stays the same from run to run.
struct Bench<'a> {
    args: &'a CommonArgs,
    interface: Interface,
    traffic: Traffic,
    server: Ipv6Addr,
    port: AnyPort,
    environment: Environment,
    clock: Clock,
    stop: &'static AtomicBool,
    world: Option<World>,
    recorder: Recorder,
}

impl<'a> Bench<'a> {
    fn open(args: &'a CommonArgs) -> anyhow::Result<Self> {
        let interface = Interface::by_name(&args.interface)?;
        let server = args.server.unwrap_or(gemel_wire::ALL_RELAY_AGENTS_AND_SERVERS);
        let relayed = args.relay > 0;
        let own = if relayed { interface.global() } else { interface.link_local() };
        let source = args.source.or(own).with_context(|| {
            let kind = if relayed { "global" } else { "link-local" };
            format!(
                "{} has no {kind} address to send from: is it up? (--source gives another)",
                interface.name
            )
        })?;
        if relayed && args.link_address.is_empty() && args.interface_id.is_none() {
            bail!("--relay needs --link-address or --interface-id, or no server can tell the link");
        }
        let relay = relayed.then(|| RelayPath {
            depth: args.relay,
            links: args.link_address.clone(),
            address: source,
            interface_id: args.interface_id.as_deref().map(InterfaceId::new),
        });
        debug_assert!(usize::from(args.relay) <= RELAY_DEPTH_MAX);
        let traffic = Traffic {
            na: !matches!(args.ia, IaChoice::Pd),
            pd: !matches!(args.ia, IaChoice::Na),
            rapid_commit: args.rapid_commit,
            renew_share: args.renew_share,
            returning: None,
            relay,
        };
        if traffic.longest() > DATAGRAM_MAX {
            bail!("{} relay agents make messages that do not fit into a frame", args.relay);
        }
        // Before the generator is bound to its core, which the other threads are not to share.
        let published = Arc::new(Published::default());
        if let Some(address) = args.prometheus {
            let bound = prometheus::serve(address, Arc::clone(&published))
                .with_context(|| format!("cannot serve HTTP at {address}"))?;
            eprintln!("metrics at http://{bound}/metrics");
        }
        let recorder = Recorder::start(published)?;
        if let Some(core) = args.core {
            os::pin_to_core(core).with_context(|| format!("cannot bind to core {core}"))?;
        }
        let endpoint = Endpoint {
            interface: interface.clone(),
            queue: args.queue,
            source,
            source_port: if relayed { gemel_wire::SERVER_PORT } else { gemel_wire::CLIENT_PORT },
            server,
            server_mac: args.server_mac,
        };
        let leases = u32::from(traffic.na) + u32::from(traffic.pd);
        Ok(Self {
            environment: Environment::probe(&interface.name),
            port: AnyPort::open(args.mode, &endpoint)?,
            world: Some(World::new(args.seed, args.clients, leases)),
            args,
            interface,
            traffic,
            server,
            clock: Clock::start(),
            stop: os::stop_on_interrupt(),
            recorder,
        })
    }

    fn run(
        &mut self,
        pace: Pace,
        duration_s: f64,
        exchanges: Option<u64>,
        salt: u64,
        live: &Live,
    ) -> anyhow::Result<(Summary, Stats)> {
        self.run_with(pace, duration_s, exchanges, salt, live, None)
    }

    fn run_with(
        &mut self,
        pace: Pace,
        duration_s: f64,
        exchanges: Option<u64>,
        salt: u64,
        live: &Live,
        disturbance: Option<Disturbance>,
    ) -> anyhow::Result<(Summary, Stats)> {
        let args = self.args;
        let patience = args.patience();
        let outstanding = match pace {
            Pace::Rate(rate) => slots_for_rate(rate, patience.timeout),
            Pace::Window(window) => window,
        };
        let world = self.world.take().context("the last run did not end")?;
        let seed = args.seed ^ salt.rotate_left(32);
        let mut engine =
            Engine::new(self.traffic.clone(), world, outstanding, patience, seed, self.clock.now());
        let mclt = disturbance.as_ref().and_then(|disturbance| disturbance.mclt);
        if disturbance.is_some() {
            engine.watch(mclt);
        }
        let begin = self.clock.now();
        if let Some(disturbance) = &disturbance {
            disturbance.events.begin(self.clock, begin);
        }
        let duration = whole(duration_s * 1e9);
        let mut schedule = Schedule::new(pace, begin, duration, exchanges);
        let (outlets, recording) = self.recorder.begin(1, *live);
        outlets.into_iter().for_each(|outlet| engine.record_to(outlet));
        // The recorder shows it.
        let mut progress = |_: &_| ();
        let (engine_ref, schedule_ref) = (&mut engine, &mut schedule);
        let span = match &mut self.port {
            AnyPort::Xdp(port) => generator::run(
                engine_ref,
                &mut **port,
                schedule_ref,
                begin,
                &self.clock,
                self.stop,
                &mut progress,
            ),
            AnyPort::Socket(port) => generator::run(
                engine_ref,
                &mut **port,
                schedule_ref,
                begin,
                &self.clock,
                self.stop,
                &mut progress,
            ),
        }
        .with_context(|| format!("sending on {} broke off", self.interface.name))?;
        let replies = engine.take_replies();
        let (mut world, mut stats) = engine.finish();
        stats.set_seconds(recording.finish());
        world.audit(span.end);
        let mut summary = Summary::new(Measured {
            setup: self.setup(pace, duration_s),
            environment: self.environment.clone(),
            stats: &stats,
            world: &world,
            span,
            started_at: self.clock.unix_seconds(begin),
            port: match &self.port {
                AnyPort::Xdp(port) => port.info(),
                AnyPort::Socket(port) => port.info(),
            },
        });
        if let Some(disturbance) = disturbance {
            let events = disturbance.events.end();
            let report = FailoverReport::new(&events, &replies, &stats, &world, &span, mclt);
            summary.failover = Some(report);
        }
        if let Some(slo) = &args.slo {
            summary.objectives = slo.judge(&summary, &stats);
        }
        self.world = Some(world);
        Ok((summary, stats))
    }

    fn setup(&self, pace: Pace, seconds: f64) -> Setup {
        let args = self.args;
        let (rate, window) = report::rate_and_window(pace);
        Setup {
            command: std::env::args().collect(),
            rate,
            window,
            seconds,
            clients: args.clients,
            seed: args.seed,
            ia: args.ia.as_str().into(),
            rapid_commit: args.rapid_commit,
            renew_share: args.renew_share,
            relay_depth: args.relay,
            link_addresses: args.link_address.iter().map(ToString::to_string).collect(),
            returning: self.traffic.returning,
            timeout_ms: args.timeout_ms(),
            retransmit_ms: args.retransmit,
            any_server_ms: args.any_server,
            interface: self.interface.name.clone(),
            server: self.server.to_string(),
            core: args.core,
            lag_limit_us: args.lag_limit,
        }
    }

    fn write_grants(&self) -> anyhow::Result<()> {
        let (Some(path), Some(world)) = (&self.args.grants, &self.world) else { return Ok(()) };
        let write = || {
            let mut out = BufWriter::new(fs::File::create(path)?);
            let csv = path.extension().is_some_and(|extension| extension == "csv");
            world.ledger.write(&mut out, csv, &world.clients, &self.clock)?;
            out.flush()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

impl CommonArgs {
    fn timeout_ms(&self) -> u64 {
        self.timeout.unwrap_or(1000)
    }

    fn patience(&self) -> Patience {
        let ns = |ms: u64| ms * 1_000_000;
        Patience {
            timeout: ns(self.timeout_ms()),
            retransmit: self.retransmit.map(ns),
            any_server: self.any_server.map(ns),
        }
    }
}

/// What happens in the middle of a run.
struct Disturbance {
    events: Events,
    mclt: Option<u32>,
}

/// What fits behind the headers of an Ethernet frame of 1514 octets.
const DATAGRAM_MAX: usize = 1452;

fn write_out(folder: Option<&Path>, summary: &Summary, stats: &Stats) -> anyhow::Result<()> {
    if let Some(folder) = folder {
        let page = report::write_all(folder, summary, stats)
            .with_context(|| format!("cannot write into {}", folder.display()))?;
        println!("report {}", page.display());
    }
    Ok(())
}

fn run(args: &RunArgs) -> anyhow::Result<u8> {
    let common = &args.common;
    let mut bench = Bench::open(common)?;
    let pace = match (args.rate, args.window) {
        (Some(rate), _) => Pace::Rate(rate),
        (None, window) => Pace::Window(window.unwrap_or(1).min(common.clients)),
    };
    let live = Live::new(common.quiet);
    let (summary, stats) = bench.run(pace, args.seconds, args.exchanges, 0, &live)?;
    bench.write_grants()?;
    println!("{}", report::text(&summary, &stats));
    write_out(common.out.as_deref(), &summary, &stats)?;
    if common.json {
        println!("{}", serde_json::to_string(&summary)?);
    }
    Ok(status(&summary))
}

/// The exit status of a run.
fn status(summary: &Summary) -> u8 {
    match (summary.passed, summary.objectives_met()) {
        (false, _) => FAILED,
        (true, false) => SLO_MISSED,
        (true, true) => OK,
    }
}

fn find_max(args: &FindMaxArgs) -> anyhow::Result<u8> {
    let common = &args.common;
    let mut bench = Bench::open(common)?;
    let search = Search {
        from: args.from,
        to: args.to.max(args.from),
        loss_max: args.loss / 100.0,
        p99_max_us: args.p99_ms.map(|ms| ms * 1000.0),
        precision: args.precision / 100.0,
    };
    let live = Live::new(true);
    let mut number = 0;
    // Histograms of the run that is shown at the end: the best one, or the last if there is none.
    let mut shown: Option<(Summary, Stats)> = None;
    let mut any_good = false;
    let found = search.find(
        |rate| {
            number += 1;
            let (summary, stats) =
                bench.run(Pace::Rate(rate), args.step_seconds, None, number, &live)?;
            let good = summary.valid && summary.passed && search.within(&summary);
            if good || !any_good || !summary.passed {
                any_good |= good;
                shown = Some((summary.clone(), stats));
            }
            anyhow::Ok(summary)
        },
        |step| {
            if !common.quiet {
                eprintln!("{}", step_line(step));
            }
        },
    )?;
    bench.write_grants()?;
    print_found(&found);
    if let Some((summary, stats)) = &shown {
        println!("{}", report::text(summary, stats));
        write_out(common.out.as_deref(), summary, stats)?;
    }
    if common.json {
        println!("{}", serde_json::to_string(&found)?);
    }
    let missed =
        common.slo.is_some() && !found.summary.as_ref().is_some_and(Summary::objectives_met);
    Ok(match found.limited_by {
        LimitedBy::Violation => FAILED,
        _ if missed => SLO_MISSED,
        _ => OK,
    })
}

fn failover(mut args: FailoverArgs) -> anyhow::Result<u8> {
    if args.common.renew_share != 0.0 {
        bail!("failover has --returning instead of --renew-share: who comes back renews");
    }
    args.common.timeout.get_or_insert(10_000);
    args.common.retransmit.get_or_insert(100);
    args.common.any_server.get_or_insert(500);
    let disturbance = Disturbance { events: Events::prepare(&args.at)?, mclt: args.mclt };
    let common = &args.common;
    let mut bench = Bench::open(common)?;
    bench.traffic.renew_share = 1.0;
    bench.traffic.returning = Some(args.returning);
    let live = Live::new(common.quiet);
    let pace = Pace::Rate(args.rate);
    let (summary, stats) = bench.run_with(pace, args.seconds, None, 0, &live, Some(disturbance))?;
    bench.write_grants()?;
    println!("{}", report::text(&summary, &stats));
    write_out(common.out.as_deref(), &summary, &stats)?;
    if common.json {
        println!("{}", serde_json::to_string(&summary)?);
    }
    let events = summary.failover.as_ref().map_or(&[][..], |report| &report.events);
    let all_ran = events.iter().all(|event| event.failure.is_none());
    Ok(if all_ran { status(&summary) } else { FAILED })
}

fn step_line(step: &Step) -> String {
    let verdict = match (step.within, step.valid) {
        (_, false) => "not valid: generator",
        (true, true) => "ok",
        (false, true) => "too much",
    };
    format!(
        "{:>10.0}/s offered  {:>10.0}/s done  loss {:>8.4} %  p50 {:>10.1} us  p99 {:>10.1} us  {verdict}",
        step.rate,
        step.exchanges_per_s,
        step.loss * 100.0,
        step.p50_us,
        step.p99_us
    )
}

fn print_found(found: &Found) {
    let why = match found.limited_by {
        LimitedBy::Server => "beyond it the limits are exceeded",
        LimitedBy::Generator => "beyond it the generator is the bottleneck",
        LimitedBy::Range => "the highest rate that was to be tried",
        LimitedBy::Violation => "the server broke a rule",
        LimitedBy::Interrupted => "interrupted",
    };
    println!("highest rate {:.0} exchanges/s: {why}", found.max_per_s);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn usage_is_checked() {
        for good in [
            "gemel-bench run -i eth1 --rate 1000",
            "gemel-bench run -i eth1 --window 64 --ia both --json",
            "gemel-bench run -i eth1 --rate 5 --relay --link-address 2001:db8::1,2001:db8::2",
            "gemel-bench run -i eth1 --rate 5 --slo p99<2ms,loss<0.1%",
            "gemel-bench find-max -i eth1 --slo reply.p99.9<2ms --prometheus [::1]:9547",
            "gemel-bench find-max -i eth1 --loss 2.5 --step-seconds 2",
            "gemel-bench run -i eth1 --rate 5 --retransmit --any-server 300",
            "gemel-bench view out --html page.html --slo p99<1ms",
            "gemel-bench diff before after --json",
            "gemel-bench failover -i eth1 --at 5:reboot --at 8.5:date --mclt 60 --retransmit 50",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "gemel-bench run -i eth1",
            "gemel-bench run --rate 1000",
            "gemel-bench run -i eth1 --rate 1000 --window 5",
            "gemel-bench run -i eth1 --rate 0",
            "gemel-bench run -i eth1 --window 0",
            "gemel-bench run -i eth1 --rate 5 --renew-share 1.5",
            "gemel-bench run -i eth1 --rate 5 --slo p99",
            "gemel-bench run -i eth1 --rate 5 --relay 33",
            "gemel-bench view",
            "gemel-bench diff one",
            "gemel-bench failover -i eth1 --at reboot",
            "gemel-bench failover -i eth1 --returning 2",
        ] {
            assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
        let Command::Run(args) = parse("gemel-bench run -i e --rate 5 --relay").unwrap().command
        else {
            panic!("run")
        };
        assert_eq!(args.common.relay, 1);
    }
}
