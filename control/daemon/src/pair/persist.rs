//! The failover state of a relationship on the disk: a small JSON file that is replaced as a whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use gemel_failover::StoredState;

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

    /// What it holds; `None` if there is none, as before the first start.
    ///
    /// # Errors
    /// If there is something that cannot be read: to go on without it could mean to give out leases
    /// that the partner has given out.
    pub fn load(&self) -> Result<Option<StoredState>> {
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
        assert_eq!(file.load().unwrap(), None);
        for each in [ServerState::Normal, ServerState::PartnerDown] {
            file.save(&state(each)).unwrap();
            assert_eq!(file.load().unwrap(), Some(state(each)));
        }
        assert_eq!(fs::read_dir(store.path().join("failover")).unwrap().count(), 1);
        // One that was cut off while it was written does no harm.
        fs::write(store.path().join("failover/a.b@c.json.new"), "{").unwrap();
        assert_eq!(file.load().unwrap(), Some(state(ServerState::PartnerDown)));
        file.save(&state(ServerState::Normal)).unwrap();
        assert_eq!(file.load().unwrap(), Some(state(ServerState::Normal)));
    }

    #[test]
    fn an_unreadable_state_is_an_error_that_helps() {
        let store = tempfile::tempdir().unwrap();
        let file = StateFile::new(store.path(), "pair");
        file.save(&state(ServerState::Normal)).unwrap();
        let good = fs::read_to_string(file.path()).unwrap();
        for bad in ["", "{}", &good[..good.len() / 2], &good.replace("\"normal\"", "\"fine\"")] {
            fs::write(file.path(), bad).unwrap();
            let error = file.load().unwrap_err().to_string();
            assert!(error.contains("failover/pair.json cannot be read"), "{error}");
            assert!(error.contains("remove the file"), "{error}");
        }
        let unwritable = StateFile::new(Path::new("/proc/none"), "pair");
        assert!(unwritable.save(&state(ServerState::Normal)).is_err());
    }
}
