//! The control thread: takes the workers' updates, makes them durable together, and tells the
//! workers which replies may leave. It also ends leases that are due.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crossbeam::channel::{Receiver, RecvTimeoutError, TryRecvError};
use gemel_lease::{AbsoluteTime, LeaseTable, UpdateBatch};
use gemel_store::{Store, StoreError};
use gemel_worker::{
    stages::{Recorder, Stage},
    submit::{Resolution, Resolver, ServiceState, ServiceWord, StoreState, Submission},
    wall_clock,
};
use parking_lot::{Mutex, RwLock};
use tracing::{error, info};

use crate::{
    pair::tap::Tap,
    warm::{EndWarmUp, Warmth, end_warm_up},
};

/// Submissions that one group commit takes at most, so that a reply never waits for an endless one.
const COMMIT_SUBMISSIONS_MAX: usize = 1024;
/// How often leases that are due are ended.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// Leases ended at once, so that a mass expiry does not hold up the replies.
const EXPIRE_MAX: usize = 4096;
/// How often a store that failed is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long a full journal may hold up the replies before the server goes read-only.
const JOURNAL_FULL_PATIENCE: Duration = Duration::from_secs(5);
/// Pause between looks at whether all workers have heard of a failure.
const SETTLING_PAUSE: Duration = Duration::from_millis(2);
/// Pause between looks at a full journal, which the checkpoint thread drains.
const JOURNAL_FULL_PAUSE: Duration = Duration::from_millis(2);
/// Pause between looks at whether the lease table has been filled, where nothing else is to be done.
const WARMING_PAUSE: Duration = Duration::from_millis(10);

/// What the control thread needs of a store; [`Store`] is the one that counts.
pub trait Journal {
    /// See [`Store::append`].
    ///
    /// # Errors
    /// As there.
    fn append(&mut self, updates: &[u8]) -> Result<(), StoreError>;

    /// See [`Store::commit`].
    ///
    /// # Errors
    /// As there.
    fn commit(&mut self) -> Result<(), StoreError>;

    /// See [`Store::retry`].
    ///
    /// # Errors
    /// As there.
    fn retry(&mut self) -> Result<(), StoreError>;
}

impl Journal for Store {
    fn append(&mut self, updates: &[u8]) -> Result<(), StoreError> {
        Self::append(self, updates).map(drop)
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        Self::commit(self).map(drop)
    }

    fn retry(&mut self) -> Result<(), StoreError> {
        Self::retry(self)
    }
}

/// The control thread's ends of the workers' channels, by worker number.
pub type Resolvers = Arc<RwLock<Vec<Option<Resolver>>>>;

/// What the control thread tells the operator.
#[derive(Clone, Debug, Default)]
pub struct ControlStatus {
    /// Why and since when nothing can be stored.
    pub failed: Option<(String, SystemTime)>,
    /// Times that the store has failed.
    pub failures: u64,
    /// Group commits.
    pub commits: u64,
    /// Leases ended because their time had come.
    pub expired: u64,
    /// Commits that had to wait for a full journal.
    pub journal_full: u64,
}

/// The state of the control thread; [`Control::run`] is the thread.
pub struct Control<J> {
    journal: J,
    table: Arc<LeaseTable>,
    submissions: Receiver<Submission>,
    resolvers: Resolvers,
    service: Arc<ServiceState>,
    status: Arc<Mutex<ControlStatus>>,
    /// Taken from the channel and not resolved yet, in order.
    taken: VecDeque<Submission>,
    /// Updates of our own: leases that have ended.
    own: UpdateBatch,
    expire_due: Instant,
    retry_due: Option<Instant>,
    /// The failure that not every worker has acknowledged yet.
    settling: Option<ServiceWord>,
    full_since: Option<Instant>,
    /// To the pair thread, if there is one.
    tap: Option<Tap>,
    recorder: Option<Recorder>,
    /// While the lease table is being filled.
    warming: Option<(Receiver<EndWarmUp<J>>, Arc<Warmth>)>,
}

