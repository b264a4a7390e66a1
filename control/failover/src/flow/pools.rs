//! Whose the free leases are: the balance of prefixes in NORMAL state (RFC 8156 section 4.2.2), and
//! what becomes this server's in PARTNER-DOWN (section 8.4.1).

use std::{collections::VecDeque, time::Duration};

use gemel_lease::{AbsoluteTime, Lease, PoolId, PoolRange};
use gemel_wire::{MessageType, TransactionId};

use super::{Flow, Phase, REQUESTS_MAX};
use crate::{
    Env, Role,
    balance::{self, Move},
    broken::Rule,
    outbox::Outbox,
};

/// Between two looks at the balance. There is no watch on the counts; this is soon enough for
/// whatever changes them, and costs two loads for each pool. Nobody is woken for it while the table
/// stays as it is: what changes the table is told to the endpoint, which is polled then. Whatever else
/// it is polled for, it looks, if the last time is long enough ago.
const BALANCE_INTERVAL: Duration = Duration::from_secs(1);
/// Prefixes of one pool that change hands at once.
const MOVE_MAX: u64 = 4096;
/// In PARTNER-DOWN state the whole table is looked through in this time, in so many steps at most:
/// a small table has fewer stripes than that.
const WALK_TIME: Duration = Duration::from_secs(10);
const STEPS_PER_WALK: usize = 100;
/// Prefixes of one pool that are taken over in one step.
const TAKE_OVER_MAX: u64 = 1024;

/// Keeps the pools.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    /// POOLREQs to be answered.
    requests: VecDeque<TransactionId>,
    /// When to look at the balance, while that has to be kept.
    balance_at: Option<Duration>,
    /// The last stamp of the table at the last look, and whether there have been others since.
    looked_at: u64,
    has_changed: bool,
    /// A look at the balance had to be put off: at the next opportunity.
    is_put_off: bool,
    /// The partner may have been asked for prefixes of its own.
    may_reclaim: bool,
    /// Prefixes that are on their way to another owner.
    moving: Option<Moving>,
    moved: Vec<Lease>,
    /// When to go on in PARTNER-DOWN state.
    step_at: Option<Duration>,
    stripe: usize,
}

/// How far the last move is: prefixes are moved again only when it has been answered.
#[derive(Clone, Copy, Debug)]
enum Moving {
    /// In the queue, before this mark.
    Queue(u64),
    /// In the window, before this mark.
    Window(u64),
}

impl Keeper {
    pub(super) fn request(&mut self, id: TransactionId) {
        if self.requests.len() < REQUESTS_MAX {
            self.requests.push_back(id);
        }
    }

    pub(super) fn disconnect(&mut self) {
        self.requests.clear();
        self.balance_at = None;
        self.is_put_off = false;
        self.moving = None;
    }

    pub(super) fn next_timeout(&self) -> Option<Duration> {
        let balance_at = self.balance_at.filter(|_| self.has_changed || self.is_put_off);
        balance_at.into_iter().chain(self.step_at).min()
    }
}

impl Flow {
    /// Does what is due in this phase.
    pub(super) fn keep_pools(&mut self, phase: Phase, env: &mut Env<'_>, outbox: &mut Outbox) {
        if phase == Phase::Normal {
            self.keeper.may_reclaim = true;
        } else {
            self.keeper.balance_at = None;
            if std::mem::take(&mut self.keeper.may_reclaim) {
                self.withdraw_reclaims(env);
            }
        }
        match phase {
            Phase::PartnerDown { since, mclt, .. } => self.step(since, mclt, env),
            _ if self.is_broken(Rule::ReallocationWait) => self.free_step(|_| true, env),
            _ => self.keeper.step_at = None,
        }
        if phase != Phase::Normal || !self.is_connected {
            return;
        }
        if self.config.role == Role::Primary {
            self.keep_balance(env);
        }
        // The answer says that the balance has been looked at.
        if !self.keeper.is_put_off {
            for id in self.keeper.requests.drain(..) {
                outbox.bare(MessageType::POOLRESP, id, env.now);
            }
        }
    }

