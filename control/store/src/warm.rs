//! Handing out the bindings while the store is already written to.
//!
//! After a start the lease table is empty, and with millions of bindings it takes seconds to fill
//! it. Meanwhile updates can be appended and committed, and single bindings can be recalled. No
//! checkpoint is written before the end: what is handed out comes from LMDB and from what the
//! journal added to it before the start, and both must stand still for that. What is appended
//! meanwhile is not handed out; whoever appends it has it already.

use std::{fmt, sync::Arc};

use gemel_lease::{Lease, Record};
use parking_lot::RwLock;

use crate::{
    Progress, Restored, StoreError,
    checkpoint::Checkpointer,
    disk::mapped::MappedDisk,
    lmdb::View,
    merge::{merge, newest},
    pending::{self, Pending},
};

/// What the bindings are read from until the end of the warm-up.
struct Sources {
    view: View,
    pending: Arc<Pending>,
}

/// Finds single bindings during a [`WarmUp`], from any thread. After its end nothing is found.
#[derive(Clone)]
pub struct Recall(Arc<RwLock<Option<Sources>>>);

/// Bindings that are being handed out; see [`crate::Store::warm_up`].
///
/// It holds the checkpoint open: drop it before the store is opened again.
pub struct WarmUp {
    recall: Recall,
    checkpointer: Checkpointer<MappedDisk>,
}

impl fmt::Debug for Recall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recall").finish_non_exhaustive()
    }
}

impl fmt::Debug for WarmUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WarmUp").finish_non_exhaustive()
    }
}

impl Recall {
    /// Hands the record that was stored last for the lease before the start to `take`, be it a
    /// tombstone (status Free). False if there is none that can be read, or if the warm-up has
    /// ended.
    ///
    /// The warm-up does not end before `take` returns: what `take` puts into the lease table is there
    /// before anything can be done that only a full table allows.
    ///
    /// # Errors
    /// [`StoreError::Checkpoint`].
    pub fn find(&self, lease: Lease, take: impl FnOnce(Record)) -> Result<bool, StoreError> {
        let sources = self.0.read();
        let Some(Sources { view, pending }) = &*sources else { return Ok(false) };
        let key = pending::key(&lease);
        let Some(record) = newest(view.get(&key)?, pending.get(&key)) else { return Ok(false) };
        take(record);
        Ok(true)
    }
}

impl WarmUp {
    pub(crate) fn new(mut checkpointer: Checkpointer<MappedDisk>) -> Result<Self, StoreError> {
        let view = checkpointer.view()?;
        let pending = Arc::new(checkpointer.take_pending());
        let recall = Recall(Arc::new(RwLock::new(Some(Sources { view, pending }))));
        Ok(Self { recall, checkpointer })
    }

    /// Finds single bindings meanwhile.
    #[must_use]
    pub fn recall(&self) -> Recall {
        self.recall.clone()
    }

    /// The largest stamp that is known to have been stored: new stamps begin behind it. After the
    /// power has failed in [`crate::Durability::Process`] the checkpoint may hold larger ones, so a
    /// lease is not to be changed before its own record has been handed out.
    #[must_use]
    pub fn stamp_max(&self) -> u64 {
        let sources = self.recall.0.read();
        sources.as_ref().map_or(0, |sources| sources.pending.stamp_max)
    }

    /// Hands out every binding once, by address, each as it was last stored before the start, until
    /// `each` returns false. Tombstones (status Free) are handed out too.
    ///
    /// # Errors
    /// [`StoreError::Checkpoint`].
    pub fn restore(
        &mut self,
        each: impl FnMut(Record) -> bool,
        mut progress: impl FnMut(Progress),
    ) -> Result<Restored, StoreError> {
        let (mut view, pending) = {
            let sources = self.recall.0.read();
            let Some(Sources { view, pending }) = &*sources else {
                return Err(StoreError::Misuse("the warm-up has ended"));
            };
            (view.clone(), Arc::clone(pending))
        };
        let mut tombstones = Vec::new();
        let mut restored =
            merge(&mut view, &pending.sorted(), &mut tombstones, each, |done, total| {
                progress(Progress::Restore { done, total });
            })?;
        restored.stamp_max = restored.stamp_max.max(pending.stamp_max);
        self.checkpointer.bury(tombstones);
        Ok(restored)
    }

    /// Ends it: from now on nothing is recalled, and LMDB may be written.
    pub(crate) fn end(self) -> Checkpointer<MappedDisk> {
        let Self { recall, mut checkpointer } = self;
        // Waits for those who have just found something.
        let sources = recall.0.write().take();
        if let Some(Sources { view, pending }) = sources {
            drop(view);
            // Nobody else has it: it is only shared under the lock, and by `restore` until it ends.
            checkpointer.give_pending(Arc::unwrap_or_clone(pending));
        }
        checkpointer
    }
}
