//! What stays from run to run: clients, grants, servers, violations.

use gemel_wire::Duid;

use super::slots::Used;
use crate::{
    client::{ClientIndex, Population},
    ledger::Ledger,
    number::index,
    oracle::Violation,
};

/// How many violations are described in words; all are counted.
const DESCRIBED_MAX: usize = 32;
/// More servers than this share the last place.
const SERVERS_MAX: usize = 16;

/// A server that has answered.
#[derive(Clone, Copy, Debug)]
pub struct ServerSeen {
    /// Its DUID.
    pub duid: Duid,
    /// Valid ADVERTISE from it.
    pub advertises: u64,
    /// Valid REPLY from it.
    pub replies: u64,
}

/// A violation with what is needed to look into it.
#[derive(Clone, Debug)]
pub struct Described {
    /// Which rule.
    pub violation: Violation,
    /// When, ns since the clock's start.
    pub at: u64,
    /// The client, if it is known.
    pub client: Option<ClientIndex>,
    /// In words, with the datagram in hexadecimal.
    pub detail: String,
}

/// What stays from run to run against the same server: the clients and what they were given.
#[derive(Debug)]
pub struct World {
    /// The clients.
    pub clients: Population,
    /// All grants.
    pub ledger: Ledger,
    /// The servers that have answered.
    pub servers: Vec<ServerSeen>,
    /// Violations by kind.
    violations: [u64; Violation::ALL.len()],
    /// The first violations in words.
    pub described: Vec<Described>,
    /// The transaction ids of the runs so far.
    pub(super) used: Option<Used>,
}

impl World {
    /// `clients` clients made from `seed`, of which each may hold `leases` leases.
    #[must_use]
    pub fn new(seed: u64, clients: u32, leases: u32) -> Self {
        Self::part(seed, 0, clients, leases)
    }

    /// The part of one generator thread: `clients` clients from number `first` on.
    #[must_use]
    pub fn part(seed: u64, first: u32, clients: u32, leases: u32) -> Self {
        Self {
            clients: Population::part(seed, first, clients),
            ledger: Ledger::with_capacity(index(clients.saturating_mul(leases))),
            servers: Vec::with_capacity(SERVERS_MAX),
            violations: [0; Violation::ALL.len()],
            described: Vec::new(),
            used: None,
        }
    }

    /// How often a rule was broken.
    #[must_use]
    pub fn violations(&self, kind: Violation) -> u64 {
        self.violations[kind as usize]
    }

    /// All violations together.
    #[must_use]
    pub fn violations_total(&self) -> u64 {
        self.violations.iter().sum()
    }

    /// What several generator threads have found, with the clients' numbers in the whole population;
    /// what two threads were given of one lease is counted as duplicates. The clients themselves stay
    /// with their parts.
    #[must_use]
    pub fn join(parts: &[Self], seed: u64, now: u64) -> Self {
        let mut all = Self::part(seed, 0, 0, 0);
        for part in parts {
            for (mine, theirs) in all.violations.iter_mut().zip(part.violations) {
                *mine += theirs;
            }
            for described in &part.described {
                let client = described.client.map(|client| part.clients.number(client));
                all.described.push(Described { client, ..described.clone() });
            }
            for server in &part.servers {
                let place = usize::from(all.server(server.duid.as_bytes()));
                if let Some(mine) = all.servers.get_mut(place) {
                    mine.advertises += server.advertises;
                    mine.replies += server.replies;
                }
            }
        }
        all.described.sort_by_key(|described| described.at);
        all.described.truncate(DESCRIBED_MAX);
        let (ledger, conflicts) =
            Ledger::join(parts.iter().map(|part| (&part.ledger, &part.clients)));
        all.ledger = ledger;
        for conflict in conflicts {
            let client = Some(conflict.later.client);
            all.report(Violation::Duplicate, now, client, || conflict.to_string());
        }
        all
    }

    /// Searches the ledger for leases of different clients that overlap, and counts each as a
    /// duplicate. To be called once, when all is done.
    pub fn audit(&mut self, now: u64) {
        for conflict in self.ledger.overlaps() {
            let client = Some(conflict.later.client);
            self.report(Violation::Duplicate, now, client, || conflict.to_string());
        }
    }

    pub(super) fn report(
        &mut self,
        violation: Violation,
        at: u64,
        client: Option<ClientIndex>,
        detail: impl FnOnce() -> String,
    ) {
        self.violations[violation as usize] += 1;
        if self.described.len() < DESCRIBED_MAX {
            self.described.push(Described { violation, at, client, detail: detail() });
        }
    }

    pub(super) fn server(&mut self, duid: &[u8]) -> u8 {
        let place = self.servers.iter().position(|server| server.duid.as_bytes() == duid);
        let place = place.unwrap_or_else(|| {
            if let Ok(duid) = Duid::new(duid)
                && self.servers.len() < SERVERS_MAX
            {
                self.servers.push(ServerSeen { duid, advertises: 0, replies: 0 });
            }
            self.servers.len() - 1
        });
        u8::try_from(place).unwrap_or(u8::MAX)
    }
}
