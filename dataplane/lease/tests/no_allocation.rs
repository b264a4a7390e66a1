//! Nothing is allocated for a packet: looking up, showing a candidate and extending never allocate,
//! and granting and releasing do not once the table has grown to its size.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use gemel_lease::{
    AbsoluteTime, Binding, ClientKey, IaKind, Lease, LeaseTable, Ownership, PoolConfig, PoolId,
    PoolRange, PoolSet, TableConfig, Terms, UpdateBatch, UpdateSink,
};
use gemel_wire::IaId;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations<T>(f: impl FnOnce() -> T) -> (T, u64) {
    let before = ALLOCATIONS.with(Cell::get);
    let result = f();
    (result, ALLOCATIONS.with(Cell::get) - before)
}

const NOW: AbsoluteTime = AbsoluteTime(1000);
const TERMS: Terms = Terms::unlimited(10, 20);

fn exchange(table: &LeaseTable, pool: PoolId, number: u32, sink: &mut impl UpdateSink) -> Lease {
    let mut duid = [0, 3, 0, 1, 2, 2, 0, 0, 0, 0];
    duid[6..].copy_from_slice(&number.to_be_bytes());
    let key = ClientKey { duid: &duid, kind: IaKind::Na, iaid: IaId(number) };
    let candidate = table.lock(key).candidate(pool, None);
    let mut guard = table.lock(key);
    let lease = guard.grant(pool, candidate, &TERMS, NOW, sink).expect("a free lease").lease;
    assert!(guard.extend(lease, &TERMS, NOW, sink).is_some());
    assert_eq!(guard.bindings().map(Binding::client_key).next(), Some(key));
    lease
}

#[test]
fn the_steady_state_does_not_allocate() {
    const CLIENTS: u32 = 20_000;
    let range = |last: &str| PoolRange::Addresses {
        first: "2001:db8::1".parse().expect("an address"),
        last: last.parse().expect("an address"),
    };
    for last in ["2001:db8::ffff", "2001:db8::ffff:ffff:ffff:ffff"] {
        let pools = vec![PoolConfig { range: range(last), ownership: Ownership::Sole }];
        let pools = PoolSet::new(pools).expect("a good pool");
        let config = TableConfig { expected_bindings: CLIENTS as usize, ..TableConfig::default() };
        let table = LeaseTable::new(&config, pools);
        let mut sink = UpdateBatch::with_capacity(32 << 20);
        let round = |sink: &mut UpdateBatch| {
            (0..CLIENTS).for_each(|number| _ = exchange(&table, PoolId(0), number, sink));
            while table.expire(NOW.plus(20), 1000, sink).more {}
        };
        let ((), growing) = allocations(|| round(&mut sink));
        // Arena chunks alone: so the counter counts.
        assert!(growing >= 300, "{growing}");
        sink.clear();
        let ((), steady) = allocations(|| round(&mut sink));
        assert_eq!(steady, 0, "pool up to {last}");
        assert!(table.is_empty());
    }
}
