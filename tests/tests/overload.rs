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
const FLOOD: &str = "packets --rate 90000 --burst 450 --seconds 600 --seed 2 --json";

/// A message of a client that the server knows is lost at most at this share of the rate at which
/// SOLICITs of the flood are.
const SPARED: f64 = 0.5;

/// Share of messages without room in the ring from which on a run says nothing of the server's choice.
const OVERFLOWN_MAX: f64 = 0.05;

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

    /// Share of what came that the ring had no room for, because the server had no core for long: the
    /// machine has dropped that, whatever it was.
    fn overflown(&self) -> Result<f64> {
        let counters = self.server.counters()?;
        let lost = number(&counters["port"], "xdp_rx_ring_full")?;
        Ok(lost / (lost + number(&counters["received"], "SOLICIT")?))
    }

    /// Of all that came in nothing but SOLICITs was dropped, and each of those is counted. So it must
    /// be whatever the ring or a slow machine has lost before.
    fn check_accounts(&self) -> Result<()> {
        let received = |name| self.counter("received", name);
        let shed = self.server.counters()?["shed"].clone();
        let dropped: u64 =
            shed.as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
        let (asked, answered) =
            (received("RENEW")? + received("REQUEST")?, self.counter("sent", "REPLY")?);
        ensure!(asked == answered, "{answered} REPLYs to {asked} RENEWs and REQUESTs; {shed}");
        let (solicits, advertised) = (received("SOLICIT")?, self.counter("sent", "ADVERTISE")?);
        ensure!(
            solicits == advertised + dropped,
            "{solicits} SOLICITs, {advertised} ADVERTISEs; {shed}"
        );
        Ok(())
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

/// What the clients saw of it, if it was the server that dropped messages and not a machine too busy
/// to run it.
fn check_clients(counters: &Value, flood: &Value, overflown: f64) -> Result<()> {
    let flooded = 1.0 - number(flood, "advertises")? / number(flood, "sent")?;
    for (sent, lost) in [("sent_renew", "lost_renew_reply"), ("sent_request", "lost_reply")] {
        let (sent, lost) = (number(counters, sent)?, number(counters, lost)?);
        ensure!(sent > 0.0, "not one message: {counters}");
        let share = lost / sent;
        println!(
            "{share:.3} of {sent} lost, {flooded:.3} of the flood, {overflown:.3} by the ring"
        );
        if overflown <= OVERFLOWN_MAX {
            ensure!(share <= SPARED * flooded, "{share:.3} lost, of the flood {flooded:.3}");
        }
    }
    Ok(())
}

#[test]
fn clients_with_leases_are_served_in_a_flood() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    let mut lab = Flooded::new()?;
    let words = format!(
        "mix --rate 300 --seconds 8 --clients 8000 --held {HELD} --shares new=1,renew=1 \
         --timeout 10000 --quiet --json"
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
    check_clients(&clients["counters"], &flood, lab.overflown()?)?;

    // It is over by itself, and nothing is dropped any more.
    lab.wait_overload(false)?;
    for line in ["overload: Solicits are dropped", "the overload is over"] {
        lab.server.process().wait_for_line(line, BEYOND)?;
    }
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
    lab.check_accounts()?;
    let mut after = start(&lab.clients, "run --rate 100 --seconds 1 --seed 3 --quiet --json")?;
    after.wait_success(BEYOND)?;
    let after = summary(&after.stdout().join("\n"))?;
    ensure!(after["exchanges"].as_u64() > Some(0), "nobody is given a lease: {after}");
    ensure!(lab.counter("shed", "solicit_backlog")? == shed, "SOLICITs are still dropped");
    Ok(())
}