impl<J: Journal> Control<J> {
    /// Puts the parts together. `tap` hears of everything that becomes durable.
    pub fn new(
        journal: J,
        table: Arc<LeaseTable>,
        submissions: Receiver<Submission>,
        resolvers: Resolvers,
        service: Arc<ServiceState>,
        status: Arc<Mutex<ControlStatus>>,
        tap: Option<Tap>,
    ) -> Self {
        Self {
            journal,
            table,
            submissions,
            resolvers,
            service,
            status,
            taken: VecDeque::with_capacity(COMMIT_SUBMISSIONS_MAX),
            own: UpdateBatch::default(),
            expire_due: Instant::now() + EXPIRE_EVERY,
            retry_due: None,
            settling: None,
            full_since: None,
            tap,
            recorder: None,
            warming: None,
        }
    }

    /// Begins with a lease table that is still being filled, as the service state says: leases do
    /// not end before `end` brings what ends the warm-up.
    #[must_use]
    pub fn while_warming(mut self, end: Receiver<EndWarmUp<J>>, warmth: Arc<Warmth>) -> Self {
        self.warming = Some((end, warmth));
        self
    }

    /// Has what each group commit does timed.
    #[must_use]
    pub fn with_recorder(mut self, recorder: Recorder) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// Runs until every worker is gone and all that they handed over is resolved; gives the
    /// journal back.
    pub fn run(mut self) -> J {
        loop {
            let connected = self.take();
            self.look_at_warm_up();
            self.round(Instant::now(), wall_clock());
            if let Some(recorder) = &mut self.recorder {
                recorder.publish(Instant::now());
            }
            if !connected && self.taken.is_empty() {
                return self.journal;
            }
        }
    }

    /// Waits for submissions until something else is due. False when there can be none any more.
    fn take(&mut self) -> bool {
        if self.full_since.is_some() {
            // The checkpoint thread is what we wait for; it has no channel to us.
            std::thread::sleep(JOURNAL_FULL_PAUSE);
        }
        let due = self.next_due();
        let mut connected = true;
        if self.taken.is_empty() {
            let mut wait = due.saturating_duration_since(Instant::now());
            if self.settling.is_some() {
                wait = wait.min(SETTLING_PAUSE);
            }
            if self.warming.is_some() {
                wait = wait.min(WARMING_PAUSE);
            }
            match self.submissions.recv_timeout(wait) {
                Ok(submission) => self.taken.push_back(submission),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => connected = false,
            }
        }
        while self.taken.len() < COMMIT_SUBMISSIONS_MAX {
            let Ok(submission) = self.submissions.try_recv() else { break };
            self.taken.push_back(submission);
        }
        connected
    }

    /// When something is to be done that nobody submits.
    fn next_due(&self) -> Instant {
        match self.retry_due {
            // While the store fails, nothing expires either.
            Some(retry) => retry,
            // Nothing expires in a table that is being filled.
            None if self.service.load().is_warming() => Instant::now() + EXPIRE_EVERY,
            None => self.expire_due,
        }
    }

    /// Ends the warm-up when the table is full.
    fn look_at_warm_up(&mut self) {
        let Some((end, warmth)) = &self.warming else { return };
        match end.try_recv() {
            Ok(end) => {
                end_warm_up(end, &mut self.journal, &self.table, &self.service, warmth);
                self.warming = None;
            }
            Err(TryRecvError::Empty) => {}
            // It has failed, which the main thread hears; nothing ends in a table with gaps.
            Err(TryRecvError::Disconnected) => self.warming = None,
        }
    }

    /// One group commit, and whatever else is due at `now`.
    fn round(&mut self, now: Instant, wall: AbsoluteTime) {
        if self.retry_due.is_some_and(|due| now >= due) {
            self.try_to_recover(now);
        }
        if self.retry_due.is_some() {
            self.refuse_all();
            self.try_to_settle();
            return;
        }
        if now >= self.expire_due && !self.service.load().is_warming() {
            self.service.begin_own(self.table.stamp());
            let ended = self.table.expire(wall, EXPIRE_MAX, &mut self.own);
            self.status.lock().expired += ended.ended as u64;
            self.expire_due = if ended.more { now } else { now + EXPIRE_EVERY };
        }
        if self.own.is_empty() {
            self.service.end_own();
            if self.taken.is_empty() {
                return;
            }
        }
        match self.store() {
            Ok(()) => self.full_since = None,
            Err(error @ StoreError::JournalFull { .. }) => {
                self.status.lock().journal_full += 1;
                let since = *self.full_since.get_or_insert(now);
                if now.duration_since(since) > JOURNAL_FULL_PATIENCE {
                    self.fail(&error, now);
                }
            }
            Err(error) => self.fail(&error, now),
        }
    }

