//! Keeps the seconds of a run, in a thread of its own.
//!
//! Once a second each generator swaps the histograms of the second for empty ones and sends the full
//! ones here. What takes time (adding up, percentiles, encoding, the progress line) happens in the
//! recorder's thread, so that it does not show in the latencies.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};

use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer, V2DeflateSerializer},
};

use crate::{
    machine::memory_kib,
    number::micros,
    prometheus::Published,
    report::Live,
    stats::{Counter, Counters, Interval, Stats, histogram},
    times::{Times, Track},
};

/// More intervals than this are joined two by two, so that a run of a day has its place in memory:
/// two hours in seconds.
const SECONDS_MAX: usize = if cfg!(test) { 200 } else { 7200 };

/// So many sets of histograms a generator has at most: how many intervals the recorder may be behind.
const SETS_MAX: u32 = 8;

/// An interval that is shorter than this, in seconds, is what was left at the end: not on show.
const SHORT_S: f64 = 0.2;

/// An interval of a run, with its times.
#[derive(Clone, Debug)]
pub struct Second {
    /// What was counted.
    pub interval: Interval,
    /// Histograms in ns, encoded as HdrHistogram's V2 with deflate; only those with something in them.
    tracks: Vec<(Track, Vec<u8>)>,
}

impl Second {
    /// Encodes the times of an interval.
    #[must_use]
    pub fn new(interval: Interval, times: &Times) -> Self {
        let mut serializer = V2DeflateSerializer::new();
        let mut encode = |track| {
            let times = times.track(track);
            if times.is_empty() {
                return None;
            }
            let mut bytes = Vec::new();
            // Counts fit into an i64, and a Vec takes everything: what else could go wrong?
            serializer.serialize(times, &mut bytes).ok()?;
            Some((track, bytes))
        };
        Self { interval, tracks: Track::all().filter_map(&mut encode).collect() }
    }

    /// The tracks in which something was measured.
    pub fn tracks(&self) -> impl Iterator<Item = Track> + '_ {
        self.tracks.iter().map(|(track, _)| *track)
    }

    /// The times of a track; empty if nothing was measured.
    #[must_use]
    pub fn times(&self, track: Track) -> Histogram<u64> {
        let encoded = self.tracks.iter().find(|(own, _)| *own == track);
        encoded
            .and_then(|(_, bytes)| Deserializer::new().deserialize(&mut bytes.as_slice()).ok())
            .unwrap_or_else(histogram)
    }

    /// Adds the times of all tracks to `times`.
    pub fn add_to(&self, times: &mut Times) {
        for track in self.tracks() {
            *times.track_mut(track) += self.times(track);
        }
    }
}

/// Joins intervals that follow each other, or that two generators measured at the same time.
#[must_use]
pub fn joined(a: &Interval, b: &Interval, side_by_side: bool) -> Interval {
    let outstanding = if side_by_side { a.outstanding + b.outstanding } else { b.outstanding };
    let holding = if side_by_side { a.holding + b.holding } else { b.holding };
    let length_s = if side_by_side { a.length_s.max(b.length_s) } else { a.length_s + b.length_s };
    Interval {
        at_s: a.at_s.max(b.at_s),
        length_s,
        started: a.started + b.started,
        completed: a.completed + b.completed,
        lost: a.lost + b.lost,
        failed: a.failed + b.failed,
        outstanding,
        holding,
        memory_kib: a.memory_kib.max(b.memory_kib),
        ..Interval::default()
    }
}

/// Puts percentiles of the times into an interval.
pub fn set_percentiles(interval: &mut Interval, times: &Times) {
    let messages = times.messages();
    interval.p50_us = micros(messages.value_at_quantile(0.5));
    interval.p99_us = micros(messages.value_at_quantile(0.99));
    interval.max_us = micros(messages.max());
    interval.lag_p99_us = micros(times.lag.value_at_quantile(0.99));
    interval.lag_max_us = micros(times.lag.max());
}

/// What one generator measured in one interval.
struct Part {
    generator: usize,
    number: u32,
    interval: Interval,
    /// Since the start of the run.
    counters: Counters,
    times: Box<Times>,
}

/// A generator's way to the recorder.
#[derive(Debug)]
pub struct Outlet {
    generator: usize,
    number: u32,
    out: Sender<Part>,
    back: Receiver<Box<Times>>,
    /// Sets of histograms that may still be made.
    spare: u32,
    /// What has ended while none was to be had; its times are still with the generator.
    held: Option<Interval>,
}

