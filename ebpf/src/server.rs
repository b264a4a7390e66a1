//! The program of the server.

use std::{
    mem::MaybeUninit,
    ops::{Deref, DerefMut},
};

use libbpf_rs::{
    MapCore, MapFlags, MapHandle,
    skel::{OpenSkel, SkelBuilder},
};

use crate::{Error, XdpProgram, program::handle, skel::server::ServerSkelBuilder};

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// A limit on the packets of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// Packets per second, in the long run; at least 1.
    pub packets_per_second: u32,
    /// Packets at once; at least 1.
    pub burst: u32,
}

/// Limits on the packets of one source, beyond which they are dropped in the driver.
///
/// The table of sources holds 65,536 and forgets the one unseen for longest, so a flood from more
/// forged sources than that is not held back by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FloodLimit {
    /// For each client on the link, told apart by MAC address and VLAN tags: link-local addresses
    /// are cheaper to make up.
    pub direct: Option<TokenBucket>,
    /// For each IPv6 address that sends from beyond the link: relays, which speak for many
    /// clients, and clients that unicast.
    pub routed: Option<TokenBucket>,
}

/// Steers DHCPv6 for this server to its AF_XDP sockets, and everything else to the kernel.
///
/// Has the methods of [`XdpProgram`].
#[derive(Debug)]
pub struct XdpServer {
    program: XdpProgram,
    flood_limits: MapHandle,
}

impl XdpServer {
    /// Loads the program into the kernel, without sockets, own addresses or flood limit.
    ///
    /// # Errors
    /// [`Error::Permission`] without the rights to do so.
    pub fn load() -> Result<Self, Error> {
        let mut object = MaybeUninit::uninit();
        let skel = ServerSkelBuilder::default()
            .open(&mut object)
            .and_then(OpenSkel::load)
            .map_err(|e| Error::bpf("load the server's XDP program", e))?;
        Ok(Self {
            program: XdpProgram::new(
                &skel.progs.gemel_server,
                handle(&skel.maps.sockets)?,
                handle(&skel.maps.own_addresses)?,
                handle(&skel.maps.counters)?,
            )?,
            flood_limits: handle(&skel.maps.flood_limits)?,
        })
    }

    /// Sets or lifts the flood limit.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_flood_limit(&self, limit: FloodLimit) -> Result<(), Error> {
        // The order is that of `enum source_kind` in src/bpf/flood.h.
        for (kind, bucket) in (0_u32..).zip([limit.direct, limit.routed]) {
            self.flood_limits
                .update(&kind.to_ne_bytes(), &encode(bucket), MapFlags::ANY)
                .map_err(|e| Error::bpf("set the flood limit", e))?;
        }
        Ok(())
    }
}

impl Deref for XdpServer {
    type Target = XdpProgram;

    fn deref(&self) -> &XdpProgram {
        &self.program
    }
}

impl DerefMut for XdpServer {
    fn deref_mut(&mut self) -> &mut XdpProgram {
        &mut self.program
    }
}

/// A `struct flood_limit` of src/bpf/flood.h.
fn encode(bucket: Option<TokenBucket>) -> [u8; 16] {
    let (interval, tolerance) = bucket.map_or((0, 0), |bucket| {
        let interval = NANOS_PER_SEC / u64::from(bucket.packets_per_second.max(1));
        (interval, interval * u64::from(bucket.burst.max(1) - 1))
    });
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&interval.to_ne_bytes());
    bytes[8..].copy_from_slice(&tolerance.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_becomes_interval_and_tolerance_in_nanoseconds() {
        let words = |bucket| {
            let bytes = encode(bucket);
            [0, 8].map(|i| u64::from_ne_bytes(bytes[i..i + 8].try_into().unwrap()))
        };
        let bucket = |packets_per_second, burst| Some(TokenBucket { packets_per_second, burst });
        assert_eq!(words(None), [0, 0]);
        assert_eq!(words(bucket(100, 50)), [10_000_000, 490_000_000]);
        assert_eq!(words(bucket(0, 0)), [1_000_000_000, 0]);
        assert_eq!(words(bucket(1, u32::MAX)), [NANOS_PER_SEC, NANOS_PER_SEC * 0xffff_fffe]);
    }
}
