//! The balance of prefixes, and PARTNER-DOWN.

use gemel_lease::BindingStatus;

use gemel_wire::failover::{BndUpd, FailoverMessage};

use super::*;
use crate::{Role, broken::Rule};

#[test]
fn the_secondary_gets_its_share_and_gives_it_back() {
    let mut pair = Pair::unconnected();
    pair.connect(1024);
    pair.run();
    let balance =
        |pair: &Pair| pair.nodes.each_ref().map(|node| node.table.prefix_balance(PREFIXES));
    assert_eq!(balance(&pair), [(205, 51); 2]);
    assert_eq!(pair.primary().counters().prefixes_given, 51);
    assert_eq!(pair.secondary().table.pools().available(PREFIXES), 51);
    pair.assert_agree();
    // The primary's go to clients; the secondary has too many now.
    for client in 0..150 {
        pair.primary().grant(PREFIXES, client).unwrap();
    }
    pair.run();
    pair.advance(1);
    pair.run();
    let (primary, secondary) = balance(&pair)[0];
    assert_eq!((primary, secondary), (85, 21));
    assert_eq!(pair.primary().counters().prefixes_reclaimed, 30);
    pair.assert_agree();
    // The secondary's run out, and it asks.
    for client in 1_000..1_020 {
        pair.secondary().grant(PREFIXES, client).unwrap();
    }
    pair.run();
    pair.primary().flow.pool_request(TransactionId([1, 2, 3]));
    pair.run();
    let (_, secondary) = balance(&pair)[0];
    assert_eq!(secondary, 17);
    assert_eq!(pair.secondary().done, [(MessageType::POOLRESP, TransactionId([1, 2, 3]))]);
    pair.assert_agree();
    // And nothing moves any more.
    for _ in 0..10 {
        pair.advance(1);
        assert_eq!(pair.run(), 0);
    }
}

#[test]
fn a_prefix_that_the_secondary_has_given_out_is_not_taken_back() {
    let mut pair = Pair::new();
    for client in 0..200 {
        pair.primary().grant(PREFIXES, client).unwrap();
    }
    pair.run();
    pair.advance(1);
    // The primary asks for prefixes back while the secondary gives all of them out.
    pair.send(0);
    assert!(pair.primary().counters().prefixes_reclaimed > 0);
    let mut given = 0;
    while pair.secondary().grant(PREFIXES, 1_000 + given).is_some() {
        given += 1;
    }
    assert_eq!(given, 51);
    pair.run();
    for _ in 0..3 {
        pair.advance(60);
        pair.run();
    }
    pair.assert_agree();
    let active = pair.primary().table.counts().of(BindingStatus::Active);
    assert_eq!(active, 251);
}

#[test]
fn the_balance_waits_for_the_answers_to_the_last_move() {
    let mut pair = Pair::unconnected();
    pair.connect(1);
    pair.send(0);
    for _ in 0..10 {
        pair.advance(1);
        pair.send(0);
    }
    assert_eq!(pair.primary().counters().prefixes_given, 51);
    pair.run();
    pair.assert_agree();
}

fn partner_down(node: &mut Node) -> AbsoluteTime {
    let since = node.now.wall;
    node.phase = Phase::PartnerDown { since, mclt: MCLT, is_flowing: false };
    since
}

/// Lets the time pass in steps.
fn wait(node: &mut Node, secs: u32) {
    for _ in 0..secs {
        node.advance(1);
        // Several steps a second.
        for _ in 0..5 {
            node.commit();
            node.poll();
            node.now.monotonic += Duration::from_millis(100);
        }
    }
}

#[test]
fn partner_down_waits_before_it_gives_leases_away() {
    let mut pair = Pair::new();
    let lease = pair.primary().grant(ADDRESSES, 1).unwrap();
    pair.run();
    let binding = pair.primary().binding(lease).unwrap();
    let promised = binding.acked_partner_lifetime;
    assert!(promised > binding.state_expiration_time);
    pair.disconnect();
    let primary = pair.primary();
    partner_down(primary);
    assert!(primary.release(lease));
    wait(primary, promised.remaining(primary.now.wall) + MCLT - 10);
    assert_eq!(primary.status(lease), Some(BindingStatus::Released));
    wait(primary, 20);
    assert_eq!(primary.status(lease), Some(BindingStatus::Free));
    assert_eq!((primary.counters().freed_after_wait, primary.pending()), (1, 1));
    // The partner hears of it when it is back.
    pair.nodes[1].now = pair.nodes[0].now;
    pair.nodes[0].phase = Phase::Normal;
    pair.connect(10);
    pair.send(0);
    // There is no form for an address of nobody's: it is told with its last client.
    let octets = pair.primary().sent.clone();
    let of_lease = frames(&octets).map(|frame| FailoverMessage::parse(frame).unwrap());
    let told = of_lease.filter(|message| match BndUpd::parse(message) {
        Ok(BndUpd::Client(binding)) => {
            assert_eq!(binding.client.client_id, duid(1));
            let leases: Vec<_> = binding.leases().map(|it| it.unwrap().lease().unwrap()).collect();
            assert_eq!((leases.len(), leases[0].head.address), (1, lease.address));
            leases[0].state.binding_status.0 == BindingStatus::Free as u8
        }
        _ => false,
    });
    assert_eq!(told.count(), 1);
    pair.run();
    pair.nodes.iter_mut().for_each(Node::sweep);
    pair.run();
    assert_eq!(pair.secondary().status(lease), Some(BindingStatus::Free));
    pair.assert_agree();
}

