//! The XDP programs over single packets: what goes in, what becomes of it.

mod common;

use std::{
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use common::{Lab, Packet, needs_root};
use gemel_ebpf::{Capture, FloodLimit, TokenBucket, Verdict, XdpClient, XdpCounters, XdpServer};

const OWN: &str = "2001:db8::1";

type Counter = fn(&XdpCounters) -> u64;

/// A packet and what is to become of it.
struct Fixture {
    name: &'static str,
    packet: Vec<u8>,
    verdict: Verdict,
    counter: Counter,
}

fn fixture(
    name: &'static str,
    packet: impl Into<Vec<u8>>,
    verdict: Verdict,
    counter: Counter,
) -> Fixture {
    Fixture { name, packet: packet.into(), verdict, counter }
}

/// Runs each packet, and wants the verdict and its counter, and no other, to tell.
fn run(program: &gemel_ebpf::XdpProgram, fixtures: Vec<Fixture>) {
    for Fixture { name, packet, verdict, counter } in fixtures {
        let before = program.counters().unwrap();
        assert_eq!(program.test_run(&packet, 1).unwrap(), verdict, "{name}");
        let after = program.counters().unwrap();
        assert_eq!(counter(&after), counter(&before) + 1, "{name}: {before:?} -> {after:?}");
        assert_eq!(after.total(), before.total() + 1, "{name}: {before:?} -> {after:?}");
    }
}

#[test]
fn the_server_takes_dhcpv6_for_it_and_leaves_all_else() {
    if needs_root("the_server_takes_dhcpv6_for_it_and_leaves_all_else") {
        return;
    }
    let _lab = Lab::namespace();
    let socket = common::loopback_socket();
    let server = XdpServer::load().unwrap();
    server.set_socket(0, &socket).unwrap();
    server.set_own_addresses(&[OWN.parse().unwrap()]).unwrap();

    let redirected: Counter = |c| c.redirected;
    let not_ours: Counter = |c| c.passed_not_ours;
    let not_ipv6: Counter = |c| c.passed_not_ipv6;
    let ext_header: Counter = |c| c.passed_ext_header;
    let malformed: Counter = |c| c.passed_malformed;
    let solicit = Packet::to("ff02::1:2", 547);
    let mut fixtures = vec![
        fixture("all relay agents and servers", &solicit, Verdict::Redirect, redirected),
        fixture("all servers", &Packet::to("ff05::1:3", 547), Verdict::Redirect, redirected),
        fixture("own unicast address", &Packet::to(OWN, 547), Verdict::Redirect, redirected),
        fixture("one VLAN tag", &solicit.clone().tag(0x8100, 7), Verdict::Redirect, redirected),
        fixture("provider tag", &solicit.clone().tag(0x88a8, 7), Verdict::Redirect, redirected),
        fixture(
            "two VLAN tags",
            &solicit.clone().tag(0x8100, 7).tag(0x88a8, 9),
            Verdict::Redirect,
            redirected,
        ),
        fixture(
            "own unicast address in a priority tag",
            &Packet::to(OWN, 547).tag(0x8100, 0xe000),
            Verdict::Redirect,
            redirected,
        ),
        fixture("UDP header alone", &solicit.clone().payload(&[]), Verdict::Redirect, redirected),
        fixture(
            "three VLAN tags",
            &solicit.clone().tag(0x8100, 7).tag(0x8100, 8).tag(0x88a8, 9),
            Verdict::Pass,
            not_ipv6,
        ),
        fixture(
            "another unicast address",
            &Packet::to("2001:db8::2", 547),
            Verdict::Pass,
            not_ours,
        ),
        fixture("another multicast group", &Packet::to("ff02::1:3", 547), Verdict::Pass, not_ours),
        fixture("a wider scope", &Packet::to("ff05::1:2", 547), Verdict::Pass, not_ours),
        fixture("near ff02::1:2", &Packet::to("ff02:0:0:0:1::1:2", 547), Verdict::Pass, not_ours),
        fixture("to a client", &Packet::to("ff02::1:2", 546), Verdict::Pass, not_ours),
        fixture("from port 547 to another", &Packet::to(OWN, 53), Verdict::Pass, not_ours),
        fixture("TCP", &Packet::to(OWN, 547).next_header(6), Verdict::Pass, not_ours),
        fixture("ICMPv6", &Packet::to(OWN, 547).next_header(58), Verdict::Pass, not_ours),
        fixture("IPv4 by EtherType", &solicit.clone().ether_type(0x0800), Verdict::Pass, not_ipv6),
        fixture("ARP", &solicit.clone().ether_type(0x0806), Verdict::Pass, not_ipv6),
        fixture(
            "IP version 4 under IPv6's type",
            &solicit.clone().version(4),
            Verdict::Pass,
            malformed,
        ),
    ];
    for next_header in [0, 43, 44, 51, 60, 135, 139, 140] {
        fixtures.push(fixture(
            "an extension header",
            &solicit.clone().next_header(next_header),
            Verdict::Pass,
            ext_header,
        ));
    }
    // Cut off within any header, untagged and tagged, it is the kernel's to judge.
    for packet in [solicit.clone(), solicit.clone().tag(0x8100, 7).tag(0x88a8, 9)] {
        let whole: Vec<u8> = (&packet).into();
        let headers = whole.len() - packet.payload_len();
        for len in 14..headers {
            fixtures.push(fixture("cut off", &whole[..len], Verdict::Pass, malformed));
        }
        fixtures.push(fixture("not cut off", &whole[..headers], Verdict::Redirect, redirected));
    }
    run(&server, fixtures);
}

#[test]
fn a_queue_without_a_socket_is_left_to_the_kernel_and_counted() {
    if needs_root("a_queue_without_a_socket_is_left_to_the_kernel_and_counted") {
        return;
    }
    let _lab = Lab::namespace();
    let solicit: Vec<u8> = (&Packet::to("ff02::1:2", 547)).into();
    let no_socket: Counter = |c| c.passed_no_socket;
    let redirected: Counter = |c| c.redirected;
    let server = XdpServer::load().unwrap();
    let pass = || vec![fixture("no socket", &solicit[..], Verdict::Pass, no_socket)];

    run(&server, pass());
    server.remove_socket(0).expect("nothing to remove is no error");

    let socket = common::loopback_socket();
    server.set_socket(0, &socket).unwrap();
    run(&server, vec![fixture("socket", &solicit[..], Verdict::Redirect, redirected)]);
    server.remove_socket(0).unwrap();
    run(&server, pass());

    server.set_socket(0, &socket).unwrap();
    drop(socket);
    run(&server, pass());

    assert!(server.set_socket(0, std::net::UdpSocket::bind("[::]:0").unwrap()).is_err());
    let socket = common::loopback_socket();
    let error = server.set_socket(256, &socket).unwrap_err().to_string();
    assert!(error.contains("queue 256") && error.contains("255"), "{error}");
}

#[test]
fn own_addresses_are_replaced_as_a_set() {
    if needs_root("own_addresses_are_replaced_as_a_set") {
        return;
    }
    let _lab = Lab::namespace();
    let socket = common::loopback_socket();
    let server = XdpServer::load().unwrap();
    server.set_socket(0, &socket).unwrap();
    let ours = |address: &str| {
        let packet: Vec<u8> = (&Packet::to(address, 547)).into();
        server.test_run(&packet, 1).unwrap() == Verdict::Redirect
    };
    let set = |addresses: &[&str]| {
        let addresses: Vec<Ipv6Addr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        server.set_own_addresses(&addresses).unwrap();
    };

    assert!(!ours("2001:db8::1"));
    set(&["2001:db8::1", "fe80::1", "fe80::1"]);
    assert!(ours("2001:db8::1") && ours("fe80::1"));
    set(&["fe80::1", "2001:db8::2"]);
    assert!(!ours("2001:db8::1") && ours("fe80::1") && ours("2001:db8::2"));
    set(&[]);
    assert!(!ours("fe80::1") && !ours("2001:db8::2"));

    // A full set can be replaced by another full set.
    let full = |subnet: u16| -> Vec<Ipv6Addr> {
        (0..1024).map(|i| Ipv6Addr::new(0x2001, 0xdb8, subnet, 0, 0, 0, 0, i)).collect()
    };
    server.set_own_addresses(&full(1)).unwrap();
    server.set_own_addresses(&full(2)).unwrap();
    assert!(ours("2001:db8:2::3ff") && !ours("2001:db8:1::3ff"));
    let mut too_many = full(3);
    too_many.push(Ipv6Addr::LOCALHOST);
    let error = server.set_own_addresses(&too_many).unwrap_err().to_string();
    assert!(error.contains("1025") && error.contains("1024"), "{error}");
    assert!(ours("2001:db8:2::3ff"), "an error changes nothing");
}

#[test]
fn the_flood_limit_drops_what_exceeds_the_burst_of_one_source() {
    if needs_root("the_flood_limit_drops_what_exceeds_the_burst_of_one_source") {
        return;
    }
    let _lab = Lab::namespace();
    let socket = common::loopback_socket();
    let server = XdpServer::load().unwrap();
    server.set_socket(0, &socket).unwrap();
    // Sends a packet some times, and wants so many of them dropped: all but the burst, and but the
    // one token for each second that the test has taken until then.
    let start = Instant::now();
    let send = |what: &str, packet: &Packet, sent: u32, dropped: u64| {
        let before = server.counters().unwrap();
        let bytes: Vec<u8> = packet.into();
        run_often(&server, &bytes, sent);
        let after = server.counters().unwrap();
        assert_eq!(after.total(), before.total() + u64::from(sent));
        let least = dropped.saturating_sub(start.elapsed().as_secs());
        let actual = after.dropped_flood - before.dropped_flood;
        assert!((least..=dropped).contains(&actual), "{what}: {actual} of {sent} dropped");
    };
    let solicit = Packet::to("ff02::1:2", 547);
    let relayed = Packet::to("ff05::1:3", 547).source("2001:db8:9::1");
    send("off by default", &solicit, 100, 0);

    let bucket = |burst| Some(TokenBucket { packets_per_second: 1, burst });
    server.set_flood_limit(FloodLimit { direct: bucket(10), routed: None }).unwrap();
    send("the burst", &solicit, 15, 5);
    send("the burst is spent", &solicit, 15, 15);
    send("another address, same MAC", &solicit.clone().source("fe80::9"), 15, 15);
    send("no address, same MAC", &solicit.clone().source("::"), 15, 15);
    send("another MAC", &solicit.clone().mac([2, 0, 0, 0, 0, 9]), 15, 5);
    send("another VLAN", &solicit.clone().tag(0x8100, 5), 15, 5);
    send("relays have a limit of their own", &relayed, 100, 0);
    send("what is not ours passes", &Packet::to("2001:db8::77", 547), 100, 0);

    server.set_flood_limit(FloodLimit { direct: None, routed: bucket(20) }).unwrap();
    send("lifted", &solicit, 100, 0);
    send("the burst", &relayed, 30, 10);
    send("by address, not MAC", &relayed.clone().mac([2, 0, 0, 0, 0, 9]), 30, 30);
    send("another relay", &relayed.clone().source("2001:db8:9::2"), 30, 10);
}

/// One run after the other: the kernel breaks a long row of them off when the thread gets a signal, and
/// does not say how many there were.
fn run_often(server: &XdpServer, packet: &[u8], times: u32) {
    for _ in 0..times {
        server.test_run(packet, 1).unwrap();
    }
}

#[test]
fn a_new_limit_forgives_what_was_owed_beyond_it() {
    if needs_root("a_new_limit_forgives_what_was_owed_beyond_it") {
        return;
    }
    let _lab = Lab::namespace();
    let socket = common::loopback_socket();
    let server = XdpServer::load().unwrap();
    server.set_socket(0, &socket).unwrap();
    let solicit: Vec<u8> = (&Packet::to("ff02::1:2", 547)).into();
    let set = |packets_per_second, burst| {
        let direct = Some(TokenBucket { packets_per_second, burst });
        server.set_flood_limit(FloodLimit { direct, routed: None }).unwrap();
    };
    // Under the first limit this source would have to be silent for more than an hour.
    set(1, 5000);
    run_often(&server, &solicit, 5000);
    assert_eq!(server.counters().unwrap().dropped_flood, 0);
    set(1000, 10);
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.test_run(&solicit, 1).unwrap() != Verdict::Redirect {
        assert!(Instant::now() < deadline, "{:?}", server.counters());
    }
    assert!(server.counters().unwrap().dropped_flood > 0, "the new limit holds too");
}

#[test]
fn tokens_come_back_at_the_configured_rate() {
    if needs_root("tokens_come_back_at_the_configured_rate") {
        return;
    }
    let _lab = Lab::namespace();
    let socket = common::loopback_socket();
    let server = XdpServer::load().unwrap();
    server.set_socket(0, &socket).unwrap();
    // A burst of five seconds, so that no pause of this test lets tokens go to waste.
    let limit = TokenBucket { packets_per_second: 1000, burst: 5000 };
    server.set_flood_limit(FloodLimit { direct: Some(limit), routed: None }).unwrap();
    let solicit: Vec<u8> = (&Packet::to("ff02::1:2", 547)).into();
    // Each run takes all the tokens that are there, at some time between its start and its end.
    let run = || {
        let start = Instant::now();
        run_often(&server, &solicit, 20_000);
        (start, Instant::now())
    };
    let first = run();
    let mut last = run();
    while last.0 - first.0 < Duration::from_millis(300) {
        last = run();
    }
    let counters = server.counters().unwrap();
    let tokens = |time: Duration| 5000 + u64::try_from(time.as_millis()).unwrap();
    let (least, most) = (tokens(last.0 - first.1), tokens(last.1 - first.0) + 1);
    let passed = counters.redirected;
    assert!((least..=most).contains(&passed), "{passed}, not {least} to {most}");
    assert!(counters.dropped_flood > counters.redirected, "{counters:?}");
}

#[test]
fn the_client_takes_its_ports_and_addresses() {
    if needs_root("the_client_takes_its_ports_and_addresses") {
        return;
    }
    let _lab = Lab::namespace();
    let socket = common::loopback_socket();
    let redirected: Counter = |c| c.redirected;
    let not_ours: Counter = |c| c.passed_not_ours;
    let no_socket: Counter = |c| c.passed_no_socket;
    let client = XdpClient::load(Capture { ports: [546, 0], any_address: false }).unwrap();
    client.set_own_addresses(&["fe80::5".parse().unwrap()]).unwrap();
    let reply = Packet::to("fe80::5", 546);
    run(&client, vec![fixture("no socket", &reply, Verdict::Pass, no_socket)]);
    client.set_socket(0, &socket).unwrap();
    run(
        &client,
        vec![
            fixture("reply", &reply, Verdict::Redirect, redirected),
            fixture("tagged reply", &reply.clone().tag(0x8100, 7), Verdict::Redirect, redirected),
            fixture("another address", &Packet::to("fe80::6", 546), Verdict::Pass, not_ours),
            fixture("another port", &Packet::to("fe80::5", 547), Verdict::Pass, not_ours),
            fixture("port 0, which is no port", &Packet::to("fe80::5", 0), Verdict::Pass, not_ours),
        ],
    );
    client.set_capture(Capture { ports: [546, 547], any_address: true }).unwrap();
    run(
        &client,
        vec![
            fixture("any address", &Packet::to("fe80::6", 546), Verdict::Redirect, redirected),
            fixture("second port", &Packet::to("ff02::1:2", 547), Verdict::Redirect, redirected),
            fixture("port 0 still", &Packet::to("fe80::5", 0), Verdict::Pass, not_ours),
        ],
    );
}
