use std::{cmp, collections::VecDeque, sync::Arc, time::Duration};

use gemel_lease::{AbsoluteTime, PairPolicy, PairRules, PoolId, Responsiveness};
use gemel_wire::{
    MessageType, StatusCode, TransactionId,
    failover::{FailoverTime, ServerFlags, StateMsg},
};

use crate::{
    Config, Env, Now, PairHistory, Role, ServerState, Status, StoredState,
    connection::{Connection, Event, Refusal},
    flow::{Flow, Phase},
    machine::{Input, Machine, Outcome},
    outbox::Outbox,
    timer::{Timer, Timers},
};

/// How often a server that serves clients writes down that it does (section 8.3.2 step 5).
const OPERATION_INTERVAL: Duration = Duration::from_secs(4);

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
    /// POOLREQ is to be sent when all updates are acknowledged (section 8.8).
    pool_request_due: bool,
    suspended: bool,
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

/// What an operator, or the link monitor, wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// The partner is down, says the operator (section 8.4). Goes beyond the RFC in that a server
    /// that has no partner takes it in every state: one that has lost its memory, and whose partner
    /// is lost for good, would otherwise never serve again.
    PartnerDown,
    /// Ask for all of the partner's bindings again (UPDREQALL), in NORMAL state, which goes on.
    Resync,
    /// Drop the connection and make a new one.
    Disconnect,
    /// Stop serving and say so to the partner (DISCONNECT), which then serves: for maintenance, or
    /// because the clients cannot be reached (RFC 7031 section 4.7). Until [`Command::Resume`], or
    /// a restart.
    Suspend,
    /// Take service up again, by way of STARTUP.
    Resume,
}

