//! What is going to happen: events in the order of their time, then of their making.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::Micros;

/// When something happens, and which of all that was ever planned it is.
type Turn = (Micros, u64);

/// Events that wait for their time. Most of what happens in a run is a few alarms that are set again
/// and again: these do not go through the heap, of which the events themselves stay out as well.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Reverse<(Turn, u32)>>,
    events: Vec<Option<E>>,
    /// Places in `events` that are empty.
    vacant: Vec<u32>,
    alarms: [(Turn, Option<E>); ALARMS],
    /// The alarm that is due first.
    next_alarm: usize,
    made: u64,
}

/// Number of alarms.
pub(crate) const ALARMS: usize = 6;

/// When nothing happens.
const NEVER: Turn = (Micros::MAX, u64::MAX);

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            events: Vec::new(),
            vacant: Vec::new(),
            alarms: std::array::from_fn(|_| (NEVER, None)),
            next_alarm: 0,
            made: 0,
        }
    }

    pub(crate) fn push(&mut self, at: Micros, event: E) {
        let turn = self.turn(at);
        let place = if let Some(place) = self.vacant.pop() {
            self.events[place as usize] = Some(event);
            place
        } else {
            self.events.push(Some(event));
            u32::try_from(self.events.len() - 1).expect("far fewer events wait at once")
        };
        self.heap.push(Reverse((turn, place)));
    }

    /// Sets an alarm; what it was set to before does not happen.
    pub(crate) fn set(&mut self, alarm: usize, at: Micros, event: E) {
        self.alarms[alarm] = (self.turn(at), Some(event));
        self.find_next_alarm();
    }

    /// The next event that happens at `until` at the latest.
    pub(crate) fn pop(&mut self, until: Micros) -> Option<(Micros, E)> {
        let alarm = self.alarms[self.next_alarm].0;
        let first = self.heap.peek().map_or(NEVER, |Reverse((turn, _))| *turn);
        let at = alarm.min(first).0;
        if at > until {
            return None;
        }
        if alarm < first {
            let (turn, event) = &mut self.alarms[self.next_alarm];
            *turn = NEVER;
            let event = event.take();
            self.find_next_alarm();
            return event.map(|event| (at, event));
        }
        let Reverse((_, place)) = self.heap.pop()?;
        self.vacant.push(place);
        self.events[place as usize].take().map(|event| (at, event))
    }

    fn turn(&mut self, at: Micros) -> Turn {
        self.made += 1;
        (at, self.made)
    }

    fn find_next_alarm(&mut self) {
        let mut next = 0;
        for alarm in 1..ALARMS {
            if self.alarms[alarm].0 < self.alarms[next].0 {
                next = alarm;
            }
        }
        self.next_alarm = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_time_then_in_order() {
        let mut queue = Queue::new();
        for (at, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (1, 'b'), (9, 'e')] {
            queue.push(at, event);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(5)).collect();
        assert_eq!(order, [(1, 'a'), (1, 'b'), (5, 'c'), (5, 'd')]);
        assert_eq!(queue.pop(9), Some((9, 'e')));
        assert_eq!(queue.pop(Micros::MAX - 1), None);
    }

    #[test]
    fn alarms_come_in_their_turn_and_once() {
        let mut queue = Queue::new();
        queue.push(2, 'a');
        queue.set(1, 2, 'b');
        queue.set(0, 9, 'x');
        queue.push(2, 'c');
        queue.set(0, 3, 'd');
        queue.set(ALARMS - 1, 1, '0');
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(10)).collect();
        assert_eq!(order, [(1, '0'), (2, 'a'), (2, 'b'), (2, 'c'), (3, 'd')]);
        queue.set(0, 11, 'e');
        assert_eq!((queue.pop(10), queue.pop(11)), (None, Some((11, 'e'))));
    }
}
