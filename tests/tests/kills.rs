//! SIGKILL under load: no lease that a client received is lost or given to another.
//!
//! `GEMEL_KILLS` sets how often the server is killed (5 by default), `GEMEL_KILL_SEED` repeats the
//! moments of an earlier run.

mod common;

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use common::assert_mode;
use gemel_tests::bench::{Load, Pace, read_grants};
use gemel_tests::clients::Lease;
use gemel_tests::gemel::{Config, LinkConfig, Mode, Server};
use gemel_tests::{Interface, Lab, Link, Process, require, wait};

/// Clients of each round; so few that within a second all are served several times over.
const CLIENTS: u32 = 2000;

/// Rounds that share their clients, so that in the later ones everybody comes back.
const ROUNDS_PER_POPULATION: u64 = 2;

#[test]
fn kills_auto() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    kills(Mode::Auto)
}

#[test]
fn kills_socket() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    kills(Mode::Socket)
}

fn kills(mode: Mode) -> Result<()> {
    let rounds = number("GEMEL_KILLS", 5)?;
    let seed = number("GEMEL_KILL_SEED", u64::from(std::process::id()))?;
    println!("{rounds} kills, GEMEL_KILL_SEED={seed}");
    let lab = Lab::new("kills")?;
    let server_ns = lab.namespace("server")?;
    let client_ns = lab.namespace("client")?;
    let (client, interface) =
        Link::default().connect((&client_ns, "gml-c0"), (&server_ns, "gml-s0"))?;
    let mut config =
        Config::new(mode, vec![LinkConfig::new("access", 1).for_load(1).on(&interface)]);
    // Checkpoints and new journal segments in quick succession, so that kills hit those too.
    config.store = "checkpoint_interval = \"1s\"\ncheckpoint_leases = 1000\n".to_owned();
    config.store += "segment_size = 1048576\n";
    let mut server = Server::start(&lab, &server_ns, &config)?;
    assert_mode(&server, mode)?;

    let mut ledger = Ledger::default();
    let mut random = Random(seed);
    for round in 0..rounds {
        let delay = Duration::from_millis(20 + random.next() % 1500);
        let grants = kill_under_load(&lab, &client, &mut server, round, delay)
            .with_context(|| format!("round {round}, killed after {delay:?}"))?;
        ledger.enter(&grants).with_context(|| format!("round {round}"))?;
        // First the files that the killed server left, then the server started over them.
        ledger.compare(&server.stored_leases()?, "the store").with_context(|| round.to_string())?;
        server.restart()?;
        ledger.compare(&server.leases()?, "the server").with_context(|| round.to_string())?;
        println!("round {round}: {} grants in all", ledger.owners.len());
    }
    ensure!(!ledger.owners.is_empty(), "no client received anything in any round");
    Ok(())
}

/// Puts a load on, kills the server after `delay`, and returns what the clients received.
fn kill_under_load(
    lab: &Lab,
    client: &Interface,
    server: &mut Server,
    round: u64,
    delay: Duration,
) -> Result<Vec<Lease>> {
    let grants = lab.dir().join("grants");
    let mut load = Load::new(Pace::Window(128), 600.0, CLIENTS);
    load.seed = 1 + round / ROUNDS_PER_POPULATION;
    load.renew_share = 0.3;
    load.grants = Some(grants.clone());
    let before = journal_sequence(server)?;
    let mut bench = Process::spawn("gemel-bench", load.command(client)?)?;
    wait::until("the server to give leases to the load", Duration::from_secs(30), || {
        if !bench.is_running()? {
            bail!("gemel-bench has ended:\n{}", bench.tail());
        }
        Ok((journal_sequence(server)? > before).then_some(()))
    })?;
    // The moment of the kill is the point of the test; nothing is waited for here.
    std::thread::sleep(delay);
    server.kill()?;
    bench.signal("INT")?;
    bench.wait_success(Duration::from_secs(60))?;
    read_grants(&grants)
}

/// How far the server's journal has come; it moves with each batch of leases that is given.
fn journal_sequence(server: &Server) -> Result<u64> {
    let status = server.status()?;
    status["journal_sequence"].as_u64().context("no journal_sequence in the status")
}

/// Everything that clients have ever received. Nothing expires within the test.
#[derive(Default)]
struct Ledger {
    owners: HashMap<(Ipv6Addr, u8), Lease>,
    leases: HashMap<(String, u32, bool), Lease>,
}

impl Ledger {
    /// Adds what was received in a round.
    fn enter(&mut self, grants: &[Lease]) -> Result<()> {
        for grant in grants {
            let place = (grant.address, grant.prefix_len);
            if let Some(earlier) = self.owners.insert(place, grant.clone())
                && earlier != *grant
            {
                bail!("a lease went to a second client: {earlier:?}, then {grant:?}");
            }
            let owner = (grant.duid.clone(), grant.iaid, grant.is_prefix);
            if let Some(earlier) = self.leases.insert(owner, grant.clone())
                && earlier != *grant
            {
                bail!("a client lost its lease: it had {earlier:?}, then {grant:?}");
            }
        }
        Ok(())
    }

    /// Insists that every lease is there, with its client.
    fn compare(&self, found: &[Lease], place: &str) -> Result<()> {
        let found: HashMap<_, _> =
            found.iter().map(|lease| ((lease.address, lease.prefix_len), lease)).collect();
        for (place_of_lease, granted) in &self.owners {
            match found.get(place_of_lease) {
                Some(lease) if *lease == granted => {}
                Some(lease) => bail!("{place} has {lease:?}, but a client received {granted:?}"),
                None => bail!("{place} has lost {granted:?}"),
            }
        }
        Ok(())
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn number(variable: &str, default: u64) -> Result<u64> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable}={text} is no number")),
        Err(_) => Ok(default),
    }
}

#[test]
fn the_ledger_notices() {
    let lease = |address: &str, duid: &str| Lease {
        is_prefix: false,
        address: address.parse().unwrap(),
        prefix_len: 128,
        duid: duid.to_owned(),
        iaid: 1,
    };
    let mut ledger = Ledger::default();
    ledger.enter(&[lease("2001:db8::1", "a"), lease("2001:db8::2", "b")]).unwrap();
    ledger.enter(&[lease("2001:db8::1", "a")]).unwrap();
    let both = [lease("2001:db8::1", "a"), lease("2001:db8::2", "b")];
    ledger.compare(&both, "x").unwrap();
    assert!(ledger.compare(&both[..1], "x").is_err());
    assert!(ledger.compare(&[both[0].clone(), lease("2001:db8::2", "c")], "x").is_err());
    assert!(ledger.enter(&[lease("2001:db8::1", "c")]).is_err());
    assert!(ledger.enter(&[lease("2001:db8::3", "b")]).is_err());
}
