//! A failover pair whose servers are killed, stopped, drained and robbed of their disks under load:
//! no lease is given twice, no client is moved, and in the end both servers know the same.

mod common;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::pair::{
    NOTICE, assert_takeover, load, under_load, wait_alone, wait_gone, wait_grants, with_pair,
};
use gemel_tests::clients::{Client, Dhclient, Wanted};
use gemel_tests::pair::{Options, Pair, RELATIONSHIP, Role};
use gemel_tests::{require, wait};

/// Leases that the survivor gives before the other one comes back.
const SOME: usize = 100;

/// A maximum client lead time that a test can wait for, in seconds.
const SHORT_MCLT: u32 = 5;

#[test]
fn sigkill_of_the_primary() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    with_pair("kill-a", &Options::default(), |pair| {
        let mut load = load(8.0)?;
        load.at = vec![(2.0, pair.server(Role::Primary).kill_command())];
        let summary = under_load(pair, load, |pair| killed_and_started(pair, Role::Primary))?;
        assert_takeover(&summary, 0)?;
        let report = &summary["failover"];
        // What the secondary gives to a client that is new to it ends within the MCLT.
        ensure!(report["grants_at_most_mclt"].as_u64() > Some(0), "{report}");
        Ok(())
    })
}

#[test]
fn sigkill_of_the_secondary() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    with_pair("kill-b", &Options::default(), |pair| {
        let mut load = load(8.0)?;
        load.at = vec![(2.0, pair.server(Role::Secondary).kill_command())];
        let summary = under_load(pair, load, |pair| killed_and_started(pair, Role::Secondary))?;
        let event = &summary["failover"]["events"][0];
        ensure!(event["takeover_ms"].is_null(), "the primary served before and after: {event}");
        Ok(())
    })
}

/// A server is killed by the load; the other one serves alone for a while; then it comes back.
fn killed_and_started(pair: &mut Pair, role: Role) -> Result<()> {
    wait_gone(pair, role)?;
    let survivor = role.partner();
    let found = wait_alone(pair, survivor)?;
    ensure!(found.state == "communications-interrupted", "{found:?}");
    wait_grants(pair, survivor, SOME)?;
    pair.server_mut(role).restart()?;
    pair.wait_normal()
}

/// Killed again before both know the same.
#[test]
fn sigkill_of_both_in_turn() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    with_pair("kill-ab", &Options::default(), |pair| {
        let load = load(16.0)?;
        under_load(pair, load, |pair| {
            for role in [Role::Primary, Role::Secondary, Role::Primary] {
                wait_grants(pair, role, SOME / 2)?;
                pair.server_mut(role).kill()?;
                wait_alone(pair, role.partner())?;
                wait_grants(pair, role.partner(), SOME / 2)?;
                pair.server_mut(role).restart()?;
                pair.wait_normal()?;
            }
            Ok(())
        })?;
        Ok(())
    })
}

/// Each server is stopped in good order, as for an upgrade, and started again.
#[test]
fn rolling_restart() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    with_pair("rolling", &Options::default(), |pair| {
        let load = load(12.0)?;
        let summary = under_load(pair, load, |pair| {
            for role in Role::ALL {
                wait_grants(pair, Role::Primary, SOME)?;
                pair.server_mut(role).stop()?;
                wait_alone(pair, role.partner())?;
                wait_grants(pair, role.partner(), SOME)?;
                pair.server_mut(role).restart()?;
                pair.wait_normal()?;
            }
            Ok(())
        })?;
        let servers = summary["servers"].as_array().context("no servers in the summary")?;
        ensure!(servers.len() == 2, "both served, each with its own DUID: {servers:?}");
        Ok(())
    })
}

#[test]
fn the_primary_loses_its_disk() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    loses_disk(Role::Primary)
}

#[test]
fn the_secondary_loses_its_disk() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    loses_disk(Role::Secondary)
}

