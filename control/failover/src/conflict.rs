//! Whether an update of the partner's is accepted (RFC 8156 section 7.5.4).
//!
//! Both servers judge by the same table, each seeing the other's version as received and its own as
//! stored. So that they do not both accept, or both reject, two rules go beyond the letter of the
//! RFC:
//!
//! - Times are compared to the second, with a fixed order for ties. Taking times up to 5 seconds
//!   apart for equal (section 7.5.1, a SHOULD) gives verdicts that depend on who looks.
//! - The time of a stored lease is found as that of a received one is.
//! - Whether a lease had ended is judged by the two versions, and not by the clock of who looks:
//!   when both tell each other at the same time, about its end, each of them would else find that
//!   the other is right.
//!
//! And where one version says that a client may use the lease now, it must not fall to one that
//! says nothing about this client: see [`addition`].

use std::cmp::Ordering;

use gemel_lease::{AbsoluteTime, Binding, BindingStatus};
use gemel_wire::{StatusCode, failover::SKEW_SECS_MAX};

use crate::{Role, update::Update};

/// What is said to an update.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Decision {
    /// It is taken over.
    Accept,
    /// It is rejected with this status code.
    Reject(StatusCode),
    /// It is rejected with OutdatedBindingInformation, but the partner need not be told of what is
    /// known here: it will hear of that anyway within seconds.
    RejectForNow,
}

/// A cell of figure 4.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Rule {
    /// "accept": the later one wins.
    Later,
    /// "time(1)": only when the lease has ended here, too, and before the partner said so.
    Ended,
    /// "time(2)": only if the client has been heard, or else has got the lease, since this state
    /// began.
    HeardSince,
    /// "accept(3)": by client.
    ByClient,
}

/// Figure 4. Rows: ACTIVE, EXPIRED, RELEASED, FREE or FREE-BACKUP, RESET, ABANDONED in this
/// server's table; columns: ACTIVE, EXPIRED, RELEASED, FREE or FREE-BACKUP, RESET or ABANDONED
/// received.
const RULES: [[Rule; 5]; 6] = {
    use Rule::{ByClient, Ended, HeardSince, Later};
    [
        [ByClient, Ended, Later, Ended, Later],
        [Later, Later, Later, Later, Later],
        [Later, Later, Later, Later, Later],
        [Later, Later, Later, Later, Later],
        [HeardSince, Later, Later, Later, Later],
        [Later, Later, Later, Later, Later],
    ]
};

fn rule(ours: BindingStatus, received: BindingStatus) -> Rule {
    let row = match ours {
        BindingStatus::Active => 0,
        BindingStatus::Expired => 1,
        BindingStatus::Released => 2,
        BindingStatus::PendingFree | BindingStatus::Free | BindingStatus::FreeBackup => 3,
        BindingStatus::Reset => 4,
        BindingStatus::Abandoned => 5,
    };
    let column = match received {
        BindingStatus::Active => 0,
        BindingStatus::Expired => 1,
        BindingStatus::Released => 2,
        BindingStatus::PendingFree | BindingStatus::Free | BindingStatus::FreeBackup => 3,
        BindingStatus::Reset | BindingStatus::Abandoned => 4,
    };
    RULES[row][column]
}

/// Judges an update about the lease of which `ours` is known here.
pub(crate) fn decide(
    ours: &Binding,
    received: &Update<'_>,
    role: Role,
    now: AbsoluteTime,
) -> Decision {
    if let Some(decision) = addition(ours, received, role, now) {
        return decision;
    }
    let outdated = Decision::Reject(StatusCode::OUTDATED_BINDING_INFORMATION);
    let heard_since = received.clt.unwrap_or(received.start) > ours.start_time_of_state;
    let (accept, otherwise) = match rule(ours.status, received.status) {
        Rule::Later => (is_later(ours, received, role), outdated),
        Rule::Ended => {
            let end = ours.state_expiration_time;
            (now >= end && received.start >= end, not_ended(ours, now))
        }
        Rule::HeardSince => (heard_since, outdated),
        Rule::ByClient if received.is_of_client(ours) => (true, outdated),
        Rule::ByClient => match role {
            Role::Primary => (heard_since, Decision::Reject(StatusCode::ADDRESS_IN_USE)),
            // Unless the primary takes ours: else they would change places.
            Role::Secondary => (!is_heard_since(ours, received), outdated),
        },
    };
    if accept { Decision::Accept } else { otherwise }
}

/// "time(2)" as the partner finds it when it receives ours.
fn is_heard_since(ours: &Binding, received: &Update<'_>) -> bool {
    let heard = ours.client_last_transaction_time;
    let time = if heard == AbsoluteTime::ZERO { ours.start_time_of_state } else { heard };
    time > received.start
}

/// The lease runs on here, or has done so for longer than the partner knew. If its end is as near as
/// the clocks may differ, this server's own sweep will say so to the partner in a moment.
fn not_ended(ours: &Binding, now: AbsoluteTime) -> Decision {
    let end = ours.state_expiration_time;
    if now < end && end.remaining(now) <= SKEW_SECS_MAX {
        return Decision::RejectForNow;
    }
    Decision::Reject(StatusCode::OUTDATED_BINDING_INFORMATION)
}

