//! Whole runs against a pair of servers in memory: one that dies, one that takes over, and what they
//! may and may not do.

use std::{collections::HashMap, io, net::Ipv6Addr, sync::atomic::AtomicBool};

use gemel_bench::{
    clock::Clock,
    engine::{Choice, Engine, Patience, ReplySeen, Retransmit, World},
    generator::{self, Course},
    message::Traffic,
    oracle::Violation,
    port::{Port, PortInfo},
    schedule::{Pace, Schedule},
    stats::{Counter, Pair, Stats},
};
use gemel_wire::{Emitter, Ia, Message, MessageType, OptionCode, StatusCode};

const MS: u64 = 1_000_000;
const DUIDS: [&[u8]; 2] = [&[0, 3, 0, 1, 2, 0, 0, 0, 0, 1], &[0, 3, 0, 1, 2, 0, 0, 0, 0, 2]];

/// How the pair behaves.
#[derive(Clone, Copy)]
struct Conduct {
    /// The first server falls silent after this many datagrams.
    dies_after: u64,
    /// Which of the two answer to what names no server, while both live.
    responsive: [bool; 2],
    /// The second one answers such messages only once the first one is dead.
    takes_over: bool,
    /// Every n-th datagram goes missing.
    drop: Option<u64>,
    /// What the second server knows of the leases that the first one gave.
    second: Second,
}

#[derive(Clone, Copy, PartialEq)]
enum Second {
    /// Everything.
    Knows,
    /// Nothing, and gives others instead.
    Renumbers,
    /// Nothing, and gives them to others.
    Duplicates,
    /// Nothing, and says so.
    Forgets,
    /// Nothing, and leaves it at that: RFC 8415 section 18.3.5 lets a server ignore such a REBIND.
    Ignores,
}

impl Default for Conduct {
    fn default() -> Self {
        Self {
            dies_after: u64::MAX,
            responsive: [true, false],
            takes_over: true,
            drop: None,
            second: Second::Knows,
        }
    }
}

/// Both servers and the wires to them.
struct PairPort {
    conduct: Conduct,
    datagrams: u64,
    leases: [HashMap<Vec<u8>, u32>; 2],
    next: [u32; 2],
    replies: [u64; 2],
    answers: Vec<Vec<u8>>,
}

impl PairPort {
    fn new(conduct: Conduct) -> Self {
        // The first gives odd numbers, the second even ones, as in RFC 8156 section 4.2.1.1.
        let next = if conduct.second == Second::Duplicates { [1, 1] } else { [1, 2] };
        let (leases, answers) = Default::default();
        Self { conduct, datagrams: 0, leases, next, replies: [0, 0], answers }
    }

    fn answer(&mut self, server: usize, message: &Message<'_>) -> Option<Vec<u8>> {
        let dead = self.datagrams > self.conduct.dies_after;
        if server == 0 && dead {
            return None;
        }
        let named = message.options.first(OptionCode::SERVER_ID);
        let responsive = match named {
            Some(duid) => duid == DUIDS[server],
            None => {
                self.conduct.responsive[server] || self.conduct.takes_over && server == 1 && dead
            }
        };
        if !responsive {
            return None;
        }
        let advertise = message.msg_type == MessageType::SOLICIT;
        let client = message.options.first(OptionCode::CLIENT_ID)?;
        let mut buffer = [0; 600];
        let mut out = Emitter::new(&mut buffer);
        let msg_type = if advertise { MessageType::ADVERTISE } else { MessageType::REPLY };
        out.message(msg_type, message.transaction_id);
        out.option(OptionCode::CLIENT_ID, client);
        out.option(OptionCode::SERVER_ID, DUIDS[server]);
        let ia = Ia::parse(message.options.first(OptionCode::IA_NA)?).ok()?;
        let mark = out.begin_ia(OptionCode::IA_NA, ia.iaid, 1, 2);
        let holds = matches!(message.msg_type, MessageType::RENEW | MessageType::REBIND);
        let database = usize::from(server == 1 && self.conduct.second != Second::Knows);
        let knows = self.leases[database].contains_key(client);
        if holds && !knows && self.conduct.second == Second::Ignores {
            return None;
        }
        if server == 1 && holds && self.conduct.second == Second::Forgets {
            out.status(StatusCode::NO_BINDING, "never heard of it");
        } else {
            let number = *self.leases[database].entry(client.to_vec()).or_insert_with(|| {
                self.next[server] += 2;
                self.next[server]
            });
            let valid = match (server, self.conduct.second) {
                (0, Second::Ignores) => 2,
                (0, _) => 7200,
                _ => 60,
            };
            out.ia_addr(Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(number)), 1, valid);
        }
        out.end(mark);
        self.replies[server] += u64::from(!advertise);
        let len = out.finish().ok()?;
        Some(buffer[..len].to_vec())
    }
}

