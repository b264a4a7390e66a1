//! An owned model of DHCPv6 messages: written with the emitter, read back through the views.

mod strategy;

use std::net::Ipv6Addr;

use gemel_wire::{
    Duid, Emitter, Ia, IaAddr, IaId, IaPrefix, IaTa, Message, MessageType, OptionCode,
    OptionRequest, Options, Packet, RawOption, RelayMessage, Status, StatusCode, TransactionId,
    WireError,
};
pub(crate) use strategy::*;

/// A whole datagram.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Model {
    Client { msg_type: u8, xid: [u8; 3], options: Vec<Opt> },
    Relay { msg_type: u8, hop_count: u8, link: Ipv6Addr, peer: Ipv6Addr, options: Vec<Opt> },
}

/// An option; lifetimes, T1 and T2 in seconds.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Opt {
    ClientId(Vec<u8>),
    ServerId(Vec<u8>),
    IaNa {
        iaid: u32,
        t1: u32,
        t2: u32,
        options: Vec<Self>,
    },
    IaTa {
        iaid: u32,
        options: Vec<Self>,
    },
    IaPd {
        iaid: u32,
        t1: u32,
        t2: u32,
        options: Vec<Self>,
    },
    IaAddr {
        address: Ipv6Addr,
        preferred: u32,
        valid: u32,
        options: Vec<Self>,
    },
    IaPrefix {
        prefix: Ipv6Addr,
        len: u8,
        preferred: u32,
        valid: u32,
        options: Vec<Self>,
    },
    Oro(Vec<u16>),
    Preference(u8),
    /// Hundredths of a second.
    ElapsedTime(u16),
    RelayMsg(Box<Model>),
    Status {
        code: u16,
        message: Vec<u8>,
    },
    RapidCommit,
    InterfaceId(Vec<u8>),
    DnsServers(Vec<Ipv6Addr>),
    /// Names as lists of labels, without the root.
    DomainList(Vec<Vec<Vec<u8>>>),
    Raw {
        code: u16,
        body: Vec<u8>,
    },
}

/// The codes that the model reads as more than octets.
pub(crate) const MODELLED: [u16; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 18, 23, 24, 25, 26];

impl Model {
    /// Writes the message with an [`Emitter`] over `buffer`.
    pub(crate) fn emit_into(&self, buffer: &mut [u8]) -> Result<usize, WireError> {
        let mut out = Emitter::new(buffer);
        self.emit(&mut out);
        out.finish()
    }

    /// The message in a buffer that is large enough.
    pub(crate) fn to_octets(&self) -> Vec<u8> {
        let mut buffer = vec![0xa5; 65_536];
        let len = self.emit_into(&mut buffer).expect("no model of a test is this large");
        buffer.truncate(len);
        buffer
    }

    fn emit(&self, out: &mut Emitter<'_>) {
        match self {
            Self::Client { msg_type, xid, options } => {
                out.message(MessageType(*msg_type), TransactionId(*xid));
                emit_options(options, out);
            }
            Self::Relay { msg_type, hop_count, link, peer, options } => {
                out.relay_message(MessageType(*msg_type), *hop_count, *link, *peer);
                emit_options(options, out);
            }
        }
    }

    /// Reads the message and everything in it through the views.
    pub(crate) fn read(octets: &[u8]) -> Result<Self, WireError> {
        match Packet::parse(octets)? {
            Packet::Client(Message { msg_type, transaction_id, options }) => Ok(Self::Client {
                msg_type: msg_type.0,
                xid: transaction_id.0,
                options: read_options(options)?,
            }),
            Packet::Relay(message) => {
                let RelayMessage { msg_type, hop_count, link_address, peer_address, options } =
                    message;
                assert_eq!(message.relayed(), options.first(OptionCode::RELAY_MSG));
                Ok(Self::Relay {
                    msg_type: msg_type.0,
                    hop_count,
                    link: link_address,
                    peer: peer_address,
                    options: read_options(options)?,
                })
            }
        }
    }

    pub(crate) fn options_mut(&mut self) -> &mut Vec<Opt> {
        let (Self::Client { options, .. } | Self::Relay { options, .. }) = self;
        options
    }
}

