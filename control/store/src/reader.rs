//! Reading a store without owning it.

use std::{
    io,
    path::{Path, PathBuf},
};

use gemel_lease::{BindingStatus, Record};

use crate::{
    Restored, StoreError,
    disk::{Disk, mapped::MappedDisk},
    format::{self, SECTOR, SegmentHeader},
    lmdb::{Lmdb, Meta},
    lock::Claim,
    merge::merge,
    pending::Pending,
    recovery,
};

/// Reads the bindings of a store, also beside a running server. It changes no data; LMDB notes
/// readers in its lock file, so it needs the right to write there.
pub struct Reader {
    dir: PathBuf,
    lmdb: Lmdb,
    meta: Meta,
    _claim: Claim,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Reader {
    /// Opens the store in `dir` for reading.
    ///
    /// # Errors
    /// [`StoreError::Io`] if there is no store; [`StoreError::InUse`] if this very process has the
    /// store open (LMDB cannot be opened twice in one process); [`StoreError::Corrupt`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let claim = Claim::new(dir)?;
        let data = dir.join("checkpoint").join("data.mdb");
        std::fs::metadata(&data).map_err(|source| StoreError::Io {
            what: "there is no store here: cannot find",
            path: data.clone(),
            source,
        })?;
        let (lmdb, meta) = Lmdb::open_read_only(dir.join("checkpoint"))?;
        Ok(Self { dir: dir.to_owned(), lmdb, meta, _claim: claim })
    }

    /// Hands out every binding once, by address, tombstones left out, until `each` returns false.
    ///
    /// Beside a running server this is no snapshot: each binding is as it was at some moment of the
    /// call.
    ///
    /// # Errors
    /// [`StoreError::Checkpoint`], [`StoreError::Io`].
    pub fn for_each(
        &mut self,
        mut each: impl FnMut(Record) -> bool,
    ) -> Result<Restored, StoreError> {
        // The journal first: what the checkpoint takes over meanwhile is found there afterwards.
        self.meta = self.lmdb.meta()?;
        let pending = self.journal()?;
        let mut seen = 0;
        let mut restored = merge(
            &mut self.lmdb,
            &pending.sorted(),
            &mut Vec::new(),
            |record| {
                if record.binding.status == BindingStatus::Free {
                    return true;
                }
                seen += 1;
                each(record)
            },
            |_, _| {},
        )?;
        restored.records = seen;
        restored.stamp_max = restored.stamp_max.max(pending.stamp_max).max(self.meta.stamp_max);
        restored.bad_count += pending.bad_records;
        Ok(restored)
    }

    /// The server's DUID, if one is stored.
    #[must_use]
    pub fn server_duid(&self) -> Option<&[u8]> {
        self.meta.server_duid.as_deref()
    }

    /// The updates in the journal that the checkpoint lacks. A writer may be at work: what is not
    /// whole is left out.
    fn journal(&self) -> Result<Pending, StoreError> {
        let disk = MappedDisk::existing(self.dir.join("journal"));
        let fail = |what, id, source| StoreError::Io { what, path: disk.path(id), source };
        let ids = match disk.list() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(|e| fail("cannot list the folder of", 0, e))?,
        };
        let mut segments = Vec::new();
        for id in ids {
            let (reader, len) = match disk.reader(id) {
                // Removed meanwhile: the checkpoint has it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|e| fail("cannot open the journal segment", id, e))?,
            };
            let head = recovery::read_all(&disk, id, &reader, SECTOR.min(len))?;
            if let Ok(header) = SegmentHeader::decode(&head)
                && header.store_id == self.meta.store_id
            {
                segments.push((header, id, reader, len));
            }
        }
        segments.sort_by_key(|(header, ..)| std::cmp::Reverse(header.generation));
        let mut pending = Pending::default();
        let mut limit = u64::MAX;
        for (header, id, reader, len) in segments {
            let counts = |batch: &format::BatchHeader| {
                batch.generation == header.generation
                    && batch.sequence > self.meta.sequence
                    && (header.first_sequence..limit).contains(&batch.sequence)
            };
            if limit > self.meta.sequence + 1 {
                let image = recovery::read_all(&disk, id, &reader, len)?;
                let salt = format::salt(&self.meta.store_id);
                for (_, batch, payload) in format::batches(&image, salt, counts) {
                    pending.absorb(batch.sequence, payload);
                }
            }
            limit = limit.min(header.first_sequence);
        }
        Ok(pending)
    }
}
