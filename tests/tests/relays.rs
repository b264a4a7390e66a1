//! Clients behind one and two real relays.

mod common;

use std::collections::HashSet;

use anyhow::Result;
use common::{BOUND, EXCHANGE, assert_in_pools, assert_mode, finish, show_log, wait_no_leases};
use gemel_tests::clients::{Client, Dhclient, Dhcpcd, Software, Wanted, relay};
use gemel_tests::gemel::{Config, LinkConfig, Mode, Server};
use gemel_tests::{Capture, Interface, Lab, Link, Message, Namespace, Process, require};

/// A server, a chain of relays, and a client's interface below the last one.
struct Chain {
    server: Server,
    /// The upper end of the relay next to the server, for captures.
    first_upper: Interface,
    client: Interface,
    _relays: Vec<Process>,
    lab: Lab,
}

impl Chain {
    fn new(relays: u16, mode: Mode) -> Result<Self> {
        let lab = Lab::new("relays")?;
        let server_ns = lab.namespace("server")?;
        let mut node = server_ns.clone();
        let mut uppers = Vec::new();
        let mut lowers = Vec::new();
        // Link by link from the server down; each relay knows the node above by its address ::1.
        for number in 0..=relays {
            let role = if number == relays { "client".into() } else { format!("relay{number}") };
            let below = lab.namespace(&role)?;
            let lower_name = if number == 0 { "gml-s0" } else { "gml-down" };
            let (upper, lower) =
                Link::default().connect((&below, "gml-up"), (&node, lower_name))?;
            if number == relays {
                lower.add_address("2001:db8:1::1/64")?;
            } else {
                lower.add_address(&format!("2001:db8:ff{number:02x}::1/64"))?;
                upper.add_address(&format!("2001:db8:ff{number:02x}::2/64"))?;
            }
            uppers.push(upper);
            lowers.push(lower);
            node = below;
        }
        let mut processes = Vec::new();
        for number in 0..relays {
            let index = usize::from(number);
            let above = format!("2001:db8:ff{number:02x}::1");
            processes.push(relay::start(&lowers[index + 1], &uppers[index], Some(&above), true)?);
        }
        let server = start_server(&lab, &server_ns, mode, vec![LinkConfig::new("access", 1)])?;
        let first_upper = uppers[0].clone();
        let client = uppers[usize::from(relays)].clone();
        Ok(Self { server, first_upper, client, _relays: processes, lab })
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        show_log(&self.server);
    }
}

/// Starts a server that only relays talk to.
fn start_server(lab: &Lab, ns: &Namespace, mode: Mode, links: Vec<LinkConfig>) -> Result<Server> {
    let links = links.into_iter().map(LinkConfig::short_lived).collect();
    let mut config = Config::new(mode, links);
    config.interfaces = vec!["gml-s0".to_owned()];
    let server = Server::start(lab, ns, &config)?;
    assert_mode(&server, mode)?;
    Ok(server)
}

/// One client behind relays: SOLICIT, REQUEST, RENEW, RELEASE.
fn behind_relays(relays: u16, mode: Mode, software: &'static dyn Software) -> Result<()> {
    let chain = Chain::new(relays, mode)?;
    let capture = Capture::start(&chain.lab, &chain.client, "client.pcap")?;
    let relayed = Capture::start(&chain.lab, &chain.first_upper, "relay.pcap")?;
    let mut client = Client::start(&chain.lab, software, &chain.client, Wanted::Both, "client")?;
    let leases = client.wait_bound(BOUND)?;
    assert_in_pools(&leases, 1);
    chain.server.assert_leases(&leases)?;

    capture.wait_exchange(Message::Renew, EXCHANGE)?;
    assert_eq!(client.wait_bound(BOUND)?, leases);
    chain.server.assert_leases(&leases)?;

    client.release()?;
    wait_no_leases(&chain.server)?;
    finish(capture)?;
    let trace = finish(relayed)?;
    let hops = relays - 1;
    assert!(trace.count(&format!("dhcpv6.msgtype == 12 && dhcpv6.hopcount == {hops}"))? > 0);
    assert!(trace.count(&format!("dhcpv6.msgtype == 13 && dhcpv6.hopcount == {hops}"))? > 0);
    Ok(())
}

#[test]
fn relay_auto() -> Result<()> {
    require!(["dhclient", "dhcrelay", "tcpdump", "tshark"], ["gemel"]);
    behind_relays(1, Mode::Auto, &Dhclient)
}

#[test]
fn relay_socket() -> Result<()> {
    require!(["dhcpcd", "dhcrelay", "tcpdump", "tshark"], ["gemel"]);
    behind_relays(1, Mode::Socket, &Dhcpcd)
}

#[test]
fn double_relay_generic() -> Result<()> {
    require!(["dhcpcd", "dhcrelay", "tcpdump", "tshark"], ["gemel"]);
    behind_relays(2, Mode::Generic, &Dhcpcd)
}

#[test]
fn double_relay_socket() -> Result<()> {
    require!(["dhclient", "dhcrelay", "tcpdump", "tshark"], ["gemel"]);
    behind_relays(2, Mode::Socket, &Dhclient)
}

/// Two links behind one server interface: each client is served from the pools of its own link.
#[test]
fn two_links() -> Result<()> {
    require!(["dhclient", "dhcrelay", "tcpdump", "tshark"], ["gemel"]);
    let lab = Lab::new("two-links")?;
    let server_ns = lab.namespace("server")?;
    let mut relays = Vec::new();
    let switch_ns = lab.namespace("relay")?;
    let (upper, server_end) =
        Link::default().connect((&switch_ns, "gml-up"), (&server_ns, "gml-s0"))?;
    upper.add_address("2001:db8:ff::2/64")?;
    server_end.add_address("2001:db8:ff::1/64")?;
    let mut interfaces = Vec::new();
    for number in 1..=2 {
        let ns = lab.namespace(&format!("client{number}"))?;
        let down = format!("gml-down{number}");
        let (client, lower) = Link::default().connect((&ns, "gml-c0"), (&switch_ns, &down))?;
        lower.add_address(&format!("2001:db8:{number}::1/64"))?;
        interfaces.push((number, client, lower));
    }
    // One relay process for both links, as on a router; the Interface-Id leads the replies back.
    let lowers: Vec<_> = interfaces.iter().map(|(_, _, lower)| lower.clone()).collect();
    relays.push(relay::start_many(&lowers, &upper, Some("2001:db8:ff::1"), true)?);
    let links = vec![LinkConfig::new("one", 1), LinkConfig::new("two", 2)];
    let server = start_server(&lab, &server_ns, Mode::Auto, links)?;

    let mut all = Vec::new();
    let mut clients = Vec::new();
    for (number, interface, _) in &interfaces {
        let name = format!("client{number}");
        let capture = Capture::start(&lab, interface, &format!("{name}.pcap"))?;
        let mut client = Client::start(&lab, &Dhclient, interface, Wanted::Both, &name)?;
        let leases = client.wait_bound(BOUND)?;
        assert_in_pools(&leases, *number);
        all.extend(leases);
        clients.push(client);
        finish(capture)?;
    }
    assert_eq!(all.iter().map(|lease| lease.address).collect::<HashSet<_>>().len(), 4);
    server.assert_leases(&all)
}
