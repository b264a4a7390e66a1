mod model;
mod partner;
mod partner_model;
mod partner_stress;
mod stress;

use super::*;
use crate::{IaKind, Ownership, PoolConfig, PoolRange, Record, UpdateBatch};

use gemel_wire::IaId;

const KEY: [u8; 16] = *b"a key for tests.";
const TERMS: Terms = Terms::unlimited(60, 100);
const T0: AbsoluteTime = AbsoluteTime(1_000_000);

fn addresses(first: &str, last: &str, ownership: Ownership) -> PoolConfig {
    let range = PoolRange::Addresses { first: first.parse().unwrap(), last: last.parse().unwrap() };
    PoolConfig { range, ownership }
}

fn prefixes(prefix: &str, prefix_len: u8, delegated_len: u8, ownership: Ownership) -> PoolConfig {
    let range = PoolRange::Prefixes { prefix: prefix.parse().unwrap(), prefix_len, delegated_len };
    PoolConfig { range, ownership }
}

fn table(pools: Vec<PoolConfig>) -> LeaseTable {
    let config = TableConfig { hash_key: KEY, client_stripes: 4, expected_bindings: 0 };
    LeaseTable::new(&config, PoolSet::new(pools).unwrap())
}

fn client(number: u32) -> [u8; 10] {
    let mut duid = [0, 3, 0, 1, 2, 0, 0, 0, 0, 0];
    duid[6..].copy_from_slice(&number.to_be_bytes());
    duid
}

fn na(duid: &[u8]) -> ClientKey<'_> {
    ClientKey { duid, kind: IaKind::Na, iaid: IaId(1) }
}

/// The primary has given a free prefix to the secondary, or taken it from there, and the other has
/// agreed.
fn own(
    table: &LeaseTable,
    lease: Lease,
    status: BindingStatus,
    sink: &mut impl UpdateSink,
) -> bool {
    let decide = |binding: &Binding| match binding.status {
        BindingStatus::Free | BindingStatus::FreeBackup => {
            Verdict::Store(Binding { status, ..binding.clone() })
        }
        _ => Verdict::Keep,
    };
    table.apply(lease, decide, sink)
}

fn give(table: &LeaseTable, lease: Lease, sink: &mut impl UpdateSink) -> bool {
    own(table, lease, BindingStatus::FreeBackup, sink)
}

