//! The kernel's ABI for AF_XDP, as in `linux/if_xdp.h`
//! (<https://github.com/torvalds/linux/blob/master/include/uapi/linux/if_xdp.h>).
//!
//! `libc` has nearly all of it; what is newer than `libc` is defined here.

pub(crate) use libc::{
    AF_XDP, SOL_XDP, XDP_COPY, XDP_MMAP_OFFSETS, XDP_OPTIONS, XDP_OPTIONS_ZEROCOPY,
    XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING, XDP_RING_NEED_WAKEUP, XDP_RX_RING, XDP_STATISTICS,
    XDP_TX_RING, XDP_UMEM_COMPLETION_RING, XDP_UMEM_FILL_RING, XDP_UMEM_REG, XDP_USE_NEED_WAKEUP,
    XDP_ZEROCOPY, sockaddr_xdp, xdp_desc, xdp_mmap_offsets, xdp_options, xdp_ring_offset,
    xdp_statistics, xdp_umem_reg,
};

/// `XDP_MAX_TX_SKB_BUDGET`: how many frames one `sendto` takes from the TX ring in copy mode
/// (32 without it). Linux 6.18 and later.
pub(crate) const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Page offset of the fill ring. `libc` types it `c_ulonglong`, mmap wants `off_t`.
pub(crate) const XDP_UMEM_PGOFF_FILL_RING: libc::off_t = 0x1_0000_0000;
/// Page offset of the completion ring.
pub(crate) const XDP_UMEM_PGOFF_COMPLETION_RING: libc::off_t = 0x1_8000_0000;

/// `asm-generic/socket.h`: prefer busy polling over interrupts. Linux 5.11 and later.
pub(crate) const SO_PREFER_BUSY_POLL: libc::c_int = 69;
/// `asm-generic/socket.h`: packets taken per busy poll.
pub(crate) const SO_BUSY_POLL_BUDGET: libc::c_int = 70;
