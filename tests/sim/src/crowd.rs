//! Clients and servers meet: messages under way, answers, and what must be true of them.

use std::rc::Rc;

use gemel_failover::ServerState;
use gemel_lease::{ClientKey, IaKind, Lease, Responsiveness, UpdateBatch};
use gemel_server::{Inbound, Outcome, Service};
use gemel_wire::{ALL_RELAY_AGENTS_AND_SERVERS, CLIENT_PORT, IaId, MessageType};

use crate::check::{GivenBack, Owner, Rule};
use crate::client::Act;
use crate::clock::{Micros, SECOND};
use crate::fault::Fault;
use crate::message::{Answer, Said, client_address, client_duid, parse, said, server_duid};
use crate::node::{INTERFACE, PRIMARY, SECONDARY};
use crate::store::HeldReply;
use crate::world::{Event, MOMENT, Phase, World, name};

impl World {
    /// A client gives back what it has.
    pub fn release(&mut self, client: usize) {
        let mut acts = Vec::new();
        self.clients[client].release(self.now, &mut acts);
        self.act(client, acts);
    }

    /// A client finds its addresses in use by somebody else.
    pub fn decline(&mut self, client: usize) {
        let mut acts = Vec::new();
        self.clients[client].decline(self.now, &mut acts);
        self.act(client, acts);
    }

    /// A client extends its leases out of turn, by RENEW or by REBIND.
    pub fn extend(&mut self, client: usize, rebind: bool) {
        let mut acts = Vec::new();
        self.clients[client].extend(rebind, self.now, &mut acts);
        self.act(client, acts);
    }

    /// A client falls silent for `span`, and believes all the time in what it has.
    pub fn leave(&mut self, client: usize, span: Micros) {
        self.clients[client].leave(self.now + span);
        self.arm(client);
    }

    /// A client and a server do not hear each other any more, or do so again.
    pub fn cut_client(&mut self, client: usize, node: usize, cut: bool) {
        if cut {
            self.paths.cut_clients.insert((client, node));
        } else {
            self.paths.cut_clients.remove(&(client, node));
        }
    }

    pub(crate) fn client_timeout(&mut self, client: usize, timer: u64) {
        let found = &mut self.clients[client];
        if found.timer.1 != timer || found.retired {
            return;
        }
        let mut acts = Vec::new();
        found.timeout(self.now, &self.plan, &mut acts);
        self.act(client, acts);
    }

    /// A server's answer has arrived.
    pub(crate) fn answered(&mut self, node: usize, client: usize, octets: &[u8], made: Micros) {
        if self.clients[client].retired {
            return;
        }
        let Some(answer) = parse(octets) else { return };
        if self.is_traced() {
            self.say(|| format!("client {client}: hears {}: {}", name(node), tell(&answer)));
        }
        let leases: Vec<_> =
            answer.ias.iter().flat_map(|ia| &ia.leases).map(|it| it.lease).collect();
        let mut acts = Vec::new();
        self.clients[client].receive(answer, made, self.now, &self.plan, &mut acts);
        self.act(client, acts);
        for lease in leases {
            self.checks.pardon_heard(client, node, lease, made);
        }
    }

    /// Sets the timer that the client wants.
    pub(crate) fn arm(&mut self, client: usize) {
        let found = &mut self.clients[client];
        let (at, timer) = found.timer;
        if at < Micros::MAX && std::mem::replace(&mut found.armed, timer) != timer {
            self.queue.push(at.max(self.now + MOMENT), Event::Client { client, timer });
        }
    }

