//! A server with three links, messages for it, and a reading of its replies that misses nothing.

// Each test program uses a part of this.
#![allow(dead_code)]

use std::{net::Ipv6Addr, sync::Arc};

use gemel_lease::{
    AbsoluteTime, Binding, IaKind, Lease, LeaseTable, Ownership, PoolConfig, PoolId, PoolRange,
    PoolSet, TableConfig, UpdateBatch, UpdateSink,
};
use gemel_server::{
    DropReason, Inbound, LinkConfig, OptionConfig, Outcome, Prefix, ReplyInfo, Server,
    ServerConfig, Service,
};
use gemel_wire::{
    Duid, Emitter, Ia, IaAddr, IaId, IaPrefix, IaTa, Message, MessageType, OptionCode, Options,
    Packet, Status, StatusCode, TransactionId,
};

pub(crate) const NOW: AbsoluteTime = AbsoluteTime(800_000_000);
pub(crate) const SERVER: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 1];
pub(crate) const CLIENT: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 9];
pub(crate) const OTHER: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 10];
pub(crate) const XID: TransactionId = TransactionId([0xab, 0xcd, 0xef]);
/// Interface of link `alpha`: two address pools, two prefix pools, options.
pub(crate) const ALPHA: u32 = 1;
/// Interface of link `beta`: one address, one prefix, Rapid Commit, T1 and T2, preference.
pub(crate) const BETA: u32 = 2;
/// Interface of link `gamma`: a single address and no known prefixes; creates nothing on RENEW.
pub(crate) const GAMMA: u32 = 3;

pub(crate) fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

pub(crate) fn addr(text: &str) -> Lease {
    Lease::address(ip(text))
}

pub(crate) fn pd(text: &str) -> Lease {
    let (address, len) = text.split_once('/').unwrap();
    Lease::prefix(ip(address), len.parse().unwrap())
}

pub(crate) fn prefix(text: &str) -> Prefix {
    let (address, len) = text.split_once('/').unwrap();
    Prefix::new(ip(address), len.parse().unwrap()).unwrap()
}

fn range(first: &str, last: &str) -> PoolConfig {
    let range = PoolRange::Addresses { first: ip(first), last: ip(last) };
    PoolConfig { range, ownership: Ownership::Sole }
}

fn prefixes(text: &str, delegated_len: u8) -> PoolConfig {
    let Lease { address, prefix_len } = pd(text);
    let range = PoolRange::Prefixes { prefix: address, prefix_len, delegated_len };
    PoolConfig { range, ownership: Ownership::Sole }
}

pub(crate) fn links() -> Vec<LinkConfig> {
    let mut alpha = LinkConfig::new("alpha");
    alpha.interface = Some(ALPHA);
    alpha.relay_prefixes = vec![prefix("2001:db8:a::/48")];
    alpha.interface_ids = vec![b"port-a".to_vec()];
    alpha.on_link = vec![prefix("2001:db8:a::/64")];
    alpha.na_pools = vec![PoolId(0), PoolId(1)];
    alpha.pd_pools = vec![PoolId(2), PoolId(3)];
    let mut dns = OptionConfig::dns_servers(&[ip("2001:db8::53"), ip("2001:db8::54")]);
    dns.always = true;
    alpha.options = vec![
        dns,
        OptionConfig::domain_search(&["example.org"]).unwrap(),
        OptionConfig::sol_max_rt(7200),
        OptionConfig::inf_max_rt(3600),
        OptionConfig::information_refresh_time(1200),
        OptionConfig::new(OptionCode(300), b"far".to_vec()),
    ];
    let mut beta = LinkConfig::new("beta");
    beta.interface = Some(BETA);
    beta.relay_prefixes = vec![prefix("2001:db8:b::/48"), prefix("2001:db8:a:ff::/64")];
    beta.interface_ids = vec![b"port-b".to_vec()];
    beta.on_link = vec![prefix("2001:db8:b::/64")];
    beta.na_pools = vec![PoolId(4)];
    beta.pd_pools = vec![PoolId(5)];
    beta.rapid_commit = true;
    (beta.t1, beta.t2) = (Some(1000), Some(2000));
    beta.preference = 7;
    let mut gamma = LinkConfig::new("gamma");
    gamma.interface = Some(GAMMA);
    gamma.na_pools = vec![PoolId(6)];
    gamma.create_on_renew = false;
    vec![alpha, beta, gamma]
}

