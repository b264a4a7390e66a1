use ServerState as Is;
use gemel_lease::{
    PairRules,
    Responsiveness::{RenewResponsive, Responsive, Unresponsive},
};

use super::*;
use crate::testing::{MCLT, PREFIXES, PRIMARY, Pair, SECONDARY, secs};

#[test]
fn two_that_have_never_met_become_a_pair_at_once() {
    let mut pair = Pair::new();
    pair.run(3);
    pair.expect(Is::Normal, Is::Normal);
    for who in [PRIMARY, SECONDARY] {
        // Nothing to wait for in RECOVER-WAIT, since neither has ever run failover. Who is through
        // serves until the other one is.
        let path = pair.path(who);
        let served = [Is::Recover, Is::RecoverWait, Is::CommunicationsInterrupted, Is::Normal];
        let waited = [Is::Recover, Is::RecoverWait, Is::RecoverDone, Is::Normal];
        assert!(path == served || path == waited, "{path:?}");
        let status = pair.status(who);
        assert!(status.communications_ok && !status.memory_lost && !status.updates_requested);
        assert_eq!(pair.servers[who].disk.as_ref().unwrap().state, Is::Normal);
    }
    assert_eq!(pair.responsiveness(PRIMARY), Responsive);
    assert_eq!(pair.responsiveness(SECONDARY), RenewResponsive);
    // And stay one.
    pair.clear_logs();
    pair.run(3600);
    pair.expect(Is::Normal, Is::Normal);
    assert!(pair.servers[PRIMARY].log.is_empty() && pair.servers[SECONDARY].log.is_empty());
    let disk = pair.servers[SECONDARY].disk.clone().unwrap();
    assert!(disk.last_operation.remaining(pair.now(SECONDARY).wall) == 0);
    assert!(pair.now(SECONDARY).wall.0 - disk.last_operation.0 <= 5, "{disk:?}");
    assert!(pair.now(SECONDARY).wall.0 - disk.last_message.unwrap().0 <= 5, "{disk:?}");
}

#[test]
fn an_interruption_and_back() {
    let mut pair = Pair::normal();
    pair.cut();
    pair.run(10);
    pair.expect(Is::CommunicationsInterrupted, Is::CommunicationsInterrupted);
    assert!(pair.said(PRIMARY, "nothing was heard for 3 s"));
    assert!(pair.said(SECONDARY, "pair: COMMUNICATIONS-INTERRUPTED"));
    assert_eq!(pair.responsiveness(SECONDARY), Responsive);
    assert_eq!(pair.servers[SECONDARY].policy.load().mclt, Some(MCLT));
    pair.join();
    pair.run(3);
    pair.expect(Is::Normal, Is::Normal);
    assert_eq!(pair.responsiveness(SECONDARY), RenewResponsive);
}

/// The secondary does not notice that the connection is dead until a new one comes.
#[test]
fn a_new_connection_replaces_a_dead_one() {
    let mut pair = Pair::normal();
    pair.clear_logs();
    pair.kill(PRIMARY);
    pair.start(PRIMARY);
    pair.run(1);
    pair.expect(Is::Normal, Is::Normal);
    assert_eq!(pair.path(SECONDARY), [Is::CommunicationsInterrupted, Is::Normal]);
    assert_eq!(pair.path(PRIMARY), [Is::Normal]);
}

#[test]
fn a_restart_serves_alone_after_the_startup_time() {
    let mut pair = Pair::normal();
    pair.kill(PRIMARY);
    pair.run(10);
    pair.kill(SECONDARY);
    pair.start(SECONDARY);
    pair.run(4);
    assert_eq!(pair.state(SECONDARY), Is::Startup);
    assert_eq!(pair.status(SECONDARY).previous, Some(Is::CommunicationsInterrupted));
    assert_eq!(pair.status(SECONDARY).startup_remaining, Some(secs(1)));
    pair.run(2);
    assert_eq!(pair.state(SECONDARY), Is::CommunicationsInterrupted);
    assert_eq!(pair.responsiveness(SECONDARY), Responsive);
    pair.start(PRIMARY);
    pair.run(3);
    pair.expect(Is::Normal, Is::Normal);
}

