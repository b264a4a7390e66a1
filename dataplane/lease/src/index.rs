//! Which record holds a lease: the index by lease, striped by itself.

use siphasher::sip128::Hash128;

use crate::{
    ordered::{self, Ordered},
    striped::{Content, StripeGuard, Striped, Waits},
};

/// Where a record is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    /// Client stripe.
    pub(crate) stripe: u16,
    /// Number in the stripe's arena.
    pub(crate) slot: u32,
}

/// The name of a lease in the index: 80 bits of a keyed 128-bit hash, and further bits choose the
/// stripe. Two leases of one name among 10^7 have a probability below 10^-12, over the whole life
/// of a server with that many; nobody without the key can bring it about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseName {
    fingerprint: u64,
    check: u16,
    stripe: u16,
}

impl Place {
    /// In no record, but not available either: a lease on its way from one record to another.
    pub(crate) const MOVING: Self = Self { stripe: 0, slot: crate::arena::NIL };
}

impl LeaseName {
    #[expect(clippy::cast_possible_truncation, reason = "a hash is cut into pieces")]
    pub(crate) fn new(hash: Hash128) -> Self {
        // 0 is kept for gaps.
        let fingerprint = hash.h1.max(1);
        Self { fingerprint, check: hash.h2 as u16, stripe: (hash.h2 >> 48) as u16 }
    }
}

/// 16 octets.
#[derive(Clone, Copy, Debug)]
struct Entry {
    fingerprint: u64,
    check: u16,
    place: PackedPlace,
}

#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(2))]
struct PackedPlace {
    stripe: u16,
    slot: u32,
}

/// A lease without a record whose last change is known: during a restore, an older record that
/// comes later must not bring the lease back to its former client.
#[derive(Clone, Copy, Debug)]
struct Freed {
    fingerprint: u64,
    check: u16,
    stamp: u64,
}

#[derive(Debug)]
pub(crate) struct LeaseIndex {
    stripes: Box<[Striped<Tables>]>,
    mask: u16,
    waits: Waits,
}

#[derive(Debug)]
#[repr(C)]
struct Tables {
    entries: Ordered<Entry>,
    freed: Ordered<Freed>,
}

impl Content for Tables {
    type Entry = Entry;

    fn table(&self) -> &Ordered<Entry> {
        &self.entries
    }
}

/// One lease's place in its locked stripe.
pub(crate) struct LeaseGuard<'a> {
    tables: StripeGuard<'a, Tables>,
    name: LeaseName,
}

impl LeaseIndex {
    /// `stripes` is a power of two up to 2^16.
    pub(crate) fn new(stripes: usize) -> Self {
        let stripe = || {
            let empty = Ordered::with_capacity;
            Striped::new(Tables { entries: empty(0), freed: Ordered::with_capacity(0) })
        };
        Self {
            stripes: (0..stripes).map(|_| stripe()).collect(),
            mask: u16::try_from(stripes - 1).expect("checked by the table"),
            waits: Waits::default(),
        }
    }

    /// Makes room for so many leases in all, stripe by stripe.
    pub(crate) fn make_room(&self, expected: usize) {
        let each = per_stripe(expected, self.stripes.len());
        for stripe in &self.stripes {
            stripe.lock(&self.waits).entries.make_room(each);
        }
    }

    pub(crate) fn lock(&self, name: LeaseName) -> LeaseGuard<'_> {
        LeaseGuard { tables: self.stripe(name).lock(&self.waits), name }
    }

    /// Fetches what a lookup needs of the stripe itself into the cache.
    pub(crate) fn fetch_stripe(&self, name: LeaseName) {
        self.stripe(name).fetch();
    }

    /// Fetches the lease's place in the stripe.
    pub(crate) fn fetch_entry(&self, name: LeaseName) {
        self.stripe(name).fetch_entry(name.fingerprint);
    }

    fn stripe(&self, name: LeaseName) -> &Striped<Tables> {
        &self.stripes[usize::from(name.stripe & self.mask)]
    }

    pub(crate) fn find(&self, name: LeaseName) -> Option<Place> {
        self.lock(name).find()
    }

    /// How often a stripe was not free at once.
    pub(crate) fn waits(&self) -> u64 {
        self.waits.count()
    }

    /// Forgets the stamps of freed leases.
    pub(crate) fn forget_freed(&self) {
        for stripe in &self.stripes {
            stripe.lock(&self.waits).freed = Ordered::with_capacity(0);
        }
    }
}