/// A server that has lost everything asks its partner for all of it (RFC 8156 section 8.5), waits
/// until no client can hold what it has forgotten, and serves again.
fn loses_disk(role: Role) -> Result<()> {
    let options = Options { mclt: SHORT_MCLT, ..Options::default() };
    with_pair("disk", &options, |pair| {
        let mut load = load(20.0)?;
        load.mclt = SHORT_MCLT;
        under_load(pair, load, |pair| {
            wait_grants(pair, Role::Primary, 2 * SOME)?;
            let server = pair.server_mut(role);
            server.kill()?;
            server.lose_disk()?;
            wait_alone(pair, role.partner())?;
            pair.server_mut(role).launch_again()?;
            let recovering =
                |found: &gemel_tests::pair::Relationship| found.state.starts_with("recover");
            pair.wait_relationship(role, "recovering", NOTICE, recovering)?;
            pair.wait_normal()
        })?;
        Ok(())
    })
}

/// The operator says that the partner is down; when it comes back it asks for what has happened.
#[test]
fn partner_down() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    let options = Options { mclt: SHORT_MCLT, ..Options::default() };
    with_pair("down", &options, |pair| {
        let mut load = load(20.0)?;
        load.mclt = SHORT_MCLT;
        load.at = vec![(2.0, pair.server(Role::Primary).kill_command())];
        let summary = under_load(pair, load, |pair| {
            wait_gone(pair, Role::Primary)?;
            wait_alone(pair, Role::Secondary)?;
            let words = ["failover", "partner-down", RELATIONSHIP, "--confirm"];
            pair.server(Role::Secondary).control(&words)?;
            pair.wait_state(Role::Secondary, "partner-down", NOTICE)?;
            wait_grants(pair, Role::Secondary, SOME)?;
            pair.server_mut(Role::Primary).restart()?;
            pair.wait_normal()
        })?;
        assert_takeover(&summary, 0)?;
        Ok(())
    })
}

/// A server that is drained hands its clients over and goes on holding the connection.
#[test]
fn drain() -> Result<()> {
    require!([], ["gemel", "gemel-bench"]);
    with_pair("drain", &Options::default(), |pair| {
        let mut load = load(9.0)?;
        let binary = gemel_tests::requirement::binary("gemel")?;
        let socket = pair.lab.dir().join("primary/control.sock");
        let ctl = format!("{} ctl --socket {}", binary.display(), socket.display());
        load.at = vec![(2.0, format!("{ctl} drain")), (6.0, format!("{ctl} drain --undo"))];
        let summary = under_load(pair, load, |_| Ok(()))?;
        assert_takeover(&summary, 0).context("over to the secondary")?;
        assert_takeover(&summary, 1).context("and back")?;
        Ok(())
    })
}

/// A real client whose server is killed turns to the other one at T2, keeps what it has, and its
/// first server knows of that when it is back.
#[test]
fn dhclient_rebinds_with_the_partner() -> Result<()> {
    require!(["dhclient"], ["gemel"]);
    let options = Options { times: [40, 60, 2, 6], ..Options::default() };
    with_pair("dhclient", &options, |pair| {
        let mut client = Client::start(&pair.lab, &Dhclient, &pair.client, Wanted::Both, "client")?;
        let leases = client.wait_bound(Duration::from_secs(30))?;
        pair.wait_equal()?;
        let before = pair.server(Role::Secondary).bindings()?;
        pair.server_mut(Role::Primary).kill()?;
        wait::until(
            "the secondary to extend the client's leases",
            Duration::from_secs(40),
            || {
                let bindings = pair.server(Role::Secondary).bindings()?;
                let later =
                    |(now, then): (&gemel_tests::gemel::Binding, &gemel_tests::gemel::Binding)| {
                        now.lease == then.lease && now.expires > then.expires
                    };
                let extended =
                    bindings.len() == before.len() && bindings.iter().zip(&before).all(later);
                Ok(extended.then_some(()))
            },
        )?;
        ensure!(client.wait_bound(NOTICE)? == leases, "the client got other leases");
        pair.server_mut(Role::Primary).restart()?;
        pair.wait_equal()?;
        ensure!(pair.server(Role::Primary).leases()? == leases, "the primary has other leases");
        Ok(())
    })
}
