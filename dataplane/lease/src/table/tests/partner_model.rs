//! The partner's operations against a model: maps from leases to what is known of them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const CLIENTS: u32 = 5;
const MCLT: u32 = 20;

/// A lease that has a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Held {
    client: u32,
    status: BindingStatus,
    end: u32,
    acked: u32,
    /// `acked` as it was last stored.
    acked_stored: u32,
    partner_lifetime: u32,
    pending: bool,
    sent: bool,
    told: bool,
    stamp: u64,
}

/// A free lease of which the partner has to hear.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Update {
    status: BindingStatus,
    sent: bool,
    stamp: u64,
    reclaim: bool,
    given: bool,
}

#[derive(Clone, Debug, Default)]
struct Model {
    held: BTreeMap<Lease, Held>,
    /// Free prefixes of the secondary's.
    backup: BTreeSet<Lease>,
    updates: BTreeMap<Lease, Update>,
}

#[derive(Clone, Debug)]
enum Step {
    Grant { client: u32, pool: u16, valid: u32 },
    Extend { client: u32, which: usize, valid: u32 },
    Release { client: u32, which: usize },
    Decline { client: u32, which: usize },
    Expire { after: u32 },
    Apply { lease: u8, client: u32, status: BindingStatus },
    Begin { lease: u8, again: bool },
    Acknowledge { lease: u8, current: bool },
    RequestUpdate { lease: u8 },
    Reject { lease: u8, current: bool },
    FreeAfterWait { pool: u16 },
    Give { count: u64 },
    Reclaim { count: u64 },
    TakeOver { pool: u16, count: u64 },
}

fn pools() -> Vec<PoolConfig> {
    vec![
        addresses("2001:db8::10", "2001:db8::1f", Ownership::Primary),
        // Sparse.
        addresses("2001:db8::2:0", "2001:db8::2:3f", Ownership::Secondary),
        prefixes("2001:db8:200::", 40, 43, Ownership::Primary),
        prefixes("2001:db8:300::", 40, 43, Ownership::Secondary),
    ]
}

fn new_table() -> LeaseTable {
    let config = TableConfig { hash_key: KEY, client_stripes: 2, expected_bindings: 0 };
    LeaseTable::new(&config, PoolSet::with_dense_max(pools(), 32).unwrap())
}

fn pool_of(table: &LeaseTable, lease: Lease) -> u16 {
    table.pools().find_lease(lease).unwrap().0
}

fn kind(lease: Lease) -> IaKind {
    if lease.prefix_len == 128 { IaKind::Na } else { IaKind::Pd }
}

/// Some leases of all pools, by number.
fn lease(table: &LeaseTable, number: u8) -> Lease {
    let pool = table.pools().pool(PoolId(u16::from(number % 4)));
    pool.lease(u128::from(number / 4 % 8))
}

fn ended(status: BindingStatus) -> bool {
    matches!(status, BindingStatus::Expired | BindingStatus::Released | BindingStatus::Reset)
}

impl Model {
    fn is_mine(&self, table: &LeaseTable, lease: Lease) -> bool {
        let anycast = lease.prefix_len == 128 && lease.bits().trailing_zeros() >= 64;
        match pool_of(table, lease) {
            0 => lease.bits() & 1 == 1,
            1 => lease.bits() & 1 == 0 && !anycast,
            2 => !self.backup.contains(&lease),
            _ => self.backup.contains(&lease),
        }
    }

    /// Free leases of a pool, those that this server may give or the others.
    fn free(&self, table: &LeaseTable, pool: u16, mine: bool) -> u64 {
        let pool = table.pools().pool(PoolId(pool));
        let leases = (0..pool.size()).map(|index| pool.lease(index));
        let free = leases.filter(|l| !self.held.contains_key(l) && self.is_mine(table, *l) == mine);
        free.count() as u64
    }

    fn leases_of(&self, client: u32) -> Vec<Lease> {
        self.held.iter().filter(|(_, held)| held.client == client).map(|(l, _)| *l).collect()
    }

    fn drop_record(&mut self, lease: Lease, to_secondary: bool) {
        self.held.remove(&lease);
        self.own(lease, to_secondary);
    }

