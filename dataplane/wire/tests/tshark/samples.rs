//! One message or more of each type, every option among them, and what a dissector must see.

use gemel_wire::{
    Emitter, IaId, MessageType, Status, StatusCode, TransactionId,
    failover::{
        BindingStatus, BndReply, BndUpd, ClientData, ClientReply, Connect, ConnectFlags,
        ConnectParameters, ConnectReply, Disconnect, DnsFlags, DnsName, DnsRemovalInfo,
        FailoverOption, FailoverTime, Header, IaHeader, IaKind, Lease, LeaseHead, LeaseReply,
        LeaseState, Mclt, PrefixLease, PrefixReply, ProtocolVersion, ReconfigureData,
        RelationshipName, RelayData, ServerFlags, ServerState, StateMsg,
    },
};

/// A frame, and per field of the dissector all values it has in this frame, in their order.
pub(crate) struct Sample {
    pub(crate) frame: Vec<u8>,
    pub(crate) fields: Vec<(&'static str, Vec<String>)>,
}

/// The values of a field.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$($value.to_string()),*] };
}

const NOT_PERMITTED: &str = "This message type is not permitted to use OPTION_CLIENT_FQDN";

const SENT_TIME: u32 = 0xf000_0001;

pub(crate) fn samples() -> Vec<Sample> {
    let mut samples =
        vec![connect(), connect_reply(), connect_refused(), disconnect(), bndupd_client()];
    samples.extend([bndupd_prefix(), bndreply_client(), bndreply_prefix(), state()]);
    samples.push(dns_options());
    for msg_type in (26..=30).chain([35]).map(MessageType) {
        samples.push(sample(msg_type, vec![], |header, out| header.emit_bare(msg_type, out)));
    }
    samples
}

