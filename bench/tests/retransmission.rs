//! Retransmission by RFC 8415 section 15, hour after hour: the engine reads no clock, so the test makes
//! the time.

use gemel_bench::{
    engine::{Choice, Engine, Patience, World},
    message::Traffic,
    stats::{Counter, Pair},
};
use gemel_wire::{Emitter, Message, MessageType, OptionCode};

const SECOND: u64 = 1_000_000_000;
const MS: u64 = SECOND / 1000;
const SERVER: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 1];

/// A client and the clock.
struct Lab {
    engine: Engine,
    now: u64,
    /// Every message with its time, type, transaction id and Elapsed Time.
    sent: Vec<(u64, MessageType, [u8; 3], u16)>,
    sol_max_rt: Option<u32>,
}

impl Lab {
    fn new(choice: Choice, seed: u64) -> Self {
        let traffic = Traffic::addresses(choice);
        let patience = Patience::by_rfc(1_000_000 * SECOND);
        let world = World::new(1, 1, 1);
        let engine = Engine::new(traffic, world, 16, patience, seed, SECOND);
        Self { engine, now: SECOND, sent: Vec::new(), sol_max_rt: None }
    }

    fn begin(&mut self) {
        let mut buffer = [0; 1452];
        let len = self.engine.start(self.now, self.now, &mut buffer).unwrap();
        self.note(&buffer[..len]);
    }

    fn note(&mut self, datagram: &[u8]) {
        let message = Message::parse(datagram).unwrap();
        let elapsed = message.options.first(OptionCode::ELAPSED_TIME).unwrap();
        let elapsed = u16::from_be_bytes(elapsed.try_into().unwrap());
        self.sent.push((self.now, message.msg_type, message.transaction_id.0, elapsed));
    }

    /// Answers the last message.
    fn answer(&mut self, msg_type: MessageType) {
        let (_, _, id, _) = *self.sent.last().unwrap();
        let identity =
            gemel_bench::client::Identities::new(1).identity(gemel_bench::client::ClientIndex(0));
        let mut buffer = [0; 600];
        let mut out = Emitter::new(&mut buffer);
        out.message(msg_type, gemel_wire::TransactionId(id));
        out.option(OptionCode::CLIENT_ID, &identity.duid);
        out.option(OptionCode::SERVER_ID, SERVER);
        if let Some(seconds) = self.sol_max_rt {
            out.option(OptionCode(82), &seconds.to_be_bytes());
        }
        let mark = out.begin_ia(OptionCode::IA_NA, identity.iaid_na, 500, 800);
        out.ia_addr("2001:db8::5".parse().unwrap(), u32::MAX, u32::MAX);
        out.end(mark);
        let len = out.finish().unwrap();
        assert_eq!(self.engine.receive(&buffer[..len], self.now), None);
        self.send_ready();
    }

    fn send_ready(&mut self) {
        let mut buffer = [0; 1452];
        while self.engine.has_ready() {
            if let Some(len) = self.engine.next_ready(self.now, &mut buffer) {
                self.note(&buffer[..len]);
            }
        }
    }

    /// Lets the time pass without an answer.
    fn pass(&mut self, seconds: u64) {
        let end = self.now + seconds * SECOND;
        while self.now < end {
            self.now += MS;
            self.engine.expire(self.now);
            self.send_ready();
        }
    }

    /// Seconds between the messages, for people and for comparing.
    fn gaps(&self) -> Vec<f64> {
        let seconds = |ns: u64| u32::try_from(ns / MS).map(|ms| f64::from(ms) / 1e3).unwrap();
        self.sent.windows(2).map(|pair| seconds(pair[1].0 - pair[0].0)).collect()
    }
}

