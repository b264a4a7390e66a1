//! The four rings, as two types: one that we produce into, one that we consume from.
//!
//! A ring is a power-of-two array with a producer and a consumer index that count up and wrap at
//! 2^32. Each index has one writer. The writer of an entry publishes it by storing the producer
//! index with release order, and the reader sees it by loading that with acquire order; the
//! consumer index hands the slots back in the same way.
//!
//! Both types keep a copy of the other side's index and only look at the shared one when the copy
//! says that there is nothing left, so a batch touches the shared cache lines once.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{abi, mapping::Mapping};

/// What an entry of a ring may be.
///
/// # Safety
/// Any bit pattern must be a value: the other side writes the entries.
pub(crate) unsafe trait Entry: Copy {}
// SAFETY: an integer.
unsafe impl Entry for u64 {}
// SAFETY: three integers without padding.
unsafe impl Entry for abi::xdp_desc {}

/// The memory of a ring, common to both ends.
#[derive(Debug)]
struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    /// Keeps the memory that the pointers lead into.
    _memory: Arc<Mapping>,
}

// SAFETY: the pointers lead into shared memory that `_memory` keeps, which belongs to no thread.
unsafe impl<T: Entry> Send for Ring<T> {}

impl<T: Entry> Ring<T> {
    /// # Safety
    /// The memory must be a ring of `size` entries of `T` laid out as `offsets` says, and nobody
    /// else in this process may act as the same end of it.
    ///
    /// # Panics
    /// When the ring does not lie within the memory, or `size` is not a power of two.
    unsafe fn new(memory: Arc<Mapping>, offsets: &abi::xdp_ring_offset, size: u32) -> Self {
        assert!(size.is_power_of_two(), "a ring of {size} entries");
        let at = |offset: u64, len: usize, align: usize| {
            let offset = usize::try_from(offset).expect("offsets lie within the mapping");
            let end = offset.checked_add(len).expect("offsets lie within the mapping");
            assert!(end <= memory.len() && offset % align == 0, "a ring outside its mapping");
            // SAFETY: checked to lie inside the mapping.
            unsafe { memory.start().add(offset) }
        };
        let word = |offset| at(offset, 4, 4).cast::<AtomicU32>();
        Self {
            producer: word(offsets.producer),
            consumer: word(offsets.consumer),
            flags: word(offsets.flags),
            entries: at(offsets.desc, size as usize * size_of::<T>(), align_of::<T>()).cast(),
            size,
            _memory: memory,
        }
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: checked by `new` to be inside the memory and aligned; only accessed atomically.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn needs_wakeup(&self) -> bool {
        // SAFETY: as in `producer`.
        let flags = unsafe { self.flags.as_ref() };
        flags.load(Ordering::Relaxed) & abi::XDP_RING_NEED_WAKEUP != 0
    }

    /// The slot that a counting index falls on.
    fn slot(&self, index: u32) -> NonNull<T> {
        // SAFETY: the mask keeps the slot below `size`, and `new` checked that many entries.
        unsafe { self.entries.add((index & (self.size - 1)) as usize) }
    }
}

/// The producing end of a ring: fill and TX.
#[derive(Debug)]
pub(crate) struct Producer<T> {
    ring: Ring<T>,
    /// Our index; entries before it are written, those from `published` on not yet visible.
    head: u32,
    published: u32,
    /// The consumer's index as last seen.
    tail: u32,
}

impl<T: Entry> Producer<T> {
    /// # Safety
    /// As for [`Consumer::new`], for the producing end.
    pub(crate) unsafe fn new(
        memory: Arc<Mapping>,
        offsets: &abi::xdp_ring_offset,
        size: u32,
    ) -> Self {
        // SAFETY: the caller's promise.
        let ring = unsafe { Ring::new(memory, offsets, size) };
        let head = ring.producer().load(Ordering::Relaxed);
        let tail = ring.consumer().load(Ordering::Acquire);
        Self { ring, head, published: head, tail }
    }

    /// Whether there is a free slot.
    pub(crate) fn has_room(&mut self) -> bool {
        if self.head.wrapping_sub(self.tail) < self.ring.size {
            return true;
        }
        self.tail = self.ring.consumer().load(Ordering::Acquire);
        // A consumer index ahead of ours makes no sense; the difference wraps to a large number
        // and reads as a full ring, so that nothing is overwritten.
        self.head.wrapping_sub(self.tail) < self.ring.size
    }

