//! The transitions of RFC 8156 figure 2, seen from both servers.

use gemel_lease::BindingStatus;

use super::*;

/// A lease that the primary has given, known to both.
fn leased(pool: PoolId) -> (Pair, gemel_lease::Lease) {
    let mut pair = Pair::new();
    let lease = pair.primary().grant(pool, 1).unwrap();
    pair.run();
    assert_eq!(statuses(&pair, lease), [BindingStatus::Active; 2]);
    (pair, lease)
}

fn statuses(pair: &Pair, lease: gemel_lease::Lease) -> [BindingStatus; 2] {
    pair.nodes.each_ref().map(|node| node.status(lease).unwrap())
}

#[test]
fn released_then_free() {
    for pool in [ADDRESSES, PREFIXES] {
        for by in 0..2 {
            let (mut pair, lease) = leased(pool);
            pair.advance(10);
            assert!(pair.nodes[by].release(lease));
            pair.nodes[by].commit();
            // Not free before the partner has agreed (section 4.2.2.1).
            assert_eq!(pair.nodes[by].status(lease), Some(BindingStatus::Released));
            pair.send(by);
            assert_eq!(pair.nodes[by].status(lease), Some(BindingStatus::Released));
            pair.deliver(by, 1);
            assert_eq!(pair.nodes[1 - by].status(lease), Some(BindingStatus::Free));
            pair.run();
            assert_eq!(statuses(&pair, lease), [BindingStatus::Free; 2]);
            pair.assert_agree();
            assert!(pair.nodes.iter().all(|node| node.table.is_empty()));
            // And the primary can give it to somebody else; an address by its parity.
            let again = pair.primary().grant(pool, 2);
            assert!(again.is_some());
        }
    }
}

#[test]
fn expired_then_free_although_both_sweep() {
    for pool in [ADDRESSES, PREFIXES] {
        let (mut pair, lease) = leased(pool);
        // The one that has given it ends it by itself, the other when the lifetime is over that it
        // has acknowledged.
        pair.advance(2_001);
        pair.nodes.iter_mut().for_each(Node::sweep);
        assert_eq!(statuses(&pair, lease), [BindingStatus::Expired, BindingStatus::Active]);
        let acknowledged = pair.secondary().binding(lease).unwrap().expiration_time;
        let left = acknowledged.remaining(pair.secondary().now.wall);
        pair.advance(left);
        pair.nodes.iter_mut().for_each(Node::sweep);
        assert_eq!(statuses(&pair, lease), [BindingStatus::Expired; 2]);
        for from in 0..2 {
            pair.send(from);
        }
        pair.run();
        assert_eq!(statuses(&pair, lease), [BindingStatus::Free; 2]);
        pair.assert_agree();
        // The secondary has found it over later; the primary's word is not taken after that.
        let counters = pair.primary().counters();
        assert_eq!((counters.rejected.total(), counters.rejected_by_partner.total()), (0, 1));
        // And that is the end of it.
        pair.advance(61);
        assert_eq!(pair.run(), 0);
    }
}

#[test]
fn a_server_whose_clock_is_ahead_ends_nothing_early() {
    let (mut pair, lease) = leased(ADDRESSES);
    pair.nodes[1].advance(3);
    pair.advance(598);
    let end = pair.primary().binding(lease).unwrap().state_expiration_time;
    assert_eq!(end.remaining(pair.primary().now.wall), 2);
    assert_eq!(end.remaining(pair.secondary().now.wall), 0);
    pair.nodes.iter_mut().for_each(Node::sweep);
    pair.run();
    // The other one ends it.
    assert_eq!(statuses(&pair, lease), [BindingStatus::Active; 2]);
    assert_eq!(pair.primary().counters().sent, 1);
    pair.advance(2);
    pair.nodes.iter_mut().for_each(Node::sweep);
    pair.run();
    assert_eq!(statuses(&pair, lease), [BindingStatus::Free; 2]);
    pair.assert_agree();
}

