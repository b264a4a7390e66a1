use std::time::Duration;

use gemel_lease::{AbsoluteTime, PairRules};
use gemel_wire::failover::ServerFlags;

use crate::{FlowCounters, Role, ServerState};

/// What an operator sees.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Status {
    /// This server's role.
    pub role: Role,
    /// The state.
    pub state: ServerState,
    /// Start time of the state.
    pub since: AbsoluteTime,
    /// The state before; what it was before the start, while in STARTUP.
    pub previous: Option<ServerState>,
    /// Out of service by [`Command::Suspend`](crate::Command::Suspend).
    pub suspended: bool,
    /// What is answered now, and with which limit on lifetimes.
    pub rules: PairRules,
    /// Partner's state as heard last and its start time, also of earlier connections.
    pub partner: Option<(ServerState, AbsoluteTime)>,
    /// The flags of the partner's last STATE message on this connection.
    pub partner_flags: Option<ServerFlags>,
    /// When a partner in PARTNER-DOWN says that it went into that state.
    pub partner_down_time: Option<AbsoluteTime>,
    /// Whether there is a connection, be it only begun.
    pub connected: bool,
    /// Whether communications are "OK".
    pub communications_ok: bool,
    /// Since when they are, or are not.
    pub communications_since: AbsoluteTime,
    /// How far the partner's clock was ahead of ours with the last message, in seconds; the time
    /// on the way makes it look behind.
    pub skew_secs: Option<i32>,
    /// Time most recent message received from partner.
    pub last_message: Option<AbsoluteTime>,
    /// The Maximum Client Lead Time in use, in seconds.
    pub mclt: u32,
    /// Everything that the partner knows has still to be fetched.
    pub memory_lost: bool,
    /// An UPDREQ or UPDREQALL of this server is being answered.
    pub updates_requested: bool,
    /// Age of the oldest BNDUPD without a BNDREPLY.
    pub oldest_unanswered: Option<Duration>,
    /// When STARTUP ends without a partner.
    pub startup_remaining: Option<Duration>,
    /// When RECOVER-WAIT ends.
    pub recover_wait_remaining: Option<Duration>,
    /// When PARTNER-DOWN is entered without an operator.
    pub auto_partner_down_remaining: Option<Duration>,
    /// What passes between the partners.
    pub flow: FlowCounters,
}
