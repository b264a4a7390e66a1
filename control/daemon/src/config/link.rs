//! `[[link]]`, and `[defaults]` from which links take what they leave out.

use std::net::Ipv6Addr;
use std::ops::Range;
use std::time::Duration;

use gemel_wire::OptionCode;
use toml::de::DeValue;

use super::Ipv6Prefix;
use super::net::{
    address_pool, domain_name, hex, interface_id, interface_name, link_name, prefix,
    prefix_or_address, server_address,
};
use super::report::ProblemKind;
use super::section::{List, Located, Read, Reader, Section, Setting, Wrong};
use super::types::{AddressPool, CustomOption, DomainName, InterfaceName, Link, PrefixPool, Relay};
use super::value::{INFINITE, boolean, integer, seconds, spell};

const PREFERRED_LIFETIME_DEFAULT: u32 = 3600;
const DECLINE_HOLD_DEFAULT: u32 = 86_400;

/// Below this, the renewals of many clients are a load to think about.
const T1_SECS_TINY: u32 = 60;

/// IRT_MINIMUM (RFC 8415 section 7.6).
const IRT_MINIMUM: u32 = 600;

/// What a datagram of 1280 octets leaves for options after the IPv6 and UDP headers.
const OPTIONS_LEN_MAX: usize = 1232;

/// Beyond this, little room is left for identity associations and relay headers.
const OPTIONS_LEN_LARGE: usize = 800;

/// What a link's clients are given apart from leases; may come from `[defaults]`.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    preferred_lifetime: Setting<u32>,
    valid_lifetime: Setting<u32>,
    t1: Setting<u32>,
    t2: Setting<u32>,
    rapid_commit: Setting<bool>,
    create_on_renew: Setting<bool>,
    create_on_rebind: Setting<bool>,
    decline_hold: Setting<u32>,
    dns_servers: List<Ipv6Addr>,
    domain_search: List<DomainName>,
    sol_max_rt: Setting<u32>,
    inf_max_rt: Setting<u32>,
    information_refresh_time: Setting<u32>,
    options: Vec<Located<CustomOption>>,
}

/// A link as the file has it, with the places of everything that other links may clash with.
pub(super) struct LinkDraft {
    /// How messages call it.
    pub(super) path: String,
    pub(super) at: Option<Range<usize>>,
    pub(super) name: Option<Located<String>>,
    pub(super) interface: Setting<InterfaceName>,
    pub(super) prefixes: List<Ipv6Prefix>,
    pub(super) link_addresses: List<Ipv6Prefix>,
    pub(super) interface_ids: List<Vec<u8>>,
    pub(super) address_pools: List<AddressPool>,
    pub(super) prefix_pools: Vec<Located<PrefixPool>>,
    terms: Terms,
}

pub(super) fn read_link(
    reader: &Reader<'_>,
    mut section: Section<'_, '_>,
    defaults: &Terms,
) -> LinkDraft {
    let interface = section.get("interface", interface_name);
    let name = match section.get("name", link_name) {
        Setting::Given(name) => Some(name),
        Setting::Wrong => None,
        Setting::Absent => match &interface {
            Setting::Given(Located { value, at, .. }) => {
                let (value, at) = (value.as_str().to_owned(), at.clone());
                Some(Located { value, at, key: section.path_of("name") })
            }
            Setting::Wrong => None,
            Setting::Absent => {
                section
                    .missing("name", "write `name = \"...\"`, or the `interface` to be named by");
                None
            }
        },
    };
    let prefixes = section.list("prefixes", prefix);
    let mut relay = section.table("relay");
    let link_addresses = relay.list("link_addresses", prefix_or_address);
    let interface_ids = relay.list("interface_ids", interface_id);
    relay.finish();
    let address_pools = section.list("address_pools", address_pool);
    let has_prefix_pools = section.has("prefix_pools");
    let prefix_pools: Vec<_> = section
        .tables("prefix_pools", "")
        .into_iter()
        .filter_map(|section| read_prefix_pool(reader, section))
        .collect();
    let terms = read_terms(reader, &mut section);

    if matches!(interface, Setting::Absent)
        && !prefixes.given
        && link_addresses.items.is_empty()
        && link_addresses.sound
        && interface_ids.items.is_empty()
        && interface_ids.sound
    {
        let hint = "write `interface`, `prefixes` that hold the relay's link-address, or `relay`";
        let (at, path) = (section.at(), section.path());
        reader.error(ProblemKind::Missing, at, path, "no message can reach this link", hint);
    }
    if !address_pools.given && !has_prefix_pools && terms.has_no_options(defaults) {
        let what = "clients of this link are given nothing: it has no pools and no options";
        reader.warning(section.at(), section.path(), what, "write `address_pools`");
    }
    check_lifetimes(reader, &section, &terms, defaults);
    check_options(reader, &section, &terms, defaults);

    let (path, at) = (section.path().to_owned(), section.at());
    section.finish();
    LinkDraft {
        path,
        at,
        name,
        interface,
        prefixes,
        link_addresses,
        interface_ids,
        address_pools,
        prefix_pools,
        terms,
    }
}

