//! RFC 8415 section 18.3: what is answered to each message.

mod support;

use std::collections::HashSet;

use gemel_lease::{BindingStatus, IaKind, Lease};
use gemel_server::{DropReason, Inbound, Service};
use gemel_wire::{INFINITY, MessageType, OptionCode, StatusCode};
use support::*;

const NA: IaKind = IaKind::Na;
const PD: IaKind = IaKind::Pd;

fn solicit() -> Build {
    Build::valid(MessageType::SOLICIT)
}

fn request() -> Build {
    Build::valid(MessageType::REQUEST)
}

fn renew() -> Build {
    Build::valid(MessageType::RENEW)
}

fn rebind() -> Build {
    Build::valid(MessageType::REBIND)
}

#[test]
fn solicit_to_reply() {
    let mut lab = Lab::new();
    let advertise = lab.send(&solicit().na(1, &[]).pd(2, &[]).done());
    assert_eq!(advertise.msg_type, MessageType::ADVERTISE);
    let (address, prefix) = (advertise.lease(NA, 1), advertise.lease(PD, 2));
    assert!(lab.updates.is_empty() && lab.server.table().is_empty(), "an offer claims nothing");
    assert_eq!(lab.send(&solicit().na(1, &[]).pd(2, &[]).done()), advertise);

    let message = request().na(1, &[address]).pd(2, &[prefix]).done();
    let reply = lab.send(&message);
    assert_eq!(reply.msg_type, MessageType::REPLY);
    assert_eq!((reply.lease(NA, 1), reply.lease(PD, 2)), (address, prefix));
    assert_eq!(lab.updates.len(), 2);
    let ia = reply.ia(NA, 1);
    assert_eq!((ia.t1, ia.t2, ia.leases[0].1, ia.leases[0].2), (1500, 2400, 3000, 4000));
    let binding = lab.binding(address).unwrap();
    assert_eq!(binding.duid.as_bytes(), CLIENT);
    assert_eq!(binding.state_expiration_time, NOW.plus(4000));

    // A retransmission is answered alike.
    assert_eq!(lab.send(&message), reply);
    assert_eq!(lab.server.table().len(), 2);
    // A restarted client that remembers nothing gets the same again.
    assert_eq!(lab.send(&solicit().na(1, &[]).pd(2, &[]).done()), advertise);
    assert_eq!(lab.send(&request().na(1, &[]).pd(2, &[]).done()), reply);
}

#[test]
fn several_ias_get_different_leases_and_one_t1() {
    let mut lab = Lab::new();
    let ask = |build: Build| (1..=6).fold(build, |b, iaid| b.na(iaid, &[]).pd(iaid, &[])).done();
    for message in [ask(solicit()), ask(request())] {
        let answer = lab.send(&message);
        let leases: HashSet<Lease> =
            (1..=6).flat_map(|iaid| [answer.lease(NA, iaid), answer.lease(PD, iaid)]).collect();
        assert_eq!(leases.len(), 12);
    }
}

