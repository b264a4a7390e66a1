//! What STARTUP leads to: section 8.3.2.

use ServerState as Is;

use crate::{Role, ServerState};

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
/// the partner. Worse, out of a conflict that is cut short both would serve, and the recovering one
/// without what the partner has granted since it was last heard. One that was ready begins again.
pub(crate) fn after_partner_down(previous: ServerState, since_failure: bool) -> ServerState {
    if since_failure {
        return Is::Recover;
    }
    match previous {
        Is::Startup | Is::Recover | Is::RecoverWait => previous,
        Is::RecoverDone => Is::Recover,
        Is::Normal
        | Is::CommunicationsInterrupted
        | Is::PartnerDown
        | Is::PotentialConflict
        | Is::ResolutionInterrupted
        | Is::ConflictDone => Is::PotentialConflict,
    }
}
