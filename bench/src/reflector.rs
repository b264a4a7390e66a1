//! Answers every packet with itself, addresses swapped: what the rings of a host can do at most,
//! with no server in between.

use std::{
    io,
    net::Ipv6Addr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use af_xdp::{Frame, Socket, SocketConfig, Umem, UmemConfig};
use gemel_ebpf::{Capture, XdpClient, XdpMode};
use gemel_wire::SERVER_PORT;

use crate::{
    clock::Clock,
    frame,
    number::SECOND_NS,
    os::Interface,
    port::{BATCH, PortError},
};

/// Rounds without a packet before the thread sleeps.
const SPIN_ROUNDS: u32 = 32;
/// The longest sleep, so that a signal is noticed.
const SLEEP: Duration = Duration::from_millis(100);

/// What has been reflected.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reflected {
    /// Packets sent back.
    pub packets: u64,
    /// Packets that are no UDP over IPv6 without extension headers and tags.
    pub other: u64,
    /// Packets for which the TX ring had no room.
    pub tx_full: u64,
}

/// One queue of an interface.
#[derive(Debug)]
pub struct Reflector {
    // Declared first, dropped first: the program goes before the socket that it redirects to.
    program: XdpClient,
    socket: Socket,
    mode: XdpMode,
    mac: [u8; 6],
    address: Ipv6Addr,
    frames: Vec<Frame>,
    reflected: Reflected,
}

impl Reflector {
    /// Takes what comes to the server's port on this queue, for whatever address.
    ///
    /// # Errors
    /// See [`PortError`].
    pub fn open(interface: &Interface, queue: u32, modes: &[XdpMode]) -> Result<Self, PortError> {
        let xdp = |source| PortError::Xdp { interface: interface.name.clone(), source };
        let program_error =
            |source| PortError::Program { interface: interface.name.clone(), source };
        let capture = Capture { ports: [SERVER_PORT, 0], any_address: true };
        let mut program = XdpClient::load(capture).map_err(program_error)?;
        let (first, others) = modes.split_first().unwrap_or((&XdpMode::Auto, &[]));
        let mut attached = program.attach(interface.index, *first);
        for mode in others {
            attached = attached.or_else(|_| program.attach(interface.index, *mode));
        }
        let attachment = attached.map_err(program_error)?;
        let umem = Umem::new(UmemConfig::default()).map_err(xdp)?;
        let socket = Socket::bind(umem, &SocketConfig::new(interface.index, queue)).map_err(xdp)?;
        program.set_socket(queue, &socket).map_err(program_error)?;
        Ok(Self {
            program,
            socket,
            mode: attachment.mode,
            mac: interface.mac,
            address: interface
                .link_local()
                .or_else(|| interface.global())
                .unwrap_or(Ipv6Addr::UNSPECIFIED),
            frames: Vec::with_capacity(BATCH),
            reflected: Reflected::default(),
        })
    }

    /// How packets come and go, as in [`crate::port::PortInfo::mode`].
    #[must_use]
    pub fn mode(&self) -> String {
        let copy = if self.socket.is_zero_copy() { "zerocopy" } else { "copy" };
        format!("xdp-{}-{copy}", self.mode)
    }

    /// Runs until `stop` is set or `duration` is over, if there is one, in ns; `progress` is shown
    /// the count about once a second.
    ///
    /// # Errors
    /// If the socket breaks.
    pub fn run(
        &mut self,
        clock: &Clock,
        duration: Option<u64>,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(&Reflected),
    ) -> io::Result<Reflected> {
        let end = duration.map(|duration| clock.now() + duration);
        let mut tick = clock.now() + SECOND_NS;
        let mut idle = 0;
        while !stop.load(Ordering::Relaxed) {
            idle = if self.turn()? { 0 } else { idle + 1 };
            if idle >= SPIN_ROUNDS {
                self.socket.poll(Some(SLEEP))?;
                idle = 0;
            }
            let now = clock.now();
            if end.is_some_and(|end| now >= end) {
                break;
            }
            if now >= tick {
                progress(&self.reflected);
                tick += SECOND_NS;
            }
        }
        Ok(self.reflected)
    }

    /// One batch. False if there was nothing.
    fn turn(&mut self) -> io::Result<bool> {
        let received = self.socket.receive(&mut self.frames);
        for mut frame in self.frames.drain(..) {
            let data = self.socket.data_mut(&mut frame);
            if !frame::reflect(data, self.mac, self.address) {
                self.reflected.other += 1;
                self.socket.free(frame);
            } else if let Err(frame) = self.socket.transmit(frame) {
                self.reflected.tx_full += 1;
                self.socket.free(frame);
            } else {
                self.reflected.packets += 1;
            }
        }
        self.socket.flush()?;
        self.socket.reclaim();
        self.socket.refill();
        Ok(received > 0)
    }

    /// What the XDP program counted.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn counters(&self) -> Result<gemel_ebpf::XdpCounters, gemel_ebpf::Error> {
        self.program.counters()
    }
}
