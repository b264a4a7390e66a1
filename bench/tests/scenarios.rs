//! The scenarios against a small server in memory: every kind of message, clients by the thousand at
//! one moment, threads that share the clients.

use std::{
    collections::HashMap,
    net::Ipv6Addr,
    sync::{Arc, Mutex, OnceLock, atomic::AtomicBool},
};

use gemel_bench::{
    client::Wanted,
    clock::Clock,
    engine::{Choice, Engine, Patience, World},
    generator::{self, Course, Span, Steering},
    message::Traffic,
    oracle::Violation,
    port::{Answer, MemoryPort},
    scenario::StormReport,
    schedule::{Pace, Schedule, part_of},
    stats::{Counter, Pair, Stats},
};
use gemel_wire::{Emitter, Ia, IaAddr, Message, MessageType, OptionCode, StatusCode};

/// One for all runs: what was granted in one is still valid in the next.
static CLOCK: OnceLock<Clock> = OnceLock::new();
const SECOND: u64 = 1_000_000_000;
const SERVER: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 1];
const WANTED: Wanted = Wanted { na: true, pd: false };

/// What the server does wrong, or refuses.
#[derive(Clone, Copy, Default)]
struct Faults {
    /// Every n-th datagram goes missing.
    drop: Option<u64>,
    /// No SOLICIT is heard before this many have come.
    deaf: u64,
    /// The answer to RELEASE has no status.
    no_status: bool,
    /// RELEASE is answered with NoBinding.
    forget: bool,
    /// CONFIRM is answered with NotOnLink.
    moved: bool,
    /// Declined addresses are given out at once.
    careless: bool,
    /// SOL_MAX_RT in every answer, seconds.
    sol_max_rt: Option<u32>,
}

/// Addresses by DUID, and those that are free again.
#[derive(Default)]
struct Server {
    faults: Faults,
    leases: HashMap<Vec<u8>, u32>,
    free: Vec<u32>,
    next: u32,
    datagrams: u64,
    seen: HashMap<u8, u64>,
}

impl Server {
    fn answer(&mut self, datagram: &[u8], buffer: &mut [u8]) -> Option<usize> {
        self.datagrams += 1;
        if self.faults.drop.is_some_and(|n| self.datagrams.is_multiple_of(n)) {
            return None;
        }
        let message = Message::parse(datagram).unwrap();
        let seen = self.seen.entry(message.msg_type.0).or_default();
        *seen += 1;
        if message.msg_type == MessageType::SOLICIT && *seen <= self.faults.deaf {
            return None;
        }
        let client = message.options.first(OptionCode::CLIENT_ID).unwrap();
        let mut out = Emitter::new(buffer);
        let kind = message.msg_type;
        let answer =
            if kind == MessageType::SOLICIT { MessageType::ADVERTISE } else { MessageType::REPLY };
        out.message(answer, message.transaction_id);
        out.option(OptionCode::CLIENT_ID, client);
        out.option(OptionCode::SERVER_ID, SERVER);
        if let Some(seconds) = self.faults.sol_max_rt {
            out.option(OptionCode(82), &seconds.to_be_bytes());
        }
        let ia = message.options.first(OptionCode::IA_NA).map(|body| Ia::parse(body).unwrap());
        match kind {
            MessageType::RELEASE | MessageType::DECLINE => {
                self.take_back(client, &ia.unwrap(), kind, &mut out);
            }
            MessageType::CONFIRM => {
                assert!(message.options.first(OptionCode::SERVER_ID).is_none());
                let held = ia.unwrap().options.first(OptionCode::IA_ADDR).is_some();
                assert!(held, "CONFIRM names the address");
                let status =
                    if self.faults.moved { StatusCode::NOT_ON_LINK } else { StatusCode::SUCCESS };
                out.status(status, "");
            }
            MessageType::INFORMATION_REQUEST => {
                assert!(ia.is_none(), "INFORMATION-REQUEST names no IA");
                out.option(OptionCode(23), &[0; 16]);
            }
            _ => self.grant(client, &ia.unwrap(), &mut out),
        }
        Some(out.finish().unwrap())
    }

