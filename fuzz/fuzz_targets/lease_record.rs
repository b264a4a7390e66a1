//! What is read back from disk: any octets are either refused or a record that is written again
//! as it was.
#![no_main]

use gemel_lease::{Record, RecordIter, UpdateBatch, UpdateSink};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    if let Ok(record) = Record::decode(octets) {
        let mut again = Vec::new();
        record.encode(&mut again);
        assert_eq!(again, octets);
    }
    let mut batch = UpdateBatch::default();
    for record in RecordIter::new(octets).map_while(Result::ok) {
        batch.push(&record.binding, record.stamp);
    }
    assert!(octets.starts_with(batch.as_bytes()));
    assert_eq!(batch.iter().count(), batch.len());
});
