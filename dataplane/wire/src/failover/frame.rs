use super::{FailoverMessage, FailoverTime};
use crate::{Emitter, MessageType, OptionMark};

/// The longest message: its size is two octets on the wire (RFC 5460 section 5.1).
pub const FRAME_LEN_MAX: usize = 65_535;

/// A frame has announced more than the receiver is willing to hold. The stream cannot be read any
/// further: drop the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a message of {claimed} octets is announced, at most {len_max} are accepted")]
pub struct FrameError {
    /// What the message-size field says.
    pub claimed: usize,
    /// The length of the receiver's buffer.
    pub len_max: usize,
}

/// Cuts a byte stream into messages (framing: RFC 8156 section 5.1, RFC 5460 section 5.1).
///
/// Call [`FrameSplitter::next_frame`] with each piece that arrives until it gives `None`. A message
/// that lies in one piece is handed out in place; only a message that is spread over several is
/// put together in the buffer given to [`FrameSplitter::new`], each octet being copied once. The
/// frames before TLS (STARTTLS and the answer to it) have the same form.
///
/// ```
/// # use gemel_wire::failover::FrameSplitter;
/// let mut splitter = FrameSplitter::new([0; 16]);
/// let mut frames = Vec::new();
/// for mut piece in [&[0, 2, 8, 9, 0][..], &[1], &[7]] {
///     while let Some(frame) = splitter.next_frame(&mut piece).unwrap() {
///         frames.push(frame.to_vec());
///     }
/// }
/// assert_eq!(frames, [vec![8, 9], vec![7]]);
/// ```
#[derive(Clone, Debug)]
pub struct FrameSplitter<B> {
    buffer: B,
    /// The message-size field, as far as it has arrived.
    size: [u8; 2],
    /// Octets of the current frame that are held, the message-size field included.
    held: usize,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> FrameSplitter<B> {
    /// Starts at the beginning of a stream. The length of `buffer` bounds the messages that are
    /// accepted; [`FRAME_LEN_MAX`] octets take every one.
    pub fn new(buffer: B) -> Self {
        Self { buffer, size: [0; 2], held: 0 }
    }

    /// The next whole message without its size field, or `None` when `input` is used up; what it
    /// held of the next message is kept then. What has been read is cut off the front of `input`.
    ///
    /// # Errors
    /// [`FrameError`] as soon as the size field of a message is known that is longer than the
    /// buffer. Later calls give the same error.
    pub fn next_frame<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<&'s [u8]>, FrameError> {
        while self.held < 2 {
            let Some((octet, rest)) = input.split_first() else { return Ok(None) };
            self.size[self.held] = *octet;
            self.held += 1;
            *input = rest;
        }
        let len = usize::from(u16::from_be_bytes(self.size));
        let len_max = self.buffer.as_ref().len();
        if len > len_max {
            return Err(FrameError { claimed: len, len_max });
        }
        let begun = self.held - 2;
        if begun == 0
            && let Some((frame, rest)) = input.split_at_checked(len)
        {
            self.held = 0;
            *input = rest;
            return Ok(Some(frame));
        }
        let (part, rest) = input.split_at(input.len().min(len - begun));
        let end = begun + part.len();
        self.buffer.as_mut()[begun..end].copy_from_slice(part);
        *input = rest;
        if end < len {
            self.held = end + 2;
            return Ok(None);
        }
        self.held = 0;
        Ok(Some(&self.buffer.as_ref()[..len]))
    }

    /// Octets held of a message that is not complete. Anything but 0 at the end of the stream
    /// means that the partner has been cut off.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.held
    }
}

/// A frame that has been begun and must be ended; made by [`Emitter::begin_frame`].
#[derive(Debug)]
#[must_use = "a frame that is not ended has no length"]
pub struct FrameMark(OptionMark);

impl Emitter<'_> {
    /// Begins a frame on a TCP connection: leaves room for its message-size field (RFC 5460
    /// section 5.1).
    pub fn begin_frame(&mut self) -> FrameMark {
        FrameMark(self.begin_len())
    }

    /// Ends the frame: fills in its size.
    pub fn end_frame(&mut self, mark: FrameMark) {
        self.end(mark.0);
    }
}

