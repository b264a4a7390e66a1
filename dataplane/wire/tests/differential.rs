//! Against another codec, dhcproto 0.15: both must read the same values from the same octets, and
//! refuse the same octets.
//!
//! Where the two differ, the difference is listed here by its number, and the code that allows for
//! it checks that it is there, so that a change in either codec shows.
//!
//! 1.  dhcproto reads the body of every Relay Message option as a relay message. RFC 8415 section
//!     21.10 has the whole relayed message there, most often a client's.
//! 2.  dhcproto ends a sequence of options silently at the first that it cannot read, whatever
//!     follows. Section 21.1 leaves no room for octets that are not an option.
//! 3.  dhcproto skips the length field of options of fixed size, so a wrong length makes it lose
//!     its place. Sections 21.8, 21.9 and 21.14 fix the length.
//! 4.  dhcproto subtracts 2 from the length of a Status Code option without a check. A shorter one
//!     makes it panic where arithmetic is checked.
//! 5.  dhcproto refuses a status message that is not UTF-8. Section 21.13 asks for UTF-8, but the
//!     text is for people; Gemel reads the code and leaves the text as it is.
//! 6.  dhcproto drops the last octet of an Option Request option of odd length. Section 21.7 has
//!     two octets for each code.
//! 7.  dhcproto takes a DUID of any length. Section 11.1 has 1 to 128 octets beside the type.
//! 8.  dhcproto takes a prefix length over 128, which no address has.
//! 9.  dhcproto ends a domain list silently at the first name that it cannot read, and follows
//!     compression pointers; it also writes them. Section 10 forbids compression.
//! 10. dhcproto reads some options that Gemel passes on as octets ([`PASSED_ON`]).
//! 11. dhcproto keeps the options of a message sorted by code, Gemel in the order of the message.
//! 12. dhcproto writes the length of an option modulo 2^16, Gemel refuses an option that is longer.

mod model;

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

use dhcproto::{
    Decodable, Decoder, Encodable, Name,
    v6::{
        self, DhcpOption, DhcpOptions, IAAddr, IANA, IAPD, IAPrefix, IATA, ORO, OptionCode,
        UnknownOption,
    },
};
use gemel_wire::{Emitter, Options, WireError};
use model::*;
use proptest::{prelude::*, test_runner::TestRunner};

/// Difference 10: Authentication, Server Unicast, User Class, Vendor Class, Vendor-specific
/// Information, Reconfigure Message, Reconfigure Accept, NTP Server, Client System Architecture.
const PASSED_ON: [u16; 9] = [11, 12, 15, 16, 17, 19, 20, 56, 61];

/// A code that neither codec knows: makes dhcproto read code, length and body, nothing more.
const UNASSIGNED: u16 = 65_000;

proptest! {
    #![proptest_config(config(file!()))]

    /// What Gemel writes, dhcproto reads: client messages as a whole, with its own loops.
    #[test]
    fn dhcproto_reads_what_is_written(mut message in client_message()) {
        make_comparable(message.options_mut());
        let octets = message.to_octets();

        let theirs = v6::Message::from_bytes(&octets).unwrap();
        let Model::Client { msg_type, xid, mut options } = message else { unreachable!() };
        sort(&mut options);
        prop_assert_eq!(u8::from(theirs.msg_type()), msg_type);
        prop_assert_eq!(theirs.xid(), xid);
        let mut theirs = from_options(theirs.opts());
        sort(&mut theirs);
        prop_assert_eq!(theirs, options);
    }

    /// The same for relay messages, level by level because of difference 1.
    #[test]
    fn dhcproto_reads_what_is_relayed(mut message in message()) {
        make_comparable(message.options_mut());
        prop_assert_eq!(dhcproto_message(&message.to_octets()), Ok(message));
    }

    /// Relay messages that relay no client message: dhcproto follows these by itself.
    #[test]
    fn dhcproto_reads_relays_of_relays(mut message in message()) {
        make_comparable(message.options_mut());
        drop_client_message(message.options_mut());
        let Model::Relay { .. } = message else { return Ok(()) };
        let octets = message.to_octets();
        sort(message.options_mut());
        let mut theirs = from_relay(&v6::RelayMessage::from_bytes(&octets).unwrap());
        sort(theirs.options_mut());
        prop_assert_eq!(theirs, message);
    }

    /// What dhcproto writes, Gemel reads.
    #[test]
    fn what_dhcproto_writes_is_read(mut message in message()) {
        make_comparable(message.options_mut());
        let octets = to_dhcproto(&message);
        let mut read = Model::read(&octets).unwrap();
        sort(read.options_mut());
        sort(message.options_mut());
        prop_assert_eq!(read, message);
    }
}

