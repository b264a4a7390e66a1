//! Filling the lease table after a start, while clients are answered already.
//!
//! The bindings are read in the order of their addresses by one thread and put into the table by
//! others. Meanwhile the workers extend leases that their clients name ([`FromStore`]), and the
//! control thread makes that durable. Nothing else changes the table: what could give or free a
//! lease waits until the control thread has ended the warm-up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use crossbeam::channel::{Receiver, Sender, bounded};
use gemel_lease::{
    AbsoluteTime, Binding, BindingStatus, ClientKey, IaKind, Lease, LeaseTable, Record,
};
use gemel_server::Recall;
use gemel_store::{Progress, Restored, Store, StoreError, WarmUp};
use gemel_worker::{submit::ServiceState, wall_clock};
use serde::Serialize;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::control::error_chain;

/// Threads that put bindings into the table, at most: each of them is as fast as the one that reads.
const INSERTERS_MAX: usize = 2;
/// Bindings handed from one thread to the other at once.
const CHUNK: usize = 1024;
/// Chunks that may wait for each thread.
const CHUNKS_WAITING: usize = 4;

/// What the control thread does to its journal when all bindings are in the table.
pub type EndWarmUp<J> = Box<dyn FnOnce(&mut J) -> Result<(), StoreError> + Send>;

/// Ends the warm-up, in this order: nobody recalls single bindings any more, the table forgets which
/// leases were freed when, and then the workers hear that it is full.
///
/// A record that was recalled later could bring back a lease that has been freed meanwhile.
pub fn end_warm_up<J>(
    end: EndWarmUp<J>,
    journal: &mut J,
    table: &LeaseTable,
    service: &ServiceState,
    warmth: &Warmth,
) {
    if let Err(error) = end(journal) {
        // The journal fills up then, and the server goes read-only.
        let reason = error_chain(&error);
        error!(reason, "no checkpoint will be written; restart the server");
    }
    table.finish_restore();
    service.end_warming();
    warmth.end();
    let since_start_ms = warmth.elapsed().as_millis();
    info!(bindings = table.len(), since_start_ms, "warm: serving in full");
}

/// How far the table is filled, for the operator.
#[derive(Debug)]
pub struct Warmth {
    begun: Instant,
    done: AtomicU64,
    total: AtomicU64,
    ended: AtomicBool,
}

/// The same at one moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct WarmingView {
    /// Records read back so far.
    pub restored: u64,
    /// Records there are, about.
    pub total: u64,
    /// Since the start, in milliseconds.
    pub elapsed_ms: u64,
}

impl Warmth {
    /// An empty table of a process that started then.
    #[must_use]
    pub fn new(begun: Instant) -> Self {
        let (done, total) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { begun, done, total, ended: AtomicBool::new(false) }
    }

