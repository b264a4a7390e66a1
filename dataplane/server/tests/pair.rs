//! RFC 8156 section 8: what is answered in which failover state, and for how long leases last.

mod support;

use std::sync::Arc;

use gemel_lease::{
    AbsoluteTime, Acknowledged, Binding, BindingStatus, ClientDuid, Collect, IaKind, Lease,
    LeaseTable, Ownership, PairPolicy, PairRules, PoolSet, Responsiveness, TableConfig, Verdict,
};
use gemel_server::{DropReason, LinkConfig, Service};
use gemel_wire::{IaId, MessageType, StatusCode};
use proptest::{collection::vec, prelude::*, test_runner::FileFailurePersistence};
use support::*;

const NA: IaKind = IaKind::Na;
const PD: IaKind = IaKind::Pd;
const MCLT: u32 = 600;

/// One server of a pair.
struct Half {
    lab: Lab,
    policy: Arc<PairPolicy>,
}

impl Half {
    fn new(ownership: Ownership) -> Self {
        Self::with(ownership, |_| {})
    }

    fn with(ownership: Ownership, change: impl Fn(&mut LinkConfig)) -> Self {
        let sole = pools();
        let configs = sole.ids().map(|id| {
            let mut config = *sole.config(id);
            config.ownership = ownership;
            config
        });
        let pools = PoolSet::new(configs.collect()).unwrap();
        let config = TableConfig { hash_key: [7; 16], client_stripes: 2, expected_bindings: 100 };
        let policy = Arc::new(PairPolicy::new());
        let lab = Lab::on_table(Arc::new(LeaseTable::new(&config, pools)), |config| {
            for link in &mut config.links {
                link.pair = Some(Arc::clone(&policy));
                change(link);
            }
        });
        let half = Self { lab, policy };
        half.set(Responsiveness::Responsive, Some(MCLT));
        half
    }

    fn set(&self, responsiveness: Responsiveness, mclt: Option<u32>) {
        self.policy.set(PairRules { responsiveness, mclt });
    }

    fn table(&self) -> &Arc<LeaseTable> {
        self.lab.server.table()
    }

    /// Tells the partner all there is, and it agrees.
    fn agree(&self) {
        let mut pending = Vec::new();
        let stripes = 0..self.table().stripe_count();
        stripes.for_each(|i| self.table().collect(i, Collect::Pending, |_| true, &mut pending));
        for record in pending {
            let (lease, acked) = (record.binding.lease, Some(record.binding.partner_lifetime));
            let now = self.lab.now;
            let done = self.table().acknowledge(lease, record.stamp, acked, now, &mut Ignore);
            assert!(matches!(done, Acknowledged::Current | Acknowledged::Freed));
        }
    }

    /// The partner gave the lease to the usual client.
    fn told(&self, lease: Lease, status: BindingStatus) {
        let binding = Binding {
            lease,
            kind: if lease.prefix_len == 128 { NA } else { PD },
            status,
            duid: ClientDuid::new(CLIENT),
            iaid: IaId(1),
            preferred_lifetime: 3000,
            valid_lifetime: 4000,
            state_expiration_time: self.lab.now.plus(4000),
            start_time_of_state: self.lab.now,
            ..Binding::EMPTY
        };
        let stored = self.table().apply(lease, |_| Verdict::Store(binding.clone()), &mut Ignore);
        assert!(stored);
    }
}

fn message(msg_type: MessageType, leases: &[Lease]) -> Vec<u8> {
    Build::valid(msg_type).na(1, leases).done()
}

/// One message of each type, and what a state makes of it.
fn of_each_type(lease: Lease) -> Vec<(MessageType, Vec<u8>)> {
    let mut messages = Vec::new();
    for msg_type in [
        MessageType::SOLICIT,
        MessageType::REQUEST,
        MessageType::CONFIRM,
        MessageType::RENEW,
        MessageType::REBIND,
        MessageType::RELEASE,
        MessageType::DECLINE,
    ] {
        messages.push((msg_type, message(msg_type, &[lease])));
    }
    let information = MessageType::INFORMATION_REQUEST;
    messages.push((information, Build::valid(information).done()));
    messages
}