/// Damaged messages: accepted by both with the same values in the same order, or refused by both.
#[test]
fn damaged_messages_are_judged_alike() {
    let (read, refused) = (Cell::new(0), Cell::new(0));
    TestRunner::new(config(file!()))
        .run(&damaged_message(), |octets| {
            let ours = Model::read(&octets).map_err(|_| Refused);
            prop_assert_eq!(&ours, &dhcproto_message(&octets));
            let count = if ours.is_ok() { &read } else { &refused };
            count.set(count.get() + 1);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));

    // A comparison that only ever sees one of the two would show little.
    let (read, refused) = (read.get(), refused.get());
    assert!(read * 10 > refused && refused * 10 > read, "{read} read, {refused} refused");
}

/// dhcproto read the octets and did not like them.
#[derive(Debug, PartialEq)]
struct Refused;

impl From<v6::DecodeError> for Refused {
    fn from(_: v6::DecodeError) -> Self {
        Self
    }
}

/// Reads a message with dhcproto, option by option because of differences 1, 2 and 11.
fn dhcproto_message(octets: &[u8]) -> Result<Model, Refused> {
    if matches!(octets.first(), Some(12 | 13)) {
        let (header, options) = octets.split_at_checked(34).unwrap_or((octets, &[]));
        let mut message = from_relay(&v6::RelayMessage::from_bytes(header)?);
        *message.options_mut() = dhcproto_options(options)?;
        return Ok(message);
    }
    let (header, options) = octets.split_at_checked(4).unwrap_or((octets, &[]));
    let header = v6::Message::from_bytes(header)?;
    let (msg_type, xid) = (header.msg_type().into(), header.xid());
    Ok(Model::Client { msg_type, xid, options: dhcproto_options(options)? })
}

fn dhcproto_options(mut octets: &[u8]) -> Result<Vec<Opt>, Refused> {
    let mut options = Vec::new();
    while !octets.is_empty() {
        let mut framing = octets.to_vec();
        framing.iter_mut().zip(UNASSIGNED.to_be_bytes()).for_each(|(at, octet)| *at = octet);
        let mut decoder = Decoder::new(&framing);
        DhcpOption::decode(&mut decoder)?;
        let (option, rest) = octets.split_at(octets.len() - decoder.buffer().len());
        options.push(dhcproto_option(option)?);
        octets = rest;
    }
    Ok(options)
}

/// Reads exactly one option with dhcproto, and allows for the differences.
fn dhcproto_option(octets: &[u8]) -> Result<Opt, Refused> {
    let (header, body) = octets.split_at(4);
    let code = u16::from_be_bytes([header[0], header[1]]);
    if code == 9 {
        // Difference 1.
        return dhcproto_message(body).map(|message| Opt::RelayMsg(Box::new(message)));
    }
    if code == 13 && body.len() < 2 {
        // Difference 4.
        return Err(Refused);
    }
    if PASSED_ON.contains(&code) {
        // Difference 10.
        return Ok(Opt::Raw { code, body: body.to_vec() });
    }

    // Difference 2: enclosed options are read apart, after the fixed part.
    let fixed_len = match code {
        3 | 25 => 12,
        4 => 4,
        5 => 24,
        26 => 25,
        _ => body.len(),
    };
    let (body, options) = body.split_at_checked(fixed_len).unwrap_or((body, &[]));
    let len = u16::try_from(body.len()).expect("no longer than before");
    let octets = [&header[..2], &len.to_be_bytes(), body].concat();

    let mut decoder = Decoder::new(&octets);
    let decoded = DhcpOption::decode(&mut decoder);
    if code == 13 && std::str::from_utf8(&body[2..]).is_err() {
        // Difference 5.
        assert!(decoded.is_err());
        let status = u16::from_be_bytes([body[0], body[1]]);
        return Ok(Opt::Status { code: status, message: body[2..].to_vec() });
    }
    let mut option = from_option(&decoded?);
    if !decoder.buffer().is_empty() {
        // Difference 3.
        assert!(matches!(code, 7 | 8 | 14), "option {code} has no fixed length");
        return Err(Refused);
    }
    match &mut option {
        // Difference 7.
        Opt::ClientId(duid) | Opt::ServerId(duid) if !(3..=130).contains(&duid.len()) => {
            return Err(Refused);
        }
        // Difference 6.
        Opt::Oro(codes) if body.len() % 2 != 0 => {
            assert_eq!(codes.len(), body.len() / 2);
            return Err(Refused);
        }
        // Difference 8.
        Opt::IaPrefix { len, .. } if *len > 128 => return Err(Refused),
        // Difference 9.
        Opt::DomainList(names) if names_octets(names) != body => return Err(Refused),
        _ => {}
    }
    if let Some(enclosed) = enclosed(&mut option) {
        *enclosed = dhcproto_options(options)?;
    }
    Ok(option)
}

