use gemel_lease::{ClientDuid, IaKind, Lease};
use gemel_wire::IaId;
use proptest::prelude::*;

use super::*;
use crate::update;

mod crossing;

const NOW: AbsoluteTime = AbsoluteTime(1_000_000);
const STATUSES: [BindingStatus; 7] = [
    BindingStatus::Active,
    BindingStatus::Expired,
    BindingStatus::Released,
    BindingStatus::Free,
    BindingStatus::FreeBackup,
    BindingStatus::Reset,
    BindingStatus::Abandoned,
];
const OUTDATED: Decision = Decision::Reject(StatusCode::OUTDATED_BINDING_INFORMATION);
const IN_USE: Decision = Decision::Reject(StatusCode::ADDRESS_IN_USE);

/// Seconds before (negative) or after now.
fn at(secs: i32) -> AbsoluteTime {
    AbsoluteTime(NOW.0.checked_add_signed(secs).unwrap())
}

fn is_free(status: BindingStatus) -> bool {
    matches!(status, BindingStatus::Free | BindingStatus::FreeBackup)
}

fn has_ended(status: BindingStatus) -> bool {
    matches!(status, BindingStatus::Expired | BindingStatus::Released | BindingStatus::Reset)
}

/// A version of a lease: heard and begun at `time`, and running until `end` if it is active.
fn version(status: BindingStatus, client: u8, time: i32, end: i32) -> Binding {
    let has_client = !is_free(status);
    Binding {
        lease: Lease::prefix("2001:db8::".parse().unwrap(), 56),
        kind: IaKind::Pd,
        status,
        duid: if has_client { ClientDuid::new(&[0, 3, client]) } else { ClientDuid::NONE },
        iaid: IaId(if has_client { 1 } else { 0 }),
        preferred_lifetime: if has_client { 10 } else { 0 },
        valid_lifetime: if has_client { 20 } else { 0 },
        client_last_transaction_time: if has_client { at(time) } else { AbsoluteTime::ZERO },
        start_time_of_state: at(time),
        state_expiration_time: match status {
            BindingStatus::Active | BindingStatus::Abandoned => at(end),
            _ => AbsoluteTime::ZERO,
        },
        update_pending: true,
        ..Binding::EMPTY
    }
}

