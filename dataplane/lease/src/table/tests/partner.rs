//! What the partner hears, says and agrees to.

use super::*;

const MCLT: u32 = 10;
const LIMITED: Terms = Terms { mclt: Some(MCLT), ..Terms::unlimited(60, 100) };
const POOL: PoolId = PoolId(0);

fn all(_: PoolId) -> bool {
    true
}

/// Odd addresses, dense.
fn primary() -> LeaseTable {
    table(vec![addresses("2001:db8::100", "2001:db8::1ff", Ownership::Primary)])
}

fn prefix_pool(ownership: Ownership) -> LeaseTable {
    table(vec![prefixes("2001:db8:100::", 40, 44, ownership)])
}

fn address(number: u16) -> Lease {
    Lease::address(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100 + number))
}

fn grant(table: &LeaseTable, number: u32, sink: &mut UpdateBatch) -> Lease {
    let duid = client(number);
    let key = ClientKey { duid: &duid, kind: kind_of(table), iaid: IaId(1) };
    table.lock(key).grant(POOL, None, &LIMITED, T0, sink).unwrap().lease
}

fn kind_of(table: &LeaseTable) -> IaKind {
    if table.pools().pool(POOL).lease(0).prefix_len == 128 { IaKind::Na } else { IaKind::Pd }
}

fn release(table: &LeaseTable, lease: Lease, sink: &mut UpdateBatch) {
    let binding = table.binding(lease).unwrap();
    assert!(table.lock(binding.client_key()).release(lease, T0.plus(1), sink));
}

fn told(lease: Lease, number: u32, status: BindingStatus) -> Binding {
    record(lease, number, status, 1).binding
}

fn store(table: &LeaseTable, binding: &Binding, sink: &mut UpdateBatch) -> bool {
    table.apply(binding.lease, |_| Verdict::Store(binding.clone()), sink)
}

fn last(sink: &UpdateBatch) -> Record {
    sink.iter().map(Result::unwrap).last().unwrap()
}

fn acknowledge(table: &LeaseTable, lease: Lease, sink: &mut UpdateBatch) -> Acknowledged {
    let sent = table.begin_update(lease, u64::MAX, true).update().expect("something to send");
    let acked = Some(sent.binding.partner_lifetime).filter(|time| *time != AbsoluteTime::ZERO);
    table.acknowledge(lease, sent.stamp, acked, T0, sink)
}

/// What the store would bring back after a restart with the same pools.
fn restart(table: &LeaseTable, sink: &UpdateBatch) -> LeaseTable {
    let pools = table.pools().ids().map(|id| *table.pools().config(id)).collect();
    let again = super::table(pools);
    sink.iter().for_each(|record| again.restore(record.unwrap()));
    again.finish_restore();
    again
}

fn pending(table: &LeaseTable) -> Vec<Binding> {
    let mut out = Vec::new();
    (0..table.stripe_count()).for_each(|i| table.collect(i, Collect::Pending, all, &mut out));
    assert_eq!(table.pending_updates(all), out.len() as u64);
    out.into_iter().map(|record| record.binding).collect()
}

#[test]
fn the_first_lease_lasts_the_mclt_and_the_next_the_full_time() {
    let table = primary();
    let mut sink = UpdateBatch::default();
    let lease = grant(&table, 1, &mut sink);
    let binding = table.binding(lease).unwrap();
    assert_eq!((binding.preferred_lifetime, binding.valid_lifetime), (MCLT, MCLT));
    assert_eq!(binding.state_expiration_time, T0.plus(MCLT));
    assert_eq!(binding.partner_lifetime, T0.plus(MCLT / 2 + 100));
    assert!(binding.update_pending);
    assert_eq!(last(&sink).binding, binding);

    assert_eq!(acknowledge(&table, lease, &mut sink), Acknowledged::Current);
    let acked = table.binding(lease).unwrap();
    assert_eq!(acked.acked_partner_lifetime, binding.partner_lifetime);
    assert_eq!((acked.partner_lifetime, acked.update_pending), (AbsoluteTime::ZERO, false));
    assert_eq!(last(&sink).binding, acked);
    assert!(table.begin_update(lease, u64::MAX, true).update().is_none(), "nothing is pending");

    let duid = client(1);
    let mut guard = table.lock(na(&duid));
    let binding = guard.extend(lease, &LIMITED, T0.plus(5), &mut sink).unwrap();
    assert_eq!((binding.preferred_lifetime, binding.valid_lifetime), (60, 100));
    assert!(binding.update_pending);
}

