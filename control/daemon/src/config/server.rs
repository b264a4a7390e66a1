//! From the checked configuration to what the server rules and the pools take.

use std::collections::HashMap;

use gemel_failover::Role;
use gemel_lease::{Ownership, PoolConfig, PoolId, PoolRange};
use gemel_server::{LinkConfig, OptionConfig, Prefix, ServerConfig};
use gemel_wire::{Duid, OptionCode};

use super::{Config, Ipv6Prefix, Link};

impl Config {
    /// The pools, and the configuration of the server rules that refers to them by their place in
    /// the list. `duid` is the server's; interfaces have no index yet.
    #[must_use]
    pub fn server_config(&self, duid: Duid) -> (Vec<PoolConfig>, ServerConfig) {
        let mut pools = Vec::new();
        let mut server = ServerConfig::new(duid);
        server.accept_unicast = self.server.accept_unicast;
        let mut links_on: HashMap<Ipv6Prefix, usize> = HashMap::new();
        for prefix in self.links.iter().flat_map(|link| &link.prefixes) {
            *links_on.entry(*prefix).or_default() += 1;
        }
        for (i, link) in self.links.iter().enumerate() {
            let relationship = self.failover.iter().find(|failover| failover.links.contains(&i));
            let ownership = match relationship.map(|failover| failover.role) {
                None => Ownership::Sole,
                Some(Role::Primary) => Ownership::Primary,
                Some(Role::Secondary) => Ownership::Secondary,
            };
            let mut config = link_config(link, ownership, &mut pools);
            // A link-address in a prefix that several links share tells nothing.
            let own = link.prefixes.iter().filter(|prefix| links_on.get(prefix) == Some(&1));
            config.relay_prefixes = own.chain(&link.relay.link_addresses).map(to_prefix).collect();
            config.preference = self.server.preference;
            server.links.push(config);
        }
        (pools, server)
    }
}

fn link_config(link: &Link, ownership: Ownership, pools: &mut Vec<PoolConfig>) -> LinkConfig {
    let mut add = |range| {
        let id = u16::try_from(pools.len()).expect("the number of pools is checked");
        pools.push(PoolConfig { range, ownership });
        PoolId(id)
    };
    let addresses = link.address_pools.iter();
    let na_pools = addresses
        .map(|pool| add(PoolRange::Addresses { first: pool.first, last: pool.last }))
        .collect();
    let prefixes = link.prefix_pools.iter();
    let pd_pools = prefixes
        .map(|pool| {
            add(PoolRange::Prefixes {
                prefix: pool.prefix.first(),
                prefix_len: pool.prefix.prefix_len(),
                delegated_len: pool.delegated_length,
            })
        })
        .collect();
    LinkConfig {
        interface_ids: link.relay.interface_ids.clone(),
        on_link: link.prefixes.iter().map(to_prefix).collect(),
        na_pools,
        pd_pools,
        preferred_lifetime: link.preferred_lifetime,
        valid_lifetime: link.valid_lifetime,
        t1: link.t1,
        t2: link.t2,
        rapid_commit: link.rapid_commit,
        create_on_renew: link.create_on_renew,
        create_on_rebind: Some(link.create_on_rebind),
        decline_hold_secs: link.decline_hold,
        options: options(link),
        ..LinkConfig::new(&link.name)
    }
}

fn options(link: &Link) -> Vec<OptionConfig> {
    let mut options = Vec::new();
    if !link.dns_servers.is_empty() {
        options.push(OptionConfig::dns_servers(&link.dns_servers));
    }
    if !link.domain_search.is_empty() {
        let names = link.domain_search.iter().flat_map(|name| name.as_wire()).copied();
        options.push(OptionConfig::new(OptionCode::DOMAIN_LIST, names.collect()));
    }
    options.extend(link.sol_max_rt.map(OptionConfig::sol_max_rt));
    options.extend(link.inf_max_rt.map(OptionConfig::inf_max_rt));
    options.extend(link.information_refresh_time.map(OptionConfig::information_refresh_time));
    options.extend(link.options.iter().map(|option| OptionConfig {
        code: option.code,
        data: option.data.clone(),
        always: option.always,
    }));
    options
}

fn to_prefix(prefix: &Ipv6Prefix) -> Prefix {
    Prefix::new(prefix.first(), prefix.prefix_len()).expect("a prefix has at most 128 bits")
}