#[test]
fn hints() {
    let mut lab = Lab::new();
    let cases: [(&str, Build, Option<Lease>); 7] = [
        (
            "free address",
            solicit().na(1, &[addr("2001:db8:a::10aa")]),
            Some(addr("2001:db8:a::10aa")),
        ),
        (
            "of the second pool",
            solicit().na(1, &[addr("2001:db8:a::2002")]),
            Some(addr("2001:db8:a::2002")),
        ),
        ("in no pool", solicit().na(1, &[addr("2001:db8:a::1")]), None),
        ("of another link", solicit().na(1, &[addr("2001:db8:b::1000")]), None),
        (
            "free prefix",
            solicit().pd(1, &[pd("2001:db8:a001:10::/60")]),
            Some(pd("2001:db8:a001:10::/60")),
        ),
        (
            "second hint counts",
            solicit().na(1, &[addr("::"), addr("2001:db8:a::10ab")]),
            Some(addr("2001:db8:a::10ab")),
        ),
        (
            "prefix with host bits",
            solicit().pd(1, &[pd("2001:db8:a000:100::1/56")]),
            Some(pd("2001:db8:a000:100::/56")),
        ),
    ];
    for (what, message, expected) in cases {
        let answer = lab.send(&message.done());
        let lease = answer.lease(answer.ias[0].kind, 1);
        match expected {
            Some(expected) => assert_eq!(lease, expected, "{what}"),
            None => assert_eq!(lab.server.table().pools().find(lease, NA).unwrap().0, 0, "{what}"),
        }
    }
    // A length chooses the pool that delegates it; an unknown one falls back to the first pool.
    for (len, expected) in [(56, 56), (60, 60), (48, 56), (64, 56), (0, 56)] {
        let hint = Lease::prefix(ip("::"), len);
        assert_eq!(lab.send(&solicit().pd(1, &[hint]).done()).lease(PD, 1).prefix_len, expected);
        let other = Build::new(MessageType::REQUEST).client(OTHER).server(SERVER);
        let reply = lab.send(&other.pd(len.into(), &[hint]).done());
        assert_eq!(reply.lease(PD, len.into()).prefix_len, expected);
    }
    // A hint that somebody has is not given.
    let taken = addr("2001:db8:a::1050");
    assert_eq!(lab.send(&request().na(1, &[taken]).done()).lease(NA, 1), taken);
    let other = Build::new(MessageType::SOLICIT).client(OTHER).na(1, &[taken]).done();
    assert_ne!(lab.send(&other).lease(NA, 1), taken);
}

#[test]
fn exhaustion_falls_to_the_next_pool_and_ends_with_a_status() {
    let mut lab = Lab::new();
    let mut seen = HashSet::new();
    for client in 0..260_u16 {
        let duid = [&[0, 4][..], &client.to_be_bytes()].concat();
        let message = |msg_type| Build::new(msg_type).client(&duid);
        let offer = lab.send(&message(MessageType::SOLICIT).na(1, &[]).done()).lease(NA, 1);
        let ask = message(MessageType::REQUEST).server(SERVER).na(1, &[offer]).done();
        let lease = lab.send(&ask).lease(NA, 1);
        assert_eq!(lease, offer);
        assert!(seen.insert(lease));
    }
    // 256 addresses in the first pool (none reserved there), four in the second.
    for message in [solicit(), request()] {
        let answer = lab.send(&message.na(1, &[]).pd(2, &[]).done());
        let ia = answer.ia(NA, 1);
        assert_eq!((ia.status, ia.leases.len()), (Some(StatusCode::NO_ADDRS_AVAIL), 0));
        assert_eq!((ia.t1, ia.t2), (0, 0));
        answer.lease(PD, 2);
    }
    assert_eq!(lab.updates.len(), 1, "only the prefix");

    lab.interface = BETA;
    let other = |msg_type| Build::new(msg_type).client(OTHER);
    lab.send(&request().na(1, &[]).pd(1, &[]).done());
    let answer = lab.send(&other(MessageType::SOLICIT).na(1, &[]).pd(1, &[]).done());
    assert_eq!(answer.msg_type, MessageType::ADVERTISE);
    assert_eq!(answer.status, None, "the status stands in the IAs (section 18.3.9)");
    assert_eq!(answer.ia(NA, 1).status, Some(StatusCode::NO_ADDRS_AVAIL));
    assert_eq!(answer.ia(PD, 1).status, Some(StatusCode::NO_PREFIX_AVAIL));
    // Two IAs are not both offered the only address.
    lab.interface = GAMMA;
    let answer = lab.send(&solicit().na(1, &[]).na(2, &[]).done());
    answer.lease(NA, 1);
    assert_eq!(answer.ia(NA, 2).status, Some(StatusCode::NO_ADDRS_AVAIL));
}