    /// Writes an entry, which the other side sees after [`Self::publish`]. False when full.
    pub(crate) fn push(&mut self, entry: T) -> bool {
        if !self.has_room() {
            return false;
        }
        // SAFETY: the slot is inside the ring, and free: the consumer is past it, or it was never
        // written, so the other side does not read it until `publish`.
        unsafe { self.ring.slot(self.head).write(entry) };
        self.head = self.head.wrapping_add(1);
        true
    }

    /// Makes all written entries visible to the other side.
    pub(crate) fn publish(&mut self) {
        if self.head != self.published {
            self.ring.producer().store(self.head, Ordering::Release);
            self.published = self.head;
        }
    }

    /// Entries published that the other side has not consumed yet.
    pub(crate) fn outstanding(&mut self) -> u32 {
        self.tail = self.ring.consumer().load(Ordering::Acquire);
        self.published.wrapping_sub(self.tail).min(self.ring.size)
    }

    /// Whether the kernel wants to be told of new entries.
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }
}

/// The consuming end of a ring: RX and completion.
#[derive(Debug)]
pub(crate) struct Consumer<T> {
    ring: Ring<T>,
    /// Our index; entries before it are read, those from `released` on not yet handed back.
    tail: u32,
    released: u32,
    /// The producer's index as last seen.
    head: u32,
}

impl<T: Entry> Consumer<T> {
    /// # Safety
    /// The memory must be a ring of `size` entries of `T` laid out as `offsets` says, and nobody
    /// else in this process may act as the consuming end of it.
    ///
    /// # Panics
    /// When the ring does not lie within the memory, or `size` is not a power of two.
    pub(crate) unsafe fn new(
        memory: Arc<Mapping>,
        offsets: &abi::xdp_ring_offset,
        size: u32,
    ) -> Self {
        // SAFETY: the caller's promise.
        let ring = unsafe { Ring::new(memory, offsets, size) };
        let tail = ring.consumer().load(Ordering::Relaxed);
        Self { ring, tail, released: tail, head: tail }
    }

    /// Takes the oldest entry, whose slot goes back with [`Self::release`].
    pub(crate) fn pop(&mut self) -> Option<T> {
        if self.tail == self.head {
            self.head = self.ring.producer().load(Ordering::Acquire);
            if self.tail == self.head {
                return None;
            }
            // More entries than slots make no sense; the newest `size` of them still have slots,
            // and what they say is checked by the reader.
            if self.head.wrapping_sub(self.tail) > self.ring.size {
                self.tail = self.head.wrapping_sub(self.ring.size);
            }
        }
        // SAFETY: the slot is inside the ring, published by the other side (acquired above) and
        // not rewritten before `release`. Should a faulty kernel rewrite it all the same, any bit
        // pattern is a value of `T`.
        let entry = unsafe { self.ring.slot(self.tail).read() };
        self.tail = self.tail.wrapping_add(1);
        Some(entry)
    }

    /// Entries that can be taken, and the slots that there are.
    pub(crate) fn waiting(&self) -> (u32, u32) {
        let head = self.ring.producer().load(Ordering::Acquire);
        (head.wrapping_sub(self.tail).min(self.ring.size), self.ring.size)
    }