fn take(table: &LeaseTable, lease: Lease, sink: &mut impl UpdateSink) -> bool {
    own(table, lease, BindingStatus::Free, sink)
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
        assert_eq!(binding.state_expiration_time, T0.plus(100));
        assert_eq!(guard.bindings().count(), 1);
        candidate
    };
    assert_eq!((table.pools().in_use(pool), table.pools().available(pool)), (1, 255));
    let mut guard = table.lock(na(&duid));
    let later = AbsoluteTime(T0.0 + 50);
    assert_eq!(
        guard.extend(lease, &TERMS, later, &mut sink).unwrap().state_expiration_time,
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

#[test]
fn every_lease_of_a_dense_pool_is_found_and_then_none() {
    let mut sink = UpdateBatch::default();
    for (ownership, expected) in
        [(Ownership::Sole, 4095), (Ownership::Primary, 2048), (Ownership::Secondary, 2047)]
    {
        let table = table(vec![addresses("2001:db8::", "2001:db8::fff", ownership)]);
        let mut leases = std::collections::BTreeSet::new();
        for number in 0..expected {
            let duid = client(number);
            let mut guard = table.lock(na(&duid));
            let binding = guard.grant(PoolId(0), None, &TERMS, T0, &mut sink).unwrap();
            assert!(leases.insert(binding.lease));
        }
        let duid = client(9999);
        let mut guard = table.lock(na(&duid));
        assert_eq!(guard.candidate(PoolId(0), None), None);
        assert!(guard.grant(PoolId(0), None, &TERMS, T0, &mut sink).is_none());
        let taken = *leases.first().unwrap();
        assert!(guard.grant(PoolId(0), Some(taken), &TERMS, T0, &mut sink).is_none());
        assert_eq!(guard.bindings().count(), 0);
        drop(guard);
        assert_eq!(table.pools().available(PoolId(0)), 0);
        let odd = leases.iter().filter(|lease| lease.bits() & 1 == 1).count();
        match ownership {
            Ownership::Sole => assert_eq!(odd, 2048),
            Ownership::Primary => assert_eq!(odd, 2048),
            Ownership::Secondary => assert_eq!(odd, 0),
        }
        if ownership == Ownership::Sole {
            let freed = table.binding(taken).unwrap();
            let mut guard = table.lock(freed.client_key());
            assert!(guard.release(taken, T0, &mut sink));
            drop(guard);
            let mut guard = table.lock(na(&duid));
            assert_eq!(guard.grant(PoolId(0), None, &TERMS, T0, &mut sink).unwrap().lease, taken);
        }
    }
}

#[test]
fn reserved_identifiers_are_not_even_given_as_a_hint() {
    let dense = addresses(
        "2001:db8::fdff:ffff:ffff:ff00",
        "2001:db8::fdff:ffff:ffff:ffff",
        Ownership::Sole,
    );
    let sparse = addresses("2001:db8:0:1::", "2001:db8:0:1:ffff:ffff:ffff:ffff", Ownership::Sole);
    let table = table(vec![dense, sparse]);
    let mut sink = UpdateBatch::default();
    let cases = [
        (0, "2001:db8::fdff:ffff:ffff:ff80"),
        (0, "2001:db8::fdff:ffff:ffff:ffff"),
        (1, "2001:db8:0:1::"),
        (1, "2001:db8:0:1:200:5eff:fe00:0"),
        (1, "2001:db8:0:1:200:5eff:fe00:5213"),
        (1, "2001:db8:0:1:200:5eff:feff:ffff"),
        (1, "2001:db8:0:1:fdff:ffff:ffff:ff80"),
        (1, "2001:db8:0:1:fdff:ffff:ffff:ffff"),
        // Of the other pool, and of none.
        (0, "2001:db8:0:1::5"),
        (1, "2001:db8::fdff:ffff:ffff:ff00"),
        (1, "2001:db8:0:2::5"),
    ];
    for (number, (pool, hint)) in (0..).zip(cases) {
        let duid = client(number);
        let mut guard = table.lock(na(&duid));
        let hint = Some(Lease::address(hint.parse().unwrap()));
        assert_ne!(guard.candidate(PoolId(pool), hint), hint);
        let granted = guard.grant(PoolId(pool), hint, &TERMS, T0, &mut sink).unwrap().lease;
        assert_ne!(Some(granted), hint);
        assert_eq!(table.pools().find(granted, IaKind::Na), Some(PoolId(pool)));
    }
    // A good hint is honoured.
    for (pool, hint) in [(0, "2001:db8::fdff:ffff:ffff:ff7f"), (1, "2001:db8:0:1::1")] {
        let duid = client(100);
        let mut guard = table.lock(na(&duid));
        let hint = Some(Lease::address(hint.parse().unwrap()));
        assert_eq!(guard.candidate(PoolId(pool), hint), hint);
        let granted = guard.grant(PoolId(pool), hint, &TERMS, T0, &mut sink);
        assert_eq!(granted.map(|binding| binding.lease), hint);
    }
}

#[test]
fn a_client_of_a_sparse_pool_returns_to_its_address() {
    let pool = addresses("2001:db8::", "2001:db8::ffff:ffff:ffff:ffff", Ownership::Secondary);
    let [table, again] = [table(vec![pool]), table(vec![pool])];
    let mut sink = UpdateBatch::default();
    let mut leases = std::collections::BTreeSet::new();
    for number in 0..500 {
        let duid = client(number);
        let mut guard = table.lock(na(&duid));
        let lease = guard.candidate(PoolId(0), None).unwrap();
        assert_eq!(lease.bits() & 1, 0);
        assert_eq!(guard.grant(PoolId(0), None, &TERMS, T0, &mut sink).unwrap().lease, lease);
        // A second lease of the same association is another one.
        let second = guard.grant(PoolId(0), None, &TERMS, T0, &mut sink).unwrap().lease;
        assert!(leases.insert(lease) && leases.insert(second));
    }
    // With the same key another table shows the same addresses.
    let duid = client(77);
    let first = table.lock(na(&duid)).bindings().next().unwrap().lease;
    assert_eq!(again.lock(na(&duid)).candidate(PoolId(0), None), Some(first));
}

#[test]
fn an_abandoned_lease_stays_out_until_its_time() {
    let pool = addresses("2001:db8::1", "2001:db8::1", Ownership::Sole);
    let table = table(vec![pool]);
    let mut sink = UpdateBatch::default();
    let (one, two) = (client(1), client(2));
    let mut guard = table.lock(na(&one));
    let lease = guard.grant(PoolId(0), None, &TERMS, T0, &mut sink).unwrap().lease;
    assert!(guard.decline(lease, T0.plus(5000), T0.plus(1), &mut sink));
    assert!(!guard.decline(lease, T0.plus(9000), T0.plus(2), &mut sink));
    assert!(!guard.release(lease, T0.plus(2), &mut sink));
    assert!(guard.extend(lease, &TERMS, T0.plus(2), &mut sink).is_none());
    drop(guard);
    assert_eq!(table.counts().of(BindingStatus::Abandoned), 1);
    // The end of the valid lifetime does not matter any more.
    assert_eq!(table.expire(T0.plus(4999), 100, &mut sink).ended, 0);
    assert!(table.lock(na(&two)).candidate(PoolId(0), None).is_none());
    assert_eq!(table.expire(T0.plus(5000), 100, &mut sink).ended, 1);
    assert!(table.lock(na(&two)).candidate(PoolId(0), None).is_some());
}

#[test]
fn renewals_and_churn_do_not_let_the_queue_grow() {
    let pool = addresses("2001:db8::1", "2001:db8::ffff", Ownership::Sole);
    let config = TableConfig { hash_key: KEY, client_stripes: 1, expected_bindings: 0 };
    let table = LeaseTable::new(&config, PoolSet::new(vec![pool]).unwrap());
    let mut sink = UpdateBatch::default();
    let long = Terms::unlimited(1_000_000, 1_000_000);
    let duid = client(1);
    let lease = table.lock(na(&duid)).grant(PoolId(0), None, &TERMS, T0, &mut sink).unwrap().lease;
    for after in 0..1000 {
        let terms = if after % 2 == 0 { long } else { TERMS };
        table.lock(na(&duid)).extend(lease, &terms, T0.plus(after / 20), &mut sink).unwrap();
    }
    assert_eq!(table.lock_stripe(0).queue_len(), 1);
    for number in 0..10_000 {
        sink.clear();
        let duid = client(number);
        let mut guard = table.lock(na(&duid));
        let lease = guard.grant(PoolId(0), None, &long, T0, &mut sink).unwrap().lease;
        assert!(guard.release(lease, T0, &mut sink));
    }
    assert!(table.lock_stripe(0).queue_len() <= 70, "{}", table.lock_stripe(0).queue_len());
    // A shorter lifetime counts from when it is given.
    table.lock(na(&duid)).extend(lease, &long, T0.plus(60), &mut sink).unwrap();
    table.lock(na(&duid)).extend(lease, &TERMS, T0.plus(61), &mut sink).unwrap();
    assert_eq!(table.expire(T0.plus(160), usize::MAX, &mut sink).ended, 0);
    assert_eq!(table.expire(T0.plus(161), usize::MAX, &mut sink).ended, 1);
    assert!(table.is_empty());
}

fn record(lease: Lease, number: u32, status: BindingStatus, stamp: u64) -> Record {
    let binding = Binding {
        lease,
        kind: if lease.prefix_len == 128 { IaKind::Na } else { IaKind::Pd },
        status,
        duid: crate::ClientDuid::new(&client(number)),
        iaid: IaId(1),
        state_expiration_time: T0.plus(100),
        ..Binding::EMPTY
    };
    Record { binding, stamp }
}

#[test]
fn a_lease_outside_all_pools_ends_but_is_not_extended() {
    let table = table(vec![addresses("2001:db8::1", "2001:db8::ff", Ownership::Sole)]);
    let mut sink = UpdateBatch::default();
    let stray = |n: u16| Lease::address(std::net::Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, n));
    table.restore(record(stray(1), 1, BindingStatus::Active, 1));
    table.restore(record(stray(2), 1, BindingStatus::Active, 2));
    table.finish_restore();
    assert_eq!(table.pools().find(stray(1), IaKind::Na), None);
    let duid = client(1);
    let mut guard = table.lock(na(&duid));
    assert_eq!(guard.bindings().count(), 2);
    assert!(guard.extend(stray(1), &TERMS, T0, &mut sink).is_none());
    assert!(guard.release(stray(1), T0, &mut sink));
    assert_eq!(guard.bindings().map(|b| b.lease).collect::<Vec<_>>(), [stray(2)]);
    drop(guard);
    assert_eq!(table.expire(T0.plus(100), 10, &mut sink), Sweep { ended: 1, more: false });
    assert!(table.is_empty());
    assert_eq!(table.status(stray(1)), None);
}

