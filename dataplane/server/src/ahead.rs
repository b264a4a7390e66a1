//! Preparing for several messages together, so that they wait together for the memory that their
//! answers need.

use std::net::Ipv6Addr;

use gemel_lease::{ClientHash, ClientKey, IaKind, LeaseHash, PoolId};
use gemel_wire::{HOP_COUNT_LIMIT, Ia, IaTa, Message, MessageType, OptionCode, Packet};

use crate::{Server, bounded::Bounded, link::Links};

/// A client whose message will be answered soon.
#[derive(Clone, Copy)]
struct Expected {
    hash: ClientHash,
    /// Where there is a lease for it if it has none, as far as that is seen at a glance.
    pool: Option<PoolId>,
    /// It is to be given that lease, and not only told of it.
    gives: bool,
}

impl Server {
    /// How many messages are prepared for together: not so many that the first are out of the nearest
    /// cache again when their turn comes.
    pub const AHEAD: usize = 16;

    /// Asks for the memory that the answers to these messages will need, of the first [`Self::AHEAD`]
    /// at most. Each is given as payload and index of the interface it came from. Changes nothing, and
    /// does nothing for messages that it does not understand.
    pub fn look_ahead<'a>(&self, messages: impl Iterator<Item = (&'a [u8], u32)>) {
        let table = self.table();
        let mut clients = Bounded::<Expected, { Self::AHEAD }>::EMPTY;
        for (payload, interface) in messages.take(Self::AHEAD) {
            let Some(glance) = Glance::new(payload) else { continue };
            let Some(key) = glance.first_association() else { continue };
            let hash = table.client_hash(&key);
            table.fetch_stripe(hash);
            let pool = glance.pool(self.links(), key.kind, interface);
            let gives = glance.message.msg_type == MessageType::REQUEST;
            clients.push(Expected { hash, pool, gives });
        }
        clients.iter().for_each(|client| table.fetch_client(client.hash));
        let mut leases = Bounded::<LeaseHash, { Self::AHEAD }>::EMPTY;
        for client in clients.iter() {
            if !table.fetch_binding(client.hash, client.gives)
                && let Some(pool) = client.pool
                && let Some(lease) = table.fetch_lease_stripe(client.hash, pool)
            {
                leases.push(lease);
            }
        }
        leases.iter().for_each(|lease| table.fetch_lease(*lease));
    }
}

/// A client's message as far as it is needed here.
struct Glance<'a> {
    message: Message<'a>,
    /// Of the relay agent nearest to the client that gives one.
    link_address: Option<Ipv6Addr>,
}

impl<'a> Glance<'a> {
    /// `None` if the answer rests on no binding, or there will be none.
    fn new(payload: &'a [u8]) -> Option<Self> {
        let (mut octets, mut link_address) = (payload, None);
        for _ in 0..=HOP_COUNT_LIMIT {
            if octets.first() != Some(&MessageType::RELAY_FORW.0) {
                let message = Message::parse(octets).ok()?;
                let rests = message.msg_type != MessageType::CONFIRM;
                return rests.then_some(Self { message, link_address });
            }
            let Ok(Packet::Relay(relay)) = Packet::parse(octets) else { return None };
            if !relay.link_address.is_unspecified() {
                link_address = Some(relay.link_address);
            }
            octets = relay.relayed()?;
        }
        None
    }

