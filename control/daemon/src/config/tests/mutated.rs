//! Whatever the text, reading it ends in a configuration that can be used or in errors that can be
//! shown.

use proptest::prelude::*;

use super::*;

fn check(text: &str) {
    match parse(text) {
        Ok(config) => assert_convertible(&config),
        Err(errors) => {
            assert!(!errors.errors.is_empty());
            let lines = text.bytes().filter(|octet| *octet == b'\n').count() + 1;
            for error in &errors.errors {
                assert!(error.line <= lines, "{error}\n{text}");
                assert!(!error.what.is_empty());
            }
            assert!(errors.to_string().lines().count() > errors.errors.len());
        }
    }
}

/// Pieces that configurations are made of, so that random text gets past the first checks.
const PIECES: &[&str] = &[
    "[[link]]\n",
    "[defaults]\n",
    "[store]\n",
    "[dataplane]\n",
    "[link.relay]\n",
    "[[failover]]\n",
    "[failover.tls]\n",
    "role = \"secondary\"\n",
    "links = ",
    "mclt = ",
    "tls = \"off\"\n",
    "partner = ",
    "local = ",
    "secondary_share = ",
    "\"20%\"",
    "\"192.0.2.1\"",
    "name = ",
    "\n",
    "interface = ",
    "prefixes = ",
    "address_pools = ",
    "prefix_pools = ",
    "options = ",
    "t1 = ",
    "t2 = ",
    "preferred_lifetime = ",
    "valid_lifetime = ",
    "dns_servers = ",
    "domain_search = ",
    "link_addresses = ",
    "interface_ids = ",
    "mode = ",
    "flood_limit = ",
    "rate = ",
    "code = ",
    "hex = ",
    "prefix = ",
    "delegated_length = ",
    "{ ",
    " }",
    "[",
    "]",
    ", ",
    "\"",
    "'",
    "\"\"\"",
    "\"2001:db8:1::/64\"",
    "\"2001:db8:1::1-2001:db8:1::2\"",
    "\"2001:db8::/32\"",
    "\"::\"",
    "\"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\"",
    "\"eth1\"",
    "\"infinite\"",
    "\"1h\"",
    "0",
    "1",
    "56",
    "64",
    "128",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "-170141183460469231731687303715884105728",
    "1e9",
    "nan",
    "true",
    "2000-01-01",
    "\"0x\"",
    "\"00:01\"",
    "\u{fc}",
    "\\",
    "\u{0}",
    "\r",
    "#",
    ".",
    "=",
    "\"auto\"",
    "0x1f",
    "1_000",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn random_text(text in any::<String>()) {
        check(&text);
    }

    #[test]
    fn random_pieces(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40)) {
        check(&pieces.concat());
    }

    /// The example with stretches replaced by pieces or by pieces of itself.
    #[test]
    fn mutated_example(
        full in any::<bool>(),
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0_usize..30, prop::sample::select(PIECES)),
            1..6,
        ),
    ) {
        let mut text = if full { example::switched_on() } else { LINKS_AND_MORE.to_owned() };
        for (at, len, piece) in edits {
            let mut from = at.index(text.len() + 1);
            while !text.is_char_boundary(from) {
                from -= 1;
            }
            let mut to = (from + len).min(text.len());
            while !text.is_char_boundary(to) {
                to += 1;
            }
            text.replace_range(from..to, piece);
        }
        check(&text);
    }

    /// Values of random size in places where they are taken, which often pass.
    #[test]
    fn random_values(
        first in any::<u128>(),
        size in 0_u32..128,
        prefix_len in 0_u8..=130,
        pool_len in 0_u8..=130,
        delegated in 0_u8..=130,
        times in prop::array::uniform4(prop::option::of(any::<u32>())),
        near in any::<bool>(),
    ) {
        let base = if near { 0x2001_0db8_u128 << 96 | first >> 64 } else { first };
        let address = std::net::Ipv6Addr::from_bits(base);
        let last = std::net::Ipv6Addr::from_bits(base.saturating_add((1 << size) - 1));
        let prefix = super::super::Ipv6Prefix::around(address, prefix_len);
        let pool = super::super::Ipv6Prefix::around(address, pool_len);
        let mut text = format!(
            "[[link]]\ninterface = \"a\"\nprefixes = \"{prefix}\"\n\
             address_pools = \"{address}-{last}\"\n[[link]]\ninterface = \"b\"\n\
             prefixes = \"2001:db8::/64\"\n\
             prefix_pools = [{{ prefix = \"{pool}\", delegated_length = {delegated} }}]\n",
        );
        for (key, time) in ["preferred_lifetime", "valid_lifetime", "t1", "t2"].iter().zip(times) {
            if let Some(time) = time {
                text += &format!("{key} = {time}\n");
            }
        }
        check(&text);
    }
}

const LINKS_AND_MORE: &str = r#"
[store]
path = "/x"
[defaults]
preferred_lifetime = "1h"
options = [{ code = 56, hex = "00" }]
[[link]]
interface = "eth1"
prefixes = ["2001:db8:1::/64"]
address_pools = ["2001:db8:1::1000-2001:db8:1::1fff"]
prefix_pools = [{ prefix = "2001:db8:8000::/36", delegated_length = 56 }]
relay = { link_addresses = "fd00::/8", interface_ids = ["a", "0x00"] }
[[link]]
name = "b"
prefixes = ["2001:db8:2::/64"]
[[failover]]
name = "p"
role = "secondary"
partner = "2001:db8::2"
links = ["eth1", "b"]
mclt = "1h"
tls = "off"
"#;
