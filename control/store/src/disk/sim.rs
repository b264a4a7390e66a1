//! A disk in memory that loses and tears what was not synced.
//!
//! At a power cut each sector that was written since the last sync of its segment keeps any one of
//! the contents that it had since then, or becomes what it was; a segment or a removal that the
//! folder was not synced for may be there or not.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use parking_lot::Mutex;

use super::{Disk, Segment, SegmentReader};
use crate::{format::SECTOR, testing::Random};

/// The disk; clones are the same disk.
#[derive(Clone)]
pub(crate) struct SimDisk(Arc<Mutex<Inner>>);

struct Inner {
    random: Random,
    files: BTreeMap<u32, File>,
    /// Removed since the folder was last synced.
    removed: BTreeMap<u32, File>,
    /// Operations until the power goes; `None`: it stays.
    fuse: Option<u64>,
    off: bool,
    fault: Faults,
}

/// What goes wrong on demand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// The next sync fails, and its pages count as written nevertheless.
    pub(crate) sync_fails: bool,
    /// No segment can be made for lack of space.
    pub(crate) full: bool,
    /// The next segment that is made is cut short in the middle of it.
    pub(crate) short: bool,
    /// Sync does nothing.
    pub(crate) sync_lies: bool,
}

#[derive(Clone)]
struct File {
    /// What programs see.
    now: Vec<u8>,
    /// What is on the disk for certain.
    durable: Vec<u8>,
    /// What sectors have held since the last sync.
    unsynced: BTreeMap<usize, Vec<[u8; SECTOR]>>,
    /// Its name is on the disk.
    named: bool,
}

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            random: Random::new(seed),
            files: BTreeMap::new(),
            removed: BTreeMap::new(),
            fuse: None,
            off: false,
            fault: Faults::default(),
        })))
    }

    /// Lets the power go after this many operations.
    pub(crate) fn burn(&self, operations: u64) {
        self.0.lock().fuse = Some(operations);
    }

    /// The power stays after all.
    pub(crate) fn extinguish(&self) {
        self.0.lock().fuse = None;
    }

    /// Takes the power away now.
    pub(crate) fn switch_off(&self) {
        self.0.lock().off = true;
    }

    pub(crate) fn is_off(&self) -> bool {
        self.0.lock().off
    }

    pub(crate) fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.0.lock().fault);
    }

    /// The power is back: what is on the disk now is what the cut has left.
    pub(crate) fn power_on(&self) {
        let mut guard = self.0.lock();
        let inner = &mut *guard;
        let removed = std::mem::take(&mut inner.removed);
        for (id, file) in removed {
            if file.named && inner.random.chance(2) {
                inner.files.entry(id).or_insert(file);
            }
        }
        let mut files = std::mem::take(&mut inner.files);
        files.retain(|_, file| file.named || inner.random.chance(2));
        for file in files.values_mut() {
            for (&sector, contents) in &file.unsynced {
                let pick = inner.random.below(contents.len() as u64 + 1);
                if let Some(content) = contents.get(usize::try_from(pick).unwrap()) {
                    let at = sector * SECTOR;
                    file.durable[at..at + SECTOR].copy_from_slice(content);
                }
            }
            file.unsynced.clear();
            file.now.clone_from(&file.durable);
            file.named = true;
        }
        inner.files = files;
        inner.fuse = None;
        inner.off = false;
    }
}

impl Inner {
    /// One operation; fails once the power is gone.
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => self.off = true,
            Some(left) => *left -= 1,
            None => {}
        }
        if self.off { Err(io::Error::other("the power is gone")) } else { Ok(()) }
    }
}

impl Disk for SimDisk {
    type Segment = SimSegment;

    fn list(&self) -> io::Result<Vec<u32>> {
        let mut inner = self.0.lock();
        inner.operate()?;
        Ok(inner.files.keys().copied().collect())
    }

    fn create(&self, id: u32, len: usize) -> io::Result<SimSegment> {
        let mut inner = self.0.lock();
        inner.operate()?;
        if inner.fault.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if std::mem::take(&mut inner.fault.short) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let zeros = vec![0; len];
        let mut file =
            File { now: zeros.clone(), durable: zeros, unsynced: BTreeMap::new(), named: false };
        inner.files.insert(id, file.clone());
        // Made under its last name, but the folder is not synced yet.
        inner.operate()?;
        file.named = true;
        inner.files.insert(id, file);
        inner.removed.clear();
        drop(inner);
        Ok(SimSegment { disk: self.clone(), id, len })
    }

    fn open(&self, id: u32) -> io::Result<SimSegment> {
        let mut inner = self.0.lock();
        inner.operate()?;
        let len = inner.files.get(&id).ok_or(io::ErrorKind::NotFound)?.now.len();
        drop(inner);
        Ok(SimSegment { disk: self.clone(), id, len })
    }

    fn reader(&self, id: u32) -> io::Result<(SimReader, usize)> {
        let segment = self.open(id)?;
        Ok((SimReader { disk: self.clone(), id }, segment.len))
    }

    fn remove(&self, id: u32) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.operate()?;
        if let Some(file) = inner.files.remove(&id) {
            inner.removed.insert(id, file);
        }
        Ok(())
    }

    fn path(&self, id: u32) -> PathBuf {
        format!("sim/{id:08}.seg").into()
    }
}

pub(crate) struct SimSegment {
    disk: SimDisk,
    id: u32,
    len: usize,
}

impl Segment for SimSegment {
    type Reader = SimReader;

    fn len(&self) -> usize {
        self.len
    }

    fn write(&mut self, at: usize, octets: &[u8]) {
        assert!(at + octets.len() <= self.len, "beyond the end");
        let mut inner = self.disk.0.lock();
        if inner.operate().is_err() || octets.is_empty() {
            return;
        }
        let Some(file) = inner.files.get_mut(&self.id) else { return };
        file.now[at..at + octets.len()].copy_from_slice(octets);
        for sector in at / SECTOR..=(at + octets.len() - 1) / SECTOR {
            let mut content = [0; SECTOR];
            content.copy_from_slice(&file.now[sector * SECTOR..(sector + 1) * SECTOR]);
            file.unsynced.entry(sector).or_default().push(content);
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut guard = self.disk.0.lock();
        let inner = &mut *guard;
        inner.operate()?;
        if inner.fault.sync_lies {
            return Ok(());
        }
        let fails = std::mem::take(&mut inner.fault.sync_fails);
        let Some(file) = inner.files.get_mut(&self.id) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        for (sector, contents) in std::mem::take(&mut file.unsynced) {
            // The latest content goes to the disk; of a sync that fails, some of it.
            if !fails || inner.random.chance(2) {
                let at = sector * SECTOR;
                let latest = contents.last().expect("written at least once");
                file.durable[at..at + SECTOR].copy_from_slice(latest);
            }
        }
        if fails { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }

    fn warm(&mut self) -> io::Result<()> {
        self.disk.0.lock().operate()
    }

    fn reader(&self) -> io::Result<SimReader> {
        Ok(SimReader { disk: self.disk.clone(), id: self.id })
    }
}

#[derive(Clone)]
pub(crate) struct SimReader {
    disk: SimDisk,
    id: u32,
}

impl SegmentReader for SimReader {
    fn read(&self, at: usize, octets: &mut [u8]) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        inner.operate()?;
        // A file stays readable for those who have it open.
        let file = inner.files.get(&self.id).or_else(|| inner.removed.get(&self.id));
        let now = &file.ok_or(io::ErrorKind::NotFound)?.now;
        let from = now.get(at..at + octets.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        octets.copy_from_slice(from);
        Ok(())
    }
}
