//! One server per store.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::StoreError;

/// Stores that this process has open. LMDB must not open an environment twice in one process: its
/// file locks are the process's, and closing one handle would drop them all.
static OPEN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// How long a lock that another process holds is waited for, and how often it is tried.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// A store's folder, claimed within this process.
#[derive(Debug)]
pub(crate) struct Claim(PathBuf);

impl Claim {
    /// Claims the folder, which must exist.
    pub(crate) fn new(dir: &Path) -> Result<Self, StoreError> {
        let path = fs::canonicalize(dir).map_err(|source| StoreError::Io {
            what: "cannot open the store",
            path: dir.to_owned(),
            source,
        })?;
        let mut open = OPEN.lock();
        if open.contains(&path) {
            return Err(StoreError::InUse {
                dir: dir.to_owned(),
                pid: Some(format!("{} (this one)", std::process::id())),
            });
        }
        open.push(path.clone());
        Ok(Self(path))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        OPEN.lock().retain(|path| *path != self.0);
    }
}

/// The claim of a server, held against other processes, too, until it is dropped or the process
/// ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
    _claim: Claim,
}

impl Lock {
    /// Takes the lock of the store in `dir`, which must exist.
    pub(crate) fn take(dir: &Path) -> Result<Self, StoreError> {
        let claim = Claim::new(dir)?;
        let path = dir.join("lock");
        let fail = |what, source| StoreError::Io { what, path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| fail("cannot open the lock file", e))?;
        // A predecessor that is just ending, or its child between fork and exec, holds it a little
        // longer.
        let deadline = Instant::now() + PATIENCE;
        let locked = loop {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(PAUSE);
                }
                result => break result,
            }
        };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Without the number the message is still true.
                let _ = file.read_to_string(&mut pid);
                let pid = Some(pid.trim().to_owned()).filter(|pid| !pid.is_empty());
                return Err(StoreError::InUse { dir: dir.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(fail("cannot lock", source)),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = written {
            // On a full disk the lock holds all the same.
            tracing::warn!(%error, "cannot write the process number into the lock file");
        }
        Ok(Self { _file: file, _claim: claim })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_the_message_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let error = Lock::take(&dir.path().join(".")).unwrap_err();
        assert!(
            matches!(&error, StoreError::InUse { pid: Some(pid), .. } if pid.contains("this one"))
        );
        // Another process is kept out by the lock of the file, a handle of its own here.
        let other = File::open(dir.path().join("lock")).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        let pid = fs::read_to_string(dir.path().join("lock")).unwrap();
        assert_eq!(pid.trim(), std::process::id().to_string());
        drop(lock);
        assert!(other.try_lock().is_ok());
        let error = Lock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    }
}
