//! What the kernel says about network interfaces, and when that changes (RFC 3549, rtnetlink).

use std::{collections::HashMap, net::Ipv6Addr, path::Path};

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream::FusedStream};
use rtnetlink::{
    Handle, MulticastGroup, new_multicast_connection,
    packet_core::NetlinkMessage,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags},
        link::{LinkAttribute, LinkFlags},
    },
    sys::SocketAddr,
};

/// An interface as the kernel describes it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Interface {
    /// Interface index.
    pub index: u32,
    /// Administratively up.
    pub up: bool,
    /// Up and with a carrier: packets can pass.
    pub carrier: bool,
    /// Hardware address; all zero for an interface without one of six octets.
    pub mac: [u8; 6],
    /// Receive queues.
    pub rx_queues: u32,
    /// Link-local address, once duplicate address detection has let it pass.
    pub link_local: Option<Ipv6Addr>,
    /// Other unicast addresses, in order.
    pub addresses: Vec<Ipv6Addr>,
}

/// Looks at interfaces and hears of changes.
pub struct Monitor {
    handle: Handle,
    messages: Box<
        dyn FusedStream<Item = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)> + Unpin + Send,
    >,
}

impl Monitor {
    /// Opens the netlink socket; needs a tokio runtime.
    ///
    /// # Errors
    /// If the kernel refuses the socket.
    pub fn new() -> Result<Self> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv6Ifaddr];
        let (connection, handle, messages) = new_multicast_connection(&groups)
            .context("cannot open a netlink socket to follow the interfaces")?;
        tokio::spawn(connection);
        Ok(Self { handle, messages: Box::new(messages.fuse()) })
    }

    /// Waits for a change of any interface, and swallows those that come with it.
    pub async fn changed(&mut self) {
        if self.messages.next().await.is_none() {
            // The connection has ended, which only happens when the runtime does.
            std::future::pending::<()>().await;
        }
        while let Some(Some(_)) = futures_util::FutureExt::now_or_never(self.messages.next()) {}
    }

    /// All interfaces by name.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn snapshot(&self) -> Result<HashMap<String, Interface>> {
        let mut by_name = HashMap::new();
        let mut names = HashMap::new();
        let mut links = self.handle.link().get().execute();
        while let Some(link) = links.try_next().await.context("cannot list the interfaces")? {
            let flags = link.header.flags;
            let mut interface = Interface {
                index: link.header.index,
                up: flags.contains(LinkFlags::Up),
                carrier: flags.contains(LinkFlags::Running) && flags.contains(LinkFlags::LowerUp),
                ..Interface::default()
            };
            let mut name = None;
            for attribute in link.attributes {
                match attribute {
                    LinkAttribute::IfName(text) => name = Some(text),
                    LinkAttribute::Address(octets) => {
                        interface.mac = octets.try_into().unwrap_or_default();
                    }
                    LinkAttribute::NumRxQueues(count) => interface.rx_queues = count,
                    _ => {}
                }
            }
            let Some(name) = name else { continue };
            if let Some(count) = queues_in_use(&name, interface.index) {
                interface.rx_queues = count;
            }
            names.insert(interface.index, name.clone());
            by_name.insert(name, interface);
        }
        let mut addresses = self.handle.address().get().execute();
        while let Some(address) = addresses.try_next().await.context("cannot list the addresses")? {
            if address.header.family != AddressFamily::Inet6 {
                continue;
            }
            let interface = names.get(&address.header.index).and_then(|name| by_name.get_mut(name));
            let Some(interface) = interface else { continue };
            let mut found = None;
            let mut usable = true;
            for attribute in address.attributes {
                match attribute {
                    AddressAttribute::Address(std::net::IpAddr::V6(v6)) => found = Some(v6),
                    AddressAttribute::Flags(flags) => {
                        usable = !flags
                            .intersects(AddressFlags::Tentative | AddressFlags::Dadfailed)
                            || flags.contains(AddressFlags::Optimistic);
                    }
                    _ => {}
                }
            }
            match found {
                Some(v6) if !usable || v6.is_loopback() => {}
                Some(v6) if v6.is_unicast_link_local() => interface.link_local = Some(v6),
                Some(v6) => interface.addresses.push(v6),
                None => {}
            }
        }
        for interface in by_name.values_mut() {
            interface.addresses.sort_unstable();
        }
        Ok(by_name)
    }
}

/// Receive queues that the driver uses now, which may be fewer than netlink tells. `None` where
/// sysfs shows another network namespace, or nothing.
fn queues_in_use(name: &str, index: u32) -> Option<u32> {
    let folder = Path::new("/sys/class/net").join(name);
    let sysfs_index: u32 =
        std::fs::read_to_string(folder.join("ifindex")).ok()?.trim().parse().ok()?;
    if sysfs_index != index {
        return None;
    }
    let queues = std::fs::read_dir(folder.join("queues")).ok()?;
    let count = queues
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("rx-"))
        .count();
    u32::try_from(count).ok().filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_loopback_interface_is_found() {
        let monitor = Monitor::new().unwrap();
        let interfaces = monitor.snapshot().await.unwrap();
        let lo = interfaces.get("lo").expect("every host has one");
        assert!(lo.index > 0);
        assert_eq!(lo.link_local, None);
    }
}
