//! What the benches and tests of a worker share: a port in memory, and a server behind it.

// Not everything is used in each of them.
#![allow(dead_code)]

use std::{
    collections::VecDeque,
    io,
    net::Ipv6Addr,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use gemel_lease::{LeaseTable, Ownership, PoolConfig, PoolId, PoolRange, PoolSet, TableConfig};
use gemel_server::{LinkConfig, Server, ServerConfig};
use gemel_wire::{
    ALL_RELAY_AGENTS_AND_SERVERS, Duid, Emitter, Ia, IaAddr, IaId, Message, MessageType,
    OptionCode, Options, TransactionId,
};
use gemel_worker::{Backlog, Origin, Port};

/// The index of the interface that every datagram comes from.
const INTERFACE: u32 = 7;

type Buffer = Box<[u8; 2048]>;

pub(crate) struct Datagram {
    buffer: Buffer,
    len: usize,
}

/// Queues in memory in place of a network card. Frames are used in turn, as a card does it.
pub(crate) struct MemoryPort {
    arriving: VecDeque<Datagram>,
    sent: VecDeque<Datagram>,
    spare: VecDeque<Buffer>,
    /// From how many waiting datagrams on there is said to be a backlog.
    capacity: u32,
    idle: io::PipeReader,
}

impl MemoryPort {
    pub(crate) fn new(frames: usize, capacity: u32) -> Self {
        Self {
            arriving: VecDeque::with_capacity(frames),
            sent: VecDeque::with_capacity(frames),
            spare: (0..frames).map(|_| Box::new([0; 2048])).collect(),
            capacity,
            idle: io::pipe().unwrap().0,
        }
    }

    /// Lets a message arrive; the closure writes it.
    pub(crate) fn arrive(&mut self, write: impl FnOnce(&mut Emitter<'_>)) {
        self.arrive_octets(|buffer| {
            let mut out = Emitter::new(buffer);
            write(&mut out);
            out.finish().unwrap()
        });
    }

    /// Lets octets arrive; the closure writes them, and says how many they are.
    pub(crate) fn arrive_octets(&mut self, write: impl FnOnce(&mut [u8]) -> usize) {
        let mut buffer = self.spare.pop_front().expect("enough frames");
        let len = write(&mut buffer[..]);
        self.arriving.push_back(Datagram { buffer, len });
    }

    /// Looks at the next reply that has left.
    pub(crate) fn take_sent<T>(&mut self, read: impl FnOnce(&Message<'_>) -> T) -> Option<T> {
        let datagram = self.sent.pop_front()?;
        let value = read(&Message::parse(&datagram.buffer[..datagram.len]).unwrap());
        self.spare.push_back(datagram.buffer);
        Some(value)
    }
}

impl Port for MemoryPort {
    type Request = Datagram;
    type Reply = Datagram;

    fn receive(&mut self, batch: &mut Vec<Datagram>) -> io::Result<()> {
        while batch.len() < batch.capacity()
            && let Some(datagram) = self.arriving.pop_front()
        {
            batch.push(datagram);
        }
        Ok(())
    }

    fn origin(&self, _: &Datagram) -> Origin {
        Origin {
            source: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9),
            source_port: 546,
            destination: ALL_RELAY_AGENTS_AND_SERVERS,
            interface: INTERFACE,
        }
    }

    fn backlog(&self) -> Backlog {
        let waiting = u32::try_from(self.arriving.len()).unwrap();
        Backlog { waiting, capacity: self.capacity }
    }

    fn payload<'a>(&'a self, request: &'a Datagram) -> &'a [u8] {
        &request.buffer[..request.len]
    }

    fn allocate(&mut self) -> Option<Datagram> {
        self.spare.pop_front().map(|buffer| Datagram { buffer, len: 0 })
    }

    fn buffers<'a>(
        &'a self,
        request: &'a Datagram,
        reply: &'a mut Datagram,
    ) -> (&'a [u8], &'a mut [u8]) {
        (&request.buffer[..request.len], &mut reply.buffer[..])
    }

    fn address(&mut self, _: &Datagram, reply: &mut Datagram, len: usize, port: u16) -> bool {
        assert_eq!(port, 546, "clients listen there");
        reply.len = len;
        true
    }

    fn send(&mut self, reply: Datagram) {
        self.sent.push_back(reply);
    }

    fn release(&mut self, request: Datagram) {
        self.spare.push_back(request.buffer);
    }

    fn discard(&mut self, reply: Datagram) {
        self.spare.push_back(reply.buffer);
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn pending(&self) -> bool {
        false
    }

    fn readable(&self) -> BorrowedFd<'_> {
        self.idle.as_fd()
    }

    fn visit_counters(&self, _: &mut dyn FnMut(&'static str, u64)) {}
}

/// A server with one link and one pool, and its table.
pub(crate) struct Site {
    pub(crate) table: Arc<LeaseTable>,
    pub(crate) server: Arc<Server>,
    pub(crate) duid: Duid,
}

impl Site {
    /// With the addresses from 2001:db8::1:0 to `last`, and room for so many bindings.
    pub(crate) fn new(last: &str, expected_bindings: usize) -> Self {
        let range = PoolRange::Addresses {
            first: "2001:db8::1:0".parse().unwrap(),
            last: last.parse().unwrap(),
        };
        let pools = PoolSet::new(vec![PoolConfig { range, ownership: Ownership::Sole }]).unwrap();
        let config = TableConfig { expected_bindings, ..TableConfig::default() };
        let table = Arc::new(LeaseTable::new(&config, pools));
        let duid = Duid::new(&[0, 3, 0, 1, 2, 0, 0, 0, 0, 1]).unwrap();
        let mut link = LinkConfig::new("lan");
        link.interface = Some(INTERFACE);
        link.na_pools = vec![PoolId(0)];
        let mut config = ServerConfig::new(duid);
        config.links.push(link);
        let server = Arc::new(Server::new(config, Arc::clone(&table)).unwrap());
        Self { table, server, duid }
    }
}

/// A client's message about its one address; with the number of the client as transaction id.
pub(crate) fn write_message(
    out: &mut Emitter<'_>,
    msg_type: MessageType,
    client: u32,
    server: &Duid,
    address: Option<Ipv6Addr>,
) {
    let [_, x0, x1, x2] = client.to_be_bytes();
    out.message(msg_type, TransactionId([x0, x1, x2]));
    let mut duid = [0, 3, 0, 1, 2, 0, 0, 0, 0, 0];
    duid[6..].copy_from_slice(&client.to_be_bytes());
    out.option(OptionCode::CLIENT_ID, &duid);
    if msg_type != MessageType::SOLICIT {
        out.duid(OptionCode::SERVER_ID, server);
    }
    let ia = out.begin_ia(OptionCode::IA_NA, IaId(1), 0, 0);
    if let Some(address) = address {
        out.ia_addr(address, 0, 0);
    }
    out.end(ia);
}

/// The address in the IA_NA of a reply.
pub(crate) fn address_in(message: &Message<'_>) -> Ipv6Addr {
    let ia = Ia::parse(message.options.first(OptionCode::IA_NA).unwrap()).unwrap();
    let options: Options<'_> = ia.options;
    IaAddr::parse(options.first(OptionCode::IA_ADDR).unwrap()).unwrap().address
}
