//! How addresses, prefixes, pools, names and octets are written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use gemel_wire::{DUID_LEN_MAX, Duid};
use toml::de::DeValue;

use super::Ipv6Prefix;
use super::section::{Read, Wrong};
use super::types::{AddressPool, DomainName, InterfaceName};
use super::value::text;

/// The longest name of an interface: IFNAMSIZ without the final zero.
const INTERFACE_NAME_LEN_MAX: usize = 15;

const PREFIX_EXAMPLE: &str = "a prefix such as \"2001:db8:1::/64\"";

/// An address of a server that clients are told.
pub(super) fn server_address(value: &DeValue<'_>) -> Read<Ipv6Addr> {
    let given = text(value, "an IPv6 address", "an address such as \"2001:db8::53\"")?;
    let address = address_from_text(given)?;
    if address.is_multicast() || address.is_unspecified() || address.is_loopback() {
        let what = format!("{address} is not the address of a server");
        return Err(Wrong::new(what, "write a unicast address that clients can reach"));
    }
    Ok(address)
}

/// A prefix of global or unique local addresses, not shorter than /1.
pub(super) fn prefix(value: &DeValue<'_>) -> Read<Ipv6Prefix> {
    let prefix = prefix_from_text(text(value, "a prefix", PREFIX_EXAMPLE)?)?;
    check_unicast(prefix.first(), prefix.last())?;
    Ok(prefix)
}

/// A prefix, or an address, which stands for the prefix that holds nothing else.
pub(super) fn prefix_or_address(value: &DeValue<'_>) -> Read<Ipv6Prefix> {
    let given = text(value, "a prefix or an address", PREFIX_EXAMPLE)?;
    if given.contains('/') {
        return prefix(value);
    }
    let address = address_from_text(given)?;
    if address.is_unspecified() {
        let hint = "relays that name no link-address are told apart by `interface_ids`";
        return Err(Wrong::new(":: matches no link-address", hint));
    }
    check_unicast(address, address)?;
    Ok(Ipv6Prefix::around(address, 128))
}

/// `first-last`, a prefix, or one address.
pub(super) fn address_pool(value: &DeValue<'_>) -> Read<AddressPool> {
    const EXAMPLE: &str = "\"2001:db8:1::1000-2001:db8:1::1fff\" or \"2001:db8:1::/64\"";
    let given = text(value, "a range of addresses", EXAMPLE)?;
    let pool = if let Some((first, last)) = given.split_once('-') {
        let (first, last) = (address_from_text(first)?, address_from_text(last)?);
        if last < first {
            let what = format!("the last address {last} comes before the first, {first}");
            return Err(Wrong::new(what, format!("write \"{last}-{first}\"")));
        }
        AddressPool { first, last }
    } else if given.contains('/') {
        let prefix = prefix_from_text(given)?;
        AddressPool { first: prefix.first(), last: prefix.last() }
    } else {
        let address = address_from_text(given)?;
        AddressPool { first: address, last: address }
    };
    check_unicast(pool.first, pool.last)?;
    Ok(pool)
}

/// The name of an interface, as the kernel limits it.
pub(super) fn interface_name(value: &DeValue<'_>) -> Read<InterfaceName> {
    let given = text(value, "the name of an interface", "a name such as \"eth1\"")?;
    let wrong = |what: String| Err(Wrong::new(what, "`ip link` lists the names"));
    if given.is_empty() {
        return wrong("the name is empty".to_owned());
    }
    if given.len() > INTERFACE_NAME_LEN_MAX {
        let what =
            format!("the name has {} octets, at most {INTERFACE_NAME_LEN_MAX} exist", given.len());
        return wrong(what);
    }
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':');
    if matches!(given, "." | "..") || given.contains(bad) {
        return wrong(format!("\"{}\" cannot be an interface", given.escape_debug()));
    }
    Ok(InterfaceName(given.to_owned()))
}