/// The reply may get lost, and the client goes by what it was told before.
#[test]
fn a_shorter_lifetime_does_not_end_a_longer_one() {
    let table = primary();
    let mut sink = UpdateBatch::default();
    let lease = grant(&table, 1, &mut sink);
    let duid = client(1);
    let mut guard = table.lock(na(&duid));
    assert!(guard.extend(lease, &Terms::unlimited(60, 100), T0, &mut sink).is_some());
    let binding = guard.extend(lease, &LIMITED, T0.plus(5), &mut sink).unwrap().clone();
    assert_eq!((binding.valid_lifetime, binding.state_expiration_time), (MCLT, T0.plus(100)));
    drop(guard);
    assert_eq!(table.expire(T0.plus(99), usize::MAX, &mut sink).ended, 0);
    assert_eq!(table.expire(T0.plus(100), usize::MAX, &mut sink).ended, 1);
}

/// RFC 8156 section 5.5.7.
#[test]
fn what_was_acknowledged_to_the_partner_is_not_over_before() {
    for (expiration_time, end) in [(T0.plus(200), 200), (T0.plus(50), 100), (T0, 100)] {
        let table = primary();
        let mut sink = UpdateBatch::default();
        let lease = address(4);
        let state_expiration_time = T0.plus(100);
        let told = told(lease, 1, BindingStatus::Active);
        let told = Binding { state_expiration_time, expiration_time, ..told };
        assert!(store(&table, &told, &mut sink));
        let again = restart(&table, &sink);
        for table in [&table, &again] {
            assert_eq!(table.expire(T0.plus(end - 1), usize::MAX, &mut sink).ended, 0);
            assert_eq!(table.expire(T0.plus(end), usize::MAX, &mut sink).ended, 1);
            assert_eq!(table.status(lease), Some(BindingStatus::Expired));
        }
    }
}

#[test]
fn without_a_partner_nothing_is_pending_and_nothing_limited() {
    let table = table(vec![addresses("2001:db8::100", "2001:db8::1ff", Ownership::Sole)]);
    let mut sink = UpdateBatch::default();
    let lease = grant(&table, 1, &mut sink);
    let duid = client(1);
    let binding = table.lock(na(&duid)).extend(lease, &LIMITED, T0, &mut sink).unwrap().clone();
    assert_eq!((binding.valid_lifetime, binding.partner_lifetime), (100, AbsoluteTime::ZERO));
    assert!(!binding.update_pending);
    assert!(table.lock(na(&duid)).decline(lease, T0.plus(1000), T0, &mut sink));
    assert!(!table.binding(lease).unwrap().update_pending);
    assert_eq!(pending(&table), []);
    assert!(!table.request_update(lease, &mut sink));
    assert!(!store(&table, &told(lease, 2, BindingStatus::Active), &mut sink));
    assert!(!store(&table, &told(address(77), 2, BindingStatus::Active), &mut sink));
}

#[test]
fn what_ended_is_the_clients_until_the_partner_may_know() {
    for status in [BindingStatus::Released, BindingStatus::Expired] {
        let table = primary();
        let mut sink = UpdateBatch::default();
        let lease = grant(&table, 1, &mut sink);
        let end = |sink: &mut UpdateBatch| match status {
            BindingStatus::Released => release(&table, lease, sink),
            _ => assert_eq!(table.expire(T0.plus(1000), 10, sink).ended, 1),
        };
        let duid = client(1);
        let extend = |sink: &mut UpdateBatch| {
            let mut guard = table.lock(na(&duid));
            let extendable = guard.is_extendable(lease);
            assert_eq!(guard.extend(lease, &LIMITED, T0, sink).is_some(), extendable);
            extendable
        };
        // The active lease has been sent: that does not matter.
        assert!(table.begin_update(lease, u64::MAX, false).update().is_some());
        end(&mut sink);
        assert_eq!(table.status(lease), Some(status));
        assert!(table.binding(lease).unwrap().update_pending);
        assert!(extend(&mut sink));
        assert_eq!(table.status(lease), Some(BindingStatus::Active));

        end(&mut sink);
        assert_eq!(
            table.begin_update(lease, u64::MAX, false).update().unwrap().binding.status,
            status
        );
        assert!(!extend(&mut sink));
        // To be sent again, but sent once.
        assert!(table.request_update(lease, &mut sink));
        assert!(!extend(&mut sink));
        assert!(table.begin_update(lease, u64::MAX, false).update().is_some());

        // After a restart nobody knows whether it was sent.
        let again = restart(&table, &sink);
        assert!(!again.lock(na(&duid)).is_extendable(lease));
        assert_eq!(
            again.begin_update(lease, u64::MAX, false).update().unwrap().binding.status,
            status
        );
    }
}

