//! What the store needs of a record, without decoding all of it.

use gemel_lease::{RecordError, RecordHead};

use crate::pending::{self, Key};

/// The head of a record that can be decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Head {
    pub(crate) key: Key,
    pub(crate) stamp: u64,
    /// It only says that a lease is free.
    pub(crate) tombstone: bool,
}

impl Head {
    /// Reads the head of a record; fails where [`gemel_lease::Record::decode`] does.
    pub(crate) fn read(record: &[u8]) -> Result<Self, RecordError> {
        let RecordHead { lease, status, stamp, update_pending } = RecordHead::decode(record)?;
        let tombstone = pending::is_tombstone(status, update_pending);
        Ok(Self { key: pending::key(&lease), stamp, tombstone })
    }
}

#[cfg(test)]
mod tests {
    use gemel_lease::{BindingStatus, Record};

    use super::*;
    use crate::testing::{self, Random};

    #[test]
    fn a_head_is_what_decoding_says() {
        let mut random = Random::new(11);
        for number in 0..2_000 {
            let duid_len = usize::try_from(random.below(131)).unwrap();
            let mut binding = testing::binding(number, duid_len);
            binding.update_pending = random.chance(2);
            if random.chance(2) {
                binding.status = BindingStatus::Free;
            }
            let octets = testing::record(&binding, random.next());
            let Record { binding, stamp } = Record::decode(&octets).unwrap();
            let tombstone = pending::is_tombstone(binding.status, binding.update_pending);
            let head = Head { key: pending::key(&binding.lease), stamp, tombstone };
            assert_eq!(Head::read(&octets), Ok(head));
        }
    }
}
