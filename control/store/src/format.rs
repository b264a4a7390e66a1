//! What a journal segment looks like on disk.
//!
//! A segment is a header in the first sector and then batches, each beginning on a sector. Numbers
//! are little-endian. A sector that holds a durable batch is never written again until the segment
//! is used anew, so that a write torn by a power cut cannot reach it.
//!
//! Segment header: magic (8), format version (u32), zero (u32), store id (16), generation (u64),
//! first sequence (u64), octets of the segment (u64), CRC32C of all that (u32).
//!
//! Batch header: magic (u32), CRC32C (u32), generation (u64), sequence (u64), the last sequence that
//! was durable when the batch was written (u64), octets of the payload (u32), flags (u32). The
//! payload is binding records one after the other. The CRC begins with the store id and covers the
//! payload and then the header behind the CRC.
//!
//! Each use of a segment file has a generation of its own, larger than all before. A segment voids
//! every sequence from its first on in the segments of smaller generation: that is how batches whose
//! sync failed, and the torn tail that an earlier run left, are written off without touching them.

/// Batches begin at multiples of this.
pub(crate) const SECTOR: usize = 512;
/// Octets of a batch before its payload.
pub(crate) const BATCH_HEADER_LEN: usize = 40;
/// Where the first batch of a segment begins.
pub(crate) const FIRST_BATCH: usize = SECTOR;

const SEGMENT_MAGIC: [u8; 8] = *b"GEMELJNL";
const SEGMENT_HEADER_LEN: usize = 60;
const VERSION: u32 = 1;
const BATCH_MAGIC: u32 = 0x4843_5442;
/// Flag: acknowledged without a sync.
const FLAG_PROCESS: u32 = 1;

/// The first sector of a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SegmentHeader {
    pub(crate) store_id: [u8; 16],
    pub(crate) generation: u64,
    pub(crate) first_sequence: u64,
    pub(crate) segment_len: u64,
}

/// Why a first sector is not a segment header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NotHeader {
    /// Only zeros: prepared and never used.
    Blank,
    /// Another format version.
    Version(u32),
    /// Anything else.
    Garbage,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SECTOR] {
        let mut sector = [0; SECTOR];
        sector[..8].copy_from_slice(&SEGMENT_MAGIC);
        sector[8..12].copy_from_slice(&VERSION.to_le_bytes());
        sector[16..32].copy_from_slice(&self.store_id);
        sector[32..40].copy_from_slice(&self.generation.to_le_bytes());
        sector[40..48].copy_from_slice(&self.first_sequence.to_le_bytes());
        sector[48..56].copy_from_slice(&self.segment_len.to_le_bytes());
        let crc = crc32c::crc32c(&sector[..56]);
        sector[56..SEGMENT_HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
        sector
    }

    pub(crate) fn decode(octets: &[u8]) -> Result<Self, NotHeader> {
        let head = octets.get(..SEGMENT_HEADER_LEN).ok_or(NotHeader::Garbage)?;
        if head.iter().all(|&octet| octet == 0) {
            return Err(NotHeader::Blank);
        }
        if head[..8] != SEGMENT_MAGIC {
            return Err(NotHeader::Garbage);
        }
        if crc32c::crc32c(&head[..56]) != u32_at(head, 56) {
            return Err(NotHeader::Garbage);
        }
        let version = u32_at(head, 8);
        if version != VERSION {
            return Err(NotHeader::Version(version));
        }
        let mut store_id = [0; 16];
        store_id.copy_from_slice(&head[16..32]);
        Ok(Self {
            store_id,
            generation: u64_at(head, 32),
            first_sequence: u64_at(head, 40),
            segment_len: u64_at(head, 48),
        })
    }
}

/// The fields of a batch header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BatchHeader {
    pub(crate) generation: u64,
    pub(crate) sequence: u64,
    /// All sequences up to this one were acknowledged when the batch was written.
    pub(crate) durable: u64,
    /// Acknowledged without a sync.
    pub(crate) process: bool,
    /// Octets of the payload.
    pub(crate) len: u32,
}

/// What the CRC of every batch of this store begins with.
pub(crate) fn salt(store_id: &[u8; 16]) -> u32 {
    crc32c::crc32c(store_id)
}

