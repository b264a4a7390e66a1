//! What must never happen, watched from outside of the servers.

use std::collections::BTreeMap;
use std::fmt;

use gemel_lease::{AbsoluteTime, Lease};

use crate::clock::{Micros, display};

/// What has been found wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// When.
    pub at: Micros,
    /// The rule.
    pub rule: Rule,
    /// How.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", display(self.at).trim_start(), self.rule, self.what)
    }
}

/// The rules that are checked.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Rule {
    /// No lease is valid at two clients at once.
    OneHolder,
    /// The fundamental relationship of section 4.4.
    Mclt,
    /// A client keeps the lease that a server which hears it knows of.
    Continuity,
    /// Both servers agree when all is well again.
    Agreement,
    /// Both servers come back to NORMAL when all is well again.
    Recovery,
    /// BNDREPLY and STATE tell what is on stable storage (sections 6.3 and 7.5.2).
    Durability,
    /// Who may answer what in which state (section 8).
    Responsiveness,
    /// New leases come from the server's own part (section 4.2).
    Ownership,
    /// A server serves beside one in PARTNER-DOWN state, and nobody has been careless (section
    /// 8.4).
    Exclusion,
    /// The program gave up.
    Panic,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneHolder => "two clients hold one lease",
            Self::Mclt => "beyond the MCLT",
            Self::Continuity => "a client lost its lease",
            Self::Agreement => "the servers disagree",
            Self::Recovery => "no way back to NORMAL",
            Self::Durability => "told before it was stored",
            Self::Responsiveness => "answered against the state",
            Self::Ownership => "not this server's to give",
            Self::Exclusion => "serves beside a partner in PARTNER-DOWN",
            Self::Panic => "panic",
        })
    }
}

/// Whose a lease is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Owner {
    pub(crate) client: usize,
    pub(crate) iaid: u32,
}

impl Owner {
    /// The client that has this DUID, if it is one of ours.
    pub(crate) fn from_duid(duid: &[u8], iaid: u32) -> Option<Self> {
        let [0, 3, 0, 1, 2, 0, 0, 1, n0, n1] = duid else { return None };
        Some(Self { client: usize::from(u16::from_be_bytes([*n0, *n1])), iaid })
    }
}

/// A client's right to a lease.
#[derive(Clone, Copy, Debug)]
struct Holding {
    client: usize,
    until: Micros,
}

/// What a server has made of a RELEASE or DECLINE.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct GivenBack {
    /// When.
    pub(crate) at: Micros,
    /// The same by the server's clock.
    pub(crate) wall: AbsoluteTime,
    /// Stamp of the update, while the process lives that made it.
    pub(crate) stamp: u64,
}

/// What the checkers remember.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    holdings: BTreeMap<Lease, Vec<Holding>>,
    /// By server: the partner lifetime that the partner has acknowledged, as BNDREPLYs that arrived
    /// say, and BNDUPDs with an expiration-time.
    acked: [BTreeMap<Lease, (Owner, AbsoluteTime)>; 2],
    /// By server: until when it knows, on stable storage, that a client has a lease.
    known: [BTreeMap<Lease, (Owner, AbsoluteTime)>; 2],
    /// By server: who gave a lease back to it.
    given_back: [BTreeMap<Lease, (Owner, GivenBack)>; 2],
    /// By server: when a lease was pardoned.
    pardoned: BTreeMap<(usize, Lease), Micros>,
    /// Why nothing can be promised to the clients any more.
    pub(crate) loose: Option<&'static str>,
}

impl Checks {
    /// A client has been given a lease; who else has it for longer than `slack` from now.
    pub(crate) fn hold(
        &mut self,
        client: usize,
        lease: Lease,
        until: Micros,
        now: Micros,
        slack: Micros,
    ) -> Option<usize> {
        let holdings = self.holdings.entry(lease).or_default();
        holdings.retain(|it| it.client != client && it.until > now);
        holdings.push(Holding { client, until });
        if until <= now + slack {
            return None;
        }
        let other = |it: &&Holding| it.client != client && it.until > now + slack;
        holdings.iter().find(other).map(|it| it.client)
    }

    /// A client does not use the lease any more.
    pub(crate) fn let_go(&mut self, client: usize, lease: Lease) {
        if let Some(holdings) = self.holdings.get_mut(&lease) {
            holdings.retain(|it| it.client != client);
        }
    }

