//! More SOLICITs than a server can answer: clients that have a lease go on being served, and when it
//! is over everybody is.

mod common;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::{assert_mode, show_log};
use gemel_tests::bench::{start, summary};
use gemel_tests::gemel::{Config, LinkConfig, Mode, Server};
use gemel_tests::{Interface, Lab, Switch, require, wait};
use serde_json::Value;

/// How long anything may take beyond its own length.
const BEYOND: Duration = Duration::from_secs(60);

/// Clients that hold a lease before the flood comes.
const HELD: u64 = 400;

/// Entries of the server's ring: so few that a burst that fills it is sent in one go.
const RING: u32 = 512;

/// Each burst of the flood fills most of the ring, and does not overflow it: what is dropped then is
/// dropped by the server, knowing what it drops.
const FLOOD: &str = "packets --rate 45000 --burst 450 --seconds 600 --seed 2 --json";

/// A message of a client that the server knows is lost at most at this share of the rate at which
/// SOLICITs of the flood are.
const SPARED: f64 = 0.5;

/// A server, its clients and those that flood it, on one switch.
struct Flooded {
    server: Server,
    clients: Interface,
    flood: Interface,
    /// Dropped last.
    _lab: Lab,
}

impl Flooded {
    fn new() -> Result<Self> {
        let lab = Lab::new("overload")?;
        let mut switch = Switch::new(&lab)?;
        let namespaces =
            [lab.namespace("server")?, lab.namespace("client")?, lab.namespace("flood")?];
        let (server_end, _) = switch.plug(&namespaces[0], "gml-s0")?;
        let (clients, _) = switch.plug(&namespaces[1], "gml-c0")?;
        let (flood, _) = switch.plug(&namespaces[2], "gml-c0")?;
        server_end.add_address("2001:db8:1::1/64")?;
        let link = LinkConfig::new("access", 1).for_load(1).on(&server_end);
        let mut config = Config::new(Mode::Auto, vec![link]);
        config.dataplane = format!("rx_ring = {RING}\n");
        // On one core with the flood, the server finds the whole burst in its ring, however fast it is.
        config.pin = Some("0".to_owned());
        let server = Server::start(&lab, &namespaces[0], &config)?;
        assert_mode(&server, Mode::Auto)?;
        Ok(Self { server, clients, flood, _lab: lab })
    }

    fn wait_overload(&self, active: bool) -> Result<()> {
        wait::until(&format!("overload to be {active}"), BEYOND, || {
            Ok((self.server.status()?["overload"]["active"] == active).then_some(()))
        })
    }

    fn counter(&self, family: &str, name: &str) -> Result<u64> {
        Ok(self.server.counters()?[family][name].as_u64().unwrap_or(0))
    }
}

impl Drop for Flooded {
    fn drop(&mut self) {
        show_log(&self.server);
    }
}

fn number(summary: &Value, key: &str) -> Result<f64> {
    summary[key].as_f64().with_context(|| format!("no {key} in {summary}"))
}

#[test]
fn clients_with_leases_are_served_in_a_flood() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    let lab = Flooded::new()?;
    let words = format!(
        "mix --rate 300 --seconds 8 --clients 8000 --held {HELD} --shares new=1,renew=1 \
         --timeout 2000 --quiet --json"
    );
    let mut clients = start(&lab.clients, &words)?;
    wait::until("the clients to have their leases", BEYOND, || {
        ensure!(clients.is_running()?, "the generator has ended:\n{}", clients.tail());
        let active = lab.server.status()?["bindings_by_status"]["active"].as_u64();
        Ok((active >= Some(HELD)).then_some(()))
    })?;
    let mut flood = start(&lab.flood, FLOOD)?;
    lab.wait_overload(true)?;
    clients.wait_success(BEYOND)?;
    ensure!(flood.is_running()?, "the flood ended before the clients did:\n{}", flood.tail());
    flood.signal("INT")?;
    flood.wait_success(BEYOND)?;

    let (clients, flood) =
        (summary(&clients.stdout().join("\n"))?, summary(&flood.stdout().join("\n"))?);
    println!("the flood {flood}");
    println!("the clients' counters {}", clients["counters"]);
    let flooded = 1.0 - number(&flood, "advertises")? / number(&flood, "sent")?;
    let counters = &clients["counters"];
    for (sent, lost) in [("sent_renew", "lost_renew_reply"), ("sent_request", "lost_reply")] {
        let (sent, lost) = (number(counters, sent)?, number(counters, lost)?);
        ensure!(sent > 0.0, "not one message: {counters}");
        let share = lost / sent;
        println!("{share:.3} of {sent} lost, {flooded:.3} of the flood");
        ensure!(share <= SPARED * flooded, "{share:.3} lost, of the flood {flooded:.3}");
    }

    // It is over by itself, and nothing is dropped any more.
    lab.wait_overload(false)?;
    let log = lab.server.log();
    ensure!(log.contains("overload: Solicits are dropped"), "the log does not say that it began");
    ensure!(log.contains("the overload is over"), "the log does not say that it ended");
    let shed = lab.counter("shed", "solicit_backlog")?;
    ensure!(shed > 0, "dropped for no backlog: {}", lab.server.counters()?["shed"]);
    let overload = &lab.server.status()?["overload"];
    ensure!(
        overload["times"].as_u64() > Some(0) && overload["solicits_shed"].as_u64() >= Some(shed),
        "{overload}"
    );
    ensure!(
        lab.counter("overload", "entered")? == lab.counter("overload", "left")?,
        "{}",
        lab.server.counters()?["overload"]
    );
    let mut after = start(&lab.clients, "run --rate 100 --seconds 1 --seed 3 --quiet --json")?;
    after.wait_success(BEYOND)?;
    let after = summary(&after.stdout().join("\n"))?;
    ensure!(after["exchanges"].as_u64() > Some(0), "nobody is given a lease: {after}");
    ensure!(lab.counter("shed", "solicit_backlog")? == shed, "SOLICITs are still dropped");
    Ok(())
}
