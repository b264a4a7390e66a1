//! Many threads on few leases.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
};

use super::*;

/// Counts who holds each lease of a /120, from outside: raised after a grant, lowered before
/// whatever ends it.
struct Holders(Vec<AtomicU32>);

impl Holders {
    fn of(&self, lease: Lease) -> &AtomicU32 {
        &self.0[usize::from(lease.address.octets()[15])]
    }
}

fn stress(dense_max: u32, leases: &str, full_means_full: bool) {
    const THREADS: u32 = 8;
    const ROUNDS: u32 = 20_000;
    let config = TableConfig { hash_key: KEY, client_stripes: 8, expected_bindings: 0 };
    let pool = addresses("2001:db8::1", leases, Ownership::Sole);
    let pools = PoolSet::with_dense_max(vec![pool], dense_max).unwrap();
    let table = LeaseTable::new(&config, pools);
    let holders = Holders((0..256).map(|_| AtomicU32::new(0)).collect());
    let running = AtomicBool::new(true);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (table, holders) = (&table, &holders);
                scope.spawn(move || {
                    let mut sink = UpdateBatch::default();
                    let mut random = 77 * thread + 1;
                    let mut granted = 0;
                    for _ in 0..ROUNDS {
                        random = random.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
                        sink.clear();
                        // Every thread has its own clients, a few more than there are leases.
                        let duid = client(thread * 1000 + (random >> 8) % 6);
                        let mut guard = table.lock(na(&duid));
                        let held = guard.bindings().next().map(|binding| binding.lease);
                        let Some(lease) = held else {
                            let terms = Terms::unlimited(1, u32::MAX);
                            let new = guard.grant(PoolId(0), None, &terms, T0, &mut sink);
                            if let Some(lease) = new.map(|binding| binding.lease) {
                                let others = holders.of(lease).fetch_add(1, Ordering::SeqCst);
                                assert_eq!(others, 0, "{lease} has two holders");
                                granted += 1;
                            }
                            continue;
                        };
                        if random >> 30 == 0 {
                            assert!(guard.extend(lease, &TERMS, T0, &mut sink).is_some());
                            let terms = Terms::unlimited(1, u32::MAX);
                            assert!(guard.extend(lease, &terms, T0, &mut sink).is_some());
                        } else {
                            holders.of(lease).fetch_sub(1, Ordering::SeqCst);
                            assert!(guard.release(lease, T0, &mut sink));
                        }
                    }
                    granted
                })
            })
            .collect();
        // Others who look and sweep meanwhile.
        let (table, running) = (&table, &running);
        scope.spawn(move || {
            let mut sink = UpdateBatch::default();
            while running.load(Ordering::SeqCst) {
                assert_eq!(table.expire(T0.plus(1), 100, &mut sink).ended, 0);
                for number in 1..20 {
                    let address = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number);
                    let lease = Lease::address(address);
                    table.mark_unstored(lease);
                    assert!(table.binding(lease).is_none_or(|binding| binding.lease == lease));
                }
                let mut seen = std::collections::BTreeSet::new();
                table.for_each(|binding| {
                    _ = seen.insert((binding.lease, binding.duid.as_bytes().to_vec()))
                });
                thread::yield_now();
            }
        });
        let granted: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        running.store(false, Ordering::SeqCst);
        // A thread that comes late may find everything taken by those that are done.
        let granted: u32 = granted.into_iter().map(Result::unwrap).sum();
        assert!(granted > ROUNDS, "{granted}");
    });

    // Nothing is lost: what is not held can be given out to the last lease.
    let mut held = 0;
    table.for_each(|binding| {
        assert_eq!(holders.of(binding.lease).load(Ordering::SeqCst), 1);
        held += 1;
    });
    let sum: u32 = holders.0.iter().map(|n| n.load(Ordering::SeqCst)).sum();
    assert_eq!(sum, held);
    assert_eq!(table.pools().in_use(PoolId(0)), u64::from(held));
    let capacity = table.pools().capacity(PoolId(0));
    assert_eq!(table.pools().available(PoolId(0)), capacity - u64::from(held));
    let mut sink = UpdateBatch::default();
    let mut more = 0;
    for number in 0..300 {
        let duid = client(1_000_000 + number);
        let mut guard = table.lock(na(&duid));
        let granted = guard.grant(PoolId(0), None, &TERMS, T0, &mut sink);
        if let Some(lease) = granted.map(|binding| binding.lease) {
            assert_eq!(holders.of(lease).fetch_add(1, Ordering::SeqCst), 0);
            more += 1;
        }
    }
    if full_means_full {
        assert_eq!(held + more, u32::try_from(capacity).unwrap());
    }
}

#[test]
fn a_small_dense_pool_is_never_shared() {
    stress(1 << 10, "2001:db8::14", true);
}

#[test]
fn a_dense_pool_of_several_words_is_never_shared() {
    stress(1 << 10, "2001:db8::8f", true);
}

#[test]
fn a_small_sparse_pool_is_never_shared() {
    stress(0, "2001:db8::14", false);
}

/// The primary grants while its prefixes are given away and taken back.
#[test]
fn a_prefix_is_never_granted_and_given_away() {
    let pool = prefixes("2001:db8::", 32, 36, Ownership::Primary);
    let table = table(vec![pool]);
    let leases: Vec<_> = (0..16).map(|i| table.pools().pool(PoolId(0)).lease(i)).collect();
    thread::scope(|scope| {
        for thread in 0..4 {
            let (table, leases) = (&table, &leases);
            scope.spawn(move || {
                let mut sink = UpdateBatch::default();
                let mut random = 77 * thread + 1_u32;
                for _ in 0..20_000 {
                    random = random.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
                    let lease = leases[(random >> 20) as usize % 16];
                    if random >> 31 == 0 {
                        give(table, lease, &mut sink);
                    } else {
                        take(table, lease, &mut sink);
                    }
                    sink.clear();
                }
            });
        }
        let (table, leases) = (&table, &leases);
        scope.spawn(move || {
            let mut sink = UpdateBatch::default();
            for number in 0..16 {
                let duid = client(number);
                let key = ClientKey { duid: &duid, kind: IaKind::Pd, iaid: IaId(1) };
                let mut guard = table.lock(key);
                let Some(binding) = guard.grant(PoolId(0), None, &TERMS, T0, &mut sink) else {
                    continue;
                };
                let lease = binding.lease;
                drop(guard);
                for _ in 0..50 {
                    assert!(!give(table, lease, &mut sink), "{lease} is taken");
                    assert_eq!(table.status(lease), Some(BindingStatus::Active));
                    assert!(leases.contains(&lease));
                }
            }
        });
    });
    let mut free = 0;
    let mut sink = UpdateBatch::default();
    for lease in &leases {
        free += u64::from(take(&table, *lease, &mut sink));
    }
    assert_eq!(table.pools().available(PoolId(0)), free);
    assert_eq!(table.pools().in_use(PoolId(0)), 16 - free);
}
