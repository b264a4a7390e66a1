use std::{io, net::Ipv6Addr, os::fd::BorrowedFd};

use crate::{admission::Backlog, headers::Mac};

/// Where a datagram came from, for the server rules and for the reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Origin {
    /// Source address: a client's or a relay agent's.
    pub source: Ipv6Addr,
    /// Source port.
    pub source_port: u16,
    /// Destination address, multicast or ours.
    pub destination: Ipv6Addr,
    /// Index of the interface it arrived on.
    pub interface: u32,
}

/// What gives a worker its datagrams and takes its replies.
///
/// A loop goes: [`Port::receive`]; for each request [`Port::allocate`] a frame, write the payload
/// through [`Port::buffers`], [`Port::address`] it, [`Port::send`] or keep it for later; then
/// [`Port::flush`]. No method allocates memory or makes a system call per packet.
pub trait Port {
    /// A received datagram, with the buffer that it owns.
    type Request;
    /// The buffer of a reply, owned by whoever holds the value.
    type Reply;

    /// Appends received datagrams to `batch`, no more than fit without growing it.
    ///
    /// # Errors
    /// When the interface is gone; the worker then ends.
    fn receive(&mut self, batch: &mut Vec<Self::Request>) -> io::Result<()>;

    /// How many datagrams wait for [`Port::receive`], as far as that can be known without a system
    /// call.
    fn backlog(&self) -> Backlog;

    /// Where a request came from.
    fn origin(&self, request: &Self::Request) -> Origin;

    /// The payload of a request.
    fn payload<'a>(&'a self, request: &'a Self::Request) -> &'a [u8];

    /// A buffer for a reply, `None` when all are in use.
    fn allocate(&mut self) -> Option<Self::Reply>;

    /// The payload of a request, and the room for the payload of its reply.
    fn buffers<'a>(
        &'a self,
        request: &'a Self::Request,
        reply: &'a mut Self::Reply,
    ) -> (&'a [u8], &'a mut [u8]);

    /// Completes a reply of `len` octets of payload, to be sent to where the request came from, at
    /// `destination_port`. False if it cannot be sent from here.
    fn address(
        &mut self,
        request: &Self::Request,
        reply: &mut Self::Reply,
        len: usize,
        destination_port: u16,
    ) -> bool;

    /// Queues a completed reply for sending. What the queue has no room for is dropped and counted.
    fn send(&mut self, reply: Self::Reply);

    /// Gives back the buffer of a request.
    fn release(&mut self, request: Self::Request);

    /// Gives back the buffer of a reply that is not sent.
    fn discard(&mut self, reply: Self::Reply);

    /// Sends what is queued, and prepares for the next [`Port::receive`].
    ///
    /// # Errors
    /// When the interface is gone; the worker then ends.
    fn flush(&mut self) -> io::Result<()>;

    /// Whether replies are still queued that the kernel has not taken: flush again.
    fn pending(&self) -> bool;

    /// What becomes readable when there is something to receive.
    fn readable(&self) -> BorrowedFd<'_>;

    /// Packets lost or refused below the worker, by cause: `(name, count)`.
    fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, u64));
}

/// What a worker must know of its interface; replaced as a whole when the interface changes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct InterfaceInfo {
    /// Interface index.
    pub index: u32,
    /// Hardware address.
    pub mac: Mac,
    /// Link-local address.
    pub link_local: Option<Ipv6Addr>,
    /// Other unicast addresses.
    pub addresses: Vec<Ipv6Addr>,
}

impl InterfaceInfo {
    /// The source address of a reply, as a host on the link would choose it: the address that was
    /// asked if it was a unicast one, else one of the scope of the asker (RFC 6724 section 5,
    /// rules 2 and 8).
    #[must_use]
    pub fn source_for(&self, origin: &Origin) -> Option<Ipv6Addr> {
        if !origin.destination.is_multicast() {
            return Some(origin.destination);
        }
        if origin.source.is_unicast_link_local() {
            return self.link_local;
        }
        let common =
            |address: &Ipv6Addr| (address.to_bits() ^ origin.source.to_bits()).leading_zeros();
        self.addresses.iter().copied().max_by_key(common).or(self.link_local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_has_the_scope_of_the_asker() {
        let parse = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        let info = InterfaceInfo {
            link_local: Some(parse("fe80::1")),
            addresses: vec![parse("2001:db8:1::1"), parse("2001:db8:2::1")],
            ..InterfaceInfo::default()
        };
        let source_for = |source, destination| {
            let origin = Origin {
                source: parse(source),
                source_port: 547,
                destination: parse(destination),
                interface: 1,
            };
            info.source_for(&origin).unwrap().to_string()
        };
        assert_eq!(source_for("fe80::9", "ff02::1:2"), "fe80::1");
        assert_eq!(source_for("2001:db8:2::9", "ff05::1:3"), "2001:db8:2::1");
        assert_eq!(source_for("2001:db8:1::9", "ff02::1:2"), "2001:db8:1::1");
        assert_eq!(source_for("2001:db8:1::9", "2001:db8:2::1"), "2001:db8:2::1");
    }
}
