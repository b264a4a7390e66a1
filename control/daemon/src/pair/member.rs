//! One relationship, as the pair thread drives it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use gemel_failover::{Command, Endpoint, Now, Output, Role, ServerState, StoredState};
use gemel_lease::PoolId;
use gemel_worker::submit::StoreState;
use tracing::{error, info, warn};

use super::{
    driver::{Ground, TICK},
    pending::PendingCount,
    persist::Saver,
    tls::Tls,
    transport::{Connection, Event},
    view::{self, RelationshipView, unix_now},
};
use crate::config::Failover;

/// After refusals in a row the primary waits 2, 4, 8 times as long, and this at most.
const BACK_OFF_MAX: u32 = 16;
/// How often the log says that a certificate ends soon: a day.
const WARN_INTERVAL: Duration = Duration::from_secs(86_400);

/// Why a relationship is out of service on purpose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Suspension {
    /// The operator says so.
    Drain,
    /// Clients cannot reach this server.
    LinkLoss,
    /// Nothing can be stored, and the partner is there.
    Store,
    /// The server stops.
    Stop,
}

impl Suspension {
    const ALL: [Self; 4] = [Self::Drain, Self::LinkLoss, Self::Store, Self::Stop];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::LinkLoss => "link-loss",
            Self::Store => "store",
            Self::Stop => "stop",
        }
    }
}

/// A relationship with its endpoint and its connection.
pub(super) struct Member {
    pub(super) config: Failover,
    pub(super) endpoint: Endpoint,
    pools: Vec<PoolId>,
    saver: Saver,
    tls: Option<Arc<Tls>>,
    connection: Option<Connection>,
    /// The partner has said something on it.
    heard: bool,
    dialling: bool,
    dial_due: Duration,
    /// In a row, without an agreement between.
    refusals: u32,
    /// The newest of what the endpoint wants on the disk and is not there yet; saving it makes the
    /// older of no concern. And how many there are, and how many of them the saver has.
    unsaved: Option<StoredState>,
    unsaved_count: usize,
    saving_count: usize,
    save_due: Duration,
    /// Why it cannot be written.
    save_problem: Option<String>,
    /// A bit for each [`Suspension`].
    reasons: u8,
    /// What the endpoint has been told last.
    suspended: bool,
    suspend_due: Duration,
    /// Something of what the operator sees has changed.
    changed: bool,
    problem: Option<String>,
    connections: u64,
    transitions: u64,
    alarms: u64,
    last_alarm: Option<(u64, String)>,
    pending: PendingCount,
    /// When to say again that a certificate ends soon; the first time is said before this begins.
    warn_due: Duration,
}

impl Member {
    pub(super) fn new(
        config: Failover,
        endpoint: Endpoint,
        pools: Vec<PoolId>,
        saver: Saver,
        tls: Option<Arc<Tls>>,
    ) -> Self {
        Self {
            config,
            endpoint,
            pools,
            saver,
            tls,
            connection: None,
            heard: false,
            dialling: false,
            dial_due: Duration::ZERO,
            refusals: 0,
            unsaved: None,
            unsaved_count: 0,
            saving_count: 0,
            save_due: Duration::ZERO,
            save_problem: None,
            reasons: 0,
            suspended: false,
            suspend_due: Duration::ZERO,
            changed: false,
            problem: None,
            connections: 0,
            transitions: 0,
            alarms: 0,
            last_alarm: None,
            pending: PendingCount::default(),
            warn_due: WARN_INTERVAL,
        }
    }

    /// Takes what the transport tells.
    pub(super) fn event(&mut self, event: Event, ground: &mut Ground, now: Now) {
        let relationship = &*self.config.name;
        match event {
            Event::Connected { connection, .. } => {
                let tls = connection.tls.as_ref().map_or("off", |tls| tls.name.as_str());
                info!(relationship, peer = %connection.peer, tls, "connected");
                self.dialling = false;
                self.heard = false;
                self.connections += 1;
                // One that stood before is dropped with this, and closed.
                self.connection = Some(connection);
                self.endpoint.connected(&mut ground.env(now));
                self.changed = true;
            }
            Event::DialFailed { reason, refused, .. } => {
                self.dialling = false;
                self.ended(reason, refused, now);
            }
            Event::Received { connection, frames, at, .. } => {
                if !self.is_current(connection) {
                    return;
                }
                self.heard = true;
                // The partner's clock is compared with ours at the time of reception. Timers stay
                // with the present: they never go back.
                let now = Now { wall: at, monotonic: now.monotonic };
                for frame in frames.iter() {
                    self.endpoint.received(frame, &mut ground.env(now));
                }
            }
            Event::Closed { connection, reason, refused, .. } => {
                if !self.is_current(connection) {
                    return;
                }
                self.connection = None;
                self.endpoint.disconnected(&mut ground.env(now));
                // Who hangs up without a word does not want us.
                self.ended(reason, refused || !self.heard, now);
            }
        }
    }

    fn is_current(&self, connection: u64) -> bool {
        self.connection.as_ref().is_some_and(|current| current.id == connection)
    }

