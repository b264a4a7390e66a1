//! The table on the terminal, and `docs/benchmarks.md`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use gemel_tests::{bench::DONE_MIN, kea};

use super::cases::{CASES, Case, Sample};
use super::stalls::Stalls;
use super::{Compare, LATENCY_SHARE, Samples, median, picture, spread};

/// The kernel's version.
pub(super) fn kernel() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim().to_owned()
}

/// A figure with its spread, or a dash.
fn cell(samples: &[Sample], value: fn(&Sample) -> Option<f64>) -> String {
    let (median, low, high) = spread(samples.iter().filter_map(value));
    if median.is_finite() { format!("{median:.0} ({low:.0} to {high:.0})") } else { "-".to_owned() }
}

/// The same for latencies, with a star if some of them may be the generator's.
fn latency_cell(samples: &[Sample], value: fn(&Sample) -> Option<f64>) -> String {
    let cell = cell(samples, value);
    let doubtful = samples.iter().any(|sample| !sample.latency_invalid.is_empty());
    if doubtful && cell != "-" { cell + " *" } else { cell }
}

/// What the star means, if there is one.
fn star(samples: &Samples) -> Option<String> {
    let all = || samples.values().flatten().filter(|sample| sample.advertise_p99_us.is_some());
    let bad = all().filter(|sample| !sample.latency_invalid.is_empty()).count();
    (bad > 0).then(|| {
        format!(
            "* {bad} of all {} measurements of latency are not valid: the generator was late or had \
             not all of its core, so part of these times is its own.",
            all().count()
        )
    })
}

/// One row for each case: title, rate, latencies, mode.
fn rows(samples: &Samples) -> Vec<[String; 5]> {
    let row = |case: &Case| {
        let samples = samples.get(case.name())?;
        let unit = if case.is_packets() { "packets/s" } else { "exchanges/s" };
        Some([
            case.title().to_owned(),
            format!("{} {unit}", cell(samples, |sample| Some(sample.per_s))),
            latency_cell(samples, |sample| sample.advertise_p99_us),
            latency_cell(samples, |sample| sample.reply_p99_us),
            samples.first().map(|sample| sample.mode.clone()).unwrap_or_default(),
        ])
    };
    CASES.iter().filter_map(row).collect()
}

/// A statement that compares two cases: what, how often, and the least that is aimed at.
fn ratios(samples: &Samples) -> Vec<(String, f64, f64)> {
    let rate = |case: Case| median(samples, case.name(), |sample| Some(sample.per_s));
    // Of an exchange the server gets two packets.
    let wanted: [(&str, Case, f64, Case, f64); 6] = [
        ("ADVERTISE/s to reflected packets/s", Case::Advertise, 1.0, Case::Reflector, 0.6),
        (
            "requests/s of exchanges (process) to reflected packets/s",
            Case::Process,
            2.0,
            Case::Reflector,
            0.4,
        ),
        ("exchanges (process) to Kea alone", Case::Process, 1.0, Case::Kea, 5.0),
        ("exchanges (power-loss) to Kea alone", Case::PowerLoss, 1.0, Case::Kea, 3.0),
        ("exchanges of the pair to Kea's pair", Case::Pair, 1.0, Case::KeaPair, 20.0),
        ("AF_XDP to sockets (process)", Case::Process, 1.0, Case::Socket, 1.0),
    ];
    wanted
        .into_iter()
        .filter_map(|(what, a, factor, b, goal)| {
            Some((what.to_owned(), factor * rate(a)? / rate(b)?, goal))
        })
        .collect()
}

/// For the terminal.
pub(super) fn table(samples: &Samples) -> String {
    let mut text = format!(
        "{:<42} {:>36} {:>24} {:>26}  mode\n",
        "median (lowest to highest)", "rate", "ADVERTISE p99 us", "REPLY p99 us"
    );
    for [title, rate, advertise, reply, mode] in rows(samples) {
        let _ = writeln!(text, "{title:<42} {rate:>36} {advertise:>24} {reply:>26}  {mode}");
    }
    for (what, ratio, goal) in ratios(samples) {
        let _ = writeln!(text, "{what}: {ratio:.2} (aim: {goal})");
    }
    if let Some(star) = star(samples) {
        let _ = writeln!(text, "{star}");
    }
    text + "Latencies at a fifth of each one's highest rate, losses counted as late; veth."
}

fn has_kea(samples: &Samples) -> bool {
    CASES.iter().any(|case| case.is_kea() && samples.contains_key(case.name()))
}

/// What is not bound to a core, and what is not there at all.
fn unbound(samples: &Samples, kea: Option<String>) -> String {
    if has_kea(samples) {
        let version = kea.map(|version| format!(" {version}")).unwrap_or_default();
        format!("The standby of Gemel's pair and Kea{version} are not bound to a core.")
    } else {
        "The standby of Gemel's pair is not bound to a core. Kea was not measured in this run."
            .into()
    }
}

