//! One generator against one interface, from run to run.

use std::{
    fs,
    io::{BufWriter, Write},
    net::Ipv6Addr,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    thread,
};

use anyhow::{Context, bail};

use super::{args::CommonArgs, opened::Opened, status};
use crate::{
    clock::Clock,
    engine::{Choice, Engine, Part, Patience, ReplySeen, World, slots_for_rate},
    events::Events,
    failover::FailoverReport,
    generator::{self, Course, Span, Steering},
    machine::Environment,
    message::Traffic,
    number::{index, low32, whole},
    os::{self, Interface},
    port::{AnyPort, PortInfo},
    prometheus::{self, Published},
    record::{Recorder, Recording},
    report::{self, Live, Measured, Setup, Summary},
    schedule::{Pace, Schedule, part_of},
    stats::{Counter, Stats},
};

/// All that stays the same from run to run.
pub(super) struct Bench<'a> {
    pub(super) args: &'a CommonArgs,
    pub(super) traffic: Traffic,
    pub(super) stop: &'static AtomicBool,
    interface: Interface,
    server: Ipv6Addr,
    ports: Vec<AnyPort>,
    environment: Environment,
    clock: Clock,
    /// One for each port.
    worlds: Vec<World>,
    recorder: Recorder,
}

/// One run.
pub(super) struct Phase {
    pub(super) pace: Pace,
    /// Its length, seconds.
    pub(super) seconds: f64,
    /// It ends after this many exchanges, if that is sooner.
    pub(super) exchanges: Option<u64>,
    pub(super) traffic: Traffic,
    /// Makes the random choices differ from run to run.
    pub(super) salt: u64,
    /// Length of an interval of the series, seconds.
    pub(super) interval: f64,
    /// How long clients wait.
    pub(super) patience: Patience,
    /// Messages are sent again as RFC 8415 has it, until this many seconds after the start.
    pub(super) by_rfc: Option<f64>,
    pub(super) disturbance: Option<Disturbance>,
}

impl Phase {
    pub(super) fn new(bench: &Bench<'_>, pace: Pace, seconds: f64) -> Self {
        Self {
            pace,
            seconds,
            exchanges: None,
            traffic: bench.traffic.clone(),
            salt: 0,
            interval: 1.0,
            patience: bench.args.patience(),
            by_rfc: None,
            disturbance: None,
        }
    }
}

/// What happens in the middle of a run.
pub(super) struct Disturbance {
    pub(super) events: Events,
    pub(super) mclt: Option<u32>,
}

/// What a run brought.
pub(super) struct Outcome {
    pub(super) summary: Summary,
    pub(super) stats: Stats,
    pub(super) span: Span,
}

impl<'a> Bench<'a> {
    pub(super) fn open(args: &'a CommonArgs) -> anyhow::Result<Self> {
        let parts = low32(args.queues().len() as u64);
        if args.clients < parts {
            bail!("there are fewer clients than queues");
        }
        // Before the generator is bound to its core, which the other threads are not to share.
        let recorder = record(args)?;
        let Opened { interface, server, traffic, ports } = Opened::new(args)?;
        let leases = u32::from(traffic.na) + u32::from(traffic.pd);
        let mut first = 0;
        let worlds = (0..parts).map(|number| {
            let count = low32(part_of(args.clients.into(), number, parts));
            first += count;
            World::part(args.seed, first - count, count, leases)
        });
        Ok(Self {
            environment: Environment::probe(&interface.name),
            worlds: worlds.collect(),
            args,
            interface,
            traffic,
            server,
            ports,
            clock: Clock::start(),
            stop: os::stop_on_interrupt(),
            recorder,
        })
    }

    /// Whether so many clients can wait for an answer at once.
    pub(super) fn check_outstanding(&self, wanted: u32) -> anyhow::Result<()> {
        check_outstanding(wanted, self.parts())
    }

