//! Two updates of one lease that cross.

use super::*;

/// What a client or the time does to an active lease, or to one in quarantine.
#[derive(Clone, Copy, Debug)]
enum Change {
    Sweep,
    Renew,
    Release,
    Decline,
}

fn any_change() -> impl Strategy<Value = Option<Change>> {
    use Change::{Decline, Release, Renew, Sweep};
    prop::sample::select(&[None, Some(Sweep), Some(Renew), Some(Release), Some(Decline)][..])
}

fn changed(binding: &Binding, change: Option<Change>, now: AbsoluteTime) -> Binding {
    use BindingStatus::{Abandoned, Active, Expired, Released, Reset};
    let is_active = binding.status == Active;
    let is_over = now >= binding.state_expiration_time;
    let (status, is_heard, end) = match change {
        Some(Change::Sweep) if is_active && is_over => (Expired, false, AbsoluteTime::ZERO),
        Some(Change::Sweep) if binding.status == Abandoned && is_over => {
            (Reset, false, AbsoluteTime::ZERO)
        }
        Some(Change::Renew) if is_active => (Active, true, now.plus(60)),
        Some(Change::Release) if is_active => (Released, true, AbsoluteTime::ZERO),
        Some(Change::Decline) if is_active => (Abandoned, true, now.plus(60)),
        _ => return binding.clone(),
    };
    let mut after = Binding { status, state_expiration_time: end, ..binding.clone() };
    if status != binding.status {
        after.start_time_of_state = now;
    }
    if is_heard {
        after.client_last_transaction_time = now;
    }
    after
}

/// One server has seen a lease end, the other has extended it since and sees it end at this moment.
/// Both tell each other; whose clock says what must not make both give way, for then the one that
/// had ended it believes that it runs, and the other that it is free.
#[test]
fn ends_that_cross_are_not_swapped() {
    let expired = version(BindingStatus::Expired, 1, -4, 0);
    let active = version(BindingStatus::Active, 1, -250, 0);
    for role in [Role::Primary, Role::Secondary] {
        for offset in -10..=10 {
            let verdict = |ours: &Binding, theirs: &Binding| {
                received_at(theirs, NOW, at(offset), |it| decide(ours, &it, role, at(offset)))
            };
            assert_ne!(verdict(&active, &expired), Decision::Accept, "{offset}");
            assert_eq!(verdict(&expired, &active), Decision::Accept, "{offset}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Two updates of one lease cross, and may be long under way, while things happen to the lease at
    /// either server: it is not free at one of them and somebody's at the other afterwards. Not in the
    /// same second, though, where nobody knows what came first.
    #[test]
    fn not_both_give_way(
        versions in [any_version(), any_version()],
        clocks in [1..=30_i32, 1..=30_i32],
        sent in [-60..=0_i32, -60..=0_i32],
        changes in [any_change(), any_change()],
    ) {
        if !versions.iter().all(|it| it.update_pending) {
            return Ok(());
        }
        let roles = [Role::Primary, Role::Secondary];
        let results = [0, 1].map(|here| {
            let now = at(clocks[here]);
            let ours = &changed(&versions[here], changes[here], now);
            received_at(&versions[1 - here], at(clocks[here] + sent[here]), now, |theirs| {
                let accepted = decide(ours, &theirs, roles[here], now) == Decision::Accept;
                let after = update::accept(ours, &theirs, roles[here]);
                accepted.then(|| after.unwrap_or_else(|| ours.clone()))
            })
        });
        if let [Some(one), Some(other)] = results {
            prop_assert_eq!(is_free(one.status), is_free(other.status), "{:?} {:?}", one, other);
        }
    }
}

/// A lease is extended at one server and, before the partner has heard of that, over; the partner had
/// ended it before. It takes what it hears first, and then has to hear of the later end.
#[test]
fn an_end_does_not_yield_to_an_earlier_one() {
    use BindingStatus::{Active, Expired, Released, Reset};
    let active = version(Active, 1, -50, -5);
    let earlier = version(Expired, 1, -20, 0);
    for role in [Role::Primary, Role::Secondary] {
        assert_eq!(judge(&earlier, &active, role), Decision::Accept);
        for status in [Expired, Released, Reset] {
            let later = version(status, 1, -5, 0);
            assert_eq!(judge(&later, &earlier, role), OUTDATED);
            assert_eq!(judge(&earlier, &later, role), Decision::Accept);
        }
        assert_eq!(judge(&active, &version(Expired, 1, -5, 0), role), Decision::Accept);
    }
}

/// A client comes back to one server in the second in which the other sees its lease end, and then
/// gives it back. The partner is about to take over the lease of before the release, which it has been
/// told of; it has to hear of the release, too.
#[test]
fn a_release_does_not_yield_to_an_end_of_the_same_second() {
    use BindingStatus::{Expired, Released};
    let released = version(Released, 1, -5, 0);
    let expired = Binding { client_last_transaction_time: at(-100), ..version(Expired, 1, -5, 0) };
    for role in [Role::Primary, Role::Secondary] {
        assert_eq!(judge(&released, &expired, role), OUTDATED);
        assert_eq!(judge(&expired, &released, role), Decision::Accept);
        assert_eq!(judge(&released, &released, role), Decision::Accept, "a resend");
    }
}
