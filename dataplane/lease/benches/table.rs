//! How fast the lease table is, and how much memory a binding takes.
//!
//! `GEMEL_BENCH_BINDINGS` sets the number of bindings for the restore and memory figures (default
//! 1,000,000); `GEMEL_BENCH_THREADS` the number of restoring threads (default 1).

use std::{
    env, fs,
    hint::black_box,
    net::Ipv6Addr,
    process::Command,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use gemel_lease::{
    AbsoluteTime, Binding, BindingStatus, ClientDuid, ClientKey, IaKind, Lease, LeaseTable,
    Ownership, PoolConfig, PoolId, PoolRange, PoolSet, Record, TableConfig, Terms, UpdateSink,
};
use gemel_wire::IaId;

const TERMS: Terms = Terms::unlimited(3600, 7200);
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

/// What a client does to the table from SOLICIT to RELEASE.
fn exchange(table: &LeaseTable, pool: PoolId, number: u32) {
    let duid = duid(number);
    let hint = table.lock(key(&duid)).candidate(pool, None);
    let mut guard = table.lock(key(&duid));
    let binding = guard.grant(pool, hint, &TERMS, NOW, &mut Counting(0));
    let lease = binding.expect("a free lease").lease;
    drop(guard);
    assert!(table.lock(key(&duid)).release(lease, NOW, &mut Counting(0)));
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
                exchange(&table, pool, number);
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
        state_expiration_time: NOW.plus(7200 + number % 7200),
        start_time_of_state: NOW,
        ..Binding::EMPTY
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

/// Processor time that this thread has used. On a machine that does other work beside, wall time
/// says little. Exact to a timer tick.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    Duration::from_nanos(stat.split(' ').next().and_then(|n| n.parse().ok()).expect("a number"))
}

fn setting(name: &str, default: u32) -> u32 {
    env::var(name).map_or(default, |n| n.parse().expect("a number"))
}

fn rate(count: u32, time: Duration) -> String {
    format!("{:.2} M/s", f64::from(count) / time.as_secs_f64() / 1e6)
}

/// The figures that are measured once.
fn restore_and_memory(room: bool) {
    let bindings = setting("GEMEL_BENCH_BINDINGS", 1_000_000);
    let threads = setting("GEMEL_BENCH_THREADS", 1);
    let before = resident();
    let (table, time) = restore(bindings, threads, if room { bindings as usize } else { 0 });
    let octets = resident() - before;
    assert_eq!(table.len(), bindings as usize);
    let name = if room { "room made beforehand" } else { "growing" };
    println!(
        "{bindings} bindings, {name}: {:.0} octets resident each",
        octets as f64 / f64::from(bindings)
    );
    println!("  restore by {threads} thread(s): {} of wall time", rate(bindings, time));
    let measure = |what: &str, count: u32, f: &dyn Fn()| {
        let (wall, processor) = (Instant::now(), processor_time());
        f();
        let (processor, wall) = (processor_time() - processor, wall.elapsed());
        let nanos = processor.as_nanos() as f64 / f64::from(count);
        println!(
            "  {what}: {nanos:.0} ns and {} of processor time, {} of wall time",
            rate(count, processor),
            rate(count, wall)
        );
    };
    measure("restore of records that are there", bindings, &|| {
        (0..bindings).for_each(|number| table.restore(record(number)));
    });
    let rounds = 1_000_000;
    measure("extend", rounds, &|| {
        for round in 0..rounds {
            let number = round.wrapping_mul(514_229) % bindings;
            let duid = duid(number);
            let mut guard = table.lock(key(&duid));
            let lease = guard.bindings().next().expect("was restored").lease;
            assert!(guard.extend(lease, &TERMS, NOW, &mut Counting(0)).is_some());
        }
    });
    measure("solicit, request, release, sparse", rounds, &|| {
        (0..rounds).for_each(|round| exchange(&table, SPARSE, bindings + round));
    });
    measure("sweep of all", bindings, &|| {
        while table.expire(AbsoluteTime(u32::MAX - 1), 10_000, &mut Counting(0)).more {}
    });
    assert!(table.is_empty());
    for taken in [0, DENSE_LEASES / 10 * 9, DENSE_LEASES / 1000 * 999, DENSE_LEASES - 1] {
        for number in u32::try_from(table.len()).expect("as many as granted")..taken {
            grant(&table, DENSE, number);
        }
        let what = format!("solicit, request, release, dense, {taken} of {DENSE_LEASES} taken");
        measure(&what, rounds, &|| {
            (0..rounds).for_each(|round| exchange(&table, DENSE, taken + round));
        });
    }
}

/// In a process of its own, so that memory which an earlier one has freed does not count.
fn restore_and_memory_apart() {
    let own = env::current_exe().expect("Linux");
    for room in ["0", "1"] {
        let status = Command::new(&own).env("GEMEL_BENCH_ROOM", room).status();
        assert!(status.expect("runs once more").success());
    }
}

fn main() {
    if env::var_os("GEMEL_BENCH_ROOM").is_some() {
        return restore_and_memory(setting("GEMEL_BENCH_ROOM", 0) != 0);
    }
    let is_trial = env::args().any(|argument| argument == "--test" || argument == "--list");
    if !is_trial {
        restore_and_memory_apart();
    }
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    allocate(&mut criterion);
    renew(&mut criterion);
    criterion.final_summary();
}