#[test]
fn rapid_commit() {
    let mut lab = Lab::new();
    let message = solicit().rapid().na(1, &[]).done();
    assert_eq!(lab.send(&message).msg_type, MessageType::ADVERTISE, "not on this link");
    lab.interface = BETA;
    let reply = lab.send(&message);
    assert_eq!(reply.msg_type, MessageType::REPLY);
    assert_eq!(reply.codes(), [OptionCode::RAPID_COMMIT], "no preference in a REPLY");
    assert_eq!((reply.ia(NA, 1).t1, reply.ia(NA, 1).t2), (1000, 2000));
    assert!(lab.binding(reply.lease(NA, 1)).is_some());
    assert_eq!(lab.updates.len(), 1);
    assert_eq!(lab.send(&message), reply);
    // Nothing left: an ADVERTISE that says so.
    let other = Build::new(MessageType::SOLICIT).client(OTHER).rapid().na(1, &[]).done();
    let answer = lab.send(&other);
    assert_eq!(answer.msg_type, MessageType::ADVERTISE);
    assert_eq!(answer.ia(NA, 1).status, Some(StatusCode::NO_ADDRS_AVAIL));
    assert_eq!(answer.codes(), [OptionCode::PREFERENCE]);
    // A stale address in a SOLICIT is a hint and no claim.
    let stale = Build::valid(MessageType::SOLICIT).rapid().na(1, &[addr("2001:db9::1")]).done();
    assert_eq!(lab.send(&stale).lease(NA, 1), reply.lease(NA, 1));
    assert_eq!(lab.send(&solicit().na(1, &[]).done()).msg_type, MessageType::ADVERTISE);
}

#[test]
fn request_for_an_address_of_another_link() {
    let mut lab = Lab::new();
    let good = addr("2001:db8:a::1000");
    let answer = lab.send(&request().na(1, &[good, addr("2001:db8:b::1000")]).na(2, &[]).done());
    let ia = answer.ia(NA, 1);
    assert_eq!((ia.status, ia.leases.len()), (Some(StatusCode::NOT_ON_LINK), 0));
    answer.lease(NA, 2);
    assert_eq!(lab.server.table().len(), 1);
    // On the link, but in no pool: another address is given (section 18.3.2 allows that).
    let answer = lab.send(&request().na(3, &[addr("2001:db8:a::1")]).done());
    assert_ne!(answer.lease(NA, 3), addr("2001:db8:a::1"));
    // Where the prefixes are not known, nothing is judged.
    lab.interface = GAMMA;
    assert_eq!(
        lab.send(&request().na(1, &[addr("2001:db9::1")]).done()).lease(NA, 1),
        addr("2001:db8:c::1000")
    );
}

#[test]
fn temporary_addresses_are_not_assigned() {
    let mut lab = Lab::new();
    for message in [solicit(), request()] {
        let answer = lab.send(&message.ta(1, &[]).na(1, &[]).done());
        assert_eq!(answer.ia(IaKind::Ta, 1).status, Some(StatusCode::NO_ADDRS_AVAIL));
        answer.lease(NA, 1);
    }
    let answer = lab.send(&renew().ta(1, &[addr("2001:db8:a::7")]).na(1, &[]).done());
    assert_eq!(answer.ia(IaKind::Ta, 1).status, Some(StatusCode::NO_BINDING));
    let rebind = rebind().ta(1, &[]).done();
    assert_eq!(lab.drops(&rebind), DropReason::RebindUnknown);
    let release = Build::valid(MessageType::RELEASE).ta(1, &[]).done();
    assert_eq!(lab.send(&release).ia(IaKind::Ta, 1).status, Some(StatusCode::NO_BINDING));
}

#[test]
fn renew_and_rebind_extend() {
    for build in [renew as fn() -> Build, rebind] {
        let mut lab = Lab::new();
        let granted = lab.send(&request().na(1, &[]).pd(2, &[]).done());
        let (address, prefix) = (granted.lease(NA, 1), granted.lease(PD, 2));
        lab.now = NOW.plus(2000);
        let message = build().na(1, &[address]).pd(2, &[prefix]).done();
        assert_eq!(lab.send(&message).ias, granted.ias);
        assert_eq!(lab.binding(address).unwrap().state_expiration_time, NOW.plus(6000));
        assert_eq!(lab.updates.len(), 2);
        // Even a client that names no lease.
        assert_eq!(lab.send(&build().na(1, &[]).pd(2, &[]).done()).ias, granted.ias);
    }
}

