//! What a run counts and times.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{
    number::SECOND_NS,
    record::Second,
    times::{Times, Track},
};

pub use counter::{Counter, Counters, failed, lost};
pub use pair::Pair;

/// Declares a dense enumeration whose members have stable names for reports.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum $name { $($(#[$vmeta])* $variant,)* }

        impl $name {
            /// All members, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in reports.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The member with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|member| member.as_str() == name)
            }
        }
    };
}
pub(crate) use named;

mod counter;
mod pair;

/// The longest time that a histogram can hold; longer ones count as this, in ns.
pub const TIME_MAX: u64 = 3600 * SECOND_NS;

/// Times of one pair, in nanoseconds from the moment the first message was due.
#[derive(Clone, Debug)]
pub struct PairTimes {
    /// Messages that were answered.
    pub answered: Histogram<u64>,
    /// How long messages without an answer were waited for.
    pub timed_out: Histogram<u64>,
}

impl PairTimes {
    /// Answered and lost together: percentiles without survivors' bias.
    #[must_use]
    pub fn with_losses(&self) -> Histogram<u64> {
        let mut all = self.answered.clone();
        all += &self.timed_out;
        all
    }
}

/// One second of a run.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Interval {
    /// Its end, in seconds from the start of the run.
    pub at_s: f64,
    /// How long it was, in seconds.
    pub length_s: f64,
    /// Exchanges begun.
    pub started: u64,
    /// Exchanges completed.
    pub completed: u64,
    /// Messages lost.
    pub lost: u64,
    /// Exchanges refused or invalid.
    pub failed: u64,
    /// Messages awaiting an answer at its end.
    pub outstanding: u32,
    /// Clients that hold all that they want at its end.
    #[serde(default)]
    pub holding: u32,
    /// Median of the answered messages, microseconds.
    pub p50_us: f64,
    /// 99th percentile of the answered messages, microseconds.
    pub p99_us: f64,
    /// The slowest answered message, microseconds.
    pub max_us: f64,
    /// How late the generator sent, 99th percentile, microseconds.
    #[serde(default)]
    pub lag_p99_us: f64,
    /// How late it sent at worst, microseconds.
    #[serde(default)]
    pub lag_max_us: f64,
    /// Memory that the generator had at its end, KiB; 0 if that was not measured.
    #[serde(default)]
    pub memory_kib: u64,
}

/// Everything that one generator measured.
#[derive(Clone, Debug)]
pub struct Stats {
    counters: Counters,
    pairs: Vec<PairTimes>,
    /// How late messages left behind the moment at which they were due, ns.
    pub lag: Histogram<u64>,
    /// The seconds of the run.
    pub series: Vec<Interval>,
    /// The seconds with their times, if they were recorded.
    pub seconds: Vec<Second>,
    /// When exchanges were completed, ns from the start of the run; only where that is wanted.
    pub served: Option<Histogram<u64>>,
    interval: Histogram<u64>,
    interval_begin: u64,
    interval_base: Counters,
    /// Times of the current interval.
    times: Box<Times>,
    /// Answers by pair while exchanges were begun, once that is over.
    in_time: Option<Vec<u64>>,
}

/// An empty histogram of times.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, TIME_MAX, 3).expect("the bounds are constants that fit")
}

impl Stats {
    /// Nothing measured yet; `now` begins the first interval.
    #[must_use]
    pub fn new(now: u64) -> Self {
        let pair = || PairTimes { answered: histogram(), timed_out: histogram() };
        Self {
            counters: [0; Counter::ALL.len()],
            pairs: Pair::ALL.iter().map(|_| pair()).collect(),
            lag: histogram(),
            series: Vec::with_capacity(4096),
            seconds: Vec::new(),
            served: None,
            interval: histogram(),
            interval_begin: now,
            interval_base: [0; Counter::ALL.len()],
            times: Box::default(),
            in_time: None,
        }
    }

    /// From here on no exchanges are begun: what is still answered makes no rate.
    pub fn load_ends(&mut self) {
        let counts = Pair::ALL.iter().map(|pair| self.pair(*pair).answered.len());
        self.in_time = Some(counts.collect());
    }

