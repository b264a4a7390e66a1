//! Labs with the servers that people have today.

use anyhow::Result;
use gemel_tests::kea::{Kea, Options};
use gemel_tests::{Interface, Lab, Link, Switch};

use super::cases::cable;

/// Servers and their clients' interface. Dropped from the top: the lab last.
pub(super) struct Peers {
    _servers: Vec<Kea>,
    client: Interface,
    _lab: Lab,
}

impl Peers {
    /// Where the clients are.
    pub(super) fn client(&self) -> &Interface {
        &self.client
    }
}

/// Kea alone, single-threaded: on two cores, one of which has the generator, that is faster than
/// with several threads.
pub(super) fn alone() -> Result<Peers> {
    let lab = Lab::new("kea")?;
    let (client, server) = cable(&lab)?;
    let options = Options { peer: None, peer_link: None, threads: None };
    let kea = Kea::start(&lab, server.namespace(), &server, &options)?;
    Ok(Peers { _servers: vec![kea], client, _lab: lab })
}

/// Two of them as a hot-standby pair with two threads each, in which they are faster than with one;
/// clients, primary and standby on one switch.
pub(super) fn pair() -> Result<Peers> {
    let lab = Lab::new("kea")?;
    let mut switch = Switch::new(&lab)?;
    let clients = lab.namespace("client")?;
    let namespaces = [lab.namespace("server-a")?, lab.namespace("server-b")?];
    let (client, _) = switch.plug(&clients, "gml-c0")?;
    let (first, second) =
        Link::default().connect((&namespaces[0], "gml-f0"), (&namespaces[1], "gml-f0"))?;
    let mut servers = Vec::new();
    for (peer, (namespace, peer_link)) in namespaces.iter().zip([&first, &second]).enumerate() {
        let (end, _) = switch.plug(namespace, "gml-s0")?;
        let options = Options { peer: Some(peer), peer_link: Some(peer_link), threads: Some(2) };
        servers.push(Kea::start(&lab, namespace, &end, &options)?);
    }
    for server in &mut servers {
        server.wait_hot_standby()?;
    }
    Ok(Peers { _servers: servers, client, _lab: lab })
}
