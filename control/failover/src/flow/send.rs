//! Sending updates (RFC 8156 section 7.4).

use gemel_lease::{Binding, Record};
use gemel_wire::{
    Emitter,
    failover::{BndUpd, FailoverTime, Header},
};

use super::{BLOCKED_INTERVAL, Flow, Phase, QUEUE_TAG, walk::Walk, window::Item};
use crate::{Env, outbox::Outbox, update};

/// Leases that one call of [`Flow::poll`] looks at.
const LEASES_PER_POLL: usize = 256;
/// Leases in one message at most: a client rarely has more, and a frame takes far more.
const GROUP_MAX: usize = 16;
/// Octets that may wait for the store before no new updates are made.
const HELD_MAX: usize = 1 << 20;
/// Every so many messages the walks come before the queue, so that neither starves.
const WALK_TURN: u32 = 4;

/// Where an update comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Source {
    Queue,
    Own,
    /// Index of the request.
    Request(usize),
}

impl Flow {
    /// Fills the window, from all sources or only with what the partner has asked for. True if more
    /// could be sent at once.
    pub(super) fn send_updates(
        &mut self,
        all: bool,
        env: &mut Env<'_>,
        outbox: &mut Outbox,
    ) -> bool {
        self.own.iter_mut().chain(&mut self.requests).for_each(Walk::resume);
        if self.source(all).is_none() {
            return false;
        }
        let more = self.fill_window(all, env, outbox);
        if self.own.iter().chain(&self.requests).any(Walk::is_waiting) {
            self.blocked_until = Some(env.now.monotonic + BLOCKED_INTERVAL);
        }
        self.queue.pause();
        self.own.iter_mut().chain(&mut self.requests).for_each(Walk::pause);
        more
    }

    fn fill_window(&mut self, all: bool, env: &mut Env<'_>, outbox: &mut Outbox) -> bool {
        let mut budget = LEASES_PER_POLL;
        loop {
            let Some(source) = self.source(all) else { return false };
            if !self.window.has_room() {
                return false;
            }
            if !outbox.has_room() || self.held.octets() >= HELD_MAX {
                self.blocked_until = Some(env.now.monotonic + BLOCKED_INTERVAL);
                return false;
            }
            if budget == 0 {
                return true;
            }
            self.fill_group(source, env, &mut budget);
            if !self.group.is_empty() {
                self.send_group(source, env, outbox);
            }
        }
    }

    fn source(&self, all: bool) -> Option<Source> {
        let queue = (all && !self.queue.is_empty()).then_some(Source::Queue);
        let own = self.own.as_ref().filter(|walk| all && walk.has_next()).map(|_| Source::Own);
        let walk =
            own.or_else(|| self.requests.iter().position(Walk::has_next).map(Source::Request));
        // The partner waits for the end of the walk, and what is in the queue will come with it.
        let is_awaited = self.settling.is_some() && matches!(self.phase, Phase::PartnerDown { .. });
        if is_awaited || self.turn % WALK_TURN == WALK_TURN - 1 {
            walk.or(queue)
        } else {
            queue.or(walk)
        }
    }

    fn walk_of(&mut self, source: Source) -> Option<&mut Walk> {
        match source {
            Source::Queue => None,
            Source::Own => self.own.as_mut(),
            Source::Request(index) => self.requests.get_mut(index),
        }
    }

    fn next_record(&mut self, source: Source, env: &Env<'_>, budget: &mut usize) -> Option<Record> {
        let pools = &self.pools;
        let walk = match source {
            Source::Queue => return self.queue.next(env.table, budget),
            Source::Own => self.own.as_mut(),
            Source::Request(index) => self.requests.get_mut(index),
        };
        walk?.next(env.table, env.stored_before, |id| pools.contains(id), budget)
    }

    /// The next update, and those behind it that are about the same client (section 7.4: all of a
    /// client in one OPTION_CLIENT_DATA).
    fn fill_group(&mut self, source: Source, env: &Env<'_>, budget: &mut usize) {
        self.group.clear();
        while self.group.len() < GROUP_MAX {
            let Some(record) = self.next_record(source, env, budget) else { return };
            let Some(first) = self.group.first() else {
                let is_nobodys = record.binding.duid.as_bytes().is_empty();
                self.group.push(record);
                if is_nobodys {
                    return;
                }
                continue;
            };
            if record.binding.duid == first.binding.duid {
                self.group.push(record);
                continue;
            }
            match self.walk_of(source) {
                Some(walk) => walk.carry(record),
                None => self.queue.carry(record),
            }
            return;
        }
    }

    fn send_group(&mut self, source: Source, env: &Env<'_>, outbox: &mut Outbox) {
        if self.group.len() > 1 {
            self.group.sort_by_key(|record| (record.binding.kind, record.binding.iaid.0));
        }
        let transaction_id = outbox.next_id();
        let now = env.now.wall;
        let header = Header { transaction_id, sent_time: FailoverTime(now.0) };
        let mut out = Emitter::new(&mut self.scratch);
        let first = &self.group[0].binding;
        if first.duid.as_bytes().is_empty() {
            BndUpd::emit_prefix(&update::prefix_lease(first, now), header, &mut out);
        } else {
            let group = &self.group;
            let leases = group.iter().map(|record| {
                let binding = &record.binding;
                update::client_lease(binding, shortest_preferred(group, binding), now)
            });
            BndUpd::emit_client(&update::client_data(first, now), leases, header, &mut out);
        }
        let len = out.finish().expect("16 leases fit into a frame");
        self.held.send(&self.scratch[..len], outbox);
        let sent = self.group.len() as u64;
        self.counters.sent += sent;
        self.counters.messages_sent += 1;
        self.turn = self.turn.wrapping_add(1);
        let tag = match self.walk_of(source) {
            Some(walk) => {
                walk.sent += sent;
                walk.unanswered += 1;
                walk.tag
            }
            None => QUEUE_TAG,
        };
        let items = self.group.iter().map(|Record { binding, stamp }| Item {
            lease: binding.lease,
            stamp: *stamp,
            status: binding.status,
            partner_lifetime: update::sent_partner_lifetime(binding),
        });
        self.window.push(transaction_id, env.now.monotonic, tag, items);
    }
}

/// The shortest preferred lifetime of an identity association: what T1 and T2 come from.
fn shortest_preferred(group: &[Record], binding: &Binding) -> u32 {
    let key = (binding.kind, binding.iaid);
    let same = group.iter().filter(|other| (other.binding.kind, other.binding.iaid) == key);
    same.map(|other| other.binding.preferred_lifetime).min().unwrap_or(binding.preferred_lifetime)
}
