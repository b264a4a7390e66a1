//! The clients' side of DHCPv6: messages made and read with the codec.

use std::net::Ipv6Addr;

use gemel_lease::{IaKind, Lease};
use gemel_wire::{
    Emitter, Ia, IaAddr, IaId, IaPrefix, Message, MessageType, OptionCode, Options, Status,
    StatusCode, TransactionId,
};

/// What a client says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Saying<'a> {
    pub(crate) msg_type: MessageType,
    pub(crate) xid: u32,
    pub(crate) duid: &'a [u8],
    pub(crate) server: Option<&'a [u8]>,
    pub(crate) rapid_commit: bool,
    /// Associations in order; their numbers are 1, 2, ... The leases named in each.
    pub(crate) ias: &'a [(u32, IaKind, Vec<Lease>)],
}

/// Puts a client's message together.
pub(crate) fn build(saying: &Saying<'_>) -> Vec<u8> {
    let mut buffer = [0; 1024];
    let mut out = Emitter::new(&mut buffer);
    let [_, xid @ ..] = saying.xid.to_be_bytes();
    out.message(saying.msg_type, TransactionId(xid));
    out.option(OptionCode::CLIENT_ID, saying.duid);
    if let Some(server) = saying.server {
        out.option(OptionCode::SERVER_ID, server);
    }
    out.option(OptionCode::ELAPSED_TIME, &[0, 0]);
    if saying.rapid_commit {
        out.option(OptionCode::RAPID_COMMIT, &[]);
    }
    for (iaid, kind, leases) in saying.ias {
        let code = if *kind == IaKind::Pd { OptionCode::IA_PD } else { OptionCode::IA_NA };
        let mark = out.begin_ia(code, IaId(*iaid), 0, 0);
        for lease in leases {
            match kind {
                IaKind::Pd => out.ia_prefix(lease.address, lease.prefix_len, 0, 0),
                IaKind::Na | IaKind::Ta => out.ia_addr(lease.address, 0, 0),
            }
        }
        out.end(mark);
    }
    let len = out.finish().expect("a message of a client is small");
    buffer[..len].to_vec()
}

/// A server's answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    pub(crate) msg_type: MessageType,
    pub(crate) xid: u32,
    pub(crate) server: Vec<u8>,
    pub(crate) ias: Vec<AnswerIa>,
}

/// An association in an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct AnswerIa {
    pub(crate) iaid: u32,
    pub(crate) kind: IaKind,
    pub(crate) t1: u32,
    pub(crate) t2: u32,
    pub(crate) status: StatusCode,
    pub(crate) leases: Vec<AnswerLease>,
}

/// A lease in an answer, with its lifetimes in seconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct AnswerLease {
    pub(crate) lease: Lease,
    pub(crate) preferred: u32,
    pub(crate) valid: u32,
}

impl Answer {
    /// Whether any lease may be used.
    pub(crate) fn has_leases(&self) -> bool {
        self.ias.iter().flat_map(|ia| &ia.leases).any(|lease| lease.valid > 0)
    }

    /// The valid lifetime of a lease of an association, if it is named.
    pub(crate) fn valid(&self, iaid: u32, kind: IaKind, lease: Lease) -> Option<u32> {
        let ia = self.ias.iter().find(|ia| (ia.iaid, ia.kind) == (iaid, kind))?;
        ia.leases.iter().find(|it| it.lease == lease).map(|it| it.valid)
    }
}

/// Reads a server's answer; a client passes over what it cannot read.
pub(crate) fn parse(octets: &[u8]) -> Option<Answer> {
    let message = Message::parse(octets).ok()?;
    let [x0, x1, x2] = message.transaction_id.0;
    let mut answer = Answer {
        msg_type: message.msg_type,
        xid: u32::from_be_bytes([0, x0, x1, x2]),
        server: message.options.first(OptionCode::SERVER_ID)?.to_vec(),
        ias: Vec::new(),
    };
    for option in message.options {
        let kind = match option.code {
            OptionCode::IA_NA => IaKind::Na,
            OptionCode::IA_PD => IaKind::Pd,
            _ => continue,
        };
        let ia = Ia::parse(option.data).ok()?;
        answer.ias.push(AnswerIa {
            iaid: ia.iaid.0,
            kind,
            t1: ia.t1,
            t2: ia.t2,
            status: Status::of(&ia.options),
            leases: leases(&ia.options)?,
        });
    }
    Some(answer)
}

