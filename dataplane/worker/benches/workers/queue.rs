//! One worker, its clients, and its share of the control thread's work.

use std::{
    net::Ipv6Addr,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, Sender};
use gemel_lease::AbsoluteTime;
use gemel_wire::{Duid, Emitter, MessageType};
use gemel_worker::{
    Worker, WorkerConfig, WorkerCounters,
    stages::{self, Stage},
    submit::{self, Resolution, Resolver, ServiceState, Submission, Submitter},
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

use crate::support::{MemoryPort, Site, address_in, write_message};

const BATCH: usize = 64;
/// Clients that are served at a time: each says what it has to say once all have said what comes
/// before, as with so many exchanges outstanding.
const WINDOW: u32 = 1024;
const FRAMES: usize = 4096;
const NOW: AbsoluteTime = AbsoluteTime(800_000_000);
/// Clients from here on have no lease.
const STRANGERS: u32 = 1 << 31;
/// The place of the client's number and of the address in a message as it is written here.
const XID_AT: usize = 1;
const DUID_AT: usize = 4 + 4 + 6;
const ADDRESS_AT: usize = 16;

/// What the clients want.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Work {
    /// SOLICITs of clients that nobody knows.
    Solicit,
    /// SOLICIT and REQUEST of clients that have a lease.
    Exchange,
    /// RENEWs.
    Renew,
    /// SOLICIT, REQUEST and RELEASE of clients that nobody knows.
    Churn,
}

impl Work {
    pub(crate) const ALL: [Self; 4] = [Self::Solicit, Self::Exchange, Self::Renew, Self::Churn];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Solicit => "solicit",
            Self::Exchange => "exchange",
            Self::Renew => "renew",
            Self::Churn => "churn",
        }
    }

    fn messages(self) -> &'static [MessageType] {
        match self {
            Self::Solicit => &[MessageType::SOLICIT],
            Self::Exchange => &[MessageType::SOLICIT, MessageType::REQUEST],
            Self::Renew => &[MessageType::RENEW],
            Self::Churn => &[MessageType::SOLICIT, MessageType::REQUEST, MessageType::RELEASE],
        }
    }
}

/// How fast a worker was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) messages: u64,
    wall: Duration,
    cpu: Duration,
}

impl Pace {
    pub(crate) fn cpu_ns(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e9 / self.messages as f64
    }

    pub(crate) fn per_s(&self) -> f64 {
        self.messages as f64 / self.wall.as_secs_f64()
    }

    /// Whether nobody else had the core meanwhile, but for moments.
    pub(crate) fn is_undisturbed(&self) -> bool {
        self.cpu >= self.wall.mul_f64(0.9)
    }
}

/// The control thread's end of all workers.
pub(crate) struct Control {
    submissions: Receiver<Submission>,
    resolvers: [Resolver; 2],
}

impl Control {
    pub(crate) fn new(
        sender: Sender<Submission>,
        submissions: Receiver<Submission>,
    ) -> (Self, [Submitter; 2]) {
        let [(first, a), (second, b)] =
            [0, 1].map(|worker| submit::connect(worker, sender.clone()).unwrap());
        (Self { submissions, resolvers: [a, b] }, [first, second])
    }

    /// Everything that was handed over is stored.
    fn resolve(&self) {
        while let Ok(Submission { worker, sequence, batch, .. }) = self.submissions.try_recv() {
            self.resolvers[worker].resolve(Resolution { sequence, stored: true, batch });
        }
    }
}

/// A message of each type that the clients send, to be copied.
struct Templates([(MessageType, Vec<u8>); 4]);

impl Templates {
    fn new(server: &Duid) -> Self {
        use MessageType as Type;
        let address = Some(Ipv6Addr::UNSPECIFIED);
        Self([Type::SOLICIT, Type::REQUEST, Type::RENEW, Type::RELEASE].map(|msg_type| {
            let mut buffer = [0; 256];
            let mut out = Emitter::new(&mut buffer);
            let address = address.filter(|_| msg_type != MessageType::SOLICIT);
            write_message(&mut out, msg_type, 0, server, address);
            let len = out.finish().unwrap();
            (msg_type, buffer[..len].to_vec())
        }))
    }

    fn write(
        &self,
        msg_type: MessageType,
        client: u32,
        address: Ipv6Addr,
        out: &mut [u8],
    ) -> usize {
        let found = self.0.iter().find(|(known, _)| *known == msg_type);
        let (_, octets) = found.expect("a message that clients send");
        let len = octets.len();
        out[..len].copy_from_slice(octets);
        let number = client.to_be_bytes();
        out[XID_AT..XID_AT + 3].copy_from_slice(&number[1..]);
        out[DUID_AT..DUID_AT + 4].copy_from_slice(&number);
        if msg_type != MessageType::SOLICIT {
            // Lifetimes of four octets each follow it at the end.
            let at = len - 8 - ADDRESS_AT;
            out[at..at + ADDRESS_AT].copy_from_slice(&address.octets());
        }
        len
    }
}

/// A worker and its clients.
pub(crate) struct Queue {
    worker: Worker<MemoryPort>,
    templates: Templates,
    first_client: u32,
    all: u32,
    /// Whole windows of them.
    clients: u32,
    /// Where the next window begins, in the order of visits.
    visited: u32,
    /// How many strangers have come.
    strangers: u32,
    /// What each client has, in the order of visits.
    addresses: Vec<Ipv6Addr>,
    /// What the clients of the window were told.
    told: Vec<Ipv6Addr>,
    window: Vec<u32>,
}

