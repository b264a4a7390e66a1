//! The records of one client stripe.

use crate::{
    AbsoluteTime, Binding,
    prefetch::{prefetch_all, prefetch_item},
};

/// No record: the end of a chain.
pub(crate) const NIL: u32 = u32::MAX;

/// Records per chunk. A chunk never moves, so growth copies nothing; the unused rest of the last
/// chunk is what a stripe wastes at most.
const CHUNK_LOG2: u32 = 6;
const CHUNK_LEN: usize = 1 << CHUNK_LOG2;

/// The mark of [`Slot::stamp`] for an update that could not be stored.
const UNSTORED: u64 = 1 << 63;
/// The mark for content that has been sent to the partner.
const SENT: u64 = 1 << 62;
/// The mark for content that the partner may know: it was sent at some time, or came from there, or
/// that is not known any more. Not taken back by a request to send it again.
const TOLD: u64 = 1 << 61;
/// The largest stamp of an update that is restored; far above it the marks begin.
pub(crate) const STAMP_MAX: u64 = u64::MAX >> 4;

/// One lease: its binding and what the table needs to know about it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) binding: Binding,
    /// Zero in a vacant slot; the top three bits are marks.
    stamp: u64,
    /// The next lease of the same identity association, or the next vacant slot.
    pub(crate) next: u32,
    /// The time under which the slot stands in the expiry queue; infinite if it does not.
    pub(crate) queued: AbsoluteTime,
}

impl Slot {
    pub(crate) fn stamp(&self) -> u64 {
        self.stamp & !(UNSTORED | SENT | TOLD)
    }

    /// A new stamp also means that the update is on its way to the store again, and that the
    /// partner has not heard of it.
    pub(crate) fn set_stamp(&mut self, stamp: u64) {
        assert!(0 < stamp && stamp < TOLD, "stamp {stamp}");
        self.stamp = stamp;
    }

    /// A new stamp for content that has not changed.
    pub(crate) fn renew_stamp(&mut self, stamp: u64) {
        let told = self.stamp & TOLD;
        self.set_stamp(stamp);
        self.stamp |= told;
    }

    /// Whether the content has been sent to the partner since it was last to be sent.
    pub(crate) fn is_sent(&self) -> bool {
        self.stamp & SENT != 0
    }

    pub(crate) fn set_sent(&mut self) {
        self.stamp |= SENT | TOLD;
    }

    /// Whether the partner may know the content, acknowledged or not.
    pub(crate) fn is_told(&self) -> bool {
        self.stamp & TOLD != 0
    }

    pub(crate) fn set_told(&mut self) {
        self.stamp |= TOLD;
    }

    pub(crate) fn is_stored(&self) -> bool {
        self.stamp & UNSTORED == 0
    }

    pub(crate) fn set_stored(&mut self, stored: bool) {
        self.stamp = if stored { self.stamp & !UNSTORED } else { self.stamp | UNSTORED };
    }

    fn is_vacant(&self) -> bool {
        self.stamp == 0
    }
}

/// Slots under numbers that stay valid until the slot is vacated.
#[derive(Debug)]
pub(crate) struct Arena {
    chunks: Vec<Vec<Slot>>,
    vacant: u32,
    len: usize,
}

