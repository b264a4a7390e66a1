//! A run in the middle of which something happens to the servers.

use anyhow::bail;
use clap::Args;

use super::{
    FAILED,
    args::{CommonArgs, rate, share},
    bench::{Bench, Disturbance, Phase},
};
use crate::{
    engine::Choice,
    events::{At, Events},
    report::Live,
    schedule::Pace,
};

#[derive(Debug, Args)]
pub(super) struct FailoverArgs {
    /// Exchanges per second, whatever the servers do (open loop).
    #[arg(long, value_name = "R", default_value_t = 1000.0, value_parser = rate)]
    pub(super) rate: f64,
    /// Length of the run.
    #[arg(long, value_name = "S", default_value_t = 20.0, value_parser = rate)]
    pub(super) seconds: f64,
    /// Share of exchanges, 0 to 1, of clients that come back: they renew. The others are new
    /// clients, as long as there are any.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = share)]
    pub(super) returning: f64,
    /// Run a shell command at this time from the start of the run; may be given several times.
    #[arg(long, value_name = "SECONDS:COMMAND")]
    pub(super) at: Vec<At>,
    /// The pair's MCLT: grants with a valid lifetime of at most this many seconds are counted.
    #[arg(long, value_name = "S")]
    pub(super) mclt: Option<u32>,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

pub(super) fn run(mut args: FailoverArgs) -> anyhow::Result<u8> {
    if args.common.renew_share != 0.0 {
        bail!("failover has --returning instead of --renew-share: who comes back renews");
    }
    if args.common.queues.len() > 1 {
        bail!("failover goes with one queue only");
    }
    args.common.timeout.get_or_insert(10_000);
    args.common.retransmit.get_or_insert(100);
    args.common.any_server.get_or_insert(500);
    let disturbance = Disturbance { events: Events::prepare(&args.at)?, mclt: args.mclt };
    let common = &args.common;
    let mut bench = Bench::open(common)?;
    bench.traffic.renew_share = 1.0;
    bench.traffic.choice = Choice::Returning(args.returning);
    let mut phase = Phase::new(&bench, Pace::Rate(args.rate), args.seconds);
    phase.disturbance = Some(disturbance);
    let outcome = bench.run(phase, &Live::new(common.quiet))?;
    let (summary, stats) = (outcome.summary, outcome.stats);
    let code = bench.finish(&summary, &stats)?;
    let events = summary.failover.as_ref().map_or(&[][..], |report| &report.events);
    let all_ran = events.iter().all(|event| event.failure.is_none());
    Ok(if all_ran { code } else { FAILED })
}
