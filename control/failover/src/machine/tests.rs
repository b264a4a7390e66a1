use std::{fmt::Write as _, fs, path::Path};

use ServerState as Is;

use super::*;

pub(super) const STATES: [ServerState; 10] = [
    Is::Startup,
    Is::Normal,
    Is::CommunicationsInterrupted,
    Is::PartnerDown,
    Is::PotentialConflict,
    Is::Recover,
    Is::RecoverWait,
    Is::RecoverDone,
    Is::ResolutionInterrupted,
    Is::ConflictDone,
];

/// Every state, STARTUP once for each state of before.
fn states() -> impl Iterator<Item = (String, State)> {
    let startup = STATES.into_iter().filter(|it| *it != Is::Startup).flat_map(|previous| {
        [false, true].into_iter().filter(move |alone| !alone || previous == Is::Recover).map(
            move |alone| {
                let note = if alone { ", alone" } else { "" };
                (format!("STARTUP after {previous}{note}"), State::Startup { previous, alone })
            },
        )
    });
    let others = STATES.into_iter().filter(|it| *it != Is::Startup);
    startup.chain(others.map(|name| (name.to_string(), State::after_startup(name))))
}

fn inputs() -> impl Iterator<Item = (String, Input)> {
    let partner = STATES.into_iter().map(|it| (format!("partner {it}"), Input::Partner(it)));
    partner.chain(
        [
            ("failed", Input::Failed),
            ("UPDDONE", Input::UpdDone),
            ("startup over", Input::StartupOver),
            ("recover-wait over", Input::RecoverWaitOver),
            ("auto-partner-down", Input::AutoPartnerDown),
            ("operator: partner-down", Input::PartnerDown),
            ("suspend", Input::Suspend),
            ("resume", Input::Resume),
        ]
        .map(|(name, input)| (name.to_owned(), input)),
    )
}

/// The whole table: one block for each role and state, one line for each input. A dash is no
/// transition.
fn print() -> String {
    let mut text = String::new();
    for (role, role_name) in [(Role::Primary, "primary"), (Role::Secondary, "secondary")] {
        for (name, state) in states() {
            writeln!(text, "{role_name} in {name}").unwrap();
            for (input_name, input) in inputs() {
                let Arrow { to, action } = arrow(role, state, input);
                let to = match to {
                    _ if to == state => "-".to_owned(),
                    State::Startup { previous, .. } => format!("STARTUP after {previous}"),
                    to => to.name().to_string(),
                };
                let action = match action {
                    Action::None => "",
                    Action::Request => ", send UPDREQ",
                    Action::Announce => ", repeat STATE",
                    Action::Disconnect => ", drop the connection",
                };
                writeln!(text, "    {input_name:<36}{to}{action}").unwrap();
            }
        }
    }
    text
}