    /// Puts in the counts of [`Self::answered_in_time`] that were stored.
    pub fn set_in_time(&mut self, counts: Vec<u64>) {
        self.in_time = Some(counts);
    }

    /// How many messages of a pair were answered while exchanges were begun.
    #[must_use]
    pub fn answered_in_time(&self, pair: Pair) -> u64 {
        let counted = self.in_time.as_ref().and_then(|counts| counts.get(pair as usize));
        counted.copied().unwrap_or_else(|| self.pair(pair).answered.len())
    }

    /// Adds one.
    #[inline]
    pub fn count(&mut self, counter: Counter) {
        self.counters[counter as usize] += 1;
    }

    /// Adds `more`.
    pub fn count_many(&mut self, counter: Counter, more: u64) {
        self.counters[counter as usize] += more;
    }

    /// The value of a counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// The times of a pair.
    #[must_use]
    pub fn pair(&self, pair: Pair) -> &PairTimes {
        &self.pairs[pair as usize]
    }

    /// Records an answer that came `ns` after the message was due.
    #[inline]
    pub fn answered(&mut self, pair: Pair, ns: u64) {
        self.pairs[pair as usize].answered.saturating_record(ns);
        self.times.track_mut(Track::Answered(pair)).saturating_record(ns);
        if !pair.is_whole() {
            self.interval.saturating_record(ns);
        }
    }

    /// Records a message that was given up `ns` after it was due.
    pub fn timed_out(&mut self, pair: Pair, ns: u64) {
        self.pairs[pair as usize].timed_out.saturating_record(ns);
        self.times.track_mut(Track::TimedOut(pair)).saturating_record(ns);
    }

    /// Records a message that left `ns` after it was due.
    #[inline]
    pub fn late(&mut self, ns: u64) {
        self.lag.saturating_record(ns);
        self.times.lag.saturating_record(ns);
    }

    /// Messages that were never answered.
    #[must_use]
    pub fn lost(&self) -> u64 {
        lost(&self.counters)
    }

    /// Exchanges that ended without a grant although the server answered.
    #[must_use]
    pub fn failed(&self) -> u64 {
        failed(&self.counters)
    }

    /// All counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Ends the current interval at `now` and returns it; `begin` is the start of the run.
    pub fn tick(&mut self, begin: u64, now: u64, outstanding: u32, holding: u32) -> Interval {
        let base = &self.interval_base;
        let since = |counter: Counter| self.get(counter) - base[counter as usize];
        let quantile = |q: f64| crate::number::micros(self.interval.value_at_quantile(q));
        let interval = Interval {
            at_s: crate::number::seconds(now.saturating_sub(begin)),
            length_s: crate::number::seconds(now.saturating_sub(self.interval_begin)),
            started: since(Counter::Started),
            completed: since(Counter::Completed),
            lost: self.lost() - lost(base),
            failed: self.failed() - failed(base),
            outstanding,
            holding,
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            max_us: crate::number::micros(self.interval.max()),
            ..Interval::default()
        };
        self.series.push(interval);
        self.interval.reset();
        self.interval_begin = now;
        self.interval_base = self.counters;
        interval
    }

    /// Adds times that were stored.
    pub fn add_times(&mut self, times: &Times) {
        for pair in Pair::ALL {
            let (mine, theirs) = (&mut self.pairs[*pair as usize], times.pair(*pair));
            mine.answered += &theirs.answered;
            mine.timed_out += &theirs.timed_out;
        }
        self.lag += &times.lag;
    }

    /// Puts in the intervals as the recorder has them.
    pub fn set_seconds(&mut self, seconds: Vec<Second>) {
        self.series = seconds.iter().map(|second| second.interval).collect();
        self.seconds = seconds;
    }

    /// Hands out the times of the interval that has just ended, and goes on with `empty`.
    pub fn swap_times(&mut self, empty: Box<Times>) -> Box<Times> {
        std::mem::replace(&mut self.times, empty)
    }

