//! The failover connection: an ordered stream in each direction, which may break, or fall silent
//! without breaking.

use std::collections::{BTreeMap, VecDeque};

use crate::clock::{MILLISECOND, Micros};
use crate::rng::Rng;

/// A connection.
pub(crate) type ConnectionId = u64;

/// What travels on a connection.
#[derive(Debug)]
pub(crate) enum Segment {
    /// Whole frames.
    Frames(Vec<u8>),
    /// The sender has closed its end.
    End,
}

#[derive(Debug, Default)]
struct Connection {
    /// By sender.
    pipes: [Pipe; 2],
    /// Broken: nothing arrives any more.
    broken: bool,
}

#[derive(Debug, Default)]
struct Pipe {
    /// When the last segment arrives.
    last: Micros,
    /// Segments that a silent network holds back: TCP sends them again until it gets through.
    stalled: VecDeque<Segment>,
}

/// All connections there ever were, and the network between the servers.
#[derive(Debug)]
pub(crate) struct Wires {
    /// Whether the network loses what this server sends to the other.
    cut: [bool; 2],
    connections: BTreeMap<ConnectionId, Connection>,
    made: ConnectionId,
    delay_max: Micros,
    rng: Rng,
}

impl Wires {
    pub(crate) fn new(delay_max: Micros, rng: Rng) -> Self {
        Self { cut: [false; 2], connections: BTreeMap::new(), made: 0, delay_max, rng }
    }

    /// A connection that both ends will hear of.
    pub(crate) fn open(&mut self) -> ConnectionId {
        self.made += 1;
        self.connections.insert(self.made, Connection::default());
        self.made
    }

    /// Forgets a connection that no server has any more.
    pub(crate) fn forget(&mut self, id: ConnectionId) {
        self.connections.remove(&id);
    }

    /// When a segment that `from` sends now arrives, unless the network holds it back.
    pub(crate) fn arrival(&mut self, id: ConnectionId, from: usize, now: Micros) -> Micros {
        let delay = self.delay();
        let Some(connection) = self.connections.get_mut(&id) else { return now };
        let pipe = &mut connection.pipes[from];
        pipe.last = pipe.last.max(now + delay);
        pipe.last
    }

    /// A segment is about to arrive: it does, or it waits for a better network, or it is lost.
    pub(crate) fn arrive(
        &mut self,
        id: ConnectionId,
        from: usize,
        segment: Segment,
    ) -> Option<Segment> {
        let cut = self.cut[from];
        let connection = self.connections.get_mut(&id).filter(|it| !it.broken)?;
        let pipe = &mut connection.pipes[from];
        if cut || !pipe.stalled.is_empty() {
            pipe.stalled.push_back(segment);
            return None;
        }
        Some(segment)
    }

    /// Breaks a connection.
    pub(crate) fn break_off(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.broken = true;
        }
    }

    /// Whether the network loses what `from` sends.
    pub(crate) fn is_cut(&self, from: usize) -> bool {
        self.cut[from]
    }

    /// The network falls silent for what `from` sends.
    pub(crate) fn cut(&mut self, from: usize) {
        self.cut[from] = true;
    }

    /// The network lets through what `from` sends. Gives the connections on which something has been
    /// held back: it arrives with [`Wires::release`], and what is under way waits behind it.
    pub(crate) fn mend(&mut self, from: usize) -> Vec<ConnectionId> {
        self.cut[from] = false;
        let held = self.connections.iter().filter(|(_, it)| !it.pipes[from].stalled.is_empty());
        held.map(|(id, _)| *id).collect()
    }

    /// What has been held back arrives, unless the network has fallen silent again.
    pub(crate) fn release(&mut self, id: ConnectionId, from: usize) -> Vec<Segment> {
        if self.cut[from] {
            return Vec::new();
        }
        let connection = self.connections.get_mut(&id).filter(|it| !it.broken);
        connection.map_or_else(Vec::new, |it| it.pipes[from].stalled.drain(..).collect())
    }

    /// How long a packet is under way.
    pub(crate) fn delay(&mut self) -> Micros {
        self.rng.range(MILLISECOND / 10, self.delay_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(segment: Option<Segment>) -> Option<u8> {
        match segment? {
            Segment::Frames(octets) => octets.first().copied(),
            Segment::End => None,
        }
    }

    #[test]
    fn order_is_kept_over_a_silence() {
        let mut wires = Wires::new(10 * MILLISECOND, Rng::new(1));
        let id = wires.open();
        let mut last = 0;
        for _ in 0..100 {
            let at = wires.arrival(id, 0, 5);
            assert!(at >= last && at > 5);
            last = at;
        }
        let frame = |octet| Segment::Frames(vec![octet]);
        assert_eq!(octets(wires.arrive(id, 0, frame(1))), Some(1));
        wires.cut(0);
        assert_eq!(octets(wires.arrive(id, 0, frame(2))), None);
        assert_eq!(octets(wires.arrive(id, 1, frame(9))), Some(9), "the other way is open");
        assert_eq!(wires.mend(0), [id]);
        // What was under way when the network was mended does not overtake.
        assert_eq!(octets(wires.arrive(id, 0, frame(3))), None);
        let released = |wires: &mut Wires| -> Vec<_> {
            wires.release(id, 0).into_iter().map(|it| octets(Some(it))).collect()
        };
        assert_eq!(released(&mut wires), [Some(2), Some(3)]);
        assert_eq!(octets(wires.arrive(id, 0, frame(4))), Some(4));
        wires.cut(0);
        assert_eq!(octets(wires.arrive(id, 0, frame(5))), None);
        assert_eq!(wires.mend(0), [id]);
        wires.cut(0);
        assert_eq!(released(&mut wires), [], "silent again");
        wires.break_off(id);
        assert_eq!(octets(wires.arrive(id, 0, frame(3))), None);
    }
}