fn from_relay(message: &v6::RelayMessage) -> Model {
    Model::Relay {
        msg_type: message.msg_type().into(),
        hop_count: message.hop_count(),
        link: message.link_addr(),
        peer: message.peer_addr(),
        options: from_options(message.opts()),
    }
}

fn from_options(options: &DhcpOptions) -> Vec<Opt> {
    options.iter().map(from_option).collect()
}

fn from_option(option: &DhcpOption) -> Opt {
    match option.clone() {
        DhcpOption::ClientId(duid) => Opt::ClientId(duid),
        DhcpOption::ServerId(duid) => Opt::ServerId(duid),
        DhcpOption::IANA(IANA { id: iaid, t1, t2, opts }) => {
            Opt::IaNa { iaid, t1, t2, options: from_options(&opts) }
        }
        DhcpOption::IATA(IATA { id: iaid, opts }) => {
            Opt::IaTa { iaid, options: from_options(&opts) }
        }
        DhcpOption::IAPD(IAPD { id: iaid, t1, t2, opts }) => {
            Opt::IaPd { iaid, t1, t2, options: from_options(&opts) }
        }
        DhcpOption::IAAddr(IAAddr { addr, preferred_life, valid_life, opts }) => Opt::IaAddr {
            address: addr,
            preferred: preferred_life,
            valid: valid_life,
            options: from_options(&opts),
        },
        DhcpOption::IAPrefix(prefix) => Opt::IaPrefix {
            prefix: prefix.prefix_ip,
            len: prefix.prefix_len,
            preferred: prefix.preferred_lifetime,
            valid: prefix.valid_lifetime,
            options: from_options(&prefix.opts),
        },
        DhcpOption::ORO(ORO { opts }) => Opt::Oro(opts.into_iter().map(u16::from).collect()),
        DhcpOption::Preference(value) => Opt::Preference(value),
        DhcpOption::ElapsedTime(time) => Opt::ElapsedTime(time),
        DhcpOption::RelayMsg(message) => Opt::RelayMsg(Box::new(from_relay(&message))),
        DhcpOption::StatusCode(v6::StatusCode { status, msg }) => {
            Opt::Status { code: status.into(), message: msg.into_bytes() }
        }
        DhcpOption::RapidCommit => Opt::RapidCommit,
        DhcpOption::InterfaceId(id) => Opt::InterfaceId(id),
        DhcpOption::DomainNameServers(servers) => Opt::DnsServers(servers),
        DhcpOption::DomainSearchList(names) => {
            let labels = |name: &Name| name.iter().map(<[u8]>::to_vec).collect();
            Opt::DomainList(names.iter().map(labels).collect())
        }
        DhcpOption::Unknown(option) => {
            Opt::Raw { code: option.code().into(), body: option.data().to_vec() }
        }
        other => panic!("difference 10 should have covered {other:?}"),
    }
}

/// Writes a message with dhcproto. Its relay messages have no constructor and its Relay Message
/// option holds no client message (difference 1), so that option is written as an unknown one.
fn to_dhcproto(message: &Model) -> Vec<u8> {
    let octets = match message {
        Model::Client { msg_type, xid, options } => {
            let mut message = v6::Message::new_with_id((*msg_type).into(), *xid);
            message.set_opts(to_options(options));
            message.to_vec()
        }
        Model::Relay { msg_type, hop_count, link, peer, options } => {
            let header = [&[*msg_type, *hop_count][..], &link.octets(), &peer.octets()].concat();
            let mut message = v6::RelayMessage::from_bytes(&header).unwrap();
            message.set_opts(to_options(options));
            message.to_vec()
        }
    };
    octets.unwrap()
}

fn to_options(options: &[Opt]) -> DhcpOptions {
    options.iter().map(to_option).collect()
}

