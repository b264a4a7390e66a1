//! What is refused, where the message points and what it advises; and what is only warned of.

use super::*;

/// A second link, so that lines can be added to the first by putting them before it.
const LINKS: &str = r#"
[[link]]
name = "lan"
interface = "eth1"
prefixes = ["2001:db8:1::/64"]
address_pools = ["2001:db8:1::1000-2001:db8:1::1fff"]
"#;

/// The text with `LINES` replaced, in which exactly one thing is wrong, at the end of it all.
fn only_error(text: &str) -> super::super::Problem {
    let mut errors = parse(text).expect_err(text).errors;
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors.remove(0)
}

/// Adds one line to the link above, or a table that begins with `[`, and expects one error in it.
fn refused(line: &str, key: &str, part: &str) {
    let error = only_error(&format!("{LINKS}{line}\n"));
    let shown = error.to_string();
    assert_eq!(error.key, key, "{shown}");
    assert!(shown.contains(part), "{shown}\nlacks {part:?}");
    assert!(error.line >= LINKS.lines().count(), "{shown}");
    assert!(!error.what.is_empty() && error.column > 0, "{shown}");
}

#[test]
fn values() {
    refused("[server]\npreference = 256", "server.preference", "from 0 to 255");
    refused("[server]\nduid = \"0102\"", "server.duid", "3 to 130");
    refused("[store]\npath = \"data\"", "store.path", "begin it with `/`");
    refused("[store]\ndurability = \"proces\"", "store.durability", "did you mean \"process\"?");
    refused("[store]\nsegments_max = 2", "store.segments_max", "from 3 to");
    refused("[store]\nmap_size = \"64G\"", "store.map_size", "did you mean \"64GiB\"?");
    refused("[store]\ncheckpoint_interval = \"2 h\"", "store.checkpoint_interval", "duration");
    refused("[store]\ncheckpoint_interval = \"2h\"", "store.checkpoint_interval", "bounds");
    refused("[dataplane]\nmode = \"zerocopy\"", "dataplane.mode", "did you mean \"zero-copy\"?");
    refused("[dataplane]\ncores = [0, -1]", "dataplane.cores[1]", "from 0 to 1023");
    refused("[dataplane]\nbusy_poll = true", "dataplane.busy_poll", "true or false");
    refused("[dataplane]\nflood_limit = 5", "dataplane.flood_limit", "expected a table");
    refused("[dataplane]\nflood_limit = {}", "dataplane.flood_limit.rate", "is missing");
    refused("[dataplane]\ninterfaces = \"a b\"", "dataplane.interfaces", "cannot be an interface");
    refused("[control]\nhttp = 9547", "control.http", "write \"[::1]:9547\" or \"off\"");
    refused("[log]\nlevel = \"verbose\"", "log.level", "\"trace\"");
    refused("preferred_lifetime = 0", "link[lan].preferred_lifetime", "out of bounds");
    refused("t1 = \"1.5h\"", "link[lan].t1", "is not a duration");
    refused("rapid_commit = \"true\"", "link[lan].rapid_commit", "leave out the quotes");
    refused("sol_max_rt = 30", "link[lan].sol_max_rt", "write \"1m\" to \"1d\"");
    refused("inf_max_rt = \"2d\"", "link[lan].inf_max_rt", "write \"1m\" to \"1d\"");
    refused("information_refresh_time = 599", "link[lan].information_refresh_time", "\"10m\"");
    refused("decline_hold = -1", "link[lan].decline_hold", "out of bounds");
    refused("dns_servers = [\"8.8.8.8\"]", "link[lan].dns_servers[0]", "IPv6 addresses alone");
    refused("dns_servers = \"ff02::fb\"", "link[lan].dns_servers", "not the address of a server");
    refused("domain_search = [\"a\", \"b c\"]", "link[lan].domain_search[1]", "label");
    refused(
        "relay.link_addresses = \"2001:db8:9::1/48\"",
        "link[lan].relay.link_addresses",
        "write \"2001:db8:9::/48\"",
    );
    refused("relay.interface_ids = [\"0xz\"]", "link[lan].relay.interface_ids[0]", "hexadecimal");
    refused("relay = \"a\"", "link[lan].relay", "expected a table, found a string");
    refused("prefix_pools = \"2001:db8:8::/48\"", "link[lan].prefix_pools", "list of tables");
    refused(
        "prefix_pools = [\"2001:db8:8::/48\"]",
        "link[lan].prefix_pools[0]",
        "expected a table",
    );
}

