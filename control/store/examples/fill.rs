//! Makes a store with many active bindings, to measure how a server starts on it:
//! `cargo run --release -p gemel-store --example fill -- DIR BINDINGS [RECORDS-LEFT-IN-THE-JOURNAL]`.
//!
//! Binding `n` is address `2001:db8:1::n` of the client with the DUID `00 03 00 01 02 00` and `n` as
//! four octets, IAID 1, for a week from now.

use std::{
    error::Error,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gemel_lease::{
    AbsoluteTime, Binding, BindingStatus, ClientDuid, Lease, UpdateBatch, UpdateSink,
};
use gemel_store::{Durability, Store, StoreConfig, StoreError};
use gemel_wire::IaId;

/// Bindings of one append.
const BATCH: u32 = 10_000;
const WEEK: u32 = 7 * 24 * 3600;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let dir: PathBuf = words.next().ok_or("which folder?")?.into();
    let bindings: u32 = words.next().ok_or("how many bindings?")?.parse()?;
    let left: u32 = words.next().map_or(Ok(0), |word| word.parse())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let now = AbsoluteTime::from_unix_secs(now);
    let config = StoreConfig {
        map_len: 8 << 30,
        checkpoint_leases: 1 << 20,
        checkpoint_interval: Duration::from_secs(3600),
        ..StoreConfig::new(dir, Durability::Process, [7; 32])
    };
    let mut store = Store::open(config, |_| {})?;
    let mut batch = UpdateBatch::default();
    for first in (0..bindings).step_by(BATCH as usize) {
        batch.clear();
        for number in first..bindings.min(first + BATCH) {
            batch.push(&binding(number, now), u64::from(number) + 1);
        }
        while let Err(error) = store.append(batch.as_bytes()) {
            let StoreError::JournalFull { .. } = error else { return Err(error.into()) };
            store.commit()?;
            store.checkpoint()?;
        }
        store.commit()?;
        if bindings - first > left && bindings - first - left <= BATCH {
            store.checkpoint()?;
        }
    }
    if left == 0 {
        store.checkpoint()?;
    }
    Ok(())
}

fn binding(number: u32, now: AbsoluteTime) -> Binding {
    let mut duid = [0, 3, 0, 1, 2, 0, 0, 0, 0, 0];
    duid[6..].copy_from_slice(&number.to_be_bytes());
    Binding {
        lease: Lease::address((0x2001_0db8_0001_u128 << 80 | u128::from(number)).into()),
        status: BindingStatus::Active,
        duid: ClientDuid::new(&duid),
        iaid: IaId(1),
        preferred_lifetime: WEEK,
        valid_lifetime: WEEK,
        client_last_transaction_time: now,
        start_time_of_state: now,
        state_expiration_time: now.plus(WEEK),
        ..Binding::EMPTY
    }
}