impl Outlet {
    /// Hands over the interval that has just ended. Does not wait; allocates only while the recorder
    /// is behind, and not for ever: then this interval and the next become one.
    pub fn hand_over(&mut self, stats: &mut Stats, interval: Interval) {
        let interval = match self.held.take() {
            Some(before) => joined(&before, &interval, false),
            None => interval,
        };
        let empty = self.back.try_recv().ok().or_else(|| {
            self.spare = self.spare.checked_sub(1)?;
            Some(Box::default())
        });
        match empty {
            Some(empty) => self.send(stats, interval, empty),
            None => self.held = Some(interval),
        }
        self.number += 1;
    }

    /// The run is over: hands over what is left.
    pub fn finish(mut self, stats: &mut Stats) {
        if let Some(interval) = self.held.take() {
            self.send(stats, interval, Box::default());
        }
    }

    fn send(&self, stats: &mut Stats, interval: Interval, empty: Box<Times>) {
        let part = Part {
            generator: self.generator,
            number: self.number,
            interval,
            counters: *stats.counters(),
            times: stats.swap_times(empty),
        };
        // The recorder ends after the generators; if it had panicked, the figures would still count.
        let _ = self.out.send(part);
    }
}

struct Job {
    parts: Receiver<Part>,
    backs: Vec<Sender<Box<Times>>>,
    live: Live,
    done: Sender<Vec<Second>>,
}

/// The recorder's thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Recorder {
    jobs: Sender<Job>,
}

/// A run that is being recorded.
#[derive(Debug)]
pub struct Recording {
    done: Receiver<Vec<Second>>,
}

impl Recorder {
    /// Makes the thread. To be called before a generator binds itself to a core, or the recorder would
    /// share it.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub fn start(published: Arc<Published>) -> io::Result<Self> {
        let (jobs, inbox) = channel::<Job>();
        std::thread::Builder::new().name("recorder".into()).spawn(move || {
            for job in inbox {
                let done = job.done.clone();
                // Nobody waits for a run that broke off.
                let _ = done.send(Keeper::new(job, &published).run());
            }
        })?;
        Ok(Self { jobs })
    }

    /// Begins to record a run of this many generators, and shows its seconds.
    #[must_use]
    pub fn begin(&self, generators: usize, live: Live) -> (Vec<Outlet>, Recording) {
        let (out, parts) = channel();
        let (done, result) = channel();
        let mut backs = Vec::new();
        let outlets = (0..generators)
            .map(|generator| {
                let (back, returned) = channel();
                // One is at work here while the other one fills.
                let _ = back.send(Box::default());
                backs.push(back);
                Outlet {
                    generator,
                    number: 0,
                    out: out.clone(),
                    back: returned,
                    // The generator has one, and one is on its way.
                    spare: SETS_MAX - 2,
                    held: None,
                }
            })
            .collect();
        let _ = self.jobs.send(Job { parts, backs, live, done });
        (outlets, Recording { done: result })
    }
}

impl Recording {
    /// Waits until all outlets are gone and everything has been worked out.
    #[must_use]
    pub fn finish(self) -> Vec<Second> {
        self.done.recv().unwrap_or_default()
    }
}

/// What generators have measured of one interval so far.
struct Pending {
    /// Each generator that has handed it over, and how many of its clients held all that they want.
    parts: Vec<(usize, u32)>,
    interval: Interval,
    times: Box<Times>,
}

/// Puts together the intervals of one run.
struct Keeper<'a> {
    job: Job,
    published: &'a Published,
    pending: BTreeMap<u32, Pending>,
    last_counters: Vec<Counters>,
    /// By generator: the clients of one that has ended hold what they held.
    last_holding: Vec<u32>,
    seconds: Vec<Second>,
    /// How many intervals make an entry.
    stride: u32,
    /// The entry that is not complete, and of how many intervals it is.
    joint: Option<(Interval, Box<Times>, u32)>,
}

impl<'a> Keeper<'a> {
    fn new(job: Job, published: &'a Published) -> Self {
        published.begin();
        Self {
            last_counters: vec![[0; Counter::ALL.len()]; job.backs.len()],
            last_holding: vec![0; job.backs.len()],
            job,
            published,
            pending: BTreeMap::new(),
            seconds: Vec::new(),
            stride: 1,
            joint: None,
        }
    }

    fn run(mut self) -> Vec<Second> {
        while let Ok(part) = self.job.parts.recv() {
            self.take(part);
        }
        while let Some((_, pending)) = self.pending.pop_first() {
            self.complete(pending);
        }
        if let Some((interval, times, _)) = self.joint.take() {
            self.keep(interval, &times);
        }
        self.job.live.done();
        self.published.end();
        self.seconds
    }