#[test]
fn options() {
    let options = |options: &str, key: &str, part: &str| {
        refused(&format!("options = [{options}]"), &format!("link[lan].options{key}"), part);
    };
    options("{ hex = \"\" }", "[0].code", "is missing");
    options("{ code = 56 }", "[0].hex", "is missing");
    options("{ code = 56, hex = \"123\" }", "[0].hex", "two digits");
    options("{ code = 31, hex = \"01\" }", "[0].hex", "16 octets each");
    options("{ code = 56, hex = \"\", always = 1 }", "[0].always", "true or false");
    options("{ code = 56, hex = \"\" }, { code = 56, hex = \"\" }", "[1].code", "already");
    options("{ code = 0, hex = \"\" }", "[0].code", "from 1 to 65535");
    for (code, part) in [
        (2, "`server.duid` sets it"),
        (3, "`address_pools`"),
        (7, "`server.preference` sets it"),
        (13, "the server makes it"),
        (14, "`rapid_commit` sets it"),
        (18, "between relays and servers"),
        (23, "`dns_servers` sets it"),
        (25, "`prefix_pools`"),
        (82, "`sol_max_rt` sets it"),
        (120, "failover partners"),
    ] {
        options(&format!("{{ code = {code}, hex = \"00\" }}"), "[0].code", part);
    }
    let long = "00".repeat(1300);
    let error = only_error(&format!("{LINKS}options = [{{ code = 56, hex = \"{long}\" }}]"));
    assert!(error.to_string().contains("its options take 1304 octets"), "{error}");
    // Several vendors, one option each.
    load(&format!(
        "{LINKS}options = [{{ code = 17, hex = \"01\" }}, {{ code = 17, hex = \"02\" }}]"
    ));
}

/// Whatever option code this reader lets through, the server rules take.
#[test]
fn every_option_code_that_passes_is_one_that_the_server_sends() {
    for code in 1..=300 {
        let hex = "00".repeat(16);
        let text = format!("{LINKS}options = [{{ code = {code}, hex = \"{hex}\" }}]");
        if let Ok(config) = parse(&text) {
            assert_convertible(&config);
        }
    }
}

#[test]
fn lifetimes_in_the_wrong_order() {
    refused("preferred_lifetime = 9\nvalid_lifetime = 8", "link[lan].preferred_lifetime", "than");
    refused("t1 = 200\nt2 = 100", "link[lan].t1", "T1 (\"200s\" in line 7) is longer than T2");
    refused("t1 = \"50m\"", "link[lan].t1", "than T2 (\"48m\" by default)");
    refused("t2 = \"20m\"", "link[lan].t2", "T1 (\"30m\" by default) is longer than T2");
    refused("t2 = \"61m\"", "link[lan].t2", "than the preferred lifetime (\"1h\" by default)");
    refused("t1 = \"61m\"\nt2 = 0", "link[lan].t1", "than the preferred lifetime");
    refused("preferred_lifetime = 3600\nt2 = \"infinite\"", "link[lan].t2", "\"infinite\"");
    load(&format!("{LINKS}t1 = 0\nt2 = 100"));
    load(&format!("{LINKS}t1 = 100\nt2 = 0"));
    load(&format!(
        "{LINKS}preferred_lifetime = \"infinite\"\nt1 = \"infinite\"\nt2 = \"infinite\""
    ));

    // The message points at what the link itself says, and is not repeated for each link.
    let error =
        only_error(&format!("[defaults]\npreferred_lifetime = \"4h\"\n{LINKS}valid_lifetime = 60"));
    assert_eq!((error.line, error.key.as_str()), (9, "link[lan].valid_lifetime"), "{error}");
    let defaults = "[defaults]\npreferred_lifetime = \"4h\"\nvalid_lifetime = \"3h\"\n";
    let error = only_error(&format!(
        "{defaults}{LINKS}[[link]]\ninterface = \"b\"\nprefixes = \"fd00::/64\""
    ));
    assert_eq!((error.line, error.key.as_str()), (2, "defaults.preferred_lifetime"), "{error}");
}

