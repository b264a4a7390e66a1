//! RFC 8415 section 16: what is discarded, and why.

mod support;

use gemel_server::{DropReason, Inbound};
use gemel_wire::{HOP_COUNT_LIMIT, MessageType, OptionCode};
use support::*;

const CLIENT_TYPES: [MessageType; 8] = [
    MessageType::SOLICIT,
    MessageType::REQUEST,
    MessageType::CONFIRM,
    MessageType::RENEW,
    MessageType::REBIND,
    MessageType::RELEASE,
    MessageType::DECLINE,
    MessageType::INFORMATION_REQUEST,
];

fn wants_server_id(msg_type: MessageType) -> bool {
    matches!(
        msg_type,
        MessageType::REQUEST | MessageType::RENEW | MessageType::RELEASE | MessageType::DECLINE
    )
}

fn ias(build: Build, msg_type: MessageType) -> Build {
    if msg_type == MessageType::INFORMATION_REQUEST {
        build
    } else {
        build.na(1, &[addr("2001:db8:a::1001")])
    }
}

#[test]
fn client_identifier() {
    let mut lab = Lab::new();
    for msg_type in CLIENT_TYPES {
        let build = |duid: Option<&[u8]>| {
            let build = Build::new(msg_type);
            let build = if wants_server_id(msg_type) { build.server(SERVER) } else { build };
            let build = match duid {
                Some(duid) => build.client(duid),
                None => build,
            };
            ias(build, msg_type).done()
        };
        for bad in [&[][..], &[0, 1], &[9; 131]] {
            let reason = lab.drops(&build(Some(bad)));
            assert_eq!(reason, DropReason::ClientIdLength, "{msg_type} {}", bad.len());
        }
        let without = lab.handle(&lab.inbound(&build(None)));
        if msg_type == MessageType::INFORMATION_REQUEST {
            let (_, reply) = without.expect("section 18.3.6: a reply");
            assert_eq!(Answer::read(&reply).msg_type, MessageType::REPLY);
        } else {
            assert_eq!(without.unwrap_err(), DropReason::NoClientId, "{msg_type}");
        }
    }
}

#[test]
fn server_identifier() {
    let mut lab = Lab::new();
    for msg_type in CLIENT_TYPES {
        let build = |duid: Option<&[u8]>| {
            let build = Build::new(msg_type).client(CLIENT);
            let build = match duid {
                Some(duid) => build.server(duid),
                None => build,
            };
            ias(build, msg_type).done()
        };
        let (without, ours, foreign) = (build(None), build(Some(SERVER)), build(Some(OTHER)));
        match msg_type {
            MessageType::INFORMATION_REQUEST => {
                lab.send(&without);
                lab.send(&ours);
                assert_eq!(lab.drops(&foreign), DropReason::ServerIdMismatch);
            }
            _ if wants_server_id(msg_type) => {
                assert_eq!(lab.drops(&without), DropReason::MissingServerId, "{msg_type}");
                assert_eq!(lab.drops(&foreign), DropReason::ServerIdMismatch, "{msg_type}");
                lab.send(&ours);
            }
            _ => {
                assert_eq!(lab.drops(&ours), DropReason::UnexpectedServerId, "{msg_type}");
                assert_eq!(lab.drops(&foreign), DropReason::UnexpectedServerId, "{msg_type}");
            }
        }
    }
}

#[test]
fn an_information_request_has_no_ia() {
    let mut lab = Lab::new();
    let build = || Build::valid(MessageType::INFORMATION_REQUEST);
    for message in [build().na(1, &[]), build().ta(1, &[]), build().pd(1, &[])] {
        assert_eq!(lab.drops(&message.done()), DropReason::InformationRequestWithIa);
    }
}

#[test]
fn message_types() {
    let mut lab = Lab::new();
    for number in 0..=255 {
        let msg_type = MessageType(number);
        let expected = match number {
            1 | 3..=6 | 8 | 9 | 11 => continue,
            2 | 7 | 10 | 13 | 15..=17 => DropReason::MessageForClients,
            12 => DropReason::Malformed,
            14 => DropReason::Leasequery,
            _ => DropReason::UnknownMessageType,
        };
        let message = Build::new(msg_type).client(CLIENT).server(SERVER).done();
        assert_eq!(lab.drops(&message), expected, "{msg_type}");
    }
}

#[test]
fn lengths() {
    let mut lab = Lab::new();
    let whole = Build::valid(MessageType::REQUEST)
        .na(1, &[addr("2001:db8:a::1001")])
        .pd(2, &[pd("2001:db8:a000::/56")])
        .oro(&[OptionCode::DNS_SERVERS])
        .done();
    for cut in 0..whole.len() {
        // A cut between two options leaves another message, which may be a good one.
        if let Err(reason) = lab.handle(&lab.inbound(&whole[..cut])) {
            let known =
                [DropReason::Malformed, DropReason::NoClientId, DropReason::MissingServerId];
            assert!(known.contains(&reason), "cut at {cut}: {reason}");
        }
    }
    let build = || Build::valid(MessageType::SOLICIT);
    let malformed = [
        build().option(OptionCode::IA_NA, &[0; 11]),
        build().option(OptionCode::IA_PD, &[0; 11]),
        build().option(OptionCode::IA_TA, &[0; 3]),
        build().option(OptionCode::IA_NA, &[0; 13]),
        build().option(OptionCode::ORO, &[0]),
        build().with(|out| {
            let ia = out.begin_ia(OptionCode::IA_NA, gemel_wire::IaId(1), 0, 0);
            out.option(OptionCode::IA_ADDR, &[0; 23]);
            out.end(ia);
        }),
        build().with(|out| {
            let ia = out.begin_ia(OptionCode::IA_PD, gemel_wire::IaId(1), 0, 0);
            out.ia_prefix(ip("::"), 129, 0, 0);
            out.end(ia);
        }),
    ];
    for message in malformed {
        assert_eq!(lab.drops(&message.done()), DropReason::Malformed);
    }
}