    /// Whoever has the lease may lose it, also who has it in an answer of this server's that is
    /// under way.
    pub(crate) fn pardon(&mut self, node: usize, lease: Lease, now: Micros) {
        self.holdings.remove(&lease);
        self.pardoned.insert((node, lease), now);
    }

    /// A client has heard of a lease what the server said at `made`.
    pub(crate) fn pardon_heard(&mut self, client: usize, node: usize, lease: Lease, made: Micros) {
        if self.pardoned.get(&(node, lease)).is_some_and(|at| made <= *at) {
            self.let_go(client, lease);
        }
    }

    /// A client's right to a lease, in virtual time.
    pub(crate) fn held_until(&self, client: usize, lease: Lease) -> Option<Micros> {
        let holdings = self.holdings.get(&lease)?;
        holdings.iter().find(|it| it.client == client).map(|it| it.until)
    }

    /// The partner has acknowledged a lifetime to this server.
    pub(crate) fn acknowledged(
        &mut self,
        node: usize,
        lease: Lease,
        owner: Owner,
        lifetime: AbsoluteTime,
    ) {
        let entry = self.acked[node].entry(lease).or_insert((owner, lifetime));
        *entry = if entry.0 == owner { (owner, entry.1.max(lifetime)) } else { (owner, lifetime) };
    }

    /// Both servers agree that a lease has ended: what was acknowledged of it counts no more.
    pub(crate) fn ended(&mut self, node: usize, lease: Lease) {
        self.acked[node].remove(&lease);
    }

    /// What the partner has acknowledged to this server.
    pub(crate) fn acked(&self, node: usize, lease: Lease, owner: Owner) -> AbsoluteTime {
        self.acked[node]
            .get(&lease)
            .filter(|(of, _)| *of == owner)
            .map_or(AbsoluteTime::ZERO, |(_, lifetime)| *lifetime)
    }

    /// The server has it on stable storage that the client has the lease until then.
    pub(crate) fn knows(&mut self, node: usize, lease: Lease, owner: Owner, until: AbsoluteTime) {
        self.known[node].insert(lease, (owner, until));
    }

    /// The server has heard that the client does not have the lease any more.
    pub(crate) fn unknown(&mut self, node: usize, lease: Lease, owner: Owner, back: GivenBack) {
        self.given_back[node].insert(lease, (owner, back));
        self.forget_owner(node, lease, owner);
    }

    fn forget_owner(&mut self, node: usize, lease: Lease, owner: Owner) {
        if self.known[node].get(&lease).is_some_and(|(of, _)| *of == owner) {
            self.known[node].remove(&lease);
        }
    }

    /// When the client gave the lease back: what was said or made before is stored in its turn, but
    /// it is not what the server knows.
    pub(crate) fn given_back(&self, node: usize, lease: Lease, owner: Owner) -> GivenBack {
        let found = self.given_back[node].get(&lease).filter(|(of, _)| *of == owner);
        found.map(|(_, back)| *back).unwrap_or_default()
    }

    /// The server is a new process: what was not stored has not been.
    pub(crate) fn restarted(&mut self, node: usize) {
        self.given_back[node].values_mut().for_each(|(_, back)| back.stamp = 0);
    }

    /// The server gives the client a lease that the client has given back at the other one before,
    /// and by their clocks it was not before: then nobody can tell which of the two counts (section
    /// 7.1). Whether it is so.
    pub(crate) fn is_blurred(
        &mut self,
        node: usize,
        lease: Lease,
        owner: Owner,
        wall: AbsoluteTime,
        now: Micros,
    ) -> bool {
        let back = self.given_back(1 - node, lease, owner);
        let is_blurred = back != GivenBack::default() && wall <= back.wall;
        if is_blurred {
            self.forget_owner(node, lease, owner);
            self.pardoned.insert((node, lease), now);
        }
        is_blurred
    }

    /// Both servers agree that a lease has ended: unless a client still has it, which would be
    /// wrong, the server knows nothing of it any more.
    pub(crate) fn known_ended(&mut self, node: usize, lease: Lease, now: Micros) {
        if let Some((owner, _)) = self.known[node].get(&lease)
            && self.held_until(owner.client, lease).is_none_or(|until| until <= now)
        {
            self.known[node].remove(&lease);
        }
    }

    /// Until when the server knows of the client's lease.
    pub(crate) fn known(&self, node: usize, lease: Lease, owner: Owner) -> AbsoluteTime {
        self.known[node]
            .get(&lease)
            .filter(|(of, _)| *of == owner)
            .map_or(AbsoluteTime::ZERO, |(_, until)| *until)
    }

