//! Reading the journal after a restart.

use std::{
    collections::{HashSet, VecDeque},
    io,
};

use crate::{
    Durability, Progress, StoreConfig, StoreError,
    disk::{Disk, Segment, SegmentReader},
    format::{self, BatchHeader, FIRST_BATCH, NotHeader, SECTOR, SegmentHeader},
    lmdb::Meta,
    pace::Lag,
    pending::Pending,
    row::{Link, State},
    store::{Recovery, Status},
};

/// Octets that an update takes up in the journal at least, to make room beforehand: a short DUID, in
/// a batch that is large.
const OCTETS_PER_UPDATE: usize = 88;
/// Octets that room is made for beforehand at most, three times what a usual journal brings; more
/// comes by growing.
const RESERVED_MAX: usize = 512 << 20;
/// Octets read at a time: whole sectors.
const WINDOW: usize = if cfg!(test) { 4 * SECTOR } else { 1 << 20 };

/// The journal as it was found.
pub(crate) struct Recovered<D: Disk> {
    pub(crate) state: State<D>,
    /// What the checkpoint lacks.
    pub(crate) pending: Pending,
    pub(crate) next_generation: u64,
    pub(crate) report: Recovery,
}

/// A segment and which of its sequences count.
struct Found<R> {
    id: u32,
    reader: R,
    len: usize,
    header: SegmentHeader,
    /// The first sequence that a later segment has taken over.
    limit: u64,
}

/// A batch and where it stands.
struct Place {
    segment: usize,
    at: usize,
    header: BatchHeader,
}

/// What a walk through the journal has found.
struct Walk {
    /// Batches in the order of their sequences, none missing in between.
    chain: Vec<Place>,
    /// Valid batches behind the first one that is missing.
    strays: Vec<Place>,
}

/// Reads the segments of `disk` behind `meta.sequence`.
pub(crate) fn recover<D: Disk>(
    disk: &D,
    config: &StoreConfig,
    segment_len: usize,
    meta: &Meta,
    mut progress: impl FnMut(Progress),
) -> Result<Recovered<D>, StoreError> {
    let salt = format::salt(&meta.store_id);
    let mut recycled = Vec::new();
    let mut doomed = Vec::new();
    let mut found = Vec::new();
    let ids = disk.list().map_err(|e| io_error(disk, 0, "cannot list the folder of", e))?;
    for &id in &ids {
        let (reader, len) = disk
            .reader(id)
            .map_err(|e| io_error(disk, id, "cannot open the journal segment", e))?;
        match read_header::<D>(disk, id, &reader, len)? {
            Ok(header) if header.store_id != meta.store_id => {
                return Err(corrupt(
                    disk,
                    id,
                    "the segment belongs to another store: bring `journal` and `checkpoint` of \
                     one store together"
                        .to_owned(),
                ));
            }
            Ok(header) => found.push(Found { id, reader, len, header, limit: u64::MAX }),
            Err(NotHeader::Blank) if len == segment_len => recycled.push(id),
            Err(NotHeader::Blank) => doomed.push(id),
            Err(NotHeader::Version(version)) => {
                return Err(corrupt(
                    disk,
                    id,
                    format!("journal format {version}: use the version that wrote it"),
                ));
            }
            Err(NotHeader::Garbage) => {
                let image = read_all(disk, id, &reader, len)?;
                let needed = |header: &BatchHeader| header.sequence > meta.sequence;
                if format::batches(&image, salt, needed).next().is_some() && !config.accept_loss {
                    return Err(corrupt(
                        disk,
                        id,
                        "the segment's header is damaged, and the segment holds updates that the \
                         checkpoint lacks; restore the store from a copy, or accept the loss"
                            .to_owned(),
                    ));
                }
                doomed.push(id);
            }
        }
    }
    found.sort_by_key(|segment| segment.header.generation);
    let mut limit = u64::MAX;
    for segment in found.iter_mut().rev() {
        segment.limit = limit;
        limit = limit.min(segment.header.first_sequence);
    }

    let mut report = Recovery { checkpoint: meta.sequence, ..Recovery::default() };
    let mut pending = Pending::default();
    pending.stamp_max = meta.stamp_max;
    let mut walk = Walk { chain: Vec::new(), strays: Vec::new() };
    let mut expected = meta.sequence + 1;
    let needed = |segment: &&Found<_>| segment.limit > meta.sequence + 1;
    let octets = found.iter().filter(needed).map(|segment| segment.len).sum::<usize>();
    let octets = octets.min(RESERVED_MAX);
    pending.reserve(octets / OCTETS_PER_UPDATE, octets);
    // Clients wait, and no other thread of ours answers them.
    pending.in_a_hurry = true;
    let mut window = Vec::new();
    for (index, segment) in found.iter().enumerate() {
        progress(Progress::Replay { done: index, total: found.len() });
        if segment.limit > expected.min(meta.sequence + 1) {
            let mut taking = Taking { salt, pending: &mut pending, walk: &mut walk };
            expected = taking
                .segment(index, segment, expected, &mut window)
                .map_err(|e| io_error(disk, segment.id, "cannot read the journal segment", e))?;
        }
    }
    pending.in_a_hurry = false;
    progress(Progress::Replay { done: found.len(), total: found.len() });
    accept_strays(disk, config, salt, &found, &mut expected, &mut pending, &mut walk, &mut report)?;
    let durable = expected - 1;
    if config.durability == Durability::PowerLoss {
        write_again(disk, &found, &walk.chain, meta.sequence)?;
    }

    report.batches = walk.chain.len() as u64;
    report.records = pending.records;
    report.bad_records = pending.bad_records;
    report.first_bad = pending.first_bad.clone();
    let next_generation = found.last().map_or(1, |segment| segment.header.generation + 1);
    let links = link_up(found, &walk.chain, segment_len, &mut recycled, &mut doomed);
    // More than the configuration wants now.
    while links.len() + recycled.len() > config.segments_max && !recycled.is_empty() {
        doomed.extend(recycled.pop());
    }
    let status = Status {
        durable,
        checkpoint: meta.sequence,
        segments: links.len() + recycled.len(),
        segments_used: links.len(),
        lag: pending.taken(),
        ..Status::default()
    };
    Ok(Recovered {
        state: State {
            total: links.len() + recycled.len(),
            links,
            spares: VecDeque::new(),
            recycled: recycled.into_iter().map(|id| (id, None)).collect(),
            doomed,
            next_id: ids.last().map_or(0, |id| id + 1),
            demanded: false,
            prepare_error: None,
            durable,
            checkpoint: meta.sequence,
            checkpoint_error: None,
            checkpoint_wanted: None,
            checkpoint_rounds: 0,
            lag: Lag::new(pending.taken()),
            lag_awaited: false,
            stopping: false,
            status,
        },
        pending,
        next_generation,
        report,
    })
}

