//! Failover messages at random, written with the emitters.

use std::net::Ipv6Addr;

use gemel_wire::{
    Emitter, IaId, MessageType, Status, StatusCode, TransactionId,
    failover::{
        Ack, BindingStatus, BndReply, BndUpd, ClientData, ClientReply, Connect, ConnectFlags,
        ConnectParameters, ConnectReply, Disconnect, DnsFlags, DnsName, DnsRemovalInfo,
        FailoverTime, Header, IaHeader, IaKind, Lease, LeaseHead, LeaseReply, LeaseState, Mclt,
        PrefixLease, PrefixReply, ProtocolVersion, ReconfigureData, RelationshipName, RelayData,
        ServerFlags, ServerState, StartTls, StateMsg,
    },
};
use proptest::{collection::vec, option, prelude::*, sample::select};

/// Whole frames with their size field.
pub(crate) fn frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => bndupd_client(),
        2 => bndupd_prefix(),
        5 => bndreply_client(),
        2 => bndreply_prefix(),
        2 => (26..=30_u8, header()).prop_map(|(t, h)| emit(|out| h.emit_bare(MessageType(t), out))),
        2 => connect(),
        2 => connect_reply(),
        1 => (option::of(status()), header()).prop_map(|(status, header)| {
            let status = status.as_ref().map(as_status);
            emit(|out| Disconnect { status }.emit(header, out))
        }),
        2 => state(),
        1 => header().prop_map(|h| emit(|out| h.emit_bare(MessageType::CONTACT, out))),
        1 => start_tls(),
    ]
}

fn emit(write: impl FnOnce(&mut Emitter<'_>)) -> Vec<u8> {
    let mut buffer = vec![0; 65_537];
    let mut out = Emitter::new(&mut buffer);
    write(&mut out);
    let len = out.finish().expect("far below the limit");
    buffer.truncate(len);
    buffer
}

fn header() -> impl Strategy<Value = Header> {
    (any::<[u8; 3]>(), time())
        .prop_map(|(xid, sent_time)| Header { transaction_id: TransactionId(xid), sent_time })
}

fn time() -> impl Strategy<Value = FailoverTime> {
    prop_oneof![3 => any::<u32>(), 1 => Just(0), 1 => Just(u32::MAX)].prop_map(FailoverTime)
}

fn octets(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), len)
}

type OwnedStatus = (StatusCode, Vec<u8>);

fn status() -> impl Strategy<Value = OwnedStatus> {
    (prop_oneof![0..23_u16, any::<u16>()].prop_map(StatusCode), octets(0..12))
}

fn as_status((code, message): &OwnedStatus) -> Status<'_> {
    Status { code: *code, message }
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    (vec(octets(1..9), 0..4), any::<bool>()).prop_map(|(labels, complete)| {
        let mut name = Vec::new();
        for label in labels {
            name.push(u8::try_from(label.len()).unwrap());
            name.extend(label);
        }
        name.extend(complete.then_some(0));
        name
    })
}

fn as_name(octets: &[u8]) -> DnsName<'_> {
    DnsName::parse(octets).expect("made of labels")
}

fn ia() -> impl Strategy<Value = IaHeader> {
    // Few of them, so that neighbours have one in common.
    (select(&[IaKind::Na, IaKind::Ta, IaKind::Pd][..]), 0..3_u32, 0..2_u32, 0..2_u32)
        .prop_map(|(kind, iaid, t1, t2)| IaHeader { kind, iaid: IaId(iaid), t1, t2 })
}

fn head() -> impl Strategy<Value = LeaseHead> {
    (ia(), any::<Ipv6Addr>(), 0..=128_u8, any::<u32>(), any::<u32>()).prop_map(
        |(ia, address, prefix_len, preferred, valid)| LeaseHead {
            ia,
            address,
            prefix_len,
            preferred,
            valid,
        },
    )
}

type OwnedDns = (Option<Vec<u8>>, Option<Vec<u8>>, Option<u16>);

#[derive(Clone, Debug)]
struct OwnedState {
    state: LeaseState<'static>,
    fqdn: Option<Vec<u8>>,
    dns: Option<OwnedDns>,
}

impl OwnedState {
    fn as_state(&self) -> LeaseState<'_> {
        LeaseState {
            client_fqdn: self.fqdn.as_deref(),
            dns_removal_info: self.dns.as_ref().map(|(host, zone, flags)| DnsRemovalInfo {
                host_name: host.as_deref().map(as_name),
                zone_name: zone.as_deref().map(as_name),
                flags: flags.map(DnsFlags),
            }),
            ..self.state
        }
    }
}

fn lease_state() -> impl Strategy<Value = OwnedState> {
    let times = (
        option::of(time()),
        option::of(any::<u32>()),
        option::of(time()),
        option::of(time()),
        option::of(time()),
    );
    let dns = (option::of(name()), option::of(name()), option::of(any::<u16>()));
    (any::<u8>(), time(), times, option::of(octets(0..9)), option::of(dns)).prop_map(
        |(status, start, (ends, clt_secs, lifetime, raw, expiration), fqdn, dns)| {
            let state = LeaseState {
                state_expiration_time: ends,
                clt_secs,
                partner_lifetime: lifetime,
                partner_raw_clt_time: raw,
                expiration_time: expiration,
                ..LeaseState::new(BindingStatus(status), start)
            };
            OwnedState { state, fqdn, dns }
        },
    )
}