    /// The first identity association: nearly always the only one of its kind.
    fn first_association(&self) -> Option<ClientKey<'a>> {
        let (mut duid, mut ia) = (None, None);
        for option in self.message.options {
            let kind = match option.code {
                OptionCode::CLIENT_ID => {
                    duid = duid.or(Some(option.data));
                    None
                }
                OptionCode::IA_NA => Some(IaKind::Na),
                OptionCode::IA_TA => Some(IaKind::Ta),
                OptionCode::IA_PD => Some(IaKind::Pd),
                _ => continue,
            };
            ia = ia.or_else(|| {
                let iaid = match kind? {
                    IaKind::Ta => IaTa::parse(option.data).ok()?.iaid,
                    IaKind::Na | IaKind::Pd => Ia::parse(option.data).ok()?.iaid,
                };
                Some((kind?, iaid))
            });
            if let (Some(duid), Some((kind, iaid))) = (duid, ia) {
                return Some(ClientKey { duid, kind, iaid });
            }
        }
        None
    }

    /// The first pool of the link that the client seems to be on.
    fn pool(&self, links: &Links, kind: IaKind, interface: u32) -> Option<PoolId> {
        if !matches!(self.message.msg_type, MessageType::SOLICIT | MessageType::REQUEST) {
            return None;
        }
        let link = match self.link_address {
            Some(address) => links.by_link_address(address),
            None => links.by_interface(interface),
        };
        Some(link?.pools(kind).first()?.id)
    }
}

#[cfg(test)]
mod tests {
    use gemel_wire::{Emitter, IaId, TransactionId};

    use super::*;

    fn message(write: impl FnOnce(&mut Emitter<'_>)) -> Vec<u8> {
        let mut buffer = vec![0; 512];
        let mut out = Emitter::new(&mut buffer);
        write(&mut out);
        let len = out.finish().unwrap();
        buffer.truncate(len);
        buffer
    }

    fn renew(out: &mut Emitter<'_>) {
        out.message(MessageType::RENEW, TransactionId([1, 2, 3]));
        for (code, iaid) in [(OptionCode::IA_PD, 5), (OptionCode::IA_NA, 6)] {
            let ia = out.begin_ia(code, IaId(iaid), 0, 0);
            out.end(ia);
        }
        out.option(OptionCode::CLIENT_ID, &[0, 3, 0, 1, 9]);
        out.option(OptionCode::CLIENT_ID, &[0, 3, 0, 1, 8]);
    }

    #[test]
    fn the_first_association_is_seen_through_relays() {
        let expected = ClientKey { duid: &[0, 3, 0, 1, 9], kind: IaKind::Pd, iaid: IaId(5) };
        let direct = message(renew);
        let relayed = message(|out| {
            let link = "2001:db8:7::1".parse().unwrap();
            out.relay_message(MessageType::RELAY_FORW, 1, Ipv6Addr::UNSPECIFIED, link);
            let outer = out.begin(OptionCode::RELAY_MSG);
            out.relay_message(MessageType::RELAY_FORW, 0, link, Ipv6Addr::UNSPECIFIED);
            let inner = out.begin(OptionCode::RELAY_MSG);
            renew(out);
            out.end(inner);
            out.end(outer);
        });
        let glance = Glance::new(&direct).unwrap();
        assert_eq!((glance.first_association(), glance.link_address), (Some(expected), None));
        let glance = Glance::new(&relayed).unwrap();
        let link = Some("2001:db8:7::1".parse().unwrap());
        assert_eq!((glance.first_association(), glance.link_address), (Some(expected), link));
    }

    #[test]
    fn what_cannot_be_read_is_passed_over() {
        let whole = message(renew);
        for len in 0..whole.len() {
            let seen = Glance::new(&whole[..len]).and_then(|glance| glance.first_association());
            // A cut between two options leaves a message.
            assert!(seen.is_none_or(|key| key.duid == [0, 3, 0, 1, 9]), "cut at {len}");
        }
        let relay = |relayed: &[u8]| {
            let len = u16::try_from(relayed.len()).unwrap().to_be_bytes();
            let header = [MessageType::RELAY_FORW.0; 34];
            [&header, &OptionCode::RELAY_MSG.0.to_be_bytes()[..], &len, relayed].concat()
        };
        let mut octets = whole;
        for relays in 0..20 {
            assert_eq!(Glance::new(&octets).is_some(), relays <= HOP_COUNT_LIMIT, "{relays}");
            octets = relay(&octets);
        }
    }
}
