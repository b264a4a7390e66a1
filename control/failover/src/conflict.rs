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
//! says nothing about this client: see [`RULES`].

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

/// A cell of figure 4, with what had to be added to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Rule {
    /// "accept": the later one wins.
    Later,
    /// "time(1)": only when the lease has ended here, too, and before the partner said so.
    Ended,
    /// "accept(3)": by client. Of two clients' versions one that still runs stands against one that
    /// does not.
    ByClient,
    /// "accept", but a lease that lasts beyond the release yields to that of its own client alone.
    ReleasedByClient,
    /// The same, seen from the other side.
    GivenAfterRelease,
    /// "accept", but the client has declined the lease at one server, and the other, which did not
    /// know, has given it to it again: then the end of the quarantine does not concern it.
    QuarantineOver,
    /// The same, seen from the other side, besides "time(2)": only if the client has been heard, or
    /// else has got the lease, since this state began.
    HeardSince,
    /// "accept", if the received lease lasts beyond the end that is known here.
    Outlasts,
    /// "accept": a lease that lasts beyond the moment in which it became free here; or, where the
    /// partner has nothing to learn of that, the later one. Without an update of ours, the partner
    /// may know of a lease what is unknown here.
    OutlastsFree,
    /// "accept", unless ours ended later. Either version says that the lease is nobody's, but what
    /// was told before the later end may be on its way, and be accepted by a partner that knows only
    /// of the earlier one.
    NotEarlier,
    /// The same for two ends of one client's lease. In the same second it ended later where the client
    /// was heard later.
    LaterEnd,
    /// [`Rule::NotEarlier`], seen from the other side.
    EndsAfter,
    /// "accept": the later one wins; but who says that a free lease is its own is believed where
    /// nothing is known of a move. Nobody keeps the times of free leases, and leaving it to the
    /// partner is safe at any rate.
    Owner,
}

/// Figure 4. Rows: ACTIVE, EXPIRED, RELEASED, FREE or FREE-BACKUP, RESET, ABANDONED in this
/// server's table; columns: ACTIVE, EXPIRED, RELEASED, FREE or FREE-BACKUP, RESET, ABANDONED
/// received.
///
/// Where it says more than the figure: a lease that a client may use yields to nothing that does
/// not concern this client, and one that has ended yields to one that ended later, and to what
/// comes after an end. All this holds for either server's version, so that the verdicts fit.
const RULES: [[Rule; 6]; 6] = {
    use Rule::{
        ByClient, Ended, EndsAfter, GivenAfterRelease, HeardSince, Later, LaterEnd, NotEarlier,
        Outlasts, OutlastsFree, Owner, QuarantineOver, ReleasedByClient,
    };
    [
        [ByClient, Ended, ReleasedByClient, Ended, QuarantineOver, Later],
        [Outlasts, LaterEnd, LaterEnd, NotEarlier, NotEarlier, Later],
        [GivenAfterRelease, LaterEnd, LaterEnd, NotEarlier, NotEarlier, Later],
        [OutlastsFree, EndsAfter, EndsAfter, Owner, EndsAfter, Later],
        [HeardSince, NotEarlier, NotEarlier, NotEarlier, NotEarlier, Later],
        [Later, Later, Later, Later, Later, Later],
    ]
};

/// The row, or the column, of a status.
fn place(status: BindingStatus) -> usize {
    match status {
        BindingStatus::Active => 0,
        BindingStatus::Expired => 1,
        BindingStatus::Released => 2,
        BindingStatus::PendingFree | BindingStatus::Free | BindingStatus::FreeBackup => 3,
        BindingStatus::Reset => 4,
        BindingStatus::Abandoned => 5,
    }
}

