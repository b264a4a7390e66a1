//! Where the time of a packet goes: a histogram per stage, always on.
//!
//! Whoever measures owns its histograms ([`Recorder`]) and records into them without a lock and
//! without memory of its own. Once a second it hands the whole set to the reader ([`Collector`])
//! and goes on with an empty one: only pointers move. Where the reader has not given one back, the
//! recorder goes on with the set that it has, so nothing is lost, only seen later.

use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use hdrhistogram::Histogram;

/// Values are kept to two significant digits: within 1 %.
const DIGITS: u8 = 2;
/// The longest time that is told apart: 60 s in ns. Longer ones count as this.
const VALUE_MAX: u64 = 60_000_000_000;
/// Sets of histograms per recorder: one that it writes, one on its way to the reader and back.
const SETS: usize = 2;
/// How often a set is handed to the reader.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// Declares the stages.
macro_rules! stages {
    ($($(#[$meta:meta])* $name:ident = $text:literal,)*) => {
        /// A part of a packet's way through the server.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Stage {
            $($(#[$meta])* $name,)*
        }

        impl Stage {
            /// All stages, those of the workers first.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name for operators.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

stages! {
    /// From the receive of a batch to the start of handling of a packet in it (sampled). How long
    /// the packet was in the ring before that is not known.
    TurnWait = "turn_wait",
    /// Reading a message, the server rules, the lease table, and writing the reply (sampled).
    Rules = "rules",
    /// Addressing a reply and putting it into the queue to be sent, or to be held (sampled).
    Emit = "emit",
    /// The call that sends what a turn has queued.
    Flush = "flush",
    /// From the hand-over of a batch of updates to its fate, for each reply that waits for it.
    Durable = "durable",
    /// From the receive of a batch until a reply that waits for nothing is with the kernel.
    WholeImmediate = "whole_immediate",
    /// From the receive of a batch until a reply that waited for the disk is with the kernel.
    WholeHeld = "whole_held",
    /// From the hand-over of a batch of updates until the control thread stores it.
    BatchWait = "batch_wait",
    /// Appending all waiting batches to the journal.
    Append = "append",
    /// Making them durable.
    Sync = "sync",
    /// Binding updates per sync; a number, not a time.
    SyncRecords = "sync_records",
}

impl Stage {
    /// The stages that a worker records.
    pub const WORKER: &'static [Self] = Self::ALL.split_at(7).0;
    /// The stages that the control thread records.
    pub const CONTROL: &'static [Self] = Self::ALL.split_at(7).1;

    /// The stage of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|stage| stage.as_str() == name)
    }

    /// Whether values are nanoseconds; otherwise they are a number of things.
    #[must_use]
    pub fn is_time(self) -> bool {
        self != Self::SyncRecords
    }
}

/// An empty histogram as all stages use it: values up to a minute in ns, within 1 %.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, VALUE_MAX, DIGITS).expect("the bounds are in order")
}

/// A histogram for each of some stages.
struct StageSet {
    stages: &'static [Stage],
    histograms: Box<[Histogram<u64>]>,
}

impl StageSet {
    fn new(stages: &'static [Stage]) -> Self {
        Self { stages, histograms: stages.iter().map(|_| histogram()).collect() }
    }

    fn get_mut(&mut self, stage: Stage) -> Option<&mut Histogram<u64>> {
        let first = *self.stages.first()? as usize;
        self.histograms.get_mut((stage as usize).checked_sub(first)?)
    }
}

/// The end that records; it belongs to the thread that measures.
pub struct Recorder {
    set: Box<StageSet>,
    full: Sender<Box<StageSet>>,
    empty: Receiver<Box<StageSet>>,
    dirty: bool,
    publish_due: Instant,
}

/// The end that reads: sums over all that was recorded, and over what was recorded since a reset.
pub struct Collector {
    full: Receiver<Box<StageSet>>,
    empty: Sender<Box<StageSet>>,
    total: StageSet,
    recent: StageSet,
}

/// Both ends for [`Stage::WORKER`] or [`Stage::CONTROL`]. All memory is taken here.
#[must_use]
pub fn recorder(stages: &'static [Stage]) -> (Recorder, Collector) {
    let (full_sender, full) = bounded(SETS);
    let (empty, empty_receiver) = bounded(SETS);
    for _ in 1..SETS {
        // There is room for all of them.
        let _ = empty.try_send(Box::new(StageSet::new(stages)));
    }
    let recorder = Recorder {
        set: Box::new(StageSet::new(stages)),
        full: full_sender,
        empty: empty_receiver,
        dirty: false,
        publish_due: Instant::now(),
    };
    let collector =
        Collector { full, empty, total: StageSet::new(stages), recent: StageSet::new(stages) };
    (recorder, collector)
}

impl Recorder {
    /// Counts `value` for a stage of this recorder; other stages are ignored.
    #[inline]
    pub fn record(&mut self, stage: Stage, value: u64) {
        self.record_n(stage, value, 1);
    }

    /// Counts `value` as seen `count` times.
    #[inline]
    pub fn record_n(&mut self, stage: Stage, value: u64, count: u64) {
        if count == 0 {
            return;
        }
        if let Some(histogram) = self.set.get_mut(stage) {
            histogram.saturating_record_n(value.min(VALUE_MAX), count);
            self.dirty = true;
        }
    }

    /// Counts the time between two moments.
    #[inline]
    pub fn record_span(&mut self, stage: Stage, from: Instant, to: Instant, count: u64) {
        self.record_n(stage, nanos(to.saturating_duration_since(from)), count);
    }

    /// Hands what was recorded to the reader if that is due and there is a set to go on with. Call
    /// it some times a second, busy or not.
    pub fn publish(&mut self, now: Instant) {
        if !self.dirty || now < self.publish_due {
            return;
        }
        self.publish_due = now + PUBLISH_EVERY;
        let Ok(fresh) = self.empty.try_recv() else { return };
        self.dirty = false;
        // The channel has room for every set there is; a reader that is gone needs none.
        let _ = self.full.try_send(std::mem::replace(&mut self.set, fresh));
    }
}

impl Collector {
    /// Takes what the recorder has handed over since the last call. Call it at least once a second,
    /// so that what others read is fresh.
    pub fn collect(&mut self) {
        while let Ok(mut set) = self.full.try_recv() {
            for (index, histogram) in set.histograms.iter_mut().enumerate() {
                for sum in [&mut self.total, &mut self.recent] {
                    if let Some(sum) = sum.histograms.get_mut(index) {
                        sum.add(&*histogram).expect("equal bounds");
                    }
                }
                histogram.reset();
            }
            // A recorder that is gone needs none.
            let _ = self.empty.try_send(set);
        }
    }

    /// Goes on with the sums of `earlier`, whose recorder has ended, and leaves it empty.
    pub fn take_over(&mut self, earlier: &mut Self) {
        earlier.collect();
        std::mem::swap(&mut self.total, &mut earlier.total);
        std::mem::swap(&mut self.recent, &mut earlier.recent);
    }

    /// Forgets what [`Self::recent`] shows.
    pub fn reset(&mut self) {
        self.collect();
        for histogram in &mut self.recent.histograms {
            histogram.reset();
        }
    }

    /// What was recorded since the last reset.
    pub fn recent(&self) -> impl Iterator<Item = (Stage, &Histogram<u64>)> {
        self.recent.stages.iter().copied().zip(&self.recent.histograms)
    }

    /// What was recorded since the start.
    pub fn total(&self) -> impl Iterator<Item = (Stage, &Histogram<u64>)> {
        self.total.stages.iter().copied().zip(&self.total.histograms)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(collector: &Collector, stage: Stage) -> u64 {
        collector.total().find(|(found, _)| *found == stage).unwrap().1.len()
    }

    #[test]
    fn stages_are_split_where_the_control_thread_begins() {
        assert_eq!(Stage::WORKER.last(), Some(&Stage::WholeHeld));
        assert_eq!(Stage::CONTROL.first(), Some(&Stage::BatchWait));
        for stage in Stage::ALL {
            assert_eq!(Stage::from_name(stage.as_str()), Some(*stage));
        }
    }

    #[test]
    fn nothing_is_lost_while_nobody_reads() {
        let (mut recorder, mut collector) = recorder(Stage::WORKER);
        let start = Instant::now();
        for second in 0..10 {
            recorder.record(Stage::Rules, 1000 + second);
            recorder.record_n(Stage::WholeHeld, 2_000_000, 3);
            recorder.publish(start + Duration::from_secs(second + 1));
        }
        collector.collect();
        assert_eq!(count(&collector, Stage::Rules), 1, "the first set; the other is being filled");
        recorder.publish(start + Duration::from_secs(20));
        collector.collect();
        assert_eq!(count(&collector, Stage::Rules), 10);
        assert_eq!(count(&collector, Stage::WholeHeld), 30);
        let (_, rules) = collector.total().find(|(stage, _)| *stage == Stage::Rules).unwrap();
        assert!((1000..=1020).contains(&rules.value_at_quantile(0.5)));
    }

    #[test]
    fn a_reset_leaves_the_totals() {
        let (mut recorder, mut collector) = recorder(Stage::CONTROL);
        recorder.record(Stage::Sync, 5);
        recorder.publish(Instant::now());
        collector.reset();
        assert!(collector.recent().all(|(_, histogram)| histogram.is_empty()));
        assert_eq!(count(&collector, Stage::Sync), 1);
    }

    #[test]
    fn values_beyond_the_bounds_and_stages_of_others_do_no_harm() {
        let (mut recorder, mut collector) = recorder(Stage::CONTROL);
        recorder.record(Stage::Sync, u64::MAX);
        recorder.record(Stage::Sync, 0);
        recorder.record(Stage::Rules, 1);
        recorder.publish(Instant::now());
        collector.collect();
        assert_eq!(collector.total().map(|(_, histogram)| histogram.len()).sum::<u64>(), 2);
    }
}