#[test]
fn renew_of_what_is_not_bound() {
    let mut lab = Lab::new();
    let (wanted, off) = (addr("2001:db8:a::1077"), addr("2001:db9::1"));
    // Created, with the address that the client had; what is not on the link is lost.
    let answer = lab.send(&renew().na(1, &[wanted, off]).done());
    assert_eq!(answer.ia(NA, 1).leases, [(wanted, 3000, 4000), (off, 0, 0)]);
    // Another lease than the one bound: the bound one is extended, the other is lost.
    let mine_not = addr("2001:db8:a::1078");
    let answer = lab.send(&renew().na(1, &[mine_not]).done());
    assert_eq!(answer.ia(NA, 1).leases, [(wanted, 3000, 4000), (mine_not, 0, 0)]);
    assert_eq!(lab.server.table().len(), 1);
    // A prefix too; an unspecified one is only a hint.
    let hint = Lease::prefix(ip("::"), 60);
    assert_eq!(lab.send(&renew().pd(5, &[hint]).done()).lease(PD, 5).prefix_len, 60);

    // A link that creates nothing on RENEW.
    lab.interface = GAMMA;
    let answer = lab.send(&renew().na(9, &[wanted]).pd(9, &[]).done());
    for kind in [NA, PD] {
        let ia = answer.ia(kind, 9);
        assert_eq!((ia.status, ia.leases.len()), (Some(StatusCode::NO_BINDING), 0));
    }
    assert!(lab.updates.is_empty());
    // One that would, but has nothing left.
    lab.interface = BETA;
    let other = Build::new(MessageType::REQUEST).client(OTHER).server(SERVER);
    lab.send(&other.na(1, &[]).pd(1, &[]).done());
    let answer = lab.send(&renew().na(9, &[]).pd(9, &[]).done());
    assert_eq!(answer.ia(NA, 9).status, Some(StatusCode::NO_ADDRS_AVAIL));
    assert_eq!(answer.ia(PD, 9).status, Some(StatusCode::NO_PREFIX_AVAIL));
}

#[test]
fn rebind_of_what_is_not_bound() {
    let mut lab = Lab::new();
    // On the link, but another server's: silence.
    let (on, off) = (addr("2001:db8:a::1001"), addr("2001:db8:b::1000"));
    assert_eq!(lab.drops(&rebind().na(1, &[on]).done()), DropReason::RebindUnknown);
    assert_eq!(
        lab.drops(&rebind().pd(1, &[pd("2001:db9::/56")]).done()),
        DropReason::RebindUnknown
    );
    assert_eq!(lab.drops(&rebind().na(1, &[]).done()), DropReason::RebindUnknown);
    assert_eq!(lab.drops(&rebind().done()), DropReason::RebindUnknown);
    // Not on the link: lifetimes of 0 for that one.
    let answer = lab.send(&rebind().na(1, &[on, off]).done());
    assert_eq!((&answer.ia(NA, 1).leases[..], answer.ia(NA, 1).status), (&[(off, 0, 0)][..], None));
    assert!(lab.server.table().is_empty() && lab.updates.is_empty());
    // One IA known, the other not: NoBinding for that.
    let lease = lab.send(&request().na(1, &[]).done()).lease(NA, 1);
    let answer = lab.send(&rebind().na(1, &[lease]).na(2, &[on]).done());
    assert_eq!(answer.lease(NA, 1), lease);
    assert_eq!(answer.ia(NA, 2).status, Some(StatusCode::NO_BINDING));
    // With Rapid Commit the link creates bindings.
    lab.interface = BETA;
    assert_eq!(lab.send(&rebind().na(7, &[off]).done()).lease(NA, 7), off);
}

