use super::*;

/// Each option of RFC 8156 section 5.5 with its octets, written by hand from the diagrams.
#[test]
fn options_as_in_the_rfc() {
    let time = FailoverTime(0x0102_0304);
    let name = DnsName::parse(b"\x01h\x00").unwrap();
    let info = DnsRemovalInfo { host_name: Some(name), ..DnsRemovalInfo::default() };
    let key = ReconfigureData { reconfigure_time: time, reconfigure_key: &[8, 9] };
    let relay = RelayData { peer_address: Ipv6Addr::LOCALHOST, relay_message: &[12] };
    let table: [(FailoverOption<'_>, &[u8]); 25] = [
        (FailoverOption::ClientData(Options::EMPTY), &[0, 45, 0, 0]),
        (FailoverOption::CltTime(7), &[0, 46, 0, 4, 0, 0, 0, 7]),
        (
            FailoverOption::LqRelayData(relay),
            &[0, 47, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 12],
        ),
        (FailoverOption::LqBaseTime(time), &[0, 100, 0, 4, 1, 2, 3, 4]),
        (FailoverOption::BindingStatus(BindingStatus::FREE_BACKUP), &[0, 114, 0, 1, 6]),
        (FailoverOption::ConnectFlags(ConnectFlags::FIXED_PD_LENGTH), &[0, 115, 0, 2, 0, 1]),
        (FailoverOption::DnsRemovalInfo(info), &[0, 116, 0, 7, 0, 117, 0, 3, 1, b'h', 0]),
        (FailoverOption::DnsHostName(name), &[0, 117, 0, 3, 1, b'h', 0]),
        (FailoverOption::DnsZoneName(name), &[0, 118, 0, 3, 1, b'h', 0]),
        (FailoverOption::DnsFlags(DnsFlags::USING_REQUESTED_FQDN), &[0, 119, 0, 2, 0, 8]),
        (FailoverOption::ExpirationTime(time), &[0, 120, 0, 4, 1, 2, 3, 4]),
        (FailoverOption::MaxUnackedBndUpd(300), &[0, 121, 0, 4, 0, 0, 1, 44]),
        (FailoverOption::Mclt(Mclt(3600)), &[0, 122, 0, 4, 0, 0, 14, 16]),
        (FailoverOption::PartnerLifetime(time), &[0, 123, 0, 4, 1, 2, 3, 4]),
        (FailoverOption::PartnerLifetimeSent(time), &[0, 124, 0, 4, 1, 2, 3, 4]),
        (FailoverOption::PartnerDownTime(time), &[0, 125, 0, 4, 1, 2, 3, 4]),
        (FailoverOption::PartnerRawCltTime(time), &[0, 126, 0, 4, 1, 2, 3, 4]),
        (FailoverOption::ProtocolVersion(ProtocolVersion::RFC8156), &[0, 127, 0, 4, 0, 1, 0, 0]),
        (FailoverOption::KeepaliveTime(60), &[0, 128, 0, 4, 0, 0, 0, 60]),
        (FailoverOption::ReconfigureData(key), &[0, 129, 0, 6, 1, 2, 3, 4, 8, 9]),
        (
            FailoverOption::RelationshipName(RelationshipName::new("né").unwrap()),
            &[0, 130, 0, 3, b'n', 0xc3, 0xa9],
        ),
        (FailoverOption::ServerFlags(ServerFlags::ACK_STARTUP), &[0, 131, 0, 1, 4]),
        (FailoverOption::ServerState(ServerState::CONFLICT_DONE), &[0, 132, 0, 1, 10]),
        (FailoverOption::StartTimeOfState(time), &[0, 133, 0, 4, 1, 2, 3, 4]),
        (FailoverOption::StateExpirationTime(time), &[0, 134, 0, 4, 1, 2, 3, 4]),
    ];
    for (option, octets) in table {
        let mut buffer = [0; 32];
        let mut out = Emitter::new(&mut buffer);
        option.emit(&mut out);
        let len = out.finish().unwrap();
        assert_eq!(&buffer[..len], octets, "{option:?}");
        let raw = Options::parse(octets).unwrap().iter().next().unwrap();
        assert_eq!(FailoverOption::parse(raw), Ok(option));
        assert_eq!(option.code(), raw.code);
        assert!(raw.code.name().is_some());
    }
}

/// An option of fixed length is refused with any other length.
#[test]
fn wrong_lengths() {
    let fixed = [
        (&[114, 131, 132][..], 1),
        (&[115, 119], 2),
        (&[46, 100, 120, 121, 122, 123, 124, 125, 126, 127, 128, 133, 134], 4),
    ];
    for (codes, need) in fixed {
        for code in codes {
            for have in (0..8).filter(|have| *have != need) {
                let option = RawOption { code: OptionCode(*code), data: &[0; 8][..have] };
                let what = option.code.name().unwrap();
                let error = WireError::BadLength { what, have, need };
                assert_eq!(FailoverOption::parse(option), Err(error));
            }
        }
    }
    for (code, need) in [(OptionCode::F_RECONFIGURE_DATA, 4), (OptionCode::LQ_RELAY_DATA, 16)] {
        let parse = |len| FailoverOption::parse(RawOption { code, data: &[0; 16][..len] });
        assert!(parse(need).is_ok());
        assert!(parse(need - 1).is_err());
    }
}

#[test]
fn relationship_names() {
    assert_eq!(RelationshipName::parse("a\u{0}b".as_bytes()).unwrap().as_str(), "a\u{0}b");
    assert!(RelationshipName::parse(b"a\0").is_err());
    let error = RelationshipName::parse(b"ab\xffc").unwrap_err();
    assert!(matches!(error, WireError::BadValue { value: 0xff, .. }), "{error}");
}

#[test]
fn the_key_stays_out_of_logs() {
    let time = FailoverTime(1);
    let data = ReconfigureData { reconfigure_time: time, reconfigure_key: &[0x7b; 16] };
    let text = format!("{data:?}");
    assert!(text.contains("reconfigure_key_len: 16") && !text.contains("123"), "{text}");
}
