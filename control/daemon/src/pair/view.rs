//! What an operator sees of the pair.

use std::{collections::BTreeMap, time::SystemTime};

use gemel_failover::{FlowCounters, ResyncProgress, Role, ServerState, Status, StatusCounts};
use gemel_lease::{AbsoluteTime, LeaseTable, PoolId, PoolRange, Responsiveness};
use serde::Serialize;

/// One relationship.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RelationshipView {
    /// Its name.
    pub relationship: String,
    /// `primary` or `secondary`.
    pub role: &'static str,
    /// As the RFC spells it.
    pub state: &'static str,
    /// Since when, in seconds since 1970.
    pub since: Option<u64>,
    /// The state before.
    pub previous: Option<&'static str>,
    /// Which messages of clients are answered.
    pub answers: &'static str,
    /// Whether lifetimes are limited by the MCLT.
    pub limited: bool,
    /// Why it is out of service on purpose: `drain`, `link-loss`, `store`, `stop`.
    pub suspended_by: Vec<&'static str>,
    /// The partner's state as it was heard last.
    pub partner_state: Option<&'static str>,
    /// And since when it is.
    pub partner_since: Option<u64>,
    /// The partner's address.
    pub partner_address: String,
    /// Whether communications are "OK".
    pub communications_ok: bool,
    /// Since when they are or are not.
    pub communications_since: Option<u64>,
    /// When the partner was heard last.
    pub last_message: Option<u64>,
    /// Whether there is a connection.
    pub connected: bool,
    /// Why there is none, or why the last one ended.
    pub connection_problem: Option<String>,
    /// Where the secondary listens, or why it does not.
    pub listening: Option<String>,
    /// `off`, or the name in the partner's certificate.
    pub tls: String,
    /// When the partner's certificate ends.
    pub partner_certificate_expires: Option<u64>,
    /// When this server's certificate or its authority's ends.
    pub certificate_expires: Option<u64>,
    /// How far the partner's clock is ahead, in seconds.
    pub clock_skew_seconds: Option<i32>,
    /// The MCLT in use.
    pub mclt_seconds: u32,
    /// The partner has yet to send all that it knows.
    pub memory_lost: bool,
    /// The partner is sending what this server has asked for.
    pub updates_requested: bool,
    /// Age of the oldest update without an answer.
    pub lag_seconds: f64,
    /// How long until STARTUP, RECOVER-WAIT or COMMUNICATIONS-INTERRUPTED end by themselves.
    pub remaining_seconds: BTreeMap<&'static str, u64>,
    /// Binding updates.
    pub updates: UpdatesView,
    /// Prefix pools.
    pub balance: Vec<BalanceView>,
    /// Connections that have stood.
    pub connections: u64,
    /// Transitions of the state.
    pub transitions: u64,
    /// Alarms.
    pub alarms: u64,
    /// The last of them, and when.
    pub last_alarm: Option<(u64, String)>,
    /// What will be a problem.
    pub warnings: Vec<String>,
}

/// Counters of binding updates.
#[derive(Clone, Debug, Default, Serialize)]
pub struct UpdatesView {
    /// Leases that the partner does not know as they are, connected or not; counted within the last
    /// half minute. Unknown before the first count.
    pub pending: Option<u64>,
    /// Messages without an answer.
    pub unacked: u64,
    /// Leases that wait to be sent.
    pub queued: u64,
    /// Answers that wait until an update of the partner is stored.
    pub replies_waiting: u64,
    /// Leases sent.
    pub sent: u64,
    /// Leases that the partner has accepted.
    pub acked: u64,
    /// Leases that the partner has rejected, by status.
    pub rejected_by_partner: BTreeMap<&'static str, u64>,
    /// Leases received.
    pub received: u64,
    /// Of these: accepted.
    pub accepted: u64,
    /// And rejected, by status.
    pub rejected: BTreeMap<&'static str, u64>,
    /// Answers of the partner that fit nothing that was sent.
    pub replies_odd: u64,
    /// Updates that gave a lease to another client than the one that has it here.
    pub conflicts: u64,
    /// Times that the table was searched because the queue was full.
    pub overflows: u64,
    /// Requests of the partner that were answered in full.
    pub requests_done: u64,
    /// Prefixes given to the secondary, asked back from it, and taken over in PARTNER-DOWN.
    pub prefixes_given: u64,
    /// See above.
    pub prefixes_reclaimed: u64,
    /// See above.
    pub prefixes_taken_over: u64,
    /// Leases freed in PARTNER-DOWN after the wait.
    pub freed_after_wait: u64,
    /// The request that is being answered.
    pub resync: Option<ResyncView>,
}

