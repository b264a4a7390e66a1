//! The state machine of section 8, without clock, messages or storage.
//!
//! The drawing shows the transitions of the RFC's figure 6 (`~` NORMAL and COMMUNICATIONS-INTERRUPTED
//! and back apart). What is written at an arrow is the partner's state as heard, or what happened.
//! STARTUP leads to the state of before, see [`previous_state`] and [`after_partner_down`].
//!
//! ```text
//!                                   STARTUP
//!                                      |  previous state, or
//!                 partner was declared down    one of RECOVER, POTENTIAL-CONFLICT
//!                                      v
//!   RECOVER ----P-C, RES-INT, CONFLICT-DONE---------> POTENTIAL-CONFLICT <--------------+
//!     |                                               ^    |  ^      |  |              |
//!   UPDDONE                                   restored|    |  |      |  | UPDDONE       |
//!     v                                               | failed|      |  | (primary)     |
//!   RECOVER-WAIT ---P-C, RES-INT, CONFLICT-DONE-->    |    v  |      |  v               |
//!     |                                        RESOLUTION-    |      |  CONFLICT-DONE   |
//!   MCLT is over                               INTERRUPTED    |      |  |               |
//!     v                                            |          |      |  |               |
//!   RECOVER-DONE ---P-C, RES-INT, CONFLICT-DONE----|----------+      |  |               |
//!     |     |                                      |      UPDDONE    |  | NORMAL        |
//!     |     | NORMAL, RECOVER-DONE                 |    (secondary)  |  |               |
//!     |     +--------------------------------------|-----> NORMAL <--+--+               |
//!     |                                            |       |   ^  ^                     |
//!     | RECOVER, RECOVER-WAIT              operator|       |   |  | RECOVER-DONE        |
//!     |                                            |       |   |  |                     |
//!     |                            +---------------+-- operator  +-------+              |
//!     |                            v                       |   |         |              |
//!     |                     PARTNER-DOWN --any but RECOVER, RECOVER-WAIT-|-, -DONE----->+
//!     |                            |                       |   |         |              |
//!     |                            ^  +--------------------|---|---------+              |
//!     |             operator, timer|                 failed|   | NORMAL, COMM-INT,      |
//!     |                            |                       v   | RECOVER-DONE           |
//!     +-------------------------->COMMUNICATIONS-INTERRUPTED --+                        |
//!                                  |                                                    |
//!                                  +--PARTNER-DOWN, P-C, RES-INT, CONFLICT-DONE-------->+
//! ```

use ServerState as Is;

use crate::{Role, ServerState};

/// The state of this server.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum State {
    /// Section 8.3; a suspended server, too.
    Startup {
        /// PREVIOUS-STATE of section 8.3.2.
        previous: ServerState,
        /// Nothing was recorded, and the configuration says to go on without a partner that is not
        /// there (section 8.3.2 step 1).
        alone: bool,
    },
    /// Section 8.8.
    Normal,
    /// Section 8.9.
    CommunicationsInterrupted,
    /// Section 8.4.
    PartnerDown,
    /// Section 8.10.
    PotentialConflict,
    /// Section 8.5.
    Recover,
    /// Section 8.6.
    RecoverWait,
    /// Section 8.7.
    RecoverDone,
    /// Section 8.11.
    ResolutionInterrupted,
    /// Section 8.12; the primary only.
    ConflictDone,
}

impl State {
    /// Without the data.
    pub(crate) const fn name(self) -> ServerState {
        match self {
            Self::Startup { .. } => ServerState::Startup,
            Self::Normal => ServerState::Normal,
            Self::CommunicationsInterrupted => ServerState::CommunicationsInterrupted,
            Self::PartnerDown => ServerState::PartnerDown,
            Self::PotentialConflict => ServerState::PotentialConflict,
            Self::Recover => ServerState::Recover,
            Self::RecoverWait => ServerState::RecoverWait,
            Self::RecoverDone => ServerState::RecoverDone,
            Self::ResolutionInterrupted => ServerState::ResolutionInterrupted,
            Self::ConflictDone => ServerState::ConflictDone,
        }
    }

    /// The state after STARTUP. STARTUP itself is never recorded; as a previous state it means that
    /// nothing is known.
    const fn after_startup(previous: ServerState) -> Self {
        match previous {
            ServerState::Startup | ServerState::Recover => Self::Recover,
            ServerState::Normal => Self::Normal,
            ServerState::CommunicationsInterrupted => Self::CommunicationsInterrupted,
            ServerState::PartnerDown => Self::PartnerDown,
            ServerState::PotentialConflict => Self::PotentialConflict,
            ServerState::RecoverWait => Self::RecoverWait,
            ServerState::RecoverDone => Self::RecoverDone,
            ServerState::ResolutionInterrupted => Self::ResolutionInterrupted,
            ServerState::ConflictDone => Self::ConflictDone,
        }
    }
}

