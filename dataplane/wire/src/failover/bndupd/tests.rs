use super::*;
use crate::failover::testing::{HEADER, frame, parse_frame, without_options};
use crate::failover::{
    BindingStatus, DnsFlags, DnsName, DnsRemovalInfo, FailoverOption, FailoverTime, IaHeader,
    IaKind, LeaseHead, LeaseState, ReconfigureData, RelayData,
};
use crate::{IaId, StatusCode};

const BASE: FailoverTime = FailoverTime(1000);

fn client() -> ClientData<'static> {
    ClientData {
        client_id: &[0, 3, 0, 1, 2, 0, 0, 0, 0, 9],
        base_time: BASE,
        vss: Some(&[0, b'v']),
        reconfigure_data: Some(ReconfigureData {
            reconfigure_time: FailoverTime(5),
            reconfigure_key: &[7; 16],
        }),
        relay_data: Some(RelayData {
            peer_address: "fe80::1".parse().unwrap(),
            relay_message: &[12; 34],
        }),
    }
}

fn lease(kind: IaKind, iaid: u32, last: u16) -> Lease<'static> {
    let (t1, t2) = if kind == IaKind::Ta { (0, 0) } else { (50, 80) };
    let ia = IaHeader { kind, iaid: IaId(iaid), t1, t2 };
    let address = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
    let prefix_len = if kind == IaKind::Pd { 56 } else { 128 };
    let state = LeaseState {
        binding_status: BindingStatus::ACTIVE,
        start_time_of_state: FailoverTime(990),
        state_expiration_time: Some(FailoverTime(1090)),
        clt_secs: Some(10),
        partner_lifetime: Some(FailoverTime(1140)),
        partner_raw_clt_time: Some(FailoverTime(900)),
        expiration_time: Some(FailoverTime(1050)),
        client_fqdn: Some(b"\x01\x01h"),
        dns_removal_info: Some(DnsRemovalInfo {
            host_name: Some(DnsName::parse(b"\x01h\x00").unwrap()),
            zone_name: Some(DnsName::parse(b"\x01z\x00").unwrap()),
            flags: Some(DnsFlags::FWD_UPTODATE),
        }),
    };
    Lease { head: LeaseHead { ia, address, prefix_len, preferred: 60, valid: 90 }, state }
}

fn leases() -> [Lease<'static>; 5] {
    [
        lease(IaKind::Na, 1, 1),
        lease(IaKind::Na, 1, 2),
        lease(IaKind::Na, 2, 3),
        lease(IaKind::Ta, 2, 4),
        lease(IaKind::Pd, 2, 0),
    ]
}

fn prefix() -> PrefixLease<'static> {
    let state = LeaseState {
        state_expiration_time: Some(FailoverTime(7)),
        ..LeaseState::new(BindingStatus::FREE_BACKUP, FailoverTime(6))
    };
    let prefix = "2001:db8:1::".parse().unwrap();
    PrefixLease {
        prefix,
        prefix_len: 56,
        preferred: 0,
        valid: 0,
        base_time: BASE,
        vss: None,
        state,
    }
}

/// A BNDUPD with these octets as client-options.
fn with_client_options(options: &[u8]) -> Vec<u8> {
    frame(|out| {
        HEADER.emit(MessageType::BNDUPD, out, |out| out.option(OptionCode::CLIENT_DATA, options));
    })
}

fn client_options() -> Vec<u8> {
    let octets = frame(|out| BndUpd::emit_client(&client(), leases(), HEADER, out));
    parse_frame(&octets).options.first(OptionCode::CLIENT_DATA).unwrap().to_vec()
}

#[test]
fn client_with_leases_of_all_kinds() {
    let octets = frame(|out| BndUpd::emit_client(&client(), leases(), HEADER, out));
    let Ok(BndUpd::Client(binding)) = BndUpd::parse(&parse_frame(&octets)) else {
        panic!("not the binding of a client")
    };
    assert_eq!(binding.client, client());
    let read: Vec<_> = binding.leases().map(|entry| entry.unwrap().lease().unwrap()).collect();
    assert_eq!(read, leases());
    let clt = read[0].state.client_last_transaction_time(BASE);
    assert_eq!(clt, Some(FailoverTime(990)));
    // Neighbours share their IA.
    assert_eq!(binding.options.all(OptionCode::IA_NA).count(), 2);
}