/// What the table does not say: a lease that a client may use yields to nothing that does not
/// concern this client, and one that has ended yields to one that ended later, and to what comes
/// after an end. All this holds for either server's version, so that the verdicts fit.
fn addition(
    ours: &Binding,
    received: &Update<'_>,
    role: Role,
    now: AbsoluteTime,
) -> Option<Decision> {
    use BindingStatus::{Active, Expired, Free, FreeBackup, PendingFree, Released, Reset};
    let outdated = Decision::Reject(StatusCode::OUTDATED_BINDING_INFORMATION);
    let same_client = received.is_of_client(ours);
    // Of an ACTIVE here, or of the received one: whether it lasts beyond what the other version says.
    let outlasts = ours.state_expiration_time > received.start;
    let is_outlasted = received.state_expiration_time > ours.start_time_of_state;
    // Of a lease that is over here, or free.
    let ended_before = ours.start_time_of_state <= received.start;
    let heard = ours.client_last_transaction_time.max(ours.partner_raw_clt_time);
    let received_heard = received.clt.unwrap_or_default().max(received.partner_raw_clt_time);
    let is_untold = !ours.update_pending && ours.start_time_of_state == AbsoluteTime::ZERO;
    match (ours.status, received.status) {
        (Active, Active) if !same_client => {
            match (ours.is_active(now), now < received.state_expiration_time) {
                (true, false) => Some(outdated),
                (false, true) => Some(Decision::Accept),
                _ => None,
            }
        }
        (Active, Released) if !same_client && outlasts => Some(outdated),
        (Released, Active) if !same_client && is_outlasted => Some(Decision::Accept),
        // The client has declined the lease at one server, and the other, which did not know, has
        // given it to it again: then the end of the quarantine does not concern it.
        (Active, Reset) if outlasts && received_heard < heard => Some(outdated),
        (Reset, Active) if is_outlasted && heard < received_heard => Some(Decision::Accept),
        // Both say that the lease is nobody's. But what was told before this end may be on its way,
        // and be accepted by a partner that knows only of an earlier one.
        (Expired | Released | Reset, Expired | Released | Reset) => {
            Some(if ended_before { Decision::Accept } else { outdated })
        }
        // The same for who says that it has been free since then.
        (Expired | Released | Reset, Free | FreeBackup | PendingFree) => {
            Some(if ended_before { Decision::Accept } else { outdated })
        }
        (Free | FreeBackup | PendingFree, Expired | Released | Reset) => {
            let ends_after = received.start > ours.start_time_of_state;
            Some(if ends_after { Decision::Accept } else { outdated })
        }
        (Expired, Active) if is_outlasted => Some(Decision::Accept),
        (Expired, Active) => Some(outdated),
        (Free | FreeBackup | PendingFree, Active) if is_outlasted => Some(Decision::Accept),
        // Without an update of ours, the partner may know of a lease what is unknown here.
        (Free | FreeBackup | PendingFree, Active) if ours.update_pending => Some(outdated),
        // The partner says that a free lease is its own, and nothing is known here of a move. Nobody
        // keeps the times of free leases; leaving it to the partner is safe at any rate.
        (Free | PendingFree, FreeBackup) if role == Role::Primary && is_untold => {
            Some(Decision::Accept)
        }
        (FreeBackup, Free) if role == Role::Secondary && is_untold => Some(Decision::Accept),
        _ => None,
    }
}

/// Whether the received version is the later one. Exactly one server says so, unless both versions
/// say the same: if each took the other's, they would swap them. What decides last has no meaning.
fn is_later(ours: &Binding, received: &Update<'_>, role: Role) -> bool {
    let heard = ours.client_last_transaction_time;
    let heard = (heard != AbsoluteTime::ZERO).then_some(heard);
    let our_time = time(ours.status, heard, ours.start_time_of_state);
    let their_time = time(received.status, received.clt, received.start);
    let order = their_time
        .cmp(&our_time)
        .then(rank(received.status).cmp(&rank(ours.status)))
        .then(received.state_expiration_time.cmp(&ours.state_expiration_time))
        .then(received.valid_lifetime.cmp(&ours.valid_lifetime))
        .then(received.preferred_lifetime.cmp(&ours.preferred_lifetime));
    match order {
        Ordering::Greater => true,
        Ordering::Less => false,
        // A resend, or something that has no right answer: then the primary's version stays.
        Ordering::Equal => {
            let same = received.status == ours.status && received.is_of_client(ours);
            same || role == Role::Secondary
        }
    }
}

/// The time by which a version is judged.
fn time(status: BindingStatus, clt: Option<AbsoluteTime>, start: AbsoluteTime) -> AbsoluteTime {
    match status {
        BindingStatus::Active | BindingStatus::Expired | BindingStatus::Released => {
            clt.unwrap_or(start)
        }
        // No client is heard after it, and time(2) compares with this, too.
        BindingStatus::Reset => start,
        _ => clt.map_or(start, |clt| clt.max(start)),
    }
}

/// How far in its life a lease is.
fn rank(status: BindingStatus) -> u8 {
    match status {
        BindingStatus::Active => 0,
        BindingStatus::Expired => 1,
        BindingStatus::Released => 2,
        BindingStatus::Abandoned => 3,
        BindingStatus::Reset => 4,
        BindingStatus::PendingFree | BindingStatus::Free | BindingStatus::FreeBackup => 5,
    }
}

#[cfg(test)]
mod tests;