#[test]
fn a_lease_whose_pool_is_gone_is_replaced() {
    for (build, create) in [(renew as fn() -> Build, true), (renew, false), (rebind, false)] {
        let mut lab = Lab::new();
        let old = lab.send(&request().na(1, &[addr("2001:db8:a::1005")]).done()).lease(NA, 1);
        let table = lab.server.table().clone();
        let mut lab = Lab::on_table(table, |config| {
            config.links[0].na_pools.remove(0);
            config.links[0].create_on_renew = create;
        });
        let answer = lab.send(&build().na(1, &[old]).done());
        let [(new, 3000, 4000), lost] = answer.ia(NA, 1).leases[..] else { panic!("{answer:?}") };
        assert_eq!(lost, (old, 0, 0));
        assert_eq!(lab.server.table().pools().find(new, NA).unwrap().0, 1);
        let ia = answer.ia(NA, 1);
        assert_eq!((ia.t1, ia.t2), (1500, 2400), "times of the lease that lives");
        // Neither in offers nor in answers to a REQUEST does the old one appear.
        assert_eq!(lab.send(&solicit().na(1, &[old]).done()).lease(NA, 1), new);
        assert_eq!(lab.send(&request().na(1, &[new]).done()).lease(NA, 1), new);
    }
}

#[test]
fn a_client_that_moved() {
    let mut lab = Lab::new();
    let old = lab.send(&request().na(1, &[]).done()).lease(NA, 1);
    lab.interface = BETA;
    let answer = lab.send(&renew().na(1, &[old]).done());
    assert_eq!(answer.ia(NA, 1).leases, [(addr("2001:db8:b::1000"), 3000, 4000), (old, 0, 0)]);
    let answer = lab.send(&request().na(1, &[old]).done());
    assert_eq!(answer.ia(NA, 1).status, Some(StatusCode::NOT_ON_LINK));
}

#[test]
fn release() {
    let mut lab = Lab::new();
    let granted = lab.send(&request().na(1, &[]).pd(1, &[]).done());
    let (address, prefix) = (granted.lease(NA, 1), granted.lease(PD, 1));
    let release = || Build::valid(MessageType::RELEASE);
    // Somebody else's, and one that is not in the IA: passed over.
    let foreign = Build::new(MessageType::RELEASE).client(OTHER).server(SERVER);
    let answer = lab.send(&foreign.na(1, &[address]).done());
    assert_eq!(answer.ia(NA, 1).status, Some(StatusCode::NO_BINDING));
    let answer = lab.send(&release().na(1, &[addr("2001:db8:a::2001")]).done());
    assert_eq!((answer.status, &answer.ias[..]), (Some(StatusCode::SUCCESS), &[][..]));
    assert_eq!(lab.server.table().len(), 2);

    let message = release().na(1, &[address]).pd(1, &[prefix]).na(3, &[address]).done();
    let answer = lab.send(&message);
    assert_eq!(answer.status, Some(StatusCode::SUCCESS));
    assert_eq!((answer.ias.len(), answer.ia(NA, 3).status), (1, Some(StatusCode::NO_BINDING)));
    assert_eq!((lab.updates.len(), lab.server.table().len()), (2, 0));
    assert!(answer.options.is_empty());
    // Again: no binding any more, and success all the same.
    let answer = lab.send(&message);
    assert_eq!((answer.status, answer.ias.len()), (Some(StatusCode::SUCCESS), 3));
    assert!(lab.updates.is_empty());
    // Free for others.
    let other = Build::new(MessageType::REQUEST).client(OTHER).server(SERVER);
    assert_eq!(lab.send(&other.na(1, &[address]).done()).lease(NA, 1), address);
}

