//! The control thread: takes the workers' updates, makes them durable together, and tells the
//! workers which replies may leave. It also ends leases that are due.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crossbeam::channel::{Receiver, RecvTimeoutError};
use gemel_lease::{AbsoluteTime, LeaseTable, UpdateBatch};
use gemel_server::Service;
use gemel_store::{Store, StoreError};
use gemel_worker::{
    submit::{Resolution, Resolver, ServiceState, Submission},
    wall_clock,
};
use parking_lot::{Mutex, RwLock};
use tracing::{error, info};

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
/// Pause between looks at a full journal, which the checkpoint thread drains.
const JOURNAL_FULL_PAUSE: Duration = Duration::from_millis(2);

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
    full_since: Option<Instant>,
}

impl<J: Journal> Control<J> {
    /// Puts the parts together.
    pub fn new(
        journal: J,
        table: Arc<LeaseTable>,
        submissions: Receiver<Submission>,
        resolvers: Resolvers,
        service: Arc<ServiceState>,
        status: Arc<Mutex<ControlStatus>>,
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
            full_since: None,
        }
    }

    /// Runs until every worker is gone and all that they handed over is resolved; gives the
    /// journal back.
    pub fn run(mut self) -> J {
        loop {
            let connected = self.take();
            self.round(Instant::now(), wall_clock());
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
        let due = self.retry_due.unwrap_or(self.expire_due).min(self.expire_due);
        let mut connected = true;
        if self.taken.is_empty() {
            let wait = due.saturating_duration_since(Instant::now());
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

    /// One group commit, and whatever else is due at `now`.
    fn round(&mut self, now: Instant, wall: AbsoluteTime) {
        if self.retry_due.is_some_and(|due| now >= due) {
            self.try_to_recover(now);
        }
        if self.retry_due.is_some() {
            self.refuse_all();
            return;
        }
        if now >= self.expire_due {
            let ended = self.table.expire(wall, EXPIRE_MAX, &mut self.own);
            self.status.lock().expired += ended.ended as u64;
            self.expire_due = if ended.more { now } else { now + EXPIRE_EVERY };
        }
        if self.taken.is_empty() && self.own.is_empty() {
            return;
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
        self.journal.commit()?;
        self.status.lock().commits += 1;
        self.own.clear();
        self.resolve(appended, true);
        full.map_or(Ok(()), Err)
    }

    /// Gives the first `count` submissions back to their workers.
    fn resolve(&mut self, count: usize, stored: bool) {
        let resolvers = self.resolvers.read();
        let mut woken: [bool; 256] = [false; 256];
        for Submission { worker, sequence, batch } in self.taken.drain(..count) {
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
        self.service.set(Service::ReadOnly);
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
        self.own.clear();
        self.refuse_all();
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
                self.retry_due = None;
                self.status.lock().failed = None;
                self.service.set(Service::Full);
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
