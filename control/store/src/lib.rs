//! Durable bindings: a journal with group commit in front of an LMDB checkpoint.
//!
//! The control thread appends the workers' updates to the journal and commits them; only then may
//! the replies that depend on them leave. A second thread follows the journal, keeps the newest
//! update of each lease and writes them in large sorted batches into LMDB, which records the journal
//! sequence that it holds. After a restart the journal behind that sequence is replayed.
//!
//! A store is a folder:
//!
//! | path | what |
//! |---|---|
//! | `lock` | held by the server that has the store open; names its process |
//! | `journal/<number>.seg` | the segments, see [`SEGMENT_LEN_DEFAULT`] |
//! | `checkpoint/` | the LMDB environment |
#![deny(unsafe_code)]

mod checkpoint;
mod config;
mod disk;
mod error;
mod format;
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod index;
mod journal;
mod lmdb;
mod lock;
mod merge;
mod pace;
mod pending;
#[cfg(test)]
mod power_cut;
mod priority;
mod reader;
mod recovery;
mod row;
mod sort;
mod store;
#[cfg(test)]
mod testing;
mod warm;

pub use config::{Durability, SEGMENT_LEN_DEFAULT, StoreConfig};
pub use error::StoreError;
pub use priority::stand_back;
pub use reader::Reader;
pub use store::{BadRecord, Monitor, Progress, Recovery, Restored, Status, Store};
pub use warm::{Recall, WarmUp};
