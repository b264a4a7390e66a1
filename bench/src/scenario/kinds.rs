//! Exchanges of several kinds side by side.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::SetupReport;
use crate::{
    engine::{Kind, Shares},
    number::{float, micros},
    stats::{Counter, Interval, Pair, Stats},
};

/// One kind of exchange in a mix.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct KindReport {
    /// Its name.
    pub kind: String,
    /// Its share of the exchanges, 0 to 1, as asked for.
    pub share: f64,
    /// Exchanges of it that were begun.
    pub begun: u64,
    /// Exchanges of it that were answered to the end.
    pub answered: u64,
    /// Messages of it without an answer.
    pub lost: u64,
    /// Median of the answered ones, microseconds.
    pub p50_us: f64,
    /// 99th percentile of the answered ones, microseconds.
    pub p99_us: f64,
}

/// The outcome of a mix.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct MixReport {
    /// How the leases were made that the mix began with.
    pub setup: SetupReport,
    /// The kinds that were asked for.
    pub kinds: Vec<KindReport>,
    /// Clients that held a lease at the end.
    pub holding: u64,
    /// Leases that were given out although a client had declined them.
    pub declined_given: u64,
}

impl MixReport {
    /// Works it out.
    #[must_use]
    pub fn new(setup: SetupReport, shares: &Shares, holding: u64, stats: &Stats) -> Self {
        let kinds = Kind::ALL
            .into_iter()
            .filter(|kind| shares.of(*kind) > 0.0)
            .map(|kind| kind_report(kind, shares.of(kind), stats))
            .collect();
        Self { setup, kinds, holding, declined_given: stats.get(Counter::DeclinedGiven) }
    }
}

fn kind_report(kind: Kind, share: f64, stats: &Stats) -> KindReport {
    use Counter as C;
    let (sent, pair, lost): (_, _, &[Counter]) = match kind {
        Kind::New => (C::SentSolicit, Pair::Exchange, &[C::LostAdvertise, C::LostReply]),
        Kind::Renew => (C::SentRenew, Pair::RenewReply, &[C::LostRenewReply]),
        Kind::Rebind => (C::SentRebind, Pair::RebindReply, &[C::LostRebindReply]),
        Kind::Release => (C::SentRelease, Pair::ReleaseReply, &[C::LostReleaseReply]),
        Kind::Decline => (C::SentDecline, Pair::DeclineReply, &[C::LostDeclineReply]),
        Kind::Confirm => (C::SentConfirm, Pair::ConfirmReply, &[C::LostConfirmReply]),
        Kind::Inform => (C::SentInform, Pair::InformReply, &[C::LostInformReply]),
    };
    let times = &stats.pair(pair).answered;
    let quantile = |q: f64| if times.is_empty() { 0.0 } else { micros(times.value_at_quantile(q)) };
    KindReport {
        kind: kind.as_str().into(),
        share,
        begun: stats.get(sent),
        answered: times.len(),
        lost: lost.iter().map(|counter| stats.get(*counter)).sum(),
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
    }
}

impl fmt::Display for MixReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.setup.fmt(f)?;
        for kind in &self.kinds {
            writeln!(
                f,
                "  {:<8} {:>5.1} %  begun {:>9}  answered {:>9}  lost {:>7}  p50 {:>9.1} us  p99 {:>9.1} us",
                kind.kind,
                kind.share * 100.0,
                kind.begun,
                kind.answered,
                kind.lost,
                kind.p50_us,
                kind.p99_us
            )?;
        }
        writeln!(f, "  clients that hold a lease at the end {}", self.holding)?;
        if self.declined_given > 0 {
            writeln!(f, "  leases given out after they were declined {}", self.declined_given)?;
        }
        Ok(())
    }
}

/// The outcome of a churn.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ChurnReport {
    /// How the leases were made that it began with.
    pub setup: SetupReport,
    /// Clients that were to hold a lease at any time.
    pub fill: u64,
    /// How long each was to stay, seconds.
    pub hold_s: f64,
    /// Clients that came and were given a lease.
    pub arrived: u64,
    /// Clients whose RELEASE was answered.
    pub departed: u64,
    /// The fewest that held a lease at the end of a second.
    pub holding_min: u64,
    /// The most.
    pub holding_max: u64,
    /// The mean.
    pub holding_mean: f64,
}

impl ChurnReport {
    /// Works it out.
    #[must_use]
    pub fn new(setup: SetupReport, fill: u64, hold_s: f64, stats: &Stats) -> Self {
        let during: Vec<u64> = stats.series.iter().filter(|i| i.started > 0).map(holding).collect();
        let count = during.len() as u64;
        Self {
            setup,
            fill,
            hold_s,
            arrived: stats.pair(Pair::Exchange).answered.len(),
            departed: stats.pair(Pair::ReleaseReply).answered.len(),
            holding_min: during.iter().copied().min().unwrap_or(0),
            holding_max: during.iter().copied().max().unwrap_or(0),
            holding_mean: float(during.iter().sum()) / float(count.max(1)),
        }
    }
}

fn holding(interval: &Interval) -> u64 {
    interval.holding.into()
}

impl fmt::Display for ChurnReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.setup.fmt(f)?;
        writeln!(
            f,
            "churn: {} clients came, {} left after about {:.1} s\n  holding a lease: wanted {}, \
             mean {:.0}, fewest {}, most {}",
            self.arrived,
            self.departed,
            self.hold_s,
            self.fill,
            self.holding_mean,
            self.holding_min,
            self.holding_max
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::SECOND_NS;

    #[test]
    fn each_kind_has_its_own_figures() {
        let mut stats = Stats::new(0);
        stats.count_many(Counter::SentRelease, 10);
        stats.count(Counter::LostReleaseReply);
        for _ in 0..9 {
            stats.answered(Pair::ReleaseReply, 1_000_000);
        }
        stats.count_many(Counter::SentSolicit, 5);
        stats.answered(Pair::Exchange, 7);
        let shares: Shares = "new=1,release=3".parse().unwrap();
        let report = MixReport::new(SetupReport::default(), &shares, 4, &stats);
        assert_eq!(report.kinds.len(), 2);
        let release = &report.kinds[1];
        assert_eq!((release.kind.as_str(), release.share), ("release", 0.75));
        assert_eq!((release.begun, release.answered, release.lost), (10, 9, 1));
        assert!(release.p99_us > 990.0, "{release:?}");
        assert_eq!((report.kinds[0].begun, report.kinds[0].answered), (5, 1));
        assert!(report.to_string().contains("hold a lease at the end 4"));
    }

    #[test]
    fn the_fill_is_followed() {
        let mut stats = Stats::new(0);
        for holding in [90, 110, 100] {
            stats.count(Counter::Started);
            stats.tick(0, SECOND_NS, 0, holding);
        }
        stats.tick(0, SECOND_NS, 0, 5);
        let report = ChurnReport::new(SetupReport::default(), 100, 10.0, &stats);
        assert_eq!((report.holding_min, report.holding_max), (90, 110), "not after the end");
        assert!((report.holding_mean - 100.0).abs() < 1e-9);
    }
}
