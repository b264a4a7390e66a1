//! The loop that joins schedule, engine and port.

use std::{
    cell::Cell,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
};

use crate::{
    clock::Clock,
    engine::Engine,
    os::thread_cpu_time,
    port::{BATCH, Port},
    schedule::Schedule,
    stats::Counter,
};

/// When a run took place, in ns on its clock.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The first exchange was due.
    pub begin: u64,
    /// The last exchange had been started.
    pub sent: u64,
    /// The last answer was in or given up.
    pub end: u64,
    /// A signal ended it early.
    pub interrupted: bool,
    /// Processor time that the generator had. It never sleeps, so less than the length of the run
    /// means that it had to share its core.
    pub cpu: u64,
}

impl Span {
    /// From the first beginning to the last end of threads that ran at the same time; the processor time
    /// is that of one of them on average.
    #[must_use]
    pub fn join(spans: &[Self]) -> Self {
        let all = |of: fn(&Self) -> u64| spans.iter().map(of);
        Self {
            begin: all(|span| span.begin).min().unwrap_or(0),
            sent: all(|span| span.sent).max().unwrap_or(0),
            end: all(|span| span.end).max().unwrap_or(0),
            interrupted: spans.iter().any(|span| span.interrupted),
            // A thread that was done before the others is not to look as if it had been kept off its core.
            cpu: spans
                .iter()
                .map(|span| span.cpu + (all(|span| span.end).max().unwrap_or(0) - span.end))
                .min()
                .unwrap_or(0),
        }
    }
}

/// A datagram that came in on the queue of another thread, and when.
type Steered = (u64, Vec<u8>);

/// How generator threads hand each other what has come in on the wrong queue.
#[derive(Debug)]
pub struct Steering {
    inbox: mpsc::Receiver<Steered>,
    others: Vec<mpsc::Sender<Steered>>,
    /// Threads that still wait for answers.
    running: Arc<AtomicU32>,
    done: Cell<bool>,
}

impl Steering {
    /// One for each of `threads` threads, in order.
    #[must_use]
    pub fn between(threads: u32) -> Vec<Self> {
        let (others, inboxes): (Vec<_>, Vec<_>) = (0..threads).map(|_| mpsc::channel()).unzip();
        let running = Arc::new(AtomicU32::new(threads));
        let one = |inbox| Self {
            inbox,
            others: others.clone(),
            running: Arc::clone(&running),
            done: Cell::new(false),
        };
        inboxes.into_iter().map(one).collect()
    }

    /// This thread waits for nothing any more; whether the same holds of all others.
    fn finish(&self) -> bool {
        if !self.done.replace(true) {
            self.running.fetch_sub(1, Ordering::Relaxed);
        }
        self.running.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        // A thread that broke off is not to be waited for.
        self.finish();
    }
}

/// When and how a run goes, beside its schedule.
#[derive(Debug)]
pub struct Course<'a> {
    /// Clock time at which it begins.
    pub begin: u64,
    /// Length of an interval of the series, ns.
    pub interval: u64,
    /// The clock.
    pub clock: &'a Clock,
    /// Becomes true when the run is to end early.
    pub stop: &'a AtomicBool,
    /// The other threads, if there are any.
    pub steering: Option<Steering>,
}

/// Runs the schedule to its end and waits for the last answers. Polls without sleeping: the thread
/// needs a core of its own.
///
/// # Errors
/// If the port breaks.
pub fn run(
    engine: &mut Engine,
    port: &mut impl Port,
    schedule: &mut Schedule,
    course: &Course<'_>,
) -> io::Result<Span> {
    let Course { begin, interval, clock, stop, ref steering } = *course;
    let mut next_tick = begin + interval;
    let mut sent = None;
    let mut interrupted = false;
    let cpu_before = thread_cpu_time();
    loop {
        receive(engine, port, clock, steering.as_ref())?;
        let now = clock.now();
        let mut room = BATCH;
        while room > 0 && engine.has_ready() {
            if !port.send(&mut |buffer| engine.next_ready(now, buffer))? {
                engine.stats_mut().count(Counter::PortFull);
                break;
            }
            room -= 1;
        }
        if sent.is_none() {
            while room > 0
                && let Some(due) = schedule.due(now, engine.outstanding())
            {
                let mut started = false;
                if !port.send(&mut |buffer| {
                    let len = engine.start(due, now, buffer);
                    started = len.is_some();
                    len
                })? {
                    engine.stats_mut().count(Counter::PortFull);
                    break;
                }
                // An open loop does not wait: what cannot be begun when due is counted as such.
                if started || schedule.is_open_loop() {
                    schedule.advance();
                }
                room -= 1;
                if !started {
                    // Nothing can be begun at the moment; answers may free what it takes.
                    break;
                }
            }
            let stopping = stop.load(Ordering::Relaxed);
            if stopping || schedule.finished(now) || engine.is_over(now) {
                interrupted = stopping;
                sent = Some(now);
                engine.stop_starting();
                if stopping {
                    engine.interrupt(now);
                }
            }
        }
        port.flush()?;
        engine.expire(now);
        if now >= next_tick {
            engine.tick(begin, now);
            next_tick += interval;
        }
        if let Some(sent) = sent
            && engine.outstanding() == 0
        {
            engine.tick(begin, now);
            let cpu = thread_cpu_time().saturating_sub(cpu_before);
            // What comes in for the other threads is still to be handed on.
            while let Some(steering) = steering.as_ref().filter(|steering| !steering.finish()) {
                receive(engine, port, clock, Some(steering))?;
            }
            return Ok(Span { begin, sent, end: now, interrupted, cpu });
        }
    }
}

fn receive(
    engine: &mut Engine,
    port: &mut impl Port,
    clock: &Clock,
    steering: Option<&Steering>,
) -> io::Result<()> {
    // One look at the clock for a batch, taken when its first datagram is there.
    let mut arrived = None;
    let mut steered = 0;
    let foreign = port.receive(&mut |datagram| {
        let now = *arrived.get_or_insert_with(|| clock.now());
        if let Some(part) = engine.receive(datagram, now)
            && let Some(steering) = steering
            && let Some(other) = steering.others.get(crate::number::index(part))
        {
            steered += 1;
            // A thread that is done has given up what it had asked.
            let _ = other.send((now, datagram.to_vec()));
        }
    })?;
    let stats = engine.stats_mut();
    stats.count_many(Counter::Foreign, foreign);
    stats.count_many(Counter::Steered, steered);
    if let Some(steering) = steering {
        for (arrived, datagram) in steering.inbox.try_iter() {
            engine.receive(&datagram, arrived);
        }
    }
    Ok(())
}