fn to_option(option: &Opt) -> DhcpOption {
    match option.clone() {
        Opt::ClientId(duid) => DhcpOption::ClientId(duid),
        Opt::ServerId(duid) => DhcpOption::ServerId(duid),
        Opt::IaNa { iaid: id, t1, t2, options } => {
            DhcpOption::IANA(IANA { id, t1, t2, opts: to_options(&options) })
        }
        Opt::IaTa { iaid: id, options } => {
            DhcpOption::IATA(IATA { id, opts: to_options(&options) })
        }
        Opt::IaPd { iaid: id, t1, t2, options } => {
            DhcpOption::IAPD(IAPD { id, t1, t2, opts: to_options(&options) })
        }
        Opt::IaAddr { address, preferred, valid, options } => DhcpOption::IAAddr(IAAddr {
            addr: address,
            preferred_life: preferred,
            valid_life: valid,
            opts: to_options(&options),
        }),
        Opt::IaPrefix { prefix, len, preferred, valid, options } => {
            DhcpOption::IAPrefix(IAPrefix {
                preferred_lifetime: preferred,
                valid_lifetime: valid,
                prefix_len: len,
                prefix_ip: prefix,
                opts: to_options(&options),
            })
        }
        Opt::Oro(codes) => {
            DhcpOption::ORO(ORO { opts: codes.into_iter().map(OptionCode::from).collect() })
        }
        Opt::Preference(value) => DhcpOption::Preference(value),
        Opt::ElapsedTime(time) => DhcpOption::ElapsedTime(time),
        Opt::RelayMsg(message) => {
            DhcpOption::Unknown(UnknownOption::new(OptionCode::RelayMsg, to_dhcproto(&message)))
        }
        Opt::Status { code, message } => DhcpOption::StatusCode(v6::StatusCode {
            status: code.into(),
            msg: String::from_utf8(message).unwrap(),
        }),
        Opt::RapidCommit => DhcpOption::RapidCommit,
        Opt::InterfaceId(id) => DhcpOption::InterfaceId(id),
        Opt::DnsServers(servers) => DhcpOption::DomainNameServers(servers),
        Opt::DomainList(names) => {
            DhcpOption::DomainSearchList(names.iter().map(|labels| to_name(labels)).collect())
        }
        Opt::Raw { code, body } => DhcpOption::Unknown(UnknownOption::new(code.into(), body)),
    }
}

fn to_name(labels: &[Vec<u8>]) -> Name {
    Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap()
}

/// The options that this one encloses.
fn enclosed(option: &mut Opt) -> Option<&mut Vec<Opt>> {
    match option {
        Opt::IaNa { options, .. }
        | Opt::IaTa { options, .. }
        | Opt::IaPd { options, .. }
        | Opt::IaAddr { options, .. }
        | Opt::IaPrefix { options, .. } => Some(options),
        Opt::RelayMsg(message) => Some(message.options_mut()),
        _ => None,
    }
}

/// Keeps sound messages clear of the differences.
fn make_comparable(options: &mut [Opt]) {
    for option in options {
        match option {
            // Difference 10.
            Opt::Raw { code, .. } if PASSED_ON.contains(code) => *code = UNASSIGNED,
            // Difference 5.
            Opt::Status { message, .. } => {
                *message = String::from_utf8_lossy(message).into_owned().into_bytes();
            }
            // Difference 9: with one name there is nothing that dhcproto could point to.
            Opt::DomainList(names) => names.truncate(1),
            _ => {}
        }
        if let Some(options) = enclosed(option) {
            make_comparable(options);
        }
    }
}

/// Difference 11. Options of one code may stand in any order, too: the sort is an unstable one.
fn sort(options: &mut [Opt]) {
    options.iter_mut().filter_map(enclosed).for_each(|options| sort(options));
    options.sort();
}

/// Difference 1.
fn drop_client_message(options: &mut Vec<Opt>) {
    options.retain(
        |option| !matches!(option, Opt::RelayMsg(inner) if matches!(**inner, Model::Client { .. })),
    );
    options.iter_mut().filter_map(enclosed).for_each(drop_client_message);
}

/// An option alone, as dhcproto reads it and how many octets it leaves.
fn decode(octets: &[u8]) -> (Option<DhcpOption>, usize) {
    let mut decoder = Decoder::new(octets);
    let option = DhcpOption::decode(&mut decoder).ok();
    (option, decoder.buffer().len())
}