    fn grant(&mut self, client: &[u8], ia: &Ia<'_>, out: &mut Emitter<'_>) {
        let number = *self.leases.entry(client.to_vec()).or_insert_with(|| {
            self.free.pop().unwrap_or_else(|| {
                self.next += 1;
                self.next
            })
        });
        let mark = out.begin_ia(OptionCode::IA_NA, ia.iaid, 500, 800);
        out.ia_addr(Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(number)), 1000, 2000);
        out.end(mark);
    }

    fn take_back(&mut self, client: &[u8], ia: &Ia<'_>, kind: MessageType, out: &mut Emitter<'_>) {
        if !self.faults.no_status {
            out.status(StatusCode::SUCCESS, "");
        }
        let named = IaAddr::parse(ia.options.first(OptionCode::IA_ADDR).unwrap()).unwrap();
        let number = self.leases.remove(client);
        let known = number
            .is_some_and(|number| u128::from(named.address) & 0xffff_ffff == u128::from(number));
        if !known || self.faults.forget {
            let mark = out.begin_ia(OptionCode::IA_NA, ia.iaid, 0, 0);
            out.status(StatusCode::NO_BINDING, "");
            out.end(mark);
        } else if kind == MessageType::RELEASE || self.faults.careless {
            self.free.extend(number);
        }
    }
}

struct Run {
    choice: Choice,
    pace: Pace,
    exchanges: u64,
    patience: Patience,
    storm: bool,
}

impl Run {
    fn new(choice: Choice, exchanges: u64) -> Self {
        let (pace, patience) = (Pace::Window(16), Patience::once(SECOND / 20));
        Self { choice, pace, exchanges, patience, storm: false }
    }

    fn go(&self, server: &mut Server, world: World) -> (World, Stats, Span) {
        self.go_by(world, 7, |datagram: &[u8], buffer: &mut [u8]| server.answer(datagram, buffer))
    }

    fn go_by(&self, world: World, seed: u64, answer: impl Answer) -> (World, Stats, Span) {
        let clock = *CLOCK.get_or_init(Clock::start);
        let slots = u32::try_from(world.clients.len()).unwrap();
        let mut patience = self.patience;
        patience.end = patience.end.map(|after| clock.now() + after);
        let mut engine =
            Engine::new(Traffic::addresses(self.choice), world, slots, patience, seed, clock.now());
        let begin = clock.now();
        if self.storm {
            engine.watch_served(begin, self.pace == Pace::AtOnce);
        }
        let mut schedule = Schedule::new(self.pace, begin, 60 * SECOND, Some(self.exchanges));
        let never = AtomicBool::new(false);
        let course =
            Course { begin, interval: SECOND, clock: &clock, stop: &never, steering: None };
        let mut port = MemoryPort::new(answer);
        let span = generator::run(&mut engine, &mut port, &mut schedule, &course).unwrap();
        let (mut world, stats) = engine.finish();
        world.audit(span.end);
        (world, stats, span)
    }
}

/// `held` of `clients` clients have a lease.
fn set_up(server: &mut Server, clients: u32, held: u32) -> World {
    let world = World::new(3, clients, 1);
    let (world, stats, _) = Run::new(Choice::Fresh, held.into()).go(server, world);
    assert_eq!((world.clients.holding(), stats.get(Counter::Completed)), (held, held.into()));
    world
}

fn mix(shares: &str) -> Choice {
    Choice::Mix(shares.parse().unwrap())
}

