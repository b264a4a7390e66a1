use std::net::Ipv6Addr;

use crate::{Duid, IaId, MessageType, OptionCode, StatusCode, TransactionId, WireError};

/// Appends DHCPv6 structures to a borrowed buffer.
///
/// A write that does not fit is left out and remembered; [`Emitter::finish`] then reports
/// [`WireError::NoSpace`]. So a caller writes a whole message without a check per field.
///
/// ```
/// use gemel_wire::{Emitter, MessageType, OptionCode, TransactionId};
/// let mut buffer = [0; 64];
/// let mut out = Emitter::new(&mut buffer);
/// out.message(MessageType::SOLICIT, TransactionId([1, 2, 3]));
/// out.option(OptionCode::RAPID_COMMIT, &[]);
/// let len = out.finish().unwrap();
/// assert_eq!(&buffer[..len], [1, 1, 2, 3, 0, 14, 0, 0]);
/// ```
#[derive(Debug)]
pub struct Emitter<'a> {
    buffer: &'a mut [u8],
    len: usize,
    overflow: bool,
}

/// An option that has been begun and must be ended; made by [`Emitter::begin`].
#[derive(Debug)]
#[must_use = "an option that is not ended has no length"]
pub struct OptionMark {
    /// Where the length field stands.
    at: usize,
}

impl<'a> Emitter<'a> {
    /// Starts at the front of `buffer`.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0, overflow: false }
    }

    /// Octets written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Ends the message.
    ///
    /// # Errors
    /// [`WireError::NoSpace`] if anything did not fit, or an option outgrew its length field (65,535
    /// octets).
    pub fn finish(self) -> Result<usize, WireError> {
        if self.overflow { Err(WireError::NoSpace(self.buffer.len())) } else { Ok(self.len) }
    }

    /// Cuts back to an earlier length, to take back what has been written since. An option begun
    /// since then must not be ended any more; an overflow stays.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Appends octets as they are.
    pub fn bytes(&mut self, octets: &[u8]) {
        match self.buffer.get_mut(self.len..self.len + octets.len()) {
            Some(room) => {
                room.copy_from_slice(octets);
                self.len += octets.len();
            }
            None => self.overflow = true,
        }
    }

    /// Appends one octet.
    pub fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    /// Appends a 16-bit number in network order.
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends a 32-bit number in network order.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends an address.
    pub fn address(&mut self, address: Ipv6Addr) {
        self.bytes(&address.octets());
    }

    /// Appends the header of a client/server message (RFC 8415 section 8).
    pub fn message(&mut self, msg_type: MessageType, transaction_id: TransactionId) {
        let [x0, x1, x2] = transaction_id.0;
        self.bytes(&[msg_type.0, x0, x1, x2]);
    }

    /// Appends the header of a relay message (RFC 8415 section 9).
    pub fn relay_message(
        &mut self,
        msg_type: MessageType,
        hop_count: u8,
        link: Ipv6Addr,
        peer: Ipv6Addr,
    ) {
        self.bytes(&[msg_type.0, hop_count]);
        self.address(link);
        self.address(peer);
    }

    /// Appends a whole option.
    pub fn option(&mut self, code: OptionCode, data: &[u8]) {
        let mark = self.begin(code);
        self.bytes(data);
        self.end(mark);
    }

    /// Begins an option whose length is not known yet; options may be nested.
    pub fn begin(&mut self, code: OptionCode) -> OptionMark {
        self.u16(code.0);
        self.begin_len()
    }

    /// Leaves room for a length field of two octets, to be filled in by [`Emitter::end`].
    pub(crate) fn begin_len(&mut self) -> OptionMark {
        let at = self.len;
        self.u16(0);
        OptionMark { at }
    }

    /// Ends the option: fills in its length.
    pub fn end(&mut self, mark: OptionMark) {
        if self.overflow {
            return;
        }
        let len = self.len.checked_sub(mark.at + 2).and_then(|len| u16::try_from(len).ok());
        let Some(len) = len else {
            self.overflow = true;
            return;
        };
        self.buffer[mark.at..mark.at + 2].copy_from_slice(&len.to_be_bytes());
    }

    /// Appends a Client or Server Identifier option.
    pub fn duid(&mut self, code: OptionCode, duid: &Duid) {
        self.option(code, duid.as_bytes());
    }

    /// Begins an IA_NA or IA_PD option (RFC 8415 sections 21.4 and 21.21); times in seconds.
    pub fn begin_ia(&mut self, code: OptionCode, iaid: IaId, t1: u32, t2: u32) -> OptionMark {
        let mark = self.begin(code);
        self.u32(iaid.0);
        self.u32(t1);
        self.u32(t2);
        mark
    }

    /// Appends an IA Address option without enclosed options; lifetimes in seconds.
    pub fn ia_addr(&mut self, address: Ipv6Addr, preferred: u32, valid: u32) {
        let mark = self.begin(OptionCode::IA_ADDR);
        self.address(address);
        self.u32(preferred);
        self.u32(valid);
        self.end(mark);
    }

    /// Appends an IA Prefix option without enclosed options; lifetimes in seconds.
    pub fn ia_prefix(&mut self, prefix: Ipv6Addr, prefix_len: u8, preferred: u32, valid: u32) {
        let mark = self.begin(OptionCode::IA_PREFIX);
        self.u32(preferred);
        self.u32(valid);
        self.u8(prefix_len);
        self.address(prefix);
        self.end(mark);
    }

    /// Appends a Status Code option (RFC 8415 section 21.13).
    pub fn status(&mut self, code: StatusCode, message: &str) {
        let mark = self.begin(OptionCode::STATUS_CODE);
        self.u16(code.0);
        self.bytes(message.as_bytes());
        self.end(mark);
    }
}
