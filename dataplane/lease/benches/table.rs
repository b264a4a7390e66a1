//! How fast the lease table is, and how much memory a binding takes.
//!
//! `GEMEL_BENCH_BINDINGS` sets the number of bindings for the restore and memory figures (default
//! 1,000,000); `GEMEL_BENCH_THREADS` the number of restoring threads (default 1).

use std::{
    env, fs,
    hint::black_box,
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use gemel_lease::{
    AbsoluteTime, Binding, BindingStatus, ClientDuid, ClientKey, IaKind, Lease, LeaseTable,
    Ownership, PoolConfig, PoolId, PoolRange, PoolSet, Record, TableConfig, Terms, UpdateSink,
};
use gemel_wire::IaId;

const TERMS: Terms = Terms { preferred_lifetime: 3600, valid_lifetime: 7200 };
const NOW: AbsoluteTime = AbsoluteTime(800_000_000);
const DENSE: PoolId = PoolId(0);
const SPARSE: PoolId = PoolId(1);
const DENSE_LEASES: u32 = 1 << 20;

/// Takes updates as the journal does, without keeping them.
struct Counting(u64);

impl UpdateSink for Counting {
    fn push(&mut self, binding: &Binding, stamp: u64) {
        black_box((binding, stamp));
        self.0 += 1;
    }
}

fn duid(number: u32) -> [u8; 14] {
    let mut duid = [0, 1, 0, 1, 0x2a, 0x2b, 0x2c, 0x2d, 2, 0, 0, 0, 0, 0];
    duid[10..].copy_from_slice(&number.to_be_bytes());
    duid
}

fn key(duid: &[u8]) -> ClientKey<'_> {
    ClientKey { duid, kind: IaKind::Na, iaid: IaId(1) }
}

fn table(expected_bindings: usize) -> LeaseTable {
    let first = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, 0);
    let dense = PoolRange::Addresses {
        first,
        last: Ipv6Addr::from_bits(first.to_bits() + u128::from(DENSE_LEASES) - 1),
    };
    let sparse = PoolRange::Addresses {
        first: Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0),
        last: Ipv6Addr::new(0x2001, 0xdb8, 0, 1, u16::MAX, u16::MAX, u16::MAX, u16::MAX),
    };
    let pools = [dense, sparse].map(|range| PoolConfig { range, ownership: Ownership::Sole });
    let config =
        TableConfig { hash_key: *b"bench, no secret", expected_bindings, ..TableConfig::default() };
    LeaseTable::new(&config, PoolSet::new(pools.to_vec()).expect("good pools"))
}

fn grant(table: &LeaseTable, pool: PoolId, number: u32) -> Lease {
    let duid = duid(number);
    let mut guard = table.lock(key(&duid));
    let granted = guard.grant(pool, None, &TERMS, NOW, &mut Counting(0));
    granted.expect("a free lease").lease
}

/// Grants with so much of a pool taken. Each round grants and releases, so that the pool stays as
/// full as it is.
fn allocate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("solicit, request, release");
    group.throughput(Throughput::Elements(1));
    for (name, pool, taken) in [
        ("dense, empty", DENSE, 0),
        ("dense, 90 % taken", DENSE, DENSE_LEASES / 10 * 9),
        ("dense, 99.9 % taken", DENSE, DENSE_LEASES / 1000 * 999),
        ("dense, all but one taken", DENSE, DENSE_LEASES - 1),
        ("sparse, a million taken", SPARSE, 1_000_000),
    ] {
        let table = table(DENSE_LEASES as usize);
        (0..taken).for_each(|number| _ = grant(&table, pool, number));
        let mut number = taken;
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                number += 1;
                let duid = duid(number);
                let hint = table.lock(key(&duid)).candidate(pool, None);
                let mut guard = table.lock(key(&duid));
                let binding = guard.grant(pool, hint, &TERMS, NOW, &mut Counting(0));
                let lease = binding.expect("a free lease").lease;
                drop(guard);
                assert!(table.lock(key(&duid)).release(lease, NOW, &mut Counting(0)));
            });
        });
    }
    group.finish();
}