#[test]
fn every_kind_of_exchange_is_answered() {
    let mut server = Server::default();
    let world = set_up(&mut server, 4000, 2000);
    let shares = "new=15,renew=20,rebind=10,release=13,decline=2,confirm=20,inform=20";
    let (world, stats, _) = Run::new(mix(shares), 10_000).go(&mut server, world);
    assert_eq!(world.violations_total(), 0, "{:?}", world.described);
    assert_eq!((stats.get(Counter::Completed), stats.lost(), stats.failed()), (10_000, 0, 0));
    for (counter, pair, share) in [
        (Counter::SentSolicit, Pair::Exchange, 1500_u64),
        (Counter::SentRenew, Pair::RenewReply, 2000),
        (Counter::SentRebind, Pair::RebindReply, 1000),
        (Counter::SentRelease, Pair::ReleaseReply, 1300),
        (Counter::SentDecline, Pair::DeclineReply, 200),
        (Counter::SentConfirm, Pair::ConfirmReply, 2000),
        (Counter::SentInform, Pair::InformReply, 2000),
    ] {
        let count = stats.get(counter);
        assert!(count.abs_diff(share) < share / 5 + 20, "{counter:?}: {count} of {share}");
        assert_eq!(stats.pair(pair).answered.len(), count, "{pair:?}");
    }
    let gone = stats.get(Counter::SentRelease) + stats.get(Counter::SentDecline);
    let holding = 2000 + stats.get(Counter::SentSolicit) - gone;
    assert_eq!(u64::from(world.clients.holding()), holding);
    assert_eq!(server.leases.len() as u64, holding, "the server thinks the same");
    assert_eq!(stats.get(Counter::DeclinedGiven), 0);
}

#[test]
fn what_a_server_must_not_answer_fails_the_run() {
    let nothing = Faults::default();
    for (faults, shares, violation) in [
        (Faults { no_status: true, ..nothing }, "release=1", Violation::StatusMissing),
        (Faults { forget: true, ..nothing }, "release=1", Violation::BindingForgotten),
        (Faults { forget: true, ..nothing }, "decline=1", Violation::BindingForgotten),
    ] {
        let mut server = Server { faults, ..Server::default() };
        let world = set_up(&mut server, 100, 100);
        let (world, stats, _) = Run::new(mix(shares), 50).go(&mut server, world);
        assert_eq!(world.violations(violation), 50, "{shares}: {:?}", world.described);
        assert_eq!((stats.get(Counter::Invalid), stats.get(Counter::Completed)), (50, 0));
    }
}

#[test]
fn a_client_that_has_moved_is_refused() {
    let faults = Faults { moved: true, ..Faults::default() };
    let mut server = Server { faults, ..Server::default() };
    let world = set_up(&mut server, 100, 100);
    let (world, stats, _) = Run::new(mix("confirm=1"), 50).go(&mut server, world);
    assert_eq!(world.violations_total(), 0);
    assert_eq!((stats.get(Counter::RefusedNotOnLink), stats.failed()), (50, 50));
}

#[test]
fn a_declined_address_that_comes_again_is_counted() {
    let faults = Faults { careless: true, ..Faults::default() };
    let mut server = Server { faults, ..Server::default() };
    let world = set_up(&mut server, 200, 100);
    let (world, _, _) = Run::new(mix("decline=1"), 40).go(&mut server, world);
    assert_eq!(world.clients.holding(), 60);
    let (world, stats, _) = Run::new(mix("new=1"), 40).go(&mut server, world);
    assert_eq!(world.violations_total(), 0, "{:?}", world.described);
    assert_eq!(stats.get(Counter::DeclinedGiven), 40);
}

/// A RELEASE whose answer is lost is sent again and finds no binding any more: nothing is wrong.
#[test]
fn a_release_may_be_heard_twice() {
    let faults = Faults { forget: true, ..Faults::default() };
    let mut server = Server::default();
    let world = set_up(&mut server, 20, 20);
    server.faults = faults;
    // The first RELEASE of each client goes missing on the way.
    server.faults.drop = Some(2);
    server.datagrams = 1;
    let run = Run {
        pace: Pace::Window(1),
        patience: Patience::by_rfc(10 * SECOND),
        ..Run::new(mix("release=1"), 2)
    };
    let (world, stats, _) = run.go(&mut server, world);
    assert_eq!(world.violations_total(), 0, "{:?}", world.described);
    assert_eq!((stats.get(Counter::Completed), stats.get(Counter::SentAgain)), (2, 2));
    // Timed from the first time: RT is at least 0.9 s.
    assert!(stats.pair(Pair::ReleaseReply).answered.min() > SECOND / 10 * 9 - 2_000_000);
}

