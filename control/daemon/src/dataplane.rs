//! Starts and stops the workers of an interface.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use af_xdp::{BindMode, BusyPoll, SocketConfig, Umem, UmemConfig};
use anyhow::{Context as _, Result, anyhow};
use arc_swap::ArcSwap;
use crossbeam::channel::Sender;
use gemel_ebpf::{FloodLimit, TokenBucket, XdpMode, XdpServer, modes_by_speed};
use gemel_server::{Recall, Server};
use gemel_worker::{
    InterfaceInfo, Port, ServerSocket, SocketPort, Worker, WorkerConfig, WorkerCounters,
    WorkerError, XdpPort,
    stages::Stage,
    submit::{self, ServiceState, Submission, Waker},
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use parking_lot::Mutex;
use tracing::{error, info, warn};

use crate::{
    config::{Dataplane as DataplaneConfig, Mode},
    control::{Resolvers, error_chain},
    interfaces::Interface,
    slice::ask_for_short_slices,
    stages::Stages,
};

/// Octets of a UMEM frame: a whole Ethernet frame and the headroom of the kernel.
pub(crate) const FRAME_LEN: u32 = 2048;
/// Buffers of a socket worker at most; its buffers are twice as large as frames.
const SOCKET_FRAMES_MAX: usize = 8192;
/// Buffers of the socket worker that stands beside AF_XDP, where few packets come.
const SIDE_FRAMES: usize = 256;

/// The counters of every worker there has been, each with a label for people: sums never go back.
pub type AllCounters = Arc<Mutex<Vec<(String, Arc<WorkerCounters>)>>>;

/// What every worker shares.
pub struct Dataplane {
    config: DataplaneConfig,
    server: Arc<Server>,
    service: Arc<ServiceState>,
    recall: Arc<dyn Recall>,
    submissions: Sender<Submission>,
    resolvers: Resolvers,
    counters: AllCounters,
    stages: Arc<Stages>,
    next_core: std::cell::Cell<usize>,
}

/// The workers of one interface. Dropping it stops them and detaches the XDP program.
pub struct Running {
    name: String,
    interface: Interface,
    info: Arc<ArcSwap<InterfaceInfo>>,
    xdp: Option<XdpServer>,
    /// What the operator reads: how packets are received and sent.
    pub mode: String,
    workers: Vec<WorkerThread>,
    stop: Arc<AtomicBool>,
    resolvers: Resolvers,
}

struct WorkerThread {
    number: usize,
    waker: Arc<Waker>,
    thread: JoinHandle<Result<(), WorkerError>>,
}

impl Dataplane {
    /// Puts the parts together; nothing runs yet.
    #[expect(clippy::too_many_arguments, reason = "each is a part that the workers share")]
    pub fn new(
        config: DataplaneConfig,
        server: Arc<Server>,
        service: Arc<ServiceState>,
        recall: Arc<dyn Recall>,
        submissions: Sender<Submission>,
        resolvers: Resolvers,
        counters: AllCounters,
        stages: Arc<Stages>,
    ) -> Self {
        let next_core = std::cell::Cell::new(0);
        Self {
            config,
            server,
            service,
            recall,
            submissions,
            resolvers,
            counters,
            stages,
            next_core,
        }
    }

    /// Starts the workers of an interface that is up and has a link-local address.
    ///
    /// In the modes with AF_XDP there is a worker for each receive queue and one on a UDP socket,
    /// for what the XDP program leaves to the kernel.
    ///
    /// # Errors
    /// With what stands in the way; nothing is left running then.
    pub fn start(&self, name: &str, interface: &Interface) -> Result<Running> {
        let info = Arc::new(ArcSwap::from_pointee(interface_info(interface)));
        let mut running = Running {
            name: name.to_owned(),
            interface: interface.clone(),
            info: Arc::clone(&info),
            xdp: None,
            mode: String::new(),
            workers: Vec::new(),
            stop: Arc::new(AtomicBool::new(false)),
            resolvers: Arc::clone(&self.resolvers),
        };
        let mut ports = Vec::new();
        for (xdp_mode, bind_mode) in attempts(self.config.mode, interface) {
            match self.xdp_ports(interface, &info, xdp_mode, bind_mode) {
                Ok((xdp, found, mode)) => {
                    (running.xdp, ports, running.mode) = (Some(xdp), found, mode);
                    break;
                }
                Err(error) if self.config.mode == Mode::Auto => {
                    let reason = format!("{error:#}");
                    warn!(interface = name, mode = %xdp_mode, reason, "mode not available");
                }
                Err(error) => return Err(error),
            }
        }
        let frames = if ports.is_empty() {
            (self.config.frames as usize).min(SOCKET_FRAMES_MAX)
        } else {
            SIDE_FRAMES
        };
        let socket = ServerSocket::open(name, interface.index).with_context(|| {
            format!("cannot listen on UDP port {} of {name}", gemel_wire::SERVER_PORT)
        })?;
        if running.mode.is_empty() {
            "UDP socket".clone_into(&mut running.mode);
        }
        let queues = ports.len();
        for (queue, port) in ports.into_iter().enumerate() {
            let frames = self.config.frames as usize;
            let held_max = (frames.saturating_sub(self.config.rx_ring as usize) / 2).max(64);
            let core = self.next_core();
            self.spawn(&mut running, &format!("{name}/{queue}"), move || port, held_max, core)?;
        }
        // Beside AF_XDP the socket worker mostly sleeps and needs no core of its own.
        let core = if queues == 0 { self.next_core() } else { None };
        let port = move || SocketPort::new(socket, info, frames);
        self.spawn(&mut running, &format!("{name}/socket"), port, frames / 2, core)?;
        info!(interface = name, mode = running.mode, queues, "serving");
        Ok(running)
    }

    /// Attaches the XDP program and binds a socket to every receive queue.
    fn xdp_ports(
        &self,
        interface: &Interface,
        info: &Arc<ArcSwap<InterfaceInfo>>,
        xdp_mode: XdpMode,
        bind_mode: BindMode,
    ) -> Result<(XdpServer, Vec<XdpPort>, String)> {
        let mut xdp = XdpServer::load().context("cannot load the XDP program")?;
        let limit = self
            .config
            .flood_limit
            .map(|limit| TokenBucket { packets_per_second: limit.rate, burst: limit.burst });
        // Not for what comes from beyond the link: a relay agent speaks for thousands of clients.
        xdp.set_flood_limit(FloodLimit { direct: limit, routed: None })?;
        set_own_addresses(&xdp, interface)?;
        let attachment =
            xdp.attach(interface.index, xdp_mode).context("cannot attach the XDP program")?;
        let mut ports = Vec::new();
        let mut zero_copy = true;
        for queue in 0..interface.rx_queues.max(1) {
            let config = &self.config;
            let umem = Umem::new(UmemConfig {
                frame_count: config.frames,
                frame_size: FRAME_LEN,
                ..UmemConfig::default()
            })
            .with_context(|| format!("no memory for the frames of queue {queue}"))?;
            let socket_config = SocketConfig {
                rx_size: config.rx_ring,
                tx_size: config.tx_ring,
                fill_size: config.fill_ring,
                completion_size: config.completion_ring,
                mode: bind_mode,
                tx_reserve: config.frames / 2,
                busy_poll: config.busy_poll.map(|time| BusyPoll {
                    micros: u32::try_from(time.as_micros()).unwrap_or(u32::MAX),
                    budget: 64,
                }),
                ..SocketConfig::new(interface.index, queue)
            };
            let socket = af_xdp::Socket::bind(umem, &socket_config)
                .with_context(|| format!("cannot bind an AF_XDP socket to queue {queue}"))?;
            xdp.set_socket(queue, &socket)?;
            zero_copy &= socket.is_zero_copy();
            ports.push(XdpPort::new(socket, Arc::clone(info), config.batch));
        }
        let copy = if zero_copy { "zero-copy" } else { "copy" };
        let mode = format!("AF_XDP {copy}, XDP {}", attachment.mode);
        Ok((xdp, ports, mode))
    }

    fn next_core(&self) -> Option<usize> {
        let cores = self.config.cores.as_ref()?;
        let turn = self.next_core.get();
        self.next_core.set(turn + 1);
        cores.get(turn % cores.len()).copied()
    }

    fn spawn<P>(
        &self,
        running: &mut Running,
        label: &str,
        port: impl FnOnce() -> P + Send + 'static,
        held_max: usize,
        core: Option<usize>,
    ) -> Result<()>
    where
        P: Port,
    {
        let counters = Arc::new(WorkerCounters::default());
        let mut resolvers = self.resolvers.write();
        // Numbers are not used again: a late resolution must not reach another worker.
        let number = resolvers.len();
        let (submitter, resolver) = submit::connect(number, self.submissions.clone())
            .context("no event descriptor for a worker")?;
        let waker = Arc::clone(resolver.waker());
        resolvers.push(Some(resolver));
        drop(resolvers);
        self.counters.lock().push((label.to_owned(), Arc::clone(&counters)));
        let recorder = Some(self.stages.recorder(label, Stage::WORKER));
        let config = WorkerConfig { batch: self.config.batch, held_max };
        let server = Arc::clone(&self.server);
        let service = Arc::clone(&self.service);
        let recall = Arc::clone(&self.recall);
        let stop = Arc::clone(&running.stop);
        let label = label.to_owned();
        let thread = std::thread::Builder::new()
            .name(format!("gemel {label}"))
            .spawn(move || {
                if let Some(core) = core {
                    pin(core, &label);
                }
                short_slices(&label);
                // After pinning, so that the memory is near the core.
                let port = port();
                let worker =
                    Worker::new(port, server, submitter, service, counters, recorder, config);
                let result = worker.with_recall(recall).run(&stop);
                if let Err(error) = &result {
                    error!(worker = label, reason = error_chain(error), "worker ended");
                }
                result
            })
            .context("cannot start a worker thread")?;
        running.workers.push(WorkerThread { number, waker, thread });
        Ok(())
    }
}

/// How to try to receive, one way after the other.
fn attempts(mode: Mode, interface: &Interface) -> Vec<(XdpMode, BindMode)> {
    let auto = |mode| match mode {
        XdpMode::Generic => (mode, BindMode::Copy),
        XdpMode::Native | XdpMode::Auto => (mode, BindMode::Auto),
    };
    match mode {
        Mode::Auto => {
            let queues = interface.rx_queues.max(1);
            modes_by_speed(interface.index, queues).map(auto).into()
        }
        Mode::ZeroCopy => vec![(XdpMode::Native, BindMode::ZeroCopy)],
        Mode::Native => vec![(XdpMode::Native, BindMode::Copy)],
        Mode::Generic => vec![(XdpMode::Generic, BindMode::Copy)],
        Mode::Socket => Vec::new(),
    }
}

impl Running {
    /// Takes over what has changed of the interface without a restart. False if the workers must
    /// be started anew: another interface bears the name now, it lost its address, its queues
    /// changed, or a worker has ended.
    pub fn update(&mut self, interface: &Interface) -> bool {
        if self.workers.iter().any(|worker| worker.thread.is_finished())
            || interface.index != self.interface.index
            || interface.rx_queues != self.interface.rx_queues
            || !interface.up
        {
            return false;
        }
        if *interface != self.interface {
            if let Some(xdp) = &self.xdp
                && let Err(error) = set_own_addresses(xdp, interface)
            {
                warn!(interface = self.name, reason = error_chain(&*error), "addresses not set");
                return false;
            }
            if interface.carrier != self.interface.carrier {
                let carrier = if interface.carrier { "up" } else { "lost" };
                info!(interface = self.name, carrier, "carrier changed");
            }
            self.info.store(Arc::new(interface_info(interface)));
            self.interface = interface.clone();
        }
        true
    }

    /// What the XDP program counted, if there is one.
    #[must_use]
    pub fn xdp_counters(&self) -> Option<gemel_ebpf::XdpCounters> {
        self.xdp.as_ref()?.counters().ok()
    }

    /// The interface as it was last seen.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// How many workers there are.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        self.workers.len()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // No new packets first; then the workers finish what they hold.
        if let Some(xdp) = &mut self.xdp {
            xdp.detach();
        }
        self.stop.store(true, Ordering::Release);
        for worker in &self.workers {
            worker.waker.wake();
        }
        for worker in self.workers.drain(..) {
            // A worker that failed has said so.
            let _ = worker.thread.join();
            if let Some(slot) = self.resolvers.write().get_mut(worker.number) {
                *slot = None;
            }
        }
        info!(interface = self.name, "stopped serving");
    }
}

fn interface_info(interface: &Interface) -> InterfaceInfo {
    InterfaceInfo {
        index: interface.index,
        mac: interface.mac,
        link_local: interface.link_local,
        addresses: interface.addresses.clone(),
    }
}

fn set_own_addresses(xdp: &XdpServer, interface: &Interface) -> Result<()> {
    let own: Vec<_> = interface.link_local.iter().chain(&interface.addresses).copied().collect();
    xdp.set_own_addresses(&own).map_err(|error| anyhow!(error))
}

pub(crate) fn short_slices(thread: &str) {
    if let Err(error) = ask_for_short_slices() {
        warn!(thread, reason = %error, "no short time slices; latency may suffer on shared cores");
    }
}

fn pin(core: usize, label: &str) {
    let mut set = CpuSet::new();
    let pinned = set.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    if let Err(error) = pinned {
        warn!(worker = label, core, reason = %error, "cannot pin the worker to its core");
    }
}
