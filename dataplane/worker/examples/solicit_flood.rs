//! An avalanche of SOLICITs for trying out admission: sends, and looks at no answer.
//!
//! Each SOLICIT comes from a client of its own, by its DUID; all have one MAC and one IPv6 address
//! (`02:99:00:00:00:01`, `fe80::99:0:0:1`), for which a server in socket mode needs a neighbour entry. It goes out in bursts
//! of a millisecond, so that the generator leaves its core free in between.
//!
//! ```text
//! cargo run --release -p gemel-worker --example solicit_flood -- INTERFACE RATE SECONDS [CLIENTS [IAS]]
//! ```

use std::{
    error::Error,
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use af_xdp::{Socket, SocketConfig, Umem, UmemConfig, interface_index};
use gemel_wire::{
    ALL_RELAY_AGENTS_AND_SERVERS, CLIENT_PORT, Emitter, IaId, MessageType, OptionCode, SERVER_PORT,
    TransactionId,
};

/// How often a burst is sent.
const BURST_EVERY: Duration = Duration::from_millis(1);
/// Ethernet, IPv6 and UDP.
const HEADERS: usize = 14 + 40 + 8;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [interface, rate, seconds, rest @ ..] = arguments.as_slice() else {
        return Err("usage: solicit_flood INTERFACE RATE SECONDS [CLIENTS [IAS]]".into());
    };
    let (rate, seconds): (u64, u64) = (rate.parse()?, seconds.parse()?);
    let clients: u32 = rest.first().map_or(Ok(1_000_000), |clients| clients.parse())?;
    let ias: u32 = rest.get(1).map_or(Ok(1), |ias| ias.parse())?;
    let config = SocketConfig::new(interface_index(interface)?, 0);
    let mut socket = Socket::bind(Umem::new(UmemConfig::default())?, &config)?;

    let begun = Instant::now();
    let length = Duration::from_secs(seconds);
    let (mut sent, mut late, mut client) = (0_u64, 0_u64, 0);
    while begun.elapsed() < length {
        let due = u64::try_from(begun.elapsed().as_micros())? * rate / 1_000_000;
        // After a pause that the scheduler made, no more than a few milliseconds at once.
        late = late.max(due.saturating_sub(sent + rate / 200));
        while sent + late < due {
            socket.reclaim();
            // What the ring has no room for now is not sent later: the rate is an upper bound.
            let Some(mut frame) = socket.allocate() else {
                late = due - sent;
                break;
            };
            let len = write_solicit(socket.buffer_mut(&mut frame), client, ias)?;
            client = (client + 1) % clients;
            frame.set_range(0, len)?;
            match socket.transmit(frame) {
                Ok(()) => sent += 1,
                Err(frame) => {
                    socket.free(frame);
                    late = due - sent;
                    break;
                }
            }
            if sent.is_multiple_of(64) {
                socket.flush()?;
            }
        }
        socket.flush()?;
        std::thread::sleep(BURST_EVERY);
    }
    println!("{sent} SOLICITs sent in {:?}, {late} not sent in time", begun.elapsed());
    Ok(())
}

/// Writes the frame of one client's SOLICIT with that many IA_NAs; its length.
fn write_solicit(buffer: &mut [u8], client: u32, ias: u32) -> Result<usize, Box<dyn Error>> {
    let number = client.to_be_bytes();
    let mac = [2, 0x99, 0, 0, 0, 1];
    let source = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x99, 0, 0, 0, 0, 0, 1];
    let destination = ALL_RELAY_AGENTS_AND_SERVERS.octets();
    let (headers, payload) = buffer.split_at_mut(HEADERS);

    let mut out = Emitter::new(payload);
    out.message(MessageType::SOLICIT, TransactionId([number[1], number[2], number[3]]));
    let mut duid = [0, 3, 0, 1, 0, 0, 0, 0, 0, 0];
    duid[4..6].copy_from_slice(&[2, 0x99]);
    duid[6..].copy_from_slice(&number);
    out.option(OptionCode::CLIENT_ID, &duid);
    for ia in 0..ias {
        let ia = out.begin_ia(OptionCode::IA_NA, IaId(ia), 0, 0);
        out.end(ia);
    }
    let len = out.finish()?;

    let udp_len = u16::try_from(8 + len)?.to_be_bytes();
    headers[0..6].copy_from_slice(&[0x33, 0x33, 0, 1, 0, 2]);
    headers[6..12].copy_from_slice(&mac);
    headers[12..14].copy_from_slice(&[0x86, 0xdd]);
    headers[14..18].copy_from_slice(&[0x60, 0, 0, 0]);
    headers[18..20].copy_from_slice(&udp_len);
    headers[20..22].copy_from_slice(&[17, 1]);
    headers[22..38].copy_from_slice(&source);
    headers[38..54].copy_from_slice(&destination);
    headers[54..56].copy_from_slice(&CLIENT_PORT.to_be_bytes());
    headers[56..58].copy_from_slice(&SERVER_PORT.to_be_bytes());
    headers[58..60].copy_from_slice(&udp_len);
    headers[60..62].fill(0);
    let udp = &buffer[HEADERS - 8..HEADERS + len];
    let checksum = checksum(Ipv6Addr::from(source), Ipv6Addr::from(destination), udp);
    buffer[60..62].copy_from_slice(&checksum.to_be_bytes());
    Ok(HEADERS + len)
}

/// The checksum of a UDP datagram over its pseudo-header (RFC 8200 section 8.1).
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, udp: &[u8]) -> u16 {
    let words = |octets: &[u8]| -> u32 {
        octets
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
            .sum()
    };
    let length = u32::try_from(udp.len()).unwrap_or(0);
    let mut sum = words(&source.octets()) + words(&destination.octets()) + words(udp) + length + 17;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !u16::try_from(sum).unwrap_or(0) {
        0 => 0xffff,
        checksum => checksum,
    }
}
