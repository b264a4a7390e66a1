//! Messages that must not leave before something is on stable storage (RFC 8156 section 7.5.2).

use std::collections::VecDeque;

use crate::outbox::Outbox;

/// Frames in the order in which they have to leave. Once one waits, all later ones queue up behind
/// it, updates too: an update may tell what another, unstored one has brought.
#[derive(Debug, Default)]
pub(super) struct Held {
    octets: VecDeque<u8>,
    /// Runs of frames that wait for the same batch.
    runs: VecDeque<Run>,
    frames: u64,
    /// The last batch with changes by the partner's updates, while it is not stored. Survives the
    /// connection: a resend that changes nothing any more has to wait for it as well.
    unstored: Option<u64>,
}

#[derive(Debug)]
struct Run {
    sequence: u64,
    len: usize,
    frames: u64,
}

impl Held {
    /// The open batch of this number has got changes.
    pub(super) fn changed(&mut self, sequence: u64) {
        self.unstored = Some(sequence);
    }

    /// Sends a frame as soon as everything is stored that has been changed so far.
    pub(super) fn send(&mut self, frame: &[u8], outbox: &mut Outbox) {
        let Some(sequence) = self.unstored else {
            outbox.frames(frame, 1);
            return;
        };
        self.octets.extend(frame);
        self.frames += 1;
        match self.runs.back_mut() {
            Some(run) if run.sequence == sequence => {
                run.len += frame.len();
                run.frames += 1;
            }
            _ => self.runs.push_back(Run { sequence, len: frame.len(), frames: 1 }),
        }
    }

    /// All batches up to this one are stored.
    pub(super) fn release(&mut self, sequence: u64, outbox: &mut Outbox) {
        if self.unstored.is_some_and(|unstored| unstored <= sequence) {
            self.unstored = None;
        }
        while let Some(run) = self.runs.pop_front_if(|run| run.sequence <= sequence) {
            let (head, tail) = self.octets.as_slices();
            let (head, rest) =
                (&head[..run.len.min(head.len())], run.len.saturating_sub(head.len()));
            outbox.frames(head, run.frames);
            outbox.frames(&tail[..rest], 0);
            self.octets.drain(..run.len);
            self.frames -= run.frames;
        }
    }

    /// Drops the frames; the connection that they were for is gone.
    pub(super) fn clear(&mut self) {
        self.octets.clear();
        self.runs.clear();
        self.frames = 0;
    }

    /// The batches up to this one are lost.
    pub(super) fn lost(&mut self, sequence: u64) {
        self.clear();
        if self.unstored.is_some_and(|unstored| unstored <= sequence) {
            self.unstored = None;
        }
    }

    pub(super) fn octets(&self) -> usize {
        self.octets.len()
    }

    pub(super) fn frames(&self) -> u64 {
        self.frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(outbox: &mut Outbox) -> Vec<u8> {
        std::mem::take(outbox.octets())
    }

    #[test]
    fn nothing_overtakes() {
        let (mut held, mut outbox) = (Held::default(), Outbox::new());
        held.send(b"a", &mut outbox);
        assert_eq!(taken(&mut outbox), b"a");
        held.changed(3);
        held.send(b"bb", &mut outbox);
        held.send(b"c", &mut outbox);
        held.changed(5);
        held.send(b"d", &mut outbox);
        assert_eq!((taken(&mut outbox), held.frames(), held.octets()), (vec![], 3, 4));
        held.release(2, &mut outbox);
        assert_eq!(taken(&mut outbox), b"");
        held.release(4, &mut outbox);
        assert_eq!(taken(&mut outbox), b"bbc");
        held.send(b"e", &mut outbox);
        assert_eq!(taken(&mut outbox), b"");
        held.release(5, &mut outbox);
        held.send(b"f", &mut outbox);
        assert_eq!((taken(&mut outbox), held.frames()), (b"def".to_vec(), 0));
        assert_eq!(outbox.take_sent(), 6);
    }

    #[test]
    fn the_unstored_batch_outlives_the_connection() {
        let (mut held, mut outbox) = (Held::default(), Outbox::new());
        held.changed(7);
        held.send(b"old", &mut outbox);
        held.clear();
        held.send(b"new", &mut outbox);
        assert_eq!(taken(&mut outbox), b"");
        held.release(7, &mut outbox);
        assert_eq!(taken(&mut outbox), b"new");
    }

    #[test]
    fn frames_may_wrap_in_the_buffer() {
        let (mut held, mut outbox) = (Held::default(), Outbox::new());
        for sequence in 0..200_u64 {
            held.changed(sequence);
            held.send(&[u8::try_from(sequence).unwrap(); 7], &mut outbox);
            if let Some(done) = sequence.checked_sub(5) {
                held.release(done, &mut outbox);
                assert_eq!(taken(&mut outbox), [u8::try_from(done).unwrap(); 7]);
            }
        }
    }
}
