//! One identity association, locked: what the server rules do with leases.

use std::iter;

use super::{LeaseTable, Terms, stripe::Stripe};
use crate::{
    AbsoluteTime, Binding, BindingStatus, ClientDuid, ClientKey, Lease, Ownership, PoolId,
    UpdateSink,
    arena::{Arena, NIL},
    index::Place,
    pool::{Pool, dense_index},
    striped::StripeGuard,
};

/// Attempts at finding a free lease in a sparse pool. With half of the pool taken, all fail once
/// in 2^64 times.
const ATTEMPTS_MAX: u32 = 64;

/// An identity association and the lock on its stripe.
#[derive(Debug)]
pub struct ClientGuard<'a> {
    table: &'a LeaseTable,
    key: ClientKey<'a>,
    stripe: StripeGuard<'a, Stripe>,
    stripe_number: u16,
    /// For the index.
    hash: u64,
    /// For places in pools.
    seed: u64,
    /// First record, or [`NIL`].
    head: u32,
}

/// The bindings of an identity association; see [`ClientGuard::bindings`].
#[derive(Clone, Debug)]
pub struct Bindings<'a> {
    arena: &'a Arena,
    slot: u32,
}

impl<'a> Iterator for Bindings<'a> {
    type Item = &'a Binding;

    fn next(&mut self) -> Option<&'a Binding> {
        if self.slot == NIL {
            return None;
        }
        let slot = self.arena.slot(self.slot);
        self.slot = slot.next;
        Some(&slot.binding)
    }
}

impl<'a> ClientGuard<'a> {
    pub(super) fn new(table: &'a LeaseTable, key: ClientKey<'a>) -> Self {
        let hash = table.hashes.client(&key);
        let stripe_number = table.stripe_of(hash.h1);
        let stripe = table.lock_stripe(stripe_number);
        let head = stripe.head(hash.h1, &key);
        Self { table, key, stripe, stripe_number, hash: hash.h1, seed: hash.h2, head }
    }

