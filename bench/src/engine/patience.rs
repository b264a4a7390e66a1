//! How long clients wait, and when they send again: RFC 8415 section 15.

use super::slots::Stage;
use crate::{client::Random, number::SECOND_NS};

/// How long clients wait, and what they do then. Times in ns.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// When a message without an answer is given up. With [`Retransmit::Rfc8415`] that is left to the
    /// RFC and to the end of the run, see [`Patience::end`].
    pub timeout: u64,
    /// When a message is sent again.
    pub retransmit: Retransmit,
    /// When a client whose message names a server turns to any server: from RENEW to REBIND (as at
    /// T2, RFC 8415 section 18.2.5), from REQUEST to a new SOLICIT (section 18.2.2).
    pub any_server: Option<u64>,
    /// The clock time at which all that is still waited for is given up.
    pub end: Option<u64>,
}

/// When a message is sent again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Retransmit {
    /// Never.
    Never,
    /// For the first time after this many ns; the wait doubles each time, up to 30 times this one.
    After(u64),
    /// With the times and limits of RFC 8415 section 7.6.
    Rfc8415,
}

impl Patience {
    /// Every message is sent once and given up after `timeout`.
    #[must_use]
    pub fn once(timeout: u64) -> Self {
        Self { timeout, retransmit: Retransmit::Never, any_server: None, end: None }
    }

    /// Messages are sent again as RFC 8415 has it, until `end` on the clock.
    #[must_use]
    pub fn by_rfc(end: u64) -> Self {
        Self {
            timeout: u64::MAX,
            retransmit: Retransmit::Rfc8415,
            any_server: None,
            end: Some(end),
        }
    }
}

/// SOL_MAX_RT of RFC 8415 section 7.6, unless a server says otherwise.
pub(super) const SOL_MAX_RT: u64 = 3600 * SECOND_NS;

/// The retransmission of one kind of message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Rules {
    /// IRT, ns.
    first: u64,
    /// MRT, ns; 0 for none.
    longest: u64,
    /// MRC; 0 for none.
    pub(super) count: u8,
    /// MRD, ns; 0 for none.
    pub(super) duration: u64,
    /// RAND of the first wait is above 0 (RFC 8415 section 18.2.1).
    not_early: bool,
}

impl Rules {
    /// Those of the message that is out at a stage.
    pub(super) fn of(retransmit: Retransmit, stage: Stage, sol_max_rt: u64) -> Option<Self> {
        let doubling = |first: u64, longest: u64| Self {
            first,
            longest,
            count: 0,
            duration: 0,
            not_early: false,
        };
        let seconds = |first: u64, longest: u64, count, duration: u64| Self {
            first: first * SECOND_NS,
            longest: longest * SECOND_NS,
            count,
            duration: duration * SECOND_NS,
            not_early: false,
        };
        Some(match (retransmit, stage) {
            (Retransmit::Never, _) | (_, Stage::Free | Stage::Ready) => return None,
            (Retransmit::After(first), _) => doubling(first, 30 * first),
            (_, Stage::Solicit) => {
                Self { longest: sol_max_rt, not_early: true, ..seconds(1, 0, 0, 0) }
            }
            (_, Stage::Request) => seconds(1, 30, 10, 0),
            (_, Stage::Renew | Stage::Rebind) => seconds(10, 600, 0, 0),
            (_, Stage::Release | Stage::Decline) => seconds(1, 0, 4, 0),
            (_, Stage::Confirm) => seconds(1, 4, 0, 10),
            (_, Stage::Inform) => seconds(1, 3600, 0, 0),
        })
    }

    /// The first RT: IRT + RAND * IRT.
    pub(super) fn first_wait(&self, random: &mut Random) -> u64 {
        if self.not_early {
            let spread = self.first / 10;
            return self.first + 1 + scaled(spread.saturating_sub(1), random.next_u32());
        }
        around(self.first, self.first, random)
    }

    /// The next RT: 2 * RTprev + RAND * RTprev, at most MRT + RAND * MRT.
    pub(super) fn next_wait(&self, previous: u64, random: &mut Random) -> u64 {
        let wait = around(2 * previous, previous, random);
        if self.longest > 0 && wait > self.longest {
            around(self.longest, self.longest, random)
        } else {
            wait
        }
    }
}

/// `base + RAND * of`, RAND being between -0.1 and 0.1.
fn around(base: u64, of: u64, random: &mut Random) -> u64 {
    let tenth = of / 10;
    base - tenth + scaled(2 * tenth, random.next_u32())
}

/// A random share of `range`.
fn scaled(range: u64, random: u32) -> u64 {
    u64::try_from((u128::from(range) * u128::from(random)) >> 32).unwrap_or(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(rules: Rules, count: usize, seed: u64) -> Vec<u64> {
        let mut random = Random::new(seed);
        let mut waits = vec![rules.first_wait(&mut random)];
        while waits.len() < count {
            waits.push(rules.next_wait(*waits.last().unwrap(), &mut random));
        }
        waits
    }

    #[test]
    fn solicits_go_as_section_15_has_it() {
        let rules = Rules::of(Retransmit::Rfc8415, Stage::Solicit, SOL_MAX_RT).unwrap();
        assert_eq!((rules.count, rules.duration), (0, 0), "for ever");
        for seed in 0..200 {
            let waits = waits(rules, 20, seed);
            assert!(waits[0] > SECOND_NS && waits[0] <= SECOND_NS / 10 * 11, "RAND is above 0");
            for pair in waits.windows(2) {
                let (low, high) = (pair[0] / 10 * 19, pair[0] / 10 * 21 + 20);
                let capped = SOL_MAX_RT / 10 * 9..=SOL_MAX_RT / 10 * 11;
                assert!((low..=high).contains(&pair[1]) || capped.contains(&pair[1]), "{pair:?}");
                assert!(pair[1] <= SOL_MAX_RT / 10 * 11);
            }
            assert!(waits[19] >= SOL_MAX_RT / 10 * 9);
        }
        let short = Rules::of(Retransmit::Rfc8415, Stage::Solicit, 60 * SECOND_NS).unwrap();
        assert!(waits(short, 20, 1).iter().all(|wait| *wait <= 66 * SECOND_NS));
    }

    #[test]
    fn requests_end_after_ten_times() {
        let rules = Rules::of(Retransmit::Rfc8415, Stage::Request, SOL_MAX_RT).unwrap();
        assert_eq!(rules.count, 10);
        let all: Vec<_> = (0..100).flat_map(|seed| waits(rules, 10, seed)).collect();
        assert!(all.iter().all(|wait| *wait >= SECOND_NS / 10 * 9 && *wait <= 33 * SECOND_NS));
        assert!(all.iter().any(|wait| *wait < SECOND_NS), "RAND may be below 0");
        assert!(all.iter().any(|wait| *wait > 30 * SECOND_NS), "and is applied to MRT, too");
    }

    #[test]
    fn without_retransmission_there_are_no_rules() {
        assert_eq!(Rules::of(Retransmit::Never, Stage::Solicit, SOL_MAX_RT), None);
        let rules = Rules::of(Retransmit::After(1000), Stage::Renew, SOL_MAX_RT).unwrap();
        assert!(waits(rules, 9, 3).iter().all(|wait| (900..=33_000).contains(wait)));
    }
}