/// Sets the sent-time of all failover messages in `frames`, a sequence of whole frames that is
/// about to be sent (RFC 8156 section 5.2: as close to transmission as practical). Other messages,
/// and a frame that is cut off at the end, are left alone.
pub fn stamp(frames: &mut [u8], now: FailoverTime) {
    let mut rest = frames;
    while let Some((size, tail)) = rest.split_first_chunk_mut::<2>() {
        let len = usize::from(u16::from_be_bytes(*size));
        let Some((frame, next)) = tail.split_at_mut_checked(len) else { return };
        if let [msg_type, _, _, _, t0, t1, t2, t3, ..] = frame
            && FailoverMessage::is_type(MessageType(*msg_type))
        {
            [*t0, *t1, *t2, *t3] = now.0.to_be_bytes();
        }
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames that lie in the input are not copied: they point into it.
    #[test]
    fn whole_frames_stay_in_place() {
        let stream = [0, 3, 1, 2, 3, 0, 0, 0, 1, 9, 0];
        let mut splitter = FrameSplitter::new([0; 4]);
        let mut input = &stream[..];
        let frame = splitter.next_frame(&mut input).unwrap().unwrap();
        assert!(std::ptr::eq(frame, &raw const stream[2..5]));
        assert_eq!(splitter.next_frame(&mut input), Ok(Some(&[][..])));
        assert_eq!(splitter.next_frame(&mut input), Ok(Some(&[9][..])));
        assert_eq!(splitter.next_frame(&mut input), Ok(None));
        assert_eq!((splitter.pending(), input.len()), (1, 0));
    }

    #[test]
    fn octet_by_octet() {
        let stream = [0, 3, 1, 2, 3, 0, 0, 0, 2, 9, 8];
        let mut splitter = FrameSplitter::new(vec![0; 3]);
        let mut frames = Vec::new();
        for octet in &stream {
            let mut input = std::slice::from_ref(octet);
            while let Some(frame) = splitter.next_frame(&mut input).unwrap() {
                frames.push(frame.to_vec());
            }
        }
        assert_eq!(frames, [vec![1, 2, 3], vec![], vec![9, 8]]);
        assert_eq!(splitter.pending(), 0);
    }

    #[test]
    fn too_long_is_an_error_that_stays() {
        let mut splitter = FrameSplitter::new([0; 4]);
        let error = Err(FrameError { claimed: 5, len_max: 4 });
        assert_eq!(splitter.next_frame(&mut &[0][..]), Ok(None));
        assert_eq!(splitter.next_frame(&mut &[5, 1][..]), error);
        assert_eq!(splitter.next_frame(&mut &[1][..]), error);
    }

    #[test]
    fn longest_frame() {
        let body = vec![7; FRAME_LEN_MAX];
        let mut buffer = vec![0; 70_000];
        let mut out = Emitter::new(&mut buffer);
        let mark = out.begin_frame();
        out.bytes(&body);
        out.end_frame(mark);
        let len = out.finish().unwrap();
        let mut splitter = FrameSplitter::new(vec![0; FRAME_LEN_MAX]);
        let (mut first, mut second) = buffer[..len].split_at(30_000);
        assert_eq!(splitter.next_frame(&mut first), Ok(None));
        assert_eq!(splitter.next_frame(&mut second), Ok(Some(&body[..])));

        let mut out = Emitter::new(&mut buffer);
        let mark = out.begin_frame();
        out.bytes(&vec![7; FRAME_LEN_MAX + 1]);
        out.end_frame(mark);
        assert!(out.finish().is_err());
    }

    #[test]
    fn stamp_touches_failover_messages_only() {
        // STARTTLS, CONTACT, a CONTACT without room for its sent-time, CONTACT, one cut off.
        let mut frames = [
            [0, 8, 23, 0, 0, 1, 5, 5, 5, 5].as_slice(),
            &[0, 8, 35, 0, 0, 2, 5, 5, 5, 5],
            &[0, 7, 35, 0, 0, 3, 5, 5, 5],
            &[0, 9, 35, 0, 0, 4, 5, 5, 5, 5, 6],
            &[0, 9, 35, 0, 0, 5, 5, 5, 5, 5],
        ]
        .concat();
        let mut expected = frames.clone();
        expected[16..20].copy_from_slice(&[1, 2, 3, 4]);
        expected[35..39].copy_from_slice(&[1, 2, 3, 4]);
        stamp(&mut frames, FailoverTime(0x0102_0304));
        assert_eq!(frames, expected);
    }
}