    /// Whom this is about.
    #[must_use]
    pub fn key(&self) -> ClientKey<'a> {
        self.key
    }

    /// All bindings of the association, of any status, the oldest first.
    #[must_use]
    pub fn bindings(&self) -> Bindings<'_> {
        Bindings { arena: &self.stripe.arena, slot: self.head }
    }

    /// Whether the last update of this lease is on its way to the store or there. False too if the
    /// association has no such lease.
    #[must_use]
    pub fn is_stored(&self, lease: Lease) -> bool {
        self.find(lease).is_some_and(|slot| self.stripe.arena.slot(slot).is_stored())
    }

    /// Whether [`ClientGuard::extend`] would extend the lease.
    #[must_use]
    pub fn is_extendable(&self, lease: Lease) -> bool {
        self.find(lease).is_some_and(|number| self.extendable_pool(number).is_some())
    }

    /// The preferred and valid lifetime that the association would be given with this lease, its own
    /// or a new one: for an ADVERTISE.
    #[must_use]
    pub fn lifetimes(&self, lease: Lease, terms: &Terms, now: AbsoluteTime) -> (u32, u32) {
        let acked = self.find(lease).map_or(AbsoluteTime::ZERO, |number| {
            self.stripe.arena.slot(number).binding.acked_partner_lifetime
        });
        let pools = &self.table.pools;
        let pool = pools.find(lease, self.key.kind).map(|id| pools.pool(id));
        actual(pool, acked, terms, now)
    }

    /// The lease that [`ClientGuard::grant`] would give now, for an ADVERTISE. Nothing is claimed.
    ///
    /// The same client is shown the same lease as long as it is available, whatever it had in
    /// between. `hint` comes first if it is an available lease of the pool.
    #[must_use]
    pub fn candidate(&self, pool: PoolId, hint: Option<Lease>) -> Option<Lease> {
        let pool = self.table.pools.pool(pool);
        let is_free = |lease: &Lease| self.table.is_available(pool, *lease);
        if let Some(hint) = hint.filter(is_free) {
            return Some(hint);
        }
        if pool.is_dense() {
            return pool.next_free(self.dense_place(pool)).map(|index| pool.lease(index));
        }
        self.sparse_leases(pool).find(is_free)
    }

    /// Gives a lease of the pool to the association: claims it, makes an
    /// [`BindingStatus::Active`] binding and pushes that. `None` if no lease is available.
    ///
    /// The lifetimes are those of [`Terms::actual`] for a lease of which the partner has
    /// acknowledged nothing, in pools of a pair.
    pub fn grant(
        &mut self,
        pool: PoolId,
        hint: Option<Lease>,
        terms: &Terms,
        now: AbsoluteTime,
        sink: &mut impl UpdateSink,
    ) -> Option<&Binding> {
        let table = self.table;
        let pool = table.pools.pool(pool);
        let hint = hint.filter(|hint| pool.index(*hint).is_some_and(|index| pool.is_mine(index)));
        let number = if pool.is_dense() {
            let lease = self.claim_dense(pool, hint)?;
            let number = self.insert(pool, lease, terms, now);
            let mut entry = table.index.lock(table.name(&lease));
            let entered = entry.insert(self.place(number));
            assert!(entered, "an available lease was in the index: {lease}");
            pool.set_bound(pool.index(lease).expect("a lease of this pool"));
            drop(entry);
            number
        } else {
            let first = pool.lease(0);
            let number = self.insert(pool, first, terms, now);
            let place = self.place(number);
            let mut leases = hint.into_iter().chain(self.sparse_leases(pool));
            let claimed = leases.find(|lease| {
                // What no stray overlaps now, none will overlap later.
                !table.strays.overlap(*lease) && table.index.lock(table.name(lease)).insert(place)
            });
            drop(leases);
            let Some(lease) = claimed else {
                self.remove(number);
                return None;
            };
            pool.take_out(pool.index(lease).expect("a lease of this pool"));
            self.stripe.arena.at(number).binding.lease = lease;
            number
        };
        pool.count_in_use(true);
        // The stamp is taken after the claim, so that it is later than that of the lease's end
        // with its former client.
        let slot = self.stripe.arena.at(number);
        slot.set_stamp(table.next_stamp());
        sink.push(&slot.binding, slot.stamp());
        let due = slot.binding.state_expiration_time;
        self.stripe.enqueue(number, due);
        Some(&self.stripe.arena.slot(number).binding)
    }

    /// Begins the lifetimes of a lease that the association has anew. An active lease may be
    /// extended even when it is over, as long as the sweep has not ended it.
    ///
    /// `None` if the association does not have the lease, if the lease is in no pool any more, or
    /// if its status forbids it: what expired or was released in a pair is on its way to somebody
    /// else once the partner may have heard of it (RFC 8156 section 4.2.2.1), and an abandoned
    /// lease is nobody's.
    ///
    /// In pools of a pair the lifetimes are those of [`Terms::actual`].
    pub fn extend(
        &mut self,
        lease: Lease,
        terms: &Terms,
        now: AbsoluteTime,
        sink: &mut impl UpdateSink,
    ) -> Option<&Binding> {
        let number = self.find(lease)?;
        let pool = self.extendable_pool(number)?;
        self.stripe.set_status(number, BindingStatus::Active, now);
        let slot = self.stripe.arena.at(number);
        begin_lifetimes(&mut slot.binding, pool, terms, now);
        slot.set_stamp(self.table.next_stamp());
        sink.push(&slot.binding, slot.stamp());
        let due = slot.binding.state_expiration_time;
        self.stripe.enqueue(number, due);
        Some(&self.stripe.arena.slot(number).binding)
    }

    /// Takes back a lease that the client releases; false if it is not an active one of this
    /// association. Without a partner the lease is free at once: the record is dropped and one of
    /// status [`BindingStatus::Free`] pushed. Else it stays, [`BindingStatus::Released`].
    pub fn release(&mut self, lease: Lease, now: AbsoluteTime, sink: &mut impl UpdateSink) -> bool {
        let Some(number) = self.find_active(lease) else { return false };
        let place = self.place(number);
        let sole = self.table.is_sole(self.table.pools.find_lease(lease));
        let status = if sole { BindingStatus::Free } else { BindingStatus::Released };
        self.stripe.arena.at(number).binding.client_last_transaction_time = now;
        self.table.change_status(&mut self.stripe, place, status, now, sink);
        if sole {
            self.table.free(&mut self.stripe, place);
            self.head = self.stripe.head(self.hash, &self.key);
        }
        true
    }

    /// Sets a lease aside until `until` because the client found it in use by somebody else; false
    /// if it is not an active one of this association. The record stays with the association,
    /// [`BindingStatus::Abandoned`]. [`AbsoluteTime::ZERO`] and [`AbsoluteTime::INFINITE`] both
    /// mean until an operator steps in.
    pub fn decline(
        &mut self,
        lease: Lease,
        until: AbsoluteTime,
        now: AbsoluteTime,
        sink: &mut impl UpdateSink,
    ) -> bool {
        let Some(number) = self.find_active(lease) else { return false };
        let place = self.place(number);
        let binding = &mut self.stripe.arena.at(number).binding;
        binding.client_last_transaction_time = now;
        binding.state_expiration_time = until;
        self.table.change_status(&mut self.stripe, place, BindingStatus::Abandoned, now, sink);
        let due = self.table.due(&self.stripe.arena.slot(number).binding);
        self.stripe.enqueue(number, due);
        true
    }

    fn place(&self, slot: u32) -> Place {
        Place { stripe: self.stripe_number, slot }
    }

    fn find(&self, lease: Lease) -> Option<u32> {
        let arena = &self.stripe.arena;
        let first = (self.head != NIL).then_some(self.head);
        let next = |slot: &u32| Some(arena.slot(*slot).next).filter(|next| *next != NIL);
        iter::successors(first, next).find(|slot| arena.slot(*slot).binding.lease == lease)
    }

    /// The pool of a lease that may be extended.
    fn extendable_pool(&self, number: u32) -> Option<&'a Pool> {
        let slot = self.stripe.arena.slot(number);
        let pools = &self.table.pools;
        let pool = pools.pool(pools.find(slot.binding.lease, self.key.kind)?);
        let extendable = match slot.binding.status {
            BindingStatus::Active => true,
            BindingStatus::Expired | BindingStatus::Released => {
                pool.ownership() == Ownership::Sole || !slot.is_told()
            }
            _ => false,
        };
        extendable.then_some(pool)
    }

    fn find_active(&self, lease: Lease) -> Option<u32> {
        self.find(lease)
            .filter(|slot| self.stripe.arena.slot(*slot).binding.status == BindingStatus::Active)
    }

    /// A record of this association that is not in the lease index yet.
    fn insert(&mut self, pool: &Pool, lease: Lease, terms: &Terms, now: AbsoluteTime) -> u32 {
        let mut binding = Binding {
            lease,
            kind: self.key.kind,
            status: BindingStatus::Active,
            duid: ClientDuid::new(self.key.duid),
            iaid: self.key.iaid,
            start_time_of_state: now,
            ..Binding::EMPTY
        };
        begin_lifetimes(&mut binding, pool, terms, now);
        // Any stamp: the real one follows before the stripe is unlocked.
        let number = self.stripe.insert(self.hash, binding, 1);
        if self.head == NIL {
            self.head = number;
        }
        number
    }

    fn remove(&mut self, number: u32) {
        let hashes = &self.table.hashes;
        self.stripe.remove(number, |key| hashes.client(&key).h1);
        self.head = self.stripe.head(self.hash, &self.key);
    }

    fn dense_place(&self, pool: &Pool) -> u32 {
        dense_index(pool.place(self.table.hashes.place(self.seed, pool.first, 0)))
    }

    fn claim_dense(&self, pool: &Pool, hint: Option<Lease>) -> Option<Lease> {
        if let Some(hint) = hint
            && pool.claim(pool.index(hint)?)
        {
            return Some(hint);
        }
        let mut place = self.dense_place(pool);
        loop {
            let index = pool.next_free(place)?;
            if pool.claim(index) {
                return Some(pool.lease(index));
            }
            // Another worker was faster; there is progress whenever somebody has to try again.
            place = dense_index(index);
        }
    }

    /// The leases of a sparse pool to try for this client, in order.
    fn sparse_leases<'b>(&self, pool: &'b Pool) -> impl Iterator<Item = Lease> + use<'a, 'b> {
        let (table, seed) = (self.table, self.seed);
        (0..ATTEMPTS_MAX)
            .map(move |attempt| pool.place_of_mine(table.hashes.place(seed, pool.first, attempt)))
            .filter(|&index| pool.is_mine(index))
            .map(|index| pool.lease(index))
    }
}

