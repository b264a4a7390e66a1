//! The relay agents between the clients and the server.

use std::net::Ipv6Addr;

use gemel_wire::{Emitter, MessageType, OptionCode, OptionMark, Packet};

use crate::{
    client::{ClientIndex, Identity},
    number::{index, low32},
};

/// The deepest chain of relay agents that can be played. RFC 8415 section 7.6 lets a server drop
/// what has passed more than 8; how it bears that can be tried.
pub const RELAY_DEPTH_MAX: usize = 32;

/// Remote-Id, RFC 4649.
const REMOTE_ID: OptionCode = OptionCode(37);

/// A chain of relay agents, all played from one address.
#[derive(Clone, Debug)]
pub struct RelayPath {
    /// How many, 1 to [`RELAY_DEPTH_MAX`].
    pub depth: u8,
    /// The link-addresses of the innermost relay agent; client i is on link i modulo their number.
    pub links: Vec<Ipv6Addr>,
    /// The address from which the relay agents send.
    pub address: Ipv6Addr,
    /// Interface-Id of the innermost relay agent, or of all if it has `{relay}`.
    pub interface_id: Option<Template>,
    /// Enterprise number and Remote-Id (RFC 4649) of the innermost relay agent, or of all if it has
    /// `{relay}`.
    pub remote_id: Option<(u32, Template)>,
}

/// A text with placeholders: `{client}` (or `{}`) the client's number, `{link}` that of its link and
/// `{relay}` that of the relay agent, all from 0, the innermost agent being 0.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Piece {
    Text(Vec<u8>),
    Client,
    Link,
    Relay,
}

/// The numbers that stand for the placeholders.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    client: u32,
    link: u32,
    relay: u32,
}

impl Template {
    /// Takes the text apart. Braces around anything else stay as they are.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let known = [
            ("{}", Piece::Client),
            ("{client}", Piece::Client),
            ("{link}", Piece::Link),
            ("{relay}", Piece::Relay),
        ];
        let mut pieces = Vec::new();
        let (mut rest, mut plain) = (text, String::new());
        while let Some(next) = rest.chars().next() {
            if let Some((word, piece)) = known.iter().find(|(word, _)| rest.starts_with(word)) {
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain).into_bytes()));
                }
                pieces.push(piece.clone());
                rest = &rest[word.len()..];
            } else {
                plain.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into_bytes()));
        }
        Self(pieces)
    }

    fn by_every_relay(&self) -> bool {
        self.0.contains(&Piece::Relay)
    }

    fn each<'a>(&'a self, numbers: Numbers, mut take: impl FnMut(&[u8]) -> bool) -> bool {
        self.0.iter().all(|piece: &'a Piece| {
            let number = match piece {
                Piece::Text(text) => return take(text),
                Piece::Client => numbers.client,
                Piece::Link => numbers.link,
                Piece::Relay => numbers.relay,
            };
            take(decimal(number, &mut [0; 10]))
        })
    }

    fn write(&self, out: &mut Emitter<'_>, numbers: Numbers) {
        self.each(numbers, |octets| {
            out.bytes(octets);
            true
        });
    }

    fn matches(&self, octets: &[u8], numbers: Numbers) -> bool {
        let mut rest = octets;
        self.each(numbers, |piece| match rest.strip_prefix(piece) {
            Some(after) => {
                rest = after;
                true
            }
            None => false,
        }) && rest.is_empty()
    }

    /// Upper bound of its length.
    fn longest(&self) -> usize {
        let length = |piece: &Piece| match piece {
            Piece::Text(text) => text.len(),
            _ => 10,
        };
        self.0.iter().map(length).sum()
    }
}

/// Writes a number without allocating.
fn decimal(mut value: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789"[index(value % 10)];
        value /= 10;
        if value == 0 {
            return &digits[at..];
        }
    }
}

