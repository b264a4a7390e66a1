//! A server of the pair: what lives as long as its process, and what outlives it.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use gemel_failover::{Config, Endpoint, Now, Role, StoredState, broken};
use gemel_lease::{
    Lease, LeaseTable, Ownership, PairPolicy, PairRules, PoolConfig, PoolId, PoolRange, PoolSet,
    TableConfig, UpdateBatch,
};
use gemel_server::{LinkConfig, Server, ServerConfig};
use gemel_wire::Duid;

use crate::clock::{Clock, Micros};
use crate::message::server_duid;
use crate::plan::{Break, Plan};
use crate::rng::Rng;
use crate::store::{Commits, Store};
use crate::wires::ConnectionId;

/// The primary.
pub const PRIMARY: usize = 0;
/// The secondary.
pub const SECONDARY: usize = 1;

/// The pool of addresses.
pub(crate) const ADDRESSES: PoolId = PoolId(0);
/// The pool of prefixes.
pub(crate) const PREFIXES: PoolId = PoolId(1);

/// Length of a delegated prefix.
const DELEGATED_LEN: u8 = 56;

/// A server, running or not.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) clock: Clock,
    /// Counts its processes, so that nothing meant for one reaches the next.
    pub(crate) epoch: u32,
    pub(crate) store: Store,
    pub(crate) process: Option<Process>,
    /// The connection that this server believes to have.
    pub(crate) connection: Option<ConnectionId>,
    /// The disk is slow until then.
    pub(crate) slow_until: Micros,
    /// It knows all that it ever acknowledged, or has fetched it from the other again.
    pub(crate) is_whole: bool,
    /// It has given leases in PARTNER-DOWN state, where nothing limits them, of which the other may
    /// not have heard.
    pub(crate) is_exposed: bool,
    /// The last state that it took to is PARTNER-DOWN, be it dead, out of service or starting by now.
    pub(crate) is_in_partner_down: bool,
    /// It does not come up again by itself before this.
    pub(crate) restart_at: Option<Micros>,
}

/// What dies with the process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) table: Arc<LeaseTable>,
    pub(crate) server: Server,
    pub(crate) endpoint: Endpoint,
    /// What the endpoint says, and what the rules hear: the same unless that is what is broken.
    policy: Arc<PairPolicy>,
    rules: Arc<PairPolicy>,
    broken: Option<Break>,
    /// The endpoint's open batch, how many of its updates have been looked at, and its number.
    pub(crate) open: UpdateBatch,
    pub(crate) open_seen: usize,
    pub(crate) sequence: u64,
    pub(crate) commits: Commits,
    pub(crate) persists: VecDeque<StoredState>,
    pub(crate) wake_at: Option<Micros>,
    /// How often it has been woken since then.
    pub(crate) wakes: u32,
    pub(crate) wakes_since: Micros,
    /// Last stamp that was pushed of each lease.
    pub(crate) pushed: BTreeMap<Lease, u64>,
    /// By transaction: what has to be stored before the BNDREPLY may leave.
    pub(crate) owed: BTreeMap<[u8; 3], Vec<(Lease, u64)>>,
    /// The endpoint has missed some of what was committed.
    pub(crate) missed: bool,
    /// When the last notice of what was committed reaches the endpoint.
    pub(crate) notice_at: Micros,
    /// Stopped by the operator.
    pub(crate) suspended: bool,
}

impl Node {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            epoch: 0,
            store: Store::default(),
            process: None,
            connection: None,
            slow_until: 0,
            is_whole: true,
            is_exposed: false,
            is_in_partner_down: false,
            restart_at: None,
        }
    }

    /// Starts the server from what its stable storage holds.
    pub(crate) fn boot(&mut self, node: usize, plan: &Plan, now: Now, rng: &mut Rng) {
        self.epoch += 1;
        self.restart_at = None;
        self.connection = None;
        let config =
            TableConfig { hash_key: *b"gemel simulation", client_stripes: 4, expected_bindings: 0 };
        let table = Arc::new(LeaseTable::new(&config, pools(node, plan)));
        // In any order.
        let mut records: Vec<_> = self.store.records.values().cloned().collect();
        for at in (1..records.len()).rev() {
            records.swap(at, rng.index(at + 1));
        }
        records.into_iter().for_each(|record| table.restore(record));
        table.finish_restore();
        let policy = Arc::new(PairPolicy::new());
        let rules = match plan.broken {
            Some(Break::Mclt) => Arc::new(PairPolicy::new()),
            _ => Arc::clone(&policy),
        };
        let server = Server::new(server_config(node, plan, &rules), Arc::clone(&table))
            .expect("the configuration is right");
        let endpoint = Endpoint::new(
            failover_config(node, plan),
            vec![ADDRESSES, PREFIXES],
            Arc::clone(&policy),
            self.store.state.clone(),
            now,
        );
        let pushed = self.store.records.iter().map(|(lease, it)| (*lease, it.stamp)).collect();
        self.process = Some(Process {
            table,
            server,
            endpoint,
            policy,
            rules,
            broken: plan.broken,
            open: UpdateBatch::default(),
            open_seen: 0,
            sequence: 1,
            commits: Commits::default(),
            persists: VecDeque::new(),
            wake_at: None,
            wakes: 0,
            wakes_since: 0,
            pushed,
            owed: BTreeMap::new(),
            missed: false,
            notice_at: 0,
            suspended: false,
        });
    }
}