#[test]
fn unresponsive_is_silent() {
    let mut half = Half::new(Ownership::Primary);
    let lease = half.lab.send(&message(MessageType::REQUEST, &[])).lease(NA, 1);
    half.set(Responsiveness::Unresponsive, Some(MCLT));
    for (msg_type, octets) in of_each_type(lease) {
        assert_eq!(half.lab.drops(&octets), DropReason::FailoverUnresponsive, "{msg_type:?}");
    }
    // As a policy begins.
    half.policy.set(PairPolicy::new().load());
    assert_eq!(half.lab.drops(&message(MessageType::RENEW, &[])), DropReason::FailoverUnresponsive);
}

#[test]
fn renew_responsive_answers_those_who_name_it() {
    let mut half = Half::new(Ownership::Secondary);
    let lease = half.lab.send(&message(MessageType::REQUEST, &[])).lease(NA, 1);
    half.set(Responsiveness::RenewResponsive, Some(MCLT));
    for (msg_type, octets) in of_each_type(lease) {
        if matches!(
            msg_type,
            MessageType::SOLICIT
                | MessageType::CONFIRM
                | MessageType::REBIND
                | MessageType::INFORMATION_REQUEST
        ) {
            assert_eq!(half.lab.drops(&octets), DropReason::FailoverStandby, "{msg_type:?}");
        }
    }
    let renewed = half.lab.send(&message(MessageType::RENEW, &[lease]));
    assert_eq!(renewed.lease(NA, 1), lease);
    assert_eq!(half.lab.send(&message(MessageType::REQUEST, &[lease])).lease(NA, 1), lease);
    let information = Build::valid(MessageType::INFORMATION_REQUEST).server(SERVER).done();
    half.lab.send(&information);
    let other = Build::new(MessageType::RENEW).client(CLIENT).server(OTHER).na(1, &[lease]).done();
    assert_eq!(half.lab.drops(&other), DropReason::ServerIdMismatch);
    half.lab.send(&message(MessageType::RELEASE, &[lease]));
    assert_eq!(half.table().status(lease), Some(BindingStatus::Released));
}

#[test]
fn recover_done_extends_what_is_recorded() {
    let mut half = Half::new(Ownership::Primary);
    let lease = half.lab.send(&message(MessageType::REQUEST, &[])).lease(NA, 1);
    half.set(Responsiveness::RenewRecorded, Some(MCLT));
    for (msg_type, octets) in of_each_type(lease) {
        if msg_type != MessageType::RENEW {
            assert_eq!(half.lab.drops(&octets), DropReason::FailoverStandby, "{msg_type:?}");
        }
    }
    // The IA that is recorded is extended; nothing is said of the other, nor of another lease.
    half.lab.now = half.lab.now.plus(100);
    let strange = addr("2001:db8:a::10aa");
    let renew = Build::valid(MessageType::RENEW).na(1, &[lease, strange]).pd(7, &[]).na(2, &[]);
    let answer = half.lab.send(&renew.done());
    assert_eq!(answer.ias.len(), 1);
    assert_eq!(answer.ia(NA, 1).leases, [(lease, MCLT, MCLT)]);
    assert_eq!((half.table().len(), half.lab.updates.len()), (1, 1));
    let end = half.lab.binding(lease).unwrap().state_expiration_time;
    assert_eq!(end, half.lab.now.plus(MCLT));

    let unknown = Build::valid(MessageType::RENEW).na(2, &[lease]).done();
    assert_eq!(half.lab.drops(&unknown), DropReason::FailoverStandby);
    assert_eq!(
        half.lab.drops(&Build::valid(MessageType::RENEW).done()),
        DropReason::FailoverStandby
    );
    let guard_key = half.lab.binding(lease).unwrap();
    assert!(half.table().lock(guard_key.client_key()).release(lease, NOW, &mut Ignore));
    let released = message(MessageType::RENEW, &[lease]);
    assert_eq!(half.lab.drops(&released), DropReason::FailoverStandby);
    assert_eq!(half.table().status(lease), Some(BindingStatus::Released));
}