/// The lifetimes for a lease of this pool.
fn actual(
    pool: Option<&Pool>,
    acked_partner_lifetime: AbsoluteTime,
    terms: &Terms,
    now: AbsoluteTime,
) -> (u32, u32) {
    if pool.is_none_or(|pool| pool.ownership() == Ownership::Sole) {
        return (terms.preferred_lifetime, terms.valid_lifetime);
    }
    terms.actual(acked_partner_lifetime, now)
}

/// Gives the client of an active binding its lifetimes, counted from now; in a pair also what the
/// partner is to be told (RFC 8156 section 4.4).
fn begin_lifetimes(binding: &mut Binding, pool: &Pool, terms: &Terms, now: AbsoluteTime) {
    let (preferred, valid) = actual(Some(pool), binding.acked_partner_lifetime, terms, now);
    let mut end = now.plus(valid);
    if pool.ownership() != Ownership::Sole {
        binding.partner_lifetime = terms.partner_lifetime(valid, now);
        binding.update_pending = true;
        // The limit may have made this shorter than what the client has. The reply may get lost, and
        // then the client goes by what it was told before.
        end = end.max(binding.state_expiration_time);
    }
    binding.preferred_lifetime = preferred;
    binding.valid_lifetime = valid;
    binding.client_last_transaction_time = now;
    binding.state_expiration_time = end;
}

impl LeaseTable {
    #[expect(clippy::cast_possible_truncation, reason = "some bits of a hash")]
    pub(super) fn stripe_of(&self, hash: u64) -> u16 {
        // Neither the bits that choose the bucket (the low ones) nor the tag (the top 7).
        (hash >> 40) as u16 & self.mask
    }

    /// Whether this server may give the lease to anybody now.
    #[must_use]
    pub fn is_free(&self, lease: Lease) -> bool {
        self.pools.locate(lease).is_some_and(|(pool, _)| self.is_available(pool, lease))
    }

    /// Whether this server may give the lease of the pool to anybody now.
    fn is_available(&self, pool: &Pool, lease: Lease) -> bool {
        let Some(index) = pool.index(lease) else { return false };
        if pool.is_dense() {
            return pool.is_free(index);
        }
        pool.is_mine(index)
            && !self.strays.overlap(lease)
            && self.index.find(self.name(&lease)).is_none()
    }
}
