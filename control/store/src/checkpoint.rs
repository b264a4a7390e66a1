//! Following the journal and writing checkpoints.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    StoreError,
    disk::{Disk, Segment, SegmentReader},
    format::{self, BatchHeader, FIRST_BATCH},
    lmdb::{Lmdb, Tombstone, View},
    pace::Urgency,
    pending::Pending,
    row::{Row, State},
};

/// How often the journal is looked at without being asked.
const TICK: Duration = Duration::from_millis(200);
/// How long a failed checkpoint rests.
const REST: Duration = Duration::from_secs(1);
/// Octets that a lease takes up in memory before a checkpoint, about; bounds the memory together
/// with the number of leases.
const OCTETS_PER_LEASE: usize = 512;
/// How much larger a checkpoint may become when the journal fills faster than it is emptied: the
/// more it takes at once, the more updates of one lease, and of one page, it writes only once.
const BEHIND_FACTOR: usize = 8;
/// Octets read at a time.
const READ_LEN: usize = 1 << 20;

/// When a checkpoint is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) leases: usize,
    pub(crate) interval: Duration,
    /// How old a tombstone gets at least.
    pub(crate) tombstone_age: Duration,
}

/// The journal's reader and the checkpoint's writer.
pub(crate) struct Checkpointer<D: Disk> {
    row: Arc<Row<D>>,
    lmdb: Arc<Mutex<Lmdb>>,
    salt: u32,
    pub(crate) pace: Pace,
    pending: Pending,
    /// Everything up to this sequence is in LMDB or in `pending`.
    position: u64,
    /// Everything up to this sequence is in LMDB.
    written: u64,
    /// What earlier checkpoints wrote and when; deleted by a later one.
    tombstones: VecDeque<(Instant, Vec<Tombstone>)>,
    /// Where reading goes on: generation and offset.
    place: (u64, usize),
    /// When the oldest pending update was taken.
    oldest: Option<Instant>,
    /// The journal is more than half full.
    behind: bool,
    /// Pauses between the transactions of a checkpoint: in its own thread, where nobody waits.
    rests: bool,
}

impl<D: Disk> Checkpointer<D> {
    /// Goes on from `pending`, which is complete from `written` to `position`.
    pub(crate) fn new(
        row: Arc<Row<D>>,
        lmdb: Arc<Mutex<Lmdb>>,
        store_id: &[u8; 16],
        pace: Pace,
        pending: Pending,
        written: u64,
        position: u64,
    ) -> Self {
        let oldest = (position > written).then(Instant::now);
        let salt = format::salt(store_id);
        Self {
            row,
            lmdb,
            salt,
            pace,
            pending,
            position,
            written,
            tombstones: VecDeque::new(),
            place: (0, 0),
            oldest,
            behind: false,
            rests: false,
        }
    }

    /// What LMDB does not hold yet.
    #[cfg(test)]
    pub(crate) fn pending(&self) -> &Pending {
        &self.pending
    }

    /// Hands out what LMDB does not hold yet, until [`Checkpointer::give_pending`].
    pub(crate) fn take_pending(&mut self) -> Pending {
        std::mem::take(&mut self.pending)
    }

    /// Takes it back; nothing else may have been taken meanwhile.
    pub(crate) fn give_pending(&mut self, pending: Pending) {
        self.pending = pending;
    }

    /// A reader of LMDB, to be dropped before the first checkpoint.
    pub(crate) fn view(&self) -> Result<View, StoreError> {
        self.lmdb.lock().view()
    }

    /// Takes over tombstones that an earlier run wrote.
    pub(crate) fn bury(&mut self, tombstones: Vec<Tombstone>) {
        self.tombstones = VecDeque::from([(Instant::now(), tombstones)]);
    }

    /// Takes durable batches from the journal, as many as memory is meant for.
    pub(crate) fn absorb(&mut self) -> Result<(), StoreError> {
        while !self.is_full() {
            let next = self.position + 1;
            let state = self.row.lock();
            let Some(link) =
                state.links.iter().find(|link| link.end > 0 && link.last_sequence >= next)
            else {
                return Ok(());
            };
            let (id, generation, end) = (link.id, link.generation, link.end);
            let reader = link.reader.clone();
            drop(state);
            if self.place.0 != generation {
                self.place = (generation, FIRST_BATCH);
            }
            self.read_batches(&reader, id, end)?;
        }
        Ok(())
    }

    /// Records count, not leases: a restart has to replay them all, also those of one lease.
    fn is_full(&self) -> bool {
        let leases = self.pace.leases.saturating_mul(if self.behind { BEHIND_FACTOR } else { 1 });
        self.pending.taken() >= leases as u64
            || self.pending.octets() >= leases.saturating_mul(OCTETS_PER_LEASE)
    }