#[test]
fn the_first_lease_lasts_the_mclt_and_the_next_the_full_time() {
    let mut half = Half::new(Ownership::Primary);
    let ask = |msg_type| Build::valid(msg_type).na(1, &[]).pd(1, &[]).done();
    let limited = |answer: &Answer| {
        for ia in &answer.ias {
            assert_eq!((ia.leases[0].1, ia.leases[0].2), (MCLT, MCLT));
            assert_eq!((ia.t1, ia.t2), (MCLT / 2, MCLT * 8 / 10));
        }
    };
    let offer = half.lab.send(&ask(MessageType::SOLICIT));
    limited(&offer);
    let first = half.lab.send(&ask(MessageType::REQUEST));
    limited(&first);
    assert_eq!(offer.lease(PD, 1), first.lease(PD, 1));
    // Nothing has been heard of the partner.
    half.lab.now = half.lab.now.plus(MCLT / 2);
    limited(&half.lab.send(&ask(MessageType::RENEW)));
    limited(&half.lab.send(&ask(MessageType::SOLICIT)));

    half.agree();
    half.lab.now = half.lab.now.plus(MCLT / 2);
    for msg_type in [MessageType::SOLICIT, MessageType::RENEW] {
        let full = half.lab.send(&ask(msg_type));
        for ia in &full.ias {
            assert_eq!((ia.leases[0].1, ia.leases[0].2), (3000, 4000));
            assert_eq!((ia.t1, ia.t2), (1500, 2400));
        }
        assert_eq!(full.lease(NA, 1), first.lease(NA, 1));
    }
    // In PARTNER-DOWN nothing is limited.
    half.set(Responsiveness::Responsive, None);
    let other = Build::new(MessageType::REQUEST).client(OTHER).server(SERVER).na(1, &[]).done();
    assert_eq!(half.lab.send(&other).ia(NA, 1).leases[0].2, 4000);
}

/// A client that comes back later than after half of the lifetime is reckoned with.
#[test]
fn with_a_late_t1_the_full_time_is_given_again() {
    let mut half = Half::with(Ownership::Primary, |link| {
        (link.t1, link.t2) = (Some(2900), Some(3000));
    });
    let lease = half.lab.send(&message(MessageType::REQUEST, &[])).lease(NA, 1);
    // A short lease: T1 does not fit, half of it does.
    assert_eq!(half.lab.binding(lease).unwrap().partner_lifetime, half.lab.now.plus(600 + 4000));
    for wait in [300, 2900, 2900] {
        half.agree();
        half.lab.now = half.lab.now.plus(wait);
        let answer = half.lab.send(&message(MessageType::RENEW, &[lease]));
        assert_eq!(answer.ia(NA, 1).leases, [(lease, 3000, 4000)]);
        assert_eq!(answer.ia(NA, 1).t1, 2900);
    }
}

#[test]
fn a_lease_that_the_partner_gave_is_extended() {
    // An address and a prefix that this server would not give to anybody.
    let (address, prefix) = (addr("2001:db8:a::1000"), pd("2001:db8:a000:500::/56"));
    for msg_type in
        [MessageType::SOLICIT, MessageType::REQUEST, MessageType::RENEW, MessageType::REBIND]
    {
        let mut half = Half::new(Ownership::Primary);
        half.told(address, BindingStatus::Active);
        half.told(prefix, BindingStatus::Active);
        half.lab.now = half.lab.now.plus(1000);
        let ask = Build::valid(msg_type).na(1, &[]).pd(1, &[]).done();
        let answer = half.lab.send(&ask);
        assert_eq!((answer.lease(NA, 1), answer.lease(PD, 1)), (address, prefix));
        assert_eq!(answer.ia(NA, 1).leases[0].2, MCLT);
        // What is left, while nothing can be stored.
        let mut half = Half::new(Ownership::Primary);
        half.told(address, BindingStatus::Active);
        half.lab.now = half.lab.now.plus(1000);
        half.lab.service = Service::ReadOnly;
        let answer = half.lab.send(&message(msg_type, &[]));
        assert_eq!(answer.ia(NA, 1).leases, [(address, 2000, 3000)]);
    }
}

