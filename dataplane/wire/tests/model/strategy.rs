//! Messages at random, and ways to damage them.

use std::net::Ipv6Addr;

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, FileFailurePersistence},
};

use super::{MODELLED, Model, Opt};

/// The usual number of cases (`PROPTEST_CASES` asks for more); failures are kept beside the test.
pub(crate) fn config(source_file: &'static str) -> Config {
    Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        source_file: Some(source_file),
        ..Config::default()
    }
}

/// A client message inside as many relay messages as HOP_COUNT_LIMIT allows, or fewer.
pub(crate) fn message() -> impl Strategy<Value = Model> {
    let depth = prop_oneof![3 => Just(0), 3 => 1..3_usize, 1 => 3..=9_usize];
    (client_message(), depth.prop_flat_map(|depth| vec(relay_header(), depth))).prop_map(
        |(client, relays)| {
            relays.into_iter().fold(client, |inner, (mut relay, at)| {
                let options = relay.options_mut();
                options.insert(at.index(options.len() + 1), Opt::RelayMsg(Box::new(inner)));
                relay
            })
        },
    )
}

pub(crate) fn client_message() -> impl Strategy<Value = Model> {
    let msg_type = prop_oneof![
        8 => 1..12_u8,
        1 => any::<u8>().prop_filter("another header", |msg_type| !matches!(msg_type, 12 | 13)),
    ];
    (msg_type, any::<[u8; 3]>(), vec(top_level_option(), 0..8))
        .prop_map(|(msg_type, xid, options)| Model::Client { msg_type, xid, options })
}

/// A relay message without its Relay Message option, and where to put that.
fn relay_header() -> impl Strategy<Value = (Model, Index)> {
    let option = prop_oneof![octets(0..20).prop_map(Opt::InterfaceId), raw_option()];
    let header = (
        select(&[12_u8, 13]),
        any::<u8>(),
        any::<Ipv6Addr>(),
        any::<Ipv6Addr>(),
        vec(option, 0..3),
    );
    (header, any::<Index>()).prop_map(|((msg_type, hop_count, link, peer, options), at)| {
        (Model::Relay { msg_type, hop_count, link, peer, options }, at)
    })
}

pub(crate) fn top_level_option() -> impl Strategy<Value = Opt> {
    let duid = || prop_oneof![4 => octets(3..24), 1 => octets(3..131)];
    let ia = || (any::<u32>(), time(), time(), vec(lease_option(), 0..4));
    prop_oneof![
        2 => duid().prop_map(Opt::ClientId),
        1 => duid().prop_map(Opt::ServerId),
        3 => ia().prop_map(|(iaid, t1, t2, options)| Opt::IaNa { iaid, t1, t2, options }),
        3 => ia().prop_map(|(iaid, t1, t2, options)| Opt::IaPd { iaid, t1, t2, options }),
        1 => (any::<u32>(), vec(lease_option(), 0..3))
            .prop_map(|(iaid, options)| Opt::IaTa { iaid, options }),
        1 => vec(prop_oneof![0..150_u16, any::<u16>()], 0..10).prop_map(Opt::Oro),
        1 => any::<u8>().prop_map(Opt::Preference),
        1 => any::<u16>().prop_map(Opt::ElapsedTime),
        1 => Just(Opt::RapidCommit),
        1 => octets(0..20).prop_map(Opt::InterfaceId),
        1 => vec(any::<Ipv6Addr>(), 0..4).prop_map(Opt::DnsServers),
        1 => vec(domain_name(), 0..4).prop_map(Opt::DomainList),
        1 => status(),
        2 => raw_option(),
    ]
}

fn lease_option() -> impl Strategy<Value = Opt> {
    let enclosed = || vec(prop_oneof![status(), raw_option()], 0..3);
    prop_oneof![
        3 => (any::<Ipv6Addr>(), time(), time(), enclosed()).prop_map(
            |(address, preferred, valid, options)| Opt::IaAddr { address, preferred, valid, options }
        ),
        3 => (any::<Ipv6Addr>(), 0..=128_u8, time(), time(), enclosed()).prop_map(
            |(prefix, len, preferred, valid, options)| {
                Opt::IaPrefix { prefix, len, preferred, valid, options }
            }
        ),
        1 => status(),
        1 => raw_option(),
    ]
}

fn status() -> impl Strategy<Value = Opt> {
    let text = vec(any::<char>(), 0..12).prop_map(|text| text.iter().collect::<String>());
    let message = prop_oneof![8 => text.prop_map(String::into_bytes), 1 => octets(0..12)];
    (prop_oneof![0..7_u16, any::<u16>()], message)
        .prop_map(|(code, message)| Opt::Status { code, message })
}

