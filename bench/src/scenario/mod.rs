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
