//! Interfaces that come late, go, and come back: a server that runs is never deaf.

mod common;

use std::time::Duration;

use anyhow::Result;
use common::{BOUND, show_log};
use gemel_tests::clients::{Client, Dhclient, Wanted};
use gemel_tests::gemel::{Config, LinkConfig, Mode, Server};
use gemel_tests::{Lab, Link, require, wait};

/// How long the server may take to notice what became of an interface.
const NOTICE: Duration = Duration::from_secs(30);

/// Two links; the second one's interface is made when the server already serves the first, is
/// deleted, and is made again.
fn comes_and_goes(mode: Mode) -> Result<()> {
    let lab = Lab::new("late")?;
    let server_ns = lab.namespace("server")?;
    let early_ns = lab.namespace("early")?;
    let late_ns = lab.namespace("late")?;
    let (_early, early_server) =
        Link::default().connect((&early_ns, "gml-c0"), (&server_ns, "gml-s0"))?;
    let mut late = LinkConfig::new("late", 2);
    late.interface = Some("gml-s1".to_owned());
    let config = Config::new(mode, vec![LinkConfig::new("early", 1).on(&early_server), late]);
    let server = Server::start_with_missing(&lab, &server_ns, &config)?;
    let serving = |wanted: bool| {
        wait::until("the server to notice the interface", NOTICE, || {
            let status = server.status()?;
            let interfaces = status["interfaces"].as_array().map_or(&[][..], Vec::as_slice);
            let late = interfaces.iter().find(|interface| interface["name"] == "gml-s1");
            Ok(late.is_some_and(|late| late["serving"] == wanted).then_some(()))
        })
    };
    serving(false)?;
    let result = (|| -> Result<()> {
        for round in 0..2 {
            let (client, server_end) =
                Link::default().connect((&late_ns, "gml-c1"), (&server_ns, "gml-s1"))?;
            serving(true)?;
            let name = format!("client{round}");
            let mut dhclient = Client::start(&lab, &Dhclient, &client, Wanted::Both, &name)?;
            let leases = dhclient.wait_bound(BOUND)?;
            common::assert_in_pools(&leases, 2);
            dhclient.process().kill()?;
            server_end.namespace().run("ip", &["link", "del", "gml-s1"])?;
            serving(false)?;
        }
        Ok(())
    })();
    show_log(&server);
    result
}

#[test]
fn comes_and_goes_auto() -> Result<()> {
    require!(["dhclient"], ["gemel"]);
    comes_and_goes(Mode::Auto)
}

#[test]
fn comes_and_goes_socket() -> Result<()> {
    require!(["dhclient"], ["gemel"]);
    comes_and_goes(Mode::Socket)
}
