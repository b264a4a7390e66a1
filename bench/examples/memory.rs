//! How fast the generator is by itself: exchanges with a server in memory that does next to nothing.
//!
//! `cargo run --release -p gemel-bench --example memory [SECONDS [CLIENTS [WINDOW [SLOTS]]]]`

use std::{error::Error, net::Ipv6Addr, sync::atomic::AtomicBool};

use gemel_bench::{
    clock::Clock,
    engine::{Choice, Engine, Patience, World},
    generator::{self, Course},
    message::Traffic,
    port::MemoryPort,
    schedule::{Pace, Schedule},
    stats::Counter,
};
use gemel_wire::{Emitter, MessageType, OptionCode};

const SECOND: u64 = 1_000_000_000;
/// Where the Client Identifier of a message of this generator ends: header and option.
const CLIENT_ID_END: usize = 4 + 4 + 14;
/// Where the IAID stands in SOLICIT; a REQUEST has the Server Identifier before that.
const IAID_IN_SOLICIT: usize = CLIENT_ID_END + 6 + 10 + 4;
const SERVER: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 1];

/// Answers SOLICIT and REQUEST for an address with one that follows from the client's DUID.
fn answer(datagram: &[u8], buffer: &mut [u8]) -> Option<usize> {
    let solicit = datagram[0] == MessageType::SOLICIT.0;
    let iaid_at = if solicit { IAID_IN_SOLICIT } else { IAID_IN_SOLICIT + 4 + SERVER.len() };
    let kind = if solicit { MessageType::ADVERTISE } else { MessageType::REPLY };
    let mut out = Emitter::new(buffer);
    out.u8(kind.0);
    out.bytes(&datagram[1..CLIENT_ID_END]);
    out.option(OptionCode::SERVER_ID, &SERVER);
    let iaid = u32::from_be_bytes(datagram[iaid_at..iaid_at + 4].try_into().ok()?);
    let mark = out.begin_ia(OptionCode::IA_NA, gemel_wire::IaId(iaid), 500, 800);
    let mut address = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    address[10..].copy_from_slice(&datagram[CLIENT_ID_END - 6..CLIENT_ID_END]);
    out.ia_addr(Ipv6Addr::from(address), 1000, 2000);
    out.end(mark);
    out.finish().ok()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u32| args.next().map_or(Ok(default), |text| text.parse());
    let (seconds, clients, window) = (number(3)?, number(100_000)?, number(64)?);
    let slots = number(1 << 20)?;
    let clock = Clock::start();
    let traffic = Traffic::addresses(Choice::InTurn);
    let world = World::new(1, clients, 1);
    let mut engine = Engine::new(traffic, world, slots, Patience::once(SECOND), 1, clock.now());
    let begin = clock.now();
    let length = u64::from(seconds) * SECOND;
    let mut schedule = Schedule::new(Pace::Window(window), begin, length, None);
    let stop = AtomicBool::new(false);
    let course = Course { begin, interval: SECOND, clock: &clock, stop: &stop, steering: None };
    let mut port = MemoryPort::new(answer);
    let span = generator::run(&mut engine, &mut port, &mut schedule, &course)?;
    let (world, stats) = engine.finish();
    let messages = stats.get(Counter::Sent) + stats.get(Counter::Received);
    let cpu_ns = span.cpu;
    println!(
        "{} exchanges, {} violations, {messages} messages sent or received: {:.1} ns of processor \
         time each, {:.0} a second",
        stats.get(Counter::Completed),
        world.violations_total(),
        cpu_ns as f64 / messages as f64,
        messages as f64 * 1e9 / cpu_ns as f64
    );
    Ok(())
}
