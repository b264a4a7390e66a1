//! Power cuts at random moments, thousands of them.
//!
//! The journal runs on the simulated disk, the checkpoint in a real LMDB whose file is given the
//! content that a cut during its commit may leave. A seed decides everything and repeats it.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gemel_lease::{Binding, BindingStatus, Lease};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::{
    Durability, StoreConfig, StoreError,
    checkpoint::{Checkpointer, Pace},
    disk::{Disk, sim::SimDisk},
    format::switches::CRC_IGNORED,
    journal::Journal,
    lmdb::Lmdb,
    merge::merge,
    recovery,
    row::Row,
    testing::{Random, binding, record},
};

const SEGMENT_LEN: usize = 16 << 10;
const SEGMENTS_MAX: usize = 5;
const LEASES: u64 = 48;
const PAGE: usize = 4096;
const META_PAGES: usize = 2;

/// A store without threads, on the simulated disk.
struct Node {
    row: Arc<Row<SimDisk>>,
    journal: Journal<SimDisk>,
    checkpointer: Checkpointer<SimDisk>,
    lmdb: Arc<Mutex<Lmdb>>,
}

impl Node {
    fn open(disk: &SimDisk, path: &Path) -> Result<Self, StoreError> {
        let config = StoreConfig {
            segments_max: SEGMENTS_MAX,
            ..StoreConfig::new(path, Durability::PowerLoss, [9; 32])
        };
        let (lmdb, meta, _) = Lmdb::open(path.to_owned(), 1 << 20, &config.seed)?;
        let recovered = recovery::recover(disk, &config, SEGMENT_LEN, &meta, |_| {})?;
        if let Some(bad) = recovered.report.first_bad {
            return Err(StoreError::Corrupt { path: path.to_owned(), what: bad });
        }
        let durable = recovered.state.durable;
        let row = Row::new(disk.clone(), SEGMENT_LEN, SEGMENTS_MAX, false, recovered.state);
        let lmdb = Arc::new(Mutex::new(lmdb));
        let journal = Journal::new(
            Arc::clone(&row),
            meta.store_id,
            Durability::PowerLoss,
            durable,
            recovered.next_generation,
        );
        let checkpointer = Checkpointer::new(
            Arc::clone(&row),
            Arc::clone(&lmdb),
            &meta.store_id,
            Pace { leases: 1000, interval: Duration::MAX, tombstone_age: Duration::ZERO },
            recovered.pending,
            meta.sequence,
            durable,
        );
        Ok(Self { row, journal, checkpointer, lmdb })
    }

    /// All that a restart would hand out.
    fn restore(&mut self) -> Result<BTreeMap<Lease, (Binding, u64)>, StoreError> {
        let mut all = BTreeMap::new();
        let mut tombstones = Vec::new();
        let pending = self.checkpointer.pending().sorted();
        let restored = merge(
            &mut *self.lmdb.lock(),
            &pending,
            &mut tombstones,
            |record| {
                all.insert(record.binding.lease, (record.binding, record.stamp));
                true
            },
            |_, _| {},
        )?;
        if let Some(bad) = restored.bad.first() {
            return Err(StoreError::Corrupt { path: PathBuf::new(), what: format!("{bad:?}") });
        }
        self.checkpointer.bury(tombstones);
        Ok(all)
    }
}

/// One lease's update; everything in it follows from lease and stamp.
fn update(number: u32, stamp: u64) -> Binding {
    let mut binding = binding(number, usize::try_from(stamp % 23).unwrap());
    binding.valid_lifetime = u32::try_from(stamp).unwrap();
    if stamp.is_multiple_of(6) {
        binding.status = BindingStatus::Free;
    }
    binding
}

#[derive(Clone)]
struct Batch {
    updates: Vec<(u32, u64)>,
    octets: Vec<u8>,
}

