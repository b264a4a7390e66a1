//! What the driver of an interface says about itself: rings, queues and offloads, by the ethtool
//! ioctls (`linux/ethtool.h`). Nothing is changed.

use std::{ffi::CStr, io};

use crate::sys;

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GRINGPARAM: u32 = 0x10;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const ETH_FLAG_LRO: u32 = 1 << 15;

/// A network interface as its driver describes it. What the driver does not tell is `None`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Nic {
    /// Name of the driver.
    pub driver: Option<String>,
    /// Entries of the receive ring now, and at most.
    pub rx_ring: Option<(u32, u32)>,
    /// Receive queues now, and at most: combined channels, or those for receive alone.
    pub channels: Option<(u32, u32)>,
    /// Whether received segments are put together in software.
    pub gro: Option<bool>,
    /// The same in the card.
    pub lro: Option<bool>,
    /// Whether the card takes VLAN tags out of received frames.
    pub strips_vlan: Option<bool>,
}

/// Asks the driver of the interface called `name`, in this process's network namespace.
///
/// # Errors
/// When there is no such interface, or the kernel gives no socket to ask through.
pub fn nic(name: &str) -> io::Result<Nic> {
    sys::interface_index(name).ok_or(io::ErrorKind::NotFound)?;
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0))
        .or_else(|_| std::net::UdpSocket::bind(("::1", 0)))?;
    // Words of the structures: ringparam and channels are nine each, a value is two.
    let rings: Option<[u32; 9]> = sys::ethtool(&socket, name, ETHTOOL_GRINGPARAM).ok();
    let channels: Option<[u32; 9]> = sys::ethtool(&socket, name, ETHTOOL_GCHANNELS).ok();
    let value = |command| sys::ethtool::<2>(&socket, name, command).ok().map(|[_, value]| value);
    let flags = value(ETHTOOL_GFLAGS);
    Ok(Nic {
        driver: sys::ethtool::<49>(&socket, name, ETHTOOL_GDRVINFO).ok().and_then(driver),
        rx_ring: rings.map(|rings| (rings[5], rings[1])).filter(|(_, max)| *max > 0),
        channels: channels.map(|c| (c[5] + c[8], c[1].max(c[4]))).filter(|(_, max)| *max > 0),
        gro: value(ETHTOOL_GGRO).map(|value| value != 0),
        lro: flags.map(|flags| flags & ETH_FLAG_LRO != 0),
        strips_vlan: flags.map(|flags| flags & ETH_FLAG_RXVLAN != 0),
    })
}

/// The driver's name: 32 octets after the first word of `struct ethtool_drvinfo`.
fn driver(info: [u32; 49]) -> Option<String> {
    let mut name = [0; 33];
    for (octets, word) in name.chunks_exact_mut(4).zip(&info[1..9]) {
        octets.copy_from_slice(&word.to_ne_bytes());
    }
    let name = CStr::from_bytes_until_nul(&name).ok()?.to_str().ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_no_rings() {
        let lo = nic("lo").unwrap();
        assert_eq!((lo.rx_ring, lo.channels), (None, None));
        assert!(lo.gro.is_some(), "the network stack answers for it");
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        assert_eq!(nic("gw-none").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
