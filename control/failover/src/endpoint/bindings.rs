//! Bindings on their way through whole endpoints.

use ServerState as Is;
use gemel_lease::{ClientKey, IaKind, Lease, Terms, UpdateBatch};
use gemel_wire::IaId;

use super::*;
use crate::testing::{ADDRESSES, MCLT, PREFIXES, PRIMARY, Pair, SECONDARY};

#[test]
fn the_partner_hears_of_leases_and_gets_prefixes() {
    let mut pair = Pair::normal();
    // The secondary has asked for its part.
    assert!(pair.status(PRIMARY).flow.prefixes_given > 0);
    let (address, prefix) = (pair.grant(PRIMARY, ADDRESSES, 1), pair.grant(SECONDARY, PREFIXES, 2));
    pair.settle();
    for lease in [address, prefix] {
        assert!(pair.view(PRIMARY).contains_key(&lease.unwrap()));
    }
    pair.assert_agreement();
    let status = pair.status(PRIMARY);
    assert_eq!((status.flow.unacked, status.oldest_unanswered), (0, None));
}

#[test]
fn what_happened_apart_is_exchanged() {
    let mut pair = Pair::normal();
    pair.cut();
    pair.run(10);
    for client in 0..500 {
        pair.grant(PRIMARY, ADDRESSES, client).unwrap();
        pair.grant(SECONDARY, ADDRESSES, 1000 + client).unwrap();
    }
    pair.join();
    pair.run(5);
    pair.expect(Is::Normal, Is::Normal);
    assert_eq!(pair.view(PRIMARY).len(), 1000);
    pair.assert_agreement();
}

#[test]
fn a_server_that_has_lost_all_gets_all() {
    for who in [PRIMARY, SECONDARY] {
        let mut pair = Pair::normal();
        for client in 0..500 {
            pair.grant(PRIMARY, ADDRESSES, client).unwrap();
            pair.grant(SECONDARY, ADDRESSES, 1000 + client).unwrap();
        }
        pair.run(5);
        pair.wipe(who);
        pair.run(20);
        pair.grant(1 - who, ADDRESSES, 5000).unwrap();
        pair.start(who);
        pair.run(10);
        assert_eq!(pair.state(who), Is::RecoverWait);
        assert_eq!(pair.view(who).len(), 1001);
        assert!(!pair.status(who).memory_lost);
        pair.run(u64::from(MCLT) + 10);
        pair.expect(Is::Normal, Is::Normal);
        pair.assert_agreement();
    }
}

/// Neither is a wiped server that was told to serve; it fetches everything when its partner is back.
#[test]
fn a_server_that_has_lost_all_and_serves_alone_is_not_forgotten() {
    let mut pair = Pair::normal();
    for client in 0..100 {
        pair.grant(PRIMARY, ADDRESSES, client).unwrap();
    }
    pair.run(5);
    pair.wipe(SECONDARY);
    pair.kill(PRIMARY);
    pair.start(SECONDARY);
    pair.run(10);
    assert_eq!(pair.state(SECONDARY), Is::Recover);
    pair.command(SECONDARY, Command::PartnerDown).unwrap();
    pair.run(10);
    pair.grant(SECONDARY, ADDRESSES, 1000).unwrap();
    pair.start(PRIMARY);
    pair.run(u64::from(MCLT) + 20);
    pair.expect(Is::Normal, Is::Normal);
    assert_eq!(pair.view(SECONDARY).len(), 101);
    pair.assert_agreement();
}

#[test]
fn leases_of_partner_down_reach_the_one_that_returns() {
    let mut pair = Pair::normal();
    pair.kill(PRIMARY);
    pair.run(10);
    pair.command(SECONDARY, Command::PartnerDown).unwrap();
    pair.run(10);
    for client in 0..100 {
        pair.grant(SECONDARY, ADDRESSES, client).unwrap();
    }
    pair.start(PRIMARY);
    pair.run(5);
    pair.expect(Is::RecoverWait, Is::PartnerDown);
    assert_eq!(pair.view(PRIMARY).len(), 100);
    // And what comes while it waits, when it is there again.
    pair.grant(SECONDARY, ADDRESSES, 777).unwrap();
    pair.run(u64::from(MCLT));
    pair.expect(Is::Normal, Is::Normal);
    assert_eq!(pair.view(PRIMARY).len(), 101);
    pair.assert_agreement();
}

#[test]
fn a_conflict_is_sorted_out() {
    let mut pair = Pair::normal();
    for client in 0..50 {
        pair.grant(PRIMARY, ADDRESSES, client).unwrap();
    }
    pair.run(5);
    pair.cut();
    pair.run(10);
    pair.command(PRIMARY, Command::PartnerDown).unwrap();
    pair.command(SECONDARY, Command::PartnerDown).unwrap();
    pair.run(2 * u64::from(MCLT));
    // Both use up all prefixes, also those of the other.
    let mut twice = 0;
    for client in 0..256 {
        let first = pair.grant(PRIMARY, PREFIXES, client);
        pair.run(1);
        let second = pair.grant(SECONDARY, PREFIXES, 1000 + client);
        twice += usize::from(first.is_some() && second.is_some());
    }
    assert!(twice > 200, "{twice}");
    pair.join();
    pair.run(10);
    pair.expect(Is::Normal, Is::Normal);
    assert!(pair.status(PRIMARY).flow.conflicts > 0);
    pair.run(200);
    pair.assert_agreement();
}