/// As the other server receives it.
fn received<T>(binding: &Binding, f: impl FnOnce(Update<'_>) -> T) -> T {
    received_at(binding, NOW, NOW, f)
}

fn received_at<T>(
    binding: &Binding,
    sent: AbsoluteTime,
    now: AbsoluteTime,
    f: impl FnOnce(Update<'_>) -> T,
) -> T {
    if binding.duid.as_bytes().is_empty() {
        return f(Update::of_prefix(&update::prefix_lease(binding, sent), now).unwrap());
    }
    let client = update::client_data(binding, sent);
    let lease = update::client_lease(binding, binding.preferred_lifetime, sent);
    f(Update::of_client(&client, &lease, now).unwrap())
}

fn judge(ours: &Binding, theirs: &Binding, role: Role) -> Decision {
    received(theirs, |theirs| decide(ours, &theirs, role, NOW))
}

/// Figure 4 as it is printed.
const FIGURE_4: &str = "
    ACTIVE           accept(3) time(1)   accept     time(1)      accept
    EXPIRED          accept    accept    accept     accept       accept
    RELEASED         accept    accept    accept     accept       accept
    FREE/FREE-BACKUP accept    accept    accept     accept       accept
    RESET            time(2)   accept    accept     accept       accept
    ABANDONED        accept    accept    accept     accept       accept
";

fn cell(ours: BindingStatus, received: BindingStatus) -> &'static str {
    let name = |status: BindingStatus| match status {
        BindingStatus::Free | BindingStatus::FreeBackup => "FREE/FREE-BACKUP".to_owned(),
        status => status.to_string().to_uppercase(),
    };
    let column = match received {
        BindingStatus::Active => 1,
        BindingStatus::Expired => 2,
        BindingStatus::Released => 3,
        BindingStatus::Reset | BindingStatus::Abandoned => 5,
        _ => 4,
    };
    let row = FIGURE_4.lines().find(|line| line.trim().starts_with(&name(ours))).unwrap();
    row.split_whitespace().nth(column).unwrap()
}

#[test]
fn every_cell_of_figure_4() {
    for ours in STATUSES {
        for theirs in STATUSES {
            for role in [Role::Primary, Role::Secondary] {
                check_cell(ours, theirs, role);
            }
        }
    }
}

fn check_cell(ours: BindingStatus, theirs: BindingStatus, role: Role) {
    let label = format!("{theirs} received for {ours} by the {role:?}");
    let verdict = |our_time, our_end, their_time| {
        // Received leases that are active have ended in step with ours, so that it is time that
        // counts.
        let mut mine = version(ours, 1, our_time, our_end);
        mine.update_pending = false;
        judge(&mine, &version(theirs, 1, their_time, our_end), role)
    };
    let runs = 100;
    match cell(ours, theirs) {
        "accept(3)" => {
            assert_eq!(verdict(-50, runs, -60), Decision::Accept, "{label}, same client");
            let other =
                |time| judge(&version(ours, 1, -50, runs), &version(theirs, 2, time, runs), role);
            assert_eq!(other(-49), Decision::Accept, "{label}, heard since");
            let expected = if role == Role::Primary { IN_USE } else { Decision::Accept };
            assert_eq!(other(-50), expected, "{label}, heard before");
            let expected = if role == Role::Primary { IN_USE } else { OUTDATED };
            assert_eq!(other(-51), expected, "{label}, and the primary takes the other");
        }
        "time(1)" => {
            assert_eq!(verdict(-50, 100, -10), OUTDATED, "{label}, running");
            assert_eq!(verdict(-50, 5, -10), Decision::RejectForNow, "{label}, nearly over");
            assert_eq!(verdict(-50, 0, 0), Decision::Accept, "{label}, over");
            assert_eq!(verdict(-50, -10, -11), OUTDATED, "{label}, over, but only since then");
        }
        "time(2)" => {
            assert_eq!(verdict(-50, runs, -49), Decision::Accept, "{label}, heard since");
            assert_eq!(verdict(-50, runs, -50), OUTDATED, "{label}, heard before");
        }
        "accept" if has_ended(ours) && has_ended(theirs) => {
            assert_eq!(verdict(-50, runs, -51), OUTDATED, "{label}, earlier");
            for time in [-50, -49] {
                assert_eq!(verdict(-50, runs, time), Decision::Accept, "{label}");
            }
        }
        "accept" if ours == BindingStatus::Expired && theirs == BindingStatus::Active => {
            assert_eq!(verdict(-50, runs, -60), Decision::Accept, "{label}, running");
            assert_eq!(
                verdict(-50, -49, -60),
                Decision::Accept,
                "{label}, over, but only since then"
            );
            assert_eq!(verdict(-50, -50, -40), OUTDATED, "{label}, over");
        }
        "accept" if is_free(ours) && theirs == BindingStatus::Active => {
            assert_eq!(verdict(-50, runs, -60), Decision::Accept, "{label}, running");
            assert_eq!(
                verdict(-50, -49, -60),
                Decision::Accept,
                "{label}, over, but only since then"
            );
            assert_eq!(verdict(-50, -50, -40), Decision::Accept, "{label}, over");
            assert_eq!(verdict(-50, -50, -60), OUTDATED, "{label}, over and earlier");
        }
        "accept" => {
            assert_eq!(verdict(-50, runs, -49), Decision::Accept, "{label}, later");
            assert_eq!(verdict(-50, runs, -51), OUTDATED, "{label}, earlier");
            let wins = rank(theirs) > rank(ours)
                || rank(theirs) == rank(ours) && (ours == theirs || role == Role::Secondary);
            let expected = if wins { Decision::Accept } else { OUTDATED };
            assert_eq!(verdict(-50, runs, -50), expected, "{label}, same time");
        }
        other => panic!("{label}: unknown rule {other}"),
    }
}

#[test]
fn who_may_use_the_lease_now_keeps_it() {
    use BindingStatus::{Active, Released};
    for role in [Role::Primary, Role::Secondary] {
        let running = version(Active, 1, -50, 100);
        let over = version(Active, 2, -10, -1);
        assert_eq!(judge(&running, &over, role), OUTDATED);
        assert_eq!(judge(&over, &running, role), Decision::Accept);
        let released = version(Released, 2, -10, 0);
        assert_eq!(judge(&running, &released, role), OUTDATED);
        assert_eq!(judge(&released, &running, role), Decision::Accept);
        // Its own client may give it back.
        assert_eq!(judge(&running, &version(Released, 1, -10, 0), role), Decision::Accept);
    }
}

#[test]
fn what_is_not_known_at_all_is_learnt() {
    let nothing = Binding { lease: version(STATUSES[0], 1, 0, 0).lease, ..Binding::EMPTY };
    for status in STATUSES {
        for role in [Role::Primary, Role::Secondary] {
            assert_eq!(judge(&nothing, &version(status, 1, -1000, -900), role), Decision::Accept);
        }
    }
}

/// A server with one lease.
#[derive(Clone, Debug)]
struct Server {
    role: Role,
    skew: i32,
    binding: Binding,
    stamp: u32,
}

impl Server {
    fn store(&mut self, binding: Binding) {
        self.binding = binding;
        self.stamp += 1;
    }

    fn sweep(&mut self, now: AbsoluteTime) {
        let over = now >= self.binding.state_expiration_time;
        let status = match self.binding.status {
            BindingStatus::Active if over => BindingStatus::Expired,
            BindingStatus::Abandoned if over => BindingStatus::Reset,
            _ => return,
        };
        let state_expiration_time = AbsoluteTime::ZERO;
        self.store(Binding {
            status,
            start_time_of_state: now,
            state_expiration_time,
            update_pending: true,
            ..self.binding.clone()
        });
    }

    fn receive(&mut self, theirs: &Binding, sent: AbsoluteTime, now: AbsoluteTime) -> bool {
        let (decision, accepted) = received_at(theirs, sent, now, |theirs| {
            let decision = decide(&self.binding, &theirs, self.role, now);
            (decision, update::accept(&self.binding, &theirs, self.role))
        });
        match (decision, accepted) {
            (Decision::Accept, Some(binding)) => self.store(binding),
            (OUTDATED, _) if !self.binding.update_pending => {
                let binding = Binding { update_pending: true, ..self.binding.clone() };
                self.store(binding);
            }
            _ => {}
        }
        decision == Decision::Accept
    }

    fn acknowledged(&mut self, stamp: u32, now: AbsoluteTime) {
        if stamp != self.stamp {
            return;
        }
        let binding = &mut self.binding;
        binding.update_pending = false;
        binding.partner_lifetime = AbsoluteTime::ZERO;
        if has_ended(binding.status) {
            let free = Binding {
                lease: binding.lease,
                kind: binding.kind,
                start_time_of_state: now,
                ..Binding::EMPTY
            };
            self.store(free);
        }
    }
}

fn any_version() -> impl Strategy<Value = Binding> {
    let status = prop::sample::select(&STATUSES[..]);
    let secs = -40..=0;
    (status, 1..=2_u8, secs.clone(), secs.clone(), secs, -20..=200, any::<bool>(), 1..30_u32)
        .prop_map(|(status, client, clt, start, raw, end, heard, valid)| {
            let mut version = version(status, client, start, end);
            if !is_free(status) {
                version.client_last_transaction_time =
                    if heard { at(clt) } else { AbsoluteTime::ZERO };
                version.partner_raw_clt_time = if heard { AbsoluteTime::ZERO } else { at(raw) };
                version.valid_lifetime = valid;
            }
            if status == BindingStatus::Free && heard {
                // Not known at all.
                version.start_time_of_state = AbsoluteTime::ZERO;
                version.update_pending = false;
            }
            version
        })
}

/// One exchange of what is pending on either side. Crossing: both send before either receives.
fn exchange(servers: &mut [Server; 2], base: AbsoluteTime, crossing: bool, first: usize) -> u32 {
    let now = |server: &Server| AbsoluteTime(base.0.checked_add_signed(server.skew).unwrap());
    let mut messages = 0;
    let mut flights = Vec::new();
    for from in [first, 1 - first] {
        if servers[from].binding.update_pending {
            flights.push((from, servers[from].binding.clone(), servers[from].stamp));
            messages += 1;
        }
        if !crossing || from != first {
            // An answer arrives after the update that its sender had sent before.
            let mut answers = Vec::new();
            for (from, binding, stamp) in flights.drain(..) {
                let (sent, at) = (now(&servers[from]), now(&servers[1 - from]));
                if servers[1 - from].receive(&binding, sent, at) {
                    answers.push((from, stamp, sent));
                }
            }
            for (from, stamp, now) in answers {
                servers[from].acknowledged(stamp, now);
            }
        }
    }
    messages
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Whatever two servers believe of a lease, they agree after a few rounds, and then they are
    /// silent.
    #[test]
    fn two_servers_agree(
        versions in [any_version(), any_version()],
        skew in 0..=5_i32,
        crossing in any::<[bool; 8]>(),
        first in 0..=1_usize,
        sweeps in any::<[bool; 2]>(),
    ) {
        let [mine, theirs] = versions;
        let mut servers = [
            Server { role: Role::Primary, skew: 0, binding: mine, stamp: 0 },
            Server { role: Role::Secondary, skew, binding: theirs, stamp: 0 },
        ];
        let mut messages = 0;
        let mut base = NOW;
        for (round, crossing) in crossing.into_iter().enumerate() {
            messages += exchange(&mut servers, base, crossing, first);
            if servers.iter().all(|server| !server.binding.update_pending) {
                break;
            }
            // What was rejected is sent again after a minute; the sweep may come before that.
            base = base.plus(if round < 2 { 1 } else { 60 });
            for (server, sweeps) in servers.iter_mut().zip(sweeps) {
                if sweeps || round >= 2 {
                    let now = AbsoluteTime(base.0.checked_add_signed(server.skew).unwrap());
                    server.sweep(now);
                }
            }
        }
        let [a, b] = servers.map(|server| server.binding);
        prop_assert!(!a.update_pending && !b.update_pending, "still talking: {a:?} {b:?}");
        prop_assert!(messages <= 12, "{messages} messages");
        prop_assert_eq!(a.status, b.status);
        prop_assert_eq!(a.client_key(), b.client_key());
        prop_assert_eq!(a.state_expiration_time, b.state_expiration_time);
        prop_assert_eq!(a.valid_lifetime, b.valid_lifetime);
    }
}

/// Two abandoned leases of one client that were heard by the partner alone, and differ in lifetimes
/// alone: one of them stays, they do not change places.
#[test]
fn what_differs_in_lifetimes_alone_is_not_swapped() {
    let quarantine = |valid_lifetime, preferred_lifetime| Binding {
        client_last_transaction_time: AbsoluteTime::ZERO,
        valid_lifetime,
        preferred_lifetime,
        ..version(BindingStatus::Abandoned, 1, -10, 100)
    };
    let (less, more) = (quarantine(1, 1), quarantine(2, 1));
    for (less, more) in [(less, more.clone()), (quarantine(2, 0), more)] {
        for role in [Role::Primary, Role::Secondary] {
            assert_eq!(judge(&less, &more, role), Decision::Accept);
            assert_eq!(judge(&more, &less, role), OUTDATED);
            assert_eq!(judge(&more, &more, role), Decision::Accept, "a resend");
        }
    }
}

/// A client has declined the lease at one server, and the other has given it to it again.
#[test]
fn the_end_of_a_quarantine_does_not_concern_who_was_heard_since() {
    let reset = version(BindingStatus::Reset, 1, -10, 0);
    // The quarantine ended after the client was last heard; what counts is when that was.
    let reset = Binding { client_last_transaction_time: at(-100), ..reset };
    let active = version(BindingStatus::Active, 1, -50, 100);
    for role in [Role::Primary, Role::Secondary] {
        assert_eq!(judge(&active, &reset, role), OUTDATED);
        assert_eq!(judge(&reset, &active, role), Decision::Accept);
        // Not if the lease is over, nor if the client has said nothing since.
        let over = version(BindingStatus::Active, 1, -50, -10);
        assert_eq!(judge(&over, &reset, role), Decision::Accept);
        assert_eq!(judge(&reset, &over, role), OUTDATED);
        let before = version(BindingStatus::Active, 1, -200, 100);
        assert_eq!(judge(&before, &reset, role), Decision::Accept);
        assert_eq!(judge(&reset, &before, role), OUTDATED);
    }
}

#[test]
fn partner_down_frees_what_has_a_client_and_nothing_else() {
    for ours in STATUSES {
        for theirs in STATUSES {
            let had_a_client = matches!(
                ours,
                BindingStatus::Active | BindingStatus::Expired | BindingStatus::Released
            );
            let (mine, theirs) = (version(ours, 1, -10, 100), version(theirs, 1, -20, 100));
            let is_right = received(&theirs, |theirs| is_freed_rightly(&mine, &theirs));
            assert_eq!(
                is_right,
                had_a_client && is_free(theirs.status),
                "{ours}, {}",
                theirs.status
            );
        }
    }
}
