//! The failover pair (RFC 8156) in the daemon: what connects the endpoints of `gemel-failover` with
//! the network, the disk, the workers and the operator.
//!
//! Two threads do it. The [`transport`] moves messages, the [`driver`] drives the endpoints. Neither
//! is there when no relationship is configured.

pub mod driver;
pub mod links;
mod member;
pub mod metrics;
mod pending;
pub mod persist;
pub mod tap;
pub mod tls;
pub mod transport;
pub mod view;

use std::{
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use crossbeam::channel::{Sender, bounded};
use gemel_failover::{Command, Endpoint, Now};
use gemel_lease::{LeaseTable, PairPolicy, PoolId};
use gemel_worker::{
    submit::{self, Bell, ServiceState, Submission},
    wall_clock,
};
use parking_lot::Mutex;
use tracing::{info, warn};

use crate::{
    config::{Config, Failover},
    control::Resolvers,
};
use driver::{Driver, Ends, Ground, Instruction};
use member::Member;
use persist::{Saver, StateFile};
use tap::Tap;
use tls::Tls;
use transport::{Peer, Refusal, Refusals, Transport};
use view::RelationshipView;

/// Instructions that may wait for the pair thread.
const INSTRUCTIONS_MAX: usize = 64;
/// How long an operator waits for the pair thread.
const REPLY_TIME: Duration = Duration::from_secs(5);

/// What the pair needs of the server.
pub struct Parts {
    /// The bindings.
    pub table: Arc<LeaseTable>,
    /// Names of the pools, by their id.
    pub pool_names: Vec<String>,
    /// The pools of each relationship.
    pub pools: Vec<Vec<PoolId>>,
    /// Where each relationship tells the rules of its links what to answer.
    pub policies: Vec<Arc<PairPolicy>>,
    /// To the control thread.
    pub submissions: Sender<Submission>,
    /// Where the control thread finds its workers.
    pub resolvers: Resolvers,
    /// What the control thread says of the store.
    pub service: Arc<ServiceState>,
    /// Whether the store has just been made: there is no memory, whatever else is on the disk.
    pub store_is_new: bool,
}

/// The pair thread. Stopped by [`Pair::stop`].
#[derive(Debug)]
pub struct Pair {
    handle: PairHandle,
    thread: JoinHandle<()>,
    worker: usize,
    resolvers: Resolvers,
    /// The interfaces of each relationship's clients, and whether they could pass packets last.
    reachable: Vec<(Vec<String>, Option<bool>)>,
}

/// What others reach the pair thread by.
#[derive(Clone, Debug)]
pub struct PairHandle {
    names: Vec<String>,
    instructions: Sender<Instruction>,
    bell: Bell,
    views: Arc<Mutex<Vec<RelationshipView>>>,
    refusals: Arc<Refusals>,
}

impl Pair {
    /// Starts the pair's threads; gives the control thread's end of the tap, too.
    ///
    /// # Errors
    /// If certificates or the stored state of a relationship cannot be read.
    pub fn start(config: &Config, parts: Parts) -> Result<(Self, Tap)> {
        let begun = Instant::now();
        let now = Now { wall: wall_clock(), monotonic: Duration::ZERO };
        let (bell, heard) = Bell::new();
        let mut peers = Vec::new();
        let mut members = Vec::new();
        let each = config.failover.iter().zip(parts.pools).zip(parts.policies);
        for ((failover, pools), policy) in each {
            let tls = open_tls(failover)?;
            let file = StateFile::new(&config.store.path, &failover.name);
            let stored = file.load(parts.store_is_new)?;
            info!(
                relationship = failover.name,
                role = view::role(failover.role),
                partner = %failover.partner,
                stored_state = stored.as_ref().map(|stored| stored.state.as_str()),
                "failover relationship"
            );
            peers.push(peer(failover, tls.clone()));
            let endpoint =
                Endpoint::new(endpoint_config(failover), pools.clone(), policy, stored, now);
            let saver = Saver::start(file, bell.clone()).context("no thread to write the state")?;
            members.push(Member::new(failover.clone(), endpoint, pools, saver, tls));
        }
        let (submitter, worker) = {
            let mut resolvers = parts.resolvers.write();
            let worker = resolvers.len();
            let (submitter, resolver) =
                submit::connect_with_bell(worker, parts.submissions, bell.clone())
                    .context("no event descriptor for the pair thread")?;
            resolvers.push(Some(resolver));
            (submitter, worker)
        };
        let (tap, receiver) = tap::tap(worker, bell.clone());
        let (instructions, taken) = bounded(INSTRUCTIONS_MAX);
        let (transport, events) = Transport::start(peers, bell.clone())?;
        let views = Arc::<Mutex<Vec<RelationshipView>>>::default();
        let handle = PairHandle {
            names: config.failover.iter().map(|failover| failover.name.clone()).collect(),
            instructions,
            bell,
            views: Arc::clone(&views),
            refusals: Arc::clone(transport.refusals()),
        };
        let ground = Ground {
            table: parts.table,
            pool_names: parts.pool_names,
            submitter,
            service: Arc::clone(&parts.service),
            resolvers: Arc::clone(&parts.resolvers),
            begun,
        };
        let ends =
            Ends { service: parts.service, tap: receiver, instructions: taken, heard, views };
        let driver = Driver::new(members, ground, ends, transport, events);
        let thread = std::thread::Builder::new()
            .name("gemel pair".to_owned())
            // Without short slices: no client waits for it, so whoever serves one comes first.
            .spawn(move || driver.run())
            .context("cannot start the pair thread")?;
        let reachable = config
            .failover
            .iter()
            .map(|failover| {
                let names = links::interfaces_of(config, failover);
                let watched = failover.hand_over_on_link_loss;
                let names = names.into_iter().filter(|_| watched).map(str::to_owned);
                (names.collect(), None)
            })
            .collect();
        Ok((Self { handle, thread, worker, resolvers: parts.resolvers, reachable }, tap))
    }

    /// What others reach it by.
    #[must_use]
    pub fn handle(&self) -> &PairHandle {
        &self.handle
    }

    /// Looks whether the clients of the relationships can reach this server.
    pub fn look_at_links(
        &mut self,
        interfaces: &std::collections::HashMap<String, crate::interfaces::Interface>,
    ) {
        for (relationship, (names, before)) in self.reachable.iter_mut().enumerate() {
            if names.is_empty() {
                continue;
            }
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let reachable = links::any_carrier(&names, interfaces);
            if *before != Some(reachable)
                && self.handle.tell(Instruction::Reachable { relationship, reachable })
            {
                *before = Some(reachable);
            }
        }
    }

    /// Tells the partners that this server stops, writes down the state, and ends the threads.
    pub fn stop(self) {
        // This one has to get there; the pair thread takes everything from the queue in each turn.
        let _ = self.handle.instructions.send(Instruction::Stop);
        self.handle.bell.ring();
        if self.thread.join().is_err() {
            warn!("the pair thread panicked");
        }
        if let Some(slot) = self.resolvers.write().get_mut(self.worker) {
            *slot = None;
        }
    }
}

impl PairHandle {
    /// What an operator sees.
    #[must_use]
    pub fn views(&self) -> Vec<RelationshipView> {
        self.views.lock().clone()
    }

    /// Refused connections, by reason.
    #[must_use]
    pub fn refused(&self) -> Vec<(&'static str, u64)> {
        Refusal::ALL.iter().map(|why| (why.as_str(), self.refusals.count(*why))).collect()
    }

    /// An operator's command to a relationship; `None` for the only one.
    ///
    /// # Errors
    /// With what stands in the way.
    pub fn operate(&self, name: Option<&str>, command: Command) -> Result<(), String> {
        let relationship = match (name, &self.names[..]) {
            (Some(_), _) => self.find(name)?.unwrap_or(0),
            (None, [_]) => 0,
            (None, names) => {
                return Err(format!("which relationship? there are {}", names.join(", ")));
            }
        };
        self.ask(|reply| Instruction::Operate { relationship, command, reply })
    }

    /// Takes this server out of service, or puts it back, in one relationship or in all.
    ///
    /// # Errors
    /// With what stands in the way.
    pub fn drain(&self, name: Option<&str>, on: bool) -> Result<(), String> {
        let relationship = self.find(name)?;
        self.ask(|reply| Instruction::Drain { relationship, on, reply })
    }

    fn find(&self, name: Option<&str>) -> Result<Option<usize>, String> {
        let Some(name) = name else { return Ok(None) };
        let found = self.names.iter().position(|known| known == name);
        found.map(Some).ok_or_else(|| {
            format!("there is no relationship \"{name}\", only {}", self.names.join(", "))
        })
    }

    fn ask(
        &self,
        instruction: impl FnOnce(Sender<Result<(), String>>) -> Instruction,
    ) -> Result<(), String> {
        let (reply, answer) = bounded(1);
        if !self.tell(instruction(reply)) {
            return Err("the server is busy or stopping".to_owned());
        }
        answer.recv_timeout(REPLY_TIME).unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    fn tell(&self, instruction: Instruction) -> bool {
        let told = self.instructions.try_send(instruction).is_ok();
        self.bell.ring();
        told
    }
}

/// Reads the certificates of a relationship, and warns of those that end soon.
///
/// # Errors
/// If they cannot be used.
pub fn open_tls(failover: &Failover) -> Result<Option<Arc<Tls>>> {
    let Some(files) = &failover.tls else { return Ok(None) };
    let tls = Tls::open(files)
        .with_context(|| format!("failover[{}]: the certificates cannot be used", failover.name))?;
    if let Some(warning) = tls.expiry_warning(SystemTime::now()) {
        warn!(relationship = failover.name, "{warning}");
    }
    Ok(Some(Arc::new(tls)))
}

fn peer(failover: &Failover, tls: Option<Arc<Tls>>) -> Peer {
    Peer {
        name: failover.name.clone(),
        role: failover.role,
        partner: failover.partner,
        port: failover.port,
        local: failover.local,
        keepalive: Duration::from_secs(failover.keepalive_secs.into()),
        tls,
    }
}

fn endpoint_config(failover: &Failover) -> gemel_failover::Config {
    gemel_failover::Config {
        keepalive_secs: failover.keepalive_secs,
        max_unacked_bndupd: failover.max_unacked_updates,
        startup_time: failover.startup_time,
        auto_partner_down: failover.auto_partner_down,
        start_in_partner_down: failover.start_in_partner_down,
        secondary_share_percent: failover.secondary_share_percent,
        secondary_prefixes_max: failover.secondary_prefixes_max,
        balance_threshold_percent: failover.balance_threshold_percent,
        response_time_max: failover.response_time_max,
        ..gemel_failover::Config::new(&*failover.name, failover.role, failover.mclt)
    }
}
