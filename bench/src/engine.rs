//! The exchanges: what to send next, what to make of what comes in, what to give up.
//!
//! The engine does no IO and reads no clock. Times are clock times in ns.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use gemel_wire::{Duid, Message, MessageType, StatusCode};

use crate::{
    client::{ClientIndex, HeldLease, Identity, Population, Random},
    ledger::{Conflict, Ledger, hex, valid_until},
    message::{EnvelopeError, NamedLease, Outgoing, Traffic},
    number::{SECOND_NS, low32, whole},
    oracle::{Answer, Asked, Grant, Violation, judge, refusal_counter},
    record::Outlet,
    slots::{Found, SLOTS_MAX, Slots, Stage},
    stats::{Counter, Interval, Pair, Stats},
};

/// How many violations are described in words; all are counted.
const DESCRIBED_MAX: usize = 32;
/// More servers than this share the last place.
const SERVERS_MAX: usize = 16;

/// A server that has answered.
#[derive(Clone, Copy, Debug)]
pub struct ServerSeen {
    /// Its DUID.
    pub duid: Duid,
    /// Valid ADVERTISE from it.
    pub advertises: u64,
    /// Valid REPLY from it.
    pub replies: u64,
}

/// A violation with what is needed to look into it.
#[derive(Clone, Debug)]
pub struct Described {
    /// Which rule.
    pub violation: Violation,
    /// When, ns since the clock's start.
    pub at: u64,
    /// The client, if it is known.
    pub client: Option<ClientIndex>,
    /// In words, with the datagram in hexadecimal.
    pub detail: String,
}

/// What stays from run to run against the same server: the clients and what they were given.
#[derive(Debug)]
pub struct World {
    /// The clients.
    pub clients: Population,
    /// All grants.
    pub ledger: Ledger,
    /// The servers that have answered.
    pub servers: Vec<ServerSeen>,
    /// Violations by kind.
    violations: [u64; Violation::ALL.len()],
    /// The first violations in words.
    pub described: Vec<Described>,
}

impl World {
    /// `clients` clients made from `seed`, of which each may hold `leases` leases.
    #[must_use]
    pub fn new(seed: u64, clients: u32, leases: u32) -> Self {
        Self {
            clients: Population::new(seed, clients),
            ledger: Ledger::with_capacity(crate::number::index(clients.saturating_mul(leases))),
            servers: Vec::with_capacity(SERVERS_MAX),
            violations: [0; Violation::ALL.len()],
            described: Vec::new(),
        }
    }

    /// How often a rule was broken.
    #[must_use]
    pub fn violations(&self, kind: Violation) -> u64 {
        self.violations[kind as usize]
    }

    /// All violations together.
    #[must_use]
    pub fn violations_total(&self) -> u64 {
        self.violations.iter().sum()
    }

    /// Searches the ledger for leases of different clients that overlap, and counts each as a
    /// duplicate. To be called once, when all is done.
    pub fn audit(&mut self, now: u64) {
        for conflict in self.ledger.overlaps() {
            let client = Some(conflict.later.client);
            self.report(Violation::Duplicate, now, client, || conflict.to_string());
        }
    }

    fn report(
        &mut self,
        violation: Violation,
        at: u64,
        client: Option<ClientIndex>,
        detail: impl FnOnce() -> String,
    ) {
        self.violations[violation as usize] += 1;
        if self.described.len() < DESCRIBED_MAX {
            self.described.push(Described { violation, at, client, detail: detail() });
        }
    }

    fn server(&mut self, duid: &[u8]) -> u8 {
        let place = self.servers.iter().position(|server| server.duid.as_bytes() == duid);
        let place = place.unwrap_or_else(|| {
            if let Ok(duid) = Duid::new(duid)
                && self.servers.len() < SERVERS_MAX
            {
                self.servers.push(ServerSeen { duid, advertises: 0, replies: 0 });
            }
            self.servers.len() - 1
        });
        u8::try_from(place).unwrap_or(u8::MAX)
    }
}

