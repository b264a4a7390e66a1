//! One stripe of a table: its lock, and what can be known of it without the lock.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::{Mutex, MutexGuard};

use crate::{
    ordered::{Ahead, Entry, Ordered},
    prefetch::prefetch_lines,
};

/// What stands under the lock.
pub(crate) trait Content {
    type Entry: Entry;

    /// The table whose entries are fetched ahead.
    fn table(&self) -> &Ordered<Self::Entry>;
}

/// In the order of use, so that a lookup needs the first cache lines alone.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Striped<T> {
    ahead: Ahead,
    content: Mutex<T>,
}

/// The lock on a stripe.
pub(crate) struct StripeGuard<'a, T: Content> {
    ahead: &'a Ahead,
    content: MutexGuard<'a, T>,
}

/// How often a lock was not free: one count for all stripes of a kind, in a cache line that nobody
/// else uses. Who finds a lock free does not touch it.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Waits(AtomicU64);

impl<T: Content> Striped<T> {
    pub(crate) fn new(content: T) -> Self {
        let ahead = Ahead::default();
        content.table().publish(&ahead);
        Self { ahead, content: Mutex::new(content) }
    }

    /// Locks, and counts if somebody else has the lock now.
    #[inline]
    pub(crate) fn lock(&self, waits: &Waits) -> StripeGuard<'_, T> {
        let content = self.content.try_lock().unwrap_or_else(|| {
            waits.0.fetch_add(1, Ordering::Relaxed);
            self.content.lock()
        });
        StripeGuard { ahead: &self.ahead, content }
    }

    /// Locks if nobody else has the lock now.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<StripeGuard<'_, T>> {
        Some(StripeGuard { ahead: &self.ahead, content: self.content.try_lock()? })
    }

    /// Fetches what a lookup needs of the stripe itself into the cache.
    #[inline]
    pub(crate) fn fetch(&self) {
        prefetch_lines(self, 2);
    }

    /// Fetches the place of a hash in the table; after [`Striped::fetch`].
    #[inline]
    pub(crate) fn fetch_entry(&self, hash: u64) {
        self.ahead.fetch::<T::Entry>(hash);
    }
}

impl Waits {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<T: Content> Deref for StripeGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.content
    }
}

impl<T: Content> DerefMut for StripeGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.content
    }
}

impl<T: Content> Drop for StripeGuard<'_, T> {
    fn drop(&mut self) {
        self.content.table().publish(self.ahead);
    }
}

impl<T: Content + fmt::Debug> fmt::Debug for StripeGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.content.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    struct Nothing(Ordered<Gap>);

    #[derive(Clone, Copy)]
    struct Gap;

    impl Entry for Gap {
        const GAP: Self = Self;

        fn is_gap(&self) -> bool {
            true
        }

        fn hash(&self) -> u64 {
            0
        }
    }

    impl Content for Nothing {
        type Entry = Gap;

        fn table(&self) -> &Ordered<Gap> {
            &self.0
        }
    }

    #[test]
    fn only_those_who_wait_are_counted() {
        let waits = Waits::default();
        let stripe = Striped::new(Nothing(Ordered::with_capacity(0)));
        drop(stripe.lock(&waits));
        assert_eq!(waits.count(), 0);
        let guard = stripe.lock(&waits);
        assert!(stripe.try_lock().is_none());
        assert_eq!(waits.count(), 0);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(stripe.lock(&waits)));
            while waits.count() == 0 {
                thread::yield_now();
            }
            drop(guard);
            waiting.join().unwrap();
        });
        assert_eq!(waits.count(), 1);
        assert!(stripe.try_lock().is_some());
    }
}
