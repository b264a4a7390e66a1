//! `[[failover]]`: the relationships with partners.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use gemel_failover::Role;
use gemel_wire::failover::FAILOVER_PORT;
use toml::de::DeValue;

use super::net::link_name;
use super::report::ProblemKind;
use super::section::{List, Located, Read, Reader, Section, Setting, TableOr, Wrong};
use super::types::{Failover, FailoverTls, Link, PrefixPool};
use super::value::{boolean, duration, integer, integer_u32, path, seconds, spell, text, word};

/// Below this, leases are short until the partner has heard of them, and a partner that is down is
/// soon missed.
const MCLT_SECS_TINY: u32 = 60;
/// Waiting less before PARTNER-DOWN, a cable that is moved is taken for a dead partner.
const AUTO_PARTNER_DOWN_TINY: Duration = Duration::from_secs(60);
/// The longest MCLT and the longest wait: 30 days.
const LONG_SECS: u32 = 30 * 86_400;

/// A pair tells the partner of every prefix of a pool whose it is, so each needs a bit: 2^24.
const SHARED_PREFIX_BITS_MAX: u8 = 24;

const PATH_LEN_MAX: usize = 4000;

/// A relationship as the file has it; what is missing has been reported.
pub(super) struct FailoverDraft {
    path: String,
    at: Option<Range<usize>>,
    name: Option<Located<String>>,
    role: Option<Located<Role>>,
    partner: Option<Located<IpAddr>>,
    port: Located<u16>,
    local: Setting<IpAddr>,
    links: List<String>,
    mclt: Option<Located<u32>>,
    tls: TlsDraft,
    /// Everything that nothing else has to be compared with.
    rest: Failover,
}

struct TlsDraft {
    at: Option<Range<usize>>,
    key: String,
    /// `None` for plain TCP, and where something is wrong.
    tls: Option<FailoverTls>,
}

pub(super) fn read_failover(reader: &Reader<'_>, mut section: Section<'_, '_>) -> FailoverDraft {
    const ROLES: [(&str, Role); 2] = [("primary", Role::Primary), ("secondary", Role::Secondary)];
    let name = section.get("name", relationship_name);
    let role = section.get("role", |v| word(v, &ROLES));
    let partner = section.get("partner", partner_address);
    let port = section
        .get_or("port", FAILOVER_PORT, |v| Ok(u16::try_from(integer(v, 1..=65_535)?).unwrap_or(0)));
    let local = section.get("local", local_address);
    let links = section.list("links", link_name);
    let mclt = section.get("mclt", |v| seconds(v, 1..=LONG_SECS));
    let hints = [
        (
            "name",
            matches!(name, Setting::Absent),
            "write the same `name = \"...\"` on both servers",
        ),
        (
            "role",
            matches!(role, Setting::Absent),
            "write \"primary\" on one server, \"secondary\" on the other",
        ),
        ("partner", matches!(partner, Setting::Absent), "write the address of the other server"),
        ("links", !links.given, "write the names of the links that both servers serve"),
        (
            "mclt",
            matches!(mclt, Setting::Absent),
            "write `mclt = \"1h\"`, the same on both servers",
        ),
    ];
    for (key, _, hint) in hints.into_iter().filter(|(_, is_missing, _)| *is_missing) {
        section.missing(key, hint);
    }
    if links.given && links.sound && links.items.is_empty() {
        let hint = "write the names of the links that both servers serve";
        let what = "there is no link that the partner could take over";
        reader.error(ProblemKind::Value, section.at(), section.path_of("links"), what, hint);
    }
    let mut rest = read_rest(reader, &mut section);
    let tls = read_tls(reader, &mut section);
    rest.tls.clone_from(&tls.tls);
    let (path, at) = (section.path().to_owned(), section.at());
    section.finish();
    FailoverDraft {
        path,
        at,
        name: name.given(),
        role: role.given(),
        partner: partner.given(),
        port,
        local,
        links,
        mclt: mclt.given(),
        tls,
        rest,
    }
}

