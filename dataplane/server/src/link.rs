//! The links as the rules use them: options ready to be copied, and lookups that do not walk over
//! all links.

use std::{net::Ipv6Addr, sync::Arc};

use arc_swap::ArcSwap;
use gemel_lease::{IaKind, Lease, LeaseTable, PairPolicy, PoolId, PoolRange, PoolSet, Terms};
use gemel_wire::{INFINITY, OptionCode};

use crate::{ConfigError, LinkConfig, OptionConfig, Prefix};

/// Options that the rules write themselves, or that only clients, relay agents or other servers
/// send; they cannot be configured.
const RESERVED_OPTIONS: [OptionCode; 23] = [
    OptionCode(0),
    OptionCode::CLIENT_ID,
    OptionCode::SERVER_ID,
    OptionCode::IA_NA,
    OptionCode::IA_TA,
    OptionCode::IA_ADDR,
    OptionCode::ORO,
    OptionCode::PREFERENCE,
    OptionCode::ELAPSED_TIME,
    OptionCode::RELAY_MSG,
    OptionCode::AUTH,
    OptionCode::UNICAST,
    OptionCode::STATUS_CODE,
    OptionCode::RAPID_COMMIT,
    OptionCode::USER_CLASS,
    OptionCode::INTERFACE_ID,
    OptionCode::RECONF_MSG,
    OptionCode::RECONF_ACCEPT,
    OptionCode::IA_PD,
    OptionCode::IA_PREFIX,
    OptionCode::REMOTE_ID,
    OptionCode::CLIENT_LINKLAYER_ADDR,
    OptionCode::RELAY_PORT,
];

/// IRT_MINIMUM in seconds (RFC 8415 section 7.6).
const IRT_MINIMUM: u32 = 600;

/// An option, header included.
#[derive(Debug)]
pub(crate) struct LinkOption {
    pub(crate) code: OptionCode,
    pub(crate) always: bool,
    pub(crate) octets: Box<[u8]>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkPool {
    pub(crate) id: PoolId,
    /// Length of its leases; 128 for addresses.
    pub(crate) lease_len: u8,
}

/// One link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) name: String,
    on_link: Box<[Prefix]>,
    na_pools: Box<[LinkPool]>,
    pd_pools: Box<[LinkPool]>,
    pub(crate) terms: Terms,
    pub(crate) t1: Option<u32>,
    pub(crate) t2: Option<u32>,
    pub(crate) rapid_commit: bool,
    pub(crate) create_on_renew: bool,
    pub(crate) create_on_rebind: bool,
    pub(crate) decline_hold_secs: u32,
    pub(crate) preference: u8,
    pub(crate) options: Box<[LinkOption]>,
    pub(crate) pair: Option<Arc<PairPolicy>>,
}

impl Link {
    fn new(config: LinkConfig, pools: &PoolSet) -> Result<Self, ConfigError> {
        let lifetime_error = |what| ConfigError::Lifetime { link: config.name.clone(), what };
        if config.valid_lifetime == 0 {
            return Err(lifetime_error("the valid lifetime is 0, so no lease could be used"));
        }
        if config.preferred_lifetime > config.valid_lifetime {
            // Clients discard such leases (RFC 8415 section 18.2.10.1).
            return Err(lifetime_error("the preferred lifetime exceeds the valid lifetime"));
        }
        if let (Some(t1), Some(t2)) = (config.t1, config.t2)
            && t1 > t2
            && t2 > 0
        {
            // Clients discard such IAs (RFC 8415 section 21.4).
            return Err(lifetime_error("T1 exceeds T2"));
        }
        let check_pools = |ids: &[PoolId], kind| -> Result<Box<[LinkPool]>, ConfigError> {
            ids.iter().map(|id| link_pool(&config.name, pools, *id, kind)).collect()
        };
        Ok(Self {
            na_pools: check_pools(&config.na_pools, IaKind::Na)?,
            pd_pools: check_pools(&config.pd_pools, IaKind::Pd)?,
            options: config
                .options
                .iter()
                .map(|option| link_option(&config.name, option))
                .collect::<Result<_, _>>()?,
            on_link: config.on_link.into(),
            terms: Terms {
                t1: config.t1,
                ..Terms::unlimited(config.preferred_lifetime, config.valid_lifetime)
            },
            t1: config.t1,
            t2: config.t2,
            rapid_commit: config.rapid_commit,
            create_on_renew: config.create_on_renew,
            create_on_rebind: config.create_on_rebind.unwrap_or(config.rapid_commit),
            decline_hold_secs: config.decline_hold_secs,
            preference: config.preference,
            pair: config.pair,
            name: config.name,
        })
    }