/// Each difference by an example that needs no luck to be found.
#[test]
fn differences() {
    // 1. A SOLICIT of 40 octets, relayed.
    let solicit = Model::Client {
        msg_type: 1,
        xid: [1, 2, 3],
        options: vec![Opt::Raw { code: UNASSIGNED, body: vec![0; 32] }],
    };
    let relayed = [&[0, 9, 0, 40][..], &solicit.to_octets()].concat();
    let (Some(DhcpOption::RelayMsg(misread)), 0) = decode(&relayed) else { panic!() };
    assert_eq!((misread.msg_type(), misread.hop_count()), (v6::MessageType::Solicit, 1));

    // 2. An Elapsed Time option, then an option that is cut short, then a stray octet.
    for tail in [&[0, 8, 0][..], &[0, 1, 0, 5, 0], &[0]] {
        let octets = [&[1, 1, 2, 3, 0, 8, 0, 2, 0, 0][..], tail].concat();
        let message = v6::Message::from_bytes(&octets).unwrap();
        assert_eq!(message.opts().iter().count(), 1);
        assert!(Model::read(&octets).is_err());
    }

    // 3. One octet too many in each option of fixed size.
    assert_eq!(decode(&[0, 7, 0, 2, 9, 9]), (Some(DhcpOption::Preference(9)), 1));
    assert_eq!(decode(&[0, 8, 0, 3, 0, 9, 9]), (Some(DhcpOption::ElapsedTime(9)), 1));
    assert_eq!(decode(&[0, 14, 0, 1, 9]), (Some(DhcpOption::RapidCommit), 1));

    // 4.
    let octets = [0, 13, 0, 1, 0, 0];
    if cfg!(debug_assertions) {
        assert!(catch_unwind(AssertUnwindSafe(|| decode(&octets))).is_err());
    }

    // 5.
    let status = [0, 13, 0, 3, 0, 2, 0xff];
    assert_eq!(decode(&status).0, None);
    let options = Options::parse(&status).unwrap();
    assert_eq!(gemel_wire::Status::of(&options), gemel_wire::StatusCode::NO_ADDRS_AVAIL);

    // 6.
    let (Some(DhcpOption::ORO(request)), 0) = decode(&[0, 6, 0, 3, 0, 23, 0]) else { panic!() };
    assert_eq!(request.opts, [OptionCode::DomainNameServers]);

    // 7.
    assert_eq!(decode(&[0, 1, 0, 0]), (Some(DhcpOption::ClientId(vec![])), 0));

    // 8.
    let prefix = [&[0, 26, 0, 25][..], &[0; 8], &[129], &[0; 16]].concat();
    assert!(matches!(decode(&prefix), (Some(DhcpOption::IAPrefix(_)), 0)));

    // 9. Two names with a common end: a pointer is written, and read; and an unfinished name.
    let names = [&[&b"a"[..], b"example"][..], &[&b"b"[..], b"example"][..]];
    let names = names.map(|name| Name::from_labels(name.iter().copied()).unwrap());
    let octets = DhcpOption::DomainSearchList(names.to_vec()).to_vec().unwrap();
    assert_eq!(octets, b"\0\x18\0\x0f\x01a\x07example\0\x01b\xc0\x02");
    assert_eq!(decode(&octets).0, Some(DhcpOption::DomainSearchList(names.to_vec())));
    assert!(Model::read(&[&[1, 1, 2, 3][..], &octets].concat()).is_err());
    assert_eq!(decode(b"\0\x18\0\x02\x01a").0, Some(DhcpOption::DomainSearchList(vec![])));

    // 11.
    let octets = [1, 1, 2, 3, 0, 14, 0, 0, 0, 7, 0, 1, 0];
    let message = v6::Message::from_bytes(&octets).unwrap();
    let codes: Vec<_> = message.opts().iter().map(OptionCode::from).collect();
    assert_eq!(codes, [OptionCode::Preference, OptionCode::RapidCommit]);

    // 12.
    let id = vec![0; 65_537];
    assert_eq!(DhcpOption::InterfaceId(id.clone()).to_vec().unwrap()[..4], [0, 18, 0, 1]);
    let mut buffer = vec![0; 70_000];
    let mut out = Emitter::new(&mut buffer);
    out.option(gemel_wire::OptionCode::INTERFACE_ID, &id);
    assert_eq!(out.finish(), Err(WireError::NoSpace(70_000)));
}