    /// How many clients hold all that they want.
    pub(super) fn holding(&self) -> u64 {
        self.worlds.iter().map(|world| u64::from(world.clients.holding())).sum()
    }

    fn parts(&self) -> u32 {
        low32(self.ports.len() as u64)
    }

    /// Makes one run.
    pub(super) fn run(&mut self, phase: Phase, live: &Live) -> anyhow::Result<Outcome> {
        let parts = self.parts();
        let seed = self.args.seed ^ phase.salt.rotate_left(32);
        let worlds = std::mem::take(&mut self.worlds);
        let mut engines: Vec<_> = (0..parts)
            .zip(worlds)
            .map(|(number, world)| {
                let patience = phase.patience;
                let outstanding = outstanding(&phase, &patience, &world, parts);
                let traffic = share_traffic(&phase.traffic, number, parts);
                let now = self.clock.now();
                let part = (number, parts);
                Engine::part(traffic, world, outstanding, patience, seed, now, part)
            })
            .collect();
        for port in &mut self.ports {
            port.begin_run();
        }
        let begin = self.clock.now();
        for engine in &mut engines {
            prepare(engine, &phase, begin);
        }
        if let Some(disturbance) = &phase.disturbance {
            disturbance.events.begin(self.clock, begin);
        }
        let (outlets, recording) = self.recorder.begin(index(parts), *live);
        for (engine, outlet) in engines.iter_mut().zip(outlets) {
            engine.record_to(outlet);
        }
        let spans = self.generate(&mut engines, &phase, begin)?;
        Ok(self.conclude(engines, &spans, phase, recording))
    }

    fn generate(
        &mut self,
        engines: &mut [Engine],
        phase: &Phase,
        begin: u64,
    ) -> anyhow::Result<Vec<Span>> {
        let parts = self.parts();
        let cores = if parts > 1 { self.args.cores() } else { Vec::new() };
        let (clock, stop) = (self.clock, self.stop);
        let steering: Vec<_> = if parts > 1 {
            Steering::between(parts).into_iter().map(Some).collect()
        } else {
            vec![None]
        };
        let mut work: Vec<_> = (0..parts)
            .zip(engines.iter_mut().zip(&mut self.ports))
            .zip(steering)
            .map(|((number, (engine, port)), steering)| {
                let core = cores.get(index(number)).copied();
                move || {
                    if let Some(core) = core {
                        os::pin_to_core(core)?;
                    }
                    let (pace, offset) = phase.pace.share(number, parts);
                    let exchanges = phase.exchanges.map(|all| part_of(all, number, parts));
                    let duration = whole(phase.seconds * 1e9);
                    let mut schedule = Schedule::new(pace, begin + offset, duration, exchanges);
                    let interval = whole(phase.interval * 1e9);
                    let course = Course { begin, interval, clock: &clock, stop, steering };
                    match port {
                        AnyPort::Xdp(port) => {
                            generator::run(engine, &mut **port, &mut schedule, &course)
                        }
                        AnyPort::Socket(port) => {
                            generator::run(engine, &mut **port, &mut schedule, &course)
                        }
                    }
                }
            })
            .collect();
        // One queue stays on this thread, which may be bound to a core already.
        let results: Vec<_> = if work.len() == 1 {
            work.drain(..).map(|work| work()).collect()
        } else {
            thread::scope(|scope| {
                let threads: Vec<_> = work.into_iter().map(|work| scope.spawn(work)).collect();
                let panicked = |_| Err(std::io::Error::other("a generator thread panicked"));
                threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
            })
        };
        results
            .into_iter()
            .collect::<Result<_, _>>()
            .with_context(|| format!("sending on {} broke off", self.interface.name))
    }

