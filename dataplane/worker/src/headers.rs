//! Ethernet, VLAN, IPv6 and UDP headers around a DHCPv6 message, read and written in place.

use std::net::Ipv6Addr;

/// Room before the payload of a reply: Ethernet with two VLAN tags, IPv6 and UDP need 70 octets.
pub(crate) const PAYLOAD_OFFSET: usize = 128;

const ETHERTYPE_IPV6: u16 = 0x86dd;
/// TPIDs of customer and service VLAN tags (IEEE 802.1Q).
const TPIDS: [u16; 2] = [0x8100, 0x88a8];
const NEXT_HEADER_UDP: u8 = 17;
/// What routers expect of a host that answers from nearby and from afar (RFC 8200 leaves it open;
/// 64 is the assigned default).
const HOP_LIMIT: u8 = 64;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
const ETHERNET_LEN: usize = 14;
const VLAN_TAG_LEN: usize = 4;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// The link-layer header of a received frame: what a reply turns around.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct LinkHeader {
    pub(crate) destination: Mac,
    pub(crate) source: Mac,
    /// VLAN tags and EtherType as they stood in the frame.
    tail: [u8; 2 * VLAN_TAG_LEN + 2],
    tail_len: u8,
}

/// Where a received datagram came from and went to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Datagram {
    pub(crate) link: LinkHeader,
    pub(crate) source: Ipv6Addr,
    pub(crate) destination: Ipv6Addr,
    pub(crate) source_port: u16,
    /// Octets before the UDP payload.
    pub(crate) payload_at: usize,
    /// Octets of the UDP payload.
    pub(crate) payload_len: usize,
}

/// Reads the headers of a frame; `None` if it is not a whole IPv6/UDP datagram without extension
/// headers. The XDP program lets nothing else through, but lengths are for this side to check.
pub(crate) fn parse(frame: &[u8]) -> Option<Datagram> {
    let mut link = LinkHeader {
        destination: frame.get(0..6)?.try_into().ok()?,
        source: frame.get(6..12)?.try_into().ok()?,
        ..LinkHeader::default()
    };
    let mut at = 12;
    let mut tags = 0;
    loop {
        let ethertype = u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?);
        at += 2;
        if ethertype == ETHERTYPE_IPV6 {
            break;
        }
        if !TPIDS.contains(&ethertype) || tags == 2 {
            return None;
        }
        at += 2;
        tags += 1;
    }
    let tail = frame.get(12..at)?;
    link.tail.get_mut(..tail.len())?.copy_from_slice(tail);
    link.tail_len = u8::try_from(tail.len()).ok()?;

    let ip = frame.get(at..)?;
    let (header, rest) = ip.split_first_chunk::<IPV6_LEN>()?;
    if header[0] >> 4 != 6 || header[6] != NEXT_HEADER_UDP {
        return None;
    }
    // A frame may be padded: the IPv6 length counts.
    let ip_payload = rest.get(..usize::from(u16::from_be_bytes([header[4], header[5]])))?;
    let (udp, payload) = ip_payload.split_first_chunk::<UDP_LEN>()?;
    let udp_len = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
    let payload_len = udp_len.checked_sub(UDP_LEN)?;
    if payload_len > payload.len() {
        return None;
    }
    let address = |at: usize| -> Option<Ipv6Addr> {
        Some(Ipv6Addr::from(<[u8; 16]>::try_from(header.get(at..at + 16)?).ok()?))
    };
    Some(Datagram {
        link,
        source: address(8)?,
        destination: address(24)?,
        source_port: u16::from_be_bytes([udp[0], udp[1]]),
        payload_at: at + IPV6_LEN + UDP_LEN,
        payload_len,
    })
}

/// The addresses of a reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyTo {
    pub(crate) link: LinkHeader,
    pub(crate) source_mac: Mac,
    pub(crate) source: Ipv6Addr,
    pub(crate) source_port: u16,
    pub(crate) destination: Ipv6Addr,
    pub(crate) destination_port: u16,
}

/// Writes the headers in front of the payload that stands at [`PAYLOAD_OFFSET`] and returns where
/// the frame begins and how long it is.
///
/// `None` if the payload does not fit into the buffer or into a UDP datagram.
pub(crate) fn emit(buffer: &mut [u8], payload_len: usize, to: &ReplyTo) -> Option<(usize, usize)> {
    let udp_len = u16::try_from(payload_len + UDP_LEN).ok()?;
    let tail_len = usize::from(to.link.tail_len);
    let (before, rest) = buffer.split_at_mut_checked(PAYLOAD_OFFSET)?;
    let payload = rest.get(..payload_len)?;
    let link_len = ETHERNET_LEN - 2 + tail_len;
    let start = PAYLOAD_OFFSET - UDP_LEN - IPV6_LEN - link_len;
    let header = before.get_mut(start..)?;
    let (link, header) = header.split_at_mut_checked(link_len)?;
    link[0..6].copy_from_slice(&to.link.source);
    link[6..12].copy_from_slice(&to.source_mac);
    link[12..].copy_from_slice(&to.link.tail[..tail_len]);

    let (ip, udp) = header.split_at_mut_checked(IPV6_LEN)?;
    ip[0..4].copy_from_slice(&[0x60, 0, 0, 0]);
    ip[4..6].copy_from_slice(&udp_len.to_be_bytes());
    ip[6] = NEXT_HEADER_UDP;
    ip[7] = HOP_LIMIT;
    ip[8..24].copy_from_slice(&to.source.octets());
    ip[24..40].copy_from_slice(&to.destination.octets());

    udp[0..2].copy_from_slice(&to.source_port.to_be_bytes());
    udp[2..4].copy_from_slice(&to.destination_port.to_be_bytes());
    udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
    udp[6..8].copy_from_slice(&[0, 0]);
    // Pseudo-header (RFC 8200 section 8.1): both addresses, length, next header.
    let pseudo_header = sum(&ip[8..40]) + u64::from(udp_len) + u64::from(NEXT_HEADER_UDP);
    let checksum = finish_checksum(pseudo_header + sum(udp) + sum(payload));
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    Some((start, link_len + IPV6_LEN + UDP_LEN + payload_len))
}