#[test]
fn fresh_servers_alone_wait_or_serve_as_configured() {
    for who in [PRIMARY, SECONDARY] {
        for alone in [false, true] {
            let mut pair = Pair::new();
            pair.kill(1 - who);
            pair.servers[who].config.start_in_partner_down = alone;
            pair.kill(who);
            pair.start(who);
            pair.run(60);
            let state = if alone { Is::PartnerDown } else { Is::Recover };
            assert_eq!(pair.state(who), state);
            // The other one is new, too: no wait.
            pair.start(1 - who);
            pair.run(10);
            pair.expect(Is::Normal, Is::Normal);
            assert!(!pair.status(who).memory_lost && !pair.status(1 - who).memory_lost);
        }
    }
}

#[test]
fn lost_memory_is_fetched_and_the_mclt_waited_for() {
    for who in [PRIMARY, SECONDARY] {
        let mut pair = Pair::normal();
        pair.kill(who);
        pair.run(20);
        pair.servers[who].disk = None;
        pair.clear_logs();
        pair.start(who);
        pair.run(10);
        assert_eq!(pair.state(who), Is::RecoverWait);
        assert_eq!(pair.state(1 - who), Is::CommunicationsInterrupted);
        assert_eq!(pair.responsiveness(who), Unresponsive);
        assert_eq!(pair.responsiveness(1 - who), Responsive);
        // The time of the failure is not known: MCLT from the start.
        let remaining = pair.status(who).recover_wait_remaining.unwrap();
        assert!(remaining <= secs(u64::from(MCLT) - 9) && remaining > secs(u64::from(MCLT) - 11));
        pair.run(u64::from(MCLT));
        pair.expect(Is::Normal, Is::Normal);
        assert_eq!(pair.path(who), [Is::Recover, Is::RecoverWait, Is::RecoverDone, Is::Normal]);
    }
}

/// A server that breaks down while it recovers goes on where it was, without a conflict and
/// without a longer wait.
#[test]
fn recovery_survives_restarts_and_interruptions() {
    let mut pair = Pair::normal();
    pair.kill(SECONDARY);
    pair.run(10);
    pair.command(PRIMARY, Command::PartnerDown).unwrap();
    pair.run(10);
    pair.servers[SECONDARY].disk = None;
    let started = pair.now;
    pair.start(SECONDARY);
    for _ in 0..5 {
        pair.run(20);
        pair.expect(Is::PartnerDown, Is::RecoverWait);
        pair.kill(SECONDARY);
        pair.run(5);
        pair.start(SECONDARY);
        pair.run(20);
        pair.expect(Is::PartnerDown, Is::RecoverWait);
        pair.reset();
    }
    pair.run_until(u64::from(MCLT), |pair| pair.state(SECONDARY) == Is::Normal);
    assert!(pair.now - started <= secs(u64::from(MCLT) + 10), "{:?}", pair.now - started);
    pair.run(1);
    pair.expect(Is::Normal, Is::Normal);
}

#[test]
fn partner_down_and_the_return_through_recover() {
    for who in [PRIMARY, SECONDARY] {
        let mut pair = Pair::normal();
        let failed = pair.now;
        pair.kill(1 - who);
        pair.run(20);
        pair.command(who, Command::PartnerDown).unwrap();
        assert_eq!(pair.state(who), Is::PartnerDown);
        assert_eq!(
            pair.servers[who].policy.load(),
            PairRules { responsiveness: Responsive, mclt: None }
        );
        pair.run(100);
        pair.clear_logs();
        pair.start(1 - who);
        pair.run(2);
        assert_eq!(pair.state(1 - who), Is::RecoverWait);
        assert_eq!(pair.state(who), Is::PartnerDown);
        // The partner's operation is over MCLT after the failure.
        pair.run_until(u64::from(MCLT), |pair| pair.state(1 - who) == Is::Normal);
        let waited = pair.now - failed;
        assert!(waited >= secs(u64::from(MCLT)) && waited <= secs(u64::from(MCLT) + 10));
        pair.expect(Is::Normal, Is::Normal);
        assert_eq!(pair.servers[who].policy.load().mclt, Some(MCLT));
        assert_eq!(pair.path(who), [Is::Normal]);
    }
}

