use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use gemel_failover::Role;
use gemel_wire::{Duid, OptionCode};

use super::{Ipv6Prefix, Problem};

/// A configuration that has passed every check: each value lies in its bounds, the values fit
/// together, and all defaults are filled in. Only [`Config::load`] and [`Config::parse`] make one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The file that it was read from.
    pub file: PathBuf,
    /// Table `[server]`.
    pub server: Server,
    /// Table `[store]`.
    pub store: Store,
    /// Table `[dataplane]`.
    pub dataplane: Dataplane,
    /// Table `[control]`.
    pub control: Control,
    /// Table `[log]`.
    pub log: Log,
    /// Tables `[[link]]`, in the order of the file; at least one.
    pub links: Vec<Link>,
    /// Tables `[[failover]]`, in the order of the file; empty for a server without a partner.
    pub failover: Vec<Failover>,
    /// What is allowed and yet probably not meant, in the order of the file.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// Every interface that workers listen on: those of the links, then those of
    /// `dataplane.interfaces`, each once. At least one.
    pub fn interfaces(&self) -> impl Iterator<Item = &InterfaceName> {
        let links = self.links.iter().filter_map(|link| link.interface.as_ref());
        links.chain(&self.dataplane.interfaces)
    }
}

/// Table `[[failover]]`: one relationship with a partner (RFC 8156).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failover {
    /// OPTION_F_RELATIONSHIP_NAME; the same on both servers.
    pub name: String,
    /// This server's role.
    pub role: Role,
    /// The partner's address: where the primary connects to, and whom the secondary lets in.
    pub partner: IpAddr,
    /// TCP port of the secondary.
    pub port: u16,
    /// The address to listen on or to connect from. `None`: any.
    pub local: Option<IpAddr>,
    /// The links that belong to it, by their place in [`Config::links`]; at least one. A link is
    /// in one relationship at most.
    pub links: Vec<usize>,
    /// Maximum Client Lead Time, seconds; at least 1.
    pub mclt: u32,
    /// FO_KEEPALIVE_TIME, seconds; at least 1.
    pub keepalive_secs: u32,
    /// OPTION_F_MAX_UNACKED_BNDUPD; at least 1.
    pub max_unacked_updates: u32,
    /// How long to look for the partner after a start.
    pub startup_time: Duration,
    /// How long without the partner until PARTNER-DOWN. `None`: only an operator says so.
    pub auto_partner_down: Option<Duration>,
    /// Without stored state and partner, begin in PARTNER-DOWN instead of RECOVER.
    pub start_in_partner_down: bool,
    /// The secondary's part of the free delegable prefixes, percent; 0 to 100.
    pub secondary_share_percent: u8,
    /// And no more than this of one pool.
    pub secondary_prefixes_max: u64,
    /// By how much that part may be off, percent.
    pub balance_threshold_percent: u8,
    /// How long an answer of the partner may take.
    pub response_time_max: Duration,
    /// How long the primary waits between attempts to connect.
    pub reconnect_interval: Duration,
    /// Whether the partner is to serve when clients cannot reach this server (RFC 7031 section
    /// 4.7).
    pub hand_over_on_link_loss: bool,
    /// Certificates. `None`: plain TCP.
    pub tls: Option<FailoverTls>,
}

/// Table `[failover.tls]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FailoverTls {
    /// PEM file with the certificates that the partner's has to be signed by; absolute.
    pub ca: PathBuf,
    /// PEM file with this server's certificate, and those between it and the CA; absolute.
    pub certificate: PathBuf,
    /// PEM file with its private key; absolute.
    pub key: PathBuf,
    /// The DNS name that the partner's certificate has to be issued for.
    pub partner_name: String,
}

/// Table `[server]`: who the server says it is.
#[derive(Clone, Debug)]
pub struct Server {
    /// The server's DUID. `None`: made at the first start and kept in the store.
    pub duid: Option<Duid>,
    /// Preference option of ADVERTISE (RFC 8415 section 21.8); 0 is not sent.
    pub preference: u8,
    /// Whether clients that send straight to a unicast address of the server are answered.
    pub accept_unicast: bool,
    /// How many bindings to make room for at start. More than that still work, at the price of
    /// growing the table.
    pub expected_bindings: usize,
}

