//! The seam between the workers and the control thread.
//!
//! A worker hands over a batch of updates ([`Submission`]) and keeps the replies that depend on it.
//! The control thread stores the batch and gives it back with its fate ([`Resolution`]); then the
//! replies leave, or are dropped. A worker's batches are resolved in the order of submission.
//! Every channel is bounded by the number of batch buffers, which are made at start.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    time::Instant,
};

use crossbeam::channel::{Receiver, Sender, bounded};
use gemel_lease::UpdateBatch;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Batch buffers per worker: how many batches of one worker may be on their way at once.
pub(crate) const BATCHES: usize = 16;
/// Octets reserved in a batch buffer: some hundred updates.
const BATCH_OCTETS: usize = 64 << 10;

/// Updates on their way to stable storage.
#[derive(Debug)]
pub struct Submission {
    /// Which worker, as numbered by [`Submitter`].
    pub worker: usize,
    /// Counts the worker's batches.
    pub sequence: u64,
    /// When it was handed over.
    pub submitted: Instant,
    /// The updates.
    pub batch: UpdateBatch,
}

/// The fate of a [`Submission`].
#[derive(Debug)]
pub struct Resolution {
    /// The worker's count.
    pub sequence: u64,
    /// Whether the updates are on stable storage.
    pub stored: bool,
    /// The buffer, to be used again.
    pub batch: UpdateBatch,
}

/// Wakes a worker that waits for something to do.
#[derive(Debug)]
pub struct Waker {
    event: EventFd,
    parked: AtomicBool,
    bell: Option<Bell>,
}

/// Wakes a thread that is not a packet worker and waits at the other end of a channel. Rung any
/// number of times before the thread looks, it wakes it once.
#[derive(Clone, Debug)]
pub struct Bell(Sender<()>);

impl Bell {
    /// A bell, and the end to wait at.
    #[must_use]
    pub fn new() -> (Self, Receiver<()>) {
        let (sender, receiver) = bounded(1);
        (Self(sender), receiver)
    }

    /// Wakes the thread.
    pub fn ring(&self) {
        // Full: it has been rung and not been heard yet.
        let _ = self.0.try_send(());
    }
}

impl Waker {
    fn new(bell: Option<Bell>) -> io::Result<Self> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let event = EventFd::from_value_and_flags(0, flags)?;
        Ok(Self { event, parked: AtomicBool::new(false), bell })
    }

    /// Wakes the worker if it sleeps; costs a load otherwise.
    pub fn wake(&self) {
        if let Some(bell) = &self.bell {
            bell.ring();
            return;
        }
        // Orders what was done before (a resolution sent) with the look at `parked`; the worker
        // does the reverse in `park`.
        fence(Ordering::SeqCst);
        if self.parked.load(Ordering::Relaxed) && self.parked.swap(false, Ordering::Relaxed) {
            // Fails only if the counter is full, and then the worker wakes anyway.
            let _ = self.event.write(1);
        }
    }

    /// Says that the worker is about to sleep; it must look once more for work before it does.
    pub(crate) fn park(&self) {
        self.parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn unpark(&self) {
        self.parked.store(false, Ordering::Relaxed);
        // Fails with EAGAIN where nobody had written.
        let _ = self.event.read();
    }

    pub(crate) fn readable(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// What the workers may do, as far as the store is concerned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StoreState {
    /// Updates can be stored.
    Working,
    /// The store has failed, and updates may be on their way that the lease table holds already:
    /// no answer may rest on a binding until they are known.
    Settling,
    /// The store has failed; bindings whose last update is not stored are marked in the table.
    Failed,
}

/// Beside the state in the two lowest bits; the number of the change stands above.
const WARMING: u64 = 4;
const CHANGE: u64 = 8;

/// The state of the store, shared by the control thread and the workers.
///
/// Each change has a number, and a worker acknowledges it ([`Submitter::acknowledge`]) when none of
/// the updates that it made before it saw the change is left in its hands.
#[derive(Debug, Default)]
pub struct ServiceState {
    word: AtomicU64,
    /// Of the control thread's own updates.
    unstored: Unstored,
}

/// The least stamp of a thread's updates that may be in the lease table and not on stable storage;
/// nothing is in doubt below it.
///
/// Who asks reads the table's last stamp first, and this after it ([`stored_before`]); who is about
/// to make updates says so here first, and takes stamps after it. So either the doubt is seen or
/// the stamps are later than the one that was read.
#[derive(Clone, Debug)]
struct Unstored(Arc<AtomicU64>);

/// No updates of a thread are on their way.
const NONE_UNSTORED: u64 = u64::MAX;

impl Default for Unstored {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(NONE_UNSTORED)))
    }
}