impl BatchHeader {
    /// `payload_crc` is the CRC of salt and payload.
    pub(crate) fn encode(&self, payload_crc: u32) -> [u8; BATCH_HEADER_LEN] {
        let mut head = [0; BATCH_HEADER_LEN];
        head[..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
        head[8..16].copy_from_slice(&self.generation.to_le_bytes());
        head[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        head[24..32].copy_from_slice(&self.durable.to_le_bytes());
        head[32..36].copy_from_slice(&self.len.to_le_bytes());
        let flags = if self.process { FLAG_PROCESS } else { 0 };
        head[36..40].copy_from_slice(&flags.to_le_bytes());
        let crc = crc32c::crc32c_append(payload_crc, &head[8..]);
        head[4..8].copy_from_slice(&crc.to_le_bytes());
        head
    }

    /// The header at the beginning of `octets`, its CRC not looked at.
    pub(crate) fn peek(octets: &[u8]) -> Option<Self> {
        let head = octets.get(..BATCH_HEADER_LEN)?;
        let flags = u32_at(head, 36);
        if u32_at(head, 0) != BATCH_MAGIC || flags & !FLAG_PROCESS != 0 {
            return None;
        }
        Some(Self {
            generation: u64_at(head, 8),
            sequence: u64_at(head, 16),
            durable: u64_at(head, 24),
            process: flags & FLAG_PROCESS != 0,
            len: u32_at(head, 32),
        })
    }

    /// Octets that the batch takes up on disk.
    pub(crate) fn stored_len(&self) -> usize {
        stored_len(self.len as usize)
    }
}

/// Octets that a batch with this payload takes up.
pub(crate) fn stored_len(payload: usize) -> usize {
    (BATCH_HEADER_LEN + payload).next_multiple_of(SECTOR)
}

/// The batch at the beginning of `octets`, if a whole one is there.
pub(crate) fn batch(octets: &[u8], salt: u32) -> Option<(BatchHeader, &[u8])> {
    let header = BatchHeader::peek(octets)?;
    let end = BATCH_HEADER_LEN.checked_add(header.len as usize)?;
    let payload = octets.get(BATCH_HEADER_LEN..end)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(salt, payload), &octets[8..40]);
    (crc == u32_at(octets, 4) || switches::crc_ignored()).then_some((header, payload))
}

/// All whole batches in the image of a segment with their offsets, also behind damage.
///
/// `accept` looks at a header before the CRC is computed.
pub(crate) fn batches<'a>(
    image: &'a [u8],
    salt: u32,
    accept: impl Fn(&BatchHeader) -> bool + 'a,
) -> impl Iterator<Item = (usize, BatchHeader, &'a [u8])> + 'a {
    let mut at = FIRST_BATCH;
    std::iter::from_fn(move || {
        while let Some(rest) = image.get(at..).filter(|rest| !rest.is_empty()) {
            let found = BatchHeader::peek(rest)
                .filter(&accept)
                .and_then(|_| batch(rest, salt))
                .map(|(header, payload)| (at, header, payload));
            at += found.map_or(SECTOR, |(_, header, _)| header.stored_len());
            if found.is_some() {
                return found;
            }
        }
        None
    })
}

/// Hands out the batches in a part of a segment that begins on a sector, as [`batches`] does.
///
/// Unless the part is the `last`, it ends before the first batch that seems to go on behind the part.
/// Tells where.
pub(crate) fn scan<'a>(
    part: &'a [u8],
    last: bool,
    salt: u32,
    accept: impl Fn(&BatchHeader) -> bool,
    mut each: impl FnMut(usize, BatchHeader, &'a [u8]),
) -> usize {
    let mut at = 0;
    while at < part.len() {
        let rest = &part[at..];
        let header = BatchHeader::peek(rest).filter(&accept);
        if !last && header.is_some_and(|header| header.stored_len() > rest.len()) {
            break;
        }
        at += match header.and_then(|_| batch(rest, salt)) {
            Some((header, payload)) => {
                each(at, header, payload);
                header.stored_len()
            }
            None => SECTOR,
        };
    }
    at
}

/// A record and what follows it.
type Split<'a> = Option<(&'a [u8], &'a [u8])>;

/// The first record of stored updates, length field included, and what follows it. `None` at the
/// end; the error is what is left when it is no record.
pub(crate) fn split_record(updates: &[u8]) -> Result<Split<'_>, &[u8]> {
    let Some(len) = updates.first_chunk::<2>() else {
        return if updates.is_empty() { Ok(None) } else { Err(updates) };
    };
    updates.split_at_checked(2 + usize::from(u16::from_le_bytes(*len))).map(Some).ok_or(updates)
}

