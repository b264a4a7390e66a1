//! Packets per second, with nothing but the packets: SOLICIT goes out, and whatever comes back for it
//! counts, an ADVERTISE or the SOLICIT itself. So that a server can be compared with the rings that
//! it stands on.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use gemel_wire::{MessageType, TransactionId};
use serde::{Deserialize, Serialize};

use crate::{
    client::{ClientIndex, Identities},
    clock::Clock,
    message::{Outgoing, Traffic},
    number::{SECOND_NS, float, low32, seconds},
    port::{BATCH, Port},
    schedule::{Pace, Schedule},
};

/// Silence after which what is outstanding counts as lost.
const LOST_AFTER: u64 = SECOND_NS / 20;

/// A packet that could not be sent for so long is not sent at all: what a pause of the generator has
/// piled up would be a burst that nobody asked for.
const LATE_MAX: u64 = SECOND_NS / 500;

/// How packets are sent.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// How many are outstanding, or how many go out in a second whatever comes back.
    pub pace: Pace,
    /// Clients that they come from, in turn.
    pub clients: u32,
    /// Seed of the clients' identities.
    pub seed: u64,
    /// In ns.
    pub duration: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct PacketReport {
    /// Packets sent.
    pub sent: u64,
    /// ADVERTISE received.
    pub advertises: u64,
    /// SOLICIT received: reflected ones.
    pub reflected: u64,
    /// Anything else received.
    pub other: u64,
    /// Packets that nothing came back for; with a rate also those on their way at the end.
    pub lost: u64,
    /// With a rate: packets that were not sent when they were due, nor later.
    #[serde(default)]
    pub not_sent: u64,
    /// Length of the run.
    pub seconds: f64,
    /// ADVERTISE and reflected packets per second.
    pub packets_per_s: f64,
}

/// Keeps packets on their way, as the flow's pace has it, for as long as it lasts.
///
/// # Errors
/// If the port breaks.
pub fn run(
    port: &mut impl Port,
    traffic: &Traffic,
    flow: &Flow,
    clock: &Clock,
    stop: &AtomicBool,
) -> io::Result<PacketReport> {
    let identities = Identities::new(flow.seed);
    let begin = clock.now();
    let mut schedule = Schedule::new(flow.pace, begin, flow.duration, None);
    let mut report = PacketReport::default();
    let (mut outstanding, mut heard) = (0_u32, begin);
    loop {
        let before = report.advertises + report.reflected;
        let foreign =
            port.receive(&mut |datagram| match datagram.first().copied().map(MessageType) {
                Some(MessageType::ADVERTISE) => report.advertises += 1,
                Some(MessageType::SOLICIT) => report.reflected += 1,
                _ => report.other += 1,
            })?;
        report.other += foreign;
        let back = report.advertises + report.reflected;
        let came = low32(back - before);
        outstanding = outstanding.saturating_sub(came);
        let now = clock.now();
        if came > 0 {
            heard = now;
        } else if !schedule.is_open_loop() && outstanding > 0 && now - heard > LOST_AFTER {
            report.lost += u64::from(outstanding);
            (outstanding, heard) = (0, now);
        }
        if now - begin >= flow.duration || stop.load(Ordering::Relaxed) {
            if schedule.is_open_loop() {
                report.lost = report.sent.saturating_sub(back);
                while schedule.due(now, 0).is_some() {
                    schedule.advance();
                    report.not_sent += 1;
                }
            }
            report.seconds = seconds(now - begin);
            report.packets_per_s = float(back) / report.seconds;
            return Ok(report);
        }
        let mut room = BATCH;
        while room > 0
            && let Some(due) = schedule.due(now, outstanding)
        {
            if now - due > LATE_MAX {
                schedule.advance();
                report.not_sent += 1;
                continue;
            }
            let number = report.sent;
            let client = ClientIndex(low32(number % u64::from(flow.clients)));
            let [_, a, b, c] = low32(number & 0x00ff_ffff).to_be_bytes();
            let outgoing = Outgoing {
                msg_type: MessageType::SOLICIT,
                transaction_id: TransactionId([a, b, c]),
                client,
                identity: &identities.identity(client),
                server_id: None,
                na: None,
                pd: None,
                elapsed: 0,
            };
            if !port.send(&mut |buffer| traffic.write(&outgoing, buffer).ok())? {
                break;
            }
            schedule.advance();
            report.sent += 1;
            outstanding = outstanding.saturating_add(1);
            room -= 1;
        }
        port.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::Choice, port::MemoryPort};

    #[test]
    fn what_comes_back_is_counted_and_what_does_not_is_lost() {
        let traffic = Traffic::addresses(Choice::InTurn);
        // Reflects two of three, the second as an ADVERTISE.
        let mut number = 0_u64;
        let mut port = MemoryPort::new(move |datagram: &[u8], reply: &mut [u8]| {
            number += 1;
            reply[..datagram.len()].copy_from_slice(datagram);
            match number % 3 {
                0 => return None,
                1 => reply[0] = MessageType::ADVERTISE.0,
                _ => {}
            }
            Some(datagram.len())
        });
        let flow = Flow { pace: Pace::Window(30), clients: 7, seed: 1, duration: SECOND_NS / 5 };
        let report =
            run(&mut port, &traffic, &flow, &Clock::start(), &AtomicBool::new(false)).unwrap();
        assert!(report.lost >= 30, "{report:?}");
        assert!(report.advertises > 0 && report.reflected > 0, "{report:?}");
        assert!(report.advertises.abs_diff(report.reflected) <= 1, "{report:?}");
        let back = report.advertises + report.reflected;
        assert!(report.sent - back - report.lost <= 30, "{report:?}");
        assert_eq!(report.other, 0);
    }

    #[test]
    fn a_rate_goes_on_when_nothing_comes_back() {
        let traffic = Traffic::addresses(Choice::InTurn);
        let mut number = 0_u64;
        let mut port = MemoryPort::new(move |datagram: &[u8], reply: &mut [u8]| {
            reply[..datagram.len()].copy_from_slice(datagram);
            number += 1;
            number.is_multiple_of(10).then_some(datagram.len())
        });
        let flow =
            Flow { pace: Pace::Rate(10_000.0), clients: 7, seed: 1, duration: SECOND_NS / 5 };
        let report =
            run(&mut port, &traffic, &flow, &Clock::start(), &AtomicBool::new(false)).unwrap();
        // However the machine is loaded: all that was due was sent or is counted as not sent.
        assert_eq!(report.sent + report.not_sent, 2000, "{report:?}");
        assert_eq!(report.lost + report.reflected, report.sent, "{report:?}");
        assert_eq!(report.reflected, report.sent / 10, "{report:?}");
    }
}