fn renew(criterion: &mut Criterion) {
    const CLIENTS: u32 = 1_000_000;
    let table = table(CLIENTS as usize);
    let leases: Vec<_> = (0..CLIENTS).map(|number| grant(&table, SPARSE, number)).collect();
    let mut group = criterion.benchmark_group("a million bindings");
    group.throughput(Throughput::Elements(1));
    let mut at = 0_u32;
    group.bench_function("extend", |bencher| {
        bencher.iter(|| {
            at = (at + 514_229) % CLIENTS;
            let duid = duid(at);
            let mut guard = table.lock(key(&duid));
            let extended = guard.extend(leases[at as usize], &TERMS, NOW, &mut Counting(0));
            assert!(extended.is_some());
        });
    });
    group.bench_function("binding of a lease", |bencher| {
        bencher.iter(|| {
            at = (at + 514_229) % CLIENTS;
            table.binding(leases[at as usize]).expect("was granted")
        });
    });
    group.bench_function("sweep with nothing due", |bencher| {
        bencher.iter(|| table.expire(NOW, 1000, &mut Counting(0)));
    });
    group.finish();
}

fn record(number: u32) -> Record {
    // Spread over the /64, so that nothing is sequential.
    let identifier = (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let network = u128::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0));
    let address = Ipv6Addr::from_bits(network | u128::from(identifier));
    let binding = Binding {
        lease: Lease::address(address),
        kind: IaKind::Na,
        status: BindingStatus::Active,
        duid: ClientDuid::new(&duid(number)),
        iaid: IaId(1),
        preferred_lifetime: 3600,
        valid_lifetime: 7200,
        client_last_transaction_time: NOW,
        expiration_time: NOW.plus(7200 + number % 7200),
        start_time_of_state: NOW,
        state_expiration_time: AbsoluteTime::ZERO,
        partner_lifetime: AbsoluteTime::ZERO,
        acked_partner_lifetime: AbsoluteTime::ZERO,
        partner_raw_clt_time: AbsoluteTime::ZERO,
    };
    Record { binding, stamp: u64::from(number) + 1 }
}

fn restore(bindings: u32, threads: u32, expected: usize) -> (LeaseTable, Duration) {
    let table = table(expected);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let table = &table;
            let from = u64::from(bindings) * u64::from(thread) / u64::from(threads);
            let to = u64::from(bindings) * u64::from(thread + 1) / u64::from(threads);
            scope.spawn(move || {
                let number = |n| u32::try_from(n).expect("at most the number of bindings");
                (from..to).for_each(|n| table.restore(record(number(n))));
            });
        }
    });
    table.finish_restore();
    (table, start.elapsed())
}

/// Resident memory of this process in octets.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number");
    pages * 4096
}

fn restore_and_memory() {
    let setting = |name, default| {
        env::var(name).map_or(default, |n| n.parse().expect("a number of bindings or threads"))
    };
    let bindings = setting("GEMEL_BENCH_BINDINGS", 1_000_000);
    let threads = setting("GEMEL_BENCH_THREADS", 1);
    for (name, expected) in [("room made beforehand", bindings as usize), ("growing", 0)] {
        let before = resident();
        let (table, time) = restore(bindings, threads, expected);
        let octets = resident() - before;
        assert_eq!(table.len(), bindings as usize);
        println!(
            "restore, {name}: {bindings} bindings in {:.2} s by {threads} thread(s), {:.2} M/s; \
             {:.0} octets resident per binding",
            time.as_secs_f64(),
            f64::from(bindings) / time.as_secs_f64() / 1e6,
            octets as f64 / f64::from(bindings),
        );
        let start = Instant::now();
        let mut ended = 0;
        loop {
            let sweep = table.expire(AbsoluteTime(u32::MAX - 1), 10_000, &mut Counting(0));
            ended += sweep.ended;
            if !sweep.more {
                break;
            }
        }
        println!(
            "  sweep of all: {:.2} M/s",
            f64::from(u32::try_from(ended).expect("as many as restored"))
                / start.elapsed().as_secs_f64()
                / 1e6
        );
        assert!(table.is_empty());
    }
}

fn main() {
    let is_trial = env::args().any(|argument| argument == "--test" || argument == "--list");
    if !is_trial {
        restore_and_memory();
    }
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    allocate(&mut criterion);
    renew(&mut criterion);
    criterion.final_summary();
}