fn u32_at(octets: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&octets[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(octets: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&octets[at..at + 8]);
    u64::from_le_bytes(number)
}

/// What tests switch off to see that they would notice.
#[cfg(not(test))]
mod switches {
    pub(super) const fn crc_ignored() -> bool {
        false
    }
}

#[cfg(test)]
pub(crate) mod switches {
    use std::cell::Cell;

    thread_local! {
        /// Take every batch whose header looks right.
        pub(crate) static CRC_IGNORED: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) fn crc_ignored() -> bool {
        CRC_IGNORED.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(payloads: &[&[u8]]) -> (Vec<u8>, u32) {
        let salt = salt(&[7; 16]);
        let mut image = vec![0; FIRST_BATCH];
        for (sequence, payload) in (1..).zip(payloads) {
            let header = BatchHeader {
                generation: 3,
                sequence,
                durable: sequence - 1,
                process: false,
                len: u32::try_from(payload.len()).unwrap(),
            };
            let end = image.len() + header.stored_len();
            image.extend_from_slice(&header.encode(crc32c::crc32c_append(salt, payload)));
            image.extend_from_slice(payload);
            image.resize(end, 0);
        }
        (image, salt)
    }

    #[test]
    fn segment_header_round_trip_and_every_flipped_bit() {
        let header = SegmentHeader {
            store_id: [9; 16],
            generation: 5,
            first_sequence: 77,
            segment_len: 1 << 20,
        };
        let sector = header.encode();
        assert_eq!(SegmentHeader::decode(&sector), Ok(header));
        assert_eq!(SegmentHeader::decode(&[0; SECTOR]), Err(NotHeader::Blank));
        for bit in 0..SEGMENT_HEADER_LEN * 8 {
            let mut broken = sector;
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&broken).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn damage_costs_the_batch_it_hits_and_no_other() {
        let payloads: [&[u8]; 4] = [&[1; 10], &[2; 2000], &[], &[4; 472]];
        let (image, salt) = image(&payloads);
        let all: Vec<_> =
            batches(&image, salt, |_| true).map(|(at, h, p)| (at, h.sequence, p)).collect();
        assert_eq!(all.iter().map(|b| b.2).collect::<Vec<_>>(), payloads);
        for (index, &(at, ..)) in all.iter().enumerate() {
            for octet in at..at + BATCH_HEADER_LEN + payloads[index].len() {
                let mut broken = image.clone();
                broken[octet] ^= 0x10;
                let left: Vec<_> =
                    batches(&broken, salt, |_| true).map(|(_, h, _)| h.sequence).collect();
                let expected: Vec<_> =
                    all.iter().map(|b| b.1).filter(|&s| s != all[index].1).collect();
                assert_eq!(left, expected, "octet {octet}");
            }
        }
    }

    #[test]
    fn a_scan_in_parts_finds_what_a_scan_of_the_whole_finds() {
        let long = [5; 3000];
        let (mut image, salt) = image(&[&[1; 10], &long, &[], &[2; 900], &long, &[4; 472]]);
        // Damage that leaves a header, and one that makes a batch look longer than the segment.
        image[FIRST_BATCH + SECTOR + 50] ^= 1;
        let third = FIRST_BATCH + SECTOR + stored_len(long.len());
        image[third + 34] = 0xff;
        let whole: Vec<_> = batches(&image, salt, |_| true).collect();
        assert_eq!(whole.len(), 4);
        for window in (1..20).map(|sectors| sectors * SECTOR) {
            let mut found = Vec::new();
            let (mut start, mut len) = (FIRST_BATCH, window);
            while start < image.len() {
                let end = (start + len).min(image.len());
                let last = end == image.len();
                let take = |at, header, payload| found.push((start + at, header, payload));
                match scan(&image[start..end], last, salt, |_| true, take) {
                    0 => len *= 2,
                    done => (start, len) = (start + done, window),
                }
            }
            assert_eq!(found, whole, "{window}");
        }
    }

    #[test]
    fn batches_of_another_store_are_nothing() {
        let (image, _) = image(&[&[1; 10]]);
        assert_eq!(batches(&image, salt(&[8; 16]), |_| true).count(), 0);
    }

    #[test]
    fn records_are_split_by_their_length() {
        assert_eq!(split_record(&[]), Ok(None));
        assert_eq!(split_record(&[1, 0, 9, 2]), Ok(Some((&[1, 0, 9][..], &[2][..]))));
        assert_eq!(split_record(&[1]), Err(&[1][..]));
        assert_eq!(split_record(&[2, 0, 9]), Err(&[2, 0, 9][..]));
    }
}
