//! When things happened in a worker's turns, for its histograms.
//!
//! A clock is read once per batch received, per batch handed over, per round of resolutions and
//! twice per turn that sends, and four times for one packet in [`SAMPLE_EVERY`].

use std::{collections::VecDeque, time::Instant};

use crate::{
    stages::{Recorder, Stage},
    submit::BATCHES,
};

/// One packet in so many is timed by itself. A prime, so that with full batches the sample goes
/// through all places in a batch.
const SAMPLE_EVERY: u32 = 31;

/// Replies of one kind, received together, that leave in this turn.
#[derive(Clone, Copy, Debug)]
struct Run {
    stage: Stage,
    received: Instant,
    count: u64,
}

/// The clock readings of one worker. Without a recorder it reads no clock.
pub(crate) struct Timing {
    recorder: Option<Recorder>,
    until_sample: u32,
    /// When the batch that is being handled was received.
    received: Instant,
    /// Batches of updates on their way, by sequence number, and when they were handed over.
    submitted: VecDeque<(u64, Instant)>,
    /// When the present round of resolutions was seen.
    resolved: Option<Instant>,
    runs: Vec<Run>,
}

impl Timing {
    /// Takes all its memory now: `runs_max` is how many replies may leave in one turn.
    pub(crate) fn new(recorder: Option<Recorder>, runs_max: usize) -> Self {
        Self {
            until_sample: SAMPLE_EVERY,
            received: Instant::now(),
            submitted: VecDeque::with_capacity(BATCHES),
            resolved: None,
            runs: Vec::with_capacity(if recorder.is_some() { runs_max } else { 0 }),
            recorder,
        }
    }

    /// A batch has been received.
    pub(crate) fn batch_received(&mut self) {
        if self.recorder.is_some() {
            self.received = Instant::now();
        }
    }

    /// When the batch was received that is being handled.
    pub(crate) fn received(&self) -> Instant {
        self.received
    }

    /// A packet of an earlier batch is handled now.
    pub(crate) fn set_received(&mut self, received: Instant) {
        self.received = received;
    }

    /// The handling of a packet begins; tells when, if this one is sampled.
    #[inline]
    pub(crate) fn begin(&mut self) -> Option<Instant> {
        self.until_sample -= 1;
        if self.until_sample > 0 {
            return None;
        }
        self.until_sample = SAMPLE_EVERY;
        let recorder = self.recorder.as_mut()?;
        let now = Instant::now();
        recorder.record_span(Stage::TurnWait, self.received, now, 1);
        Some(now)
    }

    /// A stage of a packet that is sampled has ended, and the next begins.
    #[inline]
    pub(crate) fn stage_ends(&mut self, stage: Stage, begun: Option<Instant>) -> Option<Instant> {
        let (begun, recorder) = (begun?, self.recorder.as_mut()?);
        let now = Instant::now();
        recorder.record_span(stage, begun, now, 1);
        Some(now)
    }

    /// A batch of updates has been handed over.
    pub(crate) fn submitted(&mut self, sequence: u64, at: Instant) {
        if self.recorder.is_some() && self.submitted.len() < BATCHES {
            self.submitted.push_back((sequence, at));
        }
    }

    /// The fate of the batch `sequence` is known, and of the `replies` that waited for it.
    pub(crate) fn resolved(&mut self, sequence: u64, replies: u64) {
        let Some(recorder) = &mut self.recorder else { return };
        let now = *self.resolved.get_or_insert_with(Instant::now);
        while let Some((_, at)) = self.submitted.pop_front_if(|(first, _)| *first <= sequence) {
            recorder.record_span(Stage::Durable, at, now, replies);
        }
    }

    /// Replies leave in this turn that were received together.
    #[inline]
    pub(crate) fn leaves(&mut self, stage: Stage, received: Instant, count: u64) {
        if self.recorder.is_none() || count == 0 {
            return;
        }
        if let Some(run) = self.runs.last_mut()
            && run.stage == stage
            && run.received == received
        {
            run.count += count;
            return;
        }
        // There is a place for each reply that may leave; better uncounted than memory taken here.
        debug_assert!(self.runs.len() < self.runs.capacity(), "more runs than replies");
        if self.runs.len() < self.runs.capacity() {
            self.runs.push(Run { stage, received, count });
        }
    }

    /// The turn is about to send; tells when, if there is something to send.
    pub(crate) fn flush_begins(&self) -> Option<Instant> {
        (!self.runs.is_empty()).then(Instant::now)
    }

    /// What the turn had to send is with the kernel.
    pub(crate) fn flushed(&mut self, begun: Option<Instant>) {
        self.resolved = None;
        let (Some(begun), Some(recorder)) = (begun, &mut self.recorder) else { return };
        let now = Instant::now();
        recorder.record_span(Stage::Flush, begun, now, 1);
        for Run { stage, received, count } in self.runs.drain(..) {
            recorder.record_span(stage, received, now, count);
        }
    }

    /// Hands the histograms to the reader if that is due.
    pub(crate) fn publish(&mut self, now: Instant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.publish(now);
        }
    }
}