    fn conclude(
        &mut self,
        engines: Vec<Engine>,
        spans: &[Span],
        phase: Phase,
        recording: Recording,
    ) -> Outcome {
        let span = Span::join(spans);
        let mut replies: Vec<Vec<ReplySeen>> = Vec::new();
        let mut all: Option<Stats> = None;
        for mut engine in engines {
            replies.push(engine.take_replies());
            let (mut world, stats) = engine.finish();
            world.audit(span.end);
            self.worlds.push(world);
            match &mut all {
                Some(all) => all.merge(&stats),
                None => all = Some(stats),
            }
        }
        let mut stats = all.unwrap_or_else(|| Stats::new(span.begin));
        stats.set_seconds(recording.finish());
        let joined = self.joined(span.end);
        let world = joined.as_ref().unwrap_or(&self.worlds[0]);
        let mut summary = Summary::new(Measured {
            setup: self.setup(&phase),
            environment: self.environment.clone(),
            stats: &stats,
            world,
            span,
            started_at: self.clock.unix_seconds(span.begin),
            port: PortInfo::join(self.ports.iter().map(AnyPort::info)),
        });
        if let Some(disturbance) = phase.disturbance {
            let events = disturbance.events.end();
            let replies = replies.swap_remove(0);
            let mclt = disturbance.mclt;
            let report = FailoverReport::new(&events, &replies, &stats, world, &span, mclt);
            summary.failover = Some(report);
        }
        // A storm is one of all its clients.
        if phase.by_rfc.is_some()
            && let Some(reason) = not_begun(phase.exchanges, &stats)
        {
            summary.invalidate(reason);
        }
        if let Some(slo) = &self.args.slo {
            summary.objectives = slo.judge(&summary, &stats);
        }
        Outcome { summary, stats, span }
    }

    /// What all threads have found together, if there are several.
    fn joined(&self, now: u64) -> Option<World> {
        (self.worlds.len() > 1).then(|| {
            let mut all = World::join(&self.worlds, self.args.seed, now);
            all.audit(now);
            all
        })
    }

    fn setup(&self, phase: &Phase) -> Setup {
        let args = self.args;
        let (rate, window) = report::rate_and_window(phase.pace);
        let links = self.traffic.relay.as_ref().map_or(&[][..], |relay| &relay.links);
        Setup {
            command: std::env::args().collect(),
            rate,
            window,
            seconds: phase.seconds,
            clients: args.clients,
            seed: args.seed,
            ia: args.ia.as_str().into(),
            rapid_commit: args.rapid_commit,
            renew_share: args.renew_share,
            relay_depth: args.relay,
            link_addresses: links.iter().take(16).map(ToString::to_string).collect(),
            returning: match phase.traffic.choice {
                Choice::Returning(share) => Some(share),
                _ => None,
            },
            timeout_ms: phase
                .by_rfc
                .map_or_else(|| args.timeout_ms(), |seconds| whole(seconds * 1e3)),
            retransmit_ms: args.retransmit,
            by_rfc: phase.by_rfc.is_some(),
            any_server_ms: args.any_server,
            interface: self.interface.name.clone(),
            server: self.server.to_string(),
            core: args.core,
            lag_limit_us: args.lag_limit,
        }
    }