    /// The server's disk is lost.
    pub(crate) fn forget(&mut self, node: usize) {
        self.known[node].clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_holders_are_noticed() {
        let mut checks = Checks::default();
        let lease = Lease::address(5.into());
        assert_eq!(checks.hold(1, lease, 100, 0, 2), None);
        assert_eq!(checks.hold(1, lease, 110, 0, 2), None, "extended");
        assert_eq!(checks.hold(2, lease, 200, 108, 2), None, "about to end");
        assert_eq!(checks.hold(3, lease, 200, 108, 2), Some(2));
        checks.let_go(2, lease);
        checks.let_go(3, lease);
        assert_eq!(checks.hold(4, lease, 300, 109, 0), Some(1));
        assert_eq!(checks.held_until(4, lease), Some(300));
    }

    #[test]
    fn what_was_given_back_is_remembered() {
        let mut checks = Checks::default();
        let lease = Lease::address(5.into());
        let owner = |client| Owner { client, iaid: 1 };
        let back = GivenBack { at: 20, wall: AbsoluteTime(40), stamp: 7 };
        checks.knows(0, lease, owner(1), AbsoluteTime(50));
        checks.unknown(0, lease, owner(1), back);
        assert_eq!(checks.known(0, lease, owner(1)), AbsoluteTime::ZERO);
        assert_eq!(checks.given_back(0, lease, owner(1)), back);
        assert_eq!(checks.given_back(0, lease, owner(2)), GivenBack::default());
        assert_eq!(checks.given_back(1, lease, owner(1)), GivenBack::default());
        checks.restarted(0);
        assert_eq!(checks.given_back(0, lease, owner(1)), GivenBack { stamp: 0, ..back });
    }

    #[test]
    fn what_clocks_cannot_tell_is_pardoned() {
        let mut checks = Checks::default();
        let lease = Lease::address(5.into());
        let owner = |client| Owner { client, iaid: 1 };
        let back = GivenBack { at: 20, wall: AbsoluteTime(40), stamp: 7 };
        checks.unknown(0, lease, owner(1), back);
        checks.knows(1, lease, owner(1), AbsoluteTime(50));
        for (node, client, wall) in [(0, 1, 40), (1, 2, 40), (1, 1, 41)] {
            assert!(!checks.is_blurred(node, lease, owner(client), AbsoluteTime(wall), 30));
        }
        assert_eq!(checks.known(1, lease, owner(1)), AbsoluteTime(50));
        assert!(checks.is_blurred(1, lease, owner(1), AbsoluteTime(40), 30));
        assert_eq!(checks.known(1, lease, owner(1)), AbsoluteTime::ZERO);
        checks.hold(1, lease, 100, 35, 0);
        checks.pardon_heard(1, 1, lease, 30);
        assert_eq!(checks.held_until(1, lease), None);
    }

    #[test]
    fn a_pardon_reaches_answers_under_way() {
        let mut checks = Checks::default();
        let lease = Lease::address(5.into());
        checks.pardon(1, lease, 50);
        for (node, made, other) in [(1, 50, None), (1, 51, Some(1)), (0, 50, Some(1))] {
            checks.hold(1, lease, 100, 60, 0);
            checks.pardon_heard(1, node, lease, made);
            assert_eq!(checks.hold(2, lease, 100, 60, 0), other, "{node} {made}");
            checks.let_go(1, lease);
            checks.let_go(2, lease);
        }
    }

    #[test]
    fn another_client_begins_anew() {
        let mut checks = Checks::default();
        let lease = Lease::address(5.into());
        let owner = |client| Owner { client, iaid: 1 };
        checks.acknowledged(0, lease, owner(1), AbsoluteTime(50));
        checks.acknowledged(0, lease, owner(1), AbsoluteTime(40));
        assert_eq!(checks.acked(0, lease, owner(1)), AbsoluteTime(50));
        assert_eq!(checks.acked(1, lease, owner(1)), AbsoluteTime::ZERO);
        checks.acknowledged(0, lease, owner(2), AbsoluteTime(45));
        assert_eq!(checks.acked(0, lease, owner(1)), AbsoluteTime::ZERO);
        checks.ended(0, lease);
        assert_eq!(checks.acked(0, lease, owner(2)), AbsoluteTime::ZERO);
    }
}
