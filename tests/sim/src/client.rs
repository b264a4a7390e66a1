//! A client: RFC 8415 with its retransmissions in compressed time, a clock that is a little wrong,
//! and a life of its own.

use gemel_lease::{IaKind, Lease};
use gemel_wire::{MessageType, StatusCode};

use crate::clock::{Micros, SECOND, real_span};
use crate::message::{Answer, Saying, build, client_duid};
use crate::plan::Plan;
use crate::rng::Rng;

/// A lease that the client believes to have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Held {
    /// The number of its association.
    pub iaid: u32,
    /// The lease.
    pub lease: Lease,
    /// When it ends by the client's clock.
    pub until: Micros,
}

/// What a client is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientState {
    /// Nothing; wakes up to solicit.
    Idle,
    /// SOLICIT.
    Soliciting,
    /// REQUEST.
    Requesting,
    /// Has leases.
    Bound,
    /// RENEW.
    Renewing,
    /// REBIND.
    Rebinding,
    /// RELEASE.
    Releasing,
    /// DECLINE.
    Declining,
    /// Silent for a while, with or without its memory.
    Away,
}

/// What a client wants of the world.
#[derive(Debug)]
pub(crate) enum Act {
    /// A message to all servers.
    Send(Vec<u8>),
    /// From now until this moment the lease is the client's (counted from when the server spoke).
    Hold { iaid: u32, lease: Lease, until: Micros },
    /// The client does not use the lease any more.
    LetGo(Lease),
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    number: usize,
    /// Kinds of its associations, whose numbers are 1, 2, ...
    kinds: Vec<IaKind>,
    held: Vec<Held>,
    state: ClientState,
    /// The one timer: when, and which of all that were ever set it is.
    pub(crate) timer: (Micros, u64),
    /// The last timer of which there is an event.
    pub(crate) armed: u64,
    rng: Rng,
    drift_ppm: i64,
    rapid_commit: bool,
    xid: u32,
    interval: Micros,
    tries: u32,
    adverts: Vec<Answer>,
    /// Whom to name, and what: the server of the last answer, and the leases of a REQUEST,
    /// RELEASE or DECLINE.
    server: Vec<u8>,
    naming: Vec<(u32, IaKind, Vec<Lease>)>,
    t1_at: Micros,
    t2_at: Micros,
    life_at: Micros,
    /// No more than what it is told: for scenarios.
    pub(crate) retired: bool,
}

/// Attempts at a REQUEST, RELEASE or DECLINE.
const TRIES_MAX: u32 = 4;

impl Client {
    pub(crate) fn new(number: usize, kinds: Vec<IaKind>, plan: &Plan, mut rng: Rng) -> Self {
        let rapid_commit = rng.chance(plan.rapid_commit);
        let drift_ppm = rng.around(plan.habits.drift_ppm_max);
        Self {
            number,
            kinds,
            held: Vec::new(),
            state: ClientState::Idle,
            timer: (Micros::MAX, 0),
            armed: 0,
            drift_ppm,
            rapid_commit,
            xid: 0,
            interval: 0,
            tries: 0,
            adverts: Vec::new(),
            server: Vec::new(),
            naming: Vec::new(),
            t1_at: Micros::MAX,
            t2_at: Micros::MAX,
            life_at: Micros::MAX,
            retired: false,
            rng,
        }
    }

    /// Kinds of its associations, whose numbers are 1, 2, ...
    pub(crate) fn kinds(&self) -> &[IaKind] {
        &self.kinds
    }

    /// What it believes to have.
    #[must_use]
    pub(crate) fn held(&self) -> &[Held] {
        &self.held
    }

    /// What it is about.
    #[must_use]
    pub(crate) fn state(&self) -> ClientState {
        self.state
    }

    /// Wakes up at `at` to solicit.
    pub(crate) fn start(&mut self, at: Micros) {
        self.state = ClientState::Idle;
        self.set_timer(at);
    }