/// What stands by itself.
fn read_rest(reader: &Reader<'_>, section: &mut Section<'_, '_>) -> Failover {
    let auto_partner_down = section
        .get("auto_partner_down", |v| match v.as_str() {
            Some("off") => Ok(None),
            _ => duration(v, Duration::from_secs(1)..=Duration::from_secs(LONG_SECS.into()))
                .map(Some),
        })
        .given();
    if let Some(Located { value: Some(time), at, key }) = &auto_partner_down
        && *time < AUTO_PARTNER_DOWN_TINY
    {
        let what = format!(
            "a connection that is broken for {} is taken for a partner that is down",
            spell(*time)
        );
        let hint = "while both servers run, this lets both give out the same addresses in the end";
        reader.warning(at.clone(), key.clone(), what, hint);
    }
    const LINK_LOSS: [(&str, bool); 2] = [("hand-over", true), ("stay", false)];
    Failover {
        name: String::new(),
        role: Role::Primary,
        partner: IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        port: 0,
        local: None,
        links: Vec::new(),
        mclt: 0,
        keepalive_secs: section.get_or("keepalive_time", 3, |v| seconds(v, 1..=3600)).value,
        max_unacked_updates: section
            .get_or("max_unacked_updates", 1024, |v| integer_u32(v, 1..=65_535))
            .value,
        startup_time: section
            .get_or("startup_time", Duration::from_secs(5), |v| {
                duration(v, Duration::from_millis(100)..=Duration::from_secs(3600))
            })
            .value,
        auto_partner_down: auto_partner_down.and_then(|located| located.value),
        start_in_partner_down: section.get_or("start_in_partner_down", false, boolean).value,
        secondary_share_percent: section.get_or("secondary_share", 20, |v| percent(v, 100)).value,
        secondary_prefixes_max: section
            .get_or("secondary_prefixes_max", 65_536, |v| integer(v, 0..=1 << 24))
            .value,
        balance_threshold_percent: section.get_or("balance_threshold", 5, |v| percent(v, 50)).value,
        response_time_max: section
            .get_or("response_time_max", Duration::from_secs(30), |v| {
                duration(v, Duration::from_secs(1)..=Duration::from_secs(600))
            })
            .value,
        reconnect_interval: section
            .get_or("reconnect_interval", Duration::from_secs(1), |v| {
                duration(v, Duration::from_millis(100)..=Duration::from_secs(3600))
            })
            .value,
        hand_over_on_link_loss: section
            .get_or("service_on_link_loss", true, |v| word(v, &LINK_LOSS))
            .value,
        tls: None,
    }
}

fn read_tls(reader: &Reader<'_>, section: &mut Section<'_, '_>) -> TlsDraft {
    let key = section.path_of("tls");
    let absent = |at| TlsDraft { at, key: key.clone(), tls: None };
    let mut table = match section.table_or_word("tls", "off") {
        TableOr::Table(table) => table,
        TableOr::Word(at) => {
            let what = "whoever can put packets between the servers can read and change all leases";
            let hint = "`gemel ca` makes certificates for a table `[failover.tls]`";
            reader.warning(Some(at.clone()), key.clone(), what, hint);
            return absent(Some(at));
        }
        TableOr::Wrong => return absent(None),
    };
    let read_path = |v: &DeValue<'_>| path(v, PATH_LEN_MAX);
    let ca = table.get("ca", read_path);
    let certificate = table.get("certificate", read_path);
    let private = table.get("key", read_path);
    let partner_name = table.get("partner_name", certificate_name);
    if !table.is_present() {
        let hint = "write a table `[failover.tls]` with ca, certificate, key and partner_name, for \
                    which `gemel ca` makes the files; or `tls = \"off\"` for plain TCP";
        section.missing("tls", hint);
        return absent(None);
    }
    for (key, is_missing, hint) in [
        ("ca", matches!(ca, Setting::Absent), "write `ca = \"/etc/gemel/tls/ca.pem\"`"),
        (
            "certificate",
            matches!(certificate, Setting::Absent),
            "write the file with this server's certificate",
        ),
        ("key", matches!(private, Setting::Absent), "write the file with its private key"),
        (
            "partner_name",
            matches!(partner_name, Setting::Absent),
            "write the name in the partner's certificate",
        ),
    ] {
        if is_missing {
            table.missing(key, hint);
        }
    }
    let at = table.at();
    table.finish();
    let tls = (|| {
        Some(FailoverTls {
            ca: ca.value()?,
            certificate: certificate.value()?,
            key: private.value()?,
            partner_name: partner_name.value()?,
        })
    })();
    TlsDraft { at, key, tls }
}