pub(super) fn read_terms(reader: &Reader<'_>, section: &mut Section<'_, '_>) -> Terms {
    let timeout = |v: &DeValue<'_>| seconds(v, 60..=86_400);
    Terms {
        preferred_lifetime: section.get("preferred_lifetime", |v| seconds(v, 1..=INFINITE)),
        valid_lifetime: section.get("valid_lifetime", |v| seconds(v, 1..=INFINITE)),
        t1: section.get("t1", |v| seconds(v, 0..=INFINITE)),
        t2: section.get("t2", |v| seconds(v, 0..=INFINITE)),
        rapid_commit: section.get("rapid_commit", boolean),
        create_on_renew: section.get("create_on_renew", boolean),
        create_on_rebind: section.get("create_on_rebind", boolean),
        decline_hold: section.get("decline_hold", |v| seconds(v, 1..=INFINITE)),
        dns_servers: section.list("dns_servers", server_address),
        domain_search: section.list("domain_search", domain_name),
        sol_max_rt: section.get("sol_max_rt", timeout),
        inf_max_rt: section.get("inf_max_rt", timeout),
        information_refresh_time: section
            .get("information_refresh_time", |v| seconds(v, IRT_MINIMUM..=INFINITE)),
        options: read_options(reader, section),
    }
}

impl Terms {
    /// Options of this table, then those of `[defaults]` whose code is not among them.
    fn merged_options<'a>(
        &'a self,
        defaults: &'a Self,
    ) -> impl Iterator<Item = &'a Located<CustomOption>> {
        let own = |code| self.options.iter().any(|option| option.value.code == code);
        let inherited = defaults.options.iter().filter(move |option| !own(option.value.code));
        self.options.iter().chain(inherited)
    }

    fn has_no_options(&self, defaults: &Self) -> bool {
        !self.dns_servers.given
            && !defaults.dns_servers.given
            && !self.domain_search.given
            && !defaults.domain_search.given
            && self.merged_options(defaults).next().is_none()
    }

    /// Preferred and valid lifetime, with what stands for them where they are left out. `None` if
    /// one of them is wrong.
    fn lifetimes(
        &self,
        defaults: &Self,
        path_of: impl Fn(&str) -> String,
    ) -> Option<(Located<u32>, Located<u32>)> {
        let preferred = self.preferred_lifetime.clone().or(&defaults.preferred_lifetime);
        let valid = self.valid_lifetime.clone().or(&defaults.valid_lifetime);
        if preferred.is_wrong() || valid.is_wrong() {
            return None;
        }
        let located = |value, key| Located { value, at: None, key: path_of(key) };
        Some(match (preferred.given(), valid.given()) {
            (Some(preferred), Some(valid)) => (preferred, valid),
            (Some(preferred), None) => {
                // Twice infinity is infinity, and what would only just be finite is infinite too.
                let valid = preferred.value.saturating_mul(2);
                (preferred, located(valid, "valid_lifetime"))
            }
            (None, valid) => {
                let valid = valid
                    .unwrap_or_else(|| located(2 * PREFERRED_LIFETIME_DEFAULT, "valid_lifetime"));
                let preferred = PREFERRED_LIFETIME_DEFAULT.min(valid.value.div_ceil(2));
                (located(preferred, "preferred_lifetime"), valid)
            }
        })
    }
}

