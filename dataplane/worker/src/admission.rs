//! Which messages are served when there are more than can be.
//!
//! A client that has a lease loses its connection when nobody extends it; one that has none asks
//! again a moment later. So under overload Solicits are dropped before they cost anything, and all
//! else is served. The queue of received packets shows overload: from half full on Solicits are
//! dropped, until it is nearly empty. Taking a Solicit from the queue and dropping it costs a
//! fraction of an answer, so the queue does not overflow with Renews in it.

use crate::counters::Shed;

/// How many packets wait to be received.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Backlog {
    /// Packets that wait.
    pub waiting: u32,
    /// Packets that can wait before some are lost.
    pub capacity: u32,
}

/// Whether Solicits are served.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    backlog_high: bool,
    held_high: bool,
}

/// A change of what is served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    Entered,
    Left,
}

impl Admission {
    /// Looks at the queue of packets and at the replies that are held, at most `held_max`.
    pub(crate) fn look(
        &mut self,
        backlog: Backlog,
        held: usize,
        held_max: usize,
    ) -> Option<Change> {
        let before = self.sheds();
        let Backlog { waiting, capacity } = backlog;
        self.backlog_high =
            if self.backlog_high { waiting > capacity / 8 } else { waiting > capacity / 2 };
        self.held_high = if self.held_high { held > held_max / 4 } else { held > held_max / 2 };
        match (before.is_some(), self.sheds().is_some()) {
            (false, true) => Some(Change::Entered),
            (true, false) => Some(Change::Left),
            _ => None,
        }
    }

    /// Why Solicits are dropped, if they are.
    pub(crate) fn sheds(&self) -> Option<Shed> {
        if self.held_high {
            Some(Shed::SolicitHeld)
        } else if self.backlog_high {
            Some(Shed::SolicitBacklog)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(waiting: u32) -> Backlog {
        Backlog { waiting, capacity: 2048 }
    }

    #[test]
    fn it_sheds_from_half_full_to_an_eighth() {
        let mut admission = Admission::default();
        assert_eq!(admission.look(backlog(1024), 0, 100), None);
        assert_eq!(admission.sheds(), None);
        assert_eq!(admission.look(backlog(1025), 0, 100), Some(Change::Entered));
        assert_eq!(admission.look(backlog(257), 0, 100), None);
        assert_eq!(admission.sheds(), Some(Shed::SolicitBacklog));
        assert_eq!(admission.look(backlog(256), 0, 100), Some(Change::Left));
        assert_eq!(admission.sheds(), None);
    }

    #[test]
    fn held_replies_are_a_cause_of_their_own() {
        let mut admission = Admission::default();
        assert_eq!(admission.look(backlog(0), 51, 100), Some(Change::Entered));
        assert_eq!(admission.sheds(), Some(Shed::SolicitHeld));
        assert_eq!(admission.look(backlog(2000), 20, 100), None, "one overload after the other");
        assert_eq!(admission.sheds(), Some(Shed::SolicitBacklog));
        assert_eq!(admission.look(backlog(0), 0, 100), Some(Change::Left));
    }

    #[test]
    fn a_port_that_knows_nothing_never_sheds() {
        let mut admission = Admission::default();
        assert_eq!(admission.look(Backlog::default(), 0, 0), None);
        assert_eq!(admission.sheds(), None);
    }
}
