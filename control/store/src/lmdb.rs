//! The checkpoint: the one module that knows LMDB.
//!
//! Two databases: `bindings` (address and prefix length to record) and `meta`. LMDB has no checksums
//! of its own, so each value ends with the CRC32C of its key and itself. Cursors live and die inside
//! one function: an iterator of this crate that outlives its cursor reads freed memory.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use gemel_lease::{Record, RecordError};
use lmdb::{
    Cursor, Database, DatabaseFlags, Environment, EnvironmentFlags, Error, RoTransaction,
    RwTransaction, Transaction, WriteFlags,
};

use crate::{
    StoreError,
    head::Head,
    pace::Urgency,
    pending::{Entry, Key},
    priority,
};

const FORMAT: u32 = 1;
const CRC_LEN: usize = 4;
const READING: &str = "reading bindings";

const KEY_FORMAT: &[u8] = b"format";
const KEY_STORE_ID: &[u8] = b"store-id";
const KEY_HASH_KEY: &[u8] = b"hash-key";
const KEY_SEQUENCE: &[u8] = b"sequence";
const KEY_STAMP_MAX: &[u8] = b"stamp-max";
const KEY_SERVER_DUID: &[u8] = b"server-duid";

/// The small things that are kept beside the bindings.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Meta {
    pub(crate) store_id: [u8; 16],
    pub(crate) hash_key: [u8; 16],
    /// The journal sequence that the bindings are complete up to.
    pub(crate) sequence: u64,
    /// The largest stamp there ever was.
    pub(crate) stamp_max: u64,
    pub(crate) server_duid: Option<Vec<u8>>,
}

/// A tombstone: which lease and with what stamp.
pub(crate) type Tombstone = (Key, u64);

/// What a checkpoint has done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    pub(crate) records: u64,
    /// Tombstones that the next checkpoint may delete.
    pub(crate) tombstones: Vec<Tombstone>,
}

/// A value as it was read.
pub(crate) enum Value {
    Record(Box<Record>),
    Bad(String),
}

/// An LMDB environment.
pub(crate) struct Lmdb {
    path: PathBuf,
    map_len: usize,
    read_only: bool,
    /// Closed after an error that LMDB does not get over by itself.
    open: Option<Arc<Open>>,
    /// The data file after each transaction, where a test asks for it: a power cut falls into one of
    /// them, or between two.
    #[cfg(test)]
    pub(crate) images: Option<Vec<Vec<u8>>>,
}

/// Reads the bindings from any thread, beside other readers. While there is one nothing may be
/// written: a write may have to grow the map, or to close the environment, under its reader.
#[derive(Clone)]
pub(crate) struct View {
    path: PathBuf,
    open: Arc<Open>,
}

/// Where bindings are read from in the order of their keys.
pub(crate) trait Source {
    /// How many bindings there are.
    fn count(&mut self) -> Result<u64, StoreError>;

    /// Up to `limit` bindings with keys behind `after`, by ascending key. A transaction of its own,
    /// so that a slow reader does not keep LMDB from using pages again.
    fn chunk(&mut self, after: Option<&[u8]>, limit: usize) -> Result<Vec<Item>, StoreError>;
}

/// A key and what stands under it.
pub(crate) type Item = (Vec<u8>, Value);

struct Open {
    env: Environment,
    bindings: Database,
    meta: Database,
}

impl Lmdb {
    /// Opens the environment in `path`, or makes one whose identity comes from `seed`. Tells whether
    /// it was made.
    pub(crate) fn open(
        path: PathBuf,
        map_len: usize,
        seed: &[u8; 32],
    ) -> Result<(Self, Meta, bool), StoreError> {
        let mut lmdb = Self::closed(path, map_len, false);
        let created = lmdb.create_meta(seed)?;
        let meta = lmdb.meta()?;
        Ok((lmdb, meta, created))
    }

    /// Opens an environment that another process may be writing.
    pub(crate) fn open_read_only(path: PathBuf) -> Result<(Self, Meta), StoreError> {
        let mut lmdb = Self::closed(path, 0, true);
        let meta = lmdb.meta()?;
        Ok((lmdb, meta))
    }

    fn closed(path: PathBuf, map_len: usize, read_only: bool) -> Self {
        Self {
            path,
            map_len,
            read_only,
            open: None,
            #[cfg(test)]
            images: None,
        }
    }

