//! What the store needs of a record, without decoding all of it.

use gemel_lease::{BindingStatus, IaKind, Record, RecordError};

use crate::pending::{self, Key};

/// The only version that is read in a hurry.
const VERSION: u8 = 2;
/// Where the fields of such a record begin, its length field counted; see `gemel_lease::Record`.
const KIND: usize = 3;
const STATUS: usize = 4;
const PREFIX_LEN: usize = 5;
const ADDRESS: usize = 6;
const STAMP: usize = 22;
const FLAGS: usize = 70;
const DUID_LEN: usize = 71;
const DUID: usize = 72;
const DUID_LEN_MAX: usize = 130;
const FLAG_UPDATE_PENDING: u8 = 1;

/// The head of a record that can be decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Head {
    pub(crate) key: Key,
    pub(crate) stamp: u64,
    /// It only says that a lease is free.
    pub(crate) tombstone: bool,
}

impl Head {
    /// Reads the head of a record; fails where [`Record::decode`] does.
    pub(crate) fn read(record: &[u8]) -> Result<Self, RecordError> {
        if let Some(head) = Self::quick(record) {
            return Ok(head);
        }
        let Record { binding, stamp } = Record::decode(record)?;
        let tombstone = pending::is_tombstone(&binding);
        Ok(Self { key: pending::key(&binding.lease), stamp, tombstone })
    }

    /// `None` for whatever is not as it mostly is.
    fn quick(record: &[u8]) -> Option<Self> {
        let (fixed, duid) = record.split_first_chunk::<DUID>()?;
        let sound = usize::from(u16::from_le_bytes([fixed[0], fixed[1]])) == record.len() - 2
            && fixed[2] == VERSION
            && usize::from(fixed[DUID_LEN]) == duid.len()
            && duid.len() <= DUID_LEN_MAX
            && fixed[PREFIX_LEN] <= 128;
        if !sound {
            return None;
        }
        IaKind::from_u8(fixed[KIND])?;
        let status = BindingStatus::from_u8(fixed[STATUS])?;
        let mut key = [0; 17];
        key[..16].copy_from_slice(&fixed[ADDRESS..ADDRESS + 16]);
        key[16] = fixed[PREFIX_LEN];
        let mut stamp = [0; 8];
        stamp.copy_from_slice(&fixed[STAMP..STAMP + 8]);
        let waits = fixed[FLAGS] & FLAG_UPDATE_PENDING != 0;
        Some(Self {
            key,
            stamp: u64::from_le_bytes(stamp),
            tombstone: status == BindingStatus::Free && !waits,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Random};

    /// By way of the whole record.
    fn decoded(octets: &[u8]) -> Result<Head, RecordError> {
        Record::decode(octets).map(|record| Head {
            key: pending::key(&record.binding.lease),
            stamp: record.stamp,
            tombstone: pending::is_tombstone(&record.binding),
        })
    }

    #[test]
    fn a_head_is_what_decoding_says() {
        let mut random = Random::new(11);
        for number in 0..20_000 {
            let below = |random: &mut Random, bound| usize::try_from(random.below(bound)).unwrap();
            let mut binding = testing::binding(number, below(&mut random, 131));
            binding.update_pending = random.chance(2);
            if random.chance(2) {
                binding.status = BindingStatus::Free;
            }
            let mut octets = testing::record(&binding, random.next());
            assert!(Head::quick(&octets).is_some());
            assert_eq!(Head::read(&octets), decoded(&octets));
            // One octet of the fields before the DUID changed at random, and a cut.
            let at = below(&mut random, DUID as u64);
            octets[at] = u8::try_from(random.below(256)).unwrap();
            assert_eq!(Head::read(&octets), decoded(&octets), "{octets:?}");
            octets.truncate(below(&mut random, octets.len() as u64));
            assert_eq!(Head::read(&octets), decoded(&octets), "{octets:?}");
        }
    }

    #[test]
    fn each_value_of_each_octet() {
        let octets = testing::record(&testing::binding(1, 14), 5);
        for at in 0..DUID {
            for value in 0..=255 {
                let mut changed = octets.clone();
                changed[at] = value;
                assert_eq!(Head::read(&changed), decoded(&changed), "{value} at {at}");
            }
        }
    }
}