/// The name of a link: a word that needs no quoting in logs, metrics and commands.
pub(super) fn link_name(value: &DeValue<'_>) -> Read<String> {
    let given = text(value, "a name", "a name such as \"lan\"")?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if given.is_empty() || given.len() > 63 || !given.chars().all(good) {
        let what = format!("\"{}\" cannot be the name of a link", given.escape_debug());
        return Err(Wrong::new(what, "write 1 to 63 letters, digits, `-`, `_`, `.`, `@`"));
    }
    Ok(given.to_owned())
}

/// A domain name, encoded as RFC 8415 section 10 says.
pub(super) fn domain_name(value: &DeValue<'_>) -> Read<DomainName> {
    let given = text(value, "a domain name", "a name such as \"example.net\"")?;
    let quoted = given.escape_debug();
    let name = given.strip_suffix('.').unwrap_or(given);
    if name.is_empty() {
        return Err(Wrong::new(format!("\"{quoted}\" is empty"), "write \"example.net\""));
    }
    if !name.is_ascii() {
        let what = format!("\"{quoted}\" is not ASCII");
        return Err(Wrong::new(what, "write the form for the DNS, which begins with `xn--`"));
    }
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        let good = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
        if label.is_empty() {
            let what = format!("\"{quoted}\" has an empty label");
            return Err(Wrong::new(what, "remove the extra dot"));
        }
        if !label.bytes().all(good) || label.starts_with('-') || label.ends_with('-') {
            let what = format!("\"{}\" cannot be a label of a name", label.escape_debug());
            return Err(Wrong::new(what, "write letters, digits, and `-` between them"));
        }
        let Some(len) = u8::try_from(label.len()).ok().filter(|len| *len <= 63) else {
            let what = format!("a label of \"{quoted}\" has {} octets", label.len());
            return Err(Wrong::new(what, "a label has at most 63 (RFC 1035 section 2.3.4)"));
        };
        wire.push(len);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    if wire.len() > 255 {
        let what = format!("the name takes {} octets", wire.len());
        return Err(Wrong::new(what, "a name takes at most 255 (RFC 1035 section 2.3.4)"));
    }
    Ok(DomainName { text: name.to_owned(), wire })
}

/// Octets in hexadecimal: `0x0a0b`, `0a0b`, `0a:0b`, `0a 0b`.
pub(super) fn hex(value: &DeValue<'_>) -> Read<Vec<u8>> {
    hex_from_text(text(value, "octets in hexadecimal", "octets such as \"0a:0b\"")?)
}

/// A DUID in hexadecimal.
pub(super) fn duid(value: &DeValue<'_>) -> Read<Duid> {
    let octets = hex(value)?;
    Duid::new(&octets).map_err(|_| {
        let what = format!("a DUID of {} octets is not possible", octets.len());
        let hint = format!("write 3 to {DUID_LEN_MAX}, type code first (RFC 8415 section 11)");
        Wrong::new(what, hint)
    })
}

/// The body of an Interface-Id option: text, or hexadecimal after `0x`.
pub(super) fn interface_id(value: &DeValue<'_>) -> Read<Vec<u8>> {
    let given = text(value, "an Interface-Id", "text, or hexadecimal such as \"0x0a0b\"")?;
    let octets = if given.starts_with("0x") || given.starts_with("0X") {
        hex_from_text(given)?
    } else {
        given.as_bytes().to_vec()
    };
    match octets.len() {
        0 => Err(Wrong::new("is empty", "write what the relay sends")),
        1..=255 => Ok(octets),
        len => Err(Wrong::new(format!("has {len} octets"), "at most 255 are possible")),
    }
}

/// An address with a port, or `"off"`.
pub(super) fn listen_address(value: &DeValue<'_>) -> Read<Option<SocketAddr>> {
    const EXAMPLE: &str = "\"[::1]:9547\" or \"off\"";
    let given = match value.as_bool() {
        Some(false) => "off",
        _ => text(value, "an address with a port", EXAMPLE)?,
    };
    if given == "off" {
        return Ok(None);
    }
    given.parse().map(Some).map_err(|_| {
        let hint = match given.rsplit_once(':') {
            Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() => {
                format!("write \"[{host}]:{port}\"")
            }
            _ => match given.parse::<IpAddr>() {
                Ok(host) => format!("add the port: \"{}\"", SocketAddr::new(host, 9547)),
                Err(_) => format!("write {EXAMPLE}"),
            },
        };
        Wrong::new(format!("\"{}\" is not an address with a port", given.escape_debug()), hint)
    })
}