    /// Reads what is kept beside the bindings.
    pub(crate) fn meta(&mut self) -> Result<Meta, StoreError> {
        let path = self.path.clone();
        self.read("reading the meta data", |open, txn| {
            let corrupt = |what: String| StoreError::Corrupt { path: path.clone(), what };
            let number = |key| -> Result<Option<u64>, StoreError> {
                let Some(value) = get_meta(txn, open.meta, key).map_err(&corrupt)? else {
                    return Ok(None);
                };
                let octets = value.try_into().map_err(|_| corrupt(format!("bad {}", name(key))))?;
                Ok(Some(u64::from_le_bytes(octets)))
            };
            let id = |key| -> Result<[u8; 16], StoreError> {
                get_meta(txn, open.meta, key)
                    .map_err(&corrupt)?
                    .and_then(|value| value.try_into().ok())
                    .ok_or_else(|| corrupt(format!("the meta data have no {}", name(key))))
            };
            let format = number(KEY_FORMAT)?;
            if format != Some(u64::from(FORMAT)) {
                let format = format.map_or_else(|| "none".to_owned(), |f| f.to_string());
                return Err(corrupt(format!(
                    "store format {format}; this program reads format {FORMAT}: use the version \
                     that wrote it"
                )));
            }
            Ok(Meta {
                store_id: id(KEY_STORE_ID)?,
                hash_key: id(KEY_HASH_KEY)?,
                sequence: number(KEY_SEQUENCE)?.unwrap_or(0),
                stamp_max: number(KEY_STAMP_MAX)?.unwrap_or(0),
                server_duid: get_meta(txn, open.meta, KEY_SERVER_DUID).map_err(&corrupt)?,
            })
        })
    }

    /// Stores the server's DUID.
    pub(crate) fn put_server_duid(&mut self, duid: &[u8]) -> Result<(), StoreError> {
        self.update("storing the server DUID", |open, txn| {
            put(txn, open.meta, KEY_SERVER_DUID, duid)
        })
    }

