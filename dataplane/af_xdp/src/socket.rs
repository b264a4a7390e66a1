//! The socket: one queue of one interface, with its UMEM and its four rings.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    BindMode, Error, Frame, SocketConfig, Umem, abi,
    mapping::Mapping,
    ring::{Consumer, Entry, Producer},
    sys,
};

/// How long a bind is tried again while the queue is busy. The kernel lets go of a queue some
/// milliseconds after the socket that held it was closed.
const BUSY_LIMIT: Duration = Duration::from_secs(1);
const BUSY_STEP: Duration = Duration::from_millis(5);

/// What the kernel counted for this socket (`XDP_STATISTICS`), since it was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets dropped for reasons without a counter of their own.
    pub rx_dropped: u64,
    /// Fill ring entries that the kernel found invalid.
    pub rx_invalid_descriptors: u64,
    /// TX ring entries that the kernel found invalid.
    pub tx_invalid_descriptors: u64,
    /// Packets dropped because the RX ring was full: this program is too slow.
    pub rx_ring_full: u64,
    /// Times that the kernel found the fill ring empty: frames are short.
    pub fill_ring_empty: u64,
    /// Times that the kernel found the TX ring empty.
    pub tx_ring_empty: u64,
}

/// What this end of the socket counted, since it was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames received.
    pub rx_frames: u64,
    /// Frames dropped because the kernel named an address that it cannot have had.
    pub rx_invalid: u64,
    /// Frames handed to the kernel to be sent.
    pub tx_frames: u64,
    /// Frames sent, or given up by the driver: back in the pool.
    pub tx_completed: u64,
    /// Frames without a byte in them that were to be sent; they are freed instead.
    pub tx_empty: u64,
    /// Completions for frames that the kernel cannot have had.
    pub tx_invalid: u64,
    /// System calls that told the kernel to send.
    pub tx_wakeups: u64,
    /// ... of these, those after which the kernel had more to do (EAGAIN, EBUSY, ENOBUFS).
    pub tx_retries: u64,
    /// System calls that told the kernel of new fill entries, or polled the queue.
    pub rx_wakeups: u64,
}

/// An AF_XDP socket, bound to one queue, with its UMEM.
///
/// It is made for one thread: it can move to another, but not be shared. No method but
/// [`Self::bind`] allocates memory.
///
/// ```compile_fail
/// fn shared<T: Sync>() {}
/// shared::<af_xdp::Socket>();
/// ```
/// ```
/// fn movable<T: Send>() {}
/// movable::<af_xdp::Socket>();
/// ```
///
/// A loop goes: [`receive`](Self::receive) a batch, look at each packet and
/// [`transmit`](Self::transmit) or [`free`](Self::free) its frame, then [`flush`](Self::flush),
/// [`reclaim`](Self::reclaim) and [`refill`](Self::refill), and [`poll`](Self::poll) when nothing
/// came in.
#[derive(Debug)]
pub struct Socket {
    rx: Consumer<abi::xdp_desc>,
    tx: Producer<abi::xdp_desc>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
    // Closed before the UMEM is unmapped.
    fd: OwnedFd,
    umem: Umem,
    counters: Counters,
    tx_reserve: usize,
    need_wakeup: bool,
    busy_poll: bool,
    zero_copy: bool,
}

impl Socket {
    /// Opens a socket, registers the UMEM with it, fills the fill ring and binds to the queue.
    ///
    /// While the queue is busy it tries again for a second. Packets arrive as soon as an XDP
    /// program redirects to the socket.
    ///
    /// # Errors
    /// See [`Error`]. The UMEM is gone after an error.
    pub fn bind(umem: Umem, config: &SocketConfig) -> Result<Self, Error> {
        config.check(umem.frame_count())?;
        let fd = sys::socket().map_err(|e| Error::os("socket(AF_XDP)", e))?;
        register(fd.as_fd(), &umem)?;
        let Rings { rx, tx, fill, completion } = Rings::map(fd.as_fd(), config)?;
        let mut socket = Self {
            rx,
            tx,
            fill,
            completion,
            fd,
            umem,
            counters: Counters::default(),
            tx_reserve: config.tx_reserve as usize,
            need_wakeup: config.need_wakeup,
            busy_poll: config.busy_poll.is_some(),
            zero_copy: false,
        };
        socket.set_tuning(config)?;
        socket.fill_from_pool();
        socket.bind_to_queue(config)?;
        // SAFETY: a struct of one integer.
        let options: abi::xdp_options =
            unsafe { sys::option(socket.as_fd(), abi::SOL_XDP, abi::XDP_OPTIONS) }
                .map_err(|e| Error::os("getsockopt(XDP_OPTIONS)", e))?;
        socket.zero_copy = options.flags & abi::XDP_OPTIONS_ZEROCOPY != 0;
        Ok(socket)
    }