/// Where the batches of a segment go.
struct Taking<'a> {
    salt: u32,
    pending: &'a mut Pending,
    walk: &'a mut Walk,
}

impl Taking<'_> {
    /// Takes the batches of one segment; returns the sequence that is expected next.
    fn segment<R: SegmentReader>(
        &mut self,
        index: usize,
        segment: &Found<R>,
        mut expected: u64,
        window: &mut Vec<u8>,
    ) -> io::Result<u64> {
        let first = segment.header.first_sequence;
        let counts = |header: &BatchHeader| {
            header.generation == segment.header.generation
                && (first..segment.limit).contains(&header.sequence)
        };
        let mut take = |at, header: BatchHeader, payload: &[u8]| {
            let place = Place { segment: index, at, header };
            if header.sequence == expected {
                self.pending.absorb(header.sequence, payload);
                self.walk.chain.push(place);
                expected += 1;
            } else if header.sequence > expected {
                self.walk.strays.push(place);
            }
        };
        // Through a window that fits into the processor's cache.
        let (mut start, mut len) = (FIRST_BATCH, WINDOW);
        while start < segment.len {
            let rest = segment.len - start;
            window.resize(len.min(rest), 0);
            segment.reader.read(start, window)?;
            let last = window.len() == rest;
            let take = |at, header, payload: &[u8]| take(start + at, header, payload);
            match format::scan(window, last, self.salt, counts, take) {
                // The first batch is longer than the window.
                0 => len *= 2,
                done => (start, len) = (start + done, WINDOW),
            }
        }
        Ok(expected)
    }
}

/// Decides about batches behind a gap.
///
/// Batches that were written but never acknowledged reach the disk in any order before a power cut,
/// so a gap by itself is nothing: the strays are dropped. But a stray that says that sequences in the
/// gap were durable before it was written proves a loss of what was acknowledged. Where nobody asked
/// for syncs that is what a power cut may do, and the strays are taken along, since each update
/// stands for itself; otherwise it is damage, and the operator decides.
#[expect(clippy::too_many_arguments, reason = "one step of `recover`, apart for its comment")]
fn accept_strays<D: Disk>(
    disk: &D,
    config: &StoreConfig,
    salt: u32,
    found: &[Found<<D::Segment as Segment>::Reader>],
    expected: &mut u64,
    pending: &mut Pending,
    walk: &mut Walk,
    report: &mut Recovery,
) -> Result<(), StoreError> {
    let missed = *expected;
    let Some(proof) = walk.strays.iter().find(|stray| stray.header.durable >= missed) else {
        return Ok(());
    };
    let held: HashSet<u64> = walk.strays.iter().map(|stray| stray.header.sequence).collect();
    let claimed = walk.strays.iter().map(|stray| stray.header.durable).max().unwrap_or(missed);
    if !proof.header.process && !config.accept_loss {
        let next = held.iter().copied().min().unwrap_or(missed + 1);
        return Err(StoreError::Hole {
            dir: disk.path(0).parent().map(Into::into).unwrap_or_default(),
            missing_first: missed,
            missing_last: claimed.min(next - 1),
        });
    }
    report.lost = (missed..=claimed).filter(|sequence| !held.contains(sequence)).count() as u64;
    tracing::error!(lost = report.lost, first = missed, "acknowledged updates are lost");
    for stray in std::mem::take(&mut walk.strays) {
        let segment = &found[stray.segment];
        let mut octets = vec![0; stray.header.stored_len().min(segment.len - stray.at)];
        segment
            .reader
            .read(stray.at, &mut octets)
            .map_err(|e| io_error(disk, segment.id, "cannot read the journal segment", e))?;
        if let Some((header, payload)) = format::batch(&octets, salt) {
            pending.absorb(header.sequence, payload);
            *expected = (*expected).max(header.sequence + 1);
            walk.chain.push(stray);
        }
    }
    Ok(())
}