    /// Writes a checkpoint: `entries` by ascending key where they are newer than what is there, then
    /// the removal of `tombstones` that still stand, then the sequence.
    ///
    /// That takes several transactions, so that neither the processor nor the disk is kept from the
    /// journal for long. The last one alone records the sequence: until then the journal is replayed
    /// over what the others have brought, which changes nothing (the larger stamp wins). `rest` is
    /// called between two transactions with the number of entries that are written and the time that
    /// the last of them took, and tells how to go on.
    pub(crate) fn write(
        &mut self,
        entries: &[Entry<'_>],
        tombstones: &[Tombstone],
        sequence: u64,
        stamp_max: u64,
        mut urgency: Urgency,
        mut rest: impl FnMut(usize, Duration) -> Urgency,
    ) -> Result<Written, StoreError> {
        const WHAT: &str = "writing a checkpoint";
        let mut written = Written::default();
        let mut left = entries;
        while left.len() > urgency.entries_per_transaction() {
            let (chunk, later) = left.split_at(urgency.entries_per_transaction());
            let begun = Instant::now();
            let part = self.update(WHAT, |open, txn| put_entries(open, txn, chunk, urgency))?;
            written.records += part.records;
            written.tombstones.extend(part.tombstones);
            left = later;
            urgency = rest(entries.len() - left.len(), begun.elapsed());
        }
        let part = self.update(WHAT, |open, txn| {
            let part = put_entries(open, txn, left, urgency)?;
            for (key, stamp) in tombstones {
                if stamp_of(txn, open.bindings, key)? == Some(*stamp) {
                    txn.del(open.bindings, key, None)?;
                }
            }
            put(txn, open.meta, KEY_SEQUENCE, &sequence.to_le_bytes())?;
            put(txn, open.meta, KEY_STAMP_MAX, &stamp_max.to_le_bytes())?;
            Ok(part)
        })?;
        written.records += part.records;
        written.tombstones.extend(part.tombstones);
        Ok(written)
    }

    /// A reader for other threads; see [`View`].
    pub(crate) fn view(&mut self) -> Result<View, StoreError> {
        self.opened()?;
        let open = self.open.as_ref().ok_or(StoreError::Misuse("the checkpoint is closed"))?;
        Ok(View { path: self.path.clone(), open: Arc::clone(open) })
    }

    /// Closes the environment; the next call opens it again.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }

    fn create_meta(&mut self, seed: &[u8; 32]) -> Result<bool, StoreError> {
        let (store_id, hash_key) = seed.split_at(16);
        self.update("making the meta data", |open, txn| {
            match txn.get(open.meta, &KEY_FORMAT) {
                Ok(_) => return Ok(false),
                Err(Error::NotFound) => {}
                Err(error) => return Err(error),
            }
            put(txn, open.meta, KEY_STORE_ID, store_id)?;
            put(txn, open.meta, KEY_HASH_KEY, hash_key)?;
            put(txn, open.meta, KEY_FORMAT, &u64::from(FORMAT).to_le_bytes())?;
            Ok(true)
        })
    }

    fn opened(&mut self) -> Result<&Open, StoreError> {
        if self.open.is_none() {
            let open = self.open_env().map_err(|e| checkpoint_error(&self.path, "opening", e))?;
            self.open = Some(Arc::new(open));
        }
        self.open.as_deref().ok_or(StoreError::Misuse("the checkpoint is closed"))
    }

    fn open_env(&self) -> Result<Open, Error> {
        let mut builder = Environment::new();
        builder.set_max_dbs(2);
        if self.read_only {
            builder.set_flags(EnvironmentFlags::READ_ONLY | EnvironmentFlags::NO_TLS);
            let env = builder.open(&self.path)?;
            let bindings = env.open_db(Some("bindings"))?;
            let meta = env.open_db(Some("meta"))?;
            return Ok(Open { env, bindings, meta });
        }
        // Commits are synchronous whatever the durability: the checkpoint runs beside the replies,
        // and after a power cut an unsynced LMDB may be lost as a whole, not only its end.
        builder.set_flags(EnvironmentFlags::NO_TLS);
        builder.set_map_size(self.map_len);
        let env = builder.open_with_permissions(&self.path, 0o600)?;
        let bindings = env.create_db(Some("bindings"), DatabaseFlags::empty())?;
        let meta = env.create_db(Some("meta"), DatabaseFlags::empty())?;
        Ok(Open { env, bindings, meta })
    }

    fn read<T>(
        &mut self,
        what: &'static str,
        work: impl FnOnce(&Open, &RoTransaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let path = self.path.clone();
        let open = self.opened()?;
        let txn = match open.env.begin_ro_txn() {
            // The writer has grown the map: take its size over. No transaction is open here, since
            // each one lives inside this function.
            Err(Error::MapResized) => {
                open.env.set_map_size(0).and_then(|()| open.env.begin_ro_txn())
            }
            other => other,
        };
        work(open, &txn.map_err(|error| checkpoint_error(&path, what, error))?)
    }

    /// Runs `work` in a write transaction and commits it; with a larger map once more if the map is
    /// full.
    fn update<T>(
        &mut self,
        what: &'static str,
        work: impl Fn(&Open, &mut RwTransaction<'_>) -> Result<T, Error>,
    ) -> Result<T, StoreError> {
        loop {
            let open = self.opened()?;
            let result = open.env.begin_rw_txn().and_then(|mut txn| {
                let done = work(open, &mut txn)?;
                txn.commit()?;
                Ok(done)
            });
            match result {
                Ok(done) => {
                    #[cfg(test)]
                    if let Some(images) = &mut self.images {
                        images.push(std::fs::read(self.path.join("data.mdb")).unwrap_or_default());
                    }
                    return Ok(done);
                }
                Err(Error::MapFull) if self.map_len < usize::MAX / 2 => {
                    let map_len = self.map_len * 2;
                    self.map_len = map_len;
                    // The transaction is gone by now, as `set_map_size` demands.
                    if let Err(error) = self.opened()?.env.set_map_size(map_len) {
                        return Err(checkpoint_error(&self.path, "growing the map", error));
                    }
                    tracing::warn!(
                        octets = self.map_len,
                        "the checkpoint's map was full and has grown"
                    );
                }
                Err(error) => {
                    // A failed write of a meta page leaves LMDB unusable until it is opened again.
                    self.close();
                    return Err(checkpoint_error(&self.path, what, error));
                }
            }
        }
    }
}

impl Source for Lmdb {
    fn count(&mut self) -> Result<u64, StoreError> {
        self.read("counting", |open, txn| Ok(count(open, txn)))
    }

    fn chunk(&mut self, after: Option<&[u8]>, limit: usize) -> Result<Vec<Item>, StoreError> {
        let path = self.path.clone();
        self.read(READING, |open, txn| chunk(&path, open, txn, after, limit))
    }
}

impl View {
    /// What stands under a key.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        self.read(|txn| match txn.get(self.open.bindings, key) {
            Ok(value) => Ok(Some(decode(key, value))),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(checkpoint_error(&self.path, READING, error)),
        })
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&RoTransaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let txn = self.open.env.begin_ro_txn();
        work(&txn.map_err(|error| checkpoint_error(&self.path, READING, error))?)
    }
}

