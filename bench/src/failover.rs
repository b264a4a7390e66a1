//! What a failover looks like from the clients' side: who answered before and after an event, and
//! how long nobody did.

use std::collections::BTreeMap;

use gemel_wire::Duid;
use serde::{Deserialize, Serialize};

use crate::{
    engine::{ReplySeen, ServerSeen, World},
    events::Event,
    generator::Span,
    ledger::hex,
    number::{SECOND_NS, float, index, seconds, whole},
    oracle::Violation,
    stats::{Counter, Stats},
};

/// How far back is looked for the server that had the load before an event.
const BEFORE: u64 = SECOND_NS;

/// Width of a step of the timeline.
const STEP: u64 = SECOND_NS / 10;

/// What one event did.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct EventReport {
    /// The command, or the name of the signal.
    pub name: String,
    /// When the command was started or the signal was seen, seconds from the start of the run.
    pub started_s: f64,
    /// When the command had ended.
    pub finished_s: f64,
    /// What went wrong with the command.
    pub failure: Option<String>,
    /// DUID of the server that had given most leases in the second before; none if nobody had.
    pub server_before: Option<String>,
    /// From the start of the command to the first lease given by another server than that. Answers to RENEW do
    /// not count: the secondary of a pair gives those at all times (RFC 8156 section 8.5).
    pub takeover_ms: Option<f64>,
    /// The same from the end of the command; negative if the takeover came before.
    pub takeover_from_end_ms: Option<f64>,
    /// The longest time without any REPLY, up to the next event or the end of the load.
    pub outage_ms: f64,
    /// There was no REPLY at all any more.
    pub silent: bool,
    /// From the start of the command to each server's first REPLY, by DUID.
    pub first_reply_ms: BTreeMap<String, f64>,
}

/// What a whole run with events showed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct FailoverReport {
    /// The events in order.
    pub events: Vec<EventReport>,
    /// `takeover_ms` of the first event that has one.
    pub takeover_ms: Option<f64>,
    /// The longest time without any REPLY from the first event to the end of the load, whatever
    /// happened in between.
    pub outage_ms: f64,
    /// Leases that two clients held at the same time.
    pub duplicates: u64,
    /// Clients that were moved off a lease that was still valid.
    pub renumbered: u64,
    /// Clients that were told that a valid lease does not exist.
    pub forgotten: u64,
    /// Messages that were never answered, however often they were sent.
    pub lost: u64,
    /// The MCLT that grants were compared with, seconds.
    pub mclt_s: Option<u32>,
    /// Grants with a valid lifetime of at most the MCLT.
    pub grants_at_most_mclt: u64,
    /// Grants that ended before the client's earlier lease of the same address or prefix.
    pub lifetimes_shortened: u64,
    /// REPLY by tenth of a second.
    pub timeline: Timeline,
}

/// Who answered when.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Timeline {
    /// Length of a step, seconds.
    pub step_s: f64,
    /// REPLY of each server by DUID, step by step.
    pub replies: BTreeMap<String, Vec<u64>>,
}

impl FailoverReport {
    /// Works it out. `replies` and `events` are in order of time.
    #[must_use]
    pub fn new(
        events: &[Event],
        replies: &[ReplySeen],
        stats: &Stats,
        world: &World,
        span: &Span,
        mclt: Option<u32>,
    ) -> Self {
        let outage_ms = events.first().map_or(0.0, |first| {
            let after = &replies[replies.partition_point(|seen| seen.at < first.started)..];
            float(silence(first.started, span.sent.max(first.started), after)) / 1e6
        });
        let events: Vec<EventReport> = events
            .iter()
            .enumerate()
            .map(|(number, event)| {
                let until = events.get(number + 1).map_or(span.sent, |next| next.started);
                report(event, until.max(event.started), replies, &world.servers, span.begin)
            })
            .collect();
        Self {
            takeover_ms: events.iter().find_map(|event| event.takeover_ms),
            outage_ms,
            duplicates: world.violations(Violation::Duplicate),
            renumbered: world.violations(Violation::Renumbered),
            forgotten: world.violations(Violation::BindingForgotten),
            lost: stats.lost(),
            mclt_s: mclt,
            grants_at_most_mclt: stats.get(Counter::GrantAtMostMclt),
            lifetimes_shortened: stats.get(Counter::LifetimeShortened),
            timeline: timeline(replies, &world.servers, span),
            events,
        }
    }
}