/// Section 8.8.2: a partner that is there and does not answer.
#[test]
fn a_partner_that_does_not_answer_is_left() {
    let mut pair = Pair::normal();
    pair.clear_logs();
    pair.servers[SECONDARY].disk_is_slow = true;
    pair.grant(PRIMARY, ADDRESSES, 1).unwrap();
    pair.run(25);
    assert!(pair.status(PRIMARY).oldest_unanswered.unwrap() >= Duration::from_secs(25));
    pair.expect(Is::Normal, Is::Normal);
    pair.run(10);
    assert!(pair.said(PRIMARY, "a BNDUPD is not answered"));
    pair.servers[SECONDARY].disk_is_slow = false;
    pair.run(10);
    pair.expect(Is::Normal, Is::Normal);
    pair.assert_agreement();
}

#[test]
fn updates_that_are_not_stored_are_not_acknowledged() {
    let mut pair = Pair::normal();
    pair.servers[SECONDARY].store_fails = true;
    pair.grant(PRIMARY, ADDRESSES, 1).unwrap();
    pair.settle();
    assert!(pair.said(SECONDARY, "binding updates could not be stored"));
    assert_eq!(pair.state(SECONDARY), Is::CommunicationsInterrupted);
    assert_eq!(pair.servers[PRIMARY].table.pending_updates(|_| true), 1);
    pair.servers[SECONDARY].store_fails = false;
    pair.run(10);
    pair.expect(Is::Normal, Is::Normal);
    pair.assert_agreement();
}

#[test]
fn resync_brings_everything_once_more() {
    let mut pair = Pair::normal();
    for client in 0..100 {
        pair.grant(PRIMARY, ADDRESSES, client).unwrap();
    }
    pair.run(5);
    let received = pair.status(SECONDARY).flow.received;
    pair.command(SECONDARY, Command::Resync).unwrap();
    pair.run(1);
    assert!(pair.status(SECONDARY).flow.received >= received + 100);
    assert!(!pair.status(SECONDARY).updates_requested);
    pair.expect(Is::Normal, Is::Normal);
    pair.assert_agreement();
}

/// A client that asks for this prefix.
fn ask_for(pair: &Pair, who: usize, client: u32, lease: Lease) -> Option<Lease> {
    let server = &pair.servers[who];
    let mclt = server.policy.load().mclt;
    let terms = Terms { mclt, ..Terms::unlimited(5_000, 10_000) };
    let duid = client.to_be_bytes();
    let key = ClientKey { duid: &duid, kind: IaKind::Pd, iaid: IaId(1) };
    let (now, mut batch) = (pair.now(who).wall, UpdateBatch::default());
    let mut guard = server.table.lock(key);
    guard.grant(PREFIXES, Some(lease), &terms, now, &mut batch).map(|binding| binding.lease)
}

/// Lets clients have all prefixes that are a server's own.
fn use_up(pair: &mut Pair, who: usize) {
    let mut client = 1_000_000;
    while pair.grant(who, PREFIXES, client).is_some() {
        client += 1;
    }
}

#[test]
fn granted_in_partner_down_beside_a_recovering_partner() {
    let mut pair = Pair::normal();
    pair.kill(PRIMARY);
    pair.run(10);
    pair.command(SECONDARY, Command::PartnerDown).unwrap();
    pair.run(20);
    pair.wipe(PRIMARY);
    pair.start(PRIMARY);
    pair.run(10);
    pair.expect(Is::RecoverWait, Is::PartnerDown);
    let lease = pair.grant(SECONDARY, PREFIXES, 9).unwrap();
    pair.run(1);
    assert!(pair.view(PRIMARY).contains_key(&lease), "the partner hears of it soon");
    // A second failure: now the other one serves alone.
    pair.run(300);
    pair.expect(Is::RecoverWait, Is::PartnerDown);
    pair.kill(SECONDARY);
    pair.run(u64::from(MCLT));
    pair.command(PRIMARY, Command::PartnerDown).unwrap();
    use_up(&mut pair, PRIMARY);
    pair.run(u64::from(MCLT) + 20);
    assert_ne!(ask_for(&pair, PRIMARY, 5, lease), Some(lease), "two have it");
}