#[test]
fn decline() {
    let mut lab = Lab::new();
    let lease = lab.send(&request().na(1, &[]).done()).lease(NA, 1);
    let message = Build::valid(MessageType::DECLINE).na(1, &[lease]).na(2, &[lease]).done();
    let answer = lab.send(&message);
    assert_eq!((answer.status, answer.ias.len()), (Some(StatusCode::SUCCESS), 1));
    assert_eq!(answer.ia(NA, 2).status, Some(StatusCode::NO_BINDING));
    let binding = lab.binding(lease).unwrap();
    assert_eq!(binding.status, BindingStatus::Abandoned);
    assert_eq!(binding.state_expiration_time, NOW.plus(86_400));
    // The client gets another one, and nobody gets this.
    assert_ne!(lab.send(&solicit().na(1, &[lease]).done()).lease(NA, 1), lease);
    assert_ne!(lab.send(&request().na(1, &[lease]).done()).lease(NA, 1), lease);
    let other = Build::new(MessageType::REQUEST).client(OTHER).server(SERVER);
    assert_ne!(lab.send(&other.na(1, &[lease]).done()).lease(NA, 1), lease);
    // Prefixes cannot be declined.
    let prefix = lab.send(&request().pd(1, &[]).done()).lease(PD, 1);
    lab.send(&Build::valid(MessageType::DECLINE).pd(1, &[prefix]).done());
    assert_eq!(lab.binding(prefix).unwrap().status, BindingStatus::Active);
}

#[test]
fn confirm() {
    let mut lab = Lab::new();
    let confirm = || Build::valid(MessageType::CONFIRM);
    let (on, off) = (addr("2001:db8:a::42"), addr("2001:db8:b::42"));
    let mut status = |build: Build| lab.send(&build.done()).status;
    assert_eq!(status(confirm().na(1, &[on])), Some(StatusCode::SUCCESS));
    assert_eq!(status(confirm().na(1, &[on]).ta(2, &[on])), Some(StatusCode::SUCCESS));
    assert_eq!(status(confirm().na(1, &[on, off])), Some(StatusCode::NOT_ON_LINK));
    assert_eq!(status(confirm().na(1, &[off]).na(2, &[on])), Some(StatusCode::NOT_ON_LINK));
    for message in [confirm(), confirm().na(1, &[]), confirm().pd(1, &[pd("2001:db8:a000::/56")])] {
        assert_eq!(lab.drops(&message.done()), DropReason::NothingToConfirm);
    }
    // The prefixes of this link are not known, but its pool is.
    lab.interface = GAMMA;
    assert_eq!(lab.drops(&confirm().na(1, &[on]).done()), DropReason::NothingToConfirm);
    let answer = lab.send(&confirm().na(1, &[addr("2001:db8:c::1000")]).done());
    assert_eq!((answer.status, answer.ias.len()), (Some(StatusCode::SUCCESS), 0));
}

#[test]
fn options() {
    let mut lab = Lab::new();
    let all = [
        OptionCode::DOMAIN_LIST,
        OptionCode::SOL_MAX_RT,
        OptionCode::INF_MAX_RT,
        OptionCode::INFORMATION_REFRESH_TIME,
        OptionCode(300),
        OptionCode(301),
    ];
    let dns = OptionCode::DNS_SERVERS;
    assert_eq!(lab.send(&solicit().done()).codes(), [dns], "marked as always");
    let wanted = [dns, all[0], all[1], all[2], all[4]];
    for build in [solicit(), request(), renew()] {
        assert_eq!(lab.send(&build.oro(&all).na(1, &[]).done()).codes(), wanted);
    }
    let information = Build::valid(MessageType::INFORMATION_REQUEST);
    let answer = lab.send(&information.oro(&all).done());
    assert_eq!(answer.codes(), [dns, all[0], all[1], all[2], all[3], all[4]]);
    let values: Vec<&[u8]> = answer.options.iter().map(|(_, data)| &data[..]).collect();
    assert_eq!(
        values[1..],
        [
            &b"\x07example\x03org\x00"[..],
            &7200_u32.to_be_bytes(),
            &3600_u32.to_be_bytes(),
            &1200_u32.to_be_bytes(),
            b"far"
        ]
    );
    for msg_type in [MessageType::RELEASE, MessageType::CONFIRM] {
        let message = Build::valid(msg_type).oro(&all).na(1, &[addr("2001:db8:a::1")]).done();
        assert!(lab.send(&message).options.is_empty());
    }
}

