//! What the state machine says, and what else follows from an input: storage, rules, timers.

use std::{cmp, time::Duration};

use gemel_lease::{PairRules, Responsiveness};
use gemel_wire::MessageType;

use super::{Endpoint, Output, Unconfirmed};
use crate::{
    Now, PairHistory, Role, ServerState,
    connection::Refusal,
    flow::Phase,
    machine::{Input, Outcome},
    rules::{is_operating, is_recovering, rules},
    timer::Timer,
};

/// How often a server that serves clients writes down that it does (section 8.3.2 step 5).
const OPERATION_INTERVAL: Duration = Duration::from_secs(4);

/// How much longer than the startup time STARTUP lasts while a connected partner has still to say
/// its state. Writing that takes milliseconds; a disk that hangs comes back or fails before this.
const STATE_TIME_MAX: Duration = Duration::from_secs(60);

impl Endpoint {
    /// A timer has run out.
    pub(super) fn expired(&mut self, timer: Timer, now: Now) {
        match timer {
            Timer::Startup => self.startup_over(now),
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

    /// The startup time is over. It is meant for a partner that is not there (section 8.3.2 step 3):
    /// one that is, and whose state has not reached its stable storage yet, may have been told that
    /// this server is down. It is waited for, but not for ever, should it never come.
    fn startup_over(&mut self, now: Now) {
        if self.connection.awaits_state() {
            if self.startup_prolonged {
                self.close(&Refusal::drop("the partner does not say its state"), now);
            } else {
                self.startup_prolonged = true;
                self.timers.set(Timer::Startup, now.monotonic + STATE_TIME_MAX);
            }
            return;
        }
        self.input(Input::StartupOver, "no partner was found", now);
    }

    pub(super) fn input(&mut self, input: Input, cause: &'static str, now: Now) {
        let from = self.machine.state();
        let outcome = self.machine.handle(input);
        self.follow(from, outcome, cause, now);
    }

    /// Ends the connection from this side.
    pub(super) fn close(&mut self, refusal: &Refusal, now: Now) {
        let Refusal { reason, alarm, refused, .. } = refusal;
        self.connection.close(refusal, now, &mut self.outbox);
        if *alarm {
            self.outputs.push_back(Output::Alarm(format!("{}: {reason}", self.config.name)));
        }
        self.outputs.push_back(Output::Close { reason: reason.clone(), refused: *refused });
        self.lose("connection closed", now);
    }

    /// Communications are no longer "OK", if they were.
    pub(super) fn lose(&mut self, cause: &'static str, now: Now) {
        if std::mem::take(&mut self.communicating) {
            self.communications_since = now.wall;
        }
        self.flow.disconnect();
        self.outbox.reserve(None);
        self.tell_from = None;
        self.told = false;
        self.request = None;
        self.request_due = false;
        self.return_due = false;
        self.timers.stop(Timer::Keepalive);
        self.timers.stop(Timer::Send);
        self.timers.stop(Timer::Request);
        let from = self.machine.state();
        let outcome = self.machine.fail();
        self.follow(from, outcome, cause, now);
        if self.startup_prolonged {
            self.input(Input::StartupOver, cause, now);
        }
    }

    /// Does what the machine says.
    pub(super) fn follow(
        &mut self,
        from: ServerState,
        outcome: Outcome,
        cause: &'static str,
        now: Now,
    ) {
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
    pub(super) fn enter(&mut self, from: ServerState, cause: &'static str, now: Now) {
        let to = self.machine.state();
        let partner = self.machine.partner();
        if to != from {
            self.outputs.push_back(Output::Transition { from, to, partner, cause });
        }
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
        self.startup_prolonged = false;
        if to == ServerState::Startup {
            self.since = now.wall;
        }
    }

    /// Gives the state out to be stored; until it is, the stricter of the rules count (section
    /// 8.1).
    pub(super) fn store_state(&mut self, from: ServerState, now: Now) {
        self.operated(now);
        let to = self.machine.state();
        let since = match from {
            ServerState::Startup => self.start_time(to, now),
            _ => now.wall,
        };
        if from != ServerState::Startup || to != self.record.state {
            self.record.previous = Some(self.record.state);
        }
        if is_operating(to) {
            // As soon as this is stored; the next mark may come too late for a process that ends soon.
            self.record.last_operation = now.wall;
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
    pub(super) fn operated(&mut self, now: Now) {
        if self.policy.load().responsiveness != Responsiveness::Unresponsive {
            self.record.last_operation = now.wall;
        }
    }

    /// A state is on its way to stable storage.
    pub(super) fn is_moving(&self) -> bool {
        self.unconfirmed.iter().any(|it| it.entered.is_some())
    }

    /// Tells the workers what to answer: what both the present state and all that stable storage
    /// may hold allow.
    pub(super) fn apply_rules(&self) {
        let state = self.machine.state();
        let rules = |state| rules(self.config.role, state, self.record.mclt);
        let mut strictest = rules(state);
        for other in self.unconfirmed.iter().map(|it| it.state).chain([self.confirmed]) {
            if other != state {
                strictest = stricter(strictest, rules(other));
            }
        }
        // The partner, in RECOVER-DONE state, is about to serve, and hears first of what it does not
        // know. What is given meanwhile it need not know, if that is limited already.
        if self.return_due {
            strictest.mclt = strictest.mclt.or(Some(self.record.mclt));
        }
        // Section 8.7.1 would have leases renewed. But a partner in PARTNER-DOWN state, or one that
        // may be, gives to others what it believes to be over, and does not hear of a renewal.
        let partner = self.machine.partner();
        if state == ServerState::RecoverDone
            && matches!(partner, None | Some(ServerState::Startup | ServerState::PartnerDown))
        {
            strictest.responsiveness = Responsiveness::Unresponsive;
        }
        self.policy.set(strictest);
    }

    /// How long to stay in RECOVER-WAIT (section 8.6.2): until the MCLT after the failure, or the
    /// start; never longer than the MCLT, should the clock have been set back.
    pub(super) fn recover_wait(&self, now: Now) -> Duration {
        if self.record.history == PairHistory::Never {
            return Duration::ZERO;
        }
        let from = self.time_of_failure.unwrap_or(self.started);
        let secs = from.plus(self.mclt_before).remaining(now.wall);
        Duration::from_secs(cmp::min(secs, self.mclt_before).into())
    }

    pub(super) fn phase(&self) -> Phase {
        let state = self.machine.state();
        if self.is_moving() {
            return Phase::Quiet;
        }
        let partner = self.machine.partner();
        match (state, self.connection.is_open() && self.told) {
            (ServerState::PartnerDown, is_open) => Phase::PartnerDown {
                since: self.record.since,
                mclt: self.greatest_mclt(),
                is_flowing: is_open && partner == Some(ServerState::RecoverWait),
            },
            (ServerState::Normal, true) => Phase::Normal,
            (ServerState::Startup, _) | (_, false) => Phase::Quiet,
            (_, true) => Phase::Answering,
        }
    }

    /// What every input ends with.
    pub(super) fn finish(&mut self, now: Now) {
        self.apply_rules();
        self.send_request(now);
        self.forget_former_mclt(now);
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

    /// The timers that run as long as a state lasts.
    pub(super) fn set_timers(&mut self, now: Now) {
        let state = self.machine.state();
        let after = |wait: Duration| now.monotonic + wait;
        let startup = state == ServerState::Startup && !self.suspended;
        self.timers.run(Timer::Startup, startup, || after(self.config.startup_time));
        let recovers = state == ServerState::RecoverWait;
        let wait = if recovers { self.recover_wait(now) } else { Duration::ZERO };
        self.timers.run(Timer::RecoverWait, recovers, || after(wait));
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

/// What both allow.
fn stricter(a: PairRules, b: PairRules) -> PairRules {
    PairRules {
        responsiveness: if (a.responsiveness as u8) < b.responsiveness as u8 {
            a.responsiveness
        } else {
            b.responsiveness
        },
        mclt: match (a.mclt, b.mclt) {
            (Some(a), Some(b)) => Some(cmp::min(a, b)),
            (a, b) => a.or(b),
        },
    }
}
