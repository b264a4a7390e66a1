use std::{fmt, net::Ipv6Addr, sync::Arc};

use gemel_lease::{IaKind, PairPolicy, PoolId};
use gemel_wire::{Duid, OptionCode};

/// An IPv6 prefix; bits beyond its length are zero.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Prefix {
    bits: u128,
    len: u8,
}

impl Prefix {
    /// The prefix of `len` bits that `address` lies in; `None` for more than 128 bits.
    #[must_use]
    pub fn new(address: Ipv6Addr, len: u8) -> Option<Self> {
        (len <= 128).then(|| Self { bits: address.to_bits() & Self::mask(len), len })
    }

    /// The first address.
    #[must_use]
    pub fn address(&self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.bits)
    }

    /// Length in bits.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.len
    }

    /// Whether the address lies in the prefix.
    #[must_use]
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        address.to_bits() & Self::mask(self.len) == self.bits
    }

    pub(crate) const fn mask(len: u8) -> u128 {
        if len == 0 { 0 } else { u128::MAX << (128 - len as u32) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.len)
    }
}

/// An option that clients of a link are told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OptionConfig {
    /// The option code; none of those that the rules themselves write.
    pub code: OptionCode,
    /// The body of the option.
    pub data: Vec<u8>,
    /// Send it even to clients that did not ask for it (RFC 8415 section 18.3 allows that). An
    /// Information Refresh Time goes into replies to INFORMATION-REQUEST alone in any case.
    pub always: bool,
}

impl OptionConfig {
    /// An option by number, sent when requested.
    #[must_use]
    pub fn new(code: OptionCode, data: Vec<u8>) -> Self {
        Self { code, data, always: false }
    }

    /// DNS recursive name servers (RFC 3646 section 3).
    #[must_use]
    pub fn dns_servers(servers: &[Ipv6Addr]) -> Self {
        Self::new(OptionCode::DNS_SERVERS, servers.iter().flat_map(Ipv6Addr::octets).collect())
    }

    /// Domain search list (RFC 3646 section 4), in the encoding of RFC 8415 section 10.
    ///
    /// # Errors
    /// [`ConfigError::DomainName`] for a name with an empty label, a label above 63 octets, a
    /// character outside ASCII, or more than 255 octets in all.
    pub fn domain_search<S: AsRef<str>>(domains: &[S]) -> Result<Self, ConfigError> {
        let mut data = Vec::new();
        for domain in domains {
            let domain = domain.as_ref();
            let bad = || ConfigError::DomainName(domain.to_owned());
            let name = domain.strip_suffix('.').unwrap_or(domain);
            let start = data.len();
            for label in name.split('.') {
                let len = u8::try_from(label.len()).map_err(|_| bad())?;
                if len == 0 || len > 63 || !label.bytes().all(|b| b.is_ascii_graphic()) {
                    return Err(bad());
                }
                data.push(len);
                data.extend_from_slice(label.as_bytes());
            }
            data.push(0);
            if data.len() - start > 255 {
                return Err(bad());
            }
        }
        Ok(Self::new(OptionCode::DOMAIN_LIST, data))
    }

    /// Upper bound for the client's Solicit timeout in seconds, 60 to 86400 (RFC 8415 section
    /// 21.24).
    #[must_use]
    pub fn sol_max_rt(secs: u32) -> Self {
        Self::new(OptionCode::SOL_MAX_RT, secs.to_be_bytes().to_vec())
    }

    /// Upper bound for the client's Information-request timeout in seconds, 60 to 86400 (RFC 8415
    /// section 21.25).
    #[must_use]
    pub fn inf_max_rt(secs: u32) -> Self {
        Self::new(OptionCode::INF_MAX_RT, secs.to_be_bytes().to_vec())
    }

    /// Information Refresh Time in seconds, 600 or more (RFC 8415 section 21.23).
    #[must_use]
    pub fn information_refresh_time(secs: u32) -> Self {
        Self::new(OptionCode::INFORMATION_REFRESH_TIME, secs.to_be_bytes().to_vec())
    }
}