impl Queue {
    pub(crate) fn new(site: &Site, submitter: Submitter, first_client: u32, clients: u32) -> Self {
        let (recorder, _) = stages::recorder(Stage::WORKER);
        let worker = Worker::new(
            MemoryPort::new(FRAMES, 1 << 20),
            Arc::clone(&site.server),
            submitter,
            Arc::new(ServiceState::default()),
            Arc::new(WorkerCounters::default()),
            Some(recorder),
            WorkerConfig { batch: BATCH, held_max: 2 * WINDOW as usize },
        );
        Self {
            worker,
            templates: Templates::new(&site.duid),
            first_client,
            all: clients,
            clients: clients / WINDOW * WINDOW,
            visited: 0,
            strangers: 0,
            addresses: vec![Ipv6Addr::UNSPECIFIED; clients as usize],
            told: vec![Ipv6Addr::UNSPECIFIED; WINDOW as usize],
            window: Vec::with_capacity(WINDOW as usize),
        }
    }

    /// Gives every client its address, one after the other; they are visited in another order later,
    /// so that no two of them that follow each other are neighbours in memory.
    pub(crate) fn fill(&mut self, core: usize, barrier: &Barrier, control: &Control) {
        pin(core);
        barrier.wait();
        let all = self.all;
        for first in (0..all).step_by(WINDOW as usize) {
            self.window.clear();
            let last = all.min(first + WINDOW);
            self.window.extend((first..last).map(|client| self.first_client + client));
            self.speak(Work::Exchange, control);
            for place in 0..self.window.len() {
                self.addresses[first as usize + place] = self.told[place];
            }
        }
        self.addresses = (0..all).map(|visit| self.addresses[self.visit(visit) as usize]).collect();
    }

    /// Works for so long on a core; begins together with the others.
    pub(crate) fn run(
        &mut self,
        work: Work,
        core: usize,
        seconds: f64,
        barrier: &Barrier,
        control: &Control,
    ) -> Pace {
        pin(core);
        // What the other one left is still in the caches of this core, or nothing is.
        self.next_window(work, control);
        barrier.wait();
        let (begun, cpu) = (Instant::now(), processor_time());
        let mut messages = 0;
        while begun.elapsed().as_secs_f64() < seconds {
            messages += self.next_window(work, control);
        }
        Pace { messages, wall: begun.elapsed(), cpu: processor_time() - cpu }
    }

    /// The number of the client whose turn it is; a bijection as long as the two have no common
    /// factor.
    fn visit(&self, visit: u32) -> u32 {
        let all = u64::from(self.all);
        let step = if all.is_multiple_of(514_229) { 514_231 } else { 514_229 };
        u32::try_from(u64::from(visit) * step % all).expect("below a 32-bit number")
    }

    fn next_window(&mut self, work: Work, control: &Control) -> u64 {
        self.window.clear();
        match work {
            Work::Exchange | Work::Renew => {
                if self.visited >= self.clients {
                    self.visited = 0;
                }
                let visits = self.visited..self.visited + WINDOW;
                for visit in visits.clone() {
                    let client = self.first_client + self.visit(visit);
                    self.window.push(client);
                }
                let visits = visits.start as usize..visits.end as usize;
                self.told.copy_from_slice(&self.addresses[visits]);
                self.visited += WINDOW;
            }
            Work::Solicit | Work::Churn => {
                let first = STRANGERS + self.first_client * 2 + self.strangers;
                self.window.extend(first..first + WINDOW);
                self.strangers = (self.strangers + WINDOW) % (2 * self.clients);
            }
        }
        self.speak(work, control)
    }

    /// Lets the clients of the window say all that they have to say; how many messages that was.
    fn speak(&mut self, work: Work, control: &Control) -> u64 {
        for msg_type in work.messages() {
            for batch in (0..self.window.len()).step_by(BATCH) {
                for place in batch..self.window.len().min(batch + BATCH) {
                    let (client, address) = (self.window[place], self.told[place]);
                    let port = self.worker.port_mut();
                    port.arrive_octets(|out| self.templates.write(*msg_type, client, address, out));
                }
                self.turn(control);
            }
            while self.worker.held() > 0 {
                self.turn(control);
                if self.worker.held() > 0 {
                    // The other one has taken what was handed over, and lost its core then.
                    thread::yield_now();
                }
            }
            let expected = if *msg_type == MessageType::SOLICIT {
                MessageType::ADVERTISE
            } else {
                MessageType::REPLY
            };
            let port = self.worker.port_mut();
            for place in 0..self.window.len() {
                let (msg_type, address) = port
                    .take_sent(|message| {
                        let names = *msg_type != MessageType::RELEASE;
                        let address = names.then(|| address_in(message));
                        (message.msg_type, address)
                    })
                    .expect("every message is answered, in order");
                assert_eq!(msg_type, expected);
                if let Some(address) = address {
                    self.told[place] = address;
                }
            }
        }
        (self.window.len() * work.messages().len()) as u64
    }

    fn turn(&mut self, control: &Control) {
        self.worker.turn(NOW).unwrap();
        control.resolve();
    }
}

fn pin(core: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(core).expect("a number of a core");
    sched_setaffinity(Pid::from_raw(0), &cpus).expect("there is such a core");
}

/// Processor time of this thread: what others do on the machine counts less in it.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}
