//! What the tests share: packets to build, and network namespaces to work in.
// Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::{
    io::Write,
    net::Ipv6Addr,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use af_xdp::{Socket, SocketConfig, Umem, UmemConfig};

/// True, with a loud word about it, when the test cannot run for want of privileges.
pub fn needs_root(test: &str) -> bool {
    // SAFETY: no arguments, cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        // Not `eprintln`, which the test harness keeps to itself when a test passes.
        let _ = std::io::stderr().write_all(format!("SKIPPED (needs root): {test}\n").as_bytes());
    }
    !root
}

/// A UDP packet over IPv6 to build up, step by step.
#[derive(Clone)]
pub struct Packet {
    mac: [u8; 6],
    tags: Vec<(u16, u16)>,
    ether_type: u16,
    version: u8,
    next_header: u8,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    port: u16,
    payload: Vec<u8>,
}

impl Packet {
    pub fn to(destination: &str, port: u16) -> Self {
        Self {
            mac: [2, 0, 0, 0, 0, 1],
            tags: Vec::new(),
            ether_type: 0x86dd,
            version: 6,
            next_header: 17,
            source: "fe80::2".parse().unwrap(),
            destination: destination.parse().unwrap(),
            port,
            payload: vec![1, 0xaa, 0xbb, 0xcc],
        }
    }

    /// Puts a VLAN tag in front of those that are there.
    pub fn tag(mut self, protocol: u16, tci: u16) -> Self {
        self.tags.insert(0, (protocol, tci));
        self
    }

    pub fn mac(self, mac: [u8; 6]) -> Self {
        Self { mac, ..self }
    }

    pub fn ether_type(self, ether_type: u16) -> Self {
        Self { ether_type, ..self }
    }

    pub fn version(self, version: u8) -> Self {
        Self { version, ..self }
    }

    pub fn next_header(self, next_header: u8) -> Self {
        Self { next_header, ..self }
    }

    pub fn source(self, source: &str) -> Self {
        Self { source: source.parse().unwrap(), ..self }
    }

    pub fn payload(self, payload: &[u8]) -> Self {
        Self { payload: payload.to_vec(), ..self }
    }

    pub fn payload_len(&self) -> usize {
        self.payload.len()
    }
}

impl From<&Packet> for Vec<u8> {
    fn from(packet: &Packet) -> Self {
        let mut bytes = Self::new();
        bytes.extend([0x33, 0x33, 0, 1, 0, 2]);
        bytes.extend(packet.mac);
        for (protocol, tci) in &packet.tags {
            bytes.extend(protocol.to_be_bytes());
            bytes.extend(tci.to_be_bytes());
        }
        bytes.extend(packet.ether_type.to_be_bytes());
        let udp_len = u16::try_from(8 + packet.payload.len()).unwrap();
        bytes.extend([packet.version << 4, 0, 0, 0]);
        bytes.extend(udp_len.to_be_bytes());
        bytes.extend([packet.next_header, 64]);
        bytes.extend(packet.source.octets());
        bytes.extend(packet.destination.octets());
        bytes.extend(547_u16.to_be_bytes());
        bytes.extend(packet.port.to_be_bytes());
        bytes.extend(udp_len.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(&packet.payload);
        bytes
    }
}

/// A socket on the loopback interface: enough to be put into an `XSKMAP`.
pub fn loopback_socket() -> Socket {
    socket(1, 0)
}

/// A socket on a queue of an interface.
pub fn socket(ifindex: u32, queue_id: u32) -> Socket {
    bind(&small_config(ifindex, queue_id))
}

/// Rings of 512 entries.
pub fn small_config(ifindex: u32, queue_id: u32) -> SocketConfig {
    SocketConfig {
        rx_size: 512,
        tx_size: 512,
        fill_size: 512,
        completion_size: 512,
        tx_reserve: 512,
        ..SocketConfig::new(ifindex, queue_id)
    }
}

/// A socket with 1024 frames.
pub fn bind(config: &SocketConfig) -> Socket {
    let umem = Umem::new(UmemConfig { frame_count: 1024, ..UmemConfig::default() }).unwrap();
    Socket::bind(umem, config).unwrap()
}

/// A network namespace that the calling thread is in, and that goes with its last thread.
///
/// Tests run one to a thread, so they do not meet. Interfaces are removed with the namespace.
pub struct Lab {
    /// Names of the two ends of the veth pair, if there is one.
    pub ends: [String; 2],
}

impl Lab {
    /// An empty namespace, with the loopback interface up.
    pub fn namespace() -> Self {
        // SAFETY: moves this thread alone to a new namespace; no memory is involved.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "unshare: {}", std::io::Error::last_os_error());
        ip("link set lo up");
        Self { ends: [String::new(), String::new()] }
    }

    /// A namespace with a veth pair of one queue per direction, up and quiet.
    pub fn veth() -> Self {
        Self::veth_with_queues(1)
    }

    /// A namespace with a veth pair of `queues` queues per direction, up and quiet.
    pub fn veth_with_queues(queues: u32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut lab = Self::namespace();
        let n = 2 * NEXT.fetch_add(1, Ordering::Relaxed);
        lab.ends = [format!("gx{n}"), format!("gx{}", n + 1)];
        let [a, b] = &lab.ends;
        let queues = format!("numtxqueues {queues} numrxqueues {queues}");
        ip(&format!("link add {a} {queues} type veth peer {b} {queues}"));
        for end in [a, b] {
            // Without addresses of its own the kernel sends nothing that could get in between.
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1").unwrap();
            ip(&format!("link set {end} up"));
        }
        lab
    }

    /// The index of an end.
    pub fn ifindex(&self, end: usize) -> u32 {
        af_xdp::interface_index(&self.ends[end]).unwrap()
    }

    /// What `ip link show` says about an end.
    pub fn show(&self, end: usize) -> String {
        let output = Command::new("ip").args(["-d", "link", "show", &self.ends[end]]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A test may have deleted it itself.
        if !self.ends[0].is_empty() && af_xdp::interface_index(&self.ends[0]).is_ok() {
            ip(&format!("link del {}", self.ends[0]));
        }
    }
}

/// Runs `ip` in the namespace of the calling thread.
pub fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}
