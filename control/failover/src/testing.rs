//! Two endpoints, a virtual clock that jumps to the next deadline, a wire that delivers in order,
//! and disks that may be slow.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::Arc,
    time::Duration,
};

use gemel_lease::{
    AbsoluteTime, BindingStatus, ClientKey, IaKind, Lease, LeaseTable, Ownership, PairPolicy,
    PoolConfig, PoolId, PoolRange, PoolSet, Responsiveness, TableConfig, Terms, UpdateBatch,
};
use gemel_wire::{
    IaId,
    failover::{FailoverTime, stamp},
};

use crate::{
    Command, CommandError, Config, Endpoint, Env, Now, Output, Role, ServerState, Status,
    StoredState,
};

pub(crate) const PRIMARY: usize = 0;
pub(crate) const SECONDARY: usize = 1;
pub(crate) const MCLT: u32 = 600;
/// Pools of every table.
pub(crate) const ADDRESSES: PoolId = PoolId(0);
pub(crate) const PREFIXES: PoolId = PoolId(1);

/// Seconds between attempts to connect, and after a refusal.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_REFUSED: Duration = Duration::from_secs(10);

/// One server with everything that its driver would have.
pub(crate) struct Server {
    pub(crate) config: Config,
    /// `None` while it is switched off.
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) policy: Arc<PairPolicy>,
    /// What is on stable storage.
    pub(crate) disk: Option<StoredState>,
    /// What is on its way there.
    pub(crate) unwritten: VecDeque<StoredState>,
    /// Leave it there.
    pub(crate) disk_is_slow: bool,
    /// How far the wall clock is ahead.
    pub(crate) ahead_secs: i64,
    /// What the endpoint has given out, but for `Persist`.
    pub(crate) log: Vec<Output>,
    pub(crate) table: LeaseTable,
    updates: UpdateBatch,
    sequence: u64,
    /// Numbers of the endpoint's batches that are on their way to the store.
    unstored: VecDeque<u64>,
    /// The store fails.
    pub(crate) store_fails: bool,
    /// The store takes nothing for now.
    pub(crate) store_is_slow: bool,
    /// Octets on their way to it, and those that wait for the cable.
    incoming: VecDeque<u8>,
    held: VecDeque<u8>,
    /// It has a connection, be it a dead one.
    linked: bool,
}

/// The two servers and what is between them.
pub(crate) struct Pair {
    pub(crate) servers: [Server; 2],
    /// Whether octets pass. While not, a connection stays without anybody noticing.
    pub(crate) cable: bool,
    pub(crate) now: Duration,
    connect_at: Duration,
    /// The connection is whole: what one side writes the other may read.
    whole: bool,
}

impl Pair {
    /// Two servers that have never met.
    pub(crate) fn new() -> Self {
        let config = |role| Config { startup_time: secs(5), ..Config::new("pair", role, MCLT) };
        Self::with(config(Role::Primary), config(Role::Secondary))
    }

    pub(crate) fn with(primary: Config, secondary: Config) -> Self {
        let mut pair = Self {
            servers: [Server::new(primary), Server::new(secondary)],
            cable: true,
            now: secs(1000),
            connect_at: Duration::ZERO,
            whole: false,
        };
        pair.start(PRIMARY);
        pair.start(SECONDARY);
        pair
    }

    /// A pair in NORMAL state.
    pub(crate) fn normal() -> Self {
        let mut pair = Self::new();
        pair.run(30);
        pair.expect(ServerState::Normal, ServerState::Normal);
        pair
    }

    pub(crate) fn start(&mut self, who: usize) {
        let now = self.now(who);
        let server = &mut self.servers[who];
        let (config, policy) = (server.config.clone(), server.policy.clone());
        let disk = server.disk.clone();
        server.endpoint = Some(Endpoint::new(config, vec![ADDRESSES, PREFIXES], policy, disk, now));
        assert_eq!(server.policy.load().responsiveness, Responsiveness::Unresponsive);
    }

    /// Switches a server off. What was on its way to the disk is lost.
    pub(crate) fn kill(&mut self, who: usize) {
        let server = &mut self.servers[who];
        server.endpoint = None;
        server.unwritten.clear();
        server.unstored.clear();
        server.clear_incoming();
        server.linked = false;
        self.whole = false;
    }

    /// Switches a server off, and takes everything from it that it knew.
    pub(crate) fn wipe(&mut self, who: usize) {
        self.kill(who);
        let server = &mut self.servers[who];
        server.disk = None;
        server.table = table(server.config.role);
    }