    /// Appends received packets to `out`, no more than fit without growing it, and returns how
    /// many.
    pub fn receive(&mut self, out: &mut Vec<Frame>) -> usize {
        let before = out.len();
        while out.len() < out.capacity() {
            let Some(descriptor) = self.rx.pop() else { break };
            match self.umem.received(descriptor.addr, descriptor.len) {
                Some(frame) => out.push(frame),
                None => self.counters.rx_invalid += 1,
            }
        }
        self.rx.release();
        let received = out.len() - before;
        self.counters.rx_frames += received as u64;
        // With preferred busy polling nobody else makes the driver look at the queue.
        if received == 0 && self.busy_poll && before < out.capacity() {
            self.wake_rx();
        }
        received
    }

    /// Packets that wait in the RX ring, and how many it can hold. Costs a look at a shared index.
    #[must_use]
    pub fn rx_backlog(&self) -> (u32, u32) {
        self.rx.waiting()
    }

    /// Moves free frames to the fill ring, so that the kernel can receive into them. Leaves
    /// [`tx_reserve`](SocketConfig::tx_reserve) frames for sending. Returns how many it moved.
    pub fn refill(&mut self) -> usize {
        let moved = self.fill_from_pool();
        if self.need_wakeup && self.fill.needs_wakeup() {
            self.wake_rx();
        }
        moved
    }

    /// Takes a free frame to write a packet into; its packet is empty.
    pub fn allocate(&mut self) -> Option<Frame> {
        self.umem.allocate()
    }

    /// Gives a frame back to the pool.
    ///
    /// # Panics
    /// When the frame came from another socket.
    pub fn free(&mut self, frame: Frame) {
        self.umem.free(frame);
    }

    /// Queues a packet, which must begin with its Ethernet header. It leaves with the next
    /// [`Self::flush`]. An empty one is counted and freed.
    ///
    /// # Errors
    /// When the TX ring is full, the frame comes back: flush and try again, or free it.
    ///
    /// # Panics
    /// When the frame came from another socket.
    pub fn transmit(&mut self, frame: Frame) -> Result<(), Frame> {
        if frame.is_empty() {
            // The kernel would reject it without a completion, and the frame would be lost.
            self.counters.tx_empty += 1;
            self.umem.free(frame);
            return Ok(());
        }
        if !self.tx.has_room() {
            return Err(frame);
        }
        let len = u32::try_from(frame.len()).expect("a frame is at most 4096 bytes");
        let addr = self.umem.lend_to_send(frame);
        let queued = self.tx.push(abi::xdp_desc { addr, len, options: 0 });
        debug_assert!(queued, "there was room");
        self.counters.tx_frames += 1;
        Ok(())
    }

