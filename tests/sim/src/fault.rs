//! What goes wrong, when, and for how long; and what the operator does about it.

use gemel_failover::{Command, ServerState};

use crate::clock::{Micros, SECOND};
use crate::node::{PRIMARY, SECONDARY};
use crate::world::{Event, Phase, World, name};

/// A kind of fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// A process dies and comes back.
    Crash,
    /// The same, and its partner does not hear of it.
    PowerCut,
    /// The same, and it comes back with an empty disk.
    LoseDisk,
    /// The connection breaks.
    Break,
    /// The servers do not hear each other, and are not told.
    Partition,
    /// One server does not hear the other.
    OneWay,
    /// No client reaches one of the servers.
    CutClients,
    /// Some clients do not reach one of the servers.
    CutSome,
    /// The network of the clients loses much.
    Loss,
    /// A disk takes seconds.
    SlowDisk,
    /// A wall clock is set, within what section 7.1 allows.
    Clock,
    /// A wall clock is set beyond that.
    Skew,
    /// A server dies for long, and the operator tells the other.
    PartnerDown,
    /// The operator wants all of the partner's bindings.
    Resync,
    /// The operator drops the connection.
    Disconnect,
    /// The operator takes a server out of service for a while.
    Suspend,
    /// The operator believes that the partner is down, and it is not.
    WrongPartnerDown,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Crash,
        Self::PowerCut,
        Self::LoseDisk,
        Self::Break,
        Self::Partition,
        Self::OneWay,
        Self::CutClients,
        Self::CutSome,
        Self::Loss,
        Self::SlowDisk,
        Self::Clock,
        Self::Skew,
        Self::PartnerDown,
        Self::Resync,
        Self::Disconnect,
        Self::Suspend,
        Self::WrongPartnerDown,
    ];

    /// Whether the RFC cannot make it good.
    #[must_use]
    pub const fn is_careless(self) -> bool {
        matches!(self, Self::WrongPartnerDown)
    }

    /// Whether a server that has just been told that its partner is down, and a partner that has not
    /// heard of it yet, must be spared this: the operator takes care (section 8.4).
    const fn is_coarse(self) -> bool {
        !matches!(self, Self::CutClients | Self::CutSome | Self::Loss | Self::Clock | Self::Resync)
    }
}

/// The end of a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mend {
    /// What this server sends reaches the other again.
    Wire { from: usize },
    /// Clients reach this server again.
    Clients { node: usize },
    /// A client does.
    Client { node: usize, client: usize },
    /// The clients' network loses no more than usual.
    Loss,
    /// A server starts again.
    Restart { node: usize },
    /// The clock is set right again.
    Clock { node: usize },
    /// The operator says that the partner is down.
    PartnerDown { node: usize },
    /// The operator takes a server into service again.
    Resume { node: usize },
}

/// The furthest that a clock is ever off.
pub(crate) const SKEW_MAX: Micros = 9 * SECOND;

/// What the operator knows and is about to do.
#[derive(Debug, Default)]
pub(crate) struct Operator {
    /// The last connection was refused, or is being made: do not try before this.
    pub(crate) connect_after: Micros,
    /// The server that has been, or is about to be, told that its partner is down, until the partner
    /// knows.
    told: Option<usize>,
    wire_until: [Micros; 2],
    clients_until: [Micros; 2],
    loss_until: Micros,
}

impl World {
    /// The servers do not hear each other from now on; `both` ways, or only what `from` sends.
    pub fn cut(&mut self, from: usize, both: bool) {
        self.say(|| {
            let what = if both { "the servers are" } else { "one direction is" };
            format!("{what} cut off (from the {})", name(from))
        });
        self.wires.cut(from);
        if both {
            self.wires.cut(1 - from);
        }
    }

    /// The servers hear each other again.
    pub fn join(&mut self) {
        for from in [PRIMARY, SECONDARY] {
            let connections = self.wires.mend(from);
            self.resend(from, connections);
        }
    }

    /// Breaks the connection between the servers, if there is one.
    pub fn break_connection(&mut self) {
        for node in [PRIMARY, SECONDARY] {
            let Some(connection) = self.nodes[node].connection else { continue };
            self.wires.break_off(connection);
            // Mostly both hear of it at once, sometimes one of them late.
            let late = if self.fault_rng.chance(100) { 10 * SECOND } else { SECOND / 20 };
            let delay = self.fault_rng.range(0, late);
            self.after(delay, Event::Reset { node, connection });
        }
        self.say(|| "the connection breaks".to_owned());
    }

