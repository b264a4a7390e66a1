//! How many updates two flows exchange per second, in one thread.

use std::time::Instant;

use super::*;

/// Run with `cargo test --release -p gemel-failover rate -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement; only a release build says anything"]
fn rate_of_updates() {
    const LEASES: u32 = 100_000;
    const ROUNDS: u32 = 20;
    let mut pair = Pair::new();
    let leases: Vec<_> =
        (0..LEASES).map(|client| pair.primary().grant(ADDRESSES, client).unwrap()).collect();
    pair.run();
    let mut spent = Duration::ZERO;
    for _ in 0..ROUNDS {
        pair.advance(1);
        // As batches of a worker come.
        for leases in leases.chunks(500) {
            for lease in leases {
                assert!(pair.primary().renew(*lease));
            }
            let start = Instant::now();
            pair.run();
            spent += start.elapsed();
        }
    }
    pair.assert_agree();
    let rate = f64::from(LEASES * ROUNDS) / spent.as_secs_f64();
    println!("{rate:.0} updates/s for sender and receiver together");
    assert!(rate > 100_000.0, "{rate} updates/s");
}
