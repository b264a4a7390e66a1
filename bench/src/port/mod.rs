//! Ports: what carries datagrams to the server and back.

use std::{io, net::Ipv6Addr};

use gemel_ebpf::XdpMode;
use serde::{Deserialize, Serialize};

use crate::os;

mod memory;
mod socket;
mod xdp;

pub use memory::{Answer, MemoryPort};
pub use socket::SocketPort;
pub use xdp::XdpPort;

/// Datagrams handled between two looks at the clock.
pub const BATCH: usize = 64;

/// Sends and receives datagrams without blocking.
pub trait Port {
    /// Hands received datagrams to `take`, at most [`BATCH`]; returns how many frames came in that
    /// are no datagrams for this generator.
    ///
    /// # Errors
    /// If the port is broken, not if nothing is there.
    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> io::Result<u64>;

    /// Offers a buffer to `fill`, which writes a datagram and returns its length, or `None` to send
    /// nothing after all. False if there is no room to send; `fill` is then not called.
    ///
    /// # Errors
    /// If the port is broken.
    fn send(&mut self, fill: &mut impl FnMut(&mut [u8]) -> Option<usize>) -> io::Result<bool>;

    /// Lets go what has been queued.
    ///
    /// # Errors
    /// If the port is broken.
    fn flush(&mut self) -> io::Result<()>;

    /// What the port turned out to be.
    fn info(&self) -> PortInfo;
}

/// What a port turned out to be, for the report.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct PortInfo {
    /// `xdp-native-copy`, `xdp-native-zerocopy`, `xdp-generic-copy`, `socket` or `memory`.
    pub mode: String,
    /// Why it is not a better one, if that was tried.
    pub fallback_reason: Option<String>,
    /// What the kernel dropped on the way in because this program was too slow.
    pub receive_drops: u64,
    /// Remarks for people.
    pub notes: Vec<String>,
}

impl PortInfo {
    /// What several ports of one interface are together.
    #[must_use]
    pub fn join(ports: impl IntoIterator<Item = Self>) -> Self {
        ports
            .into_iter()
            .reduce(|mut all, port| {
                all.receive_drops += port.receive_drops;
                all.notes.extend(port.notes);
                all
            })
            .unwrap_or_default()
    }
}

/// Which port to use.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// AF_XDP if it can be had, else UDP sockets.
    Auto,
    /// AF_XDP, with the XDP program in the driver or in the kernel's stack, whichever is faster.
    Xdp,
    /// AF_XDP with the XDP program in the driver.
    XdpNative,
    /// AF_XDP with the XDP program in the kernel's stack.
    XdpGeneric,
    /// UDP sockets.
    Socket,
}

/// Where a port sends to and from.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Interface.
    pub interface: os::Interface,
    /// The generator's address: link-local for clients, usually global for a relay agent.
    pub source: Ipv6Addr,
    /// 546 for clients, 547 for a relay agent.
    pub source_port: u16,
    /// The server, or a multicast group.
    pub server: Ipv6Addr,
    /// The server's MAC, or that of the router to it; needed for AF_XDP to a unicast address.
    pub server_mac: Option<[u8; 6]>,
}

/// Why there is no port.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// AF_XDP socket or its memory.
    #[error("AF_XDP on {interface}: {source}")]
    Xdp {
        /// Interface.
        interface: String,
        /// What went wrong.
        source: af_xdp::Error,
    },
    /// XDP program.
    #[error("XDP program on {interface}: {source}")]
    Program {
        /// Interface.
        interface: String,
        /// What went wrong.
        source: gemel_ebpf::Error,
    },
    /// The server's MAC is not known.
    #[error(
        "the MAC of {0} is not known: give --server-mac, or ping it first so that the kernel's \
         neighbour table knows it"
    )]
    NoServerMac(Ipv6Addr),
    /// A UDP socket has no queues.
    #[error("several queues need AF_XDP: --mode xdp or auto")]
    QueuesNeedXdp,
    /// UDP socket.
    #[error("UDP socket: {call} {address}: {source}")]
    Socket {
        /// What was tried.
        call: &'static str,
        /// The address it was tried with.
        address: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Any of the real ports.
#[derive(Debug)]
pub enum AnyPort {
    /// AF_XDP.
    Xdp(Box<XdpPort>),
    /// UDP socket.
    Socket(Box<SocketPort>),
}

impl AnyPort {
    /// Opens ports of the wanted mode, one for each queue.
    ///
    /// # Errors
    /// See [`PortError`]; with [`Mode::Auto`] only if the socket cannot be had either, or is not enough.
    pub fn open(mode: Mode, endpoint: &Endpoint, queues: &[u32]) -> Result<Vec<Self>, PortError> {
        let xdp = |mode| {
            let ports = XdpPort::open(endpoint, queues, mode)?;
            Ok(ports.into_iter().map(Box::new).map(Self::Xdp).collect())
        };
        let fastest = || {
            let [first, second] = os::modes_by_speed(&endpoint.interface);
            xdp(first).or_else(|_| xdp(second))
        };
        let socket = |reason| {
            if queues.len() > 1 {
                return Err(PortError::QueuesNeedXdp);
            }
            Ok(vec![Self::Socket(Box::new(SocketPort::open(endpoint, reason)?))])
        };
        match mode {
            Mode::Socket => socket(None),
            Mode::Xdp => fastest(),
            Mode::XdpNative => xdp(XdpMode::Native),
            Mode::XdpGeneric => xdp(XdpMode::Generic),
            Mode::Auto => match fastest() {
                Ok(ports) => Ok(ports),
                Err(error) if queues.len() > 1 => Err(error),
                Err(error) => socket(Some(error.to_string())),
            },
        }
    }

    /// What the port turned out to be.
    #[must_use]
    pub fn info(&self) -> PortInfo {
        match self {
            Self::Xdp(port) => port.info(),
            Self::Socket(port) => port.info(),
        }
    }
}
