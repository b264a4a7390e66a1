//! `cargo xtask bench`: AF_XDP against sockets and what durability costs, in one run on the same
//! cores.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use gemel_tests::bench::{Highest, Load, Pace};
use gemel_tests::gemel::{Config, Durability, LinkConfig, Mode, Server};
use gemel_tests::{Lab, Link, requirement};
use serde_json::{Value, json};

use crate::cargo::build_binaries;
use crate::setup;

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often each variant is measured; medians are shown.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Length of each step of the search for the highest rate, in seconds.
    #[arg(long, default_value_t = 2.0)]
    step_seconds: f64,
    /// Length of each measurement of latency, in seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Core of the server, with all its threads.
    #[arg(long, default_value_t = 1)]
    server_core: u32,
    /// Core of the generator.
    #[arg(long, default_value_t = 0)]
    generator_core: u32,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
}

/// Clients that the generator plays.
const CLIENTS: u32 = 200_000;

/// Latency is measured at this share of the highest rate.
const LATENCY_SHARE: f64 = 0.2;

/// What is compared.
const VARIANTS: [(Mode, Durability); 4] = [
    (Mode::Auto, Durability::PowerLoss),
    (Mode::Socket, Durability::PowerLoss),
    (Mode::Auto, Durability::Process),
    (Mode::Socket, Durability::Process),
];

/// One measurement of one variant.
#[derive(Clone, Debug)]
struct Sample {
    mode: String,
    highest: Highest,
    p50_us: f64,
    p99_us: f64,
    lost: u64,
}

/// Runs the comparison.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !requirement::is_root() {
        bail!("the benchmark makes network namespaces and loads XDP programs: run it as root");
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ensure!(cores > 1, "the benchmark needs two cores, one of them for the generator");
    setup::run()?;
    requirement::use_binaries_in(&build_binaries()?);

    // One variant after the other in each round, so that whatever changes on the machine in the
    // meantime touches all alike.
    let mut samples = vec![Vec::new(); VARIANTS.len()];
    for round in 1..=args.repetitions {
        for (variant, samples) in VARIANTS.into_iter().zip(&mut samples) {
            let sample =
                measure(args, variant).with_context(|| format!("measuring {}", name(variant)))?;
            let disturbed =
                if sample.highest.undisturbed { "" } else { ", disturbed by other work" };
            eprintln!(
                "round {round}, {}: {:.0} exchanges/s (limit: {}{disturbed}), p50 {:.0} us, \
                 p99 {:.0} us",
                name(variant),
                sample.highest.per_s,
                sample.highest.limited_by,
                sample.p50_us,
                sample.p99_us
            );
            samples.push(sample);
        }
    }
    println!("{}", table(&samples));
    if args.json {
        println!("{}", report(args, &samples));
    }
    Ok(())
}

fn name((mode, durability): (Mode, Durability)) -> String {
    let mode = if mode == Mode::Socket { "sockets" } else { "AF_XDP" };
    format!("{mode}, {}", durability.as_str())
}

