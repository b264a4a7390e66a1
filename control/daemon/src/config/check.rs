//! What links may not share.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::Ipv6Addr;
use std::ops::Range;

use gemel_lease::{Ownership, PoolConfig, PoolError, PoolRange, PoolSet};

use super::Ipv6Prefix;
use super::link::LinkDraft;
use super::report::ProblemKind;
use super::section::{Located, Reader, Setting};
use super::types::{AddressPool, InterfaceName};

/// A `PoolId` has 16 bits.
const POOLS_MAX: usize = 65_536;

const ON_LINK: &str = "the on-link prefix";

/// Reports what is wrong between links. Returns the interfaces to listen on besides theirs.
pub(super) fn check_links(
    reader: &Reader<'_>,
    links: &[LinkDraft],
    interfaces: Vec<Located<InterfaceName>>,
) -> Vec<InterfaceName> {
    unique(reader, "the name", links.iter().filter_map(|link| link.name.as_ref()));
    let ids = links.iter().flat_map(|link| &link.interface_ids.items);
    unique(reader, "the Interface-Id", ids);
    check_link_addresses(reader, links);
    check_ranges(reader, links);
    for link in links {
        check_inside(reader, link);
    }
    let pools = links.iter().map(|link| link.address_pools.items.len() + link.prefix_pools.len());
    if pools.sum::<usize>() > POOLS_MAX {
        let what = format!("there are more than {POOLS_MAX} pools");
        reader.error(ProblemKind::Conflict, None, "link", what, "join adjacent pools");
    }
    check_interfaces(reader, links, interfaces)
}

fn check_interfaces(
    reader: &Reader<'_>,
    links: &[LinkDraft],
    interfaces: Vec<Located<InterfaceName>>,
) -> Vec<InterfaceName> {
    let of_links: Vec<&Located<InterfaceName>> = links
        .iter()
        .filter_map(|link| match &link.interface {
            Setting::Given(interface) => Some(interface),
            Setting::Absent | Setting::Wrong => None,
        })
        .collect();
    unique(reader, "the interface", of_links.iter().copied());
    let any_wrong = links.iter().any(|link| link.interface.is_wrong());
    if let (Some(link), true, true, false) =
        (links.first(), of_links.is_empty(), interfaces.is_empty(), any_wrong)
    {
        let hint = "write `interface` in a link, or `interfaces` below `[dataplane]` for relays";
        let what = "there is no interface to listen on";
        reader.error(ProblemKind::Missing, link.at.clone(), link.path.clone(), what, hint);
    }
    let mut known: Vec<Located<InterfaceName>> = of_links.into_iter().cloned().collect();
    let mut more = Vec::new();
    for interface in interfaces {
        if let Some(first) = known.iter().find(|known| known.value == interface.value) {
            let what = format!("{} is{} already", interface.value, reader.place(first));
            reader.warning(interface.at, interface.key, what, "remove it here");
        } else {
            more.push(interface.value.clone());
            known.push(interface);
        }
    }
    more
}

/// Reports each value that occurs a second time.
fn unique<'a, T: Eq + Hash + Describe + 'a>(
    reader: &Reader<'_>,
    what: &str,
    values: impl Iterator<Item = &'a Located<T>>,
) {
    let mut seen: HashMap<&T, &Located<T>> = HashMap::new();
    for located in values {
        if let Some(first) = seen.get(&located.value) {
            let place = reader.place(first);
            let what = format!("{what} {} is{place} already", located.value.describe());
            let hint = "a message has to belong to one link; each must be unique";
            let (at, key) = (located.at.clone(), located.key.clone());
            reader.error(ProblemKind::Conflict, at, key, what, hint);
        } else {
            seen.insert(&located.value, located);
        }
    }
}

/// A relay's link-address finds the link by longest match, among on-link prefixes too.
fn check_link_addresses(reader: &Reader<'_>, links: &[LinkDraft]) {
    let mut seen: HashMap<(u128, u8), (usize, &Located<Ipv6Prefix>)> = HashMap::new();
    for (i, link) in links.iter().enumerate() {
        for prefix in &link.prefixes.items {
            // Prefixes that clash with one another are reported as overlapping.
            seen.entry(identity(prefix.value)).or_insert((i, prefix));
        }
    }
    for (i, link) in links.iter().enumerate() {
        for prefix in &link.link_addresses.items {
            let Some((other, first)) = seen.get(&identity(prefix.value)) else {
                seen.insert(identity(prefix.value), (i, prefix));
                continue;
            };
            let what = format!("{} is{} already", prefix.value, reader.place(first));
            let (at, key) = (prefix.at.clone(), prefix.key.clone());
            if *other == i {
                reader.warning(at, key, what, "remove it here");
            } else {
                let hint = "a message has to belong to one link; each must be unique";
                reader.error(ProblemKind::Conflict, at, key, what, hint);
            }
        }
    }
}

fn identity(prefix: Ipv6Prefix) -> (u128, u8) {
    (prefix.first().to_bits(), prefix.prefix_len())
}

/// A stretch of addresses that has to be disjoint from others.
struct Stretch<'a> {
    first: u128,
    last: u128,
    /// Place of its link in the configuration.
    link: usize,
    what: &'static str,
    at: Option<&'a Range<usize>>,
    key: &'a str,
}

impl<'a> Stretch<'a> {
    fn new<T>(
        what: &'static str,
        link: usize,
        located: &'a Located<T>,
        range: impl FnOnce(&T) -> (Ipv6Addr, Ipv6Addr),
    ) -> Self {
        let (first, last) = range(&located.value);
        let (first, last) = (first.to_bits(), last.to_bits());
        Self { first, last, link, what, at: located.at.as_ref(), key: &located.key }
    }
}

