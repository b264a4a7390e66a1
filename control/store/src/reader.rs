//! Reading a store without owning it.

use std::path::Path;

use gemel_lease::Record;

use crate::{Restored, StoreError};

/// Reads the bindings of a store, also beside a running server. It changes nothing.
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// Opens the store in `dir` for reading.
    ///
    /// # Errors
    /// [`StoreError::Io`] if there is no store; [`StoreError::Misuse`] if this very process has the
    /// store open (LMDB cannot be opened twice in one process).
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let _ = dir;
        todo!()
    }

    /// Hands out every binding once, by address, tombstones left out, until `each` returns false.
    ///
    /// # Errors
    /// [`StoreError::Checkpoint`], [`StoreError::Io`].
    pub fn for_each(&self, each: impl FnMut(Record) -> bool) -> Result<Restored, StoreError> {
        let _ = each;
        todo!()
    }

    /// The server's DUID, if one is stored.
    #[must_use]
    pub fn server_duid(&self) -> Option<&[u8]> {
        todo!()
    }
}
