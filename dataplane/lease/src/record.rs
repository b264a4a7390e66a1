//! The stored form of a binding, the same in the journal and in the checkpoint.
//!
//! A record is: length of what follows (u16), version (u8), IA kind (u8), status (u8), prefix
//! length (u8), address (16), stamp (u64), IAID (u32), preferred and valid lifetime (u32 each),
//! the seven times of [`Binding`] in the order of its fields (u32 each), flags (u8), DUID length
//! (u8), DUID. Numbers are little-endian.
//!
//! Flag 1: an update to the partner is pending. Version 1, which had no partner, is read too: it
//! lacks the flags, and had the end of an active lease where version 2 has the expiration-time.

use std::net::Ipv6Addr;

use gemel_wire::IaId;

use crate::{AbsoluteTime, Binding, BindingStatus, ClientDuid, IaKind, Lease};

const VERSION: u8 = 2;
/// The version before the pair.
const VERSION_SOLE: u8 = 1;
const FLAG_UPDATE_PENDING: u8 = 1;
/// Octets of a record before the DUID, its own length field not counted.
const FIXED_LEN: usize = 1 + 1 + 1 + 1 + 16 + 8 + 4 + 4 + 4 + 7 * 4 + 1 + 1;

/// Takes binding updates from the server rules, in the order in which they were made.
pub trait UpdateSink {
    /// Takes one update. `stamp` orders all updates of a server: of two records of one lease, the
    /// one with the larger stamp is the later one, wherever they stand in the journal.
    fn push(&mut self, binding: &Binding, stamp: u64);
}

/// Binding updates in their stored form, one after the other: what a worker hands to the control
/// thread and what the journal appends as it is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UpdateBatch {
    octets: Vec<u8>,
    count: usize,
}

impl UpdateBatch {
    /// An empty batch with room for `octets`.
    #[must_use]
    pub fn with_capacity(octets: usize) -> Self {
        Self { octets: Vec::with_capacity(octets), count: 0 }
    }

    /// The stored form.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets
    }

    /// Number of updates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no update.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Forgets the updates, keeps the room.
    pub fn clear(&mut self) {
        self.octets.clear();
        self.count = 0;
    }

    /// The updates in order.
    #[must_use]
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter::new(&self.octets)
    }
}

impl UpdateSink for UpdateBatch {
    fn push(&mut self, binding: &Binding, stamp: u64) {
        encode(binding, stamp, &mut self.octets);
        self.count += 1;
    }
}

/// A binding and its stamp, as read back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// The binding.
    pub binding: Binding,
    /// Its place in the order of all updates.
    pub stamp: u64,
}

/// Stored octets that are not a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// The record ends early, or its parts do not add up to its length.
    #[error("binding record of {0} octets is cut short or has stray octets")]
    Length(usize),
    /// Written by a program that this one does not know.
    #[error("binding record of version {0}; this program reads version {VERSION}")]
    Version(u8),
    /// A field holds what it cannot hold.
    #[error("binding record with {what} {value}")]
    Value {
        /// Which field.
        what: &'static str,
        /// What it holds.
        value: u8,
    },
}

fn encode(binding: &Binding, stamp: u64, out: &mut Vec<u8>) {
    let duid = binding.duid.as_bytes();
    let duid_len = u8::try_from(duid.len()).expect("a DUID has at most 130 octets");
    let len = u16::try_from(FIXED_LEN + duid.len()).expect("far below 64 KiB");
    out.reserve(2 + usize::from(len));
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&[
        VERSION,
        binding.kind as u8,
        binding.status as u8,
        binding.lease.prefix_len,
    ]);
    out.extend_from_slice(&binding.lease.address.octets());
    out.extend_from_slice(&stamp.to_le_bytes());
    for number in [
        binding.iaid.0,
        binding.preferred_lifetime,
        binding.valid_lifetime,
        binding.client_last_transaction_time.0,
        binding.start_time_of_state.0,
        binding.state_expiration_time.0,
        binding.expiration_time.0,
        binding.partner_lifetime.0,
        binding.acked_partner_lifetime.0,
        binding.partner_raw_clt_time.0,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let flags = if binding.update_pending { FLAG_UPDATE_PENDING } else { 0 };
    out.extend_from_slice(&[flags, duid_len]);
    out.extend_from_slice(duid);
}

