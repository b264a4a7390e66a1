//! Time of a run: nanoseconds on the monotonic clock since the clock was made.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::number::SECOND_NS;

/// A monotonic clock with a known place in calendar time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    origin_unix_ns: u64,
}

impl Clock {
    /// Starts at zero now.
    #[must_use]
    pub fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            origin: Instant::now(),
            origin_unix_ns: u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// Nanoseconds since the start.
    #[inline]
    #[must_use]
    pub fn now(&self) -> u64 {
        let elapsed = self.origin.elapsed();
        elapsed.as_secs().wrapping_mul(SECOND_NS).wrapping_add(u64::from(elapsed.subsec_nanos()))
    }

    /// The moment in seconds since 1970, UTC.
    #[must_use]
    pub fn unix_seconds(&self, at_ns: u64) -> u64 {
        self.origin_unix_ns.saturating_add(at_ns) / SECOND_NS
    }
}