/// Compares relationships with each other and with the links, and gives the checked form.
pub(super) fn check_failover(
    reader: &Reader<'_>,
    drafts: Vec<FailoverDraft>,
    link_names: &[Option<Located<String>>],
    links: &[Link],
) -> Vec<Failover> {
    let mut names: HashMap<String, Located<String>> = HashMap::new();
    let mut taken: HashMap<usize, Located<String>> = HashMap::new();
    let mut checked = Vec::new();
    check_tls_of_partners(reader, &drafts);
    check_listeners(reader, &drafts);
    for draft in drafts {
        if let Some(name) = &draft.name {
            if let Some(first) = names.get(&name.value) {
                let what = format!("the name \"{}\" is{} already", name.value, reader.place(first));
                let hint = "each relationship needs a name of its own";
                reader.error(ProblemKind::Conflict, name.at.clone(), &*name.key, what, hint);
            } else {
                names.insert(name.value.clone(), name.clone());
            }
        }
        check_addresses(reader, &draft);
        let members = check_members(reader, &draft, link_names, links, &mut taken);
        check_mclt(reader, &draft, &members, links);
        checked.push(Failover {
            name: draft.name.map(|name| name.value).unwrap_or_default(),
            role: draft.role.map_or(draft.rest.role, |role| role.value),
            partner: draft.partner.map_or(draft.rest.partner, |partner| partner.value),
            port: draft.port.value,
            local: draft.local.value(),
            links: members,
            mclt: draft.mclt.map_or(1, |mclt| mclt.value),
            ..draft.rest
        });
    }
    checked
}

fn check_addresses(reader: &Reader<'_>, draft: &FailoverDraft) {
    let (Some(partner), Setting::Given(local)) = (&draft.partner, &draft.local) else { return };
    if partner.value == local.value {
        let what = format!("{} is both `local` and `partner`", local.value);
        let hint = "write the address of the other server as `partner`";
        reader.error(ProblemKind::Conflict, partner.at.clone(), &*partner.key, what, hint);
    } else if partner.value.is_ipv6() != local.value.is_ipv6() {
        let what = format!("{} cannot reach {}", local.value, partner.value);
        let hint = "`local` and `partner` have to be both IPv6 or both IPv4";
        reader.error(ProblemKind::Conflict, local.at.clone(), &*local.key, what, hint);
    }
}

