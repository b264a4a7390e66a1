use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use af_xdp::{Frame, Socket};
use arc_swap::{ArcSwap, Cache};

use crate::{
    admission::Backlog,
    headers::{self, Datagram, PAYLOAD_OFFSET, ReplyTo},
    port::{InterfaceInfo, Origin, Port},
};

/// A port over an AF_XDP socket: whole Ethernet frames of one queue of one interface.
pub struct XdpPort {
    socket: Socket,
    interface: Cache<Arc<ArcSwap<InterfaceInfo>>, Arc<InterfaceInfo>>,
    frames: Vec<Frame>,
    not_a_datagram: u64,
    tx_ring_full: u64,
    no_source_address: u64,
}

/// A received frame and what its headers say.
#[derive(Debug)]
pub struct XdpRequest {
    frame: Frame,
    datagram: Datagram,
    interface: u32,
}

impl XdpPort {
    /// Over a bound socket; `interface` is looked at for each batch, so it may be replaced while
    /// the worker runs. `batch` is the most that [`Port::receive`] takes at once.
    #[must_use]
    pub fn new(socket: Socket, interface: Arc<ArcSwap<InterfaceInfo>>, batch: usize) -> Self {
        Self {
            socket,
            interface: Cache::new(interface),
            frames: Vec::with_capacity(batch),
            not_a_datagram: 0,
            tx_ring_full: 0,
            no_source_address: 0,
        }
    }

    /// The socket, for its file descriptor and statistics.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.socket
    }
}

impl Port for XdpPort {
    type Request = XdpRequest;
    type Reply = Frame;

    fn receive(&mut self, batch: &mut Vec<XdpRequest>) -> io::Result<()> {
        self.socket.receive(&mut self.frames);
        let interface = self.interface.load().index;
        for frame in self.frames.drain(..) {
            match headers::parse(self.socket.data(&frame)) {
                Some(datagram) if batch.len() < batch.capacity() => {
                    batch.push(XdpRequest { frame, datagram, interface });
                }
                _ => {
                    self.not_a_datagram += 1;
                    self.socket.free(frame);
                }
            }
        }
        Ok(())
    }

    fn backlog(&self) -> Backlog {
        let (waiting, capacity) = self.socket.rx_backlog();
        Backlog { waiting, capacity }
    }

    fn origin(&self, request: &XdpRequest) -> Origin {
        let Datagram { source, source_port, destination, .. } = request.datagram;
        Origin { source, source_port, destination, interface: request.interface }
    }

    fn payload<'a>(&'a self, request: &'a XdpRequest) -> &'a [u8] {
        let Datagram { payload_at, payload_len, .. } = request.datagram;
        let frame = self.socket.data(&request.frame);
        frame.get(payload_at..payload_at + payload_len).unwrap_or_default()
    }

    fn allocate(&mut self) -> Option<Frame> {
        self.socket.allocate()
    }

    fn buffers<'a>(
        &'a self,
        request: &'a XdpRequest,
        reply: &'a mut Frame,
    ) -> (&'a [u8], &'a mut [u8]) {
        let room = self.socket.buffer_mut(reply).get_mut(PAYLOAD_OFFSET..);
        (self.payload(request), room.unwrap_or_default())
    }

    fn address(
        &mut self,
        request: &XdpRequest,
        reply: &mut Frame,
        len: usize,
        destination_port: u16,
    ) -> bool {
        let origin = self.origin(request);
        let interface = self.interface.load();
        let Some(source) = interface.source_for(&origin) else {
            self.no_source_address += 1;
            return false;
        };
        let to = ReplyTo {
            link: request.datagram.link,
            source_mac: interface.mac,
            source,
            source_port: gemel_wire::SERVER_PORT,
            destination: origin.source,
            destination_port,
        };
        headers::emit(self.socket.buffer_mut(reply), len, &to)
            .is_some_and(|(start, len)| reply.set_range(start, len).is_ok())
    }

    fn send(&mut self, reply: Frame) {
        if let Err(frame) = self.socket.transmit(reply) {
            self.tx_ring_full += 1;
            self.socket.free(frame);
        }
    }

    fn release(&mut self, request: XdpRequest) {
        self.socket.free(request.frame);
    }

    fn discard(&mut self, reply: Frame) {
        self.socket.free(reply);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()?;
        self.socket.reclaim();
        self.socket.refill();
        Ok(())
    }

    fn pending(&self) -> bool {
        self.socket.pending_tx() > 0
    }

    fn readable(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        visit("not_a_datagram", self.not_a_datagram);
        visit("tx_ring_full", self.tx_ring_full);
        visit("no_source_address", self.no_source_address);
        if let Ok(statistics) = self.socket.statistics() {
            visit("xdp_rx_dropped", statistics.rx_dropped);
            visit("xdp_rx_ring_full", statistics.rx_ring_full);
            visit("xdp_fill_ring_empty", statistics.fill_ring_empty);
            visit("xdp_rx_invalid", statistics.rx_invalid_descriptors);
            visit("xdp_tx_invalid", statistics.tx_invalid_descriptors);
        }
    }
}
