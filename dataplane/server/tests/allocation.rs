//! The steady path allocates nothing: neither the rules nor the table below them.

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use gemel_lease::IaKind;
use gemel_server::{Outcome, Service};
use gemel_wire::{MessageType, OptionCode};
use support::*;

/// Counts the allocations of the thread that makes them.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // Not there any more while a thread ends.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system allocator with the arguments of the caller, who keeps its
// contract; counting touches only a thread-local number and does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn handling_allocates_nothing() {
    let mut lab = Lab::new();
    let mut reply = [0; 1500];
    let na = lab.send(&Build::valid(MessageType::REQUEST).na(1, &[]).pd(1, &[]).done());
    let (address, prefix) = (na.lease(IaKind::Na, 1), na.lease(IaKind::Pd, 1));
    let oro = [OptionCode::DNS_SERVERS, OptionCode::DOMAIN_LIST];
    let of_client = |msg_type| Build::valid(msg_type).oro(&oro).na(1, &[address]).pd(1, &[prefix]);
    let mut messages = vec![
        Build::new(MessageType::SOLICIT).client(OTHER).na(1, &[]).pd(2, &[]).done(),
        Build::valid(MessageType::INFORMATION_REQUEST).oro(&oro).done(),
        Build::valid(MessageType::CONFIRM).na(1, &[address]).done(),
        Build::new(MessageType::REBIND).client(OTHER).na(1, &[]).done(),
        b"\x01short".to_vec(),
    ];
    for msg_type in [MessageType::SOLICIT, MessageType::REQUEST, MessageType::RENEW] {
        messages.push(of_client(msg_type).done());
    }
    let level =
        Level { hop_count: 0, link: ip("2001:db8:a::1"), peer: ip("fe80::9"), options: vec![] };
    let relayed: Vec<_> = messages.iter().map(|message| relay(&level, message)).collect();
    messages.extend(relayed);
    lab.updates = gemel_lease::UpdateBatch::with_capacity(4096);
    for round in 0..1000 {
        for message in &messages {
            lab.updates.clear();
            lab.now = lab.now.plus(1);
            let inbound = lab.inbound(message);
            let before = ALLOCATIONS.get();
            let outcome =
                lab.server.handle(&inbound, lab.now, Service::Full, &mut reply, &mut lab.updates);
            let made = ALLOCATIONS.get() - before;
            // In the first round the table's expiry queue may grow.
            assert!(made == 0 || round == 0, "{made} allocations in round {round}: {outcome:?}");
            assert!(matches!(outcome, Outcome::Reply(_)) || message.len() < 120, "{outcome:?}");
        }
    }
    assert!(ALLOCATIONS.get() > 0, "the allocator counts");
}
