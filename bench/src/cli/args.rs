//! What all scenarios have on the command line.

use std::{
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use crate::{
    engine::{Choice, Patience, Retransmit},
    message::Traffic,
    os::{self, Interface},
    port::{Endpoint, Mode},
    relay::{self, RELAY_DEPTH_MAX, RelayPath, Template},
    slo::Slo,
};

#[derive(Clone, Debug, Args)]
pub(super) struct CommonArgs {
    /// Interface towards the server.
    #[arg(long, short, value_name = "IF")]
    pub(super) interface: String,
    /// How packets go.
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    pub(super) mode: Mode,
    /// Queue of the interface (AF_XDP).
    #[arg(long, value_name = "Q", default_value_t = 0, conflicts_with = "queues")]
    pub(super) queue: u32,
    /// Several queues of the interface (AF_XDP), each with a generator thread of its own, among which
    /// clients and rate are divided.
    #[arg(long, value_name = "Q,Q", value_delimiter = ',')]
    pub(super) queues: Vec<u32>,
    /// Bind the threads of --queues to these cores, in this order.
    #[arg(
        long,
        value_name = "C,C",
        value_delimiter = ',',
        requires = "queues",
        conflicts_with = "core"
    )]
    pub(super) cores: Vec<u32>,
    /// Number of clients.
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) clients: u32,
    /// What clients ask for.
    #[arg(long, value_enum, default_value_t = IaChoice::Na)]
    pub(super) ia: IaChoice,
    /// Ask for Rapid Commit: SOLICIT, REPLY.
    #[arg(long)]
    pub(super) rapid_commit: bool,
    /// Share of exchanges, 0 to 1, in which a client that holds a lease renews it.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(super) renew_share: f64,
    /// How long an answer is waited for, in milliseconds [default: 1000, with failover 10000].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub(super) timeout: Option<u64>,
    /// Send a message again that has no answer after this many milliseconds, and then after twice
    /// the time, and so on (RFC 8415 section 15).
    #[arg(long, value_name = "MS", num_args = 0..=1, default_missing_value = "100",
          value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub(super) retransmit: Option<u64>,
    /// Turn to any server when the one that was asked by name has not answered for this many
    /// milliseconds: REBIND follows RENEW, and a new SOLICIT follows REQUEST.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub(super) any_server: Option<u64>,
    /// Send through a chain of this many relay agents.
    #[arg(long, value_name = "DEPTH", num_args = 0..=1, default_value_t = 0,
          default_missing_value = "1",
          value_parser = clap::value_parser!(u8).range(0..=32))]
    pub(super) relay: u8,
    /// Link-address of the innermost relay agent; several are shared out among the clients.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub(super) link_address: Vec<Ipv6Addr>,
    /// Number of links of --link-pattern.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "link_pattern",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) links: u32,
    /// Link-addresses of the innermost relay agent, with {link} for the link's number from 0, in
    /// hexadecimal: '2001:db8:{link}::1'.
    #[arg(long, value_name = "PATTERN", conflicts_with = "link_address")]
    pub(super) link_pattern: Option<String>,
    /// Interface-Id of the innermost relay agent. {client} (or {}), {link} and {relay} become the
    /// numbers of client, link and relay agent, from 0; with {relay} every relay agent adds one.
    #[arg(long, value_name = "TEXT")]
    pub(super) interface_id: Option<String>,
    /// Remote-Id (RFC 4649) of the innermost relay agent, with the same placeholders.
    #[arg(long, value_name = "TEXT")]
    pub(super) remote_id: Option<String>,
    /// Enterprise number in the Remote-Id.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) enterprise: u32,
    /// Send to this address instead of ff02::1:2.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) server: Option<Ipv6Addr>,
    /// MAC address of the server or of the router to it.
    #[arg(long, value_name = "MAC", value_parser = mac)]
    pub(super) server_mac: Option<[u8; 6]>,
    /// Send from this address: by default the interface's link-local one, with --relay its first
    /// other one.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) source: Option<Ipv6Addr>,
    /// Seed of the clients' identities and of all choices.
    #[arg(long, value_name = "X", default_value_t = 1)]
    pub(super) seed: u64,
    /// Bind the generator to this core.
    #[arg(long, value_name = "C")]
    pub(super) core: Option<u32>,
    /// The run is invalid if the 99th percentile of the generator's lag exceeds this, in
    /// microseconds.
    #[arg(long, value_name = "US", default_value_t = 1000.0, value_parser = limit)]
    pub(super) lag_limit: f64,
    /// Objectives, as 'p99<2ms,reply.p99.9<5ms,loss<0.1%'; missing one makes the exit status 3.
    #[arg(long, value_name = "LIST")]
    pub(super) slo: Option<Slo>,
    /// Serve the figures for Prometheus at this address while it runs, as `[::1]:9547`.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) prometheus: Option<SocketAddr>,
    /// Write report.html, summary.json, series.csv, run.hlog and .hgrm files into this folder.
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Write every grant to this file: JSON lines, or CSV if it ends in .csv.
    #[arg(long, value_name = "FILE")]
    pub(super) grants: Option<PathBuf>,
    /// Print the summary as JSON on the last line.
    #[arg(long)]
    pub(super) json: bool,
    /// No progress line.
    #[arg(long, short)]
    pub(super) quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum IaChoice {
    /// An address.
    Na,
    /// A prefix.
    Pd,
    /// An address and a prefix.
    Both,
}

