use std::collections::BTreeSet;

use gemel_lease::{LeaseTable, PoolSet, TableConfig};
use gemel_server::Server;
use gemel_wire::Duid;
use toml::de::{DeTable, DeValue};

use super::{Config, ConfigErrors, ProblemKind};

mod example;
mod mutated;
mod refused;

/// Eight lines that serve one link.
const MINIMAL: &str = r#"
[[link]]
interface = "eth1"
prefixes = "2001:db8:1::/64"
address_pools = "2001:db8:1::/64"
prefix_pools = [{ prefix = "2001:db8:8000::/36", delegated_length = 56 }]
dns_servers = "2001:db8::53"
"#;

const EXAMPLE: &str = include_str!("../../../../packaging/gemel.example.toml");
const MANUAL: &str = include_str!("../../../../docs/configuration.md");

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse("test.toml", text)
}

/// Loads, and checks that pools and server rules accept what comes of it.
fn load(text: &str) -> Config {
    let config = parse(text).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    assert_convertible(&config);
    config
}

fn assert_convertible(config: &Config) {
    let (pools, server) = config.server_config(Duid::new(&[0, 3, 0, 1, 2]).unwrap());
    let pools = PoolSet::new(pools).unwrap();
    let table = TableConfig { expected_bindings: 16, ..TableConfig::default() };
    Server::new(server, LeaseTable::new(&table, pools).into()).unwrap();
}

#[test]
fn minimal_is_short_and_has_no_warnings() {
    assert!(MINIMAL.trim().lines().count() < 15);
    let config = load(MINIMAL);
    assert_eq!(config.warnings, []);
    let link = &config.links[0];
    assert_eq!(link.name, "eth1");
    assert_eq!((link.preferred_lifetime, link.valid_lifetime), (3600, 7200));
    assert_eq!((link.t1, link.t2), (None, None));
    assert_eq!(config.interfaces().map(|name| name.as_str()).collect::<Vec<_>>(), ["eth1"]);
}

#[test]
fn load_reads_files_and_says_what_it_cannot_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gemel.toml");
    let error = Config::load(&file).unwrap_err();
    assert_eq!(error.errors[0].kind, ProblemKind::File);
    assert!(error.to_string().contains("cannot be read"), "{error}");
    std::fs::write(&file, MINIMAL).unwrap();
    assert_eq!(Config::load(&file).unwrap().file, file);
    std::fs::write(&file, b"[server]\n# \xff\n").unwrap();
    let error = Config::load(&file).unwrap_err();
    assert!(error.to_string().contains("line 2 is not UTF-8"), "{error}");
}

#[test]
fn links_inherit_what_they_leave_out() {
    let config = load(
        r#"
[defaults]
preferred_lifetime = "10m"
valid_lifetime = "infinite"
t2 = 0
rapid_commit = true
dns_servers = ["2001:db8::1", "2001:db8::2"]
domain_search = "a.example"
options = [{ code = 56, hex = "01" }, { code = 41, hex = "02" }]
[[link]]
interface = "a"
prefixes = "2001:db8:1::/64"
dns_servers = []
options = [{ code = 41, hex = "03", always = true }]
[[link]]
interface = "b"
prefixes = "2001:db8:2::/64"
preferred_lifetime = "20m"
valid_lifetime = "40m"
t1 = 60
create_on_rebind = false
"#,
    );
    let (a, b) = (&config.links[0], &config.links[1]);
    assert_eq!((a.preferred_lifetime, a.valid_lifetime), (600, u32::MAX));
    assert_eq!((b.preferred_lifetime, b.valid_lifetime), (1200, 2400));
    assert_eq!((a.t1, a.t2, b.t1, b.t2), (None, Some(0), Some(60), Some(0)));
    assert!(a.rapid_commit && a.create_on_rebind && !b.create_on_rebind);
    assert_eq!((a.dns_servers.len(), b.dns_servers.len()), (0, 2));
    assert_eq!(a.domain_search[0].as_wire(), b"\x01a\x07example\0");
    let codes = |link: &super::Link| -> Vec<(u16, u8, bool)> {
        link.options.iter().map(|o| (o.code.0, o.data[0], o.always)).collect()
    };
    assert_eq!(codes(a), [(41, 3, true), (56, 1, false)]);
    assert_eq!(codes(b), [(56, 1, false), (41, 2, false)]);
}

#[test]
fn what_is_left_out_of_the_lifetimes_fits_what_is_there() {
    let lifetimes = |lines: &str| {
        let config = load(&format!("{MINIMAL}\n{lines}"));
        (config.links[0].preferred_lifetime, config.links[0].valid_lifetime)
    };
    assert_eq!(lifetimes("preferred_lifetime = \"1d\""), (86_400, 172_800));
    assert_eq!(lifetimes("preferred_lifetime = \"infinite\""), (u32::MAX, u32::MAX));
    assert_eq!(lifetimes("valid_lifetime = \"10m\""), (300, 600));
    assert_eq!(lifetimes("valid_lifetime = 1"), (1, 1));
    assert_eq!(lifetimes("valid_lifetime = \"1w\""), (3600, 604_800));
}

