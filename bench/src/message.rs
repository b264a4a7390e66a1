//! The messages that clients and relay agents send.

use std::net::Ipv6Addr;

use gemel_wire::{Emitter, IaId, MessageType, OptionCode, Packet, TransactionId, WireError};

use crate::{
    client::{ClientIndex, DUID_LEN, Identity, Wanted},
    engine::Choice,
    relay::RelayPath,
};

/// What clients ask for and how it reaches the server.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Ask for an address (IA_NA).
    pub na: bool,
    /// Ask for a prefix (IA_PD).
    pub pd: bool,
    /// SOLICIT carries Rapid Commit (RFC 8415 section 21.14).
    pub rapid_commit: bool,
    /// Share of the exchanges, 0 to 1, in which a client with valid leases renews instead of
    /// starting over with SOLICIT.
    pub renew_share: f64,
    /// Which clients come, and with what.
    pub choice: Choice,
    /// The relay agents in between, if any.
    pub relay: Option<RelayPath>,
}

/// A lease named in a message: address or prefix, and the length of the prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NamedLease {
    /// The address or prefix.
    pub address: Ipv6Addr,
    /// Length of the prefix, 128 for an address.
    pub prefix_len: u8,
}

/// One message of a client, ready to be written.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// What a client sends.
    pub msg_type: MessageType,
    /// Transaction id.
    pub transaction_id: TransactionId,
    /// The client's number.
    pub client: ClientIndex,
    /// The client's identity.
    pub identity: &'a Identity,
    /// The server that is meant; none in SOLICIT, REBIND, CONFIRM and INFORMATION-REQUEST.
    pub server_id: Option<&'a [u8]>,
    /// The address to name in the IA_NA.
    pub na: Option<NamedLease>,
    /// The prefix to name in the IA_PD.
    pub pd: Option<NamedLease>,
    /// Value of the Elapsed Time option, in hundredths of a second.
    pub elapsed: u16,
}

impl Traffic {
    /// Clients that ask for an address, with four messages, of the server on their link.
    #[must_use]
    pub fn addresses(choice: Choice) -> Self {
        Self { na: true, pd: false, rapid_commit: false, renew_share: 0.0, choice, relay: None }
    }

    /// Writes the message, wrapped by the relay agents, and returns its length.
    ///
    /// # Errors
    /// If it does not fit into `buffer`.
    pub fn write(&self, message: &Outgoing<'_>, buffer: &mut [u8]) -> Result<usize, WireError> {
        let mut out = Emitter::new(buffer);
        match &self.relay {
            None => self.write_client(message, &mut out),
            Some(path) => path.wrap(message.client, message.identity, &mut out, |out| {
                self.write_client(message, out);
            }),
        }
        out.finish()
    }

    /// Options that always look alike are written in one go, with the fields that change filled in.
    fn write_client(&self, message: &Outgoing<'_>, out: &mut Emitter<'_>) {
        let kind = message.msg_type;
        out.bytes(&head(message));
        if let Some(server_id) = message.server_id {
            out.option(OptionCode::SERVER_ID, server_id);
        }
        let [high, low] = message.elapsed.to_be_bytes();
        match kind {
            MessageType::RELEASE | MessageType::DECLINE | MessageType::CONFIRM => {
                out.bytes(&[0, 8, 0, 2, high, low]);
            }
            // DNS servers, domain list, Information Refresh Time and INF_MAX_RT: the last two are what
            // RFC 8415 section 18.2.6 demands.
            MessageType::INFORMATION_REQUEST => {
                out.bytes(&[0, 8, 0, 2, high, low, 0, 6, 0, 8, 0, 23, 0, 24, 0, 32, 0, 83]);
                return;
            }
            // DNS servers and domain list, as most clients ask; SOL_MAX_RT as RFC 8415 section 18.2.1
            // demands.
            _ => out.bytes(&[0, 8, 0, 2, high, low, 0, 6, 0, 6, 0, 23, 0, 24, 0, 82]),
        }
        if self.rapid_commit && kind == MessageType::SOLICIT {
            out.bytes(&[0, 14, 0, 0]);
        }
        // CONFIRM and DECLINE are about addresses (RFC 8415 sections 18.2.3, 18.2.8).
        let prefixes = !matches!(kind, MessageType::CONFIRM | MessageType::DECLINE);
        if self.na {
            match message.na {
                Some(lease) => out.bytes(&address(message.identity.iaid_na, lease)),
                None => out.bytes(&empty_ia(OptionCode::IA_NA, message.identity.iaid_na)),
            }
        }
        if self.pd && prefixes {
            let mark = out.begin_ia(OptionCode::IA_PD, message.identity.iaid_pd, 0, 0);
            if let Some(lease) = message.pd {
                out.ia_prefix(lease.address, lease.prefix_len, 0, 0);
            }
            out.end(mark);
        }
    }