/// The partner has been told that this server is down, and its disk hangs: what it is about to say
/// is worth waiting for.
#[test]
fn startup_lasts_until_a_connected_partner_has_said_its_state() {
    let mut pair = Pair::normal();
    pair.kill(PRIMARY);
    pair.run(20);
    pair.servers[SECONDARY].disk_is_slow = true;
    pair.command(SECONDARY, Command::PartnerDown).unwrap();
    pair.clear_logs();
    pair.start(PRIMARY);
    pair.run(50);
    pair.expect(Is::Startup, Is::PartnerDown);
    assert_eq!(pair.responsiveness(PRIMARY), Unresponsive);
    pair.servers[SECONDARY].disk_is_slow = false;
    pair.run(1);
    assert_eq!(pair.path(PRIMARY), [Is::Recover, Is::RecoverWait]);
    assert_eq!(pair.path(SECONDARY), []);
}

/// Not for ever, and not when it is gone.
#[test]
fn startup_ends_where_a_partner_says_nothing() {
    for gone in [false, true] {
        let mut pair = Pair::normal();
        pair.kill(PRIMARY);
        pair.run(20);
        pair.servers[SECONDARY].disk_is_slow = true;
        pair.command(SECONDARY, Command::PartnerDown).unwrap();
        pair.start(PRIMARY);
        pair.run(if gone { 30 } else { 64 });
        pair.expect(Is::Startup, Is::PartnerDown);
        if gone {
            pair.kill(SECONDARY);
        }
        pair.run(2);
        assert_eq!(pair.path(PRIMARY).last(), Some(&Is::CommunicationsInterrupted), "{gone}");
        assert_eq!(pair.said(PRIMARY, "the partner does not say its state"), !gone);
    }
}

#[test]
fn two_in_partner_down_sort_it_out() {
    let mut pair = Pair::normal();
    pair.cut();
    pair.run(10);
    pair.command(PRIMARY, Command::PartnerDown).unwrap();
    pair.command(SECONDARY, Command::PartnerDown).unwrap();
    pair.run(100);
    pair.expect(Is::PartnerDown, Is::PartnerDown);
    pair.clear_logs();
    pair.join();
    pair.run(3);
    pair.expect(Is::Normal, Is::Normal);
    let path = [Is::PotentialConflict, Is::ConflictDone, Is::Normal];
    assert_eq!(pair.path(PRIMARY), path);
    assert_eq!(pair.path(SECONDARY), [Is::PotentialConflict, Is::Normal]);
    assert!(pair.said(PRIMARY, "pair: POTENTIAL-CONFLICT"));
}

#[test]
fn a_conflict_that_is_interrupted() {
    let mut pair = Pair::normal();
    pair.cut();
    pair.run(10);
    pair.command(PRIMARY, Command::PartnerDown).unwrap();
    pair.run(10);
    // A disk that does not write keeps the secondary from answering.
    pair.servers[SECONDARY].disk_is_slow = true;
    pair.join();
    pair.run(2);
    pair.expect(Is::PotentialConflict, Is::PotentialConflict);
    assert_eq!(pair.status(PRIMARY).partner.unwrap().0, Is::CommunicationsInterrupted);
    assert_eq!(pair.responsiveness(SECONDARY), Unresponsive);
    pair.cut();
    pair.run(10);
    pair.expect(Is::ResolutionInterrupted, Is::ResolutionInterrupted);
    assert_eq!(pair.responsiveness(PRIMARY), Responsive);
    // Not stored yet: not responsive yet.
    assert_eq!(pair.responsiveness(SECONDARY), Unresponsive);
    pair.servers[SECONDARY].disk_is_slow = false;
    pair.run(1);
    assert_eq!(pair.responsiveness(SECONDARY), Responsive);
    assert!(pair.said(SECONDARY, "pair: RESOLUTION-INTERRUPTED"));
    pair.join();
    pair.run(5);
    pair.expect(Is::Normal, Is::Normal);
}

