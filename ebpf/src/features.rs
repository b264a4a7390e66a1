//! What the driver of an interface can do with XDP.

use crate::sys;

const BASIC: u64 = 1;
const REDIRECT: u64 = 2;
const ZERO_COPY: u64 = 8;

/// What a driver can do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct XdpFeatures {
    /// Programs run in the driver and can redirect to sockets.
    pub native: bool,
    /// Sockets share their frames with the driver.
    pub zero_copy: bool,
}

/// Asks the kernel what the driver of an interface can do; `None` where it does not tell (before
/// Linux 6.3, or without privilege).
#[must_use]
pub fn xdp_features(ifindex: u32) -> Option<XdpFeatures> {
    let bits = sys::features(ifindex).ok()?;
    let has = |mask| bits & mask == mask;
    // A kernel that knows nothing of features reports none of them.
    (bits != 0).then(|| XdpFeatures { native: has(BASIC | REDIRECT), zero_copy: has(ZERO_COPY) })
}