    /// Takes the relay agents' envelopes off a reply and hands back the message inside. What an
    /// envelope has to say about the client is checked by [`Traffic::envelope_matches`], once the
    /// client is known.
    ///
    /// # Errors
    /// If it cannot be read, or the nesting is not that of the requests.
    pub fn unwrap<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], EnvelopeError> {
        let mut rest = datagram;
        for level in (0..self.depth()).rev() {
            let Packet::Relay(relay) = Packet::parse(rest)? else {
                return Err(EnvelopeError::Mismatch);
            };
            if relay.msg_type != MessageType::RELAY_REPL || relay.hop_count != level {
                return Err(EnvelopeError::Mismatch);
            }
            rest = relay.relayed().ok_or(EnvelopeError::Mismatch)?;
        }
        Ok(rest)
    }

    /// Whether the envelopes carry back what the relay agents put in: link-address, peer-address
    /// and Interface-Id (RFC 8415 section 19.3).
    #[must_use]
    pub fn envelope_matches(
        &self,
        datagram: &[u8],
        client: ClientIndex,
        identity: &Identity,
    ) -> bool {
        self.relay.as_ref().is_none_or(|path| path.matches(datagram, client, identity))
    }

    /// Upper bound of the length of a message, if the server's DUID has a usual length.
    #[must_use]
    pub fn longest(&self) -> usize {
        // Header, Client Identifier, Server Identifier, Elapsed Time, options wanted, Rapid Commit.
        const COMMON: usize = 4 + (4 + 14) + (4 + 36) + 6 + (4 + 8) + 4;
        let leases = usize::from(self.na) * (16 + 28) + usize::from(self.pd) * (16 + 29);
        COMMON + leases + self.relay.as_ref().map_or(0, RelayPath::envelopes_longest)
    }

    /// What clients want to hold.
    #[inline]
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted { na: self.na, pd: self.pd }
    }

    /// How many relay agents there are.
    #[must_use]
    pub fn depth(&self) -> u8 {
        self.relay.as_ref().map_or(0, |path| path.depth)
    }
}

/// Header and Client Identifier.
fn head(message: &Outgoing<'_>) -> [u8; 8 + DUID_LEN] {
    let [x0, x1, x2] = message.transaction_id.0;
    let mut head = [0; 8 + DUID_LEN];
    let (fixed, duid) = head.split_at_mut(8);
    fixed.copy_from_slice(&[message.msg_type.0, x0, x1, x2, 0, 1, 0, 14]);
    duid.copy_from_slice(&message.identity.duid);
    head
}

/// An IA_NA with one address; T1, T2 and lifetimes are 0.
fn address(iaid: IaId, lease: NamedLease) -> [u8; 44] {
    let mut option = [0; 44];
    option[..4].copy_from_slice(&[0, 3, 0, 40]);
    option[4..8].copy_from_slice(&iaid.0.to_be_bytes());
    option[16..20].copy_from_slice(&[0, 5, 0, 24]);
    option[20..36].copy_from_slice(&lease.address.octets());
    option
}