    /// Makes the queued packets visible to the kernel and, if the kernel wants that, tells it to
    /// send with one system call. Call it again while [`Self::pending_tx`] stays above zero: the
    /// kernel may take only a part at a time.
    ///
    /// # Errors
    /// When the interface is down or gone; what is queued stays queued, and leaves when it is up
    /// again (see [`Self::take_error`]). "Busy, try again" is not an error, but counted.
    pub fn flush(&mut self) -> io::Result<()> {
        self.tx.publish();
        if self.tx.outstanding() == 0 || (self.need_wakeup && !self.tx.needs_wakeup()) {
            return Ok(());
        }
        self.counters.tx_wakeups += 1;
        match sys::wake_tx(self.as_fd()) {
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR)
                ) =>
            {
                self.counters.tx_retries += 1;
                Ok(())
            }
            result => result,
        }
    }

    /// Takes sent frames back into the pool and returns how many.
    pub fn reclaim(&mut self) -> usize {
        let mut reclaimed = 0;
        while let Some(address) = self.completion.pop() {
            if self.umem.sent(address) {
                reclaimed += 1;
            } else {
                self.counters.tx_invalid += 1;
            }
        }
        self.completion.release();
        self.counters.tx_completed += reclaimed as u64;
        reclaimed
    }

    /// Waits until a packet is there to receive; false when the time ran out or a signal came.
    /// Without a timeout it waits as long as it takes.
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub fn poll(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        sys::poll_readable(self.as_fd(), timeout)
    }

    /// Whether the socket is dead, and takes note of it: [`io::ErrorKind::NetworkDown`] once the
    /// interface is deleted. A dead socket neither receives nor sends, and wants to be bound anew
    /// when the interface is back. An interface that is merely down is no error here.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn take_error(&mut self) -> io::Result<Option<io::Error>> {
        // SAFETY: an integer.
        let code: i32 = unsafe { sys::option(self.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR) }?;
        Ok((code != 0).then(|| io::Error::from_raw_os_error(code)))
    }

    /// The packet in a frame. See [`Umem::data`].
    #[must_use]
    pub fn data<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        self.umem.data(frame)
    }

    /// The packet in a frame, to change. See [`Umem::data_mut`].
    #[must_use]
    pub fn data_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.umem.data_mut(frame)
    }

    /// The whole frame, to change. See [`Umem::buffer_mut`].
    #[must_use]
    pub fn buffer_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.umem.buffer_mut(frame)
    }

    /// The UMEM.
    #[must_use]
    pub fn umem(&self) -> &Umem {
        &self.umem
    }

    /// Frames given to [`Self::transmit`] that are not back in the pool yet.
    #[must_use]
    pub fn pending_tx(&self) -> u64 {
        self.counters.tx_frames - self.counters.tx_completed
    }

    /// True when packets pass without a copy.
    #[must_use]
    pub fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Whether busy polling was asked for and the driver takes part in it. Only known once a
    /// packet has been received.
    #[must_use]
    pub fn busy_poll_works(&self) -> bool {
        // SAFETY: an integer.
        let id = unsafe {
            sys::option::<u32>(self.as_fd(), libc::SOL_SOCKET, libc::SO_INCOMING_NAPI_ID)
        };
        self.busy_poll && id.is_ok_and(|id| id != 0)
    }

    /// What this end counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What the kernel counted.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn statistics(&self) -> io::Result<Statistics> {
        // SAFETY: a struct of integers.
        let s: abi::xdp_statistics =
            unsafe { sys::option(self.as_fd(), abi::SOL_XDP, abi::XDP_STATISTICS) }?;
        Ok(Statistics {
            rx_dropped: s.rx_dropped,
            rx_invalid_descriptors: s.rx_invalid_descs,
            tx_invalid_descriptors: s.tx_invalid_descs,
            rx_ring_full: s.rx_ring_full,
            fill_ring_empty: s.rx_fill_ring_empty_descs,
            tx_ring_empty: s.tx_ring_empty_descs,
        })
    }

    fn fill_from_pool(&mut self) -> usize {
        let mut moved = 0;
        while self.umem.free_frames() > self.tx_reserve && self.fill.has_room() {
            let Some(address) = self.umem.lend_to_fill() else { break };
            let pushed = self.fill.push(address);
            debug_assert!(pushed, "there was room");
            moved += 1;
        }
        self.fill.publish();
        moved
    }

    fn wake_rx(&mut self) {
        self.counters.rx_wakeups += 1;
        // EAGAIN says that there is nothing to read, which is not what the call is for. A dead
        // interface shows in `flush` and in the daemon's watch on the link.
        let _ = sys::wake_rx(self.as_fd());
    }

    fn set_tuning(&self, config: &SocketConfig) -> Result<(), Error> {
        if let Some(budget) = config.tx_budget {
            // Kernels before 6.18 do not know it; the socket works the same, with more calls.
            let _ =
                sys::set_option(self.as_fd(), abi::SOL_XDP, abi::XDP_MAX_TX_SKB_BUDGET, &budget);
        }
        if let Some(busy_poll) = config.busy_poll {
            let set = |name, value: u32| {
                sys::set_option(self.as_fd(), libc::SOL_SOCKET, name, &value)
                    .map_err(|e| Error::os("setsockopt(SO_BUSY_POLL)", e))
            };
            set(abi::SO_PREFER_BUSY_POLL, 1)?;
            set(libc::SO_BUSY_POLL, busy_poll.micros)?;
            set(abi::SO_BUSY_POLL_BUDGET, busy_poll.budget)?;
        }
        Ok(())
    }

    fn bind_to_queue(&self, config: &SocketConfig) -> Result<(), Error> {
        let &SocketConfig { ifindex, queue_id, .. } = config;
        let mut flags = match config.mode {
            BindMode::Auto => 0,
            BindMode::Copy => abi::XDP_COPY,
            BindMode::ZeroCopy => abi::XDP_ZEROCOPY,
        };
        if config.need_wakeup {
            flags |= abi::XDP_USE_NEED_WAKEUP;
        }
        let address = abi::sockaddr_xdp {
            sxdp_family: u16::try_from(abi::AF_XDP).expect("44"),
            sxdp_flags: flags,
            sxdp_ifindex: ifindex,
            sxdp_queue_id: queue_id,
            sxdp_shared_umem_fd: 0,
        };
        let deadline = Instant::now() + BUSY_LIMIT;
        loop {
            let Err(e) = sys::bind(self.as_fd(), &address) else { return Ok(()) };
            match e.raw_os_error() {
                Some(libc::EBUSY) if Instant::now() < deadline => thread::sleep(BUSY_STEP),
                Some(libc::EBUSY) => return Err(Error::QueueBusy { ifindex, queue_id }),
                Some(libc::EINVAL) => return Err(Error::NoQueue { ifindex, queue_id }),
                Some(libc::EOPNOTSUPP) if config.mode == BindMode::ZeroCopy => {
                    return Err(Error::NoZeroCopy { ifindex });
                }
                _ => return Err(Error::os("bind(AF_XDP)", e)),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The index of the interface called `name`, in this process's network namespace.
///
/// # Errors
/// When there is none.
pub fn interface_index(name: &str) -> Result<u32, Error> {
    sys::interface_index(name).ok_or_else(|| Error::NoInterface(name.to_owned()))
}

/// Tells the kernel where the UMEM is.
fn register(fd: BorrowedFd<'_>, umem: &Umem) -> Result<(), Error> {
    let (start, len) = umem.area();
    let registration = abi::xdp_umem_reg {
        addr: start.as_ptr().expose_provenance() as u64,
        len,
        chunk_size: u32::try_from(umem.frame_size()).expect("2048 or 4096"),
        headroom: umem.headroom(),
        flags: 0,
        tx_metadata_len: 0,
    };
    sys::set_option(fd, abi::SOL_XDP, abi::XDP_UMEM_REG, &registration)
        .map_err(|e| Error::os("setsockopt(XDP_UMEM_REG)", e))
}

struct Rings {
    rx: Consumer<abi::xdp_desc>,
    tx: Producer<abi::xdp_desc>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
}

impl Rings {
    /// Has the kernel make the four rings, and maps them.
    fn map(fd: BorrowedFd<'_>, config: &SocketConfig) -> Result<Self, Error> {
        for (name, size) in [
            (abi::XDP_UMEM_FILL_RING, config.fill_size),
            (abi::XDP_UMEM_COMPLETION_RING, config.completion_size),
            (abi::XDP_RX_RING, config.rx_size),
            (abi::XDP_TX_RING, config.tx_size),
        ] {
            sys::set_option(fd, abi::SOL_XDP, name, &size)
                .map_err(|e| Error::os("setsockopt(XDP ring size)", e))?;
        }
        // SAFETY: a struct of integers.
        let offsets: abi::xdp_mmap_offsets =
            unsafe { sys::option(fd, abi::SOL_XDP, abi::XDP_MMAP_OFFSETS) }
                .map_err(|e| Error::os("getsockopt(XDP_MMAP_OFFSETS)", e))?;
        let map = |o: &abi::xdp_ring_offset, entry_len: usize, size: u32, page_offset| {
            let len = usize::try_from(o.desc).expect("a small offset") + size as usize * entry_len;
            Mapping::ring(fd, len, page_offset)
                .map(Arc::new)
                .map_err(|e| Error::os("mmap(XDP ring)", e))
        };
        let desc_len = entry_len::<abi::xdp_desc>();
        let address_len = entry_len::<u64>();
        let rx = map(&offsets.rx, desc_len, config.rx_size, abi::XDP_PGOFF_RX_RING)?;
        let tx = map(&offsets.tx, desc_len, config.tx_size, abi::XDP_PGOFF_TX_RING)?;
        let fill = map(&offsets.fr, address_len, config.fill_size, abi::XDP_UMEM_PGOFF_FILL_RING)?;
        let completion = map(
            &offsets.cr,
            address_len,
            config.completion_size,
            abi::XDP_UMEM_PGOFF_COMPLETION_RING,
        )?;
        // SAFETY: the kernel made each of these rings with that many entries of that type and told
        // us where they lie; the socket is new, so this is the only user of each end.
        unsafe {
            Ok(Self {
                rx: Consumer::new(rx, &offsets.rx, config.rx_size),
                tx: Producer::new(tx, &offsets.tx, config.tx_size),
                fill: Producer::new(fill, &offsets.fr, config.fill_size),
                completion: Consumer::new(completion, &offsets.cr, config.completion_size),
            })
        }
    }
}

fn entry_len<T: Entry>() -> usize {
    size_of::<T>()
}