impl Record {
    /// Appends the stored form, length field included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode(&self.binding, self.stamp, out);
    }

    /// Reads one record that begins with its length field and fills `octets` exactly.
    ///
    /// # Errors
    /// What came back from disk is input like any other: anything that does not fit is refused.
    pub fn decode(octets: &[u8]) -> Result<Self, RecordError> {
        let body = body(octets)?;
        if body.first() == Some(&VERSION_SOLE) {
            return Self::decode_sole(body);
        }
        let Fields { head, kind, numbers, duid } = Fields::read(body)?;
        let number = |index: usize| {
            let at = 4 * index;
            u32::from_le_bytes([numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]])
        };
        let time = |index| AbsoluteTime(number(index));
        let binding = Binding {
            lease: head.lease,
            kind,
            status: head.status,
            duid: ClientDuid::new(duid),
            iaid: IaId(number(0)),
            preferred_lifetime: number(1),
            valid_lifetime: number(2),
            client_last_transaction_time: time(3),
            start_time_of_state: time(4),
            state_expiration_time: time(5),
            expiration_time: time(6),
            partner_lifetime: time(7),
            acked_partner_lifetime: time(8),
            partner_raw_clt_time: time(9),
            update_pending: head.update_pending,
        };
        Ok(Self { binding, stamp: head.stamp })
    }

    /// Reads the body of a record of version 1 by way of one of version 2.
    fn decode_sole(body: &[u8]) -> Result<Self, RecordError> {
        let duid_len_at = FIXED_LEN - 2;
        let length_error = RecordError::Length(2 + body.len());
        let (fixed, rest) = body.split_at_checked(duid_len_at).ok_or(length_error)?;
        let len = u16::try_from(body.len() + 1).map_err(|_| length_error)?;
        let mut octets = Vec::with_capacity(body.len() + 3);
        octets.extend_from_slice(&len.to_le_bytes());
        octets.push(VERSION);
        octets.extend_from_slice(&fixed[1..]);
        octets.push(0);
        octets.extend_from_slice(rest);
        let mut record = Self::decode(&octets)?;
        let binding = &mut record.binding;
        // In the order of version 1: the end of the active lease, the start and the end of the
        // state.
        let (end, start) = (binding.start_time_of_state, binding.state_expiration_time);
        let quarantine = std::mem::take(&mut binding.expiration_time);
        binding.start_time_of_state = start;
        binding.state_expiration_time =
            if binding.status == BindingStatus::Active { end } else { quarantine };
        Ok(record)
    }
}

/// What a store needs of a record, read without the rest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RecordHead {
    /// The lease.
    pub lease: Lease,
    /// Its status.
    pub status: BindingStatus,
    /// [`Record::stamp`].
    pub stamp: u64,
    /// [`Binding::update_pending`].
    pub update_pending: bool,
}

impl RecordHead {
    /// Reads the head of a record.
    ///
    /// # Errors
    /// As [`Record::decode`], for the same octets.
    pub fn decode(octets: &[u8]) -> Result<Self, RecordError> {
        let body = body(octets)?;
        if body.first() == Some(&VERSION_SOLE) {
            return Record::decode_sole(body).map(|record| Self::of(&record));
        }
        Fields::read(body).map(|fields| fields.head)
    }

    fn of(record: &Record) -> Self {
        let Binding { lease, status, update_pending, .. } = record.binding;
        Self { lease, status, stamp: record.stamp, update_pending }
    }
}

/// What follows the length field, which has to say how much that is.
fn body(octets: &[u8]) -> Result<&[u8], RecordError> {
    let length_error = RecordError::Length(octets.len());
    let (len, body) = octets.split_first_chunk::<2>().ok_or(length_error)?;
    if usize::from(u16::from_le_bytes(*len)) != body.len() || body.is_empty() {
        return Err(length_error);
    }
    Ok(body)
}

/// The parts of a record of version 2, checked.
struct Fields<'a> {
    head: RecordHead,
    kind: IaKind,
    /// IAID, lifetimes and times.
    numbers: &'a [u8],
    duid: &'a [u8],
}

impl<'a> Fields<'a> {
    fn read(body: &'a [u8]) -> Result<Self, RecordError> {
        let length_error = RecordError::Length(2 + body.len());
        if body[0] != VERSION {
            return Err(RecordError::Version(body[0]));
        }
        let (fixed, duid) = body.split_first_chunk::<FIXED_LEN>().ok_or(length_error)?;
        if usize::from(fixed[FIXED_LEN - 1]) != duid.len() || duid.len() > gemel_wire::DUID_LEN_MAX
        {
            return Err(length_error);
        }
        let bad = |what, value| RecordError::Value { what, value };
        let prefix_len = fixed[3];
        if prefix_len > 128 {
            return Err(bad("prefix length", prefix_len));
        }
        let mut address = [0; 16];
        address.copy_from_slice(&fixed[4..20]);
        let mut stamp = [0; 8];
        stamp.copy_from_slice(&fixed[20..28]);
        Ok(Self {
            kind: IaKind::from_u8(fixed[1]).ok_or_else(|| bad("IA kind", fixed[1]))?,
            head: RecordHead {
                lease: Lease { address: Ipv6Addr::from(address), prefix_len },
                status: BindingStatus::from_u8(fixed[2]).ok_or_else(|| bad("status", fixed[2]))?,
                stamp: u64::from_le_bytes(stamp),
                update_pending: fixed[FIXED_LEN - 2] & FLAG_UPDATE_PENDING != 0,
            },
            numbers: &fixed[28..FIXED_LEN - 2],
            duid,
        })
    }
}

