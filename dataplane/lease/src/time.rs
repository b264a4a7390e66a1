use std::fmt;

use serde::{Deserialize, Serialize};

/// Seconds between 1970-01-01 and 2000-01-01, UTC.
const UNIX_2000: u64 = 946_684_800;

/// A point in time on the wall clock: seconds since 2000-01-01T00:00:00Z, the epoch of RFC 8156.
///
/// Held times do not wrap: [`AbsoluteTime::INFINITE`] lies after every other time, and sums
/// saturate there. (The wire's arithmetic modulo 2^32 belongs to the failover codec.)
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct AbsoluteTime(pub u32);

impl AbsoluteTime {
    /// Not set, or before everything else.
    pub const ZERO: Self = Self(0);
    /// Never: the end of a binding whose valid lifetime is infinite (RFC 8415 section 7.7).
    pub const INFINITE: Self = Self(u32::MAX);

    /// From seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn from_unix_secs(secs: u64) -> Self {
        Self(u32::try_from(secs.saturating_sub(UNIX_2000)).unwrap_or(u32::MAX - 1))
    }

    /// To seconds since 1970-01-01T00:00:00Z; `None` for [`AbsoluteTime::INFINITE`].
    #[must_use]
    pub fn to_unix_secs(self) -> Option<u64> {
        (self != Self::INFINITE).then(|| u64::from(self.0) + UNIX_2000)
    }

    /// This time plus a lifetime in seconds, where `u32::MAX` means infinity.
    #[must_use]
    pub fn plus(self, lifetime_secs: u32) -> Self {
        Self(self.0.saturating_add(lifetime_secs))
    }

    /// Seconds from `now` until this time; 0 if it has passed, `u32::MAX` for
    /// [`AbsoluteTime::INFINITE`].
    #[must_use]
    pub fn remaining(self, now: Self) -> u32 {
        if self == Self::INFINITE { u32::MAX } else { self.0.saturating_sub(now.0) }
    }
}

impl fmt::Display for AbsoluteTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_unix_secs() {
            Some(secs) => write!(f, "{secs}"),
            None => f.write_str("infinite"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinity_is_absorbing() {
        let now = AbsoluteTime::from_unix_secs(1_800_000_000);
        assert_eq!(now.plus(u32::MAX), AbsoluteTime::INFINITE);
        assert_eq!(AbsoluteTime::INFINITE.remaining(now), u32::MAX);
        assert_eq!(now.plus(60).remaining(now), 60);
        assert_eq!(now.remaining(now.plus(60)), 0);
    }

    #[test]
    fn unix_round_trip() {
        let time = AbsoluteTime::from_unix_secs(1_800_000_000);
        assert_eq!(time.to_unix_secs(), Some(1_800_000_000));
        assert_eq!(AbsoluteTime::from_unix_secs(0), AbsoluteTime::ZERO);
        assert_eq!(AbsoluteTime::INFINITE.to_unix_secs(), None);
    }
}
