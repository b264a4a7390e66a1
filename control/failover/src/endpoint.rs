mod command;
mod mclt;
mod messages;
mod transition;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use gemel_lease::{AbsoluteTime, PairPolicy, PoolId};
use gemel_wire::{MessageType, TransactionId};

use crate::{
    Config, Env, Now, PairHistory, Role, ServerState, Status, StoredState,
    connection::{Connection, Refusal},
    flow::{Flow, Phase},
    machine::{Input, Machine},
    outbox::Outbox,
    timer::{Timer, Timers},
};

pub use command::{Command, CommandError};

/// A server has not operated for longer than this after the time that it has written down last;
/// what this is more than the interval is for the disk.
const OPERATION_SLACK_SECS: u32 = 5;

/// One server's end of a failover relationship. See the crate's documentation for the order in
/// which to call what.
#[derive(Debug)]
pub struct Endpoint {
    config: Config,
    policy: Arc<PairPolicy>,
    machine: Machine,
    connection: Connection,
    flow: Flow,
    outbox: Outbox,
    timers: Timers,
    outputs: VecDeque<Output>,
    /// What stable storage holds, or will when all that is on its way there has arrived.
    record: StoredState,
    /// `record` has changed without a transition since it was last given out.
    record_changed: bool,
    /// Start time of the state, of STARTUP, too.
    since: AbsoluteTime,
    /// TIME-OF-FAILURE (section 8.3.2): this server cannot have operated after it. `None`: nothing
    /// is known.
    time_of_failure: Option<AbsoluteTime>,
    /// When it started.
    started: AbsoluteTime,
    /// The limit on what this server may have done before it failed.
    mclt_before: u32,
    /// The state that stable storage holds; STARTUP before the first.
    confirmed: ServerState,
    /// What has been given out to be stored and is not yet, oldest first.
    unconfirmed: VecDeque<Unconfirmed>,
    /// Number of the oldest member of `unconfirmed`, or of the next.
    first_unconfirmed: u64,
    /// From which one on the partner is told of them, on this connection.
    tell_from: Option<u64>,
    /// A STATE message has been sent on this connection.
    told: bool,
    /// UPDREQ or UPDREQALL is to be sent.
    request_due: bool,
    /// The one that is not answered yet.
    request: Option<Request>,
    /// In PARTNER-DOWN state: the partner is in RECOVER-DONE state, and waits only until it has
    /// heard of all that is pending.
    return_due: bool,
    /// POOLREQ is to be sent when all updates are acknowledged (section 8.8).
    pool_request_due: bool,
    suspended: bool,
    /// STARTUP lasts longer than the startup time: see [`Endpoint::startup_over`].
    startup_prolonged: bool,
    /// Communications are "OK", and since when they are or are not.
    communicating: bool,
    communications_since: AbsoluteTime,
}

/// A state on its way to stable storage.
#[derive(Clone, Copy, Debug)]
struct Unconfirmed {
    state: ServerState,
    /// It was entered then, and the partner has to be told.
    entered: Option<AbsoluteTime>,
}

/// An UPDREQ or UPDREQALL that has been sent.
#[derive(Clone, Copy, Debug)]
struct Request {
    id: TransactionId,
    all: bool,
}

/// What the driver has to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Output {
    /// Write this to stable storage, then call [`Endpoint::persisted`].
    Persist(StoredState),
    /// Send what is in [`Endpoint::outgoing`], then close the connection.
    Close {
        /// For the log.
        reason: String,
        /// The partner has refused us, or we it: connect less often (section 6.1).
        refused: bool,
    },
    /// For the log: one line per transition.
    Transition {
        /// Before.
        from: ServerState,
        /// After.
        to: ServerState,
        /// The partner's state, if known.
        partner: Option<ServerState>,
        /// What brought it about.
        cause: &'static str,
    },
    /// Something that a person should hear of now (sections 8.9 and 8.11, clock skew).
    Alarm(String),
}

/// Octets of answers that may wait for the partner, or for the store. A partner that keeps to the
/// updates that it may have without an answer does not come near this.
const ANSWERS_MAX: usize = 16 << 20;

