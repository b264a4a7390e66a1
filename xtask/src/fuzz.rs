//! `cargo xtask fuzz`: each fuzz target for a while.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::{check, root};
use crate::steps::Steps;

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long each target runs, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only targets whose name contains this.
    #[arg(default_value = "")]
    filter: String,
}

/// Runs the targets one after another; a crash fails the run after all have had their turn.
pub(crate) fn run(args: &Args) -> Result<()> {
    let works = |command: &mut Command| command.output().is_ok_and(|out| out.status.success());
    if !works(Command::new("cargo").args(["+nightly", "--version"])) {
        bail!("the nightly toolchain is missing: rustup toolchain install nightly");
    }
    if !works(&mut fuzz(&["--version"])) {
        bail!("cargo-fuzz is missing: cargo install cargo-fuzz");
    }
    let list = fuzz(&["list"]).output().context("starting cargo fuzz list")?;
    if !list.status.success() {
        bail!("cargo fuzz list failed: {}", String::from_utf8_lossy(&list.stderr));
    }
    let names = String::from_utf8(list.stdout).context("names of targets are UTF-8")?;
    let targets: Vec<&str> = names.lines().filter(|name| name.contains(&args.filter)).collect();
    if targets.is_empty() {
        bail!("no fuzz target's name contains {:?}", args.filter);
    }
    let mut steps = Steps::default();
    for target in targets {
        let seconds = format!("-max_total_time={}", args.seconds);
        steps.run(target, || check(&mut fuzz(&["run", target, "--", &seconds])));
    }
    println!("\n{}", steps.summary());
    if !steps.all_passed() {
        bail!("a fuzz target failed; what broke it is in fuzz/artifacts");
    }
    Ok(())
}

/// `cargo +nightly fuzz`, apart from the toolchain that this program was started with.
fn fuzz(args: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(["+nightly", "fuzz"]).args(args).current_dir(root());
    for variable in ["CARGO", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(variable);
    }
    command
}
