//! The lease table: every binding in memory, found by client and by lease.
//!
//! Two sets of stripes, each a mutex around its own part: the client stripes own the records, the
//! lease stripes say which record holds a lease. Lock order: a client stripe, then the strays (a set
//! that is nearly always empty and then not locked), then a lease stripe, then the free updates;
//! never two of one set. Whoever comes from the lease side looks up the place, lets go of the lease
//! stripe, locks the client stripe and looks whether the record still holds that lease. A lease
//! that goes from one client to another stands in the index under a place that is none
//! ([`Place::MOVING`]) while no client stripe is locked, so that nobody gets it in between.
//!
//! Every change of a lease gets a stamp while the lease is in nobody else's reach: its client
//! stripe is locked, or it has been claimed from its pool and is not indexed yet. So the stamps of
//! one lease are in the order of its changes, also across clients.

mod ahead;
mod balance;
mod client_guard;
mod expiry;
mod free_updates;
mod partner;
mod restore;
mod stripe;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    AbsoluteTime, Binding, BindingStatus, ClientKey, Lease, Ownership, PoolId, PoolSet, UpdateSink,
    alone::Alone,
    hash::Hashes,
    index::{LeaseGuard, LeaseIndex, LeaseName, Place, per_stripe},
    strays::{StrayGuard, Strays},
    striped::{StripeGuard, Striped, Waits},
};

pub use ahead::{ClientHash, LeaseHash};
pub use client_guard::{Bindings, ClientGuard};
pub use expiry::Sweep;
use free_updates::{FreeUpdate, FreeUpdates};
pub use partner::{Acknowledged, Begun, Collect, Verdict};
use stripe::Stripe;

/// How to build a [`LeaseTable`].
#[derive(Clone, Debug)]
pub struct TableConfig {
    /// Key of all hashes: secret, and kept over restarts so that a client without a binding gets
    /// the same lease again.
    pub hash_key: [u8; 16],
    /// Number of client stripes, rounded up to a power of two between 1 and 65536.
    pub client_stripes: usize,
    /// Number of bindings to make room for.
    pub expected_bindings: usize,
}

impl Default for TableConfig {
    fn default() -> Self {
        Self { hash_key: [0; 16], client_stripes: 1024, expected_bindings: 0 }
    }
}

/// The lifetimes that a server would like to give to a lease, in seconds; `u32::MAX` is infinity
/// (RFC 8415 section 7.7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Terms {
    /// Preferred lifetime.
    pub preferred_lifetime: u32,
    /// Valid lifetime.
    pub valid_lifetime: u32,
    /// T1, if it is configured: when the client is expected back, unless that is sooner than after
    /// half of the valid lifetime.
    pub t1: Option<u32>,
    /// The Maximum Client Lead Time in seconds, where it limits the lifetimes (RFC 8156 section
    /// 4.4): `None` without a partner and in PARTNER-DOWN state.
    pub mclt: Option<u32>,
}

impl Terms {
    /// Terms that nothing limits.
    #[must_use]
    pub const fn unlimited(preferred_lifetime: u32, valid_lifetime: u32) -> Self {
        Self { preferred_lifetime, valid_lifetime, t1: None, mclt: None }
    }

    /// The preferred and valid lifetime that a client gets now: the valid lifetime ends at most
    /// the MCLT after the later of `acked_partner_lifetime` and `now` (RFC 8156 section 4.4).
    #[must_use]
    pub fn actual(&self, acked_partner_lifetime: AbsoluteTime, now: AbsoluteTime) -> (u32, u32) {
        let Some(mclt) = self.mclt else {
            return (self.preferred_lifetime, self.valid_lifetime);
        };
        let lead = acked_partner_lifetime.remaining(now).saturating_add(mclt);
        (self.preferred_lifetime.min(lead), self.valid_lifetime.min(lead))
    }

