//! Failover messages: what is written is read back, nothing panics, and the stream may arrive in
//! any pieces.

#[path = "failover/rewrite.rs"]
mod rewrite;
#[path = "failover/strategy.rs"]
mod strategy;

use gemel_wire::failover::{FRAME_LEN_MAX, FailoverTime, FrameSplitter, TcpMessage, stamp};
use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, FileFailurePersistence},
};
use rewrite::{check_frame, rewrite};
use strategy::frame;

fn config() -> Config {
    Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        source_file: Some(file!()),
        ..Config::default()
    }
}

#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    /// Added to the low octet of something: an option's length or code, with luck.
    Add(Index, i8),
    Truncate(Index),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Copy(Index, Index, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        3 => (at(), any::<u8>()).prop_map(|(at, value)| Damage::Set(at, value)),
        4 => (at(), -4..=4_i8).prop_map(|(at, delta)| Damage::Add(at, delta)),
        1 => at().prop_map(Damage::Truncate),
        1 => (at(), vec(any::<u8>(), 1..6)).prop_map(|(at, new)| Damage::Insert(at, new)),
        1 => (at(), 1..20_usize).prop_map(|(at, len)| Damage::Remove(at, len)),
        1 => (at(), at(), 1..60_usize).prop_map(|(from, to, len)| Damage::Copy(from, to, len)),
    ]
}

impl Damage {
    fn apply(self, octets: &mut Vec<u8>) {
        let end = octets.len();
        match self {
            Self::Set(at, value) if end > 0 => octets[at.index(end)] = value,
            Self::Add(at, delta) if end > 0 => {
                let octet = &mut octets[at.index(end)];
                *octet = octet.wrapping_add_signed(delta);
            }
            Self::Set(..) | Self::Add(..) => {}
            Self::Truncate(at) => octets.truncate(at.index(end + 1)),
            Self::Insert(at, new) => {
                let at = at.index(end + 1);
                octets.splice(at..at, new);
            }
            Self::Remove(at, len) => {
                let at = at.index(end + 1);
                octets.drain(at..end.min(at + len));
            }
            Self::Copy(from, to, len) => {
                let (from, to) = (from.index(end + 1), to.index(end + 1));
                let part = octets[from..end.min(from + len)].to_vec();
                octets.splice(to..to, part);
            }
        }
    }
}

/// The frames of a stream that arrives in these pieces.
fn split(pieces: &[&[u8]], len_max: usize) -> (Vec<Vec<u8>>, Option<usize>) {
    let mut splitter = FrameSplitter::new(vec![0; len_max]);
    let mut frames = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        loop {
            match splitter.next_frame(&mut input) {
                Ok(Some(frame)) => frames.push(frame.to_vec()),
                Ok(None) => break,
                Err(error) => return (frames, Some(error.claimed)),
            }
        }
        assert!(input.is_empty(), "all input is taken");
    }
    (frames, None)
}

/// Cuts at these places; some pieces are empty.
fn pieces<'a>(stream: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    cuts.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for cut in cuts {
        pieces.push(&stream[from..cut]);
        from = cut;
    }
    pieces.push(&stream[from..]);
    pieces
}

proptest! {
    #![proptest_config(config())]

    /// Written, read, written: the same octets.
    #[test]
    fn messages(frame in frame()) {
        let rewritten = rewrite(&frame[2..]);
        prop_assert_eq!(rewritten.as_deref(), Some(&frame[2..]));
        check_frame(&frame[2..]);
    }

    #[test]
    fn damaged_messages(frame in frame(), damages in vec(damage(), 1..4)) {
        let mut octets = frame[2..].to_vec();
        damages.into_iter().for_each(|damage| damage.apply(&mut octets));
        check_frame(&octets);
    }

    #[test]
    fn random_octets(
        msg_type in prop_oneof![23..=36_u8, any::<u8>()],
        rest in prop_oneof![vec(any::<u8>(), 0..60), vec(0..5_u8, 0..200)],
    ) {
        check_frame(&[&[msg_type][..], &rest].concat());
        check_frame(&rest);
    }

    /// One or more options at random in a message of any type.
    #[test]
    fn random_options(
        msg_type in 24..=35_u8,
        options in vec((prop_oneof![114..=134_u16, 1..48_u16], vec(0..9_u8, 0..30)), 0..8),
    ) {
        let mut octets = vec![msg_type, 0, 0, 1, 0, 0, 0, 2];
        for (code, data) in options {
            octets.extend(code.to_be_bytes());
            octets.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            octets.extend(data);
        }
        check_frame(&octets);
    }

    /// However the stream is cut, the frames are those of the stream in one piece, and those that
    /// were put in.
    #[test]
    fn any_pieces(
        bodies in vec(prop_oneof![4 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 0..700)], 0..8),
        cut_off in 0..30_usize,
        cuts in vec(any::<Index>(), 0..30),
    ) {
        let mut stream = Vec::new();
        for body in &bodies {
            stream.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
            stream.extend(body);
        }
        let in_pieces = split(&pieces(&stream, &cuts), FRAME_LEN_MAX);
        prop_assert_eq!(&in_pieces.0, &bodies);
        let octets: Vec<_> = stream.chunks(1).collect();
        prop_assert_eq!(&split(&octets, FRAME_LEN_MAX), &in_pieces);

        // The end of the stream is missing: the whole frames are there all the same.
        stream.truncate(stream.len().saturating_sub(cut_off));
        let in_one_piece = split(&[&stream], FRAME_LEN_MAX);
        prop_assert_eq!(&split(&pieces(&stream, &cuts), FRAME_LEN_MAX), &in_one_piece);
        prop_assert_eq!(&in_one_piece.0[..], &bodies[..in_one_piece.0.len()]);
    }

    /// The same when the receiver holds less than what may come.
    #[test]
    fn any_pieces_of_noise(
        stream in vec(prop_oneof![3 => Just(0), 5 => 0..6_u8, 1 => any::<u8>()], 0..200),
        cuts in vec(any::<Index>(), 0..30),
        len_max in 0..300_usize,
    ) {
        prop_assert_eq!(split(&pieces(&stream, &cuts), len_max), split(&[&stream], len_max));
    }

    /// The sent-time is all that `stamp` changes.
    #[test]
    fn stamped(frames in vec(frame(), 0..6), now in any::<u32>()) {
        let mut stream = frames.concat();
        stamp(&mut stream, FailoverTime(now));
        let (stamped, error) = split(&[&stream], FRAME_LEN_MAX);
        prop_assert_eq!((stamped.len(), error), (frames.len(), None));
        for (before, after) in frames.iter().zip(&stamped) {
            let before = &before[2..];
            match TcpMessage::parse(after).unwrap() {
                TcpMessage::StartTls(_) => prop_assert_eq!(after, before),
                TcpMessage::Failover(message) => {
                    prop_assert_eq!(message.header.sent_time, FailoverTime(now));
                    prop_assert_eq!((&after[..4], &after[8..]), (&before[..4], &before[8..]));
                }
            }
        }
    }
}
