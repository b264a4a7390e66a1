use gemel_wire::{Emitter, TransactionId};

use super::*;
use crate::client::{ClientIndex, Identities};

const SERVER: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 1];

/// A reply in its parts, so that each test can spoil one.
struct Parts {
    msg_type: MessageType,
    client: Option<Vec<u8>>,
    server: Option<Vec<u8>>,
    na: Option<(u32, u32, u32, Ipv6Addr, u32, u32)>,
    na_status: Option<StatusCode>,
    pd: Option<(u32, Ipv6Addr, u8)>,
    rapid: bool,
    overall: Option<StatusCode>,
}

fn identity() -> Identity {
    Identities::new(1).identity(ClientIndex(0))
}

fn good() -> Parts {
    let identity = identity();
    Parts {
        msg_type: MessageType::REPLY,
        client: Some(identity.duid.to_vec()),
        server: Some(SERVER.to_vec()),
        na: Some((identity.iaid_na.0, 50, 80, "2001:db8::5".parse().unwrap(), 100, 200)),
        na_status: None,
        pd: Some((identity.iaid_pd.0, "2001:db8:1:100::".parse().unwrap(), 56)),
        rapid: false,
        overall: None,
    }
}

fn emit(parts: &Parts) -> Vec<u8> {
    let mut buffer = [0; 600];
    let mut out = Emitter::new(&mut buffer);
    out.message(parts.msg_type, TransactionId([0; 3]));
    if let Some(client) = &parts.client {
        out.option(OptionCode::CLIENT_ID, client);
    }
    if let Some(server) = &parts.server {
        out.option(OptionCode::SERVER_ID, server);
    }
    if parts.rapid {
        out.option(OptionCode::RAPID_COMMIT, &[]);
    }
    if let Some(status) = parts.overall {
        out.status(status, "");
    }
    if let Some((iaid, t1, t2, address, preferred, valid)) = parts.na {
        let mark = out.begin_ia(OptionCode::IA_NA, IaId(iaid), t1, t2);
        match parts.na_status {
            Some(status) => out.status(status, "no"),
            None => out.ia_addr(address, preferred, valid),
        }
        out.end(mark);
    }
    if let Some((iaid, prefix, len)) = parts.pd {
        let mark = out.begin_ia(OptionCode::IA_PD, IaId(iaid), 50, 80);
        out.ia_prefix(prefix, len, 100, 200);
        out.end(mark);
    }
    let len = out.finish().unwrap();
    buffer[..len].to_vec()
}

fn verdict(parts: &Parts, asked: &Asked<'_>) -> Result<(IaAnswer, IaAnswer), Violation> {
    let octets = emit(parts);
    let message = Message::parse(&octets).unwrap();
    judge(&message, asked).map(|answer| (answer.na, answer.pd))
}

fn request(identity: &Identity) -> Asked<'_> {
    Asked {
        msg_type: MessageType::REQUEST,
        identity,
        server_id: Some(SERVER),
        na: true,
        pd: true,
        rapid_commit: false,
        preferred_na: None,
        preferred_pd: None,
    }
}

#[test]
fn a_good_reply_passes() {
    let identity = identity();
    let (na, pd) = verdict(&good(), &request(&identity)).unwrap();
    assert_eq!(na.grant().unwrap().address, "2001:db8::5".parse::<Ipv6Addr>().unwrap());
    assert_eq!(pd.grant().unwrap().prefix_len, 56);
}

