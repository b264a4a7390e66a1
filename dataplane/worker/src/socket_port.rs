use std::{
    array, io,
    io::{IoSlice, IoSliceMut},
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use arc_swap::{ArcSwap, Cache};
use nix::{
    cmsg_space,
    errno::Errno,
    libc::{in6_addr, in6_pktinfo},
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockFlag,
        SockType, SockaddrIn6, bind, recvmmsg, sendmmsg, setsockopt, socket, sockopt,
    },
};

use socket2::SockRef;

use crate::{
    admission::Backlog,
    port::{InterfaceInfo, Origin, Port},
};

/// Datagrams per system call.
const BATCH: usize = 64;
/// The largest message that is taken. Fragmented datagrams arrive here too, reassembled by the
/// kernel; what is longer than this is counted and dropped.
const BUFFER_LEN: usize = 4096;
/// Octets of kernel buffer to ask for: a burst of some thousand datagrams.
const KERNEL_BUFFER: usize = 4 << 20;
/// Full batches, one after the other, that stand for a full kernel buffer: it holds some thousand
/// datagrams, and how many wait cannot be asked without a system call.
const FULL_BATCHES_MAX: u32 = 64;

/// A port over a UDP socket, bound to one interface: for hosts without AF_XDP, and beside AF_XDP
/// for what the XDP program passes to the kernel (fragments, extension headers).
pub struct SocketPort {
    socket: OwnedFd,
    interface: Cache<Arc<ArcSwap<InterfaceInfo>>, Arc<InterfaceInfo>>,
    rx_headers: MultiHeaders<SockaddrIn6>,
    tx_headers: MultiHeaders<SockaddrIn6>,
    /// Where the next datagrams are received into; complete between calls.
    rx_buffers: Vec<Buffer>,
    spare: Vec<Buffer>,
    queue: Vec<SocketReply>,
    /// Batches in a row that came back full.
    full_batches: u32,
    counters: Counters,
}

type Buffer = Box<[u8; BUFFER_LEN]>;

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    truncated: u64,
    without_packet_info: u64,
    no_source_address: u64,
    send_failed: u64,
    send_calls: u64,
}

/// A received datagram.
#[derive(Debug)]
pub struct SocketRequest {
    buffer: Buffer,
    len: usize,
    origin: Origin,
}

/// A reply and where it goes.
#[derive(Debug)]
pub struct SocketReply {
    buffer: Buffer,
    len: usize,
    source: Ipv6Addr,
    destination: SocketAddrV6,
}

/// UDP port 547 of one interface, open for a [`SocketPort`]. Unlike the port it can move to the
/// thread of the worker.
#[derive(Debug)]
pub struct ServerSocket(OwnedFd);

impl ServerSocket {
    /// Opens UDP port 547 on the interface `name` with this index, and joins the groups of servers
    /// (RFC 8415 section 7.1).
    ///
    /// # Errors
    /// If the port is taken, the interface is gone, or the process may not bind it.
    pub fn open(name: &str, index: u32) -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Inet6,
            SockType::Datagram,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
        setsockopt(&socket, sockopt::BindToDevice, &name.into())?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        // Without the privilege for more than the system's limit, the limit is what we get.
        if setsockopt(&socket, sockopt::RcvBufForce, &KERNEL_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &KERNEL_BUFFER)?;
        }
        let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, gemel_wire::SERVER_PORT, 0, 0);
        bind(socket.as_raw_fd(), &SockaddrIn6::from(any))?;
        join_groups(socket.as_fd(), index)?;
        Ok(Self(socket))
    }
}

impl SocketPort {
    /// A port with `frames` buffers for requests and for replies that are held.
    #[must_use]
    pub fn new(
        socket: ServerSocket,
        interface: Arc<ArcSwap<InterfaceInfo>>,
        frames: usize,
    ) -> Self {
        Self {
            socket: socket.0,
            interface: Cache::new(interface),
            rx_headers: MultiHeaders::preallocate(BATCH, Some(cmsg_space!(in6_pktinfo))),
            tx_headers: MultiHeaders::preallocate(BATCH, Some(cmsg_space!(in6_pktinfo))),
            rx_buffers: (0..BATCH).map(|_| new_buffer()).collect(),
            spare: (0..frames + BATCH).map(|_| new_buffer()).collect(),
            queue: Vec::with_capacity(frames + BATCH),
            full_batches: 0,
            counters: Counters::default(),
        }
    }

    /// Sends queued replies from `first` on that share a source address; returns how many were
    /// taken from the queue, sent or given up.
    fn send_run(&mut self, first: usize) -> usize {
        let index = self.interface.load().index;
        let Some(head) = self.queue.get(first) else { return 0 };
        let source = head.source;
        let run = self.queue[first..]
            .iter()
            .take(BATCH)
            .take_while(|reply| reply.source == source)
            .count();
        let replies = &self.queue[first..first + run];
        let slices: [[IoSlice<'_>; 1]; BATCH] = array::from_fn(|i| {
            [IoSlice::new(replies.get(i).map_or(&[], |reply| &reply.buffer[..reply.len]))]
        });
        let addresses: [Option<SockaddrIn6>; BATCH] =
            array::from_fn(|i| replies.get(i).map(|reply| SockaddrIn6::from(reply.destination)));
        let info =
            in6_pktinfo { ipi6_addr: in6_addr { s6_addr: source.octets() }, ipi6_ifindex: index };
        self.counters.send_calls += 1;
        let sent = sendmmsg(
            self.socket.as_raw_fd(),
            &mut self.tx_headers,
            &slices[..run],
            &addresses[..run],
            [ControlMessage::Ipv6PacketInfo(&info)],
            MsgFlags::MSG_DONTWAIT,
        )
        .map(Iterator::count);
        match sent {
            Ok(sent) if sent > 0 => sent,
            Err(Errno::EINTR) => 0,
            // The first one cannot be sent (no route, no buffer): it is lost as it would be on the
            // wire, and must not block those behind it.
            _ => {
                self.counters.send_failed += 1;
                1
            }
        }
    }
}

