//! From a binding to a BNDUPD (RFC 8156 section 7.4), and from a BNDUPD to a binding (section
//! 7.5.5, figure 5).

use std::cmp::Ordering;

use gemel_lease::{AbsoluteTime, Binding, BindingStatus, ClientDuid, IaKind, Lease};
use gemel_wire::{
    INFINITY, IaId, StatusCode,
    failover::{
        BindingStatus as WireStatus, ClientData, FailoverTime, IaHeader, IaKind as WireKind,
        Lease as WireLease, LeaseHead, LeaseState, PrefixLease,
    },
};

use crate::Role;

/// One lease of a BNDUPD, as the lease table puts it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Update<'a> {
    pub(crate) lease: Lease,
    pub(crate) kind: IaKind,
    pub(crate) status: BindingStatus,
    /// Empty for a prefix without a client.
    pub(crate) duid: &'a [u8],
    pub(crate) iaid: IaId,
    pub(crate) preferred_lifetime: u32,
    pub(crate) valid_lifetime: u32,
    /// OPTION_CLT_TIME.
    pub(crate) clt: Option<AbsoluteTime>,
    /// OPTION_F_START_TIME_OF_STATE.
    pub(crate) start: AbsoluteTime,
    /// OPTION_F_STATE_EXPIRATION_TIME; zero where there is none.
    pub(crate) state_expiration_time: AbsoluteTime,
    /// OPTION_F_PARTNER_LIFETIME; zero where there is none.
    pub(crate) partner_lifetime: AbsoluteTime,
    /// OPTION_F_PARTNER_RAW_CLT_TIME; zero where there is none.
    pub(crate) partner_raw_clt_time: AbsoluteTime,
    /// OPTION_F_EXPIRATION_TIME; zero where there is none.
    pub(crate) expiration_time: AbsoluteTime,
}

impl<'a> Update<'a> {
    /// Reads a lease of a client.
    ///
    /// # Errors
    /// MissingBindingInformation for a status that does not exist.
    pub(crate) fn of_client(
        client: &ClientData<'a>,
        lease: &WireLease<'_>,
        now: AbsoluteTime,
    ) -> Result<Self, StatusCode> {
        let LeaseHead { ia, address, prefix_len, preferred, valid } = lease.head;
        let kind = match ia.kind {
            WireKind::Na => IaKind::Na,
            WireKind::Ta => IaKind::Ta,
            WireKind::Pd => IaKind::Pd,
        };
        let mut update =
            Self::new(Lease { address, prefix_len }, kind, &lease.state, client.base_time, now)?;
        update.duid = client.client_id;
        update.iaid = ia.iaid;
        update.preferred_lifetime = preferred;
        update.valid_lifetime = valid;
        if update.status == BindingStatus::Active && lease.state.state_expiration_time.is_none() {
            let since = update.clt.unwrap_or(update.start);
            update.state_expiration_time = since.plus(valid);
        }
        Ok(update)
    }

    /// Reads a prefix without a client.
    ///
    /// # Errors
    /// MissingBindingInformation for a status that does not exist or that needs a client (section
    /// 7.2).
    pub(crate) fn of_prefix(
        prefix: &PrefixLease<'a>,
        now: AbsoluteTime,
    ) -> Result<Self, StatusCode> {
        let lease = Lease { address: prefix.prefix, prefix_len: prefix.prefix_len };
        // An address that has no client is told like a prefix, too: see `Message::of`.
        let kind = if lease.prefix_len == 128 { IaKind::Na } else { IaKind::Pd };
        let update = Self::new(lease, kind, &prefix.state, prefix.base_time, now)?;
        if update.status == BindingStatus::Active {
            return Err(StatusCode::MISSING_BINDING_INFORMATION);
        }
        Ok(update)
    }

    fn new(
        lease: Lease,
        kind: IaKind,
        state: &LeaseState<'_>,
        base_time: FailoverTime,
        now: AbsoluteTime,
    ) -> Result<Self, StatusCode> {
        let status = BindingStatus::from_u8(state.binding_status.0)
            .ok_or(StatusCode::MISSING_BINDING_INFORMATION)?;
        let end = |time: Option<FailoverTime>| {
            time.map_or(AbsoluteTime::ZERO, |time| end_from_wire(time, now))
        };
        let clt = state.client_last_transaction_time(base_time);
        Ok(Self {
            lease,
            kind,
            status,
            duid: &[],
            iaid: IaId(0),
            preferred_lifetime: 0,
            valid_lifetime: 0,
            clt: clt.map(|time| past_from_wire(time, now)),
            start: past_from_wire(state.start_time_of_state, now),
            state_expiration_time: end(state.state_expiration_time),
            partner_lifetime: end(state.partner_lifetime),
            partner_raw_clt_time: state
                .partner_raw_clt_time
                .map_or(AbsoluteTime::ZERO, |time| past_from_wire(time, now)),
            expiration_time: end(state.expiration_time),
        })
    }

