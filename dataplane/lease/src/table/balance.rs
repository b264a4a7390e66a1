//! Free prefixes go from one server of a pair to the other (RFC 8156 section 4.2.2).

use super::{
    LeaseTable,
    free_updates::{Course, FreeUpdate},
};
use crate::{
    AbsoluteTime, BindingStatus, Lease, Ownership, PoolId, UpdateSink,
    pool::{Pool, dense_index},
};

impl LeaseTable {
    /// On the primary: moves up to `count` free prefixes of a pool to the secondary (section
    /// 4.2.2). They are not available here any more, each is pushed as FREE-BACKUP with
    /// [`crate::Binding::update_pending`] set, and appended to `moved`. Returns how many.
    pub fn give_prefixes(
        &self,
        pool: PoolId,
        count: u64,
        now: AbsoluteTime,
        moved: &mut Vec<Lease>,
        sink: &mut impl UpdateSink,
    ) -> u64 {
        let pool = self.pools.pool(pool);
        if pool.ownership() != Ownership::Primary {
            return 0;
        }
        let owned = Owned { pool, secondary: false };
        owned.take(count, |index| {
            self.change_owner(pool, index, true, |lease| {
                self.tell(lease, BindingStatus::FreeBackup, Course::Given, now, pool, sink);
                moved.push(lease);
            })
        })
    }

    /// On the primary: asks for up to `count` prefixes of the secondary's back. Each becomes a
    /// pending free update FREE, appended to `moved`; it stays the secondary's, and unavailable
    /// here, until [`LeaseTable::acknowledge`]. [`LeaseTable::reject`] takes it back, and so does
    /// [`LeaseTable::withdraw_reclaims`].
    ///
    /// After a restart nobody knows whether the secondary has agreed: the prefix is then given to
    /// it once more.
    pub fn reclaim_prefixes(
        &self,
        pool: PoolId,
        count: u64,
        now: AbsoluteTime,
        moved: &mut Vec<Lease>,
        sink: &mut impl UpdateSink,
    ) -> u64 {
        let pool = self.pools.pool(pool);
        if pool.ownership() != Ownership::Primary {
            return 0;
        }
        let owned = Owned { pool, secondary: true };
        owned.take(count, |index| {
            let lease = pool.lease(index);
            let entry = self.index.lock(self.name(&lease));
            let is_free = entry.find().is_none() && pool.is_backup(index);
            if !is_free || self.free_updates.with(lease, |_| ()).is_some() {
                return false;
            }
            self.tell(lease, BindingStatus::Free, Course::Reclaimed, now, pool, sink);
            moved.push(lease);
            true
        })
    }

    /// On the primary: takes back what [`LeaseTable::reclaim_prefixes`] has asked for and the
    /// secondary has not answered; each of these prefixes is given to it once more. Nobody knows
    /// whether it has agreed; and one that has lost its memory would agree to give back what a client
    /// has. Returns how many.
    pub fn withdraw_reclaims(
        &self,
        pool: PoolId,
        now: AbsoluteTime,
        sink: &mut impl UpdateSink,
    ) -> u64 {
        let pool = self.pools.pool(pool);
        if pool.moving() == 0 {
            return 0;
        }
        let mut leases = Vec::new();
        self.free_updates.leases(pool.lease(0)..=pool.lease(pool.size() - 1), &mut leases);
        let mut withdrawn = 0;
        for lease in leases {
            let entry = self.index.lock(self.name(&lease));
            let is_reclaim = self.free_updates.with(lease, |update| update.is_reclaim());
            if is_reclaim == Some(true) && entry.find().is_none() {
                self.tell(lease, BindingStatus::FreeBackup, Course::Given, now, pool, sink);
                withdrawn += 1;
            }
        }
        withdrawn
    }

    /// In PARTNER-DOWN state, the MCLT after its beginning: makes up to `count` free prefixes of
    /// the partner's this server's own (section 8.4.1). Pushed as pending free updates. Returns how
    /// many.
    pub fn take_over_prefixes(
        &self,
        pool: PoolId,
        count: u64,
        now: AbsoluteTime,
        sink: &mut impl UpdateSink,
    ) -> u64 {
        let pool = self.pools.pool(pool);
        let (to_secondary, status) = match pool.ownership() {
            Ownership::Sole => return 0,
            Ownership::Primary => (false, BindingStatus::Free),
            Ownership::Secondary => (true, BindingStatus::FreeBackup),
        };
        let owned = Owned { pool, secondary: !to_secondary };
        owned.take(count, |index| {
            self.change_owner(pool, index, to_secondary, |lease| {
                self.tell(lease, status, Course::Settled, now, pool, sink);
            })
        })
    }

    /// Free prefixes of a pool that are the primary's, and the secondary's, as far as this server
    /// knows: neither bound nor on their way from one to the other. (0, 0) for other pools.
    #[must_use]
    pub fn prefix_balance(&self, pool: PoolId) -> (u64, u64) {
        self.pools.pool(pool).balance()
    }

    /// On the primary: number of prefixes of a pool that are on their way, given or asked for and
    /// not acknowledged yet.
    #[must_use]
    pub fn prefixes_moving(&self, pool: PoolId) -> u64 {
        self.pools.pool(pool).moving()
    }

    /// Makes a free update; the lease's name is locked.
    fn tell(
        &self,
        lease: Lease,
        status: BindingStatus,
        course: Course,
        now: AbsoluteTime,
        pool: &Pool,
        sink: &mut impl UpdateSink,
    ) {
        let update = FreeUpdate::new(lease, status, now, self.next_stamp(), course);
        update.push(sink);
        self.free_updates.insert(lease, update, pool);
    }
}

/// The free prefixes of one server.
struct Owned<'p> {
    pool: &'p Pool,
    secondary: bool,
}

impl Owned<'_> {
    /// Shows them to `f` until it has taken so many; how many it took.
    fn take(&self, count: u64, mut f: impl FnMut(u128) -> bool) -> u64 {
        let (mut taken, mut place) = (0, 0);
        while taken < count
            && let Some(index) = self.pool.next_owned(self.secondary, place)
        {
            taken += u64::from(f(index));
            place = dense_index(index) + 1;
        }
        taken
    }
}