#[test]
fn what_overlaps_a_stray_is_not_given_out_before_it_ends() {
    let old = Lease::prefix("2001:db8:0:100::".parse().unwrap(), 56);
    let older = Lease::prefix("2001:db8:0:120::".parse().unwrap(), 62);
    let own = Lease::prefix("2001:db8:0:1f0::".parse().unwrap(), 60);
    let mut sink = UpdateBatch::default();
    // 32 /60s, dense and sparse, half of them inside the /56 of an earlier configuration.
    for dense_max in [0, 32] {
        let pool = prefixes("2001:db8::", 55, 60, Ownership::Sole);
        let config = TableConfig { hash_key: KEY, client_stripes: 4, expected_bindings: 0 };
        let pools = PoolSet::with_dense_max(vec![pool], dense_max).unwrap();
        let table = LeaseTable::new(&config, pools);
        table.restore(record(own, 3, BindingStatus::Active, 3));
        table.restore(record(old, 1, BindingStatus::Active, 1));
        table.restore(record(older, 2, BindingStatus::Active, 2));
        // A tombstone does not open what a stray blocks.
        let inside = Lease::prefix("2001:db8:0:130::".parse().unwrap(), 60);
        table.restore(record(inside, 4, BindingStatus::Free, 4));
        table.finish_restore();
        let overlaps = |lease: Lease, stray: Lease| {
            let mask = u128::MAX << (128 - lease.prefix_len.min(stray.prefix_len));
            lease.bits() & mask == stray.bits() & mask
        };
        let duids: Vec<_> = (10..200).map(client).collect();
        let take_all = |sink: &mut UpdateBatch| -> Vec<Lease> {
            let pd = |duid| ClientKey { duid, kind: IaKind::Pd, iaid: IaId(1) };
            let granted = duids.iter().filter_map(|duid| {
                Some(table.lock(pd(duid)).grant(PoolId(0), Some(inside), &TERMS, T0, sink)?.lease)
            });
            granted.collect()
        };
        let first = take_all(&mut sink);
        assert_eq!(first.len(), 16);
        assert!(first.iter().all(|lease| !overlaps(*lease, old)));
        let release = |number, lease: Lease, sink: &mut UpdateBatch| {
            let duid = client(number);
            let key = ClientKey { duid: &duid, kind: IaKind::Pd, iaid: IaId(1) };
            assert!(table.lock(key).release(lease, T0, sink));
        };
        release(1, old, &mut sink);
        // 16 inside; one is taken and one still blocked by the /62.
        let second = take_all(&mut sink);
        assert_eq!(second.len(), 14, "dense_max {dense_max}");
        assert!(second.iter().all(|lease| !overlaps(*lease, older)));
        assert!(second.contains(&inside));
        // Given back while blocked or not: nothing appears twice.
        release(3, own, &mut sink);
        release(2, older, &mut sink);
        let mut third = take_all(&mut sink);
        third.sort_unstable();
        let around = Lease::prefix("2001:db8:0:120::".parse().unwrap(), 60);
        assert_eq!(third, [around, own]);
        assert!(take_all(&mut sink).is_empty());
        assert_eq!(table.pools().available(PoolId(0)), 0);
    }
}

