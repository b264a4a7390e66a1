//! UPDREQ and UPDREQALL.

use gemel_lease::BindingStatus;

use super::*;

const ID: TransactionId = TransactionId([7, 7, 7]);
const OTHER: TransactionId = TransactionId([8, 8, 8]);

/// A primary that knows `count` leases, of which it has told nobody.
fn alone(count: u32) -> Pair {
    let mut pair = Pair::unconnected();
    for client in 0..count {
        pair.primary().grant(ADDRESSES, client).unwrap();
    }
    pair.nodes[0].workers.clear();
    pair
}

fn connect(pair: &mut Pair, max_unacked: u32) {
    pair.disconnect();
    for node in &mut pair.nodes {
        node.flow.connect(max_unacked);
        node.phase = Phase::Answering;
    }
}

#[test]
fn all_of_a_hundred_thousand() {
    let mut pair = alone(100_000);
    connect(&mut pair, 1024);
    pair.primary().flow.answer_request(true, ID);
    pair.run();
    assert_eq!(pair.secondary().table.len(), 100_000);
    assert_eq!(pair.secondary().done, [(MessageType::UPDDONE, ID)]);
    pair.assert_agree();
    // Once more, though nothing is pending.
    let table = std::mem::replace(&mut pair.nodes[1], Node::new(crate::Role::Secondary)).table;
    assert_eq!(table.len(), 100_000);
    connect(&mut pair, 1024);
    pair.primary().flow.answer_request(true, ID);
    pair.run();
    assert_eq!(pair.secondary().table.len(), 100_000);
    assert_eq!(pair.primary().counters().requests_done, 2);
    pair.assert_agree();
}

#[test]
fn what_is_pending() {
    let mut pair = alone(500);
    connect(&mut pair, 16);
    pair.primary().flow.answer_request(false, ID);
    pair.run();
    assert_eq!(pair.primary().counters().sent, 500);
    pair.assert_agree();
    // Nothing is pending any more.
    pair.primary().flow.answer_request(false, OTHER);
    pair.run();
    assert_eq!(pair.primary().counters().sent, 500);
    let done = [(MessageType::UPDDONE, ID), (MessageType::UPDDONE, OTHER)];
    assert_eq!(pair.secondary().done, done);
}

/// A server that dies now would not know of the release, and give the client all of the time that
/// the partner has acknowledged.
#[test]
fn what_is_not_stored_is_told_last_and_not_before_it_is() {
    for all in [false, true] {
        let mut pair = alone(50);
        connect(&mut pair, 1024);
        let lease = pair.primary().grant(ADDRESSES, 50).unwrap();
        let granted = std::mem::take(&mut pair.primary().workers);
        assert!(pair.primary().release(lease));
        pair.primary().flow.answer_request(all, ID);
        pair.primary().poll();
        pair.deliver(0, usize::MAX);
        // The grant is stored, the release not yet.
        pair.primary().call(|flow, env, _| flow.committed(granted.as_bytes(), env));
        pair.send(1);
        pair.deliver(1, usize::MAX);
        pair.primary().poll();
        let counters = pair.primary().counters();
        assert_eq!((counters.acked, counters.sent), (50, 50), "all: {all}");
        assert_eq!((counters.unacked, counters.requests_done), (0, 0));
        assert!(pair.primary().flow.next_timeout().is_some(), "it looks again by itself");
        pair.primary().commit();
        pair.run();
        assert_eq!(pair.primary().counters().sent, 51);
        assert_eq!(pair.secondary().done, [(MessageType::UPDDONE, ID)]);
        pair.assert_agree();
    }
}

#[test]
fn the_end_comes_after_the_last_answer() {
    let mut pair = alone(100);
    connect(&mut pair, 1024);
    pair.primary().flow.answer_request(true, ID);
    pair.primary().flow.answer_request(false, OTHER);
    pair.send(0);
    let progress = pair.primary().counters().resync.unwrap();
    assert_eq!((progress.all, progress.stripes_done, progress.stripes_total), (true, 16, 16));
    assert_eq!((progress.sent, progress.unacked), (100, 100));
    pair.deliver(0, usize::MAX);
    pair.send(1);
    // All answers but the last.
    let answers = frames(&pair.nodes[1].sent).count();
    pair.deliver(1, answers - 1);
    pair.send(0);
    let done = frames(&pair.nodes[0].sent).filter(|frame| frame[0] == MessageType::UPDDONE.0);
    assert!(done.count() < 2);
    pair.run();
    assert_eq!(pair.secondary().done.len(), 2);
    assert_eq!(pair.primary().counters().resync, None);
    pair.assert_agree();
}

