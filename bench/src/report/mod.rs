//! Figures of a run: the summary, and the forms in which it is shown.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{
    client::ClientIndex,
    engine::World,
    failover::FailoverReport,
    generator::Span,
    ledger::hex,
    machine::Environment,
    number::{float, micros, ratio, seconds},
    oracle::Violation,
    port::PortInfo,
    scenario::ScenarioReport,
    schedule::Pace,
    slo::ObjectiveReport,
    stats::{Counter, Interval, Pair, Stats},
};

mod files;
mod page;
mod terminal;

pub use files::{LOG, SUMMARY, series, write_all, write_hgrm, write_log};
pub use page::page;
pub use terminal::{Live, text, times_text};
pub(crate) use terminal::{grouped, time};

/// How the run was set up, as far as it bears on the figures.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Setup {
    /// The command line.
    pub command: Vec<String>,
    /// Exchanges per second, if the loop was open.
    pub rate: Option<f64>,
    /// Outstanding exchanges, if the loop was closed.
    pub window: Option<u32>,
    /// Length of the run, seconds.
    pub seconds: f64,
    /// Number of clients.
    pub clients: u32,
    /// Seed of everything random.
    pub seed: u64,
    /// `na`, `pd` or `both`.
    pub ia: String,
    /// Rapid Commit was asked for.
    pub rapid_commit: bool,
    /// Share of renewals among the exchanges of clients with a lease.
    pub renew_share: f64,
    /// Number of relay agents in between.
    pub relay_depth: u8,
    /// Their link-addresses.
    pub link_addresses: Vec<String>,
    /// Share of returning clients, if new ones and returning ones are told apart.
    #[serde(default)]
    pub returning: Option<f64>,
    /// How long an answer is waited for, milliseconds.
    pub timeout_ms: u64,
    /// When a message is sent again for the first time, milliseconds.
    #[serde(default)]
    pub retransmit_ms: Option<u64>,
    /// Clients send again as RFC 8415 section 15 has it, and for as long as the run goes.
    #[serde(default)]
    pub by_rfc: bool,
    /// When clients turn from one server to any, milliseconds.
    #[serde(default)]
    pub any_server_ms: Option<u64>,
    /// Interface.
    pub interface: String,
    /// Address to which messages are sent.
    pub server: String,
    /// Core to which the generator was bound.
    pub core: Option<u32>,
    /// The run is invalid when the 99th percentile of the generator's lag exceeds this.
    pub lag_limit_us: f64,
}

/// Percentiles of times, in microseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Percentiles {
    /// Number of times.
    pub count: u64,
    /// Mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// Longest.
    pub max_us: f64,
}

impl Percentiles {
    /// Of a histogram in ns.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |q: f64| micros(histogram.value_at_quantile(q));
        Self {
            count: histogram.len(),
            mean_us: (histogram.mean() / 10.0).round() / 100.0,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: micros(histogram.max()),
        }
    }
}

/// Times of a pair of messages.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct PairReport {
    /// Messages that were answered, from the moment they were due.
    pub answered: Percentiles,
    /// The same with unanswered messages as time-outs.
    pub with_losses: Percentiles,
    /// How many were answered while exchanges were begun.
    #[serde(default)]
    pub in_time: Option<u64>,
}

/// A server that answered.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ServerReport {
    /// DUID in hexadecimal.
    pub duid: String,
    /// Valid ADVERTISE.
    pub advertises: u64,
    /// Valid REPLY.
    pub replies: u64,
}

/// A violation in words.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ViolationReport {
    /// Name of the rule.
    pub kind: String,
    /// Seconds from the start of the run.
    pub at_s: f64,
    /// Number of the client, if known.
    pub client: Option<u32>,
    /// What happened.
    pub detail: String,
}