#[test]
fn an_update_is_begun_once_for_each_change() {
    let table = primary();
    let mut sink = UpdateBatch::default();
    let lease = grant(&table, 1, &mut sink);
    let first = table.begin_update(lease, u64::MAX, false).update().unwrap();
    assert_eq!(first, last(&sink));
    assert!(table.begin_update(lease, u64::MAX, false).update().is_none());
    assert_eq!(table.begin_update(lease, u64::MAX, true).update(), Some(first.clone()));
    let duid = client(1);
    table.lock(na(&duid)).extend(lease, &LIMITED, T0.plus(1), &mut sink).unwrap();
    // The acknowledgement of what was sent before counts for the lifetime alone.
    let updates = sink.len();
    let acked = first.binding.partner_lifetime;
    let result = table.acknowledge(lease, first.stamp, Some(acked), T0, &mut sink);
    assert_eq!((result, sink.len()), (Acknowledged::Changed, updates));
    let binding = table.binding(lease).unwrap();
    assert_eq!(binding.acked_partner_lifetime, acked);
    assert!(binding.update_pending);
    // An older acknowledgement does not lower it.
    table.acknowledge(lease, first.stamp, Some(T0), T0, &mut sink);
    assert_eq!(table.binding(lease).unwrap().acked_partner_lifetime, acked);
    let second = table.begin_update(lease, u64::MAX, false).update().unwrap();
    assert!(second.stamp > first.stamp);
    assert!(table.begin_update(address(200), u64::MAX, true).update().is_none());
    let unknown = table.acknowledge(address(200), 1, None, T0, &mut sink);
    assert_eq!(unknown, Acknowledged::Unknown);
}

#[test]
fn what_ended_is_free_when_the_partner_agrees() {
    let table = primary();
    let mut sink = UpdateBatch::default();
    let lease = grant(&table, 1, &mut sink);
    release(&table, lease, &mut sink);
    assert_eq!((table.pools().available(POOL), table.pools().in_use(POOL)), (127, 1));
    assert_eq!(acknowledge(&table, lease, &mut sink), Acknowledged::Freed);
    let tombstone = last(&sink).binding;
    assert_eq!((tombstone.status, tombstone.update_pending), (BindingStatus::Free, false));
    assert!(table.binding(lease).is_none());
    assert_eq!((table.pools().available(POOL), table.pools().in_use(POOL)), (128, 0));
    assert!(restart(&table, &sink).is_empty());

    // An abandoned lease stays, acknowledged or not; its end has to be agreed upon.
    let lease = grant(&table, 2, &mut sink);
    let duid = client(2);
    assert!(table.lock(na(&duid)).decline(lease, T0.plus(50), T0, &mut sink));
    assert_eq!(acknowledge(&table, lease, &mut sink), Acknowledged::Current);
    assert_eq!(table.status(lease), Some(BindingStatus::Abandoned));
    assert_eq!(table.expire(T0.plus(50), 10, &mut sink).ended, 1);
    assert_eq!(table.status(lease), Some(BindingStatus::Reset));
    assert_eq!(acknowledge(&table, lease, &mut sink), Acknowledged::Freed);
    assert!(table.is_empty());
}

