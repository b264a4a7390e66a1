//! The world: two servers, the network between them, their clients, and virtual time.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use gemel_failover::{Command, CommandError, ServerState, Status};
use gemel_lease::{BindingStatus, IaKind, Lease, LeaseTable, Responsiveness};

use crate::check::{Checks, Rule, Violation};
use crate::client::{Client, ClientState, Held};
use crate::clock::{Clock, MILLISECOND, Micros, SECOND, display};
use crate::driver::Input;
use crate::fault::{Fault, Mend};
use crate::node::{Node, PRIMARY, SECONDARY};
use crate::plan::Plan;
use crate::queue::Queue;
use crate::rng::Rng;
use crate::wires::{ConnectionId, Segment, Wires};

/// Something that is going to happen. A server's events name its process by `epoch`.
#[derive(Debug)]
pub(crate) enum Event {
    /// The endpoint's timer.
    Wake { node: usize, epoch: u32 },
    /// The endpoint had more to do, or its batch could not be handed over.
    Poll { node: usize, epoch: u32 },
    /// A group of updates has been written.
    Commit { node: usize, epoch: u32 },
    /// The pair thread hears what was committed.
    Notice { node: usize, epoch: u32, updates: Vec<u8> },
    /// The endpoint's state has been written.
    Persisted { node: usize, epoch: u32 },
    /// The server looks for what is over.
    Sweep { node: usize, epoch: u32 },
    /// The primary tries to connect.
    Connect { epoch: u32 },
    /// A connection stands, at this end.
    Connected { node: usize, epoch: u32, connection: ConnectionId },
    /// The connection is gone, at this end.
    Reset { node: usize, connection: ConnectionId },
    /// Something arrives on a connection.
    Segment { from: usize, connection: ConnectionId, segment: Segment },
    /// What the network held back of what `from` sent arrives.
    Resent { from: usize, connection: ConnectionId },
    /// A client's message arrives at a server.
    Request { node: usize, client: usize, octets: Rc<[u8]> },
    /// A server's answer arrives at a client.
    Reply { node: usize, client: usize, octets: Rc<[u8]>, made: Micros },
    /// A client's timer.
    Client { client: usize, timer: u64 },
    /// A fault.
    Fault,
    /// The end of one.
    Mend(Mend),
    /// A look at both servers.
    Look,
}

/// Of each of these there is one that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Alarm {
    Wake(usize),
    Sweep(usize),
    Connect,
    Look,
}

impl Alarm {
    pub(crate) const fn number(self) -> usize {
        match self {
            Self::Wake(node) => node,
            Self::Sweep(node) => 2 + node,
            Self::Connect => 4,
            Self::Look => 5,
        }
    }
}

/// The network between the clients and the servers.
#[derive(Debug)]
pub(crate) struct Paths {
    /// Whether clients and this server do not hear each other.
    pub(crate) cut: [bool; 2],
    /// The same for single clients.
    pub(crate) cut_clients: BTreeSet<(usize, usize)>,
    /// More messages than usual are lost, in permille.
    pub(crate) loss: u64,
    pub(crate) rng: Rng,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    Faults,
    Healing,
    Quiet,
}

/// What was done in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Events.
    pub events: u64,
    /// Messages of clients that a server answered.
    pub answers: u64,
    /// Leases that clients took.
    pub holds: u64,
    /// Messages of clients that must be answered, and were.
    pub kept: u64,
    /// Frames between the servers.
    pub frames: u64,
    /// Faults.
    pub faults: u64,
    /// Changes of state.
    pub transitions: u64,
    /// Times that both servers reached NORMAL together.
    pub normal: u64,
    /// Runs in which nothing can be promised to the clients from some time on.
    pub loose: u64,
    /// Virtual time.
    pub virtual_secs: u64,
}

impl Stats {
    /// Sums up.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.answers += other.answers;
        self.holds += other.holds;
        self.kept += other.kept;
        self.frames += other.frames;
        self.faults += other.faults;
        self.transitions += other.transitions;
        self.normal += other.normal;
        self.loose += other.loose;
        self.virtual_secs += other.virtual_secs;
    }
}

