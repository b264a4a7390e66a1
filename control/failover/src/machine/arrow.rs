use ServerState as Is;

use super::{Action, Arrow, Input, State};
use crate::{Role, ServerState};

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
        (
            State::Startup { previous, .. },
            Input::Partner(
                Is::Startup
                | Is::Normal
                | Is::CommunicationsInterrupted
                | Is::PartnerDown
                | Is::PotentialConflict
                | Is::Recover
                | Is::RecoverWait
                | Is::RecoverDone
                | Is::ResolutionInterrupted
                | Is::ConflictDone,
            ),
        ) => go(State::after_startup(previous)),
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
