//! A veth pair between two namespaces.

use std::net::Ipv6Addr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{namespace::Namespace, run};
use crate::wait;

/// What a veth pair is like.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Receive and transmit queues of each end. A native XDP program attaches only when the peer
    /// has no more transmit queues than the end has receive queues, so both get the same.
    pub queues: u16,
    /// Maximum transmission unit in bytes, at least 1280.
    pub mtu: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self { queues: 1, mtu: 1500 }
    }
}

/// One end of a veth pair.
#[derive(Clone, Debug)]
pub struct Interface {
    namespace: Namespace,
    name: String,
}

impl Link {
    /// Makes the pair, sets both ends up and waits until each has its link-local address.
    ///
    /// Checksum offload is off, so that every frame on the link carries a complete UDP checksum
    /// and a capture can be checked for it.
    ///
    /// # Errors
    /// When `ip` or `ethtool` fails.
    pub fn connect(
        &self,
        (a, a_name): (&Namespace, &str),
        (b, b_name): (&Namespace, &str),
    ) -> Result<(Interface, Interface)> {
        let queues = self.queues.to_string();
        let mtu = self.mtu.to_string();
        // Both ends are born inside their namespaces, so the host never sees them.
        run(
            "ip",
            &[
                "link",
                "add",
                a_name,
                "netns",
                a.name(),
                "numtxqueues",
                &queues,
                "numrxqueues",
                &queues,
                "mtu",
                &mtu,
                "type",
                "veth",
                "peer",
                "name",
                b_name,
                "netns",
                b.name(),
                "numtxqueues",
                &queues,
                "numrxqueues",
                &queues,
                "mtu",
                &mtu,
            ],
        )
        .with_context(|| format!("joining {} and {}", a.name(), b.name()))?;
        let ends = (
            Interface { namespace: a.clone(), name: a_name.to_owned() },
            Interface { namespace: b.clone(), name: b_name.to_owned() },
        );
        for end in [&ends.0, &ends.1] {
            end.namespace.run("ethtool", &["-K", &end.name, "tx", "off"])?;
            end.set_up()?;
        }
        for end in [&ends.0, &ends.1] {
            end.wait_link_local()?;
        }
        Ok(ends)
    }
}

impl Interface {
    /// Its name inside its namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace that it is in.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Sets it up.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn set_up(&self) -> Result<()> {
        self.namespace.run("ip", &["link", "set", &self.name, "up"]).map(drop)
    }

    /// Sets it down; the peer loses its carrier.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn set_down(&self) -> Result<()> {
        self.namespace.run("ip", &["link", "set", &self.name, "down"]).map(drop)
    }

    /// Adds an address, written with its prefix length.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn add_address(&self, address: &str) -> Result<()> {
        self.namespace
            .run("ip", &["-6", "address", "add", address, "dev", &self.name, "nodad"])
            .map(drop)
    }

    /// All IPv6 addresses that are usable now (neither tentative nor duplicate).
    ///
    /// # Errors
    /// When `ip` fails or prints something unexpected.
    pub fn addresses(&self) -> Result<Vec<Ipv6Addr>> {
        let json = self.namespace.run("ip", &["-json", "-6", "address", "show", &self.name])?;
        let links: serde_json::Value = serde_json::from_str(&json).context("reading ip -json")?;
        let mut addresses = Vec::new();
        for entry in links
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|link| link["addr_info"].as_array())
            .flatten()
        {
            let unusable = entry["tentative"] == true || entry["dadfailed"] == true;
            if let Some(local) = entry["local"].as_str().filter(|_| !unusable) {
                addresses.push(local.parse().with_context(|| format!("address {local:?}"))?);
            }
        }
        Ok(addresses)
    }

    /// Its usable link-local address.
    ///
    /// # Errors
    /// When it has none.
    pub fn link_local(&self) -> Result<Ipv6Addr> {
        self.addresses()?
            .into_iter()
            .find(Ipv6Addr::is_unicast_link_local)
            .with_context(|| format!("{} has no link-local address", self.name))
    }

    /// Its interface index inside its namespace.
    ///
    /// # Errors
    /// When the interface is gone.
    pub fn index(&self) -> Result<u32> {
        let text = self.sysfs("ifindex")?;
        text.trim().parse().with_context(|| format!("interface index {text:?}"))
    }

    /// Its Ethernet address, as `aa:bb:cc:dd:ee:ff`.
    ///
    /// # Errors
    /// When the interface is gone.
    pub fn mac(&self) -> Result<String> {
        Ok(self.sysfs("address")?.trim().to_owned())
    }

    fn sysfs(&self, attribute: &str) -> Result<String> {
        self.namespace.run("cat", &[&format!("/sys/class/net/{}/{attribute}", self.name)])
    }

    fn wait_link_local(&self) -> Result<()> {
        wait::until(
            &format!("a link-local address on {}", self.name),
            Duration::from_secs(10),
            || Ok(self.addresses()?.iter().any(Ipv6Addr::is_unicast_link_local).then_some(())),
        )
    }
}