#[test]
fn unknown_options_and_foreign_suboptions_are_passed_over() {
    let mut lab = Lab::new();
    let message = Build::valid(MessageType::SOLICIT)
        .option(OptionCode(65_000), b"?")
        .option(OptionCode::USER_CLASS, b"")
        .with(|out| {
            let ia = out.begin_ia(OptionCode::IA_NA, gemel_wire::IaId(1), 7, 5);
            out.option(OptionCode(65_001), b"!");
            out.ia_prefix(ip("2001:db8::"), 56, 0, 0);
            out.end(ia);
        })
        .done();
    lab.send(&message).lease(gemel_lease::IaKind::Na, 1);
}

#[test]
fn sixteen_ias_are_enough() {
    let mut lab = Lab::new();
    let build = |count| {
        (0..count)
            .fold(Build::valid(MessageType::SOLICIT), |build, iaid| build.na(iaid, &[]))
            .done()
    };
    assert_eq!(lab.send(&build(16)).ias.len(), 16);
    assert_eq!(lab.drops(&build(17)), DropReason::TooManyIas);
    // The same IAID again is not another IA.
    let twice = Build::valid(MessageType::SOLICIT).na(1, &[]).na(1, &[]).pd(1, &[]).done();
    assert_eq!(lab.send(&twice).ias.len(), 2);
}

#[test]
fn unicast_is_taken_or_not_as_configured() {
    let message = Build::valid(MessageType::SOLICIT).na(1, &[]).done();
    for accept_unicast in [true, false] {
        let mut lab = Lab::with(|config| config.accept_unicast = accept_unicast);
        let unicast = Inbound { destination: ip("2001:db8::1"), ..lab.inbound(&message) };
        let expected = if accept_unicast { None } else { Some(DropReason::Unicast) };
        assert_eq!(lab.handle(&unicast).err(), expected);
        lab.send(&message);
        let relayed = relay(
            &Level {
                hop_count: 0,
                link: ip("2001:db8:a::1"),
                peer: ip("fe80::9"),
                options: vec![],
            },
            &message,
        );
        let relayed = Inbound { destination: ip("2001:db8::1"), ..lab.inbound(&relayed) };
        assert!(lab.handle(&relayed).is_ok(), "relay agents do use unicast");
    }
}

#[test]
fn relay_messages() {
    let mut lab = Lab::new();
    let solicit = Build::valid(MessageType::SOLICIT).na(1, &[]).done();
    let level = |hop_count| Level {
        hop_count,
        link: ip("2001:db8:a::1"),
        peer: ip("fe80::9"),
        options: vec![],
    };
    let nest = |levels: u8| (0..levels).fold(solicit.clone(), |m, hop| relay(&level(hop), &m));
    // The first relay agent writes 0, so that HOP_COUNT_LIMIT allows one more level than it says.
    assert!(lab.handle(&lab.inbound(&nest(HOP_COUNT_LIMIT + 1))).is_ok());
    assert_eq!(lab.drops(&nest(HOP_COUNT_LIMIT + 2)), DropReason::HopLimit);
    assert_eq!(lab.drops(&relay(&level(HOP_COUNT_LIMIT + 1), &solicit)), DropReason::HopLimit);
    let mut empty = relay(&level(0), &solicit);
    empty.truncate(34);
    assert_eq!(lab.drops(&empty), DropReason::RelayWithoutMessage);
    let mut repl = relay(&level(0), &solicit);
    repl[0] = MessageType::RELAY_REPL.0;
    assert_eq!(lab.drops(&repl), DropReason::MessageForClients);
    assert_eq!(lab.drops(&relay(&level(0), &repl)), DropReason::MessageForClients);
    assert_eq!(lab.drops(&relay(&level(0), &[])), DropReason::Malformed);
    let nowhere = Level { link: ip("2001:db9::1"), ..level(0) };
    assert_eq!(lab.drops(&relay(&nowhere, &solicit)), DropReason::NoLink);
    let unspecified = Level { link: ip("::"), ..level(0) };
    assert_eq!(lab.drops(&relay(&unspecified, &solicit)), DropReason::NoLink);
}

#[test]
fn a_reply_that_does_not_fit_is_counted() {
    let mut lab = Lab::new();
    let message = Build::valid(MessageType::SOLICIT).na(1, &[]).done();
    let (info, _) = lab.handle(&lab.inbound(&message)).unwrap();
    lab.room = info.len - 1;
    assert_eq!(lab.drops(&message), DropReason::ReplyTooLarge);
    lab.room = info.len;
    lab.send(&message);
    // What a REQUEST changed stands, and has to be stored.
    lab.room = 20;
    let message = Build::valid(MessageType::REQUEST).na(1, &[]).done();
    assert_eq!(lab.handle(&lab.inbound(&message)).unwrap_err(), DropReason::ReplyTooLarge);
    assert_eq!(lab.updates.len(), 1);
}