#[test]
fn pools_that_do_not_fit() {
    let pool = "address_pools = [\"2001:db8:1::1-2001:db8:1::ff\", \"2001:db8:1::80/121\"]";
    let link = "\n[[link]]\ninterface = \"b\"\nprefixes = \"2001:db8:1::/64\"\n";
    let error = only_error(&format!("{link}{pool}"));
    assert_eq!((error.line, error.column), (5, 50));
    assert!(error.what.contains("link[0].address_pools[0] in line 5"), "{error}");

    let prefixes = "prefixes = [\"2001:db8:2::/64\", \"2001:db8:2::/80\"]";
    let error = only_error(&format!("{LINKS}[[link]]\ninterface = \"b\"\n{prefixes}"));
    assert_eq!(error.key, "link[1].prefixes[1]", "{error}");

    for (pools, part) in [
        ("{ prefix = \"2001:db8:0:1::/56\", delegated_length = 60 }", "bits set"),
        ("{ prefix = \"2001:db8::/32\", delegated_length = 60 }", "on-link prefix link[lan]"),
        ("{ prefix = \"2001:db9::/32\", delegated_length = 31 }", "does not fit"),
        ("{ prefix = \"2001:db9::/32\", delegated_length = 128 }", "1 to 127"),
        ("{ prefix = \"2001:db9::/32\" }", "is missing"),
        ("{ delegated_length = 64 }", "is missing"),
        ("{ prefix = \"fe80::/16\", delegated_length = 64 }", "link-local"),
        (
            "{ prefix = \"fd00::/32\", delegated_length = 48 }, { prefix = \"fd00:0:1::/48\", \
             delegated_length = 56 }",
            "prefix_pools[0] in line 7",
        ),
    ] {
        let error = only_error(&format!("{LINKS}prefix_pools = [{pools}]"));
        assert!(error.key.starts_with("link[lan].prefix_pools["), "{error}");
        assert!(error.to_string().contains(part), "{error}\nlacks {part}");
        assert_eq!(error.line, 7, "{error}");
    }

    for (pool, part) in [
        ("2001:db8:2::1", "is \"2001:db8:2::/64\" to be one of the link's `prefixes`?"),
        ("2001:db8:1::ffff-2001:db8:3::", "has to lie in one"),
        ("2001:db8:1::2-2001:db8:1::1", "write \"2001:db8:1::1-2001:db8:1::2\""),
        ("2001:db8:1::", "RFC 5453"),
        ("2001:db8:1:0:fdff:ffff:ffff:ff80/121", "RFC 5453"),
        ("fe80::1", "link-local"),
        ("ff02::1", "multicast"),
    ] {
        let text = LINKS.replace("2001:db8:1::1000-2001:db8:1::1fff", pool);
        let error = only_error(&text);
        assert_eq!((error.line, error.key.as_str()), (6, "link[lan].address_pools[0]"), "{error}");
        assert!(error.to_string().contains(part), "{error}\nlacks {part}");
    }
    let error = only_error("[[link]]\ninterface = \"a\"\naddress_pools = \"2001:db8:1::/64\"");
    assert!(error.hint.contains("write `prefixes = \"2001:db8:1::/64\"`"), "{error}");
}

#[test]
fn links_that_clash() {
    let second = |lines: &str, key: &str, part: &str| {
        let first =
            format!("{LINKS}relay = {{ link_addresses = \"fd00:1::1\", interface_ids = \"x\" }}");
        let error = only_error(&format!("{first}\n[[link]]\n{lines}\n"));
        assert_eq!(error.key, key, "{error}");
        assert!(error.to_string().contains(part), "{error}\nlacks {part}");
    };
    let prefix = "prefixes = \"2001:db8:2::/64\"";
    second(&format!("name = \"lan\"\n{prefix}"), "link[lan].name", "line 3 already");
    second(&format!("name = \"b\"\ninterface = \"eth1\"\n{prefix}"), "link[b].interface", "line 4");
    second(&format!("interface = \"lan\"\n{prefix}"), "link[1].name", "line 3 already");
    second(prefix, "link[1].name", "is missing");
    second("name = \"b\"", "link[b]", "no message can reach this link");
    second(
        "name = \"b\"\nrelay.link_addresses = [\"fd00:2::1\", \"fd00:1::1/128\"]",
        "link[b].relay.link_addresses[1]",
        "in line 7 already",
    );
    second(
        "name = \"b\"\nrelay.link_addresses = \"2001:db8:1::/64\"",
        "link[b].relay.link_addresses",
        "in line 5 already",
    );
    second("name = \"b\"\nrelay.interface_ids = \"0x78\"", "link[b].relay.interface_ids", "\"x\"");
}