#[test]
fn abandoned_then_reset_then_free() {
    let (mut pair, lease) = leased(ADDRESSES);
    assert!(pair.primary().decline(lease, 300));
    pair.run();
    assert_eq!(statuses(&pair, lease), [BindingStatus::Abandoned; 2]);
    pair.assert_agree();
    pair.advance(301);
    pair.primary().sweep();
    assert_eq!(pair.primary().status(lease), Some(BindingStatus::Reset));
    pair.run();
    assert_eq!(statuses(&pair, lease), [BindingStatus::Free; 2]);
    pair.assert_agree();
}

#[test]
fn renewed_by_the_other_server() {
    let (mut pair, lease) = leased(ADDRESSES);
    pair.advance(300);
    assert!(pair.secondary().renew(lease));
    let renewed = pair.secondary().binding(lease).unwrap();
    assert_eq!(renewed.client_last_transaction_time.0, T0 + 300);
    pair.run();
    let got = pair.primary().binding(lease).unwrap();
    assert_eq!(got.state_expiration_time, renewed.state_expiration_time);
    assert_eq!(got.partner_raw_clt_time, renewed.client_last_transaction_time);
    assert_eq!(got.client_last_transaction_time.0, T0);
    pair.assert_agree();
}

#[test]
fn renewed_by_both_at_once() {
    let (mut pair, lease) = leased(ADDRESSES);
    for (by, secs) in [(1, 5), (0, 7)] {
        pair.advance(secs);
        assert!(pair.nodes[by].renew(lease));
    }
    pair.send(0);
    pair.send(1);
    pair.run();
    pair.assert_agree();
    let got = pair.secondary().binding(lease).unwrap();
    assert_eq!(got.partner_raw_clt_time.0, T0 + 12);
    assert_eq!(got.client_last_transaction_time.0, T0 + 5);
}

#[test]
fn released_and_renewed_at_once() {
    for first in 0..2 {
        let (mut pair, lease) = leased(ADDRESSES);
        pair.advance(5);
        assert!(pair.primary().release(lease));
        pair.advance(1);
        assert!(pair.secondary().renew(lease));
        pair.send(first);
        pair.send(1 - first);
        pair.run();
        pair.advance(60);
        pair.run();
        assert_eq!(statuses(&pair, lease), [BindingStatus::Active; 2]);
        pair.assert_agree();
    }
}

#[test]
fn two_clients_with_one_lease() {
    for first in 0..2 {
        let mut pair = Pair::unconnected();
        // Both took the prefix for their own.
        let lease = pair.primary().grant(PREFIXES, 1).unwrap();
        let theirs = gemel_lease::Binding {
            duid: gemel_lease::ClientDuid::new(&duid(2)),
            client_last_transaction_time: AbsoluteTime(T0 + 3),
            start_time_of_state: AbsoluteTime(T0 + 3),
            ..pair.primary().binding(lease).unwrap()
        };
        pair.secondary().call(|_, env, _| {
            env.table.apply(lease, |_| gemel_lease::Verdict::Store(theirs.clone()), env.updates)
        });
        pair.advance(5);
        pair.connect(10);
        pair.send(first);
        pair.send(1 - first);
        pair.run();
        pair.assert_agree();
        let owner = pair.primary().binding(lease).unwrap().duid;
        assert_eq!(owner, pair.secondary().binding(lease).unwrap().duid);
        let conflicts = pair.nodes.each_ref().map(|node| node.counters().conflicts);
        assert!(conflicts.iter().sum::<u64>() > 0);
    }
}

#[test]
fn what_has_been_overtaken_is_not_sent_any_more() {
    let mut pair = Pair::unconnected();
    pair.connect(1);
    pair.run();
    let [first, second] = [1, 2].map(|client| pair.primary().grant(ADDRESSES, client).unwrap());
    pair.run();
    pair.advance(10);
    assert!(pair.primary().renew(first) && pair.primary().renew(second));
    pair.advance(1);
    assert!(pair.secondary().release(second));
    // The first renewal is on its way; the second one has been looked at, and waits.
    pair.send(0);
    assert_eq!(pair.primary().counters().unacked, 1);
    pair.send(1);
    pair.deliver(1, 1);
    assert_eq!(pair.primary().status(second), Some(BindingStatus::Free));
    pair.run();
    assert_eq!(statuses(&pair, second), [BindingStatus::Free; 2]);
    pair.assert_agree();
}