fn report(
    event: &Event,
    until: u64,
    replies: &[ReplySeen],
    servers: &[ServerSeen],
    begin: u64,
) -> EventReport {
    let (before, after) = replies.split_at(replies.partition_point(|seen| seen.at < event.started));
    let main = main_server(before, event.started);
    let takeover =
        main.and_then(|main| after.iter().find(|seen| !seen.renew && seen.server != main));
    let mut first_reply_ms = BTreeMap::new();
    for seen in after {
        if let Some(duid) = name(servers, seen.server) {
            first_reply_ms.entry(duid).or_insert_with(|| ms(event.started, seen.at));
        }
        if first_reply_ms.len() == servers.len() {
            break;
        }
    }
    let within = &after[..after.partition_point(|seen| seen.at < until)];
    EventReport {
        name: event.name.clone(),
        started_s: seconds(event.started.saturating_sub(begin)),
        finished_s: seconds(event.finished.saturating_sub(begin)),
        failure: event.failure.clone(),
        server_before: main.and_then(|main| name(servers, main)),
        takeover_ms: takeover.map(|seen| ms(event.started, seen.at)),
        takeover_from_end_ms: takeover.map(|seen| ms(event.finished, seen.at)),
        outage_ms: float(silence(event.started, until, within)) / 1e6,
        silent: within.is_empty(),
        first_reply_ms,
    }
}

/// The longest time without a REPLY between two moments, ns.
fn silence(from: u64, until: u64, replies: &[ReplySeen]) -> u64 {
    let (mut last, mut longest) = (from, 0);
    let within = replies.iter().map(|seen| seen.at).take_while(|at| *at < until);
    for at in within.chain([until]) {
        longest = longest.max(at.saturating_sub(last));
        last = at;
    }
    longest
}

/// The server that gave most leases in the second before `now`; if nobody gave any, the last one that did.
fn main_server(before: &[ReplySeen], now: u64) -> Option<u8> {
    let recent = before.partition_point(|seen| seen.at + BEFORE < now);
    let mut counts = BTreeMap::<u8, u64>::new();
    for seen in before[recent..].iter().filter(|seen| !seen.renew) {
        *counts.entry(seen.server).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count).map(|(server, _)| server);
    most.or_else(|| before.iter().rfind(|seen| !seen.renew).map(|seen| seen.server))
}

fn timeline(replies: &[ReplySeen], servers: &[ServerSeen], span: &Span) -> Timeline {
    let step = |at: u64| index(u32::try_from(at.saturating_sub(span.begin) / STEP).unwrap_or(0));
    let mut by_server = vec![vec![0; step(span.end) + 1]; servers.len()];
    for seen in replies {
        if let Some(count) = by_server
            .get_mut(usize::from(seen.server))
            .and_then(|counts| counts.get_mut(step(seen.at)))
        {
            *count += 1;
        }
    }
    let named = servers.iter().map(|server| hex(server.duid.as_bytes())).zip(by_server);
    Timeline { step_s: seconds(STEP), replies: named.collect() }
}

fn name(servers: &[ServerSeen], server: u8) -> Option<String> {
    servers.get(usize::from(server)).map(|server| hex(Duid::as_bytes(&server.duid)))
}

