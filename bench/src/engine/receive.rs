//! What comes in.

use gemel_wire::{Message, MessageType, OptionCode, StatusCode};

use super::{
    Engine, Facts, Next, Ready, ReplySeen, Retransmit, Stage, name, named,
    slots::{Found, Slot},
};
use crate::{
    client::{ClientIndex, HeldLease, Identity},
    ledger::{Conflict, Entered, hex, valid_until},
    message::{EnvelopeError, NamedLease},
    number::SECOND_NS,
    oracle::{Answer, Asked, Grant, IaAnswer, Violation, judge, refusal_counter},
    stats::{Counter, Pair},
};

/// SOL_MAX_RT, RFC 8415 section 21.24.
const SOL_MAX_RT: OptionCode = OptionCode(82);

impl Engine {
    /// Takes in a datagram that arrived at `now`. If it belongs to another generator thread, returns
    /// that one's number and does nothing else.
    pub fn receive(&mut self, datagram: &[u8], now: u64) -> Option<u32> {
        let parsed = self.traffic.unwrap(datagram).and_then(|inner| Ok(Message::parse(inner)?));
        let found = match &parsed {
            Ok(message) => self.slots.find(message.transaction_id),
            Err(_) => Found::Never,
        };
        if let Found::Elsewhere(part) = found
            && part < self.parts
        {
            return Some(part);
        }
        self.stats.count(Counter::Received);
        let violation = match parsed {
            Ok(message) => match found {
                Found::Waiting(at) => {
                    self.waited_for(at, &message, datagram, now);
                    return None;
                }
                Found::Past if message.msg_type == MessageType::ADVERTISE => {
                    self.stats.count(Counter::AdvertiseFurther);
                    return None;
                }
                Found::Past => {
                    self.stats.count(Counter::Late);
                    return None;
                }
                Found::Never | Found::Elsewhere(_) => Violation::UnknownTransaction,
            },
            Err(EnvelopeError::Malformed(_)) => Violation::Malformed,
            Err(EnvelopeError::Mismatch) => Violation::RelayMismatch,
        };
        self.violation(violation, now, None, datagram);
        None
    }

    fn waited_for(&mut self, at: u32, message: &Message<'_>, datagram: &[u8], now: u64) {
        let client = self.slots.get(at).client;
        let identity = self.world.clients.identity(client);
        match self.judge(message, datagram, at, &identity, now) {
            Ok(answer) => {
                if self.patience.retransmit == Retransmit::Rfc8415 {
                    self.heed_sol_max_rt(message);
                }
                self.answered(at, &answer, datagram, now);
            }
            Err(violation) => {
                self.violation(violation, now, Some(client), datagram);
                self.stats.count(Counter::Invalid);
                self.give_up(at);
            }
        }
    }

