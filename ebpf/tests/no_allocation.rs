//! The loop of a worker over AF_XDP allocates nothing, once it is set up.

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    time::{Duration, Instant},
};

use common::{Lab, Packet, needs_root};
use gemel_ebpf::{XdpMode, XdpServer};

/// The system's allocator, with a count of the calls of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(memory, layout, len) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn the_loop_over_a_socket_does_not_allocate() {
    if needs_root("the_loop_over_a_socket_does_not_allocate") {
        return;
    }
    let counted = ALLOCATIONS.get();
    assert!(!vec![0_u8; std::hint::black_box(10)].is_empty());
    assert_eq!(ALLOCATIONS.get(), counted + 1, "the counter works");

    let lab = Lab::veth();
    let mut server = XdpServer::load().unwrap();
    server.attach(lab.ifindex(0), XdpMode::Native).unwrap();
    let mut sender = common::socket(lab.ifindex(1), 0);
    let mut receiver = common::socket(lab.ifindex(0), 0);
    server.set_socket(0, &receiver).unwrap();
    let packet = Vec::from(&Packet::to("ff02::1:2", 547));
    let mut batch = Vec::with_capacity(64);
    let mut received = 0;
    let deadline = Instant::now() + Duration::from_secs(30);

    let counted = ALLOCATIONS.get();
    while received < 10_000 {
        assert!(Instant::now() < deadline, "{received} received");
        for _ in 0..64 {
            let Some(mut frame) = sender.allocate() else { break };
            frame.set_range(0, packet.len()).unwrap();
            sender.data_mut(&mut frame).copy_from_slice(&packet);
            if let Err(frame) = sender.transmit(frame) {
                sender.free(frame);
            }
        }
        sender.flush().unwrap();
        sender.reclaim();
        receiver.poll(Some(Duration::ZERO)).unwrap();
        received += receiver.receive(&mut batch);
        for frame in batch.drain(..) {
            receiver.free(frame);
        }
        receiver.refill();
        receiver.statistics().unwrap();
    }
    assert_eq!(ALLOCATIONS.get(), counted, "allocations in the loop");
}