#[test]
fn what_the_partner_tells_is_taken_whoever_has_the_lease() {
    let dense = addresses("2001:db8::100", "2001:db8::1ff", Ownership::Secondary);
    for (dense_max, ownership) in
        [(1 << 10, Ownership::Primary), (1 << 10, Ownership::Secondary), (0, Ownership::Primary)]
    {
        let pools = vec![PoolConfig { ownership, ..dense }];
        let pools = PoolSet::with_dense_max(pools, dense_max).unwrap();
        let config = TableConfig { hash_key: KEY, client_stripes: 4, expected_bindings: 0 };
        let table = LeaseTable::new(&config, pools);
        let mut sink = UpdateBatch::default();
        // Our own and the partner's addresses, by clients of all stripes, from one to the next.
        for number in 1..40_u16 {
            for lease in [address(1), address(2)] {
                let binding = told(lease, number.into(), BindingStatus::Active);
                assert!(store(&table, &binding, &mut sink));
                assert_eq!(table.binding(lease), Some(binding.clone()));
                assert_eq!(last(&sink).binding, binding);
                assert_eq!(last(&sink).stamp, table.stamp());
                let duid = client(number.into());
                assert_eq!(
                    table.lock(na(&duid)).bindings().count(),
                    usize::from(lease.bits() & 1 == 0) + 1
                );
                let before = client(u32::from(number) - 1);
                let left = table.lock(na(&before)).bindings().count();
                assert_eq!(left, if number == 1 { 0 } else { usize::from(lease == address(1)) });
            }
            assert_eq!((table.len(), table.pools().in_use(POOL)), (2, 2));
            assert_eq!(table.pools().available(POOL), 127);
            assert_eq!(table.expire(T0.plus(99), usize::MAX, &mut sink).ended, 0);
        }
        // The same client, another status.
        let binding = told(address(1), 39, BindingStatus::Abandoned);
        assert!(store(&table, &binding, &mut sink));
        assert_eq!(table.counts().of(BindingStatus::Abandoned), 1);
        assert_eq!(table.expire(T0.plus(100), usize::MAX, &mut sink).ended, 2);
        assert_eq!(table.status(address(1)), Some(BindingStatus::Reset));
        assert_eq!(table.status(address(2)), Some(BindingStatus::Expired));
        // Free: the record is dropped, and an address goes to whom it belongs.
        for (lease, status) in
            [(address(1), BindingStatus::FreeBackup), (address(2), BindingStatus::PendingFree)]
        {
            assert!(store(&table, &told(lease, 0, status), &mut sink));
            assert_eq!(table.status(lease), Some(BindingStatus::Free));
            let pushed = last(&sink).binding;
            assert_eq!((pushed.status, pushed.update_pending), (BindingStatus::Free, false));
        }
        assert_eq!((table.len(), table.pools().in_use(POOL)), (0, 0));
        assert_eq!(table.pools().available(POOL), 128);
        assert!(restart(&table, &sink).is_empty());
    }
}

#[test]
fn what_is_kept_or_cannot_be_is_not_touched() {
    let table = primary();
    let mut sink = UpdateBatch::default();
    let lease = grant(&table, 1, &mut sink);
    let before = table.binding(lease);
    sink.clear();
    assert!(!table.apply(
        lease,
        |binding| {
            assert_eq!(Some(binding), before.as_ref());
            Verdict::Keep
        },
        &mut sink
    ));
    assert!(!table.apply(address(255), |_| Verdict::Keep, &mut sink));
    let prefix = Binding { kind: IaKind::Pd, ..told(lease, 2, BindingStatus::Active) };
    assert!(!store(&table, &prefix, &mut sink), "an address is not a prefix");
    assert!(!store(&table, &Binding { lease: address(255), ..prefix }, &mut sink));
    let outside = Lease::address("2001:db8:9::1".parse().unwrap());
    assert!(!store(&table, &told(outside, 1, BindingStatus::Active), &mut sink));
    assert_eq!(table.binding(lease), before);
    assert!(sink.is_empty());
    assert_eq!(table.len(), 1);
}

#[test]
fn what_the_partner_said_of_an_end_is_final() {
    let table = primary();
    let mut sink = UpdateBatch::default();
    let lease = grant(&table, 1, &mut sink);
    assert!(store(&table, &told(lease, 1, BindingStatus::Expired), &mut sink));
    let duid = client(1);
    assert!(table.lock(na(&duid)).extend(lease, &LIMITED, T0, &mut sink).is_none());
}

