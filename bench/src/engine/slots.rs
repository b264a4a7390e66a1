//! The exchanges that are under way, found by transaction id.

use std::collections::VecDeque;

use gemel_wire::TransactionId;

use crate::{
    client::ClientIndex,
    message::NamedLease,
    number::{index, low32},
};

/// Bits of a transaction id.
const XID_BITS: u32 = 24;
const XID_MASK: u32 = (1 << XID_BITS) - 1;
/// An odd factor and its inverse modulo 2^24: transaction ids look unrelated, as those of clients
/// do, and still name a slot.
const FACTOR: u32 = 0x00c5_4dcd;
const INVERSE: u32 = inverse(FACTOR);

/// Where an exchange stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// Not in use.
    Free,
    /// SOLICIT is out.
    Solicit,
    /// ADVERTISE has come, REQUEST is to be sent.
    Ready,
    /// REQUEST is out.
    Request,
    /// RENEW is out.
    Renew,
    /// REBIND is out.
    Rebind,
    /// RELEASE is out.
    Release,
    /// DECLINE is out.
    Decline,
    /// CONFIRM is out.
    Confirm,
    /// INFORMATION-REQUEST is out.
    Inform,
}

impl Stage {
    /// A message is out whose answer is awaited.
    pub(crate) fn is_waiting(self) -> bool {
        !matches!(self, Self::Free | Self::Ready)
    }
}

/// One exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) client: ClientIndex,
    /// Counts the messages that this slot has sent; its low bits are in the transaction id.
    pub(crate) generation: u32,
    pub(crate) stage: Stage,
    /// Index of the server that advertised.
    pub(crate) server: u8,
    /// How often the current message has been sent.
    pub(crate) sends: u8,
    /// When the first message was due.
    pub(crate) begun: u64,
    /// When the current message was due.
    pub(crate) due: u64,
    /// When the current message left for the first time.
    pub(crate) sent: u64,
    /// How long the next retransmission waits.
    pub(crate) wait: u64,
    pub(crate) na: Option<NamedLease>,
    pub(crate) pd: Option<NamedLease>,
}

/// A fixed number of slots.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    /// First in, first out: a transaction id stays unused for as long as can be.
    free: VecDeque<u32>,
    slot_bits: u32,
    offset: u32,
    part: Part,
    /// The first generation whose transaction ids have been in use.
    first: u32,
}

/// Which transaction ids earlier runs have used: answers to them may still be on their way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Used {
    offset: u32,
    part: Part,
    /// How many, counted from the first one and round and round.
    ids: u64,
}

impl Used {
    /// Whether they are of this part.
    pub(crate) fn is_of(self, part: Part) -> bool {
        self.part == part
    }
}

/// Which share of the transaction ids belongs to these slots: several generator threads send from one
/// address, and an answer may come in on the queue of another one than that which sent the request.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Part {
    /// Number of this thread, from 0.
    pub number: u32,
    /// How many high bits of a transaction id name the thread.
    pub bits: u32,
}

impl Part {
    /// Part `number` of `count`.
    #[must_use]
    pub fn new(number: u32, count: u32) -> Self {
        Self { number, bits: count.max(1).next_power_of_two().trailing_zeros() }
    }

    /// The most exchanges that can be outstanding: at least four bits of a transaction id tell the
    /// users of a slot apart.
    #[must_use]
    pub fn slots_max(self) -> u32 {
        1 << (XID_BITS - self.bits - 4)
    }
}

impl Slots {
    /// At least `wanted` slots, at most [`Part::slots_max`]; `offset` sets the first transaction id
    /// and is the same for all parts.
    pub(crate) fn new(wanted: u32, offset: u32, part: Part) -> Self {
        Self::make(wanted, offset, part, 1, |_| 0)
    }

    /// The same, whose first ids are those that earlier runs have not used for the longest time.
    pub(crate) fn after(wanted: u32, used: &Used) -> Self {
        let Used { offset, part, ids } = *used;
        Self::make(wanted, offset, part, 0, |slot_bits| {
            let last = ids.div_ceil(1 << slot_bits).saturating_sub(1);
            let generations = 1 << (XID_BITS - part.bits - slot_bits);
            // After the first round all are used, and it does not matter how many there were.
            low32(last.min(generations + last % generations))
        })
    }