/// Writes batches once more that the last run may not have synced.
///
/// After a failed sync the kernel takes pages for clean that are not on the disk, and reads them
/// back from memory. The batches of the last commit may be such; whoever goes on from them must not
/// lose them later. Writing the same octets in place is harmless and makes the pages dirty again.
fn write_again<D: Disk>(
    disk: &D,
    found: &[Found<<D::Segment as Segment>::Reader>],
    chain: &[Place],
    checkpoint: u64,
) -> Result<(), StoreError> {
    let synced = chain
        .iter()
        .filter(|place| !place.header.process)
        .map(|place| place.header.durable)
        .max()
        .unwrap_or(0)
        .max(checkpoint);
    let doubtful = |place: &Place| place.header.sequence > synced || place.header.process;
    for (index, segment) in found.iter().enumerate() {
        let mut places =
            chain.iter().filter(|place| place.segment == index && doubtful(place)).peekable();
        if places.peek().is_none() {
            continue;
        }
        let fail = |e| io_error(disk, segment.id, "cannot make the last updates durable in", e);
        let mut file = disk.open(segment.id).map_err(fail)?;
        let mut rewrite = |at: usize, len: usize| {
            let mut octets = vec![0; len];
            segment.reader.read(at, &mut octets)?;
            file.write(at, &octets);
            Ok(())
        };
        rewrite(0, SECTOR).map_err(fail)?;
        for place in places {
            let len = place.header.stored_len().min(segment.len - place.at);
            rewrite(place.at, len).map_err(fail)?;
        }
        file.sync().map_err(fail)?;
    }
    Ok(())
}

/// Sorts segments into those that are needed until the next checkpoint, those that can be used again
/// and those that cannot.
fn link_up<S: Segment>(
    found: Vec<Found<S::Reader>>,
    chain: &[Place],
    segment_len: usize,
    recycled: &mut Vec<u32>,
    doomed: &mut Vec<u32>,
) -> VecDeque<Link<S>> {
    let mut links = VecDeque::new();
    for (index, segment) in found.into_iter().enumerate() {
        let last = chain.iter().filter(|p| p.segment == index).map(|p| p.header.sequence).max();
        match last {
            Some(last_sequence) => links.push_back(Link {
                id: segment.id,
                generation: segment.header.generation,
                reader: segment.reader,
                end: segment.len,
                last_sequence,
                sealed: true,
                worn: segment.len != segment_len,
                segment: None,
            }),
            None if segment.len == segment_len => recycled.push(segment.id),
            None => doomed.push(segment.id),
        }
    }
    links
}

fn read_header<D: Disk>(
    disk: &D,
    id: u32,
    reader: &<D::Segment as Segment>::Reader,
    len: usize,
) -> Result<Result<SegmentHeader, NotHeader>, StoreError> {
    let mut sector = [0; SECTOR];
    let have = SECTOR.min(len);
    reader
        .read(0, &mut sector[..have])
        .map_err(|e| io_error(disk, id, "cannot read the journal segment", e))?;
    Ok(SegmentHeader::decode(&sector))
}

/// The whole segment.
pub(crate) fn read_all<D: Disk>(
    disk: &D,
    id: u32,
    reader: &<D::Segment as Segment>::Reader,
    len: usize,
) -> Result<Vec<u8>, StoreError> {
    let mut image = vec![0; len];
    reader
        .read(0, &mut image)
        .map_err(|e| io_error(disk, id, "cannot read the journal segment", e))?;
    Ok(image)
}

fn io_error<D: Disk>(disk: &D, id: u32, what: &'static str, source: io::Error) -> StoreError {
    StoreError::Io { what, path: disk.path(id), source }
}

fn corrupt<D: Disk>(disk: &D, id: u32, what: String) -> StoreError {
    StoreError::Corrupt { path: disk.path(id), what }
}
