//! The table against a model that anybody can see through: a map from lease to its binding.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What the model knows of a lease that has a binding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Held {
    client: u32,
    kind: IaKind,
    status: BindingStatus,
    /// Of the valid lifetime or of the quarantine; 0 when that is over.
    end: u32,
}

#[derive(Clone, Debug)]
enum Step {
    Grant {
        client: u32,
        pool: u16,
        hint: u8,
        valid: u32,
    },
    Extend {
        client: u32,
        which: usize,
        valid: u32,
    },
    Release {
        client: u32,
        which: usize,
    },
    Decline {
        client: u32,
        which: usize,
        quarantine: u32,
    },
    /// Time goes on, and everything due is swept.
    Expire {
        after: u32,
        limit: usize,
    },
    Give {
        number: u8,
    },
    Take {
        number: u8,
    },
    MarkUnstored {
        client: u32,
        which: usize,
    },
}

const CLIENTS: u32 = 6;

fn pools() -> Vec<PoolConfig> {
    vec![
        // Dense with limit 32: 8 addresses, one of them reserved; a pair's 16.
        addresses("2001:db8::", "2001:db8::7", Ownership::Sole),
        addresses("2001:db8::10", "2001:db8::1f", Ownership::Primary),
        // Sparse.
        addresses("2001:db8::1:0", "2001:db8::1:3f", Ownership::Sole),
        addresses("2001:db8::2:0", "2001:db8::2:3f", Ownership::Secondary),
        // Prefixes of a single server and of both of a pair.
        prefixes("2001:db8:100::", 40, 44, Ownership::Sole),
        prefixes("2001:db8:200::", 40, 43, Ownership::Primary),
        prefixes("2001:db8:300::", 40, 43, Ownership::Secondary),
    ]
}

fn new_table() -> LeaseTable {
    let config = TableConfig { hash_key: KEY, client_stripes: 2, expected_bindings: 0 };
    LeaseTable::new(&config, PoolSet::with_dense_max(pools(), 32).unwrap())
}

fn kind(pool: u16) -> IaKind {
    if pool < 4 { IaKind::Na } else { IaKind::Pd }
}

/// The lease number `number` of a pool, wrapping around.
fn lease(table: &LeaseTable, pool: u16, number: u8) -> Lease {
    let pool = table.pools().pool(PoolId(pool));
    pool.lease(pool.place(u128::from(number) << 120))
}

/// Whose every lease of the pair's prefix pools is, and every binding.
#[derive(Default)]
struct Model {
    held: BTreeMap<Lease, Held>,
    backup: BTreeMap<Lease, bool>,
}

impl Model {
    /// Whether the lease may be given to anybody.
    fn is_available(&self, table: &LeaseTable, pool: u16, lease: Lease) -> bool {
        let odd = lease.bits() & 1 == 1;
        let own = match pool {
            1 => odd,
            3 => !odd,
            5 => !self.backup.get(&lease).unwrap_or(&false),
            6 => *self.backup.get(&lease).unwrap_or(&false),
            _ => true,
        };
        let anycast = kind(pool) == IaKind::Na && lease.bits().trailing_zeros() >= 64;
        let inside = table.pools().find(lease, kind(pool)) == Some(PoolId(pool));
        inside && own && !anycast && !self.held.contains_key(&lease)
    }

    fn available(&self, table: &LeaseTable, pool: u16) -> u64 {
        let size = match pool {
            0 => 8,
            1 | 4 => 16,
            5 | 6 => 8,
            _ => 64,
        };
        let pool_ref = table.pools().pool(PoolId(pool));
        (0..size).filter(|i| self.is_available(table, pool, pool_ref.lease(*i))).count() as u64
    }

    fn leases_of(&self, client: u32) -> Vec<Lease> {
        self.held.iter().filter(|(_, held)| held.client == client).map(|(l, _)| *l).collect()
    }

    fn free(&mut self, lease: Lease) {
        self.held.remove(&lease);
        self.backup.insert(lease, false);
    }
}

fn is_sole(table: &LeaseTable, lease: Lease) -> bool {
    let id = table.pools().find_lease(lease).unwrap();
    table.pools().config(id).ownership == Ownership::Sole
}

