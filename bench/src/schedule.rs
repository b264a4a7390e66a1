//! When the next exchange is due.

use crate::number::{SECOND_NS, float, low32, whole};

/// How exchanges are started.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Open loop: this many exchanges per second, whatever the server does.
    Rate(f64),
    /// Closed loop: as many outstanding exchanges as this, always.
    Window(u32),
    /// Open loop: the rate goes from one to the other, in a straight line over the whole run.
    Ramp {
        /// Exchanges per second at the start.
        from: f64,
        /// Exchanges per second at the end.
        to: f64,
    },
    /// Open loop: all exchanges are due at the start.
    AtOnce,
}

impl Pace {
    /// The share of one of several generator threads, numbered from 0, and how long after the start
    /// its first exchange is due, in ns.
    #[must_use]
    pub fn share(self, number: u32, parts: u32) -> (Self, u64) {
        let divisor = f64::from(parts.max(1));
        let offset = |rate: f64| whole(f64::from(number) * 1e9 / rate);
        match self {
            Self::Rate(rate) => (Self::Rate(rate / divisor), offset(rate)),
            Self::Ramp { from, to } => {
                (Self::Ramp { from: from / divisor, to: to / divisor }, offset(from))
            }
            Self::Window(window) => {
                (Self::Window(low32(part_of(window.into(), number, parts)).max(1)), 0)
            }
            Self::AtOnce => (Self::AtOnce, 0),
        }
    }
}

/// The share of one of several parts of a number; all shares together make the number.
#[must_use]
pub fn part_of(all: u64, number: u32, parts: u32) -> u64 {
    let (number, parts) = (u64::from(number), u64::from(parts.max(1)));
    (all * (number + 1)).div_ceil(parts) - (all * number).div_ceil(parts)
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
    /// Exchange k is due when the integral over the rate has reached k.
    Ramp {
        start: u64,
        next: u64,
        done: u64,
        from: f64,
        /// How much the rate grows per second; not 0.
        growth: f64,
    },
    AtOnce {
        start: u64,
    },
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
            Pace::Ramp { from, to } => {
                let growth = (to - from) / (float(duration) / 1e9);
                let growth = if growth.abs() < 1e-9 { 1e-9 } else { growth };
                Kind::Ramp { start, next: start, done: 0, from, growth }
            }
            Pace::AtOnce => Kind::AtOnce { start },
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
            Kind::Rate { next, .. } | Kind::Ramp { next, .. } => {
                (next <= now && next < self.end).then_some(next)
            }
            Kind::AtOnce { start } => (start <= now).then_some(start),
            Kind::Window(window) => (outstanding < window && now < self.end).then_some(now),
        }
    }

    /// Takes the exchange that [`Schedule::due`] named.
    #[inline]
    pub fn advance(&mut self) {
        self.left -= 1;
        match &mut self.kind {
            Kind::Rate { next, step, step_rest, rest, divisor } => {
                *next += *step;
                *rest += *step_rest;
                if *rest >= *divisor {
                    *rest -= *divisor;
                    *next += 1;
                }
            }
            Kind::Ramp { start, next, done, from, growth } => {
                *done += 1;
                // from * t + growth * t² / 2 = k, solved for t.
                let square = *from * *from + 2.0 * *growth * float(*done);
                *next = if square < 0.0 {
                    u64::MAX
                } else {
                    start.saturating_add(whole(2.0 * float(*done) / (*from + square.sqrt()) * 1e9))
                };
            }
            Kind::Window(_) | Kind::AtOnce { .. } => {}
        }
    }

    /// Whether the schedule goes on regardless of the server.
    #[must_use]
    pub fn is_open_loop(&self) -> bool {
        !matches!(self.kind, Kind::Window(_))
    }

    /// Whether nothing more will be due after `now`. An open loop that is behind its schedule is
    /// not finished before it has caught up.
    #[must_use]
    pub fn finished(&self, now: u64) -> bool {
        self.left == 0
            || match self.kind {
                Kind::Rate { next, .. } | Kind::Ramp { next, .. } => {
                    next >= self.end && now >= self.end
                }
                Kind::Window(_) => now >= self.end,
                // All were due at the start, however long it takes to send them.
                Kind::AtOnce { .. } => false,
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

    fn dues(mut schedule: Schedule) -> Vec<u64> {
        let mut dues = Vec::new();
        while let Some(due) = schedule.due(u64::MAX, 0) {
            dues.push(due);
            schedule.advance();
        }
        assert!(schedule.finished(u64::MAX));
        dues
    }

    #[test]
    fn a_ramp_offers_what_lies_under_the_line() {
        for (from, to) in [(100.0, 300.0), (300.0, 100.0), (200.0, 200.0)] {
            let pace = Pace::Ramp { from, to };
            let dues = dues(Schedule::new(pace, 5, 10 * SECOND_NS, None));
            assert!((1999..=2001).contains(&dues.len()), "{}", dues.len());
            assert!(dues.is_sorted() && dues[0] == 5);
            let first_second = dues.iter().filter(|due| **due < SECOND_NS).count();
            let wanted = whole(from + (to - from) / 20.0);
            assert!(first_second.abs_diff(usize::try_from(wanted).unwrap()) <= 1, "{first_second}");
        }
    }

    #[test]
    fn at_once_means_the_same_moment_for_all() {
        assert_eq!(dues(Schedule::new(Pace::AtOnce, 9, SECOND_NS, Some(4))), [9; 4]);
    }

    #[test]
    fn who_was_due_at_once_is_begun_however_late() {
        let mut schedule = Schedule::new(Pace::AtOnce, 9, SECOND_NS, Some(2));
        schedule.advance();
        assert!(!schedule.finished(5 * SECOND_NS), "one is left");
        assert_eq!(schedule.due(5 * SECOND_NS, 1), Some(9));
        schedule.advance();
        assert!(schedule.finished(5 * SECOND_NS));
    }

    #[test]
    fn threads_share_the_schedule() {
        let mut all: Vec<_> = (0..3)
            .flat_map(|number| {
                let (pace, offset) = Pace::Rate(3000.0).share(number, 3);
                let count = part_of(100, number, 3);
                dues(Schedule::new(pace, offset, SECOND_NS, Some(count)))
            })
            .collect();
        all.sort_unstable();
        let whole = dues(Schedule::new(Pace::Rate(3000.0), 0, SECOND_NS, Some(100)));
        assert_eq!(all.len(), 100);
        assert!(all.iter().zip(whole).all(|(a, b)| a.abs_diff(b) <= 1), "{all:?}");
        let windows: Vec<_> = (0..3).map(|n| Pace::Window(10).share(n, 3).0).collect();
        assert_eq!(windows, [Pace::Window(4), Pace::Window(3), Pace::Window(3)]);
    }
}