impl Source for View {
    fn count(&mut self) -> Result<u64, StoreError> {
        self.read(|txn| Ok(count(&self.open, txn)))
    }

    fn chunk(&mut self, after: Option<&[u8]>, limit: usize) -> Result<Vec<Item>, StoreError> {
        self.read(|txn| chunk(&self.path, &self.open, txn, after, limit))
    }
}

fn count(open: &Open, txn: &RoTransaction<'_>) -> u64 {
    txn.stat(open.bindings).map_or(0, |stat| stat.entries() as u64)
}

fn chunk(
    path: &Path,
    open: &Open,
    txn: &RoTransaction<'_>,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Item>, StoreError> {
    let fail = |error| checkpoint_error(path, READING, error);
    let mut cursor = txn.open_ro_cursor(open.bindings).map_err(fail)?;
    let items = match after {
        Some(key) => cursor.iter_from(key),
        None => cursor.iter_start(),
    };
    let mut out = Vec::with_capacity(limit);
    for item in items {
        let (key, value) = item.map_err(fail)?;
        // `iter_from` on a key behind the last one begins anywhere.
        if after.is_some_and(|after| key <= after) {
            continue;
        }
        out.push((key.to_vec(), decode(key, value)));
        if out.len() == limit {
            break;
        }
    }
    Ok(out)
}

fn checkpoint_error(path: &Path, what: &'static str, error: Error) -> StoreError {
    let reason = match error {
        // What it makes of a write that the system cut short (`mdb_page_flush`).
        Error::Other(libc::EIO) => {
            "the disk has no room for all of it, or cannot be written (EIO)".to_owned()
        }
        Error::Other(code) => std::io::Error::from_raw_os_error(code).to_string(),
        other => other.to_string(),
    };
    StoreError::Checkpoint { what, path: path.to_owned(), reason }
}

fn name(key: &[u8]) -> &str {
    std::str::from_utf8(key).unwrap_or("?")
}

