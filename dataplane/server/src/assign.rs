//! What becomes of one identity association in a SOLICIT, REQUEST, RENEW or REBIND (RFC 8415
//! sections 18.3.1, 18.3.2, 18.3.4, 18.3.5 and 18.3.9).

use gemel_lease::{
    AbsoluteTime, Binding, BindingStatus, ClientGuard, ClientKey, IaKind, Lease, LeaseTable,
    PoolId, Terms, UpdateSink,
};
use gemel_wire::{INFINITY, StatusCode};

use crate::{
    Service,
    bounded::Bounded,
    link::{Link, LinkPool},
    reply::Reply,
    request::{IAS_MAX, IaRequest, Named},
};

/// The most bindings of one IA that are looked at. An IA has one, and for some time a second one
/// when its pool was taken out of use or the client moved.
const KNOWN_MAX: usize = 8;

pub(crate) const NO_BINDING: (StatusCode, &str) = (StatusCode::NO_BINDING, "no such binding");

/// What the client wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// Hear what it would get; nothing is claimed.
    Advertise,
    /// Be given leases: a SOLICIT with Rapid Commit, whose addresses are hints.
    RapidCommit,
    /// Be given leases: a REQUEST, whose addresses are claims.
    Request,
    /// Extend leases that this server gave.
    Renew,
    /// Extend leases that any server gave.
    Rebind,
}

/// What the failover state leaves to this server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scope {
    /// Everything: there is no partner.
    Alone,
    /// What it knows and what it has to give.
    Pair,
    /// To extend what is recorded (RFC 8156 section 8.7.1).
    Recorded,
    /// The same, by the lease table, which does not hold everything yet.
    Warming,
}

impl Scope {
    /// Whether what the lease table does not hold says nothing: leases are extended, but neither
    /// given nor called lost.
    pub(crate) fn extends_only(self) -> bool {
        matches!(self, Self::Recorded | Self::Warming)
    }
}

/// What the client was told about an IA.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Told {
    /// It has at least one lease.
    Leases,
    /// It has none, or has lost some.
    NoLeases,
    /// That this server does not know the IA, or nothing at all.
    Unknown,
}

/// What all IAs of a message share.
pub(crate) struct Exchange<'e, S> {
    pub(crate) link: &'e Link,
    /// The link's, as the failover state limits them.
    pub(crate) terms: Terms,
    pub(crate) scope: Scope,
    pub(crate) table: &'e LeaseTable,
    pub(crate) duid: &'e [u8],
    pub(crate) now: AbsoluteTime,
    pub(crate) service: Service,
    pub(crate) updates: S,
    /// Offered in an ADVERTISE so far, so that no two IAs are offered one lease.
    pub(crate) offered: Bounded<Lease, IAS_MAX>,
}

/// A binding of the IA.
#[derive(Clone, Copy, Debug)]
struct Known {
    lease: Lease,
    status: BindingStatus,
    /// Its pool belongs to the client's link.
    on_link: bool,
    /// Whether its last update is stored, or on its way there.
    stored: bool,
    /// What is left of the lifetimes, in seconds.
    preferred: u32,
    valid: u32,
}

impl Known {
    /// The client has it and may keep it. An active lease that is over, but not swept up yet, is
    /// still the client's.
    fn is_extendable(&self) -> bool {
        self.status == BindingStatus::Active && self.on_link
    }

    /// The client had it and nobody has had it since.
    fn is_reusable(&self) -> bool {
        matches!(self.status, BindingStatus::Expired | BindingStatus::Released) && self.on_link
    }
}

type KnownLeases = Bounded<Known, KNOWN_MAX>;

/// A lease with its preferred and valid lifetime.
type Given = (Lease, u32, u32);

