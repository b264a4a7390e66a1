//! Which client begins the next exchange, and with what.

use std::{collections::VecDeque, fmt, str::FromStr};

use super::slots::Stage;
use crate::{
    client::{ClientIndex, Population, Random, Wanted},
    number::{low32, whole},
};

/// How clients are picked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Choice {
    /// All in turn.
    #[default]
    InTurn,
    /// This share of the exchanges, 0 to 1, goes to clients that have been there before; the others go
    /// to new ones as long as there are any.
    Returning(f64),
    /// Each one once, from the first on.
    Fresh,
    /// Each one that holds a lease once, from the first on: it renews.
    Holders,
    /// At random, with a random kind of exchange.
    Mix(Shares),
    /// New clients, and as many of those that have been there longest leave, so that about this many
    /// hold a lease.
    Churn {
        /// How many are to hold one.
        held: u32,
    },
}

/// Kinds of exchanges.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// SOLICIT of a client that holds nothing.
    New,
    /// RENEW.
    Renew,
    /// REBIND.
    Rebind,
    /// RELEASE.
    Release,
    /// DECLINE.
    Decline,
    /// CONFIRM.
    Confirm,
    /// INFORMATION-REQUEST.
    Inform,
}

impl Kind {
    /// All, in order.
    pub const ALL: [Self; 7] = [
        Self::New,
        Self::Renew,
        Self::Rebind,
        Self::Release,
        Self::Decline,
        Self::Confirm,
        Self::Inform,
    ];

    /// The name on the command line and in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Renew => "renew",
            Self::Rebind => "rebind",
            Self::Release => "release",
            Self::Decline => "decline",
            Self::Confirm => "confirm",
            Self::Inform => "inform",
        }
    }

    fn stage(self) -> Stage {
        match self {
            Self::New => Stage::Solicit,
            Self::Renew => Stage::Renew,
            Self::Rebind => Stage::Rebind,
            Self::Release => Stage::Release,
            Self::Decline => Stage::Decline,
            Self::Confirm => Stage::Confirm,
            Self::Inform => Stage::Inform,
        }
    }
}

/// How often each kind of exchange comes, as parts of the whole: `new=40,renew=50,release=10`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares([f64; Kind::ALL.len()]);

impl Shares {
    /// The share of a kind, 0 to 1.
    #[must_use]
    pub fn of(&self, kind: Kind) -> f64 {
        self.0[kind as usize] / self.0.iter().sum::<f64>()
    }

    fn pick(&self, random: u32) -> Kind {
        let mut left = f64::from(random) / 4_294_967_296.0 * self.0.iter().sum::<f64>();
        for kind in Kind::ALL {
            left -= self.0[kind as usize];
            if left < 0.0 {
                return kind;
            }
        }
        Kind::New
    }
}

impl FromStr for Shares {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut shares = [0.0; Kind::ALL.len()];
        for part in text.split(',') {
            let (name, value) =
                part.split_once('=').ok_or_else(|| format!("{part:?}: write it as renew=50"))?;
            let kind =
                Kind::ALL.iter().find(|kind| kind.as_str() == name.trim()).ok_or_else(|| {
                    let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
                    format!("{name:?} is none of {}", known.join(", "))
                })?;
            let value: f64 = value
                .trim()
                .parse()
                .ok()
                .filter(|value: &f64| (0.0..=1e9).contains(value))
                .ok_or_else(|| format!("{value:?} is no share"))?;
            shares[*kind as usize] += value;
        }
        if shares.iter().sum::<f64>() > 0.0 {
            Ok(Self(shares))
        } else {
            Err("all shares are 0".into())
        }
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for kind in Kind::ALL {
            if self.0[kind as usize] > 0.0 {
                write!(f, "{comma}{}={}", kind.as_str(), self.0[kind as usize])?;
                comma = ",";
            }
        }
        Ok(())
    }
}

/// Picks clients.
#[derive(Debug)]
pub(super) struct Chooser {
    choice: Choice,
    wanted: Wanted,
    renew_threshold: u64,
    /// With [`Choice::Churn`]: those that hold something, the longest first.
    stays: VecDeque<u32>,
    /// With [`Choice::Churn`]: clients that are getting a lease.
    coming: u32,
}