/// Table `[store]`: where and how bindings are kept.
#[derive(Clone, Debug)]
pub struct Store {
    /// Directory of the journal and of LMDB; absolute.
    pub path: PathBuf,
    /// What a lease survives.
    pub durability: Durability,
    /// Octets of one journal segment; a multiple of 4096.
    pub segment_size: u64,
    /// How many journal segments may exist before appending has to wait for the checkpoint; at
    /// least 3.
    pub segments_max: u32,
    /// A checkpoint is written when this many leases have changed...
    pub checkpoint_leases: u32,
    /// ...or when the oldest change that is not in it is this old.
    pub checkpoint_interval: Duration,
    /// Octets of address space reserved for the LMDB map; a multiple of 4096. The file on disk
    /// grows only as it is filled.
    pub map_size: u64,
}

/// What a lease that was given to a client survives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// A power cut: replies wait for fdatasync.
    PowerLoss,
    /// The death of the process, but no power cut and no kernel crash.
    Process,
}

/// Table `[dataplane]`: how packets reach the workers.
#[derive(Clone, Debug)]
pub struct Dataplane {
    /// How packets are received and sent.
    pub mode: Mode,
    /// Interfaces to listen on besides those of the links, for relayed messages.
    pub interfaces: Vec<InterfaceName>,
    /// The CPUs that workers are pinned to, in turn. `None`: not pinned. Never empty.
    pub cores: Option<Vec<usize>>,
    /// Packets that a worker takes in one turn; 1 to 1024.
    pub batch: usize,
    /// Entries of the RX ring; a power of two.
    pub rx_ring: u32,
    /// Entries of the TX ring; a power of two.
    pub tx_ring: u32,
    /// Entries of the fill ring; a power of two.
    pub fill_ring: u32,
    /// Entries of the completion ring; a power of two.
    pub completion_ring: u32,
    /// Packet frames of one queue's UMEM; at least `rx_ring + tx_ring`.
    pub frames: u32,
    /// How long the kernel polls the queue on the worker's behalf (`SO_BUSY_POLL`). `None`: off.
    pub busy_poll: Option<Duration>,
    /// Token bucket of each client on the link, in the XDP program. `None`: off.
    pub flood_limit: Option<FloodLimit>,
}

/// How packets are received and sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// The first that works of those below, in their order.
    Auto,
    /// AF_XDP, the driver's own buffers.
    ZeroCopy,
    /// AF_XDP in copy mode with XDP in the driver.
    Native,
    /// AF_XDP in copy mode with XDP in the network stack.
    Generic,
    /// UDP sockets, no XDP.
    Socket,
}

/// A token bucket for each client on the link, told apart by MAC address and VLAN tags.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FloodLimit {
    /// Packets per second; at least 1.
    pub rate: u32,
    /// Packets that may come at once; at least 1.
    pub burst: u32,
}

/// Table `[control]`: how the operator reaches the daemon.
#[derive(Clone, Debug)]
pub struct Control {
    /// Unix socket of `gemel ctl`; absolute.
    pub socket: PathBuf,
    /// Where metrics and the status page are served. `None`: nowhere.
    pub http: Option<SocketAddr>,
}

/// Table `[log]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Log {
    /// The least important lines that are still written.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// Importance of a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogLevel {
    /// Something does not work.
    Error,
    /// Something will not work for long, or not as configured.
    Warn,
    /// What an operator wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The word in the configuration, which is also a filter directive of `tracing`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Table `[[link]]`: one link (RFC 8415 section 4.1) with what its clients are given. What the link