#[test]
fn a_lease_that_is_just_being_granted_is_waited_for() {
    let table = primary();
    let (pool, index) = table.pools().locate(address(1)).unwrap();
    let mut sink = UpdateBatch::default();
    // As a worker between claim and entry.
    assert!(pool.claim(index));
    let asked = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let applied = scope.spawn(|| {
            let mut sink = UpdateBatch::default();
            let decide = |binding: &Binding| {
                asked.fetch_add(1, Ordering::SeqCst);
                match binding.status {
                    BindingStatus::Free => {
                        Verdict::Store(told(address(1), 2, BindingStatus::Active))
                    }
                    _ => Verdict::Keep,
                }
            };
            table.apply(address(1), decide, &mut sink)
        });
        while asked.load(Ordering::SeqCst) < 3 {
            std::thread::yield_now();
        }
        pool.put_back(index);
        let duid = client(1);
        let mut guard = table.lock(na(&duid));
        let granted = guard.grant(POOL, Some(address(1)), &LIMITED, T0, &mut sink);
        let ours = granted.is_some_and(|binding| binding.lease == address(1));
        drop(guard);
        assert_eq!(applied.join().unwrap(), !ours);
        assert_eq!(
            table.binding(address(1)).unwrap().duid.as_bytes(),
            client(if ours { 1 } else { 2 })
        );
    });
}

#[test]
fn a_prefix_changes_its_owner_unless_it_is_being_granted() {
    let table = prefix_pool(Ownership::Primary);
    let mut sink = UpdateBatch::default();
    let lease = table.pools().pool(POOL).lease(3);
    let (pool, index) = table.pools().locate(lease).unwrap();
    assert!(pool.claim(index));
    assert!(!give(&table, lease, &mut sink));
    assert!(take(&table, lease, &mut sink), "it is the primary's");
    pool.put_back(index);
    sink.clear();
    assert!(give(&table, lease, &mut sink));
    assert_eq!(last(&sink).binding.status, BindingStatus::FreeBackup);
    assert_eq!(table.status(lease), Some(BindingStatus::FreeBackup));
    assert_eq!((table.pools().available(POOL), table.prefix_balance(POOL)), (15, (15, 1)));
    // A client of the secondary's gets it, and when it ends it is the primary's.
    assert!(store(&table, &told(lease, 1, BindingStatus::Active), &mut sink));
    assert_eq!(table.prefix_balance(POOL), (15, 0));
    assert!(store(&table, &told(lease, 1, BindingStatus::Free), &mut sink));
    assert_eq!((table.pools().available(POOL), table.prefix_balance(POOL)), (16, (16, 0)));
    // Or the secondary's again, if the partner says so.
    assert!(store(&table, &told(lease, 1, BindingStatus::Active), &mut sink));
    assert!(store(&table, &told(lease, 1, BindingStatus::FreeBackup), &mut sink));
    assert_eq!((table.pools().available(POOL), table.prefix_balance(POOL)), (15, (15, 1)));
    let again = restart(&table, &sink);
    assert_eq!((again.pools().available(POOL), again.prefix_balance(POOL)), (15, (15, 1)));
    assert_eq!(pending(&again), []);
}