fn bndupd_client() -> impl Strategy<Value = Vec<u8>> {
    let client = (
        octets(3..20),
        time(),
        option::of(octets(1..9)),
        option::of((time(), octets(0..17))),
        option::of((any::<Ipv6Addr>(), octets(0..40))),
    );
    (client, vec((head(), lease_state()), 1..7), header()).prop_map(
        |((client_id, base_time, vss, key, relay), leases, header)| {
            let client = ClientData {
                client_id: &client_id,
                base_time,
                vss: vss.as_deref(),
                reconfigure_data: key.as_ref().map(|(time, key)| ReconfigureData {
                    reconfigure_time: *time,
                    reconfigure_key: key,
                }),
                relay_data: relay.as_ref().map(|(peer, message)| RelayData {
                    peer_address: *peer,
                    relay_message: message,
                }),
            };
            let leases =
                leases.iter().map(|(head, state)| Lease { head: *head, state: state.as_state() });
            emit(|out| BndUpd::emit_client(&client, leases, header, out))
        },
    )
}

fn bndupd_prefix() -> impl Strategy<Value = Vec<u8>> {
    (head(), time(), option::of(octets(1..9)), lease_state(), header()).prop_map(
        |(head, base_time, vss, state, header)| {
            let lease = PrefixLease {
                prefix: head.address,
                prefix_len: head.prefix_len,
                preferred: head.preferred,
                valid: head.valid,
                base_time,
                vss: vss.as_deref(),
                state: state.as_state(),
            };
            emit(|out| BndUpd::emit_prefix(&lease, header, out))
        },
    )
}

type OwnedAck = (Option<OwnedStatus>, Option<u8>, Option<FailoverTime>, Option<FailoverTime>);

fn ack() -> impl Strategy<Value = OwnedAck> {
    (option::of(status()), option::of(any::<u8>()), option::of(time()), option::of(time()))
}

fn as_ack((status, binding, ends, sent): &OwnedAck) -> Ack<'_> {
    Ack {
        status: status.as_ref().map(as_status),
        binding_status: binding.map(BindingStatus),
        state_expiration_time: *ends,
        partner_lifetime_sent: *sent,
    }
}

fn bndreply_client() -> impl Strategy<Value = Vec<u8>> {
    let client = (octets(3..20), option::of(octets(1..9)), option::of(status()));
    (client, vec((head(), ack()), 0..7), header()).prop_map(
        |((client_id, vss, status), leases, header)| {
            let (vss, status) = (vss.as_deref(), status.as_ref().map(as_status));
            let client = ClientReply { client_id: &client_id, vss, status };
            let leases =
                leases.iter().map(|(head, ack)| LeaseReply { head: *head, ack: as_ack(ack) });
            emit(|out| BndReply::emit_client(&client, leases, header, out))
        },
    )
}

fn bndreply_prefix() -> impl Strategy<Value = Vec<u8>> {
    (head(), option::of(octets(1..9)), ack(), header()).prop_map(|(head, vss, ack, header)| {
        let reply = PrefixReply {
            prefix: head.address,
            prefix_len: head.prefix_len,
            preferred: head.preferred,
            valid: head.valid,
            vss: vss.as_deref(),
            ack: as_ack(&ack),
        };
        emit(|out| BndReply::emit_prefix(&reply, header, out))
    })
}

fn parameters() -> impl Strategy<Value = ConnectParameters> {
    any::<(u16, u16, u32, u32, u32, u16)>().prop_map(
        |(major, minor, mclt, keepalive, max, flags)| ConnectParameters {
            protocol_version: ProtocolVersion { major, minor },
            mclt: Mclt(mclt),
            keepalive_secs: keepalive,
            max_unacked_bndupd: max,
            connect_flags: ConnectFlags(flags),
        },
    )
}

fn connect() -> impl Strategy<Value = Vec<u8>> {
    let name = vec(any::<char>(), 0..9).prop_map(String::from_iter);
    (parameters(), option::of(name), header()).prop_map(|(parameters, name, header)| {
        let name = name.as_deref().and_then(|name| RelationshipName::new(name).ok());
        emit(|out| Connect { parameters, relationship_name: name }.emit(header, out))
    })
}

fn connect_reply() -> impl Strategy<Value = Vec<u8>> {
    let rejection = status().prop_filter("Success rejects nothing", |(code, _)| code.0 != 0);
    prop_oneof![
        (parameters(), header())
            .prop_map(|(it, header)| { emit(|out| ConnectReply::Accepted(it).emit(header, out)) }),
        (rejection, header()).prop_map(|(status, header)| {
            emit(|out| ConnectReply::Rejected(as_status(&status)).emit(header, out))
        }),
    ]
}

fn state() -> impl Strategy<Value = Vec<u8>> {
    (prop_oneof![0..11_u8, any::<u8>()], any::<u8>(), time(), time(), header()).prop_map(
        |(state, flags, start, down, header)| {
            let message = StateMsg {
                server_state: ServerState(state),
                server_flags: ServerFlags(flags),
                start_time_of_state: start,
                partner_down_time: Some(down),
            };
            emit(|out| message.emit(header, out))
        },
    )
}

fn start_tls() -> impl Strategy<Value = Vec<u8>> {
    (any::<[u8; 3]>().prop_map(TransactionId), 0..3_u8).prop_map(|(xid, which)| {
        let message = match which {
            0 => StartTls::Request(xid),
            1 => StartTls::Accepted(xid),
            _ => StartTls::Refused(xid, StatusCode::TLS_CONNECTION_REFUSED),
        };
        emit(|out| message.emit(out))
    })
}
