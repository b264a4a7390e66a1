//! What the operator says.

use super::{Endpoint, Output, Unconfirmed};
use crate::{Now, ServerState, connection::Refusal, machine::Input, rules::is_operating};

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

impl Endpoint {
    /// What a command runs into.
    pub(super) fn objection(&self, command: Command) -> Option<&'static str> {
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
    pub(super) fn suspend(&mut self, now: Now) {
        self.operated(now);
        // In states that answer nobody: when this process last did.
        let last_operation = self.record.last_operation;
        let has_operated = is_operating(self.machine.state()) || last_operation > self.started;
        self.time_of_failure =
            self.time_of_failure.max(Some(last_operation).filter(|_| has_operated));
        self.mclt_before = self.greatest_mclt();
        self.suspended = true;
        let from = self.machine.state();
        self.machine.handle(Input::Suspend);
        self.enter(from, "suspended", now);
        self.apply_rules();
        self.unconfirmed.push_back(Unconfirmed { state: ServerState::Startup, entered: None });
        self.outputs.push_back(Output::Persist(self.record.clone()));
        self.record_changed = false;
        if self.connection.is_live() {
            self.close(&Refusal::out_of_service(), now);
        }
    }
}