#[test]
fn a_later_record_takes_the_lease_from_the_earlier_client() {
    let lease = Lease::address("2001:db8::5".parse().unwrap());
    for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
        let table = table(vec![addresses("2001:db8::1", "2001:db8::ff", Ownership::Sole)]);
        for stamp in order {
            let number = u32::try_from(stamp).unwrap();
            table.restore(record(lease, number, BindingStatus::Active, stamp));
        }
        table.finish_restore();
        for number in 1..=3 {
            let duid = client(number);
            let leases = table.lock(na(&duid)).bindings().count();
            assert_eq!(leases, usize::from(number == 3), "order {order:?}");
        }
        assert_eq!(table.len(), 1);
        assert_eq!(table.pools().in_use(PoolId(0)), 1);
        assert_eq!(table.pools().available(PoolId(0)), 254);
    }
}

#[test]
fn a_restored_stamp_beyond_all_measure_does_no_harm() {
    let table = table(vec![addresses("2001:db8::1", "2001:db8::ff", Ownership::Sole)]);
    let lease = |n| Lease::address(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n));
    table.restore(record(lease(1), 1, BindingStatus::Active, u64::MAX));
    table.restore(record(lease(2), 2, BindingStatus::Active, 0));
    let duid = client(9);
    let mut sink = UpdateBatch::default();
    assert!(table.lock(na(&duid)).grant(PoolId(0), None, &TERMS, T0, &mut sink).is_some());
    assert_eq!(table.len(), 3);
}