pub(crate) fn emit_options(options: &[Opt], out: &mut Emitter<'_>) {
    options.iter().for_each(|option| option.emit(out));
}

fn read_options(options: Options<'_>) -> Result<Vec<Opt>, WireError> {
    options.iter().map(Opt::read).collect()
}

impl Opt {
    /// Uses the emitter's own method for an option wherever there is one.
    fn emit(&self, out: &mut Emitter<'_>) {
        match self {
            Self::ClientId(octets) => out.duid(OptionCode::CLIENT_ID, &duid(octets)),
            Self::ServerId(octets) => out.duid(OptionCode::SERVER_ID, &duid(octets)),
            Self::IaNa { iaid, t1, t2, options } => {
                let mark = out.begin_ia(OptionCode::IA_NA, IaId(*iaid), *t1, *t2);
                emit_options(options, out);
                out.end(mark);
            }
            Self::IaPd { iaid, t1, t2, options } => {
                let mark = out.begin_ia(OptionCode::IA_PD, IaId(*iaid), *t1, *t2);
                emit_options(options, out);
                out.end(mark);
            }
            Self::IaTa { iaid, options } => emit_with(OptionCode::IA_TA, out, |out| {
                out.u32(*iaid);
                emit_options(options, out);
            }),
            Self::IaAddr { address, preferred, valid, options } if options.is_empty() => {
                out.ia_addr(*address, *preferred, *valid);
            }
            Self::IaAddr { address, preferred, valid, options } => {
                emit_with(OptionCode::IA_ADDR, out, |out| {
                    out.address(*address);
                    out.u32(*preferred);
                    out.u32(*valid);
                    emit_options(options, out);
                });
            }
            Self::IaPrefix { prefix, len, preferred, valid, options } if options.is_empty() => {
                out.ia_prefix(*prefix, *len, *preferred, *valid);
            }
            Self::IaPrefix { prefix, len, preferred, valid, options } => {
                emit_with(OptionCode::IA_PREFIX, out, |out| {
                    out.u32(*preferred);
                    out.u32(*valid);
                    out.u8(*len);
                    out.address(*prefix);
                    emit_options(options, out);
                });
            }
            Self::Oro(codes) => {
                emit_with(OptionCode::ORO, out, |out| codes.iter().for_each(|code| out.u16(*code)));
            }
            Self::Preference(value) => out.option(OptionCode::PREFERENCE, &[*value]),
            Self::ElapsedTime(time) => out.option(OptionCode::ELAPSED_TIME, &time.to_be_bytes()),
            Self::RelayMsg(message) => {
                emit_with(OptionCode::RELAY_MSG, out, |out| message.emit(out));
            }
            Self::Status { code, message } => match std::str::from_utf8(message) {
                Ok(text) => out.status(StatusCode(*code), text),
                Err(_) => emit_with(OptionCode::STATUS_CODE, out, |out| {
                    out.u16(*code);
                    out.bytes(message);
                }),
            },
            Self::RapidCommit => out.option(OptionCode::RAPID_COMMIT, &[]),
            Self::InterfaceId(id) => out.option(OptionCode::INTERFACE_ID, id),
            Self::DnsServers(servers) => emit_with(OptionCode::DNS_SERVERS, out, |out| {
                servers.iter().for_each(|server| out.address(*server));
            }),
            Self::DomainList(names) => out.option(OptionCode::DOMAIN_LIST, &names_octets(names)),
            Self::Raw { code, body } => out.option(OptionCode(*code), body),
        }
    }