#[test]
fn every_violation_of_a_single_reply_is_found() {
    let identity = identity();
    let iaid = identity.iaid_na.0;
    let with_na = |t1, t2, address: &str, preferred, valid| Parts {
        na: Some((iaid, t1, t2, address.parse().unwrap(), preferred, valid)),
        ..good()
    };
    let with_pd = |prefix: &str, len| Parts {
        pd: Some((identity.iaid_pd.0, prefix.parse().unwrap(), len)),
        ..good()
    };
    let mut other_client = identity.duid.to_vec();
    other_client[13] ^= 1;
    let cases = [
        (Violation::WrongMessageType, Parts { msg_type: MessageType::ADVERTISE, ..good() }),
        (Violation::WrongMessageType, Parts { msg_type: MessageType::RENEW, ..good() }),
        (Violation::ClientIdMissing, Parts { client: None, ..good() }),
        (Violation::ClientIdMismatch, Parts { client: Some(other_client), ..good() }),
        (Violation::ServerIdMissing, Parts { server: None, ..good() }),
        (Violation::ServerIdMissing, Parts { server: Some(vec![0]), ..good() }),
        (Violation::ServerIdMismatch, Parts { server: Some(vec![0, 3, 9]), ..good() }),
        (Violation::IaMissing, Parts { na: None, ..good() }),
        (Violation::IaUnexpected, {
            let address = "2001:db8::5".parse().unwrap();
            Parts { na: Some((iaid ^ 1, 50, 80, address, 100, 200)), ..good() }
        }),
        (Violation::LeaseMissing, with_na(50, 80, "2001:db8::5", 0, 0)),
        (Violation::PreferredOverValid, with_na(50, 80, "2001:db8::5", 201, 200)),
        (Violation::T1OverT2, with_na(81, 80, "2001:db8::5", 100, 200)),
        (Violation::T2OverValid, with_na(50, 201, "2001:db8::5", 100, 200)),
        (Violation::AddressUnusable, with_na(50, 80, "fe80::5", 100, 200)),
        (Violation::AddressUnusable, with_na(50, 80, "ff02::5", 100, 200)),
        (Violation::AddressReserved, with_na(50, 80, "2001:db8::", 100, 200)),
        (Violation::AddressReserved, with_na(50, 80, "2001:db8::fdff:ffff:ffff:ffff", 1, 200)),
        (Violation::PrefixMisaligned, with_pd("2001:db8:1:180::", 56)),
        (Violation::PrefixMisaligned, with_pd("2001:db8:1:100::", 0)),
        (Violation::AddressUnusable, with_pd("ff00::", 56)),
    ];
    for (number, (expected, parts)) in cases.into_iter().enumerate() {
        assert_eq!(verdict(&parts, &request(&identity)), Err(expected), "case {number}");
    }
    let only_na = Asked { pd: false, ..request(&identity) };
    assert_eq!(verdict(&good(), &only_na), Err(Violation::IaUnexpected), "unasked IA_PD");
}

#[test]
fn t1_of_zero_or_infinity_is_fine() {
    let identity = identity();
    let address = "2001:db8::5".parse().unwrap();
    for na in [
        (identity.iaid_na.0, 0, 0, address, 100, 200),
        (identity.iaid_na.0, u32::MAX, u32::MAX, address, u32::MAX, u32::MAX),
    ] {
        assert!(verdict(&Parts { na: Some(na), ..good() }, &request(&identity)).is_ok());
    }
}

#[test]
fn a_status_is_a_refusal_not_a_violation() {
    let identity = identity();
    let parts = Parts { na_status: Some(StatusCode::NO_ADDRS_AVAIL), ..good() };
    let (na, pd) = verdict(&parts, &request(&identity)).unwrap();
    assert_eq!(na.refusal(), Some(StatusCode::NO_ADDRS_AVAIL));
    assert!(pd.grant().is_some());
    let overall = Some(StatusCode::NOT_ON_LINK);
    let parts = Parts { na: None, pd: None, overall, ..good() };
    let (na, pd) = verdict(&parts, &request(&identity)).unwrap();
    assert_eq!((na.refusal(), pd.refusal()), (overall, overall));
}

