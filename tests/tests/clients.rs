//! Real clients on the server's own link: address, prefix, both, renew, release.

mod common;

use anyhow::Result;
use common::{BOUND, Direct, EXCHANGE, assert_in_pools, finish, wait_no_leases};
use gemel_tests::clients::{
    Dhclient, DhclientDeclining, Dhcp6c, Dhcpcd, Dibbler, Software, Wanted,
};
use gemel_tests::gemel::{LinkConfig, Mode};
use gemel_tests::{Message, Process, Sandbox, require, wait};

/// A client is bound, both sides agree on what it has, and after its RELEASE nobody has it.
fn bind_and_release(software: &'static dyn Software, wanted: Wanted, mode: Mode) -> Result<()> {
    let lab = Direct::new(mode, 1, LinkConfig::new("access", 1))?;
    let capture = lab.capture("client.pcap")?;
    let mut client = lab.client(software, wanted)?;
    let leases = client.wait_bound(BOUND)?;
    assert_in_pools(&leases, 1);
    lab.server.assert_leases(&leases)?;

    client.release()?;
    wait_no_leases(&lab.server)?;
    let trace = finish(capture)?;
    assert!(trace.is_answered(Message::Request)?);
    assert!(trace.is_answered(Message::Release)?);
    Ok(())
}

/// A client renews on its own and keeps what it has.
fn renew(software: &'static dyn Software, mode: Mode) -> Result<()> {
    let lab = Direct::new(mode, 1, LinkConfig::new("access", 1).short_lived())?;
    let capture = lab.capture("client.pcap")?;
    let mut client = lab.client(software, Wanted::Both)?;
    let leases = client.wait_bound(BOUND)?;
    capture.wait_exchange(Message::Renew, EXCHANGE)?;
    assert_eq!(client.wait_bound(BOUND)?, leases);
    lab.server.assert_leases(&leases)?;
    finish(capture)?;
    Ok(())
}

macro_rules! per_client {
    ($($module:ident: $software:expr;)*) => {$(
        mod $module {
            use super::*;

            const SOFTWARE: &dyn Software = &$software;

            #[test]
            fn address_generic() -> Result<()> {
                require!([SOFTWARE.program(), "tcpdump", "tshark"], ["gemel"]);
                bind_and_release(SOFTWARE, Wanted::Address, Mode::Generic)
            }

            #[test]
            fn prefix_native() -> Result<()> {
                require!([SOFTWARE.program(), "tcpdump", "tshark"], ["gemel"]);
                bind_and_release(SOFTWARE, Wanted::Prefix, Mode::Native)
            }

            #[test]
            fn both_auto() -> Result<()> {
                require!([SOFTWARE.program(), "tcpdump", "tshark"], ["gemel"]);
                bind_and_release(SOFTWARE, Wanted::Both, Mode::Auto)
            }

            #[test]
            fn both_socket() -> Result<()> {
                require!([SOFTWARE.program(), "tcpdump", "tshark"], ["gemel"]);
                bind_and_release(SOFTWARE, Wanted::Both, Mode::Socket)
            }

            #[test]
            fn renew_auto() -> Result<()> {
                require!([SOFTWARE.program(), "tcpdump", "tshark"], ["gemel"]);
                renew(SOFTWARE, Mode::Auto)
            }

            #[test]
            fn renew_socket() -> Result<()> {
                require!([SOFTWARE.program(), "tcpdump", "tshark"], ["gemel"]);
                renew(SOFTWARE, Mode::Socket)
            }
        }
    )*};
}

per_client! {
    dhclient: Dhclient;
    dhcpcd: Dhcpcd;
    dibbler: Dibbler;
    dhcp6c: Dhcp6c;
}