/// The addresses that a pattern makes for links 0 to `count` - 1: `{link}` (or `{}`) becomes the
/// number in hexadecimal, as it stands in addresses.
///
/// # Errors
/// If that makes no addresses, or one and the same.
pub fn links(pattern: &str, count: u32) -> Result<Vec<Ipv6Addr>, String> {
    if count > 1 && !pattern.contains("{link}") && !pattern.contains("{}") {
        return Err(format!("{pattern:?} has no {{link}}: all links would have one address"));
    }
    (0..count)
        .map(|link| {
            let number = format!("{link:x}");
            let text = pattern.replace("{link}", &number).replace("{}", &number);
            text.parse().map_err(|_| format!("{pattern:?} makes {text:?}, which is no address"))
        })
        .collect()
}

impl RelayPath {
    fn link_number(&self, client: ClientIndex) -> u32 {
        client.0 % low32(self.links.len().max(1) as u64)
    }

    /// Link-address and peer-address at a level: 0 is the innermost relay agent. An outer one hears
    /// from a global address and leaves the link-address unspecified (RFC 8415 section 19.1.2).
    fn addresses(
        &self,
        level: u8,
        client: ClientIndex,
        identity: &Identity,
    ) -> (Ipv6Addr, Ipv6Addr) {
        if level == 0 {
            let link = self.links.get(index(self.link_number(client))).copied();
            (link.unwrap_or(Ipv6Addr::UNSPECIFIED), identity.link_local())
        } else {
            (Ipv6Addr::UNSPECIFIED, self.address)
        }
    }

    fn numbers(&self, level: u8, client: ClientIndex) -> Numbers {
        Numbers { client: client.0, link: self.link_number(client), relay: level.into() }
    }

    fn interface_id(&self, level: u8) -> Option<&Template> {
        self.interface_id.as_ref().filter(|id| level == 0 || id.by_every_relay())
    }

