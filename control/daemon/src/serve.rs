//! `gemel serve`: puts the parts together and keeps them going.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::Read as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, anyhow, bail};
use crossbeam::channel::bounded;
use gemel_lease::{LeaseTable, PairPolicy, PoolId, PoolRange, PoolSet, TableConfig};
use gemel_server::{Server, ServerConfig};
use gemel_store::{Durability as StoreDurability, Store, StoreConfig};
use gemel_wire::Duid;
use gemel_worker::{stages::Stage, submit::ServiceState};
use parking_lot::{Mutex, RwLock};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tracing::{info, warn};

use crate::{
    config::{Config, Durability},
    control::{Control, ControlStatus},
    ctl::CtlSocket,
    dataplane::{Dataplane, Running, short_slices},
    http,
    interfaces::{Interface, Monitor},
    overload::OverloadWatch,
    pair::{Pair, Parts},
    stages::Stages,
    status::{InterfaceStatus, Shared},
    warm::{Warming, log_progress, panicked},
};

/// Submissions that may wait for the control thread: several batches of every worker.
const SUBMISSIONS: usize = 4096;
/// How often interfaces that could not be served are tried again, and the status is refreshed.
const TICK: Duration = Duration::from_secs(1);

/// Runs the server until SIGTERM or SIGINT.
///
/// # Errors
/// With what keeps it from starting. Interfaces that are missing do not: they are waited for.
pub fn run(config: Config) -> Result<()> {
    let started = Instant::now();
    let started_wall = SystemTime::now();
    let mut store = open_store(&config, started)?;
    let duid = server_duid(&config, &mut store)?;
    let (pool_configs, mut server_config) = config.server_config(duid);
    let (policies, pair_pools) = join_pairs(&config, &mut server_config);
    let pool_names: Vec<String> = pool_configs.iter().map(|pool| pool_name(&pool.range)).collect();
    let pools = PoolSet::new(pool_configs).context("the pools do not fit together")?;
    let table_config = TableConfig {
        hash_key: store.hash_key(),
        // Room for them is made while clients are answered already.
        expected_bindings: 0,
        ..TableConfig::default()
    };
    let table = Arc::new(LeaseTable::new(&table_config, pools));
    let expected = config.server.expected_bindings;
    let mut warming = Warming::start(&mut store, &table, expected, started)?;
    let service = Arc::new(ServiceState::warming());
    if !config.failover.is_empty() {
        // A server of a pair answers nobody before it has heard of its partner, and to the partner it
        // has to speak of every lease.
        warming.finish(&mut store, &table, &service)?;
    }
    let server = Server::new(server_config, Arc::clone(&table))
        .context("the configuration does not fit together")?;
    let server = Arc::new(server);

    let (submit, submissions) = bounded(SUBMISSIONS);
    let resolvers = Arc::new(RwLock::new(Vec::new()));
    let control_status = Arc::new(Mutex::new(ControlStatus::default()));
    let workers = Arc::new(Mutex::new(Vec::new()));
    let stages = Arc::new(Stages::default());
    let durability = match config.store.durability {
        Durability::PowerLoss => "power-loss",
        Durability::Process => "process",
    };
    let (pair, tap) = if config.failover.is_empty() {
        (None, None)
    } else {
        let parts = Parts {
            table: Arc::clone(&table),
            pool_names: pool_names.clone(),
            pools: pair_pools,
            policies,
            submissions: submit.clone(),
            resolvers: Arc::clone(&resolvers),
            service: Arc::clone(&service),
            store_is_new: store.recovery().created,
        };
        let (pair, tap) = Pair::start(&config, parts)?;
        (Some(pair), Some(tap))
    };
    let shared = Arc::new(Shared {
        table: Arc::clone(&table),
        pools: pool_names,
        pair: pair.as_ref().map(|pair| pair.handle().clone()),
        control: Arc::clone(&control_status),
        store: store.monitor(),
        durability,
        interfaces: Mutex::default(),
        workers: Arc::clone(&workers),
        stages: Arc::clone(&stages),
        overload: Mutex::default(),
        warmth: warming.warmth(),
        started: started_wall,
    });
    let mut control = Control::new(
        store,
        table,
        submissions,
        Arc::clone(&resolvers),
        Arc::clone(&service),
        control_status,
        tap,
    )
    .with_recorder(stages.recorder("control", Stage::CONTROL));
    if let Some(end) = warming.take_end() {
        control = control.while_warming(end, warming.warmth());
    }
    let control = std::thread::Builder::new()
        .name("gemel control".to_owned())
        .spawn(move || {
            short_slices("control");
            control.run()
        })
        .context("cannot start the control thread")?;
    let dataplane = Dataplane::new(
        config.dataplane.clone(),
        Arc::clone(&server),
        service,
        warming.recall(),
        submit,
        resolvers,
        workers,
        stages,
    );
    let ctl = CtlSocket::open(&config.control.socket, Arc::clone(&shared))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let mut interfaces = Interfaces::new(&config, dataplane, server, Arc::clone(&shared), pair);
    let warmed = warming.take_result();
    let result = runtime.block_on(main_loop(&config, &mut interfaces, &shared, started, warmed));

    // The partners first, so that they serve at once; then the workers, so that the control thread
    // sees the last of their updates and then ends.
    notify(&[NotifyState::Stopping]);
    if let Some(pair) = interfaces.pair.take() {
        pair.stop();
    }
    drop(interfaces);
    warming.stop();
    let mut store = control.join().map_err(|_| anyhow!("the control thread panicked"))?;
    if let Err(error) = store.checkpoint() {
        warn!(reason = %error, "no checkpoint at the end; the journal holds everything");
    }
    drop(ctl);
    info!("stopped");
    result
}

