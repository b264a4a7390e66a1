use std::{fmt, net::Ipv6Addr};

use gemel_wire::MessageType;

/// A datagram as it came in, with what the rules need to know of its headers.
#[derive(Clone, Copy, Debug)]
pub struct Inbound<'a> {
    /// The UDP payload.
    pub payload: &'a [u8],
    /// Source address of the IP header: the client or the last relay agent.
    pub source: Ipv6Addr,
    /// Source port of the UDP header.
    pub source_port: u16,
    /// Destination address of the IP header.
    pub destination: Ipv6Addr,
    /// Index of the interface on which it arrived.
    pub interface: u32,
}

/// What the store allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Service {
    /// Updates can be stored.
    Full,
    /// Updates cannot be stored at present: nothing is granted or changed. Clients whose active
    /// bindings are stored hear the remaining lifetimes; what needs no write is answered.
    ReadOnly,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use = "a reply has to be sent, a drop has to be counted"]
pub enum Outcome {
    /// The reply stands in the caller's buffer.
    Reply(ReplyInfo),
    /// No reply. Updates that were pushed before the reason arose
    /// ([`DropReason::ReplyTooLarge`] alone) stand, and have to be stored all the same.
    Drop(DropReason),
}

/// A reply that is ready to be sent to the source address of the message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReplyInfo {
    /// Octets of the reply.
    pub len: usize,
    /// Where to send it: 546 for a client, 547 for a relay agent, or the relay agent's own source
    /// port where it has asked for that (RFC 8357 section 5.2).
    pub destination_port: u16,
    /// Type of the client's message, relays stripped.
    pub request: MessageType,
    /// Type of the answer to the client, relays stripped.
    pub reply: MessageType,
    /// Whether updates were pushed, so that the reply must wait until they are stored.
    pub held: bool,
}

macro_rules! drop_reasons {
    ($($(#[$meta:meta])* $name:ident = $text:literal;)*) => {
        /// Why a message was not answered: one value per cause.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$meta])* $name,)*
        }

        impl DropReason {
            /// All reasons, in the order of [`DropReason::index`].
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Dense index from 0, for an array of counters.
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }

            /// The name as a metric label.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// A header, an option or an identity association does not fit its length.
    Malformed = "malformed";
    /// The message type is in no registry that this server knows (RFC 8415 section 16).
    UnknownMessageType = "unknown_message_type";
    /// ADVERTISE, REPLY, RECONFIGURE, RELAY-REPL and the answers to leasequery are for others
    /// (RFC 8415 sections 16.3, 16.10, 16.11, 16.14).
    MessageForClients = "message_for_clients";
    /// A leasequery (RFC 5007), which these rules do not answer.
    Leasequery = "leasequery";
    /// No Client Identifier where there must be one (RFC 8415 section 16).
    NoClientId = "no_client_id";
    /// The Client Identifier is shorter than 3 or longer than 130 octets (RFC 8415 section 11.1).
    ClientIdLength = "client_id_length";
    /// A SOLICIT, CONFIRM or REBIND with a Server Identifier (RFC 8415 sections 16.2, 16.5, 16.7).
    UnexpectedServerId = "unexpected_server_id";
    /// A REQUEST, RENEW, RELEASE or DECLINE without Server Identifier.
    MissingServerId = "missing_server_id";
    /// The message is for another server.
    ServerIdMismatch = "server_id_mismatch";
    /// An INFORMATION-REQUEST with an IA option (RFC 8415 section 16.12).
    InformationRequestWithIa = "information_request_with_ia";
    /// A client's message came straight to a unicast address, and the configuration refuses that.
    Unicast = "unicast";
    /// No configured link matches.
    NoLink = "no_link";
    /// More relay agents than HOP_COUNT_LIMIT allows (RFC 8415 section 7.6).
    HopLimit = "hop_limit";
    /// A RELAY-FORW without Relay Message option.
    RelayWithoutMessage = "relay_without_message";
    /// More identity associations than a message may have here.
    TooManyIas = "too_many_ias";
    /// A CONFIRM without addresses, or for a link whose prefixes are not known
    /// (RFC 8415 section 18.3.3: no reply).
    NothingToConfirm = "nothing_to_confirm";
    /// A REBIND about nothing that this server knows: another may (RFC 8415 section 18.3.5).
    RebindUnknown = "rebind_unknown";
    /// The answer would need a write, and the store cannot write.
    StoreReadOnly = "store_read_only";
    /// The reply does not fit into the buffer.
    ReplyTooLarge = "reply_too_large";
    /// The failover state forbids to answer anything (RFC 8156 section 8.1).
    FailoverUnresponsive = "failover_unresponsive";
    /// The failover state leaves this message to the partner (RFC 8156 sections 8.7 and 8.8).
    FailoverStandby = "failover_standby";
    /// The bindings are still being read back after a start, and the answer needs all of them, or one
    /// that is not known.
    Warming = "warming";
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn reasons_are_dense_and_labels_distinct() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index);
            assert!(reason.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
        let labels: HashSet<_> = DropReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(labels.len(), DropReason::COUNT);
    }
}