    /// How far it is; `None` when it is full.
    #[must_use]
    pub fn view(&self) -> Option<WarmingView> {
        (!self.ended.load(Ordering::Acquire)).then(|| WarmingView {
            restored: self.done.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
            elapsed_ms: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Since the start of the process.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The table is full.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    fn progress(&self, progress: Progress) {
        if let Progress::Restore { done, total } = progress {
            self.done.store(done, Ordering::Relaxed);
            self.total.store(total, Ordering::Relaxed);
        }
    }
}

/// Finds leases in the store that the table does not hold yet.
#[derive(Debug)]
pub struct FromStore(gemel_store::Recall);

impl Recall for FromStore {
    fn recall(&self, table: &LeaseTable, key: ClientKey<'_>, lease: Lease) {
        // The thread that reads all bindings meets the same error and ends the process with it;
        // until then the lease counts as unknown.
        let _ = self.0.find(lease, |record| {
            if record.binding.client_key() == key {
                table.restore(record);
            }
        });
    }
}

/// The threads that fill the table.
pub struct Warming<J> {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    warmth: Arc<Warmth>,
    recall: Arc<FromStore>,
    end: Option<Receiver<EndWarmUp<J>>>,
    result: Option<oneshot::Receiver<Result<()>>>,
}

impl Warming<Store> {
    /// Begins to fill the table from the store, with room for `expected` bindings. From now on the
    /// store takes updates; new stamps are larger than those that it holds.
    ///
    /// # Errors
    /// If the store cannot be read or a thread cannot be started.
    pub fn start(
        store: &mut Store,
        table: &Arc<LeaseTable>,
        expected: usize,
        begun: Instant,
    ) -> Result<Self> {
        let warm_up = store.warm_up().context("cannot read the bindings back")?;
        table.raise_stamp(warm_up.stamp_max());
        let recall = Arc::new(FromStore(warm_up.recall()));
        let warmth = Arc::new(Warmth::new(begun));
        let stop = Arc::new(AtomicBool::new(false));
        let (ends, end) = bounded(1);
        let (results, result) = oneshot::channel();
        let filling = Filling {
            table: Arc::clone(table),
            expected,
            warmth: Arc::clone(&warmth),
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new()
            .name("gemel restore".to_owned())
            .spawn(move || {
                gemel_store::stand_back();
                let done = filling.run(warm_up);
                let done = done.map(|warm_up| {
                    let end: EndWarmUp<Store> =
                        Box::new(move |store: &mut Store| store.end_warm_up(warm_up));
                    // A control thread that has ended has no use for it.
                    let _ = ends.send(end);
                });
                // Nobody listens any more when the server stops.
                let _ = results.send(done);
            })
            .context("cannot start the thread that reads the bindings back")?;
        Ok(Self { thread, stop, warmth, recall, end: Some(end), result: Some(result) })
    }
}

impl<J> Warming<J> {
    /// Where the workers find single leases.
    #[must_use]
    pub fn recall(&self) -> Arc<FromStore> {
        Arc::clone(&self.recall)
    }

    /// How far it is.
    #[must_use]
    pub fn warmth(&self) -> Arc<Warmth> {
        Arc::clone(&self.warmth)
    }

    /// For the control thread: what ends the warm-up, once all is in the table. Once.
    pub fn take_end(&mut self) -> Option<Receiver<EndWarmUp<J>>> {
        self.end.take()
    }

    /// Whether it went well, once it is over. Once.
    pub fn take_result(&mut self) -> Option<oneshot::Receiver<Result<()>>> {
        self.result.take()
    }

    /// Waits until all is in the table, and ends the warm-up: in place of the control thread.
    ///
    /// # Errors
    /// If the store could not be read.
    pub fn finish(
        &mut self,
        journal: &mut J,
        table: &LeaseTable,
        service: &ServiceState,
    ) -> Result<()> {
        let Some(result) = self.result.take() else { return Ok(()) };
        result.blocking_recv().unwrap_or_else(|_| Err(panicked()))?;
        let end = self.end.take().and_then(|end| end.recv().ok()).ok_or_else(panicked)?;
        end_warm_up(end, journal, table, service, &self.warmth);
        Ok(())
    }

    /// Ends the threads, wherever they are.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        if self.thread.join().is_err() {
            warn!("the thread that reads the bindings back panicked");
        }
    }
}

/// What became of a thread that has said nothing.
pub fn panicked() -> anyhow::Error {
    anyhow!("the thread that reads the bindings back panicked")
}

/// The work of the restoring thread.
struct Filling {
    table: Arc<LeaseTable>,
    /// Bindings to make room for.
    expected: usize,
    warmth: Arc<Warmth>,
    stop: Arc<AtomicBool>,
}

impl Filling {
    fn run(&self, mut warm_up: WarmUp) -> Result<WarmUp> {
        let begun = Instant::now();
        self.table.make_room(self.expected);
        let restored = self.restore(&mut warm_up)?;
        self.keep_bad_ones_out(&restored);
        let ms = begun.elapsed().as_millis();
        info!(records = restored.records, bindings = self.table.len(), ms, "bindings restored");
        Ok(warm_up)
    }

    /// Reads all bindings, and has them put into the table.
    fn restore(&self, warm_up: &mut WarmUp) -> Result<Restored> {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get() - 1);
        let threads = threads.clamp(1, INSERTERS_MAX);
        let (chunks, waiting) = bounded::<Vec<Record>>(threads * CHUNKS_WAITING);
        let restored = std::thread::scope(|scope| {
            for _ in 0..threads {
                let waiting = waiting.clone();
                std::thread::Builder::new()
                    .name("gemel restore".to_owned())
                    .spawn_scoped(scope, move || self.insert(&waiting))
                    .context("cannot start a thread that fills the lease table")?;
            }
            drop(waiting);
            self.read(warm_up, chunks)
        })?;
        if self.stop.load(Ordering::Acquire) {
            bail!("stopped before all bindings were read back");
        }
        Ok(restored)
    }

    fn read(&self, warm_up: &mut WarmUp, chunks: Sender<Vec<Record>>) -> Result<Restored> {
        let mut chunk = Vec::with_capacity(CHUNK);
        let mut log = log_progress();
        let each = |record| {
            chunk.push(record);
            if chunk.len() < CHUNK {
                return true;
            }
            let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK));
            // Refused only if every inserting thread has panicked, which the scope passes on.
            chunks.send(full).is_ok() && !self.stop.load(Ordering::Relaxed)
        };
        let restored = warm_up
            .restore(each, |progress| {
                self.warmth.progress(progress);
                log(progress);
            })
            .context("cannot read the bindings back")?;
        chunks.send(chunk).map_err(|_| panicked())?;
        Ok(restored)
    }

    fn insert(&self, chunks: &Receiver<Vec<Record>>) {
        gemel_store::stand_back();
        for chunk in chunks {
            for record in chunk {
                self.table.restore(record);
            }
            // To workers on the same processor.
            std::thread::yield_now();
        }
    }

    fn keep_bad_ones_out(&self, restored: &Restored) {
        for bad in &restored.bad {
            let lease = bad.lease.map(|lease| lease.to_string());
            warn!(lease, reason = bad.reason, "unreadable binding: its lease is kept out of use");
            if let Some(lease) = bad.lease {
                let stamp = restored.stamp_max;
                self.table.restore(Record { binding: kept_out(lease), stamp });
            }
        }
        if restored.bad_count > 0 {
            warn!(count = restored.bad_count, "bindings could not be read");
        }
    }
}