/// The table is as it was reviewed. To take a changed one over: `GEMEL_BLESS=1 cargo test -p
/// gemel-failover`.
#[test]
fn every_pair_is_as_reviewed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/machine/table.txt");
    let (actual, mut pair) = (print(), String::new());
    if std::env::var_os("GEMEL_BLESS").is_some() {
        fs::write(&path, &actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    for (actual, expected) in actual.lines().zip(expected.lines()) {
        if !actual.starts_with(' ') {
            actual.clone_into(&mut pair);
        }
        assert_eq!(actual.trim(), expected.trim(), "{pair}");
    }
    assert_eq!(actual.lines().count(), expected.lines().count());
    assert_eq!(actual.lines().filter(|it| it.starts_with(' ')).count(), 2 * (10 + 9) * 18);
}

fn machine(role: Role, state: ServerState) -> Machine {
    Machine { role, state: State::after_startup(state), partner: None, requested: false }
}

#[test]
fn startup_follows_the_steps_of_the_rfc() {
    for (recorded, previous) in [
        (None, Is::Recover),
        (Some(Is::Normal), Is::CommunicationsInterrupted),
        (Some(Is::PotentialConflict), Is::ResolutionInterrupted),
        (Some(Is::PartnerDown), Is::PartnerDown),
        (Some(Is::RecoverWait), Is::RecoverWait),
    ] {
        let mut machine = Machine::new(Role::Secondary, recorded, false);
        assert_eq!((machine.state(), machine.told_state()), (Is::Startup, previous));
        assert!(machine.handle(Input::StartupOver).changed);
        assert_eq!(machine.state(), previous);
    }
    let mut alone = Machine::new(Role::Primary, None, true);
    alone.handle(Input::StartupOver);
    assert_eq!(alone.state(), Is::PartnerDown);
    let mut recorded = Machine::new(Role::Primary, Some(Is::Recover), true);
    recorded.handle(Input::StartupOver);
    assert_eq!(recorded.state(), Is::Recover);
    // A partner that is there is asked.
    let mut alone = Machine::new(Role::Primary, None, true);
    assert!(alone.hear(Is::Recover, false, false).request);
    assert_eq!(alone.state(), Is::Recover);
}

#[test]
fn partner_down_before_or_after_the_failure() {
    for (recorded, since_failure, after) in [
        (Is::Normal, true, Is::Recover),
        (Is::Normal, false, Is::PotentialConflict),
        (Is::PartnerDown, true, Is::Recover),
        (Is::PartnerDown, false, Is::PotentialConflict),
        (Is::RecoverDone, false, Is::Recover),
        (Is::RecoverWait, true, Is::Recover),
        (Is::RecoverWait, false, Is::RecoverWait),
        (Is::Recover, false, Is::Recover),
    ] {
        for startup in [false, true] {
            let mut machine = Machine::new(Role::Secondary, Some(recorded), false);
            let outcome = machine.hear(Is::PartnerDown, startup, since_failure);
            assert_eq!(machine.state(), after, "{recorded} {since_failure} {startup}");
            assert_eq!(outcome.request, after == Is::Recover && !startup);
        }
    }
}

#[test]
fn passes_through_states_without_a_word() {
    let mut machine = Machine::new(Role::Secondary, Some(Is::Normal), false);
    let outcome = machine.hear(Is::ConflictDone, false, false);
    // STARTUP, COMMUNICATIONS-INTERRUPTED, POTENTIAL-CONFLICT.
    assert_eq!(machine.state(), Is::PotentialConflict);
    assert!(outcome.changed && outcome.request);
    // One request is enough.
    assert_eq!(machine.hear(Is::ConflictDone, false, false), Outcome::default());
    assert!(machine.requested);
    assert!(machine.update_done().changed);
    assert_eq!(machine.state(), Is::Normal);
    assert!(!machine.requested);
}

#[test]
fn normal_waits_for_the_partner_to_follow() {
    let mut machine = machine(Role::Primary, Is::CommunicationsInterrupted);
    assert!(machine.hear(Is::CommunicationsInterrupted, false, false).changed);
    assert_eq!(machine.state(), Is::Normal);
    assert_eq!(machine.hear(Is::Normal, false, false), Outcome::default());
    // Of the way by COMMUNICATIONS-INTERRUPTED and back nothing is seen but a STATE message.
    let outcome = machine.hear(Is::CommunicationsInterrupted, false, false);
    assert_eq!(outcome, Outcome { announce: true, ..Outcome::default() });
}

#[test]
fn a_partner_in_startup_is_waited_for() {
    for state in STATES.into_iter().filter(|it| *it != Is::Startup) {
        for role in [Role::Primary, Role::Secondary] {
            let mut machine = machine(role, state);
            for told in STATES {
                assert_eq!(machine.hear(told, true, true), Outcome::default(), "{state}");
                assert_eq!(machine.state(), state);
            }
        }
    }
}

#[test]
fn the_operator_and_the_suspension_end_the_connection() {
    let mut machine = machine(Role::Primary, Is::CommunicationsInterrupted);
    machine.hear(Is::Normal, false, false);
    let mut suspended = machine.clone();
    let outcome = machine.handle(Input::PartnerDown);
    assert!(outcome.disconnect && outcome.changed);
    assert_eq!((machine.state(), machine.partner()), (Is::PartnerDown, None));
    assert!(suspended.handle(Input::Suspend).changed);
    assert_eq!((suspended.state(), suspended.partner()), (Is::Startup, None));
    assert_eq!(suspended.told_state(), Is::CommunicationsInterrupted);
    suspended.handle(Input::Resume);
    suspended.handle(Input::StartupOver);
    assert_eq!(suspended.state(), Is::CommunicationsInterrupted);
}
