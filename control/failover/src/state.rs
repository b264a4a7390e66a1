use std::fmt;

use gemel_lease::AbsoluteTime;
use serde::{Deserialize, Serialize};

/// The state of an endpoint (section 8), with the numbers of section 5.5.16.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum ServerState {
    /// Looking for the partner after a start (section 8.3).
    Startup = 1,
    /// Both serve (section 8.8).
    Normal = 2,
    /// The partner cannot be reached (section 8.9).
    CommunicationsInterrupted = 3,
    /// The partner does not serve, as an operator or a timer has said (section 8.4).
    PartnerDown = 4,
    /// Both may have served without limits (section 8.10).
    PotentialConflict = 5,
    /// Fetching what the partner knows (section 8.5).
    Recover = 6,
    /// Waiting until what this server may have done before it lost its memory is over (section
    /// 8.6).
    RecoverWait = 7,
    /// Ready, and waiting for the partner to agree (section 8.7).
    RecoverDone = 8,
    /// Contact was lost in POTENTIAL-CONFLICT (section 8.11).
    ResolutionInterrupted = 9,
    /// The primary has heard everything, the secondary not yet (section 8.12).
    ConflictDone = 10,
}

impl ServerState {
    /// From the number in a STATE message; `None` for STARTUP, which is never there, and for what
    /// no state has.
    pub(crate) const fn from_wire(state: gemel_wire::failover::ServerState) -> Option<Self> {
        Some(match state.0 {
            2 => Self::Normal,
            3 => Self::CommunicationsInterrupted,
            4 => Self::PartnerDown,
            5 => Self::PotentialConflict,
            6 => Self::Recover,
            7 => Self::RecoverWait,
            8 => Self::RecoverDone,
            9 => Self::ResolutionInterrupted,
            10 => Self::ConflictDone,
            _ => return None,
        })
    }

    /// The name as the RFC spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "STARTUP",
            Self::Normal => "NORMAL",
            Self::CommunicationsInterrupted => "COMMUNICATIONS-INTERRUPTED",
            Self::PartnerDown => "PARTNER-DOWN",
            Self::PotentialConflict => "POTENTIAL-CONFLICT",
            Self::Recover => "RECOVER",
            Self::RecoverWait => "RECOVER-WAIT",
            Self::RecoverDone => "RECOVER-DONE",
            Self::ResolutionInterrupted => "RESOLUTION-INTERRUPTED",
            Self::ConflictDone => "CONFLICT-DONE",
        }
    }
}

impl fmt::Display for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What of an endpoint is on stable storage (section 8.2).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StoredState {
    /// Current failover state; never STARTUP.
    pub state: ServerState,
    /// Previous failover state.
    pub previous: Option<ServerState>,
    /// Start time of current failover state.
    pub since: AbsoluteTime,
    /// Partner's failover state, and the start time that it gave.
    pub partner: Option<(ServerState, AbsoluteTime)>,
    /// Time most recent message received from partner; `None` until the first.
    pub last_message: Option<AbsoluteTime>,
    /// A time at which this server has certainly been operating, written now and then.
    pub last_operation: AbsoluteTime,
    /// The Maximum Client Lead Time in use, in seconds.
    pub mclt: u32,
    /// The one before, if that was larger and may still matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_mclt: Option<FormerMclt>,
    /// Whether this server has run failover with its partner.
    #[serde(default)]
    pub history: PairHistory,
    /// This server has begun without any record, and the partner has not yet sent all that it
    /// knows: UPDREQALL is due (section 8.5.2).
    #[serde(default)]
    pub memory_lost: bool,
}

/// A Maximum Client Lead Time that has been made shorter: until both servers are in NORMAL state
/// and have gone by the new one for this long, leases may be about that were given by it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FormerMclt {
    /// In seconds.
    pub mclt: u32,
    /// When it was made shorter, or when the partner last connected after that.
    pub since: AbsoluteTime,
}

/// Whether this server has ever run failover with its partner, which decides on the wait of
/// section 8.6.2, and is the COMMUNICATED flag (section 5.5.15).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairHistory {
    /// There is no record of it, and the partner has not been asked yet.
    #[default]
    Unknown,
    /// Neither this server nor the partner has a record of it: the two have just met.
    Never,
    /// It has.
    Run,
}