#[test]
fn prefix_without_a_client() {
    let octets = frame(|out| BndUpd::emit_prefix(&prefix(), HEADER, out));
    assert_eq!(BndUpd::parse(&parse_frame(&octets)), Ok(BndUpd::Prefix(prefix())));
    let body = parse_frame(&octets).options.first(OptionCode::IA_PREFIX).unwrap().to_vec();
    for option in
        [OptionCode::LQ_BASE_TIME, OptionCode::F_BINDING_STATUS, OptionCode::F_START_TIME_OF_STATE]
    {
        let body = [&body[..25], &without_options(&body[25..], option)].concat();
        let octets = frame(|out| {
            HEADER.emit(MessageType::BNDUPD, out, |out| out.option(OptionCode::IA_PREFIX, &body));
        });
        let error = FailoverError::Missing { within: "OPTION_IAPREFIX", option };
        assert_eq!(BndUpd::parse(&parse_frame(&octets)), Err(error));
    }
}

#[test]
fn names_what_the_client_lacks() {
    for option in [OptionCode::CLIENT_ID, OptionCode::LQ_BASE_TIME] {
        let octets = with_client_options(&without_options(&client_options(), option));
        let error = FailoverError::Missing { within: "OPTION_CLIENT_DATA", option };
        assert_eq!(BndUpd::parse(&parse_frame(&octets)), Err(error));
    }
    let octets = frame(|out| BndUpd::emit_client(&client(), [], HEADER, out));
    let error = BndUpd::parse(&parse_frame(&octets)).unwrap_err();
    assert!(matches!(error, FailoverError::MissingOneOf { within: "OPTION_CLIENT_DATA", .. }));
    let options = without_options(&client_options(), OptionCode::CLIENT_ID);
    let mut short = vec![0, 1, 0, 2, 0, 1];
    short.extend(options);
    let octets = with_client_options(&short);
    assert!(matches!(BndUpd::parse(&parse_frame(&octets)), Err(FailoverError::Wire(_))));
}

#[test]
fn one_client_or_one_prefix() {
    let subjects = |count_client: usize, count_prefix: usize| {
        let octets = frame(|out| {
            HEADER.emit(MessageType::BNDUPD, out, |out| {
                (0..count_client).for_each(|_| out.option(OptionCode::CLIENT_DATA, &[]));
                (0..count_prefix).for_each(|_| out.option(OptionCode::IA_PREFIX, &[0; 25]));
            });
        });
        BndSubject::of(&parse_frame(&octets)).map(|_| ())
    };
    let not_single = |option| Err(FailoverError::NotSingle { within: "BNDUPD", option });
    assert_eq!((subjects(1, 0), subjects(0, 1)), (Ok(()), Ok(())));
    assert!(matches!(subjects(0, 0), Err(FailoverError::MissingOneOf { within: "BNDUPD", .. })));
    assert_eq!(subjects(2, 0), not_single(OptionCode::CLIENT_DATA));
    assert_eq!(subjects(1, 1), not_single(OptionCode::IA_PREFIX));
    assert_eq!(subjects(0, 2), not_single(OptionCode::IA_PREFIX));
}

