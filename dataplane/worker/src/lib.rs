//! The per-queue packet loop: requests in, replies out, binding updates to the control thread.
//!
//! A [`Worker`] owns a [`Port`] and everything that its turn needs. There are two ports: [`XdpPort`]
//! over an AF_XDP socket and [`SocketPort`] over a UDP socket. The seam to the control thread is in
//! [`submit`], histograms of where the time goes in [`stages`].
#![forbid(unsafe_code)]

mod admission;
mod counters;
mod headers;
mod port;
mod socket_port;
pub mod stages;
pub mod submit;
mod timing;
mod worker;
mod xdp_port;

pub use admission::Backlog;
pub use counters::{Shed, WorkerCounters};
pub use headers::Mac;
pub use port::{InterfaceInfo, Origin, Port};
pub use socket_port::{ServerSocket, SocketPort, SocketReply, SocketRequest};
pub use worker::{Worker, WorkerConfig, WorkerError, wall_clock};
pub use xdp_port::{XdpPort, XdpRequest};