#[test]
fn nothing_is_told_before_it_is_stored() {
    let mut pair = Pair::normal();
    pair.cut();
    pair.run(10);
    pair.servers[SECONDARY].disk_is_slow = true;
    pair.join();
    pair.run(2);
    // The secondary is in NORMAL, but its partner must not know; so far the stricter rules count.
    pair.expect(Is::Normal, Is::Normal);
    assert_eq!(pair.responsiveness(SECONDARY), RenewResponsive);
    let known = pair.status(PRIMARY).partner.unwrap().0;
    assert_eq!(known, Is::CommunicationsInterrupted);
    pair.servers[SECONDARY].disk_is_slow = false;
    pair.run(1);
    assert_eq!(pair.status(PRIMARY).partner.unwrap().0, Is::Normal);
}

#[test]
fn the_operator_may_be_wrong_about_a_partner() {
    let mut pair = Pair::normal();
    pair.command(SECONDARY, Command::PartnerDown).unwrap();
    assert_eq!(pair.state(SECONDARY), Is::PartnerDown);
    pair.run(5);
    pair.expect(Is::Normal, Is::Normal);
    assert!(pair.path(PRIMARY).contains(&Is::PotentialConflict));
}

#[test]
fn auto_partner_down() {
    let mut pair = Pair::normal();
    pair.servers[PRIMARY].config.auto_partner_down = Some(secs(100));
    pair.kill(PRIMARY);
    pair.start(PRIMARY);
    pair.run(20);
    pair.expect(Is::Normal, Is::Normal);
    pair.kill(SECONDARY);
    pair.run(50);
    assert_eq!(pair.state(PRIMARY), Is::CommunicationsInterrupted);
    assert!(pair.status(PRIMARY).auto_partner_down_remaining.unwrap() <= secs(51));
    pair.run(60);
    assert_eq!(pair.state(PRIMARY), Is::PartnerDown);
    assert!(pair.said(PRIMARY, "pair: PARTNER-DOWN"));
}

#[test]
fn suspended_and_resumed() {
    let mut pair = Pair::normal();
    pair.command(PRIMARY, Command::Suspend).unwrap();
    assert_eq!(pair.responsiveness(PRIMARY), Unresponsive);
    pair.expect(Is::Startup, Is::CommunicationsInterrupted);
    assert!(pair.said(SECONDARY, "ServerShuttingDown"));
    assert!(pair.status(PRIMARY).suspended);
    for command in [Command::Suspend, Command::PartnerDown, Command::Resync, Command::Disconnect] {
        assert!(pair.command(PRIMARY, command).is_err(), "{command:?}");
    }
    pair.run(100);
    pair.expect(Is::Startup, Is::CommunicationsInterrupted);
    assert!(!pair.servers[PRIMARY].endpoint.as_ref().unwrap().wants_connection());
    pair.command(PRIMARY, Command::Resume).unwrap();
    assert!(pair.command(PRIMARY, Command::Resume).is_err());
    pair.run(20);
    pair.expect(Is::Normal, Is::Normal);

    // The partner was told to be alone meanwhile: recover, and wait from the suspension on.
    pair.command(SECONDARY, Command::Suspend).unwrap();
    pair.run(10);
    pair.command(PRIMARY, Command::PartnerDown).unwrap();
    pair.run(300);
    pair.command(SECONDARY, Command::Resume).unwrap();
    pair.run(12);
    pair.expect(Is::PartnerDown, Is::RecoverWait);
    pair.run(u64::from(MCLT) - 320);
    pair.run(10);
    pair.expect(Is::Normal, Is::Normal);
}

