//! `gemel-sim`: runs seeds of the simulator. `cargo xtask sim` builds and starts it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use gemel_sim::{Break, Outcome, Trace, run_seed, run_seeds};

/// Lets two simulated servers and their clients run through faults, and looks for what must not
/// happen. Ends with exit code 1 if anything was found, also where `--break` has called for it.
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Break a rule on purpose: mclt, reallocation-wait, parity, durable-before-reply or
    /// conflict-table.
    #[arg(long = "break", value_name = "RULE")]
    broken: Option<Break>,
    /// Print all that happens, seed by seed.
    #[arg(long)]
    trace: bool,
    /// Threads; as many as there are cores if left out.
    #[arg(long)]
    threads: Option<usize>,
}

/// Lines of the story that are shown of a failed run.
const LINES: usize = 40;
/// Failed runs that are told in full.
const TOLD_MAX: u64 = 5;

fn main() -> ExitCode {
    let args = Args::parse();
    // What panics is caught, reported and counted like any other violation.
    std::panic::set_hook(Box::new(|_| {}));
    let (passed, failed) = if args.trace { trace(&args) } else { run(&args) };
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn trace(args: &Args) -> (u64, u64) {
    let (mut passed, mut failed) = (0, 0);
    for seed in (args.first..).take(usize::try_from(args.seeds).unwrap_or(usize::MAX)) {
        println!("seed {seed}");
        let outcome = run_seed(seed, args.broken, Trace::Print);
        match &outcome.violation {
            Some(violation) => {
                println!("seed {seed} FAILED: {violation}");
                failed += 1;
            }
            None => passed += 1,
        }
    }
    (passed, failed)
}

fn run(args: &Args) -> (u64, u64) {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.unwrap_or_else(cores);
    let told = std::sync::atomic::AtomicU64::new(0);
    let summary = run_seeds(args.first, args.seeds, args.broken, threads, |outcome| {
        let full = told.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < TOLD_MAX;
        report(outcome, args.broken, full);
    });
    let stats = &summary.stats;
    println!(
        "{} virtual hours, {} events, {} answers to clients, {} leases taken, {} kept, {} frames \
         between the servers, {} faults, {} transitions, {} times NORMAL, {} runs with conflicts",
        stats.virtual_secs / 3600,
        stats.events,
        stats.answers,
        stats.holds,
        stats.kept,
        stats.frames,
        stats.faults,
        stats.transitions,
        stats.normal,
        stats.loose,
    );
    (summary.passed, summary.failures.len() as u64)
}

/// What was violated, how it came to that, and how to see it again.
fn report(outcome: &Outcome, broken: Option<Break>, full: bool) {
    let Some(violation) = &outcome.violation else { return };
    let seed = outcome.seed;
    let mut text = format!("seed {seed} FAILED: {violation}\n");
    if full {
        for line in run_seed(seed, broken, Trace::Last(LINES)).lines {
            text += &format!("    {line}\n");
        }
    }
    let rule = broken.map_or_else(String::new, |rule| format!(" --break {}", rule.as_str()));
    text += &format!("  again: cargo xtask sim --seeds 1 --first {seed}{rule} --trace");
    println!("{text}");
}