    /// Its timer has run out.
    pub(crate) fn timeout(&mut self, now: Micros, plan: &Plan, acts: &mut Vec<Act>) {
        self.prune(now, acts);
        match self.state {
            ClientState::Idle => self.solicit(now, plan, acts),
            ClientState::Soliciting if !self.adverts.is_empty() => self.choose(now, acts),
            ClientState::Soliciting => self.again(now, 16 * SECOND, acts),
            ClientState::Requesting if self.tries < TRIES_MAX => self.again(now, 4 * SECOND, acts),
            ClientState::Requesting => self.solicit(now, plan, acts),
            ClientState::Away | ClientState::Rebinding if self.held.is_empty() => {
                self.solicit(now, plan, acts);
            }
            ClientState::Away => self.begin(ClientState::Rebinding, now, 2 * SECOND, acts),
            ClientState::Bound if self.held.is_empty() => self.solicit(now, plan, acts),
            ClientState::Bound if self.life_at <= now => self.live(now, plan, acts),
            ClientState::Bound | ClientState::Renewing if self.t2_at <= now => {
                self.begin(ClientState::Rebinding, now, 2 * SECOND, acts);
            }
            ClientState::Bound if self.t1_at <= now => {
                self.begin(ClientState::Renewing, now, 2 * SECOND, acts);
            }
            ClientState::Bound => self.rest(),
            ClientState::Renewing if self.held.is_empty() => self.solicit(now, plan, acts),
            ClientState::Renewing | ClientState::Rebinding => self.again(now, 40 * SECOND, acts),
            ClientState::Releasing | ClientState::Declining if self.tries < TRIES_MAX => {
                self.again(now, 4 * SECOND, acts);
            }
            ClientState::Releasing | ClientState::Declining => self.part(now, plan),
        }
    }

    /// An answer has come in; the server made it at `made`.
    pub(crate) fn receive(
        &mut self,
        answer: Answer,
        made: Micros,
        now: Micros,
        plan: &Plan,
        acts: &mut Vec<Act>,
    ) {
        if answer.xid != self.xid {
            return;
        }
        self.prune(now, acts);
        match (self.state, answer.msg_type) {
            (ClientState::Soliciting, MessageType::ADVERTISE) if answer.has_leases() => {
                self.adverts.push(answer);
                if self.rng.chance(600) {
                    self.choose(now, acts);
                }
            }
            (ClientState::Soliciting, MessageType::REPLY)
                if self.rapid_commit && answer.has_leases() =>
            {
                self.take(&answer, made, now, plan, acts);
            }
            (
                ClientState::Requesting | ClientState::Renewing | ClientState::Rebinding,
                MessageType::REPLY,
            ) => self.take(&answer, made, now, plan, acts),
            (ClientState::Releasing | ClientState::Declining, MessageType::REPLY) => {
                self.part(now, plan);
            }
            _ => {}
        }
    }

    /// Gives all leases back.
    pub(crate) fn release(&mut self, now: Micros, acts: &mut Vec<Act>) {
        self.naming = self.associations();
        self.forget(acts);
        self.begin(ClientState::Releasing, now, SECOND, acts);
    }

    /// Gives all addresses back as used by somebody else.
    pub(crate) fn decline(&mut self, now: Micros, acts: &mut Vec<Act>) {
        self.naming = self.associations();
        self.naming.retain(|(_, kind, _)| *kind == IaKind::Na);
        self.forget(acts);
        self.begin(ClientState::Declining, now, SECOND, acts);
    }

    /// Falls silent until `until`.
    pub(crate) fn leave(&mut self, until: Micros) {
        self.state = ClientState::Away;
        self.set_timer(until);
    }

    /// Extends its leases out of turn: with RENEW, or with REBIND.
    pub(crate) fn extend(&mut self, rebind: bool, now: Micros, acts: &mut Vec<Act>) {
        let state = if rebind { ClientState::Rebinding } else { ClientState::Renewing };
        self.begin(state, now, 2 * SECOND, acts);
    }

    /// Whether the association and lease are the client's at this moment.
    pub(crate) fn holds(&self, iaid: u32, lease: Lease, now: Micros) -> bool {
        let is_it = |held: &Held| (held.iaid, held.lease) == (iaid, lease) && held.until > now;
        self.held.iter().any(is_it)
    }

