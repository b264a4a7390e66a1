//! What a failover endpoint allows the server rules of its links (RFC 8156 section 8.1).

use std::sync::atomic::{AtomicU64, Ordering};

/// Which messages of clients are answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Responsiveness {
    /// None (STARTUP, RECOVER, RECOVER-WAIT, POTENTIAL-CONFLICT).
    Unresponsive = 0,
    /// RENEW of a lease that is already recorded; nothing is allocated (RECOVER-DONE, section
    /// 8.7.1).
    RenewRecorded = 1,
    /// Those that name this server in a Server Identifier option (glossary; the secondary in NORMAL
    /// state).
    RenewResponsive = 2,
    /// All.
    Responsive = 3,
}

/// What the rules obey.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PairRules {
    /// Which messages are answered.
    pub responsiveness: Responsiveness,
    /// The limit of section 4.4 in seconds; `None` in PARTNER-DOWN state.
    pub mclt: Option<u32>,
}

/// The place where the endpoint writes [`PairRules`] and the workers read them: one word.
#[derive(Debug)]
pub struct PairPolicy(AtomicU64);

impl PairPolicy {
    /// Unresponsive, as in STARTUP state.
    #[must_use]
    pub fn new() -> Self {
        let policy = Self(AtomicU64::new(0));
        policy.set(PairRules { responsiveness: Responsiveness::Unresponsive, mclt: Some(0) });
        policy
    }

    /// The present rules.
    #[must_use]
    pub fn load(&self) -> PairRules {
        let word = self.0.load(Ordering::Acquire);
        let responsiveness = match word & 3 {
            0 => Responsiveness::Unresponsive,
            1 => Responsiveness::RenewRecorded,
            2 => Responsiveness::RenewResponsive,
            _ => Responsiveness::Responsive,
        };
        let mclt = (word & LIMITED != 0).then_some((word >> 32) as u32);
        PairRules { responsiveness, mclt }
    }

    /// Changes the rules; the next message is answered by them.
    pub fn set(&self, rules: PairRules) {
        let limit = rules.mclt.map_or(0, |mclt| LIMITED | u64::from(mclt) << 32);
        self.0.store(rules.responsiveness as u64 | limit, Ordering::Release);
    }
}

/// The bit that says that there is a limit.
const LIMITED: u64 = 4;

impl Default for PairPolicy {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read() {
        let policy = PairPolicy::new();
        assert_eq!(policy.load().responsiveness, Responsiveness::Unresponsive);
        for responsiveness in [
            Responsiveness::Unresponsive,
            Responsiveness::RenewRecorded,
            Responsiveness::RenewResponsive,
            Responsiveness::Responsive,
        ] {
            for mclt in [None, Some(0), Some(3600), Some(u32::MAX)] {
                let rules = PairRules { responsiveness, mclt };
                policy.set(rules);
                assert_eq!(policy.load(), rules);
            }
        }
    }
}
