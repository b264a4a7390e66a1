//! The store as the control thread sees it.

use gemel_lease::Record;

use crate::{StoreConfig, StoreError};

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
    /// Records that could not be read, by key: lease and reason. At most 100 are kept.
    pub bad: Vec<String>,
    /// How many there were.
    pub bad_count: u64,
    /// The largest stamp that was ever stored: new stamps begin behind it.
    pub stamp_max: u64,
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
    /// How long the last checkpoint took, microseconds.
    pub checkpoint_last_us: u64,
    /// What went wrong last and has not gone well since.
    pub error: Option<String>,
}

/// Reads a store's [`Status`] from any thread.
#[derive(Clone, Debug)]
pub struct Monitor {}

impl Monitor {
    /// The figures now.
    #[must_use]
    pub fn status(&self) -> Status {
        todo!()
    }
}

/// An open store. The control thread owns it.
#[derive(Debug)]
pub struct Store {}

impl Store {
    /// Opens the store, or makes one, and reads the journal behind the checkpoint.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Hole`], [`StoreError::Corrupt`] and what the disk says.
    pub fn open(config: StoreConfig, progress: impl FnMut(Progress)) -> Result<Self, StoreError> {
        let _ = (config, progress);
        todo!()
    }

    /// What opening found.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        todo!()
    }

    /// Hands out every binding once, by address, each as it was last stored. Tombstones (status
    /// Free) are handed out too, since new stamps must be larger than theirs.
    ///
    /// # Errors
    /// Call it once, before the first append ([`StoreError::Misuse`]); [`StoreError::Checkpoint`].
    pub fn restore(
        &mut self,
        each: impl FnMut(Record),
        progress: impl FnMut(Progress),
    ) -> Result<Restored, StoreError> {
        let _ = (each, progress);
        todo!()
    }

    /// The store's own id.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        todo!()
    }

    /// The key of the lease table's hashes, kept so that a client is sent to the same lease after
    /// a restart.
    #[must_use]
    pub fn hash_key(&self) -> [u8; 16] {
        todo!()
    }

    /// The server's DUID, if one is stored (RFC 8415 section 11: it should not change).
    #[must_use]
    pub fn server_duid(&self) -> Option<&[u8]> {
        todo!()
    }

    /// Stores the server's DUID; it is durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::Checkpoint`].
    pub fn set_server_duid(&mut self, duid: &[u8]) -> Result<(), StoreError> {
        let _ = duid;
        todo!()
    }

    /// Puts a worker's updates ([`gemel_lease::UpdateBatch::as_bytes`]) into the batch that the next
    /// [`commit`](Self::commit) closes, and returns the sequence that holds them.
    ///
    /// # Errors
    /// What was appended before still stands; of these updates a part may be stored, unacknowledged,
    /// so append them again, as a whole: [`StoreError::JournalFull`], [`StoreError::NoSpace`],
    /// [`StoreError::Io`]. Octets that are not records are refused as a whole:
    /// [`StoreError::NotRecords`].
    pub fn append(&mut self, updates: &[u8]) -> Result<u64, StoreError> {
        let _ = updates;
        todo!()
    }

    /// Makes everything appended durable and returns the last sequence: one sync of the disk for
    /// all of it, or none ([`crate::Durability::Process`]).
    ///
    /// # Errors
    /// [`StoreError::Sync`]: everything appended since the last successful commit is not stored and
    /// must be appended again, which goes to another segment.
    pub fn commit(&mut self) -> Result<u64, StoreError> {
        todo!()
    }

    /// The last sequence that is durable.
    #[must_use]
    pub fn durable(&self) -> u64 {
        todo!()
    }

    /// After an error: whether the journal can store again. Writes and syncs an empty batch.
    ///
    /// # Errors
    /// As [`append`](Self::append) and [`commit`](Self::commit).
    pub fn retry(&mut self) -> Result<(), StoreError> {
        todo!()
    }

    /// Writes what is durable into the checkpoint and waits for it.
    ///
    /// # Errors
    /// [`StoreError::Checkpoint`].
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        todo!()
    }

    /// Figures for other threads.
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        todo!()
    }
}
