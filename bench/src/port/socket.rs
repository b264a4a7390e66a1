//! A UDP socket, in batches of `sendmmsg` and `recvmmsg`.
// The two system calls take arrays of structs full of pointers; nobody offers them safely.
#![allow(unsafe_code)]

use std::{
    io, mem,
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::{AsRawFd, OwnedFd},
    ptr,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{BATCH, Endpoint, Port, PortError, PortInfo};

/// Room for a datagram: what fits into an Ethernet frame.
const DATAGRAM_MAX: usize = 1452;
const RECEIVE_BUFFER: usize = 8 << 20;
/// Index of the drop counter in what `SO_MEMINFO` tells (`SK_MEMINFO_DROPS` of linux/sock_diag.h).
const MEMINFO_DROPS: usize = 8;

/// A batch of buffers with the headers that the kernel wants for them.
struct Batch {
    // The pointers in `messages` lead to `vectors`, `destination` and `buffers`, whose heap
    // blocks never move or change size.
    buffers: Box<[[u8; DATAGRAM_MAX]]>,
    vectors: Box<[libc::iovec]>,
    messages: Box<[libc::mmsghdr]>,
    destination: Option<Box<libc::sockaddr_in6>>,
}

// SAFETY: the pointers lead to memory that the batch owns itself.
unsafe impl Send for Batch {}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").finish_non_exhaustive()
    }
}

impl Batch {
    fn new(mut destination: Option<Box<libc::sockaddr_in6>>) -> Self {
        let mut buffers = vec![[0; DATAGRAM_MAX]; BATCH].into_boxed_slice();
        let mut vectors: Box<[libc::iovec]> = buffers
            .iter_mut()
            .map(|buffer| libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: DATAGRAM_MAX,
            })
            .collect();
        let messages = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: integers and pointers, for which zero is a value.
                let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
                message.msg_hdr.msg_iov = vector;
                message.msg_hdr.msg_iovlen = 1;
                if let Some(destination) = &mut destination {
                    message.msg_hdr.msg_name = ptr::from_mut(&mut **destination).cast();
                    message.msg_hdr.msg_namelen = ADDRESS_LEN;
                }
                message
            })
            .collect();
        Self { buffers, vectors, messages, destination }
    }
}

#[allow(clippy::cast_possible_truncation)] // 28
const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
#[allow(clippy::cast_possible_truncation)] // 64
const BATCH_LEN: libc::c_uint = BATCH as libc::c_uint;

/// A socket bound to the client's or the relay agent's port.
#[derive(Debug)]
pub struct SocketPort {
    socket: OwnedFd,
    outgoing: Batch,
    incoming: Batch,
    queued: usize,
    fallback_reason: Option<String>,
    /// What had been dropped when the run began.
    drops_before: u32,
}

impl SocketPort {
    /// Opens and binds the socket. `fallback_reason` says why it is not a better port.
    ///
    /// # Errors
    /// See [`PortError`].
    pub fn open(endpoint: &Endpoint, fallback_reason: Option<String>) -> Result<Self, PortError> {
        let scope = |address: Ipv6Addr| {
            let link = address.is_unicast_link_local() || address.is_multicast();
            if link { endpoint.interface.index } else { 0 }
        };
        let here =
            SocketAddrV6::new(endpoint.source, endpoint.source_port, 0, scope(endpoint.source));
        Self::bind(
            here,
            SocketAddrV6::new(endpoint.server, gemel_wire::SERVER_PORT, 0, scope(endpoint.server)),
            Some(endpoint.interface.index),
            fallback_reason,
        )
    }

    /// Opens a socket from `here` to `server`, whatever the ports; multicast leaves by `interface`.
    ///
    /// # Errors
    /// See [`PortError`].
    pub fn bind(
        here: SocketAddrV6,
        server: SocketAddrV6,
        interface: Option<u32>,
        fallback_reason: Option<String>,
    ) -> Result<Self, PortError> {
        let fail =
            |call| move |source| PortError::Socket { call, address: here.to_string(), source };
        let socket =
            Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)).map_err(fail("socket"))?;
        socket.set_only_v6(true).map_err(fail("IPV6_V6ONLY"))?;
        socket.set_reuse_address(true).map_err(fail("SO_REUSEADDR"))?;
        socket.set_nonblocking(true).map_err(fail("O_NONBLOCK"))?;
        if let Some(index) = interface {
            socket.set_multicast_if_v6(index).map_err(fail("IPV6_MULTICAST_IF"))?;
        }
        // Beyond the system's limit only with CAP_NET_ADMIN; less is no reason to stop.
        if force_receive_buffer(&socket).is_err() {
            let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        }
        socket.bind(&here.into()).map_err(fail("bind"))?;
        let destination = Box::new(libc::sockaddr_in6 {
            sin6_family: libc::sa_family_t::try_from(libc::AF_INET6).unwrap_or(0),
            sin6_port: server.port().to_be(),
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: server.ip().octets() },
            sin6_scope_id: server.scope_id(),
        });
        Ok(Self {
            socket: socket.into(),
            outgoing: Batch::new(Some(destination)),
            incoming: Batch::new(None),
            queued: 0,
            fallback_reason,
            drops_before: 0,
        })
    }

    /// Where the socket is bound.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn local_address(&self) -> io::Result<SocketAddrV6> {
        let address = socket2::SockRef::from(&self.socket).local_addr()?;
        address.as_socket_ipv6().ok_or_else(|| io::Error::other("not an IPv6 socket"))
    }

    /// Datagrams that the kernel has dropped since the socket was bound.
    fn drops(&self) -> u32 {
        let mut values = [0_u32; MEMINFO_DROPS + 1];
        let mut len = libc::socklen_t::try_from(size_of_val(&values)).unwrap_or(0);
        // SAFETY: the kernel writes at most `len` octets into `values`.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                values.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if result == 0 { values[MEMINFO_DROPS] } else { 0 }
    }
}