impl<'e, S: UpdateSink> Exchange<'e, S> {
    /// Answers one IA.
    pub(crate) fn serve(
        &mut self,
        ia: &IaRequest<'_>,
        purpose: Purpose,
        reply: &mut Reply<'_>,
    ) -> Told {
        if ia.kind == IaKind::Ta {
            return refuse_temporary(ia, purpose, reply);
        }
        let mut guard = self.table.lock(self.key(ia));
        let known = self.known(&guard, ia.kind);
        let is_extendable = |known: &Known| known.is_extendable();
        if self.scope.extends_only() && !known.iter().any(is_extendable) {
            // An IA that is left out of the answer to a RENEW stays as it is (RFC 8415 section
            // 18.2.10.1).
            return Told::Unknown;
        }
        if self.service == Service::ReadOnly {
            return read_only(ia, purpose, &known, reply);
        }
        match purpose {
            Purpose::Advertise => self.advertise(ia, &guard, &known, reply),
            Purpose::RapidCommit | Purpose::Request => {
                self.request(ia, purpose, &mut guard, &known, reply)
            }
            Purpose::Renew | Purpose::Rebind => self.extend(ia, purpose, &mut guard, &known, reply),
        }
    }

    /// What the bindings of the IA are indexed by.
    pub(crate) fn key(&self, ia: &IaRequest<'_>) -> ClientKey<'e> {
        ClientKey { duid: self.duid, kind: ia.kind, iaid: ia.iaid }
    }

    fn known(&self, guard: &ClientGuard<'_>, kind: IaKind) -> KnownLeases {
        let mut known = KnownLeases::EMPTY;
        for binding in guard.bindings() {
            let (preferred, valid) = remaining(binding, self.now);
            let fits = known.push(Known {
                lease: binding.lease,
                status: binding.status,
                on_link: self.link.pool_of(self.table, binding.lease, kind).is_some(),
                stored: guard.is_stored(binding.lease),
                preferred,
                valid,
            });
            if !fits {
                break;
            }
        }
        known
    }

    /// Section 18.3.9.
    fn advertise(
        &mut self,
        ia: &IaRequest<'_>,
        guard: &ClientGuard<'_>,
        known: &KnownLeases,
        reply: &mut Reply<'_>,
    ) -> Told {
        let mut open = reply.begin_ia(ia.kind, ia.iaid);
        let mut told = Told::NoLeases;
        let mut offer = |lease: Lease| {
            let (preferred, valid) = guard.lifetimes(lease, &self.terms, self.now);
            reply.lease(&mut open, lease, preferred, valid);
            told = Told::Leases;
        };
        let mut extendable = known.iter().filter(|known| known.is_extendable()).peekable();
        if extendable.peek().is_some() {
            extendable.for_each(|known| offer(known.lease));
        } else {
            let mut reusable = known.iter().filter(|known| known.is_reusable());
            let offered = &self.offered;
            let is_new = |lease: &Lease| !offered.iter().any(|other| other == lease);
            let lease = reusable
                .find_map(|known| guard.is_extendable(known.lease).then_some(known.lease))
                .or_else(|| {
                    try_pools(self.table, self.link, ia, |pool, hint| {
                        guard.candidate(pool, hint).filter(is_new)
                    })
                });
            if let Some(lease) = lease {
                self.offered.push(lease);
                offer(lease);
            }
        }
        reply.end_ia(open, (told == Told::NoLeases).then(|| none_available(ia.kind)));
        told
    }

    /// Section 18.3.2.
    fn request(
        &mut self,
        ia: &IaRequest<'_>,
        purpose: Purpose,
        guard: &mut ClientGuard<'_>,
        known: &KnownLeases,
        reply: &mut Reply<'_>,
    ) -> Told {
        // Only in a REQUEST: the addresses in a SOLICIT, with Rapid Commit or not, are mere hints
        // (section 18.3.9), and a client that moved would else never get a lease from it.
        let claims = purpose == Purpose::Request && ia.kind == IaKind::Na;
        if claims && ia.leases().any(|named| named.is_specified() && self.is_off_link(named)) {
            let status = (StatusCode::NOT_ON_LINK, "address is not appropriate for this link");
            reply.ia_status(ia.kind, ia.iaid, status);
            return Told::NoLeases;
        }
        let mut open = reply.begin_ia(ia.kind, ia.iaid);
        let given = self.give(ia, guard, known, |(lease, preferred, valid)| {
            reply.lease(&mut open, lease, preferred, valid);
        });
        reply.end_ia(open, (!given).then(|| none_available(ia.kind)));
        if given { Told::Leases } else { Told::NoLeases }
    }

    /// Sections 18.3.4 and 18.3.5.
    fn extend(
        &mut self,
        ia: &IaRequest<'_>,
        purpose: Purpose,
        guard: &mut ClientGuard<'_>,
        known: &KnownLeases,
        reply: &mut Reply<'_>,
    ) -> Told {
        let rebind = purpose == Purpose::Rebind;
        let create = if rebind { self.link.create_on_rebind } else { self.link.create_on_renew };
        // Of a pair, the server that knows the client has to serve it: the other may be down.
        let found = known
            .iter()
            .any(|known| known.status == BindingStatus::Active || self.scope == Scope::Pair);
        let mut open = reply.begin_ia(ia.kind, ia.iaid);
        let mut kept = Bounded::<Lease, { KNOWN_MAX + 1 }>::EMPTY;
        let given = (found || create)
            && self.give(ia, guard, known, |(lease, preferred, valid)| {
                reply.lease(&mut open, lease, preferred, valid);
                kept.push(lease);
            });
        // What the client named and did not get. A RENEW speaks of leases that this server gave,
        // so whatever is not bound to the client is lost to it. In a REBIND another server may
        // have given them: only what this server knows to be wrong is lost.
        let mut lost = false;
        for named in ia.leases().filter(|named| named.is_specified()) {
            if self.scope.extends_only() {
                break;
            }
            let is_ours = known.iter().any(|known| known.lease == named.lease);
            let is_kept = kept.iter().any(|lease| *lease == named.lease);
            let answered = found || create || rebind;
            if answered && !is_kept && (!rebind || is_ours || self.is_off_link(named)) {
                reply.lost_lease(&mut open, named.lease);
                lost = true;
            }
        }
        let status = match (given, found || create) {
            (true, _) => None,
            (false, true) => Some(none_available(ia.kind)),
            // The lifetimes of 0 say it all.
            (false, false) if lost => None,
            (false, false) => Some(NO_BINDING),
        };
        reply.end_ia(open, status);
        match (given, lost || found || create) {
            (true, _) => Told::Leases,
            (false, true) => Told::NoLeases,
            (false, false) => Told::Unknown,
        }
    }

    /// Gives the IA its leases: those that it has, else one that it had, else a new one. Whether
    /// there was any.
    fn give(
        &mut self,
        ia: &IaRequest<'_>,
        guard: &mut ClientGuard<'_>,
        known: &KnownLeases,
        mut write: impl FnMut(Given),
    ) -> bool {
        let (now, terms) = (self.now, &self.terms);
        let given =
            |binding: &Binding| (binding.lease, binding.preferred_lifetime, binding.valid_lifetime);
        let mut any = false;
        for known in known.iter().filter(|known| known.is_extendable()) {
            let extended = guard.extend(known.lease, terms, now, &mut self.updates).map(given);
            // What cannot be extended may be used to its end.
            let rest = (known.valid > 0).then_some((known.lease, known.preferred, known.valid));
            if let Some(lease) = extended.or(rest) {
                write(lease);
                any = true;
            }
        }
        if any || self.scope.extends_only() {
            return any;
        }
        let mut reusable = known.iter().filter(|known| known.is_reusable());
        let updates = &mut self.updates;
        let lease = reusable
            .find_map(|known| guard.extend(known.lease, terms, now, updates).map(given))
            .or_else(|| {
                try_pools(self.table, self.link, ia, |pool, hint| {
                    guard.grant(pool, hint, terms, now, updates).map(given)
                })
            });
        if let Some(lease) = lease {
            write(lease);
        }
        lease.is_some()
    }

    /// Whether the link is known not to have such an address. Of prefixes only this server's own
    /// are known, and another server may delegate others: of those it is never known.
    fn is_off_link(&self, named: Named) -> bool {
        named.is_address
            && self.link.is_on_link(named.lease.address) == Some(false)
            && self.link.pool_of(self.table, named.lease, IaKind::Na).is_none()
    }
}

/// RFC 9915 has removed temporary addresses; to a client that asks for some, this server has none
/// to assign and knows of none assigned.
fn refuse_temporary(ia: &IaRequest<'_>, purpose: Purpose, reply: &mut Reply<'_>) -> Told {
    match purpose {
        Purpose::Advertise | Purpose::RapidCommit | Purpose::Request => {
            let status = (StatusCode::NO_ADDRS_AVAIL, "temporary addresses are not assigned");
            reply.ia_status(ia.kind, ia.iaid, status);
            Told::NoLeases
        }
        Purpose::Renew | Purpose::Rebind => {
            reply.ia_status(ia.kind, ia.iaid, NO_BINDING);
            Told::Unknown
        }
    }
}

/// While nothing can be stored: what is stored holds for as long as it was given, nothing else is
/// said. An IA that is left out of the answer to a RENEW or REBIND stays as it is (RFC 8415 section
/// 18.2.10.1); in other answers it has to appear.
fn read_only(
    ia: &IaRequest<'_>,
    purpose: Purpose,
    known: &KnownLeases,
    reply: &mut Reply<'_>,
) -> Told {
    let usable = |known: &&Known| known.is_extendable() && known.stored && known.valid > 0;
    if known.iter().any(|known| usable(&known)) {
        let mut open = reply.begin_ia(ia.kind, ia.iaid);
        for known in known.iter().filter(usable) {
            reply.lease(&mut open, known.lease, known.preferred, known.valid);
        }
        reply.end_ia(open, None);
        return Told::Leases;
    }
    if !matches!(purpose, Purpose::Renew | Purpose::Rebind) {
        reply.ia_status(ia.kind, ia.iaid, none_available(ia.kind));
    }
    Told::Unknown
}

fn none_available(kind: IaKind) -> (StatusCode, &'static str) {
    match kind {
        IaKind::Na | IaKind::Ta => (StatusCode::NO_ADDRS_AVAIL, "no addresses available"),
        IaKind::Pd => (StatusCode::NO_PREFIX_AVAIL, "no prefixes available"),
    }
}

/// Tries the link's pools until one yields something: first the pool of the lease that the client
/// named, then those that delegate the length that it named, then the rest as configured. (RFC
/// 8168 section 3.2 would rather come close to the length where it cannot be had.)
fn try_pools<T>(
    table: &LeaseTable,
    link: &Link,
    ia: &IaRequest<'_>,
    mut attempt: impl FnMut(PoolId, Option<Lease>) -> Option<T>,
) -> Option<T> {
    let hint = ia.leases().filter(|named| named.is_specified()).find_map(|named| {
        link.pool_of(table, named.lease, ia.kind).map(|pool| (pool, named.lease))
    });
    if let Some((pool, lease)) = hint
        && let Some(found) = attempt(pool, Some(lease))
    {
        return Some(found);
    }
    let untried = |pool: &&LinkPool| hint.is_none_or(|(tried, _)| tried != pool.id);
    let pools = || link.pools(ia.kind).iter().filter(untried);
    let len = ia.leases().map(|named| named.lease.prefix_len).find(|len| *len > 0).unwrap_or(0);
    let has_len = |pool: &&LinkPool| pool.lease_len == len;
    pools()
        .filter(has_len)
        .chain(pools().filter(|pool| !has_len(pool)))
        .find_map(|pool| attempt(pool.id, None))
}

/// What is left of the preferred and valid lifetime, in seconds.
fn remaining(binding: &Binding, now: AbsoluteTime) -> (u32, u32) {
    let valid = binding.state_expiration_time.remaining(now);
    if binding.preferred_lifetime == INFINITY {
        return (valid, valid);
    }
    // Both began at the same time. When that was is not recorded of a lease that a partner gave,
    // so it is taken from the valid lifetime, if that ends.
    let since = if binding.valid_lifetime != INFINITY {
        binding.valid_lifetime.saturating_sub(valid)
    } else if binding.client_last_transaction_time == AbsoluteTime::ZERO {
        0
    } else {
        now.0.saturating_sub(binding.client_last_transaction_time.0)
    };
    (binding.preferred_lifetime.saturating_sub(since).min(valid), valid)
}
