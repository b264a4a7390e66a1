//! The store on a real file system.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use gemel_lease::{
    AbsoluteTime, Binding, BindingStatus, ClientDuid, IaKind, Lease, Record, UpdateBatch,
    UpdateSink,
};
use gemel_store::{Durability, Reader, Store, StoreConfig, StoreError};
use gemel_wire::IaId;

fn binding(number: u32, status: BindingStatus) -> Binding {
    Binding {
        lease: Lease::address((0x2001_0db8_u128 << 96 | u128::from(number)).into()),
        kind: IaKind::Na,
        status,
        duid: ClientDuid::new(&number.to_be_bytes()),
        iaid: IaId(number),
        preferred_lifetime: 1,
        valid_lifetime: 2,
        client_last_transaction_time: AbsoluteTime(3),
        expiration_time: AbsoluteTime(4),
        start_time_of_state: AbsoluteTime(5),
        state_expiration_time: AbsoluteTime(6),
        partner_lifetime: AbsoluteTime(7),
        acked_partner_lifetime: AbsoluteTime(8),
        partner_raw_clt_time: AbsoluteTime(9),
        update_pending: false,
    }
}

fn batch(numbers: impl IntoIterator<Item = u32>, stamp: u64) -> UpdateBatch {
    let mut batch = UpdateBatch::default();
    for number in numbers {
        batch.push(&binding(number, BindingStatus::Active), stamp);
    }
    batch
}

fn config(dir: &Path) -> StoreConfig {
    StoreConfig {
        segment_len: 64 << 10,
        segments_max: 8,
        map_len: 1 << 20,
        tombstone_age: Duration::ZERO,
        ..StoreConfig::new(dir, Durability::PowerLoss, [5; 32])
    }
}

fn open(config: StoreConfig) -> Store {
    Store::open(config, |_| {}).unwrap()
}

fn restore(store: &mut Store) -> BTreeMap<Lease, Record> {
    let mut records = Vec::new();
    let restored = store.restore(|record| records.push(record), |_| {}).unwrap();
    assert_eq!(restored.bad_count, 0);
    assert_eq!(restored.records, records.len() as u64);
    assert!(records.windows(2).all(|w| w[0].binding.lease < w[1].binding.lease), "in order");
    records.into_iter().map(|record| (record.binding.lease, record)).collect()
}

#[test]
fn everything_is_there_again_with_and_without_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut stamp = 0;
    for round in 0..12_u32 {
        let mut store = open(config(dir.path()));
        assert_eq!(store.recovery().created, round == 0);
        let back = restore(&mut store);
        assert_eq!(back.len(), round as usize * 100, "round {round}");
        assert!(back.values().all(|r| r.stamp <= stamp));
        for worker in 0..10 {
            stamp += 1;
            let first = round * 100 + worker * 10;
            store.append(batch(first..first + 10, stamp).as_bytes()).unwrap();
        }
        let sequence = store.commit().unwrap();
        assert_eq!(sequence, store.durable());
        assert_eq!(store.commit().unwrap(), sequence, "nothing to commit");
        if round % 3 == 0 {
            store.checkpoint().unwrap();
            assert_eq!(store.monitor().status().checkpoint, sequence);
        }
    }
}

#[test]
fn identity_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(config(dir.path()));
    assert_eq!((store.id(), store.hash_key(), store.server_duid()), ([5; 16], [5; 16], None));
    store.set_server_duid(&[0, 4, 1, 2]).unwrap();
    drop(store);
    let store = open(StoreConfig { seed: [6; 32], ..config(dir.path()) });
    assert_eq!((store.id(), store.hash_key()), ([5; 16], [5; 16]));
    assert_eq!(store.server_duid(), Some(&[0, 4, 1, 2][..]));
    assert!(matches!(Store::open(config(dir.path()), |_| {}), Err(StoreError::InUse { .. })));
    assert!(matches!(Reader::open(dir.path()), Err(StoreError::InUse { .. })));
}