#[test]
fn of_several_leases_the_client_keeps_its_own() {
    let identity = identity();
    let mut buffer = [0; 600];
    let mut out = Emitter::new(&mut buffer);
    out.message(MessageType::REPLY, TransactionId([0; 3]));
    out.option(OptionCode::CLIENT_ID, &identity.duid);
    out.option(OptionCode::SERVER_ID, SERVER);
    let mark = out.begin_ia(OptionCode::IA_NA, identity.iaid_na, 50, 80);
    for last in 1..=3_u16 {
        let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
        // One is taken away, and is no lease.
        out.ia_addr(address, 0, if last == 3 { 0 } else { 200 });
    }
    out.end(mark);
    let len = out.finish().unwrap();
    let message = Message::parse(&buffer[..len]).unwrap();
    for (held, kept, other) in [(None, 1, 2), (Some(1), 1, 2), (Some(2), 2, 1), (Some(9), 1, 2)] {
        let address = |last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
        let preferred_na = held.map(|last| NamedLease { address: address(last), prefix_len: 128 });
        let asked = Asked { pd: false, preferred_na, ..request(&identity) };
        let answer = judge(&message, &asked).unwrap();
        assert_eq!(answer.na.grant().unwrap().address, address(kept), "{held:?}");
        let further: Vec<_> = answer.further.iter().map(|(_, grant)| grant.address).collect();
        assert_eq!(further, [address(other)], "{held:?}");
    }
}

#[test]
fn rapid_commit_must_be_on_both_sides() {
    let identity = identity();
    let solicit = Asked {
        msg_type: MessageType::SOLICIT,
        server_id: None,
        rapid_commit: true,
        ..request(&identity)
    };
    let rapid = Parts { rapid: true, ..good() };
    assert!(verdict(&rapid, &solicit).is_ok());
    assert_eq!(verdict(&good(), &solicit), Err(Violation::WrongMessageType));
    let without = Asked { rapid_commit: false, ..solicit };
    assert_eq!(verdict(&rapid, &without), Err(Violation::WrongMessageType));
    let advertise = Parts { msg_type: MessageType::ADVERTISE, ..good() };
    assert!(verdict(&advertise, &solicit).is_ok());
}

#[test]
fn replies_without_leases_have_rules_of_their_own() {
    let identity = identity();
    let bare = || Parts { na: None, pd: None, overall: Some(StatusCode::SUCCESS), ..good() };
    let asked = |msg_type| Asked { msg_type, server_id: None, ..request(&identity) };
    let of = |msg_type, parts: Parts| verdict(&parts, &asked(msg_type)).map(|(na, _)| na);
    let refused = |status| Ok(IaAnswer::Refused(status));
    let no_binding = || Parts { na_status: Some(StatusCode::NO_BINDING), na: good().na, ..bare() };
    for kind in [MessageType::RELEASE, MessageType::DECLINE] {
        assert_eq!(of(kind, bare()), Ok(IaAnswer::NotAsked));
        assert_eq!(of(kind, no_binding()), refused(StatusCode::NO_BINDING));
        let silent = Parts { overall: None, ..bare() };
        assert_eq!(of(kind, silent), Err(Violation::StatusMissing));
        let advertise = Parts { msg_type: MessageType::ADVERTISE, ..bare() };
        assert_eq!(of(kind, advertise), Err(Violation::WrongMessageType));
    }
    let mut foreign = no_binding();
    foreign.na = foreign.na.map(|na| (na.0 ^ 1, na.1, na.2, na.3, na.4, na.5));
    assert_eq!(of(MessageType::RELEASE, foreign), Err(Violation::IaUnexpected));

    let moved = Parts { overall: Some(StatusCode::NOT_ON_LINK), ..bare() };
    assert_eq!(of(MessageType::CONFIRM, moved), refused(StatusCode::NOT_ON_LINK));
    let silent = Parts { overall: None, ..bare() };
    assert_eq!(of(MessageType::CONFIRM, silent), Err(Violation::StatusMissing));

    let inform = MessageType::INFORMATION_REQUEST;
    assert_eq!(of(inform, Parts { overall: None, ..bare() }), Ok(IaAnswer::NotAsked));
    assert_eq!(of(inform, good()), Err(Violation::IaUnexpected));
    let other = Parts { client: Some(vec![0, 3, 0, 1, 1]), ..bare() };
    assert_eq!(of(inform, other), Err(Violation::ClientIdMismatch));
}