async fn main_loop(
    config: &Config,
    interfaces: &mut Interfaces<'_>,
    shared: &Arc<Shared>,
    started: Instant,
    warmed: Option<oneshot::Receiver<Result<()>>>,
) -> Result<()> {
    let mut monitor = Monitor::new()?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let http = async {
        match config.control.http {
            Some(address) => http::serve(address, Arc::clone(shared)).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(http);
    // Ends with an error alone.
    let restore = async {
        if let Some(warmed) = warmed {
            warmed.await.unwrap_or_else(|_| Err(panicked()))?;
        }
        std::future::pending().await
    };
    tokio::pin!(restore);
    let mut ready = false;
    loop {
        match monitor.snapshot().await {
            Ok(snapshot) => interfaces.reconcile(&snapshot),
            Err(error) => warn!(reason = format!("{error:#}"), "interfaces not seen"),
        }
        if !ready && interfaces.any_served() {
            ready = true;
            let bindings = shared.table.len();
            let start_ms = started.elapsed().as_millis();
            info!(bindings, start_ms, "ready: serving on {}", interfaces.served().join(", "));
            notify(&[NotifyState::Ready]);
        }
        notify(&[NotifyState::Watchdog]);
        tokio::select! {
            () = monitor.changed() => {}
            _ = tick.tick() => {}
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            result = &mut http => return result,
            result = &mut restore => return result,
        }
    }
}

/// The configured interfaces and the workers on those that are there.
struct Interfaces<'a> {
    config: &'a Config,
    dataplane: Dataplane,
    server: Arc<Server>,
    shared: Arc<Shared>,
    /// In the order of the configuration.
    states: Vec<(String, State)>,
    /// Wants to know whether the clients can reach this server.
    pair: Option<Pair>,
    overload: OverloadWatch,
}

enum State {
    /// For what, so that it is logged once.
    Waiting(String),
    Serving(Box<Running>),
}

impl<'a> Interfaces<'a> {
    fn new(
        config: &'a Config,
        dataplane: Dataplane,
        server: Arc<Server>,
        shared: Arc<Shared>,
        pair: Option<Pair>,
    ) -> Self {
        let mut states: Vec<(String, State)> = Vec::new();
        for name in config.interfaces().map(|name| name.as_str()) {
            if !states.iter().any(|(known, _)| known == name) {
                states.push((name.to_owned(), State::Waiting(String::new())));
            }
        }
        let overload = OverloadWatch::default();
        Self { config, dataplane, server, shared, states, pair, overload }
    }

    /// Starts, updates and stops workers, so that what is there is served.
    fn reconcile(&mut self, snapshot: &HashMap<String, Interface>) {
        for (name, state) in &mut self.states {
            let interface = snapshot.get(name.as_str());
            if let State::Serving(running) = state {
                let alive = interface.is_some_and(|interface| running.update(interface));
                if !alive {
                    *state = State::Waiting(String::new());
                }
            }
            let State::Waiting(before) = state else { continue };
            let reason = match interface {
                None => "there is no such interface yet".to_owned(),
                Some(interface) if !interface.up => "the interface is down".to_owned(),
                Some(interface) if interface.link_local.is_none() => {
                    "the interface has no usable link-local address yet".to_owned()
                }
                Some(interface) => match self.dataplane.start(name, interface) {
                    Ok(running) => {
                        *state = State::Serving(Box::new(running));
                        continue;
                    }
                    Err(error) => format!("{error:#}"),
                },
            };
            if *before != reason {
                warn!(interface = name.as_str(), reason, "waiting for the interface");
                *before = reason;
            }
        }
        self.tell_rules(snapshot);
        if let Some(pair) = &mut self.pair {
            pair.look_at_links(snapshot);
        }
        *self.shared.interfaces.lock() = self.status();
        *self.shared.overload.lock() = self.overload.look(self.shared.solicits_shed());
        self.shared.stages.collect();
    }

    /// Tells the server rules which interface index belongs to which link.
    fn tell_rules(&self, snapshot: &HashMap<String, Interface>) {
        for (link, config) in self.config.links.iter().enumerate() {
            let Some(name) = &config.interface else { continue };
            let index = snapshot.get(name.as_str()).map(|interface| interface.index);
            self.server.set_interface(link, index);
        }
    }

    /// Whether some interface is served; those that are missing are picked up as they come.
    fn any_served(&self) -> bool {
        self.states.iter().any(|(_, state)| matches!(state, State::Serving(_)))
    }

    fn served(&self) -> Vec<&str> {
        self.states
            .iter()
            .filter(|(_, state)| matches!(state, State::Serving(_)))
            .map(|(name, _)| name.as_str())
            .collect()
    }

    fn status(&self) -> Vec<InterfaceStatus> {
        self.states
            .iter()
            .map(|(name, state)| match state {
                State::Waiting(reason) => InterfaceStatus {
                    name: name.clone(),
                    mode: reason.clone(),
                    ..InterfaceStatus::default()
                },
                State::Serving(running) => InterfaceStatus {
                    name: name.clone(),
                    serving: true,
                    carrier: running.interface().carrier,
                    mode: running.mode.clone(),
                    workers: running.worker_count(),
                    xdp: running.xdp_counters().map(xdp_verdicts).unwrap_or_default(),
                },
            })
            .collect()
    }
}

/// Puts each relationship's policy into its links. Gives the policies, and the pools of each.
fn join_pairs(
    config: &Config,
    server: &mut ServerConfig,
) -> (Vec<Arc<PairPolicy>>, Vec<Vec<PoolId>>) {
    let join = |links: &[usize]| {
        let policy = Arc::new(PairPolicy::new());
        let mut pools = Vec::new();
        for link in links {
            let link = &mut server.links[*link];
            link.pair = Some(Arc::clone(&policy));
            pools.extend(link.na_pools.iter().chain(&link.pd_pools).copied());
        }
        (policy, pools)
    };
    config.failover.iter().map(|failover| &*failover.links).map(join).unzip()
}

fn xdp_verdicts(counters: gemel_ebpf::XdpCounters) -> BTreeMap<&'static str, u64> {
    BTreeMap::from([
        ("redirected", counters.redirected),
        ("passed_not_ipv6", counters.passed_not_ipv6),
        ("passed_not_ours", counters.passed_not_ours),
        ("passed_ext_header", counters.passed_ext_header),
        ("passed_no_socket", counters.passed_no_socket),
        ("passed_malformed", counters.passed_malformed),
        ("dropped_flood", counters.dropped_flood),
    ])
}