    /// The pools for a kind, in the order of the configuration.
    pub(crate) fn pools(&self, kind: IaKind) -> &[LinkPool] {
        match kind {
            IaKind::Na => &self.na_pools,
            IaKind::Ta => &[],
            IaKind::Pd => &self.pd_pools,
        }
    }

    /// The pool of this link that the lease belongs to.
    pub(crate) fn pool_of(&self, table: &LeaseTable, lease: Lease, kind: IaKind) -> Option<PoolId> {
        let id = table.pools().find(lease, kind)?;
        self.pools(kind).iter().any(|pool| pool.id == id).then_some(id)
    }

    /// Whether an address is appropriate for the link; `None` if its prefixes are not known.
    pub(crate) fn is_on_link(&self, address: Ipv6Addr) -> Option<bool> {
        (!self.on_link.is_empty())
            .then(|| self.on_link.iter().any(|prefix| prefix.contains(address)))
    }

    /// T1 and T2 for a reply whose shortest preferred lifetime is `shortest` seconds.
    pub(crate) fn renewal_times(&self, shortest: u32) -> (u32, u32) {
        // RFC 8415 section 21.4 recommends 0.5 and 0.8 of the shortest preferred lifetime, and
        // infinity for infinity. T1 must not come after T2, unless one of them is 0.
        if shortest == 0 {
            return (0, 0);
        }
        let part = |tenths: u64| {
            if shortest == INFINITY {
                return INFINITY;
            }
            u32::try_from(u64::from(shortest) * tenths / 10).unwrap_or(INFINITY)
        };
        let usable = |configured: Option<u32>| configured.filter(|time| *time <= shortest);
        let t2 = usable(self.t2).unwrap_or_else(|| part(8));
        let t1 = usable(self.t1).unwrap_or_else(|| part(5));
        (if t2 == 0 { t1 } else { t1.min(t2) }, t2)
    }
}

fn link_pool(
    link: &str,
    pools: &PoolSet,
    id: PoolId,
    kind: IaKind,
) -> Result<LinkPool, ConfigError> {
    let error = || ConfigError::Pool { link: link.to_owned(), pool: id, kind };
    if !pools.ids().any(|known| known == id) {
        return Err(error());
    }
    match (pools.config(id).range, kind) {
        (PoolRange::Addresses { .. }, IaKind::Na) => Ok(LinkPool { id, lease_len: 128 }),
        (PoolRange::Prefixes { delegated_len, .. }, IaKind::Pd) => {
            Ok(LinkPool { id, lease_len: delegated_len })
        }
        _ => Err(error()),
    }
}

fn link_option(link: &str, option: &OptionConfig) -> Result<LinkOption, ConfigError> {
    let code = option.code;
    let error = |what| ConfigError::Option { link: link.to_owned(), code, what };
    if RESERVED_OPTIONS.contains(&code) {
        return Err(error("is not for the configuration to set"));
    }
    let Ok(len) = u16::try_from(option.data.len()) else {
        return Err(error("has more than 65535 octets"));
    };
    let seconds = || {
        <[u8; 4]>::try_from(option.data.as_slice())
            .map(u32::from_be_bytes)
            .map_err(|_| error("holds a number of seconds in four octets"))
    };
    match code {
        OptionCode::SOL_MAX_RT | OptionCode::INF_MAX_RT if !(60..=86_400).contains(&seconds()?) => {
            return Err(error("must be from 60 to 86400 seconds, or clients ignore it"));
        }
        OptionCode::INFORMATION_REFRESH_TIME if seconds()? < IRT_MINIMUM => {
            return Err(error("must be 600 seconds or more"));
        }
        OptionCode::DNS_SERVERS | OptionCode::SNTP_SERVERS
            if option.data.is_empty() || !option.data.len().is_multiple_of(16) =>
        {
            return Err(error("holds addresses of 16 octets each"));
        }
        _ => {}
    }
    let octets = [&code.0.to_be_bytes(), &len.to_be_bytes(), option.data.as_slice()].concat();
    Ok(LinkOption { code, always: option.always, octets: octets.into() })
}