#[test]
fn a_request_ends_with_its_connection() {
    let mut pair = alone(100);
    connect(&mut pair, 4);
    pair.primary().flow.answer_request(true, ID);
    pair.send(0);
    pair.deliver(0, 2);
    connect(&mut pair, 4);
    pair.run();
    assert_eq!(pair.secondary().done, []);
    assert_eq!(pair.secondary().table.len(), 2);
    pair.primary().flow.answer_request(false, OTHER);
    pair.run();
    assert_eq!(pair.secondary().done, [(MessageType::UPDDONE, OTHER)]);
    pair.assert_agree();
}

#[test]
fn a_rejected_lease_does_not_hold_up_the_end() {
    let mut pair = alone(10);
    let config = Config::new("pair", crate::Role::Secondary, MCLT);
    pair.nodes[1].flow = Flow::new(&config, vec![PREFIXES]);
    connect(&mut pair, 4);
    pair.primary().flow.answer_request(true, ID);
    pair.run();
    assert_eq!(pair.secondary().done, [(MessageType::UPDDONE, ID)]);
    assert_eq!(pair.primary().counters().rejected_by_partner.configuration_conflict, 10);
}

#[test]
fn changes_do_not_wait_for_a_resynchronisation() {
    let mut pair = alone(20_000);
    pair.connect(64);
    pair.primary().flow.answer_request(true, ID);
    let mut rounds = 0;
    let mut slowest = 0;
    while pair.secondary().done.is_empty() {
        let client = 100_000 + rounds;
        let lease = pair.primary().grant(ADDRESSES, client).unwrap();
        let mut wait = 0;
        while pair.secondary().binding(lease).is_none() {
            for from in 0..2 {
                pair.send(from);
                pair.deliver(from, usize::MAX);
            }
            wait += 1;
        }
        slowest = slowest.max(wait);
        rounds += 1;
    }
    assert!(rounds > 100, "the resynchronisation took {rounds} rounds only");
    assert!(slowest <= 3, "a change waited for {slowest} windows");
    pair.run();
    pair.assert_agree();
}

#[test]
fn a_resynchronisation_does_not_starve() {
    let mut pair = alone(1_000);
    pair.connect(8);
    pair.run();
    pair.primary().flow.answer_request(true, ID);
    // More changes than the window takes.
    let leases: Vec<_> = pair.primary().view().into_keys().collect();
    for round in 0..2_000 {
        pair.advance(1);
        for lease in leases.iter().skip(round % 10).step_by(10) {
            pair.primary().renew(*lease);
        }
        for from in 0..2 {
            pair.send(from);
            pair.deliver(from, usize::MAX);
        }
        if !pair.secondary().done.is_empty() {
            return;
        }
    }
    panic!("no UPDDONE while leases change");
}

#[test]
fn an_old_state_is_not_sent_after_a_new_one() {
    let mut pair = Pair::new();
    let leases: Vec<_> =
        (0..200).map(|client| pair.primary().grant(ADDRESSES, client).unwrap()).collect();
    pair.run();
    let mut walk = Walk::new(Purpose::Request { all: true, id: ID }, 1);
    let mut next = |pair: &Pair| walk.next(&pair.nodes[0].table, u64::MAX, |_| true, &mut 10_000);
    // The first stripe has been copied; some of it has changed, and the partner knows.
    let first = next(&pair).unwrap().binding.lease;
    for lease in leases.iter().step_by(2) {
        assert!(pair.primary().release(*lease));
    }
    pair.run();
    let mut seen = vec![first];
    while let Some(record) = next(&pair) {
        let lease = record.binding.lease;
        if record.binding.status == BindingStatus::Active {
            assert_eq!(pair.nodes[0].status(lease), Some(BindingStatus::Active), "{lease}");
            seen.push(lease);
        }
    }
    assert!(leases.iter().skip(1).step_by(2).all(|lease| seen.contains(lease)));
}

#[test]
fn settled_when_all_that_was_pending_is_answered() {
    let mut pair = alone(50);
    pair.connect(10);
    assert!(!pair.primary().flow.settled());
    pair.send(0);
    pair.deliver(0, 5);
    pair.send(1);
    pair.deliver(1, usize::MAX);
    pair.send(0);
    assert!(!pair.primary().flow.settled());
    pair.run();
    assert!(pair.primary().flow.settled() && pair.secondary().flow.settled());
    pair.assert_agree();
}
