//! Binding updates between the partners (RFC 8156 section 7): which are sent when, what is answered
//! to the partner's, and the balance of prefixes.
//!
//! What has to be sent comes from two sources. The queue has the leases that have just changed. A
//! walk goes through the table stripe by stripe; it finds what was pending before, what the queue
//! could not take, and what the partner asks for (UPDREQ, UPDREQALL). Either way the lease is sent
//! as it is at that moment, and only if the partner does not know it yet. The window bounds what is
//! on its way.

mod counters;
mod held;
mod pools;
mod queue;
mod receive;
mod reply;
mod send;
#[cfg(test)]
mod tests;
mod walk;
mod window;

use std::{collections::VecDeque, time::Duration};

use gemel_lease::{AbsoluteTime, Lease, PoolId, Record, RecordIter};
use gemel_wire::{MessageType, TransactionId, failover::FRAME_LEN_MAX};

use crate::{Config, Env, Now, broken::Rule, outbox::Outbox};

pub use counters::{FlowCounters, ResyncProgress, StatusCounts};
use held::Held;
use pools::Keeper;
use queue::Queue;
use walk::{Purpose, Walk};
use window::Window;

/// What the state of the endpoint allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// Only replies to the partner's updates.
    Quiet,
    /// Besides, updates that the partner has asked for.
    Answering,
    /// All updates; the balance of prefixes is kept.
    Normal,
    /// The waits of section 8.4.1. The partner may be connected, in RECOVER: its requests are
    /// answered.
    PartnerDown {
        /// When the state was entered.
        since: AbsoluteTime,
        /// In seconds.
        mclt: u32,
        /// The partner is connected and has all that it has asked for: it hears of what comes after
        /// that as it comes, should this server not live until the partner serves again.
        is_flowing: bool,
    },
}

/// How what the partner tells is taken while this server recovers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Recovery {
    /// This server has lost its memory, and with it what it told its clients; this MCLT limited
    /// that.
    pub(crate) forgotten: Option<u32>,
    /// The partner is in PARTNER-DOWN state, and this server answers nobody: see
    /// [`is_freed_rightly`](crate::conflict::is_freed_rightly).
    pub(crate) from_partner_down: bool,
}

/// What [`Flow::send_pending`] waits for.
///
/// The walk alone is not enough. What changes while it goes on is in the queue, also where the walk
/// has not told yet what was before: a lease that has become this server's, and then a client's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Settling {
    /// The end of the walk.
    Walk,
    /// The storing of all that had changed at that time, up to this stamp: then it is in the queue.
    Stored(u64),
    /// The sending of what is in the queue before this mark.
    Queue(u64),
    /// The answers to what is in the window before this mark.
    Window(u64),
}

/// BNDUPD messages without an answer that this server keeps track of, whatever the partner allows.
const WINDOW_MAX: usize = 4096;
/// Requests of the partner's that are kept at once; it has no reason for more than two.
const REQUESTS_MAX: usize = 16;
/// After this time rejected updates are sent again (section 7.5.4, "periodic scan").
const RESCAN_INTERVAL: Duration = Duration::from_secs(60);
/// When to try again after the transport did not take messages away, or the store was not as far.
const BLOCKED_INTERVAL: Duration = Duration::from_millis(10);
/// The tag of updates that come from the queue.
const QUEUE_TAG: u32 = 0;

/// The flow of binding updates over one connection after another.
#[derive(Debug)]
pub(crate) struct Flow {
    config: Config,
    pools: Pools,
    is_connected: bool,
    /// As of the last call of [`Flow::poll`].
    phase: Phase,
    /// Changes go into the queue: everything before them has been or is being searched for.
    is_flowing: bool,
    queue: Queue,
    window: Window,
    held: Held,
    /// This server's own walk, and the one to begin after it.
    own: Option<Walk>,
    next_own: Option<Purpose>,
    /// How far [`Flow::send_pending`] is.
    settling: Option<Settling>,
    requests: VecDeque<Walk>,
    last_tag: u32,
    /// Counts messages, to share the window between queue and walks.
    turn: u32,
    rescan_at: Option<Duration>,
    blocked_until: Option<Duration>,
    keeper: Keeper,
    recovery: Recovery,
    /// The partner has told of names, on this connection.
    has_names: bool,
    /// A batch was lost: what is in the table need not be in the store.
    in_doubt: bool,
    counters: FlowCounters,
    group: Vec<Record>,
    scratch: Box<[u8]>,
}

/// The pools of the relationship.
#[derive(Debug)]
struct Pools {
    ids: Vec<PoolId>,
    is_ours: Vec<bool>,
}

impl Pools {
    fn contains(&self, id: PoolId) -> bool {
        self.is_ours.get(usize::from(id.0)).is_some_and(|is_ours| *is_ours)
    }
}

