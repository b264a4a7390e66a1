//! The clients that the generator plays.
//!
//! A client's identity follows from the seed and its number alone, so a run can be repeated, and a
//! million clients need no memory for their names.

use std::net::Ipv6Addr;

use gemel_wire::IaId;

use crate::number::{index, low32};

/// Length of the DUIDs made here: DUID-LLT, RFC 8415 section 11.2.
pub const DUID_LEN: usize = 14;

/// The number of a client, from 0.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClientIndex(pub u32);

/// What a client sends about itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
    /// DUID-LLT (RFC 8415 section 11.2) over [`Identity::mac`].
    pub duid: [u8; DUID_LEN],
    /// A locally administered unicast address.
    pub mac: [u8; 6],
    /// IAID of the IA_NA.
    pub iaid_na: IaId,
    /// IAID of the IA_PD.
    pub iaid_pd: IaId,
}

/// Makes identities from a seed.
#[derive(Clone, Copy, Debug)]
pub struct Identities {
    key: u32,
    octet: u8,
    time: [u8; 4],
}

impl Identities {
    /// Identities for this seed. Seeds give disjoint sets of DUIDs with overwhelming probability.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let a = splitmix64(seed);
        let b = splitmix64(a);
        let [octet, t0, t1, t2, t3, ..] = b.to_le_bytes();
        Self { key: low32(a), octet, time: [t0, t1, t2, t3] }
    }

    /// The identity of one client. Different numbers give different DUIDs.
    #[inline]
    #[must_use]
    pub fn identity(&self, client: ClientIndex) -> Identity {
        // A bijection of 32 bits: neighbours look unrelated, yet no two clients meet.
        let [m0, m1, m2, m3] = scramble32(client.0 ^ self.key).to_be_bytes();
        let mac = [0x02, self.octet, m0, m1, m2, m3];
        let [t0, t1, t2, t3] = self.time;
        let duid = [0, 1, 0, 1, t0, t1, t2, t3, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]];
        let iaid = scramble32(client.0.wrapping_add(self.key));
        Identity { duid, mac, iaid_na: IaId(iaid), iaid_pd: IaId(iaid ^ 0x5044_0000) }
    }
}

impl Identity {
    /// The client's link-local address, by the modified EUI-64 of its MAC (RFC 4291 appendix A).
    #[must_use]
    pub fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.mac;
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }
}

/// A lease that a client holds, or none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HeldLease {
    /// The address or prefix.
    pub address: Ipv6Addr,
    /// Length of the prefix; 128 for an address, 0 if nothing is held.
    pub prefix_len: u8,
    /// Clock time (ns) until which it is valid; `u64::MAX` for ever.
    pub valid_until: u64,
}

impl HeldLease {
    /// Nothing.
    pub const NONE: Self = Self { address: Ipv6Addr::UNSPECIFIED, prefix_len: 0, valid_until: 0 };

    /// Whether there is a lease and it is still valid.
    #[must_use]
    pub fn is_valid(&self, now: u64) -> bool {
        self.prefix_len != 0 && now < self.valid_until
    }
}

/// What a client holds, and from whom.
#[derive(Clone, Copy, Debug)]
pub struct ClientState {
    /// The address of its IA_NA.
    pub na: HeldLease,
    /// The prefix of its IA_PD.
    pub pd: HeldLease,
    /// Its place in the list of those that hold something and those that do not.
    rank: u32,
    /// Index of the server that granted last.
    pub server: u8,
    /// An exchange of this client is under way.
    pub busy: bool,
}

/// What a client wants to hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// An address.
    pub na: bool,
    /// A prefix.
    pub pd: bool,
}

impl ClientState {
    /// Whether the client holds all of `wanted`, and it is still valid.
    #[inline]
    #[must_use]
    pub fn holds(&self, wanted: Wanted, now: u64) -> bool {
        (!wanted.na || self.na.is_valid(now)) && (!wanted.pd || self.pd.is_valid(now))
    }
}

/// All clients of a run, or those of one generator thread.
#[derive(Debug)]
pub struct Population {
    identities: Identities,
    /// Number of the first client of this part.
    first: u32,
    states: Vec<ClientState>,
    /// All clients: those that hold all that they want stand in front, in no order.
    ranks: Vec<u32>,
    /// How many those are.
    holding: u32,
    cursor: u32,
    /// Clients below this number have been taken by [`Population::take_new`].
    known: u32,
}

impl Population {
    /// `count` clients that hold nothing.
    #[must_use]
    pub fn new(seed: u64, count: u32) -> Self {
        Self::part(seed, 0, count)
    }