    fn keep_balance(&mut self, env: &mut Env<'_>) {
        let now = env.now.monotonic;
        let asked = !self.keeper.requests.is_empty();
        let is_due = self.keeper.balance_at.is_none_or(|at| at <= now);
        self.keeper.has_changed = env.table.stamp() != self.keeper.looked_at;
        if !(is_due || asked || self.keeper.is_put_off) {
            return;
        }
        self.keeper.balance_at = Some(now + BALANCE_INTERVAL);
        // A walk may be sending moves from before.
        self.keeper.is_put_off = self.own.is_some() || self.is_moving();
        if self.keeper.is_put_off {
            return;
        }
        self.keeper.looked_at = env.table.stamp();
        self.keeper.has_changed = false;
        let mut moved = std::mem::take(&mut self.keeper.moved);
        for index in 0..self.pools.ids.len() {
            self.keep_pool(self.pools.ids[index], asked, env, &mut moved);
        }
        if moved.len() as u64 >= MOVE_MAX {
            // There may be more to move.
            self.keeper.is_put_off = true;
        }
        if !moved.is_empty() && !self.is_broken(Rule::DurableBeforeReply) {
            // A move that is told and then lost would leave the prefix with both servers, or none.
            self.held.changed(env.sequence);
        }
        let stamp = env.table.stamp();
        for lease in moved.drain(..) {
            self.enqueue(lease, stamp);
            self.keeper.moving = Some(Moving::Queue(self.queue.mark()));
        }
        self.keeper.moved = moved;
    }

    fn keep_pool(&mut self, id: PoolId, asked: bool, env: &mut Env<'_>, moved: &mut Vec<Lease>) {
        let (table, now) = (env.table, env.now.wall);
        let (primary, secondary) = table.prefix_balance(id);
        match balance::balance(&self.config, primary, secondary, asked) {
            Move::Stay => {}
            Move::Give(count) => {
                self.counters.prefixes_given +=
                    table.give_prefixes(id, count.min(MOVE_MAX), now, moved, env.updates);
            }
            Move::Reclaim(count) => {
                self.counters.prefixes_reclaimed +=
                    table.reclaim_prefixes(id, count.min(MOVE_MAX), now, moved, env.updates);
            }
        }
    }

    /// Only in NORMAL state, and on the connection on which it was asked, may the partner give
    /// prefixes back: later it may be one that has forgotten who has them.
    fn withdraw_reclaims(&mut self, env: &mut Env<'_>) {
        for &id in &self.pools.ids {
            env.table.withdraw_reclaims(id, env.now.wall, env.updates);
        }
    }

    fn is_moving(&mut self) -> bool {
        if let Some(Moving::Queue(mark)) = self.keeper.moving
            && self.queue.has_passed(mark)
        {
            self.keeper.moving = Some(Moving::Window(self.window.mark()));
        }
        if let Some(Moving::Window(mark)) = self.keeper.moving
            && self.window.has_passed(mark)
        {
            self.keeper.moving = None;
        }
        self.keeper.moving.is_some()
    }

    /// A step in PARTNER-DOWN state.
    fn step(&mut self, since: AbsoluteTime, mclt: u32, env: &mut Env<'_>) {
        if self.settling.is_some() {
            // What changes hands now the partner would not hear of in time.
            self.keeper.step_at = None;
            return;
        }
        if self.keeper.step_at.is_some_and(|at| env.now.monotonic < at) {
            return;
        }
        let now = env.now.wall;
        let at_once = self.is_broken(Rule::ReallocationWait);
        self.free_step(|binding| at_once || balance::wait_is_over(binding, since, mclt, now), env);
        if now < since.plus(mclt) && !at_once {
            return;
        }
        for &id in &self.pools.ids {
            let pools = env.table.pools();
            // This server's own part comes first, to the last lease.
            if matches!(pools.config(id).range, PoolRange::Prefixes { .. })
                && pools.available(id) == 0
            {
                self.counters.prefixes_taken_over +=
                    env.table.take_over_prefixes(id, TAKE_OVER_MAX, now, env.updates);
            }
        }
    }

    /// Frees what `is_over` in some stripes, so that all have their turn within 10 seconds.
    fn free_step(&mut self, is_over: impl Fn(&gemel_lease::Binding) -> bool, env: &mut Env<'_>) {
        let now = env.now;
        if self.keeper.step_at.is_some_and(|at| now.monotonic < at) {
            return;
        }
        let stripes = env.table.stripe_count();
        let steps = stripes.min(STEPS_PER_WALK);
        self.keeper.step_at = Some(now.monotonic + WALK_TIME / u32::try_from(steps).unwrap_or(1));
        for _ in 0..stripes.div_ceil(STEPS_PER_WALK) {
            let stripe = self.keeper.stripe % stripes;
            self.keeper.stripe = stripe + 1;
            let ours = |id| self.pools.contains(id);
            let freed = env.table.free_after_wait(stripe, &is_over, ours, now.wall, env.updates);
            self.counters.freed_after_wait += freed as u64;
        }
    }
}
