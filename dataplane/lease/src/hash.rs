//! Keyed hashes. Clients choose their DUIDs and, with hints, try to choose their leases; without
//! the key nobody can make many of them meet in one stripe, one chain or one place of a pool.
//!
//! SipHash-1-3 with 128 bits: about 20 ns for a client key, of which no output bits are wasted
//! (stripe, index, place in the pool). The unkeyed or weakly keyed hashes would save half of that
//! and give up the bound on what a hostile client can do.

use std::{fmt, hash::Hasher};

use siphasher::sip128::{Hash128, Hasher128, SipHasher13};

use crate::{ClientKey, Lease};

/// One hash for each purpose, so that their values say nothing about each other.
pub(crate) struct Hashes {
    client: SipHasher13,
    lease: SipHasher13,
    place: SipHasher13,
}

impl Hashes {
    pub(crate) fn new(key: &[u8; 16]) -> Self {
        let base = SipHasher13::new_with_key(key);
        let derive = |purpose: &[u8]| {
            let mut hasher = base;
            hasher.write(purpose);
            let Hash128 { h1, h2 } = hasher.finish128();
            SipHasher13::new_with_keys(h1, h2)
        };
        Self { client: derive(b"client"), lease: derive(b"lease"), place: derive(b"place") }
    }

    pub(crate) fn client(&self, key: &ClientKey<'_>) -> Hash128 {
        let mut hasher = self.client;
        hasher.write_u64(u64::from(key.iaid.0) << 8 | key.kind as u64);
        hasher.write(key.duid);
        hasher.finish128()
    }

    pub(crate) fn lease(&self, lease: &Lease) -> Hash128 {
        let mut hasher = self.lease;
        hasher.write(&lease.address.octets());
        hasher.write_u8(lease.prefix_len);
        hasher.finish128()
    }

    /// Where a client (its hash's second half) begins in a pool; another place for each attempt.
    pub(crate) fn place(&self, client: u64, pool_first: u128, attempt: u32) -> u128 {
        let mut hasher = self.place;
        hasher.write_u64(client);
        hasher.write(&pool_first.to_le_bytes());
        hasher.write_u32(attempt);
        hasher.finish128().as_u128()
    }
}

/// Keeps the keys out of logs.
impl fmt::Debug for Hashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hashes").finish_non_exhaustive()
    }
}
