//! Whole runs of the generator against a small server in memory: every figure and every violation
//! comes out as it went in.

use std::{
    collections::HashMap,
    net::{Ipv6Addr, SocketAddrV6, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use gemel_bench::{
    clock::Clock,
    engine::{Choice, Engine, Patience, World},
    generator::{self, Course, Span},
    message::Traffic,
    oracle::Violation,
    port::{MemoryPort, Port, SocketPort},
    relay::{RelayPath, Template},
    schedule::{Pace, Schedule},
    stats::{Counter, Pair, Stats},
};
use gemel_wire::{
    Emitter, Ia, IaId, Message, MessageType, OptionCode, Packet, StatusCode, TransactionId,
};

const SECOND: u64 = 1_000_000_000;
const SERVER: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 1];

/// What the server does wrong.
#[derive(Clone, Copy, Default)]
struct Faults {
    /// Every n-th REPLY goes missing.
    drop_reply: Option<u32>,
    /// From the n-th REPLY on, every client gets the first lease.
    duplicate_from: Option<u32>,
    /// Every REPLY has a new lease, also for clients that have one.
    renumber: bool,
    /// RENEW is answered with NoBinding.
    forget: bool,
    /// SOLICIT is answered with NoAddrsAvail.
    exhausted: bool,
    /// REPLY to REQUEST carries a foreign transaction id.
    wrong_xid: bool,
    /// The relay envelopes come back with another peer-address.
    wrong_peer: bool,
    /// Datagrams are cut off in the middle of an option.
    cut_off: bool,
}

#[derive(Default)]
struct Server {
    faults: Faults,
    leases: HashMap<(Vec<u8>, u16, u32), u32>,
    next: u32,
    replies: u32,
}

impl Server {
    fn new(faults: Faults) -> Self {
        Self { faults, ..Self::default() }
    }

    fn answer(&mut self, datagram: &[u8], buffer: &mut [u8]) -> Option<usize> {
        let mut out = Emitter::new(buffer);
        self.answer_into(datagram, &mut out)?;
        let len = out.finish().unwrap();
        Some(if self.faults.cut_off { len - 2 } else { len })
    }

    fn answer_into(&mut self, datagram: &[u8], out: &mut Emitter<'_>) -> Option<()> {
        match Packet::parse(datagram).unwrap() {
            Packet::Relay(relay) => {
                let peer =
                    if self.faults.wrong_peer { Ipv6Addr::LOCALHOST } else { relay.peer_address };
                out.relay_message(
                    MessageType::RELAY_REPL,
                    relay.hop_count,
                    relay.link_address,
                    peer,
                );
                if let Some(id) = relay.options.first(OptionCode::INTERFACE_ID) {
                    out.option(OptionCode::INTERFACE_ID, id);
                }
                let mark = out.begin(OptionCode::RELAY_MSG);
                self.answer_into(relay.relayed().unwrap(), out)?;
                out.end(mark);
                Some(())
            }
            Packet::Client(message) => self.answer_client(&message, out),
        }
    }

    fn answer_client(&mut self, message: &Message<'_>, out: &mut Emitter<'_>) -> Option<()> {
        let client = message.options.first(OptionCode::CLIENT_ID).unwrap();
        let rapid = message.options.first(OptionCode::RAPID_COMMIT).is_some();
        let advertise = message.msg_type == MessageType::SOLICIT && !rapid;
        if !advertise {
            self.replies += 1;
            if self.faults.drop_reply.is_some_and(|n| self.replies.is_multiple_of(n)) {
                return None;
            }
        }
        let mut xid = message.transaction_id;
        if self.faults.wrong_xid && !advertise {
            xid = TransactionId([xid.0[0], xid.0[1] ^ 0x55, xid.0[2]]);
        }
        out.message(if advertise { MessageType::ADVERTISE } else { MessageType::REPLY }, xid);
        out.option(OptionCode::CLIENT_ID, client);
        out.option(OptionCode::SERVER_ID, SERVER);
        if rapid {
            out.option(OptionCode::RAPID_COMMIT, &[]);
        }
        for option in message.options {
            if option.code != OptionCode::IA_NA && option.code != OptionCode::IA_PD {
                continue;
            }
            let ia = Ia::parse(option.data).unwrap();
            let mark = out.begin_ia(option.code, ia.iaid, 50, 80);
            let renew = message.msg_type == MessageType::RENEW;
            if self.faults.exhausted {
                out.status(StatusCode::NO_ADDRS_AVAIL, "none left");
            } else if self.faults.forget && renew {
                out.status(StatusCode::NO_BINDING, "never seen");
            } else {
                let number = self.lease(client, option.code, ia.iaid, advertise);
                if option.code == OptionCode::IA_NA {
                    let address = 0x2001_0db8_u128 << 96 | u128::from(number);
                    out.ia_addr(Ipv6Addr::from(address), 100, 200);
                } else {
                    let prefix = 0x2001_0db9_u128 << 96 | u128::from(number) << 72;
                    out.ia_prefix(Ipv6Addr::from(prefix), 56, 100, 200);
                }
            }
            out.end(mark);
        }
        Some(())
    }

    fn lease(&mut self, client: &[u8], code: OptionCode, iaid: IaId, advertise: bool) -> u32 {
        if self.faults.duplicate_from.is_some_and(|n| self.replies >= n) {
            return 1;
        }
        if self.faults.renumber && !advertise {
            self.next += 1;
            return self.next;
        }
        let next = &mut self.next;
        *self.leases.entry((client.to_vec(), code.0, iaid.0)).or_insert_with(|| {
            *next += 1;
            *next
        })
    }
}

fn plain() -> Traffic {
    Traffic { pd: true, ..Traffic::addresses(Choice::InTurn) }
}

fn drive(
    traffic: Traffic,
    port: &mut impl Port,
    clients: u32,
    exchanges: u64,
    pace: Pace,
    patience: Patience,
) -> (World, Stats, Span) {
    let clock = Clock::start();
    let world = World::new(7, clients, 2);
    let mut engine = Engine::new(traffic, world, 1024, patience, 7, clock.now());
    let begin = clock.now();
    let mut schedule = Schedule::new(pace, begin, 60 * SECOND, Some(exchanges));
    let never = AtomicBool::new(false);
    let course = Course { begin, interval: SECOND, clock: &clock, stop: &never, steering: None };
    let span = generator::run(&mut engine, port, &mut schedule, &course).unwrap();
    let (mut world, stats) = engine.finish();
    world.audit(span.end);
    (world, stats, span)
}

fn in_memory(traffic: Traffic, faults: Faults, clients: u32, exchanges: u64) -> (World, Stats) {
    let mut server = Server::new(faults);
    let mut port =
        MemoryPort::new(move |datagram: &[u8], buffer: &mut [u8]| server.answer(datagram, buffer));
    let (world, stats, _) = drive(
        traffic,
        &mut port,
        clients,
        exchanges,
        Pace::Window(16),
        Patience::once(SECOND / 50),
    );
    (world, stats)
}

#[test]
fn clean_exchanges_of_every_shape() {
    let relay = |depth| {
        Some(RelayPath {
            depth,
            links: vec!["2001:db8:1::1".parse().unwrap(), "2001:db8:2::1".parse().unwrap()],
            address: "2001:db8::9".parse().unwrap(),
            remote_id: None,
            interface_id: Some(Template::new("port{}")),
        })
    };
    for (name, traffic, leases) in [
        ("both", plain(), 200),
        ("address", Traffic { pd: false, ..plain() }, 100),
        ("prefix", Traffic { na: false, ..plain() }, 100),
        ("relayed", Traffic { relay: relay(1), ..plain() }, 200),
        ("relayed eight times", Traffic { relay: relay(8), ..plain() }, 200),
    ] {
        let (world, stats) = in_memory(traffic, Faults::default(), 100, 250);
        assert_eq!(world.violations_total(), 0, "{name}: {:?}", world.described);
        assert_eq!(stats.get(Counter::Completed), 250, "{name}");
        assert_eq!(stats.get(Counter::SentSolicit), 250, "{name}");
        assert_eq!(stats.get(Counter::SentRequest), 250, "{name}");
        assert_eq!(world.ledger.len(), leases, "{name}: clients that return keep their leases");
        for pair in [Pair::SolicitAdvertise, Pair::RequestReply, Pair::Exchange] {
            assert_eq!(stats.pair(pair).answered.len(), 250, "{name}");
        }
        assert_eq!((stats.lost(), stats.failed()), (0, 0), "{name}");
        assert_eq!((world.servers[0].advertises, world.servers[0].replies), (250, 250));
    }
}

#[test]
fn rapid_commit_takes_two_messages() {
    let traffic = Traffic { rapid_commit: true, ..plain() };
    let (world, stats) = in_memory(traffic, Faults::default(), 100, 100);
    assert_eq!(world.violations_total(), 0, "{:?}", world.described);
    assert_eq!((stats.get(Counter::Completed), stats.get(Counter::Sent)), (100, 100));
    assert_eq!(stats.pair(Pair::SolicitReply).answered.len(), 100);
}

#[test]
fn clients_with_leases_renew_in_the_given_share() {
    let traffic = Traffic { renew_share: 0.5, ..plain() };
    let (world, stats) = in_memory(traffic, Faults::default(), 100, 2100);
    assert_eq!(world.violations_total(), 0, "{:?}", world.described);
    let renewals = stats.get(Counter::SentRenew);
    assert!((850..1150).contains(&renewals), "{renewals} of 2000");
    assert_eq!(stats.pair(Pair::RenewReply).answered.len(), renewals);
    assert_eq!(stats.get(Counter::Completed), 2100);
}

#[test]
fn lost_replies_are_counted_and_timed() {
    let faults = Faults { drop_reply: Some(10), ..Faults::default() };
    let (world, stats) = in_memory(plain(), faults, 100, 500);
    assert_eq!(world.violations_total(), 0, "{:?}", world.described);
    assert_eq!(stats.get(Counter::LostReply), 50);
    assert_eq!(stats.get(Counter::LostAdvertise), 0);
    assert_eq!(stats.get(Counter::Completed), 450);
    let times = stats.pair(Pair::RequestReply);
    assert_eq!((times.answered.len(), times.timed_out.len()), (450, 50));
    assert!(times.timed_out.min() >= SECOND / 50 - SECOND / 10_000);
    let whole = stats.pair(Pair::Exchange);
    assert_eq!(whole.with_losses().len(), 500);
    assert!(whole.with_losses().value_at_quantile(0.95) >= SECOND / 51);
}

#[test]
fn a_lease_for_two_clients_fails_the_run() {
    let faults = Faults { duplicate_from: Some(50), ..Faults::default() };
    let (world, stats) = in_memory(plain(), faults, 100, 100);
    assert!(world.violations(Violation::Duplicate) >= 90, "51 clients, two leases each");
    assert!(stats.get(Counter::Invalid) >= 50);
    assert!(world.described[0].detail.contains("went to client"), "{:?}", world.described[0]);
}

#[test]
fn a_moved_client_fails_the_run() {
    let faults = Faults { renumber: true, ..Faults::default() };
    let (world, stats) = in_memory(plain(), faults, 100, 150);
    assert_eq!(world.violations(Violation::Renumbered), 100, "50 clients, two leases each");
    assert_eq!(world.violations_total(), 100);
    assert_eq!(stats.get(Counter::Invalid), 50);
}

#[test]
fn a_forgotten_binding_fails_the_run() {
    let traffic = Traffic { renew_share: 1.0, ..plain() };
    let faults = Faults { forget: true, ..Faults::default() };
    let (world, _) = in_memory(traffic, faults, 100, 110);
    assert_eq!(world.violations(Violation::BindingForgotten), 20);
}

#[test]
fn wrong_datagrams_fail_the_run() {
    let relay = Some(RelayPath {
        depth: 2,
        links: vec!["2001:db8:1::1".parse().unwrap()],
        address: "2001:db8::9".parse().unwrap(),
        interface_id: None,
        remote_id: None,
    });
    let relayed = Traffic { relay, ..plain() };
    for (traffic, faults, violation) in [
        (plain(), Faults { wrong_xid: true, ..Faults::default() }, Violation::UnknownTransaction),
        (plain(), Faults { cut_off: true, ..Faults::default() }, Violation::Malformed),
        (relayed, Faults { wrong_peer: true, ..Faults::default() }, Violation::RelayMismatch),
    ] {
        let (world, stats) = in_memory(traffic, faults, 50, 50);
        assert_eq!(world.violations(violation), 50, "{violation:?}: {:?}", world.described);
        assert_eq!(stats.get(Counter::Completed), 0, "{violation:?}");
    }
}

#[test]
fn refusals_are_failures_of_the_exchange_only() {
    let faults = Faults { exhausted: true, ..Faults::default() };
    let (world, stats) = in_memory(plain(), faults, 50, 50);
    assert_eq!(world.violations_total(), 0);
    assert_eq!(stats.get(Counter::RefusedNoAddrsAvail), 50);
    assert_eq!((stats.failed(), stats.lost()), (50, 0));
}

/// The open loop and the socket port, over the loopback interface.
#[test]
fn an_open_loop_over_sockets() {
    let server_socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    server_socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    // The port sends to 547 of a real server; here to wherever the test's server is.
    let std::net::SocketAddr::V6(server_address) = server_socket.local_addr().unwrap() else {
        panic!("an IPv6 socket")
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut server = Server::new(Faults::default());
            let (mut request, mut reply) = ([0; 1500], [0; 1500]);
            while !done.load(Ordering::Relaxed) {
                let Ok((len, from)) = server_socket.recv_from(&mut request) else { continue };
                if let Some(len) = server.answer(&request[..len], &mut reply) {
                    server_socket.send_to(&reply[..len], from).unwrap();
                }
            }
        });
        let here = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0);
        let mut port = SocketPort::bind(here, server_address, None, None).unwrap();
        let (world, stats, span) =
            drive(plain(), &mut port, 2000, 1000, Pace::Rate(2000.0), Patience::once(10 * SECOND));
        done.store(true, Ordering::Relaxed);
        assert_eq!(world.violations_total(), 0, "{:?}", world.described);
        assert_eq!(stats.get(Counter::Completed), 1000);
        assert!(span.sent - span.begin >= SECOND * 999 / 2000, "not faster than the schedule");
        assert_eq!(stats.lag.len(), 2000);
        assert_eq!(port.info().mode, "socket");
    });
}
