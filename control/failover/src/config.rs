use std::time::Duration;

use crate::broken::Rule;

/// Which of the two servers this one is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Role {
    /// It opens the connection, and serves alone while both work.
    Primary,
    /// It listens, and stands by.
    Secondary,
}

/// A relationship as it is configured on this server.
#[derive(Clone, Debug)]
pub struct Config {
    /// OPTION_F_RELATIONSHIP_NAME (section 5.5.14).
    pub name: String,
    /// This server's role.
    pub role: Role,
    /// Maximum Client Lead Time in seconds. The primary's counts; a secondary uses its own until
    /// it has heard the primary's (section 6.1.2).
    pub mclt: u32,
    /// FO_KEEPALIVE_TIME of this server in seconds, at least 1 (section 6.5).
    pub keepalive_secs: u32,
    /// BNDUPD messages that this server takes before it has answered the first (section 5.5.5).
    pub max_unacked_bndupd: u32,
    /// How long to look for the partner before serving without it (section 8.3.2 step 3).
    pub startup_time: Duration,
    /// How long in COMMUNICATIONS-INTERRUPTED until PARTNER-DOWN is entered without an operator;
    /// `None`: never (section 8.9). Time in which the partner is connected, in RECOVER, does not
    /// count.
    pub auto_partner_down: Option<Duration>,
    /// Without any stored state, enter PARTNER-DOWN when the partner is not heard in
    /// `startup_time`, instead of RECOVER: for a server that worked alone so far (section 8.3.2
    /// step 1).
    pub start_in_partner_down: bool,
    /// The secondary's part of the free delegable prefixes, in percent (section 4.2.2).
    pub secondary_share_percent: u8,
    /// And no more than this of one pool: each has to be sent and remembered.
    pub secondary_prefixes_max: u64,
    /// Prefixes are moved only when the secondary's part is off by more than this many percent of
    /// the free ones of a pool.
    pub balance_threshold_percent: u8,
    /// How long a BNDUPD may stay without its BNDREPLY, and an UPDREQ without any BNDUPD or
    /// UPDDONE, until the connection is dropped (sections 8.5.2 and 8.8.2).
    pub response_time_max: Duration,
    /// A rule that is not kept. For the simulator alone, which has to notice; the daemon never sets
    /// it.
    pub broken: Option<Rule>,
}

impl Config {
    /// The defaults for everything that has one.
    #[must_use]
    pub fn new(name: impl Into<String>, role: Role, mclt: u32) -> Self {
        Self {
            name: name.into(),
            role,
            mclt,
            keepalive_secs: 3,
            max_unacked_bndupd: 1024,
            startup_time: Duration::from_secs(5),
            auto_partner_down: None,
            start_in_partner_down: false,
            secondary_share_percent: 20,
            secondary_prefixes_max: 65_536,
            balance_threshold_percent: 5,
            response_time_max: Duration::from_secs(30),
            broken: None,
        }
    }
}