/// A fresh lab, server and store; the highest rate, then the latency at a fifth of it.
fn measure(args: &Args, (mode, durability): (Mode, Durability)) -> Result<Sample> {
    let lab = Lab::new("bench")?;
    let server_ns = lab.namespace("server")?;
    let client_ns = lab.namespace("client")?;
    let (interface, server_interface) =
        Link::default().connect((&client_ns, "gml-c0"), (&server_ns, "gml-s0"))?;
    let link = LinkConfig::new("access", 1).for_load(1).on(&server_interface);
    let mut config = Config::new(mode, vec![link]);
    config.durability = durability;
    config.pin = Some(args.server_core.to_string());
    let server = Server::start(&lab, &server_ns, &config)?;
    let found_mode = server.mode()?;
    if mode == Mode::Auto && found_mode.contains("socket") {
        bail!("AF_XDP is not available here: the server fell back to sockets");
    }

    let mut load = Load::new(Pace::Window(1), args.seconds, CLIENTS);
    load.core = Some(args.generator_core);
    let highest = load.highest_rate(&interface, args.step_seconds, || Ok(()))?;
    load.pace = Pace::Rate(highest.per_s * LATENCY_SHARE);
    load.seed = 2;
    let quiet = load.run(&interface)?;
    let times = &quiet["pairs"]["request_reply"]["with_losses"];
    let time = |key: &str| times[key].as_f64().with_context(|| format!("no {key} in {times}"));
    Ok(Sample {
        mode: found_mode,
        highest,
        p50_us: time("p50_us")?,
        p99_us: time("p99_us")?,
        lost: quiet["lost_replies"].as_u64().unwrap_or(0)
            + quiet["lost_advertises"].as_u64().unwrap_or(0),
    })
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

fn table(samples: &[Vec<Sample>]) -> String {
    let mut text = format!(
        "{:<22} {:<26} {:>28} {:>24} {:>24}\n",
        "", "mode", "exchanges/s (low to high)", "REPLY p50 us", "REPLY p99 us"
    );
    for (variant, samples) in VARIANTS.into_iter().zip(samples) {
        let column = |value: fn(&Sample) -> f64| {
            let (median, low, high) = spread(samples.iter().map(value));
            format!("{median:.0} ({low:.0} to {high:.0})")
        };
        text += &format!(
            "{:<22} {:<26} {:>28} {:>24} {:>24}\n",
            name(variant),
            samples.first().map_or("", |sample| &sample.mode),
            column(|sample| sample.highest.per_s),
            column(|sample| sample.p50_us),
            column(|sample| sample.p99_us)
        );
    }
    for (first, second) in [(0, 1), (2, 3)] {
        let median = |index: usize| spread(samples[index].iter().map(|s| s.highest.per_s)).0;
        text += &format!(
            "{}: {:.2} times the exchanges/s of {}\n",
            name(VARIANTS[first]),
            median(first) / median(second),
            name(VARIANTS[second])
        );
    }
    text + "Latency from REQUEST to REPLY at a fifth of the highest rate; veth, one core each."
}

fn report(args: &Args, samples: &[Vec<Sample>]) -> Value {
    let variants: Vec<Value> = VARIANTS
        .into_iter()
        .zip(samples)
        .map(|((mode, durability), samples)| {
            let figures = |value: fn(&Sample) -> f64| {
                let (median, low, high) = spread(samples.iter().map(value));
                json!({"median": median, "low": low, "high": high})
            };
            json!({
                "asked_mode": mode.as_str(),
                "mode": samples.first().map(|sample| &sample.mode),
                "durability": durability.as_str(),
                "max_exchanges_per_s": figures(|sample| sample.highest.per_s),
                "closed_loop_per_s": figures(|sample| sample.highest.closed_loop_per_s),
                "limited_by": samples.iter().map(|sample| &sample.highest.limited_by).collect::<Vec<_>>(),
                "reply_p50_us": figures(|sample| sample.p50_us),
                "reply_p99_us": figures(|sample| sample.p99_us),
                "undisturbed": samples.iter().all(|sample| sample.highest.undisturbed),
                "lost": samples.iter().map(|sample| sample.lost).sum::<u64>(),
            })
        })
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    json!({
        "at": now,
        "repetitions": args.repetitions,
        "server_core": args.server_core,
        "generator_core": args.generator_core,
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "link": "veth",
        "variants": variants,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(spread([3.0, 1.0, 2.0].into_iter()), (2.0, 1.0, 3.0));
        assert_eq!(spread([4.0, 1.0, 2.0, 3.0].into_iter()), (2.5, 1.0, 4.0));
        assert!(spread(std::iter::empty()).0.is_nan());
    }

    #[test]
    fn the_table_compares_modes() {
        let sample = |per_s: f64| Sample {
            mode: "native".into(),
            highest: Highest {
                per_s,
                limited_by: "server",
                undisturbed: true,
                closed_loop_per_s: per_s,
            },
            p50_us: 100.0,
            p99_us: 900.0,
            lost: 0,
        };
        let samples: Vec<_> =
            [4000.0, 2000.0, 9000.0, 3000.0].map(|rate| vec![sample(rate)]).into();
        let text = table(&samples);
        assert!(text.contains("2.00 times") && text.contains("3.00 times"), "{text}");
    }
}
