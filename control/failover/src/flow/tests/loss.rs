//! Anything happens, connections are lost in the middle; in the end both agree.

use gemel_lease::Lease;
use proptest::prelude::*;

use super::*;

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    /// A client gets a lease from one of the servers.
    Grant {
        by: usize,
        prefix: bool,
        client: u32,
    },
    /// The client of the n-th lease does something, at one of the servers.
    Renew {
        by: usize,
        at: prop::sample::Index,
    },
    Release {
        by: usize,
        at: prop::sample::Index,
    },
    Decline {
        by: usize,
        at: prop::sample::Index,
    },
    Advance(u32),
    Sweep(usize),
    /// One server sends, and so many frames arrive.
    Exchange {
        from: usize,
        frames: usize,
    },
    /// The connection breaks, and what is on its way is lost.
    Break,
    /// A new one; updates flow.
    Connect {
        max_unacked: u32,
    },
}

fn event() -> impl Strategy<Value = Event> {
    use Event::{Advance, Break, Connect, Decline, Exchange, Grant, Release, Renew, Sweep};
    let by = 0..=1_usize;
    let at = any::<prop::sample::Index>;
    prop_oneof![
        6 => (by.clone(), any::<bool>(), 0..30_u32)
            .prop_map(|(by, prefix, client)| Grant { by, prefix, client }),
        4 => (by.clone(), at()).prop_map(|(by, at)| Renew { by, at }),
        3 => (by.clone(), at()).prop_map(|(by, at)| Release { by, at }),
        1 => (by.clone(), at()).prop_map(|(by, at)| Decline { by, at }),
        3 => (0..300_u32).prop_map(Advance),
        1 => Just(Advance(2_500)),
        2 => by.clone().prop_map(Sweep),
        10 => (by, 0..20_usize).prop_map(|(from, frames)| Exchange { from, frames }),
        1 => Just(Break),
        2 => (1..10_u32).prop_map(|max_unacked| Connect { max_unacked }),
    ]
}

fn lease_at(node: &Node, at: prop::sample::Index) -> Option<Lease> {
    let leases: Vec<_> = node.view().into_keys().collect();
    (!leases.is_empty()).then(|| *at.get(&leases))
}

fn happen(pair: &mut Pair, event: Event, is_connected: &mut bool) {
    match event {
        Event::Grant { by, prefix, client } => {
            let pool = if prefix { PREFIXES } else { ADDRESSES };
            pair.nodes[by].grant(pool, client);
        }
        Event::Renew { by, at } => {
            if let Some(lease) = lease_at(&pair.nodes[by], at) {
                pair.nodes[by].renew(lease);
            }
        }
        Event::Release { by, at } => {
            if let Some(lease) = lease_at(&pair.nodes[by], at) {
                pair.nodes[by].release(lease);
            }
        }
        Event::Decline { by, at } => {
            if let Some(lease) = lease_at(&pair.nodes[by], at) {
                pair.nodes[by].decline(lease, 100);
            }
        }
        Event::Advance(secs) => pair.advance(secs),
        Event::Sweep(by) => pair.nodes[by].sweep(),
        Event::Exchange { from, frames } if *is_connected => {
            pair.send(from);
            pair.deliver(from, frames);
        }
        Event::Exchange { from, .. } => {
            pair.nodes[from].commit();
            pair.nodes[from].store();
        }
        Event::Break => {
            pair.disconnect();
            *is_connected = false;
        }
        Event::Connect { max_unacked } => {
            pair.connect(max_unacked);
            *is_connected = true;
        }
    }
}

fn run(events: Vec<Event>, skew: u32) {
    let mut pair = Pair::unconnected();
    pair.nodes[1].advance(skew);
    let mut is_connected = false;
    for event in events {
        happen(&mut pair, event, &mut is_connected);
    }
    // So that what ends does so for both.
    pair.nodes[0].now = pair.nodes[1].now;
    pair.connect(8);
    for _ in 0..4 {
        pair.run();
        pair.advance(61);
        pair.nodes.iter_mut().for_each(Node::sweep);
    }
    pair.run();
    pair.assert_agree();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn both_agree_in_the_end(
        events in prop::collection::vec(event(), 0..200),
        skew in 0..=5_u32,
    ) {
        run(events, skew);
    }
}