    /// Whether it is about the same identity association as the binding; also if neither is about
    /// any.
    pub(crate) fn is_of_client(&self, binding: &Binding) -> bool {
        let key = binding.client_key();
        self.duid == key.duid
            && (self.duid.is_empty() || (self.kind, self.iaid) == (key.kind, key.iaid))
    }

    fn freshness(&self) -> Freshness {
        Freshness {
            heard: self.clt.unwrap_or(AbsoluteTime::ZERO).max(self.partner_raw_clt_time),
            end: self.state_expiration_time,
            lifetimes: (self.valid_lifetime, self.preferred_lifetime),
            start: self.start,
        }
    }
}

/// When either server last heard the client, then what it was given: orders two versions of one
/// client's active lease.
#[derive(Eq, Ord, PartialEq, PartialOrd)]
struct Freshness {
    heard: AbsoluteTime,
    end: AbsoluteTime,
    lifetimes: (u32, u32),
    start: AbsoluteTime,
}

impl Freshness {
    fn of(binding: &Binding) -> Self {
        Self {
            heard: binding.client_last_transaction_time.max(binding.partner_raw_clt_time),
            end: binding.state_expiration_time,
            lifetimes: (binding.valid_lifetime, binding.preferred_lifetime),
            start: binding.start_time_of_state,
        }
    }
}

/// What becomes of a lease when an update of it is accepted (section 7.5.5); `None` if all of it
/// is known already.
///
/// An ended lease is free at once: the partner will not give it back to its client, and neither
/// will this server (section 4.2.2.1).
pub(crate) fn accept(ours: &Binding, update: &Update<'_>, role: Role) -> Option<Binding> {
    use BindingStatus::{
        Abandoned, Active, Expired, Free, FreeBackup, PendingFree, Released, Reset,
    };
    let new = match update.status {
        Active | Abandoned => taken(ours, update, role),
        // It ended before it was given to the secondary, which may be taking it at this moment: it
        // stays the secondary's.
        Expired | Released | Reset
            if (role, ours.status) == (Role::Primary, FreeBackup) && ours.update_pending =>
        {
            return None;
        }
        Expired | Released | PendingFree | Free | Reset => free(Free, update),
        FreeBackup if update.kind == IaKind::Pd => free(FreeBackup, update),
        // Who gives out a free address is settled by its parity.
        FreeBackup => free(Free, update),
    };
    let is_free = |status| matches!(status, Free | FreeBackup);
    if is_free(new.status) && new.status == ours.status && !ours.update_pending {
        return None;
    }
    (new != *ours).then_some(new)
}

/// This server has lost its memory: what the partner knows of an active lease may be older than
/// what this server told the client, which ends at most the MCLT after what the partner has
/// acknowledged (section 4.4). Until then it is not over.
pub(crate) fn lengthen(binding: &mut Binding, mclt: u32, now: AbsoluteTime) {
    let end = binding.acked_partner_lifetime.max(now).plus(mclt);
    if binding.status == BindingStatus::Active && binding.state_expiration_time < end {
        binding.state_expiration_time = end;
        binding.update_pending = true;
    }
}

/// The same for a lease that has expired as far as the partner knows, and of which nothing is known
/// here: the client may have it until the MCLT is over. So the partner is refused, and told that.
pub(crate) fn still_active(
    ours: &Binding,
    update: &Update<'_>,
    mclt: u32,
    now: AbsoluteTime,
) -> Option<Binding> {
    let unknown = ours.client_key().duid.is_empty() && !ours.update_pending;
    if update.status != BindingStatus::Expired || update.duid.is_empty() || !unknown {
        return None;
    }
    Some(Binding {
        lease: update.lease,
        kind: update.kind,
        status: BindingStatus::Active,
        duid: ClientDuid::new(update.duid),
        iaid: update.iaid,
        valid_lifetime: mclt,
        client_last_transaction_time: update.partner_raw_clt_time,
        start_time_of_state: update.start,
        state_expiration_time: now.plus(mclt),
        partner_raw_clt_time: update.clt.unwrap_or(AbsoluteTime::ZERO),
        update_pending: true,
        ..Binding::EMPTY
    })
}

