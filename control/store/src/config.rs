//! What a caller decides about a store.

use std::{path::PathBuf, time::Duration};

/// Octets of a journal segment unless told otherwise.
pub const SEGMENT_LEN_DEFAULT: usize = 64 << 20;

/// What an acknowledged update survives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// A power cut: each commit waits for the disk.
    PowerLoss,
    /// A killed process: commits leave the data to the kernel's page cache. After a power cut the
    /// last seconds of updates may be missing.
    Process,
}

/// Settings of a [`Store`](crate::Store).
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The store's folder; created if it is not there. It should be on a file system that writes in
    /// place (ext4, XFS): the journal relies on space that is reserved beforehand.
    pub dir: PathBuf,
    /// What an acknowledged update survives.
    pub durability: Durability,
    /// Octets of a journal segment, rounded up to whole pages.
    pub segment_len: usize,
    /// The journal grows to this many segments; then appending waits for the checkpoint
    /// ([`StoreError::JournalFull`](crate::StoreError::JournalFull)). At least 3.
    pub segments_max: usize,
    /// Octets of address space for LMDB. Only what is used takes space on the disk; it doubles by
    /// itself when it is used up.
    pub map_len: usize,
    /// A checkpoint is written once so many updates have come. It never lacks more than three times as
    /// many, bar one commit: then appending waits...
    pub checkpoint_leases: usize,
    /// ...or the oldest change that is not in it is this old.
    pub checkpoint_interval: Duration,
    /// How long the record of a freed lease is kept at least, so that an older update of it that a
    /// worker hands over late does not bring the lease back.
    pub tombstone_age: Duration,
    /// Random octets from which a new store takes its id and its hash key. A store that exists
    /// keeps what it has.
    pub seed: [u8; 32],
    /// Open the store although acknowledged updates are missing from the journal
    /// ([`StoreError::Hole`](crate::StoreError::Hole)): an operator's decision.
    pub accept_loss: bool,
}

impl StoreConfig {
    /// The defaults for a store in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, durability: Durability, seed: [u8; 32]) -> Self {
        Self {
            dir: dir.into(),
            durability,
            segment_len: SEGMENT_LEN_DEFAULT,
            segments_max: 16,
            map_len: if cfg!(target_pointer_width = "64") { 64 << 30 } else { 512 << 20 },
            checkpoint_leases: 500_000,
            checkpoint_interval: Duration::from_secs(30),
            tombstone_age: Duration::from_secs(60),
            seed,
            accept_loss: false,
        }
    }
}