impl LinkDraft {
    /// The checked form. What was reported as wrong is filled with defaults.
    pub(super) fn into_link(self, defaults: &Terms) -> Link {
        let lifetimes = self.terms.lifetimes(defaults, str::to_owned);
        let (preferred, valid) =
            lifetimes.map_or((1, 1), |(preferred, valid)| (preferred.value, valid.value));
        let options =
            self.terms.merged_options(defaults).map(|option| option.value.clone()).collect();
        let terms = self.terms;
        let rapid_commit = terms.rapid_commit.or(&defaults.rapid_commit).value().unwrap_or(false);
        let mut prefix_pools = self.prefix_pools;
        Link {
            name: self.name.map(|name| name.value).unwrap_or_default(),
            interface: self.interface.value(),
            prefixes: self.prefixes.values(),
            relay: Relay {
                link_addresses: self.link_addresses.values(),
                interface_ids: self.interface_ids.values(),
            },
            address_pools: self.address_pools.values(),
            prefix_pools: prefix_pools.drain(..).map(|pool| pool.value).collect(),
            preferred_lifetime: preferred,
            valid_lifetime: valid,
            t1: terms.t1.or(&defaults.t1).value(),
            t2: terms.t2.or(&defaults.t2).value(),
            rapid_commit,
            create_on_renew: terms
                .create_on_renew
                .or(&defaults.create_on_renew)
                .value()
                .unwrap_or(true),
            create_on_rebind: terms
                .create_on_rebind
                .or(&defaults.create_on_rebind)
                .value()
                .unwrap_or(rapid_commit),
            decline_hold: terms
                .decline_hold
                .or(&defaults.decline_hold)
                .value()
                .unwrap_or(DECLINE_HOLD_DEFAULT),
            dns_servers: terms.dns_servers.or(&defaults.dns_servers).values(),
            domain_search: terms.domain_search.or(&defaults.domain_search).values(),
            sol_max_rt: terms.sol_max_rt.or(&defaults.sol_max_rt).value(),
            inf_max_rt: terms.inf_max_rt.or(&defaults.inf_max_rt).value(),
            information_refresh_time: terms
                .information_refresh_time
                .or(&defaults.information_refresh_time)
                .value(),
            options,
        }
    }
}

fn read_prefix_pool(
    reader: &Reader<'_>,
    mut section: Section<'_, '_>,
) -> Option<Located<PrefixPool>> {
    let found = section.get("prefix", prefix);
    let length =
        section.get("delegated_length", |v| Ok(u8::try_from(integer(v, 1..=127)?).unwrap_or(127)));
    if matches!(found, Setting::Absent) {
        section.missing("prefix", "write `prefix = \"2001:db8:8000::/36\"`");
    }
    if matches!(length, Setting::Absent) {
        section.missing("delegated_length", "write `delegated_length = 56`");
    }
    let (key, at) = (section.path().to_owned(), section.at());
    section.finish();
    let (prefix, length) = (found.given()?, length.given()?);
    if length.value < prefix.value.prefix_len() {
        let what = format!("a /{} does not fit into {}", length.value, prefix.value);
        let hint = format!("write {} to 64", prefix.value.prefix_len());
        reader.error(ProblemKind::Conflict, length.at, length.key, what, hint);
        return None;
    }
    if length.value > 64 {
        let what = format!("clients can hardly use a /{}", length.value);
        let hint = "hosts configure themselves only in a /64";
        reader.warning(length.at, length.key, what, hint);
    }
    let value = PrefixPool { prefix: prefix.value, delegated_length: length.value };
    Some(Located { value, at: prefix.at.or(at), key })
}

