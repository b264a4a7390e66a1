use super::*;
use crate::{IaKind, Ownership, PoolConfig, PoolRange, Record, UpdateBatch};

use gemel_wire::IaId;

pub(super) const KEY: [u8; 16] = *b"a key for tests.";
pub(super) const TERMS: Terms = Terms { preferred_lifetime: 60, valid_lifetime: 100 };
pub(super) const T0: AbsoluteTime = AbsoluteTime(1_000_000);

pub(super) fn addresses(first: &str, last: &str, ownership: Ownership) -> PoolConfig {
    let range = PoolRange::Addresses { first: first.parse().unwrap(), last: last.parse().unwrap() };
    PoolConfig { range, ownership }
}

pub(super) fn prefixes(
    prefix: &str,
    prefix_len: u8,
    delegated_len: u8,
    ownership: Ownership,
) -> PoolConfig {
    let range = PoolRange::Prefixes { prefix: prefix.parse().unwrap(), prefix_len, delegated_len };
    PoolConfig { range, ownership }
}

pub(super) fn table(pools: Vec<PoolConfig>) -> LeaseTable {
    let config = TableConfig { hash_key: KEY, client_stripes: 4, expected_bindings: 0 };
    LeaseTable::new(&config, PoolSet::new(pools).unwrap())
}

pub(super) fn client(number: u32) -> [u8; 10] {
    let mut duid = [0, 3, 0, 1, 2, 0, 0, 0, 0, 0];
    duid[6..].copy_from_slice(&number.to_be_bytes());
    duid
}

pub(super) fn na(duid: &[u8]) -> ClientKey<'_> {
    ClientKey { duid, kind: IaKind::Na, iaid: IaId(1) }
}

#[test]
fn the_life_of_a_lease() {
    let table = table(vec![addresses("2001:db8::100", "2001:db8::1ff", Ownership::Sole)]);
    let pool = PoolId(0);
    let mut sink = UpdateBatch::default();
    let duid = client(1);
    let lease = {
        let mut guard = table.lock(na(&duid));
        let candidate = guard.candidate(pool, None).unwrap();
        let binding = guard.grant(pool, None, &TERMS, T0, &mut sink).unwrap();
        assert_eq!(binding.lease, candidate);
        assert_eq!(binding.expiration_time, T0.plus(100));
        assert_eq!(guard.bindings().count(), 1);
        candidate
    };
    assert_eq!((table.pools().in_use(pool), table.pools().available(pool)), (1, 255));
    let mut guard = table.lock(na(&duid));
    let later = AbsoluteTime(T0.0 + 50);
    assert_eq!(
        guard.extend(lease, &TERMS, later, &mut sink).unwrap().expiration_time,
        later.plus(100)
    );
    drop(guard);
    assert_eq!(table.expire(T0.plus(100), 1000, &mut sink).ended, 0);
    assert_eq!(table.expire(T0.plus(150), 1000, &mut sink), Sweep { ended: 1, more: false });
    assert!(table.binding(lease).is_none());
    let statuses: Vec<_> = sink.iter().map(|r| r.unwrap().binding.status).collect();
    assert_eq!(statuses, [BindingStatus::Active, BindingStatus::Active, BindingStatus::Free]);
    let mut guard = table.lock(na(&duid));
    let again = guard.grant(pool, None, &TERMS, T0.plus(200), &mut sink).unwrap().lease;
    assert_eq!(again, lease);
    assert!(guard.release(lease, T0.plus(201), &mut sink));
    assert_eq!(guard.bindings().count(), 0);
    drop(guard);
    assert!(table.is_empty());
    let records: Vec<Record> = sink.iter().map(Result::unwrap).collect();
    assert!(records.is_sorted_by_key(|r| r.stamp));
}
