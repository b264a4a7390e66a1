//! The server is killed and started again: clients keep what they have.

mod common;

use std::collections::HashSet;

use anyhow::Result;
use common::{BOUND, Direct, EXCHANGE, finish};
use gemel_tests::clients::{Dhclient, Dhcp6c, Dhcpcd, Dibbler, Software, Wanted};
use gemel_tests::gemel::{LinkConfig, Mode};
use gemel_tests::{Message, require};

/// A client is bound, the server is killed with SIGKILL and started again; the client renews and
/// keeps its leases, and a second client gets others.
fn survives_sigkill(software: &'static dyn Software, mode: Mode) -> Result<()> {
    let mut lab = Direct::new(mode, 1, LinkConfig::new("access", 1).short_lived())?;
    let before = lab.capture("before.pcap")?;
    let mut client = lab.client(software, Wanted::Both)?;
    let leases = client.wait_bound(BOUND)?;
    finish(before)?;

    lab.server.kill()?;
    // The store speaks for itself while nobody serves.
    assert_eq!(lab.server.stored_leases()?, leases);
    lab.server.restart()?;
    let after = lab.capture("after.pcap")?;
    lab.server.assert_leases(&leases)?;
    after.wait_exchange(Message::Renew, EXCHANGE)?;
    assert_eq!(client.wait_bound(BOUND)?, leases);
    lab.server.assert_leases(&leases)?;
    finish(after)?;
    Ok(())
}

#[test]
fn dhclient_auto() -> Result<()> {
    require!(["dhclient", "tcpdump", "tshark"], ["gemel"]);
    survives_sigkill(&Dhclient, Mode::Auto)
}

#[test]
fn dhcpcd_socket() -> Result<()> {
    require!(["dhcpcd", "tcpdump", "tshark"], ["gemel"]);
    survives_sigkill(&Dhcpcd, Mode::Socket)
}

#[test]
fn dibbler_generic() -> Result<()> {
    require!(["dibbler-client", "tcpdump", "tshark"], ["gemel"]);
    survives_sigkill(&Dibbler, Mode::Generic)
}

#[test]
fn dhcp6c_native() -> Result<()> {
    require!(["dhcp6c", "tcpdump", "tshark"], ["gemel"]);
    survives_sigkill(&Dhcp6c, Mode::Native)
}

/// A clean stop and a kill in turn; the server keeps its DUID, the leases stay with their clients,
/// and a newcomer never gets a lease that is taken.
#[test]
fn newcomers_after_restarts() -> Result<()> {
    require!(["dhclient", "tcpdump", "tshark"], ["gemel"]);
    let mut lab = Direct::new(Mode::Auto, 1, LinkConfig::new("access", 1))?;
    let capture = lab.capture("client.pcap")?;
    let mut all = Vec::new();
    for round in 0..4 {
        all.extend(lab.newcomer(&format!("client{round}"))?);
        if round % 2 == 0 {
            lab.server.kill()?;
        } else {
            lab.server.stop()?;
        }
        lab.server.restart()?;
        lab.server.assert_leases(&all)?;
    }
    assert_eq!(all.iter().map(|lease| lease.address).collect::<HashSet<_>>().len(), 8);
    let trace = finish(capture)?;
    let duids: HashSet<String> = trace.server_duids()?.into_iter().collect();
    assert_eq!(duids.len(), 1, "the server changed its DUID: {duids:?}");
    Ok(())
}
