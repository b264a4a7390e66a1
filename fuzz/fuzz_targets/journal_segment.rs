//! A damaged journal segment gives back the batches that the damage has spared, and no others.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gemel_store::fuzzing::segment(data));
