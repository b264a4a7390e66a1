//! Whether the clients of a relationship can reach this server (RFC 7031 section 4.7).

use std::collections::HashMap;

use crate::{
    config::{Config, Failover},
    interfaces::Interface,
};

/// The interfaces through which messages of the relationship's clients come: those of its links,
/// and for links without one those that listen for relays.
#[must_use]
pub fn interfaces_of<'c>(config: &'c Config, failover: &Failover) -> Vec<&'c str> {
    let links = || failover.links.iter().filter_map(|link| config.links.get(*link));
    let mut names: Vec<&str> =
        links().filter_map(|link| link.interface.as_ref()).map(|name| name.as_str()).collect();
    if links().any(|link| link.interface.is_none()) {
        let relays = config.dataplane.interfaces.iter().map(|name| name.as_str());
        names.extend(relays);
        if names.is_empty() {
            // Relays then send to the interface of some other link.
            names.extend(config.interfaces().map(|name| name.as_str()));
        }
    }
    names
}

/// Whether packets can pass through one of them at least.
#[must_use]
pub fn any_carrier(names: &[&str], interfaces: &HashMap<String, Interface>) -> bool {
    names.iter().any(|name| {
        interfaces.get(*name).is_some_and(|interface| interface.up && interface.carrier)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINKS: &str = r#"
[[link]]
name = "a"
interface = "eth1"
prefixes = "fd00:1::/64"
address_pools = "fd00:1::/64"
[[link]]
name = "b"
interface = "eth2"
prefixes = "fd00:2::/64"
address_pools = "fd00:2::/64"
[[link]]
name = "relayed"
prefixes = "fd00:3::/64"
address_pools = "fd00:3::/64"
"#;

    fn interfaces(relays: &str, links: &str) -> Vec<String> {
        let text = format!(
            "{LINKS}[dataplane]\ninterfaces = [{relays}]\n[[failover]]\nname = \"p\"\n\
             role = \"primary\"\npartner = \"fd00::2\"\nlinks = [{links}]\nmclt = 60\ntls = \"off\"\n"
        );
        let config = Config::parse("test.toml", &text).unwrap();
        interfaces_of(&config, &config.failover[0]).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn links_and_relays() {
        assert_eq!(interfaces("", "\"a\""), ["eth1"]);
        assert_eq!(interfaces("\"eth0\"", "\"a\", \"b\""), ["eth1", "eth2"]);
        assert_eq!(interfaces("\"eth0\"", "\"relayed\""), ["eth0"]);
        assert_eq!(interfaces("\"eth0\"", "\"b\", \"relayed\""), ["eth2", "eth0"]);
        assert_eq!(interfaces("", "\"relayed\""), ["eth1", "eth2"]);
    }

    #[test]
    fn one_carrier_is_enough() {
        let interface = |up, carrier| Interface { up, carrier, ..Interface::default() };
        let mut seen = HashMap::new();
        let names = ["eth1", "eth2"];
        assert!(!any_carrier(&names, &seen));
        seen.insert("eth9".to_owned(), interface(true, true));
        seen.insert("eth1".to_owned(), interface(true, false));
        assert!(!any_carrier(&names, &seen));
        seen.insert("eth2".to_owned(), interface(true, true));
        assert!(any_carrier(&names, &seen));
        seen.insert("eth2".to_owned(), interface(false, true));
        assert!(!any_carrier(&names, &seen));
    }
}