    fn act(&mut self, client: usize, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Send(octets) => self.multicast(client, octets.into()),
                Act::LetGo(lease) => self.checks.let_go(client, lease),
                Act::Hold { iaid, lease, until } => self.hold(client, iaid, lease, until),
            }
        }
        self.arm(client);
    }

    fn hold(&mut self, client: usize, iaid: u32, lease: Lease, until: Micros) {
        self.stats.holds += 1;
        self.note(u64::from(iaid) ^ until);
        let [.., low] = lease.address.segments();
        self.note(u64::from(low));
        let slack = self.slack();
        let other = self.checks.hold(client, lease, until, self.now, slack);
        let Some(other) = other.filter(|_| self.checks.loose.is_none()) else { return };
        let left = self.checks.held_until(other, lease).unwrap_or(0).saturating_sub(self.now);
        self.violate(Rule::OneHolder, || {
            format!(
                "client {client} ia {iaid} takes {lease}, which client {other} has for another {} s",
                left / SECOND
            )
        });
    }

    /// How far clocks can make two views of one lease differ without anybody being to blame.
    pub(crate) fn slack(&self) -> Micros {
        let mut slack = self.plan.slack();
        // A careful operator sets the clocks, too, and in the end everybody does.
        let are_set = self.has_fault(Fault::Clock) || self.has_fault(Fault::PartnerDown);
        if are_set || self.phase != Phase::Faults {
            slack += 2 * self.plan.skew_max + SECOND;
        }
        if self.has_fault(Fault::Skew) {
            slack += 2 * crate::fault::SKEW_MAX;
        }
        slack
    }

    /// Both servers hear what a client says, if the network lets them.
    fn multicast(&mut self, client: usize, octets: Rc<[u8]>) {
        if self.is_traced()
            && let Some(Said { msg_type, leases, .. }) = said(&octets)
        {
            let leases: Vec<_> = leases.iter().map(|(.., lease)| lease.to_string()).collect();
            self.say(|| format!("client {client}: {msg_type} {}", leases.join(" ")));
        }
        for node in [PRIMARY, SECONDARY] {
            for at in self.travel(client, node) {
                let octets = Rc::clone(&octets);
                self.queue.push(at, Event::Request { node, client, octets });
            }
        }
    }

    /// When a message between client and server arrives: never, once, or twice.
    fn travel(&mut self, client: usize, node: usize) -> impl Iterator<Item = Micros> + use<> {
        let (now, delay_max) = (self.now, self.plan.delay_max);
        let paths = &mut self.paths;
        let cut = paths.cut[node] || paths.cut_clients.contains(&(client, node));
        let lost = paths.rng.chance(paths.loss);
        let twice = paths.rng.chance(self.plan.duplication);
        let mut at = || now + paths.rng.range(MOMENT, delay_max);
        let first = (!cut && !lost).then(&mut at);
        let second = (!cut && !lost && twice).then(&mut at);
        first.into_iter().chain(second)
    }

    /// A client's message has arrived at a server.
    pub(crate) fn serve(&mut self, node: usize, client: usize, octets: &[u8]) {
        if self.phase == Phase::Quiet {
            return;
        }
        let now = self.nodes[node].clock.at(self.now);
        let Some(process) = &self.nodes[node].process else { return };
        let inbound = Inbound {
            payload: octets,
            source: client_address(client),
            source_port: CLIENT_PORT,
            destination: ALL_RELAY_AGENTS_AND_SERVERS,
            interface: INTERFACE,
        };
        let rules = process.rules();
        let Some(said) = said(octets) else { return };
        let msg_type = said.msg_type;
        // What names the other server is dropped without a look.
        let is_for_other = said.server == server_duid(1 - node);
        let former = if is_for_other { Vec::new() } else { self.leases_at(node, client) };
        let mut buffer = std::mem::take(&mut self.reply_buffer);
        let mut updates = UpdateBatch::default();
        let Some(process) = &self.nodes[node].process else { return };
        let outcome =
            process.server.handle(&inbound, now.wall, Service::Full, &mut buffer, &mut updates);
        let reply = match outcome {
            Outcome::Reply(info) => Some(&buffer[..info.len]),
            Outcome::Drop(_) => None,
        };
        let answer = reply.and_then(parse);
        let gives_back = matches!(msg_type, MessageType::RELEASE | MessageType::DECLINE);
        let given_back = gives_back && answer.is_some();
        self.check_continuity(node, client, &said, rules.responsiveness, answer.as_ref());
        let mut grants = Vec::new();
        if let Some(answer) = &answer {
            self.stats.answers += 1;
            self.check_answer(node, client, msg_type, answer, &former);
            for ia in answer.ias.iter().filter(|_| answer.msg_type == MessageType::REPLY) {
                let owner = Owner { client, iaid: ia.iaid };
                for it in ia.leases.iter().filter(|it| it.valid > 0) {
                    if !self.checks.is_blurred(node, it.lease, owner, now.wall, self.now) {
                        grants.push((it.lease, owner, now.wall.plus(it.valid)));
                    }
                }
            }
        }
        let reply = reply.map(|octets| HeldReply {
            client,
            octets: octets.to_vec(),
            made: self.now,
            grants,
        });
        self.reply_buffer = buffer;
        if !updates.is_empty() {
            self.submit_updates(node, &updates, reply);
        } else if let Some(reply) = reply {
            self.send_reply(node, &reply);
        }
        if given_back {
            self.give_back(node, client, &said);
        }
    }

    fn give_back(&mut self, node: usize, client: usize, said: &Said) {
        let Some(process) = &self.nodes[node].process else { return };
        for (iaid, _, lease) in &said.leases {
            let owner = Owner { client, iaid: *iaid };
            let stamp = process.pushed.get(lease).copied().unwrap_or(0);
            let wall = self.nodes[node].clock.at(self.now).wall;
            self.checks.unknown(node, *lease, owner, GivenBack { at: self.now, wall, stamp });
        }
    }

    /// A reply that waited for the store leaves.
    pub(crate) fn stored_reply(&mut self, node: usize, reply: &HeldReply) {
        for (lease, owner, until) in &reply.grants {
            if self.checks.given_back(node, *lease, *owner).at <= reply.made {
                self.checks.knows(node, *lease, *owner, *until);
            }
        }
        self.send_reply(node, reply);
    }

    fn send_reply(&mut self, node: usize, reply: &HeldReply) {
        let octets: Rc<[u8]> = reply.octets.as_slice().into();
        let (client, made) = (reply.client, reply.made);
        for at in self.travel(client, node) {
            let octets = Rc::clone(&octets);
            self.queue.push(at, Event::Reply { node, client, octets, made });
        }
    }

    /// What the client's associations have at a server.
    fn leases_at(&self, node: usize, client: usize) -> Vec<Lease> {
        let mut leases = Vec::new();
        let Some(table) = self.table(node) else { return leases };
        let duid = client_duid(client);
        for (iaid, kind) in (1..).zip(self.clients[client].kinds()) {
            let guard = table.lock(ClientKey { duid: &duid, kind: *kind, iaid: IaId(iaid) });
            leases.extend(guard.bindings().map(|binding| binding.lease));
        }
        leases
    }

    /// Whether this server may give this answer in its state.
    fn check_answer(
        &mut self,
        node: usize,
        client: usize,
        msg_type: MessageType,
        answer: &Answer,
        former: &[Lease],
    ) {
        let Some(state) = self.state(node) else { return };
        let named_it = !matches!(msg_type, MessageType::SOLICIT | MessageType::REBIND);
        let allowed = match state {
            ServerState::Startup
            | ServerState::Recover
            | ServerState::RecoverWait
            | ServerState::PotentialConflict => false,
            ServerState::RecoverDone => msg_type == MessageType::RENEW,
            ServerState::Normal => node == PRIMARY || named_it,
            ServerState::CommunicationsInterrupted
            | ServerState::PartnerDown
            | ServerState::ResolutionInterrupted
            | ServerState::ConflictDone => true,
        };
        if !allowed {
            self.violate(Rule::Responsiveness, || {
                format!("{} answers {msg_type} of client {client} in {state}", name(node))
            });
        }
        if answer.msg_type != MessageType::REPLY {
            return;
        }
        let now = self.nodes[node].clock.at(self.now).wall;
        for ia in &answer.ias {
            let owner = Owner { client, iaid: ia.iaid };
            for it in ia.leases.iter().filter(|it| it.valid > 0) {
                let (end, acked) = (now.plus(it.valid), self.checks.acked(node, it.lease, owner));
                let limit = acked.max(now).plus(self.plan.mclt);
                if state != ServerState::PartnerDown && end > limit {
                    self.violate(Rule::Mclt, || {
                        format!(
                            "{} in {state} gives {} to client {client} until {}, acknowledged is {}, \
                             now is {}",
                            name(node),
                            it.lease,
                            end.0,
                            acked.0,
                            now.0
                        )
                    });
                }
                let mine = it.lease.bits() & 1 == if node == PRIMARY { 1 } else { 0 };
                if ia.kind == IaKind::Na && !mine && !former.contains(&it.lease) {
                    self.violate(Rule::Ownership, || {
                        format!("{} allocates {} of the other's", name(node), it.lease)
                    });
                }
                if state == ServerState::RecoverDone && !former.contains(&it.lease) {
                    self.violate(Rule::Ownership, || {
                        format!("{} allocates {} in {state}", name(node), it.lease)
                    });
                }
            }
        }
    }

    /// A client that is heard keeps what it has.
    fn check_continuity(
        &mut self,
        node: usize,
        client: usize,
        said: &Said,
        responsiveness: Responsiveness,
        answer: Option<&Answer>,
    ) {
        if self.checks.loose.is_some() {
            return;
        }
        let msg_type = said.msg_type;
        let must_answer = match (msg_type, responsiveness) {
            (MessageType::REBIND, Responsiveness::Responsive) => true,
            (MessageType::RENEW, Responsiveness::Responsive | Responsiveness::RenewResponsive) => {
                said.server == server_duid(node)
            }
            _ => false,
        };
        if !must_answer && (answer.is_none() || msg_type != MessageType::RENEW) {
            return;
        }
        let slack = self.slack();
        let now = self.nodes[node].clock.at(self.now).wall;
        let slack_secs = u32::try_from(slack / SECOND).unwrap_or(0);
        for (iaid, kind, lease) in &said.leases {
            let owner = Owner { client, iaid: *iaid };
            let holds = self.clients[client].holds(*iaid, *lease, self.now + slack);
            let known = self.checks.known(node, *lease, owner);
            if !holds || known <= now.plus(slack_secs) {
                continue;
            }
            match answer.map(|answer| answer.valid(*iaid, *kind, *lease)) {
                Some(Some(1..)) => self.stats.kept += 1,
                told => self.violate(Rule::Continuity, || {
                    let told = match told {
                        None => "gets no answer",
                        Some(None) => "is told nothing",
                        Some(Some(_)) => "is told that it is over",
                    };
                    format!(
                        "client {client} sends {msg_type} for {lease} and {told} by the {}, which \
                         knows it until {}; now is {}",
                        name(node),
                        known.0,
                        now.0
                    )
                }),
            }
        }
    }
}

/// An answer for the story.
fn tell(answer: &Answer) -> String {
    let mut text = answer.msg_type.to_string();
    for ia in &answer.ias {
        text += &format!(" ia {}", ia.iaid);
        if ia.status != gemel_wire::StatusCode::SUCCESS {
            text += &format!(" {}", ia.status);
        }
        for it in &ia.leases {
            text += &format!(" {} for {} s", it.lease, it.valid);
        }
    }
    text
}