/// Splits stored updates into records; ends after the first error.
#[derive(Clone, Debug)]
pub struct RecordIter<'a>(&'a [u8]);

impl<'a> RecordIter<'a> {
    /// Over the octets of an [`UpdateBatch`].
    #[must_use]
    pub fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }
}

impl Iterator for RecordIter<'_> {
    type Item = Result<Record, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (l0, l1) = match self.0 {
            [] => return None,
            [l0, l1, ..] => (*l0, *l1),
            [_] => {
                self.0 = &[];
                return Some(Err(RecordError::Length(1)));
            }
        };
        let len = 2 + usize::from(u16::from_le_bytes([l0, l1]));
        let Some((head, rest)) = self.0.split_at_checked(len) else {
            let have = self.0.len();
            self.0 = &[];
            return Some(Err(RecordError::Length(have)));
        };
        let record = Record::decode(head);
        self.0 = if record.is_ok() { rest } else { &[] };
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(duid: &[u8]) -> Binding {
        Binding {
            lease: Lease::prefix("2001:db8:1::".parse().unwrap(), 56),
            kind: IaKind::Pd,
            status: BindingStatus::Active,
            duid: ClientDuid::new(duid),
            iaid: IaId(7),
            preferred_lifetime: 1,
            valid_lifetime: 2,
            client_last_transaction_time: AbsoluteTime(3),
            start_time_of_state: AbsoluteTime(5),
            state_expiration_time: AbsoluteTime(6),
            expiration_time: AbsoluteTime(4),
            partner_lifetime: AbsoluteTime(7),
            acked_partner_lifetime: AbsoluteTime(8),
            partner_raw_clt_time: AbsoluteTime(9),
            update_pending: true,
        }
    }

    #[test]
    fn round_trip() {
        let mut batch = UpdateBatch::default();
        let bindings = [sample(&[1; 10]), sample(&[2; 130]), sample(&[])];
        for (stamp, binding) in (100..).zip(&bindings) {
            batch.push(binding, stamp);
        }
        assert_eq!(batch.len(), 3);
        let back: Vec<_> = batch.iter().map(Result::unwrap).collect();
        assert_eq!(back.iter().map(|r| r.stamp).collect::<Vec<_>>(), [100, 101, 102]);
        assert!(back.iter().zip(&bindings).all(|(r, b)| r.binding == *b));
    }

    #[test]
    fn version_1_is_read() {
        for (status, end) in [(BindingStatus::Active, 44), (BindingStatus::Abandoned, 66)] {
            let mut octets = vec![0, 0, 1, 3, status as u8, 56];
            let prefix: Ipv6Addr = "2001:db8:1::".parse().unwrap();
            octets.extend_from_slice(&prefix.octets());
            octets.extend_from_slice(&9_u64.to_le_bytes());
            for number in [7_u32, 1, 2, 33, 44, 55, 66, 0, 0, 0] {
                octets.extend_from_slice(&number.to_le_bytes());
            }
            octets.extend_from_slice(&[3, 0, 1, 2]);
            octets[0] = u8::try_from(octets.len() - 2).unwrap();
            let Record { binding, stamp } = Record::decode(&octets).unwrap();
            assert_eq!((binding.status, stamp), (status, 9));
            assert_eq!(binding.client_last_transaction_time, AbsoluteTime(33));
            assert_eq!(binding.state_expiration_time, AbsoluteTime(end));
            assert_eq!(binding.start_time_of_state, AbsoluteTime(55));
            assert_eq!(binding.expiration_time, AbsoluteTime::ZERO);
            assert_eq!((binding.duid.as_bytes(), binding.update_pending), (&[0, 1, 2][..], false));
            for cut in 0..octets.len() {
                assert!(Record::decode(&octets[..cut]).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn every_cut_and_every_flipped_octet_is_survived() {
        let head = |octets: &[u8]| Record::decode(octets).map(|record| RecordHead::of(&record));
        let mut octets = Vec::new();
        Record { binding: sample(&[3; 14]), stamp: 1 }.encode(&mut octets);
        for cut in 0..octets.len() {
            assert!(Record::decode(&octets[..cut]).is_err(), "cut at {cut}");
            assert_eq!(RecordHead::decode(&octets[..cut]), head(&octets[..cut]), "cut at {cut}");
        }
        for at in 0..octets.len() {
            for flip in 0..=255 {
                let mut broken = octets.clone();
                broken[at] ^= flip;
                // Either refused or read as another record; never a panic.
                let _ = RecordIter::new(&broken).count();
                assert_eq!(RecordHead::decode(&broken), head(&broken), "{flip} at {at}");
            }
        }
    }
}