/// An IA_NA or IA_PD without a lease.
fn empty_ia(code: OptionCode, iaid: IaId) -> [u8; 16] {
    let ([c0, c1], [i0, i1, i2, i3]) = (code.0.to_be_bytes(), iaid.0.to_be_bytes());
    [c0, c1, 0, 12, i0, i1, i2, i3, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Why a reply's relay envelopes are wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EnvelopeError {
    /// It cannot be read.
    #[error(transparent)]
    Malformed(#[from] WireError),
    /// It can be read, but is not the counterpart of what was sent.
    #[error("the relay envelopes are not those of the request")]
    Mismatch,
}

#[cfg(test)]
mod tests {
    use gemel_wire::{Ia, Message};

    use super::*;
    use crate::{client::Identities, relay::Template};

    fn traffic(depth: u8) -> Traffic {
        Traffic {
            na: true,
            pd: true,
            rapid_commit: true,
            renew_share: 0.0,
            choice: Choice::InTurn,
            relay: (depth > 0).then(|| RelayPath {
                depth,
                links: vec!["2001:db8:1::1".parse().unwrap(), "2001:db8:2::1".parse().unwrap()],
                address: "2001:db8::9".parse().unwrap(),
                remote_id: None,
                interface_id: Some(Template::new("port-{}/x")),
            }),
        }
    }

    fn solicit(traffic: &Traffic, client: u32) -> (Identity, Vec<u8>) {
        let client = ClientIndex(client);
        let identity = Identities::new(3).identity(client);
        let message = Outgoing {
            msg_type: MessageType::SOLICIT,
            transaction_id: TransactionId([1, 2, 3]),
            client,
            identity: &identity,
            server_id: None,
            na: None,
            pd: None,
            elapsed: 0,
        };
        let mut buffer = [0; 1400];
        let len = traffic.write(&message, &mut buffer).unwrap();
        (identity, buffer[..len].to_vec())
    }

    /// What a server would do to the envelopes: same contents, RELAY-REPL.
    fn turn_round(datagram: &mut [u8], depth: u8) {
        let mut at = 0;
        for level in (0..depth).rev() {
            datagram[at] = MessageType::RELAY_REPL.0;
            at += 34 + 4;
            if level == 0 {
                at += 4 + "port-4711/x".len();
            }
        }
    }

    #[test]
    fn a_solicit_reads_back() {
        let (identity, octets) = solicit(&traffic(0), 1);
        let message = Message::parse(&octets).unwrap();
        assert_eq!(message.msg_type, MessageType::SOLICIT);
        assert_eq!(message.transaction_id, TransactionId([1, 2, 3]));
        assert_eq!(message.options.first(OptionCode::CLIENT_ID), Some(&identity.duid[..]));
        assert_eq!(message.options.first(OptionCode::RAPID_COMMIT), Some(&[][..]));
        let na = Ia::parse(message.options.first(OptionCode::IA_NA).unwrap()).unwrap();
        assert_eq!(na.iaid, identity.iaid_na);
        assert!(message.options.first(OptionCode::IA_PD).is_some());
    }

    #[test]
    fn a_named_address_reads_back() {
        let traffic = Traffic { pd: false, rapid_commit: false, ..traffic(0) };
        let client = ClientIndex(9);
        let identity = Identities::new(3).identity(client);
        let lease = NamedLease { address: "2001:db8::77".parse().unwrap(), prefix_len: 128 };
        for (msg_type, server_id) in [
            (MessageType::RENEW, Some(&[0, 3, 0, 1, 9][..])),
            (MessageType::CONFIRM, None),
            (MessageType::RELEASE, Some(&[0, 3, 0, 1, 9][..])),
        ] {
            let message = Outgoing {
                msg_type,
                transaction_id: TransactionId([1, 2, 3]),
                client,
                identity: &identity,
                server_id,
                na: Some(lease),
                pd: None,
                elapsed: 0x1234,
            };
            let mut buffer = [0; 400];
            let len = traffic.write(&message, &mut buffer).unwrap();
            assert!(len <= traffic.longest());
            let read = Message::parse(&buffer[..len]).unwrap();
            let options = &read.options;
            assert_eq!(
                (read.msg_type, options.first(OptionCode::SERVER_ID)),
                (msg_type, server_id)
            );
            assert_eq!(options.first(OptionCode::ELAPSED_TIME), Some(&[0x12, 0x34][..]));
            assert_eq!(options.first(OptionCode::ORO).is_some(), msg_type == MessageType::RENEW);
            let ia = Ia::parse(options.first(OptionCode::IA_NA).unwrap()).unwrap();
            assert_eq!((ia.iaid, ia.t1, ia.t2), (identity.iaid_na, 0, 0));
            let body = ia.options.first(OptionCode::IA_ADDR).unwrap();
            let address = gemel_wire::IaAddr::parse(body).unwrap();
            assert_eq!((address.address, address.valid), (lease.address, 0));
        }
    }

    #[test]
    fn envelopes_go_round() {
        for depth in [1, 2, 8, 20] {
            let traffic = traffic(depth);
            let (identity, mut octets) = solicit(&traffic, 4711);
            assert_eq!(traffic.unwrap(&octets), Err(EnvelopeError::Mismatch), "RELAY-FORW");
            turn_round(&mut octets, depth);
            let inner = traffic.unwrap(&octets).unwrap();
            assert_eq!(Message::parse(inner).unwrap().msg_type, MessageType::SOLICIT);
            assert!(traffic.envelope_matches(&octets, ClientIndex(4711), &identity));
            assert!(!traffic.envelope_matches(&octets, ClientIndex(4712), &identity));
        }
        let (_, direct) = solicit(&traffic(0), 1);
        assert_eq!(traffic(1).unwrap(&direct), Err(EnvelopeError::Mismatch));
    }

    #[test]
    fn hops_and_links_stand_where_they_should() {
        let (identity, octets) = solicit(&traffic(2), 4711);
        let Packet::Relay(outer) = Packet::parse(&octets).unwrap() else { panic!("relayed") };
        assert_eq!((outer.hop_count, outer.link_address), (1, Ipv6Addr::UNSPECIFIED));
        let Packet::Relay(inner) = Packet::parse(outer.relayed().unwrap()).unwrap() else {
            panic!("relayed twice")
        };
        assert_eq!(inner.hop_count, 0);
        assert_eq!(inner.link_address, "2001:db8:2::1".parse::<Ipv6Addr>().unwrap());
        assert_eq!(inner.peer_address, identity.link_local());
        assert_eq!(inner.options.first(OptionCode::INTERFACE_ID), Some(&b"port-4711/x"[..]));
    }
}
