//! What can go wrong with an XDP program, by what the caller can do about it.

use std::io;

use crate::{Occupant, XdpMode};

/// Why a program could not be loaded, attached or configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process may not do this.
    #[error("could not {what}: not permitted; it needs CAP_BPF and CAP_NET_ADMIN, or root")]
    Permission {
        /// What was refused.
        what: &'static str,
    },
    /// Another XDP program is in the way.
    #[error("cannot attach to interface {interface}: {occupant}")]
    Occupied {
        /// Name of the interface.
        interface: String,
        /// What is in the way and how to remove it.
        occupant: Box<Occupant>,
    },
    /// The interface is gone.
    #[error("there is no interface with index {0}")]
    NoInterface(u32),
    /// The program is already attached; detach it first, or load another.
    #[error("this XDP program is already attached to interface {0}")]
    Attached(String),
    /// The driver, or the kernel, does not take the program in this mode.
    #[error("could not attach to interface {interface} in {mode} mode: {source}{hint}")]
    Attach {
        /// Name of the interface.
        interface: String,
        /// The mode tried.
        mode: XdpMode,
        /// What the kernel said.
        source: io::Error,
        /// What that error often means, empty or beginning with `; `.
        hint: &'static str,
    },
    /// A number is beyond what the program can hold.
    #[error("{what} {value} is beyond the limit of {max}")]
    TooMany {
        /// What the number is.
        what: &'static str,
        /// The number.
        value: usize,
        /// The largest that is possible.
        max: usize,
    },
    /// Any other failure in libbpf or the kernel.
    #[error("could not {what}: {source}")]
    Bpf {
        /// What was tried.
        what: &'static str,
        /// What libbpf said.
        source: libbpf_rs::Error,
    },
}

impl Error {
    /// Wraps what libbpf said about trying to do `what`.
    pub(crate) fn bpf(what: &'static str, source: libbpf_rs::Error) -> Self {
        match source.kind() {
            libbpf_rs::ErrorKind::PermissionDenied => Self::Permission { what },
            _ => Self::Bpf { what, source },
        }
    }
}
