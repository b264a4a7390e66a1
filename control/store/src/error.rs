//! What can go wrong, by what the caller does next.

use std::{io, path::PathBuf};

/// An error of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another server has the store open.
    #[error("the store {} is in use by process {}", dir.display(), pid.as_deref().unwrap_or("(unknown)"))]
    InUse {
        /// The store.
        dir: PathBuf,
        /// The process that has it, if it has said so.
        pid: Option<String>,
    },
    /// The checkpoint is behind by the whole journal: commit what is appended, answer nothing that
    /// needs a write, try again.
    #[error(
        "the journal is full: all {segments} segments wait for the checkpoint{}",
        checkpoint.as_ref().map(|e| format!(", which fails: {e}")).unwrap_or_default()
    )]
    JournalFull {
        /// How many segments there are.
        segments: usize,
        /// Why the checkpoint does not get on, if it fails.
        checkpoint: Option<String>,
    },
    /// The disk has no room for the next journal segment. Try again once there is.
    #[error("no room for {}: {needed} octets are needed; free space on that file system", path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// Its octets.
        needed: u64,
        /// What the system said.
        source: io::Error,
    },
    /// Updates appended since the last successful commit are not stored: append them again.
    #[error("writing the journal to {} failed; updates since sequence {durable} are not stored", path.display())]
    Sync {
        /// The segment, which is not used any further.
        path: PathBuf,
        /// The last sequence that is stored.
        durable: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be used.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// LMDB refused.
    #[error("checkpoint {}: {what}: {reason}", path.display())]
    Checkpoint {
        /// What was tried.
        what: &'static str,
        /// The environment's folder.
        path: PathBuf,
        /// What LMDB said.
        reason: String,
    },
    /// Acknowledged updates are missing from the journal. Starting without them could give a lease
    /// to a second client, so the operator decides (`accept_loss`).
    #[error(
        "the journal in {} lacks sequences {missing_first} to {missing_last}, which were stored once; \
         restore the folder from a copy, or accept the loss: leases granted in them could be granted again",
        dir.display()
    )]
    Hole {
        /// The journal's folder.
        dir: PathBuf,
        /// The first sequence that is missing.
        missing_first: u64,
        /// The last.
        missing_last: u64,
    },
    /// A file holds what this program did not write.
    #[error("{}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// The octets handed to [`append`](crate::Store::append) are not binding records.
    #[error("updates that are not binding records: {0}")]
    NotRecords(#[from] gemel_lease::RecordError),
    /// A call at the wrong moment.
    #[error("{0}")]
    Misuse(&'static str),
}

impl StoreError {
    /// Whether the store may work again by itself later, so that the caller goes on without writes
    /// and tries again ([`retry`](crate::Store::retry)).
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::JournalFull { .. }
                | Self::NoSpace { .. }
                | Self::Sync { .. }
                | Self::Io { .. }
                | Self::Checkpoint { .. }
        )
    }
}