fn address_from_text(text: &str) -> Read<Ipv6Addr> {
    let text = text.trim();
    text.parse().map_err(|_| {
        let hint = if text.parse::<Ipv4Addr>().is_ok() {
            "DHCPv6 gives out IPv6 addresses alone"
        } else if text.contains('%') {
            "leave out the zone"
        } else {
            "write an address such as \"2001:db8::1\""
        };
        Wrong::new(format!("\"{}\" is not an IPv6 address", text.escape_debug()), hint)
    })
}

fn prefix_from_text(text: &str) -> Read<Ipv6Prefix> {
    let text = text.trim();
    let Some((address, len)) = text.split_once('/') else {
        address_from_text(text)?;
        let what = format!("\"{}\" has no length", text.escape_debug());
        return Err(Wrong::new(what, format!("write \"{}/64\"", text.escape_debug())));
    };
    let address = address_from_text(address)?;
    let Some(len) = len.parse::<u8>().ok().filter(|len| *len <= 128) else {
        let what = format!("\"{}\" is not a prefix length", len.escape_debug());
        return Err(Wrong::new(what, "write a number from 1 to 128"));
    };
    Ipv6Prefix::new(address, len).ok_or_else(|| {
        let what = format!("{address}/{len} has bits set after its length");
        Wrong::new(what, format!("write \"{}\"", Ipv6Prefix::around(address, len)))
    })
}

/// Refuses ranges with addresses that no client can be given.
fn check_unicast(first: Ipv6Addr, last: Ipv6Addr) -> Read<()> {
    let (first, last) = (first.to_bits(), last.to_bits());
    let unusable = [
        (0, 1, "the unspecified and the loopback address"),
        (0xffff << 32, 0xffff_ffff_ffff, "addresses that stand for IPv4 addresses"),
        (0xfe80 << 112, (0xfec0 << 112) - 1, "link-local addresses"),
        (0xff << 120, u128::MAX, "multicast addresses"),
    ];
    match unusable.iter().find(|(from, to, _)| first <= *to && *from <= last) {
        None => Ok(()),
        Some((_, _, what)) => {
            let hint = "write global or unique local unicast addresses";
            Err(Wrong::new(format!("holds {what}"), hint))
        }
    }
}