/// Why a command was not followed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CommandError {
    /// The state does not allow it.
    #[error("not possible in state {state}: {why}")]
    State {
        /// The present state.
        state: ServerState,
        /// What stands in the way, and what to do.
        why: &'static str,
    },
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
        let mut record = stored.unwrap_or(StoredState {
            state: ServerState::Recover,
            previous: None,
            since: now.wall,
            partner: None,
            last_message: None,
            last_operation: now.wall,
            mclt: config.mclt,
            history: PairHistory::Unknown,
            memory_lost: true,
        });
        let mclt_before = record.mclt.max(config.mclt);
        if config.role == Role::Primary {
            record.mclt = config.mclt;
        }
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
            pool_request_due: false,
            suspended: false,
            communicating: false,
            communications_since: now.wall,
        };
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
    /// A connection that stood before is forgotten. While suspended it is to be closed at once.
    pub fn connected(&mut self, env: &mut Env<'_>) {
        self.lose("replaced by a new connection", env.now);
        self.outbox.clear();
        if self.suspended {
            let reason = "suspended".to_owned();
            self.outputs.push_back(Output::Close { reason, refused: true });
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
        if self.pool_request_due && matches!(self.phase(), Phase::Normal) && self.flow.settled() {
            self.pool_request_due = false;
            let id = self.outbox.next_id();
            self.outbox.bare(MessageType::POOLREQ, id, env.now);
        }
        self.finish(env.now);
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

/// What the inputs have in common.
impl Endpoint {
    /// Does what a message asks for.
    fn event(&mut self, event: Event<'_>, env: &mut Env<'_>) -> Result<(), Refusal> {
        self.heard(env.now);
        match event {
            Event::Nothing => {}
            Event::Established { max_unacked, mclt } => {
                self.flow.connect(max_unacked);
                if let Some(mclt) = mclt {
                    self.adopt_mclt(mclt);
                }
                self.introduce(env.now);
            }
            Event::State { state, flags, since } => {
                self.partner_state(state, flags, since, env.now)
            }
            Event::BndUpd(message) => {
                self.flow.bndupd(&message, env, &mut self.outbox)?;
                self.progress(env.now);
            }
            Event::BndReply(message) => self.flow.bndreply(&message, env)?,
            Event::PoolReq(id) => self.flow.pool_request(id),
            Event::UpdReq { all, id } => self.flow.answer_request(all, id),
            Event::UpdDone(id) => self.update_done(id, env.now),
        }
        Ok(())
    }

    /// A message of the partner's has come, or the connection to it.
    fn heard(&mut self, now: Now) {
        let keepalive = Duration::from_secs(self.config.keepalive_secs.max(1).into());
        self.timers.set(Timer::Keepalive, now.monotonic + keepalive);
        if self.connection.is_open() {
            self.record.last_message = Some(now.wall);
        }
    }

    /// Section 6.1.2: the primary's MCLT is used until it has another one.
    fn adopt_mclt(&mut self, mclt: u32) {
        // A server without memory has no better idea of what it used before.
        self.mclt_before = cmp::max(self.mclt_before, mclt);
        if mclt != self.record.mclt {
            self.record.mclt = mclt;
            self.record_changed = true;
            self.apply_rules();
        }
    }

    /// The first STATE message on a connection (section 6.3). In STARTUP it tells what was before;
    /// otherwise what is on its way to stable storage has to arrive there first.
    fn introduce(&mut self, now: Now) {
        let next = self.first_unconfirmed + self.unconfirmed.len() as u64;
        if self.machine.state() == ServerState::Startup {
            self.tell_from = Some(next);
            let state = self.machine.told_state();
            self.tell(state, self.start_time(state, now), true, now);
            return;
        }
        let last = self.unconfirmed.iter().rposition(|it| it.entered.is_some());
        match last {
            Some(index) => self.tell_from = Some(self.first_unconfirmed + index as u64),
            None => {
                self.tell_from = Some(next);
                self.tell(self.machine.state(), self.record.since, false, now);
            }
        }
    }

    /// Start time of a state that is entered from STARTUP: the recorded one if it was only
    /// interrupted. Otherwise PARTNER-DOWN would seem younger than it is to a partner that compares
    /// (section 8.3.2 step 5).
    fn start_time(&self, state: ServerState, now: Now) -> AbsoluteTime {
        if state == self.record.state { self.record.since } else { now.wall }
    }

    /// Sends a STATE message (section 6.3).
    fn tell(&mut self, state: ServerState, since: AbsoluteTime, startup: bool, now: Now) {
        let mut flags = ServerFlags::NONE;
        let partner = self.connection.partner_flags().unwrap_or(ServerFlags::NONE);
        for (flag, set) in [
            (ServerFlags::STARTUP, startup),
            (ServerFlags::ACK_STARTUP, partner.contains(ServerFlags::STARTUP)),
            (ServerFlags::COMMUNICATED, self.record.history == PairHistory::Run),
        ] {
            if set {
                flags = flags.with(flag);
            }
        }
        let since = FailoverTime(since.0);
        let message = StateMsg {
            server_state: gemel_wire::failover::ServerState(state as u8),
            server_flags: flags,
            start_time_of_state: since,
            partner_down_time: (state == ServerState::PartnerDown).then_some(since),
        };
        let id = self.outbox.next_id();
        self.outbox.message(id, now, |header, out| message.emit(header, out));
        self.told = true;
    }

    /// A STATE message (section 6.4).
    fn partner_state(
        &mut self,
        state: ServerState,
        flags: ServerFlags,
        since: AbsoluteTime,
        now: Now,
    ) {
        if !self.communicating {
            self.communicating = true;
            self.communications_since = now.wall;
            self.heard(now);
        }
        let before = (self.record.partner, self.record.history);
        self.record.partner = Some((state, since));
        let recovering = is_recovering(self.record.state);
        self.record.history = match self.record.history {
            PairHistory::Unknown if flags.contains(ServerFlags::COMMUNICATED) => PairHistory::Run,
            PairHistory::Unknown if recovering => PairHistory::Never,
            PairHistory::Unknown => PairHistory::Run,
            known => known,
        };
        self.record_changed |= before != (self.record.partner, self.record.history);
        let since_failure = self
            .time_of_failure
            .is_none_or(|time| FailoverTime(since.0).is_after(FailoverTime(time.0)));
        let startup = flags.contains(ServerFlags::STARTUP);
        let from = self.machine.state();
        let outcome = self.machine.hear(state, startup, since_failure);
        self.follow(from, outcome, heard_of(state, startup), now);
    }

    /// UPDDONE (section 5.3.7). One that answers to a request of before is nothing to us.
    fn update_done(&mut self, id: TransactionId, now: Now) {
        let Some(request) = self.request.take_if(|request| request.id == id) else { return };
        self.outbox.reserve(None);
        self.timers.stop(Timer::Request);
        if request.all && self.record.memory_lost {
            self.record.memory_lost = false;
            self.record_changed = true;
        }
        let from = self.machine.state();
        let outcome = self.machine.update_done();
        self.follow(from, outcome, "UPDDONE: the partner has sent all updates", now);
    }

    /// A timer has run out.
    fn expired(&mut self, timer: Timer, now: Now) {
        match timer {
            Timer::Startup => self.input(Input::StartupOver, "no partner was found", now),
            Timer::RecoverWait => self.input(Input::RecoverWaitOver, "the MCLT is over", now),
            Timer::AutoPartnerDown => {
                self.input(Input::AutoPartnerDown, "auto-partner-down", now);
            }
            Timer::Keepalive => {
                if self.connection.is_live() {
                    let secs = self.config.keepalive_secs.max(1);
                    let reason = format!("nothing was heard for {secs} s");
                    self.close(&Refusal::drop(reason), now);
                }
            }
            Timer::Request => {
                if self.request.is_some() && self.connection.is_live() {
                    // Section 8.5.2.
                    self.close(&Refusal::drop("the update request is not answered"), now);
                }
            }
            Timer::Send => {
                if self.connection.is_established() {
                    let id = self.outbox.next_id();
                    self.outbox.bare(MessageType::CONTACT, id, now);
                }
            }
            Timer::Operation => {
                self.operated(now);
                self.record_changed = true;
            }
        }
    }

    fn input(&mut self, input: Input, cause: &'static str, now: Now) {
        let from = self.machine.state();
        let outcome = self.machine.handle(input);
        self.follow(from, outcome, cause, now);
    }

    /// What a command runs into.
    fn objection(&self, command: Command) -> Option<&'static str> {
        use ServerState as Is;
        let state = self.machine.state();
        match command {
            Command::Resume if self.suspended => None,
            Command::Resume => Some("it is not suspended"),
            _ if self.suspended => Some("it is suspended: resume first"),
            Command::PartnerDown => match state {
                Is::PartnerDown => Some("it is there already"),
                Is::PotentialConflict => {
                    Some("the two servers are sorting out a conflict: wait, or disconnect first")
                }
                Is::Recover | Is::RecoverWait | Is::RecoverDone | Is::ConflictDone
                    if self.connection.is_open() =>
                {
                    Some("the partner is there, and this server is recovering: stop it first")
                }
                Is::Startup
                | Is::Normal
                | Is::CommunicationsInterrupted
                | Is::Recover
                | Is::RecoverWait
                | Is::RecoverDone
                | Is::ResolutionInterrupted
                | Is::ConflictDone => None,
            },
            Command::Resync if state != Is::Normal => {
                Some("only in NORMAL; in other states it comes by itself")
            }
            Command::Resync if self.request_due || self.request.is_some() => {
                Some("the last request is not answered yet")
            }
            Command::Disconnect if !self.connection.is_live() => Some("there is no connection"),
            Command::Resync | Command::Disconnect | Command::Suspend => None,
        }
    }

    /// Out of service: first nothing is answered any more, then the partner is told.
    fn suspend(&mut self, now: Now) {
        self.operated(now);
        if is_operating(self.machine.state()) {
            self.time_of_failure = Some(now.wall);
            self.mclt_before = self.record.mclt;
        }
        self.suspended = true;
        let from = self.machine.state();
        self.machine.handle(Input::Suspend);
        self.enter(from, "suspended", now);
        self.apply_rules();
        self.unconfirmed.push_back(Unconfirmed { state: ServerState::Startup, entered: None });
        self.outputs.push_back(Output::Persist(self.record.clone()));
        self.record_changed = false;
        if self.connection.is_live() {
            let goodbye = Some(StatusCode::SERVER_SHUTTING_DOWN);
            let reason = "suspended".to_owned();
            self.close(&Refusal { reason, goodbye, alarm: false, refused: true }, now);
        }
    }

    /// Ends the connection from this side.
    fn close(&mut self, refusal: &Refusal, now: Now) {
        let Refusal { reason, alarm, refused, .. } = refusal;
        self.connection.close(refusal, now, &mut self.outbox);
        if *alarm {
            self.outputs.push_back(Output::Alarm(format!("{}: {reason}", self.config.name)));
        }
        self.outputs.push_back(Output::Close { reason: reason.clone(), refused: *refused });
        self.lose("connection closed", now);
    }

    /// Communications are no longer "OK", if they were.
    fn lose(&mut self, cause: &'static str, now: Now) {
        if std::mem::take(&mut self.communicating) {
            self.communications_since = now.wall;
        }
        self.flow.disconnect();
        self.outbox.reserve(None);
        self.tell_from = None;
        self.told = false;
        self.request = None;
        self.request_due = false;
        self.timers.stop(Timer::Keepalive);
        self.timers.stop(Timer::Send);
        self.timers.stop(Timer::Request);
        let from = self.machine.state();
        let outcome = self.machine.fail();
        self.follow(from, outcome, cause, now);
    }

    /// Does what the machine says.
    fn follow(&mut self, from: ServerState, outcome: Outcome, cause: &'static str, now: Now) {
        let Outcome { changed, request, announce, disconnect } = outcome;
        if changed {
            self.enter(from, cause, now);
            self.store_state(from, now);
        }
        self.request_due |= request;
        if announce && self.told && !self.is_moving() {
            self.tell(self.machine.state(), self.record.since, false, now);
        }
        if disconnect && self.connection.is_live() {
            self.close(&Refusal::drop(cause), now);
        }
        if changed
            && self.machine.state() == ServerState::RecoverWait
            && self.recover_wait(now).is_zero()
        {
            self.input(Input::RecoverWaitOver, "there is nothing to wait for", now);
        }
    }

    /// The state is another one.
    fn enter(&mut self, from: ServerState, cause: &'static str, now: Now) {
        let to = self.machine.state();
        let partner = self.machine.partner();
        self.outputs.push_back(Output::Transition { from, to, partner, cause });
        let alarm = match to {
            ServerState::CommunicationsInterrupted => from == ServerState::Normal,
            ServerState::PotentialConflict | ServerState::ResolutionInterrupted => true,
            ServerState::PartnerDown => cause == "auto-partner-down",
            _ => false,
        };
        if alarm {
            let text = format!("{}: {to}, {cause}", self.config.name);
            self.outputs.push_back(Output::Alarm(text));
        }
        self.request = None;
        self.request_due = false;
        self.outbox.reserve(None);
        self.timers.stop(Timer::Request);
        self.pool_request_due = false;
        if to == ServerState::Normal {
            self.flow.send_pending();
            self.pool_request_due = self.config.role == Role::Secondary;
            // The operator has had this server serve without what the partner knew.
            self.request_due = self.record.memory_lost;
        }
        if to == ServerState::Startup {
            self.since = now.wall;
        }
    }

    /// Gives the state out to be stored; until it is, the stricter of the rules count (section
    /// 8.1).
    fn store_state(&mut self, from: ServerState, now: Now) {
        self.operated(now);
        let to = self.machine.state();
        let since = match from {
            ServerState::Startup => self.start_time(to, now),
            _ => now.wall,
        };
        if from != ServerState::Startup || to != self.record.state {
            self.record.previous = Some(self.record.state);
        }
        self.record.state = to;
        self.record.since = since;
        self.since = since;
        if !is_recovering(to) && self.record.history == PairHistory::Never {
            self.record.history = PairHistory::Run;
        }
        self.unconfirmed.push_back(Unconfirmed { state: to, entered: Some(since) });
        self.outputs.push_back(Output::Persist(self.record.clone()));
        self.record_changed = false;
        self.apply_rules();
    }

    /// Notes that this server has been serving until now, if it has.
    fn operated(&mut self, now: Now) {
        if self.policy.load().responsiveness != Responsiveness::Unresponsive {
            self.record.last_operation = now.wall;
        }
    }

    /// A state is on its way to stable storage.
    fn is_moving(&self) -> bool {
        self.unconfirmed.iter().any(|it| it.entered.is_some())
    }

    /// Tells the workers what to answer: what both the present state and all that stable storage
    /// may hold allow.
    fn apply_rules(&self) {
        let Self { config, record, .. } = self;
        let rules = |state| rules(config.role, state, record.mclt);
        let states = self.unconfirmed.iter().map(|it| it.state).chain([self.confirmed]);
        let start = rules(self.machine.state());
        let strictest = states.map(rules).fold(start, |a, b| PairRules {
            responsiveness: if (a.responsiveness as u8) < b.responsiveness as u8 {
                a.responsiveness
            } else {
                b.responsiveness
            },
            mclt: match (a.mclt, b.mclt) {
                (Some(a), Some(b)) => Some(cmp::min(a, b)),
                (a, b) => a.or(b),
            },
        });
        self.policy.set(strictest);
    }

    /// How long to stay in RECOVER-WAIT (section 8.6.2): until the MCLT after the failure, or the
    /// start; never longer than the MCLT, should the clock have been set back.
    fn recover_wait(&self, now: Now) -> Duration {
        if self.record.history == PairHistory::Never {
            return Duration::ZERO;
        }
        let from = self.time_of_failure.unwrap_or(self.started);
        let secs = from.plus(self.mclt_before).remaining(now.wall);
        Duration::from_secs(cmp::min(secs, self.mclt_before).into())
    }

    fn phase(&self) -> Phase {
        let state = self.machine.state();
        if self.is_moving() {
            return Phase::Quiet;
        }
        match (state, self.connection.is_open() && self.told) {
            (ServerState::PartnerDown, _) => {
                Phase::PartnerDown { since: self.record.since, mclt: self.record.mclt }
            }
            (ServerState::Normal, true) => Phase::Normal,
            (ServerState::Startup, _) | (_, false) => Phase::Quiet,
            (_, true) => Phase::Answering,
        }
    }

    /// The partner goes on sending what was asked for.
    fn progress(&mut self, now: Now) {
        if self.request.is_some() {
            self.timers.set(Timer::Request, now.monotonic + self.config.response_time_max);
        }
    }

    /// What every input ends with.
    fn finish(&mut self, now: Now) {
        self.send_request(now);
        if self.record_changed && self.unconfirmed.is_empty() {
            self.record_changed = false;
            let state = self.confirmed;
            self.unconfirmed.push_back(Unconfirmed { state, entered: None });
            self.outputs.push_back(Output::Persist(self.record.clone()));
        }
        if self.outbox.take_sent() > 0 && self.connection.is_live() {
            self.timers.set(Timer::Send, now.monotonic + self.connection.send_time());
        }
        self.set_timers(now);
    }

    /// Sends UPDREQ or UPDREQALL, after the STATE message that belongs to it. In NORMAL it is the
    /// operator who wants to have everything.
    fn send_request(&mut self, now: Now) {
        if !self.request_due || !self.told || !self.connection.is_open() || self.is_moving() {
            return;
        }
        self.request_due = false;
        let id = self.outbox.next_id();
        let all = self.record.memory_lost || self.machine.state() == ServerState::Normal;
        let msg_type = if all { MessageType::UPDREQALL } else { MessageType::UPDREQ };
        self.outbox.bare(msg_type, id, now);
        self.outbox.reserve(Some(id));
        self.request = Some(Request { id, all });
        self.progress(now);
    }

    /// The timers that run as long as a state lasts.
    fn set_timers(&mut self, now: Now) {
        let state = self.machine.state();
        let after = |wait: Duration| now.monotonic + wait;
        let startup = state == ServerState::Startup && !self.suspended;
        self.timers.run(Timer::Startup, startup, || after(self.config.startup_time));
        let wait = self.recover_wait(now);
        self.timers.run(Timer::RecoverWait, state == ServerState::RecoverWait, || after(wait));
        // While the partner is there, be it recovering, nobody needs PARTNER-DOWN.
        let auto = self.config.auto_partner_down.filter(|_| {
            state == ServerState::CommunicationsInterrupted && self.machine.partner().is_none()
        });
        let auto_after = auto.unwrap_or_default();
        self.timers.run(Timer::AutoPartnerDown, auto.is_some(), || after(auto_after));
        let operating = is_operating(state);
        self.timers.run(Timer::Operation, operating, || after(OPERATION_INTERVAL));
    }
}

/// What a server may answer in a state (section 8, figure 6).
fn rules(role: Role, state: ServerState, mclt: u32) -> PairRules {
    let responsiveness = match state {
        ServerState::Startup
        | ServerState::PotentialConflict
        | ServerState::Recover
        | ServerState::RecoverWait => Responsiveness::Unresponsive,
        ServerState::RecoverDone => Responsiveness::RenewRecorded,
        ServerState::Normal => match role {
            Role::Primary => Responsiveness::Responsive,
            Role::Secondary => Responsiveness::RenewResponsive,
        },
        ServerState::CommunicationsInterrupted
        | ServerState::PartnerDown
        | ServerState::ResolutionInterrupted
        | ServerState::ConflictDone => Responsiveness::Responsive,
    };
    PairRules { responsiveness, mclt: (state != ServerState::PartnerDown).then_some(mclt) }
}

fn is_operating(state: ServerState) -> bool {
    rules(Role::Primary, state, 0).responsiveness != Responsiveness::Unresponsive
}

fn is_recovering(state: ServerState) -> bool {
    matches!(state, ServerState::Recover | ServerState::RecoverWait | ServerState::RecoverDone)
}

/// The cause of a transition, for the log.
fn heard_of(state: ServerState, startup: bool) -> &'static str {
    match state {
        _ if startup => "the partner is in STARTUP",
        ServerState::Startup => "the partner is in STARTUP",
        ServerState::Normal => "the partner is in NORMAL",
        ServerState::CommunicationsInterrupted => "the partner is in COMMUNICATIONS-INTERRUPTED",
        ServerState::PartnerDown => "the partner is in PARTNER-DOWN",
        ServerState::PotentialConflict => "the partner is in POTENTIAL-CONFLICT",
        ServerState::Recover => "the partner is in RECOVER",
        ServerState::RecoverWait => "the partner is in RECOVER-WAIT",
        ServerState::RecoverDone => "the partner is in RECOVER-DONE",
        ServerState::ResolutionInterrupted => "the partner is in RESOLUTION-INTERRUPTED",
        ServerState::ConflictDone => "the partner is in CONFLICT-DONE",
    }
}

#[cfg(test)]
mod bindings;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod tests;
