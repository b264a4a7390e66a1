//! When the next exchange is due.

use crate::number::{SECOND_NS, whole};

/// How exchanges are started.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Open loop: this many exchanges per second, whatever the server does.
    Rate(f64),
    /// Closed loop: as many outstanding exchanges as this, always.
    Window(u32),
}

/// Exchange k is due at t0 + k/rate, without accumulated error; or, in a closed loop, as soon as
/// fewer than the window are outstanding.
#[derive(Clone, Debug)]
pub struct Schedule {
    kind: Kind,
    /// Nothing is due at or after this moment.
    end: u64,
    /// Nothing is due after this many exchanges.
    left: u64,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The interval between exchanges is a fraction, `step + step_rest / divisor` nanoseconds;
    /// `rest` is the fraction that has added up so far.
    Rate {
        next: u64,
        step: u64,
        step_rest: u64,
        rest: u64,
        divisor: u64,
    },
    Window(u32),
}

impl Schedule {
    /// A schedule from `start` (clock time, ns) for `duration` ns or `count` exchanges, whichever
    /// ends first. A rate below 0.001/s counts as 0.001/s.
    #[must_use]
    pub fn new(pace: Pace, start: u64, duration: u64, count: Option<u64>) -> Self {
        let kind = match pace {
            Pace::Rate(rate) => {
                let divisor = whole(rate * 1000.0).max(1);
                let period = 1000 * SECOND_NS;
                let (step, step_rest) = (period / divisor, period % divisor);
                Kind::Rate { next: start, step, step_rest, rest: 0, divisor }
            }
            Pace::Window(window) => Kind::Window(window),
        };
        Self { kind, end: start.saturating_add(duration), left: count.unwrap_or(u64::MAX) }
    }

    /// The moment at which the next exchange was or is due, if that is not later than `now`.
    #[inline]
    #[must_use]
    pub fn due(&self, now: u64, outstanding: u32) -> Option<u64> {
        if self.left == 0 {
            return None;
        }
        match self.kind {
            Kind::Rate { next, .. } => (next <= now && next < self.end).then_some(next),
            Kind::Window(window) => (outstanding < window && now < self.end).then_some(now),
        }
    }

    /// Takes the exchange that [`Schedule::due`] named.
    #[inline]
    pub fn advance(&mut self) {
        self.left -= 1;
        if let Kind::Rate { next, step, step_rest, rest, divisor } = &mut self.kind {
            *next += *step;
            *rest += *step_rest;
            if *rest >= *divisor {
                *rest -= *divisor;
                *next += 1;
            }
        }
    }

    /// Whether the schedule goes on regardless of the server.
    #[must_use]
    pub fn is_open_loop(&self) -> bool {
        matches!(self.kind, Kind::Rate { .. })
    }

    /// Whether nothing more will be due after `now`. An open loop that is behind its schedule is
    /// not finished before it has caught up.
    #[must_use]
    pub fn finished(&self, now: u64) -> bool {
        self.left == 0
            || match self.kind {
                Kind::Rate { next, .. } => next >= self.end && now >= self.end,
                Kind::Window(_) => now >= self.end,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_k_is_due_at_k_over_rate() {
        let mut schedule = Schedule::new(Pace::Rate(3.0), 1000, u64::MAX, None);
        for k in 0..3_000_001_u64 {
            let due = schedule.due(u64::MAX, 0).unwrap();
            if k % 300_000 == 0 {
                assert_eq!(due, 1000 + k / 3 * SECOND_NS);
            }
            schedule.advance();
        }
    }

    #[test]
    fn a_late_loop_still_gets_every_moment() {
        let mut schedule = Schedule::new(Pace::Rate(1000.0), 0, 10_000_000, None);
        assert_eq!(schedule.due(0, 0), Some(0));
        schedule.advance();
        assert_eq!(schedule.due(999_999, 0), None, "not due yet");
        let mut dues = Vec::new();
        while let Some(due) = schedule.due(SECOND_NS, 0) {
            dues.push(due);
            assert!(!schedule.finished(SECOND_NS));
            schedule.advance();
        }
        assert_eq!(dues, (1..10).map(|k| k * 1_000_000).collect::<Vec<_>>());
        assert!(schedule.finished(SECOND_NS));
    }

    #[test]
    fn window_counts_outstanding() {
        let mut schedule = Schedule::new(Pace::Window(2), 5, 100, Some(3));
        assert_eq!(schedule.due(7, 1), Some(7));
        assert_eq!(schedule.due(7, 2), None);
        assert_eq!(schedule.due(105, 0), None, "time is over");
        for _ in 0..3 {
            schedule.advance();
        }
        assert_eq!(schedule.due(8, 0), None, "count is used up");
        assert!(schedule.finished(8));
    }
}