/// How long clients wait, and what they do then. Times in ns.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// When a message without an answer is given up.
    pub timeout: u64,
    /// When it is sent again for the first time; the wait doubles each time, up to
    /// 30 times this one (RFC 8415 section 15). Without it, nothing is sent again.
    pub retransmit: Option<u64>,
    /// When a client whose message names a server turns to any server: from RENEW to REBIND (as at
    /// T2, RFC 8415 section 18.2.5), from REQUEST to a new SOLICIT (section 18.2.2).
    pub any_server: Option<u64>,
}

impl Patience {
    /// Every message is sent once and given up after `timeout`.
    #[must_use]
    pub fn once(timeout: u64) -> Self {
        Self { timeout, retransmit: None, any_server: None }
    }
}

/// The longest wait between retransmissions, in first waits: REQ_MAX_RT is 30 times REQ_TIMEOUT
/// (RFC 8415 section 7.6).
const RETRANSMIT_MAX: u64 = 30;

/// A valid REPLY, for what depends on who answered when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReplySeen {
    /// When, ns since the clock's start.
    pub at: u64,
    /// Index of the server in [`World::servers`].
    pub server: u8,
    /// It answered a RENEW, which names a server; what else a client asks may go to either server
    /// of a pair.
    pub renew: bool,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Deadline {
    at: u64,
    slot: u32,
    generation: u32,
}

/// A message that is to be sent: of which slot, and what.
#[derive(Clone, Copy, Debug)]
struct Ready {
    slot: u32,
    /// The slot's generation when this was decided; if it is another one now, that is moot.
    generation: u32,
    next: Next,
    /// The moment at which the message is due.
    due: u64,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    /// REQUEST, after an ADVERTISE.
    Request,
    /// The same message again.
    Again,
    /// A message to any server instead of the named one.
    AnyServer,
}

/// The exchanges of one generator.
#[derive(Debug)]
pub struct Engine {
    traffic: Traffic,
    patience: Patience,
    renew_threshold: u64,
    /// None: all clients come in turn.
    returning_threshold: Option<u64>,
    /// Valid lifetimes up to this many seconds are counted.
    mclt: Option<u32>,
    /// Every REPLY, if that is wanted.
    replies: Option<Vec<ReplySeen>>,
    random: Random,
    world: World,
    stats: Stats,
    slots: Slots,
    ready: VecDeque<Ready>,
    /// When messages are given up; in order of time, because all wait equally long.
    deadlines: VecDeque<Deadline>,
    /// When clients turn to any server; in order of time, too.
    turns: VecDeque<Deadline>,
    /// When messages are sent again.
    retransmits: BinaryHeap<Reverse<Deadline>>,
    /// New exchanges are being started; completions now make the rate.
    in_time: bool,
    /// Where the intervals go.
    outlet: Option<Outlet>,
}

impl Engine {
    /// An engine that has sent nothing. `outstanding` is how many exchanges may be under way at
    /// once, at most 2^20.
    #[must_use]
    pub fn new(
        traffic: Traffic,
        world: World,
        outstanding: u32,
        patience: Patience,
        seed: u64,
        now: u64,
    ) -> Self {
        let mut random = Random::new(seed);
        let slots = Slots::new(outstanding.min(SLOTS_MAX), random.next_u32());
        let threshold = |share: f64| whole(share.clamp(0.0, 1.0) * 4_294_967_296.0);
        Self {
            renew_threshold: threshold(traffic.renew_share),
            returning_threshold: traffic.returning.map(threshold),
            traffic,
            patience,
            mclt: None,
            replies: None,
            random,
            world,
            stats: Stats::new(now),
            slots,
            ready: VecDeque::with_capacity(1024),
            deadlines: VecDeque::with_capacity(65_536),
            turns: VecDeque::new(),
            retransmits: BinaryHeap::new(),
            in_time: true,
            outlet: None,
        }
    }

    /// Hands every interval with its times to a recorder; it is over when the engine is.
    pub fn record_to(&mut self, outlet: Outlet) {
        self.outlet = Some(outlet);
    }

    /// Keeps every REPLY for [`Engine::take_replies`], and counts the grants whose valid lifetime is
    /// at most `mclt` seconds.
    pub fn watch(&mut self, mclt: Option<u32>) {
        self.mclt = mclt;
        self.replies = Some(Vec::with_capacity(1 << 16));
    }