impl Port for PairPort {
    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> io::Result<u64> {
        for answer in self.answers.drain(..) {
            take(&answer);
        }
        Ok(0)
    }

    fn send(&mut self, fill: &mut impl FnMut(&mut [u8]) -> Option<usize>) -> io::Result<bool> {
        let mut buffer = [0; 1452];
        let Some(len) = fill(&mut buffer) else { return Ok(true) };
        self.datagrams += 1;
        if self.conduct.drop.is_some_and(|n| self.datagrams.is_multiple_of(n)) {
            return Ok(true);
        }
        let message = Message::parse(&buffer[..len]).unwrap();
        for server in [0, 1] {
            if let Some(answer) = self.answer(server, &message) {
                self.answers.push(answer);
            }
        }
        Ok(true)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn info(&self) -> PortInfo {
        PortInfo { mode: "memory".into(), ..PortInfo::default() }
    }
}

/// Clients that send again after 2 ms and turn to any server after 5 ms.
const PATIENCE: Patience = Patience {
    timeout: 2000 * MS,
    retransmit: Retransmit::After(2 * MS),
    any_server: Some(5 * MS),
    end: None,
};

struct Outcome {
    world: World,
    stats: Stats,
    replies: Vec<ReplySeen>,
    port: PairPort,
}

/// 1000 exchanges, half of them of clients that come back.
fn drive(conduct: Conduct) -> Outcome {
    let traffic = Traffic { renew_share: 1.0, ..Traffic::addresses(Choice::Returning(0.5)) };
    let clock = Clock::start();
    let mut port = PairPort::new(conduct);
    let world = World::new(7, 2000, 1);
    let mut engine = Engine::new(traffic, world, 1024, PATIENCE, 7, clock.now());
    engine.watch(Some(60));
    let begin = clock.now();
    let mut schedule = Schedule::new(Pace::Window(8), begin, 60_000 * MS, Some(1000));
    let never = AtomicBool::new(false);
    let course = Course { begin, interval: 1000 * MS, clock: &clock, stop: &never, steering: None };
    let span = generator::run(&mut engine, &mut port, &mut schedule, &course).unwrap();
    let replies = engine.take_replies();
    let (mut world, stats) = engine.finish();
    world.audit(span.end);
    Outcome { world, stats, replies, port }
}

#[test]
fn clients_go_over_to_the_server_that_lives() {
    let Outcome { world, stats, replies, .. } =
        drive(Conduct { dies_after: 700, ..Conduct::default() });
    assert_eq!(world.violations_total(), 0, "{:?}", world.described);
    assert_eq!((stats.get(Counter::Completed), stats.lost(), stats.failed()), (1000, 0, 0));
    let turned = stats.get(Counter::RenewTurned);
    assert!(turned > 100, "{turned} clients found their server dead");
    assert_eq!(stats.get(Counter::SentRebind), turned);
    assert_eq!(stats.pair(Pair::RebindReply).answered.len(), turned);
    // A whole renewal is timed from the RENEW that had no answer.
    let whole = &stats.pair(Pair::Renewal).answered;
    assert!(whole.count_between(5 * MS, u64::MAX) >= turned, "of {turned}");
    assert!(stats.pair(Pair::RenewReply).timed_out.len() == turned);
    assert_eq!(replies.len() as u64, stats.get(Counter::Reply));
    let first_of_second = replies.iter().position(|seen| seen.server == 1).unwrap();
    assert!(replies[first_of_second..].iter().all(|seen| seen.server == 1));
    assert_eq!(world.servers[0].replies, first_of_second as u64);
    // The second server gives 60 s to clients that had hours left.
    assert_eq!(stats.get(Counter::LifetimeShortened), turned);
    assert_eq!(stats.get(Counter::GrantAtMostMclt), world.servers[1].replies);
}

/// The first server offers and is dead before the REQUEST: the client holds nothing and takes what
/// the second one offers.
#[test]
fn a_request_without_an_answer_is_no_promise() {
    let Outcome { world, stats, .. } = drive(Conduct { dies_after: 1, ..Conduct::default() });
    assert_eq!(world.violations_total(), 0, "{:?}", world.described);
    assert!(stats.get(Counter::RequestTurned) >= 1);
    assert_eq!((stats.get(Counter::Completed), stats.lost()), (1000, 0));
    assert_eq!(world.servers[0].replies, 0);
    let exchange = &stats.pair(Pair::Exchange).answered;
    assert!(exchange.max() >= 5 * MS, "timed from the first SOLICIT");
}

/// A client whose lease nobody knows any more keeps asking until it has ended, and then begins anew.
#[test]
fn a_lease_that_nobody_extends_ends() {
    let conduct = Conduct { dies_after: 700, second: Second::Ignores, ..Conduct::default() };
    let Outcome { world, stats, .. } = drive(conduct);
    assert_eq!(world.violations_total(), 0, "{:?}", world.described);
    let turned = stats.get(Counter::RebindTurned);
    assert!(turned >= 4, "{turned}");
    assert_eq!((stats.get(Counter::Completed), stats.lost()), (1000, 0));
    // From the RENEW to the end of the lease and on to the next one.
    let exchange = &stats.pair(Pair::Exchange).answered;
    assert!(exchange.count_between(500 * MS, u64::MAX) >= turned.min(5), "{}", exchange.max());
}

#[test]
fn the_first_advertise_is_taken_and_the_others_are_counted() {
    let Outcome { world, stats, port, .. } =
        drive(Conduct { responsive: [true, true], ..Conduct::default() });
    assert_eq!(world.violations_total(), 0, "{:?}", world.described);
    let solicits = stats.get(Counter::SentSolicit);
    assert_eq!(stats.get(Counter::Advertise), solicits);
    assert_eq!(stats.get(Counter::AdvertiseFurther), solicits);
    assert_eq!((port.replies, stats.get(Counter::Late)), ([1000, 0], 0));
}

#[test]
fn what_gets_lost_is_sent_again() {
    let Outcome { world, stats, .. } = drive(Conduct { drop: Some(7), ..Conduct::default() });
    assert_eq!(world.violations_total(), 0, "{:?}", world.described);
    assert_eq!((stats.get(Counter::Completed), stats.lost()), (1000, 0));
    let again = stats.get(Counter::SentAgain);
    assert!(again >= 150, "{again}");
    // Latency counts from the first time.
    let slow = stats.pair(Pair::RequestReply).answered.count_between(MS, u64::MAX);
    assert!(slow >= 20, "{slow}");
}

#[test]
fn without_retransmission_it_is_lost() {
    let patience = Patience::once(10 * MS);
    let traffic = Traffic::addresses(Choice::InTurn);
    let clock = Clock::start();
    let mut port = PairPort::new(Conduct { drop: Some(10), ..Conduct::default() });
    let mut engine = Engine::new(traffic, World::new(7, 100, 1), 64, patience, 7, clock.now());
    let begin = clock.now();
    let mut schedule = Schedule::new(Pace::Window(8), begin, 60_000 * MS, Some(100));
    let never = AtomicBool::new(false);
    let course = Course { begin, interval: 1000 * MS, clock: &clock, stop: &never, steering: None };
    generator::run(&mut engine, &mut port, &mut schedule, &course).unwrap();
    let stats = engine.stats();
    assert_eq!(stats.get(Counter::SentAgain), 0);
    assert!(stats.lost() >= 15);
    assert_eq!(stats.get(Counter::Completed) + stats.lost(), 100);
}

#[test]
fn what_the_second_server_must_not_do_fails_the_run() {
    for (second, violation) in [
        (Second::Renumbers, Violation::Renumbered),
        (Second::Duplicates, Violation::Duplicate),
        (Second::Forgets, Violation::BindingForgotten),
    ] {
        let Outcome { world, .. } =
            drive(Conduct { dies_after: 700, second, ..Conduct::default() });
        assert!(world.violations(violation) > 50, "{violation:?}: {:?}", world.described);
    }
}
