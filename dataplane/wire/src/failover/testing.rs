//! What several unit tests need.

use super::{FailoverMessage, FailoverTime, Header};
use crate::{Emitter, OptionCode, Options, TransactionId};

pub(super) const HEADER: Header =
    Header { transaction_id: TransactionId([1, 2, 3]), sent_time: FailoverTime(4) };

/// The frame that `emit` appends, without its message-size field.
pub(super) fn frame(emit: impl FnOnce(&mut Emitter<'_>)) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    let mut out = Emitter::new(&mut buffer);
    emit(&mut out);
    let len = out.finish().unwrap();
    assert_eq!(usize::from(u16::from_be_bytes([buffer[0], buffer[1]])), len - 2);
    buffer[2..len].to_vec()
}

pub(super) fn parse_frame(octets: &[u8]) -> FailoverMessage<'_> {
    FailoverMessage::parse(octets).unwrap()
}

/// The message without the options of this code on the outermost level.
pub(super) fn without(octets: &[u8], code: OptionCode) -> Vec<u8> {
    let (header, options) = octets.split_at(FailoverMessage::HEADER_LEN);
    [header, &without_options(options, code)].concat()
}

pub(super) fn without_options(octets: &[u8], code: OptionCode) -> Vec<u8> {
    let mut buffer = vec![0; octets.len()];
    let mut out = Emitter::new(&mut buffer);
    let options = Options::parse(octets).unwrap();
    assert!(options.first(code).is_some(), "{code} was there to be left out");
    options.iter().filter(|it| it.code != code).for_each(|it| out.option(it.code, it.data));
    let len = out.finish().unwrap();
    buffer.truncate(len);
    buffer
}
