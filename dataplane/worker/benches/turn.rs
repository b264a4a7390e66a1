//! What the histograms of a worker cost: the same turns with and without a recorder.
//!
//! A turn takes 64 SOLICITs, or 64 REQUESTs of clients that it knows, out of memory and answers them; the control thread is
//! played by the bench. What a system call costs is left out, which makes the share of the
//! histograms look larger than it is on a network.

#[path = "support/mod.rs"]
mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, bounded};
use gemel_lease::AbsoluteTime;
use gemel_wire::{Duid, MessageType};
use gemel_worker::{
    Worker, WorkerConfig, WorkerCounters,
    stages::{self, Collector, Stage},
    submit::{self, Resolution, Resolver, ServiceState, Submission},
};
use nix::time::{ClockId, clock_gettime};
use support::{MemoryPort, Site, write_message};

const BATCH: usize = 64;
const CLIENTS: u32 = 4096;
const FRAMES: usize = 256;
/// Turns timed together, and how often: short blocks of both kinds in turn, so that whatever else
/// the machine does falls on both.
const TURNS: usize = 50;
const ROUNDS: usize = 1000;
const NOW: AbsoluteTime = AbsoluteTime(800_000_000);

struct Rig {
    worker: Worker<MemoryPort>,
    submissions: Receiver<Submission>,
    resolver: Resolver,
    collector: Collector,
    msg_type: MessageType,
    server_duid: Duid,
    next: u32,
}

impl Rig {
    fn new(msg_type: MessageType, timed: bool) -> Self {
        let site = Site::new("2001:db8::1:ffff", 65_536);
        let (sender, submissions) = bounded(64);
        let (submitter, resolver) = submit::connect(0, sender).unwrap();
        let (recorder, collector) = stages::recorder(Stage::WORKER);
        let worker = Worker::new(
            MemoryPort::new(FRAMES, 0),
            site.server,
            submitter,
            Arc::new(ServiceState::default()),
            Arc::new(WorkerCounters::default()),
            timed.then_some(recorder),
            WorkerConfig { batch: BATCH, held_max: 512 },
        );
        Self { worker, submissions, resolver, collector, msg_type, server_duid: site.duid, next: 0 }
    }

    /// Takes a batch, and has it stored at once.
    fn turn(&mut self) {
        for _ in 0..BATCH {
            let (msg_type, client, server) = (self.msg_type, self.next, &self.server_duid);
            let port = self.worker.port_mut();
            port.arrive(|out| write_message(out, msg_type, client, server, None));
            self.next = (self.next + 1) % CLIENTS;
        }
        self.worker.turn(NOW).unwrap();
        while let Ok(Submission { sequence, batch, .. }) = self.submissions.try_recv() {
            self.resolver.resolve(Resolution { sequence, stored: true, batch });
        }
        self.worker.turn(NOW).unwrap();
        while self.worker.port_mut().take_sent(|_| ()).is_some() {}
    }
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
