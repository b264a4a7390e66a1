//! Relay agents: what they wrapped around the client's message, and the same around the reply.

use std::net::Ipv6Addr;

use gemel_wire::{
    CLIENT_PORT, Emitter, HOP_COUNT_LIMIT, Message, MessageType, OptionCode, OptionMark,
    RelayMessage, SERVER_PORT,
};

use crate::{
    DropReason, Inbound,
    link::{Link, Links},
};

/// The first relay agent writes hop-count 0, and one that would write more than HOP_COUNT_LIMIT
/// drops the message (RFC 8415 section 19.1.2).
const RELAYS_MAX: usize = HOP_COUNT_LIMIT as usize + 1;

/// What one relay agent added, so far as it matters for the reply.
#[derive(Clone, Copy, Debug)]
struct Relay<'a> {
    hop_count: u8,
    link_address: Ipv6Addr,
    peer_address: Ipv6Addr,
    interface_id: Option<&'a [u8]>,
    relay_port: Option<&'a [u8]>,
}

impl Relay<'_> {
    const NONE: Self = Self {
        hop_count: 0,
        link_address: Ipv6Addr::UNSPECIFIED,
        peer_address: Ipv6Addr::UNSPECIFIED,
        interface_id: None,
        relay_port: None,
    };
}

/// The relay agents on the way, the one nearest to the server first.
#[derive(Debug)]
pub(crate) struct Relays<'a> {
    relays: [Relay<'a>; RELAYS_MAX],
    count: usize,
}

/// Relay Message options of a reply that are still open.
#[derive(Debug)]
pub(crate) struct Wrapping {
    marks: [Option<OptionMark>; RELAYS_MAX],
}

impl<'a> Relays<'a> {
    /// No relay agents yet.
    pub(crate) const NONE: Self = Self { relays: [Relay::NONE; RELAYS_MAX], count: 0 };

    /// Unwraps a datagram down to the client's message. In place: this is too large to be handed
    /// about.
    pub(crate) fn unwrap(&mut self, payload: &'a [u8]) -> Result<Message<'a>, DropReason> {
        let mut octets = payload;
        while octets.first() == Some(&MessageType::RELAY_FORW.0) {
            let message = RelayMessage::parse(octets).map_err(|_| DropReason::Malformed)?;
            let Some(relay) = self.relays.get_mut(self.count) else {
                return Err(DropReason::HopLimit);
            };
            if message.hop_count > HOP_COUNT_LIMIT {
                return Err(DropReason::HopLimit);
            }
            *relay = Relay {
                hop_count: message.hop_count,
                link_address: message.link_address,
                peer_address: message.peer_address,
                ..Relay::NONE
            };
            let mut relayed = None;
            for option in message.options {
                let slot = match option.code {
                    OptionCode::INTERFACE_ID => &mut relay.interface_id,
                    OptionCode::RELAY_PORT => &mut relay.relay_port,
                    OptionCode::RELAY_MSG => &mut relayed,
                    _ => continue,
                };
                slot.get_or_insert(option.data);
            }
            octets = relayed.ok_or(DropReason::RelayWithoutMessage)?;
            self.count += 1;
        }
        if octets.first() == Some(&MessageType::RELAY_REPL.0) {
            // RFC 8415 section 16.14.
            return Err(DropReason::MessageForClients);
        }
        Message::parse(octets).map_err(|_| DropReason::Malformed)
    }

    fn all(&self) -> &[Relay<'a>] {
        &self.relays[..self.count]
    }

    /// Whether the message came without a relay agent.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The link that the client is on (RFC 8415 section 13.1).
    pub(crate) fn find_link<'l>(
        &self,
        links: &'l Links,
        inbound: &Inbound<'_>,
    ) -> Option<&'l Link> {
        if self.is_empty() {
            // A client that uses an address of wider scope is on the link of that address, not
            // necessarily on ours. Where no link has the address, our interface is the best guess.
            let global = !inbound.source.is_unicast_link_local();
            return global
                .then(|| links.by_client_address(inbound.source))
                .flatten()
                .or_else(|| links.by_interface(inbound.interface));
        }
        // The relay agent nearest to the client knows the link best. An Interface-Id that the
        // configuration does not name leaves the matter to the link-address.
        let by_interface_id = self.all().iter().rev().find_map(|relay| relay.interface_id);
        if let Some(link) = by_interface_id.and_then(|id| links.by_interface_id(id)) {
            return Some(link);
        }
        // RFC 6221: a link-address of zero is to be ignored.
        let relay = self.all().iter().rev().find(|relay| !relay.link_address.is_unspecified())?;
        links.by_link_address(relay.link_address)
    }

    /// The port that the reply goes to.
    pub(crate) fn destination_port(&self, source_port: u16) -> u16 {
        match self.all().first() {
            None => CLIENT_PORT,
            Some(Relay { relay_port: Some(_), .. }) => source_port,
            Some(_) => SERVER_PORT,
        }
    }

    /// Writes the RELAY-REPL headers, down to where the reply to the client begins (RFC 8415
    /// section 19.3). Interface-Id (section 21.18) and Relay Source Port (RFC 8357 section 5.2)
    /// are copied at each level, nothing else.
    pub(crate) fn begin_reply(&self, out: &mut Emitter<'_>) -> Wrapping {
        let mut marks = [const { None }; RELAYS_MAX];
        for (relay, mark) in self.all().iter().zip(&mut marks) {
            out.relay_message(
                MessageType::RELAY_REPL,
                relay.hop_count,
                relay.link_address,
                relay.peer_address,
            );
            if let Some(interface_id) = relay.interface_id {
                out.option(OptionCode::INTERFACE_ID, interface_id);
            }
            if let Some(relay_port) = relay.relay_port {
                out.option(OptionCode::RELAY_PORT, relay_port);
            }
            *mark = Some(out.begin(OptionCode::RELAY_MSG));
        }
        Wrapping { marks }
    }
}

impl Wrapping {
    /// Closes the Relay Message options, the innermost first.
    pub(crate) fn end(self, out: &mut Emitter<'_>) {
        for mark in self.marks.into_iter().rev().flatten() {
            out.end(mark);
        }
    }
}