/// On-link prefixes and delegated prefixes are disjoint, and so are address pools, which lie in
/// on-link prefixes.
fn check_ranges(reader: &Reader<'_>, links: &[LinkDraft]) {
    let mut prefixes = Vec::new();
    let mut addresses = Vec::new();
    for (i, link) in links.iter().enumerate() {
        addresses.extend(
            link.address_pools.items.iter().map(|pool| {
                Stretch::new("the address pool", i, pool, |pool| (pool.first, pool.last))
            }),
        );
        prefixes.extend(link.prefixes.items.iter().map(|prefix| {
            Stretch::new(ON_LINK, i, prefix, |prefix| (prefix.first(), prefix.last()))
        }));
        prefixes.extend(link.prefix_pools.iter().map(|pool| {
            Stretch::new("the prefix pool", i, pool, |pool| {
                (pool.prefix.first(), pool.prefix.last())
            })
        }));
    }
    disjoint(reader, prefixes);
    disjoint(reader, addresses);
}

/// Reports each stretch that shares addresses with one that begins before it.
fn disjoint(reader: &Reader<'_>, mut stretches: Vec<Stretch<'_>>) {
    stretches.sort_by_key(|stretch| (stretch.first, stretch.last));
    let mut reaching: Option<Stretch<'_>> = None;
    for stretch in stretches {
        let Some(before) = &reaching else {
            reaching = Some(stretch);
            continue;
        };
        if stretch.first <= before.last {
            // The later one of the file is at fault.
            let start = |stretch: &Stretch<'_>| stretch.at.map(|at| at.start);
            let (earlier, later) = if start(before) <= start(&stretch) {
                (before, &stretch)
            } else {
                (&stretch, before)
            };
            let place = format!("{} {}{}", earlier.what, earlier.key, reader.place_of(earlier.at));
            let is_shared = (stretch.first, stretch.last) == (before.first, before.last)
                && stretch.link != before.link
                && stretch.what == ON_LINK
                && before.what == ON_LINK;
            if is_shared {
                let what = format!("is also {place}");
                let hint = "relays whose link-address lies in it need `relay.link_addresses` or \
                            `relay.interface_ids` to be told apart";
                reader.warning(later.at.cloned(), later.key, what, hint);
            } else {
                let from = Ipv6Addr::from_bits(stretch.first);
                let what = format!("overlaps {place}, from {from} on");
                let hint = "no two may share an address";
                reader.error(ProblemKind::Conflict, later.at.cloned(), later.key, what, hint);
            }
        }
        if stretch.last > before.last {
            reaching = Some(stretch);
        }
    }
}

/// Reports address pools that hold nothing but reserved interface identifiers (RFC 5453).
fn check_usable(reader: &Reader<'_>, pool: &Located<AddressPool>) {
    let is_empty = |first: Ipv6Addr, last: Ipv6Addr| {
        let range = PoolRange::Addresses { first, last };
        let pools = PoolSet::new(vec![PoolConfig { range, ownership: Ownership::Sole }]);
        matches!(pools, Err(PoolError::Empty { .. }))
    };
    let AddressPool { first, last } = pool.value;
    // Most pools are settled by an end; only the few that are not need to be built whole.
    if is_empty(first, first) && is_empty(last, last) && is_empty(first, last) {
        let what = "holds only reserved interface identifiers, which no host may have";
        let hint = "choose other addresses (RFC 5453)";
        reader.error(ProblemKind::Value, pool.at.clone(), pool.key.clone(), what, hint);
    }
}

/// The addresses of a link lie in its prefixes, or CONFIRM and RENEW would call them off-link.
fn check_inside(reader: &Reader<'_>, link: &LinkDraft) {
    for pool in &link.address_pools.items {
        check_usable(reader, pool);
        let (first, last) = (pool.value.first, pool.value.last);
        let global = |address: Ipv6Addr| {
            let bits = address.to_bits();
            bits >> 125 == 1 || bits >> 121 == 0xfc >> 1
        };
        let (at, key) = (pool.at.clone(), pool.key.clone());
        if !global(first) || !global(last) {
            let what = format!("{first} to {last} is neither global (2000::/3) nor unique local");
            reader.warning(at.clone(), key.clone(), what, "no host is known to use such addresses");
        }
        let inside = |prefix: &Located<Ipv6Prefix>| {
            prefix.value.contains(first) && prefix.value.contains(last)
        };
        if !link.prefixes.sound || link.prefixes.items.iter().any(inside) {
            continue;
        }
        let around = Ipv6Prefix::around(first, 64);
        let hint = if !around.contains(last) {
            "it has to lie in one of the link's `prefixes`".to_owned()
        } else if link.prefixes.items.is_empty() {
            format!("write `prefixes = \"{around}\"`")
        } else {
            format!("is \"{around}\" to be one of the link's `prefixes`?")
        };
        let what = format!("{first} to {last} does not lie in a prefix of the link");
        reader.error(ProblemKind::Conflict, at, key, what, hint);
    }
}

/// How a value is shown in a message.
trait Describe {
    fn describe(&self) -> String;
}

impl Describe for String {
    fn describe(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Describe for InterfaceName {
    fn describe(&self) -> String {
        format!("\"{self}\"")
    }
}

/// An Interface-Id.
impl Describe for Vec<u8> {
    fn describe(&self) -> String {
        format!("\"{}\"", self.escape_ascii())
    }
}
