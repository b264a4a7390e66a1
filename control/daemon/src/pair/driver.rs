//! The pair thread: feeds the endpoints with what happens and does what they ask for.
//!
//! It owns all endpoints. For durability it is a worker like those of the packets: what the
//! endpoints change goes through a [`Submitter`] to the control thread. It sleeps until its bell
//! rings or a timer is due, and each turn of its loop is bounded, so that no relationship starves
//! another.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, Sender};
use gemel_failover::{Command, Env, Now, Role};
use gemel_lease::LeaseTable;
use gemel_worker::{
    submit::{self, ServiceState, StoreState, Submitter},
    wall_clock,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tracing::warn;

use super::{
    member::{Member, Suspension},
    tap::TapReceiver,
    transport::{Event, Transport},
    view::RelationshipView,
};
use crate::control::Resolvers;

#[cfg(test)]
mod tests;

/// Events of the transport that one turn takes.
const EVENTS_PER_TURN: usize = 16;
/// Chunks of others' updates that one turn takes.
const CHUNKS_PER_TURN: usize = 64;
/// Octets of changes that may wait for the control thread before nothing more is taken in.
const OPEN_MAX: usize = 1 << 20;
/// How long changes that come from a partner are collected before they go to the control thread.
///
/// No client waits for them, and each group commit that they save is one that a client's REPLY does
/// not have to wait behind: with ten of them in a second, fewer than one REPLY in a hundred meets one.
const SUBMIT_DELAY: Duration = Duration::from_millis(100);
/// Octets of changes that are enough to go at once, some hundred: a partner that sends many must not
/// run out of updates that it may have on their way.
const SUBMIT_OCTETS: usize = 16 << 10;
/// How often the operator's view is made anew, and what failed is tried again.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// The least pause while there is nothing to do at once: a timer that does not move on must not keep
/// a processor busy.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// How long the end may wait for the disk.
const STOP_TIME: Duration = Duration::from_secs(2);

/// What others ask of the pair thread.
#[derive(Debug)]
pub enum Instruction {
    /// An operator's command.
    Operate {
        /// To which relationship, by its place in the configuration.
        relationship: usize,
        /// What to do.
        command: Command,
        /// Whether it was done, or why not.
        reply: Sender<Result<(), String>>,
    },
    /// The operator takes this server out of service, or puts it back.
    Drain {
        /// Which relationship; `None` for all.
        relationship: Option<usize>,
        /// Out, or back.
        on: bool,
        /// Whether it was done, or why not.
        reply: Sender<Result<(), String>>,
    },
    /// The clients of a relationship can reach this server, or cannot.
    Reachable {
        /// Which relationship.
        relationship: usize,
        /// Whether they can.
        reachable: bool,
    },
    /// The server stops.
    Stop,
}

/// What the endpoints work with.
pub(super) struct Ground {
    /// The bindings.
    pub(super) table: Arc<LeaseTable>,
    /// Names of the pools, by their id.
    pub(super) pool_names: Vec<String>,
    /// To the control thread.
    pub(super) submitter: Submitter,
    /// What tells how far the control thread has stored what it and the workers change.
    pub(super) service: Arc<ServiceState>,
    /// See above.
    pub(super) resolvers: Resolvers,
    /// The beginning of the monotonic clock.
    pub(super) begun: Instant,
}

impl Ground {
    pub(super) fn now(&self) -> Now {
        Now { wall: wall_clock(), monotonic: self.begun.elapsed() }
    }

    /// For one input at `now`.
    pub(super) fn env(&mut self, now: Now) -> Env<'_> {
        let stored_before = submit::stored_before(
            || self.table.stamp(),
            &self.service,
            self.resolvers.read().iter().flatten(),
        );
        let (updates, sequence) = self.submitter.open();
        Env { table: &self.table, now, stored_before, updates, sequence }
    }
}

/// The pair thread's ends of what connects it with others.
pub struct Ends {
    /// What the control thread says of the store.
    pub service: Arc<ServiceState>,
    /// Updates of others that have become durable.
    pub tap: TapReceiver,
    /// What others ask for.
    pub instructions: Receiver<Instruction>,
    /// Where the bell is heard that rings when something has come.
    pub heard: Receiver<()>,
    /// Where the operator's view is put.
    pub views: Arc<Mutex<Vec<RelationshipView>>>,
}

