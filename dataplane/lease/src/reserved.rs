//! Interface identifiers that no host may have.

/// The IANA registry "Reserved IPv6 Interface Identifiers" (RFC 5453): the subnet-router anycast
/// address (RFC 4291), IANA's Ethernet block with Proxy Mobile IPv6 in it (RFC 4291, RFC 6543),
/// and the reserved subnet anycast addresses (RFC 2526). First and last, in ascending order.
const RESERVED: [(u64, u64); 3] = [
    (0, 0),
    (0x0200_5eff_fe00_0000, 0x0200_5eff_feff_ffff),
    (0xfdff_ffff_ffff_ff80, 0xfdff_ffff_ffff_ffff),
];

/// Whether the address, taken as one of a /64, has a reserved interface identifier.
pub(crate) fn is_reserved(address: u128) -> bool {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is what is meant")]
    let identifier = address as u64;
    RESERVED.iter().any(|&(first, last)| first <= identifier && identifier <= last)
}

/// The numbers of `first..=last` whose low bit is among `parities` and that are not reserved.
pub(crate) fn count_usable(first: u128, last: u128, parities: &[u128]) -> u128 {
    parities
        .iter()
        .map(|&parity| {
            let up_to = |end: u128| usable_below(end, parity);
            // `last` is never the last of all addresses: those are multicast.
            up_to(last.saturating_add(1)) - up_to(first)
        })
        .sum()
}

/// The numbers below `end` with this low bit that are not reserved.
fn usable_below(end: u128, parity: u128) -> u128 {
    let below = |end: u128| (end + 1 - parity) / 2;
    let networks = end >> 64;
    let rest = end & u128::from(u64::MAX);
    let reserved: u128 = RESERVED
        .iter()
        .map(|&(first, last)| {
            let (first, end) = (u128::from(first), u128::from(last) + 1);
            let count = |end: u128| below(end) - below(first.min(end));
            networks * count(end) + count(end.min(rest))
        })
        .sum();
    below(end) - reserved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_agrees_with_trying_each() {
        let net = 0x2001_0db8_u128 << 96;
        for base in [0, 0x0200_5eff_fdff_ff00_u128, 0x0200_5eff_feff_ff00, 0xfdff_ffff_ffff_ff00] {
            for (from, to) in [(0_u128, 0x1ff_u128), (1, 1), (0x80, 0x100), (7, 0x180)] {
                for parities in [&[0_u128, 1][..], &[0], &[1]] {
                    let (first, last) = (net + base + from, net + base + to);
                    let slow = (first..=last)
                        .filter(|a| parities.contains(&(a & 1)) && !is_reserved(*a))
                        .count();
                    assert_eq!(count_usable(first, last, parities), slow as u128);
                }
            }
        }
    }

    #[test]
    fn a_64_loses_the_registry() {
        let net = 0x2001_0db8_u128 << 96;
        let all = count_usable(net, net | u128::from(u64::MAX), &[0, 1]);
        assert_eq!(all, (1 << 64) - 1 - (1 << 24) - 128);
    }
}
