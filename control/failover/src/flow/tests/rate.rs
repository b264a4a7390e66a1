//! How many updates two flows exchange per second, in one thread.

use std::fs;

use super::*;

/// Time that this thread has had a processor, so that what else the machine does is left out.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with schedstat");
    let nanos = stat.split_whitespace().next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanos.expect("nanoseconds come first"))
}

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
            let start = processor_time();
            pair.run();
            spent += processor_time() - start;
        }
    }
    pair.assert_agree();
    let rate = f64::from(LEASES * ROUNDS) / spent.as_secs_f64();
    println!("{rate:.0} updates/s and core for sender and receiver together");
    assert!(rate > 100_000.0, "{rate} updates/s");
}
