//! Workers serve clients while another thread speaks for the partner.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::*;

const THREADS: u32 = 4;
/// Updates of one worker, and attempts at them.
const UPDATES: usize = 3_000;
const ROUNDS: u32 = 5_000_000;

struct Random(u32);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        (self.0 >> 12) % n
    }
}

fn key(duid: &[u8], kind: IaKind) -> ClientKey<'_> {
    ClientKey { duid, kind, iaid: IaId(1) }
}

fn worker(table: &LeaseTable, number: u32, kind: IaKind) -> UpdateBatch {
    let mut random = Random(77 * number + 1);
    let mut sink = UpdateBatch::default();
    let terms = Terms { mclt: Some(10), ..Terms::unlimited(50, 100) };
    for _ in 0..ROUNDS {
        if sink.len() >= UPDATES {
            break;
        }
        let duid = client(number * 1000 + random.below(6));
        let mut guard = table.lock(key(&duid, kind));
        let active = guard.bindings().find(|b| b.status == BindingStatus::Active);
        let Some(lease) = active.map(|binding| binding.lease) else {
            if guard.bindings().count() < 4 {
                let granted = guard.grant(PoolId(0), None, &terms, T0, &mut sink);
                assert!(granted.is_none_or(|b| b.update_pending && b.valid_lifetime == 10));
            }
            drop(guard);
            thread::yield_now();
            continue;
        };
        match random.below(16) {
            0..6 => assert!(guard.release(lease, T0, &mut sink)),
            6 => assert!(guard.decline(lease, T0.plus(5), T0, &mut sink)),
            _ => assert!(guard.extend(lease, &terms, T0, &mut sink).is_some()),
        }
    }
    sink
}

/// Everything that an endpoint may do, at random.
fn partner(table: &LeaseTable, running: &AtomicBool, seed: u32) -> UpdateBatch {
    let mut random = Random(seed);
    let mut sink = UpdateBatch::default();
    let mut moved = Vec::new();
    let mut collected = Vec::new();
    let pool = table.pools().pool(PoolId(0));
    let size = u32::try_from(pool.size()).unwrap();
    let kind = if pool.lease(0).prefix_len == 128 { IaKind::Na } else { IaKind::Pd };
    while running.load(Ordering::SeqCst) {
        let lease = pool.lease(random.below(size).into());
        if random.below(32) == 0 {
            // Where there are few processors, the workers need them.
            thread::yield_now();
        }
        match random.below(10) {
            0..3 => {
                let Some(sent) = table.begin_update(lease, u64::MAX, random.below(2) == 0).update()
                else {
                    continue;
                };
                assert!(sent.binding.update_pending && sent.binding.lease == lease);
                match random.below(8) {
                    0 => table.reject(lease, sent.stamp, &mut sink),
                    _ => {
                        let acked = Some(sent.binding.partner_lifetime);
                        table.acknowledge(lease, sent.stamp, acked, T0, &mut sink);
                    }
                }
            }
            3..6 => {
                // A client that is the partner's or one of ours.
                let number = if random.below(2) == 0 { 1_000_000 } else { 0 };
                let number = number + 1000 * random.below(THREADS) + random.below(6);
                let status = match random.below(4) {
                    0 | 1 => BindingStatus::Active,
                    2 => BindingStatus::Free,
                    _ => BindingStatus::FreeBackup,
                };
                let binding = Binding { kind, ..record(lease, number, status, 1).binding };
                let pushed = sink.len();
                let frees = status != BindingStatus::Active;
                let stored = table.apply(
                    lease,
                    |before| {
                        assert_eq!(before.lease, lease);
                        // Nobody takes an active lease from a client.
                        let is_active = before.status == BindingStatus::Active;
                        if is_active && before.client_key() != binding.client_key() && !frees {
                            return Verdict::Keep;
                        }
                        Verdict::Store(binding.clone())
                    },
                    &mut sink,
                );
                assert_eq!(sink.len() - pushed, usize::from(stored));
            }
            6 => _ = table.give_prefixes(PoolId(0), 3, T0, &mut moved, &mut sink),
            7 => _ = table.reclaim_prefixes(PoolId(0), 2, T0, &mut moved, &mut sink),
            8 => {
                table.expire(T0.plus(5), 3, &mut sink);
                let stripe = random.below(8) as usize;
                table.free_after_wait(stripe, |_| true, |_| true, T0, &mut sink);
                if random.below(8) == 0 {
                    table.take_over_prefixes(PoolId(0), 2, T0, &mut sink);
                }
            }
            _ => {
                collected.clear();
                let stripe = random.below(8) as usize;
                table.collect(stripe, Collect::All, |_| true, &mut collected);
                let request = collected.first().filter(|record| record.stamp > 0);
                if let Some(record) = request {
                    table.request_update(record.binding.lease, &mut sink);
                }
            }
        }
    }
    sink
}

