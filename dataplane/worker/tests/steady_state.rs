//! A worker over a port in memory: replies wait for the disk, overload sheds by the rule, and the
//! steady state allocates nothing.

#[path = "../benches/support/mod.rs"]
mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    net::Ipv6Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, bounded};
use gemel_lease::{AbsoluteTime, ClientKey, Lease, LeaseTable, Record};
use gemel_server::Recall;
use gemel_wire::{Duid, MessageType};
use gemel_worker::{
    Worker, WorkerConfig, WorkerCounters,
    stages::{self, Collector, Stage},
    submit::{self, Resolution, Resolver, ServiceState, StoreState, Submission},
};
use support::{MemoryPort, Site, address_in, write_message};

/// Counts the allocations of each thread.
struct CountingAllocator;

thread_local! {
    /// Allocations of this thread: tests run beside each other.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // At the end of a thread there is no cell any more, and nothing to count.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Allocations of this thread while `f` runs.
fn allocations(f: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

/// A worker, and the test in the place of the control thread.
struct Rig {
    worker: Worker<MemoryPort>,
    submissions: Receiver<Submission>,
    resolver: Resolver,
    service: Arc<ServiceState>,
    counters: Arc<WorkerCounters>,
    collector: Collector,
    table: Arc<LeaseTable>,
    server_duid: Duid,
    now: AbsoluteTime,
}

const FRAMES: usize = 1024;

impl Rig {
    fn new(held_max: usize) -> Self {
        Self::with(held_max, ServiceState::default(), |worker| worker)
    }

    fn with(
        held_max: usize,
        service: ServiceState,
        change: impl FnOnce(Worker<MemoryPort>) -> Worker<MemoryPort>,
    ) -> Self {
        let Site { table, server, duid: server_duid } = Site::new("2001:db8::1:ffff", 65_536);
        let (sender, submissions) = bounded(64);
        let (submitter, resolver) = submit::connect(0, sender).unwrap();
        let service = Arc::new(service);
        let counters = Arc::new(WorkerCounters::default());
        let (recorder, collector) = stages::recorder(Stage::WORKER);
        let worker = Worker::new(
            MemoryPort::new(FRAMES, 256),
            server,
            submitter,
            Arc::clone(&service),
            Arc::clone(&counters),
            Some(recorder),
            WorkerConfig { batch: 64, held_max },
        );
        let now = AbsoluteTime(800_000_000);
        Self {
            worker: change(worker),
            submissions,
            resolver,
            service,
            counters,
            collector,
            table,
            server_duid,
            now,
        }
    }

    fn turn(&mut self) {
        self.worker.turn(self.now).unwrap();
    }

    /// Plays the control thread: everything handed over is stored, or not.
    fn resolve(&mut self, stored: bool) -> usize {
        let mut updates = 0;
        while let Ok(Submission { sequence, batch, .. }) = self.submissions.try_recv() {
            updates += batch.len();
            if !stored {
                for record in batch.iter() {
                    self.table.mark_unstored(record.unwrap().binding.lease);
                }
            }
            self.resolver.resolve(Resolution { sequence, stored, batch });
        }
        updates
    }

    fn arrive(&mut self, msg_type: MessageType, client: u32, address: Option<Ipv6Addr>) {
        let server_duid = self.server_duid;
        self.worker.port_mut().arrive(|out| {
            write_message(out, msg_type, client, &server_duid, address);
        });
    }

    fn counter(&self, family: &str, name: &str) -> u64 {
        let mut found = None;
        self.counters.visit(&mut |f, n, value| {
            if (f, n) == (family, name) {
                found = Some(value);
            }
        });
        found.expect("there is such a counter")
    }

    /// How often a stage was recorded, as far as the worker has handed it over.
    fn recorded(&self, stage: Stage) -> u64 {
        let found = self.collector.total().find(|(found, _)| *found == stage);
        found.expect("a stage of a worker").1.len()
    }

    /// Has the worker hand over its histograms now.
    fn publish(&mut self) {
        self.worker.publish(Instant::now() + Duration::from_secs(3600));
        self.collector.collect();
    }

    /// Which messages were answered, in order.
    fn answered(&mut self) -> Vec<[u8; 3]> {
        let port = self.worker.port_mut();
        std::iter::from_fn(|| port.take_sent(|message| message.transaction_id.0)).collect()
    }

    /// SOLICIT to REPLY for one client; the address.
    fn exchange(&mut self, client: u32) -> Ipv6Addr {
        self.arrive(MessageType::SOLICIT, client, None);
        self.turn();
        let offered = self.worker.port_mut().take_sent(address_in).unwrap();
        self.arrive(MessageType::REQUEST, client, Some(offered));
        self.turn();
        self.resolve(true);
        self.turn();
        let granted = self.worker.port_mut().take_sent(address_in).unwrap();
        assert_eq!(granted, offered);
        granted
    }
}

#[test]
fn a_reply_that_changes_a_binding_waits_for_the_disk() {
    let mut rig = Rig::new(64);
    rig.arrive(MessageType::REQUEST, 1, None);
    rig.turn();
    rig.turn();
    assert_eq!(rig.worker.held(), 1);
    assert!(rig.worker.port_mut().take_sent(|_| ()).is_none(), "nothing is stored yet");
    assert_eq!(rig.resolve(true), 1);
    rig.turn();
    assert_eq!(rig.worker.held(), 0);
    let reply = rig.worker.port_mut().take_sent(|message| message.msg_type);
    assert_eq!(reply, Some(MessageType::REPLY));
}

#[test]
fn replies_leave_batch_by_batch_in_order() {
    let mut rig = Rig::new(64);
    rig.arrive(MessageType::REQUEST, 1, None);
    rig.turn();
    rig.arrive(MessageType::REQUEST, 2, None);
    rig.turn();
    let first = rig.submissions.try_recv().unwrap();
    let (sequence, batch) = (first.sequence, first.batch);
    rig.resolver.resolve(Resolution { sequence, stored: true, batch });
    rig.turn();
    assert_eq!(rig.worker.held(), 1, "the second batch is not stored yet");
    let left = rig.worker.port_mut().take_sent(|message| message.transaction_id.0);
    assert_eq!(left, Some([0, 0, 1]));
}

#[test]
fn what_could_not_be_stored_is_not_answered() {
    let mut rig = Rig::new(64);
    rig.arrive(MessageType::REQUEST, 1, None);
    rig.turn();
    rig.service.set(StoreState::Failed);
    assert_eq!(rig.resolve(false), 1);
    rig.turn();
    assert_eq!(rig.worker.held(), 0);
    assert!(rig.worker.port_mut().take_sent(|_| ()).is_none());
    assert_eq!(rig.counter("shed", "not_stored"), 1);
    // The binding is in memory, but not stored: still no answer about it.
    rig.arrive(MessageType::REQUEST, 1, None);
    rig.turn();
    assert!(rig.worker.port_mut().take_sent(|_| ()).is_none());
    assert_eq!(rig.counter("dropped", "store_read_only"), 1);
}

#[test]
fn a_change_of_state_is_acknowledged_when_no_older_update_is_left() {
    let mut rig = Rig::new(64);
    rig.exchange(1);
    // All buffers are on their way, so that the next update stays in the worker's hands.
    let mut stuck = Vec::new();
    for client in 100..115 {
        rig.arrive(MessageType::REQUEST, client, None);
        rig.turn();
        stuck.push(rig.submissions.try_recv().unwrap());
    }
    rig.arrive(MessageType::REQUEST, 2, None);
    rig.turn();
    assert!(rig.submissions.try_recv().is_err(), "no buffer was left");

    let word = rig.service.set(StoreState::Settling);
    let before = rig.counter("shed", "store_settling");
    rig.arrive(MessageType::REQUEST, 1, None);
    rig.turn();
    assert!(!rig.resolver.has_acknowledged(word));
    assert!(rig.worker.port_mut().take_sent(|_| ()).is_none(), "nothing may rest on a binding");
    assert_eq!(rig.counter("shed", "store_settling"), before + 1);

    for Submission { sequence, batch, .. } in stuck {
        rig.resolver.resolve(Resolution { sequence, stored: false, batch });
    }
    rig.turn();
    assert!(rig.resolver.has_acknowledged(word), "the last update has been handed over");
    assert_eq!(rig.resolve(false), 1);
    rig.service.set(StoreState::Failed);
    rig.arrive(MessageType::REQUEST, 1, None);
    rig.arrive(MessageType::REQUEST, 2, None);
    rig.turn();
    let answered = rig.worker.port_mut().take_sent(|message| message.transaction_id.0);
    assert_eq!(answered, Some([0, 0, 1]), "stored long ago");
    assert!(rig.worker.port_mut().take_sent(|_| ()).is_none(), "the other was not stored");
}

#[test]
fn solicits_are_shed_before_requests_and_then_reception_stops() {
    let mut rig = Rig::new(100);
    for client in 0..60 {
        rig.arrive(MessageType::REQUEST, client, None);
    }
    rig.turn();
    assert_eq!(rig.worker.held(), 60);
    rig.arrive(MessageType::SOLICIT, 500, None);
    for client in 100..150 {
        rig.arrive(MessageType::REQUEST, client, None);
    }
    rig.turn();
    assert_eq!(rig.counter("shed", "solicit_held"), 1);
    assert_eq!(rig.worker.held(), 100, "the rest of the batch is put aside");
    rig.arrive(MessageType::REQUEST, 200, None);
    rig.turn();
    assert_eq!(rig.worker.held(), 100);
    assert_eq!(rig.counter("received", "REQUEST"), 110, "no more is received");
    rig.resolve(true);
    rig.turn();
    rig.turn();
    assert_eq!(rig.worker.held(), 11, "what waited is taken when there is room again");
    assert_eq!(rig.counter("received", "REQUEST"), 111);
}

/// An overload of Solicits with some Renews in it.
fn flood(rig: &mut Rig, addresses: &[Ipv6Addr]) {
    for client in 0..200 {
        rig.arrive(MessageType::SOLICIT, 10_000 + client, None);
        if let (0, Some(address)) = (client % 20, addresses.get(client as usize / 20)) {
            rig.arrive(MessageType::RENEW, client / 20, Some(*address));
        }
    }
}

#[test]
fn under_overload_solicits_are_shed_and_renews_served() {
    let mut rig = Rig::new(256);
    let addresses: Vec<Ipv6Addr> = (0..10).map(|client| rig.exchange(client)).collect();
    flood(&mut rig, &addresses);
    rig.turn();
    rig.resolve(true);
    rig.turn();
    let renewed: Vec<[u8; 3]> = (0..10).map(|client| [0, 0, client]).collect();
    let mut answered = rig.answered();
    let solicits = answered.extract_if(.., |id| *id >= [0, 1, 0]).count();
    assert_eq!(answered, renewed, "each of them");
    assert_eq!(rig.counter("shed", "solicit_backlog") + solicits as u64, 200);
    // 210 wait; a batch of 64 is taken at a time until 32, an eighth of 256, or fewer wait.
    assert_eq!(solicits, 18, "the last ones");
    assert_eq!(rig.counter("overload", "entered"), 1);
    assert_eq!(rig.counter("overload", "left"), 1);
}

#[test]
fn below_the_mark_solicits_are_served() {
    let mut rig = Rig::new(256);
    for client in 0..128 {
        rig.arrive(MessageType::SOLICIT, client, None);
    }
    rig.turn();
    assert_eq!(rig.answered().len(), 64, "a batch at a time");
    rig.turn();
    assert_eq!(rig.answered().len(), 64);
    assert_eq!(rig.counter("shed", "solicit_backlog"), 0);
    assert_eq!(rig.counter("overload", "entered"), 0);
}

#[test]
fn while_the_disk_stalls_solicits_do_not_stand_before_renews() {
    let mut rig = Rig::new(256);
    let addresses: Vec<Ipv6Addr> = (0..20).map(|client| rig.exchange(client)).collect();
    for client in 1_000..1_256 {
        rig.arrive(MessageType::REQUEST, client, None);
    }
    while rig.worker.held() < 256 {
        rig.turn();
    }
    // The disk does not answer, and all places are taken.
    for (client, address) in (0..).zip(&addresses) {
        rig.arrive(MessageType::SOLICIT, 10_000 + client, None);
        rig.arrive(MessageType::RENEW, client, Some(*address));
    }
    rig.arrive(MessageType::CONFIRM, 3, Some(addresses[3]));
    rig.turn();
    assert_eq!(rig.worker.held(), 256);
    assert_eq!(rig.counter("shed", "solicit_held"), 20, "swept out of the queue");
    assert_eq!(rig.counter("received", "RENEW"), 20, "put aside");
    rig.resolve(true);
    rig.turn();
    rig.resolve(true);
    rig.turn();
    let answered = rig.answered();
    let renewed: Vec<[u8; 3]> = (0..20).map(|client| [0, 0, client]).collect();
    assert_eq!(answered.last_chunk::<20>().unwrap()[..], renewed, "in order, once there is room");
    assert_eq!(
        answered.len(),
        276,
        "nobody else was dropped, and CONFIRM has no Server Identifier"
    );
}

#[test]
fn each_stage_is_timed() {
    let mut rig = Rig::new(256);
    for client in 0..62 {
        rig.exchange(client);
    }
    rig.publish();
    for stage in [Stage::TurnWait, Stage::Rules, Stage::Emit] {
        assert_eq!(rig.recorded(stage), 4, "{}: one in 31 of 124", stage.as_str());
    }
    assert_eq!(rig.recorded(Stage::WholeImmediate), 62);
    assert_eq!(rig.recorded(Stage::WholeHeld), 62);
    assert_eq!(rig.recorded(Stage::Durable), 62);
    assert_eq!(rig.recorded(Stage::Flush), 124);
}

#[test]
fn the_steady_state_allocates_nothing() {
    let mut rig = Rig::new(256);
    let clients = 2_000;
    // The first round makes the bindings and warms every buffer up.
    let addresses: Vec<Ipv6Addr> = (0..clients).map(|client| rig.exchange(client)).collect();
    let mut later = Instant::now();
    let count = allocations(|| {
        for _ in 0..5 {
            for client in 0..clients {
                rig.exchange(client);
                let address = addresses[client as usize];
                rig.arrive(MessageType::RENEW, client, Some(address));
                rig.turn();
                rig.resolve(true);
                rig.turn();
                assert_eq!(rig.worker.port_mut().take_sent(address_in), Some(address));
            }
            // Histograms change hands as they do once a second.
            later += Duration::from_secs(1);
            rig.worker.publish(later);
            rig.collector.collect();
        }
    });
    assert_eq!(count, 0, "allocations in 30,000 messages");
    assert!(rig.recorded(Stage::Rules) > 500, "one in 31 is sampled");
}

#[test]
fn new_clients_cost_no_allocation_each() {
    let mut rig = Rig::new(256);
    for client in 0..1_000 {
        rig.exchange(client);
    }
    let fresh = 20_000;
    let count = allocations(|| {
        for client in 1_000..1_000 + fresh {
            rig.exchange(client);
        }
    });
    // The table grows by whole blocks of records, where it was not reserved for.
    assert!(count < fresh as usize / 10, "{count} allocations for {fresh} new clients");
}

#[test]
fn the_counter_of_allocations_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

/// The store of a client's one lease.
#[derive(Debug)]
struct OneLease(Record);

impl Recall for OneLease {
    fn recall(&self, table: &LeaseTable, key: ClientKey<'_>, lease: Lease) {
        if (key, lease) == (self.0.binding.client_key(), self.0.binding.lease) {
            table.restore(self.0.clone());
        }
    }
}

#[test]
fn while_the_table_is_filled_renewals_alone_are_served() {
    let mut rig = Rig::new(64);
    let address = rig.exchange(1);
    let binding = rig.table.binding(Lease::address(address)).unwrap();
    let stored = Record { binding, stamp: rig.table.stamp() };

    // Started again: the table is empty.
    let mut rig = Rig::with(64, ServiceState::warming(), |worker| {
        worker.with_recall(Arc::new(OneLease(stored)))
    });
    rig.arrive(MessageType::SOLICIT, 2, None);
    rig.arrive(MessageType::RENEW, 1, Some(address));
    rig.turn();
    assert_eq!(rig.answered(), [[0; 3]; 0], "the reply waits for the disk as ever");
    assert_eq!(rig.resolve(true), 1);
    rig.turn();
    assert_eq!(rig.answered(), [[0, 0, 1]]);
    assert_eq!(rig.counter("dropped", "warming"), 1);
    rig.service.end_warming();
    rig.exchange(2);
}