#[test]
fn prefixes_are_given_and_asked_for() {
    let table = prefix_pool(Ownership::Primary);
    let mut sink = UpdateBatch::default();
    let taken = grant(&table, 1, &mut sink);
    assert_eq!(table.prefix_balance(POOL), (15, 0));
    let mut moved = Vec::new();
    assert_eq!(table.give_prefixes(POOL, 5, T0, &mut moved, &mut sink), 5);
    assert!(moved.len() == 5 && !moved.contains(&taken));
    assert_eq!((table.prefix_balance(POOL), table.prefixes_moving(POOL)), ((10, 0), 5));
    assert_eq!(table.pools().available(POOL), 10);
    let again = restart(&table, &sink);
    assert_eq!((again.prefix_balance(POOL), again.prefixes_moving(POOL)), ((10, 0), 5));
    assert_eq!(pending(&again).len(), 6);
    for lease in &moved {
        let update = table.begin_update(*lease, u64::MAX, false).update().unwrap();
        assert_eq!(update.binding.status, BindingStatus::FreeBackup);
        assert!(update.binding.update_pending && update.binding.start_time_of_state == T0);
        assert!(table.begin_update(*lease, u64::MAX, false).update().is_none());
        let wrong = table.acknowledge(*lease, update.stamp - 1, None, T0, &mut sink);
        assert_eq!(wrong, Acknowledged::Changed);
        let right = table.acknowledge(*lease, update.stamp, None, T0, &mut sink);
        assert_eq!(right, Acknowledged::Current);
        let stored = last(&sink).binding;
        assert_eq!((stored.status, stored.update_pending), (BindingStatus::FreeBackup, false));
    }
    assert_eq!((table.prefix_balance(POOL), table.prefixes_moving(POOL)), ((10, 5), 0));
    assert_eq!(restart(&table, &sink).prefix_balance(POOL), (10, 5));

    // Three are asked for: one is agreed to, one rejected, of one nothing is heard.
    moved.clear();
    assert_eq!(table.reclaim_prefixes(POOL, 3, T0, &mut moved, &mut sink), 3);
    assert_eq!((table.prefix_balance(POOL), table.pools().available(POOL)), ((10, 2), 10));
    let updates: Vec<_> =
        moved.iter().map(|l| table.begin_update(*l, u64::MAX, false).update().unwrap()).collect();
    assert!(updates.iter().all(|update| update.binding.status == BindingStatus::Free));
    let agreed = table.acknowledge(moved[0], updates[0].stamp, None, T0, &mut sink);
    assert_eq!(agreed, Acknowledged::Current);
    assert_eq!(table.pools().available(POOL), 11);
    table.reject(moved[1], updates[1].stamp - 1, &mut sink);
    assert_eq!(table.prefixes_moving(POOL), 2);
    table.reject(moved[1], updates[1].stamp, &mut sink);
    assert_eq!((table.prefix_balance(POOL), table.prefixes_moving(POOL)), ((11, 3), 1));
    assert_eq!(table.status(moved[2]), Some(BindingStatus::FreeBackup));
    // More than there are: the one under way is not asked for twice.
    assert_eq!(table.reclaim_prefixes(POOL, 9, T0, &mut Vec::new(), &mut sink), 3);

    // After a restart those asked for are given once more.
    let again = restart(&table, &sink);
    assert_eq!((again.prefix_balance(POOL), again.prefixes_moving(POOL)), ((11, 0), 4));
    let update = again.begin_update(moved[2], u64::MAX, false).update().unwrap();
    assert_eq!(update.binding.status, BindingStatus::FreeBackup);
    assert!(again.begin_update(moved[0], u64::MAX, true).update().is_none());

    // The same if the question is withdrawn; an answer that still comes is to nothing.
    let asked = table.begin_update(moved[2], u64::MAX, true).update().unwrap();
    assert_eq!(table.withdraw_reclaims(POOL, T0, &mut sink), 4);
    assert_eq!((table.prefix_balance(POOL), table.prefixes_moving(POOL)), ((11, 0), 4));
    assert_eq!(last(&sink).binding.status, BindingStatus::FreeBackup);
    let late = table.acknowledge(moved[2], asked.stamp, None, T0, &mut sink);
    assert_eq!((late, table.pools().available(POOL)), (Acknowledged::Changed, 11));
    let given = table.begin_update(moved[2], u64::MAX, false).update().unwrap();
    assert_eq!(given.binding.status, BindingStatus::FreeBackup);
    assert_eq!(table.withdraw_reclaims(POOL, T0, &mut sink), 0);

    let secondary = prefix_pool(Ownership::Secondary);
    assert_eq!(secondary.give_prefixes(POOL, 9, T0, &mut moved, &mut sink), 0);
    assert_eq!(secondary.reclaim_prefixes(POOL, 9, T0, &mut moved, &mut sink), 0);
    let addresses = primary();
    assert_eq!(addresses.give_prefixes(POOL, 9, T0, &mut moved, &mut sink), 0);
    assert_eq!(addresses.take_over_prefixes(POOL, 9, T0, &mut sink), 0);
    assert_eq!(addresses.prefix_balance(POOL), (0, 0));
}