/// All figures of a run.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Summary {
    /// Version of the tool.
    pub version: String,
    /// Start of the run, seconds since 1970.
    pub started_at: u64,
    /// How it was set up.
    pub setup: Setup,
    /// Where it took place.
    pub environment: Environment,
    /// How packets went, as in [`PortInfo::mode`].
    pub mode: String,
    /// More of that.
    pub port: PortInfo,
    /// The server broke no rule.
    pub passed: bool,
    /// The generator was not the bottleneck.
    pub valid: bool,
    /// Why the figures are not valid.
    pub invalid_reasons: Vec<String>,
    /// A signal ended the run early.
    pub interrupted: bool,
    /// How long exchanges were started, seconds.
    pub duration_s: f64,
    /// How long the last answers were waited for, seconds.
    pub drain_s: f64,
    /// Share of a core that the generator had; it never sleeps, so the rest went to others.
    pub cpu_share: f64,
    /// Exchanges begun per second.
    pub started_per_s: f64,
    /// Exchanges completed.
    pub exchanges: u64,
    /// Exchanges completed per second, while new ones were started.
    pub exchanges_per_s: f64,
    /// SOLICIT without an answer.
    pub lost_advertises: u64,
    /// REQUEST, RENEW or REBIND without an answer.
    pub lost_replies: u64,
    /// Share of the exchanges begun that were not answered, refused or invalid.
    pub loss: f64,
    /// Leases on record.
    pub bindings_granted: usize,
    /// All counters by name.
    pub counters: BTreeMap<String, u64>,
    /// Violations by kind; only those that occurred.
    pub violations: BTreeMap<String, u64>,
    /// The first violations in words.
    pub violations_described: Vec<ViolationReport>,
    /// Times by pair; only pairs that occurred.
    pub pairs: BTreeMap<String, PairReport>,
    /// How late the generator sent.
    pub lag: Percentiles,
    /// The servers that answered.
    pub servers: Vec<ServerReport>,
    /// The seconds of the run.
    pub series: Vec<Interval>,
    /// What events did, in a run that had some.
    #[serde(default)]
    pub failover: Option<FailoverReport>,
    /// What a scenario has to say beside that.
    #[serde(default)]
    pub scenario: Option<ScenarioReport>,
    /// What became of the objectives.
    #[serde(default)]
    pub objectives: Vec<ObjectiveReport>,
    /// The runs that this was put together from, if it was.
    #[serde(default)]
    pub merged: Vec<String>,
}

/// What a summary is made from.
#[derive(Debug)]
pub struct Measured<'a> {
    /// How it was set up.
    pub setup: Setup,
    /// Where.
    pub environment: Environment,
    /// Counts and times.
    pub stats: &'a Stats,
    /// Grants and violations.
    pub world: &'a World,
    /// When.
    pub span: Span,
    /// Start in seconds since 1970.
    pub started_at: u64,
    /// By which port.
    pub port: PortInfo,
}

impl Setup {
    /// When messages are sent again, in words.
    #[must_use]
    pub fn sent_again(&self) -> String {
        match self.retransmit_ms {
            _ if self.by_rfc => "as RFC 8415 has it".into(),
            Some(ms) => format!("after {ms} ms"),
            None => "never".into(),
        }
    }
}