impl Chooser {
    pub(super) fn new(
        choice: Choice,
        renew_share: f64,
        wanted: Wanted,
        clients: &mut Population,
    ) -> Self {
        let mut stays = VecDeque::new();
        match choice {
            Choice::Churn { .. } => {
                let count = low32(clients.len() as u64);
                stays.extend(
                    (0..count)
                        .filter(|client| clients.state(ClientIndex(*client)).holds(wanted, 0)),
                );
            }
            Choice::Fresh | Choice::Holders => clients.rewind(),
            _ => {}
        }
        Self { choice, wanted, renew_threshold: threshold(renew_share), stays, coming: 0 }
    }

    /// The next client, which is busy from now on, and the message that it begins with.
    pub(super) fn next(
        &mut self,
        clients: &mut Population,
        random: &mut Random,
        now: u64,
    ) -> Option<(ClientIndex, Stage)> {
        match self.choice {
            Choice::InTurn => {
                let client = clients.take_next()?;
                Some((client, self.renew_or_solicit(clients, client, random, now)))
            }
            Choice::Returning(share) => {
                let which = random.next_u32();
                let client = if u64::from(random.next_u32()) < threshold(share) {
                    clients.take_known(which).or_else(|| clients.take_new())
                } else {
                    clients.take_new().or_else(|| clients.take_known(which))
                }?;
                Some((client, self.renew_or_solicit(clients, client, random, now)))
            }
            Choice::Fresh => clients.take_new().map(|client| (client, Stage::Solicit)),
            Choice::Holders => clients.take_each_holding().map(|client| (client, Stage::Renew)),
            Choice::Mix(shares) => match shares.pick(random.next_u32()) {
                Kind::New => {
                    clients.take_idle(random.next_u32()).map(|client| (client, Stage::Solicit))
                }
                Kind::Inform => clients.take_next().map(|client| (client, Stage::Inform)),
                kind => clients
                    .take_holding(random.next_u32(), now, self.wanted)
                    .map(|client| (client, kind.stage())),
            },
            Choice::Churn { held } => {
                if clients.holding() + self.coming >= held
                    && let Some(client) = self.longest(clients, now)
                {
                    return Some((client, Stage::Release));
                }
                let client = clients.take_idle(random.next_u32())?;
                self.coming += 1;
                Some((client, Stage::Solicit))
            }
        }
    }

    fn longest(&mut self, clients: &mut Population, now: u64) -> Option<ClientIndex> {
        for _ in 0..64 {
            let client = ClientIndex(self.stays.pop_front()?);
            if clients.take_if_holding(client, now, self.wanted) {
                return Some(client);
            }
        }
        None
    }

    fn renew_or_solicit(
        &self,
        clients: &Population,
        client: ClientIndex,
        random: &mut Random,
        now: u64,
    ) -> Stage {
        let holds = clients.state(client).holds(self.wanted, now);
        if holds && u64::from(random.next_u32()) < self.renew_threshold {
            Stage::Renew
        } else {
            Stage::Solicit
        }
    }

    /// An exchange that began with SOLICIT has ended.
    pub(super) fn came(&mut self, client: ClientIndex, holds: bool) {
        if let Choice::Churn { .. } = self.choice {
            self.coming = self.coming.saturating_sub(1);
            if holds {
                self.stays.push_back(client.0);
            }
        }
    }
}

fn threshold(share: f64) -> u64 {
    whole(share.clamp(0.0, 1.0) * 4_294_967_296.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_and_kept() {
        let shares: Shares = "new=30, renew=60,release=10".parse().unwrap();
        assert_eq!(shares.to_string(), "new=30,renew=60,release=10");
        assert!((shares.of(Kind::Renew) - 0.6).abs() < 1e-12);
        let mut random = Random::new(1);
        let mut counts = [0_u32; 7];
        for _ in 0..100_000 {
            counts[shares.pick(random.next_u32()) as usize] += 1;
        }
        assert!((29_000..31_000).contains(&counts[Kind::New as usize]), "{counts:?}");
        assert!((59_000..61_000).contains(&counts[Kind::Renew as usize]), "{counts:?}");
        assert_eq!(counts[Kind::Decline as usize], 0);
        for bad in ["", "new", "new=0", "gnu=5", "new=-1", "new=x"] {
            assert!(bad.parse::<Shares>().is_err(), "{bad}");
        }
    }
}