/// Compares everything that can be seen from outside.
fn compare(table: &LeaseTable, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(table.len(), model.held.len());
    prop_assert_eq!(table.counts().total(), model.held.len() as u64);
    let mut seen = BTreeMap::new();
    table.for_each(|binding| {
        let mut number = [0; 4];
        number.copy_from_slice(&binding.duid.as_bytes()[6..]);
        let end = binding.state_expiration_time;
        let held = Held {
            client: u32::from_be_bytes(number),
            kind: binding.kind,
            status: binding.status,
            end: end.0,
        };
        assert!(seen.insert(binding.lease, held).is_none(), "{} twice", binding.lease);
    });
    prop_assert_eq!(&seen, &model.held);
    for (lease, held) in &model.held {
        prop_assert_eq!(table.status(*lease), Some(held.status));
        prop_assert_eq!(&table.binding(*lease).unwrap().lease, lease);
    }
    for id in table.pools().ids() {
        let in_use = model.held.keys().filter(|l| table.pools().find_lease(**l) == Some(id));
        prop_assert_eq!(table.pools().in_use(id), in_use.count() as u64);
        prop_assert_eq!(table.pools().available(id), model.available(table, id.0), "{:?}", id);
    }
    for client in 0..CLIENTS {
        for kind in [IaKind::Na, IaKind::Pd] {
            let duid = super::client(client);
            let guard = table.lock(ClientKey { duid: &duid, kind, iaid: IaId(1) });
            let mut leases: Vec<_> = guard.bindings().map(|b| b.lease).collect();
            leases.sort_unstable();
            let mut expected = model.leases_of(client);
            expected.retain(|lease| model.held[lease].kind == kind);
            prop_assert_eq!(leases, expected);
        }
    }
    Ok(())
}

