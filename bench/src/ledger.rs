//! Remembers every grant: the proof that no lease was in two hands at once.

use std::{io, net::Ipv6Addr};

use hashbrown::{HashTable, hash_table::Entry as Place};

use crate::{
    client::{ClientIndex, Population},
    clock::Clock,
    number::SECOND_NS,
    oracle::Grant,
};

/// A grant on record. Times are clock times in ns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Granted {
    /// The address or prefix.
    pub address: Ipv6Addr,
    /// Length of the prefix, 128 for an address.
    pub prefix_len: u8,
    /// It came in an IA_PD.
    pub delegated: bool,
    /// Who holds it.
    pub client: ClientIndex,
    /// When it was first granted to this client.
    pub since: u64,
    /// Until when it is certainly valid; `u64::MAX` for ever.
    pub valid_until: u64,
    /// The client found it in use by somebody else and declined it.
    pub declined: bool,
}

/// Two clients that hold one lease, or leases that overlap, at the same time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Conflict {
    /// The grant that was there before.
    pub earlier: Granted,
    /// The grant that must not be.
    pub later: Granted,
}

/// What a grant that is no conflict means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Entered {
    /// Nothing speaks against it.
    New,
    /// A client had declined the lease.
    AfterDecline,
}

/// All grants of a run: the latest of each lease.
#[derive(Debug, Default)]
pub struct Ledger {
    grants: HashTable<Granted>,
}

/// When a lease that was asked for at `sent` certainly still holds: the server's clock starts after
/// the request left, and a server that counts in whole seconds may end the lease up to one early.
#[must_use]
pub fn valid_until(sent: u64, valid_lifetime: u32) -> u64 {
    match valid_lifetime {
        gemel_wire::INFINITY => u64::MAX,
        seconds => sent + u64::from(seconds).saturating_sub(1) * SECOND_NS,
    }
}

impl Ledger {
    /// An empty ledger with room for `expected` grants.
    #[must_use]
    pub fn with_capacity(expected: usize) -> Self {
        Self { grants: HashTable::with_capacity(expected) }
    }

    /// Enters a grant in answer to a message that left at `sent`; `now` is the time of the reply.
    ///
    /// # Errors
    /// If another client holds the lease. The new grant replaces the old one all the same, so that
    /// each conflict is reported once.
    pub fn enter(
        &mut self,
        client: ClientIndex,
        delegated: bool,
        grant: &Grant,
        sent: u64,
        now: u64,
    ) -> Result<Entered, Conflict> {
        let granted = Granted {
            address: grant.address,
            prefix_len: grant.prefix_len,
            delegated,
            client,
            since: now,
            valid_until: valid_until(sent, grant.valid),
            declined: false,
        };
        let same = |other: &Granted| {
            other.address == granted.address && other.prefix_len == granted.prefix_len
        };
        match self.grants.entry(hash(granted.address), same, |other| hash(other.address)) {
            Place::Vacant(place) => {
                place.insert(granted);
                Ok(Entered::New)
            }
            Place::Occupied(mut place) => {
                let earlier = *place.get();
                let since = if earlier.client == client { earlier.since } else { now };
                *place.get_mut() = Granted { since, ..granted };
                if earlier.client != client && now < earlier.valid_until {
                    Err(Conflict { earlier, later: granted })
                } else if earlier.declined {
                    Ok(Entered::AfterDecline)
                } else {
                    Ok(Entered::New)
                }
            }
        }
    }

    /// Ends what a client gives back at `now`: from here on it may go to anybody, or to nobody if the
    /// client declined it.
    pub fn end(&mut self, client: ClientIndex, lease: (Ipv6Addr, u8), declined: bool, now: u64) {
        let found = self.grants.find_mut(hash(lease.0), |granted| {
            (granted.address, granted.prefix_len) == lease && granted.client == client
        });
        if let Some(granted) = found {
            granted.valid_until = granted.valid_until.min(now);
            granted.declined = declined;
        }
    }

