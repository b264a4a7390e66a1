//! `cargo xtask bench workers`: what a message costs a worker with many bindings, and what two workers
//! do that share one lease table.

use anyhow::{Result, ensure};

use crate::cargo::{cargo, check};

/// Arguments of `cargo xtask bench workers`.
#[derive(Debug, clap::Args)]
pub(crate) struct Workers {
    /// Clients that have a lease.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(10_000..=100_000_000))]
    clients: u32,
    /// Length of each measurement, in seconds.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// How often each is done, one after the other in each round.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Cores of the two workers.
    #[arg(long, value_name = "CORE", num_args = 2, default_values_t = [0, 1])]
    cores: Vec<u32>,
    /// Measure this kind of work only: solicit, exchange, renew or churn; may be given several times.
    #[arg(long = "work", value_name = "NAME")]
    works: Vec<String>,
    /// Measure the first worker only.
    #[arg(long)]
    alone: bool,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
}

impl Workers {
    /// Needs neither root nor a network.
    pub(super) fn run(&self) -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        ensure!(self.alone || cores > 1, "two workers need two cores; --alone needs one");
        let mut command = cargo();
        command.args(["bench", "--quiet", "--package", "gemel-worker", "--bench", "workers", "--"]);
        command.args(["--clients", &self.clients.to_string()]);
        command.args(["--seconds", &self.seconds.to_string()]);
        command.args(["--repetitions", &self.repetitions.to_string()]);
        let cores: Vec<_> = self.cores.iter().map(u32::to_string).collect();
        command.args(["--cores", &cores.join(",")]);
        for work in &self.works {
            command.args(["--work", work]);
        }
        command.args(self.alone.then_some("--alone"));
        command.args(self.json.then_some("--json"));
        check(&mut command)
    }
}
