//! The bindings of the checkpoint with what the journal adds to them.

use gemel_lease::Record;

use crate::{
    BadRecord, Restored, StoreError,
    lmdb::{Source, Tombstone, Value},
    pending::{self, Entry},
};

/// Bindings read from LMDB in one transaction.
const CHUNK: usize = 4096;
/// Bad records that are reported one by one.
const BAD_MAX: usize = 10_000;

/// Hands out each lease's newest record by ascending key, until `each` returns false. `journal` is
/// sorted by key. Tombstones found in LMDB that nothing replaces are put into `tombstones`.
pub(crate) fn merge(
    lmdb: &mut impl Source,
    journal: &[Entry<'_>],
    tombstones: &mut Vec<Tombstone>,
    mut each: impl FnMut(Record) -> bool,
    mut progress: impl FnMut(u64, u64),
) -> Result<Restored, StoreError> {
    let mut restored = Restored::default();
    let total = lmdb.count()? + journal.len() as u64;
    let mut journal = journal.iter().peekable();
    let mut last: Option<Vec<u8>> = None;
    let mut done = 0;
    loop {
        progress(done, total);
        let chunk = lmdb.chunk(last.as_deref(), CHUNK)?;
        let more = chunk.len() == CHUNK;
        for (key, value) in chunk {
            done += 1;
            while let Some(entry) = journal.next_if(|entry| entry.key[..] < key[..]) {
                done += 1;
                if !give(entry, &mut restored, &mut each) {
                    return Ok(restored);
                }
            }
            let entry = journal.next_if(|entry| entry.key[..] == key[..]);
            let go_on = match (value, entry) {
                (Value::Record(stored), Some(entry)) if stored.stamp < entry.stamp => {
                    give(entry, &mut restored, &mut each)
                }
                (Value::Bad(_), Some(entry)) => give(entry, &mut restored, &mut each),
                (Value::Record(stored), _) => {
                    if pending::is_tombstone(stored.binding.status, stored.binding.update_pending) {
                        tombstones.push((pending::key(&stored.binding.lease), stored.stamp));
                    }
                    hand_out(*stored, &mut restored, &mut each)
                }
                (Value::Bad(reason), None) => {
                    restored.bad_count += 1;
                    if restored.bad.len() < BAD_MAX {
                        restored.bad.push(BadRecord { lease: pending::lease(&key), reason });
                    }
                    true
                }
            };
            last = Some(key);
            if !go_on {
                return Ok(restored);
            }
        }
        if !more {
            break;
        }
    }
    for entry in journal {
        if !give(entry, &mut restored, &mut each) {
            break;
        }
    }
    progress(total, total);
    Ok(restored)
}

/// The newest of what LMDB and the journal know of a lease; `None` if that is nothing, or nothing
/// that can be read.
pub(crate) fn newest(stored: Option<Value>, entry: Option<Entry<'_>>) -> Option<Record> {
    match (stored, entry) {
        (Some(Value::Record(stored)), Some(entry)) if stored.stamp < entry.stamp => {
            Record::decode(entry.record).ok()
        }
        (Some(Value::Record(stored)), _) => Some(*stored),
        (_, Some(entry)) => Record::decode(entry.record).ok(),
        (_, None) => None,
    }
}

fn give(entry: &Entry<'_>, restored: &mut Restored, each: &mut impl FnMut(Record) -> bool) -> bool {
    // It was decoded when it was taken from the journal.
    Record::decode(entry.record).map_or(true, |record| hand_out(record, restored, each))
}

fn hand_out(
    record: Record,
    restored: &mut Restored,
    each: &mut impl FnMut(Record) -> bool,
) -> bool {
    restored.records += 1;
    restored.stamp_max = restored.stamp_max.max(record.stamp);
    each(record)
}
