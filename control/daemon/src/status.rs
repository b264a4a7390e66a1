//! What a running server shows of itself: to `gemel ctl`, and as metrics over HTTP.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use gemel_lease::{BindingStatus, LeaseTable, PoolId};
use parking_lot::Mutex;
use serde::Serialize;

use crate::{
    control::ControlStatus,
    dataplane::AllCounters,
    overload::OverloadView,
    pair::{PairHandle, view::RelationshipView},
    stages::Stages,
    warm::{WarmingView, Warmth},
};

/// What the parts of a running server let others see.
pub struct Shared {
    /// The bindings.
    pub table: Arc<LeaseTable>,
    /// Names of the pools, by their id.
    pub pools: Vec<String>,
    /// The control thread.
    pub control: Arc<Mutex<ControlStatus>>,
    /// The store.
    pub store: gemel_store::Monitor,
    /// `power-loss` or `process`.
    pub durability: &'static str,
    /// Configured interfaces.
    pub interfaces: Mutex<Vec<InterfaceStatus>>,
    /// The pair thread, if there is a partner.
    pub pair: Option<PairHandle>,
    /// Counters of the workers, with a label each.
    pub workers: AllCounters,
    /// Histograms of the workers and the control thread.
    pub stages: Arc<Stages>,
    /// Whether Solicits are dropped because too much comes in.
    pub overload: Mutex<OverloadView>,
    /// Whether the table holds every binding.
    pub warmth: Arc<Warmth>,
    /// When the process started.
    pub started: SystemTime,
}

/// A configured interface.
#[derive(Clone, Debug, Default, Serialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Whether workers run on it.
    pub serving: bool,
    /// Whether packets can pass.
    pub carrier: bool,
    /// How packets are received and sent, or what the server waits for.
    pub mode: String,
    /// Workers on it.
    pub workers: usize,
    /// Verdicts of the XDP program.
    pub xdp: BTreeMap<&'static str, u64>,
}

/// The answer to `status`.
#[derive(Debug, Serialize)]
pub struct Status {
    version: &'static str,
    pid: u32,
    started: u64,
    /// `full`, `read-only` while nothing can be stored, or `warming` while bindings are read back.
    service: &'static str,
    /// How far the bindings are read back after the start; `null` when all are.
    warming: Option<WarmingView>,
    store_error: Option<String>,
    durability: &'static str,
    overload: OverloadView,
    bindings: usize,
    bindings_by_status: BTreeMap<String, u64>,
    interfaces: Vec<InterfaceStatus>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failover: Vec<RelationshipView>,
    pools: Vec<PoolStatus>,
    commits: u64,
    expired: u64,
    journal_sequence: u64,
    checkpoint_sequence: u64,
}

/// How full a pool is.
#[derive(Debug, Serialize)]
pub struct PoolStatus {
    /// Its range.
    pub pool: String,
    /// Leases in it; `u64::MAX` for more than that.
    pub capacity: u64,
    /// Leases that are not available.
    pub in_use: u64,
}

impl Shared {
    /// Everything on one page.
    #[must_use]
    pub fn status(&self) -> Status {
        let control = self.control.lock().clone();
        let store = self.store.status();
        let warming = self.warmth.view();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            started: unix_secs(self.started),
            service: match (&control.failed, &warming) {
                (Some(_), _) => "read-only",
                (None, Some(_)) => "warming",
                (None, None) => "full",
            },
            warming,
            store_error: control.failed.map(|(reason, _)| reason).or(store.error),
            durability: self.durability,
            overload: *self.overload.lock(),
            bindings: self.table.len(),
            bindings_by_status: self.bindings_by_status(),
            interfaces: self.interfaces.lock().clone(),
            failover: self.failover(),
            pools: self.pools(),
            commits: control.commits,
            expired: control.expired,
            journal_sequence: store.durable,
            checkpoint_sequence: store.checkpoint,
        }
    }

    /// The relationships with partners.
    #[must_use]
    pub fn failover(&self) -> Vec<RelationshipView> {
        self.pair.as_ref().map(PairHandle::views).unwrap_or_default()
    }

    /// Bindings by binding-status.
    #[must_use]
    pub fn bindings_by_status(&self) -> BTreeMap<String, u64> {
        let counts = self.table.counts();
        (1..=u8::MAX)
            .map_while(BindingStatus::from_u8)
            .map(|status| (status.to_string(), counts.of(status)))
            .collect()
    }

    /// The pools and how full they are.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolStatus> {
        (0..)
            .map(PoolId)
            .zip(&self.pools)
            .map(|(id, name)| PoolStatus {
                pool: name.clone(),
                capacity: self.table.pools().capacity(id),
                in_use: self.table.pools().in_use(id),
            })
            .collect()
    }

    /// Solicits that the workers dropped because of overload.
    #[must_use]
    pub fn solicits_shed(&self) -> u64 {
        self.workers.lock().iter().map(|(_, counters)| counters.solicits_shed()).sum()
    }

    /// Sums over all workers: family, name, value. See [`gemel_worker::WorkerCounters::visit`].
    #[must_use]
    pub fn counters(&self) -> BTreeMap<&'static str, BTreeMap<&'static str, u64>> {
        let mut sums: BTreeMap<_, BTreeMap<_, u64>> = BTreeMap::new();
        for (_, counters) in self.workers.lock().iter() {
            counters.visit(&mut |family, name, value| {
                *sums.entry(family).or_default().entry(name).or_default() += value;
            });
        }
        for interface in self.interfaces.lock().iter() {
            for (name, value) in &interface.xdp {
                *sums.entry("xdp").or_default().entry(name).or_default() += value;
            }
        }
        sums
    }
}

/// Seconds since 1970.
#[must_use]
pub fn unix_secs(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