    /// Writes the grants, if that is wanted.
    pub(super) fn write_grants(&self) -> anyhow::Result<()> {
        let Some(path) = &self.args.grants else { return Ok(()) };
        let joined = self.joined(self.clock.now());
        let world = joined.as_ref().unwrap_or(&self.worlds[0]);
        let write = || {
            let mut out = BufWriter::new(fs::File::create(path)?);
            let csv = path.extension().is_some_and(|extension| extension == "csv");
            world.ledger.write(&mut out, csv, &world.clients, &self.clock)?;
            out.flush()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Shows and writes what came out, and finds the exit status.
    pub(super) fn finish(&self, summary: &Summary, stats: &Stats) -> anyhow::Result<u8> {
        let args = self.args;
        self.write_grants()?;
        println!("{}", report::text(summary, stats));
        write_out(args.out.as_deref(), summary, stats)?;
        if args.json {
            println!("{}", serde_json::to_string(summary)?);
        }
        Ok(status(summary))
    }
}

fn check_outstanding(wanted: u32, parts: u32) -> anyhow::Result<()> {
    let most = u64::from(Part::new(0, parts).slots_max()) * u64::from(parts);
    if u64::from(wanted) > most {
        let queues = if parts == 1 { "one queue".into() } else { format!("{parts} queues") };
        bail!(
            "{wanted} clients cannot wait for an answer at once: the 24 bits of a transaction id \
             tell {most} of them apart, with {queues}. Let at most {most} do so, or run several \
             generators, each on an interface of its own and with a --seed of its own, and put \
             their reports together with `gemel-bench view`"
        );
    }
    Ok(())
}

/// Makes the recorder, and serves what it publishes if that is wanted.
fn record(args: &CommonArgs) -> anyhow::Result<Recorder> {
    let published = Arc::new(Published::default());
    if let Some(address) = args.prometheus {
        let bound = prometheus::serve(address, Arc::clone(&published))
            .with_context(|| format!("cannot serve HTTP at {address}"))?;
        eprintln!("metrics at http://{bound}/metrics");
    }
    Ok(Recorder::start(published)?)
}

fn outstanding(phase: &Phase, patience: &Patience, world: &World, parts: u32) -> u32 {
    let clients = low32(world.clients.len() as u64);
    match phase.pace {
        _ if phase.by_rfc.is_some() => clients,
        Pace::Rate(rate) => slots_for_rate(rate / f64::from(parts), patience.timeout),
        Pace::Ramp { from, to } => {
            slots_for_rate(from.max(to) / f64::from(parts), patience.timeout)
        }
        Pace::Window(window) => window,
        Pace::AtOnce => clients,
    }
}

/// What to say if fewer exchanges were begun than were wanted.
fn not_begun(wanted: Option<u64>, stats: &Stats) -> Option<String> {
    let (wanted, begun) = (wanted?, stats.get(Counter::Started));
    (begun < wanted).then(|| {
        format!("only {begun} of {wanted} clients had begun at the end: a longer --seconds")
    })
}

/// What a thread's share of the clients does.
fn share_traffic(traffic: &Traffic, number: u32, parts: u32) -> Traffic {
    let mut traffic = traffic.clone();
    if let Choice::Churn { held } = &mut traffic.choice {
        *held = low32(part_of((*held).into(), number, parts));
    }
    traffic
}

fn prepare(engine: &mut Engine, phase: &Phase, begin: u64) {
    if let Some(disturbance) = &phase.disturbance {
        engine.watch(disturbance.mclt);
    }
    if let Some(seconds) = phase.by_rfc {
        engine.set_patience(Patience::by_rfc(begin + whole(seconds * 1e9)));
        engine.watch_served(begin, phase.pace == Pace::AtOnce);
    }
}

pub(super) fn write_out(
    folder: Option<&Path>,
    summary: &Summary,
    stats: &Stats,
) -> anyhow::Result<()> {
    if let Some(folder) = folder {
        let page = report::write_all(folder, summary, stats)
            .with_context(|| format!("cannot write into {}", folder.display()))?;
        println!("report {}", page.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_have_not_begun_are_missed() {
        let mut stats = Stats::new(0);
        stats.count_many(Counter::Started, 7);
        assert_eq!((not_begun(Some(7), &stats), not_begun(None, &stats)), (None, None));
        let reason = not_begun(Some(9), &stats).unwrap();
        assert!(reason.contains("only 7 of 9 clients"), "{reason}");
    }

    #[test]
    fn more_clients_than_transaction_ids_are_refused() {
        for (parts, most) in [(1, 1 << 20), (2, 1 << 20), (3, 3 << 18), (4, 1 << 20)] {
            assert!(check_outstanding(most, parts).is_ok(), "{most} with {parts}");
            let error = check_outstanding(most + 1, parts).unwrap_err().to_string();
            assert!(error.contains(&most.to_string()) && error.contains("--seed"), "{error}");
        }
    }
}