/// The answer to a request of the partner.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ResyncView {
    /// Everything, or what it has not heard.
    pub all: bool,
    /// How much of the table has been looked through, in percent.
    pub percent: u8,
    /// Leases sent.
    pub sent: u64,
    /// Messages of these without an answer.
    pub unacked: u64,
}

/// The free prefixes of a pool.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct BalanceView {
    /// The pool.
    pub pool: String,
    /// Those of the primary.
    pub primary: u64,
    /// Those of the secondary.
    pub secondary: u64,
    /// Those on their way.
    pub moving: u64,
}

/// What the endpoint says, in the operator's words.
pub fn fill(view: &mut RelationshipView, status: &Status) {
    let unix = AbsoluteTime::to_unix_secs;
    view.role = role(status.role);
    view.state = status.state.as_str();
    view.since = unix(status.since);
    view.previous = status.previous.map(ServerState::as_str);
    view.answers = match status.rules.responsiveness {
        Responsiveness::Unresponsive => "none",
        Responsiveness::RenewRecorded => "renewals of known leases",
        Responsiveness::RenewResponsive => "those that name this server",
        Responsiveness::Responsive => "all",
    };
    view.limited = status.rules.mclt.is_some();
    view.partner_state = status.partner.map(|(state, _)| state.as_str());
    view.partner_since = status.partner.and_then(|(_, since)| unix(since));
    view.communications_ok = status.communications_ok;
    view.communications_since = unix(status.communications_since);
    view.last_message = status.last_message.and_then(unix);
    view.connected = status.connected;
    view.clock_skew_seconds = status.skew_secs;
    view.mclt_seconds = status.mclt;
    view.memory_lost = status.memory_lost;
    view.updates_requested = status.updates_requested;
    view.lag_seconds = status.oldest_unanswered.unwrap_or_default().as_secs_f64();
    view.remaining_seconds = [
        ("startup", status.startup_remaining),
        ("recover_wait", status.recover_wait_remaining),
        ("auto_partner_down", status.auto_partner_down_remaining),
    ]
    .into_iter()
    .filter_map(|(name, remaining)| Some((name, remaining?.as_secs())))
    .collect();
    view.updates = updates(&status.flow);
}

fn updates(flow: &FlowCounters) -> UpdatesView {
    UpdatesView {
        pending: None,
        unacked: flow.unacked,
        queued: flow.queued,
        replies_waiting: flow.replies_waiting,
        sent: flow.sent,
        acked: flow.acked,
        rejected_by_partner: by_status(&flow.rejected_by_partner),
        received: flow.received,
        accepted: flow.accepted,
        rejected: by_status(&flow.rejected),
        replies_odd: flow.replies_unknown + flow.replies_wrong,
        conflicts: flow.conflicts,
        overflows: flow.overflows,
        requests_done: flow.requests_done,
        prefixes_given: flow.prefixes_given,
        prefixes_reclaimed: flow.prefixes_reclaimed,
        prefixes_taken_over: flow.prefixes_taken_over,
        freed_after_wait: flow.freed_after_wait,
        resync: flow.resync.as_ref().map(resync),
    }
}

fn resync(progress: &ResyncProgress) -> ResyncView {
    let percent = progress.stripes_done * 100 / progress.stripes_total.max(1);
    ResyncView {
        all: progress.all,
        percent: u8::try_from(percent).unwrap_or(100),
        sent: progress.sent,
        unacked: progress.unacked,
    }
}

/// The statuses that have been counted, by the names of RFC 8156 section 5.6.
fn by_status(counts: &StatusCounts) -> BTreeMap<&'static str, u64> {
    [
        ("AddressInUse", counts.address_in_use),
        ("ConfigurationConflict", counts.configuration_conflict),
        ("MissingBindingInformation", counts.missing_binding_information),
        ("OutdatedBindingInformation", counts.outdated_binding_information),
        ("other", counts.other),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .collect()
}

/// The balance of a relationship's prefix pools.
pub fn balance(table: &LeaseTable, pools: &[PoolId], names: &[String]) -> Vec<BalanceView> {
    let is_prefixes =
        |pool: &PoolId| matches!(table.pools().config(*pool).range, PoolRange::Prefixes { .. });
    let each = pools.iter().filter(|pool| is_prefixes(pool)).filter_map(|pool| {
        let (primary, secondary) = table.prefix_balance(*pool);
        let moving = table.prefixes_moving(*pool);
        let name = names.get(usize::from(pool.0))?.clone();
        Some(BalanceView { pool: name, primary, secondary, moving })
    });
    each.collect()
}

/// As it is written in the configuration.
#[must_use]
pub const fn role(role: Role) -> &'static str {
    match role {
        Role::Primary => "primary",
        Role::Secondary => "secondary",
    }
}

/// Seconds since 1970, now.
#[must_use]
pub fn unix_now() -> u64 {
    crate::status::unix_secs(SystemTime::now())
}