    fn own(&mut self, lease: Lease, to_secondary: bool) {
        self.updates.remove(&lease);
        self.backup.remove(&lease);
        if to_secondary && lease.prefix_len != 128 {
            self.backup.insert(lease);
        }
    }

    fn hold(&mut self, lease: Lease, held: Held) {
        self.updates.remove(&lease);
        self.backup.remove(&lease);
        self.held.insert(lease, held);
    }

    /// What a restart leaves of it.
    fn restarted(mut self) -> Self {
        for held in self.held.values_mut() {
            held.acked = held.acked_stored;
            (held.sent, held.told) = (false, true);
        }
        for update in self.updates.values_mut() {
            update.sent = false;
            if update.reclaim {
                (update.reclaim, update.given) = (false, true);
                update.status = BindingStatus::FreeBackup;
            }
        }
        self
    }
}

fn compare(table: &LeaseTable, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(table.len(), model.held.len());
    let mut pending = BTreeMap::new();
    let mut all = BTreeMap::new();
    for (lease, held) in &model.held {
        let binding = table.binding(*lease).unwrap();
        prop_assert_eq!(binding.duid.as_bytes(), client(held.client));
        prop_assert_eq!(binding.status, held.status);
        prop_assert_eq!(binding.update_pending, held.pending, "{}", lease);
        prop_assert_eq!(binding.state_expiration_time.0, held.end);
        prop_assert_eq!(binding.acked_partner_lifetime.0, held.acked);
        prop_assert_eq!(binding.partner_lifetime.0, held.partner_lifetime);
        if held.pending {
            pending.insert(*lease, (held.status, held.stamp));
        }
        all.insert(*lease, (held.status, held.stamp));
        let duid = client(held.client);
        let guard = table.lock(ClientKey { duid: &duid, kind: kind(*lease), iaid: IaId(1) });
        let again = matches!(held.status, BindingStatus::Expired | BindingStatus::Released);
        let expected = held.status == BindingStatus::Active || (again && !held.told);
        prop_assert_eq!(guard.is_extendable(*lease), expected);
    }
    for lease in &model.backup {
        prop_assert_eq!(table.status(*lease), Some(BindingStatus::FreeBackup));
        all.insert(*lease, (BindingStatus::FreeBackup, 0));
    }
    for (lease, update) in &model.updates {
        pending.insert(*lease, (update.status, update.stamp));
        all.insert(*lease, (update.status, update.stamp));
    }
    for (which, expected) in [(Collect::Pending, &pending), (Collect::All, &all)] {
        let mut out = Vec::new();
        (0..table.stripe_count()).for_each(|i| table.collect(i, which, |_| true, &mut out));
        let seen: BTreeMap<_, _> =
            out.iter().map(|r| (r.binding.lease, (r.binding.status, r.stamp))).collect();
        prop_assert_eq!(seen.len(), out.len());
        prop_assert_eq!(&seen, expected);
    }
    prop_assert_eq!(table.pending_updates(|_| true), pending.len() as u64);
    for id in table.pools().ids() {
        let in_pool = |lease: &&Lease| pool_of(table, **lease) == id.0;
        let in_use = model.held.keys().filter(in_pool).count() as u64;
        prop_assert_eq!(table.pools().in_use(id), in_use);
        prop_assert_eq!(table.pools().available(id), model.free(table, id.0, true), "{:?}", id);
        let moving =
            model.updates.iter().filter(|(l, u)| in_pool(l) && (u.given || u.reclaim)).count();
        prop_assert_eq!(table.prefixes_moving(id), moving as u64);
        let (mine, other) = (model.free(table, id.0, true), model.free(table, id.0, false));
        let balance = match id.0 {
            2 => (mine, other - moving as u64),
            3 => (other, mine),
            _ => (0, 0),
        };
        prop_assert_eq!(table.prefix_balance(id), balance);
    }
    Ok(())
}

fn stamp_of(sink: &UpdateBatch, lease: Lease) -> u64 {
    let records = sink.iter().map(Result::unwrap);
    records.filter(|r| r.binding.lease == lease).last().expect("an update").stamp
}

