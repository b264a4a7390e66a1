use super::{FailoverError, FailoverTime};
use crate::{Emitter, Message, MessageType, Options, Status, StatusCode, TransactionId, WireError};

/// A message as it comes out of a frame: on a failover connection two formats meet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TcpMessage<'a> {
    /// One of the messages of RFC 8156, with a sent-time.
    Failover(FailoverMessage<'a>),
    /// The request for TLS and the answer to it, which come before everything else and have the
    /// header of RFC 8415, without a sent-time (RFC 7653 sections 6.2.2 and 8.2).
    StartTls(StartTls),
}

impl<'a> TcpMessage<'a> {
    /// Reads the header and checks the lengths of the options of the outermost level.
    ///
    /// # Errors
    /// If header or options do not fit into the frame, or the message type does not belong on a
    /// failover connection.
    pub fn parse(frame: &'a [u8]) -> Result<Self, FailoverError> {
        match frame.first().copied().map(MessageType) {
            Some(MessageType::STARTTLS | MessageType::REPLY) => {
                StartTls::parse(frame).map(Self::StartTls)
            }
            _ => FailoverMessage::parse(frame).map(Self::Failover),
        }
    }
}

/// Header of a failover message without its type (RFC 8156 section 5.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Unique among the outstanding messages of its sender; an answer repeats that of the request
    /// (section 5.4).
    pub transaction_id: TransactionId,
    /// When the message was sent, by the sender's clock. See [`stamp`](super::stamp).
    pub sent_time: FailoverTime,
}

impl Header {
    /// Appends a frame around the header and what `options` appends.
    pub fn emit<'b>(
        &self,
        msg_type: MessageType,
        out: &mut Emitter<'b>,
        options: impl FnOnce(&mut Emitter<'b>),
    ) {
        let mark = out.begin_frame();
        out.message(msg_type, self.transaction_id);
        out.u32(self.sent_time.0);
        options(out);
        out.end_frame(mark);
    }

    /// Appends a frame without options: POOLREQ, POOLRESP, UPDREQ, UPDREQALL, UPDDONE or CONTACT
    /// (sections 5.3.3 to 5.3.7 and 5.3.12).
    pub fn emit_bare(&self, msg_type: MessageType, out: &mut Emitter<'_>) {
        self.emit(msg_type, out, |_| ());
    }
}

/// A failover message: header and options (RFC 8156 section 5.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FailoverMessage<'a> {
    /// BNDUPD to CONTACT.
    pub msg_type: MessageType,
    /// Transaction id and sent-time.
    pub header: Header,
    /// The options.
    pub options: Options<'a>,
}

impl<'a> FailoverMessage<'a> {
    /// Octets before the options.
    pub const HEADER_LEN: usize = 8;

    /// Whether messages of this type have the header with a sent-time.
    #[must_use]
    pub fn is_type(msg_type: MessageType) -> bool {
        (MessageType::BNDUPD..=MessageType::CONTACT).contains(&msg_type)
    }

    /// Reads header and options.
    ///
    /// # Errors
    /// If they do not fit, or the type is not one of RFC 8156.
    pub fn parse(frame: &'a [u8]) -> Result<Self, FailoverError> {
        if let Some(msg_type) = frame.first().copied().map(MessageType)
            && !Self::is_type(msg_type)
        {
            let expected = "a failover message";
            return Err(FailoverError::UnexpectedType { expected, found: msg_type });
        }
        let Some(([msg_type, x0, x1, x2, sent_time @ ..], rest)) = frame.split_first_chunk::<8>()
        else {
            return Err(FailoverError::Wire(WireError::Truncated {
                what: "failover message header",
                have: frame.len(),
                need: Self::HEADER_LEN,
            }));
        };
        Ok(Self {
            msg_type: MessageType(*msg_type),
            header: Header {
                transaction_id: TransactionId([*x0, *x1, *x2]),
                sent_time: FailoverTime(u32::from_be_bytes(*sent_time)),
            },
            options: Options::parse(rest)?,
        })
    }

    /// Refuses other types of message.
    pub(super) fn expect(
        &self,
        msg_type: MessageType,
        expected: &'static str,
    ) -> Result<(), FailoverError> {
        if self.msg_type == msg_type {
            return Ok(());
        }
        Err(FailoverError::UnexpectedType { expected, found: self.msg_type })
    }
}

