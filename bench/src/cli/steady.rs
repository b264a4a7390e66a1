//! One run at a fixed rate, or as fast as answered, and what differs from that by its options only.

use clap::Args;

use super::{
    args::{CommonArgs, IaChoice, rate},
    bench::{Bench, Phase},
};
use crate::{report::Live, schedule::Pace};

#[derive(Clone, Debug, Args)]
pub(super) struct SteadyArgs {
    /// Exchanges per second, whatever the server does (open loop).
    #[arg(long, value_name = "R", required_unless_present = "window", value_parser = rate)]
    pub(super) rate: Option<f64>,
    /// As fast as answered, with this many exchanges outstanding (closed loop).
    #[arg(long, value_name = "W", conflicts_with = "rate",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) window: Option<u32>,
    /// Length of the run.
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = rate)]
    pub(super) seconds: f64,
    /// End after this many exchanges, if that is sooner.
    #[arg(long, value_name = "K")]
    pub(super) exchanges: Option<u64>,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

/// Through relay agents.
#[derive(Debug, Args)]
pub(super) struct RelayArgs {
    /// Number of relay agents in the chain; the same as --relay.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=32))]
    depth: u8,
    #[command(flatten)]
    steady: SteadyArgs,
}

/// One run.
pub(super) fn run(args: &SteadyArgs) -> anyhow::Result<u8> {
    let common = &args.common;
    let mut bench = Bench::open(common)?;
    let pace = match (args.rate, args.window) {
        (Some(rate), _) => Pace::Rate(rate),
        (None, window) => {
            let window = window.unwrap_or(1).min(common.clients);
            bench.check_outstanding(window)?;
            Pace::Window(window)
        }
    };
    let phase = Phase { exchanges: args.exchanges, ..Phase::new(&bench, pace, args.seconds) };
    let outcome = bench.run(phase, &Live::new(common.quiet))?;
    bench.finish(&outcome.summary, &outcome.stats)
}

pub(super) fn rapid_commit(mut args: SteadyArgs) -> anyhow::Result<u8> {
    args.common.rapid_commit = true;
    run(&args)
}

pub(super) fn pd(mut args: SteadyArgs) -> anyhow::Result<u8> {
    args.common.ia = IaChoice::Pd;
    run(&args)
}

pub(super) fn relay(args: RelayArgs) -> anyhow::Result<u8> {
    let RelayArgs { depth, mut steady } = args;
    steady.common.relay = steady.common.relay.max(depth);
    run(&steady)
}