    fn read(RawOption { code, data }: RawOption<'_>) -> Result<Self, WireError> {
        Ok(match code {
            OptionCode::CLIENT_ID => Self::ClientId(Duid::new(data)?.as_bytes().to_vec()),
            OptionCode::SERVER_ID => Self::ServerId(Duid::new(data)?.as_bytes().to_vec()),
            OptionCode::IA_NA => {
                let Ia { iaid, t1, t2, options } = Ia::parse(data)?;
                Self::IaNa { iaid: iaid.0, t1, t2, options: read_options(options)? }
            }
            OptionCode::IA_PD => {
                let Ia { iaid, t1, t2, options } = Ia::parse(data)?;
                Self::IaPd { iaid: iaid.0, t1, t2, options: read_options(options)? }
            }
            OptionCode::IA_TA => {
                let IaTa { iaid, options } = IaTa::parse(data)?;
                Self::IaTa { iaid: iaid.0, options: read_options(options)? }
            }
            OptionCode::IA_ADDR => {
                let IaAddr { address, preferred, valid, options } = IaAddr::parse(data)?;
                Self::IaAddr { address, preferred, valid, options: read_options(options)? }
            }
            OptionCode::IA_PREFIX => {
                let IaPrefix { preferred, valid, prefix_len: len, prefix, options } =
                    IaPrefix::parse(data)?;
                Self::IaPrefix { prefix, len, preferred, valid, options: read_options(options)? }
            }
            OptionCode::ORO => {
                let request = OptionRequest::parse(data)?;
                assert!(request.codes().all(|code| request.contains(code)));
                Self::Oro(request.codes().map(|code| code.0).collect())
            }
            OptionCode::PREFERENCE => Self::Preference(u8::from_be_bytes(exactly(data)?)),
            OptionCode::ELAPSED_TIME => Self::ElapsedTime(u16::from_be_bytes(exactly(data)?)),
            OptionCode::RELAY_MSG => Self::RelayMsg(Box::new(Model::read(data)?)),
            OptionCode::STATUS_CODE => {
                let Status { code, message } = Status::parse(data)?;
                Self::Status { code: code.0, message: message.to_vec() }
            }
            OptionCode::RAPID_COMMIT => exactly(data).map(|[]| Self::RapidCommit)?,
            OptionCode::INTERFACE_ID => Self::InterfaceId(data.to_vec()),
            OptionCode::DNS_SERVERS => Self::DnsServers(
                data.chunks(16)
                    .map(|octets| exactly::<16>(octets).map(Ipv6Addr::from))
                    .collect::<Result<_, _>>()?,
            ),
            OptionCode::DOMAIN_LIST => Self::DomainList(
                read_names(data).ok_or(WireError::BadValue { what: "domain list", value: 0 })?,
            ),
            OptionCode(code) => Self::Raw { code, body: data.to_vec() },
        })
    }
}

fn emit_with(code: OptionCode, out: &mut Emitter<'_>, body: impl FnOnce(&mut Emitter<'_>)) {
    let mark = out.begin(code);
    body(out);
    out.end(mark);
}

fn duid(octets: &[u8]) -> Duid {
    Duid::new(octets).expect("the model holds DUIDs of an allowed length")
}

fn exactly<const N: usize>(data: &[u8]) -> Result<[u8; N], WireError> {
    let value = u32::try_from(data.len()).expect("shorter than a datagram");
    data.try_into().map_err(|_| WireError::BadValue { what: "option length", value })
}

/// Names as RFC 8415 section 10 wants them: uncompressed, each with its root label.
pub(crate) fn names_octets(names: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let mut octets = Vec::new();
    for name in names {
        for label in name {
            octets.push(u8::try_from(label.len()).expect("a label has at most 63 octets"));
            octets.extend_from_slice(label);
        }
        octets.push(0);
    }
    octets
}

/// Labels of 1 to 63 octets, names of at most 255, no compression (RFC 1035 section 3.1).
fn read_names(mut data: &[u8]) -> Option<Vec<Vec<Vec<u8>>>> {
    let mut names = Vec::new();
    while !data.is_empty() {
        let (mut name, mut name_len) = (Vec::new(), 1);
        loop {
            let (len, rest) = data.split_first()?;
            let (label, rest) = rest.split_at_checked(usize::from(*len))?;
            data = rest;
            if label.is_empty() {
                break;
            }
            name_len += 1 + label.len();
            if label.len() > 63 || name_len > 255 {
                return None;
            }
            name.push(label.to_vec());
        }
        names.push(name);
    }
    Some(names)
}