#[test]
fn a_client_that_lost_its_lease_hears_so_and_gets_another() {
    for msg_type in [MessageType::REBIND, MessageType::RENEW] {
        let mut half = Half::with(Ownership::Primary, |link| {
            link.create_on_renew = false;
            link.create_on_rebind = Some(false);
        });
        // Expired for the partner; it may be somebody else's by now.
        let old = addr("2001:db8:a::1000");
        half.told(old, BindingStatus::Expired);
        let answer = half.lab.send(&message(msg_type, &[old]));
        let leases = &answer.ia(NA, 1).leases;
        assert_eq!(leases.len(), 2);
        assert!(leases.contains(&(old, 0, 0)));
        assert!(leases.iter().any(|(lease, _, valid)| *lease != old && *valid == MCLT));
        assert_eq!(half.table().status(old), Some(BindingStatus::Expired));
        // Of others this server knows nothing.
        let other = Build::new(MessageType::REBIND).client(OTHER).na(1, &[old]).done();
        assert_eq!(half.lab.drops(&other), DropReason::RebindUnknown);
    }
}

#[test]
fn what_was_released_and_not_told_is_offered_and_given_again() {
    let mut half = Half::new(Ownership::Primary);
    let lease = half.lab.send(&message(MessageType::REQUEST, &[])).lease(NA, 1);
    half.lab.send(&message(MessageType::RELEASE, &[lease]));
    assert_eq!(half.lab.send(&message(MessageType::SOLICIT, &[])).lease(NA, 1), lease);
    assert_eq!(half.lab.send(&message(MessageType::REQUEST, &[])).lease(NA, 1), lease);
    half.lab.send(&message(MessageType::RELEASE, &[lease]));
    half.table().begin_update(lease, u64::MAX, false).update().unwrap();
    let other = half.lab.send(&message(MessageType::SOLICIT, &[lease])).lease(NA, 1);
    assert_ne!(other, lease);
    assert_eq!(half.lab.send(&message(MessageType::REQUEST, &[lease])).lease(NA, 1), other);
    // The partner agrees that it is free.
    half.agree();
    assert_eq!(half.table().status(lease), Some(BindingStatus::Free));
}

#[test]
fn the_secondary_has_no_prefixes_before_it_is_given_some() {
    let mut half = Half::new(Ownership::Secondary);
    let ask = Build::valid(MessageType::SOLICIT).pd(1, &[]).done();
    assert_eq!(half.lab.send(&ask).ia(PD, 1).status, Some(StatusCode::NO_PREFIX_AVAIL));
    let prefix = pd("2001:db8:a000:500::/56");
    let free_backup = |before: &Binding| {
        Verdict::Store(Binding { status: BindingStatus::FreeBackup, ..before.clone() })
    };
    assert!(half.table().apply(prefix, free_backup, &mut Ignore));
    assert_eq!(half.lab.send(&ask).lease(PD, 1), prefix);
}

