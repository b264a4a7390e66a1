//! What can go wrong while a UMEM or a socket is set up.

use std::io;

/// Why a UMEM or a socket could not be made or used. Variants are split by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A size in the configuration is not one that the kernel takes; fix the configuration.
    #[error("{name} is {value}: {rule}")]
    Config {
        /// The configuration field.
        name: &'static str,
        /// The value found in it.
        value: u64,
        /// What it must be.
        rule: &'static str,
    },
    /// No interface has this name.
    #[error("no network interface named {0:?}")]
    NoInterface(String),
    /// Another socket holds this queue, and still did after all retries.
    #[error(
        "queue {queue_id} of interface {ifindex} is in use by another AF_XDP socket; \
         stop the other program or choose another queue"
    )]
    QueueBusy {
        /// Interface index.
        ifindex: u32,
        /// Queue of the interface.
        queue_id: u32,
    },
    /// The interface has no such queue.
    #[error(
        "interface {ifindex} has no queue {queue_id}, or its MTU does not fit into one frame \
         (`ethtool -l` lists the queues)"
    )]
    NoQueue {
        /// Interface index.
        ifindex: u32,
        /// Queue of the interface.
        queue_id: u32,
    },
    /// Zero-copy was required, and the driver does not have it; use copy mode.
    #[error("the driver of interface {ifindex} has no zero-copy mode; use copy or auto mode")]
    NoZeroCopy {
        /// Interface index.
        ifindex: u32,
    },
    /// The process may not do this.
    #[error(
        "{call}: not permitted; AF_XDP needs CAP_NET_RAW (and memory locking: CAP_IPC_LOCK or \
         a higher RLIMIT_MEMLOCK)"
    )]
    Permission {
        /// The system call that was refused.
        call: &'static str,
    },
    /// Any other failure of a system call.
    #[error("{call}: {source}")]
    Os {
        /// The system call that failed.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// Wraps the error of the system call `call`.
    pub(crate) fn os(call: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Permission { call },
            _ => Self::Os { call, source },
        }
    }
}
