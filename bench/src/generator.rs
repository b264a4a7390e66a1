//! The loop that joins schedule, engine and port.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    clock::Clock,
    engine::Engine,
    number::SECOND_NS,
    os::thread_cpu_time,
    port::{BATCH, Port},
    schedule::Schedule,
    stats::{Counter, Interval},
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

/// Runs the schedule to its end and waits for the last answers. Polls without sleeping: the thread
/// needs a core of its own. `progress` is called about once a second.
///
/// # Errors
/// If the port breaks.
pub fn run(
    engine: &mut Engine,
    port: &mut impl Port,
    schedule: &mut Schedule,
    begin: u64,
    clock: &Clock,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&Interval),
) -> io::Result<Span> {
    let mut next_tick = begin + SECOND_NS;
    let mut sent = None;
    let mut interrupted = false;
    let cpu_before = thread_cpu_time();
    loop {
        receive(engine, port, clock)?;
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
            if stopping || schedule.finished(now) {
                interrupted = stopping;
                sent = Some(now);
                engine.stop_starting();
            }
        }
        port.flush()?;
        engine.expire(now);
        if now >= next_tick {
            progress(&engine.tick(begin, now));
            next_tick += SECOND_NS;
        }
        if let Some(sent) = sent
            && engine.outstanding() == 0
        {
            // A rate over what is left of a second would mislead: into the series, not on show.
            engine.tick(begin, now);
            let cpu = thread_cpu_time().saturating_sub(cpu_before);
            return Ok(Span { begin, sent, end: now, interrupted, cpu });
        }
    }
}

fn receive(engine: &mut Engine, port: &mut impl Port, clock: &Clock) -> io::Result<()> {
    // One look at the clock for a batch, taken when its first datagram is there.
    let mut arrived = None;
    let foreign = port.receive(&mut |datagram| {
        let now = *arrived.get_or_insert_with(|| clock.now());
        engine.receive(datagram, now);
    })?;
    if foreign > 0 {
        engine.stats_mut().count_many(Counter::Foreign, foreign);
    }
    Ok(())
}
