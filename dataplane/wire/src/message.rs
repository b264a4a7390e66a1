use std::net::Ipv6Addr;

use crate::{MessageType, OptionCode, Options, TransactionId, WireError};

/// HOP_COUNT_LIMIT: the largest number of relay agents a message may pass (RFC 8415 section 7.6).
pub const HOP_COUNT_LIMIT: u8 = 8;

/// A DHCPv6 datagram: the two formats are told apart by the message type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Packet<'a> {
    /// Client/server format (RFC 8415 section 8).
    Client(Message<'a>),
    /// Relay agent/server format (RFC 8415 section 9).
    Relay(RelayMessage<'a>),
}

impl<'a> Packet<'a> {
    /// Reads the header and checks the lengths of the options of the outermost level.
    ///
    /// # Errors
    /// If the header or the options do not fit into the datagram.
    pub fn parse(octets: &'a [u8]) -> Result<Self, WireError> {
        match octets.first().copied().map(MessageType) {
            Some(MessageType::RELAY_FORW | MessageType::RELAY_REPL) => {
                RelayMessage::parse(octets).map(Self::Relay)
            }
            _ => Message::parse(octets).map(Self::Client),
        }
    }
}

/// A message between client and server (RFC 8415 section 8).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Message<'a> {
    /// The message type.
    pub msg_type: MessageType,
    /// The transaction id.
    pub transaction_id: TransactionId,
    /// The options.
    pub options: Options<'a>,
}

impl<'a> Message<'a> {
    /// Octets before the options.
    pub const HEADER_LEN: usize = 4;

    /// Reads header and options.
    ///
    /// # Errors
    /// If the header or the options do not fit.
    pub fn parse(octets: &'a [u8]) -> Result<Self, WireError> {
        let Some(([msg_type, x0, x1, x2], rest)) = octets.split_first_chunk::<4>() else {
            return Err(WireError::Truncated {
                what: "message header",
                have: octets.len(),
                need: 4,
            });
        };
        Ok(Self {
            msg_type: MessageType(*msg_type),
            transaction_id: TransactionId([*x0, *x1, *x2]),
            options: Options::parse(rest)?,
        })
    }
}

/// A message between relay agent and server (RFC 8415 section 9).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RelayMessage<'a> {
    /// RELAY-FORW or RELAY-REPL.
    pub msg_type: MessageType,
    /// Relay agents passed so far.
    pub hop_count: u8,
    /// An address that tells the server the client's link, or `::`.
    pub link_address: Ipv6Addr,
    /// The client or relay agent from which the message came.
    pub peer_address: Ipv6Addr,
    /// The options; Relay Message among them.
    pub options: Options<'a>,
}

impl<'a> RelayMessage<'a> {
    /// Octets before the options.
    pub const HEADER_LEN: usize = 34;

    /// Reads header and options.
    ///
    /// # Errors
    /// If the header or the options do not fit.
    pub fn parse(octets: &'a [u8]) -> Result<Self, WireError> {
        let Some((head, rest)) = octets.split_first_chunk::<34>() else {
            let (have, need) = (octets.len(), Self::HEADER_LEN);
            return Err(WireError::Truncated { what: "relay message header", have, need });
        };
        let mut link = [0; 16];
        link.copy_from_slice(&head[2..18]);
        let mut peer = [0; 16];
        peer.copy_from_slice(&head[18..34]);
        Ok(Self {
            msg_type: MessageType(head[0]),
            hop_count: head[1],
            link_address: Ipv6Addr::from(link),
            peer_address: Ipv6Addr::from(peer),
            options: Options::parse(rest)?,
        })
    }

    /// The body of the Relay Message option: the message that was relayed.
    #[must_use]
    pub fn relayed(&self) -> Option<&'a [u8]> {
        self.options.first(OptionCode::RELAY_MSG)
    }
}
