//! What is written is read back; what is read is written back; and nothing panics.

mod model;

use gemel_wire::{
    DUID_LEN_MAX, Duid, Emitter, Ia, IaAddr, IaPrefix, IaTa, MessageType, OptionCode,
    OptionRequest, Options, Packet, Status, StatusCode, TransactionId, WireError,
};
use model::*;
use proptest::{collection::vec, prelude::*};

proptest! {
    #![proptest_config(config(file!()))]

    /// Model to octets to model to octets.
    #[test]
    fn messages(message in message()) {
        let octets = message.to_octets();
        let read = Model::read(&octets).unwrap();
        prop_assert_eq!(&read, &message);
        prop_assert_eq!(read.to_octets(), octets);
    }

    /// Damage is either refused or read as something that is written as the same octets: nothing
    /// is skipped, nothing is read twice.
    #[test]
    fn damaged_messages(octets in damaged_message()) {
        check_octets(&octets)?;
    }

    /// The same for octets that were never a message.
    #[test]
    fn random_octets(
        msg_type in prop_oneof![0..14_u8, any::<u8>()],
        rest in prop_oneof![octets(0..40), octets(0..400), vec(0..5_u8, 0..200)],
    ) {
        check_octets(&[&[msg_type][..], &rest].concat())?;
        check_octets(&rest)?;
    }

    /// Each view over random bodies of options.
    #[test]
    fn random_bodies(data in prop_oneof![octets(0..40), octets(0..200), vec(0..3_u8, 0..80)]) {
        check_views(&data)?;
    }

    /// A buffer that is too small, by however much, is an error in the end; one that is just large
    /// enough is not.
    #[test]
    fn small_buffers(message in message()) {
        let octets = message.to_octets();
        let mut buffer = vec![0; octets.len()];
        for room in 0..octets.len() {
            let result = message.emit_into(&mut buffer[..room]);
            prop_assert_eq!(result, Err(WireError::NoSpace(room)));
        }
        prop_assert_eq!(message.emit_into(&mut buffer), Ok(octets.len()));
        prop_assert_eq!(buffer, octets);
    }

    /// Options taken back leave no trace, even inside an option that is still open.
    #[test]
    fn truncate(
        kept in vec(top_level_option(), 0..4),
        taken_back in vec(top_level_option(), 0..4),
        after in vec(top_level_option(), 0..4),
    ) {
        let mut buffer = vec![0; 16_384];
        let mut out = Emitter::new(&mut buffer);
        out.message(MessageType::REPLY, TransactionId([1, 2, 3]));
        let mark = out.begin(OptionCode::VENDOR_OPTS);
        emit_options(&kept, &mut out);
        let len = out.len();
        emit_options(&taken_back, &mut out);
        let longer = out.len();
        out.truncate(usize::MAX);
        prop_assert_eq!(out.len(), longer);
        out.truncate(len);
        prop_assert_eq!(out.len(), len);
        emit_options(&after, &mut out);
        out.end(mark);
        let len = out.finish().unwrap();

        let options = [&kept[..], &after].concat();
        let enclosed = Model::Client { msg_type: 7, xid: [1, 2, 3], options }.to_octets();
        let body = enclosed[4..].to_vec();
        let options = vec![Opt::Raw { code: OptionCode::VENDOR_OPTS.0, body }];
        let expected = Model::Client { msg_type: 7, xid: [1, 2, 3], options }.to_octets();
        prop_assert_eq!(&buffer[..len], expected);
    }
}

/// Enters everything that can be entered, whether or not its neighbours are sound.
fn check_octets(octets: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(message) = Model::read(octets) {
        prop_assert_eq!(message.to_octets(), octets);
    }
    let options = match Packet::parse(octets) {
        Ok(Packet::Client(message)) => message.options,
        Ok(Packet::Relay(message)) => message.options,
        Err(_) => return Ok(()),
    };
    check_options(options)
}

fn check_options(options: Options<'_>) -> Result<(), TestCaseError> {
    let octets = options.as_bytes();
    prop_assert_eq!(options.is_empty(), octets.is_empty());
    prop_assert_eq!(Options::parse(octets), Ok(options));

    let mut buffer = vec![0xa5; octets.len()];
    let mut out = Emitter::new(&mut buffer);
    for option in options {
        out.option(option.code, option.data);
    }
    prop_assert_eq!(out.finish(), Ok(octets.len()));
    prop_assert_eq!(&buffer[..], octets);

    let _ = Status::of(&options);
    for option in options {
        prop_assert!(options.all(option.code).any(|data| data == option.data));
        prop_assert_eq!(options.first(option.code), options.all(option.code).next());
        check_views(option.data)?;
    }
    Ok(())
}