#[test]
fn a_journal_longer_than_its_bound_passes_through_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(config(dir.path()));
    let mut full = 0;
    // About 100 KiB each, so most appends are split over segments; 10 MiB through 512 KiB.
    for stamp in 1..=100_u64 {
        let updates = batch(0..1000, stamp);
        loop {
            match store.append(updates.as_bytes()).and_then(|_| store.commit()) {
                Ok(_) => break,
                Err(StoreError::JournalFull { segments, checkpoint }) => {
                    assert_eq!((segments, checkpoint), (8, None));
                    full += 1;
                    store.commit().unwrap();
                    store.checkpoint().unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(store.monitor().status().segments <= 8);
    drop(store);
    let back = restore(&mut open(config(dir.path())));
    assert_eq!(back.len(), 1000);
    assert!(back.values().all(|record| record.stamp == 100), "after {full} times full");
}

#[test]
fn what_a_restart_replays_is_bounded_under_a_load_without_pause() {
    let dir = tempfile::tempdir().unwrap();
    let config = || StoreConfig {
        checkpoint_leases: 500,
        checkpoint_interval: Duration::from_secs(3600),
        segment_len: 1 << 20,
        segments_max: 16,
        ..config(dir.path())
    };
    let mut store = open(config());
    let monitor = store.monitor();
    let mut stamp = 0;
    for round in 0..600_u32 {
        stamp += 1;
        // Others in each round, and one lease over and over: its records count, too.
        let first = round * 50 % 3000;
        let numbers = (first..first + 49).chain([7]);
        store.append(batch(numbers, stamp).as_bytes()).unwrap();
        store.commit().unwrap();
        let lag = monitor.status().lag;
        assert!(lag <= 3 * 500 + 50, "{lag} records behind in round {round}");
    }
    let before = monitor.status();
    assert!(before.checkpoints > 10, "{before:?}");
    drop(store);
    let mut store = open(config());
    assert!(store.recovery().records <= before.lag);
    assert_eq!(store.monitor().status().lag, store.recovery().records);
    let found = restore(&mut store);
    assert_eq!(found.len(), 60 * 49);
    assert_eq!(found[&binding(7, BindingStatus::Active).lease].stamp, stamp);
}

#[test]
fn tombstones_outlast_a_checkpoint_and_then_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(config(dir.path()));
    let put = |store: &mut Store, number, status, stamp| {
        let mut batch = UpdateBatch::default();
        batch.push(&binding(number, status), stamp);
        store.append(batch.as_bytes()).unwrap();
        store.commit().unwrap();
        store.checkpoint().unwrap();
    };
    put(&mut store, 1, BindingStatus::Active, 1);
    put(&mut store, 1, BindingStatus::Free, 3);
    // A worker that was late.
    put(&mut store, 1, BindingStatus::Active, 2);
    put(&mut store, 2, BindingStatus::Active, 4);
    drop(store);
    let mut store = open(config(dir.path()));
    let mut numbers = Vec::new();
    let restored = store.restore(|record| numbers.push(record.binding.iaid.0), |_| {}).unwrap();
    assert_eq!(numbers, [2]);
    assert_eq!(restored.stamp_max, 4);
    // One that a restart finds goes, too.
    put(&mut store, 2, BindingStatus::Free, 5);
    drop(store);
    let mut store = open(config(dir.path()));
    let back = restore(&mut store);
    assert_eq!(back.values().map(|r| r.binding.status).collect::<Vec<_>>(), [BindingStatus::Free]);
    put(&mut store, 3, BindingStatus::Active, 6);
    drop(store);
    assert_eq!(restore(&mut open(config(dir.path()))).len(), 1);
}

#[test]
fn damage_in_the_middle_is_refused_and_at_the_end_is_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(config(dir.path()));
    for stamp in 1..=5 {
        store.append(batch([u32::try_from(stamp).unwrap()], stamp).as_bytes()).unwrap();
        store.commit().unwrap();
    }
    drop(store);
    let segment = dir.path().join("journal/00000000.seg");
    let file = fs::OpenOptions::new().read(true).write(true).open(&segment).unwrap();
    let flip = |sector: u64| {
        let mut octet = [0];
        file.read_exact_at(&mut octet, sector * 512 + 60).unwrap();
        file.write_all_at(&[octet[0] ^ 1], sector * 512 + 60).unwrap();
    };
    // Sequence 2 stands in sector 2.
    flip(2);
    let error = Store::open(config(dir.path()), |_| {}).unwrap_err();
    assert!(matches!(error, StoreError::Hole { missing_first: 2, missing_last: 2, .. }), "{error}");
    let mut store = open(StoreConfig { accept_loss: true, ..config(dir.path()) });
    assert_eq!(store.recovery().lost, 1);
    assert_eq!(restore(&mut store).len(), 4);
    store.append(batch([6], 6).as_bytes()).unwrap();
    store.commit().unwrap();
    drop(store);
    assert_eq!(restore(&mut open(config(dir.path()))).len(), 5, "the gap is not found again");

    // The last one of the second run, in a segment of its own, may have been torn.
    let newest = dir.path().join("journal/00000001.seg");
    let file = fs::OpenOptions::new().write(true).open(newest).unwrap();
    file.write_all_at(&[0; 512], 512).unwrap();
    assert_eq!(restore(&mut open(config(dir.path()))).len(), 4);
}

#[test]
fn a_segment_of_another_store_is_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (dir, seed) in [(&one, [1; 32]), (&two, [2; 32])] {
        let mut store = open(StoreConfig { seed, ..config(dir.path()) });
        store.append(batch([1], 1).as_bytes()).unwrap();
        store.commit().unwrap();
    }
    let name = "journal/00000000.seg";
    fs::copy(one.path().join(name), two.path().join(name)).unwrap();
    let error = Store::open(config(two.path()), |_| {}).unwrap_err();
    assert!(error.to_string().contains("another store"), "{error}");
}

