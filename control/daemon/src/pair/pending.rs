//! How many leases the partner does not know as they are.

use gemel_lease::{LeaseTable, PoolId};

/// Steps in which the whole table is looked through; with one in a second, the figure is at most
/// this old, and ten million leases cost the pair thread a few milliseconds in each.
const STEPS: usize = 30;

/// Counts some stripes of the table at a time.
#[derive(Debug, Default)]
pub(super) struct PendingCount {
    stripe: usize,
    found: u64,
    last: Option<u64>,
}

impl PendingCount {
    /// Counts on, over the leases of these pools.
    pub(super) fn step(&mut self, table: &LeaseTable, pools: &[PoolId]) {
        let stripes = table.stripe_count();
        let end = (self.stripe + stripes.div_ceil(STEPS)).min(stripes);
        let is_ours = |pool| pools.contains(&pool);
        self.found += (self.stripe..end).map(|it| table.pending_in(it, is_ours)).sum::<u64>();
        self.stripe = end;
        if end == stripes {
            self.last = Some(self.found);
            (self.stripe, self.found) = (0, 0);
        }
    }

    /// What was counted last; `None` before the first time.
    pub(super) fn last(&self) -> Option<u64> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use gemel_lease::{
        AbsoluteTime, ClientKey, IaKind, Ownership, PoolConfig, PoolRange, PoolSet, TableConfig,
        Terms, UpdateBatch,
    };
    use gemel_wire::IaId;

    use super::*;

    #[test]
    fn all_are_counted_in_so_many_steps() {
        let range = PoolRange::Addresses {
            first: "2001:db8::1:0".parse().unwrap(),
            last: "2001:db8::1:ffff".parse().unwrap(),
        };
        let pool = PoolConfig { range, ownership: Ownership::Primary };
        let pools = PoolSet::new(vec![pool]).unwrap();
        let table = LeaseTable::new(&TableConfig::default(), pools);
        let now = AbsoluteTime(800_000_000);
        let mut batch = UpdateBatch::default();
        for iaid in 0..100 {
            let key = ClientKey { duid: b"client", kind: IaKind::Na, iaid: IaId(iaid) };
            let terms = Terms { mclt: Some(60), ..Terms::unlimited(60, 120) };
            table.lock(key).grant(PoolId(0), None, &terms, now, &mut batch).unwrap();
        }
        let mut count = PendingCount::default();
        for _ in 0..2 {
            for _ in 0..STEPS {
                count.step(&table, &[PoolId(0)]);
            }
            assert_eq!(count.last(), Some(100));
        }
        let mut of_others = PendingCount::default();
        (0..STEPS).for_each(|_| of_others.step(&table, &[PoolId(1)]));
        assert_eq!(of_others.last(), Some(0));
    }
}
