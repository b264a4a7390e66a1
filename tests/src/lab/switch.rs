//! A switch.

use anyhow::Result;

use super::{
    Lab,
    link::{Interface, Link},
    namespace::Namespace,
};

/// The bridge's name in the switch's namespace.
const BRIDGE: &str = "gml-br0";

/// A bridge in a namespace of its own, into which others are plugged.
#[derive(Debug)]
pub struct Switch {
    namespace: Namespace,
    ports: usize,
}

impl Switch {
    /// Makes one without cables. Multicast goes to all its ports, as it does while no router asks for
    /// listeners.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn new(lab: &Lab) -> Result<Self> {
        let namespace = lab.namespace("switch")?;
        let bridge = ["link", "add", BRIDGE, "up", "type", "bridge", "mcast_snooping", "0"];
        namespace.run("ip", &bridge)?;
        Ok(Self { namespace, ports: 0 })
    }

    /// Plugs a namespace in; returns its interface, which gets this name, and the switch's port.
    ///
    /// # Errors
    /// When `ip` or `ethtool` fails.
    pub fn plug(&mut self, namespace: &Namespace, name: &str) -> Result<(Interface, Interface)> {
        let port = format!("gml-p{}", self.ports);
        self.ports += 1;
        let (end, port) = Link::default().connect((namespace, name), (&self.namespace, &port))?;
        self.namespace.run("ip", &["link", "set", port.name(), "master", BRIDGE])?;
        Ok((end, port))
    }
}