    /// Wraps what `inner` writes in the envelopes of all relay agents.
    pub(crate) fn wrap(
        &self,
        client: ClientIndex,
        identity: &Identity,
        out: &mut Emitter<'_>,
        inner: impl FnOnce(&mut Emitter<'_>),
    ) {
        let mut marks: [Option<OptionMark>; RELAY_DEPTH_MAX] = [const { None }; RELAY_DEPTH_MAX];
        for (level, mark) in (0..self.depth).rev().zip(&mut marks) {
            let (link, peer) = self.addresses(level, client, identity);
            out.relay_message(MessageType::RELAY_FORW, level, link, peer);
            let numbers = self.numbers(level, client);
            if let Some(id) = self.interface_id(level) {
                let option = out.begin(OptionCode::INTERFACE_ID);
                id.write(out, numbers);
                out.end(option);
            }
            if let Some((enterprise, id)) = &self.remote_id
                && (level == 0 || id.by_every_relay())
            {
                let option = out.begin(REMOTE_ID);
                out.u32(*enterprise);
                id.write(out, numbers);
                out.end(option);
            }
            *mark = Some(out.begin(OptionCode::RELAY_MSG));
        }
        inner(out);
        for mark in marks.iter_mut().rev().filter_map(Option::take) {
            out.end(mark);
        }
    }

    /// Whether the envelopes carry back link-address, peer-address and Interface-Id. A server need not
    /// send the Remote-Id back (RFC 4649 section 3).
    pub(crate) fn matches(
        &self,
        datagram: &[u8],
        client: ClientIndex,
        identity: &Identity,
    ) -> bool {
        let mut rest = datagram;
        for level in (0..self.depth).rev() {
            let Ok(Packet::Relay(relay)) = Packet::parse(rest) else { return false };
            if (relay.link_address, relay.peer_address) != self.addresses(level, client, identity) {
                return false;
            }
            if let Some(id) = self.interface_id(level) {
                let echoed = relay.options.first(OptionCode::INTERFACE_ID);
                let numbers = self.numbers(level, client);
                if !echoed.is_some_and(|octets| id.matches(octets, numbers)) {
                    return false;
                }
            }
            let Some(inner) = relay.relayed() else { return false };
            rest = inner;
        }
        true
    }

    /// Upper bound of what the relay agents add to a message.
    pub(crate) fn envelopes_longest(&self) -> usize {
        let depth = usize::from(self.depth);
        let option = |id: &Template, fixed: usize| {
            (fixed + id.longest()) * if id.by_every_relay() { depth } else { 1 }
        };
        depth * (34 + 4)
            + self.interface_id.as_ref().map_or(0, |id| option(id, 4))
            + self.remote_id.as_ref().map_or(0, |(_, id)| option(id, 8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Identities;

    const NUMBERS: Numbers = Numbers { client: 4711, link: 3, relay: 1 };

    #[test]
    fn placeholders_are_filled_in() {
        for (text, filled) in [
            ("eth0", "eth0"),
            ("port-{}/x", "port-4711/x"),
            ("{client}", "4711"),
            ("{link}:{relay}-{client}{x}{", "3:1-4711{x}{"),
        ] {
            let template = Template::new(text);
            let mut buffer = [0; 64];
            let mut out = Emitter::new(&mut buffer);
            template.write(&mut out, NUMBERS);
            let len = out.finish().unwrap();
            assert_eq!(std::str::from_utf8(&buffer[..len]), Ok(filled));
            assert!(len <= template.longest());
            assert!(template.matches(filled.as_bytes(), NUMBERS), "{text}");
            assert!(!template.matches(format!("{filled}1").as_bytes(), NUMBERS), "{text}");
            assert!(!template.matches(b"e", NUMBERS), "{text}");
        }
        assert_eq!(decimal(0, &mut [0; 10]), b"0");
        assert_eq!(decimal(u32::MAX, &mut [0; 10]), b"4294967295");
    }

    #[test]
    fn a_pattern_makes_many_links() {
        let made = links("2001:db8:{link}::1", 300).unwrap();
        assert_eq!(made.len(), 300);
        assert_eq!(made[299], "2001:db8:12b::1".parse::<Ipv6Addr>().unwrap());
        assert!(links("2001:db8::1", 2).is_err());
        assert!(links("2001:db8:{link}", 2).is_err());
        assert_eq!(links("2001:db8::1", 1).unwrap().len(), 1);
    }

    #[test]
    fn remote_ids_stand_where_they_should() {
        let mut path = RelayPath {
            depth: 2,
            links: links("2001:db8:{link}::1", 4).unwrap(),
            address: "2001:db8::9".parse().unwrap(),
            interface_id: None,
            remote_id: Some((32_473, Template::new("olt{link}/{client}"))),
        };
        let remote_ids = |path: &RelayPath| {
            let client = ClientIndex(7);
            let mut buffer = [0; 400];
            let mut out = Emitter::new(&mut buffer);
            path.wrap(client, &Identities::new(1).identity(client), &mut out, |out| out.u32(1));
            let len = out.finish().unwrap();
            assert!(len <= path.envelopes_longest() + 4);
            let Ok(Packet::Relay(outer)) = Packet::parse(&buffer[..len]) else { panic!("relayed") };
            let Ok(Packet::Relay(inner)) = Packet::parse(outer.relayed().unwrap()) else {
                panic!("relayed twice")
            };
            [outer, inner].map(|relay| relay.options.first(REMOTE_ID).map(<[u8]>::to_vec))
        };
        assert_eq!(remote_ids(&path), [None, Some(b"\0\0\x7e\xd9olt3/7".to_vec())]);
        path.remote_id = Some((1, Template::new("{relay}")));
        assert_eq!(
            remote_ids(&path),
            [Some(b"\0\0\0\x011".to_vec()), Some(b"\0\0\0\x010".to_vec())]
        );
    }
}