/// What clients on one link get. Made by whoever reads the configuration; checked as a whole by
/// [`crate::Server::new`].
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Name for people, unique.
    pub name: String,
    /// Index of the interface on which clients are heard without a relay agent, if it exists yet;
    /// see [`crate::Server::set_interface`].
    pub interface: Option<u32>,
    /// A relayed message belongs to the link whose prefix matches its link-address longest.
    pub relay_prefixes: Vec<Prefix>,
    /// Bodies of Interface-Id options that name this link, compared octet by octet; they come
    /// before link-addresses.
    pub interface_ids: Vec<Vec<u8>>,
    /// Prefixes of addresses that are appropriate for the link (RFC 8415 section 18.3.3). Without
    /// any, the server judges no address to be off the link.
    pub on_link: Vec<Prefix>,
    /// Pools for IA_NA, tried in order.
    pub na_pools: Vec<PoolId>,
    /// Pools for IA_PD, tried in order, those that delegate the requested length before others.
    pub pd_pools: Vec<PoolId>,
    /// Preferred lifetime in seconds.
    pub preferred_lifetime: u32,
    /// Valid lifetime in seconds, not below the preferred lifetime.
    pub valid_lifetime: u32,
    /// T1 in seconds; `None` for half the shortest preferred lifetime. Also used in place of a
    /// configured value that exceeds the shortest preferred lifetime.
    pub t1: Option<u32>,
    /// T2 in seconds; `None` for 0.8 of the shortest preferred lifetime, and as with `t1`.
    pub t2: Option<u32>,
    /// Whether a SOLICIT with Rapid Commit is answered with a REPLY (RFC 8415 section 18.3.1).
    pub rapid_commit: bool,
    /// Whether a RENEW creates the bindings that it does not find, rather than answering
    /// NoBinding. RFC 8415 section 18.3.4 leaves it open; `true` lets a client with several IAs
    /// obtain in a RENEW what it did not get before.
    pub create_on_renew: bool,
    /// The same for REBIND; `None` means the value of `rapid_commit`, as RFC 8415 section 18.3.5
    /// advises, since several servers may hear a REBIND.
    pub create_on_rebind: Option<bool>,
    /// How long a declined address is kept out of use, in seconds.
    pub decline_hold_secs: u32,
    /// Server preference (RFC 8415 section 21.8); 0, the default, is not sent.
    pub preference: u8,
    /// Options for clients of this link, sent in this order.
    pub options: Vec<OptionConfig>,
    /// What the failover endpoint of the link's pools allows (RFC 8156 section 8.1); `None` without
    /// a partner.
    pub pair: Option<Arc<PairPolicy>>,
}

impl LinkConfig {
    /// A link without pools and options, with common lifetimes: 3,000 s preferred, 4,000 s valid,
    /// declined addresses held for a day.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            interface: None,
            relay_prefixes: Vec::new(),
            interface_ids: Vec::new(),
            on_link: Vec::new(),
            na_pools: Vec::new(),
            pd_pools: Vec::new(),
            preferred_lifetime: 3_000,
            valid_lifetime: 4_000,
            t1: None,
            t2: None,
            rapid_commit: false,
            create_on_renew: true,
            create_on_rebind: None,
            decline_hold_secs: 86_400,
            preference: 0,
            options: Vec::new(),
            pair: None,
        }
    }
}

/// What the rules need to know.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// This server's DUID.
    pub server_duid: Duid,
    /// The links it serves.
    pub links: Vec<LinkConfig>,
    /// Whether to answer clients that send straight to one of the server's unicast addresses. RFC
    /// 9915 section 16 has dropped the answer UseMulticast of RFC 8415 section 18.4: it advises
    /// against accepting such messages, but finds no harm in those of clients that once got a
    /// Server Unicast option. Relayed messages are not concerned.
    pub accept_unicast: bool,
}

impl ServerConfig {
    /// A server without links that answers messages sent by unicast too.
    #[must_use]
    pub fn new(server_duid: Duid) -> Self {
        Self { server_duid, links: Vec::new(), accept_unicast: true }
    }
}

/// A configuration that the rules cannot follow.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// Two links claim the same interface, Interface-Id or relay prefix.
    #[error("links {first} and {second} both claim {what}; a message must find one link")]
    Ambiguous {
        /// What both claim.
        what: String,
        /// The earlier link.
        first: String,
        /// The later link.
        second: String,
    },
    /// Not a name that DNS could hold.
    #[error("domain {0:?} has a label that is empty, too long or not ASCII")]
    DomainName(String),
    /// A lifetime or time that contradicts another.
    #[error("link {link}: {what}")]
    Lifetime {
        /// The link.
        link: String,
        /// What contradicts what.
        what: &'static str,
    },
    /// An option that the rules write themselves, or whose body cannot be.
    #[error("link {link}: option {code}: {what}")]
    Option {
        /// The link.
        link: String,
        /// The option.
        code: OptionCode,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A pool that is not in the pool set, or leases something else than the link wants of it.
    #[error("link {link}: pool {} is not a pool for ia_{kind}", pool.0)]
    Pool {
        /// The link.
        link: String,
        /// The pool.
        pool: PoolId,
        /// What it was to be used for.
        kind: IaKind,
    },
    /// More links than fit.
    #[error("{0} links are more than 4,294,967,295")]
    TooManyLinks(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_contains() {
        let prefix = Prefix::new("2001:db8:1::42".parse().unwrap(), 48).unwrap();
        assert_eq!(prefix.to_string(), "2001:db8:1::/48");
        assert!(prefix.contains("2001:db8:1:ffff::1".parse().unwrap()));
        assert!(!prefix.contains("2001:db8:2::".parse().unwrap()));
        assert!(Prefix::new(Ipv6Addr::UNSPECIFIED, 0).unwrap().contains(Ipv6Addr::LOCALHOST));
        assert!(Prefix::new(Ipv6Addr::UNSPECIFIED, 129).is_none());
    }

    #[test]
    fn domain_names() {
        let option = OptionConfig::domain_search(&["example.org", "a.b."]).unwrap();
        assert_eq!(option.data, b"\x07example\x03org\x00\x01a\x01b\x00");
        for bad in ["", ".", "a..b", "ä.org", "a b", &"x".repeat(64), &"abc.".repeat(80)] {
            assert!(OptionConfig::domain_search(&[bad]).is_err(), "{bad:?}");
        }
    }
}
