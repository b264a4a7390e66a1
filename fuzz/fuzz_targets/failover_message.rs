//! Cuts the input into failover messages in two ways, reads each, writes it again from what was
//! read, and wants the same octets once the message is in the order of the emitters.
#![no_main]

#[path = "../../dataplane/wire/tests/failover/rewrite.rs"]
mod rewrite;

use gemel_wire::failover::{FrameError, FrameSplitter};
use libfuzzer_sys::fuzz_target;

/// Less than the longest message, so that the bound is met.
const FRAME_LEN_MAX: usize = 2048;

fuzz_target!(|octets: &[u8]| {
    // The whole input as one message: most inputs are no sequence of frames.
    rewrite::check_frame(octets);

    let Some((&piece_len, stream)) = octets.split_first() else { return };
    let whole = split(stream.chunks(stream.len().max(1)));
    let pieces = split(stream.chunks(usize::from(piece_len).max(1)));
    assert_eq!(pieces, whole);
    for frame in &whole.0 {
        rewrite::check_frame(frame);
    }
});

fn split<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut splitter = FrameSplitter::new(vec![0; FRAME_LEN_MAX]);
    let mut frames = Vec::new();
    for mut input in pieces {
        loop {
            match splitter.next_frame(&mut input) {
                Ok(Some(frame)) => frames.push(frame.to_vec()),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}