#[test]
fn a_suspended_secondary_takes_no_connection() {
    let mut pair = Pair::normal();
    pair.command(SECONDARY, Command::Suspend).unwrap();
    pair.run(300);
    pair.expect(Is::CommunicationsInterrupted, Is::Startup);
    let refusals = |it: &&Output| matches!(it, Output::Close { refused: true, .. });
    assert!(pair.servers[SECONDARY].log.iter().filter(refusals).count() > 5);
    // The primary is to find it as soon as it serves again, and does not wait longer each time.
    assert!(pair.said(PRIMARY, "suspended"));
    assert_eq!(pair.servers[PRIMARY].log.iter().filter(refusals).count(), 0);
    // A restart forgets the suspension.
    pair.kill(SECONDARY);
    pair.start(SECONDARY);
    pair.run(20);
    pair.expect(Is::Normal, Is::Normal);
}

#[test]
fn clocks_apart() {
    for (ahead_secs, fine) in [(5, true), (-5, true), (6, false), (-6, false)] {
        let mut pair = Pair::normal();
        pair.clear_logs();
        pair.servers[SECONDARY].ahead_secs = ahead_secs;
        pair.run(3);
        let status = pair.status(PRIMARY);
        assert_eq!(i64::from(status.skew_secs.unwrap().abs()), ahead_secs.abs());
        if fine {
            pair.expect(Is::Normal, Is::Normal);
            continue;
        }
        pair.expect(Is::CommunicationsInterrupted, Is::CommunicationsInterrupted);
        assert!(
            pair.said(PRIMARY, "the clocks are 6 s apart") || pair.said(SECONDARY, "6 s apart")
        );
        // New connections are rejected for the same reason.
        pair.clear_logs();
        pair.run(60);
        pair.expect(Is::CommunicationsInterrupted, Is::CommunicationsInterrupted);
        assert!(pair.said(SECONDARY, "CONNECT was sent at"));
        assert!(pair.said(PRIMARY, "CONNECTREPLY was sent at"));
        for server in &pair.servers {
            assert!(server.log.iter().any(|it| matches!(it, Output::Alarm(_))));
        }
        pair.servers[SECONDARY].ahead_secs = 0;
        pair.run(20);
        pair.expect(Is::Normal, Is::Normal);
    }
}

#[test]
fn the_mclt_is_the_primarys() {
    let primary = Config::new("pair", Role::Primary, 900);
    let secondary = Config::new("pair", Role::Secondary, 100);
    let mut pair = Pair::with(primary, secondary);
    pair.run(10);
    pair.expect(Is::Normal, Is::Normal);
    assert_eq!(pair.servers[SECONDARY].policy.load().mclt, Some(900));
    assert_eq!(pair.servers[SECONDARY].disk.as_ref().unwrap().mclt, 900);
}

