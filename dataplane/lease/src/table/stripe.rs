//! A client stripe: records, the index by client, the expiry queue.

use std::{cmp::Reverse, collections::BinaryHeap};

use hashbrown::HashTable;

use super::STATUSES;
use crate::{
    AbsoluteTime, Binding, BindingStatus, ClientKey,
    arena::{Arena, NIL},
};

#[derive(Debug)]
pub(super) struct Stripe {
    pub(super) arena: Arena,
    /// First record of each identity association.
    clients: HashTable<u32>,
    /// When to look at which record; see [`Stripe::enqueue`].
    queue: BinaryHeap<Reverse<(AbsoluteTime, u32)>>,
    /// Records by status.
    pub(super) counts: [u32; STATUSES],
}

impl Stripe {
    pub(super) fn new(expected: usize) -> Self {
        Self {
            arena: Arena::new(),
            clients: HashTable::with_capacity(expected),
            queue: BinaryHeap::with_capacity(expected),
            counts: [0; STATUSES],
        }
    }

    /// The first record of an identity association, or [`NIL`].
    pub(super) fn head(&self, hash: u64, key: &ClientKey<'_>) -> u32 {
        let arena = &self.arena;
        let found = self.clients.find(hash, |&slot| arena.slot(slot).binding.client_key() == *key);
        found.copied().unwrap_or(NIL)
    }

    /// Puts a record in at the end of its association's chain.
    pub(super) fn insert(
        &mut self,
        hash: u64,
        binding: Binding,
        stamp: u64,
        hasher: impl Fn(ClientKey<'_>) -> u64,
    ) -> u32 {
        let mut last = self.head(hash, &binding.client_key());
        self.counts[binding.status as usize] += 1;
        let number = self.arena.insert(binding, stamp);
        if last == NIL {
            let arena = &self.arena;
            let rehash = |&slot: &u32| hasher(arena.slot(slot).binding.client_key());
            self.clients.insert_unique(hash, number, rehash);
            return number;
        }
        while self.arena.slot(last).next != NIL {
            last = self.arena.slot(last).next;
        }
        self.arena.at(last).next = number;
        number
    }

    /// Takes a record out of its chain and of the arena.
    pub(super) fn remove(&mut self, number: u32, hasher: impl Fn(ClientKey<'_>) -> u64) -> Binding {
        let slot = self.arena.slot(number);
        let next = slot.next;
        let hash = hasher(slot.binding.client_key());
        let arena = &mut self.arena;
        let key = arena.slot(number).binding.client_key();
        let entry =
            self.clients.find_entry(hash, |&head| arena.slot(head).binding.client_key() == key);
        let Ok(mut entry) = entry else { panic!("a record's client is not in the index") };
        let head = *entry.get();
        if head == number {
            if next == NIL {
                entry.remove();
            } else {
                *entry.get_mut() = next;
            }
        } else {
            let mut before = head;
            while arena.slot(before).next != number {
                before = arena.slot(before).next;
                assert_ne!(before, NIL, "a record is not in its client's chain");
            }
            arena.at(before).next = next;
        }
        let binding = arena.remove(number);
        self.counts[binding.status as usize] -= 1;
        binding
    }

    /// Changes a record's status; start time of the new state included.
    pub(super) fn set_status(&mut self, number: u32, status: BindingStatus, now: AbsoluteTime) {
        let binding = &mut self.arena.at(number).binding;
        if binding.status != status {
            self.counts[binding.status as usize] -= 1;
            self.counts[status as usize] += 1;
            binding.status = status;
            binding.start_time_of_state = now;
        }
    }

    /// Replaces a record of the same lease and client.
    pub(super) fn overwrite(&mut self, number: u32, binding: Binding, stamp: u64) {
        let slot = self.arena.at(number);
        self.counts[slot.binding.status as usize] -= 1;
        self.counts[binding.status as usize] += 1;
        slot.binding = binding;
        slot.set_stamp(stamp);
    }

    /// Sees to it that the record is looked at when it is due.
    ///
    /// A record stands in the queue once, at or before its due time: a renewal leaves it where it
    /// is, and when it surfaces early it is put back ([`Stripe::pop_due`]). Only an earlier due
    /// time needs a further entry, which makes the old one void: an entry counts if its time is
    /// the one that the record says. Void entries are swept out when they outnumber the records.
    pub(super) fn enqueue(&mut self, number: u32, due: AbsoluteTime) {
        let slot = self.arena.at(number);
        if due == AbsoluteTime::INFINITE || slot.queued <= due {
            return;
        }
        slot.queued = due;
        if self.queue.len() >= 2 * self.arena.len() + 64 {
            self.queue.clear();
            let queued = self.arena.iter().filter(|(_, s)| s.queued != AbsoluteTime::INFINITE);
            self.queue.extend(queued.map(|(number, slot)| Reverse((slot.queued, number))));
        } else {
            self.queue.push(Reverse((due, number)));
        }
    }

    /// Takes the next entry out of the queue that is due: a record, or nothing if the entry is
    /// void. The outer `None`: nothing is due yet.
    pub(super) fn pop_due(&mut self, now: AbsoluteTime) -> Option<Option<u32>> {
        let &Reverse((time, number)) = self.queue.peek()?;
        if now < time {
            return None;
        }
        self.queue.pop();
        let slot = self.arena.get(number).filter(|slot| slot.queued == time);
        if slot.is_some() {
            self.arena.at(number).queued = AbsoluteTime::INFINITE;
            return Some(Some(number));
        }
        Some(None)
    }

    /// Length of the expiry queue, void entries included.
    #[cfg(test)]
    pub(super) fn queue_len(&self) -> usize {
        self.queue.len()
    }
}