fn read_options(reader: &Reader<'_>, section: &mut Section<'_, '_>) -> Vec<Located<CustomOption>> {
    let mut options: Vec<Located<CustomOption>> = Vec::new();
    for mut section in section.tables("options", "") {
        let code = section.get("code", option_code);
        let data = section.get("hex", hex);
        let always = section.get_or("always", false, boolean).value;
        if matches!(code, Setting::Absent) {
            section.missing("code", "write `code = 56`, the number of the option");
        }
        if matches!(data, Setting::Absent) {
            section.missing("hex", "write `hex = \"...\"`, the octets after code and length");
        }
        section.finish();
        let (Some(code), Some(data)) = (code.given(), data.given()) else { continue };
        if code.value == OptionCode::SNTP_SERVERS
            && (data.value.is_empty() || !data.value.len().is_multiple_of(16))
        {
            let what = format!("{} octets are no list of addresses", data.value.len());
            let hint = "option 31 holds addresses of 16 octets each (RFC 4075)";
            reader.error(ProblemKind::Conflict, data.at, data.key, what, hint);
            continue;
        }
        let twice = options.iter().find(|option| option.value.code == code.value);
        // One instance for each enterprise (RFC 8415 sections 21.16 and 21.17).
        let repeatable = matches!(code.value, OptionCode::VENDOR_CLASS | OptionCode::VENDOR_OPTS);
        if let (Some(first), false) = (twice, repeatable) {
            let what = format!("option {} is{} already", code.value.0, reader.place(first));
            reader.error(ProblemKind::Conflict, code.at, code.key, what, "remove one");
            continue;
        }
        let value = CustomOption { code: code.value, data: data.value, always };
        options.push(Located { value, at: code.at, key: code.key });
    }
    options
}

/// A code that may be sent as it stands.
fn option_code(value: &DeValue<'_>) -> Read<OptionCode> {
    let code = u16::try_from(integer(value, 1..=65_535)?).unwrap_or(0);
    let code = OptionCode(code);
    let (why, hint) = match code {
        OptionCode::CLIENT_ID => ("the server copies it from the client", ""),
        OptionCode::SERVER_ID => ("the server makes it", "`server.duid` sets it"),
        OptionCode::IA_NA | OptionCode::IA_TA | OptionCode::IA_ADDR => {
            ("the server makes it", "addresses come from `address_pools`")
        }
        OptionCode::IA_PD | OptionCode::IA_PREFIX | OptionCode::PD_EXCLUDE => {
            ("the server makes it", "prefixes come from `prefix_pools`")
        }
        OptionCode::PREFERENCE => ("the server makes it", "`server.preference` sets it"),
        OptionCode::STATUS_CODE => ("the server makes it", ""),
        OptionCode::RAPID_COMMIT => ("the server makes it", "`rapid_commit` sets it"),
        OptionCode::DNS_SERVERS => ("the server makes it", "`dns_servers` sets it"),
        OptionCode::DOMAIN_LIST => ("the server makes it", "`domain_search` sets it"),
        OptionCode::SOL_MAX_RT => ("the server makes it", "`sol_max_rt` sets it"),
        OptionCode::INF_MAX_RT => ("the server makes it", "`inf_max_rt` sets it"),
        OptionCode::INFORMATION_REFRESH_TIME => {
            ("the server makes it", "`information_refresh_time` sets it")
        }
        OptionCode::UNICAST => ("it is obsolete since RFC 9915 and never sent", ""),
        OptionCode::AUTH | OptionCode::RECONF_MSG | OptionCode::RECONF_ACCEPT => {
            ("it is part of an exchange of keys with each client", "")
        }
        OptionCode::CLIENT_FQDN => ("the answer differs for each client", ""),
        OptionCode::ORO | OptionCode::ELAPSED_TIME | OptionCode::USER_CLASS => {
            ("clients send it, servers do not", "")
        }
        OptionCode::RELAY_MSG
        | OptionCode::INTERFACE_ID
        | OptionCode::REMOTE_ID
        | OptionCode::SUBSCRIBER_ID
        | OptionCode::CLIENT_LINKLAYER_ADDR
        | OptionCode::RELAY_PORT => ("it passes between relays and servers", ""),
        // RFC 8156 section 5.5.
        OptionCode(114..=134) => ("it passes between failover partners", ""),
        // RFC 5007, RFC 5460.
        OptionCode(44..=48 | 53) => ("it belongs to leasequery", ""),
        _ => return Ok(code),
    };
    let name = code.name().map_or_else(String::new, |name| format!(" ({name})"));
    Err(Wrong::new(format!("option {}{name} cannot be set here: {why}", code.0), hint))
}