    /// What [`Engine::watch`] has collected, in order of time.
    pub fn take_replies(&mut self) -> Vec<ReplySeen> {
        self.replies.take().unwrap_or_default()
    }

    /// Exchanges under way.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.slots.outstanding()
    }

    /// Whether a message of an exchange under way waits to be sent.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// What has been measured.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What has been measured, to add to.
    pub fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    /// Ends an interval of the series.
    pub fn tick(&mut self, begin: u64, now: u64) -> Interval {
        let outstanding = self.outstanding();
        let interval = self.stats.tick(begin, now, outstanding);
        if let Some(outlet) = &mut self.outlet {
            outlet.hand_over(&mut self.stats, interval);
        }
        interval
    }

    /// From here on completed exchanges no longer count into the rate.
    pub fn stop_starting(&mut self) {
        self.in_time = false;
    }

    /// Ends the run: the world for the next one, and the figures.
    #[must_use]
    pub fn finish(self) -> (World, Stats) {
        let mut world = self.world;
        for at in 0..self.slots.len() {
            let slot = self.slots.get(at);
            if slot.stage != Stage::Free {
                world.clients.state_mut(slot.client).busy = false;
            }
        }
        (world, self.stats)
    }

    /// Begins the exchange that was due at `due`: writes its first message and returns the length.
    /// `None` means that it cannot be begun; why is counted.
    pub fn start(&mut self, due: u64, now: u64, buffer: &mut [u8]) -> Option<usize> {
        let Some(at) = self.slots.take() else {
            self.stats.count(Counter::NoSlot);
            return None;
        };
        let Some(client) = self.next_client() else {
            self.slots.release(at);
            self.stats.count(Counter::NoClient);
            return None;
        };
        let state = *self.world.clients.state(client);
        let holds = (!self.traffic.na || state.na.is_valid(now))
            && (!self.traffic.pd || state.pd.is_valid(now));
        let renew = holds && u64::from(self.random.next_u32()) < self.renew_threshold;
        let slot = self.slots.get_mut(at);
        slot.client = client;
        slot.begun = due;
        slot.due = due;
        slot.server = state.server;
        (slot.na, slot.pd) =
            if renew { (named(&state.na), named(&state.pd)) } else { (None, None) };
        self.stats.count(Counter::Started);
        self.send(at, if renew { Stage::Renew } else { Stage::Solicit }, now, buffer)
    }

    fn next_client(&mut self) -> Option<ClientIndex> {
        let clients = &mut self.world.clients;
        let Some(threshold) = self.returning_threshold else { return clients.take_next() };
        let which = self.random.next_u32();
        if u64::from(self.random.next_u32()) < threshold {
            clients.take_known(which).or_else(|| clients.take_new())
        } else {
            clients.take_new().or_else(|| clients.take_known(which))
        }
    }

    /// Writes the next message of an exchange under way and returns its length; `None` if it has
    /// become moot.
    pub fn next_ready(&mut self, now: u64, buffer: &mut [u8]) -> Option<usize> {
        let ready = self.ready.pop_front()?;
        let slot = self.slots.get(ready.slot);
        // An answer may have come since this was decided.
        if slot.generation != ready.generation {
            return None;
        }
        let state = self.world.clients.state(slot.client);
        let ended = (self.traffic.na && !state.na.is_valid(now))
            || (self.traffic.pd && !state.pd.is_valid(now));
        let stage = match (ready.next, slot.stage) {
            (Next::Again, Stage::Rebind) if ended => Stage::Solicit,
            (Next::Request, Stage::Ready) => Stage::Request,
            (Next::Again, Stage::Solicit | Stage::Request | Stage::Renew | Stage::Rebind) => {
                return self.send_again(ready.slot, now, buffer);
            }
            (Next::AnyServer, Stage::Request) => Stage::Solicit,
            (Next::AnyServer, Stage::Renew) => Stage::Rebind,
            _ => return None,
        };
        if stage != Stage::Request {
            self.turned(ready.slot, now);
        }
        self.slots.get_mut(ready.slot).due = ready.due;
        self.send(ready.slot, stage, now, buffer)
    }

    /// Counts a message that has no answer, after which the client tries something else.
    fn turned(&mut self, at: u32, now: u64) {
        let slot = self.slots.get_mut(at);
        let (pair, counter) = match slot.stage {
            Stage::Renew => (Pair::RenewReply, Counter::RenewTurned),
            Stage::Rebind => (Pair::RebindReply, Counter::RebindTurned),
            _ => (Pair::RequestReply, Counter::RequestTurned),
        };
        if slot.stage != Stage::Renew {
            // The offer was that of a server which does not answer, or the leases have ended.
            (slot.na, slot.pd) = (None, None);
        }
        let waited = now.saturating_sub(slot.due);
        self.stats.count(counter);
        self.stats.timed_out(pair, waited);
    }

    fn send(&mut self, at: u32, stage: Stage, now: u64, buffer: &mut [u8]) -> Option<usize> {
        let counter = match stage {
            Stage::Solicit => Counter::SentSolicit,
            Stage::Renew => Counter::SentRenew,
            Stage::Rebind => Counter::SentRebind,
            _ => Counter::SentRequest,
        };
        // A client uses a new transaction id for each message (RFC 8415 section 16.1).
        let first_wait = self.patience.retransmit.map(|wait| self.jitter(wait));
        let slot = self.slots.get_mut(at);
        slot.generation = slot.generation.wrapping_add(1);
        slot.stage = stage;
        slot.sent = now;
        slot.wait = first_wait.unwrap_or(0);
        let slot = *slot;
        let len = self.write(at, 0, buffer)?;
        let deadline = |wait| Deadline { at: now + wait, slot: at, generation: slot.generation };
        self.deadlines.push_back(deadline(self.patience.timeout));
        if let (Stage::Request | Stage::Renew, Some(wait)) = (stage, self.patience.any_server) {
            self.turns.push_back(deadline(wait));
        }
        if let Some(wait) = first_wait {
            self.retransmits.push(Reverse(deadline(wait)));
        }
        self.stats.count(counter);
        self.stats.late(now.saturating_sub(slot.due));
        Some(len)
    }

    /// Sends the current message once more, with the same transaction id (RFC 8415 section 16.1).
    fn send_again(&mut self, at: u32, now: u64, buffer: &mut [u8]) -> Option<usize> {
        let slot = *self.slots.get(at);
        let elapsed = now.saturating_sub(slot.sent) / 10_000_000;
        let len = self.write(at, u16::try_from(elapsed).unwrap_or(u16::MAX), buffer)?;
        let first = self.patience.retransmit.unwrap_or(self.patience.timeout);
        let wait = self.jitter(2 * slot.wait).min(RETRANSMIT_MAX * first);
        self.slots.get_mut(at).wait = wait;
        let again = Deadline { at: now + wait, slot: at, generation: slot.generation };
        self.retransmits.push(Reverse(again));
        self.stats.count(Counter::SentAgain);
        Some(len)
    }

    /// A wait that is up to a tenth longer or shorter (RAND of RFC 8415 section 15).
    fn jitter(&mut self, wait: u64) -> u64 {
        let tenth = wait / 10;
        wait - tenth + 2 * tenth / 1024 * u64::from(self.random.next_u32() >> 22)
    }

    /// Writes the current message of a slot.
    fn write(&mut self, at: u32, elapsed: u16, buffer: &mut [u8]) -> Option<usize> {
        let slot = *self.slots.get(at);
        let (msg_type, named) = message_of(slot.stage);
        let identity = self.world.clients.identity(slot.client);
        let server = self.world.servers.get(usize::from(slot.server));
        let message = Outgoing {
            msg_type,
            transaction_id: self.slots.transaction_id(at),
            client: slot.client,
            identity: &identity,
            server_id: server.filter(|_| named).map(|server| server.duid.as_bytes()),
            na: slot.na,
            pd: slot.pd,
            elapsed,
        };
        let Ok(len) = self.traffic.write(&message, buffer) else {
            // Buffers hold a full Ethernet frame; only a chain of relay agents can outgrow it, and
            // the command line refuses those that would.
            self.give_up(at);
            self.stats.count(Counter::NoSlot);
            return None;
        };
        self.stats.count(Counter::Sent);
        Some(len)
    }

    /// Takes in a datagram that arrived at `now`.
    pub fn receive(&mut self, datagram: &[u8], now: u64) {
        self.stats.count(Counter::Received);
        let parsed = self.traffic.unwrap(datagram).and_then(|inner| Ok(Message::parse(inner)?));
        let message = match parsed {
            Ok(message) => message,
            Err(EnvelopeError::Malformed(_)) => {
                return self.violation(Violation::Malformed, now, None, datagram);
            }
            Err(EnvelopeError::Mismatch) => {
                return self.violation(Violation::RelayMismatch, now, None, datagram);
            }
        };
        let at = match self.slots.find(message.transaction_id) {
            Found::Waiting(at) => at,
            Found::Past if message.msg_type == MessageType::ADVERTISE => {
                return self.stats.count(Counter::AdvertiseFurther);
            }
            Found::Past => return self.stats.count(Counter::Late),
            Found::Never => {
                return self.violation(Violation::UnknownTransaction, now, None, datagram);
            }
        };
        let slot = *self.slots.get(at);
        let identity = self.world.clients.identity(slot.client);
        match self.judge(&message, datagram, at, &identity, now) {
            Ok(answer) => self.answered(at, &answer, datagram, now),
            Err(violation) => {
                self.violation(violation, now, Some(slot.client), datagram);
                self.stats.count(Counter::Invalid);
                self.give_up(at);
            }
        }
    }

    fn judge<'a>(
        &self,
        message: &Message<'a>,
        datagram: &[u8],
        at: u32,
        identity: &Identity,
        now: u64,
    ) -> Result<Answer<'a>, Violation> {
        let slot = self.slots.get(at);
        let state = self.world.clients.state(slot.client);
        let preferred = |held: &HeldLease, in_slot: Option<NamedLease>| {
            if held.is_valid(now) { named(held) } else { in_slot }
        };
        let (msg_type, is_named) = message_of(slot.stage);
        let server = self.world.servers.get(usize::from(slot.server)).filter(|_| is_named);
        let asked = Asked {
            msg_type,
            identity,
            server_id: server.map(|server| server.duid.as_bytes()),
            na: self.traffic.na,
            pd: self.traffic.pd,
            rapid_commit: self.traffic.rapid_commit,
            preferred_na: preferred(&state.na, slot.na),
            preferred_pd: preferred(&state.pd, slot.pd),
        };
        let answer = judge(message, &asked)?;
        if self.traffic.envelope_matches(datagram, slot.client, identity) {
            Ok(answer)
        } else {
            Err(Violation::RelayMismatch)
        }
    }

    /// Goes on with an exchange after a valid reply.
    fn answered(&mut self, at: u32, answer: &Answer<'_>, datagram: &[u8], now: u64) {
        let slot = *self.slots.get(at);
        let elapsed = now.saturating_sub(slot.due);
        let server = self.world.server(answer.server_id);
        if answer.msg_type == MessageType::ADVERTISE {
            self.stats.count(Counter::Advertise);
            self.stats.answered(Pair::SolicitAdvertise, elapsed);
            self.world.servers[usize::from(server)].advertises += 1;
            if self.traffic.rapid_commit {
                self.stats.count(Counter::RapidCommitDeclined);
            }
            if let Some(status) = answer.refusal() {
                self.stats.count(refusal_counter(status));
                return self.give_up(at);
            }
            let slot = self.slots.get_mut(at);
            slot.server = server;
            slot.na = answer.na.grant().map(|grant| name(&grant));
            slot.pd = answer.pd.grant().map(|grant| name(&grant));
            slot.stage = Stage::Ready;
            let generation = slot.generation;
            self.ready.push_back(Ready { slot: at, generation, next: Next::Request, due: now });
            return;
        }
        self.stats.count(Counter::Reply);
        self.world.servers[usize::from(server)].replies += 1;
        let (pair, renewal) = match slot.stage {
            Stage::Solicit => (Pair::SolicitReply, false),
            Stage::Renew => (Pair::RenewReply, true),
            Stage::Rebind => (Pair::RebindReply, true),
            _ => (Pair::RequestReply, false),
        };
        self.stats.answered(pair, elapsed);
        if renewal && self.patience.any_server.is_some() {
            self.stats.answered(Pair::Renewal, now.saturating_sub(slot.begun));
        }
        if let Some(replies) = &mut self.replies {
            replies.push(ReplySeen { at: now, server, renew: slot.stage == Stage::Renew });
        }
        if slot.stage == Stage::Request {
            let changed = |grant: Option<Grant>, offer: Option<NamedLease>| {
                grant.is_some_and(|grant| offer.is_some_and(|offer| name(&grant) != offer))
            };
            if changed(answer.na.grant(), slot.na) || changed(answer.pd.grant(), slot.pd) {
                self.stats.count(Counter::OfferChanged);
            }
        }
        let broken = self.settle(at, server, answer, datagram, now);
        if broken {
            self.stats.count(Counter::Invalid);
        } else if let Some(status) = answer.refusal() {
            self.stats.count(refusal_counter(status));
        } else {
            self.stats.count(Counter::Completed);
            if self.in_time {
                self.stats.count(Counter::CompletedInTime);
            }
            if !renewal {
                self.stats.answered(Pair::Exchange, now.saturating_sub(slot.begun));
            }
        }
        self.give_up(at);
    }

    /// Enters what a REPLY granted; true if a promise was broken.
    fn settle(
        &mut self,
        at: u32,
        server: u8,
        answer: &Answer<'_>,
        datagram: &[u8],
        now: u64,
    ) -> bool {
        let slot = *self.slots.get(at);
        let mut broken = false;
        for delegated in [false, true] {
            let ia = if delegated { answer.pd } else { answer.na };
            let state = self.world.clients.state_mut(slot.client);
            let held = if delegated { &mut state.pd } else { &mut state.na };
            let before = *held;
            let Some(grant) = ia.grant() else {
                if ia.refusal() == Some(StatusCode::NO_BINDING) && before.is_valid(now) {
                    broken = true;
                    // Told once; the client starts over with SOLICIT.
                    *held = HeldLease::NONE;
                    self.violation(Violation::BindingForgotten, now, Some(slot.client), datagram);
                }
                continue;
            };
            *held = HeldLease {
                address: grant.address,
                prefix_len: grant.prefix_len,
                valid_until: valid_until(slot.sent, grant.valid),
            };
            let after = *held;
            state.server = server;
            if self.mclt.is_some_and(|mclt| grant.valid <= mclt) {
                self.stats.count(Counter::GrantAtMostMclt);
            }
            if before.is_valid(now) {
                if (before.address, before.prefix_len) != (grant.address, grant.prefix_len) {
                    broken = true;
                    self.violation(Violation::Renumbered, now, Some(slot.client), datagram);
                } else if after.valid_until.saturating_add(SECOND_NS) < before.valid_until {
                    self.stats.count(Counter::LifetimeShortened);
                }
            }
            let entered = self.world.ledger.enter(slot.client, delegated, &grant, slot.sent, now);
            if let Err(conflict) = entered {
                broken = true;
                self.duplicate(&conflict, now, datagram);
            }
        }
        for (delegated, grant) in &answer.further {
            self.stats.count(Counter::LeaseFurther);
            let entered = self.world.ledger.enter(slot.client, *delegated, grant, slot.sent, now);
            if let Err(conflict) = entered {
                broken = true;
                self.duplicate(&conflict, now, datagram);
            }
        }
        broken
    }

    /// Sees to what has waited too long: gives it up, turns to any server, or sends it again.
    pub fn expire(&mut self, now: u64) {
        self.give_up_late(now);
        while let Some(turn) = self.turns.front().filter(|turn| turn.at <= now).copied() {
            self.turns.pop_front();
            let slot = *self.slots.get(turn.slot);
            let waiting = matches!(slot.stage, Stage::Request | Stage::Renew);
            if slot.generation != turn.generation || !waiting {
                continue;
            }
            // A client does not go round in circles for ever.
            if now.saturating_sub(slot.begun) >= self.patience.timeout {
                self.lose(turn.slot, now);
            } else {
                self.make_ready(turn, Next::AnyServer);
            }
        }
        while let Some(Reverse(again)) = self.retransmits.peek().copied() {
            let slot = self.slots.get(again.slot);
            let moot = slot.generation != again.generation
                || matches!(slot.stage, Stage::Free | Stage::Ready);
            if !moot {
                if again.at > now {
                    return;
                }
                self.make_ready(again, Next::Again);
            }
            self.retransmits.pop();
        }
    }

    fn make_ready(&mut self, deadline: Deadline, next: Next) {
        let Deadline { at: due, slot, generation } = deadline;
        self.ready.push_back(Ready { slot, generation, next, due });
    }

    fn give_up_late(&mut self, now: u64) {
        while let Some(deadline) = self.deadlines.front().copied() {
            let slot = *self.slots.get(deadline.slot);
            let answered = slot.generation != deadline.generation
                || matches!(slot.stage, Stage::Free | Stage::Ready);
            if !answered {
                if deadline.at > now {
                    return;
                }
                self.lose(deadline.slot, now);
            }
            self.deadlines.pop_front();
        }
    }

    /// Counts the message that a slot has waited for in vain, and ends the exchange.
    fn lose(&mut self, at: u32, now: u64) {
        let slot = *self.slots.get(at);
        let (pair, whole, counter) = match slot.stage {
            Stage::Solicit if self.traffic.rapid_commit => {
                (Pair::SolicitReply, Pair::Exchange, Counter::LostAdvertise)
            }
            Stage::Solicit => (Pair::SolicitAdvertise, Pair::Exchange, Counter::LostAdvertise),
            Stage::Renew => (Pair::RenewReply, Pair::Renewal, Counter::LostRenewReply),
            Stage::Rebind => (Pair::RebindReply, Pair::Renewal, Counter::LostRebindReply),
            _ => (Pair::RequestReply, Pair::Exchange, Counter::LostReply),
        };
        self.stats.count(counter);
        self.stats.timed_out(pair, now.saturating_sub(slot.due));
        if whole == Pair::Exchange || self.patience.any_server.is_some() {
            self.stats.timed_out(whole, now.saturating_sub(slot.begun));
        }
        self.give_up(at);
    }

    fn give_up(&mut self, at: u32) {
        let client = self.slots.get(at).client;
        self.world.clients.state_mut(client).busy = false;
        self.slots.release(at);
    }

    fn violation(
        &mut self,
        violation: Violation,
        now: u64,
        client: Option<ClientIndex>,
        datagram: &[u8],
    ) {
        self.world.report(violation, now, client, || format!("datagram {}", hex(datagram)));
    }

    fn duplicate(&mut self, conflict: &Conflict, now: u64, datagram: &[u8]) {
        let client = Some(conflict.later.client);
        self.world.report(Violation::Duplicate, now, client, || {
            format!("{conflict}; datagram {}", hex(datagram))
        });
    }
}

/// The type of the message that is out, and whether it names a server.
fn message_of(stage: Stage) -> (MessageType, bool) {
    match stage {
        Stage::Solicit => (MessageType::SOLICIT, false),
        Stage::Renew => (MessageType::RENEW, true),
        Stage::Rebind => (MessageType::REBIND, false),
        _ => (MessageType::REQUEST, true),
    }
}

fn name(grant: &Grant) -> NamedLease {
    NamedLease { address: grant.address, prefix_len: grant.prefix_len }
}

fn named(held: &HeldLease) -> Option<NamedLease> {
    (held.prefix_len != 0)
        .then_some(NamedLease { address: held.address, prefix_len: held.prefix_len })
}

/// How many exchanges can be outstanding at a rate if nothing is answered, with a margin.
#[must_use]
pub fn slots_for_rate(rate: f64, timeout_ns: u64) -> u32 {
    // Twice the time: an exchange may wait for two answers.
    let wanted = whole(rate * crate::number::seconds(timeout_ns) * 2.2) + 1024;
    low32(wanted.min(u64::from(SLOTS_MAX)))
}