/// A lease that nobody has.
fn free(status: BindingStatus, update: &Update<'_>) -> Binding {
    Binding {
        lease: update.lease,
        kind: update.kind,
        status,
        start_time_of_state: update.start,
        ..Binding::EMPTY
    }
}

/// A lease that somebody has, or that nobody can have.
fn taken(ours: &Binding, update: &Update<'_>, role: Role) -> Binding {
    let same_client = update.is_of_client(ours);
    let mut new = Binding {
        lease: update.lease,
        kind: update.kind,
        status: update.status,
        duid: ClientDuid::new(update.duid),
        iaid: update.iaid,
        preferred_lifetime: update.preferred_lifetime,
        valid_lifetime: update.valid_lifetime,
        client_last_transaction_time: update.partner_raw_clt_time,
        start_time_of_state: update.start,
        state_expiration_time: update.state_expiration_time,
        expiration_time: update.partner_lifetime,
        partner_lifetime: AbsoluteTime::ZERO,
        acked_partner_lifetime: update.expiration_time,
        partner_raw_clt_time: update.clt.unwrap_or(AbsoluteTime::ZERO),
        update_pending: false,
    };
    if same_client {
        let heard = &mut new.client_last_transaction_time;
        *heard = ours.client_last_transaction_time.max(*heard);
        // Both are the greatest of their kind that there ever was (section 7.3). Of a lease that has
        // ended here the partner may have forgotten what it acknowledged.
        new.expiration_time = new.expiration_time.max(ours.expiration_time);
        if ours.status == BindingStatus::Active {
            let acked = &mut new.acked_partner_lifetime;
            *acked = ours.acked_partner_lifetime.max(*acked);
        }
        if update.clt.is_none() {
            new.partner_raw_clt_time = ours.partner_raw_clt_time;
        }
    }
    let both_active = ours.status == BindingStatus::Active && new.status == ours.status;
    if same_client && both_active {
        let order = Freshness::of(ours).cmp(&update.freshness());
        if order != Ordering::Less {
            // Our news are later, or the same: they stay, and go to the partner if it lacks them.
            new.preferred_lifetime = ours.preferred_lifetime;
            new.valid_lifetime = ours.valid_lifetime;
            new.start_time_of_state = ours.start_time_of_state;
            new.state_expiration_time = ours.state_expiration_time;
            new.partner_lifetime = ours.partner_lifetime;
            new.update_pending = ours.update_pending || order == Ordering::Greater;
        }
        // A REBIND reaches both servers, and nobody knows whose answer the client took: the lease
        // lasts until the later end. That both end it then takes an update of the earlier one's.
        let end = ours.state_expiration_time.max(update.state_expiration_time);
        new.state_expiration_time = end;
        new.update_pending |= end != update.state_expiration_time;
    } else if role == Role::Primary && ours.update_pending {
        // The partner may be accepting our version in exchange at this moment. One of the two has
        // to repeat what came out.
        new.update_pending = (new.status, same_client) != (ours.status, true);
    }
    new
}

/// The client of a BNDUPD.
pub(crate) fn client_data(binding: &Binding, now: AbsoluteTime) -> ClientData<'_> {
    ClientData {
        client_id: binding.duid.as_bytes(),
        base_time: FailoverTime(now.0),
        vss: None,
        reconfigure_data: None,
        relay_data: None,
    }
}

/// A lease of a client in a BNDUPD; `shortest` is the shortest preferred lifetime in its
/// identity association.
pub(crate) fn client_lease(
    binding: &Binding,
    shortest: u32,
    now: AbsoluteTime,
) -> WireLease<'static> {
    let (kind, (t1, t2)) = match binding.kind {
        IaKind::Na => (WireKind::Na, renewal_times(shortest)),
        IaKind::Ta => (WireKind::Ta, (0, 0)),
        IaKind::Pd => (WireKind::Pd, renewal_times(shortest)),
    };
    let head = LeaseHead {
        ia: IaHeader { kind, iaid: binding.iaid, t1, t2 },
        address: binding.lease.address,
        prefix_len: binding.lease.prefix_len,
        preferred: binding.preferred_lifetime,
        valid: binding.valid_lifetime,
    };
    WireLease { head, state: lease_state(binding, now) }
}

