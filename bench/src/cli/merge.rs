//! Brings the intervals of several threads together while they run.

use std::collections::VecDeque;

use crate::stats::Interval;

/// Sums up the n-th intervals of all threads and hands each sum on when the last thread has reported.
pub(super) struct Merge<'a> {
    /// How many intervals each thread has reported.
    reported: Vec<usize>,
    /// How many have been handed on.
    shown: usize,
    /// The sums of those that have not.
    pending: VecDeque<Interval>,
    show: &'a mut (dyn FnMut(&Interval) + Send),
}

impl<'a> Merge<'a> {
    pub(super) fn new(threads: usize, show: &'a mut (dyn FnMut(&Interval) + Send)) -> Self {
        Self { reported: vec![0; threads], shown: 0, pending: VecDeque::new(), show }
    }

    /// Takes the next interval of a thread.
    pub(super) fn add(&mut self, thread: usize, interval: &Interval) {
        let place = self.reported[thread] - self.shown;
        self.reported[thread] += 1;
        match self.pending.get_mut(place) {
            Some(sum) => sum.add(interval),
            None => self.pending.push_back(*interval),
        }
        while self.reported.iter().all(|reported| *reported > self.shown) {
            let Some(interval) = self.pending.pop_front() else { return };
            self.shown += 1;
            (self.show)(&interval);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_shown_when_all_have_reported_it() {
        let mut shown = Vec::new();
        let mut show = |interval: &Interval| shown.push((interval.at_s, interval.started));
        let mut merge = Merge::new(2, &mut show);
        let interval = |at_s, started| Interval { at_s, started, ..Interval::default() };
        merge.add(0, &interval(1.0, 1));
        merge.add(0, &interval(2.0, 2));
        merge.add(1, &interval(1.9, 10));
        merge.add(1, &interval(2.1, 20));
        merge.add(1, &interval(3.0, 30));
        assert_eq!(shown, [(1.9, 11), (2.1, 22)], "the third one is not complete");
    }
}
