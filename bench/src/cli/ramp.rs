//! From a low rate to a high one.

use clap::Args;

use super::{
    args::{CommonArgs, limit, percent, rate},
    bench::{Bench, Outcome, Phase},
};
use crate::{
    find_max::Step,
    report::Live,
    scenario::{Limits, RampReport, ScenarioReport, stretches},
    schedule::Pace,
};

#[derive(Debug, Args)]
pub(super) struct RampArgs {
    /// First rate, exchanges per second.
    #[arg(long, value_name = "R", default_value_t = 1000.0, value_parser = rate)]
    from: f64,
    /// Last rate.
    #[arg(long, value_name = "R", value_parser = rate)]
    to: f64,
    /// Number of steps, both ends included; with --continuous, rows of the table.
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    steps: u32,
    /// Length of each step.
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = rate)]
    step_seconds: f64,
    /// One run in which the rate changes in a straight line instead of steps; --seconds long.
    #[arg(long)]
    continuous: bool,
    /// Length of the run with --continuous.
    #[arg(long, value_name = "S", default_value_t = 60.0, value_parser = rate)]
    seconds: f64,
    /// Share of exchanges that may be lost, refused or invalid, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.1, value_parser = percent)]
    loss: f64,
    /// Limit of the 99th percentile, in milliseconds [default: ten times that of the first step].
    #[arg(long, value_name = "MS", value_parser = limit)]
    p99_ms: Option<f64>,
    #[command(flatten)]
    common: CommonArgs,
}

impl RampArgs {
    fn limits(&self) -> Limits {
        Limits { loss: self.loss / 100.0, p99_us: self.p99_ms.map(|ms| ms * 1e3) }
    }
}

/// One ramp.
pub(super) fn run(args: &RampArgs) -> anyhow::Result<u8> {
    let mut bench = Bench::open(&args.common)?;
    let (outcome, report) =
        if args.continuous { line(args, &mut bench)? } else { steps(args, &mut bench)? };
    let Outcome { mut summary, stats, .. } = outcome;
    summary.scenario = Some(ScenarioReport::Ramp(report));
    bench.finish(&summary, &stats)
}

fn line(args: &RampArgs, bench: &mut Bench<'_>) -> anyhow::Result<(Outcome, RampReport)> {
    let pace = Pace::Ramp { from: args.from, to: args.to };
    let phase = Phase::new(bench, pace, args.seconds);
    let outcome = bench.run(phase, &Live::new(args.common.quiet))?;
    let rows = crate::number::index(args.steps);
    let steps = stretches(&outcome.stats.series, rows, outcome.summary.valid);
    Ok((outcome, RampReport::new(true, steps, args.limits())))
}

/// The figures of the whole are those of the last step that was within the limits.
fn steps(args: &RampArgs, bench: &mut Bench<'_>) -> anyhow::Result<(Outcome, RampReport)> {
    let live = Live::new(true);
    let mut steps: Vec<Step> = Vec::new();
    let mut outcomes: Option<Outcome> = None;
    let mut broken = false;
    for number in 0..args.steps {
        let share = f64::from(number) / f64::from((args.steps - 1).max(1));
        let rate = args.from + (args.to - args.from) * share;
        let mut phase = Phase::new(bench, Pace::Rate(rate), args.step_seconds);
        phase.salt = u64::from(number);
        let outcome = bench.run(phase, &live)?;
        steps.push(Step::new(rate, &outcome.summary, true));
        let report = RampReport::new(false, steps.clone(), args.limits());
        if let Some(step) = report.steps.last().filter(|_| !args.common.quiet) {
            eprintln!("{step}");
        }
        let over = outcome.summary.interrupted || !outcome.summary.passed;
        broken |= report.broke.is_some();
        if outcomes.is_none() || !broken || !outcome.summary.passed {
            outcomes = Some(outcome);
        }
        if over {
            break;
        }
    }
    let report = RampReport::new(false, steps, args.limits());
    let outcome = outcomes.ok_or_else(|| anyhow::anyhow!("a ramp has at least one step"))?;
    Ok((outcome, report))
}
