//! Sustained load on a store: how far the checkpoint falls behind, and how long opening takes after
//! a kill at that moment.
//!
//! `cargo run --release -p gemel-store --example sustained -- DIR LEASES SECONDS WORK_NS`: fills a
//! store in DIR with so many leases, then updates random ones for so long. WORK_NS is processor time
//! spent beside each update, in place of a worker: `taskset` it to one core to see both compete.
//! At the end the process leaves as if it was killed, a copy of it opens the store and tells how
//! long that took.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use gemel_lease::{
    AbsoluteTime, Binding, BindingStatus, ClientDuid, IaKind, Lease, UpdateBatch, UpdateSink as _,
};
use gemel_store::{Durability, Store, StoreConfig};
use gemel_wire::IaId;

const BATCH: u32 = 64;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize| args[index].parse::<u64>().expect("a number");
    let dir = PathBuf::from(&args[0]);
    if args.len() == 1 {
        return open_again(&dir);
    }
    if args.len() == 2 {
        return checkpoint(&dir);
    }
    let (leases, seconds, work_ns) = (number(1), number(2), number(3));
    let mut store = open(&dir);
    let mut stamp = store_stamp(&mut store);
    let spin = Spin::calibrate();
    let monitor = store.monitor();
    let begun = Instant::now();
    let mut batch = UpdateBatch::default();
    // A store that has them already.
    let mut made = if stamp > leases { leases } else { 0 };
    while made < leases {
        batch.clear();
        for _ in 0..BATCH {
            stamp += 1;
            batch.push(&binding(scatter(made)), stamp);
            made += 1;
        }
        commit(&mut store, &batch);
    }
    println!("filled {made} in {:.1} s", begun.elapsed().as_secs_f64());
    let mut random = 1_u64;
    let begun = Instant::now();
    let (mut next, mut updates, mut lag_max, mut slowest) = (1, 0_u64, 0, Duration::ZERO);
    let mut before = 0;
    while begun.elapsed() < Duration::from_secs(seconds) {
        batch.clear();
        for _ in 0..BATCH {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            stamp += 1;
            batch.push(&binding(scatter((random >> 16) % leases)), stamp);
        }
        spin.work(u64::from(BATCH) * work_ns);
        let committing = Instant::now();
        commit(&mut store, &batch);
        slowest = slowest.max(committing.elapsed());
        updates += u64::from(BATCH);
        let status = monitor.status();
        lag_max = lag_max.max(status.lag);
        if begun.elapsed() > Duration::from_secs(5 * next) {
            next += 1;
            println!(
                "{:3.0} s: {:6} updates/s, lag {} k records, {} segments, {} checkpoints of {} k \
                 records, the last {} ms, slowest commit {} ms, {} waits",
                begun.elapsed().as_secs_f64(),
                (updates - before) / 5,
                status.lag / 1000,
                status.segments_used,
                status.checkpoints,
                status.checkpoint_records / status.checkpoints.max(1) / 1000,
                status.checkpoint_last_us / 1000,
                slowest.as_millis(),
                status.lag_waits,
            );
            before = updates;
            slowest = Duration::ZERO;
        }
    }
    println!("largest lag {} k records", lag_max / 1000);
    let again = std::env::current_exe().expect("our own path");
    let error = std::os::unix::process::CommandExt::exec(Command::new(again).arg(&dir));
    panic!("{error}");
}

fn open_again(dir: &std::path::Path) {
    let begun = Instant::now();
    let mut store = open(dir);
    let opened = begun.elapsed();
    let records = store.recovery().records;
    let warm_up = store.warm_up().expect("a warm-up");
    println!(
        "opened in {} ms with {records} records in the journal, stamp {}",
        opened.as_millis(),
        warm_up.stamp_max()
    );
    // The store's threads need not end well.
    std::process::exit(0);
}

/// `DIR checkpoint`: how long it takes to write what the checkpoint lacks.
fn checkpoint(dir: &std::path::Path) {
    let mut store = open(dir);
    let records = store.recovery().records;
    let begun = Instant::now();
    store.checkpoint().expect("a checkpoint");
    println!("{records} records of the journal written in {} ms", begun.elapsed().as_millis());
}

fn open(dir: &std::path::Path) -> Store {
    Store::open(StoreConfig::new(dir, Durability::PowerLoss, [1; 32]), |_| {}).expect("a store")
}

fn store_stamp(store: &mut Store) -> u64 {
    let warm_up = store.warm_up().expect("a warm-up");
    let stamp = warm_up.stamp_max();
    store.end_warm_up(warm_up).expect("its end");
    stamp
}

fn commit(store: &mut Store, batch: &UpdateBatch) {
    // A full journal: the checkpoint is what we wait for.
    while store.append(batch.as_bytes()).is_err() {
        std::thread::sleep(Duration::from_millis(2));
    }
    store.commit().expect("a commit");
}

/// Neighbours in time are far apart in the order of addresses, as in a hashed pool.
fn scatter(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8
}

fn binding(number: u64) -> Binding {
    Binding {
        lease: Lease::address((0x2001_0db8_u128 << 96 | u128::from(number)).into()),
        kind: IaKind::Na,
        status: BindingStatus::Active,
        duid: ClientDuid::new(&[7; 14]),
        iaid: IaId(1),
        state_expiration_time: AbsoluteTime(800_000_000),
        ..Binding::EMPTY
    }
}

/// Processor time, whoever else wants the processor.
struct Spin {
    rounds_per_us: u64,
}

impl Spin {
    fn calibrate() -> Self {
        let begun = Instant::now();
        Self::rounds(10_000_000);
        let us = u64::try_from(begun.elapsed().as_micros()).expect("a short time");
        Self { rounds_per_us: 10_000_000 / us.max(1) }
    }

    fn work(&self, ns: u64) {
        Self::rounds(ns * self.rounds_per_us / 1000);
    }

    fn rounds(rounds: u64) {
        let mut state = 1_u64;
        for _ in 0..rounds {
            state = std::hint::black_box(state.wrapping_mul(3));
        }
    }
}