/// leaves out has been taken from `[defaults]`.
#[derive(Clone, Debug)]
pub struct Link {
    /// Unique name, for logs and metrics.
    pub name: String,
    /// The interface whose clients are on this link. `None`: reached through relays only. No two
    /// links have the same.
    pub interface: Option<InterfaceName>,
    /// On-link prefixes: what CONFIRM is checked against, and relays whose link-address lies in one
    /// serve this link unless another link has the same prefix. Otherwise disjoint.
    pub prefixes: Vec<Ipv6Prefix>,
    /// How relayed messages are recognised as coming from this link.
    pub relay: Relay,
    /// Addresses for IA_NA, each range inside one of `prefixes`.
    pub address_pools: Vec<AddressPool>,
    /// Prefixes for IA_PD.
    pub prefix_pools: Vec<PrefixPool>,
    /// Preferred lifetime, seconds, at least 1; `u32::MAX` is infinity (RFC 8415 section 7.7).
    pub preferred_lifetime: u32,
    /// Valid lifetime, seconds, not below the preferred one; `u32::MAX` is infinity.
    pub valid_lifetime: u32,
    /// T1, seconds; 0 leaves it to the client (RFC 8415 section 21.4). `None`: half of the shortest
    /// preferred lifetime in the message.
    pub t1: Option<u32>,
    /// T2, seconds; 0 leaves it to the client. Not below T1, not above the preferred lifetime.
    /// `None`: 0.8 of the shortest preferred lifetime in the message.
    pub t2: Option<u32>,
    /// Whether a SOLICIT with Rapid Commit is answered with REPLY (RFC 8415 section 18.3.1).
    pub rapid_commit: bool,
    /// Whether a RENEW creates bindings that it does not find (RFC 8415 section 18.3.4).
    pub create_on_renew: bool,
    /// The same for REBIND (RFC 8415 section 18.3.5).
    pub create_on_rebind: bool,
    /// How long, in seconds, a declined address is kept out of use; at least 1, `u32::MAX` is for
    /// ever.
    pub decline_hold: u32,
    /// DNS Recursive Name Server option (RFC 3646); empty: not sent.
    pub dns_servers: Vec<Ipv6Addr>,
    /// Domain Search List option (RFC 3646); empty: not sent.
    pub domain_search: Vec<DomainName>,
    /// SOL_MAX_RT option, seconds, 60 to 86400 (RFC 8415 section 21.24). `None`: not sent.
    pub sol_max_rt: Option<u32>,
    /// INF_MAX_RT option, seconds, 60 to 86400 (RFC 8415 section 21.25). `None`: not sent.
    pub inf_max_rt: Option<u32>,
    /// Information Refresh Time option, seconds, at least 600 (RFC 8415 section 21.23). `None`: not
    /// sent.
    pub information_refresh_time: Option<u32>,
    /// Any other options.
    pub options: Vec<CustomOption>,
}

/// How relayed messages are recognised as coming from a link.
#[derive(Clone, Debug, Default)]
pub struct Relay {
    /// A link-address in one of these belongs to the link; the longest match of all links counts.
    pub link_addresses: Vec<Ipv6Prefix>,
    /// An Interface-Id option with one of these values belongs to the link. Never empty strings.
    pub interface_ids: Vec<Vec<u8>>,
}

/// A range of addresses, both ends included; `first <= last`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AddressPool {
    /// The lowest address.
    pub first: Ipv6Addr,
    /// The highest address.
    pub last: Ipv6Addr,
}

/// A prefix that is delegated in equal parts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PrefixPool {
    /// The whole.
    pub prefix: Ipv6Prefix,
    /// Length of each part; between the length of the whole and 128.
    pub delegated_length: u8,
}

/// An option that the server sends as it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CustomOption {
    /// Option code; never one that the server makes itself.
    pub code: OptionCode,
    /// The body.
    pub data: Vec<u8>,
    /// Sent to every client, instead of to those that ask for it in their Option Request option.
    pub always: bool,
}

/// Name of a network interface that Linux would accept: 1 to 15 octets.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct InterfaceName(pub(super) String);

impl InterfaceName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A fully qualified domain name, in text and as it goes on the wire.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DomainName {
    pub(super) text: String,
    pub(super) wire: Vec<u8>,
}

impl DomainName {
    /// As written in the configuration, without the final dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Labels with length octets and the final zero, uncompressed (RFC 8415 section 10).
    #[must_use]
    pub fn as_wire(&self) -> &[u8] {
        &self.wire
    }
}
