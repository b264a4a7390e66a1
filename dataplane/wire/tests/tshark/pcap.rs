//! A capture file written by hand: one TCP connection over IPv6 over Ethernet.

use std::net::Ipv6Addr;

/// The primary, on a port of its own choice.
const CLIENT: (Ipv6Addr, u16) = (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 40_000);
const SERVER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

const TCP: u8 = 6;
/// Five words.
const DATA_OFFSET: u8 = 5 << 4;
/// PSH and ACK.
const TCP_FLAGS: u8 = 0x18;

/// A pcap file (version 2.4, Ethernet) with these segments, from the client to `port`.
pub(crate) fn pcap(port: u16, segments: &[&[u8]]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0002_0004, 0, 0, 65_535 + 100, 1] {
        file.extend(word.to_be_bytes());
    }
    let mut sequence = 1_u32;
    for (number, segment) in (0_u32..).zip(segments) {
        let frame = ethernet(&tcp(port, sequence, segment));
        sequence += u32::try_from(segment.len()).unwrap();
        let len = u32::try_from(frame.len()).unwrap();
        for word in [number, 0, len, len] {
            file.extend(word.to_be_bytes());
        }
        file.extend(frame);
    }
    file
}

fn ethernet(segment: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(u16::try_from(segment.len()).unwrap().to_be_bytes());
    frame.extend([TCP, 64]);
    frame.extend(CLIENT.0.octets());
    frame.extend(SERVER.octets());
    frame.extend(segment);
    frame
}

fn tcp(port: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(CLIENT.1.to_be_bytes());
    segment.extend(port.to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend(1_u32.to_be_bytes());
    segment.extend([DATA_OFFSET, TCP_FLAGS]);
    segment.extend(8192_u16.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(payload);
    let sum = checksum(&segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// With the pseudo header of RFC 8200 section 8.1.
fn checksum(segment: &[u8]) -> u16 {
    let len = u32::try_from(segment.len()).unwrap().to_be_bytes();
    let pseudo = [&CLIENT.0.octets()[..], &SERVER.octets(), &len, &[0, 0, 0, TCP]].concat();
    let words = |octets: &[u8]| -> u32 {
        octets
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
            .sum()
    };
    let mut sum = words(&pseudo) + words(segment);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