fn terms(valid: u32) -> Terms {
    Terms { mclt: Some(MCLT), ..Terms::unlimited(valid / 2, valid) }
}

/// An active lease whose lifetimes begin now.
fn active(client: u32, valid: u32, acked: u32, acked_stored: u32, now: u32, stamp: u64) -> Held {
    let actual = valid.min(acked.saturating_sub(now) + MCLT);
    Held {
        client,
        status: BindingStatus::Active,
        end: now + actual,
        acked,
        acked_stored,
        partner_lifetime: now + actual / 2 + valid,
        pending: true,
        sent: false,
        told: false,
        stamp,
    }
}

fn change(held: &mut Held, status: BindingStatus, end: u32, stamp: u64) {
    held.status = status;
    held.end = end;
    held.acked_stored = held.acked;
    (held.pending, held.sent, held.told) = (true, false, false);
    held.stamp = stamp;
}

struct Run<'t> {
    table: &'t LeaseTable,
    model: Model,
    now: AbsoluteTime,
    sink: UpdateBatch,
}

impl Run<'_> {
    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let (table, now) = (self.table, self.now);
        match *step {
            Step::Grant { client, pool, valid } => self.grant(client, PoolId(pool), valid)?,
            Step::Extend { client, which, valid } => {
                let Some((lease, duid)) = self.pick(client, which) else { return Ok(()) };
                let key = ClientKey { duid: &duid, kind: kind(lease), iaid: IaId(1) };
                let mut guard = table.lock(key);
                let offered = guard.lifetimes(lease, &terms(valid), now);
                let extended = guard.extend(lease, &terms(valid), now, &mut self.sink);
                let held = self.model.held.get_mut(&lease).unwrap();
                let again = matches!(held.status, BindingStatus::Expired | BindingStatus::Released);
                let expected = held.status == BindingStatus::Active || (again && !held.told);
                prop_assert_eq!(extended.is_some(), expected);
                if let Some(binding) = extended {
                    let given = (binding.preferred_lifetime, binding.valid_lifetime);
                    prop_assert_eq!(given, offered);
                    let stamp = stamp_of(&self.sink, lease);
                    // A shorter lifetime does not end a longer one.
                    let before = held.end;
                    *held = active(client, valid, held.acked, held.acked, now.0, stamp);
                    held.end = held.end.max(before);
                }
            }
            Step::Release { client, which } => {
                let Some((lease, duid)) = self.pick(client, which) else { return Ok(()) };
                let key = ClientKey { duid: &duid, kind: kind(lease), iaid: IaId(1) };
                let released = table.lock(key).release(lease, now, &mut self.sink);
                let held = self.model.held.get_mut(&lease).unwrap();
                prop_assert_eq!(released, held.status == BindingStatus::Active);
                if released {
                    change(held, BindingStatus::Released, 0, stamp_of(&self.sink, lease));
                }
            }
            Step::Decline { client, which } => {
                let Some((lease, duid)) = self.pick(client, which) else { return Ok(()) };
                let key = ClientKey { duid: &duid, kind: kind(lease), iaid: IaId(1) };
                let until = now.plus(50);
                let declined = table.lock(key).decline(lease, until, now, &mut self.sink);
                let held = self.model.held.get_mut(&lease).unwrap();
                prop_assert_eq!(declined, held.status == BindingStatus::Active);
                if declined {
                    change(held, BindingStatus::Abandoned, until.0, stamp_of(&self.sink, lease));
                }
            }
            Step::Expire { after } => {
                self.now = now.plus(after);
                table.expire(self.now, usize::MAX, &mut self.sink);
                for (lease, held) in &mut self.model.held {
                    let status = match held.status {
                        BindingStatus::Active => BindingStatus::Expired,
                        BindingStatus::Abandoned => BindingStatus::Reset,
                        _ => continue,
                    };
                    if held.end <= self.now.0 {
                        change(held, status, 0, stamp_of(&self.sink, *lease));
                    }
                }
            }
            Step::Apply { lease: number, client, status } => {
                self.apply(lease(table, number), client, status)?;
            }
            Step::Begin { lease: number, again } => self.begin(lease(table, number), again)?,
            Step::Acknowledge { lease: number, current } => {
                self.acknowledge(lease(table, number), current)?;
            }
            Step::RequestUpdate { lease: number } => {
                let lease = lease(table, number);
                let requested = table.request_update(lease, &mut self.sink);
                if let Some(held) = self.model.held.get_mut(&lease) {
                    let stamp = stamp_of(&self.sink, lease);
                    (held.pending, held.sent, held.stamp) = (true, false, stamp);
                    held.acked_stored = held.acked;
                    prop_assert!(requested);
                } else if let Some(update) = self.model.updates.get_mut(&lease) {
                    (update.sent, update.stamp) = (false, stamp_of(&self.sink, lease));
                    prop_assert!(requested);
                } else {
                    prop_assert!(!requested);
                }
            }
            Step::Reject { lease: number, current } => {
                let lease = lease(table, number);
                let stamp = self.stamp(lease) - u64::from(!current);
                table.reject(lease, stamp, &mut self.sink);
                if current && self.model.updates.get(&lease).is_some_and(|u| u.reclaim) {
                    self.model.updates.remove(&lease);
                }
            }
            Step::FreeAfterWait { pool } => {
                let pools = |id: PoolId| id.0 == pool;
                let freed: usize = (0..table.stripe_count())
                    .map(|i| table.free_after_wait(i, |_| true, pools, now, &mut self.sink))
                    .sum();
                let held = self.model.held.iter();
                let over = held.filter(|(l, h)| pool_of(table, **l) == pool && ended(h.status));
                let over: Vec<_> = over.map(|(lease, _)| *lease).collect();
                prop_assert_eq!(freed, over.len());
                for lease in over {
                    self.model.drop_record(lease, false);
                    self.update(lease, BindingStatus::Free, false, false);
                }
            }
            Step::Give { .. } | Step::Reclaim { .. } | Step::TakeOver { .. } => {
                self.balance(step)?
            }
        }
        Ok(())
    }

    fn pick(&self, client: u32, which: usize) -> Option<(Lease, [u8; 10])> {
        let leases = self.model.leases_of(client);
        let lease = leases.get(which % leases.len().max(1))?;
        Some((*lease, super::client(client)))
    }

    fn stamp(&self, lease: Lease) -> u64 {
        let held = self.model.held.get(&lease).map(|held| held.stamp);
        held.or_else(|| self.model.updates.get(&lease).map(|u| u.stamp)).unwrap_or(1)
    }

    fn update(&mut self, lease: Lease, status: BindingStatus, given: bool, reclaim: bool) {
        let stamp = stamp_of(&self.sink, lease);
        let update = Update { status, sent: false, stamp, reclaim, given };
        self.model.updates.insert(lease, update);
    }

    fn grant(&mut self, client: u32, id: PoolId, valid: u32) -> Result<(), TestCaseError> {
        let (table, duid) = (self.table, super::client(client));
        let kind = kind(table.pools().pool(id).lease(0));
        let key = ClientKey { duid: &duid, kind, iaid: IaId(1) };
        let mut guard = table.lock(key);
        let granted = guard.grant(id, None, &terms(valid), self.now, &mut self.sink);
        if let Some(lease) = granted.map(|binding| binding.lease) {
            prop_assert!(!self.model.held.contains_key(&lease));
            prop_assert!(self.model.is_mine(table, lease), "{lease}");
            let stamp = stamp_of(&self.sink, lease);
            self.model.hold(lease, active(client, valid, 0, 0, self.now.0, stamp));
        } else if id.0 != 1 {
            prop_assert_eq!(self.model.free(table, id.0, true), 0);
        }
        Ok(())
    }

    fn apply(
        &mut self,
        lease: Lease,
        client: u32,
        status: BindingStatus,
    ) -> Result<(), TestCaseError> {
        let end = if ended(status) { AbsoluteTime::ZERO } else { self.now.plus(30) };
        let new =
            Binding { state_expiration_time: end, ..record(lease, client, status, 1).binding };
        let expected = match (self.model.held.get(&lease), self.model.updates.get(&lease)) {
            (Some(held), _) => held.status,
            (None, Some(update)) => update.status,
            _ if self.model.backup.contains(&lease) => BindingStatus::FreeBackup,
            _ => BindingStatus::Free,
        };
        let mut seen = Vec::new();
        let decide = |before: &Binding| {
            seen.push(before.status);
            Verdict::Store(new.clone())
        };
        prop_assert!(self.table.apply(lease, decide, &mut self.sink));
        prop_assert_eq!(seen, [expected]);
        let stamp = stamp_of(&self.sink, lease);
        prop_assert_eq!(stamp, self.table.stamp());
        match status {
            BindingStatus::Free | BindingStatus::FreeBackup | BindingStatus::PendingFree => {
                self.model.drop_record(lease, status == BindingStatus::FreeBackup);
            }
            _ => {
                let held = Held {
                    client,
                    status,
                    end: end.0,
                    acked: 0,
                    acked_stored: 0,
                    partner_lifetime: 0,
                    pending: false,
                    sent: false,
                    told: true,
                    stamp,
                };
                self.model.hold(lease, held);
            }
        }
        Ok(())
    }

    fn begin(&mut self, lease: Lease, again: bool) -> Result<(), TestCaseError> {
        let begun = self.table.begin_update(lease, u64::MAX, again).update();
        let begun = begun.map(|record| (record.binding.status, record.stamp));
        let expected = if let Some(held) = self.model.held.get_mut(&lease) {
            (held.pending && (again || !held.sent)).then(|| {
                (held.sent, held.told) = (true, true);
                (held.status, held.stamp)
            })
        } else if let Some(update) = self.model.updates.get_mut(&lease) {
            (again || !update.sent).then(|| {
                update.sent = true;
                (update.status, update.stamp)
            })
        } else {
            None
        };
        prop_assert_eq!(begun, expected);
        Ok(())
    }

    fn acknowledge(&mut self, lease: Lease, current: bool) -> Result<(), TestCaseError> {
        let stamp = self.stamp(lease) - u64::from(!current);
        let acked = self.now.plus(100);
        let sink = &mut self.sink;
        let done = self.table.acknowledge(lease, stamp, Some(acked), self.now, sink);
        let expected = if let Some(held) = self.model.held.get_mut(&lease) {
            let raised = held.acked < acked.0;
            held.acked = held.acked.max(acked.0);
            match (current, ended(held.status)) {
                (false, _) if held.pending => Acknowledged::Changed,
                (false, _) => Acknowledged::Current,
                (true, true) => {
                    self.model.drop_record(lease, false);
                    Acknowledged::Freed
                }
                (true, false) => {
                    if held.pending || raised {
                        held.acked_stored = held.acked;
                        held.stamp = stamp_of(&self.sink, lease);
                        (held.pending, held.sent, held.partner_lifetime) = (false, false, 0);
                    }
                    Acknowledged::Current
                }
            }
        } else if let Some(update) = self.model.updates.get(&lease).copied() {
            if current {
                self.model.own(lease, update.status == BindingStatus::FreeBackup);
            }
            if current { Acknowledged::Current } else { Acknowledged::Changed }
        } else {
            Acknowledged::Unknown
        };
        prop_assert_eq!(done, expected);
        Ok(())
    }

    fn balance(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let (table, now) = (self.table, self.now);
        let mut moved = Vec::new();
        match *step {
            Step::Give { count } => {
                let most = self.model.free(table, 2, true);
                let given = table.give_prefixes(PoolId(2), count, now, &mut moved, &mut self.sink);
                prop_assert_eq!((given, moved.len() as u64), (count.min(most), given));
                for lease in moved {
                    prop_assert!(!self.model.held.contains_key(&lease));
                    prop_assert!(!self.model.backup.contains(&lease));
                    self.model.own(lease, true);
                    self.update(lease, BindingStatus::FreeBackup, true, false);
                }
            }
            Step::Reclaim { count } => {
                let settled = |lease: &&Lease| {
                    pool_of(table, **lease) == 2 && !self.model.updates.contains_key(*lease)
                };
                let most = self.model.backup.iter().filter(settled).count() as u64;
                let sink = &mut self.sink;
                let asked = table.reclaim_prefixes(PoolId(2), count, now, &mut moved, sink);
                prop_assert_eq!((asked, moved.len() as u64), (count.min(most), asked));
                for lease in moved {
                    prop_assert!(self.model.backup.contains(&lease));
                    prop_assert!(!self.model.updates.contains_key(&lease));
                    self.update(lease, BindingStatus::Free, false, true);
                }
            }
            Step::TakeOver { pool, count } => {
                let most = if pool < 2 { 0 } else { self.model.free(table, pool, false) };
                let mut sink = UpdateBatch::default();
                let taken = table.take_over_prefixes(PoolId(pool), count, now, &mut sink);
                prop_assert_eq!((taken, sink.len() as u64), (count.min(most), taken));
                for record in sink.iter().map(Result::unwrap) {
                    let Record { binding, stamp } = record;
                    self.sink.push(&binding, stamp);
                    self.model.own(binding.lease, pool == 3);
                    self.update(binding.lease, binding.status, false, false);
                }
            }
            _ => unreachable!("not a matter of the balance"),
        }
        Ok(())
    }
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..CLIENTS;
    let valid = || 1..200_u32;
    let status = prop_oneof![
        4 => Just(BindingStatus::Active),
        1 => Just(BindingStatus::Expired),
        1 => Just(BindingStatus::Released),
        1 => Just(BindingStatus::Reset),
        1 => Just(BindingStatus::Abandoned),
        1 => Just(BindingStatus::PendingFree),
        2 => Just(BindingStatus::Free),
        2 => Just(BindingStatus::FreeBackup),
    ];
    let current = || prop::bool::weighted(0.8);
    prop_oneof![
        6 => (client(), 0..4_u16, valid())
            .prop_map(|(client, pool, valid)| Step::Grant { client, pool, valid }),
        3 => (client(), any::<usize>(), valid())
            .prop_map(|(client, which, valid)| Step::Extend { client, which, valid }),
        2 => (client(), any::<usize>())
            .prop_map(|(client, which)| Step::Release { client, which }),
        1 => (client(), any::<usize>())
            .prop_map(|(client, which)| Step::Decline { client, which }),
        1 => (0..60_u32).prop_map(|after| Step::Expire { after }),
        6 => (any::<u8>(), client(), status)
            .prop_map(|(lease, client, status)| Step::Apply { lease, client, status }),
        5 => (any::<u8>(), any::<bool>()).prop_map(|(lease, again)| Step::Begin { lease, again }),
        8 => (any::<u8>(), current())
            .prop_map(|(lease, current)| Step::Acknowledge { lease, current }),
        2 => any::<u8>().prop_map(|lease| Step::RequestUpdate { lease }),
        3 => (any::<u8>(), current()).prop_map(|(lease, current)| Step::Reject { lease, current }),
        1 => (0..4_u16).prop_map(|pool| Step::FreeAfterWait { pool }),
        2 => (0..5_u64).prop_map(|count| Step::Give { count }),
        2 => (0..5_u64).prop_map(|count| Step::Reclaim { count }),
        1 => (0..4_u16, 0..5_u64).prop_map(|(pool, count)| Step::TakeOver { pool, count }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// After each step the table looks like the model; and what was pushed on the way restores to
    /// what a restart should leave of it, in any order.
    #[test]
    fn the_partners_operations_look_like_the_model(
        steps in prop::collection::vec(step(), 1..120),
        order in any::<u64>(),
    ) {
        let table = new_table();
        let (model, sink) = (Model::default(), UpdateBatch::default());
        let mut run = Run { table: &table, model, now: T0, sink };
        for step in &steps {
            run.step(step)?;
            compare(&table, &run.model)?;
        }
        let mut records: Vec<_> = run.sink.iter().map(Result::unwrap).collect();
        prop_assert!(records.windows(2).all(|pair| pair[0].stamp < pair[1].stamp));
        let mut random = order;
        for i in (1..records.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            records.swap(i, (random >> 33) as usize % (i + 1));
        }
        let again = new_table();
        records.into_iter().for_each(|record| again.restore(record));
        again.finish_restore();
        compare(&again, &run.model.restarted())?;
    }
}
