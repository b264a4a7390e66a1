//! Single messages: what is in them, how they are answered.

use gemel_lease::{BindingStatus, IaKind};
use gemel_wire::{
    Emitter, StatusCode,
    failover::{
        BindingStatus as WireStatus, BndReply, BndUpd, ClientReply, FailoverMessage, FailoverTime,
        Header, LeaseReply,
    },
};

use super::*;
use crate::{Role, broken::Rule};

fn one(octets: &[u8]) -> FailoverMessage<'_> {
    let mut all = frames(octets);
    let frame = all.next().unwrap();
    assert!(all.next().is_none(), "more than one frame");
    FailoverMessage::parse(frame).unwrap()
}

fn frame(emit: impl FnOnce(Header, &mut Emitter<'_>)) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    let mut out = Emitter::new(&mut buffer);
    let header = Header { transaction_id: TransactionId([0, 0, 1]), sent_time: FailoverTime(T0) };
    emit(header, &mut out);
    let len = out.finish().unwrap();
    buffer.truncate(len);
    buffer
}

/// A BNDUPD with these bindings, which `change` may spoil.
fn update_of(
    bindings: &[gemel_lease::Binding],
    change: impl Fn(usize, &mut gemel_wire::failover::Lease<'_>),
) -> Vec<u8> {
    let now = AbsoluteTime(T0);
    frame(|header, out| {
        let client = crate::update::client_data(&bindings[0], now);
        let leases = bindings.iter().enumerate().map(|(index, binding)| {
            let mut lease = crate::update::client_lease(binding, 500, now);
            change(index, &mut lease);
            lease
        });
        BndUpd::emit_client(&client, leases, header, out);
    })
}

/// Leases of one client on the primary, as the primary has them.
fn bindings(pair: &mut Pair, count: u32) -> Vec<gemel_lease::Binding> {
    let primary = pair.primary();
    (0..count)
        .map(|iaid| {
            let lease = primary.grant_ia(ADDRESSES, 1, IaKind::Na, iaid).unwrap();
            primary.binding(lease).unwrap()
        })
        .collect()
}

#[test]
fn a_grant_reaches_the_partner_and_is_acknowledged() {
    let mut pair = Pair::new();
    let lease = pair.primary().grant(ADDRESSES, 1).unwrap();
    let granted = pair.primary().binding(lease).unwrap();
    assert!(granted.update_pending);
    pair.run();
    let [mine, theirs] = pair.nodes.each_ref().map(|node| node.binding(lease).unwrap());
    assert!(!mine.update_pending && !theirs.update_pending);
    assert_eq!(mine.acked_partner_lifetime, granted.partner_lifetime);
    assert_eq!(mine.partner_lifetime, AbsoluteTime::ZERO);
    assert_eq!(theirs.expiration_time, granted.partner_lifetime);
    assert_eq!(theirs.partner_raw_clt_time, granted.client_last_transaction_time);
    pair.assert_agree();
    let counters = pair.primary().counters();
    assert_eq!((counters.sent, counters.acked, counters.unacked), (1, 1, 0));
    let counters = pair.secondary().counters();
    assert_eq!((counters.received, counters.accepted), (1, 1));
}

#[test]
fn leases_of_one_client_travel_together() {
    let mut pair = Pair::new();
    let primary = pair.primary();
    for (iaid, kind) in [(1, IaKind::Na), (2, IaKind::Na), (1, IaKind::Ta), (2, IaKind::Pd)] {
        let pool = if kind == IaKind::Pd { PREFIXES } else { ADDRESSES };
        primary.grant_ia(pool, 1, kind, iaid).unwrap();
    }
    // Again of the first association.
    primary.grant_ia(ADDRESSES, 1, IaKind::Na, 1).unwrap();
    primary.grant(ADDRESSES, 2).unwrap();
    pair.send(0);
    let counters = pair.primary().counters();
    assert_eq!((counters.sent, counters.messages_sent), (6, 2));
    let octets = pair.nodes[0].sent.clone();
    let message = FailoverMessage::parse(frames(&octets).next().unwrap()).unwrap();
    let Ok(BndUpd::Client(binding)) = BndUpd::parse(&message) else { panic!("no client") };
    let ias: Vec<_> = binding.leases().map(|entry| entry.unwrap().head.ia).collect();
    let kinds: Vec<_> = ias.iter().map(|ia| (ia.kind, ia.iaid.0)).collect();
    use gemel_wire::failover::IaKind::{Na, Pd, Ta};
    assert_eq!(kinds, [(Na, 1), (Na, 1), (Na, 2), (Ta, 1), (Pd, 2)]);
    // Leases of one association share its option.
    assert_eq!(binding.options.all(gemel_wire::OptionCode::IA_NA).count(), 2);
    pair.run();
    pair.assert_agree();
    assert_eq!(pair.secondary().table.len(), 6);
}

#[test]
fn a_lease_that_changes_again_is_sent_once_more() {
    let mut pair = Pair::new();
    let lease = pair.primary().grant(ADDRESSES, 1).unwrap();
    pair.send(0);
    pair.advance(10);
    assert!(pair.primary().renew(lease));
    assert!(pair.primary().renew(lease));
    pair.run();
    assert_eq!(pair.primary().counters().sent, 2);
    pair.assert_agree();
}

/// The partner must not hear of what may still be lost.
#[test]
fn a_change_is_not_told_before_it_is_stored() {
    let mut pair = Pair::new();
    let lease = pair.primary().grant(ADDRESSES, 1).unwrap();
    let granted = std::mem::take(&mut pair.primary().workers);
    pair.advance(10);
    assert!(pair.primary().renew(lease));
    // The grant is stored, the renewal not yet.
    pair.primary().call(|flow, env, _| flow.committed(granted.as_bytes(), env));
    pair.primary().poll();
    assert_eq!((pair.primary().in_flight, pair.primary().counters().queued), (0, 0));
    pair.primary().commit();
    pair.primary().poll();
    assert_eq!(pair.primary().in_flight, 1);
    pair.run();
    assert_eq!(pair.secondary().counters().received, 1);
    pair.assert_agree();
}

/// Nor what has changed while it waited for the next message.
#[test]
fn what_was_begun_is_not_told_if_it_has_changed() {
    let mut pair = Pair::unconnected();
    pair.connect(1);
    pair.run();
    let leases: Vec<_> =
        (1..4).map(|client| pair.primary().grant(ADDRESSES, client).unwrap()).collect();
    pair.send(0);
    pair.advance(10);
    for lease in &leases {
        assert!(pair.primary().renew(*lease));
    }
    // One is on its way, another has been begun, the window is full until the answer comes.
    pair.deliver(0, usize::MAX);
    pair.secondary().store();
    pair.secondary().poll();
    pair.deliver(1, usize::MAX);
    pair.primary().poll();
    assert_eq!(pair.primary().in_flight, 0);
    pair.run();
    pair.assert_agree();
}

#[test]
fn a_reply_waits_for_the_store() {
    for broken in [None, Some(Rule::DurableBeforeReply)] {
        let mut pair = Pair::unconnected();
        pair.nodes[1] = Node::with(Config { broken, ..Config::new("pair", Role::Secondary, MCLT) });
        pair.connect(10);
        pair.run();
        pair.primary().grant(ADDRESSES, 1).unwrap();
        pair.send(0);
        pair.deliver(0, 1);
        let secondary = pair.secondary();
        secondary.poll();
        let waits = broken.is_none();
        assert_eq!(secondary.sent.is_empty(), waits);
        assert_eq!(secondary.counters().replies_waiting, u64::from(waits));
        // A batch before it does not count.
        let last = *secondary.unstored.back().unwrap();
        secondary.flow.stored(last - 1, true, &mut secondary.outbox, secondary.now);
        secondary.poll();
        assert_eq!(secondary.sent.is_empty(), waits);
        secondary.store();
        secondary.poll();
        assert!(!secondary.sent.is_empty());
    }
}

#[test]
fn a_resend_that_changes_nothing_waits_for_the_first_one_to_be_stored() {
    let mut pair = Pair::new();
    pair.primary().grant(ADDRESSES, 1).unwrap();
    pair.send(0);
    pair.deliver(0, 1);
    pair.connect(10);
    pair.send(0);
    assert_eq!(pair.deliver(0, 1), 1);
    pair.secondary().poll();
    assert!(pair.secondary().sent.is_empty());
    pair.run();
    pair.assert_agree();
}

#[test]
fn lost_batches_are_never_acknowledged() {
    let mut pair = Pair::new();
    let lease = pair.primary().grant(ADDRESSES, 1).unwrap();
    pair.send(0);
    pair.deliver(0, 1);
    let secondary = pair.secondary();
    let last = secondary.unstored.pop_back().unwrap();
    assert!(!secondary.flow.stored(last, false, &mut secondary.outbox, secondary.now));
    secondary.poll();
    assert!(secondary.sent.is_empty());
    pair.connect(10);
    // The table has the lease already, but the store may not: it is stored again.
    pair.send(0);
    pair.deliver(0, 1);
    let secondary = pair.secondary();
    assert_eq!(secondary.unstored.len(), 1);
    secondary.poll();
    assert!(secondary.sent.is_empty());
    pair.run();
    assert!(!pair.primary().binding(lease).unwrap().update_pending);
}

#[test]
fn some_leases_of_a_message_are_rejected() {
    let mut pair = Pair::new();
    let mut leases = bindings(&mut pair, 4);
    leases[1].lease = gemel_lease::Lease::address("2001:db9::1".parse().unwrap());
    let octets = update_of(&leases, |index, lease| {
        if index == 2 {
            lease.state.binding_status = WireStatus(77);
        }
    });
    let secondary = pair.secondary();
    secondary.receive(frames(&octets).next().unwrap());
    secondary.store();
    secondary.poll();
    let sent = std::mem::take(&mut secondary.sent);
    let Ok(BndReply::Client(reply)) = BndReply::parse(&one(&sent)) else { panic!("no client") };
    assert!(!reply.is_rejected());
    let replies: Vec<_> = reply.leases().map(Result::unwrap).collect();
    let codes: Vec<_> = replies.iter().map(|it| it.ack.status.map(|status| status.code)).collect();
    let expected = [
        None,
        Some(StatusCode::CONFIGURATION_CONFLICT),
        Some(StatusCode::MISSING_BINDING_INFORMATION),
        None,
    ];
    assert_eq!(codes, expected);
    assert_eq!(replies[2].ack.binding_status, Some(WireStatus(77)));
    assert_eq!(secondary.table.len(), 2);
    let counters = secondary.counters();
    assert_eq!((counters.accepted, counters.rejected.total()), (2, 2));
}

#[test]
fn rejected_leases_are_sent_again_after_a_minute_only() {
    let mut pair = Pair::unconnected();
    let config = Config::new("pair", Role::Secondary, MCLT);
    // The secondary does not know of the prefixes.
    pair.nodes[1].flow = Flow::new(&config, vec![ADDRESSES]);
    pair.connect(10);
    // The share of the secondary is refused, too, and asked for no more.
    pair.run();
    let before = pair.primary().counters();
    let prefix = pair.primary().grant_ia(PREFIXES, 1, IaKind::Pd, 1).unwrap();
    let address = pair.primary().grant_ia(ADDRESSES, 1, IaKind::Na, 1).unwrap();
    pair.run();
    let counters = pair.primary().counters();
    assert_eq!(counters.messages_sent - before.messages_sent, 1);
    assert_eq!(counters.acked - before.acked, 1);
    let rejected = counters.rejected_by_partner.configuration_conflict;
    assert_eq!(rejected - before.rejected_by_partner.configuration_conflict, 1);
    assert!(pair.primary().binding(prefix).unwrap().update_pending);
    assert!(!pair.primary().binding(address).unwrap().update_pending);
    let sent = counters.sent;
    pair.run();
    assert_eq!(pair.primary().counters().sent, sent);
    let timeout = pair.primary().flow.next_timeout().unwrap();
    assert!(timeout <= pair.primary().now.monotonic + Duration::from_secs(60));
    pair.advance(60);
    pair.run();
    assert!(pair.primary().counters().sent > sent);
    // When it changes it is sent at once.
    let sent = pair.primary().counters().sent;
    assert!(pair.primary().renew(prefix));
    pair.run();
    assert_eq!(pair.primary().counters().sent, sent + 1);
    // In another state this is no reason to wake up.
    let primary = pair.primary();
    assert!(primary.flow.next_timeout().is_some());
    primary.phase = Phase::Answering;
    primary.poll();
    assert_eq!(primary.flow.next_timeout(), None);
}

#[test]
fn what_lacks_something_is_rejected_as_a_whole() {
    use gemel_wire::{MessageType, OptionCode};
    let mut pair = Pair::new();
    let leases = bindings(&mut pair, 2);
    let good = update_of(&leases, |_, _| ());
    let options = one(&good).options.first(OptionCode::CLIENT_DATA).unwrap().to_vec();
    let with = |drop: Option<OptionCode>, add: Option<OptionCode>| {
        frame(|header, out| {
            header.emit(MessageType::BNDUPD, out, |out| {
                let mark = out.begin(OptionCode::CLIENT_DATA);
                for option in gemel_wire::Options::parse(&options).unwrap() {
                    if Some(option.code) != drop {
                        out.option(option.code, option.data);
                    }
                }
                if let Some(code) = add {
                    out.option(code, &[1, 2]);
                }
                out.end(mark);
            });
        })
    };
    let secondary = pair.secondary();
    let mut answer = |octets: &[u8]| {
        secondary.receive(frames(octets).next().unwrap());
        secondary.poll();
        let sent = std::mem::take(&mut secondary.sent);
        let Ok(BndReply::Client(reply)) = BndReply::parse(&one(&sent)) else { panic!("no client") };
        assert!(reply.is_rejected());
        reply.client.status.unwrap().code
    };
    let missing = StatusCode::MISSING_BINDING_INFORMATION;
    assert_eq!(answer(&with(Some(OptionCode::CLIENT_ID), None)), missing);
    assert_eq!(answer(&with(Some(OptionCode::LQ_BASE_TIME), None)), missing);
    assert_eq!(answer(&with(Some(OptionCode::IA_NA), None)), missing);
    // An association that is cut off: nothing of the message is taken.
    assert_eq!(answer(&with(None, Some(OptionCode::IA_NA))), missing);
    assert_eq!(answer(&with(None, Some(OptionCode::VSS))), StatusCode::CONFIGURATION_CONFLICT);
    assert!(pair.secondary().table.is_empty());
    // Without a subject there is nothing to answer to.
    let empty = frame(|header, out| header.emit_bare(MessageType::BNDUPD, out));
    let message = one(&empty);
    assert!(pair.secondary().call(|flow, env, outbox| flow.bndupd(&message, env, outbox)).is_err());
    // A prefix without a client cannot be active.
    let prefix = frame(|header, out| {
        let mut prefix = crate::update::prefix_lease(&leases[0], AbsoluteTime(T0));
        prefix.state.binding_status = WireStatus::ACTIVE;
        BndUpd::emit_prefix(&prefix, header, out);
    });
    let secondary = pair.secondary();
    secondary.receive(frames(&prefix).next().unwrap());
    secondary.poll();
    let sent = std::mem::take(&mut secondary.sent);
    let Ok(BndReply::Prefix(reply)) = BndReply::parse(&one(&sent)) else { panic!("no prefix") };
    assert_eq!(reply.ack.status.unwrap().code, missing);
}

#[test]
fn answers_that_do_not_fit() {
    let mut pair = Pair::new();
    let lease = pair.primary().grant(ADDRESSES, 1).unwrap();
    pair.send(0);
    let octets = std::mem::take(&mut pair.nodes[0].sent);
    let update = one(&octets);
    let Ok(BndUpd::Client(binding)) = BndUpd::parse(&update) else { panic!("no client") };
    let sent = binding.leases().next().unwrap().unwrap().lease().unwrap();
    let reply = |id, change: &dyn Fn(&mut LeaseReply<'_>)| {
        let mut reply = LeaseReply::accept(&sent);
        change(&mut reply);
        let client = ClientReply { client_id: binding.client.client_id, vss: None, status: None };
        frame(|header, out| {
            let header = Header { transaction_id: id, ..header };
            BndReply::emit_client(&client, [reply], header, out);
        })
    };
    let id = update.header.transaction_id;
    let primary = pair.primary();
    let mut answer = |octets: &[u8]| {
        primary.call(|flow, env, _| flow.bndreply(&one(octets), env)).unwrap();
        primary.counters()
    };
    // Of a message that was never sent.
    assert_eq!(answer(&reply(TransactionId([9, 9, 9]), &|_| ())).replies_unknown, 1);
    // A lifetime greater than the one that was sent: only the latter counts.
    let counters = answer(&reply(id, &|it| {
        it.ack.partner_lifetime_sent = Some(FailoverTime(T0 + 1_000_000));
    }));
    assert_eq!((counters.replies_wrong, counters.acked), (1, 1));
    // A second answer to the same message.
    assert_eq!(answer(&reply(id, &|_| ())).replies_unknown, 2);
    let binding = pair.primary().binding(lease).unwrap();
    assert_eq!(binding.acked_partner_lifetime.0, T0 + 2_000 + MCLT / 2);
    // Another lease than the one that was sent, and another status.
    let another_lease = |it: &mut LeaseReply<'_>| it.head.address = std::net::Ipv6Addr::LOCALHOST;
    let another_status =
        |it: &mut LeaseReply<'_>| it.ack.binding_status = Some(WireStatus::EXPIRED);
    let wrong_answers: [&dyn Fn(&mut LeaseReply<'_>); 2] = [&another_lease, &another_status];
    for (wrong, change) in (2..).zip(wrong_answers) {
        pair.advance(1);
        assert!(pair.primary().renew(lease));
        pair.send(0);
        let octets = std::mem::take(&mut pair.nodes[0].sent);
        let id = one(&octets).header.transaction_id;
        let octets = reply(id, change);
        let primary = pair.primary();
        primary.call(|flow, env, _| flow.bndreply(&one(&octets), env)).unwrap();
        let counters = primary.counters();
        assert_eq!((counters.replies_wrong, counters.acked), (wrong, 1));
        assert_eq!(counters.rejected_by_partner.other, wrong - 1);
        assert!(primary.binding(lease).unwrap().update_pending);
    }
}

#[test]
fn the_window_is_never_exceeded() {
    for limit in [1, 3, 16] {
        let mut pair = Pair::unconnected();
        pair.connect(limit);
        pair.run();
        for client in 0..100 {
            pair.primary().grant(ADDRESSES, client).unwrap();
        }
        loop {
            pair.send(0);
            let in_flight = pair.nodes[0].in_flight;
            assert!(in_flight <= limit as usize, "{in_flight} in flight");
            assert_eq!(pair.primary().counters().unacked, in_flight as u64);
            assert_eq!(pair.primary().flow.oldest_unanswered().is_some(), in_flight > 0);
            if pair.deliver(0, 2) == 0 {
                break;
            }
            pair.send(1);
            pair.deliver(1, usize::MAX);
        }
        pair.assert_agree();
        assert_eq!(pair.secondary().table.len(), 100);
    }
}

#[test]
fn the_queue_overflows_and_nothing_is_lost() {
    let mut pair = Pair::unconnected();
    pair.nodes[0].flow.queue = Queue::new(10);
    pair.connect(4);
    pair.run();
    for client in 0..205 {
        pair.primary().grant(ADDRESSES, client).unwrap();
        if client % 20 == 0 {
            pair.send(0);
        }
    }
    pair.run();
    // After each there is room again.
    let overflows = pair.primary().counters().overflows;
    assert!((10..=30).contains(&overflows), "{overflows} overflows");
    pair.assert_agree();
    assert_eq!(pair.secondary().table.len(), 205);
    // And what nobody told of is found, too.
    pair.primary().grant(ADDRESSES, 900).unwrap();
    pair.nodes[0].workers.clear();
    pair.run();
    assert_eq!(pair.primary().pending(), 1);
    pair.primary().flow.missed();
    pair.run();
    pair.assert_agree();
}

#[test]
fn only_replies_leave_in_a_quiet_phase() {
    let mut pair = Pair::new();
    pair.nodes[1].phase = Phase::Quiet;
    pair.primary().grant(ADDRESSES, 1).unwrap();
    pair.secondary().grant(ADDRESSES, 2).unwrap();
    pair.run();
    assert_eq!((pair.primary().pending(), pair.secondary().pending()), (0, 1));
    pair.nodes[1].phase = Phase::Normal;
    pair.run();
    pair.assert_agree();
}

#[test]
fn what_is_outdated_is_answered_with_what_is_known() {
    let mut pair = Pair::new();
    let lease = pair.primary().grant(ADDRESSES, 1).unwrap();
    pair.run();
    let old = pair.primary().binding(lease).unwrap();
    // The primary has lost what happened since, as far as the secondary can see.
    let expired = gemel_lease::Binding {
        status: BindingStatus::Expired,
        state_expiration_time: AbsoluteTime::ZERO,
        ..old
    };
    let octets = update_of(&[expired], |_, _| ());
    let secondary = pair.secondary();
    secondary.receive(frames(&octets).next().unwrap());
    secondary.store();
    secondary.poll();
    let sent = std::mem::take(&mut secondary.sent);
    let types: Vec<_> = frames(&sent).map(|frame| MessageType(frame[0])).collect();
    assert_eq!(types, [MessageType::BNDREPLY, MessageType::BNDUPD], "the reply first");
    assert_eq!(secondary.counters().rejected.outdated_binding_information, 1);
    // Once more: the update is pending already, and is not sent again for that.
    secondary.receive(frames(&octets).next().unwrap());
    secondary.store();
    secondary.poll();
    assert_eq!(frames(&secondary.sent).count(), 1);
}

#[test]
fn a_broken_server_accepts_everything() {
    let mut pair = Pair::unconnected();
    let broken = Some(Rule::ConflictTable);
    pair.nodes[1] = Node::with(Config { broken, ..Config::new("pair", Role::Secondary, MCLT) });
    pair.connect(10);
    let lease = pair.primary().grant(ADDRESSES, 1).unwrap();
    pair.run();
    let expired = gemel_lease::Binding {
        status: BindingStatus::Expired,
        ..pair.primary().binding(lease).unwrap()
    };
    let octets = update_of(&[expired], |_, _| ());
    pair.secondary().receive(frames(&octets).next().unwrap());
    assert_eq!(pair.secondary().status(lease), Some(BindingStatus::Free));
}

/// Section 9.
#[test]
fn names_are_noticed_once_for_each_connection() {
    let mut pair = Pair::new();
    let bindings = bindings(&mut pair, 1);
    let plain = update_of(&bindings, |_, _| {});
    let named = update_of(&bindings, |_, lease| lease.state.client_fqdn = Some(b"\x01\x01a\0"));
    pair.secondary().receive(&plain[2..]);
    assert!(!pair.secondary().flow.has_names);
    pair.secondary().receive(&named[2..]);
    assert!(pair.secondary().flow.has_names);
    // Such an update is taken all the same.
    assert_eq!(pair.secondary().counters().accepted, 2);
    pair.connect(10);
    assert!(!pair.secondary().flow.has_names);
}