/// The messages before TLS (RFC 7653 sections 6.2.2, 8.2 and 9.1). Failover uses them with the
/// primary server as requestor (RFC 8156 section 6.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StartTls {
    /// STARTTLS: the requestor wants TLS. Its options are ignored.
    Request(TransactionId),
    /// REPLY without a status code: begin the handshake.
    Accepted(TransactionId),
    /// REPLY with a status code, mostly [`StatusCode::TLS_CONNECTION_REFUSED`].
    Refused(TransactionId, StatusCode),
}

impl StartTls {
    fn parse(frame: &[u8]) -> Result<Self, FailoverError> {
        let Message { msg_type, transaction_id, options } = Message::parse(frame)?;
        if msg_type == MessageType::STARTTLS {
            return Ok(Self::Request(transaction_id));
        }
        // A status code that cannot be read does not mean success, as it would elsewhere.
        Ok(match options.first(crate::OptionCode::STATUS_CODE).map(Status::parse).transpose()? {
            None | Some(Status { code: StatusCode::SUCCESS, .. }) => Self::Accepted(transaction_id),
            Some(status) => Self::Refused(transaction_id, status.code),
        })
    }

    /// Appends the message as a frame.
    pub fn emit(&self, out: &mut Emitter<'_>) {
        let mark = out.begin_frame();
        match *self {
            Self::Request(transaction_id) => out.message(MessageType::STARTTLS, transaction_id),
            Self::Accepted(transaction_id) => out.message(MessageType::REPLY, transaction_id),
            Self::Refused(transaction_id, code) => {
                out.message(MessageType::REPLY, transaction_id);
                out.status(code, "");
            }
        }
        out.end_frame(mark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_as_in_the_rfc() {
        let header = Header {
            transaction_id: TransactionId([0xa, 0xb, 0xc]),
            sent_time: FailoverTime(0x0102_0304),
        };
        let mut buffer = [0; 32];
        let mut out = Emitter::new(&mut buffer);
        header.emit_bare(MessageType::UPDREQALL, &mut out);
        header.emit(MessageType::DISCONNECT, &mut out, |out| {
            out.status(StatusCode::SERVER_SHUTTING_DOWN, "");
        });
        let len = out.finish().unwrap();
        let first = [0, 8, 29, 0xa, 0xb, 0xc, 1, 2, 3, 4];
        let second = [0, 14, 33, 0xa, 0xb, 0xc, 1, 2, 3, 4, 0, 13, 0, 2, 0, 20];
        assert_eq!(&buffer[..len], [&first[..], &second].concat());

        let TcpMessage::Failover(message) = TcpMessage::parse(&second[2..]).unwrap() else {
            panic!("not a failover message")
        };
        assert_eq!((message.msg_type, message.header), (MessageType::DISCONNECT, header));
        assert_eq!(Status::of(&message.options), StatusCode::SERVER_SHUTTING_DOWN);
    }

    #[test]
    fn starttls_has_no_sent_time() {
        let xid = TransactionId([1, 2, 3]);
        for (message, octets) in [
            (StartTls::Request(xid), &[0, 4, 23, 1, 2, 3][..]),
            (StartTls::Accepted(xid), &[0, 4, 7, 1, 2, 3]),
            (
                StartTls::Refused(xid, StatusCode::TLS_CONNECTION_REFUSED),
                &[0, 10, 7, 1, 2, 3, 0, 13, 0, 2, 0, 15],
            ),
        ] {
            let mut buffer = [0; 16];
            let mut out = Emitter::new(&mut buffer);
            message.emit(&mut out);
            let len = out.finish().unwrap();
            assert_eq!(&buffer[..len], octets);
            assert_eq!(TcpMessage::parse(&octets[2..]), Ok(TcpMessage::StartTls(message)));
        }
        // An unreadable status code is not taken for success.
        assert!(TcpMessage::parse(&[7, 1, 2, 3, 0, 13, 0, 1, 0]).is_err());
    }

    #[test]
    fn refuses_other_types_and_short_headers() {
        for msg_type in [0, 1, 6, 8, 22, 36, 255] {
            let error = TcpMessage::parse(&[msg_type, 1, 2, 3, 4, 5, 6, 7]).unwrap_err();
            assert!(matches!(error, FailoverError::UnexpectedType { .. }), "{error}");
        }
        for len in 0..8 {
            let error = TcpMessage::parse(&[24, 1, 2, 3, 4, 5, 6, 7][..len]).unwrap_err();
            assert!(matches!(error, FailoverError::Wire(_)), "{error}");
        }
    }
}