/// Milliseconds from one moment to another, to the microsecond; negative if it lies before.
fn ms(from: u64, to: u64) -> f64 {
    let us = |ns: u64| float(whole(float(ns) / 1e3)) / 1e3;
    if to >= from { us(to - from) } else { -us(from - to) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = SECOND_NS / 1000;
    const PRIMARY: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 1];
    const SECONDARY: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 2];

    fn world() -> World {
        let mut world = World::new(1, 1, 1);
        for duid in [PRIMARY, SECONDARY] {
            let duid = Duid::new(duid).unwrap();
            world.servers.push(ServerSeen { duid, advertises: 0, replies: 0 });
        }
        world
    }

    fn event(name: &str, started: u64, finished: u64) -> Event {
        Event { name: name.into(), started, finished, failure: None }
    }

    fn analyse(events: &[Event], replies: &[ReplySeen]) -> FailoverReport {
        let span = Span {
            begin: 0,
            sent: 10 * SECOND_NS,
            end: 11 * SECOND_NS,
            interrupted: false,
            cpu: 0,
        };
        FailoverReport::new(events, replies, &Stats::new(0), &world(), &span, Some(60))
    }

    fn every(step: u64, from: u64, to: u64, server: u8, renew: bool) -> Vec<ReplySeen> {
        (from..to)
            .step_by(usize::try_from(step).unwrap())
            .map(|at| ReplySeen { at, server, renew })
            .collect()
    }

    /// The primary serves until it is killed at 3 s, the secondary from 3.25 s on; all the time the
    /// secondary answers a RENEW now and then.
    fn killed() -> Vec<ReplySeen> {
        let mut replies = every(MS, 0, 3000 * MS, 0, false);
        replies.extend(every(500 * MS, MS, 3100 * MS, 1, true));
        replies.extend(every(MS, 3250 * MS, 10_000 * MS, 1, false));
        replies.sort_by_key(|seen| seen.at);
        replies
    }

    #[test]
    fn a_takeover_counts_from_both_ends_of_the_command() {
        let report = analyse(&[event("kill", 3000 * MS, 3002 * MS)], &killed());
        let kill = &report.events[0];
        assert_eq!(kill.server_before.as_deref(), Some(hex(PRIMARY).as_str()));
        assert_eq!(kill.takeover_ms, Some(250.0), "an answer to RENEW is no takeover");
        assert_eq!(kill.takeover_from_end_ms, Some(248.0));
        assert_eq!(report.takeover_ms, Some(250.0));
        // A RENEW was answered at 3.001 s.
        assert!((kill.outage_ms - 249.0).abs() < 1e-9, "{kill:?}");
        assert_eq!(kill.first_reply_ms[&hex(SECONDARY)], 1.0);
        assert!(!kill.first_reply_ms.contains_key(&hex(PRIMARY)));
        assert!(!kill.silent);
    }

    #[test]
    fn an_event_that_changes_nothing_has_no_takeover() {
        let replies = every(MS, 0, 10_000 * MS, 0, false);
        let report = analyse(&[event("heal", 5000 * MS, 5000 * MS)], &replies);
        assert_eq!((report.takeover_ms, report.events[0].takeover_ms), (None, None));
        assert!((report.outage_ms - 1.0).abs() < 1e-9);
    }

    #[test]
    fn an_outage_of_an_event_ends_with_the_next_one_or_the_load() {
        let replies = every(MS, 0, 2001 * MS, 0, false);
        let report = analyse(
            &[event("a", 2000 * MS, 2000 * MS), event("b", 4000 * MS, 9000 * MS)],
            &replies,
        );
        assert_eq!(report.events[0].outage_ms, 2000.0);
        assert_eq!(report.events[1].outage_ms, 6000.0, "until the load ends");
        assert!(report.events[1].silent && !report.events[0].silent);
        assert_eq!(report.outage_ms, 8000.0, "clients do not care for events");
        assert_eq!(
            report.events[1].server_before.as_deref(),
            Some(hex(PRIMARY).as_str()),
            "the last one that served, long ago"
        );
    }

    #[test]
    fn an_event_does_not_cut_the_outage_of_the_run() {
        // The server is killed at 5 s, started at 7 s, and answers at 9 s.
        let mut replies = every(MS, 0, 5000 * MS, 0, false);
        replies.extend(every(MS, 9000 * MS, 12_000 * MS, 0, false));
        let (kill, start) =
            (event("kill", 5000 * MS, 5000 * MS), event("start", 7000 * MS, 7000 * MS));
        let report = analyse(&[kill, start], &replies);
        assert_eq!(report.events.iter().map(|e| e.outage_ms).collect::<Vec<_>>(), [2000.0; 2]);
        assert_eq!(report.outage_ms, 4000.0);
        // What came before the first event, and after the load, is not of interest.
        assert_eq!(analyse(&[event("late", 9500 * MS, 9500 * MS)], &replies).outage_ms, 1.0);
        assert_eq!(analyse(&[], &[]).outage_ms, 0.0);
    }

    #[test]
    fn the_way_back_is_a_takeover_too() {
        let mut replies = every(MS, 0, 1000 * MS, 1, false);
        replies.extend(every(MS, 1030 * MS, 2000 * MS, 0, false));
        let report = analyse(&[event("start", 500 * MS, 1100 * MS)], &replies);
        assert_eq!(report.events[0].takeover_ms, Some(530.0));
        assert_eq!(report.events[0].takeover_from_end_ms, Some(-70.0));
    }

    #[test]
    fn nothing_at_all_is_no_takeover() {
        let report = analyse(&[event("kill", 3000 * MS, 3000 * MS)], &[]);
        let kill = &report.events[0];
        assert_eq!((kill.takeover_ms, kill.server_before.clone()), (None, None));
        assert!(kill.silent);
        assert_eq!(kill.outage_ms, 7000.0);
    }

    #[test]
    fn the_timeline_adds_up() {
        let report = analyse(&[], &killed());
        let sum = |duid: &[u8]| report.timeline.replies[&hex(duid)].iter().sum::<u64>();
        assert_eq!(sum(PRIMARY), 3000);
        assert_eq!(sum(SECONDARY), 6750 + 7);
        assert_eq!(report.timeline.replies[&hex(PRIMARY)][29..31], [100, 0]);
    }
}