/// The state of the pair thread; [`Driver::run`] is the thread.
pub struct Driver {
    members: Vec<Member>,
    ground: Ground,
    ends: Ends,
    /// Dropped before the transport, which then need not wait to tell anything more.
    events: mpsc::Receiver<Event>,
    transport: Transport,
    tick_due: Duration,
    /// When to hand over what has been collected; none if there is nothing.
    submit_due: Option<Duration>,
    store_state: StoreState,
    /// When to end at the latest, once it has been asked to.
    end_by: Option<Duration>,
}

impl Driver {
    pub(super) fn new(
        members: Vec<Member>,
        ground: Ground,
        ends: Ends,
        transport: Transport,
        events: mpsc::Receiver<Event>,
    ) -> Self {
        let driver = Self {
            members,
            ground,
            ends,
            transport,
            events,
            tick_due: Duration::ZERO,
            submit_due: None,
            store_state: StoreState::Working,
            end_by: None,
        };
        driver.publish();
        driver
    }

    /// Runs until [`Instruction::Stop`] has been followed: the partners know, and the state is on
    /// the disk.
    pub fn run(mut self) {
        loop {
            let more = self.turn();
            let now = self.ground.now().monotonic;
            if let Some(end_by) = self.end_by {
                let nothing_left = self.ground.submitter.open().0.is_empty()
                    && !self.members.iter().any(Member::is_saving);
                if (nothing_left && !more) || now >= end_by {
                    self.publish();
                    return;
                }
            }
            if more {
                // Whatever has rung until now is seen by the next turn.
                let _ = self.ends.heard.try_recv();
            } else {
                // Also where the control thread's queue was full: it does not ring when it is not.
                let wait = self.next_due().saturating_sub(now).max(PAUSE_MIN);
                let _ = self.ends.heard.recv_timeout(wait);
            }
        }
    }

    /// One turn; true if there is more to do at once.
    fn turn(&mut self) -> bool {
        let word = self.ends.service.load();
        let mut more = false;
        while let Some((sequence, stored)) = self.ground.submitter.resolved() {
            let now = self.ground.now();
            for member in &mut self.members {
                member.endpoint.stored(sequence, stored, &mut self.ground.env(now));
                // Before the next event, as below.
                member.follow(&mut self.ground, now);
            }
        }
        // What is taken in leads to changes, and they have to fit.
        if self.ground.submitter.open().0.as_bytes().len() < OPEN_MAX {
            more |= self.take_events();
            more |= self.take_committed();
        }
        self.take_instructions();
        let now = self.ground.now();
        let is_tick = now.monotonic >= self.tick_due;
        let store_changed = std::mem::replace(&mut self.store_state, word.state()) != word.state();
        for (relationship, member) in self.members.iter_mut().enumerate() {
            if member.endpoint.next_timeout().is_some_and(|due| now.monotonic >= due) {
                member.endpoint.timeout(&mut self.ground.env(now));
            }
            if is_tick {
                member.tick(&self.ground, now.monotonic);
            }
            if is_tick || store_changed {
                member.watch_store(self.store_state, now);
            }
            member.suspend_or_resume(&mut self.ground, now);
            more |= member.endpoint.poll(&mut self.ground.env(now));
            more |= member.follow(&mut self.ground, now);
            if member.dial_now(now.monotonic) {
                self.transport.dial(relationship);
            }
        }
        if is_tick || self.members.iter_mut().any(Member::take_changed) {
            self.tick_due = now.monotonic + TICK;
            self.publish();
        }
        self.submit(now.monotonic);
        self.ground.submitter.acknowledge(word);
        more
    }

    /// Hands over what has been collected, if it is time.
    fn submit(&mut self, now: Duration) {
        let collected = self.ground.submitter.open().0.as_bytes().len();
        if collected == 0 {
            self.submit_due = None;
            return;
        }
        let due = *self.submit_due.get_or_insert(now + SUBMIT_DELAY);
        let waiting = now < due && collected < SUBMIT_OCTETS;
        // A store that has failed asks for everything at once.
        if waiting && self.end_by.is_none() && self.store_state == StoreState::Working {
            return;
        }
        // Should the control thread be gone, so is the server.
        let _ = self.ground.submitter.submit();
        if self.ground.submitter.open().0.is_empty() {
            self.submit_due = None;
        }
    }

