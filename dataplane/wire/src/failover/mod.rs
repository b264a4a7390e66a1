//! Messages of the DHCPv6 failover protocol (RFC 8156).
//!
//! Partners speak over one TCP connection. Each message is framed by its length (section 5.1):
//! [`FrameSplitter`] cuts the stream into messages, in whatever pieces it arrives, and
//! [`TcpMessage`] reads the header of one. [`Body`] then reads what the message must and may
//! hold and names a mandatory option that is missing; a BNDUPD and a BNDREPLY are entered lease by
//! lease, so that one bad lease can be rejected and the others taken.
//!
//! For writing, each message is a plain struct with an `emit` method that appends a whole frame
//! to an [`Emitter`](crate::Emitter). The sent-time of frames that had to wait in a queue is set
//! by [`stamp`] right before they are sent.
//!
//! ```
//! use gemel_wire::failover::{Body, FailoverTime, FrameSplitter, Header, TcpMessage};
//! use gemel_wire::{Emitter, MessageType, TransactionId};
//!
//! let mut buffer = [0; 64];
//! let mut out = Emitter::new(&mut buffer);
//! let header = Header { transaction_id: TransactionId([0, 0, 7]), sent_time: FailoverTime(99) };
//! header.emit_bare(MessageType::CONTACT, &mut out);
//! let len = out.finish().unwrap();
//!
//! let mut splitter = FrameSplitter::new(vec![0; 65_535]);
//! let mut input = &buffer[..len];
//! let frame = splitter.next_frame(&mut input).unwrap().unwrap();
//! let TcpMessage::Failover(message) = TcpMessage::parse(frame).unwrap() else { panic!() };
//! assert_eq!(message.header, header);
//! assert_eq!(Body::parse(&message), Ok(Body::Contact));
//! ```

mod binding;
mod bndreply;
mod bndupd;
mod body;
mod code;
mod connect;
mod dns;
mod error;
mod frame;
mod lease;
mod message;
mod option;
mod state;
#[cfg(test)]
mod testing;
mod time;

pub use binding::{Binding, ClientData, PrefixLease};
pub use bndreply::{Ack, BindingReply, BndReply, ClientReply, LeaseReply, PrefixReply};
pub use bndupd::{BndSubject, BndUpd};
pub use body::Body;
pub use code::{
    BindingStatus, ConnectFlags, DnsFlags, Mclt, ProtocolVersion, ServerFlags, ServerState,
};
pub use connect::{Connect, ConnectParameters, ConnectReply, Disconnect};
pub use dns::{DnsName, DnsRemovalInfo};
pub use error::FailoverError;
pub use frame::{FRAME_LEN_MAX, FrameError, FrameMark, FrameSplitter, stamp};
pub use lease::{IaHeader, IaKind, Lease, LeaseEntry, LeaseHead, LeaseState, Leases};
pub use message::{FailoverMessage, Header, StartTls, TcpMessage};
pub use option::{FailoverOption, ReconfigureData, RelationshipName, RelayData};
pub use state::StateMsg;
pub use time::{FailoverTime, SKEW_SECS_MAX};

/// TCP port on which secondary servers listen, `dhcp-failover` (RFC 8156 section 5.1).
pub const FAILOVER_PORT: u16 = 647;
