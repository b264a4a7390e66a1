//! A client stripe: records, the index by client, the expiry queue.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::STATUSES;
use crate::{
    AbsoluteTime, Binding, BindingStatus, ClientKey,
    arena::{Arena, NIL},
    ordered::{self, Ordered},
    prefetch::{prefetch_all, prefetch_item},
    striped::Content,
};

/// In the order of use: the index stands in the first cache line of a stripe.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Stripe {
    /// First record of each identity association.
    clients: Ordered<Client>,
    pub(super) arena: Arena,
    /// When to look at which record; see [`Stripe::enqueue`].
    queue: BinaryHeap<Reverse<(AbsoluteTime, u32)>>,
    /// Records by status.
    pub(super) counts: [u32; STATUSES],
}

/// An identity association, by a part of its hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    hash: u32,
    head: u32,
}

impl Client {
    #[expect(clippy::cast_possible_truncation, reason = "a part of a hash")]
    fn new(hash: u64, head: u32) -> Self {
        Self { hash: hash as u32, head }
    }
}

impl ordered::Entry for Client {
    const GAP: Self = Self { hash: 0, head: NIL };

    fn is_gap(&self) -> bool {
        self.head == NIL
    }

    fn hash(&self) -> u64 {
        u64::from(self.hash) << 32
    }
}

/// The hash by which an association stands in the index.
pub(super) fn index_hash(hash: u64) -> u64 {
    hash << 32
}

impl Content for Stripe {
    type Entry = Client;

    fn table(&self) -> &Ordered<Client> {
        &self.clients
    }
}

impl Stripe {
    pub(super) fn new() -> Self {
        Self {
            clients: Ordered::with_capacity(0),
            arena: Arena::new(),
            queue: BinaryHeap::new(),
            counts: [0; STATUSES],
        }
    }

    /// Makes room for so many records in all.
    pub(super) fn make_room(&mut self, expected: usize) {
        self.clients.make_room(expected);
        self.queue.reserve(expected.saturating_sub(self.queue.len()));
    }

    /// The first record of an identity association, or [`NIL`].
    pub(super) fn head(&self, hash: u64, key: &ClientKey<'_>) -> u32 {
        let arena = &self.arena;
        let is = |client: &Client| arena.slot(client.head).binding.client_key() == *key;
        self.clients.find(index_hash(hash), is).map_or(NIL, |client| client.head)
    }

    /// Fetches the first record of an association into the cache; false if there is none. Of two
    /// associations that the index does not tell apart it may be the other one's.
    pub(super) fn fetch_head(&self, hash: u64) -> bool {
        let client = self.clients.find(index_hash(hash), |_| true);
        client.inspect(|client| prefetch_all(self.arena.slot(client.head))).is_some()
    }

    /// Fetches what it takes to put a record in.
    pub(super) fn fetch_room(&self) {
        self.arena.fetch_next();
        let queue = self.queue.as_slice();
        prefetch_item(queue.as_ptr(), queue.len());
        // Where its place in the queue begins to be looked for.
        prefetch_item(queue.as_ptr(), queue.len().saturating_sub(1) / 2);
    }

    /// Puts a record in at the end of its association's chain.
    pub(super) fn insert(&mut self, hash: u64, binding: Binding, stamp: u64) -> u32 {
        let mut last = self.head(hash, &binding.client_key());
        self.counts[binding.status as usize] += 1;
        let number = self.arena.insert(binding, stamp);
        if last == NIL {
            self.clients.insert(Client::new(hash, number));
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
        let hash = index_hash(hash);
        let arena = &mut self.arena;
        let key = arena.slot(number).binding.client_key();
        let is = |client: &Client| arena.slot(client.head).binding.client_key() == key;
        let client = self.clients.find_mut(hash, is);
        let head = client.expect("a record's client is in the index");
        if head.head != number {
            let mut before = head.head;
            while arena.slot(before).next != number {
                before = arena.slot(before).next;
                assert_ne!(before, NIL, "a record is not in its client's chain");
            }
            arena.at(before).next = next;
        } else if next == NIL {
            self.clients.remove(hash, |client| client.head == number);
        } else {
            head.head = next;
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