/// The links of a relationship by their place; a link belongs to one relationship (RFC 8156 section
/// 6.2).
fn check_members(
    reader: &Reader<'_>,
    draft: &FailoverDraft,
    link_names: &[Option<Located<String>>],
    links: &[Link],
    taken: &mut HashMap<usize, Located<String>>,
) -> Vec<usize> {
    let mut members = Vec::new();
    for name in &draft.links.items {
        let is_it = |known: &Option<Located<String>>| {
            known.as_ref().is_some_and(|known| known.value == name.value)
        };
        let Some(link) = link_names.iter().position(is_it) else {
            // The name of a link that has none was reported already, and may be this one.
            if link_names.iter().any(Option::is_none) {
                continue;
            }
            let known = link_names.iter().flatten().map(|name| name.value.as_str());
            let hint = super::section::closest(&name.value, known.clone()).map_or_else(
                || format!("the links are {}", known.collect::<Vec<_>>().join(", ")),
                |name| format!("did you mean \"{name}\"?"),
            );
            let what = format!("there is no link \"{}\"", name.value);
            reader.error(ProblemKind::Conflict, name.at.clone(), &*name.key, what, hint);
            continue;
        };
        if let Some(first) = taken.get(&link) {
            let what = format!("the link \"{}\" is{} already", name.value, reader.place(first));
            let hint = "a link belongs to one relationship (RFC 8156 section 6.2)";
            reader.error(ProblemKind::Conflict, name.at.clone(), &*name.key, what, hint);
        } else {
            taken.insert(link, name.clone());
            members.push(link);
        }
        let bits =
            |pool: &PrefixPool| pool.delegated_length.saturating_sub(pool.prefix.prefix_len());
        let pools = links[link].prefix_pools.iter();
        if let Some(pool) = pools.clone().find(|pool| bits(pool) > SHARED_PREFIX_BITS_MAX) {
            let what =
                format!("the prefix pool {} of this link has 2^{} parts", pool.prefix, bits(pool));
            let hint = format!("a pair can share pools of at most 2^{SHARED_PREFIX_BITS_MAX}");
            reader.error(ProblemKind::Conflict, name.at.clone(), &*name.key, what, hint);
        }
    }
    members
}

fn check_mclt(reader: &Reader<'_>, draft: &FailoverDraft, members: &[usize], links: &[Link]) {
    let Some(mclt) = &draft.mclt else { return };
    let spelled = spell(Duration::from_secs(mclt.value.into()));
    if mclt.value < MCLT_SECS_TINY {
        let what = format!("leases last {spelled} until the partner has confirmed them");
        let hint = "clients then renew often; \"1h\" is usual";
        reader.warning(mclt.at.clone(), &*mclt.key, what, hint);
        return;
    }
    let shorter = members.iter().find(|link| links[**link].valid_lifetime < mclt.value);
    if let Some(link) = shorter {
        let what =
            format!("{spelled} is longer than the valid lifetime of link {}", links[*link].name);
        let hint = "a shorter one makes recovery faster and costs nothing";
        reader.warning(mclt.at.clone(), &*mclt.key, what, hint);
    }
}

/// A port is taken either on one address or on all of them.
fn check_listeners(reader: &Reader<'_>, drafts: &[FailoverDraft]) {
    let secondaries = drafts.iter().filter_map(|draft| {
        let is_secondary = draft.role.as_ref().is_some_and(|role| role.value == Role::Secondary);
        let partner = draft.partner.as_ref().filter(|_| is_secondary)?;
        Some((draft, (draft.port.value, partner.value.is_ipv6())))
    });
    for (draft, port) in secondaries.clone() {
        let Setting::Given(local) = &draft.local else { continue };
        let everywhere = secondaries
            .clone()
            .find(|(other, taken)| *taken == port && matches!(other.local, Setting::Absent));
        if let Some((other, _)) = everywhere {
            let place = reader.place_of(other.at.as_ref());
            let what =
                format!("port {} is taken on all addresses by {}{place}", port.0, other.path);
            let hint = "give that one a `local` as well, or another port to one of them";
            reader.error(ProblemKind::Conflict, local.at.clone(), &*local.key, what, hint);
        }
    }
}