impl Flow {
    pub(crate) fn new(config: &Config, pools: Vec<PoolId>) -> Self {
        let mut is_ours = Vec::new();
        for id in &pools {
            let index = usize::from(id.0);
            is_ours.resize(is_ours.len().max(index + 1), false);
            is_ours[index] = true;
        }
        Self {
            config: config.clone(),
            pools: Pools { ids: pools, is_ours },
            is_connected: false,
            phase: Phase::Quiet,
            is_flowing: false,
            queue: Queue::new(queue::LIMIT),
            window: Window::default(),
            held: Held::default(),
            own: None,
            next_own: None,
            settling: None,
            requests: VecDeque::new(),
            last_tag: QUEUE_TAG,
            turn: 0,
            rescan_at: None,
            blocked_until: None,
            keeper: Keeper::default(),
            recovery: Recovery::default(),
            has_names: false,
            in_doubt: false,
            counters: FlowCounters::default(),
            group: Vec::new(),
            scratch: vec![0; 2 + FRAME_LEN_MAX].into(),
        }
    }

    /// The handshake is done. Nothing is sent until [`Flow::poll`] is given a phase that allows it.
    pub(crate) fn connect(&mut self, max_unacked: u32) {
        self.disconnect();
        let limit = usize::try_from(max_unacked).unwrap_or(WINDOW_MAX).clamp(1, WINDOW_MAX);
        self.window.reset(limit);
        self.has_names = false;
        self.is_connected = true;
    }

    /// Everything that belongs to the connection is forgotten.
    pub(crate) fn disconnect(&mut self) {
        self.is_connected = false;
        self.is_flowing = false;
        self.queue.reset();
        self.window.reset(0);
        self.held.clear();
        self.own = None;
        self.next_own = None;
        self.settling = None;
        self.requests.clear();
        self.rescan_at = None;
        self.blocked_until = None;
        self.keeper.disconnect();
    }

    /// Updates of others are durable, in their stored form.
    pub(crate) fn committed(&mut self, updates: &[u8], env: &mut Env<'_>) {
        if !self.is_flowing {
            return;
        }
        // These octets were never anywhere but in memory.
        for record in RecordIter::new(updates).filter_map(Result::ok) {
            let Record { binding, stamp } = record;
            let is_ours = |id| self.pools.contains(id);
            if binding.update_pending
                && env.table.pools().find(binding.lease, binding.kind).is_some_and(is_ours)
            {
                self.enqueue(binding.lease, stamp);
            }
        }
    }

    /// Some of what was committed has not been told.
    pub(crate) fn missed(&mut self) {
        if self.is_flowing {
            self.walk(Purpose::Unsent);
        }
    }

    /// The partner is to know everything that is pending; [`Flow::settled`] tells when it does.
    pub(crate) fn send_pending(&mut self) {
        self.is_flowing = self.is_connected;
        self.settling = self.is_connected.then_some(Settling::Walk);
        self.own = None;
        self.next_own = None;
        if self.is_connected {
            self.walk(Purpose::Unacknowledged);
        }
    }

    /// Says what has to be minded while this server recovers.
    pub(crate) fn recover(&mut self, recovery: Recovery) {
        self.recovery = recovery;
    }

    /// The partner's UPDREQ, or UPDREQALL.
    pub(crate) fn answer_request(&mut self, all: bool, id: TransactionId) {
        if self.is_connected && self.requests.len() < REQUESTS_MAX {
            let tag = self.next_tag();
            self.requests.push_back(Walk::new(Purpose::Request { all, id }, tag));
        }
    }

    /// The partner's POOLREQ.
    pub(crate) fn pool_request(&mut self, id: TransactionId) {
        if self.is_connected {
            self.keeper.request(id);
        }
    }

    /// The fate of the batches up to `sequence`. False if updates were lost that the partner must
    /// not believe stored: the connection has to be dropped.
    pub(crate) fn stored(
        &mut self,
        sequence: u64,
        stored: bool,
        outbox: &mut Outbox,
        _now: Now,
    ) -> bool {
        if stored {
            self.held.release(sequence, outbox);
            return true;
        }
        self.in_doubt = true;
        self.held.lost(sequence);
        false
    }

    /// Does what the phase allows, a bounded part of it. True if there is more that can be done at
    /// once. Where the transport is what stands in the way, the driver calls again when that has
    /// taken the messages; after [`Flow::next_timeout`] at the latest.
    pub(crate) fn poll(&mut self, phase: Phase, env: &mut Env<'_>, outbox: &mut Outbox) -> bool {
        self.phase = phase;
        self.blocked_until = None;
        self.keep_pools(phase, env, outbox);
        if !self.is_connected {
            return false;
        }
        let more = match phase {
            Phase::Quiet => return false,
            // The partner is about to serve again, and hears first of what has changed hands.
            Phase::PartnerDown { .. } if self.settling.is_some() => self.send_all(env, outbox),
            Phase::PartnerDown { is_flowing: true, .. } => {
                if !self.is_flowing {
                    self.is_flowing = true;
                    self.walk(Purpose::Unacknowledged);
                }
                self.send_all(env, outbox)
            }
            Phase::Answering | Phase::PartnerDown { .. } => self.send_updates(false, env, outbox),
            Phase::Normal => {
                self.rescan_if_due(env.now.monotonic);
                self.send_all(env, outbox)
            }
        };
        self.finish_requests(env, outbox);
        more
    }

