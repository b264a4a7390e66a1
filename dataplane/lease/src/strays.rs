//! Leases that are in no pool any more but share addresses with one.
//!
//! After a change of the configuration a stored binding may be of a /56 where the pool now
//! delegates /60s, or of an address inside what has become a prefix pool. Its client goes on using
//! it until it ends, so nothing that overlaps it may be given out before.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
};

use parking_lot::{Mutex, MutexGuard};

use crate::Lease;

/// The strays of a table. They only become fewer once the table serves clients.
#[derive(Debug)]
pub(crate) struct Strays {
    /// So that nobody takes the lock where there are none: nearly always.
    count: AtomicUsize,
    set: Mutex<StraySet>,
}

/// By first address and length; two of them are nested or have nothing in common.
#[derive(Debug)]
pub(crate) struct StraySet {
    leases: BTreeSet<(u128, u8)>,
    /// How many there are of each length.
    by_len: [u32; 129],
}

/// The lock, and the count to be kept.
pub(crate) struct StrayGuard<'a> {
    count: &'a AtomicUsize,
    set: MutexGuard<'a, StraySet>,
}

impl Strays {
    pub(crate) fn new() -> Self {
        let set = StraySet { leases: BTreeSet::new(), by_len: [0; 129] };
        Self { count: AtomicUsize::new(0), set: Mutex::new(set) }
    }

    pub(crate) fn lock(&self) -> StrayGuard<'_> {
        StrayGuard { count: &self.count, set: self.set.lock() }
    }

    /// The lock if there is any stray. While one is being removed there still is.
    pub(crate) fn lock_if_any(&self) -> Option<StrayGuard<'_>> {
        (self.count.load(Ordering::SeqCst) != 0).then(|| self.lock())
    }

    /// Whether a stray shares addresses with the lease.
    pub(crate) fn overlap(&self, lease: Lease) -> bool {
        self.lock_if_any().is_some_and(|strays| strays.overlap(lease))
    }
}

impl StrayGuard<'_> {
    pub(crate) fn insert(&mut self, lease: Lease) {
        if self.set.leases.insert((range(lease).0, lease.prefix_len)) {
            self.set.by_len[usize::from(lease.prefix_len)] += 1;
            self.count.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Removes the lease, then runs `f`, and only then lets others know; nothing if it is none.
    pub(crate) fn remove(mut self, lease: Lease, f: impl FnOnce(&Self)) {
        if self.set.leases.remove(&(range(lease).0, lease.prefix_len)) {
            self.set.by_len[usize::from(lease.prefix_len)] -= 1;
            f(&self);
            self.count.fetch_sub(1, Ordering::SeqCst);
        }
    }

    pub(crate) fn overlap(&self, lease: Lease) -> bool {
        let (first, last) = range(lease);
        let inside = self.set.leases.range((first, 0)..=(last, u8::MAX)).next().is_some();
        let around = |len: u8| {
            self.set.by_len[usize::from(len)] != 0
                && self.set.leases.contains(&(first & mask(len), len))
        };
        inside || (0..lease.prefix_len).any(around)
    }
}

/// First and last address of a lease.
pub(crate) fn range(lease: Lease) -> (u128, u128) {
    let mask = mask(lease.prefix_len);
    (lease.bits() & mask, lease.bits() | !mask)
}

fn mask(prefix_len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix_len)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_found_inside_and_around() {
        let lease = |text: &str, len| Lease::prefix(text.parse().unwrap(), len);
        let strays = Strays::new();
        strays.lock().insert(lease("2001:db8:0:100::", 56));
        assert!(strays.overlap(lease("2001:db8:0:1f0::", 60)));
        assert!(strays.overlap(lease("2001:db8:0:100::", 56)));
        assert!(strays.overlap(lease("2001:db8::", 48)));
        assert!(strays.overlap(lease("2001:db8:0:180::5", 128)));
        assert!(strays.overlap(lease("::", 0)));
        assert!(!strays.overlap(lease("2001:db8:0:200::", 60)));
        assert!(!strays.overlap(lease("2001:db8::", 56)));
        strays.lock().insert(lease("2001:db8:0:1f0::", 60));
        strays.lock().remove(lease("2001:db8:0:100::", 56), |_| ());
        assert!(strays.overlap(lease("2001:db8:0:100::", 56)));
        assert!(!strays.overlap(lease("2001:db8:0:1e0::", 60)));
        strays.lock().remove(lease("2001:db8:0:1f0::", 60), |_| ());
        assert!(strays.lock_if_any().is_none());
    }
}