    fn solicit(&mut self, now: Micros, plan: &Plan, acts: &mut Vec<Act>) {
        self.forget(acts);
        self.adverts.clear();
        self.life_at = now + self.rng.range(plan.habits.life / 2, plan.habits.life * 3 / 2);
        self.naming = self.associations();
        self.begin(ClientState::Soliciting, now, SECOND, acts);
    }

    /// Turns to one of the servers that have advertised.
    fn choose(&mut self, now: Micros, acts: &mut Vec<Act>) {
        let advert = self.adverts.swap_remove(self.rng.index(self.adverts.len()));
        self.naming = self.associations();
        for (iaid, kind, leases) in &mut self.naming {
            let offered = advert.ias.iter().find(|ia| (ia.iaid, ia.kind) == (*iaid, *kind));
            leases.extend(offered.iter().flat_map(|ia| &ia.leases).map(|it| it.lease));
        }
        self.server = advert.server;
        self.begin(ClientState::Requesting, now, SECOND, acts);
    }

    /// Takes what a REPLY gives (RFC 8415 section 18.2.10.1).
    fn take(
        &mut self,
        answer: &Answer,
        made: Micros,
        now: Micros,
        plan: &Plan,
        acts: &mut Vec<Act>,
    ) {
        self.server.clone_from(&answer.server);
        let (mut ask_again, mut told) = (false, false);
        let (mut t1, mut t2) = (u32::MAX, u32::MAX);
        for ia in &answer.ias {
            if ia.status == StatusCode::NO_BINDING {
                self.lose(|held| held.iaid == ia.iaid, acts);
                ask_again = true;
            }
            for it in &ia.leases {
                if it.valid == 0 {
                    self.lose(|held| (held.iaid, held.lease) == (ia.iaid, it.lease), acts);
                    continue;
                }
                told = true;
                let half = |time: u32, part: u32| if time > 0 { time } else { it.preferred / part };
                t1 = t1.min(half(ia.t1, 2));
                t2 = t2.min(half(ia.t2, 1));
                let span = |secs: u32| real_span(Micros::from(secs) * SECOND, self.drift_ppm);
                let held = Held { iaid: ia.iaid, lease: it.lease, until: now + span(it.valid) };
                self.held.retain(|other| (other.iaid, other.lease) != (ia.iaid, it.lease));
                self.held.push(held);
                let until = made + Micros::from(it.valid) * SECOND;
                acts.push(Act::Hold { iaid: ia.iaid, lease: it.lease, until });
            }
        }
        if told {
            let span = |secs: u32| real_span(Micros::from(secs.max(1)) * SECOND, self.drift_ppm);
            (self.t1_at, self.t2_at) = (now + span(t1), now + span(t2.max(t1)));
        } else {
            (self.t1_at, self.t2_at) = (now + 10 * SECOND, now + 20 * SECOND);
        }
        if ask_again && self.state != ClientState::Requesting {
            self.naming = self.associations();
            self.begin(ClientState::Requesting, now, SECOND, acts);
        } else if self.held.is_empty() {
            let wait = self.rng.range(2, 20) * SECOND;
            self.start(now + wait);
        } else {
            if self.state != ClientState::Renewing && self.state != ClientState::Rebinding {
                let life = plan.habits.life;
                self.life_at = now + self.rng.range(life / 2, life * 3 / 2);
            }
            self.state = ClientState::Bound;
            self.rest();
        }
    }

    /// What happens to a client besides renewals.
    fn live(&mut self, now: Micros, plan: &Plan, acts: &mut Vec<Act>) {
        let habits = &plan.habits;
        let only_addresses = self.kinds.iter().all(|kind| *kind == IaKind::Na);
        let decline = if only_addresses { habits.decline } else { 0 };
        let weights = [habits.release, decline, habits.silence, habits.amnesia, habits.reboot, 1];
        self.life_at = now + self.rng.range(habits.life / 2, habits.life * 3 / 2);
        match self.rng.weighted(&weights) {
            0 if habits.release > 0 => self.release(now, acts),
            1 => self.decline(now, acts),
            way @ (2 | 3) => {
                if way == 3 {
                    self.forget(acts);
                }
                let away = self.rng.range(SECOND, habits.away_max.max(SECOND));
                self.leave(now + away);
            }
            4 => self.begin(ClientState::Rebinding, now, 2 * SECOND, acts),
            _ => self.begin(ClientState::Renewing, now, 2 * SECOND, acts),
        }
    }