impl Summary {
    /// Works out the figures.
    #[must_use]
    pub fn new(measured: Measured<'_>) -> Self {
        let Measured { setup, environment, stats, world, span, started_at, port } = measured;
        let duration_s = seconds(span.sent.saturating_sub(span.begin));
        let per_second = |counter| {
            if duration_s > 0.0 { float(stats.get(counter)) / duration_s } else { 0.0 }
        };
        let started_per_s = per_second(Counter::Started);
        let lag = Percentiles::of(&stats.lag);
        let cpu_share = ratio(span.cpu, span.end.saturating_sub(span.begin));
        let mut invalid_reasons = invalid_reasons(&setup, stats, started_per_s, &lag, &port);
        if cpu_share < CPU_SHARE_MIN {
            invalid_reasons.push(format!(
                "the generator had only {:.0} % of a core: keep other work off it",
                cpu_share * 100.0
            ));
        }
        let violations: BTreeMap<_, _> = Violation::ALL
            .iter()
            .map(|kind| (kind.as_str().to_owned(), world.violations(*kind)))
            .filter(|(_, count)| *count > 0)
            .collect();
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            started_at,
            environment,
            mode: port.mode.clone(),
            port,
            passed: violations.is_empty(),
            valid: invalid_reasons.is_empty(),
            invalid_reasons,
            interrupted: span.interrupted,
            duration_s,
            cpu_share,
            drain_s: seconds(span.end.saturating_sub(span.sent)),
            started_per_s,
            exchanges: stats.get(Counter::Completed),
            exchanges_per_s: per_second(Counter::CompletedInTime),
            lost_advertises: stats.get(Counter::LostAdvertise),
            lost_replies: stats.lost() - stats.get(Counter::LostAdvertise),
            loss: ratio(stats.lost() + stats.failed(), stats.get(Counter::Started)),
            bindings_granted: world.ledger.len(),
            counters: Counter::ALL
                .iter()
                .map(|counter| (counter.as_str().to_owned(), stats.get(*counter)))
                .collect(),
            violations,
            violations_described: world
                .described
                .iter()
                .map(|described| ViolationReport {
                    kind: described.violation.as_str().into(),
                    at_s: seconds(described.at.saturating_sub(span.begin)),
                    client: described.client.map(|ClientIndex(client)| client),
                    detail: described.detail.clone(),
                })
                .collect(),
            pairs: pairs(stats),
            lag,
            servers: world
                .servers
                .iter()
                .map(|server| ServerReport {
                    duid: hex(server.duid.as_bytes()),
                    advertises: server.advertises,
                    replies: server.replies,
                })
                .collect(),
            series: stats.series.clone(),
            failover: None,
            objectives: Vec::new(),
            merged: Vec::new(),
            scenario: None,
            setup,
        }
    }

    /// The figures are not to be relied upon.
    pub fn invalidate(&mut self, reason: String) {
        self.valid = false;
        self.invalid_reasons.push(reason);
    }

    /// The pair whose times stand for the run: the whole exchange, or renewals if there was nothing
    /// else, or what there was most of.
    #[must_use]
    pub fn overall_pair(&self) -> Option<Pair> {
        let occurs = |pair: &&Pair| self.pairs.contains_key(pair.as_str());
        let wholes = [Pair::Exchange, Pair::Renewal, Pair::RenewReply];
        let count = |pair: &&Pair| self.pairs[pair.as_str()].with_losses.count;
        let most = || Pair::ALL.iter().filter(occurs).max_by_key(count);
        wholes.iter().find(occurs).or_else(most).copied()
    }

    /// Times of [`Self::overall_pair`] with losses as time-outs.
    #[must_use]
    pub fn overall(&self) -> Percentiles {
        self.overall_pair()
            .and_then(|pair| self.pairs.get(pair.as_str()))
            .map_or_else(Percentiles::default, |report| report.with_losses)
    }

    /// All objectives were met.
    #[must_use]
    pub fn objectives_met(&self) -> bool {
        self.objectives.iter().all(|objective| objective.met)
    }
}

/// Percentiles of the pairs that occurred.
#[must_use]
pub fn pairs(stats: &Stats) -> BTreeMap<String, PairReport> {
    Pair::ALL
        .iter()
        .map(|pair| {
            let times = stats.pair(*pair);
            let report = PairReport {
                answered: Percentiles::of(&times.answered),
                with_losses: Percentiles::of(&times.with_losses()),
                in_time: Some(stats.answered_in_time(*pair)),
            };
            (pair.as_str().to_owned(), report)
        })
        .filter(|(_, report)| report.with_losses.count > 0)
        .collect()
}

/// With less of a core than this, the generator's absences show in the latencies.
const CPU_SHARE_MIN: f64 = 0.9;

