//! The door to everything that is done with this repository: `cargo xtask --help`.
//!
//! Builds on the bare toolchain, before anything that `setup` installs is there.

#![forbid(unsafe_code)]

mod bench;
mod cargo;
mod demo;
mod failover;
mod fuzz;
mod measuring;
mod setup;
mod sim;
mod steps;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set-up, demo, tests and benchmarks of Gemel.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Installs the Debian packages that are missing.
    Setup,
    /// Builds the server, lets real clients and a load at a failover pair, kills the primary, and
    /// shows that the standby serves and no lease is lost. Needs root.
    Demo(demo::Args),
    /// Runs every check: format, lints, documentation, unit and end-to-end tests.
    Test(test::Args),
    /// Measures the server beside the rings that it stands on and beside its peers. Needs root.
    Bench(bench::Args),
    /// Measures a failover: until the standby serves, what a partner costs clients, and how fast a
    /// server learns everything anew. Needs root.
    Failover(failover::Args),
    /// Runs each fuzz target for a while. Needs the nightly toolchain and cargo-fuzz.
    Fuzz(fuzz::Args),
    /// Runs seeds of the simulated failover pair. Ends with one line of counts, and fails if any
    /// seed does.
    Sim(sim::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => setup::run(),
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Failover(args) => failover::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Sim(args) => sim::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