#[test]
fn octets_that_are_no_records_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(config(dir.path()));
    for octets in [&[1_u8][..], &[5, 0, 1], &[0xff, 0xff, 0]] {
        assert!(matches!(store.append(octets), Err(StoreError::NotRecords(_))));
    }
    assert_eq!(store.commit().unwrap(), 0);
    store.retry().unwrap();
    assert_eq!(store.durable(), 1);
}

/// Runs itself as another process, which reads while this one writes.
#[test]
fn a_reader_beside_a_running_writer_sees_every_lease_that_was_there_before() {
    const DIR: &str = "GEMEL_STORE_READ";
    if let Some(dir) = std::env::var_os(DIR) {
        let mut rounds = 0;
        while rounds < 20 || !Path::new(&dir).join("stop").exists() {
            rounds += 1;
            let mut reader = Reader::open(Path::new(&dir)).unwrap();
            let mut numbers = Vec::new();
            let read = reader
                .for_each(|record| {
                    numbers.push(record.binding.iaid.0);
                    true
                })
                .unwrap();
            assert_eq!(read.bad_count, 0);
            assert!(numbers.windows(2).all(|w| w[0] < w[1]));
            assert_eq!(numbers.iter().filter(|&&number| number < 3000).count(), 3000);
            assert_eq!(reader.server_duid(), Some(&[1, 2, 3][..]));
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(StoreConfig {
        checkpoint_interval: Duration::from_millis(5),
        checkpoint_leases: 500,
        ..config(dir.path())
    });
    store.set_server_duid(&[1, 2, 3]).unwrap();
    let mut stamp = 1;
    let mut write = |store: &mut Store, numbers: std::ops::Range<u32>| {
        stamp += 1;
        while let Err(error) = store.append(batch(numbers.clone(), stamp).as_bytes()) {
            assert!(matches!(error, StoreError::JournalFull { .. }), "{error}");
            store.commit().unwrap();
            store.checkpoint().unwrap();
        }
        store.commit().unwrap();
    };
    for first in (0..3000).step_by(300) {
        write(&mut store, first..first + 300);
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let output = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["a_reader_beside", "--nocapture"])
                .env(DIR, dir.path())
                .output()
                .unwrap();
            done.store(true, Ordering::Relaxed);
            output
        });
        let mut first = 0;
        while !done.load(Ordering::Relaxed) {
            write(&mut store, first..first + 100);
            first = (first + 100) % 6000;
            if store.monitor().status().checkpoints >= 10 && !dir.path().join("stop").exists() {
                fs::write(dir.path().join("stop"), []).unwrap();
            }
        }
        let output = reading.join().unwrap();
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    });
}

/// What is found of a lease during a warm-up: its status and stamp.
fn recall(recall: &gemel_store::Recall, number: u32) -> Option<(BindingStatus, u64)> {
    let mut found = None;
    let lease = binding(number, BindingStatus::Active).lease;
    let any = recall
        .find(lease, |record| {
            assert_eq!(record.binding.lease, lease);
            found = Some((record.binding.status, record.stamp));
        })
        .unwrap();
    assert_eq!(any, found.is_some());
    found
}

fn put(store: &mut Store, number: u32, status: BindingStatus, stamp: u64) {
    let mut batch = UpdateBatch::default();
    batch.push(&binding(number, status), stamp);
    store.append(batch.as_bytes()).unwrap();
    store.commit().unwrap();
}