#[test]
fn pools_get_their_numbers_link_by_link() {
    let config = load(
        r#"
[dataplane]
interfaces = ["eth0"]
[[link]]
name = "a"
prefixes = ["2001:db8:1::/64", "2001:db8:9::/64"]
address_pools = ["2001:db8:1::10-2001:db8:1::1f", "2001:db8:1::30"]
prefix_pools = [{ prefix = "2001:db8:8000::/40", delegated_length = 48 }]
[[link]]
name = "b"
prefixes = ["2001:db8:2::/64", "2001:db8:9::/64"]
address_pools = "2001:db8:2::/64"
relay = { link_addresses = "2001:db8:ffff::1", interface_ids = ["b", "0x00"] }
"#,
    );
    let (pools, server) = config.server_config(Duid::new(&[0, 3, 0, 1, 2]).unwrap());
    assert_eq!(pools.len(), 4);
    let ids = |link: usize| {
        let link = &server.links[link];
        let numbers = |pools: &[gemel_lease::PoolId]| pools.iter().map(|id| id.0).collect();
        let (na, pd): (Vec<u16>, Vec<u16>) = (numbers(&link.na_pools), numbers(&link.pd_pools));
        (na, pd)
    };
    assert_eq!(ids(0), (vec![0, 1], vec![2]));
    assert_eq!(ids(1), (vec![3], vec![]));
    // The prefix that both share does not tell relays apart.
    let relays = |link: usize| -> Vec<String> {
        server.links[link].relay_prefixes.iter().map(ToString::to_string).collect()
    };
    assert_eq!(relays(0), ["2001:db8:1::/64"]);
    assert_eq!(relays(1), ["2001:db8:2::/64", "2001:db8:ffff::1/128"]);
    assert_eq!(server.links[1].on_link.len(), 2);
    assert_eq!(server.links[1].interface_ids, [b"b".to_vec(), vec![0]]);
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
}

#[test]
fn pools_of_a_pair_are_shared() {
    use gemel_lease::Ownership;
    let text = |role: &str| {
        format!(
            "{MINIMAL}[[link]]\nname = \"b\"\nprefixes = \"fd00::/64\"\n\
             address_pools = \"fd00::/64\"\n[[failover]]\nname = \"p\"\nrole = \"{role}\"\n\
             partner = \"::ffff:192.0.2.1\"\nlinks = \"eth1\"\nmclt = 60\ntls = \"off\"\n"
        )
    };
    for (role, shared) in [("primary", Ownership::Primary), ("secondary", Ownership::Secondary)] {
        let config = load(&text(role));
        assert_eq!(config.failover[0].partner.to_string(), "192.0.2.1");
        let (pools, _) = config.server_config(Duid::new(&[0, 3, 0, 1, 2]).unwrap());
        let ownership: Vec<_> = pools.iter().map(|pool| pool.ownership).collect();
        assert_eq!(ownership, [shared, shared, Ownership::Sole]);
    }
}

#[test]
fn partners_can_be_compared() {
    let text = |role: &str, partner: &str, names: [&str; 2], valid: u32| {
        let link = |name: &str| {
            let number = if name == names[0] { 1 } else { 2 };
            format!(
                "[[link]]\ninterface = \"{name}\"\nprefixes = \"fd00:{number}::/64\"\n\
                 address_pools = \"fd00:{number}::/64\"\nvalid_lifetime = {valid}\n"
            )
        };
        let links = if role == "primary" {
            format!("{}{}", link(names[0]), link(names[1]))
        } else {
            format!("{}{}", link(names[1]), link(names[0]))
        };
        let config = load(&format!(
            "{links}[[failover]]\nname = \"p\"\nrole = \"{role}\"\npartner = \"{partner}\"\n\
             links = [\"{}\", \"{}\"]\nmclt = 60\ntls = \"off\"\n",
            names[0], names[1]
        ));
        config.partner_text(&config.failover[0])
    };
    let one = text("primary", "fd00::2", ["eth1", "eth2"], 7200);
    // Roles, addresses, names and the order of links may differ.
    assert_eq!(one, text("secondary", "fd00::1", ["a", "b"], 7200));
    assert_ne!(one, text("secondary", "fd00::1", ["a", "b"], 7201));
    assert!(one.contains("addresses fd00:1::-fd00:1::ffff:ffff:ffff:ffff\n"), "{one}");
}
