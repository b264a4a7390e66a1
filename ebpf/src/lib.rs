//! The XDP programs of Gemel, and their loader.
//!
//! [`XdpServer`] steers DHCPv6 that is meant for this host to AF_XDP sockets, one for each RX
//! queue. It looks at Ethernet, up to two VLAN tags, IPv6 and UDP: port 547 at `ff02::1:2`,
//! `ff05::1:3` or an address of ours. Everything else goes on into the kernel, as do packets with
//! extension headers, fragments, and queues without a socket. [`XdpClient`] does the same for a
//! load generator. Each packet is counted once, by what became of it.
//!
//! ```no_run
//! use gemel_ebpf::{XdpMode, XdpServer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let ifindex = 2;
//! # let socket: std::net::UdpSocket = unimplemented!();
//! let mut server = XdpServer::load()?;
//! server.set_own_addresses(&["2001:db8::1".parse()?, "fe80::1".parse()?])?;
//! let attachment = server.attach(ifindex, XdpMode::Auto)?;
//! println!("attached in {} mode", attachment.mode);
//! server.set_socket(0, &socket)?; // an AF_XDP socket bound to queue 0
//! println!("{:?}", server.counters()?);
//! # Ok(())
//! # }
//! ```
//!
//! # Attaching
//! The program hangs on a BPF link: it is gone with the value or with the process, SIGKILL
//! included, and leaves no trace. Where another XDP program is attached already, the error says
//! which one, who holds it and how to remove it.
//!
//! # VLAN tags
//! XDP sees the tags that are in the packet. A network card that strips them (`rxvlan`) hides them
//! from the program and from the socket; switch that off with `ethtool -K IF rxvlan off`. Between
//! the ends of a veth pair it is the sender's `txvlan` that does so.
//!
//! # Building
//! clang compiles the programs (`src/bpf`) when the crate is built; `cargo xtask setup` installs
//! what that takes.
#![deny(unsafe_code)]

mod attach;
mod client;
mod counters;
mod error;
mod features;
mod program;
mod server;
mod skel;
mod sys;

pub use attach::{Attachment, Occupant, XdpMode, modes_by_speed};
pub use client::{Capture, XdpClient};
pub use counters::XdpCounters;
pub use error::Error;
pub use features::{XdpFeatures, xdp_features};
pub use program::{Verdict, XdpProgram};
pub use server::{FloodLimit, TokenBucket, XdpServer};

/// Queues that can have a socket. As in `src/bpf/sockets.h`.
pub const QUEUES_MAX: usize = 256;
/// Unicast addresses that can be ours. As in `src/bpf/sockets.h`.
pub const OWN_ADDRESSES_MAX: usize = 1024;