    fn make(
        wanted: u32,
        offset: u32,
        part: Part,
        first: u32,
        generation: impl FnOnce(u32) -> u32,
    ) -> Self {
        let count = wanted.clamp(16, part.slots_max()).next_power_of_two();
        let slot_bits = count.trailing_zeros();
        let empty = Slot {
            client: ClientIndex(0),
            generation: generation(slot_bits),
            stage: Stage::Free,
            server: 0,
            sends: 0,
            begun: 0,
            due: 0,
            sent: 0,
            wait: 0,
            na: None,
            pd: None,
        };
        Self {
            slots: vec![empty; index(count)],
            free: (0..count).collect(),
            slot_bits,
            offset: offset & XID_MASK,
            part,
            first,
        }
    }

    /// The ids of this run and of those before it.
    pub(crate) fn used(&self) -> Used {
        let last = self.slots.iter().map(|slot| u64::from(slot.generation)).max().unwrap_or(0);
        Used { offset: self.offset, part: self.part, ids: (last + 1) << self.slot_bits }
    }

    /// Slots in use.
    pub(crate) fn outstanding(&self) -> u32 {
        u32::try_from(self.slots.len() - self.free.len()).unwrap_or(u32::MAX)
    }

    /// Number of slots.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// Takes a free slot.
    pub(crate) fn take(&mut self) -> Option<u32> {
        self.free.pop_front()
    }

    /// Gives a slot back.
    pub(crate) fn release(&mut self, at: u32) {
        self.slots[index(at)].stage = Stage::Free;
        self.free.push_back(at);
    }

    pub(crate) fn get(&self, at: u32) -> &Slot {
        &self.slots[index(at)]
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> &mut Slot {
        &mut self.slots[index(at)]
    }

    /// The transaction id of the slot's current message.
    pub(crate) fn transaction_id(&self, at: u32) -> TransactionId {
        let own = XID_BITS - self.part.bits;
        let plain = (self.get(at).generation << self.slot_bits | at) & ((1 << own) - 1);
        let plain = plain | (self.part.number << own & XID_MASK);
        let [_, x0, x1, x2] =
            (plain.wrapping_mul(FACTOR).wrapping_add(self.offset) & XID_MASK).to_be_bytes();
        TransactionId([x0, x1, x2])
    }

    /// The slot that a transaction id names, if its current message has just this one; else whether
    /// an earlier message of the slot had it.
    pub(crate) fn find(&self, id: TransactionId) -> Found {
        let [x0, x1, x2] = id.0;
        let mixed = u32::from_be_bytes([0, x0, x1, x2]);
        let plain = mixed.wrapping_sub(self.offset).wrapping_mul(INVERSE) & XID_MASK;
        let own = XID_BITS - self.part.bits;
        if plain >> own != self.part.number {
            return Found::Elsewhere(plain >> own);
        }
        let plain = plain & ((1 << own) - 1);
        let at = plain & ((1 << self.slot_bits) - 1);
        let slot = self.get(at);
        let generations = 1 << (own - self.slot_bits);
        let age = slot.generation.wrapping_sub(plain >> self.slot_bits) % generations;
        match slot.stage {
            stage if stage.is_waiting() && age == 0 => Found::Waiting(at),
            _ if u64::from(slot.generation) >= u64::from(age) + u64::from(self.first) => {
                Found::Past
            }
            _ => Found::Never,
        }
    }
}

/// What a transaction id stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Found {
    /// A message whose answer is awaited.
    Waiting(u32),
    /// A message that was answered or given up.
    Past,
    /// No message was sent with it.
    Never,
    /// It belongs to another part.
    Elsewhere(u32),
}