/// Why the generator may have been what was measured.
fn invalid_reasons(
    setup: &Setup,
    stats: &Stats,
    started_per_s: f64,
    lag: &Percentiles,
    port: &PortInfo,
) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(rate) = setup.rate {
        // The first exchange is due at once, so a short run may be one ahead, never 1 % behind.
        if started_per_s < 0.99 * rate {
            reasons.push(format!(
                "only {started_per_s:.0} of {rate:.0} exchanges per second were started"
            ));
        }
    }
    let open_loop = setup.window.is_none();
    if open_loop && lag.p99_us > setup.lag_limit_us {
        reasons.push(format!(
            "the generator was {:.0} us late at the 99th percentile (limit {:.0} us)",
            lag.p99_us, setup.lag_limit_us
        ));
    }
    for (counter, remedy) in [
        (Counter::NoClient, "all clients were busy: more --clients"),
        (Counter::NoSlot, "too many exchanges were outstanding: a shorter --timeout"),
    ] {
        let skipped = stats.get(counter);
        if open_loop && skipped > 0 {
            reasons.push(format!("{skipped} exchanges could not be started, {remedy}"));
        }
    }
    if port.receive_drops > 0 {
        let drops = port.receive_drops;
        reasons.push(format!("{drops} answers were dropped because the generator was too slow"));
    }
    reasons
}