#[test]
fn an_avalanche_is_served_to_the_last_client() {
    for pace in [Pace::AtOnce, Pace::Rate(100_000.0)] {
        let mut server = Server::default();
        let run = Run {
            pace,
            patience: Patience::by_rfc(30 * SECOND),
            storm: true,
            ..Run::new(Choice::Fresh, 20_000)
        };
        let (world, stats, span) = run.go(&mut server, World::new(3, 20_000, 1));
        assert_eq!(world.violations_total(), 0, "{:?}", world.described);
        let report = StormReport::new(20_000, 0.0, &stats, &span);
        assert_eq!((report.served, report.retransmissions, report.sent), (20_000, 0, 40_000));
        let until = [report.until_50_s, report.until_90_s, report.until_all_s].map(Option::unwrap);
        assert!(until.is_sorted() && until[2] < 20.0, "{until:?}");
        assert_eq!(report.curve.last().unwrap().clients, 20_000);
    }
}

/// The answers of a run that has given up waiting for them come in during the next one.
#[test]
fn answers_to_the_run_before_are_late() {
    let mut server = Server::default();
    let mut left = Vec::new();
    let run = Run { pace: Pace::AtOnce, ..Run::new(Choice::InTurn, 200) };
    let world = run.go_by(World::new(3, 1000, 1), 7, |datagram: &[u8], buffer: &mut [u8]| {
        let len = server.answer(datagram, buffer)?;
        left.push(buffer[..len].to_vec());
        None
    });
    assert_eq!((world.1.lost(), left.len()), (200, 200));
    let run = Run::new(Choice::InTurn, 300);
    let (world, stats, _) =
        run.go_by(world.0, 8, |datagram: &[u8], buffer: &mut [u8]| match left.pop() {
            // In place of its own answer the client gets an old one, and has to ask again.
            Some(old) => {
                buffer[..old.len()].copy_from_slice(&old);
                Some(old.len())
            }
            None => server.answer(datagram, buffer),
        });
    assert_eq!(world.violations_total(), 0, "{:?}", world.described);
    assert_eq!(stats.get(Counter::AdvertiseFurther), 200);
    assert_eq!((stats.get(Counter::Completed), stats.lost()), (100, 200));
}

/// A port with room for one datagram in so many ns.
struct Narrow<F> {
    port: MemoryPort<F>,
    clock: Clock,
    gap: u64,
    next: u64,
}

impl<F: Answer> gemel_bench::port::Port for Narrow<F> {
    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> std::io::Result<u64> {
        self.port.receive(take)
    }