/// A relationship that is right, to which lines are added or in which they are replaced.
const PAIR: &str = r#"
[[failover]]
name = "p"
role = "primary"
partner = "2001:db8:ff::2"
links = "lan"
mclt = "1h"
tls = "off"
"#;

#[test]
fn relationships() {
    load(&format!("{LINKS}{PAIR}"));
    let without = |key: &str, part: &str| {
        let line = PAIR.lines().find(|line| line.starts_with(key)).unwrap();
        let error = only_error(&format!("{LINKS}{}", PAIR.replace(&format!("{line}\n"), "")));
        assert_eq!(error.kind, ProblemKind::Missing, "{error}");
        let place = if key == "name" { "failover[0]" } else { "failover[p]" };
        assert_eq!((error.key, error.line), (format!("{place}.{key}"), 8));
        assert!(error.hint.contains(part), "{}", error.hint);
    };
    without("name", "on both servers");
    without("role", "\"secondary\" on the other");
    without("partner", "the other server");
    without("links", "both servers serve");
    without("mclt", "\"1h\"");
    without("tls", "`gemel ca` makes the files; or `tls = \"off\"`");

    let replaced = |line: &str, key: &str, part: &str| {
        let name = line.split(" = ").next().unwrap();
        let old = PAIR.lines().find(|old| old.split(" = ").next() == Some(name));
        let text = match old {
            Some(old) => PAIR.replace(&format!("\n{old}\n"), &format!("\n{line}\n")),
            None => format!("{PAIR}{line}\n"),
        };
        let error = only_error(&format!("{LINKS}{text}"));
        let place = if name == "name" { "a/b" } else { "p" };
        assert_eq!(error.key, format!("failover[{place}]{key}"));
        assert!(error.to_string().contains(part), "{error}\nlacks {part:?}");
        assert!(error.line > LINKS.lines().count() && error.column > 0, "{error}");
    };
    replaced("role = \"secundary\"", ".role", "did you mean \"secondary\"?");
    replaced("role = 1", ".role", "one of a few words");
    replaced("partner = \"fe80::1\"", ".partner", "link-local");
    replaced("partner = \"fe80::1%eth0\"", ".partner", "link-local addresses cannot");
    replaced("partner = \"ff02::1\"", ".partner", "not the address of a server");
    replaced("partner = \"[2001:db8::1]:647\"", ".partner", "leave out the port");
    replaced("partner = \"two.example.net\"", ".partner", "is not an address");
    replaced("port = 0", ".port", "from 1 to 65535");
    replaced("local = \"2001:db8:ff::2\"", ".partner", "both `local` and `partner`");
    replaced("local = \"192.0.2.1\"", ".local", "both IPv6 or both IPv4");
    replaced("links = []", ".links", "no link that the partner could take over");
    replaced("links = [\"lam\"]", ".links[0]", "did you mean \"lan\"?");
    replaced("links = [\"other\"]", ".links[0]", "the links are lan");
    replaced("links = [\"lan\", \"lan\"]", ".links[1]", "in line 12 already");
    replaced("mclt = 0", ".mclt", "write \"1s\" to \"30d\"");
    replaced("mclt = \"infinite\"", ".mclt", "cannot be infinite");
    replaced("keepalive_time = \"500ms\"", ".keepalive_time", "not a whole second");
    replaced("keepalive_time = 0", ".keepalive_time", "out of bounds");
    replaced("max_unacked_updates = 0", ".max_unacked_updates", "from 1 to");
    replaced("startup_time = 0", ".startup_time", "out of bounds");
    replaced("auto_partner_down = \"of\"", ".auto_partner_down", "is not a duration");
    replaced("start_in_partner_down = 1", ".start_in_partner_down", "true or false");
    replaced("secondary_share = \"101%\"", ".secondary_share", "101% is out of bounds");
    replaced("secondary_share = \"some\"", ".secondary_share", "write \"0%\" to \"100%\"");
    replaced("balance_threshold = 51", ".balance_threshold", "from 0 to 50");
    replaced("secondary_prefixes_max = -1", ".secondary_prefixes_max", "out of bounds");
    replaced("response_time_max = 0", ".response_time_max", "out of bounds");
    replaced("reconnect_interval = \"1ms\"", ".reconnect_interval", "out of bounds");
    replaced("service_on_link_loss = \"handover\"", ".service_on_link_loss", "\"hand-over\"?");
    replaced("tls = \"on\"", ".tls", "write `[failover.tls]` with its keys, or \"off\"");
    replaced("tls = false", ".tls", "found true or false");
    replaced("secondary_shares = 1", ".secondary_shares", "did you mean `secondary_share`?");
    replaced("name = \"a/b\"", ".name", "the name of a relationship");

    let tls = PAIR.replace("tls = \"off\"\n", "[failover.tls]\n");
    let errors = parse(&format!("{LINKS}{tls}")).unwrap_err().errors;
    let keys: Vec<_> = errors.iter().map(|error| error.key.as_str()).collect();
    let key = |key: &str| format!("failover[p].tls.{key}");
    assert_eq!(keys, [key("ca"), key("certificate"), key("key"), key("partner_name")]);
    assert!(errors.iter().all(|error| error.kind == ProblemKind::Missing));
    let files = "ca = \"/a\"\ncertificate = \"/b\"\nkey = \"/c\"\npartner_name = \"two\"\n";
    load(&format!("{LINKS}{tls}{files}"));
    let error = only_error(&format!("{LINKS}{tls}{}", files.replace("\"/c\"", "\"c\"")));
    assert!(error.to_string().contains("begin it with `/`"), "{error}");
    let error = only_error(&format!("{LINKS}{tls}{}", files.replace("two", "a b")));
    assert_eq!(error.key, "failover[p].tls.partner_name");
    let error = only_error(&format!("{LINKS}{tls}{files}certificat = 1"));
    assert_eq!(error.hint, "did you mean `certificate`?");
}

