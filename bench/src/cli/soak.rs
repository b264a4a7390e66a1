//! A long run.

use clap::Args;

use super::{
    OK, SLO_MISSED,
    args::{CommonArgs, interval, rate},
    bench::{Bench, Phase},
};
use crate::{
    report::Live,
    scenario::{ScenarioReport, SoakReport},
    schedule::Pace,
};

#[derive(Debug, Args)]
pub(super) struct SoakArgs {
    /// Exchanges per second, whatever the server does (open loop).
    #[arg(long, value_name = "R", default_value_t = 1000.0, value_parser = rate)]
    rate: f64,
    /// Length of the run; without it, until SIGINT or SIGTERM.
    #[arg(long, value_name = "S", value_parser = rate)]
    seconds: Option<f64>,
    /// Length of an interval: there is a line for each.
    #[arg(long, value_name = "S", default_value_t = 60.0, value_parser = interval)]
    interval: f64,
    #[command(flatten)]
    common: CommonArgs,
}

/// The end of time, seconds.
const FOR_EVER: f64 = 1e9;

/// One soak.
pub(super) fn run(args: &SoakArgs) -> anyhow::Result<u8> {
    let common = &args.common;
    let mut bench = Bench::open(common)?;
    let seconds = args.seconds.unwrap_or(FOR_EVER);
    let mut phase = Phase::new(&bench, Pace::Rate(args.rate), seconds);
    phase.interval = args.interval;
    let mut outcome = bench.run(phase, &Live::new(common.quiet))?;
    let report = SoakReport::new(args.interval, &outcome.stats.series, outcome.summary.duration_s);
    let drifted = !report.drifts.is_empty();
    outcome.summary.scenario = Some(ScenarioReport::Soak(report));
    if args.seconds.is_none() {
        // It was to go on until somebody ended it.
        outcome.summary.setup.seconds = outcome.summary.duration_s;
        outcome.summary.interrupted = false;
    }
    let code = bench.finish(&outcome.summary, &outcome.stats)?;
    Ok(if code == OK && drifted { SLO_MISSED } else { code })
}
