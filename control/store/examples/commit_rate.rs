//! How fast the store commits on this disk: `commit_rate [seconds] [folder]`.
//!
//! Each line is one run: records of about 120 octets, leases at random out of a million, one commit
//! per batch, one after the other.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use gemel_lease::{
    AbsoluteTime, Binding, BindingStatus, ClientDuid, IaKind, Lease, UpdateBatch, UpdateSink,
};
use gemel_store::{Durability, Store, StoreConfig, StoreError};
use gemel_wire::IaId;
use hdrhistogram::Histogram;

const LEASES: u64 = 1_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(Ok(3.0), |text| text.parse::<f64>())?;
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    println!(
        "{:10} {:>5} {:>11} {:>9} {:>11} {:>7} {:>7} {:>8} {:>8} {:>6} {:>5}",
        "durability",
        "batch",
        "checkpoints",
        "commits/s",
        "records/s",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "max us",
        "ckpts",
        "full"
    );
    for durability in [Durability::PowerLoss, Durability::Process] {
        for batch in [1, 64, 512] {
            for checkpoints in [false, true] {
                run(&folder, Duration::from_secs_f64(seconds), durability, batch, checkpoints)?;
            }
        }
    }
    Ok(())
}

fn run(
    folder: &std::path::Path,
    time: Duration,
    durability: Durability,
    batch: usize,
    checkpoints: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir_in(folder)?;
    let mut config = StoreConfig::new(dir.path(), durability, [1; 32]);
    if checkpoints {
        config.checkpoint_interval = Duration::from_secs(1);
    } else {
        config.checkpoint_interval = Duration::MAX;
        config.checkpoint_leases = usize::MAX;
        config.segments_max = 200;
    }
    let mut store = Store::open(config, |_| {})?;
    let mut random = 1_u64;
    let mut stamp = 0;
    let mut histogram = Histogram::<u64>::new(3)?;
    let mut updates = UpdateBatch::default();
    let mut full = 0;
    let begun = Instant::now();
    while begun.elapsed() < time {
        updates.clear();
        for _ in 0..batch {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            stamp += 1;
            updates.push(&binding((random >> 33) % LEASES), stamp);
        }
        let start = Instant::now();
        match store.append(updates.as_bytes()) {
            Ok(_) => {
                store.commit()?;
                histogram.record(u64::try_from(start.elapsed().as_nanos())?)?;
            }
            Err(StoreError::JournalFull { .. }) => {
                full += 1;
                store.checkpoint()?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let us = |q| histogram.value_at_quantile(q) / 1000;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let commits = histogram.len() as f64 / seconds;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let records = commits * batch as f64;
    println!(
        "{:10} {batch:5} {:>11} {commits:9.0} {records:11.0} {:7} {:7} {:8} {:8} {:6} {full:5}",
        format!("{durability:?}"),
        if checkpoints { "each second" } else { "none" },
        us(0.5),
        us(0.99),
        us(0.999),
        histogram.max() / 1000,
        store.monitor().status().checkpoints,
    );
    Ok(())
}

fn binding(number: u64) -> Binding {
    Binding {
        lease: Lease::address((0x2001_0db8_u128 << 96 | u128::from(number)).into()),
        kind: IaKind::Na,
        status: BindingStatus::Active,
        // Makes the record 120 octets.
        duid: ClientDuid::new(&[7; 44]),
        iaid: IaId(1),
        preferred_lifetime: 1800,
        valid_lifetime: 3600,
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