#[test]
fn relationships_that_clash() {
    let second_link = "[[link]]\nname = \"b\"\ninterface = \"b\"\nprefixes = \"fd00::/64\"\n\
                       address_pools = \"fd00::/64\"\n";
    let text = |second: &str| format!("{second_link}{LINKS}{PAIR}{second}");
    let other = PAIR.replace("\"p\"", "\"q\"").replace("\"lan\"", "\"b\"");
    let config = load(&text(&other));
    let links: Vec<_> = config.failover.iter().map(|failover| failover.links.clone()).collect();
    assert_eq!(links, [[1], [0]]);
    let error = only_error(&text(&other.replace("\"q\"", "\"p\"")));
    assert_eq!((error.key.as_str(), error.kind), ("failover[p].name", ProblemKind::Conflict));
    let error = only_error(&text(&other.replace("\"b\"", "[\"b\", \"lan\"]")));
    assert_eq!(error.key, "failover[q].links[1]", "{error}");
    assert!(error.to_string().contains("a link belongs to one relationship"), "{error}");

    // A secondary has to know how to speak before it knows to which relationship.
    let secondary = format!("{second_link}{LINKS}{PAIR}{other}").replace("primary", "secondary");
    load(&secondary);
    let tls = "[failover.tls]\nca = \"/a\"\ncertificate = \"/b\"\nkey = \"/c\"\n\
               partner_name = \"two\"\n";
    let at = secondary.rfind("tls = \"off\"").unwrap();
    let error = only_error(&format!("{}{tls}", &secondary[..at]));
    assert_eq!(error.key, "failover[q].tls", "{error}");
    assert!(error.to_string().contains("share their TLS settings"), "{error}");

    // One listens on all addresses, one on one of them.
    let local = "local = \"2001:db8:ff::9\"\ntls = \"off\"";
    let both = format!("{}{local}{}", &secondary[..at], &secondary[at + "tls = \"off\"".len()..]);
    let error = only_error(&both);
    assert_eq!(error.key, "failover[q].local", "{error}");
    assert!(error.to_string().contains("port 647 is taken on all addresses by"), "{error}");
    load(&both.replacen("tls = \"off\"", "local = \"2001:db8:ff::8\"\ntls = \"off\"", 1));
    load(&both.replacen("tls = \"off\"", "port = 648\ntls = \"off\"", 1));

    let prefixes = "prefix_pools = [{ prefix = \"2001:db8:8000::/36\", delegated_length = 61 }]";
    let error = only_error(&format!("{LINKS}{prefixes}{PAIR}"));
    assert!(error.to_string().contains("2^25 parts (a pair can share pools of"), "{error}");
    load(&format!("{LINKS}{}{PAIR}", prefixes.replace("61", "60")));
}