/// The pace as the setup has it.
#[must_use]
pub fn rate_and_window(pace: Pace) -> (Option<f64>, Option<u32>) {
    match pace {
        Pace::Rate(rate) => (Some(rate), None),
        Pace::Window(window) => (None, Some(window)),
        Pace::Ramp { .. } | Pace::AtOnce => (None, None),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        failover::{EventReport, Timeline},
        number::{SECOND_NS, low32},
        record::{Second, set_percentiles},
        times::Times,
    };

    pub(crate) fn sample() -> (Summary, Stats) {
        let mut stats = Stats::new(0);
        let (mut seconds, mut times) = (Vec::new(), Box::<Times>::default());
        for second in 1..=2 {
            stats.count_many(Counter::Started, 500);
            for i in (0..998_u64).filter(|i| i % 2 == second % 2) {
                stats.count(Counter::Completed);
                stats.answered(Pair::SolicitAdvertise, 20_000 + i * 10);
                stats.answered(Pair::RequestReply, 90_000 + i * 100);
                stats.answered(Pair::Exchange, 120_000 + i * 110);
                stats.late(900);
            }
            if second == 2 {
                for _ in 0..2 {
                    stats.count(Counter::LostReply);
                    stats.timed_out(Pair::RequestReply, SECOND_NS);
                    stats.timed_out(Pair::Exchange, SECOND_NS);
                }
            }
            let mut interval = stats.tick(0, second * SECOND_NS, 4, low32(499 * second));
            interval.memory_kib = 2048 * second;
            times = stats.swap_times(times);
            set_percentiles(&mut interval, &times);
            seconds.push(Second::new(interval, &times));
            times.clear();
        }
        stats.count_many(Counter::CompletedInTime, 996);
        stats.set_seconds(seconds);
        let setup = Setup {
            command: vec!["gemel-bench".into(), "run".into(), "<&>".into()],
            rate: Some(500.0),
            window: None,
            seconds: 2.0,
            clients: 1000,
            seed: 1,
            ia: "both".into(),
            rapid_commit: false,
            renew_share: 0.0,
            relay_depth: 0,
            link_addresses: Vec::new(),
            returning: None,
            timeout_ms: 1000,
            retransmit_ms: None,
            by_rfc: false,
            any_server_ms: None,
            interface: "eth9".into(),
            server: "ff02::1:2".into(),
            core: Some(1),
            lag_limit_us: 1000.0,
        };
        let summary = Summary::new(Measured {
            setup,
            environment: Environment::default(),
            stats: &stats,
            world: &World::new(1, 10, 2),
            span: Span {
                begin: 0,
                sent: 2 * SECOND_NS,
                end: 3 * SECOND_NS,
                interrupted: false,
                cpu: 3 * SECOND_NS,
            },
            started_at: 0,
            port: PortInfo { mode: "memory".into(), ..PortInfo::default() },
        });
        (summary, stats)
    }

    /// What a kill in the first second did.
    pub(crate) fn failed_over() -> FailoverReport {
        let replies: BTreeMap<_, _> =
            [("0001".to_owned(), vec![9, 9, 0]), ("0002".to_owned(), vec![0, 0, 8])].into();
        FailoverReport {
            events: vec![EventReport {
                name: "kill <1>".into(),
                started_s: 0.5,
                finished_s: 0.503,
                failure: Some("no such process".into()),
                server_before: Some("0001".into()),
                takeover_ms: Some(250.0),
                takeover_from_end_ms: Some(247.0),
                outage_ms: 251.0,
                silent: false,
                first_reply_ms: [("0002".to_owned(), 250.0)].into(),
            }],
            takeover_ms: Some(250.0),
            outage_ms: 251.0,
            duplicates: 0,
            renumbered: 0,
            forgotten: 0,
            lost: 2,
            mclt_s: Some(60),
            grants_at_most_mclt: 5,
            lifetimes_shortened: 4,
            timeline: Timeline { step_s: 0.1, replies },
        }
    }

    #[test]
    fn the_text_tells_what_events_did() {
        let (mut summary, stats) = sample();
        summary.failover = Some(failed_over());
        let text = text(&summary, &stats);
        for piece in
            ["another server after 250.0 ms, 247.0 ms after", "no such process", "MCLT (60 s) 5"]
        {
            assert!(text.contains(piece), "{piece}: {text}");
        }
        assert!(!text.contains("in all"), "{text}");
        let report = summary.failover.as_mut().unwrap();
        report.events.push(report.events[0].clone());
        report.outage_ms = 400.0;
        let text = super::text(&summary, &stats);
        assert!(text.contains("without a REPLY in all 400.0 ms"), "{text}");
    }

    #[test]
    fn the_summary_counts_what_was_measured() {
        let (summary, _) = sample();
        assert_eq!((summary.exchanges, summary.lost_replies), (998, 2));
        assert!((summary.exchanges_per_s - 498.0).abs() < 1e-9);
        assert!((summary.loss - 0.002).abs() < 1e-9);
        assert!(summary.passed && summary.valid, "{:?}", summary.invalid_reasons);
        let reply = summary.pairs["request_reply"];
        assert!(reply.answered.max_us < 200.0 && reply.with_losses.max_us > 999_000.0);
        assert!(reply.answered.p999_us < 200.0 && reply.with_losses.p999_us > 999_000.0);
        assert!(!summary.pairs.contains_key("renew_reply"));
        assert_eq!(summary.overall().count, 1000);
    }

    #[test]
    fn a_slow_generator_makes_the_run_invalid() {
        let (summary, mut stats) = sample();
        let mut setup = summary.setup.clone();
        setup.rate = Some(600.0);
        let port = PortInfo::default();
        let reasons = |setup: &Setup, stats: &Stats| {
            invalid_reasons(setup, stats, 500.0, &Percentiles::of(&stats.lag), &port)
        };
        assert_eq!(reasons(&summary.setup, &stats), [""; 0]);
        assert_eq!(reasons(&setup, &stats).len(), 1, "rate not reached");
        for _ in 0..20 {
            stats.late(5_000_000);
        }
        stats.count(Counter::NoClient);
        let reasons = reasons(&setup, &stats);
        assert_eq!(reasons.len(), 3, "{reasons:?}");
    }

    #[test]
    fn the_summary_survives_json() {
        let (mut summary, _) = sample();
        summary.failover = Some(failed_over());
        let json = serde_json::to_string(&summary).unwrap();
        assert!(!json.contains('\n'));
        assert_eq!(serde_json::from_str::<Summary>(&json).unwrap(), summary);
    }
}
