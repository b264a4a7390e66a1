use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gemel_lease::{AbsoluteTime, ClientKey, Lease, LeaseTable};
use gemel_server::{Inbound, Outcome, Recall, Server, Service};
use gemel_wire::{MessageType, Packet};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    admission::Admission,
    counters::{Shed, WorkerCounters},
    port::{Origin, Port},
    stages::{Recorder, Stage},
    submit::{ControlGone, ServiceState, StoreState, Submitter},
    timing::Timing,
};

/// Turns without work before a worker sleeps.
const SPIN_TURNS: u32 = 32;
/// The longest sleep: an upper bound on how late a worker sees that it is to stop, should its
/// waker be lost.
const SLEEP_MS_MAX: u16 = 500;
/// How often counters that cost a system call are brought up to date.
const PORT_COUNTERS_EVERY: Duration = Duration::from_secs(1);
/// How long a worker that is to stop waits for the fate of held replies.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// Batches that a turn takes at most while Solicits are dropped: a whole ring of the usual size.
const SHEDDING_BATCHES: usize = 32;
/// Batches of requests that may be put aside while there is no place for their replies.
const DEFERRED_BATCHES: usize = 8;

/// Sizes of a worker, set at start.
#[derive(Clone, Copy, Debug)]
pub struct WorkerConfig {
    /// Datagrams per turn.
    pub batch: usize,
    /// Replies that may wait for the disk at once. Above half of it Solicits are dropped. At the
    /// whole of it requests that need such a place are put aside, some batches of them; then
    /// nothing more is received, and the ring of the network card takes up the slack.
    pub held_max: usize,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self { batch: 64, held_max: 4096 }
    }
}

