//! Ethernet, IPv6 and UDP around a datagram, for sending and receiving without the kernel's stack.

use std::net::Ipv6Addr;

/// Octets in front of the DHCPv6 message: Ethernet 14, IPv6 40, UDP 8.
pub const HEADERS_LEN: usize = 62;
const IPV6_AT: usize = 14;
const UDP_AT: usize = 54;
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const NEXT_HEADER_UDP: u8 = 17;

/// One end of a conversation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct End {
    /// Hardware address.
    pub mac: [u8; 6],
    /// Address.
    pub address: Ipv6Addr,
    /// UDP port.
    pub port: u16,
}

/// The MAC address that carries a multicast address (RFC 2464 section 7).
#[must_use]
pub fn multicast_mac(address: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = address.octets();
    [0x33, 0x33, a, b, c, d]
}

/// Headers that are the same for all packets; only lengths and checksum are filled in for each.
#[derive(Clone, Debug)]
pub struct Headers {
    octets: [u8; HEADERS_LEN],
    /// Sum over the parts of pseudo-header and UDP header that never change (RFC 8200 section 8.1).
    sum: u64,
}

impl Headers {
    /// Headers of packets from `source` to `destination`. Multicast keeps to the link.
    #[must_use]
    pub fn new(source: &End, destination: &End) -> Self {
        let mut octets = [0; HEADERS_LEN];
        octets[..6].copy_from_slice(&destination.mac);
        octets[6..12].copy_from_slice(&source.mac);
        octets[12..14].copy_from_slice(&ETHERTYPE_IPV6);
        octets[IPV6_AT] = 0x60;
        octets[IPV6_AT + 6] = NEXT_HEADER_UDP;
        octets[IPV6_AT + 7] = if destination.address.is_multicast() { 1 } else { 64 };
        octets[IPV6_AT + 8..IPV6_AT + 24].copy_from_slice(&source.address.octets());
        octets[IPV6_AT + 24..UDP_AT].copy_from_slice(&destination.address.octets());
        octets[UDP_AT..UDP_AT + 2].copy_from_slice(&source.port.to_be_bytes());
        octets[UDP_AT + 2..UDP_AT + 4].copy_from_slice(&destination.port.to_be_bytes());
        let sum = sum(&octets[IPV6_AT + 8..UDP_AT + 4]) + u64::from(NEXT_HEADER_UDP);
        Self { octets, sum }
    }

    /// Puts the headers in front of the `len` octets of payload that already stand at
    /// [`HEADERS_LEN`], and returns the length of the frame; `None` if it does not fit.
    #[inline]
    #[must_use]
    pub fn complete(&self, frame: &mut [u8], len: usize) -> Option<usize> {
        let total = HEADERS_LEN + len;
        let udp_len = u16::try_from(len + 8).ok()?;
        let frame = frame.get_mut(..total)?;
        let (headers, payload) = frame.split_at_mut(HEADERS_LEN);
        headers.copy_from_slice(&self.octets);
        headers[IPV6_AT + 4..IPV6_AT + 6].copy_from_slice(&udp_len.to_be_bytes());
        headers[UDP_AT + 4..UDP_AT + 6].copy_from_slice(&udp_len.to_be_bytes());
        // The length counts twice: in the pseudo-header and in the UDP header.
        let checksum = !fold(self.sum + 2 * u64::from(udp_len) + sum(payload));
        let checksum = if checksum == 0 { 0xffff } else { checksum };
        headers[UDP_AT + 6..UDP_AT + 8].copy_from_slice(&checksum.to_be_bytes());
        Some(total)
    }
}

/// A received datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub source: End,
    /// Port to which it came.
    pub destination_port: u16,
    /// The DHCPv6 message.
    pub payload: &'a [u8],
}

/// Reads a frame. The checksum is not looked at: a virtual interface hands over frames of the
/// kernel's stack before theirs is complete.
#[inline]
#[must_use]
pub fn parse(frame: &[u8]) -> Option<Datagram<'_>> {
    let (headers, payload) = frame.split_first_chunk::<HEADERS_LEN>()?;
    if headers[12..14] != ETHERTYPE_IPV6
        || headers[IPV6_AT] >> 4 != 6
        || headers[IPV6_AT + 6] != NEXT_HEADER_UDP
    {
        return None;
    }
    let be16 = |at: usize| u16::from_be_bytes([headers[at], headers[at + 1]]);
    let len = usize::from(be16(UDP_AT + 4)).checked_sub(8)?;
    let mut mac = [0; 6];
    mac.copy_from_slice(&headers[6..12]);
    let mut address = [0; 16];
    address.copy_from_slice(&headers[IPV6_AT + 8..IPV6_AT + 24]);
    Some(Datagram {
        source: End { mac, address: Ipv6Addr::from(address), port: be16(UDP_AT) },
        destination_port: be16(UDP_AT + 2),
        payload: payload.get(..len)?,
    })
}

