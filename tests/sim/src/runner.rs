//! Many runs, each from its own seed, on several threads.

use std::io::{IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::check::{Rule, Violation};
use crate::plan::{Break, Plan};
use crate::world::{Stats, Trace, World};

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What was found wrong.
    pub violation: Option<Violation>,
    /// What was done.
    pub stats: Stats,
    /// Two runs of a seed share it.
    pub fingerprint: u64,
    /// The last lines of the story, if they were kept.
    pub lines: Vec<String>,
}

/// What came of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds without a violation.
    pub passed: u64,
    /// Those with one, in the order of their numbers.
    pub failures: Vec<(u64, Violation)>,
    /// What was done in all of them.
    pub stats: Stats,
}

/// Runs one seed.
#[must_use]
pub fn run_seed(seed: u64, broken: Option<Break>, trace: Trace) -> Outcome {
    run_plan(Plan::random(seed, broken), trace)
}

/// Runs a plan.
#[must_use]
pub fn run_plan(plan: Plan, trace: Trace) -> Outcome {
    let seed = plan.seed;
    let mut world = World::new(plan, trace);
    let result = catch_unwind(AssertUnwindSafe(|| world.run_plan()));
    let violation = match result {
        Ok(()) => world.violation().cloned(),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let what = text.unwrap_or_else(|| "without a word".to_owned());
            Some(Violation { at: world.now(), rule: Rule::Panic, what })
        }
    };
    Outcome {
        seed,
        violation,
        stats: world.stats(),
        fingerprint: world.fingerprint(),
        lines: world.lines(),
    }
}

/// Runs the seeds from `first` on, and calls `report` with each violation as it is found.
pub fn run_seeds(
    first: u64,
    count: u64,
    broken: Option<Break>,
    threads: usize,
    report: impl Fn(&Outcome) + Sync,
) -> Summary {
    let next = AtomicU64::new(first);
    let summary = Mutex::new(Summary::default());
    let started = Instant::now();
    let progress = Mutex::new((started, std::io::stderr().is_terminal()));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.saturating_add(count) {
                        return;
                    }
                    let outcome = run_seed(seed, broken, Trace::Off);
                    if outcome.violation.is_some() {
                        report(&outcome);
                    }
                    let Ok(mut sum) = summary.lock() else { return };
                    sum.stats.add(&outcome.stats);
                    match outcome.violation {
                        None => sum.passed += 1,
                        Some(violation) => sum.failures.push((seed, violation)),
                    }
                    show(&sum, count, started, &progress);
                }
            });
        }
    });
    let mut summary = summary.into_inner().unwrap_or_default();
    summary.failures.sort_by_key(|(seed, _)| *seed);
    summary
}

/// A line of progress now and then; on a terminal always in the same place.
fn show(sum: &Summary, count: u64, started: Instant, progress: &Mutex<(Instant, bool)>) {
    let Ok(mut progress) = progress.lock() else { return };
    let (last, terminal) = *progress;
    let interval = Duration::from_millis(if terminal { 500 } else { 10_000 });
    if last.elapsed() < interval {
        return;
    }
    progress.0 = Instant::now();
    let failed = sum.failures.len() as u64;
    let done = sum.passed + failed;
    let rate = done as f64 / started.elapsed().as_secs_f64();
    let end = if terminal { "\r" } else { "\n" };
    eprint!("{done} of {count} seeds, {failed} failed, {rate:.0}/s{end}");
    let _ = std::io::stderr().flush();
}
