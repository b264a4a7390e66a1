//! How hard the checkpoint works, so that a restart never has much to replay.
//!
//! What is in the journal and not in the checkpoint is the *lag*; a restart reads all of it before it
//! answers its first client. The checkpoint writes a batch of `leases` records at a time, and the lag
//! falls only when the whole batch is written. Decisions rest on the *backlog*: the lag without the
//! part of the batch that is written already. It changes with each transaction, so that
//! whoever waits for it waits for milliseconds.
//!
//! Where the checkpoint shares a processor with those who answer clients it stands back behind them
//! ([`Urgency::Calm`]). Under a load that leaves no time it would get none, so it takes more and more
//! of the processor as the backlog grows. Where even that is not enough, appending waits: clients are
//! answered at the rate at which the checkpoint follows.

use std::time::Duration;

use crate::priority;

/// Batches that the backlog may hold; the one that is being written counts, too.
const BACKLOG_BATCHES: u64 = 2;
/// From this part of that on the checkpoint hurries, and presses. In eighths: a batch alone is four.
const BRISK: u64 = 5;
const PRESSED: u64 = 7;

/// The longest pause between two transactions of a checkpoint.
const REST_MAX: Duration = Duration::from_millis(20);

/// How the checkpoint behaves towards the threads that answer clients.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Urgency {
    /// Gives way every few dozen entries, and rests after each transaction.
    Calm,
    /// Does not rest, and seldom gives way.
    Brisk,
    /// Takes its share of the processor.
    Pressed,
}

impl Urgency {
    /// For a backlog of so many records, in batches of `leases`.
    pub(crate) fn of(backlog: u64, leases: u64) -> Self {
        let eighths = backlog.saturating_mul(8) / backlog_max(leases).max(1);
        match eighths {
            PRESSED.. => Self::Pressed,
            BRISK.. => Self::Brisk,
            _ => Self::Calm,
        }
    }

    /// Entries of one transaction: in calm a few milliseconds of work. The more, the fewer waits for
    /// the disk. Few in tests, so that the power goes between the transactions of one checkpoint, too.
    pub(crate) fn entries_per_transaction(self) -> usize {
        match self {
            _ if cfg!(test) => 5,
            Self::Calm => 2048,
            Self::Brisk => 4096,
            Self::Pressed => 8192,
        }
    }

    /// Entries between two moments of giving way, if it ever does: in calm some 100 us of work. Beside a
    /// thread that is always busy it costs more than a moment: that one gets a whole slice each time.
    pub(crate) fn entries_per_turn(self) -> Option<usize> {
        match self {
            Self::Calm => Some(32),
            Self::Brisk => Some(1024),
            Self::Pressed => None,
        }
    }

    /// The pause after a transaction that took so long: as long as the work, which leaves the disk to
    /// the journal half of the time.
    pub(crate) fn rest(self, took: Duration) -> Duration {
        if self == Self::Calm { took.min(REST_MAX) } else { Duration::ZERO }
    }

    /// Sets the calling thread's claim to the processor.
    pub(crate) fn claim(self) {
        match self {
            Self::Calm | Self::Brisk => priority::stand_back(),
            Self::Pressed => priority::stand_beside(),
        }
    }
}

/// The backlog at which appending waits.
pub(crate) const fn backlog_max(leases: u64) -> u64 {
    leases.saturating_mul(BACKLOG_BATCHES)
}

/// The records that the journal holds and the checkpoint lacks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lag {
    /// Records that were ever durable, those included that the start has found.
    durable: u64,
    /// Those in the checkpoint.
    written: u64,
    /// Those of the batch that is being written.
    in_writing: u64,
    /// The part of them that is written already.
    done: u64,
    /// Counts transactions.
    steps: u64,
}

impl Lag {
    /// After a start that found so many.
    pub(crate) fn new(found: u64) -> Self {
        Self { durable: found, ..Self::default() }
    }