    /// A connection, or the attempt to make one, has ended.
    fn ended(&mut self, reason: String, refused: bool, now: Now) {
        // A partner that was not to be reached may be about to start.
        self.refusals = if refused { self.refusals.saturating_add(1) } else { 0 };
        let factor = 1_u32.checked_shl(self.refusals).unwrap_or(BACK_OFF_MAX).min(BACK_OFF_MAX);
        self.dial_due = now.monotonic + self.config.reconnect_interval * factor;
        if self.problem.as_ref() != Some(&reason) {
            warn!(relationship = self.config.name, reason, refused, "not connected");
            self.problem = Some(reason);
        }
        self.changed = true;
    }

    /// Connects now, not after what earlier refusals have earned.
    fn connect_soon(&mut self, now: Duration) {
        self.refusals = 0;
        self.dial_due = now;
    }

    /// Does what the endpoint asks for; true if something came of it.
    pub(super) fn follow(&mut self, ground: &mut Ground, now: Now) -> bool {
        let mut acted = false;
        loop {
            while let Some(output) = self.endpoint.output() {
                acted = true;
                self.output(output, ground, now);
            }
            // To have it on the disk may be what the next output waits for.
            if !self.save(ground, now) {
                break;
            }
        }
        if let Some(connection) = &self.connection
            && connection.has_room()
        {
            acted |= send(connection, self.endpoint.outgoing());
        }
        if (self.refusals > 0 || self.problem.is_some())
            && self.endpoint.status(now).communications_ok
        {
            self.refusals = 0;
            self.problem = None;
        }
        acted
    }

    fn output(&mut self, output: Output, ground: &mut Ground, now: Now) {
        let relationship = &*self.config.name;
        match output {
            Output::Persist(state) => {
                self.unsaved = Some(state);
                self.unsaved_count += 1;
            }
            Output::Close { reason, refused } => {
                if let Some(connection) = self.connection.take() {
                    // All of it: the last message says why.
                    send(&connection, self.endpoint.outgoing());
                    self.ended(reason, refused, now);
                }
                self.endpoint.disconnected(&mut ground.env(now));
            }
            Output::Transition { from, to, partner, cause } => {
                let partner = partner.map_or("unknown", |partner| partner.as_str());
                info!(relationship, %from, %to, partner, cause, "failover state");
                self.transitions += 1;
                self.changed = true;
                if to == ServerState::PartnerDown {
                    // The partner is to be found as soon as it is back, before it serves alone.
                    self.connect_soon(now.monotonic);
                }
            }
            Output::Alarm(text) => {
                error!(relationship, "{text}");
                self.alarms += 1;
                self.last_alarm = Some((unix_now(), text));
                self.changed = true;
            }
        }
    }

    /// Has the newest of what the endpoint wants on the disk written, and tells it what is there;
    /// true if something has arrived.
    fn save(&mut self, ground: &mut Ground, now: Now) -> bool {
        let arrived = match self.saver.finished() {
            None => 0,
            Some(Ok(())) => std::mem::take(&mut self.saving_count),
            Some(Err(error)) => {
                self.saving_count = 0;
                self.save_due = now.monotonic + TICK;
                self.not_saved(&error);
                0
            }
        };
        if arrived > 0 && self.save_problem.take().is_some() {
            self.changed = true;
            info!(relationship = self.config.name, "the failover state can be written again");
        }
        // What is answered changes with that.
        self.changed |= arrived > 0;
        self.unsaved_count -= arrived;
        for _ in 0..arrived {
            self.endpoint.persisted(&mut ground.env(now));
        }
        if self.unsaved_count == 0 {
            self.unsaved = None;
        } else if self.saving_count == 0
            && now.monotonic >= self.save_due
            && let Some(newest) = &self.unsaved
        {
            self.saving_count = self.unsaved_count;
            self.saver.begin(newest.clone());
        }
        arrived > 0
    }

    /// Says once that the disk does not take the state.
    fn not_saved(&mut self, error: &std::io::Error) {
        if self.save_problem.is_some() {
            return;
        }
        self.alarms += 1;
        let text = format!("cannot write {}: {error}", self.saver.path().display());
        self.save_problem = Some(text.clone());
        error!(
            relationship = self.config.name,
            "{text}; the partner is not told of the new state until that works"
        );
        self.last_alarm = Some((unix_now(), text));
        self.changed = true;
    }

    /// Whether something is not on the disk yet.
    pub(super) fn is_saving(&self) -> bool {
        self.unsaved_count > 0
    }

    /// Whether to connect now; says so once.
    pub(super) fn dial_now(&mut self, now: Duration) -> bool {
        let due = self.wants_dial() && now >= self.dial_due;
        self.dialling |= due;
        due
    }

    fn wants_dial(&self) -> bool {
        self.config.role == Role::Primary
            && !self.dialling
            && self.connection.is_none()
            && self.endpoint.wants_connection()
    }

