//! The way of durable updates from the control thread to the pair thread.
//!
//! The control thread never waits for the pair thread: where there is no room, it says so, and the
//! endpoints look through the table instead. Nothing is lost, and memory is bounded.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use crossbeam::channel::{Receiver, Sender, bounded};
use gemel_worker::submit::Bell;

/// Chunks that may wait, one for each group commit.
const CHUNKS_MAX: usize = 1024;
/// Octets that may wait.
const OCTETS_MAX: usize = 16 << 20;

/// The control thread's end.
#[derive(Debug)]
pub struct Tap {
    chunks: Sender<Vec<u8>>,
    queue: Arc<Queue>,
    bell: Bell,
    /// The pair thread's own number as a worker: it knows its own updates.
    pair_worker: usize,
    chunk: Vec<u8>,
}

/// The pair thread's end.
#[derive(Debug)]
pub struct TapReceiver {
    chunks: Receiver<Vec<u8>>,
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    octets: AtomicUsize,
    missed: AtomicBool,
}

/// Both ends. `pair_worker` is the number under which the pair thread submits.
#[must_use]
pub fn tap(pair_worker: usize, bell: Bell) -> (Tap, TapReceiver) {
    let (sender, receiver) = bounded(CHUNKS_MAX);
    let queue = Arc::new(Queue::default());
    let tap =
        Tap { chunks: sender, queue: Arc::clone(&queue), bell, pair_worker, chunk: Vec::new() };
    (tap, TapReceiver { chunks: receiver, queue })
}

impl Tap {
    /// Adds durable updates that a worker has submitted; `None` for the control thread's own. They
    /// leave with [`Tap::committed`].
    pub fn add(&mut self, worker: Option<usize>, updates: &[u8]) {
        if worker != Some(self.pair_worker) {
            self.chunk.extend_from_slice(updates);
        }
    }

    /// That was all of a group commit.
    pub fn committed(&mut self) {
        if self.chunk.is_empty() {
            return;
        }
        let len = self.chunk.len();
        // The next chunk is likely to be as long.
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(len));
        let waiting = self.queue.octets.fetch_add(len, Ordering::AcqRel);
        if waiting + len > OCTETS_MAX || self.chunks.try_send(chunk).is_err() {
            self.queue.octets.fetch_sub(len, Ordering::AcqRel);
            self.queue.missed.store(true, Ordering::Release);
        }
        self.bell.ring();
    }

    /// Updates have become durable that were not added.
    pub fn missed(&mut self) {
        self.queue.missed.store(true, Ordering::Release);
        self.bell.ring();
    }
}

impl TapReceiver {
    /// The next chunk of updates.
    pub fn next(&self) -> Option<Vec<u8>> {
        let chunk = self.chunks.try_recv().ok()?;
        self.queue.octets.fetch_sub(chunk.len(), Ordering::AcqRel);
        Some(chunk)
    }

    /// Whether updates were left out since the last call.
    pub fn take_missed(&self) -> bool {
        self.queue.missed.load(Ordering::Relaxed) && self.queue.missed.swap(false, Ordering::AcqRel)
    }

    /// Octets that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.octets.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_on_what_others_have_made_durable() {
        let (bell, heard) = Bell::new();
        let (mut tap, receiver) = tap(3, bell);
        tap.add(Some(0), b"a");
        tap.add(Some(3), b"own");
        tap.add(None, b"b");
        assert_eq!(receiver.next(), None);
        tap.committed();
        tap.committed();
        assert_eq!(heard.try_recv(), Ok(()));
        assert_eq!((receiver.next(), receiver.next()), (Some(b"ab".to_vec()), None));
        tap.add(Some(1), b"kept");
        tap.committed();
        assert_eq!(receiver.waiting(), 4);
        assert_eq!(receiver.next(), Some(b"kept".to_vec()));
        assert!(!receiver.take_missed());
        tap.missed();
        assert_eq!((receiver.take_missed(), receiver.take_missed()), (true, false));
    }

    #[test]
    fn says_what_it_had_no_room_for() {
        let (bell, _heard) = Bell::new();
        let (mut tap, receiver) = tap(0, bell);
        for _ in 0..=CHUNKS_MAX {
            tap.add(None, b"x");
            tap.committed();
        }
        assert!(receiver.take_missed());
        assert_eq!(std::iter::from_fn(|| receiver.next()).count(), CHUNKS_MAX);
        assert_eq!(receiver.waiting(), 0);
        // Few, but long.
        let long = vec![0; OCTETS_MAX / 2];
        for _ in 0..3 {
            tap.add(None, &long);
            tap.committed();
        }
        assert!(receiver.take_missed());
        assert_eq!(std::iter::from_fn(|| receiver.next()).count(), 2);
        assert_eq!(receiver.waiting(), 0);
    }
}