    /// Gives a client a lease as the workers would, without asking whether that is allowed now.
    pub(crate) fn grant(&mut self, who: usize, pool: PoolId, client: u32) -> Option<Lease> {
        let now = self.now(who).wall;
        let server = &self.servers[who];
        let mclt = server.policy.load().mclt;
        let terms = Terms { mclt, ..Terms::unlimited(5_000, 10_000) };
        let mut duid = [0, 3, 0, 1, 2, 0, 0, 0, 0, 0];
        duid[6..].copy_from_slice(&client.to_be_bytes());
        let kind = if pool == PREFIXES { IaKind::Pd } else { IaKind::Na };
        let key = ClientKey { duid: &duid, kind, iaid: IaId(1) };
        let mut batch = UpdateBatch::default();
        let mut guard = server.table.lock(key);
        let lease = guard.grant(pool, None, &terms, now, &mut batch)?.lease;
        drop(guard);
        self.with_env(who, |endpoint, env| endpoint.committed(batch.as_bytes(), env));
        Some(lease)
    }

    /// Ends what is over by the clock of this server, as the control thread would.
    pub(crate) fn sweep(&mut self, who: usize) {
        let now = self.now(who).wall;
        let mut batch = UpdateBatch::default();
        while self.servers[who].table.expire(now, 10_000, &mut batch).more {}
        self.with_env(who, |endpoint, env| endpoint.committed(batch.as_bytes(), env));
        self.settle();
    }

    /// What both servers have to agree about.
    pub(crate) fn view(&self, who: usize) -> BTreeMap<Lease, (BindingStatus, Vec<u8>, u32)> {
        let mut view = BTreeMap::new();
        self.servers[who].table.for_each(|binding| {
            let client = binding.duid.as_bytes().to_vec();
            let expires = binding.state_expiration_time.0;
            view.insert(binding.lease, (binding.status, client, expires));
        });
        view
    }

    #[track_caller]
    pub(crate) fn assert_agreement(&self) {
        let (first, second) = (self.view(PRIMARY), self.view(SECONDARY));
        let apart = |a: &BTreeMap<_, _>, b: &BTreeMap<Lease, (BindingStatus, Vec<u8>, u32)>| {
            a.iter()
                .filter(|(lease, it)| b.get(lease) != Some(it))
                .map(|(l, it)| (*l, format!("{it:?}")))
                .collect::<Vec<_>>()
        };
        assert_eq!(apart(&first, &second), apart(&second, &first));
        for server in &self.servers {
            assert_eq!(server.table.pending_updates(|_| true), 0);
        }
    }

    /// Sets the cable, and lets both notice after some time.
    pub(crate) fn cut(&mut self) {
        self.cable = false;
    }

    /// What has been sent meanwhile arrives, if the connection has lasted.
    pub(crate) fn join(&mut self) {
        self.cable = true;
        for server in &mut self.servers {
            let held = mem::take(&mut server.held);
            if self.whole {
                server.incoming.extend(held);
            }
        }
    }

    /// Closes the connection so that both notice at once.
    pub(crate) fn reset(&mut self) {
        self.whole = false;
        for who in [PRIMARY, SECONDARY] {
            self.servers[who].clear_incoming();
        }
        self.settle();
    }

    pub(crate) fn now(&self, who: usize) -> Now {
        let wall = self.now.as_secs().checked_add_signed(self.servers[who].ahead_secs).unwrap();
        Now { wall: AbsoluteTime(u32::try_from(wall).unwrap()), monotonic: self.now }
    }

    pub(crate) fn state(&self, who: usize) -> ServerState {
        self.status(who).state
    }

    pub(crate) fn status(&self, who: usize) -> Status {
        self.servers[who].endpoint.as_ref().unwrap().status(self.now(who))
    }

    pub(crate) fn responsiveness(&self, who: usize) -> Responsiveness {
        self.servers[who].policy.load().responsiveness
    }

    #[track_caller]
    pub(crate) fn expect(&self, primary: ServerState, secondary: ServerState) {
        let actual = (self.state(PRIMARY), self.state(SECONDARY));
        let logs = (&self.servers[PRIMARY].log, &self.servers[SECONDARY].log);
        assert_eq!(actual, (primary, secondary), "{logs:#?}");
    }

    pub(crate) fn command(&mut self, who: usize, command: Command) -> Result<(), CommandError> {
        let result = self.with_env(who, |endpoint, env| endpoint.command(command, env)).unwrap();
        self.settle();
        result
    }

