//! A failover pair whose cables are cut: between the servers without a trace, in both directions or
//! one, and to the clients; and servers whose clocks do not agree.

mod common;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::pair::{
    NOTICE, assert_takeover, load, under_load, wait_alone, wait_grants, with_pair, with_pair_apart,
};
use gemel_tests::pair::{Direction, Options, Relationship, Role, faketime};
use gemel_tests::{require, wait};

/// Leases that both give while the cable is cut.
const SOME: usize = 100;

/// While the servers do not hear each other both serve, each from its own part of the pools.
#[test]
fn silent_partition() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    with_pair("cut", &Options::default(), |pair| {
        let mut load = load(10.0)?;
        load.at = vec![(2.0, pair.cut_command(Direction::Both))];
        let summary = under_load(pair, load, |pair| {
            for role in Role::ALL {
                let found = wait_alone(pair, role)?;
                ensure!(found.state == "communications-interrupted", "{role:?}: {found:?}");
            }
            // Which of them a client takes is the client's choice.
            wait_grants(pair, Role::Primary, SOME)?;
            pair.heal()?;
            pair.wait_normal()
        })?;
        let further = summary["counters"]["advertise_further"].as_u64();
        ensure!(further > Some(0), "both servers offered leases: {}", summary["counters"]);
        Ok(())
    })
}

/// The primary is not heard any more, but hears.
#[test]
fn the_secondary_hears_nothing() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    one_way(Direction::FromPrimary)
}

/// The primary hears nothing any more, but is heard.
#[test]
fn the_primary_hears_nothing() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    one_way(Direction::ToPrimary)
}

fn one_way(direction: Direction) -> Result<()> {
    with_pair("one-way", &Options::default(), |pair| {
        let mut load = load(10.0)?;
        load.at = vec![(2.0, pair.cut_command(direction))];
        under_load(pair, load, |pair| {
            for role in Role::ALL {
                wait_alone(pair, role)?;
            }
            wait_grants(pair, Role::Primary, SOME)?;
            pair.heal()?;
            pair.wait_normal()
        })?;
        Ok(())
    })
}

/// The primary is killed while the servers do not hear each other: what it gave last is unknown to
/// the secondary, which must not give it away.
#[test]
fn sigkill_behind_a_partition() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    with_pair("cut-kill", &Options::default(), |pair| {
        let mut load = load(12.0)?;
        load.at = vec![
            (2.0, pair.cut_command(Direction::Both)),
            (5.0, pair.server(Role::Primary).kill_command()),
            (6.0, pair.heal_command()),
        ];
        under_load(pair, load, |pair| {
            wait_alone(pair, Role::Secondary)?;
            common::pair::wait_gone(pair, Role::Primary)?;
            wait_grants(pair, Role::Secondary, SOME)?;
            // The load mends the cable by itself; a server that comes back before finds nobody.
            pair.server_mut(Role::Primary).restart()?;
            pair.wait_normal()
        })?;
        Ok(())
    })
}

/// A primary that cannot reach its clients says so, and the secondary serves at once (RFC 7031
/// section 4.7); when the carrier is back, so is the primary.
#[test]
fn clients_link_of_the_primary() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    with_pair("carrier", &Options::default(), |pair| {
        let mut load = load(12.0)?;
        load.at = vec![
            (2.0, pair.carrier_command(Role::Primary, false)),
            (6.0, pair.carrier_command(Role::Primary, true)),
        ];
        let summary = under_load(pair, load, |pair| {
            wait_alone(pair, Role::Secondary)?;
            wait_grants(pair, Role::Secondary, SOME)?;
            pair.wait_normal()
        })?;
        assert_takeover(&summary, 0).context("over to the secondary")?;
        assert_takeover(&summary, 1).context("and back")?;
        Ok(())
    })
}

/// A difference within the limit of RFC 8156 section 6.4 is worked out: both servers have the
/// same times.
#[test]
fn clocks_three_seconds_apart() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    ensure!(faketime().is_some(), "libfaketime is missing: `cargo xtask setup` installs it");
    for skew in [3, -3] {
        with_pair("skew", &Options { skew, ..Options::default() }, |pair| {
            let summary = under_load(pair, load(4.0)?, |_| Ok(()))?;
            ensure!(summary["exchanges"].as_u64() > Some(0), "{summary}");
            Ok(())
        })
        .with_context(|| format!("{skew} s"))?;
    }
    Ok(())
}

/// A larger one is refused, loudly; the primary serves alone.
#[test]
fn clocks_a_minute_apart() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    ensure!(faketime().is_some(), "libfaketime is missing: `cargo xtask setup` installs it");
    with_pair_apart("skew-far", &Options { skew: 60, ..Options::default() }, |pair| {
        wait::until("a server to complain of the clocks", NOTICE, || {
            let log = pair.log().to_lowercase();
            Ok((log.contains("skew") || log.contains("clock")).then_some(()))
        })?;
        let apart = |found: &Relationship| found.state != "normal";
        for role in Role::ALL {
            pair.wait_relationship(role, "apart", Duration::from_secs(5), apart)?;
        }
        Ok(())
    })
}
