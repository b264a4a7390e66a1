//! All kinds of exchanges side by side.

use anyhow::bail;
use clap::Args;

use super::{
    args::{CommonArgs, rate},
    bench::{Bench, Phase},
    setup,
};
use crate::{
    engine::{Choice, Kind, Shares},
    report::Live,
    scenario::{MixReport, ScenarioReport},
    schedule::Pace,
};

#[derive(Debug, Args)]
pub(super) struct MixArgs {
    /// Exchanges per second, whatever the server does (open loop).
    #[arg(long, value_name = "R", default_value_t = 1000.0, value_parser = rate)]
    rate: f64,
    /// Length of the run.
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = rate)]
    seconds: f64,
    /// How often each kind comes, in parts of the whole: new, renew, rebind, release, decline, confirm,
    /// inform.
    #[arg(
        long,
        value_name = "LIST",
        default_value = "new=15,renew=60,rebind=3,release=14,decline=1,confirm=3,inform=4"
    )]
    shares: Shares,
    /// Clients that hold a lease when the mix begins [default: half of all].
    #[arg(long, value_name = "N")]
    held: Option<u32>,
    /// Rate at which they get it, exchanges per second.
    #[arg(long, value_name = "R", default_value_t = 2000.0, value_parser = rate)]
    setup_rate: f64,
    #[command(flatten)]
    common: CommonArgs,
}

/// One mix.
pub(super) fn run(args: &MixArgs) -> anyhow::Result<u8> {
    let common = &args.common;
    let mut bench = Bench::open(common)?;
    let addresses = args.shares.of(Kind::Decline) + args.shares.of(Kind::Confirm) > 0.0;
    if addresses && !bench.traffic.na {
        bail!("DECLINE and CONFIRM are about addresses: leave them out of --shares, or --ia both");
    }
    let live = Live::new(common.quiet);
    let held = args.held.unwrap_or(common.clients / 2).clamp(1, common.clients);
    let setup = setup::acquire(&mut bench, held, args.setup_rate, &live)?;
    let mut phase = Phase::new(&bench, Pace::Rate(args.rate), args.seconds);
    phase.traffic.choice = Choice::Mix(args.shares);
    let mut outcome = bench.run(phase, &live)?;
    let report = MixReport::new(setup, &args.shares, bench.holding(), &outcome.stats);
    outcome.summary.scenario = Some(ScenarioReport::Mix(report));
    bench.finish(&outcome.summary, &outcome.stats)
}