fn force_receive_buffer(socket: &Socket) -> io::Result<()> {
    let size = libc::c_int::try_from(RECEIVE_BUFFER).unwrap_or(libc::c_int::MAX);
    let len = libc::socklen_t::try_from(size_of_val(&size)).unwrap_or(0);
    // SAFETY: the option is an int, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            ptr::from_ref(&size).cast(),
            len,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Turns the result of a call into a count; nothing to do is a count of zero.
fn count(result: libc::c_int) -> io::Result<usize> {
    usize::try_from(result).or_else(|_| {
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // A refused or unreachable destination is the network's answer to an earlier datagram;
            // what it costs shows as loss.
            Some(
                libc::EAGAIN
                | libc::EINTR
                | libc::ENOBUFS
                | libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH,
            ) => Ok(0),
            _ => Err(error),
        }
    })
}

impl Port for SocketPort {
    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> io::Result<u64> {
        // SAFETY: `messages` holds BATCH headers whose pointers lead to buffers of the lengths
        // given there, all owned by `incoming` and not borrowed during the call.
        let result = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                self.incoming.messages.as_mut_ptr(),
                BATCH_LEN,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let received = count(result)?;
        let batch = &self.incoming;
        for (message, buffer) in batch.messages.iter().zip(&batch.buffers).take(received) {
            let len = crate::number::index(message.msg_len).min(DATAGRAM_MAX);
            take(&buffer[..len]);
        }
        Ok(0)
    }

    fn send(&mut self, fill: &mut impl FnMut(&mut [u8]) -> Option<usize>) -> io::Result<bool> {
        if self.queued == BATCH {
            self.flush()?;
            if self.queued == BATCH {
                return Ok(false);
            }
        }
        if let Some(len) = fill(&mut self.outgoing.buffers[self.queued]) {
            self.outgoing.vectors[self.queued].iov_len = len.min(DATAGRAM_MAX);
            self.queued += 1;
        }
        Ok(true)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.queued == 0 {
            return Ok(());
        }
        let queued = libc::c_uint::try_from(self.queued).unwrap_or(0);
        debug_assert!(self.outgoing.destination.is_some());
        // SAFETY: the first `queued` headers, at most BATCH, point to buffers of the lengths given
        // there and to the destination, all owned by `outgoing`.
        let result = unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                self.outgoing.messages.as_mut_ptr(),
                queued,
                libc::MSG_DONTWAIT,
            )
        };
        let sent = count(result)?;
        // What the kernel did not take moves to the front, in order.
        for (to, from) in (sent..self.queued).enumerate() {
            let len = self.outgoing.vectors[from].iov_len;
            if from != to {
                self.outgoing.buffers.copy_within(from..=from, to);
            }
            self.outgoing.vectors[to].iov_len = len;
        }
        self.queued -= sent;
        Ok(())
    }

    fn begin_run(&mut self) {
        self.drops_before = self.drops();
    }

    fn info(&self) -> PortInfo {
        PortInfo {
            mode: "socket".into(),
            fallback_reason: self.fallback_reason.clone(),
            // The kernel's counter may go round.
            receive_drops: self.drops().wrapping_sub(self.drops_before).into(),
            notes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends until the kernel has dropped something that `port` did not fetch.
    fn overflow(port: &SocketPort) {
        let here = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0);
        let sender = std::net::UdpSocket::bind(here).unwrap();
        let before = port.drops();
        // The buffer of the port holds far fewer.
        for _ in 0..200_000 {
            sender.send_to(&[0; DATAGRAM_MAX], port.local_address().unwrap()).unwrap();
            if port.drops() > before {
                return;
            }
        }
        panic!("nothing was dropped");
    }

    #[test]
    fn drops_are_those_of_the_run() {
        let here = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0);
        let mut port = SocketPort::bind(here, here, None, None).unwrap();
        overflow(&port);
        assert!(port.info().receive_drops > 0);
        port.begin_run();
        assert_eq!(port.info().receive_drops, 0, "those of the run before");
        overflow(&port);
        let (of_run, of_all) = (port.info().receive_drops, u64::from(port.drops()));
        assert!(of_run > 0 && of_run < of_all, "{of_run} of {of_all}");
    }
}