/// A lease that cannot be read takes no other with it.
#[test]
fn bad_leases_stand_alone() {
    let mut buffer = vec![0; 2048];
    let mut out = Emitter::new(&mut buffer);
    let ia = out.begin_ia(OptionCode::IA_NA, IaId(1), 0, 0);
    out.option(OptionCode::IA_ADDR, &[0; 23]);
    out.ia_addr(std::net::Ipv6Addr::LOCALHOST, 1, 2);
    // Does not belong into an IA_NA.
    out.option(OptionCode::IA_PREFIX, &[]);
    out.end(ia);
    out.option(OptionCode::IA_TA, &[1]);
    let ia = out.begin_ia(OptionCode::IA_PD, IaId(2), 0, 0);
    out.end(ia);
    let len = out.finish().unwrap();
    let options = [&client_options()[..], &buffer[..len]].concat();
    let octets = with_client_options(&options);
    let Ok(BndUpd::Client(binding)) = BndUpd::parse(&parse_frame(&octets)) else {
        panic!("the client can be read")
    };
    let mut entries = binding.leases().skip(5);
    assert!(matches!(entries.next(), Some(Err(FailoverError::Wire(_)))));
    let bare = entries.next().unwrap().unwrap();
    let missing = |option| FailoverError::Missing { within: "OPTION_IAADDR", option };
    assert_eq!(bare.lease(), Err(missing(OptionCode::F_BINDING_STATUS)));
    assert!(matches!(entries.next(), Some(Err(FailoverError::Wire(_)))));
    let empty = FailoverError::Missing { within: "an IA", option: OptionCode::IA_PREFIX };
    assert_eq!(entries.next(), Some(Err(empty)));
    assert_eq!(entries.next(), None);
}

/// Section 5.5.17 puts the start time into the options of the IA, section 7.4 into the lease's.
#[test]
fn start_time_from_the_ia() {
    for in_lease in [None, Some(FailoverTime(8))] {
        let octets = frame(|out| {
            HEADER.emit(MessageType::BNDUPD, out, |out| {
                let data = out.begin(OptionCode::CLIENT_DATA);
                out.option(OptionCode::CLIENT_ID, client().client_id);
                FailoverOption::LqBaseTime(BASE).emit(out);
                let ia = out.begin_ia(OptionCode::IA_NA, IaId(1), 0, 0);
                FailoverOption::StartTimeOfState(FailoverTime(9)).emit(out);
                let lease = out.begin(OptionCode::IA_ADDR);
                out.bytes(&[0; 24]);
                FailoverOption::BindingStatus(BindingStatus::EXPIRED).emit(out);
                if let Some(time) = in_lease {
                    FailoverOption::StartTimeOfState(time).emit(out);
                }
                out.end(lease);
                out.end(ia);
                out.end(data);
            });
        });
        let Ok(BndUpd::Client(binding)) = BndUpd::parse(&parse_frame(&octets)) else { panic!() };
        let lease = binding.leases().next().unwrap().unwrap().lease().unwrap();
        assert_eq!(lease.state.start_time_of_state, in_lease.unwrap_or(FailoverTime(9)));
    }
}

/// What cannot be read can be rejected, as far as it says what it is about.
#[test]
fn rejection_of_the_unreadable() {
    let status =
        Status { code: StatusCode::MISSING_BINDING_INFORMATION, message: b"OPTION_CLIENTID" };
    let options = without_options(&client_options(), OptionCode::CLIENT_ID);
    let octets = with_client_options(&options);
    let message = parse_frame(&octets);
    assert!(BndUpd::parse(&message).is_err());
    let subject = BndSubject::of(&message).unwrap();
    let reply = frame(|out| subject.emit_rejection(status, HEADER, out));
    let Ok(BndReply::Client(reply)) = BndReply::parse(&parse_frame(&reply)) else { panic!() };
    assert!(reply.is_rejected());
    let expected = ClientReply { client_id: &[], vss: Some(&[0, b'v']), status: Some(status) };
    assert_eq!(reply.client, expected);
    let read: Vec<_> = reply.leases().map(Result::unwrap).collect();
    assert_eq!(read, leases().each_ref().map(LeaseReply::accept));

    let octets = frame(|out| BndUpd::emit_prefix(&prefix(), HEADER, out));
    let subject = BndSubject::of(&parse_frame(&octets)).unwrap();
    let reply = frame(|out| subject.emit_rejection(status, HEADER, out));
    let Ok(BndReply::Prefix(reply)) = BndReply::parse(&parse_frame(&reply)) else { panic!() };
    assert_eq!((reply.ack.status, reply.ack.is_accepted()), (Some(status), false));
    let repeated = PrefixReply::accept(&prefix());
    assert_eq!(reply.ack.binding_status, repeated.ack.binding_status);
}
