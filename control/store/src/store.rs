//! The store as the control thread sees it.

use std::{fs, path::Path, sync::Arc, thread::JoinHandle, time::Duration};

use gemel_lease::{Lease, Record};
use parking_lot::Mutex;

use crate::{
    StoreConfig, StoreError,
    checkpoint::{Checkpointer, Pace},
    disk::mapped::{MappedDisk, sync_dir},
    journal::Journal,
    lmdb::{Lmdb, Meta},
    lock::Lock,
    pace, recovery,
    row::Row,
    warm::WarmUp,
};

/// The smallest segment that makes sense, octets.
const SEGMENT_LEN_MIN: usize = 64 << 10;
/// Offsets in a segment must fit into 32 bits.
const SEGMENT_LEN_MAX: usize = 2 << 30;
const PAGE: usize = 4096;
/// How long appending waits for a checkpoint that does not get on.
const LAG_PATIENCE: Duration = Duration::from_secs(1);
/// One being filled, one at the checkpoint, one ready.
const SEGMENTS_MIN: usize = 3;

/// How far opening or restoring has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// Reading the journal.
    Replay {
        /// Segments read.
        done: usize,
        /// Segments there are.
        total: usize,
    },
    /// Handing out bindings.
    Restore {
        /// Bindings handed out.
        done: u64,
        /// Bindings there are, about.
        total: u64,
    },
}

/// What opening a store found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Recovery {
    /// The store was made by this call.
    pub created: bool,
    /// The journal sequence that the checkpoint held.
    pub checkpoint: u64,
    /// Batches replayed from the journal.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Records that could not be read, with the reason of the first.
    pub bad_records: u64,
    /// What the first bad record was.
    pub first_bad: Option<String>,
    /// Sequences that are missing and were accepted as lost.
    pub lost: u64,
}

/// What [`Store::restore`] has handed out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Restored {
    /// Records handed out, tombstones included.
    pub records: u64,
    /// Records of the checkpoint that could not be read, 10,000 at most. What the store knew of
    /// these leases is lost, so they should not be given to anybody before an operator has looked.
    pub bad: Vec<BadRecord>,
    /// How many there were.
    pub bad_count: u64,
    /// The largest stamp that was ever stored: new stamps begin behind it.
    pub stamp_max: u64,
}

/// A record that could not be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadRecord {
    /// The lease it is stored under, if that makes sense.
    pub lease: Option<Lease>,
    /// What is wrong with it.
    pub reason: String,
}

/// Figures for counters and the status page.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Status {
    /// The last sequence that is durable.
    pub durable: u64,
    /// The last sequence that the checkpoint holds.
    pub checkpoint: u64,
    /// Commits since the start.
    pub commits: u64,
    /// Commits that failed.
    pub commit_failures: u64,
    /// Records appended.
    pub records: u64,
    /// Octets appended.
    pub octets: u64,
    /// Journal segments on disk.
    pub segments: usize,
    /// Segments that hold what is not in the checkpoint yet.
    pub segments_used: usize,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Checkpoints that failed.
    pub checkpoint_failures: u64,
    /// Records written to the checkpoint.
    pub checkpoint_records: u64,
    /// Records that the checkpoint lacks: what a restart would replay.
    pub lag: u64,
    /// Times that appending has waited for the checkpoint, because a restart would have had too much
    /// to replay.
    pub lag_waits: u64,
    /// How long the last checkpoint took, microseconds.
    pub checkpoint_last_us: u64,
    /// What went wrong last and has not gone well since.
    pub error: Option<String>,
}

/// Reads a store's [`Status`] from any thread.
#[derive(Clone)]
pub struct Monitor(Arc<Row<MappedDisk>>);

impl Monitor {
    /// The figures now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.lock().status.clone()
    }
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Monitor").field(&self.status()).finish()
    }
}

