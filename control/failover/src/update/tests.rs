use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;

const NOW: AbsoluteTime = AbsoluteTime(850_000_000);

fn at(secs: i32) -> AbsoluteTime {
    AbsoluteTime(NOW.0.checked_add_signed(secs).unwrap())
}

fn binding(status: BindingStatus) -> Binding {
    Binding {
        lease: Lease::address("2001:db8::7".parse().unwrap()),
        kind: IaKind::Na,
        status,
        duid: ClientDuid::new(&[0, 3, 0, 1, 9]),
        iaid: IaId(7),
        preferred_lifetime: 100,
        valid_lifetime: 200,
        client_last_transaction_time: at(-10),
        start_time_of_state: at(-500),
        state_expiration_time: at(190),
        expiration_time: at(150),
        partner_lifetime: at(400),
        acked_partner_lifetime: at(300),
        partner_raw_clt_time: at(-60),
        update_pending: true,
    }
}

fn update_of<T>(binding: &Binding, f: impl FnOnce(Update<'_>) -> T) -> T {
    let client = client_data(binding, NOW);
    let lease = client_lease(binding, binding.preferred_lifetime, NOW);
    f(Update::of_client(&client, &lease, NOW).unwrap())
}

fn unknown(lease: Lease) -> Binding {
    Binding { lease, ..Binding::EMPTY }
}

#[test]
fn all_that_section_7_4_asks_for_is_told() {
    let binding = binding(BindingStatus::Active);
    let client = client_data(&binding, NOW);
    assert_eq!((client.client_id, client.base_time), (&[0, 3, 0, 1, 9][..], FailoverTime(NOW.0)));
    let lease = client_lease(&binding, 100, NOW);
    let ia = IaHeader { kind: WireKind::Na, iaid: IaId(7), t1: 50, t2: 80 };
    assert_eq!((lease.head.ia, lease.head.preferred, lease.head.valid), (ia, 100, 200));
    let expected = LeaseState {
        binding_status: WireStatus::ACTIVE,
        start_time_of_state: FailoverTime(at(-500).0),
        state_expiration_time: Some(FailoverTime(at(190).0)),
        clt_secs: Some(10),
        partner_lifetime: Some(FailoverTime(at(400).0)),
        partner_raw_clt_time: Some(FailoverTime(at(-60).0)),
        expiration_time: Some(FailoverTime(at(150).0)),
        client_fqdn: None,
        dns_removal_info: None,
    };
    assert_eq!(lease.state, expected);
}

#[test]
fn only_a_status_that_ends_has_times_of_its_end() {
    for status in [
        BindingStatus::Expired,
        BindingStatus::Released,
        BindingStatus::Free,
        BindingStatus::FreeBackup,
        BindingStatus::Reset,
    ] {
        let state = lease_state(&binding(status), NOW);
        let ends = (state.state_expiration_time, state.partner_lifetime, state.expiration_time);
        assert_eq!(ends, (None, None, None), "{status}");
        assert_eq!(state.clt_secs, Some(10), "{status}");
    }
    let abandoned = |end| {
        let binding = Binding { state_expiration_time: end, ..binding(BindingStatus::Abandoned) };
        lease_state(&binding, NOW).state_expiration_time.is_some()
    };
    assert!(abandoned(at(5)));
    assert!(!abandoned(AbsoluteTime::ZERO) && !abandoned(AbsoluteTime::INFINITE));
    let silent = Binding {
        client_last_transaction_time: AbsoluteTime::ZERO,
        partner_raw_clt_time: AbsoluteTime::ZERO,
        ..binding(BindingStatus::Active)
    };
    let state = lease_state(&silent, NOW);
    assert_eq!((state.clt_secs, state.partner_raw_clt_time), (None, None));
}

#[test]
fn a_binding_that_the_partner_knows_is_told_with_what_it_knows() {
    let sent = |partner_lifetime, acked_partner_lifetime| {
        let known =
            Binding { partner_lifetime, acked_partner_lifetime, ..binding(BindingStatus::Active) };
        sent_partner_lifetime(&known).unwrap()
    };
    assert_eq!(sent(at(900), at(400)), at(900));
    assert_eq!(sent(at(400), at(900)), at(900), "it may have forgotten that");
    assert_eq!(sent(AbsoluteTime::ZERO, at(900)), at(900));
    assert_eq!(sent(AbsoluteTime::ZERO, AbsoluteTime::ZERO), at(190));
}

#[test]
fn figure_5() {
    let theirs = binding(BindingStatus::Active);
    let got = update_of(&theirs, |update| {
        accept(&unknown(theirs.lease), &update, Role::Secondary).unwrap()
    });
    let expected = Binding {
        client_last_transaction_time: theirs.partner_raw_clt_time,
        expiration_time: theirs.partner_lifetime,
        partner_lifetime: AbsoluteTime::ZERO,
        acked_partner_lifetime: theirs.expiration_time,
        partner_raw_clt_time: theirs.client_last_transaction_time,
        update_pending: false,
        ..theirs.clone()
    };
    assert_eq!(got, expected);
    // Once more: nothing new.
    update_of(&theirs, |update| assert_eq!(accept(&expected, &update, Role::Secondary), None));
    // And back again: the times return to where they came from.
    let back =
        update_of(&got, |update| accept(&unknown(theirs.lease), &update, Role::Primary).unwrap());
    assert_eq!(back.client_last_transaction_time, theirs.client_last_transaction_time);
    assert_eq!(back.partner_raw_clt_time, theirs.partner_raw_clt_time);
    assert_eq!(back.acked_partner_lifetime, got.expiration_time);
}

#[test]
fn later_news_of_the_client_stay() {
    let theirs = binding(BindingStatus::Active);
    let ours = Binding {
        client_last_transaction_time: at(-5),
        state_expiration_time: at(195),
        acked_partner_lifetime: at(100),
        expiration_time: at(700),
        partner_raw_clt_time: at(-90),
        ..theirs.clone()
    };
    for (pending, role) in [(true, Role::Primary), (false, Role::Secondary)] {
        let ours = Binding { update_pending: pending, ..ours.clone() };
        let got = update_of(&theirs, |update| accept(&ours, &update, role).unwrap());
        let expected = Binding {
            partner_raw_clt_time: at(-10),
            acked_partner_lifetime: at(150),
            // The partner has to hear of what it does not know.
            update_pending: true,
            ..ours
        };
        assert_eq!(got, expected);
    }
}

#[test]
fn what_has_ended_is_free_at_once() {
    for status in [
        BindingStatus::Expired,
        BindingStatus::Released,
        BindingStatus::Reset,
        BindingStatus::PendingFree,
        BindingStatus::Free,
        BindingStatus::FreeBackup,
    ] {
        let ours = binding(BindingStatus::Active);
        let theirs = Binding { status, ..ours.clone() };
        let got = update_of(&theirs, |update| accept(&ours, &update, Role::Primary).unwrap());
        // An address is never the secondary's by status.
        assert_eq!((got.status, got.update_pending), (BindingStatus::Free, false), "{status}");
        let known = unknown(ours.lease);
        update_of(&theirs, |update| assert_eq!(accept(&known, &update, Role::Primary), None));
    }
    let given = Binding {
        lease: Lease::prefix("2001:db8::".parse().unwrap(), 56),
        status: BindingStatus::FreeBackup,
        start_time_of_state: at(-3),
        ..Binding::EMPTY
    };
    let update = Update::of_prefix(&prefix_lease(&given, NOW), NOW).unwrap();
    let got = accept(&unknown(given.lease), &update, Role::Secondary).unwrap();
    assert_eq!((got.status, got.kind), (BindingStatus::FreeBackup, IaKind::Pd));
}

/// The end of the former lease is told twice; after the first time the primary has given the prefix to
/// the secondary, which may be taking it.
#[test]
fn what_is_being_given_to_the_secondary_stays_given() {
    use BindingStatus::{Expired, FreeBackup, Released, Reset};
    let lease = Lease::prefix("2001:db8::".parse().unwrap(), 56);
    for status in [Expired, Released, Reset] {
        let theirs = Binding { lease, kind: IaKind::Pd, ..binding(status) };
        let given = Binding {
            status: FreeBackup,
            update_pending: true,
            kind: IaKind::Pd,
            ..unknown(lease)
        };
        let told = Binding { update_pending: false, ..given.clone() };
        update_of(&theirs, |update| {
            assert_eq!(accept(&given, &update, Role::Primary), None, "{status}");
            // One that the secondary knows to be its own has been a client's since.
            let freed = accept(&told, &update, Role::Primary).unwrap();
            assert_eq!(freed.status, BindingStatus::Free, "{status}");
        });
    }
}

#[test]
fn a_lease_of_another_client_begins_afresh() {
    let theirs = binding(BindingStatus::Active);
    let ours = Binding { iaid: IaId(8), expiration_time: at(9_000), ..theirs.clone() };
    for (role, pending) in [(Role::Primary, true), (Role::Secondary, false)] {
        let got = update_of(&theirs, |update| accept(&ours, &update, role).unwrap());
        assert_eq!((got.iaid, got.expiration_time), (theirs.iaid, theirs.partner_lifetime));
        assert_eq!(got.update_pending, pending, "one of the two repeats what came out");
    }
}

#[test]
fn an_unknown_status_is_rejected() {
    let binding = binding(BindingStatus::Active);
    let client = client_data(&binding, NOW);
    let mut lease = client_lease(&binding, 100, NOW);
    lease.state.binding_status = WireStatus(9);
    let missing = Err(StatusCode::MISSING_BINDING_INFORMATION);
    assert_eq!(Update::of_client(&client, &lease, NOW), missing);
    // And ACTIVE needs a client.
    assert_eq!(Update::of_prefix(&prefix_lease(&binding, NOW), NOW), missing);
}

#[test]
fn infinity_survives() {
    let forever = Binding {
        preferred_lifetime: INFINITY,
        valid_lifetime: INFINITY,
        state_expiration_time: AbsoluteTime::INFINITE,
        partner_lifetime: AbsoluteTime::INFINITE,
        kind: IaKind::Ta,
        ..binding(BindingStatus::Active)
    };
    let got = update_of(&forever, |update| {
        accept(&unknown(forever.lease), &update, Role::Primary).unwrap()
    });
    assert_eq!(got.state_expiration_time, AbsoluteTime::INFINITE);
    assert_eq!(got.expiration_time, AbsoluteTime::INFINITE);
    assert_eq!((got.kind, got.valid_lifetime), (IaKind::Ta, INFINITY));
    assert_eq!(renewal_times(INFINITY), (INFINITY, INFINITY));
    assert_eq!(
        (renewal_times(0), renewal_times(u32::MAX - 1)),
        ((0, 0), (2_147_483_647, 3_435_973_835))
    );
}

#[test]
fn wire_times_are_taken_near_now() {
    let past = |time| past_from_wire(FailoverTime(time), NOW).0;
    assert_eq!((past(NOW.0 - 1), past(NOW.0 + 1)), (NOW.0 - 1, NOW.0 + 1));
    assert_eq!((past(0), past(u32::MAX)), (0, 0));
    let end = |time| end_from_wire(FailoverTime(time), NOW);
    assert_eq!((end(0), end(u32::MAX)), (AbsoluteTime::ZERO, AbsoluteTime::INFINITE));
    // A lease of 90 years.
    assert_eq!(end(NOW.0 + 2_838_240_000), NOW.plus(2_838_240_000));
    assert_eq!(end(NOW.0 - 1_000), at(-1_000));
    let late = AbsoluteTime(u32::MAX - 5);
    // The wire has begun anew, the table cannot.
    assert_eq!(end_from_wire(FailoverTime(10), late), AbsoluteTime(u32::MAX - 1));
    assert_eq!(past_from_wire(FailoverTime(10), late), AbsoluteTime(u32::MAX - 1));
}

fn any_binding() -> impl Strategy<Value = Binding> {
    (
        1..=8_u8,
        any::<[u32; 11]>(),
        prop::collection::vec(any::<u8>(), 3..130),
        any::<bool>(),
        any::<u128>(),
    )
        .prop_map(|(status, numbers, duid, update_pending, address)| {
            let time = |index: usize| AbsoluteTime(numbers[index]);
            Binding {
                lease: Lease::address(Ipv6Addr::from_bits(address)),
                kind: IaKind::Na,
                status: BindingStatus::from_u8(status).unwrap(),
                duid: ClientDuid::new(&duid),
                iaid: IaId(numbers[7]),
                preferred_lifetime: numbers[8],
                valid_lifetime: numbers[9],
                client_last_transaction_time: time(0),
                start_time_of_state: time(1),
                state_expiration_time: time(2),
                expiration_time: time(3),
                partner_lifetime: time(4),
                acked_partner_lifetime: time(5),
                partner_raw_clt_time: time(6),
                update_pending,
            }
        })
}

proptest! {
    /// Whatever comes, nothing panics; and what has been accepted once is known.
    #[test]
    fn any_update_is_taken_once(ours in any_binding(), theirs in any_binding(), now in any::<u32>(), primary in any::<bool>()) {
        let role = if primary { Role::Primary } else { Role::Secondary };
        let now = AbsoluteTime(now);
        let client = client_data(&theirs, now);
        let lease = client_lease(&theirs, theirs.preferred_lifetime, now);
        let update = Update::of_client(&client, &lease, now).unwrap();
        let _ = crate::conflict::decide(&ours, &update, role, now);
        if let Some(mut got) = accept(&ours, &update, role) {
            got.update_pending = false;
            prop_assert_eq!(accept(&got, &update, role), None);
        }
    }
}

/// A REBIND reaches both servers, and nobody knows whose answer the client took.
#[test]
fn of_two_ends_the_later_counts() {
    let ours = Binding { update_pending: false, ..binding(BindingStatus::Active) };
    for (heard, end, expected) in [
        // Later news with an earlier end: ours stays, and the partner has to hear that.
        (at(-5), at(100), (at(190), true)),
        (at(-5), at(250), (at(250), false)),
        // Earlier news with a later end.
        (at(-20), at(250), (at(250), true)),
    ] {
        let theirs = Binding {
            client_last_transaction_time: heard,
            state_expiration_time: end,
            ..ours.clone()
        };
        for role in [Role::Primary, Role::Secondary] {
            let new = update_of(&theirs, |update| accept(&ours, &update, role).unwrap());
            assert_eq!((new.state_expiration_time, new.update_pending), expected, "{heard}");
        }
    }
}

#[test]
fn what_a_server_without_memory_is_told_lasts_longer() {
    let told = |acked| Binding {
        acked_partner_lifetime: acked,
        update_pending: false,
        ..binding(BindingStatus::Active)
    };
    let lengthened = |binding: &Binding| {
        let mut binding = binding.clone();
        lengthen(&mut binding, 60, NOW);
        (binding.state_expiration_time, binding.update_pending)
    };
    assert_eq!(lengthened(&told(at(300))), (at(360), true));
    assert_eq!(lengthened(&told(at(130))), (at(190), false), "it lasts as long already");
    assert_eq!(lengthened(&told(at(-10))), (at(190), false));
    // What is over as far as the partner knows.
    let over = Binding { state_expiration_time: at(-5), ..told(at(-10)) };
    assert_eq!(lengthened(&over), (at(60), true));
    let abandoned = Binding { status: BindingStatus::Abandoned, ..over };
    assert_eq!(lengthened(&abandoned), (at(-5), false));
}

#[test]
fn what_has_expired_is_still_active_for_a_server_without_memory() {
    let theirs = binding(BindingStatus::Expired);
    let ours = unknown(theirs.lease);
    let still = |ours: &Binding, theirs: &Binding| {
        update_of(theirs, |update| still_active(ours, &update, 60, NOW))
    };
    let binding_of = still(&ours, &theirs).unwrap();
    assert_eq!(binding_of.status, BindingStatus::Active);
    assert_eq!((binding_of.state_expiration_time, binding_of.update_pending), (at(60), true));
    assert_eq!((binding_of.client_key(), binding_of.lease), (theirs.client_key(), theirs.lease));
    // Whatever is known here is judged as ever, and so is what the client has given back.
    assert_eq!(still(&binding(BindingStatus::Active), &theirs), None);
    assert_eq!(still(&Binding { update_pending: true, ..ours.clone() }, &theirs), None);
    assert_eq!(still(&ours, &binding(BindingStatus::Released)), None);
}
