//! Time of `Server::handle` for one message, the table included, the socket and the store not.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use gemel_lease::{
    LeaseTable, Ownership, PoolConfig, PoolId, PoolRange, PoolSet, TableConfig, UpdateBatch,
};
use gemel_server::{LinkConfig, OptionConfig, Outcome, Server, ServerConfig, Service};
use gemel_wire::{Duid, MessageType, OptionCode};
use support::{ALPHA, Build, Lab, Level, NOW, SERVER, ip, prefix, relay};

/// Clients that the table is made for.
const CLIENTS: u32 = 1 << 20;

fn server() -> Server {
    let range =
        PoolRange::Addresses { first: ip("2001:db8:a::1:0"), last: ip("2001:db8:a::20:ffff") };
    let pools = PoolSet::new(vec![PoolConfig { range, ownership: Ownership::Sole }]).unwrap();
    let table =
        TableConfig { hash_key: [7; 16], client_stripes: 256, expected_bindings: CLIENTS as usize };
    let mut link = LinkConfig::new("alpha");
    link.interface = Some(ALPHA);
    link.relay_prefixes = vec![prefix("2001:db8:a::/48")];
    link.on_link = vec![prefix("2001:db8:a::/64")];
    link.na_pools = vec![PoolId(0)];
    link.options = vec![
        OptionConfig::dns_servers(&[ip("2001:db8::53"), ip("2001:db8::54")]),
        OptionConfig::domain_search(&["example.org"]).unwrap(),
    ];
    let mut config = ServerConfig::new(Duid::new(SERVER).unwrap());
    config.links = vec![link];
    Server::new(config, Arc::new(LeaseTable::new(&table, pools))).unwrap()
}

/// A message of a client with this number; the number stands in its DUID, at a known place.
fn message(msg_type: MessageType) -> (Vec<u8>, usize) {
    let build = Build::new(msg_type).client(&[0, 3, 0, 1, 2, 0, 0, 0, 0, 0]);
    let build = if msg_type == MessageType::SOLICIT { build } else { build.server(SERVER) };
    let build =
        build.oro(&[OptionCode::DNS_SERVERS, OptionCode::DOMAIN_LIST, OptionCode::SOL_MAX_RT]);
    let message = build.option(OptionCode::ELAPSED_TIME, &[0, 0]).na(1, &[]).done();
    (message, 4 + 4 + 6)
}

/// Handles one message per client number in turn, and measures only that.
fn run(
    server: &Server,
    (mut message, number_at): (Vec<u8>, usize),
    iterations: u64,
    clients: u32,
) -> Duration {
    let lab = Lab::new();
    let mut reply = [0; 1500];
    let mut updates = UpdateBatch::with_capacity(1 << 20);
    let start = Instant::now();
    let mut client = 0_u32;
    for _ in 0..iterations {
        message[number_at..number_at + 4].copy_from_slice(&client.to_be_bytes());
        let inbound = lab.inbound(black_box(&message));
        let outcome = server.handle(&inbound, NOW, Service::Full, &mut reply, &mut updates);
        assert!(matches!(outcome, Outcome::Reply(_)), "{outcome:?}");
        if client.is_multiple_of(64) {
            updates.clear();
        }
        client = if client + 1 == clients { 0 } else { client + 1 };
    }
    start.elapsed()
}

fn handle(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handle");
    let known = server();
    run(&known, message(MessageType::REQUEST), CLIENTS.into(), CLIENTS);
    for (name, clients) in [("one client", 1), ("a million clients", CLIENTS)] {
        group.bench_function(format!("solicit, bound, {name}"), |bencher| {
            bencher.iter_custom(|n| run(&known, message(MessageType::SOLICIT), n, clients));
        });
        group.bench_function(format!("renew, {name}"), |bencher| {
            bencher.iter_custom(|n| run(&known, message(MessageType::RENEW), n, clients));
        });
    }
    let empty = server();
    group.bench_function("solicit, new", |bencher| {
        bencher.iter_custom(|n| run(&empty, message(MessageType::SOLICIT), n, CLIENTS));
    });
    group.bench_function("solicit, new, relayed", |bencher| {
        let (inner, at) = message(MessageType::SOLICIT);
        let level = Level {
            hop_count: 0,
            link: ip("2001:db8:a::1"),
            peer: ip("fe80::9"),
            options: vec![(OptionCode::INTERFACE_ID, b"ge-0/0/1.100".to_vec())],
        };
        let relayed = relay(&level, &inner);
        let at = relayed.len() - inner.len() + at;
        bencher.iter_custom(|n| run(&empty, (relayed.clone(), at), n, CLIENTS));
    });
    group.bench_function("request, new", |bencher| {
        bencher.iter_custom(|n| {
            // A fresh table whenever the clients have run out.
            let mut left = n;
            let mut time = Duration::ZERO;
            while left > 0 {
                let part = left.min(CLIENTS.into());
                time += run(&server(), message(MessageType::REQUEST), part, CLIENTS);
                left -= part;
            }
            time
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3));
    targets = handle
}
criterion_main!(benches);