    /// When something is due that nobody rings for.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let dial = self.wants_dial().then_some(self.dial_due);
        let save = (self.is_saving() && self.saving_count == 0).then_some(self.save_due);
        let suspend = (self.suspended != (self.reasons != 0)).then_some(self.suspend_due);
        [self.endpoint.next_timeout(), dial, save, suspend].into_iter().flatten().min()
    }

    /// An operator's command.
    pub(super) fn operate(
        &mut self,
        command: Command,
        ground: &mut Ground,
        now: Now,
    ) -> Result<(), String> {
        info!(relationship = self.config.name, ?command, "the operator's command");
        if command == Command::Disconnect {
            self.connect_soon(now.monotonic);
        }
        let result = self.endpoint.command(command, &mut ground.env(now));
        self.follow(ground, now);
        result.map_err(|error| error.to_string())
    }

    /// Adds a reason for being out of service, or takes it away. The first one suspends, with the
    /// last one service is taken up again.
    pub(super) fn suspend(
        &mut self,
        why: Suspension,
        on: bool,
        ground: &mut Ground,
        now: Now,
    ) -> Result<(), String> {
        let bit = 1 << why as u8;
        if (self.reasons & bit != 0) == on {
            return Ok(());
        }
        self.reasons ^= bit;
        self.changed = true;
        let relationship = &*self.config.name;
        let cause = why.as_str();
        if on {
            warn!(relationship, cause, "out of service: the partner is to serve");
        } else {
            info!(relationship, cause, "this reason for being out of service is gone");
        }
        self.suspend_due = now.monotonic;
        self.try_suspend(ground, now)
    }

    /// Tries again what the state did not allow before.
    pub(super) fn suspend_or_resume(&mut self, ground: &mut Ground, now: Now) {
        if now.monotonic >= self.suspend_due {
            // Said already; the next time is a tick away.
            let _ = self.try_suspend(ground, now);
        }
    }

    fn try_suspend(&mut self, ground: &mut Ground, now: Now) -> Result<(), String> {
        let wanted = self.reasons != 0;
        if self.suspended == wanted {
            return Ok(());
        }
        let command = if wanted { Command::Suspend } else { Command::Resume };
        let result = self.endpoint.command(command, &mut ground.env(now));
        match &result {
            Ok(()) => {
                self.suspended = wanted;
                if !wanted {
                    self.connect_soon(now.monotonic);
                }
            }
            Err(_) => self.suspend_due = now.monotonic + TICK,
        }
        self.follow(ground, now);
        result.map_err(|error| error.to_string())
    }

    /// What has to be looked after once in a tick: what the partner does not know, and whether a
    /// certificate ends soon.
    pub(super) fn tick(&mut self, ground: &Ground, now: Duration) {
        self.pending.step(&ground.table, &self.pools);
        if now < self.warn_due {
            return;
        }
        self.warn_due = now + WARN_INTERVAL;
        if let Some(tls) = &self.tls
            && let Some(warning) = tls.expiry_warning(SystemTime::now())
        {
            warn!(relationship = self.config.name, "{warning}");
        }
    }

    /// A server that can store nothing can grant nothing: its partner serves, if it is there.
    pub(super) fn watch_store(&mut self, state: StoreState, now: Now) {
        let bit = 1 << Suspension::Store as u8;
        let on = match state {
            StoreState::Working => false,
            StoreState::Settling => return,
            StoreState::Failed => {
                self.reasons & bit != 0 || self.endpoint.status(now).communications_ok
            }
        };
        if (self.reasons & bit != 0) != on {
            self.reasons ^= bit;
            self.changed = true;
            self.suspend_due = now.monotonic;
            warn!(relationship = self.config.name, out_of_service = on, "the store fails or works");
        }
    }

    /// Whether the operator's view has to be made anew.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// What an operator sees.
    pub(super) fn view(&self, ground: &Ground, now: Now) -> RelationshipView {
        let mut view = RelationshipView {
            relationship: self.config.name.clone(),
            partner_address: self.config.partner.to_string(),
            connection_problem: self.problem.clone(),
            tls: "off".to_owned(),
            connections: self.connections,
            transitions: self.transitions,
            alarms: self.alarms,
            last_alarm: self.last_alarm.clone(),
            balance: view::balance(&ground.table, &self.pools, &ground.pool_names),
            suspended_by: Suspension::ALL
                .into_iter()
                .filter(|why| self.reasons & 1 << *why as u8 != 0)
                .map(Suspension::as_str)
                .collect(),
            warnings: self.save_problem.iter().cloned().collect(),
            ..RelationshipView::default()
        };
        view::fill(&mut view, &self.endpoint.status(now));
        view.updates.pending = self.pending.last();
        if let Some(connection) = &self.connection {
            view.partner_certificate_expires = connection.tls.as_ref().map(|tls| tls.expires);
        }
        if let Some(tls) = &self.tls {
            view.tls = tls.partner_name().to_owned();
            view.certificate_expires = Some(tls.expires());
            view.warnings.extend(tls.expiry_warning(SystemTime::now()));
        }
        view
    }
}

/// Sends what waits; true if something did.
fn send(connection: &Connection, outgoing: &mut Vec<u8>) -> bool {
    if outgoing.is_empty() {
        return false;
    }
    // A copy of the right length; the endpoint keeps its buffer.
    connection.send(outgoing.clone());
    outgoing.clear();
    true
}
