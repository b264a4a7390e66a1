//! `cargo xtask bench`: how fast the server is, beside what it stands on and beside its peers.

mod avalanche;
mod cases;
mod large;
mod page;
mod peers;
mod picture;
mod stalls;
mod workers;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use gemel_tests::kea;
use serde_json::{Map, Value, json};

use crate::cargo::root;
use crate::measuring::{self, Cores};
use crate::setup;
use cases::{CASES, Case, Sample};
use stalls::Stalls;

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The rings alone, Gemel and Kea (where it is installed), side by side in one run with one
    /// generator; writes docs/benchmarks.md and its picture.
    Compare(Compare),
    /// How long until everybody is served when all clients come at once, as after a power cut.
    Avalanche(avalanche::Avalanche),
    /// Millions of bindings: memory for each, the rate beside that of a small network, and how soon
    /// clients are answered after a restart. Takes some minutes.
    Large(large::Large),
    /// Workers over one lease table and without a network: what a message costs with many bindings, and
    /// what two workers do beside one.
    Workers(workers::Workers),
}

/// Arguments of `cargo xtask bench compare`.
#[derive(Debug, clap::Args)]
pub(crate) struct Compare {
    /// How often each case is measured, one after the other in each round; medians are shown.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Length of each step of the search for the highest rate, in seconds.
    #[arg(long, default_value_t = 2.0)]
    step_seconds: f64,
    /// Length of each measurement of latency, in seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// The search for a rate ends when its bounds are this close, as a share of the rate.
    #[arg(long, default_value_t = 0.05)]
    precision: f64,
    #[command(flatten)]
    cores: Cores,
    /// Measure these cases only; may be given several times.
    #[arg(long = "case", value_name = "NAME")]
    only: Vec<String>,
    /// One short round; writes nothing unless --out says where.
    #[arg(long)]
    quick: bool,
    /// Install Kea from Debian's packages, if it is missing.
    #[arg(long)]
    install_peers: bool,
    /// The page to write; its picture lies beside it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
}

/// Latency is measured at this share of the highest rate.
const LATENCY_SHARE: f64 = 0.2;

/// Runs what is asked for.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Command::Workers(workers) = &args.command {
        return workers.run();
    }
    measuring::prepare()?;
    match &args.command {
        Command::Compare(compare) => compare.run(),
        Command::Avalanche(avalanche) => avalanche.run(),
        Command::Large(large) => large.run(),
        Command::Workers(workers) => workers.run(),
    }
}

/// All samples of a case, in the order of the rounds.
type Samples = BTreeMap<&'static str, Vec<Sample>>;

impl Compare {
    fn run(&self) -> Result<()> {
        if self.install_peers {
            setup::install_peers()?;
        }
        let args = self.effective();
        let known = |name: &String| CASES.iter().any(|case| case.name() == name);
        if let Some(unknown) = args.only.iter().find(|name| !known(name)) {
            let names: Vec<_> = CASES.iter().map(|case| case.name()).collect();
            bail!("there is no case {unknown:?}; there are {}", names.join(", "));
        }
        let (cases, missing) = chosen(&args.only, kea::is_installed());
        if !missing.is_empty() {
            let names: Vec<_> = missing.iter().map(|case| case.name()).collect();
            let names = names.join(", ");
            ensure!(
                args.only.is_empty(),
                "Kea is not installed, which {names} needs: --install-peers installs it"
            );
            eprintln!("left out, because Kea is not installed: {names}");
        }
        // One case after the other in each round, so that whatever changes on the machine in the
        // meantime touches all alike.
        let mut samples = Samples::new();
        let mut stalls = Stalls::default();
        for round in 1..=args.repetitions {
            stalls.look(&args.cores)?;
            for case in &cases {
                let sample =
                    case.measure(&args).with_context(|| format!("measuring {}", case.name()))?;
                eprintln!("round {round}, {}: {}", case.title(), sample.line());
                samples.entry(case.name()).or_default().push(sample);
            }
        }
        println!("{}", page::table(&samples));
        println!("{}", stalls.sentence());
        let out = self.out.clone().or_else(|| {
            (!self.quick && self.only.is_empty()).then(|| root().join("docs/benchmarks.md"))
        });
        if let Some(out) = &out {
            page::write(out, &args, &samples, &stalls)?;
            println!("written {}", out.display());
        }
        if self.json {
            println!("{}", report(&args, &samples, &stalls));
        }
        Ok(())
    }