/// What happens to the machine.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Input {
    /// The partner is in this state: as its first STATE message on a connection says, which makes
    /// communications "OK", or a later one. STARTUP stands for the flag of that name.
    Partner(ServerState),
    /// Communications are no longer "OK".
    Failed,
    /// UPDDONE to the request that is outstanding.
    UpdDone,
    /// The time of section 8.3.2 step 3 is over.
    StartupOver,
    /// The time of section 8.6.2 is over.
    RecoverWaitOver,
    /// The time of section 8.9.2 is over.
    AutoPartnerDown,
    /// The operator says that the partner is down.
    PartnerDown,
    /// The operator, or the link monitor, takes this server out of service.
    Suspend,
    /// And back into it.
    Resume,
}

/// What has to be done besides a transition.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Action {
    /// Nothing.
    None,
    /// Send UPDREQ or UPDREQALL, unless one is outstanding.
    Request,
    /// Repeat the STATE message: the partner seems to have missed it (section 6.3).
    Announce,
    /// Drop the connection.
    Disconnect,
}

/// The answer to an input.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Arrow {
    pub(crate) to: State,
    pub(crate) action: Action,
}

/// The transitions. Each pair of a state and an input is spelled out, so that a new one of either
/// has to be thought about everywhere.
pub(crate) fn arrow(role: Role, state: State, input: Input) -> Arrow {
    let stay = Arrow { to: state, action: Action::None };
    let request = Arrow { to: state, action: Action::Request };
    let announce = Arrow { to: state, action: Action::Announce };
    let go = |to| Arrow { to, action: Action::None };
    let suspend = |previous| go(State::Startup { previous, alone: false });
    match (state, input) {
        // Section 8.3.2. Steps 5 and 6: the caller then gives the partner's state again. If the
        // partner is in STARTUP as well, it first has to say what it becomes.
        (State::Startup { previous, .. }, Input::Partner(_)) => go(State::after_startup(previous)),
        (State::Startup { alone: true, .. }, Input::StartupOver) => go(State::PartnerDown),
        (State::Startup { previous, alone: false }, Input::StartupOver) => {
            go(State::after_startup(previous))
        }
        // Not in the RFC: an operator who is left with this server must not have to wait.
        (State::Startup { .. }, Input::PartnerDown) => go(State::PartnerDown),
        (
            State::Startup { .. },
            Input::Failed
            | Input::UpdDone
            | Input::RecoverWaitOver
            | Input::AutoPartnerDown
            | Input::Suspend
            | Input::Resume,
        ) => stay,

        // Section 8.8.2: from an unexpected state of the partner by way of
        // COMMUNICATIONS-INTERRUPTED. Where that leads straight back to NORMAL nothing changes here,
        // and the partner is told so.
        (State::Normal, Input::Partner(Is::Normal | Is::Startup)) => stay,
        (State::Normal, Input::Partner(Is::CommunicationsInterrupted | Is::RecoverDone)) => {
            announce
        }
        (State::Normal, Input::Partner(Is::Recover | Is::RecoverWait))
        | (State::Normal, Input::Failed) => go(State::CommunicationsInterrupted),
        (
            State::Normal,
            Input::Partner(Is::PartnerDown | Is::PotentialConflict | Is::ResolutionInterrupted),
        ) => go(State::PotentialConflict),
        // The primary waits in CONFLICT-DONE for nothing but the secondary's NORMAL.
        (State::Normal, Input::Partner(Is::ConflictDone)) => match role {
            Role::Primary => go(State::PotentialConflict),
            Role::Secondary => announce,
        },
        (State::Normal, Input::PartnerDown) => {
            Arrow { to: State::PartnerDown, action: Action::Disconnect }
        }
        (State::Normal, Input::Suspend) => suspend(Is::CommunicationsInterrupted),
        (
            State::Normal,
            Input::UpdDone
            | Input::StartupOver
            | Input::RecoverWaitOver
            | Input::AutoPartnerDown
            | Input::Resume,
        ) => stay,

        // Section 8.9.2. RECOVER-WAIT is missing there; figure 6 has it beside RECOVER.
        (
            State::CommunicationsInterrupted,
            Input::Partner(Is::Normal | Is::CommunicationsInterrupted | Is::RecoverDone),
        ) => go(State::Normal),
        (
            State::CommunicationsInterrupted,
            Input::Partner(Is::Startup | Is::Recover | Is::RecoverWait),
        ) => stay,
        (
            State::CommunicationsInterrupted,
            Input::Partner(
                Is::PartnerDown
                | Is::PotentialConflict
                | Is::ResolutionInterrupted
                | Is::ConflictDone,
            ),
        ) => go(State::PotentialConflict),
        (State::CommunicationsInterrupted, Input::AutoPartnerDown | Input::PartnerDown) => {
            go(State::PartnerDown)
        }
        (State::CommunicationsInterrupted, Input::Suspend) => {
            suspend(Is::CommunicationsInterrupted)
        }
        (
            State::CommunicationsInterrupted,
            Input::Failed
            | Input::UpdDone
            | Input::StartupOver
            | Input::RecoverWaitOver
            | Input::Resume,
        ) => stay,

        // Section 8.4.2.
        (
            State::PartnerDown,
            Input::Partner(
                Is::Normal
                | Is::CommunicationsInterrupted
                | Is::PartnerDown
                | Is::PotentialConflict
                | Is::ResolutionInterrupted
                | Is::ConflictDone,
            ),
        ) => go(State::PotentialConflict),
        (State::PartnerDown, Input::Partner(Is::RecoverDone)) => go(State::Normal),
        (State::PartnerDown, Input::Partner(Is::Startup | Is::Recover | Is::RecoverWait)) => stay,
        (State::PartnerDown, Input::Suspend) => suspend(Is::PartnerDown),
        (
            State::PartnerDown,
            Input::Failed
            | Input::UpdDone
            | Input::StartupOver
            | Input::RecoverWaitOver
            | Input::AutoPartnerDown
            | Input::PartnerDown
            | Input::Resume,
        ) => stay,

        // Section 8.10.2. The primary asks first, the secondary when the primary has all.
        (
            State::PotentialConflict,
            Input::Partner(
                Is::Normal
                | Is::CommunicationsInterrupted
                | Is::PartnerDown
                | Is::PotentialConflict
                | Is::Recover
                | Is::RecoverWait
                | Is::RecoverDone
                | Is::ResolutionInterrupted,
            ),
        ) => match role {
            Role::Primary => request,
            Role::Secondary => stay,
        },
        (State::PotentialConflict, Input::Partner(Is::ConflictDone)) => request,
        (State::PotentialConflict, Input::UpdDone) => match role {
            Role::Primary => go(State::ConflictDone),
            Role::Secondary => go(State::Normal),
        },
        (State::PotentialConflict, Input::Failed) => go(State::ResolutionInterrupted),
        (State::PotentialConflict, Input::Suspend) => suspend(Is::ResolutionInterrupted),
        (
            State::PotentialConflict,
            Input::Partner(Is::Startup)
            | Input::StartupOver
            | Input::RecoverWaitOver
            | Input::AutoPartnerDown
            | Input::PartnerDown
            | Input::Resume,
        ) => stay,

        // Section 8.5.2.
        (
            State::Recover,
            Input::Partner(Is::PotentialConflict | Is::ResolutionInterrupted | Is::ConflictDone),
        ) => go(State::PotentialConflict),
        (
            State::Recover,
            Input::Partner(
                Is::Normal
                | Is::CommunicationsInterrupted
                | Is::PartnerDown
                | Is::Recover
                | Is::RecoverWait
                | Is::RecoverDone,
            ),
        ) => request,
        (State::Recover, Input::UpdDone) => go(State::RecoverWait),
        // Not in the RFC: the operator of a server that has lost its memory, and its partner.
        (State::Recover, Input::PartnerDown) => go(State::PartnerDown),
        (State::Recover, Input::Suspend) => suspend(Is::Recover),
        (
            State::Recover,
            Input::Partner(Is::Startup)
            | Input::Failed
            | Input::StartupOver
            | Input::RecoverWaitOver
            | Input::AutoPartnerDown
            | Input::Resume,
        ) => stay,

        // Section 8.6.2. It says nothing of a partner in a conflict, which would wait for nobody:
        // do as in RECOVER.
        (
            State::RecoverWait,
            Input::Partner(Is::PotentialConflict | Is::ResolutionInterrupted | Is::ConflictDone),
        ) => go(State::PotentialConflict),
        (State::RecoverWait, Input::RecoverWaitOver) => go(State::RecoverDone),
        (State::RecoverWait, Input::PartnerDown) => go(State::PartnerDown),
        (State::RecoverWait, Input::Suspend) => suspend(Is::RecoverWait),
        (
            State::RecoverWait,
            Input::Partner(
                Is::Startup
                | Is::Normal
                | Is::CommunicationsInterrupted
                | Is::PartnerDown
                | Is::Recover
                | Is::RecoverWait
                | Is::RecoverDone,
            )
            | Input::Failed
            | Input::UpdDone
            | Input::StartupOver
            | Input::AutoPartnerDown
            | Input::Resume,
        ) => stay,

        // Section 8.7.2, and what it says of POTENTIAL-CONFLICT for the two states that belong to
        // it. A partner in COMMUNICATIONS-INTERRUPTED or PARTNER-DOWN is about to enter NORMAL.
        (State::RecoverDone, Input::Partner(Is::Normal | Is::RecoverDone)) => go(State::Normal),
        (State::RecoverDone, Input::Partner(Is::Recover | Is::RecoverWait)) => {
            go(State::CommunicationsInterrupted)
        }
        (
            State::RecoverDone,
            Input::Partner(Is::PotentialConflict | Is::ResolutionInterrupted | Is::ConflictDone),
        ) => go(State::PotentialConflict),
        (State::RecoverDone, Input::PartnerDown) => go(State::PartnerDown),
        (State::RecoverDone, Input::Suspend) => suspend(Is::RecoverDone),
        (
            State::RecoverDone,
            Input::Partner(Is::Startup | Is::CommunicationsInterrupted | Is::PartnerDown)
            | Input::Failed
            | Input::UpdDone
            | Input::StartupOver
            | Input::RecoverWaitOver
            | Input::AutoPartnerDown
            | Input::Resume,
        ) => stay,

        // Section 8.11.2: whatever the partner is in.
        (
            State::ResolutionInterrupted,
            Input::Partner(
                Is::Normal
                | Is::CommunicationsInterrupted
                | Is::PartnerDown
                | Is::PotentialConflict
                | Is::Recover
                | Is::RecoverWait
                | Is::RecoverDone
                | Is::ResolutionInterrupted
                | Is::ConflictDone,
            ),
        ) => go(State::PotentialConflict),
        (State::ResolutionInterrupted, Input::PartnerDown) => go(State::PartnerDown),
        (State::ResolutionInterrupted, Input::Suspend) => suspend(Is::ResolutionInterrupted),
        (
            State::ResolutionInterrupted,
            Input::Partner(Is::Startup)
            | Input::Failed
            | Input::UpdDone
            | Input::StartupOver
            | Input::RecoverWaitOver
            | Input::AutoPartnerDown
            | Input::Resume,
        ) => stay,

        // Section 8.12.2. A secondary that has been in PARTNER-DOWN since has used what is not its
        // own: begin again. In every other state it comes by itself, by way of POTENTIAL-CONFLICT.
        (State::ConflictDone, Input::Partner(Is::Normal)) => go(State::Normal),
        (State::ConflictDone, Input::Partner(Is::PartnerDown | Is::ConflictDone)) => {
            go(State::PotentialConflict)
        }
        (State::ConflictDone, Input::PartnerDown) => go(State::PartnerDown),
        (State::ConflictDone, Input::Suspend) => suspend(Is::ConflictDone),
        (
            State::ConflictDone,
            Input::Partner(
                Is::Startup
                | Is::CommunicationsInterrupted
                | Is::PotentialConflict
                | Is::Recover
                | Is::RecoverWait
                | Is::RecoverDone
                | Is::ResolutionInterrupted,
            )
            | Input::Failed
            | Input::UpdDone
            | Input::StartupOver
            | Input::RecoverWaitOver
            | Input::AutoPartnerDown
            | Input::Resume,
        ) => stay,
    }
}