impl Unstored {
    fn set(&self, stamp: u64) {
        self.0.store(stamp, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A stamp below which all changes of the lease table are on stable storage, but for those of
/// threads that are not among `resolvers`; and for those noted as unstored after a failure.
/// `last_stamp` gives the table's last stamp.
pub fn stored_before<'r>(
    last_stamp: impl FnOnce() -> u64,
    service: &ServiceState,
    resolvers: impl IntoIterator<Item = &'r Resolver>,
) -> u64 {
    let next = last_stamp() + 1;
    fence(Ordering::SeqCst);
    let of_workers = resolvers.into_iter().map(|resolver| resolver.unstored.get());
    of_workers.fold(next.min(service.unstored.get()), u64::min)
}

/// A state of the store, and the number of the change that brought it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ServiceWord(u64);

impl ServiceWord {
    /// The state.
    #[must_use]
    pub fn state(self) -> StoreState {
        match self.0 % 4 {
            0 => StoreState::Working,
            1 => StoreState::Settling,
            _ => StoreState::Failed,
        }
    }

    /// Whether the lease table is still being filled after a start, so that it does not say which
    /// leases are free.
    #[must_use]
    pub fn is_warming(self) -> bool {
        self.0 & WARMING != 0
    }
}

impl ServiceState {
    /// A store that works, and a lease table that is still being filled.
    #[must_use]
    pub fn warming() -> Self {
        Self { word: AtomicU64::new(WARMING), ..Self::default() }
    }

    /// The present state.
    #[must_use]
    pub fn load(&self) -> ServiceWord {
        ServiceWord(self.word.load(Ordering::Acquire))
    }

    /// Changes the state. The control thread alone does that.
    pub fn set(&self, state: StoreState) -> ServiceWord {
        let code = match state {
            StoreState::Working => 0,
            StoreState::Settling => 1,
            StoreState::Failed => 2,
        };
        self.change(|before| before & WARMING | code)
    }

    /// Says that the lease table holds every binding. The control thread alone does that.
    pub fn end_warming(&self) -> ServiceWord {
        self.change(|before| before & (WARMING - 1))
    }

    /// The control thread is about to make updates of its own, with stamps after this one.
    pub fn begin_own(&self, last_stamp: u64) {
        // Those from before may not be stored yet.
        if self.unstored.get() == NONE_UNSTORED {
            self.unstored.set(last_stamp + 1);
        }
    }

    /// They are stored, or noted as unstored.
    pub fn end_own(&self) {
        self.unstored.set(NONE_UNSTORED);
    }

    fn change(&self, bits: impl FnOnce(u64) -> u64) -> ServiceWord {
        let before = self.word.load(Ordering::Relaxed);
        let word = (before / CHANGE + 1) * CHANGE + bits(before);
        self.word.store(word, Ordering::Release);
        ServiceWord(word)
    }
}

/// A worker's end.
#[derive(Debug)]
pub struct Submitter {
    worker: usize,
    submissions: Sender<Submission>,
    resolutions: Receiver<Resolution>,
    spare: Vec<UpdateBatch>,
    open: UpdateBatch,
    sequence: u64,
    waker: Arc<Waker>,
    acknowledged: Arc<AtomicU64>,
    unstored: Unstored,
    /// The least stamp of the open batch, if [`Submitter::mark`] was called for it, and of those on
    /// their way.
    open_from: Option<u64>,
    on_their_way: VecDeque<u64>,
}

/// The control thread's end for one worker.
#[derive(Clone, Debug)]
pub struct Resolver {
    resolutions: Sender<Resolution>,
    waker: Arc<Waker>,
    acknowledged: Arc<AtomicU64>,
    unstored: Unstored,
}

impl Resolver {
    /// Gives a batch back with its fate.
    pub fn resolve(&self, resolution: Resolution) {
        // The channel holds all of the worker's batches, so it is never full; a worker that has
        // ended needs nothing any more.
        let _ = self.resolutions.try_send(resolution);
    }

    /// Whether the worker has seen this change, and handed over all updates from before it.
    #[must_use]
    pub fn has_acknowledged(&self, word: ServiceWord) -> bool {
        self.acknowledged.load(Ordering::Acquire) >= word.0
    }

    /// Wakes the worker; once after all of a round's resolutions.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// The waker alone, to stop the worker.
    #[must_use]
    pub fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }
}

/// Connects a worker, numbered by the caller, with the control thread behind `submissions`.
///
/// # Errors
/// If the kernel has no event descriptor left.
pub fn connect(
    worker: usize,
    submissions: Sender<Submission>,
) -> io::Result<(Submitter, Resolver)> {
    connect_through(worker, submissions, Waker::new(None)?)
}

/// As [`connect`], for a thread that is woken by a bell: it never parks.
///
/// # Errors
/// As there.
pub fn connect_with_bell(
    worker: usize,
    submissions: Sender<Submission>,
    bell: Bell,
) -> io::Result<(Submitter, Resolver)> {
    connect_through(worker, submissions, Waker::new(Some(bell))?)
}

fn connect_through(
    worker: usize,
    submissions: Sender<Submission>,
    waker: Waker,
) -> io::Result<(Submitter, Resolver)> {
    let (sender, receiver) = bounded(BATCHES);
    let waker = Arc::new(waker);
    let batch = || UpdateBatch::with_capacity(BATCH_OCTETS);
    let submitter = Submitter {
        worker,
        submissions,
        resolutions: receiver,
        spare: (1..BATCHES).map(|_| batch()).collect(),
        open: batch(),
        sequence: 1,
        waker: Arc::clone(&waker),
        acknowledged: Arc::default(),
        unstored: Unstored::default(),
        open_from: None,
        on_their_way: VecDeque::with_capacity(BATCHES),
    };
    let acknowledged = Arc::clone(&submitter.acknowledged);
    let unstored = submitter.unstored.clone();
    Ok((submitter, Resolver { resolutions: sender, waker, acknowledged, unstored }))
}

impl Submitter {
    /// The batch that takes updates now, and its sequence number.
    pub fn open(&mut self) -> (&mut UpdateBatch, u64) {
        (&mut self.open, self.sequence)
    }