    /// All clients hear of it at once: they talk to the same servers.
    fn heed_sol_max_rt(&mut self, message: &Message<'_>) {
        let octets = message.options.first(SOL_MAX_RT);
        if let Some(seconds) = octets.and_then(|octets| octets.try_into().ok()) {
            let seconds = u32::from_be_bytes(seconds);
            if (60..=86_400).contains(&seconds) {
                self.sol_max_rt = u64::from(seconds) * SECOND_NS;
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
        let facts = Facts::of(slot.stage);
        let server = self.world.servers.get(usize::from(slot.server)).filter(|_| facts.named);
        let asked = Asked {
            msg_type: facts.msg_type,
            identity,
            server_id: server.map(|server| server.duid.as_bytes()),
            na: self.traffic.na,
            pd: self.traffic.pd,
            rapid_commit: self.traffic.rapid_commit,
            preferred_na: preferred(&state.na, slot.na),
            preferred_pd: preferred(&state.pd, slot.pd),
        };
        let answer = judge(message, &asked)?;
        let client = self.world.clients.number(slot.client);
        if self.traffic.envelope_matches(datagram, client, identity) {
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
            return self.advertised(at, server, answer, now);
        }
        self.stats.count(Counter::Reply);
        self.world.servers[usize::from(server)].replies += 1;
        let pair = match slot.stage {
            Stage::Solicit => Pair::SolicitReply,
            stage => Facts::of(stage).pair,
        };
        self.stats.answered(pair, elapsed);
        let renewal = matches!(slot.stage, Stage::Renew | Stage::Rebind);
        if renewal && self.patience.any_server.is_some() {
            self.stats.answered(Pair::Renewal, now.saturating_sub(slot.begun));
        }
        if let Some(replies) = &mut self.replies {
            replies.push(ReplySeen { at: now, server, renew: slot.stage == Stage::Renew });
        }
        let leases =
            matches!(slot.stage, Stage::Solicit | Stage::Request | Stage::Renew | Stage::Rebind);
        let refusal = match slot.stage {
            Stage::Release | Stage::Decline => self.given_back(&slot, answer, now, datagram),
            _ => Ok(answer.refusal()),
        };
        if slot.stage == Stage::Request {
            self.compare_with_offer(&slot, answer);
        }
        let broken = leases && self.settle(at, server, answer, datagram, now);
        match refusal {
            Ok(None) if !broken => self.completed(&slot, leases && !renewal, now),
            Ok(Some(status)) if !broken => self.stats.count(refusal_counter(status)),
            _ => self.stats.count(Counter::Invalid),
        }
        self.give_up(at);
    }

    fn advertised(&mut self, at: u32, server: u8, answer: &Answer<'_>, now: u64) {
        let due = self.slots.get(at).due;
        self.stats.count(Counter::Advertise);
        self.stats.answered(Pair::SolicitAdvertise, now.saturating_sub(due));
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
    }

    fn completed(&mut self, slot: &Slot, whole: bool, now: u64) {
        self.stats.count(Counter::Completed);
        if self.in_time {
            self.stats.count(Counter::CompletedInTime);
        }
        if whole {
            self.stats.answered(Pair::Exchange, now.saturating_sub(slot.begun));
        }
        if let Some(served) = &mut self.stats.served {
            served.saturating_record(now.saturating_sub(self.served_from));
        }
    }

    /// What a server says to leases that were given back. Of a message that was sent more than once an
    /// earlier one may have been heard, and then there is no binding any more.
    fn given_back(
        &mut self,
        slot: &Slot,
        answer: &Answer<'_>,
        now: u64,
        datagram: &[u8],
    ) -> Result<Option<StatusCode>, ()> {
        match answer.refusal() {
            Some(StatusCode::NO_BINDING) if slot.sends > 1 => Ok(None),
            Some(StatusCode::NO_BINDING) => {
                self.violation(Violation::BindingForgotten, now, Some(slot.client), datagram);
                Err(())
            }
            other => Ok(other),
        }
    }

    fn compare_with_offer(&mut self, slot: &Slot, answer: &Answer<'_>) {
        let changed = |ia: IaAnswer, offer: Option<NamedLease>| {
            ia.grant().is_some_and(|grant| offer.is_some_and(|offer| name(&grant) != offer))
        };
        if changed(answer.na, slot.na) || changed(answer.pd, slot.pd) {
            self.stats.count(Counter::OfferChanged);
        }
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
            broken |= self.enter(&slot, delegated, &grant, datagram, now);
        }
        for (delegated, grant) in &answer.further {
            self.stats.count(Counter::LeaseFurther);
            broken |= self.enter(&slot, *delegated, grant, datagram, now);
        }
        let holds = self.world.clients.state(slot.client).holds(self.wanted(), now);
        self.world.clients.set_holding(slot.client, holds);
        broken
    }

    /// Enters one grant; true if another client holds the lease.
    fn enter(
        &mut self,
        slot: &Slot,
        delegated: bool,
        grant: &Grant,
        datagram: &[u8],
        now: u64,
    ) -> bool {
        match self.world.ledger.enter(slot.client, delegated, grant, slot.sent, now) {
            Ok(Entered::New) => false,
            Ok(Entered::AfterDecline) => {
                self.stats.count(Counter::DeclinedGiven);
                false
            }
            Err(conflict) => {
                self.duplicate(&conflict, now, datagram);
                true
            }
        }
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