/// What a store holds of leases `::0` to `::n`: of every fourth one an older record of another
/// client too, and every fourth one is free.
fn stored(n: u32) -> Vec<Record> {
    let mut records = Vec::new();
    for number in 0..n {
        let lease = lease_of(number);
        let (stamp, status) = (u64::from(2 * number + 2), BindingStatus::Active);
        match number % 4 {
            0 => {
                records.push(record(lease, number + n, status, stamp - 1));
                records.push(record(lease, number, status, stamp));
            }
            1 => {
                records.push(record(lease, number, status, stamp - 1));
                records.push(record(lease, number, BindingStatus::Free, stamp));
            }
            _ => records.push(record(lease, number, status, stamp)),
        }
    }
    records
}

fn lease_of(number: u32) -> Lease {
    Lease::address((0x2001_0db8_u128 << 96 | u128::from(number)).into())
}

#[test]
fn renewals_while_the_table_is_restored_stand_and_nothing_else_changes() {
    const N: u32 = 8000;
    let new_table = || table(vec![addresses("2001:db8::", "2001:db8::ffff", Ownership::Sole)]);
    let records = stored(N);
    let table = new_table();
    table.raise_stamp(u64::from(2 * N + 2));
    let renewed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        // Two threads that restore everything, from both ends.
        let (table, records, renewed) = (&table, &records, &renewed);
        scope.spawn(|| records.iter().for_each(|record| table.restore(record.clone())));
        scope.spawn(|| records.iter().rev().for_each(|record| table.restore(record.clone())));
        // Two threads of clients: a lease is looked up, as it was stored last, and extended.
        for first in [2, 3] {
            scope.spawn(move || {
                let mut sink = UpdateBatch::default();
                for number in (first..N).step_by(4).filter(|number| number % 5 != 0) {
                    let lease = lease_of(number);
                    table.restore(record(
                        lease,
                        number,
                        BindingStatus::Active,
                        u64::from(2 * number + 2),
                    ));
                    let duid = client(number);
                    let mut guard = table.lock(na(&duid));
                    let later = T0.plus(50);
                    assert!(guard.extend(lease, &TERMS, later, &mut sink).is_some(), "{lease}");
                }
                renewed.lock().unwrap().extend(sink.iter().map(Result::unwrap));
            });
        }
    });
    table.finish_restore();
    let renewed = renewed.into_inner().unwrap();
    assert!(renewed.len() > 3000);
    assert!(renewed.iter().all(|record| record.stamp > u64::from(2 * N + 2)));

    let alone = new_table();
    records.iter().chain(&renewed).for_each(|record| alone.restore(record.clone()));
    alone.finish_restore();
    for number in 0..N {
        let lease = lease_of(number);
        assert_eq!(table.binding(lease), alone.binding(lease), "{lease}");
        assert_eq!(table.is_free(lease), number % 4 == 1, "{lease}");
    }
    assert_eq!(table.len(), alone.len());
    assert_eq!(table.counts(), alone.counts());
    assert_eq!(table.pools().in_use(PoolId(0)), alone.pools().in_use(PoolId(0)));
    assert_eq!(table.pools().available(PoolId(0)), alone.pools().available(PoolId(0)));
    // The lifetimes of what was renewed end later.
    let mut sink = UpdateBatch::default();
    let ended = table.expire(T0.plus(100), usize::MAX, &mut sink).ended;
    assert_eq!(ended, alone.len() - renewed.len());
}