    /// More have become durable.
    pub(crate) fn add(&mut self, records: u64) {
        self.durable += records;
    }

    /// A batch of so many is about to be written.
    pub(crate) fn begin(&mut self, records: u64) {
        (self.in_writing, self.done) = (records, 0);
    }

    /// So many of its `total` entries are written.
    pub(crate) fn advance(&mut self, entries: usize, total: usize) {
        let (entries, total) = (entries as u128, total.max(1) as u128);
        let done = u128::from(self.in_writing) * entries / total;
        self.done = u64::try_from(done).unwrap_or(u64::MAX).min(self.in_writing);
        self.steps += 1;
    }

    /// The batch is in the checkpoint.
    pub(crate) fn end(&mut self) {
        self.written += self.in_writing;
        self.steps += 1;
        self.begin(0);
    }

    /// What a restart has to replay.
    pub(crate) fn records(&self) -> u64 {
        self.durable.saturating_sub(self.written)
    }

    /// Changes whenever something was written.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// The same without what has been written of the batch.
    pub(crate) fn backlog(&self) -> u64 {
        self.records().saturating_sub(self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASES: u64 = 500_000;

    #[test]
    fn a_batch_by_itself_is_written_calmly_and_a_full_backlog_is_pressed() {
        let of = |backlog| Urgency::of(backlog, LEASES);
        assert_eq!(of(0), Urgency::Calm);
        assert_eq!(of(LEASES), Urgency::Calm);
        assert_eq!(of(backlog_max(LEASES) * 3 / 4), Urgency::Brisk);
        assert_eq!(of(backlog_max(LEASES) - 1), Urgency::Pressed);
        assert_eq!(of(u64::MAX), Urgency::Pressed);
        assert_eq!(Urgency::of(1, 0), Urgency::Pressed);
        for pair in (0..2 * LEASES).step_by(10_000).collect::<Vec<_>>().windows(2) {
            assert!(of(pair[0]) <= of(pair[1]), "{pair:?}");
        }
        let took = Duration::from_millis(7);
        assert_eq!(Urgency::Calm.rest(took), took);
        assert_eq!(Urgency::Calm.rest(Duration::from_secs(1)), REST_MAX);
        assert_eq!(Urgency::Brisk.rest(took), Duration::ZERO);
    }

    /// A checkpoint and an appender on one processor, played record by record.
    fn largest_lag(appended_per_ms: u64, written_per_ms: impl Fn(Urgency) -> u64) -> u64 {
        let (mut lag, mut largest) = (Lag::default(), 0);
        let (mut entries, mut written) = (0, 0);
        for _ in 0..60_000 {
            if lag.backlog() < backlog_max(LEASES) {
                lag.add(appended_per_ms);
            }
            if entries == 0 && lag.records() >= LEASES {
                (entries, written) = (LEASES, 0);
                lag.begin(entries);
            }
            if entries > 0 {
                let urgency = Urgency::of(lag.backlog(), LEASES);
                written = (written + written_per_ms(urgency)).min(entries);
                lag.advance(usize::try_from(written).unwrap(), usize::try_from(entries).unwrap());
                if written == entries {
                    lag.end();
                    entries = 0;
                }
            }
            largest = largest.max(lag.records());
        }
        largest
    }

    #[test]
    fn the_lag_is_bounded_however_slow_the_checkpoint_is() {
        let bound = backlog_max(LEASES) + LEASES;
        for appended in [1, 16, 81, 500] {
            for slow in [1, 10, 50, 200] {
                let lag = largest_lag(appended, |urgency| slow * (1 + urgency as u64));
                assert!(lag <= bound + appended, "{lag} at {appended} against {slow}");
            }
        }
        // A load that calm work bears never meets anything else.
        let lag = largest_lag(16, |urgency| {
            assert_eq!(urgency, Urgency::Calm);
            100
        });
        assert!(lag < LEASES * 5 / 4, "{lag}");
    }
}
