//! What goes out.

use super::{Deadline, Engine, Facts, Next, Retransmit, Stage, patience::Rules};
use crate::{
    message::Outgoing,
    stats::{Counter, Pair},
};

impl Engine {
    /// Writes the next message of an exchange under way and returns its length; `None` if it has
    /// become moot.
    pub fn next_ready(&mut self, now: u64, buffer: &mut [u8]) -> Option<usize> {
        let ready = self.ready.pop_front()?;
        let slot = self.slots.get(ready.slot);
        // An answer may have come since this was decided.
        if slot.generation != ready.generation {
            return None;
        }
        let stage = match (ready.next, slot.stage) {
            (Next::Again, Stage::Rebind) if self.has_ended(ready.slot, now) => Stage::Solicit,
            (Next::Request, Stage::Ready) => Stage::Request,
            (Next::Again, stage) if stage.is_waiting() => {
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

    /// Whether a lease of the slot's client has run out.
    fn has_ended(&self, at: u32, now: u64) -> bool {
        let client = self.slots.get(at).client;
        !self.world.clients.state(client).holds(self.wanted(), now)
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

    fn rules(&self, stage: Stage) -> Option<Rules> {
        Rules::of(self.patience.retransmit, stage, self.sol_max_rt)
    }

    pub(super) fn send(
        &mut self,
        at: u32,
        stage: Stage,
        now: u64,
        buffer: &mut [u8],
    ) -> Option<usize> {
        let first_wait = self.rules(stage).map(|rules| rules.first_wait(&mut self.random));
        let slot = self.slots.get_mut(at);
        // A client uses a new transaction id for each message (RFC 8415 section 16.1).
        slot.generation = slot.generation.wrapping_add(1);
        slot.stage = stage;
        slot.sent = now;
        slot.sends = 1;
        slot.wait = first_wait.unwrap_or(0);
        let slot = *slot;
        let len = self.write(at, 0, buffer)?;
        let deadline = |at_ns| Deadline { at: at_ns, slot: at, generation: slot.generation };
        if self.patience.retransmit != Retransmit::Rfc8415 {
            self.deadlines.push_back(deadline(now.saturating_add(self.patience.timeout)));
        }
        if let (Stage::Request | Stage::Renew, Some(wait)) = (stage, self.patience.any_server) {
            self.turns.push_back(deadline(now + wait));
        }
        if let Some(wait) = first_wait {
            self.retransmits.push(deadline(now + wait));
        }
        self.stats.count(Facts::of(stage).sent);
        if !(self.burst && slot.due == slot.begun) {
            self.stats.late(now.saturating_sub(slot.due));
        }
        Some(len)
    }

    /// Sends the current message once more, with the same transaction id (RFC 8415 section 16.1).
    fn send_again(&mut self, at: u32, now: u64, buffer: &mut [u8]) -> Option<usize> {
        let slot = *self.slots.get(at);
        let rules = self.rules(slot.stage)?;
        let elapsed = now.saturating_sub(slot.sent) / 10_000_000;
        let len = self.write(at, u16::try_from(elapsed).unwrap_or(u16::MAX), buffer)?;
        let mut wait = rules.next_wait(slot.wait, &mut self.random);
        if rules.duration > 0 {
            wait = wait.min((slot.sent + rules.duration).saturating_sub(now));
        }
        let again = self.slots.get_mut(at);
        again.wait = wait;
        again.sends = slot.sends.saturating_add(1);
        self.retransmits.push(Deadline { at: now + wait, slot: at, generation: slot.generation });
        self.stats.count(Counter::SentAgain);
        Some(len)
    }

    /// Writes the current message of a slot.
    fn write(&mut self, at: u32, elapsed: u16, buffer: &mut [u8]) -> Option<usize> {
        let slot = self.slots.get(at);
        let facts = Facts::of(slot.stage);
        let identity = self.world.clients.identity(slot.client);
        let server = self.world.servers.get(usize::from(slot.server));
        let message = Outgoing {
            msg_type: facts.msg_type,
            transaction_id: self.slots.transaction_id(at),
            client: self.world.clients.number(slot.client),
            identity: &identity,
            server_id: server.filter(|_| facts.named).map(|server| server.duid.as_bytes()),
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
}