    /// Sets a server's wall clock this much ahead of the right time, in microseconds.
    pub fn set_clock(&mut self, node: usize, offset: i64) {
        self.say(|| format!("{}: clock is set to {offset:+} us", name(node)));
        self.nodes[node].clock.offset = offset;
    }

    /// All clients and a server do not hear each other any more, or do so again.
    pub fn cut_clients(&mut self, node: usize, cut: bool) {
        self.paths.cut[node] = cut;
    }

    /// Ends all faults.
    pub fn heal(&mut self) {
        if self.violation().is_some() {
            return;
        }
        self.say(|| "all is well again".to_owned());
        self.phase = Phase::Healing;
        self.mend_pair();
        self.paths.cut = [false; 2];
        self.paths.cut_clients.clear();
        self.paths.loss = 0;
        for node in [PRIMARY, SECONDARY] {
            self.boot(node);
            self.resume(node);
        }
    }

    /// The network between the servers, their clocks and their disks are all right.
    fn mend_pair(&mut self) {
        self.join();
        self.operator.connect_after = 0;
        for node in [PRIMARY, SECONDARY] {
            self.nodes[node].slow_until = 0;
            self.set_clock_within(node);
        }
    }

    fn set_clock_within(&mut self, node: usize) {
        let offset = self.fault_rng.around(i64::try_from(self.plan.skew_max).unwrap_or(0));
        let offset = self.plan.offset(offset);
        let clock = self.nodes[node].clock;
        let drift = clock.drift_ppm * i64::try_from(self.now / 1_000_000).unwrap_or(0);
        self.set_clock(node, offset - drift);
    }

    fn resume(&mut self, node: usize) {
        if self.nodes[node].process.as_ref().is_some_and(|it| it.suspended) {
            let _ = self.command(node, Command::Resume);
        }
    }

    /// Whether the pair is in the hands of the operator.
    fn is_delicate(&mut self) -> bool {
        let Some(told) = self.operator.told else { return false };
        // From RECOVER on the partner cannot do any harm, whatever happens to it.
        let partner = &self.nodes[1 - told];
        let knows = partner.process.is_some()
            && partner.store.state.as_ref().is_some_and(|it| {
                matches!(
                    it.state,
                    ServerState::Recover | ServerState::RecoverWait | ServerState::RecoverDone
                )
            });
        let over = knows || self.is_normal();
        if over {
            self.operator.told = None;
        }
        !over
    }

    pub(crate) fn next_fault(&mut self) {
        if self.phase != Phase::Faults || self.now >= self.plan.faults.1 {
            return;
        }
        let wait = self.fault_rng.range(SECOND, 2 * self.plan.fault_interval);
        self.after(wait, Event::Fault);
        let fault = Fault::ALL[self.fault_rng.weighted(&self.plan.weights)];
        if self.is_delicate() && fault.is_coarse() {
            return;
        }
        if self.has_fault(fault) {
            self.stats.faults += 1;
            self.note(fault as u64);
            self.strike(fault);
        }
    }

    fn strike(&mut self, fault: Fault) {
        let node = self.fault_rng.index(2);
        let span = match self.fault_rng.below(10) {
            0..=4 => self.fault_rng.range(SECOND / 2, 8 * SECOND),
            5..=7 => self.fault_rng.range(8 * SECOND, 60 * SECOND),
            _ => self.fault_rng.range(60 * SECOND, 240 * SECOND),
        };
        match fault {
            Fault::Crash | Fault::PowerCut | Fault::LoseDisk => {
                let lost = fault == Fault::LoseDisk;
                if self.nodes[node].process.is_none() || (lost && !self.may_lose(node)) {
                    return;
                }
                let silent = fault == Fault::PowerCut || self.fault_rng.chance(200);
                self.crash(node, silent);
                if lost {
                    self.lose_disk(node);
                }
                self.restart_after(node, span);
            }
            Fault::Break => self.break_connection(),
            Fault::Partition | Fault::OneWay => {
                let both = fault == Fault::Partition;
                self.cut(node, both);
                for from in [PRIMARY, SECONDARY] {
                    if both || from == node {
                        let until = &mut self.operator.wire_until[from];
                        *until = (*until).max(self.now + span);
                        self.after(span, Event::Mend(Mend::Wire { from }));
                    }
                }
            }
            Fault::CutClients => {
                self.say(|| format!("{}: no client reaches it", name(node)));
                self.cut_clients(node, true);
                let until = &mut self.operator.clients_until[node];
                *until = (*until).max(self.now + span);
                self.after(span, Event::Mend(Mend::Clients { node }));
            }
            Fault::CutSome => {
                for client in 0..self.clients.len() {
                    if self.fault_rng.chance(300) {
                        self.cut_client(client, node, true);
                        self.after(span, Event::Mend(Mend::Client { node, client }));
                    }
                }
            }
            Fault::Loss => {
                self.paths.loss = self.fault_rng.range(200, 800);
                self.operator.loss_until = self.operator.loss_until.max(self.now + span);
                self.after(span, Event::Mend(Mend::Loss));
            }
            Fault::SlowDisk => {
                let span = span.min(self.fault_rng.range(SECOND / 2, 20 * SECOND));
                self.say(|| format!("{}: disk hangs for {} s", name(node), span / SECOND));
                self.nodes[node].slow_until = self.now + span;
            }
            Fault::Clock => self.set_clock_within(node),
            Fault::Skew => {
                let offset = self.fault_rng.around(i64::try_from(SKEW_MAX).unwrap_or(0));
                self.set_clock(node, offset);
                self.after(span, Event::Mend(Mend::Clock { node }));
            }
            Fault::PartnerDown => self.plan_partner_down(node, span),
            Fault::Resync => {
                let _ = self.command(node, Command::Resync);
            }
            Fault::Disconnect => {
                let _ = self.command(node, Command::Disconnect);
            }
            Fault::Suspend => {
                if self.nodes[node].process.is_some()
                    && self.command(node, Command::Suspend).is_ok()
                {
                    self.after(span, Event::Mend(Mend::Resume { node }));
                }
            }
            Fault::WrongPartnerDown => {
                let _ = self.command(node, Command::PartnerDown);
            }
        }
    }