#[test]
fn the_consent_of_a_partner_that_forgot_is_not_enough() {
    let mut pair = Pair::new();
    let lease = pair.primary().grant(ADDRESSES, 1).unwrap();
    pair.run();
    pair.disconnect();
    partner_down(pair.primary());
    assert!(pair.primary().release(lease));
    // The partner has lost its memory, and asks for everything.
    pair.nodes[1] = Node::new(Role::Secondary);
    pair.nodes[1].phase = Phase::Quiet;
    for node in &mut pair.nodes {
        node.flow.connect(10);
    }
    pair.primary().flow.answer_request(true, TransactionId([1, 1, 1]));
    pair.run();
    assert_eq!(pair.secondary().done, [(MessageType::UPDDONE, TransactionId([1, 1, 1]))]);
    assert!(pair.primary().counters().acked > 0);
    assert_eq!(pair.primary().status(lease), Some(BindingStatus::Released));
    // When both are back in NORMAL the ordinary rule counts.
    pair.nodes.iter_mut().for_each(|node| node.phase = Phase::Normal);
    pair.connect(10);
    pair.run();
    assert_eq!(pair.primary().status(lease), Some(BindingStatus::Free));
    pair.assert_agree();
}

/// A client of the secondary's may have a prefix that the primary has asked for; a secondary that has
/// forgotten the client has nothing against it.
#[test]
fn a_partner_that_forgot_gives_no_prefixes_back() {
    let mut pair = Pair::new();
    for client in 0..150 {
        pair.primary().grant(PREFIXES, client).unwrap();
    }
    pair.run();
    pair.advance(1);
    pair.send(0);
    assert_eq!(pair.primary().counters().prefixes_reclaimed, 30);
    pair.disconnect();
    partner_down(pair.primary());
    pair.nodes[1] = Node::new(Role::Secondary);
    pair.nodes[1].phase = Phase::Quiet;
    for node in &mut pair.nodes {
        node.flow.connect(10);
    }
    pair.primary().flow.answer_request(true, TransactionId([1, 1, 1]));
    pair.run();
    assert_eq!(pair.secondary().done, [(MessageType::UPDDONE, TransactionId([1, 1, 1]))]);
    assert_eq!(pair.primary().table.pools().available(PREFIXES), 256 - 150 - 51);
    for node in &pair.nodes {
        assert_eq!(node.table.prefix_balance(PREFIXES), (256 - 150 - 51, 51));
    }
}

#[test]
fn a_request_is_answered_when_the_balance_has_been_looked_at() {
    let mut pair = Pair::new();
    // A little is missing.
    for client in 0..4 {
        pair.secondary().grant(PREFIXES, client).unwrap();
    }
    pair.run();
    // A search is under way.
    pair.primary().flow.missed();
    pair.primary().flow.pool_request(TransactionId([1, 2, 3]));
    pair.run();
    assert_eq!(pair.secondary().done, [(MessageType::POOLRESP, TransactionId([1, 2, 3]))]);
    assert_eq!(pair.primary().table.prefix_balance(PREFIXES).1, 50);
    pair.assert_agree();
}

#[test]
fn partner_down_takes_prefixes_over_when_its_own_are_used_up() {
    for by in 0..2 {
        let mut pair = Pair::new();
        pair.disconnect();
        let node = &mut pair.nodes[by];
        partner_down(node);
        wait(node, MCLT + 1);
        assert_eq!(node.counters().prefixes_taken_over, 0, "its own are not used up");
        let own = node.table.pools().available(PREFIXES);
        for client in 0..own {
            node.grant(PREFIXES, client.try_into().unwrap()).unwrap();
        }
        assert!(node.grant(PREFIXES, 5_000).is_none());
        wait(node, 1);
        assert_eq!(node.counters().prefixes_taken_over, 256 - own);
        assert!(node.grant(PREFIXES, 5_000).is_some());
        // Back together.
        pair.nodes[1 - by].now = pair.nodes[by].now;
        pair.nodes[by].phase = Phase::Normal;
        pair.connect(10);
        for _ in 0..5 {
            pair.run();
            pair.advance(1);
        }
        pair.assert_agree();
    }
}

#[test]
fn nothing_is_taken_over_before_the_mclt() {
    let mut pair = Pair::new();
    pair.disconnect();
    let secondary = pair.secondary();
    partner_down(secondary);
    for client in 0..51 {
        secondary.grant(PREFIXES, client).unwrap();
    }
    wait(secondary, MCLT - 1);
    assert_eq!(secondary.counters().prefixes_taken_over, 0);
    wait(secondary, 2);
    assert_eq!(secondary.counters().prefixes_taken_over, 205);
}

#[test]
fn a_broken_server_does_not_wait() {
    let since = AbsoluteTime(T0);
    let down = Phase::PartnerDown { since, mclt: MCLT, is_flowing: false };
    for phase in [Phase::Quiet, down] {
        let broken = Some(Rule::ReallocationWait);
        let mut node = Node::with(Config { broken, ..Config::new("pair", Role::Primary, MCLT) });
        let lease = node.grant(ADDRESSES, 1).unwrap();
        node.phase = phase;
        assert!(node.release(lease));
        wait(&mut node, 10);
        assert_eq!(node.status(lease), Some(BindingStatus::Free));
    }
}
