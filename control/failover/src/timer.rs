use std::time::Duration;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Timer {
    /// The end of STARTUP without a partner (section 8.3.2 step 3).
    Startup,
    /// The end of RECOVER-WAIT (section 8.6.2).
    RecoverWait,
    /// PARTNER-DOWN without an operator (section 8.9.2).
    AutoPartnerDown,
    /// FO_KEEPALIVE_TIMER (section 6.6).
    Keepalive,
    /// FO_SEND_TIMER (section 6.6).
    Send,
    /// UPDREQ without any progress (section 8.5.2).
    Request,
    /// Writing the time of operation to stable storage (section 8.3.2 step 1).
    Operation,
}

impl Timer {
    /// In the order in which they are looked at: what ends a connection or a wait comes before what
    /// is only sent or written.
    pub(crate) const ALL: [Self; 7] = [
        Self::Startup,
        Self::RecoverWait,
        Self::AutoPartnerDown,
        Self::Keepalive,
        Self::Request,
        Self::Send,
        Self::Operation,
    ];
}

/// The deadlines on the monotonic clock, one for each [`Timer`].
#[derive(Debug, Default)]
pub(crate) struct Timers([Option<Duration>; Timer::ALL.len()]);

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, deadline: Duration) {
        self.0[timer as usize] = Some(deadline);
    }

    pub(crate) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    /// Sets the timer if it does not run and `wanted`, stops it if not.
    pub(crate) fn run(&mut self, timer: Timer, wanted: bool, deadline: impl FnOnce() -> Duration) {
        let slot = &mut self.0[timer as usize];
        if wanted {
            slot.get_or_insert_with(deadline);
        } else {
            *slot = None;
        }
    }

    pub(crate) fn deadline(&self, timer: Timer) -> Option<Duration> {
        self.0[timer as usize]
    }

    /// Whether the timer has run out; it is stopped then.
    pub(crate) fn take_expired(&mut self, timer: Timer, now: Duration) -> bool {
        self.0[timer as usize].take_if(|deadline| *deadline <= now).is_some()
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.0.iter().flatten().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_only_once() {
        let secs = Duration::from_secs;
        let mut timers = Timers::default();
        assert_eq!(timers.next(), None);
        timers.set(Timer::Send, secs(3));
        timers.run(Timer::Startup, true, || secs(2));
        timers.run(Timer::Startup, true, || secs(9));
        assert_eq!(timers.next(), Some(secs(2)));
        assert!(!timers.take_expired(Timer::Startup, secs(1)));
        assert!(timers.take_expired(Timer::Startup, secs(2)));
        assert!(!timers.take_expired(Timer::Startup, secs(2)));
        timers.run(Timer::Send, false, || secs(1));
        assert_eq!((timers.next(), timers.deadline(Timer::Send)), (None, None));
        for timer in Timer::ALL {
            timers.set(timer, secs(timer as u64));
            assert_eq!(timers.deadline(timer), Some(secs(timer as u64)));
        }
    }
}