    fn send(&mut self, fill: &mut impl FnMut(&mut [u8]) -> Option<usize>) -> std::io::Result<bool> {
        let now = self.clock.now();
        if now < self.next {
            return Ok(false);
        }
        self.next = now + self.gap;
        self.port.send(fill)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    fn info(&self) -> gemel_bench::port::PortInfo {
        self.port.info()
    }
}

/// An avalanche of clients that are all due at once, through a port with room for one in so many ns.
fn through_a_narrow_port(clients: u32, gap: u64, seconds: u64) -> (Stats, Span) {
    let clock = *CLOCK.get_or_init(Clock::start);
    let mut server = Server::default();
    let begin = clock.now();
    let patience = Patience::by_rfc(begin + seconds * SECOND);
    let world = World::new(3, clients, 1);
    let mut engine =
        Engine::new(Traffic::addresses(Choice::Fresh), world, clients, patience, 7, begin);
    engine.watch_served(begin, true);
    let mut schedule = Schedule::new(Pace::AtOnce, begin, SECOND, Some(clients.into()));
    let never = AtomicBool::new(false);
    let course = Course { begin, interval: SECOND, clock: &clock, stop: &never, steering: None };
    let port =
        MemoryPort::new(|datagram: &[u8], buffer: &mut [u8]| server.answer(datagram, buffer));
    let mut port = Narrow { port, clock, gap, next: 0 };
    let span = generator::run(&mut engine, &mut port, &mut schedule, &course).unwrap();
    (engine.finish().1, span)
}

#[test]
fn a_slow_port_does_not_leave_clients_out() {
    // Two messages for each of them take 1.2 s, more than the schedule is long.
    let (stats, span) = through_a_narrow_port(300, SECOND / 500, 20);
    assert_eq!((stats.get(Counter::Started), stats.get(Counter::Completed)), (300, 300));
    assert!(span.sent - span.begin > SECOND, "or this shows nothing");
    // The last one is answered when there are no more to begin.
    let in_time = stats.answered_in_time(Pair::SolicitAdvertise);
    assert!((200..300).contains(&in_time), "{in_time}");
}

#[test]
fn a_storm_ends_when_its_clients_give_up() {
    let (stats, span) = through_a_narrow_port(1000, SECOND / 100, 1);
    let started = stats.get(Counter::Started);
    assert!((10..=101).contains(&started), "{started}");
    assert!(span.end - span.begin < 2 * SECOND);
}

#[test]
fn clients_that_are_not_heard_ask_again_after_a_second() {
    let faults = Faults { deaf: 300, ..Faults::default() };
    let mut server = Server { faults, ..Server::default() };
    let run = Run {
        pace: Pace::AtOnce,
        patience: Patience::by_rfc(20 * SECOND),
        storm: true,
        ..Run::new(Choice::Fresh, 500)
    };
    let (world, stats, span) = run.go(&mut server, World::new(3, 500, 1));
    assert_eq!(world.violations_total(), 0, "{:?}", world.described);
    let report = StormReport::new(500, 0.0, &stats, &span);
    assert_eq!((report.served, report.retransmissions), (500, 300));
    // 200 are heard at once; RAND of the first SOLICIT is above 0, so all others wait more than IRT.
    let served = stats.served.as_ref().unwrap();
    assert_eq!(served.count_between(0, SECOND / 10 * 9), 200);
    assert_eq!(served.count_between(SECOND - SECOND / 500, SECOND / 10 * 13), 300);
    // Latency counts from the first time.
    assert!(stats.pair(Pair::SolicitAdvertise).answered.max() >= SECOND);
}

#[test]
fn who_is_never_heard_is_lost_at_the_end() {
    let faults = Faults { deaf: u64::MAX, sol_max_rt: Some(60), ..Faults::default() };
    let mut server = Server { faults, ..Server::default() };
    let run = Run {
        pace: Pace::AtOnce,
        patience: Patience::by_rfc(SECOND * 3 / 2),
        storm: true,
        ..Run::new(Choice::Fresh, 100)
    };
    let (_, stats, span) = run.go(&mut server, World::new(3, 100, 1));
    assert_eq!((stats.lost(), stats.get(Counter::SentAgain)), (100, 100));
    assert!(span.end - span.begin >= SECOND * 3 / 2 - SECOND / 5);
    let report = StormReport::new(100, 0.0, &stats, &span);
    assert_eq!((report.served, report.until_50_s), (0, None));
    assert_eq!(stats.pair(Pair::Exchange).timed_out.len(), 100);
}

#[test]
fn all_that_hold_a_lease_renew_once() {
    let mut server = Server::default();
    let world = set_up(&mut server, 3000, 2500);
    let run = Run {
        pace: Pace::AtOnce,
        patience: Patience::by_rfc(20 * SECOND),
        storm: true,
        ..Run::new(Choice::Holders, 2500)
    };
    let (world, stats, span) = run.go(&mut server, world);
    assert_eq!(world.violations_total(), 0, "{:?}", world.described);
    assert_eq!((stats.get(Counter::SentRenew), stats.get(Counter::Sent)), (2500, 2500));
    assert_eq!(StormReport::new(2500, 0.0, &stats, &span).served, 2500);
}

#[test]
fn a_churn_keeps_the_fill() {
    let mut server = Server::default();
    let world = set_up(&mut server, 1000, 300);
    let run = Run::new(Choice::Churn { held: 300 }, 2000);
    let (world, stats, _) = run.go(&mut server, world);
    assert_eq!(world.violations_total(), 0, "{:?}", world.described);
    assert_eq!(stats.get(Counter::Completed), 2000);
    let (came, left) = (stats.get(Counter::SentSolicit), stats.get(Counter::SentRelease));
    assert!(came.abs_diff(left) <= 16 && came + left == 2000, "{came} came, {left} left");
    assert!(world.clients.holding().abs_diff(300) <= 16, "{}", world.clients.holding());
    assert_eq!(server.leases.len(), usize::try_from(world.clients.holding()).unwrap());
    // Everybody's turn came: the first to come were the first to go, and others followed.
    assert!(server.next <= 316, "addresses are given again: {}", server.next);
}

/// Two threads with one server; every answer comes in on the other one's queue.
#[test]
fn threads_hand_each_other_what_is_not_theirs() {
    let clients = 1001;
    let server = Mutex::new(Server::default());
    let clock = Clock::start();
    let never = AtomicBool::new(false);
    let begin = clock.now();
    let boxes: [Arc<Mutex<Vec<Vec<u8>>>>; 2] = Default::default();
    let steering = Steering::between(2);
    let mut first = 0;
    let (server, clock, never) = (&server, &clock, &never);
    let results: Vec<_> = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, steering) in (0..2_u32).zip(steering) {
            let count = u32::try_from(part_of(clients, number, 2)).unwrap();
            let world = World::part(3, first, count, 1);
            first += count;
            let other = Arc::clone(&boxes[usize::from(number == 0)]);
            let own = Arc::clone(&boxes[usize::from(number == 1)]);
            threads.push(scope.spawn(move || {
                let mut port = Crossed { server, own, other, buffer: vec![0; 1452] };
                let patience = Patience::once(5 * SECOND);
                let parts = (number, 2);
                let choice = Traffic::addresses(Choice::Fresh);
                let mut engine = Engine::part(choice, world, 64, patience, 7, begin, parts);
                let mut schedule =
                    Schedule::new(Pace::Window(8), begin, 60 * SECOND, Some(count.into()));
                let course = Course {
                    begin,
                    interval: SECOND,
                    clock,
                    stop: never,
                    steering: Some(steering),
                };
                let span = generator::run(&mut engine, &mut port, &mut schedule, &course).unwrap();
                let (world, stats) = engine.finish();
                (world, stats, span)
            }));
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut all = Stats::new(0);
    let mut worlds = Vec::new();
    for (world, stats, _) in results {
        all.merge(&stats);
        worlds.push(world);
    }
    assert_eq!((all.get(Counter::Completed), all.lost()), (clients, 0));
    assert_eq!(all.get(Counter::Steered), 2 * clients, "ADVERTISE and REPLY of each");
    let world = World::join(&worlds, 3, 0);
    assert_eq!(world.violations_total(), 0, "{:?}", world.described);
    assert_eq!((world.ledger.len() as u64, world.servers[0].replies), (clients, clients));
    let mut numbers: Vec<_> = world.ledger.sorted().iter().map(|grant| grant.client.0).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..1001), "numbered over the whole population");
    let wanted = |world: &World| world.clients.holding();
    assert_eq!(worlds.iter().map(wanted).sum::<u32>(), 1001);
    assert!(worlds[1].clients.state(gemel_bench::client::ClientIndex(0)).holds(WANTED, 1));
}

/// A port whose answers go to the other thread.
struct Crossed<'a> {
    server: &'a Mutex<Server>,
    own: Arc<Mutex<Vec<Vec<u8>>>>,
    other: Arc<Mutex<Vec<Vec<u8>>>>,
    buffer: Vec<u8>,
}

impl gemel_bench::port::Port for Crossed<'_> {
    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> std::io::Result<u64> {
        let came = std::mem::take(&mut *self.own.lock().unwrap());
        for datagram in came {
            take(&datagram);
        }
        Ok(0)
    }

    fn send(&mut self, fill: &mut impl FnMut(&mut [u8]) -> Option<usize>) -> std::io::Result<bool> {
        let Some(len) = fill(&mut self.buffer) else { return Ok(true) };
        let mut reply = vec![0; 1452];
        if let Some(len) = self.server.lock().unwrap().answer(&self.buffer[..len], &mut reply) {
            reply.truncate(len);
            self.other.lock().unwrap().push(reply);
        }
        Ok(true)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    fn info(&self) -> gemel_bench::port::PortInfo {
        gemel_bench::port::PortInfo::default()
    }
}