#[test]
fn the_partners_prefixes_are_taken_over() {
    let mut sink = UpdateBatch::default();
    let table = prefix_pool(Ownership::Primary);
    table.give_prefixes(POOL, 6, T0, &mut Vec::new(), &mut sink);
    assert_eq!(table.take_over_prefixes(POOL, 4, T0, &mut sink), 4);
    assert_eq!(table.take_over_prefixes(POOL, 4, T0, &mut sink), 2);
    assert_eq!(table.take_over_prefixes(POOL, 4, T0, &mut sink), 0);
    assert_eq!((table.pools().available(POOL), table.prefix_balance(POOL)), (16, (16, 0)));
    assert_eq!(table.prefixes_moving(POOL), 0);
    let updates = pending(&table);
    assert!(updates.len() == 6 && updates.iter().all(|b| b.status == BindingStatus::Free));
    assert_eq!(pending(&restart(&table, &sink)).len(), 6);

    let mut sink = UpdateBatch::default();
    let table = prefix_pool(Ownership::Secondary);
    let bound = told(table.pools().pool(POOL).lease(0), 1, BindingStatus::Active);
    assert!(store(&table, &bound, &mut sink));
    assert_eq!(table.take_over_prefixes(POOL, 99, T0, &mut sink), 15);
    assert_eq!((table.pools().available(POOL), table.prefix_balance(POOL)), (15, (0, 15)));
    // A client gets one; what was to be said of it is out of date.
    let lease = grant(&table, 2, &mut sink);
    assert_eq!(table.prefix_balance(POOL), (0, 14));
    assert_eq!(
        table.begin_update(lease, u64::MAX, false).update().unwrap().binding.status,
        BindingStatus::Active
    );
    let updates = pending(&table);
    assert_eq!(updates.iter().filter(|b| b.status == BindingStatus::FreeBackup).count(), 14);
    assert_eq!((updates.len(), pending(&restart(&table, &sink)).len()), (15, 15));
    // When it ends it is the primary's, and the old update does not come back.
    release(&table, lease, &mut sink);
    assert_eq!(acknowledge(&table, lease, &mut sink), Acknowledged::Freed);
    assert_eq!(table.status(lease), Some(BindingStatus::Free));
    assert!(table.begin_update(lease, u64::MAX, true).update().is_none());
    assert_eq!((table.prefix_balance(POOL), pending(&table).len()), ((1, 14), 14));
}

#[test]
fn leases_are_freed_after_the_wait() {
    let dense = addresses("2001:db8::100", "2001:db8::1ff", Ownership::Primary);
    let prefix = prefixes("2001:db8:100::", 40, 44, Ownership::Secondary);
    let table = table(vec![dense, prefix]);
    let mut sink = UpdateBatch::default();
    for number in 0..100 {
        grant(&table, number, &mut sink);
    }
    let lease = table.pools().pool(PoolId(1)).lease(5);
    assert!(store(&table, &told(lease, 1, BindingStatus::Reset), &mut sink));
    let kept = grant(&table, 100, &mut sink);
    let duid = client(100);
    assert!(
        table.lock(na(&duid)).extend(kept, &Terms::unlimited(60, 2000), T0, &mut sink).is_some()
    );
    assert_eq!(table.expire(T0.plus(1000), usize::MAX, &mut sink).ended, 100);
    let free = |is_over: bool, pools: fn(PoolId) -> bool, sink: &mut UpdateBatch| -> usize {
        let stripes = 0..table.stripe_count();
        stripes.map(|i| table.free_after_wait(i, |_| is_over, pools, T0.plus(1001), sink)).sum()
    };
    assert_eq!(free(false, all, &mut sink), 0);
    assert_eq!(free(true, |_| false, &mut sink), 0);
    assert_eq!(free(true, |id| id == PoolId(1), &mut sink), 1);
    assert_eq!(table.status(lease), Some(BindingStatus::Free));
    assert_eq!(table.pools().available(PoolId(1)), 0, "the primary's");
    assert_eq!(table.take_over_prefixes(PoolId(1), 99, T0, &mut sink), 16);
    assert_eq!(free(true, all, &mut sink), 100);
    assert_eq!(free(true, all, &mut sink), 0);
    assert_eq!((table.len(), table.pools().available(POOL)), (1, 127));
    let updates = pending(&table);
    let freed = |updates: &[Binding]| {
        let of_clients = |b: &&Binding| b.kind == IaKind::Na && b.duid.as_bytes().len() == 10;
        updates.iter().filter(|b| b.status == BindingStatus::Free).filter(of_clients).count()
    };
    assert_eq!(freed(&updates), 100, "who had it is known");
    let again = restart(&table, &sink);
    assert_eq!(freed(&pending(&again)), 100);
    assert_eq!(pending(&again).len(), updates.len());
    assert_eq!(again.pools().available(POOL), 127);
    // The partner agrees: nothing is left.
    for binding in pending(&again).iter().filter(|b| b.status == BindingStatus::Free) {
        assert_eq!(acknowledge(&again, binding.lease, &mut sink), Acknowledged::Current);
        assert!(!last(&sink).binding.update_pending);
    }
    let left = pending(&restart(&table, &sink));
    assert!(left.iter().all(|binding| binding.status != BindingStatus::Free), "{left:?}");
}

