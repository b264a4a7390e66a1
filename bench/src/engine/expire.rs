//! What has waited too long.

use super::{Deadline, Engine, Facts, Next, Ready, Stage, patience::Rules};
use crate::{number::SECOND_NS, stats::Pair};

impl Engine {
    /// Sees to what has waited too long: gives it up, turns to any server, or sends it again.
    pub fn expire(&mut self, now: u64) {
        if self.is_over(now) {
            return self.give_up_all(now);
        }
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
        while let Some(again) = self.retransmits.pop(now) {
            let slot = *self.slots.get(again.slot);
            if slot.generation == again.generation && slot.stage.is_waiting() {
                self.again(again, now);
            }
        }
    }

    /// A message's RT is over.
    fn again(&mut self, again: Deadline, now: u64) {
        let slot = *self.slots.get(again.slot);
        let rules = Rules::of(self.patience.retransmit, slot.stage, self.sol_max_rt);
        let failed = rules.is_some_and(|rules| {
            let often_enough = rules.count > 0 && slot.sends >= rules.count;
            let long_enough = rules.duration > 0 && now.saturating_sub(slot.sent) >= rules.duration;
            often_enough || long_enough
        });
        match slot.stage {
            _ if !failed => self.make_ready(again, Next::Again),
            // It begins again with SOLICIT (RFC 8415 section 18.2.2).
            Stage::Request => self.make_ready(again, Next::AnyServer),
            _ => self.lose(again.slot, now),
        }
    }

    fn make_ready(&mut self, deadline: Deadline, next: Next) {
        let Deadline { at: due, slot, generation } = deadline;
        self.ready.push_back(Ready { slot, generation, next, due });
    }

    fn give_up_late(&mut self, now: u64) {
        while let Some(deadline) = self.deadlines.front().copied() {
            let slot = *self.slots.get(deadline.slot);
            if slot.generation == deadline.generation && slot.stage.is_waiting() {
                if deadline.at > now {
                    return;
                }
                self.lose(deadline.slot, now);
            }
            self.deadlines.pop_front();
        }
    }

    /// The run is over.
    fn give_up_all(&mut self, now: u64) {
        if self.outstanding() == 0 {
            return;
        }
        self.ready.clear();
        for at in 0..self.slots.len() {
            match self.slots.get(at).stage {
                Stage::Free => {}
                // Its REQUEST can no longer be sent.
                Stage::Ready => {
                    self.slots.get_mut(at).stage = Stage::Request;
                    self.lose(at, now);
                }
                _ => self.lose(at, now),
            }
        }
    }

    /// Counts the message that a slot has waited for in vain, and ends the exchange.
    fn lose(&mut self, at: u32, now: u64) {
        let slot = *self.slots.get(at);
        let facts = Facts::of(slot.stage);
        let pair = match slot.stage {
            Stage::Solicit if self.traffic.rapid_commit => Pair::SolicitReply,
            _ => facts.pair,
        };
        self.stats.count(facts.lost);
        self.stats.timed_out(pair, now.saturating_sub(slot.due));
        let waited = now.saturating_sub(slot.begun);
        match slot.stage {
            Stage::Solicit | Stage::Request => self.stats.timed_out(Pair::Exchange, waited),
            Stage::Renew | Stage::Rebind if self.patience.any_server.is_some() => {
                self.stats.timed_out(Pair::Renewal, waited);
            }
            _ => {}
        }
        self.give_up(at);
    }
}

/// Time that is left for last answers when a signal ends a run.
pub(crate) const LAST_WAIT: u64 = SECOND_NS;

impl Engine {
    /// A signal ends the run: answers that are on their way are waited for, but not for long.
    pub fn interrupt(&mut self, now: u64) {
        if self.patience.end.is_some() || self.patience.timeout > LAST_WAIT {
            self.end_by(now + LAST_WAIT);
        }
    }
}