impl Endpoint {
    /// An endpoint in STARTUP state (section 8.3), from what stable storage holds. It serves the
    /// pools `pools` of the table, and tells the rules of its links through `policy` what they may
    /// answer.
    #[must_use]
    pub fn new(
        config: Config,
        pools: Vec<PoolId>,
        policy: Arc<PairPolicy>,
        stored: Option<StoredState>,
        now: Now,
    ) -> Self {
        let recorded = stored.as_ref().map(|it| it.state);
        let time_of_failure =
            stored.as_ref().map(|it| it.last_operation.plus(OPERATION_SLACK_SECS));
        let record = stored.unwrap_or(StoredState {
            state: ServerState::Recover,
            previous: None,
            since: now.wall,
            partner: None,
            last_message: None,
            last_operation: now.wall,
            mclt: config.mclt,
            former_mclt: None,
            history: PairHistory::Unknown,
            memory_lost: true,
        });
        let former = record.former_mclt.map_or(0, |former| former.mclt);
        let mclt_before = record.mclt.max(config.mclt).max(former);
        let mut endpoint = Self {
            machine: Machine::new(config.role, recorded, config.start_in_partner_down),
            flow: Flow::new(&config, pools),
            config,
            policy,
            connection: Connection::new(),
            outbox: Outbox::new(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
            record,
            record_changed: false,
            since: now.wall,
            time_of_failure,
            started: now.wall,
            mclt_before,
            confirmed: ServerState::Startup,
            unconfirmed: VecDeque::new(),
            first_unconfirmed: 0,
            tell_from: None,
            told: false,
            request_due: false,
            request: None,
            return_due: false,
            pool_request_due: false,
            suspended: false,
            startup_prolonged: false,
            communicating: false,
            communications_since: now.wall,
        };
        if endpoint.config.role == Role::Primary {
            endpoint.change_mclt(endpoint.config.mclt, now);
        }
        endpoint.apply_rules();
        endpoint.finish(now);
        endpoint
    }

    /// Whether a connection to the partner is wanted: the primary makes one, the secondary takes
    /// one.
    #[must_use]
    pub fn wants_connection(&self) -> bool {
        !self.suspended && !self.connection.exists()
    }

    /// A connection to the partner stands (TLS done, if there is any). The primary sends CONNECT.
    /// A connection that stood before is forgotten. While suspended it is to be closed at once, and
    /// the partner told why: it is to try again soon.
    pub fn connected(&mut self, env: &mut Env<'_>) {
        self.lose("replaced by a new connection", env.now);
        self.outbox.clear();
        if self.suspended {
            self.close(&Refusal::out_of_service(), env.now);
            return;
        }
        self.connection.open(&self.config, env.now, &mut self.outbox);
        self.heard(env.now);
        self.finish(env.now);
    }

    /// The connection is gone.
    pub fn disconnected(&mut self, env: &mut Env<'_>) {
        self.lose("connection lost", env.now);
        self.connection.lost();
        self.finish(env.now);
    }

    /// A whole message without its size field has come in, at `env.now`.
    pub fn received(&mut self, frame: &[u8], env: &mut Env<'_>) {
        if self.connection.is_live() {
            let (config, outbox) = (&self.config, &mut self.outbox);
            let result = self.connection.received(frame, config, env.now, outbox);
            if let Err(refusal) = result.and_then(|event| self.event(event, env)) {
                self.close(&refusal, env.now);
            } else if self.flow.held_octets() + self.outbox.octets().len() > ANSWERS_MAX {
                self.outbox.clear();
                let reason = "the partner goes on without reading what it is answered".to_owned();
                let refusal = Refusal { reason, goodbye: None, alarm: true, refused: true };
                self.close(&refusal, env.now);
            }
        }
        self.finish(env.now);
    }

    /// Updates of others, in their stored form, are durable: the partner has to hear of them.
    pub fn committed(&mut self, updates: &[u8], env: &mut Env<'_>) {
        self.flow.committed(updates, env);
    }

    /// Some of what has been committed was not told to [`Endpoint::committed`], for want of room:
    /// look through the table.
    pub fn missed(&mut self, env: &mut Env<'_>) {
        let _ = env;
        self.flow.missed();
    }

    /// The fate of the batches up to `sequence`.
    pub fn stored(&mut self, sequence: u64, stored: bool, env: &mut Env<'_>) {
        if !self.flow.stored(sequence, stored, &mut self.outbox, env.now)
            && self.connection.is_live()
        {
            self.close(&Refusal::drop("binding updates could not be stored"), env.now);
        }
        self.finish(env.now);
    }

    /// The state of the oldest [`Output::Persist`] that has not been confirmed is on stable storage.
    pub fn persisted(&mut self, env: &mut Env<'_>) {
        let Some(Unconfirmed { state, entered }) = self.unconfirmed.pop_front() else { return };
        let number = self.first_unconfirmed;
        self.first_unconfirmed += 1;
        self.confirmed = state;
        self.apply_rules();
        if let (Some(from), Some(since)) = (self.tell_from, entered)
            && number >= from
        {
            self.tell(state, since, false, env.now);
        }
        self.finish(env.now);
    }

    /// [`Endpoint::next_timeout`] has passed.
    pub fn timeout(&mut self, env: &mut Env<'_>) {
        let now = env.now;
        for timer in Timer::ALL {
            if self.timers.take_expired(timer, now.monotonic) {
                self.expired(timer, now);
            }
        }
        if let Some(sent) = self.flow.oldest_unanswered()
            && self.connection.is_open()
            && now.monotonic >= sent + self.config.response_time_max
        {
            // Section 8.8.2.
            self.close(&Refusal::drop("a BNDUPD is not answered"), now);
        }
        self.finish(now);
    }

    /// Follows a command.
    ///
    /// # Errors
    /// If the state forbids it.
    pub fn command(&mut self, command: Command, env: &mut Env<'_>) -> Result<(), CommandError> {
        let now = env.now;
        if let Some(why) = self.objection(command) {
            return Err(CommandError::State { state: self.machine.state(), why });
        }
        match command {
            Command::PartnerDown => {
                if self.record.memory_lost {
                    tracing::warn!(
                        relationship = self.config.name,
                        "the operator has this server serve without the bindings that its partner \
                         may know"
                    );
                }
                self.input(Input::PartnerDown, "the operator says that the partner is down", now);
            }
            Command::Resync => self.request_due = true,
            Command::Disconnect => self.close(&Refusal::drop("the operator disconnects"), now),
            Command::Suspend => self.suspend(now),
            Command::Resume => {
                self.suspended = false;
                self.since = now.wall;
                self.input(Input::Resume, "", now);
            }
        }
        self.finish(now);
        Ok(())
    }

    /// Does what has become possible: fills the window of unacknowledged updates, goes on with a
    /// resynchronisation, looks at the pool balance. Bounded; true if there is more to do at once.
    pub fn poll(&mut self, env: &mut Env<'_>) -> bool {
        let more = self.flow.poll(self.phase(), env, &mut self.outbox);
        if self.return_due && self.flow.settled() {
            self.return_due = false;
            self.partner_returns(env.now);
        }
        if self.pool_request_due && matches!(self.phase(), Phase::Normal) && self.flow.settled() {
            self.pool_request_due = false;
            let id = self.outbox.next_id();
            self.outbox.bare(MessageType::POOLREQ, id, env.now);
        }
        if self.outbox.has_sent() || !self.outputs.is_empty() {
            self.finish(env.now);
        }
        more
    }

    /// The next thing to do.
    pub fn output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whole frames to be sent, in order; the driver stamps them
    /// ([`gemel_wire::failover::stamp`]) and drains them. While more than some 256 KiB wait here
    /// the endpoint makes no new updates.
    pub fn outgoing(&mut self) -> &mut Vec<u8> {
        self.outbox.octets()
    }

    /// When to call [`Endpoint::timeout`], on the monotonic clock.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        let unanswered = self.flow.oldest_unanswered().filter(|_| self.connection.is_open());
        let flow = match self.phase() {
            Phase::Quiet => None,
            Phase::Answering | Phase::Normal | Phase::PartnerDown { .. } => {
                self.flow.next_timeout()
            }
        };
        [self.timers.next(), unanswered.map(|sent| sent + self.config.response_time_max), flow]
            .into_iter()
            .flatten()
            .min()
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> ServerState {
        self.machine.state()
    }

    /// For the operator.
    #[must_use]
    pub fn status(&self, now: Now) -> Status {
        let remaining = |timer| {
            self.timers.deadline(timer).map(|deadline| deadline.saturating_sub(now.monotonic))
        };
        let startup = self.machine.state() == ServerState::Startup;
        Status {
            role: self.config.role,
            state: self.machine.state(),
            since: self.since,
            previous: if startup { Some(self.record.state) } else { self.record.previous },
            suspended: self.suspended,
            rules: self.policy.load(),
            partner: self.record.partner,
            partner_flags: self.connection.partner_flags(),
            partner_down_time: self.connection.partner_down_time(),
            connected: self.connection.is_live(),
            communications_ok: self.communicating,
            communications_since: self.communications_since,
            skew_secs: self.connection.skew_secs(),
            last_message: self.record.last_message,
            mclt: self.record.mclt,
            memory_lost: self.record.memory_lost,
            updates_requested: self.request.is_some(),
            oldest_unanswered: self
                .flow
                .oldest_unanswered()
                .map(|sent| now.monotonic.saturating_sub(sent)),
            startup_remaining: remaining(Timer::Startup),
            recover_wait_remaining: remaining(Timer::RecoverWait),
            auto_partner_down_remaining: remaining(Timer::AutoPartnerDown),
            flow: self.flow.counters(),
        }
    }
}

#[cfg(test)]
mod bindings;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod tests;
