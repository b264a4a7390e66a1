//! What has to be equal on both servers of a pair, in a form that can be compared.

use std::fmt::Write as _;

use super::{Config, Failover, Link};

impl Config {
    /// What both servers of a relationship have to agree on, as lines of text that are equal on
    /// both if they do: `diff` shows where they do not. RFC 7031 section 7.1 calls a configuration
    /// that differs a frequent problem.
    #[must_use]
    pub fn partner_text(&self, failover: &Failover) -> String {
        let mut links: Vec<String> =
            failover.links.iter().filter_map(|link| self.links.get(*link)).map(link_text).collect();
        // The names of links are each server's own affair, and so is their order.
        links.sort();
        let mut text = format!(
            "relationship {} mclt {} s, port {}, {}\n",
            failover.name,
            failover.mclt,
            failover.port,
            if failover.tls.is_some() { "TLS" } else { "no TLS" }
        );
        let _ = writeln!(
            text,
            "secondary's share of prefixes {}%, at most {} of a pool, moved when off by {}%",
            failover.secondary_share_percent,
            failover.secondary_prefixes_max,
            failover.balance_threshold_percent
        );
        text.push_str(&links.concat());
        text
    }
}

fn link_text(link: &Link) -> String {
    let mut text = String::new();
    for pool in &link.address_pools {
        let _ = writeln!(text, "addresses {}-{}", pool.first, pool.last);
    }
    for pool in &link.prefix_pools {
        let _ = writeln!(text, "prefixes {} by /{}", pool.prefix, pool.delegated_length);
    }
    for prefix in &link.prefixes {
        let _ = writeln!(text, "  on link {prefix}");
    }
    let secs = |secs: Option<u32>| secs.map_or_else(|| "default".to_owned(), |t| t.to_string());
    let _ = writeln!(
        text,
        "  lifetimes {} {} T1 {} T2 {}, declined {}, rapid commit {}",
        link.preferred_lifetime,
        link.valid_lifetime,
        secs(link.t1),
        secs(link.t2),
        link.decline_hold,
        link.rapid_commit
    );
    text
}
