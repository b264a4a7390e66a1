//! The least that can answer DHCPv6, over AF_XDP: to find the generator's own ceiling.
//!
//! It keeps no state. Leases follow from the last four octets of the client's DUID, which differ
//! between the clients of one generator.
//!
//! ```text
//! ip netns add bench-lab
//! ip link add gb0 numtxqueues 1 numrxqueues 1 type veth peer gb1 numtxqueues 1 numrxqueues 1 netns bench-lab
//! ip link set gb0 up; ip -n bench-lab link set gb1 up
//! nsenter --net=/run/netns/bench-lab cargo run --release -p gemel-bench --example responder -- gb1 0 &
//! gemel-bench run -i gb0 --window 128 --core 1
//! ```
//!
//! Arguments: interface, core, `native` (default) or `generic`.

use std::{error::Error, net::Ipv6Addr, sync::atomic::Ordering};

use af_xdp::{Frame, Socket, SocketConfig, Umem, UmemConfig};
use gemel_bench::{
    frame::{End, HEADERS_LEN, Headers, parse},
    os::{Interface, pin_to_core, stop_on_interrupt},
};
use gemel_ebpf::{Capture, XdpClient, XdpMode};
use gemel_wire::{Emitter, Ia, Message, MessageType, OptionCode, SERVER_PORT};

const BATCH: usize = 64;
const SERVER_ID: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 1];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let interface = Interface::by_name(&arguments.next().ok_or("which interface?")?)?;
    pin_to_core(arguments.next().ok_or("which core?")?.parse()?)?;
    let mode = match arguments.next().as_deref() {
        Some("generic") => XdpMode::Generic,
        _ => XdpMode::Native,
    };
    let address = interface.link_local().ok_or("no link-local address")?;
    let here = End { mac: interface.mac, address, port: SERVER_PORT };

    let mut program = XdpClient::load(Capture { ports: [SERVER_PORT, 0], any_address: true })?;
    program.attach(interface.index, mode)?;
    let umem = Umem::new(UmemConfig::default())?;
    let mut socket = Socket::bind(umem, &SocketConfig::new(interface.index, 0))?;
    program.set_socket(0, &socket)?;
    println!("serving on {}", interface.name);

    let stop = stop_on_interrupt();
    let mut batch: Vec<Frame> = Vec::with_capacity(BATCH);
    let mut peer: Option<(End, Headers)> = None;
    let mut unanswered = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        if socket.receive(&mut batch) == 0 {
            socket.poll(Some(std::time::Duration::from_millis(100)))?;
        }
        for received in batch.drain(..) {
            if !answer(&mut socket, &received, &here, &mut peer) {
                unanswered += 1;
            }
            socket.free(received);
        }
        socket.flush()?;
        socket.reclaim();
        socket.refill();
    }
    println!("{unanswered} unanswered, {:?}, {:?}", socket.counters(), socket.statistics()?);
    Ok(())
}

/// Sends the answer to a frame; false if there is none, or no room for it.
fn answer(
    socket: &mut Socket,
    received: &Frame,
    here: &End,
    peer: &mut Option<(End, Headers)>,
) -> bool {
    let Some(mut reply) = socket.allocate() else { return false };
    let offset = reply.offset();
    let mut len = None;
    if let Some(datagram) = parse(socket.data(received)) {
        if peer.as_ref().is_none_or(|(end, _)| *end != datagram.source) {
            *peer = Some((datagram.source, Headers::new(here, &datagram.source)));
        }
        let buffer = &mut socket.buffer_mut(&mut reply)[offset..];
        if let (Some(written), Some((_, headers))) =
            (write(datagram.payload, &mut buffer[HEADERS_LEN..]), peer.as_ref())
        {
            len = headers.complete(buffer, written);
        }
    }
    let Some(len) = len else {
        socket.free(reply);
        return false;
    };
    if reply.set_range(offset, len).is_err() {
        socket.free(reply);
        return false;
    }
    match socket.transmit(reply) {
        Ok(()) => true,
        Err(reply) => {
            socket.free(reply);
            false
        }
    }
}

fn write(payload: &[u8], buffer: &mut [u8]) -> Option<usize> {
    let message = Message::parse(payload).ok()?;
    let client = message.options.first(OptionCode::CLIENT_ID)?;
    let rapid = message.options.first(OptionCode::RAPID_COMMIT).is_some();
    let number = u128::from(u32::from_be_bytes(*client.last_chunk::<4>()?));
    let msg_type = match message.msg_type {
        MessageType::SOLICIT if !rapid => MessageType::ADVERTISE,
        _ => MessageType::REPLY,
    };
    let mut out = Emitter::new(buffer);
    out.message(msg_type, message.transaction_id);
    out.option(OptionCode::CLIENT_ID, client);
    out.option(OptionCode::SERVER_ID, SERVER_ID);
    if rapid {
        out.option(OptionCode::RAPID_COMMIT, &[]);
    }
    for option in message.options {
        if option.code == OptionCode::IA_NA {
            let mark = out.begin_ia(option.code, Ia::parse(option.data).ok()?.iaid, 1800, 2880);
            // The interface identifier begins with 0x10, so that it is none of the reserved ones.
            let address = 0x2001_0db8_u128 << 96 | 0x10 << 56 | number;
            out.ia_addr(Ipv6Addr::from(address), 3600, 7200);
            out.end(mark);
        } else if option.code == OptionCode::IA_PD {
            let mark = out.begin_ia(option.code, Ia::parse(option.data).ok()?.iaid, 1800, 2880);
            let prefix = 0x3fff_u128 << 112 | number << 72;
            out.ia_prefix(Ipv6Addr::from(prefix), 56, 3600, 7200);
            out.end(mark);
        }
    }
    out.finish().ok()
}