/// Place of a link in the configuration.
type LinkNumber = u32;

/// The number of no link.
const NO_LINK: LinkNumber = LinkNumber::MAX;

/// All links and the ways to find one.
#[derive(Debug)]
pub(crate) struct Links {
    links: Box<[Link]>,
    /// By Interface-Id, sorted.
    by_interface_id: Box<[(Box<[u8]>, LinkNumber)]>,
    by_relay_prefix: PrefixTable,
    by_on_link: PrefixTable,
    /// By interface index, sorted. Replaced as a whole when an interface comes or goes.
    by_interface: ArcSwap<Vec<(u32, LinkNumber)>>,
}

impl Links {
    pub(crate) fn new(configs: Vec<LinkConfig>, pools: &PoolSet) -> Result<Self, ConfigError> {
        let count = configs.len();
        let Ok(count) = LinkNumber::try_from(count) else {
            return Err(ConfigError::TooManyLinks(count));
        };
        let name = |number: LinkNumber| configs[number as usize].name.clone();
        let mut by_interface_id = Vec::new();
        let mut relay_prefixes = Vec::new();
        let mut on_link = Vec::new();
        let mut by_interface = Vec::new();
        for (number, config) in (0..count).zip(&configs) {
            by_interface_id.extend(
                config.interface_ids.iter().map(|id| (id.clone().into_boxed_slice(), number)),
            );
            relay_prefixes.extend(config.relay_prefixes.iter().map(|prefix| (*prefix, number)));
            on_link.extend(config.on_link.iter().map(|prefix| (*prefix, number)));
            by_interface.extend(config.interface.map(|index| (index, number)));
        }
        unique(&mut by_interface_id, name, |id| {
            let hex: String = id.iter().map(|octet| format!("{octet:02x}")).collect();
            format!("Interface-Id 0x{hex}")
        })?;
        unique(&mut relay_prefixes, name, |prefix| format!("relay prefix {prefix}"))?;
        unique(&mut by_interface, name, |index| format!("interface {index}"))?;
        // Two links may share an on-link prefix; a source address in it then tells nothing, and
        // the interface decides.
        on_link.sort_unstable();
        on_link.dedup();
        for at in 1..on_link.len() {
            if on_link[at - 1].0 == on_link[at].0 {
                (on_link[at - 1].1, on_link[at].1) = (NO_LINK, NO_LINK);
            }
        }
        on_link.dedup();
        Ok(Self {
            by_interface_id: by_interface_id.into(),
            by_relay_prefix: PrefixTable::new(&relay_prefixes),
            by_on_link: PrefixTable::new(&on_link),
            by_interface: ArcSwap::from_pointee(by_interface),
            links: configs
                .into_iter()
                .map(|config| Link::new(config, pools))
                .collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    pub(crate) fn get(&self, number: usize) -> Option<&Link> {
        self.links.get(number)
    }

    pub(crate) fn by_interface_id(&self, interface_id: &[u8]) -> Option<&Link> {
        let at = self.by_interface_id.binary_search_by(|(id, _)| (**id).cmp(interface_id)).ok()?;
        self.number(self.by_interface_id[at].1)
    }

    pub(crate) fn by_link_address(&self, address: Ipv6Addr) -> Option<&Link> {
        self.by_relay_prefix.longest_match(address).and_then(|number| self.number(number))
    }

    pub(crate) fn by_client_address(&self, address: Ipv6Addr) -> Option<&Link> {
        self.by_on_link.longest_match(address).and_then(|number| self.number(number))
    }

    pub(crate) fn by_interface(&self, index: u32) -> Option<&Link> {
        let map = self.by_interface.load();
        let at = map.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        self.number(map[at].1)
    }

    /// Ties the link to an interface, or to none. An interface belongs to one link: the last one
    /// that claimed it.
    pub(crate) fn set_interface(&self, link: usize, index: Option<u32>) -> bool {
        let number = match LinkNumber::try_from(link) {
            Ok(number) if link < self.len() => number,
            _ => return false,
        };
        self.by_interface.rcu(|map| {
            let mut map = Vec::clone(map);
            map.retain(|(i, n)| *n != number && Some(*i) != index);
            map.extend(index.map(|index| (index, number)));
            map.sort_unstable();
            Arc::new(map)
        });
        true
    }

    fn number(&self, number: LinkNumber) -> Option<&Link> {
        self.links.get(number as usize)
    }
}

/// Sorts, and finds keys that two links claim. What one link claims twice is kept once.
fn unique<K: Ord + Clone>(
    entries: &mut Vec<(K, LinkNumber)>,
    name: impl Fn(LinkNumber) -> String,
    what: impl Fn(&K) -> String,
) -> Result<(), ConfigError> {
    entries.sort_unstable();
    entries.dedup();
    match entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(ConfigError::Ambiguous {
            what: what(&pair[0].0),
            first: name(pair[0].1),
            second: name(pair[1].1),
        }),
        None => Ok(()),
    }
}

/// Links by prefix, the longest match first.
#[derive(Debug)]
struct PrefixTable(Box<[PrefixesOfLength]>);

/// All prefixes of one length.
#[derive(Debug)]
struct PrefixesOfLength {
    mask: u128,
    /// First address and link, sorted.
    entries: Box<[(u128, LinkNumber)]>,
}

impl PrefixTable {
    fn new(prefixes: &[(Prefix, LinkNumber)]) -> Self {
        let mut lengths: Vec<u8> = prefixes.iter().map(|(prefix, _)| prefix.prefix_len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let of_length = |len: u8| {
            let mut entries: Box<[_]> = prefixes
                .iter()
                .filter(|(prefix, _)| prefix.prefix_len() == len)
                .map(|(prefix, number)| (prefix.address().to_bits(), *number))
                .collect();
            entries.sort_unstable();
            PrefixesOfLength { mask: Prefix::mask(len), entries }
        };
        Self(lengths.into_iter().rev().map(of_length).collect())
    }

    fn longest_match(&self, address: Ipv6Addr) -> Option<LinkNumber> {
        self.0.iter().find_map(|PrefixesOfLength { mask, entries }| {
            let masked = address.to_bits() & mask;
            let at = entries.binary_search_by_key(&masked, |(bits, _)| *bits).ok()?;
            Some(entries[at].1)
        })
    }
}

#[cfg(test)]
mod tests {
    use gemel_lease::{Ownership, PoolConfig};

    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, len) = text.split_once('/').unwrap();
        Prefix::new(address.parse().unwrap(), len.parse().unwrap()).unwrap()
    }

    fn pools() -> PoolSet {
        let addresses = PoolRange::Addresses {
            first: "2001:db8::1000".parse().unwrap(),
            last: "2001:db8::10ff".parse().unwrap(),
        };
        let prefixes = PoolRange::Prefixes {
            prefix: "2001:db8:8000::".parse().unwrap(),
            prefix_len: 40,
            delegated_len: 56,
        };
        let pool = |range| PoolConfig { range, ownership: Ownership::Sole };
        PoolSet::new(vec![pool(addresses), pool(prefixes)]).unwrap()
    }

    fn link(name: &str, change: impl FnOnce(&mut LinkConfig)) -> LinkConfig {
        let mut config = LinkConfig::new(name);
        change(&mut config);
        config
    }

    fn name(link: Option<&Link>) -> &str {
        link.map_or("-", |link| &link.name)
    }

    #[test]
    fn longest_relay_prefix_wins_among_many() {
        let mut configs: Vec<_> = (0..3000_u32)
            .map(|n| {
                link(&format!("l{n}"), |link| {
                    link.relay_prefixes.push(prefix(&format!("2001:db8:{n:x}::/48")));
                    link.interface_ids.push(n.to_be_bytes().to_vec());
                    link.interface = Some(n + 1);
                })
            })
            .collect();
        configs.push(link("all", |link| link.relay_prefixes.push(prefix("2001:db8::/32"))));
        configs.push(link("one", |link| link.relay_prefixes.push(prefix("2001:db8:7::1/128"))));
        let links = Links::new(configs, &pools()).unwrap();
        let by_address = |text: &str| name(links.by_link_address(text.parse().unwrap()));
        assert_eq!(by_address("2001:db8:7::2"), "l7");
        assert_eq!(by_address("2001:db8:7::1"), "one");
        assert_eq!(by_address("2001:db8:ffff::1"), "all");
        assert_eq!(by_address("2001:db9::1"), "-");
        assert_eq!(name(links.by_interface_id(&2999_u32.to_be_bytes())), "l2999");
        assert_eq!(name(links.by_interface_id(b"")), "-");
        assert_eq!(name(links.by_interface(1500)), "l1499");
    }

    #[test]
    fn a_shared_on_link_prefix_tells_nothing() {
        let links = [("a", "2001:db8:7::/64"), ("b", "2001:db8:7::/64"), ("c", "2001:db8:7::/64")]
            .into_iter()
            .chain([("d", "2001:db8:7::/48"), ("e", "2001:db8:8::/64")])
            .map(|(name, text)| link(name, |link| link.on_link = vec![prefix(text); 2]))
            .collect();
        let links = Links::new(links, &pools()).unwrap();
        let by_client = |text: &str| name(links.by_client_address(text.parse().unwrap()));
        assert_eq!(by_client("2001:db8:7::1"), "-");
        assert_eq!(by_client("2001:db8:7:1::1"), "d");
        assert_eq!(by_client("2001:db8:8::1"), "e");
        assert_eq!(by_client("2001:db9::1"), "-");
    }

    #[test]
    fn an_interface_comes_moves_and_goes() {
        let links = Links::new(vec![link("a", |_| {}), link("b", |_| {})], &pools()).unwrap();
        assert_eq!(name(links.by_interface(5)), "-");
        assert!(links.set_interface(0, Some(5)));
        assert_eq!(name(links.by_interface(5)), "a");
        assert!(links.set_interface(1, Some(5)));
        assert_eq!(name(links.by_interface(5)), "b");
        assert!(links.set_interface(1, Some(6)));
        assert_eq!(name(links.by_interface(5)), "-");
        assert_eq!(name(links.by_interface(6)), "b");
        assert!(links.set_interface(1, None));
        assert_eq!(name(links.by_interface(6)), "-");
        assert!(!links.set_interface(2, Some(7)));
    }

    #[test]
    fn contradictions_are_refused() {
        type Change = fn(&mut LinkConfig);
        let cases: [(&str, Change); 13] = [
            ("valid lifetime is 0", |l| l.valid_lifetime = 0),
            ("preferred lifetime exceeds", |l| l.preferred_lifetime = l.valid_lifetime + 1),
            ("T1 exceeds T2", |l| (l.t1, l.t2) = (Some(10), Some(9))),
            ("pool 2 is not a pool", |l| l.na_pools.push(PoolId(2))),
            ("pool 1 is not a pool for ia_na", |l| l.na_pools.push(PoolId(1))),
            ("pool 0 is not a pool for ia_pd", |l| l.pd_pools.push(PoolId(0))),
            ("OPTION_SERVERID", |l| {
                l.options.push(OptionConfig::new(OptionCode::SERVER_ID, vec![0; 10]));
            }),
            ("60 to 86400", |l| l.options.push(OptionConfig::sol_max_rt(59))),
            ("60 to 86400", |l| l.options.push(OptionConfig::inf_max_rt(86_401))),
            ("600 seconds", |l| l.options.push(OptionConfig::information_refresh_time(599))),
            ("16 octets", |l| l.options.push(OptionConfig::dns_servers(&[]))),
            ("65535", |l| l.options.push(OptionConfig::new(OptionCode(200), vec![0; 65_536]))),
            ("both claim", |l| l.interface = Some(9)),
        ];
        for (text, change) in cases {
            let configs = vec![link("first", |l| l.interface = Some(9)), link("second", change)];
            let error = Links::new(configs, &pools()).unwrap_err().to_string();
            assert!(error.contains(text), "{error:?} should speak of {text:?}");
        }
    }

    #[test]
    fn renewal_times_follow_the_shortest_preferred_lifetime() {
        let times = |t1, t2, shortest| {
            let config = link("a", |l| (l.t1, l.t2) = (t1, t2));
            Link::new(config, &pools()).unwrap().renewal_times(shortest)
        };
        assert_eq!(times(None, None, 3000), (1500, 2400));
        assert_eq!(times(None, None, INFINITY), (INFINITY, INFINITY));
        assert_eq!(times(None, None, 0), (0, 0));
        assert_eq!(times(Some(100), Some(200), 3000), (100, 200));
        assert_eq!(times(Some(0), Some(0), 3000), (0, 0), "left to the client");
        assert_eq!(times(Some(100), Some(200), 50), (25, 40), "what is left is shorter");
        assert_eq!(times(Some(2900), None, 3000), (2400, 2400), "T1 never after T2");
    }
}