/// A new connection does not stand in the way, nor does a request that was answered before it.
#[test]
fn granted_in_partner_down_after_a_new_connection() {
    let mut pair = Pair::normal();
    pair.kill(PRIMARY);
    pair.run(10);
    pair.command(SECONDARY, Command::PartnerDown).unwrap();
    pair.run(20);
    pair.wipe(PRIMARY);
    pair.start(PRIMARY);
    pair.run(10);
    pair.cut();
    pair.run(10);
    let first = pair.grant(SECONDARY, PREFIXES, 9).unwrap();
    pair.join();
    pair.run(20);
    pair.expect(Is::RecoverWait, Is::PartnerDown);
    let second = pair.grant(SECONDARY, PREFIXES, 10).unwrap();
    pair.run(1);
    let known = pair.view(PRIMARY);
    assert!(known.contains_key(&first) && known.contains_key(&second));
    pair.run(u64::from(MCLT));
    pair.expect(Is::Normal, Is::Normal);
    pair.assert_agreement();
}

/// The partner gave its leases by the MCLT of before.
#[test]
fn a_lowered_mclt_does_not_shorten_the_wait() {
    let mut pair = Pair::normal();
    pair.cut();
    pair.run(10);
    let lease = pair.grant(SECONDARY, PREFIXES, 9).unwrap();
    let end = pair.servers[SECONDARY].table.binding(lease).unwrap().state_expiration_time;
    pair.kill(SECONDARY);
    pair.kill(PRIMARY);
    pair.servers[PRIMARY].config.mclt = 60;
    pair.start(PRIMARY);
    pair.run(10);
    // Nor do further restarts.
    pair.kill(PRIMARY);
    pair.start(PRIMARY);
    pair.run(10);
    pair.command(PRIMARY, Command::PartnerDown).unwrap();
    pair.run(1);
    use_up(&mut pair, PRIMARY);
    pair.run(80);
    assert!(pair.now(PRIMARY).wall < end);
    assert_ne!(ask_for(&pair, PRIMARY, 5, lease), Some(lease), "two have it");
    pair.run(u64::from(MCLT));
    use_up(&mut pair, PRIMARY);
    assert!(pair.status(PRIMARY).flow.prefixes_taken_over > 0);
}

/// Section 8.4.2 would have PARTNER-DOWN end at once.
#[test]
fn partner_down_ends_when_the_partner_knows_what_was_taken_over() {
    let mut pair = Pair::normal();
    pair.kill(PRIMARY);
    pair.run(10);
    pair.command(SECONDARY, Command::PartnerDown).unwrap();
    pair.run(u64::from(MCLT) + 20);
    pair.wipe(PRIMARY);
    pair.start(PRIMARY);
    pair.run(10);
    pair.expect(Is::RecoverWait, Is::PartnerDown);
    assert_eq!(pair.servers[SECONDARY].policy.load().mclt, None);
    use_up(&mut pair, SECONDARY);
    pair.run(5);
    assert!(pair.status(SECONDARY).flow.prefixes_taken_over > 0);
    pair.clear_logs();
    pair.servers[PRIMARY].store_fails = true;
    pair.run(u64::from(MCLT) + 20);
    pair.expect(Is::RecoverDone, Is::PartnerDown);
    assert_eq!(pair.path(SECONDARY), []);
    pair.servers[PRIMARY].store_fails = false;
    pair.servers[PRIMARY].store_is_slow = true;
    pair.run(3);
    pair.expect(Is::RecoverDone, Is::PartnerDown);
    // What is given now need not be known before the partner serves.
    assert_eq!(pair.servers[SECONDARY].policy.load().mclt, Some(MCLT));
    pair.servers[PRIMARY].store_is_slow = false;
    pair.run(20);
    pair.expect(Is::Normal, Is::Normal);
    pair.assert_agreement();
}

/// The partner has waited for all that this server may have told the client, and this server, which
/// has lost its disk, only guesses when that is over, and a little later.
#[test]
fn what_partner_down_frees_is_free_at_a_recovering_server() {
    let mut pair = Pair::normal();
    let lease = pair.grant(PRIMARY, PREFIXES, 9).unwrap();
    pair.run(10);
    let told = pair.servers[SECONDARY].table.binding(lease).unwrap().expiration_time;
    pair.wipe(SECONDARY);
    pair.run(10);
    pair.command(PRIMARY, Command::PartnerDown).unwrap();
    pair.run(u64::from(MCLT));
    pair.sweep(PRIMARY);
    // The walk over the table takes 10 s, and the partner is to be done before this server.
    let wait = told.remaining(pair.now(PRIMARY).wall);
    pair.run(u64::from(wait) + 14);
    // The guess begins when the two meet, a little after the wait.
    pair.cut();
    pair.start(SECONDARY);
    pair.run(15);
    pair.join();
    pair.run(10);
    pair.expect(Is::PartnerDown, Is::RecoverWait);
    let guess = pair.servers[SECONDARY].table.binding(lease).unwrap();
    assert_eq!(guess.status, gemel_lease::BindingStatus::Active);
    pair.run_until(u64::from(MCLT), |pair| pair.state(SECONDARY) == Is::Normal);
    assert_eq!(pair.servers[PRIMARY].table.binding(lease), None);
    assert!(guess.is_active(pair.now(SECONDARY).wall), "the guess was longer");
    assert_eq!(pair.servers[SECONDARY].table.binding(lease), None);
    pair.assert_agreement();
}