/// Ones-complement sum of 16-bit words in network order, carries not yet folded in.
fn sum(octets: &[u8]) -> u64 {
    let mut chunks = octets.chunks_exact(4);
    let mut total = 0;
    for chunk in &mut chunks {
        // 2^16 is congruent to 1 modulo 2^16 - 1, so 32-bit words may be added as they are.
        total += u64::from(u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
    }
    match *chunks.remainder() {
        [a] => total + u64::from(u32::from_be_bytes([a, 0, 0, 0])),
        [a, b] => total + u64::from(u32::from_be_bytes([a, b, 0, 0])),
        [a, b, c] => total + u64::from(u32::from_be_bytes([a, b, c, 0])),
        _ => total,
    }
}

/// Folds the carries and complements; a zero is sent as all ones (RFC 8200 section 8.1).
fn finish_checksum(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !u16::try_from(sum).unwrap_or(0) {
        0 => 0xffff,
        checksum => checksum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(tags: &[u8], payload: &[u8]) -> Vec<u8> {
        let udp_len = u16::try_from(payload.len() + 8).unwrap().to_be_bytes();
        let mut frame = vec![0x33, 0x33, 0, 1, 0, 2, 2, 0, 0, 0, 0, 9];
        frame.extend_from_slice(tags);
        frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, udp_len[0], udp_len[1], 17, 1]);
        frame.extend_from_slice(&"fe80::9".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend_from_slice(&"ff02::1:2".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend_from_slice(&[0x02, 0x22, 0x02, 0x23, udp_len[0], udp_len[1], 0, 0]);
        frame.extend_from_slice(payload);
        frame
    }

    /// The checksum over a datagram with its checksum in place is zero (all ones before the
    /// complement).
    fn verifies(frame: &[u8], at: usize) -> bool {
        let ip = &frame[at..];
        let mut total = sum(&ip[8..40]) + u64::from(u16::from_be_bytes([ip[4], ip[5]])) + 17;
        total += sum(&ip[40..]);
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        total == 0xffff
    }

    #[test]
    fn a_reply_turns_the_request_around() {
        for tags in [&[][..], &[0x81, 0, 0, 7], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9]] {
            let frame = request(tags, &[1, 2, 3, 4, 5]);
            let datagram = parse(&frame).unwrap();
            assert_eq!(&frame[datagram.payload_at..][..datagram.payload_len], [1, 2, 3, 4, 5]);
            assert_eq!(datagram.source_port, 546);
            let mut buffer = vec![0xaa; 512];
            buffer[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 7].copy_from_slice(&[9; 7]);
            let to = ReplyTo {
                link: datagram.link,
                source_mac: [2, 0, 0, 0, 0, 1],
                source: "fe80::1".parse().unwrap(),
                source_port: 547,
                destination: datagram.source,
                destination_port: 546,
            };
            let (start, len) = emit(&mut buffer, 7, &to).unwrap();
            let reply = &buffer[start..start + len];
            let back = parse(reply).unwrap();
            assert_eq!(back.link.destination, [2, 0, 0, 0, 0, 9]);
            assert_eq!(back.link.source, [2, 0, 0, 0, 0, 1]);
            assert_eq!(back.link.tail, datagram.link.tail);
            assert_eq!((back.source, back.destination), (to.source, datagram.source));
            assert_eq!(&reply[back.payload_at..][..back.payload_len], [9; 7]);
            assert!(verifies(reply, 14 + tags.len()));
        }
    }

    #[test]
    fn checksums_of_odd_lengths_verify() {
        for len in 0..40 {
            let frame = request(&[], &[]);
            let link = parse(&frame).unwrap().link;
            let mut buffer = vec![0x5a; 512];
            let to = ReplyTo {
                link,
                source_mac: [0; 6],
                source: Ipv6Addr::LOCALHOST,
                source_port: 547,
                destination: Ipv6Addr::LOCALHOST,
                destination_port: 546,
            };
            let (start, frame_len) = emit(&mut buffer, len, &to).unwrap();
            assert!(verifies(&buffer[start..start + frame_len], 14), "payload of {len}");
        }
    }

    #[test]
    fn cut_frames_are_refused() {
        let frame = request(&[0x81, 0, 0, 7], &[1, 2, 3]);
        for cut in 0..frame.len() {
            assert_eq!(parse(&frame[..cut]), None, "cut at {cut}");
        }
        let mut padded = frame.clone();
        padded.extend_from_slice(&[0; 20]);
        assert_eq!(parse(&padded).unwrap().payload_len, 3);
    }

    #[test]
    fn other_protocols_are_refused() {
        let mut frame = request(&[], &[1]);
        frame[20] = 6;
        assert_eq!(parse(&frame), None);
        let three_tags = [0x81, 0, 0, 1, 0x81, 0, 0, 1, 0x81, 0, 0, 1];
        assert_eq!(parse(&request(&three_tags, &[1])), None);
    }
}