/// PREVIOUS-STATE from what is recorded: section 8.3.2 steps 1 and 2.
pub(crate) fn previous_state(role: Role, recorded: Option<ServerState>) -> ServerState {
    match recorded {
        None | Some(Is::Startup | Is::Recover) => Is::Recover,
        Some(Is::Normal | Is::CommunicationsInterrupted) => Is::CommunicationsInterrupted,
        Some(Is::PotentialConflict | Is::ResolutionInterrupted) => Is::ResolutionInterrupted,
        Some(Is::PartnerDown) => Is::PartnerDown,
        Some(Is::RecoverWait) => Is::RecoverWait,
        Some(Is::RecoverDone) => Is::RecoverDone,
        Some(Is::ConflictDone) => match role {
            Role::Primary => Is::ConflictDone,
            // Only a change of roles leaves this behind.
            Role::Secondary => Is::ResolutionInterrupted,
        },
    }
}

/// PREVIOUS-STATE after it is known that the partner is, or was before it started, in PARTNER-DOWN:
/// section 8.3.2 step 5. `since_failure`: it entered that state after this server last operated.
///
/// A server that was recovering has not operated since; to make a conflict of that would only stop
/// the partner.
pub(crate) fn after_partner_down(previous: ServerState, since_failure: bool) -> ServerState {
    match previous {
        _ if since_failure => Is::Recover,
        Is::Startup | Is::Recover | Is::RecoverWait => previous,
        Is::Normal
        | Is::CommunicationsInterrupted
        | Is::PartnerDown
        | Is::PotentialConflict
        | Is::RecoverDone
        | Is::ResolutionInterrupted
        | Is::ConflictDone => Is::PotentialConflict,
    }
}

