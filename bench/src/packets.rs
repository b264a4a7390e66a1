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
    number::{SECOND_NS, low32, seconds},
    port::{BATCH, Port},
};

/// Silence after which what is outstanding counts as lost.
const LOST_AFTER: u64 = SECOND_NS / 20;

/// How packets are sent.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// How many are outstanding.
    pub window: u32,
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
    /// Packets that nothing came back for.
    pub lost: u64,
    /// Length of the run.
    pub seconds: f64,
    /// ADVERTISE and reflected packets per second.
    pub packets_per_s: f64,
}

/// Keeps `window` packets outstanding for as long as the flow lasts.
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
        let came = low32(report.advertises + report.reflected - before);
        outstanding = outstanding.saturating_sub(came);
        let now = clock.now();
        if came > 0 {
            heard = now;
        } else if outstanding > 0 && now - heard > LOST_AFTER {
            report.lost += u64::from(outstanding);
            (outstanding, heard) = (0, now);
        }
        if now - begin >= flow.duration || stop.load(Ordering::Relaxed) {
            report.seconds = seconds(now - begin);
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let packets = (report.advertises + report.reflected) as f64;
            report.packets_per_s = packets / report.seconds;
            return Ok(report);
        }
        let room = u32::try_from(BATCH).unwrap_or(u32::MAX).min(flow.window - outstanding);
        for _ in 0..room {
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
            report.sent += 1;
            outstanding += 1;
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
        let traffic = Traffic {
            na: true,
            pd: false,
            rapid_commit: false,
            renew_share: 0.0,
            choice: Choice::InTurn,
            relay: None,
        };
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
        let flow = Flow { window: 30, clients: 7, seed: 1, duration: SECOND_NS / 5 };
        let report =
            run(&mut port, &traffic, &flow, &Clock::start(), &AtomicBool::new(false)).unwrap();
        assert!(report.lost >= 30, "{report:?}");
        assert!(report.advertises > 0 && report.reflected > 0, "{report:?}");
        assert!(report.advertises.abs_diff(report.reflected) <= 1, "{report:?}");
        let back = report.advertises + report.reflected;
        assert!(report.sent - back - report.lost <= 30, "{report:?}");
        assert_eq!(report.other, 0);
    }
}
