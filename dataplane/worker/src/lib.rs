//! The per-queue packet loop: requests in, replies out, binding updates to the control thread.
//!
//! A [`Worker`] owns a [`Port`] and everything that its turn needs. There are two ports: [`XdpPort`]
//! over an AF_XDP socket and [`SocketPort`] over a UDP socket. The seam to the control thread is in
//! [`submit`].
#![forbid(unsafe_code)]

mod counters;
mod headers;
mod port;
mod socket_port;
pub mod submit;
mod worker;
mod xdp_port;

pub use counters::{Shed, WorkerCounters};
pub use headers::Mac;
pub use port::{InterfaceInfo, Origin, Port};
pub use socket_port::{ServerSocket, SocketPort, SocketReply, SocketRequest};
pub use worker::{Worker, WorkerConfig, WorkerError, wall_clock};
pub use xdp_port::{XdpPort, XdpRequest};