#[test]
fn all_is_collected_once() {
    let table = table(vec![
        addresses("2001:db8::100", "2001:db8::1ff", Ownership::Primary),
        prefixes("2001:db8:100::", 40, 46, Ownership::Primary),
    ]);
    let mut sink = UpdateBatch::default();
    (0..50).for_each(|number| _ = grant(&table, number, &mut sink));
    let mut moved = Vec::new();
    table.give_prefixes(PoolId(1), 20, T0, &mut moved, &mut sink);
    for lease in &moved[..10] {
        acknowledge(&table, *lease, &mut sink);
    }
    table.reclaim_prefixes(PoolId(1), 3, T0, &mut Vec::new(), &mut sink);
    let collect = |which, pools: fn(PoolId) -> bool| {
        let mut out = Vec::new();
        (0..table.stripe_count()).for_each(|i| table.collect(i, which, pools, &mut out));
        let mut leases: Vec<_> = out.iter().map(|record| record.binding.lease).collect();
        leases.sort_unstable();
        leases.dedup();
        assert_eq!(leases.len(), out.len(), "no lease twice");
        out
    };
    assert_eq!(collect(Collect::All, all).len(), 70);
    assert_eq!(collect(Collect::Pending, all).len(), 63);
    assert_eq!(collect(Collect::All, |id| id == PoolId(1)).len(), 20);
    assert_eq!(collect(Collect::Pending, |id| id == PoolId(0)).len(), 50);
    let settled: Vec<_> = collect(Collect::All, all).into_iter().filter(|r| r.stamp == 0).collect();
    assert_eq!(settled.len(), 7);
    assert!(settled.iter().all(|r| r.binding.status == BindingStatus::FreeBackup));
}

#[test]
fn a_free_update_that_is_not_stored_is_pushed_again() {
    let table = prefix_pool(Ownership::Primary);
    let mut sink = UpdateBatch::default();
    let mut moved = Vec::new();
    table.give_prefixes(POOL, 2, T0, &mut moved, &mut sink);
    table.mark_unstored(moved[1]);
    let mut unstored = UpdateBatch::default();
    table.push_unstored(&mut unstored);
    assert_eq!(unstored.len(), 1);
    assert_eq!(last(&unstored), last(&sink));
    table.clear_unstored();
    unstored.clear();
    table.push_unstored(&mut unstored);
    assert!(unstored.is_empty());
}

#[test]
fn the_partner_is_asked_again_for_what_is_free() {
    let table = prefix_pool(Ownership::Primary);
    let mut sink = UpdateBatch::default();
    let mut moved = Vec::new();
    table.give_prefixes(POOL, 1, T0, &mut moved, &mut sink);
    let first = table.begin_update(moved[0], u64::MAX, false).update().unwrap();
    assert!(table.request_update(moved[0], &mut sink));
    let second = table.begin_update(moved[0], u64::MAX, false).update().unwrap();
    assert!(second.stamp > first.stamp && last(&sink) == second);
    assert!(!table.request_update(table.pools().pool(POOL).lease(15), &mut sink));
}

#[test]
fn what_was_to_be_said_before_a_lease_was_granted_does_not_come_back() {
    let table = prefix_pool(Ownership::Secondary);
    let mut sink = UpdateBatch::default();
    assert_eq!(table.take_over_prefixes(POOL, 1, T0, &mut sink), 1);
    let lease = grant(&table, 1, &mut sink);
    // Nobody has come across the free update when the lease is free again, as the partner says.
    assert!(store(&table, &told(lease, 1, BindingStatus::Free), &mut sink));
    assert_eq!(table.status(lease), Some(BindingStatus::Free));
    assert!(table.begin_update(lease, u64::MAX, true).update().is_none());
    assert_eq!((pending(&table), pending(&restart(&table, &sink))), (Vec::new(), Vec::new()));
}