    /// Two lost disks at once are more than the RFC can make good.
    fn may_lose(&self, node: usize) -> bool {
        self.plan.careless || !self.is_alone(node)
    }

    fn restart_after(&mut self, node: usize, span: Micros) {
        self.nodes[node].restart_at = Some(self.now + span);
        self.after(span, Event::Mend(Mend::Restart { node }));
    }

    /// The partner of `node` dies for long; a careful operator tells `node`, and lets the partner
    /// come up again only when it will hear of that.
    fn plan_partner_down(&mut self, node: usize, span: Micros) {
        let state = self.state(node);
        let fit =
            matches!(state, Some(ServerState::Normal | ServerState::CommunicationsInterrupted));
        let suspended =
            |node: usize| self.nodes[node].process.as_ref().is_some_and(|it| it.suspended);
        if !fit || suspended(PRIMARY) || suspended(SECONDARY) {
            return;
        }
        self.say(|| format!("{}: is going to be down for long", name(1 - node)));
        let silent = self.fault_rng.chance(500);
        self.crash(1 - node, silent);
        if self.fault_rng.chance(300) && self.may_lose(1 - node) {
            self.lose_disk(1 - node);
        }
        self.mend_pair();
        self.operator.told = Some(node);
        let wait = self.fault_rng.range(SECOND, 40 * SECOND);
        self.after(wait, Event::Mend(Mend::PartnerDown { node }));
        self.restart_after(1 - node, wait + span + 2 * SECOND);
    }

    pub(crate) fn mend(&mut self, mend: Mend) {
        if self.phase != Phase::Faults {
            return;
        }
        match mend {
            Mend::Wire { from } if self.now >= self.operator.wire_until[from] => {
                self.say(|| format!("what the {} sends gets through again", name(from)));
                let connections = self.wires.mend(from);
                self.resend(from, connections);
            }
            Mend::Clients { node } if self.now >= self.operator.clients_until[node] => {
                self.cut_clients(node, false);
            }
            Mend::Loss if self.now >= self.operator.loss_until => self.paths.loss = self.plan.loss,
            Mend::Wire { .. } | Mend::Clients { .. } | Mend::Loss => {}
            Mend::Client { node, client } => self.cut_client(client, node, false),
            Mend::Clock { node } => self.set_clock_within(node),
            Mend::Restart { node } => {
                if self.nodes[node].restart_at.is_some_and(|at| self.now >= at) {
                    self.boot(node);
                }
            }
            Mend::PartnerDown { node } => {
                let state = self.state(node);
                let fit = state == Some(ServerState::CommunicationsInterrupted)
                    || state == Some(ServerState::Normal);
                let down = self.nodes[1 - node].process.is_none();
                if !down || !fit || self.command(node, Command::PartnerDown).is_err() {
                    self.operator.told = None;
                }
                // What the network held back may have come meanwhile, and was as good as a refusal.
                // The partner must be found within its startup time (section 8.3.2 step 3).
                self.operator.connect_after = 0;
            }
            Mend::Resume { node } => self.resume(node),
        }
    }
}