/// What has been asked of the store and what it has promised.
#[derive(Default)]
struct Model {
    stamp: u64,
    appended: HashSet<(Lease, u64)>,
    /// The newest acknowledged stamp.
    promised: HashMap<Lease, u64>,
    /// Made by workers, not appended yet.
    queue: VecDeque<Batch>,
    /// Appended, not acknowledged.
    waiting: Vec<Batch>,
}

impl Model {
    fn make(&mut self, random: &mut Random) {
        let count = if random.chance(20) { 300 } else { 1 + random.below(30) };
        let mut batch = Batch { updates: Vec::new(), octets: Vec::new() };
        for _ in 0..count {
            self.stamp += 1;
            let number = u32::try_from(random.below(LEASES)).unwrap();
            batch.updates.push((number, self.stamp));
            batch.octets.extend(record(&update(number, self.stamp), self.stamp));
        }
        self.queue.push_back(batch);
    }

    fn acknowledge(&mut self) {
        for batch in self.waiting.drain(..) {
            for (number, stamp) in batch.updates {
                let newest = self.promised.entry(update(number, stamp).lease).or_default();
                *newest = stamp.max(*newest);
            }
        }
    }

    /// Compares with what a restart has found.
    fn check(&mut self, found: &BTreeMap<Lease, (Binding, u64)>) -> Result<(), String> {
        for (lease, (binding, stamp)) in found {
            if !self.appended.contains(&(*lease, *stamp)) {
                return Err(format!("{lease} has stamp {stamp}, which was never appended"));
            }
            if *binding != update(binding.iaid.0, *stamp) {
                return Err(format!("{lease} with stamp {stamp} has another content"));
            }
        }
        for (lease, promised) in &self.promised {
            match found.get(lease) {
                Some((_, stamp)) if stamp >= promised => {}
                // A tombstone may be gone.
                None if promised.is_multiple_of(6) => {}
                other => {
                    return Err(format!(
                        "{lease} was acknowledged with stamp {promised}, found {:?}",
                        other.map(|(_, stamp)| stamp)
                    ));
                }
            }
        }
        // What was seen once stays, acknowledged before or not: the server goes on from it.
        self.promised.extend(found.iter().map(|(lease, (_, stamp))| (*lease, *stamp)));
        Ok(())
    }
}

/// A run of several lives of a store.
struct World {
    random: Random,
    disk: SimDisk,
    dir: TempDir,
    model: Model,
    /// What LMDB's file holds after the cut, if that differs from what it holds now.
    torn: Option<Vec<u8>>,
    figures: Figures,
}