#[derive(Clone, Debug)]
enum Step {
    Message { msg_type: u8, client: u8, iaid: u32, named: Option<u16>, prefix: bool },
    Agree,
    Told { number: u16, status: BindingStatus },
    Pass { secs: u32 },
    Rules { responsiveness: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let named = prop::option::of(0..4_u16);
    let status = prop_oneof![
        Just(BindingStatus::Active),
        Just(BindingStatus::Expired),
        Just(BindingStatus::Free),
        Just(BindingStatus::Abandoned),
    ];
    prop_oneof![
        12 => (1..12_u8, 0..2_u8, 1..3_u32, named, any::<bool>()).prop_map(
            |(msg_type, client, iaid, named, prefix)| Step::Message {
                msg_type, client, iaid, named, prefix,
            }
        ),
        2 => Just(Step::Agree),
        2 => (0..4_u16, status).prop_map(|(number, status)| Step::Told { number, status }),
        3 => (0..3000_u32).prop_map(|secs| Step::Pass { secs }),
        1 => (0..6_u8).prop_map(|responsiveness| Step::Rules { responsiveness }),
    ]
}

fn named(number: u16, prefix: bool) -> Lease {
    if prefix {
        pd(&format!("2001:db8:a000:{number}00::/56"))
    } else {
        addr(&format!("2001:db8:a::100{number}"))
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/pair.proptest-regressions",
        ))),
        ..ProptestConfig::default()
    })]

    /// Section 4.4: no client believes in a lease for longer than the MCLT beyond what the partner
    /// has acknowledged, or beyond now.
    #[test]
    fn no_lease_outlasts_the_mclt(
        secondary in any::<bool>(),
        steps in vec(step(), 1..40),
    ) {
        let ownership = if secondary { Ownership::Secondary } else { Ownership::Primary };
        let mut half = Half::new(ownership);
        for step in steps {
            match step {
                Step::Agree => half.agree(),
                Step::Told { number, status } => half.told(named(number, number & 1 == 0), status),
                Step::Pass { secs } => {
                    half.lab.now = half.lab.now.plus(secs);
                    half.table().expire(half.lab.now, 100, &mut Ignore);
                }
                Step::Rules { responsiveness } => half.set(
                    match responsiveness {
                        0 => Responsiveness::Unresponsive,
                        1 => Responsiveness::RenewRecorded,
                        2 => Responsiveness::RenewResponsive,
                        _ => Responsiveness::Responsive,
                    },
                    Some(MCLT),
                ),
                Step::Message { msg_type, client, iaid, named: number, prefix } => {
                    let duid = if client == 0 { CLIENT } else { OTHER };
                    let leases: Vec<_> = number.map(|n| named(n, prefix)).into_iter().collect();
                    let build = Build::new(MessageType(msg_type)).client(duid);
                    let build = if matches!(msg_type, 3 | 5 | 8 | 9) { build.server(SERVER) } else { build };
                    let build =
                        if prefix { build.pd(iaid, &leases) } else { build.na(iaid, &leases) };
                    let octets = build.done();
                    let before = acked(&half);
                    let promised = ends(&half);
                    let Ok((_, reply)) = half.lab.handle(&half.lab.inbound(&octets)) else {
                        continue;
                    };
                    for (lease, _, valid) in Answer::read(&reply).ias.iter().flat_map(|ia| &ia.leases) {
                        let acked = before.iter().find(|(known, _)| known == lease);
                        let acked = acked.map_or(0, |(_, time)| time.remaining(half.lab.now));
                        prop_assert!(*valid <= acked + MCLT, "{lease} for {valid} s");
                        if *valid > 0 && !half.lab.updates.is_empty() {
                            let binding = half.lab.binding(*lease).unwrap();
                            prop_assert!(binding.update_pending);
                            // A shorter lifetime does not end a longer one.
                            let earlier = promised.iter().filter(|(known, _)| known == lease);
                            let end = earlier.map(|(_, end)| *end).fold(half.lab.now.plus(*valid), Ord::max);
                            prop_assert_eq!(binding.state_expiration_time, end);
                        }
                    }
                }
            }
        }
    }
}

/// Until when clients have been given their leases.
fn ends(half: &Half) -> Vec<(Lease, AbsoluteTime)> {
    let mut ends = Vec::new();
    half.table().for_each(|b| {
        if b.status == BindingStatus::Active {
            ends.push((b.lease, b.state_expiration_time));
        }
    });
    ends
}

/// What the partner has acknowledged.
fn acked(half: &Half) -> Vec<(Lease, AbsoluteTime)> {
    let mut acked = Vec::new();
    half.table().for_each(|b| acked.push((b.lease, b.acked_partner_lifetime)));
    acked
}