/// An open store. The control thread owns it.
pub struct Store {
    journal: Journal<MappedDisk>,
    row: Arc<Row<MappedDisk>>,
    lmdb: Arc<Mutex<Lmdb>>,
    meta: Meta,
    recovery: Recovery,
    /// Until its thread is started.
    checkpointer: Option<Checkpointer<MappedDisk>>,
    /// Between [`Store::warm_up`] and [`Store::end_warm_up`].
    warming: bool,
    /// Records that the checkpoint may lack before appending waits for it.
    backlog_max: u64,
    /// The step of the checkpoint at which waiting has not helped.
    stuck_at: Option<u64>,
    threads: Vec<JoinHandle<()>>,
    // Behind everything that it protects.
    _lock: Lock,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("status", &self.row.lock().status).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store, or makes one, and reads the journal behind the checkpoint.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Hole`], [`StoreError::Corrupt`] and what the disk says.
    pub fn open(config: StoreConfig, progress: impl FnMut(Progress)) -> Result<Self, StoreError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { what, path, source }
        };
        let dir = &config.dir;
        let checkpoint_dir = dir.join("checkpoint");
        fs::create_dir_all(&checkpoint_dir).map_err(io("cannot make", &checkpoint_dir))?;
        let lock = Lock::take(dir)?;
        let (lmdb, meta, created) =
            Lmdb::open(checkpoint_dir.clone(), config.map_len, &config.seed)?;
        let journal_dir = dir.join("journal");
        let disk =
            MappedDisk::open(journal_dir.clone()).map_err(io("cannot open", &journal_dir))?;
        // LMDB syncs its files, but not their names.
        for folder in [&checkpoint_dir, dir].into_iter().map(|p| p.as_path()).chain(dir.parent()) {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            sync_dir(folder).map_err(io("cannot sync the folder", folder))?;
        }
        let segment_len =
            config.segment_len.clamp(SEGMENT_LEN_MIN, SEGMENT_LEN_MAX).next_multiple_of(PAGE);
        let recovered = recovery::recover(&disk, &config, segment_len, &meta, progress)?;
        let durable = recovered.state.durable;
        let segments_max = config.segments_max.max(SEGMENTS_MIN);
        let row = Row::new(disk, segment_len, segments_max, true, recovered.state);
        let lmdb = Arc::new(Mutex::new(lmdb));
        let journal = Journal::new(
            Arc::clone(&row),
            meta.store_id,
            config.durability,
            durable,
            recovered.next_generation,
        );
        let mut checkpointer = Checkpointer::new(
            Arc::clone(&row),
            Arc::clone(&lmdb),
            &meta.store_id,
            Pace {
                leases: config.checkpoint_leases.max(1),
                interval: config.checkpoint_interval,
                tombstone_age: config.tombstone_age,
            },
            recovered.pending,
            meta.sequence,
            durable,
        );
        if recovered.report.lost > 0 {
            // So that the gap is not found again.
            checkpointer.write()?;
        }
        let mut store = Self {
            journal,
            row,
            lmdb,
            meta,
            recovery: Recovery { created, ..recovered.report },
            checkpointer: Some(checkpointer),
            warming: false,
            backlog_max: pace::backlog_max(config.checkpoint_leases.max(1) as u64),
            stuck_at: None,
            threads: Vec::new(),
            _lock: lock,
        };
        // The first segment is ready before the first client waits for it. If the disk has no room
        // the server can still answer what needs no write; `append` will tell.
        store.row.prepare_once();
        let row = Arc::clone(&store.row);
        store.spawn("store-prepare", move || row.run_preparing())?;
        Ok(store)
    }

    /// What opening found.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Hands out every binding once, by address, each as it was last stored. Tombstones (status
    /// Free) are handed out too, since new stamps must be larger than theirs.
    ///
    /// # Errors
    /// Call it once, before the first append ([`StoreError::Misuse`]); [`StoreError::Checkpoint`].
    pub fn restore(
        &mut self,
        mut each: impl FnMut(Record),
        progress: impl FnMut(Progress),
    ) -> Result<Restored, StoreError> {
        let mut warm_up = self.warm_up()?;
        let all = |record| {
            each(record);
            true
        };
        let restored = match warm_up.restore(all, progress) {
            Ok(restored) => restored,
            Err(error) => {
                self.checkpointer = Some(warm_up.end());
                return Err(error);
            }
        };
        self.end_warm_up(warm_up)?;
        Ok(restored)
    }

    /// Begins to hand out the bindings while updates can already be appended. No checkpoint is
    /// written until [`Store::end_warm_up`]: a journal that is full before is reported as such.
    ///
    /// # Errors
    /// Call it once, before the first append ([`StoreError::Misuse`]); [`StoreError::Checkpoint`].
    pub fn warm_up(&mut self) -> Result<WarmUp, StoreError> {
        let Some(checkpointer) = self.checkpointer.take() else {
            return Err(StoreError::Misuse("bindings are restored once, before the first append"));
        };
        self.warming = true;
        WarmUp::new(checkpointer)
    }

    /// Ends the warm-up: waits until nobody recalls anything any more, and begins with checkpoints.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the checkpoint's thread cannot be started.
    pub fn end_warm_up(&mut self, warm_up: WarmUp) -> Result<(), StoreError> {
        self.checkpointer = Some(warm_up.end());
        self.warming = false;
        self.start_checkpoints()
    }

    /// The store's own id.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.meta.store_id
    }

    /// The key of the lease table's hashes, kept so that a client is sent to the same lease after
    /// a restart.
    #[must_use]
    pub fn hash_key(&self) -> [u8; 16] {
        self.meta.hash_key
    }

    /// The server's DUID, if one is stored (RFC 8415 section 11: it should not change).
    #[must_use]
    pub fn server_duid(&self) -> Option<&[u8]> {
        self.meta.server_duid.as_deref()
    }

    /// Stores the server's DUID; it is durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::Checkpoint`]; [`StoreError::Misuse`] during a warm-up.
    pub fn set_server_duid(&mut self, duid: &[u8]) -> Result<(), StoreError> {
        self.refuse_while_warming()?;
        self.lmdb.lock().put_server_duid(duid)?;
        self.meta.server_duid = Some(duid.to_vec());
        Ok(())
    }

    /// Puts a worker's updates ([`gemel_lease::UpdateBatch::as_bytes`]) into the batch that the next
    /// [`commit`](Self::commit) closes, and returns the sequence that holds them.
    ///
    /// Where the checkpoint is too far behind, the first append after a commit waits until it has caught
    /// up a little, some milliseconds: the time that a restart takes stays bounded.
    ///
    /// # Errors
    /// What was appended before still stands; of these updates a part may be stored, unacknowledged,
    /// so append them again, as a whole: [`StoreError::JournalFull`], [`StoreError::NoSpace`],
    /// [`StoreError::Io`]. Octets that are not records are refused as a whole:
    /// [`StoreError::NotRecords`].
    pub fn append(&mut self, updates: &[u8]) -> Result<u64, StoreError> {
        if self.checkpointer.is_some() {
            self.start_checkpoints()?;
        }
        self.wait_for_checkpoint();
        let appended = self.journal.append(updates);
        self.note(appended)
    }

    /// Makes everything appended durable and returns the last sequence: one sync of the disk for
    /// all of it, or none ([`crate::Durability::Process`]).
    ///
    /// # Errors
    /// [`StoreError::Sync`]: everything appended since the last successful commit is not stored and
    /// must be appended again, which goes to another segment.
    pub fn commit(&mut self) -> Result<u64, StoreError> {
        let committed = self.journal.commit();
        self.note(committed)
    }

    /// The last sequence that is durable.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.journal.durable()
    }

    /// After an error: whether the journal can store again. Writes and syncs an empty batch.
    ///
    /// # Errors
    /// As [`append`](Self::append) and [`commit`](Self::commit).
    pub fn retry(&mut self) -> Result<(), StoreError> {
        let probed = self.journal.probe();
        self.note(probed)
    }

    /// Writes what is durable into the checkpoint and waits for it.
    ///
    /// # Errors
    /// [`StoreError::Checkpoint`]; [`StoreError::Misuse`] during a warm-up.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.refuse_while_warming()?;
        self.start_checkpoints()?;
        let mut state = self.row.lock();
        let goal = state.durable;
        while state.checkpoint < goal {
            let round = state.checkpoint_rounds;
            state.checkpoint_wanted = Some(goal);
            self.row.checkpoint.notify_all();
            while state.checkpoint_rounds == round {
                if self.threads.iter().any(JoinHandle::is_finished) {
                    return Err(StoreError::Misuse("a thread of the store has ended"));
                }
                self.row.checkpoint.wait_for(&mut state, Duration::from_secs(1));
            }
            if let Some(reason) = state.checkpoint_error.clone() {
                return Err(StoreError::Checkpoint {
                    what: "writing a checkpoint",
                    path: self.row.disk.dir().to_owned(),
                    reason,
                });
            }
        }
        Ok(())
    }

    /// Figures for other threads.
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        Monitor(Arc::clone(&self.row))
    }

    /// Keeps what a restart would replay within bounds: beyond them, as much has to be written to the
    /// checkpoint as the last commit brought, before more is appended.
    fn wait_for_checkpoint(&mut self) {
        if self.warming || self.journal.is_open() {
            return;
        }
        let mut state = self.row.lock();
        let backlog = state.lag.backlog();
        // A checkpoint that is stuck is waited for once; the journal's own bound comes next.
        let stuck = self.stuck_at == Some(state.lag.steps());
        if backlog < self.backlog_max || stuck || state.checkpoint_error.is_some() {
            return;
        }
        state.status.lag_waits += 1;
        drop(state);
        let goal = backlog.saturating_sub(self.journal.records_committed()).max(self.backlog_max);
        self.stuck_at = self.row.wait_for_relief(goal, LAG_PATIENCE).err();
    }

    /// LMDB must stand still then.
    fn refuse_while_warming(&self) -> Result<(), StoreError> {
        if self.warming {
            return Err(StoreError::Misuse("nothing is checkpointed during a warm-up"));
        }
        Ok(())
    }

    fn start_checkpoints(&mut self) -> Result<(), StoreError> {
        let Some(checkpointer) = self.checkpointer.take() else { return Ok(()) };
        self.spawn("store-checkpoint", move || checkpointer.run())
    }

    fn spawn(
        &mut self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), StoreError> {
        let thread =
            std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|source| {
                StoreError::Io {
                    what: "cannot start a thread for",
                    path: self.row.disk.dir().to_owned(),
                    source,
                }
            })?;
        self.threads.push(thread);
        Ok(())
    }

    /// Keeps an error for the status.
    fn note<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result {
            self.row.lock().status.error = Some(error.to_string());
        }
        result
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.row.stop();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}