impl IaChoice {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Na => "na",
            Self::Pd => "pd",
            Self::Both => "both",
        }
    }
}

pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if rate > 0.0 && rate <= 1e8 { Ok(rate) } else { Err("must be above 0, at most 1e8".into()) }
}

/// Length of an interval, seconds. In less the recorder cannot work one out.
pub(super) fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.1..=86_400.0).contains(&seconds) { Ok(seconds) } else { Err("0.1 to 86400".into()) }
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("must be between 0 and 1".into()) }
}

pub(super) fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.0..=100.0).contains(&percent) { Ok(percent) } else { Err("0 to 100".into()) }
}

/// How close two rates have to be, in percent: 0 is never reached.
pub(super) fn precision(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.01..=100.0).contains(&percent) { Ok(percent) } else { Err("0.01 to 100".into()) }
}

/// A limit of a time, in any unit.
pub(super) fn limit(text: &str) -> Result<f64, String> {
    let limit: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if limit >= 0.0 && limit.is_finite() { Ok(limit) } else { Err("must be 0 or more".into()) }
}

fn mac(text: &str) -> Result<[u8; 6], String> {
    os::parse_mac(text).ok_or_else(|| "write it as 02:00:00:00:00:01".into())
}

impl CommonArgs {
    pub(super) fn timeout_ms(&self) -> u64 {
        self.timeout.unwrap_or(1000)
    }

    pub(super) fn patience(&self) -> Patience {
        let ns = |ms: u64| ms * 1_000_000;
        Patience {
            timeout: ns(self.timeout_ms()),
            retransmit: self.retransmit.map_or(Retransmit::Never, |ms| Retransmit::After(ns(ms))),
            any_server: self.any_server.map(ns),
            end: None,
        }
    }

    /// The queues, each with a thread of its own.
    pub(super) fn queues(&self) -> Vec<u32> {
        if self.queues.is_empty() { vec![self.queue] } else { self.queues.clone() }
    }

    /// The core of each thread, as far as they are given.
    pub(super) fn cores(&self) -> Vec<u32> {
        if self.queues.is_empty() { self.core.into_iter().collect() } else { self.cores.clone() }
    }

    /// The link-addresses, given one by one or by a pattern.
    pub(super) fn links(&self) -> anyhow::Result<Vec<Ipv6Addr>> {
        match &self.link_pattern {
            None => Ok(self.link_address.clone()),
            Some(pattern) => relay::links(pattern, self.links).map_err(anyhow::Error::msg),
        }
    }

    /// The relay agents, if there are any; they send from `source`.
    fn relay_path(&self, source: Ipv6Addr) -> anyhow::Result<Option<RelayPath>> {
        if self.relay == 0 {
            return Ok(None);
        }
        debug_assert!(usize::from(self.relay) <= RELAY_DEPTH_MAX);
        let links = self.links()?;
        if links.is_empty() && self.interface_id.is_none() {
            bail!(
                "relay agents need --link-address, --link-pattern or --interface-id, or no server \
                 can tell the link"
            );
        }
        Ok(Some(RelayPath {
            depth: self.relay,
            links,
            address: source,
            interface_id: self.interface_id.as_deref().map(Template::new),
            remote_id: self.remote_id.as_deref().map(|text| (self.enterprise, Template::new(text))),
        }))
    }

    /// Where packets go from and to, and what is in them.
    pub(super) fn endpoint(&self, interface: &Interface) -> anyhow::Result<(Endpoint, Traffic)> {
        let relayed = self.relay > 0;
        let own = if relayed { interface.global() } else { interface.link_local() };
        let source = self.source.or(own).with_context(|| {
            let kind = if relayed { "global" } else { "link-local" };
            format!(
                "{} has no {kind} address to send from: is it up? (--source gives another)",
                interface.name
            )
        })?;
        let endpoint = Endpoint {
            interface: interface.clone(),
            source,
            source_port: if relayed { gemel_wire::SERVER_PORT } else { gemel_wire::CLIENT_PORT },
            server: self.server.unwrap_or(gemel_wire::ALL_RELAY_AGENTS_AND_SERVERS),
            server_mac: self.server_mac,
        };
        Ok((endpoint, self.traffic(source)?))
    }

    /// What clients ask for.
    fn traffic(&self, source: Ipv6Addr) -> anyhow::Result<Traffic> {
        let traffic = Traffic {
            na: !matches!(self.ia, IaChoice::Pd),
            pd: !matches!(self.ia, IaChoice::Na),
            rapid_commit: self.rapid_commit,
            renew_share: self.renew_share,
            choice: Choice::InTurn,
            relay: self.relay_path(source)?,
        };
        if traffic.longest() > DATAGRAM_MAX {
            bail!("{} relay agents make messages that do not fit into a frame", self.relay);
        }
        Ok(traffic)
    }
}

/// What fits behind the headers of an Ethernet frame of 1514 octets.
const DATAGRAM_MAX: usize = 1452;
