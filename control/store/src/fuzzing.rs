//! The journal's reader against damaged segments, for the fuzz target.

use std::collections::BTreeMap;

use crate::{
    format::{self, BatchHeader, FIRST_BATCH, SECTOR, SegmentHeader},
    pending::Pending,
};

const GENERATION: u64 = 3;

/// Reads `data` as a segment, then builds a segment as `data` tells, damages it as `data` tells and
/// checks that exactly the batches are read back that the damage has spared.
///
/// # Panics
/// If the reader is wrong.
pub fn segment(data: &[u8]) {
    let salt = format::salt(&[7; 16]);
    let _ = SegmentHeader::decode(data);
    read(data, salt);

    let Some((&count, mut data)) = data.split_first() else { return };
    let mut image = vec![0; FIRST_BATCH];
    let mut written = BTreeMap::new();
    for sequence in 1..=u64::from(count % 8) {
        let Some((&len, rest)) = data.split_first() else { break };
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(len) * 8));
        data = rest;
        let header = BatchHeader {
            generation: GENERATION,
            sequence,
            durable: sequence - 1,
            process: false,
            len: u32::try_from(payload.len()).expect("at most 2040"),
        };
        let at = image.len();
        image.extend_from_slice(&header.encode(crc32c::crc32c_append(salt, payload)));
        image.extend_from_slice(payload);
        written.insert(at, (sequence, payload));
        image.resize(at + header.stored_len(), 0);
    }
    let whole = image.clone();
    for damage in data.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([damage[0], damage[1]]));
        if let Some(octet) = image.get_mut(at) {
            *octet ^= damage[2];
        }
    }
    let found = read(&image, salt);
    for (at, (sequence, payload)) in written {
        let end = at + format::BATCH_HEADER_LEN + payload.len();
        let spared = image[at..end] == whole[at..end];
        assert_eq!(found.get(&at).is_some_and(|found| *found == sequence), spared, "at {at}");
    }
}

fn read(image: &[u8], salt: u32) -> BTreeMap<usize, u64> {
    let mut pending = Pending::default();
    let mut found = BTreeMap::new();
    for (at, header, payload) in format::batches(image, salt, |_| true) {
        assert!(at % SECTOR == 0 && at + format::BATCH_HEADER_LEN + payload.len() <= image.len());
        pending.absorb(header.sequence, payload);
        found.insert(at, header.sequence);
    }
    assert!(pending.sorted().windows(2).all(|pair| pair[0].key < pair[1].key));
    found
}

#[cfg(test)]
mod tests {
    use crate::testing::Random;

    #[test]
    fn random_damage() {
        let mut random = Random::new(1);
        for _ in 0..5000 {
            let len = random.below(3000);
            let data: Vec<u8> = (0..len).map(|_| random.next().to_le_bytes()[0]).collect();
            super::segment(&data);
        }
    }
}
