use std::{cmp::Ordering, fmt};

/// Seconds between 1970-01-01 and 2000-01-01, UTC.
const UNIX_2000: u64 = 946_684_800;

/// The largest difference between the partners' clocks, in seconds; times that are no further
/// apart count as the same time (RFC 8156 sections 7.1 and 7.5.1).
pub const SKEW_SECS_MAX: u32 = 5;

/// An absolute time on the wire: seconds since 2000-01-01T00:00:00Z modulo 2^32 (RFC 8156
/// section 5.2).
///
/// Such times lie on a circle, so there is no `Ord`. Two of them are compared as serial numbers
/// are: the one that is reached sooner going forward is the later one. That is right as long as
/// the two are less than 2^31 seconds (68 years) apart.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct FailoverTime(pub u32);

impl FailoverTime {
    /// From seconds since 1970-01-01T00:00:00Z; times before 2000 wrap, too.
    #[must_use]
    pub const fn from_unix_secs(secs: u64) -> Self {
        let [.., b0, b1, b2, b3] = secs.wrapping_sub(UNIX_2000).to_be_bytes();
        Self(u32::from_be_bytes([b0, b1, b2, b3]))
    }

    /// To seconds since 1970-01-01T00:00:00Z: of all points in time that are written like this
    /// the one nearest to `reference_secs`, in the same unit. `None` if that lies before 1970 or
    /// after the end of `u64`.
    #[must_use]
    pub const fn to_unix_secs(self, reference_secs: u64) -> Option<u64> {
        let distance = self.wrapping_diff(Self::from_unix_secs(reference_secs));
        reference_secs.checked_add_signed(distance as i64)
    }

    /// This many seconds later, wrapping.
    #[must_use]
    pub const fn wrapping_add(self, secs: u32) -> Self {
        Self(self.0.wrapping_add(secs))
    }

    /// This many seconds earlier, wrapping.
    #[must_use]
    pub const fn wrapping_sub(self, secs: u32) -> Self {
        Self(self.0.wrapping_sub(secs))
    }

    /// Seconds from `earlier` to this time along the shorter way: negative if this one is the
    /// earlier. Exactly 2^31 seconds, where there is no shorter way, give `i32::MIN`.
    #[must_use]
    pub const fn wrapping_diff(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }

    /// Before, same or after, along the shorter way; `None` if the two are exactly 2^31 seconds
    /// apart.
    #[must_use]
    pub fn serial_cmp(self, other: Self) -> Option<Ordering> {
        match self.wrapping_diff(other) {
            i32::MIN => None,
            distance => Some(distance.cmp(&0)),
        }
    }

    /// Whether this time is after `other`, by however little.
    #[must_use]
    pub fn is_after(self, other: Self) -> bool {
        self.serial_cmp(other) == Some(Ordering::Greater)
    }

    /// Whether this time is clearly after `other`: by more than [`SKEW_SECS_MAX`] (sections 7.5.1
    /// and 7.5.4).
    #[must_use]
    pub fn is_clearly_after(self, other: Self) -> bool {
        self.is_after(other) && !self.is_about(other)
    }

    /// Whether the two represent the same time: at most [`SKEW_SECS_MAX`] apart (section 7.5.1).
    #[must_use]
    pub const fn is_about(self, other: Self) -> bool {
        self.wrapping_diff(other).unsigned_abs() <= SKEW_SECS_MAX
    }
}

/// The number as it is on the wire.
impl fmt::Display for FailoverTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRAP_2136: u64 = UNIX_2000 + (1 << 32);

    #[test]
    fn unix_round_trip_needs_a_reference() {
        assert_eq!(FailoverTime::from_unix_secs(UNIX_2000), FailoverTime(0));
        assert_eq!(FailoverTime::from_unix_secs(UNIX_2000 - 1), FailoverTime(u32::MAX));
        assert_eq!(FailoverTime::from_unix_secs(WRAP_2136 + 7), FailoverTime(7));
        for (secs, reference) in [
            (1_800_000_000, 1_800_000_000),
            (1_800_000_000, 1_900_000_000),
            (WRAP_2136 + 7, WRAP_2136 - 7),
            (WRAP_2136 - 7, WRAP_2136 + 7),
            (5, 6),
        ] {
            let time = FailoverTime::from_unix_secs(secs);
            assert_eq!(time.to_unix_secs(reference), Some(secs), "{secs} seen from {reference}");
        }
        assert_eq!(FailoverTime::from_unix_secs(0).wrapping_sub(1).to_unix_secs(0), None);
        assert_eq!(FailoverTime::from_unix_secs(0).to_unix_secs(u64::MAX), None);
    }

    #[test]
    fn order_survives_the_wrap() {
        let before = FailoverTime(u32::MAX - 2);
        let after = before.wrapping_add(10);
        assert_eq!(after, FailoverTime(7));
        assert_eq!(after.wrapping_diff(before), 10);
        assert_eq!(before.wrapping_diff(after), -10);
        assert_eq!(after.wrapping_sub(10), before);
        assert!(after.is_after(before) && !before.is_after(after) && !after.is_after(after));
        assert_eq!(before.serial_cmp(after), Some(Ordering::Less));
        assert_eq!(before.serial_cmp(before), Some(Ordering::Equal));
    }

    #[test]
    fn opposite_times_have_no_order() {
        let (a, b) = (FailoverTime(3), FailoverTime(3 + (1 << 31)));
        assert_eq!((a.serial_cmp(b), b.serial_cmp(a)), (None, None));
        assert!(!a.is_after(b) && !b.is_after(a) && !a.is_about(b));
        assert!(b.wrapping_sub(1).is_after(a));
    }

    #[test]
    fn five_seconds_are_the_same_time() {
        let now = FailoverTime(2);
        for (secs, same) in [(0, true), (5, true), (6, false)] {
            assert_eq!(now.is_about(now.wrapping_sub(secs)), same);
            assert_eq!(now.is_about(now.wrapping_add(secs)), same);
            assert_eq!(now.is_clearly_after(now.wrapping_sub(secs)), !same);
            assert!(!now.is_clearly_after(now.wrapping_add(secs)));
        }
    }
}