/// A server's state and what it knows of its partner.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Machine {
    role: Role,
    state: State,
    /// As said on this connection; `Some` is communications "OK".
    partner: Option<ServerState>,
    /// An UPDREQ or UPDREQALL is to be sent, or is sent and not answered, in this state.
    requested: bool,
}

/// What came of an input.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Outcome {
    /// The state is another one now. States that were only passed through do not count.
    pub(crate) changed: bool,
    /// Send UPDREQ or UPDREQALL, after the STATE message if there is one to send.
    pub(crate) request: bool,
    /// Repeat the STATE message.
    pub(crate) announce: bool,
    /// Drop the connection.
    pub(crate) disconnect: bool,
}

impl Machine {
    /// In STARTUP state. `recorded` is what stable storage holds; `alone`: without a record, serve
    /// when no partner is heard.
    pub(crate) fn new(role: Role, recorded: Option<ServerState>, alone: bool) -> Self {
        let previous = previous_state(role, recorded);
        let state = State::Startup { previous, alone: alone && recorded.is_none() };
        Self { role, state, partner: None, requested: false }
    }

    /// The state.
    pub(crate) fn state(&self) -> ServerState {
        self.state.name()
    }

    /// What a STATE message says: in STARTUP the previous state.
    pub(crate) fn told_state(&self) -> ServerState {
        match self.state {
            State::Startup { previous, .. } => previous,
            state => state.name(),
        }
    }