    /// `count` of the clients of a larger population, from number `first` on.
    #[must_use]
    pub fn part(seed: u64, first: u32, count: u32) -> Self {
        let fresh = |rank| ClientState {
            na: HeldLease::NONE,
            pd: HeldLease::NONE,
            rank,
            server: 0,
            busy: false,
        };
        Self {
            identities: Identities::new(seed),
            first,
            states: (0..count).map(fresh).collect(),
            ranks: (0..count).collect(),
            holding: 0,
            cursor: 0,
            known: 0,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// The next client that is not busy, in turn; fresh ones until all have been used once, then
    /// they return. Looks at a bounded number, so `None` means that nearly all are busy.
    #[inline]
    pub fn take_next(&mut self) -> Option<ClientIndex> {
        self.take_below(u32::try_from(self.states.len()).unwrap_or(u32::MAX))
    }

    /// A client that has not been taken by this before; `None` when all have.
    pub fn take_new(&mut self) -> Option<ClientIndex> {
        let state = self.states.get_mut(index(self.known))?;
        state.busy = true;
        self.known += 1;
        Some(ClientIndex(self.known - 1))
    }

    /// One of those that [`Population::take_new`] has handed out, picked by a random number, unless
    /// nearly all of them are busy.
    pub fn take_known(&mut self, random: u32) -> Option<ClientIndex> {
        self.cursor = random.checked_rem(self.known)?;
        self.take_below(self.known)
    }

    fn take_below(&mut self, count: u32) -> Option<ClientIndex> {
        for _ in 0..count.min(64) {
            let client = self.cursor;
            self.cursor = if client + 1 >= count { 0 } else { client + 1 };
            let state = &mut self.states[index(client)];
            if !state.busy {
                state.busy = true;
                return Some(ClientIndex(client));
            }
        }
        None
    }

    /// Every client once, in turn, of those that hold something; `None` when all have been asked.
    pub fn take_each_holding(&mut self) -> Option<ClientIndex> {
        loop {
            let state = self.states.get_mut(index(self.known))?;
            self.known += 1;
            if state.rank < self.holding && !state.busy {
                state.busy = true;
                return Some(ClientIndex(self.known - 1));
            }
        }
    }

    /// Lets [`Population::take_new`] and [`Population::take_each_holding`] begin with the first client.
    pub fn rewind(&mut self) {
        self.known = 0;
    }

    /// One of those that hold nothing, picked by a random number. Looks at a bounded number.
    pub fn take_idle(&mut self, random: u32) -> Option<ClientIndex> {
        let idle = low32(self.ranks.len() as u64) - self.holding;
        for step in 0..64 {
            let rank = self.holding + random.wrapping_add(step).checked_rem(idle)?;
            let client = self.ranks[index(rank)];
            let state = &mut self.states[index(client)];
            if !state.busy {
                state.busy = true;
                return Some(ClientIndex(client));
            }
        }
        None
    }

    /// One of those that hold something, picked by a random number, whose leases are still valid. Looks
    /// at a bounded number.
    pub fn take_holding(&mut self, random: u32, now: u64, wanted: Wanted) -> Option<ClientIndex> {
        for step in 0..64 {
            let rank = random.wrapping_add(step).checked_rem(self.holding)?;
            let client = ClientIndex(self.ranks[index(rank)]);
            if !self.states[index(client.0)].holds(wanted, now) {
                self.set_holding(client, false);
            } else if !self.states[index(client.0)].busy {
                self.states[index(client.0)].busy = true;
                return Some(client);
            }
        }
        None
    }

    /// Takes this client unless it is busy or holds nothing.
    pub fn take_if_holding(&mut self, client: ClientIndex, now: u64, wanted: Wanted) -> bool {
        if !self.state(client).holds(wanted, now) {
            self.set_holding(client, false);
            return false;
        }
        let state = &mut self.states[index(client.0)];
        let free = !state.busy && state.rank < self.holding;
        state.busy |= free;
        free
    }

    /// Whether a client was noted as holding all that it wants.
    #[must_use]
    pub fn is_holding(&self, client: ClientIndex) -> bool {
        self.state(client).rank < self.holding
    }

    /// How many clients hold all that they want. Leases that have run out count until that is noticed.
    #[must_use]
    pub fn holding(&self) -> u32 {
        self.holding
    }

    /// Notes whether a client holds all that it wants.
    #[inline]
    pub fn set_holding(&mut self, client: ClientIndex, holds: bool) {
        let rank = self.states[index(client.0)].rank;
        if holds == (rank < self.holding) {
            return;
        }
        // Over the border between the two parts of the list, by changing places with the one beside it.
        let border = if holds { self.holding } else { self.holding - 1 };
        let other = self.ranks[index(border)];
        self.ranks.swap(index(rank), index(border));
        self.states[index(other)].rank = rank;
        self.states[index(client.0)].rank = border;
        self.holding = if holds { border + 1 } else { border };
    }

    /// The identity of a client.
    #[inline]
    #[must_use]
    pub fn identity(&self, client: ClientIndex) -> Identity {
        self.identities.identity(self.number(client))
    }

    /// The number of a client in the whole population, of which this may be a part.
    #[inline]
    #[must_use]
    pub fn number(&self, client: ClientIndex) -> ClientIndex {
        ClientIndex(self.first + client.0)
    }

    /// The state of a client.
    #[inline]
    #[must_use]
    pub fn state(&self, client: ClientIndex) -> &ClientState {
        &self.states[index(client.0)]
    }

    /// The state of a client, to change.
    #[inline]
    pub fn state_mut(&mut self, client: ClientIndex) -> &mut ClientState {
        &mut self.states[index(client.0)]
    }
}

/// A generator of pseudo-random numbers for choices that need no quality (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 32 bits.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        low32(splitmix64(self.0) >> 32)
    }
}