/// Where the story of a run goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trace {
    /// Nowhere.
    Off,
    /// The last lines are kept.
    Last(usize),
    /// To standard output as it happens.
    Print,
}

/// Two servers, their clients, and everything between them.
#[derive(Debug)]
pub struct World {
    pub(crate) plan: Plan,
    pub(crate) now: Micros,
    pub(crate) queue: Queue<Event>,
    pub(crate) nodes: [Node; 2],
    pub(crate) wires: Wires,
    pub(crate) paths: Paths,
    pub(crate) clients: Vec<Client>,
    pub(crate) checks: Checks,
    pub(crate) rng: Rng,
    pub(crate) fault_rng: Rng,
    pub(crate) phase: Phase,
    pub(crate) operator: crate::fault::Operator,
    pub(crate) stats: Stats,
    pub(crate) reply_buffer: Vec<u8>,
    /// Every change of state: which server, and to what.
    pub(crate) history: Vec<(usize, ServerState)>,
    both_normal: bool,
    violation: Option<Violation>,
    trace: Trace,
    lines: VecDeque<String>,
    fingerprint: u64,
}

/// Interval of [`Event::Look`].
const LOOK_INTERVAL: Micros = 10 * SECOND;

impl World {
    /// The world that a plan describes, at the moment before its servers start.
    #[must_use]
    pub fn new(plan: Plan, trace: Trace) -> Self {
        let mut rng = Rng::new(plan.seed ^ 0x6765_6d65_6c00);
        let clock = |rng: &mut Rng| Clock {
            offset: plan.offset(rng.around(i64::try_from(plan.skew_max).unwrap_or(0))),
            drift_ppm: rng.around(plan.drift_ppm_max),
        };
        let nodes = [Node::new(clock(&mut rng)), Node::new(clock(&mut rng))];
        let wires = Wires::new(plan.segment_delay_max, rng.fork());
        let paths = Paths {
            cut: [false; 2],
            cut_clients: BTreeSet::new(),
            loss: plan.loss,
            rng: rng.fork(),
        };
        let mut world = Self {
            now: 0,
            queue: Queue::new(),
            nodes,
            wires,
            paths,
            clients: Vec::new(),
            checks: Checks::default(),
            fault_rng: rng.fork(),
            phase: Phase::Faults,
            operator: crate::fault::Operator::default(),
            stats: Stats::default(),
            reply_buffer: vec![0; 2048],
            history: Vec::new(),
            both_normal: false,
            violation: None,
            trace,
            lines: VecDeque::new(),
            fingerprint: 0xcbf2_9ce4_8422_2325,
            rng,
            plan,
        };
        for _ in 0..world.plan.clients {
            let kinds = match world.rng.below(1000) {
                it if it < world.plan.pd_only => vec![IaKind::Pd],
                it if it < world.plan.pd_only + world.plan.both => vec![IaKind::Na, IaKind::Pd],
                _ => vec![IaKind::Na],
            };
            let client = world.add_client(kinds);
            let at = world.rng.range(0, world.plan.faults.0.max(30 * SECOND));
            world.clients[client].start(at);
            world.arm(client);
        }
        world.boot(PRIMARY);
        world.boot(SECONDARY);
        world.set(Alarm::Look, LOOK_INTERVAL, Event::Look);
        world
    }

    /// Another client, which does nothing of its own accord before [`World::start_client`].
    pub fn add_client(&mut self, kinds: Vec<IaKind>) -> usize {
        let number = self.clients.len();
        let rng = self.rng.fork();
        self.clients.push(Client::new(number, kinds, &self.plan, rng));
        number
    }

    /// Lets everything happen that happens within `span`; false if something was found wrong.
    pub fn run(&mut self, span: Micros) -> bool {
        let until = self.now + span;
        self.run_until(until, |_| false);
        self.violation.is_none()
    }

    /// Lets things happen until `enough` says so, or for `span` at most. Whether it said so.
    pub fn run_while(&mut self, span: Micros, enough: impl Fn(&Self) -> bool) -> bool {
        let until = self.now + span;
        self.run_until(until, enough)
    }

