//! Filling the journal: batches, group commit, what happens when a sync fails.

use std::sync::Arc;

use gemel_lease::RecordError;

use crate::{
    Durability, StoreError,
    disk::{Disk, Segment},
    format::{self, BATCH_HEADER_LEN, BatchHeader, FIRST_BATCH, SegmentHeader},
    row::{Link, Row},
};

/// No binding record is longer; a longer length is damage.
const RECORD_LEN_MAX: usize = 4096;

/// The writing end of the journal.
pub(crate) struct Journal<D: Disk> {
    row: Arc<Row<D>>,
    store_id: [u8; 16],
    salt: u32,
    durability: Durability,
    /// The segment being filled.
    active: Option<Active<D::Segment>>,
    /// Segments that became full since the last commit.
    full: Vec<Active<D::Segment>>,
    next_sequence: u64,
    next_generation: u64,
    durable: u64,
    /// Since the last commit.
    records: u64,
    octets: u64,
    /// Records of the last commit.
    committed: u64,
}

struct Active<S> {
    id: u32,
    generation: u64,
    segment: S,
    /// The end of the closed batches.
    end: usize,
    /// The last closed batch.
    last_sequence: u64,
    /// Closed batches wait for a commit.
    dirty: bool,
    /// Some of it is durable.
    durable: bool,
    open: Option<Open>,
}

/// The batch being put together.
struct Open {
    len: usize,
    crc: u32,
}

impl<S: Segment> Active<S> {
    /// Octets that the open batch can still take.
    fn room(&self) -> usize {
        let used = self.end + BATCH_HEADER_LEN + self.open.as_ref().map_or(0, |open| open.len);
        self.segment.len().saturating_sub(used)
    }
}

impl<D: Disk> Journal<D> {
    /// Goes on behind `durable`; the first append takes a fresh segment.
    pub(crate) fn new(
        row: Arc<Row<D>>,
        store_id: [u8; 16],
        durability: Durability,
        durable: u64,
        next_generation: u64,
    ) -> Self {
        Self {
            row,
            store_id,
            salt: format::salt(&store_id),
            durability,
            active: None,
            full: Vec::new(),
            next_sequence: durable + 1,
            next_generation,
            durable,
            records: 0,
            octets: 0,
            committed: 0,
        }
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    /// See [`crate::Store::append`].
    pub(crate) fn append(&mut self, updates: &[u8]) -> Result<u64, StoreError> {
        let records = count_records(updates)?;
        let mut rest = updates;
        while !rest.is_empty() {
            let room = self.active()?.room();
            let fits = if rest.len() <= room { rest.len() } else { whole_records(rest, room) };
            if fits == 0 {
                self.seal();
                continue;
            }
            let (now, later) = rest.split_at(fits);
            self.put(now)?;
            rest = later;
        }
        self.records += records;
        self.octets += updates.len() as u64;
        Ok(self.next_sequence - u64::from(!self.is_open()))
    }

    /// See [`crate::Store::commit`].
    pub(crate) fn commit(&mut self) -> Result<u64, StoreError> {
        self.close();
        let dirty = self.active.as_ref().is_some_and(|active| active.dirty);
        if !dirty && self.full.is_empty() {
            return Ok(self.durable);
        }
        if self.durability == Durability::PowerLoss {
            let unsynced = self.full.iter_mut().chain(self.active.as_mut().filter(|a| a.dirty));
            for active in unsynced {
                if let Err(source) = active.segment.sync() {
                    let path = self.row.disk.path(active.id);
                    self.abandon();
                    return Err(StoreError::Sync { path, durable: self.durable, source });
                }
            }
        }
        self.publish();
        Ok(self.durable)
    }

    /// Writes an empty batch and commits it.
    pub(crate) fn probe(&mut self) -> Result<(), StoreError> {
        self.put_empty()?;
        self.commit().map(|_| ())
    }

    fn put_empty(&mut self) -> Result<(), StoreError> {
        let active = self.active()?;
        if active.open.is_none() && active.end + BATCH_HEADER_LEN > active.segment.len() {
            self.seal();
        }
        self.put(&[])
    }

    /// Records that the last commit made durable.
    pub(crate) fn records_committed(&self) -> u64 {
        self.committed
    }

    /// Whether a batch is being put together.
    pub(crate) fn is_open(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.open.is_some())
    }

    /// The segment being filled, a fresh one if there is none.
    fn active(&mut self) -> Result<&mut Active<D::Segment>, StoreError> {
        if self.active.is_none() {
            self.active = Some(self.begin_segment()?);
        }
        self.active.as_mut().ok_or(StoreError::Misuse("no segment"))
    }