#[test]
fn solicit_goes_on_for_hours() {
    for seed in 0..2 {
        let mut lab = Lab::new(Choice::Fresh, seed);
        lab.begin();
        lab.pass(5 * 3600);
        let gaps = lab.gaps();
        assert!(gaps[0] > 1.0 && gaps[0] <= 1.102, "{gaps:?}");
        let mut at_most = 0;
        for pair in gaps.windows(2) {
            let doubled = pair[1] > pair[0] * 1.89 && pair[1] < pair[0] * 2.11;
            // SOL_MAX_RT is 3600 s.
            let capped = pair[1] > 3239.0 && pair[1] < 3961.0;
            assert!(doubled || capped, "{gaps:?}");
            at_most += u32::from(capped);
        }
        assert!(at_most >= 2, "{gaps:?}");
        assert!(
            lab.sent.iter().all(|sent| (sent.1, sent.2) == (MessageType::SOLICIT, lab.sent[0].2))
        );
        assert_eq!((lab.sent[0].3, lab.sent.last().unwrap().3), (0, u16::MAX), "elapsed time");
        let again = lab.engine.stats().get(Counter::SentAgain);
        assert_eq!(again, lab.sent.len() as u64 - 1);
    }
}

#[test]
fn request_is_sent_ten_times_and_then_all_begins_anew() {
    let mut lab = Lab::new(Choice::Fresh, 1);
    lab.sol_max_rt = Some(60);
    lab.begin();
    lab.answer(MessageType::ADVERTISE);
    lab.pass(300);
    let requests = lab.sent.iter().filter(|sent| sent.1 == MessageType::REQUEST).count();
    assert_eq!(requests, 10, "REQ_MAX_RC");
    assert!(lab.gaps().iter().all(|gap| *gap < 33.1), "REQ_MAX_RT: {:?}", lab.gaps());
    let (_, kind, id, elapsed) = lab.sent[11];
    assert_eq!((kind, elapsed), (MessageType::SOLICIT, 0));
    assert!(lab.sent[..11].iter().all(|sent| sent.2 != id), "a new transaction id");
    assert_eq!(lab.engine.stats().get(Counter::RequestTurned), 1);
    // The server has set SOL_MAX_RT to 60 s.
    lab.pass(3600);
    assert!(lab.gaps()[11..].iter().all(|gap| *gap < 66.1), "{:?}", lab.gaps());
    // It is served in the end, and its time counts from the very first SOLICIT.
    lab.answer(MessageType::ADVERTISE);
    lab.answer(MessageType::REPLY);
    let stats = lab.engine.stats();
    assert_eq!((stats.get(Counter::Completed), stats.lost()), (1, 0));
    let begun = lab.sent[0].0;
    let whole = stats.pair(Pair::Exchange).answered.max();
    assert!(whole.abs_diff(lab.now - begun) < 10 * SECOND, "{whole} ns");
}

#[test]
fn other_messages_end_where_they_should() {
    // How often each is sent, and after how many seconds at most it is given up.
    for (shares, kind, sends, until) in [
        ("release=1", MessageType::RELEASE, 4, 17),
        ("decline=1", MessageType::DECLINE, 4, 17),
        ("confirm=1", MessageType::CONFIRM, 4, 11),
    ] {
        let mut lab = Lab::new(Choice::Fresh, 1);
        lab.begin();
        lab.answer(MessageType::ADVERTISE);
        lab.answer(MessageType::REPLY);
        let now = lab.now;
        let Lab { engine, .. } = lab;
        let (world, stats) = engine.finish();
        assert_eq!((stats.get(Counter::Completed), world.clients.holding()), (1, 1));
        let mut lab = Lab::new(Choice::Mix(shares.parse().unwrap()), 1);
        let patience = Patience::by_rfc(1_000_000 * SECOND);
        let traffic = Traffic::addresses(Choice::Mix(shares.parse().unwrap()));
        lab.engine = Engine::new(traffic, world, 16, patience, 1, now);
        lab.now = now;
        lab.begin();
        lab.pass(until);
        assert_eq!(lab.engine.outstanding(), 0, "{shares}");
        assert!(lab.sent.iter().all(|sent| sent.1 == kind), "{shares}");
        assert!(
            lab.sent.len().abs_diff(sends) <= usize::from(kind == MessageType::CONFIRM),
            "{shares}: {:?}",
            lab.gaps()
        );
        assert_eq!(lab.engine.stats().lost(), 1, "{shares}");
    }
}
