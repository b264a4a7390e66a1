//! How many free prefixes change hands between primary and secondary (RFC 8156 section 4.2.2).

use std::cmp::Ordering;

use gemel_lease::{AbsoluteTime, Binding};

use crate::Config;

/// What the primary does about a pool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Move {
    /// Nothing.
    Stay,
    /// It gives this many prefixes to the secondary.
    Give(u64),
    /// It asks for this many back.
    Reclaim(u64),
}

/// Compares the free prefixes of a pool that are the primary's and the secondary's with what is
/// configured. When the secondary has `asked` (POOLREQ) it gets what it lacks, however little that
/// is; else small differences are left alone.
pub(crate) fn balance(config: &Config, primary: u64, secondary: u64, asked: bool) -> Move {
    let free = primary.saturating_add(secondary);
    let percent = |share: u8| {
        let part = u128::from(free) * u128::from(share.min(100)) / 100;
        u64::try_from(part).unwrap_or(u64::MAX)
    };
    let wanted = percent(config.secondary_share_percent).min(config.secondary_prefixes_max);
    let threshold = percent(config.balance_threshold_percent);
    let lacks = wanted.saturating_sub(secondary);
    let exceeds = secondary.saturating_sub(wanted);
    match secondary.cmp(&wanted) {
        // A secondary with nothing at all could not serve.
        Ordering::Less if lacks > threshold || asked || secondary == 0 => Move::Give(lacks),
        Ordering::Greater if exceeds > threshold => Move::Reclaim(exceeds),
        _ => Move::Stay,
    }
}

/// In PARTNER-DOWN state since `since`: whether a lease that has ended may go to another client
/// without the partner's consent (sections 4.2.2.1 and 8.4.1). The MCLT has to pass after the
/// latest time until which its client may believe that it has it: the end of the lease, what was
/// told to the partner or acknowledged by it, what was acknowledged to it; and after the beginning
/// of PARTNER-DOWN.
pub(crate) fn wait_is_over(
    binding: &Binding,
    since: AbsoluteTime,
    mclt: u32,
    now: AbsoluteTime,
) -> bool {
    let latest = [
        binding.start_time_of_state,
        binding.state_expiration_time,
        binding.partner_lifetime,
        binding.acked_partner_lifetime,
        binding.expiration_time,
    ]
    .into_iter()
    .fold(since, AbsoluteTime::max);
    now >= latest.plus(mclt)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Role;

    fn config(share: u8, max: u64, threshold: u8) -> Config {
        Config {
            secondary_share_percent: share,
            secondary_prefixes_max: max,
            balance_threshold_percent: threshold,
            ..Config::new("pair", Role::Primary, 3600)
        }
    }

    #[test]
    fn the_secondary_gets_its_share() {
        let config = config(20, 1000, 5);
        let look = |primary, secondary| balance(&config, primary, secondary, false);
        assert_eq!(look(256, 0), Move::Give(51));
        assert_eq!(look(205, 51), Move::Stay);
        // 5 percent of 1000 is 50.
        assert_eq!((look(850, 150), look(851, 149)), (Move::Stay, Move::Give(51)));
        assert_eq!((look(750, 250), look(749, 251)), (Move::Stay, Move::Reclaim(51)));
        assert_eq!(
            (look(0, 0), look(3, 0), look(0, 1)),
            (Move::Stay, Move::Stay, Move::Reclaim(1))
        );
    }

    #[test]
    fn no_more_than_the_maximum() {
        let config = config(50, 100, 5);
        assert_eq!(balance(&config, 1_000_000, 0, false), Move::Give(100));
        assert_eq!(balance(&config, 1_000, 100, false), Move::Stay);
        assert_eq!(balance(&config, 1_000, 500, false), Move::Reclaim(400));
    }

    #[test]
    fn who_asks_gets_even_a_little() {
        let config = config(20, 1000, 5);
        assert_eq!(balance(&config, 801, 199, false), Move::Stay);
        assert_eq!(balance(&config, 801, 199, true), Move::Give(1));
        assert_eq!(balance(&config, 799, 201, true), Move::Stay);
    }

    #[test]
    fn a_share_below_the_threshold_is_given_all_the_same() {
        assert_eq!(balance(&config(3, 1000, 5), 1000, 0, false), Move::Give(30));
    }

    #[test]
    fn the_wait_ends_the_mclt_after_the_latest_time() {
        let since = AbsoluteTime(1_000);
        let over = |binding: &Binding, now| wait_is_over(binding, since, 100, AbsoluteTime(now));
        assert!(!over(&Binding::EMPTY, 1_099) && over(&Binding::EMPTY, 1_100));
        let late = AbsoluteTime(2_000);
        for binding in [
            Binding { start_time_of_state: late, ..Binding::EMPTY },
            Binding { state_expiration_time: late, ..Binding::EMPTY },
            Binding { partner_lifetime: late, ..Binding::EMPTY },
            Binding { acked_partner_lifetime: late, ..Binding::EMPTY },
            Binding { expiration_time: late, ..Binding::EMPTY },
        ] {
            assert!(!over(&binding, 2_099) && over(&binding, 2_100), "{binding:?}");
        }
        let forever = Binding { expiration_time: AbsoluteTime::INFINITE, ..Binding::EMPTY };
        assert!(!over(&forever, u32::MAX - 1));
    }

    proptest! {
        /// What has been moved is not moved back.
        #[test]
        fn a_move_leads_to_rest(
            primary in any::<u64>(),
            secondary in any::<u64>(),
            share in any::<u8>(),
            max in any::<u64>(),
            threshold in 0..=100_u8,
            asked in any::<bool>(),
        ) {
            let config = config(share, max, threshold);
            let (primary, secondary) = match balance(&config, primary, secondary, asked) {
                Move::Stay => return Ok(()),
                Move::Give(count) => {
                    prop_assert!(count <= primary);
                    (primary - count, secondary + count)
                }
                Move::Reclaim(count) => {
                    prop_assert!(count <= secondary);
                    (primary.saturating_add(count), secondary - count)
                }
            };
            // Beyond the largest number the free prefixes cannot be counted any more.
            prop_assume!(primary.checked_add(secondary).is_some());
            prop_assert_eq!(balance(&config, primary, secondary, asked), Move::Stay);
        }
    }
}
