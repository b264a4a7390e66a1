//! The state machine of section 8, without clock, messages or storage.
//!
//! Figure 6 of the RFC with the text of section 8 put in. At an arrow stands the partner's state as
//! heard in a STATE message, or what else happened. *Conflict* is a partner in POTENTIAL-CONFLICT,
//! RESOLUTION-INTERRUPTED or CONFLICT-DONE; *serving* one in NORMAL, COMMUNICATIONS-INTERRUPTED or
//! PARTNER-DOWN. STARTUP, which is not drawn, leads to the state of before: see [`startup`].
//!
//! ```text
//!  +--------------+           +--------------------+ failed    +------------------------+
//!  |   RECOVER    |-conflict->| POTENTIAL-CONFLICT |---------->| RESOLUTION-INTERRUPTED |--+
//!  +--------------+           |                    |<-restored-|                        |  |
//!         | UPDDONE           |                    |           +------------------------+  |
//!         v                   |                    |                                       |
//!  +--------------+           |                    | UPDDONE (primary)                     |
//!  | RECOVER-WAIT |-conflict->|                    |---------->+------------------------+  |
//!  +--------------+           |                    |           |     CONFLICT-DONE      |->+
//!         | MCLT is over      |                    |<-PARTNER--+------------------------+  |
//!         v                   |                    |  DOWN         | NORMAL                |
//!  +--------------+           |                    |               |           operator,   |
//!  | RECOVER-DONE |-conflict->|                    |               |           from any    |
//!  +--------------+           +--------------------+               |           state but   |
//!    |     | NORMAL,            ^    ^     | UPDDONE               |           POTENTIAL-  |
//!    |     | RECOVER-DONE       |    |     | (secondary)           |           CONFLICT    |
//!    |     |                    |    |     v                       v                       v
//!    |     |    +---------------|----|----------------------------------+      +--------------+
//!    |     +--->|  NORMAL       |    +-- conflict, PARTNER-DOWN         |      | PARTNER-DOWN |
//!    |          +---------------|---------------------------------------+      +--------------+
//!    |            |             |             ^             ^                    |  |    ^
//!    |            | failed,     |             | NORMAL,     +--RECOVER-DONE------+  |    |
//!    |            | RECOVER,    |             | COMM-INT.,                          |    |
//!    |            | RECOVER-    |             | RECOVER-             conflict or    |    |
//!    |            | WAIT        |             | DONE                 serving: to    |    |
//!    |            v             |             |                      POTENTIAL-  <--+    |
//!    |          +---------------|----------------------------+       CONFLICT            |
//!    +--------->|               +-- conflict, PARTNER-DOWN   |                           |
//!     RECOVER,  |        COMMUNICATIONS-INTERRUPTED          |--auto-partner-down--------+
//!     RECOVER-  +--------------------------------------------+
//!     WAIT
//! ```

mod arrow;
mod startup;

use arrow::arrow;
use startup::{after_partner_down, previous_state};

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