    /// Takes batches up to offset `end` until there are no more or enough.
    fn read_batches(
        &mut self,
        reader: &<D::Segment as Segment>::Reader,
        id: u32,
        end: usize,
    ) -> Result<(), StoreError> {
        let mut block = Vec::new();
        while self.place.1 < end && !self.is_full() {
            let mut len = READ_LEN.min(end - self.place.1);
            loop {
                block.resize(len, 0);
                reader.read(self.place.1, &mut block).map_err(|source| StoreError::Io {
                    what: "cannot read the journal segment",
                    path: self.row.disk.path(id),
                    source,
                })?;
                // A batch longer than the block: once more with all of it.
                match BatchHeader::peek(&block).map(|header| header.stored_len()) {
                    Some(whole) if whole > len && len < end - self.place.1 => {
                        len = whole.min(end - self.place.1);
                    }
                    _ => break,
                }
            }
            let mut at = 0;
            while at < block.len() {
                let rest = &block[at..];
                let Some((header, payload)) = format::batch(rest, self.salt) else {
                    break;
                };
                if header.generation != self.place.0 || header.sequence > self.position + 1 {
                    break;
                }
                if header.sequence == self.position + 1 {
                    self.pending.absorb(header.sequence, payload);
                    self.position = header.sequence;
                    self.oldest.get_or_insert_with(Instant::now);
                }
                at += header.stored_len();
            }
            if at == 0 {
                let what = format!(
                    "the batch at offset {} was stored and cannot be read back (sequence {}); \
                     stop the server and check the disk",
                    self.place.1,
                    self.position + 1
                );
                return Err(StoreError::Corrupt { path: self.row.disk.path(id), what });
            }
            self.place.1 += at;
        }
        Ok(())
    }

    /// Writes what was taken.
    pub(crate) fn write(&mut self) -> Result<(), StoreError> {
        if self.position == self.written {
            return Ok(());
        }
        let begun = Instant::now();
        let aged = |at: &Instant| begun.duration_since(*at) >= self.pace.tombstone_age;
        let groups = self.tombstones.iter().take_while(|(at, _)| aged(at)).count();
        let mut old: Vec<Tombstone> =
            self.tombstones.iter().take(groups).flat_map(|(_, group)| group).copied().collect();
        old.sort_unstable();
        let mut state = self.row.lock();
        state.lag.begin(self.pending.taken());
        let begin = self.urgency(&state);
        drop(state);
        self.claim(begin);
        self.pending.in_a_hurry = begin > Urgency::Calm;
        let mut before = begin;
        let entries = self.pending.sorted();
        let rest = |done, took| {
            let mut state = self.row.lock();
            state.lag.advance(done, entries.len());
            if state.lag_awaited {
                self.row.relief.notify_all();
            }
            let now = self.urgency(&state);
            drop(state);
            if now != before {
                self.claim(now);
                before = now;
            }
            if self.rests {
                std::thread::sleep(now.rest(took));
            }
            now
        };
        let stamp_max = self.pending.stamp_max;
        let written =
            self.lmdb.lock().write(&entries, &old, self.position, stamp_max, begin, rest)?;
        self.tombstones.drain(..groups);
        if !written.tombstones.is_empty() {
            self.tombstones.push_back((begun, written.tombstones));
        }
        self.pending.clear();
        self.oldest = None;
        self.written = self.position;
        let mut state = self.row.lock();
        state.status.checkpoints += 1;
        state.status.checkpoint_records += written.records;
        state.status.checkpoint_last_us =
            u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        state.checkpoint_error = None;
        drop(state);
        self.row.checkpointed(self.written);
        Ok(())
    }

    /// How hard to work now.
    fn urgency(&self, state: &State<D>) -> Urgency {
        let urgent = state.stopping
            || state.checkpoint_wanted.is_some()
            || state.links.len() * 2 > self.row.segments_max;
        let by_lag = Urgency::of(state.lag.backlog(), self.pace.leases as u64);
        if urgent { by_lag.max(Urgency::Brisk) } else { by_lag }
    }

    /// In its own thread alone: others have a claim of their own.
    fn claim(&self, urgency: Urgency) {
        if self.rests {
            urgency.claim();
        }
    }

    /// The checkpoint thread.
    pub(crate) fn run(mut self) {
        self.rests = true;
        self.claim(Urgency::Calm);
        loop {
            let mut state = self.row.lock();
            if !state.stopping && state.checkpoint_wanted.is_none() {
                self.row.checkpoint.wait_for(&mut state, TICK.min(self.pace.interval));
            }
            if state.stopping {
                return;
            }
            let wanted = state.checkpoint_wanted;
            self.behind = state.links.len() * 2 > self.row.segments_max;
            let urgency = self.urgency(&state);
            drop(state);
            self.claim(urgency);
            self.pending.in_a_hurry = urgency > Urgency::Calm;
            let result = self.absorb().and_then(|()| {
                let old = self.oldest.is_some_and(|oldest| oldest.elapsed() >= self.pace.interval);
                let asked = wanted.is_some_and(|sequence| self.written < sequence);
                if self.is_full() || old || asked || (self.behind && self.position > self.written) {
                    self.write()
                } else {
                    Ok(())
                }
            });
            let mut state = self.row.lock();
            if let Err(error) = &result {
                tracing::error!(%error, "the checkpoint fails; the journal keeps what it does not hold");
                state.checkpoint_error = Some(error.to_string());
                state.status.checkpoint_failures += 1;
                state.status.error = Some(error.to_string());
            }
            if result.is_err() || wanted.is_some_and(|sequence| self.written >= sequence) {
                if state.checkpoint_wanted == wanted {
                    state.checkpoint_wanted = None;
                }
                state.checkpoint_rounds += 1;
                self.row.checkpoint.notify_all();
            }
            if result.is_err() && !state.stopping && state.checkpoint_wanted.is_none() {
                self.row.checkpoint.wait_for(&mut state, REST);
            }
        }
    }
}