    /// Whether the log of a server says so.
    pub(crate) fn said(&self, who: usize, text: &str) -> bool {
        self.servers[who].log.iter().any(|output| match output {
            Output::Close { reason, .. } => reason.contains(text),
            Output::Alarm(alarm) => alarm.contains(text),
            Output::Transition { cause, .. } => cause.contains(text),
            Output::Persist(_) => false,
        })
    }

    /// The states that a server has been in, in order.
    pub(crate) fn path(&self, who: usize) -> Vec<ServerState> {
        let transitions = self.servers[who].log.iter().filter_map(|output| match output {
            Output::Transition { to, .. } => Some(*to),
            _ => None,
        });
        transitions.collect()
    }

    pub(crate) fn clear_logs(&mut self) {
        self.servers.iter_mut().for_each(|server| server.log.clear());
    }

    /// Lets the servers run for some time.
    pub(crate) fn run(&mut self, time_secs: u64) {
        let end = self.now + secs(time_secs);
        for _ in 0..1_000_000 {
            self.settle();
            let deadlines =
                self.servers.iter().filter_map(|it| it.endpoint.as_ref()?.next_timeout());
            let connect = Some(self.connect_at).filter(|_| self.may_connect());
            let Some(next) = deadlines.chain(connect).min().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            let next = next.max(self.now);
            self.now = next;
            if self.may_connect() && self.connect_at <= self.now {
                self.connect();
            }
            for who in [PRIMARY, SECONDARY] {
                let due =
                    |endpoint: &Endpoint| endpoint.next_timeout().is_some_and(|at| at <= next);
                if self.servers[who].endpoint.as_ref().is_some_and(due) {
                    self.with_env(who, |endpoint, env| endpoint.timeout(env));
                    self.settle();
                    let endpoint = self.servers[who].endpoint.as_ref().unwrap();
                    assert!(!due(endpoint), "a timeout that does not go away");
                }
            }
        }
        panic!("the servers do not come to rest");
    }

    /// Runs until `done`, at most for some time.
    #[track_caller]
    pub(crate) fn run_until(&mut self, time_secs: u64, done: impl Fn(&Self) -> bool) {
        let end = self.now + secs(time_secs);
        while !done(self) {
            assert!(self.now < end, "it has not come about in {time_secs} s");
            self.run(1);
        }
    }