/// Why a worker ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The interface is gone or its queue is taken away.
    #[error("packets can be neither received nor sent: {0}")]
    Port(#[from] io::Error),
    /// See [`ControlGone`].
    #[error(transparent)]
    Control(#[from] ControlGone),
}

/// The packet loop of one queue.
///
/// One turn takes a batch of requests, answers each at once or keeps the reply until the update
/// that it depends on is on stable storage, hands the updates of the whole batch to the control
/// thread and sends what may leave. When more comes in than can be answered it takes several
/// batches a turn, drops the Solicits in them unread and answers the rest.
pub struct Worker<P: Port> {
    port: P,
    server: Arc<Server>,
    submitter: Submitter,
    service: Arc<ServiceState>,
    /// While the lease table is being filled.
    recall: Arc<dyn Recall>,
    counters: Arc<WorkerCounters>,
    requests: Vec<P::Request>,
    held: VecDeque<Held<P::Reply>>,
    held_max: usize,
    /// Requests that wait for a place for their reply.
    deferred: VecDeque<Deferred<P::Request>>,
    deferred_max: usize,
    admission: Admission,
    timing: Timing,
}

/// A reply that waits for its batch of updates.
struct Held<R> {
    reply: R,
    reply_type: MessageType,
    sequence: u64,
    received: Instant,
}

/// A request that waits for a place for its reply.
struct Deferred<R> {
    request: R,
    msg_type: MessageType,
    received: Instant,
}

/// What holds for all answers of a turn.
#[derive(Clone, Copy)]
struct Turn {
    now: AbsoluteTime,
    store: StoreState,
    /// The lease table is still being filled.
    warming: bool,
}

/// Finds nothing: for a worker that has nowhere to look.
#[derive(Debug)]
struct NoRecall;

impl Recall for NoRecall {
    fn recall(&self, _: &LeaseTable, _: ClientKey<'_>, _: Lease) {}
}

impl<P: Port> Worker<P> {
    /// Puts the parts together; all memory that a turn needs is taken here. Without a recorder
    /// nothing is timed.
    pub fn new(
        port: P,
        server: Arc<Server>,
        submitter: Submitter,
        service: Arc<ServiceState>,
        counters: Arc<WorkerCounters>,
        recorder: Option<Recorder>,
        config: WorkerConfig,
    ) -> Self {
        let WorkerConfig { batch, held_max } = config;
        // A turn ends once a batch has been answered: one more may have begun then.
        let held_room = held_max + 2 * batch;
        let deferred_max = (DEFERRED_BATCHES * batch).min(held_max / 4);
        Self {
            port,
            server,
            submitter,
            service,
            recall: Arc::new(NoRecall),
            counters,
            requests: Vec::with_capacity(batch),
            held: VecDeque::with_capacity(held_room),
            held_max,
            deferred: VecDeque::with_capacity(deferred_max),
            deferred_max,
            admission: Admission::default(),
            timing: Timing::new(recorder, held_room + 2 * SHEDDING_BATCHES),
        }
    }

    /// Where leases are found that the table does not hold yet, while
    /// [`ServiceWord::is_warming`](crate::submit::ServiceWord::is_warming).
    #[must_use]
    pub fn with_recall(mut self, recall: Arc<dyn Recall>) -> Self {
        self.recall = recall;
        self
    }

    /// Runs until `stop` is set (and the waker woken) or the port or the control thread is gone.
    ///
    /// # Errors
    /// [`WorkerError`]; replies that were still held are dropped.
    pub fn run(mut self, stop: &AtomicBool) -> Result<(), WorkerError> {
        let mut idle = 0;
        let mut port_counters_due = Instant::now();
        while !stop.load(Ordering::Acquire) {
            let busy = self.turn(wall_clock())?;
            idle = if busy { 0 } else { idle + 1 };
            if idle >= SPIN_TURNS {
                self.sleep()?;
                idle = 0;
            }
            let now = Instant::now();
            if now >= port_counters_due {
                port_counters_due = now + PORT_COUNTERS_EVERY;
                self.counters.set_port(|visit| self.port.visit_counters(visit));
            }
            self.timing.publish(now);
        }
        self.finish()
    }

    /// One round: resolutions, requests, updates, replies. False if there was nothing to do.
    ///
    /// # Errors
    /// As [`Worker::run`].
    pub fn turn(&mut self, now: AbsoluteTime) -> Result<bool, WorkerError> {
        let mut busy = self.release_held();
        // One state for the whole turn: what is acknowledged below must hold for each answer.
        let word = self.service.load();
        let turn = Turn { now, store: word.state(), warming: word.is_warming() };
        busy |= self.serve_deferred(turn);
        busy |= self.receive(turn)?;
        self.submit()?;
        self.submitter.acknowledge(word);
        self.flush()?;
        self.counters.set_held(self.held.len());
        Ok(busy)
    }

    /// The port, for tests and for its file descriptors.
    pub fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }

    /// Replies that wait for the disk.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Hands the histograms to their reader, which [`Worker::run`] does by itself.
    pub fn publish(&mut self, now: Instant) {
        self.timing.publish(now);
    }

    /// Takes a batch and answers it; while Solicits are dropped, as many batches as it takes to
    /// answer one batch of other messages. False if nothing had come in.
    fn receive(&mut self, turn: Turn) -> Result<bool, WorkerError> {
        let batch = self.requests.capacity();
        let mut served = 0;
        for taken in 0..SHEDDING_BATCHES {
            if !self.may_receive() {
                return Ok(taken > 0);
            }
            let backlog = self.port.backlog();
            if let Some(change) = self.admission.look(backlog, self.held.len(), self.held_max) {
                self.counters.overload(change);
            }
            self.port.receive(&mut self.requests)?;
            if self.requests.is_empty() {
                return Ok(taken > 0);
            }
            self.counters.batch();
            self.timing.batch_received();
            let is_full = self.requests.len() == batch;
            let mut requests = std::mem::take(&mut self.requests);
            let mut left = requests.drain(..);
            while !left.as_slice().is_empty() {
                self.look_ahead(left.as_slice());
                for request in left.by_ref().take(Server::AHEAD) {
                    served += usize::from(self.admit(request, turn));
                }
            }
            drop(left);
            self.requests = requests;
            if self.admission.sheds().is_none() || !is_full || served >= batch {
                break;
            }
        }
        Ok(true)
    }

    /// Has the memory fetched that the answers to the next requests need, while nothing of it is used
    /// yet. Not while Solicits are dropped: many of the requests will not be answered then.
    fn look_ahead(&self, requests: &[P::Request]) {
        if self.admission.sheds().is_none() {
            let messages = requests
                .iter()
                .map(|request| (self.port.payload(request), self.port.origin(request).interface));
            self.server.look_ahead(messages);
        }
    }

    /// Whether there is a place for what comes in.
    fn may_receive(&self) -> bool {
        if self.held.len() < self.held_max {
            return self.deferred.is_empty();
        }
        self.deferred.len() + self.requests.capacity() <= self.deferred_max
    }

    /// Drops a request, puts it aside or answers it; true if it was answered.
    fn admit(&mut self, request: P::Request, turn: Turn) -> bool {
        let msg_type = innermost_type(self.port.payload(&request));
        self.counters.received(msg_type);
        if msg_type == MessageType::SOLICIT
            && let Some(cause) = self.admission.sheds()
        {
            self.counters.shed(cause);
            self.port.release(request);
            return false;
        }
        let is_full = self.held.len() >= self.held_max;
        if is_full && changes_bindings(msg_type) && self.deferred.len() < self.deferred_max {
            let received = self.timing.received();
            self.deferred.push_back(Deferred { request, msg_type, received });
            return false;
        }
        self.answer(&request, msg_type, turn);
        self.port.release(request);
        true
    }

    /// Answers requests that were put aside, oldest first, at most a batch of them.
    fn serve_deferred(&mut self, turn: Turn) -> bool {
        let mut any = false;
        for _ in 0..self.requests.capacity() {
            if self.held.len() >= self.held_max {
                break;
            }
            let Some(next) = self.deferred.pop_front() else { break };
            any = true;
            self.timing.set_received(next.received);
            self.answer(&next.request, next.msg_type, turn);
            self.port.release(next.request);
        }
        any
    }

    fn answer(&mut self, request: &P::Request, msg_type: MessageType, turn: Turn) {
        let Origin { source, source_port, destination, interface } = self.port.origin(request);
        let service = match turn.store {
            StoreState::Working => Service::Full,
            StoreState::Settling if rests_on_bindings(msg_type) => {
                self.counters.shed(Shed::StoreSettling);
                return;
            }
            StoreState::Settling | StoreState::Failed => Service::ReadOnly,
        };
        let Some(mut reply) = self.port.allocate() else {
            self.counters.shed(Shed::NoReplyBuffer);
            return;
        };
        let begun = self.timing.begin();
        let (payload, room) = self.port.buffers(request, &mut reply);
        let inbound = Inbound { payload, source, source_port, destination, interface };
        self.submitter.mark(|| self.server.table().stamp());
        let (updates, sequence) = self.submitter.open();
        let outcome = if turn.warming {
            let recall = &*self.recall;
            self.server.handle_warming(&inbound, turn.now, service, recall, room, updates)
        } else {
            self.server.handle(&inbound, turn.now, service, room, updates)
        };
        let begun = self.timing.stage_ends(Stage::Rules, begun);
        match outcome {
            Outcome::Drop(reason) => {
                self.counters.dropped(reason);
                self.port.discard(reply);
            }
            Outcome::Reply(info) => {
                if !self.port.address(request, &mut reply, info.len, info.destination_port) {
                    self.counters.shed(Shed::NotAddressable);
                    self.port.discard(reply);
                    return;
                }
                let received = self.timing.received();
                if info.held {
                    let reply_type = info.reply;
                    self.held.push_back(Held { reply, reply_type, sequence, received });
                } else {
                    self.counters.sent(info.reply);
                    self.port.send(reply);
                    self.timing.leaves(Stage::WholeImmediate, received, 1);
                }
                self.timing.stage_ends(Stage::Emit, begun);
            }
        }
    }

    /// Hands the open batch of updates to the control thread.
    fn submit(&mut self) -> Result<(), ControlGone> {
        if let Some((sequence, at)) = self.submitter.submit()? {
            self.timing.submitted(sequence, at);
        }
        Ok(())
    }

    /// Sends what is queued.
    fn flush(&mut self) -> io::Result<()> {
        let begun = self.timing.flush_begins();
        self.port.flush()?;
        self.timing.flushed(begun);
        Ok(())
    }

    /// Sends or drops held replies whose batch has been resolved. True if there was one.
    fn release_held(&mut self) -> bool {
        let mut any = false;
        while let Some((sequence, stored)) = self.submitter.resolved() {
            any = true;
            let mut replies = 0;
            while self.held.front().is_some_and(|held| held.sequence <= sequence) {
                let Some(held) = self.held.pop_front() else { break };
                replies += 1;
                if stored {
                    self.counters.sent(held.reply_type);
                    self.port.send(held.reply);
                    self.timing.leaves(Stage::WholeHeld, held.received, 1);
                } else {
                    self.counters.shed(Shed::NotStored);
                    self.port.discard(held.reply);
                }
            }
            self.timing.resolved(sequence, replies);
        }
        any
    }

    /// Sleeps until there is a request or a resolution.
    fn sleep(&mut self) -> Result<(), WorkerError> {
        let waker = Arc::clone(self.submitter.waker());
        waker.park();
        if self.submitter.has_resolution() {
            waker.unpark();
            return Ok(());
        }
        let timeout = if self.port.pending() { 1 } else { SLEEP_MS_MAX };
        let result = {
            let wake = PollFd::new(waker.readable(), PollFlags::POLLIN);
            if self.may_receive() {
                let port = PollFd::new(self.port.readable(), PollFlags::POLLIN);
                poll(&mut [wake, port], PollTimeout::from(timeout))
            } else {
                poll(&mut [wake], PollTimeout::from(timeout))
            }
        };
        waker.unpark();
        match result {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(WorkerError::Port(error.into())),
        }
    }

    /// Waits for the fate of what is held, so that a client is not left without the reply to a
    /// change that was made.
    fn finish(mut self) -> Result<(), WorkerError> {
        let deadline = Instant::now() + STOP_WAIT;
        self.submit()?;
        while !self.held.is_empty() && Instant::now() < deadline {
            if !self.release_held() {
                self.sleep()?;
            }
            self.submit()?;
            self.submitter.acknowledge(self.service.load());
            self.flush()?;
        }
        self.flush()?;
        Ok(())
    }
}

/// Whether the reply to a message may have to wait for the disk.
fn changes_bindings(msg_type: MessageType) -> bool {
    matches!(
        msg_type,
        MessageType::REQUEST
            | MessageType::RENEW
            | MessageType::REBIND
            | MessageType::RELEASE
            | MessageType::DECLINE
    )
}

/// Whether the answer to a message depends on what the lease table holds.
fn rests_on_bindings(msg_type: MessageType) -> bool {
    !matches!(msg_type, MessageType::CONFIRM | MessageType::INFORMATION_REQUEST)
}

/// The wall clock in the lease table's terms.
#[must_use]
pub fn wall_clock() -> AbsoluteTime {
    // Before 1970 the clock is not set: all leases then seem to be in the future, which is safe.
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    AbsoluteTime::from_unix_secs(since_1970.as_secs())
}

/// The type of the message that the relay agents, if any, wrapped; the outermost one if it cannot
/// be read.
fn innermost_type(payload: &[u8]) -> MessageType {
    let mut message = payload;
    // The rules refuse deeper nesting; here it need only end.
    for _ in 0..=usize::from(gemel_wire::HOP_COUNT_LIMIT) {
        match message.first().copied().map(MessageType) {
            Some(MessageType::RELAY_FORW) => match Packet::parse(message) {
                Ok(Packet::Relay(relay)) => match relay.relayed() {
                    Some(relayed) => message = relayed,
                    None => break,
                },
                _ => break,
            },
            Some(msg_type) => return msg_type,
            None => break,
        }
    }
    MessageType(payload.first().copied().unwrap_or(0))
}