#[test]
fn another_relationship() {
    let secondary = Config::new("other", Role::Secondary, MCLT);
    let mut pair = Pair::with(Config::new("pair", Role::Primary, MCLT), secondary);
    pair.run(30);
    pair.expect(Is::Recover, Is::Recover);
    assert!(pair.said(SECONDARY, r#"relationship "pair" is none of ours, which is "other""#));
    assert!(pair.said(PRIMARY, "ConfigurationConflict"));
}

#[test]
fn commands_that_do_not_fit() {
    let mut pair = Pair::normal();
    assert!(pair.command(PRIMARY, Command::Resume).is_err());
    pair.command(PRIMARY, Command::Resync).unwrap();
    pair.run(1);
    assert!(!pair.status(PRIMARY).updates_requested);
    pair.clear_logs();
    pair.command(PRIMARY, Command::Disconnect).unwrap();
    pair.run(3);
    pair.expect(Is::Normal, Is::Normal);
    assert_eq!(pair.path(PRIMARY), [Is::CommunicationsInterrupted, Is::Normal]);
    pair.kill(PRIMARY);
    pair.run(1);
    assert!(pair.command(SECONDARY, Command::Disconnect).is_err());
    assert!(pair.command(SECONDARY, Command::Resync).is_err());
    pair.command(SECONDARY, Command::PartnerDown).unwrap();
    let error = pair.command(SECONDARY, Command::PartnerDown).unwrap_err();
    let text = "not possible in state PARTNER-DOWN: it is there already";
    assert_eq!(error.to_string(), text);
}

/// The driver has a thread of its own.
#[test]
fn an_endpoint_may_go_to_another_thread() {
    const fn is_send<T: Send>() {}
    is_send::<Endpoint>();
}

#[test]
fn a_former_mclt_is_kept_as_long_as_it_matters() {
    let former = |pair: &Pair, who: usize| {
        let disk = pair.servers[who].disk.as_ref().unwrap();
        disk.former_mclt.map(|former| former.mclt)
    };
    let mut pair = Pair::normal();
    pair.kill(PRIMARY);
    pair.servers[PRIMARY].config.mclt = 60;
    pair.start(PRIMARY);
    pair.run(20);
    pair.expect(Is::Normal, Is::Normal);
    for who in [PRIMARY, SECONDARY] {
        assert_eq!(pair.servers[who].disk.as_ref().unwrap().mclt, 60);
        assert_eq!(former(&pair, who), Some(MCLT));
        assert_eq!(pair.servers[who].policy.load().mclt, Some(60), "new leases go by the new one");
    }
    pair.run(u64::from(MCLT) - 100);
    // Nobody knows what happens while the two do not see each other.
    pair.cut();
    pair.run(200);
    assert_eq!([PRIMARY, SECONDARY].map(|who| former(&pair, who)), [Some(MCLT); 2]);
    pair.join();
    pair.run(u64::from(MCLT) - 50);
    assert_eq!([PRIMARY, SECONDARY].map(|who| former(&pair, who)), [Some(MCLT); 2]);
    pair.run(80);
    assert_eq!([PRIMARY, SECONDARY].map(|who| former(&pair, who)), [None; 2]);
    // A longer one needs no such thing.
    pair.kill(PRIMARY);
    pair.servers[PRIMARY].config.mclt = 900;
    pair.start(PRIMARY);
    pair.run(20);
    assert_eq!([PRIMARY, SECONDARY].map(|who| former(&pair, who)), [None; 2]);
}

/// What tells when this server failed must not be older than its service, however short that was.
#[test]
fn service_begins_with_a_mark_on_the_disk() {
    let mut pair = Pair::normal();
    pair.kill(PRIMARY);
    pair.kill(SECONDARY);
    pair.run(1000);
    pair.start(PRIMARY);
    pair.run(6);
    assert_eq!(pair.state(PRIMARY), Is::CommunicationsInterrupted);
    let disk = pair.servers[PRIMARY].disk.as_ref().unwrap();
    assert!(disk.last_operation.plus(2) >= pair.now(PRIMARY).wall, "{disk:?}");
}

#[test]
fn a_lowered_mclt_counts_after_a_suspension_too() {
    let mut pair = Pair::normal();
    pair.kill(PRIMARY);
    pair.servers[PRIMARY].config.mclt = 60;
    pair.start(PRIMARY);
    pair.run(20);
    pair.expect(Is::Normal, Is::Normal);
    pair.command(PRIMARY, Command::Suspend).unwrap();
    pair.run(10);
    pair.command(SECONDARY, Command::PartnerDown).unwrap();
    pair.run(10);
    pair.command(PRIMARY, Command::Resume).unwrap();
    pair.run(10);
    pair.expect(Is::RecoverWait, Is::PartnerDown);
    let remaining = pair.status(PRIMARY).recover_wait_remaining.unwrap();
    assert!(remaining.as_secs() > u64::from(MCLT) - 60, "{remaining:?}");
}

/// A partner that sends and does not read must not fill the memory.
#[test]
fn answers_that_nobody_reads_end_the_connection() {
    let mut pair = Pair::normal();
    pair.grant(SECONDARY, PREFIXES, 9).unwrap();
    let octets = pair
        .with_env(SECONDARY, |endpoint, env| {
            while endpoint.poll(env) {}
            std::mem::take(endpoint.outgoing())
        })
        .unwrap();
    let update = &octets[2..2 + usize::from(u16::from_be_bytes([octets[0], octets[1]]))];
    pair.with_env(PRIMARY, |endpoint, env| {
        for _ in 0..400_000 {
            endpoint.received(update, env);
        }
        assert!(endpoint.outgoing().len() < 20 << 20);
    });
    pair.settle();
    assert!(pair.said(PRIMARY, "goes on without reading"));
}
