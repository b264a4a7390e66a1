//! The exchanges: what to send next, what to make of what comes in, what to give up.
//!
//! The engine does no IO and reads no clock. Times are clock times in ns.

use std::collections::VecDeque;

use gemel_wire::MessageType;

use crate::{
    client::{HeldLease, Random, Wanted},
    message::{NamedLease, Traffic},
    number::{low32, whole},
    oracle::Grant,
    record::Outlet,
    stats::{Counter, Interval, Pair, Stats},
};

mod choose;
mod expire;
mod patience;
mod receive;
mod send;
mod slots;
mod timers;
mod world;

pub use choose::{Choice, Kind, Shares};
pub use patience::{Patience, Retransmit};
pub use slots::Part;
pub use world::{Described, ServerSeen, World};

use choose::Chooser;
use slots::{Slots, Stage};
use timers::{Deadline, Timers};

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
    chooser: Chooser,
    /// Valid lifetimes up to this many seconds are counted.
    mclt: Option<u32>,
    /// Every REPLY, if that is wanted.
    replies: Option<Vec<ReplySeen>>,
    random: Random,
    world: World,
    stats: Stats,
    slots: Slots,
    /// How many parts there are, of which this engine is one.
    parts: u32,
    ready: VecDeque<Ready>,
    /// When messages are given up; in order of time, because all wait equally long.
    deadlines: VecDeque<Deadline>,
    /// When clients turn to any server; in order of time, too.
    turns: VecDeque<Deadline>,
    /// When messages are sent again.
    retransmits: Timers,
    /// What a server said last (RFC 8415 section 21.24), ns.
    sol_max_rt: u64,
    /// New exchanges are being started; completions now make the rate.
    in_time: bool,
    /// From when on the time of a served client counts.
    served_from: u64,
    /// All exchanges are due at one moment: how long sending them takes is no lag.
    burst: bool,
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
        Self::part(traffic, world, outstanding, patience, seed, now, (0, 1))
    }

    /// The engine of one of several generator threads, which have the same seed: its number, from 0,
    /// and how many there are.
    #[must_use]
    pub fn part(
        traffic: Traffic,
        mut world: World,
        outstanding: u32,
        patience: Patience,
        seed: u64,
        now: u64,
        (number, parts): (u32, u32),
    ) -> Self {
        let mut random = Random::new(seed);
        let (offset, part) = (random.next_u32(), Part::new(number, parts));
        // Answers to the run before may still come; nothing is wrong with them.
        let slots = match world.used.filter(|used| used.is_of(part)) {
            Some(used) => Slots::after(outstanding, &used),
            None => Slots::new(outstanding, offset, part),
        };
        // The transaction ids go together, the choices do not.
        let random = if number == 0 { random } else { Random::new(seed ^ u64::from(number) << 40) };
        let clients = &mut world.clients;
        let chooser = Chooser::new(traffic.choice, traffic.renew_share, traffic.wanted(), clients);
        Self {
            traffic,
            patience,
            chooser,
            mclt: None,
            replies: None,
            random,
            world,
            stats: Stats::new(now),
            slots,
            parts,
            ready: VecDeque::with_capacity(1024),
            deadlines: VecDeque::with_capacity(65_536),
            turns: VecDeque::new(),
            retransmits: Timers::new(now),
            sol_max_rt: patience::SOL_MAX_RT,
            in_time: true,
            served_from: now,
            burst: false,
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

    /// From the next message on, clients wait this way.
    pub fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// Notes when exchanges are completed, from `begin` on. With `burst` all of them are due at that
    /// moment, and how long it takes to send their first messages does not count as lag.
    pub fn watch_served(&mut self, begin: u64, burst: bool) {
        self.stats.watch_served();
        self.served_from = begin;
        self.burst = burst;
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
        let (outstanding, holding) = (self.outstanding(), self.world.clients.holding());
        let interval = self.stats.tick(begin, now, outstanding, holding);
        if let Some(outlet) = &mut self.outlet {
            // The recorder keeps it; a run of days is not to grow here.
            self.stats.series.pop();
            outlet.hand_over(&mut self.stats, interval);
        }
        interval
    }

    /// From here on completed exchanges no longer count into the rate.
    pub fn stop_starting(&mut self) {
        self.in_time = false;
        self.stats.load_ends();
    }

    /// What is still waited for at `end` is given up, whatever patience there would be.
    pub fn end_by(&mut self, end: u64) {
        self.patience.end = Some(self.patience.end.map_or(end, |other| other.min(end)));
    }

    /// Whether everything that is under way is given up now: there is no use in more.
    #[must_use]
    pub fn is_over(&self, now: u64) -> bool {
        self.patience.end.is_some_and(|end| now >= end)
    }

    /// Ends the run: the world for the next one, and the figures.
    #[must_use]
    pub fn finish(mut self) -> (World, Stats) {
        if let Some(outlet) = self.outlet.take() {
            outlet.finish(&mut self.stats);
        }
        let mut world = self.world;
        world.used = Some(self.slots.used());
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
        let next = self.chooser.next(&mut self.world.clients, &mut self.random, now);
        let Some((client, stage)) = next else {
            self.slots.release(at);
            self.stats.count(Counter::NoClient);
            return None;
        };
        let state = self.world.clients.state(client);
        let slot = self.slots.get_mut(at);
        slot.client = client;
        slot.begun = due;
        slot.due = due;
        slot.server = state.server;
        (slot.na, slot.pd) = match stage {
            Stage::Solicit | Stage::Inform => (None, None),
            Stage::Decline | Stage::Confirm => (named(&state.na), None),
            _ => (named(&state.na), named(&state.pd)),
        };
        self.stats.count(Counter::Started);
        if matches!(stage, Stage::Release | Stage::Decline) {
            self.give_back(at, stage == Stage::Decline, now);
        }
        self.send(at, stage, now, buffer)
    }

    /// The client does not use its leases any more: from now on they may go to anybody.
    fn give_back(&mut self, at: u32, declined: bool, now: u64) {
        let slot = *self.slots.get(at);
        for lease in [slot.na, slot.pd].into_iter().flatten() {
            let lease = (lease.address, lease.prefix_len);
            self.world.ledger.end(slot.client, lease, declined, now);
        }
        let state = self.world.clients.state_mut(slot.client);
        state.na = HeldLease::NONE;
        if !declined {
            state.pd = HeldLease::NONE;
        }
        self.world.clients.set_holding(slot.client, false);
    }

    fn give_up(&mut self, at: u32) {
        let slot = self.slots.get(at);
        let (client, stage) = (slot.client, slot.stage);
        let state = self.world.clients.state_mut(client);
        state.busy = false;
        if matches!(stage, Stage::Solicit | Stage::Ready | Stage::Request) {
            let holds = self.world.clients.is_holding(client);
            self.chooser.came(client, holds);
        }
        self.slots.release(at);
    }

    fn wanted(&self) -> Wanted {
        self.traffic.wanted()
    }
}

/// What belongs to the message that is out at a stage.
struct Facts {
    msg_type: MessageType,
    /// It names a server.
    named: bool,
    sent: Counter,
    lost: Counter,
    pair: Pair,
}

impl Facts {
    fn of(stage: Stage) -> Self {
        use Counter as C;
        let facts = |msg_type, named, sent, lost, pair| Self { msg_type, named, sent, lost, pair };
        match stage {
            Stage::Solicit => facts(
                MessageType::SOLICIT,
                false,
                C::SentSolicit,
                C::LostAdvertise,
                Pair::SolicitAdvertise,
            ),
            Stage::Renew => {
                facts(MessageType::RENEW, true, C::SentRenew, C::LostRenewReply, Pair::RenewReply)
            }
            Stage::Rebind => facts(
                MessageType::REBIND,
                false,
                C::SentRebind,
                C::LostRebindReply,
                Pair::RebindReply,
            ),
            Stage::Release => facts(
                MessageType::RELEASE,
                true,
                C::SentRelease,
                C::LostReleaseReply,
                Pair::ReleaseReply,
            ),
            Stage::Decline => facts(
                MessageType::DECLINE,
                true,
                C::SentDecline,
                C::LostDeclineReply,
                Pair::DeclineReply,
            ),
            Stage::Confirm => facts(
                MessageType::CONFIRM,
                false,
                C::SentConfirm,
                C::LostConfirmReply,
                Pair::ConfirmReply,
            ),
            Stage::Inform => facts(
                MessageType::INFORMATION_REQUEST,
                false,
                C::SentInform,
                C::LostInformReply,
                Pair::InformReply,
            ),
            Stage::Free | Stage::Ready | Stage::Request => {
                facts(MessageType::REQUEST, true, C::SentRequest, C::LostReply, Pair::RequestReply)
            }
        }
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
    low32(wanted.min(u64::from(Part::default().slots_max())))
}