/// Turns a received frame into the one that goes back: what it carries stays, the addresses and ports
/// of both ends change places. What was sent to a group comes from `mac` and `address`. False, and
/// nothing done, for anything but UDP right behind IPv6.
///
/// The checksum is brought up to date from the difference (RFC 1624), so it is as right or as wrong
/// as it was.
#[must_use]
pub fn reflect(frame: &mut [u8], mac: [u8; 6], address: Ipv6Addr) -> bool {
    let Some(headers) = frame.first_chunk_mut::<HEADERS_LEN>() else { return false };
    if headers[12..14] != ETHERTYPE_IPV6
        || headers[IPV6_AT] >> 4 != 6
        || headers[IPV6_AT + 6] != NEXT_HEADER_UDP
    {
        return false;
    }
    headers.copy_within(6..12, 0);
    headers[6..12].copy_from_slice(&mac);
    let (source, destination) = (IPV6_AT + 8, IPV6_AT + 24);
    let mut asked = [0; 16];
    asked.copy_from_slice(&headers[destination..UDP_AT]);
    headers.copy_within(source..destination, destination);
    let own = if Ipv6Addr::from(asked).is_multicast() { address.octets() } else { asked };
    headers[source..destination].copy_from_slice(&own);
    headers[UDP_AT..UDP_AT + 4].rotate_left(2);
    if own != asked {
        let old = u16::from_be_bytes([headers[UDP_AT + 6], headers[UDP_AT + 7]]);
        let removed = u64::from(!fold(sum(&asked)));
        let checksum = !fold(u64::from(!old) + removed + sum(&own));
        let checksum = if checksum == 0 { 0xffff } else { checksum };
        headers[UDP_AT + 6..UDP_AT + 8].copy_from_slice(&checksum.to_be_bytes());
    }
    true
}

/// Sum of big-endian 16-bit words, not folded; an odd octet at the end counts as high.
fn sum(octets: &[u8]) -> u64 {
    // Words of 32 bits keep the sum right modulo 2^16 - 1 and halve the additions.
    let (words, tail) = octets.as_chunks::<4>();
    let mut total: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..tail.len()].copy_from_slice(tail);
    total += u64::from(u32::from_be_bytes(last));
    total
}

#[allow(clippy::cast_possible_truncation)] // the loop ends below 2^16
fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> (End, End) {
        let destination = gemel_wire::ALL_RELAY_AGENTS_AND_SERVERS;
        (
            End { mac: [2, 0, 0, 0, 0, 1], address: "fe80::1".parse().unwrap(), port: 546 },
            End { mac: multicast_mac(destination), address: destination, port: 547 },
        )
    }

    /// A receiver's check (RFC 768, RFC 8200 section 8.1): the sum over all is all ones.
    fn checksum_is_right(frame: &[u8]) -> bool {
        let udp_len = (frame.len() - UDP_AT) as u64;
        let pseudo = sum(&frame[IPV6_AT + 8..UDP_AT]) + udp_len + u64::from(NEXT_HEADER_UDP);
        fold(pseudo + sum(&frame[UDP_AT..])) == 0xffff
    }

    #[test]
    fn a_reflected_frame_goes_back() {
        let (source, destination) = ends();
        let own: Ipv6Addr = "fe80::ab:cdef".parse().unwrap();
        for payload in [&b"hello"[..], &[0xff; 64]] {
            for destination in [destination, End { address: own, ..destination }] {
                let mut frame = [0; 200];
                frame[HEADERS_LEN..HEADERS_LEN + payload.len()].copy_from_slice(payload);
                let headers = Headers::new(&source, &destination);
                let len = headers.complete(&mut frame, payload.len()).unwrap();
                let frame = &mut frame[..len];
                assert!(checksum_is_right(frame));
                assert!(reflect(frame, [2, 0, 0, 0, 0, 9], own));
                assert!(checksum_is_right(frame), "{frame:02x?}");
                assert_eq!(frame[..6], source.mac);
                assert_eq!(frame[IPV6_AT + 24..UDP_AT], source.address.octets());
                let datagram = parse(frame).unwrap();
                let from = End { mac: [2, 0, 0, 0, 0, 9], address: own, port: 547 };
                assert_eq!((datagram.source, datagram.destination_port), (from, source.port));
                assert_eq!(datagram.payload, payload);
            }
        }
        assert!(!reflect(&mut [0; 100], [0; 6], own));
        assert!(!reflect(&mut [0; 10], [0; 6], own));
    }

    #[test]
    fn a_frame_reads_back() {
        let (source, destination) = ends();
        assert_eq!(destination.mac, [0x33, 0x33, 0, 1, 0, 2]);
        let mut frame = [0; 200];
        frame[HEADERS_LEN..HEADERS_LEN + 5].copy_from_slice(b"hello");
        let len = Headers::new(&source, &destination).complete(&mut frame, 5).unwrap();
        let datagram = parse(&frame[..len]).unwrap();
        assert_eq!(datagram.source, source);
        assert_eq!((datagram.destination_port, datagram.payload), (547, &b"hello"[..]));
        assert_eq!(parse(&frame[..len - 1]), None, "cut off");
        assert_eq!(Headers::new(&source, &destination).complete(&mut frame, 139), None, "too long");
    }

    /// The definition of the checksum: the ones' complement sum over pseudo-header, UDP header and
    /// payload, checksum included, is all ones.
    #[test]
    fn checksums_sum_up_to_all_ones() {
        let (source, destination) = ends();
        let headers = Headers::new(&source, &destination);
        for len in 0..64 {
            let mut frame = [0; 200];
            for (i, octet) in frame[HEADERS_LEN..HEADERS_LEN + len].iter_mut().enumerate() {
                *octet = u8::try_from(i * 37 % 251).unwrap();
            }
            let total = headers.complete(&mut frame, len).unwrap();
            let mut words: u32 = 17 + u32::try_from(len).unwrap() + 8;
            for pair in frame[IPV6_AT + 8..total].chunks(2) {
                words += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            }
            while words >> 16 != 0 {
                words = (words & 0xffff) + (words >> 16);
            }
            assert_eq!(words, 0xffff, "payload of {len}");
        }
    }

    #[test]
    fn other_traffic_is_not_ours() {
        let (source, destination) = ends();
        let mut frame = [0; 100];
        let len = Headers::new(&source, &destination).complete(&mut frame, 8).unwrap();
        for (at, value) in [(13, 0), (14, 0x45), (20, 6)] {
            let mut other = frame;
            other[at] = value;
            assert_eq!(parse(&other[..len]), None, "octet {at}");
        }
    }
}
