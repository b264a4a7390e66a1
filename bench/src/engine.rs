//! The exchanges: what to send next, what to make of what comes in, what to give up.
//!
//! The engine does no IO and reads no clock. Times are clock times in ns.

use std::collections::VecDeque;

use gemel_wire::{Duid, Message, MessageType, StatusCode};

use crate::{
    client::{ClientIndex, HeldLease, Identity, Population, Random},
    ledger::{Conflict, Ledger, hex, valid_until},
    message::{EnvelopeError, NamedLease, Outgoing, Traffic},
    number::{low32, whole},
    oracle::{Answer, Asked, Grant, Violation, judge, refusal_counter},
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

#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: u64,
    slot: u32,
    generation: u32,
}

/// The exchanges of one generator.
#[derive(Debug)]
pub struct Engine {
    traffic: Traffic,
    timeout: u64,
    renew_threshold: u64,
    random: Random,
    world: World,
    stats: Stats,
    slots: Slots,
    ready: VecDeque<u32>,
    /// In order of time, because all messages wait equally long.
    deadlines: VecDeque<Deadline>,
    /// New exchanges are being started; completions now make the rate.
    in_time: bool,
}

impl Engine {
    /// An engine that has sent nothing. `outstanding` is how many exchanges may be under way at
    /// once, at most 2^20; `timeout` is in ns.
    #[must_use]
    pub fn new(
        traffic: Traffic,
        world: World,
        outstanding: u32,
        timeout: u64,
        seed: u64,
        now: u64,
    ) -> Self {
        let mut random = Random::new(seed);
        let slots = Slots::new(outstanding.min(SLOTS_MAX), random.next_u32());
        let renew_threshold = whole(traffic.renew_share.clamp(0.0, 1.0) * 4_294_967_296.0);
        Self {
            traffic,
            timeout,
            renew_threshold,
            random,
            world,
            stats: Stats::new(now),
            slots,
            ready: VecDeque::with_capacity(1024),
            deadlines: VecDeque::with_capacity(65_536),
            in_time: true,
        }
    }

    /// Exchanges under way.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.slots.outstanding()
    }

    /// Whether a REQUEST waits to be sent.
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
        self.stats.tick(begin, now, outstanding)
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
        let Some(client) = self.world.clients.take_next() else {
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

    /// Writes the next REQUEST that is ready and returns its length.
    pub fn next_ready(&mut self, now: u64, buffer: &mut [u8]) -> Option<usize> {
        let at = self.ready.pop_front()?;
        self.send(at, Stage::Request, now, buffer)
    }

    fn send(&mut self, at: u32, stage: Stage, now: u64, buffer: &mut [u8]) -> Option<usize> {
        let (msg_type, counter) = match stage {
            Stage::Solicit => (MessageType::SOLICIT, Counter::SentSolicit),
            Stage::Renew => (MessageType::RENEW, Counter::SentRenew),
            _ => (MessageType::REQUEST, Counter::SentRequest),
        };
        // A client uses a new transaction id for each message (RFC 8415 section 16.1).
        let slot = self.slots.get_mut(at);
        slot.generation = slot.generation.wrapping_add(1);
        slot.stage = stage;
        slot.sent = now;
        let slot = *slot;
        let identity = self.world.clients.identity(slot.client);
        let server = self.world.servers.get(usize::from(slot.server));
        let message = Outgoing {
            msg_type,
            transaction_id: self.slots.transaction_id(at),
            client: slot.client,
            identity: &identity,
            server_id: server
                .filter(|_| stage != Stage::Solicit)
                .map(|server| server.duid.as_bytes()),
            na: slot.na,
            pd: slot.pd,
            elapsed: 0,
        };
        let Ok(len) = self.traffic.write(&message, buffer) else {
            // Buffers hold a full Ethernet frame; only a chain of relay agents can outgrow it, and
            // the command line refuses those that would.
            self.give_up(at);
            self.stats.count(Counter::NoSlot);
            return None;
        };
        self.deadlines.push_back(Deadline {
            at: now + self.timeout,
            slot: at,
            generation: slot.generation,
        });
        self.stats.count(Counter::Sent);
        self.stats.count(counter);
        self.stats.lag.saturating_record(now.saturating_sub(slot.due));
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
            Found::Past => return self.stats.count(Counter::Late),
            Found::Never => {
                return self.violation(Violation::UnknownTransaction, now, None, datagram);
            }
        };
        let slot = *self.slots.get(at);
        let identity = self.world.clients.identity(slot.client);
        match self.judge(&message, datagram, at, &identity) {
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
    ) -> Result<Answer<'a>, Violation> {
        let slot = self.slots.get(at);
        let (msg_type, named) = match slot.stage {
            Stage::Solicit => (MessageType::SOLICIT, false),
            Stage::Renew => (MessageType::RENEW, true),
            _ => (MessageType::REQUEST, true),
        };
        let server = self.world.servers.get(usize::from(slot.server)).filter(|_| named);
        let asked = Asked {
            msg_type,
            identity,
            server_id: server.map(|server| server.duid.as_bytes()),
            na: self.traffic.na,
            pd: self.traffic.pd,
            rapid_commit: self.traffic.rapid_commit,
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
            slot.due = now;
            self.ready.push_back(at);
            return;
        }
        self.stats.count(Counter::Reply);
        self.world.servers[usize::from(server)].replies += 1;
        let pair = match slot.stage {
            Stage::Solicit => Pair::SolicitReply,
            Stage::Renew => Pair::RenewReply,
            _ => Pair::RequestReply,
        };
        self.stats.answered(pair, elapsed);
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
            if slot.stage != Stage::Renew {
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
                    self.violation(Violation::BindingForgotten, now, Some(slot.client), datagram);
                }
                continue;
            };
            *held = HeldLease {
                address: grant.address,
                prefix_len: grant.prefix_len,
                valid_until: valid_until(slot.sent, grant.valid),
            };
            state.server = server;
            if before.is_valid(now)
                && (before.address, before.prefix_len) != (grant.address, grant.prefix_len)
            {
                broken = true;
                self.violation(Violation::Renumbered, now, Some(slot.client), datagram);
            }
            let entered = self.world.ledger.enter(slot.client, delegated, &grant, slot.sent, now);
            if let Err(conflict) = entered {
                broken = true;
                self.duplicate(&conflict, now, datagram);
            }
        }
        broken
    }

    /// Gives up what has waited too long.
    pub fn expire(&mut self, now: u64) {
        while let Some(deadline) = self.deadlines.front().copied() {
            let slot = *self.slots.get(deadline.slot);
            let answered = slot.generation != deadline.generation
                || matches!(slot.stage, Stage::Free | Stage::Ready);
            if !answered {
                if deadline.at > now {
                    return;
                }
                let (pair, counter) = match slot.stage {
                    Stage::Solicit if self.traffic.rapid_commit => {
                        (Pair::SolicitReply, Counter::LostAdvertise)
                    }
                    Stage::Solicit => (Pair::SolicitAdvertise, Counter::LostAdvertise),
                    Stage::Renew => (Pair::RenewReply, Counter::LostRenewReply),
                    _ => (Pair::RequestReply, Counter::LostReply),
                };
                self.stats.count(counter);
                self.stats.timed_out(pair, now.saturating_sub(slot.due));
                if slot.stage != Stage::Renew {
                    self.stats.timed_out(Pair::Exchange, now.saturating_sub(slot.begun));
                }
                self.give_up(deadline.slot);
            }
            self.deadlines.pop_front();
        }
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
