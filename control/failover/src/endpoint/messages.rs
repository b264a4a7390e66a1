//! What the partner says, and what it is told about the state.

use std::time::Duration;

use gemel_lease::AbsoluteTime;
use gemel_wire::{
    MessageType, TransactionId,
    failover::{FailoverTime, ServerFlags, StateMsg},
};

use super::{Endpoint, Request};
use crate::{
    Env, Now, PairHistory, ServerState,
    connection::{Event, Refusal},
    flow::Recovery,
    rules::is_recovering,
    timer::Timer,
};

impl Endpoint {
    /// Does what a message asks for.
    pub(super) fn event(&mut self, event: Event<'_>, env: &mut Env<'_>) -> Result<(), Refusal> {
        self.heard(env.now);
        match event {
            Event::Nothing => {}
            Event::Established { max_unacked, mclt } => {
                self.flow.connect(max_unacked);
                if let Some(mclt) = mclt {
                    self.adopt_mclt(mclt, env.now);
                }
                self.partner_knows_mclt(env.now);
                self.introduce(env.now);
            }
            Event::State { state, flags, since } => {
                self.partner_state(state, flags, since, env.now)
            }
            Event::BndUpd(message) => {
                self.flow.recover(self.recovery());
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

    fn recovery(&self) -> Recovery {
        let had_clients = self.record.history == PairHistory::Run;
        let forgotten = self.record.memory_lost && had_clients;
        let is_partner_down = self.machine.partner() == Some(ServerState::PartnerDown);
        Recovery {
            forgotten: forgotten.then_some(self.mclt_before),
            from_partner_down: is_partner_down && is_recovering(self.machine.state()),
        }
    }

    /// A message of the partner's has come, or the connection to it.
    pub(super) fn heard(&mut self, now: Now) {
        let keepalive = Duration::from_secs(self.config.keepalive_secs.max(1).into());
        self.timers.set(Timer::Keepalive, now.monotonic + keepalive);
        if self.connection.is_open() {
            self.record.last_message = Some(now.wall);
        }
    }

    /// The first STATE message on a connection (section 6.3). In STARTUP it tells what was before;
    /// otherwise what is on its way to stable storage has to arrive there first.
    pub(super) fn introduce(&mut self, now: Now) {
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
    pub(super) fn start_time(&self, state: ServerState, now: Now) -> AbsoluteTime {
        if state == self.record.state { self.record.since } else { now.wall }
    }

    /// Sends a STATE message (section 6.3).
    pub(super) fn tell(
        &mut self,
        state: ServerState,
        since: AbsoluteTime,
        startup: bool,
        now: Now,
    ) {
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
    pub(super) fn partner_state(
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
        // Section 8.4.2 has PARTNER-DOWN end at once. But then both would have for available what has
        // been taken over since the partner asked for updates: it hears of that first.
        self.return_due = state == ServerState::RecoverDone
            && !startup
            && self.machine.told_state() == ServerState::PartnerDown;
        let heard = if self.return_due { ServerState::RecoverWait } else { state };
        let from = self.machine.state();
        let outcome = self.machine.hear(heard, startup, since_failure);
        self.follow(from, outcome, heard_of(heard, startup), now);
        if self.return_due {
            self.flow.send_pending();
        }
    }

    /// The partner, in RECOVER-DONE state, has heard of everything.
    pub(super) fn partner_returns(&mut self, now: Now) {
        let from = self.machine.state();
        let outcome = self.machine.hear(ServerState::RecoverDone, false, true);
        self.follow(from, outcome, heard_of(ServerState::RecoverDone, false), now);
    }

    /// UPDDONE (section 5.3.7). One that answers to a request of before is nothing to us.
    pub(super) fn update_done(&mut self, id: TransactionId, now: Now) {
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

    /// Sends UPDREQ or UPDREQALL, after the STATE message that belongs to it. In NORMAL it is the
    /// operator who wants to have everything.
    pub(super) fn send_request(&mut self, now: Now) {
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

    /// The partner goes on sending what was asked for.
    pub(super) fn progress(&mut self, now: Now) {
        if self.request.is_some() {
            self.timers.set(Timer::Request, now.monotonic + self.config.response_time_max);
        }
    }
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