impl Process {
    /// What the rules are to obey.
    pub(crate) fn rules(&self) -> PairRules {
        self.policy.load()
    }

    /// Lets the rules hear what the endpoint says, or nearly.
    pub(crate) fn publish(&self) {
        if self.broken == Some(Break::Mclt) {
            self.rules.set(PairRules { mclt: None, ..self.policy.load() });
        }
    }
}

/// The same pools on both servers, each with its part.
fn pools(node: usize, plan: &Plan) -> PoolSet {
    let ownership = match node {
        SECONDARY if plan.broken != Some(Break::Parity) => Ownership::Secondary,
        _ => Ownership::Primary,
    };
    let first = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0);
    let last = match plan.addresses {
        0 => Ipv6Addr::from_bits(first.to_bits() | u128::from(u64::MAX)),
        count => Ipv6Addr::from_bits(first.to_bits() + 0x1000 + u128::from(count) - 1),
    };
    let first = match plan.addresses {
        0 => first,
        _ => Ipv6Addr::from_bits(first.to_bits() + 0x1000),
    };
    let prefixes = PoolRange::Prefixes {
        prefix: Ipv6Addr::new(0x2001, 0xdb8, 0x8000, 0, 0, 0, 0, 0),
        prefix_len: DELEGATED_LEN - plan.prefixes_log2,
        delegated_len: DELEGATED_LEN,
    };
    PoolSet::new(vec![
        PoolConfig { range: PoolRange::Addresses { first, last }, ownership },
        PoolConfig { range: prefixes, ownership },
    ])
    .expect("the pools are right")
}

/// All prefixes of the pool.
pub(crate) fn prefixes(plan: &Plan) -> impl Iterator<Item = Lease> + use<> {
    let first = Ipv6Addr::new(0x2001, 0xdb8, 0x8000, 0, 0, 0, 0, 0).to_bits();
    (0..1_u128 << plan.prefixes_log2).map(move |index| {
        let bits = first + (index << (128 - DELEGATED_LEN));
        Lease::prefix(Ipv6Addr::from_bits(bits), DELEGATED_LEN)
    })
}

/// All addresses of the pool, unless it is sparse.
pub(crate) fn addresses(plan: &Plan) -> impl Iterator<Item = Lease> + use<> {
    let first = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0x1000).to_bits();
    (0..u128::from(plan.addresses))
        .map(move |index| Lease::address(Ipv6Addr::from_bits(first + index)))
}

/// The interface that clients are heard on.
pub(crate) const INTERFACE: u32 = 1;

fn server_config(node: usize, plan: &Plan, rules: &Arc<PairPolicy>) -> ServerConfig {
    let duid = Duid::new(&server_duid(node)).expect("a DUID of ten octets");
    let mut link = LinkConfig::new("clients");
    link.interface = Some(INTERFACE);
    link.na_pools = vec![ADDRESSES];
    link.pd_pools = vec![PREFIXES];
    link.preferred_lifetime = plan.preferred;
    link.valid_lifetime = plan.valid;
    link.rapid_commit = plan.rapid_commit > 0;
    link.create_on_rebind = Some(false);
    link.create_on_renew = plan.create_on_renew;
    link.decline_hold_secs = plan.decline_hold;
    link.pair = Some(Arc::clone(rules));
    let mut config = ServerConfig::new(duid);
    config.links.push(link);
    config
}

fn failover_config(node: usize, plan: &Plan) -> Config {
    let role = if node == PRIMARY { Role::Primary } else { Role::Secondary };
    let mut config = Config::new("pair", role, plan.mclt);
    config.keepalive_secs = plan.keepalive_secs;
    config.max_unacked_bndupd = plan.window;
    config.startup_time = Duration::from_secs(plan.startup_secs);
    config.auto_partner_down = plan.auto_partner_down_secs.map(Duration::from_secs);
    config.secondary_share_percent = plan.secondary_share_percent;
    config.balance_threshold_percent = plan.balance_threshold_percent;
    config.response_time_max = Duration::from_secs(plan.response_secs);
    config.broken = match plan.broken {
        Some(Break::ReallocationWait) => Some(broken::Rule::ReallocationWait),
        Some(Break::DurableBeforeReply) => Some(broken::Rule::DurableBeforeReply),
        Some(Break::ConflictTable) => Some(broken::Rule::ConflictTable),
        // Kept, or not, by how the server is set up.
        Some(Break::Mclt | Break::Parity) | None => None,
    };
    config
}