    fn run_until(&mut self, until: Micros, enough: impl Fn(&Self) -> bool) -> bool {
        loop {
            if self.violation.is_some() {
                return false;
            }
            if enough(self) {
                return true;
            }
            let Some((at, event)) = self.queue.pop(until) else {
                self.now = self.now.max(until);
                return enough(self);
            };
            self.now = self.now.max(at);
            self.stats.events += 1;
            self.note(at);
            self.happen(event);
        }
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Virtual time.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.now
    }

    /// What was found wrong.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// The states that a server has gone through.
    #[must_use]
    pub fn history(&self, node: usize) -> Vec<ServerState> {
        self.history.iter().filter(|(of, _)| *of == node).map(|(_, state)| *state).collect()
    }

    /// What was done.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let loose = u64::from(self.checks.loose.is_some());
        Stats { virtual_secs: self.now / SECOND, loose, ..self.stats }
    }

    /// A number that two runs share only if the same happened in both.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The last lines of the story.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }

    /// State of a server that is running.
    #[must_use]
    pub fn state(&self, node: usize) -> Option<ServerState> {
        self.nodes[node].process.as_ref().map(|it| it.endpoint.state())
    }

    /// Status of a server that is running.
    #[must_use]
    pub fn status(&self, node: usize) -> Option<Status> {
        let now = self.nodes[node].clock.at(self.now);
        self.nodes[node].process.as_ref().map(|it| it.endpoint.status(now))
    }

    /// What a running server may answer.
    #[must_use]
    pub fn responsiveness(&self, node: usize) -> Option<Responsiveness> {
        self.nodes[node].process.as_ref().map(|it| it.rules().responsiveness)
    }

    /// The lease table of a server that is running.
    #[must_use]
    pub fn table(&self, node: usize) -> Option<&LeaseTable> {
        self.nodes[node].process.as_ref().map(|it| &*it.table)
    }

    /// Status of a lease at a server that is running.
    #[must_use]
    pub fn lease_status(&self, node: usize, lease: Lease) -> Option<BindingStatus> {
        self.table(node)?.status(lease)
    }

    /// What a client believes to have.
    #[must_use]
    pub fn held(&self, client: usize) -> &[Held] {
        self.clients[client].held()
    }

    /// What a client is about.
    #[must_use]
    pub fn client_state(&self, client: usize) -> ClientState {
        self.clients[client].state()
    }

    /// Whether both servers are in NORMAL state.
    #[must_use]
    pub fn is_normal(&self) -> bool {
        [PRIMARY, SECONDARY].iter().all(|node| self.state(*node) == Some(ServerState::Normal))
    }

    /// An operator's command, to a server that is running.
    ///
    /// # Errors
    /// As the endpoint says; never if the server is not running.
    pub fn command(&mut self, node: usize, command: Command) -> Result<(), CommandError> {
        self.say(|| format!("{}: operator says {command:?}", name(node)));
        let result = self.drive(node, Input::Command(command));
        if let Err(error) = &result {
            self.say(|| format!("{}: refused: {error}", name(node)));
        } else if let Some(process) = &mut self.nodes[node].process {
            match command {
                Command::Suspend => process.suspended = true,
                Command::Resume => process.suspended = false,
                Command::PartnerDown if !self.nodes[node].is_whole => {
                    self.expect_conflicts("a server without memory has to serve");
                }
                Command::PartnerDown | Command::Resync | Command::Disconnect => {}
            }
        }
        result
    }

    /// A client solicits now.
    pub fn start_client(&mut self, client: usize) {
        self.clients[client].start(self.now);
        self.arm(client);
    }

    /// Nothing can be promised to the clients from now on.
    pub fn expect_conflicts(&mut self, why: &'static str) {
        if self.checks.loose.is_none() {
            self.say(|| format!("from now on leases may be given twice: {why}"));
            self.checks.loose = Some(why);
        }
    }

    /// Something is wrong.
    pub(crate) fn violate(&mut self, rule: Rule, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let violation = Violation { at: self.now, rule, what: what() };
            self.say(|| format!("WRONG: {}: {}", violation.rule, violation.what));
            self.violation = Some(violation);
        }
    }

    /// A line of the story.
    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        match self.trace {
            Trace::Off => {}
            Trace::Last(count) => {
                if self.lines.len() == count {
                    self.lines.pop_front();
                }
                self.lines.push_back(format!("{} {}", display(self.now), line()));
            }
            Trace::Print => println!("{} {}", display(self.now), line()),
        }
    }

    /// Whether anybody reads the story.
    pub(crate) fn is_traced(&self) -> bool {
        self.trace != Trace::Off
    }

    /// Mixes a number into the fingerprint.
    pub(crate) fn note(&mut self, number: u64) {
        self.fingerprint =
            (self.fingerprint ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(5);
    }

    pub(crate) fn after(&mut self, span: Micros, event: Event) {
        self.queue.push(self.now + span, event);
    }

    /// The same for one that is always there.
    pub(crate) fn set(&mut self, alarm: Alarm, span: Micros, event: Event) {
        self.queue.set(alarm.number(), self.now + span, event);
    }

    /// Whether faults of this kind are on.
    pub(crate) fn has_fault(&self, fault: Fault) -> bool {
        Fault::ALL.iter().zip(self.plan.weights).any(|(it, weight)| *it == fault && weight > 0)
    }

    fn is_current(&self, node: usize, epoch: u32) -> bool {
        self.nodes[node].epoch == epoch && self.nodes[node].process.is_some()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake { node, epoch } if self.is_current(node, epoch) => self.wake(node),
            Event::Poll { node, epoch } if self.is_current(node, epoch) => self.poll(node),
            Event::Commit { node, epoch } if self.is_current(node, epoch) => self.committed(node),
            Event::Notice { node, epoch, updates } if self.is_current(node, epoch) => {
                self.drive_quietly(node, Input::Committed(&updates));
            }
            Event::Persisted { node, epoch } if self.is_current(node, epoch) => {
                self.persisted(node);
            }
            Event::Sweep { node, epoch } if self.is_current(node, epoch) => self.sweep(node),
            Event::Connect { epoch } if self.is_current(PRIMARY, epoch) => self.connect(),
            Event::Connected { node, epoch, connection } if self.is_current(node, epoch) => {
                self.connected(node, connection);
            }
            Event::Reset { node, connection } => self.reset(node, connection),
            Event::Segment { from, connection, segment } => {
                if let Some(segment) = self.wires.arrive(connection, from, segment) {
                    self.arrived(from, connection, segment);
                }
            }
            Event::Resent { from, connection } => {
                for segment in self.wires.release(connection, from) {
                    self.arrived(from, connection, segment);
                }
            }
            Event::Request { node, client, octets } => self.serve(node, client, &octets),
            Event::Reply { node, client, octets, made } => {
                self.answered(node, client, &octets, made);
            }
            Event::Client { client, timer } => self.client_timeout(client, timer),
            Event::Fault => self.next_fault(),
            Event::Mend(mend) => self.mend(mend),
            Event::Look => {
                self.look();
                self.set(Alarm::Look, LOOK_INTERVAL, Event::Look);
            }
            // Meant for a process that is no more.
            Event::Wake { .. }
            | Event::Poll { .. }
            | Event::Commit { .. }
            | Event::Notice { .. }
            | Event::Persisted { .. }
            | Event::Sweep { .. }
            | Event::Connect { .. }
            | Event::Connected { .. } => {}
        }
    }

    /// A whole run: faults, then none, and what must be so afterwards.
    pub fn run_plan(&mut self) {
        let (begin, end) = self.plan.faults;
        self.queue.push(begin, Event::Fault);
        self.run_until(end, |_| false);
        self.heal();
        self.converge();
    }

    /// All is well again: both servers come back to NORMAL, agree, and in the end everything is
    /// free.
    pub fn converge(&mut self) {
        if self.violation.is_some() {
            return;
        }
        let (valid, mclt) = (Micros::from(self.plan.valid), Micros::from(self.plan.mclt));
        let deadline = (2 * mclt + 180) * SECOND + self.telling();
        if !self.run_while(deadline, Self::is_normal) {
            let states = [self.state(PRIMARY), self.state(SECONDARY)];
            self.violate(Rule::Recovery, || format!("{states:?} after {} s", deadline / SECOND));
            return;
        }
        self.say(|| "both are in NORMAL state".to_owned());
        // Clients go on for a while, then say no more.
        self.run(40 * SECOND);
        if !self.is_normal() {
            let states = [self.state(PRIMARY), self.state(SECONDARY)];
            self.violate(Rule::Recovery, || format!("{states:?} again, without any fault"));
        }
        self.phase = Phase::Quiet;
        self.clients.iter_mut().for_each(|client| client.retired = true);
        self.say(|| "clients fall silent".to_owned());
        self.run(10 * SECOND);
        self.compare_tables();
        // Everything ends, goes through the partner, and is free.
        let quiet = 2 * valid + Micros::from(self.plan.decline_hold) + 2 * mclt + 120;
        self.run(quiet * SECOND);
        self.compare_ownership();
    }

    /// How long it may take to tell everything: a server that has lost everything is told of every
    /// lease, and then of what has changed since; meanwhile the clients go on.
    fn telling(&self) -> Micros {
        let messages = 4 * 2 * self.plan.clients as u64;
        let round_trip = 2 * (self.plan.segment_delay_max + self.plan.commit_max);
        messages * round_trip / u64::from(self.plan.window)
    }

    /// Lets the servers tell each other what they have to tell. No longer: with time all leases end, and
    /// with them what is wrong.
    fn hear_out(&mut self) {
        self.run_while(self.telling(), |world| {
            [PRIMARY, SECONDARY]
                .into_iter()
                .filter_map(|node| world.status(node))
                .all(|it| it.flow.queued == 0 && it.flow.unacked == 0 && it.flow.resync.is_none())
        });
    }

    /// Looks until each lease has been seen the same on both servers. What one server has ended by
    /// its clock the other will have ended soon.
    fn compare_tables(&mut self) {
        self.hear_out();
        let mut unequal = self.unequal_leases(None);
        for _ in 0..30 {
            if unequal.is_empty() || !self.run(5 * SECOND) {
                break;
            }
            unequal = self.unequal_leases(Some(&unequal));
        }
        if self.violation.is_none()
            && let Some(lease) = unequal.first()
        {
            let [one, other] = [PRIMARY, SECONDARY].map(|node| self.describe(node, *lease));
            let count = unequal.len();
            self.violate(Rule::Agreement, || {
                format!("{lease} is {one} here, {other} there ({count} such leases)")
            });
        }
        self.compare_lifetimes();
    }

    /// What a server believes that the other has acknowledged, the other knows (section 7.3).
    fn compare_lifetimes(&mut self) {
        self.hear_out();
        let wrong = self.forgotten_lifetime();
        if let Some((node, lease, acked, known)) = wrong {
            self.violate(Rule::Agreement, || {
                format!(
                    "{lease}: the {} believes that {acked} is acknowledged, the other knows {known:?}",
                    name(node)
                )
            });
        }
    }

    fn forgotten_lifetime(&self) -> Option<(usize, Lease, u32, Option<u32>)> {
        let mut wrong = None;
        for node in [PRIMARY, SECONDARY] {
            let (Some(here), Some(there)) = (self.table(node), self.table(1 - node)) else {
                continue;
            };
            let now = self.nodes[node].clock.at(self.now).wall;
            here.for_each(|binding| {
                if binding.status != BindingStatus::Active {
                    return;
                }
                let known = there.binding(binding.lease).map(|it| it.expiration_time);
                let acked = binding.acked_partner_lifetime;
                // What is over does not matter.
                if acked > now && known.is_none_or(|known| known < acked) {
                    wrong = Some((node, binding.lease, acked.0, known.map(|known| known.0)));
                }
            });
        }
        wrong
    }

    fn unequal_leases(&self, among: Option<&BTreeSet<Lease>>) -> BTreeSet<Lease> {
        let mut leases = BTreeSet::new();
        for node in [PRIMARY, SECONDARY] {
            if let Some(table) = self.table(node) {
                table.for_each(|binding| _ = leases.insert(binding.lease));
            }
        }
        leases
            .into_iter()
            .filter(|lease| among.is_none_or(|among| among.contains(lease)))
            .filter(|lease| self.describe(PRIMARY, *lease) != self.describe(SECONDARY, *lease))
            .collect()
    }

    /// What both must agree on.
    fn describe(&self, node: usize, lease: Lease) -> String {
        let Some(table) = self.table(node) else { return "unknown".to_owned() };
        match table.binding(lease) {
            None => "free".to_owned(),
            Some(it) => format!(
                "{} of {} ia {} until {}",
                it.status, it.duid, it.iaid.0, it.state_expiration_time.0
            ),
        }
    }

    /// Nothing is leased any more: each lease is available at one server, and at one only.
    fn compare_ownership(&mut self) {
        if self.violation.is_some() {
            return;
        }
        let leases = crate::node::prefixes(&self.plan).chain(crate::node::addresses(&self.plan));
        for lease in leases {
            let [one, other] = [PRIMARY, SECONDARY].map(|node| self.is_available(node, lease));
            let [here, there] = [PRIMARY, SECONDARY].map(|node| self.describe(node, lease));
            if here != "free" || there != "free" {
                self.violate(Rule::Agreement, || {
                    format!("{lease} has not become free: {here} here, {there} there")
                });
            } else if one == other {
                let where_it_is = if one { "both servers" } else { "no server" };
                self.violate(Rule::Agreement, || format!("{lease} is available at {where_it_is}"));
            }
            let [here, there] = [PRIMARY, SECONDARY].map(|node| self.lease_status(node, lease));
            if here != there && lease.prefix_len < 128 {
                self.violate(Rule::Agreement, || {
                    format!("{lease} is {here:?} here, {there:?} there")
                });
            }
        }
    }

    /// Whether the server would give the lease to a client now.
    pub fn is_available(&self, node: usize, lease: Lease) -> bool {
        self.table(node).is_some_and(|table| table.is_free(lease))
    }

    /// The prefixes that the server would give to a client now, in order.
    fn available_prefixes(&self, node: usize) -> Vec<Lease> {
        let Some(table) = self.table(node) else { return Vec::new() };
        crate::node::prefixes(&self.plan).filter(|lease| table.is_free(*lease)).collect()
    }

    /// What must be so at every moment.
    fn look(&mut self) {
        let states = [PRIMARY, SECONDARY].map(|node| self.state(node));
        let full = [PRIMARY, SECONDARY]
            .map(|node| self.responsiveness(node) == Some(Responsiveness::Responsive));
        let both_normal = self.is_normal();
        if both_normal && !self.both_normal {
            self.stats.normal += 1;
        }
        self.both_normal = both_normal;
        if both_normal && full == [true; 2] {
            self.violate(Rule::Responsiveness, || {
                "both servers answer everything in NORMAL state".to_owned()
            });
        }
        for node in [PRIMARY, SECONDARY] {
            let told = |table: &LeaseTable| table.pending_updates(|_| true) == 0;
            if both_normal && self.nodes[node].is_exposed && self.table(node).is_some_and(told) {
                self.nodes[node].is_exposed = false;
            }
        }
        let serve_alike = |state: Option<ServerState>| {
            matches!(state, Some(ServerState::Normal | ServerState::CommunicationsInterrupted))
        };
        if self.checks.loose.is_none() && states.into_iter().all(serve_alike) {
            let available = [PRIMARY, SECONDARY].map(|node| self.available_prefixes(node));
            let [here, there] = &available;
            let both = here.iter().find(|lease| there.binary_search(lease).is_ok());
            if let Some(lease) = both {
                self.violate(Rule::Ownership, || format!("{lease} is available at both servers"));
            }
        }
    }
}

/// What a server is called in the story.
pub(crate) fn name(node: usize) -> &'static str {
    if node == PRIMARY { "primary" } else { "secondary" }
}

/// An unimportant little while.
pub(crate) const MOMENT: Micros = MILLISECOND / 10;