    fn begin_segment(&mut self) -> Result<Active<D::Segment>, StoreError> {
        let mut spare = self.row.take_spare()?;
        let reader = spare.segment.reader().map_err(|source| StoreError::Io {
            what: "cannot read the journal segment",
            path: self.row.disk.path(spare.id),
            source,
        })?;
        let generation = self.next_generation;
        self.next_generation += 1;
        let header = SegmentHeader {
            store_id: self.store_id,
            generation,
            first_sequence: self.next_sequence,
            segment_len: spare.segment.len() as u64,
        };
        spare.segment.write(0, &header.encode());
        let mut state = self.row.lock();
        state.links.push_back(Link {
            id: spare.id,
            generation,
            reader,
            end: 0,
            last_sequence: self.next_sequence - 1,
            sealed: false,
            worn: false,
            segment: None,
        });
        state.status.segments_used = state.links.len();
        Ok(Active {
            id: spare.id,
            generation,
            segment: spare.segment,
            end: FIRST_BATCH,
            last_sequence: 0,
            dirty: false,
            durable: false,
            open: None,
        })
    }

    /// Adds to the open batch; the caller has seen that there is room.
    fn put(&mut self, updates: &[u8]) -> Result<(), StoreError> {
        let salt = self.salt;
        let active = self.active()?;
        let at = active.end + BATCH_HEADER_LEN;
        let open = active.open.get_or_insert(Open { len: 0, crc: salt });
        active.segment.write(at + open.len, updates);
        open.crc = crc32c::crc32c_append(open.crc, updates);
        open.len += updates.len();
        Ok(())
    }

    /// Ends the open batch: it has its sequence now.
    fn close(&mut self) {
        let Some(active) = &mut self.active else { return };
        let Some(open) = active.open.take() else { return };
        let header = BatchHeader {
            generation: active.generation,
            sequence: self.next_sequence,
            durable: self.durable,
            process: self.durability == Durability::Process,
            len: u32::try_from(open.len).expect("a segment is shorter than 4 GiB"),
        };
        active.segment.write(active.end, &header.encode(open.crc));
        active.end = (active.end + header.stored_len()).min(active.segment.len());
        active.last_sequence = self.next_sequence;
        active.dirty = true;
        self.next_sequence += 1;
    }

    /// Ends the segment.
    fn seal(&mut self) {
        self.close();
        if let Some(active) = self.active.take() {
            if active.dirty {
                self.full.push(active);
            } else {
                self.hand_back(active, false);
            }
        }
    }

    /// Makes known what is durable now.
    fn publish(&mut self) {
        self.durable = self.next_sequence - 1;
        let (records, octets) =
            (std::mem::take(&mut self.records), std::mem::take(&mut self.octets));
        for full in std::mem::take(&mut self.full) {
            self.hand_back(full, true);
        }
        let mut state = self.row.lock();
        if let Some(active) = &mut self.active {
            active.durable = true;
            active.dirty = false;
            if let Some(link) = state.links.iter_mut().rfind(|link| link.id == active.id) {
                link.end = active.end;
                link.last_sequence = active.last_sequence;
            }
        }
        state.durable = self.durable;
        state.status.durable = self.durable;
        state.status.commits += 1;
        self.committed = records;
        state.lag.add(records);
        state.status.lag = state.lag.records();
        state.status.records += records;
        state.status.octets += octets;
        state.status.error = None;
    }

    /// Gives a full segment to the row; `committed` if its batches are durable.
    fn hand_back(&self, active: Active<D::Segment>, committed: bool) {
        let mut state = self.row.lock();
        if let Some(link) = state.links.iter_mut().rfind(|link| link.id == active.id) {
            if committed {
                link.end = active.end;
                link.last_sequence = active.last_sequence;
            }
            link.sealed = true;
            link.segment = Some(active.segment);
        }
        drop(state);
        self.row.checkpoint.notify_all();
    }

    /// Writes off everything since the last commit. The kernel may hold pages for clean that never
    /// reached the disk, so the segments concerned are not written any more: what is durable in them
    /// stays readable, the next segment voids the rest.
    fn abandon(&mut self) {
        let mut state = self.row.lock();
        for active in self.full.drain(..).chain(self.active.take()) {
            let Some(index) = state.links.iter().rposition(|link| link.id == active.id) else {
                continue;
            };
            if active.durable {
                state.links[index].sealed = true;
                state.links[index].worn = true;
            } else {
                state.links.remove(index);
                state.doomed.push(active.id);
                state.total -= 1;
            }
        }
        state.status.commit_failures += 1;
        state.status.segments_used = state.links.len();
        drop(state);
        self.row.prepare.notify_all();
        self.next_sequence = self.durable + 1;
        self.records = 0;
        self.octets = 0;
    }
}

fn count_records(updates: &[u8]) -> Result<u64, StoreError> {
    let mut rest = updates;
    let mut count = 0;
    loop {
        match format::split_record(rest) {
            Ok(None) => return Ok(count),
            Ok(Some((record, later))) if record.len() <= RECORD_LEN_MAX => {
                count += 1;
                rest = later;
            }
            Ok(Some((record, _))) => return Err(RecordError::Length(record.len()).into()),
            Err(left) => return Err(RecordError::Length(left.len()).into()),
        }
    }
}

/// Octets of the records that fit into `room` as a whole.
fn whole_records(updates: &[u8], room: usize) -> usize {
    let mut fits = 0;
    while let Ok(Some((record, _))) = format::split_record(&updates[fits..]) {
        if fits + record.len() > room {
            break;
        }
        fits += record.len();
    }
    fits
}
