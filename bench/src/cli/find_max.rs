//! Search for the highest rate.

use clap::{Args, ValueEnum};

use super::{
    FAILED, OK, SLO_MISSED,
    args::{CommonArgs, limit, percent, precision, rate},
    bench::{Bench, Outcome, Phase, write_out},
};
use crate::{
    find_max::{Found, LimitedBy, Search},
    report::{self, Live, Summary},
    schedule::Pace,
    stats::Stats,
};

#[derive(Debug, Args)]
pub(super) struct FindMaxArgs {
    /// First rate, exchanges per second.
    #[arg(long, value_name = "R", default_value_t = 1000.0, value_parser = rate)]
    pub(super) from: f64,
    /// Highest rate to try.
    #[arg(long, value_name = "R", default_value_t = 1_000_000.0, value_parser = rate)]
    pub(super) to: f64,
    /// Share of exchanges that may be lost, refused or invalid, in percent [default: 0.1, with
    /// --preset kea 2.5].
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(super) loss: Option<f64>,
    /// Limits under which others publish their figures.
    #[arg(long, value_enum)]
    pub(super) preset: Option<Preset>,
    /// Limit of the 99th percentile of the whole exchange, in milliseconds.
    #[arg(long, value_name = "MS", value_parser = limit)]
    pub(super) p99_ms: Option<f64>,
    /// Length of each step.
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = rate)]
    pub(super) step_seconds: f64,
    /// Stop when the bounds are this close, in percent of the rate.
    #[arg(long, value_name = "PERCENT", default_value_t = 3.0, value_parser = precision)]
    pub(super) precision: f64,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

/// Limits under which others publish their figures.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Preset {
    /// 2.5 % of the exchanges may be lost, as in the performance reports of Kea.
    Kea,
}

impl FindMaxArgs {
    fn loss_percent(&self) -> f64 {
        self.loss.unwrap_or(match self.preset {
            Some(Preset::Kea) => 2.5,
            None => 0.1,
        })
    }
}

pub(super) fn run(args: &FindMaxArgs) -> anyhow::Result<u8> {
    let common = &args.common;
    let mut bench = Bench::open(common)?;
    let search = Search {
        from: args.from,
        to: args.to.max(args.from),
        loss_max: args.loss_percent() / 100.0,
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
            let phase =
                Phase { salt: number, ..Phase::new(&bench, Pace::Rate(rate), args.step_seconds) };
            let Outcome { summary, stats, .. } = bench.run(phase, &live)?;
            let good = summary.valid && summary.passed && search.within(&summary);
            if good || !any_good || !summary.passed {
                any_good |= good;
                shown = Some((summary.clone(), stats));
            }
            anyhow::Ok(summary)
        },
        |step| {
            if !common.quiet {
                eprintln!("{step}");
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
    // If nothing was borne, that misses every objective.
    let missed =
        common.slo.is_some() && !found.summary.as_ref().is_some_and(Summary::objectives_met);
    Ok(match found.limited_by {
        LimitedBy::Violation => FAILED,
        _ if missed => SLO_MISSED,
        _ => OK,
    })
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
