//! What is asked of the operating system.
// Interface addresses, affinity and signals are C interfaces; each is wrapped here once.
#![allow(unsafe_code)]

use std::{
    ffi::CStr,
    io, mem,
    net::Ipv6Addr,
    process::Command,
    ptr,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

/// A network interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Index.
    pub index: u32,
    /// Hardware address; zeros if it has none.
    pub mac: [u8; 6],
    /// IPv6 addresses.
    pub addresses: Vec<Ipv6Addr>,
}

impl Interface {
    /// Looks an interface up by name.
    ///
    /// # Errors
    /// If there is none or the kernel does not tell.
    pub fn by_name(name: &str) -> io::Result<Self> {
        let mut found = Self { name: name.into(), index: 0, mac: [0; 6], addresses: Vec::new() };
        let mut list: *mut libc::ifaddrs = ptr::null_mut();
        // SAFETY: on success the call leaves a list that is ours until freeifaddrs.
        if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut next = list;
        while !next.is_null() {
            // SAFETY: a node of the list, which is not freed before the loop is over.
            let node = unsafe { &*next };
            next = node.ifa_next;
            // SAFETY: the name is a C string that belongs to the list.
            let node_name = unsafe { CStr::from_ptr(node.ifa_name) };
            if node_name.to_bytes() != name.as_bytes() || node.ifa_addr.is_null() {
                continue;
            }
            // SAFETY: not null; every address begins with its family.
            match i32::from(unsafe { (*node.ifa_addr).sa_family }) {
                libc::AF_PACKET => {
                    // SAFETY: the family says that it is a sockaddr_ll.
                    let link =
                        unsafe { ptr::read_unaligned(node.ifa_addr.cast::<libc::sockaddr_ll>()) };
                    found.index = u32::try_from(link.sll_ifindex).unwrap_or(0);
                    if let Some(mac) = link.sll_addr.first_chunk::<6>() {
                        found.mac = *mac;
                    }
                }
                libc::AF_INET6 => {
                    // SAFETY: the family says that it is a sockaddr_in6.
                    let inet =
                        unsafe { ptr::read_unaligned(node.ifa_addr.cast::<libc::sockaddr_in6>()) };
                    found.addresses.push(Ipv6Addr::from(inet.sin6_addr.s6_addr));
                }
                _ => {}
            }
        }
        // SAFETY: the list of above, freed once, not used afterwards.
        unsafe { libc::freeifaddrs(list) };
        if found.index == 0 {
            let text = format!("no network interface named {name:?}");
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        Ok(found)
    }

    /// The link-local address.
    #[must_use]
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        self.addresses.iter().copied().find(Ipv6Addr::is_unicast_link_local)
    }

    /// The first address that is not link-local.
    #[must_use]
    pub fn global(&self) -> Option<Ipv6Addr> {
        self.addresses.iter().copied().find(|address| !address.is_unicast_link_local())
    }
}

/// Receive queues of an interface; 1 if that cannot be found out.
#[must_use]
pub fn receive_queues(interface: &str) -> usize {
    std::fs::read_dir(format!("/sys/class/net/{interface}/queues")).map_or(1, |entries| {
        entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("rx-"))
            .count()
            .max(1)
    })
}

/// The modes of XDP to try on an interface, the fastest first.
#[must_use]
pub fn modes_by_speed(interface: &Interface) -> [gemel_ebpf::XdpMode; 2] {
    let queues = u32::try_from(receive_queues(&interface.name)).unwrap_or(u32::MAX);
    gemel_ebpf::modes_by_speed(interface.index, queues)
}

/// The MAC of a neighbour, if the kernel knows it.
#[must_use]
pub fn neighbour(interface: &str, address: Ipv6Addr) -> Option<[u8; 6]> {
    let output = Command::new("ip")
        .args(["-6", "neigh", "show", &address.to_string(), "dev", interface])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mac = text.split_whitespace().skip_while(|word| *word != "lladdr").nth(1)?;
    parse_mac(mac)
}

/// Reads six octets in hexadecimal, separated by colons.
#[must_use]
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut mac {
        *octet = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// Binds the calling thread to one core.
///
/// # Errors
/// If there is no such core or it is not allowed.
pub fn pin_to_core(core: u32) -> io::Result<()> {
    // SAFETY: an array of integers, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    let index = crate::number::index(core);
    if index >= 8 * size_of::<libc::cpu_set_t>() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the index lies within the set.
    unsafe { libc::CPU_SET(index, &mut set) };
    // SAFETY: 0 is the calling thread; the kernel reads a set of the size given.
    let result =
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Processor time that the calling thread has had, in ns.
#[must_use]
pub fn thread_cpu_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if result != 0 {
        return 0;
    }
    let (seconds, ns) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or(0) * 1_000_000_000 + ns.unwrap_or(0)
}

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn on_interrupt(_signal: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

/// Makes the first SIGINT or SIGTERM end the run in good order; the second one kills, as usual.
/// The flag turns true on the signal.
#[must_use]
pub fn stop_on_interrupt() -> &'static AtomicBool {
    // SAFETY: integers and pointers, for which zero is a value.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    let handler: extern "C" fn(libc::c_int) = on_interrupt;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_RESETHAND | libc::SA_RESTART;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is allowed in a signal handler.
        unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    }
    &STOP
}

static MARKS: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];

extern "C" fn on_mark(signal: libc::c_int) {
    MARKS[usize::from(signal == libc::SIGUSR2)].fetch_add(1, Ordering::Relaxed);
}

/// From now on SIGUSR1 and SIGUSR2 are counted, see [`marks`].
pub fn count_marks() {
    // SAFETY: integers and pointers, for which zero is a value.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    let handler: extern "C" fn(libc::c_int) = on_mark;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    for signal in [libc::SIGUSR1, libc::SIGUSR2] {
        // SAFETY: the handler only adds to an atomic, which is allowed in a signal handler.
        unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    }
}

/// How often SIGUSR1 and SIGUSR2 have come since [`count_marks`].
#[must_use]
pub fn marks() -> [u32; 2] {
    MARKS.each_ref().map(|count| count.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found() {
        let lo = Interface::by_name("lo").unwrap();
        assert_ne!(lo.index, 0);
        assert_eq!(lo.link_local(), None);
        let error = Interface::by_name("no-such-interface").unwrap_err();
        assert!(error.to_string().contains("no-such-interface"));
    }

    #[test]
    fn macs_are_read_strictly() {
        assert_eq!(parse_mac("02:00:5e:10:ff:01"), Some([2, 0, 0x5e, 0x10, 0xff, 1]));
        assert_eq!(parse_mac("02:00:5e:10:ff"), None);
        assert_eq!(parse_mac("02:00:5e:10:ff:01:02"), None);
    }
}
