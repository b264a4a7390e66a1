//! The updates that the partner has not answered yet (RFC 8156 section 5.5.5).

use std::{collections::VecDeque, time::Duration};

use gemel_lease::{AbsoluteTime, BindingStatus, Lease};
use gemel_wire::TransactionId;

/// One lease in a BNDUPD.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Item {
    pub(super) lease: Lease,
    pub(super) stamp: u64,
    pub(super) status: BindingStatus,
    /// OPTION_F_PARTNER_LIFETIME.
    pub(super) partner_lifetime: Option<AbsoluteTime>,
}

/// An answered BNDUPD.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Answered {
    /// Who sent it; see [`Window::push`].
    pub(super) tag: u32,
    first: u64,
    count: usize,
}

#[derive(Debug)]
struct Entry {
    id: u32,
    sent: Duration,
    answered: Answered,
    is_answered: bool,
}

/// BNDUPD messages in the order in which they were sent.
#[derive(Debug, Default)]
pub(super) struct Window {
    entries: VecDeque<Entry>,
    items: VecDeque<Item>,
    /// Items that have been removed in front.
    items_before: u64,
    /// Entries that have been removed in front.
    entries_before: u64,
    unanswered: usize,
    limit: usize,
}

/// Transaction ids have 24 bits.
const ID_MASK: u32 = 0x00ff_ffff;

fn number(TransactionId([a, b, c]): TransactionId) -> u32 {
    u32::from_be_bytes([0, a, b, c])
}

impl Window {
    /// Forgets everything.
    pub(super) fn reset(&mut self, limit: usize) {
        *self = Self {
            entries: std::mem::take(&mut self.entries),
            items: std::mem::take(&mut self.items),
            limit,
            ..Self::default()
        };
        self.entries.clear();
        self.items.clear();
    }

    /// Whether another message may be sent. A partner that answers all but the oldest ones does not
    /// make the list grow for ever either.
    pub(super) fn has_room(&self) -> bool {
        self.unanswered < self.limit && self.entries.len() < 4 * self.limit
    }

    /// Number of messages without an answer.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// A message is being sent. Ids come in the order of [`Outbox::next_id`]. The tag says for what
    /// the message is.
    ///
    /// [`Outbox::next_id`]: crate::outbox::Outbox::next_id
    pub(super) fn push(
        &mut self,
        id: TransactionId,
        sent: Duration,
        tag: u32,
        items: impl IntoIterator<Item = Item>,
    ) {
        let before = self.items.len();
        let first = self.items_before + before as u64;
        self.items.extend(items);
        let answered = Answered { tag, first, count: self.items.len() - before };
        self.entries.push_back(Entry { id: number(id), sent, answered, is_answered: false });
        self.unanswered += 1;
    }

    /// The message with this id, if it waits for its answer.
    pub(super) fn answer(&mut self, id: TransactionId) -> Option<Answered> {
        let base = self.entries.front()?.id;
        let distance = |id: u32| id.wrapping_sub(base) & ID_MASK;
        let wanted = distance(number(id));
        let at = self.entries.partition_point(|entry| distance(entry.id) < wanted);
        let entry = self.entries.get_mut(at)?;
        if distance(entry.id) != wanted || entry.is_answered {
            return None;
        }
        entry.is_answered = true;
        self.unanswered -= 1;
        Some(entry.answered)
    }

    /// The lease at `index` in an answered message, while that is not yet forgotten.
    pub(super) fn item(&self, answered: Answered, index: usize) -> Option<Item> {
        let first = usize::try_from(answered.first - self.items_before).ok()?;
        (index < answered.count).then(|| self.items.get(first + index).copied())?
    }

    /// Forgets the answered messages at the front.
    pub(super) fn forget_answered(&mut self) {
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.is_answered) {
            self.items.drain(..entry.answered.count);
            self.items_before += entry.answered.count as u64;
            self.entries_before += 1;
        }
    }

    /// When the oldest message without an answer was sent.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.entries.front().map(|entry| entry.sent)
    }

    /// A point in the order of messages: all that have been sent so far.
    pub(super) fn mark(&self) -> u64 {
        self.entries_before + self.entries.len() as u64
    }

    /// Whether everything before the mark is answered.
    pub(super) fn has_passed(&self, mark: u64) -> bool {
        self.entries_before >= mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> TransactionId {
        let [_, id @ ..] = (number & ID_MASK).to_be_bytes();
        TransactionId(id)
    }

    fn item(stamp: u64) -> Item {
        let lease = Lease::address(std::net::Ipv6Addr::from_bits(stamp.into()));
        Item { lease, stamp, status: BindingStatus::Active, partner_lifetime: None }
    }

    #[test]
    fn answers_in_any_order_and_over_the_end_of_the_ids() {
        let mut window = Window::default();
        window.reset(3);
        // Some ids in between went to other messages.
        for (at, number) in [ID_MASK - 2, ID_MASK, 1].into_iter().enumerate() {
            assert!(window.has_room());
            let stamp = 10 * at as u64;
            window.push(
                id(number),
                Duration::from_secs(at as u64),
                7,
                [item(stamp), item(stamp + 1)],
            );
        }
        assert!(!window.has_room());
        let mark = window.mark();
        assert_eq!(window.answer(id(0)), None);
        let last = window.answer(id(1)).unwrap();
        assert_eq!((window.item(last, 1), window.item(last, 2)), (Some(item(21)), None));
        assert_eq!(window.answer(id(1)), None, "answered twice");
        window.forget_answered();
        assert_eq!((window.oldest(), window.has_passed(mark)), (Some(Duration::ZERO), false));
        let first = window.answer(id(ID_MASK - 2)).unwrap();
        assert_eq!((first.tag, window.item(first, 0)), (7, Some(item(0))));
        window.forget_answered();
        assert_eq!(window.oldest(), Some(Duration::from_secs(1)));
        let second = window.answer(id(ID_MASK)).unwrap();
        assert_eq!(window.item(second, 0), Some(item(10)));
        window.forget_answered();
        assert_eq!((window.oldest(), window.unanswered()), (None, 0));
        assert!(window.has_passed(mark));
    }

    #[test]
    fn a_gap_at_the_front_bounds_the_list() {
        let mut window = Window::default();
        window.reset(2);
        window.push(id(1), Duration::ZERO, 0, [item(1)]);
        let mut sent = 1;
        while window.has_room() {
            sent += 1;
            window.push(id(sent), Duration::ZERO, 0, [item(1)]);
            assert!(window.answer(id(sent)).is_some());
            window.forget_answered();
        }
        assert_eq!(sent, 8);
    }
}