#[test]
fn infinite_lifetimes() {
    let mut lab = Lab::with(|config| {
        config.links[0].preferred_lifetime = INFINITY;
        config.links[0].valid_lifetime = INFINITY;
    });
    let answer = lab.send(&request().na(1, &[]).done());
    let ia = answer.ia(NA, 1);
    assert_eq!(
        (ia.t1, ia.t2, ia.leases[0].1, ia.leases[0].2),
        (INFINITY, INFINITY, INFINITY, INFINITY)
    );
    lab.service = Service::ReadOnly;
    assert_eq!(lab.send(&renew().na(1, &[]).done()).ias, answer.ias);
}

#[test]
fn read_only_service() {
    let mut lab = Lab::new();
    let lease = lab.send(&request().na(1, &[]).done()).lease(NA, 1);
    lab.now = NOW.plus(1000);
    lab.service = Service::ReadOnly;
    for build in [solicit(), request(), renew(), rebind()] {
        let msg_type = build.done()[0];
        let build = || Build::valid(MessageType(msg_type)).na(1, &[lease]);
        let answer = lab.send(&build().done());
        assert_eq!(answer.ia(NA, 1).leases, [(lease, 2000, 3000)], "what is left");
        assert_eq!((answer.ia(NA, 1).t1, answer.ia(NA, 1).t2), (1000, 1600));
        assert!(lab.updates.is_empty());
        // Beside it, an IA that would need a write.
        let answer = lab.send(&build().pd(2, &[]).done());
        if [MessageType::RENEW.0, MessageType::REBIND.0].contains(&msg_type) {
            assert_eq!(answer.ias.len(), 1, "not a word about it");
        } else {
            assert_eq!(answer.ia(PD, 2).status, Some(StatusCode::NO_PREFIX_AVAIL));
        }
        let unknown = Build::valid(MessageType(msg_type)).na(9, &[]).done();
        assert_eq!(lab.drops(&unknown), DropReason::StoreReadOnly);
    }
    for msg_type in [MessageType::RELEASE, MessageType::DECLINE] {
        let message = Build::valid(msg_type).na(1, &[lease]).done();
        assert_eq!(lab.drops(&message), DropReason::StoreReadOnly);
    }
    lab.send(&Build::valid(MessageType::INFORMATION_REQUEST).done());
    lab.send(&Build::valid(MessageType::CONFIRM).na(1, &[lease]).done());
    lab.send(&solicit().done());
    // A binding that is not stored is not spoken of; one that is over neither.
    lab.server.table().mark_unstored(lease);
    assert_eq!(lab.drops(&renew().na(1, &[lease]).done()), DropReason::StoreReadOnly);
    lab.server.table().clear_unstored();
    lab.send(&renew().na(1, &[lease]).done());
    lab.now = NOW.plus(4000);
    assert_eq!(lab.drops(&renew().na(1, &[lease]).done()), DropReason::StoreReadOnly);
    assert_eq!(lab.binding(lease).unwrap().state_expiration_time, NOW.plus(4000));
}

