//! AF_XDP: whole frames through rings shared with the kernel.

use std::{io, sync::Arc};

use af_xdp::{Frame, Socket, SocketConfig, Umem, UmemConfig};
use gemel_ebpf::{Attachment, Capture, XdpClient, XdpCounters, XdpMode};

use super::{BATCH, Endpoint, Port, PortError, PortInfo};
use crate::{
    frame::{End, HEADERS_LEN, Headers, multicast_mac, parse},
    os,
};

/// The XDP program that all queues share. It goes with the last of their ports; what it would redirect to
/// a socket that is closed already, the kernel drops.
#[derive(Debug)]
struct Program {
    client: XdpClient,
    attachment: Attachment,
}

/// One queue of an interface.
#[derive(Debug)]
pub struct XdpPort {
    program: Arc<Program>,
    socket: Socket,
    headers: Headers,
    source_port: u16,
    received: Vec<Frame>,
    queued: bool,
    notes: Vec<String>,
    queue: u32,
    /// It speaks for the program.
    is_first: bool,
    /// What had been counted when the run began.
    before: Counted,
}

/// What socket and program have counted since they were made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counted {
    drops: u64,
    received: u64,
    sent: u64,
    wakeups: u64,
    program: Option<XdpCounters>,
}

impl Counted {
    fn since(&self, before: &Self) -> Self {
        let program = |now: XdpCounters| {
            let then = before.program.unwrap_or_default();
            XdpCounters {
                redirected: now.redirected - then.redirected,
                passed_not_ipv6: now.passed_not_ipv6 - then.passed_not_ipv6,
                passed_not_ours: now.passed_not_ours - then.passed_not_ours,
                passed_ext_header: now.passed_ext_header - then.passed_ext_header,
                passed_no_socket: now.passed_no_socket - then.passed_no_socket,
                passed_malformed: now.passed_malformed - then.passed_malformed,
                dropped_flood: now.dropped_flood - then.dropped_flood,
            }
        };
        Self {
            // The kernel may have refused to tell, and that is 0.
            drops: self.drops.saturating_sub(before.drops),
            received: self.received - before.received,
            sent: self.sent - before.sent,
            wakeups: self.wakeups - before.wakeups,
            program: self.program.map(program),
        }
    }
}

impl XdpPort {
    /// Loads the XDP program, attaches it and binds a socket to each queue. All of it is undone when
    /// the ports are dropped, and when the process dies.
    ///
    /// # Errors
    /// See [`PortError`].
    pub fn open(
        endpoint: &Endpoint,
        queues: &[u32],
        mode: XdpMode,
    ) -> Result<Vec<Self>, PortError> {
        let interface = &endpoint.interface;
        let xdp = |source| PortError::Xdp { interface: interface.name.clone(), source };
        let program_error =
            |source| PortError::Program { interface: interface.name.clone(), source };
        let server_mac = if endpoint.server.is_multicast() {
            multicast_mac(endpoint.server)
        } else {
            endpoint
                .server_mac
                .or_else(|| os::neighbour(&interface.name, endpoint.server))
                .ok_or(PortError::NoServerMac(endpoint.server))?
        };
        let headers = Headers::new(
            &End { mac: interface.mac, address: endpoint.source, port: endpoint.source_port },
            &End { mac: server_mac, address: endpoint.server, port: gemel_wire::SERVER_PORT },
        );
        let capture = Capture { ports: [endpoint.source_port, 0], any_address: false };
        let mut client = XdpClient::load(capture).map_err(program_error)?;
        client.set_own_addresses(&[endpoint.source]).map_err(program_error)?;
        let attachment = client.attach(interface.index, mode).map_err(program_error)?;
        let mut notes = Vec::new();
        let present = os::receive_queues(&interface.name);
        if present > queues.len() {
            notes.push(format!(
                "{} has {present} receive queues and only {queues:?} are listened to: answers on \
                 the others count as lost (`ethtool -L {} combined {}`)",
                interface.name,
                interface.name,
                queues.len()
            ));
        }
        let program = Arc::new(Program { client, attachment });
        queues
            .iter()
            .enumerate()
            .map(|(number, queue)| {
                let umem = Umem::new(UmemConfig::default()).map_err(xdp)?;
                let socket =
                    Socket::bind(umem, &SocketConfig::new(interface.index, *queue)).map_err(xdp)?;
                program.client.set_socket(*queue, &socket).map_err(program_error)?;
                Ok(Self {
                    program: Arc::clone(&program),
                    socket,
                    headers: headers.clone(),
                    source_port: endpoint.source_port,
                    received: Vec::with_capacity(BATCH),
                    queued: false,
                    notes: if number == 0 { notes.clone() } else { Vec::new() },
                    queue: *queue,
                    is_first: number == 0,
                    before: Counted::default(),
                })
            })
            .collect()
    }
}