    /// Says that updates with stamps after the last one may follow in the open batch. A thread whose
    /// updates wait for nothing that the partner hears of need not say so.
    pub fn mark(&mut self, last_stamp: impl FnOnce() -> u64) {
        if self.open_from.is_none() {
            self.open_from = Some(last_stamp() + 1);
            self.publish();
        }
    }

    fn publish(&self) {
        let first = self.on_their_way.front().copied().or(self.open_from);
        self.unstored.set(first.unwrap_or(NONE_UNSTORED));
    }

    /// Hands the open batch over, unless it is empty. Where every buffer is on its way or the
    /// control thread's queue is full, the batch stays open and grows until the next call. Tells the
    /// sequence number of what was handed over, and when.
    ///
    /// # Errors
    /// If the control thread has ended.
    pub fn submit(&mut self) -> Result<Option<(u64, Instant)>, ControlGone> {
        if self.open.is_empty() {
            if self.open_from.take().is_some() {
                self.publish();
            }
            return Ok(None);
        }
        let Some(fresh) = self.spare.pop() else { return Ok(None) };
        let batch = std::mem::replace(&mut self.open, fresh);
        let (sequence, submitted) = (self.sequence, Instant::now());
        let submission = Submission { worker: self.worker, sequence, submitted, batch };
        match self.submissions.try_send(submission) {
            Ok(()) => {
                self.sequence += 1;
                // In front of it there may be none, and what was published stays right.
                self.on_their_way.push_back(self.open_from.take().unwrap_or(NONE_UNSTORED));
                Ok(Some((sequence, submitted)))
            }
            Err(error) => {
                let gone = error.is_disconnected();
                let batch = error.into_inner().batch;
                self.spare.push(std::mem::replace(&mut self.open, batch));
                if gone { Err(ControlGone) } else { Ok(None) }
            }
        }
    }