fn raw_option() -> impl Strategy<Value = Opt> {
    let code = prop_oneof![1..150_u16, any::<u16>()];
    (code.prop_filter("has an arm of its own", |code| !MODELLED.contains(code)), octets(0..30))
        .prop_map(|(code, body)| Opt::Raw { code, body })
}

fn domain_name() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop_oneof![
        6 => vec(octets(1..12), 0..5),
        // Four of them make the longest name that there is: 255 octets with the root.
        1 => (octets(61..62), vec(octets(63..64), 3))
            .prop_map(|(first, rest)| std::iter::once(first).chain(rest).collect()),
    ]
}

fn time() -> impl Strategy<Value = u32> {
    prop_oneof![2 => any::<u32>(), 1 => Just(0), 1 => Just(u32::MAX)]
}

pub(crate) fn octets(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), len)
}

/// A message with one to three kinds of damage.
pub(crate) fn damaged_message() -> impl Strategy<Value = Vec<u8>> {
    (message(), vec(damage(), 1..4)).prop_map(|(message, damages)| {
        let mut octets = message.to_octets();
        damages.into_iter().for_each(|damage| damage.apply(&mut octets));
        octets
    })
}

#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    /// Changes an option's length field, on any level.
    Length(Index, i16),
    /// Changes an option's code, on any level.
    Code(Index, u16),
    Truncate(Index),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Copy(Index, Index, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        3 => (at(), any::<u8>()).prop_map(|(at, value)| Damage::Set(at, value)),
        3 => (at(), prop_oneof![-4..=4_i16, any::<i16>()])
            .prop_map(|(at, delta)| Damage::Length(at, delta)),
        3 => (at(), 0..40_u16).prop_map(|(at, code)| Damage::Code(at, code)),
        1 => at().prop_map(Damage::Truncate),
        1 => (at(), octets(1..6)).prop_map(|(at, octets)| Damage::Insert(at, octets)),
        1 => (at(), 1..20_usize).prop_map(|(at, len)| Damage::Remove(at, len)),
        1 => (at(), at(), 1..40_usize).prop_map(|(from, to, len)| Damage::Copy(from, to, len)),
    ]
}

impl Damage {
    fn apply(self, octets: &mut Vec<u8>) {
        let end = octets.len();
        match self {
            Self::Set(at, value) if end > 0 => octets[at.index(end)] = value,
            Self::Length(at, delta) => {
                change_u16(octets, &at, 2, |len| len.wrapping_add_signed(delta))
            }
            Self::Code(at, code) => change_u16(octets, &at, 0, |_| code),
            Self::Truncate(at) => octets.truncate(at.index(end + 1)),
            Self::Insert(at, new) => {
                let at = at.index(end + 1);
                octets.splice(at..at, new);
            }
            Self::Remove(at, len) => {
                let at = at.index(end + 1);
                octets.drain(at..end.min(at + len));
            }
            Self::Copy(from, to, len) => {
                let (from, to) = (from.index(end + 1), to.index(end + 1));
                let part = octets[from..end.min(from + len)].to_vec();
                octets.splice(to..to, part);
            }
            Self::Set(..) => {}
        }
    }
}

fn change_u16(octets: &mut [u8], at: &Index, offset: usize, change: impl Fn(u16) -> u16) {
    let mut headers = Vec::new();
    option_headers(octets, 0, message_header_len(octets), &mut headers);
    if headers.is_empty() {
        return;
    }
    let at = at.get(&headers) + offset;
    let field = &mut octets[at..at + 2];
    let value = change(u16::from_be_bytes([field[0], field[1]]));
    field.copy_from_slice(&value.to_be_bytes());
}

fn message_header_len(octets: &[u8]) -> usize {
    if matches!(octets.first(), Some(12 | 13)) { 34 } else { 4 }
}

/// Where the options of all levels begin, as far as they can be followed. Apart from the views on
/// purpose, so that what damages the input does not depend on what is tested.
fn option_headers(octets: &[u8], base: usize, header: usize, headers: &mut Vec<usize>) {
    let mut at = header;
    while let Some([c0, c1, l0, l1]) = octets.get(at..at + 4) {
        headers.push(base + at);
        let body = at + 4;
        let end = body + usize::from(u16::from_be_bytes([*l0, *l1]));
        let Some(data) = octets.get(body..end) else { return };
        match u16::from_be_bytes([*c0, *c1]) {
            3 | 25 => option_headers(data, base + body, 12, headers),
            4 => option_headers(data, base + body, 4, headers),
            5 => option_headers(data, base + body, 24, headers),
            26 => option_headers(data, base + body, 25, headers),
            9 => option_headers(data, base + body, message_header_len(data), headers),
            _ => {}
        }
        at = end;
    }
}
