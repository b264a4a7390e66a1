//! What the daemon does around an endpoint: the pair thread, the control thread with its store, and
//! the transport.

use gemel_failover::{Command, CommandError, Env, Output, ServerState};
use gemel_lease::{AbsoluteTime, Lease, Record, UpdateBatch};
use gemel_wire::MessageType;
use gemel_wire::failover::{
    BindingStatus, BndReply, BndUpd, Body, FailoverMessage, FailoverTime, ServerFlags, stamp,
};

use crate::check::{Owner, Rule};
use crate::clock::{MILLISECOND, Micros, SECOND};
use crate::node::{Node, PRIMARY, SECONDARY};
use crate::store::{Batch, Origin};
use crate::wires::{ConnectionId, Segment};
use crate::world::{Alarm, Event, MOMENT, World, name};

/// Timeouts of an endpoint in a second, at most.
const WAKES_MAX: u32 = 1000;

/// An input of an endpoint.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    Connected,
    Disconnected,
    /// A frame, and the leases of the update that it may be.
    Received(&'a [u8], Option<Owed>),
    Committed(&'a [u8]),
    Missed,
    Stored(u64),
    Persisted,
    Timeout,
    Command(Command),
    Nothing,
}

/// The transaction of an update, and the stamps of its leases that must be stored before it is
/// acknowledged.
pub(crate) type Owed = ([u8; 3], Vec<(Lease, u64)>);

/// What the partner says that it has acknowledged for a client at some time (section 7.8).
type Repeated = (Lease, Owner, AbsoluteTime);

/// What has been read in a message.
#[derive(Debug, Default)]
struct Learned {
    owed: Option<Owed>,
    repeated: Vec<Repeated>,
}

impl World {
    /// Starts a server.
    pub fn boot(&mut self, node: usize) {
        if self.nodes[node].process.is_some() {
            return;
        }
        self.say(|| format!("{}: starts", name(node)));
        let now = self.nodes[node].clock.at(self.now);
        self.nodes[node].boot(node, &self.plan, now, &mut self.rng);
        self.checks.restarted(node);
        let epoch = self.nodes[node].epoch;
        let sweep = self.rng.range(0, SECOND);
        self.set(Alarm::Sweep(node), sweep, Event::Sweep { node, epoch });
        if node == PRIMARY {
            self.operator.connect_after = 0;
            let soon = self.rng.range(MOMENT, 200 * MILLISECOND);
            self.set(Alarm::Connect, soon, Event::Connect { epoch });
        }
        self.drive_quietly(node, Input::Nothing);
    }

    /// Kills a server. With `silent` its partner does not hear of it, as when the power fails.
    pub fn crash(&mut self, node: usize, silent: bool) {
        let Some(process) = self.nodes[node].process.take() else { return };
        self.say(|| format!("{}: dies{}", name(node), if silent { " silently" } else { "" }));
        let store = &mut self.nodes[node].store;
        process.commits.crash(store, &mut self.fault_rng);
        if let Some(state) = process.persists.into_iter().next()
            && self.fault_rng.chance(500)
        {
            store.state = Some(state);
        }
        if let Some(connection) = self.nodes[node].connection.take()
            && !silent
        {
            let delay = self.wires.delay();
            self.after(delay, Event::Reset { node: 1 - node, connection });
        }
    }

    /// Loses all that a dead server had on stable storage.
    pub fn lose_disk(&mut self, node: usize) {
        self.say(|| format!("{}: has lost its disk", name(node)));
        self.pardon(node);
        self.nodes[node].store = crate::store::Store::default();
        self.checks.forget(node);
        if self.is_alone(node) {
            self.expect_conflicts("nobody knows any more what was on the lost disk");
        }
        self.nodes[node].is_whole = false;
        self.nodes[node].is_exposed = false;
        self.nodes[node].is_in_partner_down = false;
    }

    /// A client gave a lease back at the other server while the two were out of touch, and got it
    /// again at this one, which loses its disk. What the other knows is that the client is done with
    /// it; the RFC has no way to tell it otherwise.
    fn pardon(&mut self, node: usize) {
        use gemel_lease::BindingStatus as Status;
        let other = &self.nodes[1 - node];
        let status = |lease: Lease| match &other.process {
            Some(process) => process.table.status(lease),
            None => other.store.records.get(&lease).map(|it| it.binding.status),
        };
        for (lease, record) in &self.nodes[node].store.records {
            let given_back = matches!(
                status(*lease),
                Some(Status::Released | Status::Abandoned | Status::Reset)
            );
            if record.binding.status == Status::Active && given_back {
                self.checks.pardon(node, *lease, self.now);
            }
        }
    }

    /// Whether nobody but this server knows what it has given to clients, beyond what section 4.4
    /// allows for.
    pub(crate) fn is_alone(&self, node: usize) -> bool {
        let Node { is_whole, is_exposed, .. } = self.nodes[node];
        !is_whole || !self.nodes[1 - node].is_whole || is_exposed
    }

    /// One turn of the pair thread, of which nobody wants the result.
    pub(crate) fn drive_quietly(&mut self, node: usize, input: Input<'_>) {
        // Commands alone can be refused.
        let _ = self.drive(node, input);
    }

    /// One turn of the pair thread.
    pub(crate) fn drive(&mut self, node: usize, input: Input<'_>) -> Result<(), CommandError> {
        let now = self.nodes[node].clock.at(self.now);
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let mut env = Env {
            table: &process.table,
            now,
            stored_before: process.commits.unstored_from().unwrap_or(u64::MAX),
            updates: &mut process.open,
            sequence: process.sequence,
        };
        let endpoint = &mut process.endpoint;
        let mut result = Ok(());
        match &input {
            Input::Connected => endpoint.connected(&mut env),
            Input::Disconnected => endpoint.disconnected(&mut env),
            Input::Received(frame, _) => endpoint.received(frame, &mut env),
            Input::Committed(updates) => endpoint.committed(updates, &mut env),
            Input::Missed => endpoint.missed(&mut env),
            Input::Stored(sequence) => endpoint.stored(*sequence, true, &mut env),
            Input::Persisted => endpoint.persisted(&mut env),
            Input::Timeout => endpoint.timeout(&mut env),
            Input::Command(command) => result = endpoint.command(*command, &mut env),
            Input::Nothing => {}
        }
        let more = endpoint.poll(&mut env);
        let outputs: Vec<_> = std::iter::from_fn(|| endpoint.output()).collect();
        let mut frames = endpoint.outgoing().clone();
        endpoint.outgoing().clear();
        process.publish();
        // What was pushed, and what must be stored before this update is acknowledged.
        if process.open_seen < process.open.len() {
            for record in process.open.iter().skip(process.open_seen).flatten() {
                process.pushed.insert(record.binding.lease, record.stamp);
            }
            process.open_seen = process.open.len();
        }
        if let Input::Received(_, Some((id, mut leases))) = input {
            for (lease, stamp) in &mut leases {
                *stamp = process.pushed.get(lease).copied().unwrap_or(0);
            }
            process.owed.insert(id, leases);
        }
        let mut close = false;
        for output in outputs {
            close |= self.follow(node, output);
        }
        if !frames.is_empty() {
            stamp(&mut frames, FailoverTime(now.wall.0));
            self.check_frames(node, &frames);
            self.send(node, Segment::Frames(frames));
        }
        let submitted = self.submit(node);
        self.rearm(node);
        if more || !submitted {
            let epoch = self.nodes[node].epoch;
            self.after(MOMENT, Event::Poll { node, epoch });
        }
        if close && self.nodes[node].connection.is_some() {
            self.send(node, Segment::End);
            self.close(node);
        }
        result
    }

    /// Does what the endpoint wants; true if the connection is to be closed.
    fn follow(&mut self, node: usize, output: Output) -> bool {
        match output {
            Output::Persist(state) => {
                let Some(process) = &mut self.nodes[node].process else { return false };
                process.persists.push_back(state);
                if process.persists.len() == 1 {
                    self.write_state(node);
                }
            }
            Output::Close { reason, refused } => {
                self.say(|| format!("{}: closes the connection: {reason}", name(node)));
                if refused {
                    // Section 6.1.
                    self.operator.connect_after = self.now + 4 * self.plan.connect_interval;
                }
                return true;
            }
            Output::Transition { from, to, partner, cause } => {
                self.say(|| {
                    let partner = partner.map_or("unknown", ServerState::as_str);
                    format!("{}: {from} -> {to} (partner {partner}): {cause}", name(node))
                });
                self.stats.transitions += 1;
                self.note(to as u64);
                self.history.push((node, to));
                self.transition(node, to);
            }
            Output::Alarm(text) => self.say(|| format!("{}: ALARM {text}", name(node))),
        }
        false
    }

    /// Two servers must not serve when one of them is in PARTNER-DOWN state (section 8.4). Nor must
    /// one after the other, if they have not met in between: who was in PARTNER-DOWN may have given
    /// away what the other still takes for its own, and for full lifetimes.
    fn transition(&mut self, node: usize, to: ServerState) {
        let found = &mut self.nodes[node];
        match to {
            ServerState::Normal => found.is_whole = true,
            ServerState::PartnerDown => found.is_exposed = true,
            _ => {}
        }
        if to != ServerState::Startup {
            found.is_in_partner_down = to == ServerState::PartnerDown;
        }
        let other = self.state(1 - node);
        let after = self.nodes[1 - node].is_in_partner_down && serves(to);
        let beside = to == ServerState::PartnerDown && other.is_some_and(serves);
        if self.checks.loose.is_some() || !(after || beside) {
            return;
        }
        if self.plan.careless {
            self.expect_conflicts("both serve, one in PARTNER-DOWN state");
        } else {
            self.violate(Rule::Exclusion, || {
                let other = match other {
                    Some(other) if serves(other) => format!("in {other}"),
                    _ => "out of service since it was in PARTNER-DOWN".to_owned(),
                };
                format!("{} enters {to} while the other is {other}", name(node))
            });
        }
    }

    /// Hands the endpoint's batch to the control thread, unless there is no room now.
    fn submit(&mut self, node: usize) -> bool {
        let overflow = self.plan.overflow / 2;
        let Some(process) = &mut self.nodes[node].process else { return true };
        if process.open.is_empty() {
            return true;
        }
        if self.rng.chance(overflow) {
            return false;
        }
        let batch = Batch::new(&process.open, Origin::Endpoint(process.sequence));
        process.sequence += 1;
        process.open.clear();
        process.open_seen = 0;
        self.commit(node, batch);
        true
    }

    /// Queues updates to be stored.
    pub(crate) fn commit(&mut self, node: usize, batch: Batch) {
        let Some(process) = &mut self.nodes[node].process else { return };
        if process.commits.push(batch) {
            self.write(node);
        }
    }

    fn write(&mut self, node: usize) {
        let delay = self.disk_delay(node);
        let epoch = self.nodes[node].epoch;
        self.after(delay, Event::Commit { node, epoch });
    }

    fn write_state(&mut self, node: usize) {
        let delay = self.disk_delay(node);
        let epoch = self.nodes[node].epoch;
        self.after(delay, Event::Persisted { node, epoch });
    }

    fn disk_delay(&mut self, node: usize) -> Micros {
        let delay = self.rng.range(MOMENT, self.plan.commit_max);
        delay + self.nodes[node].slow_until.saturating_sub(self.now)
    }

    /// A group of updates is on stable storage.
    pub(crate) fn committed(&mut self, node: usize) {
        let found = &mut self.nodes[node];
        let Some(process) = &mut found.process else { return };
        let group = process.commits.done(&mut found.store);
        let again = process.commits.begin();
        let mut others = Vec::new();
        let mut stored = None;
        for batch in group {
            match batch.origin {
                Origin::Endpoint(sequence) => stored = Some(sequence),
                Origin::Rules(reply) => {
                    others.extend_from_slice(&batch.octets);
                    if let Some(reply) = reply {
                        self.stored_reply(node, &reply);
                    }
                }
            }
        }
        if again {
            self.write(node);
        }
        if !others.is_empty() {
            self.notify(node, others);
        }
        if let Some(sequence) = stored {
            self.drive_quietly(node, Input::Stored(sequence));
        }
    }

    /// Tells the pair thread what others have stored, if there is room in its channel.
    fn notify(&mut self, node: usize, updates: Vec<u8>) {
        let overflow = self.rng.chance(self.plan.overflow);
        let delay = self.rng.range(0, 2 * MILLISECOND);
        let now = self.now;
        let epoch = self.nodes[node].epoch;
        let Some(process) = &mut self.nodes[node].process else { return };
        if overflow {
            process.missed = true;
            self.after(delay, Event::Poll { node, epoch });
            return;
        }
        process.notice_at = process.notice_at.max(now + delay);
        let at = process.notice_at;
        self.queue.push(at, Event::Notice { node, epoch, updates });
    }

    /// The endpoint's state is on stable storage.
    pub(crate) fn persisted(&mut self, node: usize) {
        let found = &mut self.nodes[node];
        let Some(process) = &mut found.process else { return };
        if let Some(state) = process.persists.pop_front() {
            found.store.state = Some(state);
        }
        if !process.persists.is_empty() {
            self.write_state(node);
        }
        self.drive_quietly(node, Input::Persisted);
    }

    pub(crate) fn wake(&mut self, node: usize) {
        let now = self.now;
        let Some(process) = &mut self.nodes[node].process else { return };
        if process.wake_at != Some(self.now) {
            return;
        }
        process.wake_at = None;
        // A deadline that stays in the past would keep the pair thread from sleeping.
        if now >= process.wakes_since + SECOND {
            (process.wakes_since, process.wakes) = (now, 0);
        }
        process.wakes += 1;
        if process.wakes > WAKES_MAX {
            self.violate(Rule::Panic, || format!("the {} has a timer that spins", name(node)));
        }
        self.drive_quietly(node, Input::Timeout);
    }

    pub(crate) fn poll(&mut self, node: usize) {
        let Some(process) = &mut self.nodes[node].process else { return };
        let input =
            if std::mem::take(&mut process.missed) { Input::Missed } else { Input::Nothing };
        self.drive_quietly(node, input);
    }

    /// Sees to it that the endpoint is called when its time is due.
    fn rearm(&mut self, node: usize) {
        let epoch = self.nodes[node].epoch;
        let Some(process) = &mut self.nodes[node].process else { return };
        let due = process.endpoint.next_timeout();
        let due = due.map(|at| at.as_secs() * SECOND + u64::from(at.subsec_micros()));
        let due = due.map(|at| at.max(self.now + MOMENT));
        if due != process.wake_at {
            process.wake_at = due;
            if let Some(at) = due {
                self.queue.set(Alarm::Wake(node).number(), at, Event::Wake { node, epoch });
            }
        }
    }

    /// Ends what is over.
    pub(crate) fn sweep(&mut self, node: usize) {
        let now = self.nodes[node].clock.at(self.now);
        let epoch = self.nodes[node].epoch;
        let Some(process) = &mut self.nodes[node].process else { return };
        let mut updates = UpdateBatch::default();
        let _ = process.table.expire(now.wall, 10_000, &mut updates);
        if !updates.is_empty() {
            self.submit_updates(node, &updates, None);
        }
        self.set(Alarm::Sweep(node), SECOND, Event::Sweep { node, epoch });
    }

    /// The server rules have made updates.
    pub(crate) fn submit_updates(
        &mut self,
        node: usize,
        updates: &UpdateBatch,
        reply: Option<crate::store::HeldReply>,
    ) {
        let batch = Batch::new(updates, Origin::Rules(reply));
        if let Some(process) = &mut self.nodes[node].process {
            for record in &batch.records {
                process.pushed.insert(record.binding.lease, record.stamp);
            }
        }
        self.commit(node, batch);
    }

    /// The primary tries to connect, and will try again.
    pub(crate) fn connect(&mut self) {
        let epoch = self.nodes[PRIMARY].epoch;
        self.set(Alarm::Connect, self.plan.connect_interval, Event::Connect { epoch });
        let busy = self.now < self.operator.connect_after;
        let wants = |node: usize| {
            let process = self.nodes[node].process.as_ref();
            process.is_some_and(|process| process.endpoint.wants_connection())
        };
        let open = !self.wires.is_cut(PRIMARY) && !self.wires.is_cut(SECONDARY);
        let (here, there) = (wants(PRIMARY), self.nodes[SECONDARY].process.is_some());
        if busy || !here || !there || !open || self.nodes[PRIMARY].connection.is_some() {
            return;
        }
        let connection = self.wires.open();
        let made = self.now + 2 * self.wires.delay();
        // What the primary sends comes after the connection itself.
        let accepted = self.wires.arrival(connection, PRIMARY, made);
        // One attempt at a time.
        self.operator.connect_after = made + MOMENT;
        for (node, at) in [(PRIMARY, made), (SECONDARY, accepted)] {
            let epoch = self.nodes[node].epoch;
            self.queue.push(at, Event::Connected { node, epoch, connection });
        }
    }

    /// A connection stands at this end.
    pub(crate) fn connected(&mut self, node: usize, connection: ConnectionId) {
        if node == PRIMARY && self.nodes[node].connection.is_some() {
            return;
        }
        self.say(|| format!("{}: connection {connection} stands", name(node)));
        if let Some(former) = self.nodes[node].connection.replace(connection) {
            self.wires.forget(former);
        }
        if let Some(process) = &mut self.nodes[node].process {
            process.owed.clear();
        }
        self.drive_quietly(node, Input::Connected);
    }

    /// The connection is gone at this end.
    pub(crate) fn reset(&mut self, node: usize, connection: ConnectionId) {
        if self.nodes[node].connection != Some(connection) {
            return;
        }
        self.say(|| format!("{}: connection {connection} is gone", name(node)));
        self.close(node);
    }

    fn close(&mut self, node: usize) {
        self.nodes[node].connection = None;
        self.drive_quietly(node, Input::Disconnected);
    }

    /// Puts a segment on the server's connection, if it has one.
    fn send(&mut self, node: usize, segment: Segment) {
        let Some(connection) = self.nodes[node].connection else { return };
        let at = self.wires.arrival(connection, node, self.now);
        self.queue.push(at, Event::Segment { from: node, connection, segment });
    }

    /// What the network held back arrives soon.
    pub(crate) fn resend(&mut self, from: usize, connections: Vec<ConnectionId>) {
        for connection in connections {
            let at = self.wires.arrival(connection, from, self.now);
            self.queue.push(at, Event::Resent { from, connection });
        }
    }

    /// A segment has arrived.
    pub(crate) fn arrived(&mut self, from: usize, connection: ConnectionId, segment: Segment) {
        let node = 1 - from;
        if self.nodes[node].connection != Some(connection) {
            // Nobody is there: the sender is told, if the network lets that through.
            if !self.wires.is_cut(node) {
                let delay = self.wires.delay();
                self.after(delay, Event::Reset { node: from, connection });
            }
            return;
        }
        let frames = match segment {
            Segment::End => return self.reset(node, connection),
            Segment::Frames(frames) => frames,
        };
        let mut rest = &frames[..];
        while let Some((size, tail)) = rest.split_first_chunk::<2>() {
            let (frame, next) = tail.split_at(usize::from(u16::from_be_bytes(*size)));
            rest = next;
            if self.nodes[node].connection != Some(connection) {
                return;
            }
            self.stats.frames += 1;
            let Learned { owed, repeated } = self.learn(node, frame);
            self.drive_quietly(node, Input::Received(frame, owed));
            self.believe(node, &repeated);
        }
    }

    /// What a message that arrives means for the shadow of section 4.4. If it is an update, it is one
    /// of these leases, of which the stamps are to be found.
    fn learn(&mut self, node: usize, frame: &[u8]) -> Learned {
        let mut learned = Learned::default();
        if is_contact(frame) && !self.is_traced() {
            return learned;
        }
        let Ok(message) = FailoverMessage::parse(frame) else { return learned };
        let id = message.header.transaction_id.0;
        if self.is_traced() {
            self.say(|| format!("{}: hears {}", name(node), describe(&message)));
        }
        let reply = match Body::parse(&message) {
            Ok(Body::BndReply(reply)) => reply,
            Ok(Body::BndUpd(BndUpd::Client(binding))) => {
                let mut leases = Vec::new();
                for entry in binding.leases().flatten() {
                    let head = entry.head;
                    let lease = Lease { address: head.address, prefix_len: head.prefix_len };
                    leases.push((lease, 0));
                    let Ok(it) = entry.lease() else { continue };
                    let owner = Owner::from_duid(binding.client.client_id, head.ia.iaid.0);
                    if let (Some(owner), Some(time)) = (owner, it.state.expiration_time)
                        && it.state.binding_status == BindingStatus::ACTIVE
                    {
                        learned.repeated.push((lease, owner, AbsoluteTime(time.0)));
                    }
                }
                learned.owed = Some((id, leases));
                return learned;
            }
            Ok(Body::BndUpd(BndUpd::Prefix(it))) => {
                learned.owed = Some((id, vec![(Lease::prefix(it.prefix, it.prefix_len), 0)]));
                return learned;
            }
            _ => return learned,
        };
        for acked in accepted(&reply) {
            match acked {
                Accepted {
                    lease,
                    owner: Some(owner),
                    status: BindingStatus::ACTIVE,
                    lifetime,
                    ..
                } => {
                    self.checks.acknowledged(node, lease, owner, lifetime);
                }
                Accepted { lease, .. } => {
                    self.checks.ended(node, lease);
                    self.checks.known_ended(node, lease, self.now);
                }
            }
        }
        learned
    }

    /// The server has read an update: what the partner repeats in it counts, if the lease is that
    /// client's here, too. Where it is not, the update has been rejected.
    fn believe(&mut self, node: usize, repeated: &[Repeated]) {
        let Some(process) = &self.nodes[node].process else { return };
        for &(lease, owner, lifetime) in repeated {
            let here = process.table.binding(lease);
            let is_same = here.is_some_and(|binding| {
                Owner::from_duid(binding.duid.as_bytes(), binding.iaid.0) == Some(owner)
            });
            if is_same {
                self.checks.acknowledged(node, lease, owner, lifetime);
            }
        }
    }

    /// Nothing leaves before what it says is stored.
    fn check_frames(&mut self, node: usize, frames: &[u8]) {
        let mut rest = frames;
        while let Some((size, tail)) = rest.split_first_chunk::<2>() {
            let (frame, next) = tail.split_at(usize::from(u16::from_be_bytes(*size)));
            rest = next;
            if is_contact(frame) && !self.is_traced() {
                continue;
            }
            let Ok(message) = FailoverMessage::parse(frame) else { continue };
            if self.is_traced() {
                self.say(|| format!("{}: sends {}", name(node), describe(&message)));
            }
            match Body::parse(&message) {
                Ok(Body::BndReply(reply)) => {
                    self.check_reply(node, message.header.transaction_id.0, &reply);
                }
                Ok(Body::State(state)) => {
                    let stored = self.nodes[node].store.state.as_ref().map(|it| it.state as u8);
                    let told = state.server_state.0;
                    let starting = state.server_flags.contains(ServerFlags::STARTUP);
                    if !starting && stored != Some(told) {
                        self.violate(Rule::Durability, || {
                            let told = state.server_state;
                            format!(
                                "{} says that it is in {told}, stored is {stored:?}",
                                name(node)
                            )
                        });
                    }
                }
                Ok(_) => {}
                Err(error) => self.violate(Rule::Panic, || {
                    format!("{} sends what it cannot read itself: {error}", name(node))
                }),
            }
        }
    }

    fn check_reply(&mut self, node: usize, id: [u8; 3], reply: &BndReply<'_>) {
        let Some(process) = &mut self.nodes[node].process else { return };
        let owed = process.owed.remove(&id).unwrap_or_default();
        for acked in accepted(reply) {
            let lease = acked.lease;
            let needed = owed.iter().find(|(it, _)| *it == lease).map_or(0, |(_, stamp)| *stamp);
            let record = self.nodes[node].store.records.get(&lease);
            let stored = record.map_or(0, |record| record.stamp);
            if stored < needed && !acked.is_said_by(record) {
                self.violate(Rule::Durability, || {
                    format!(
                        "{} acknowledges {lease} as {}, update {needed} is not stored, only {stored}",
                        name(node),
                        acked.status
                    )
                });
            }
            match acked {
                Accepted { owner: Some(owner), status: BindingStatus::ACTIVE, .. } => {
                    // The end is in the record that has just been found stored.
                    let records = &self.nodes[node].store.records;
                    let since = self.checks.given_back(node, lease, owner).stamp;
                    let stored = records.get(&lease).filter(|it| it.stamp >= since);
                    let stored = stored.map(|it| &it.binding).filter(|it| {
                        let of = Owner::from_duid(it.duid.as_bytes(), it.iaid.0);
                        it.status == gemel_lease::BindingStatus::Active && of == Some(owner)
                    });
                    if let Some(until) = stored.map(|it| it.state_expiration_time) {
                        self.checks.knows(node, lease, owner, until);
                    }
                }
                Accepted { .. } => {
                    self.checks.ended(node, lease);
                    self.checks.known_ended(node, lease, self.now);
                }
            }
        }
    }
}

/// Whether a server in this state may give leases to clients.
pub(crate) fn serves(state: ServerState) -> bool {
    match state {
        ServerState::Normal
        | ServerState::CommunicationsInterrupted
        | ServerState::PartnerDown
        | ServerState::ResolutionInterrupted
        | ServerState::ConflictDone => true,
        ServerState::Startup
        | ServerState::PotentialConflict
        | ServerState::Recover
        | ServerState::RecoverWait
        | ServerState::RecoverDone => false,
    }
}

/// Most of what goes between the servers says nothing.
fn is_contact(frame: &[u8]) -> bool {
    frame.first() == Some(&MessageType::CONTACT.0)
}

/// A lease that a BNDREPLY accepts.
#[derive(Clone, Copy, Debug)]
struct Accepted {
    lease: Lease,
    owner: Option<Owner>,
    status: BindingStatus,
    lifetime: AbsoluteTime,
    end: AbsoluteTime,
}

impl Accepted {
    /// Whether this record says what has been acknowledged, be it older than the last change.
    fn is_said_by(&self, record: Option<&Record>) -> bool {
        use gemel_lease::BindingStatus as Status;
        let Some(Record { binding, .. }) = record else {
            return matches!(
                self.status,
                BindingStatus::EXPIRED | BindingStatus::RELEASED | BindingStatus::FREE
            );
        };
        let same = Owner::from_duid(binding.duid.as_bytes(), binding.iaid.0) == self.owner;
        match (self.status, binding.status) {
            (BindingStatus::ACTIVE, Status::Active) => {
                // Until then the server keeps the lease for the client, whatever else it forgets.
                let kept = binding.state_expiration_time.max(binding.expiration_time);
                same && binding.expiration_time >= self.lifetime && kept >= self.end
            }
            // It has run as long as the partner said.
            (BindingStatus::ACTIVE, Status::Expired) => {
                same && binding.expiration_time >= self.lifetime
                    && binding.start_time_of_state >= self.end
            }
            (BindingStatus::ABANDONED, Status::Abandoned) => same,
            (BindingStatus::FREE_BACKUP, status) => status == Status::FreeBackup,
            (BindingStatus::FREE, status) => status == Status::Free,
            // What has ended may not be given to its client again, nor does a restart forget that.
            (BindingStatus::EXPIRED | BindingStatus::RELEASED | BindingStatus::RESET, status) => {
                !same || status != Status::Active
            }
            _ => false,
        }
    }
}

fn accepted(reply: &BndReply<'_>) -> Vec<Accepted> {
    let mut all = Vec::new();
    match reply {
        BndReply::Client(client) if !client.is_rejected() => {
            for it in client.leases().flatten().filter(|it| it.ack.is_accepted()) {
                let (head, ack) = (it.head, it.ack);
                all.push(Accepted {
                    lease: Lease { address: head.address, prefix_len: head.prefix_len },
                    owner: Owner::from_duid(client.client.client_id, head.ia.iaid.0),
                    status: ack.binding_status.unwrap_or(BindingStatus(0)),
                    lifetime: AbsoluteTime(ack.partner_lifetime_sent.unwrap_or_default().0),
                    end: AbsoluteTime(ack.state_expiration_time.unwrap_or_default().0),
                });
            }
        }
        BndReply::Prefix(prefix) if prefix.ack.is_accepted() => all.push(Accepted {
            lease: Lease::prefix(prefix.prefix, prefix.prefix_len),
            owner: None,
            status: prefix.ack.binding_status.unwrap_or(BindingStatus(0)),
            lifetime: AbsoluteTime::ZERO,
            end: AbsoluteTime::ZERO,
        }),
        BndReply::Client(_) | BndReply::Prefix(_) => {}
    }
    all
}

/// A message for the story.
fn describe(message: &FailoverMessage<'_>) -> String {
    let [x0, x1, x2] = message.header.transaction_id.0;
    let id = u32::from_be_bytes([0, x0, x1, x2]);
    let mut text = format!("{} {id}", message.msg_type);
    match Body::parse(message) {
        Ok(Body::BndUpd(BndUpd::Client(binding))) => {
            for it in binding.leases().flatten() {
                let lease = Lease { address: it.head.address, prefix_len: it.head.prefix_len };
                let owner = Owner::from_duid(binding.client.client_id, it.head.ia.iaid.0);
                let client = owner.map_or(usize::MAX, |owner| owner.client);
                text += &format!(" client {client} {lease}");
                if let Ok(it) = it.lease() {
                    let state = it.state;
                    text +=
                        &format!(" {} since {}", state.binding_status, state.start_time_of_state);
                    let base = binding.client.base_time;
                    for (name, time) in [
                        ("clt", state.client_last_transaction_time(base)),
                        ("end", state.state_expiration_time),
                        ("partner-lifetime", state.partner_lifetime),
                        ("raw-clt", state.partner_raw_clt_time),
                        ("expiration", state.expiration_time),
                    ] {
                        if let Some(time) = time {
                            text += &format!(" {name} {time}");
                        }
                    }
                }
            }
        }
        Ok(Body::BndUpd(BndUpd::Prefix(it))) => {
            text += &format!(" {}/{} {}", it.prefix, it.prefix_len, it.state.binding_status);
        }
        Ok(Body::BndReply(BndReply::Client(client))) => {
            if let Some(status) = client.client.status {
                text += &format!(" status {}", status.code);
            }
            for it in client.leases().flatten() {
                let lease = Lease { address: it.head.address, prefix_len: it.head.prefix_len };
                match it.ack.status {
                    Some(status) => text += &format!(" {lease} {}", status.code),
                    None => text += &format!(" {lease} ok"),
                }
            }
        }
        Ok(Body::BndReply(BndReply::Prefix(it))) => {
            text += &format!(" {}/{}", it.prefix, it.prefix_len);
            match it.ack.status {
                Some(status) => text += &format!(" {}", status.code),
                None => text += " ok",
            }
        }
        Ok(Body::State(state)) => {
            text += &format!(
                " {} {:?} since {}",
                state.server_state, state.server_flags, state.start_time_of_state
            );
        }
        Ok(_) => {}
        Err(error) => text += &format!(" ({error})"),
    }
    text
}
