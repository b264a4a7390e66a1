use super::*;
use crate::IaId;
use crate::failover::testing::{HEADER, frame, parse_frame};
use crate::failover::{IaHeader, IaKind, LeaseState};

const DUID: &[u8] = &[0, 4, 1, 2, 3];
const IN_USE: Status<'_> = Status { code: StatusCode::ADDRESS_IN_USE, message: b"taken" };
const HELLO: Status<'_> = Status { code: StatusCode::SUCCESS, message: b"hello" };

fn head(last: u16) -> LeaseHead {
    let ia = IaHeader { kind: IaKind::Na, iaid: IaId(1), t1: 5, t2: 8 };
    let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
    LeaseHead { ia, address, prefix_len: 128, preferred: 6, valid: 9 }
}

fn state() -> LeaseState<'static> {
    LeaseState {
        state_expiration_time: Some(FailoverTime(30)),
        partner_lifetime: Some(FailoverTime(40)),
        ..LeaseState::new(BindingStatus::ACTIVE, FailoverTime(20))
    }
}

fn client(status: Option<Status<'_>>) -> ClientReply<'_> {
    ClientReply { client_id: DUID, vss: None, status }
}

#[test]
fn part_of_a_bndupd_is_rejected() {
    let accepted = LeaseReply::accept(&Lease { head: head(1), state: state() });
    assert_eq!(accepted.ack.partner_lifetime_sent, Some(FailoverTime(40)));
    let rejected = LeaseReply { head: head(2), ack: Ack { status: Some(IN_USE), ..accepted.ack } };
    let informed = LeaseReply { head: head(3), ack: Ack { status: Some(HELLO), ..accepted.ack } };
    let leases = [accepted, rejected, informed];
    let octets = frame(|out| BndReply::emit_client(&client(None), leases, HEADER, out));
    let Ok(BndReply::Client(reply)) = BndReply::parse(&parse_frame(&octets)) else {
        panic!("not about a client")
    };
    assert!(!reply.is_rejected());
    let read: Vec<_> = reply.leases().map(Result::unwrap).collect();
    assert_eq!(read, leases);
    let accepted: Vec<_> = read.iter().map(|lease| lease.ack.is_accepted()).collect();
    assert_eq!(accepted, [true, false, true]);
}

#[test]
fn status_of_the_whole() {
    for (status, rejected) in [(None, false), (Some(HELLO), false), (Some(IN_USE), true)] {
        let octets = frame(|out| BndReply::emit_client(&client(status), [], HEADER, out));
        let Ok(BndReply::Client(reply)) = BndReply::parse(&parse_frame(&octets)) else { panic!() };
        assert_eq!((reply.client, reply.is_rejected()), (client(status), rejected));
    }
}

#[test]
fn a_client_id_is_missing_only_in_rejections() {
    for status in [None, Some(HELLO)] {
        let client = ClientReply { client_id: &[], ..client(status) };
        let octets = frame(|out| BndReply::emit_client(&client, [], HEADER, out));
        let (within, option) = ("OPTION_CLIENT_DATA", OptionCode::CLIENT_ID);
        let error = FailoverError::Missing { within, option };
        assert_eq!(BndReply::parse(&parse_frame(&octets)), Err(error));
    }
}

/// Section 7.7: a status in the IA rejects the leases in it.
#[test]
fn a_rejected_ia_takes_its_leases_along() {
    let octets = frame(|out| {
        HEADER.emit(MessageType::BNDREPLY, out, |out| {
            let data = out.begin(OptionCode::CLIENT_DATA);
            out.option(OptionCode::CLIENT_ID, DUID);
            for iaid in [1, 2] {
                let ia = out.begin_ia(OptionCode::IA_NA, IaId(iaid), 0, 0);
                if iaid == 1 {
                    out.status(StatusCode::ADDRESS_IN_USE, "taken");
                }
                out.ia_addr(Ipv6Addr::LOCALHOST, 0, 0);
                out.end(ia);
            }
            // An IA without a lease is no error here.
            let ia = out.begin_ia(OptionCode::IA_PD, IaId(3), 0, 0);
            out.end(ia);
            out.end(data);
        });
    });
    let Ok(BndReply::Client(reply)) = BndReply::parse(&parse_frame(&octets)) else { panic!() };
    let acks: Vec<_> = reply.leases().map(|lease| lease.unwrap().ack).collect();
    assert_eq!(acks, [Ack { status: Some(IN_USE), ..Ack::default() }, Ack::default()]);
}

#[test]
fn prefix_replies() {
    let lease = PrefixLease {
        prefix: "2001:db8:5::".parse().unwrap(),
        prefix_len: 48,
        preferred: 0,
        valid: 0,
        base_time: FailoverTime(19),
        vss: Some(&[1, 2, 3, 4, 5, 6, 7, 8]),
        state: state(),
    };
    let accepted = PrefixReply::accept(&lease);
    assert!(accepted.ack.is_accepted());
    let ack = Ack { status: Some(IN_USE), ..accepted.ack };
    for reply in [accepted, PrefixReply { ack, ..accepted }] {
        let octets = frame(|out| BndReply::emit_prefix(&reply, HEADER, out));
        assert_eq!(BndReply::parse(&parse_frame(&octets)), Ok(BndReply::Prefix(reply)));
    }
}