    /// Says that every update that was made before `word` was seen has been handed over, if that
    /// is so: call it at the end of a turn in which `word` was the state.
    pub fn acknowledge(&self, word: ServiceWord) {
        if self.open.is_empty() {
            self.acknowledged.store(word.0, Ordering::Release);
        }
    }

    /// The next batch whose fate is known: its sequence number and whether it is stored.
    pub fn resolved(&mut self) -> Option<(u64, bool)> {
        let Resolution { sequence, stored, mut batch } = self.resolutions.try_recv().ok()?;
        batch.clear();
        self.spare.push(batch);
        if self.on_their_way.pop_front().is_some_and(|first| first != NONE_UNSTORED) {
            self.publish();
        }
        Some((sequence, stored))
    }

    /// Whether a resolution waits.
    pub(crate) fn has_resolution(&self) -> bool {
        !self.resolutions.is_empty()
    }

    pub(crate) fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }
}

/// The control thread has ended: nothing can be stored any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the control thread has ended, no update can be stored")]
pub struct ControlGone;

#[cfg(test)]
mod tests {
    use gemel_lease::UpdateSink;

    use super::*;

    #[test]
    fn the_states_of_store_and_table_change_one_by_one() {
        let service = ServiceState::warming();
        let mut before = service.load();
        assert_eq!((before.state(), before.is_warming()), (StoreState::Working, true));
        for (warming, state) in
            [(true, StoreState::Settling), (true, StoreState::Failed), (true, StoreState::Working)]
        {
            let word = service.set(state);
            assert_eq!((word, word.state(), word.is_warming()), (service.load(), state, warming));
            assert!(word.0 > before.0, "a later change has a larger number");
            before = word;
        }
        service.set(StoreState::Settling);
        let word = service.end_warming();
        assert_eq!((word.state(), word.is_warming()), (StoreState::Settling, false));
        assert!(!service.set(StoreState::Working).is_warming(), "it does not come back");
        assert!(!ServiceState::default().load().is_warming());
    }

    #[test]
    fn what_may_not_be_stored_is_known_by_its_stamp() {
        let service = ServiceState::default();
        let (sender, submissions) = bounded(4);
        let (mut submitter, resolver) = connect(0, sender).unwrap();
        let before = |stamp| stored_before(|| stamp, &service, [&resolver]);
        let update = |submitter: &mut Submitter, stamp| {
            submitter.mark(|| stamp - 1);
            submitter.open().0.push(&gemel_lease::Binding::EMPTY, stamp);
        };
        assert_eq!(before(7), 8, "what comes now");
        update(&mut submitter, 8);
        update(&mut submitter, 9);
        assert_eq!(before(9), 8);
        submitter.submit().unwrap().unwrap();
        assert_eq!(before(9), 8, "on its way");
        update(&mut submitter, 12);
        submitter.submit().unwrap().unwrap();
        let resolve = || {
            let Submission { sequence, batch, .. } = submissions.recv().unwrap();
            resolver.resolve(Resolution { sequence, stored: true, batch });
        };
        resolve();
        assert_eq!(before(12), 8, "the worker has not heard of it");
        submitter.resolved().unwrap();
        assert_eq!(before(12), 12);
        resolve();
        submitter.resolved().unwrap();
        assert_eq!(before(12), 13);
        // A turn that makes no updates.
        submitter.mark(|| 12);
        assert_eq!(before(20), 13);
        submitter.submit().unwrap();
        assert_eq!(before(20), 21);
        service.begin_own(20);
        assert_eq!(before(25), 21);
        service.end_own();
        assert_eq!(before(25), 26);
    }

    #[test]
    fn a_bell_wakes_who_waits_for_it() {
        let (bell, heard) = Bell::new();
        let (sender, submissions) = bounded(1);
        let (_submitter, resolver) = connect_with_bell(0, sender, bell.clone()).unwrap();
        resolver.wake();
        resolver.waker().wake();
        bell.ring();
        assert_eq!((heard.try_recv(), heard.try_recv().is_err()), (Ok(()), true));
        drop(submissions);
    }
}