    /// Hands the slots of all taken entries back to the other side.
    pub(crate) fn release(&mut self) {
        if self.tail != self.released {
            self.ring.consumer().store(self.tail, Ordering::Release);
            self.released = self.tail;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const OFFSETS: abi::xdp_ring_offset =
        abi::xdp_ring_offset { producer: 0, consumer: 64, desc: 192, flags: 128 };

    /// Both ends of a ring over plain memory, with the indices starting at `first`.
    fn pair(size: u32, first: u32) -> (Producer<u64>, Consumer<u64>) {
        let memory = Arc::new(Mapping::anonymous(192 + size as usize * 8, false).unwrap());
        // SAFETY: inside the mapping, aligned, and not shared yet.
        unsafe {
            memory.start().cast::<u32>().write(first);
            memory.start().add(64).cast::<u32>().write(first);
        }
        // SAFETY: the memory holds a ring of that layout, and this is the only use of each end.
        unsafe {
            (
                Producer::new(Arc::clone(&memory), &OFFSETS, size),
                Consumer::new(memory, &OFFSETS, size),
            )
        }
    }

    #[test]
    fn nothing_is_seen_before_publish_and_no_slot_is_reused_before_release() {
        let (mut producer, mut consumer) = pair(4, 0);
        assert_eq!(consumer.pop(), None);
        for i in 0..4 {
            assert!(producer.push(i));
        }
        assert!(!producer.push(4), "full");
        assert_eq!(consumer.pop(), None, "not published");
        assert_eq!(producer.outstanding(), 0);
        producer.publish();
        assert_eq!(producer.outstanding(), 4);
        assert_eq!(consumer.pop(), Some(0));
        assert_eq!(consumer.pop(), Some(1));
        assert!(!producer.push(4), "taken but not released");
        consumer.release();
        assert_eq!(producer.outstanding(), 2);
        assert!(producer.push(4) && producer.push(5));
        assert!(!producer.push(6));
        producer.publish();
        assert_eq!(std::iter::from_fn(|| consumer.pop()).collect::<Vec<_>>(), [2, 3, 4, 5]);
        consumer.release();
        assert_eq!(producer.outstanding(), 0);
    }

    #[test]
    fn indices_wrap_at_2_to_the_32() {
        let (mut producer, mut consumer) = pair(8, u32::MAX - 10);
        for i in 0..100_u64 {
            for j in 0..5 {
                assert!(producer.push(i * 5 + j));
            }
            producer.publish();
            for j in 0..5 {
                assert_eq!(consumer.pop(), Some(i * 5 + j));
            }
            assert_eq!(consumer.pop(), None);
            consumer.release();
        }
    }

    #[test]
    fn a_full_ring_across_the_wrap_is_full_and_not_empty() {
        let (mut producer, mut consumer) = pair(8, u32::MAX - 3);
        for i in 0..8 {
            assert!(producer.push(i));
        }
        assert!(!producer.push(8));
        producer.publish();
        assert_eq!(producer.outstanding(), 8);
        assert_eq!(consumer.waiting(), (8, 8));
        assert_eq!(consumer.pop(), Some(0));
        assert_eq!(consumer.waiting(), (7, 8), "taken is not waiting any more");
        assert_eq!(std::iter::from_fn(|| consumer.pop()).count(), 7);
    }

    #[test]
    fn senseless_indices_of_the_other_side_do_no_harm() {
        let (mut producer, consumer) = pair(8, 100);
        consumer.ring.consumer().store(200, Ordering::Relaxed);
        let pushed = (0..20).take_while(|i| producer.push(*i)).count();
        assert!(pushed <= 8, "{pushed} entries in a ring of 8");

        let (producer, mut consumer) = pair(8, 100);
        producer.ring.producer().store(100_000, Ordering::Relaxed);
        assert_eq!(consumer.waiting(), (8, 8));
        assert_eq!(std::iter::from_fn(|| consumer.pop()).count(), 8);
    }

    #[test]
    #[should_panic(expected = "outside its mapping")]
    fn a_ring_beyond_its_memory_is_refused() {
        let memory = Arc::new(Mapping::anonymous(4096, false).unwrap());
        // SAFETY: never gets past the check under test.
        let _ = unsafe { Consumer::<u64>::new(memory, &OFFSETS, 512) };
    }

    #[test]
    fn two_threads_pass_every_entry_once_and_in_order() {
        const ENTRIES: u64 = 500_000;
        let (mut producer, mut consumer) = pair(64, u32::MAX - 1000);
        let deadline = Instant::now() + Duration::from_secs(60);
        let sender = std::thread::spawn(move || {
            let mut next = 0;
            while next < ENTRIES && Instant::now() < deadline {
                let batch_end = (next + 1 + next % 17).min(ENTRIES);
                while next < batch_end && producer.push(next) {
                    next += 1;
                }
                producer.publish();
                if next < batch_end {
                    std::thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while expected < ENTRIES {
            assert!(Instant::now() < deadline, "stuck at entry {expected}");
            let before = expected;
            while let Some(entry) = consumer.pop() {
                assert_eq!(entry, expected);
                expected += 1;
                if expected.is_multiple_of(23) {
                    break;
                }
            }
            consumer.release();
            if before == expected {
                std::thread::yield_now();
            }
        }
        sender.join().unwrap();
        assert_eq!(consumer.pop(), None);
    }
}
