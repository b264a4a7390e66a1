//! All clients at once.

use anyhow::bail;
use clap::Args;

use super::{
    args::{CommonArgs, rate},
    bench::{Bench, Outcome, Phase},
    setup,
};
use crate::{
    engine::Choice,
    number::{SECOND_NS, float, low32},
    report::Live,
    scenario::{ScenarioReport, StormReport},
    schedule::Pace,
    stats::TIME_MAX,
};

#[derive(Debug, Args)]
pub(super) struct AvalancheArgs {
    #[command(flatten)]
    storm: StormArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
pub(super) struct RenewStormArgs {
    #[command(flatten)]
    storm: StormArgs,
    /// Rate at which the clients get their leases before the storm, exchanges per second.
    #[arg(long, value_name = "R", default_value_t = 2000.0, value_parser = rate)]
    setup_rate: f64,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
pub(super) struct StormArgs {
    /// Clients begin within this many seconds, evenly: by default within SOL_MAX_DELAY, as RFC 8415
    /// section 18.2.1 spreads them; with 0 all of them are due at one moment.
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = seconds)]
    within: f64,
    /// Clients that have no lease after this many seconds count as lost.
    #[arg(long, value_name = "S", default_value_t = 60.0, value_parser = until)]
    seconds: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.0..=SECONDS_MAX).contains(&seconds) { Ok(seconds) } else { Err("0 to 3600".into()) }
}

fn until(text: &str) -> Result<f64, String> {
    seconds(text)
        .and_then(|seconds| if seconds > 0.0 { Ok(seconds) } else { Err("above 0".into()) })
}

/// Histograms hold no longer times, and all who are served later would look served at the same moment.
const SECONDS_MAX: f64 = 3600.0;
const _: () = assert!(TIME_MAX >= 3600 * SECOND_NS);

/// All clients want a lease.
pub(super) fn avalanche(args: &AvalancheArgs) -> anyhow::Result<u8> {
    let mut bench = open(&args.common)?;
    let clients = args.common.clients;
    let (mut outcome, report) = storm(&args.storm, &mut bench, Choice::Fresh, clients)?;
    outcome.summary.scenario = Some(ScenarioReport::Avalanche(report));
    bench.finish(&outcome.summary, &outcome.stats)
}

/// All clients want to keep theirs.
pub(super) fn renew_storm(args: &RenewStormArgs) -> anyhow::Result<u8> {
    let mut bench = open(&args.common)?;
    let live = Live::new(args.common.quiet);
    let setup = setup::acquire(&mut bench, args.common.clients, args.setup_rate, &live)?;
    let holding = low32(setup.holding);
    let (mut outcome, mut report) = storm(&args.storm, &mut bench, Choice::Holders, holding)?;
    report.setup = Some(setup);
    outcome.summary.scenario = Some(ScenarioReport::RenewStorm(report));
    bench.finish(&outcome.summary, &outcome.stats)
}

fn open(common: &CommonArgs) -> anyhow::Result<Bench<'_>> {
    if common.timeout.is_some() || common.retransmit.is_some() || common.any_server.is_some() {
        bail!(
            "clients go by RFC 8415 here: no --timeout, --retransmit or --any-server; --seconds ends \
             the run"
        );
    }
    let bench = Bench::open(common)?;
    bench.check_outstanding(common.clients)?;
    Ok(bench)
}

fn storm(
    args: &StormArgs,
    bench: &mut Bench<'_>,
    choice: Choice,
    clients: u32,
) -> anyhow::Result<(Outcome, StormReport)> {
    let clients = u64::from(clients);
    let pace =
        if args.within > 0.0 { Pace::Rate(float(clients) / args.within) } else { Pace::AtOnce };
    // The schedule ends with the last client, not before, unless the run does.
    let seconds = args.seconds.max(args.within);
    let mut phase = Phase::new(bench, pace, seconds);
    phase.exchanges = Some(clients);
    phase.traffic.choice = choice;
    phase.by_rfc = Some(seconds);
    let outcome = bench.run(phase, &Live::new(bench.args.quiet))?;
    let report = StormReport::new(clients, args.within, &outcome.stats, &outcome.span);
    Ok((outcome, report))
}
