//! The counters of an XDP program, summed over the CPUs.

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::Error;

/// Where the packets went, since the program was loaded. Each packet is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpCounters {
    /// To the AF_XDP socket of their queue. (The kernel may still drop them there: its RX ring can
    /// be full, which the socket's statistics tell.)
    pub redirected: u64,
    /// To the kernel: not IPv6, or more than two VLAN tags.
    pub passed_not_ipv6: u64,
    /// To the kernel: IPv6, but not to a port and address of ours.
    pub passed_not_ours: u64,
    /// To the kernel: IPv6 with an extension header, fragments among them.
    pub passed_ext_header: u64,
    /// To the kernel: ours, but no socket is set for the queue.
    pub passed_no_socket: u64,
    /// To the kernel: cut off within the headers, or an IP version that is not 6.
    pub passed_malformed: u64,
    /// Dropped: the source exceeded its flood limit.
    pub dropped_flood: u64,
}

impl XdpCounters {
    /// Reads the map that `src/bpf/counters.h` defines.
    pub(crate) fn read(map: &MapHandle) -> Result<Self, Error> {
        let sum = |index: u32| -> Result<u64, Error> {
            let cpus = map
                .lookup_percpu(&index.to_ne_bytes(), MapFlags::ANY)
                .map_err(|e| Error::bpf("read a counter", e))?
                .unwrap_or_default();
            // A value is 8 bytes by the map's definition.
            Ok(cpus.iter().filter_map(|v| v.first_chunk()).map(|v| u64::from_ne_bytes(*v)).sum())
        };
        Ok(Self {
            redirected: sum(0)?,
            passed_not_ipv6: sum(1)?,
            passed_not_ours: sum(2)?,
            passed_ext_header: sum(3)?,
            passed_no_socket: sum(4)?,
            passed_malformed: sum(5)?,
            dropped_flood: sum(6)?,
        })
    }

    /// All packets that the program saw.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self {
            redirected,
            passed_not_ipv6,
            passed_not_ours,
            passed_ext_header,
            passed_no_socket,
            passed_malformed,
            dropped_flood,
        } = *self;
        redirected
            + passed_not_ipv6
            + passed_not_ours
            + passed_ext_header
            + passed_no_socket
            + passed_malformed
            + dropped_flood
    }
}