/// A lease without a client in a BNDUPD.
pub(crate) fn prefix_lease(binding: &Binding, now: AbsoluteTime) -> PrefixLease<'static> {
    PrefixLease {
        prefix: binding.lease.address,
        prefix_len: binding.lease.prefix_len,
        preferred: binding.preferred_lifetime,
        valid: binding.valid_lifetime,
        base_time: FailoverTime(now.0),
        vss: None,
        state: lease_state(binding, now),
    }
}

fn lease_state(binding: &Binding, now: AbsoluteTime) -> LeaseState<'static> {
    let wire = |time: AbsoluteTime| FailoverTime(time.0);
    let set = |time: AbsoluteTime| (time != AbsoluteTime::ZERO).then_some(time);
    let ends = has_timeout(binding);
    LeaseState {
        state_expiration_time: ends.then(|| wire(binding.state_expiration_time)),
        clt_secs: set(binding.client_last_transaction_time)
            .map(|heard| now.0.saturating_sub(heard.0)),
        partner_lifetime: sent_partner_lifetime(binding).map(wire),
        partner_raw_clt_time: set(binding.partner_raw_clt_time).map(wire),
        expiration_time: ends.then(|| wire(binding.expiration_time)),
        ..LeaseState::new(WireStatus(binding.status as u8), wire(binding.start_time_of_state))
    }
}

/// The OPTION_F_PARTNER_LIFETIME of a BNDUPD about the binding. When there is nothing to be told
/// but the partner asks: what it has been told before, or the end of the lease. Never less than it
/// has acknowledged before, for it may have forgotten that.
pub(crate) fn sent_partner_lifetime(binding: &Binding) -> Option<AbsoluteTime> {
    has_timeout(binding).then(|| {
        let told = match binding.partner_lifetime {
            AbsoluteTime::ZERO => binding.state_expiration_time,
            told => told,
        };
        told.max(binding.acked_partner_lifetime)
    })
}

/// Whether the status ends by itself (section 7.2): the options marked with an asterisk in section
/// 7.4 are there for these alone.
fn has_timeout(binding: &Binding) -> bool {
    let end = binding.state_expiration_time;
    match binding.status {
        BindingStatus::Active => true,
        BindingStatus::Abandoned => end != AbsoluteTime::ZERO && end != AbsoluteTime::INFINITE,
        _ => false,
    }
}

/// T1 and T2 as the server rules compute them where nothing is configured (RFC 8415 section 21.4).
fn renewal_times(shortest: u32) -> (u32, u32) {
    let part = |tenths: u64| {
        if shortest == INFINITY {
            return INFINITY;
        }
        u32::try_from(u64::from(shortest) * tenths / 10).unwrap_or(INFINITY)
    };
    (part(5), part(8))
}

/// A time in the past, or nearly so: the one nearest to `now` that is written like this.
fn past_from_wire(time: FailoverTime, now: AbsoluteTime) -> AbsoluteTime {
    shifted(now, i64::from(time.wrapping_diff(FailoverTime(now.0))))
}

/// The end of something: lifetimes may be longer than the 68 years for which the nearest time
/// would be the right one. The largest number stands for infinity, zero for nothing.
fn end_from_wire(time: FailoverTime, now: AbsoluteTime) -> AbsoluteTime {
    /// What lies further ahead than this lies in the past: 34 years.
    const AHEAD_MAX: u32 = 3 << 30;
    match time.0 {
        0 => return AbsoluteTime::ZERO,
        u32::MAX => return AbsoluteTime::INFINITE,
        _ => {}
    }
    let ahead = time.0.wrapping_sub(now.0);
    if ahead < AHEAD_MAX {
        return shifted(now, i64::from(ahead));
    }
    shifted(now, -i64::from(ahead.wrapping_neg()))
}

/// `now` moved, as far as the table's times go; never infinity.
fn shifted(now: AbsoluteTime, secs: i64) -> AbsoluteTime {
    let time = (i64::from(now.0) + secs).clamp(0, i64::from(u32::MAX) - 1);
    AbsoluteTime(u32::try_from(time).unwrap_or(0))
}

#[cfg(test)]
mod tests;