/// Adds what the header holds. Each type of message has a transaction id of its own.
fn sample(
    msg_type: MessageType,
    mut fields: Vec<(&'static str, Vec<String>)>,
    emit: impl FnOnce(Header, &mut Emitter<'_>),
) -> Sample {
    let header = Header {
        transaction_id: TransactionId([0xab, 0, msg_type.0]),
        sent_time: FailoverTime(SENT_TIME),
    };
    let mut buffer = vec![0; 65_537];
    let mut out = Emitter::new(&mut buffer);
    emit(header, &mut out);
    let len = out.finish().unwrap();
    buffer.truncate(len);
    fields.push(("dhcp6fo.len", values![len - 2]));
    fields.push(("dhcp6fo.type", values![msg_type.0]));
    fields.push(("dhcp6fo.xid", values![format!("0xab00{:02x}", msg_type.0)]));
    fields.push(("dhcp6fo.sent_time", values![SENT_TIME]));
    Sample { frame: buffer, fields }
}

/// The options that belong into OPTION_F_DNS_REMOVAL_INFO, where Wireshark does not look.
fn dns_options() -> Sample {
    let host_name = DnsName::parse(b"\x04host\x07example\x00").unwrap();
    let zone_name = DnsName::parse(b"\x07example\x00").unwrap();
    let flags = DnsFlags::USING_REQUESTED_FQDN.with(DnsFlags::REV_UPTODATE);
    let fields = vec![
        ("dhcpv6.option.type", values![117, 118, 119]),
        ("dhcpv6.failover.dns_hostname", values!["host.example"]),
        ("dhcpv6.failover.dns_zonename", values!["example"]),
        ("dhcpv6.failover.dns.flags", values!["0x000a"]),
        ("dhcpv6.failover.dns.flags.u", values![1]),
        ("dhcpv6.failover.dns.flags.s", values![0]),
        ("dhcpv6.failover.dns.flags.r", values![1]),
        ("dhcpv6.failover.dns.flags.f", values![0]),
    ];
    sample(MessageType::CONTACT, fields, |header, out| {
        header.emit(MessageType::CONTACT, out, |out| {
            FailoverOption::DnsHostName(host_name).emit(out);
            FailoverOption::DnsZoneName(zone_name).emit(out);
            FailoverOption::DnsFlags(flags).emit(out);
        });
    })
}

fn parameters() -> (ConnectParameters, Vec<(&'static str, Vec<String>)>) {
    let parameters = ConnectParameters {
        protocol_version: ProtocolVersion { major: 1, minor: 513 },
        mclt: Mclt(3601),
        keepalive_secs: 61,
        max_unacked_bndupd: 70_000,
        connect_flags: ConnectFlags::FIXED_PD_LENGTH,
    };
    let fields = vec![
        ("dhcpv6.option.type", values![127, 122, 128, 121, 115]),
        ("dhcpv6.failover.protocol.major_version", values![1]),
        ("dhcpv6.failover.protocol.minor_version", values![513]),
        ("dhcpv6.failover.mclt", values![3601]),
        ("dhcpv6.failover.keepalive_time", values![61]),
        ("dhcpv6.failover.max_unacked_bndupd", values![70_000]),
        ("dhcpv6.failover.connect.flags", values!["0x0001"]),
        ("dhcpv6.failover.connect.flags.f", values![1]),
    ];
    (parameters, fields)
}

fn connect() -> Sample {
    let (parameters, mut fields) = parameters();
    fields[0].1.push(130.to_string());
    fields.push(("dhcpv6.failover.relationship_name", values!["north-south"]));
    let relationship_name = Some(RelationshipName::new("north-south").unwrap());
    sample(MessageType::CONNECT, fields, |header, out| {
        Connect { parameters, relationship_name }.emit(header, out);
    })
}

fn connect_reply() -> Sample {
    let (parameters, fields) = parameters();
    sample(MessageType::CONNECTREPLY, fields, |header, out| {
        ConnectReply::Accepted(parameters).emit(header, out);
    })
}

fn connect_refused() -> Sample {
    let status = Status { code: StatusCode::EXCESSIVE_TIME_SKEW, message: b"9 seconds" };
    let fields = vec![
        ("dhcpv6.option.type", values![13]),
        ("dhcpv6.status_code", values![22]),
        ("dhcpv6.status_msg", values!["9 seconds"]),
    ];
    sample(MessageType::CONNECTREPLY, fields, |header, out| {
        ConnectReply::Rejected(status).emit(header, out);
    })
}

fn disconnect() -> Sample {
    let status = Status { code: StatusCode::SERVER_SHUTTING_DOWN, message: b"upgrade" };
    let fields = vec![
        ("dhcpv6.option.type", values![13]),
        ("dhcpv6.status_code", values![20]),
        ("dhcpv6.status_msg", values!["upgrade"]),
    ];
    sample(MessageType::DISCONNECT, fields, |header, out| {
        Disconnect { status: Some(status) }.emit(header, out);
    })
}

fn state() -> Sample {
    let message = StateMsg {
        server_state: ServerState::PARTNER_DOWN,
        server_flags: ServerFlags::ACK_STARTUP.with(ServerFlags::COMMUNICATED),
        start_time_of_state: FailoverTime(801),
        partner_down_time: Some(FailoverTime(802)),
    };
    let fields = vec![
        ("dhcpv6.option.type", values![132, 131, 133, 125]),
        ("dhcpv6.failover.server_state", values![4]),
        ("dhcpv6.failover.server.flags", values!["0x05"]),
        ("dhcpv6.failover.server.flags.a", values![1]),
        ("dhcpv6.failover.server.flags.s", values![0]),
        ("dhcpv6.failover.server.flags.c", values![1]),
        ("dhcpv6.failover.start_time_of_state", values![801]),
        ("dhcpv6.failover.partner_down_time", values![802]),
    ];
    sample(MessageType::STATE, fields, |header, out| message.emit(header, out))
}

fn head(kind: IaKind, iaid: u32, address: &str, prefix_len: u8) -> LeaseHead {
    let ia = IaHeader { kind, iaid: IaId(iaid), t1: 501, t2: 801 };
    let address = address.parse().unwrap();
    LeaseHead { ia, address, prefix_len, preferred: 1001, valid: 1601 }
}

/// The client's leases: two in an IA_NA, one in an IA_TA, one in an IA_PD.
fn leases() -> [Lease<'static>; 4] {
    let all = LeaseState {
        state_expiration_time: Some(FailoverTime(903)),
        clt_secs: Some(904),
        partner_lifetime: Some(FailoverTime(905)),
        partner_raw_clt_time: Some(FailoverTime(906)),
        expiration_time: Some(FailoverTime(907)),
        client_fqdn: Some(b"\x01\x01h\x07example\x00"),
        dns_removal_info: Some(DnsRemovalInfo {
            host_name: Some(DnsName::parse(b"\x01h\x00").unwrap()),
            zone_name: Some(DnsName::parse(b"\x07example\x00").unwrap()),
            flags: Some(DnsFlags::FWD_UPTODATE),
        }),
        ..LeaseState::new(BindingStatus::ACTIVE, FailoverTime(902))
    };
    let few = |status, start| LeaseState::new(status, FailoverTime(start));
    [
        Lease { head: head(IaKind::Na, 0x0a0b_0c01, "2001:db8::11", 128), state: all },
        Lease {
            head: head(IaKind::Na, 0x0a0b_0c01, "2001:db8::12", 128),
            state: few(BindingStatus::EXPIRED, 912),
        },
        Lease {
            head: head(IaKind::Ta, 0x0a0b_0c02, "2001:db8::13", 128),
            state: few(BindingStatus::RELEASED, 922),
        },
        Lease {
            head: head(IaKind::Pd, 0x0a0b_0c03, "2001:db8:5500::", 56),
            state: few(BindingStatus::RESET, u32::MAX),
        },
    ]
}

fn bndupd_client() -> Sample {
    let client = ClientData {
        client_id: &[0, 3, 0, 1, 2, 0, 0, 0, 0, 9],
        base_time: FailoverTime(1_000_001),
        vss: None,
        reconfigure_data: Some(ReconfigureData {
            reconfigure_time: FailoverTime(901),
            reconfigure_key: &[0xde, 0xad, 0xbe, 0xef],
        }),
        relay_data: Some(RelayData {
            peer_address: "2001:db8::99".parse().unwrap(),
            relay_message: &[12, 0],
        }),
    };
    let ia_na = [3, 5, 114, 133, 134, 46, 123, 126, 120, 39, 116, 5, 114, 133];
    let options = [45, 1, 100, 129, 47].into_iter().chain(ia_na);
    let options = options.chain([4, 5, 114, 133, 25, 26, 114, 133]);
    let fields = vec![
        ("dhcpv6.option.type", options.map(|code| code.to_string()).collect()),
        ("dhcpv6.duid.bytes", values!["00:03:00:01:02:00:00:00:00:09"]),
        ("dhcpv6.failover.reconfigure_time", values![901]),
        ("dhcpv6.failover.reconfigure_key", values!["de:ad:be:ef"]),
        ("dhcpv6.lq_relay_data_peer_addr", values!["2001:db8::99"]),
        ("dhcpv6.iaid", values!["0a0b0c01", "0a0b0c03"]),
        ("dhcpv6.iata", values!["0a0b0c02"]),
        ("dhcpv6.iaid.t1", values![501, 501]),
        ("dhcpv6.iaid.t2", values![801, 801]),
        ("dhcpv6.iaaddr.ip", values!["2001:db8::11", "2001:db8::12", "2001:db8::13"]),
        ("dhcpv6.iaaddr.pref_lifetime", values![1001, 1001, 1001]),
        ("dhcpv6.iaaddr.valid_lifetime", values![1601, 1601, 1601]),
        ("dhcpv6.iaprefix.pref_addr", values!["2001:db8:5500::"]),
        ("dhcpv6.iaprefix.pref_len", values![56]),
        ("dhcpv6.iaprefix.pref_lifetime", values![1001]),
        ("dhcpv6.iaprefix.valid_lifetime", values![1601]),
        ("dhcpv6.failover.binding_status", values![1, 2, 3, 8]),
        ("dhcpv6.failover.start_time_of_state", values![902, 912, 922, u32::MAX]),
        ("dhcpv6.failover.state_expiration_time", values![903]),
        ("dhcpv6.clt_time", values![904]),
        ("dhcpv6.failover.partner_lifetime", values![905]),
        ("dhcpv6.failover.partner_raw_clt_time", values![906]),
        ("dhcpv6.failover.expiration_time", values![907]),
        // Wireshark looks into OPTION_CLIENT_FQDN in messages of clients only, and says so.
        ("_ws.expert.message", values![NOT_PERMITTED]),
    ];
    sample(MessageType::BNDUPD, fields, |header, out| {
        BndUpd::emit_client(&client, leases(), header, out);
    })
}

fn prefix() -> PrefixLease<'static> {
    PrefixLease {
        prefix: "2001:db8:7700::".parse().unwrap(),
        prefix_len: 40,
        preferred: 11,
        valid: 12,
        base_time: FailoverTime(1_000_002),
        vss: None,
        state: LeaseState {
            state_expiration_time: Some(FailoverTime(933)),
            partner_lifetime: Some(FailoverTime(935)),
            expiration_time: Some(FailoverTime(937)),
            ..LeaseState::new(BindingStatus::FREE_BACKUP, FailoverTime(932))
        },
    }
}

fn bndupd_prefix() -> Sample {
    let fields = vec![
        ("dhcpv6.option.type", values![26, 100, 114, 133, 134, 123, 120]),
        ("dhcpv6.iaprefix.pref_addr", values!["2001:db8:7700::"]),
        ("dhcpv6.iaprefix.pref_len", values![40]),
        ("dhcpv6.iaprefix.pref_lifetime", values![11]),
        ("dhcpv6.iaprefix.valid_lifetime", values![12]),
        ("dhcpv6.failover.binding_status", values![6]),
        ("dhcpv6.failover.start_time_of_state", values![932]),
        ("dhcpv6.failover.state_expiration_time", values![933]),
        ("dhcpv6.failover.partner_lifetime", values![935]),
        ("dhcpv6.failover.expiration_time", values![937]),
    ];
    sample(MessageType::BNDUPD, fields, |header, out| BndUpd::emit_prefix(&prefix(), header, out))
}

/// The first lease is accepted, the others rejected.
fn bndreply_client() -> Sample {
    let client =
        ClientReply { client_id: &[0, 3, 0, 1, 2, 0, 0, 0, 0, 9], vss: None, status: None };
    let mut replies = leases().each_ref().map(LeaseReply::accept);
    let status = Status { code: StatusCode::ADDRESS_IN_USE, message: b"taken" };
    replies[1..].iter_mut().for_each(|reply| reply.ack.status = Some(status));
    let codes = [45, 1, 3, 5, 114, 134, 124, 5, 13, 114, 4, 5, 13, 114, 25, 26, 13, 114];
    let fields = vec![
        ("dhcpv6.option.type", codes.map(|code| code.to_string()).to_vec()),
        ("dhcpv6.iaaddr.ip", values!["2001:db8::11", "2001:db8::12", "2001:db8::13"]),
        ("dhcpv6.iaprefix.pref_addr", values!["2001:db8:5500::"]),
        ("dhcpv6.status_code", values![16, 16, 16]),
        ("dhcpv6.status_msg", values!["taken", "taken", "taken"]),
        ("dhcpv6.failover.binding_status", values![1, 2, 3, 8]),
        ("dhcpv6.failover.state_expiration_time", values![903]),
        ("dhcpv6.failover.partner_lifetime_sent", values![905]),
    ];
    sample(MessageType::BNDREPLY, fields, |header, out| {
        BndReply::emit_client(&client, replies, header, out);
    })
}

fn bndreply_prefix() -> Sample {
    let fields = vec![
        ("dhcpv6.option.type", values![26, 114, 134, 124]),
        ("dhcpv6.iaprefix.pref_addr", values!["2001:db8:7700::"]),
        ("dhcpv6.iaprefix.pref_len", values![40]),
        ("dhcpv6.failover.binding_status", values![6]),
        ("dhcpv6.failover.state_expiration_time", values![933]),
        ("dhcpv6.failover.partner_lifetime_sent", values![935]),
    ];
    sample(MessageType::BNDREPLY, fields, |header, out| {
        BndReply::emit_prefix(&PrefixReply::accept(&prefix()), header, out);
    })
}