#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    cuts: u64,
    cuts_in_recovery: u64,
    cuts_in_checkpoint: u64,
    kills: u64,
    commits: u64,
    checkpoints: u64,
    failed_syncs: u64,
    full: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        Self {
            random: Random::new(seed),
            disk: SimDisk::new(!seed),
            dir: dir.unwrap(),
            model: Model::default(),
            torn: None,
            figures: Figures::default(),
        }
    }

    fn run(&mut self) -> Result<(), String> {
        // Making the store itself is not cut: nothing is promised yet.
        drop(Lmdb::open(self.dir.path().to_owned(), 1 << 20, &[9; 32]).unwrap());
        for _ in 0..3 + self.random.below(3) {
            let mut node = self.start()?;
            let found = node.restore().map_err(|error| error.to_string())?;
            self.model.check(&found)?;
            if !self.random.chance(8) {
                self.disk.burn(self.random.below(300));
            }
            self.live(&mut node)?;
            drop(node);
            self.model.queue.clear();
            self.model.waiting.clear();
            if self.disk.is_off() || self.random.chance(2) {
                self.figures.cuts += 1;
                self.cut();
            } else {
                self.figures.kills += 1;
            }
        }
        let mut node = self.start()?;
        let found = node.restore().map_err(|error| error.to_string())?;
        self.model.check(&found)?;
        let usable = node.journal.probe().or_else(|error| match error {
            StoreError::JournalFull { .. } => {
                node.checkpointer.write()?;
                node.journal.probe()
            }
            other => Err(other),
        });
        usable.map_err(|error| format!("not usable afterwards: {error}"))
    }

    /// Opens the store, now and then with further cuts in the middle of it.
    fn start(&mut self) -> Result<Node, String> {
        loop {
            if self.random.chance(3) {
                self.disk.burn(self.random.below(40));
            }
            match Node::open(&self.disk, self.dir.path()) {
                Ok(node) => {
                    self.disk.extinguish();
                    return Ok(node);
                }
                Err(_) if self.disk.is_off() => {
                    self.figures.cuts_in_recovery += 1;
                    self.cut();
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn cut(&mut self) {
        self.disk.switch_off();
        if let Some(image) = self.torn.take() {
            fs::write(self.data(), image).unwrap();
        }
        // What a dead machine leaves of it is nothing.
        let _ = fs::remove_file(self.dir.path().join("lock.mdb"));
        self.disk.power_on();
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data.mdb")
    }

    /// Works until the power goes or the life ends otherwise.
    fn live(&mut self, node: &mut Node) -> Result<(), String> {
        for _ in 0..60 {
            let result = match self.random.below(20) {
                0..12 => {
                    self.model.make(&mut self.random);
                    if self.model.queue.len() >= 3 { self.append(node) } else { Ok(()) }
                }
                12..17 => self.commit(node),
                17 => {
                    self.disk.faults(|faults| faults.sync_fails = true);
                    let result = self.commit(node);
                    self.disk.faults(|faults| faults.sync_fails = false);
                    result
                }
                _ => self.checkpoint(node),
            };
            if self.disk.is_off() {
                return Ok(());
            }
            result.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Appends any of the batches that workers have ready.
    fn append(&mut self, node: &mut Node) -> Result<(), StoreError> {
        let pick = self.random.below(self.model.queue.len() as u64);
        let Some(batch) = self.model.queue.remove(usize::try_from(pick).unwrap()) else {
            return Ok(());
        };
        self.append_batch(node, batch)
    }

    fn append_batch(&mut self, node: &mut Node, batch: Batch) -> Result<(), StoreError> {
        for &(number, stamp) in &batch.updates {
            self.model.appended.insert((update(number, stamp).lease, stamp));
        }
        loop {
            match node.journal.append(&batch.octets) {
                Ok(_) => {
                    self.model.waiting.push(batch);
                    return Ok(());
                }
                Err(StoreError::JournalFull { .. }) => {
                    self.figures.full += 1;
                    self.commit(node)?;
                    node.checkpointer.absorb()?;
                    // Other batches are late meanwhile, so tombstones have to stay.
                    node.checkpointer.pace.tombstone_age = Duration::MAX;
                    node.checkpointer.write()?;
                    node.checkpointer.pace.tombstone_age = Duration::ZERO;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn commit(&mut self, node: &mut Node) -> Result<(), StoreError> {
        self.figures.commits += 1;
        match node.journal.commit() {
            Ok(_) => {
                self.model.acknowledge();
                Ok(())
            }
            Err(StoreError::Sync { .. }) if !self.disk.is_off() => {
                self.figures.failed_syncs += 1;
                for batch in std::mem::take(&mut self.model.waiting) {
                    self.append_batch(node, batch)?;
                }
                self.commit(node)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes a checkpoint and decides whether the power goes in the middle of it.
    fn checkpoint(&mut self, node: &mut Node) -> Result<(), StoreError> {
        // No worker's batch is late by more than a checkpoint.
        while !self.model.queue.is_empty() {
            self.append(node)?;
        }
        self.commit(node)?;
        node.lmdb.lock().images = Some(vec![fs::read(self.data()).unwrap()]);
        node.checkpointer.absorb()?;
        node.checkpointer.write()?;
        let mut images = node.lmdb.lock().images.take().unwrap();
        self.figures.checkpoints += 1;
        if self.random.chance(3) && images.len() > 1 {
            self.figures.cuts_in_checkpoint += 1;
            // In the middle of one of its transactions, or just before it.
            let at = usize::try_from(self.random.below(images.len() as u64 - 1)).unwrap();
            let after = images.swap_remove(at + 1);
            let before = images.swap_remove(at);
            let between = self.random.chance(4);
            self.torn = Some(if between { before } else { self.tear(before, after) });
            self.disk.switch_off();
        }
        Ok(())
    }

    /// What LMDB's file may hold after a cut during a synchronous commit: it writes the new pages
    /// (never one that the last commit needs), syncs, and only then writes the meta page.
    fn tear(&mut self, before: Vec<u8>, after: Vec<u8>) -> Vec<u8> {
        let pages_synced = self.random.chance(3);
        let mut image = before;
        let grown = image.len().max(after.len());
        if pages_synced || self.random.chance(2) {
            image.resize(grown, 0);
        }
        let end = image.len().min(after.len());
        for at in (META_PAGES * PAGE..end).step_by(512) {
            if pages_synced || self.random.chance(2) {
                image[at..at + 512].copy_from_slice(&after[at..at + 512]);
            }
        }
        image
    }
}

fn seeds() -> u64 {
    std::env::var("GEMEL_POWER_CUTS").ok().and_then(|count| count.parse().ok()).unwrap_or(1000)
}

#[test]
fn nothing_that_was_acknowledged_is_lost_in_a_power_cut() {
    let mut total = Figures::default();
    for seed in 0..seeds() {
        let mut world = World::new(seed);
        if let Err(error) = world.run() {
            panic!("seed {seed}: {error}");
        }
        let one = world.figures;
        total.cuts += one.cuts;
        total.cuts_in_recovery += one.cuts_in_recovery;
        total.cuts_in_checkpoint += one.cuts_in_checkpoint;
        total.kills += one.kills;
        total.commits += one.commits;
        total.checkpoints += one.checkpoints;
        total.failed_syncs += one.failed_syncs;
        total.full += one.full;
    }
    println!("{} seeds: {total:?}", seeds());
    if seeds() >= 100 {
        let each = [
            total.cuts,
            total.cuts_in_recovery,
            total.cuts_in_checkpoint,
            total.kills,
            total.failed_syncs,
            total.full,
        ];
        assert!(each.iter().all(|&count| count > 0), "something never happened: {total:?}");
    }
}

/// How many of 200 seeds find something.
fn losses(prepare: impl Fn(&World)) -> usize {
    (0..200)
        .filter(|&seed| {
            let mut world = World::new(seed);
            prepare(&world);
            world.run().is_err()
        })
        .count()
}

#[test]
fn the_test_notices_when_torn_batches_are_believed() {
    CRC_IGNORED.set(true);
    let noticed = losses(|_| {});
    CRC_IGNORED.set(false);
    println!("without checking the CRC: {noticed} of 200");
    assert!(noticed > 10, "only {noticed}");
}

#[test]
fn the_test_notices_a_missing_sync() {
    let noticed = losses(|world| world.disk.faults(|faults| faults.sync_lies = true));
    println!("without a sync: {noticed} of 200");
    assert!(noticed > 50, "only {noticed}");
}

/// A store with one acknowledged update of lease 1, stamp 1.
fn node_with_one() -> (SimDisk, TempDir, Node) {
    let disk = SimDisk::new(1);
    let dir = TempDir::new().unwrap();
    let mut node = Node::open(&disk, dir.path()).unwrap();
    node.journal.append(&record(&update(1, 1), 1)).unwrap();
    node.journal.commit().unwrap();
    (disk, dir, node)
}

#[test]
fn a_failed_sync_is_never_believed_later() {
    for seed in 0..50 {
        let (disk, dir, mut node) = node_with_one();
        disk.faults(|faults| faults.sync_fails = true);
        node.journal.append(&record(&update(2, 2), 2)).unwrap();
        let error = node.journal.commit().unwrap_err();
        assert!(matches!(error, StoreError::Sync { durable: 1, .. }) && error.is_temporary());
        if seed % 2 == 0 {
            // Again, as the caller does; a fresh segment takes it.
            node.journal.append(&record(&update(2, 2), 2)).unwrap();
            assert_eq!(node.journal.commit().unwrap(), 2);
        } else {
            // Killed instead; the next process finds the batch in the page cache.
            drop(node);
            node = Node::open(&disk, dir.path()).unwrap();
            node.journal.append(&record(&update(3, 3), 3)).unwrap();
            node.journal.commit().unwrap();
        }
        let seen = node.restore().unwrap().len();
        drop(node);
        disk.power_on();
        let found = Node::open(&disk, dir.path()).unwrap().restore().unwrap();
        assert!(found.len() >= seen, "what was seen is kept");
        assert_eq!(found.len(), if seed % 2 == 0 { 2 } else { 3 });
    }
}

#[test]
fn a_full_disk_is_told_and_got_over() {
    let disk = SimDisk::new(1);
    let dir = TempDir::new().unwrap();
    let mut node = Node::open(&disk, dir.path()).unwrap();
    disk.faults(|faults| faults.full = true);
    let update = record(&update(1, 1), 1);
    for _ in 0..3 {
        let error = node.journal.append(&update).unwrap_err();
        assert!(
            matches!(&error, StoreError::NoSpace { needed, .. } if *needed == SEGMENT_LEN as u64)
        );
        assert!(error.is_temporary() && error.to_string().contains("sim/0000000"), "{error}");
        assert!(node.journal.probe().is_err());
    }
    disk.faults(|faults| {
        faults.full = false;
        faults.short = true;
    });
    assert!(matches!(node.journal.append(&update), Err(StoreError::Io { .. })));
    node.journal.probe().unwrap();
    node.journal.append(&update).unwrap();
    assert_eq!(node.journal.commit().unwrap(), 2);
}

#[test]
fn a_full_journal_pushes_back_until_the_checkpoint_has_caught_up() {
    let (_disk, _dir, mut node) = node_with_one();
    let mut stamp = 1;
    let error = loop {
        stamp += 1;
        match node.journal.append(&record(&update(2, stamp), stamp)) {
            Ok(_) => node.journal.commit().map(|_| ()).unwrap(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::JournalFull { segments: SEGMENTS_MAX, .. }), "{error}");
    assert!(matches!(
        node.journal.append(&record(&update(2, 3), 3)),
        Err(StoreError::JournalFull { .. })
    ));
    node.checkpointer.absorb().unwrap();
    node.checkpointer.write().unwrap();
    node.journal.append(&record(&update(2, stamp), stamp)).unwrap();
    node.journal.commit().unwrap();
    assert_eq!(node.row.lock().total, SEGMENTS_MAX);
    node.checkpointer.absorb().unwrap();
    assert_eq!(node.checkpointer.pending().sorted()[0].stamp, stamp);
}

#[test]
fn a_segment_that_has_failed_is_removed_once_it_is_not_needed() {
    let (disk, _dir, mut node) = node_with_one();
    disk.faults(|faults| faults.sync_fails = true);
    node.journal.append(&record(&update(2, 2), 2)).unwrap();
    node.journal.commit().unwrap_err();
    node.journal.append(&record(&update(2, 2), 2)).unwrap();
    node.journal.commit().unwrap();
    assert_eq!(node.row.lock().links.len(), 2);
    node.checkpointer.absorb().unwrap();
    assert_eq!(node.checkpointer.pending().len(), 2);
    node.checkpointer.write().unwrap();
    node.row.prepare_once();
    let links = node.row.lock().links.len();
    assert_eq!(links, 1);
    assert!(!disk.list().unwrap().contains(&0), "the failed segment is gone");
}