/// Reads a body as everything that it could be; enclosed options, too.
fn check_views(data: &[u8]) -> Result<(), TestCaseError> {
    let duid = Duid::new(data);
    prop_assert_eq!(duid.is_ok(), (3..=DUID_LEN_MAX).contains(&data.len()));
    prop_assert_eq!(
        duid.map(|duid| duid.as_bytes().to_vec()),
        Duid::check(data).map(<[_]>::to_vec)
    );

    let request = OptionRequest::parse(data);
    prop_assert_eq!(request.is_ok(), data.len().is_multiple_of(2));
    if let Ok(request) = request {
        prop_assert!(
            request.codes().flat_map(|code| code.0.to_be_bytes()).eq(data.iter().copied())
        );
    }
    match Status::parse(data) {
        Ok(Status { code, message }) => {
            prop_assert_eq!(&[&code.0.to_be_bytes()[..], message].concat(), data);
        }
        Err(_) => prop_assert!(data.len() < 2),
    }

    let enclosed = [
        (12, Ia::parse(data).map(|ia| ia.options)),
        (4, IaTa::parse(data).map(|ia| ia.options)),
        (24, IaAddr::parse(data).map(|lease| lease.options)),
        (25, IaPrefix::parse(data).map(|lease| lease.options)),
    ];
    for (header, options) in enclosed {
        match options {
            Ok(options) => {
                prop_assert_eq!(options.as_bytes(), &data[header..]);
                check_options(options)?;
            }
            Err(WireError::Truncated { have, need, .. }) => {
                prop_assert_eq!((have, need), (data.len(), header));
                prop_assert!(have < need);
            }
            Err(WireError::BadValue { value, .. }) => {
                prop_assert_eq!((header, value), (25, u32::from(data[8])));
                prop_assert!(data[8] > 128);
            }
            Err(error) => prop_assert_eq!(Options::parse(&data[header..]), Err(error)),
        }
    }
    if data.len() > 4 { check_octets(data) } else { Ok(()) }
}

#[test]
fn longest_option() {
    let body = vec![0x5a; 65_536];
    let mut buffer = vec![0; 70_000];

    let mut out = Emitter::new(&mut buffer);
    out.option(OptionCode::INTERFACE_ID, &body[..65_535]);
    let len = out.finish().unwrap();
    assert_eq!(len, 65_539);
    let options = Options::parse(&buffer[..len]).unwrap();
    assert_eq!(options.first(OptionCode::INTERFACE_ID), Some(&body[..65_535]));
    assert_eq!(options.iter().count(), 1);

    let mut out = Emitter::new(&mut buffer);
    out.option(OptionCode::INTERFACE_ID, &body);
    assert_eq!(out.finish(), Err(WireError::NoSpace(70_000)));
}

#[test]
fn longest_prefix() {
    let body = |len: u8| [&[0; 8][..], &[len], &[0; 16]].concat();
    assert_eq!(IaPrefix::parse(&body(128)).unwrap().prefix_len, 128);
    let error = WireError::BadValue { what: "prefix length", value: 129 };
    assert_eq!(IaPrefix::parse(&body(129)), Err(error));
}

/// The length that is too large can be that of an option around the one written last.
#[test]
fn longest_enclosing_option() {
    let mut buffer = vec![0; 70_000];
    // The fixed part of an IA takes 12 octets, the header of the enclosed option 4.
    for (body_len, fits) in [(65_519, true), (65_520, false)] {
        let mut out = Emitter::new(&mut buffer);
        let mark = out.begin_ia(OptionCode::IA_NA, gemel_wire::IaId(1), 2, 3);
        out.option(OptionCode::AUTH, &vec![7; body_len]);
        out.end(mark);
        match out.finish() {
            Ok(len) => {
                assert!(fits);
                let data =
                    Options::parse(&buffer[..len]).unwrap().first(OptionCode::IA_NA).unwrap();
                let ia = Ia::parse(data).unwrap();
                assert_eq!(ia.options.first(OptionCode::AUTH).unwrap().len(), body_len);
            }
            Err(error) => assert_eq!((fits, error), (false, WireError::NoSpace(70_000))),
        }
    }
}

/// What did not fit stays an error, though later, smaller writes would fit.
#[test]
fn overflow_is_remembered() {
    let mut buffer = [0; 8];
    let mut out = Emitter::new(&mut buffer);
    out.bytes(&[0; 9]);
    assert!(out.is_empty());
    out.truncate(0);
    out.option(OptionCode::RAPID_COMMIT, &[]);
    out.status(StatusCode::SUCCESS, "");
    assert_eq!(out.finish(), Err(WireError::NoSpace(8)));
}

/// An option whose beginning has been taken back is an error and no panic.
#[test]
fn end_after_truncate() {
    let mut buffer = [0; 64];
    let mut out = Emitter::new(&mut buffer);
    let mark = out.begin(OptionCode::IA_NA);
    out.truncate(0);
    out.end(mark);
    assert_eq!(out.finish(), Err(WireError::NoSpace(64)));
}

/// Nesting costs no stack: views are entered one by one.
#[test]
fn deepest_nesting() {
    let mut octets = Vec::new();
    while let Ok(len) = u16::try_from(octets.len() + 4) {
        octets = [&[0, 4][..], &len.to_be_bytes(), &[0, 0, 0, 9], &octets].concat();
    }
    let mut depth = 0;
    let mut options = Options::parse(&octets).unwrap();
    while let Some(data) = options.first(OptionCode::IA_TA) {
        options = IaTa::parse(data).unwrap().options;
        depth += 1;
    }
    assert_eq!(depth, 65_536 / 8);
    assert!(options.is_empty());
}