/// The inverse of an odd number modulo 2^32 (Newton's method doubles the right bits each time).
const fn inverse(odd: u32) -> u32 {
    let mut x = odd;
    let mut round = 0;
    while round < 4 {
        x = x.wrapping_mul(2_u32.wrapping_sub(odd.wrapping_mul(x)));
        round += 1;
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_ids_name_their_slots() {
        assert_eq!(FACTOR.wrapping_mul(INVERSE), 1);
        let mut slots = Slots::new(1000, 0xabcdef, Part::default());
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1024 {
            let at = slots.take().unwrap();
            for _ in 0..5 {
                let slot = slots.get_mut(at);
                slot.generation += 1;
                slot.stage = Stage::Solicit;
                let id = slots.transaction_id(at);
                assert!(seen.insert(id));
                assert_eq!(slots.find(id), Found::Waiting(at));
            }
        }
        assert_eq!(slots.take(), None);
        assert_eq!(slots.outstanding(), 1024);
    }

    #[test]
    fn an_old_id_is_past_and_a_strange_one_was_never() {
        let mut slots = Slots::new(16, 5, Part::default());
        let at = slots.take().unwrap();
        slots.get_mut(at).generation = 1;
        slots.get_mut(at).stage = Stage::Solicit;
        let first = slots.transaction_id(at);
        slots.get_mut(at).generation = 2;
        slots.get_mut(at).stage = Stage::Request;
        assert_eq!(slots.find(first), Found::Past);
        slots.get_mut(at).generation = 1000;
        let unused = slots.transaction_id(at);
        slots.get_mut(at).generation = 2;
        assert_eq!(slots.find(unused), Found::Never);
        let second = slots.transaction_id(at);
        slots.release(at);
        assert_eq!(slots.find(second), Found::Past);
    }

    /// Sends `count` messages from one slot after the other, and returns their ids.
    fn send(slots: &mut Slots, count: usize) -> Vec<TransactionId> {
        let mut send = || {
            let at = slots.take().unwrap();
            let slot = slots.get_mut(at);
            slot.generation = slot.generation.wrapping_add(1);
            slot.stage = Stage::Solicit;
            let id = slots.transaction_id(at);
            assert_eq!(slots.find(id), Found::Waiting(at));
            slots.release(at);
            id
        };
        (0..count).map(|_| send()).collect()
    }

    #[test]
    fn a_later_run_knows_the_ids_of_the_earlier_ones() {
        let part = Part::new(1, 2);
        let mut slots = Slots::new(1 << 10, 77, part);
        let never = {
            let mut other = Slots::new(1 << 10, 77, part);
            send(&mut other, 60_000).pop().unwrap()
        };
        let mut all = send(&mut slots, 5000);
        // Tables grow and shrink with the rate.
        for wanted in [16, 1 << 6, 1 << 12, 16] {
            slots = Slots::after(wanted, &slots.used());
            assert!(all.iter().all(|id| slots.find(*id) == Found::Past), "{wanted}");
            assert_eq!(slots.find(never), Found::Never, "{wanted}");
            let new = send(&mut slots, 1000);
            assert!(new.iter().all(|id| !all.contains(id)), "{wanted}: ids are not used again");
            all.extend(new);
        }
    }

    #[test]
    fn ids_go_round_from_run_to_run() {
        let mut used = Slots::new(16, 5, Part::default()).used();
        let mut last = Vec::new();
        // Each run of a large table claims two of its sixteen generations.
        for _ in 0..18 {
            let mut slots = Slots::after(1 << 20, &used);
            let new = send(&mut slots, (1 << 20) + 1);
            assert!(last.iter().all(|id| slots.find(*id) == Found::Past));
            assert!(new[..1000].iter().all(|id| !last.contains(id)));
            last = new[..1000].to_vec();
            used = slots.used();
            assert!(used.ids < 1 << 26, "{}", used.ids);
        }
    }

    #[test]
    fn parts_share_the_transaction_ids() {
        let mut parts: Vec<_> = (0..3).map(|k| Slots::new(64, 77, Part::new(k, 3))).collect();
        assert_eq!(Part::new(0, 3).slots_max(), 1 << 18);
        assert!(Part::default().slots_max() >= 1_000_000, "so many clients wait in an avalanche");
        for own in 0..3 {
            let at = parts[own].take().unwrap();
            parts[own].get_mut(at).generation = 1000;
            parts[own].get_mut(at).stage = Stage::Release;
            let id = parts[own].transaction_id(at);
            assert_eq!(parts[own].find(id), Found::Waiting(at));
            for other in (0..3).filter(|other| *other != own) {
                assert_eq!(parts[other].find(id), Found::Elsewhere(u32::try_from(own).unwrap()));
            }
        }
    }
}