fn run(table: &LeaseTable, steps: &[Step], sink: &mut UpdateBatch) -> Result<Model, TestCaseError> {
    let mut model = Model::default();
    let mut now = T0;
    for step in steps {
        match *step {
            Step::Grant { client, pool, hint, valid } => {
                let duid = super::client(client);
                let mut guard =
                    table.lock(ClientKey { duid: &duid, kind: kind(pool), iaid: IaId(1) });
                let hint = (hint > 99).then(|| lease(table, pool, hint));
                let candidate = guard.candidate(PoolId(pool), hint);
                let terms = Terms::unlimited(valid / 2, valid);
                let granted = guard.grant(PoolId(pool), hint, &terms, now, sink);
                let granted = granted.map(|binding| binding.lease);
                prop_assert_eq!(granted, candidate);
                if let Some(granted) = granted {
                    prop_assert!(model.is_available(table, pool, granted), "{granted}");
                    if let Some(hint) = hint.filter(|h| model.is_available(table, pool, *h)) {
                        prop_assert_eq!(granted, hint);
                    }
                    let status = BindingStatus::Active;
                    let end = now.plus(valid).0;
                    model.held.insert(granted, Held { client, kind: kind(pool), status, end });
                } else if pool != 2 && pool != 3 {
                    prop_assert_eq!(model.available(table, pool), 0);
                }
            }
            Step::Extend { client, which, valid } => {
                let leases = model.leases_of(client);
                let Some(lease) = leases.get(which % leases.len().max(1)) else { continue };
                let held = model.held.get_mut(lease).unwrap();
                let duid = super::client(client);
                let mut guard =
                    table.lock(ClientKey { duid: &duid, kind: held.kind, iaid: IaId(1) });
                let terms = Terms::unlimited(valid / 2, valid);
                let extended = guard.extend(*lease, &terms, now, sink).is_some();
                // What ended stays the client's as long as the partner has not heard of it.
                let is_over =
                    matches!(held.status, BindingStatus::Abandoned | BindingStatus::Reset);
                prop_assert_eq!(extended, !is_over);
                if extended {
                    held.status = BindingStatus::Active;
                    // In a pair a shorter lifetime does not end a longer one.
                    let before = if is_sole(table, *lease) { 0 } else { held.end };
                    held.end = now.plus(valid).0.max(before);
                }
            }
            Step::Release { client, which } => {
                let leases = model.leases_of(client);
                let Some(lease) = leases.get(which % leases.len().max(1)) else { continue };
                let held = model.held.get_mut(lease).unwrap();
                let duid = super::client(client);
                let mut guard =
                    table.lock(ClientKey { duid: &duid, kind: held.kind, iaid: IaId(1) });
                let released = guard.release(*lease, now, sink);
                prop_assert_eq!(released, held.status == BindingStatus::Active);
                if released {
                    held.status = BindingStatus::Released;
                    held.end = 0;
                    if is_sole(table, *lease) {
                        model.free(*lease);
                    }
                }
            }
            Step::Decline { client, which, quarantine } => {
                let leases = model.leases_of(client);
                let Some(lease) = leases.get(which % leases.len().max(1)) else { continue };
                let held = model.held.get_mut(lease).unwrap();
                let duid = super::client(client);
                let mut guard =
                    table.lock(ClientKey { duid: &duid, kind: held.kind, iaid: IaId(1) });
                let until = now.plus(quarantine);
                let declined = guard.decline(*lease, until, now, sink);
                prop_assert_eq!(declined, held.status == BindingStatus::Active);
                if declined {
                    held.status = BindingStatus::Abandoned;
                    held.end = until.0;
                }
            }
            Step::Expire { after, limit } => {
                now = now.plus(after);
                let mut ended = 0;
                // Each sweep makes progress, so this ends.
                loop {
                    let sweep = table.expire(now, limit, sink);
                    ended += sweep.ended;
                    if !sweep.more {
                        break;
                    }
                }
                let due: Vec<_> = model
                    .held
                    .iter()
                    .filter(|(_, held)| held.end <= now.0)
                    .filter(|(_, held)| {
                        matches!(held.status, BindingStatus::Active | BindingStatus::Abandoned)
                    })
                    .map(|(lease, _)| *lease)
                    .collect();
                prop_assert_eq!(ended, due.len());
                for lease in due {
                    if is_sole(table, lease) {
                        model.free(lease);
                        continue;
                    }
                    let held = model.held.get_mut(&lease).unwrap();
                    let abandoned = held.status == BindingStatus::Abandoned;
                    held.status =
                        if abandoned { BindingStatus::Reset } else { BindingStatus::Expired };
                    held.end = 0;
                }
            }
            Step::Give { number } | Step::Take { number } => {
                let pool = 5 + u16::from(number % 2);
                let lease = lease(table, pool, number);
                let to_secondary = matches!(step, Step::Give { .. });
                let done =
                    if to_secondary { give(table, lease, sink) } else { take(table, lease, sink) };
                prop_assert_eq!(done, !model.held.contains_key(&lease));
                if done {
                    model.backup.insert(lease, to_secondary);
                    let status =
                        if to_secondary { BindingStatus::FreeBackup } else { BindingStatus::Free };
                    prop_assert_eq!(table.status(lease), Some(status));
                }
            }
            Step::MarkUnstored { client, which } => {
                let leases = model.leases_of(client);
                let Some(lease) = leases.get(which % leases.len().max(1)) else { continue };
                table.mark_unstored(*lease);
                let mut unstored = UpdateBatch::default();
                table.push_unstored(&mut unstored);
                let again = unstored.iter().map(Result::unwrap).map(|r| r.binding);
                prop_assert_eq!(again.collect::<Vec<_>>(), [table.binding(*lease).unwrap()]);
                table.clear_unstored();
            }
        }
        compare(table, &model)?;
    }
    Ok(model)
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    let valid = prop_oneof![8 => 1..200_u32, 1 => Just(u32::MAX), 1 => Just(0)];
    prop_oneof![
        8 => (client.clone(), 0..7_u16, any::<u8>(), valid.clone())
            .prop_map(|(client, pool, hint, valid)| Step::Grant { client, pool, hint, valid }),
        4 => (client.clone(), any::<usize>(), valid)
            .prop_map(|(client, which, valid)| Step::Extend { client, which, valid }),
        2 => (client.clone(), any::<usize>())
            .prop_map(|(client, which)| Step::Release { client, which }),
        1 => (client.clone(), any::<usize>(), 1..300_u32).prop_map(
            |(client, which, quarantine)| Step::Decline { client, which, quarantine }
        ),
        2 => (0..100_u32, 1..20_usize).prop_map(|(after, limit)| Step::Expire { after, limit }),
        2 => any::<u8>().prop_map(|number| Step::Give { number }),
        1 => any::<u8>().prop_map(|number| Step::Take { number }),
        1 => (client, any::<usize>())
            .prop_map(|(client, which)| Step::MarkUnstored { client, which }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// After each step the table looks like the model; and what was pushed on the way restores to
    /// the same, in any order, with any records repeated, by one thread or several.
    #[test]
    fn looks_like_the_model_and_survives_any_restore(
        steps in prop::collection::vec(step(), 1..120),
        order in any::<u64>(),
    ) {
        let table = new_table();
        let mut sink = UpdateBatch::default();
        let model = run(&table, &steps, &mut sink)?;

        let mut records: Vec<_> = sink.iter().map(Result::unwrap).collect();
        prop_assert!(records.windows(2).all(|pair| pair[0].stamp < pair[1].stamp));
        let repeated = records.iter().step_by(3).cloned().collect::<Vec<_>>();
        records.extend(repeated);
        let mut random = order;
        for i in (1..records.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            records.swap(i, (random >> 33) as usize % (i + 1));
        }

        let alone = new_table();
        records.iter().for_each(|record| alone.restore(record.clone()));
        alone.finish_restore();
        compare(&alone, &model)?;
        prop_assert_eq!(alone.stamp(), table.stamp());

        let together = new_table();
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (together, records) = (&together, &records);
                let own = records.iter().skip(thread).step_by(3);
                scope.spawn(move || own.for_each(|record| together.restore(record.clone())));
            }
        });
        together.finish_restore();
        compare(&together, &model)?;

        // The restored table is not only alike, it goes on.
        let mut end = UpdateBatch::default();
        while alone.expire(AbsoluteTime(u32::MAX - 1), 50, &mut end).more {}
        let immortal = |held: &Held| held.end == u32::MAX;
        for (lease, held) in &model.held {
            let gone = is_sole(&alone, *lease) && !immortal(held);
            prop_assert_eq!(alone.binding(*lease).is_none(), gone);
        }
    }
}
