//! The row of segments that the control thread fills, the checkpoint follows and the preparing
//! thread refills.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::{
    StoreError,
    disk::{Disk, Segment},
    pace::Lag,
    store::Status,
};

/// Segments that are kept ready while the control thread fills one.
const SPARES: usize = 2;

/// A segment that can be taken into use.
pub(crate) struct Spare<S> {
    pub(crate) id: u32,
    pub(crate) segment: S,
}

/// A segment in use, as the checkpoint sees it.
pub(crate) struct Link<S: Segment> {
    pub(crate) id: u32,
    pub(crate) generation: u64,
    pub(crate) reader: S::Reader,
    /// The end of its durable batches; 0 while it has none.
    pub(crate) end: usize,
    /// The last durable sequence in it.
    pub(crate) last_sequence: u64,
    /// Nothing is appended any more.
    pub(crate) sealed: bool,
    /// May not be used again: its sync has failed, or it has another length.
    pub(crate) worn: bool,
    /// Handed back by the journal.
    pub(crate) segment: Option<S>,
}

/// Everything about the row that more than one thread touches.
pub(crate) struct State<D: Disk> {
    /// Oldest first; the last may be the one being filled.
    pub(crate) links: VecDeque<Link<D::Segment>>,
    pub(crate) spares: VecDeque<Spare<D::Segment>>,
    /// Held by the checkpoint completely; to be read in again and used again.
    pub(crate) recycled: VecDeque<(u32, Option<D::Segment>)>,
    /// To be removed.
    pub(crate) doomed: Vec<u32>,
    /// Segments on disk, the doomed ones not counted.
    pub(crate) total: usize,
    pub(crate) next_id: u32,
    /// The journal waits for a spare.
    pub(crate) demanded: bool,
    /// Why the last preparation failed; no further one until somebody demands it.
    pub(crate) prepare_error: Option<StoreError>,
    /// Last durable sequence.
    pub(crate) durable: u64,
    /// Last sequence in the checkpoint.
    pub(crate) checkpoint: u64,
    /// Why the last checkpoint failed.
    pub(crate) checkpoint_error: Option<String>,
    /// Somebody waits for a checkpoint of at least this sequence.
    pub(crate) checkpoint_wanted: Option<u64>,
    /// Checkpoints tried, failed ones too.
    pub(crate) checkpoint_rounds: u64,
    /// What the checkpoint lacks, in records.
    pub(crate) lag: Lag,
    /// Somebody waits for the lag to become smaller.
    pub(crate) lag_awaited: bool,
    pub(crate) stopping: bool,
    pub(crate) status: Status,
}

/// The row, shared by the threads of a store.
pub(crate) struct Row<D: Disk> {
    pub(crate) disk: D,
    pub(crate) segment_len: usize,
    pub(crate) segments_max: usize,
    /// Whether a preparing thread runs; without one, taking a spare prepares it.
    threaded: bool,
    state: Mutex<State<D>>,
    /// Work for the preparing thread, and its results.
    pub(crate) prepare: Condvar,
    /// Work for the checkpoint thread, and its results.
    pub(crate) checkpoint: Condvar,
    /// The lag has become smaller.
    pub(crate) relief: Condvar,
}