/// Judges an update about the lease of which `ours` is known here.
pub(crate) fn decide(
    ours: &Binding,
    received: &Update<'_>,
    role: Role,
    now: AbsoluteTime,
) -> Decision {
    let accept = match RULES[place(ours.status)][place(received.status)] {
        Rule::Later => is_later(ours, received, role),
        Rule::Ended => {
            let end = ours.state_expiration_time;
            if now < end || received.start < end {
                return not_ended(ours, now);
            }
            true
        }
        Rule::ByClient if received.is_of_client(ours) => true,
        Rule::ByClient => return of_two_clients(ours, received, role, now),
        Rule::ReleasedByClient => {
            (received.is_of_client(ours) || !outlasts(ours, received))
                && is_later(ours, received, role)
        }
        Rule::GivenAfterRelease => {
            (!received.is_of_client(ours) && is_outlasted(ours, received))
                || is_later(ours, received, role)
        }
        Rule::QuarantineOver => {
            let is_given_again = outlasts(ours, received) && heard(received) < heard_here(ours);
            !is_given_again && is_later(ours, received, role)
        }
        Rule::HeardSince => {
            let is_given_again = is_outlasted(ours, received) && heard_here(ours) < heard(received);
            is_given_again || has_spoken_since(ours, received)
        }
        Rule::Outlasts => is_outlasted(ours, received),
        Rule::OutlastsFree => {
            is_outlasted(ours, received) || (!ours.update_pending && is_later(ours, received, role))
        }
        Rule::LaterEnd if received.is_of_client(ours) && received.clt.is_some() => {
            (ours.start_time_of_state, heard_here(ours)) <= (received.start, heard(received))
        }
        Rule::NotEarlier | Rule::LaterEnd => ours.start_time_of_state <= received.start,
        Rule::EndsAfter => ours.start_time_of_state < received.start,
        Rule::Owner => is_left_to(ours, received, role) || is_later(ours, received, role),
    };
    if accept {
        return Decision::Accept;
    }
    Decision::Reject(StatusCode::OUTDATED_BINDING_INFORMATION)
}

/// Whether a partner in PARTNER-DOWN state that frees a lease is right without regard to figure 4.
///
/// It does that after the waits of section 8.4.1, when all is over that this server may have told
/// the client. While this server recovers towards it, it answers nobody, and what it knows against
/// that is older, or, after a lost disk, guessed (see [`lengthen`](crate::update::lengthen)).
pub(crate) fn is_freed_rightly(ours: &Binding, received: &Update<'_>) -> bool {
    use BindingStatus::{Active, Expired, Free, FreeBackup, PendingFree, Released};
    matches!(ours.status, Active | Expired | Released)
        && matches!(received.status, PendingFree | Free | FreeBackup)
}

/// ACTIVE here and received, of two clients.
fn of_two_clients(
    ours: &Binding,
    received: &Update<'_>,
    role: Role,
    now: AbsoluteTime,
) -> Decision {
    let outdated = Decision::Reject(StatusCode::OUTDATED_BINDING_INFORMATION);
    match (ours.is_active(now), now < received.state_expiration_time, role) {
        (true, false, _) => outdated,
        (false, true, _) => Decision::Accept,
        (_, _, Role::Primary) if has_spoken_since(ours, received) => Decision::Accept,
        (_, _, Role::Primary) => Decision::Reject(StatusCode::ADDRESS_IN_USE),
        // Unless the primary takes ours: else they would change places.
        (_, _, Role::Secondary) if is_heard_since(ours, received) => outdated,
        (_, _, Role::Secondary) => Decision::Accept,
    }
}

/// "time(2)".
fn has_spoken_since(ours: &Binding, received: &Update<'_>) -> bool {
    received.clt.unwrap_or(received.start) > ours.start_time_of_state
}

/// "time(2)" as the partner finds it when it receives ours.
fn is_heard_since(ours: &Binding, received: &Update<'_>) -> bool {
    let heard = ours.client_last_transaction_time;
    let time = if heard == AbsoluteTime::ZERO { ours.start_time_of_state } else { heard };
    time > received.start
}

/// Whether an ACTIVE here lasts beyond what the received version says.
fn outlasts(ours: &Binding, received: &Update<'_>) -> bool {
    ours.state_expiration_time > received.start
}

/// Whether a received ACTIVE lasts beyond what is known here.
fn is_outlasted(ours: &Binding, received: &Update<'_>) -> bool {
    received.state_expiration_time > ours.start_time_of_state
}

/// When either server last heard the client, as known here.
fn heard_here(ours: &Binding) -> AbsoluteTime {
    ours.client_last_transaction_time.max(ours.partner_raw_clt_time)
}

/// The same, as the partner knows it.
fn heard(received: &Update<'_>) -> AbsoluteTime {
    received.clt.unwrap_or_default().max(received.partner_raw_clt_time)
}

/// Whether the partner says that a free lease is its own, and nothing is known here of a move.
fn is_left_to(ours: &Binding, received: &Update<'_>, role: Role) -> bool {
    use BindingStatus::{Free, FreeBackup, PendingFree};
    let is_untold = !ours.update_pending && ours.start_time_of_state == AbsoluteTime::ZERO;
    is_untold
        && match role {
            Role::Primary => {
                matches!((ours.status, received.status), (Free | PendingFree, FreeBackup))
            }
            Role::Secondary => matches!((ours.status, received.status), (FreeBackup, Free)),
        }
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