/// Joins `All_DHCP_Relay_Agents_and_Servers` and `All_DHCP_Servers` on an interface. Membership
/// ends with the socket; it also opens the filter of the network card for AF_XDP.
fn join_groups(socket: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    for group in [gemel_wire::ALL_RELAY_AGENTS_AND_SERVERS, gemel_wire::ALL_SERVERS] {
        socket.join_multicast_v6(&group, index)?;
    }
    Ok(())
}

fn new_buffer() -> Buffer {
    Box::new([0; BUFFER_LEN])
}

impl Port for SocketPort {
    type Request = SocketRequest;
    type Reply = SocketReply;

    fn receive(&mut self, batch: &mut Vec<SocketRequest>) -> io::Result<()> {
        let room = (batch.capacity() - batch.len()).min(BATCH).min(self.spare.len());
        if room == 0 {
            return Ok(());
        }
        let mut infos: [Option<(Origin, usize)>; BATCH] = [None; BATCH];
        let mut received = 0;
        let mut counters = self.counters;
        {
            let mut buffers = self.rx_buffers.iter_mut();
            let mut slices: [[IoSliceMut<'_>; 1]; BATCH] = array::from_fn(|_| {
                [IoSliceMut::new(buffers.next().map_or(&mut [], |buffer| &mut buffer[..]))]
            });
            let fd = self.socket.as_raw_fd();
            let slices = slices.iter_mut().take(room);
            let results =
                match recvmmsg(fd, &mut self.rx_headers, slices, MsgFlags::MSG_DONTWAIT, None) {
                    Ok(results) => results,
                    Err(Errno::EAGAIN | Errno::EINTR) => {
                        self.full_batches = 0;
                        return Ok(());
                    }
                    Err(error) => return Err(error.into()),
                };
            for message in results {
                let slot = &mut infos[received];
                received += 1;
                if message.flags.contains(MsgFlags::MSG_TRUNC) {
                    counters.truncated += 1;
                    continue;
                }
                let info = message.cmsgs().ok().and_then(|mut cmsgs| {
                    cmsgs.find_map(|cmsg| match cmsg {
                        ControlMessageOwned::Ipv6PacketInfo(info) => Some(info),
                        _ => None,
                    })
                });
                let (Some(info), Some(address)) = (info, message.address) else {
                    counters.without_packet_info += 1;
                    continue;
                };
                let origin = Origin {
                    source: address.ip(),
                    source_port: address.port(),
                    destination: Ipv6Addr::from(info.ipi6_addr.s6_addr),
                    interface: info.ipi6_ifindex,
                };
                *slot = Some((origin, message.bytes));
            }
        }
        self.counters = counters;
        self.full_batches =
            if received == room { (self.full_batches + 1).min(FULL_BATCHES_MAX) } else { 0 };
        for (slot, info) in self.rx_buffers.iter_mut().zip(infos).take(received) {
            let Some((origin, len)) = info else { continue };
            let Some(fresh) = self.spare.pop() else { break };
            batch.push(SocketRequest { buffer: std::mem::replace(slot, fresh), len, origin });
        }
        Ok(())
    }

    fn backlog(&self) -> Backlog {
        Backlog { waiting: self.full_batches, capacity: FULL_BATCHES_MAX }
    }

    fn origin(&self, request: &SocketRequest) -> Origin {
        request.origin
    }

    fn payload<'a>(&'a self, request: &'a SocketRequest) -> &'a [u8] {
        &request.buffer[..request.len.min(BUFFER_LEN)]
    }

    fn allocate(&mut self) -> Option<SocketReply> {
        let destination = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0);
        let source = Ipv6Addr::UNSPECIFIED;
        self.spare.pop().map(|buffer| SocketReply { buffer, len: 0, source, destination })
    }

    fn buffers<'a>(
        &'a self,
        request: &'a SocketRequest,
        reply: &'a mut SocketReply,
    ) -> (&'a [u8], &'a mut [u8]) {
        (self.payload(request), &mut reply.buffer[..])
    }

    fn address(
        &mut self,
        request: &SocketRequest,
        reply: &mut SocketReply,
        len: usize,
        destination_port: u16,
    ) -> bool {
        let origin = request.origin;
        let Some(source) = self.interface.load().source_for(&origin) else {
            self.counters.no_source_address += 1;
            return false;
        };
        let scope = if origin.source.is_unicast_link_local() { origin.interface } else { 0 };
        reply.len = len.min(BUFFER_LEN);
        reply.source = source;
        reply.destination = SocketAddrV6::new(origin.source, destination_port, 0, scope);
        true
    }

    fn send(&mut self, reply: SocketReply) {
        self.queue.push(reply);
    }

    fn release(&mut self, request: SocketRequest) {
        self.spare.push(request.buffer);
    }

    fn discard(&mut self, reply: SocketReply) {
        self.spare.push(reply.buffer);
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut first = 0;
        while first < self.queue.len() {
            first += self.send_run(first);
        }
        while let Some(reply) = self.queue.pop() {
            self.spare.push(reply.buffer);
        }
        Ok(())
    }

    fn pending(&self) -> bool {
        false
    }

    fn readable(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        visit("truncated", self.counters.truncated);
        visit("without_packet_info", self.counters.without_packet_info);
        visit("no_source_address", self.counters.no_source_address);
        visit("send_failed", self.counters.send_failed);
    }
}
