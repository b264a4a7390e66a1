//! All clients want something at the same time.

use std::fmt;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::SetupReport;
use crate::{
    generator::Span,
    number::{float, ratio, seconds, whole},
    stats::{Counter, Stats},
};

/// When how many clients had been served.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Served {
    /// Seconds from the start.
    pub at_s: f64,
    /// Clients served until then.
    pub clients: u64,
}

/// The outcome of an avalanche or a renewal storm.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct StormReport {
    /// How the clients got their leases, in a renewal storm.
    pub setup: Option<SetupReport>,
    /// Clients that took part.
    pub clients: u64,
    /// Clients that had their leases at the end.
    pub served: u64,
    /// Within how many seconds the clients began; 0: all were due at one moment.
    pub within_s: f64,
    /// When the first message of the last client had left, seconds from the start.
    pub all_begun_s: f64,
    /// Seconds until half of all clients were served.
    pub until_50_s: Option<f64>,
    /// Seconds until 90 % were.
    pub until_90_s: Option<f64>,
    /// Seconds until 99 % were.
    pub until_99_s: Option<f64>,
    /// Seconds until all were.
    pub until_all_s: Option<f64>,
    /// Messages sent.
    pub sent: u64,
    /// Retransmissions among them.
    pub retransmissions: u64,
    /// Clients that began again with SOLICIT because REQUEST had no answer.
    pub restarts: u64,
    /// Messages sent for each client that was served.
    pub messages_per_served: f64,
    /// How the number of served clients grew.
    pub curve: Vec<Served>,
}

/// Points of the curve.
const POINTS: u64 = 100;

impl StormReport {
    /// Works it out.
    #[must_use]
    pub fn new(clients: u64, within_s: f64, stats: &Stats, span: &Span) -> Self {
        let none = Histogram::new(3).ok();
        let served = stats.served.as_ref().or(none.as_ref());
        let count = served.map_or(0, Histogram::len);
        let until = |share: f64| {
            let wanted = whole((share * float(clients)).ceil());
            let served = served.filter(|_| wanted > 0 && wanted <= count)?;
            Some(seconds(served.value_at_quantile(float(wanted) / float(count))))
        };
        Self {
            setup: None,
            clients,
            served: count,
            within_s,
            all_begun_s: seconds(span.sent.saturating_sub(span.begin)),
            until_50_s: until(0.5),
            until_90_s: until(0.9),
            until_99_s: until(0.99),
            until_all_s: until(1.0),
            sent: stats.get(Counter::Sent),
            retransmissions: stats.get(Counter::SentAgain),
            restarts: stats.get(Counter::RequestTurned),
            messages_per_served: ratio(stats.get(Counter::Sent), count),
            curve: served.map(curve).unwrap_or_default(),
        }
    }
}

fn curve(served: &Histogram<u64>) -> Vec<Served> {
    let step = (served.max() / POINTS).max(1_000_000);
    let mut clients = 0;
    served
        .iter_linear(step)
        .map(|bucket| {
            clients += bucket.count_since_last_iteration();
            Served { at_s: seconds(bucket.value_iterated_to()), clients }
        })
        .collect()
}

impl fmt::Display for StormReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(setup) = &self.setup {
            setup.fmt(f)?;
        }
        writeln!(
            f,
            "{} of {} clients served ({:.2} %); all had begun after {:.3} s",
            self.served,
            self.clients,
            ratio(self.served, self.clients) * 100.0,
            self.all_begun_s
        )?;
        for (share, until) in [
            ("50 %", self.until_50_s),
            ("90 %", self.until_90_s),
            ("99 %", self.until_99_s),
            ("all", self.until_all_s),
        ] {
            let until = until.map_or_else(|| "never".into(), |until| format!("{until:.3} s"));
            writeln!(f, "  {share:>5} served after {until}")?;
        }
        writeln!(
            f,
            "  {} messages, {} of them sent again, {:.2} per served client; {} clients began anew",
            self.sent, self.retransmissions, self.messages_per_served, self.restarts
        )?;
        self.draw(f)
    }
}

impl StormReport {
    /// The curve, as bars.
    fn draw(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LINES: usize = 20;
        const WIDTH: f64 = 50.0;
        for point in self.curve.iter().step_by(self.curve.len().div_ceil(LINES).max(1)) {
            // A report that was stored may say anything.
            let share = ratio(point.clients, self.clients).min(1.0);
            let bar: String = (0..whole(share * WIDTH)).map(|_| '█').collect();
            writeln!(f, "  {:>9.3} s {:>6.2} % {bar}", point.at_s, share * 100.0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::SECOND_NS;

    fn report(served: u64, clients: u64) -> StormReport {
        let mut stats = Stats::new(0);
        stats.watch_served();
        for client in 1..=served {
            // One every 10 ms.
            stats.served.as_mut().unwrap().record(client * SECOND_NS / 100).unwrap();
        }
        stats.count_many(Counter::Sent, 250);
        stats.count_many(Counter::SentAgain, 50);
        let span = Span { begin: 5, sent: 5 + SECOND_NS, end: 9, interrupted: false, cpu: 0 };
        StormReport::new(clients, 1.0, &stats, &span)
    }

    fn about(value: Option<f64>, wanted: f64) -> bool {
        value.is_some_and(|value| (value - wanted).abs() < wanted * 0.002)
    }

    #[test]
    fn shares_are_those_of_all_clients() {
        let all = report(100, 100);
        assert!(about(all.until_50_s, 0.5), "{all:?}");
        assert!(about(all.until_90_s, 0.9), "{all:?}");
        assert!(about(all.until_all_s, 1.0), "{all:?}");
        assert_eq!((all.messages_per_served, all.all_begun_s), (2.5, 1.0));
        let some = report(95, 100);
        assert!(about(some.until_50_s, 0.5) && about(some.until_90_s, 0.9), "{some:?}");
        assert_eq!((some.until_99_s, some.until_all_s), (None, None));
        assert!(some.to_string().contains("all served after never"), "{some}");
    }

    #[test]
    fn a_curve_beyond_all_clients_is_drawn_to_the_edge() {
        let mut report = report(95, 100);
        report.curve = vec![Served { at_s: 1.0, clients: u64::MAX }];
        assert_eq!(report.to_string().matches('█').count(), 50);
        report.clients = 0;
        assert!(report.to_string().matches('█').count() <= 50);
    }

    #[test]
    fn the_curve_ends_with_all_that_were_served() {
        let curve = report(95, 100).curve;
        assert!(curve.len() >= 90 && curve.len() <= 110, "{}", curve.len());
        assert!(curve.is_sorted_by(|a, b| a.clients <= b.clients && a.at_s < b.at_s));
        assert_eq!(curve.last().unwrap().clients, 95);
        assert_eq!(report(0, 10).until_50_s, None);
    }
}
