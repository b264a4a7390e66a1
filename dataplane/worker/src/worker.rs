use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gemel_lease::AbsoluteTime;
use gemel_server::{Inbound, Outcome, Server, Service};
use gemel_wire::{MessageType, Packet};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    counters::{Shed, WorkerCounters},
    port::{Origin, Port},
    submit::{ControlGone, ServiceState, StoreState, Submitter},
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

/// Sizes of a worker, set at start.
#[derive(Clone, Copy, Debug)]
pub struct WorkerConfig {
    /// Datagrams per turn.
    pub batch: usize,
    /// Replies that may wait for the disk at once. Above half of it Solicits are dropped; at the
    /// whole of it nothing more is received, and the ring of the network card takes up the slack.
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
/// thread and sends what may leave.
pub struct Worker<P: Port> {
    port: P,
    server: Arc<Server>,
    submitter: Submitter,
    service: Arc<ServiceState>,
    counters: Arc<WorkerCounters>,
    requests: Vec<P::Request>,
    held: VecDeque<Held<P::Reply>>,
    held_max: usize,
}

/// A reply that waits for its batch of updates.
struct Held<R> {
    reply: R,
    reply_type: MessageType,
    sequence: u64,
}

impl<P: Port> Worker<P> {
    /// Puts the parts together; all memory that a turn needs is taken here.
    pub fn new(
        port: P,
        server: Arc<Server>,
        submitter: Submitter,
        service: Arc<ServiceState>,
        counters: Arc<WorkerCounters>,
        config: WorkerConfig,
    ) -> Self {
        Self {
            port,
            server,
            submitter,
            service,
            counters,
            requests: Vec::with_capacity(config.batch),
            held: VecDeque::with_capacity(config.held_max + config.batch),
            held_max: config.held_max,
        }
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
        }
        self.finish()
    }

    /// One round: resolutions, requests, updates, replies. False if there was nothing to do.
    ///
    /// # Errors
    /// As [`Worker::run`].
    pub fn turn(&mut self, now: AbsoluteTime) -> Result<bool, WorkerError> {
        let mut busy = self.release_held();
        if self.held.len() < self.held_max {
            self.port.receive(&mut self.requests)?;
        }
        // One state for the whole turn: what is acknowledged below must hold for each answer.
        let word = self.service.load();
        if !self.requests.is_empty() {
            busy = true;
            self.counters.batch();
            let mut requests = std::mem::take(&mut self.requests);
            for request in requests.drain(..) {
                self.answer(&request, now, word.state());
                self.port.release(request);
            }
            self.requests = requests;
        }
        self.submitter.submit()?;
        self.submitter.acknowledge(word);
        self.port.flush()?;
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

    fn answer(&mut self, request: &P::Request, now: AbsoluteTime, store: StoreState) {
        let origin = self.port.origin(request);
        let Some(mut reply) = self.port.allocate() else {
            self.counters.shed(Shed::NoReplyBuffer);
            return;
        };
        let (payload, room) = self.port.buffers(request, &mut reply);
        let Origin { source, source_port, destination, interface } = origin;
        let inbound = Inbound { payload, source, source_port, destination, interface };
        let msg_type = innermost_type(payload);
        self.counters.received(msg_type);
        if msg_type == MessageType::SOLICIT && self.held.len() > self.held_max / 2 {
            self.counters.shed(Shed::SolicitOverload);
            self.port.discard(reply);
            return;
        }
        let service = match store {
            StoreState::Working => Service::Full,
            StoreState::Settling if rests_on_bindings(msg_type) => {
                self.counters.shed(Shed::StoreSettling);
                self.port.discard(reply);
                return;
            }
            StoreState::Settling | StoreState::Failed => Service::ReadOnly,
        };
        let (updates, sequence) = self.submitter.open();
        let outcome = self.server.handle(&inbound, now, service, room, updates);
        match outcome {
            Outcome::Drop(reason) => {
                self.counters.dropped(reason);
                self.port.discard(reply);
            }
            Outcome::Reply(info) => {
                if !self.port.address(request, &mut reply, info.len, info.destination_port) {
                    self.counters.shed(Shed::NotAddressable);
                    self.port.discard(reply);
                } else if info.held {
                    self.held.push_back(Held { reply, reply_type: info.reply, sequence });
                } else {
                    self.counters.sent(info.reply);
                    self.port.send(reply);
                }
            }
        }
    }

    /// Sends or drops held replies whose batch has been resolved. True if there was one.
    fn release_held(&mut self) -> bool {
        let mut any = false;
        while let Some((sequence, stored)) = self.submitter.resolved() {
            any = true;
            while self.held.front().is_some_and(|held| held.sequence <= sequence) {
                let Some(held) = self.held.pop_front() else { break };
                if stored {
                    self.counters.sent(held.reply_type);
                    self.port.send(held.reply);
                } else {
                    self.counters.shed(Shed::NotStored);
                    self.port.discard(held.reply);
                }
            }
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
            if self.held.len() < self.held_max {
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
        self.submitter.submit()?;
        while !self.held.is_empty() && Instant::now() < deadline {
            if !self.release_held() {
                self.sleep()?;
            }
            self.submitter.submit()?;
            self.submitter.acknowledge(self.service.load());
            self.port.flush()?;
        }
        self.port.flush()?;
        Ok(())
    }
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
