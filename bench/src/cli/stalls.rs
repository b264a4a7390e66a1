//! What the machine itself takes.

use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::json;

use super::{OK, args::rate};
use crate::{
    os,
    stalls::{self, Stalls},
};

#[derive(Clone, Debug, Args)]
pub(super) struct StallsArgs {
    /// Cores to watch, all at once: a host may take from one what another uses.
    #[arg(long, value_name = "C", value_delimiter = ',', default_value = "0,1")]
    cores: Vec<u32>,
    /// How long.
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = rate)]
    seconds: f64,
    /// Print JSON on the last line.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StallsArgs) -> anyhow::Result<u8> {
    let time = Duration::from_secs_f64(args.seconds);
    let watches = args.cores.iter().map(|&core| {
        std::thread::spawn(move || -> anyhow::Result<Stalls> {
            os::pin_to_core(core).with_context(|| format!("cannot bind to core {core}"))?;
            Ok(stalls::watch(core, time))
        })
    });
    // All of them are started before the first is waited for.
    let watches: Vec<_> = watches.collect();
    let mut found = Vec::new();
    for watch in watches {
        found.push(watch.join().map_err(|_| anyhow!("a watch has panicked"))??);
    }
    for stalls in &found {
        let over = stalls.over.iter().map(|it| {
            format!("{} of {} us and more ({:.3} % of the time)", it.count, it.us, it.share * 100.0)
        });
        println!(
            "core {}: gaps {}; the longest {:.0} us",
            stalls.core,
            over.collect::<Vec<_>>().join(", "),
            stalls.longest_us
        );
    }
    if args.json {
        println!("{}", json!({ "cores": found }));
    }
    Ok(OK)
}