fn open_store(config: &Config, started: Instant) -> Result<Store> {
    let durability = match config.store.durability {
        Durability::PowerLoss => StoreDurability::PowerLoss,
        Durability::Process => StoreDurability::Process,
    };
    let defaults = StoreConfig::new(&config.store.path, durability, random()?);
    let store_config = StoreConfig {
        segment_len: size(config.store.segment_size)?,
        segments_max: config.store.segments_max as usize,
        map_len: size(config.store.map_size)?,
        checkpoint_interval: config.store.checkpoint_interval,
        checkpoint_leases: config.store.checkpoint_leases as usize,
        ..defaults
    };
    let store = Store::open(store_config, log_progress())
        .with_context(|| format!("cannot open the store in {}", config.store.path.display()))?;
    let recovery = store.recovery();
    info!(
        path = %config.store.path.display(),
        created = recovery.created,
        checkpoint = recovery.checkpoint,
        journal_batches = recovery.batches,
        journal_records = recovery.records,
        bad_records = recovery.bad_records,
        start_ms = started.elapsed().as_millis(),
        "store open"
    );
    Ok(store)
}

/// The configured DUID, else the stored one, else a new one, which is stored (RFC 8415 section
/// 11: it should never change).
fn server_duid(config: &Config, store: &mut Store) -> Result<Duid> {
    if let Some(duid) = config.server.duid {
        return Ok(duid);
    }
    if let Some(octets) = store.server_duid() {
        return Duid::new(octets).context("the store holds a DUID of impossible length");
    }
    // DUID-UUID (RFC 6355), a random UUID of version 4 (RFC 4122 section 4.4).
    let mut uuid: [u8; 16] = random()?;
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    let mut octets = [0; 18];
    octets[1] = 4;
    octets[2..].copy_from_slice(&uuid);
    store.set_server_duid(&octets).context("cannot store the new DUID")?;
    let duid = Duid::new(&octets).context("a DUID of 18 octets is valid")?;
    info!(%duid, "made a DUID for this server");
    Ok(duid)
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut octets = [0; N];
    let path = Path::new("/dev/urandom");
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut octets))
        .with_context(|| format!("no random octets from {}", path.display()))?;
    Ok(octets)
}

fn size(octets: u64) -> Result<usize> {
    match usize::try_from(octets) {
        Ok(size) => Ok(size),
        Err(_) => bail!("{octets} octets are more than this machine can address"),
    }
}

fn pool_name(range: &PoolRange) -> String {
    match range {
        PoolRange::Addresses { first, last } => format!("{first}-{last}"),
        PoolRange::Prefixes { prefix, prefix_len, delegated_len } => {
            format!("{prefix}/{prefix_len} by /{delegated_len}")
        }
    }
}

/// Tells systemd, if it listens.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(reason = %error, "systemd was not told");
    }
}