    /// Takes some of what the transport tells; true if that was all that is allowed at once.
    fn take_events(&mut self) -> bool {
        for _ in 0..EVENTS_PER_TURN {
            let Ok(event) = self.events.try_recv() else { return false };
            let relationship = match &event {
                Event::Connected { relationship, .. }
                | Event::DialFailed { relationship, .. }
                | Event::Received { relationship, .. }
                | Event::Closed { relationship, .. } => *relationship,
            };
            if let Some(member) = self.members.get_mut(relationship) {
                let now = self.ground.now();
                member.event(event, &mut self.ground, now);
                // Before the next event: what is asked for may be about this connection.
                member.follow(&mut self.ground, now);
            }
        }
        true
    }

    /// Takes some of what others have made durable; true if that was all that is allowed at once.
    fn take_committed(&mut self) -> bool {
        let now = self.ground.now();
        if self.ends.tap.take_missed() {
            for member in &mut self.members {
                member.endpoint.missed(&mut self.ground.env(now));
            }
        }
        for _ in 0..CHUNKS_PER_TURN {
            let Some(chunk) = self.ends.tap.next() else { return false };
            for member in &mut self.members {
                member.endpoint.committed(&chunk, &mut self.ground.env(now));
            }
        }
        true
    }

    fn take_instructions(&mut self) {
        while let Ok(instruction) = self.ends.instructions.try_recv() {
            let now = self.ground.now();
            match instruction {
                Instruction::Operate { relationship, command, reply } => {
                    let result = match self.members.get_mut(relationship) {
                        Some(member) => member.operate(command, &mut self.ground, now),
                        None => Err("there is no such relationship".to_owned()),
                    };
                    self.publish();
                    // Who has asked may have given up.
                    let _ = reply.send(result);
                }
                Instruction::Drain { relationship, on, reply } => {
                    let mut result = Ok(());
                    for (place, member) in self.members.iter_mut().enumerate() {
                        if relationship.is_none_or(|one| one == place) {
                            let done = member.suspend(Suspension::Drain, on, &mut self.ground, now);
                            result = result.and(done);
                        }
                    }
                    self.publish();
                    let _ = reply.send(result);
                }
                Instruction::Reachable { relationship, reachable } => {
                    if let Some(member) = self.members.get_mut(relationship) {
                        // Tried again where the state does not allow it yet.
                        let _ =
                            member.suspend(Suspension::LinkLoss, !reachable, &mut self.ground, now);
                    }
                }
                Instruction::Stop => {
                    self.end_by = Some(now.monotonic + STOP_TIME);
                    for member in &mut self.members {
                        if let Err(reason) =
                            member.suspend(Suspension::Stop, true, &mut self.ground, now)
                        {
                            let relationship = &*member.config.name;
                            warn!(relationship, reason, "stopping without the partner's knowing");
                        }
                    }
                }
            }
        }
    }

    /// When something is due that nobody rings for.
    fn next_due(&self) -> Duration {
        let due = self.members.iter().filter_map(Member::next_due).min();
        let due = due.map_or(self.tick_due, |due| due.min(self.tick_due));
        self.submit_due.map_or(due, |submit| due.min(submit))
    }

    /// Makes the operator's view anew.
    fn publish(&self) {
        let now = self.ground.now();
        let listening = self.transport.listening().lock().clone();
        let views = self.members.iter().map(|member| {
            let mut view = member.view(&self.ground, now);
            if member.config.role == Role::Secondary {
                let own = listening.iter().find(|listening| {
                    let port = member.config.port;
                    let local = member.config.local;
                    listening.asked.port() == port
                        && local.is_none_or(|local| listening.asked.ip() == local)
                        && listening.asked.is_ipv6() == member.config.partner.is_ipv6()
                });
                view.listening =
                    own.map(|own| own.error.clone().unwrap_or_else(|| own.address.to_string()));
            }
            view
        });
        *self.ends.views.lock() = views.collect();
    }
}