/// Preferred and valid lifetime, T1 and T2 have to be in order (RFC 8415 sections 21.4 and 21.6).
fn check_lifetimes(
    reader: &Reader<'_>,
    section: &Section<'_, '_>,
    terms: &Terms,
    defaults: &Terms,
) {
    let Some((preferred, valid)) = terms.lifetimes(defaults, |key| section.path_of(key)) else {
        return;
    };
    if preferred.value > valid.value {
        out_of_order(reader, section, &preferred, &valid, "the preferred lifetime", "the valid");
        return;
    }
    if valid.value == INFINITE && valid.at.is_some() {
        let what = "a lease that is not released is never free again";
        reader.warning(valid.at.clone(), valid.key.clone(), what, "write a finite time");
    }
    let (t1, t2) = (terms.t1.clone().or(&defaults.t1), terms.t2.clone().or(&defaults.t2));
    if t1.is_wrong() || t2.is_wrong() {
        return;
    }
    let part = |tenths: u64| {
        let value = if preferred.value == INFINITE {
            INFINITE
        } else {
            u32::try_from(u64::from(preferred.value) * tenths / 10).unwrap_or(INFINITE)
        };
        let key = section.path_of(if tenths == 5 { "t1" } else { "t2" });
        Located { value, at: None, key }
    };
    let t1 = t1.given().unwrap_or_else(|| part(5));
    let t2 = t2.given().unwrap_or_else(|| part(8));
    // 0 leaves the time to the client.
    if t2.value > preferred.value {
        out_of_order(reader, section, &t2, &preferred, "T2", "the preferred lifetime");
    } else if t2.value != 0 && t1.value > t2.value {
        out_of_order(reader, section, &t1, &t2, "T1", "T2");
    } else if t1.value > preferred.value {
        out_of_order(reader, section, &t1, &preferred, "T1", "the preferred lifetime");
    }
    if (1..T1_SECS_TINY).contains(&t1.value) {
        let at = [&t1, &preferred, &valid].into_iter().find(|setting| setting.at.is_some());
        let (at, key) = at.map_or((None, ""), |setting| (setting.at.clone(), &*setting.key));
        let what = format!("every client renews its leases each {}", spell_secs(t1.value));
        reader.warning(at, key, what, "longer lifetimes make less load");
    }
}

/// Reports two times in the wrong order at the one that the link itself sets.
fn out_of_order(
    reader: &Reader<'_>,
    section: &Section<'_, '_>,
    less: &Located<u32>,
    more: &Located<u32>,
    less_name: &str,
    more_name: &str,
) {
    let own =
        |setting: &Located<u32>| setting.at.is_some() && setting.key.starts_with(section.path());
    let first = match (own(less), own(more)) {
        (false, true) => more,
        (true, _) => less,
        (false, false) if less.at.is_some() => less,
        (false, false) => more,
    };
    let what = format!(
        "{less_name} ({}{}) is longer than {more_name} ({}{})",
        spell_secs(less.value),
        reader.place(less),
        spell_secs(more.value),
        reader.place(more),
    );
    let hint = format!("{less_name} is at most as long as {more_name}");
    reader.error(ProblemKind::Conflict, first.at.clone(), first.key.clone(), what, hint);
}

/// All options together have to fit into a reply.
fn check_options(reader: &Reader<'_>, section: &Section<'_, '_>, terms: &Terms, defaults: &Terms) {
    let dns = terms.dns_servers.clone().or(&defaults.dns_servers);
    let domains = terms.domain_search.clone().or(&defaults.domain_search);
    let dns_len = dns.items.len() * 16;
    let domains_len: usize = domains.items.iter().map(|name| name.value.wire.len()).sum();
    let custom_len: usize =
        terms.merged_options(defaults).map(|option| 4 + option.value.data.len()).sum();
    let len = dns_len + domains_len + custom_len;
    if len <= OPTIONS_LEN_LARGE {
        return;
    }
    let (at, path) = (section.at(), section.path());
    if len > OPTIONS_LEN_MAX {
        let what = format!("its options take {len} octets");
        let hint = format!("at most {OPTIONS_LEN_MAX} fit into a reply");
        reader.error(ProblemKind::Conflict, at, path, what, hint);
    } else {
        let what = format!("its options take {len} octets, which leaves little room in a reply");
        reader.warning(at, path, what, "leave out what few clients need");
    }
}

fn spell_secs(secs: u32) -> String {
    if secs == INFINITE {
        return "\"infinite\"".to_owned();
    }
    spell(Duration::from_secs(u64::from(secs)))
}