    /// With what `--quick` means put in.
    fn effective(&self) -> Self {
        let mut args = Self { only: self.only.clone(), out: self.out.clone(), ..*self };
        if self.quick {
            args.repetitions = 1;
            args.step_seconds = args.step_seconds.min(0.8);
            args.precision = args.precision.max(0.1);
            args.seconds = args.seconds.min(2.0);
        }
        args
    }
}

/// The cases that are measured, and those that cannot be for want of Kea.
fn chosen(only: &[String], has_kea: bool) -> (Vec<Case>, Vec<Case>) {
    CASES
        .into_iter()
        .filter(|case| only.is_empty() || only.iter().any(|name| name == case.name()))
        .partition(|case| !case.is_kea() || has_kea)
}

/// Median, lowest and highest.
pub(crate) fn spread(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let (Some(&low), Some(&high)) = (sorted.first(), sorted.last()) else {
        return (f64::NAN, f64::NAN, f64::NAN);
    };
    let middle = sorted.len() / 2;
    let median = if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    };
    (median, low, high)
}

/// The median of one figure of a case; none where it was not measured.
fn median(samples: &Samples, case: &str, value: fn(&Sample) -> Option<f64>) -> Option<f64> {
    let samples = samples.get(case)?;
    let (median, ..) = spread(samples.iter().filter_map(value));
    median.is_finite().then_some(median)
}

/// Everything as one object.
fn report(args: &Compare, samples: &Samples, stalls: &Stalls) -> Value {
    let rate = |case: &str| median(samples, case, |sample| Some(sample.per_s));
    let advertise = |case: &str| median(samples, case, |sample| sample.advertise_p99_us);
    let reply = |case: &str| median(samples, case, |sample| sample.reply_p99_us);
    let mode = samples
        .get(Case::PowerLoss.name())
        .and_then(|samples| samples.first())
        .map(|sample| sample.mode.clone());
    let mut cases = Map::new();
    for (name, samples) in samples {
        cases.insert((*name).to_owned(), samples.iter().map(Sample::json).collect());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    json!({
        "reflector_pps": rate(Case::Reflector.name()),
        "advertise_per_s": rate(Case::Advertise.name()),
        "exchanges_socket": rate(Case::Socket.name()),
        "exchanges_process": rate(Case::Process.name()),
        "exchanges_power_loss": rate(Case::PowerLoss.name()),
        "exchanges_pair": rate(Case::Pair.name()),
        "kea_single": rate(Case::Kea.name()),
        "kea_pair": rate(Case::KeaPair.name()),
        "advertise_p99_us": advertise(Case::PowerLoss.name()),
        "reply_p99_us": reply(Case::PowerLoss.name()),
        "load_of_max": LATENCY_SHARE,
        "mode": mode,
        "at": now,
        "repetitions": args.repetitions,
        "server_core": args.cores.server_core,
        "generator_core": args.cores.generator_core,
        "kernel": page::kernel(),
        "stalls": stalls.json(),
        "cases": cases,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_left_out_only_for_want_of_kea() {
        let only = |name: &str| vec![name.to_owned()];
        assert_eq!(chosen(&[], true), (CASES.to_vec(), vec![]));
        let (cases, missing) = chosen(&[], false);
        assert_eq!((cases.len(), missing), (6, vec![Case::Kea, Case::KeaPair]));
        assert_eq!(chosen(&only("kea"), false), (vec![], vec![Case::Kea]));
        assert_eq!(chosen(&only("pair"), false), (vec![Case::Pair], vec![]));
    }

    #[test]
    fn medians() {
        assert_eq!(spread([3.0, 1.0, 2.0].into_iter()), (2.0, 1.0, 3.0));
        assert_eq!(spread([4.0, 1.0, 2.0, 3.0].into_iter()), (2.5, 1.0, 4.0));
        assert!(spread(std::iter::empty()).0.is_nan());
    }
}
