//! Moments to come, in any order and by the million: a timing wheel with two levels.

use std::mem;

/// A moment at which something is to happen to a slot, if that still has the same message out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Deadline {
    pub(super) at: u64,
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// Length of a step: 2^15 ns, 33 us.
const STEP_BITS: u32 = 15;
/// Steps of the near wheel: 2.1 s together.
const NEAR_BITS: u32 = 16;
/// Turns of the near wheel that the far one holds: 2.4 hours; what lies beyond goes round again.
const FAR_BITS: u32 = 12;

/// A deadline is handed out at its time or up to a step later, never before.
#[derive(Debug)]
pub(super) struct Timers {
    near: Vec<Vec<Deadline>>,
    far: Vec<Vec<Deadline>>,
    /// The step that is emptied next.
    step: u64,
    due: Vec<Deadline>,
    len: usize,
}

impl Timers {
    /// None; time begins at `now`.
    pub(super) fn new(now: u64) -> Self {
        Self {
            near: vec![Vec::new(); 1 << NEAR_BITS],
            far: vec![Vec::new(); 1 << FAR_BITS],
            step: now >> STEP_BITS,
            due: Vec::new(),
            len: 0,
        }
    }

    /// Adds one.
    pub(super) fn push(&mut self, deadline: Deadline) {
        self.len += 1;
        self.place(deadline);
    }

    fn place(&mut self, deadline: Deadline) {
        let step = deadline.at.div_ceil(1 << STEP_BITS).max(self.step);
        if step >> NEAR_BITS == self.step >> NEAR_BITS {
            self.near[low(step, NEAR_BITS)].push(deadline);
        } else {
            self.far[low(step >> NEAR_BITS, FAR_BITS)].push(deadline);
        }
    }

    /// One whose time has come.
    pub(super) fn pop(&mut self, now: u64) -> Option<Deadline> {
        let now = now >> STEP_BITS;
        loop {
            if let Some(deadline) = self.due.pop() {
                self.len -= 1;
                return Some(deadline);
            }
            if self.step > now {
                return None;
            }
            if self.len == 0 {
                self.step = now;
                return None;
            }
            mem::swap(&mut self.due, &mut self.near[low(self.step, NEAR_BITS)]);
            self.step += 1;
            if low(self.step, NEAR_BITS) == 0 {
                let bucket = low(self.step >> NEAR_BITS, FAR_BITS);
                for deadline in mem::take(&mut self.far[bucket]) {
                    self.place(deadline);
                }
            }
        }
    }
}

/// The low bits of a step, as an index.
fn low(step: u64, bits: u32) -> usize {
    usize::try_from(step & ((1 << bits) - 1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{client::Random, number::SECOND_NS};

    #[test]
    fn each_comes_at_its_time() {
        let mut random = Random::new(5);
        let start = 7 * SECOND_NS;
        let mut timers = Timers::new(start);
        let mut wanted = Vec::new();
        for slot in 0..5000 {
            // Up to four hours, most of them soon.
            let wait = u64::from(random.next_u32()) << (random.next_u32() % 13) >> 1;
            let deadline = Deadline { at: start + wait, slot, generation: 0 };
            wanted.push(deadline);
            timers.push(deadline);
        }
        let (mut now, mut got, mut last) = (start, Vec::new(), start);
        while got.len() < wanted.len() {
            while let Some(deadline) = timers.pop(now) {
                assert!(deadline.at <= now, "never early");
                assert!(deadline.at + (2 << STEP_BITS) > last, "{} after {last}", deadline.at);
                got.push(deadline);
            }
            last = now;
            now += 10_000_000;
            assert!(now < start + 20_000 * SECOND_NS, "{} are missing", wanted.len() - got.len());
        }
        assert_eq!(timers.len, 0);
        got.sort_by_key(|deadline| deadline.slot);
        assert_eq!(got, wanted);
    }

    #[test]
    fn one_in_the_past_comes_at_once() {
        let mut timers = Timers::new(SECOND_NS);
        assert_eq!(timers.pop(3 * SECOND_NS), None);
        let deadline = Deadline { at: 5, slot: 1, generation: 2 };
        timers.push(deadline);
        assert_eq!(timers.pop(3 * SECOND_NS), Some(deadline));
        assert_eq!(timers.pop(4 * SECOND_NS), None);
    }
}
