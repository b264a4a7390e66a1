//! What the server's and the client's program have in common.

use std::{
    collections::HashSet,
    net::Ipv6Addr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use libbpf_rs::{MapCore, MapFlags, MapHandle, Program};

use crate::{Attachment, Error, XdpCounters, XdpMode, attach, sys};

/// A loaded XDP program: its sockets, addresses and counters, and its place on an interface.
///
/// It serves one interface. Dropping it detaches it, and so does the end of the process, however
/// it comes about.
#[derive(Debug)]
pub struct XdpProgram {
    program: OwnedFd,
    program_id: u32,
    sockets: MapHandle,
    own_addresses: MapHandle,
    counters: MapHandle,
    link: Option<Link>,
}

#[derive(Debug)]
struct Link {
    fd: OwnedFd,
    ifindex: u32,
}

impl Drop for Link {
    fn drop(&mut self) {
        // Closing the descriptor does it too, but not before a child process that is between fork
        // and exec has closed its copy. An error means that the interface is gone.
        let _ = sys::detach_link(self.fd.as_fd());
    }
}

/// What an XDP program decided for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To the kernel.
    Pass,
    /// Nowhere.
    Drop,
    /// To the AF_XDP socket.
    Redirect,
    /// A value that our programs do not return.
    Other(u32),
}

impl XdpProgram {
    /// Takes over the program and its maps from a skeleton, which is not needed any more.
    pub(crate) fn new(
        program: &Program<'_>,
        sockets: MapHandle,
        own_addresses: MapHandle,
        counters: MapHandle,
    ) -> Result<Self, Error> {
        let program_id = Program::id_from_fd(program.as_fd())
            .map_err(|e| Error::bpf("find the id of the XDP program", e))?;
        let program = program.as_fd().try_clone_to_owned().map_err(|source| Error::Bpf {
            what: "duplicate a descriptor",
            source: source.into(),
        })?;
        Ok(Self { program, program_id, sockets, own_addresses, counters, link: None })
    }

    /// Attaches to an interface and says in which mode.
    ///
    /// # Errors
    /// [`Error::Occupied`] when another XDP program is there. It is left alone.
    pub fn attach(&mut self, ifindex: u32, mode: XdpMode) -> Result<Attachment, Error> {
        if let Some(link) = &self.link
            && self.is_attached()
        {
            let name = sys::interface_name(link.ifindex);
            return Err(Error::Attached(name.unwrap_or_else(|| link.ifindex.to_string())));
        }
        let (fd, attachment) =
            attach::attach(self.program.as_fd(), self.program_id, ifindex, mode)?;
        self.link = Some(Link { fd, ifindex });
        Ok(attachment)
    }

    /// Detaches from the interface, if attached. Sockets and addresses stay set.
    pub fn detach(&mut self) {
        self.link = None;
    }

    /// Hands the packets of a queue to an AF_XDP socket, which must be bound to that queue of the
    /// interface: the kernel drops, uncounted, what is redirected to a socket of another queue.
    ///
    /// # Errors
    /// When the queue is beyond [`QUEUES_MAX`](crate::QUEUES_MAX) or the descriptor is not an
    /// AF_XDP socket that is set up.
    pub fn set_socket(&self, queue_id: u32, socket: impl AsFd) -> Result<(), Error> {
        check_queue(queue_id)?;
        let fd = socket.as_fd().as_raw_fd();
        self.sockets
            .update(&queue_id.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)
            .map_err(|e| Error::bpf("set the socket of a queue", e))
    }

    /// Leaves the packets of a queue to the kernel again. Closing the socket does that too.
    ///
    /// # Errors
    /// When the kernel refuses. A queue without a socket is no error.
    pub fn remove_socket(&self, queue_id: u32) -> Result<(), Error> {
        check_queue(queue_id)?;
        match self.sockets.delete(&queue_id.to_ne_bytes()) {
            Err(e) if e.kind() != libbpf_rs::ErrorKind::NotFound => {
                Err(Error::bpf("remove the socket of a queue", e))
            }
            _ => Ok(()),
        }
    }

    /// Sets the unicast addresses that count as ours. Addresses that stay are ours throughout.
    ///
    /// # Errors
    /// With more than [`OWN_ADDRESSES_MAX`](crate::OWN_ADDRESSES_MAX) addresses, nothing changes.
    pub fn set_own_addresses(&self, addresses: &[Ipv6Addr]) -> Result<(), Error> {
        let wanted: HashSet<[u8; 16]> = addresses.iter().map(Ipv6Addr::octets).collect();
        if wanted.len() > crate::OWN_ADDRESSES_MAX {
            return Err(Error::TooMany {
                what: "the number of own addresses",
                value: wanted.len(),
                max: crate::OWN_ADDRESSES_MAX,
            });
        }
        let present: HashSet<Vec<u8>> = self.own_addresses.keys().collect();
        // Removing first makes room for what is added.
        for key in present.iter().filter(|key| !wanted.iter().any(|w| w[..] == key[..])) {
            self.own_addresses.delete(key).map_err(|e| Error::bpf("remove an own address", e))?;
        }
        for key in wanted.iter().filter(|key| !present.contains(&key[..])) {
            self.own_addresses
                .update(key, &[1], MapFlags::ANY)
                .map_err(|e| Error::bpf("add an own address", e))?;
        }
        Ok(())
    }

    /// Where the packets went so far.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn counters(&self) -> Result<XdpCounters, Error> {
        XdpCounters::read(&self.counters)
    }

    /// Runs the program over a packet as if it had come in on queue 0, without an interface,
    /// `repeat` times, and returns its last verdict. Counters and flood limits work as always.
    ///
    /// # Errors
    /// When the packet has less than 14 bytes, or the kernel refuses.
    pub fn test_run(&self, packet: &[u8], repeat: u32) -> Result<Verdict, Error> {
        let verdict = sys::test_run(self.program.as_fd(), packet, repeat).map_err(|source| {
            Error::Bpf { what: "run the XDP program over a packet", source: source.into() }
        })?;
        Ok(match verdict {
            1 => Verdict::Drop,
            2 => Verdict::Pass,
            4 => Verdict::Redirect,
            other => Verdict::Other(other),
        })
    }

    /// Whether the program is attached now, by the kernel's word. It ceases to be when the
    /// interface is deleted, or somebody detaches the link by force; it can then be attached anew.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.link
            .as_ref()
            .and_then(|link| sys::query(link.ifindex).ok())
            .is_some_and(|ids| [ids.native, ids.generic, ids.offloaded].contains(&self.program_id))
    }

    /// The interface that the program was attached to.
    #[must_use]
    pub fn ifindex(&self) -> Option<u32> {
        self.link.as_ref().map(|link| link.ifindex)
    }

    /// The kernel's id of the program, as `bpftool prog` shows it.
    #[must_use]
    pub fn program_id(&self) -> u32 {
        self.program_id
    }
}

impl AsFd for XdpProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

/// A handle of a map that outlives the skeleton.
pub(crate) fn handle<'a, M>(map: &'a M) -> Result<MapHandle, Error>
where
    MapHandle: TryFrom<&'a M, Error = libbpf_rs::Error>,
{
    MapHandle::try_from(map).map_err(|e| Error::bpf("keep a map open", e))
}

fn check_queue(queue_id: u32) -> Result<(), Error> {
    let value = queue_id as usize;
    if value < crate::QUEUES_MAX {
        return Ok(());
    }
    Err(Error::TooMany { what: "queue", value, max: crate::QUEUES_MAX - 1 })
}
