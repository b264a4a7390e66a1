use gemel_lease::{PairRules, Responsiveness};

use crate::{Role, ServerState};

/// What a server may answer in a state (section 8, figure 6).
pub(crate) fn rules(role: Role, state: ServerState, mclt: u32) -> PairRules {
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

pub(crate) fn is_operating(state: ServerState) -> bool {
    rules(Role::Primary, state, 0).responsiveness != Responsiveness::Unresponsive
}

pub(crate) fn is_recovering(state: ServerState) -> bool {
    matches!(state, ServerState::Recover | ServerState::RecoverWait | ServerState::RecoverDone)
}
