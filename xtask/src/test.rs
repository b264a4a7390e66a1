//! `cargo xtask test`: every check, with a summary that ends in one line of counts.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use gemel_tests::requirement;

use crate::cargo::{build_binaries, cargo, check};
use crate::setup;
use crate::sim;
use crate::steps::Steps;

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave out the release build, the simulator, the end-to-end tests and the documentation.
    #[arg(long)]
    quick: bool,
}

/// Seeds of the simulated pair: a minute or two on two cores.
const SIM_SEEDS: u64 = 10_000;

/// End-to-end tests mostly wait, so more of them run at once than there are cores here.
const TEST_THREADS_MIN: usize = 4;

/// Seeds the property tests, so that a run says something of the change and not of the day. Plain
/// `cargo test` draws other cases each time; what it finds gets a test of its own.
const PROPERTY_SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "8156");

/// Runs every check.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut steps = Steps::default();
    if steps.run("setup", setup::run).is_none() {
        bail!("nothing can be built without the set-up");
    }
    steps.run("format", || check(cargo().args(["fmt", "--all", "--check"])));
    steps.run("lints", || {
        let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        check(cargo().args(lints))
    });
    let mut binaries = None;
    if !args.quick {
        steps.run("documentation", || {
            let doc = ["doc", "--workspace", "--no-deps", "--document-private-items"];
            check(cargo().args(doc).env("RUSTDOCFLAGS", "-D warnings"))
        });
        binaries = steps.run("release build", build_binaries);
        steps.run("simulator", || sim::run(&sim::Args::seeds(SIM_SEEDS)));
    }
    let mut counts = Counts::default();
    steps.run("tests", || {
        run_tests(binaries.as_deref(), &mut counts)?;
        if counts.failed > 0 {
            bail!("{} tests failed", counts.failed);
        }
        Ok(())
    });

    println!("\n{}\n", steps.summary());
    for line in &counts.lines {
        println!("{line}");
    }
    println!("{} passed, {} failed", counts.passed, counts.failed);
    if !steps.all_passed() {
        bail!("not everything passed");
    }
    Ok(())
}

/// What `cargo test` reported.
#[derive(Debug, Default)]
struct Counts {
    passed: u64,
    failed: u64,
    /// Result lines, failed tests and skipped tests, as they were printed.
    lines: Vec<String>,
}

impl Counts {
    fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
            self.lines.push(line.to_owned());
            return;
        }
        let failed_test = line.starts_with("test ") && line.ends_with("... FAILED");
        if failed_test || line.starts_with("SKIPPED: ") {
            self.lines.push(line.to_owned());
        }
    }
}

/// The number that stands before `word`; 0 when there is none.
fn number_before(text: &str, word: &str) -> u64 {
    text.split(word)
        .next()
        .filter(|before| before.len() < text.len())
        .and_then(|before| before.rsplit(' ').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// Runs `cargo test` over the whole workspace, its output on the terminal as it comes.
fn run_tests(binaries: Option<&Path>, counts: &mut Counts) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]);
    if std::env::var_os(PROPERTY_SEED.0).is_none() {
        command.env(PROPERTY_SEED.0, PROPERTY_SEED.1);
    }
    command.env("RUST_TEST_THREADS", cores.max(TEST_THREADS_MIN).to_string());
    match binaries {
        Some(dir) => {
            command.env(requirement::BIN_DIR, dir);
            if requirement::is_root() {
                command.env(requirement::REQUIRE, "1");
            } else {
                eprintln!("not root: the end-to-end tests will be skipped");
            }
        }
        None => {
            command.env(requirement::SKIP, "1");
        }
    }
    let shared = Arc::new(Mutex::new(std::mem::take(counts)));
    let success = tee(command, &shared);
    *counts = std::mem::take(&mut *shared.lock().unwrap_or_else(PoisonError::into_inner));
    // A test that does not compile has no result line to count.
    if !success? && counts.failed == 0 {
        bail!("cargo test failed");
    }
    Ok(())
}

/// Runs a command whose output goes to the terminal and to `counts`.
fn tee(mut command: Command, counts: &Arc<Mutex<Counts>>) -> Result<bool> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("starting cargo test")?;
    let stdout = child.stdout.take().context("standard output is piped")?;
    let stderr = child.stderr.take().context("standard error is piped")?;
    let counts_of_stderr = Arc::clone(counts);
    let errors = std::thread::spawn(move || copy(stderr, std::io::stderr(), &counts_of_stderr));
    copy(stdout, std::io::stdout(), counts);
    let status = child.wait().context("waiting for cargo test")?;
    if errors.join().is_err() {
        bail!("copying the output of cargo test failed");
    }
    Ok(status.success())
}

fn copy(from: impl Read, mut to: impl Write, counts: &Mutex<Counts>) {
    let mut reader = BufReader::new(from);
    let mut raw = Vec::new();
    while matches!(reader.read_until(b'\n', &mut raw), Ok(1..)) {
        let line = String::from_utf8_lossy(&raw);
        counts.lock().unwrap_or_else(PoisonError::into_inner).read(line.trim_end());
        // A closed terminal must not stop the tests.
        let _ = to.write_all(&raw);
        raw.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_result_lines() {
        let mut counts = Counts::default();
        for line in [
            "test result: ok. 13 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            "test a::b ... ok",
            "test a::c ... FAILED",
            "SKIPPED: x needs root",
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            counts.read(line);
        }
        assert_eq!((counts.passed, counts.failed), (15, 3));
        assert_eq!(counts.lines.len(), 4);
    }

    #[test]
    fn no_number_is_none() {
        assert_eq!(number_before("ok", " passed"), 0);
        assert_eq!(number_before("x passed", " passed"), 0);
    }
}
