//! The calls into libbpf and libc that libbpf-rs does not wrap. The only unsafe code of the crate.
#![allow(unsafe_code)] // denied at the root: each of these is a C function

use std::{
    ffi::{CStr, c_int},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

use libbpf_rs::libbpf_sys;

/// Programs on an interface, by mode; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProgramIds {
    pub(crate) native: u32,
    pub(crate) generic: u32,
    pub(crate) offloaded: u32,
}

/// Which programs are attached to an interface.
pub(crate) fn query(ifindex: u32) -> io::Result<ProgramIds> {
    let mut opts = libbpf_sys::bpf_xdp_query_opts {
        sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    // SAFETY: `opts` says its own size and outlives the call.
    let result = unsafe { libbpf_sys::bpf_xdp_query(index(ifindex)?, 0, &raw mut opts) };
    check(result)?;
    Ok(ProgramIds {
        native: opts.drv_prog_id,
        generic: opts.skb_prog_id,
        offloaded: opts.hw_prog_id,
    })
}

/// What the driver of an interface can do: bits of `enum netdev_xdp_act` of `linux/netdev.h`.
/// Linux 6.3 and later.
pub(crate) fn features(ifindex: u32) -> io::Result<u64> {
    let mut opts = libbpf_sys::bpf_xdp_query_opts {
        sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    // SAFETY: as in `query`.
    check(unsafe { libbpf_sys::bpf_xdp_query(index(ifindex)?, 0, &raw mut opts) })?;
    Ok(opts.feature_flags)
}

/// Attaches a program by a link, which ends when its descriptor is closed.
pub(crate) fn create_link(
    program: BorrowedFd<'_>,
    ifindex: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let opts = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags,
        ..Default::default()
    };
    // SAFETY: `opts` says its own size and outlives the call.
    let fd = check(unsafe {
        libbpf_sys::bpf_link_create(
            program.as_raw_fd(),
            index(ifindex)?,
            libbpf_sys::BPF_XDP,
            &raw const opts,
        )
    })?;
    // SAFETY: a descriptor just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes the program of a link off its interface, whoever else holds the link open.
pub(crate) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) }).map(drop)
}

/// Runs a program over a packet, `repeat` times, and returns its last verdict.
pub(crate) fn test_run(program: BorrowedFd<'_>, packet: &[u8], repeat: u32) -> io::Result<u32> {
    let mut opts = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: packet.as_ptr().cast(),
        data_size_in: u32::try_from(packet.len()).map_err(io::Error::other)?,
        repeat: c_int::try_from(repeat).map_err(io::Error::other)?,
        ..Default::default()
    };
    // SAFETY: `opts` says its own size, the packet outlives the call, the kernel only reads it.
    let result = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut opts) };
    check(result)?;
    Ok(opts.retval)
}

/// The name of an interface, if there is one with that index.
pub(crate) fn interface_name(ifindex: u32) -> Option<String> {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the function asks for.
    let found = unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr()) };
    if ptr::eq(found, ptr::null()) {
        return None;
    }
    // SAFETY: on success the buffer holds a terminated string.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    Some(name.to_string_lossy().into_owned())
}

/// `struct ethtool_drvinfo` of `linux/ethtool.h`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// `ETHTOOL_GDRVINFO`.
const GET_DRIVER_INFO: u32 = 3;

/// The name of an interface's driver (`ethtool -i`).
pub(crate) fn driver(interface: &str) -> io::Result<String> {
    let mut info = DriverInfo { command: GET_DRIVER_INFO, driver: [0; 32], rest: [0; 160] };
    // SAFETY: zeros are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_INET6, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor just made for us.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: the request names an interface and points to a structure of the size that this
    // command fills; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let len = info.driver.iter().position(|octet| *octet == 0).unwrap_or(info.driver.len());
    Ok(String::from_utf8_lossy(&info.driver[..len]).into_owned())
}

fn index(ifindex: u32) -> io::Result<c_int> {
    c_int::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))
}

/// libbpf returns negative error numbers.
fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}