fn leases(options: &Options<'_>) -> Option<Vec<AnswerLease>> {
    let mut leases = Vec::new();
    for option in *options {
        leases.push(match option.code {
            OptionCode::IA_ADDR => {
                let IaAddr { address, preferred, valid, .. } = IaAddr::parse(option.data).ok()?;
                AnswerLease { lease: Lease::address(address), preferred, valid }
            }
            OptionCode::IA_PREFIX => {
                let body = IaPrefix::parse(option.data).ok()?;
                let lease = Lease::prefix(body.prefix, body.prefix_len);
                AnswerLease { lease, preferred: body.preferred, valid: body.valid }
            }
            _ => continue,
        });
    }
    Some(leases)
}

/// A lease that a client's message names: the number and kind of the association, and the lease.
pub(crate) type Named = (u32, IaKind, Lease);

/// What a client's message says, for the checkers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Said {
    pub(crate) msg_type: MessageType,
    /// The server that is named.
    pub(crate) server: Vec<u8>,
    pub(crate) leases: Vec<Named>,
}

/// Reads a client's message.
pub(crate) fn said(octets: &[u8]) -> Option<Said> {
    let message = Message::parse(octets).ok()?;
    let server = message.options.first(OptionCode::SERVER_ID).unwrap_or_default().to_vec();
    let mut said = Said { msg_type: message.msg_type, server, leases: Vec::new() };
    for option in message.options {
        let kind = match option.code {
            OptionCode::IA_NA => IaKind::Na,
            OptionCode::IA_PD => IaKind::Pd,
            _ => continue,
        };
        let ia = Ia::parse(option.data).ok()?;
        let leases = leases(&ia.options)?;
        said.leases.extend(leases.iter().map(|it| (ia.iaid.0, kind, it.lease)));
    }
    Some(said)
}

/// The DUID of a server of the pair.
pub(crate) fn server_duid(node: usize) -> [u8; 10] {
    let number = u8::try_from(node + 1).unwrap_or(0);
    [0, 3, 0, 1, 2, 0, 0, 0, 0, number]
}

/// The DUID of a client.
pub(crate) fn client_duid(client: usize) -> [u8; 10] {
    let [.., n0, n1] = client.to_be_bytes();
    [0, 3, 0, 1, 2, 0, 0, 1, n0, n1]
}

/// The link-local address of a client.
pub(crate) fn client_address(client: usize) -> Ipv6Addr {
    let [.., n0, n1] = client.to_be_bytes();
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, u16::from_be_bytes([n0, n1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_read_back() {
        let address = Lease::address("2001:db8::5".parse().unwrap());
        let prefix = Lease::prefix("2001:db8:5::".parse().unwrap(), 56);
        let octets = build(&Saying {
            msg_type: MessageType::RENEW,
            xid: 0x01_0203,
            duid: &client_duid(300),
            server: Some(&server_duid(1)),
            rapid_commit: false,
            ias: &[(1, IaKind::Na, vec![address]), (2, IaKind::Pd, vec![prefix])],
        });
        let said = said(&octets).unwrap();
        assert_eq!((said.msg_type, &said.server[..]), (MessageType::RENEW, &server_duid(1)[..]));
        assert_eq!(said.leases, [(1, IaKind::Na, address), (2, IaKind::Pd, prefix)]);
        let answer = parse(&octets).unwrap();
        assert_eq!((answer.xid, answer.server), (0x01_0203, server_duid(1).to_vec()));
        assert_eq!(answer.ias[1].leases[0].lease, prefix);
    }
}