#[test]
fn nothing_to_serve() {
    let error = only_error("");
    assert_eq!((error.line, error.kind), (0, ProblemKind::Missing));
    assert_eq!(
        error.to_string(),
        "test.toml: link: there is no link to serve (write `[[link]]`, below it `interface`, \
         `prefixes` and `address_pools`)"
    );
    assert!(only_error("[link]\nname = \"a\"").to_string().contains("write `[[link]]`"));
    assert!(only_error(&format!("{LINKS}[[log]]")).to_string().contains("write `[log]`, once"));
    let relayed = "[[link]]\nname = \"a\"\nprefixes = \"2001:db8::/64\"";
    assert!(only_error(relayed).what.contains("no interface to listen on"));
    load(&format!("{relayed}\n[dataplane]\ninterfaces = \"eth0\""));
}

#[test]
fn unknown_keys_get_a_suggestion() {
    let hint = |line: &str| only_error(&format!("{LINKS}{line}")).hint;
    assert_eq!(hint("prefix = \"\""), "did you mean `prefixes`?");
    assert_eq!(hint("adress_pools = []"), "did you mean `address_pools`?");
    assert_eq!(hint("dns = []"), "did you mean `dns_servers`?");
    assert_eq!(hint("durability = 1"), "it belongs in `store`");
    assert!(hint("lease_time = 1").starts_with("known here: address_pools, "));
    assert_eq!(hint("[sever]"), "did you mean `server`?");
    assert!(hint("[sessions]").starts_with("known here: control, dataplane, defaults"));
    assert!(hint("[failover]").contains("write `[[failover]]`"));
    assert_eq!(hint("relay.link_address = \"\""), "did you mean `link_addresses`?");
}

#[test]
fn everything_at_once_in_the_order_of_the_file() {
    let text = r#"
[server]
preference = 300
[store]
durability = "none"
size = 1
[[link]]
interface = "eth1"
prefixes = ["2001:db8:1::1/64"]
t1 = "2h"
[[link]]
interface = "eth1"
options = [{ code = 1, hex = "0" }]
"#;
    let errors = parse(text).unwrap_err();
    let lines: Vec<usize> = errors.errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [3, 5, 6, 9, 10, 12, 12, 13, 13]);
    let shown = errors.to_string();
    assert_eq!(shown.lines().count(), 10);
    assert!(shown.starts_with("test.toml:3:14: server.preference: 300 is out of bounds ("));
    assert!(shown.ends_with("\ntest.toml: 9 errors"), "{shown}");
}

#[test]
fn syntax_errors_have_places_and_do_not_hide_wrong_values() {
    let text = format!("[store]\npath = \n{LINKS}t1 = \"never\"\nzzz = 1\nt2 = 1 2\n");
    let errors = parse(&text).unwrap_err().errors;
    let kinds: Vec<_> = errors.iter().map(|error| (error.kind, error.line)).collect();
    assert!(kinds.contains(&(ProblemKind::Syntax, 2)), "{errors:?}");
    assert!(kinds.contains(&(ProblemKind::Value, 9)), "{errors:?}");
    assert!(kinds.contains(&(ProblemKind::Syntax, 11)), "{errors:?}");
    assert!(!kinds.iter().any(|(kind, _)| *kind == ProblemKind::Unknown), "{errors:?}");
    let errors = parse(&format!("{LINKS}\n[log]\nlevel = \"info\"\nlevel = \"warn\"")).unwrap_err();
    assert_eq!((errors.errors[0].kind, errors.errors[0].line), (ProblemKind::Syntax, 10));
    let errors = parse("é = \"ü\" x").unwrap_err();
    assert_eq!(errors.errors[0].line, 1, "{errors}");
}