/// Puts what is newer than what is there.
fn put_entries(
    open: &Open,
    txn: &mut RwTransaction<'_>,
    entries: &[Entry<'_>],
    urgency: Urgency,
) -> Result<Written, Error> {
    let mut written = Written::default();
    let turn = urgency.entries_per_turn();
    for (index, entry) in entries.iter().enumerate() {
        if turn.is_some_and(|turn| index % turn == 0) {
            priority::give_way();
        }
        let old = stamp_of(txn, open.bindings, &entry.key)?;
        if old.is_some_and(|old| old > entry.stamp) {
            continue;
        }
        // Equal where an earlier attempt came this far: its tombstones are still to be reported.
        if old != Some(entry.stamp) {
            put(txn, open.bindings, &entry.key, entry.record)?;
            written.records += 1;
        }
        if entry.tombstone {
            written.tombstones.push((entry.key, entry.stamp));
        }
    }
    Ok(written)
}

fn put(txn: &mut RwTransaction<'_>, db: Database, key: &[u8], octets: &[u8]) -> Result<(), Error> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), octets);
    let (place, tail) = txn
        .reserve(db, &key, octets.len() + CRC_LEN, WriteFlags::empty())?
        .split_at_mut(octets.len());
    place.copy_from_slice(octets);
    tail.copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// The value without its CRC, if that is right.
fn checked<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (octets, crc) = value.split_last_chunk::<CRC_LEN>()?;
    let expected = crc32c::crc32c_append(crc32c::crc32c(key), octets);
    (expected == u32::from_le_bytes(*crc)).then_some(octets)
}

fn decode(key: &[u8], value: &[u8]) -> Value {
    let Some(octets) = checked(key, value) else {
        return Value::Bad("its checksum is wrong".to_owned());
    };
    match Record::decode(octets) {
        Ok(record) if crate::pending::key(&record.binding.lease) == *key => {
            Value::Record(Box::new(record))
        }
        Ok(record) => Value::Bad(format!("its record is of {}", record.binding.lease)),
        Err(error) => Value::Bad(RecordError::to_string(&error)),
    }
}

/// The stamp of what is stored; `None` also for what cannot be read, which a new record replaces.
fn stamp_of(txn: &RwTransaction<'_>, db: Database, key: &Key) -> Result<Option<u64>, Error> {
    match txn.get(db, key) {
        Ok(value) => Ok(checked(key, value)
            .and_then(|octets| Head::read(octets).ok())
            .map(|head| head.stamp)),
        Err(Error::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

fn get_meta(txn: &RoTransaction<'_>, db: Database, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
    match txn.get(db, &key) {
        Ok(value) => checked(key, value)
            .map(|octets| Some(octets.to_vec()))
            .ok_or_else(|| format!("the checksum of {} is wrong", name(key))),
        Err(Error::NotFound) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        pending::Pending,
        testing::{self, binding},
    };

    fn fill(pending: &mut Pending, numbers: std::ops::Range<u32>, stamp: u64) {
        for number in numbers {
            pending.absorb(1, &testing::record(&binding(number, 14), stamp));
        }
    }

    fn calm(_: usize, _: Duration) -> Urgency {
        Urgency::Calm
    }

    fn read_all(lmdb: &mut Lmdb, limit: usize) -> Vec<(Vec<u8>, Value)> {
        let mut all: Vec<(Vec<u8>, Value)> = Vec::new();
        loop {
            let chunk = lmdb.chunk(all.last().map(|(key, _)| key.as_slice()), limit).unwrap();
            if chunk.is_empty() {
                return all;
            }
            all.extend(chunk);
        }
    }

    #[test]
    fn a_full_map_grows_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let (mut lmdb, meta, created) =
            Lmdb::open(dir.path().to_owned(), 256 << 10, &[3; 32]).unwrap();
        assert!(created);
        assert_eq!((meta.store_id, meta.sequence), ([3; 16], 0));
        let mut pending = Pending::default();
        fill(&mut pending, 0..5000, 9);
        let written = lmdb.write(&pending.sorted(), &[], 12, 9, Urgency::Calm, calm).unwrap();
        assert_eq!(written.records, 5000);
        assert!(lmdb.map_len > 256 << 10);
        let all = read_all(&mut lmdb, 17);
        assert_eq!(all.len(), 5000);
        assert!(all.windows(2).all(|w| w[0].0 < w[1].0));
        assert!(all.iter().all(|(_, value)| matches!(value, Value::Record(r) if r.stamp == 9)));
        drop(lmdb);
        let (_, meta, created) = Lmdb::open(dir.path().to_owned(), 256 << 10, &[4; 32]).unwrap();
        assert!(!created);
        assert_eq!((meta.store_id, meta.sequence, meta.stamp_max), ([3; 16], 12, 9));
    }

    #[test]
    fn an_older_stamp_and_a_replaced_tombstone_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (mut lmdb, ..) = Lmdb::open(dir.path().to_owned(), 1 << 20, &[3; 32]).unwrap();
        let mut pending = Pending::default();
        fill(&mut pending, 0..2, 5);
        lmdb.write(&pending.sorted(), &[], 1, 5, Urgency::Calm, calm).unwrap();
        let mut older = Pending::default();
        fill(&mut older, 0..2, 4);
        let tombstones = [(pending.sorted()[0].key, 4), (pending.sorted()[1].key, 5)];
        let written = lmdb.write(&older.sorted(), &tombstones, 2, 5, Urgency::Calm, calm).unwrap();
        assert_eq!(written.records, 0);
        let all = read_all(&mut lmdb, 10);
        assert_eq!(all.len(), 1, "only the tombstone that still stood is gone");
        assert!(matches!(&all[0].1, Value::Record(r) if r.stamp == 5));
    }
}