    /// One ledger of those of several threads, with the clients' numbers in the whole population, and
    /// the conflicts between threads over one and the same lease.
    pub fn join<'a>(
        parts: impl Iterator<Item = (&'a Self, &'a Population)>,
    ) -> (Self, Vec<Conflict>) {
        let mut all = Self::default();
        let mut conflicts = Vec::new();
        for (part, clients) in parts {
            for granted in &part.grants {
                let granted = Granted { client: clients.number(granted.client), ..*granted };
                let same = |other: &Granted| {
                    (other.address, other.prefix_len) == (granted.address, granted.prefix_len)
                };
                match all.grants.entry(hash(granted.address), same, |other| hash(other.address)) {
                    Place::Vacant(place) => {
                        place.insert(granted);
                    }
                    Place::Occupied(mut place) => {
                        let other = *place.get();
                        let (earlier, later) = if other.since <= granted.since {
                            (other, granted)
                        } else {
                            (granted, other)
                        };
                        if later.since < earlier.valid_until {
                            conflicts.push(Conflict { earlier, later });
                        }
                        *place.get_mut() = later;
                    }
                }
            }
        }
        (all, conflicts)
    }

    /// Number of leases on record.
    #[must_use]
    pub fn len(&self) -> usize {
        self.grants.len()
    }

    /// Whether nothing has been granted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// All grants, sorted by address, then by length.
    #[must_use]
    pub fn sorted(&self) -> Vec<Granted> {
        let mut all: Vec<_> = self.grants.iter().copied().collect();
        all.sort_unstable_by_key(|grant| (grant.address, grant.prefix_len));
        all
    }

    /// Looks for different leases of different clients that overlap in space and time: a prefix
    /// within a prefix, an address within a delegated prefix.
    #[must_use]
    pub fn overlaps(&self) -> Vec<Conflict> {
        let mut found = Vec::new();
        // Sorted this way, what encloses a lease stands before it; the stack holds the prefixes
        // around the current place.
        let mut around: Vec<Granted> = Vec::new();
        for grant in self.sorted() {
            while around.last().is_some_and(|outer| !contains(outer, grant.address)) {
                around.pop();
            }
            for outer in &around {
                let together = outer.since < grant.valid_until && grant.since < outer.valid_until;
                if together && outer.client != grant.client {
                    let (earlier, later) =
                        if outer.since <= grant.since { (*outer, grant) } else { (grant, *outer) };
                    found.push(Conflict { earlier, later });
                }
            }
            around.push(grant);
        }
        found
    }

    /// Writes one line per grant, sorted by lease: JSON objects, or CSV with a heading.
    ///
    /// # Errors
    /// Of the writer.
    pub fn write(
        &self,
        out: &mut impl io::Write,
        csv: bool,
        clients: &Population,
        clock: &Clock,
    ) -> io::Result<()> {
        if csv {
            writeln!(out, "client,duid,iaid,kind,lease,granted_at,valid_until")?;
        }
        for grant in self.sorted() {
            let identity = clients.identity(grant.client);
            let duid = hex(&identity.duid);
            let (kind, iaid) =
                if grant.delegated { ("pd", identity.iaid_pd) } else { ("na", identity.iaid_na) };
            let lease = Lease(&grant);
            let since = clock.unix_seconds(grant.since);
            // Infinity has no date: null, or an empty field.
            let until = (grant.valid_until != u64::MAX)
                .then(|| clock.unix_seconds(grant.valid_until).to_string());
            let (client, iaid) = (grant.client.0, iaid.0);
            if csv {
                let until = until.unwrap_or_default();
                writeln!(out, "{client},{duid},{iaid},{kind},{lease},{since},{until}")?;
            } else {
                let until = until.as_deref().unwrap_or("null");
                writeln!(
                    out,
                    "{{\"client\":{client},\"duid\":\"{duid}\",\"iaid\":{iaid},\"kind\":\"{kind}\",\
                     \"lease\":\"{lease}\",\"granted_at\":{since},\"valid_until\":{until}}}"
                )?;
            }
        }
        Ok(())
    }
}

/// Prints an address, or a prefix with its length.
struct Lease<'a>(&'a Granted);

impl std::fmt::Display for Lease<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.delegated {
            write!(f, "{}/{}", self.0.address, self.0.prefix_len)
        } else {
            write!(f, "{}", self.0.address)
        }
    }
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (earlier, later) = (&self.earlier, &self.later);
        write!(
            f,
            "{} went to client {} while {} of client {} was valid",
            Lease(later),
            later.client.0,
            Lease(earlier),
            earlier.client.0
        )
    }
}

/// Lower-case hexadecimal without separators.
#[must_use]
pub fn hex(octets: &[u8]) -> String {
    use std::fmt::Write;
    octets.iter().fold(String::with_capacity(octets.len() * 2), |mut text, octet| {
        let _ = write!(text, "{octet:02x}"); // a String takes everything
        text
    })
}

fn contains(outer: &Granted, address: Ipv6Addr) -> bool {
    let host_bits = u128::MAX.checked_shr(u32::from(outer.prefix_len)).unwrap_or(0);
    u128::from(outer.address) & !host_bits == u128::from(address) & !host_bits
}

