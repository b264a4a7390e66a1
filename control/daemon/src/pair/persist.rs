//! The failover state of a relationship on the disk: a small JSON file that is replaced as a whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use crossbeam::channel::{Receiver, Sender, bounded};
use gemel_failover::StoredState;
use gemel_worker::submit::Bell;
use tracing::warn;

/// Where the state of one relationship is kept.
#[derive(Clone, Debug)]
pub struct StateFile {
    folder: PathBuf,
    file: PathBuf,
    temporary: PathBuf,
}

impl StateFile {
    /// In the folder of the store, which one process has open at a time.
    #[must_use]
    pub fn new(store: &Path, relationship: &str) -> Self {
        let folder = store.join("failover");
        let file = folder.join(format!("{relationship}.json"));
        let temporary = folder.join(format!("{relationship}.json.new"));
        Self { folder, file, temporary }
    }

    /// What it holds; `None` if there is none, as before the first start. Where the store has just
    /// been made, what is left here belongs to a store that is gone: believed, it would let the
    /// server go on as if it knew all leases.
    ///
    /// # Errors
    /// If there is something that cannot be read: to go on without it could mean to give out leases
    /// that the partner has given out.
    pub fn load(&self, store_is_new: bool) -> Result<Option<StoredState>> {
        if store_is_new {
            if self.file.exists() {
                warn!(
                    file = %self.file.display(),
                    "the store is new: the failover state of an earlier one does not count, and all \
                     leases are fetched from the partner"
                );
            }
            return Ok(None);
        }
        let text = match fs::read(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", self.file.display()));
            }
        };
        serde_json::from_slice(&text).map(Some).with_context(|| {
            format!(
                "the failover state in {} cannot be read. If it is lost, remove the file: the \
                 server then starts like one that has lost its memory, fetches all leases from \
                 its partner and waits for the MCLT before it serves",
                self.file.display()
            )
        })
    }

    /// Replaces what it holds. When this returns, the new state is on the disk.
    ///
    /// # Errors
    /// If the disk does not take it; what was there before is still there.
    pub fn save(&self, state: &StoredState) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(state)?;
        text.push(b'\n');
        if !self.folder.is_dir() {
            fs::create_dir_all(&self.folder)?;
            if let Some(store) = self.folder.parent() {
                File::open(store)?.sync_all()?;
            }
        }
        let mut open =
            OpenOptions::new().write(true).create(true).truncate(true).open(&self.temporary)?;
        open.write_all(&text)?;
        open.sync_all()?;
        fs::rename(&self.temporary, &self.file)?;
        File::open(&self.folder)?.sync_all()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file
    }
}

/// Saves the state of one relationship in a thread of its own: a disk that takes its time must not
/// keep the pair thread from hearing the partner.
#[derive(Debug)]
pub struct Saver {
    states: Sender<StoredState>,
    results: Receiver<io::Result<()>>,
    file: StateFile,
}

impl Saver {
    /// Starts the thread; it ends with this. The bell rings when a state is saved, or cannot be.
    ///
    /// # Errors
    /// If there can be no further thread.
    pub fn start(file: StateFile, bell: Bell) -> io::Result<Self> {
        let (states, taken) = bounded::<StoredState>(1);
        let (done, results) = bounded(1);
        let own = file.clone();
        std::thread::Builder::new().name("gemel state".to_owned()).spawn(move || {
            for state in taken {
                if done.send(own.save(&state)).is_err() {
                    return;
                }
                bell.ring();
            }
        })?;
        Ok(Self { states, results, file })
    }

    /// Has a state saved. One at a time: [`Saver::finished`] has given the result of the last one.
    pub fn begin(&self, state: StoredState) {
        // There is room for one, and the thread lives as long as this.
        let _ = self.states.try_send(state);
    }

    /// The result, once.
    #[must_use]
    pub fn finished(&self) -> Option<io::Result<()>> {
        self.results.try_recv().ok()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use gemel_failover::{PairHistory, ServerState};
    use gemel_lease::AbsoluteTime;

    use super::*;

    pub(crate) fn state(state: ServerState) -> StoredState {
        StoredState {
            state,
            previous: Some(ServerState::Recover),
            since: AbsoluteTime(5),
            partner: Some((ServerState::Normal, AbsoluteTime(6))),
            last_message: None,
            last_operation: AbsoluteTime(7),
            mclt: 3600,
            former_mclt: None,
            history: PairHistory::Run,
            memory_lost: false,
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let store = tempfile::tempdir().unwrap();
        let file = StateFile::new(store.path(), "a.b@c");
        assert_eq!(file.load(false).unwrap(), None);
        for each in [ServerState::Normal, ServerState::PartnerDown] {
            file.save(&state(each)).unwrap();
            assert_eq!(file.load(false).unwrap(), Some(state(each)));
        }
        assert_eq!(fs::read_dir(store.path().join("failover")).unwrap().count(), 1);
        // One that was cut off while it was written does no harm.
        fs::write(store.path().join("failover/a.b@c.json.new"), "{").unwrap();
        assert_eq!(file.load(false).unwrap(), Some(state(ServerState::PartnerDown)));
        file.save(&state(ServerState::Normal)).unwrap();
        assert_eq!(file.load(false).unwrap(), Some(state(ServerState::Normal)));
    }

    #[test]
    fn the_state_of_a_lost_store_does_not_count() {
        let store = tempfile::tempdir().unwrap();
        let file = StateFile::new(store.path(), "pair");
        file.save(&state(ServerState::Normal)).unwrap();
        assert_eq!(file.load(true).unwrap(), None);
        assert_eq!(file.load(false).unwrap(), Some(state(ServerState::Normal)));
    }

    #[test]
    fn a_saver_saves_one_after_the_other() {
        let store = tempfile::tempdir().unwrap();
        let file = StateFile::new(store.path(), "pair");
        let (bell, heard) = Bell::new();
        let saver = Saver::start(file.clone(), bell).unwrap();
        for each in [ServerState::Normal, ServerState::PartnerDown] {
            assert!(saver.finished().is_none());
            saver.begin(state(each));
            heard.recv().unwrap();
            assert!(saver.finished().unwrap().is_ok());
            assert_eq!(file.load(false).unwrap(), Some(state(each)));
        }
        let (bell, heard) = Bell::new();
        let unwritable = StateFile::new(Path::new("/proc/none"), "pair");
        let saver = Saver::start(unwritable, bell).unwrap();
        saver.begin(state(ServerState::Normal));
        heard.recv().unwrap();
        assert!(saver.finished().unwrap().is_err());
    }

    #[test]
    fn an_unreadable_state_is_an_error_that_helps() {
        let store = tempfile::tempdir().unwrap();
        let file = StateFile::new(store.path(), "pair");
        file.save(&state(ServerState::Normal)).unwrap();
        let good = fs::read_to_string(file.path()).unwrap();
        for bad in ["", "{}", &good[..good.len() / 2], &good.replace("\"normal\"", "\"fine\"")] {
            fs::write(file.path(), bad).unwrap();
            let error = file.load(false).unwrap_err().to_string();
            assert!(error.contains("failover/pair.json cannot be read"), "{error}");
            assert!(error.contains("remove the file"), "{error}");
        }
        let unwritable = StateFile::new(Path::new("/proc/none"), "pair");
        assert!(unwritable.save(&state(ServerState::Normal)).is_err());
    }
}
