use gemel_wire::{
    Emitter, MessageType, TransactionId,
    failover::{FRAME_LEN_MAX, FailoverTime, Header},
};

use crate::Now;

/// Frames that wait to be sent, and the transaction ids of this server's messages (section 5.4).
#[derive(Debug)]
pub(crate) struct Outbox {
    octets: Vec<u8>,
    scratch: Box<[u8]>,
    last_id: u32,
    /// The UPDREQ or UPDREQALL that is outstanding; its id must not be used again meanwhile.
    reserved: Option<TransactionId>,
    /// Messages put in since the counter was last taken.
    sent: u64,
}

/// Octets that may wait before no new updates are made.
const ROOM: usize = 256 << 10;

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            octets: Vec::with_capacity(ROOM),
            scratch: vec![0; 2 + FRAME_LEN_MAX].into(),
            last_id: 0,
            reserved: None,
            sent: 0,
        }
    }

    /// Forgets everything: a new connection begins.
    pub(crate) fn clear(&mut self) {
        self.octets.clear();
        self.reserved = None;
    }

    /// Whether there is room for more updates.
    pub(crate) fn has_room(&self) -> bool {
        self.octets.len() < ROOM
    }

    /// The frames, for the driver to drain.
    pub(crate) fn octets(&mut self) -> &mut Vec<u8> {
        &mut self.octets
    }

    /// Messages put in since the last call.
    pub(crate) fn take_sent(&mut self) -> u64 {
        std::mem::take(&mut self.sent)
    }

    /// Whether messages have been put in since then.
    pub(crate) fn has_sent(&self) -> bool {
        self.sent > 0
    }

    /// An id for a message that this server begins.
    pub(crate) fn next_id(&mut self) -> TransactionId {
        loop {
            self.last_id = self.last_id.wrapping_add(1) & 0x00ff_ffff;
            let [_, id @ ..] = self.last_id.to_be_bytes();
            let id = TransactionId(id);
            if Some(id) != self.reserved {
                return id;
            }
        }
    }

    /// Keeps the id of an UPDREQ or UPDREQALL from being used until its UPDDONE.
    pub(crate) fn reserve(&mut self, id: Option<TransactionId>) {
        self.reserved = id;
    }

    /// Puts a message in. `emit` appends one whole frame under the header.
    pub(crate) fn message(
        &mut self,
        transaction_id: TransactionId,
        now: Now,
        emit: impl FnOnce(Header, &mut Emitter<'_>),
    ) {
        let header = Header { transaction_id, sent_time: FailoverTime(now.wall.0) };
        let mut out = Emitter::new(&mut self.scratch);
        emit(header, &mut out);
        // What we make is bounded well below the longest frame: a client has few leases.
        let len = out.finish().expect("a message of ours fits into a frame");
        self.octets.extend_from_slice(&self.scratch[..len]);
        self.sent += 1;
    }

    /// Puts whole frames in that had to wait for something else.
    pub(crate) fn frames(&mut self, octets: &[u8], count: u64) {
        self.octets.extend_from_slice(octets);
        self.sent += count;
    }

    /// Puts a message without options in.
    pub(crate) fn bare(&mut self, msg_type: MessageType, transaction_id: TransactionId, now: Now) {
        self.message(transaction_id, now, |header, out| header.emit_bare(msg_type, out));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gemel_lease::AbsoluteTime;

    use super::*;

    #[test]
    fn ids_count_up_and_leave_out_the_reserved_one() {
        let mut outbox = Outbox::new();
        assert_eq!(outbox.next_id(), TransactionId([0, 0, 1]));
        outbox.reserve(Some(TransactionId([0, 0, 2])));
        assert_eq!(outbox.next_id(), TransactionId([0, 0, 3]));
        outbox.last_id = 0x00ff_ffff;
        assert_eq!(outbox.next_id(), TransactionId([0, 0, 0]));
    }

    #[test]
    fn messages_are_whole_frames() {
        let mut outbox = Outbox::new();
        let now = Now { wall: AbsoluteTime(5), monotonic: Duration::ZERO };
        outbox.bare(MessageType::CONTACT, TransactionId([0, 0, 9]), now);
        assert_eq!(outbox.octets()[..], [0, 8, 35, 0, 0, 9, 0, 0, 0, 5]);
        assert_eq!((outbox.take_sent(), outbox.take_sent()), (1, 0));
        outbox.clear();
        assert!(outbox.octets().is_empty() && outbox.has_room());
    }
}
