//! Clients come and go.

use anyhow::bail;
use clap::Args;

use super::{
    args::{CommonArgs, rate},
    bench::{Bench, Phase},
    setup,
};
use crate::{
    engine::Choice,
    report::Live,
    scenario::{ChurnReport, ScenarioReport},
    schedule::Pace,
};

#[derive(Debug, Args)]
pub(super) struct ChurnArgs {
    /// Clients that hold a lease at any time; choose it by the size of the pool.
    #[arg(long, value_name = "N", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    fill: u32,
    /// How long a client stays. Together with --fill this makes the rate: so many come, and as many
    /// leave.
    #[arg(long, value_name = "S", default_value_t = 20.0, value_parser = rate)]
    hold: f64,
    /// Length of the run.
    #[arg(long, value_name = "S", default_value_t = 30.0, value_parser = rate)]
    seconds: f64,
    /// Rate at which the first clients come, exchanges per second.
    #[arg(long, value_name = "R", default_value_t = 2000.0, value_parser = rate)]
    setup_rate: f64,
    #[command(flatten)]
    common: CommonArgs,
}

/// One churn.
pub(super) fn run(args: &ChurnArgs) -> anyhow::Result<u8> {
    let common = &args.common;
    if common.clients <= args.fill {
        bail!("more --clients than --fill: somebody has to come when somebody leaves");
    }
    let mut bench = Bench::open(common)?;
    let live = Live::new(common.quiet);
    let setup = setup::acquire(&mut bench, args.fill, args.setup_rate, &live)?;
    let rate = 2.0 * f64::from(args.fill) / args.hold;
    let mut phase = Phase::new(&bench, Pace::Rate(rate), args.seconds);
    phase.traffic.choice = Choice::Churn { held: args.fill };
    let mut outcome = bench.run(phase, &live)?;
    let report = ChurnReport::new(setup, args.fill.into(), args.hold, &outcome.stats);
    outcome.summary.scenario = Some(ScenarioReport::Churn(report));
    bench.finish(&outcome.summary, &outcome.stats)
}