/// Follows all updates in the order of their stamps: what a worker gives to a client was free and
/// this server's, or the client's own.
fn check_history(table: &LeaseTable, workers: &[UpdateBatch], partners: &[UpdateBatch]) {
    let records = |batches: &[UpdateBatch], by_worker: bool| -> Vec<_> {
        let records = batches.iter().flat_map(UpdateBatch::iter).map(Result::unwrap);
        records.map(|record| (record.stamp, by_worker, record.binding)).collect()
    };
    let mut history = records(workers, true);
    let granted = history.len();
    assert!(granted >= THREADS as usize * UPDATES, "{granted} updates by workers");
    history.extend(records(partners, false));
    assert!(history.len() - granted > 1000, "{} by partners", history.len() - granted);
    history.sort_unstable_by_key(|(stamp, ..)| *stamp);
    assert!(history.windows(2).all(|pair| pair[0].0 < pair[1].0), "a stamp was used twice");
    let pool = table.pools().pool(PoolId(0));
    let initial = match pool.ownership() {
        _ if !pool.has_backup() => BindingStatus::Free,
        Ownership::Secondary => BindingStatus::FreeBackup,
        _ => BindingStatus::Free,
    };
    let mut now: BTreeMap<Lease, Binding> = BTreeMap::new();
    for (stamp, by_worker, binding) in history {
        let lease = binding.lease;
        if by_worker {
            let fits = match now.get(&lease) {
                None => initial == BindingStatus::Free,
                Some(before) if before.status == initial => true,
                Some(before) => before.client_key() == binding.client_key(),
            };
            assert!(fits, "{stamp}: {:?} became {binding:?}", now.get(&lease));
        }
        now.insert(lease, binding);
    }
    // The store would bring back what there is.
    let again = super::table(vec![*table.pools().config(PoolId(0))]);
    for batch in workers.iter().chain(partners) {
        batch.iter().for_each(|record| again.restore(record.unwrap()));
    }
    again.finish_restore();
    assert_eq!(again.len(), table.len());
    table.for_each(|binding| {
        let mut restored = again.binding(binding.lease).expect("it is stored");
        // This is raised in memory alone.
        assert!(restored.acked_partner_lifetime <= binding.acked_partner_lifetime);
        restored.acked_partner_lifetime = binding.acked_partner_lifetime;
        assert_eq!(&restored, binding);
    });
    assert_eq!(again.pools().available(PoolId(0)), table.pools().available(PoolId(0)));
    assert_eq!(again.pending_updates(|_| true), table.pending_updates(|_| true));
}

fn stress(pool: PoolConfig, dense_max: u32) {
    let config = TableConfig { hash_key: KEY, client_stripes: 8, expected_bindings: 0 };
    let pools = PoolSet::with_dense_max(vec![pool], dense_max).unwrap();
    let table = LeaseTable::new(&config, pools);
    let running = AtomicBool::new(true);
    let kind =
        if matches!(pool.range, PoolRange::Addresses { .. }) { IaKind::Na } else { IaKind::Pd };
    thread::scope(|scope| {
        let (table, running) = (&table, &running);
        let workers: Vec<_> =
            (0..THREADS).map(|number| scope.spawn(move || worker(table, number, kind))).collect();
        let partners: Vec<_> =
            [5, 6].map(|seed| scope.spawn(move || partner(table, running, seed))).into();
        let ended: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        running.store(false, Ordering::SeqCst);
        let workers: Vec<_> = ended.into_iter().map(Result::unwrap).collect();
        let partners: Vec<_> = partners.into_iter().map(|p| p.join().unwrap()).collect();
        check_history(table, &workers, &partners);
    });

    // Every lease is in one place, and all counts are what they are when counted.
    let mut held = BTreeMap::new();
    table.for_each(|binding| assert!(held.insert(binding.lease, binding.clone()).is_none()));
    assert_eq!(table.len(), held.len());
    assert_eq!(table.counts().total(), held.len() as u64);
    let id = PoolId(0);
    let pool = table.pools().pool(id);
    assert_eq!(table.pools().in_use(id), held.len() as u64);
    let (mut available, mut primary, mut secondary) = (0, 0, 0);
    for lease in (0..pool.size()).map(|index| pool.lease(index)) {
        let index = pool.index(lease).unwrap();
        assert_eq!(table.binding(lease), held.get(&lease).cloned());
        let is_free = !held.contains_key(&lease);
        available += u64::from(is_free && pool.is_mine(index));
        if pool.is_dense() {
            assert_eq!(pool.is_free(index), is_free && pool.is_mine(index), "{lease}");
        }
        if pool.has_backup() {
            primary += u64::from(is_free && !pool.is_backup(index));
            secondary += u64::from(is_free && pool.is_backup(index));
        }
    }
    assert_eq!(table.pools().available(id), available);
    let (of_primary, of_secondary) = table.prefix_balance(id);
    assert_eq!((of_primary, of_secondary + table.prefixes_moving(id)), (primary, secondary));
    for (lease, binding) in held {
        let guard = table.lock(binding.client_key());
        assert_eq!(guard.bindings().filter(|b| b.lease == lease).count(), 1);
    }
    // What is pending is what can be begun, and when all is acknowledged nothing is.
    let mut sink = UpdateBatch::default();
    let mut all = Vec::new();
    (0..8).for_each(|i| table.collect(i, Collect::Pending, |_| true, &mut all));
    assert_eq!(table.pending_updates(|_| true), all.len() as u64);
    for Record { binding, stamp } in all {
        let update = table.begin_update(binding.lease, u64::MAX, true).update().unwrap();
        assert_eq!((&update.binding, update.stamp), (&binding, stamp));
        let done = table.acknowledge(binding.lease, stamp, None, T0, &mut sink);
        assert!(matches!(done, Acknowledged::Current | Acknowledged::Freed), "{done:?}");
    }
    assert_eq!(table.pending_updates(|_| true), 0);
    assert_eq!(table.prefixes_moving(id), 0);
}

#[test]
fn dense_addresses_under_stress() {
    stress(addresses("2001:db8::1", "2001:db8::28", Ownership::Primary), 1 << 10);
}

#[test]
fn sparse_addresses_under_stress() {
    stress(addresses("2001:db8::1", "2001:db8::28", Ownership::Secondary), 0);
}

#[test]
fn the_primarys_prefixes_under_stress() {
    stress(prefixes("2001:db8::", 32, 37, Ownership::Primary), 1 << 10);
}

#[test]
fn the_secondarys_prefixes_under_stress() {
    stress(prefixes("2001:db8::", 32, 37, Ownership::Secondary), 1 << 10);
}