    fn take(&mut self, part: Part) {
        let Part { generator, number, interval, counters, times } = part;
        self.published.count(&self.last_counters[generator], &counters);
        self.last_counters[generator] = counters;
        let own = (generator, interval.holding);
        if let Some(pending) = self.pending.get_mut(&number) {
            pending.parts.push(own);
            pending.interval = joined(&pending.interval, &interval, true);
            pending.times.add(&times);
            self.give_back(generator, times);
        } else {
            self.pending.insert(number, Pending { parts: vec![own], interval, times });
        }
        // A generator that has ended sends no more: the others do not wait for it.
        while let Some(first) = self.pending.first_entry()
            && (first.get().parts.len() == self.job.backs.len() || number > first.key() + 1)
        {
            let pending = first.remove();
            self.complete(pending);
        }
    }

    fn give_back(&self, generator: usize, mut times: Box<Times>) {
        times.clear();
        // The generator may be gone.
        let _ = self.job.backs[generator].send(times);
    }

    fn complete(&mut self, pending: Pending) {
        let Pending { parts, mut interval, times } = pending;
        let generator = parts[0].0;
        for (generator, holding) in parts {
            self.last_holding[generator] = holding;
        }
        interval.holding = self.last_holding.iter().sum();
        set_percentiles(&mut interval, &times);
        interval.memory_kib = memory_kib();
        // A rate over what is left of a second would mislead.
        if interval.length_s > SHORT_S {
            self.job.live.show(&interval);
        }
        self.published.second(&interval, &times);
        let joint = match self.joint.take() {
            None if self.stride == 1 => {
                self.keep(interval, &times);
                None
            }
            None => Some((interval, times.clone(), 1)),
            Some((before, mut all, count)) => {
                all.add(&times);
                Some((joined(&before, &interval, false), all, count + 1))
            }
        };
        match joint {
            Some((interval, times, count)) if count >= self.stride => self.keep(interval, &times),
            other => self.joint = other,
        }
        self.give_back(generator, times);
    }

    fn keep(&mut self, mut interval: Interval, times: &Times) {
        set_percentiles(&mut interval, times);
        self.seconds.push(Second::new(interval, times));
        if self.seconds.len() > SECONDS_MAX {
            self.seconds = std::mem::take(&mut self.seconds).chunks(2).map(join).collect();
            self.stride *= 2;
        }
    }
}

