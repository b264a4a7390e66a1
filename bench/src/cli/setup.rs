//! Leases that a scenario begins with.

use std::sync::atomic::Ordering;

use anyhow::bail;

use super::bench::{Bench, Phase};
use crate::{
    engine::{Choice, Patience, Retransmit},
    number::SECOND_NS,
    report::Live,
    scenario::SetupReport,
    schedule::Pace,
};

/// Lets `clients` clients get their leases, at a rate that the server bears, and with patience.
pub(super) fn acquire(
    bench: &mut Bench<'_>,
    clients: u32,
    rate: f64,
    live: &Live,
) -> anyhow::Result<SetupReport> {
    let mut phase = Phase::new(bench, Pace::Rate(rate), f64::from(clients) / rate + 1.0);
    phase.exchanges = Some(clients.into());
    phase.traffic.choice = Choice::Fresh;
    phase.salt = 1;
    phase.patience = Patience {
        timeout: 5 * SECOND_NS,
        retransmit: Retransmit::After(SECOND_NS / 4),
        any_server: None,
        end: None,
    };
    let outcome = bench.run(phase, live)?;
    let setup = SetupReport::new(clients.into(), bench.holding(), &outcome.summary);
    if bench.stop.load(Ordering::Relaxed) {
        bail!("interrupted while the leases were being made");
    }
    if setup.holding == 0 {
        bail!("no client was given a lease: is there a server on {}?", bench.args.interface);
    }
    Ok(setup)
}
