//! System calls, each wrapped once, so that the other files hold no `libc` call.

use std::{
    ffi::{CString, c_int, c_void},
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr::{self, NonNull},
    time::Duration,
};

use crate::abi;

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The size of `T` as the kernel's `socklen_t`.
fn socklen_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).expect("option structs are a few bytes long")
}

/// Opens an AF_XDP socket.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::socket(abi::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: a descriptor just returned by the kernel, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds to a queue.
pub(crate) fn bind(fd: BorrowedFd<'_>, address: &abi::sockaddr_xdp) -> io::Result<()> {
    // SAFETY: the pointer is valid for the length given, the kernel only reads.
    check(unsafe {
        libc::bind(
            fd.as_raw_fd(),
            ptr::from_ref(address).cast::<libc::sockaddr>(),
            socklen_of::<abi::sockaddr_xdp>(),
        )
    })
    .map(drop)
}

/// Sets a socket option to the plain kernel struct or integer `value`.
pub(crate) fn set_option<T: Copy>(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: the pointer is valid for the length given, the kernel only reads.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            ptr::from_ref(value).cast::<c_void>(),
            socklen_of::<T>(),
        )
    })
    .map(drop)
}

/// Reads a socket option that is a kernel struct or an integer. Fields that an older kernel does
/// not know are zero.
///
/// # Safety
/// `T` must be valid for any bit pattern: the integers and `repr(C)` structs of integers in
/// [`abi`] are.
pub(crate) unsafe fn option<T: Copy>(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = socklen_of::<T>();
    // SAFETY: the kernel writes at most `len` bytes to `value`.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast::<c_void>(),
            &raw mut len,
        )
    })?;
    // SAFETY: every byte was zeroed or written by the kernel, and the caller vouches for `T`.
    Ok(unsafe { value.assume_init() })
}

/// Tells the kernel to look at the TX ring.
pub(crate) fn wake_tx(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no buffer and no address are passed.
    let result =
        unsafe { libc::sendto(fd.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Tells the kernel to look at the fill ring.
pub(crate) fn wake_rx(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no buffer and no address are passed.
    let result = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Waits until the socket is readable. `None` waits without end. A signal counts as "not yet".
pub(crate) fn poll_readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let timeout = timeout.map(|t| libc::timespec {
        tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: t.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: one pollfd, and a timespec that is null or outlives the call.
    match check(unsafe { libc::ppoll(&raw mut poll, 1, timeout, ptr::null()) }) {
        Ok(_) => Ok(poll.revents & libc::POLLIN != 0),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(e) => Err(e),
    }
}

/// Maps `len` bytes of private memory, with `extra` flags, resident if [`libc::MAP_POPULATE`] is one.
pub(crate) fn map_anonymous(len: usize, extra: c_int) -> io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | extra;
    // SAFETY: a new mapping at an address of the kernel's choice; nothing existing is touched.
    let start = unsafe {
        libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    mapped(start)
}

/// Makes a mapping resident, in huge pages where the kernel has some left for whoever asks
/// (`transparent_hugepage` = `madvise` or `always`). Advice: without it pages come when they are
/// touched first.
pub(crate) fn populate_huge(start: NonNull<u8>, len: usize) {
    // SAFETY: advice about a mapping of ours; none of it changes what the memory holds.
    unsafe {
        libc::madvise(start.as_ptr().cast(), len, libc::MADV_HUGEPAGE);
        libc::madvise(start.as_ptr().cast(), len, libc::MADV_POPULATE_WRITE);
    }
}

/// Maps `len` bytes that the kernel shares through `fd`.
pub(crate) fn map_shared(
    fd: BorrowedFd<'_>,
    len: usize,
    offset: libc::off_t,
) -> io::Result<NonNull<u8>> {
    // SAFETY: as in `map_anonymous`.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            fd.as_raw_fd(),
            offset,
        )
    };
    mapped(start)
}

fn mapped(start: *mut c_void) -> io::Result<NonNull<u8>> {
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast::<u8>()).ok_or_else(|| io::Error::other("mmap gave address zero"))
}

/// Undoes a mapping.
///
/// # Safety
/// `start` and `len` must be those of one mapping that nothing refers to any more.
pub(crate) unsafe fn unmap(start: NonNull<u8>, len: usize) {
    // SAFETY: the caller's promise. An error would mean a wrong address, which that rules out.
    let _ = unsafe { libc::munmap(start.as_ptr().cast::<c_void>(), len) };
}

/// The index of the interface called `name`.
pub(crate) fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a terminated string that outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

/// An ethtool request that only reads: its structure, of `N` words, begins with `command` and comes
/// back filled in.
pub(crate) fn ethtool<const N: usize>(
    socket: &impl AsRawFd,
    interface: &str,
    command: u32,
) -> io::Result<[u32; N]> {
    /// `struct ifreq` with the member of its union that holds a pointer.
    #[repr(C)]
    struct Request {
        name: [u8; libc::IF_NAMESIZE],
        data: *mut c_void,
        rest: [u64; 2],
    }
    let mut name = [0; libc::IF_NAMESIZE];
    let room = name.split_last_mut().map_or(&mut [][..], |(_, room)| room);
    room.get_mut(..interface.len())
        .ok_or(io::ErrorKind::InvalidInput)?
        .copy_from_slice(interface.as_bytes());
    let mut words = [0; N];
    words[0] = command;
    let mut request = Request { name, data: words.as_mut_ptr().cast(), rest: [0; 2] };
    // SAFETY: the request is as large as the kernel's; for the commands that `nic` uses the kernel
    // fills a structure of exactly `N` words behind the pointer, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) })?;
    Ok(words)
}