#[test]
fn single_bindings_are_recalled_as_they_were_stored_last() {
    use BindingStatus::{Active, Free, Released};
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(config(dir.path()));
    for number in 1..=4 {
        put(&mut store, number, Active, number.into());
    }
    put(&mut store, 5, Active, 20);
    store.checkpoint().unwrap();
    // In the journal alone: newer, a tombstone, older than the checkpoint, and not there at all.
    put(&mut store, 2, Released, 12);
    put(&mut store, 3, Free, 13);
    put(&mut store, 5, Free, 5);
    put(&mut store, 6, Active, 16);
    drop(store);

    let mut store = open(config(dir.path()));
    let warm_up = store.warm_up().unwrap();
    let found = warm_up.recall();
    assert_eq!(warm_up.stamp_max(), 20);
    assert_eq!(recall(&found, 1), Some((Active, 1)));
    assert_eq!(recall(&found, 2), Some((Released, 12)));
    assert_eq!(recall(&found, 3), Some((Free, 13)));
    assert_eq!(recall(&found, 4), Some((Active, 4)));
    assert_eq!(recall(&found, 5), Some((Active, 20)));
    assert_eq!(recall(&found, 6), Some((Active, 16)));
    assert_eq!(recall(&found, 7), None);
    store.end_warm_up(warm_up).unwrap();
    assert_eq!(recall(&found, 1), None, "a full table is not told what was");
}

#[test]
fn updates_made_while_the_bindings_are_handed_out_are_stored_and_no_checkpoint_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let fast = || StoreConfig {
        checkpoint_interval: Duration::from_millis(1),
        checkpoint_leases: 1,
        ..config(dir.path())
    };
    let mut store = open(config(dir.path()));
    store.append(batch(0..100, 1).as_bytes()).unwrap();
    store.commit().unwrap();
    store.checkpoint().unwrap();
    put(&mut store, 7, BindingStatus::Released, 2);
    drop(store);

    let mut store = open(fast());
    let checkpointed = store.monitor().status().checkpoint;
    let mut warm_up = store.warm_up().unwrap();
    assert!(matches!(store.checkpoint(), Err(StoreError::Misuse(_))));
    assert!(matches!(store.set_server_duid(&[0, 4, 1]), Err(StoreError::Misuse(_))));
    assert!(matches!(store.warm_up(), Err(StoreError::Misuse(_))));
    let mut handed_out = Vec::new();
    let each = |record: Record| {
        // While the reading is under way.
        if record.binding.iaid.0 == 50 {
            put(&mut store, 1, BindingStatus::Active, 10);
            put(&mut store, 99, BindingStatus::Active, 11);
        }
        handed_out.push((record.binding.iaid.0, record.stamp));
        true
    };
    let restored = warm_up.restore(each, |_| {}).unwrap();
    assert_eq!((restored.records, restored.stamp_max), (100, 2));
    let expected: Vec<_> = (0..100).map(|n| (n, if n == 7 { 2 } else { 1 })).collect();
    assert_eq!(handed_out, expected, "as it was before the start");
    // The checkpoint's thread would have had its turn long ago: it looks every few milliseconds.
    put(&mut store, 2, BindingStatus::Active, 12);
    assert_eq!(store.monitor().status().checkpoint, checkpointed);
    assert_eq!(store.monitor().status().checkpoints, 0);
    // Killed here, nothing is lost.
    let killed = tempfile::tempdir().unwrap();
    copy_all(dir.path(), killed.path());
    let back = restore(&mut open(config(killed.path())));
    let stamps = [1, 99, 2, 7, 3].map(|n| back[&binding(n, BindingStatus::Active).lease].stamp);
    assert_eq!(stamps, [10, 11, 12, 2, 1]);

    store.end_warm_up(warm_up).unwrap();
    store.checkpoint().unwrap();
    assert_eq!(store.monitor().status().checkpoint, store.durable());
    drop(store);
    let back = restore(&mut open(config(dir.path())));
    let stamps = [1, 99, 2, 7, 3].map(|n| back[&binding(n, BindingStatus::Active).lease].stamp);
    assert_eq!(stamps, [10, 11, 12, 2, 1]);
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_warm_up_does_not_end_while_somebody_takes_what_was_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(config(dir.path()));
    put(&mut store, 1, BindingStatus::Active, 1);
    drop(store);
    let mut store = open(config(dir.path()));
    let warm_up = store.warm_up().unwrap();
    let found = warm_up.recall();
    let (inside, is_inside) = std::sync::mpsc::channel();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ended = &ended;
        scope.spawn(move || {
            let lease = binding(1, BindingStatus::Active).lease;
            found
                .find(lease, |_| {
                    inside.send(()).unwrap();
                    // Long enough for the other thread to get by, if it could.
                    for _ in 0..1000 {
                        std::thread::yield_now();
                        assert!(!ended.load(Ordering::SeqCst));
                    }
                })
                .unwrap();
        });
        is_inside.recv().unwrap();
        store.end_warm_up(warm_up).unwrap();
        ended.store(true, Ordering::SeqCst);
    });
}