    /// Appends as much as the journal takes, commits it and resolves what is durable then. What
    /// the journal did not take stays in `taken`.
    fn store(&mut self) -> Result<(), StoreError> {
        let begun = Instant::now();
        let mut appended = 0;
        let mut full = None;
        if !self.own.is_empty() {
            self.journal.append(self.own.as_bytes())?;
        }
        for submission in &self.taken {
            match self.journal.append(submission.batch.as_bytes()) {
                Ok(()) => appended += 1,
                Err(error @ StoreError::JournalFull { .. }) => {
                    full = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let written = Instant::now();
        self.journal.commit()?;
        self.record(begun, written, appended);
        self.status.lock().commits += 1;
        if let Some(tap) = &mut self.tap {
            tap.add(None, self.own.as_bytes());
            for Submission { worker, batch, .. } in self.taken.iter().take(appended) {
                tap.add(Some(*worker), batch.as_bytes());
            }
        }
        self.own.clear();
        self.service.end_own();
        // The workers first: their clients wait, the partner does not.
        self.resolve(appended, true);
        if let Some(tap) = &mut self.tap {
            tap.committed();
        }
        full.map_or(Ok(()), Err)
    }

    /// Times a group commit of the first `appended` submissions, which has just ended.
    fn record(&mut self, begun: Instant, written: Instant, appended: usize) {
        let Some(recorder) = &mut self.recorder else { return };
        let mut updates = self.own.len();
        for Submission { submitted, batch, .. } in self.taken.iter().take(appended) {
            recorder.record_span(Stage::BatchWait, *submitted, begun, 1);
            updates += batch.len();
        }
        recorder.record_span(Stage::Append, begun, written, 1);
        recorder.record_span(Stage::Sync, written, Instant::now(), 1);
        recorder.record(Stage::SyncRecords, updates as u64);
    }

    /// Gives the first `count` submissions back to their workers.
    fn resolve(&mut self, count: usize, stored: bool) {
        let resolvers = self.resolvers.read();
        let mut woken: [bool; 256] = [false; 256];
        for Submission { worker, sequence, batch, .. } in self.taken.drain(..count) {
            let Some(Some(resolver)) = resolvers.get(worker) else { continue };
            resolver.resolve(Resolution { sequence, stored, batch });
            match woken.get_mut(worker) {
                Some(flag) => *flag = true,
                None => resolver.wake(),
            }
        }
        for (resolver, _) in resolvers.iter().zip(woken).filter(|(_, woken)| *woken) {
            if let Some(resolver) = resolver {
                resolver.wake();
            }
        }
    }

    /// The store does not take updates: nothing is granted until it does again.
    fn fail(&mut self, error: &StoreError, now: Instant) {
        self.settling = Some(self.service.set(StoreState::Settling));
        let reason = error_chain(error);
        error!(
            reason,
            "the store failed: leases are neither granted nor extended until it works again"
        );
        let mut status = self.status.lock();
        status.failed = Some((reason, SystemTime::now()));
        status.failures += 1;
        drop(status);
        self.retry_due = Some(now + RETRY_EVERY);
        self.full_since = None;
        for record in self.own.iter().flatten() {
            self.table.mark_unstored(record.binding.lease);
        }
        self.own.clear();
        self.service.end_own();
        self.refuse_all();
        for resolver in self.resolvers.read().iter().flatten() {
            resolver.wake();
        }
        self.try_to_settle();
    }

    /// After a failure: once every worker has handed over what it changed before it heard of it,
    /// all that is not stored is marked, and bindings that are not marked can be answered from.
    fn try_to_settle(&mut self) {
        let Some(word) = self.settling else { return };
        let all = self.resolvers.read().iter().flatten().all(|r| r.has_acknowledged(word));
        if all {
            // What was handed over before the acknowledgement is in the channel by now.
            self.taken.extend(self.submissions.try_iter());
            self.refuse_all();
            self.service.set(StoreState::Failed);
            self.settling = None;
        }
    }

    /// Marks what the workers changed in memory as not stored, and has their replies dropped.
    fn refuse_all(&mut self) {
        for submission in &self.taken {
            for record in submission.batch.iter().flatten() {
                self.table.mark_unstored(record.binding.lease);
            }
        }
        self.resolve(self.taken.len(), false);
    }

    /// Tries the store again; what was changed in memory only is stored first.
    fn try_to_recover(&mut self, now: Instant) {
        let mut unstored = UpdateBatch::default();
        let result = self.journal.retry().and_then(|()| {
            self.table.push_unstored(&mut unstored);
            if !unstored.is_empty() {
                self.journal.append(unstored.as_bytes())?;
            }
            self.journal.commit()
        });
        match result {
            Ok(()) => {
                self.table.clear_unstored();
                if let Some(tap) = &mut self.tap {
                    tap.missed();
                }
                self.retry_due = None;
                self.settling = None;
                self.status.lock().failed = None;
                self.service.set(StoreState::Working);
                info!(bindings = unstored.len(), "the store works again; serving in full");
            }
            Err(error) => {
                self.retry_due = Some(now + RETRY_EVERY);
                let mut status = self.status.lock();
                if let Some((reason, _)) = &mut status.failed {
                    *reason = error_chain(&error);
                }
            }
        }
    }
}

/// An error with its causes, in one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque as Queue, path::PathBuf};

    use crossbeam::channel::{Sender, bounded};
    use gemel_lease::{
        ClientKey, IaKind, Ownership, PoolConfig, PoolId, PoolRange, PoolSet, TableConfig, Terms,
    };
    use gemel_wire::IaId;
    use gemel_worker::submit::{self, Submitter};

    use super::*;

    /// A journal that does as it is told, and remembers what it was given.
    #[derive(Default)]
    struct Script {
        /// What the next calls of `append`, `commit` and `retry` fail with; `None` lets one pass.
        append: Queue<Option<StoreError>>,
        commit: Queue<Option<StoreError>>,
        retry: Queue<Option<StoreError>>,
        appended: Vec<u8>,
        durable: Vec<u8>,
    }

    fn next(queue: &mut Queue<Option<StoreError>>) -> Result<(), StoreError> {
        queue.pop_front().flatten().map_or(Ok(()), Err)
    }

    impl Journal for Script {
        fn append(&mut self, updates: &[u8]) -> Result<(), StoreError> {
            next(&mut self.append)?;
            self.appended.extend_from_slice(updates);
            Ok(())
        }

        fn commit(&mut self) -> Result<(), StoreError> {
            let result = next(&mut self.commit);
            let appended = std::mem::take(&mut self.appended);
            if result.is_ok() {
                self.durable.extend(appended);
            }
            result
        }

        fn retry(&mut self) -> Result<(), StoreError> {
            next(&mut self.retry)
        }
    }

    fn disk_full() -> StoreError {
        StoreError::NoSpace {
            path: PathBuf::from("journal"),
            needed: 1,
            source: std::io::Error::from(std::io::ErrorKind::StorageFull),
        }
    }

    fn journal_full() -> StoreError {
        StoreError::JournalFull { segments: 3, checkpoint: None }
    }

    struct Rig {
        control: Control<Script>,
        submitter: Submitter,
        table: Arc<LeaseTable>,
        _submissions: Sender<Submission>,
        begun: Instant,
    }

    const NOW: AbsoluteTime = AbsoluteTime(800_000_000);
    const TERMS: Terms = Terms::unlimited(60, 120);

    impl Rig {
        fn new(script: Script) -> Self {
            Self::with(script, Ownership::Sole)
        }

        fn with(script: Script, ownership: Ownership) -> Self {
            let range = PoolRange::Addresses {
                first: "2001:db8::1:0".parse().unwrap(),
                last: "2001:db8::1:ff".parse().unwrap(),
            };
            let pools = PoolSet::new(vec![PoolConfig { range, ownership }]).unwrap();
            let table = Arc::new(LeaseTable::new(&TableConfig::default(), pools));
            let (sender, submissions) = bounded(16);
            let (submitter, resolver) = submit::connect(0, sender.clone()).unwrap();
            let control = Control::new(
                script,
                Arc::clone(&table),
                submissions,
                Arc::new(RwLock::new(vec![Some(resolver)])),
                Arc::default(),
                Arc::default(),
                None,
            );
            Self { control, submitter, table, _submissions: sender, begun: Instant::now() }
        }

        fn key(client: &[u8]) -> ClientKey<'_> {
            ClientKey { duid: client, kind: IaKind::Na, iaid: IaId(1) }
        }

        fn grant(&mut self, client: &[u8]) -> gemel_lease::Lease {
            let (batch, _) = self.submitter.open();
            let mut guard = self.table.lock(Self::key(client));
            let lease = guard.grant(PoolId(0), None, &TERMS, NOW, batch).unwrap().lease;
            drop(guard);
            self.submitter.submit().unwrap();
            lease
        }

        /// A round as the thread makes it, `secs` after the start.
        fn round(&mut self, secs: u64) {
            while let Ok(submission) = self.control.submissions.try_recv() {
                self.control.taken.push_back(submission);
            }
            self.control.round(self.begun + Duration::from_secs(secs), NOW);
        }

        fn state(&self) -> StoreState {
            self.control.service.load().state()
        }

        /// What the worker does at the end of each turn.
        fn acknowledge(&mut self) {
            self.submitter.acknowledge(self.control.service.load());
        }

        fn durable(&self) -> Vec<gemel_lease::Lease> {
            gemel_lease::RecordIter::new(&self.control.journal.durable)
                .map(|record| record.unwrap().binding.lease)
                .collect()
        }
    }

    #[test]
    fn what_is_durable_is_resolved() {
        let mut rig = Rig::new(Script::default());
        let lease = rig.grant(b"one");
        rig.round(0);
        assert_eq!(rig.submitter.resolved(), Some((1, true)));
        assert_eq!(rig.durable(), [lease]);
        assert_eq!(rig.state(), StoreState::Working);
    }

    #[test]
    fn a_group_commit_is_timed() {
        let mut rig = Rig::new(Script::default());
        let (recorder, mut collector) = gemel_worker::stages::recorder(Stage::CONTROL);
        rig.control.recorder = Some(recorder);
        rig.grant(b"one");
        rig.grant(b"two");
        rig.round(0);
        rig.control.recorder.as_mut().unwrap().publish(Instant::now());
        collector.collect();
        let counts: Vec<u64> = collector.total().map(|(_, histogram)| histogram.len()).collect();
        assert_eq!(counts, [2, 1, 1, 1], "two batches waited for one append and one sync");
        let (_, records) = collector.total().last().unwrap();
        assert_eq!(records.max(), 2);
    }

    #[test]
    fn a_failed_sync_makes_the_server_read_only_until_all_is_stored() {
        let script = Script {
            commit: [Some(disk_full())].into(),
            retry: [Some(disk_full())].into(),
            ..Script::default()
        };
        let mut rig = Rig::new(script);
        let lost = rig.grant(b"one");
        rig.round(0);
        assert_eq!(rig.submitter.resolved(), Some((1, false)));
        assert_eq!(rig.state(), StoreState::Settling);
        assert!(rig.control.status.lock().failed.is_some());
        assert!(!rig.table.lock(Rig::key(b"one")).is_stored(lost));
        assert_eq!(rig.control.next_due(), rig.begun + RETRY_EVERY, "nothing is due before");

        // A worker that had not seen the flag yet: its update is marked before bindings are
        // answered from.
        let late = rig.grant(b"two");
        rig.round(0);
        assert_eq!(rig.state(), StoreState::Settling);
        rig.acknowledge();
        rig.round(0);
        assert_eq!(rig.submitter.resolved(), Some((2, false)));
        assert!(!rig.table.lock(Rig::key(b"two")).is_stored(late));
        assert_eq!(rig.state(), StoreState::Failed);

        rig.round(1);
        assert_eq!(rig.state(), StoreState::Failed, "the first retry fails, too");
        assert!(rig.durable().is_empty());
        rig.round(2);
        assert_eq!(rig.state(), StoreState::Working);
        let mut durable = rig.durable();
        durable.sort_unstable();
        let mut expected = [lost, late];
        expected.sort_unstable();
        assert_eq!(durable, expected, "stored before service is full again");
        assert!(rig.table.lock(Rig::key(b"one")).is_stored(lost));
        assert!(rig.control.status.lock().failed.is_none());
    }

    #[test]
    fn a_full_journal_holds_replies_up_and_loses_none() {
        let script = Script { append: [None, Some(journal_full())].into(), ..Script::default() };
        let mut rig = Rig::new(script);
        let first = rig.grant(b"one");
        let second = rig.grant(b"two");
        rig.round(0);
        assert_eq!(rig.submitter.resolved(), Some((1, true)), "what was appended is committed");
        assert_eq!(rig.submitter.resolved(), None);
        assert_eq!(rig.state(), StoreState::Working);
        rig.round(0);
        assert_eq!(rig.submitter.resolved(), Some((2, true)));
        assert_eq!(rig.durable(), [first, second]);
    }

    #[test]
    fn a_journal_that_stays_full_makes_the_server_read_only() {
        let script = Script {
            append: std::iter::repeat_with(|| Some(journal_full())).take(20).collect(),
            ..Script::default()
        };
        let mut rig = Rig::new(script);
        rig.grant(b"one");
        rig.round(0);
        assert_eq!(rig.state(), StoreState::Working);
        rig.round(1 + JOURNAL_FULL_PATIENCE.as_secs());
        assert_eq!(rig.state(), StoreState::Settling);
        rig.acknowledge();
        rig.round(1 + JOURNAL_FULL_PATIENCE.as_secs());
        assert_eq!(rig.state(), StoreState::Failed);
        assert_eq!(rig.submitter.resolved(), Some((1, false)));
    }

    #[test]
    fn leases_that_are_due_end_durably() {
        let mut rig = Rig::new(Script::default());
        let lease = rig.grant(b"one");
        rig.round(0);
        rig.control.expire_due = rig.begun;
        rig.control.round(rig.begun, NOW.plus(TERMS.valid_lifetime));
        assert_eq!(rig.table.len(), 0);
        assert_eq!(rig.durable(), [lease, lease]);
        assert_eq!(rig.control.status.lock().expired, 1);
    }

    /// The partner must not hear of an end that a restart would not know of.
    #[test]
    fn an_end_that_could_not_be_stored_is_stored_later() {
        let script = Script { commit: [None, Some(disk_full())].into(), ..Script::default() };
        let mut rig = Rig::with(script, Ownership::Primary);
        let lease = rig.grant(b"one");
        rig.round(0);
        rig.control.expire_due = rig.begun;
        rig.control.round(rig.begun, NOW.plus(TERMS.valid_lifetime));
        assert_eq!(rig.state(), StoreState::Settling);
        assert_eq!(rig.durable(), [lease]);
        rig.round(1 + RETRY_EVERY.as_secs());
        assert_eq!(rig.state(), StoreState::Working);
        assert_eq!(rig.durable(), [lease, lease]);
    }

    #[test]
    fn no_lease_ends_before_the_table_is_full() {
        let mut rig = Rig::new(Script::default());
        let service = Arc::new(ServiceState::warming());
        rig.control.service = Arc::clone(&service);
        let (ends, end) = bounded::<EndWarmUp<Script>>(1);
        let warmth = Arc::new(Warmth::new(Instant::now()));
        rig.control = rig.control.while_warming(end, Arc::clone(&warmth));
        let lease = rig.grant(b"one");
        rig.round(0);
        assert_eq!(rig.durable(), [lease], "updates are stored meanwhile");
        rig.control.look_at_warm_up();
        rig.control.expire_due = rig.begun;
        let over = NOW.plus(TERMS.valid_lifetime);
        rig.control.round(rig.begun, over);
        assert_eq!((rig.table.len(), rig.control.status.lock().expired), (1, 0));
        assert!(warmth.view().is_some());

        let table = Arc::clone(&rig.table);
        let at_the_end = Arc::clone(&service);
        let ended = Box::new(move |journal: &mut Script| {
            assert!(at_the_end.load().is_warming(), "the store is told first");
            assert_eq!((journal.durable.is_empty(), table.len()), (false, 1));
            Ok(())
        });
        assert!(ends.send(ended).is_ok());
        rig.control.look_at_warm_up();
        assert!(!service.load().is_warming());
        assert_eq!(warmth.view(), None);
        rig.control.round(rig.begun, over);
        assert_eq!((rig.table.len(), rig.control.status.lock().expired), (0, 1));
    }

    #[test]
    fn a_table_that_stays_incomplete_never_warms() {
        let mut rig = Rig::new(Script::default());
        rig.control.service = Arc::new(ServiceState::warming());
        let (ends, end) = bounded::<EndWarmUp<Script>>(1);
        rig.control = rig.control.while_warming(end, Arc::new(Warmth::new(Instant::now())));
        drop(ends);
        rig.control.look_at_warm_up();
        assert!(rig.control.warming.is_none());
        assert!(rig.control.service.load().is_warming());
    }
}
