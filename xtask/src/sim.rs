//! `cargo xtask sim`: seeds of the simulated pair.

use std::process::Command;

use anyhow::Result;

use crate::cargo::{cargo, check, target_dir};

/// Arguments of `cargo xtask sim`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Break a rule on purpose, to see that it is noticed: mclt, reallocation-wait, parity,
    /// durable-before-reply or conflict-table. What is found counts as failed all the same.
    #[arg(long = "break", value_name = "RULE")]
    broken: Option<String>,
    /// Print all that happens, seed by seed.
    #[arg(long)]
    trace: bool,
    /// Threads; as many as there are cores if left out.
    #[arg(long)]
    threads: Option<usize>,
}

impl Args {
    /// So many seeds from the first on.
    pub(crate) fn seeds(seeds: u64) -> Self {
        Self { seeds, first: 1, broken: None, trace: false, threads: None }
    }
}

/// Builds the simulator and lets it run. Fails if any seed does.
pub(crate) fn run(args: &Args) -> Result<()> {
    check(cargo().args(["build", "--quiet", "--profile", "sim", "--package", "gemel-sim"]))?;
    let mut command = Command::new(target_dir()?.join("sim").join("gemel-sim"));
    command.args(["--seeds", &args.seeds.to_string(), "--first", &args.first.to_string()]);
    if let Some(rule) = &args.broken {
        command.args(["--break", rule]);
    }
    if args.trace {
        command.arg("--trace");
    }
    if let Some(threads) = args.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    check(&mut command)
}