impl XdpPort {
    fn counted(&self) -> Counted {
        let (kernel, own) = (self.socket.statistics().unwrap_or_default(), self.socket.counters());
        let program = self.is_first.then(|| self.program.client.counters().ok()).flatten();
        Counted {
            drops: kernel.rx_dropped + kernel.rx_ring_full + kernel.fill_ring_empty,
            received: own.rx_frames,
            sent: own.tx_frames,
            wakeups: own.tx_wakeups,
            program,
        }
    }
}

impl Port for XdpPort {
    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> io::Result<u64> {
        if self.socket.receive(&mut self.received) == 0 {
            return Ok(0);
        }
        let mut foreign = 0;
        for frame in self.received.drain(..) {
            match parse(self.socket.data(&frame)) {
                Some(datagram) if datagram.destination_port == self.source_port => {
                    take(datagram.payload);
                }
                _ => foreign += 1,
            }
            self.socket.free(frame);
        }
        self.socket.refill();
        Ok(foreign)
    }

    fn send(&mut self, fill: &mut impl FnMut(&mut [u8]) -> Option<usize>) -> io::Result<bool> {
        let Some(mut frame) = self.socket.allocate() else {
            self.socket.reclaim();
            return Ok(false);
        };
        // Not to be filled before it is certain that it can be sent: the ring has as many places
        // as there are frames kept for sending.
        if self.socket.pending_tx() >= RING_PLACES {
            self.socket.free(frame);
            self.socket.reclaim();
            return Ok(false);
        }
        let offset = frame.offset();
        let len = {
            let buffer = &mut self.socket.buffer_mut(&mut frame)[offset..];
            let room = buffer.len().min(FRAME_LEN_MAX);
            let buffer = &mut buffer[..room];
            fill(&mut buffer[HEADERS_LEN..]).and_then(|len| self.headers.complete(buffer, len))
        };
        if len.is_none_or(|len| frame.set_range(offset, len).is_err()) {
            self.socket.free(frame);
            return Ok(true);
        }
        if let Err(frame) = self.socket.transmit(frame) {
            self.socket.free(frame);
            return Err(io::Error::other("the TX ring is full although it has room"));
        }
        self.queued = true;
        Ok(true)
    }

    fn flush(&mut self) -> io::Result<()> {
        // Also without anything new: the kernel may have left a part of the last batch.
        if self.queued || self.socket.pending_tx() > 0 {
            self.socket.flush()?;
            self.socket.reclaim();
            self.queued = false;
        }
        Ok(())
    }

    fn begin_run(&mut self) {
        self.before = self.counted();
    }

    fn info(&self) -> PortInfo {
        let program = match self.program.attachment.mode {
            XdpMode::Generic => "generic",
            _ => "native",
        };
        let copy = if self.socket.is_zero_copy() { "zerocopy" } else { "copy" };
        let counted = self.counted().since(&self.before);
        let mut notes = self.notes.clone();
        notes.push(format!(
            "AF_XDP, queue {}: {} frames received, {} sent with {} system calls",
            self.queue, counted.received, counted.sent, counted.wakeups
        ));
        if let Some(counters) = counted.program {
            notes.push(format!("XDP program: {counters:?}"));
        }
        PortInfo {
            mode: format!("xdp-{program}-{copy}"),
            fallback_reason: self.program.attachment.native_error.as_ref().map(ToString::to_string),
            receive_drops: counted.drops,
            notes,
        }
    }
}

/// Places of the TX ring of the usual configuration.
const RING_PLACES: u64 = 2048;
/// An Ethernet frame of the usual size.
const FRAME_LEN_MAX: usize = 1514;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_counts_from_its_beginning() {
        let program = |redirected| XdpCounters { redirected, ..XdpCounters::default() };
        let at = |n| Counted {
            drops: n,
            received: 10 * n,
            sent: 20 * n,
            wakeups: n,
            program: Some(program(10 * n)),
        };
        assert_eq!(at(5).since(&at(3)), at(2));
        assert_eq!(at(5).since(&Counted::default()), at(5));
        assert_eq!(Counted { drops: 0, ..at(5) }.since(&at(3)).drops, 0);
    }
}