#[test]
fn relays() {
    let mut lab = Lab::new();
    lab.interface = 99;
    let level = |hop_count, link: &str, peer: &str, options: &[(OptionCode, &[u8])]| Level {
        hop_count,
        link: ip(link),
        peer: ip(peer),
        options: options.iter().map(|(code, data)| (*code, data.to_vec())).collect(),
    };
    let (id, port) = (OptionCode::INTERFACE_ID, OptionCode::RELAY_PORT);
    let remote = (OptionCode::REMOTE_ID, &b"\0\0\0\x09x"[..]);
    let (a, b) = ("2001:db8:a::/64", "2001:db8:b::/64");
    // Levels from the client outwards, the link of the answer, the port of the answer.
    let inner_a = level(0, "2001:db8:a::1", "fe80::9", &[]);
    let cases = [
        (vec![inner_a.clone()], a, 547),
        (vec![level(0, "2001:db8:a:ff::1", "fe80::9", &[])], b, 547),
        (vec![level(0, "2001:db8:a::1", "fe80::9", &[(id, b"port-b"), remote])], b, 547),
        (vec![level(0, "2001:db8:a::1", "fe80::9", &[(id, b"unknown")])], a, 547),
        (vec![inner_a.clone(), level(1, "2001:db8:b::1", "fe80::1", &[])], a, 547),
        (vec![level(0, "::", "fe80::9", &[]), level(1, "2001:db8:b::1", "fe80::1", &[])], b, 547),
        (vec![inner_a.clone(), level(1, "::", "fe80::1", &[(id, b"port-b")])], b, 547),
        (
            vec![
                level(0, "::", "fe80::9", &[(id, b"port-a")]),
                level(1, "2001:db8:b::1", "fe80::1", &[(id, b"port-b"), (port, &[1, 2])]),
            ],
            a,
            2000,
        ),
        (
            vec![level(0, "2001:db8:a::1", "::", &[(port, &[0, 0])]), level(1, "::", "::", &[])],
            a,
            547,
        ),
        (
            (0..9).map(|hop| level(hop, "2001:db8:a::1", "fe80::9", &[(id, b"port-a")])).collect(),
            a,
            547,
        ),
    ];
    for (levels, link, expected_port) in cases {
        let message = solicit().na(1, &[]).done();
        let message = levels.iter().fold(message, |message, level| relay(level, &message));
        let inbound =
            Inbound { source: ip("2001:db8::99"), source_port: 2000, ..lab.inbound(&message) };
        let (info, reply) = lab.handle(&inbound).unwrap();
        assert_eq!(info.destination_port, expected_port, "{levels:?}");
        assert_eq!((info.request, info.reply), (MessageType::SOLICIT, MessageType::ADVERTISE));
        let answer = Answer::read(&reply);
        let mut expected: Vec<_> = levels.into_iter().rev().collect();
        expected.iter_mut().for_each(|l| l.options.retain(|(code, _)| [id, port].contains(code)));
        assert_eq!(answer.relays, expected);
        assert!(prefix(link).contains(answer.lease(NA, 1).address), "{link}: {answer:?}");
    }
}

#[test]
fn links_of_direct_clients() {
    let mut lab = Lab::new();
    let message = solicit().na(1, &[]).done();
    lab.interface = 77;
    assert_eq!(lab.drops(&message), DropReason::NoLink);
    // An interface that appears late.
    assert_eq!(lab.server.link_name(1), Some("beta"));
    assert!(lab.server.set_interface(1, Some(77)));
    assert_eq!(lab.send(&message).lease(NA, 1), addr("2001:db8:b::1000"));
    // A source address of wider scope tells the link (section 13.1).
    let inbound = Inbound { source: ip("2001:db8:a::5"), ..lab.inbound(&message) };
    let (_, reply) = lab.handle(&inbound).unwrap();
    assert!(prefix("2001:db8:a::/64").contains(Answer::read(&reply).lease(NA, 1).address));
}

#[test]
fn a_lease_that_is_over_but_not_swept_up_is_extended() {
    let mut lab = Lab::new();
    let lease = lab.send(&request().na(1, &[]).done()).lease(NA, 1);
    lab.now = NOW.plus(5000);
    assert_eq!(lab.send(&solicit().na(1, &[]).done()).lease(NA, 1), lease);
    assert_eq!(lab.send(&renew().na(1, &[lease]).done()).lease(NA, 1), lease);
    assert_eq!(lab.binding(lease).unwrap().state_expiration_time, NOW.plus(9000));
    // After the sweep the client still gets the same address anew.
    lab.now = NOW.plus(20_000);
    lab.server.table().expire(lab.now, 100, &mut Ignore);
    assert!(lab.server.table().is_empty());
    assert_eq!(lab.send(&renew().na(1, &[lease]).done()).lease(NA, 1), lease);
}