pub(crate) fn pools() -> PoolSet {
    PoolSet::new(vec![
        range("2001:db8:a::1000", "2001:db8:a::10ff"),
        range("2001:db8:a::2000", "2001:db8:a::2003"),
        prefixes("2001:db8:a000::/48", 56),
        prefixes("2001:db8:a001::/48", 60),
        range("2001:db8:b::1000", "2001:db8:b::1000"),
        prefixes("2001:db8:b000::/56", 56),
        range("2001:db8:c::1000", "2001:db8:c::1000"),
    ])
    .unwrap()
}

pub(crate) struct Lab {
    pub(crate) server: Server,
    pub(crate) now: AbsoluteTime,
    pub(crate) service: Service,
    pub(crate) updates: UpdateBatch,
    pub(crate) interface: u32,
    /// Room for a reply.
    pub(crate) room: usize,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let config = TableConfig { hash_key: [7; 16], client_stripes: 2, expected_bindings: 100 };
        Self::on_table(Arc::new(LeaseTable::new(&config, pools())), change)
    }

    /// A server that finds the bindings of an earlier one.
    pub(crate) fn on_table(table: Arc<LeaseTable>, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = ServerConfig::new(Duid::new(SERVER).unwrap());
        config.links = links();
        change(&mut config);
        let server = Server::new(config, table).unwrap();
        let updates = UpdateBatch::default();
        Self { server, now: NOW, service: Service::Full, updates, interface: ALPHA, room: 1500 }
    }

    pub(crate) fn inbound<'a>(&self, payload: &'a [u8]) -> Inbound<'a> {
        Inbound {
            payload,
            source: ip("fe80::9"),
            source_port: 546,
            destination: gemel_wire::ALL_RELAY_AGENTS_AND_SERVERS,
            interface: self.interface,
        }
    }

    pub(crate) fn handle(
        &mut self,
        inbound: &Inbound<'_>,
    ) -> Result<(ReplyInfo, Vec<u8>), DropReason> {
        self.updates.clear();
        let mut reply = vec![0xee; self.room];
        let outcome =
            self.server.handle(inbound, self.now, self.service, &mut reply, &mut self.updates);
        match outcome {
            Outcome::Reply(info) => {
                assert_eq!(info.held, !self.updates.is_empty(), "held iff updates were pushed");
                reply.truncate(info.len);
                Ok((info, reply))
            }
            Outcome::Drop(reason) => Err(reason),
        }
    }

    /// Sends a client's message from the lab's interface.
    pub(crate) fn send(&mut self, payload: &[u8]) -> Answer {
        let (info, reply) = self.handle(&self.inbound(payload)).expect("a reply");
        let answer = Answer::read(&reply);
        assert_eq!(answer.relays, []);
        assert_eq!((info.destination_port, info.reply), (546, answer.msg_type));
        assert_eq!(info.request, MessageType(payload[0]));
        answer
    }

    pub(crate) fn drops(&mut self, payload: &[u8]) -> DropReason {
        let reason = self.handle(&self.inbound(payload)).expect_err("no reply");
        assert!(self.updates.is_empty(), "a message that is dropped changes nothing");
        reason
    }

    pub(crate) fn binding(&self, lease: Lease) -> Option<Binding> {
        self.server.table().binding(lease)
    }
}

/// What an update sink is for a test that does not look at updates.
pub(crate) struct Ignore;

impl UpdateSink for Ignore {
    fn push(&mut self, _: &Binding, _: u64) {}
}

/// A message in the making.
pub(crate) struct Build(Vec<u8>);

impl Build {
    pub(crate) fn new(msg_type: MessageType) -> Self {
        Self(vec![msg_type.0, XID.0[0], XID.0[1], XID.0[2]])
    }

    /// With the usual client identifier, and the server identifier where the type wants one.
    pub(crate) fn valid(msg_type: MessageType) -> Self {
        let build = Self::new(msg_type).client(CLIENT);
        match msg_type {
            MessageType::REQUEST
            | MessageType::RENEW
            | MessageType::RELEASE
            | MessageType::DECLINE => build.server(SERVER),
            _ => build,
        }
    }