fn hex_from_text(text: &str) -> Read<Vec<u8>> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let mut octets = Vec::with_capacity(digits.len() / 2);
    for group in digits.split([':', '-', ' ']) {
        let group = group.as_bytes();
        if let Some(bad) = group.iter().position(|octet| !octet.is_ascii_hexdigit()) {
            let bad = String::from_utf8_lossy(&group[bad..]);
            let bad = bad.chars().next().unwrap_or_default().escape_debug().to_string();
            let what = format!("`{bad}` is not a hexadecimal digit");
            return Err(Wrong::new(what, "write octets such as \"0a:0b\""));
        }
        if group.len() % 2 != 0 {
            let what = "an octet lacks one of its two hexadecimal digits";
            return Err(Wrong::new(what, "write two digits for each octet, such as \"0a:0b\""));
        }
        for pair in group.chunks_exact(2) {
            let digit = |octet: u8| char::from(octet).to_digit(16).unwrap_or(0);
            let octet = digit(pair[0]) << 4 | digit(pair[1]);
            octets.push(u8::try_from(octet).unwrap_or(0));
        }
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(given: &str, read: impl FnOnce(&DeValue<'_>) -> Read<T>) -> Result<T, String> {
        let value = DeValue::String(given.into());
        read(&value).map_err(|wrong| format!("{} | {}", wrong.what, wrong.hint))
    }

    #[test]
    fn prefixes() {
        assert_eq!(read("2001:db8::/32", prefix).unwrap().to_string(), "2001:db8::/32");
        assert_eq!(read("fd00::1", prefix_or_address).unwrap().to_string(), "fd00::1/128");
        for (text, part) in [
            ("2001:db8::1/64", "write \"2001:db8::/64\""),
            ("2001:db8::", "write \"2001:db8::/64\""),
            ("2001:db8::/129", "1 to 128"),
            ("2001:db8::/x", "1 to 128"),
            ("192.0.2.0/24", "IPv6 addresses alone"),
            ("fe80::/64", "link-local"),
            ("::/0", "unspecified"),
            ("ff02::/16", "multicast"),
            ("eth0", "not an IPv6 address"),
        ] {
            let error = read(text, prefix).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(read("::", prefix_or_address).unwrap_err().contains("interface_ids"));
    }

    #[test]
    fn pools() {
        let pool = read("2001:db8::1 - 2001:db8::f", address_pool).unwrap();
        assert_eq!((pool.first.to_bits() & 0xff, pool.last.to_bits() & 0xff), (1, 15));
        assert!(read("2001:db8::2", address_pool).is_ok());
        let pool = read("2001:db8::/127", address_pool).unwrap();
        assert_eq!(pool.last.to_bits() - pool.first.to_bits(), 1);
        let error = read("2001:db8::2-2001:db8::1", address_pool).unwrap_err();
        assert!(error.contains("write \"2001:db8::1-2001:db8::2\""), "{error}");
        assert!(read("fe80::1-fe80::2", address_pool).unwrap_err().contains("link-local"));
        assert!(read("2001:db8::1-ff00::", address_pool).is_err());
    }

    #[test]
    fn names() {
        assert_eq!(read("eth1.100", interface_name).unwrap().as_str(), "eth1.100");
        for bad in ["", "a name", "a/b", "..", "sixteen-letters-", "a:1"] {
            assert!(read(bad, interface_name).is_err(), "{bad}");
        }
        assert!(read("lan-1", link_name).is_ok());
        assert!(read("l\u{e4}n", link_name).is_err());
        let name = read("Example.net.", domain_name).unwrap();
        assert_eq!(name.as_wire(), b"\x07Example\x03net\0");
        assert_eq!(name.as_str(), "Example.net");
        let long = ["a"; 128].join(".");
        let label = "a".repeat(64);
        for bad in ["", ".", "a..b", "-a", "a b", "m\u{fc}ller.example", &long, &label] {
            assert!(read(bad, domain_name).is_err(), "{bad}");
        }
        assert_eq!(read(&["a"; 127].join("."), domain_name).unwrap().as_wire().len(), 255);
    }

    #[test]
    fn octets() {
        for good in ["0x0a0b", "0a0b", "0a:0B", "0a 0b", "0a-0b"] {
            assert_eq!(read(good, hex).unwrap(), [10, 11], "{good}");
        }
        assert!(read("0:3", hex).unwrap_err().contains("two digits"));
        assert!(read("zz", hex).unwrap_err().contains("`z`"));
        assert!(read("\u{20ac}\u{20ac}", hex).is_err());
        assert!(read("", hex).unwrap().is_empty());
        assert!(read("00:01", duid).unwrap_err().contains("3 to 130"));
        assert_eq!(read("00:03:ab", duid).unwrap().to_string(), "00:03:ab");
        assert_eq!(read("ge-0/0", interface_id).unwrap(), b"ge-0/0");
        assert_eq!(read("0xff", interface_id).unwrap(), [255]);
        assert!(read("", interface_id).is_err());
    }

    #[test]
    fn listen_addresses() {
        assert_eq!(read("off", listen_address), Ok(None));
        assert!(read("[::1]:9547", listen_address).unwrap().is_some());
        assert!(read("::1:9547", listen_address).unwrap_err().contains("write \"[::1]:9547\""));
        assert!(read("127.0.0.1", listen_address).unwrap_err().contains("\"127.0.0.1:9547\""));
    }
}