    /// Whether the partner has answered all that [`Flow::send_pending`] was to tell it.
    pub(crate) fn settled(&self) -> bool {
        self.settling.is_none()
    }

    /// When the oldest BNDUPD without an answer was sent.
    pub(crate) fn oldest_unanswered(&self) -> Option<Duration> {
        self.window.oldest()
    }

    /// When to call [`Flow::poll`] if nothing happens before.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        let rescan = self.rescan_at.filter(|_| self.phase == Phase::Normal);
        [rescan, self.blocked_until, self.keeper.next_timeout()].into_iter().flatten().min()
    }

    /// Answers that wait for the store.
    pub(crate) fn held_octets(&self) -> usize {
        self.held.octets()
    }

    /// For the operator.
    pub(crate) fn counters(&self) -> FlowCounters {
        let request = self.requests.front();
        FlowCounters {
            queued: self.queue.len() as u64,
            unacked: self.window.unanswered() as u64,
            replies_waiting: self.held.frames(),
            resync: request.map(|walk| {
                let (stripes_done, stripes_total) = walk.progress();
                ResyncProgress {
                    all: matches!(walk.purpose, Purpose::Request { all: true, .. }),
                    stripes_done,
                    stripes_total,
                    sent: walk.sent,
                    unacked: walk.unanswered,
                }
            }),
            ..self.counters.clone()
        }
    }

    fn is_broken(&self, rule: Rule) -> bool {
        self.config.broken == Some(rule)
    }

    /// Has a lease sent soon, as its changes up to `stamp` have made it.
    fn enqueue(&mut self, lease: Lease, stamp: u64) {
        if self.is_flowing && !self.queue.push(lease, stamp) {
            self.counters.overflows += 1;
            // What was in the queue is in the table, and so is this one.
            self.walk(Purpose::Unsent);
        }
    }

    /// Begins an own walk, now or after the present one.
    fn walk(&mut self, purpose: Purpose) {
        if self.own.is_some() {
            if self.next_own != Some(Purpose::Unacknowledged) {
                self.next_own = Some(purpose);
            }
            return;
        }
        let tag = self.next_tag();
        self.own = Some(Walk::new(purpose, tag));
    }

    fn next_tag(&mut self) -> u32 {
        self.last_tag = self.last_tag.wrapping_add(1).max(QUEUE_TAG + 1);
        self.last_tag
    }

    fn rescan_if_due(&mut self, now: Duration) {
        if self.rescan_at.is_some_and(|at| at <= now) {
            self.rescan_at = None;
            self.walk(Purpose::Unacknowledged);
        }
    }

    /// Sends from all sources. True if there is more to do at once.
    fn send_all(&mut self, env: &mut Env<'_>, outbox: &mut Outbox) -> bool {
        let sent = self.send_updates(true, env, outbox);
        let ended = self.finish_own_walk();
        self.settle_on(env);
        ended || sent
    }

    /// True if something may be done now that had to wait for the end of the walk.
    fn finish_own_walk(&mut self) -> bool {
        if !self.own.as_ref().is_some_and(Walk::is_done) {
            return false;
        }
        self.own = None;
        if let Some(purpose) = self.next_own.take() {
            self.walk(purpose);
        }
        true
    }

    /// Goes from one wait to the next as each is over; see [`Settling`].
    fn settle_on(&mut self, env: &Env<'_>) {
        while let Some(settling) = self.settling {
            self.settling = match settling {
                // What the queue could not take is looked for by another walk.
                _ if self.own.is_some() => {
                    self.settling = Some(Settling::Walk);
                    return;
                }
                Settling::Walk => Some(Settling::Stored(env.table.stamp())),
                Settling::Stored(stamp) if stamp < env.stored_before => {
                    Some(Settling::Queue(self.queue.mark()))
                }
                Settling::Stored(_) => {
                    self.blocked_until.get_or_insert(env.now.monotonic + BLOCKED_INTERVAL);
                    return;
                }
                Settling::Queue(mark) if self.queue.has_passed(mark) => {
                    Some(Settling::Window(self.window.mark()))
                }
                Settling::Window(mark) if self.window.has_passed(mark) => None,
                Settling::Queue(_) | Settling::Window(_) => return,
            };
        }
    }

    /// Sends UPDDONE for what is answered in full (section 5.3.7).
    fn finish_requests(&mut self, env: &Env<'_>, outbox: &mut Outbox) {
        if self.requests.is_empty() {
            return;
        }
        let counters = &mut self.counters;
        self.requests.retain(|walk| {
            let Purpose::Request { id, .. } = walk.purpose else { return false };
            if walk.is_done() {
                outbox.bare(MessageType::UPDDONE, id, env.now);
                counters.requests_done += 1;
            }
            !walk.is_done()
        });
    }
}
