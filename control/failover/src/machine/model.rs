//! Two machines and everything that may happen between them, tried out in every order.
//!
//! The search is our own: what has to be shown is that all ways *without further faults* end in
//! NORMAL, from wherever faults have led. The model checkers at hand look for such ends only on
//! paths, not over a graph whose branches join.
//!
//! A world holds both servers, what is on their disks and on its way there, and the messages between
//! them. Faults (a connection that breaks, a crash with or without loss of the disk, commands of
//! operators, auto-partner-down) are taken from a budget. Everything else, the *calm* events, may
//! come in any order. The properties:
//!
//! - whoever reaches PARTNER-DOWN has been put there, by an operator, a timer or its configuration;
//! - two servers that know each other's state are never both responsive to all clients;
//! - who has lost its memory does not rest in NORMAL before it has got everything from its partner;
//! - calm events lead to an end from every world (no deadlock that is not an end, no livelock), and
//!   every end is NORMAL on both sides, on both disks, and known to both.

use std::collections::{HashMap, VecDeque};

use ServerState as Is;

use super::*;

/// What the servers say to each other.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Message {
    State { state: ServerState, startup: bool },
    Request { all: bool, id: u8 },
    Done { id: u8 },
}

/// What stable storage holds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Disk {
    state: ServerState,
    memory_lost: bool,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Server {
    /// `None`: it is off.
    machine: Option<Machine>,
    suspended: bool,
    disk: Option<Disk>,
    /// On its way to the disk, and whether it is a transition, of which the partner is told.
    unwritten: VecDeque<(Disk, bool)>,
    /// How many of those, from the oldest on, the partner is not told of on this connection; `None`
    /// before the handshake.
    untold: Option<u8>,
    /// It believes that it has a connection.
    linked: bool,
    /// It has sent a STATE message on it.
    told: bool,
    incoming: VecDeque<Message>,
    /// Its partner's request.
    asked: Option<u8>,
    request_due: bool,
    request: Option<(u8, bool)>,
    next_id: u8,
    memory_lost: bool,
    /// It has served clients since its partner went into PARTNER-DOWN.
    operated: bool,
    /// Somebody has put it into PARTNER-DOWN.
    put_down: bool,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct World {
    servers: [Server; 2],
    /// The connection is whole: what one writes arrives.
    whole: bool,
    faults: u8,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Event {
    Start(usize),
    Connect,
    Introduce(usize),
    /// A message is read. If it tells of PARTNER-DOWN: whether that came after the own failure.
    Deliver(usize, bool),
    Notice(usize),
    Write(usize),
    Answer(usize),
    StartupOver(usize),
    RecoverWaitOver(usize),
    Resume(usize),
    // Faults.
    Break,
    Crash(usize),
    LoseDisk(usize),
    PartnerDown(usize),
    AutoPartnerDown(usize),
    Suspend(usize),
}

impl Event {
    const fn is_fault(self) -> bool {
        match self {
            Self::Start(_)
            | Self::Connect
            | Self::Introduce(_)
            | Self::Deliver(..)
            | Self::Notice(_)
            | Self::Write(_)
            | Self::Answer(_)
            | Self::StartupOver(_)
            | Self::RecoverWaitOver(_)
            | Self::Resume(_) => false,
            Self::Break
            | Self::Crash(_)
            | Self::LoseDisk(_)
            | Self::PartnerDown(_)
            | Self::AutoPartnerDown(_)
            | Self::Suspend(_) => true,
        }
    }
}

/// How a search is set up.
#[derive(Clone, Copy, Debug)]
struct Scope {
    faults: u8,
    /// `start_in_partner_down` of the two.
    alone: [bool; 2],
    /// A state takes its time to the disk; otherwise it is there at once.
    slow_disks: bool,
}

const ROLES: [Role; 2] = [Role::Primary, Role::Secondary];

/// More than the connection ever holds: more would be two servers that talk without end.
const QUEUE_LEN_MAX: usize = 8;

fn responsive(role: Role, state: ServerState) -> bool {
    match state {
        Is::Normal => role == Role::Primary,
        Is::CommunicationsInterrupted
        | Is::PartnerDown
        | Is::ResolutionInterrupted
        | Is::ConflictDone => true,
        Is::Startup | Is::PotentialConflict | Is::Recover | Is::RecoverWait | Is::RecoverDone => {
            false
        }
    }
}

/// Serves at least some clients.
fn operates(state: ServerState) -> bool {
    responsive(Role::Primary, state) || state == Is::RecoverDone
}

impl Server {
    fn new() -> Self {
        Self {
            machine: None,
            suspended: false,
            disk: None,
            unwritten: VecDeque::new(),
            untold: None,
            linked: false,
            told: false,
            incoming: VecDeque::new(),
            asked: None,
            request_due: false,
            request: None,
            next_id: 0,
            memory_lost: false,
            operated: false,
            put_down: false,
        }
    }

    fn state(&self) -> Option<ServerState> {
        self.machine.as_ref().map(Machine::state)
    }

    fn is_moving(&self) -> bool {
        self.unwritten.iter().any(|(_, entered)| *entered)
    }

    fn is_open(&self) -> bool {
        self.linked && self.told && self.machine.as_ref().is_some_and(|it| it.partner().is_some())
    }

    fn forget_connection(&mut self) {
        self.linked = false;
        self.told = false;
        self.untold = None;
        self.incoming.clear();
        self.asked = None;
        self.request_due = false;
        self.request = None;
        self.next_id = 0;
    }
}

impl World {
    fn new(scope: Scope) -> Self {
        Self { servers: [Server::new(), Server::new()], whole: false, faults: scope.faults }
    }

    fn events(&self, out: &mut Vec<Event>) {
        for who in 0..2 {
            let server = &self.servers[who];
            let Some(machine) = &server.machine else {
                out.push(Event::Start(who));
                continue;
            };
            let state = machine.state();
            if server.suspended {
                out.push(Event::Resume(who));
            } else if state == Is::Startup {
                out.push(Event::StartupOver(who));
            }
            if state == Is::RecoverWait {
                out.push(Event::RecoverWaitOver(who));
            }
            if !server.unwritten.is_empty() {
                out.push(Event::Write(who));
            }
            // The secondary answers to CONNECT, then the primary is as far.
            if server.linked && server.untold.is_none() {
                if self.whole && (who == 1 || self.servers[1].untold.is_some()) {
                    out.push(Event::Introduce(who));
                }
            } else if let Some(message) = server.incoming.front() {
                out.push(Event::Deliver(who, false));
                if let Message::State { state: Is::PartnerDown, .. } = message
                    && state == Is::Startup
                    && !server.operated
                {
                    out.push(Event::Deliver(who, true));
                }
            }
            if server.linked && !self.whole {
                out.push(Event::Notice(who));
            }
            if server.asked.is_some() && server.is_open() && !server.is_moving() {
                out.push(Event::Answer(who));
            }
        }
        let [primary, secondary] = &self.servers;
        if primary.machine.is_some()
            && !primary.linked
            && !primary.suspended
            && secondary.machine.is_some()
            && !secondary.suspended
        {
            out.push(Event::Connect);
        }
        if self.faults == 0 {
            return;
        }
        if self.whole {
            out.push(Event::Break);
        }
        for who in 0..2 {
            let server = &self.servers[who];
            let Some(machine) = &server.machine else { continue };
            out.push(Event::Crash(who));
            out.push(Event::LoseDisk(who));
            if server.suspended {
                continue;
            }
            out.push(Event::Suspend(who));
            let state = machine.state();
            let refused = match state {
                Is::PartnerDown | Is::PotentialConflict => true,
                Is::Recover | Is::RecoverWait | Is::RecoverDone | Is::ConflictDone => {
                    machine.partner().is_some()
                }
                Is::Startup
                | Is::Normal
                | Is::CommunicationsInterrupted
                | Is::ResolutionInterrupted => false,
            };
            if !refused {
                out.push(Event::PartnerDown(who));
            }
            if state == Is::CommunicationsInterrupted && machine.partner().is_none() {
                out.push(Event::AutoPartnerDown(who));
            }
        }
    }

    /// The world after an event.
    fn after(&self, event: Event, scope: Scope) -> Self {
        let mut world = self.clone();
        world.faults -= u8::from(event.is_fault());
        match event {
            Event::Start(who) => {
                let server = &mut world.servers[who];
                let recorded = server.disk.map(|it| it.state);
                server.machine = Some(Machine::new(ROLES[who], recorded, scope.alone[who]));
                server.memory_lost = server.disk.is_none_or(|it| it.memory_lost);
            }
            Event::Connect => {
                for who in 0..2 {
                    if world.servers[who].linked {
                        world.lose(who, scope);
                    }
                    world.servers[who].incoming.clear();
                    world.servers[who].linked = true;
                }
                world.whole = true;
            }
            Event::Introduce(who) => world.introduce(who),
            Event::Deliver(who, since_failure) => {
                let message = world.servers[who].incoming.pop_front();
                world.deliver(who, message.expect("it is there"), since_failure, scope);
            }
            Event::Notice(who) => world.lose(who, scope),
            Event::Write(who) => world.write(who),
            Event::Answer(who) => {
                let id = world.servers[who].asked.take().expect("it was asked");
                world.send(who, Message::Done { id });
            }
            Event::StartupOver(who) => {
                world.input(who, Input::StartupOver, scope);
                world.servers[who].put_down |= world.servers[who].state() == Some(Is::PartnerDown);
            }
            Event::RecoverWaitOver(who) => world.input(who, Input::RecoverWaitOver, scope),
            Event::Resume(who) => {
                world.servers[who].suspended = false;
                world.input(who, Input::Resume, scope);
            }
            Event::Break => world.whole = false,
            Event::Crash(who) => world.crash(who),
            Event::LoseDisk(who) => {
                world.crash(who);
                world.servers[who].disk = None;
            }
            Event::PartnerDown(who) => {
                world.servers[who].put_down = true;
                world.input(who, Input::PartnerDown, scope);
            }
            Event::AutoPartnerDown(who) => {
                world.servers[who].put_down = true;
                world.input(who, Input::AutoPartnerDown, scope);
            }
            Event::Suspend(who) => {
                let server = &mut world.servers[who];
                server.suspended = true;
                if let Some(machine) = &mut server.machine {
                    machine.handle(Input::Suspend);
                }
                if server.linked {
                    world.whole = false;
                    world.lose(who, scope);
                }
            }
        }
        for server in &mut world.servers {
            server.operated |= server.state().is_some_and(operates);
        }
        world
    }

    fn crash(&mut self, who: usize) {
        let server = &mut self.servers[who];
        self.whole &= !server.linked;
        server.forget_connection();
        server.machine = None;
        server.suspended = false;
        server.unwritten.clear();
    }

    fn send(&mut self, who: usize, message: Message) {
        if self.whole && self.servers[who].linked {
            self.servers[1 - who].incoming.push_back(message);
        }
    }

    /// The first STATE message on a connection, as the endpoint has it.
    fn introduce(&mut self, who: usize) {
        let server = &mut self.servers[who];
        let machine = server.machine.as_ref().expect("it is on");
        let state = machine.told_state();
        let startup = machine.state() == Is::Startup;
        let last = server.unwritten.iter().rposition(|(_, entered)| *entered);
        match last {
            Some(index) if !startup => {
                server.untold = Some(u8::try_from(index).expect("few"));
                return;
            }
            _ => server.untold = Some(u8::try_from(server.unwritten.len()).expect("few")),
        }
        server.told = true;
        self.send(who, Message::State { state, startup });
    }

    fn write(&mut self, who: usize) {
        let server = &mut self.servers[who];
        let (disk, entered) = server.unwritten.pop_front().expect("it is there");
        server.disk = Some(disk);
        let tell = match &mut server.untold {
            None => false,
            Some(0) => entered,
            Some(untold) => {
                *untold -= 1;
                false
            }
        };
        if tell {
            server.told = true;
            self.send(who, Message::State { state: disk.state, startup: false });
        }
        self.send_request(who);
    }

    fn deliver(&mut self, who: usize, message: Message, since_failure: bool, scope: Scope) {
        let server = &mut self.servers[who];
        let machine = server.machine.as_mut().expect("it is on");
        let from = machine.state();
        let outcome = match message {
            Message::State { state, startup } => machine.hear(state, startup, since_failure),
            Message::Request { id, all: _ } => {
                server.asked = Some(id);
                return;
            }
            Message::Done { id } => {
                let Some((_, all)) = server.request.take_if(|it| it.0 == id) else { return };
                let paid = all && server.memory_lost;
                server.memory_lost &= !all;
                let outcome = machine.update_done();
                if paid && !outcome.changed {
                    let disk = Disk { state: machine.state(), memory_lost: false };
                    server.unwritten.push_back((disk, false));
                }
                outcome
            }
        };
        self.follow(who, from, outcome, scope);
    }

    fn input(&mut self, who: usize, input: Input, scope: Scope) {
        let machine = self.servers[who].machine.as_mut().expect("it is on");
        let from = machine.state();
        let outcome = machine.handle(input);
        self.follow(who, from, outcome, scope);
    }

    /// A server finds that its connection is gone.
    fn lose(&mut self, who: usize, scope: Scope) {
        let server = &mut self.servers[who];
        server.forget_connection();
        let machine = server.machine.as_mut().expect("it is on");
        let from = machine.state();
        let outcome = machine.fail();
        self.follow(who, from, outcome, scope);
    }

    fn follow(&mut self, who: usize, from: ServerState, outcome: Outcome, scope: Scope) {
        let server = &mut self.servers[who];
        let to = server.state().expect("it is on");
        if outcome.changed {
            server.request = None;
            server.request_due = to == Is::Normal && server.memory_lost;
            let disk = Disk { state: to, memory_lost: server.memory_lost };
            let resumed = from == Is::Startup && server.disk.is_some_and(|it| it.state == to);
            server.unwritten.push_back((disk, true));
            if to == Is::PartnerDown && !resumed {
                self.servers[1 - who].operated = false;
            }
        }
        let server = &mut self.servers[who];
        server.request_due |= outcome.request;
        if outcome.announce && server.told && !server.is_moving() {
            self.send(who, Message::State { state: to, startup: false });
        }
        if outcome.disconnect && self.servers[who].linked {
            self.whole = false;
            self.lose(who, scope);
        }
        self.send_request(who);
        if !scope.slow_disks {
            while !self.servers[who].unwritten.is_empty() {
                self.write(who);
            }
        }
    }

    fn send_request(&mut self, who: usize) {
        let server = &mut self.servers[who];
        if !server.request_due || !server.is_open() || server.is_moving() {
            return;
        }
        server.request_due = false;
        let all = server.memory_lost || server.state() == Some(Is::Normal);
        let id = server.next_id;
        server.next_id += 1;
        server.request = Some((id, all));
        self.send(who, Message::Request { all, id });
    }

    /// Both in NORMAL, for good.
    fn is_goal(&self) -> bool {
        self.whole
            && self.servers.iter().all(|server| {
                server.state() == Some(Is::Normal)
                    && server.machine.as_ref().and_then(Machine::partner) == Some(Is::Normal)
                    && server.disk == Some(Disk { state: Is::Normal, memory_lost: false })
                    && server.incoming.is_empty()
                    && server.unwritten.is_empty()
                    && !server.memory_lost
            })
    }

    /// What must never be.
    fn check(&self) -> Result<(), &'static str> {
        let [a, b] = &self.servers;
        for server in [a, b] {
            if server.state() == Some(Is::PartnerDown) && !server.put_down {
                return Err("nobody has put this server into PARTNER-DOWN");
            }
            if server.incoming.len() > QUEUE_LEN_MAX {
                return Err("they talk without end");
            }
        }
        let (Some(first), Some(second)) = (&a.machine, &b.machine) else { return Ok(()) };
        if first.partner() == Some(second.state())
            && second.partner() == Some(first.state())
            && responsive(Role::Primary, first.state())
            && responsive(Role::Secondary, second.state())
        {
            return Err("both are responsive and know of each other");
        }
        Ok(())
    }
}

/// All worlds that can be reached.
struct Search {
    scope: Scope,
    /// For each world the one that it was first reached from.
    parents: Vec<(u32, Option<Event>)>,
    /// The calm events: where they lead.
    calm: Vec<Vec<u32>>,
    goals: Vec<bool>,
    seen: HashMap<World, u32>,
}

impl Search {
    fn run(scope: Scope) -> Self {
        let start = World::new(scope);
        let mut search = Self {
            scope,
            parents: vec![(0, None)],
            calm: Vec::new(),
            goals: Vec::new(),
            seen: HashMap::from([(start.clone(), 0)]),
        };
        let (mut queue, mut events) = (VecDeque::from([start]), Vec::new());
        while let Some(world) = queue.pop_front() {
            let number = u32::try_from(search.calm.len()).unwrap();
            if let Err(what) = world.check() {
                panic!("{what}:\n{}{world:#?}", search.trace(number));
            }
            search.goals.push(world.is_goal());
            events.clear();
            world.events(&mut events);
            let mut calm = Vec::new();
            for &event in &events {
                let next = world.after(event, scope);
                let count = u32::try_from(search.parents.len()).unwrap();
                let target = *search.seen.entry(next).or_insert_with_key(|next| {
                    queue.push_back(next.clone());
                    search.parents.push((number, Some(event)));
                    count
                });
                if !event.is_fault() {
                    calm.push(target);
                }
            }
            search.calm.push(calm);
        }
        search
    }

    /// The events that led to a world.
    fn trace(&self, number: u32) -> String {
        let (mut events, mut at) = (Vec::new(), number);
        while let (parent, Some(event)) = self.parents[at as usize] {
            events.push(event);
            at = parent;
        }
        let mut world = World::new(self.scope);
        let mut text = String::new();
        for event in events.into_iter().rev() {
            world = world.after(event, self.scope);
            let states = world.servers.each_ref().map(|it| it.state().map(ServerState::as_str));
            text += &format!("{event:?}: {states:?}\n");
        }
        text
    }

    /// Calm events come to an end, and that is the goal: takes away one by one the worlds all of
    /// whose calm events lead to worlds that are taken away.
    fn calm_leads_to_the_goal(&self) {
        let mut before: Vec<Vec<u32>> = vec![Vec::new(); self.calm.len()];
        let mut open: Vec<u32> = Vec::with_capacity(self.calm.len());
        let mut ends = Vec::new();
        for (number, targets) in (0..).zip(&self.calm) {
            open.push(u32::try_from(targets.len()).unwrap());
            targets.iter().for_each(|target| before[*target as usize].push(number));
            if targets.is_empty() {
                let place = || self.trace(number);
                assert!(self.goals[number as usize], "nothing goes on:\n{}", place());
                ends.push(number);
            }
        }
        let mut taken = 0;
        while let Some(number) = ends.pop() {
            taken += 1;
            for &parent in &before[number as usize] {
                open[parent as usize] -= 1;
                if open[parent as usize] == 0 {
                    ends.push(parent);
                }
            }
        }
        let circle = open.iter().position(|open| *open > 0).map(|it| u32::try_from(it).unwrap());
        if let Some(number) = circle {
            panic!("this may go on for ever:\n{}", self.trace(number));
        }
        assert_eq!(taken, self.calm.len());
    }
}

fn check(faults: u8, alone: [bool; 2], slow_disks: bool) {
    let scope = Scope { faults, alone, slow_disks };
    let start = std::time::Instant::now();
    let search = Search::run(scope);
    search.calm_leads_to_the_goal();
    println!("{scope:?}: {} worlds, {:?}", search.calm.len(), start.elapsed());
}

#[test]
fn fast_disks() {
    check(4, [false, false], false);
}

#[test]
fn slow_disks() {
    check(2, [false, false], true);
}

#[test]
fn alone() {
    check(2, [true, false], false);
    check(2, [true, true], false);
}

/// Beyond what a test may take: `cargo test -p gemel-failover deeper -- --ignored --nocapture`.
#[test]
#[ignore = "takes a minute and gigabytes"]
fn deeper() {
    check(5, [false, false], false);
    check(3, [false, false], true);
    check(4, [true, false], false);
}
