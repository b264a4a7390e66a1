//! Fetching what an answer will need into the cache while other answers are being made.
//!
//! A lookup is a chain of places in memory each of which tells the next, and with millions of
//! bindings none of them is in a cache. Whoever has several lookups to do takes each step for all of
//! them and only then the next: then they wait together and not one after the other.

use siphasher::sip128::Hash128;

use super::LeaseTable;
use crate::{ClientKey, PoolId, index::LeaseName};

/// Where to find an identity association; see [`LeaseTable::fetch_stripe`].
#[derive(Clone, Copy, Debug)]
pub struct ClientHash(Hash128);

/// Where to find the lease that an association without a binding would be given; see
/// [`LeaseTable::fetch_lease_stripe`].
#[derive(Clone, Copy, Debug)]
pub struct LeaseHash(LeaseName);

impl LeaseTable {
    /// The hash of an identity association in this table.
    #[must_use]
    pub fn client_hash(&self, key: &ClientKey<'_>) -> ClientHash {
        ClientHash(self.hashes.client(key))
    }

    /// The first step: asks for the stripe of an association.
    #[inline]
    pub fn fetch_stripe(&self, hash: ClientHash) {
        self.stripes[usize::from(self.stripe_of(hash.0.h1))].fetch();
    }

    /// The second step: asks for the association's place in the index of its stripe.
    #[inline]
    pub fn fetch_client(&self, hash: ClientHash) {
        let stripe = &self.stripes[usize::from(self.stripe_of(hash.0.h1))];
        stripe.fetch_entry(super::stripe::index_hash(hash.0.h1));
    }

    /// The third step: asks for the association's first binding, and where it has none and is about to
    /// be given one, for the room for that. False if it has none; true, and nothing done, if somebody
    /// else has locked the stripe just now.
    #[inline]
    pub fn fetch_binding(&self, hash: ClientHash, gives: bool) -> bool {
        let stripe = &self.stripes[usize::from(self.stripe_of(hash.0.h1))];
        let Some(stripe) = stripe.try_lock() else { return true };
        let found = stripe.fetch_head(hash.0.h1);
        if gives && !found {
            stripe.fetch_room();
        }
        found
    }

    /// For an association that has no binding: asks for what tells whether the lease that it would be
    /// given first is free. That is one step in a dense pool and two in a sparse one: then it returns
    /// what is needed for the second.
    #[inline]
    pub fn fetch_lease_stripe(&self, hash: ClientHash, pool: PoolId) -> Option<LeaseHash> {
        let pool = self.pools.pool(pool);
        let place = self.hashes.place(hash.0.h2, pool.first, 0);
        if pool.is_dense() {
            pool.fetch_place(place);
            return None;
        }
        let name = self.name(&pool.lease(pool.place_of_mine(place)));
        self.index.fetch_stripe(name);
        Some(LeaseHash(name))
    }

    /// The second step: asks for the lease's place in the index of its stripe.
    #[inline]
    pub fn fetch_lease(&self, hash: LeaseHash) {
        self.index.fetch_entry(hash.0);
    }
}
