//! Tells the operator of overload: once when it begins and once when it is over.
//!
//! The workers begin and stop dropping Solicits many times a second while too much comes in. Here
//! that is one overload, from the first Solicit dropped until none was for some seconds.

use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tracing::{info, warn};

use crate::status::unix_secs;

/// No Solicit was dropped for so long: the overload is over.
const QUIET: Duration = Duration::from_secs(5);

/// What the operator sees of overload.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct OverloadView {
    /// Whether Solicits are dropped.
    pub active: bool,
    /// Since when, or when the last overload began, in seconds since 1970.
    pub since: Option<u64>,
    /// How often that has happened.
    pub times: u64,
    /// Solicits dropped in all.
    pub solicits_shed: u64,
}

/// Follows the counters of the workers.
#[derive(Debug, Default)]
pub struct OverloadWatch {
    view: OverloadView,
    shed_before: u64,
    begun: Option<Instant>,
    last_shed: Option<Instant>,
}

/// A change that is logged.
#[derive(Debug, Eq, PartialEq)]
enum Event {
    Begins,
    Ends { seconds: u64, shed: u64 },
}

impl OverloadWatch {
    /// Takes in how many Solicits all workers have dropped so far; call it about once a second.
    pub fn look(&mut self, solicits_shed: u64) -> OverloadView {
        match self.step(solicits_shed, Instant::now(), SystemTime::now()) {
            Some(Event::Begins) => {
                warn!("overload: Solicits are dropped, so that clients with leases are served");
            }
            Some(Event::Ends { seconds, shed }) => {
                info!(seconds, solicits_shed = shed, "the overload is over");
            }
            None => {}
        }
        self.view
    }

    fn step(&mut self, shed: u64, now: Instant, wall: SystemTime) -> Option<Event> {
        let dropped = shed.saturating_sub(self.view.solicits_shed);
        self.view.solicits_shed = shed;
        if dropped > 0 {
            self.last_shed = Some(now);
        }
        if !self.view.active && dropped > 0 {
            self.shed_before = shed - dropped;
            self.begun = Some(now);
            self.view.active = true;
            self.view.since = Some(unix_secs(wall));
            self.view.times += 1;
            return Some(Event::Begins);
        }
        let quiet = self.last_shed.is_some_and(|last| now.duration_since(last) >= QUIET);
        if self.view.active && quiet {
            self.view.active = false;
            let lasted = self.last_shed.zip(self.begun).map(|(last, begun)| last - begun);
            let seconds = lasted.unwrap_or_default().as_secs();
            return Some(Event::Ends { seconds, shed: shed - self.shed_before });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overload_begins_once_and_ends_once() {
        let mut watch = OverloadWatch::default();
        let start = Instant::now();
        let mut events = Vec::new();
        // Second by second: how many were dropped so far.
        let shed = [0, 0, 10, 20, 20, 20, 90, 90, 90, 90, 90, 90, 90, 91];
        for (second, shed) in (0..).zip(shed) {
            let now = start + Duration::from_secs(second);
            if let Some(event) = watch.step(shed, now, SystemTime::now()) {
                events.push((second, event));
            }
        }
        let ends = Event::Ends { seconds: 4, shed: 90 };
        assert_eq!(events, [(2, Event::Begins), (11, ends), (13, Event::Begins)]);
        assert_eq!(watch.view.times, 2);
        assert!(watch.view.active);
    }
}