    /// From now on notes when exchanges are completed.
    pub fn watch_served(&mut self) {
        self.served = Some(histogram());
    }

    /// Adds other counts and times. The series stay those of `self`.
    pub fn merge(&mut self, other: &Self) {
        if let Some(theirs) = &other.served {
            *self.served.get_or_insert_with(histogram) += theirs;
        }
        let in_time = |pair: &Pair| self.answered_in_time(*pair) + other.answered_in_time(*pair);
        self.in_time = Some(Pair::ALL.iter().map(in_time).collect());
        for (mine, theirs) in self.counters.iter_mut().zip(other.counters) {
            *mine += theirs;
        }
        for (mine, theirs) in self.pairs.iter_mut().zip(&other.pairs) {
            mine.answered += &theirs.answered;
            mine.timed_out += &theirs.timed_out;
        }
        self.lag += &other.lag;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_stand_in_the_percentiles_as_time_outs() {
        let mut stats = Stats::new(0);
        for _ in 0..98 {
            stats.answered(Pair::RequestReply, 100_000);
        }
        for _ in 0..2 {
            stats.timed_out(Pair::RequestReply, SECOND_NS);
        }
        let times = stats.pair(Pair::RequestReply);
        assert_eq!(times.answered.len(), 98);
        assert!(times.answered.max() < 110_000);
        let all = times.with_losses();
        assert_eq!(all.len(), 100);
        assert!(all.value_at_quantile(0.98) < 110_000);
        assert!(all.value_at_quantile(0.99) >= SECOND_NS, "{}", all.value_at_quantile(0.99));
    }

    #[test]
    fn a_time_beyond_the_range_is_kept_as_the_longest() {
        let mut stats = Stats::new(0);
        stats.answered(Pair::Exchange, u64::MAX);
        let times = &stats.pair(Pair::Exchange).answered;
        assert_eq!(times.len(), 1);
        assert!(times.max() >= TIME_MAX);
    }

    #[test]
    fn intervals_hold_differences() {
        let mut stats = Stats::new(0);
        stats.count_many(Counter::Started, 10);
        stats.count_many(Counter::LostReply, 1);
        stats.answered(Pair::RequestReply, 5_000);
        let first = stats.tick(0, SECOND_NS, 3, 0);
        assert_eq!((first.started, first.lost, first.outstanding), (10, 1, 3));
        assert!((first.p50_us - 5.0).abs() < 0.01);
        stats.count_many(Counter::Started, 4);
        let second = stats.tick(0, 2 * SECOND_NS, 0, 0);
        assert_eq!((second.started, second.lost), (4, 0));
        assert_eq!(second.max_us, 0.0);
        assert_eq!(stats.series.len(), 2);
    }

    #[test]
    fn merging_adds() {
        let (mut a, mut b) = (Stats::new(0), Stats::new(0));
        a.count(Counter::Completed);
        b.count_many(Counter::Completed, 2);
        b.answered(Pair::Exchange, 7);
        b.lag.saturating_record(3);
        a.merge(&b);
        assert_eq!(a.get(Counter::Completed), 3);
        assert_eq!(a.pair(Pair::Exchange).answered.len(), 1);
        assert_eq!(a.lag.len(), 1);
    }

    #[test]
    fn answers_after_the_load_are_not_in_time() {
        let (mut a, mut b) = (Stats::new(0), Stats::new(0));
        for stats in [&mut a, &mut b] {
            stats.answered(Pair::RequestReply, 5);
            stats.answered(Pair::RequestReply, 5);
            stats.load_ends();
            stats.answered(Pair::RequestReply, 5);
        }
        assert_eq!(a.answered_in_time(Pair::RequestReply), 2);
        a.merge(&b);
        assert_eq!(
            (a.answered_in_time(Pair::RequestReply), a.answered_in_time(Pair::RenewReply)),
            (4, 0)
        );
        assert_eq!(a.pair(Pair::RequestReply).answered.len(), 6);
    }
}
