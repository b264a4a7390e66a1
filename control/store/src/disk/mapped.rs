//! Segments as mapped files.
#![allow(unsafe_code)] // mapping a file is unsafe, see `map`

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use memmap2::{Advice, MmapMut};

use super::{Disk, Segment, SegmentReader};

/// Octets written and synced at a time when a segment is prepared, few enough that a commit on the
/// same disk hardly waits.
const PREPARE_CHUNK: usize = 1 << 20;

/// A folder of segment files.
#[derive(Debug)]
pub(crate) struct MappedDisk {
    dir: PathBuf,
}

impl MappedDisk {
    /// Makes the folder if it is not there and removes what an interrupted preparation has left.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                fs::remove_file(path)?;
            }
        }
        sync_dir(&dir)?;
        Ok(Self { dir })
    }

    /// The folder as it is, for a reader.
    pub(crate) fn existing(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn prepare(&self, file: &mut File, path: &Path, len: usize) -> io::Result<()> {
        // Reserving first tells of a full disk before anything is written.
        reserve(file, len)?;
        let zeros = vec![0; PREPARE_CHUNK.min(len)];
        let mut done = 0;
        while done < len {
            let chunk = zeros.len().min(len - done);
            file.write_all(&zeros[..chunk])?;
            file.sync_data()?;
            done += chunk;
        }
        file.sync_all()?;
        fs::rename(path, path.with_extension("seg"))?;
        sync_dir(&self.dir)
    }
}

impl Disk for MappedDisk {
    type Segment = MappedSegment;

    fn list(&self) -> io::Result<Vec<u32>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            if path.extension().is_some_and(|extension| extension == "seg")
                && let Some(id) = stem.and_then(|stem| stem.parse().ok())
            {
                ids.push(id);
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn create(&self, id: u32, len: usize) -> io::Result<MappedSegment> {
        let path = self.path(id).with_extension("new");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        if let Err(error) = self.prepare(&mut file, &path, len) {
            // Whichever of the two names it has; what cannot be removed now is at the next start.
            let _ = fs::remove_file(&path);
            let _ = fs::remove_file(self.path(id));
            return Err(error);
        }
        MappedSegment::new(file)
    }

    fn open(&self, id: u32) -> io::Result<MappedSegment> {
        MappedSegment::new(OpenOptions::new().read(true).write(true).open(self.path(id))?)
    }

    fn reader(&self, id: u32) -> io::Result<(MappedReader, usize)> {
        let file = File::open(self.path(id))?;
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        Ok((MappedReader(Arc::new(file)), len))
    }

    fn remove(&self, id: u32) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, id: u32) -> PathBuf {
        self.dir.join(format!("{id:08}.seg"))
    }
}

/// A segment file, mapped as a whole.
#[derive(Debug)]
pub(crate) struct MappedSegment {
    file: Arc<File>,
    map: MmapMut,
}

impl MappedSegment {
    fn new(file: File) -> io::Result<Self> {
        // SAFETY: a mapping is sound while nobody else changes the file or cuts it short. The folder
        // is held by the store's lock and its files have mode 0600, so no other server and no other
        // user does. Within this process only the control thread has the `MappedSegment`; the other
        // threads read through the file descriptor. The octets are only ever written through the
        // mapping, never read, so a stray writer could at worst damage the data, which the CRC
        // tells. The file is written in full before it gets its name, so that storing through the
        // mapping needs no new space, which would end in SIGBUS on a full disk; `warm` reads it in
        // beforehand, so that a sector that cannot be read is an error there and no SIGBUS later.
        let map = unsafe { MmapMut::map_mut(&file)? };
        Ok(Self { file: Arc::new(file), map })
    }
}

impl Segment for MappedSegment {
    type Reader = MappedReader;

    fn len(&self) -> usize {
        self.map.len()
    }

    fn write(&mut self, at: usize, octets: &[u8]) {
        self.map[at..at + octets.len()].copy_from_slice(octets);
    }

    fn sync(&mut self) -> io::Result<()> {
        // Writes back what was stored through the mapping, too: it shares the page cache.
        self.file.sync_data()
    }

    fn warm(&mut self) -> io::Result<()> {
        match self.map.advise(Advice::PopulateRead) {
            // A kernel before 5.14 does not know the advice.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            other => other,
        }
    }

    fn reader(&self) -> io::Result<MappedReader> {
        Ok(MappedReader(Arc::clone(&self.file)))
    }
}

/// Reads by file descriptor, so that a bad sector is an error and no signal.
#[derive(Clone, Debug)]
pub(crate) struct MappedReader(Arc<File>);

impl SegmentReader for MappedReader {
    fn read(&self, at: usize, octets: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(octets, at as u64)
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn reserve(file: &File, len: usize) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let len = libc::off_t::try_from(len).map_err(io::Error::other)?;
    // SAFETY: a plain system call on a descriptor that is open for as long as `file` is borrowed.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, len) } {
        0 => Ok(()),
        // posix_fallocate falls back to writing where the file system cannot reserve.
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_through_the_map_is_read_from_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let disk = MappedDisk::open(dir.path().join("journal")).unwrap();
        let mut segment = disk.create(3, 1 << 16).unwrap();
        segment.warm().unwrap();
        segment.write(700, b"lease");
        let mut back = [0; 7];
        segment.reader().unwrap().read(699, &mut back).unwrap();
        assert_eq!(&back, b"\0lease\0");
        segment.sync().unwrap();
        assert_eq!(disk.list().unwrap(), [3]);
        assert_eq!(disk.reader(3).unwrap().1, 1 << 16);
        assert!(segment.reader().unwrap().read((1 << 16) - 1, &mut back).is_err());
        disk.remove(3).unwrap();
        disk.remove(3).unwrap();
        assert!(disk.list().unwrap().is_empty());
    }

    #[test]
    fn an_interrupted_preparation_is_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("00000001.new"), [0; 100]).unwrap();
        let disk = MappedDisk::open(dir.path().to_owned()).unwrap();
        assert!(disk.list().unwrap().is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