/// Makes one entry of several that follow each other.
fn join(seconds: &[Second]) -> Second {
    let mut times = Times::new();
    for second in seconds {
        second.add_to(&mut times);
    }
    let intervals = seconds.iter().map(|second| second.interval);
    let mut interval = intervals.reduce(|a, b| joined(&a, &b, false)).unwrap_or_default();
    set_percentiles(&mut interval, &times);
    Second::new(interval, &times)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{Choice, Engine, Patience, World},
        message::Traffic,
        number::SECOND_NS,
        stats::Pair,
    };

    fn recorder() -> Recorder {
        Recorder::start(Arc::default()).unwrap()
    }

    /// A second in which `count` messages took `us` each.
    fn second(stats: &mut Stats, outlet: &mut Outlet, at: u64, count: u64, us: u64) {
        for _ in 0..count {
            stats.count(Counter::Started);
            stats.answered(Pair::RequestReply, us * 1000);
        }
        stats.late(us);
        let interval = stats.tick(0, at * SECOND_NS, 3, 5);
        outlet.hand_over(stats, interval);
    }

    #[test]
    fn seconds_keep_their_times() {
        let recorder = recorder();
        let (mut outlets, recording) = recorder.begin(1, Live::new(true));
        let mut outlet = outlets.pop().unwrap();
        let mut stats = Stats::new(0);
        for at in 1..=5 {
            stats.timed_out(Pair::RequestReply, SECOND_NS);
            second(&mut stats, &mut outlet, at, 10 * at, 100 * at);
        }
        drop(outlet);
        let seconds = recording.finish();
        assert_eq!(seconds.len(), 5);
        let mut all = Times::new();
        for (second, number) in seconds.iter().zip(1..) {
            let answered = second.times(Track::Answered(Pair::RequestReply));
            assert_eq!(answered.len(), 10 * number);
            assert_eq!(second.times(Track::TimedOut(Pair::RequestReply)).len(), 1);
            assert_eq!(second.times(Track::Answered(Pair::Exchange)).len(), 0);
            assert_eq!(second.interval.started, 10 * number);
            assert_eq!(second.interval.p50_us, micros(answered.value_at_quantile(0.5)));
            assert!(second.interval.lag_max_us > 0.0);
            second.add_to(&mut all);
        }
        let total = &stats.pair(Pair::RequestReply).answered;
        assert_eq!(
            &all.pair(Pair::RequestReply).answered,
            total,
            "nothing is lost or counted twice"
        );
        assert_eq!(all.lag, stats.lag);
    }

    #[test]
    fn generators_side_by_side_make_one_second() {
        let recorder = recorder();
        let (mut outlets, recording) = recorder.begin(2, Live::new(true));
        let (mut b, mut a) = (outlets.pop().unwrap(), outlets.pop().unwrap());
        let (mut one, mut other) = (Stats::new(0), Stats::new(0));
        // One of them is ahead, and goes on for longer.
        for at in 1..=2 {
            second(&mut one, &mut a, at, 10, 100);
        }
        for at in 1..=6 {
            second(&mut other, &mut b, at, 1, 5000);
        }
        drop((a, b));
        let seconds = recording.finish();
        let started: Vec<_> = seconds.iter().map(|second| second.interval.started).collect();
        assert_eq!(started, [11, 11, 1, 1, 1, 1]);
        assert_eq!(seconds[0].interval.outstanding, 6);
        assert!(
            seconds.iter().all(|second| second.interval.holding == 10),
            "also of the one that ended"
        );
        assert!(seconds[0].interval.memory_kib > 0);
        assert_eq!(seconds[0].interval.length_s, 1.0);
        assert!(seconds[0].interval.p50_us < 110.0 && seconds[0].interval.max_us > 4990.0);
    }

    #[test]
    fn one_recorder_serves_run_after_run() {
        let recorder = recorder();
        for _ in 0..3 {
            let (mut outlets, recording) = recorder.begin(1, Live::new(true));
            second(&mut Stats::new(0), &mut outlets[0], 1, 7, 100);
            drop(outlets);
            assert_eq!(recording.finish()[0].interval.started, 7);
        }
    }

    /// As if the recorder never came round: nothing is lost, and memory is bounded.
    #[test]
    fn a_recorder_that_is_behind_gets_fewer_and_longer_intervals() {
        let (out, parts) = channel();
        let (_back, returned) = channel();
        let (generator, number, spare, held) = (0, 0, 3, None);
        let mut outlet = Outlet { generator, number, out, back: returned, spare, held };
        let mut stats = Stats::new(0);
        for at in 1..=20 {
            second(&mut stats, &mut outlet, at, 10, 100);
        }
        outlet.finish(&mut stats);
        let parts: Vec<Part> = parts.iter().collect();
        let numbers: Vec<_> = parts.iter().map(|part| part.number).collect();
        assert_eq!(numbers, [0, 1, 2, 20], "each with its place in time");
        let started: Vec<_> = parts.iter().map(|part| part.interval.started).collect();
        assert_eq!(started, [10, 10, 10, 170]);
        let last = &parts[3];
        assert_eq!((last.interval.length_s, last.interval.at_s), (17.0, 20.0));
        assert_eq!(last.times.pair(Pair::RequestReply).answered.len(), 170);
    }

    #[test]
    fn a_generator_keeps_no_intervals_of_its_own() {
        let traffic = Traffic {
            na: true,
            pd: false,
            rapid_commit: false,
            renew_share: 0.0,
            choice: Choice::InTurn,
            relay: None,
        };
        let (world, patience) = (World::new(1, 10, 1), Patience::once(SECOND_NS));
        let mut engine = Engine::new(traffic, world, 16, patience, 1, 0);
        let recorder = recorder();
        let (mut outlets, recording) = recorder.begin(1, Live::new(true));
        engine.record_to(outlets.remove(0));
        for at in 1..=5 {
            engine.tick(0, at * SECOND_NS);
        }
        assert_eq!(engine.stats().series, []);
        drop(engine.finish());
        assert_eq!(recording.finish().len(), 5);
    }

    #[test]
    fn a_long_run_is_kept_in_longer_intervals() {
        let recorder = recorder();
        let (mut outlets, recording) = recorder.begin(1, Live::new(true));
        let mut stats = Stats::new(0);
        let seconds_run = SECONDS_MAX as u64 + 301;
        for at in 1..=seconds_run {
            second(&mut stats, &mut outlets[0], at, 1, 100);
        }
        outlets.remove(0).finish(&mut stats);
        let seconds = recording.finish();
        assert!(seconds.len() <= SECONDS_MAX);
        let sum = |value: fn(&Interval) -> u64| -> u64 {
            seconds.iter().map(|second| value(&second.interval)).sum()
        };
        assert_eq!(sum(|interval| interval.started), seconds_run);
        let length: f64 = seconds.iter().map(|second| second.interval.length_s).sum();
        assert!((length - crate::number::float(seconds_run)).abs() < 1e-6, "{length}");
        let times: u64 = seconds
            .iter()
            .map(|second| second.times(Track::Answered(Pair::RequestReply)).len())
            .sum();
        assert_eq!(times, seconds_run);
    }
}