#[test]
fn columns_count_characters() {
    let error = only_error(&format!("{LINKS}domain_search = [\"\u{fc}\u{fc}\", \"a\"]\n"));
    assert_eq!((error.line, error.column), (7, 18));
    let error = only_error(&format!("{LINKS}dns_servers = [\"::1\"] # \u{fc}\n"));
    assert_eq!(error.column, 16);
    let text = format!(
        "{LINKS}prefix_pools = [{{ \"\u{fc}\" = 1, prefix = \"fd00::/8\", delegated_length = 9 }}]"
    );
    assert_eq!(only_error(&text).column, 19);
    let windows = LINKS.replace('\n', "\r\n") + "t1 = true\r\n";
    assert_eq!((only_error(&windows).line, only_error(&windows).column), (7, 6));
}

#[test]
fn warnings() {
    let warned = |line: &str, key: &str, part: &str| {
        let config = load(&format!("{LINKS}{line}\n"));
        assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
        let shown = config.warnings[0].to_string();
        assert_eq!(config.warnings[0].key, key, "{shown}");
        assert!(shown.contains(part), "{shown}");
        assert!(config.warnings[0].line > 0, "{shown}");
    };
    warned("[store]\ndurability = \"process\"", "store.durability", "power cut");
    warned("[control]\nhttp = \"[::]:9547\"", "control.http", "whoever reaches");
    warned("t1 = 30", "link[lan].t1", "renews its leases each \"30s\"");
    warned("preferred_lifetime = 60", "link[lan].preferred_lifetime", "each \"30s\"");
    warned("valid_lifetime = \"infinite\"", "link[lan].valid_lifetime", "never free again");
    warned(
        "prefix_pools = [{ prefix = \"fd00::/64\", delegated_length = 80 }]",
        "link[lan].prefix_pools[0].delegated_length",
        "/80",
    );
    warned("[dataplane]\ninterfaces = [\"eth1\"]", "dataplane.interfaces[0]", "line 4 already");
    warned(
        "[dataplane]\nmode = \"socket\"\nflood_limit = { rate = 5 }",
        "dataplane.flood_limit",
        "no effect",
    );
    warned(
        "[[link]]\ninterface = \"b\"\nprefixes = \"2001:db8:2::/64\"",
        "link[1]",
        "given nothing",
    );
    warned(
        "[[link]]\ninterface = \"b\"\nprefixes = \"100::/64\"\naddress_pools = \"100::/64\"",
        "link[1].address_pools",
        "neither global",
    );
    warned(
        "relay.link_addresses = \"2001:db8:1::/64\"",
        "link[lan].relay.link_addresses",
        "in line 5 already",
    );
    let pair = PAIR.replace("tls = \"off\"\n", "");
    let files = "ca = \"/a\"\ncertificate = \"/b\"\nkey = \"/c\"\npartner_name = \"two\"\n";
    let tls = format!("[failover.tls]\n{files}");
    assert_eq!(load(&format!("{LINKS}{pair}{tls}")).warnings, []);
    warned(PAIR, "failover[p].tls", "read and change all leases");
    let mclt = |mclt: &str| pair.replace("\"1h\"", mclt);
    warned(&format!("{}{tls}", mclt("30")), "failover[p].mclt", "confirmed them");
    warned(&format!("{}{tls}", mclt("\"3h\"")), "failover[p].mclt", "valid lifetime of link lan");
    warned(
        &format!("{pair}auto_partner_down = \"10s\"\n{tls}"),
        "failover[p].auto_partner_down",
        "taken for a partner that is down",
    );
    let hex = "00".repeat(900);
    warned(&format!("options = [{{ code = 56, hex = \"{hex}\" }}]"), "link[lan]", "904 octets");
    let config = load(&format!("{LINKS}[dataplane]\ninterfaces = [\"eth1\", \"eth2\", \"eth2\"]"));
    assert_eq!(config.interfaces().count(), 2);
}

#[test]
fn rings_need_frames() {
    let text = |lines: &str| format!("{LINKS}[dataplane]\n{lines}");
    let error = only_error(&text("frames = 1024"));
    assert_eq!(error.key, "dataplane.frames");
    assert!(error.hint.contains("4096"), "{error}");
    let config = load(&text("rx_ring = 16384"));
    assert_eq!(config.dataplane.frames, 32_768);
    assert!(only_error(&text("tx_ring = 3000")).hint.contains("write 2048 or 4096"));
}