    /// The partner-lifetime for a client that has been given `valid_lifetime` now: as long as it
    /// would like to give, counted from when the client is expected back (section 4.4.1), so that
    /// the next time nothing limits it.
    #[must_use]
    pub fn partner_lifetime(&self, valid_lifetime: u32, now: AbsoluteTime) -> AbsoluteTime {
        let t1 = self.t1.unwrap_or(0).min(valid_lifetime).max(valid_lifetime / 2);
        now.plus(t1.saturating_add(self.valid_lifetime))
    }
}

/// Number of bindings of each status.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts([u64; STATUSES]);

const STATUSES: usize = 9;

impl Counts {
    /// Bindings of this status. Free leases have none.
    #[must_use]
    pub fn of(&self, status: BindingStatus) -> u64 {
        self.0[status as usize]
    }

    /// All bindings.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// All bindings of a server, shared by its workers.
pub struct LeaseTable {
    pools: PoolSet,
    hashes: Hashes,
    stripes: Box<[Striped<Stripe>]>,
    mask: u16,
    index: LeaseIndex,
    strays: Strays,
    free_updates: FreeUpdates,
    /// The last stamp given out.
    stamp: Alone<AtomicU64>,
    /// Where the sweep goes on.
    sweep_at: AtomicU64,
    /// For the client stripes.
    waits: Waits,
}

impl LeaseTable {
    /// An empty table over these pools.
    #[must_use]
    pub fn new(config: &TableConfig, pools: PoolSet) -> Self {
        let stripes = config.client_stripes.clamp(1, 1 << 16).next_power_of_two();
        let table = Self {
            pools,
            hashes: Hashes::new(&config.hash_key),
            stripes: (0..stripes).map(|_| Striped::new(Stripe::new())).collect(),
            mask: u16::try_from(stripes - 1).expect("at most 2^16 stripes"),
            index: LeaseIndex::new(stripes),
            strays: Strays::new(),
            free_updates: FreeUpdates::new(),
            stamp: Alone(AtomicU64::new(0)),
            sweep_at: AtomicU64::new(0),
            waits: Waits::default(),
        };
        table.make_room(config.expected_bindings);
        table
    }

    /// Makes room for so many bindings in all, so that their coming stops nobody. It takes a second
    /// for some ten millions, but no lock for long: the table can be used meanwhile.
    pub fn make_room(&self, expected: usize) {
        if expected == 0 {
            return;
        }
        let each = per_stripe(expected, self.stripes.len());
        for stripe in &self.stripes {
            stripe.lock(&self.waits).make_room(each);
        }
        self.index.make_room(expected);
    }

    /// The pools.
    #[must_use]
    pub fn pools(&self) -> &PoolSet {
        &self.pools
    }

    /// Locks the stripe of an identity association. Other associations share the stripe, so hold
    /// it no longer than an answer takes, and never two at once.
    #[must_use]
    pub fn lock<'a>(&'a self, key: ClientKey<'a>) -> ClientGuard<'a> {
        ClientGuard::new(self, key)
    }

    /// The binding of a lease, whatever its status.
    #[must_use]
    pub fn binding(&self, lease: Lease) -> Option<Binding> {
        self.with_lease(lease, |stripe, place| stripe.arena.slot(place.slot).binding.clone())
    }

    /// The status of a lease of any pool: that of its binding, else [`BindingStatus::Free`] or
    /// [`BindingStatus::FreeBackup`]. `None` if there is neither binding nor pool.
    #[must_use]
    pub fn status(&self, lease: Lease) -> Option<BindingStatus> {
        if let Some(status) =
            self.with_lease(lease, |stripe, place| stripe.arena.slot(place.slot).binding.status)
        {
            return Some(status);
        }
        let (pool, index) = self.pools.locate(lease)?;
        let free_backup = pool.is_backup(index);
        Some(if free_backup { BindingStatus::FreeBackup } else { BindingStatus::Free })
    }

    /// Shows every binding, one stripe at a time: what changes meanwhile is seen before or after
    /// the change.
    pub fn for_each(&self, mut f: impl FnMut(&Binding)) {
        for stripe in &self.stripes {
            stripe.lock(&self.waits).arena.iter().for_each(|(_, slot)| f(&slot.binding));
        }
    }

