//! What the histograms of a worker cost: the same turns with and without a recorder.
//!
//! A turn takes 64 SOLICITs, or 64 REQUESTs of clients that it knows, out of memory and answers them; the control thread is
//! played by the bench. What a system call costs is left out, which makes the share of the
//! histograms look larger than it is on a network.

use std::{
    io,
    net::Ipv6Addr,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, bounded};
use gemel_lease::{
    AbsoluteTime, LeaseTable, Ownership, PoolConfig, PoolId, PoolRange, PoolSet, TableConfig,
};
use gemel_server::{LinkConfig, Server, ServerConfig};
use gemel_wire::{
    ALL_RELAY_AGENTS_AND_SERVERS, Duid, Emitter, IaId, MessageType, OptionCode, TransactionId,
};
use gemel_worker::{
    Backlog, Origin, Port, Worker, WorkerConfig, WorkerCounters,
    stages::{self, Collector, Stage},
    submit::{self, Resolution, Resolver, ServiceState, Submission},
};
use nix::time::{ClockId, clock_gettime};

const BATCH: usize = 64;
const CLIENTS: u32 = 4096;
/// Turns timed together, and how often: short blocks of both kinds in turn, so that whatever else
/// the machine does falls on both.
const TURNS: usize = 50;
const ROUNDS: usize = 1000;
const NOW: AbsoluteTime = AbsoluteTime(800_000_000);

type Buffer = Box<[u8; 2048]>;

/// Gives out the same messages again and again, and forgets the replies.
struct LoopPort {
    messages: Vec<Vec<u8>>,
    next: usize,
    armed: bool,
    spare: Vec<Buffer>,
    idle: io::PipeReader,
}

impl Port for LoopPort {
    type Request = usize;
    type Reply = Buffer;

    fn receive(&mut self, batch: &mut Vec<usize>) -> io::Result<()> {
        while self.armed && batch.len() < batch.capacity() {
            batch.push(self.next);
            self.next = (self.next + 1) % self.messages.len();
        }
        self.armed = false;
        Ok(())
    }

    fn backlog(&self) -> Backlog {
        Backlog::default()
    }

    fn payload<'a>(&'a self, request: &'a usize) -> &'a [u8] {
        &self.messages[*request]
    }