impl<D: Disk> Row<D> {
    pub(crate) fn new(
        disk: D,
        segment_len: usize,
        segments_max: usize,
        threaded: bool,
        state: State<D>,
    ) -> Arc<Self> {
        Arc::new(Self {
            disk,
            segment_len,
            segments_max,
            threaded,
            state: Mutex::new(state),
            prepare: Condvar::new(),
            checkpoint: Condvar::new(),
            relief: Condvar::new(),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock()
    }

    /// Takes a segment to fill next. Waits only when the preparing thread is overrun.
    pub(crate) fn take_spare(&self) -> Result<Spare<D::Segment>, StoreError> {
        let mut state = self.lock();
        let mut asked = false;
        loop {
            if let Some(spare) = state.spares.pop_front() {
                state.demanded = false;
                self.prepare.notify_all();
                return Ok(spare);
            }
            if asked && let Some(error) = state.prepare_error.take() {
                return Err(error);
            }
            if state.recycled.is_empty() && state.total >= self.segments_max {
                state.demanded = false;
                // Everything durable has to reach the checkpoint now.
                state.checkpoint_wanted = Some(state.durable);
                self.checkpoint.notify_all();
                return Err(StoreError::JournalFull {
                    segments: state.total,
                    checkpoint: state.checkpoint_error.clone(),
                });
            }
            asked = true;
            state.prepare_error = None;
            state.demanded = true;
            if self.threaded {
                self.prepare.notify_all();
                self.prepare.wait(&mut state);
            } else {
                drop(state);
                self.prepare_once();
                state = self.lock();
            }
        }
    }

    /// Whether [`prepare_once`](Self::prepare_once) has something to do.
    pub(crate) fn prepare_due(&self, state: &State<D>) -> bool {
        let room = state.total < self.segments_max;
        let short = state.spares.len() < SPARES && (room || !state.recycled.is_empty());
        !state.doomed.is_empty()
            || (state.prepare_error.is_none()
                && (short || (state.demanded && state.spares.is_empty())))
            || !state.recycled.is_empty() && state.prepare_error.is_none()
    }

    /// One step of the preparing thread: removes what is worn, readies what is recycled, makes one
    /// more segment.
    pub(crate) fn prepare_once(&self) {
        let mut state = self.lock();
        let doomed = std::mem::take(&mut state.doomed);
        if !doomed.is_empty() {
            drop(state);
            for id in doomed {
                // What is left over is found at the next start, when the checkpoint holds it.
                if let Err(error) = self.disk.remove(id) {
                    let path = self.disk.path(id);
                    tracing::warn!(path = %path.display(), %error, "cannot remove a journal segment");
                }
            }
            state = self.lock();
        }
        let made = if let Some((id, segment)) = state.recycled.pop_front() {
            drop(state);
            self.ready(id, segment).map(|segment| (id, segment))
        } else if state.total < self.segments_max && (state.spares.len() < SPARES || state.demanded)
        {
            let id = state.next_id;
            state.next_id += 1;
            state.total += 1;
            drop(state);
            self.disk.create(id, self.segment_len).map(|segment| (id, segment)).map_err(|source| {
                self.lock().total -= 1;
                self.create_error(id, source)
            })
        } else {
            return;
        };
        let mut state = self.lock();
        match made {
            Ok((id, segment)) => state.spares.push_back(Spare { id, segment }),
            Err(error) => {
                tracing::error!(%error, "cannot prepare a journal segment");
                state.prepare_error = Some(error);
            }
        }
        state.status.segments = state.total;
        drop(state);
        self.prepare.notify_all();
    }

    fn ready(&self, id: u32, segment: Option<D::Segment>) -> Result<D::Segment, StoreError> {
        let ready = segment.map_or_else(|| self.disk.open(id), Ok).and_then(|mut segment| {
            segment.warm()?;
            Ok(segment)
        });
        ready.map_err(|source| {
            // A disk that does not give it back would not keep it either.
            let mut state = self.lock();
            state.doomed.push(id);
            state.total -= 1;
            let path = self.disk.path(id);
            StoreError::Io { what: "cannot reuse the journal segment", path, source }
        })
    }

    fn create_error(&self, id: u32, source: io::Error) -> StoreError {
        let path = self.disk.path(id);
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StoreError::NoSpace { path, needed: self.segment_len as u64, source }
            }
            _ => StoreError::Io { what: "cannot prepare the journal segment", path, source },
        }
    }

    /// The preparing thread.
    pub(crate) fn run_preparing(&self) {
        loop {
            let mut state = self.lock();
            while !state.stopping && !self.prepare_due(&state) {
                self.prepare.wait(&mut state);
            }
            if state.stopping {
                return;
            }
            drop(state);
            self.prepare_once();
        }
    }

    /// Notes that the checkpoint holds everything up to `sequence` and recycles the segments that
    /// are not needed any more.
    pub(crate) fn checkpointed(&self, sequence: u64) {
        let mut state = self.lock();
        state.checkpoint = state.checkpoint.max(sequence);
        state.lag.end();
        state.status.lag = state.lag.records();
        state.status.checkpoint = state.checkpoint;
        // A segment voids the stale end of those before it, so one goes only when a later one is
        // durable itself.
        while state.links.len() > 1
            && state.links[0].sealed
            && state.links[0].last_sequence <= state.checkpoint
            && state.links.iter().skip(1).any(|link| link.end > 0)
        {
            let Some(link) = state.links.pop_front() else { break };
            if link.worn {
                state.doomed.push(link.id);
                state.total -= 1;
            } else {
                state.recycled.push_back((link.id, link.segment));
            }
        }
        state.status.segments_used = state.links.len();
        drop(state);
        self.prepare.notify_all();
        self.relief.notify_all();
    }

    /// Waits until the backlog is down to `goal`. If nothing is written for as long as `patience` it
    /// gives up, and tells at which step.
    pub(crate) fn wait_for_relief(&self, goal: u64, patience: Duration) -> Result<(), u64> {
        let mut state = self.lock();
        while state.lag.backlog() > goal && !state.stopping && state.checkpoint_error.is_none() {
            let step = state.lag.steps();
            state.lag_awaited = true;
            self.checkpoint.notify_all();
            let timed_out = self.relief.wait_for(&mut state, patience).timed_out();
            if timed_out && state.lag.steps() == step {
                return Err(step);
            }
        }
        state.lag_awaited = false;
        Ok(())
    }

    /// Ends the threads.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.prepare.notify_all();
        self.checkpoint.notify_all();
        self.relief.notify_all();
    }
}