    /// The partner's state if communications are "OK"; STARTUP if it has only said that much.
    pub(crate) fn partner(&self) -> Option<ServerState> {
        self.partner
    }

    /// A STATE message. `startup` is its flag; `down_since_failure` says of a partner in
    /// PARTNER-DOWN whether it entered that state after this server last operated.
    pub(crate) fn hear(
        &mut self,
        partner: ServerState,
        startup: bool,
        down_since_failure: bool,
    ) -> Outcome {
        if let State::Startup { previous, .. } = &mut self.state
            && partner == ServerState::PartnerDown
        {
            *previous = after_partner_down(*previous, down_since_failure);
        }
        let partner = if startup { ServerState::Startup } else { partner };
        if self.partner == Some(partner) {
            return Outcome::default();
        }
        self.partner = Some(partner);
        self.handle(Input::Partner(partner))
    }

    /// The connection is gone.
    pub(crate) fn fail(&mut self) -> Outcome {
        self.requested = false;
        match self.partner.take() {
            Some(_) => self.handle(Input::Failed),
            None => Outcome::default(),
        }
    }

    /// UPDDONE to the request that is outstanding.
    pub(crate) fn update_done(&mut self) -> Outcome {
        self.requested = false;
        self.handle(Input::UpdDone)
    }

    /// Handles an input. The machine is invoked again whenever it has changed its state itself
    /// (section 8.1), except in NORMAL, which expects the partner to follow.
    pub(crate) fn handle(&mut self, input: Input) -> Outcome {
        let before = self.state.name();
        let mut outcome = Outcome::default();
        let mut input = input;
        loop {
            let Arrow { to, action } = arrow(self.role, self.state, input);
            let moved = to.name() != self.state.name();
            self.state = to;
            if moved {
                // The answer to a question asked in another state counts no more.
                self.requested = false;
                if matches!(to, State::Startup { .. }) {
                    // Suspended: the connection goes, too.
                    self.partner = None;
                }
            }
            match action {
                Action::None => {}
                Action::Request => {
                    outcome.request |= !self.requested;
                    self.requested = true;
                }
                Action::Announce => outcome.announce = true,
                Action::Disconnect => {
                    outcome.disconnect = true;
                    self.partner = None;
                }
            }
            match self.partner {
                Some(partner) if moved && self.state != State::Normal => {
                    input = Input::Partner(partner);
                }
                _ => break,
            }
        }
        outcome.changed = self.state.name() != before;
        outcome
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