    /// Lets everything happen that takes no time.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut busy = false;
            for who in [PRIMARY, SECONDARY] {
                busy |= self.notice(who) || self.deliver(who) || self.write(who) || self.store(who);
                busy |= self.with_env(who, |endpoint, env| endpoint.poll(env)).unwrap_or(false);
            }
            if !busy {
                return;
            }
        }
        panic!("messages go on for ever");
    }

    fn may_connect(&self) -> bool {
        let wants = |server: &Server| {
            server.endpoint.as_ref().is_some_and(Endpoint::wants_connection) && !server.linked
        };
        // The secondary may still have a dead one.
        self.cable && wants(&self.servers[PRIMARY]) && self.servers[SECONDARY].endpoint.is_some()
    }

    fn connect(&mut self) {
        self.connect_at = self.now + RETRY;
        self.whole = true;
        for who in [PRIMARY, SECONDARY] {
            self.servers[who].linked = true;
            self.servers[who].clear_incoming();
        }
        for who in [SECONDARY, PRIMARY] {
            self.with_env(who, |endpoint, env| endpoint.connected(env));
        }
    }

    /// Tells a server that its connection is gone, once all that has arrived is read.
    fn notice(&mut self, who: usize) -> bool {
        let server = &self.servers[who];
        if self.whole || !server.linked || !server.incoming.is_empty() || !self.cable {
            return false;
        }
        self.servers[who].linked = false;
        self.with_env(who, |endpoint, env| endpoint.disconnected(env));
        true
    }

    fn deliver(&mut self, who: usize) -> bool {
        let incoming = &mut self.servers[who].incoming;
        let (Some(&high), Some(&low)) = (incoming.front(), incoming.get(1)) else { return false };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if incoming.len() < 2 + len {
            return false;
        }
        let frame: Vec<u8> = incoming.drain(..2 + len).skip(2).collect();
        if self.servers[who].linked {
            self.with_env(who, |endpoint, env| endpoint.received(&frame, env));
        }
        true
    }

    /// One write of a disk.
    fn write(&mut self, who: usize) -> bool {
        let server = &mut self.servers[who];
        if server.disk_is_slow || server.endpoint.is_none() {
            return false;
        }
        let Some(state) = server.unwritten.pop_front() else { return false };
        // As the driver would have it.
        let octets = format!("{state:?}");
        server.disk = Some(state);
        assert_eq!(octets, format!("{:?}", server.disk.as_ref().unwrap()));
        self.with_env(who, |endpoint, env| endpoint.persisted(env));
        true
    }

    /// One answer of the store.
    fn store(&mut self, who: usize) -> bool {
        let server = &mut self.servers[who];
        if server.disk_is_slow || server.store_is_slow {
            return false;
        }
        let Some(sequence) = server.unstored.pop_front() else { return false };
        let stored = !server.store_fails;
        self.with_env(who, |endpoint, env| endpoint.stored(sequence, stored, env));
        true
    }

    pub(crate) fn with_env<T>(
        &mut self,
        who: usize,
        act: impl FnOnce(&mut Endpoint, &mut Env<'_>) -> T,
    ) -> Option<T> {
        let now = self.now(who);
        let Server { endpoint, table, updates, sequence, .. } = &mut self.servers[who];
        let endpoint = endpoint.as_mut()?;
        let mut env = Env { table, now, stored_before: u64::MAX, updates, sequence: *sequence };
        let result = act(endpoint, &mut env);
        self.drain(who);
        Some(result)
    }

    /// Does what the endpoint says.
    fn drain(&mut self, who: usize) {
        let now = self.now(who);
        let server = &mut self.servers[who];
        let Some(endpoint) = server.endpoint.as_mut() else { return };
        let (mut closed, mut reconnect) = (false, RETRY);
        while let Some(output) = endpoint.output() {
            match output {
                Output::Persist(state) => {
                    assert_ne!(state.state, ServerState::Startup);
                    server.unwritten.push_back(state);
                }
                output => {
                    if let Output::Close { refused, .. } = output {
                        closed = true;
                        reconnect = if refused { RETRY_REFUSED } else { RETRY };
                    }
                    server.log.push(output);
                }
            }
        }
        let mut octets = mem::take(endpoint.outgoing());
        stamp(&mut octets, FailoverTime(now.wall.0));
        if !server.updates.is_empty() {
            server.updates.clear();
            server.unstored.push_back(server.sequence);
            server.sequence += 1;
        }
        if server.linked && self.whole {
            let partner = &mut self.servers[1 - who];
            if self.cable { &mut partner.incoming } else { &mut partner.held }.extend(octets);
        }
        if closed {
            // What the secondary thinks of the connection is not known to the primary.
            self.whole = false;
            let reconnect = if who == PRIMARY { reconnect } else { RETRY };
            self.connect_at = self.connect_at.max(self.now + reconnect);
            self.servers[who].clear_incoming();
            self.servers[who].linked = false;
            self.with_env(who, |endpoint, env| endpoint.disconnected(env));
        }
    }
}

impl Server {
    fn new(config: Config) -> Self {
        let table = table(config.role);
        Self {
            config,
            endpoint: None,
            policy: Arc::new(PairPolicy::new()),
            disk: None,
            unwritten: VecDeque::new(),
            disk_is_slow: false,
            ahead_secs: 0,
            log: Vec::new(),
            table,
            updates: UpdateBatch::default(),
            sequence: 1,
            unstored: VecDeque::new(),
            store_fails: false,
            store_is_slow: false,
            incoming: VecDeque::new(),
            held: VecDeque::new(),
            linked: false,
        }
    }

    fn clear_incoming(&mut self) {
        self.incoming.clear();
        self.held.clear();
    }
}

fn table(role: Role) -> LeaseTable {
    let ownership = match role {
        Role::Primary => Ownership::Primary,
        Role::Secondary => Ownership::Secondary,
    };
    let (first, last) = ("2001:db8::".parse().unwrap(), "2001:db8::ffff".parse().unwrap());
    let prefix = "2001:db8:8000::".parse().unwrap();
    let pools = vec![
        PoolConfig { range: PoolRange::Addresses { first, last }, ownership },
        PoolConfig {
            range: PoolRange::Prefixes { prefix, prefix_len: 48, delegated_len: 56 },
            ownership,
        },
    ];
    let config = TableConfig { hash_key: [7; 16], client_stripes: 4, ..TableConfig::default() };
    LeaseTable::new(&config, PoolSet::new(pools).unwrap())
}

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
