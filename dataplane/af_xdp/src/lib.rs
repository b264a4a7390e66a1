//! AF_XDP sockets: packets of one network queue, exchanged with the kernel through shared rings,
//! without a system call or a copy into socket buffers per packet.
//!
//! The crate knows nothing of protocols and loads no BPF program. An XDP program on the interface
//! has to redirect packets to the socket through an `XSKMAP`; sending works without one.
//!
//! ```no_run
//! use af_xdp::{Socket, SocketConfig, Umem, UmemConfig, interface_index};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let umem = Umem::new(UmemConfig::default())?;
//! let mut socket = Socket::bind(umem, &SocketConfig::new(interface_index("eth1")?, 0))?;
//! // ... put the socket into the XSKMAP of the XDP program, at its queue ...
//!
//! let mut batch = Vec::with_capacity(64);
//! loop {
//!     if socket.receive(&mut batch) == 0 {
//!         socket.poll(None)?;
//!     }
//!     for mut frame in batch.drain(..) {
//!         if let Some((macs, _)) = socket.data_mut(&mut frame).split_first_chunk_mut::<12>() {
//!             macs.rotate_left(6); // back to the sender
//!         }
//!         if let Err(frame) = socket.transmit(frame) {
//!             socket.free(frame); // the ring is full
//!         }
//!     }
//!     socket.flush()?;
//!     socket.reclaim();
//!     socket.refill();
//! }
//! # }
//! ```
//!
//! # Frames
//! The [`Umem`] is cut into frames of equal size. A [`Frame`] is an owned value: who holds it may
//! read and write its bytes, and it goes to the kernel by value, so that nobody writes into a
//! packet that is being sent. What the kernel says about frames is checked: an address that it
//! cannot have is counted and ignored.
//!
//! # Modes
//! [`BindMode::Auto`] takes zero-copy where the driver has it, else copy mode;
//! [`Socket::is_zero_copy`] tells which. A socket only receives from the queue that it is bound to.
//! It needs Linux 5.4 or later, CAP_NET_RAW, and enough lockable memory for the UMEM.

#[cfg(not(target_os = "linux"))]
compile_error!("AF_XDP exists on Linux only");

mod abi;
mod config;
mod error;
mod mapping;
mod nic;
mod ring;
mod socket;
mod sys;
mod umem;

pub use config::{BindMode, BusyPoll, SocketConfig};
pub use error::Error;
pub use nic::{Nic, nic};
pub use socket::{Counters, Socket, Statistics, interface_index};
pub use umem::{Frame, OutOfFrame, Umem, UmemConfig};