    fn origin(&self, _: &usize) -> Origin {
        Origin {
            source: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9),
            source_port: 546,
            destination: ALL_RELAY_AGENTS_AND_SERVERS,
            interface: 7,
        }
    }

    fn allocate(&mut self) -> Option<Self::Reply> {
        self.spare.pop()
    }

    fn buffers<'a>(
        &'a self,
        request: &'a usize,
        reply: &'a mut Self::Reply,
    ) -> (&'a [u8], &'a mut [u8]) {
        (&self.messages[*request], &mut reply[..])
    }

    fn address(&mut self, _: &usize, _: &mut Self::Reply, _: usize, _: u16) -> bool {
        true
    }

    fn send(&mut self, reply: Self::Reply) {
        self.spare.push(reply);
    }

    fn release(&mut self, _: usize) {}

    fn discard(&mut self, reply: Self::Reply) {
        self.spare.push(reply);
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn pending(&self) -> bool {
        false
    }

    fn readable(&self) -> BorrowedFd<'_> {
        self.idle.as_fd()
    }

    fn visit_counters(&self, _: &mut dyn FnMut(&'static str, u64)) {}
}

struct Rig {
    worker: Worker<LoopPort>,
    submissions: Receiver<Submission>,
    resolver: Resolver,
    collector: Collector,
}

impl Rig {
    fn new(msg_type: MessageType, timed: bool) -> Self {
        let pools = PoolSet::new(vec![PoolConfig {
            range: PoolRange::Addresses {
                first: "2001:db8::1:0".parse().unwrap(),
                last: "2001:db8::1:ffff".parse().unwrap(),
            },
            ownership: Ownership::Sole,
        }])
        .unwrap();
        let config = TableConfig { expected_bindings: 65_536, ..TableConfig::default() };
        let table = Arc::new(LeaseTable::new(&config, pools));
        let duid = Duid::new(&[0, 3, 0, 1, 2, 0, 0, 0, 0, 1]).unwrap();
        let mut link = LinkConfig::new("lan");
        link.interface = Some(7);
        link.na_pools = vec![PoolId(0)];
        let mut server_config = ServerConfig::new(duid);
        server_config.links.push(link);
        let server = Arc::new(Server::new(server_config, table).unwrap());
        let (sender, submissions) = bounded(64);
        let (submitter, resolver) = submit::connect(0, sender).unwrap();
        let (recorder, collector) = stages::recorder(Stage::WORKER);
        let port = LoopPort {
            messages: (0..CLIENTS).map(|client| message(msg_type, client, &duid)).collect(),
            next: 0,
            armed: false,
            spare: (0..1024).map(|_| Box::new([0; 2048])).collect(),
            idle: io::pipe().unwrap().0,
        };
        let worker = Worker::new(
            port,
            server,
            submitter,
            Arc::new(ServiceState::default()),
            Arc::new(WorkerCounters::default()),
            timed.then_some(recorder),
            WorkerConfig { batch: BATCH, held_max: 512 },
        );
        Self { worker, submissions, resolver, collector }
    }

    /// Takes a batch, and has it stored at once.
    fn turn(&mut self) {
        self.worker.port_mut().armed = true;
        self.worker.turn(NOW).unwrap();
        while let Ok(Submission { sequence, batch, .. }) = self.submissions.try_recv() {
            self.resolver.resolve(Resolution { sequence, stored: true, batch });
        }
        self.worker.turn(NOW).unwrap();
    }
}

fn message(msg_type: MessageType, client: u32, server: &Duid) -> Vec<u8> {
    let mut buffer = vec![0; 512];
    let mut out = Emitter::new(&mut buffer);
    let [_, x0, x1, x2] = client.to_be_bytes();
    out.message(msg_type, TransactionId([x0, x1, x2]));
    let mut duid = [0, 3, 0, 1, 2, 0, 0, 0, 0, 0];
    duid[6..].copy_from_slice(&client.to_be_bytes());
    out.option(OptionCode::CLIENT_ID, &duid);
    if msg_type != MessageType::SOLICIT {
        out.duid(OptionCode::SERVER_ID, server);
    }
    let ia = out.begin_ia(OptionCode::IA_NA, IaId(1), 0, 0);
    out.end(ia);
    let len = out.finish().unwrap();
    buffer.truncate(len);
    buffer
}

/// Processor time of this thread: what others do on the machine counts less in it.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// The nanoseconds of processor time per packet that `rig` takes for some turns.
fn block(rig: &mut Rig) -> f64 {
    let begun = processor_time();
    for _ in 0..TURNS {
        rig.turn();
    }
    (processor_time() - begun).as_secs_f64() * 1e9 / (TURNS * BATCH) as f64
}

/// The value at a share of all, from the smallest on.
fn at(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let index = (sorted.len() as f64 * share) as usize;
    sorted[index.min(sorted.len() - 1)]
}

fn compare(name: &str, msg_type: MessageType) {
    let mut rigs = [Rig::new(msg_type, false), Rig::new(msg_type, true)];
    let mut times = [Vec::new(), Vec::new()];
    let mut ratios = Vec::new();
    for rig in &mut rigs {
        for _ in 0..2 * CLIENTS as usize / BATCH {
            rig.turn();
        }
    }
    for round in 0..ROUNDS {
        let mut pair = [0.0; 2];
        // Which one is first changes, in case that matters.
        for side in [round % 2, 1 - round % 2] {
            pair[side] = block(&mut rigs[side]);
            times[side].push(pair[side]);
        }
        ratios.push(pair[1] / pair[0]);
    }
    let [untimed, timed] = &mut rigs;
    for (rig, expected) in [(untimed, false), (timed, true)] {
        rig.worker.publish(Instant::now() + Duration::from_secs(60));
        rig.collector.collect();
        let seen = rig.collector.total().any(|(_, histogram)| !histogram.is_empty());
        assert_eq!(seen, expected, "the bench measures what it says");
    }
    println!(
        "{name:8} untimed {:6.1} ns/packet, timed {:6.1} ns/packet (quarter points {:.1} and {:.1}); \
         ratio of neighbours: median {:.3}, quarter points {:.3} to {:.3}",
        at(&times[0], 0.5),
        at(&times[1], 0.5),
        at(&times[0], 0.25),
        at(&times[1], 0.25),
        at(&ratios, 0.5),
        at(&ratios, 0.25),
        at(&ratios, 0.75),
    );
}

fn main() {
    compare("solicit", MessageType::SOLICIT);
    compare("request", MessageType::REQUEST);
}
