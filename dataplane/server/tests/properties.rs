//! Any options in any order: no panic, and every reply is well-formed.

mod support;

use gemel_server::{Inbound, Service};
use gemel_wire::{IaId, MessageType, OptionCode};
use proptest::{collection::vec, prelude::*, test_runner::FileFailurePersistence};
use support::*;

fn octets(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..max)
}

fn option(code: u16, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len()).unwrap();
    [&code.to_be_bytes(), &len.to_be_bytes(), data].concat()
}

fn lease_option() -> impl Strategy<Value = Vec<u8>> {
    let address = prop_oneof![
        Just("2001:db8:a::1001"),
        Just("2001:db8:b::1000"),
        Just("2001:db8:c::1000"),
        Just("::"),
        Just("2001:db9::1"),
    ];
    let prefix = prop_oneof![Just("2001:db8:a000::/56"), Just("::/60"), Just("2001:db8:b000::/56")];
    prop_oneof![
        (address, octets(8)).prop_map(|(text, rest)| {
            option(5, &[&ip(text).octets()[..], &[0; 8], &rest].concat())
        }),
        address_of_prefix(prefix),
        (any::<u16>(), octets(20)).prop_map(|(code, data)| option(code, &data)),
    ]
}

fn address_of_prefix(
    prefix: impl Strategy<Value = &'static str>,
) -> impl Strategy<Value = Vec<u8>> {
    prefix.prop_map(|text| {
        let lease = pd(text);
        option(26, &[&[0; 8][..], &[lease.prefix_len], &lease.address.octets()].concat())
    })
}

fn any_option() -> impl Strategy<Value = Vec<u8>> {
    let ia = (prop_oneof![Just(3_u16), Just(25)], 0..4_u32, vec(lease_option(), 0..4));
    prop_oneof![
        4 => ia.prop_map(|(code, iaid, leases)| {
            option(code, &[&iaid.to_be_bytes()[..], &[0; 8], &leases.concat()].concat())
        }),
        1 => (0..4_u32, vec(lease_option(), 0..2)).prop_map(|(iaid, leases)| {
            option(4, &[&iaid.to_be_bytes()[..], &leases.concat()].concat())
        }),
        1 => octets(12).prop_map(|data| option(6, &data)),
        1 => Just(option(14, &[])),
        1 => (0..140_u16, octets(40)).prop_map(|(code, data)| option(code, &data)),
    ]
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let msg_type = prop_oneof![8 => 1..12_u8, 1 => any::<u8>()];
    let client =
        prop_oneof![8 => Just(CLIENT.to_vec()), 8 => Just(OTHER.to_vec()), 1 => octets(140)];
    (msg_type, client, prop::bool::weighted(0.9), vec(any_option(), 0..20)).prop_map(
        |(msg_type, client, good_server, options)| {
            let wants_server = matches!(msg_type, 3 | 5 | 8 | 9);
            let build = Build::new(MessageType(msg_type)).client(&client);
            let build = if wants_server == good_server { build.server(SERVER) } else { build };
            [build.done(), options.concat()].concat()
        },
    )
}

fn packet() -> impl Strategy<Value = Vec<u8>> {
    let address = || prop_oneof![Just("::"), Just("2001:db8:a::1"), Just("2001:db8:b::1")];
    let relay_options = vec((prop_oneof![Just(18_u16), Just(135), 0..200_u16], octets(9)), 0..3);
    let levels = vec((any::<bool>(), address(), address(), relay_options), 0..4);
    (message(), levels).prop_map(|(message, levels)| {
        (0..).zip(levels).fold(message, |message, (hop, (plain, link, peer, options))| {
            let mut options: Vec<_> =
                options.into_iter().map(|(code, data)| (OptionCode(code), data)).collect();
            if plain {
                options.clear();
            }
            relay(&Level { hop_count: hop, link: ip(link), peer: ip(peer), options }, &message)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/properties.proptest-regressions",
        ))),
        ..ProptestConfig::default()
    })]

    /// A run of packets against one server, so that later ones meet the bindings of earlier ones.
    #[test]
    fn option_soup(
        packets in vec((packet(), 0..5_u32, prop::bool::weighted(0.1), 0..5000_u32), 1..8),
    ) {
        let mut lab = Lab::new();
        for (packet, interface, read_only, passed) in packets {
            lab.now = lab.now.plus(passed);
            lab.service = if read_only { Service::ReadOnly } else { Service::Full };
            let inbound = Inbound { interface, source_port: 2000, ..lab.inbound(&packet) };
            if let Ok((info, reply)) = lab.handle(&inbound) {
                let answer = Answer::read(&reply);
                prop_assert_eq!(answer.msg_type, info.reply);
                prop_assert!(!read_only || !info.held);
                prop_assert_eq!(answer.relays.is_empty(), info.destination_port == 546);
            }
        }
    }

    #[test]
    fn noise(octets in octets(200)) {
        let mut lab = Lab::new();
        let _ = lab.handle(&lab.inbound(&octets));
    }
}

/// What the soup is made of is not all refused.
#[test]
fn a_plain_ia_of_the_soup_is_served() {
    let mut lab = Lab::new();
    let message = Build::valid(MessageType::SOLICIT)
        .with(|out| {
            let ia = out.begin_ia(OptionCode::IA_NA, IaId(3), 0, 0);
            out.end(ia);
        })
        .done();
    lab.send(&message).lease(gemel_lease::IaKind::Na, 3);
}