/// Addresses of a pool differ in few bits; two rounds of multiply and shift spread them. Servers
/// under test do not choose addresses to slow the generator down.
#[allow(clippy::cast_possible_truncation)] // the halves of the address
fn hash(address: Ipv6Addr) -> u64 {
    let bits = u128::from(address);
    let mut z = (bits as u64) ^ ((bits >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    z ^ (z >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ClientIndex = ClientIndex(0);
    const B: ClientIndex = ClientIndex(1);

    fn grant(address: &str, prefix_len: u8, valid: u32) -> Grant {
        Grant { address: address.parse().unwrap(), prefix_len, preferred: valid, valid }
    }

    #[test]
    fn one_lease_for_two_clients_is_a_conflict() {
        let mut ledger = Ledger::default();
        let lease = grant("2001:db8::1", 128, 60);
        ledger.enter(A, false, &lease, 0, 10).unwrap();
        ledger.enter(A, false, &lease, 20, 30).unwrap();
        let conflict = ledger.enter(B, false, &lease, 40, 50).unwrap_err();
        assert_eq!((conflict.earlier.client, conflict.later.client), (A, B));
        assert_eq!(conflict.earlier.since, 10, "a renewal keeps the beginning");
        assert_eq!(ledger.len(), 1);
    }

    #[test]
    fn a_lease_that_ran_out_may_go_to_another() {
        let mut ledger = Ledger::default();
        let lease = grant("2001:db8::1", 128, 60);
        ledger.enter(A, false, &lease, 0, 1).unwrap();
        assert!(ledger.enter(B, false, &lease, 1, 58 * SECOND_NS).is_err(), "still A's");
        let mut ledger = Ledger::default();
        ledger.enter(A, false, &lease, 0, 1).unwrap();
        ledger.enter(B, false, &lease, 1, 59 * SECOND_NS).unwrap();
        let for_ever = grant("2001:db8::2", 128, u32::MAX);
        ledger.enter(A, false, &for_ever, 0, 1).unwrap();
        assert!(ledger.enter(B, false, &for_ever, 1, u64::MAX - 1).is_err());
    }

    #[test]
    fn overlaps_are_found_whatever_the_lengths() {
        let mut ledger = Ledger::default();
        ledger.enter(A, true, &grant("2001:db8:0:100::", 56, 60), 0, 1).unwrap();
        ledger.enter(A, true, &grant("2001:db8:0:200::", 56, 60), 0, 1).unwrap();
        assert!(ledger.overlaps().is_empty());
        ledger.enter(B, true, &grant("2001:db8:0:1f0::", 60, 60), 0, 2).unwrap();
        ledger.enter(B, false, &grant("2001:db8:0:2ff::5", 128, 60), 0, 2).unwrap();
        ledger.enter(A, false, &grant("2001:db8:0:2ff::6", 128, 60), 0, 2).unwrap();
        let found: Vec<_> = ledger.overlaps().iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "2001:db8:0:1f0::/60 went to client 1 while 2001:db8:0:100::/56 of client 0 was valid",
                "2001:db8:0:2ff::5 went to client 1 while 2001:db8:0:200::/56 of client 0 was valid",
            ]
        );
    }

    #[test]
    fn what_is_given_back_may_go_to_another() {
        let mut ledger = Ledger::default();
        let lease = grant("2001:db8::1", 128, 60);
        ledger.enter(A, false, &lease, 0, 10).unwrap();
        ledger.end(B, (lease.address, 128), false, 15);
        assert!(ledger.enter(B, false, &lease, 16, 17).is_err(), "not B's to give back");
        ledger.end(B, (lease.address, 128), false, 20);
        assert_eq!(ledger.enter(A, false, &lease, 21, 22), Ok(Entered::New));
        ledger.end(A, (lease.address, 128), true, 30);
        assert_eq!(ledger.enter(B, false, &lease, 31, 32), Ok(Entered::AfterDecline));
    }

    #[test]
    fn threads_that_were_given_one_lease_are_found() {
        let parts = [Population::part(1, 0, 5), Population::part(1, 5, 5)];
        let (mut first, mut second) = (Ledger::default(), Ledger::default());
        first.enter(A, false, &grant("2001:db8::1", 128, 60), 0, 10).unwrap();
        first.enter(A, false, &grant("2001:db8::2", 128, 60), 0, 10).unwrap();
        second.enter(B, false, &grant("2001:db8::1", 128, 60), 0, 20).unwrap();
        second.enter(B, true, &grant("2001:db8:0:100::", 56, 60), 0, 20).unwrap();
        let (all, conflicts) =
            Ledger::join([(&first, &parts[0]), (&second, &parts[1])].into_iter());
        assert_eq!(all.len(), 3);
        let text: Vec<_> = conflicts.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["2001:db8::1 went to client 6 while 2001:db8::1 of client 0 was valid"]);
        // What was given back before is none.
        first.end(A, ("2001:db8::1".parse().unwrap(), 128), false, 15);
        let (_, conflicts) = Ledger::join([(&first, &parts[0]), (&second, &parts[1])].into_iter());
        assert_eq!(conflicts, []);
    }

    #[test]
    fn grants_are_written_for_machines() {
        let clients = Population::new(1, 2);
        let clock = Clock::start();
        let mut ledger = Ledger::default();
        ledger.enter(B, true, &grant("2001:db8:0:100::", 56, u32::MAX), 0, 1).unwrap();
        ledger.enter(A, false, &grant("2001:db8::1", 128, 60), 0, 1).unwrap();
        let mut json = Vec::new();
        ledger.write(&mut json, false, &clients, &clock).unwrap();
        let lines: Vec<serde_json::Value> = String::from_utf8(json)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["lease"], "2001:db8::1");
        assert_eq!(lines[0]["duid"], hex(&clients.identity(A).duid));
        assert_eq!(lines[1]["lease"], "2001:db8:0:100::/56");
        assert!(lines[1]["valid_until"].is_null());
        let mut csv = Vec::new();
        ledger.write(&mut csv, true, &clients, &clock).unwrap();
        let csv = String::from_utf8(csv).unwrap();
        assert_eq!(csv.lines().count(), 3);
        assert!(csv.lines().all(|line| line.split(',').count() == 7), "{csv}");
    }
}
