//! Random runs: the same seed is the same run, a few of them pass, and what is broken on purpose is
//! found.

use gemel_sim::{Break, Trace, run_seed, run_seeds};

#[test]
fn a_seed_decides_everything() {
    for seed in [1, 2, 3, 50] {
        let [one, other] = [Trace::Off, Trace::Last(1)].map(|trace| run_seed(seed, None, trace));
        assert_eq!(one.fingerprint, other.fingerprint, "seed {seed}");
        assert_eq!(one.violation, other.violation, "seed {seed}");
    }
    let fingerprint = |seed| run_seed(seed, None, Trace::Off).fingerprint;
    assert_ne!(fingerprint(1), fingerprint(2));
}

#[test]
fn some_seeds_pass() {
    let summary = run_seeds(1, SEEDS, None, 2, |_| {});
    assert_eq!((summary.passed, summary.failures), (SEEDS, Vec::new()));
    assert!(summary.stats.kept > 100 && summary.stats.normal > SEEDS, "{:?}", summary.stats);
}

/// Seeds that once found something which no scenario tells: prefixes moved before that was stored, a
/// conflict that was made of a server that was only recovering, a server that did not wait for what
/// its partner was about to say, versions of a lease that changed places (at its very end, after it,
/// of two clients), a partner that waited in vain while clients went on, prefixes given back by a
/// server that had forgotten who had them, a lease freed in PARTNER-DOWN that a recovering server
/// kept by a guess, one given without the MCLT that the partner had not heard of, one taken over from
/// the partner and given away while it was to hear of that, a release that fell to an end of the same
/// second, a partner that had forgotten everything and was not told of a lease since it had just
/// extended it itself, a lease that was given away while a partner that had forgotten everything was told
/// of all, one that both took for their own after its end was told twice.
#[test]
fn seeds_that_found_something_pass() {
    for seed in [
        7629, 21273, 31359, 103111, 108156, 152845, 204043, 301603, 307942, 318458, 322540, 506158,
        519450, 814729, 874604, 931730,
    ] {
        assert_eq!(run_seed(seed, None, Trace::Off).violation, None, "seed {seed}");
    }
}

/// Seeds of which the expectation was wrong, not the servers.
///
/// - 84725: the tables agree, and a partner that has forgotten everything is still being told of it.
/// - 322515: what a server repeats of its acknowledgements in an update (section 7.8) counts for nobody
///   where the update is rejected: the lease is another client's there.
/// - 423879: one message at a time, 500 leases to be told of: that takes longer than a fixed time.
/// - 504471: the secondary goes to PARTNER-DOWN by its timer, gives away a free prefix of the
///   primary's, and dies; then the primary comes up alone and gives that prefix to somebody else. The
///   two never serve at the same time, but they have not met in between either. Section 8.4 forbids
///   that and no rule can prevent it: the primary cannot know.
/// - 509268: the operator mends the network, and what it held back is so old that the primary takes
///   the clocks for wrong and drops the connection of a partner that is dead already. After that it
///   waits longer before it connects again (section 6.1), and the partner's startup time is over
///   before that: the operator has to see to the connection once more.
/// - 630952: a server takes over that a lease is declined, cannot answer any more, ends the quarantine and
///   tells that: it knows nothing of the client any more, whoever told whom.
/// - 723306 and 730740: clocks almost 5 s apart that somebody has set right, and a message that is
///   under way for long: together more than section 7.1 allows.
/// - 739155: while the servers are out of touch a client gives its address back to the one and gets
///   it again from the other, which loses its disk. All that is left of it is the RELEASE, as with
///   the answers that arrived before; this one was under way.
/// - 756926: a REBIND comes twice, and a RELEASE before the second one is stored. What is stored then
///   is not what the server knows: it need not keep the lease for a client that has given it back.
/// - 791684: a client gives its lease back at a server whose clock is ahead, and gets it again at the
///   other, whose clock is behind and shows the same second. By what both have written down (section
///   7.1 asks for clocks that agree) nobody can tell what came first.
/// - 924395: a client comes back in the second in which its lease has ended and that was stored, and the
///   partner tells of the lease as it was before. That is acknowledged: it has run as long as that.
#[test]
fn seeds_that_expected_too_much_pass() {
    for seed in [
        84725, 322515, 423879, 504471, 509268, 630952, 723306, 730740, 739155, 756926, 791684,
        924395,
    ] {
        assert_eq!(run_seed(seed, None, Trace::Off).violation, None, "seed {seed}");
    }
}

/// Few: these run in a debug build. `cargo xtask sim` runs many.
const SEEDS: u64 = 40;

/// Within how many seeds each broken rule is found.
const BROKEN_SEEDS_MAX: u64 = 60;

#[test]
fn a_broken_rule_is_found() {
    for rule in Break::ALL {
        let mut found = None;
        for first in (1..=BROKEN_SEEDS_MAX).step_by(4) {
            let summary = run_seeds(first, 4, Some(rule), 2, |_| {});
            found = summary.failures.into_iter().next();
            if found.is_some() {
                break;
            }
        }
        let found = found.unwrap_or_else(|| panic!("{} is not noticed", rule.as_str()));
        println!("{}: {found:?}", rule.as_str());
    }
}