impl LeaseGuard<'_> {
    pub(crate) fn find(&self) -> Option<Place> {
        let name = self.name;
        self.tables.entries.find(name.fingerprint, |e| e.is(name)).map(|e| e.place())
    }

    /// Enters the lease; false, and nothing done, if it is there already.
    pub(crate) fn insert(&mut self, place: Place) -> bool {
        let name = self.name;
        if self.find().is_some() {
            return false;
        }
        let place = PackedPlace { stripe: place.stripe, slot: place.slot };
        let LeaseName { fingerprint, check, .. } = name;
        self.tables.entries.insert(Entry { fingerprint, check, place });
        true
    }

    /// Moves the lease, which is there, to another record.
    pub(crate) fn replace(&mut self, place: Place) {
        let name = self.name;
        let entry = self.tables.entries.find_mut(name.fingerprint, |e| e.is(name));
        let entry = entry.expect("a lease that is moved is in the index");
        entry.place = PackedPlace { stripe: place.stripe, slot: place.slot };
    }

    /// Takes the lease out, which must be there and at this place.
    pub(crate) fn remove(&mut self, place: Place) {
        let name = self.name;
        let entry = self.tables.entries.remove(name.fingerprint, |e| e.is(name));
        let Some(entry) = entry else { panic!("a lease of a record is not in the index") };
        assert_eq!(entry.place(), place, "a lease is in two records");
    }

    /// The stamp with which the lease became free, if that is remembered.
    pub(crate) fn freed(&self) -> Option<u64> {
        let name = self.name;
        self.tables.freed.find(name.fingerprint, |f| f.is(name)).map(|f| f.stamp)
    }

    /// Remembers it.
    pub(crate) fn set_freed(&mut self, stamp: u64) {
        let name = self.name;
        let freed = &mut self.tables.freed;
        if let Some(known) = freed.find_mut(name.fingerprint, |f| f.is(name)) {
            known.stamp = known.stamp.max(stamp);
        } else {
            let LeaseName { fingerprint, check, .. } = name;
            freed.insert(Freed { fingerprint, check, stamp });
        }
    }
}

impl ordered::Entry for Entry {
    const GAP: Self = Self { fingerprint: 0, check: 0, place: PackedPlace { stripe: 0, slot: 0 } };

    fn is_gap(&self) -> bool {
        self.fingerprint == 0
    }

    fn hash(&self) -> u64 {
        self.fingerprint
    }
}

impl ordered::Entry for Freed {
    const GAP: Self = Self { fingerprint: 0, check: 0, stamp: 0 };

    fn is_gap(&self) -> bool {
        self.fingerprint == 0
    }

    fn hash(&self) -> u64 {
        self.fingerprint
    }
}

impl Entry {
    fn is(&self, name: LeaseName) -> bool {
        self.fingerprint == name.fingerprint && self.check == name.check
    }

    fn place(&self) -> Place {
        Place { stripe: self.place.stripe, slot: self.place.slot }
    }
}

impl Freed {
    fn is(&self, name: LeaseName) -> bool {
        self.fingerprint == name.fingerprint && self.check == name.check
    }
}

/// How many of `expected` to make room for in one of so many stripes: the mean and three standard
/// deviations.
pub(crate) fn per_stripe(expected: usize, stripes: usize) -> usize {
    let mean = expected / stripes;
    if expected == 0 { 0 } else { mean + 3 * mean.isqrt() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), 16);
    }
}