    /// Has given back what it had. What is still under way must not meet a later binding: DHCP
    /// would take it for news. Nor can the servers tell what came first when a client goes from one
    /// to the other faster than their clocks may differ.
    fn part(&mut self, now: Micros, plan: &Plan) {
        let wait = 2 * plan.delay_max + self.rng.range(12, 70) * SECOND;
        self.start(now + wait);
    }

    /// Until the next thing that is due of itself.
    fn rest(&mut self) {
        let end = self.held.iter().map(|held| held.until).min().unwrap_or(0);
        self.set_timer(end.min(self.t1_at).min(self.life_at));
    }

    fn begin(&mut self, state: ClientState, now: Micros, interval: Micros, acts: &mut Vec<Act>) {
        self.state = state;
        self.xid = (self.xid + 1) & 0x00ff_ffff;
        self.tries = 0;
        self.interval = interval / 2;
        self.again(now, interval, acts);
    }

    /// Sends the message of this state, and waits twice as long as the last time (RFC 8415 section
    /// 15).
    fn again(&mut self, now: Micros, interval_max: Micros, acts: &mut Vec<Act>) {
        let (msg_type, names_server) = match self.state {
            ClientState::Soliciting => (MessageType::SOLICIT, false),
            ClientState::Requesting => (MessageType::REQUEST, true),
            ClientState::Renewing => (MessageType::RENEW, true),
            ClientState::Rebinding => (MessageType::REBIND, false),
            ClientState::Releasing => (MessageType::RELEASE, true),
            ClientState::Declining => (MessageType::DECLINE, true),
            ClientState::Idle | ClientState::Bound | ClientState::Away => return,
        };
        if matches!(self.state, ClientState::Renewing | ClientState::Rebinding) {
            self.naming = self.associations();
        }
        acts.push(Act::Send(build(&Saying {
            msg_type,
            xid: self.xid,
            duid: &client_duid(self.number),
            server: names_server.then_some(&self.server[..]),
            rapid_commit: self.rapid_commit && msg_type == MessageType::SOLICIT,
            ias: &self.naming,
        })));
        self.tries += 1;
        self.interval = (self.interval * 2).min(interval_max);
        let wait = self.interval * 9 / 10 + self.rng.below(self.interval / 5 + 1);
        let mut until = now + wait;
        if matches!(self.state, ClientState::Renewing | ClientState::Rebinding) {
            let end = self.held.iter().map(|held| held.until).min().unwrap_or(until);
            until = until.min(end.max(now + 1));
            if self.state == ClientState::Renewing {
                until = until.min(self.t2_at.max(now + 1));
            }
        }
        self.set_timer(until);
    }

    /// All associations with the leases that they have.
    fn associations(&self) -> Vec<(u32, IaKind, Vec<Lease>)> {
        (1..)
            .zip(&self.kinds)
            .map(|(iaid, kind)| {
                let held = self.held.iter().filter(|held| held.iaid == iaid);
                (iaid, *kind, held.map(|held| held.lease).collect())
            })
            .collect()
    }

    fn prune(&mut self, now: Micros, acts: &mut Vec<Act>) {
        self.lose(|held| held.until <= now, acts);
    }

    pub(crate) fn forget(&mut self, acts: &mut Vec<Act>) {
        self.lose(|_| true, acts);
    }

    fn lose(&mut self, is_lost: impl Fn(&Held) -> bool, acts: &mut Vec<Act>) {
        let lost = self.held.iter().filter(|held| is_lost(held));
        acts.extend(lost.map(|held| Act::LetGo(held.lease)));
        self.held.retain(|held| !is_lost(held));
    }

    fn set_timer(&mut self, at: Micros) {
        self.timer = (at, self.timer.1 + 1);
    }
}