impl Arena {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new(), vacant: NIL, len: 0 }
    }

    /// Number of records.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Asks for the memory of the next record to be put in.
    pub(crate) fn fetch_next(&self) {
        if self.vacant != NIL {
            prefetch_all(self.slot(self.vacant));
        } else if let Some(chunk) = self.chunks.last() {
            prefetch_item(chunk.as_ptr(), chunk.len());
        }
    }

    /// Puts a record in, alone in its chain and not in the expiry queue.
    pub(crate) fn insert(&mut self, binding: Binding, stamp: u64) -> u32 {
        let mut slot = Slot { binding, stamp: 0, next: NIL, queued: AbsoluteTime::INFINITE };
        slot.set_stamp(stamp);
        self.len += 1;
        if self.vacant != NIL {
            let number = self.vacant;
            let vacant = self.at(number);
            assert!(vacant.is_vacant(), "slot {number} is listed as vacant");
            let next = vacant.next;
            *vacant = slot;
            self.vacant = next;
            return number;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_LEN) {
            self.chunks.push(Vec::with_capacity(CHUNK_LEN));
        }
        let chunk_index = self.chunks.len() - 1;
        let chunk = &mut self.chunks[chunk_index];
        let number = (chunk_index << CHUNK_LOG2) + chunk.len();
        chunk.push(slot);
        u32::try_from(number).ok().filter(|n| *n != NIL).expect("2^32 leases in one stripe")
    }

    /// Takes a record out.
    pub(crate) fn remove(&mut self, number: u32) -> Binding {
        let vacant = self.vacant;
        let slot = self.at(number);
        assert!(!slot.is_vacant(), "slot {number} is vacated twice");
        let binding = std::mem::replace(&mut slot.binding, Binding::EMPTY);
        slot.stamp = 0;
        slot.next = vacant;
        slot.queued = AbsoluteTime::INFINITE;
        self.vacant = number;
        self.len -= 1;
        binding
    }

    /// The record of a number that may be out of date.
    pub(crate) fn get(&self, number: u32) -> Option<&Slot> {
        self.chunks
            .get((number >> CHUNK_LOG2) as usize)?
            .get(number as usize % CHUNK_LEN)
            .filter(|slot| !slot.is_vacant())
    }

    /// The record of a number that is known to be valid.
    pub(crate) fn slot(&self, number: u32) -> &Slot {
        &self.chunks[(number >> CHUNK_LOG2) as usize][number as usize % CHUNK_LEN]
    }

    /// As [`Arena::slot`].
    pub(crate) fn at(&mut self, number: u32) -> &mut Slot {
        &mut self.chunks[(number >> CHUNK_LOG2) as usize][number as usize % CHUNK_LEN]
    }

    /// All records with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (0..).zip(self.chunks.iter().flatten()).filter(|(_, slot)| !slot.is_vacant())
    }

    /// All records.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.chunks.iter_mut().flatten().filter(|slot| !slot.is_vacant())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_small() {
        assert_eq!(size_of::<Slot>(), 104);
    }

    #[test]
    fn marks_are_kept_apart_from_the_stamp() {
        let mut arena = Arena::new();
        let number = arena.insert(Binding::EMPTY, STAMP_MAX);
        let slot = arena.at(number);
        slot.set_sent();
        slot.set_stored(false);
        assert_eq!(slot.stamp(), STAMP_MAX);
        assert!(slot.is_sent() && slot.is_told() && !slot.is_stored());
        slot.renew_stamp(STAMP_MAX + 1);
        assert_eq!(slot.stamp(), STAMP_MAX + 1);
        assert!(!slot.is_sent() && slot.is_told() && slot.is_stored());
        slot.set_stamp(STAMP_MAX + 2);
        assert!(!slot.is_sent() && !slot.is_told());
    }

    #[test]
    fn numbers_are_reused_and_stay_valid() {
        let mut arena = Arena::new();
        let numbers: Vec<_> = (1..=200).map(|stamp| arena.insert(Binding::EMPTY, stamp)).collect();
        for &number in &numbers[50..150] {
            arena.remove(number);
        }
        assert_eq!(arena.len(), 100);
        assert!(arena.get(numbers[60]).is_none());
        assert_eq!(arena.get(numbers[160]).unwrap().stamp(), 161);
        for stamp in 201..=300 {
            assert!(numbers[50..150].contains(&arena.insert(Binding::EMPTY, stamp)));
        }
        assert_eq!(arena.insert(Binding::EMPTY, 301), 200);
        assert_eq!(arena.iter().count(), 201);
    }
}