fn splitmix64(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A bijection of 32 bits: odd multiplications and shifted exclusive-ors are invertible.
fn scramble32(value: u32) -> u32 {
    let mut z = value;
    z = (z ^ (z >> 16)).wrapping_mul(0x7feb_352d);
    z = (z ^ (z >> 15)).wrapping_mul(0x846c_a68b);
    z ^ (z >> 16)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn identities_repeat_and_differ() {
        let a = Identities::new(7);
        let duids: HashSet<_> = (0..100_000).map(|i| a.identity(ClientIndex(i)).duid).collect();
        assert_eq!(duids.len(), 100_000);
        assert_eq!(a.identity(ClientIndex(5)), Identities::new(7).identity(ClientIndex(5)));
        let other = Identities::new(8);
        assert!((0..1000).all(|i| !duids.contains(&other.identity(ClientIndex(i)).duid)));
        let mac = a.identity(ClientIndex(9)).mac;
        assert_eq!(mac[0] & 3, 2, "locally administered, unicast");
    }

    #[test]
    fn new_clients_come_once_and_known_ones_at_random() {
        let mut clients = Population::new(1, 3);
        assert_eq!(clients.take_known(5), None);
        assert_eq!(clients.take_new(), Some(ClientIndex(0)));
        assert_eq!(clients.take_known(5), None, "busy");
        clients.state_mut(ClientIndex(0)).busy = false;
        assert_eq!(clients.take_known(5), Some(ClientIndex(0)));
        assert_eq!(clients.take_new(), Some(ClientIndex(1)));
        assert_eq!(clients.take_new(), Some(ClientIndex(2)));
        assert_eq!(clients.take_new(), None);
        for client in 0..3 {
            clients.state_mut(ClientIndex(client)).busy = false;
        }
        let picked: Vec<_> =
            [7, 7, 2].into_iter().map(|n| clients.take_known(n).unwrap().0).collect();
        assert_eq!(picked, [1, 2, 0], "the next one where that is busy");
    }

    #[test]
    fn those_that_hold_something_are_told_apart() {
        let lease = HeldLease { address: Ipv6Addr::LOCALHOST, prefix_len: 128, valid_until: 100 };
        let wanted = Wanted { na: true, pd: false };
        let mut clients = Population::part(1, 10, 4);
        assert_eq!(clients.identity(ClientIndex(0)), Identities::new(1).identity(ClientIndex(10)));
        assert_eq!(clients.take_holding(0, 50, wanted), None);
        for client in [3, 1, 3] {
            clients.state_mut(ClientIndex(client)).na = lease;
            clients.set_holding(ClientIndex(client), true);
        }
        assert_eq!(clients.holding(), 2);
        let mut idle: Vec<_> = (0..2).map(|_| clients.take_idle(5).unwrap().0).collect();
        idle.sort_unstable();
        assert_eq!((idle, clients.take_idle(5)), (vec![0, 2], None));
        let mut held: Vec<_> =
            (0..2).map(|_| clients.take_holding(0, 50, wanted).unwrap().0).collect();
        held.sort_unstable();
        assert_eq!((held, clients.take_holding(0, 50, wanted)), (vec![1, 3], None), "all busy");
        clients.state_mut(ClientIndex(1)).busy = false;
        clients.set_holding(ClientIndex(3), false);
        assert_eq!(clients.take_each_holding(), Some(ClientIndex(1)));
        assert_eq!(clients.take_each_holding(), None);
        clients.state_mut(ClientIndex(1)).busy = false;
        assert_eq!(clients.take_holding(7, 100, wanted), None, "it has run out");
        assert_eq!(clients.holding(), 0);
    }

    #[test]
    fn busy_clients_are_passed_over() {
        let mut clients = Population::new(1, 3);
        assert_eq!(clients.take_next(), Some(ClientIndex(0)));
        assert_eq!(clients.take_next(), Some(ClientIndex(1)));
        assert_eq!(clients.take_next(), Some(ClientIndex(2)));
        assert_eq!(clients.take_next(), None);
        clients.state_mut(ClientIndex(1)).busy = false;
        assert_eq!(clients.take_next(), Some(ClientIndex(1)));
    }
}