/// Writes the page and its picture.
pub(super) fn write(out: &Path, args: &Compare, samples: &Samples, stalls: &Stalls) -> Result<()> {
    let svg = out.with_extension("svg");
    fs::write(&svg, picture::bars(samples))
        .with_context(|| format!("writing {}", svg.display()))?;
    let picture = svg.file_name().map(|name| name.to_string_lossy().into_owned());
    let text = page(args, samples, stalls, &picture.unwrap_or_default());
    fs::write(out, text).with_context(|| format!("writing {}", out.display()))
}

fn page(args: &Compare, samples: &Samples, stalls: &Stalls, picture: &str) -> String {
    let mut text = String::from(
        "# Benchmarks\n\n\
         Written by `cargo xtask bench compare`; run it to get the figures of your machine.\n\n",
    );
    let _ = writeln!(text, "![Exchanges per second]({picture})\n");
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let _ = writeln!(
        text,
        "Machine: {model}, {cores} cores, kernel {}, a veth pair between network namespaces. \
         Generator on core {}, server with all its threads on core {}. {}\n",
        kernel(),
        args.cores.generator_core,
        args.cores.server_core,
        unbound(samples, kea::version().ok()),
    );
    let _ = writeln!(
        text,
        "Median of {} rounds (lowest to highest); one case after the other in each round. An \
         exchange is SOLICIT, ADVERTISE, REQUEST, REPLY for one address, each of a client that \
         was not there before. The rate is the highest that was offered in an open loop with at \
         most 0.1 % of the exchanges lost{} and {:.0} % of the others done before the end of the \
         step, which takes {} s; if less was done than was offered, what was done. Latencies are at {} of \
         each one's own highest rate, counted from when a message was due, lost ones as late.\n",
        args.repetitions,
        if has_kea(samples) { " (Kea: 2.5 %)" } else { "" },
        100.0 * DONE_MIN,
        args.step_seconds,
        LATENCY_SHARE,
    );
    text += "| | rate | ADVERTISE p99, µs | REPLY p99, µs | mode |\n|---|--:|--:|--:|---|\n";
    for row in rows(samples) {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    if let Some(star) = star(samples) {
        let _ = writeln!(text, "\n\\{star}");
    }
    let _ = writeln!(text, "\n{}", stalls.sentence());
    text += "\n| ratio of medians | | aim |\n|---|--:|--:|\n";
    for (what, ratio, goal) in ratios(samples) {
        let _ = writeln!(text, "| {what} | {ratio:.2} | {goal} |");
    }
    if let Some(pair) = samples.get(Case::Pair.name()) {
        let _ = writeln!(
            text,
            "\nAfter the last load of the pair the partner knew every lease within {:.2} s.",
            spread(pair.iter().filter_map(|sample| sample.caught_up_s)).2
        );
    }
    text += "\nWhat they are: [benchmarking](benchmarking.md) has the generator and the reflector, \
             [tuning](tuning.md) the settings.\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Samples {
        let sample = |per_s: f64| Sample { per_s, ..Sample::default() };
        let rates = [1000.0, 700.0, 100.0, 300.0, 200.0, 150.0, 50.0, 5.0];
        CASES
            .iter()
            .zip(rates)
            .map(|(case, rate)| (case.name(), vec![sample(rate), sample(rate + 2.0)]))
            .collect()
    }

    #[test]
    fn ratios_are_those_of_the_medians() {
        let found: Vec<_> = ratios(&samples()).into_iter().map(|(_, ratio, _)| ratio).collect();
        let expected = [
            701.0 / 1001.0,
            602.0 / 1001.0,
            301.0 / 51.0,
            201.0 / 51.0,
            151.0 / 6.0,
            301.0 / 101.0,
        ];
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
    }

    #[test]
    fn latencies_that_are_not_valid_have_a_star() {
        let mut samples = samples();
        for sample in samples.get_mut(Case::Pair.name()).unwrap() {
            sample.advertise_p99_us = Some(70.0);
        }
        assert!(!table(&samples).contains('*'));
        samples.get_mut(Case::Pair.name()).unwrap()[1].latency_invalid = vec!["late".into()];
        let text = table(&samples);
        assert!(text.contains("70 (70 to 70) *"), "{text}");
        assert!(text.contains("* 1 of all 2 measurements of latency are not valid"), "{text}");
        assert_eq!(text.matches('*').count(), 2, "the other cases have none: {text}");
    }

    #[test]
    fn what_was_not_measured_is_left_out() {
        let mut samples = samples();
        let kea = || Some("2.2.0".to_owned());
        assert!(unbound(&samples, kea()).contains("Kea 2.2.0 are not bound"));
        samples.retain(|name, _| !name.starts_with("kea"));
        assert!(unbound(&samples, kea()).contains("Kea was not measured"));
        assert_eq!(ratios(&samples).len(), 3);
        let text = table(&samples);
        assert!(!text.contains("Kea") && text.contains("701 (700 to 702) packets/s"), "{text}");
    }
}