    pub(crate) fn with(mut self, write: impl FnOnce(&mut Emitter<'_>)) -> Self {
        let mut buffer = [0; 4096];
        let mut out = Emitter::new(&mut buffer);
        write(&mut out);
        let len = out.finish().unwrap();
        self.0.extend_from_slice(&buffer[..len]);
        self
    }

    pub(crate) fn option(self, code: OptionCode, data: &[u8]) -> Self {
        self.with(|out| out.option(code, data))
    }

    pub(crate) fn client(self, duid: &[u8]) -> Self {
        self.option(OptionCode::CLIENT_ID, duid)
    }

    pub(crate) fn server(self, duid: &[u8]) -> Self {
        self.option(OptionCode::SERVER_ID, duid)
    }

    pub(crate) fn rapid(self) -> Self {
        self.option(OptionCode::RAPID_COMMIT, &[])
    }

    pub(crate) fn oro(self, codes: &[OptionCode]) -> Self {
        let data: Vec<u8> = codes.iter().flat_map(|code| code.0.to_be_bytes()).collect();
        self.option(OptionCode::ORO, &data)
    }

    pub(crate) fn na(self, iaid: u32, addresses: &[Lease]) -> Self {
        self.with(|out| {
            let ia = out.begin_ia(OptionCode::IA_NA, IaId(iaid), 0, 0);
            addresses.iter().for_each(|lease| out.ia_addr(lease.address, 0, 0));
            out.end(ia);
        })
    }

    pub(crate) fn ta(self, iaid: u32, addresses: &[Lease]) -> Self {
        self.with(|out| {
            let ia = out.begin(OptionCode::IA_TA);
            out.u32(iaid);
            addresses.iter().for_each(|lease| out.ia_addr(lease.address, 0, 0));
            out.end(ia);
        })
    }

    pub(crate) fn pd(self, iaid: u32, prefixes: &[Lease]) -> Self {
        self.with(|out| {
            let ia = out.begin_ia(OptionCode::IA_PD, IaId(iaid), 0, 0);
            prefixes.iter().for_each(|lease| out.ia_prefix(lease.address, lease.prefix_len, 0, 0));
            out.end(ia);
        })
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// One level of relaying.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Level {
    pub(crate) hop_count: u8,
    pub(crate) link: Ipv6Addr,
    pub(crate) peer: Ipv6Addr,
    /// Options except Relay Message.
    pub(crate) options: Vec<(OptionCode, Vec<u8>)>,
}

/// Wraps a message into a RELAY-FORW.
pub(crate) fn relay(level: &Level, message: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; message.len() + 2000];
    let mut out = Emitter::new(&mut buffer);
    out.relay_message(MessageType::RELAY_FORW, level.hop_count, level.link, level.peer);
    for (code, data) in &level.options {
        out.option(*code, data);
    }
    out.option(OptionCode::RELAY_MSG, message);
    let len = out.finish().unwrap();
    buffer.truncate(len);
    buffer
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct IaAnswer {
    pub(crate) kind: IaKind,
    pub(crate) iaid: u32,
    pub(crate) t1: u32,
    pub(crate) t2: u32,
    /// Lease, preferred and valid lifetime.
    pub(crate) leases: Vec<(Lease, u32, u32)>,
    pub(crate) status: Option<StatusCode>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    /// The outermost first.
    pub(crate) relays: Vec<Level>,
    pub(crate) msg_type: MessageType,
    pub(crate) status: Option<StatusCode>,
    pub(crate) ias: Vec<IaAnswer>,
    /// All options but identifiers, status and IAs.
    pub(crate) options: Vec<(OptionCode, Vec<u8>)>,
}

fn status(options: &Options<'_>) -> Option<StatusCode> {
    options.first(OptionCode::STATUS_CODE).map(|data| Status::parse(data).unwrap().code)
}

impl Answer {
    /// Reads a reply and checks what is true of every reply.
    pub(crate) fn read(octets: &[u8]) -> Self {
        let mut relays = Vec::new();
        let mut octets = octets;
        let message = loop {
            match Packet::parse(octets).expect("a well-formed reply") {
                Packet::Relay(message) => {
                    assert_eq!(message.msg_type, MessageType::RELAY_REPL);
                    let rest = message.options.iter().filter(|o| o.code != OptionCode::RELAY_MSG);
                    relays.push(Level {
                        hop_count: message.hop_count,
                        link: message.link_address,
                        peer: message.peer_address,
                        options: rest.map(|o| (o.code, o.data.to_vec())).collect(),
                    });
                    octets = message.relayed().expect("a Relay Message option");
                }
                Packet::Client(message) => break message,
            }
        };
        Self::read_message(relays, &message)
    }

    fn read_message(relays: Vec<Level>, message: &Message<'_>) -> Self {
        assert!(
            matches!(message.msg_type, MessageType::ADVERTISE | MessageType::REPLY),
            "{:?}",
            message.msg_type
        );
        assert_eq!(message.options.first(OptionCode::SERVER_ID), Some(SERVER));
        let mut ias = Vec::new();
        let mut options = Vec::new();
        let mut order = Vec::new();
        for option in message.options {
            let rank = match option.code {
                OptionCode::CLIENT_ID => 0,
                OptionCode::SERVER_ID => 1,
                OptionCode::STATUS_CODE => 2,
                OptionCode::IA_NA | OptionCode::IA_TA | OptionCode::IA_PD => {
                    ias.push(IaAnswer::read(option.code, option.data));
                    3
                }
                code => {
                    options.push((code, option.data.to_vec()));
                    4
                }
            };
            order.push(rank);
        }
        assert!(order.is_sorted(), "order of the options: {order:?}");
        let live: Vec<_> =
            ias.iter().filter(|ia| !ia.leases.is_empty()).map(|ia| (ia.t1, ia.t2)).collect();
        assert!(live.windows(2).all(|pair| pair[0] == pair[1]), "one T1 and T2: {live:?}");
        let status = status(&message.options);
        Self { relays, msg_type: message.msg_type, status, ias, options }
    }

    /// The one lease of an IA.
    pub(crate) fn lease(&self, kind: IaKind, iaid: u32) -> Lease {
        let ia = self.ia(kind, iaid);
        assert_eq!(ia.status, None);
        let [(lease, preferred, valid)] = ia.leases[..] else { panic!("{ia:?}") };
        assert!(preferred > 0 && valid >= preferred);
        lease
    }

    pub(crate) fn ia(&self, kind: IaKind, iaid: u32) -> &IaAnswer {
        let mut found = self.ias.iter().filter(|ia| ia.kind == kind && ia.iaid == iaid);
        let ia = found.next().unwrap_or_else(|| panic!("no IA {kind} {iaid} in {self:?}"));
        assert!(found.next().is_none());
        ia
    }

    pub(crate) fn codes(&self) -> Vec<OptionCode> {
        self.options.iter().map(|(code, _)| *code).collect()
    }
}

impl IaAnswer {
    fn read(code: OptionCode, data: &[u8]) -> Self {
        let (kind, iaid, t1, t2, options) = match code {
            OptionCode::IA_TA => {
                let ia = IaTa::parse(data).unwrap();
                (IaKind::Ta, ia.iaid, 0, 0, ia.options)
            }
            code => {
                let ia = Ia::parse(data).unwrap();
                let kind = if code == OptionCode::IA_PD { IaKind::Pd } else { IaKind::Na };
                (kind, ia.iaid, ia.t1, ia.t2, ia.options)
            }
        };
        assert!(t1 <= t2, "T1 {t1} after T2 {t2}");
        let mut leases = Vec::new();
        for option in options {
            match option.code {
                OptionCode::IA_ADDR if kind != IaKind::Pd => {
                    let body = IaAddr::parse(option.data).unwrap();
                    leases.push((Lease::address(body.address), body.preferred, body.valid));
                }
                OptionCode::IA_PREFIX if kind == IaKind::Pd => {
                    let body = IaPrefix::parse(option.data).unwrap();
                    let lease = Lease::prefix(body.prefix, body.prefix_len);
                    leases.push((lease, body.preferred, body.valid));
                }
                OptionCode::STATUS_CODE => {}
                code => panic!("{code} in an IA"),
            }
        }
        assert!(leases.iter().all(|(_, preferred, valid)| preferred <= valid));
        Self { kind, iaid: iaid.0, t1, t2, leases, status: status(&options) }
    }
}