/// Before CONNECT a secondary knows no more of a connection than where it comes from, so all
/// relationships with one address need the same TLS settings.
fn check_tls_of_partners(reader: &Reader<'_>, drafts: &[FailoverDraft]) {
    let mut first_of: HashMap<(IpAddr, SocketAddr), &FailoverDraft> = HashMap::new();
    for draft in drafts {
        let (Some(partner), Some(role)) = (&draft.partner, &draft.role) else { continue };
        if role.value != Role::Secondary || draft.local.is_wrong() {
            continue;
        }
        let any = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);
        let local = draft.local.clone().value().unwrap_or(any);
        let listener = SocketAddr::new(local, draft.port.value);
        let first = *first_of.entry((partner.value, listener)).or_insert(draft);
        if first.tls.tls != draft.tls.tls {
            let at = draft.tls.at.clone().or_else(|| draft.at.clone());
            let place = reader.place_of(first.at.as_ref());
            let what = format!("differs from that of {}{place}", first.path);
            let hint = "relationships with one partner, as its secondary, share their TLS settings";
            reader.error(ProblemKind::Conflict, at, &*draft.tls.key, what, hint);
        }
    }
}

/// The name of a relationship: a word, which is also the name of a file.
fn relationship_name(value: &DeValue<'_>) -> Read<String> {
    link_name(value).map_err(|wrong| Wrong {
        what: wrong.what.replace("the name of a link", "the name of a relationship"),
        ..wrong
    })
}

fn partner_address(value: &DeValue<'_>) -> Read<IpAddr> {
    const EXAMPLE: &str = "an address such as \"2001:db8:ff::2\"";
    let address = address(value, EXAMPLE)?;
    if address.is_unspecified() || address.is_multicast() {
        let what = format!("{address} is not the address of a server");
        return Err(Wrong::new(what, format!("write {EXAMPLE}")));
    }
    Ok(address)
}

fn local_address(value: &DeValue<'_>) -> Read<IpAddr> {
    let address = address(value, "an address of this server, such as \"2001:db8:ff::1\"")?;
    if address.is_multicast() {
        let what = format!("{address} is not the address of a server");
        return Err(Wrong::new(what, "write an address of this server"));
    }
    Ok(address)
}

fn address(value: &DeValue<'_>, example: &str) -> Read<IpAddr> {
    let given = text(value, "an address", example)?;
    let address: IpAddr = given.trim().parse().map_err(|_| {
        let what = format!("\"{}\" is not an address", given.escape_debug());
        let hint = if given.contains('%') {
            "leave out the zone; link-local addresses cannot be used".to_owned()
        } else if given.parse::<SocketAddr>().is_ok() {
            "leave out the port: `port` sets it".to_owned()
        } else {
            format!("write {example}")
        };
        Wrong::new(what, hint)
    })?;
    if let IpAddr::V6(v6) = address
        && v6.is_unicast_link_local()
    {
        let what = format!("{v6} is a link-local address");
        return Err(Wrong::new(what, "write an address that needs no zone"));
    }
    // ::ffff:192.0.2.1 is what it stands for.
    Ok(address.to_canonical())
}

/// A DNS name as it stands in certificates.
fn certificate_name(value: &DeValue<'_>) -> Read<String> {
    let name = super::net::domain_name(value)?.as_str().to_ascii_lowercase();
    match rustls::pki_types::DnsName::try_from(name.as_str()) {
        Ok(_) => Ok(name),
        Err(_) => Err(Wrong::new(
            format!("\"{name}\" cannot be the name in a certificate"),
            "write the name that `gemel ca issue --name` was given",
        )),
    }
}

/// `"20%"` or 20.
fn percent(value: &DeValue<'_>, max: u8) -> Read<u8> {
    let hint = || format!("write \"0%\" to \"{max}%\"");
    let number = if value.is_integer() {
        integer(value, 0..=max.into())?
    } else {
        let given = text(value, "a percentage", "a percentage such as \"20%\"")?;
        let digits = given.strip_suffix('%').unwrap_or(given).trim();
        digits.parse().map_err(|_| {
            Wrong::new(format!("\"{}\" is not a percentage", given.escape_debug()), hint())
        })?
    };
    u8::try_from(number)
        .ok()
        .filter(|number| *number <= max)
        .ok_or_else(|| Wrong::new(format!("{number}% is out of bounds"), hint()))
}