/// Frames reach the server whichever of its queues they arrive at.
#[test]
fn four_queues() -> Result<()> {
    require!(["dhclient", "tcpdump", "tshark"], ["gemel"]);
    let lab = Direct::new(Mode::Native, 4, LinkConfig::new("access", 1))?;
    let capture = lab.capture("client.pcap")?;
    let mut leases = Vec::new();
    for number in 0..4 {
        // Each has its own DUID, and dhclient's transactions differ, so the flows do.
        leases.extend(lab.newcomer(&format!("client{number}"))?);
    }
    lab.server.assert_leases(&leases)?;
    finish(capture)?;
    Ok(())
}

/// A client that comes back with an address asks whether it is still on the link.
#[test]
fn confirm() -> Result<()> {
    require!(["dhclient", "tcpdump", "tshark"], ["gemel"]);
    comes_back(Wanted::Address, Message::Confirm)
}

/// A client that comes back with a prefix asks any server to extend it.
#[test]
fn rebind() -> Result<()> {
    require!(["dhclient", "tcpdump", "tshark"], ["gemel"]);
    comes_back(Wanted::Prefix, Message::Rebind)
}

fn comes_back(wanted: Wanted, question: Message) -> Result<()> {
    let lab = Direct::new(Mode::Auto, 1, LinkConfig::new("access", 1))?;
    let capture = lab.capture("client.pcap")?;
    let mut client = lab.client(&Dhclient, wanted)?;
    let leases = client.wait_bound(BOUND)?;
    client.restart()?;
    capture.wait_exchange(question, EXCHANGE)?;
    assert_eq!(client.wait_bound(BOUND)?, leases);
    lab.server.assert_leases(&leases)?;
    finish(capture)?;
    Ok(())
}

/// A client that finds its address in use declines it and gets another; nobody gets the first.
#[test]
fn decline() -> Result<()> {
    require!(["dhclient", "tcpdump", "tshark"], ["gemel"]);
    let lab = Direct::new(Mode::Auto, 1, LinkConfig::new("access", 1))?;
    let capture = lab.capture("client.pcap")?;
    // dhclient leaves duplicate address detection to its script; the exit status 3 tells it that
    // the address is in use.
    let client = lab.client(&DhclientDeclining, Wanted::Address)?;
    capture.wait_exchange(Message::Decline, EXCHANGE)?;
    // Its records have the declined address, which the server has no more under its name, until it
    // is given the next one.
    let leases = wait::until("the client to get another address", BOUND, || {
        let leases = client.leases()?;
        Ok((!leases.is_empty() && leases == lab.server.leases()?).then_some(leases))
    })?;
    assert_eq!(lab.bindings("abandoned")?, 1);
    lab.server.assert_leases(&leases)?;
    finish(capture)?;
    Ok(())
}

/// A client that wants no lease is told the options.
#[test]
fn information_request() -> Result<()> {
    require!(["dhclient", "tcpdump", "tshark"], ["gemel"]);
    let lab = Direct::new(Mode::Auto, 1, LinkConfig::new("access", 1))?;
    let capture = lab.capture("client.pcap")?;
    let interface = &lab.client_interface;
    let sandbox = Sandbox::new(&lab.lab, interface.namespace(), "client.root")?;
    let dir = lab.lab.subdir("client")?;
    let config = lab.lab.write("client/dhclient.conf", "initial-delay 0;\n")?;
    let script = lab.lab.write_script("client/script", "#!/bin/sh\nexit 0\n")?;
    let mut command = sandbox.command("dhclient")?;
    command.args(["-6", "-d", "-v", "-S", "-cf"]).arg(config).arg("-sf").arg(script);
    command.arg("-lf").arg(dir.join("leases")).arg("-pf").arg(dir.join("pid"));
    command.arg(interface.name());
    let _client = Process::spawn("dhclient -S", command)?;
    capture.wait_exchange(Message::InformationRequest, EXCHANGE)?;
    let trace = finish(capture)?;
    let told = "dhcpv6.msgtype == 7 && dhcpv6.dns_server == 2001:db8::53";
    assert_eq!(trace.count(told)?, trace.count("dhcpv6.msgtype == 7")?);
    lab.server.assert_leases(&[])
}
