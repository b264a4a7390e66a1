//! Times by pair of messages, and how late the generator was.

use hdrhistogram::Histogram;

use crate::stats::{Pair, PairTimes, histogram};

/// Times of all pairs, and the generator's lag, in ns.
#[derive(Clone, Debug)]
pub struct Times {
    pairs: Vec<PairTimes>,
    /// How late messages left behind the moment at which they were due.
    pub lag: Histogram<u64>,
}

/// One of the histograms in [`Times`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Track {
    /// Answered messages of a pair.
    Answered(Pair),
    /// Messages of a pair that were given up.
    TimedOut(Pair),
    /// The generator's lag.
    Lag,
}

/// What follows the name of a pair in the tag of its messages that were given up.
const TIMED_OUT: &str = ".timed_out";

impl Track {
    /// All of them, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        let pairs = Pair::ALL.iter();
        pairs.flat_map(|pair| [Self::Answered(*pair), Self::TimedOut(*pair)]).chain([Self::Lag])
    }

    /// Its name in interval logs: that of the pair, with `.timed_out` for what was given up, or
    /// `lag`.
    #[must_use]
    pub fn tag(self) -> String {
        match self {
            Self::Answered(pair) => pair.as_str().into(),
            Self::TimedOut(pair) => format!("{}{TIMED_OUT}", pair.as_str()),
            Self::Lag => "lag".into(),
        }
    }

    /// The one with this tag.
    #[must_use]
    pub fn from_tag(tag: &str) -> Option<Self> {
        if tag == "lag" {
            return Some(Self::Lag);
        }
        let (name, timed_out) = match tag.strip_suffix(TIMED_OUT) {
            Some(name) => (name, true),
            None => (tag, false),
        };
        let pair = Pair::from_name(name)?;
        Some(if timed_out { Self::TimedOut(pair) } else { Self::Answered(pair) })
    }
}

impl Default for Times {
    fn default() -> Self {
        Self::new()
    }
}

impl Times {
    /// Nothing measured yet.
    #[must_use]
    pub fn new() -> Self {
        let pair = || PairTimes { answered: histogram(), timed_out: histogram() };
        Self { pairs: Pair::ALL.iter().map(|_| pair()).collect(), lag: histogram() }
    }

    /// The times of a pair.
    #[must_use]
    pub fn pair(&self, pair: Pair) -> &PairTimes {
        &self.pairs[pair as usize]
    }

    /// The histogram of a track.
    #[must_use]
    pub fn track(&self, track: Track) -> &Histogram<u64> {
        match track {
            Track::Answered(pair) => &self.pair(pair).answered,
            Track::TimedOut(pair) => &self.pair(pair).timed_out,
            Track::Lag => &self.lag,
        }
    }

    /// The histogram of a track, to add to.
    pub fn track_mut(&mut self, track: Track) -> &mut Histogram<u64> {
        match track {
            Track::Answered(pair) => &mut self.pairs[pair as usize].answered,
            Track::TimedOut(pair) => &mut self.pairs[pair as usize].timed_out,
            Track::Lag => &mut self.lag,
        }
    }

    /// Answered messages of all pairs together, without those that span several messages.
    #[must_use]
    pub fn messages(&self) -> Histogram<u64> {
        let mut all = histogram();
        for pair in Pair::ALL.iter().filter(|pair| !pair.is_whole()) {
            let times = &self.pair(*pair).answered;
            if !times.is_empty() {
                all += times;
            }
        }
        all
    }

    /// Forgets everything, and keeps the memory.
    pub fn clear(&mut self) {
        for track in Track::all() {
            // Most pairs do not occur in a run; their memory is not to be touched.
            let times = self.track_mut(track);
            if !times.is_empty() {
                times.reset();
            }
        }
    }

    /// Adds what was measured elsewhere.
    pub fn add(&mut self, other: &Self) {
        for track in Track::all() {
            let theirs = other.track(track);
            if !theirs.is_empty() {
                *self.track_mut(track) += theirs;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_lead_back_to_their_tracks() {
        for track in Track::all() {
            assert_eq!(Track::from_tag(&track.tag()), Some(track));
        }
        for bad in ["", "lag.timed_out", "request", "request_reply.lost"] {
            assert_eq!(Track::from_tag(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_add_up_and_are_cleared() {
        let (mut a, mut b) = (Times::new(), Times::new());
        a.track_mut(Track::Answered(Pair::RequestReply)).saturating_record(5_000);
        a.track_mut(Track::Answered(Pair::Exchange)).saturating_record(9_000);
        b.track_mut(Track::Answered(Pair::SolicitAdvertise)).saturating_record(3_000);
        b.track_mut(Track::TimedOut(Pair::RequestReply)).saturating_record(7_000);
        b.track_mut(Track::Lag).saturating_record(100);
        a.add(&b);
        assert_eq!(a.messages().len(), 2, "the whole exchange is no message");
        assert_eq!(a.pair(Pair::RequestReply).with_losses().len(), 2);
        assert_eq!(a.lag.len(), 1);
        a.clear();
        assert!(Track::all().all(|track| a.track(track).is_empty()));
    }
}
