//! Labs that several tests use.

// Each test binary compiles this file and uses a part of it.
#![allow(dead_code)]

pub(crate) mod pair;

use std::time::Duration;

use anyhow::Result;
use gemel_tests::clients::{Client, Dhclient, Lease, Software, Wanted};
use gemel_tests::gemel::{Config, LinkConfig, Mode, Server};
use gemel_tests::{Capture, Interface, Lab, Link, Trace, wait};

/// How long a client may take to be bound: dhcpcd and dhcp6c wait up to a second before they
/// speak, and a lost first packet costs another second or two.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// How long an exchange may take that a client starts by its own timers. dhcp6c renews no earlier
/// than 18 seconds after it was bound, whatever T1 the server sends.
pub(crate) const EXCHANGE: Duration = Duration::from_secs(60);

/// A server and one client namespace on one link.
pub(crate) struct Direct {
    pub(crate) server: Server,
    pub(crate) client_interface: Interface,
    pub(crate) lab: Lab,
}

impl Direct {
    /// Makes the lab and starts the server.
    pub(crate) fn new(mode: Mode, queues: u16, link: LinkConfig) -> Result<Self> {
        let lab = Lab::new("direct")?;
        let server_ns = lab.namespace("server")?;
        let client_ns = lab.namespace("client")?;
        let (client_interface, server_interface) = Link { queues, ..Link::default() }
            .connect((&client_ns, "gml-c0"), (&server_ns, "gml-s0"))?;
        server_interface.add_address("2001:db8:1::1/64")?;
        let config = Config::new(mode, vec![link.on(&server_interface)]);
        let server = Server::start(&lab, &server_ns, &config)?;
        assert_mode(&server, mode)?;
        Ok(Self { server, client_interface, lab })
    }

    pub(crate) fn capture(&self, file: &str) -> Result<Capture> {
        Capture::start(&self.lab, &self.client_interface, file)
    }

    /// The number of leases that the server has under a binding-status.
    pub(crate) fn bindings(&self, status: &str) -> Result<u64> {
        let page = self.server.status()?;
        Ok(page["bindings_by_status"][status].as_u64().unwrap_or(0))
    }

    pub(crate) fn client(&self, software: &'static dyn Software, wanted: Wanted) -> Result<Client> {
        Client::start(&self.lab, software, &self.client_interface, wanted, "client")
    }

    /// A dhclient that gets its leases and is killed with them; clients of different names differ in
    /// DUID. All would bind port 546, so there is room for one at a time.
    pub(crate) fn newcomer(&self, name: &str) -> Result<Vec<Lease>> {
        let (interface, wanted) = (&self.client_interface, Wanted::Both);
        let mut client = Client::start(&self.lab, &Dhclient, interface, wanted, name)?;
        let leases = client.wait_bound(BOUND)?;
        client.process().kill()?;
        Ok(leases)
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        show_log(&self.server);
    }
}

/// Prints the server's log; the test harness shows it when the test fails.
pub(crate) fn show_log(server: &Server) {
    println!("the server's log:\n{}", server.log());
}

/// The server must run in the mode that it was told, and must not quietly fall back.
pub(crate) fn assert_mode(server: &Server, mode: Mode) -> Result<()> {
    let found = server.mode()?;
    match mode {
        Mode::Auto => {
            assert!(found.contains("AF_XDP"), "works on veth, so auto must use it, not {found}");
        }
        mode => assert!(found.contains(mode.as_str()), "asked for {mode:?}, got {found}"),
    }
    Ok(())
}

/// Every lease must lie in the pools of [`LinkConfig::new`] with this number.
pub(crate) fn assert_in_pools(leases: &[Lease], number: u16) {
    for lease in leases {
        let segments = lease.address.segments();
        assert_eq!(segments[..2], [0x2001, 0xdb8], "{lease:?}");
        if lease.is_prefix {
            assert_eq!(segments[2] >> 8, 0x80 | number, "{lease:?}");
            assert_eq!(lease.prefix_len, 56, "{lease:?}");
        } else {
            assert_eq!(segments[2], number, "{lease:?}");
            assert_eq!(lease.prefix_len, 128, "{lease:?}");
            assert!(segments[7] >= 0x1000, "{lease:?}");
        }
    }
}

/// Waits until the server has no active lease any more.
pub(crate) fn wait_no_leases(server: &Server) -> Result<()> {
    wait::until("the server to free the released leases", Duration::from_secs(10), || {
        Ok(server.leases()?.is_empty().then_some(()))
    })?;
    server.assert_leases(&[])
}

/// Ends a capture, checks it, and hands it back.
pub(crate) fn finish(capture: Capture) -> Result<Trace> {
    let trace = capture.stop()?;
    trace.assert_clean()?;
    Ok(trace)
}