    /// Shows every binding as [`LeaseTable::for_each`] does, but as copies of one stripe at a time,
    /// with no lock held: for readers that may take their time.
    pub fn for_each_stripe(&self, mut f: impl FnMut(&[Binding])) {
        let mut copies = Vec::new();
        for stripe in &self.stripes {
            copies.clear();
            copies.extend(
                stripe.lock(&self.waits).arena.iter().map(|(_, slot)| slot.binding.clone()),
            );
            f(&copies);
        }
    }

    /// Number of bindings of any status.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.lock(&self.waits).arena.len()).sum()
    }

    /// Whether there is no binding.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stripes.iter().all(|stripe| stripe.lock(&self.waits).arena.len() == 0)
    }

    /// Number of bindings by status.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for stripe in &self.stripes {
            let stripe = stripe.lock(&self.waits);
            counts.0.iter_mut().zip(stripe.counts).for_each(|(sum, n)| *sum += u64::from(n));
        }
        counts
    }

    /// The last stamp given out or restored.
    #[must_use]
    pub fn stamp(&self) -> u64 {
        self.stamp.load(Ordering::Relaxed)
    }

    /// How often somebody had to wait for a stripe, client or lease, that somebody else had locked.
    #[must_use]
    pub fn lock_waits(&self) -> u64 {
        self.waits.count() + self.index.waits()
    }

    /// Notes that the last update of a lease did not reach the store. A lease that has been freed
    /// meanwhile is forgotten: the store then believes its former client has it until it ends,
    /// which harms nobody.
    pub fn mark_unstored(&self, lease: Lease) {
        self.with_lease(lease, |stripe, place| stripe.arena.at(place.slot).set_stored(false));
        self.free_updates.mark_unstored(lease);
    }

    /// Pushes every binding that [`LeaseTable::mark_unstored`] noted, with its stamp.
    pub fn push_unstored(&self, sink: &mut impl UpdateSink) {
        for stripe in &self.stripes {
            let stripe = stripe.lock(&self.waits);
            let unstored = stripe.arena.iter().filter(|(_, slot)| !slot.is_stored());
            unstored.for_each(|(_, slot)| sink.push(&slot.binding, slot.stamp()));
        }
        self.free_updates.push_unstored(sink);
    }

    /// Takes back all notes of [`LeaseTable::mark_unstored`].
    pub fn clear_unstored(&self) {
        for stripe in &self.stripes {
            stripe.lock(&self.waits).arena.iter_mut().for_each(|slot| slot.set_stored(true));
        }
        self.free_updates.clear_unstored();
    }

    fn next_stamp(&self) -> u64 {
        self.stamp.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn lock_stripe(&self, stripe: u16) -> StripeGuard<'_, Stripe> {
        self.stripes[usize::from(stripe)].lock(&self.waits)
    }

    fn name(&self, lease: &Lease) -> LeaseName {
        LeaseName::new(self.hashes.lease(lease))
    }

    /// Runs `f` on the locked client stripe that holds the lease.
    fn with_lease<T>(&self, lease: Lease, f: impl FnOnce(&mut Stripe, Place) -> T) -> Option<T> {
        let name = self.name(&lease);
        loop {
            let place = self.index.find(name)?;
            let mut stripe = self.lock_stripe(place.stripe);
            if stripe.arena.get(place.slot).is_some_and(|slot| slot.binding.lease == lease) {
                return Some(f(&mut stripe, place));
            }
            if self.index.find(name) == Some(place) {
                // Another lease of the same name, once in the lifetimes of many servers.
                return None;
            }
            // It has moved in between: look again.
        }
    }

    /// Whether the lease has left all pools, belongs to a pool without a partner, or neither.
    fn is_sole(&self, pool: Option<PoolId>) -> bool {
        pool.is_none_or(|id| self.pools.pool(id).ownership() == Ownership::Sole)
    }

    /// When the binding's status ends by itself.
    fn due(&self, binding: &Binding) -> AbsoluteTime {
        match binding.status {
            BindingStatus::Abandoned if binding.state_expiration_time == AbsoluteTime::ZERO => {
                AbsoluteTime::INFINITE
            }
            // What the partner has told of it may be older than what it has told the client: until
            // the partner lifetime that it was acknowledged the lease is not over, unless the partner
            // says so (RFC 8156 section 5.5.7).
            BindingStatus::Active => binding.state_expiration_time.max(binding.expiration_time),
            BindingStatus::Abandoned => binding.state_expiration_time,
            // What a partner was to agree to has nobody to wait for when there is no partner.
            _ if self.is_sole(self.pools.find_lease(binding.lease)) => AbsoluteTime::ZERO,
            _ => AbsoluteTime::INFINITE,
        }
    }

    /// Drops the record of a lease and makes the lease available. The last stamp has been taken.
    fn free(&self, stripe: &mut Stripe, place: Place) {
        // A prefix that becomes free is the primary's again (RFC 8156 section 4.2.2).
        self.free_for(stripe, place, false, None);
    }

    /// As [`LeaseTable::free`], and says whose a prefix is and what the partner has to hear of it.
    fn free_for(
        &self,
        stripe: &mut Stripe,
        place: Place,
        to_secondary: bool,
        update: Option<FreeUpdate>,
    ) {
        let lease = stripe.arena.slot(place.slot).binding.lease;
        stripe.remove(place.slot, |key| self.hashes.client(&key).h1);
        let strays = if self.pools.find_lease(lease).is_some() {
            self.strays.lock_if_any()
        } else {
            // A stray, if it is one, keeps the lock.
            Some(self.strays.lock())
        };
        let entry = self.index.lock(self.name(&lease));
        self.give_back(lease, place, entry, strays, to_secondary, update);
    }

    /// Takes a lease out of the index and gives it back to its pool, if it has one.
    ///
    /// Under the lease's lock: whoever claims the lease meanwhile waits there and then finds no
    /// entry. `strays` is locked if there are any.
    fn give_back(
        &self,
        lease: Lease,
        place: Place,
        mut entry: LeaseGuard<'_>,
        strays: Option<StrayGuard<'_>>,
        to_secondary: bool,
        update: Option<FreeUpdate>,
    ) {
        entry.remove(place);
        if let Some((pool, index)) = self.pools.locate(lease) {
            // What was to be said before the lease had the record is out of date.
            match update {
                Some(update) => self.free_updates.insert(lease, update, pool),
                None => _ = self.free_updates.remove(lease, pool),
            }
            pool.set_backup(index, to_secondary);
            pool.count_in_use(false);
            if !pool.is_dense() || !strays.is_some_and(|strays| strays.overlap(lease)) {
                pool.put_back(index);
            }
        } else if let Some(strays) = strays {
            drop(entry);
            strays.remove(lease, |strays| self.unblock(lease, strays));
        }
    }

    /// Makes the leases available that only this stray stood in the way of.
    fn unblock(&self, stray: Lease, strays: &StrayGuard<'_>) {
        for (pool, first, last) in self.pools.overlapping(stray) {
            if !pool.is_dense() {
                continue;
            }
            for index in first..=last {
                let lease = pool.lease(index);
                // Nobody is between claim and entry here: what is blocked cannot be claimed.
                if !strays.overlap(lease) && self.index.find(self.name(&lease)).is_none() {
                    pool.put_back(index);
                }
            }
        }
    }

    /// Notes a lease that is in no pool but may overlap some.
    fn block(&self, stray: Lease, strays: &mut StrayGuard<'_>) {
        for (pool, first, last) in self.pools.overlapping(stray) {
            strays.insert(stray);
            if pool.is_dense() {
                (first..=last).for_each(|index| _ = pool.claim(index));
            }
        }
    }
}

impl fmt::Debug for LeaseTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseTable").field("stripes", &self.stripes.len()).finish_non_exhaustive()
    }
}
