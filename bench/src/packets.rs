//! Packets per second, with nothing but the packets: SOLICIT goes out, and whatever comes back for it
//! counts, an ADVERTISE or the SOLICIT itself. So that a server can be compared with the rings that
//! it stands on.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use gemel_wire::{MessageType, TransactionId};
use serde::{Deserialize, Serialize};

use crate::{
    client::{ClientIndex, Identities},
    clock::Clock,
    message::{Outgoing, Traffic},
    number::{SECOND_NS, float, index, low32, seconds},
    port::{BATCH, Port},
};

/// Silence after which what is outstanding counts as lost.
const LOST_AFTER: u64 = SECOND_NS / 20;

/// How long a sleep between two bursts is at most, ns: answers are not to pile up.
const SLEEP_MAX: u64 = SECOND_NS / 1000;

/// When packets are sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pace {
    /// So many are outstanding, always.
    Window(u32),
    /// Whatever comes back. Bursts that become due before the one before is out are left out: what a
    /// pause of the generator piles up would be a load that nobody asked for.
    Bursts {
        /// How many go out at once.
        packets: u32,
        /// From one burst to the next, ns; not 0.
        every: u64,
    },
}

/// How packets are sent.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// When.
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
    /// Packets that nothing came back for; of bursts also what was on its way at the end.
    pub lost: u64,
    /// Packets of bursts that were not sent, for want of room or because they were too late.
    #[serde(default)]
    pub not_sent: u64,
    /// Length of the run.
    pub seconds: f64,
    /// ADVERTISE and reflected packets per second.
    pub packets_per_s: f64,
}

impl PacketReport {
    fn back(&self) -> u64 {
        self.advertises + self.reflected
    }
}

/// Sends packets, as the flow's pace has it, for as long as it lasts.
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
    let begin = clock.now();
    let mut sender = Sender {
        port,
        traffic,
        identities: Identities::new(flow.seed),
        clients: flow.clients,
        report: PacketReport::default(),
    };
    let over = |now: u64| now - begin >= flow.duration || stop.load(Ordering::Relaxed);
    match flow.pace {
        Pace::Window(window) => sender.keep(window, clock, over)?,
        Pace::Bursts { packets, every } => sender.bursts((packets, every), begin, clock, over)?,
    }
    let mut report = sender.report;
    report.seconds = seconds(clock.now() - begin);
    report.packets_per_s = float(report.back()) / report.seconds;
    Ok(report)
}

struct Sender<'a, P> {
    port: &'a mut P,
    traffic: &'a Traffic,
    identities: Identities,
    clients: u32,
    report: PacketReport,
}

impl<P: Port> Sender<'_, P> {
    /// Keeps `window` packets outstanding.
    fn keep(&mut self, window: u32, clock: &Clock, over: impl Fn(u64) -> bool) -> io::Result<()> {
        let (mut outstanding, mut heard) = (0_u32, clock.now());
        loop {
            let came = low32(self.receive()?);
            outstanding = outstanding.saturating_sub(came);
            let now = clock.now();
            if came > 0 {
                heard = now;
            } else if outstanding > 0 && now - heard > LOST_AFTER {
                self.report.lost += u64::from(outstanding);
                (outstanding, heard) = (0, now);
            }
            if over(now) {
                return Ok(());
            }
            outstanding += low32(self.send(BATCH.min(index(window - outstanding)))? as u64);
        }
    }

    /// Sends bursts, and leaves its core to others in between.
    fn bursts(
        &mut self,
        (packets, every): (u32, u64),
        begin: u64,
        clock: &Clock,
        over: impl Fn(u64) -> bool,
    ) -> io::Result<()> {
        let mut next = begin;
        loop {
            while self.receive()? > 0 {}
            let now = clock.now();
            if over(now) {
                self.leave_out(now.saturating_sub(next) / every, packets);
                self.report.lost = self.report.sent.saturating_sub(self.report.back());
                return Ok(());
            }
            if now < next {
                thread::sleep(Duration::from_nanos((next - now).min(SLEEP_MAX)));
                continue;
            }
            self.burst(packets)?;
            // What became due meanwhile is left out, so that there is a pause after every burst.
            let missed = clock.now().saturating_sub(next) / every;
            self.leave_out(missed, packets);
            next += (missed + 1) * every;
        }
    }

    fn leave_out(&mut self, bursts: u64, packets: u32) {
        self.report.not_sent += bursts * u64::from(packets);
    }

    /// Sends so many packets, or as many as there is room for.
    fn burst(&mut self, packets: u32) -> io::Result<()> {
        let mut left = index(packets);
        while left > 0 {
            let sent = self.send(left.min(BATCH))?;
            left -= sent;
            if sent == 0 {
                self.report.not_sent += left as u64;
                break;
            }
        }
        Ok(())
    }

    /// Takes what has come in; returns how many packets came back.
    fn receive(&mut self) -> io::Result<u64> {
        let Self { port, report, .. } = self;
        let before = report.back();
        let foreign =
            port.receive(&mut |datagram| match datagram.first().copied().map(MessageType) {
                Some(MessageType::ADVERTISE) => report.advertises += 1,
                Some(MessageType::SOLICIT) => report.reflected += 1,
                _ => report.other += 1,
            })?;
        report.other += foreign;
        Ok(report.back() - before)
    }

    /// Sends packets, at most so many as there is room for; returns how many.
    fn send(&mut self, most: usize) -> io::Result<usize> {
        let Self { port, traffic, report, .. } = self;
        let mut sent = 0;
        while sent < most {
            let number = report.sent;
            let client = ClientIndex(low32(number % u64::from(self.clients)));
            let [_, a, b, c] = low32(number & 0x00ff_ffff).to_be_bytes();
            let outgoing = Outgoing {
                msg_type: MessageType::SOLICIT,
                transaction_id: TransactionId([a, b, c]),
                client,
                identity: &self.identities.identity(client),
                server_id: None,
                na: None,
                pd: None,
                elapsed: 0,
            };
            if !port.send(&mut |buffer| traffic.write(&outgoing, buffer).ok())? {
                break;
            }
            report.sent += 1;
            sent += 1;
        }
        port.flush()?;
        Ok(sent)
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
    fn bursts_go_on_when_nothing_comes_back() {
        let traffic = Traffic::addresses(Choice::InTurn);
        let mut number = 0_u64;
        let mut port = MemoryPort::new(move |datagram: &[u8], reply: &mut [u8]| {
            reply[..datagram.len()].copy_from_slice(datagram);
            number += 1;
            number.is_multiple_of(10).then_some(datagram.len())
        });
        let flow = Flow {
            pace: Pace::Bursts { packets: 10, every: SECOND_NS / 1000 },
            clients: 7,
            seed: 1,
            duration: SECOND_NS / 5,
        };
        let report =
            run(&mut port, &traffic, &flow, &Clock::start(), &AtomicBool::new(false)).unwrap();
        // However the machine is loaded: all that was due was sent or is counted as not sent.
        let due = report.sent + report.not_sent;
        assert!(due >= 2000 && float(due) <= 10.0 * (report.seconds * 1000.0 + 1.0), "{report:?}");
        assert_eq!(report.lost + report.reflected, report.sent, "{report:?}");
        assert_eq!(report.reflected, report.sent / 10, "{report:?}");
    }
}
