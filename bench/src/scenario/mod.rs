//! What the scenarios have to say beside the figures that every run has.

use std::fmt;

use serde::{Deserialize, Serialize};

mod kinds;
mod ramp;
mod soak;
mod storm;

pub use kinds::{ChurnReport, KindReport, MixReport};
pub use ramp::{Broke, Limits, RampReport, stretches};
pub use soak::{Drift, SoakReport, Stretch};
pub use storm::{Served, StormReport};

use crate::{number::ratio, report::Summary};

/// The section of a scenario in the summary.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ScenarioReport {
    /// From a low rate to a high one.
    Ramp(RampReport),
    /// All clients begin at once.
    Avalanche(StormReport),
    /// All clients renew at once.
    RenewStorm(StormReport),
    /// All kinds of exchanges.
    Mix(MixReport),
    /// Clients come and go.
    Churn(ChurnReport),
    /// A long run.
    Soak(SoakReport),
}

impl fmt::Display for ScenarioReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ramp(report) => report.fmt(f),
            Self::Avalanche(report) | Self::RenewStorm(report) => report.fmt(f),
            Self::Mix(report) => report.fmt(f),
            Self::Churn(report) => report.fmt(f),
            Self::Soak(report) => report.fmt(f),
        }
    }
}

/// How clients got the leases with which a scenario begins.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct SetupReport {
    /// Clients that were to hold a lease.
    pub wanted: u64,
    /// Clients that do.
    pub holding: u64,
    /// How long that took, seconds.
    pub seconds: f64,
    /// Share of the exchanges that were lost, refused or invalid.
    pub loss: f64,
}

impl SetupReport {
    /// From the run that made the leases.
    #[must_use]
    pub fn new(wanted: u64, holding: u64, summary: &Summary) -> Self {
        Self { wanted, holding, seconds: summary.duration_s + summary.drain_s, loss: summary.loss }
    }
}

impl fmt::Display for SetupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "set-up: {} of {} clients hold their leases ({:.1} %) after {:.1} s, loss {:.4} %",
            self.holding,
            self.wanted,
            ratio(self.holding, self.wanted) * 100.0,
            self.seconds,
            self.loss * 100.0
        )
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::find_max::Step;

    /// A report of each scenario, and what it says in words.
    pub(crate) fn all() -> Vec<(ScenarioReport, &'static [&'static str])> {
        let setup = SetupReport { wanted: 100, holding: 99, seconds: 1.0, loss: 0.01 };
        vec![
            (
                ScenarioReport::Ramp(ramp()),
                &[
                    "DHCPv6 ramp",
                    "1000 to 2000 exchanges/s",
                    "Borne 1000/s; at 2000/s too much",
                    "\"broke_at\":2000",
                ],
            ),
            (
                ScenarioReport::Avalanche(storm(None)),
                &[
                    "DHCPv6 avalanche",
                    "everybody within 1 s",
                    "90 of 100 (90.00 %)",
                    "never",
                    "\"shares\":[[\"50 %\",0.5],[\"90 %\",0.9]]",
                ],
            ),
            (
                ScenarioReport::RenewStorm(storm(Some(setup))),
                &[
                    "DHCPv6 renewal storm",
                    "99 of 100 clients hold their leases",
                    "data-chart=\"served\"",
                ],
            ),
            (
                ScenarioReport::Mix(MixReport {
                    setup,
                    kinds: [("new", 30), ("renew", 70)].map(kind).into(),
                    holding: 97,
                    declined_given: 1,
                }),
                &[
                    "DHCPv6 mix",
                    "<td>new</td><td>25.0 %</td><td>30.0 %</td>",
                    "97 clients hold a lease",
                ],
            ),
            (
                ScenarioReport::Churn(ChurnReport {
                    setup,
                    fill: 50,
                    hold_s: 3.0,
                    arrived: 41,
                    departed: 42,
                    holding_min: 48,
                    holding_max: 52,
                    holding_mean: 50.2,
                }),
                &["DHCPv6 churn", "<td>41</td>", "<td>52</td>"],
            ),
            (
                ScenarioReport::Soak(SoakReport {
                    interval_s: 5.0,
                    intervals: 9,
                    first: Stretch { p99_us: 100.0, loss: 0.0, memory_kib: 20_480 },
                    last: Stretch { p99_us: 900.0, loss: 0.0, memory_kib: 20_480 },
                    memory_kib: vec![20_480; 9],
                    drifts: vec![Drift::P99],
                }),
                &["DHCPv6 soak", "<td>DRIFT</td>", "20.0 MiB", "9 intervals of 5.0 s"],
            ),
        ]
    }

    fn ramp() -> RampReport {
        let step = |rate: f64, loss| Step {
            rate,
            exchanges_per_s: rate,
            loss,
            p50_us: 50.0,
            p99_us: 90.0,
            valid: true,
            within: true,
        };
        let limits = Limits { loss: 0.001, p99_us: None };
        RampReport::new(false, vec![step(1000.0, 0.0), step(2000.0, 0.5)], limits)
    }

    fn storm(setup: Option<SetupReport>) -> StormReport {
        StormReport {
            setup,
            clients: 100,
            served: 90,
            within_s: 1.0,
            all_begun_s: 1.0,
            until_50_s: Some(0.5),
            until_90_s: Some(0.9),
            until_99_s: None,
            until_all_s: None,
            sent: 250,
            retransmissions: 70,
            restarts: 0,
            messages_per_served: 2.5,
            curve: vec![Served { at_s: 0.5, clients: 50 }, Served { at_s: 0.9, clients: 90 }],
        }
    }

    fn kind((name, begun): (&str, u64)) -> KindReport {
        let share = if name == "new" { 0.25 } else { 0.75 };
        let (answered, lost, p50_us, p99_us) = (begun, 0, 50.0, 90.0);
        KindReport { kind: name.into(), share, begun, answered, lost, p50_us, p99_us }
    }
}