/// In place of a binding that cannot be read: some client may still use the lease, so nobody else
/// gets it while this process runs.
fn kept_out(lease: Lease) -> Binding {
    let now = wall_clock();
    Binding {
        lease,
        kind: if lease.prefix_len == 128 { IaKind::Na } else { IaKind::Pd },
        status: BindingStatus::Abandoned,
        start_time_of_state: now,
        state_expiration_time: AbsoluteTime::INFINITE,
        ..Binding::EMPTY
    }
}

/// A line of log each second, for databases that take longer than that.
pub fn log_progress() -> impl FnMut(Progress) {
    let mut due = Instant::now() + Duration::from_secs(1);
    move |progress| {
        if Instant::now() >= due {
            due = Instant::now() + Duration::from_secs(1);
            info!(?progress, "reading the store");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use gemel_lease::{
        ClientDuid, Ownership, PoolConfig, PoolRange, PoolSet, TableConfig, Terms, UpdateBatch,
        UpdateSink as _,
    };
    use gemel_store::{Durability, StoreConfig};
    use gemel_wire::IaId;

    use super::*;

    const N: u32 = 5000;
    const NOW: AbsoluteTime = AbsoluteTime(800_000_000);

    fn open(dir: &Path) -> Store {
        let config = StoreConfig {
            segment_len: 1 << 20,
            checkpoint_interval: Duration::from_millis(1),
            ..StoreConfig::new(dir, Durability::Process, [7; 32])
        };
        Store::open(config, |_| {}).unwrap()
    }

    fn new_table() -> Arc<LeaseTable> {
        let range = PoolRange::Addresses {
            first: "2001:db8::".parse().unwrap(),
            last: "2001:db8::ffff".parse().unwrap(),
        };
        let pools = PoolSet::new(vec![PoolConfig { range, ownership: Ownership::Sole }]).unwrap();
        Arc::new(LeaseTable::new(&TableConfig::default(), pools))
    }

    fn lease(number: u32) -> Lease {
        Lease::address((0x2001_0db8_u128 << 96 | u128::from(number)).into())
    }

    fn binding(number: u32, status: BindingStatus) -> Binding {
        Binding {
            lease: lease(number),
            status,
            duid: ClientDuid::new(&number.to_be_bytes()),
            iaid: IaId(1),
            state_expiration_time: NOW.plus(100),
            ..Binding::EMPTY
        }
    }

    fn fill(store: &mut Store) {
        let mut batch = UpdateBatch::default();
        for number in 0..N {
            batch.push(&binding(number, BindingStatus::Active), u64::from(number) + 1);
        }
        store.append(batch.as_bytes()).unwrap();
        store.commit().unwrap();
        store.checkpoint().unwrap();
        // Released, and not in the checkpoint.
        batch.clear();
        batch.push(&binding(9, BindingStatus::Free), u64::from(N) + 1);
        store.append(batch.as_bytes()).unwrap();
        store.commit().unwrap();
    }

    fn extend(table: &LeaseTable, number: u32, sink: &mut UpdateBatch) -> bool {
        let duid = number.to_be_bytes();
        let key = ClientKey { duid: &duid, kind: IaKind::Na, iaid: IaId(1) };
        let terms = Terms::unlimited(1000, 1000);
        table.lock(key).extend(lease(number), &terms, NOW, sink).is_some()
    }

    #[test]
    fn the_table_is_filled_beside_renewals_which_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        fill(&mut store);
        drop(store);

        let mut store = open(dir.path());
        let before = store.monitor().status().checkpoint;
        let table = new_table();
        let service = ServiceState::warming();
        let mut warming = Warming::start(&mut store, &table, 64, Instant::now()).unwrap();
        let recall = warming.recall();
        let mut sink = UpdateBatch::default();
        let renewed: Vec<u32> = (0..N).step_by(7).collect();
        for &number in &renewed {
            let duid = number.to_be_bytes();
            let key = ClientKey { duid: &duid, kind: IaKind::Na, iaid: IaId(1) };
            recall.recall(&table, key, lease(number));
            // Nobody gets what another client has.
            let other = ClientKey { duid: b"another", ..key };
            recall.recall(&table, other, lease(number));
            assert!(extend(&table, number, &mut sink));
        }
        store.append(sink.as_bytes()).unwrap();
        store.commit().unwrap();
        assert_eq!(store.monitor().status().checkpoint, before, "no checkpoint meanwhile");
        assert!(store.checkpoint().is_err());

        warming.finish(&mut store, &table, &service).unwrap();
        assert!(!service.load().is_warming());
        assert_eq!(warming.warmth().view(), None);
        assert_eq!(table.len(), N as usize - 1, "what was released is not back");
        assert!(table.is_free(lease(9)));
        store.checkpoint().unwrap();
        assert!(store.monitor().status().checkpoint > before);
        // A worker that has not heard of the end brings nothing back.
        let duid = 9_u32.to_be_bytes();
        let key = ClientKey { duid: &duid, kind: IaKind::Na, iaid: IaId(1) };
        recall.recall(&table, key, lease(9));
        assert!(table.is_free(lease(9)));
        warming.stop();
        drop(store);

        let mut store = open(dir.path());
        let again = new_table();
        let mut warming = Warming::start(&mut store, &again, 64, Instant::now()).unwrap();
        warming.finish(&mut store, &again, &ServiceState::warming()).unwrap();
        for number in 0..N {
            assert_eq!(again.binding(lease(number)), table.binding(lease(number)), "{number}");
        }
        assert_eq!(
            again.binding(lease(7)).unwrap().state_expiration_time,
            NOW.plus(1000),
            "as it was extended"
        );
        warming.stop();
    }

    #[test]
    fn a_server_that_stops_early_leaves_everything_in_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        fill(&mut store);
        drop(store);
        let mut store = open(dir.path());
        let table = new_table();
        let mut warming = Warming::start(&mut store, &table, 64, Instant::now()).unwrap();
        let mut sink = UpdateBatch::default();
        let duid = 3_u32.to_be_bytes();
        let key = ClientKey { duid: &duid, kind: IaKind::Na, iaid: IaId(1) };
        warming.recall().recall(&table, key, lease(3));
        assert!(extend(&table, 3, &mut sink));
        store.append(sink.as_bytes()).unwrap();
        store.commit().unwrap();
        drop(warming.take_end());
        warming.stop();
        assert!(store.checkpoint().is_err());
        drop(store);

        let mut store = open(dir.path());
        let mut found = None;
        let each = |record: Record| {
            if record.binding.lease == lease(3) {
                found = Some(record.binding.state_expiration_time);
            }
        };
        assert_eq!(store.restore(each, |_| {}).unwrap().records, u64::from(N));
        assert_eq!(found, Some(NOW.plus(1000)));
    }
}
